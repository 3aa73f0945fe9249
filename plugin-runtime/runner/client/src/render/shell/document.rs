//! Here-documents: where they end, and where placeholders stand in them.

use std::ops::Range;

use super::reader::{Open, Reader};
use super::word::UNFINISHED;
use crate::render::position::Position;
use crate::render::template::{Doubt, Template};

/// A here-document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Document {
    /// The line that ends it.
    pub(super) delimiter: String,
    /// Tabs at the start of lines are taken away.
    pub(super) strips_tabs: bool,
    /// Nothing in it is expanded.
    pub(super) is_quoted: bool,
    /// Its text, in the template.
    pub(super) text: Range<usize>,
    /// Where what reads it evaluates it.
    pub(super) evaluated: Option<&'static str>,
}

impl Reader<'_> {
    /// `<<` and the delimiter, which must be plain, or quoted whole.
    pub(super) fn document(&mut self) -> Result<(), Doubt> {
        self.cursor.at += 2;
        let strips_tabs = self.cursor.peek() == Some(b'-');
        self.cursor.at += usize::from(strips_tabs);
        self.blanks();
        let rest = self.cursor.rest();
        let quote = rest.first().filter(|byte| matches!(byte, b'\'' | b'"'));
        let from = match rest.first() {
            Some(b'\'' | b'"' | b'\\') => 1,
            _ => 0,
        };
        let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"_-.!+%".contains(byte);
        let length = match quote {
            Some(_) => rest[from..]
                .iter()
                .position(|byte| !plain(byte) && *byte != b' '),
            None => rest[from..].iter().position(|byte| !plain(byte)),
        }
        .unwrap_or(rest.len() - from);
        let to = from + length;
        let mut end = to;
        if let Some(quote) = quote {
            if rest.get(to) != Some(quote) {
                return Err(Doubt("a here-document whose delimiter is not plain"));
            }
            end += 1;
        }
        let ends_word = match rest.get(end) {
            None => self.cursor.at + end >= self.cursor.line_end(self.cursor.at),
            Some(byte) => b" \t\n;|&)<>".contains(byte),
        };
        if length == 0 || !ends_word {
            return Err(Doubt("a here-document whose delimiter is not plain"));
        }
        self.pending.push(self.documents.len());
        self.documents.push(Document {
            delimiter: String::from_utf8_lossy(&rest[from..to]).into_owned(),
            strips_tabs,
            is_quoted: from == 1,
            text: 0..0,
            evaluated: None,
        });
        self.cursor.at += end;
        Ok(())
    }

    /// The texts of the documents that start here.
    pub(super) fn read_documents(&mut self) -> Result<(), Doubt> {
        for document in std::mem::take(&mut self.pending) {
            self.read_document(document)?;
        }
        Ok(())
    }

    fn read_document(&mut self, index: usize) -> Result<(), Doubt> {
        let document = &self.documents[index];
        let start = self.cursor.at;
        let mut at = start;
        let mut is_continued = false;
        let after = loop {
            let end = self.cursor.line_end(at);
            let line = document.line(self.cursor.text(at, end));
            if line == document.delimiter.as_bytes() {
                if is_continued {
                    return Err(Doubt("a here-document whose last line is continued"));
                }
                break (end + 1).min(self.cursor.end);
            }
            // A backslash at the end of a line joins it with the next one, which then ends nothing.
            let backslashes = line.iter().rev().take_while(|byte| **byte == b'\\').count();
            is_continued = !document.is_quoted && backslashes % 2 == 1;
            if is_continued
                && document
                    .delimiter
                    .as_bytes()
                    .starts_with(&line[..line.len() - 1])
            {
                return Err(Doubt("a here-document whose last line is continued"));
            }
            if end >= self.cursor.end {
                return Err(UNFINISHED);
            }
            at = end + 1;
        };
        let is_quoted = document.is_quoted;
        self.documents[index].text = start..at;
        if is_quoted {
            self.cursor.skip(after, Position::Document(index));
        } else {
            self.expanded(index, at);
            self.cursor
                .skip(after, Position::Refused("a here-document's delimiter"));
        }
        Ok(())
    }

    /// The text of a document in which variables are expanded. What is not understood in it ends with it.
    fn expanded(&mut self, index: usize, end: usize) {
        let whole = std::mem::replace(&mut self.cursor.end, end);
        let depth = self.open.len();
        let refused = match self.expanded_text(index) {
            Ok(()) => "",
            Err(Doubt(reason)) => reason,
        };
        self.cursor.skip(end, Position::Refused(refused));
        self.open.truncate(depth);
        self.cursor.end = whole;
    }

    fn expanded_text(&mut self, index: usize) -> Result<(), Doubt> {
        self.enter(Open::Document)?;
        let mut line = Line::default();
        loop {
            if self.cursor.at_place() {
                if self.cursor.at >= line.end {
                    line = self.line();
                }
                let position = if line.is_continued {
                    Position::Refused("a continued line of a here-document")
                } else {
                    Position::Document(index)
                };
                self.cursor.pass(position);
                continue;
            }
            let Some(byte) = self.cursor.peek() else {
                return Ok(());
            };
            match byte {
                b'\\' => {
                    self.cursor.at += 1;
                    if self.cursor.at_place() {
                        self.cursor.pass(Position::Refused("an escape"));
                    } else if !self.cursor.at_end() {
                        self.cursor.at += 1;
                    }
                }
                b'`' => self.backticks(true)?,
                b'$' => {
                    self.dollar(true)?;
                    // A value could make another name of it.
                    if self.cursor.at_place() && !matches!(self.cursor.before(), Some(b'}' | b')'))
                    {
                        self.cursor
                            .pass(Position::Refused("what follows a variable"));
                    }
                }
                _ => self.cursor.at += 1,
            }
        }
    }

    /// The line of the text that is read now.
    fn line(&self) -> Line {
        let start = self
            .cursor
            .text(0, self.cursor.at)
            .iter()
            .rposition(|byte| *byte == b'\n')
            .unwrap_or_default();
        let end = self.cursor.line_end(self.cursor.at);
        let ends_with_backslash = |end: usize| end > 0 && self.cursor.text(end - 1, end) == b"\\";
        Line {
            end,
            is_continued: ends_with_backslash(end) || ends_with_backslash(start),
        }
    }
}

