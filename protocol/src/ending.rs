//! States of an operation, and the ways it can end, with their words.
//!
//! ```text
//! held -> queued -> delivered -> accepted -> checking -> running -> (an ending)
//!   \________\__________\___________\___________\____________________^
//! ```
//!
//! Until the first byte of an operation is sent the host alone ends it; after that the agent does, or silence.

use serde::{Deserialize, Serialize};

use crate::units::Span;

/// Where an operation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[expect(missing_docs, reason = "the words of docs/results.md")]
pub enum State {
    Held,
    Queued,
    Delivered,
    Accepted,
    Checking,
    Running,
    Succeeded,
    Failed,
    Unsupported,
    TimedOut,
    Blocked,
    Canceled,
    Expired,
    Error,
    Interrupted,
}

impl State {
    /// Every state.
    pub const ALL: &[Self] = &[
        Self::Held,
        Self::Queued,
        Self::Delivered,
        Self::Accepted,
        Self::Checking,
        Self::Running,
        Self::Succeeded,
        Self::Failed,
        Self::Unsupported,
        Self::TimedOut,
        Self::Blocked,
        Self::Canceled,
        Self::Expired,
        Self::Error,
        Self::Interrupted,
    ];

    /// Whether nothing comes after it.
    #[must_use]
    pub const fn is_terminal(self) -> bool {
        !matches!(
            self,
            Self::Held
                | Self::Queued
                | Self::Delivered
                | Self::Accepted
                | Self::Checking
                | Self::Running
        )
    }

    /// The word in JSON and in the store.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Held => "held",
            Self::Queued => "queued",
            Self::Delivered => "delivered",
            Self::Accepted => "accepted",
            Self::Checking => "checking",
            Self::Running => "running",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Unsupported => "unsupported",
            Self::TimedOut => "timed-out",
            Self::Blocked => "blocked",
            Self::Canceled => "canceled",
            Self::Expired => "expired",
            Self::Error => "error",
            Self::Interrupted => "interrupted",
        }
    }

    /// The state that the word stands for.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL
            .iter()
            .copied()
            .find(|state| state.as_str() == word)
    }

    /// The coarse status that goes with a terminal state.
    #[must_use]
    pub const fn status(self) -> Option<Status> {
        Some(match self {
            Self::Succeeded => Status::Success,
            Self::Failed | Self::Unsupported | Self::TimedOut | Self::Canceled | Self::Expired => {
                Status::Failed
            }
            Self::Blocked => Status::Blocked,
            Self::Error | Self::Interrupted => Status::Error,
            _ => return None,
        })
    }
}

/// What an ended operation comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the words of docs/results.md")]
pub enum Status {
    Success,
    Failed,
    Blocked,
    Error,
}

impl Status {
    /// Every status.
    pub const ALL: &[Self] = &[Self::Success, Self::Failed, Self::Blocked, Self::Error];

    /// The word in JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Failed => "failed",
            Self::Blocked => "blocked",
            Self::Error => "error",
        }
    }

    /// The status that the word stands for.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL
            .iter()
            .copied()
            .find(|status| status.as_str() == word)
    }
}

/// How an operation ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Ending {
    /// The script exited with 0.
    Succeeded,
    /// The script exited with another code.
    ExitCode(i32),
    /// A signal ended the script.
    Signal(Signal),
    /// No machine has the name or id that was typed.
    MachineNotFound,
    /// `--no-queue`, and the machine is not connected.
    AgentNotConnected,
    /// The machine lacks what the script needs: the name of its system, or what is unmet.
    Unsupported(String),
    /// The time limit was reached.
    TimedOut(Span),
    /// The scanners' findings are over what policy allows.
    ThreatFound(String),
    /// A gate, or the machine's owner, said no.
    Blocked(Block),
    /// An operator canceled it.
    Canceled(String),
    /// Its time came before it could start.
    Expired,
    /// Something other than the script failed; nothing was started, or its end is known.
    Error(String),
    /// It may have run, and nobody knows how it ended.
    Interrupted,
}

