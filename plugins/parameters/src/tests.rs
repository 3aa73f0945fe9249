use super::*;

fn declared(name: &str, kind: &str, more: &[(&str, Value)], value: Option<&str>) -> Parameter {
    let mut declared = vec![Attribute::of_host("type", kind)];
    declared.extend(
        more.iter()
            .map(|(key, value)| Attribute::of_host(*key, value.clone())),
    );
    Parameter {
        name: name.to_owned(),
        type_: kind.to_owned(),
        value: value.map(Value::from),
        declared,
    }
}

fn undeclared(name: &str, value: impl Into<Value>) -> Parameter {
    Parameter {
        name: name.to_owned(),
        type_: "text".to_owned(),
        value: Some(value.into()),
        declared: Vec::new(),
    }
}

fn prepare(parameters: &[Parameter]) -> Result<Vec<Planned>, String> {
    prepare_in(parameters, &Job::default())
}

fn prepare_in(parameters: &[Parameter], job: &Job) -> Result<Vec<Planned>, String> {
    let script = Bundle::of_script("shell", "").script;
    match ParametersGate
        .prepare(&script, parameters, job)
        .expect("an answer")
    {
        Prepared::Planned(plan) => Ok(plan.values),
        Prepared::Refused(problems) => Err(problems
            .iter()
            .map(|p| format!("{} {}", p.parameter, p.message))
            .collect::<Vec<_>>()
            .join("\n")),
    }
}

fn value(kind: &str, more: &[(&str, Value)], text: &str) -> Option<Value> {
    prepare(&[declared("p", kind, more, Some(text))])
        .ok()
        .map(|mut planned| planned.remove(0).value)
}

