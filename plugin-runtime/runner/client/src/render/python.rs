//! Where expressions stand in a Python script.

use std::fmt::Write as _;

use sluice_gate_types::input::Value;

use super::Position;

/// An expression that reads as the value wherever an expression may stand.
pub(super) fn literal(value: &Value) -> Option<String> {
    Some(match value {
        Value::Boolean(true) => "True".to_owned(),
        Value::Boolean(false) => "False".to_owned(),
        Value::Integer(v) => format!("({v})"),
        Value::Decimal(v) => format!("({v:?})"),
        Value::Text(v) => string(v),
        Value::Texts(v) => format!(
            "[{}]",
            v.iter()
                .map(|text| string(text))
                .collect::<Vec<_>>()
                .join(", ")
        ),
        Value::Bytes(_) | Value::Secret(_) => return None,
    })
}

/// A string literal in printable ASCII.
fn string(text: &str) -> String {
    let mut literal = String::from("'");
    for c in text.chars() {
        // writing to a String cannot fail
        let _ = match c {
            '\'' | '\\' => write!(literal, "\\{c}"),
            ' '..='~' => write!(literal, "{c}"),
            c if u32::from(c) < 0x100 => write!(literal, "\\x{:02x}", u32::from(c)),
            c if u32::from(c) < 0x1_0000 => write!(literal, "\\u{:04x}", u32::from(c)),
            c => write!(literal, "\\U{:08x}", u32::from(c)),
        };
    }
    literal.push('\'');
    literal
}

/// The position of every byte of `script`.
pub(super) fn positions(script: &str) -> Vec<Position> {
    let bytes = script.as_bytes();
    let mut positions = vec![Position::Code; bytes.len()];
    let mut at = 0;
    while at < bytes.len() {
        let (end, position) = match bytes[at] {
            b'#' => {
                let end = bytes[at..]
                    .iter()
                    .position(|byte| *byte == b'\n')
                    .map_or(bytes.len(), |offset| at + offset);
                (end, Position::Comment)
            }
            quote @ (b'\'' | b'"') => (string_end(bytes, at, quote), Position::Other("a string")),
            b'\\' => ((at + 2).min(bytes.len()), Position::Other("an escape")),
            _ => (at + 1, Position::Code),
        };
        positions[at..end].fill(position);
        at = end;
    }
    positions
}

/// Behind the string that starts at `at`. A backslash keeps the quote behind it from closing, in raw strings too.
fn string_end(bytes: &[u8], at: usize, quote: u8) -> usize {
    let triple = bytes[at..].starts_with(&[quote; 3]);
    let mut at = at + if triple { 3 } else { 1 };
    while at < bytes.len() {
        match bytes[at] {
            b'\\' => at += 2,
            b'\n' if !triple => return at,
            byte if byte == quote && (!triple || bytes[at..].starts_with(&[quote; 3])) => {
                return at + if triple { 3 } else { 1 };
            }
            _ => at += 1,
        }
    }
    bytes.len()
}
