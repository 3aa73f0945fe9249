//! The private directory of an operation.
//!
//! ```text
//! <base>/<operation>.<pid>/        the shim's, 0710 for the user's group: a script cannot replace what is in it, and nobody
//!                                  else gets at what is (.<pid>.XXXXXX: not made ahead)
//!     run/                         the user's, 0700, with the script alone (Python would import what lies beside it)
//!         script                   0700
//!     attachments/                 the user's, 0700; files 0600
//!     secrets/                     the user's, 0700; files 0400
//! ```
//! Everything is made through descriptors, with its final mode and owner before a byte is written, while the directory
//! around it still belongs to the shim. A shim that waits for an operation makes the directory and an empty script ahead, in
//! its spool. It is removed without following links, and only if it is the one that was made.

use std::ffi::CString;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::NixPath;
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, RenameFlags, openat, renameat, renameat2};
use nix::sys::stat::{Mode, fchmod, mkdirat, umask};
use nix::unistd::{Gid, Uid, fchown, mkdir, mkdtemp};
use sha2::{Digest, Sha256};

use crate::spec::{Content, Spec, Variable};
use crate::tree;

/// Directories that every user may write to: an ephemeral user gets its own, or its files there are removed. (The queues
/// that are mounted are the machine's, whichever IPC namespace a process is in.)
pub(crate) const SHARED_DIRECTORIES: [&str; 4] = ["/tmp", "/var/tmp", "/dev/shm", "/dev/mqueue"];

#[derive(Debug, thiserror::Error)]
pub(crate) enum WorkspaceError {
    #[error("cannot {what} {}: {source}", path.display())]
    Io {
        what: &'static str,
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("{} could be changed by other users: it and its parents must belong to root and not be writable by others", .0.display())]
    Unsafe(PathBuf),
    #[error("{} is not what the gates saw; it was changed since", .0.display())]
    Changed(PathBuf),
    #[error("{} cannot be entered by the script's user: it and its parents need mode 0711 or wider", .0.display())]
    Closed(PathBuf),
}

/// What was made.
#[derive(Debug)]
pub(crate) struct Workspace {
    pub(crate) path: PathBuf,
    pub(crate) identity: (u64, u64),
    pub(crate) script: PathBuf,
    /// Variables that name what is in it.
    pub(crate) variables: Vec<Variable>,
    root: OwnedFd,
    /// The directories in it, by name.
    folders: Vec<(&'static str, OwnedFd)>,
}

/// A private directory that was made before there is an operation: empty, and the shim's own. It is made in a spool, and
/// goes with it where there is none.
pub(crate) struct Spare {
    path: PathBuf,
    identity: (u64, u64),
    root: OwnedFd,
    run: OwnedFd,
    script: OwnedFd,
}

impl Spare {
    /// Makes one in a directory that nobody else can write to.
    pub(crate) fn make(directory: &Path) -> Result<Self, WorkspaceError> {
        let path = directory.join(AHEAD);
        mkdir(&path, Mode::S_IRWXU).map_err(io("make", &path))?;
        Self::furnish(path)
    }

    /// Puts into a new directory what every operation needs.
    fn furnish(path: PathBuf) -> Result<Self, WorkspaceError> {
        let root = tree::open(&path).map_err(io("open", &path))?;
        let identity = tree::identity(&root).map_err(io("look at", &path))?;
        let run = make_directory(&root, "run", &path)?;
        let script = make_file(&run, SCRIPT, 0o700, &path)?;
        Ok(Self {
            path,
            identity,
            root,
            run,
            script,
        })
    }

