//! When a schedule runs: once, at an interval, or by a cron expression in a time zone. A planned time is a fact of the
//! schedule alone; no clock is read here.
//!
//! Where a zone's clocks go forward, what is planned in the hour that is missing runs once, right behind it; where they go
//! back, a run at a fixed time of the day happens once, in the first of the two hours. A cron expression whose minute or
//! hour is a wildcard follows the time that passes.

use std::collections::VecDeque;
use std::fmt;

use croner::Cron;
use croner::parser::{CronParser, Seconds, Year};
use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned, civil};
use sluice_api_types::schedule::MachineEvent;
use sluice_protocol::units::Span;

use crate::clock::UnixMillis;

/// The shortest interval.
const SHORTEST: Span = Span::seconds(60);
/// The longest interval, and the furthest that `at` may lie ahead.
const LONGEST: Span = Span::seconds(366 * 24 * 3600);
/// The longest cron expression, in bytes.
const LONGEST_EXPRESSION: usize = 200;
/// How far back it is looked at first for runs that were missed.
const FIRST_STRETCH: Span = Span::seconds(3600);
/// How many runs are looked at to find the shortest time between two.
const LOOKED_AT: usize = 100;

/// When a schedule runs.
#[derive(Debug, Clone, PartialEq)]
pub enum Timing {
    /// Once, then never again.
    Once {
        /// When.
        at: UnixMillis,
        /// In which it is shown.
        zone: Zone,
    },
    /// Again and again, counted from one moment on.
    Every {
        /// The time between two runs.
        interval: Span,
        /// The first run is one interval later.
        from: UnixMillis,
    },
    /// By a calendar.
    Calendar {
        /// The expression.
        expression: Box<Expression>,
        /// Whose clocks are meant.
        zone: Zone,
    },
    /// When something happens to a machine, whenever that is.
    Event {
        /// What.
        event: MachineEvent,
        /// The least time between two runs on one machine.
        at_most_every: Span,
    },
}

/// A time zone by its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Zone(TimeZone);

impl Zone {
    /// Coordinated universal time.
    pub const UTC: Self = Self(TimeZone::UTC);

    /// The zone of this name, such as `Europe/Berlin`.
    ///
    /// # Errors
    ///
    /// There is none.
    pub fn read(name: &str) -> Result<Self, TimingError> {
        // The database of zones also knows files that are no zone of anybody's, and "whatever this computer has".
        let known = name.len() <= 64 && !name.eq_ignore_ascii_case("localtime");
        known
            .then(|| TimeZone::get(name).ok())
            .flatten()
            .filter(|zone| zone.iana_name().is_some())
            .map(Self)
            .ok_or_else(|| TimingError::Zone(name.to_owned()))
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.0.iana_name().unwrap_or("UTC")
    }

    /// A moment as its clocks show it: RFC 9557, such as `2026-11-22T03:00:00+01:00[Europe/Berlin]`.
    #[must_use]
    pub fn show(&self, at: UnixMillis) -> String {
        self.at(at)
            .map_or_else(|| at.to_string(), |zoned| zoned.to_string())
    }

    /// What its clocks show; none beyond all calendars.
    #[must_use]
    pub fn clock(&self, at: UnixMillis) -> Option<civil::DateTime> {
        self.at(at).map(|zoned| zoned.datetime())
    }

    /// When its clocks are changed next.
    #[must_use]
    pub fn next_change(&self, after: UnixMillis) -> Option<UnixMillis> {
        let stamp = Timestamp::from_millisecond(after.0).ok()?;
        let change = self.0.following(stamp).next()?;
        Some(UnixMillis(change.timestamp().as_millisecond()))
    }

    fn at(&self, at: UnixMillis) -> Option<Zoned> {
        let stamp = Timestamp::from_millisecond(at.0).ok()?;
        Some(stamp.to_zoned(self.0.clone()))
    }
}

/// A cron expression of five fields (minute, hour, day of the month, month, day of the week), or a nickname such as
/// `@daily`.
#[derive(Debug, Clone, PartialEq)]
pub struct Expression {
    text: String,
    cron: Cron,
}

