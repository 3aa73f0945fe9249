//! Hundreds of machines, and a host that is killed over them: what the machines saw, and what the host says of it.
//!
//! The machines are simulated ([`Crowd`]). What must never happen to them is looked for on their side; where a test says that
//! nothing more came, a job that was made later has come to all of them by then.

mod folded;
mod scheduled;
mod stopped;
mod unruly;

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;
use sluice_tests::fake::{Behavior, Crowd, Manner};
use sluice_tests::{Fleet, Random, script};

/// How many machines there are: enough for batches that mean something, and seconds.
const MACHINES: usize = 300;
const BATCHES: &str = "1, 10%, 50%, 100%";
/// How many of them are in all batches up to each.
const ENDS: [usize; 4] = [1, 30, 150, 300];

/// A host and its machines.
struct Site {
    fleet: Fleet,
    crowd: Crowd,
}

impl Site {
    /// Connected machines that do so with every operation.
    fn start(behavior: &Behavior) -> Self {
        let fleet = Fleet::builder().crowd(MACHINES).start();
        let crowd = Crowd::of(&fleet, behavior);
        Self { fleet, crowd }
    }

    /// The machine at this place, counted from 1.
    fn name(number: usize) -> String {
        format!("c{number:05}")
    }

    /// Submits a script to all machines with these options, and returns the job's id.
    fn submit(&self, options: &[&str]) -> String {
        let mut all = script("#!/bin/sh\n:\n").flag("--all").flag("--detach");
        for pair in options.chunks(2) {
            all = all.option(pair[0], pair[1]);
        }
        let output = self.fleet.watch(&all, &[]);
        assert_eq!(output.code, 0, "{output:?}");
        output.stdout.trim().to_owned()
    }

    /// Runs `sluice` with these arguments, which must not fail, and gives what it prints.
    fn sluice(&self, arguments: &[&str]) -> String {
        let output = self.fleet.sluice(arguments);
        assert_eq!(output.code, 0, "{arguments:?}: {output:?}");
        output.stdout
    }

    /// Ends the host without warning and starts it again. The machines come back at once.
    fn kill_host(&mut self) {
        self.fleet.host.kill_and_restart();
        self.crowd.come_back();
    }

    /// Waits until so many machines have started something of a job.
    fn until_started(&self, job: &str, count: usize) {
        self.crowd
            .until(&format!("{count} have started it"), |crowd| {
                crowd.sights(job).started() >= count
            });
    }

    /// Waits until the host says that so many operations of a job have ended.
    fn until_ended(&self, job: &str, count: usize) {
        let line = |entry: &Value| entry["job"] == job && entry["ended"] == count;
        self.crowd.until(&format!("{count} have ended"), |_| {
            self.fleet.list(&["job", "list"]).iter().any(line)
        });
    }

    /// Waits until the host says of a job that it is paused, and why.
    fn until_paused(&self, job: &str, why: &str) {
        self.crowd.until(&format!("it is paused: {why}"), |_| {
            self.sluice(&["job", "show", job]).contains(why)
        });
    }

    /// How many operations of a job are in each state, as the host says.
    fn states(&self, job: &str) -> BTreeMap<String, usize> {
        let mut states = BTreeMap::new();
        for operation in self.fleet.list(&["job", "show", job]) {
            let state = operation["state"].as_str().unwrap_or_default();
            *states.entry(state.to_owned()).or_default() += 1;
        }
        states
    }

    /// Every machine has started it, each of them once, and the host says of all how they ended there.
    fn expect_each_once(&self, job: &str) {
        let sights = self.crowd.sights(job);
        let twice: Vec<_> = sights.starts().into_iter().filter(|it| it.1 != 1).collect();
        assert_eq!(twice, [], "not started once");
        assert_eq!(sights.started(), MACHINES);
        let ended: BTreeMap<_, _> = sights
            .ended()
            .into_iter()
            .map(|(state, count)| (state.to_owned(), count))
            .collect();
        assert_eq!(self.states(job), ended);
        self.expect_no_faults();
    }

    /// No operation of a job came to a machine before all batches before its own had ended, as the machines saw it.
    fn expect_batch_after_batch(&self, job: &str) {
        let sights = self.crowd.sights(job);
        assert_eq!(sights.too_early(&ENDS), [] as [&str; 0]);
    }

    /// What comes to the machines of the second batch from here on ends there once the test lets it.
    fn second_batch_is_late(&self) {
        for number in ENDS[0] + 1..=ENDS[1] {
            let late = Behavior::default().tells(Manner::Late);
            self.crowd.behave(&Self::name(number), &late);
        }
    }

    fn expect_no_faults(&self) {
        assert_eq!(self.crowd.faults(), [] as [String; 0]);
        let verified = self.fleet.sluice(&["audit", "verify"]);
        assert_eq!(verified.code, 0, "{verified:?}");
    }

    /// A job for all that is made now has come to every machine: whatever was on its way before has come too.
    fn until_another_has_come(&self) {
        let another = self.submit(&[]);
        self.until_started(&another, MACHINES);
    }
}

