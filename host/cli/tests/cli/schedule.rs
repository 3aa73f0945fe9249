//! `sluice schedule`, `sluice lockdown` and `sluice job halt`.

use serde_json::{Value, json};

use crate::host::{Host, JOB, ending, sluice};

const ID: &str = "019a0000-0000-7000-8000-0000000000aa";

fn schedule() -> Value {
    json!({"schedule": ID, "name": "nightly", "tenant": "default", "operator": "admin", "state": "active", "at": null,
        "cron": "0 3 * * *", "every": null, "zone": "Europe/Berlin", "jitter": "5m", "missed": "once", "overlap": "skip",
        "created_at": "2026-11-21T06:00:00.000Z", "paused_at": null, "paused_by": null, "script_sha256": "0".repeat(64),
        "machines": ["web-1"], "tags": [{"key": "role", "value": "web"}], "all": false, "run_as": "nobody",
        "next": [{"planned_at": "2026-11-22T02:00:00.000Z", "due_at": "2026-11-22T02:01:00.000Z",
            "local": "2026-11-22T03:01:00+01:00[Europe/Berlin]"}],
        "last": run(), "a_later_key": 1})
}

fn run() -> Value {
    json!({"planned_at": "2026-11-21T02:00:00.000Z", "state": "fired", "at": "2026-11-21T02:01:00.000Z", "job": JOB,
        "reason": null, "runs": 1})
}

fn host() -> Host {
    Host::start(|asked, answer| {
        let line = asked.line.split('?').next().unwrap_or_default();
        match line {
            "POST /v1/schedules" => answer.json("201 Created", &schedule()),
            "GET /v1/schedules" => {
                answer.json("200 OK", &json!({"items": [schedule()], "next": null}))
            }
            "GET /v1/schedules/nightly/runs" => {
                let waiting = json!({"planned_at": "2026-11-22T02:00:00.000Z", "state": "waiting", "at": "2026-11-22T02:01:00.000Z",
                    "job": null, "reason": "makes up for a run that was missed", "runs": 1});
                let missed = json!({"planned_at": "2026-11-20T02:00:00.000Z", "state": "missed", "at": "2026-11-20T02:01:00.000Z",
                    "job": null, "reason": "the token of ann was revoked", "runs": 1});
                answer.json(
                    "200 OK",
                    &json!({"items": [waiting, run(), missed], "next": null}),
                );
            }
            "DELETE /v1/schedules/nightly" => answer.json("200 OK", &Value::Null),
            "POST /v1/jobs/halt" => answer.json("200 OK", &json!({"canceled": 7})),
            "PUT /v1/lockdown" | "GET /v1/lockdown" => {
                let on = json!({"on": true, "since": "2026-11-21T06:00:00.000Z", "operator": "admin", "reason": "drill",
                    "canceled": 3});
                answer.json("200 OK", &on);
            }
            "DELETE /v1/lockdown" => {
                let off = json!({"on": false, "since": null, "operator": null, "reason": null, "canceled": 0});
                answer.json("200 OK", &off);
            }
            _ => answer.json("200 OK", &schedule()),
        }
    })
}

#[test]
fn add_sends_the_job_and_when_it_runs_and_prints_the_next_runs() {
    let host = host();
    let file = tempfile::NamedTempFile::new().expect("makes a file");
    std::fs::write(file.path(), "#!/bin/sh\n").expect("writes");
    let path = file.path().to_str().expect("is text");
    let words = "--cron|0 3 * * *|--zone|Europe/Berlin|--jitter|5m|--missed|all|--overlap|queue|--on|web-1|--as|nobody|--param|a=b";
    let arguments: Vec<_> = ["schedule", "add", "nightly", path]
        .into_iter()
        .chain(words.split('|'))
        .collect();
    let (code, stdout, stderr) = ending(&host.sluice(&arguments));
    assert_eq!((code, stderr.as_str()), (Some(0), ""));
    assert!(
        stdout.contains("2026-11-22T03:01:00+01:00[Europe/Berlin]")
            && stdout.contains("0 3 * * * (Europe/Berlin)")
            && stdout.contains("web-1, role=web"),
        "{stdout}"
    );
    let body = host.asked_for("POST /v1/schedules").expect("asked").json();
    assert_eq!(
        [&body["name"], &body["cron"], &body["zone"], &body["jitter"]],
        ["nightly", "0 3 * * *", "Europe/Berlin", "5m"]
    );
    assert_eq!(
        [
            &body["missed"],
            &body["overlap"],
            &body["at"],
            &body["every"]
        ],
        [&json!("all"), &json!("queue"), &Value::Null, &Value::Null]
    );
    assert_eq!(
        (&body["job"]["script"], &body["job"]["run_as"]),
        (&json!("IyEvYmluL3NoCg=="), &json!("nobody"))
    );
    assert_eq!(
        body["job"]["parameters"],
        json!([{"name": "a", "value": "b"}])
    );
}

