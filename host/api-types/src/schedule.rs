//! `/v1/schedules`: scripts that run by themselves.

use serde::{Deserialize, Serialize};
use sluice_protocol::bundle::Confinement;
use sluice_protocol::digest::Digest;
use sluice_protocol::ids::{JobId, ScheduleId};
use sluice_protocol::units::Span;

use crate::job::{SubmitJob, Tag};
use crate::script::ScriptRef;

/// `POST /v1/schedules`. One of `at`, `cron`, `every` and `event` says when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AddSchedule {
    /// What it is called; unique in its tenant until it is removed.
    pub name: String,
    /// Once: RFC 3339 with an offset, or with `zone` the time that its clocks show.
    #[serde(default)]
    #[schema(example = "2026-11-22T03:00:00+01:00")]
    pub at: Option<String>,
    /// By a cron expression of five fields.
    #[serde(default)]
    #[schema(example = "0 3 * * *")]
    pub cron: Option<String>,
    /// The time zone of `at` and `cron`; UTC where absent.
    #[serde(default)]
    #[schema(example = "Europe/Berlin")]
    pub zone: Option<String>,
    /// At an interval, counted from now on.
    #[serde(default)]
    #[schema(value_type = Option<String>, example = "6h")]
    pub every: Option<Span>,
    /// When this happens to one of its machines, on that one.
    #[serde(default)]
    pub event: Option<MachineEvent>,
    /// The least time between two runs at an event on one machine; an hour where absent. A machine that comes online more often
    /// has no run for that; one whose facts have changed more often has one when the time is over.
    #[serde(default)]
    #[schema(value_type = Option<String>, example = "1h")]
    pub at_most_every: Option<Span>,
    /// Each run starts later than planned by up to this.
    #[serde(default)]
    #[schema(value_type = Option<String>, example = "5m")]
    pub jitter: Option<Span>,
    /// What becomes of runs at whose time the host did not run.
    #[serde(default)]
    pub missed: OnMissed,
    /// What becomes of a run while the one before has not ended.
    #[serde(default)]
    pub overlap: OnOverlap,
    /// What is submitted each time. Its tags, or all, are looked up anew for each run; its attachments stay as they are.
    pub job: SubmitJob,
}

/// What may happen to a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum MachineEvent {
    /// It has joined the fleet; where somebody has to approve it, that was done.
    Enrolled,
    /// It has connected.
    Online,
    /// It says other facts about itself than before.
    FactsChanged,
}

impl MachineEvent {
    /// The word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Enrolled => "enrolled",
            Self::Online => "online",
            Self::FactsChanged => "facts-changed",
        }
    }

    /// The event with this word.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        [Self::Enrolled, Self::Online, Self::FactsChanged]
            .into_iter()
            .find(|event| event.as_str() == word)
    }
}

/// What becomes of runs at whose time the host did not run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum OnMissed {
    /// They are left out.
    Skip,
    /// One run makes up for them.
    #[default]
    Once,
    /// Each is made up for, the latest 100 at most.
    All,
}

/// What becomes of a run while the one before has not ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum OnOverlap {
    /// It is left out.
    #[default]
    Skip,
    /// It waits for the one before.
    Queue,
    /// The one before is canceled.
    Cancel,
}

/// Where a schedule is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum ScheduleState {
    /// It runs when it is time.
    Active,
    /// It does not run until it is resumed.
    Paused,
    /// Its last run was planned.
    Ended,
}

