//! The host's clock: wall time in whole milliseconds. Only the edges of the program read it; what decides takes the time
//! as an argument.
//!
//! A running host has one [`Clock`], which whoever starts it hands in: the program the system's, always, and tests one that
//! they move. By that one everything is planned, released, expired and put on the record. Certificates are looked at by the
//! system's, as their other ends do, and what is measured (how long something is away, or took) by one that nobody sets.

use std::fmt;
use std::time::{Duration, UNIX_EPOCH};

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use sluice_protocol::units::Span;
use sluice_transport::surroundings;

/// What time it is, and waiting for a time.
pub trait Clock: fmt::Debug + Send + Sync {
    /// Now.
    fn now(&self) -> UnixMillis;

    /// Waits until it shows `until`, for whoever has looked at it last when it showed `looked`, and for ever where there is no
    /// such time; but no longer than `at_most`. May end earlier where the clock was set since then.
    fn wait(
        &self,
        looked: UnixMillis,
        until: Option<UnixMillis>,
        at_most: Duration,
    ) -> BoxFuture<'static, ()>;
}

/// The system's clock. One that is set says so to nobody, so whoever waits for it looks at it now and then (`at_most`).
#[derive(Debug, Clone, Copy)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> UnixMillis {
        UnixMillis::now()
    }

    fn wait(
        &self,
        _looked: UnixMillis,
        until: Option<UnixMillis>,
        at_most: Duration,
    ) -> BoxFuture<'static, ()> {
        let left = until.map(|until| until.0.saturating_sub(self.now().0));
        let left = left.map(|left| Duration::from_millis(u64::try_from(left).unwrap_or(0)));
        tokio::time::sleep(left.map_or(at_most, |left| left.min(at_most))).boxed()
    }
}

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
    use std::path::{Path, PathBuf};

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

    /// The text of every file below `folder`, tests apart.
    fn sources(folder: &Path, found: &mut Vec<(PathBuf, String)>) {
        for entry in std::fs::read_dir(folder).expect("reads") {
            let path = entry.expect("reads").path();
            if path.is_dir() {
                sources(&path, found);
            } else if !path.ends_with("tests.rs") {
                let text = std::fs::read_to_string(&path).expect("reads");
                let product = text.split("#[cfg(test)]").next().unwrap_or_default();
                found.push((path, product.to_owned()));
            }
        }
    }

    #[test]
    fn a_running_host_goes_by_the_clock_that_it_was_given_alone() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        let mut files = Vec::new();
        sources(&folder, &mut files);
        let naming = |words: &[&str]| {
            let names = files
                .iter()
                .filter(|(_, text)| words.iter().any(|word| text.contains(word)))
                .map(|(path, _)| path.strip_prefix(&folder).expect("is below").to_owned());
            let mut names: Vec<_> = names.collect();
            names.sort();
            names
        };
        // What is set up before a host runs is by the system's.
        assert_eq!(
            naming(&["UnixMillis::now()"]),
            ["clock.rs", "main.rs"].map(Path::new)
        );
        // Certificates are.
        assert_eq!(
            naming(&["SystemTime::now()", "Timestamp::now()", "Zoned::now()"]),
            ["link/enroll.rs", "link/session.rs", "tls.rs"].map(Path::new)
        );
    }
}
