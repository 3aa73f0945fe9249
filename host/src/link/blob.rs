//! Big bytes for a machine: only those that an open operation or a binding of this very machine names.

use std::io::{ErrorKind, SeekFrom};

use sluice_protocol::digest::Digest;
use sluice_protocol::message::blob::Request;
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
            not_found(responder).await
        }
        Some(size) => match open(link, machine, &request, size).await {
            Ok(Some(file)) => responder
                .found(size, file)
                .await
                .map_err(|error| error.to_string()),
            Ok(None) => {
                tracing::error!(blob = %request.sha256, "the file of a blob is gone or has another size; what needs it fails until it is uploaded again");
                not_found(responder).await
            }
            Err(error) => Err(error.to_string()),
        },
    };
    if let Err(error) = sent {
        tracing::info!(machine = machine.name, blob = %request.sha256, error, "a blob was not sent whole");
    }
}

async fn not_found(responder: BlobResponder) -> Result<(), String> {
    let answered = responder.not_found().await;
    answered.map_err(|error| error.to_string())
}

/// The file of a blob, at the offset that was asked for; none where it is not what was stored. Asking again would not help
/// the machine then, while any other error may pass.
async fn open(
    link: &Link,
    machine: &Machine,
    request: &Request,
    size: u64,
) -> Result<Option<tokio::fs::File>, BlobError> {
    let failed = |source| BlobError::Io {
        path: request.sha256.to_string().into(),
        source,
    };
    let mut file = match link
        .host
        .blobs
        .file(machine.tenant.id, request.sha256)
        .await
    {
        Err(BlobError::Io { source, .. }) if source.kind() == ErrorKind::NotFound => {
            return Ok(None);
        }
        opened => opened?,
    };
    if file.metadata().await.map_err(failed)?.len() != size {
        return Ok(None);
    }
    file.seek(SeekFrom::Start(request.offset))
        .await
        .map_err(failed)?;
    Ok(Some(file))
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
