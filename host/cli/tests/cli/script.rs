//! `sluice script`, and `sluice run --script`.

use std::os::unix::fs::symlink;

use serde_json::{Value, json};

use crate::host::{Answer, Asked, Host, ending, job};

/// A version as the host tells it.
fn version(name: &str, number: u64) -> Value {
    json!({"name": name, "version": number, "tenant": "default", "description": "what it is for", "script_sha256": "0".repeat(64),
        "size": 10, "interpreter": null, "os": ["linux"], "run_as": "nobody", "limits": {"time": "30s", "output": null, "memory": null},
        "parameters": [{"name": "times", "type": "integer", "required": false, "default": 1, "pattern": null, "min": null, "max": 3.0,
            "choices": [], "as": "env", "description": "how often"}],
        "requires": {"arch": [], "commands": ["git"], "interpreter": null, "user": null, "disk": "1GiB", "memory": null},
        "environment": [{"name": "A", "value": "1\u{1b}"}], "created_at": "2026-11-21T06:00:00Z", "created_by": "admin",
        "redacted_at": null, "redacted_by": null})
}

fn script(name: &str, versions: u64) -> Value {
    json!({"name": name, "tenant": "default", "description": "what it is for", "created_at": "2026-11-21T06:00:00Z",
        "created_by": "admin", "archived_at": null, "archived_by": null, "versions": versions, "latest": version(name, versions)})
}

fn refuse(answer: Answer, status: u16, code: &str, detail: &str) {
    let body = json!({"title": "", "status": status, "code": code, "detail": detail});
    answer.json(&format!("{status} No"), &body);
}

/// A host that takes scripts; one that is called `same` it has already, and one that is called `archived` it refuses.
fn library() -> Host {
    Host::start(|asked: &Asked, answer: Answer| {
        match asked.line.as_str() {
        "POST /v1/scripts" => {
            let name = asked.json()["name"].as_str().expect("a name").to_owned();
            match name.as_str() {
                "archived" => refuse(answer, 409, "script-archived", "the script is archived"),
                "same" => answer.json("200 OK", &version(&name, 4)),
                _ => answer.json("201 Created", &version(&name, 1)),
            }
        }
        "GET /v1/scripts/deploy" => answer.json("200 OK", &script("deploy", 2)),
        "GET /v1/scripts/deploy/versions/2" => {
            let mut text = version("deploy", 2);
            text["script"] = "IyEvYmluL3NoChtbMm0=".into();
            answer.json("200 OK", &text);
        }
        "GET /v1/scripts/deploy/versions/1" => {
            let mut text = version("deploy", 1);
            text["script"] = Value::Null;
            answer.json("200 OK", &text);
        }
        "POST /v1/scripts/deploy/archive" => answer.json("200 OK", &script("deploy", 2)),
        "POST /v1/scripts/deploy/versions/2/redact" => answer.json(
            "200 OK",
            &json!({"redacted": [{"name": "deploy", "version": 2}, {"name": "old", "version": 1}], "canceled": 3}),
        ),
        "POST /v1/jobs" => answer.json("201 Created", &job(1)),
        line if line.starts_with("GET /v1/scripts?") => {
            let (items, next) = if line.contains("after=a") {
                (script("b", 2), Value::Null)
            } else {
                (script("a", 1), "a".into())
            };
            answer.json("200 OK", &json!({"items": [items], "next": next}));
        }
        line if line.starts_with("GET /v1/scripts/deploy/versions?") => {
            let items = json!([version("deploy", 1), version("deploy", 2)]);
            answer.json("200 OK", &json!({"items": items, "next": null}));
        }
        other => refuse(answer, 404, "script-not-found", other),
    }
    })
}

fn file(folder: &tempfile::TempDir, name: &str, text: &str) -> String {
    let path = folder.path().join(name);
    std::fs::write(&path, text).expect("writes");
    path.to_str().expect("is text").to_owned()
}