/// So many numbers of a range, from low to high.
fn points(random: &mut Random, count: usize, range: std::ops::Range<usize>) -> Vec<usize> {
    let mut points: Vec<_> = (0..count).map(|_| random.within(range.clone())).collect();
    points.sort_unstable();
    println!("the host is killed after {points:?} starts");
    points
}

/// Each machine takes its time, up to this many milliseconds, and one of twenty fails. Gives how many those are.
fn take_their_time(site: &Site, random: &mut Random, most: usize) -> usize {
    let mut failing = 0;
    for name in site.crowd.names() {
        let takes = Duration::from_millis(random.within(0..most) as u64);
        let fails = random.within(0..20) == 0;
        failing += usize::from(fails);
        let behavior = Behavior::default().takes(takes).exits(i32::from(fails));
        site.crowd.behave(name, &behavior);
    }
    failing
}

#[test]
fn a_rollout_over_hundreds_goes_on_batch_after_batch_however_often_the_host_is_killed_and_starts_each_once()
 {
    let mut random = Random::seeded();
    let mut site = Site::start(&Behavior::default());
    let failing = take_their_time(&site, &mut random, 300);
    let options = ["--batches", BATCHES, "--stop-on-failures", "never"];
    let job = site.submit(&options);
    for point in points(&mut random, 3, 1..MACHINES) {
        site.until_started(&job, point);
        site.kill_host();
    }
    site.until_ended(&job, MACHINES);
    site.expect_each_once(&job);
    site.expect_batch_after_batch(&job);
    let states = site.states(&job);
    assert_eq!(
        (states.get("succeeded"), states.get("failed")),
        (
            Some(&(MACHINES - failing)),
            Some(&failing).filter(|failing| **failing > 0)
        )
    );
    let events = site.fleet.events();
    let released = events.iter().filter(|event| *event == "job_released");
    assert_eq!(released.count(), ENDS.len());
}

#[test]
fn never_more_of_hundreds_are_at_work_at_once_than_asked_also_while_the_host_is_killed() {
    const AT_ONCE: usize = 25;
    let mut random = Random::seeded();
    let mut site = Site::start(&Behavior::default());
    take_their_time(&site, &mut random, 200);
    let most = AT_ONCE.to_string();
    let job = site.submit(&["--max-concurrency", &most]);
    for point in points(&mut random, 2, AT_ONCE..MACHINES) {
        site.until_started(&job, point);
        site.kill_host();
    }
    site.until_ended(&job, MACHINES);
    site.expect_each_once(&job);
    assert_eq!(site.crowd.sights(&job).most_at_once(), AT_ONCE);
}

#[test]
fn failures_of_some_stop_a_rollout_in_their_batch_and_the_rest_waits_until_somebody_resumes() {
    let site = Site::start(&Behavior::default());
    for number in [7, 19, 30] {
        let failing = Behavior::default().exits(number);
        site.crowd.behave(&Site::name(number as usize), &failing);
    }
    let job = site.submit(&["--batches", BATCHES, "--stop-on-failures", "3"]);
    site.until_paused(&job, "paused because operations failed (3, the rule is 3)");
    site.until_another_has_come();
    let sights = site.crowd.sights(&job);
    let first: Vec<_> = (1..=ENDS[1]).map(Site::name).collect();
    assert_eq!(sights.starts().into_keys().collect::<Vec<_>>(), first);
    assert_eq!(
        site.states(&job),
        counts(&[("failed", 3), ("held", 270), ("succeeded", 27)])
    );
    site.sluice(&["job", "resume", &job]);
    site.until_ended(&job, MACHINES);
    site.expect_each_once(&job);
    site.expect_batch_after_batch(&job);
    assert_eq!(
        site.states(&job),
        counts(&[("failed", 3), ("succeeded", 297)])
    );
}

#[test]
fn a_paused_rollout_over_hundreds_stays_paused_over_a_restart_and_goes_on_once_it_is_resumed() {
    let mut site = Site::start(&Behavior::default());
    // It is at work when the job is paused, and ends after that.
    site.second_batch_is_late();
    let job = site.submit(&["--batches", BATCHES]);
    site.until_started(&job, ENDS[1]);
    site.sluice(&["job", "pause", &job]);
    site.kill_host();
    site.crowd.answer();
    site.until_ended(&job, ENDS[1]);
    site.kill_host();
    site.until_another_has_come();
    assert_eq!(site.crowd.sights(&job).started(), ENDS[1]);
    assert_eq!(
        site.states(&job),
        counts(&[("held", 270), ("succeeded", 30)])
    );
    // Said twice and over another restart, it goes on once.
    site.sluice(&["job", "resume", &job]);
    site.sluice(&["job", "resume", &job]);
    site.until_started(&job, ENDS[1] + 1);
    site.kill_host();
    site.until_ended(&job, MACHINES);
    site.expect_each_once(&job);
    site.expect_batch_after_batch(&job);
}

/// How many of each.
fn counts(counts: &[(&str, usize)]) -> BTreeMap<String, usize> {
    counts
        .iter()
        .map(|(state, count)| ((*state).to_owned(), *count))
        .collect()
}
