//! When a window is open: a fact of its calendar alone; no clock is read here.
//!
//! A window is open at a moment if the clocks of its zone show a time inside of one of its openings. So "Sundays from 02:00 to
//! 05:00" is what the clocks on the wall say, whatever they do: where they go forward over 02:00 it opens right behind the
//! missing hour and closes at 05:00; where they go back over it, both hours from 02:00 to 03:00 belong to it.

use jiff::SignedDuration;
use jiff::civil::DateTime;
use sluice_protocol::units::Span;

use crate::clock::UnixMillis;
use crate::schedules::{Expression, TimingError, Zone};

/// The shortest opening.
const SHORTEST: Span = Span::seconds(60);
/// The longest opening.
const LONGEST: Span = Span::seconds(7 * 24 * 3600);
/// How many openings are looked at to see that they do not overlap.
const LOOKED_AT: usize = 400;
/// How far a window that closes never is followed.
const FURTHEST: Span = Span::seconds(366 * 24 * 3600);
/// How many changes of a zone's clocks are looked through for an opening: some thirty years.
const MOST_CHANGES: usize = 64;

/// When a window opens and closes.
#[derive(Debug, Clone, PartialEq)]
pub struct Calendar {
    opens: Box<Expression>,
    lasts: Span,
    zone: Zone,
}

impl Calendar {
    /// One that opens by `cron` on the clocks of `zone`, and closes when they show `lasts` more.
    ///
    /// # Errors
    ///
    /// It would never open after `now`, or its openings would overlap.
    pub fn new(
        cron: &str,
        lasts: Span,
        zone: Zone,
        now: UnixMillis,
    ) -> Result<Self, CalendarError> {
        let calendar = Self::read(cron, lasts, zone)?;
        let runs = calendar.openings_on_clock(now);
        let gap = runs
            .windows(2)
            .filter_map(|pair| u64::try_from(pair[1].duration_since(pair[0]).as_millis()).ok())
            .min();
        if let Some(gap) = gap.map(Span).filter(|gap| *gap < lasts) {
            return Err(CalendarError::Overlaps { lasts, gap });
        }
        match calendar.opens(now) {
            Some(_) => Ok(calendar),
            None => Err(CalendarError::Never(cron.to_owned())),
        }
    }

    /// What was written down of one.
    ///
    /// # Errors
    ///
    /// Another version of the program wrote it, or a zone is no longer known.
    pub fn read(cron: &str, lasts: Span, zone: Zone) -> Result<Self, CalendarError> {
        if !(SHORTEST..=LONGEST).contains(&lasts) || !lasts.0.is_multiple_of(SHORTEST.0) {
            return Err(CalendarError::Lasts(lasts));
        }
        Ok(Self {
            opens: Box::new(Expression::read(cron)?),
            lasts,
            zone,
        })
    }

    /// The expression by which it opens.
    #[must_use]
    pub const fn cron(&self) -> &Expression {
        &self.opens
    }

    /// How much later it closes.
    #[must_use]
    pub const fn lasts(&self) -> Span {
        self.lasts
    }

    /// Whose clocks are meant.
    #[must_use]
    pub const fn zone(&self) -> &Zone {
        &self.zone
    }

    /// Whether it is open.
    #[must_use]
    pub fn is_open(&self, at: UnixMillis) -> bool {
        self.clock(at)
            .is_some_and(|clock| self.until_on_clock(clock).is_some())
    }

    /// The first moment from `from` on in which it is open; none where that is beyond all calendars.
    #[must_use]
    pub fn opens(&self, from: UnixMillis) -> Option<UnixMillis> {
        let mut at = from;
        for _ in 0..MOST_CHANGES {
            if self.is_open(at) {
                return Some(at);
            }
            let clock = self.clock(at)?;
            let opens = self.opens.next_on_clock(clock)?;
            let found = after(at, opens.duration_since(clock));
            // Behind a change of the clocks they show something else.
            match self.zone.next_change(at) {
                Some(change) if change <= found => at = change,
                _ => return Some(found),
            }
        }
        None
    }

    /// The first moment after `open` in which it is closed, where it is open then. One that is open for longer than a year
    /// has that as its end.
    #[must_use]
    pub fn closes(&self, open: UnixMillis) -> UnixMillis {
        let furthest = open.plus(FURTHEST);
        let mut at = open;
        while at < furthest {
            let Some(clock) = self.clock(at) else {
                return at;
            };
            let Some(until) = self.until_on_clock(clock) else {
                return at;
            };
            let found = after(at, until.duration_since(clock));
            at = match self.zone.next_change(at) {
                Some(change) if change <= found => change,
                _ => found,
            };
        }
        furthest
    }

