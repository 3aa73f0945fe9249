//! What is due: the function that decides, of a schedule's rules, what it has settled, and the time. No clock, no I/O.
//!
//! A planned time is *settled* once it is known what becomes of it. Everything up to [`Settled::until`] is, and what has
//! run beyond that; where the host's clock was ahead of the time and was set back, there are such runs, and they are not
//! repeated.

use std::collections::BTreeSet;

use sha2::{Digest as _, Sha256};
use sluice_api_types::schedule::OnMissed;
use sluice_protocol::ids::ScheduleId;
use sluice_protocol::units::Span;

use super::Timing;
use crate::clock::UnixMillis;

/// A run that is this late is still on time: a host that is started anew has not missed it.
pub const ON_TIME: Span = Span::seconds(5 * 60);
/// The most runs that are made up for.
pub const MOST_AT_ONCE: usize = 100;
/// How far missed runs are counted; beyond that there are "more".
const COUNTED: usize = 1000;

/// What decides when a schedule runs.
#[derive(Debug, Clone, PartialEq)]
pub struct Rules {
    /// When it is planned.
    pub timing: Timing,
    /// How much later it may start.
    pub jitter: Jitter,
    /// What becomes of what was missed.
    pub missed: OnMissed,
}

/// Spreads the runs of different schedules: each is later than planned by a part of `at_most` that is the same however
/// often it is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Jitter {
    /// Whose runs.
    pub schedule: ScheduleId,
    /// How much later at most.
    pub at_most: Span,
}

impl Jitter {
    /// When what is planned for `planned` is due.
    #[must_use]
    pub fn due(&self, planned: UnixMillis) -> UnixMillis {
        let hash = Sha256::new()
            .chain_update(self.schedule.to_string())
            .chain_update(planned.0.to_be_bytes())
            .finalize();
        let number = hash
            .iter()
            .take(8)
            .fold(0_u64, |number, byte| number << 8 | u64::from(*byte));
        planned.plus(Span(number % self.at_most.0.saturating_add(1)))
    }
}

/// What is known of a schedule's planned times.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settled {
    /// Everything planned up to here.
    pub until: UnixMillis,
    /// What is planned later and has run, or is about to.
    pub beyond: BTreeSet<UnixMillis>,
}

/// What is to be done now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Due {
    /// To be run, the oldest first.
    pub runs: Vec<Run>,
    /// Passed over.
    pub missed: Option<Missed>,
    /// Everything planned up to here is settled with that.
    pub settled: UnixMillis,
    /// When there is something to do again.
    pub next: Option<Next>,
}

/// A run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    /// When it was planned.
    pub planned: UnixMillis,
    /// Whether it makes up for one that was missed.
    pub late: bool,
}

/// Runs that are passed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Missed {
    /// When the last of them was planned.
    pub last: UnixMillis,
    /// How many there are.
    pub count: u64,
    /// Whether there are more than were counted.
    pub more: bool,
}

/// The next run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Next {
    /// When it is planned.
    pub planned: UnixMillis,
    /// When it is due.
    pub due: UnixMillis,
}

/// What is due at `now`.
#[must_use]
pub fn due(rules: &Rules, settled: &Settled, now: UnixMillis) -> Due {
    // A clock that was set back: what is planned between now and then has not happened, except for what has.
    let until = settled.until.min(now);
    let (mut planned, more) = rules.timing.between(until, now, COUNTED);
    planned.retain(|run| !settled.beyond.contains(run));
    let due = planned
        .iter()
        .take_while(|run| rules.jitter.due(**run) <= now)
        .count();
    let waiting = planned.split_off(due);
    let next = waiting
        .first()
        .copied()
        .or_else(|| next_planned(rules, &settled.beyond, now));
    let until = planned.last().map_or(until, |last| until.max(*last));
    let late = |run: &UnixMillis| now > rules.jitter.due(*run).plus(ON_TIME);
    let run = |planned: &UnixMillis| Run {
        planned: *planned,
        late: late(planned),
    };
    let keep = match (rules.missed, planned.last()) {
        (_, None) => 0,
        (OnMissed::Skip, Some(last)) => usize::from(!late(last)),
        (OnMissed::Once, Some(_)) => 1,
        (OnMissed::All, Some(_)) => planned.len().min(MOST_AT_ONCE),
    };
    let kept = planned.split_off(planned.len() - keep);
    Due {
        runs: kept.iter().map(run).collect(),
        missed: planned.last().map(|last| Missed {
            last: *last,
            count: planned.len() as u64,
            more,
        }),
        settled: until,
        next: next.map(|planned| Next {
            planned,
            due: rules.jitter.due(planned),
        }),
    }
}