#[test]
fn the_parameters_of_a_script_without_a_header_come_from_a_file() {
    let (host, folder) = (library(), tempfile::tempdir().expect("makes a directory"));
    let script = file(&folder, "deploy.sh", "#!/bin/sh\n");
    let tables = file(&folder, "deploy.toml", "[parameters.path]\n");
    let added = host.sluice(&["script", "add", &script, "--parameters", &tables]);
    assert_eq!(
        ending(&added),
        (Some(0), "deploy@1\n".to_owned(), String::new())
    );
    let asked = host
        .asked_for("POST /v1/scripts")
        .expect("was asked")
        .json();
    assert_eq!(asked["parameters"], json!("[parameters.path]\n"));
    let missing = host.sluice(&["script", "add", &script, "--parameters", "/nowhere.toml"]);
    let (code, stdout, stderr) = ending(&missing);
    assert_eq!((code, stdout.as_str()), (Some(125), ""));
    assert!(stderr.contains("/nowhere.toml"), "{stderr}");
}

#[test]
fn a_script_is_added_under_the_name_of_its_file_with_what_is_asked_for() {
    let (host, folder) = (library(), tempfile::tempdir().expect("makes a directory"));
    let path = file(&folder, "deploy.sh", "#!/bin/sh\n");
    let options = "--description x --os linux --as nobody --env A=b --time-limit 30s";
    let arguments: Vec<_> = ["script", "add", &path]
        .into_iter()
        .chain(options.split(' '))
        .collect();
    assert_eq!(
        ending(&host.sluice(&arguments)),
        (Some(0), "deploy@1\n".to_owned(), String::new())
    );
    let asked = host
        .asked_for("POST /v1/scripts")
        .expect("was asked")
        .json();
    assert_eq!(
        (&asked["name"], &asked["script"], &asked["run_as"]),
        (
            &json!("deploy"),
            &json!("IyEvYmluL3NoCg=="),
            &json!("nobody")
        )
    );
    assert_eq!(
        (
            &asked["os"],
            &asked["environment"],
            &asked["limits"]["time"]
        ),
        (
            &json!(["linux"]),
            &json!([{"name": "A", "value": "b"}]),
            &json!("30s")
        )
    );
    let (code, stdout, _) =
        ending(&host.sluice(&["script", "add", &path, "--name", "n", "--json"]));
    let added: Value = serde_json::from_str(&stdout).expect("is JSON");
    assert_eq!((code, &added["name"]), (Some(0), &json!("n")));
}

#[test]
fn what_cannot_be_added_says_why() {
    let (host, folder) = (library(), tempfile::tempdir().expect("makes a directory"));
    let path = file(&folder, "archived", "#!/bin/sh\n");
    for (arguments, expected) in [
        (["script", "add", "-"], "--name"),
        (
            ["script", "add", "/nonexistent/x"],
            "cannot read /nonexistent/x",
        ),
        (["script", "add", &path], "the script is archived"),
        (["script", "redact", "deploy"], "write deploy@VERSION"),
        (["script", "redact", "deploy@0"], "NAME@VERSION"),
    ] {
        let (code, stdout, stderr) = ending(&host.sluice(&arguments));
        assert_eq!(
            (code, stdout.as_str(), stderr.lines().count()),
            (Some(125), "", 1),
            "{stderr}"
        );
        assert!(stderr.contains(expected), "{stderr}");
    }
}

#[test]
fn scripts_and_versions_are_lists() {
    let host = library();
    let row = |name: &str, version: u64| {
        format!("{name}\t{version}\tactive\tlinux\t2026-11-21T06:00:00Z\twhat it is for\n")
    };
    let (code, stdout, _) = ending(&host.sluice(&["script", "list"]));
    assert_eq!((code, stdout), (Some(0), row("a", 1) + &row("b", 2)));
    let (_, stdout, _) = ending(&host.sluice(&["script", "list", "--json"]));
    assert_eq!(stdout.lines().count(), 2);
    let (_, stdout, _) = ending(&host.sluice(&["script", "versions", "deploy"]));
    let numbers: Vec<_> = stdout
        .lines()
        .filter_map(|line| line.split('\t').next())
        .collect();
    assert_eq!(numbers, ["1", "2"]);
}

