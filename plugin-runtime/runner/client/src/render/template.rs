//! A script as its own text and the placeholders in it.

use std::collections::HashMap;

use super::position::{Position, Standing};

/// A script with the places of its placeholders.
#[derive(Debug)]
pub(super) struct Template<'s> {
    pub(super) text: &'s str,
    /// In the order of the text, without overlap.
    pub(super) places: Vec<Place>,
}

/// Where a placeholder stands: `text[start..end]` is `{{name}}`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) start: usize,
    pub(super) end: usize,
    /// Which of the names it has.
    pub(super) name: usize,
}

impl<'s> Template<'s> {
    /// Finds the placeholders of these names. `{{{x}}}` has one, behind its first brace.
    pub(super) fn new(text: &'s str, names: &[&str]) -> Self {
        let numbers: HashMap<&str, usize> = names.iter().copied().zip(0..).collect();
        let mut places = Vec::new();
        let mut at = 0;
        while let Some(start) = text[at..].find("{{").map(|offset| at + offset) {
            let rest = &text[start + 2..];
            // Names are short, so that looking for the end of each `{{` does not walk through the script.
            let name = rest
                .bytes()
                .take(129)
                .position(|byte| byte == b'}')
                .and_then(|length| rest[length..].starts_with("}}").then(|| &rest[..length]))
                .and_then(|found| numbers.get(found).copied());
            at = match name {
                Some(name) => {
                    let end = start + names[name].len() + 4;
                    places.push(Place { start, end, name });
                    end
                }
                None => start + 1,
            };
        }
        Self { text, places }
    }

    /// The text with these in place of its placeholders, in their order.
    pub(super) fn filled(&self, literals: &[String]) -> String {
        let size: usize = literals.iter().map(String::len).sum();
        let mut filled = String::with_capacity(self.text.len() + size);
        let mut at = 0;
        for (place, literal) in self.places.iter().zip(literals) {
            filled.push_str(&self.text[at..place.start]);
            filled.push_str(literal);
            at = place.end;
        }
        filled.push_str(&self.text[at..]);
        filled
    }
}

/// What a reader is not sure of: it, and everything behind it, gets no literal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Doubt(pub(super) &'static str);

/// Walks through a template. Placeholders are opaque: nothing looks into them or past them.
#[derive(Debug)]
pub(super) struct Cursor<'t> {
    bytes: &'t [u8],
    places: &'t [Place],
    pub(super) at: usize,
    /// Where the text ends.
    pub(super) end: usize,
    /// One for each place that was passed.
    pub(super) standings: Vec<Standing>,
}

impl<'t> Cursor<'t> {
    pub(super) fn new(template: &'t Template<'_>) -> Self {
        Self {
            bytes: template.text.as_bytes(),
            places: &template.places,
            at: 0,
            end: template.text.len(),
            standings: Vec::with_capacity(template.places.len()),
        }
    }

    /// Where the part that can be looked at ends: at the next placeholder, or at the end.
    fn limit(&self) -> usize {
        self.places
            .get(self.standings.len())
            .map_or(self.end, |place| place.start.min(self.end))
    }

    /// The byte at this distance, unless a placeholder or the end comes before.
    pub(super) fn byte(&self, distance: usize) -> Option<u8> {
        let at = self.at + distance;
        (at < self.limit()).then(|| self.bytes[at])
    }

    /// The byte that is next.
    pub(super) fn peek(&self) -> Option<u8> {
        self.byte(0)
    }

    /// The byte before this place in the text; none at its start.
    pub(super) fn before(&self) -> Option<u8> {
        self.at.checked_sub(1).map(|at| self.bytes[at])
    }

    /// What is next, up to a placeholder or the end.
    pub(super) fn rest(&self) -> &'t [u8] {
        &self.bytes[self.at..self.limit()]
    }

    pub(super) fn looking_at(&self, text: &[u8]) -> bool {
        self.rest().starts_with(text)
    }

    pub(super) fn at_place(&self) -> bool {
        self.at < self.end && self.at == self.limit()
    }

    pub(super) fn at_end(&self) -> bool {
        self.at >= self.end
    }

    /// Everything between two places in the text, placeholders and all.
    pub(super) fn text(&self, from: usize, to: usize) -> &'t [u8] {
        &self.bytes[from..to]
    }

    /// Where the line that `at` is in ends: at its line feed, or at the end.
    pub(super) fn line_end(&self, at: usize) -> usize {
        self.bytes[at..self.end]
            .iter()
            .position(|byte| *byte == b'\n')
            .map_or(self.end, |offset| at + offset)
    }

    /// Passes the placeholder that is next.
    pub(super) fn pass(&mut self, position: Position) {
        let place = self.places[self.standings.len()];
        self.at = place.end;
        self.standings.push(Standing::new(position));
    }

    /// Goes on at `to`; placeholders up to there all stand in the same position.
    pub(super) fn skip(&mut self, to: usize, position: Position) {
        while self
            .places
            .get(self.standings.len())
            .is_some_and(|place| place.start < to)
        {
            self.standings.push(Standing::new(position));
        }
        self.at = to;
    }

    /// Whether these characters stand somewhere in the script, and are no part of a word.
    pub(super) fn has_word(&self, word: &str) -> bool {
        let is_part = |byte: Option<&u8>| {
            byte.is_some_and(|byte| byte.is_ascii_alphanumeric() || b"_/.-".contains(byte))
        };
        self.bytes
            .windows(word.len())
            .enumerate()
            .filter(|(_, found)| *found == word.as_bytes())
            .any(|(at, _)| {
                let before = at.checked_sub(1).and_then(|at| self.bytes.get(at));
                word == "((" || !(is_part(before) || is_part(self.bytes.get(at + word.len())))
            })
    }

    /// Refuses every placeholder from the one with this number on, passed or not.
    pub(super) fn refuse_from(&mut self, first: usize, doubt: Doubt) {
        let refused = Standing::new(Position::Refused(doubt.0));
        self.standings.truncate(first.min(self.standings.len()));
        self.standings.resize(self.places.len(), refused);
    }
}
