//! Gives every parameter to the script as a variable, and refuses empty ones.

use sluice_plugin_sdk::{export_preparer, prelude::*};

/// The gate, as `configure` made it: what it holds is computed once, when the plugin is bound.
pub struct Gate {
    empty: bool,
}

impl Preparer for Gate {
    fn configure(settings: &Settings, _data: &[DataPack]) -> Result<Self, GateError> {
        let empty = settings.boolean("empty")?.unwrap_or(false);
        Ok(Self { empty })
    }

    fn prepare(
        &self,
        _script: &Script,
        parameters: &[Parameter],
        _job: &Job,
    ) -> Result<Prepared, GateError> {
        let (mut values, mut problems) = (Vec::new(), Vec::new());
        for parameter in parameters {
            match &parameter.value {
                Some(Value::Text(text)) if text.is_empty() && !self.empty => {
                    problems.push(ParameterProblem::new(&parameter.name, "is empty"));
                }
                // The runtime makes the variable's name and quotes the value; a preparer never writes text into a script.
                Some(value) => values.push(Planned {
                    name: parameter.name.clone(),
                    value: value.clone(),
                    destination: Destination::Environment,
                }),
                None => {}
            }
        }
        if problems.is_empty() {
            Ok(Prepared::Planned(Plan { values }))
        } else {
            Ok(Prepared::Refused(problems))
        }
    }
}

export_preparer!(Gate);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_parameters_there_is_nothing_to_do() {
        let gate = Gate::configure(&Settings::default(), &[]).expect("is configured");
        let script = Bundle::of_script("shell", "true").script;
        let prepared = gate
            .prepare(&script, &[], &Job::default())
            .expect("answers");
        assert_eq!(prepared, Prepared::Planned(Plan { values: Vec::new() }));
    }
}
