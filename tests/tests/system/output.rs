//! What scripts write: seen while they run, kept to the byte, at a bounded cost.

use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sluice_tests::{Fleet, Outcome, eventually, is_root, kib, kib_while_it_runs, script};

use crate::delivery::traces;
use crate::hostile::without_gates;

/// `sluice run` of a script, whose output is read while it comes.
struct Watched {
    process: std::process::Child,
    stdout: Arc<Mutex<Vec<u8>>>,
    reader: std::thread::JoinHandle<()>,
}

impl Watched {
    fn start(fleet: &Fleet, text: &str, options: &[&str]) -> Self {
        let file = fleet.folder().join("watched");
        fs::write(&file, text).expect("writes");
        let mut process = fleet
            .command()
            .arg("run")
            .arg(&file)
            .args(["--on", "m1", "--as", "nobody"])
            .args(options)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("sluice was built");
        let stdout = Arc::new(Mutex::new(Vec::new()));
        let (mut pipe, seen) = (
            process.stdout.take().expect("is piped"),
            Arc::clone(&stdout),
        );
        let reader = std::thread::spawn(move || {
            let mut piece = [0; 4096];
            while let Ok(length @ 1..) = pipe.read(&mut piece) {
                seen.lock()
                    .expect("no panic")
                    .extend_from_slice(&piece[..length]);
            }
        });
        Self {
            process,
            stdout,
            reader,
        }
    }

    fn until_seen(&self, text: &str) {
        eventually(&format!("{text} is seen"), || {
            let seen = self.stdout.lock().expect("no panic");
            seen.windows(text.len())
                .any(|window| window == text.as_bytes())
                .then_some(())
        });
    }

    fn end(mut self) -> Vec<u8> {
        self.process.wait().expect("waits");
        self.reader.join().expect("no panic");
        std::mem::take(&mut self.stdout.lock().expect("no panic"))
    }
}

/// Waits for a file in the script's words.
fn waits_for(file: &Path) -> String {
    format!("until [ -e {} ]; do sleep 0.05; done", file.display())
}

/// `bytes bytes of a text` that has no part twice: lines of seven bytes.
fn lines(count: usize) -> String {
    (0..count).map(|number| format!("{number:06}\n")).collect()
}

/// A script that writes [`lines`].
fn writes_lines(count: usize) -> String {
    format!("awk 'BEGIN {{ for (i = 0; i < {count}; i++) printf \"%06d\\n\", i }}'")
}

/// The only spool of a machine.
fn spool(fleet: &Fleet) -> PathBuf {
    spools(fleet).pop().expect("there is one")
}

/// Spools of operations; shims that wait have others.
fn spools(fleet: &Fleet) -> Vec<PathBuf> {
    let folder = fleet.agents[0].machine.state.join("spool");
    let entries = fs::read_dir(folder).expect("reads").flatten();
    entries
        .filter(|entry| !entry.file_name().to_string_lossy().starts_with("spare-"))
        .map(|entry| entry.path())
        .collect()
}

#[test]
fn what_a_script_prints_is_seen_at_once_also_after_half_of_its_limit_and_beyond_it() {
    if !is_root() {
        return;
    }
    let fleet = without_gates("");
    let folder = traces(&fleet);
    let (half, beyond) = (folder.join("half"), folder.join("beyond"));
    // 98,000 bytes, 35,000 more, and another 350,000.
    let text = format!(
        "#!/bin/bash\n{}\necho after half\n{}\n{}\n{}\necho beyond\n{}\n",
        writes_lines(14_000),
        waits_for(&half),
        writes_lines(5000),
        writes_lines(50_000),
        waits_for(&beyond)
    );
    let watched = Watched::start(&fleet, &text, &["--output-limit", "160KiB"]);
    watched.until_seen("after half\n");
    fs::write(half, "").expect("writes");
    watched.until_seen("beyond\n");
    fs::write(beyond, "").expect("writes");
    let seen = String::from_utf8(watched.end()).expect("is text");
    assert!(seen.starts_with(&lines(10_000)) && seen.ends_with("049999\nbeyond\n"));
}

