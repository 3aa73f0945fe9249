//! Big bytes for a machine: only those that an open operation or a binding of this very machine names.

use std::io::SeekFrom;

use sluice_protocol::digest::Digest;
use sluice_transport::blob::BlobResponder;
use tokio::io::AsyncSeekExt as _;

use super::Link;
use crate::blobs::BlobError;
use crate::jobs::Machine;
use crate::plugins;
use crate::store::{StoreError, bindings, blobs, machines, operations};

/// Answers one request.
pub(super) async fn serve(link: &Link, machine: &Machine, responder: BlobResponder) {
    let request = responder.request().clone();
    let size = match allowed_size(link, machine, request.sha256) {
        Ok(size) => size,
        Err(error) => {
            tracing::error!(%error, "a blob cannot be looked up; the machine asks again");
            return;
        }
    };
    let sent = match size {
        None => {
            tracing::info!(machine = machine.name, blob = %request.sha256, "a machine asked for a blob that is not its to have");
            responder
                .not_found()
                .await
                .map_err(|error| error.to_string())
        }
        Some(size) => match open(link, machine, request.sha256, request.offset).await {
            Ok(file) => responder
                .found(size, file)
                .await
                .map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        },
    };
    if let Err(error) = sent {
        tracing::info!(machine = machine.name, blob = %request.sha256, error, "a blob was not sent whole");
    }
}

async fn open(
    link: &Link,
    machine: &Machine,
    sha256: Digest,
    offset: u64,
) -> Result<tokio::fs::File, BlobError> {
    let mut file = link.host.blobs.file(machine.tenant.id, sha256).await?;
    file.seek(SeekFrom::Start(offset))
        .await
        .map_err(|source| BlobError::Io {
            path: sha256.to_string().into(),
            source,
        })?;
    Ok(file)
}

/// The size of a blob that the machine may have.
fn allowed_size(link: &Link, machine: &Machine, sha256: Digest) -> Result<Option<u64>, StoreError> {
    let tenant = machine.tenant.id;
    link.host.store.read(|conn| {
        let mut allowed = operations::open_names_attachment(conn, tenant, machine.id, sha256)?;
        if !allowed {
            let tags = machines::tags(conn, machine.id)?;
            allowed = bindings::list(conn, tenant)?
                .iter()
                .any(|binding| binding.component == sha256 && plugins::applies(binding, &tags));
        }
        if allowed {
            blobs::size(conn, tenant, sha256)
        } else {
            Ok(None)
        }
    })
}
