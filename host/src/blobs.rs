//! Big bytes as files, named by their digest, in one folder for each tenant: `<data>/blobs/<tenant>/<sha256>`.
//!
//! A file has its mode (0600) before it has content, gets its name only when it is whole and on disk, and is never
//! changed afterwards.

use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use futures_util::{Stream, StreamExt as _};
use sha2::{Digest as _, Sha256};
use sluice_gate_client::Component;
use sluice_protocol::digest::Digest;
use sluice_protocol::ids::TenantId;
use tempfile::NamedTempFile;
use tokio::fs::File;

/// The folder.
#[derive(Debug, Clone)]
pub struct BlobStore {
    root: PathBuf,
}

impl BlobStore {
    /// The folder at `root`, which is created where it is missing.
    ///
    /// # Errors
    ///
    /// Where it cannot be created.
    pub fn open(root: &Path) -> Result<Self, BlobError> {
        create_dir(root)?;
        Ok(Self {
            root: root.to_owned(),
        })
    }

    /// Stores bytes that are in memory.
    ///
    /// # Errors
    ///
    /// Where they cannot be written.
    pub async fn put(&self, tenant: TenantId, bytes: Vec<u8>) -> Result<Digest, BlobError> {
        let dir = self.dir(tenant);
        blocking(move || {
            let sha256 = Digest::of(&bytes);
            let mut file = temporary(&dir)?;
            file.write_all(&bytes)
                .map_err(|source| BlobError::io(&dir, source))?;
            keep(file, &dir, sha256)?;
            Ok(sha256)
        })
        .await
    }

    /// Stores bytes as they come, up to `limit` of them.
    ///
    /// # Errors
    ///
    /// Where there are more, they stop coming, or they cannot be written. Nothing is left behind then.
    pub async fn put_stream<S, E>(
        &self,
        tenant: TenantId,
        mut bytes: S,
        limit: u64,
    ) -> Result<(Digest, u64), BlobError>
    where
        S: Stream<Item = Result<bytes::Bytes, E>> + Unpin,
    {
        let dir = self.dir(tenant);
        let mut file = {
            let dir = dir.clone();
            blocking(move || temporary(&dir)).await?
        };
        let (mut hash, mut size) = (Sha256::new(), 0_u64);
        while let Some(piece) = bytes.next().await {
            let piece = piece.map_err(|_| BlobError::Aborted)?;
            size += piece.len() as u64;
            if size > limit {
                return Err(BlobError::TooLarge(limit));
            }
            hash.update(&piece);
            let dir = dir.clone();
            file = blocking(move || {
                file.write_all(&piece)
                    .map_err(|source| BlobError::io(&dir, source))?;
                Ok(file)
            })
            .await?;
        }
        let sha256 = Digest::from_bytes(hash.finalize().into());
        blocking(move || keep(file, &dir, sha256)).await?;
        Ok((sha256, size))
    }

    /// All bytes of a blob that was stored.
    ///
    /// # Errors
    ///
    /// Where they are gone, or are other bytes by now.
    pub async fn read(&self, tenant: TenantId, sha256: Digest) -> Result<Vec<u8>, BlobError> {
        let path = self.dir(tenant).join(sha256.to_string());
        let bytes = tokio::fs::read(&path)
            .await
            .map_err(|source| BlobError::io(&path, source))?;
        if Digest::of(&bytes) == sha256 {
            Ok(bytes)
        } else {
            Err(BlobError::Damaged(path))
        }
    }

    /// A blob that was stored, as a component to bind.
    ///
    /// # Errors
    ///
    /// As [`Self::read`].
    pub async fn component(
        &self,
        tenant: TenantId,
        sha256: Digest,
    ) -> Result<Component, BlobError> {
        let path = self.dir(tenant).join(sha256.to_string());
        blocking(move || {
            let component =
                Component::open(&path).map_err(|source| BlobError::io(&path, source))?;
            if component.sha256() == *sha256.as_bytes() {
                Ok(component)
            } else {
                Err(BlobError::Damaged(path))
            }
        })
        .await
    }

    /// A blob that was stored, to read from its start. Who gets the bytes checks the digest.
    ///
    /// # Errors
    ///
    /// Where it is gone.
    pub async fn file(&self, tenant: TenantId, sha256: Digest) -> Result<File, BlobError> {
        let path = self.dir(tenant).join(sha256.to_string());
        File::open(&path)
            .await
            .map_err(|source| BlobError::io(&path, source))
    }

    fn dir(&self, tenant: TenantId) -> PathBuf {
        self.root.join(tenant.to_string())
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, BlobError> + Send + 'static,
) -> Result<T, BlobError> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|_| BlobError::Aborted)?
}

fn create_dir(path: &Path) -> Result<(), BlobError> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|source| BlobError::io(path, source))
}

