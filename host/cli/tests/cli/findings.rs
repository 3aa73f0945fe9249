//! Findings in the formats of others.

use serde_json::{Value, json};

use crate::host::{Host, JOB, OPERATIONS, ending, job, result};
use crate::schema;

/// The schema of the OASIS Technical Committee, word for word.
const SARIF: &str = include_str!("sarif-schema-2.1.0.json");

/// A host with a job of two operations: one that a finding blocked, and one that no gate was asked about.
fn host() -> Host {
    let (_, mut blocked) = result(
        0,
        "blocked",
        -1,
        "Security scan detected potential threat: it's $(no)",
    );
    let finding = json!({
        "rule": "download-and-run", "severity": "high", "confidence": "medium", "message": "runs what it downloads",
        "primary": {"start": 12, "end": 20}, "related": [{"start": 1, "end": 1}], "subject": "attachment:a \u{e9}.sh",
        "remediation": null, "attributes": ["cwe=494"], "line": 2, "column": 1, "gate": "scanner", "mode": "enforce",
    });
    let digest = "0".repeat(64);
    blocked["findings"] = json!([finding]);
    blocked["receipts"] = json!([{
        "whose": "host", "stage": "scan", "plugin": "scanner", "version": "0.1.0", "component_sha256": digest,
        "settings_sha256": digest, "data_sha256": [], "contract": "0.1.0", "runtime": "0.1.0",
        "limits": {"fuel": 1, "memory": 1, "time_ms": 1, "answer": 1}, "bundle_sha256": digest, "input_sha256": digest,
        "verdict_sha256": digest, "verdict": "findings", "fuel": 1, "duration_us": 1, "cached": false, "mode": "enforce",
    }]);
    blocked["finished_at"] = json!("2026-11-21T06:00:00Z");
    blocked["script_sha256"] = json!(digest);
    let (_, unasked) = result(1, "expired", -1, "Expired before it could start");
    Host::start(move |asked, answer| {
        let path = asked.line.trim_start_matches("GET /v1/");
        match path {
            _ if path == format!("jobs/{JOB}") => answer.json("200 OK", &job(2)),
            _ if path == format!("operations/{}", OPERATIONS[0]) => answer.json("200 OK", &blocked),
            _ => answer.json("200 OK", &unasked),
        }
    })
}

#[test]
fn sarif_is_one_document_that_keeps_to_the_official_schema() {
    let (code, stdout, stderr) = ending(&host().sluice(&["job", "show", JOB, "--format", "sarif"]));
    assert_eq!((code, stderr.as_str()), (Some(0), ""));
    let log: Value = serde_json::from_str(&stdout).expect("is one JSON document");
    let schema: Value = serde_json::from_str(SARIF).expect("is JSON");
    let none: [String; 0] = [];
    assert_eq!(schema::problems(&schema, &log), none);
    assert_eq!(log["runs"].as_array().map(Vec::len), Some(2));
    let place = &log["runs"][0]["results"][0]["locations"][0]["physicalLocation"];
    assert_eq!(place["artifactLocation"]["uri"], "attachment/a%20%C3%A9.sh");
    assert_eq!(
        log["runs"][1]["invocations"][0]["executionSuccessful"],
        false
    );
}

#[test]
fn the_schema_notices_what_is_wrong() {
    let (_, stdout, _) = ending(&host().sluice(&["job", "show", JOB, "--format", "sarif"]));
    let log: Value = serde_json::from_str(&stdout).expect("is JSON");
    let schema: Value = serde_json::from_str(SARIF).expect("is JSON");
    let changes: &[fn(&mut Value)] = &[
        |log| log["version"] = json!("2.0.0"),
        |log| log["runs"][0]["tool"]["driver"]["name"] = Value::Null,
        |log| log["runs"][0]["results"][0]["level"] = json!("high"),
        |log| log["runs"][0]["results"][0]["surprise"] = json!(1),
        |log| log["runs"][0]["results"][0]["rule"]["index"] = json!(-2),
        |log| log["runs"][0]["invocations"][0] = json!({}),
        |log| log["runs"][0]["results"][0]["message"] = json!({}),
        |log| log["$schema"] = json!("no uri"),
    ];
    for (index, change) in changes.iter().enumerate() {
        let mut changed = log.clone();
        change(&mut changed);
        assert!(
            !schema::problems(&schema, &changed).is_empty(),
            "change {index}"
        );
    }
}

#[test]
fn ocsf_is_one_event_a_line_for_each_finding() {
    let (code, stdout, _) = ending(&host().sluice(&["job", "show", JOB, "--format", "ocsf"]));
    assert_eq!((code, stdout.lines().count()), (Some(0), 1));
    let event: Value = serde_json::from_str(&stdout).expect("is JSON");
    let numbers = ["class_uid", "severity_id", "disposition_id"].map(|key| event[key].as_u64());
    assert_eq!(numbers, [Some(2004), Some(4), Some(2)]);
    assert_eq!(event["device"]["name"], "web-1");
}

#[test]
fn two_formats_at_once_are_one_too_many() {
    for format in ["sarif", "ocsf", "text"] {
        let (code, stdout, stderr) =
            ending(&host().sluice(&["job", "show", JOB, "--json", "--format", format]));
        assert_eq!((code, stdout.as_str()), (Some(125), ""), "{format}");
        assert!(stderr.contains("two formats"), "{stderr}");
    }
    let json = ending(&host().sluice(&["job", "show", JOB, "--format", "json"]));
    assert_eq!(
        json,
        ending(&host().sluice(&["job", "show", JOB, "--json"]))
    );
}