    /// When the opening ends, on the clock, that a time on the clock belongs to.
    fn until_on_clock(&self, clock: DateTime) -> Option<DateTime> {
        let lasts = SignedDuration::from_millis(i64::try_from(self.lasts.0).ok()?);
        let begun = self.opens.next_on_clock(clock.checked_sub(lasts).ok()?)?;
        if begun > clock {
            return None;
        }
        begun.checked_add(lasts).ok()
    }

    fn openings_on_clock(&self, now: UnixMillis) -> Vec<DateTime> {
        let first = self
            .clock(now)
            .and_then(|clock| self.opens.next_on_clock(clock));
        std::iter::successors(first, |last| self.opens.next_on_clock(*last))
            .take(LOOKED_AT)
            .collect()
    }

    fn clock(&self, at: UnixMillis) -> Option<DateTime> {
        self.zone.clock(at)
    }
}

fn after(at: UnixMillis, wait: SignedDuration) -> UnixMillis {
    let millis = i64::try_from(wait.as_millis()).unwrap_or(i64::MAX);
    UnixMillis(at.0.saturating_add(millis))
}

/// A window would never be open, or nobody can say when.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CalendarError {
    /// No time to do anything in, or no window.
    #[error(
        "a window cannot be open for {0} (whole minutes, at least {SHORTEST}, at most {LONGEST})"
    )]
    Lasts(Span),
    /// It is not clear what closes it.
    #[error(
        "the openings overlap: it would be open for {lasts}, and opens again after {gap}; make them shorter, or one that is longer"
    )]
    Overlaps {
        /// How long it would be open.
        lasts: Span,
        /// The shortest time between two openings.
        gap: Span,
    },
    /// A day that no calendar has, or an hour that its clocks never show.
    #[error("nothing ever matches the cron expression {}: the window would never open", .0.escape_debug())]
    Never(String),
    /// No expression, or no zone.
    #[error(transparent)]
    Timing(#[from] TimingError),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> UnixMillis {
        let stamp: jiff::Timestamp = text.parse().expect("a time");
        UnixMillis(stamp.as_millisecond())
    }

    fn new(cron: &str, minutes: u64, zone: &str) -> Result<Calendar, CalendarError> {
        let zone = Zone::read(zone).expect("a zone");
        Calendar::new(
            cron,
            Span::seconds(minutes * 60),
            zone,
            at("2026-01-01T00:00:00Z"),
        )
    }

    fn berlin(cron: &str, minutes: u64) -> Calendar {
        new(cron, minutes, "Europe/Berlin").expect("a window")
    }

    /// The next openings after `from`, from and to, in UTC.
    fn openings(calendar: &Calendar, from: &str, count: usize) -> Vec<String> {
        let mut at = at(from);
        (0..count)
            .map(|_| {
                let opens = calendar.opens(at).expect("opens");
                let closes = calendar.closes(opens);
                assert!(calendar.is_open(opens) && !calendar.is_open(closes));
                assert!(calendar.is_open(UnixMillis(closes.0 - 1)));
                at = closes;
                format!("{opens}/{closes}").replace(":00.000Z", "")
            })
            .collect()
    }

    #[test]
    fn it_is_open_from_its_first_moment_on_and_closed_from_its_end_on() {
        let nights = berlin("0 2 * * *", 180);
        let (opens, closes) = (at("2026-11-27T01:00:00Z"), at("2026-11-27T04:00:00Z"));
        assert!(!nights.is_open(UnixMillis(opens.0 - 1)));
        assert!(nights.is_open(opens));
        assert!(nights.is_open(UnixMillis(closes.0 - 1)));
        assert!(!nights.is_open(closes));
        assert_eq!(nights.opens(UnixMillis(opens.0 - 1)), Some(opens));
        assert_eq!(nights.opens(opens), Some(opens));
        let within = UnixMillis(opens.0 + 1234);
        assert_eq!(nights.opens(within), Some(within));
        assert_eq!(nights.closes(within), closes);
        assert_eq!(nights.closes(closes), closes);
    }

    #[test]
    fn where_clocks_go_forward_it_opens_behind_the_missing_hour_and_closes_by_the_clock() {
        // 2026-03-29: at 02:00 it is 03:00, so that there are two hours of the three.
        let nights = berlin("0 2 * * *", 180);
        assert_eq!(
            openings(&nights, "2026-03-28T00:00:00Z", 3),
            [
                "2026-03-28T01:00/2026-03-28T04:00",
                "2026-03-29T01:00/2026-03-29T03:00",
                "2026-03-30T00:00/2026-03-30T03:00",
            ]
        );
        // One that lies within the missing hour is not there on that day.
        assert_eq!(
            openings(&berlin("15 2 * * *", 30), "2026-03-28T12:00:00Z", 1),
            ["2026-03-30T00:15/2026-03-30T00:45"]
        );
        // One that reaches into it closes where it begins, and one that begins in it opens where it ends.
        assert_eq!(
            openings(&berlin("30 1 29 3 *", 60), "2026-03-28T12:00:00Z", 1),
            ["2026-03-29T00:30/2026-03-29T01:00"]
        );
        assert_eq!(
            openings(&berlin("30 2 29 3 *", 60), "2026-03-28T12:00:00Z", 1),
            ["2026-03-29T01:00/2026-03-29T01:30"]
        );
    }

    #[test]
    fn where_clocks_go_back_both_hours_that_they_show_belong_to_it() {
        // 2026-10-25: at 03:00 it is 02:00 again, so that there are four hours.
        let nights = berlin("0 2 * * *", 180);
        assert_eq!(
            openings(&nights, "2026-10-24T12:00:00Z", 2),
            [
                "2026-10-25T00:00/2026-10-25T04:00",
                "2026-10-26T01:00/2026-10-26T04:00",
            ]
        );
        // One within the hour opens twice, and is closed in between.
        assert_eq!(
            openings(&berlin("15 2 * * *", 30), "2026-10-24T12:00:00Z", 3),
            [
                "2026-10-25T00:15/2026-10-25T00:45",
                "2026-10-25T01:15/2026-10-25T01:45",
                "2026-10-26T01:15/2026-10-26T01:45",
            ]
        );
        // Until two, the clocks go back behind it.
        assert_eq!(
            openings(&berlin("0 1 * * *", 60), "2026-10-24T12:00:00Z", 1),
            ["2026-10-24T23:00/2026-10-25T00:00"]
        );
    }

    #[test]
    fn the_leap_day_is_a_day_in_leap_years_alone() {
        let day = berlin("0 0 29 2 *", 24 * 60);
        assert_eq!(
            openings(&day, "2026-03-01T00:00:00Z", 2),
            [
                "2028-02-28T23:00/2028-02-29T23:00",
                "2032-02-28T23:00/2032-02-29T23:00",
            ]
        );
    }

    #[test]
    fn a_year_of_nights_is_looked_through_in_a_second_and_has_every_night_once() {
        let begun = std::time::Instant::now();
        let year = openings(&berlin("0 2 * * *", 180), "2026-01-01T12:00:00Z", 365);
        assert!(begun.elapsed() < std::time::Duration::from_secs(1));
        let days: std::collections::BTreeSet<_> = year.iter().map(|one| &one[..10]).collect();
        assert_eq!(days.len(), 365);
        assert_eq!(year.last().map(|one| &one[..10]), Some("2027-01-01"));
    }

    #[test]
    fn openings_that_adjoin_are_one_and_one_that_closes_never_has_an_end_in_a_year() {
        let halves = new("0 0,12 * * *", 12 * 60, "UTC").expect("a window");
        let now = at("2026-01-01T00:00:00Z");
        assert_eq!(halves.opens(now), Some(now));
        assert_eq!(halves.closes(now), now.plus(FURTHEST));
        let weekend = new("0 0 * * 6,0", 24 * 60, "UTC").expect("a window");
        assert_eq!(
            openings(&weekend, "2026-11-27T00:00:00Z", 1),
            ["2026-11-28T00:00/2026-11-30T00:00"]
        );
    }

    #[test]
    fn what_never_opens_overlaps_itself_or_lasts_no_time_is_refused() {
        let error = |cron, minutes| {
            new(cron, minutes, "UTC")
                .expect_err("is refused")
                .to_string()
        };
        assert!(error("0 0 30 2 *", 60).contains("never open"));
        assert!(
            error("0 * * * *", 61).contains("it would be open for 61m, and opens again after 1h")
        );
        assert!(error("0 0 * * *", 0).contains("cannot be open for 0"));
        assert!(error("0 0 1 * *", 8 * 24 * 60).contains("cannot be open for 8d"));
        assert!(error("tomorrow", 60).contains("is no cron expression"));
        new("0 * * * *", 60, "UTC").expect("just so");
    }
}
