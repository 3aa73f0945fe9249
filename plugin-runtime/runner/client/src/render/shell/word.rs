//! Words of a shell script: what is quoted in them, and where they end.

use super::reader::{Open, Reader};
use crate::render::position::{Position, Quote};
use crate::render::template::Doubt;

/// A word that was read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Word {
    /// What it says without its quotes; none where the script computes some of it.
    pub(super) literal: Option<Vec<u8>>,
    /// Nothing in it is quoted, so that it can be a reserved word.
    pub(super) is_bare: bool,
    /// The variable, where it has the form of an assignment.
    pub(super) assigns: Option<Vec<u8>>,
    /// It assigns to an element.
    pub(super) is_element: bool,
    /// It assigns a list.
    pub(super) is_list: bool,
    /// The numbers of its placeholders.
    pub(super) places: std::ops::Range<usize>,
    /// Those of them that are values in a list.
    pub(super) values: Vec<usize>,
    /// It is `<(...)` or `>(...)`.
    pub(super) is_process: bool,
}

impl Word {
    pub(super) fn is(&self, text: &str) -> bool {
        self.literal.as_deref() == Some(text.as_bytes())
    }

    /// Its text, where that is one.
    pub(super) fn text(&self) -> Option<&str> {
        str::from_utf8(self.literal.as_deref()?).ok()
    }

    pub(super) fn has_places(&self) -> bool {
        !self.places.is_empty()
    }

    fn push(&mut self, byte: u8) {
        if let Some(literal) = &mut self.literal {
            literal.push(byte);
        }
    }

    fn compute(&mut self) {
        self.literal = None;
        self.is_bare = false;
    }

    /// Whether it is a name so far, as in front of `=` and `[`.
    fn is_name(&self) -> bool {
        self.is_bare && self.literal.as_deref().is_some_and(is_name)
    }

    /// Whether it is `name=` so far.
    fn awaits_list(&self) -> bool {
        self.assigns.is_some()
            && self.is_bare
            && self.literal.as_ref().is_some_and(|l| l.ends_with(b"="))
            && self
                .literal
                .as_ref()
                .map(|l| l.iter().filter(|b| **b == b'=').count())
                == Some(1)
    }
}

/// The variables in a calculation that assigns: some of them are assigned to.
pub(super) fn calculated_in(text: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    let assigns = text.contains(&b'=') || text.windows(2).any(|pair| matches!(pair, b"++" | b"--"));
    text.split(|byte| !is_name_byte(*byte))
        .filter(move |word| assigns && is_name(word))
        .map(<[u8]>::to_vec)
}

pub(super) fn is_name(text: &[u8]) -> bool {
    text.first().is_some_and(|byte| is_name_start(*byte))
        && text.iter().all(|byte| is_name_byte(*byte))
}

pub(super) const fn is_name_start(byte: u8) -> bool {
    byte.is_ascii_alphabetic() || byte == b'_'
}

pub(super) const fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

/// What may be assigned where a word stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Assigns {
    /// Variables, elements and lists: in front of a command.
    All,
    /// Variables and lists: behind `declare` and its like.
    Declared,
    /// Nothing: an argument.
    Nothing,
}

