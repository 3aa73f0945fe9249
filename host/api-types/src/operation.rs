//! `/v1/operations`: a job's run on one machine, with everything that is known about it.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sluice_protocol::digest::Digest;
use sluice_protocol::ending::{State, Status};
use sluice_protocol::ids::{JobId, OperationId};
use sluice_protocol::receipt::Receipt;
use sluice_protocol::report::{Check, Context, Finding, LimitHit};

use crate::script::ScriptUsed;
use crate::why::Reason;

/// The object that `sluice run --json` prints, key for key. Keys are only ever added, and none is left out: what is
/// absent is null.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct OperationResult {
    /// The job's id.
    #[schema(value_type = String)]
    pub job: JobId,
    /// Its own id.
    #[schema(value_type = String)]
    pub operation: OperationId,
    /// The tenant's name.
    pub tenant: String,
    /// The machine's name, or what was typed where there is none of that name.
    pub machine: String,
    /// What it came to; null while it has not ended.
    #[schema(value_type = Option<String>)]
    pub status: Option<Status>,
    /// Where it is.
    #[schema(value_type = String)]
    pub state: State,
    /// For people; null while it has not ended.
    pub message: Option<String>,
    /// The script's, 128+n for signal n, -1 where no process ended; null while it has not ended.
    pub exit_code: Option<i32>,
    /// A name such as `KILL`.
    pub signal: Option<String>,
    /// Whether the kernel wrote a core file.
    pub core_dumped: bool,
    /// Whether the time limit was reached.
    pub timed_out: bool,
    /// Whether an operator ended it.
    pub canceled: bool,
    /// `memory`, `processes`, `file-size` or `output`.
    #[schema(value_type = Option<String>)]
    pub limit_hit: Option<LimitHit>,
    /// Processes that were still there when the script had ended, and were killed.
    pub survivors_killed: u32,
    /// Both streams, in the order in which they were read; null where no process started.
    pub output: Option<String>,
    /// As UTF-8, lossy where it must be.
    pub stdout: Option<String>,
    /// As UTF-8, lossy where it must be.
    pub stderr: Option<String>,
    /// The bytes of `output` where the text is lossy.
    pub output_base64: Option<String>,
    /// The bytes of `stdout` where the text is lossy.
    pub stdout_base64: Option<String>,
    /// The bytes of `stderr` where the text is lossy.
    pub stderr_base64: Option<String>,
    /// Whether the middle was cut out of a stream.
    pub output_truncated: bool,
    /// How many bytes were cut, of both streams.
    pub output_lost_bytes: u64,
    /// RFC 3339, by the machine's clock.
    pub started_at: Option<String>,
    /// RFC 3339, by the machine's clock; by the host's where the host ended it.
    pub finished_at: Option<String>,
    /// From the start to the end of the script.
    pub duration_ms: Option<u64>,
    /// The user, `ephemeral` for one made for this run.
    pub run_as: Option<String>,
    /// The effective context of the process.
    #[schema(value_type = Option<Object>)]
    pub context: Option<Context>,
    /// `cgroup-v2`, `hybrid` or `none`.
    pub containment: Option<String>,
    /// The confinement that was applied.
    pub confinement: Option<String>,
    /// Of the bytes submitted.
    #[schema(value_type = Option<String>)]
    pub script_sha256: Option<Digest>,
    /// Of what the gates saw and what ran.
    #[schema(value_type = Option<String>)]
    pub bundle_sha256: Option<Digest>,
    /// What scanners found.
    #[schema(value_type = Vec<Object>)]
    pub findings: Vec<Finding>,
    /// What environment gates checked.
    #[schema(value_type = Vec<Object>)]
    pub checks: Vec<Check>,
    /// One for every gate call.
    #[schema(value_type = Vec<Object>)]
    pub receipts: Vec<Receipt>,
    /// Remarks for the operator.
    pub notes: Vec<String>,
    /// The script of the library that ran; null where the request brought the text.
    #[serde(default)]
    pub script: Option<ScriptUsed>,
    /// For programs, where a gate or the owner blocked it, for example `approval-required`.
    #[serde(default)]
    pub code: Option<String>,
    /// What it waits for where it has not started, the nearest first; and where its machine is gone since, that.
    #[serde(default)]
    pub why: Vec<Reason>,
    /// What the machine said after the host had recorded `interrupted`.
    #[serde(default)]
    #[schema(value_type = Option<Object>)]
    pub late_report: Option<serde_json::Value>,
}

