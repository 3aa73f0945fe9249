//! What agent and host have in memory.

use std::fs;

use sluice_tests::{Fleet, script};

/// A line of `/proc/<pid>/status`, in KiB.
pub(crate) fn kib(pid: u32, key: &str) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = text.lines().find(|line| line.starts_with(key));
    let number = line.and_then(|line| line.split_whitespace().nth(1));
    number
        .and_then(|number| number.parse().ok())
        .unwrap_or_else(|| panic!("no {key} in {text}"))
}

/// The compiled scanner alone has 16 MiB.
#[test]
fn compiled_gates_do_not_pass_through_the_heap_of_agent_or_host() {
    let fleet = Fleet::builder().start();
    fleet
        .run(&script("#!/bin/sh\n:\n"))
        .expect("succeeded", "Script executed successfully");
    for (name, pid) in [("agent", fleet.agents[0].pid()), ("host", fleet.host.pid())] {
        let most = kib(pid, "VmHWM:").saturating_sub(kib(pid, "RssFile:"));
        assert!(most < 12 << 10, "the {name} had {most} KiB of its own");
    }
}
