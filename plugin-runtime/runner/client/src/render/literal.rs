//! Literals of languages whose strings have escapes.

use std::fmt::Write as _;

use sluice_gate_types::input::Value;

use super::position::{Position, Quote};

/// How a language writes values.
pub(super) struct Form {
    /// True and false.
    pub(super) booleans: [&'static str; 2],
    /// Of a text where an expression stands.
    pub(super) quote: char,
    /// Of numbers: as they are, in parentheses, or as texts.
    pub(super) numbers: Numbers,
    /// A text, within quotes of any kind in which escapes count.
    pub(super) escaped: fn(&str) -> String,
}

/// How a language writes numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Numbers {
    Parenthesized,
    Quoted,
}

impl Form {
    /// What stands for a value at a position; else the name of the place where it cannot stand.
    pub(super) fn literal(
        &self,
        position: Position,
        value: &Value,
    ) -> Result<String, &'static str> {
        let text = super::text(value).ok_or("a script")?;
        match position {
            Position::Code => Ok(self.expression(value, &text)),
            Position::String(Quote::Single) if text.contains('\r') => {
                Err("a single-quoted string, which has no form for a carriage return")
            }
            Position::String(Quote::Single) if escapes_behind_letter(&text) => Err(
                "a single-quoted string, and what must be escaped there follows a letter beyond ASCII",
            ),
            Position::String(Quote::Single) => Ok(text.replace('\\', "\\\\").replace('\'', "\\'")),
            Position::String(_) => Ok((self.escaped)(&text)),
            Position::Refused(reason) => Err(reason),
            Position::Document(_) | Position::Arithmetic | Position::Comment => Err("a script"),
        }
    }

    fn expression(&self, value: &Value, text: &str) -> String {
        match value {
            Value::Boolean(v) => self.booleans[usize::from(!v)].to_owned(),
            Value::Integer(_) if self.numbers == Numbers::Parenthesized => format!("({text})"),
            // With a point or an exponent, so that it is no whole number.
            Value::Decimal(v) if self.numbers == Numbers::Parenthesized => format!("({v:?})"),
            Value::Texts(texts) => {
                let texts: Vec<_> = texts.iter().map(|text| self.quoted(text)).collect();
                format!("[{}]", texts.join(", "))
            }
            _ => self.quoted(text),
        }
    }

    fn quoted(&self, text: &str) -> String {
        format!("{0}{1}{0}", self.quote, (self.escaped)(text))
    }
}

/// Whether each encoding that a line names, as magic comments do, is one of these.
pub(super) fn names_known(line: &str, known: &[&str]) -> bool {
    let line = line.to_ascii_lowercase();
    line.split("coding").skip(1).all(|rest| {
        let named = rest.trim_start().strip_prefix([':', '=']);
        named.is_none_or(|rest| {
            let rest = rest.trim_start();
            let is_name = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
            let length = rest.find(|c| !is_name(c)).unwrap_or(rest.len());
            known.contains(&&rest[..length])
        })
    })
}

/// Whether a backslash or a quote follows a letter beyond ASCII: in some encodings, the byte of a backslash would be the
/// end of that letter.
fn escapes_behind_letter(text: &str) -> bool {
    let behind = text.chars().zip(text.chars().skip(1));
    behind
        .into_iter()
        .any(|(before, c)| !before.is_ascii() && matches!(c, '\\' | '\''))
}

/// Escapes of Perl and Ruby. Letters beyond ASCII stay as they are: they are what they are in the rest of the script.
pub(super) fn hexadecimal(text: &str) -> String {
    let mut literal = String::with_capacity(text.len());
    for c in text.chars() {
        if is_plain(c) || !c.is_ascii() {
            literal.push(c);
        } else {
            // writing to a String cannot fail
            let _ = write!(literal, "\\x{:02x}", u32::from(c));
        }
    }
    literal
}

/// Whether no language means something by it within a string.
pub(super) fn is_plain(c: char) -> bool {
    c.is_ascii_alphanumeric() || " _.,:/-".contains(c)
}
