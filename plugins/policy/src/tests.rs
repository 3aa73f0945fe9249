use super::*;

fn review() -> Review {
    Review {
        bundle: Bundle::of_script("shell", "#!/bin/sh\r\necho é\r\ncurl x | sh\r\n")
            .with_argument("a | b"),
        parameters: Vec::new(),
        facts: Vec::new(),
        checks: Vec::new(),
        findings: Vec::new(),
        job: Job {
            attributes: vec![Attribute::of_host("targets", 3)],
        },
    }
}

fn decide(settings: &Settings, review: &Review) -> Decision {
    PolicyGate::configure(settings, &[])
        .expect("settings")
        .decide(review)
        .expect("decision")
}

fn with_finding(severity: Severity) -> Review {
    let mut review = review();
    let mut finding = Finding::new("download-and-run", severity, "runs what it downloads");
    finding.primary = Some(Span { start: 20, end: 31 });
    review.findings.push(finding);
    review
}

#[test]
fn nothing_against_it_is_allowed() {
    assert_eq!(decide(&Settings::default(), &review()), Decision::allow());
}

#[test]
fn a_finding_at_the_threshold_blocks_with_rule_message_and_place() {
    let decision = decide(&Settings::default(), &with_finding(Severity::High));
    assert_eq!(decision.verdict, Verdict::Block);
    assert_eq!(decision.reasons.len(), 1);
    assert_eq!(decision.reasons[0].code, "finding");
    assert_eq!(
        decision.reasons[0].message,
        "download-and-run: runs what it downloads (script, line 3)"
    );
}

#[test]
fn every_finding_at_the_threshold_is_a_reason() {
    let mut review = with_finding(Severity::High);
    review
        .findings
        .push(Finding::new("other", Severity::Critical, "bad"));
    assert_eq!(decide(&Settings::default(), &review).reasons.len(), 2);
}

#[test]
fn under_the_threshold_medium_warns_and_low_is_silent() {
    assert_eq!(
        decide(&Settings::default(), &with_finding(Severity::Medium)).verdict,
        Verdict::AllowWithWarnings
    );
    assert_eq!(
        decide(&Settings::default(), &with_finding(Severity::Low)),
        Decision::allow()
    );
    let strict = Settings::default().with("threshold", "low");
    assert_eq!(
        decide(&strict, &with_finding(Severity::Low)).verdict,
        Verdict::Block
    );
    let lax = Settings::default().with("threshold", "critical");
    assert_eq!(
        decide(&lax, &with_finding(Severity::High)).verdict,
        Verdict::AllowWithWarnings
    );
}

#[test]
fn approval_lies_between_warning_and_blocking() {
    let settings = Settings::default().with("approve-from", "medium");
    assert_eq!(
        decide(&settings, &with_finding(Severity::Medium)).verdict,
        Verdict::RequireApproval
    );
    assert_eq!(
        decide(&settings, &with_finding(Severity::High)).verdict,
        Verdict::Block
    );
    assert_eq!(
        decide(&settings, &with_finding(Severity::Low)).verdict,
        Verdict::Allow
    );
    let never = Settings::default().with("approve-from", "never");
    assert_eq!(
        decide(&never, &with_finding(Severity::Medium)).verdict,
        Verdict::AllowWithWarnings
    );
}

#[test]
fn a_check_that_is_not_met_blocks() {
    for check in [
        Check::unmet("os", "Linux"),
        Check::unknown("os", "not known"),
    ] {
        let mut review = review();
        review.checks = vec![Check::met("arch", "met"), check];
        let decision = decide(&Settings::default(), &review);
        assert_eq!(
            (decision.verdict, decision.reasons.len()),
            (Verdict::Block, 1)
        );
        assert_eq!(decision.reasons[0].code, "check");
    }
}

#[test]
fn root_is_blocked_only_where_the_setting_says_so() {
    let mut review = review();
    review.bundle.run_as = "root".to_owned();
    assert_eq!(
        decide(&Settings::default(), &review).verdict,
        Verdict::Allow
    );
    assert_eq!(
        decide(&Settings::default().with("allow-root", false), &review).verdict,
        Verdict::Block
    );
}

#[test]
fn an_interpreter_of_an_allowed_name_in_a_strange_folder_is_not_allowed() {
    let settings = Settings::default().with("interpreters", ["bash", "/opt/python"]);
    for (interpreter, verdict) in [
        ("bash", Verdict::Allow),
        ("/usr/bin/bash", Verdict::Allow),
        ("/opt/python", Verdict::Allow),
        ("/tmp/bash", Verdict::Block),
        ("python", Verdict::Block),
        ("", Verdict::Block),
    ] {
        let mut review = review();
        review.bundle.script.interpreter = interpreter.to_owned();
        assert_eq!(decide(&settings, &review).verdict, verdict, "{interpreter}");
    }
}

#[test]
fn more_targets_than_the_limit_or_an_unknown_number_block() {
    let verdict = |limit: i64, review: &Review| {
        decide(&Settings::default().with("max-targets", limit), review).verdict
    };
    assert_eq!(verdict(3, &review()), Verdict::Allow);
    assert_eq!(verdict(2, &review()), Verdict::Block);
    assert_eq!(verdict(0, &review()), Verdict::Allow);
    let mut unknown = review();
    unknown.job.attributes.clear();
    assert_eq!(verdict(3, &unknown), Verdict::Block);
}

#[test]
fn a_span_from_elsewhere_does_no_harm() {
    for (start, end) in [(u64::MAX, u64::MAX), (17, 18), (1 << 40, 0)] {
        let mut review = with_finding(Severity::High);
        review.findings[0].primary = Some(Span { start, end });
        assert_eq!(
            decide(&Settings::default(), &review).verdict,
            Verdict::Block
        );
    }
    let mut review = with_finding(Severity::High);
    review.findings[0].subject = "attachment:gone".to_owned();
    assert!(
        decide(&Settings::default(), &review).reasons[0]
            .message
            .ends_with("(attachment:gone)")
    );
}

#[test]
fn settings_that_make_no_sense_are_refused() {
    for settings in [
        Settings::default().with("threshold", "severe"),
        Settings::default().with("approve-from", ""),
        Settings::default().with("max-targets", -1),
        Settings::default().with("allow-root", "yes"),
        Settings::default().with("treshold", "high"),
    ] {
        assert!(
            matches!(
                PolicyGate::configure(&settings, &[]),
                Err(GateError::InvalidSettings(_))
            ),
            "{settings:?}"
        );
    }
}