/// A signal, and whether it left a core file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Signal {
    /// For example 9.
    pub number: i32,
    /// For example `KILL`.
    pub name: String,
    /// Whether the kernel wrote a core file.
    pub core_dumped: bool,
}

/// Who blocked an operation and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Block {
    /// `parameters`, `policy`, `machine policy` or a gate's id.
    pub by: String,
    /// For the operator.
    pub reason: String,
    /// For programs, for example `approval-required`.
    pub code: Option<String>,
}

impl Block {
    /// Blocked by the machine's owner.
    #[must_use]
    pub fn machine_policy(reason: impl Into<String>) -> Self {
        Self {
            by: "machine policy".to_owned(),
            reason: reason.into(),
            code: None,
        }
    }
}

impl Ending {
    /// What the end of an operation is called in an audit log, the host's and the machine's.
    #[must_use]
    pub const fn audit_event(&self) -> &'static str {
        match self {
            Self::Succeeded | Self::ExitCode(_) | Self::Signal(_) | Self::TimedOut(_) => {
                "script_executed"
            }
            Self::ThreatFound(_) => "script_security_threat",
            Self::Blocked(_) | Self::Unsupported(_) => "script_blocked",
            Self::Canceled(_) => "script_canceled",
            Self::Expired => "script_expired",
            Self::MachineNotFound
            | Self::AgentNotConnected
            | Self::Error(_)
            | Self::Interrupted => "script_execution_error",
        }
    }

    /// The state that this ending puts an operation into.
    #[must_use]
    pub const fn state(&self) -> State {
        match self {
            Self::Succeeded => State::Succeeded,
            Self::ExitCode(_)
            | Self::Signal(_)
            | Self::MachineNotFound
            | Self::AgentNotConnected => State::Failed,
            Self::Unsupported(_) => State::Unsupported,
            Self::TimedOut(_) => State::TimedOut,
            Self::ThreatFound(_) | Self::Blocked(_) => State::Blocked,
            Self::Canceled(_) => State::Canceled,
            Self::Expired => State::Expired,
            Self::Error(_) => State::Error,
            Self::Interrupted => State::Interrupted,
        }
    }

    /// The sentence that an operator reads. One line: what came from a peer is escaped.
    #[must_use]
    pub fn message(&self) -> String {
        match self {
            Self::Succeeded => "Script executed successfully".to_owned(),
            Self::ExitCode(code) => format!("Script failed with exit code {code}"),
            Self::Signal(signal) => format!("Script ended by signal {}", one_line(&signal.name)),
            Self::MachineNotFound => "Machine not found".to_owned(),
            Self::AgentNotConnected => "Agent not connected".to_owned(),
            Self::Unsupported(unmet) => format!(
                "Script not supported on target environment: {}",
                one_line(unmet)
            ),
            Self::TimedOut(limit) => format!("Time limit of {limit} reached"),
            Self::ThreatFound(details) => format!(
                "Security scan detected potential threat: {}",
                one_line(details)
            ),
            Self::Blocked(block) => format!(
                "Blocked by {}: {}",
                one_line(&block.by),
                one_line(&block.reason)
            ),
            Self::Canceled(by) => format!("Canceled by {}", one_line(by)),
            Self::Expired => "Expired before it could start".to_owned(),
            Self::Error(reason) => format!("Execution error: {}", one_line(reason)),
            Self::Interrupted => "Execution error: interrupted, outcome unknown".to_owned(),
        }
    }
}

/// `text` without line ends and other control characters, which could forge lines or move a terminal's cursor.
#[must_use]
pub fn one_line(text: &str) -> String {
    text.chars()
        .map(|c| match c {
            '\n' | '\r' | '\t' => ' ',
            c if c.is_control() || is_bidirectional_control(c) || is_invisible(c) => '\u{fffd}',
            c => c,
        })
        .collect()
}

