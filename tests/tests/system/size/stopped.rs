//! Stopping everything, on hundreds of machines.

use sluice_tests::fake::{Behavior, Manner};

use super::{BATCHES, ENDS, MACHINES, Site, counts};

#[test]
fn halting_tells_hundreds_that_run_and_ends_what_is_held_and_none_starts_after() {
    let site = Site::start(&Behavior::default().tells(Manner::Silent));
    let at_once = site.submit(&[]);
    let rollout = site.submit(&["--batches", "50%, 100%"]);
    site.until_started(&at_once, MACHINES);
    site.until_started(&rollout, MACHINES / 2);
    assert_eq!(
        site.sluice(&["job", "halt"]),
        "canceled 600 operations that had not ended\n"
    );
    site.until_ended(&at_once, MACHINES);
    site.until_ended(&rollout, MACHINES);
    site.until_another_has_come();
    for (job, started) in [(&at_once, MACHINES), (&rollout, MACHINES / 2)] {
        let sights = site.crowd.sights(job);
        // Those that had it were told, and ended it over that.
        assert_eq!(
            (sights.started(), sights.canceled().len()),
            (started, started)
        );
        assert_eq!(sights.ended(), [("canceled", started)].into());
        assert_eq!(site.states(job), counts(&[("canceled", MACHINES)]));
    }
    site.expect_no_faults();
}

#[test]
fn a_lockdown_that_cancels_ends_everything_on_hundreds_and_nothing_starts_until_it_is_lifted() {
    let mut site = Site::start(&Behavior::default().tells(Manner::Silent));
    let running = site.submit(&["--batches", "50%, 100%"]);
    site.until_started(&running, MACHINES / 2);
    site.sluice(&["lockdown", "on", "--cancel", "--reason", "a drill"]);
    site.crowd.until("all are told", |crowd| {
        crowd.lockdowns() == MACHINES && crowd.cancels() == MACHINES / 2
    });
    site.until_ended(&running, MACHINES);
    assert_eq!(site.states(&running), counts(&[("canceled", MACHINES)]));
    site.crowd.all_behave(&Behavior::default());
    let come = site.crowd.operations();
    for _ in 0..2 {
        let another = sluice_tests::script("#!/bin/sh\n:\n").flag("--all");
        let refused = site.fleet.watch(&another, &[]);
        refused.expect_refused();
        assert!(refused.stderr.contains("a drill"), "{refused:?}");
        site.kill_host();
        site.crowd
            .until("all are back", |crowd| crowd.connected() == MACHINES);
    }
    assert_eq!(site.crowd.operations(), come);
    site.sluice(&["lockdown", "off"]);
    site.until_another_has_come();
    assert_eq!(site.crowd.sights(&running).started(), MACHINES / 2);
    site.expect_no_faults();
}

#[test]
fn under_a_lockdown_a_rollout_over_hundreds_stands_still_and_goes_on_with_what_waited_when_it_is_lifted()
 {
    let mut site = Site::start(&Behavior::default());
    // It is at work when the lockdown begins, and ends under it.
    site.second_batch_is_late();
    let rollout = site.submit(&["--batches", BATCHES]);
    site.until_started(&rollout, ENDS[1]);
    // And this one waits for 21 machines that are away.
    let away: Vec<_> = (MACHINES - 20..=MACHINES).map(Site::name).collect();
    away.iter().for_each(|name| site.crowd.leave(name));
    site.crowd.until("the host knows that they are away", |_| {
        let machines = site.fleet.list(&["machine", "list"]);
        let connected = machines.iter().filter(|it| it["connected"] == true);
        connected.count() == MACHINES - away.len()
    });
    let waiting = site.submit(&[]);
    site.until_ended(&waiting, MACHINES - away.len() - (ENDS[1] - 1));
    site.sluice(&["lockdown", "on"]);
    site.crowd.until("all are told", |crowd| {
        crowd.lockdowns() == MACHINES - away.len()
    });
    site.crowd.answer();
    site.until_ended(&rollout, ENDS[1]);
    site.until_ended(&waiting, MACHINES - away.len());
    site.kill_host();
    site.crowd
        .until("all are back", |crowd| crowd.connected() == MACHINES);
    site.kill_host();
    site.crowd
        .until("all are back", |crowd| crowd.connected() == MACHINES);
    assert_eq!(site.crowd.sights(&rollout).started(), ENDS[1]);
    assert_eq!(site.crowd.sights(&waiting).started(), MACHINES - away.len());
    // Not even as far as to count as sent.
    assert_eq!(
        site.states(&rollout),
        counts(&[("held", 270), ("succeeded", 30)])
    );
    assert_eq!(
        site.states(&waiting),
        counts(&[("queued", 21), ("succeeded", 279)])
    );
    site.sluice(&["lockdown", "off"]);
    for job in [&rollout, &waiting] {
        site.until_ended(job, MACHINES);
        site.expect_each_once(job);
    }
    site.expect_batch_after_batch(&rollout);
}