/// A schedule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Schedule {
    /// Its id.
    #[schema(value_type = String)]
    pub schedule: ScheduleId,
    /// Its name.
    pub name: String,
    /// The tenant's name.
    pub tenant: String,
    /// Whose it is: it runs with what this operator's token may do when it runs.
    pub operator: String,
    /// Where it is.
    pub state: ScheduleState,
    /// RFC 3339; null where it does not run once.
    pub at: Option<String>,
    /// The cron expression; null where it runs by none.
    pub cron: Option<String>,
    /// The interval; null where it has none.
    #[schema(value_type = Option<String>)]
    pub every: Option<Span>,
    /// What happens to a machine when it runs there; null where it runs by the clock.
    #[serde(default)]
    pub event: Option<MachineEvent>,
    /// The least time between two such runs on one machine; null where it runs by the clock.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    pub at_most_every: Option<Span>,
    /// The name of the time zone.
    pub zone: String,
    /// How much later than planned a run may start; null where it starts on time.
    #[schema(value_type = Option<String>)]
    pub jitter: Option<Span>,
    /// What becomes of runs at whose time the host did not run.
    pub missed: OnMissed,
    /// What becomes of a run while the one before has not ended.
    pub overlap: OnOverlap,
    /// RFC 3339.
    pub created_at: String,
    /// RFC 3339; null where it is not paused.
    pub paused_at: Option<String>,
    /// Who paused it; null where it is not paused.
    pub paused_by: Option<String>,
    /// The version of a stored script that it runs; null where the script was submitted with it.
    pub script: Option<ScriptRef>,
    /// Of the script's bytes.
    #[schema(value_type = String)]
    pub script_sha256: Digest,
    /// The machines that it names.
    pub machines: Vec<String>,
    /// The tags that its machines have when it runs.
    pub tags: Vec<Tag>,
    /// Whether it runs on every machine.
    pub all: bool,
    /// The expression that holds for its machines when it runs; null where there is none.
    #[serde(default, rename = "where")]
    pub condition: Option<String>,
    /// The user; that of the stored version, or the machine's default, where null.
    pub run_as: Option<String>,
    /// `standard` or `strict`: what is kept from the script at least; null where that is left to the stored version and
    /// the machine's owner.
    #[schema(value_type = Option<String>)]
    pub confinement: Option<Confinement>,
    /// The next three runs; fewer where it ends, none while it is paused.
    pub next: Vec<NextRun>,
    /// What became of the latest run; null before the first.
    pub last: Option<ScheduleRun>,
}

/// A run that is planned.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct NextRun {
    /// RFC 3339.
    pub planned_at: String,
    /// RFC 3339, with the jitter.
    pub due_at: String,
    /// When it is due, as the clocks of the schedule's zone show it (RFC 9557).
    #[schema(example = "2026-11-22T03:00:00+01:00[Europe/Berlin]")]
    pub local: String,
}

/// Where a run is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum RunState {
    /// It is due, and waits for the run before.
    Waiting,
    /// A job was made.
    Fired,
    /// No job was made.
    Missed,
}

/// What became of a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ScheduleRun {
    /// RFC 3339. Of several that were missed, the last; at an event, when that happened.
    pub planned_at: String,
    /// The machine to which something has happened; null where it runs by the clock.
    #[serde(default)]
    pub machine: Option<String>,
    /// Where it is.
    pub state: RunState,
    /// RFC 3339: when that was.
    pub at: String,
    /// The job; null where there is none.
    #[schema(value_type = Option<String>)]
    pub job: Option<JobId>,
    /// Why there is none, or why it is late; null where there is nothing to say.
    pub reason: Option<String>,
    /// How many planned runs this is about: more than one only where runs were missed.
    pub runs: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_needs_a_name_and_a_job_and_refuses_unknown_fields() {
        let request: AddSchedule =
            serde_json::from_str(r#"{"name":"n","every":"6h","job":{"script":"aGk=","all":true}}"#)
                .expect("reads");
        assert_eq!(
            (request.missed, request.overlap, request.every),
            (
                OnMissed::Once,
                OnOverlap::Skip,
                Some(Span::seconds(6 * 3600))
            )
        );
        for wrong in [
            r#"{"name":"n","job":{"script":"aGk="},"evry":"6h"}"#,
            r#"{"name":"n","job":{"script":"aGk="},"missed":"twice"}"#,
            r#"{"job":{"script":"aGk="}}"#,
            r#"{"name":"n"}"#,
        ] {
            assert!(
                serde_json::from_str::<AddSchedule>(wrong).is_err(),
                "{wrong}"
            );
        }
    }
}
