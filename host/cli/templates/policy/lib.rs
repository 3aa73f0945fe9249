//! Blocks scripts that would run as a user who is not allowed.

use sluice_plugin_sdk::{export_policy, prelude::*};

/// The gate, as `configure` made it: what it holds is computed once, when the plugin is bound.
pub struct Gate {
    users: Vec<String>,
}

impl Policy for Gate {
    fn configure(settings: &Settings, _data: &[DataPack]) -> Result<Self, GateError> {
        let users = settings.texts("users")?.to_vec();
        Ok(Self { users })
    }

    fn decide(&self, review: &Review) -> Result<Decision, GateError> {
        let mut decision = Decision::allow();
        let user = &review.bundle.run_as;
        if self.users.contains(user) {
            decision.add(
                Verdict::Block,
                "user",
                format!("no script may run as {user}"),
            );
        }
        Ok(decision)
    }
}

export_policy!(Gate);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_is_not_named_may() {
        let settings = Settings::default().with("users", ["root"]);
        let gate = Gate::configure(&settings, &[]).expect("is configured");
        let review = Review {
            bundle: Bundle::of_script("shell", "true"),
            parameters: Vec::new(),
            facts: Vec::new(),
            checks: Vec::new(),
            findings: Vec::new(),
            job: Job::default(),
        };
        let decision = gate.decide(&review).expect("answers");
        assert_eq!(decision.verdict, Verdict::Allow);
    }
}
