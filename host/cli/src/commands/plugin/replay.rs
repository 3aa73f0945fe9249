//! `sluice plugin replay`: a gate is a pure function, and this is how to see it.

use std::path::Path;

use sluice_api_types::receipt::{Replay, ReplayOutcome, ReplayReceipts, ReplayedReceipt};
use sluice_protocol::ending::one_line;

use super::binding::read_settings_file;
use crate::command_line::Global;
use crate::error::Error;
use crate::host::Client;
use crate::{exit, output};

pub(super) async fn replay(
    global: &Global,
    operation: &str,
    plugin: Option<String>,
    settings: Option<&Path>,
) -> Result<u8, Error> {
    let request = ReplayReceipts {
        plugin,
        settings: read_settings_file(settings)?.unwrap_or_default(),
    };
    let replay: Replay = Client::new(global)?
        .post(&["operations", operation, "replay"])?
        .body(&request)
        .json()
        .await?;
    for receipt in &replay.receipts {
        if global.json {
            output::json_line(receipt)?;
        } else {
            output::print(&text(receipt))?;
        }
    }
    let count = |outcome| {
        let receipts = replay.receipts.iter();
        receipts.filter(|one| one.outcome == outcome).count()
    };
    let same = count(ReplayOutcome::Same);
    if !global.json {
        output::print(&format!(
            "{same} the same, {} different, {} missing\n",
            count(ReplayOutcome::Different),
            count(ReplayOutcome::Missing)
        ))?;
    }
    Ok(if same == replay.receipts.len() {
        exit::SUCCESS
    } else {
        exit::NOT_ALL
    })
}

fn text(replayed: &ReplayedReceipt) -> String {
    let (word, receipt) = (
        match replayed.outcome {
            ReplayOutcome::Same => "same",
            ReplayOutcome::Different => "DIFFERENT",
            ReplayOutcome::Missing => "MISSING",
        },
        &replayed.receipt,
    );
    let mut text = format!(
        "{word:9}  {:11}  {} {} ({}'s): {}\n",
        receipt.stage.as_str(),
        one_line(&receipt.plugin),
        one_line(&receipt.version),
        receipt.whose.as_str(),
        one_line(&receipt.verdict)
    );
    for line in replayed.reasons.iter().chain(&replayed.notes) {
        text.push_str(&format!("           {}\n", one_line(line)));
    }
    text
}
