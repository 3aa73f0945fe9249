//! Files without a name, in memory: in them components and compiled gates pass between a parent and its runner.
//!
//! The parent alone makes them. What it hands over is a [`MemoryFile`], sealed, so that nobody can change it any more.
//! What it wants to get is written into a [`Space`] of its own, which it seals before it looks at a byte of it: what was
//! checked is what is kept and loaded.
//!
//! All of it is read and written at offsets, because the position of a descriptor that two processes share means nothing,
//! and in pieces, because the heap of a parent that stays up for months keeps the size of the largest thing ever in it.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, fcntl_get_seals, memfd_create};
use rustix::io::Errno;

/// The most that a memory file holds, in bytes. A component has at most 32 MiB, and its compiled form a few times that.
pub const LARGEST: u64 = 96 << 20;

/// How much is read or written at a time.
pub(crate) const PIECE: usize = 64 << 10;

/// All of them: neither content nor length can change, and no seal can be added or removed.
const SEALED: SealFlags = SealFlags::SEAL
    .union(SealFlags::SHRINK)
    .union(SealFlags::GROW)
    .union(SealFlags::WRITE);

/// A sealed memory file: its bytes never change. Cloning gives another handle to the same one.
#[derive(Debug, Clone)]
pub struct MemoryFile {
    file: Arc<File>,
    length: u64,
}

impl MemoryFile {
    /// A file with these bytes.
    ///
    /// # Errors
    ///
    /// As [`Filling::new`] and [`Filling::add`].
    pub fn holding(bytes: &[u8]) -> io::Result<Self> {
        let mut filling = Filling::new()?;
        filling.add(bytes)?;
        filling.seal()
    }

    /// A descriptor that came from the parent.
    ///
    /// # Errors
    ///
    /// Where it is no sealed memory file, or too large.
    pub fn received(descriptor: OwnedFd) -> io::Result<Self> {
        let file = File::from(descriptor);
        if !fcntl_get_seals(&file)?.contains(SEALED) {
            return Err(io::Error::other("a file came that is not sealed"));
        }
        let length = length_of(&file)?;
        if length > LARGEST {
            return Err(too_large());
        }
        let file = Arc::new(file);
        Ok(Self { file, length })
    }

    /// Its length in bytes.
    #[must_use]
    pub const fn len(&self) -> u64 {
        self.length
    }

    /// Whether there is nothing in it.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Shows all of it, in order and in pieces.
    ///
    /// # Errors
    ///
    /// Where it cannot be read, and what `each` fails with.
    pub fn pieces(&self, mut each: impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
        let mut piece = vec![0; PIECE];
        let mut at = 0;
        while at < self.length {
            let left = usize::try_from(self.length - at).unwrap_or(usize::MAX);
            let piece = &mut piece[..left.min(PIECE)];
            self.file.read_exact_at(piece, at)?;
            each(piece)?;
            at += piece.len() as u64;
        }
        Ok(())
    }

    /// All of it on the heap: in a runner, which needs it there, and never in a parent.
    ///
    /// # Errors
    ///
    /// Where it cannot be read.
    pub fn to_vec(&self) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; usize::try_from(self.length).map_err(io::Error::other)?];
        self.file.read_exact_at(&mut bytes, 0)?;
        Ok(bytes)
    }

    /// What is sent along with a frame.
    pub(crate) fn descriptor(&self) -> Arc<File> {
        Arc::clone(&self.file)
    }
}

impl AsFd for MemoryFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// A memory file that is being filled. Nobody else has it yet.
#[derive(Debug)]
pub struct Filling {
    file: File,
    length: u64,
}

impl Filling {
    /// An empty one.
    ///
    /// # Errors
    ///
    /// Where the kernel makes none: it is too old, or descriptors or memory are used up.
    pub fn new() -> io::Result<Self> {
        let file = make()?;
        Ok(Self { file, length: 0 })
    }

    /// Adds bytes to its end.
    ///
    /// # Errors
    ///
    /// Where it would be larger than [`LARGEST`], or memory is used up.
    pub fn add(&mut self, bytes: &[u8]) -> io::Result<()> {
        let length = self.length + bytes.len() as u64;
        if length > LARGEST {
            return Err(too_large());
        }
        self.file.write_all_at(bytes, self.length)?;
        self.length = length;
        Ok(())
    }

    /// Ends it.
    ///
    /// # Errors
    ///
    /// Where the kernel does not seal it.
    pub fn seal(self) -> io::Result<MemoryFile> {
        fcntl_add_seals(&self.file, SEALED)?;
        Ok(MemoryFile {
            file: Arc::new(self.file),
            length: self.length,
        })
    }
}

