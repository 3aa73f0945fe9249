//! Where a placeholder stands, as far as its language tells.

/// A position, and whether what is there is evaluated once more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Standing {
    pub(super) position: Position,
    /// Where it is evaluated again, with the reason: quotes do not help there, and whole numbers alone are safe.
    pub(super) evaluated: Option<&'static str>,
}

impl Standing {
    pub(super) const fn new(position: Position) -> Self {
        Self {
            position,
            evaluated: None,
        }
    }
}

/// A position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Position {
    /// Where a word or expression may stand.
    Code,
    /// Within a string.
    String(Quote),
    /// In the here-document with this number.
    Document(usize),
    /// In an arithmetic expression.
    Arithmetic,
    /// In a comment, which nobody reads.
    Comment,
    /// Where no literal is safe, with the name of the place: "stands in ...".
    Refused(&'static str),
}

/// Which string it is. What can be written into one depends on the language.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Quote {
    /// `'...'`
    Single,
    /// `"..."`
    Double,
    /// `$'...'` of shells.
    Ansi,
    /// A template of JavaScript.
    Template,
}
