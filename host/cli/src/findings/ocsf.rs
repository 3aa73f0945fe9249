//! OCSF 1.3.0, for security data lakes and SIEMs: one Detection Finding (class 2004) for each finding, with the profile
//! Security Control, because a gate is one.
//!
//! The numbers are those of <https://schema.ocsf.io/1.3.0/classes/detection_finding>.

use jiff::Timestamp;
use serde_json::{Value, json};
use sluice_api_types::operation::OperationResult;
use sluice_protocol::ending::State;
use sluice_protocol::report::{Confidence, Finding, Mode, Severity};

use super::fingerprint;

const CLASS: u32 = 2004;
/// Of the category Findings.
const CATEGORY: u32 = 2;
/// Of the activity Create.
const CREATE: u32 = 1;

/// One event for each finding of an operation. `submitted` is when the job was, in RFC 3339.
///
/// # Errors
///
/// The host's times are none.
pub(crate) fn events(result: &OperationResult, submitted: &str) -> Result<Vec<Value>, jiff::Error> {
    let time = result.finished_at.as_deref().unwrap_or(submitted);
    let time = time.parse::<Timestamp>()?.as_millisecond();
    let findings = result.findings.iter().enumerate();
    Ok(findings
        .map(|(index, finding)| event(result, finding, index, time))
        .collect())
}

fn event(result: &OperationResult, finding: &Finding, index: usize, time: i64) -> Value {
    let (severity_id, severity) = severity(finding.severity);
    let (confidence_id, confidence) = confidence(finding.confidence);
    let outcome = Outcome::of(result.state, finding.mode);
    let receipt = result
        .receipts
        .iter()
        .find(|receipt| receipt.plugin == finding.gate);
    let version = receipt.map(|receipt| receipt.version.as_str());
    let mut event = json!({
        "activity_id": CREATE,
        "activity_name": "Create",
        "category_uid": CATEGORY,
        "category_name": "Findings",
        "class_uid": CLASS,
        "class_name": "Detection Finding",
        "type_uid": CLASS * 100 + CREATE,
        "type_name": "Detection Finding: Create",
        "time": time,
        "severity_id": severity_id,
        "severity": severity,
        "confidence_id": confidence_id,
        "confidence": confidence,
        "status_id": 1,
        "status": "New",
        "action_id": outcome.action.0,
        "action": outcome.action.1,
        "disposition_id": outcome.disposition.0,
        "disposition": outcome.disposition.1,
        "message": finding.message,
        "metadata": {
            "version": "1.3.0",
            "profiles": ["security_control"],
            "uid": format!("{}/{index}", result.operation),
            "correlation_uid": result.operation,
            "tenant_uid": result.tenant,
            "product": {
                "name": "Sluice",
                "vendor_name": "Sluice",
                "version": env!("CARGO_PKG_VERSION"),
                "feature": { "name": finding.gate, "version": version },
            },
        },
        "finding_info": {
            "uid": fingerprint(result, finding),
            "title": finding.rule,
            "desc": finding.message,
            "created_time": time,
            "analytic": {
                "type_id": 1,
                "type": "Rule",
                "uid": finding.rule,
                "name": finding.rule,
                "category": finding.gate,
                "version": version,
            },
        },
        "device": { "type_id": 0, "type": "Unknown", "name": result.machine },
        "evidences": [{
            "data": {
                "subject": finding.subject,
                "line": finding.line,
                "column": finding.column,
                "range": finding.primary,
                "script_sha256": result.script_sha256,
                "bundle_sha256": result.bundle_sha256,
            },
        }],
        "unmapped": {
            "job": result.job,
            "operation": result.operation,
            "state": result.state,
            "outcome": result.message,
            "mode": finding.mode,
            "attributes": finding.attributes,
        },
    });
    if let Some(remediation) = &finding.remediation {
        event["remediation"] = json!({ "desc": remediation });
    }
    without_nulls(event)
}

/// The schema has no null: what is not known is left out.
fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(map) => Value::Object(
            map.into_iter()
                .filter(|(_, value)| !value.is_null())
                .map(|(key, value)| (key, without_nulls(value)))
                .collect(),
        ),
        Value::Array(items) => Value::Array(items.into_iter().map(without_nulls).collect()),
        other => other,
    }
}

/// What became of the operation that the finding is about.
struct Outcome {
    action: (u32, &'static str),
    disposition: (u32, &'static str),
}

impl Outcome {
    fn of(state: State, mode: Mode) -> Self {
        let (action, disposition) = match (state.status(), mode) {
            (None, _) => ((0, "Unknown"), (0, "Unknown")),
            _ if state == State::Blocked => ((2, "Denied"), (2, "Blocked")),
            (Some(_), Mode::Enforce) => ((1, "Allowed"), (1, "Allowed")),
            (Some(_), Mode::Monitor) => ((1, "Allowed"), (17, "Logged")),
        };
        Self {
            action,
            disposition,
        }
    }
}

const fn severity(severity: Severity) -> (u32, &'static str) {
    match severity {
        Severity::Info => (1, "Informational"),
        Severity::Low => (2, "Low"),
        Severity::Medium => (3, "Medium"),
        Severity::High => (4, "High"),
        Severity::Critical => (5, "Critical"),
    }
}

const fn confidence(confidence: Confidence) -> (u32, &'static str) {
    match confidence {
        Confidence::Low => (1, "Low"),
        Confidence::Medium => (2, "Medium"),
        Confidence::High => (3, "High"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::blocked;
    use super::*;

    #[test]
    fn an_event_has_what_the_class_requires_and_what_became_of_it() {
        let result = blocked();
        let events = events(&result, "2026-11-21T05:00:00Z").expect("has a time");
        assert_eq!(events.len(), 2);
        let (first, second) = (&events[0], &events[1]);
        for key in [
            "activity_id",
            "category_uid",
            "class_uid",
            "type_uid",
            "time",
            "severity_id",
        ] {
            assert!(first[key].is_u64(), "{key}: {first}");
        }
        assert_eq!(
            (&first["class_uid"], &first["type_uid"]),
            (&json!(2004), &json!(200_401))
        );
        assert_eq!(first["time"], 1_795_240_800_500_u64);
        assert_eq!(
            (&first["severity_id"], &second["severity_id"]),
            (&json!(4), &json!(1))
        );
        assert_eq!(
            (&first["action_id"], &first["disposition_id"]),
            (&json!(2), &json!(2))
        );
        assert_eq!(first["remediation"]["desc"], "attach the file");
        for key in ["uid", "title"] {
            assert!(first["finding_info"][key].is_string(), "{key}: {first}");
        }
        assert_eq!(first["metadata"]["version"], "1.3.0");
        assert_ne!(first["metadata"]["uid"], second["metadata"]["uid"]);
        assert!(!second.to_string().contains("null"), "{second}");
    }

    #[test]
    fn what_monitors_logs_and_what_runs_was_allowed() {
        let mut result = blocked();
        result.state = State::Succeeded;
        let of = |result: &OperationResult| {
            let events = events(result, "2026-11-21T05:00:00Z").expect("has a time");
            events
                .iter()
                .map(|event| event["disposition_id"].as_u64().unwrap_or_default())
                .collect::<Vec<_>>()
        };
        assert_eq!(of(&result), [1, 17]);
        result.state = State::Running;
        assert_eq!(of(&result), [0, 0]);
        result.finished_at = Some("yesterday".to_owned());
        assert!(events(&result, "2026-11-21T05:00:00Z").is_err());
    }
}
