//! Scripts written for Landscape (docs/landscape.md).

use std::fs;

use sluice_tests::{Fleet, script};

/// In the style of the scripts that Landscape's users share: nothing in it knows of Sluice.
const SCRIPT: &str = r#"#!/bin/bash
set -e
log() { echo "[$LANDSCAPE_ACTIVITY_ID] $*"; }
log "computer $LANDSCAPE_COMPUTER_ID of account $LANDSCAPE_ACCOUNT"
log "tags: ${LANDSCAPE_COMPUTER_TAGS:-none}"
log "asked by $LANDSCAPE_ACTIVITY_CREATOR_ID at $LANDSCAPE_ACTIVITY_CREATION_TIME over $LANDSCAPE_URL"
case ",$LANDSCAPE_COMPUTER_TAGS," in
  *,role=web,*) log "a web server" ;;
esac
if [ -n "$LANDSCAPE_ATTACHMENTS" ]; then
  for file in "$LANDSCAPE_ATTACHMENTS"/*; do
    log "attachment $(basename "$file"): $(cat "$file")"
  done
fi
exit 7
"#;

#[test]
fn a_script_written_for_landscape_runs_unchanged() {
    let fleet = Fleet::builder().start();
    let tagged = fleet.sluice(&["machine", "tag", "m1", "role=web"]);
    assert_eq!(tagged.code, 0, "{tagged:?}");
    let file = fleet.folder().join("motd");
    fs::write(&file, "welcome").expect("writes");
    let file = file.to_str().expect("is text");
    let asked = script(SCRIPT)
        .option("--compat", "landscape")
        .option("--attach", file);
    let outcome = fleet.run(&asked);
    outcome.expect("failed", "Script failed with exit code 7");
    let output = outcome.text("stdout");
    let line = |start: &str| {
        let id = outcome.text("operation");
        let line = format!("[{id}] {start}");
        assert!(output.contains(&line), "{line:?} is not in {output}");
    };
    let machine = &fleet.list(&["machine", "list"])[0];
    let id = machine["machine"].as_str().or(machine["id"].as_str());
    let id = id.expect("has an id");
    line(&format!("computer {id} of account default\n"));
    line("tags: role=web\n");
    line("a web server\n");
    line("attachment motd: welcome\n");
    line("asked by ");
    let created = output
        .split(" at ")
        .nth(1)
        .and_then(|rest| rest.split(' ').next())
        .expect("tells the time");
    assert!(created.contains('T') && created.ends_with('Z'), "{created}");
    assert!(
        output.contains(&format!("over {}", fleet.host.api)),
        "{output}"
    );
    // Without the word there is no such name, and set -e does not care.
    let plain = fleet.run(&script("#!/bin/sh\nenv | grep -c ^LANDSCAPE_\n"));
    assert_eq!(plain.text("stdout"), "0\n");
}

#[test]
fn what_a_script_believes_of_itself_is_not_the_jobs_to_say() {
    let fleet = Fleet::builder().start();
    let file = fleet.folder().join("motd");
    fs::write(&file, "welcome").expect("writes");
    let names = [
        "ACCOUNT",
        "COMPUTER_ID",
        "ATTACHMENTS",
        "ACTIVITY_CREATOR_ID",
    ];
    let mut asked =
        script("#!/bin/sh\ntr '\\0' '\\n' < /proc/$$/environ | grep ^LANDSCAPE_ | sort\n")
            .option("--compat", "landscape")
            .option("--attach", file.to_str().expect("is text"));
    for name in names {
        asked = asked.option("--env", &format!("LANDSCAPE_{name}=forged"));
    }
    let outcome = fleet.run(&asked);
    outcome.expect("succeeded", "Script executed successfully");
    let output = outcome.text("stdout");
    assert!(!output.contains("forged"), "{output}");
    for name in names {
        let start = format!("LANDSCAPE_{name}=");
        let count = output
            .lines()
            .filter(|line| line.starts_with(&start))
            .count();
        assert_eq!(count, 1, "{output}");
    }
}
