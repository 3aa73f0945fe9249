//! The spool as it is written: what must stay, and the tail of an output that is over its limit.
//!
//! ```text
//! <spool>/events   everything, in order; of the output what fits the limit
//! <spool>/tail-1   output beyond that, in files that are removed once what came after them is all that is kept
//! <spool>/tail-2   ...
//! ```
//! Files only grow until they are removed, so who reads them (`kept`) needs no lock. One that is removed is emptied too,
//! so that nobody who has it open keeps its room. They take at most twice the limit and a MiB on disk.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{Error, Result, Write};
use std::path::{Path, PathBuf};

use crate::event::{Event, HeadFull};
use crate::output::{Place, index};
use crate::{frame, spool};

/// The tail is in so many full files, and one more that grows. Each full one has at least this part of it.
const PARTS: u64 = 4;
/// Smaller files would be made too often.
const SMALLEST_PART: u64 = 64 * 1024;

/// The files of one spool.
pub(crate) struct Record {
    directory: PathBuf,
    events: Part,
    tail: VecDeque<Part>,
    /// The number of the last file of the tail; they are counted from 1.
    last: u64,
    /// How much output goes into a file of the tail.
    part: u64,
    /// How far each stream is, the tail included.
    positions: [u64; 2],
    /// A write failed and could not be undone: nothing may follow it.
    torn: bool,
    /// The names of the files are not known to be on disk.
    names: bool,
}

/// A file that only grows.
struct Part {
    file: File,
    length: u64,
    /// Bytes of output in it.
    output: u64,
    unsynced: bool,
}

impl Record {
    pub(crate) fn new(directory: &Path, events: File) -> Self {
        Self {
            directory: directory.to_owned(),
            events: Part::new(events),
            tail: VecDeque::new(),
            last: 0,
            part: SMALLEST_PART,
            positions: [0; 2],
            torn: false,
            names: true,
        }
    }

    /// Adds an event, given as itself and as its frame. What cannot be written is not there at all: neither half of it
    /// nor, for output in the tail, a gap that looks like none, because every piece says where it belongs.
    pub(crate) fn append(&mut self, place: Place, event: &Event, frame: &[u8]) -> Result<()> {
        if self.torn {
            return Err(Error::other("an earlier write could not be undone"));
        }
        let output = match event {
            Event::Output { stream, at, bytes } => {
                self.positions[index(*stream)] = *at;
                Some((*stream, bytes.len() as u64))
            }
            Event::HeadFull(HeadFull { rest, .. }) => {
                self.part = (rest / PARTS).max(SMALLEST_PART);
                None
            }
            _ => None,
        };
        let appended = match place {
            Place::Events => self.events.append(frame),
            Place::Tail => self.tail_part().and_then(|part| part.append(frame)),
        };
        if let Some((stream, length)) = output {
            self.positions[index(stream)] += length;
            if let (Place::Tail, Ok(()), Some(part)) = (place, &appended, self.tail.back_mut()) {
                part.output += length;
            }
        }
        appended.map_err(|failed| {
            self.torn |= failed.is_torn;
            failed.source
        })
    }

    /// What it takes on disk, in bytes.
    pub(crate) fn size(&self) -> u64 {
        self.events.length + self.tail.iter().map(|part| part.length).sum::<u64>()
    }

    /// Whether something was added that was not flushed.
    pub(crate) fn is_unsynced(&self) -> bool {
        self.events.unsynced || self.tail.iter().any(|part| part.unsynced)
    }

    /// What has to be flushed so that all of it survives a power cut, as handles of their own: files, and then the
    /// directories where there are new ones. Empty where there is nothing new.
    pub(crate) fn unsynced(&mut self) -> Result<Vec<File>> {
        let mut files = Vec::new();
        for part in std::iter::once(&mut self.events).chain(&mut self.tail) {
            if std::mem::take(&mut part.unsynced) {
                files.push(part.file.try_clone()?);
            }
        }
        if !files.is_empty() && std::mem::take(&mut self.names) {
            files.push(File::open(&self.directory)?);
            // The place of the operation is new in there, too.
            if let Some(spools) = self.directory.parent() {
                files.push(File::open(spools)?);
            }
        }
        Ok(files)
    }

    /// Makes the contents survive a power cut.
    pub(crate) fn sync(&mut self) -> Result<()> {
        if self.torn {
            return Err(Error::other("an earlier write to it failed"));
        }
        for part in std::iter::once(&mut self.events).chain(&mut self.tail) {
            if std::mem::take(&mut part.unsynced) {
                part.file.sync_data()?;
            }
        }
        Ok(())
    }

    /// The file of the tail that has room.
    fn tail_part(&mut self) -> std::result::Result<&mut Part, Failed> {
        let full = self.tail.back().is_none_or(|part| part.output >= self.part);
        if full {
            let number = self.last + 1;
            let file = spool::make_tail(&self.directory, number).map_err(Failed::whole)?;
            let mut part = Part::new(file);
            let [stdout, stderr] = self.positions;
            if let Err(failed) = part.append(&frame::encode(&Event::TailAt { stdout, stderr })) {
                // Without its beginning it is of no use.
                spool::remove_tail(&self.directory, number).map_err(Failed::whole)?;
                return Err(failed);
            }
            self.last = number;
            self.names = true;
            self.tail.push_back(part);
        }
        let count = self.tail.len() as u64;
        if count > PARTS + 1 {
            let oldest = self.last + 1 - count;
            spool::remove_tail(&self.directory, oldest).map_err(Failed::whole)?;
            let emptied = self.tail.pop_front().map(|part| part.file.set_len(0));
            emptied.transpose().map_err(Failed::whole)?;
        }
        // There is one: it was just made, or had room.
        self.tail
            .back_mut()
            .ok_or_else(|| Failed::whole(Error::other("no file of the tail")))
    }
}

/// A write that was undone, or not.
struct Failed {
    source: Error,
    is_torn: bool,
}

impl Failed {
    const fn whole(source: Error) -> Self {
        Self {
            source,
            is_torn: false,
        }
    }
}

impl Part {
    const fn new(file: File) -> Self {
        Self {
            file,
            length: 0,
            output: 0,
            unsynced: false,
        }
    }

    fn append(&mut self, frame: &[u8]) -> std::result::Result<(), Failed> {
        match self.file.write_all(frame) {
            Ok(()) => {
                self.length += frame.len() as u64;
                self.unsynced = true;
                Ok(())
            }
            // A torn frame must not be followed by others.
            Err(source) => Err(Failed {
                source,
                is_torn: self.file.set_len(self.length).is_err(),
            }),
        }
    }
}
