//! What the script declares of one parameter.

use regex_lite::{Regex, RegexBuilder};
use sluice_plugin_sdk::prelude::*;

use crate::typed::{self, Kind};

/// Compiled patterns larger than this are refused.
const LARGEST_PATTERN: usize = 256 << 10;

/// One declaration, parsed. Matching is linear in the length of the value, whatever the pattern.
#[derive(Debug)]
pub(crate) struct Declaration {
    pub(crate) kind: Kind,
    pub(crate) required: bool,
    pub(crate) default: Option<Value>,
    pub(crate) destination: Destination,
    pattern: Option<Pattern>,
    min: Option<Bound>,
    max: Option<Bound>,
    choices: Option<Vec<String>>,
}

#[derive(Debug)]
struct Pattern {
    text: String,
    whole: Regex,
}

/// A bound as it was written: integers are never compared as floating-point numbers with integers.
#[derive(Debug, Clone, Copy)]
enum Bound {
    Integer(i64),
    Decimal(f64),
}

impl Declaration {
    /// Reads a declaration. A parameter without one is a text that goes into the environment.
    pub(crate) fn read(parameter: &Parameter) -> Result<Self, String> {
        let declared = parameter.declared.as_slice();
        for attribute in declared {
            let known = [
                "type", "required", "default", "pattern", "min", "max", "choices", "as",
            ];
            if !known.contains(&attribute.key.as_str()) {
                return Err(format!(
                    "declaration has `{}`; known are {}",
                    typed::shown(&attribute.key),
                    known.join(", ")
                ));
            }
        }
        let kind_name = match declared.value("type") {
            Some(Value::Text(name)) => name.as_str(),
            Some(_) => return Err("declaration: `type` is not a text".to_owned()),
            None if parameter.type_.is_empty() => "text",
            None => parameter.type_.as_str(),
        };
        let kind = Kind::from_name(kind_name).ok_or_else(|| {
            format!(
                "declaration: type `{}` is none of {}",
                typed::shown(kind_name),
                Kind::NAMES.join(", ")
            )
        })?;
        let declaration = Self {
            kind,
            required: match declared.value("required") {
                Some(Value::Boolean(required)) => *required,
                Some(_) => return Err("declaration: `required` is not true or false".to_owned()),
                None => false,
            },
            default: declared.value("default").cloned(),
            destination: destination(declared)?,
            pattern: pattern(declared)?,
            min: bound(declared, "min")?,
            max: bound(declared, "max")?,
            choices: match declared.value("choices") {
                Some(Value::Texts(choices)) => Some(choices.clone()),
                Some(_) => return Err("declaration: `choices` is not a list of texts".to_owned()),
                None => None,
            },
        };
        declaration.must_fit_its_kind()?;
        Ok(declaration)
    }

    /// The typed value, or what is wrong with what was given. The text of a secret never gets into a message.
    pub(crate) fn accept(&self, given: &Value) -> Result<Value, String> {
        let value = self.kind.read(given)?;
        self.must_be_in_bounds(&value)?;
        self.must_match(&value)?;
        self.must_be_a_choice(&value)?;
        Ok(value)
    }

    /// A limit that the type cannot have would be silently without effect: it is refused instead.
    fn must_fit_its_kind(&self) -> Result<(), String> {
        let refuse = |what: &str| {
            Err(format!(
                "declaration: `{what}` has no meaning for type {}",
                self.kind.name()
            ))
        };
        let has_bounds = self.min.is_some() || self.max.is_some();
        match self.kind {
            Kind::Text | Kind::Path => {}
            Kind::List if self.choices.is_some() => return refuse("choices"),
            Kind::List => {}
            Kind::Choice if has_bounds => return refuse("min` or `max"),
            Kind::Choice if self.choices.as_ref().is_none_or(Vec::is_empty) => {
                return Err("declaration: type choice needs `choices`".to_owned());
            }
            Kind::Choice => {}
            _ if self.choices.is_some() => return refuse("choices"),
            _ if self.pattern.is_some() => return refuse("pattern"),
            Kind::Boolean | Kind::Secret if has_bounds => return refuse("min` or `max"),
            Kind::Secret if self.default.is_some() => return refuse("default"),
            Kind::Secret if self.destination != Destination::Environment => {
                return Err("declaration: a secret is never an argument or part of the script; leave `as` out".to_owned());
            }
            Kind::Integer | Kind::Decimal | Kind::Boolean | Kind::Secret => {}
        }
        Ok(())
    }

