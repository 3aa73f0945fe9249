//! What runs a script, and what of its surroundings it takes in.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use sluice_tests::{Fleet, Script, is_root, script};

use crate::hostile::without_gates;

/// A folder that every user can read, with a file in it.
fn folder(fleet: &Fleet, name: &str, text: &str) -> std::path::PathBuf {
    let folder = fleet.folder().join(name.replace(['/', '.'], ""));
    let file = folder.join(name);
    fs::create_dir_all(file.parent().expect("is in a folder")).expect("makes");
    fs::write(&file, text).expect("writes");
    for path in [
        fleet.folder(),
        &folder,
        file.parent().expect("is in a folder"),
    ] {
        let mode = fs::Permissions::from_mode(0o755);
        fs::set_permissions(path, mode).expect("opens it to all");
    }
    folder
}

/// An ephemeral user has a `/tmp` of its own, and would not see the folder.
fn sees_the_folder(asked: Script) -> Script {
    if is_root() {
        asked.option("--as", "root")
    } else {
        asked
    }
}

#[test]
fn a_home_that_the_job_names_brings_no_code_into_any_shell() {
    let fleet = without_gates(
        "[interpreters]\nallowed = [\"sh\", \"bash\", \"zsh\", \"ksh\"]\n[run-as]\nusers = \"ALL\"\n",
    );
    for (shell, file) in [
        ("zsh", ".zshenv"),
        ("bash", ".bashrc"),
        ("bash", ".bash_profile"),
        ("ksh", ".kshrc"),
        ("sh", ".profile"),
    ] {
        if !["/bin", "/usr/bin"]
            .iter()
            .any(|bin| Path::new(bin).join(shell).exists())
        {
            eprintln!("LEFT OUT: {shell} is not installed");
            continue;
        }
        let home = folder(&fleet, file, "echo from the home\n");
        let text = format!(
            "test -r {file} && echo from the script\n",
            file = home.join(file).display()
        );
        let asked = sees_the_folder(script(&text))
            .option("--interpreter", shell)
            .option("--env", &format!("HOME={}", home.display()));
        let outcome = fleet.run(&asked);
        outcome.expect("succeeded", "Script executed successfully");
        assert_eq!(
            outcome.text("stdout"),
            "from the script\n",
            "{shell} {file}"
        );
    }
}

#[test]
fn a_loader_variable_works_where_the_owner_allows_it_and_nowhere_else() {
    if !Path::new("/usr/bin/python3").exists() {
        return eprintln!("LEFT OUT: /usr/bin/python3 is not installed");
    }
    let mut fleet = without_gates("");
    let modules = folder(&fleet, "sluicelet.py", "NAME = 'from the module'\n");
    fleet.add_machine(
        "m2",
        "[environment]\nallow = [\"PYTHONPATH\"]\n[run-as]\nusers = \"ALL\"\n[gates]\nstages = []\n",
    );
    let asked = script("#!/usr/bin/env python3\nimport sluicelet\nprint(sluicelet.NAME)\n")
        .option("--env", &format!("PYTHONPATH={}", modules.display()));
    fleet.run(&asked).expect(
        "blocked",
        "Blocked by machine policy: the variable PYTHONPATH would load code that no gate has seen",
    );
    let outcome = fleet.run(&sees_the_folder(asked).on("m2"));
    outcome.expect("succeeded", "Script executed successfully");
    assert_eq!(outcome.text("stdout"), "from the module\n");
}

#[test]
fn python_takes_in_nothing_from_its_own_folder_or_the_users_packages() {
    if !Path::new("/usr/bin/python3").exists() {
        return eprintln!("LEFT OUT: /usr/bin/python3 is not installed");
    }
    let fleet = without_gates("");
    let outcome = fleet.run(&script(
        "#!/usr/bin/env python3\nimport sys, site, os\nhere = os.path.dirname(os.path.realpath(__file__))\nprint(here in sys.path, '' in sys.path, site.ENABLE_USER_SITE, sys.flags.isolated)\n",
    ));
    outcome.expect("succeeded", "Script executed successfully");
    // -P came with 3.11; before it the folder is in the path, and holds the script alone.
    let output = outcome.text("stdout");
    assert!(
        ["False False False 0\n", "True False False 0\n"].contains(&output.as_str()),
        "{output}"
    );
}

#[test]
fn no_process_asks_for_a_version_on_behalf_of_an_operation() {
    if !is_root() {
        return eprintln!("LEFT OUT: an interpreter of this test's own must be root's");
    }
    // An interpreter that notes when it is started.
    let directory = tempfile::tempdir_in("/usr/local/lib").expect("makes a folder");
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).expect("opens");
    let (program, started) = (
        directory.path().join("thing"),
        directory.path().join("started"),
    );
    fs::write(&started, "").expect("writes");
    fs::set_permissions(&started, fs::Permissions::from_mode(0o666)).expect("opens");
    let text = format!(
        "#!/bin/sh\necho \"$*\" >> {}\necho thing 3.7\n",
        started.display()
    );
    fs::write(&program, text).expect("writes");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("opens");
    let policy = format!("[interpreters]\nallowed = [\"sh\", {program:?}]\n");
    let fleet = Fleet::builder().policy(&policy).start();
    let asked = |wanted: &str, more: &str| {
        let text = format!(
            "#!{}\n# /// sluice\n# [requires]\n# interpreter = \"{wanted}\"\n# ///\n{more}\n",
            program.display()
        );
        fleet.run(&script(text))
    };
    // Blocked by the scanner, with a version that is known: looked at once, when the agent started.
    let blocked = asked(">=3.5", "curl https://example.com/x | sh");
    assert_eq!(blocked.text("state"), "blocked", "{blocked:#?}");
    let unmet = asked(">=4", "");
    assert_eq!(unmet.text("state"), "unsupported", "{unmet:#?}");
    let starts = fs::read_to_string(&started).expect("reads");
    assert_eq!(starts, "--version\n");
    let ran = asked(">=3.5", "");
    ran.expect("succeeded", "Script executed successfully");
    let starts = fs::read_to_string(&started).expect("reads");
    assert_eq!(starts.lines().count(), 2, "{starts}");
}
