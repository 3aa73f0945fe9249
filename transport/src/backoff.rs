//! When to try again: full jitter over a doubling bound.
//!
//! A fleet that loses its host comes back all at once. With full jitter the attempts spread over the whole bound, which
//! does the least work in total ("Exponential Backoff And Jitter", AWS Architecture Blog, 2015).

use std::time::Duration;

/// The bound of the first wait.
pub const BASE: Duration = Duration::from_millis(250);
/// No wait is longer, so that a host that is back is noticed within a minute.
pub const CAP: Duration = Duration::from_secs(60);

/// How many attempts have failed in a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Backoff {
    failures: u32,
}

impl Backoff {
    /// No attempt has failed yet.
    #[must_use]
    pub const fn new() -> Self {
        Self { failures: 0 }
    }

    /// So many attempts have failed that the bound grows no more.
    #[must_use]
    pub const fn longest() -> Self {
        Self { failures: u32::MAX }
    }

    /// Another attempt has failed: how long to wait, for 64 random bits. Between nothing and the bound.
    pub fn next(&mut self, random: u64) -> Duration {
        let bound = self.bound();
        self.failures = self.failures.saturating_add(1);
        let nanos = (bound.as_nanos() * u128::from(random)) >> 64;
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    /// An attempt went well, and the link held for a while: start over.
    pub const fn reset(&mut self) {
        self.failures = 0;
    }

    fn bound(self) -> Duration {
        // 2^8 times the base is over the cap.
        BASE.saturating_mul(1 << self.failures.min(8)).min(CAP)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_spread_over_a_bound_that_doubles_up_to_the_cap() {
        let mut backoff = Backoff::new();
        let longest: Vec<u128> = (0..10)
            .map(|_| backoff.next(u64::MAX).as_millis())
            .collect();
        assert_eq!(
            longest,
            [249, 499, 999, 1999, 3999, 7999, 15999, 31999, 59999, 59999]
        );
        assert_eq!(backoff.next(0), Duration::ZERO);
        assert_eq!(backoff.next(1 << 63), CAP / 2);
        for _ in 0..100 {
            assert!(backoff.next(u64::MAX) <= CAP);
        }
        backoff.reset();
        assert_eq!(backoff.next(1 << 63), BASE / 2);
    }
}
