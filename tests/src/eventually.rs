//! Waiting for a condition, never for a time.

use std::time::{Duration, Instant};

/// Asks again and again until there is an answer.
///
/// # Panics
///
/// Where there is none within 30 s.
pub fn eventually<T>(what: &str, ask: impl FnMut() -> Option<T>) -> T {
    eventually_or(what, ask, String::new)
}

/// The same; `explain` tells what is known where there is none.
pub(crate) fn eventually_or<T>(
    what: &str,
    mut ask: impl FnMut() -> Option<T>,
    explain: impl FnOnce() -> String,
) -> T {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        if Instant::now() >= deadline {
            panic!("waited 30 s in vain until {what}\n{}", explain());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}
