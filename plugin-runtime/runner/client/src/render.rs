//! What a preparer planned becomes variables, arguments and literals. The runtime quotes, never the preparer.
//!
//! A literal is written only where the script's language has one way to read it: outside strings, comments and
//! here-documents. Everywhere else the parameter has to come as a variable, and the refusal says so. `{{name}}` in a
//! comment stays as it is.

use sluice_gate_types::answer::{Destination, Planned};
use sluice_gate_types::input::Value;
use sluice_protocol::bundle::{Prepared, Source, Variable};
use sluice_protocol::environment::parameter_variable;
use sluice_protocol::script::{As, Language, MAX_SCRIPT};

mod python;
mod shell;

/// Renders the plan for this script.
///
/// # Errors
///
/// What keeps it from being rendered, for the operator: a name that the script does not declare, a destination other
/// than the declared one, a NUL, a placeholder where no literal is safe.
pub fn render(source: &Source, given: &[Variable], plan: &[Planned]) -> Result<Prepared, String> {
    let mut prepared = Prepared::default();
    let mut literals = Vec::new();
    for planned in plan {
        let name = &planned.name;
        let destination = match &source.header {
            Some(header) => match header
                .parameters
                .get(name)
                .map(|declared| declared.delivery)
            {
                Some(As::Env) => Destination::Environment,
                Some(As::Argument) => Destination::Argument,
                Some(As::Placeholder) => Destination::Placeholder,
                None => {
                    return Err(format!(
                        "the preparer set {name}, which the script does not declare"
                    ));
                }
            },
            None if given.iter().any(|given| given.name == *name) => Destination::Environment,
            None => return Err(format!("the preparer set {name}, which was not given")),
        };
        if planned.destination != destination {
            return Err(format!(
                "the preparer sends {name} elsewhere than the script declares"
            ));
        }
        let text = text(&planned.value)
            .ok_or_else(|| format!("{name} has a value that cannot be given to a script"))?;
        if text.contains('\0') {
            return Err(format!("{name} contains a NUL character"));
        }
        match destination {
            Destination::Environment => {
                prepared.environment.push(Variable {
                    name: parameter_variable(name),
                    value: text,
                });
            }
            Destination::Argument => prepared.arguments.push(text),
            Destination::Placeholder => literals.push((name.as_str(), &planned.value)),
        }
    }
    if !literals.is_empty() {
        prepared.script = Some(fill(source, &literals)?);
    }
    Ok(prepared)
}

/// The text of a value: booleans as true and false, lists as JSON.
fn text(value: &Value) -> Option<String> {
    Some(match value {
        Value::Boolean(v) => v.to_string(),
        Value::Integer(v) => v.to_string(),
        Value::Decimal(v) => v.to_string(),
        Value::Text(v) => v.clone(),
        Value::Texts(v) => serde_json::to_string(v).ok()?,
        Value::Bytes(_) | Value::Secret(_) => return None,
    })
}

/// Where a placeholder stands, as far as a language tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Position {
    /// Where a word or expression may stand.
    Code,
    /// In a comment, which nobody reads.
    Comment,
    /// Anywhere else, with the name of the place.
    Other(&'static str),
}

/// Writes a value as a literal of one language; none where it has no form there.
type Literal = fn(&Value) -> Option<String>;

