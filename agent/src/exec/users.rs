//! Who a script runs as. Names only, never numbers; the answer is a user that the machine's owner lists, or a refusal that
//! names the one that was asked for. Never another one.
//!
//! Looking a user up may ask a directory service: call [`resolve`] where blocking is allowed.

use std::ffi::CString;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use nix::unistd::{Uid, User, getgrouplist};
use sluice_gate_client::{GATE_UIDS, GATE_USER};
use sluice_shim::{FIRST_UID, LAST_UID, spec};

/// The name that stands for a fresh user for each operation.
pub const EPHEMERAL: &str = "ephemeral";

/// Lock files of the ephemeral uids in use, shared by all agents of the machine.
pub const EPHEMERAL_LOCKS: &str = "/run/sluice/uids";

/// The machine owner's `[run-as]` list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Allowed {
    /// `"ALL"`: every user of the machine, root too, and ephemeral ones.
    All,
    /// These names, of which `ephemeral` is one.
    Names(Vec<String>),
}

/// A user that may run the script.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RunAs {
    /// A fresh uid, taken by the shim.
    Ephemeral,
    /// A user of the machine.
    Named(NamedUser),
}

/// A user of the machine, as it was when it was looked up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedUser {
    /// Login name.
    pub name: String,
    /// User id.
    pub uid: u32,
    /// Primary group.
    pub gid: u32,
    /// All groups.
    pub groups: Vec<u32>,
    /// Home directory.
    pub home: PathBuf,
    /// Login shell.
    pub shell: PathBuf,
}

/// Why a user is refused. Each names the user.
#[derive(Debug, thiserror::Error)]
pub enum UserError {
    /// A number, or characters no name has.
    #[error("`{0}` is not a user name (users are given by name, not by number)")]
    NotAName(String),
    /// Not in the machine's data base.
    #[error("user `{0}` is unknown on this machine")]
    Unknown(String),
    /// Not in the owner's list.
    #[error("user `{0}` is not allowed on this machine")]
    NotAllowed(String),
    /// Root by another name, while root is not in the owner's list.
    #[error("user `{0}` is root by another name, and root is not allowed on this machine")]
    AliasOfRoot(String),
    /// A process of it could end gate runners, or be taken for one of an ephemeral user.
    #[error(
        "user `{0}` is not possible: its user id is kept for Sluice's own processes and ephemeral users"
    )]
    Reserved(String),
    /// The agent has no right to change users.
    #[error(
        "user `{asked}` is not possible: the agent is not root and can run scripts only as its own user `{own}`"
    )]
    AgentIsNotRoot {
        /// Who was asked for.
        asked: String,
        /// Who it can be.
        own: String,
    },
    /// The data base could not be asked.
    #[error("user `{name}` cannot be looked up")]
    Lookup {
        /// Who.
        name: String,
        /// Why.
        #[source]
        source: nix::Error,
    },
}

impl RunAs {
    /// `run_as` of a result: the name that was asked for.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Ephemeral => EPHEMERAL,
            Self::Named(user) => &user.name,
        }
    }

    /// For the shim.
    #[must_use]
    pub fn to_spec(&self) -> spec::User {
        match self {
            Self::Ephemeral => spec::User::Ephemeral {
                locks: EPHEMERAL_LOCKS.into(),
            },
            Self::Named(NamedUser {
                name,
                uid,
                gid,
                groups,
                home,
                ..
            }) => spec::User::Named {
                name: name.clone(),
                uid: *uid,
                gid: *gid,
                groups: groups.clone(),
                home: home.clone(),
            },
        }
    }
}

/// Resolves a requested name against the owner's list. An agent that is not root has but one answer, its own user.
///
/// # Errors
/// Every reason not to run as this user; see [`UserError`].
pub fn resolve(asked: &str, allowed: &Allowed) -> Result<RunAs, UserError> {
    let me = Uid::effective();
    if !me.is_root() {
        let own = own_user()?;
        return if asked == own.name {
            Ok(RunAs::Named(own))
        } else {
            Err(UserError::AgentIsNotRoot {
                asked: printable(asked),
                own: own.name,
            })
        };
    }
    if asked == EPHEMERAL {
        let listed = match allowed {
            Allowed::All => true,
            Allowed::Names(names) => names.iter().any(|name| name == EPHEMERAL),
        };
        return if listed {
            Ok(RunAs::Ephemeral)
        } else {
            Err(UserError::NotAllowed(EPHEMERAL.into()))
        };
    }
    let user = look_up(asked)?;
    permit(asked, user.uid.as_raw(), allowed, |name| match name {
        GATE_USER => gate_uid(),
        name => uid_of(name),
    })?;
    with_groups(user).map(RunAs::Named)
}

