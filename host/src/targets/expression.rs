//! What an expression says, and whether it holds for a machine.
//!
//! A comparison with a fact that the machine has not told, or that is of another kind, is neither true nor false: it is
//! unknown, and so is `not` of it. A machine is meant only where the whole is true.

use std::cmp::Ordering;

use sluice_fact_comparison::{Version, is_os, same_arch};
use sluice_protocol::message::control::{Fact, FactValue};

use super::parse::{self, ExpressionError};
use crate::store::bindings::TagPair;

/// An expression that was read.
#[derive(Debug, Clone, PartialEq)]
pub struct Expression(Node);

impl Expression {
    /// Reads one.
    ///
    /// # Errors
    ///
    /// It is none: what is wrong, and in which column.
    pub fn read(text: &str) -> Result<Self, ExpressionError> {
        parse::root(text).map(Self)
    }

    /// Whether a machine is meant.
    #[must_use]
    pub fn means(&self, machine: &Known<'_>) -> bool {
        self.0.holds(machine) == Some(true)
    }
}

/// What is known of a machine.
#[derive(Debug, Clone, Copy)]
pub struct Known<'m> {
    /// What it is called.
    pub name: &'m str,
    /// Its tags, which the host gives.
    pub tags: &'m [TagPair],
    /// What it says about itself.
    pub facts: &'m [Fact],
}

impl<'m> Known<'m> {
    fn fact(&self, key: &str) -> Option<&'m FactValue> {
        let fact = self.facts.iter().find(|fact| fact.key == key)?;
        Some(&fact.value)
    }

    fn text(&self, key: &str) -> Option<&'m str> {
        match self.fact(key)? {
            FactValue::Text(text) => Some(text),
            _ => None,
        }
    }

    fn tag(&self, key: &str) -> Option<&'m str> {
        let tag = self.tags.iter().find(|tag| tag.key == key)?;
        Some(&tag.value)
    }
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Node {
    All(Vec<Self>),
    Any(Vec<Self>),
    Not(Box<Self>),
    Has(Subject),
    Is(Subject, Operator, Literal),
}

impl Node {
    /// None where nobody knows.
    fn holds(&self, machine: &Known<'_>) -> Option<bool> {
        match self {
            Self::All(nodes) => decided(nodes, machine, false),
            Self::Any(nodes) => decided(nodes, machine, true),
            Self::Not(node) => node.holds(machine).map(|holds| !holds),
            Self::Has(Subject::Fact(key)) => Some(machine.fact(key).is_some()),
            Self::Has(Subject::Tag(key)) => Some(machine.tag(key).is_some()),
            Self::Has(Subject::Name | Subject::Os) => Some(true),
            Self::Is(subject, operator, literal) => subject.is(machine, *operator, literal),
        }
    }
}