    /// Puts it to its place, where that is on the same disk; where it is not, or there is none, one is made there.
    fn at_its_place(
        spare: Option<(Self, &Path)>,
        base: &Path,
        operation: &str,
    ) -> Result<Self, WorkspaceError> {
        if let Some((mut spare, spool)) = spare {
            let (from, to) = (
                spool.join(AHEAD),
                base.join(format!("{operation}.{}", std::process::id())),
            );
            if renameat2(
                AT_FDCWD,
                &from,
                AT_FDCWD,
                &to,
                RenameFlags::RENAME_NOREPLACE,
            )
            .is_ok()
            {
                spare.path = to;
                return Ok(spare);
            }
            remove(&from, spare.identity, &mut Vec::new());
        }
        let path = mkdtemp(&base.join(format!("{operation}.{}.XXXXXX", std::process::id())))
            .map_err(io("make a directory in", base))?;
        let identity = tree::open(&path).and_then(|root| tree::identity(&root));
        Self::furnish(path.clone()).inspect_err(|_| {
            if let Ok(identity) = identity {
                remove(&path, identity, &mut Vec::new());
            }
        })
    }
}

impl Workspace {
    /// Makes the directory and everything in it, of the `spare` one in the shim's `spool` where there is one. `owner` is
    /// absent when the shim cannot change owners: then all is its own.
    pub(crate) fn make(
        spare: Option<Spare>,
        spool: &Path,
        spec: &Spec,
        owner: Option<(Uid, Gid)>,
        notes: &mut Vec<String>,
    ) -> Result<Self, WorkspaceError> {
        let base = checked_base(&spec.workspace_base, owner.is_some())?;
        let spare = spare.map(|spare| (spare, spool));
        let made = Spare::at_its_place(spare, &base, &spec.operation)?;
        let (path, identity) = (made.path.clone(), made.identity);
        Self::fill(made, spec, owner).inspect_err(|_| remove(&path, identity, notes))
    }

    fn fill(made: Spare, spec: &Spec, owner: Option<(Uid, Gid)>) -> Result<Self, WorkspaceError> {
        let run = made.path.join("run");
        if let Some((_, group)) = owner {
            fchown(&made.root, None, Some(group)).map_err(io("change the group of", &made.path))?;
            fchmod(&made.root, Mode::from_bits_truncate(0o710))
                .map_err(io("change the mode of", &made.path))?;
        }
        if spec.script.name != SCRIPT {
            renameat(&made.run, SCRIPT, &made.run, spec.script.name.as_str())
                .map_err(io("rename the script in", &run))?;
        }
        let script = run.join(&spec.script.name);
        give(&made.script, owner, &script)?;
        let file = NewFile {
            file: made.script.into(),
            path: script.clone(),
        };
        file.write(&spec.script.bytes)?;
        give(&made.run, owner, &run)?;
        let mut filled = Self {
            script,
            identity: made.identity,
            variables: Vec::new(),
            path: made.path,
            root: made.root,
            folders: vec![("run", made.run)],
        };
        if !spec.attachments.files.is_empty() {
            filled.attach(spec, owner)?;
        }
        if !spec.secrets.is_empty() {
            filled.confide(spec, owner)?;
        }
        Ok(filled)
    }

    fn attach(&mut self, spec: &Spec, owner: Option<(Uid, Gid)>) -> Result<(), WorkspaceError> {
        let folder = Folder::make(&self.root, self.path.join("attachments"), owner)?;
        for attachment in &spec.attachments.files {
            let file = folder.file(&attachment.name, 0o600)?;
            match &attachment.content {
                Content::Bytes(bytes) => file.write(bytes)?,
                Content::File { path, size, sha256 } => file.copy(path, *size, sha256)?,
            }
        }
        for name in &spec.attachments.variables {
            self.variables.push(variable(name, &folder.path));
        }
        self.folders.push(("attachments", folder.hand_over()?));
        Ok(())
    }

    fn confide(&mut self, spec: &Spec, owner: Option<(Uid, Gid)>) -> Result<(), WorkspaceError> {
        let folder = Folder::make(&self.root, self.path.join("secrets"), owner)?;
        for secret in &spec.secrets {
            let file = folder.file(&secret.name, 0o400)?;
            self.variables.push(variable(&secret.variable, &file.path));
            file.write(&secret.value)?;
        }
        self.folders.push(("secrets", folder.hand_over()?));
        Ok(())
    }

