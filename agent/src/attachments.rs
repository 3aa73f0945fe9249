//! Blobs: fetched by digest, verified, and kept under that digest.
//!
//! What a broken link leaves of one stays as `partial-<sha256>` and is gone on with, over another link or by the next agent,
//! for as long as somebody waits for the blob.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use sha2::Digest as _;
use sluice_protocol::attachment::{LARGEST, LARGEST_TEXT};
use sluice_protocol::bundle::Attachment;
use sluice_protocol::digest::Digest;
use sluice_transport::agent::AgentConnection;
use sluice_transport::error::LinkError;
use tokio::io::AsyncReadExt as _;
use tokio::sync::OwnedMutexGuard;

use crate::partial::{self, Partial};

/// How the names of files begin that are being fetched.
const PARTIAL: &str = "partial-";

/// The blobs of an agent.
#[derive(Debug)]
pub struct Blobs {
    directory: PathBuf,
    /// Those that are being fetched, each by one after the other: who comes later finds it here.
    fetching: Mutex<HashMap<Digest, Weak<tokio::sync::Mutex<()>>>>,
}

impl Blobs {
    /// Blobs in this directory.
    #[must_use]
    pub fn new(directory: PathBuf) -> Self {
        Self {
            directory,
            fetching: Mutex::default(),
        }
    }

    /// Where the blob is kept.
    #[must_use]
    pub fn path(&self, sha256: Digest) -> PathBuf {
        self.directory.join(sha256.to_string())
    }

    /// Where the first bytes of the blob are until it is whole.
    fn partial(&self, sha256: Digest) -> PathBuf {
        self.directory.join(format!("{PARTIAL}{sha256}"))
    }

    /// Fetches the blob, or what is missing of it, unless it is here, and verifies it in any case.
    ///
    /// # Errors
    ///
    /// Where the host does not have it, or has something else; or it breaks off, and what has come by then is kept.
    pub async fn ensure(
        &self,
        connection: &AgentConnection,
        sha256: Digest,
        size: u64,
    ) -> Result<PathBuf, BlobError> {
        if size > LARGEST {
            return Err(BlobError::TooLarge { sha256, size });
        }
        let _turn = self.turn(sha256).await;
        let path = self.path(sha256);
        if let Some((actual, found)) = digest_of(&path).await
            && found == sha256
        {
            return is_as_announced(sha256, size, actual).map(|()| path);
        }
        match self.fetch(connection, sha256, size).await {
            Ok(()) => Ok(path),
            Err(error) => {
                if !error.can_be_gone_on_with() {
                    partial::remove(&self.partial(sha256))?;
                }
                Err(error)
            }
        }
    }

    /// Goes on with what is here. Where what comes of it is not the blob, that may have been wrong: all of it is then fetched
    /// once more.
    async fn fetch(
        &self,
        connection: &AgentConnection,
        sha256: Digest,
        size: u64,
    ) -> Result<(), BlobError> {
        let mut partial = Partial::open(self.partial(sha256), size).await?;
        let went_on = partial.length() > 0;
        receive(connection, sha256, size, &mut partial).await?;
        if went_on && !partial.is(sha256) {
            tracing::warn!(blob = %sha256, "what was here of a blob is not of it; it is fetched from its start");
            partial = Partial::anew(self.partial(sha256))?;
            receive(connection, sha256, size, &mut partial).await?;
        }
        if !partial.is(sha256) {
            return Err(BlobError::Digest(sha256));
        }
        Ok(partial.put(&self.path(sha256)).await?)
    }

    /// Waits until nobody else fetches this blob.
    async fn turn(&self, sha256: Digest) -> OwnedMutexGuard<()> {
        let turns = {
            let mut fetching = self.fetching();
            fetching.retain(|_, turns| turns.strong_count() > 0);
            let known = fetching.get(&sha256).and_then(Weak::upgrade);
            known.unwrap_or_else(|| {
                let turns = Arc::default();
                fetching.insert(sha256, Arc::downgrade(&turns));
                turns
            })
        };
        turns.lock_owned().await
    }

    /// Forgets a blob and what has come of it. One that is not there is no error.
    ///
    /// # Errors
    ///
    /// Where it cannot be removed.
    pub fn remove(&self, sha256: Digest) -> io::Result<()> {
        partial::remove(&self.path(sha256))?;
        partial::remove(&self.partial(sha256))
    }

    /// Removes what has come of blobs that nobody wants any more. What is being fetched stays.
    ///
    /// # Errors
    ///
    /// Where the directory cannot be read, or a file not be removed.
    pub fn sweep(&self, is_wanted: impl Fn(Digest) -> bool) -> io::Result<()> {
        let fetching = self.fetching();
        let is_fetched = |sha256| {
            let turns = fetching.get(&sha256);
            turns.is_some_and(|turns| turns.strong_count() > 0)
        };
        for entry in std::fs::read_dir(&self.directory)? {
            let entry = entry?;
            let name = entry.file_name();
            let Some(of) = name.to_str().and_then(|name| name.strip_prefix(PARTIAL)) else {
                continue;
            };
            let stays = |sha256| is_wanted(sha256) || is_fetched(sha256);
            if !of.parse().is_ok_and(stays) {
                partial::remove(&entry.path())?;
            }
        }
        Ok(())
    }

