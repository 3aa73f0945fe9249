//! What machines are called.

use std::fmt;
use std::str::FromStr;

use sluice_protocol::ids::MachineId;

/// The name of a machine: plain characters alone, so that two names that look the same are the same, and never what an id
/// looks like, so that whoever names a machine by its id gets that one.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct MachineName(String);

/// The longest name, in bytes.
pub(crate) const LONGEST: usize = 120;

impl MachineName {
    /// The name that a machine asks for, made plain: what is not allowed becomes a dash.
    #[must_use]
    pub fn from_wish(wish: &str) -> Self {
        let plain: String = wish
            .chars()
            .take(LONGEST)
            .map(|c| if is_plain(c) { c } else { '-' })
            .collect();
        let plain = plain.trim_matches(|c: char| !c.is_ascii_alphanumeric());
        Self(if plain.is_empty() {
            "machine".to_owned()
        } else if is_like_an_id(plain) {
            format!("machine-{plain}")
        } else {
            plain.to_owned()
        })
    }

    /// The same name with a number behind it.
    #[must_use]
    pub fn numbered(&self, number: u32) -> Self {
        let number = format!("-{number}");
        let mut name = self.0.clone();
        name.truncate(LONGEST - number.len());
        Self(name + &number)
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Whether a text can be a name: of a machine, or of whatever else is told apart by reading.
pub(crate) fn is_plain_name(text: &str) -> bool {
    (1..=LONGEST).contains(&text.len())
        && text.chars().all(is_plain)
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
}

/// In any spelling: nobody should have to look closely.
fn is_like_an_id(text: &str) -> bool {
    text.to_ascii_lowercase().parse::<MachineId>().is_ok()
}

fn is_plain(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.')
}

impl fmt::Display for MachineName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for MachineName {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        if is_plain_name(text) && !is_like_an_id(text) {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidName(text.to_owned()))
        }
    }
}

/// The text is no name for a machine.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{} is no name for a machine (1 to {LONGEST} letters, digits and - _ ., the first a letter or digit, and not like an id)", .0.escape_debug())]
pub struct InvalidName(String);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_plain() {
        for name in ["web-1", "db.example.org", "A_1", "0"] {
            assert_eq!(
                name.parse::<MachineName>().map(|name| name.0).as_deref(),
                Ok(name)
            );
        }
        for name in [
            "",
            "-x",
            ".",
            "a b",
            "w\u{435}b",
            "a\n",
            "a\u{202e}",
            &"a".repeat(121),
            "019362f0-1b5c-7c3e-8a53-9d2a2f0c5b11",
            "019362F0-1B5C-7C3E-8A53-9D2A2F0C5B11",
        ] {
            assert!(name.parse::<MachineName>().is_err(), "{name:?}");
        }
    }

    #[test]
    fn wishes_become_names() {
        for (wish, name) in [
            ("web-1", "web-1"),
            ("", "machine"),
            ("--", "machine"),
            ("my pc\n", "my-pc"),
            ("\u{202e}x", "x"),
            (
                "019362f0-1b5c-7c3e-8a53-9d2a2f0c5b11",
                "machine-019362f0-1b5c-7c3e-8a53-9d2a2f0c5b11",
            ),
        ] {
            assert_eq!(MachineName::from_wish(wish).as_str(), name);
            assert!(name.parse::<MachineName>().is_ok());
        }
        let longest = MachineName::from_wish(&"a".repeat(500));
        assert_eq!(longest.as_str().len(), LONGEST);
        let numbered = longest.numbered(4_000_000_000);
        assert_eq!(numbered.as_str().parse().as_ref(), Ok(&numbered));
    }
}
