//! The types of parameters, and reading a raw value as one of them.

use sluice_plugin_sdk::prelude::*;

/// The type of a parameter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Text,
    Integer,
    Decimal,
    Boolean,
    Choice,
    List,
    Path,
    Secret,
}

impl Kind {
    pub(crate) const NAMES: [&'static str; 8] = [
        "text", "integer", "decimal", "boolean", "choice", "list", "path", "secret",
    ];

    pub(crate) fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "text" => Self::Text,
            "integer" => Self::Integer,
            "decimal" => Self::Decimal,
            "boolean" => Self::Boolean,
            "choice" => Self::Choice,
            "list" => Self::List,
            "path" => Self::Path,
            "secret" => Self::Secret,
            _ => return None,
        })
    }

    pub(crate) const fn name(self) -> &'static str {
        Self::NAMES[self as usize]
    }

    /// What a message says is expected.
    pub(crate) const fn expected(self) -> &'static str {
        match self {
            Self::Text => "a text without NUL",
            Self::Integer => {
                "a whole number from -9223372036854775808 to 9223372036854775807, in digits"
            }
            Self::Decimal => "a decimal number like -1.5 or 2e3",
            Self::Boolean => "true or false",
            Self::Choice => "one of the declared choices",
            Self::List => "a JSON array of strings without NUL",
            Self::Path => "a path without NUL",
            Self::Secret => "a secret",
        }
    }

    /// Reads a raw value. Raw values are texts or references to secrets; defaults of declarations may be typed already.
    pub(crate) fn read(self, given: &Value) -> Result<Value, String> {
        match (self, given) {
            (Self::Secret, Value::Secret(_)) => return Ok(given.clone()),
            // The value must not be repeated: it may be the secret.
            (Self::Secret, _) => {
                return Err("is a secret, but its value did not come as one".to_owned());
            }
            (_, Value::Secret(_)) => {
                return Err(format!(
                    "was given as a secret, but is not declared as one; expected is {}",
                    self.expected()
                ));
            }
            _ => {}
        }
        let value = match (self, given) {
            (Self::Text | Self::Choice, Value::Text(text)) if !has_nul(text) => Some(given.clone()),
            (Self::Path, Value::Text(text)) if !text.is_empty() && !has_nul(text) => {
                Some(given.clone())
            }
            (Self::Integer, Value::Text(text)) => integer(text).map(Value::Integer),
            (Self::Integer, Value::Integer(_)) | (Self::Boolean, Value::Boolean(_)) => {
                Some(given.clone())
            }
            (Self::Decimal, Value::Text(text)) => decimal(text).map(Value::Decimal),
            (Self::Decimal, Value::Decimal(number)) if number.is_finite() => Some(given.clone()),
            (Self::Decimal, Value::Integer(number)) => Some(Value::Decimal(*number as f64)),
            (Self::Boolean, Value::Text(text)) => boolean(text).map(Value::Boolean),
            (Self::List, Value::Text(text)) => list(text).map(Value::Texts),
            (Self::List, Value::Texts(texts)) if !texts.iter().any(|text| has_nul(text)) => {
                Some(given.clone())
            }
            _ => None,
        };
        value.ok_or_else(|| format!("is {}; expected is {}", raw(given), self.expected()))
    }
}

/// A piece of a value, fit for a line of output.
pub(crate) fn shown(text: &str) -> String {
    let mut out: String = text.chars().take(60).flat_map(char::escape_debug).collect();
    if text.chars().nth(60).is_some() {
        out.push_str("...");
    }
    out
}

fn raw(value: &Value) -> String {
    match value {
        Value::Text(text) => format!("`{}`", shown(text)),
        Value::Integer(number) => format!("`{number}`"),
        Value::Decimal(number) => format!("`{number}`"),
        Value::Boolean(value) => format!("`{value}`"),
        Value::Texts(_) => "a list".to_owned(),
        Value::Bytes(_) => "bytes".to_owned(),
        Value::Secret(_) => "a secret".to_owned(),
    }
}

fn has_nul(text: &str) -> bool {
    text.contains('\0')
}

/// Digits with an optional minus: no plus, no blanks, no separators.
fn integer(text: &str) -> Option<i64> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    text.parse().ok()
}

/// Digits, optionally with a minus, a fraction and an exponent; finite. Rust's own grammar takes `inf`, `+1` and `.5`.
fn decimal(text: &str) -> Option<f64> {
    let is_number = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    let unsigned = text.strip_prefix('-').unwrap_or(text);
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (
            mantissa,
            Some(exponent.strip_prefix(['-', '+']).unwrap_or(exponent)),
        ),
        None => (unsigned, None),
    };
    let (whole, fraction) = match mantissa.split_once('.') {
        Some((whole, fraction)) => (whole, Some(fraction)),
        None => (mantissa, None),
    };
    if !is_number(whole) || !fraction.is_none_or(is_number) || !exponent.is_none_or(is_number) {
        return None;
    }
    text.parse().ok().filter(|number: &f64| number.is_finite())
}

fn boolean(text: &str) -> Option<bool> {
    match text {
        "true" => Some(true),
        "false" => Some(false),
        _ => None,
    }
}

fn list(text: &str) -> Option<Vec<String>> {
    let texts: Vec<String> = serde_json::from_str(text).ok()?;
    if texts.iter().any(|text| has_nul(text)) {
        None
    } else {
        Some(texts)
    }
}
