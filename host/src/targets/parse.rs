//! From a text to an expression.
//!
//! ```text
//! any     = all { "or" all }
//! all     = one { "and" one }
//! one     = "not" one | "(" any ")" | subject [ operator literal ]     without an operator only fact("...") and tag("...")
//! subject = "name" | "os" | "tag." KEY | KEY | "fact" "(" STRING ")" | "tag" "(" STRING ")"
//! literal = STRING | NUMBER | "true" | "false"
//! ```

use sluice_fact_comparison::Version;
use sluice_protocol::units::ByteSize;

use super::expression::{Literal, Node, Number, Operator, Subject};

/// The longest expression, in bytes.
pub const LONGEST: usize = 4096;
/// The most comparisons in one.
const MOST: usize = 64;
/// How deep `not` and parentheses may go.
const DEEPEST: usize = 16;

/// Reads a whole expression.
pub(super) fn root(text: &str) -> Result<Node, ExpressionError> {
    if text.len() > LONGEST {
        return Err(ExpressionError::TooLong);
    }
    let mut reader = Reader {
        text,
        at: 0,
        comparisons: 0,
    };
    let node = reader.any(0)?;
    match reader.peek()? {
        (_, Token::End) => Ok(node),
        (at, token) => Err(reader.wrong(
            at,
            format!("expected `and`, `or` or the end and found {token}"),
        )),
    }
}

#[derive(Debug, Clone, PartialEq)]
enum Token<'t> {
    Open,
    Close,
    Operator(Operator),
    Word(&'t str),
    /// As it is written.
    Number(&'t str),
    Text(String),
    End,
}

impl std::fmt::Display for Token<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Open => f.write_str("`(`"),
            Self::Close => f.write_str("`)`"),
            Self::Operator(_) => f.write_str("an operator"),
            Self::Word(word) | Self::Number(word) => write!(f, "`{}`", shown(word)),
            Self::Text(_) => f.write_str("a text"),
            Self::End => f.write_str("the end"),
        }
    }
}

fn shown(text: &str) -> String {
    text.chars().take(60).flat_map(char::escape_debug).collect()
}

struct Reader<'t> {
    text: &'t str,
    /// In bytes.
    at: usize,
    comparisons: usize,
}

impl<'t> Reader<'t> {
    fn any(&mut self, depth: usize) -> Result<Node, ExpressionError> {
        let nodes = self.several("or", |reader| reader.all(depth))?;
        Ok(one_or(nodes, Node::Any))
    }

    fn all(&mut self, depth: usize) -> Result<Node, ExpressionError> {
        let nodes = self.several("and", |reader| reader.one(depth))?;
        Ok(one_or(nodes, Node::All))
    }

    fn several(
        &mut self,
        between: &str,
        mut one: impl FnMut(&mut Self) -> Result<Node, ExpressionError>,
    ) -> Result<Vec<Node>, ExpressionError> {
        let mut nodes = vec![one(self)?];
        while matches!(self.peek()?, (_, Token::Word(word)) if word == between) {
            self.next()?;
            nodes.push(one(self)?);
        }
        Ok(nodes)
    }

    fn one(&mut self, depth: usize) -> Result<Node, ExpressionError> {
        let (at, token) = self.next()?;
        if depth >= DEEPEST {
            return Err(self.wrong(at, format!("it is nested deeper than {DEEPEST} levels")));
        }
        match token {
            Token::Word("not") => Ok(Node::Not(Box::new(self.one(depth + 1)?))),
            Token::Open => {
                let node = self.any(depth + 1)?;
                self.close("`and`, `or` or `)`")?;
                Ok(node)
            }
            Token::Word(word) => self.comparison(at, word),
            token => Err(self.wrong(
                at,
                format!("expected the name of a fact, `tag.KEY`, `not` or `(` and found {token}"),
            )),
        }
    }

    fn comparison(&mut self, at: usize, word: &'t str) -> Result<Node, ExpressionError> {
        self.comparisons += 1;
        if self.comparisons > MOST {
            return Err(self.wrong(at, format!("there are more than {MOST} comparisons")));
        }
        let (subject, is_asked_for) = self.subject(at, word)?;
        let (after, token) = self.peek()?;
        let Token::Operator(operator) = token else {
            if is_asked_for {
                return Ok(Node::Has(subject));
            }
            return Err(self.wrong(
                after,
                format!(
                    "expected ==, !=, <, <=, > or >= behind `{}` and found {token}",
                    shown(word)
                ),
            ));
        };
        self.next()?;
        let literal = self.literal(operator)?;
        Ok(Node::Is(subject, operator, literal))
    }

