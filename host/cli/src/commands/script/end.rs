//! `sluice script archive` and `redact`.

use sluice_api_types::script::Redacted;

use super::StoredScript;
use crate::command_line::Global;
use crate::error::Error;
use crate::host::Client;
use crate::{exit, output};

pub(super) async fn archive(global: &Global, script: &str) -> Result<u8, Error> {
    let archived: serde_json::Value = Client::new(global)?
        .post(&["scripts", script, "archive"])?
        .json()
        .await?;
    if global.json {
        output::json_line(&archived)?;
    } else {
        output::print(&format!(
            "archived {script}; nothing of it is started any more, and what ran stays\n"
        ))?;
    }
    Ok(exit::SUCCESS)
}

pub(super) async fn redact(global: &Global, script: &StoredScript) -> Result<u8, Error> {
    let Some(version) = script.version else {
        return Err(Error::Usage(format!(
            "which version of {0} is to be erased? Nothing was done; write {0}@VERSION, see sluice script versions {0}",
            script.name
        )));
    };
    let done: Redacted = Client::new(global)?
        .post(&[
            "scripts",
            &script.name,
            "versions",
            &version.to_string(),
            "redact",
        ])?
        .json()
        .await?;
    if global.json {
        output::json_line(&done)?;
        return Ok(exit::SUCCESS);
    }
    for erased in &done.redacted {
        output::print(&format!("redacted {}@{}\n", erased.name, erased.version))?;
    }
    if done.canceled > 0 {
        output::print(&format!(
            "canceled {} operations that had not started\n",
            done.canceled
        ))?;
    }
    Ok(exit::SUCCESS)
}
