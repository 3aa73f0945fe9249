//! JavaScript, as node runs it.
//!
//! A literal is ASCII without quotes, and every character of doubt in it is an escape, so that it is the same text in
//! every kind of string. In code it stands only where the language expects an expression.

use std::fmt::Write as _;

use sluice_gate_types::input::Value;

use super::literal::{Form, Numbers, is_plain};
use super::nesting::{
    Kind, Nesting, expression, is_one_of, is_word, pass_escaped, pass_in_code, take_word,
};
use super::position::{Position, Quote, Standing};
use super::template::{Cursor, Doubt, Template};

/// Functions and classes that take a text for a program, or for the name of one.
const EVALUATES: &[&str] = &[
    "Function",
    "Script",
    "Worker",
    "compileFunction",
    "eval",
    "exec",
    "execFile",
    "execFileSync",
    "execSync",
    "fork",
    "import",
    "require",
    "runInContext",
    "runInNewContext",
    "runInThisContext",
    "setInterval",
    "setTimeout",
    "spawn",
    "spawnSync",
];

/// Words behind which an expression comes.
const BEFORE_EXPRESSION: &[&str] = &[
    "await",
    "case",
    "delete",
    "do",
    "else",
    "in",
    "instanceof",
    "of",
    "return",
    "throw",
    "typeof",
    "void",
    "yield",
];

/// Words of the language, and names that may be such, behind which a slash is not understood.
const KEYWORDS: &[&str] = &[
    "break", "catch", "class", "const", "continue", "debugger", "default", "enum", "export",
    "extends", "finally", "for", "function", "if", "import", "let", "new", "static", "switch",
    "try", "var", "while", "with",
];

/// Whether a function of this name may take a text for a program: those that are known, and what scripts call like them.
fn evaluates(name: &[u8]) -> bool {
    let starts_with = |start: &[u8]| {
        name.get(..start.len())
            .is_some_and(|text| text.eq_ignore_ascii_case(start))
    };
    is_one_of(name, EVALUATES)
        || [&b"exec"[..], b"eval", b"spawn"]
            .into_iter()
            .any(starts_with)
}

/// Whether it can be part of a name.
const fn is_name(byte: u8) -> bool {
    is_word(byte) || byte == b'$'
}

/// The largest whole number that is exact.
const MAX_SAFE_INTEGER: u64 = (1 << 53) - 1;

/// Where the placeholders of a script stand.
pub(super) fn read(template: &Template<'_>) -> Vec<Standing> {
    let mut reader = Reader {
        cursor: Cursor::new(template),
        nesting: Nesting::default(),
        last: Last::Start,
    };
    let read = reader.read();
    reader.nesting.settle(reader.cursor, read)
}

/// What stands for a value.
pub(super) fn literal(position: Position, value: &Value) -> Result<String, &'static str> {
    const FORM: Form = Form {
        booleans: ["true", "false"],
        quote: '"',
        numbers: Numbers::Parenthesized,
        escaped,
    };
    match value {
        Value::Integer(v) if position == Position::Code && v.unsigned_abs() > MAX_SAFE_INTEGER => {
            Err("a script whose numbers are not as exact as the value")
        }
        _ => FORM.literal(position, value),
    }
}

fn escaped(text: &str) -> String {
    let mut literal = String::with_capacity(text.len());
    for c in text.chars() {
        if is_plain(c) {
            literal.push(c);
            continue;
        }
        for unit in c.encode_utf16(&mut [0; 2]) {
            // writing to a String cannot fail
            let _ = write!(literal, "\\u{unit:04x}");
        }
    }
    literal
}

/// What comes before a place, as far as it decides whether an expression is expected there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Last<'t> {
    /// Where a statement may start.
    Start,
    /// Behind an operator, or in front of an argument.
    Operator,
    /// Behind a value.
    Value,
    /// In front of the name of a property.
    Dot,
    /// `++` and `--`, which may stand in front of a value or behind it.
    Step,
    /// Behind `}`, which may end a statement or a value.
    Brace,
    /// Behind the head of `if (...)` and its like.
    Head,
    Word(&'t [u8]),
}

struct Reader<'t> {
    cursor: Cursor<'t>,
    nesting: Nesting,
    last: Last<'t>,
}

