//! A schedule that runs on hundreds of machines.

use std::fs;

use sluice_tests::Random;
use sluice_tests::fake::Behavior;

use super::{MACHINES, Site, points, take_their_time};
use crate::schedules::{last, seconds_from_now};

/// Adds a schedule that runs once on all machines, so many seconds from now, and says when.
fn add_once(site: &Site, name: &str, seconds: u32) -> String {
    let file = site.fleet.folder().join("nightly.sh");
    fs::write(&file, "#!/bin/sh\n:\n").expect("writes");
    let (file, at) = (file.to_str().expect("is text"), seconds_from_now(seconds));
    let options = ["--at", &at, "--all", "--max-concurrency", "50"];
    site.sluice(&[&["schedule", "add", name, file], &options[..]].concat());
    at
}

/// The job of its run.
fn job(site: &Site, name: &str) -> String {
    let last = last(&site.fleet, name);
    let job = last["job"].as_str();
    job.unwrap_or_else(|| panic!("no job: {last}")).to_owned()
}

#[test]
fn a_run_of_a_schedule_starts_once_on_each_of_hundreds_whenever_the_host_is_killed() {
    let mut random = Random::seeded();
    let mut site = Site::start(&Behavior::default());
    take_their_time(&site, &mut random, 200);
    add_once(&site, "one", 1);
    let later = add_once(&site, "later", 6);
    // In the middle of a run.
    let one = job(&site, "one");
    for point in points(&mut random, 2, 1..MACHINES) {
        site.until_started(&one, point);
        site.kill_host();
    }
    site.until_ended(&one, MACHINES);
    // Between two, and away when it is time for the second.
    site.fleet.host.kill();
    site.crowd
        .until("its time is over", |_| seconds_from_now(0) > later);
    site.kill_host();
    let second = job(&site, "later");
    site.until_started(&second, 1);
    site.kill_host();
    site.until_ended(&second, MACHINES);
    site.until_another_has_come();
    site.expect_each_once(&one);
    site.expect_each_once(&second);
    for job in [&one, &second] {
        assert!(site.crowd.sights(job).most_at_once() <= 50);
    }
    // Each run made one job, and there is that of the test.
    assert_eq!(site.fleet.list(&["job", "list"]).len(), 3);
    assert_eq!(site.crowd.operations(), 3 * MACHINES);
}
