//! What scripts and their versions are called.

use std::fmt;
use std::str::FromStr;

use sluice_api_types::script::ScriptUsed;

use crate::fleet::{LONGEST_NAME, is_plain_name};

/// How names of the provider's scripts begin in its customers' libraries.
const PROVIDERS: &str = "provider/";

/// The name of a script, by the rules of machines' names: two that look the same are the same. One of the provider's that is
/// offered to a customer is `provider/NAME` there, which no customer can call one of its own.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ScriptName(String);

impl ScriptName {
    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it is one of the provider's in a customer's library.
    #[must_use]
    pub fn is_the_providers(&self) -> bool {
        self.0.starts_with(PROVIDERS)
    }

    /// What the provider's script of this name is called in customers' libraries.
    #[must_use]
    pub fn in_others(&self) -> Self {
        Self(format!("{PROVIDERS}{}", self.0))
    }

    /// What a script is called in the library of the provider.
    #[must_use]
    pub fn at_home(&self) -> Self {
        Self(self.0.strip_prefix(PROVIDERS).unwrap_or(&self.0).to_owned())
    }
}

impl fmt::Display for ScriptName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for ScriptName {
    type Err = InvalidScriptName;

    fn from_str(text: &str) -> Result<Self, InvalidScriptName> {
        if is_plain_name(text.strip_prefix(PROVIDERS).unwrap_or(text)) {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidScriptName(text.to_owned()))
        }
    }
}

/// The text is no name for a script.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{} is no name for a script (1 to {LONGEST_NAME} letters, digits and - _ ., the first a letter or digit)", .0.escape_debug())]
pub struct InvalidScriptName(String);

/// A version of a script, written `name@version`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VersionId {
    /// The script.
    pub name: ScriptName,
    /// Counted from 1.
    pub version: u64,
}

impl fmt::Display for VersionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.name, self.version)
    }
}

impl From<VersionId> for ScriptUsed {
    fn from(id: VersionId) -> Self {
        Self {
            name: id.name.0,
            version: id.version,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_plain_and_leave_room_for_a_version() {
        for name in ["deploy", "backup.daily", "A_1", "0", "provider/deploy"] {
            assert_eq!(
                name.parse::<ScriptName>().map(|name| name.0).as_deref(),
                Ok(name)
            );
        }
        for name in [
            "",
            "-x",
            "..",
            "a b",
            "a@1",
            "a/b",
            "provider/",
            "provider/provider/a",
            "depl\u{43e}y",
            "a\n",
            "a\u{202e}",
            &"a".repeat(121),
        ] {
            assert!(name.parse::<ScriptName>().is_err(), "{name:?}");
        }
    }
}
