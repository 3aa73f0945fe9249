//! What a shell expands within words: variables, substitutions and calculations.

use super::Dialect;
use super::command::{ALIAS, is_of_aliases};
use super::reader::{Open, Reader, Within};
use super::word::{UNFINISHED, Word, calculated_in, is_name_byte, is_name_start};
use crate::render::position::Position;
use crate::render::template::Doubt;

impl Reader<'_> {
    /// What starts with a dollar. `quoted`: within double quotes, or a here-document.
    pub(super) fn dollar(&mut self, quoted: bool) -> Result<(), Doubt> {
        self.cursor.at += 1;
        if self.cursor.at_place() {
            self.place(Position::Refused("what follows a dollar"));
            return Ok(());
        }
        match self.cursor.peek() {
            Some(b'(') if self.cursor.byte(1) == Some(b'(') => self.arithmetic(Arithmetic::Value),
            Some(b'(') => self.substitution(),
            Some(b'{') => self.expansion(quoted),
            Some(b'[') => Err(Doubt("$[...], which only some shells know")),
            Some(b'\'') if !quoted => self.ansi_quoted(),
            Some(byte) if is_name_start(byte) => self.name_and_subscript(),
            Some(b'0'..=b'9' | b'@' | b'*' | b'#' | b'?' | b'-' | b'$' | b'!')
                if self.dialect != Dialect::Zsh =>
            {
                self.cursor.at += 1;
                Ok(())
            }
            // zsh: brackets may follow each, and signs stand in front of a name: `$=name`, `$#name`, `$#@`.
            Some(
                b'0'..=b'9'
                | b'@'
                | b'*'
                | b'#'
                | b'?'
                | b'-'
                | b'$'
                | b'!'
                | b'='
                | b'~'
                | b'^'
                | b'+',
            ) if self.dialect == Dialect::Zsh => {
                while matches!(self.cursor.peek(), Some(b'#' | b'=' | b'~' | b'^' | b'+')) {
                    self.cursor.at += 1;
                }
                if matches!(
                    self.cursor.peek(),
                    Some(b'@' | b'*' | b'?' | b'-' | b'$' | b'!')
                ) {
                    self.cursor.at += 1;
                }
                self.name_and_subscript()
            }
            _ => Ok(()),
        }
    }

    /// The name behind a dollar. To zsh, brackets and modifiers behind it belong to it.
    fn name_and_subscript(&mut self) -> Result<(), Doubt> {
        while self.cursor.peek().is_some_and(is_name_byte) {
            self.cursor.at += 1;
        }
        if self.dialect != Dialect::Zsh {
            return Ok(());
        }
        while self.cursor.peek() == Some(b'[') {
            let rest = self.cursor.rest();
            let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"[_$@*,#-+".contains(byte);
            match rest.iter().position(|byte| !plain(byte)) {
                Some(end) if rest[end] == b']' => {
                    let from = self.cursor.at;
                    self.cursor.at += end + 1;
                    self.calculated(from);
                }
                _ => return Err(Doubt("brackets behind a variable of zsh")),
            }
        }
        if self.cursor.peek() == Some(b':') {
            match self.cursor.byte(1) {
                Some(byte) if byte.is_ascii_alphabetic() || byte == b'&' => {
                    return Err(Doubt("a colon behind a variable of zsh, and a letter"));
                }
                None if self.cursor.at + 1 < self.cursor.end => {
                    self.cursor.at += 1;
                    self.place(Position::Refused("what may modify a variable of zsh"));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Takes note of the variables in a calculation that starts at `from`: to zsh, one that is assigned there for the first
    /// time is a number from then on.
    pub(super) fn calculated(&mut self, from: usize) {
        if self.dialect == Dialect::Zsh {
            let text = self.cursor.text(from, self.cursor.at);
            self.attributes.numbers.extend(calculated_in(text));
        }
    }

    /// `$(...)`
    fn substitution(&mut self) -> Result<(), Doubt> {
        self.cursor.at += 1;
        self.enter(Open::Substitution)?;
        self.commands(Within::Parentheses)?;
        self.open.pop();
        Ok(())
    }

    /// `<(...)` or `>(...)`, which nothing but a blank or an operator may follow here.
    pub(super) fn substituted_process(&mut self) -> Result<(), Doubt> {
        if !self.dialect.is_extended() {
            return Err(Doubt("<(...), which not every sh knows"));
        }
        self.cursor.at += 1;
        self.substitution()?;
        self.must_end_word()
    }

    /// `${...}`. Within double quotes shells disagree about quotes in it, and some count braces.
    fn expansion(&mut self, quoted: bool) -> Result<(), Doubt> {
        let from = self.cursor.at;
        let mut has_subscript = false;
        self.cursor.at += 1;
        self.enter(Open::Expansion)?;
        match self.cursor.peek() {
            Some(b' ' | b'\t' | b'\n' | b'|') => {
                return Err(Doubt("${ ...; }, which only some shells know"));
            }
            Some(b'(') => {
                let rest = self.cursor.rest();
                let flag = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'@';
                let end = rest[1..]
                    .iter()
                    .position(|byte| !flag(byte))
                    .map(|end| end + 1);
                match end.filter(|end| rest[*end] == b')') {
                    Some(end) if self.dialect == Dialect::Zsh => self.cursor.at += end + 1,
                    _ => return Err(Doubt("flags in an expansion")),
                }
            }
            _ => {}
        }
        let mut inside = Word::default();
        loop {
            if self.cursor.at_place() {
                self.place(Position::Refused("an expansion of a variable"));
                continue;
            }
            let byte = self.cursor.peek().ok_or(UNFINISHED)?;
            self.line_feed_in_quotes(byte)?;
            match byte {
                b'}' => {
                    self.cursor.at += 1;
                    self.open.pop();
                    let text = self.cursor.text(from + 1, self.cursor.at);
                    if text.split(|byte| !is_name_byte(*byte)).any(is_of_aliases) {
                        return Err(ALIAS);
                    }
                    if has_subscript {
                        self.calculated(from);
                    }
                    return Ok(());
                }
                b'[' => {
                    has_subscript = true;
                    self.cursor.at += 1;
                }
                b'\\' => self.escaped(&mut inside)?,
                b'\'' | b'"' if quoted => {
                    return Err(Doubt("quotes in ${...} within quotes"));
                }
                b'\'' => self.single_quoted(&mut inside)?,
                b'"' => self.double_quoted(&mut inside)?,
                b'`' => self.backticks(quoted)?,
                b'$' => self.dollar(quoted)?,
                b'{' => return Err(Doubt("a brace within ${...}")),
                b'<' | b'>' if self.cursor.byte(1) == Some(b'(') => {
                    return Err(Doubt("a process within ${...}"));
                }
                _ => self.cursor.at += 1,
            }
        }
    }

    /// `$((...))`, `((...))`, or the head of `for ((...))`. What is not closed by two parentheses side by side is a
    /// subshell in a substitution, or an error.
    pub(super) fn arithmetic(&mut self, kind: Arithmetic) -> Result<(), Doubt> {
        let from = self.cursor.at;
        self.cursor.at += 2;
        self.enter(Open::Arithmetic)?;
        let mut depth = 0usize;
        loop {
            if self.cursor.at_place() {
                self.place(Position::Arithmetic);
                continue;
            }
            let byte = self.cursor.peek().ok_or(UNFINISHED)?;
            self.line_feed_in_quotes(byte)?;
            match byte {
                b'(' => depth += 1,
                b')' if depth > 0 => depth -= 1,
                b')' if self.cursor.byte(1) == Some(b')') => {
                    self.cursor.at += 2;
                    self.open.pop();
                    self.calculated(from);
                    return Ok(());
                }
                b'$' => {
                    self.dollar(true)?;
                    continue;
                }
                b';' if kind == Arithmetic::Loop => {}
                b')' | b'\'' | b'"' | b'\\' | b'`' | b';' | b'{' => {
                    return Err(Doubt(
                        "an arithmetic expression with more than numbers in it",
                    ));
                }
                _ => {}
            }
            self.cursor.at += 1;
        }
    }

    /// `` `...` ``, where its end is certain: nothing is escaped in it, and its quotes are whole.
    pub(super) fn backticks(&mut self, quoted: bool) -> Result<(), Doubt> {
        const DOUBT: Doubt = Doubt("backticks with quotes, comments or escapes in them");
        self.cursor.at += 1;
        let mut quote = None;
        loop {
            if self.cursor.at_place() {
                self.place(Position::Refused("backticks"));
                continue;
            }
            let byte = self.cursor.peek().ok_or(UNFINISHED)?;
            self.line_feed_in_quotes(byte)?;
            self.cursor.at += 1;
            match byte {
                b'`' if quote.is_none() => return Ok(()),
                b'`' | b'\\' => return Err(DOUBT),
                b'\'' | b'"' if quoted => return Err(DOUBT),
                _ if quote == Some(byte) => quote = None,
                _ if quote.is_some() => {}
                b'\'' | b'"' => quote = Some(byte),
                b'#' => return Err(DOUBT),
                b'<' if self.cursor.peek() == Some(b'<') => return Err(DOUBT),
                _ => {}
            }
        }
    }
}

/// Which arithmetic it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Arithmetic {
    Value,
    Loop,
}
