//! `/v1/jobs`: what an operator asked, perhaps for many machines.

use serde::{Deserialize, Serialize};
use sluice_protocol::bundle::Confinement;
use sluice_protocol::digest::Digest;
use sluice_protocol::ending::{State, Status};
use sluice_protocol::ids::{JobId, OperationId};
use sluice_protocol::units::{ByteSize, Span};

use crate::approval::JobApproval;
use crate::bytes::Base64;
use crate::later::Later;
use crate::rollout::Rollout;
use crate::script::{ScriptRef, ScriptUsed};
use crate::why::Reason;

/// The request header that makes a submission safe to repeat: the same key with the same body is the same job, with
/// another body it is refused.
pub const IDEMPOTENCY_KEY: &str = "Idempotency-Key";

/// `POST /v1/jobs`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SubmitJob {
    /// The tenant's name; that of the query where absent, and the operator's own where that has none.
    #[serde(default)]
    pub tenant: Option<String>,
    /// The bytes of the script; or else `script_ref`.
    #[serde(default)]
    pub script: Option<Base64>,
    /// A script of the library. What the request leaves out is as its version says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub script_ref: Option<ScriptRef>,
    /// Wins over the script's `#!` line.
    #[serde(default)]
    pub interpreter: Option<String>,
    /// Names or ids of machines. The targets are these and the machines that have the `tags`; or `all`, alone.
    #[serde(default)]
    pub machines: Vec<String>,
    /// Machines that have every one of these tags.
    #[serde(default)]
    pub tags: Vec<Tag>,
    /// Every machine of the tenant.
    #[serde(default)]
    pub all: bool,
    /// Of these machines, or of all where none is named, those for which this expression over facts and tags holds:
    /// docs/targets.md.
    #[serde(default, rename = "where", skip_serializing_if = "Option::is_none")]
    #[schema(example = "os == \"linux\" and tag.role == \"web\"")]
    pub condition: Option<String>,
    /// Go to machines too that match `tags`, `all` or `where` only later, each once, until the job expires. Those that are named
    /// are fixed when it is made.
    #[serde(default, skip_serializing_if = "is_false")]
    pub include_later: bool,
    /// The user; the machine's default where absent.
    #[serde(default)]
    pub run_as: Option<String>,
    /// Names are unique.
    #[serde(default)]
    pub parameters: Vec<Variable>,
    /// Names are unique.
    #[serde(default)]
    pub environment: Vec<Variable>,
    /// Blobs that were uploaded before.
    #[serde(default)]
    pub attachments: Vec<AttachmentRef>,
    /// Names of secrets. The script finds the value of each in a file that `SLUICE_SECRET_<NAME>` names. Needs the permission
    /// `UseSecret`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub secrets: Vec<String>,
    /// Absent ones are the machine's to choose.
    #[serde(default)]
    pub limits: JobLimits,
    /// `standard` or `strict`: keep at least so much of the machine from the script. Its owner may keep more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "strict")]
    pub confinement: Option<Confinement>,
    /// How long the job may wait before it starts.
    #[serde(default)]
    #[schema(value_type = Option<String>, example = "1h")]
    pub expires: Option<Span>,
    /// Fail at once on machines that are not connected.
    #[serde(default)]
    pub no_queue: bool,
    /// Names of maintenance windows: outside of them nothing of the job starts. Of several one must be open.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub windows: Vec<String>,
    /// Start outside of the maintenance windows of the machines. Needs the permission `IgnoreWindows`.
    #[serde(default, skip_serializing_if = "is_false")]
    pub ignore_windows: bool,
    /// Start in batches: cumulative numbers or percentages of the machines, separated by commas. Each is above the one
    /// before, and the last means all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = "1, 10%, 50%, 100%")]
    pub batches: Option<String>,
    /// Have no more operations of the job open at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_concurrency: Option<u64>,
    /// Pause once so many operations have ended otherwise than as succeeded: a number, a percentage of the operations in the
    /// batches that have begun, or `never`. Where `batches` are given and this is not, the first failure pauses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = "10%")]
    pub stop_on_failures: Option<String>,
    /// Pause once so many operations have ended as timed out, in the same way; `never` where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop_on_timeouts: Option<String>,
    /// Pause once so many machines went away after they had started the script and did not come back, in the same way; `never`
    /// where absent. A batch waits for machines of those before that are away.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop_on_dark: Option<String>,
    /// How long a machine is away when it counts for `stop_on_dark`; five minutes where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "5m")]
    pub dark_after: Option<Span>,
    /// Pause once there are so many groups of results that the first batch did not have, in the same way; `never` where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop_on_new_groups: Option<String>,
    /// A key that this job has in common with others: what waits of older jobs with the key on the machines of this one, and
    /// was never sent, is canceled when this one is accepted. Letters, digits, `-`, `_` and `.`, at most 120. What another
    /// token submitted needs `RemoteExecution` on that machine; where that is missing, no job is made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = "patch")]
    pub supersede: Option<String>,
    /// On each machine one after the other with all that is in order there: it starts when what was accepted before it has
    /// ended, whatever way. What is held keeps nobody waiting, and gets its place back when it is released.
    #[serde(default, skip_serializing_if = "is_false")]
    pub in_order: bool,
    /// Whose variables the script expects besides our own.
    #[serde(default)]
    pub compat: Option<Compat>,
    /// Leave out scanners that the host bound. Needs the permission `SkipSecurityScan`.
    #[serde(default)]
    pub no_security_scan: bool,
}