/// Where bytes are lost in what was shown: how many are said to be, and the text around.
fn parts(shown: &str) -> (u64, Vec<&str>) {
    let (mut lost, mut parts, mut rest) = (0, Vec::new(), shown);
    while let Some((before, after)) = rest.split_once("\n[... ") {
        let (number, after) = after.split_once(" bytes lost ...]\n").expect("is a marker");
        lost += number.parse::<u64>().expect("is a number");
        parts.push(before);
        rest = after;
    }
    parts.push(rest);
    (lost, parts)
}

#[test]
fn head_and_tail_are_joined_by_what_is_lost_wherever_output_is_shown() {
    if !is_root() {
        return;
    }
    let fleet = without_gates("");
    let all = lines(30_000);
    let text = format!("#!/bin/bash\n{}\necho oops >&2\n", writes_lines(30_000));
    let flood = script(&text)
        .as_user("nobody")
        .option("--output-limit", "1000B");
    let outcome = fleet.run(&flood);
    let lost = all.len() - (1000 - "oops\n".len());
    let expected = format!(
        "{}\n[... {lost} bytes lost ...]\n{}",
        &all[..500],
        &all[all.len() - 495..]
    );
    assert_eq!(outcome.text("stdout"), expected);
    assert_eq!(outcome.text("stderr"), "oops\n");
    assert_eq!(
        outcome.json["output_lost_bytes"].as_u64(),
        Some(lost as u64)
    );
    assert_eq!(outcome.text("limit_hit"), "output");
    let job = outcome.text("job");
    let stored = fleet.sluice(&["job", "output", &job, "--stream", "stdout"]);
    assert_eq!(stored.stdout, expected);
    // Live more may be seen than is kept, and nothing is missing without a word.
    let watched = fleet.watch(&flood, &["m1"]);
    let (lost, parts) = parts(&watched.stdout);
    let shown: usize = parts.iter().map(|part| part.len()).sum();
    assert_eq!(shown + usize::try_from(lost).expect("small"), all.len());
    assert!(parts[0].starts_with(&all[..500]) && watched.stdout.ends_with(&all[all.len() - 495..]));
}

#[test]
fn output_that_was_written_before_a_shim_was_killed_is_in_the_result() {
    if !is_root() {
        return;
    }
    let fleet = without_gates("");
    let never = fleet.folder().join("never");
    for (count, lost) in [(14_000, 0), (100_000, 600_000)] {
        let text = format!(
            "#!/bin/bash\n{}\n{}\n",
            writes_lines(count),
            waits_for(&never)
        );
        let limited = script(text).option("--output-limit", "100000B");
        let job = fleet.detach(&limited);
        let spool = eventually("it has a spool", || spools(&fleet).pop());
        let written = || {
            sluice_shim::kept::ends(&spool)
                .expect("reads")
                .stdout
                .written
        };
        eventually("all of it is written", || {
            (written() == count as u64 * 7).then_some(())
        });
        let shim = fs::read_to_string(spool.join("lock")).expect("reads");
        let pid = Pid::from_raw(shim.trim().parse().expect("is a pid"));
        kill(pid, Signal::SIGKILL).expect("kills");
        let ended = fleet.until(&job, "interrupted");
        let (missing, parts) = parts_of(&ended);
        assert_eq!(missing, lost, "of {count} lines");
        let all = lines(count);
        assert_eq!(
            parts.concat().len(),
            all.len() - usize::try_from(lost).expect("small")
        );
        assert!(all.starts_with(&parts[0]) && all.ends_with(parts.last().expect("there is one")));
        eventually("it is acknowledged", || {
            spools(&fleet).is_empty().then_some(())
        });
    }
}

