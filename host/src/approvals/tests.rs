//! Rules, who counts, and what fits, without a host.

use std::sync::Arc;

use sluice_api_types::approval::ApprovalRule;
use sluice_api_types::job::Variable;
use sluice_protocol::bundle::{self, Submission};
use sluice_protocol::digest::Digest;
use sluice_protocol::report::Severity;
use sluice_protocol::units::{ByteSize, Span};
use uuid::Uuid;

use super::*;
use crate::library::VersionId;
use crate::store::bindings::TagPair;
use crate::store::tokens::Maker;

fn rule(change: impl FnOnce(&mut ApprovalRule)) -> ApprovalRule {
    let mut rule = ApprovalRule {
        approvers: 1,
        targets: None,
        run_as: Vec::new(),
        tags: Vec::new(),
        findings: None,
    };
    change(&mut rule);
    rule
}

fn policy(rules: &[ApprovalRule]) -> Policy {
    Policy::read(rules, None).expect("makes sense")
}

fn machine(tags: &[(&str, &str)], worst: Option<Severity>) -> MachineFacts {
    let tag = |(key, value): &(&str, &str)| TagPair {
        key: (*key).to_owned(),
        value: (*value).to_owned(),
    };
    MachineFacts {
        tags: tags.iter().map(tag).collect(),
        worst,
        found: Arc::default(),
    }
}

fn facts(machines: Vec<MachineFacts>) -> Facts<'static> {
    Facts {
        run_as: None,
        skips_scan: false,
        of: 0,
        machines,
    }
}

fn approvers(policy: &Policy, facts: &Facts<'_>) -> Option<u64> {
    need(policy, facts).map(|need| need.approvers)
}

#[test]
fn a_job_waits_from_the_number_of_machines_of_a_rule_on_and_for_the_most_that_one_asks_for() {
    let policy = policy(&[
        rule(|rule| rule.targets = Some(3)),
        rule(|rule| (rule.targets, rule.approvers) = (Some(5), 2)),
    ]);
    let with = |count| facts(vec![machine(&[], None); count]);
    let needed = [0, 1, 2, 3, 4, 5, 6].map(|count| approvers(&policy, &with(count)));
    let expected = [None, None, None, Some(1), Some(1), Some(2), Some(2)];
    assert_eq!(needed, expected);
    let because = need(&policy, &with(5)).expect("waits").because;
    assert_eq!(because, ["it is for 5 machines", "it is for 5 machines"]);
    // One machine of a job that had five is not one machine.
    let part = Facts { of: 5, ..with(1) };
    assert_eq!(approvers(&policy, &part), Some(2));
    assert_eq!(approvers(&policy, &Facts { of: 5, ..with(0) }), None);
}

#[test]
fn what_was_found_that_a_rule_is_about_is_told_with_the_number_of_machines_and_the_gravest_first() {
    let policy = policy(&[rule(|rule| {
        rule.tags = vec!["env=production".to_owned()];
        rule.findings = Some(Severity::Medium);
    })]);
    let found = |rule: &str, severity| Found {
        severity,
        gate: "scanner".to_owned(),
        rule: rule.to_owned(),
    };
    let on = |env: &str, what: &[Found]| MachineFacts {
        found: Arc::new(what.to_vec()),
        ..machine(&[("env", env)], what.iter().map(|it| it.severity).max())
    };
    let (low, medium, high) = (
        found("low", Severity::Low),
        found("medium", Severity::Medium),
        found("high", Severity::High),
    );
    let asked = facts(vec![
        on("production", &[low.clone(), medium.clone(), high]),
        on("production", &[medium]),
        on("production", &[low]),
        on("test", &[found("elsewhere", Severity::Critical)]),
    ]);
    let told = need(&policy, &asked).expect("waits").found;
    let told: Vec<String> = told.iter().map(ToString::to_string).collect();
    assert_eq!(
        told,
        [
            "scanner/high (high, 1 machine)",
            "scanner/medium (medium, 2 machines)"
        ]
    );
    let many: Vec<Found> = (0..100)
        .map(|number| found(&format!("{number:03}"), Severity::High))
        .collect();
    let many = facts(vec![on("production", &many)]);
    assert_eq!(need(&policy, &many).expect("waits").found.len(), 20);
}

