//! What is said on stderr of a job that does not go on by itself, or goes on.

use sluice_api_types::approval::ApprovalState;
use sluice_api_types::job::Job;
use sluice_api_types::rollout::{Rollout, RolloutState};
use sluice_protocol::ids::JobId;

/// What is said of a job that waits for other operators.
pub(crate) fn waits(job: &Job) -> Option<String> {
    let approval = job.approval.as_ref()?;
    (approval.state == ApprovalState::Waiting).then(|| {
        format!(
            "sluice: job {id} waits for {approval}; they approve it with sluice job approve {id}",
            id = job.job
        )
    })
}

/// What is said of a job that others may join.
pub(crate) fn joins(job: &Job) -> Option<String> {
    let later = job
        .later
        .as_ref()
        .filter(|later| later.closed_at.is_none())?;
    Some(format!(
        "sluice: job {id} goes to machines that match later too, until {until}; end it with sluice job cancel {id}",
        id = job.job,
        until = later.until
    ))
}

/// What is said of a rollout: which batch has begun, and why it does not go on.
pub(crate) fn goes(job: JobId, rollout: &Rollout) -> Option<String> {
    match (rollout.state, &rollout.paused) {
        (RolloutState::Paused, Some(paused)) => Some(format!(
            "sluice: {paused}; {} operations are held, go on with sluice job resume {job} or end it with sluice job cancel {job}",
            rollout.held
        )),
        // As long as everything is held, none has begun: it waits for approvals.
        (RolloutState::Running, _)
            if rollout.of > 1 && Some(&rollout.held) != rollout.batches.last() =>
        {
            Some(format!(
                "sluice: batch {} of {} has begun",
                rollout.batch, rollout.of
            ))
        }
        _ => None,
    }
}
