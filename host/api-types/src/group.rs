//! `/v1/jobs/{job}/groups`: what a job came to, with machines of the same result folded into one.

use serde::{Deserialize, Serialize};
use sluice_protocol::ending::State;
use sluice_protocol::ids::OperationId;

/// A job's operations, in groups of those with the same state, exit code, message and output: docs/folding.md says what
/// counts as the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Groups {
    /// How many operations the job has.
    pub operations: u64,
    /// The largest first.
    pub groups: Vec<Group>,
    /// How many groups are left out, because there are too many.
    pub more_groups: u64,
    /// How many operations those have.
    pub more_operations: u64,
}

/// Operations with the same result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Group {
    /// How many there are.
    pub count: u64,
    /// Where they are.
    #[schema(value_type = String)]
    pub state: State,
    /// The script's, as in a result; null while they have not ended.
    pub exit_code: Option<i32>,
    /// For people; that of the example. Null while they have not ended.
    pub message: Option<String>,
    /// The names of the first machines, in the order of the request.
    pub machines: Vec<String>,
    /// The first of them.
    pub example: Example,
    /// How the example's output differs from that of the largest group that has ended: unified, with what is left out of
    /// account replaced. Null for that group itself, and for what has not ended.
    pub diff: Option<String>,
    /// Whether `diff` is cut.
    pub diff_truncated: bool,
}

/// One operation of a group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Example {
    /// Its id.
    #[schema(value_type = String)]
    pub operation: OperationId,
    /// The machine's name, or what was typed.
    pub machine: String,
    /// The beginning of what it wrote, as UTF-8, lossy where it must be; empty while it has not ended.
    pub stdout: String,
    /// The same of standard error.
    pub stderr: String,
    /// Whether there is more of either.
    pub truncated: bool,
}