#[test]
fn users_tags_and_findings_of_a_rule_must_all_hold_and_a_scan_that_is_left_out_finds_everything() {
    let policy = policy(&[rule(|rule| {
        rule.targets = Some(2);
        rule.run_as = vec!["root".to_owned(), "default".to_owned()];
        rule.tags = vec!["env=production".to_owned()];
        rule.findings = Some(Severity::High);
    })]);
    let production = |worst| machine(&[("env", "production"), ("role", "web")], worst);
    let grave = || {
        facts(vec![
            production(Some(Severity::Critical)),
            production(Some(Severity::High)),
        ])
    };
    assert_eq!(approvers(&policy, &grave()), Some(1));
    let root = Facts {
        run_as: Some("root"),
        ..grave()
    };
    assert_eq!(
        need(&policy, &root).expect("waits").because,
        ["it is for 2 machines with env=production and runs as root and has findings from high on"]
    );
    let below = [
        Facts {
            run_as: Some("nobody"),
            ..grave()
        },
        facts(vec![
            production(Some(Severity::High)),
            production(Some(Severity::Medium)),
        ]),
        facts(vec![production(Some(Severity::High)), production(None)]),
        facts(vec![
            production(Some(Severity::High)),
            machine(&[("env", "test")], Some(Severity::High)),
        ]),
    ];
    for facts in below {
        assert_eq!(need(&policy, &facts), None, "{facts:?}");
    }
    let unscanned = Facts {
        skips_scan: true,
        ..facts(vec![production(None), production(None)])
    };
    assert_eq!(approvers(&policy, &unscanned), Some(1));
}

#[test]
fn what_makes_no_policy_is_refused_with_the_reason() {
    let wrong = [
        rule(|rule| rule.approvers = 0),
        rule(|rule| rule.approvers = 11),
        rule(|rule| rule.targets = Some(0)),
        rule(|rule| rule.run_as = vec![String::new()]),
        rule(|rule| rule.run_as = vec!["a:b".to_owned()]),
        rule(|rule| rule.tags = vec!["production".to_owned()]),
        rule(|rule| rule.tags = vec!["=production".to_owned()]),
        rule(|rule| rule.tags = vec!["a=b".to_owned(); 21]),
    ];
    for rule in wrong {
        assert!(
            Policy::read(std::slice::from_ref(&rule), None).is_err(),
            "{rule:?}"
        );
    }
    for expires in [0, 7 * 24 * 3600 + 1] {
        assert!(Policy::read(&[], Some(Span::seconds(expires))).is_err());
    }
    assert!(Policy::read(&vec![rule(|_| {}); 21], None).is_err());
    assert_eq!(policy(&[]).expires, Span::seconds(24 * 3600));
}

