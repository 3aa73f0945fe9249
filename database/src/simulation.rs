//! Databases in simulated time.

use std::cell::Cell;
use std::time::Duration;

thread_local! {
    static COMMIT: Cell<Option<Duration>> = const { Cell::new(None) };
}

/// Has databases that are opened on this thread from here on be written by a task of the run time that they are opened in,
/// and not by a thread: a commit takes this long by the clock of that run time, and what is not committed when the run time
/// ends never happened. None has them written by threads again. Nothing of the product does this.
pub fn simulate(commit: Option<Duration>) {
    COMMIT.set(commit);
}

/// How long a commit takes, where this thread simulates.
pub(crate) fn commit_time() -> Option<Duration> {
    COMMIT.get()
}