impl Expression {
    /// Reads an expression.
    ///
    /// # Errors
    ///
    /// It is none.
    pub fn read(text: &str) -> Result<Self, TimingError> {
        let wrong = |reason: String| TimingError::Cron {
            text: text.chars().take(LONGEST_EXPRESSION).collect(),
            reason,
        };
        if text.len() > LONGEST_EXPRESSION {
            return Err(wrong(format!(
                "it has more than {LONGEST_EXPRESSION} bytes"
            )));
        }
        let cron = CronParser::builder()
            .seconds(Seconds::Disallowed)
            .year(Year::Disallowed)
            .build()
            .parse(text)
            .map_err(|error| wrong(error.to_string().trim_end_matches('.').to_owned()))?;
        Ok(Self {
            text: text.trim().to_owned(),
            cron,
        })
    }

    /// The first time that it matches behind the second in which a clock shows `after`, on a clock that is never changed.
    #[must_use]
    pub fn next_on_clock(&self, after: civil::DateTime) -> Option<civil::DateTime> {
        let second = after.with().subsec_nanosecond(0).build().ok()?;
        let zoned = second.to_zoned(TimeZone::UTC).ok()?;
        let found = self.cron.find_next_occurrence(&zoned, false).ok()?;
        Some(found.datetime()).filter(|found| *found > second)
    }
}

impl fmt::Display for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Timing {
    /// One run at `text`: RFC 3339 with an offset, or the time that a zone's clocks show.
    ///
    /// # Errors
    ///
    /// It is no time, or one that is over, or one that the zone's clocks never show, or show twice.
    pub fn once(text: &str, zone: Option<Zone>, now: UnixMillis) -> Result<Self, TimingError> {
        let no_time = || TimingError::At(text.chars().take(100).collect());
        let at = match (text.parse::<Timestamp>(), &zone) {
            (Ok(stamp), _) => stamp,
            (Err(_), None) => {
                return Err(if text.parse::<civil::DateTime>().is_ok() {
                    TimingError::NoZone(text.to_owned())
                } else {
                    no_time()
                });
            }
            (Err(_), Some(zone)) => {
                let civil: civil::DateTime = text.parse().map_err(|_| no_time())?;
                zone.0
                    .to_ambiguous_zoned(civil)
                    .unambiguous()
                    .map_err(|_| TimingError::Ambiguous {
                        text: text.to_owned(),
                        zone: zone.name().to_owned(),
                    })?
                    .timestamp()
            }
        };
        let at = UnixMillis(at.as_millisecond());
        if at <= now {
            return Err(TimingError::Past { at, now });
        }
        if at > now.plus(LONGEST) {
            return Err(TimingError::TooFar(at));
        }
        Ok(Self::Once {
            at,
            zone: zone.unwrap_or(Zone::UTC),
        })
    }

    /// A run after each `interval` from `from` on.
    ///
    /// # Errors
    ///
    /// The interval is too short or too long.
    pub fn every(interval: Span, from: UnixMillis) -> Result<Self, TimingError> {
        if (SHORTEST..=LONGEST).contains(&interval) {
            Ok(Self::Every { interval, from })
        } else {
            Err(TimingError::Interval(interval))
        }
    }

    /// A run on each machine that it happens to.
    ///
    /// # Errors
    ///
    /// The time between two runs is too short or too long.
    pub fn event(event: MachineEvent, at_most_every: Span) -> Result<Self, TimingError> {
        if (SHORTEST..=LONGEST).contains(&at_most_every) {
            Ok(Self::Event {
                event,
                at_most_every,
            })
        } else {
            Err(TimingError::Interval(at_most_every))
        }
    }

    /// Runs by a cron expression.
    ///
    /// # Errors
    ///
    /// It is none, or nothing ever matches it.
    pub fn calendar(text: &str, zone: Zone, now: UnixMillis) -> Result<Self, TimingError> {
        let timing = Self::Calendar {
            expression: Box::new(Expression::read(text)?),
            zone,
        };
        match timing.next_after(now) {
            Some(_) => Ok(timing),
            None => Err(TimingError::Never(text.to_owned())),
        }
    }