impl<'t> Reader<'t> {
    fn read(&mut self) -> Result<(), Doubt> {
        if self.cursor.looking_at(b"#!") {
            self.line_comment();
        }
        loop {
            if self.cursor.at_place() {
                let position = self.position();
                pass_in_code(&mut self.cursor, position);
                self.last = Last::Value;
                continue;
            }
            let Some(byte) = self.cursor.peek() else {
                return Ok(());
            };
            match byte {
                b' ' | b'\t' | b'\n' | b'\r' => self.cursor.at += 1,
                b'/' => self.slash()?,
                b'\'' | b'"' => self.string(byte)?,
                b'`' => {
                    let tagged = match self.last {
                        // The first may be names.
                        Last::Word(b"await" | b"of" | b"yield") => true,
                        Last::Word(word) => !is_one_of(word, BEFORE_EXPRESSION),
                        last => matches!(last, Last::Value | Last::Brace),
                    };
                    self.cursor.at += 1;
                    self.template(u8::from(tagged))?;
                }
                b'(' | b'[' | b'{' => self.open(byte)?,
                b')' | b']' | b'}' => self.close(byte)?,
                b';' => {
                    self.punctuation(1, Last::Start);
                    self.nesting.end_statement(&self.cursor);
                }
                b'<' if self.cursor.looking_at(b"<!--") => return Err(Doubt("an HTML comment")),
                b'-' if self.cursor.looking_at(b"-->") => return Err(Doubt("an HTML comment")),
                b'+' if self.cursor.looking_at(b"++") => self.punctuation(2, Last::Step),
                b'-' if self.cursor.looking_at(b"--") => self.punctuation(2, Last::Step),
                b'.' if self.cursor.looking_at(b"...") => self.punctuation(3, Last::Operator),
                // A name follows, and no keyword.
                b'.' => {
                    self.punctuation(1, Last::Dot);
                }
                b'?' if self.cursor.looking_at(b"?.") => self.punctuation(1, Last::Operator),
                b'\\' | b'@' => return Err(Doubt("a character that is not understood")),
                // A private name.
                b'#' => self.punctuation(1, Last::Dot),
                _ if is_name(byte) => self.word()?,
                _ => self.punctuation(1, Last::Operator),
            }
        }
    }

    fn punctuation(&mut self, length: usize, last: Last<'static>) {
        self.cursor.at += length;
        self.last = last;
    }

    fn position(&self) -> Position {
        let expected = match self.last {
            Last::Operator => true,
            Last::Word(word) => is_one_of(word, BEFORE_EXPRESSION),
            _ => false,
        };
        expression(expected)
    }

    fn word(&mut self) -> Result<(), Doubt> {
        let word = self.take_name();
        let is_blank = |c: char| c.is_whitespace() || c == '\u{feff}';
        if str::from_utf8(word).is_ok_and(|word| word.contains(is_blank)) {
            return Err(Doubt("a blank that is not ASCII"));
        }
        let is_number = word.first().is_some_and(u8::is_ascii_digit);
        let is_decimal = word
            .iter()
            .all(|byte| byte.is_ascii_digit() || *byte == b'_');
        // The point of `1.` belongs to the number, and what follows is no name of a property.
        if is_decimal && self.last != Last::Dot && self.cursor.peek() == Some(b'.') {
            self.cursor.at += 1;
        }
        self.last = match self.last {
            _ if is_number => Last::Value,
            Last::Dot if !evaluates(word) => Last::Value,
            _ => Last::Word(word),
        };
        Ok(())
    }

