//! Usage errors, settings, lists and what is not there yet.

use serde_json::{Value, json};

use crate::host::{Host, ending, sluice};

fn run(arguments: &[&str]) -> (Option<i32>, String, String) {
    ending(&sluice(arguments).output().expect("starts"))
}

#[test]
fn usage_errors_are_125_and_one_line() {
    for arguments in [
        &[][..],
        &["frobnicate"],
        &["run"],
        &["run", "x"],
        &["run", "x", "--on", "a", "--all"],
        &["machine"],
    ] {
        let (code, stdout, stderr) = run(arguments);
        assert_eq!(
            (code, stdout.as_str(), stderr.lines().count()),
            (Some(125), "", 1),
            "{arguments:?}: {stderr}"
        );
        let (code, stdout, stderr) = run(&[arguments, &["--json"]].concat());
        let error: Value = serde_json::from_str(&stderr).expect("is JSON");
        assert_eq!(
            (code, stdout.as_str(), &error["error"]["code"]),
            (Some(125), "", &json!("usage")),
            "{arguments:?}"
        );
    }
}

#[test]
fn help_and_version_are_0() {
    for arguments in [
        &["--help"][..],
        &["--version"],
        &["run", "--help"],
        &["plugin", "--help"],
    ] {
        let (code, stdout, stderr) = run(arguments);
        assert_eq!((code, stderr.as_str()), (Some(0), ""), "{arguments:?}");
        assert!(!stdout.is_empty());
    }
}

#[test]
fn what_is_not_there_yet_says_so() {
    for arguments in [
        &["plugin", "new", "x", "--lang", "c"][..],
        &["plugin", "new", "x", "--lang", "python"],
        &["plugin", "new", "x", "--lang", "js"],
        &["plugin", "install", "oci://registry/x"],
    ] {
        let (code, stdout, stderr) = run(arguments);
        assert_eq!((code, stdout.as_str()), (Some(125), ""), "{arguments:?}");
        assert!(
            stderr.ends_with("not implemented in this version\n"),
            "{arguments:?}: {stderr}"
        );
    }
}

#[test]
fn a_shell_learns_the_commands_and_a_package_gets_its_manual() {
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let (code, stdout, stderr) = run(&["completion", shell]);
        assert_eq!((code, stderr.as_str()), (Some(0), ""), "{shell}");
        assert!(stdout.contains("enroll-token"), "{shell}");
    }
    let folder = tempfile::tempdir().expect("makes a folder");
    let path = folder.path().to_str().expect("is text");
    assert_eq!(run(&["man", path]).0, Some(0));
    let page = std::fs::read_to_string(folder.path().join("sluice-machine-revoke.1"));
    assert!(page.expect("reads").contains("sluice"));
    let (code, _, stderr) = run(&["man", "/nonexistent"]);
    assert_eq!((code, stderr.lines().count()), (Some(125), 1), "{stderr}");
}

#[test]
fn without_a_host_or_a_token_it_is_said_what_to_do() {
    let (code, _, stderr) = run(&["job", "list"]);
    assert_eq!(code, Some(125));
    assert!(
        stderr.contains("sluice login") && stderr.contains("SLUICE_HOST"),
        "{stderr}"
    );
}

#[test]
fn a_host_that_does_not_answer_is_named() {
    let (code, _, stderr) = run(&[
        "--host",
        "http://127.0.0.1:1",
        "--token",
        "t",
        "job",
        "list",
    ]);
    assert_eq!((code, stderr.lines().count()), (Some(125), 1), "{stderr}");
    assert!(
        stderr.contains("http://127.0.0.1:1/") && stderr.contains("onnection refused"),
        "{stderr}"
    );
}

#[test]
fn a_file_that_others_can_read_is_refused() {
    use std::os::unix::fs::PermissionsExt as _;
    let home = tempfile::tempdir().expect("makes a directory");
    let file = home.path().join(".config/sluice/config.toml");
    std::fs::create_dir_all(file.parent().expect("has one")).expect("makes a directory");
    std::fs::write(&file, "host = \"http://127.0.0.1:1\"\ntoken = \"t\"\n").expect("writes");
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644))
        .expect("changes the mode");
    let output = sluice(&["job", "list"])
        .env("HOME", home.path())
        .output()
        .expect("starts");
    let (code, _, stderr) = ending(&output);
    assert_eq!(code, Some(125));
    assert!(
        stderr.contains("chmod 600") && stderr.contains("0644"),
        "{stderr}"
    );
}

#[test]
fn login_tries_the_token_and_saves_it_for_later_commands() {
    let host = Host::start(|asked, answer| {
        match (asked.line.as_str(), asked.header("authorization")) {
        ("GET /v1/whoami", Some("Bearer secret")) => answer.json(
            "200 OK",
            &json!({"operator": "admin", "tenant": "default", "permissions": [], "host_version": "0.1.0"}),
        ),
        (_, Some("Bearer secret")) => answer.json("200 OK", &json!({"items": [], "next": null})),
        _ => answer.json(
            "401 Unauthorized",
            &json!({"title": "", "status": 401, "code": "unauthenticated", "detail": "the token is unknown"}),
        ),
    }
    });
    let home = tempfile::tempdir().expect("makes a directory");
    let login = |token: &str| {
        let arguments = ["--host", &host.url(), "--token", token, "login"];
        ending(
            &sluice(&arguments)
                .env("HOME", home.path())
                .output()
                .expect("starts"),
        )
    };
    assert_eq!(login("wrong").0, Some(125));
    assert!(
        !home.path().join(".config").exists(),
        "a token that does not work was saved"
    );
    assert_eq!(login("secret").0, Some(0));
    let output = sluice(&["machine", "list"])
        .env("HOME", home.path())
        .output()
        .expect("starts");
    assert_eq!(ending(&output), (Some(0), String::new(), String::new()));
}

#[test]
fn lists_go_through_every_page_and_are_tabs_or_objects() {
    let token = |id: &str| {
        json!({"id": id, "name": "ci\u{1b}", "operator": "ann", "tenant": "default", "roles": ["helpdesk"], "permissions": ["A", "B"], "created_at": "2026-11-21T06:00:00Z",
            "expires_at": null, "revoked": false})
    };
    let host = Host::start(move |asked, answer| {
        let (items, next) = if asked.line.contains("after=one") {
            (token("two"), json!(null))
        } else {
            (token("one"), json!("one"))
        };
        answer.json("200 OK", &json!({"items": [items], "next": next}));
    });
    let (code, stdout, _) = ending(&host.sluice(&["token", "list"]));
    assert_eq!(code, Some(0));
    let row = |id: &str| {
        format!("{id}\tci\u{fffd}\tann\thelpdesk\tA,B\t2026-11-21T06:00:00Z\t\tactive\n")
    };
    assert_eq!(stdout, row("one") + &row("two"));
    let (_, stdout, _) = ending(&host.sluice(&["token", "list", "--json"]));
    let ids: Vec<Value> = stdout
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).expect("is JSON")["id"].clone())
        .collect();
    assert_eq!(ids, ["one", "two"]);
}
