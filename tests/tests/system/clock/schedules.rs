//! Schedules by a clock that is moved.

use std::collections::BTreeSet;

use serde_json::Value;
use sluice_tests::fake::FakeMachine;
use sluice_tests::{Fleet, eventually};

use super::{add, fired, host_alone_at, host_and_crowd_at, host_at, job_list, missed, shown};

/// The days on which jobs were submitted, by the clocks of Berlin, with the time where it is not the usual one.
fn nights(jobs: &[Value], usual: &str) -> Vec<String> {
    let shown = jobs.iter().map(|job| {
        let at = job["submitted_at"].as_str().expect("is text");
        let at: jiff::Timestamp = at.parse().expect("is a time");
        let local = at.in_tz("Europe/Berlin").expect("is a zone");
        let (day, time) = (local.date().to_string(), local.time().to_string());
        if time == usual {
            day
        } else {
            format!("{day} {time}")
        }
    });
    shown.collect()
}

fn next(schedule: &Value) -> Vec<&str> {
    let next = schedule["next"].as_array().expect("is a list").iter();
    next.map(|next| next["local"].as_str().expect("is text"))
        .collect()
}

/// What became of a schedule's latest run.
fn last(fleet: &Fleet, name: &str) -> (String, String) {
    let last = &shown(fleet, name)["last"];
    let word = |key: &str| last[key].as_str().unwrap_or_default().to_owned();
    (word("state"), word("reason"))
}

#[test]
fn a_nightly_schedule_has_a_job_for_each_of_the_365_nights_of_a_year_whatever_clocks_and_hosts_do()
{
    let mut fleet = host_alone_at("2034-12-31T23:00:00Z");
    let options = ["--cron", "30 2 * * *", "--zone", "Europe/Berlin"];
    add(
        &fleet,
        "nightly",
        &[&options[..], &["--on", "away"]].concat(),
    );
    // The host is killed right before the hour that is missing and in the one that comes twice, behind its first run.
    for killed in ["2035-03-25T00:59:59Z", "2035-10-28T00:30:01Z"] {
        fleet.host.clock().pass(killed);
        fleet.host.kill_and_restart();
    }
    fleet.host.clock().pass("2035-12-31T23:00:00Z");
    let mut jobs = job_list(&fleet);
    jobs.reverse();
    let nights = nights(&jobs, "02:30:00");
    assert_eq!(nights.len(), 365);
    assert_eq!(nights.iter().collect::<BTreeSet<_>>().len(), 365);
    // Where that time is missing it runs right behind it, and where it comes twice, the first time.
    let odd: Vec<_> = nights.iter().filter(|night| night.len() > 10).collect();
    assert_eq!(odd, ["2035-03-25 03:00:00"]);
    let autumn = jobs
        .iter()
        .filter(|job| job["submitted_at"] == "2035-10-28T00:30:00.000Z");
    assert_eq!(autumn.count(), 1);
    // Each ended before the next one began, because its machine was away.
    let open: Vec<_> = jobs.iter().filter(|job| job["ended"] == 0).collect();
    assert_eq!(open, [&jobs[364]]);
    assert_eq!(fired(&fleet, "nightly").len(), 365);
}

#[test]
fn a_host_that_is_killed_while_runs_are_due_one_after_the_other_makes_each_of_their_jobs_once() {
    let mut fleet = host_alone_at("2035-06-01T00:30:00Z");
    let options = ["--cron", "0 * * * *", "--missed", "all", "--on", "away"];
    add(&fleet, "hourly", &options);
    for (passed, seen) in [("2035-06-03T00:00:00Z", 5), ("2035-06-05T00:00:00Z", 55)] {
        fleet.host.clock().begin_to_pass(passed);
        eventually("some have run", || {
            (job_list(&fleet).len() >= seen).then_some(())
        });
        fleet.host.kill_and_restart();
    }
    fleet.host.clock().pass("2035-06-06T00:00:00Z");
    let runs = fired(&fleet, "hourly");
    assert_eq!(runs.iter().collect::<BTreeSet<_>>().len(), 5 * 24);
    assert_eq!((runs.len(), job_list(&fleet).len()), (5 * 24, 5 * 24));
}

