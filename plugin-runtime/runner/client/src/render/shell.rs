//! Where words stand in a shell script.
//!
//! This is no parser: it follows quotes, comments, here-documents and expansions, and whatever it is not sure of is not
//! code.

use sluice_gate_types::input::Value;

use super::Position;

/// A single-quoted word.
pub(super) fn literal(value: &Value) -> Option<String> {
    super::text(value).map(|text| format!("'{}'", text.replace('\'', "'\\''")))
}

/// What is open around a place.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Open {
    /// `$( ... )` or `( ... )`: commands again.
    Parenthesis,
    DoubleQuote,
    /// `${ ... }`
    Brace,
    /// `$(( ... ))` or `(( ... ))`
    Arithmetic,
    Backtick,
}

/// The position of every byte of `script`.
pub(super) fn positions(script: &str) -> Vec<Position> {
    let bytes = script.as_bytes();
    let mut positions = vec![Position::Code; bytes.len()];
    let mut open: Vec<Open> = Vec::new();
    let mut documents: Vec<(String, bool)> = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let rest = &bytes[at..];
        let place = match open.last() {
            _ if open.contains(&Open::Backtick) => Position::Other("backticks"),
            _ if open.contains(&Open::Arithmetic) => Position::Other("an arithmetic expression"),
            _ if open.contains(&Open::Brace) => Position::Other("a parameter expansion"),
            // Code inside "$( )" would be safe; following the nesting of quotes exactly is not worth the risk.
            _ if open.contains(&Open::DoubleQuote) => Position::Other("a double-quoted string"),
            Some(Open::Parenthesis) | None => Position::Code,
            Some(_) => Position::Other("a construct that is not understood"),
        };
        let quoted = open.last() == Some(&Open::DoubleQuote);
        let plain = matches!(open.last(), None | Some(Open::Parenthesis));
        let mut mark = |from: usize, to: usize, position: Position| {
            positions[from..to.min(bytes.len())].fill(position)
        };
        let length = match rest {
            [b'\\', ..] => {
                mark(at, at + 2, Position::Other("an escape"));
                2
            }
            [b'$', b'\'', ..] if !quoted => {
                let end = quote_end(bytes, at + 2, true);
                mark(at, end, Position::Other("a quoted string"));
                end - at
            }
            [b'\'', ..] if !quoted => {
                let end = quote_end(bytes, at + 1, false);
                mark(at, end, Position::Other("a quoted string"));
                end - at
            }
            [b'"', ..] => {
                if quoted {
                    open.pop();
                } else {
                    open.push(Open::DoubleQuote);
                }
                1
            }
            [b'`', ..] => {
                if open.last() == Some(&Open::Backtick) {
                    open.pop();
                } else {
                    open.push(Open::Backtick);
                }
                1
            }
            [b'$', b'(', b'(', ..] => {
                open.push(Open::Arithmetic);
                open.push(Open::Parenthesis);
                3
            }
            [b'$', b'(', ..] => {
                open.push(Open::Parenthesis);
                2
            }
            [b'$', b'{', ..] => {
                open.push(Open::Brace);
                mark(at, at + 2, Position::Other("a parameter expansion"));
                2
            }
            [b'(', b'(', ..] if plain => {
                open.push(Open::Arithmetic);
                open.push(Open::Parenthesis);
                2
            }
            [b'(', ..] if !quoted => {
                open.push(Open::Parenthesis);
                1
            }
            [b')', ..] if open.last() == Some(&Open::Parenthesis) => {
                open.pop();
                if rest.get(1) == Some(&b')') && open.last() == Some(&Open::Arithmetic) {
                    open.pop();
                    2
                } else {
                    1
                }
            }
            [b'}', ..] if open.last() == Some(&Open::Brace) => {
                open.pop();
                1
            }
            [b'#', ..] if plain && starts_word(bytes, at) => {
                let end = line_end(bytes, at);
                mark(at, end, Position::Comment);
                end - at
            }
            [b'<', b'<', b'<', ..] if plain => 3,
            [b'<', b'<', ..] if plain => match delimiter(bytes, at + 2) {
                Some((word, tabs, end)) => {
                    documents.push((word, tabs));
                    mark(at, end, Position::Other("a here-document's delimiter"));
                    end - at
                }
                None => {
                    mark(
                        at,
                        bytes.len(),
                        Position::Other("a here-document that is not understood"),
                    );
                    bytes.len() - at
                }
            },
            [b'\n', ..] if !documents.is_empty() => {
                let end = documents.drain(..).fold(at + 1, |from, (word, tabs)| {
                    document_end(bytes, from, &word, tabs)
                });
                mark(at, end, Position::Other("a here-document"));
                end - at
            }
            _ => {
                mark(at, at + 1, place);
                1
            }
        };
        at += length;
    }
    positions
}

fn starts_word(bytes: &[u8], at: usize) -> bool {
    at == 0
        || matches!(
            bytes[at - 1],
            b' ' | b'\t' | b'\n' | b';' | b'&' | b'|' | b'(' | b')'
        )
}

fn line_end(bytes: &[u8], at: usize) -> usize {
    bytes[at..]
        .iter()
        .position(|byte| *byte == b'\n')
        .map_or(bytes.len(), |offset| at + offset)
}

/// Behind the closing quote.
fn quote_end(bytes: &[u8], mut at: usize, escapes: bool) -> usize {
    while at < bytes.len() {
        match bytes[at] {
            b'\\' if escapes => at += 2,
            b'\'' => return at + 1,
            _ => at += 1,
        }
    }
    bytes.len()
}

/// The word behind `<<`, whether tabs are stripped, and where it ends. None for a word that is not plain or quoted whole.
fn delimiter(bytes: &[u8], mut at: usize) -> Option<(String, bool, usize)> {
    let tabs = bytes.get(at) == Some(&b'-');
    at += usize::from(tabs);
    while matches!(bytes.get(at), Some(b' ' | b'\t')) {
        at += 1;
    }
    let (from, to, end) = match *bytes.get(at)? {
        quote @ (b'\'' | b'"') => {
            let to = at + 1 + bytes[at + 1..].iter().position(|byte| *byte == quote)?;
            (at + 1, to, to + 1)
        }
        _ => {
            let from = if bytes[at] == b'\\' { at + 1 } else { at };
            let length = bytes[from..]
                .iter()
                .position(|byte| !byte.is_ascii_alphanumeric() && !b"_-.!+%".contains(byte));
            let to = length.map_or(bytes.len(), |length| from + length);
            (from, to, to)
        }
    };
    let plain_end = matches!(
        bytes.get(end),
        None | Some(b' ' | b'\t' | b'\n' | b';' | b'|' | b'&' | b')' | b'>' | b'<')
    );
    (from < to && plain_end).then(|| {
        (
            String::from_utf8_lossy(&bytes[from..to]).into_owned(),
            tabs,
            end,
        )
    })
}

/// Behind the line that ends a here-document.
fn document_end(bytes: &[u8], mut at: usize, word: &str, tabs: bool) -> usize {
    while at < bytes.len() {
        let end = line_end(bytes, at);
        let line = &bytes[at..end];
        let line = if tabs {
            &line[line.iter().take_while(|byte| **byte == b'\t').count()..]
        } else {
            line
        };
        at = (end + 1).min(bytes.len());
        if line == word.as_bytes() {
            return at;
        }
    }
    bytes.len()
}
