//! The first bytes of a blob that is not whole yet.
//!
//! They outlive the link over which they came and the agent that wrote them. Nobody believes them: what is on the disk is
//! read again each time that more is asked for, and what comes of it must have the blob's digest.

use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};
use sluice_protocol::digest::Digest;
use tokio::fs::File;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// A file with the first bytes of a blob.
pub(crate) struct Partial {
    path: PathBuf,
    /// Stands at its end.
    file: File,
    length: u64,
    digest: Sha256,
}

impl Partial {
    /// The file as it is, or a new one where there is none, or one that is longer than the blob, of `size` bytes.
    ///
    /// # Errors
    ///
    /// Where it cannot be made or read.
    pub(crate) async fn open(path: PathBuf, size: u64) -> io::Result<Self> {
        let mut file = open(&path)?;
        let metadata = file.metadata().await?;
        if !metadata.is_file() {
            return Err(io::Error::other("something else has the name of its file"));
        }
        if metadata.len() > size {
            return Self::anew(path);
        }
        let (length, digest) = read(&mut file).await?;
        Ok(Self {
            path,
            file,
            length,
            digest,
        })
    }

    /// An empty file in place of whatever is there.
    ///
    /// # Errors
    ///
    /// Where it cannot be made.
    pub(crate) fn anew(path: PathBuf) -> io::Result<Self> {
        remove(&path)?;
        Ok(Self {
            file: open(&path)?,
            path,
            length: 0,
            digest: Sha256::new(),
        })
    }

    /// How many bytes are here.
    pub(crate) const fn length(&self) -> u64 {
        self.length
    }

    /// Whether what is here is the whole of this blob.
    pub(crate) fn is(&self, sha256: Digest) -> bool {
        Digest::from_bytes(self.digest.clone().finalize().into()) == sha256
    }

    /// Adds what comes next.
    ///
    /// # Errors
    ///
    /// Where it cannot be written.
    pub(crate) async fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes).await?;
        self.digest.update(bytes);
        self.length += bytes.len() as u64;
        Ok(())
    }

    /// Waits until all of it is written.
    ///
    /// # Errors
    ///
    /// Where it could not be.
    pub(crate) async fn flush(&mut self) -> io::Result<()> {
        self.file.flush().await
    }

    /// Puts the whole blob to its place.
    ///
    /// # Errors
    ///
    /// Where it cannot be put on disk.
    pub(crate) async fn put(self, place: &Path) -> io::Result<()> {
        self.file.sync_all().await?;
        std::fs::rename(&self.path, place)
    }
}

/// Removes the file. One that is not there is no error.
pub(crate) fn remove(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// How many bytes the rest of a file has, and their digest so far, read piece by piece.
pub(crate) async fn read(file: &mut File) -> io::Result<(u64, Sha256)> {
    let (mut length, mut digest, mut buffer) = (0, Sha256::new(), vec![0; 64 << 10]);
    loop {
        let read = file.read(&mut buffer).await?;
        if read == 0 {
            return Ok((length, digest));
        }
        digest.update(&buffer[..read]);
        length += read as u64;
    }
}

/// Not in the background: who gives up waiting for a blob leaves no file that appears afterwards.
fn open(path: &Path) -> io::Result<File> {
    let mut options = std::fs::OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    let file = options
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW)
        .open(path)?;
    Ok(File::from_std(file))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[tokio::test]
    async fn what_is_here_is_gone_on_with_where_it_ends_and_counts_as_it_is_on_the_disk() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("partial");
        let mut first = Partial::open(path.clone(), 6).await.unwrap();
        assert_eq!(first.length(), 0);
        first.append(b"abc").await.unwrap();
        first.flush().await.unwrap();
        drop(first);
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        for (changed, fits) in [("abc", true), ("abd", false)] {
            std::fs::write(&path, changed).unwrap();
            let mut next = Partial::open(path.clone(), 6).await.unwrap();
            assert_eq!(next.length(), 3);
            assert!(!next.is(Digest::of(b"abcdef")));
            next.append(b"def").await.unwrap();
            next.flush().await.unwrap();
            assert_eq!(next.is(Digest::of(b"abcdef")), fits);
        }
        let whole = directory.path().join("whole");
        let partial = Partial::open(path.clone(), 6).await.unwrap();
        partial.put(&whole).await.unwrap();
        assert_eq!(std::fs::read(&whole).unwrap(), b"abddef");
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn what_is_longer_than_the_blob_is_begun_anew() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("partial");
        std::fs::write(&path, "abcd").unwrap();
        let longer = Partial::open(path.clone(), 3).await.unwrap();
        assert_eq!(longer.length(), 0);
        assert!(longer.is(Digest::of(b"")));
        assert_eq!(std::fs::read(&path).unwrap(), b"");
    }

    #[tokio::test]
    async fn nothing_is_written_through_a_link() {
        let directory = tempfile::tempdir().unwrap();
        let (path, other) = (
            directory.path().join("partial"),
            directory.path().join("other"),
        );
        std::os::unix::fs::symlink(&other, &path).unwrap();
        assert!(Partial::open(path.clone(), 3).await.is_err());
        assert!(!other.exists());
        drop(Partial::anew(path).unwrap());
        assert!(!other.exists());
    }
}
