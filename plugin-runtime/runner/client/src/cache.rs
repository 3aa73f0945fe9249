//! Compiled components on disk.
//!
//! Loading one is loading native code, so each file carries a keyed MAC. The key belongs to the parent and never reaches
//! a runner; the file is read once, and the buffer whose MAC was checked is the one that is handed on. Whatever does not
//! check out is a miss: the component is compiled again.

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use aws_lc_rs::{hmac, rand};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use sluice_gate_types::admission::Admitted;

use crate::wire;

/// What a compiled component is found by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    /// The engine's compatibility.
    pub(crate) engine: [u8; 32],
    /// The digest of the component.
    pub(crate) component: [u8; 32],
    /// The digest of settings and data packs.
    pub(crate) configuration: [u8; 32],
}

/// What is kept.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Entry {
    /// What admission said about the component.
    pub(crate) admitted: Admitted,
    /// Why the component is configured on every call, where it is.
    pub(crate) not_snapshotted: Option<String>,
    /// The compiled component.
    #[serde(with = "serde_bytes")]
    pub(crate) artifact: Vec<u8>,
}

/// A directory of compiled components, and the key for their MACs.
pub(crate) struct Cache {
    directory: PathBuf,
    key: hmac::Key,
}

const TAG: usize = 32;

impl Cache {
    /// Opens the cache in `directory`, which is made with mode 0700 where it does not exist; so is the key.
    pub(crate) fn open(directory: &Path) -> io::Result<Self> {
        match fs::create_dir_all(directory) {
            Ok(()) => fs::set_permissions(directory, fs::Permissions::from_mode(0o700))?,
            Err(error) => return Err(error),
        }
        let path = directory.join("mac.key");
        let bytes = match read_private(&path)? {
            Some(bytes) if bytes.len() == TAG => bytes,
            _ => {
                let mut bytes = vec![0; TAG];
                rand::fill(&mut bytes)
                    .map_err(|_| io::Error::other("the system gave no randomness"))?;
                write_private(directory, &path, &bytes)?;
                bytes
            }
        };
        Ok(Self {
            directory: directory.to_owned(),
            key: hmac::Key::new(hmac::HMAC_SHA256, &bytes),
        })
    }

    /// The entry for `key`, if there is one that nobody touched.
    pub(crate) fn get(&self, key: &Key) -> Option<Entry> {
        let bytes = read_private(&self.path(key)).ok()??;
        let (tag, body) = bytes.split_at_checked(TAG)?;
        hmac::verify(&self.key, &signed(key, body), tag).ok()?;
        wire::decode(body).ok()
    }

    /// Keeps an entry.
    pub(crate) fn put(&self, key: &Key, entry: &Entry) -> io::Result<()> {
        let frame = wire::encode(entry)?;
        let body = &frame[4..];
        let tag = hmac::sign(&self.key, &signed(key, body));
        write_private(
            &self.directory,
            &self.path(key),
            &[tag.as_ref(), body].concat(),
        )
    }

    fn path(&self, key: &Key) -> PathBuf {
        let name = Sha256::new()
            .chain_update(key.engine)
            .chain_update(key.component)
            .chain_update(key.configuration);
        self.directory
            .join(format!("{}.gate", hex::encode(name.finalize())))
    }
}

/// What the MAC is over: the key and the digest of the body.
fn signed(key: &Key, body: &[u8]) -> Vec<u8> {
    let digest = Sha256::digest(body);
    [
        b"sluice gate cache v1\0".as_slice(),
        &key.engine,
        &key.component,
        &key.configuration,
        &digest,
    ]
    .concat()
}

