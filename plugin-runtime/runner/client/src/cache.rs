//! Compiled components on disk.
//!
//! Loading one is loading native code, so each file carries a keyed MAC. The key belongs to the parent and never reaches
//! a runner. A file is read once, in pieces, into a sealed memory file while its MAC is computed: what was checked is what
//! is handed on. Whatever does not check out is a miss: the component is compiled again.
//!
//! A file is the tag (32 bytes), the length of the head (four bytes, little endian), the head (CBOR) and the artifact.

use std::fs::{self, File};
use std::io::{self, Read, Write as _};
use std::os::unix::fs::{
    DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _,
};
use std::path::{Path, PathBuf};

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::{hmac, rand};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use sluice_gate_types::admission::Admitted;

use crate::memory_file::{Filling, LARGEST, MemoryFile, PIECE};
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
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    /// What admission said about the component.
    pub(crate) admitted: Admitted,
    /// Why the component is configured on every call, where it is.
    pub(crate) not_snapshotted: Option<String>,
    /// The compiled component.
    pub(crate) artifact: MemoryFile,
}

/// What stands before the artifact.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Head {
    admitted: Admitted,
    not_snapshotted: Option<String>,
}

/// A directory of compiled components, and the key for their MACs.
pub(crate) struct Cache {
    directory: PathBuf,
    key: hmac::Key,
}

const TAG: usize = 32;
/// The longest head. A manifest is a part of its component.
const LONGEST_HEAD: usize = 32 << 20;
/// The longest file.
const LONGEST: u64 = LARGEST + LONGEST_HEAD as u64;

