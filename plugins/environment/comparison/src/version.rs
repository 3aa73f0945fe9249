//! Versions and the conditions that a requirement puts on them.

use std::cmp::Ordering;

/// The leading numbers of a version text: `5.2.15(1)-release` is 5, 2, 15.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version(Vec<u64>);

impl Version {
    /// `None` where the text does not begin with a number. A leading `v` is skipped.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let text = text.strip_prefix('v').unwrap_or(text);
        let mut numbers = Vec::new();
        for part in text.split('.') {
            let digits = part.len() - part.trim_start_matches(|c: char| c.is_ascii_digit()).len();
            let Ok(number) = part[..digits].parse() else {
                break;
            };
            numbers.push(number);
            if digits < part.len() {
                break;
            }
        }
        if numbers.is_empty() {
            None
        } else {
            Some(Self(numbers))
        }
    }

    /// Missing numbers count as zero: 3.9 equals 3.9.0.
    #[must_use]
    pub fn compare(&self, other: &Self) -> Ordering {
        let length = self.0.len().max(other.0.len());
        let number = |version: &Self, index: usize| version.0.get(index).copied().unwrap_or(0);
        (0..length)
            .map(|index| number(self, index).cmp(&number(other, index)))
            .find(|o| o.is_ne())
            .unwrap_or(Ordering::Equal)
    }

    /// Whether all numbers of `prefix` are those of this version: 3.9 is a prefix of 3.9.2.
    fn begins_with(&self, prefix: &Self) -> bool {
        prefix
            .0
            .iter()
            .enumerate()
            .all(|(index, number)| self.0.get(index).copied().unwrap_or(0) == *number)
    }
}

/// `>=3.9`, `>=3.9, <4`, `=3.9` (any 3.9), `3.9` (the same).
#[derive(Debug)]
pub struct Condition(Vec<(Comparison, Version)>);

#[derive(Debug, Clone, Copy)]
enum Comparison {
    AtLeast,
    AtMost,
    Above,
    Below,
    Is,
}

impl Condition {
    /// `None` where it is not a condition.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        text.split(',')
            .map(parse_one)
            .collect::<Option<Vec<_>>>()
            .map(Self)
    }

    /// Whether a version fulfills all of it.
    #[must_use]
    pub fn holds(&self, version: &Version) -> bool {
        self.0.iter().all(|(comparison, bound)| {
            let order = version.compare(bound);
            match comparison {
                Comparison::AtLeast => order.is_ge(),
                Comparison::AtMost => order.is_le(),
                Comparison::Above => order.is_gt(),
                Comparison::Below => order.is_lt(),
                Comparison::Is => version.begins_with(bound),
            }
        })
    }
}

fn parse_one(text: &str) -> Option<(Comparison, Version)> {
    let text = text.trim();
    let signs = [
        (">=", Comparison::AtLeast),
        ("<=", Comparison::AtMost),
        ("==", Comparison::Is),
        (">", Comparison::Above),
        ("<", Comparison::Below),
        ("=", Comparison::Is),
        ("", Comparison::Is),
    ];
    let (rest, comparison) = signs
        .iter()
        .find_map(|(sign, c)| text.strip_prefix(sign).map(|rest| (rest.trim(), *c)))?;
    let plain = !rest.is_empty()
        && rest
            .split('.')
            .all(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()));
    if plain {
        Some((comparison, Version::parse(rest)?))
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holds(condition: &str, version: &str) -> bool {
        Condition::parse(condition)
            .expect("condition")
            .holds(&Version::parse(version).expect("version"))
    }

    #[test]
    fn versions_compare_by_number() {
        assert!(holds(">=3.9", "3.10.2"));
        assert!(holds(">=3.9", "3.9"));
        assert!(!holds(">=3.9", "3.8.18"));
        assert!(!holds(">3.9", "3.9.0"));
        assert!(holds(">=5", "5.2.15(1)-release"));
        assert!(holds(">=3.9, <4", "3.13.0"));
        assert!(!holds(">=3.9, <4", "4.0"));
        assert!(holds("=3.9", "3.9.7"));
        assert!(!holds("3.9", "3.90"));
        assert!(holds("<=3", "3.0.0"));
        assert!(holds(">=20", "v22.1.0"));
    }

    #[test]
    fn what_is_not_a_condition_is_refused() {
        for text in [
            "",
            ">=",
            "~3",
            ">=3.x",
            ">= 3..1",
            ">=3,",
            "python",
            "\u{0663}.1",
            "99999999999999999999999",
        ] {
            assert!(Condition::parse(text).is_none(), "{text}");
        }
    }
}
