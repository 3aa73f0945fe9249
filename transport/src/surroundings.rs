//! What the programs take from the machine that they run on, apart from sockets: the time of day, and bits that nobody else
//! has for what must not happen everywhere at once. No key is made of those.
//!
//! Both are the system's. A simulation puts its own in their place, for one thread ([`simulate`]); nothing of the product
//! does.

use std::cell::RefCell;
use std::fmt;
use std::time::{Duration, SystemTime};

use rustls::pki_types::UnixTime;
use rustls::time_provider::TimeProvider;

/// What a simulation has instead.
pub struct Simulated {
    /// The time of day.
    pub now: Box<dyn Fn() -> SystemTime>,
    /// The next 64 bits.
    pub random: Box<dyn FnMut() -> u64>,
}

impl fmt::Debug for Simulated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Simulated").finish_non_exhaustive()
    }
}

thread_local! {
    static SIMULATED: RefCell<Option<Simulated>> = const { RefCell::new(None) };
}

/// Has this thread see something else than the system's, or the system's again, and gives back what it saw before.
pub fn simulate(simulated: Option<Simulated>) -> Option<Simulated> {
    SIMULATED.replace(simulated)
}

/// The time of day.
#[must_use]
pub fn now() -> SystemTime {
    SIMULATED.with_borrow(|simulated| match simulated {
        Some(simulated) => (simulated.now)(),
        None => SystemTime::now(),
    })
}

/// 64 bits that nobody else has, to spread what many do over time. Nothing secret depends on them.
#[must_use]
pub fn jitter() -> u64 {
    if let Some(random) = simulated_random() {
        return random;
    }
    let mut bytes = [0; 8];
    match aws_lc_rs::rand::fill(&mut bytes) {
        Ok(()) => u64::from_le_bytes(bytes),
        Err(_) => u64::from(std::process::id()),
    }
}

/// What an endpoint makes its connection ids of; the system's randomness where there is none.
pub(crate) fn seed() -> Option<[u8; 32]> {
    let mut seed = [0; 32];
    for part in seed.chunks_exact_mut(8) {
        part.copy_from_slice(&simulated_random()?.to_le_bytes());
    }
    Some(seed)
}

fn simulated_random() -> Option<u64> {
    SIMULATED.with_borrow_mut(|simulated| simulated.as_mut().map(|it| (it.random)()))
}

/// The clock that certificates are looked at by.
#[derive(Debug)]
pub(crate) struct Clock;

impl TimeProvider for Clock {
    fn current_time(&self) -> Option<UnixTime> {
        let since = now().duration_since(SystemTime::UNIX_EPOCH);
        since
            .ok()
            .map(|since: Duration| UnixTime::since_unix_epoch(since))
    }
}