#[test]
fn a_machine_that_comes_online_again_has_another_run_when_the_time_between_two_is_over() {
    let mut fleet = host_at("2035-06-01T00:00:00Z");
    let token = fleet.sluice(&["machine", "enroll-token"]);
    let machine = FakeMachine::enroll(&token.stdout, "m1");
    let options = ["--event", "online", "--at-most-every", "6h", "--all"];
    add(&fleet, "hello", &options);
    for (time, runs) in [
        ("2035-06-01T01:00:00Z", 1),
        ("2035-06-01T06:59:59Z", 1),
        ("2035-06-01T07:00:00Z", 2),
        ("2035-06-01T12:59:59Z", 2),
        ("2035-06-01T13:00:00Z", 3),
    ] {
        fleet.host.clock().set(time);
        let connection = machine.connect();
        connection.greet(&[], &[]);
        eventually("it is connected", || {
            let shown = fleet.list(&["machine", "show", "m1"]);
            (shown[0]["last_seen"] == time.replace('Z', ".000Z")).then_some(())
        });
        drop(connection);
        // Those while the first one has not ended there are missed, and count.
        eventually(&format!("{runs} runs at {time}"), || {
            let noted = shown(&fleet, "hello")["runs"].as_array().map(Vec::len);
            (noted == Some(runs)).then_some(())
        });
    }
}

#[test]
fn what_is_planned_for_a_leap_day_runs_on_the_leap_days_alone() {
    let mut fleet = host_alone_at("2035-03-01T00:00:00Z");
    add(&fleet, "leap", &["--cron", "0 12 29 2 *", "--on", "away"]);
    let planned = [2036, 2040, 2044].map(|year| format!("{year}-02-29T12:00:00+00:00[UTC]"));
    assert_eq!(next(&shown(&fleet, "leap")), planned);
    for (passed, runs) in [("2036-02-29T11:59:59Z", 0), ("2041-03-01T00:00:00Z", 2)] {
        fleet.host.clock().pass(passed);
        assert_eq!(job_list(&fleet).len(), runs, "{passed}");
    }
    assert_eq!(
        fired(&fleet, "leap"),
        ["2036-02-29T12:00:00.000Z", "2040-02-29T12:00:00.000Z"]
    );
}

#[test]
fn the_next_three_runs_are_shown_as_the_clocks_of_the_zone_will_show_them() {
    let mut fleet = host_alone_at("2035-03-23T12:00:00Z");
    let options = ["--cron", "30 2 * * *", "--zone", "Europe/Berlin"];
    add(
        &fleet,
        "nightly",
        &[&options[..], &["--on", "away"]].concat(),
    );
    let spring = [
        "2035-03-24T02:30:00+01:00[Europe/Berlin]",
        "2035-03-25T03:00:00+02:00[Europe/Berlin]",
        "2035-03-26T02:30:00+02:00[Europe/Berlin]",
    ];
    let autumn = [
        "2035-10-27T02:30:00+02:00[Europe/Berlin]",
        "2035-10-28T02:30:00+02:00[Europe/Berlin]",
        "2035-10-29T02:30:00+01:00[Europe/Berlin]",
    ];
    for (now, expected) in [
        ("2035-03-23T12:00:00Z", spring),
        ("2035-10-26T12:00:00Z", autumn),
    ] {
        fleet.host.clock().set(now);
        let text = fleet.sluice(&["schedule", "show", "nightly"]).stdout;
        let lines = text.lines().filter(|line| line.starts_with("next"));
        let next: Vec<_> = lines
            .filter_map(|line| line.split_whitespace().nth(1))
            .collect();
        assert_eq!(next, expected, "{text}");
        assert!(text.contains("Europe/Berlin)"), "{text}");
    }
}