    /// Removes every file, and puts the empty directories where they can be removed later: into the spool, which is the
    /// shim's too. (A directory's block is given back to the disk with it, for which some file systems wait.) Where
    /// anything is not as it was made, all is removed now.
    pub(crate) fn clear(&self, spool: &Path, notes: &mut Vec<String>) {
        let emptied = self.folders.iter().all(|(_, folder)| {
            // A script may have taken the rights of its own directory from itself, and from an agent that is not root.
            let _reported_by_the_removal = fchmod(folder, Mode::S_IRWXU);
            tree::empty(folder).is_ok()
        });
        if !(emptied
            && self.is_as_it_was_made()
            && std::fs::rename(&self.path, spool.join(EMPTIED)).is_ok())
        {
            remove(&self.path, self.identity, notes);
        }
    }

    /// What could not be removed in time, with its identity.
    pub(crate) fn left(&self) -> Option<(PathBuf, (u64, u64))> {
        let there = std::fs::symlink_metadata(&self.path).ok()?;
        ((there.dev(), there.ino()) == self.identity).then(|| (self.path.clone(), self.identity))
    }

    /// Nothing but our own directories is in it, and it is where it was.
    fn is_as_it_was_made(&self) -> bool {
        let ours = |name: &CString| {
            self.folders.iter().any(|(ours, folder)| {
                name.as_bytes() == ours.as_bytes() && tree::is(&self.root, name, folder)
            })
        };
        let there = std::fs::symlink_metadata(&self.path);
        there.is_ok_and(|meta| meta.is_dir() && (meta.dev(), meta.ino()) == self.identity)
            && tree::names(&self.root).is_ok_and(|names| names.iter().all(ours))
    }
}

/// What scripts are called, unless their interpreter insists on something else.
const SCRIPT: &str = "script";
/// What a directory that was made ahead is called in the spool, and one that was emptied.
const AHEAD: &str = "ahead";
const EMPTIED: &str = "emptied";

/// Removes what [`Workspace::clear`] left in a spool. What is not removed goes with the spool.
pub(crate) fn remove_emptied(spool: &Path) {
    let _removed_with_the_spool = std::fs::remove_dir_all(spool.join(EMPTIED));
}

/// Goes on removing what [`Workspace::left`], when nobody waits any more. What stays is found by [`sweep`].
pub(crate) fn remove_at_leisure(path: &Path, identity: (u64, u64)) {
    const TRIES: u32 = 60;
    for _ in 0..TRIES {
        let mut left = Vec::new();
        remove(path, identity, &mut left);
        if left.is_empty() {
            return;
        }
    }
}

/// Removes a private directory, if it is still the one that was made. What cannot be removed is noted.
pub(crate) fn remove(path: &Path, identity: (u64, u64), notes: &mut Vec<String>) {
    match std::fs::symlink_metadata(path) {
        Err(e) if e.kind() == ErrorKind::NotFound => return,
        Err(e) => return notes.push(format!("{} was not removed: {e}", path.display())),
        // A script that ran as root may have put something else there. That is not ours to remove, whatever it is.
        Ok(meta) if (meta.dev(), meta.ino()) != identity || !meta.is_dir() => {
            return notes.push(format!(
                "{} was replaced by the script and is left as it is",
                path.display()
            ));
        }
        Ok(_) => {}
    }
    let removed = tree::open(path)
        .and_then(|directory| match tree::identity(&directory) {
            Ok(found) if found == identity => tree::empty(&directory),
            Ok(_) => Err(Errno::ENOTDIR),
            Err(errno) => Err(errno),
        })
        .and_then(|()| {
            std::fs::remove_dir(path)
                .map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or_default()))
        });
    match removed {
        Ok(()) | Err(Errno::ENOENT) => {}
        Err(errno) => notes.push(format!(
            "{} could not be removed completely: {errno}",
            path.display()
        )),
    }
}

