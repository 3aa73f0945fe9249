//! The results of many machines as few.

use sluice_tests::{Fleet, script};

#[test]
fn machines_with_the_same_result_are_shown_as_one_and_the_others_with_their_difference() {
    let mut fleet = Fleet::builder()
        .without_gates()
        .policy("[gates]\nstages = []\n")
        .start();
    for name in ["m22", "m33", "m44"] {
        fleet.add_machine(name, "[gates]\nstages = []\n");
    }
    let text = "#!/bin/sh\necho $SLUICE_MACHINE_NAME pid $$ $(date +%H:%M:%S)\n\
                [ $SLUICE_MACHINE_NAME = m33 ] && echo odd || echo usual\n\
                [ $SLUICE_MACHINE_NAME != m44 ]\n";
    let ran = fleet.watch(&script(text).flag("--detach"), &["m22", "m33", "m44"]);
    let job = ran.stdout.trim();
    assert_eq!(ran.code, 0, "{ran:?}");
    for operation in 0..3 {
        sluice_tests::eventually("it has ended", || {
            let shown = fleet.list(&["job", "show", job]);
            (!shown[operation]["finished_at"].is_null()).then_some(())
        });
    }
    let folded = fleet.list(&["job", "show", job, "--fold"]).swap_remove(0);
    let groups = folded["groups"].as_array().expect("groups");
    let shown: Vec<_> = groups
        .iter()
        .map(|group| {
            format!(
                "{} {} {}",
                group["count"], group["state"], group["machines"]
            )
        })
        .collect();
    assert_eq!(
        shown,
        [
            r#"1 "succeeded" ["m22"]"#,
            r#"1 "succeeded" ["m33"]"#,
            r#"1 "failed" ["m44"]"#
        ]
    );
    let diff = groups[1]["diff"].as_str().expect("a difference");
    assert_eq!(
        diff,
        "--- stdout of the largest group\n+++ stdout of this group\n@@ -1,2 +1,2 @@\n <machine> pid <pid> <time>\n-usual\n+odd\n"
    );

    let same = "#!/bin/sh\necho $SLUICE_MACHINE_NAME pid $$ $(date +%H:%M:%S)\n";
    let ran = fleet.watch(&script(same).flag("--json"), &["m22", "m33", "m44"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    let job = fleet.list(&["job", "list", "--limit", "1"])[0]["job"]
        .as_str()
        .expect("is text")
        .to_owned();
    let text = fleet.sluice(&["job", "show", &job, "--fold"]);
    assert!(text.stdout.starts_with("3 the same\n"), "{text:?}");
    let both = fleet.sluice(&["job", "show", &job, "--fold", "--format", "sarif"]);
    both.expect_refused();
}