#[test]
fn a_script_is_shown_with_its_parameters_and_its_text() {
    let host = library();
    let (code, stdout, _) = ending(&host.sluice(&["script", "show", "deploy"]));
    assert_eq!(code, Some(0));
    for line in [
        "times: integer, default 1, at most 3 (how often)",
        "needs commands:",
        "A=1\u{fffd}",
        "nobody",
    ] {
        assert!(stdout.contains(line), "{line}: {stdout}");
    }
    let (_, stdout, _) = ending(&host.sluice(&["script", "show", "deploy@2", "--json"]));
    let shown: Value = serde_json::from_str(&stdout).expect("is JSON");
    assert_eq!(
        (&shown["version"], &shown["script"]),
        (&json!(2), &json!("IyEvYmluL3NoChtbMm0="))
    );
    let (_, stdout, _) = ending(&host.sluice(&["script", "show", "deploy", "--text"]));
    assert_eq!(stdout, "#!/bin/sh\n\u{1b}[2m", "byte for byte into a pipe");
    let (code, stdout, stderr) = ending(&host.sluice(&["script", "show", "deploy@1", "--text"]));
    assert_eq!((code, stdout.as_str()), (Some(125), ""));
    assert!(stderr.contains("redacted"), "{stderr}");
}

#[test]
fn archiving_and_redacting_say_what_was_done() {
    let host = library();
    let (code, stdout, _) = ending(&host.sluice(&["script", "archive", "deploy"]));
    assert!(
        code == Some(0) && stdout.starts_with("archived deploy;"),
        "{stdout}"
    );
    let (code, stdout, _) = ending(&host.sluice(&["script", "redact", "deploy@2"]));
    let expected =
        "redacted deploy@2\nredacted old@1\ncanceled 3 operations that had not started\n";
    assert_eq!((code, stdout.as_str()), (Some(0), expected));
}

#[test]
fn a_folder_is_imported_and_every_entry_is_accounted_for() {
    let (host, folder) = (library(), tempfile::tempdir().expect("makes a directory"));
    let first = file(&folder, "first.sh", "#!/bin/sh\n");
    file(&folder, "same.py", "#!/usr/bin/python3\n");
    file(&folder, "notes.txt", "no script\n");
    std::fs::create_dir(folder.path().join("sub")).expect("makes a directory");
    symlink(&first, folder.path().join("link.sh")).expect("makes a link");
    let path = folder.path().to_str().expect("is text").to_owned();
    let (code, stdout, stderr) = ending(&host.sluice(&["script", "import", &path]));
    let expected = "added\tfirst.sh\tfirst@1\t\nskipped\tlink.sh\t\ta symbolic link\nskipped\tnotes.txt\t\tno #! line\n\
                    unchanged\tsame.py\tsame@4\t\nskipped\tsub\t\tno regular file\n";
    assert_eq!((code, stdout.as_str()), (Some(0), expected));
    assert_eq!(
        stderr,
        "sluice: 1 added, 1 unchanged, 3 skipped, 0 failed\n"
    );
    assert_eq!(host.asked().len(), 2);

    file(&folder, "archived.sh", "#!/bin/sh\n");
    file(&folder, "twin.sh", "#!/bin/sh\n");
    file(&folder, "twin.py", "#!/usr/bin/python3\n");
    let (code, stdout, _) = ending(&host.sluice(&["script", "import", &path, "--json"]));
    assert_eq!(code, Some(1));
    let failed: Vec<_> = stdout
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).expect("is JSON"))
        .filter(|line| line["status"] == "failed")
        .map(|line| {
            (
                line["file"].clone(),
                line["reason"].as_str().unwrap_or_default().to_owned(),
            )
        })
        .collect();
    let names: Vec<_> = failed.iter().map(|(file, _)| file.clone()).collect();
    assert_eq!(names, ["archived.sh", "twin.py", "twin.sh"]);
    assert!(
        failed[0].1.contains("archived") && failed[1].1.contains("another file"),
        "{failed:?}"
    );
    let twins = host
        .asked()
        .iter()
        .filter(|asked| asked.json()["name"] == "twin")
        .count();
    assert_eq!(twins, 0, "of two with one name none is sent");
}

#[test]
fn a_stored_script_is_run_by_its_name_and_no_text_is_sent() {
    let host = library();
    for (typed, expected) in [
        ("deploy@2", json!({"name": "deploy", "version": 2})),
        ("deploy", json!({"name": "deploy", "version": null})),
    ] {
        let run = [
            "run", "--script", typed, "--on", "web-1", "--param", "a=b", "--detach",
        ];
        let (code, _, stderr) = ending(&host.sluice(&run));
        assert_eq!((code, stderr.as_str()), (Some(0), ""));
        let asked = host.asked().pop().expect("was asked").json();
        assert_eq!(
            (&asked["script_ref"], &asked["script"]),
            (&expected, &Value::Null)
        );
    }
}
