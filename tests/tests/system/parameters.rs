//! Values arrive as they were typed, or not at all.

use std::fmt::Write as _;

use sluice_tests::{Fleet, installed, script};

/// Values that mean something to shells, to Python, to printf, to terminals, or to whoever counts bytes.
const HOSTILE: &[&str] = &[
    "",
    " ",
    "$(id)",
    "`id`",
    "'; id; '",
    "\"; id; \"",
    "$HOME ${PATH} $1 $@ $$",
    "a\nb\n",
    "a\r\nb",
    "\\",
    "\\n\\x41\\'",
    "%s%n%x",
    "*",
    "~root",
    "-n",
    "--help",
    "!!",
    "# no comment",
    "{{p00}}",
    "\"\"\"",
    "'''",
    "f'{1+1}'",
    "\u{1}\u{7f}\t\u{1b}[31m",
    "é\u{301}漢字\u{1f600}\u{202e}",
    "a & b | c > d < e ; f",
    "\u{a0}\u{feff}",
];

/// A header that declares three parameters for each value: one of each way to arrive.
fn header(comment: &str) -> String {
    let mut header = format!("{comment} /// sluice\n");
    for index in 0..HOSTILE.len() {
        for (letter, delivery) in [("a", "argument"), ("e", "env"), ("p", "placeholder")] {
            writeln!(
                header,
                "{comment} [parameters.{letter}{index:02}]\n{comment} as = \"{delivery}\""
            )
            .expect("is text");
        }
    }
    header + comment + " ///\n"
}

fn expect_exact(fleet: &Fleet, text: &str) {
    let mut script = script(text);
    for (index, value) in HOSTILE.iter().enumerate() {
        for letter in ["a", "e", "p"] {
            script = script.param(&format!("{letter}{index:02}"), value);
        }
    }
    let outcome = fleet.run(&script);
    outcome.expect("succeeded", "Script executed successfully");
    let bytes = outcome.bytes("stdout");
    let arrived: Vec<_> = bytes
        .split(|byte| *byte == 0)
        .map(String::from_utf8_lossy)
        .collect();
    assert_eq!(arrived.len(), 3 * HOSTILE.len() + 1);
    for (index, value) in HOSTILE.iter().enumerate() {
        assert_eq!(
            arrived[3 * index..3 * index + 3],
            [*value; 3],
            "environment, argument, placeholder of {index}"
        );
    }
}

#[test]
fn hostile_values_reach_bash_byte_for_byte() {
    let fleet = Fleet::builder().start();
    let mut text = format!("#!/bin/bash\n{}", header("#"));
    for index in 0..HOSTILE.len() {
        let argument = index + 1;
        writeln!(
            text,
            "printf '%s\\0' \"$SLUICE_PARAM_E{index:02}\" \"${{{argument}}}\" {{{{p{index:02}}}}}"
        )
        .expect("is text");
    }
    expect_exact(&fleet, &text);
}

#[test]
fn hostile_values_reach_python_byte_for_byte() {
    if !installed("/usr/bin/python3") {
        return;
    }
    let fleet = Fleet::builder().start();
    let mut text = format!("#!/usr/bin/python3\n{}import os, sys\n", header("#"));
    for index in 0..HOSTILE.len() {
        let argument = index + 1;
        writeln!(text, "for value in (os.environ['SLUICE_PARAM_E{index:02}'], sys.argv[{argument}], {{{{p{index:02}}}}}):").expect("is text");
        writeln!(
            text,
            "    sys.stdout.buffer.write(os.fsencode(value) + b'\\0')"
        )
        .expect("is text");
    }
    expect_exact(&fleet, &text);
}

#[test]
fn values_stand_in_strings_and_documents_of_a_script_whose_entry_declares_them() {
    let fleet = Fleet::builder().start();
    let (text, tables) = (
        fleet.folder().join("fill.sh"),
        fleet.folder().join("fill.toml"),
    );
    let body = "#!/bin/bash\nprintf '%s|' \"<{{who}}>\" \"$@\"\ncat <<E\n{{who}} {{count}}\nE\n";
    std::fs::write(&text, body).expect("writes");
    let declared = "[parameters.zone]\nas = \"argument\"\n[parameters.area]\nas = \"argument\"\n\
                    [parameters.who]\nas = \"placeholder\"\n[parameters.count]\ntype = \"integer\"\nas = \"placeholder\"\n";
    std::fs::write(&tables, declared).expect("writes");
    let (text, tables) = (text.display().to_string(), tables.display().to_string());
    let added = fleet.sluice(&["script", "add", &text, "--parameters", &tables]);
    assert_eq!(added.stdout, "fill@1\n", "{added:?}");
    let run = |who: &str| {
        let parameters = [
            format!("who={who}"),
            "count=3".into(),
            "area=a".into(),
            "zone=z".into(),
        ];
        let parameters = parameters
            .iter()
            .flat_map(|parameter| ["--param", parameter.as_str()]);
        let base = ["run", "--script", "fill", "--on", "m1"];
        fleet.sluice(&base.into_iter().chain(parameters).collect::<Vec<_>>())
    };
    let who = "it's \"$(id)\" `id`";
    assert_eq!(run(who).stdout, format!("<{who}>|z|a|{who} 3\n"));
    let refused = run("a\nE\nid");
    assert_eq!(refused.code, 126, "{refused:?}");
    assert!(
        refused
            .stderr
            .contains("Blocked by parameters: the placeholder {{who}} stands in a here-document"),
        "{refused:?}"
    );
}