    /// The first planned time after `after`.
    #[must_use]
    pub fn next_after(&self, after: UnixMillis) -> Option<UnixMillis> {
        match self {
            Self::Event { .. } => None,
            Self::Once { at, .. } => (*at > after).then_some(*at),
            Self::Every { interval, from } => {
                let (passed, interval) = (after.0.saturating_sub(from.0), millis(*interval));
                let count = passed.div_euclid(interval).saturating_add(1).max(1);
                from.0
                    .checked_add(count.checked_mul(interval)?)
                    .map(UnixMillis)
            }
            Self::Calendar { expression, zone } => {
                let found = expression
                    .cron
                    .find_next_occurrence(&zone.at(after)?, false);
                found
                    .ok()
                    .map(|zoned| UnixMillis(zoned.timestamp().as_millisecond()))
                    .filter(|found| *found > after)
            }
        }
    }

    /// What is planned after `after` and up to `until`, the oldest first: the latest `most`, and whether there are more.
    #[must_use]
    pub fn between(
        &self,
        after: UnixMillis,
        until: UnixMillis,
        most: usize,
    ) -> (Vec<UnixMillis>, bool) {
        let mut runs = VecDeque::new();
        // Backward in stretches that grow, and forward within each: the latest are wanted, and looking backward through
        // changed clocks is not something that every calendar gets right.
        let (mut end, mut stretch) = (until, FIRST_STRETCH);
        while end > after && runs.len() <= most {
            let start = after.max(UnixMillis(end.0.saturating_sub(millis(stretch))));
            let mut of_stretch = VecDeque::new();
            let mut run = self.next_after(start);
            while let Some(planned) = run.filter(|planned| *planned <= end) {
                of_stretch.push_back(planned);
                if of_stretch.len() > most + 1 {
                    of_stretch.pop_front();
                }
                run = self.next_after(planned);
            }
            of_stretch.append(&mut runs);
            runs = of_stretch;
            (end, stretch) = (start, Span(stretch.0.saturating_mul(2)));
        }
        let more = runs.len() > most;
        let surplus = runs.len().saturating_sub(most);
        (runs.into_iter().skip(surplus).collect(), more)
    }

    /// The shortest time between two runs, as far as the next runs after `now` show it; none where there is but one run.
    #[must_use]
    pub fn shortest_gap(&self, now: UnixMillis) -> Option<Span> {
        if let Self::Every { interval, .. } = self {
            return Some(*interval);
        }
        let runs: Vec<_> =
            std::iter::successors(self.next_after(now), |after| self.next_after(*after))
                .take(LOOKED_AT)
                .collect();
        runs.windows(2)
            .map(|pair| Span(pair[1].0.abs_diff(pair[0].0)))
            .min()
    }

    /// In which its times are shown.
    #[must_use]
    pub fn zone(&self) -> Zone {
        match self {
            Self::Once { zone, .. } | Self::Calendar { zone, .. } => zone.clone(),
            Self::Every { .. } | Self::Event { .. } => Zone::UTC,
        }
    }
}

fn millis(span: Span) -> i64 {
    i64::try_from(span.0).unwrap_or(i64::MAX)
}

