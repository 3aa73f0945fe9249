//! A runner that is killed, or stopped, in the middle of a call.

use std::fs;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sluice_gate_client::BoundGate;
use sluice_gate_client::trial::Tried;
use sluice_gate_types::answer::CallError;
use sluice_guests::{Guest, LITTLE_TIME};

use crate::domain::{ALONE, ask, bind, domain, eventually, is_right, runners};

/// Takes its time, and is right in the end.
fn slow() -> Guest {
    let forms = "(func $scan (param $bundle i32) (result i32)
          (local $count i32)
          (loop $again
            (br_if $again (i32.lt_u
              (local.tee $count (i32.add (local.get $count) (i32.const 1)))
              (i32.const 500000000))))
          (call $find (local.get $bundle))
          (i32.const 512))";
    let limits = "fuel = 20000000000\ntime = \"10s\"";
    Guest::honest().saying(forms).limits(limits)
}

/// Clock ticks of processor time that a process has had in user mode: field 14 of proc_pid_stat(5).
fn ticks(pid: i32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, fields) = stat.rsplit_once(')')?;
    fields.split_whitespace().nth(11)?.parse().ok()
}

fn signal(pid: i32, signal: Signal) {
    kill(Pid::from_raw(pid), signal).expect("signals");
}

/// Asks, and signals so many runners, one after the other, each once it calculates.
async fn ask_while_signaled(gate: &BoundGate, with: Signal, runners_to_signal: usize) -> Tried {
    let mut signaled: Vec<i32> = Vec::new();
    let signaling = async {
        while signaled.len() < runners_to_signal {
            let pid = eventually("a runner is there", || {
                runners().into_iter().find(|pid| !signaled.contains(pid))
            })
            .await;
            let begun = ticks(pid).unwrap_or_default();
            let at_work = || ticks(pid).filter(|now| *now > begun + 5);
            eventually("the runner calculates", at_work).await;
            signal(pid, with);
            signaled.push(pid);
        }
    };
    let (tried, ()) = futures_util::future::join(ask(gate), signaling).await;
    tried
}

#[tokio::test(flavor = "multi_thread")]
async fn a_runner_that_is_killed_in_the_middle_of_a_call_is_started_again_and_asked_once_more() {
    let _alone = ALONE.lock().await;
    let (_folder, domain) = domain(0);
    let gate = bind(&domain, &slow()).await;
    let before = runners();
    let tried = ask_while_signaled(&gate, Signal::SIGKILL, 1).await;
    assert!(is_right(&tried), "{tried:?}");
    assert_ne!(runners(), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_runner_that_is_killed_twice_gives_no_answer_and_the_next_call_is_right() {
    let _alone = ALONE.lock().await;
    let (_folder, domain) = domain(0);
    let gate = bind(&domain, &slow()).await;
    let tried = ask_while_signaled(&gate, Signal::SIGKILL, 2).await;
    assert!(
        matches!(tried.answer, Err(CallError::Runner(_))),
        "{tried:?}"
    );
    let tried = ask(&gate).await;
    assert!(is_right(&tried), "{tried:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_runner_that_was_killed_answers_again_within_a_second_or_so() {
    let _alone = ALONE.lock().await;
    let (_folder, domain) = domain(0);
    let gate = bind(&domain, &Guest::honest()).await;
    let mut longest = Duration::ZERO;
    for _ in 0..5 {
        let before = runners();
        let started = Instant::now();
        for pid in &before {
            signal(*pid, Signal::SIGKILL);
        }
        let tried = ask(&gate).await;
        assert!(is_right(&tried), "{tried:?}");
        longest = longest.max(started.elapsed());
        assert_ne!(runners(), before);
    }
    println!("killed to answered again: {longest:?} at the longest");
    // A debug build on a machine that does other work too.
    assert!(longest < Duration::from_secs(5), "{longest:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_runner_that_stands_still_is_killed_when_the_time_of_the_call_is_over() {
    let _alone = ALONE.lock().await;
    let (_folder, domain) = domain(0);
    let gate = bind(&domain, &Guest::honest().limits(LITTLE_TIME)).await;
    let before = runners();
    signal(before[0], Signal::SIGSTOP);
    let started = Instant::now();
    let tried = ask(&gate).await;
    assert_eq!(tried.answer, Err(CallError::Deadline(100)));
    // What comes on top of the call's own time, and some for a machine that does other work.
    assert!(
        started.elapsed() < Duration::from_secs(10),
        "{:?}",
        started.elapsed()
    );
    eventually("it is gone", || {
        (!runners().contains(&before[0])).then_some(())
    })
    .await;
    assert!(is_right(&ask(&gate).await));
    assert_ne!(runners(), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_domains_are_two_processes_and_one_is_not_ended_with_the_other() {
    let _alone = ALONE.lock().await;
    let (domains, gates): (Vec<_>, Vec<_>) = {
        let domains = [domain(0), domain(1)];
        let mut gates = Vec::new();
        for (_, domain) in &domains {
            gates.push(bind(domain, &Guest::honest()).await);
        }
        (domains.into(), gates)
    };
    let both = runners();
    assert_eq!(both.len(), 2, "{both:?}");
    if nix::unistd::geteuid().is_root() {
        let user = |pid: &i32| {
            let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("reads");
            let line = status.lines().find(|line| line.starts_with("Uid:"));
            line.map(str::to_owned).expect("has one")
        };
        let own_user = nix::unistd::User::from_name("sluice-gate").is_ok_and(|user| user.is_some());
        assert_eq!(user(&both[0]) == user(&both[1]), own_user);
    } else {
        eprintln!("LEFT OUT: only runners of root have a user of their own");
    }
    signal(both[0], Signal::SIGKILL);
    eventually("it is gone", || {
        (!runners().contains(&both[0])).then_some(())
    })
    .await;
    assert_eq!(runners(), both[1..]);
    for gate in &gates {
        assert!(is_right(&ask(gate).await));
    }
    assert_eq!(runners().len(), 2);
    drop(domains);
}