/// Removes the private directories of an operation whose shim was killed before it could tell of them. Nobody else can
/// have made one: the base is the shim's, and the name is the operation's.
pub(crate) fn remove_all_of(base: &Path, operation: &str, notes: &mut Vec<String>) {
    let prefix = format!("{operation}.");
    for entry in std::fs::read_dir(base).into_iter().flatten().flatten() {
        if !entry
            .file_name()
            .as_encoded_bytes()
            .starts_with(prefix.as_bytes())
        {
            continue;
        }
        if let Ok(meta) = std::fs::symlink_metadata(entry.path()) {
            remove(&entry.path(), (meta.dev(), meta.ino()), notes);
        }
    }
}

/// Removes the private directories in `base` that were left of operations which are not `open`, such as those that could not
/// be removed at their end. Returns what could not be done. Those of shims that may live are not touched: several agents
/// may have one base.
pub fn sweep(base: &Path, is_open: impl Fn(&str) -> bool) -> Vec<String> {
    let mut notes = Vec::new();
    for entry in std::fs::read_dir(base).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let mut parts = name.to_str().unwrap_or_default().split('.');
        let (Some(operation), Some(shim)) = (parts.next(), parts.next()) else {
            continue;
        };
        let may_live = shim
            .parse::<u32>()
            .map_or(true, |pid| Path::new(&format!("/proc/{pid}")).exists());
        let Ok(meta) = std::fs::symlink_metadata(entry.path()) else {
            continue;
        };
        let is_ours = meta.is_dir() && meta.uid() == Uid::effective().as_raw();
        if is_ours && !may_live && !is_open(operation) {
            remove(&entry.path(), (meta.dev(), meta.ino()), &mut notes);
        }
    }
    notes
}

/// Removes what an ephemeral user left in the directories that all users share.
pub(crate) fn remove_files_of(uid: u32, notes: &mut Vec<String>) {
    for directory in SHARED_DIRECTORIES {
        for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
            let path = entry.path();
            let Ok(meta) = std::fs::symlink_metadata(&path) else {
                continue;
            };
            if meta.uid() != uid {
                continue;
            }
            let removed = CString::new(entry.file_name().as_encoded_bytes())
                .map_err(|_| Errno::EINVAL)
                .and_then(|name| tree::remove(&tree::open(Path::new(directory))?, &name));
            if let Err(e) = removed {
                notes.push(format!(
                    "{} of the ephemeral user {uid} could not be removed: {e}",
                    path.display()
                ));
            }
        }
    }
}

/// A 0700 directory that is filled while it is the shim's and then given to the user.
struct Folder {
    directory: OwnedFd,
    path: PathBuf,
    owner: Option<(Uid, Gid)>,
}

impl Folder {
    fn make(
        root: &OwnedFd,
        path: PathBuf,
        owner: Option<(Uid, Gid)>,
    ) -> Result<Self, WorkspaceError> {
        let name = path.file_name().unwrap_or_default();
        let directory = make_directory(root, name, &path)?;
        Ok(Self {
            directory,
            path,
            owner,
        })
    }

    fn file(&self, name: &str, mode: u32) -> Result<NewFile, WorkspaceError> {
        let path = self.path.join(name);
        let file = make_file(&self.directory, name, mode, &path)?;
        // The owner before any content.
        give(&file, self.owner, &path)?;
        Ok(NewFile {
            file: file.into(),
            path,
        })
    }

    fn hand_over(self) -> Result<OwnedFd, WorkspaceError> {
        give(&self.directory, self.owner, &self.path)?;
        Ok(self.directory)
    }
}

struct NewFile {
    file: File,
    path: PathBuf,
}

impl NewFile {
    fn write(mut self, bytes: &[u8]) -> Result<(), WorkspaceError> {
        self.file
            .write_all(bytes)
            .map_err(|e| fail("write", &self.path, e))
    }

