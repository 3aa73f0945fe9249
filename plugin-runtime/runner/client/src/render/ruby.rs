//! Ruby scripts.
//!
//! Ruby reads the same characters in many ways, by what it knows of names. This reader goes on only where there is one way
//! whatever the names are.

use sluice_gate_types::input::Value;

use super::literal::{Form, Numbers, hexadecimal, names_known};
use super::nesting::{
    Kind, Nesting, Statement, end_of_documentation, expression, is_one_of, is_word, pass_escaped,
    pass_in_code, refuse, take_word,
};
use super::position::{Position, Quote, Standing};
use super::template::{Cursor, Doubt, Template};

/// Methods that take a text for a program, or for the name of one.
const EVALUATES: &[&str] = &[
    "Open3",
    "PTY",
    "__send__",
    "capture2",
    "capture2e",
    "capture3",
    "class_eval",
    "class_exec",
    "const_get",
    "eval",
    "exec",
    "instance_eval",
    "instance_exec",
    "load",
    "module_eval",
    "open",
    "pipeline",
    "popen",
    "popen2",
    "popen2e",
    "popen3",
    "public_send",
    "require",
    "require_relative",
    "send",
    "sh",
    "spawn",
    "syscall",
    "system",
    "test",
    "backtick",
    "constantize",
    "autoload",
    "trap",
    "define_method",
    "instance_variable_get",
    "binread",
    "binwrite",
    "foreach",
    "readlines",
];

/// Words behind which an expression comes, and no operator.
const BEFORE_EXPRESSION: &[&str] = &[
    "and", "case", "elsif", "else", "if", "in", "not", "or", "return", "then", "unless", "until",
    "when", "while", "do", "begin", "ensure", "rescue",
];

/// Words of the language behind which a sign that may start a value is not told from an operator.
const KEYWORDS: &[&str] = &["BEGIN", "END", "break", "defined", "for", "next", "not"];

/// Methods of every object that are called without parentheses.
const CALLED: &[&str] = &["p", "print", "puts", "raise", "warn"];

/// Words that a name follows.
const BEFORE_NAME: &[&str] = &["alias", "class", "def", "defined", "module", "undef"];

/// Where the placeholders of a script stand.
pub(super) fn read(template: &Template<'_>) -> Vec<Standing> {
    let cursor = Cursor::new(template);
    if !is_utf8(template.text) {
        return refuse(cursor, Doubt("a script that is not in UTF-8, as it says"));
    }
    let mut reader = Reader {
        cursor,
        nesting: Nesting::default(),
        last: Last::Start,
        blank: true,
        statement: Statement::default(),
    };
    let read = reader.line_start().and_then(|()| reader.read());
    reader.nesting.settle(reader.cursor, read)
}

/// What stands for a value.
pub(super) fn literal(position: Position, value: &Value) -> Result<String, &'static str> {
    const FORM: Form = Form {
        booleans: ["true", "false"],
        quote: '"',
        numbers: Numbers::Parenthesized,
        escaped: hexadecimal,
    };
    FORM.literal(position, value)
}

/// Whether the magic comment in the first two lines, where there is one, names UTF-8 or a part of it.
fn is_utf8(script: &str) -> bool {
    const KNOWN: &[&str] = &["utf-8", "utf8", "ascii", "us-ascii"];
    // `-K` names an encoding, and `-x` another first line.
    let changes = |word: &str| word.starts_with('-') && word.contains(['K', 'x']);
    let options = script.lines().next().filter(|line| line.starts_with("#!"));
    !options.is_some_and(|line| line.split_ascii_whitespace().any(changes))
        && script.lines().take(3).all(|line| names_known(line, KNOWN))
}

/// What comes before a place, as far as it decides how the next characters are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Last<'t> {
    /// Where a statement may start.
    Start,
    /// Behind an operator, or in front of an argument.
    Operator,
    /// Behind a value.
    Value,
    /// Where a name comes, and nothing else.
    Name,
    Word(&'t [u8]),
}

