//! Uploading attachments before the job that names them.

use std::path::{Path, PathBuf};

use reqwest::Method;
use sha2::{Digest as _, Sha256};
use sluice_api_types::blob::Blob;
use sluice_api_types::job::{AttachmentRef, SubmitJob};
use sluice_protocol::attachment;
use sluice_protocol::digest::Digest;
use tokio::io::AsyncReadExt as _;

use super::arguments::Prepared;
use crate::error::Error;
use crate::host::Client;

impl Prepared {
    /// Uploads the attachments: the request is whole then.
    pub(crate) async fn upload(self, client: &Client) -> Result<SubmitJob, Error> {
        let mut request = self.request;
        check(&self.attachments).await?;
        for (name, path) in self.attachments {
            let uploaded = upload(client, request.tenant.as_deref(), name, &path).await?;
            request.attachments.push(uploaded);
        }
        Ok(request)
    }
}

/// Refuses before anything is uploaded what the host would refuse afterwards.
async fn check(attachments: &[(String, PathBuf)]) -> Result<(), Error> {
    let mut given = Vec::new();
    for (name, path) in attachments {
        given.push((name.as_str(), regular_file(path).await?));
    }
    attachment::check(given).map_err(|refused| Error::Usage(format!("{refused}; nothing was sent")))
}

/// The size of a file, which has to be a regular one.
async fn regular_file(path: &Path) -> Result<u64, Error> {
    let metadata = tokio::fs::metadata(path).await.map_err(Error::read(path))?;
    if metadata.is_file() {
        return Ok(metadata.len());
    }
    Err(Error::Content {
        path: path.to_owned(),
        problem: "not a regular file; nothing was sent".to_owned(),
    })
}

/// Uploads one file. What the host stored must be what was read here before.
async fn upload(
    client: &Client,
    tenant: Option<&str>,
    name: String,
    path: &Path,
) -> Result<AttachmentRef, Error> {
    regular_file(path).await?;
    let (sha256, size) = digest(path).await?;
    let file = tokio::fs::File::open(path)
        .await
        .map_err(Error::read(path))?;
    let request = client
        .request(Method::PUT, &["blobs"])?
        .query(&[("tenant", tenant)])
        .bytes(file, size);
    let blob: Blob = request.json().await?;
    if blob.sha256 != sha256 || blob.size != size {
        let problem = "changed while it was uploaded; no job was submitted, try again".to_owned();
        return Err(Error::Content {
            path: path.to_owned(),
            problem,
        });
    }
    Ok(AttachmentRef { name, sha256, size })
}

async fn digest(path: &Path) -> Result<(Digest, u64), Error> {
    let mut file = tokio::fs::File::open(path)
        .await
        .map_err(Error::read(path))?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 256 << 10];
    let mut size = 0;
    loop {
        let read = file.read(&mut buffer).await.map_err(Error::read(path))?;
        if read == 0 {
            return Ok((Digest::from_bytes(hasher.finalize().into()), size));
        }
        hasher.update(&buffer[..read]);
        size += read as u64;
    }
}