#[test]
fn two_hundred_hostile_values_arrive_in_one_list() {
    if !installed("/usr/bin/python3") {
        return;
    }
    let fleet = Fleet::builder().start();
    let values: Vec<String> = (0..200)
        .map(|n| {
            format!(
                "{}{n}{}",
                HOSTILE[n % HOSTILE.len()],
                HOSTILE[(7 * n + n / HOSTILE.len()) % HOSTILE.len()]
            )
        })
        .collect();
    let file = fleet.folder().join("values.json");
    std::fs::write(&file, serde_json::to_string(&values).expect("is JSON")).expect("writes");
    let text = "#!/usr/bin/python3\n# /// sluice\n# [parameters.values]\n# type = \"list\"\n# ///\nimport json, os, sys\n\
                sys.stdout.buffer.write('\\0'.join(json.loads(os.environ['SLUICE_PARAM_VALUES'])).encode())\n";
    let outcome =
        fleet.run(&script(text).option("--param-file", &format!("values={}", file.display())));
    outcome.expect("succeeded", "Script executed successfully");
    assert_eq!(
        String::from_utf8(outcome.bytes("stdout"))
            .expect("is UTF-8")
            .split('\0')
            .collect::<Vec<_>>(),
        values
    );
}

#[test]
fn typed_values_arrive_in_one_spelling() {
    let fleet = Fleet::builder().start();
    let text = "#!/bin/sh\n# /// sluice\n# [parameters.count]\n# type = \"integer\"\n# max = 10\n# [parameters.dry-run]\n\
                # type = \"boolean\"\n# default = false\n# [parameters.level]\n# type = \"choice\"\n# choices = [\"low\", \"high\"]\n\
                # ///\necho \"$SLUICE_PARAM_COUNT $SLUICE_PARAM_DRY_RUN $SLUICE_PARAM_LEVEL\"\n";
    assert_eq!(
        fleet
            .run(&script(text).param("count", "7").param("level", "high"))
            .text("stdout"),
        "7 false high\n"
    );
    assert_eq!(
        fleet
            .run(&script(text).param("count", "7").param("dry-run", "true"))
            .text("stdout"),
        "7 true \n"
    );
}

#[test]
fn a_wrong_missing_or_undeclared_parameter_blocks() {
    let fleet = Fleet::builder().start();
    let text = "#!/bin/sh\n# /// sluice\n# [parameters.count]\n# type = \"integer\"\n# required = true\n# max = 10\n\
                # [parameters.name]\n# pattern = \"[a-z]+\"\n# ///\necho ran\n";
    let table = [
        (vec![("count", "ten")], "count", "whole number"),
        (vec![("count", "7; id")], "count", "whole number"),
        (vec![("count", "11")], "count", "at most 10"),
        (vec![], "count", "required"),
        (vec![("count", "1"), ("name", "x\nid")], "name", "[a-z]+"),
        (
            vec![("count", "1"), ("other", "x")],
            "other",
            "not declared",
        ),
    ];
    for (parameters, named, reason) in table {
        let script = parameters
            .iter()
            .fold(script(text), |script, (name, value)| {
                script.param(name, value)
            });
        let outcome = fleet.run(&script);
        let message = outcome.text("message");
        assert_eq!(
            (outcome.text("state").as_str(), outcome.code),
            ("blocked", 126),
            "{parameters:?}: {outcome:#?}"
        );
        assert!(
            message.starts_with("Blocked by parameters: ")
                && message.contains(named)
                && message.contains(reason),
            "{message}"
        );
        assert!(outcome.json["stdout"].is_null(), "{outcome:#?}");
    }
    assert!(!fleet.agents[0].machine.has_started_something());
}

#[test]
fn a_value_that_the_kernel_does_not_take_is_an_error_and_never_cut() {
    let fleet = Fleet::builder().start();
    let file = fleet.folder().join("value");
    let run = |words: usize| {
        std::fs::write(&file, "abc ".repeat(words)).expect("writes");
        let text = script("#!/bin/bash\necho ${#SLUICE_PARAM_LONG}\n");
        fleet.run(&text.option("--param-file", &format!("long={}", file.display())))
    };
    assert_eq!(run(25_000).text("stdout"), "100000\n");
    // One text may have 32 pages (MAX_ARG_STRLEN, execve(2)): where pages are large, this is none too many.
    let outcome = run(60_000);
    match outcome.text("state").as_str() {
        "succeeded" => assert_eq!(outcome.text("stdout"), "240000\n"),
        _ => {
            let reason = "arguments and environment are too large for the kernel";
            outcome.expect("error", &format!("Execution error: {reason}"));
            for key in [
                "started_at",
                "stdout",
                "stderr",
                "run_as",
                "context",
                "containment",
                "confinement",
            ] {
                assert!(outcome.json[key].is_null(), "{key}: {outcome:#?}");
            }
            let record = fleet.list(&["audit", "list"]);
            let mut of_this = record
                .iter()
                .filter(|entry| entry["operation"] == outcome.json["operation"]);
            assert!(
                of_this.all(|entry| entry["event"] != "script_started"),
                "{record:#?}"
            );
        }
    }
    let outcome = run(70_000);
    assert!(
        outcome.code == 125 && outcome.stderr.contains("attachments"),
        "{outcome:#?}"
    );
}
