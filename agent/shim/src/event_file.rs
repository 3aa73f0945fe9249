//! Events in a file, read piece by piece while it grows.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::event::Event;
use crate::frame::{Decoder, FrameError};
use crate::spool::SpoolError;

/// How much is read at a time.
const PIECE: usize = 64 * 1024;

/// A file of frames. What is in memory of it is one frame and one piece.
#[derive(Debug)]
pub struct EventFile {
    path: PathBuf,
    file: Option<File>,
    decoder: Decoder,
    damage: Option<FrameError>,
}

impl EventFile {
    /// From its beginning, once it is there.
    pub(crate) fn new(path: PathBuf) -> Self {
        Self {
            path,
            file: None,
            decoder: Decoder::default(),
            damage: None,
        }
    }

    /// The next event, none where there is none yet. After something that is no event, which a crash or a shim of another
    /// version leaves, there is no other.
    ///
    /// # Errors
    /// The file cannot be read for another reason than that it is not there.
    pub fn next_event(&mut self) -> Result<Option<Event>, SpoolError> {
        while self.damage.is_none() {
            match self.decoder.next_event() {
                Ok(Some(event)) => return Ok(Some(event)),
                Ok(None) if self.read()? => {}
                Ok(None) => return Ok(None),
                Err(error) => self.damage = Some(error),
            }
        }
        Ok(None)
    }

    /// What was found that is no event.
    #[must_use]
    pub const fn damage(&self) -> Option<&FrameError> {
        self.damage.as_ref()
    }

    fn read(&mut self) -> Result<bool, SpoolError> {
        let file = match &mut self.file {
            Some(file) => file,
            none => match open(&self.path) {
                Ok(file) => none.insert(file),
                Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
                Err(source) => return Err(failed(&self.path, source)),
            },
        };
        let mut piece = vec![0; PIECE];
        let length = loop {
            match file.read(&mut piece) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                read => break read.map_err(|source| failed(&self.path, source))?,
            }
        };
        self.decoder.push(&piece[..length]);
        Ok(length > 0)
    }
}

fn open(path: &Path) -> std::io::Result<File> {
    OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NOFOLLOW)
        .open(path)
}

fn failed(path: &Path, source: std::io::Error) -> SpoolError {
    SpoolError::Io {
        what: "read",
        path: path.to_owned(),
        source,
    }
}
