//! What a preparer planned becomes variables, arguments and literals. The runtime quotes, never the preparer.
//!
//! A literal is written for the language of the script and the position of its placeholder: as a word or expression, or
//! into a string or here-document. Each language has a reader that follows a script as far as it is sure of it; where it
//! is not, and where text is evaluated again, the placeholder is refused, and the refusal says so. `{{name}}` in a comment
//! stays as it is.
//!
//! ```text
//! script --Template--> own text, places --reader of the language--> positions --values--> literals --> what runs
//! ```

use sluice_gate_types::answer::{Destination, Planned};
use sluice_gate_types::input::Value;
use sluice_protocol::bundle::{Prepared, Source, Variable};
use sluice_protocol::environment::{MAX_ENVIRONMENT, parameter_variable};
use sluice_protocol::script::{As, Language, MAX_SCRIPT};

use self::position::{Position, Standing};
use self::template::Template;

mod javascript;
mod literal;
mod nesting;
mod perl;
mod position;
mod python;
mod ruby;
mod shell;
mod template;

/// Renders the plan for this script.
///
/// # Errors
///
/// What keeps it from being rendered, for the operator: a name that the script does not declare, a destination other
/// than the declared one, a NUL, a placeholder that nothing fills or where no literal is safe, two parameters with one
/// variable, more than arguments, variables or scripts may have.
pub fn render(source: &Source, given: &[Variable], plan: &[Planned]) -> Result<Prepared, String> {
    let mut prepared = Prepared::default();
    let mut filling = Vec::new();
    for planned in in_order(source, plan)? {
        let name = &planned.name;
        let destination = destination(source, given, name)?;
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
                let variable = parameter_variable(name);
                if prepared
                    .environment
                    .iter()
                    .any(|other| other.name == variable)
                {
                    return Err(format!(
                        "{name} has the same variable {variable} as another parameter; rename one of them"
                    ));
                }
                prepared.environment.push(Variable {
                    name: variable,
                    value: text,
                });
            }
            Destination::Argument => prepared.arguments.push(text),
            Destination::Placeholder => filling.push(planned),
        }
    }
    must_fit(&prepared)?;
    prepared.script = fill(source, &filling, &placeholders(source)?)?;
    Ok(prepared)
}

/// The plan in the order in which the script declares its parameters: a preparer does not choose the order of arguments.
fn in_order<'p>(source: &Source, plan: &'p [Planned]) -> Result<Vec<&'p Planned>, String> {
    let Some(header) = &source.header else {
        return Ok(plan.iter().collect());
    };
    let undeclared = |planned: &&Planned| header.parameters.get(&planned.name).is_none();
    if let Some(planned) = plan.iter().find(undeclared) {
        return Err(format!(
            "the preparer set {}, which the script does not declare",
            planned.name
        ));
    }
    let mut ordered = Vec::with_capacity(plan.len());
    for (name, _) in &header.parameters {
        let mut of_name = plan.iter().filter(|planned| planned.name == *name);
        ordered.extend(of_name.next());
        if of_name.next().is_some() {
            return Err(format!("the preparer set {name} twice"));
        }
    }
    Ok(ordered)
}

/// Where a parameter goes, as the script declares it.
fn destination(source: &Source, given: &[Variable], name: &str) -> Result<Destination, String> {
    match &source.header {
        Some(header) => match header
            .parameters
            .get(name)
            .map(|declared| declared.delivery)
        {
            Some(As::Env) => Ok(Destination::Environment),
            Some(As::Argument) => Ok(Destination::Argument),
            Some(As::Placeholder) => Ok(Destination::Placeholder),
            None => Err(format!(
                "the preparer set {name}, which the script does not declare"
            )),
        },
        None if given.iter().any(|given| given.name == *name) => Ok(Destination::Environment),
        None => Err(format!("the preparer set {name}, which was not given")),
    }
}

/// The parameters that are declared as placeholders. What is no name could not be told from the script around it.
fn placeholders(source: &Source) -> Result<Vec<&str>, String> {
    let parameters = source.header.iter().flat_map(|header| &header.parameters);
    let names: Vec<_> = parameters
        .filter(|(_, declared)| declared.delivery == As::Placeholder)
        .map(|(name, _)| name.as_str())
        .collect();
    let is_name = |name: &str| {
        (1..=128).contains(&name.len())
            && name
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte))
    };
    match names.iter().find(|name| !is_name(name)) {
        Some(name) => Err(format!(
            "{} is no name for a placeholder",
            name.escape_debug()
        )),
        None => Ok(names),
    }
}

