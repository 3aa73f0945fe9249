//! What agent and host have in memory, and that they wake up for nothing.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use sluice_tests::{Fleet, Running, eventually, is_root, kib, script, shims, wake_ups};
use sluice_transport::limits::KEEP_ALIVE;

use crate::hostile::without_gates;

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

#[test]
fn an_agent_at_rest_is_small_and_wakes_up_for_nothing_but_its_link() {
    let fleet = Fleet::builder().start();
    fleet
        .run(&script("#!/bin/sh\n:\n"))
        .expect("succeeded", "Script executed successfully");
    let agent = &fleet.agents[0];
    let count = || -> BTreeMap<u32, u64> {
        let pids = shims(&agent.machine.state).into_iter().chain([agent.pid()]);
        pids.flat_map(wake_ups).collect()
    };
    let (mut before, mut since) = (count(), Instant::now());
    eventually("it rests", || {
        let now = count();
        if now != before {
            (before, since) = (now, Instant::now());
        }
        (since.elapsed() > Duration::from_secs(1)).then_some(())
    });
    // The time is what is measured here: nothing is waited for.
    let started = Instant::now();
    std::thread::sleep(2 * KEEP_ALIVE + Duration::from_secs(2));
    // A thread that came in this time counts from its beginning; one that went had nothing to do.
    let woken: u64 = count()
        .iter()
        .map(|(thread, woken)| woken.saturating_sub(before.get(thread).copied().unwrap_or(0)))
        .sum();
    // A packet, its answer and the timers of both; and tokio looks at a far timer once more when it comes nearer.
    let allowed = 8 * started.elapsed().as_secs().div_ceil(KEEP_ALIVE.as_secs());
    assert!((1..=allowed).contains(&woken), "{woken} of {allowed}");
    let (resident, own) = (kib(agent.pid(), "VmRSS:"), kib(agent.pid(), "RssAnon:"));
    eprintln!("{woken} wake-ups, {resident} KiB resident, {own} KiB of its own");
    // Unoptimized it has 19 MiB, nearly all of it the program.
    assert!(
        resident < 24 << 10 && own < 6 << 10,
        "{resident} KiB, {own} KiB of them its own"
    );
}

#[test]
fn an_operation_that_runs_costs_less_than_three_mebibytes_of_our_own() {
    const MANY: u64 = 6;
    if !is_root() {
        return;
    }
    let fleet = without_gates(&format!("[limits]\nparallel = {MANY}\n"));
    let running = Running::measure(&fleet, MANY as usize);
    let each = running.in_all() / MANY;
    assert!(each < 3 << 10, "{each} KiB: {running:?}");
}