#[test]
fn a_policy_is_weaker_where_some_job_could_wait_for_fewer() {
    let before = policy(&[rule(|rule| {
        rule.approvers = 2;
        rule.targets = Some(10);
        rule.run_as = vec!["root".to_owned()];
        rule.tags = vec!["env=production".to_owned()];
        rule.findings = Some(Severity::High);
    })]);
    let other = |change: &dyn Fn(&mut ApprovalRule)| {
        let mut rule = before.rules[0].shown();
        change(&mut rule);
        policy(&[rule]).is_weaker_than(&before)
    };
    let weaker: [&dyn Fn(&mut ApprovalRule); 5] = [
        &|rule| rule.approvers = 1,
        &|rule| rule.targets = Some(11),
        &|rule| rule.run_as = vec!["admin".to_owned()],
        &|rule| rule.tags.push("role=web".to_owned()),
        &|rule| rule.findings = Some(Severity::Critical),
    ];
    for (index, change) in weaker.into_iter().enumerate() {
        assert!(other(change), "{index}");
    }
    let stronger: [&dyn Fn(&mut ApprovalRule); 6] = [
        &|_| {},
        &|rule| rule.approvers = 3,
        &|rule| rule.targets = Some(9),
        &|rule| rule.run_as.clear(),
        &|rule| rule.tags.clear(),
        &|rule| rule.findings = None,
    ];
    for (index, change) in stronger.into_iter().enumerate() {
        assert!(!other(change), "{index}");
    }
    assert!(policy(&[]).is_weaker_than(&before));
    assert!(!before.is_weaker_than(&policy(&[])));
    // A rule for everybody is not kept by one for some.
    let everybody = policy(&[rule(|_| {})]);
    let some = policy(&[rule(|rule| rule.run_as = vec!["root".to_owned()])]);
    assert!(some.is_weaker_than(&everybody));
}

fn somebody(name: &str, makers: &[&Approver]) -> Approver {
    let mut all: Vec<Maker> = makers.iter().map(|maker| maker.who.clone()).collect();
    all.extend(makers.iter().flat_map(|maker| maker.makers.clone()));
    Approver {
        who: Maker {
            token: Uuid::now_v7(),
            operator: Uuid::now_v7(),
            name: name.to_owned(),
        },
        makers: all,
        provider: None,
    }
}

#[test]
fn those_who_may_be_one_person_count_once_and_the_submitter_never() {
    let (bob, carol, dave) = (
        somebody("bob", &[]),
        somebody("carol", &[]),
        somebody("dave", &[]),
    );
    let names = |approvers: &[&Approver]| {
        let counted = others(approvers.iter().copied(), &bob);
        let names = counted.iter().map(|one| one.who.name.clone());
        names.collect::<Vec<_>>()
    };
    assert_eq!(names(&[&carol, &dave]), ["carol", "dave"]);
    assert!(names(&[&bob]).is_empty());
    let mut second = somebody("carol-at-home", &[]);
    second.who.operator = carol.who.operator;
    assert_eq!(names(&[&carol, &second, &dave]), ["carol", "dave"]);
    let again = somebody("carol", &[]);
    assert_eq!(names(&[&carol, &again]), ["carol"]);
    let bobs = somebody("ci", &[&bob]);
    let child = somebody("child", &[&carol]);
    let grandchild = somebody("grandchild", &[&child]);
    assert!(names(&[&bobs]).is_empty());
    assert_eq!(names(&[&carol, &grandchild]), ["carol"]);
    assert_eq!(names(&[&grandchild, &carol]), ["grandchild"]);
    // Two who were made by a third are not one.
    assert_eq!(
        names(&[&somebody("x", &[&carol]), &somebody("y", &[&carol])]),
        ["x", "y"]
    );
    // But where that is an operator of the provider who works by a grant, they are, and are the operator.
    let tim = Uuid::now_v7();
    let by_tim = |name| Approver {
        provider: Some(tim),
        ..somebody(name, &[])
    };
    let (x, y) = (by_tim("x"), by_tim("y"));
    assert_eq!(names(&[&x, &y, &by_tim("provider/tim")]), ["x"]);
    let kim = Approver {
        provider: Some(Uuid::now_v7()),
        ..somebody("provider/kim", &[])
    };
    assert_eq!(names(&[&x, &kim]), ["x", "provider/kim"]);
    let provider_tim = by_tim("provider/tim");
    assert_eq!(others([&provider_tim, &kim], &x), [&kim]);
}

fn parameter(name: &str, value: &str) -> bundle::Variable {
    bundle::Variable {
        name: name.to_owned(),
        value: value.to_owned(),
    }
}