/// A line of a here-document.
#[derive(Debug, Default)]
struct Line {
    end: usize,
    /// It is joined with the line before or behind it.
    is_continued: bool,
}

impl Document {
    /// A line, as it is compared with the delimiter.
    pub(super) fn line<'l>(&self, line: &'l [u8]) -> &'l [u8] {
        if self.strips_tabs {
            &line[line.iter().take_while(|byte| **byte == b'\t').count()..]
        } else {
            line
        }
    }
}

impl Document {
    /// What stands for a text in it.
    pub(super) fn literal(
        &self,
        template: &Template<'_>,
        place: usize,
        text: &str,
    ) -> Result<String, &'static str> {
        let start = template.places[place].start;
        if self.strips_tabs {
            let is_first = template.text[self.text.start..start]
                .rsplit('\n')
                .next()
                .is_some_and(|line| line.bytes().all(|byte| byte == b'\t'));
            if text.contains("\n\t") || (is_first && text.starts_with('\t')) {
                return Err("a here-document that strips tabs from its lines");
            }
        }
        if self.is_quoted {
            return Ok(text.to_owned());
        }
        let mut literal = String::with_capacity(text.len());
        let mut before = template.text[..start].chars().next_back();
        for c in text.chars() {
            if matches!(c, '\\' | '$' | '`') {
                // In some encodings that are not UTF-8, a byte like that of a backslash is the end of a character.
                if before.is_some_and(|before| !before.is_ascii()) {
                    return Err(
                        "a here-document, and what must be escaped there follows a letter beyond ASCII",
                    );
                }
                literal.push('\\');
            }
            literal.push(c);
            before = Some(c);
        }
        Ok(literal)
    }

    /// Whether a line ends it. dash loses a byte beyond ASCII right behind the delimiter.
    fn is_like_end(&self, line: &[u8]) -> bool {
        line.strip_prefix(self.delimiter.as_bytes())
            .is_some_and(|rest| rest.first().is_none_or(|byte| !byte.is_ascii()))
    }

    /// The number of its first placeholder, where with the values one of its lines would end it, or be taken for its end.
    pub(super) fn ended_early(
        &self,
        template: &Template<'_>,
        literals: &[String],
    ) -> Option<usize> {
        let first = template
            .places
            .partition_point(|place| place.start < self.text.start);
        let places = &template.places[first..];
        let count = places
            .iter()
            .take_while(|place| place.start < self.text.end)
            .count();
        if count == 0 {
            return None;
        }
        let mut filled = String::new();
        let mut at = self.text.start;
        for (place, literal) in places.iter().zip(&literals[first..]).take(count) {
            filled.push_str(&template.text[at..place.start]);
            filled.push_str(literal);
            at = place.end;
        }
        filled.push_str(&template.text[at..self.text.end]);
        filled
            .split('\n')
            .any(|line| self.is_like_end(self.line(line.as_bytes())))
            .then_some(first)
    }
}