    fn take_name(&mut self) -> &'t [u8] {
        let rest = self.cursor.rest();
        let length = rest.iter().position(|byte| !is_name(*byte));
        let name = &rest[..length.unwrap_or(rest.len())];
        self.cursor.at += name.len();
        name
    }

    fn open(&mut self, byte: u8) -> Result<(), Doubt> {
        let (evaluates, kind) = match self.last {
            Last::Word(word) if byte == b'(' => {
                let kind = match word {
                    b"if" | b"while" | b"for" | b"with" => Kind::Condition,
                    // The head of `for await (...)`, or a value.
                    b"await" => Kind::Either,
                    _ => Kind::Plain,
                };
                (evaluates(word), kind)
            }
            // `eval?.(...)`
            Last::Dot => (byte == b'(', Kind::Plain),
            _ => (false, Kind::Plain),
        };
        self.nesting.open(&mut self.cursor, evaluates, kind)?;
        self.last = if byte == b'{' {
            Last::Start
        } else {
            Last::Operator
        };
        Ok(())
    }

    fn close(&mut self, byte: u8) -> Result<(), Doubt> {
        let bracket = self.nesting.close(&mut self.cursor)?;
        self.last = match bracket.kind {
            Kind::Interpolation(tagged) => return self.template(tagged),
            Kind::Condition => Last::Head,
            Kind::Either => Last::Brace,
            Kind::Plain if byte == b'}' => Last::Brace,
            Kind::Plain => Last::Value,
        };
        Ok(())
    }

    /// A comment, a regular expression or a division.
    fn slash(&mut self) -> Result<(), Doubt> {
        if self.cursor.looking_at(b"//") {
            self.line_comment();
            return Ok(());
        }
        if self.cursor.looking_at(b"/*") {
            let rest = self.cursor.text(self.cursor.at + 2, self.cursor.end);
            let length = rest
                .windows(2)
                .position(|window| window == b"*/")
                .ok_or(Doubt("a comment without an end"))?;
            self.cursor
                .skip(self.cursor.at + 4 + length, Position::Comment);
            return Ok(());
        }
        let is_pattern = match self.last {
            Last::Start | Last::Operator | Last::Head => true,
            Last::Value => false,
            // These may be names.
            Last::Word(b"await" | b"of" | b"yield") | Last::Step | Last::Brace | Last::Dot => {
                return Err(Doubt("a division or a regular expression"));
            }
            Last::Word(word) if is_one_of(word, KEYWORDS) => {
                return Err(Doubt("a division or a regular expression"));
            }
            Last::Word(word) => is_one_of(word, BEFORE_EXPRESSION),
        };
        if !is_pattern {
            self.punctuation(1, Last::Operator);
            return Ok(());
        }
        self.cursor.at += 1;
        let mut in_class = false;
        loop {
            if self.cursor.at_place() {
                self.cursor.pass(Position::Refused("a regular expression"));
                continue;
            }
            let byte = self.cursor.peek().ok_or(PATTERN)?;
            self.cursor.at += 1;
            match byte {
                b'\\' if !self.cursor.at_place() => self.cursor.at += 1,
                b'\\' | b'\n' | b'\r' => return Err(PATTERN),
                b'[' => in_class = true,
                b']' => in_class = false,
                b'/' if !in_class => break,
                _ => {}
            }
        }
        take_word(&mut self.cursor);
        self.last = Last::Value;
        Ok(())
    }

    fn line_comment(&mut self) {
        let rest = self.cursor.text(self.cursor.at, self.cursor.end);
        let ends = |(at, byte): (usize, &u8)| {
            // U+2028 and U+2029 end lines too.
            let separator =
                *byte == 0xe2 && matches!(rest.get(at + 1..at + 3), Some([0x80, 0xa8 | 0xa9]));
            (matches!(byte, b'\n' | b'\r') || separator).then_some(at)
        };
        let length = rest.iter().enumerate().find_map(ends).unwrap_or(rest.len());
        self.cursor.skip(self.cursor.at + length, Position::Comment);
    }

    fn string(&mut self, quote: u8) -> Result<(), Doubt> {
        self.cursor.at += 1;
        loop {
            if self.cursor.at_place() {
                self.cursor.pass(Position::String(Quote::Double));
                continue;
            }
            let byte = self.cursor.peek().ok_or(STRING)?;
            self.cursor.at += 1;
            match byte {
                _ if byte == quote => break,
                b'\\' => pass_escaped(&mut self.cursor),
                b'\n' | b'\r' => return Err(STRING),
                _ => {}
            }
        }
        self.last = Last::Value;
        Ok(())
    }

    /// A template, from behind its backtick or the end of an interpolation on. What its function makes of it where it is
    /// tagged is not known.
    fn template(&mut self, tagged: u8) -> Result<(), Doubt> {
        loop {
            if self.cursor.at_place() {
                self.cursor.pass(match tagged {
                    0 => Position::String(Quote::Template),
                    _ => Position::Refused("a tagged template"),
                });
                continue;
            }
            let byte = self.cursor.peek().ok_or(STRING)?;
            match byte {
                b'`' => {
                    self.punctuation(1, Last::Value);
                    return Ok(());
                }
                b'\\' => {
                    self.cursor.at += 1;
                    pass_escaped(&mut self.cursor);
                }
                // A value would not start an interpolation, but look like one.
                b'$' => {
                    self.cursor.at += 1;
                    if self.cursor.at_place() {
                        self.cursor.pass(Position::Refused("what follows a dollar"));
                    } else if self.cursor.peek() == Some(b'{') {
                        self.nesting
                            .open(&mut self.cursor, false, Kind::Interpolation(tagged))?;
                        self.last = Last::Operator;
                        return Ok(());
                    }
                }
                _ => self.cursor.at += 1,
            }
        }
    }
}

const STRING: Doubt = Doubt("a string without an end");
const PATTERN: Doubt = Doubt("a regular expression without an end");
