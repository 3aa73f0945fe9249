//! Brackets of languages in which a call may take a text for a program.

use super::position::{Position, Standing};
use super::template::{Cursor, Doubt};

/// Nothing that people write nests deeper.
const DEEPEST: usize = 200;

/// The brackets that are open at a place.
#[derive(Debug, Default)]
pub(super) struct Nesting {
    open: Vec<Bracket>,
    /// Placeholders in front of this one are in statements that were read to their end.
    understood: usize,
}

/// An open bracket.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bracket {
    closes: u8,
    /// The number of the first placeholder in it.
    first: usize,
    /// It holds the arguments of what takes a text for a program.
    pub(super) evaluates: bool,
    /// What the reader of the language wants to know when it closes.
    pub(super) kind: Kind,
}

/// What a bracket belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Plain,
    /// The head of `if (...)` and its like.
    Condition,
    /// It may be such a head, or a value.
    Either,
    /// Code within a string, with what the reader needs to know of the string.
    Interpolation(u8),
}

impl Nesting {
    /// How many are open.
    pub(super) fn depth(&self) -> usize {
        self.open.len()
    }

    /// The innermost bracket.
    pub(super) fn last_mut(&mut self) -> Option<&mut Bracket> {
        self.open.last_mut()
    }

    /// Opens a bracket and passes it.
    pub(super) fn open(
        &mut self,
        cursor: &mut Cursor<'_>,
        evaluates: bool,
        kind: Kind,
    ) -> Result<(), Doubt> {
        if self.open.len() >= DEEPEST {
            return Err(Doubt("something nested too deeply"));
        }
        self.open.push(Bracket {
            closes: match cursor.peek() {
                Some(b'(') => b')',
                Some(b'[') => b']',
                _ => b'}',
            },
            first: cursor.standings.len(),
            evaluates,
            kind,
        });
        cursor.at += 1;
        Ok(())
    }

    /// Closes the innermost bracket with the byte that is next, and passes that.
    pub(super) fn close(&mut self, cursor: &mut Cursor<'_>) -> Result<Bracket, Doubt> {
        let bracket = self
            .open
            .pop()
            .filter(|bracket| Some(bracket.closes) == cursor.peek())
            .ok_or(Doubt("a bracket that closes nothing"))?;
        cursor.at += 1;
        if bracket.evaluates {
            for standing in &mut cursor.standings[bracket.first..] {
                standing.evaluated = Some("a call that takes a text for a program");
            }
        }
        Ok(bracket)
    }

    /// A statement ends here for certain, where no bracket is open.
    pub(super) fn end_statement(&mut self, cursor: &Cursor<'_>) {
        if self.open.is_empty() {
            self.understood = cursor.standings.len();
        }
    }

    /// Ends the reading of a script: with a doubt, everything behind is refused, and what was passed since the last
    /// statement ended for certain, which may have been misread.
    pub(super) fn settle(&self, mut cursor: Cursor<'_>, read: Result<(), Doubt>) -> Vec<Standing> {
        let doubt = match read {
            Ok(()) if self.open.is_empty() => return cursor.standings,
            Ok(()) => Doubt("something that has no end"),
            Err(doubt) => doubt,
        };
        let opened = self.open.first().map(|bracket| bracket.first);
        let understood = opened.map_or(self.understood, |first| first.min(self.understood));
        cursor.refuse_from(understood, doubt);
        cursor.standings
    }
}

/// Refuses every placeholder of a script that is not read at all.
pub(super) fn refuse(mut cursor: Cursor<'_>, doubt: Doubt) -> Vec<Standing> {
    cursor.refuse_from(0, doubt);
    cursor.standings
}

/// Passes a placeholder in code. Right beside a word, a string or another placeholder it would become part of that.
pub(super) fn pass_in_code(cursor: &mut Cursor<'_>, position: Position) {
    let touches =
        |byte: Option<u8>| byte.is_some_and(|byte| is_word(byte) || b"'\"`$@%&#\\".contains(&byte));
    let before = cursor.before();
    cursor.pass(position);
    if (touches(before) || touches(cursor.peek()) || cursor.at_place())
        && let Some(standing) = cursor.standings.last_mut()
    {
        standing.position = Position::Refused("a place right beside a word or a string");
    }
}

/// The position of a placeholder in code, where an expression is expected or not.
pub(super) const fn expression(is_expected: bool) -> Position {
    if is_expected {
        Position::Code
    } else {
        Position::Refused("a place where no expression is expected")
    }
}

/// Passes what the backslash in front of here escapes.
pub(super) fn pass_escaped(cursor: &mut Cursor<'_>) {
    if cursor.at_place() {
        cursor.pass(Position::Refused("an escape"));
    } else if !cursor.at_end() {
        cursor.at += 1;
    }
}

/// Whether it can be part of a word.
pub(super) const fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80
}

/// The word that is next, which is passed.
pub(super) fn take_word<'t>(cursor: &mut Cursor<'t>) -> &'t [u8] {
    let rest = cursor.rest();
    let length = rest.iter().position(|byte| !is_word(*byte));
    let word = &rest[..length.unwrap_or(rest.len())];
    cursor.at += word.len();
    word
}

/// A statement that takes a text for a program, up to its end.
#[derive(Debug, Default)]
pub(super) struct Statement {
    /// How many brackets were open around the word that does.
    evaluates: Option<usize>,
}

impl Statement {
    /// Takes note of a word.
    pub(super) fn see(&mut self, nesting: &Nesting, evaluates: bool) {
        if evaluates && self.evaluates.is_none() {
            self.evaluates = Some(nesting.depth());
        }
    }

    /// A statement ends here; one within brackets does not end the one around it.
    pub(super) fn end(&mut self, nesting: &Nesting) {
        if self.evaluates.is_some_and(|depth| nesting.depth() <= depth) {
            self.evaluates = None;
        }
    }

    /// A block ends here, and statements of it with it.
    pub(super) fn leave(&mut self, nesting: &Nesting) {
        if self.evaluates.is_some_and(|depth| nesting.depth() < depth) {
            self.evaluates = None;
        }
    }

    /// Marks the placeholder that was passed.
    pub(super) fn mark(&self, cursor: &mut Cursor<'_>) {
        if self.evaluates.is_some()
            && let Some(standing) = cursor.standings.last_mut()
        {
            standing.evaluated = Some("a statement that takes a text for a program");
        }
    }
}

/// A comment or documentation that ends with the line that starts with `end`, which no letter follows. What else may
/// follow, languages and versions do not agree about.
pub(super) fn end_of_documentation(cursor: &Cursor<'_>, end: &[u8]) -> Result<usize, Doubt> {
    let mut at = cursor.at;
    while at < cursor.end {
        let line_end = cursor.line_end(at);
        let line = cursor.text(at, line_end);
        if let Some(rest) = line.strip_prefix(end) {
            match rest.first() {
                None | Some(b' ' | b'\t' | b'\r') => return Ok(line_end),
                Some(byte) if byte.is_ascii_alphabetic() => {}
                Some(_) => return Err(Doubt("a line that may end documentation")),
            }
        }
        at = line_end + 1;
    }
    Err(Doubt("a comment without an end"))
}

/// Whether `word` is one of these.
pub(super) fn is_one_of(word: &[u8], words: &[&str]) -> bool {
    words.iter().any(|one| one.as_bytes() == word)
}