    /// Copies a file that is known by size and digest, and fails where it has others.
    fn copy(mut self, source: &Path, size: u64, sha256: &[u8; 32]) -> Result<(), WorkspaceError> {
        let mut from = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
            .open(source)
            .map_err(|e| fail("open", source, e))?;
        if !from.metadata().is_ok_and(|meta| meta.is_file()) {
            return Err(fail(
                "copy",
                source,
                std::io::Error::new(ErrorKind::InvalidInput, "not a regular file"),
            ));
        }
        let copied = |error| fail("copy", source, error);
        let mut digest = Sha256::new();
        let mut left = size;
        let mut buffer = vec![0; 64 * 1024];
        loop {
            let length = from.read(&mut buffer).map_err(copied)?;
            let Some(rest) = left.checked_sub(length as u64) else {
                return Err(WorkspaceError::Changed(source.to_owned()));
            };
            if length == 0 {
                break;
            }
            left = rest;
            digest.update(&buffer[..length]);
            self.file
                .write_all(&buffer[..length])
                .map_err(|e| fail("write", &self.path, e))?;
        }
        if left == 0 && digest.finalize()[..] == sha256[..] {
            Ok(())
        } else {
            Err(WorkspaceError::Changed(source.to_owned()))
        }
    }
}

fn make_directory<P: ?Sized + NixPath>(
    root: &OwnedFd,
    name: &P,
    path: &Path,
) -> Result<OwnedFd, WorkspaceError> {
    mkdirat(root, name, Mode::S_IRWXU).map_err(io("make", path))?;
    openat(root, name, tree::DIRECTORY, Mode::empty()).map_err(io("open", path))
}

fn make_file(
    directory: &OwnedFd,
    name: &str,
    mode: u32,
    path: &Path,
) -> Result<OwnedFd, WorkspaceError> {
    let flags =
        OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let file =
        openat(directory, name, flags, Mode::from_bits_truncate(mode)).map_err(io("make", path))?;
    // The mode again, as the umask may have narrowed it.
    fchmod(&file, Mode::from_bits_truncate(mode)).map_err(io("change the mode of", path))?;
    Ok(file)
}

fn give(fd: impl AsFd, owner: Option<(Uid, Gid)>, path: &Path) -> Result<(), WorkspaceError> {
    let Some((uid, gid)) = owner else {
        return Ok(());
    };
    fchown(fd, Some(uid), Some(gid)).map_err(io("change the owner of", path))
}

/// The base without links, after checking that no other user can change the way to it. The last component is made.
fn checked_base(base: &Path, as_root: bool) -> Result<PathBuf, WorkspaceError> {
    let mode = if as_root { 0o711 } else { 0o700 };
    match make_base(base, mode) {
        Err(e) if e.kind() != ErrorKind::AlreadyExists => return Err(fail("make", base, e)),
        _ => {}
    }
    let base = base.canonicalize().map_err(|e| fail("resolve", base, e))?;
    let me = Uid::effective().as_raw();
    for part in base.ancestors() {
        let meta = std::fs::symlink_metadata(part).map_err(|e| fail("look at", part, e))?;
        let others_write = meta.mode() & 0o022 != 0;
        // In a sticky directory such as /tmp others can add names but not replace ours.
        let sticky = meta.mode() & 0o1000 != 0 && part != base;
        if !meta.is_dir() || (meta.uid() != 0 && meta.uid() != me) || (others_write && !sticky) {
            return Err(WorkspaceError::Unsafe(part.to_owned()));
        }
        if as_root && meta.mode() & 0o001 == 0 {
            return Err(WorkspaceError::Closed(part.to_owned()));
        }
    }
    Ok(base)
}

/// With its final mode from the start, though the umask of the shim is narrow: another shim may look at it at any moment.
#[expect(clippy::disallowed_methods, reason = "the shim has one thread")]
fn make_base(base: &Path, mode: u32) -> std::io::Result<()> {
    let before = umask(Mode::from_bits_truncate(0o022));
    let made = DirBuilder::new().mode(mode).create(base);
    umask(before);
    made
}

fn variable(name: &str, path: &Path) -> Variable {
    Variable {
        name: name.to_owned(),
        value: path.to_string_lossy().into_owned(),
    }
}

fn io(what: &'static str, path: &Path) -> impl FnOnce(nix::Error) -> WorkspaceError {
    move |errno| fail(what, path, errno.into())
}

fn fail(what: &'static str, path: &Path, source: std::io::Error) -> WorkspaceError {
    WorkspaceError::Io {
        what,
        path: path.to_owned(),
        source,
    }
}