impl Cache {
    /// Opens the cache in `directory`, which is made with mode 0700 where it does not exist; so is the key.
    pub(crate) fn open(directory: &Path) -> io::Result<Self> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory)?;
        // One that was there before may have been made by somebody who was less careful.
        fs::set_permissions(directory, fs::Permissions::from_mode(0o700))?;
        let path = directory.join("mac.key");
        let bytes = match read_key(&path)? {
            Some(bytes) => bytes,
            None => {
                let mut bytes = [0; TAG];
                rand::fill(&mut bytes)
                    .map_err(|_| io::Error::other("the system gave no randomness"))?;
                write_private(directory, &path, |file| file.write_all(&bytes))?;
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
        self.read(key).ok()?
    }

    /// Keeps an entry.
    pub(crate) fn put(&self, key: &Key, entry: &Entry) -> io::Result<()> {
        let head = wire::encode(&Head {
            admitted: entry.admitted.clone(),
            not_snapshotted: entry.not_snapshotted.clone(),
        })?;
        if head.len() > LONGEST_HEAD {
            return Err(io::Error::other("its manifest is too long"));
        }
        let mut mac = self.mac(key);
        mac.update(&head);
        entry.artifact.pieces(|piece| {
            mac.update(piece);
            Ok(())
        })?;
        let tag = mac.sign();
        write_private(&self.directory, &self.path(key), |file| {
            file.write_all(tag.as_ref())?;
            file.write_all(&head)?;
            entry.artifact.pieces(|piece| file.write_all(piece))
        })
    }

    fn read(&self, key: &Key) -> io::Result<Option<Entry>> {
        let Some(mut file) = open_private(&self.path(key), LONGEST)? else {
            return Ok(None);
        };
        let (mut tag, mut length) = ([0; TAG], [0; 4]);
        file.read_exact(&mut tag)?;
        file.read_exact(&mut length)?;
        let Ok(long) = usize::try_from(u32::from_le_bytes(length)) else {
            return Ok(None);
        };
        if long > LONGEST_HEAD {
            return Ok(None);
        }
        let mut head = Vec::new();
        if (&mut file).take(long as u64).read_to_end(&mut head)? < long {
            return Ok(None);
        }
        let mut mac = self.mac(key);
        mac.update(&length);
        mac.update(&head);
        let mut artifact = Filling::new()?;
        let mut piece = vec![0; PIECE];
        loop {
            let read = match file.read(&mut piece) {
                Ok(0) => break,
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            mac.update(&piece[..read]);
            artifact.add(&piece[..read])?;
        }
        if verify_slices_are_equal(mac.sign().as_ref(), &tag).is_err() {
            return Ok(None);
        }
        // Only what this process or one before it wrote is decoded.
        let head: Head = wire::decode(&head)?;
        Ok(Some(Entry {
            admitted: head.admitted,
            not_snapshotted: head.not_snapshotted,
            artifact: artifact.seal()?,
        }))
    }

    /// The MAC is over the key, the length of the head, the head and the artifact. The first two have fixed lengths, so
    /// that no bytes can go from one part to another.
    fn mac(&self, key: &Key) -> hmac::Context {
        let mut mac = hmac::Context::with_key(&self.key);
        for part in [
            b"sluice gate cache v2\0".as_slice(),
            &key.engine,
            &key.component,
            &key.configuration,
        ] {
            mac.update(part);
        }
        mac
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

/// The key for MACs, where there is one and it is ours.
fn read_key(path: &Path) -> io::Result<Option<[u8; TAG]>> {
    let Some(mut file) = open_private(path, TAG as u64)? else {
        return Ok(None);
    };
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(bytes.try_into().ok())
}

/// A file that is ours alone: no link, a regular file of our user, mode 0600 or tighter, of at most this length.
fn open_private(path: &Path, longest: u64) -> io::Result<Option<File>> {
    let file = fs::OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NOFOLLOW)
        .open(path);
    let file = match file {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let metadata = file.metadata()?;
    let ours = metadata.is_file()
        && metadata.uid() == nix::unistd::geteuid().as_raw()
        && metadata.mode() & 0o077 == 0;
    Ok((ours && metadata.len() <= longest).then_some(file))
}

/// Writes a new file with mode 0600 and moves it into place.
fn write_private(
    directory: &Path,
    path: &Path,
    write: impl FnOnce(&mut File) -> io::Result<()>,
) -> io::Result<()> {
    let mut file = tempfile::Builder::new()
        .permissions(fs::Permissions::from_mode(0o600))
        .tempfile_in(directory)?;
    write(file.as_file_mut())?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use sluice_gate_types::contract::Contract;
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
            contract: Contract::V0_1,
            imports: vec![],
            exports: vec![],
            size: 1,
        };
        Entry {
            admitted,
            not_snapshotted: None,
            artifact: MemoryFile::holding(&[9; 500]).expect("makes"),
        }
    }

    fn cache() -> (tempfile::TempDir, Cache) {
        let directory = tempfile::tempdir().expect("makes a directory");
        let cache = Cache::open(&directory.path().join("cache")).expect("opens");
        cache.put(&KEY, &entry()).expect("keeps");
        (directory, cache)
    }

    fn artifact(cache: &Cache, key: &Key) -> Option<Vec<u8>> {
        let entry = cache.get(key)?;
        Some(entry.artifact.to_vec().expect("reads"))
    }

    #[test]
    fn what_was_kept_is_found_also_by_the_next_process() {
        let (directory, cache) = cache();
        assert_eq!(artifact(&cache, &KEY), Some(vec![9; 500]));
        let next = Cache::open(&directory.path().join("cache")).expect("opens");
        assert_eq!(artifact(&next, &KEY), Some(vec![9; 500]));
        let there = next.get(&KEY).expect("is there");
        assert_eq!(there.admitted, entry().admitted);
        assert_eq!(there.not_snapshotted, None);
    }

    #[test]
    fn a_large_artifact_comes_back_as_it_was() {
        let (_directory, cache) = cache();
        let large: Vec<u8> = (0..(20 << 20) + 13_u32)
            .map(|at| at.wrapping_mul(2_654_435_761).to_le_bytes()[3])
            .collect();
        let kept = Entry {
            artifact: MemoryFile::holding(&large).expect("makes"),
            not_snapshotted: Some("why".to_owned()),
            ..entry()
        };
        cache.put(&KEY, &kept).expect("keeps");
        assert!(artifact(&cache, &KEY) == Some(large));
        let there = cache.get(&KEY).expect("is there");
        assert_eq!(there.not_snapshotted.as_deref(), Some("why"));
    }

    #[test]
    fn no_byte_goes_from_the_head_to_the_artifact_or_back() {
        let (_directory, cache) = cache();
        let path = cache.path(&KEY);
        let bytes = fs::read(&path).expect("reads");
        let at = TAG..TAG + 4;
        let length = u32::from_le_bytes(bytes[at.clone()].try_into().expect("four bytes"));
        for other in [
            0,
            1,
            length - 1,
            length + 1,
            length + 500,
            length + 501,
            u32::MAX,
        ] {
            let mut changed = bytes.clone();
            changed[at.clone()].copy_from_slice(&other.to_le_bytes());
            fs::write(&path, changed).expect("writes");
            // The MAC says no, before anything is decoded.
            assert!(matches!(cache.read(&KEY), Ok(None)), "{other} of {length}");
        }
        for (from, to) in [(TAG + 4, bytes.len() - 1), (bytes.len() - 500, TAG + 4)] {
            let mut changed = bytes.clone();
            let byte = changed.remove(from);
            changed.insert(to, byte);
            fs::write(&path, changed).expect("writes");
            assert!(matches!(cache.read(&KEY), Ok(None)), "from {from} to {to}");
        }
        fs::write(&path, &bytes).expect("writes");
        assert!(cache.get(&KEY).is_some());
    }

    #[test]
    fn longer_and_cut_files_are_misses() {
        let (_directory, cache) = cache();
        let path = cache.path(&KEY);
        let bytes = fs::read(&path).expect("reads");
        for length in [0, 1, TAG, TAG + 3, TAG + 4, TAG + 20, bytes.len() - 500] {
            fs::write(&path, &bytes[..length]).expect("writes");
            assert!(cache.get(&KEY).is_none(), "{length} bytes");
        }
        fs::write(&path, [bytes.as_slice(), &[0]].concat()).expect("writes");
        assert!(cache.get(&KEY).is_none(), "one more byte");
        let file = fs::OpenOptions::new()
            .write(true)
            .open(&path)
            .expect("opens");
        file.set_len(LONGEST + 1).expect("grows");
        assert!(cache.get(&KEY).is_none(), "too long");
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