fn parts_of(outcome: &Outcome) -> (u64, Vec<String>) {
    let shown = outcome.text("stdout");
    let (lost, found) = parts(&shown);
    (lost, found.into_iter().map(str::to_owned).collect())
}

/// Ends a host as an init system does, so that its machines know at once.
fn stop_host(fleet: &mut Fleet) {
    let pid = fleet.host.pid();
    kill(Pid::from_raw(pid.cast_signed()), Signal::SIGTERM).expect("sends a signal");
    eventually("the host ends", || {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        status.contains("State:\tZ").then_some(())
    });
    fleet.host.kill();
}

#[test]
fn output_of_many_operations_waits_for_the_host_on_disk_and_not_in_the_agents_memory() {
    const MANY: usize = 60;
    if !is_root() {
        return;
    }
    let mut fleet = without_gates("");
    let folder = traces(&fleet);
    let agent = fleet.agents[0].pid();
    let text = format!(
        "#!/bin/bash\n{}\nhead -c 1000000 /dev/zero | tr '\\0' x\n",
        waits_for(&folder.join("go"))
    );
    let wide = script(text).as_user("nobody");
    let jobs: Vec<String> = (0..MANY).map(|_| fleet.detach(&wide)).collect();
    let events = |fleet: &Fleet, event: &str| {
        let events = fleet.agents[0].machine.events();
        events
            .iter()
            .filter(|entry| entry["event"] == event)
            .count()
    };
    eventually("all are there", || {
        (events(&fleet, "script_execution_attempt") == MANY).then_some(())
    });
    let before = kib(agent, "VmHWM:");
    stop_host(&mut fleet);
    fs::write(folder.join("go"), "").expect("writes");
    eventually("all have ended", || {
        (events(&fleet, "script_executed") == MANY).then_some(())
    });
    assert_eq!(spools(&fleet).len(), MANY);
    fleet.host.kill_and_restart();
    let started = Instant::now();
    for job in &jobs {
        let ended = fleet.until(job, "succeeded");
        assert_eq!(ended.text("stdout"), "x".repeat(1_000_000));
    }
    eprintln!("all were told after {:?}", started.elapsed());
    let grown = kib(agent, "VmHWM:") - before;
    // All of it is 58 MiB. Some are told at once, and each has a piece of it under way.
    assert!(grown < 24 << 10, "the agent grew by {grown} KiB");
    eventually("all are acknowledged", || {
        spools(&fleet).is_empty().then_some(())
    });
}

#[test]
fn output_is_whole_whoever_is_killed_while_it_is_told() {
    if !is_root() {
        return;
    }
    let mut fleet = without_gates("");
    let folder = traces(&fleet);
    let go = |number: usize| folder.join(format!("go-{number}"));
    let mut text = "#!/bin/bash\n".to_owned();
    for number in 0..3 {
        text.push_str(&format!(
            "{}\n{}\n",
            writes_lines(60_000),
            waits_for(&go(number))
        ));
    }
    let job = fleet.detach(
        &script(text)
            .as_user("nobody")
            .option("--output-limit", "4MiB"),
    );
    let until_some = |fleet: &Fleet, least: usize| {
        eventually("some of it is there", || {
            (fleet.show(&job).text("stdout").len() > least).then_some(())
        });
    };
    until_some(&fleet, 0);
    fleet.host.kill_and_restart();
    fleet.agents[0].restart();
    fs::write(go(0), "").expect("writes");
    until_some(&fleet, 60_000 * 7);
    fleet.agents[0].restart();
    fs::write(go(1), "").expect("writes");
    until_some(&fleet, 2 * 60_000 * 7);
    fs::write(go(2), "").expect("writes");
    let ended = fleet.until(&job, "succeeded");
    assert_eq!(ended.json["output_lost_bytes"], 0);
    assert!(ended.text("stdout") == lines(60_000).repeat(3), "not exact");
}

