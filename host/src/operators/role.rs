//! A role: policies in Cedar that say what whoever has it may do. They are read against the schema once, and kept; what they
//! can give at all, give without a condition, and forbid is known from then on.

use std::fmt;
use std::str::FromStr;
use std::sync::LazyLock;

use cedar_policy::{
    ActionConstraint, Effect, Policy, PolicyId, PolicySet, PrincipalConstraint, ResourceConstraint,
    Schema, ValidationMode, Validator,
};

use super::{Permission, Permissions};

/// The schema, as it is documented and committed.
pub const SCHEMA: &str = include_str!("schema.cedarschema");
/// The longest text of a role, in bytes.
pub const LONGEST: usize = 16 << 10;
/// The most policies of a role: each is looked at for each decision.
const MOST_POLICIES: usize = 64;
/// How deep brackets and conditions may be nested.
const DEEPEST: usize = 32;
/// How many characters of operators there may be: what they join is nested too.
const MOST_OPERATORS: usize = 1000;
/// The most problems that a refusal tells of.
const MOST_PROBLEMS: usize = 5;

static VALIDATOR: LazyLock<Validator> = LazyLock::new(|| {
    let (schema, _warnings) =
        Schema::from_cedarschema_str(SCHEMA).expect("the committed schema is one; a test reads it");
    Validator::new(schema)
});

/// What a role is called: it stands in commands and in the audit log.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RoleName(String);

impl RoleName {
    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RoleName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for RoleName {
    type Err = InvalidRole;

    fn from_str(text: &str) -> Result<Self, InvalidRole> {
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if (1..=64).contains(&text.len())
            && text.starts_with(|c: char| c.is_ascii_lowercase())
            && text.chars().all(plain)
        {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidRole::Name(text.to_owned()))
        }
    }
}

/// A role that was read and holds to the schema.
#[derive(Debug, PartialEq, Eq)]
pub struct Role {
    name: RoleName,
    policies: PolicySet,
    gives: Permissions,
    gives_always: Permissions,
    forbids: Permissions,
}

impl Role {
    /// Reads a role.
    ///
    /// # Errors
    ///
    /// The text is no set of policies, or one that the schema does not allow; the error says where and why.
    pub fn read(name: RoleName, text: &str) -> Result<Self, InvalidRole> {
        if text.len() > LONGEST {
            return Err(InvalidRole::Long(text.len()));
        }
        // It is shown on terminals, and an auditor should see what holds.
        let is_hidden = |c: char| c.is_control() && !matches!(c, '\n' | '\t');
        if let Some(character) = text.chars().find(|c| is_hidden(*c) || is_reordering(*c)) {
            return Err(InvalidRole::Character(character));
        }
        if is_intricate(text) {
            return Err(InvalidRole::Intricate);
        }
        let policies = PolicySet::from_str(text).map_err(|error| {
            let problems: Vec<String> = error.iter().map(ToString::to_string).collect();
            InvalidRole::Syntax(told(problems))
        })?;
        if policies.templates().next().is_some() {
            return Err(InvalidRole::Template);
        }
        match policies.num_of_policies() {
            1..=MOST_POLICIES => {}
            count => return Err(InvalidRole::Policies(count)),
        }
        // An operator's name is free again when they are removed, and a role is given to others as it is.
        let names_somebody = |policy: &Policy| {
            let entities = policy.entity_literals();
            entities
                .iter()
                .any(|entity| entity.type_name().basename() == "Operator")
        };
        if policies.policies().any(names_somebody) {
            return Err(InvalidRole::Principal);
        }
        let checked = VALIDATOR.validate(&policies, ValidationMode::Strict);
        if !checked.validation_passed() {
            let problems = checked.validation_errors().map(ToString::to_string);
            return Err(InvalidRole::Schema(told(problems.collect())));
        }
        let mut role = Self {
            name,
            policies: PolicySet::new(),
            gives: Permissions::default(),
            gives_always: Permissions::default(),
            forbids: Permissions::default(),
        };
        for policy in policies.policies() {
            let about = permissions_of(policy);
            match policy.effect() {
                Effect::Forbid => role.forbids = role.forbids.union(about),
                Effect::Permit => {
                    role.gives = role.gives.union(about);
                    if has_no_condition(policy) {
                        role.gives_always = role.gives_always.union(about);
                    }
                }
            }
        }
        role.policies = policies;
        Ok(role)
    }

    /// What a list of permissions is as a role: a permit for each, without conditions, and for looking at things.
    ///
    /// # Errors
    ///
    /// Never: the text is made here.
    pub(super) fn of_list(permissions: Permissions) -> Result<Self, InvalidRole> {
        let text: String = permissions
            .union(Permission::LOOKING.iter().copied().collect())
            .iter()
            .map(|permission| {
                format!("permit (principal, action == Action::\"{permission}\", resource);\n")
            })
            .collect();
        Self::read(RoleName("permissions".to_owned()), &text)
    }

