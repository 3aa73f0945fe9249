//! The clock of a host of `sluice-test-host`, which a test moves.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{ChildStdin, ChildStdout};

/// A clock that stands still until a test moves it, also while its host does not run. Times are RFC 3339 with an offset.
#[derive(Debug)]
pub struct Clock {
    shows: String,
    /// Where its host runs.
    host: Option<(ChildStdin, BufReader<ChildStdout>)>,
}

impl Clock {
    pub(crate) fn at(time: &str) -> Self {
        Self {
            shows: time.to_owned(),
            host: None,
        }
    }

    /// What it shows.
    #[must_use]
    pub fn now(&self) -> &str {
        &self.shows
    }

    /// Sets it, whatever it showed before. When this returns, the host has looked at it and has done what was due.
    ///
    /// # Panics
    ///
    /// Where the host has ended, or does not come to rest.
    pub fn set(&mut self, time: &str) {
        self.order("set", time);
    }

    /// Lets time pass until this one: it shows each time on the way for which the host waits, and goes on when that has done
    /// what was due then. Where no host runs, it is the same as setting it.
    ///
    /// # Panics
    ///
    /// As for [`Self::set`].
    pub fn pass(&mut self, time: &str) {
        self.order("pass", time);
    }

    /// Begins to let time pass until this one, and does not wait for it: for a host that is killed meanwhile. It is this time
    /// when that is started again.
    ///
    /// # Panics
    ///
    /// Where no host runs.
    pub fn begin_to_pass(&mut self, time: &str) {
        time.clone_into(&mut self.shows);
        let (orders, _) = self.host.as_mut().expect("a host runs");
        writeln!(orders, "pass {time}").expect("writes");
    }

    fn order(&mut self, order: &str, time: &str) {
        time.clone_into(&mut self.shows);
        let Some((orders, answers)) = &mut self.host else {
            return;
        };
        let mut answer = String::new();
        let done = writeln!(orders, "{order} {time}").and_then(|()| answers.read_line(&mut answer));
        assert!(
            done.is_ok() && answer.starts_with("at "),
            "{order} {time}: {done:?}, {answer:?}; the host's log says why"
        );
    }

    /// A host goes by it from now on.
    pub(crate) fn moves(&mut self, orders: ChildStdin, answers: BufReader<ChildStdout>) {
        self.host = Some((orders, answers));
    }

    /// Its host has ended.
    pub(crate) fn is_alone(&mut self) {
        self.host = None;
    }
}
