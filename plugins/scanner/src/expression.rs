//! A rule's regular expression.
//!
//! Two automata that are built as they are needed, one that finds the end of a match and one that goes back to its start,
//! and nothing else: no engine for captures, no search for literals beside the one for the rules' words. That is half of
//! the code that a machine compiles when the gate is bound.

use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use regex_automata::hybrid::regex::{Cache, Regex};
use regex_automata::hybrid::{BuildError, dfa};
use regex_automata::nfa::thompson;
use regex_automata::util::syntax;

/// A compiled expression and what its automata know so far.
#[derive(Debug)]
pub(crate) struct Expression {
    regex: Regex,
    /// What searches build; in the snapshot is what the samples needed.
    known: Mutex<Cache>,
}

impl Expression {
    /// Case-insensitive, ASCII, `^` and `$` match at lines.
    pub(crate) fn new(pattern: &str) -> Result<Self, Box<BuildError>> {
        let regex = Regex::builder()
            .syntax(
                syntax::Config::new()
                    .case_insensitive(true)
                    .multi_line(true)
                    .unicode(false)
                    .utf8(false),
            )
            .thompson(
                thompson::Config::new()
                    .utf8(false)
                    .nfa_size_limit(Some(4 << 20)),
            )
            // It never gives up: what does not fit is forgotten and built again.
            .dfa(dfa::Config::new().cache_capacity(1 << 20))
            .build(pattern)
            .map_err(Box::new)?;
        let known = Mutex::new(regex.create_cache());
        Ok(Self { regex, known })
    }

    /// The matches in `text` one after the other, leftmost first, as long as `more` wants another.
    pub(crate) fn each(&self, text: &[u8], mut more: impl FnMut(Range<usize>) -> bool) {
        // A panic is the end of a gate; what is known is right at any time.
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let mut matches = self.regex.find_iter(&mut known, text);
        while matches.next().is_some_and(|found| more(found.range())) {}
    }
}
