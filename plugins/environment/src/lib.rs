//! The environment gate: one check for each requirement of the script. A requirement whose fact is absent is unknown,
//! and so is one that this version does not know: neither is met.

mod requirement;

use sluice_plugin_sdk::{export_environment, prelude::*};

/// Checks requirements against the facts of a machine. It has no settings.
#[derive(Debug)]
pub struct EnvironmentGate;

impl Environment for EnvironmentGate {
    fn configure(settings: &Settings, _data: &[DataPack]) -> Result<Self, GateError> {
        settings.only(&[])?;
        Ok(Self)
    }

    fn check(
        &self,
        _script: &Script,
        requirements: &[Attribute],
        facts: &[Attribute],
        _job: &Job,
    ) -> Result<Vec<Check>, GateError> {
        Ok(requirements
            .iter()
            .map(|requirement| requirement::check(requirement, facts))
            .collect())
    }
}

export_environment!(EnvironmentGate);