/// The next `count` runs that are not settled.
pub fn upcoming(rules: &Rules, settled: &Settled, now: UnixMillis) -> impl Iterator<Item = Next> {
    let from = settled.until.min(now);
    std::iter::successors(next_planned(rules, &settled.beyond, from), |run| {
        next_planned(rules, &settled.beyond, *run)
    })
    .map(|planned| Next {
        planned,
        due: rules.jitter.due(planned),
    })
}

fn next_planned(
    rules: &Rules,
    beyond: &BTreeSet<UnixMillis>,
    after: UnixMillis,
) -> Option<UnixMillis> {
    let mut run = rules.timing.next_after(after)?;
    while beyond.contains(&run) {
        run = rules.timing.next_after(run)?;
    }
    Some(run)
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::schedules::Zone;

    const MINUTE: i64 = 60_000;
    const HOUR: i64 = 60 * MINUTE;
    const DAY: i64 = 24 * HOUR;

    fn at(text: &str) -> UnixMillis {
        UnixMillis(text.parse::<Timestamp>().expect("a time").as_millisecond())
    }

    fn rules(cron: &str, zone: &str, missed: OnMissed) -> Rules {
        let zone = Zone::read(zone).expect("a zone");
        let timing =
            Timing::calendar(cron, zone, at("2026-01-01T00:00:00Z")).expect("an expression");
        Rules {
            timing,
            jitter: Jitter {
                schedule: ScheduleId::generate(),
                at_most: Span(0),
            },
            missed,
        }
    }

    /// A schedule, a clock that can be set, and what has run.
    struct Simulation {
        rules: Rules,
        settled: Settled,
        next: Option<Next>,
        ran: Vec<UnixMillis>,
        missed: u64,
        looks: usize,
    }

    impl Simulation {
        fn start(rules: Rules, now: UnixMillis) -> Self {
            let settled = Settled {
                until: now,
                beyond: BTreeSet::new(),
            };
            let next = due(&rules, &settled, now).next;
            Self {
                rules,
                settled,
                next,
                ran: Vec::new(),
                missed: 0,
                looks: 0,
            }
        }

        /// Looks at the clock once, and does what is due, as the driver does.
        fn look(&mut self, now: UnixMillis) {
            self.looks += 1;
            let ran = self.ran.iter().copied();
            self.settled.beyond = ran
                .filter(|run| *run > self.settled.until.min(now))
                .collect();
            let due = due(&self.rules, &self.settled, now);
            self.ran.extend(due.runs.iter().map(|run| run.planned));
            self.missed += due.missed.map_or(0, |missed| missed.count);
            self.settled.until = due.settled;
            self.next = due.next;
            assert!(
                due.next.is_none_or(|next| next.due > now),
                "what is due is never left for later"
            );
        }

        /// Sleeps from one run to the next until `end`.
        fn run_until(&mut self, end: UnixMillis) {
            while let Some(next) = self.next.filter(|next| next.due <= end) {
                self.look(next.due);
            }
        }

        fn has_doubled(&self) -> bool {
            let unique: BTreeSet<_> = self.ran.iter().collect();
            unique.len() != self.ran.len()
        }
    }

    #[test]
    fn a_nightly_schedule_runs_on_each_of_the_365_days_of_a_year_wherever_clocks_change() {
        for zone in ["Europe/Berlin", "America/New_York"] {
            for cron in ["0 2 * * *", "30 2 * * *", "30 1 * * *", "59 23 * * *"] {
                let start = at("2026-01-01T12:00:00Z");
                let mut year = Simulation::start(rules(cron, zone, OnMissed::All), start);
                year.run_until(UnixMillis(start.0 + 365 * DAY));
                let days: BTreeSet<String> = year
                    .ran
                    .iter()
                    .map(|run| year.rules.timing.zone().show(*run)[..10].to_owned())
                    .collect();
                assert_eq!(
                    (year.ran.len(), days.len(), year.looks, year.missed),
                    (365, 365, 365, 0),
                    "{cron} in {zone}"
                );
            }
        }
    }

    #[test]
    fn whenever_the_host_stops_and_starts_no_run_is_skipped_or_doubled() {
        // Cut-offs from a small generator, so that a failure is one that comes again.
        let mut seed = 0x5eed_u64;
        for missed in [OnMissed::All, OnMissed::Once] {
            let start = at("2026-03-01T00:00:00Z");
            let mut plan = Simulation::start(rules("*/30 * * * *", "Europe/Berlin", missed), start);
            let mut now = start;
            let mut rested = 0_u64;
            for _ in 0..500 {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                now = UnixMillis(now.0 + i64::try_from(seed >> 33).expect("fits") % (6 * HOUR));
                plan.look(now);
                rested += 1;
            }
            let planned = std::iter::successors(plan.rules.timing.next_after(start), |run| {
                plan.rules.timing.next_after(*run)
            })
            .take_while(|run| *run <= now)
            .count() as u64;
            assert!(!plan.has_doubled() && rested > 0);
            assert_eq!(plan.ran.len() as u64 + plan.missed, planned, "{missed:?}");
            assert_eq!(plan.missed == 0, missed == OnMissed::All);
        }
    }

    #[test]
    fn a_clock_that_jumps_back_an_hour_repeats_nothing() {
        let start = at("2026-05-01T00:00:00Z");
        let mut plan = Simulation::start(rules("*/10 * * * *", "UTC", OnMissed::All), start);
        plan.run_until(at("2026-05-01T10:00:00Z"));
        let before = plan.ran.len();
        plan.look(at("2026-05-01T09:00:01Z"));
        plan.run_until(at("2026-05-01T10:00:00Z"));
        assert_eq!(plan.ran.len(), before, "these have run");
        plan.run_until(at("2026-05-01T11:00:00Z"));
        assert_eq!((plan.ran.len(), plan.has_doubled()), (before + 6, false));
    }

    #[test]
    fn a_clock_that_was_a_year_ahead_costs_no_run_once_it_is_right_again() {
        for (missed, made_up) in [
            (OnMissed::Skip, 0),
            (OnMissed::Once, 1),
            (OnMissed::All, 100),
        ] {
            let start = at("2026-05-01T12:00:00Z");
            let mut plan = Simulation::start(rules("0 3 * * *", "UTC", missed), start);
            plan.look(UnixMillis(start.0 + 365 * DAY));
            assert_eq!(plan.ran.len(), made_up, "{missed:?}");
            assert_eq!(plan.missed, 365 - made_up as u64, "{missed:?}");
            plan.look(UnixMillis(start.0 + MINUTE));
            assert_eq!(plan.ran.len(), made_up);
            plan.run_until(UnixMillis(start.0 + 10 * DAY));
            assert_eq!(plan.ran.len(), made_up + 10, "{missed:?}");
            plan.run_until(UnixMillis(start.0 + 366 * DAY));
            assert!(!plan.has_doubled(), "{missed:?}");
            assert_eq!(plan.ran.len(), 366, "each day once, {missed:?}");
        }
    }

    #[test]
    fn what_was_missed_is_skipped_made_up_for_once_or_all_of_it_within_bounds() {
        let until = at("2026-06-01T00:00:00Z");
        let settled = Settled {
            until,
            beyond: BTreeSet::new(),
        };
        let now = UnixMillis(until.0 + 3 * HOUR + 30 * MINUTE);
        let of = |missed| due(&rules("0 * * * *", "UTC", missed), &settled, now);
        let hour = |n: i64| UnixMillis(until.0 + n * HOUR);
        let late = |n| Run {
            planned: hour(n),
            late: true,
        };
        let missed = |n, count| {
            Some(Missed {
                last: hour(n),
                count,
                more: false,
            })
        };
        let skip = of(OnMissed::Skip);
        assert_eq!((skip.runs, skip.missed), (vec![], missed(3, 3)));
        let once = of(OnMissed::Once);
        assert_eq!((once.runs, once.missed), (vec![late(3)], missed(2, 2)));
        let all = of(OnMissed::All);
        assert_eq!(
            (all.runs, all.missed),
            (vec![late(1), late(2), late(3)], None)
        );
        assert_eq!(
            (all.settled, all.next.map(|next| next.due)),
            (hour(3), Some(hour(4)))
        );
        // A year of minutes: bounded, and it is said that there was more.
        let year = UnixMillis(until.0 + 365 * DAY);
        let all = due(&rules("* * * * *", "UTC", OnMissed::All), &settled, year);
        let left = all.missed.expect("too many");
        assert_eq!(
            (all.runs.len(), left.count, left.more, all.settled),
            (MOST_AT_ONCE, 900, true, year)
        );
    }

    #[test]
    fn a_run_that_is_a_little_late_is_on_time() {
        let until = at("2026-06-01T00:30:00Z");
        let settled = Settled {
            until,
            beyond: BTreeSet::new(),
        };
        let rules = rules("0 * * * *", "UTC", OnMissed::Skip);
        let planned = at("2026-06-01T01:00:00Z");
        let on_time = due(&rules, &settled, planned.plus(ON_TIME));
        assert_eq!((on_time.runs.len(), on_time.runs[0].late), (1, false));
        let too_late = due(&rules, &settled, planned.plus(Span(ON_TIME.0 + 1)));
        assert_eq!(
            (
                too_late.runs.len(),
                too_late.missed.map(|missed| missed.count)
            ),
            (0, Some(1))
        );
    }

    #[test]
    fn jitter_delays_within_its_bound_and_always_by_the_same() {
        let start = at("2026-06-01T00:00:00Z");
        let mut rules = rules("0 * * * *", "UTC", OnMissed::Skip);
        rules.jitter.at_most = Span::seconds(600);
        let again = rules.clone();
        let mut plan = Simulation::start(rules, start);
        let mut delays = BTreeSet::new();
        for hour in 1..=200 {
            let planned = UnixMillis(start.0 + hour * HOUR);
            let due_at = again.jitter.due(planned);
            assert!((planned..=planned.plus(Span::seconds(600))).contains(&due_at));
            delays.insert(due_at.0 - planned.0);
            plan.look(planned);
            if due_at > planned {
                assert_eq!(plan.next.map(|next| next.due), Some(due_at));
                assert!(!plan.ran.contains(&planned), "not before its time");
            }
            plan.look(due_at);
            assert_eq!(plan.ran.last(), Some(&planned));
        }
        assert!(delays.len() > 100, "they are spread");
        assert_eq!((plan.ran.len(), plan.missed), (200, 0));
    }

    #[test]
    fn a_schedule_for_one_moment_runs_once() {
        let start = at("2026-06-01T00:00:00Z");
        let mut once = rules("0 * * * *", "UTC", OnMissed::Once);
        once.timing = Timing::once("2026-06-01T06:00:00Z", None, start).expect("is fine");
        let mut plan = Simulation::start(once, start);
        plan.look(at("2026-06-01T05:59:59Z"));
        assert!(plan.ran.is_empty());
        plan.run_until(at("2027-06-01T00:00:00Z"));
        assert_eq!((plan.ran.len(), plan.next), (1, None));
        plan.look(at("2026-06-01T01:00:00Z"));
        plan.run_until(at("2027-06-01T00:00:00Z"));
        assert_eq!(plan.ran.len(), 1, "a clock that goes back changes nothing");
    }

    #[test]
    fn the_next_runs_leave_out_what_has_run() {
        let start = at("2026-06-01T00:00:00Z");
        let rules = rules("0 3 * * *", "UTC", OnMissed::Once);
        let settled = Settled {
            until: start,
            beyond: [at("2026-06-02T03:00:00Z")].into(),
        };
        let next: Vec<_> = upcoming(&rules, &settled, start)
            .take(3)
            .map(|next| next.planned)
            .collect();
        assert_eq!(
            next,
            [
                at("2026-06-01T03:00:00Z"),
                at("2026-06-03T03:00:00Z"),
                at("2026-06-04T03:00:00Z")
            ]
        );
    }
}
