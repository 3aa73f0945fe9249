//! What a rollout does next, from what is known of its operations: no clock, no I/O.
//!
//! ```text
//!            batch begins                its operations have ended, and the rule is kept
//! (made) ---> running ---> running: the next batch ---> ... ---> done
//!               |  ^
//!  rule, pause  v  | resume: the failures until then are forgiven
//!             paused ------------------------------------------> done: whatever ended the rest
//! ```
//!
//! It is asked again whenever something has changed. What it says depends on what is stored alone, so a host that was stopped
//! between two steps goes on with the second.

use sluice_api_types::rollout::Rule;

use super::Share;

/// Where the operations of one batch are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// They wait for their release.
    pub held: u64,
    /// They are released, and not sent.
    pub queued: u64,
    /// They were sent, and have not ended.
    pub sent: u64,
    /// They have ended well.
    pub succeeded: u64,
    /// They have ended otherwise.
    pub failed: u64,
    /// Those of them whose time was over.
    pub timed_out: u64,
    /// They have started, and their machines went away and did not come back.
    pub dark: u64,
    /// Groups of results that no batch before this one had.
    pub new_groups: u64,
}

impl Counts {
    /// How many are released and have not ended.
    const fn open(self) -> u64 {
        self.queued + self.sent
    }

    const fn has_ended(self) -> bool {
        self.held == 0 && self.open() == 0
    }
}

/// Everything that the decision depends on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts<'a> {
    /// How many operations belong to all batches up to each.
    pub ends: &'a [u64],
    /// How many operations may be open at once.
    pub max_concurrency: Option<u64>,
    /// How many of what pause it.
    pub stops: Stops,
    /// The batch that has begun last, counted from 1.
    pub batch: u64,
    /// What was there when it was resumed.
    pub forgiven: Tally,
    /// What rules may count of the batches that have begun, and is not clear yet: machines that are away after they have
    /// started something and are not dark, results whose group is not known. Another batch waits until it is.
    pub unclear: u64,
    /// Whether machines may join the last batch yet.
    pub is_open: bool,
    /// Whether somebody or the rule has paused it.
    pub paused: bool,
    /// One for each batch.
    pub counts: &'a [Counts],
}

/// A rule for each that has one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stops {
    /// On operations that have ended otherwise than well.
    pub failures: Option<Share>,
    /// On those whose time was over.
    pub timeouts: Option<Share>,
    /// On machines that went dark.
    pub dark: Option<Share>,
    /// On groups of results that the first batch did not have.
    pub groups: Option<Share>,
}

impl Stops {
    /// The share that a rule is about.
    #[must_use]
    pub const fn of(&self, rule: Rule) -> Option<Share> {
        match rule {
            Rule::Failures => self.failures,
            Rule::Timeouts => self.timeouts,
            Rule::Dark => self.dark,
            Rule::Groups => self.groups,
        }
    }
}

/// How many there are of what rules count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tally {
    /// Operations that have ended otherwise than well.
    pub failures: u64,
    /// Those whose time was over.
    pub timeouts: u64,
    /// Machines that went dark.
    pub dark: u64,
    /// Groups of results that the first batch did not have.
    pub groups: u64,
}

impl Tally {
    /// What a rule counts.
    #[must_use]
    pub const fn of(&self, rule: Rule) -> u64 {
        match rule {
            Rule::Failures => self.failures,
            Rule::Timeouts => self.timeouts,
            Rule::Dark => self.dark,
            Rule::Groups => self.groups,
        }
    }
}

/// What is to be done next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Nothing, until something changes.
    Wait,
    /// A batch begins of which nothing is left to release: it is noted, so that what rules make of its results is found out
    /// before another one begins.
    Begin {
        /// Counted from 1.
        batch: u64,
    },
    /// Release so many of the operations that are held in this batch, in their order. In those before it none is.
    Release {
        /// Counted from 1: the batch of the facts, or a later one, which begins.
        batch: u64,
        /// At least one.
        operations: u64,
    },
    /// A rule fires.
    Stop {
        /// The batch that has begun last.
        batch: u64,
        /// Which one.
        rule: Rule,
        /// What it counts.
        count: u64,
    },
    /// Every operation has ended, and none joins.
    Done,
}