    /// Whether a policy names this tenant.
    #[must_use]
    pub fn names_tenant(&self, name: &str) -> bool {
        self.policies.policies().any(|policy| {
            policy.entity_literals().iter().any(|entity| {
                entity.type_name().basename() == "Tenant" && entity.id().unescaped() == name
            })
        })
    }

    /// Its name.
    #[must_use]
    pub const fn name(&self) -> &RoleName {
        &self.name
    }

    /// What it gives under some condition, or none.
    #[must_use]
    pub const fn gives(&self) -> Permissions {
        self.gives
    }

    /// What it gives without a condition.
    #[must_use]
    pub const fn gives_always(&self) -> Permissions {
        self.gives_always
    }

    /// What it forbids under some condition, or always.
    #[must_use]
    pub const fn forbids(&self) -> Permissions {
        self.forbids
    }

    /// The policies.
    pub(super) const fn policies(&self) -> &PolicySet {
        &self.policies
    }

    /// How a policy is called where somebody has to find it: as its `@id` says, or by its place.
    pub(super) fn called(&self, policy: &PolicyId) -> String {
        let policy = self.policies.policy(policy);
        policy.map_or_else(String::new, |policy| {
            let named = policy.annotation("id").map(str::to_owned);
            named.unwrap_or_else(|| policy.id().to_string())
        })
    }
}

/// The permissions that a policy is about, by its scope.
fn permissions_of(policy: &Policy) -> Permissions {
    let named = match policy.action_constraint() {
        ActionConstraint::Any => return Permissions::ALL,
        ActionConstraint::Eq(action) => vec![action],
        ActionConstraint::In(actions) => actions,
    };
    // The validator has seen to it that each is an action of the schema, and those are the permissions.
    let words = named.iter().map(|action| action.id().unescaped());
    words
        .filter_map(|word| Permission::from_str(word).ok())
        .collect()
}

