//! The decision: may this operator do this? Cedar answers for each role; here the answers become one.
//!
//! ```text
//! a forbid of any role holds, also of one at home     -> no, whatever is permitted
//! a policy cannot be evaluated                        -> no
//! a permit of one of the operator's roles holds, and
//!   the token leaves it to the operator, or has one too -> yes
//! else                                                -> no
//! ```

use std::sync::{Arc, LazyLock};

use cedar_policy::{
    Authorizer, Context, Decision, Entities, EntityId, EntityTypeName, EntityUid, Request,
    RestrictedExpression,
};

use super::{Permission, Permissions, Role};

/// What is asked.
#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    /// The operator's name.
    pub operator: &'a str,
    /// The tenant's name.
    pub tenant: &'a str,
    /// What they want to do.
    pub permission: Permission,
    /// What it is about.
    pub about: About<'a>,
}

/// What an action is about beyond the tenant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum About<'a> {
    /// Nothing more.
    Tenant,
    /// A machine, by its tags (`key=value`).
    Machine(&'a [String]),
    /// A script on a machine.
    Run {
        /// The machine's tags.
        tags: &'a [String],
        /// The script.
        run: Run<'a>,
    },
    /// A secret for a script on a machine.
    Secret {
        /// The machine's tags.
        tags: &'a [String],
        /// The script.
        run: Run<'a>,
        /// The secret's name.
        secret: &'a str,
    },
}

/// What is to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run<'a> {
    /// The library's script; none where the text comes with the request.
    pub script: Option<&'a str>,
    /// The user; none where it is the machine's default.
    pub run_as: Option<&'a str>,
    /// The number of machines.
    pub targets: u64,
}

/// What an operator may do: by their roles, and as far as their token leaves it to them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Rights {
    /// The operator's.
    held: Vec<Arc<Role>>,
    /// What narrows that, each for itself: the token's, and what is left in a tenant that is archived.
    scopes: Vec<Vec<Arc<Role>>>,
    /// Those of an operator at home, where they act elsewhere: what they forbid holds there too, what they permit does not.
    bound: Vec<Arc<Role>>,
}

/// Why not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum No {
    /// Nobody gives it.
    Missing,
    /// A role takes it away.
    Forbidden {
        /// The role.
        role: String,
        /// Which of its policies.
        policy: String,
    },
    /// The question has no form that policies could be asked about, or a policy failed on it.
    Unclear,
}

impl Rights {
    /// Those of an operator with these roles, by a token that is narrowed to `scope` where there is one.
    #[must_use]
    pub fn new(held: Vec<Arc<Role>>, scope: Option<Vec<Arc<Role>>>) -> Self {
        Self {
            held,
            scopes: scope.into_iter().collect(),
            bound: Vec::new(),
        }
    }

    /// The same, of which only what these permit too is left.
    #[must_use]
    pub fn narrowed_to(mut self, scope: Vec<Arc<Role>>) -> Self {
        self.scopes.push(scope);
        self
    }

    /// The same without what these forbid.
    #[must_use]
    pub fn bound_by(mut self, roles: Vec<Arc<Role>>) -> Self {
        self.bound = roles;
        self
    }

    /// What may be done under some condition, or none. Costs nothing: nobody is asked.
    #[must_use]
    pub fn some(&self) -> Permissions {
        let given = |roles: &[Arc<Role>]| {
            roles
                .iter()
                .fold(Permissions::default(), |all, role| all.union(role.gives()))
        };
        let held = given(&self.held);
        self.scopes.iter().fold(held, |left, scope| {
            let scope = given(scope);
            let both =
                |permission: &Permission| reaches(left, *permission) && reaches(scope, *permission);
            Permission::ALL.iter().copied().filter(both).collect()
        })
    }

    /// Whether something may be done under some condition, or none.
    #[must_use]
    pub fn may_some(&self, permission: Permission) -> bool {
        let in_some =
            |roles: &[Arc<Role>]| roles.iter().any(|role| reaches(role.gives(), permission));
        in_some(&self.held) && self.scopes.iter().all(|scope| in_some(scope))
    }

    /// Whether something may be done without any condition: then the answer is the same for every machine.
    #[must_use]
    pub fn may_always(&self, permission: Permission) -> bool {
        let unbound = |roles: &[Arc<Role>]| {
            roles.iter().all(|role| {
                !role.forbids().contains(permission)
                    && permission
                        .given_by()
                        .is_none_or(|wider| !role.forbids().contains(wider))
            })
        };
        let always = |roles: &[Arc<Role>]| {
            roles
                .iter()
                .any(|role| reaches(role.gives_always(), permission))
                && unbound(roles)
        };
        always(&self.held) && self.scopes.iter().all(|scope| always(scope)) && unbound(&self.bound)
    }

