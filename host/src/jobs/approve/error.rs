//! Why nothing was approved.

use sluice_protocol::digest::Digest;
use sluice_protocol::ending::State;
use sluice_protocol::ids::JobId;

use crate::clock::UnixMillis;
use crate::jobs::SubmitError;
use crate::operators::{AuthenticationError, Denied};
use crate::store::StoreError;

/// Why an operation cannot be approved.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotOpen {
    /// No policy asked for that.
    #[error("{machine} has nothing of this job that waits for an approval (it is {state}, and no policy asked for one); nothing was approved", state = state.as_str())]
    NotBlocked {
        /// The machine's name.
        machine: String,
        /// Where the operation is.
        state: State,
    },
    /// One approval, one operation.
    #[error(
        "what was blocked on {machine} was approved before, and an approval is used once (job {job}); nothing was approved"
    )]
    Before {
        /// The machine's name.
        machine: String,
        /// The job that was made then.
        job: JobId,
    },
    /// Nobody remembers what it was about.
    #[error(
        "what was blocked on {machine} could be approved until {until}; nothing was approved, have it submitted again"
    )]
    Late {
        /// The machine's name.
        machine: String,
        /// Until when.
        until: UnixMillis,
    },
}

/// Nothing was approved, and no job was made.
#[derive(Debug, thiserror::Error)]
pub enum ApproveError {
    /// A permission is missing.
    #[error(transparent)]
    Denied(#[from] Denied),
    /// Unknown, or another tenant's: the answer is the same.
    #[error("there is no such job; nothing was approved (sluice job list)")]
    NoJob,
    /// It would run on all of its machines at once.
    #[error(
        "this job runs in batches, and what is approved would run on all machines at once; nothing was approved, have it submitted again without batches for the machines that are meant"
    )]
    Rollout,
    /// By the same operator.
    #[error(
        "{0} submitted this job, and nobody approves their own; nothing was approved, another operator with ApproveJobs has to"
    )]
    Own(String),
    /// By a token that the submitter has made, or that comes by a grant from the same operator of the provider.
    #[error(
        "the token of {approver} comes from {submitter}, who submitted this job, or both from one grant, and nobody approves their own; nothing was approved, an operator whose token somebody else made has to"
    )]
    Made {
        /// Who wanted to approve.
        approver: String,
        /// Who submitted.
        submitter: String,
    },
    /// A machine that the job is not for.
    #[error("{} is no machine of this job (sluice job show); nothing was approved", .0.escape_debug())]
    NoMachine(String),
    /// Nothing that waits for it.
    #[error(transparent)]
    NotOpen(#[from] NotOpen),
    /// It would run as nobody.
    #[error(
        "who submitted this job may not run it any more: {0}; nothing was approved, have another operator submit it"
    )]
    Submitter(AuthenticationError),
    /// The machine was revoked.
    #[error(
        "the machine {0} is no machine of the fleet any more; nothing was approved, name the others with --machine"
    )]
    Gone(String),
    /// Not what was blocked.
    #[error(
        "what would run on {machine} now is not what was blocked there (its bundle is {bundle_sha256}): gates have changed since; nothing was approved, have it submitted again"
    )]
    Changed {
        /// The machine's name.
        machine: String,
        /// Of what would run.
        bundle_sha256: Digest,
    },
    /// It does not wait as a whole.
    #[error(
        "this job does not wait for approvals (it was approved, denied, canceled or has expired, or never did); nothing was done (sluice job show)"
    )]
    NotWaiting,
    /// It waits as a whole.
    #[error(
        "this job waits for approvals as a whole, and some of its machines cannot be approved alone; nothing was approved, leave the machines out"
    )]
    Part,
    /// It is over.
    #[error(
        "this job waited for approvals until {0}; nothing was approved, have it submitted again"
    )]
    WaitedLong(UnixMillis),
    /// Something else than what was seen.
    #[error(
        "what there is to approve of this job is not what was seen (it is {0} now): its gates or machines have changed since; nothing was approved (sluice job show)"
    )]
    Digest(Digest),
    /// Once counts once.
    #[error("{0} has approved this job already, and counts once; nothing was changed")]
    Again(String),
    /// Two who may be one person.
    #[error(
        "the token of {approver} and that of {other}, who has approved this job already, come from each other, and count once; nothing was approved, an operator whose token neither made has to"
    )]
    OneWith {
        /// Who wanted to approve.
        approver: String,
        /// Who has.
        other: String,
    },
    /// The job cannot be made.
    #[error(transparent)]
    Submit(#[from] SubmitError),
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
}