/// What preparers add is bounded as what a job brings is.
fn must_fit(prepared: &Prepared) -> Result<(), String> {
    let variables = prepared
        .environment
        .iter()
        .map(|variable| variable.name.len() + variable.value.len());
    for (what, size) in [
        ("variables", variables.sum::<usize>()),
        (
            "arguments",
            prepared.arguments.iter().map(String::len).sum(),
        ),
    ] {
        if size > MAX_ENVIRONMENT {
            return Err(format!(
                "the {what} of all parameters have more than {MAX_ENVIRONMENT} bytes"
            ));
        }
    }
    Ok(())
}

/// The text of a value: booleans as true and false, lists as JSON.
fn text(value: &Value) -> Option<String> {
    Some(match value {
        Value::Boolean(v) => v.to_string(),
        Value::Integer(v) => v.to_string(),
        Value::Decimal(v) if v.is_finite() => v.to_string(),
        Value::Text(v) => v.clone(),
        Value::Texts(v) => serde_json::to_string(v).ok()?,
        Value::Decimal(_) | Value::Bytes(_) | Value::Secret(_) => return None,
    })
}

/// Writes the values at their placeholders.
fn fill(
    source: &Source,
    planned: &[&Planned],
    declared: &[&str],
) -> Result<Option<String>, String> {
    let template = Template::new(source.text.as_str(), declared);
    if template.places.is_empty() {
        return Ok(None);
    }
    let reading = Reading::of(source, &template)?;
    let value = |name: &str| {
        planned
            .iter()
            .find(|planned| planned.name == name)
            .map(|planned| &planned.value)
    };
    let mut literals = Vec::with_capacity(template.places.len());
    let mut size = template.text.len();
    for (index, place) in template.places.iter().enumerate() {
        let name = declared[place.name];
        let literal = if reading.standing(index).position == Position::Comment {
            template.text[place.start..place.end].to_owned()
        } else {
            let value = value(name).ok_or_else(|| {
                format!("nothing fills the placeholder {{{{{name}}}}}; give a value, or declare a default")
            })?;
            reading
                .literal(&template, index, value)
                .map_err(|place| refusal(name, place))?
        };
        size += literal.len();
        if size > MAX_SCRIPT {
            return Err(format!(
                "the script with its parameters is larger than {MAX_SCRIPT} bytes"
            ));
        }
        literals.push(literal);
    }
    if let Reading::Shell(reading) = &reading
        && let Some(index) = reading.ended_early(&template, &literals)
    {
        let name = declared[template.places[index].name];
        return Err(refusal(
            name,
            "a here-document that would end with a line of the value",
        ));
    }
    Ok(Some(template.filled(&literals)))
}

fn refusal(name: &str, place: &str) -> String {
    format!(
        "the placeholder {{{{{name}}}}} stands in {place}, where no literal is safe; declare it as = \"env\" and use {}",
        parameter_variable(name)
    )
}

/// Where the placeholders of a script stand.
enum Reading {
    Shell(shell::Reading),
    Other(Vec<Standing>, Literal),
}

/// Writes a value at a position; else the name of the place where it cannot stand.
type Literal = fn(Position, &Value) -> Result<String, &'static str>;

impl Reading {
    fn of(source: &Source, template: &Template<'_>) -> Result<Self, String> {
        let interpreter = source.interpreter.name();
        Ok(match source.interpreter.language() {
            Language::Shell => Self::Shell(shell::read(template, interpreter)),
            Language::Python => Self::Other(python::read(template, interpreter), python::literal),
            Language::Perl => Self::Other(perl::read(template), perl::literal),
            Language::Ruby => Self::Other(ruby::read(template), ruby::literal),
            Language::JavaScript => Self::Other(javascript::read(template), javascript::literal),
            other => {
                return Err(format!(
                    "placeholders in {} scripts are not filled in this version, because nothing here reads that language well enough to quote for it; declare the parameters as = \"env\"",
                    other.as_str()
                ));
            }
        })
    }

    fn standing(&self, index: usize) -> Standing {
        match self {
            Self::Shell(reading) => reading.standings[index],
            Self::Other(standings, _) => standings[index],
        }
    }

    fn literal(
        &self,
        template: &Template<'_>,
        index: usize,
        value: &Value,
    ) -> Result<String, &'static str> {
        match self {
            Self::Shell(reading) => reading.literal(template, index, value),
            Self::Other(standings, literal) => {
                let standing = standings[index];
                match standing.evaluated {
                    Some(reason) if !matches!(value, Value::Integer(_)) => Err(reason),
                    _ => literal(standing.position, value),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
