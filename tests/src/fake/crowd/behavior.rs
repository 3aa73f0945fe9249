//! What a simulated machine does with an operation.

use std::time::Duration;

/// How long an operation takes, what comes of it, and how the machine tells that.
#[derive(Debug, Clone, Default)]
pub struct Behavior {
    pub(super) takes: Duration,
    pub(super) exit_code: i32,
    pub(super) stdout: String,
    pub(super) manner: Manner,
}

/// How a machine tells what came of an operation. Canceled, every one of them says so.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Manner {
    /// Over each link, until the host has acknowledged it.
    #[default]
    Honest,
    /// Never.
    Silent,
    /// Once the test lets it, with [`super::Crowd::answer`].
    Late,
    /// Twice at the same time, and once more when the host has acknowledged it.
    Twice,
    /// As [`Manner::Honest`], and says then that it ended with exit code 77.
    Contradicting,
    /// As [`Manner::Honest`], and goes away once the host has acknowledged it, until it is to come back.
    Dark,
}

impl Behavior {
    /// The operation takes so long. At once, where nothing is said.
    #[must_use]
    pub const fn takes(mut self, takes: Duration) -> Self {
        self.takes = takes;
        self
    }

    /// The script ends with this code. With 0, where nothing is said.
    #[must_use]
    pub const fn exits(mut self, code: i32) -> Self {
        self.exit_code = code;
        self
    }

    /// The script writes this to stdout. Nothing, where nothing is said.
    #[must_use]
    pub fn says(mut self, stdout: &str) -> Self {
        stdout.clone_into(&mut self.stdout);
        self
    }

    /// The machine tells the result so.
    #[must_use]
    pub const fn tells(mut self, manner: Manner) -> Self {
        self.manner = manner;
        self
    }
}
