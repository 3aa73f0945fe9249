//! Reports a word that has no place in a script.

use sluice_plugin_sdk::{export_scanner, prelude::*};

/// The scanner, as `configure` made it: what it holds is computed once, when the plugin is bound.
pub struct Gate {
    word: String,
}

impl Scanner for Gate {
    fn configure(settings: &Settings, _data: &[DataPack]) -> Result<Self, GateError> {
        let word = settings.text("word")?.unwrap_or("forbidden").to_owned();
        if word.is_empty() {
            let problem = SettingsProblem::new("word", "is empty, and would be found everywhere");
            return Err(GateError::InvalidSettings(vec![problem]));
        }
        Ok(Self { word })
    }

    fn scan(&self, bundle: &Bundle, _job: &Job) -> Result<Vec<Finding>, GateError> {
        let mut findings = Vec::new();
        for part in bundle.texts() {
            for (start, found) in part.text.match_indices(&self.word) {
                let message = format!("the word `{found}` is used");
                let finding = Finding::new("word", Severity::High, message);
                findings.push(finding.at(&part, start..start + found.len()));
            }
        }
        Ok(findings)
    }
}

export_scanner!(Gate);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_word_is_found_wherever_it_is() {
        let gate = Gate::configure(&Settings::default(), &[]).expect("is configured");
        let bundle = Bundle::of_script("shell", "echo forbidden").with_argument("forbidden");
        let findings = gate.scan(&bundle, &Job::default()).expect("answers");
        let subjects: Vec<_> = findings
            .iter()
            .map(|found| found.subject.as_str())
            .collect();
        assert_eq!(subjects, ["script", "argument:0"]);
    }
}