/// The same, and no more than so many characters: what a peer said, as it may stand on a record.
#[must_use]
pub fn short_line(text: &str, most: usize) -> String {
    one_line(text).chars().take(most).collect()
}

/// The characters that reorder what a reader sees (Unicode Technical Report 36; "Trojan Source", CVE-2021-42574).
pub(crate) const fn is_bidirectional_control(c: char) -> bool {
    matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// What breaks a line elsewhere than in a terminal, and what takes no place: two texts that look the same should be the
/// same (Unicode Technical Standard 39, section 3.1).
const fn is_invisible(c: char) -> bool {
    matches!(
        c,
        '\u{2028}' | '\u{2029}' | '\u{200b}' | '\u{2060}'..='\u{2064}' | '\u{feff}' | '\u{e0000}'..='\u{e007f}'
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_those_of_serde() {
        for state in State::ALL {
            let bytes = crate::codec::encode(state).expect("encodes");
            let word: String = crate::codec::decode(&bytes).expect("is a string");
            assert_eq!(word, state.as_str());
            assert_eq!(State::from_word(&word), Some(*state));
            assert_eq!(state.is_terminal(), state.status().is_some());
            let page = include_str!("../../docs/results.md");
            assert!(
                page.contains(&format!("`{word}`")),
                "{word} is not documented"
            );
        }
    }

    #[test]
    fn a_line_has_nothing_that_a_reader_does_not_see() {
        for hidden in [
            '\u{7}',
            '\u{61c}',
            '\u{200b}',
            '\u{202e}',
            '\u{2028}',
            '\u{2029}',
            '\u{feff}',
            '\u{e0041}',
        ] {
            assert_eq!(one_line(&format!("a{hidden}b")), "a\u{fffd}b", "{hidden:?}");
        }
        // A joiner is a part of words and pictures.
        assert_eq!(
            one_line("a\u{200d}\u{e4} \u{1f600}"),
            "a\u{200d}\u{e4} \u{1f600}"
        );
    }

    #[test]
    fn messages_are_the_documented_ones() {
        let block = Block {
            by: "parameters".to_owned(),
            reason: "a\x1b[2Jb\nc".to_owned(),
            code: None,
        };
        let table = [
            (
                Ending::Succeeded,
                "succeeded",
                "Script executed successfully",
            ),
            (
                Ending::ExitCode(3),
                "failed",
                "Script failed with exit code 3",
            ),
            (
                Ending::Signal(Signal {
                    number: 9,
                    name: "KILL".to_owned(),
                    core_dumped: false,
                }),
                "failed",
                "Script ended by signal KILL",
            ),
            (Ending::MachineNotFound, "failed", "Machine not found"),
            (Ending::AgentNotConnected, "failed", "Agent not connected"),
            (
                Ending::Unsupported("Linux".to_owned()),
                "unsupported",
                "Script not supported on target environment: Linux",
            ),
            (
                Ending::TimedOut(Span::seconds(2)),
                "timed-out",
                "Time limit of 2s reached",
            ),
            (
                Ending::ThreatFound("x".to_owned()),
                "blocked",
                "Security scan detected potential threat: x",
            ),
            (
                Ending::Blocked(block),
                "blocked",
                "Blocked by parameters: a\u{fffd}[2Jb c",
            ),
            (
                Ending::Canceled("admin".to_owned()),
                "canceled",
                "Canceled by admin",
            ),
            (Ending::Expired, "expired", "Expired before it could start"),
            (Ending::Error("x".to_owned()), "error", "Execution error: x"),
            (
                Ending::Interrupted,
                "interrupted",
                "Execution error: interrupted, outcome unknown",
            ),
        ];
        for (ending, state, message) in table {
            assert_eq!(
                (ending.state().as_str(), ending.message().as_str()),
                (state, message)
            );
        }
    }
}
