//! What holds scripts together on machines of every kind, and what does not end them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use sluice_tests::{Fleet, binaries, eventually, is_root, script};

use crate::hostile::without_gates;
use crate::isolation::is_running;

/// In a mount namespace of its own a machine looks as if systemd did not run it.
const WITHOUT_SYSTEMD: &str = "[ ! -d /run/systemd ] || mount -t tmpfs none /run/systemd";

/// Starts the agent anew after some commands, and waits until the machine shows what it has found.
fn restart_after(fleet: &mut Fleet, commands: &str, shows: impl Fn(&Value) -> bool) -> Value {
    fleet.agents[0].stop();
    fleet.agents[0] = fleet.agents[0]
        .machine
        .start_apart(&format!("{WITHOUT_SYSTEMD}; {commands}"));
    eventually("the machine shows what it has found", || {
        let shown = fleet.list(&["machine", "show", "m1"]).swap_remove(0);
        (shown["connected"] == true && shows(&shown["facts"])).then(|| shown["facts"].clone())
    })
}

#[test]
fn whatever_cgroups_a_machine_has_it_shows_what_they_hold_and_so_does_a_result() {
    if !is_root() {
        return;
    }
    let mut fleet = without_gates("[limits]\ngrace = \"100ms\"\n");
    for (number, kind, mounted) in [(1, "none", "tmpfs"), (2, "cgroup-v2", "cgroup2")] {
        let mark = format!("sleep 95.{number}{}", std::process::id());
        let commands = format!("mount -t {mounted} none /sys/fs/cgroup");
        let facts = restart_after(&mut fleet, &commands, |facts| facts["containment"] == kind);
        let leaving = script(format!("#!/bin/sh\nsetsid {mark} &\necho out\n"));
        let outcome = fleet.run(&leaving);
        outcome.expect("succeeded", "Script executed successfully");
        assert_eq!(outcome.text("containment"), kind);
        assert_eq!(outcome.json["survivors_killed"], 1, "{outcome:#?}");
        assert!(!is_running(&mark));
        let notes = outcome.json["notes"].to_string();
        let limits = facts["containment.limits"].as_str().expect("is a text");
        for (limit, note) in [
            ("memory", "memory is limited for each process"),
            ("processes", "processes are limited for each user"),
            ("cpu", "processor time is limited for each process"),
        ] {
            assert_eq!(notes.contains(note), !limits.contains(limit), "{notes}");
        }
        let glutton = "#!/usr/bin/python3\nkept = [b'x' * (1 << 20) for _ in range(300)]\n";
        let stopped = fleet.run(&script(glutton).option("--memory-limit", "64MiB"));
        if limits == "none" {
            stopped.expect("failed", "Script failed with exit code 1");
            assert!(stopped.json["limit_hit"].is_null(), "{stopped:#?}");
        } else {
            assert_eq!(stopped.text("limit_hit"), "memory", "{stopped:#?}");
        }
    }
}

/// A cgroup in which something is started, as a service manager makes one. It ends with all that is in it.
struct Group(PathBuf);

impl Group {
    fn make() -> Option<Self> {
        let places = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"].map(Path::new);
        let root = places
            .into_iter()
            .find(|place| place.join("cgroup.controllers").exists())?;
        let group = root.join(format!("sluice-system-test-{}", std::process::id()));
        fs::create_dir(&group).ok()?;
        Some(Self(group))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let _ = fs::write(self.0.join("cgroup.kill"), "1");
        eventually("the group is removed", || {
            remove(&self.0);
            (!self.0.exists()).then_some(())
        });
    }
}

fn remove(group: &Path) {
    for entry in fs::read_dir(group).into_iter().flatten().flatten() {
        if entry.path().is_dir() {
            remove(&entry.path());
        }
    }
    let _ = fs::remove_dir(group);
}

#[test]
fn who_ends_everything_in_the_agents_cgroup_ends_no_script() {
    if !is_root() {
        return;
    }
    let Some(group) = Group::make() else {
        return eprintln!("LEFT OUT: there is no unified hierarchy to make a group in");
    };
    let mut fleet = without_gates("");
    let folder = crate::delivery::traces(&fleet);
    let enter = |group: &Path| format!("echo $$ > {}/cgroup.procs", group.display());
    let is_beside = |facts: &Value| facts["containment.shims"] == "beside";
    restart_after(&mut fleet, &enter(&group.0), is_beside);
    let waits = format!(
        "#!/bin/bash\ntouch {0}/started\nuntil [ -e {0}/go ]; do sleep 0.05; done\necho done\n",
        folder.display()
    );
    let job = fleet.detach(&script(waits).as_user("nobody"));
    eventually("the script runs", || {
        folder.join("started").exists().then_some(())
    });
    let leaf = group.0.join("sluice/agent");
    fs::write(leaf.join("cgroup.kill"), "1").expect("kills");
    assert_eq!(fleet.agents[0].ended(), None, "it was killed");
    restart_after(&mut fleet, &enter(&leaf), is_beside);
    fs::write(folder.join("go"), "").expect("writes");
    let ended = fleet.until(&job, "succeeded");
    assert_eq!(ended.text("stdout"), "done\n");
}

#[test]
fn the_unit_file_is_one_for_systemd_and_takes_nothing_away_from_scripts() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging/sluice-agent.service");
    let text = fs::read_to_string(file).expect("is there");
    let settings: Vec<_> = text.lines().filter(|line| !line.starts_with('#')).collect();
    for needed in [
        "KillMode=control-group",
        "Delegate=yes",
        "OOMPolicy=continue",
    ] {
        assert!(settings.contains(&needed), "{needed}");
    }
    for inherited in ["Protect", "Private", "ReadOnly", "Inaccessible", "Restrict"] {
        let of_it = |line: &&&str| line.starts_with(inherited) || line.starts_with("NoNew");
        assert_eq!(settings.iter().find(of_it), None);
    }
    if !Path::new("/usr/bin/systemd-analyze").exists() {
        return eprintln!("LEFT OUT: systemd-analyze is not installed");
    }
    // The programs are not installed here.
    let folder = tempfile::tempdir().expect("makes a folder");
    let unit = folder.path().join("sluice-agent.service");
    let here = text.replace("/usr/bin/", &format!("{}/", binaries().display()));
    fs::write(&unit, here).expect("writes");
    let output = Command::new("/usr/bin/systemd-analyze")
        .args(["verify", "--man=no", "--recursive-errors=no"])
        .arg(&unit)
        .output()
        .expect("is installed");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.is_empty(), "{said}");
}
