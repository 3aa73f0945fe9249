//! What is asked, read into types: a schedule that gets past here runs, unless something changes until then.

use sluice_api_types::job::SubmitJob;
use sluice_api_types::schedule::{AddSchedule, OnMissed, OnOverlap};
use sluice_protocol::ids::ScheduleId;
use sluice_protocol::units::Span;

use super::{Timing, TimingError, Zone};
use crate::clock::UnixMillis;
use crate::fleet::is_plain_name;

/// How often one machine has a run at an event, where nothing is said.
const AT_MOST_EVERY: Span = Span::seconds(3600);
/// The longest jitter of a schedule that runs once.
const LONGEST_JITTER: Span = Span::seconds(24 * 3600);

/// A request for a schedule that makes sense, as far as the schedule goes.
#[derive(Debug, Clone, PartialEq)]
pub struct Planned {
    /// What it is called.
    pub name: String,
    /// When it runs.
    pub timing: Timing,
    /// How much later than planned a run may start.
    pub jitter: Span,
    /// What becomes of missed runs.
    pub missed: OnMissed,
    /// What becomes of a run while the one before has not ended.
    pub overlap: OnOverlap,
    /// What is submitted.
    pub job: SubmitJob,
}

impl Planned {
    /// Reads a request.
    ///
    /// # Errors
    ///
    /// The first thing that is wrong with it.
    pub fn read(request: AddSchedule, now: UnixMillis) -> Result<Self, PlanError> {
        if !is_name(&request.name) {
            return Err(PlanError::Name(request.name));
        }
        let zone = request.zone.as_deref().map(Zone::read).transpose()?;
        let is_event = request.event.is_some();
        if request.at_most_every.is_some() && !is_event {
            return Err(PlanError::PauseOfNothing);
        }
        if is_event && request.job.include_later {
            return Err(PlanError::LaterOfEvent);
        }
        let is_timed = zone.is_some() || request.jitter.is_some();
        let has_rules =
            request.missed != OnMissed::default() || request.overlap != OnOverlap::default();
        if is_event && (is_timed || has_rules) {
            return Err(PlanError::RulesOfEvent);
        }
        let timing = match (request.at, request.cron, request.every, request.event) {
            (Some(at), None, None, None) => Timing::once(&at, zone, now)?,
            (None, Some(cron), None, None) => {
                Timing::calendar(&cron, zone.unwrap_or(Zone::UTC), now)?
            }
            (None, None, Some(_), None) if zone.is_some() => {
                return Err(PlanError::ZoneOfInterval);
            }
            (None, None, Some(every), None) => Timing::every(every, now)?,
            (None, None, None, Some(event)) => {
                Timing::event(event, request.at_most_every.unwrap_or(AT_MOST_EVERY))?
            }
            _ => return Err(PlanError::When),
        };
        let jitter = request.jitter.unwrap_or_default();
        let longest = timing.shortest_gap(now).unwrap_or(LONGEST_JITTER);
        if jitter > longest {
            return Err(PlanError::Jitter { jitter, longest });
        }
        Ok(Self {
            name: request.name,
            timing,
            jitter,
            missed: request.missed,
            overlap: request.overlap,
            job: request.job,
        })
    }
}

/// Plain, and not to be taken for an id.
fn is_name(name: &str) -> bool {
    name.len() <= 64 && is_plain_name(name) && name.parse::<ScheduleId>().is_err()
}

/// A request for a schedule that makes no sense.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// It would be shown in messages and the audit log.
    #[error("{} is no name for a schedule (1 to 64 letters, digits and - _ ., the first a letter or digit)", .0.escape_debug())]
    Name(String),
    /// Contradictory, or nothing.
    #[error("give one of at, cron, every and event, which say when the script runs")]
    When,
    /// Nothing happens.
    #[error("at_most_every is for an event: what runs by the clock says how often")]
    PauseOfNothing,
    /// They are about planned times.
    #[error(
        "zone, jitter, missed and overlap are for planned times: what runs at an event runs then, and not while the run before has not ended on the machine"
    )]
    RulesOfEvent,
    /// There is one machine.
    #[error(
        "include_later is for planned times: what runs at an event runs on the machine that it happens to"
    )]
    LaterOfEvent,
    /// An interval is the same everywhere.
    #[error("a zone is for at and cron: an interval is as long in every zone")]
    ZoneOfInterval,
    /// The next run would come first.
    #[error(
        "the jitter cannot be {jitter}: runs are {longest} apart at the least, and stay in order"
    )]
    Jitter {
        /// As asked.
        jitter: Span,
        /// The bound.
        longest: Span,
    },
    /// It would never run, or nobody can say when.
    #[error(transparent)]
    Timing(#[from] TimingError),
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixMillis = UnixMillis(1_795_000_000_000);

    fn request(change: impl FnOnce(&mut AddSchedule)) -> Result<Planned, String> {
        let mut request = AddSchedule {
            name: "nightly".to_owned(),
            at: None,
            cron: None,
            zone: None,
            every: None,
            event: None,
            at_most_every: None,
            jitter: None,
            missed: OnMissed::default(),
            overlap: OnOverlap::default(),
            job: SubmitJob::default(),
        };
        change(&mut request);
        Planned::read(request, NOW).map_err(|error| error.to_string())
    }

    #[test]
    fn one_of_three_says_when() {
        let minutes = |n: u64| Some(Span::seconds(n * 60));
        let when = "one of at, cron, every and event";
        assert!(request(|_| ()).expect_err("nothing").contains(when));
        let both = request(|r| {
            r.every = minutes(5);
            r.cron = Some("@daily".to_owned());
        });
        assert!(both.expect_err("both").contains(when));
        request(|r| r.every = minutes(5)).expect("is fine");
        let zone = request(|r| {
            r.every = minutes(5);
            r.zone = Some("UTC".to_owned());
        });
        assert!(zone.expect_err("a zone").contains("in every zone"));
        let cron = request(|r| r.cron = Some("@daily".to_owned())).expect("is fine");
        assert_eq!(cron.timing.zone(), Zone::UTC);
    }

    #[test]
    fn jitter_keeps_runs_in_order() {
        let with = |cron: &str, jitter| {
            request(|r| {
                r.cron = Some(cron.to_owned());
                r.jitter = Some(Span::seconds(jitter));
            })
        };
        with("0 * * * *", 3600).expect("just so");
        let error = with("0 * * * *", 3601).expect_err("too long");
        assert!(
            error.contains("cannot be 3601s") && error.contains("1h apart"),
            "{error}"
        );
        // The shortest of the gaps counts.
        with("0,10 * * * *", 601).expect_err("too long");
        let once = request(|r| {
            r.at = Some("2027-01-01T00:00:00Z".to_owned());
            r.jitter = Some(Span::seconds(86_401));
        });
        assert!(once.expect_err("too long").contains("1d"));
    }

    #[test]
    fn names_are_plain_and_no_ids() {
        let id = ScheduleId::generate().to_string();
        for name in [
            "",
            "-x",
            "a b",
            "a/b",
            "ä",
            "a\u{202e}b",
            &"a".repeat(65),
            id.as_str(),
        ] {
            let error = request(|r| {
                r.name = name.to_owned();
                r.every = Some(Span::seconds(60));
            });
            assert!(error.expect_err(name).contains("is no name"), "{name:?}");
        }
    }
}
