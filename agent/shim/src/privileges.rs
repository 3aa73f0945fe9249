//! Giving rights up: all of them for the script's process, almost all for the shim once that runs.

use std::collections::HashSet;

use caps::{CapSet, Capability, CapsHashSet};
use nix::unistd::{Gid, Uid, getgroups, getresgid, getresuid, setgroups, setresgid, setresuid};

/// A step that failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PrivilegeError {
    #[error("cannot {what}: {source}")]
    Errno {
        what: &'static str,
        source: nix::Error,
    },
    #[error("cannot {what}: {source}")]
    Caps {
        what: &'static str,
        source: caps::errors::CapsError,
    },
    #[error("{0} are not what was asked for after the change of user")]
    NotApplied(&'static str),
}

/// Becomes a user for good, in the order that works: bounding set, groups, gid, uid, the other capability sets. Checked
/// afterwards, as each of these calls has a history of failing where nobody looked. A root job keeps its capabilities.
pub(crate) fn become_user(uid: Uid, gid: Gid, groups: &[Gid]) -> Result<(), PrivilegeError> {
    if !uid.is_root() {
        caps::clear(None, CapSet::Bounding).map_err(caps_error("empty the bounding set"))?;
    }
    setgroups(groups).map_err(errno("set the supplementary groups"))?;
    setresgid(gid, gid, gid).map_err(errno("set the group"))?;
    setresuid(uid, uid, uid).map_err(errno("set the user"))?;
    if !uid.is_root() {
        // The change of user emptied all but the inheritable set.
        caps::clear(None, CapSet::Inheritable).map_err(caps_error("empty the inheritable set"))?;
    }
    verify(uid, gid, groups)
}

fn verify(uid: Uid, gid: Gid, groups: &[Gid]) -> Result<(), PrivilegeError> {
    let users = getresuid().map_err(errno("read the user"))?;
    if [users.real, users.effective, users.saved] != [uid; 3] {
        return Err(PrivilegeError::NotApplied("user ids"));
    }
    let gids = getresgid().map_err(errno("read the group"))?;
    if [gids.real, gids.effective, gids.saved] != [gid; 3] {
        return Err(PrivilegeError::NotApplied("group ids"));
    }
    let set = |groups: &[Gid]| groups.iter().map(|g| g.as_raw()).collect::<HashSet<_>>();
    if set(&getgroups().map_err(errno("read the groups"))?) != set(groups) {
        return Err(PrivilegeError::NotApplied("supplementary groups"));
    }
    if uid.is_root() {
        return Ok(());
    }
    if setresuid(
        Uid::from_raw(u32::MAX),
        Uid::from_raw(0),
        Uid::from_raw(u32::MAX),
    )
    .is_ok()
    {
        return Err(PrivilegeError::NotApplied("user ids"));
    }
    for which in [
        CapSet::Bounding,
        CapSet::Permitted,
        CapSet::Effective,
        CapSet::Inheritable,
        CapSet::Ambient,
    ] {
        if !caps::read(None, which)
            .map_err(caps_error("read a capability set"))?
            .is_empty()
        {
            return Err(PrivilegeError::NotApplied("capability sets"));
        }
    }
    Ok(())
}

/// What the shim keeps after the start: to kill the script's processes, and to remove its directory, which belongs to
/// another user (`DAC_OVERRIDE` to enter it whatever its mode, `FOWNER` for directories that the script made sticky).
pub(crate) fn keep_what_ending_needs() -> Result<(), PrivilegeError> {
    let keep: CapsHashSet = [
        Capability::CAP_KILL,
        Capability::CAP_DAC_OVERRIDE,
        Capability::CAP_FOWNER,
    ]
    .into();
    let had = caps::read(None, CapSet::Permitted).map_err(caps_error("read a capability set"))?;
    let keep = keep.intersection(&had).copied().collect();
    for which in [CapSet::Effective, CapSet::Permitted] {
        caps::set(None, which, &keep).map_err(caps_error("give up capabilities"))?;
    }
    Ok(())
}

fn errno(what: &'static str) -> impl FnOnce(nix::Error) -> PrivilegeError {
    move |source| PrivilegeError::Errno { what, source }
}

fn caps_error(what: &'static str) -> impl FnOnce(caps::errors::CapsError) -> PrivilegeError {
    move |source| PrivilegeError::Caps { what, source }
}