/// Whether reading it may take more stack than there is: cedar reads and drops what is nested without a bound of its own.
/// Comments and texts count too; that is too strict, and plain.
fn is_intricate(text: &str) -> bool {
    let (mut depth, mut deepest) = (0_usize, 0);
    for character in text.chars() {
        match character {
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        deepest = deepest.max(depth);
    }
    let words = |word: &str| {
        text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
            .filter(|found| *found == word)
            .count()
    };
    let operators = text
        .chars()
        .filter(|c| matches!(c, '&' | '|' | '+' | '-' | '*' | '!'))
        .count();
    deepest > DEEPEST || words("if") > DEEPEST || operators > MOST_OPERATORS
}

/// Characters that turn the order of others around (CVE-2021-42574).
const fn is_reordering(c: char) -> bool {
    matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

fn has_no_condition(policy: &Policy) -> bool {
    !policy.has_non_scope_constraint()
        && policy.principal_constraint() == PrincipalConstraint::Any
        && policy.resource_constraint() == ResourceConstraint::Any
}

fn told(problems: Vec<String>) -> String {
    let left = problems.len().saturating_sub(MOST_PROBLEMS);
    // Each on one line, however it was laid out.
    let line = |problem: String| problem.split_whitespace().collect::<Vec<_>>().join(" ");
    let lines = problems.into_iter().take(MOST_PROBLEMS).map(line);
    let mut text = lines.collect::<Vec<_>>().join("; ");
    if left > 0 {
        text.push_str(&format!("; and {left} more"));
    }
    text
}

/// The text is no role.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidRole {
    /// It is too deep.
    #[error(
        "it is too intricate: brackets may be nested {DEEPEST} deep, `if` may stand {DEEPEST} times, and & | + - * ! together {MOST_OPERATORS} times"
    )]
    Intricate,
    /// It is about a person.
    #[error("it names an operator; give the role to those who are to have it")]
    Principal,
    /// It would be shown in messages and the audit log.
    #[error("{} is no name for a role (1 to 64 lower-case letters, digits and -, the first a letter)", .0.escape_debug())]
    Name(String),
    /// Too long.
    #[error("the policies of a role have at most {LONGEST} bytes, and these {0}")]
    Long(usize),
    /// Something that does not show.
    #[error("the text has a character that does not show ({})", .0.escape_unicode())]
    Character(char),
    /// Not Cedar.
    #[error("the text is not a set of Cedar policies: {0}")]
    Syntax(String),
    /// A policy with a gap.
    #[error("a role has no templates (?principal, ?resource)")]
    Template,
    /// None, or too many.
    #[error("a role has 1 to {MOST_POLICIES} policies, and this text {0}")]
    Policies(usize),
    /// Cedar, about something else.
    #[error("the policies do not hold to the schema: {0}")]
    Schema(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Role, InvalidRole> {
        Role::read("x".parse().expect("a name"), text)
    }

    #[test]
    fn the_actions_of_the_schema_are_the_permissions() {
        let (schema, warnings) = Schema::from_cedarschema_str(SCHEMA).expect("is a schema");
        assert_eq!(warnings.count(), 0);
        let mut actions: Vec<String> = schema
            .actions()
            .map(|action| action.id().unescaped().to_owned())
            .collect();
        actions.sort();
        let mut permissions: Vec<&str> = Permission::ALL.iter().map(|p| p.as_str()).collect();
        permissions.sort_unstable();
        assert_eq!(actions, permissions);
    }

    #[test]
    fn what_is_nested_deeper_than_it_can_be_read_is_refused_before() {
        let when = |condition: &str| {
            format!("permit (principal, action, resource) when {{ {condition} }};")
        };
        for condition in [
            format!("{}true{}", "(".repeat(4000), ")".repeat(4000)),
            "if true then true else ".repeat(400) + "true",
            "true && ".repeat(1500) + "true",
            "[".repeat(4000),
        ] {
            let read = read(&when(&condition));
            assert_eq!(read, Err(InvalidRole::Intricate));
        }
        let some = format!("{}true{}", "(".repeat(20), ")".repeat(20));
        read(&when(&some)).expect("is a role");
    }

    #[test]
    fn a_role_is_about_nobody_by_name() {
        for text in [
            "permit (principal == Operator::\"bob\", action, resource);",
            "permit (principal, action, resource) when { principal == Operator::\"bob\" };",
        ] {
            assert_eq!(read(text), Err(InvalidRole::Principal), "{text}");
        }
    }

    #[test]
    fn the_documented_schema_and_example_are_those_of_the_host() {
        let page = include_str!("../../../docs/permissions.md");
        assert!(
            page.contains(SCHEMA),
            "docs/permissions.md has another schema"
        );
        let example = page
            .split("```cedar\n")
            .nth(1)
            .and_then(|rest| rest.split("```").next())
            .expect("an example");
        read(example).expect("the example is a role");
    }

    #[test]
    fn a_role_that_does_not_hold_to_the_schema_is_refused_with_the_reason() {
        for (text, reason) in [
            ("", "this text 0"),
            (
                "permit (principal, action, resource)",
                "not a set of Cedar policies",
            ),
            (
                "permit (principal, action == Action::\"Fly\", resource);",
                "Fly",
            ),
            (
                "permit (principal, action == Action::\"ReadAudit\", resource) when { context.targets < 2 };",
                "targets",
            ),
            (
                "permit (principal, action == Action::\"RemoteExecution\", resource) when { context.run_as == \"x\" };",
                "run_as",
            ),
            (
                "permit (principal, action == Action::\"RemoteExecution\", resource) when { context.targets < \"2\" };",
                "Long",
            ),
            (
                "permit (principal == ?principal, action, resource);",
                "templates",
            ),
            (
                "// \u{202e}\npermit (principal, action, resource);",
                "does not show",
            ),
            (
                "// \u{1b}[2J\npermit (principal, action, resource);",
                "does not show",
            ),
            (
                "permit (principal in Group::\"x\", action, resource);",
                "Group",
            ),
        ] {
            let error = read(text).expect_err(text).to_string();
            assert!(error.contains(reason), "{text}: {error}");
        }
        let many = "permit (principal, action, resource);".repeat(MOST_POLICIES + 1);
        assert_eq!(
            read(&many).expect_err("is refused"),
            InvalidRole::Policies(MOST_POLICIES + 1)
        );
        let long = format!("// {}", "x".repeat(LONGEST));
        assert!(matches!(read(&long), Err(InvalidRole::Long(_))));
    }

    #[test]
    fn what_a_role_gives_always_sometimes_and_never_is_known() {
        let role = read(
            "permit (principal, action == Action::\"ReadJobs\", resource);
             permit (principal, action == Action::\"RemoteExecution\", resource) when { context.targets < 2 };
             permit (principal, action == Action::\"ReadAudit\", resource == Tenant::\"a\");
             forbid (principal, action == Action::\"UseSecret\", resource);",
        )
        .expect("is a role");
        let words = |set: Permissions| set.iter().map(Permission::as_str).collect::<Vec<_>>();
        assert_eq!(
            words(role.gives()),
            ["RemoteExecution", "ReadAudit", "ReadJobs"]
        );
        assert_eq!(words(role.gives_always()), ["ReadJobs"]);
        assert_eq!(words(role.forbids()), ["UseSecret"]);
        assert_eq!(
            read("forbid (principal, action, resource);")
                .expect("is a role")
                .forbids(),
            Permissions::ALL
        );
    }

    #[test]
    fn names_are_plain() {
        for name in ["night-shift", "a", "x2"] {
            assert!(name.parse::<RoleName>().is_ok(), "{name}");
        }
        for name in ["", "A", "-a", "2x", "a b", "a\u{202e}", &"a".repeat(65)] {
            assert!(name.parse::<RoleName>().is_err(), "{name}");
        }
    }
}
