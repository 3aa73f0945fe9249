//! Perl scripts.
//!
//! Only perl can read all of Perl. This reader knows strings, comments, numbers, variables, plain regular expressions and
//! operators, and goes on only where there is one way to read them.

use sluice_gate_types::input::Value;

use super::literal::{Form, Numbers, hexadecimal};
use super::nesting::{
    Kind, Nesting, Statement, end_of_documentation, expression, is_one_of, is_word, pass_escaped,
    pass_in_code, take_word,
};
use super::position::{Position, Quote, Standing};
use super::template::{Cursor, Doubt, Template};

/// Functions that take a text for a program, or for the name of one.
const EVALUATES: &[&str] = &[
    "IPC",
    "capture",
    "do",
    "eval",
    "evalbytes",
    "exec",
    "glob",
    "no",
    "open",
    "open2",
    "open3",
    "pipe",
    "readpipe",
    "require",
    "run",
    "syscall",
    "sysopen",
    "system",
    "tie",
    "use",
];

/// Words that quote, match or replace with the delimiter behind them.
const QUOTES: &[&str] = &["m", "q", "qq", "qr", "qw", "qx", "s", "tr", "y"];

/// Words behind which an expression comes, and no operator.
const BEFORE_EXPRESSION: &[&str] = &[
    "and", "cmp", "die", "else", "elsif", "eq", "foreach", "ge", "grep", "gt", "if", "join", "le",
    "lt", "map", "ne", "not", "or", "print", "push", "return", "say", "split", "unless", "unshift",
    "until", "warn", "while", "x", "xor",
];

/// Words behind which a variable comes, and no operator.
const BEFORE_NAME: &[&str] = &[
    "defined", "delete", "each", "exists", "keys", "local", "my", "our", "ref", "scalar", "state",
    "values",
];

/// Modules that change how the rest of a script is read.
const FILTERS: &[&str] = &[
    "Acme",
    "Filter",
    "Inline",
    "Switch",
    "encoding",
    "sigtrap",
    "signatures",
    "TryCatch",
];

/// Where the placeholders of a script stand.
pub(super) fn read(template: &Template<'_>) -> Vec<Standing> {
    let mut reader = Reader {
        cursor: Cursor::new(template),
        nesting: Nesting::default(),
        last: Last::Start,
        statement: Statement::default(),
    };
    let read = reader.line_start().and_then(|()| reader.read());
    reader.nesting.settle(reader.cursor, read)
}

/// What stands for a value. Letters beyond ASCII stay as they are: with `use utf8` they are letters, without it bytes, as
/// in the rest of the script.
pub(super) fn literal(position: Position, value: &Value) -> Result<String, &'static str> {
    const FORM: Form = Form {
        booleans: ["1", "0"],
        quote: '"',
        // A text is a number where it is used as one, and `print (1), 2` prints 1.
        numbers: Numbers::Quoted,
        escaped: hexadecimal,
    };
    FORM.literal(position, value)
}

/// What comes before a place, as far as it decides how the next characters are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Last<'t> {
    Start,
    /// Behind the brace of a subscript.
    Subscript,
    Operator,
    Value,
    /// Behind `}`, which may end a statement or a value.
    Brace,
    /// Behind `->`.
    Arrow,
    Word(&'t [u8]),
}

struct Reader<'t> {
    cursor: Cursor<'t>,
    nesting: Nesting,
    last: Last<'t>,
    statement: Statement,
}