/// The agent's own user: all that an agent that is not root can run scripts as.
///
/// # Errors
/// The user has no name in the machine's data base.
pub fn own_user() -> Result<NamedUser, UserError> {
    let me = Uid::effective();
    let lookup = |source| UserError::Lookup {
        name: me.to_string(),
        source,
    };
    let user = User::from_uid(me)
        .map_err(lookup)?
        .ok_or_else(|| UserError::Unknown(me.to_string()))?;
    with_groups(user)
}

/// The rule, apart from the data base: users are compared by uid, so that a second name of a listed user is that user,
/// and a second name of root is root.
fn permit(
    asked: &str,
    uid: u32,
    allowed: &Allowed,
    uid_of: impl Fn(&str) -> Option<u32>,
) -> Result<(), UserError> {
    // Whatever the owner allows: `ALL` is meant for the machine's users.
    if GATE_UIDS.contains(&uid)
        || (FIRST_UID..=LAST_UID).contains(&uid)
        || (uid != 0 && uid_of(GATE_USER) == Some(uid))
    {
        return Err(UserError::Reserved(asked.into()));
    }
    let Allowed::Names(names) = allowed else {
        return Ok(());
    };
    if uid == 0 && !names.iter().any(|name| name == "root") {
        return Err(if asked == "root" {
            UserError::NotAllowed(asked.into())
        } else {
            UserError::AliasOfRoot(asked.into())
        });
    }
    if names
        .iter()
        .any(|name| name != EPHEMERAL && (name == asked || uid_of(name) == Some(uid)))
    {
        return Ok(());
    }
    Err(UserError::NotAllowed(asked.into()))
}

fn uid_of(name: &str) -> Option<u32> {
    look_up(name).ok().map(|user| user.uid.as_raw())
}

/// How long it is remembered who [`GATE_USER`] is. Most machines have none, and every directory service is asked for a name
/// that is in no file.
const GATE_USER_IS_KNOWN: Duration = Duration::from_secs(10);

fn gate_uid() -> Option<u32> {
    static KNOWN: Mutex<Option<(Instant, Option<u32>)>> = Mutex::new(None);
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    match *known {
        Some((at, uid)) if at.elapsed() < GATE_USER_IS_KNOWN => uid,
        _ => {
            let uid = uid_of(GATE_USER);
            *known = Some((Instant::now(), uid));
            uid
        }
    }
}

fn look_up(name: &str) -> Result<User, UserError> {
    let letters =
        |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | '$' | '@' | '\\' | '+');
    let number = name
        .trim_start_matches(['-', '+'])
        .chars()
        .all(|c| c.is_ascii_digit());
    if name.is_empty()
        || name.len() > 256
        || number
        || name.starts_with('-')
        || !name.chars().all(letters)
    {
        return Err(UserError::NotAName(printable(name)));
    }
    let user = User::from_name(name).map_err(|source| UserError::Lookup {
        name: name.into(),
        source,
    })?;
    // Some directory services find names in other spellings; the owner's list would not.
    user.filter(|user| user.name == name)
        .ok_or_else(|| UserError::Unknown(name.into()))
}

fn with_groups(user: User) -> Result<NamedUser, UserError> {
    let lookup = |source| UserError::Lookup {
        name: user.name.clone(),
        source,
    };
    let c_name =
        CString::new(user.name.as_str()).map_err(|_| UserError::NotAName(printable(&user.name)))?;
    let groups = getgrouplist(&c_name, user.gid).map_err(lookup)?;
    Ok(NamedUser {
        uid: user.uid.as_raw(),
        gid: user.gid.as_raw(),
        groups: groups.into_iter().map(nix::unistd::Gid::as_raw).collect(),
        name: user.name,
        // An entry without a home or shell means these.
        home: if user.dir.is_absolute() {
            user.dir
        } else {
            "/".into()
        },
        shell: if user.shell.is_absolute() {
            user.shell
        } else {
            "/bin/sh".into()
        },
    })
}

