use sluice_protocol::bundle::Submission;

use super::*;

fn source(script: &str) -> Source {
    let submission = Submission::of(script);
    Source::read(&submission).expect("reads")
}

fn planned(name: &str, value: Value, destination: Destination) -> Planned {
    Planned {
        name: name.to_owned(),
        value,
        destination,
    }
}

fn text_of(text: &str) -> Value {
    Value::Text(text.to_owned())
}

fn rendered(interpreter: &str, body: &str, value: Value) -> Result<String, String> {
    let sign = if interpreter == "node" { "//" } else { "#" };
    let head = format!(
        "#!/usr/bin/{interpreter}\n{sign} /// sluice\n{sign} [parameters.x]\n{sign} as = \"placeholder\"\n{sign} ///\n"
    );
    let source = source(&format!("{head}{body}"));
    let plan = [planned("x", value, Destination::Placeholder)];
    render(&source, &[], &plan)
        .map(|prepared| prepared.script.expect("is filled")[head.len()..].to_owned())
}

#[test]
fn a_shell_literal_is_one_quoted_word_whatever_it_stands_in() {
    for (body, expected) in [
        ("echo {{x}} y", "echo 'a'\\''$b' y"),
        ("echo \"<{{x}}>\"", "echo \"<\"'a'\\''$b'\">\""),
        ("echo '<{{x}}>'", "echo '<a'\\''$b>'"),
        ("echo $'<{{x}}>'", "echo $'<''a'\\''$b'$'>'"),
        ("cat <<E\n<{{x}}>\nE\n", "cat <<E\n<a'\\$b>\nE\n"),
        ("cat <<'E'\n<{{x}}>\nE\n", "cat <<'E'\n<a'$b>\nE\n"),
        ("echo # {{x}} it's", "echo # {{x}} it's"),
        (
            "v=\"$(echo \"{{x}}\")\"",
            "v=\"$(echo \"\"'a'\\''$b'\"\")\"",
        ),
        ("echo {{y}} a#b {{x}}", "echo {{y}} a#b 'a'\\''$b'"),
        ("echo {{{x}}}", "echo {'a'\\''$b'}"),
        ("find . | grep {{x}}", "find . | grep 'a'\\''$b'"),
        (
            "sudo install -m 600 \"{{x}}\" /etc; python3 run.py {{x}}",
            "sudo install -m 600 \"\"'a'\\''$b'\"\" /etc; python3 run.py 'a'\\''$b'",
        ),
        (
            "case {{x}} in a) echo {{x}} ;; esac; echo {{x}}",
            "case 'a'\\''$b' in a) echo 'a'\\''$b' ;; esac; echo 'a'\\''$b'",
        ),
    ] {
        let found = rendered("bash", body, text_of("a'$b"));
        assert_eq!(found, Ok(expected.to_owned()), "{body}");
    }
}

