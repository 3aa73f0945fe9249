//! What a past job was, read again.

use sluice_gate_client::Circumstances;
use sluice_gate_client::replay::Material;
use sluice_protocol::bundle::{Source, Submission};
use sluice_protocol::causes::Causes;

use crate::host::SharedHost;
use crate::jobs::attachment_texts;
use crate::store::tenants::Tenant;

/// From what is stored to what gates were asked; what is missing is said for people.
pub(super) async fn material(
    host: &SharedHost,
    tenant: &Tenant,
    submission: Submission,
    circumstances: Circumstances,
) -> Result<Material, String> {
    let source = source(&submission)?;
    let attachments = attachment_texts(host, tenant.id, &submission.attachments).await;
    Ok(Material {
        submission,
        source,
        attachments,
        circumstances,
    })
}

/// The script of a past job, read again.
pub(super) fn source(submission: &Submission) -> Result<Source, String> {
    if submission.script.is_empty() {
        return Err("the script's text was erased from the library".to_owned());
    }
    Source::read(submission)
        .map_err(|error| format!("the script cannot be read any more: {}", Causes(&error)))
}
