//! Secrets in output are replaced by `***` before anything of it is kept or told.
//!
//! What is looked for is the value without the white space around it, each longer line of one that has several, and the
//! value as base64 (both alphabets, wherever it stands in what was encoded, also over line ends) and URL-encoded. Who wants
//! to get a secret past this can, by turning it around; this is for those who print it without meaning to.
//!
//! Each pattern is followed through the stream byte by byte (Knuth, Morris, Pratt), so a match is found whatever the pieces
//! are, and time depends on the output alone. Held back is only what may be the beginning of a match: as many bytes as the
//! longest pattern, or three times as many where lines end in it.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::rc::Rc;

use base64::Engine as _;
use base64::alphabet::{Alphabet, STANDARD, URL_SAFE};
use base64::engine::general_purpose::{GeneralPurpose, NO_PAD, PAD};

use crate::spec::Secret;

/// What stands in place of a secret.
const MASK: &[u8] = b"***";
/// The shortest line of a longer value that is looked for alone, in bytes.
const LINE: usize = 8;
/// The most lines of a value that are looked for alone.
const LINES: usize = 64;
/// The shortest pattern, in bytes, but for the value itself.
const SHORTEST: usize = 4;

/// What stays as it is in URLs, besides letters and digits, by those who encode for them: RFC 3986, paths, JavaScript, and
/// forms by two habits. Forms write a space as `+`.
const UNESCAPED: [(&[u8], Space); 5] = [
    (b"-._~", Space::Escaped),
    (b"-._~/", Space::Escaped),
    (b"-._~!*'()", Space::Escaped),
    (b"-._~", Space::Plus),
    (b"-._*", Space::Plus),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Space {
    Escaped,
    Plus,
}

/// What is looked for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Pattern {
    bytes: Vec<u8>,
    /// Whether lines may end in it: encoders of base64 break lines.
    lines: bool,
}

/// A pattern, and how far its beginning repeats in it up to each byte.
#[derive(Debug)]
struct Followed {
    pattern: Pattern,
    repeats: Vec<usize>,
}

/// What is looked for in both streams of an operation.
#[derive(Debug, Clone)]
pub(crate) struct Patterns {
    followed: Rc<[Followed]>,
    /// Which bytes a pattern begins with.
    begins: Rc<[bool; 256]>,
}

impl Patterns {
    pub(crate) fn of(secrets: &[Secret]) -> Self {
        let patterns: BTreeSet<Pattern> = secrets
            .iter()
            .flat_map(|secret| patterns(&secret.value))
            .collect();
        let mut begins = [false; 256];
        for pattern in &patterns {
            begins[usize::from(pattern.bytes[0])] = true;
        }
        Self {
            followed: patterns.into_iter().map(Followed::new).collect(),
            begins: Rc::new(begins),
        }
    }
}

/// The forms of one value; none is empty.
fn patterns(value: &[u8]) -> BTreeSet<Pattern> {
    let core = value.trim_ascii();
    let exact = |bytes: Vec<u8>| Pattern {
        bytes,
        lines: false,
    };
    let mut all = BTreeSet::from([exact(core.to_vec())]);
    let lines = core.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
    all.extend(
        lines
            .filter(|line| line.len() >= LINE)
            .take(LINES)
            .map(|line| exact(line.to_vec())),
    );
    for alphabet in [&STANDARD, &URL_SAFE] {
        for whole in [core, value] {
            for padding in [PAD, NO_PAD] {
                let text = GeneralPurpose::new(alphabet, padding).encode(whole);
                all.insert(broken(text.into_bytes()));
            }
        }
        all.extend((0..3).map(|before| broken(inside(alphabet, core, before))));
    }
    for (unescaped, space) in UNESCAPED {
        for digits in [b"0123456789ABCDEF", b"0123456789abcdef"] {
            all.insert(exact(url_encoded(core, unescaped, space, digits)));
        }
    }
    all.retain(|pattern| {
        pattern.bytes.len() >= SHORTEST.min(core.len()) && !pattern.bytes.is_empty()
    });
    all
}

