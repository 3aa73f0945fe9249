//! Durations, and what they come to.

use std::time::Duration;

/// Durations of the same thing, measured again and again.
#[derive(Debug, Default)]
pub(crate) struct Samples(Vec<Duration>);

impl Samples {
    pub(crate) fn push(&mut self, duration: Duration) {
        self.0.push(duration);
    }

    /// The duration that this share of the samples stay below.
    pub(crate) fn quantile(&self, share: f64) -> Duration {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        #[expect(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "an index of a short list"
        )]
        let index = ((sorted.len().saturating_sub(1)) as f64 * share).round() as usize;
        sorted.get(index).copied().unwrap_or_default()
    }

    pub(crate) fn median(&self) -> Duration {
        self.quantile(0.5)
    }

    /// One line: median, 99th percentile, smallest, number.
    pub(crate) fn show(&self, name: &str) {
        println!(
            "   {name:<44} p50 {:>10.1?}  p99 {:>10.1?}  min {:>10.1?}  n {}",
            self.median(),
            self.quantile(0.99),
            self.quantile(0.0),
            self.0.len()
        );
    }
}

/// How many times `of` the median of `what` is.
pub(crate) fn ratio(what: &Samples, of: &Samples) -> f64 {
    what.median().as_secs_f64() / of.median().as_secs_f64()
}