/// The bytes of a file that is ours alone: no link, a regular file of our user, mode 0600 or tighter.
fn read_private(path: &Path) -> io::Result<Option<Vec<u8>>> {
    let file = fs::OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NOFOLLOW)
        .open(path);
    let mut file = match file {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let metadata = file.metadata()?;
    let ours = metadata.is_file()
        && metadata.uid() == nix::unistd::geteuid().as_raw()
        && metadata.mode() & 0o077 == 0;
    if !ours || metadata.len() > wire::MAX_FRAME as u64 {
        return Ok(None);
    }
    let mut bytes = Vec::with_capacity(usize::try_from(metadata.len()).unwrap_or(0));
    file.read_to_end(&mut bytes)?;
    Ok(Some(bytes))
}

/// Writes a new file with mode 0600 and moves it into place.
fn write_private(directory: &Path, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = tempfile::Builder::new()
        .permissions(fs::Permissions::from_mode(0o600))
        .tempfile_in(directory)?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use sluice_gate_types::manifest::Manifest;

    use super::*;

    const KEY: Key = Key {
        engine: [1; 32],
        component: [2; 32],
        configuration: [3; 32],
    };

    fn entry() -> Entry {
        let manifest = Manifest::parse(
            "id='a'\nversion='0.1.0'\nvendor='v'\nworld='scanner-plugin'\nminimum_runtime='0.1.0'",
        );
        let admitted = Admitted {
            manifest: manifest.expect("parses"),
            imports: vec![],
            exports: vec![],
            size: 1,
        };
        Entry {
            admitted,
            not_snapshotted: None,
            artifact: vec![9; 500],
        }
    }

    fn cache() -> (tempfile::TempDir, Cache) {
        let directory = tempfile::tempdir().expect("makes a directory");
        let cache = Cache::open(&directory.path().join("cache")).expect("opens");
        cache.put(&KEY, &entry()).expect("keeps");
        (directory, cache)
    }

    #[test]
    fn what_was_kept_is_found_also_by_the_next_process() {
        let (directory, cache) = cache();
        assert_eq!(
            cache.get(&KEY).expect("is there").artifact,
            entry().artifact
        );
        let next = Cache::open(&directory.path().join("cache")).expect("opens");
        assert_eq!(next.get(&KEY).expect("is there").artifact, entry().artifact);
    }

    #[test]
    fn one_flipped_bit_anywhere_is_a_miss() {
        let (_directory, cache) = cache();
        let path = cache.path(&KEY);
        let bytes = fs::read(&path).expect("reads");
        for at in (0..bytes.len()).step_by(7).chain(0..40) {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            fs::write(&path, changed).expect("writes");
            assert!(cache.get(&KEY).is_none(), "byte {at}");
        }
        fs::write(&path, &bytes[..bytes.len() - 1]).expect("writes");
        assert!(cache.get(&KEY).is_none());
        fs::write(&path, bytes).expect("writes");
        assert!(cache.get(&KEY).is_some());
    }

    #[test]
    fn swapped_foreign_linked_and_loose_files_are_misses() {
        let (_directory, cache) = cache();
        let other = Key {
            configuration: [4; 32],
            ..KEY
        };
        fs::copy(cache.path(&KEY), cache.path(&other)).expect("copies");
        assert!(cache.get(&other).is_none(), "swapped");
        let (_other_directory, foreign) = self::cache();
        fs::copy(foreign.path(&KEY), cache.path(&KEY)).expect("copies");
        assert!(cache.get(&KEY).is_none(), "another machine's");
        cache.put(&KEY, &entry()).expect("keeps");
        fs::set_permissions(cache.path(&KEY), fs::Permissions::from_mode(0o644)).expect("changes");
        assert!(cache.get(&KEY).is_none(), "loose mode");
        cache.put(&other, &entry()).expect("keeps");
        cache.put(&KEY, &entry()).expect("keeps");
        fs::rename(cache.path(&KEY), cache.directory.join("x")).expect("moves");
        std::os::unix::fs::symlink(cache.directory.join("x"), cache.path(&KEY)).expect("links");
        assert!(cache.get(&KEY).is_none(), "symbolic link");
    }
}
