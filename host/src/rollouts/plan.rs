//! What a request says of its rollout, read into types.

use std::fmt;
use std::str::FromStr;

use sluice_api_types::job::SubmitJob;
use sluice_api_types::rollout::Rule;
use sluice_protocol::units::Span;

use super::Stops;

/// The most batches of a plan.
const MOST: usize = 100;
/// After how long away a machine is dark, where nothing is said: a reboot takes less.
const DARK_AFTER: Span = Span::seconds(5 * 60);
/// The shortest and the longest such time.
const SHORTEST_DARK: Span = Span::seconds(1);
const LONGEST_DARK: Span = Span::seconds(24 * 3600);
/// What never fires, as a rule.
const NEVER: &str = "never";

/// A plan that makes sense, for whatever number of machines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Up to where each batch goes; at least one.
    batches: Vec<Share>,
    max_concurrency: Option<u64>,
    stops: Stops,
    /// After how long away a machine is dark.
    dark_after: Span,
}

/// A plan for this many operations.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batches {
    /// How many operations belong to all batches up to each; they rise, and the last is all.
    pub ends: Vec<u64>,
    /// How many operations may be open at once.
    pub max_concurrency: Option<u64>,
    /// How many of what pause the job.
    pub stops: Stops,
    /// After how long away a machine is dark.
    pub dark_after: Span,
}

impl Batches {
    /// All of them at once, as far as nothing else holds them.
    #[must_use]
    pub fn of_all(all: u64) -> Self {
        Self {
            ends: vec![all],
            max_concurrency: None,
            stops: Stops::default(),
            dark_after: DARK_AFTER,
        }
    }

    /// Whether somebody planned which come first: others are held for other reasons alone.
    #[must_use]
    pub fn is_a_plan(&self) -> bool {
        self.ends.len() > 1 || self.max_concurrency.is_some()
    }

    /// The batch of the operation at this position, counted from 1.
    #[must_use]
    pub fn batch_of(&self, position: u64) -> u64 {
        1 + self.ends.iter().filter(|end| **end <= position).count() as u64
    }
}

/// A part of the operations of a job. At least one of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Share {
    /// So many.
    Count(u64),
    /// A percentage, up to 100.
    Percent(u64),
}

impl Share {
    const ALL: Self = Self::Percent(100);

    /// How many of `all` that is: a part of one counts as one, and there are no more than all.
    #[must_use]
    pub const fn of(self, all: u64) -> u64 {
        let wanted = match self {
            Self::Count(count) => count,
            // In this order nothing overflows.
            Self::Percent(percent) => all / 100 * percent + (all % 100 * percent).div_ceil(100),
        };
        if wanted < all { wanted } else { all }
    }

    /// How many of what a rule counts are enough, where operations on `all` have begun: a number is that number, however
    /// few have begun, and a percentage is one at least.
    #[must_use]
    pub const fn at_least(self, all: u64) -> u64 {
        let wanted = match self {
            Self::Count(count) => count,
            Self::Percent(_) => self.of(all),
        };
        if wanted > 1 { wanted } else { 1 }
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Count(count) => write!(f, "{count}"),
            Self::Percent(percent) => write!(f, "{percent}%"),
        }
    }
}

impl FromStr for Share {
    type Err = InvalidShare;

    fn from_str(text: &str) -> Result<Self, InvalidShare> {
        let (digits, is_percentage) = match text.strip_suffix('%') {
            Some(digits) => (digits, true),
            None => (text, false),
        };
        if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(InvalidShare::Nonsense(shortened(text)));
        }
        match digits.parse() {
            Ok(0) => Err(InvalidShare::Nothing(shortened(text))),
            Ok(percent) if is_percentage && percent <= 100 => Ok(Self::Percent(percent)),
            Ok(count) if !is_percentage => Ok(Self::Count(count)),
            _ if is_percentage => Err(InvalidShare::TooMuch(shortened(text))),
            _ => Err(InvalidShare::Nonsense(shortened(text))),
        }
    }
}

/// Text from a request, for a message.
fn shortened(text: &str) -> String {
    text.chars().take(40).collect()
}

