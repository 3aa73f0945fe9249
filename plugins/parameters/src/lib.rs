//! The parameters gate: typed values from what was given, checked against what the script declares, with the place
//! where each one goes. It plans; the runtime renders.

mod declaration;
mod name;
mod typed;

use sluice_plugin_sdk::{export_preparer, prelude::*};

use crate::declaration::Declaration;

/// Checks and plans parameters. It has no settings.
#[derive(Debug)]
pub struct ParametersGate;

impl Preparer for ParametersGate {
    fn configure(settings: &Settings, _data: &[DataPack]) -> Result<Self, GateError> {
        settings.only(&[])?;
        Ok(Self)
    }

    fn prepare(
        &self,
        _script: &Script,
        parameters: &[Parameter],
        job: &Job,
    ) -> Result<Prepared, GateError> {
        let has_header = job
            .attributes
            .boolean("parameters.declared")
            .unwrap_or(false)
            || parameters
                .iter()
                .any(|parameter| !parameter.declared.is_empty());
        let mut problems = name::problems(parameters);
        let mut values = Vec::new();
        for parameter in parameters {
            match plan(parameter, has_header) {
                Ok(planned) => values.extend(planned),
                Err(message) => {
                    problems.push(ParameterProblem::new(name::shown(&parameter.name), message))
                }
            }
        }
        Ok(if problems.is_empty() {
            Prepared::Planned(Plan { values })
        } else {
            Prepared::Refused(problems)
        })
    }
}

/// Where one parameter goes and with which value; `None` where it was not given and has no default.
fn plan(parameter: &Parameter, has_header: bool) -> Result<Option<Planned>, String> {
    if has_header && parameter.declared.is_empty() {
        return Err(
            "is not declared by the script; declare it in its header or its library entry, or leave it out".to_owned(),
        );
    }
    let declaration = Declaration::read(parameter)?;
    let value = match (&parameter.value, &declaration.default) {
        (Some(given), _) => declaration.accept(given)?,
        (None, Some(default)) => declaration
            .accept(default)
            .map_err(|problem| format!("default of the declaration: {problem}"))?,
        (None, None) if declaration.required => {
            return Err(format!(
                "is required but was not given; expected is {}",
                declaration.kind.expected()
            ));
        }
        (None, None) => return Ok(None),
    };
    Ok(Some(Planned {
        name: parameter.name.clone(),
        value,
        destination: declaration.destination,
    }))
}

export_preparer!(ParametersGate);

#[cfg(test)]
mod tests;
