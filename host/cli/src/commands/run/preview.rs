//! `sluice run --preview`: which machines are meant and what would come of the job, before anything is made.

use sluice_api_types::job::SubmitJob;
use sluice_api_types::lockdown::Lockdown;
use sluice_api_types::preview::JobPreview;

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
    if preview.include_later {
        let text = "machines that match later join until the job expires";
        fields.push(("later", Some(text.to_owned())));
    }
    for typed in &preview.not_found {
        fields.push(("not found", Some(typed.clone())));
    }
    fields.push(("lockdown", preview.lockdown.as_ref().map(lockdown)));
    for end in &preview.ended {
        fields.push(("not sent", Some(end.to_string())));
    }
    for obstacle in &preview.obstacles {
        fields.push(("but", Some(obstacle.to_string())));
    }
    for name in &preview.unseen {
        fields.push((
            "unseen",
            Some(format!("{name}, which no gate has read yet")),
        ));
    }
    // One is no plan: it is what holds the job for something else.
    let count = preview.batches.len();
    for batch in preview.batches.iter().filter(|_| count > 1) {
        let of = format!("{} of {count}: {}", batch.batch, batch.of);
        fields.push(("batch", Some(of)));
    }
    let approval = preview.approval.as_ref();
    fields.push(("approval", approval.map(ToString::to_string)));
    for window in &preview.windows {
        fields.push(("window", Some(window.to_string())));
    }
    output::record(&fields)
}

fn lockdown(lockdown: &Lockdown) -> String {
    let known = |word: &Option<String>| word.clone().unwrap_or_default();
    let mut text = format!(
        "on since {} by {}",
        known(&lockdown.since),
        known(&lockdown.operator)
    );
    if let Some(reason) = &lockdown.reason {
        text += &format!(" ({reason})");
    }
    text + ": no job is made before it is lifted"
}
