//! What the owner requires of a gate that the host binds.

use sluice_gate_client::settings;
use sluice_gate_types::input::Value;
use sluice_gate_types::manifest::toml_value;
use sluice_gate_types::signature::{self, Statement};
use sluice_protocol::gates::GateBinding;
use sluice_protocol::report::Mode;

use crate::clock::now;
use crate::config::RequiredGate;

/// The settings that the owner gives.
pub(super) fn owners_settings(required: &RequiredGate) -> Result<Vec<(String, Value)>, String> {
    let given = required.settings.iter().map(|(key, value)| {
        let value = toml_value(value)
            .ok_or_else(|| format!("the setting {key} has a type that settings cannot have"))?;
        Ok((key.clone(), value))
    });
    given.collect()
}

/// Whether a binding is as the owner requires it: this publisher, not older, these settings, enforcing.
pub(super) fn satisfies(required: &RequiredGate, binding: &GateBinding) -> Result<(), String> {
    if binding.mode != Mode::Enforce {
        return Err("the host binds it in mode monitor".to_owned());
    }
    let signed = signature::verify(
        &binding.signature,
        *binding.component.as_bytes(),
        &[required.publisher],
        now(),
    )
    .map_err(|error| error.to_string())?;
    check_version(required, &signed.statement)?;
    let bound = settings(&binding.settings);
    let given = owners_settings(required)?;
    match given.iter().find(|(key, value)| {
        !bound
            .iter()
            .any(|(name, there)| name == key && there == value)
    }) {
        Some((key, _)) => Err(format!(
            "the host binds it with another value of {key} than this machine's owner requires"
        )),
        None => Ok(()),
    }
}

/// Whether a publisher's statement is about a version that the owner takes.
pub(super) fn check_version(required: &RequiredGate, statement: &Statement) -> Result<(), String> {
    match required.min_version {
        Some(minimum) if statement.version < minimum => Err(format!(
            "it has version {}, below {minimum}",
            statement.version
        )),
        _ => Ok(()),
    }
}
