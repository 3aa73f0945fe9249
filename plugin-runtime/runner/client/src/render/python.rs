//! Python scripts.
//!
//! A literal is printable ASCII without quotes, backslashes other than its own, and braces, whatever string it is in.

use std::fmt::Write as _;

use sluice_gate_types::input::Value;

use super::literal::{Form, Numbers, names_known};
use super::nesting::{
    Kind, Nesting, is_one_of, is_word, pass_escaped, pass_in_code, refuse, take_word,
};
use super::position::{Position, Quote, Standing};
use super::template::{Cursor, Doubt, Template};

/// Functions that take a text for a program, or for the name of one.
const EVALUATES: &[&str] = &[
    "__import__",
    "compile",
    "eval",
    "exec",
    "exec_command",
    "execfile",
    "getoutput",
    "getstatusoutput",
    "import_module",
    "popen",
    "run_path",
    "runcode",
    "runsource",
    "create_subprocess_shell",
    "system",
];

/// Where the placeholders of a script stand. Python 2 has no such escapes.
pub(super) fn read(template: &Template<'_>, interpreter: &str) -> Vec<Standing> {
    let cursor = Cursor::new(template);
    if interpreter.starts_with("python2") {
        return refuse(cursor, Doubt("a script for Python 2"));
    }
    if !is_ascii_compatible(template.text) {
        return refuse(cursor, Doubt("a script that is not in UTF-8, as it says"));
    }
    let mut reader = Reader {
        cursor,
        nesting: Nesting::default(),
        word: b"",
    };
    let read = reader.read();
    reader.nesting.settle(reader.cursor, read)
}

/// What stands for a value.
pub(super) fn literal(position: Position, value: &Value) -> Result<String, &'static str> {
    const FORM: Form = Form {
        booleans: ["True", "False"],
        quote: '\'',
        numbers: Numbers::Parenthesized,
        escaped,
    };
    FORM.literal(position, value)
}

fn escaped(text: &str) -> String {
    let mut literal = String::with_capacity(text.len());
    for c in text.chars() {
        let code = u32::from(c);
        // writing to a String cannot fail
        let _ = match c {
            '\'' | '"' | '\\' | '{' | '}' => write!(literal, "\\x{code:02x}"),
            ' '..='~' => literal.write_char(c),
            _ if code < 0x100 => write!(literal, "\\x{code:02x}"),
            _ if code < 0x1_0000 => write!(literal, "\\u{code:04x}"),
            _ => write!(literal, "\\U{code:08x}"),
        };
    }
    literal
}

/// Whether the comment of PEP 263 in the first two lines, where there is one, names an encoding in which ASCII is ASCII.
fn is_ascii_compatible(script: &str) -> bool {
    const KNOWN: &[&str] = &[
        "utf-8",
        "utf8",
        "utf_8",
        "ascii",
        "us-ascii",
        "latin-1",
        "iso-8859-1",
    ];
    // `\r\n` ends one line, and is two of these.
    script
        .split(['\n', '\r'])
        .take(4)
        .all(|line| names_known(line, KNOWN))
}

struct Reader<'t> {
    cursor: Cursor<'t>,
    nesting: Nesting,
    /// The word in front of here, blanks aside.
    word: &'t [u8],
}

