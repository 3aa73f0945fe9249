//! Choices that can be made again.

/// How many values each interpreter gets: `SLUICE_HOSTILE_VALUES`, or what takes a few seconds.
pub(crate) fn count() -> usize {
    number("SLUICE_HOSTILE_VALUES").map_or(2_000, |count| usize::try_from(count).expect("fits"))
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().expect("is a number"))
}

/// A generator. Its seed is `SLUICE_SEED`, or taken from the clock; it is printed, and shown where a test fails.
#[derive(Debug, Clone)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new() -> Self {
        let seed = number("SLUICE_SEED").unwrap_or_else(|| {
            let now = std::time::UNIX_EPOCH.elapsed().expect("is later");
            now.as_nanos() as u64
        });
        println!("SLUICE_SEED={seed}");
        Self(seed)
    }

    /// A number below `bound`.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        // splitmix64
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % bound as u64) as usize
    }

    /// One of these.
    pub(crate) fn pick<'c>(&mut self, choices: &[&'c str]) -> &'c str {
        choices[self.below(choices.len())]
    }
}
