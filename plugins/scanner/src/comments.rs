//! Where a text is a comment. In shell scripts that can be known for certain, by following quotes and here-documents;
//! in the other languages a line that begins with `#` is taken for one, but what it holds still counts a little.

use sluice_plugin_sdk::prelude::*;

/// How comments of a text look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Language {
    Shell,
    /// A line that begins with `#` is a comment, unless it is within a long string.
    Hash,
    /// No comments are known.
    Other,
}

impl Language {
    /// The script says its language; other texts say it in their first line or with the end of their name.
    pub(crate) fn of(part: &TextPart<'_>, script: &Script) -> Self {
        if part.subject == "script" {
            return match script.language.as_str() {
                "shell" => Self::Shell,
                "python" | "perl" | "ruby" | "powershell" => Self::Hash,
                _ => Self::Other,
            };
        }
        let first = part.text.lines().next().unwrap_or_default();
        let ends = |ending: &str| part.subject.ends_with(ending);
        if first.starts_with("#!") {
            if first.trim_end().ends_with("sh") {
                Self::Shell
            } else {
                Self::Hash
            }
        } else if ends(".sh") {
            Self::Shell
        } else if ends(".py") || ends(".pl") || ends(".rb") || ends(".ps1") {
            Self::Hash
        } else {
            Self::Other
        }
    }
}

/// The comments of one text.
#[derive(Debug, Default)]
pub(crate) struct Comments {
    /// Sorted, not overlapping.
    ranges: Vec<(usize, usize)>,
    certain: bool,
}

impl Comments {
    pub(crate) fn of(text: &str, language: Language) -> Self {
        match language {
            Language::Shell => Self {
                ranges: of_shell(text.as_bytes()),
                certain: true,
            },
            Language::Hash => Self {
                ranges: of_lines(text),
                certain: false,
            },
            Language::Other => Self::default(),
        }
    }

    /// `None`: no comment. Otherwise whether it is one for certain.
    pub(crate) fn at(&self, offset: usize) -> Option<bool> {
        let after = self.ranges.partition_point(|&(start, _)| start <= offset);
        let (_, end) = *self.ranges.get(after.checked_sub(1)?)?;
        if offset < end {
            Some(self.certain)
        } else {
            None
        }
    }
}

fn of_lines(text: &str) -> Vec<(usize, usize)> {
    let mut ranges = Vec::new();
    let mut start = 0;
    for line in text.split_inclusive('\n') {
        if line.trim_start().starts_with('#') {
            ranges.push((start, start + line.len()));
        }
        start += line.len();
    }
    ranges
}

/// Follows quotes, escapes, comments and here-documents. Where the text stops making sense (a quote that never ends),
/// the rest is no comment.
fn of_shell(bytes: &[u8]) -> Vec<(usize, usize)> {
    let mut ranges = Vec::new();
    let mut quotes: Vec<u8> = Vec::new();
    let mut pending: Vec<Vec<u8>> = Vec::new();
    let mut index = 0;
    while index < bytes.len() {
        let byte = bytes[index];
        let quote = quotes.last().copied();
        match (quote, byte) {
            (Some(b'\''), b'\'') | (Some(b'"'), b'"') | (Some(b'`'), b'`') => {
                quotes.pop();
            }
            (Some(b'\''), _) => {}
            (_, b'\\') => index += 1,
            (Some(b'"'), b'`') => quotes.push(b'`'),
            // Nested quotes need a real parser: from here on nothing is known for certain.
            (Some(b'"'), b'$') if bytes.get(index + 1) == Some(&b'(') => return ranges,
            (Some(b'"'), _) => {}
            (_, b'\'' | b'"' | b'`') => quotes.push(byte),
            (_, b'#') if quotes.is_empty() && begins_comment(bytes, index) => {
                let end = bytes[index..]
                    .iter()
                    .position(|&b| b == b'\n')
                    .map_or(bytes.len(), |n| index + n);
                ranges.push((index, end));
                index = end;
                continue;
            }
            (_, b'<')
                if bytes[index..].starts_with(b"<<") && !bytes[index..].starts_with(b"<<<") =>
            {
                let (word, end) = delimiter(bytes, index + 2);
                if !word.is_empty() {
                    pending.push(word);
                    index = end;
                    continue;
                }
            }
            (_, b'<') if bytes[index..].starts_with(b"<<<") => index += 2,
            (_, b'\n') if !pending.is_empty() => {
                index += 1;
                for word in pending.drain(..) {
                    index = after_document(bytes, index, &word);
                }
                continue;
            }
            _ => {}
        }
        index += 1;
    }
    if quotes.is_empty() {
        ranges
    } else {
        Vec::new()
    }
}

