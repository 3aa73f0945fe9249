//! Blobs: fetched by digest, verified, and kept under that digest.

use std::io;
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};
use sluice_protocol::attachment::{LARGEST, LARGEST_TEXT};
use sluice_protocol::bundle::Attachment;
use sluice_protocol::digest::Digest;
use sluice_transport::agent::AgentConnection;
use sluice_transport::error::LinkError;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// How the names of files begin that are being fetched.
const PARTIAL: &str = "partial-";

/// The blobs of an agent.
#[derive(Debug, Clone)]
pub struct Blobs(PathBuf);

impl Blobs {
    /// Blobs in this directory.
    #[must_use]
    pub const fn new(directory: PathBuf) -> Self {
        Self(directory)
    }

    /// Where the blob is kept.
    #[must_use]
    pub fn path(&self, sha256: Digest) -> PathBuf {
        self.0.join(sha256.to_string())
    }

    /// Fetches the blob unless it is here, and verifies it in both cases.
    ///
    /// # Errors
    ///
    /// Where the host does not have it, or has something else.
    pub async fn ensure(
        &self,
        connection: &AgentConnection,
        sha256: Digest,
        size: u64,
    ) -> Result<PathBuf, BlobError> {
        let path = self.path(sha256);
        if let Some((actual, found)) = digest_of(&path).await
            && found == sha256
        {
            return if actual == size {
                Ok(path)
            } else {
                Err(BlobError::Size {
                    sha256,
                    announced: size,
                    actual,
                })
            };
        }
        if size > LARGEST {
            return Err(BlobError::TooLarge { sha256, size });
        }
        let (actual, mut reader) = connection
            .fetch(sha256, 0)
            .await?
            .ok_or(BlobError::NotFound(sha256))?;
        if actual != size {
            return Err(BlobError::Size {
                sha256,
                announced: size,
                actual,
            });
        }
        let temporary = tempfile::Builder::new()
            .prefix(PARTIAL)
            .tempfile_in(&self.0)?;
        let mut file = tokio::fs::File::from_std(temporary.reopen()?);
        let mut digest = Sha256::new();
        let mut buffer = vec![0; 64 << 10];
        // The reader gives no more than was announced, and takes more for the violation that it is.
        loop {
            let read = reader.read(&mut buffer).await;
            let length = read.map_err(BlobError::BrokenOff)?;
            if length == 0 {
                break;
            }
            digest.update(&buffer[..length]);
            file.write_all(&buffer[..length]).await?;
        }
        file.sync_all().await?;
        if Digest::from_bytes(digest.finalize().into()) != sha256 {
            return Err(BlobError::Digest(sha256));
        }
        temporary.persist(&path).map_err(|error| error.error)?;
        Ok(path)
    }

    /// Forgets a blob. One that is not there is no error.
    ///
    /// # Errors
    ///
    /// Where it cannot be removed.
    pub fn remove(&self, sha256: Digest) -> io::Result<()> {
        match std::fs::remove_file(self.path(sha256)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Removes what an earlier agent was fetching when it ended.
    ///
    /// # Errors
    ///
    /// Where the directory cannot be read, or a file not be removed.
    pub fn sweep(&self) -> io::Result<()> {
        for entry in std::fs::read_dir(&self.0)? {
            let entry = entry?;
            if entry
                .file_name()
                .as_encoded_bytes()
                .starts_with(PARTIAL.as_bytes())
            {
                std::fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    }

    /// The contents that gates see: up to [`LARGEST_TEXT`], with what is no UTF-8 replaced.
    ///
    /// # Errors
    ///
    /// Where a file cannot be read.
    pub async fn texts(&self, attachments: &[Attachment]) -> io::Result<Vec<(String, String)>> {
        let mut texts = Vec::new();
        for attachment in attachments
            .iter()
            .filter(|attachment| attachment.size <= LARGEST_TEXT)
        {
            let bytes = tokio::fs::read(self.path(attachment.sha256)).await?;
            // A byte that is no text must not hide the rest from a scanner.
            texts.push((
                attachment.name.clone(),
                String::from_utf8_lossy(&bytes).into_owned(),
            ));
        }
        Ok(texts)
    }
}

/// The size and digest of a file, read piece by piece; none where it cannot be read.
async fn digest_of(path: &Path) -> Option<(u64, Digest)> {
    let mut file = tokio::fs::File::open(path).await.ok()?;
    let (mut size, mut digest, mut buffer) = (0, Sha256::new(), vec![0; 64 << 10]);
    loop {
        let length = file.read(&mut buffer).await.ok()?;
        if length == 0 {
            return Some((size, Digest::from_bytes(digest.finalize().into())));
        }
        digest.update(&buffer[..length]);
        size += length as u64;
    }
}

/// A blob cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum BlobError {
    /// The host does not give it.
    #[error("the host does not have {0} for this machine")]
    NotFound(Digest),
    /// Other bytes than announced.
    #[error("what the host sent for {0} has another digest")]
    Digest(Digest),
    /// Another size than announced.
    #[error("{sha256} has {actual} bytes and not {announced}")]
    Size {
        /// Which.
        sha256: Digest,
        /// In bytes.
        announced: u64,
        /// In bytes.
        actual: u64,
    },
    /// Over the limit.
    #[error("{sha256} has {size} bytes, over the limit of {LARGEST}")]
    TooLarge {
        /// Which.
        sha256: Digest,
        /// In bytes.
        size: u64,
    },
    /// The link broke, or the host gave the stream up, before the first byte.
    #[error("it did not arrive: {0}")]
    Link(#[from] LinkError),
    /// The same, later.
    #[error("it broke off: {0}")]
    BrokenOff(#[source] io::Error),
    /// The disk.
    #[error("it cannot be kept: {0}")]
    Io(#[from] io::Error),
}

impl BlobError {
    /// Whether asking again helps: nothing is wrong with the blob, it has only not arrived.
    #[must_use]
    pub const fn is_broken_off(&self) -> bool {
        matches!(self, Self::Link(_) | Self::BrokenOff(_))
    }
}