#[test]
fn a_refusal_names_the_place_and_the_way_out() {
    for (interpreter, body, place) in [
        ("bash", "echo \\{{x}}", "an escape"),
        ("bash", "echo ${{x}}", "a dollar"),
        ("bash", "echo ${a:-{{x}}}", "an expansion"),
        ("bash", "echo $(( {{x}} ))", "an arithmetic expression"),
        ("bash", "echo `echo {{x}}`", "backticks"),
        ("bash", "eval \"echo {{x}}\"", "evaluates again"),
        ("bash", "f() { :; }; {{x}}", "the name of a command"),
        ("bash", "$c {{x}}", "computes"),
        ("bash", "[ {{x}} -eq 1 ]", "a test that may calculate"),
        ("bash", "cat <<E\n$a{{x}}\nE\n", "a variable"),
        ("bash", "cat <<E\n{{x}}\nv\nE\n", ""),
        ("sh", "[[ a == {{x}} ]]", "[["),
        ("bash", "r=\"$(l=(a); echo {{x}})\"", "a list within $(...)"),
        ("sh", ": $'\\''; echo {{x}}", "$'...'"),
        ("zsh", "for i in a { eval {{x}} }", "a brace among words"),
        (
            "bash",
            "cat <<E | sh\n{{x}}\nE\n",
            "the input of another program",
        ),
        (
            "bash",
            "setopt nothing; echo {{x}}",
            "an option of the shell",
        ),
        ("bash", "PS4={{x}}", "a variable of the shell's own"),
        (
            "bash",
            "r=\"$(case a in a) echo {{x}} ;; esac)\"",
            "a case within $(...)",
        ),
        ("bash", ": \"${a:-it's}\"; echo {{x}}", "quotes in ${...}"),
        ("bash", "alias a=b\necho {{x}}", "an alias"),
        ("python3", "f(r'{{x}}')", "a raw string"),
        (
            "python3",
            "eval({{x}})",
            "a call that takes a text for a program",
        ),
        ("node", "f`{{x}}`", "a tagged template"),
        ("perl", "print \"$a{{x}}\";", "a variable"),
        (
            "ruby",
            "system {{x}}",
            "a statement that takes a text for a program",
        ),
    ] {
        let found = rendered(interpreter, body, text_of("v"));
        if place.is_empty() {
            assert!(found.is_ok(), "{body}: {found:?}");
            continue;
        }
        let reason = found.expect_err(body);
        assert!(
            reason.contains(place) && reason.contains("$SLUICE_PARAM_X")
                || reason.contains("SLUICE_PARAM_X"),
            "{body}: {reason}"
        );
        assert!(
            reason.contains("{{x}}") && reason.contains("\"env\""),
            "{reason}"
        );
        assert!(reason.contains(place), "{body}: {reason}");
    }
}

#[test]
fn whole_numbers_stand_where_they_are_calculated() {
    for (body, expected) in [
        ("echo $(( {{x}} + 1 ))", "echo $(( (-5) + 1 ))"),
        ("let n={{x}}", "let n='-5'"),
        ("declare -i n; n={{x}}", "declare -i n; n='-5'"),
        ("[[ $a -lt {{x}} ]]", "[[ $a -lt '-5' ]]"),
        ("exit {{x}}", "exit '-5'"),
    ] {
        assert_eq!(
            rendered("bash", body, Value::Integer(-5)),
            Ok(expected.to_owned())
        );
        assert!(rendered("bash", body, text_of("-5")).is_err(), "{body}");
    }
}

#[test]
fn a_here_document_ends_where_the_script_says() {
    let document = |value: &str| rendered("sh", "cat <<E\n{{x}}\nE\necho {{x}}\n", text_of(value));
    for value in ["E", "a\nE", "E\n>f", "\nE\n", "E\u{85}"] {
        assert!(document(value).is_err(), "{value:?}");
    }
    for value in ["E ", " E", "EE", "a\nE$"] {
        assert!(document(value).is_ok(), "{value:?}");
    }
    let tabs = rendered("sh", "cat <<-E\n\t{{x}}\n\tE\n", text_of("\ta"));
    assert!(tabs.is_err(), "{tabs:?}");
    // An encoding in which the backslash ends the letter before it would lose the escape.
    assert!(document("é$(id)").is_err());
}