/// A `#` begins a comment only where a word could begin.
fn begins_comment(bytes: &[u8], index: usize) -> bool {
    index.checked_sub(1).is_none_or(|before| {
        matches!(
            bytes[before],
            b' ' | b'\t' | b'\n' | b';' | b'(' | b')' | b'&' | b'|'
        )
    })
}

/// The word that ends a here-document, and where it stops.
fn delimiter(bytes: &[u8], mut index: usize) -> (Vec<u8>, usize) {
    while matches!(bytes.get(index), Some(b'-' | b'~' | b' ' | b'\t')) {
        index += 1;
    }
    let mut word = Vec::new();
    while let Some(&byte) = bytes.get(index) {
        match byte {
            b'\'' | b'"' | b'\\' => {}
            _ if byte.is_ascii_alphanumeric()
                || matches!(byte, b'_' | b'-' | b'.' | b'!' | b'%' | b'+') =>
            {
                word.push(byte)
            }
            _ => break,
        }
        index += 1;
    }
    // `1 << 3` is arithmetic.
    if word.first().is_some_and(u8::is_ascii_digit) {
        (Vec::new(), index)
    } else {
        (word, index)
    }
}

/// Where the text goes on after the line that is nothing but `word`.
fn after_document(bytes: &[u8], mut index: usize, word: &[u8]) -> usize {
    while index < bytes.len() {
        let end = bytes[index..]
            .iter()
            .position(|&b| b == b'\n')
            .map_or(bytes.len(), |n| index + n);
        let line = bytes[index..end].trim_ascii();
        index = end + 1;
        if line == word {
            break;
        }
    }
    index.min(bytes.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn comment(text: &str, what: &str) -> Option<bool> {
        Comments::of(text, Language::Shell).at(text.find(what).expect("what"))
    }

    #[test]
    fn comments_of_a_shell_script_are_certain() {
        assert_eq!(comment("# X\n", "X"), Some(true));
        assert_eq!(comment("echo a # X\r\n", "X"), Some(true));
        assert_eq!(comment("it=\"a'b\" # X", "X"), Some(true));
        assert_eq!(comment("cat <<E\n'\nE\n# X", "X"), Some(true));
        assert_eq!(comment("# it's\n# X", "X"), Some(true));
    }

    #[test]
    fn what_may_run_is_no_comment() {
        assert_eq!(comment("a=\"\n# X\n\"; eval \"$a\"", "X"), None);
        assert_eq!(comment("a='\n# X\n'", "X"), None);
        assert_eq!(comment("cat <<'E' > f\n# X\nE\n", "X"), None);
        assert_eq!(comment("cat <<E\n'\nE\na='\n# X\n'", "X"), None);
        assert_eq!(comment("echo a#X", "X"), None);
        assert_eq!(comment("echo \\\n${a#X}", "X"), None);
        assert_eq!(comment("echo $#; X", "X"), None);
        assert_eq!(comment("'\n# X", "X"), None);
        assert_eq!(comment("a=\"$(echo \"\n# X\n\")\"", "X"), None);
    }

    #[test]
    fn hostile_text_has_an_end() {
        for text in [
            "",
            "#",
            "<<",
            "<<E",
            "\\",
            "'",
            &"<<A ".repeat(100_000),
            &"#é".repeat(100_000),
        ] {
            Comments::of(text, Language::Shell);
            Comments::of(text, Language::Hash);
        }
    }
}