fn temporary(dir: &Path) -> Result<NamedTempFile, BlobError> {
    create_dir(dir)?;
    tempfile::Builder::new()
        .prefix(".incoming-")
        .permissions(std::fs::Permissions::from_mode(0o600))
        .tempfile_in(dir)
        .map_err(|source| BlobError::io(dir, source))
}

fn keep(file: NamedTempFile, dir: &Path, sha256: Digest) -> Result<(), BlobError> {
    let path = dir.join(sha256.to_string());
    let io = |source| BlobError::io(&path, source);
    file.as_file().sync_all().map_err(io)?;
    // A blob of this name has these bytes already: replacing it changes nothing, and mends it where it was damaged.
    file.persist(&path).map_err(|error| io(error.error))?;
    std::fs::File::open(dir)
        .and_then(|dir| dir.sync_all())
        .map_err(io)
}

/// Bytes could not be stored or read.
#[derive(Debug, thiserror::Error)]
pub enum BlobError {
    /// More bytes than a blob may have.
    #[error("the file has more than the {0} bytes that one may have; nothing was stored")]
    TooLarge(u64),
    /// The sender stopped.
    #[error("the upload was broken off; nothing was stored")]
    Aborted,
    /// Somebody changed the file.
    #[error("{} holds other bytes than its name says", .0.display())]
    Damaged(PathBuf),
    /// The file system.
    #[error("cannot use {}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

impl BlobError {
    fn io(path: &Path, source: std::io::Error) -> Self {
        Self::Io {
            path: path.to_owned(),
            source,
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::stream;

    use super::*;

    fn pieces(
        pieces: &[&'static str],
    ) -> impl Stream<Item = Result<bytes::Bytes, std::io::Error>> + Unpin + use<> {
        stream::iter(
            pieces
                .iter()
                .map(|piece| Ok(bytes::Bytes::from_static(piece.as_bytes())))
                .collect::<Vec<_>>(),
        )
    }

    fn files(dir: &Path) -> Vec<PathBuf> {
        std::fs::read_dir(dir)
            .map(|entries| {
                entries
                    .map(|entry| entry.expect("an entry").path())
                    .collect()
            })
            .unwrap_or_default()
    }

    #[tokio::test]
    async fn bytes_come_back_to_their_tenant_alone() {
        let dir = tempfile::tempdir().expect("a directory");
        let blobs = BlobStore::open(&dir.path().join("blobs")).expect("opens");
        let (tenant, other) = (TenantId::generate(), TenantId::generate());
        let (sha256, size) = blobs
            .put_stream(tenant, pieces(&["ab", "c"]), 3)
            .await
            .expect("stores");
        assert_eq!((sha256, size), (Digest::of(b"abc"), 3));
        assert_eq!(
            blobs
                .put(tenant, b"abc".to_vec())
                .await
                .expect("stores again"),
            sha256
        );
        assert_eq!(blobs.read(tenant, sha256).await.expect("reads"), b"abc");
        assert!(blobs.read(other, sha256).await.is_err());
        let component = blobs.component(tenant, sha256).await.expect("reads");
        assert_eq!(component.sha256(), *sha256.as_bytes());
        assert!(blobs.component(other, sha256).await.is_err());
        let path = dir.path().join("blobs").join(tenant.to_string());
        assert_eq!(
            std::fs::metadata(&path)
                .expect("metadata")
                .permissions()
                .mode()
                & 0o777,
            0o700
        );
        let file = path.join(sha256.to_string());
        assert_eq!(
            std::fs::metadata(&file)
                .expect("metadata")
                .permissions()
                .mode()
                & 0o777,
            0o600
        );
        std::fs::write(&file, b"abd").expect("damages");
        assert!(matches!(
            blobs.read(tenant, sha256).await,
            Err(BlobError::Damaged(_))
        ));
        assert!(matches!(
            blobs.component(tenant, sha256).await,
            Err(BlobError::Damaged(_))
        ));
    }

    #[tokio::test]
    async fn what_is_too_large_or_broken_off_leaves_nothing() {
        let dir = tempfile::tempdir().expect("a directory");
        let blobs = BlobStore::open(dir.path()).expect("opens");
        let tenant = TenantId::generate();
        assert!(matches!(
            blobs.put_stream(tenant, pieces(&["ab", "cd"]), 3).await,
            Err(BlobError::TooLarge(3))
        ));
        let broken = stream::iter([
            Ok(bytes::Bytes::from_static(b"a")),
            Err(std::io::Error::other("gone")),
        ]);
        assert!(matches!(
            blobs.put_stream(tenant, broken, 3).await,
            Err(BlobError::Aborted)
        ));
        assert_eq!(
            files(&dir.path().join(tenant.to_string())),
            Vec::<PathBuf>::new()
        );
    }
}
