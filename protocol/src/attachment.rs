//! Which attachments are taken. The host refuses others before an operation exists, and the agent before a byte is fetched.

use std::collections::HashMap;

use icu_normalizer::ComposingNormalizer;

use crate::ending::is_bidirectional_control;

/// The most attachments of an operation.
pub const MOST: usize = 100;
/// The largest attachment, in bytes.
pub const LARGEST: u64 = 256 << 20;
/// The most bytes that all attachments of an operation may have together.
pub const ALL: u64 = 1 << 30;
/// Gates see the text of attachments up to this size, in bytes.
pub const LARGEST_TEXT: u64 = 1 << 20;

/// Whether attachments with these names and sizes in bytes may come with one operation.
///
/// # Errors
///
/// What is wrong with the first that may not, or with all of them together.
pub fn check<'a>(attachments: impl IntoIterator<Item = (&'a str, u64)>) -> Result<(), Refused> {
    let mut files = HashMap::new();
    let (mut count, mut sum) = (0, 0_u64);
    for (name, size) in attachments {
        count += 1;
        sum = sum.saturating_add(size);
        // What a hostile peer sends more than that is counted, and not looked at.
        if count > MOST {
            continue;
        }
        if !is_safe_name(name) {
            return Err(Refused::Name(name.to_owned()));
        }
        if let Some(other) = files.insert(file(name), name) {
            return Err(Refused::SameFile {
                name: name.to_owned(),
                other: other.to_owned(),
            });
        }
        if size > LARGEST {
            return Err(Refused::TooLarge {
                name: name.to_owned(),
                size,
            });
        }
    }
    if count > MOST {
        return Err(Refused::TooMany(count));
    }
    if sum > ALL {
        return Err(Refused::TooLargeTogether(sum));
    }
    Ok(())
}

/// Attachments that no operation may have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// More than [`MOST`].
    #[error("{0} attachments are over the limit of {MOST}")]
    TooMany(usize),
    /// A file name that means something else than a file.
    #[error("{} is no safe file name for an attachment; give it a plain name without a path", shown(.0))]
    Name(String),
    /// Two names for one file.
    #[error("{}", same_file(name, other))]
    SameFile {
        /// The second name.
        name: String,
        /// The first.
        other: String,
    },
    /// More than [`LARGEST`].
    #[error(
        "the attachment {} has {size} bytes, over the limit of {LARGEST}",
        shown(name)
    )]
    TooLarge {
        /// Its name.
        name: String,
        /// In bytes.
        size: u64,
    },
    /// More than [`ALL`].
    #[error("the attachments have {0} bytes together, over the limit of {ALL}")]
    TooLargeTogether(u64),
}

fn same_file(name: &str, other: &str) -> String {
    if name == other {
        return format!("the attachment {} is given twice", shown(name));
    }
    let (name, other) = (shown(name), shown(other));
    format!("the attachments {other} and {name} would be one file on some machines")
}

/// A name as it may stand in a message. One that is none may be of any length.
fn shown(name: &str) -> String {
    name.escape_debug().take(255).collect()
}

/// What two names have in common that some file system takes for one: those of macOS look at neither case nor the way in
/// which a letter and its accent are put together, those of Windows not at case.
fn file(name: &str) -> String {
    let normalizer = const { ComposingNormalizer::new_nfc() };
    let composed = normalizer.normalize(name);
    // Some letters have no other case until they were brought into one (`ẞ`, `ß`, `SS`).
    let of_one_case = composed.to_lowercase().to_uppercase();
    normalizer.normalize(&of_one_case).into_owned()
}

/// Whether `name` is a single path component wherever a file may be called so, and no option to a program: 1 to 255 bytes
/// without control characters, those that turn the direction of text, and `/ \ : * ? " < > |`, not `.` or `..`, no `-` first,
/// no space or dot last. (`CON` and the like, which name devices on Windows, are files here.)
#[must_use]
pub fn is_safe_name(name: &str) -> bool {
    (1..=255).contains(&name.len())
        && !name.starts_with('-')
        // `.` and `..` end in a dot.
        && !name.ends_with([' ', '.'])
        && !name
            .chars()
            .any(|c| c.is_control() || is_bidirectional_control(c) || "/\\:*?\"<>|".contains(c))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_path_component_that_means_itself_everywhere() {
        for name in ["a", "data.csv", ".env", "a b", "ünïcode", "a.b.c"] {
            assert!(is_safe_name(name), "{name}");
        }
        let long = "x".repeat(256);
        for name in [
            "",
            ".",
            "..",
            "../a",
            "a/b",
            "/etc/passwd",
            "a\\b",
            "-rf",
            "a\0b",
            "a\nb",
            "c:",
            "a.",
            "a ",
            "a\u{202e}txt.sh",
            &long,
        ] {
            assert!(!is_safe_name(name), "{name:?}");
        }
    }

    #[test]
    fn no_two_names_mean_the_same_file_on_any_machine() {
        for (one, other) in [
            ("a", "a"),
            ("a", "A"),
            ("\u{e9}", "e\u{301}"),
            ("\u{c9}", "e\u{301}"),
            ("\u{212b}", "a\u{30a}"),
            ("\u{ac00}", "\u{1100}\u{1161}"),
            ("q\u{323}\u{307}", "q\u{307}\u{323}"),
            ("\u{df}", "\u{1e9e}"),
            ("\u{17f}", "S"),
            ("\u{212a}", "k"),
            ("\u{3c3}x", "\u{3c2}X"),
            ("\u{130}", "i\u{307}"),
            ("\u{3b1}\u{345}\u{301}", "\u{3b1}\u{301}\u{345}"),
            ("\u{390}", "\u{3aa}\u{301}"),
        ] {
            let found = check([("z", 0), (one, 0), (other, 0)]);
            let expected = Refused::SameFile {
                name: other.to_owned(),
                other: one.to_owned(),
            };
            assert_eq!(found, Err(expected), "{one} {other}");
        }
        // They need not be written in one way, as long as there is only one of them.
        for (one, other) in [("e", "\u{e9}"), ("e\u{301}", "e"), ("a", "\u{430}")] {
            assert_eq!(check([(one, 0), (other, 0)]), Ok(()), "{one} {other}");
        }
    }

    #[test]
    fn attachments_are_limited_in_number_each_and_together_and_the_message_says_by_what() {
        let names: Vec<String> = (0..MOST + 2).map(|number| number.to_string()).collect();
        let of = |sizes: &[u64]| check(names.iter().map(String::as_str).zip(sizes.iter().copied()));
        let said = |sizes: &[u64]| of(sizes).map_err(|refused| refused.to_string());
        assert_eq!(of(&[]), Ok(()));
        assert_eq!(of(&[0; MOST]), Ok(()));
        assert_eq!(
            said(&[0; MOST + 2]),
            Err("102 attachments are over the limit of 100".to_owned())
        );
        assert_eq!(of(&[LARGEST]), Ok(()));
        assert_eq!(
            said(&[0, LARGEST + 1]),
            Err("the attachment 1 has 268435457 bytes, over the limit of 268435456".to_owned())
        );
        assert_eq!(of(&[LARGEST; 4]), Ok(()));
        assert_eq!(
            said(&[LARGEST, LARGEST, LARGEST, LARGEST, 1]),
            Err(
                "the attachments have 1073741825 bytes together, over the limit of 1073741824"
                    .to_owned()
            )
        );
        assert_eq!(of(&[u64::MAX, u64::MAX]).map_err(|_| ()), Err(()));
    }
}