fn printable(name: &str) -> String {
    name.escape_debug().take(64).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn names(names: &[&str]) -> Allowed {
        Allowed::Names(names.iter().map(ToString::to_string).collect())
    }

    fn uid_of(name: &str) -> Option<u32> {
        match name {
            GATE_USER | "gatekeeper" => Some(970),
            "dynamic" => Some(*GATE_UIDS.start()),
            "borrowed" => Some(LAST_UID),
            "root" | "toor" => Some(0),
            "ann" | "ann2" => Some(1000),
            _ => None,
        }
    }

    fn ask(asked: &str, allowed: &Allowed) -> Result<(), UserError> {
        permit(asked, uid_of(asked).unwrap(), allowed, uid_of)
    }

    #[test]
    fn an_alias_of_root_is_root() {
        assert!(
            matches!(ask("toor", &names(&["ann"])), Err(UserError::AliasOfRoot(name)) if name == "toor")
        );
        assert!(matches!(
            ask("toor", &names(&["toor"])),
            Err(UserError::AliasOfRoot(_))
        ));
        assert!(matches!(
            ask("root", &names(&["toor"])),
            Err(UserError::NotAllowed(_))
        ));
        assert!(ask("toor", &names(&["root"])).is_ok());
    }

    #[test]
    fn a_user_is_compared_by_uid_and_not_listed_means_no() {
        assert!(ask("ann2", &names(&["ann"])).is_ok());
        assert!(
            matches!(ask("ann", &names(&["root", "gone"])), Err(UserError::NotAllowed(name)) if name == "ann")
        );
        assert!(matches!(
            ask("ann", &names(&[])),
            Err(UserError::NotAllowed(_))
        ));
        assert!(ask("root", &Allowed::All).is_ok());
    }

    #[test]
    fn no_script_runs_as_a_user_of_ours_whatever_the_owner_allows() {
        for user in [GATE_USER, "gatekeeper", "dynamic", "borrowed"] {
            for allowed in [Allowed::All, names(&[user])] {
                assert!(
                    matches!(ask(user, &allowed), Err(UserError::Reserved(name)) if name == user),
                    "{user}"
                );
            }
        }
    }

    #[test]
    fn numbers_and_strange_names_are_no_users() {
        for name in [
            "",
            "0",
            "-1",
            "+0",
            "4294967295",
            "root\n",
            "root\0",
            "-rf",
            "a b",
            "../root",
            "r:o",
        ] {
            assert!(
                matches!(look_up(name), Err(UserError::NotAName(_))),
                "{name:?}"
            );
        }
        assert!(
            matches!(look_up("no-such-user-here"), Err(UserError::Unknown(name)) if name == "no-such-user-here")
        );
    }

    #[test]
    fn real_users_resolve_with_their_groups() {
        if !Uid::effective().is_root() {
            let own = own_user().unwrap();
            assert!(matches!(
                resolve("ephemeral", &Allowed::All),
                Err(UserError::AgentIsNotRoot { .. })
            ));
            assert_eq!(
                resolve(&own.name.clone(), &names(&[])).unwrap(),
                RunAs::Named(own)
            );
            return;
        }
        let RunAs::Named(root) = resolve("root", &names(&["root"])).unwrap() else {
            panic!("root is a named user")
        };
        assert_eq!((root.uid, root.gid), (0, 0));
        assert!(root.groups.contains(&0));
        assert_eq!(
            resolve("ephemeral", &names(&["ephemeral"])).unwrap(),
            RunAs::Ephemeral
        );
        assert!(matches!(
            resolve("ephemeral", &names(&["root"])),
            Err(UserError::NotAllowed(_))
        ));
        assert!(
            matches!(resolve("root", &names(&["ephemeral", "nobody"])), Err(UserError::NotAllowed(name)) if name == "root")
        );
    }
}
