//! The host's clock: wall time in whole milliseconds. Only the edges of the program read it; what decides takes the time
//! as an argument.

use std::fmt;
use std::time::UNIX_EPOCH;

use sluice_protocol::units::Span;
use sluice_transport::surroundings;

/// Milliseconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnixMillis(pub i64);

impl UnixMillis {
    /// Now, by the system's clock.
    #[must_use]
    pub fn now() -> Self {
        let elapsed = surroundings::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        Self(i64::try_from(elapsed.as_millis()).unwrap_or(i64::MAX))
    }

    /// This much later.
    #[must_use]
    pub fn plus(self, span: Span) -> Self {
        Self(
            self.0
                .saturating_add(i64::try_from(span.0).unwrap_or(i64::MAX)),
        )
    }

    /// The same in the protocol's messages. Times before 1970 do not occur there.
    #[must_use]
    pub fn to_wire(self) -> u64 {
        u64::try_from(self.0).unwrap_or(0)
    }

    /// A machine's time, as its messages have it.
    #[must_use]
    pub fn from_wire(millis: u64) -> Self {
        Self(i64::try_from(millis).unwrap_or(i64::MAX))
    }
}

impl fmt::Display for UnixMillis {
    /// RFC 3339 in UTC with milliseconds. What lies outside of the years that RFC 3339 knows is written as its nearest
    /// end: such times come only from a machine's clock.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const LAST: i64 = 253_402_207_199_999;
        let stamp =
            jiff::Timestamp::from_millisecond(self.0.clamp(0, LAST)).map_err(|_| fmt::Error)?;
        write!(f, "{stamp:.3}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_rfc_3339() {
        assert_eq!(UnixMillis(0).to_string(), "1970-01-01T00:00:00.000Z");
        assert_eq!(
            UnixMillis(1_795_000_000_123).to_string(),
            "2026-11-18T11:06:40.123Z"
        );
        assert!(UnixMillis(i64::MAX).to_string().starts_with("9999-"));
        assert!(UnixMillis(-5).to_string().starts_with("1970-"));
    }

    #[test]
    fn sums_do_not_wrap() {
        assert_eq!(
            UnixMillis(i64::MAX - 1).plus(Span(u64::MAX)),
            UnixMillis(i64::MAX)
        );
    }
}