/// What a rollout does next.
#[must_use]
pub fn decide(facts: &Facts<'_>) -> Step {
    if !facts.is_open && facts.counts.iter().all(|counts| counts.has_ended()) {
        return Step::Done;
    }
    if facts.paused {
        return Step::Wait;
    }
    let mut batch = facts.batch.max(1);
    loop {
        let begun = begun(facts.counts, batch);
        let tally = tally(facts.counts, batch);
        let is_left = facts
            .counts
            .iter()
            .any(|counts| counts.held + counts.queued > 0);
        let size = facts.ends.get(index(batch)).copied().unwrap_or_default();
        for rule in Rule::ALL.iter().copied().filter(|_| is_left) {
            let count = tally.of(rule).saturating_sub(facts.forgiven.of(rule));
            let share = facts.stops.of(rule);
            if share.is_some_and(|share| count >= share.at_least(size)) {
                return Step::Stop { batch, rule, count };
            }
        }
        if begun.iter().all(|counts| counts.has_ended()) && begun.len() < facts.counts.len() {
            if facts.unclear > 0 {
                return Step::Wait;
            }
            batch += 1;
            let has_ended = facts
                .counts
                .get(index(batch))
                .is_some_and(|counts| counts.has_ended());
            if has_ended && facts.stops.groups.is_some() {
                return Step::Begin { batch };
            }
            continue;
        }
        let open: u64 = begun.iter().map(|counts| counts.open()).sum();
        // Those before have ended, or this one had not begun.
        let held = begun.last().map_or(0, |counts| counts.held);
        let room = facts
            .max_concurrency
            .map_or(u64::MAX, |most| most.saturating_sub(open));
        return match held.min(room) {
            0 => Step::Wait,
            operations => Step::Release { batch, operations },
        };
    }
}

/// What there is in the batches up to this one of what rules count.
#[must_use]
pub fn tally(counts: &[Counts], batch: u64) -> Tally {
    let begun = begun(counts, batch).iter();
    begun.fold(Tally::default(), |sum, counts| Tally {
        failures: sum.failures + counts.failed,
        timeouts: sum.timeouts + counts.timed_out,
        dark: sum.dark + counts.dark,
        groups: sum.groups + counts.new_groups,
    })
}

fn begun(counts: &[Counts], batch: u64) -> &[Counts] {
    &counts[..counts.len().min(index(batch) + 1)]
}

