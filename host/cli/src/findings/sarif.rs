//! SARIF 2.1.0 (OASIS), for code scanning, editors and dashboards: one log for a job, one run for each operation.
//!
//! A gate is a component of the tool, with its own rules; the parts of a bundle are artifacts below the base `BUNDLE`. A
//! run in which no gate answered says so: a log without results is no proof that nothing was found.

use serde_json::{Map, Value, json};
use sluice_api_types::operation::OperationResult;
use sluice_protocol::report::{Finding, Range, Severity};

use super::fingerprint;

/// What `artifactLocation.uri` is relative to.
const BASE: &str = "BUNDLE";

/// The log of a job.
pub(crate) fn log(operations: &[OperationResult]) -> Value {
    json!({
        "$schema": "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json",
        "version": "2.1.0",
        "runs": operations.iter().map(run).collect::<Vec<_>>(),
    })
}

fn run(result: &OperationResult) -> Value {
    let gates = Gates::of(result);
    let results = result.findings.iter();
    json!({
        "tool": {
            "driver": {
                "name": "Sluice",
                "version": env!("CARGO_PKG_VERSION"),
            },
            "extensions": gates.components(),
        },
        "automationDetails": {
            "id": format!("sluice/{}/{}", result.job, result.operation),
        },
        "invocations": [invocation(result)],
        "originalUriBaseIds": {
            BASE: { "description": { "text": "what runs: script, arguments, environment, attachments" } },
        },
        "artifacts": artifacts(result),
        // Columns of findings are counted in characters.
        "columnKind": "unicodeCodePoints",
        "results": results.map(|finding| gates.result(result, finding)).collect::<Vec<_>>(),
        "properties": {
            "job": result.job,
            "operation": result.operation,
            "tenant": result.tenant,
            "machine": result.machine,
            "state": result.state,
            "message": result.message,
            "bundleSha256": result.bundle_sha256,
        },
    })
}

/// Whether the gates did their work, which is another question than what they found.
fn invocation(result: &OperationResult) -> Value {
    let failed = result.code.as_deref() == Some("gate-error");
    // Scanners are asked about the bundle. What ends before there is one was not scanned.
    let scanned = result
        .receipts
        .iter()
        .any(|receipt| receipt.bundle_sha256.is_some());
    let note = if failed {
        Some(("error", result.message.clone().unwrap_or_default()))
    } else if !scanned {
        let text = "no gate was asked about the whole bundle: that there are no results says nothing about the script";
        Some(("warning", text.to_owned()))
    } else {
        None
    };
    let notes =
        note.map(|(level, text)| json!({ "level": level, "message": { "text": plain(&text) } }));
    json!({
        "executionSuccessful": !failed && scanned,
        "toolExecutionNotifications": notes.into_iter().collect::<Vec<_>>(),
    })
}

fn artifacts(result: &OperationResult) -> Vec<Value> {
    let script = result.script_sha256.map(|digest| {
        json!({
            "location": location("script"),
            "roles": ["analysisTarget"],
            "hashes": { "sha-256": digest },
        })
    });
    script.into_iter().collect()
}

/// The gates of an operation, each with the rules that it found something by.
struct Gates<'a>(Vec<Gate<'a>>);

struct Gate<'a> {
    id: &'a str,
    version: Option<&'a str>,
    rules: Vec<&'a str>,
}

impl<'a> Gates<'a> {
    fn of(result: &'a OperationResult) -> Self {
        let mut gates: Vec<Gate<'a>> = Vec::new();
        for receipt in &result.receipts {
            if gates.iter().all(|gate| gate.id != receipt.plugin) {
                gates.push(Gate {
                    id: &receipt.plugin,
                    version: Some(&receipt.version),
                    rules: Vec::new(),
                });
            }
        }
        for finding in &result.findings {
            let gate = match gates.iter_mut().position(|gate| gate.id == finding.gate) {
                Some(index) => &mut gates[index],
                None => {
                    gates.push(Gate {
                        id: &finding.gate,
                        version: None,
                        rules: Vec::new(),
                    });
                    let last = gates.len() - 1;
                    &mut gates[last]
                }
            };
            if !gate.rules.contains(&finding.rule.as_str()) {
                gate.rules.push(&finding.rule);
            }
        }
        Self(gates)
    }

    fn components(&self) -> Vec<Value> {
        let component = |gate: &Gate<'_>| {
            let rules: Vec<_> = gate
                .rules
                .iter()
                .map(|rule| json!({ "id": rule }))
                .collect();
            let mut component = json!({ "name": gate.id, "rules": rules });
            if let Some(version) = gate.version {
                component["version"] = json!(version);
            }
            component
        };
        self.0.iter().map(component).collect()
    }

    fn result(&self, operation: &OperationResult, finding: &Finding) -> Value {
        let gate = self.0.iter().position(|gate| gate.id == finding.gate);
        let rule = gate.and_then(|gate| {
            let rules = &self.0[gate].rules;
            rules.iter().position(|rule| *rule == finding.rule)
        });
        let properties = json!({
            "severity": finding.severity,
            "confidence": finding.confidence,
            "gate": finding.gate,
            "mode": finding.mode,
            "remediation": finding.remediation,
            "attributes": finding.attributes,
        });
        json!({
            "ruleId": finding.rule,
            "rule": {
                "id": finding.rule,
                "index": rule,
                "toolComponent": { "name": finding.gate, "index": gate },
            },
            "level": level(finding.severity),
            "message": { "text": plain(&finding.message) },
            "locations": [place(finding, finding.primary, finding.line.zip(finding.column))],
            "relatedLocations": finding.related.iter().map(|range| place(finding, Some(*range), None)).collect::<Vec<_>>(),
            "partialFingerprints": { "sluiceFinding/v1": fingerprint(operation, finding) },
            "properties": properties,
        })
    }
}