    /// What is compared, and whether it was written as `fact("...")` or `tag("...")`.
    fn subject(&mut self, at: usize, word: &'t str) -> Result<(Subject, bool), ExpressionError> {
        let named: Option<fn(String) -> Subject> = match word {
            "fact" => Some(Subject::Fact),
            "tag" => Some(Subject::Tag),
            _ => None,
        };
        if let Some(named) = named
            && self.peek()?.1 == Token::Open
        {
            self.next()?;
            return match self.next()? {
                (_, Token::Text(key)) => {
                    self.close("`)`")?;
                    Ok((named(key), true))
                }
                (at, token) => Err(self.wrong(
                    at,
                    format!("expected a name in quotes in {word}(\"...\") and found {token}"),
                )),
            };
        }
        let subject = match (word, word.strip_prefix("tag.")) {
            ("and" | "or" | "true" | "false", _) => {
                let problem = format!("expected the name of a fact and found `{word}`");
                return Err(self.wrong(at, problem));
            }
            ("name", _) => Subject::Name,
            ("os", _) => Subject::Os,
            (_, Some(key)) if !key.is_empty() => Subject::Tag(key.to_owned()),
            _ => Subject::Fact(word.to_owned()),
        };
        Ok((subject, false))
    }

    fn close(&mut self, expected: &str) -> Result<(), ExpressionError> {
        match self.next()? {
            (_, Token::Close) => Ok(()),
            (at, token) => Err(self.wrong(at, format!("expected {expected} and found {token}"))),
        }
    }

    fn literal(&mut self, operator: Operator) -> Result<Literal, ExpressionError> {
        let (at, token) = self.next()?;
        let ordered = !operator.is_equality();
        match token {
            Token::Text(text) => {
                let number = number(&text).or_else(|| size(&text));
                let version = plain_version(&text);
                if ordered && number.is_none() && version.is_none() {
                    let problem = format!(
                        "`{}` is neither a version such as 12.4 nor a size such as 2GiB, and nothing else comes before or after something",
                        shown(&text)
                    );
                    return Err(self.wrong(at, problem));
                }
                Ok(Literal {
                    text,
                    number,
                    version,
                    boolean: None,
                })
            }
            Token::Number(written) => match number(written) {
                Some(number) => Ok(Literal {
                    text: written.to_owned(),
                    number: Some(number),
                    version: plain_version(written),
                    boolean: None,
                }),
                None => Err(self.wrong(
                    at,
                    format!(
                        "`{}` is no number; write versions and sizes in quotes",
                        shown(written)
                    ),
                )),
            },
            Token::Word(word @ ("true" | "false")) if ordered => Err(self.wrong(
                at,
                format!("`{word}` comes neither before nor after something; use == or !="),
            )),
            Token::Word(word @ ("true" | "false")) => Ok(Literal {
                text: word.to_owned(),
                number: None,
                version: None,
                boolean: Some(word == "true"),
            }),
            token => Err(self.wrong(
                at,
                format!("expected a text in quotes, a number, true or false and found {token}"),
            )),
        }
    }

    fn peek(&mut self) -> Result<(usize, Token<'t>), ExpressionError> {
        let before = self.at;
        let token = self.next();
        self.at = before;
        token
    }

    /// The next token, and where it begins.
    fn next(&mut self) -> Result<(usize, Token<'t>), ExpressionError> {
        let rest = &self.text[self.at..];
        let blank = rest.len() - rest.trim_start().len();
        let (at, rest) = (self.at + blank, &rest[blank..]);
        let Some(first) = rest.chars().next() else {
            self.at = at;
            return Ok((at, Token::End));
        };
        let (token, length) = match first {
            '(' => (Token::Open, 1),
            ')' => (Token::Close, 1),
            '"' => self.quoted(at, rest)?,
            'a'..='z' | 'A'..='Z' => {
                let length = length_of(rest, |c| {
                    c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-')
                });
                (Token::Word(&rest[..length]), length)
            }
            '0'..='9' | '-' => {
                let length = length_of(rest, |c| {
                    c.is_ascii_alphanumeric() || matches!(c, '.' | '-')
                });
                (Token::Number(&rest[..length]), length)
            }
            _ => self.operator(at, rest, first)?,
        };
        self.at = at + length;
        Ok((at, token))
    }

    fn operator(
        &self,
        at: usize,
        rest: &str,
        first: char,
    ) -> Result<(Token<'t>, usize), ExpressionError> {
        let signs = [
            ("==", Operator::Equal),
            ("!=", Operator::Unequal),
            ("<=", Operator::AtMost),
            (">=", Operator::AtLeast),
            ("<", Operator::Below),
            (">", Operator::Above),
        ];
        match signs.iter().find(|(sign, _)| rest.starts_with(sign)) {
            Some((sign, operator)) => Ok((Token::Operator(*operator), sign.len())),
            None if first == '=' => Err(self.wrong(at, "write == to compare".to_owned())),
            None => Err(self.wrong(
                at,
                format!("`{}` has no meaning here", first.escape_debug()),
            )),
        }
    }

    /// A text in quotes, in which a backslash stands before a quote or another backslash.
    fn quoted(&self, at: usize, rest: &str) -> Result<(Token<'t>, usize), ExpressionError> {
        let mut text = String::new();
        let mut characters = rest.char_indices().skip(1);
        while let Some((index, character)) = characters.next() {
            match character {
                '"' => return Ok((Token::Text(text), index + 1)),
                '\\' => match characters.next() {
                    Some((_, escaped @ ('"' | '\\'))) => text.push(escaped),
                    _ => {
                        let problem = "a backslash stands only before \" and \\".to_owned();
                        return Err(self.wrong(at + index, problem));
                    }
                },
                character if character.is_control() => {
                    let problem = "a text has no control characters".to_owned();
                    return Err(self.wrong(at + index, problem));
                }
                character => text.push(character),
            }
        }
        Err(self.wrong(at, "the text that begins here has no end".to_owned()))
    }