    /// What of `roles` the operator cannot give to somebody: they have it not at all, or under a condition. A role that is
    /// theirs they can give as it is.
    #[must_use]
    pub fn cannot_give(&self, roles: &[Arc<Role>]) -> Option<Permission> {
        let reached = |role: &Role| -> Permissions {
            let all = Permission::ALL.iter().copied();
            all.filter(|permission| reaches(role.gives(), *permission))
                .collect()
        };
        // What forbids them something of it goes with it: nobody sheds that by giving the rest to somebody new.
        let stays_bound = |role: &Role| {
            self.held.iter().chain(&self.bound).all(|held| {
                let forbidden = |permission| held.forbids().contains(permission);
                roles.contains(held) || !reached(role).iter().any(forbidden)
            })
        };
        // By what they say, not by name: a list of permissions is no role of anybody's.
        let theirs = |role: &Arc<Role>| {
            self.scopes.is_empty() && self.held.contains(role) && stays_bound(role)
        };
        let foreign = roles.iter().filter(|role| !theirs(role));
        foreign
            .flat_map(|role| reached(role).iter())
            .find(|permission| !self.may_always(*permission))
    }

    /// What of the forbids of `roles` the operator cannot lift: what they could not do with those in force.
    #[must_use]
    pub fn cannot_lift(&self, roles: &[Arc<Role>]) -> Option<Permission> {
        roles
            .iter()
            .flat_map(|role| role.forbids().iter())
            .find(|permission| !self.may_always(*permission))
    }

    /// The names of the operator's roles.
    pub fn roles(&self) -> impl Iterator<Item = &str> {
        self.held.iter().map(|role| role.name().as_str())
    }

    /// Asks.
    ///
    /// # Errors
    ///
    /// The answer is no.
    pub fn decide(&self, question: &Question<'_>) -> Result<(), No> {
        forbidden(&self.bound, question)?;
        by(&self.held, question)?;
        self.scopes.iter().try_for_each(|scope| by(scope, question))
    }
}

fn reaches(given: Permissions, permission: Permission) -> bool {
    given.contains(permission)
        || permission
            .given_by()
            .is_some_and(|wider| given.contains(wider))
}

/// Whether one of these roles forbids it; whether one permits it does not count.
fn forbidden(roles: &[Arc<Role>], question: &Question<'_>) -> Result<(), No> {
    match by(roles, question) {
        Err(No::Missing) => Ok(()),
        answer => answer,
    }
}

/// The answer of roles that are held together.
fn by(roles: &[Arc<Role>], question: &Question<'_>) -> Result<(), No> {
    match asked(roles, question) {
        Err(No::Missing) => {
            let wider = question.permission.given_by().ok_or(No::Missing)?;
            let question = Question {
                permission: wider,
                ..*question
            };
            asked(roles, &question)
        }
        answer => answer,
    }
}

fn asked(roles: &[Arc<Role>], question: &Question<'_>) -> Result<(), No> {
    let request = request(question).ok_or(No::Unclear)?;
    let (nothing, authorizer) = (Entities::empty(), Authorizer::new());
    let mut permitted = false;
    for role in roles {
        let permission = question.permission;
        if !role.gives().contains(permission) && !role.forbids().contains(permission) {
            continue;
        }
        let answer = authorizer.is_authorized(&request, role.policies(), &nothing);
        // A forbid that fails would be left out of the answer.
        if answer.diagnostics().errors().next().is_some() {
            return Err(No::Unclear);
        }
        match answer.decision() {
            Decision::Allow => permitted = true,
            Decision::Deny => {
                if let Some(policy) = answer.diagnostics().reason().next() {
                    return Err(No::Forbidden {
                        role: role.name().to_string(),
                        policy: role.called(policy),
                    });
                }
            }
        }
    }
    if permitted { Ok(()) } else { Err(No::Missing) }
}

static OPERATOR: LazyLock<EntityTypeName> = LazyLock::new(|| type_name("Operator"));
static TENANT: LazyLock<EntityTypeName> = LazyLock::new(|| type_name("Tenant"));
static ACTION: LazyLock<EntityTypeName> = LazyLock::new(|| type_name("Action"));

fn type_name(name: &str) -> EntityTypeName {
    name.parse().expect("a plain name is one of a type")
}

fn entity(kind: &EntityTypeName, id: &str) -> EntityUid {
    EntityUid::from_type_name_and_id(kind.clone(), EntityId::new(id))
}