#[test]
fn output_that_there_is_no_room_for_starts_nothing_and_the_owners_key_is_named() {
    if !is_root() {
        return;
    }
    let mut fleet = without_gates("[limits]\nspool = \"5MiB\"\n");
    let folder = traces(&fleet);
    let waiting = format!("#!/bin/sh\necho up\n{}\n", waits_for(&folder.join("go")));
    let job = fleet.detach(&script(waiting).as_user("nobody"));
    eventually("it is up", || {
        (fleet.show(&job).text("stdout") == "up\n").then_some(())
    });
    let small = script("#!/bin/sh\n:\n");
    let refused = fleet.run(&small);
    assert_eq!(refused.text("state"), "error");
    assert!(
        refused.text("message").contains("limits.spool: "),
        "{refused:#?}"
    );
    let refused = fleet.run(&small.clone().option("--output-limit", "3MiB"));
    assert_eq!(refused.text("state"), "blocked");
    assert!(
        refused
            .text("message")
            .contains("the ceiling for all operations is 5MiB"),
        "{refused:#?}"
    );
    fs::write(folder.join("go"), "").expect("writes");
    fleet.until(&job, "succeeded");
    eventually("there is room again", || {
        (fleet.run(&small).text("state") == "succeeded").then_some(())
    });
    fleet.add_machine(
        "m2",
        "[limits]\nspool_reserve = \"1000000GiB\"\n[gates]\nstages = []\n",
    );
    let refused = fleet.run(&small.on("m2"));
    assert_eq!(refused.text("state"), "error");
    assert!(
        refused.text("message").contains("limits.spool_reserve: "),
        "{refused:#?}"
    );
    assert!(!fleet.agents[1].machine.has_started_something());
}

#[test]
fn a_gigabyte_of_output_costs_little_memory_and_disk() {
    if !is_root() {
        return eprintln!("LEFT OUT: only root looks into the memory of a shim");
    }
    let fleet = without_gates("");
    // What an agent needs for any operation is not counted.
    let small = fleet.run(&script("#!/bin/sh\n:\n"));
    small.expect("succeeded", "Script executed successfully");
    eventually("nothing of it is left", || {
        spools(&fleet).is_empty().then_some(())
    });
    let agent = fleet.agents[0].pid();
    let before = kib(agent, "VmHWM:");
    let folder = traces(&fleet);
    let writes = format!(
        "#!/bin/sh\n{}\nexec head -c 1000000000 /dev/zero\n",
        waits_for(&folder.join("go"))
    );
    let job = fleet.detach(
        &script(writes)
            .as_user("nobody")
            .option("--output-limit", "16MiB")
            .time_limit("30m"),
    );
    fleet.until(&job, "running");
    let spool = spool(&fleet);
    let pid: u32 = fs::read_to_string(spool.join("lock"))
        .expect("reads")
        .trim()
        .parse()
        .expect("is a pid");
    fs::write(folder.join("go"), "").expect("writes");
    let (mut disk, mut shim) = (0, 0);
    while fleet.show(&job).text("state") == "running" {
        let files = fs::read_dir(&spool).into_iter().flatten().flatten();
        let sizes = files.filter_map(|file| Some(file.metadata().ok()?.len()));
        disk = disk.max(sizes.sum::<u64>());
        shim = shim.max(kib_while_it_runs(pid, "VmHWM:").unwrap_or(0));
        std::thread::sleep(Duration::from_millis(50));
    }
    let ended = fleet.until(&job, "succeeded");
    assert_eq!(
        ended.json["output_lost_bytes"],
        1_000_000_000_u64 - (16 << 20)
    );
    let grown = kib(agent, "VmHWM:") - before;
    assert!(
        grown < 8 << 10 && (1..8 << 10).contains(&shim) && (1..=33 << 20).contains(&disk),
        "agent grown by {grown} KiB, shim {shim} KiB, disk {} KiB",
        disk >> 10
    );
}