    fn wrong(&self, at: usize, problem: String) -> ExpressionError {
        ExpressionError::Wrong {
            column: self.text[..at].chars().count() + 1,
            problem,
        }
    }
}

fn one_or(mut nodes: Vec<Node>, several: impl FnOnce(Vec<Node>) -> Node) -> Node {
    match nodes.pop() {
        Some(only) if nodes.is_empty() => only,
        last => {
            nodes.extend(last);
            several(nodes)
        }
    }
}

fn length_of(text: &str, belongs: impl Fn(char) -> bool) -> usize {
    text.find(|c| !belongs(c)).unwrap_or(text.len())
}

/// Whole, or with a fraction; no other notation.
fn number(text: &str) -> Option<Number> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit() || b == b'.') {
        return None;
    }
    if let Ok(integer) = text.parse() {
        return Some(Number::Integer(integer));
    }
    let decimal = text.parse::<f64>().ok().filter(|number| number.is_finite());
    decimal.map(Number::Decimal)
}

fn size(text: &str) -> Option<Number> {
    let size: ByteSize = text.parse().ok()?;
    i64::try_from(size.0).ok().map(Number::Integer)
}

/// Numbers with points between them, and nothing else.
fn plain_version(text: &str) -> Option<Version> {
    text.split('.')
        .all(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()))
        .then(|| Version::parse(text))
        .flatten()
}

/// A text is no expression.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExpressionError {
    /// Too many bytes.
    #[error("the expression has more than {LONGEST} bytes")]
    TooLong,
    /// It breaks the grammar, or a bound.
    #[error("the expression is wrong in column {column}: {problem}")]
    Wrong {
        /// In characters, counted from 1.
        column: usize,
        /// What is wrong there.
        problem: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_error_says_what_is_wrong_and_in_which_column() {
        for (text, column, problem) in [
            ("", 1, "found the end"),
            ("os", 3, "behind `os` and found the end"),
            (r#"os = "linux""#, 4, "write =="),
            (r#"os == linux"#, 7, "found `linux`"),
            (r#"os == "linux"#, 7, "has no end"),
            (r#"os == "a\n""#, 9, "backslash"),
            (r#"os == "linux" AND x == 1"#, 15, "expected `and`, `or`"),
            (r#"os == "linux" and"#, 18, "found the end"),
            (r#"(os == "linux""#, 15, "`)` and found the end"),
            (r#"os == "linux")"#, 14, "found `)`"),
            (r#"memory.total >= "2GB""#, 17, "neither a version"),
            ("memory.total >= 2GiB", 17, "in quotes"),
            ("cpu.count > true", 13, "neither before nor after"),
            ("fact(os)", 6, "a name in quotes"),
            ("fact == 1 and or == 2", 15, "found `or`"),
            (r#"os == "ü" & x == 1"#, 11, "no meaning"),
            (r#"5 == os"#, 1, "found `5`"),
        ] {
            let error = root(text).expect_err(text);
            let ExpressionError::Wrong {
                column: at,
                problem: said,
            } = &error
            else {
                panic!("{text}: {error}");
            };
            assert_eq!(*at, column, "{text}: {error}");
            assert!(said.contains(problem), "{text}: {error}");
        }
    }

    #[test]
    fn size_depth_and_number_of_comparisons_are_bounded() {
        let deep = |levels| format!("{}a == 1{}", "(".repeat(levels), ")".repeat(levels));
        root(&deep(DEEPEST - 1)).expect("just so");
        let error = root(&deep(DEEPEST)).expect_err("too deep");
        assert!(error.to_string().contains("deeper than 16"), "{error}");
        root(&"not ".repeat(LONGEST / 4)).expect_err("too deep");
        let many = |count| vec!["a == 1"; count].join(" or ");
        root(&many(MOST)).expect("just so");
        let error = root(&many(MOST + 1)).expect_err("too many");
        assert!(error.to_string().contains("more than 64"), "{error}");
        let long = format!(r#"a == "{}""#, "x".repeat(LONGEST));
        assert_eq!(root(&long), Err(ExpressionError::TooLong));
    }

    #[test]
    fn whatever_is_cut_out_of_an_expression_is_read_or_refused() {
        let whole = r#"not (os == "lü\"x" and a.b-c >= "2GiB") or fact("x") != -1.5 and tag.k < 3"#;
        let ends: Vec<_> = whole.char_indices().map(|(at, _)| at).collect();
        for from in &ends {
            for until in ends.iter().filter(|until| *until >= from) {
                let _read = root(&whole[*from..*until]);
                let _read = root(&format!("{}{}", &whole[..*from], &whole[*until..]));
            }
        }
    }
}
