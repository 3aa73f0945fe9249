//! The private directory of an operation.
//!
//! ```text
//! <base>/<operation>.XXXXXX/       the shim's, 0711: a script cannot replace what is in it
//!     run/                         the user's, 0700, with the script alone (Python would import what lies beside it)
//!         script                   0700
//!     attachments/                 the user's, 0700; files 0600
//!     secrets/                     the user's, 0700; files 0400
//! ```
//! Everything is made through descriptors, with its final mode and owner before a byte is written, while the directory
//! around it still belongs to the shim. A shim that waits for an operation makes the directory and an empty script ahead, as
//! `<base>/spare-<pid>.XXXXXX`. It is removed without following links, and only if it is the one that was made.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::NixPath;
use nix::fcntl::{AT_FDCWD, OFlag, RenameFlags, open, openat, renameat, renameat2};
use nix::sys::stat::{Mode, fchmod, mkdirat};
use nix::unistd::{Gid, Uid, fchown, mkdtemp};

use crate::spec::{Content, Spec, Variable};

/// Directories that every user may write to: an ephemeral user gets its own, or its files there are removed.
pub(crate) const SHARED_DIRECTORIES: [&str; 3] = ["/tmp", "/var/tmp", "/dev/shm"];

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
}

/// A private directory that was made before there is an operation: empty, and the shim's own. One of a shim that was
/// killed is removed by the next one.
pub(crate) struct Spare {
    base: PathBuf,
    path: PathBuf,
    identity: (u64, u64),
    root: OwnedFd,
    run: OwnedFd,
    script: OwnedFd,
}

impl Spare {
    /// Makes one below the base, which is checked.
    pub(crate) fn make(base: &Path) -> Result<Self, WorkspaceError> {
        let real = checked_base(base, Uid::effective().is_root())?;
        remove_abandoned(&real);
        let path = mkdtemp(&real.join(format!("{SPARE}{}.XXXXXX", std::process::id())))
            .map_err(io("make a directory in", &real))?;
        let meta = std::fs::symlink_metadata(&path).map_err(|e| fail("look at", &path, e))?;
        let root = open(&path, DIRECTORY, Mode::empty()).map_err(io("open", &path))?;
        if Uid::effective().is_root() {
            fchmod(&root, Mode::from_bits_truncate(0o711))
                .map_err(io("change the mode of", &path))?;
        }
        let run = make_directory(&root, "run", &path)?;
        let script = make_file(&run, SCRIPT, 0o700, &path)?;
        Ok(Self {
            base: base.to_owned(),
            identity: (meta.dev(), meta.ino()),
            path,
            root,
            run,
            script,
        })
    }

    /// Gives it to an operation: its name, and everything in it. `owner` is absent when the shim cannot change owners:
    /// then all is its own.
    fn fill(mut self, spec: &Spec, owner: Option<(Uid, Gid)>) -> Result<Workspace, WorkspaceError> {
        let suffix = self.path.extension().unwrap_or_default().to_string_lossy();
        let path = self
            .path
            .with_file_name(format!("{}.{suffix}", spec.operation));
        renameat2(AT_FDCWD, &self.path, AT_FDCWD, &path, RenameFlags::empty())
            .map_err(io("rename", &self.path))?;
        self.path = path;
        let run = self.path.join("run");
        if spec.script.name != SCRIPT {
            renameat(&self.run, SCRIPT, &self.run, spec.script.name.as_str())
                .map_err(io("rename the script in", &run))?;
        }
        let mut made = Workspace {
            script: run.join(&spec.script.name),
            identity: self.identity,
            variables: Vec::new(),
            path: self.path,
        };
        give(&self.script, owner, &made.script)?;
        let script = NewFile {
            file: self.script.into(),
            path: made.script.clone(),
        };
        script.write(&spec.script.bytes)?;
        give(&self.run, owner, &run)?;
        made.fill(&self.root, spec, owner)?;
        Ok(made)
    }

    /// There is no operation, or not for this one.
    pub(crate) fn remove(&self) {
        remove(&self.path, self.identity, &mut Vec::new());
    }
}

impl Workspace {
    /// Makes the directory and everything in it, in the `spare` one where that is at the right place.
    pub(crate) fn make(
        spare: Option<Spare>,
        spec: &Spec,
        owner: Option<(Uid, Gid)>,
        notes: &mut Vec<String>,
    ) -> Result<Self, WorkspaceError> {
        let spare = match spare {
            Some(spare) if spare.base == spec.workspace_base => spare,
            other => {
                other.as_ref().inspect(|spare| spare.remove());
                Spare::make(&spec.workspace_base)?
            }
        };
        let (path, identity) = (spare.path.clone(), spare.identity);
        spare.fill(spec, owner).inspect_err(|_| {
            remove(&path, identity, notes);
            let renamed = path.extension().unwrap_or_default().to_string_lossy();
            let renamed = path.with_file_name(format!("{}.{renamed}", spec.operation));
            remove(&renamed, identity, notes);
        })
    }

    /// Removes every file, and puts the empty directories where they can be removed later: into the spool, which is the
    /// shim's too. (A directory's block is given back to the disk with it, for which some file systems wait.) Where that
    /// cannot be done, they are removed now.
    pub(crate) fn clear(&self, spool: &Path, notes: &mut Vec<String>) {
        let emptied = self.is_still_there()
            && ["run", "attachments", "secrets"]
                .iter()
                .all(|folder| remove_contents(&self.path.join(folder)).is_ok());
        if !emptied || std::fs::rename(&self.path, spool.join(EMPTIED)).is_err() {
            remove(&self.path, self.identity, notes);
        }
    }