fn is_false(value: &bool) -> bool {
    !*value
}

/// A tag of a machine.
#[derive(
    Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, utoipa::ToSchema,
)]
#[serde(deny_unknown_fields)]
pub struct Tag {
    /// The name.
    pub key: String,
    /// The value.
    pub value: String,
}

/// A parameter or an environment variable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Variable {
    /// The name.
    pub name: String,
    /// The value, as text; the script's declaration gives it a type.
    pub value: String,
}

/// A file that comes with the script.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AttachmentRef {
    /// A single safe path component.
    pub name: String,
    /// Of the blob.
    #[schema(value_type = String)]
    pub sha256: Digest,
    /// In bytes.
    pub size: u64,
}

/// Limits, as asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct JobLimits {
    /// How long the script may run.
    #[serde(default)]
    #[schema(value_type = Option<String>, example = "30s")]
    pub time: Option<Span>,
    /// How much output is kept.
    #[serde(default)]
    #[schema(value_type = Option<String>, example = "1MiB")]
    pub output: Option<ByteSize>,
    /// How much memory its processes may have.
    #[serde(default)]
    #[schema(value_type = Option<String>, example = "512MiB")]
    pub memory: Option<ByteSize>,
}

/// Another product whose scripts run here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Compat {
    /// The `LANDSCAPE_*` variables.
    Landscape,
}

/// A job and its operations. The answer to `POST /v1/jobs` (201) and `GET /v1/jobs/{job}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Job {
    /// Its id.
    #[schema(value_type = String)]
    pub job: JobId,
    /// The tenant's name.
    pub tenant: String,
    /// Who asked.
    pub operator: String,
    /// RFC 3339.
    pub submitted_at: String,
    /// Of the bytes submitted.
    #[schema(value_type = String)]
    pub script_sha256: Digest,
    /// The script of the library that it runs; null where the request brought the text.
    #[serde(default)]
    pub script: Option<ScriptUsed>,
    /// How far its rollout is; null where it has none.
    #[serde(default)]
    pub rollout: Option<Rollout>,
    /// Whose approval it waits or waited for; null where it was below every threshold.
    #[serde(default)]
    pub approval: Option<JobApproval>,
    /// The job of which this one runs what was blocked there until another operator approved it; null for others.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    pub approves: Option<JobId>,
    /// Who approved that.
    #[serde(default)]
    pub approved_by: Option<String>,
    /// The key of jobs of which only the newest is to run; null where it has none.
    #[serde(default)]
    pub supersede: Option<String>,
    /// Whether its operations start one after the other with all that are in order on their machines.
    #[serde(default)]
    pub in_order: bool,
    /// What becomes of machines that match its selector only later; null where its machines were fixed when it was made.
    #[serde(default)]
    pub later: Option<Later>,
    /// One for each target, in the order of the request; then those that joined, as they came.
    pub operations: Vec<OperationSummary>,
}

