//! The policy gate: blocks on severe findings, checks that are not met, root, interpreters and jobs that reach too
//! many machines; asks for approval, or allows with warnings, in between.

mod finding;

use sluice_plugin_sdk::{export_policy, prelude::*};

/// The settings, parsed.
#[derive(Debug)]
pub struct PolicyGate {
    threshold: Severity,
    /// `None`: nothing needs approval.
    approve_from: Option<Severity>,
    allow_root: bool,
    /// Empty: all.
    interpreters: Vec<String>,
    /// 0: any number.
    max_targets: i64,
}

impl Policy for PolicyGate {
    fn configure(settings: &Settings, _data: &[DataPack]) -> Result<Self, GateError> {
        settings.only(&[
            "threshold",
            "approve-from",
            "allow-root",
            "interpreters",
            "max-targets",
        ])?;
        let approve_from = match settings.text("approve-from")? {
            None | Some("never") => None,
            Some(_) => settings.severity("approve-from")?,
        };
        let max_targets = settings.integer("max-targets")?.unwrap_or(0);
        if max_targets < 0 {
            return Err(SettingsProblem::new("max-targets", "must not be negative").into());
        }
        Ok(Self {
            threshold: settings.severity("threshold")?.unwrap_or(Severity::High),
            approve_from,
            allow_root: settings.boolean("allow-root")?.unwrap_or(true),
            interpreters: settings.texts("interpreters")?.to_vec(),
            max_targets,
        })
    }

    fn decide(&self, review: &Review) -> Result<Decision, GateError> {
        let mut decision = Decision::allow();
        self.judge_checks(review, &mut decision);
        self.judge_circumstances(review, &mut decision);
        self.judge_findings(review, &mut decision);
        Ok(decision)
    }
}

impl PolicyGate {
    fn judge_checks(&self, review: &Review, decision: &mut Decision) {
        for check in &review.checks {
            let status = match check.status {
                CheckStatus::Met => continue,
                CheckStatus::Unmet => "is not met",
                CheckStatus::Unknown => "could not be checked",
            };
            decision.add(
                Verdict::Block,
                "check",
                format!("requirement `{}` {status}: {}", check.id, check.message),
            );
        }
    }

    fn judge_circumstances(&self, review: &Review, decision: &mut Decision) {
        if !self.allow_root && matches!(review.bundle.run_as.as_str(), "root" | "0") {
            decision.add(Verdict::Block, "root", "jobs may not run as root here");
        }
        let interpreter = &review.bundle.script.interpreter;
        if !self.interpreters.is_empty()
            && !self
                .interpreters
                .iter()
                .any(|allowed| names(allowed, interpreter))
        {
            let message = format!(
                "interpreter `{interpreter}` is not one of {}",
                self.interpreters.join(", ")
            );
            decision.add(Verdict::Block, "interpreter", message);
        }
        if self.max_targets > 0 {
            match review.job.attributes.integer("targets") {
                Some(targets) if targets <= self.max_targets => {}
                Some(targets) => {
                    let message = format!(
                        "the job reaches {targets} machines, the limit is {}",
                        self.max_targets
                    );
                    decision.add(Verdict::Block, "targets", message);
                }
                None => {
                    let message = format!(
                        "it is not known how many machines the job reaches, the limit is {}",
                        self.max_targets
                    );
                    decision.add(Verdict::Block, "targets", message);
                }
            }
        }
    }

    fn judge_findings(&self, review: &Review, decision: &mut Decision) {
        for finding in &review.findings {
            let verdict = if finding.severity >= self.threshold {
                Verdict::Block
            } else if self
                .approve_from
                .is_some_and(|from| finding.severity >= from)
            {
                Verdict::RequireApproval
            } else if finding.severity >= Severity::Medium {
                Verdict::AllowWithWarnings
            } else {
                continue;
            };
            decision.add(
                verdict,
                "finding",
                finding::describe(finding, &review.bundle),
            );
        }
    }
}

/// Whether `allowed` names this interpreter: literally, or as the bare name of one in a system folder. A program of an
/// allowed name anywhere else is not the allowed program.
fn names(allowed: &str, interpreter: &str) -> bool {
    let folders = ["/bin/", "/usr/bin/", "/usr/local/bin/"];
    allowed == interpreter
        || folders
            .iter()
            .any(|folder| interpreter.strip_prefix(folder) == Some(allowed))
}

export_policy!(PolicyGate);

#[cfg(test)]
mod tests;
