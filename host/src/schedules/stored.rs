//! Between a schedule's row and what decides when it runs.

use super::{Expression, Jitter, Rules, Settled, Timing, TimingError, Zone};
use crate::clock::UnixMillis;
use crate::store::schedules::{self, ScheduleRow, StoredTiming};
use crate::store::{Connection, StoreError};
use sluice_protocol::units::Span;

impl StoredTiming {
    /// As it is written down.
    #[must_use]
    pub fn of(timing: &Timing) -> Self {
        match timing {
            Timing::Once { at, zone } => Self::Once {
                at: at.0,
                zone: zone.name().to_owned(),
            },
            Timing::Every { interval, from } => Self::Every {
                interval: interval.0,
                from: from.0,
            },
            Timing::Event {
                event,
                at_most_every,
            } => Self::Event {
                event: *event,
                at_most_every: at_most_every.0,
            },
            Timing::Calendar { expression, zone } => Self::Calendar {
                expression: expression.to_string(),
                zone: zone.name().to_owned(),
            },
        }
    }

    /// What was written down.
    ///
    /// # Errors
    ///
    /// Another version of the program wrote it, or a zone is no longer known.
    pub fn read(&self) -> Result<Timing, TimingError> {
        Ok(match self {
            Self::Once { at, zone } => Timing::Once {
                at: UnixMillis(*at),
                zone: Zone::read(zone)?,
            },
            Self::Every { interval, from } => Timing::every(Span(*interval), UnixMillis(*from))?,
            Self::Event {
                event,
                at_most_every,
            } => Timing::event(*event, Span(*at_most_every))?,
            Self::Calendar { expression, zone } => Timing::Calendar {
                expression: Box::new(Expression::read(expression)?),
                zone: Zone::read(zone)?,
            },
        })
    }
}

impl ScheduleRow {
    /// What decides when it runs.
    ///
    /// # Errors
    ///
    /// As [`StoredTiming::read`].
    pub fn rules(&self) -> Result<Rules, TimingError> {
        Ok(Rules {
            timing: self.timing.read()?,
            jitter: Jitter {
                schedule: self.id,
                at_most: self.jitter,
            },
            missed: self.missed,
        })
    }

    /// What is known of its planned times at `now`.
    ///
    /// # Errors
    ///
    /// Where the database cannot be read.
    pub fn settled(&self, conn: &Connection, now: UnixMillis) -> Result<Settled, StoreError> {
        Ok(Settled {
            until: self.settled,
            beyond: schedules::ran_after(conn, self.id, self.settled.min(now))?,
        })
    }
}
