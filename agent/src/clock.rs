//! The wall clock.

use std::time::UNIX_EPOCH;

use sluice_transport::surroundings;

/// Milliseconds since 1970.
pub(crate) fn now() -> u64 {
    surroundings::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| {
            u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
        })
}
