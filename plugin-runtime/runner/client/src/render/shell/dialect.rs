//! Which shell reads a script.

/// A shell, by the name of the interpreter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dialect {
    /// `sh` and `dash`: a script may meet any shell there, so what shells read in two ways is doubtful.
    Posix,
    Bash,
    Zsh,
    Ksh,
}

impl Dialect {
    /// The dialect of the interpreter with this name, with or without a version.
    pub(super) fn of(name: &str) -> Self {
        match name.trim_end_matches(|c: char| c.is_ascii_digit() || c == '.') {
            "bash" => Self::Bash,
            "zsh" => Self::Zsh,
            "ksh" => Self::Ksh,
            _ => Self::Posix,
        }
    }

    /// Whether it has `[[`, `((`, `$'...'`, arrays, here-strings and substituted processes.
    pub(super) fn is_extended(self) -> bool {
        self != Self::Posix
    }
}