impl Plan {
    /// Reads what a request says; none where it says nothing.
    ///
    /// # Errors
    ///
    /// The first thing that is wrong with it.
    pub fn read(request: &SubmitJob) -> Result<Option<Self>, PlanError> {
        let batches = request.batches.as_deref().map(batches).transpose()?;
        let max_concurrency = request.max_concurrency;
        if max_concurrency == Some(0) {
            return Err(PlanError::NoConcurrency);
        }
        let dark = share(Rule::Dark, request.stop_on_dark.as_deref())?.flatten();
        let dark_after = request.dark_after.unwrap_or(DARK_AFTER);
        if request.dark_after.is_some() && dark.is_none() {
            return Err(PlanError::NothingIsDark);
        }
        if !(SHORTEST_DARK..=LONGEST_DARK).contains(&dark_after) {
            return Err(PlanError::DarkAfter(dark_after));
        }
        let failures = share(Rule::Failures, request.stop_on_failures.as_deref())?;
        let stops = Stops {
            // A first batch that tells nothing would be none.
            failures: failures.unwrap_or_else(|| batches.as_ref().map(|_| Share::Count(1))),
            timeouts: share(Rule::Timeouts, request.stop_on_timeouts.as_deref())?.flatten(),
            dark,
            groups: share(Rule::Groups, request.stop_on_new_groups.as_deref())?.flatten(),
        };
        let given = [
            (Rule::Failures, &request.stop_on_failures),
            (Rule::Timeouts, &request.stop_on_timeouts),
            (Rule::Dark, &request.stop_on_dark),
            (Rule::Groups, &request.stop_on_new_groups),
        ];
        let first = given.iter().find(|(_, rule)| rule.is_some());
        match (batches, max_concurrency) {
            (None, None) => match first {
                Some((rule, _)) => Err(PlanError::NothingToStop(*rule)),
                None => Ok(None),
            },
            (None, Some(_)) if stops.groups.is_some() => Err(PlanError::NothingIsKnown),
            (batches, max_concurrency) => Ok(Some(Self {
                batches: batches.unwrap_or_else(|| vec![Share::ALL]),
                max_concurrency,
                stops,
                dark_after,
            })),
        }
    }

    /// The plan for `all` operations. Batches that come to the same are one: of three machines, 1 and 10% are both the first.
    ///
    /// # Errors
    ///
    /// A batch comes to less than the one before it, or the last one is not all.
    pub fn of(&self, all: u64) -> Result<Batches, PlanError> {
        let mut ends: Vec<u64> = Vec::with_capacity(self.batches.len());
        for share in &self.batches {
            let end = share.of(all);
            match ends.last() {
                Some(last) if end < *last => {
                    return Err(PlanError::Falls {
                        share: *share,
                        all,
                        end,
                        last: *last,
                    });
                }
                Some(last) if end == *last => {}
                _ => ends.push(end),
            }
        }
        match ends.last() {
            Some(last) if *last == all => {}
            last => {
                let last = last.copied().unwrap_or_default();
                return Err(PlanError::NotAll { last, all });
            }
        }
        Ok(Batches {
            ends,
            max_concurrency: self.max_concurrency,
            stops: self.stops,
            dark_after: self.dark_after,
        })
    }
}

/// A rule as it is written; none where none is, and within it none where that never fires.
fn share(rule: Rule, text: Option<&str>) -> Result<Option<Option<Share>>, PlanError> {
    match text.map(str::trim) {
        None => Ok(None),
        Some(NEVER) => Ok(Some(None)),
        Some(text) => {
            let share = text.parse::<Share>();
            Ok(Some(Some(
                share.map_err(|share| PlanError::Rule { rule, share })?,
            )))
        }
    }
}

/// Batches as they are written. What falls for every number of machines is refused here, and the rest once that is known.
fn batches(text: &str) -> Result<Vec<Share>, PlanError> {
    if text.trim().is_empty() {
        return Err(PlanError::Empty);
    }
    let mut read: Vec<Share> = Vec::new();
    for word in text.split(',').map(str::trim) {
        if read.len() >= MOST {
            return Err(PlanError::TooMany);
        }
        let share = word.parse().map_err(PlanError::Batch)?;
        let falls = read.iter().rev().find(|before| match (before, share) {
            (Share::Count(before), Share::Count(count)) => *before >= count,
            (Share::Percent(before), Share::Percent(percent)) => *before >= percent,
            _ => false,
        });
        if let Some(last) = falls {
            return Err(PlanError::DoesNotRise { share, last: *last });
        }
        if read.last() == Some(&Share::ALL) && share != Share::ALL {
            return Err(PlanError::DoesNotRise {
                share,
                last: Share::ALL,
            });
        }
        read.push(share);
    }
    match read.last() {
        Some(Share::Percent(percent)) if *percent < 100 => Err(PlanError::EndsEarly(*percent)),
        _ => Ok(read),
    }
}

/// A word that is no part of the machines.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidShare {
    /// Neither a number nor a percentage.
    #[error("{} is neither a number nor a whole percentage such as 10%", quoted(.0))]
    Nonsense(String),
    /// Zero.
    #[error("{0} is nothing")]
    Nothing(String),
    /// Over 100 %.
    #[error("{0} is over 100%")]
    TooMuch(String),
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", text.escape_debug())
}