/// A memory file that a runner writes its answer into. It has its full size from the start and cannot grow; what is not
/// written takes no memory.
#[derive(Debug)]
pub struct Space(Arc<File>);

impl Space {
    /// An empty one, for the parent.
    pub(crate) fn new() -> io::Result<Self> {
        let file = make()?;
        file.set_len(LARGEST)?;
        // A runner can make it shorter, which shows when it is sealed.
        fcntl_add_seals(&file, SealFlags::GROW)?;
        Ok(Self(Arc::new(file)))
    }

    /// A descriptor that came from the parent, for the runner.
    #[must_use]
    pub fn received(descriptor: OwnedFd) -> Self {
        Self(Arc::new(File::from(descriptor)))
    }

    /// Writes the answer and says how long it is.
    ///
    /// # Errors
    ///
    /// Where it is larger than [`LARGEST`], or memory is used up.
    pub fn fill(&self, answer: &[u8]) -> io::Result<u64> {
        let length = answer.len() as u64;
        if length > LARGEST {
            return Err(too_large());
        }
        self.0.write_all_at(answer, 0)?;
        Ok(length)
    }

    /// What is sent along with a frame.
    pub(crate) fn descriptor(&self) -> Arc<File> {
        Arc::clone(&self.0)
    }

    /// Takes the answer of a runner that says it has this length and content. From here on the runner cannot change it,
    /// whatever it kept.
    pub(crate) fn seal(self, length: u64, content: Content) -> Result<MemoryFile, SpaceError> {
        if length == 0 || length > LARGEST {
            return Err(SpaceError::Length(length));
        }
        let changed = |error: Errno| match error {
            Errno::PERM => SpaceError::Changed,
            error => SpaceError::File(error.into()),
        };
        // Where the runner has made it shorter than this, it cannot grow any more.
        rustix::fs::ftruncate(&self.0, length).map_err(changed)?;
        fcntl_add_seals(&self.0, SEALED).map_err(|error| match error {
            Errno::BUSY => SpaceError::Mapped,
            error => changed(error),
        })?;
        // It could be made shorter until it was sealed.
        if length_of(&self.0).map_err(SpaceError::File)? != length {
            return Err(SpaceError::Changed);
        }
        let mut start = [0; Content::START];
        match self.0.read_exact_at(&mut start, 0) {
            Ok(()) if start == content.start() => Ok(MemoryFile {
                file: self.0,
                length,
            }),
            Ok(()) => Err(SpaceError::Other(content)),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                Err(SpaceError::Other(content))
            }
            Err(error) => Err(SpaceError::File(error)),
        }
    }
}

/// What a runner was asked to write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    /// WebAssembly.
    Component,
    /// The compiled form, which is an ELF file.
    Artifact,
}

impl Content {
    const START: usize = 4;

    /// What it starts with. A file that nobody wrote into starts with zeros.
    const fn start(self) -> [u8; Self::START] {
        match self {
            Self::Component => *b"\0asm",
            Self::Artifact => *b"\x7fELF",
        }
    }
}

/// What a runner wrote is not taken.
#[derive(Debug, thiserror::Error)]
pub enum SpaceError {
    /// Nothing, or more than fits.
    #[error("it says that it wrote {0} bytes")]
    Length(u64),
    /// Shortened, or sealed by the runner.
    #[error("it changed the file that it was to write into")]
    Changed,
    /// It could go on writing.
    #[error("it keeps the file that it wrote into mapped")]
    Mapped,
    /// Something else than it was asked for.
    #[error("what it wrote is no {}", match .0 { Content::Component => "component", Content::Artifact => "compiled component" })]
    Other(Content),
    /// The kernel.
    #[error("what it wrote cannot be sealed and read")]
    File(#[source] io::Error),
}

fn make() -> io::Result<File> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    match memfd_create("sluice-gate", flags) {
        Ok(descriptor) => Ok(File::from(descriptor)),
        Err(Errno::NOSYS) => Err(io::Error::other(
            "this kernel has no memory files (memfd_create); gates need Linux 3.17 or newer",
        )),
        Err(error) => Err(io::Error::other(format!(
            "no memory file can be made: {}",
            io::Error::from(error)
        ))),
    }
}

/// With fstat(2) itself, which the walls let a runner call; the standard library asks with statx(2).
fn length_of(file: &File) -> io::Result<u64> {
    let length = rustix::fs::fstat(file)?.st_size;
    u64::try_from(length).map_err(io::Error::other)
}