impl Reader<'_> {
    fn read(&mut self) -> Result<(), Doubt> {
        loop {
            if self.cursor.at_place() {
                let position = self.position();
                pass_in_code(&mut self.cursor, position);
                self.statement.mark(&mut self.cursor);
                self.last = Last::Value;
                continue;
            }
            let Some(byte) = self.cursor.peek() else {
                return Ok(());
            };
            match byte {
                b' ' | b'\t' | b'\r' => self.cursor.at += 1,
                b'\n' => self.line_feed()?,
                b'#' => {
                    let end = self.cursor.line_end(self.cursor.at);
                    self.cursor.skip(end, Position::Comment);
                }
                b';' => {
                    self.cursor.at += 1;
                    self.statement.end(&self.nesting);
                    self.nesting.end_statement(&self.cursor);
                    self.last = Last::Start;
                }
                b'\'' => self.string(Quote::Single)?,
                b'"' => self.string(Quote::Double)?,
                b'`' => return Err(Doubt("backticks")),
                b'(' | b'[' | b'{' => self.open(byte, false)?,
                b')' | b']' => {
                    self.nesting.close(&mut self.cursor)?;
                    self.last = Last::Value;
                }
                b'}' => {
                    self.nesting.close(&mut self.cursor)?;
                    self.statement.leave(&self.nesting);
                    self.last = Last::Brace;
                }
                b'$' | b'@' => self.variable()?,
                b'%' | b'&' | b'*' => self.sigil(byte)?,
                b'-' if self.cursor.looking_at(b"->") => {
                    self.cursor.at += 2;
                    self.last = Last::Arrow;
                }
                b'-' if self.is_file_test() => {
                    self.cursor.at += 2;
                    self.last = Last::Operator;
                }
                b'+' if self.cursor.looking_at(b"++") => self.step(),
                b'-' if self.cursor.looking_at(b"--") => self.step(),
                b'<' => self.less()?,
                b'/' => self.slash()?,
                b'?' if self.last != Last::Value => {
                    return Err(Doubt(
                        "a question mark that perl reads by what is in front of it",
                    ));
                }
                b'=' if self.cursor.looking_at(b"=~") => {
                    self.cursor.at += 2;
                    self.last = Last::Operator;
                }
                b'=' | b'|' | b'!' | b'~' | b'^' | b'>' | b',' | b'.' | b'+' | b'-' | b'?'
                | b':' | b'\\' => {
                    self.cursor.at += 1;
                    self.last = Last::Operator;
                }
                _ if is_word(byte) => self.word()?,
                _ => return Err(Doubt("a character that is not understood")),
            }
        }
    }

    fn step(&mut self) {
        self.cursor.at += 2;
        if self.last != Last::Value {
            self.last = Last::Operator;
        }
    }

    fn position(&self) -> Position {
        let expected = match self.last {
            Last::Operator => true,
            Last::Word(word) => is_one_of(word, BEFORE_EXPRESSION),
            _ => false,
        };
        expression(expected)
    }

    fn line_feed(&mut self) -> Result<(), Doubt> {
        self.cursor.at += 1;
        self.line_start()
    }

    /// Documentation starts where a statement may; elsewhere this is an assignment.
    fn line_start(&mut self) -> Result<(), Doubt> {
        if !matches!(self.cursor.rest(), [b'=', letter, ..] if letter.is_ascii_alphabetic()) {
            return Ok(());
        }
        if self.last != Last::Start || self.cursor.looking_at(b"=cut") {
            return Err(Doubt("a line that may be documentation"));
        }
        let end = end_of_documentation(&self.cursor, b"=cut")?;
        self.cursor.skip(end, Position::Comment);
        Ok(())
    }

    fn open(&mut self, byte: u8, evaluates: bool) -> Result<(), Doubt> {
        // `$name{`, `]{` and `->{`; a brace behind a parenthesis may be a block's.
        let is_subscript = matches!(self.last, Last::Value | Last::Arrow)
            && self
                .cursor
                .before()
                .is_some_and(|byte| is_word(byte) || matches!(byte, b']' | b'>'));
        self.nesting
            .open(&mut self.cursor, evaluates, Kind::Plain)?;
        self.last = if byte == b'{' && is_subscript {
            Last::Subscript
        } else if byte == b'{' {
            Last::Start
        } else {
            Last::Operator
        };
        Ok(())
    }

    /// `$name`, `@name`, `$#name`, `$1`, `$_`, one of punctuation, and `${...}`.
    fn variable(&mut self) -> Result<(), Doubt> {
        const DOUBT: Doubt = Doubt("a variable that is not understood");
        let is_scalar = self.cursor.peek() == Some(b'$');
        self.cursor.at += 1;
        if is_scalar && self.cursor.looking_at(b"#") {
            self.cursor.at += 1;
            if !self
                .cursor
                .peek()
                .is_some_and(|byte| is_word(byte) || matches!(byte, b'{' | b'$'))
            {
                return Err(DOUBT);
            }
        }
        while self.cursor.peek() == Some(b'$') {
            self.cursor.at += 1;
        }
        match self.cursor.peek() {
            Some(b'{') => return self.open(b'{', true),
            Some(byte) if is_word(byte) => self.name()?,
            Some(b':') if self.cursor.looking_at(b"::") => self.name()?,
            Some(
                b'!' | b'@' | b'/' | b'\\' | b',' | b';' | b'.' | b'&' | b'0' | b'|' | b'+' | b'-',
            ) if is_scalar => {
                self.cursor.at += 1;
            }
            _ => return Err(DOUBT),
        }
        self.last = Last::Value;
        Ok(())
    }

    /// A name with its packages. A quote behind it would be part of it for older versions.
    fn name(&mut self) -> Result<(), Doubt> {
        loop {
            take_word(&mut self.cursor);
            if !self.cursor.looking_at(b"::") {
                break;
            }
            self.cursor.at += 2;
        }
        if self.cursor.peek() == Some(b'\'') {
            return Err(Doubt("a quote right behind a name"));
        }
        Ok(())
    }

    /// Signs that are operators behind a value, and start a name elsewhere. Where it could be both, it does not matter as
    /// long as a name follows.
    fn sigil(&mut self, byte: u8) -> Result<(), Doubt> {
        let is_known = match self.last {
            Last::Value => {
                self.cursor.at += 1;
                self.last = Last::Operator;
                return Ok(());
            }
            Last::Word(word) => is_one_of(word, BEFORE_NAME) || is_one_of(word, BEFORE_EXPRESSION),
            Last::Brace | Last::Arrow => false,
            Last::Start | Last::Subscript | Last::Operator => true,
        };
        self.cursor.at += 1;
        match self.cursor.peek() {
            Some(b'&') if byte == b'&' => {
                self.cursor.at += 1;
                self.last = Last::Operator;
            }
            Some(b'{') => return self.open(b'{', true),
            Some(b'$') => {
                self.variable()?;
                self.last = if is_known { Last::Value } else { Last::Brace };
            }
            Some(next) if is_word(next) => {
                self.name()?;
                self.last = if is_known { Last::Value } else { Last::Brace };
            }
            _ => return Err(Doubt("a sign that perl reads by what is in front of it")),
        }
        Ok(())
    }

    /// `-e FILE` and its like, where a value is expected.
    fn is_file_test(&self) -> bool {
        let rest = self.cursor.rest();
        let letter = rest.get(1).is_some_and(u8::is_ascii_alphabetic);
        let ends = rest.get(2).is_none_or(|byte| !is_word(*byte));
        letter && ends && self.last != Last::Value && self.last != Last::Brace
    }

    fn less(&mut self) -> Result<(), Doubt> {
        // `<STDIN>` and `<$file>`
        if matches!(self.last, Last::Operator | Last::Start) {
            let rest = &self.cursor.rest()[1..];
            let name = rest.strip_prefix(b"$").unwrap_or(rest);
            let length = name.iter().take_while(|byte| is_word(**byte)).count();
            if length > 0 && name.get(length) == Some(&b'>') {
                self.cursor.at += 2 + rest.len() - name.len() + length;
                self.last = Last::Value;
                return Ok(());
            }
        }
        let is_plain = self.last == Last::Value
            && !matches!(self.cursor.rest(), [b'<', b'<', next, ..] if !matches!(next, b' ' | b'\t' | b'='));
        if !is_plain {
            return Err(Doubt("a here-document, or a file to read from"));
        }
        self.cursor.at += 1;
        self.last = Last::Operator;
        Ok(())
    }

    fn slash(&mut self) -> Result<(), Doubt> {
        match self.last {
            Last::Value => {
                self.cursor.at += 1;
                self.last = Last::Operator;
                Ok(())
            }
            Last::Start | Last::Subscript | Last::Operator => self.quoted(b"m"),
            Last::Word(word) if is_one_of(word, BEFORE_EXPRESSION) => self.quoted(b"m"),
            _ => Err(Doubt("a division or a regular expression")),
        }
    }

    fn word(&mut self) -> Result<(), Doubt> {
        let from = self.cursor.at;
        let is_number = self.cursor.peek().is_some_and(|byte| byte.is_ascii_digit());
        self.name()?;
        let word = self.cursor.text(from, self.cursor.at);
        if is_one_of(word, &["__END__", "__DATA__", "format"]) {
            return Err(Doubt("the data of a script, or a format"));
        }
        if matches!(self.last, Last::Word(b"use" | b"no"))
            && FILTERS.iter().any(|name| word.starts_with(name.as_bytes()))
        {
            return Err(Doubt("a module that changes how the script is read"));
        }
        if word.iter().any(|byte| *byte >= 0x80) {
            return Err(Doubt("a name that is not ASCII"));
        }
        let mut behind = self
            .cursor
            .rest()
            .iter()
            .skip_while(|byte| matches!(byte, b' ' | b'\t'));
        let next = [behind.next(), behind.next()];
        let is_key = matches!(next, [Some(b'='), Some(b'>')])
            || (next[0] == Some(&b'}') && self.last == Last::Subscript);
        let is_method =
            self.last == Last::Arrow || matches!(self.last, Last::Word(b"sub" | b"package"));
        if !is_key && !is_method && is_one_of(word, QUOTES) {
            return self.quoted(word);
        }
        self.statement
            .see(&self.nesting, !is_key && is_one_of(word, EVALUATES));
        self.last = if is_number || is_key {
            Last::Value
        } else {
            Last::Word(word)
        };
        Ok(())
    }

    /// A regular expression, a list of words or another quote with one of the plain delimiters.
    fn quoted(&mut self, word: &[u8]) -> Result<(), Doubt> {
        const DOUBT: Doubt = Doubt("a quote of perl that is not understood");
        if word == b"qx" {
            return Err(Doubt("backticks"));
        }
        let blank = self
            .cursor
            .peek()
            .is_some_and(|byte| byte.is_ascii_whitespace());
        while self
            .cursor
            .peek()
            .is_some_and(|byte| matches!(byte, b' ' | b'\t'))
        {
            self.cursor.at += 1;
        }
        let parts = if is_one_of(word, &["s", "tr", "y"]) {
            2
        } else {
            1
        };
        let open = self.cursor.peek().ok_or(DOUBT)?;
        let close = match open {
            b'/' | b'|' | b'!' if !blank => open,
            b'{' => b'}',
            b'(' => b')',
            b'[' => b']',
            _ => return Err(DOUBT),
        };
        self.cursor.at += 1;
        for part in 0..parts {
            if part == 1 && open != close {
                while self
                    .cursor
                    .peek()
                    .is_some_and(|byte| byte.is_ascii_whitespace())
                {
                    self.cursor.at += 1;
                }
                if self.cursor.peek() != Some(open) {
                    return Err(DOUBT);
                }
                self.cursor.at += 1;
            }
            let mut depth = 0usize;
            loop {
                if self.cursor.at_place() {
                    self.cursor.pass(Position::Refused(
                        "a regular expression, or a quote of perl",
                    ));
                    continue;
                }
                let byte = self.cursor.peek().ok_or(DOUBT)?;
                self.cursor.at += 1;
                match byte {
                    b'\\' if self.cursor.peek().is_some() => self.cursor.at += 1,
                    b'\\' => return Err(DOUBT),
                    _ if byte == close && depth == 0 => break,
                    _ if byte == close => depth -= 1,
                    _ if byte == open && open != close => depth += 1,
                    _ => {}
                }
            }
        }
        take_word(&mut self.cursor);
        self.last = Last::Value;
        Ok(())
    }

    fn string(&mut self, quote: Quote) -> Result<(), Doubt> {
        let close = if quote == Quote::Single { b'\'' } else { b'"' };
        self.cursor.at += 1;
        // Behind a variable, a value could be a part of its name, and in a subscript it is code.
        let (mut follows, mut subscripted) = (false, false);
        loop {
            if self.cursor.at_place() {
                self.cursor.pass(if follows || subscripted {
                    Position::Refused("what may belong to a variable in a string")
                } else {
                    Position::String(quote)
                });
                self.statement.mark(&mut self.cursor);
                follows = false;
                continue;
            }
            follows = false;
            let byte = self.cursor.peek().ok_or(Doubt("a string without an end"))?;
            self.cursor.at += 1;
            match byte {
                _ if byte == close => break,
                b'\\' => pass_escaped(&mut self.cursor),
                b'$' | b'@' if quote == Quote::Double => {
                    let is_braced = self.cursor.peek() == Some(b'{');
                    self.cursor.at += usize::from(is_braced);
                    let name = self.cursor.rest();
                    // A quote is `::` in a name.
                    let is_name = |byte: &u8| is_word(*byte) || matches!(byte, b':' | b'\'');
                    let length = name.iter().take_while(|byte| is_name(byte)).count();
                    self.cursor.at += length;
                    // A variable of punctuation, or `$#name`.
                    let sign = self.cursor.peek();
                    if length == 0 && sign == Some(b'#') {
                        subscripted = true;
                    } else if length == 0
                        && !is_braced
                        && sign.is_some_and(|sign| b"&`+-!.,;/0^|%=~<>()?".contains(&sign))
                    {
                        self.cursor.at += 1;
                    }
                    if is_braced && self.cursor.peek() != Some(b'}') {
                        // Code in a string.
                        subscripted = true;
                    } else {
                        self.cursor.at += usize::from(is_braced);
                        follows = true;
                        let next = self.cursor.peek();
                        subscripted |= matches!(next, Some(b'[' | b'{' | b'$'))
                            || self.cursor.looking_at(b"->");
                    }
                }
                _ => {}
            }
        }
        self.last = Last::Value;
        Ok(())
    }
}