fn broken(bytes: Vec<u8>) -> Pattern {
    Pattern { bytes, lines: true }
}

/// The characters of base64 that depend on `value` alone, where so many bytes (modulo three) are encoded before it.
fn inside(alphabet: &Alphabet, value: &[u8], before: usize) -> Vec<u8> {
    let text = [&[0; 2][..before], value].concat();
    let text = GeneralPurpose::new(alphabet, NO_PAD).encode(text);
    let first = [0, 2, 3][before];
    let end = (before + value.len()) * 8 / 6;
    text.as_bytes()[first.min(end)..end].to_vec()
}

fn url_encoded(value: &[u8], unescaped: &[u8], space: Space, digits: &[u8; 16]) -> Vec<u8> {
    let mut encoded = Vec::with_capacity(value.len());
    for byte in value {
        if byte.is_ascii_alphanumeric() || unescaped.contains(byte) {
            encoded.push(*byte);
        } else if *byte == b' ' && space == Space::Plus {
            encoded.push(b'+');
        } else {
            let digit = |half: u8| digits[usize::from(half)];
            encoded.extend([b'%', digit(byte >> 4), digit(byte & 15)]);
        }
    }
    encoded
}

impl Followed {
    fn new(pattern: Pattern) -> Self {
        let mut repeats = vec![0; pattern.bytes.len()];
        let mut length = 0;
        for at in 1..pattern.bytes.len() {
            while length > 0 && pattern.bytes[at] != pattern.bytes[length] {
                length = repeats[length - 1];
            }
            length += usize::from(pattern.bytes[at] == pattern.bytes[length]);
            repeats[at] = length;
        }
        Self { pattern, repeats }
    }
}

/// How much of a pattern the last bytes are.
#[derive(Debug, Clone, Copy, Default)]
struct Progress {
    matched: usize,
    /// Line ends since the last byte of it.
    line_ends: usize,
}

/// One stream on its way through.
#[derive(Debug)]
pub(crate) struct Mask {
    patterns: Patterns,
    progress: Vec<Progress>,
    /// What was not given out yet, and which bytes of it belong to a secret.
    held: Vec<u8>,
    secret: Vec<bool>,
    /// Whether the last byte that was given out was a secret's.
    inside: bool,
}

impl Mask {
    pub(crate) fn new(patterns: &Patterns) -> Self {
        Self {
            progress: vec![Progress::default(); patterns.followed.len()],
            patterns: patterns.clone(),
            held: Vec::new(),
            secret: Vec::new(),
            inside: false,
        }
    }

