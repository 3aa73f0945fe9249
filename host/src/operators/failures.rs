//! Tokens that are nobody's. Each is counted; the audit log gets one entry at a time, so that whoever guesses cannot fill
//! it.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use crate::clock::UnixMillis;

/// The time between two entries, in milliseconds.
const PAUSE: i64 = 1000;

/// How many such requests there were.
#[derive(Debug, Default)]
pub struct Failures {
    last: AtomicI64,
    since: AtomicU64,
}

impl Failures {
    /// Counts one at `now`. Where it is time for an entry, says how many there were since the last one.
    pub fn count(&self, now: UnixMillis) -> Option<u64> {
        let since = self.since.fetch_add(1, Ordering::Relaxed) + 1;
        let last = self.last.load(Ordering::Relaxed);
        let due = now.0.saturating_sub(last) >= PAUSE;
        (due && self
            .last
            .compare_exchange(last, now.0, Ordering::Relaxed, Ordering::Relaxed)
            .is_ok())
        .then(|| {
            self.since.fetch_sub(since, Ordering::Relaxed);
            since
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_one_entry_a_second_that_counts_them_all() {
        let failures = Failures::default();
        assert_eq!(failures.count(UnixMillis(10_000)), Some(1));
        for n in 0..500 {
            assert_eq!(failures.count(UnixMillis(10_000 + n)), None);
        }
        assert_eq!(failures.count(UnixMillis(11_000)), Some(501));
    }
}