    fn fetching(&self) -> MutexGuard<'_, HashMap<Digest, Weak<tokio::sync::Mutex<()>>>> {
        self.fetching.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The contents that gates see: up to [`LARGEST_TEXT`], with what is no UTF-8 replaced.
    ///
    /// # Errors
    ///
    /// Where a file cannot be read, or has other bytes than were fetched.
    pub async fn texts(&self, attachments: &[Attachment]) -> io::Result<Vec<(String, String)>> {
        let mut texts = Vec::new();
        for attachment in attachments
            .iter()
            .filter(|attachment| attachment.size <= LARGEST_TEXT)
        {
            let bytes = read_verified(&self.path(attachment.sha256), attachment).await?;
            // A byte that is no text must not hide the rest from a scanner.
            texts.push((
                attachment.name.clone(),
                String::from_utf8_lossy(&bytes).into_owned(),
            ));
        }
        Ok(texts)
    }
}

/// Adds to `partial` what it lacks of the blob.
async fn receive(
    connection: &AgentConnection,
    sha256: Digest,
    size: u64,
    partial: &mut Partial,
) -> Result<(), BlobError> {
    if partial.length() == size {
        return Ok(());
    }
    let (actual, mut reader) = connection
        .fetch(sha256, partial.length())
        .await?
        .ok_or(BlobError::NotFound(sha256))?;
    is_as_announced(sha256, size, actual)?;
    let mut buffer = vec![0; 64 << 10];
    // The reader gives no more than was announced, and takes more for the violation that it is.
    loop {
        let read = reader.read(&mut buffer).await;
        match read {
            Ok(0) => return Ok(partial.flush().await?),
            Ok(length) => partial.append(&buffer[..length]).await?,
            Err(error) => {
                partial.flush().await?;
                return Err(BlobError::BrokenOff(error));
            }
        }
    }
}

const fn is_as_announced(sha256: Digest, announced: u64, actual: u64) -> Result<(), BlobError> {
    if actual == announced {
        return Ok(());
    }
    Err(BlobError::Size {
        sha256,
        announced,
        actual,
    })
}

/// The size and digest of a file; none where it cannot be read.
async fn digest_of(path: &Path) -> Option<(u64, Digest)> {
    let mut file = tokio::fs::File::open(path).await.ok()?;
    let (size, digest) = partial::read(&mut file).await.ok()?;
    Some((size, Digest::from_bytes(digest.finalize().into())))
}

/// The bytes of an attachment, if they are still those that were fetched.
async fn read_verified(path: &Path, attachment: &Attachment) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let file = tokio::fs::File::open(path).await?;
    // No more than shows that it is another file.
    file.take(attachment.size + 1)
        .read_to_end(&mut bytes)
        .await?;
    if bytes.len() as u64 == attachment.size && Digest::of(&bytes) == attachment.sha256 {
        Ok(bytes)
    } else {
        Err(io::Error::other(format!(
            "{} was changed after it was fetched",
            path.display()
        )))
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

    /// Whether what has come is worth keeping: the host did nothing wrong.
    fn can_be_gone_on_with(&self) -> bool {
        let link = match self {
            Self::Link(error) => Some(error),
            Self::BrokenOff(error) => error.get_ref().and_then(|error| error.downcast_ref()),
            _ => return false,
        };
        !matches!(link, Some(LinkError::Violation { .. }))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn attachment(name: &str, bytes: &[u8]) -> Attachment {
        Attachment {
            name: name.to_owned(),
            size: bytes.len() as u64,
            sha256: Digest::of(bytes),
        }
    }

    #[tokio::test]
    async fn gates_see_the_text_of_an_attachment_as_it_was_fetched_or_none_at_all() {
        let directory = tempfile::tempdir().unwrap();
        let blobs = Blobs::new(directory.path().to_owned());
        let attachments = [attachment("a", b"one"), attachment("b", b"two")];
        std::fs::write(blobs.path(attachments[0].sha256), "one").unwrap();
        let second = blobs.path(attachments[1].sha256);
        std::fs::write(&second, "two").unwrap();
        let texts = blobs.texts(&attachments).await.unwrap();
        let text = |name: &str, text: &str| (name.to_owned(), text.to_owned());
        assert_eq!(texts, [text("a", "one"), text("b", "two")]);
        for other in ["twO", "tw", "twos", ""] {
            std::fs::write(&second, other).unwrap();
            let error = blobs.texts(&attachments).await.unwrap_err().to_string();
            assert!(error.contains("was changed"), "{other}: {error}");
        }
    }

    #[tokio::test]
    async fn what_nobody_wants_is_swept_and_what_is_wanted_or_being_fetched_stays() {
        let directory = tempfile::tempdir().unwrap();
        let blobs = Blobs::new(directory.path().to_owned());
        let [wanted, fetched, neither] = [b"1", b"2", b"3"].map(|bytes| Digest::of(bytes));
        let turn = blobs.turn(fetched).await;
        let paths = [wanted, fetched, neither].map(|sha256| blobs.partial(sha256));
        let (odd, whole) = (directory.path().join("partial-Xy1"), blobs.path(neither));
        for path in paths.iter().chain([&odd, &whole]) {
            std::fs::write(path, "").unwrap();
        }
        let there = |path: &PathBuf| path.exists();
        blobs.sweep(|sha256| sha256 == wanted).unwrap();
        assert_eq!(paths.each_ref().map(there), [true, true, false]);
        assert!(!odd.exists() && whole.exists());
        drop(turn);
        blobs.sweep(|sha256| sha256 == wanted).unwrap();
        assert_eq!(paths.each_ref().map(there), [true, false, false]);
    }
}
