//! What a process has in memory, and how often it woke up.

use std::fs;
use std::path::Path;

use crate::eventually::eventually;
use crate::fleet::Fleet;
use crate::script::script;

/// A line of `/proc/<pid>/status`, in KiB.
///
/// # Panics
///
/// Where the process has ended, or the line is no size.
#[must_use]
pub fn kib(pid: u32, key: &str) -> u64 {
    kib_while_it_runs(pid, key).unwrap_or_else(|| panic!("{pid} has ended, or has no {key}"))
}

/// The same; none where the process has ended.
#[must_use]
pub fn kib_while_it_runs(pid: u32, key: &str) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    number(text.lines().find(|line| line.starts_with(key))?)
}

/// What a process has for itself alone, in KiB: pages that no other process maps.
fn private_kib(pid: u32) -> u64 {
    let path = format!("/proc/{pid}/smaps_rollup");
    let text = fs::read_to_string(path).expect("it may be looked into");
    let lines = text.lines().filter(|line| line.starts_with("Private_"));
    lines.filter_map(number).sum()
}

/// The shims that hold a spool below an agent's state: those of operations, and those that wait for one.
#[must_use]
pub fn shims(state: &Path) -> Vec<u32> {
    let entries = fs::read_dir(state.join("spool")).into_iter().flatten();
    let locks = entries
        .flatten()
        .map(|spool| fs::read_to_string(spool.path().join("lock")).unwrap_or_default());
    locks
        .filter_map(|lock| lock.trim().parse().ok())
        .filter(|pid| Path::new(&format!("/proc/{pid}")).exists())
        .collect()
}

/// What operations that run cost, in KiB: memory that the first machine's processes have for themselves.
#[derive(Debug)]
pub struct Running {
    /// By how much the agent has grown.
    pub agent: u64,
    /// The shims, the one that waits for an operation too.
    pub shims: Vec<u64>,
}

impl Running {
    /// Of so many operations as `nobody`, each of which has written a megabyte and waits.
    ///
    /// # Panics
    ///
    /// Where one of them does not run, or the machine runs less at once.
    #[must_use]
    pub fn measure(fleet: &Fleet, many: usize) -> Self {
        let (agent, go) = (&fleet.agents[0], fleet.folder().join("go"));
        let text = format!(
            "#!/bin/bash\nhead -c 1000000 /dev/zero | tr '\\0' x\necho up >&2\nuntil [ -e {} ]; do sleep 0.05; done\n",
            go.display()
        );
        let wide = script(text)
            .as_user("nobody")
            .option("--output-limit", "2MiB");
        fs::write(&go, "").expect("writes");
        // What an agent needs for the first operation of a kind is not counted.
        let first = fleet.run(&wide);
        first.expect("succeeded", "Script executed successfully");
        fs::remove_file(&go).expect("removes");
        let before = private_kib(agent.pid());
        let jobs: Vec<_> = (0..many).map(|_| fleet.detach(&wide)).collect();
        for job in &jobs {
            eventually("it is up", || {
                (fleet.show(job).text("stderr") == "up\n").then_some(())
            });
        }
        let running = Self {
            agent: private_kib(agent.pid()).saturating_sub(before),
            shims: shims(&agent.machine.state)
                .into_iter()
                .map(private_kib)
                .collect(),
        };
        fs::write(&go, "").expect("writes");
        for job in &jobs {
            fleet.until(job, "succeeded");
        }
        assert!(running.shims.len() >= many, "{running:?}");
        running
    }

    /// All of it.
    #[must_use]
    pub fn in_all(&self) -> u64 {
        self.agent + self.shims.iter().sum::<u64>()
    }
}

/// The threads of a process, and how often each has waited for something and went on.
#[must_use]
pub fn wake_ups(pid: u32) -> Vec<(u32, u64)> {
    let threads = fs::read_dir(format!("/proc/{pid}/task"))
        .into_iter()
        .flatten();
    threads
        .flatten()
        .filter_map(|thread| {
            let status = fs::read_to_string(thread.path().join("status")).ok()?;
            let key = "voluntary_ctxt_switches:";
            let line = status.lines().find(|line| line.starts_with(key))?;
            let id = thread.file_name().to_str()?.parse().ok()?;
            Some((id, number(line)?))
        })
        .collect()
}

/// The second word of a line.
fn number(line: &str) -> Option<u64> {
    line.split_whitespace().nth(1)?.parse().ok()
}
