//! `sluice run --preview`: which machines are meant and what the job would wait for, before anything is made.

use sluice_api_types::job::{JobPreview, SubmitJob};

use crate::command_line::Global;
use crate::error::Error;
use crate::host::Client;
use crate::{exit, output};

/// Asks the host, and prints its answer. Files are not uploaded.
pub(super) async fn show(
    global: &Global,
    client: &Client,
    request: &SubmitJob,
) -> Result<u8, Error> {
    let preview: JobPreview = client
        .post(&["jobs", "preview"])?
        .body(request)
        .json()
        .await?;
    if global.json {
        output::json_line(&preview)?;
    } else {
        output::print(&text(&preview))?;
    }
    Ok(exit::SUCCESS)
}

fn text(preview: &JobPreview) -> String {
    let mut fields = vec![
        ("machines", Some(preview.count.to_string())),
        ("connected", Some(preview.connected.to_string())),
    ];
    for machine in &preview.machines {
        let away = if machine.connected { "" } else { " (away)" };
        fields.push(("machine", Some(format!("{}{away}", machine.name))));
    }
    let left_out = preview
        .count
        .saturating_sub(u64::try_from(preview.machines.len()).unwrap_or(u64::MAX));
    if left_out > 0 {
        fields.push(("machine", Some(format!("... and {left_out} more"))));
    }
    for typed in &preview.not_found {
        fields.push(("not found", Some(typed.clone())));
    }
    let (approval, if_found) = (&preview.approval, &preview.approval_if_found);
    fields.push(("approval", approval.as_ref().map(ToString::to_string)));
    fields.push(("if found", if_found.as_ref().map(ToString::to_string)));
    for window in &preview.windows {
        fields.push(("window", Some(window.to_string())));
    }
    output::record(&fields)
}
