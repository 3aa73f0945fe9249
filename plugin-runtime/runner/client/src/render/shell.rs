//! Shell scripts: sh, dash, bash, zsh and ksh.
//!
//! One form of literal serves everywhere: `'...'`, in which every shell takes every byte but the quote as it is. Within
//! double quotes, the quotes are closed for it and opened again. Only here-documents need escapes of their own.

mod builtin;
mod command;
mod dialect;
mod document;
mod evaluators;
mod expansion;
mod reader;
mod state;
mod word;

use sluice_gate_types::input::Value;

use self::dialect::Dialect;
use self::document::Document;
use self::reader::Reader;
use super::position::{Position, Quote, Standing};
use super::template::Template;

/// Where the placeholders of a script stand.
pub(super) struct Reading {
    pub(super) standings: Vec<Standing>,
    documents: Vec<Document>,
}

/// Reads a script of the interpreter with this name.
pub(super) fn read(template: &Template<'_>, interpreter: &str) -> Reading {
    Reader::new(template, Dialect::of(interpreter)).read()
}

impl Reading {
    /// What stands for a value at the placeholder with this number; else the name of the place where it cannot stand.
    pub(super) fn literal(
        &self,
        template: &Template<'_>,
        place: usize,
        value: &Value,
    ) -> Result<String, &'static str> {
        let standing = self.standings[place];
        let text = super::text(value).ok_or("a script")?;
        let evaluated = match standing.position {
            Position::Document(document) => self.documents[document].evaluated,
            _ => standing.evaluated,
        };
        if let Some(reason) = evaluated
            && !matches!(value, Value::Integer(_))
        {
            return Err(reason);
        }
        Ok(match standing.position {
            Position::Code => quoted(&text),
            Position::String(Quote::Double) => format!("\"{}\"", quoted(&text)),
            Position::String(Quote::Ansi) => format!("'{}$'", quoted(&text)),
            Position::String(Quote::Single) => text.replace('\'', "'\\''"),
            Position::Arithmetic if matches!(value, Value::Integer(_)) => format!("({text})"),
            Position::Document(document) => {
                self.documents[document].literal(template, place, &text)?
            }
            Position::Arithmetic => return Err("an arithmetic expression"),
            Position::Refused(reason) => return Err(reason),
            Position::String(Quote::Template) | Position::Comment => return Err("a script"),
        })
    }

    /// Looks at the here-documents with their values in them. Gives the number of the first placeholder of one that would
    /// end elsewhere.
    pub(super) fn ended_early(
        &self,
        template: &Template<'_>,
        literals: &[String],
    ) -> Option<usize> {
        self.documents
            .iter()
            .find_map(|document| document.ended_early(template, literals))
    }
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}
