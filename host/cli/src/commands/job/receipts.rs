//! `sluice job show --receipts`: what the gates of each machine were asked and said.

use sluice_api_types::job::Job;
use sluice_api_types::receipt::OperationReceipts;
use sluice_protocol::receipt::Receipt;
use sluice_protocol::report::Mode;

use crate::command_line::Global;
use crate::error::Error;
use crate::host::Client;
use crate::{exit, output};

pub(super) async fn show(global: &Global, job: &str) -> Result<u8, Error> {
    let client = Client::new(global)?;
    let job: Job = client.get(&["jobs", job])?.json().await?;
    for operation in &job.operations {
        let receipts: OperationReceipts = client
            .get(&["operations", &operation.operation.to_string(), "receipts"])?
            .json()
            .await?;
        if global.json {
            output::json_line(&receipts)?;
        } else {
            output::print(&describe(&receipts))?;
        }
    }
    Ok(exit::SUCCESS)
}

fn describe(of: &OperationReceipts) -> String {
    let signed = match &of.proof {
        Some(_) => "by the machine",
        None if of.receipts.is_empty() => "no gate was asked",
        None => "no: the host asked its own gates, and nothing was sent",
    };
    let replay = if of.inputs_kept { "yes" } else { "no" };
    let mut text = output::record(&[
        ("machine", Some(of.machine.clone())),
        ("operation", Some(of.operation.to_string())),
        ("signed", Some(signed.to_owned())),
        ("can be replayed", Some(replay.to_owned())),
    ]);
    for receipt in &of.receipts {
        text.push('\n');
        text.push_str(&output::record(&fields(receipt)));
    }
    text.push('\n');
    text
}

fn fields(receipt: &Receipt) -> Vec<(&'static str, Option<String>)> {
    let mode = match receipt.mode {
        Mode::Enforce => "enforce",
        Mode::Monitor => "monitor",
    };
    let took = if receipt.cached {
        "cached: the gate had answered this question before".to_owned()
    } else {
        format!("{} us", receipt.duration_us)
    };
    let limits = format!(
        "{} fuel, {} bytes of memory, {} ms",
        receipt.limits.fuel, receipt.limits.memory, receipt.limits.time_ms
    );
    vec![
        (
            "  gate",
            Some(format!(
                "{} {} ({}, {}, {mode})",
                receipt.plugin,
                receipt.version,
                receipt.stage.as_str(),
                receipt.whose.as_str()
            )),
        ),
        ("  verdict", Some(receipt.verdict.clone())),
        ("  fuel", Some(receipt.fuel.to_string())),
        ("  took", Some(took)),
        ("  limits", Some(limits)),
        ("  runtime", Some(receipt.runtime.clone())),
        ("  contract", Some(receipt.contract.clone())),
        ("  component", Some(receipt.component_sha256.to_string())),
        ("  settings", Some(receipt.settings_sha256.to_string())),
        (
            "  bundle",
            receipt.bundle_sha256.map(|digest| digest.to_string()),
        ),
        ("  input", Some(receipt.input_sha256.to_string())),
        ("  answer", Some(receipt.verdict_sha256.to_string())),
    ]
}