/// `GET /v1/jobs`: which jobs, and which part of their list. A job is listed where everything that is asked for holds;
/// machine, state and status are those of one operation of it.
#[derive(
    Debug,
    Clone,
    PartialEq,
    Eq,
    Default,
    Serialize,
    Deserialize,
    utoipa::ToSchema,
    utoipa::IntoParams,
)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct JobQuery {
    /// `next` of the part before. Jobs that are made meanwhile move nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
    /// How many at most; the host has a ceiling of its own. With a filter a part may have fewer, also where another follows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
    /// The tenant's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// Only jobs with an operation in this state, for example `running` or `timed-out`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// Only jobs with an operation that ended so: `success`, `failed`, `blocked` or `error`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<String>,
    /// Only jobs with an operation on this machine: its name, or its id, which also finds a revoked one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub machine: Option<String>,
    /// Only jobs that ran a version of this script of the library.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub script: Option<String>,
    /// Only jobs that this operator submitted, or a schedule of theirs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operator: Option<String>,
    /// Only jobs submitted at this time or later; RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
    /// Only jobs submitted before this time; RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<String>,
}

/// A job in a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct JobSummary {
    /// Its id.
    #[schema(value_type = String)]
    pub job: JobId,
    /// The tenant's name.
    pub tenant: String,
    /// Who asked.
    pub operator: String,
    /// RFC 3339.
    pub submitted_at: String,
    /// Of the bytes submitted.
    #[schema(value_type = String)]
    pub script_sha256: Digest,
    /// The script of the library that it runs; null where the request brought the text.
    #[serde(default)]
    pub script: Option<ScriptUsed>,
    /// How many operations it has.
    pub operations: u64,
    /// How many of them have ended.
    pub ended: u64,
    /// How many of them succeeded.
    pub succeeded: u64,
    /// Until when machines that match its selector only later may join it, RFC 3339; null where none may.
    #[serde(default)]
    pub open_until: Option<String>,
}

/// An operation in a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct OperationSummary {
    /// Its id.
    #[schema(value_type = String)]
    pub operation: OperationId,
    /// The machine's name, or what was typed where there is none of that name.
    pub machine: String,
    /// Where it is.
    #[schema(value_type = String)]
    pub state: State,
    /// What it came to, once it has ended.
    #[schema(value_type = Option<String>)]
    pub status: Option<Status>,
    /// For people, once it has ended.
    pub message: Option<String>,
    /// The script's, 128+n for signal n, -1 where no process ended; null while it has not ended.
    pub exit_code: Option<i32>,
    /// What it waits for where it has not started, the nearest first; and where its machine is gone since, that.
    #[serde(default)]
    pub why: Vec<Reason>,
}

/// `POST /v1/jobs/{job}/approve`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ApproveJob {
    /// Names or ids of machines on which it was blocked; all of them where there are none.
    #[serde(default)]
    pub machines: Vec<String>,
    /// How long what is approved may wait for its machine, or, of a job that is held, how long this approval counts while others
    /// are missing: a day where absent, seven at most.
    #[serde(default)]
    #[schema(value_type = Option<String>, example = "1h")]
    pub expires: Option<Span>,
    /// Of a job that is held: what is approved, as `approval.digest` of the job said. Where that has changed since, nothing is
    /// approved.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    pub digest: Option<Digest>,
}

/// `POST /v1/jobs/halt`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct HaltJobs {
    /// The tenant's name; that of the query where absent, and the operator's own where that has none.
    #[serde(default)]
    pub tenant: Option<String>,
}

/// The answer to `POST /v1/jobs/{job}/cancel` and `POST /v1/jobs/halt`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Canceled {
    /// How many operations had not ended and were told to.
    pub canceled: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_needs_only_a_script_and_refuses_unknown_fields() {
        let request: SubmitJob = serde_json::from_str(
            r#"{"script":"aGk=","machines":["web-1"],"limits":{"time":"30s"}}"#,
        )
        .expect("reads");
        assert_eq!(request.script.map(|script| script.0), Some(b"hi".to_vec()));
        assert_eq!(request.limits.time, Some(Span::seconds(30)));
        for wrong in [
            r#"{"script":"aGk=","machine":"web-1"}"#,
            r#"{"script":"aGk=","limits":{"tme":"30s"}}"#,
            r#"{"script":"aGk=","limits":{"time":30}}"#,
            r#"{"script":"aGk=","tags":[{"key":"a","value":"b","c":1}]}"#,
            r#"{"script":"aGk=","compat":"puppet"}"#,
            r#"{"script_ref":{"name":"a","versoin":1}}"#,
            r#"{"script_ref":{"version":1}}"#,
        ] {
            assert!(serde_json::from_str::<SubmitJob>(wrong).is_err(), "{wrong}");
        }
    }
}
