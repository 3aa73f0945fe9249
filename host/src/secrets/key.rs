//! The key that values are encrypted with in the database, and the file that it is in.

use std::fmt;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use aws_lc_rs::aead::{AES_256_GCM, Aad, Nonce, RandomizedNonceKey};
use aws_lc_rs::error::Unspecified;
use sluice_protocol::codec;
use sluice_protocol::ids::TenantId;
use zeroize::Zeroizing;

use crate::random::{self, NoRandomness};
use crate::store::{Store, StoreError, secrets};

const KEY: usize = 32;
const NONCE: usize = 12;
const LABEL: &str = "sluice secret 1";

/// Encrypts values with AES-256-GCM and a random nonce; tenant, name and version are authenticated with each.
pub struct SecretsKey(RandomizedNonceKey);

impl SecretsKey {
    /// The key in the file at `path`, which is made where there are no values yet that another key was for.
    ///
    /// # Errors
    ///
    /// Where the file cannot be used, or is missing while there are values.
    pub fn open(path: &Path, store: &Store) -> Result<Self, KeyError> {
        match Self::read(path) {
            Err(KeyError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                if store.read(secrets::any_value)? {
                    return Err(KeyError::Lost(path.to_owned()));
                }
                Self::make(path)
            }
            read => read,
        }
    }

    fn read(path: &Path) -> Result<Self, KeyError> {
        let io = |source| KeyError::Io {
            path: path.to_owned(),
            source,
        };
        let mut file = File::open(path).map_err(io)?;
        let mode = file.metadata().map_err(io)?.mode();
        if mode & 0o077 != 0 {
            return Err(KeyError::Open {
                path: path.to_owned(),
                mode: mode & 0o777,
            });
        }
        let mut bytes = Zeroizing::new(Vec::with_capacity(KEY + 1));
        let mut limited = (&mut file).take(KEY as u64 + 1);
        limited.read_to_end(&mut bytes).map_err(io)?;
        Self::new(&bytes).map_err(|Unspecified| KeyError::Damaged(path.to_owned()))
    }

    fn make(path: &Path) -> Result<Self, KeyError> {
        let io = |source| KeyError::Io {
            path: path.to_owned(),
            source,
        };
        let bytes = Zeroizing::new(random::bytes::<KEY>()?);
        let folder = path.parent().unwrap_or(Path::new("."));
        // For its owner alone (0600) from the beginning, and whole or not there.
        let mut file = tempfile::NamedTempFile::new_in(folder).map_err(io)?;
        file.write_all(bytes.as_slice()).map_err(io)?;
        file.as_file().sync_all().map_err(io)?;
        file.persist_noclobber(path)
            .map_err(|error| io(error.error))?;
        File::open(folder)
            .and_then(|folder| folder.sync_all())
            .map_err(io)?;
        Self::new(bytes.as_slice()).map_err(|Unspecified| KeyError::Damaged(path.to_owned()))
    }

    fn new(bytes: &[u8]) -> Result<Self, Unspecified> {
        RandomizedNonceKey::new(&AES_256_GCM, bytes).map(Self)
    }

    /// A key of its own for a test.
    #[cfg(test)]
    pub(crate) fn for_test() -> Self {
        Self::new(&[7; KEY]).expect("is long enough")
    }

    /// Encrypts a value.
    ///
    /// # Errors
    ///
    /// Where the system has no randomness.
    pub(super) fn encrypt(
        &self,
        tenant: TenantId,
        name: &str,
        version: u64,
        value: &[u8],
    ) -> Result<Vec<u8>, NoRandomness> {
        let mut text = Zeroizing::new(value.to_vec());
        let sealed = associated(tenant, name, version).and_then(|associated| {
            self.0
                .seal_in_place_separate_tag(associated, text.as_mut_slice())
        });
        let (nonce, tag) = sealed.map_err(|Unspecified| NoRandomness)?;
        Ok([nonce.as_ref(), text.as_slice(), tag.as_ref()].concat())
    }

    /// Decrypts a value; none where it is not that of this name and version, or was encrypted with another key.
    pub(super) fn decrypt(
        &self,
        tenant: TenantId,
        name: &str,
        version: u64,
        encrypted: &[u8],
    ) -> Option<Zeroizing<Vec<u8>>> {
        let (nonce, text) = encrypted.split_at_checked(NONCE)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let mut value = Zeroizing::new(text.to_vec());
        let associated = associated(tenant, name, version).ok()?;
        let length = self
            .0
            .open_in_place(nonce, associated, &mut value)
            .ok()?
            .len();
        value.truncate(length);
        Some(value)
    }
}

fn associated(tenant: TenantId, name: &str, version: u64) -> Result<Aad<Vec<u8>>, Unspecified> {
    codec::encode(&(LABEL, tenant, name, version))
        .map(Aad::from)
        .map_err(|_| Unspecified)
}

impl fmt::Debug for SecretsKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SecretsKey").finish_non_exhaustive()
    }
}

/// The key of a host's secrets cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file system.
    #[error("cannot use {}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Others can read it.
    #[error("{} can be read by others (mode {mode:o}); run: chmod 600 {}", path.display(), path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// Of another length.
    #[error("{} holds no key of this host's secrets", .0.display())]
    Damaged(PathBuf),
    /// It was there.
    #[error("{} is missing, and the secrets in the database cannot be used without it; bring it back from where its copy is", .0.display())]
    Lost(PathBuf),
    /// No new key.
    #[error(transparent)]
    Random(#[from] NoRandomness),
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
}
