//! Rollouts and runs of schedules over simulated machines, and a host that is killed at each call by which it puts something on
//! disk.

use std::collections::BTreeMap;
use std::fs;

use serde_json::Value;
use sluice_tests::fake::{Behavior, Crowd};
use sluice_tests::{Fleet, LastCall, eventually, installed, is_root};

use super::{Calls, Tried, ask, calls};
use crate::schedules::seconds_from_now;

/// Over so many machines goes a rollout in batches that end here.
const MACHINES: usize = 8;
const ENDS: [usize; 3] = [1, 4, MACHINES];

/// A rollout makes many calls; some of them are tried.
const OVER_A_ROLLOUT: [Calls; 3] = [
    calls("fdatasync", 1),
    calls("unlink", 1),
    calls("pwrite64", 20),
];

/// A host, its machines, and a script that the host is asked to run on all of them.
struct Site {
    fleet: Fleet,
    crowd: Crowd,
    script: String,
    tried: Tried,
}

impl Site {
    fn start(machines: usize) -> Self {
        let fleet = Fleet::builder().crowd(machines).start();
        let crowd = Crowd::of(&fleet, &Behavior::default().says("done\n"));
        let script = fleet.folder().join("all.sh");
        fs::write(&script, "#!/bin/sh\necho done\n").expect("writes");
        Self {
            script: script.to_str().expect("is text").to_owned(),
            fleet,
            crowd,
            tried: Tried::default(),
        }
    }

    /// Starts the host so that it ends at this call, asks it for a job, and waits until it has ended or the job has. Then starts
    /// one that goes on, and asks again. Gives the job, which is over by then, and whether the first host has ended.
    fn put_through(
        &mut self,
        call: LastCall,
        ask: impl Fn(&Self) -> Option<String>,
    ) -> (String, bool) {
        let is_up = self.fleet.host.kill_and_restart_until(call);
        self.crowd.come_back();
        let mut answered = is_up.then(|| ask(self)).flatten();
        eventually("it is killed, or the job is over", || {
            let is_over = answered.as_ref().is_some_and(|job| self.is_over(job));
            if !is_over && !self.fleet.host.has_ended() {
                answered = answered.take().or_else(|| ask(self));
                return None;
            }
            Some(())
        });
        let was_killed = self.fleet.host.has_ended();
        self.fleet.host.kill_and_restart();
        self.crowd.come_back();
        let job = eventually("it is answered", || ask(self));
        assert!(answered.is_none_or(|answered| answered == job), "{call:?}");
        eventually("the job is over", || self.is_over(&job).then_some(()));
        self.tried.calls += 1;
        self.tried.kills += usize::from(was_killed);
        (job, was_killed)
    }

    /// Whether the host, where it answers, says that every operation of a job has ended.
    fn is_over(&self, job: &str) -> bool {
        let listed = self.fleet.sluice(&["job", "list", "--json"]);
        listed.stdout.lines().any(|line| {
            let entry: Value = serde_json::from_str(line).expect("is JSON");
            entry["job"] == job && entry["ended"] == entry["operations"]
        })
    }

    /// Each machine has started it once, and the host has what it wrote.
    fn expect_each_once(&self, job: &str, call: LastCall) {
        let sights = self.crowd.sights(job);
        let once: BTreeMap<_, _> = self.crowd.names().map(|name| (name, 1)).collect();
        assert_eq!(sights.starts(), once, "{call:?}");
        assert_eq!(self.crowd.faults(), [] as [String; 0], "{call:?}");
        for operation in self.fleet.list(&["job", "show", job]) {
            let went = (&operation["state"], &operation["stdout"]);
            assert_eq!(went, (&"succeeded".into(), &"done\n".into()), "{call:?}");
        }
    }

    /// It would hold too if nothing had been killed.
    fn expect_kills(&self, least: usize) {
        let verified = self.fleet.sluice(&["audit", "verify"]);
        assert_eq!(verified.code, 0, "{verified:?}");
        println!("{:?}", self.tried);
        assert!(self.tried.kills >= least);
    }
}

#[test]
fn a_host_that_is_killed_at_any_call_that_puts_something_on_disk_goes_on_with_its_rollout_and_runs_nothing_twice()
 {
    if !is_root() || !installed("/usr/bin/strace") {
        return;
    }
    let mut site = Site::start(MACHINES);
    let options = ["--all", "--batches", "1, 50%, 100%"];
    for kind in OVER_A_ROLLOUT {
        for call in kind.each() {
            let key = format!("{}-{}", call.name, call.number);
            let asked = |site: &Site| ask(&site.fleet, site.script.as_ref(), &options, &key);
            let (job, was_killed) = site.put_through(call, asked);
            site.expect_each_once(&job, call);
            let sights = site.crowd.sights(&job);
            assert_eq!(sights.too_early(&ENDS), [] as [&str; 0], "{call:?}");
            if !was_killed {
                break;
            }
        }
    }
    site.expect_kills(10);
}

/// The job that a schedule has made; none where the host is gone, or it has made none yet. One that does not know the schedule
/// gets it.
fn job_of_schedule(site: &Site, name: &str) -> Option<String> {
    let shown = site.fleet.sluice(&["schedule", "show", name, "--json"]);
    if shown.code == 0 {
        let shown: Value = serde_json::from_str(shown.stdout.trim()).expect("is JSON");
        let runs = shown["runs"].as_array().expect("are there");
        assert!(runs.len() <= 1, "{runs:#?}");
        return shown["last"]["job"].as_str().map(str::to_owned);
    }
    if shown.stderr.contains("no schedule") {
        let at = seconds_from_now(1);
        let options = [&site.script, "--at", &at, "--all"];
        let add = [&["schedule", "add", name], &options[..]].concat();
        // Whether it was added shows when it is asked for again.
        let _output = site.fleet.sluice(&add);
    }
    None
}

#[test]
fn a_host_that_is_killed_at_any_call_that_puts_something_on_disk_runs_a_schedule_once() {
    if !is_root() || !installed("/usr/bin/strace") {
        return;
    }
    let mut site = Site::start(2);
    for call in calls("fdatasync", 1).each() {
        let name = format!("s{}", call.number);
        let (job, was_killed) = site.put_through(call, |site| job_of_schedule(site, &name));
        site.expect_each_once(&job, call);
        // One for each schedule, and no other.
        let jobs = site.fleet.list(&["job", "list"]);
        assert_eq!(jobs.len(), site.tried.calls, "{call:?}");
        if !was_killed {
            break;
        }
    }
    site.expect_kills(5);
}