#[test]
fn what_a_host_missed_while_it_was_down_is_left_out_or_made_up_for_once_or_run_by_run() {
    let mut fleet = host_alone_at("2035-06-01T10:30:00Z");
    let words = ["skip", "once", "all"];
    for word in words {
        let options = ["--cron", "0 * * * *", "--on", "away", "--missed", word];
        add(&fleet, word, &options);
    }
    fleet.host.kill();
    fleet.host.clock().set("2035-06-01T14:20:00Z");
    for _ in 0..2 {
        fleet.host.kill_and_restart();
        // When that returns it has looked.
        fleet.host.clock().set("2035-06-01T14:20:00Z");
        assert_eq!(words.map(|word| fired(&fleet, word).len()), [0, 1, 4]);
    }
    assert_eq!(fired(&fleet, "once"), ["2035-06-01T14:00:00.000Z"]);
    let (state, reason) = last(&fleet, "skip");
    assert_eq!(state, "missed");
    assert!(reason.contains("4 runs passed"), "{reason}");
    fleet.host.clock().pass("2035-06-01T15:00:00Z");
    assert_eq!(words.map(|word| fired(&fleet, word).len()), [1, 2, 5]);
    assert_eq!(job_list(&fleet).len(), 8);
}

#[test]
fn a_run_whose_predecessor_goes_on_is_left_out_or_waits_or_takes_its_place() {
    let (mut fleet, crowd) = host_and_crowd_at("2035-06-01T00:30:00Z", 1, None);
    let words = ["skip", "queue", "cancel"];
    for word in words {
        let options = ["--cron", "0 * * * *", "--on", "c00001", "--overlap", word];
        add(&fleet, word, &options);
    }
    let until_sent = |count| {
        eventually(&format!("{count} operations were sent"), || {
            (crowd.operations() == count).then_some(())
        });
    };
    fleet.host.clock().pass("2035-06-01T01:00:00Z");
    until_sent(3);
    let first = shown(&fleet, "queue")["last"]["job"].clone();
    fleet.host.clock().pass("2035-06-01T02:00:00Z");
    until_sent(4);
    assert_eq!(crowd.cancels(), 1);
    let (state, reason) = last(&fleet, "skip");
    assert_eq!(state, "missed");
    assert!(reason.contains("has not ended"), "{reason}");
    assert_eq!(last(&fleet, "queue").0, "waiting");
    assert_eq!(last(&fleet, "cancel").0, "fired");
    assert_eq!(words.map(|word| fired(&fleet, word).len()), [1, 1, 2]);
    let first = first.as_str().expect("had a job");
    assert_eq!(fleet.sluice(&["job", "cancel", first]).code, 0);
    until_sent(5);
    assert_eq!(
        fired(&fleet, "queue"),
        ["2035-06-01T01:00:00.000Z", "2035-06-01T02:00:00.000Z"]
    );
}

#[test]
fn a_run_with_jitter_starts_within_its_bound_at_the_same_moment_whatever_is_restarted() {
    let mut fleet = host_alone_at("2035-06-01T00:30:00Z");
    let options = ["--cron", "0 * * * *", "--jitter", "10m", "--on", "away"];
    add(&fleet, "spread", &options);
    let mut delays = BTreeSet::new();
    for hour in 1..=12 {
        let planned = format!("2035-06-01T{hour:02}:00:00.000Z");
        let next = shown(&fleet, "spread")["next"][0].clone();
        assert_eq!(next["planned_at"], planned.as_str());
        let due = next["due_at"].as_str().expect("is text").to_owned();
        let delay = due.strip_prefix(&format!("2035-06-01T{hour:02}:"));
        let delay = delay.unwrap_or_else(|| panic!("{due} is not in the hour of {planned}"));
        assert!(delay <= "10:00.000Z", "{due} is too late");
        delays.insert(delay.to_owned());
        fleet.host.clock().pass(&planned);
        if hour == 6 {
            fleet.host.kill_and_restart();
        }
        fleet.host.clock().pass(&due);
        let jobs = job_list(&fleet);
        assert_eq!(
            (jobs.len(), &jobs[0]["submitted_at"]),
            (hour, &due.into()),
            "{planned}"
        );
    }
    assert!(delays.len() > 6, "they are spread: {delays:?}");
}

