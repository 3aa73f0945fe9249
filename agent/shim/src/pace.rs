//! How often the output is looked at. No I/O, and no clock: the time is an argument.
//!
//! Each read becomes an event in the spool. A script that writes byte by byte would make millions of them; it is read in
//! rests, during which its bytes gather in the pipe. Others never notice: rests come only
//! after many small reads.

use std::time::{Duration, Instant};

/// A read of at least this many bytes is worth an event.
const WORTH_IT: usize = 4096;
/// Small reads that a script has from the start, and the most that it can save up.
const SAVED: u32 = 1000;
/// How long it takes until another small read is earned, which is also how long a rest lasts.
const EARNED_AFTER: Duration = Duration::from_millis(10);

/// What is left of the small reads.
#[derive(Debug)]
pub(crate) struct Pace {
    left: u32,
    /// Until when what was earned is counted in.
    counted: Instant,
}

impl Pace {
    pub(crate) const fn new(now: Instant) -> Self {
        Self {
            left: SAVED,
            counted: now,
        }
    }

    /// `length` bytes were read.
    pub(crate) const fn read(&mut self, length: usize) {
        if length < WORTH_IT {
            self.left = self.left.saturating_sub(1);
        }
    }

    /// Until when nothing is read, where the script has to wait.
    pub(crate) fn rests_until(&mut self, now: Instant) -> Option<Instant> {
        let passed = now.saturating_duration_since(self.counted);
        let earned =
            u32::try_from(passed.as_millis() / EARNED_AFTER.as_millis()).unwrap_or(u32::MAX);
        if earned > 0 {
            self.left = self.left.saturating_add(earned).min(SAVED);
            self.counted = now;
        }
        (self.left == 0).then(|| self.counted + EARNED_AFTER)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads as often as it may for `time`, always `length` bytes. Returns how often that was.
    fn reads(length: usize, time: Duration) -> u32 {
        let start = Instant::now();
        let mut pace = Pace::new(start);
        let (mut now, mut reads) = (start, 0);
        while now < start + time {
            match pace.rests_until(now) {
                Some(until) => now = until,
                None => {
                    pace.read(length);
                    reads += 1;
                    now += Duration::from_micros(10);
                }
            }
        }
        reads
    }

    #[test]
    fn small_reads_are_bounded_by_the_time_and_large_ones_are_not() {
        assert!((1000..=1110).contains(&reads(1, Duration::from_secs(1))));
        assert!((1900..=2010).contains(&reads(1, Duration::from_secs(10))));
        assert_eq!(reads(WORTH_IT, Duration::from_secs(1)), 100_000);
    }

    #[test]
    fn who_writes_little_is_read_at_once() {
        let start = Instant::now();
        let mut pace = Pace::new(start);
        for tick in 0..100_000 {
            let now = start + EARNED_AFTER * tick;
            assert_eq!(pace.rests_until(now), None);
            pace.read(1);
        }
    }
}
