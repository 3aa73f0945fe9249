//! Machines among hundreds that say things twice, late, otherwise than before, or nothing any more.

use sluice_tests::fake::{Behavior, Manner};

use super::{BATCHES, ENDS, MACHINES, Site, counts};

#[test]
fn results_that_come_twice_or_late_or_otherwise_than_before_change_nothing_of_a_rollout() {
    let mut site = Site::start(&Behavior::default());
    let tell = |numbers: &[usize], manner| {
        for number in numbers {
            let behavior = Behavior::default().tells(manner);
            site.crowd.behave(&Site::name(*number), &behavior);
        }
    };
    // In each batch, also as the only one and the last.
    let contradicting = [1, 15, 31, 200, 300];
    tell(&contradicting, Manner::Contradicting);
    tell(&[2, 30, 100, 150, 151, 299], Manner::Twice);
    tell(&[120], Manner::Late);
    // The first failure would stop it.
    let job = site.submit(&["--batches", BATCHES]);
    site.until_ended(&job, ENDS[2] - 1);
    // What ended once does not count twice: a batch is not over before its last one is.
    site.until_another_has_come();
    assert_eq!(site.crowd.sights(&job).started(), ENDS[2]);
    site.kill_host();
    site.crowd.answer();
    site.until_ended(&job, MACHINES);
    site.crowd
        .until("all contradictions are on the record", |_| {
            let events = site.fleet.list(&["audit", "list", "--limit", "100000"]);
            let late = events.iter().filter(|event| {
                event["event"] == "script_late_report" && event["job"] == job.as_str()
            });
            late.count() == contradicting.len()
        });
    site.expect_each_once(&job);
    site.expect_batch_after_batch(&job);
    assert_eq!(site.states(&job), counts(&[("succeeded", MACHINES)]));
    let operations = site.fleet.list(&["job", "show", &job]);
    for operation in &operations {
        assert_eq!(operation["exit_code"], 0, "{operation:#}");
    }
}

#[test]
fn machines_among_hundreds_that_go_dark_stop_a_rollout_and_it_goes_on_when_somebody_resumes() {
    let mut site = Site::start(&Behavior::default());
    // One goes while its script runs, and one when it has ended.
    let (running, ended) = (Site::name(9), Site::name(22));
    let manner = |manner| Behavior::default().tells(manner);
    site.crowd.behave(&running, &manner(Manner::Late));
    site.crowd.behave(&ended, &manner(Manner::Dark));
    let rule = ["--stop-on-dark", "2", "--dark-after", "1s"];
    let job = site.submit(&[&["--batches", BATCHES], &rule[..]].concat());
    site.until_ended(&job, ENDS[1] - 1);
    site.crowd.until("the host knows that it has started", |_| {
        let operations = site.fleet.list(&["job", "show", &job]);
        operations[8]["state"] == "running"
    });
    site.crowd.leave(&running);
    site.until_paused(&job, "paused because machines went dark (2, the rule is 2)");
    assert_eq!(site.crowd.sights(&job).started(), ENDS[1]);
    site.crowd.all_behave(&Behavior::default());
    site.crowd.answer();
    site.kill_host();
    site.until_ended(&job, ENDS[1]);
    site.until_another_has_come();
    assert_eq!(site.crowd.sights(&job).started(), ENDS[1]);
    site.sluice(&["job", "resume", &job]);
    site.until_ended(&job, MACHINES);
    site.expect_each_once(&job);
    site.expect_batch_after_batch(&job);
}
