//! What an agent reports about an operation that has ended.
//!
//! A report is the machine's claim. It says how the operation went; it never widens a permission.

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::ending::{Ending, Signal};
use crate::receipt::{Attestation, Receipt};

/// Everything about a run, in typed fields.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Report {
    /// How it ended.
    pub ending: Ending,
    /// How the script's process ended, where one was started.
    pub exit: Option<Exit>,
    /// The digest of what the gates saw and what ran, where it came to that.
    pub bundle_sha256: Option<Digest>,
    /// A limit that the script ran into.
    pub limit_hit: Option<LimitHit>,
    /// Processes that were still there when the script had ended, and were killed.
    pub survivors_killed: u32,
    /// Lost bytes of stdout.
    pub stdout: StreamEnd,
    /// Lost bytes of stderr.
    pub stderr: StreamEnd,
    /// Milliseconds since 1970 by the machine's clock, where a process was started.
    pub started_at: Option<u64>,
    /// Milliseconds since 1970 by the machine's clock.
    pub finished_at: u64,
    /// By a monotonic clock, from the start to the end of the script.
    pub duration_ms: Option<u64>,
    /// The user, `ephemeral` for one made for this run.
    pub run_as: Option<String>,
    /// The effective context of the process.
    pub context: Option<Context>,
    /// `cgroup-v2`, `hybrid` or `none`.
    pub containment: Option<String>,
    /// The confinement that was applied.
    pub confinement: Option<String>,
    /// What scanners found.
    pub findings: Vec<Finding>,
    /// What environment gates checked.
    pub checks: Vec<Check>,
    /// One for every gate call.
    pub receipts: Vec<Receipt>,
    /// The machine's word for them. A host that says itself how an operation ended gives none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attestation: Option<Attestation>,
    /// Remarks for the operator.
    pub notes: Vec<String>,
}

/// How a process ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Exit {
    /// It exited.
    Code(i32),
    /// A signal ended it.
    Signal(Signal),
}

impl Exit {
    /// The exit code, or 128+n for signal n.
    #[must_use]
    pub const fn code(&self) -> i32 {
        match self {
            Self::Code(code) => *code,
            Self::Signal(signal) => 128 + signal.number,
        }
    }
}

/// A limit, as in `limit_hit` (docs/results.md).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[expect(missing_docs, reason = "the words say it")]
pub enum LimitHit {
    Memory,
    Processes,
    FileSize,
    Output,
}

/// Where a stream ends, and what was cut out of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StreamEnd {
    /// Bytes that were kept.
    pub kept: u64,
    /// Bytes that were lost between head and tail.
    pub lost: u64,
    /// How many of the kept bytes stand before the gap; equal to `kept` where nothing was lost.
    pub head: u64,
}

impl StreamEnd {
    /// How many bytes the script wrote.
    #[must_use]
    pub const fn written(self) -> u64 {
        self.kept.saturating_add(self.lost)
    }

    /// The places of the lost bytes, counted from the beginning of the stream.
    #[must_use]
    pub const fn gap(self) -> std::ops::Range<u64> {
        self.head..self.head.saturating_add(self.lost)
    }
}

/// What stands at the place of bytes that are lost, wherever output is shown.
#[must_use]
pub fn lost_marker(bytes: u64) -> String {
    format!("\n[... {bytes} bytes lost ...]\n")
}

/// The context that a script ran in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Context {
    /// The user id.
    pub uid: u32,
    /// The primary group first.
    pub gids: Vec<u32>,
    /// The working directory.
    pub cwd: String,
    /// The absolute path of the interpreter.
    pub interpreter: String,
}

/// Which gate said it, and whether it could block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Its answer counts.
    Enforce,
    /// Its answer is recorded.
    Monitor,
}

/// How grave a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the words say it")]
pub enum Severity {
    Info,
    Low,
    Medium,
    High,
    Critical,
}

impl Severity {
    /// The word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
            Self::Critical => "critical",
        }
    }
}

/// How sure a scanner is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the words say it")]
pub enum Confidence {
    Low,
    Medium,
    High,
}

/// A range of bytes; `end` is exclusive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "the words say it")]
pub struct Range {
    pub start: u64,
    pub end: u64,
}

/// One reason of a scanner: the WIT record and where it stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Finding {
    /// From the rule table of the plugin's manifest.
    pub rule: String,
    /// How grave it is.
    pub severity: Severity,
    /// How sure the scanner is.
    pub confidence: Confidence,
    /// For people.
    pub message: String,
    /// Where in the subject's text.
    pub primary: Option<Range>,
    /// Other places.
    pub related: Vec<Range>,
    /// `script`, `argument:N`, `environment:NAME` or `attachment:NAME`.
    pub subject: String,
    /// What to do about it.
    pub remediation: Option<String>,
    /// Extensions, as `key=value` text.
    pub attributes: Vec<String>,
    /// Counted from 1.
    pub line: Option<u32>,
    /// In characters, counted from 1.
    pub column: Option<u32>,
    /// The id of the gate.
    pub gate: String,
    /// Whether the gate could block.
    pub mode: Mode,
}

/// One requirement and whether it is met.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Check {
    /// The id of the gate.
    pub gate: String,
    /// The requirement.
    pub id: String,
    /// `met`, `unmet` or `unknown`.
    pub status: CheckStatus,
    /// For people.
    pub message: String,
}

/// Whether a requirement is met.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the words say it")]
pub enum CheckStatus {
    Met,
    Unmet,
    Unknown,
}

impl Report {
    /// A report about an operation of which no process was started.
    #[must_use]
    pub const fn without_process(ending: Ending, finished_at: u64) -> Self {
        const NOTHING: StreamEnd = StreamEnd {
            kept: 0,
            lost: 0,
            head: 0,
        };
        Self {
            ending,
            exit: None,
            bundle_sha256: None,
            limit_hit: None,
            survivors_killed: 0,
            stdout: NOTHING,
            stderr: NOTHING,
            started_at: None,
            finished_at,
            duration_ms: None,
            run_as: None,
            context: None,
            containment: None,
            confinement: None,
            findings: Vec::new(),
            checks: Vec::new(),
            receipts: Vec::new(),
            attestation: None,
            notes: Vec::new(),
        }
    }

    /// The script's exit code, 128+n for signal n, -1 where no process ended.
    #[must_use]
    pub fn exit_code(&self) -> i32 {
        self.exit.as_ref().map_or(-1, Exit::code)
    }
}
