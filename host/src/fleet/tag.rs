//! Tags: `key=value`, at most one value for a key on a machine.

use crate::store::bindings::TagPair;

/// The most tags that a machine may have.
pub const MAX_TAGS: usize = 64;

/// Takes a key and a value that may be a tag: they end up in a comma-joined variable of scripts and on terminals.
///
/// # Errors
///
/// Where a character is not allowed there, or there are too many.
pub fn parse(key: &str, value: &str) -> Result<TagPair, InvalidTag> {
    let plain =
        |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '/' | ':' | '@' | '+');
    let key_ok = (1..=64).contains(&key.len())
        && key.starts_with(|c: char| c.is_ascii_alphanumeric())
        && key.chars().all(|c| plain(c) && c != ':');
    let value_ok = value.len() <= 128 && value.chars().all(plain);
    if key_ok && value_ok {
        Ok(TagPair {
            key: key.to_owned(),
            value: value.to_owned(),
        })
    } else {
        Err(InvalidTag(format!("{key}={value}")))
    }
}

/// The text is no tag.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{} is no tag (key=value: letters, digits and - _ . / @ +, in the value also :, at most 64 and 128 characters)", .0.escape_debug())]
pub struct InvalidTag(String);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_plain() {
        assert!(parse("role", "web").is_ok());
        assert!(parse("role", "").is_ok());
        assert!(parse("owner", "team:a@b.c/d").is_ok());
        for (key, value) in [
            ("", "x"),
            ("a b", "x"),
            ("a", "x,y"),
            ("a", "x=y"),
            ("a=", "x"),
            ("a", "\u{202e}"),
            ("a", "x\n"),
            ("-a", "x"),
        ] {
            assert!(parse(key, value).is_err(), "{key:?} {value:?}");
        }
    }
}