fn index(batch: u64) -> usize {
    usize::try_from(batch.saturating_sub(1)).unwrap_or(usize::MAX - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn held(held: u64) -> Counts {
        Counts {
            held,
            queued: 0,
            sent: 0,
            succeeded: 0,
            failed: 0,
            timed_out: 0,
            dark: 0,
            new_groups: 0,
        }
    }

    const fn ended(succeeded: u64, failed: u64) -> Counts {
        Counts {
            held: 0,
            queued: 0,
            sent: 0,
            succeeded,
            failed,
            timed_out: 0,
            dark: 0,
            new_groups: 0,
        }
    }

    fn facts<'a>(ends: &'a [u64], counts: &'a [Counts]) -> Facts<'a> {
        Facts {
            ends,
            max_concurrency: None,
            stops: Stops {
                failures: Some(Share::Count(1)),
                ..Stops::default()
            },
            batch: 1,
            forgiven: Tally::default(),
            unclear: 0,
            is_open: false,
            paused: false,
            counts,
        }
    }

    #[test]
    fn a_batch_begins_when_all_of_the_one_before_has_ended_well() {
        let ends = [1, 3, 10];
        let step = |first: Counts| decide(&facts(&ends, &[first, held(2), held(7)]));
        let release = |batch, operations| Step::Release { batch, operations };
        assert_eq!(step(held(1)), release(1, 1));
        let sent = Counts {
            sent: 1,
            ..Counts::default()
        };
        assert_eq!(step(sent), Step::Wait);
        assert_eq!(
            step(Counts {
                queued: 1,
                ..Counts::default()
            }),
            Step::Wait
        );
        assert_eq!(step(ended(1, 0)), release(2, 2));
        assert_eq!(
            step(ended(0, 1)),
            Step::Stop {
                batch: 1,
                rule: Rule::Failures,
                count: 1
            }
        );
    }

    #[test]
    fn a_percentage_is_of_what_has_begun_and_at_least_one_failure() {
        let ends = [1, 20, 100];
        let with = |batch, counts: &[Counts]| {
            decide(&Facts {
                stops: Stops {
                    failures: Some(Share::Percent(10)),
                    ..Stops::default()
                },
                batch,
                ..facts(&ends, counts)
            })
        };
        // The first machine is all that has begun, so that its failure is not one of a hundred.
        let first = with(1, &[ended(0, 1), held(19), held(80)]);
        assert_eq!(
            first,
            Step::Stop {
                batch: 1,
                rule: Rule::Failures,
                count: 1
            }
        );
        let second = with(2, &[ended(1, 0), ended(18, 1), held(80)]);
        assert_eq!(
            second,
            Step::Release {
                batch: 3,
                operations: 80
            }
        );
        let two = with(2, &[ended(1, 0), ended(17, 2), held(80)]);
        assert_eq!(
            two,
            Step::Stop {
                batch: 2,
                rule: Rule::Failures,
                count: 2
            }
        );
    }

    #[test]
    fn a_number_is_that_number_however_few_have_begun() {
        let ends = [1, 20];
        let with = |failed| {
            decide(&Facts {
                stops: Stops {
                    failures: Some(Share::Count(3)),
                    ..Stops::default()
                },
                batch: 2,
                ..facts(
                    &ends,
                    &[
                        ended(0, 1),
                        Counts {
                            sent: 19 - failed,
                            failed,
                            queued: 1,
                            ..Counts::default()
                        },
                    ],
                )
            })
        };
        assert_eq!(with(1), Step::Wait);
        let stop = |count| Step::Stop {
            batch: 2,
            rule: Rule::Failures,
            count,
        };
        assert_eq!(with(2), stop(3));
    }

    #[test]
    fn a_batch_that_had_ended_before_it_began_is_looked_at_where_groups_count() {
        let ends = [1, 2, 3];
        let counts = [ended(1, 0), ended(0, 1), held(1)];
        let with = |groups| {
            decide(&Facts {
                stops: Stops {
                    groups,
                    ..Stops::default()
                },
                ..facts(&ends, &counts)
            })
        };
        assert_eq!(with(Some(Share::Count(1))), Step::Begin { batch: 2 });
        let release = Step::Release {
            batch: 3,
            operations: 1,
        };
        assert_eq!(with(None), release);
    }

    #[test]
    fn a_rule_fires_in_the_middle_of_a_batch_and_only_where_something_is_left_to_stop() {
        let ends = [5];
        let counts = |held, sent| {
            [Counts {
                held,
                sent,
                failed: 1,
                ..Counts::default()
            }]
        };
        let fires = decide(&facts(&ends, &counts(2, 2)));
        assert_eq!(
            fires,
            Step::Stop {
                batch: 1,
                rule: Rule::Failures,
                count: 1
            }
        );
        assert_eq!(decide(&facts(&ends, &counts(0, 4))), Step::Wait);
        assert_eq!(decide(&facts(&ends, &[ended(4, 1)])), Step::Done);
    }

    #[test]
    fn failures_that_were_there_when_it_was_resumed_are_forgiven_and_new_ones_are_not() {
        let ends = [2, 4];
        let with = |forgiven, failed| {
            decide(&Facts {
                forgiven: Tally {
                    failures: forgiven,
                    ..Tally::default()
                },
                ..facts(&ends, &[ended(2 - failed, failed), held(2)])
            })
        };
        assert_eq!(
            with(1, 1),
            Step::Release {
                batch: 2,
                operations: 2
            }
        );
        assert_eq!(
            with(1, 2),
            Step::Stop {
                batch: 1,
                rule: Rule::Failures,
                count: 1
            }
        );
    }

    #[test]
    fn what_was_refused_before_it_could_run_counts_when_its_batch_begins() {
        let ends = [1, 3];
        let later = Counts {
            held: 1,
            failed: 1,
            ..Counts::default()
        };
        let before = decide(&facts(&ends, &[held(1), later]));
        assert_eq!(
            before,
            Step::Release {
                batch: 1,
                operations: 1
            }
        );
        let then = decide(&facts(&ends, &[ended(1, 0), later]));
        assert_eq!(
            then,
            Step::Stop {
                batch: 2,
                rule: Rule::Failures,
                count: 1
            }
        );
    }

    #[test]
    fn no_more_than_may_be_are_open_at_once_whatever_batch_they_are_of() {
        let ends = [10];
        let with = |counts| {
            decide(&Facts {
                max_concurrency: Some(3),
                stops: Stops::default(),
                ..facts(&ends, &[counts])
            })
        };
        assert_eq!(
            with(held(10)),
            Step::Release {
                batch: 1,
                operations: 3
            }
        );
        let some = Counts {
            held: 7,
            queued: 1,
            sent: 1,
            succeeded: 1,
            ..Counts::default()
        };
        assert_eq!(
            with(some),
            Step::Release {
                batch: 1,
                operations: 1
            }
        );
        assert_eq!(with(Counts { sent: 2, ..some }), Step::Wait);
    }

    #[test]
    fn a_paused_rollout_waits_and_is_done_when_everything_was_ended() {
        let ends = [1, 2];
        let paused = |counts: &[Counts]| {
            decide(&Facts {
                paused: true,
                ..facts(&ends, counts)
            })
        };
        assert_eq!(paused(&[ended(1, 0), held(1)]), Step::Wait);
        assert_eq!(paused(&[ended(0, 1), ended(0, 1)]), Step::Done);
    }

    /// Whatever ends in whatever order, and wherever the host was stopped between two steps: nothing is released twice or
    /// left out, no more are open than may be, and no batch begins before the one before has ended.
    #[test]
    fn every_order_of_ends_releases_each_operation_once_and_in_order() {
        for seed in 0..500_u64 {
            let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
            let mut random = |below: u64| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                state % below
            };
            let all = 1 + random(30);
            let mut ends: Vec<u64> = (0..random(4)).map(|_| 1 + random(all)).collect();
            ends.push(all);
            ends.sort_unstable();
            ends.dedup();
            let sizes = ends.iter().scan(0, |before, end| {
                let size = end - *before;
                *before = *end;
                Some(size)
            });
            let mut counts: Vec<Counts> = sizes.map(held).collect();
            let most = (random(2) == 0).then(|| 1 + random(5));
            let (mut batch, mut released) = (1, 0);
            loop {
                let step = decide(&Facts {
                    max_concurrency: most,
                    stops: Stops::default(),
                    batch,
                    ..facts(&ends, &counts)
                });
                match step {
                    Step::Release {
                        batch: to,
                        operations,
                    } => {
                        assert!(
                            to == batch || begun(&counts, batch).iter().all(|it| it.has_ended()),
                            "seed {seed}"
                        );
                        batch = to;
                        released += operations;
                        let of_batch = &mut counts[index(batch)];
                        assert!(of_batch.held >= operations, "seed {seed}");
                        of_batch.held -= operations;
                        of_batch.sent += operations;
                        let open: u64 = counts.iter().map(|it| it.open()).sum();
                        assert!(most.is_none_or(|most| open <= most), "seed {seed}");
                    }
                    Step::Wait => {
                        let open: Vec<usize> = (0..counts.len())
                            .filter(|at| counts[*at].sent > 0)
                            .collect();
                        assert!(!open.is_empty(), "seed {seed}: it waits for nothing");
                        let at = open[random(open.len() as u64) as usize];
                        counts[at].sent -= 1;
                        counts[at].succeeded += 1;
                    }
                    Step::Begin { batch: next } => batch = next,
                    Step::Done => break,
                    Step::Stop { .. } => panic!("seed {seed}: there is no rule"),
                }
            }
            assert_eq!(released, all, "seed {seed}");
        }
    }

    #[test]
    fn time_outs_have_a_rule_of_their_own_where_failures_stop_nothing() {
        let ends = [2, 4];
        let with = |timed_out, forgiven| {
            let first = Counts {
                timed_out,
                ..ended(0, 2)
            };
            decide(&Facts {
                stops: Stops {
                    timeouts: Some(Share::Count(1)),
                    ..Stops::default()
                },
                forgiven: Tally {
                    timeouts: forgiven,
                    ..Tally::default()
                },
                ..facts(&ends, &[first, held(2)])
            })
        };
        let goes_on = Step::Release {
            batch: 2,
            operations: 2,
        };
        assert_eq!(with(0, 0), goes_on);
        assert_eq!(
            with(1, 0),
            Step::Stop {
                batch: 1,
                rule: Rule::Timeouts,
                count: 1
            }
        );
        assert_eq!(with(1, 1), goes_on);
    }

    #[test]
    fn a_batch_waits_for_machines_that_are_away_and_stops_where_they_are_dark() {
        let ends = [2, 4];
        let with = |dark, unclear| {
            let first = Counts {
                dark,
                ..ended(2, 0)
            };
            decide(&Facts {
                stops: Stops {
                    dark: Some(Share::Percent(50)),
                    ..Stops::default()
                },
                unclear,
                ..facts(&ends, &[first, held(2)])
            })
        };
        assert_eq!(with(0, 1), Step::Wait);
        assert_eq!(
            with(1, 0),
            Step::Stop {
                batch: 1,
                rule: Rule::Dark,
                count: 1
            }
        );
        assert_eq!(
            with(0, 0),
            Step::Release {
                batch: 2,
                operations: 2
            }
        );
    }
}
