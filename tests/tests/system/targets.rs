//! Machines by what is known of them.

use serde_json::Value;
use sluice_database::rusqlite::Connection;
use sluice_tests::{Fleet, Output, eventually};

/// `sluice run` with a script that prints its machine's name.
fn run(fleet: &Fleet, options: &[&str]) -> Output {
    let file = fleet.folder().join("name.sh");
    std::fs::write(&file, "#!/bin/sh\necho $SLUICE_MACHINE_NAME\n").expect("writes");
    let file = file.to_str().expect("is text");
    fleet.sluice(&[&["run", file], options].concat())
}

fn machines(output: &Output) -> Vec<String> {
    let mut names: Vec<String> = output
        .stdout
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).expect("is JSON"))
        .map(|result| result["machine"].as_str().expect("is text").to_owned())
        .collect();
    names.sort();
    names
}

#[test]
fn an_expression_over_facts_and_tags_says_which_machines_run_a_script_and_a_preview_makes_nothing()
{
    let mut fleet = Fleet::builder().start();
    fleet.add_machine("m2", "");
    assert_eq!(fleet.sluice(&["machine", "tag", "m2", "role=web"]).code, 0);
    let here = r#"os == "linux" and memory.total >= "16MiB" and cpu.count > 0"#;
    let web = format!(r#"{here} and tag.role == "web" and not fact("no.such.fact")"#);

    let before = fleet.list(&["job", "list"]).len();
    let preview = run(&fleet, &["--where", &web, "--preview", "--json"]);
    assert_eq!(preview.code, 0, "{preview:?}");
    let preview: Value = serde_json::from_str(&preview.stdout).expect("is JSON");
    assert_eq!(preview["count"], 1);
    assert_eq!(preview["machines"][0]["name"], "m2");
    let text = run(&fleet, &["--where", here, "--preview"]);
    assert!(
        text.stdout.contains("m1") && text.stdout.contains("m2"),
        "{text:?}"
    );
    assert_eq!(fleet.list(&["job", "list"]).len(), before);

    let ran = run(&fleet, &["--where", &web, "--json"]);
    assert_eq!((ran.code, machines(&ran)), (0, vec!["m2".to_owned()]));
    let ran = run(&fleet, &["--where", here, "--json"]);
    assert_eq!(
        (ran.code, machines(&ran)),
        (0, vec!["m1".to_owned(), "m2".to_owned()])
    );
    let both = run(
        &fleet,
        &[
            "--on",
            "m1",
            "--tag",
            "role=web",
            "--where",
            r#"name != "m2""#,
            "--json",
        ],
    );
    assert_eq!((both.code, machines(&both)), (0, vec!["m1".to_owned()]));
    let listed = fleet.list(&["machine", "list", "--where", &web]);
    assert_eq!(listed.len(), 1);
    assert_eq!(listed[0]["name"], "m2");
}

#[test]
fn an_expression_that_is_wrong_or_matches_nothing_is_refused_and_nothing_is_made() {
    let fleet = Fleet::builder().without_gates().start();
    for (option, value, expected, code) in [
        ("--where", r#"os = "linux""#, "wrong in column 4", 125),
        (
            "--where",
            r#"memory.total >= "2GB""#,
            "wrong in column 17",
            125,
        ),
        ("--where", r#"os == "linux" or"#, "column 17", 125),
        ("--where", r#"os == "plan9""#, "no machine is meant", 123),
        (
            "--where",
            r#"not no.such.fact == "x""#,
            "no machine is meant",
            123,
        ),
        ("--tag", "role=nothing", "no machine is meant", 123),
    ] {
        for more in [&[][..], &["--preview"], &["--json"]] {
            let refused = run(&fleet, &[&[option, value], more].concat());
            assert_eq!(refused.code, code, "{value}: {refused:?}");
            assert!(refused.stdout.is_empty(), "{refused:?}");
            assert!(refused.stderr.contains(expected), "{value}: {refused:?}");
        }
    }
    let empty = Fleet::builder().agents(0).without_gates().start();
    assert_eq!(run(&empty, &["--all"]).code, 123);
    let file = fleet.folder().join("name.sh");
    let file = file.to_str().expect("is text");
    let schedule = |expression: &str| {
        fleet.sluice(&[
            "schedule", "add", "s", file, "--every", "1h", "--where", expression,
        ])
    };
    let refused = schedule("os ==");
    refused.expect_refused();
    assert!(refused.stderr.contains("column 6"), "{refused:?}");
    let added = schedule(r#"os == "linux""#);
    assert_eq!(added.code, 0, "{added:?}");
    assert!(
        added.stdout.contains(r#"machines where os == "linux""#),
        "{added:?}"
    );
    assert_eq!(fleet.list(&["job", "list"]).len(), 0);
}

#[test]
fn a_job_for_more_machines_than_one_may_have_is_refused_and_nothing_is_made() {
    let mut fleet = Fleet::builder().without_gates().start();
    fleet.host.kill();
    let database = Connection::open(fleet.host.data().join("host.db")).expect("opens");
    database
        .execute_batch(
            "WITH RECURSIVE numbers(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < 100000)
             INSERT INTO machines (id, tenant, name, enrolled)
             SELECT printf('%08x', n) || substr(id, 9), tenant, 'n' || n, enrolled FROM machines, numbers WHERE name = 'm1'",
        )
        .expect("inserts");
    drop(database);
    fleet.host.kill_and_restart();
    for more in [&[][..], &["--preview"]] {
        let refused = run(&fleet, &[&["--all"], more].concat());
        refused.expect_refused();
        assert!(
            refused
                .stderr
                .contains("more than 100000 machines are meant"),
            "{refused:?}"
        );
    }
    assert_eq!(fleet.list(&["job", "list"]).len(), 0);
    let one = run(
        &fleet,
        &["--all", "--where", r#"name == "n77""#, "--detach"],
    );
    assert_eq!(one.code, 0, "{one:?}");
}

/// The machines of a job that have got somewhere, by name.
fn went_to(fleet: &Fleet, job: &str) -> Vec<(String, String)> {
    let operations = fleet.list(&["job", "show", job]);
    let text = |value: &Value| value.as_str().expect("is text").to_owned();
    let mut went: Vec<_> = operations
        .iter()
        .map(|one| (text(&one["machine"]), text(&one["state"])))
        .collect();
    went.sort();
    went
}

#[test]
fn machines_that_are_enrolled_or_tagged_later_join_a_job_once_also_after_the_host_was_killed() {
    let mut fleet = Fleet::builder().start();
    fleet.add_machine("m2", "");
    let tag = |fleet: &Fleet, words: &[&str]| {
        let tagged = fleet.sluice(&[&["machine", "tag"], words].concat());
        assert_eq!(tagged.code, 0, "{tagged:?}");
    };
    tag(&fleet, &["m1", "role=web"]);
    run(&fleet, &["--on", "m1", "--include-later"]).expect_refused();
    let later = ["--include-later", "--detach"];
    let tagged = run(&fleet, &[&["--tag", "role=web"][..], &later].concat());
    let all = run(&fleet, &[&["--all"][..], &later].concat());
    let (tagged, all) = (tagged.stdout.trim(), all.stdout.trim());
    let paused = fleet.sluice(&["job", "pause", tagged]);
    assert_eq!(paused.code, 0, "{paused:?}");
    tag(&fleet, &["m2", "role=web"]);
    fleet.host.kill_and_restart();
    fleet.add_machine("m3", "");
    tag(&fleet, &["m3", "role=web"]);
    tag(&fleet, &["m3", "role=db"]);
    let succeeded = |names: &[&str]| -> Vec<(String, String)> {
        let each = names.iter();
        each.map(|name| ((*name).to_owned(), "succeeded".to_owned()))
            .collect()
    };
    eventually("m3 joins what is for all", || {
        (went_to(&fleet, all) == succeeded(&["m1", "m2", "m3"])).then_some(())
    });
    assert_eq!(went_to(&fleet, tagged).len(), 1, "it is paused");
    let resumed = fleet.sluice(&["job", "resume", tagged]);
    assert_eq!(resumed.code, 0, "{resumed:?}");
    eventually("m2 joins what goes on", || {
        (went_to(&fleet, tagged) == succeeded(&["m1", "m2"])).then_some(())
    });
    let open = |fleet: &Fleet| {
        let listed = fleet.list(&["job", "list"]);
        listed
            .iter()
            .filter(|job| job["open_until"].is_string())
            .count()
    };
    assert_eq!(open(&fleet), 2);
    for job in [tagged, all] {
        let canceled = fleet.sluice(&["job", "cancel", job]);
        assert_eq!(canceled.code, 0, "{canceled:?}");
        // It ends, and says how it went.
        let followed = fleet.sluice(&["job", "show", job, "--follow"]);
        assert_eq!(followed.code, 0, "{followed:?}");
    }
    assert_eq!(open(&fleet), 0);
}