#[test]
fn a_job_fits_a_standing_approval_where_nothing_of_it_was_not_approved() {
    let mut submission = Submission::of("#!/bin/sh\n");
    submission.run_as = Some("root".to_owned());
    submission.parameters = vec![parameter("a", "1")];
    let machines = vec![machine(&[("env", "test")], None); 2];
    let standing = Standing {
        script_sha256: Digest::of(&submission.script),
        script: None,
        run_as: vec!["root".to_owned()],
        parameters: Some(vec![Variable {
            name: "a".to_owned(),
            value: "1".to_owned(),
        }]),
        tags: machine(&[("env", "test")], None).tags,
        targets: 2,
    };
    let fits_with = |standing: &Standing, submission: &Submission, machines: &[MachineFacts]| {
        fits(
            standing,
            &Asked {
                submission,
                as_stored: None,
                skips_scan: false,
                machines,
            },
        )
    };
    assert!(fits_with(&standing, &submission, &machines));
    let any = Standing {
        parameters: None,
        ..standing.clone()
    };
    type Change<'a> = (&'a str, &'a dyn Fn(&mut Submission));
    let changes: [Change<'_>; 12] = [
        ("another script", &|it| it.script.push(b'\n')),
        ("another user", &|it| it.run_as = Some("nobody".to_owned())),
        ("the default user", &|it| it.run_as = None),
        ("an interpreter", &|it| {
            it.interpreter = Some("perl".to_owned())
        }),
        ("a variable", &|it| it.environment.push(parameter("B", "1"))),
        ("a secret", &|it| it.secrets.push("s".to_owned())),
        ("an attachment", &|it| {
            it.attachments.push(bundle::Attachment {
                name: "f".to_owned(),
                size: 0,
                sha256: Digest::of(b""),
            });
        }),
        ("a declaration", &|it| it.declared = Some(String::new())),
        ("another time limit", &|it| {
            it.limits.time = Some(Span::seconds(1));
        }),
        ("another limit of output", &|it| {
            it.limits.output = Some(ByteSize(1));
        }),
        ("another limit of memory", &|it| {
            it.limits.memory = Some(ByteSize(1));
        }),
        ("names of another product", &|it| {
            it.compatibility = bundle::Compatibility::Landscape;
        }),
    ];
    for (what, change) in changes {
        let mut changed = submission.clone();
        change(&mut changed);
        assert!(!fits_with(&any, &changed, &machines), "{what}");
    }
    for other in [
        vec![],
        vec![parameter("a", "2")],
        vec![parameter("a", "1"), parameter("b", "1")],
    ] {
        let mut changed = submission.clone();
        changed.parameters = other;
        assert!(!fits_with(&standing, &changed, &machines));
        assert!(fits_with(&any, &changed, &machines));
    }
    let many = vec![machines[0].clone(); 3];
    assert!(!fits_with(&standing, &submission, &many));
    let elsewhere = [machines[0].clone(), machine(&[("env", "prod")], None)];
    assert!(!fits_with(&standing, &submission, &elsewhere));
    let unscanned = Asked {
        submission: &submission,
        as_stored: None,
        skips_scan: true,
        machines: &machines,
    };
    assert!(!fits(&standing, &unscanned));

    let version = |version| VersionId {
        name: "greet".parse().expect("a name"),
        version,
    };
    let stored = Standing {
        script: Some(version(3)),
        ..standing.clone()
    };
    let as_stored = |standing: &Standing, version: &VersionId| {
        fits(
            standing,
            &Asked {
                as_stored: Some(version),
                skips_scan: false,
                ..unscanned
            },
        )
    };
    assert!(as_stored(&stored, &version(3)));
    assert!(!as_stored(&stored, &version(4)));
    assert!(
        !as_stored(&standing, &version(3)),
        "only its text was approved"
    );
    assert!(
        !fits_with(&stored, &submission, &machines),
        "a text of its own"
    );
}