#[test]
fn when_is_said_in_one_way() {
    let base = ["schedule", "add", "n", "/dev/null", "--on", "a"];
    for wrong in [
        &[][..],
        &["--every", "1h", "--cron", "@daily"],
        &["--at", "x", "--every", "1h"],
        &["--every", "1h", "--zone", "UTC"],
        &["--every", "1"],
        &["--every", "1h", "--missed", "twice"],
        &["--every", "1h", "--overlap", "no"],
        &["--every", "1h", "--detach"],
    ] {
        let arguments = [&base, wrong].concat();
        let (code, stdout, stderr) = ending(&sluice(&arguments).output().expect("starts"));
        assert_eq!(
            (code, stdout.as_str(), stderr.lines().count()),
            (Some(125), "", 1),
            "{wrong:?}: {stderr}"
        );
        assert!(stderr.contains("sluice schedule add --help"), "{stderr}");
    }
}

#[test]
fn a_list_is_tabs_in_a_pipe_and_one_object_a_line_with_json() {
    let host = host();
    let (_, stdout, _) = ending(&host.sluice(&["schedule", "list"]));
    let expected = format!(
        "nightly\tactive\t0 3 * * * (Europe/Berlin)\t2026-11-22T03:01:00+01:00[Europe/Berlin]\tjob {JOB}\tadmin\n"
    );
    assert_eq!(stdout, expected);
    let (_, stdout, _) = ending(&host.sluice(&["schedule", "list", "--json"]));
    let listed: Value = serde_json::from_str(&stdout).expect("is JSON");
    assert_eq!(
        (stdout.lines().count(), &listed["name"]),
        (1, &json!("nightly"))
    );
}

#[test]
fn show_has_the_last_runs_with_their_jobs_or_why_there_is_none() {
    let host = host();
    let (code, stdout, _) = ending(&host.sluice(&["schedule", "show", "nightly"]));
    assert_eq!(code, Some(0));
    assert!(
        stdout.contains("2026-11-22T02:00:00.000Z waits for the run before\n")
            && stdout.contains(&format!("2026-11-21T02:00:00.000Z job {JOB}\n"))
            && stdout.contains("2026-11-20T02:00:00.000Z no job: the token of ann was revoked\n"),
        "{stdout}"
    );
    let (_, stdout, _) = ending(&host.sluice(&["schedule", "show", "nightly", "--json"]));
    let shown: Value = serde_json::from_str(&stdout).expect("is one object");
    assert_eq!(shown["runs"].as_array().map(Vec::len), Some(3));
    assert_eq!(shown["a_later_key"], 1, "the host's object, as it is");
}

#[test]
fn schedules_are_paused_resumed_and_removed() {
    let host = host();
    for (what, asked) in [
        ("pause", "POST /v1/schedules/nightly/pause"),
        ("resume", "POST /v1/schedules/nightly/resume"),
        ("remove", "DELETE /v1/schedules/nightly"),
    ] {
        let (code, stdout, _) = ending(&host.sluice(&["schedule", what, "nightly"]));
        assert_eq!(code, Some(0), "{what}");
        assert!(stdout.contains("nightly"), "{what}: {stdout}");
        assert!(host.asked_for(asked).is_some(), "{what}");
    }
}

#[test]
fn halt_and_lockdown_are_one_request_each() {
    let host = host();
    let (code, stdout, _) = ending(&host.sluice(&["job", "halt", "--tenant", "t"]));
    assert_eq!(
        (code, stdout.as_str()),
        (Some(0), "canceled 7 operations that had not ended\n")
    );
    let asked = host
        .asked_for("POST /v1/jobs/halt?tenant=t")
        .expect("asked");
    assert_eq!(asked.json(), json!({"tenant": "t"}));
    let on = ["lockdown", "on", "--reason", "drill", "--cancel"];
    let (code, stdout, _) = ending(&host.sluice(&on));
    assert_eq!(code, Some(0));
    assert!(
        stdout.contains("on\n") && stdout.contains("3 operations"),
        "{stdout}"
    );
    let asked = host.asked_for("PUT /v1/lockdown").expect("asked");
    assert_eq!(asked.json(), json!({"reason": "drill", "cancel": true}));
    let (_, stdout, _) = ending(&host.sluice(&["lockdown", "show", "--json"]));
    let shown: Value = serde_json::from_str(&stdout).expect("is JSON");
    assert_eq!(shown["on"], true);
    let (_, stdout, _) = ending(&host.sluice(&["lockdown", "off"]));
    assert_eq!(stdout, "lockdown: off\n");
    assert_eq!(host.asked().len(), 4);
}
