//! Which attachments are taken. The host refuses others before an operation exists, and the agent before a byte is fetched.

use crate::ending::is_bidirectional_control;

/// The most attachments of an operation.
pub const MOST: usize = 100;
/// The largest attachment, in bytes.
pub const LARGEST: u64 = 256 << 20;
/// Gates see the text of attachments up to this size, in bytes.
pub const LARGEST_TEXT: u64 = 1 << 20;

/// Whether `name` is a single path component that means itself on every system, and no option to a program: 1 to 255 bytes
/// without control characters, those that turn the direction of text, and `/ \ : * ? " < > |`, not `.` or `..`, no `-` first, no space or dot last.
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
}