fn too_large() -> io::Error {
    io::Error::new(
        io::ErrorKind::FileTooLarge,
        format!("it is larger than {} MiB", LARGEST >> 20),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const ELF: &[u8] = b"\x7fELF and more";

    /// A space, and the runner's end of it.
    fn space() -> (Space, File) {
        let space = Space::new().expect("makes");
        let runners = space.descriptor().try_clone().expect("clones");
        (space, runners)
    }

    fn bytes(file: &MemoryFile) -> Vec<u8> {
        let mut bytes = Vec::new();
        file.pieces(|piece| {
            bytes.extend_from_slice(piece);
            Ok(())
        })
        .expect("reads");
        bytes
    }

    #[test]
    fn a_sealed_file_holds_what_was_written_and_cannot_change() {
        let written: Vec<u8> = (0..3 * PIECE + 7).map(|at| at.to_le_bytes()[0]).collect();
        let file = MemoryFile::holding(&written).expect("makes");
        assert_eq!(file.len(), written.len() as u64);
        assert!(bytes(&file) == written && file.to_vec().expect("reads") == written);
        let theirs = file.descriptor();
        assert!(theirs.write_at(b"x", 0).is_err(), "written");
        assert!(theirs.set_len(1).is_err(), "shortened");
        assert!(theirs.set_len(1 << 20).is_err(), "made longer");
        assert_eq!(bytes(&file), written);
    }

    #[test]
    fn only_sealed_memory_files_are_received() {
        let sealed = MemoryFile::holding(b"x").expect("makes").descriptor();
        let sealed = sealed.try_clone().expect("clones");
        assert!(MemoryFile::received(sealed.into()).is_ok());
        let (_space, unsealed) = space();
        assert!(MemoryFile::received(unsealed.into()).is_err());
        let regular = tempfile::tempfile().expect("makes");
        assert!(MemoryFile::received(regular.into()).is_err());
    }

    #[test]
    fn nothing_larger_than_the_largest_is_made() {
        let mut filling = Filling::new().expect("makes");
        filling.length = LARGEST - 1;
        assert!(filling.add(b"x").is_ok());
        let error = filling.add(b"x").expect_err("is too large");
        assert_eq!(error.kind(), io::ErrorKind::FileTooLarge);
        let (space, _) = space();
        assert!(space.0.write_at(b"x", LARGEST).is_err(), "it grew");
    }

    #[test]
    fn an_answer_is_as_long_as_the_runner_says_and_the_runner_can_change_it_no_more() {
        let (space, runners) = space();
        let theirs = Space::received(runners.try_clone().expect("clones").into());
        assert_eq!(theirs.fill(ELF).expect("writes"), ELF.len() as u64);
        let answer = space
            .seal(ELF.len() as u64, Content::Artifact)
            .expect("seals");
        assert!(runners.write_at(b"x", 0).is_err(), "written");
        assert!(runners.set_len(1).is_err(), "shortened");
        assert_eq!(bytes(&answer), ELF);
        assert_eq!(answer.len(), ELF.len() as u64);
    }

    #[test]
    fn a_length_that_cannot_be_is_refused() {
        for length in [0, LARGEST + 1, u64::MAX] {
            let (space, runners) = space();
            runners.write_at(ELF, 0).expect("writes");
            let refused = space.seal(length, Content::Artifact);
            assert!(matches!(refused, Err(SpaceError::Length(_))), "{length}");
        }
    }

    #[test]
    fn a_space_that_the_runner_shortened_or_sealed_is_refused() {
        let (space, runners) = space();
        runners.write_at(ELF, 0).expect("writes");
        runners.set_len(8).expect("shortens");
        let refused = space.seal(ELF.len() as u64, Content::Artifact);
        assert!(matches!(refused, Err(SpaceError::Changed)), "{refused:?}");
        let (space, runners) = self::space();
        runners.write_at(ELF, 0).expect("writes");
        fcntl_add_seals(&runners, SealFlags::SEAL).expect("seals");
        let refused = space.seal(ELF.len() as u64, Content::Artifact);
        assert!(matches!(refused, Err(SpaceError::Changed)), "{refused:?}");
    }

    #[test]
    fn zeros_and_other_content_are_refused() {
        for (written, length) in [(&b""[..], 100), (b"\0asm", 100), (ELF, 3)] {
            let (space, runners) = space();
            runners.write_at(written, 0).expect("writes");
            let refused = space.seal(length, Content::Artifact);
            assert!(matches!(refused, Err(SpaceError::Other(_))), "{refused:?}");
        }
        let (space, runners) = space();
        runners.write_at(ELF, 0).expect("writes");
        let refused = space.seal(100, Content::Component);
        assert!(matches!(refused, Err(SpaceError::Other(_))), "{refused:?}");
    }
}
