//! The scanner gate: rules for what attackers do with shells and interpreters, over every text of the bundle.
//!
//! `configure` compiles all rules and scans sample texts once, so that a snapshot of the memory holds automata that are
//! built already. A scan is one Aho-Corasick pass over each text; a rule's regular expression runs only on lines where
//! one of the rule's words occurs.

mod comments;
mod engine;
mod expression;
mod rules;
mod samples;
mod views;

use sluice_plugin_sdk::{export_scanner, prelude::*};

use crate::engine::Engine;
pub use crate::rules::manifest_table;

/// More findings than these are cut, the least severe first.
pub const MOST_FINDINGS: usize = 200;

/// The compiled rules.
#[derive(Debug)]
pub struct ScannerGate {
    engine: Engine,
}

impl Scanner for ScannerGate {
    fn configure(settings: &Settings, _data: &[DataPack]) -> Result<Self, GateError> {
        settings.only(&["disable"])?;
        let disabled = settings.texts("disable")?;
        for id in disabled {
            if !rules::all().any(|rule| rule.id == id) {
                return Err(
                    SettingsProblem::new("disable", format!("there is no rule `{id}`")).into(),
                );
            }
        }
        let engine =
            Engine::new(rules::all().filter(|rule| !disabled.iter().any(|id| id == rule.id)))?;
        let gate = Self { engine };
        samples::warm_up(&gate.engine);
        Ok(gate)
    }

    fn scan(&self, bundle: &Bundle, _job: &Job) -> Result<Vec<Finding>, GateError> {
        let mut findings = Vec::new();
        for part in bundle.texts() {
            let language = comments::Language::of(&part, &bundle.script);
            self.engine.scan(&part, language, &mut findings);
        }
        if let Some(rule) = self.engine.rule(rules::NOT_SCANNED) {
            let unseen = bundle
                .attachments
                .iter()
                .filter(|attachment| attachment.text.is_none());
            findings.extend(unseen.map(|attachment| {
                Finding {
                    subject: format!("attachment:{}", attachment.name),
                    ..Finding::new(rule.id, rule.severity, rule.message)
                        .confidence(rule.confidence)
                        .remediation(rule.remediation)
                }
            }));
        }
        // The sort is stable: findings of one severity stay in the order of the bundle.
        findings.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
        if findings.len() > MOST_FINDINGS {
            log::warn(&format!(
                "{} findings, {MOST_FINDINGS} are reported",
                findings.len()
            ));
            findings.truncate(MOST_FINDINGS);
        }
        Ok(findings)
    }
}

export_scanner!(ScannerGate);

#[cfg(test)]
mod tests;