    fn is_still_there(&self) -> bool {
        std::fs::symlink_metadata(&self.path)
            .is_ok_and(|meta| meta.is_dir() && (meta.dev(), meta.ino()) == self.identity)
    }

    fn fill(
        &mut self,
        root: &OwnedFd,
        spec: &Spec,
        owner: Option<(Uid, Gid)>,
    ) -> Result<(), WorkspaceError> {
        if !spec.attachments.files.is_empty() {
            let folder = Folder::make(root, self.path.join("attachments"), owner)?;
            for attachment in &spec.attachments.files {
                let file = folder.file(&attachment.name, 0o600)?;
                match &attachment.content {
                    Content::Bytes(bytes) => file.write(bytes)?,
                    Content::File(source) => file.copy(source)?,
                }
            }
            for name in &spec.attachments.variables {
                self.variables.push(variable(name, &folder.path));
            }
            folder.hand_over()?;
        }
        if !spec.secrets.is_empty() {
            let folder = Folder::make(root, self.path.join("secrets"), owner)?;
            for secret in &spec.secrets {
                let file = folder.file(&secret.name, 0o400)?;
                self.variables.push(variable(&secret.variable, &file.path));
                file.write(&secret.value)?;
            }
            folder.hand_over()?;
        }
        Ok(())
    }
}

/// How the name of a directory begins that has no operation yet; the id of its shim follows.
const SPARE: &str = "spare-";
/// What scripts are called, unless their interpreter insists on something else.
const SCRIPT: &str = "script";
/// What an emptied directory is called in the spool.
const EMPTIED: &str = "emptied";

/// Removes what [`Workspace::clear`] left in a spool. What is not removed goes with the spool.
pub(crate) fn remove_emptied(spool: &Path) {
    let _removed_with_the_spool = std::fs::remove_dir_all(spool.join(EMPTIED));
}

/// What is in a directory that the script's user could change, without following links on the way: nothing of the script
/// lives any more, and the directory around it was never the user's.
fn remove_contents(directory: &Path) -> std::io::Result<()> {
    let entries = match std::fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(e),
    };
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            std::fs::remove_dir_all(entry.path())?;
        } else {
            std::fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// Removes directories that were made ahead by shims that are no more. They are empty but for an empty file.
fn remove_abandoned(base: &Path) {
    for entry in std::fs::read_dir(base).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let shim = name
            .to_str()
            .and_then(|name| name.strip_prefix(SPARE)?.split('.').next());
        if let Some(pid) = shim.filter(|pid| pid.bytes().all(|b| b.is_ascii_digit()))
            && !Path::new("/proc").join(pid).exists()
            && let Ok(meta) = std::fs::symlink_metadata(entry.path())
        {
            remove(&entry.path(), (meta.dev(), meta.ino()), &mut Vec::new());
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
    // `remove_dir_all` works on descriptors and does not follow links (CVE-2022-21658).
    let mut result = std::fs::remove_dir_all(path);
    if result
        .as_ref()
        .is_err_and(|e| e.kind() == ErrorKind::PermissionDenied)
        && !Uid::effective().is_root()
    {
        open_up(path);
        result = std::fs::remove_dir_all(path);
    }
    match result {
        Ok(()) => {}
        Err(e) if e.kind() == ErrorKind::NotFound => {}
        Err(e) => notes.push(format!(
            "{} could not be removed completely: {e}",
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
            let removed = if meta.is_dir() {
                std::fs::remove_dir_all(&path)
            } else {
                std::fs::remove_file(&path)
            };
            if let Err(e) = removed {
                notes.push(format!(
                    "{} of the ephemeral user {uid} could not be removed: {e}",
                    path.display()
                ));
            }
        }
    }
}

const DIRECTORY: OFlag = OFlag::O_DIRECTORY
    .union(OFlag::O_NOFOLLOW)
    .union(OFlag::O_CLOEXEC)
    .union(OFlag::O_RDONLY);

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

    fn hand_over(self) -> Result<(), WorkspaceError> {
        give(&self.directory, self.owner, &self.path)
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

    fn copy(mut self, source: &Path) -> Result<(), WorkspaceError> {
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
        std::io::copy(&mut from, &mut self.file)
            .map(drop)
            .map_err(|e| fail("copy", source, e))
    }
}

fn make_directory<P: ?Sized + NixPath>(
    root: &OwnedFd,
    name: &P,
    path: &Path,
) -> Result<OwnedFd, WorkspaceError> {
    mkdirat(root, name, Mode::S_IRWXU).map_err(io("make", path))?;
    openat(root, name, DIRECTORY, Mode::empty()).map_err(io("open", path))
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
    match DirBuilder::new().mode(mode).create(base) {
        // The umask of the shim is narrow.
        Ok(()) => std::fs::set_permissions(base, PermissionsExt::from_mode(mode))
            .map_err(|e| fail("make", base, e))?,
        Err(e) if e.kind() == ErrorKind::AlreadyExists => {}
        Err(e) => return Err(fail("make", base, e)),
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

/// Lets the shim's own user into every directory below a path again (a script can take that away). Nothing of the
/// script lives any more that could put a link in the way.
fn open_up(path: &Path) {
    let _reported_by_the_removal = std::fs::set_permissions(path, PermissionsExt::from_mode(0o700));
    for entry in std::fs::read_dir(path).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            open_up(&entry.path());
        }
    }
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