    fn must_be_in_bounds(&self, value: &Value) -> Result<(), String> {
        let (size, what) = match value {
            Value::Integer(number) => (Bound::Integer(*number), ""),
            Value::Decimal(number) => (Bound::Decimal(*number), ""),
            Value::Text(text) => (Bound::Integer(count(text.chars().count())), " characters"),
            Value::Texts(texts) => (Bound::Integer(count(texts.len())), " entries"),
            _ => return Ok(()),
        };
        if let Some(min) = self.min.filter(|min| size.is_less_than(*min)) {
            return Err(format!(
                "is {}{what}; at least {} expected",
                size.text(),
                min.text()
            ));
        }
        if let Some(max) = self.max.filter(|max| max.is_less_than(size)) {
            return Err(format!(
                "is {}{what}; at most {} expected",
                size.text(),
                max.text()
            ));
        }
        Ok(())
    }

    fn must_match(&self, value: &Value) -> Result<(), String> {
        let Some(pattern) = &self.pattern else {
            return Ok(());
        };
        let texts = match value {
            Value::Text(text) => std::slice::from_ref(text),
            Value::Texts(texts) => texts,
            _ => return Ok(()),
        };
        match texts.iter().find(|text| !pattern.whole.is_match(text)) {
            Some(text) => Err(format!(
                "is `{}`; expected is a match of `{}`",
                typed::shown(text),
                typed::shown(&pattern.text)
            )),
            None => Ok(()),
        }
    }

    fn must_be_a_choice(&self, value: &Value) -> Result<(), String> {
        let (Some(choices), Value::Text(text)) = (&self.choices, value) else {
            return Ok(());
        };
        if choices.contains(text) {
            return Ok(());
        }
        Err(format!(
            "is `{}`; expected is one of {}",
            typed::shown(text),
            typed::shown(&choices.join(", "))
        ))
    }
}

impl Bound {
    fn is_less_than(self, other: Self) -> bool {
        match (self, other) {
            (Self::Integer(a), Self::Integer(b)) => a < b,
            (Self::Integer(a), Self::Decimal(b)) => (a as f64) < b,
            (Self::Decimal(a), Self::Integer(b)) => a < b as f64,
            (Self::Decimal(a), Self::Decimal(b)) => a < b,
        }
    }

    fn text(self) -> String {
        match self {
            Self::Integer(number) => number.to_string(),
            Self::Decimal(number) => number.to_string(),
        }
    }
}

fn count(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn destination(declared: &[Attribute]) -> Result<Destination, String> {
    match declared.value("as") {
        None => Ok(Destination::Environment),
        Some(Value::Text(text)) if text == "env" || text == "environment" => {
            Ok(Destination::Environment)
        }
        Some(Value::Text(text)) if text == "argument" => Ok(Destination::Argument),
        Some(Value::Text(text)) if text == "placeholder" => Ok(Destination::Placeholder),
        Some(_) => Err("declaration: `as` is none of env, argument, placeholder".to_owned()),
    }
}

fn pattern(declared: &[Attribute]) -> Result<Option<Pattern>, String> {
    let text = match declared.value("pattern") {
        None => return Ok(None),
        Some(Value::Text(text)) => text.clone(),
        Some(_) => return Err("declaration: `pattern` is not a text".to_owned()),
    };
    let refused = || {
        format!(
            "declaration: pattern `{}` is not a regular expression that can be used here",
            typed::shown(&text)
        )
    };
    // On its own first: `a)|(b` must not become valid by being wrapped.
    build(&text).map_err(|_| refused())?;
    // With `(?x)` a comment at the end would swallow the closing parenthesis, so that is refused here too.
    let whole = build(&format!(r"\A(?:{text})\z")).map_err(|_| refused())?;
    Ok(Some(Pattern { text, whole }))
}

fn build(text: &str) -> Result<Regex, regex_lite::Error> {
    RegexBuilder::new(text)
        .size_limit(LARGEST_PATTERN)
        .nest_limit(50)
        .build()
}

fn bound(declared: &[Attribute], key: &str) -> Result<Option<Bound>, String> {
    match declared.value(key) {
        None => Ok(None),
        Some(Value::Integer(number)) => Ok(Some(Bound::Integer(*number))),
        Some(Value::Decimal(number)) if number.is_finite() => Ok(Some(Bound::Decimal(*number))),
        Some(_) => Err(format!("declaration: `{key}` is not a number")),
    }
}
