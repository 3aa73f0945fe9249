//! `GET /v1/jobs/{job}/events`, and the answer to a submission that is followed: server-sent events. The stream starts with
//! what has happened already, so that a late follower misses nothing, and closes after `end`.

use serde::{Deserialize, Serialize};
use sluice_protocol::ending::State;
use sluice_protocol::ids::OperationId;
use sluice_protocol::message::operation::OutputStream;

use crate::bytes::Base64;

/// Event name of a [`Job`](crate::job::Job): the first in the answer to its submission.
pub const JOB: &str = "job";
/// Event name of [`StateEvent`].
pub const STATE: &str = "state";
/// Event name of [`OutputEvent`].
pub const OUTPUT: &str = "output";
/// Event name of an [`OperationResult`](crate::operation::OperationResult).
pub const RESULT: &str = "result";
/// Event name of a [`Rollout`](crate::rollout::Rollout): where that is now.
pub const ROLLOUT: &str = "rollout";
/// Event name of [`EndEvent`].
pub const END: &str = "end";

/// An operation is in another state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct StateEvent {
    /// Which one.
    #[schema(value_type = String)]
    pub operation: OperationId,
    /// The machine's name.
    pub machine: String,
    /// The new state.
    #[schema(value_type = String)]
    pub state: State,
}

/// A piece of output. Bytes between two pieces of a stream are lost. A piece without bytes says that the stream went on up
/// to there, and that those bytes are lost.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct OutputEvent {
    /// Of which operation.
    #[schema(value_type = String)]
    pub operation: OperationId,
    /// The machine's name.
    pub machine: String,
    /// `stdout` or `stderr`.
    #[schema(value_type = String)]
    pub stream: OutputStream,
    /// How many bytes of the stream the script wrote before.
    pub offset: u64,
    /// The bytes.
    pub data: Base64,
}

/// Every operation of the job has ended. Nothing follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, utoipa::ToSchema)]
pub struct EndEvent {}
