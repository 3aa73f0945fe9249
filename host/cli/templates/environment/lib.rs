//! Runs scripts only on machines with enough memory.

use sluice_plugin_sdk::{export_environment, prelude::*};

/// The gate, as `configure` made it: what it holds is computed once, when the plugin is bound.
pub struct Gate {
    least: i64,
}

impl Environment for Gate {
    fn configure(settings: &Settings, _data: &[DataPack]) -> Result<Self, GateError> {
        let least = settings.integer("least")?.unwrap_or(512);
        Ok(Self { least })
    }

    fn check(
        &self,
        _script: &Script,
        _requirements: &[Attribute],
        facts: &[Attribute],
        _job: &Job,
    ) -> Result<Vec<Check>, GateError> {
        let check = match facts.integer("memory.total") {
            Some(bytes) if bytes >> 20 >= self.least => {
                Check::met("memory", "there is enough memory")
            }
            Some(_) => Check::unmet(
                "memory",
                format!("the machine has less than {} MiB", self.least),
            ),
            None => Check::unknown("memory", "the machine's memory is not known"),
        };
        Ok(vec![check])
    }
}

export_environment!(Gate);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_known_is_not_met() {
        let gate = Gate::configure(&Settings::default(), &[]).expect("is configured");
        let script = Bundle::of_script("shell", "true").script;
        let checks = gate
            .check(&script, &[], &[], &Job::default())
            .expect("answers");
        assert_eq!(checks[0].status, CheckStatus::Unknown);
    }
}