struct Reader<'t> {
    cursor: Cursor<'t>,
    nesting: Nesting,
    last: Last<'t>,
    /// A blank is right in front of here.
    blank: bool,
    statement: Statement,
}

impl Reader<'_> {
    fn read(&mut self) -> Result<(), Doubt> {
        loop {
            if self.cursor.at_place() {
                let position = self.position();
                pass_in_code(&mut self.cursor, position);
                self.statement.mark(&mut self.cursor);
                self.set(Last::Value);
                continue;
            }
            let Some(byte) = self.cursor.peek() else {
                return Ok(());
            };
            match byte {
                b' ' | b'\t' => {
                    self.cursor.at += 1;
                    self.blank = true;
                }
                b'\n' => self.line_feed()?,
                b'\\' if self.cursor.byte(1) == Some(b'\n') => {
                    self.cursor.at += 2;
                    self.blank = true;
                }
                b'#' => {
                    let end = self.cursor.line_end(self.cursor.at);
                    self.cursor.skip(end, Position::Comment);
                }
                b';' => {
                    self.cursor.at += 1;
                    self.end_statement();
                }
                b'\'' => self.string(Quote::Single)?,
                b'"' => self.string(Quote::Double)?,
                b'(' | b'[' | b'{' => {
                    self.nesting.open(&mut self.cursor, false, Kind::Plain)?;
                    self.set(if byte == b'{' {
                        Last::Start
                    } else {
                        Last::Operator
                    });
                }
                b')' | b']' | b'}' => {
                    let bracket = self.nesting.close(&mut self.cursor)?;
                    self.statement.leave(&self.nesting);
                    self.set(Last::Value);
                    if matches!(bracket.kind, Kind::Interpolation(_)) {
                        self.rest_of_string(Quote::Double)?;
                    }
                }
                b'@' => self.name(1),
                b'$' => self.global()?,
                b':' => self.colon()?,
                b'.' if self.cursor.looking_at(b"..") => self.operator(2),
                b'.' => {
                    self.cursor.at += 1;
                    self.set(Last::Name);
                }
                b'&' if self.cursor.looking_at(b"&.") => {
                    self.cursor.at += 2;
                    self.set(Last::Name);
                }
                b'/' | b'%' | b'?' | b'<' | b'-' | b'*' | b'&' | b'+' => self.ambiguous(byte)?,
                b'=' | b'|' | b'!' | b'~' | b'^' | b'>' | b',' => self.operator(1),
                _ if is_word(byte) => self.word()?,
                _ => return Err(Doubt("a character that is not understood")),
            }
        }
    }

    fn set(&mut self, last: Last<'static>) {
        self.last = last;
        self.blank = false;
    }

    fn operator(&mut self, length: usize) {
        self.cursor.at += length;
        self.set(Last::Operator);
    }

    fn name(&mut self, sigil: usize) {
        self.cursor.at += sigil;
        take_word(&mut self.cursor);
        self.set(Last::Value);
    }

    fn end_statement(&mut self) {
        self.statement.end(&self.nesting);
        self.nesting.end_statement(&self.cursor);
        self.last = Last::Start;
        self.blank = true;
    }

    fn position(&self) -> Position {
        let expected = match self.last {
            Last::Operator => true,
            Last::Word(word) => {
                self.blank && (is_one_of(word, BEFORE_EXPRESSION) || is_one_of(word, CALLED))
            }
            _ => false,
        };
        expression(expected)
    }

    fn line_feed(&mut self) -> Result<(), Doubt> {
        self.cursor.at += 1;
        self.blank = true;
        if !matches!(self.last, Last::Operator) {
            self.end_statement();
        }
        self.line_start()
    }

    fn line_start(&mut self) -> Result<(), Doubt> {
        if self.cursor.looking_at(b"=begin") {
            if !matches!(self.cursor.byte(6), Some(b' ' | b'\t' | b'\n' | b'\r')) {
                return Err(Doubt("a line that may start a comment"));
            }
            let end = end_of_documentation(&self.cursor, b"=end")?;
            self.cursor.skip(end, Position::Comment);
        }
        if self.cursor.looking_at(b"__END__") {
            return Err(Doubt("the data of a script"));
        }
        Ok(())
    }

    fn word(&mut self) -> Result<(), Doubt> {
        let is_number = self.cursor.peek().is_some_and(|byte| byte.is_ascii_digit());
        let word = take_word(&mut self.cursor);
        if str::from_utf8(word).is_ok_and(|word| word.contains(char::is_whitespace)) {
            return Err(Doubt("a blank that is not ASCII"));
        }
        self.statement
            .see(&self.nesting, is_one_of(word, EVALUATES));
        // `name?` and `name!`
        let is_method = matches!(self.cursor.peek(), Some(b'?' | b'!'))
            && self.cursor.byte(1) != Some(b'=')
            && !is_number;
        if is_method {
            self.cursor.at += 1;
        }
        // `name:` is a key.
        if self.cursor.peek() == Some(b':') && self.cursor.byte(1) != Some(b':') && !is_number {
            self.operator(1);
            return Ok(());
        }
        self.last = match self.last {
            _ if is_number => Last::Value,
            // It may have an argument.
            _ if is_method => Last::Word(b""),
            Last::Name => Last::Word(b""),
            _ if is_one_of(word, BEFORE_NAME) => Last::Name,
            _ => Last::Word(word),
        };
        self.blank = false;
        Ok(())
    }

    /// `$name`, `$1`, and one of punctuation.
    fn global(&mut self) -> Result<(), Doubt> {
        match self.cursor.byte(1) {
            Some(byte) if is_word(byte) => self.name(1),
            Some(byte) if b"!?@&+~=/\\,;.<>*$:".contains(&byte) => {
                self.cursor.at += 2;
                self.set(Last::Value);
            }
            _ => return Err(Doubt("a variable that is not understood")),
        }
        Ok(())
    }

    /// A symbol, a part of `::`, or the middle of `? :`.
    fn colon(&mut self) -> Result<(), Doubt> {
        match self.cursor.byte(1) {
            Some(b':') => {
                self.cursor.at += 2;
                self.set(Last::Name);
            }
            Some(b'"' | b'\'') => return Err(Doubt("a symbol in quotes")),
            Some(byte) if is_word(byte) && !matches!(self.last, Last::Value) => {
                self.name(1);
                // `:name?`, `:name=`
                if matches!(self.cursor.peek(), Some(b'?' | b'!')) {
                    self.cursor.at += 1;
                }
            }
            Some(b' ' | b'\n') => self.operator(1),
            None if self.cursor.at + 1 >= self.cursor.end => self.operator(1),
            _ => return Err(Doubt("a colon that is not understood")),
        }
        Ok(())
    }

    /// What is an operator behind a value, and starts a value elsewhere.
    fn ambiguous(&mut self, byte: u8) -> Result<(), Doubt> {
        const DOUBT: Doubt = Doubt("a character that Ruby reads by what is in front of it");
        let blank_behind = matches!(self.cursor.byte(1), Some(b' ' | b'\t' | b'\n' | b'='));
        let is_operator = match self.last {
            Last::Value => true,
            Last::Word(word) if is_one_of(word, BEFORE_EXPRESSION) => false,
            Last::Word(word) if is_one_of(word, KEYWORDS) => return Err(DOUBT),
            // A name that is a variable, or a method with an argument: told apart by blanks alone where they are even.
            Last::Word(_) if self.blank == blank_behind => true,
            Last::Word(_) => return Err(DOUBT),
            Last::Start | Last::Operator => false,
            Last::Name => return Err(DOUBT),
        };
        match byte {
            b'-' | b'*' | b'&' | b'+' => self.operator(1),
            // `class << self` too.
            b'<' if self.cursor.looking_at(b"<<") && !blank_behind && !is_operator => {
                return Err(DOUBT);
            }
            b'<' if self.cursor.looking_at(b"<<")
                && !matches!(self.cursor.byte(2), Some(b' ' | b'\t' | b'\n' | b'=')) =>
            {
                return Err(Doubt("a here-document"));
            }
            b'<' => self.operator(1),
            _ if is_operator && byte == b'?' && !blank_behind => return Err(DOUBT),
            _ if is_operator => self.operator(1),
            b'/' => self.pattern()?,
            b'%' => self.list()?,
            _ => return Err(DOUBT),
        }
        Ok(())
    }

    fn pattern(&mut self) -> Result<(), Doubt> {
        const PATTERN: Doubt = Doubt("a regular expression that is not understood");
        self.cursor.at += 1;
        loop {
            if self.cursor.at_place() {
                self.cursor.pass(Position::Refused("a regular expression"));
                continue;
            }
            let byte = self.cursor.peek().ok_or(PATTERN)?;
            self.cursor.at += 1;
            match byte {
                b'/' => break,
                b'\\' if self.cursor.peek().is_some() => self.cursor.at += 1,
                b'\\' | b'\n' => return Err(PATTERN),
                b'#' if matches!(self.cursor.peek(), Some(b'{')) => return Err(PATTERN),
                _ => {}
            }
        }
        take_word(&mut self.cursor);
        self.set(Last::Value);
        Ok(())
    }

    /// `%w[...]` and `%i[...]` of plain words.
    fn list(&mut self) -> Result<(), Doubt> {
        const DOUBT: Doubt = Doubt("a text behind % that is not a plain list of words");
        let close = match self.cursor.rest() {
            [b'%', b'w' | b'i', b'[', ..] => b']',
            [b'%', b'w' | b'i', b'(', ..] => b')',
            [b'%', b'w' | b'i', b'{', ..] => b'}',
            _ => return Err(DOUBT),
        };
        self.cursor.at += 3;
        loop {
            if self.cursor.at_place() {
                self.cursor.pass(Position::Refused("a list of words"));
                continue;
            }
            let byte = self.cursor.peek().ok_or(DOUBT)?;
            self.cursor.at += 1;
            match byte {
                _ if byte == close => break,
                b'[' | b'(' | b'{' | b'\\' => return Err(DOUBT),
                _ => {}
            }
        }
        self.set(Last::Value);
        Ok(())
    }

    fn string(&mut self, quote: Quote) -> Result<(), Doubt> {
        self.cursor.at += 1;
        self.rest_of_string(quote)
    }

    fn rest_of_string(&mut self, quote: Quote) -> Result<(), Doubt> {
        let close = if quote == Quote::Single { b'\'' } else { b'"' };
        loop {
            if self.cursor.at_place() {
                let position = match self.cursor.before() {
                    Some(byte) if quote == Quote::Single && !byte.is_ascii() => {
                        Position::Refused("a single-quoted string, behind a letter beyond ASCII")
                    }
                    Some(b'#') if quote == Quote::Double => Position::Refused("what follows a #"),
                    _ => Position::String(quote),
                };
                self.cursor.pass(position);
                self.statement.mark(&mut self.cursor);
                continue;
            }
            let byte = self.cursor.peek().ok_or(Doubt("a string without an end"))?;
            match byte {
                b'\\' => {
                    self.cursor.at += 1;
                    pass_escaped(&mut self.cursor);
                }
                b'#' if quote == Quote::Double && self.cursor.byte(1) == Some(b'{') => {
                    self.cursor.at += 1;
                    self.nesting
                        .open(&mut self.cursor, true, Kind::Interpolation(0))?;
                    self.set(Last::Operator);
                    return Ok(());
                }
                b'#' if quote == Quote::Double
                    && matches!(self.cursor.byte(1), Some(b'$' | b'@')) =>
                {
                    return Err(Doubt("a variable in a string without braces"));
                }
                _ => {
                    self.cursor.at += 1;
                    if byte == close {
                        break;
                    }
                }
            }
        }
        // `"key": value`
        if self.cursor.peek() == Some(b':') && self.cursor.byte(1) != Some(b':') {
            self.operator(1);
        } else {
            self.set(Last::Value);
        }
        Ok(())
    }
}