/// A rollout that makes no sense. No operation exists.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// No batch.
    #[error("batches are empty; write them as 1, 10%, 50%, 100%")]
    Empty,
    /// One of them is none.
    #[error("batches: {0}; write them as 1, 10%, 50%, 100%")]
    Batch(InvalidShare),
    /// Too many.
    #[error("there are more than {MOST} batches")]
    TooMany,
    /// In the order given.
    #[error(
        "batches: {share} is not above {last}, which stands before it; each counts what is in the ones before"
    )]
    DoesNotRise {
        /// The batch.
        share: Share,
        /// The one before.
        last: Share,
    },
    /// For the machines that there are.
    #[error(
        "batches: of {all} machines {share} is {end}, and {last} are in the batches before it; each counts what is in those"
    )]
    Falls {
        /// The batch.
        share: Share,
        /// How many machines there are.
        all: u64,
        /// How many of them it comes to.
        end: u64,
        /// How many were in the batches before.
        last: u64,
    },
    /// A percentage that leaves machines out.
    #[error("batches end with {0}%, so that the other machines would never run it; end with 100%")]
    EndsEarly(u64),
    /// A number that leaves machines out.
    #[error(
        "batches end with {last} of {all} machines, so that the others would never run it; end with 100%"
    )]
    NotAll {
        /// How many are in all batches.
        last: u64,
        /// How many there are.
        all: u64,
    },
    /// Nothing would ever start.
    #[error("max_concurrency cannot be 0: nothing would start")]
    NoConcurrency,
    /// A rule that is none.
    #[error("stop_on_{rule}: {share}; write a number, a percentage or never")]
    Rule {
        /// Which one.
        rule: Rule,
        /// What is wrong with it.
        share: InvalidShare,
    },
    /// A time that nothing is measured by.
    #[error("dark_after needs stop_on_dark: it says after how long away a machine counts as dark")]
    NothingIsDark,
    /// No result is new.
    #[error("stop_on_new_groups needs batches: a result is new that the first batch did not have")]
    NothingIsKnown,
    /// A time that says nothing.
    #[error("dark_after cannot be {0} (at least {SHORTEST_DARK}, at most {LONGEST_DARK})")]
    DarkAfter(Span),
    /// Everything starts at once.
    #[error(
        "stop_on_{0} needs batches or max_concurrency: otherwise everything starts at once, and nothing is left to stop"
    )]
    NothingToStop(Rule),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(text: &str) -> Result<Option<Plan>, String> {
        let request = SubmitJob {
            batches: Some(text.to_owned()),
            ..SubmitJob::default()
        };
        Plan::read(&request).map_err(|error| error.to_string())
    }

    fn ends(text: &str, all: u64) -> Result<Vec<u64>, String> {
        let plan = plan(text)?.ok_or("no plan")?;
        let batches = plan.of(all).map_err(|error| error.to_string())?;
        Ok(batches.ends)
    }

    #[test]
    fn batches_count_what_is_in_the_ones_before_and_parts_of_a_machine_are_one() {
        assert_eq!(ends("1, 10%, 50%, 100%", 1000), Ok(vec![1, 100, 500, 1000]));
        assert_eq!(ends("1,10%,50%,100%", 15), Ok(vec![1, 2, 8, 15]));
        assert_eq!(ends(" 2 , 5 , 100% ", 9), Ok(vec![2, 5, 9]));
        assert_eq!(ends("33%, 100%", u64::MAX).map(|ends| ends.len()), Ok(2));
    }

    #[test]
    fn batches_that_come_to_the_same_are_one() {
        assert_eq!(ends("1, 10%, 50%, 100%", 3), Ok(vec![1, 2, 3]));
        assert_eq!(ends("1, 10%, 50%, 100%", 1), Ok(vec![1]));
        assert_eq!(ends("5, 10", 4), Ok(vec![4]));
        assert_eq!(ends("100%", 7), Ok(vec![7]));
    }

    #[test]
    fn every_position_is_in_one_batch_and_they_fill_up_in_order() {
        for all in 1..200 {
            let batches = plan("1, 10%, 50%, 100%").expect("reads").expect("a plan");
            let batches = batches.of(all).expect("fits");
            let of: Vec<u64> = (0..all).map(|at| batches.batch_of(at)).collect();
            assert!(of.is_sorted(), "{all}: {of:?}");
            for (index, end) in batches.ends.iter().enumerate() {
                let through = of
                    .iter()
                    .filter(|batch| **batch <= index as u64 + 1)
                    .count();
                assert_eq!(through as u64, *end, "{all}");
            }
        }
    }

    #[test]
    fn plans_that_make_no_sense_are_refused_with_the_reason() {
        for (text, expected) in [
            ("", "batches are empty"),
            (" ", "batches are empty"),
            ("1,,100%", "\"\" is neither a number nor"),
            ("1, 100%,", "\"\" is neither a number nor"),
            ("1, 120%", "120% is over 100%"),
            ("99999999999999999999%", "is over 100%"),
            ("99999999999999999999", "is neither a number nor"),
            ("0, 100%", "0 is nothing"),
            ("0%, 100%", "0% is nothing"),
            ("some, 100%", "\"some\" is neither a number nor"),
            ("-1, 100%", "\"-1\" is neither a number nor"),
            ("1.5%, 100%", "\"1.5%\" is neither a number nor"),
            ("10 %, 100%", "\"10 %\" is neither a number nor"),
            ("50%, 10%, 100%", "10% is not above 50%"),
            ("10%, 10%, 100%", "10% is not above 10%"),
            ("5, 3, 100%", "3 is not above 5"),
            ("5, 10%, 3, 100%", "3 is not above 5"),
            ("100%, 5", "5 is not above 100%"),
            ("1, 50%", "batches end with 50%"),
        ] {
            let error = plan(text).expect_err(text);
            assert!(error.contains(expected), "{text}: {error}");
        }
        assert!(
            ends("20, 10%, 100%", 100)
                .expect_err("falls")
                .contains("of 100 machines 10% is 10")
        );
        assert!(
            ends("1, 5", 10)
                .expect_err("leaves out")
                .contains("5 of 10 machines")
        );
        let many = vec!["1"; MOST + 1].join(",");
        assert!(plan(&many).is_err());
    }

    #[test]
    fn rules_and_bounds_that_make_no_sense_are_refused_too() {
        let read = |change: &dyn Fn(&mut SubmitJob)| {
            let mut request = SubmitJob::default();
            change(&mut request);
            Plan::read(&request)
        };
        let rule = |text: &'static str| {
            move |request: &mut SubmitJob| {
                request.batches = Some("1, 100%".to_owned());
                request.stop_on_failures = Some(text.to_owned());
            }
        };
        assert_eq!(read(&|_| ()), Ok(None));
        let stop = |text| {
            read(&rule(text))
                .expect("reads")
                .expect("a plan")
                .stops
                .failures
        };
        assert_eq!(stop("3"), Some(Share::Count(3)));
        assert_eq!(stop("10%"), Some(Share::Percent(10)));
        assert_eq!(stop("never"), None);
        for text in ["", "0", "0%", "101%", "x", "-1"] {
            assert!(
                matches!(read(&rule(text)), Err(PlanError::Rule { .. })),
                "{text}"
            );
        }
        let first = read(&|request| request.batches = Some("1, 100%".to_owned()));
        let first = first.expect("reads").expect("a plan");
        assert_eq!(
            first.stops.failures,
            Some(Share::Count(1)),
            "the first failure, where nothing is said"
        );
        let some = read(&|request| request.max_concurrency = Some(2));
        assert_eq!(
            some.expect("reads").expect("a plan").stops,
            Stops::default()
        );
        assert_eq!(
            read(&|request| request.max_concurrency = Some(0)),
            Err(PlanError::NoConcurrency)
        );
        let alone = read(&|request| request.stop_on_failures = Some("1".to_owned()));
        assert_eq!(alone, Err(PlanError::NothingToStop(Rule::Failures)));
        let dark = |rule: Option<&str>, after| {
            read(&|request| {
                request.batches = Some("1, 100%".to_owned());
                request.stop_on_dark = rule.map(str::to_owned);
                request.dark_after = Some(Span::seconds(after));
            })
        };
        assert_eq!(dark(None, 60), Err(PlanError::NothingIsDark));
        assert_eq!(dark(Some("never"), 60), Err(PlanError::NothingIsDark));
        assert_eq!(dark(Some("1"), 0), Err(PlanError::DarkAfter(Span(0))));
        let plan = dark(Some("20%"), 60).expect("reads").expect("a plan");
        assert_eq!(plan.stops.dark, Some(Share::Percent(20)));
        let unknown = read(&|request| {
            request.max_concurrency = Some(2);
            request.stop_on_new_groups = Some("1".to_owned());
        });
        assert_eq!(unknown, Err(PlanError::NothingIsKnown));
        let alone = read(&|request| request.stop_on_timeouts = Some("1".to_owned()));
        assert_eq!(alone, Err(PlanError::NothingToStop(Rule::Timeouts)));
    }
}
