//! What is kept from a script beyond what its user may not reach.
//!
//! | part | for whom | where it cannot be had |
//! |---|---|---|
//! | temporary directories and IPC of its own | ephemeral users; everybody under a profile | noted |
//! | Sluice's own files covered | root; everybody under a profile | noted |
//! | `no_new_privs` | everybody under a profile, whatever the owner says of it otherwise | nothing is started |
//! | seccomp deny-list (`seccomp`) | standard and strict | nothing is started |
//! | Landlock (`landlock`) | strict | nothing is started |
//! | paths of the owner let through (`opened`) | strict | noted, and kept from the script |
//! | TCP ports of the owner let through | strict | nothing is started |
//!
//! A profile is against mistakes and against scripts that no gate has caught. It is no wall around root: SECURITY.md says
//! what a script of root still can.

mod landlock;
mod mounts;
mod opened;
mod seccomp;

use std::path::{Path, PathBuf};

use nix::sys::prctl;
use serde::{Deserialize, Serialize};

use crate::child::ChildError;
use crate::event::Confinement;
use crate::spec::{Opened, Profile};

/// What is wanted for one script.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Confined {
    pub(crate) profile: Profile,
    /// What strict lets it reach besides.
    pub(crate) opened: Opened,
    /// Directories for temporary files, and IPC, of its own.
    pub(crate) private: bool,
    /// What it shall find empty.
    pub(crate) hidden: Vec<PathBuf>,
    /// Its own directory, which it keeps wherever that is.
    pub(crate) workspace: PathBuf,
    /// Bytes for the temporary directories together; half of the memory where absent.
    pub(crate) temporary: Option<u64>,
}

impl Confined {
    /// Gives it namespaces of its own. Needs the agent's rights, so it comes before the change of user.
    pub(crate) fn set_apart(&self, notes: &mut Vec<String>) -> Result<Confinement, ChildError> {
        let mut applied = Confinement {
            profile: self.profile,
            ..Confinement::default()
        };
        mounts::set_apart(self, &mut applied, notes)?;
        Ok(applied)
    }

    /// Takes rights away from this process for good. Comes after the change of user, and after everything that the script
    /// itself may not do.
    pub(crate) fn restrict(
        &self,
        home: &Path,
        interpreter: &Path,
        applied: &mut Confinement,
        notes: &mut Vec<String>,
    ) -> Result<(), ChildError> {
        if self.profile == Profile::None {
            return Ok(());
        }
        prctl::set_no_new_privs().map_err(|e| self.refuse(format!("no_new_privs: {e}")))?;
        if self.profile == Profile::Strict {
            if !applied.hidden_files
                && let Some(shown) = self.hidden.iter().find(|path| landlock::shows(path))
            {
                return Err(self.refuse(format!(
                    "Sluice's own files in {} cannot be hidden there, and every script may read them",
                    shown.display()
                )));
            }
            let own = self.own_directories(home, applied, notes);
            let paths = opened::find(self, applied, notes);
            applied.owner_paths = !(paths.read.is_empty() && paths.write.is_empty());
            let reach = landlock::Reach {
                interpreter,
                own: &own,
                paths: &paths,
                opened: &self.opened,
            };
            let version = landlock::restrict(&reach, notes).map_err(|error| self.refuse(error))?;
            applied.landlock = Some(version);
        }
        let tcp = seccomp::Tcp::of(self.profile, &self.opened);
        seccomp::install(self.profile, tcp).map_err(|error| self.refuse(error))?;
        applied.owner_ports = tcp != seccomp::Tcp::Kept;
        applied.seccomp = true;
        Ok(())
    }

    /// Where a strict script may write.
    fn own_directories(
        &self,
        home: &Path,
        applied: &Confinement,
        notes: &mut Vec<String>,
    ) -> Vec<PathBuf> {
        let mut own = vec![self.workspace.clone()];
        // Those that all users share are not its own.
        if applied.private_tmp {
            own.extend(crate::workspace::SHARED_DIRECTORIES.map(PathBuf::from));
        }
        // Landlock cannot take a part out of what it gives.
        let behind_links = home.canonicalize();
        let is_in_home = |path: &PathBuf| {
            let behind_links = behind_links.as_ref();
            path.starts_with(home) || behind_links.is_ok_and(|home| path.starts_with(home))
        };
        let shows_sluice = !applied.hidden_files && self.hidden.iter().any(is_in_home);
        if shows_sluice {
            notes.push(format!(
                "the home directory {} is kept from the script, because Sluice's own files are in it",
                home.display()
            ));
        } else if landlock::is_home(home) {
            own.push(home.to_owned());
        }
        own
    }

    fn refuse(&self, reason: impl std::fmt::Display) -> ChildError {
        ChildError::confinement(self.profile, reason)
    }
}