    /// Takes bytes of the stream; gives what can be kept of it now.
    pub(crate) fn push<'a>(&mut self, bytes: &'a [u8]) -> Cow<'a, [u8]> {
        if self.progress.is_empty() {
            return Cow::Borrowed(bytes);
        }
        let mut rest = bytes;
        let mut under_way = self.progress.iter().any(|progress| progress.matched > 0);
        while !rest.is_empty() {
            if !under_way {
                let begins = &self.patterns.begins;
                let plain = rest.iter().position(|byte| begins[usize::from(*byte)]);
                let (plain, behind) = rest.split_at(plain.unwrap_or(rest.len()));
                self.held.extend_from_slice(plain);
                self.secret.resize(self.held.len(), false);
                rest = behind;
            }
            let Some((byte, behind)) = rest.split_first() else {
                break;
            };
            under_way = self.take(*byte);
            rest = behind;
        }
        let held = self.may_go_on();
        Cow::Owned(self.give(self.held.len() - held))
    }

    /// The stream has ended: gives what was held back.
    pub(crate) fn finish(&mut self) -> Vec<u8> {
        self.progress.fill(Progress::default());
        self.give(self.held.len())
    }

    /// Takes one byte; says whether it may belong to a secret that is not complete.
    fn take(&mut self, byte: u8) -> bool {
        self.held.push(byte);
        self.secret.push(false);
        let mut under_way = false;
        for (followed, progress) in self.patterns.followed.iter().zip(&mut self.progress) {
            let Followed { pattern, repeats } = followed;
            if pattern.lines && is_line_end(byte) && progress.matched > 0 && progress.line_ends < 2
            {
                progress.line_ends += 1;
                under_way = true;
                continue;
            }
            progress.line_ends = 0;
            while progress.matched > 0 && pattern.bytes[progress.matched] != byte {
                progress.matched = repeats[progress.matched - 1];
            }
            progress.matched += usize::from(pattern.bytes[progress.matched] == byte);
            if progress.matched == pattern.bytes.len() {
                let length = length_of(&self.held, pattern.lines, progress.matched);
                let from = self.secret.len() - length;
                self.secret[from..].fill(true);
                progress.matched = repeats[progress.matched - 1];
            }
            under_way |= progress.matched > 0;
        }
        under_way
    }

    /// How many of the last bytes may be the beginning of a secret.
    fn may_go_on(&self) -> usize {
        let followed = self.patterns.followed.iter().zip(&self.progress);
        followed
            .map(|(followed, progress)| {
                length_of(&self.held, followed.pattern.lines, progress.matched)
            })
            .max()
            .unwrap_or(0)
    }

    fn give(&mut self, count: usize) -> Vec<u8> {
        let mut given = Vec::with_capacity(count);
        let bytes = self.held.drain(..count);
        for (byte, secret) in bytes.zip(self.secret.drain(..count)) {
            match (secret, self.inside) {
                (false, _) => given.push(byte),
                (true, false) => given.extend_from_slice(MASK),
                (true, true) => {}
            }
            self.inside = secret;
        }
        given
    }
}

/// How many of the last bytes are `matched` ones of a pattern, with the line ends in and behind it.
fn length_of(held: &[u8], lines: bool, matched: usize) -> usize {
    if !lines || matched == 0 {
        return matched;
    }
    let counted = held.iter().enumerate().rev();
    let mut counted = counted.filter(|(_, byte)| !is_line_end(**byte));
    counted
        .nth(matched - 1)
        .map_or(held.len(), |(at, _)| held.len() - at)
}

const fn is_line_end(byte: u8) -> bool {
    matches!(byte, b'\n' | b'\r')
}

#[cfg(test)]
mod tests {
    use base64::engine::general_purpose;
    use serde_bytes::ByteBuf;

    use super::*;

    fn mask(values: &[&str]) -> Mask {
        let secrets: Vec<Secret> = values
            .iter()
            .map(|value| Secret {
                variable: "SLUICE_SECRET_T".to_owned(),
                name: "t".to_owned(),
                value: ByteBuf::from(value.as_bytes()),
            })
            .collect();
        Mask::new(&Patterns::of(&secrets))
    }

    /// What comes of `output`, in pieces of so many bytes.
    fn in_pieces(values: &[&str], output: &str, size: usize) -> String {
        let mut mask = mask(values);
        let mut given: Vec<u8> = output
            .as_bytes()
            .chunks(size)
            .flat_map(|piece| mask.push(piece).into_owned())
            .collect();
        given.extend(mask.finish());
        String::from_utf8(given).unwrap()
    }

    /// What comes of `output`, which has to be the same whatever the pieces are.
    fn masked(values: &[&str], output: &str) -> String {
        let whole = in_pieces(values, output, output.len().max(1));
        for size in [1, 2, 3, 5, 7, 76] {
            assert_eq!(in_pieces(values, output, size), whole, "{size}");
        }
        whole
    }

