//! `sluice run`.

use std::io::{BufRead as _, BufReader, Read as _};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::host::{Answer, Asked, Host, JOB, OPERATIONS, end, ending, job, output, result};

fn script(text: &str) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().expect("makes a file");
    std::fs::write(file.path(), text).expect("writes");
    file
}

fn path(file: &tempfile::NamedTempFile) -> &str {
    file.path().to_str().expect("is text")
}

/// A host that takes a job for `machines` machines and tells `events` about it, in the answer where that is wanted.
fn host(machines: usize, events: Vec<(&'static str, Value)>) -> Host {
    Host::start(
        move |asked: &Asked, mut answer: Answer| match asked.line.as_str() {
            "POST /v1/jobs" if follows(asked) => {
                answer.events(&[("job", job(machines))]);
                for (name, data) in &events {
                    answer.more(name, data);
                }
            }
            "POST /v1/jobs" => answer.json("201 Created", &job(machines)),
            _ if asked.line == format!("GET /v1/jobs/{JOB}/events") => answer.events(&events),
            _ => answer.json(
                "404 Not Found",
                &json!({"status": 404, "title": "", "code": "no-route", "detail": asked.line}),
            ),
        },
    )
}

fn follows(asked: &Asked) -> bool {
    asked
        .header("accept")
        .is_some_and(|accept| accept.contains("text/event-stream"))
}

#[test]
fn an_answer_that_breaks_off_after_the_job_is_followed_from_elsewhere() {
    let told = [
        output(0, "stdout", 0, "one\n"),
        output(0, "stdout", 4, "two\n"),
        result(0, "succeeded", 0, "Script executed successfully"),
        end(),
    ];
    let host = Host::start(
        move |asked: &Asked, mut answer: Answer| match asked.line.as_str() {
            "POST /v1/jobs" => answer.events(&[("job", job(1)), told[0].clone()]),
            _ => answer.events(&told),
        },
    );
    let file = script("#!/bin/sh\n:\n");
    let output = host.sluice(&["run", path(&file), "--on", "web-1"]);
    let expected = (
        Some(0),
        "one\ntwo\n".to_owned(),
        "Script executed successfully\n".to_owned(),
    );
    assert_eq!(ending(&output), expected);
    let submissions = host
        .asked()
        .into_iter()
        .filter(|asked| asked.line == "POST /v1/jobs");
    assert_eq!(submissions.count(), 1);
}

#[test]
fn a_host_that_answers_with_the_job_alone_is_asked_for_its_events() {
    let events = [
        result(0, "succeeded", 0, "Script executed successfully"),
        end(),
    ];
    let host = Host::start(
        move |asked: &Asked, mut answer: Answer| match asked.line.as_str() {
            "POST /v1/jobs" => answer.json("201 Created", &job(1)),
            _ => answer.events(&events),
        },
    );
    let file = script("#!/bin/sh\n:\n");
    let output = host.sluice(&["run", path(&file), "--on", "web-1"]);
    assert_eq!(ending(&output).0, Some(0));
}

#[test]
fn one_operation_gives_its_streams_its_outcome_and_its_exit_code() {
    let events = vec![
        output(0, "stdout", 0, "\x1b[2Jout"),
        output(0, "stderr", 0, "err\n"),
        output(0, "stdout", 7, "put"),
        result(0, "failed", 3, "Script failed with exit code 3"),
        end(),
    ];
    let host = host(1, events);
    let file = script("#!/bin/sh\nexit 3\n");
    let arguments = [
        "run",
        path(&file),
        "--on",
        "web-1",
        "--param",
        "a=b=c",
        "--time-limit",
        "30s",
        "--env",
        "X=1",
    ];
    let output = host.sluice(&arguments);
    let expected = (
        Some(3),
        "\x1b[2Joutput".to_owned(),
        "err\nScript failed with exit code 3\n".to_owned(),
    );
    assert_eq!(ending(&output), expected);
    let asked = host.asked_for("POST /v1/jobs").expect("was asked");
    assert_eq!(asked.header("authorization"), Some("Bearer secret"));
    assert!(
        asked
            .header("idempotency-key")
            .is_some_and(|key| !key.is_empty())
    );
    let body = asked.json();
    assert_eq!(body["parameters"], json!([{"name": "a", "value": "b=c"}]));
    assert_eq!(body["limits"]["time"], "30s");
    assert_eq!(
        (&body["machines"], &body["all"]),
        (&json!(["web-1"]), &json!(false))
    );
    assert_eq!(body["script"], "IyEvYmluL3NoCmV4aXQgMwo=");
}

#[test]
fn several_operations_have_their_machine_on_each_line_and_one_exit_code() {
    let events = vec![
        output(0, "stdout", 0, "one\ntw"),
        output(1, "stdout", 0, "x"),
        output(0, "stdout", 6, "o\n"),
        result(1, "blocked", -1, "Blocked by policy: no"),
        result(0, "succeeded", 0, "Script executed successfully"),
        end(),
    ];
    let file = script("#!/bin/sh\n");
    let (code, stdout, stderr) = ending(&host(2, events).sluice(&["run", path(&file), "--all"]));
    assert_eq!(
        (code, stdout.as_str()),
        (Some(1), "web-1: one\nweb-1: two\nweb-2: x\n")
    );
    assert_eq!(
        stderr,
        "web-2: Blocked by policy: no\nweb-1: Script executed successfully\n"
    );
}

#[test]
fn json_is_the_hosts_objects_in_the_order_of_the_job_and_nothing_else() {
    let (_, mut first) = result(0, "succeeded", 0, "Script executed successfully");
    first["a_later_key"] = json!([1]);
    let (_, second) = result(1, "succeeded", 0, "Script executed successfully");
    let events = vec![
        output(0, "stdout", 0, "noise"),
        ("result", second.clone()),
        ("result", first.clone()),
        end(),
    ];
    let file = script("#!/bin/sh\n");
    let (code, stdout, stderr) =
        ending(&host(2, events).sluice(&["run", path(&file), "--all", "--json"]));
    let objects: Vec<Value> = stdout
        .lines()
        .map(|line| serde_json::from_str(line).expect("is JSON"))
        .collect();
    assert_eq!(
        (code, objects, stderr.as_str()),
        (Some(0), vec![first, second], "")
    );
}

#[test]
fn a_connection_that_is_lost_is_taken_up_without_writing_anything_twice() {
    let connections = AtomicUsize::new(0);
    let host = Host::start(move |asked, mut answer| match asked.line.as_str() {
        "POST /v1/jobs" => answer.json("201 Created", &job(1)),
        _ if connections.fetch_add(1, Ordering::SeqCst) == 0 => {
            answer.events(&[output(0, "stdout", 0, "abc")])
        }
        _ => answer.events(&[
            output(0, "stdout", 0, "abcdef"),
            result(0, "succeeded", 0, "Script executed successfully"),
            end(),
        ]),
    });
    let file = script("#!/bin/sh\n");
    let (code, stdout, _) = ending(&host.sluice(&["run", path(&file), "--on", "web-1"]));
    assert_eq!((code, stdout.as_str()), (Some(0), "abcdef"));
}

#[test]
fn a_refused_job_is_125_and_one_line() {
    let host = Host::start(|_, answer| {
        let problem = json!({"type": "about:blank", "title": "Bad Request", "status": 400, "code": "script-empty",
            "detail": "the script is empty; nothing was recorded"});
        answer.json("400 Bad Request", &problem);
    });
    let file = script("");
    let arguments = ["run", path(&file), "--on", "web-1"];
    let (code, stdout, stderr) = ending(&host.sluice(&arguments));
    assert_eq!((code, stdout.as_str()), (Some(125), ""));
    assert_eq!(
        stderr,
        "sluice: the script is empty; nothing was recorded\n"
    );
    let (code, stdout, stderr) =
        ending(&host.sluice(&[arguments.as_slice(), &["--json"]].concat()));
    let error: Value = serde_json::from_str(&stderr).expect("is JSON");
    assert_eq!(
        (code, stdout.as_str(), &error["error"]["code"]),
        (Some(125), "", &json!("script-empty"))
    );
}

#[test]
fn detach_prints_the_job() {
    let file = script("#!/bin/sh\n");
    let arguments = ["run", path(&file), "--on", "web-1", "--detach"];
    assert_eq!(
        ending(&host(1, vec![]).sluice(&arguments)),
        (Some(0), format!("{JOB}\n"), String::new())
    );
}

#[test]
fn attachments_are_uploaded_before_the_job() {
    let host = Host::start(|asked, answer| match asked.line.as_str() {
        "PUT /v1/blobs" => {
            let sha256 = sluice_protocol::digest::Digest::of(&asked.body);
            answer.json(
                "200 OK",
                &json!({"sha256": sha256, "size": asked.body.len()}),
            );
        }
        _ => answer.json("201 Created", &job(1)),
    });
    let (file, attachment) = (script("#!/bin/sh\n"), script("data"));
    let arguments = [
        "run",
        path(&file),
        "--on",
        "web-1",
        "--detach",
        "--attach",
        path(&attachment),
    ];
    assert_eq!(host.sluice(&arguments).status.code(), Some(0));
    let asked = host.asked();
    assert_eq!(
        (asked[0].line.as_str(), asked[0].body.as_slice()),
        ("PUT /v1/blobs", b"data".as_slice())
    );
    let name = attachment
        .path()
        .file_name()
        .and_then(|name| name.to_str())
        .expect("is text");
    let sha256 = sluice_protocol::digest::Digest::of(b"data");
    assert_eq!(
        asked[1].json()["attachments"],
        json!([{"name": name, "sha256": sha256, "size": 4}])
    );
}

/// A host whose job runs until it is canceled.
fn endless() -> Host {
    static CANCELED: AtomicBool = AtomicBool::new(false);
    Host::start(|asked, mut answer| match asked.line.as_str() {
        "POST /v1/jobs" => answer.json("201 Created", &job(1)),
        line if line.ends_with("/cancel") => {
            CANCELED.store(true, Ordering::SeqCst);
            answer.json("200 OK", &json!({"canceled": 1}));
        }
        _ => {
            answer.events(&[output(0, "stdout", 0, "started\n")]);
            while !CANCELED.load(Ordering::SeqCst) {
                std::thread::sleep(Duration::from_millis(5));
            }
            let (name, data) = result(0, "canceled", 143, "Canceled by admin");
            answer.more(name, &data);
            answer.more("end", &json!({}));
        }
    })
}

#[test]
fn ctrl_c_leaves_the_job_alone_and_twice_cancels_it() {
    let host = endless();
    let file = script("#!/bin/sh\n");
    let arguments = ["run", path(&file), "--on", "web-1"];
    for presses in [1, 2] {
        let mut child = host.spawn(&arguments);
        let pid = Pid::from_raw(i32::try_from(child.id()).expect("fits"));
        let mut stdout = BufReader::new(child.stdout.take().expect("is piped"));
        let mut stderr = BufReader::new(child.stderr.take().expect("is piped"));
        let mut line = String::new();
        stdout.read_line(&mut line).expect("reads");
        assert_eq!(line, "started\n");
        let mut said = String::new();
        for _ in 0..presses {
            kill(pid, Signal::SIGINT).expect("signals");
            stderr.read_line(&mut said).expect("reads");
        }
        let asked_at = Instant::now();
        assert!(said.contains(JOB), "{said}");
        stderr.read_to_string(&mut said).expect("reads");
        assert_eq!(child.wait().expect("ends").code(), Some(130), "{said}");
        let canceled = host
            .asked_for(&format!("POST /v1/jobs/{JOB}/cancel"))
            .is_some();
        assert_eq!(canceled, presses == 2);
        if presses == 1 {
            assert!(
                asked_at.elapsed() >= Duration::from_millis(1500),
                "left before the operator could press again"
            );
        } else {
            assert!(said.ends_with("Canceled by admin\n"), "{said}");
        }
    }
}

#[test]
fn a_result_that_was_not_told_is_asked_for() {
    let host = Host::start(|asked, mut answer| match asked.line.as_str() {
        "POST /v1/jobs" => answer.json("201 Created", &job(1)),
        line if line == format!("GET /v1/operations/{}", OPERATIONS[0]) => {
            answer.json(
                "200 OK",
                &result(0, "expired", -1, "Expired before it could start").1,
            );
        }
        _ => answer.events(&[end()]),
    });
    let file = script("#!/bin/sh\n");
    let (code, _, stderr) = ending(&host.sluice(&["run", path(&file), "--on", "web-1"]));
    assert_eq!(
        (code, stderr.as_str()),
        (Some(127), "Expired before it could start\n")
    );
}