#[test]
fn nothing_is_made_up_for_of_what_was_planned_while_a_schedule_was_paused() {
    let mut fleet = host_alone_at("2035-06-01T00:30:00Z");
    let options = ["--every", "1h", "--missed", "all", "--on", "away"];
    add(&fleet, "hourly", &options);
    for (time, command, runs) in [
        ("2035-06-01T02:40:00Z", "pause", 2),
        ("2035-06-01T08:40:00Z", "resume", 2),
        ("2035-06-01T09:29:59Z", "show", 2),
        ("2035-06-01T09:30:00Z", "show", 3),
    ] {
        fleet.host.clock().pass(time);
        assert_eq!(fleet.sluice(&["schedule", command, "hourly"]).code, 0);
        assert_eq!(job_list(&fleet).len(), runs, "{time}");
    }
}

#[test]
fn a_clock_that_jumps_a_year_ahead_and_back_neither_leaves_out_a_run_nor_repeats_one() {
    let mut fleet = host_alone_at("2035-05-01T12:00:00Z");
    add(&fleet, "weekly", &["--cron", "0 3 * * 1", "--on", "away"]);
    fleet.host.clock().set("2036-05-01T12:00:00Z");
    // One that makes up for those of the year, which is the last of them.
    let ahead = fired(&fleet, "weekly");
    assert_eq!(ahead, ["2036-04-28T03:00:00.000Z"]);
    fleet.host.clock().set("2035-05-01T12:01:00Z");
    assert_eq!(fired(&fleet, "weekly"), ahead);
    fleet.host.kill_and_restart();
    fleet.host.clock().pass("2036-05-06T00:00:00Z");
    let runs = fired(&fleet, "weekly");
    // 2035-05-07 and every seventh day to 2036-05-05.
    assert_eq!(runs.iter().collect::<BTreeSet<_>>().len(), 53);
    assert_eq!((runs.len(), job_list(&fleet).len()), (53, 53));
    // Those before the last one of the year, as it seemed then.
    assert_eq!(missed(&fleet, "weekly"), ["2036-04-21T03:00:00.000Z"]);
}

#[test]
fn a_clock_that_is_set_back_by_an_hour_does_not_repeat_what_has_run_and_runs_what_has_not() {
    let mut fleet = host_alone_at("2035-06-01T11:01:00Z");
    let options = ["--cron", "*/10 * * * *", "--missed", "all", "--on", "away"];
    add(&fleet, "often", &options);
    fleet.host.clock().pass("2035-06-01T12:05:00Z");
    let ran = fired(&fleet, "often");
    assert_eq!(ran.len(), 6);
    fleet.host.clock().set("2035-06-01T11:05:00Z");
    fleet.host.clock().pass("2035-06-01T12:09:59Z");
    assert_eq!(fired(&fleet, "often"), ran);
    fleet.host.clock().pass("2035-06-01T12:10:00Z");
    let runs = fired(&fleet, "often");
    assert_eq!(
        (&runs[..6], runs[6..].concat().as_str()),
        (&ran[..], "2035-06-01T12:10:00.000Z")
    );
    assert_eq!(missed(&fleet, "often"), Vec::<String>::new());
}

#[test]
fn what_is_to_run_once_runs_once_whatever_the_clock_does_and_however_late_the_host_is() {
    let mut fleet = host_alone_at("2035-06-01T00:00:00Z");
    let at = |name: &str, time: &str| add(&fleet, name, &["--at", time, "--on", "away"]);
    at("on-time", "2035-06-01T06:00:00Z");
    at("late", "2035-06-01T12:00:00Z");
    let runs = |fleet: &Fleet| {
        let of = |name: &str| {
            (
                fired(fleet, name).len(),
                shown(fleet, name)["state"].clone(),
            )
        };
        [of("on-time"), of("late")]
    };
    fleet.host.clock().pass("2035-06-01T06:00:00Z");
    let (over, planned) = ((1, "ended".into()), (0, "active".into()));
    assert_eq!(runs(&fleet), [over.clone(), planned.clone()]);
    fleet.host.clock().set("2035-06-01T01:00:00Z");
    fleet.host.clock().pass("2035-06-01T11:59:59Z");
    assert_eq!(runs(&fleet), [over.clone(), planned]);
    fleet.host.kill();
    fleet.host.clock().set("2035-06-03T00:00:00Z");
    fleet.host.kill_and_restart();
    fleet.host.clock().pass("2035-06-04T00:00:00Z");
    assert_eq!(runs(&fleet), [over.clone(), over]);
}