    #[test]
    fn a_secret_is_masked_wherever_pieces_of_output_end() {
        for (output, expected) in [
            ("hunter22", "***"),
            ("a hunter22 b hunter22\n", "a *** b ***\n"),
            ("huntehunter22hunt", "hunte***hunt"),
            ("hunter2", "hunter2"),
            ("Hunter22", "Hunter22"),
            ("hhunter22", "h***"),
            ("", ""),
        ] {
            assert_eq!(masked(&["hunter22"], output), expected, "{output}");
        }
        assert_eq!(masked(&["aabaa"], "aabaabaa-aabaX"), "***-aabaX");
        assert_eq!(masked(&["first-one", "one-more"], "first-one-more"), "***");
        assert_eq!(masked(&[], "hunter22"), "hunter22");
    }

    #[test]
    fn white_space_around_a_secret_does_not_hide_it() {
        assert_eq!(masked(&[" hunter22\n"], "x=hunter22;"), "x=***;");
        assert_eq!(masked(&["hunter22\n"], "hunter22\n"), "***\n");
        let key = "-----BEGIN-----\nMIIEabcdefgh\nend\n";
        assert_eq!(masked(&[key], "> MIIEabcdefgh\n> end\n"), "> ***\n> end\n");
    }

    #[test]
    fn a_secret_is_masked_as_base64_wherever_it_stands_in_what_was_encoded() {
        let secret = "correct horse?~battery>>staple\u{ff}\u{ff}!";
        for before in ["", "u", "u:", "user:", "abcdef"] {
            for behind in ["", "x", "yz", "\n"] {
                let text = format!("{before}{secret}{behind}");
                for text in [
                    general_purpose::STANDARD.encode(&text),
                    general_purpose::URL_SAFE.encode(&text),
                    general_purpose::URL_SAFE_NO_PAD.encode(&text),
                ] {
                    let given = masked(&[secret], &text);
                    let left = given.replace("***", "").len();
                    let around = (before.len() + behind.len()) * 4 / 3 + 8;
                    assert!(given.contains("***") && left <= around, "{text} {given}");
                }
            }
        }
        for exact in [secret, "abcd", "abcde", "abcdef"] {
            let text = general_purpose::STANDARD.encode(exact);
            assert_eq!(masked(&[exact], &format!("<{text}>")), "<***>");
        }
    }

    #[test]
    fn line_ends_in_base64_do_not_hide_a_secret() {
        let secret = "a long secret ".repeat(20);
        let text = general_purpose::STANDARD.encode(&secret);
        for end in ["\n", "\r\n"] {
            let lines: Vec<&str> = (0..text.len())
                .step_by(76)
                .map(|at| &text[at..text.len().min(at + 76)])
                .collect();
            let output = format!("<{}>", lines.join(end));
            assert_eq!(masked(&[&secret], &output), "<***>");
        }
    }

    #[test]
    fn a_secret_is_masked_as_it_stands_in_urls() {
        let secret = "a b/c&d=e~f(g)";
        for text in [
            "a%20b%2Fc%26d%3De~f%28g%29",
            "a%20b%2fc%26d%3de~f%28g%29",
            "a%20b/c%26d%3De~f%28g%29",
            "a%20b%2Fc%26d%3De~f(g)",
            "a+b%2Fc%26d%3De~f%28g%29",
            "a+b%2Fc%26d%3De%7Ef%28g%29",
        ] {
            let output = format!("http://h/?q={text}&r=1");
            assert_eq!(masked(&[secret], &output), "http://h/?q=***&r=1");
        }
    }

    #[test]
    fn no_more_is_held_back_than_may_become_a_secret() {
        let mut mask = mask(&["hunter22"]);
        assert_eq!(*mask.push(b"$ ls\nhunt"), *b"$ ls\n");
        assert_eq!(*mask.push(b"ing\n"), *b"hunting\n");
        assert_eq!(mask.push(&[b'z'; 1 << 16]).len(), 1 << 16);
        for _ in 0..1000 {
            mask.push(b"aHVudGVy\n\n\n\n\n\n\n\n");
            assert!(mask.held.len() < 100, "{}", mask.held.len());
        }
        assert_eq!(*mask.push(b"hunter2"), *b"");
        assert_eq!(mask.finish(), b"hunter2");
    }
}