/// One node that has this value decides; otherwise one that is unknown leaves the whole unknown.
fn decided(nodes: &[Node], machine: &Known<'_>, decides: bool) -> Option<bool> {
    let mut whole = Some(!decides);
    for node in nodes {
        match node.holds(machine) {
            Some(holds) if holds == decides => return Some(decides),
            Some(_) => {}
            None => whole = None,
        }
    }
    whole
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Subject {
    /// What the machine is called.
    Name,
    /// Family or distribution, as the requirement `os` has it.
    Os,
    Tag(String),
    Fact(String),
}

impl Subject {
    fn is(&self, machine: &Known<'_>, operator: Operator, literal: &Literal) -> Option<bool> {
        match self {
            Self::Name => text(machine.name, operator, literal, |a, b| a == b),
            Self::Os => {
                let family = machine.text("os.family")?;
                let distribution = machine.text("os.distribution");
                text(family, operator, literal, |family, wanted| {
                    is_os(wanted, family, distribution)
                })
            }
            // The host knows every tag, so one that is not there is known not to be.
            Self::Tag(key) => match machine.tag(key) {
                Some(value) => text(value, operator, literal, |a, b| a == b),
                None => Some(operator == Operator::Unequal),
            },
            Self::Fact(key) => match machine.fact(key)? {
                FactValue::Text(value) => text(value, operator, literal, same_text(key)),
                FactValue::Boolean(value) => {
                    operator.of_equality(literal.boolean.map(|literal| literal == *value)?)
                }
                FactValue::Integer(value) => operator.of_order(literal.number?.order_of(*value)),
                FactValue::Decimal(value) => operator.of_order(
                    value
                        .partial_cmp(&literal.number?.as_decimal())
                        .filter(|_| value.is_finite())?,
                ),
                FactValue::Texts(values) => operator.of_equality(values.contains(&literal.text)),
            },
        }
    }
}

/// How texts of a fact are the same.
fn same_text(key: &str) -> fn(&str, &str) -> bool {
    match key {
        "arch" => same_arch,
        "os.family" | "os.distribution" => |a, b| a.eq_ignore_ascii_case(b),
        _ => |a, b| a == b,
    }
}

/// A text is the same or not; which of two comes first is a question of versions.
fn text(
    value: &str,
    operator: Operator,
    literal: &Literal,
    same: impl FnOnce(&str, &str) -> bool,
) -> Option<bool> {
    if operator.is_equality() {
        return operator.of_equality(same(value, &literal.text));
    }
    let order = Version::parse(value)?.compare(literal.version.as_ref()?);
    operator.of_order(order)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operator {
    Equal,
    Unequal,
    Below,
    AtMost,
    Above,
    AtLeast,
}

impl Operator {
    pub(super) const fn is_equality(self) -> bool {
        matches!(self, Self::Equal | Self::Unequal)
    }

    /// None for what needs an order.
    fn of_equality(self, equal: bool) -> Option<bool> {
        match self {
            Self::Equal => Some(equal),
            Self::Unequal => Some(!equal),
            _ => None,
        }
    }

    fn of_order(self, order: Ordering) -> Option<bool> {
        Some(match self {
            Self::Equal => order.is_eq(),
            Self::Unequal => order.is_ne(),
            Self::Below => order.is_lt(),
            Self::AtMost => order.is_le(),
            Self::Above => order.is_gt(),
            Self::AtLeast => order.is_ge(),
        })
    }
}

/// What something is compared with, in each of the ways in which it can be read.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Literal {
    pub(super) text: String,
    /// A number, or a size in bytes.
    pub(super) number: Option<Number>,
    pub(super) version: Option<Version>,
    pub(super) boolean: Option<bool>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Number {
    Integer(i64),
    /// Finite.
    Decimal(f64),
}

impl Number {
    #[expect(
        clippy::cast_precision_loss,
        reason = "a literal with a fraction is compared as one"
    )]
    fn order_of(self, value: i64) -> Ordering {
        match self {
            Self::Integer(number) => value.cmp(&number),
            Self::Decimal(number) => (value as f64).total_cmp(&number),
        }
    }

    #[expect(
        clippy::cast_precision_loss,
        reason = "it is compared with a decimal fact"
    )]
    fn as_decimal(self) -> f64 {
        match self {
            Self::Integer(number) => number as f64,
            Self::Decimal(number) => number,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fact(key: &str, value: FactValue) -> Fact {
        Fact {
            key: key.to_owned(),
            value,
        }
    }

    fn means(text: &str) -> bool {
        let of_text = |key: &str, value: &str| fact(key, FactValue::Text(value.to_owned()));
        let facts = [
            of_text("os.family", "linux"),
            of_text("os.distribution", "debian"),
            of_text("os.version", "12.10"),
            of_text("arch", "x86_64"),
            fact("memory.total", FactValue::Integer(4 << 30)),
            fact("cpu.count", FactValue::Integer(8)),
            fact("load", FactValue::Decimal(1.5)),
            fact("virtual", FactValue::Boolean(true)),
            fact("commands", FactValue::Texts(vec!["jq".to_owned()])),
        ];
        let tags = [TagPair {
            key: "role".to_owned(),
            value: "web".to_owned(),
        }];
        let known = Known {
            name: "web-1",
            tags: &tags,
            facts: &facts,
        };
        let expression = Expression::read(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        expression.means(&known)
    }

    #[test]
    fn facts_and_tags_are_compared_as_requirements_compare_them() {
        for holds in [
            r#"os == "Linux""#,
            r#"os == "debian" and os != "ubuntu""#,
            r#"arch == "amd64""#,
            r#"os.family == "LINUX""#,
            r#"os.version >= "12.9" and os.version < "13""#,
            r#"os.version == "12.10""#,
            r#"memory.total >= "2GiB" and memory.total == "4GiB""#,
            "cpu.count > 7 and cpu.count < 8.5 and load <= 1.5",
            "virtual == true and virtual != false",
            r#"commands == "jq" and commands != "yq""#,
            r#"name == "web-1" and tag.role == "web" and tag("role")"#,
            r#"fact("arch") and not fact("gpu") and fact("os.version") > 12"#,
            r#"not (os == "windows" or tag.role == "db")"#,
        ] {
            assert!(means(holds), "{holds}");
        }
        for fails in [
            r#"os == "windows""#,
            r#"os.version >= "12.11""#,
            r#"memory.total >= "5GiB""#,
            r#"name == "WEB-1""#,
            r#"tag.role != "web""#,
        ] {
            assert!(!means(fails), "{fails}");
        }
    }

    #[test]
    fn what_is_unknown_matches_nothing_and_neither_does_its_contrary() {
        for unknown in [
            r#"gpu == "a""#,
            r#"not gpu == "a""#,
            r#"gpu != "a""#,
            r#"not (gpu == "a" and os == "linux")"#,
            r#"gpu == "a" and os == "linux""#,
            r#"not (gpu == "a" or os == "windows")"#,
            // A fact of another kind.
            r#"memory.total == "much""#,
            r#"not memory.total == "much""#,
            r#"not arch < "1""#,
            "not virtual == 1",
        ] {
            assert!(!means(unknown), "{unknown}");
        }
        assert!(means(r#"gpu == "a" or os == "linux""#));
        assert!(means(r#"not (gpu == "a" and os == "windows")"#));
    }

    #[test]
    fn a_tag_that_is_not_there_is_known_not_to_be() {
        assert!(means(r#"tag.env != "prod" and not tag.env == "prod""#));
        assert!(!means(r#"tag.env == "prod" or tag.env < "2""#));
    }

    #[test]
    fn and_binds_closer_than_or_and_not_closest() {
        assert!(means(r#"os == "linux" or os == "x" and os == "y""#));
        assert!(!means(r#"(os == "linux" or os == "x") and os == "y""#));
        assert!(means(r#"not os == "x" and os == "linux""#));
    }
}