impl Reader<'_> {
    fn read(&mut self) -> Result<(), Doubt> {
        loop {
            if self.cursor.at_place() {
                pass_in_code(&mut self.cursor, Position::Code);
                self.word = b"";
                continue;
            }
            let Some(byte) = self.cursor.peek() else {
                return Ok(());
            };
            let word = std::mem::take(&mut self.word);
            match byte {
                b'#' => {
                    let rest = self.cursor.text(self.cursor.at, self.cursor.end);
                    let length = rest.iter().position(|byte| matches!(byte, b'\n' | b'\r'));
                    let end = length.map_or(self.cursor.end, |length| self.cursor.at + length);
                    self.cursor.skip(end, Position::Comment);
                }
                b'\'' | b'"' => self.string(word)?,
                b'\\' if matches!(self.cursor.byte(1), Some(b'\n' | b'\r')) => self.cursor.at += 2,
                b'\\' => return Err(Doubt("a backslash that is not understood")),
                b'(' | b'[' | b'{' => {
                    let evaluates = byte == b'(' && is_one_of(word, EVALUATES);
                    self.nesting
                        .open(&mut self.cursor, evaluates, Kind::Plain)?;
                }
                b')' | b']' | b'}' => {
                    self.nesting.close(&mut self.cursor)?;
                }
                b'\n' => {
                    self.cursor.at += 1;
                    self.nesting.end_statement(&self.cursor);
                }
                b' ' | b'\t' => {
                    // `eval (x)` is a call too.
                    self.word = word;
                    self.cursor.at += 1;
                }
                _ if is_word(byte) => {
                    self.word = take_word(&mut self.cursor);
                    // `subprocess.run(..., shell=True)`
                    if self.word == b"shell"
                        && let Some(bracket) = self.nesting.last_mut()
                    {
                        bracket.evaluates = true;
                    }
                }
                _ => self.cursor.at += 1,
            }
        }
    }

    /// A string with this prefix.
    fn string(&mut self, prefix: &[u8]) -> Result<(), Doubt> {
        let is_prefix = self.cursor.before().is_some_and(is_word);
        let letters: Vec<u8> = match is_prefix {
            true => prefix.to_ascii_lowercase(),
            false => Vec::new(),
        };
        if letters.len() > 2 || !letters.iter().all(|letter| b"rbuft".contains(letter)) {
            return Err(Doubt("a string with a prefix that is not understood"));
        }
        let position = if letters.contains(&b'r') {
            Position::Refused("a raw string")
        } else if letters.contains(&b'b') {
            Position::Refused("bytes")
        } else if letters.contains(&b't') {
            Position::Refused("a template string")
        } else {
            Position::String(Quote::Double)
        };
        let quote = self.cursor.peek().unwrap_or_default();
        let is_triple = self.cursor.looking_at(&[quote; 3]);
        let end: &[u8] = if is_triple { &[quote; 3] } else { &[quote] };
        let is_formatted = letters.contains(&b'f') || letters.contains(&b't');
        self.cursor.at += end.len();
        loop {
            if self.cursor.at_place() {
                self.cursor.pass(position);
                continue;
            }
            if self.cursor.looking_at(end) {
                self.cursor.at += end.len();
                return Ok(());
            }
            let byte = self.cursor.peek().ok_or(Doubt("a string without an end"))?;
            self.cursor.at += 1;
            match byte {
                b'\\' => pass_escaped(&mut self.cursor),
                b'\n' | b'\r' if !is_triple => return Err(Doubt("a string without an end")),
                b'{' if is_formatted && self.cursor.peek() == Some(b'{') => self.cursor.at += 1,
                b'{' if is_formatted => self.replacement(quote)?,
                _ => {}
            }
        }
    }

    /// The expression behind `{` in a formatted string. Up to 3.11 the string's own quotes end it there; later they do not.
    fn replacement(&mut self, quote: u8) -> Result<(), Doubt> {
        const DOUBT: Doubt =
            Doubt("a formatted string with more than names and plain texts in its braces");
        let mut inner = None;
        let mut depth = 0usize;
        loop {
            if self.cursor.at_place() {
                self.cursor
                    .pass(Position::Refused("an expression in a formatted string"));
                continue;
            }
            let byte = self.cursor.peek().ok_or(DOUBT)?;
            self.cursor.at += 1;
            match byte {
                _ if byte == quote => return Err(DOUBT),
                b'\\' | b'#' | b'\n' | b'\r' => return Err(DOUBT),
                _ if inner == Some(byte) => inner = None,
                b'{' | b'}' if inner.is_some() => return Err(DOUBT),
                _ if inner.is_some() => {}
                b'\'' | b'"' => inner = Some(byte),
                b'{' => depth += 1,
                b'}' if depth == 0 => return Ok(()),
                b'}' => depth -= 1,
                _ => {}
            }
        }
    }
}