/// A text as itself: braces are placeholders in a message, and brackets links (SARIF 2.1.0, 3.11.5 and 3.11.6). What a
/// scanner quotes may be the script's.
fn plain(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '{' | '}' => plain.push(character),
            '[' | ']' | '\\' => plain.push('\\'),
            _ => {}
        }
        plain.push(character);
    }
    plain
}

fn level(severity: Severity) -> &'static str {
    match severity {
        Severity::Info | Severity::Low => "note",
        Severity::Medium => "warning",
        Severity::High | Severity::Critical => "error",
    }
}

fn place(finding: &Finding, range: Option<Range>, start: Option<(u32, u32)>) -> Value {
    let mut region = Map::new();
    if let Some((line, column)) = start {
        region.insert("startLine".to_owned(), json!(line));
        region.insert("startColumn".to_owned(), json!(column));
    }
    if let Some(range) = range {
        let length = range.end.saturating_sub(range.start);
        region.insert("byteOffset".to_owned(), json!(range.start));
        region.insert("byteLength".to_owned(), json!(length));
    }
    let mut physical = json!({ "artifactLocation": location(&finding.subject) });
    if !region.is_empty() {
        physical["region"] = Value::Object(region);
    }
    json!({ "physicalLocation": physical })
}

/// `attachment:a b` is `attachment/a%20b` below the bundle.
fn location(subject: &str) -> Value {
    let uri = match subject.split_once(':') {
        Some((part, name)) => format!("{}/{}", escaped(part), escaped(name)),
        None => escaped(subject),
    };
    json!({ "uri": uri, "uriBaseId": BASE })
}

/// Everything but RFC 3986's unreserved characters is percent-encoded.
fn escaped(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                char::from(byte).to_string()
            }
            other => format!("%{other:02X}"),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::tests::blocked;
    use super::*;

    #[test]
    fn what_a_script_wrote_is_no_link_and_no_placeholder() {
        let text = "see [this](https://x), {0} and \\";
        assert_eq!(plain(text), "see \\[this\\](https://x), {{0}} and \\\\");
    }

    #[test]
    fn what_was_not_asked_about_as_a_whole_is_no_clean_run() {
        let mut result = blocked();
        result
            .receipts
            .iter_mut()
            .for_each(|receipt| receipt.bundle_sha256 = None);
        let invocation = invocation(&result);
        assert_eq!(invocation["executionSuccessful"], false);
        assert_eq!(
            invocation["toolExecutionNotifications"][0]["level"],
            "warning"
        );
    }

    #[test]
    fn a_finding_keeps_its_rule_gate_place_and_gravity() {
        let log = log(&[blocked()]);
        let run = &log["runs"][0];
        let first = &run["results"][0];
        assert_eq!(first["level"], "error");
        assert_eq!(first["ruleId"], "download-and-run");
        let gate = &run["tool"]["extensions"][0];
        assert_eq!(
            (&gate["name"], &gate["version"]),
            (&json!("scanner"), &json!("0.2.0"))
        );
        assert_eq!(gate["rules"], json!([{ "id": "download-and-run" }]));
        let place = &first["locations"][0]["physicalLocation"];
        assert_eq!(
            place["region"],
            json!({ "startLine": 2, "startColumn": 1, "byteOffset": 12, "byteLength": 8 })
        );
        let second = &run["results"][1];
        assert_eq!(
            (&second["level"], &second["rule"]["toolComponent"]["index"]),
            (&json!("note"), &json!(1))
        );
        let place = &second["locations"][0]["physicalLocation"];
        assert_eq!(place["artifactLocation"]["uri"], "environment/A%20B");
        assert!(place.get("region").is_none(), "{place}");
    }

    #[test]
    fn a_run_without_an_answer_of_a_gate_is_no_clean_run() {
        let mut unasked = blocked();
        unasked.findings.clear();
        let clean = unasked.clone();
        unasked.receipts.clear();
        let mut failed = clean.clone();
        failed.code = Some("gate-error".to_owned());
        let log = log(&[clean, unasked, failed]);
        let successful =
            |run: usize| log["runs"][run]["invocations"][0]["executionSuccessful"].clone();
        assert_eq!(
            (successful(0), successful(1), successful(2)),
            (true.into(), false.into(), false.into())
        );
        let notes = &log["runs"][2]["invocations"][0]["toolExecutionNotifications"];
        assert_eq!(notes[0]["level"], "error");
    }
}
