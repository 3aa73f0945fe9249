//! What tenants are called.

use std::fmt;
use std::str::FromStr;

use sluice_protocol::ids::TenantId;

/// The name of a tenant: plain characters alone, so that two names that look the same are the same, and never what an id looks
/// like.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TenantName(String);

impl TenantName {
    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TenantName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for TenantName {
    type Err = InvalidTenantName;

    fn from_str(text: &str) -> Result<Self, InvalidTenantName> {
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        let is_name = (1..=63).contains(&text.len())
            && text.chars().all(plain)
            && !text.starts_with('-')
            && text.parse::<TenantId>().is_err();
        if is_name {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidTenantName(text.chars().take(100).collect()))
        }
    }
}

/// The text is no name for a tenant.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{} is no name for a tenant (1 to 63 small letters, digits and -, the first a letter or digit)", .0.escape_debug())]
pub struct InvalidTenantName(String);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_plain_and_no_ids() {
        for text in ["acme", "a", "4you", "acme-eu-1"] {
            assert_eq!(text.parse::<TenantName>().expect(text).as_str(), text);
        }
        for text in [
            "",
            "Acme",
            "a b",
            "-a",
            "a/b",
            "a\u{202e}b",
            "019a0000-0000-7000-8000-000000000001",
            &"a".repeat(64),
        ] {
            assert!(text.parse::<TenantName>().is_err(), "{text}");
        }
    }
}