#[test]
fn other_languages_get_their_own_literals() {
    let value = || text_of("a'b\"\\\n\u{202e}{$");
    for (interpreter, body, expected) in [
        (
            "python3",
            "p({{x}})",
            "p('a\\x27b\\x22\\x5c\\x0a\\u202e\\x7b$')",
        ),
        (
            "python3",
            "p(f\"{{x}}\")",
            "p(f\"a\\x27b\\x22\\x5c\\x0a\\u202e\\x7b$\")",
        ),
        (
            "node",
            "p({{x}})",
            "p(\"a\\u0027b\\u0022\\u005c\\u000a\\u202e\\u007b\\u0024\")",
        ),
        (
            "node",
            "p(`{{x}}`)",
            "p(`a\\u0027b\\u0022\\u005c\\u000a\\u202e\\u007b\\u0024`)",
        ),
        (
            "perl",
            "p({{x}});",
            "p(\"a\\x27b\\x22\\x5c\\x0a\u{202e}\\x7b\\x24\");",
        ),
        ("ruby", "p('{{x}}')", "p('a\\'b\"\\\\\n\u{202e}{$')"),
    ] {
        assert_eq!(
            rendered(interpreter, body, value()),
            Ok(expected.to_owned()),
            "{body}"
        );
    }
    let list = || Value::Texts(vec!["a".to_owned(), "'".to_owned()]);
    for (interpreter, value, expected) in [
        ("python3", Value::Boolean(true), "p(True)"),
        ("python3", Value::Integer(-5), "p((-5))"),
        ("python3", list(), "p(['a', '\\x27'])"),
        ("node", Value::Decimal(1.5), "p((1.5))"),
        ("node", list(), "p([\"a\", \"\\u0027\"])"),
        ("perl", Value::Boolean(false), "p(0)"),
        ("ruby", Value::Boolean(true), "p(true)"),
    ] {
        assert_eq!(
            rendered(interpreter, "p({{x}})", value),
            Ok(expected.to_owned())
        );
    }
    for number in [f64::NAN, f64::INFINITY] {
        assert!(rendered("python3", "p({{x}})", Value::Decimal(number)).is_err());
    }
    assert!(rendered("node", "p({{x}})", Value::Integer(i64::MAX)).is_err());
    let unread = rendered("pwsh", "echo {{x}}", value()).expect_err("is refused");
    assert!(
        unread.contains("powershell") && unread.contains("\"env\""),
        "{unread}"
    );
}

#[test]
fn a_placeholder_that_nothing_fills_is_refused_outside_of_comments() {
    let header = "#!/bin/sh\n# /// sluice\n# [parameters.x]\n# as = \"placeholder\"\n# ///\n";
    for (body, is_refused) in [
        ("echo {{x}}\n", true),
        ("echo '{{x}}'\n", true),
        ("echo {{{x}}}\n", true),
        ("# {{x}}\n", false),
        ("echo '{{y}}' {{ x }}\n", false),
    ] {
        match render(&source(&format!("{header}{body}")), &[], &[]) {
            Err(reason) => assert!(is_refused && reason.contains("{{x}}"), "{reason}"),
            Ok(prepared) => {
                assert!(!is_refused, "{body}");
                let script = prepared.script;
                assert!(script.is_none_or(|script| script == format!("{header}{body}")));
            }
        }
    }
}

#[test]
fn a_placeholder_has_a_plain_name() {
    for name in ["a}}", "a b", "é", ""] {
        let header =
            format!("# /// sluice\n# [parameters.\"{name}\"]\n# as = \"placeholder\"\n# ///\n");
        let reason = render(&source(&format!("#!/bin/sh\n{header}:\n")), &[], &[]);
        assert!(reason.expect_err(name).contains("no name"));
    }
}

#[test]
fn a_plan_keeps_to_what_the_script_declares() {
    let declared = source(
        "#!/bin/sh\n# /// sluice\n# [parameters.a-b]\n# [parameters.c]\n# as = \"argument\"\n# ///\n:\n",
    );
    let plan = [
        planned("a-b", text_of("v"), Destination::Environment),
        planned("c", text_of("v"), Destination::Argument),
    ];
    let prepared = render(&declared, &[], &plan).expect("renders");
    assert_eq!(prepared.environment[0].name, "SLUICE_PARAM_A_B");
    assert_eq!(prepared.arguments, ["v"]);
    for bad in [
        planned("d", text_of("v"), Destination::Environment),
        planned("c", text_of("v"), Destination::Environment),
        planned("c", text_of("\0"), Destination::Argument),
    ] {
        assert!(render(&declared, &[], &[bad]).is_err());
    }
    let plain = source("#!/bin/sh\n:\n");
    let given = planned("a", text_of("v"), Destination::Environment);
    assert!(render(&plain, &[], &[given]).is_err());
}