impl OperationResult {
    /// An operation of which nothing is known but where it is.
    #[must_use]
    pub fn pending(
        job: JobId,
        operation: OperationId,
        tenant: String,
        machine: String,
        state: State,
    ) -> Self {
        Self {
            job,
            operation,
            tenant,
            machine,
            status: state.status(),
            state,
            message: None,
            exit_code: None,
            signal: None,
            core_dumped: false,
            timed_out: false,
            canceled: false,
            limit_hit: None,
            survivors_killed: 0,
            output: None,
            stdout: None,
            stderr: None,
            output_base64: None,
            stdout_base64: None,
            stderr_base64: None,
            output_truncated: false,
            output_lost_bytes: 0,
            started_at: None,
            finished_at: None,
            duration_ms: None,
            run_as: None,
            context: None,
            containment: None,
            confinement: None,
            script_sha256: None,
            bundle_sha256: None,
            findings: Vec::new(),
            checks: Vec::new(),
            receipts: Vec::new(),
            notes: Vec::new(),
            script: None,
            code: None,
            why: Vec::new(),
            late_report: None,
        }
    }
}

/// The header of an answer with output that says where bytes are lost: see [`Gaps`]. It is there where some are.
pub const LOST: &str = "sluice-lost";

/// Where bytes are lost in stored output: `<stored bytes before>=<lost bytes>`, separated by commas. What is lost behind
/// the last stored byte is in the answer without bytes, which is the last one.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Gaps(pub Vec<(u64, u64)>);

impl fmt::Display for Gaps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, (before, lost)) in self.0.iter().enumerate() {
            let comma = if number > 0 { "," } else { "" };
            write!(f, "{comma}{before}={lost}")?;
        }
        Ok(())
    }
}

impl FromStr for Gaps {
    type Err = InvalidGaps;

    fn from_str(text: &str) -> Result<Self, InvalidGaps> {
        let gap = |part: &str| {
            let (before, lost) = part.split_once('=')?;
            Some((before.parse().ok()?, lost.parse().ok()?))
        };
        let gaps = text.split(',').map(|part| gap(part).ok_or(InvalidGaps));
        Ok(Self(gaps.collect::<Result<_, _>>()?))
    }
}

/// The text is no [`Gaps`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InvalidGaps;

impl fmt::Display for InvalidGaps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{LOST} does not say where bytes are lost")
    }
}

impl std::error::Error for InvalidGaps {}

/// Query of `GET /v1/operations/{operation}/output`. The answer is the stored bytes of one stream.
#[derive(
    Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema, utoipa::IntoParams,
)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct OutputQuery {
    /// `stdout` or `stderr`.
    #[param(value_type = String)]
    #[schema(value_type = String)]
    pub stream: sluice_protocol::message::operation::OutputStream,
    /// How many of the stored bytes to leave out; 0 where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offset: Option<u64>,
    /// How many bytes at most; the rest where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub length: Option<u64>,
    /// Only what belongs to the tenant of this name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Programs outside this repository read these keys.
    const KEYS: &[&str] = &[
        "job",
        "operation",
        "tenant",
        "machine",
        "status",
        "state",
        "message",
        "exit_code",
        "signal",
        "core_dumped",
        "timed_out",
        "canceled",
        "limit_hit",
        "survivors_killed",
        "output",
        "stdout",
        "stderr",
        "output_base64",
        "stdout_base64",
        "stderr_base64",
        "output_truncated",
        "output_lost_bytes",
        "started_at",
        "finished_at",
        "duration_ms",
        "run_as",
        "context",
        "containment",
        "confinement",
        "script_sha256",
        "bundle_sha256",
        "findings",
        "checks",
        "receipts",
        "notes",
        "script",
    ];

    #[test]
    fn no_key_is_left_out_of_a_result_of_which_nothing_is_known() {
        let result = OperationResult::pending(
            JobId::generate(),
            OperationId::generate(),
            "default".to_owned(),
            "web-1".to_owned(),
            State::Queued,
        );
        let json = serde_json::to_value(&result).expect("serializes");
        let object = json.as_object().expect("is an object");
        let page = include_str!("../../../docs/results.md");
        for key in KEYS {
            assert!(
                page.contains(&format!("`{key}`")),
                "{key} is not documented"
            );
            assert!(object.contains_key(*key), "{key} is missing");
        }
        assert_eq!(
            serde_json::from_value::<OperationResult>(json).expect("reads"),
            result
        );
    }

    #[test]
    fn gaps_are_read_as_they_are_written() {
        let gaps = Gaps(vec![(0, 1), (5, u64::MAX)]);
        assert_eq!(gaps.to_string(), "0=1,5=18446744073709551615");
        assert_eq!(gaps.to_string().parse(), Ok(gaps));
        for text in ["", "5", "5=", "=5", "5=1,", "5=-1", "5=1;6=1"] {
            assert_eq!(text.parse::<Gaps>(), Err(InvalidGaps), "{text}");
        }
    }

    #[test]
    fn keys_of_a_later_version_are_taken() {
        let result = OperationResult::pending(
            JobId::generate(),
            OperationId::generate(),
            "default".to_owned(),
            "web-1".to_owned(),
            State::TimedOut,
        );
        let mut json = serde_json::to_value(&result).expect("serializes");
        assert_eq!(
            (&json["state"], &json["status"]),
            (&"timed-out".into(), &"failed".into())
        );
        json["later"] = true.into();
        assert_eq!(
            serde_json::from_value::<OperationResult>(json).expect("reads"),
            result
        );
    }
}