#[test]
fn each_type_takes_its_values_and_no_others() {
    let cases: &[(&str, &str, Option<Value>)] = &[
        ("text", "", Some("".into())),
        (
            "text",
            "'; rm -rf / #$(x)`y`\n\u{1F600}",
            Some("'; rm -rf / #$(x)`y`\n\u{1F600}".into()),
        ),
        ("text", "a\0b", None),
        ("integer", "-9223372036854775808", Some(i64::MIN.into())),
        ("integer", "9223372036854775807", Some(i64::MAX.into())),
        ("integer", "9223372036854775808", None),
        ("integer", "+1", None),
        ("integer", " 1", None),
        ("integer", "1 ", None),
        ("integer", "0x10", None),
        ("integer", "1.0", None),
        ("integer", "", None),
        ("integer", "-", None),
        ("integer", "\u{0661}", None),
        ("integer", "1; rm -rf /", None),
        ("decimal", "-1.5", Some((-1.5).into())),
        ("decimal", "2e3", Some(2000.0.into())),
        ("decimal", "7", Some(7.0.into())),
        ("decimal", "1e999", None),
        ("decimal", "inf", None),
        ("decimal", "NaN", None),
        ("decimal", ".5", None),
        ("decimal", "1.", None),
        ("decimal", "+1", None),
        ("decimal", "1e", None),
        ("boolean", "true", Some(true.into())),
        ("boolean", "false", Some(false.into())),
        ("boolean", "True", None),
        ("boolean", "1", None),
        ("list", r#"["a","b c"]"#, Some(["a", "b c"].into())),
        ("list", "[]", Some(Value::Texts(Vec::new()))),
        ("list", "a,b", None),
        ("list", "[1]", None),
        ("list", r#"["a"] x"#, None),
        ("list", r#"["a\u0000"]"#, None),
        ("path", "/a/b", Some("/a/b".into())),
        ("path", "a", Some("a".into())),
        ("path", "", None),
        ("path", "/a\0", None),
    ];
    for (kind, text, expected) in cases {
        assert_eq!(&value(kind, &[], text), expected, "{kind} {text:?}");
    }
}

#[test]
fn bounds_are_values_characters_or_entries() {
    let bounds = |min: i64, max: i64| [("min", Value::from(min)), ("max", Value::from(max))];
    assert!(value("integer", &bounds(1, 5), "5").is_some());
    assert!(value("integer", &bounds(1, 5), "6").is_none());
    assert!(value("integer", &bounds(1, 5), "0").is_none());
    assert!(
        value(
            "integer",
            &[("max", (i64::MAX - 1).into())],
            "9223372036854775807"
        )
        .is_none()
    );
    assert!(value("decimal", &[("min", 0.5.into())], "0.4").is_none());
    assert!(value("text", &bounds(2, 2), "éé").is_some());
    assert!(value("text", &bounds(2, 2), "é").is_none());
    assert!(value("path", &bounds(1, 3), "/abc").is_none());
    assert!(value("list", &bounds(1, 2), r#"["a","b"]"#).is_some());
    assert!(value("list", &bounds(1, 2), "[]").is_none());
}

#[test]
fn a_pattern_must_match_the_whole_value() {
    let pattern = |text: &str| [("pattern", Value::from(text))];
    assert!(value("text", &pattern("[a-z]+"), "abc").is_some());
    assert!(value("text", &pattern("[a-z]+"), "abc; rm").is_none());
    assert!(value("text", &pattern("[a-z]+"), "abc\n").is_none());
    assert!(value("text", &pattern("(?m)^[a-z]+$"), "abc\nrm -rf /").is_none());
    assert!(value("text", &pattern("a|b"), "ab").is_none());
    assert!(value("list", &pattern("[a-z]+"), r#"["a","B"]"#).is_none());
    assert!(value("text", &pattern("(a+)+$"), &"a".repeat(1 << 16)).is_some());
    for wrong in ["(", "a)|(b", "(?x)a #", "\\A(?:a{1000}){1000}", "(?=a)"] {
        assert!(
            prepare(&[declared("p", "text", &pattern(wrong), Some("a"))]).is_err(),
            "{wrong}"
        );
    }
}

#[test]
fn choices_are_exact() {
    let choices = [("choices", Value::from(["dev", "prod"]))];
    assert_eq!(value("choice", &choices, "prod"), Some("prod".into()));
    assert_eq!(value("choice", &choices, "Prod"), None);
    assert_eq!(value("choice", &[], "prod"), None);
    assert_eq!(value("text", &choices, "test"), None);
}

#[test]
fn a_secret_is_planned_as_a_reference_and_its_text_is_never_repeated() {
    let mut secret = declared("token", "secret", &[], None);
    secret.value = Some(Value::Secret("ref-1".to_owned()));
    let planned = prepare(std::slice::from_ref(&secret)).expect("plan");
    assert_eq!(planned[0].value, Value::Secret("ref-1".to_owned()));

    let problem =
        prepare(&[declared("token", "secret", &[], Some("hunter2"))]).expect_err("refused");
    assert!(!problem.contains("hunter2"), "{problem}");
    for place in ["argument", "placeholder"] {
        let mut wrong = secret.clone();
        wrong.declared.push(Attribute::of_host("as", place));
        assert!(prepare(&[wrong]).is_err(), "{place}");
    }
    assert!(
        prepare(&[declared(
            "token",
            "secret",
            &[("default", "hunter2".into())],
            None
        )])
        .is_err()
    );
    assert!(prepare(&[undeclared("token", Value::Secret("ref-1".to_owned()))]).is_err());
}

#[test]
fn a_default_stands_in_and_is_checked_too() {
    let with = |default: Value| {
        prepare(&[declared(
            "n",
            "integer",
            &[("default", default), ("max", 5.into())],
            None,
        )])
    };
    assert_eq!(with(3.into()).expect("plan")[0].value, Value::Integer(3));
    assert!(with(6.into()).is_err());
    assert!(with("x".into()).is_err());
    let given = prepare(&[declared(
        "n",
        "integer",
        &[("default", 3.into())],
        Some("4"),
    )])
    .expect("plan");
    assert_eq!(given[0].value, Value::Integer(4));
}

#[test]
fn what_is_required_must_be_given_and_the_rest_may_be_absent() {
    let problem = prepare(&[declared("n", "integer", &[("required", true.into())], None)])
        .expect_err("refused");
    assert!(
        problem.starts_with("n is required") && problem.contains("whole number"),
        "{problem}"
    );
    assert_eq!(
        prepare(&[declared("n", "integer", &[], None)]),
        Ok(Vec::new())
    );
}

#[test]
fn with_a_header_undeclared_parameters_are_refused_and_without_one_they_are_texts() {
    let planned = prepare(&[undeclared("a", "1")]).expect("plan");
    assert_eq!(
        (&planned[0].value, planned[0].destination),
        (&Value::from("1"), Destination::Environment)
    );
    assert!(prepare(&[declared("b", "text", &[], None), undeclared("a", "1")]).is_err());
    let header = Job {
        attributes: vec![Attribute::of_machine("parameters.declared", true)],
    };
    assert!(prepare_in(&[undeclared("a", "1")], &header).is_err());
}

#[test]
fn destinations_are_those_of_the_declaration() {
    for (text, destination) in [
        ("env", Destination::Environment),
        ("argument", Destination::Argument),
        ("placeholder", Destination::Placeholder),
    ] {
        let planned =
            prepare(&[declared("p", "text", &[("as", text.into())], Some("x"))]).expect("plan");
        assert_eq!(planned[0].destination, destination);
    }
    assert!(prepare(&[declared("p", "text", &[("as", "stdin".into())], Some("x"))]).is_err());
}

#[test]
fn names_that_are_none_or_that_collide_are_refused() {
    for name in [
        "",
        "1a",
        "_a",
        "a b",
        "a=b",
        "a\n",
        "é",
        &"a".repeat(1 << 20),
    ] {
        assert!(prepare(&[undeclared(name, "x")]).is_err(), "{name:?}");
    }
    for (one, other) in [("a-b", "a_b"), ("a", "A"), ("a", "a")] {
        assert!(
            prepare(&[undeclared(one, "x"), undeclared(other, "x")]).is_err(),
            "{one} {other}"
        );
    }
    assert!(prepare(&[undeclared("a-b", "x"), undeclared("ab", "x")]).is_ok());
}

#[test]
fn declarations_that_cannot_hold_are_refused() {
    let wrong: &[(&str, &str, Value)] = &[
        ("file", "required", true.into()),
        ("text", "required", "yes".into()),
        ("text", "min", "3".into()),
        ("decimal", "max", f64::NAN.into()),
        ("boolean", "min", 1.into()),
        ("integer", "pattern", "1+".into()),
        ("integer", "choices", ["1"].into()),
        ("text", "patern", "a".into()),
        ("secret", "pattern", "a".into()),
    ];
    for (kind, key, value) in wrong {
        let problem = prepare(&[declared("p", kind, &[(key, value.clone())], None)]);
        assert!(problem.is_err(), "{kind} {key}");
    }
}

#[test]
fn problems_are_short_lines_however_long_the_value() {
    let long = "é\r\n\u{1b}".repeat(300_000);
    let problem = prepare(&[declared("p", "integer", &[], Some(&long))]).expect_err("refused");
    assert!(
        problem.len() < 1024 && !problem.contains(['\r', '\u{1b}']),
        "{problem}"
    );
    assert_eq!(value("text", &[], &long), Some(long.into()));
}