#[test]
fn arguments_come_in_the_order_of_the_declaration_whatever_the_plan_says() {
    let declared = source(
        "#!/bin/sh\n# /// sluice\n# [parameters.z]\n# as = \"argument\"\n# [parameters.b]\n# as = \"argument\"\n\
         # [parameters.a]\n# as = \"argument\"\n# ///\n:\n",
    );
    let plan = ["a", "b", "z"].map(|name| planned(name, text_of(name), Destination::Argument));
    let prepared = render(&declared, &[], &plan).expect("renders");
    assert_eq!(prepared.arguments, ["z", "b", "a"]);
}

#[test]
fn two_parameters_do_not_become_one_variable() {
    let declared =
        source("#!/bin/sh\n# /// sluice\n# [parameters.a-b]\n# [parameters.a_b]\n# ///\n:\n");
    let plan = ["a-b", "a_b"].map(|name| planned(name, text_of("v"), Destination::Environment));
    let reason = render(&declared, &[], &plan).expect_err("is refused");
    assert!(reason.contains("SLUICE_PARAM_A_B"), "{reason}");
    let given = ["a-b", "A-B"].map(|name| Variable {
        name: name.to_owned(),
        value: "v".to_owned(),
    });
    let plan = ["a-b", "A-B"].map(|name| planned(name, text_of("v"), Destination::Environment));
    assert!(render(&source("#!/bin/sh\n"), &given, &plan).is_err());
}

#[test]
fn parameters_have_no_more_bytes_than_a_job_may_bring() {
    let declared = source(
        "#!/bin/sh\n# /// sluice\n# [parameters.a]\n# [parameters.b]\n# as = \"argument\"\n# [parameters.x]\n\
         # as = \"placeholder\"\n# ///\necho {{x}} {{x}} {{x}} {{x}} {{x}} {{x}} {{x}} {{x}} {{x}} {{x}} {{x}} {{x}}\n",
    );
    for (name, destination, size, what) in [
        ("a", Destination::Environment, MAX_ENVIRONMENT, "variables"),
        ("b", Destination::Argument, MAX_ENVIRONMENT + 1, "arguments"),
        ("x", Destination::Placeholder, MAX_SCRIPT / 12, "larger"),
    ] {
        let x = planned("x", text_of("v"), Destination::Placeholder);
        let large = planned(name, text_of(&"v".repeat(size)), destination);
        let plan: Vec<_> = if name == "x" {
            vec![large]
        } else {
            vec![x, large]
        };
        let reason = render(&declared, &[], &plan).expect_err("is too large");
        assert!(reason.contains(what), "{reason}");
    }
}

#[test]
fn a_large_script_is_read_in_one_walk() {
    for (interpreter, piece) in [
        ("bash", "echo {{x}} \"{{x}}\" # {{x}}\n"),
        ("bash", "a-=== {{x}}"),
        ("zsh", "echo $a[$a[ {{x}}"),
        ("bash", "cat <<E\n{{x}} {{x}} {{x}} {{x}} {{x}}\nE\n"),
        ("bash", "{{{{{{{{"),
        ("python3", "p({{x}}, '{{x}}')\n"),
        ("python3", "(((("),
        ("node", "p({{x}}, `{{x}}`);\n"),
        ("perl", "print {{x}}, '{{x}}';\n"),
        ("ruby", "p {{x}}, '{{x}}'\n"),
    ] {
        // What is read again and again takes minutes at this length, and the test is ended then.
        let body = format!("{}\n: {{{{x}}}}\n", piece.repeat((1 << 20) / piece.len()));
        let _filled_or_refused = rendered(interpreter, &body, text_of("v"));
    }
}