impl Reader<'_> {
    /// The word that starts here.
    pub(super) fn word(&mut self, assigns: Assigns) -> Result<Word, Doubt> {
        let first = self.cursor.standings.len();
        let mut word = Word {
            literal: Some(Vec::new()),
            is_bare: true,
            ..Word::default()
        };
        let mut is_first_sign = true;
        loop {
            if self.cursor.at_place() {
                // zsh expands these in front of quotes too.
                let expands = word.is_bare && (word.is("~") || word.is("="));
                word.compute();
                self.place(if expands {
                    Position::Refused("what follows a tilde or an equals sign")
                } else {
                    Position::Code
                });
                continue;
            }
            let Some(byte) = self.cursor.peek() else {
                break;
            };
            match byte {
                b'(' if assigns != Assigns::Nothing && word.awaits_list() => {
                    word.values = self.list_of_words()?;
                    word.is_list = true;
                    break;
                }
                b' ' | b'\t' | b'\n' | b';' | b'&' | b'|' | b'<' | b'>' | b'(' | b')' => break,
                b'\\' if self.cursor.byte(1) == Some(b'\n') => self.cursor.at += 2,
                b'\\' => {
                    word.is_bare = false;
                    self.escaped(&mut word)?;
                }
                b'\'' => {
                    word.is_bare = false;
                    self.single_quoted(&mut word)?;
                }
                b'"' => {
                    word.is_bare = false;
                    self.double_quoted(&mut word)?;
                }
                b'`' => {
                    word.compute();
                    self.backticks(false)?;
                }
                b'$' => {
                    word.compute();
                    self.dollar(false)?;
                }
                b'[' if assigns == Assigns::All && word.is_name() => {
                    word.is_element = true;
                    self.subscript(&mut word)?;
                }
                _ => {
                    if byte == b'=' && std::mem::take(&mut is_first_sign) && word.assigns.is_none()
                    {
                        word.assigns = assigned(&word);
                    }
                    word.push(byte);
                    self.cursor.at += 1;
                }
            }
        }
        word.places = first..self.cursor.standings.len();
        Ok(word)
    }

    /// A backslash and what it escapes.
    pub(super) fn escaped(&mut self, word: &mut Word) -> Result<(), Doubt> {
        self.cursor.at += 1;
        if self.cursor.at_place() {
            word.compute();
            self.place(Position::Refused("an escape"));
            return Ok(());
        }
        let byte = self.cursor.peek().ok_or(UNFINISHED)?;
        self.cursor.at += 1;
        word.push(byte);
        Ok(())
    }

    /// `'...'`
    pub(super) fn single_quoted(&mut self, word: &mut Word) -> Result<(), Doubt> {
        self.cursor.at += 1;
        loop {
            if self.cursor.at_place() {
                word.compute();
                self.place(Position::String(Quote::Single));
                continue;
            }
            let byte = self.cursor.peek().ok_or(UNFINISHED)?;
            self.line_feed_in_quotes(byte)?;
            self.cursor.at += 1;
            if byte == b'\'' {
                return Ok(());
            }
            word.push(byte);
        }
    }

    /// `"..."`
    pub(super) fn double_quoted(&mut self, word: &mut Word) -> Result<(), Doubt> {
        self.cursor.at += 1;
        self.enter(Open::DoubleQuotes)?;
        loop {
            if self.cursor.at_place() {
                word.compute();
                self.place(Position::String(Quote::Double));
                continue;
            }
            let byte = self.cursor.peek().ok_or(UNFINISHED)?;
            self.line_feed_in_quotes(byte)?;
            match byte {
                b'"' => {
                    self.cursor.at += 1;
                    self.open.pop();
                    return Ok(());
                }
                b'\\' => {
                    // In front of other characters the backslash stays.
                    if !matches!(
                        self.cursor.byte(1),
                        Some(b'$' | b'`' | b'"' | b'\\' | b'\n')
                    ) {
                        word.push(b'\\');
                    }
                    self.escaped(word)?;
                }
                b'`' => {
                    word.compute();
                    self.backticks(true)?;
                }
                b'$' => {
                    word.compute();
                    self.dollar(true)?;
                }
                _ => {
                    word.push(byte);
                    self.cursor.at += 1;
                }
            }
        }
    }

    /// `$'...'`. Shells without it end the string at the first quote; that is no doubt where it is the same one.
    pub(super) fn ansi_quoted(&mut self) -> Result<(), Doubt> {
        self.cursor.at += 1;
        let is_known = self.dialect.is_extended();
        loop {
            if self.cursor.at_place() {
                let position = if is_known {
                    Position::String(Quote::Ansi)
                } else {
                    Position::Refused("$'...', which not every sh knows")
                };
                self.place(position);
                continue;
            }
            let byte = self.cursor.peek().ok_or(UNFINISHED)?;
            self.line_feed_in_quotes(byte)?;
            self.cursor.at += 1;
            match byte {
                b'\'' => return Ok(()),
                b'\\' if self.cursor.at_place() => self.place(Position::Refused("an escape")),
                b'\\' => match self.cursor.peek() {
                    Some(b'\'') if !is_known => {
                        return Err(Doubt("$'...', which not every sh knows"));
                    }
                    Some(_) => self.cursor.at += 1,
                    None => return Err(UNFINISHED),
                },
                _ => {}
            }
        }
    }

    pub(super) fn must_end_word(&self) -> Result<(), Doubt> {
        match self.cursor.peek() {
            Some(b' ' | b'\t' | b'\n' | b';' | b'&' | b'|' | b')') => Ok(()),
            None if self.cursor.at_end() => Ok(()),
            _ => Err(Doubt("a word that goes on behind a parenthesis")),
        }
    }

    /// The subscript in front of an assignment to an element. What is in it is calculated.
    fn subscript(&mut self, word: &mut Word) -> Result<(), Doubt> {
        const DOUBT: Doubt = Doubt("a subscript that is not plain");
        let from = self.cursor.at;
        word.push(b'[');
        self.cursor.at += 1;
        loop {
            if self.cursor.at_place() {
                self.place(Position::Code);
                self.evaluated(self.cursor.standings.len() - 1, "a subscript");
                continue;
            }
            let byte = self.cursor.peek().ok_or(UNFINISHED)?;
            match byte {
                b']' => {
                    word.push(byte);
                    self.cursor.at += 1;
                    self.calculated(from);
                    // The name was looked at before; what follows decides whether this is an assignment.
                    let assigns = self.cursor.looking_at(b"=") || self.cursor.looking_at(b"+=");
                    if assigns {
                        word.assigns = word.literal.as_deref().map(|literal| {
                            literal
                                .split(|b| *b == b'[')
                                .next()
                                .unwrap_or_default()
                                .to_vec()
                        });
                    }
                    return Ok(());
                }
                b'$' if self
                    .cursor
                    .byte(1)
                    .is_some_and(|byte| is_name_start(byte) || byte == b'{') =>
                {
                    word.is_bare = false;
                    self.dollar(false)?;
                }
                b'"' => {
                    word.is_bare = false;
                    self.double_quoted(&mut Word::default())?;
                }
                b'\'' => {
                    word.is_bare = false;
                    self.single_quoted(&mut Word::default())?;
                }
                _ if byte.is_ascii_alphanumeric() || b"_@*-+#%/.:,?!".contains(&byte) => {
                    word.push(byte);
                    self.cursor.at += 1;
                }
                _ => return Err(DOUBT),
            }
        }
    }

    /// The list in `name=(...)`, with the numbers of placeholders whose values are values.
    fn list_of_words(&mut self) -> Result<Vec<usize>, Doubt> {
        let mut places = Vec::new();
        if !self.dialect.is_extended() {
            return Err(Doubt("a list, which not every sh knows"));
        }
        // There bash reads it twice, and not in the same way.
        if self.is_substituted() {
            return Err(Doubt("a list within $(...)"));
        }
        self.cursor.at += 1;
        self.enter(Open::List)?;
        loop {
            self.blanks();
            match self.cursor.peek() {
                Some(b')') => {
                    self.cursor.at += 1;
                    self.open.pop();
                    self.must_end_word()?;
                    return Ok(places);
                }
                Some(b'\n') => {
                    self.line_feed_in_quotes(b'\n')?;
                    self.cursor.at += 1;
                }
                Some(b'#') => self.comment()?,
                Some(b'<' | b'>') if self.cursor.byte(1) == Some(b'(') => {
                    self.substituted_process()?;
                }
                Some(b'(' | b';' | b'&' | b'|' | b'<' | b'>') => {
                    return Err(Doubt("a list with more than words in it"));
                }
                None if !self.cursor.at_place() => return Err(UNFINISHED),
                start => {
                    let from = self.cursor.at;
                    let word = self.word(Assigns::Nothing)?;
                    if start == Some(b'[') {
                        // `[subscript]=value`
                        if !self.cursor.text(from, self.cursor.at).contains(&b']') {
                            return Err(Doubt("a subscript that is not plain"));
                        }
                        for place in word.places {
                            self.evaluated(place, "a list with subscripts");
                        }
                    } else {
                        places.extend(word.places);
                    }
                }
            }
        }
    }

    /// Where a line ends within something that is quoted or nested, a here-document that is still to come would start
    /// here for some shells.
    pub(super) fn line_feed_in_quotes(&self, byte: u8) -> Result<(), Doubt> {
        if byte == b'\n' && !self.pending.is_empty() {
            return Err(Doubt("a here-document that starts within something else"));
        }
        Ok(())
    }
}

pub(super) const UNFINISHED: Doubt = Doubt("something that has no end");

/// The variable that `word` assigns to, where `=` comes next.
fn assigned(word: &Word) -> Option<Vec<u8>> {
    if !word.is_bare {
        return None;
    }
    let literal = word.literal.as_deref()?;
    let name = literal.strip_suffix(b"+").unwrap_or(literal);
    is_name(name).then(|| name.to_vec())
}
