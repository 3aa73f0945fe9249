//! A script with placeholders, rendered as a plan of the parameters gate would be.

use std::fmt::Write as _;

use sluice_gate_client::render::render;
use sluice_gate_types::answer::{Destination, Planned};
use sluice_gate_types::input::Value;
use sluice_protocol::bundle::{Source, Submission};

/// Renders a script of `interpreter` whose entry declares each value as a placeholder of its name.
///
/// # Errors
///
/// The refusal.
pub(crate) fn rendered(
    interpreter: &str,
    script: &str,
    values: &[(String, String)],
) -> Result<String, String> {
    let mut declared = String::new();
    for (name, _) in values {
        // writing to a String cannot fail
        let _ = writeln!(declared, "[parameters.{name}]\nas = \"placeholder\"");
    }
    let submission = Submission {
        declared: Some(declared),
        interpreter: Some(interpreter.to_owned()),
        ..Submission::of(script)
    };
    let source = Source::read(&submission).expect("reads");
    let plan: Vec<_> = values
        .iter()
        .map(|(name, value)| Planned {
            name: name.clone(),
            value: Value::Text(value.clone()),
            destination: Destination::Placeholder,
        })
        .collect();
    let prepared = render(&source, &[], &plan)?;
    Ok(prepared.script.unwrap_or_else(|| script.to_owned()))
}

/// One text, at `{{x}}`.
pub(crate) fn with_text(interpreter: &str, script: &str, text: &str) -> Result<String, String> {
    rendered(interpreter, script, &[("x".to_owned(), text.to_owned())])
}
