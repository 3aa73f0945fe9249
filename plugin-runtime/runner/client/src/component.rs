//! A component on its way to being bound.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use crate::memory_file::{Filling, MemoryFile, PIECE};

/// A component in a sealed memory file. Its digest is of the very bytes that are compiled, whatever becomes of where they
/// were read from.
#[derive(Debug, Clone)]
pub struct Component {
    pub(crate) file: MemoryFile,
    sha256: [u8; 32],
    origin: Option<PathBuf>,
}

impl Component {
    /// Reads a component to its end.
    ///
    /// # Errors
    ///
    /// Where it cannot be read, is larger than any component may be, or no memory file can be made.
    pub fn read(mut from: impl Read) -> io::Result<Self> {
        let mut filling = Filling::new()?;
        let mut digest = Sha256::new();
        let mut piece = vec![0; PIECE];
        loop {
            match from.read(&mut piece) {
                Ok(0) => break,
                Ok(length) => {
                    digest.update(&piece[..length]);
                    filling.add(&piece[..length])?;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Self {
            file: filling.seal()?,
            sha256: digest.finalize().into(),
            origin: None,
        })
    }

    /// Reads the component in a file, where it can be read again when its compiled form is gone.
    ///
    /// # Errors
    ///
    /// As [`Self::read`].
    pub fn open(path: &Path) -> io::Result<Self> {
        let mut component = Self::read(File::open(path)?)?;
        component.origin = Some(path.to_owned());
        Ok(component)
    }

    /// Where it can be read again.
    pub(crate) fn origin(&self) -> Option<&Path> {
        self.origin.as_deref()
    }

    /// The digest of its bytes.
    #[must_use]
    pub const fn sha256(&self) -> [u8; 32] {
        self.sha256
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_is_that_of_the_bytes_in_the_file() {
        let bytes: Vec<u8> = (0..2 * PIECE + 9).map(|at| at.to_le_bytes()[0]).collect();
        let component = Component::read(bytes.as_slice()).expect("reads");
        let held = component.file.to_vec().expect("reads");
        assert_eq!(component.sha256(), <[u8; 32]>::from(Sha256::digest(&held)));
        assert!(held == bytes);
    }
}
