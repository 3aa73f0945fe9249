//! The rule tables, one file for each group.

mod collection;
mod credentials;
mod defenses;
mod destructive;
mod download;
mod identity;
mod lateral;
mod obfuscation;
mod persistence;
mod privilege;
mod remote_shell;

use std::fmt::Write as _;

use sluice_plugin_sdk::types::{Confidence, Severity};

/// What one rule looks for and what it says.
#[derive(Debug)]
pub(crate) struct Rule {
    pub(crate) id: &'static str,
    pub(crate) severity: Severity,
    pub(crate) confidence: Confidence,
    /// ATT&CK techniques (`attack.T1105`) and weaknesses (`cwe-494`).
    pub(crate) tags: &'static [&'static str],
    pub(crate) name: &'static str,
    /// Completes "the script ...".
    pub(crate) message: &'static str,
    pub(crate) remediation: &'static str,
    /// Any of them.
    pub(crate) patterns: &'static [Pattern],
}

/// Words that must occur, and what must hold around them.
#[derive(Debug)]
pub(crate) struct Pattern {
    /// One of these wakes the pattern, in upper or lower case.
    pub(crate) any: &'static [&'static str],
    /// All of these must be somewhere in the text.
    pub(crate) all: &'static [&'static str],
    /// Empty: the word itself is the match. Case-insensitive, ASCII, `^` and `$` match at lines.
    pub(crate) regex: &'static str,
    pub(crate) scope: Scope,
    pub(crate) whole_words: bool,
}

/// What a regular expression is tried on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scope {
    Line,
    Text,
}

/// `regex` on lines with one of the words.
const fn line(any: &'static [&'static str], regex: &'static str) -> Pattern {
    Pattern {
        any,
        all: &[],
        regex,
        scope: Scope::Line,
        whole_words: false,
    }
}

/// `regex` on a whole text with one of the words.
const fn text(any: &'static [&'static str], regex: &'static str) -> Pattern {
    Pattern {
        any,
        all: &[],
        regex,
        scope: Scope::Text,
        whole_words: false,
    }
}

/// `regex` on a whole text with one of the words of `any` and every word of `all`.
const fn together(
    all: &'static [&'static str],
    any: &'static [&'static str],
    regex: &'static str,
) -> Pattern {
    Pattern {
        any,
        all,
        regex,
        scope: Scope::Text,
        whole_words: false,
    }
}

/// The words themselves, with no letter, digit or `_` before or after.
const fn words(any: &'static [&'static str]) -> Pattern {
    Pattern {
        any,
        all: &[],
        regex: "",
        scope: Scope::Line,
        whole_words: true,
    }
}

/// The rule for attachments without a text.
pub(crate) const NOT_SCANNED: &str = "attachment-not-scanned";

/// Every rule, in the order of the manifest.
pub(crate) fn all() -> impl Iterator<Item = &'static Rule> {
    [
        download::RULES,
        remote_shell::RULES,
        destructive::RULES,
        credentials::RULES,
        persistence::RULES,
        identity::RULES,
        privilege::RULES,
        defenses::RULES,
        obfuscation::RULES,
        lateral::RULES,
        collection::RULES,
    ]
    .into_iter()
    .flatten()
}

/// The `[[rules]]` of `plugin.toml`.
#[must_use]
pub fn manifest_table() -> String {
    let mut table = String::new();
    for rule in all() {
        let tags: Vec<_> = rule.tags.iter().map(|tag| format!("{tag:?}")).collect();
        // Writing to a String cannot fail.
        let _ = write!(
            table,
            "\n[[rules]]\nid = {:?}\nname = {:?}\nshort = {:?}\nhelp = {:?}\nseverity = {:?}\ntags = [{}]\n",
            rule.id,
            rule.name,
            rule.message,
            rule.remediation,
            rule.severity.name(),
            tags.join(", "),
        );
    }
    table
}
