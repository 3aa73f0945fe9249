//! Names of parameters. They become parts of names of environment variables (`SLUICE_PARAM_<NAME>`, upper case, `-` as
//! `_`), so two that become the same one are refused.

use std::collections::BTreeMap;

use sluice_plugin_sdk::prelude::*;

/// Longer names are refused.
const LONGEST: usize = 128;

/// Every name that is not one, and every two that collide.
pub(crate) fn problems(parameters: &[Parameter]) -> Vec<ParameterProblem> {
    let mut problems = Vec::new();
    let mut seen: BTreeMap<String, &str> = BTreeMap::new();
    for Parameter { name, .. } in parameters {
        if !is_name(name) {
            let message = format!(
                "is not a name: expected is a letter, then letters, digits, `_` or `-`, at most {LONGEST} in all"
            );
            problems.push(ParameterProblem::new(shown(name), message));
        } else if let Some(other) = seen.insert(variable(name), name) {
            let message = if other == name {
                "is there twice".to_owned()
            } else {
                format!(
                    "has the same variable SLUICE_PARAM_{} as `{other}`; rename one of them",
                    variable(name)
                )
            };
            problems.push(ParameterProblem::new(shown(name), message));
        }
    }
    problems
}

/// A name, fit for a line of output.
pub(crate) fn shown(name: &str) -> String {
    name.chars()
        .take(LONGEST)
        .flat_map(char::escape_debug)
        .collect()
}

fn is_name(name: &str) -> bool {
    name.len() <= LONGEST
        && name.starts_with(|c: char| c.is_ascii_alphabetic())
        && name
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-')
}

fn variable(name: &str) -> String {
    name.to_ascii_uppercase().replace('-', "_")
}
