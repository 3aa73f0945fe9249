//! What has to come of each guest.

/// What has to come of a guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The runtime stops it, with this error.
    Stopped(Stop),
    /// It answers, and the parent refuses the answer with a text that has these words in it.
    Refused(&'static str),
    /// What it tries comes to nothing: its answer is that of the honest gate.
    Honest,
}

/// The typed errors of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "as in `CallError`")]
pub enum Stop {
    Fuel,
    Deadline,
    Memory,
    Trap,
    TooLarge,
    /// No instance is made: it needs more than a pool has for one, than the limit of memory, or than the runtime keeps handles.
    NeverStarts,
    Internal,
    Settings,
}

/// Which limits a guest gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limits {
    /// [`crate::LITTLE_FUEL`]
    Fuel,
    /// [`crate::LITTLE_TIME`]
    Time,
}

/// Each guest, the limits that it gets, and what has to come of it.
pub const EXPECTED: &[(&str, Limits, Outcome)] = {
    use Limits::{Fuel as F, Time as T};
    use Outcome::{Honest, Refused, Stopped};
    use Stop::{Deadline, Fuel, Internal, Memory, NeverStarts, Settings, TooLarge, Trap};
    &[
        ("honest", F, Honest),
        // time
        ("loop_in_start", F, Stopped(Fuel)),
        ("loop_in_start", T, Stopped(Deadline)),
        ("loop_in_configure", F, Stopped(Fuel)),
        ("loop_in_configure", T, Stopped(Deadline)),
        ("loop_in_scan", F, Stopped(Fuel)),
        ("loop_in_scan", T, Stopped(Deadline)),
        ("loop_in_realloc", F, Stopped(Fuel)),
        ("loop_in_realloc", T, Stopped(Deadline)),
        ("loop_in_post_return", F, Stopped(Fuel)),
        ("loop_in_post_return", T, Stopped(Deadline)),
        ("copies_without_end", T, Stopped(Deadline)),
        ("logs_long_lines_without_end", T, Stopped(Deadline)),
        // memory
        ("memory_bomb", F, Stopped(Memory)),
        ("memory_from_the_start", F, Stopped(NeverStarts)),
        ("table_bomb", F, Stopped(Memory)),
        ("table_from_the_start", F, Stopped(NeverStarts)),
        ("table_and_memory", F, Stopped(Memory)),
        ("beside/second_memory", F, Stopped(NeverStarts)),
        ("beside/many_instances", F, Stopped(NeverStarts)),
        ("beside/handles", F, Stopped(NeverStarts)),
        ("looks_at_what_was_left", F, Honest),
        // crashes
        ("recursion", F, Stopped(Trap)),
        ("trap", F, Stopped(Trap)),
        ("trap_in_configure", F, Stopped(Trap)),
        ("outside_of_its_memory", F, Stopped(Trap)),
        ("division_by_zero", F, Stopped(Trap)),
        ("last_words", F, Stopped(Trap)),
        // answers that are none
        ("answer_outside_of_its_memory", F, Stopped(Trap)),
        ("answer_that_is_misaligned", F, Stopped(Trap)),
        ("realloc_outside_of_its_memory", F, Stopped(Trap)),
        ("ten_million_findings", F, Stopped(Trap)),
        ("findings_without_end", F, Stopped(TooLarge)),
        ("places_without_end", F, Stopped(TooLarge)),
        ("text_of_4_gib", F, Stopped(Trap)),
        ("text_of_32_mib", F, Stopped(TooLarge)),
        ("text_that_is_no_utf8", F, Stopped(Trap)),
        ("severity_that_does_not_exist", F, Stopped(Trap)),
        // answers that break the contract
        (
            "too_many_findings",
            F,
            Refused("501 findings, over the limit"),
        ),
        ("too_many_places", F, Refused("101 places of one finding")),
        ("span_past_the_end", F, Refused("is not inside script")),
        (
            "span_of_a_related_place",
            F,
            Refused("is not inside script"),
        ),
        (
            "span_inside_a_character",
            F,
            Refused("is not inside script"),
        ),
        ("span_backwards", F, Refused("is not inside script")),
        ("unknown_rule", F, Refused("is not in its table")),
        ("unknown_subject", F, Refused("does not exist")),
        // words
        ("hidden_words", F, Honest),
        ("hidden_words_in_an_error", F, Stopped(Internal)),
        ("settings_problems_without_end", F, Stopped(Settings)),
        ("log_flood", F, Honest),
        ("log_line_of_32_mib", F, Stopped(TooLarge)),
    ]
};

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_guest_is_expected_to_do_something_and_every_expected_one_is_there() {
        let expected: BTreeSet<_> = EXPECTED
            .iter()
            .map(|(name, ..)| (*name).to_owned())
            .collect();
        assert_eq!(expected, BTreeSet::from_iter(crate::names()));
    }
}