/// The question in Cedar's form; none where there is no such.
fn request(question: &Question<'_>) -> Option<Request> {
    let mut pairs = Vec::new();
    let (tags, run, secret) = match question.about {
        About::Tenant => (None, None, None),
        About::Machine(tags) => (Some(tags), None, None),
        About::Run { tags, run } => (Some(tags), Some(run), None),
        About::Secret { tags, run, secret } => (Some(tags), Some(run), Some(secret)),
    };
    let text = |text: &str| RestrictedExpression::new_string(text.to_owned());
    let mut put = |key: &str, value| pairs.push((key.to_owned(), value));
    if let Some(tags) = tags {
        put(
            "tags",
            RestrictedExpression::new_set(tags.iter().map(|tag| text(tag))),
        );
    }
    if let Some(run) = run {
        put(
            "targets",
            RestrictedExpression::new_long(i64::try_from(run.targets).ok()?),
        );
        if let Some(script) = run.script {
            put("script", text(script));
        }
        if let Some(user) = run.run_as {
            put("run_as", text(user));
        }
    }
    if let Some(secret) = secret {
        put("secret", text(secret));
    }
    let context = Context::from_pairs(pairs).ok()?;
    Request::new(
        entity(&OPERATOR, question.operator),
        entity(&ACTION, question.permission.as_str()),
        entity(&TENANT, question.tenant),
        context,
        None,
    )
    .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn role(name: &str, text: &str) -> Arc<Role> {
        Arc::new(Role::read(name.parse().expect("a name"), text).expect("is a role"))
    }

    fn run<'a>(permission: Permission, tags: &'a [String], run: Run<'a>) -> Question<'a> {
        Question {
            operator: "ann",
            tenant: "default",
            permission,
            about: About::Run { tags, run },
        }
    }

    const ONE: Run<'static> = Run {
        script: None,
        run_as: Some("nobody"),
        targets: 1,
    };

    fn tags(words: &[&str]) -> Vec<String> {
        words.iter().map(|&word| word.to_owned()).collect()
    }

    #[test]
    fn a_role_of_ones_own_is_given_with_those_that_forbid_something_of_it_alone() {
        let all = role("all", "permit (principal, action, resource);");
        let bound = role(
            "bound",
            "forbid (principal, action == Action::\"RemoteExecution\", resource) when { context.tags.contains(\"env=prod\") };",
        );
        let rights = Rights::new(vec![Arc::clone(&all), Arc::clone(&bound)], None);
        assert_eq!(
            rights.cannot_give(&[Arc::clone(&all)]),
            Some(Permission::RemoteExecution)
        );
        assert_eq!(rights.cannot_give(&[all, bound]), None);
    }

    #[test]
    fn conditions_on_tag_script_user_number_and_tenant_hold() {
        let rights = |text: &str| Rights::new(vec![role("x", text)], None);
        let test = tags(&["env=test", "os=linux"]);
        let prod = tags(&["env=prod"]);
        let permit = |condition: &str| {
            rights(&format!(
                "permit (principal, action == Action::\"RemoteExecution\", resource) when {{ {condition} }};"
            ))
        };
        let tag = permit("context.tags.contains(\"env=test\")");
        let ask = |rights: &Rights, tags: &[String], one: Run<'_>| {
            rights.decide(&run(Permission::RemoteExecution, tags, one))
        };
        assert_eq!(ask(&tag, &test, ONE), Ok(()));
        assert_eq!(ask(&tag, &prod, ONE), Err(No::Missing));
        assert_eq!(ask(&tag, &[], ONE), Err(No::Missing));
        let number = permit("context.targets <= 10");
        assert_eq!(ask(&number, &test, Run { targets: 10, ..ONE }), Ok(()));
        assert_eq!(
            ask(&number, &test, Run { targets: 11, ..ONE }),
            Err(No::Missing)
        );
        let user = permit("context has run_as && context.run_as == \"nobody\"");
        assert_eq!(ask(&user, &test, ONE), Ok(()));
        assert_eq!(
            ask(
                &user,
                &test,
                Run {
                    run_as: Some("root"),
                    ..ONE
                }
            ),
            Err(No::Missing)
        );
        assert_eq!(
            ask(
                &user,
                &test,
                Run {
                    run_as: None,
                    ..ONE
                }
            ),
            Err(No::Missing)
        );
        let script = permit("context has script && context.script like \"disk-*\"");
        assert_eq!(
            ask(
                &script,
                &test,
                Run {
                    script: Some("disk-free"),
                    ..ONE
                }
            ),
            Ok(())
        );
        assert_eq!(ask(&script, &test, ONE), Err(No::Missing));
        let tenant = rights("permit (principal, action, resource == Tenant::\"other\");");
        assert_eq!(ask(&tenant, &test, ONE), Err(No::Missing));
    }

    #[test]
    fn a_forbid_wins_over_every_permit_and_is_named() {
        let no_prod =
            "@id(\"no-prod\") forbid (principal, action == Action::\"RemoteExecution\", resource)
                       when { context.tags.contains(\"env=prod\") };";
        let rights = Rights::new(
            vec![
                role("owner", "permit (principal, action, resource);"),
                role("careful", no_prod),
            ],
            None,
        );
        let prod = tags(&["env=prod"]);
        let forbidden = Err(No::Forbidden {
            role: "careful".to_owned(),
            policy: "no-prod".to_owned(),
        });
        assert_eq!(
            rights.decide(&run(Permission::RemoteExecution, &prod, ONE)),
            forbidden
        );
        assert_eq!(
            rights.decide(&run(Permission::RemoteExecution, &[], ONE)),
            Ok(())
        );
        assert!(!rights.may_always(Permission::RemoteExecution));
        assert!(rights.may_always(Permission::ReadAudit));
    }

    #[test]
    fn a_policy_that_cannot_be_evaluated_refuses() {
        let overflows = "forbid (principal, action == Action::\"RemoteExecution\", resource)
                         when { context.targets * 9223372036854775807 > 5 };";
        let rights = Rights::new(
            vec![role(
                "x",
                &format!("permit (principal, action, resource); {overflows}"),
            )],
            None,
        );
        let many = Run { targets: 3, ..ONE };
        assert_eq!(
            rights.decide(&run(Permission::RemoteExecution, &[], many)),
            Err(No::Unclear)
        );
    }

    #[test]
    fn who_may_run_any_script_may_run_a_stored_one_unless_that_is_forbidden() {
        let any = role(
            "any",
            "permit (principal, action == Action::\"RemoteExecution\", resource);",
        );
        let stored = run(Permission::RunStoredScripts, &[], ONE);
        let rights = Rights::new(vec![Arc::clone(&any)], None);
        assert_eq!(rights.decide(&stored), Ok(()));
        assert!(rights.may_some(Permission::RunStoredScripts));
        assert!(
            !Rights::new(
                vec![role(
                    "s",
                    "permit (principal, action == Action::\"RunStoredScripts\", resource);"
                )],
                None
            )
            .may_some(Permission::RemoteExecution)
        );
        let none = role(
            "none",
            "forbid (principal, action == Action::\"RunStoredScripts\", resource);",
        );
        let rights = Rights::new(vec![any, none], None);
        assert!(matches!(rights.decide(&stored), Err(No::Forbidden { .. })));
    }

    #[test]
    fn a_token_has_at_most_what_its_operator_has() {
        let reader = role(
            "r",
            "permit (principal, action == Action::\"ReadAudit\", resource);",
        );
        let all = role("all", "permit (principal, action, resource);");
        let ask = |rights: &Rights, permission| {
            rights.decide(&Question {
                operator: "ann",
                tenant: "default",
                permission,
                about: About::Tenant,
            })
        };
        for (held, scope) in [(&reader, &all), (&all, &reader)] {
            let rights = Rights::new(vec![Arc::clone(held)], Some(vec![Arc::clone(scope)]));
            assert_eq!(ask(&rights, Permission::ReadAudit), Ok(()));
            assert_eq!(ask(&rights, Permission::Administer), Err(No::Missing));
            assert_eq!(
                rights.some().iter().collect::<Vec<_>>(),
                [Permission::ReadAudit]
            );
            assert!(rights.may_some(Permission::ReadAudit));
            assert!(!rights.may_some(Permission::Administer));
        }
        let nothing = Rights::new(vec![all], Some(Vec::new()));
        assert_eq!(ask(&nothing, Permission::ReadAudit), Err(No::Missing));
    }

    #[test]
    fn nobody_gives_what_they_have_under_a_condition_or_not_at_all() {
        let some = role(
            "some",
            "permit (principal, action == Action::\"RemoteExecution\", resource) when { context.targets < 2 };
             permit (principal, action == Action::\"Administer\", resource);",
        );
        let all = role(
            "all",
            "permit (principal, action == Action::\"RemoteExecution\", resource);",
        );
        let rights = Rights::new(vec![Arc::clone(&some)], None);
        assert_eq!(
            rights.cannot_give(&[Arc::clone(&some)]),
            None,
            "their own role"
        );
        assert_eq!(
            rights.cannot_give(&[Arc::clone(&all)]),
            Some(Permission::RemoteExecution)
        );
        let narrow = role(
            "narrow",
            "forbid (principal, action == Action::\"ReadAudit\", resource);",
        );
        assert_eq!(rights.cannot_lift(&[narrow]), Some(Permission::ReadAudit));
        let listed = |names: &[Permission]| {
            Arc::new(Role::of_list(names.iter().copied().collect()).expect("is a role"))
        };
        let rights_of_list = Rights::new(vec![listed(&[Permission::Administer])], None);
        let namesake = role("permissions", "permit (principal, action, resource);");
        assert!(
            rights_of_list.cannot_give(&[namesake]).is_some(),
            "a list is no role"
        );
        let wide = Rights::new(vec![all], None);
        assert_eq!(wide.cannot_give(&[some]), Some(Permission::Administer));
    }
}