fn fill(source: &Source, literals: &[(&str, &Value)]) -> Result<String, String> {
    let script = source.text.as_str();
    let (positions, literal): (Vec<Position>, Literal) = match source.interpreter.language() {
        Language::Shell => (shell::positions(script), shell::literal),
        Language::Python => (python::positions(script), python::literal),
        other => {
            return Err(format!(
                "placeholders in {} scripts are not implemented in this version; declare the parameters as = \"env\"",
                other.as_str()
            ));
        }
    };
    let mut filled = String::with_capacity(script.len());
    let mut at = 0;
    while let Some(found) = script[at..].find("{{").map(|offset| at + offset) {
        let rest = &script[found + 2..];
        let hit = literals.iter().find(|(name, _)| {
            rest.strip_prefix(name)
                .is_some_and(|rest| rest.starts_with("}}"))
        });
        let Some((name, value)) = hit else {
            filled.push_str(&script[at..found + 2]);
            at = found + 2;
            continue;
        };
        let end = found + 2 + name.len() + 2;
        filled.push_str(&script[at..found]);
        match positions
            .get(found)
            .copied()
            .unwrap_or(Position::Other("the end of the script"))
        {
            Position::Code => {
                filled.push_str(&literal(value).ok_or_else(|| format!("{name} has no literal"))?)
            }
            Position::Comment => filled.push_str(&script[found..end]),
            Position::Other(place) => {
                return Err(format!(
                    "the placeholder {{{{{name}}}}} stands in {place}, where no literal is safe; use ${}",
                    parameter_variable(name)
                ));
            }
        }
        if filled.len() > MAX_SCRIPT {
            return Err(format!(
                "the script with its parameters is larger than {MAX_SCRIPT} bytes"
            ));
        }
        at = end;
    }
    filled.push_str(&script[at..]);
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use sluice_protocol::bundle::{Compatibility, Limits, Submission};

    use super::*;

    fn source(script: &str) -> Source {
        let submission = Submission {
            script: script.as_bytes().to_vec(),
            interpreter: None,
            parameters: vec![],
            environment: vec![],
            attachments: vec![],
            secrets: vec![],
            run_as: None,
            limits: Limits::default(),
            compatibility: Compatibility::None,
        };
        Source::read(&submission).expect("reads")
    }

    fn rendered(body: &str, interpreter: &str, value: Value) -> Result<String, String> {
        let head = format!(
            "#!{interpreter}\n# /// sluice\n# [parameters.x]\n# as = \"placeholder\"\n# ///\n"
        );
        let source = source(&format!("{head}{body}"));
        let plan = [Planned {
            name: "x".to_owned(),
            value,
            destination: Destination::Placeholder,
        }];
        render(&source, &[], &plan)
            .map(|prepared| prepared.script.expect("is filled")[head.len()..].to_owned())
    }

    fn shell(body: &str) -> Result<String, String> {
        rendered(
            body,
            "/bin/bash",
            Value::Text("a'b $(id)\n{{x}}".to_owned()),
        )
    }

    #[test]
    fn shell_literals_stand_where_words_stand() {
        let literal = "'a'\\''b $(id)\n{{x}}'";
        assert_eq!(shell("echo {{x}}"), Ok(format!("echo {literal}")));
        assert_eq!(
            shell("y={{x}}; z=$(echo {{x}})"),
            Ok(format!("y={literal}; z=$(echo {literal})"))
        );
        assert_eq!(
            shell("echo \"a\" {{x}} # {{x}} it's"),
            Ok(format!("echo \"a\" {literal} # {{{{x}}}} it's"))
        );
        assert_eq!(
            shell("cat <<E\nit's\nE\necho {{x}}"),
            Ok(format!("cat <<E\nit's\nE\necho {literal}"))
        );
        assert_eq!(
            shell("echo {{y}} a#b {{x}}"),
            Ok(format!("echo {{{{y}}}} a#b {literal}"))
        );
    }

    #[test]
    fn shell_literals_are_refused_where_they_could_be_read_otherwise() {
        for body in [
            "echo \"{{x}}\"",
            "echo '{{x}}'",
            "echo $'{{x}}'",
            "cat <<E\n{{x}}\nE\n",
            "cat <<-'E F'\n\t{{x}}\n\tE F\n",
            "echo ${{x}}",
            "echo ${a:-{{x}}}",
            "echo $(( {{x}} ))",
            "echo `echo {{x}}`",
            "echo \\{{x}}",
            "echo \"$(echo \"{{x}}\")\"",
            "(( {{x}} ))",
        ] {
            assert!(shell(body).is_err(), "{body}: {:?}", shell(body));
        }
    }

    #[test]
    fn python_literals_are_expressions() {
        let python = |body: &str, value| rendered(body, "/usr/bin/python3", value);
        let text = Value::Text("a'b\"\\\n\u{202e}".to_owned());
        assert_eq!(
            python("p({{x}})", text.clone()),
            Ok("p('a\\'b\"\\\\\\x0a\\u202e')".to_owned())
        );
        assert_eq!(
            python("p({{x}})", Value::Integer(-5)),
            Ok("p((-5))".to_owned())
        );
        assert_eq!(
            python("p({{x}})", Value::Boolean(true)),
            Ok("p(True)".to_owned())
        );
        assert_eq!(
            python("'''it's''' # {{x}}\n{{x}}", Value::Integer(1)),
            Ok("'''it's''' # {{x}}\n(1)".to_owned())
        );
        for body in ["'{{x}}'", "f\"{{x}}\"", "'''\n{{x}}'''", "r'\\'{{x}}'"] {
            assert!(python(body, text.clone()).is_err(), "{body}");
        }
    }

    #[test]
    fn a_plan_keeps_to_what_the_script_declares() {
        let planned = |name: &str, destination| Planned {
            name: name.to_owned(),
            value: Value::Text("v".to_owned()),
            destination,
        };
        let declared = source(
            "#!/bin/sh\n# /// sluice\n# [parameters.a-b]\n# [parameters.c]\n# as = \"argument\"\n# ///\n:\n",
        );
        let plan = [
            planned("a-b", Destination::Environment),
            planned("c", Destination::Argument),
        ];
        let prepared = render(&declared, &[], &plan).expect("renders");
        assert_eq!(prepared.environment[0].name, "SLUICE_PARAM_A_B");
        assert_eq!(prepared.arguments, ["v"]);
        for bad in [
            planned("d", Destination::Environment),
            planned("c", Destination::Environment),
        ] {
            assert!(render(&declared, &[], &[bad]).is_err());
        }
        let plain = source("#!/bin/sh\n:\n");
        assert!(render(&plain, &[], &[planned("a", Destination::Environment)]).is_err());
        let nul = Planned {
            value: Value::Text("\0".to_owned()),
            ..planned("c", Destination::Argument)
        };
        assert!(render(&declared, &[], &[nul]).is_err());
    }
}