/// A schedule would never run, or nobody can say when.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TimingError {
    /// Not a time.
    #[error("{} is no time (expected the form 2026-11-22T03:00:00+01:00, or 2026-11-22T03:00 with a zone)", .0.escape_debug())]
    At(String),
    /// Whose three o'clock?
    #[error("{0} says no offset from UTC: add one, such as Z or +01:00, or give a zone")]
    NoZone(String),
    /// The clocks jump over it, or show it twice.
    #[error(
        "{text} is no single moment in {zone}, where clocks change then: give an offset from UTC"
    )]
    Ambiguous {
        /// As given.
        text: String,
        /// Its name.
        zone: String,
    },
    /// Over.
    #[error("{at} is in the past: it is {now} on the host")]
    Past {
        /// As given.
        at: UnixMillis,
        /// By the host's clock.
        now: UnixMillis,
    },
    /// Too far ahead.
    #[error("{0} is more than {LONGEST} ahead")]
    TooFar(UnixMillis),
    /// Not an interval to run scripts at.
    #[error("the interval cannot be {0} (at least {SHORTEST}, at most {LONGEST})")]
    Interval(Span),
    /// Not a cron expression.
    #[error("{} is no cron expression of five fields: {}", text.escape_debug(), reason.escape_debug())]
    Cron {
        /// As given.
        text: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A day that no calendar has.
    #[error("nothing ever matches the cron expression {}: it would never run, give a day that its months have", .0.escape_debug())]
    Never(String),
    /// Not a zone.
    #[error("there is no time zone {} (expected a name such as Europe/Berlin)", .0.escape_debug())]
    Zone(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> UnixMillis {
        UnixMillis(text.parse::<Timestamp>().expect("a time").as_millisecond())
    }

    fn cron(text: &str, zone: &str) -> Timing {
        let zone = Zone::read(zone).expect("a zone");
        Timing::calendar(text, zone, at("2026-01-01T00:00:00Z")).expect("an expression")
    }

    /// The next runs as the zone's clocks show them, without the year and the zone's name.
    fn next(timing: &Timing, after: &str, count: usize) -> Vec<String> {
        std::iter::successors(timing.next_after(at(after)), |run| timing.next_after(*run))
            .take(count)
            .map(|run| timing.zone().show(run)[5..22].to_owned())
            .collect()
    }

    #[test]
    fn a_fixed_time_in_the_hour_that_is_missing_runs_once_behind_it() {
        assert_eq!(
            next(
                &cron("30 2 * * *", "Europe/Berlin"),
                "2026-03-28T00:00:00Z",
                3
            ),
            [
                "03-28T02:30:00+01",
                "03-29T03:00:00+02",
                "03-30T02:30:00+02"
            ]
        );
        assert_eq!(
            next(
                &cron("30 2 * * *", "America/New_York"),
                "2026-03-07T06:00:00Z",
                3
            ),
            [
                "03-07T02:30:00-05",
                "03-08T03:00:00-04",
                "03-09T02:30:00-04"
            ]
        );
    }

    #[test]
    fn a_fixed_time_in_the_hour_that_comes_twice_runs_in_the_first() {
        assert_eq!(
            next(
                &cron("30 2 * * *", "Europe/Berlin"),
                "2026-10-24T00:00:00Z",
                3
            ),
            [
                "10-24T02:30:00+02",
                "10-25T02:30:00+02",
                "10-26T02:30:00+01"
            ]
        );
        assert_eq!(
            next(
                &cron("30 1 * * *", "America/New_York"),
                "2026-10-31T04:00:00Z",
                3
            ),
            [
                "10-31T01:30:00-04",
                "11-01T01:30:00-04",
                "11-02T01:30:00-05"
            ]
        );
    }

    #[test]
    fn an_hourly_run_follows_the_time_that_passes() {
        assert_eq!(
            next(
                &cron("0 * * * *", "Europe/Berlin"),
                "2026-10-24T23:30:00Z",
                4
            ),
            [
                "10-25T02:00:00+02",
                "10-25T02:00:00+01",
                "10-25T03:00:00+01",
                "10-25T04:00:00+01"
            ]
        );
        assert_eq!(
            next(
                &cron("0 * * * *", "Europe/Berlin"),
                "2026-03-28T23:30:00Z",
                3
            ),
            [
                "03-29T01:00:00+01",
                "03-29T03:00:00+02",
                "03-29T04:00:00+02"
            ]
        );
    }

    #[test]
    fn the_leap_day_comes_every_four_years() {
        let runs = std::iter::successors(
            cron("0 12 29 2 *", "UTC").next_after(at("2026-01-01T00:00:00Z")),
            |run| cron("0 12 29 2 *", "UTC").next_after(*run),
        );
        let shown: Vec<_> = runs.take(2).map(|run| run.to_string()).collect();
        assert_eq!(
            shown,
            ["2028-02-29T12:00:00.000Z", "2032-02-29T12:00:00.000Z"]
        );
    }

    #[test]
    fn wherever_it_is_looked_from_the_runs_are_the_same() {
        let expressions = [
            "30 2 * * *",
            "*/17 1-3 * * *",
            "0 * * * *",
            "15,45 2,3 * 3,10,11 SUN",
        ];
        // From February to December: both changes of all zones.
        let (from, until) = (at("2026-02-20T00:00:00Z"), at("2026-12-01T00:00:00Z"));
        for zone in [
            "Europe/Berlin",
            "America/New_York",
            "UTC",
            "Australia/Lord_Howe",
        ] {
            for text in expressions {
                let timing = cron(text, zone);
                let runs: Vec<_> =
                    std::iter::successors(timing.next_after(from), |run| timing.next_after(*run))
                        .take_while(|run| *run <= until)
                        .collect();
                assert!(
                    runs.len() > 10 && runs.is_sorted_by(|a, b| a < b),
                    "{text} in {zone}"
                );
                let (found, more) = timing.between(from, until, usize::MAX - 1);
                assert!(found == runs && !more, "{text} in {zone}");
                let (latest, more) = timing.between(from, until, 7);
                assert!(latest == runs[runs.len() - 7..] && more, "{text} in {zone}");
                // Every 47 minutes, and a moment that is no whole second.
                for step in 0..8000_i64 {
                    let start = UnixMillis(from.0 + step * 47 * 60_000 + 1);
                    let next = runs.iter().find(|run| **run > start);
                    if start < until && next.is_some() {
                        assert_eq!(timing.next_after(start).as_ref(), next, "{text} in {zone}");
                    }
                }
            }
        }
    }

    #[test]
    fn an_interval_is_counted_from_its_beginning() {
        let timing = Timing::every(Span::seconds(90), UnixMillis(1_000)).expect("is fine");
        assert_eq!(timing.next_after(UnixMillis(0)), Some(UnixMillis(91_000)));
        assert_eq!(
            timing.next_after(UnixMillis(91_000)),
            Some(UnixMillis(181_000))
        );
        let between = |after, until| timing.between(UnixMillis(after), UnixMillis(until), 10);
        assert_eq!(between(0, 90_999), (vec![], false));
        assert_eq!(between(0, 91_000), (vec![UnixMillis(91_000)], false));
        assert_eq!(between(91_000, 181_000), (vec![UnixMillis(181_000)], false));
    }

    #[test]
    fn what_makes_no_sense_is_one_line_that_says_why() {
        let now = at("2026-11-21T12:00:00Z");
        let berlin = || Zone::read("europe/berlin").expect("a zone");
        assert_eq!(berlin().name(), "Europe/Berlin");
        let calendar = |text: &str| Timing::calendar(text, Zone::UTC, now);
        let once = |text: &str, zone| Timing::once(text, zone, now);
        let table = [
            (calendar("every day"), "is no cron expression"),
            (calendar(""), "is no cron expression"),
            (calendar("61 * * * *"), "is no cron expression"),
            (calendar("* * * * * *"), "is no cron expression"),
            (calendar("@reboot"), "is no cron expression"),
            (calendar(&"1,".repeat(200)), "more than 200 bytes"),
            (calendar("0 0 30 2 *"), "would never run"),
            (calendar("0 0 31 4,6,9,11 *"), "would never run"),
            (once("tomorrow", None), "is no time"),
            (once("2026-11-22T03:00", None), "says no offset"),
            (once("2026-11-21T12:00:00Z", None), "in the past"),
            (once("2026-11-21T12:30", Some(berlin())), "in the past"),
            (once("2038-01-01T00:00:00Z", None), "more than 366d ahead"),
            (once("2027-03-28T02:30", Some(berlin())), "no single moment"),
            (once("2027-10-31T02:30", Some(berlin())), "no single moment"),
            (Timing::every(Span(0), now), "cannot be 0ms"),
            (Timing::every(Span::seconds(59), now), "at least 1m"),
            (Timing::every(Span(u64::MAX), now), "at most 366d"),
        ];
        for (read, expected) in table {
            let error = read.expect_err(expected).to_string();
            assert!(
                error.contains(expected) && !error.contains('\n'),
                "expected {expected:?} in {error:?}"
            );
        }
        for zone in ["Mars/Olympus", "", "../etc/passwd", "localtime", "+01:00"] {
            let error = Zone::read(zone).expect_err(zone).to_string();
            assert!(error.contains("no time zone"), "{error}");
        }
    }
}
