//! `sluice plugin backtest`: what past jobs would be decided as with another version, or other settings.

use std::collections::BTreeSet;
use std::path::Path;

use serde::Serialize;
use sluice_api_types::receipt::{Backtest, BacktestPlugin, ChangedOperation, GateDecision};
use sluice_protocol::ending::one_line;

use super::binding::read_settings_file;
use crate::command_line::Global;
use crate::error::Error;
use crate::exit;
use crate::host::Client;
use crate::output::{self, List};

/// How many jobs are asked for at once.
const PART: u32 = 25;

/// What all parts come to; with `--json` the last line.
#[derive(Debug, Default, Serialize)]
struct Summary {
    plugin: String,
    version: String,
    sha256: String,
    jobs: u64,
    asked: u64,
    changed: u64,
    by_inventory: u64,
    unknown: u64,
    left_out: u64,
    other_findings: u64,
    notes: BTreeSet<String>,
}

pub(super) async fn backtest(
    global: &Global,
    plugin: &str,
    settings: Option<&Path>,
    last: u32,
    tenant: Option<String>,
) -> Result<u8, Error> {
    let client = Client::new(global)?;
    let mut request = BacktestPlugin {
        plugin: plugin.to_owned(),
        settings: read_settings_file(settings)?,
        jobs: None,
        before: None,
        tenant,
    };
    let mut list = List::new(
        &["job", "operation", "machine", "recorded", "now", "tried"],
        global.json,
    );
    let (mut summary, mut left) = (Summary::default(), u64::from(last));
    loop {
        request.jobs = Some(u32::try_from(left).unwrap_or(PART).min(PART));
        let part: Backtest = client
            .post(&["plugins", "backtest"])?
            .body(&request)
            .json()
            .await?;
        // A newer one may be installed meanwhile: what was begun with is gone on with.
        request.plugin = part.sha256.to_string();
        list.write(&part.changed, row)?;
        left = left.saturating_sub(part.jobs);
        let next = part.next.filter(|next| Some(*next) != request.before);
        summary.add(part);
        if next.is_none() || left == 0 {
            break;
        }
        request.before = next;
    }
    if global.json {
        output::json_line(&summary)?;
    } else {
        output::print(&summary.text())?;
    }
    Ok(exit::SUCCESS)
}

fn row(changed: &ChangedOperation) -> Vec<String> {
    let decision = |decision: &GateDecision| match &decision.message {
        Some(message) => format!("{}: {message}", decision.decision),
        None => decision.decision.clone(),
    };
    vec![
        changed.job.to_string(),
        changed.operation.to_string(),
        changed.machine.clone(),
        changed.recorded.as_str().to_owned(),
        decision(&changed.now),
        decision(&changed.tried),
    ]
}

impl Summary {
    fn add(&mut self, part: Backtest) {
        self.plugin = part.plugin;
        self.version = part.version;
        self.sha256 = part.sha256.to_string();
        self.jobs += part.jobs;
        self.asked += part.asked;
        self.changed += part.changed.len() as u64;
        self.by_inventory += part.by_inventory;
        self.unknown += part.unknown;
        self.left_out += part.left_out;
        self.other_findings += part.other_findings;
        self.notes.extend(part.notes);
    }

    fn text(&self) -> String {
        let mut text = format!(
            "{} {}: of {} operations of {} jobs {} would be decided otherwise\n",
            one_line(&self.plugin),
            one_line(&self.version),
            self.asked,
            self.jobs,
            self.changed
        );
        for (count, what) in [
            (self.other_findings, "decided the same, with other findings"),
            (
                self.by_inventory,
                "asked about with what is known of their machine today",
            ),
            (
                self.unknown,
                "not asked about: the script's text was erased, or there is no such machine",
            ),
            (
                self.left_out,
                "not asked about: their job has too many, or the time was over",
            ),
        ] {
            if count > 0 {
                text.push_str(&format!("{count} {what}\n"));
            }
        }
        for note in &self.notes {
            text.push_str(&format!("note: {}\n", one_line(note)));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_adds_up_what_the_parts_say_and_obeys_none_of_it() {
        let part = |asked, note: &str| Backtest {
            plugin: "scanner".to_owned(),
            version: "1.0.0".to_owned(),
            sha256: sluice_protocol::digest::Digest::of(b"c"),
            jobs: 2,
            asked,
            by_inventory: 1,
            unknown: 0,
            left_out: 0,
            other_findings: 3,
            changed: Vec::new(),
            next: None,
            notes: vec![note.to_owned()],
        };
        let mut summary = Summary::default();
        for part in [part(4, "a\x1b[2J"), part(5, "b"), part(0, "b")] {
            summary.add(part);
        }
        let text = summary.text();
        assert!(
            text.starts_with(
                "scanner 1.0.0: of 9 operations of 6 jobs 0 would be decided otherwise\n"
            ),
            "{text}"
        );
        assert!(
            text.contains("9 decided the same, with other findings\n"),
            "{text}"
        );
        assert!(!text.contains('\x1b') && !text.contains("erased"), "{text}");
        assert_eq!(text.matches("note: ").count(), 2, "{text}");
    }
}
