//! What a test leaves to chance, so that it happens again with the same seed.

use std::ops::Range;
use std::time::SystemTime;

/// Numbers that follow from a seed (SplitMix64; Steele, Lea and Flood, OOPSLA 2014).
#[derive(Debug)]
pub struct Random(u64);

impl Random {
    /// The numbers of `SLUICE_SEED`, or of a seed from the clock. It is printed.
    ///
    /// # Panics
    ///
    /// Where the variable is no number.
    #[must_use]
    pub fn seeded() -> Self {
        let seed = match std::env::var("SLUICE_SEED") {
            Ok(seed) => seed.parse().expect("SLUICE_SEED is a number"),
            Err(_) => {
                let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
                u64::from(now.unwrap_or_default().subsec_nanos())
            }
        };
        println!("SLUICE_SEED={seed}");
        Self(seed)
    }

    /// A number of a range that is not empty.
    pub fn within(&mut self, range: Range<usize>) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^= bits >> 31;
        let length = (range.end - range.start).max(1) as u64;
        range.start + usize::try_from(bits % length).unwrap_or_default()
    }
}
