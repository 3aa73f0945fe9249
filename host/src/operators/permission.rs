//! What an operator may do.

use std::fmt;
use std::str::FromStr;

/// A permission, which is an action of the schema of the roles. What nobody gives is refused, by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Permission {
    /// Run scripts on machines, and cancel what runs.
    RemoteExecution,
    /// Run scripts of the library, with parameters and as their versions say, and nothing else. [`Self::RemoteExecution`]
    /// gives it too.
    RunStoredScripts,
    /// Approve what others submitted and a policy blocked until somebody does.
    ApproveJobs,
    /// Make schedules.
    ScheduleScript,
    /// Change the script library.
    ManageScripts,
    /// Trust publishers, install and bind plugins.
    ManagePlugins,
    /// Enroll, rename, tag and revoke machines, and say when something may start there.
    ManageMachines,
    /// Give secrets to scripts.
    UseSecret,
    /// Set, rotate and revoke secrets.
    ManageSecrets,
    /// Leave out the host's scanners.
    SkipSecurityScan,
    /// Run scripts outside of maintenance windows.
    IgnoreWindows,
    /// Read the audit log.
    ReadAudit,
    /// Make and remove operators, tokens and roles; lock the host down.
    Administer,
    /// See machines, their facts and tags.
    ReadMachines,
    /// See jobs, their results and output, and schedules.
    ReadJobs,
    /// See the script library, with its texts.
    ReadScripts,
    /// See plugins, bindings and publishers.
    ReadPlugins,
}

impl Permission {
    /// Every permission: what the first token of a host has.
    pub const ALL: &[Self] = &[
        Self::RemoteExecution,
        Self::RunStoredScripts,
        Self::ApproveJobs,
        Self::ScheduleScript,
        Self::ManageScripts,
        Self::ManagePlugins,
        Self::ManageMachines,
        Self::UseSecret,
        Self::ManageSecrets,
        Self::SkipSecurityScan,
        Self::IgnoreWindows,
        Self::ReadAudit,
        Self::Administer,
        Self::ReadMachines,
        Self::ReadJobs,
        Self::ReadScripts,
        Self::ReadPlugins,
    ];

    /// What every token with a list of permissions has too: a list says what may be done, and is not about looking.
    pub const LOOKING: &[Self] = &[
        Self::ReadMachines,
        Self::ReadJobs,
        Self::ReadScripts,
        Self::ReadPlugins,
    ];

    /// Whether it is about machines, so that a role can give it for some of them.
    #[must_use]
    pub const fn is_about_machines(self) -> bool {
        matches!(
            self,
            Self::RemoteExecution
                | Self::RunStoredScripts
                | Self::ApproveJobs
                | Self::UseSecret
                | Self::SkipSecurityScan
                | Self::IgnoreWindows
                | Self::ManageMachines
        )
    }

    /// The permission that gives this one too, where there is one: who may run any script may run a stored one.
    #[must_use]
    pub const fn given_by(self) -> Option<Self> {
        match self {
            Self::RunStoredScripts => Some(Self::RemoteExecution),
            _ => None,
        }
    }

    /// Its name, in requests, refusals and the audit log.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::RemoteExecution => "RemoteExecution",
            Self::RunStoredScripts => "RunStoredScripts",
            Self::ApproveJobs => "ApproveJobs",
            Self::ScheduleScript => "ScheduleScript",
            Self::ManageScripts => "ManageScripts",
            Self::ManagePlugins => "ManagePlugins",
            Self::ManageMachines => "ManageMachines",
            Self::UseSecret => "UseSecret",
            Self::ManageSecrets => "ManageSecrets",
            Self::SkipSecurityScan => "SkipSecurityScan",
            Self::IgnoreWindows => "IgnoreWindows",
            Self::ReadAudit => "ReadAudit",
            Self::Administer => "Administer",
            Self::ReadMachines => "ReadMachines",
            Self::ReadJobs => "ReadJobs",
            Self::ReadScripts => "ReadScripts",
            Self::ReadPlugins => "ReadPlugins",
        }
    }
}

/// A set of permissions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Permissions(u32);

impl Permissions {
    /// Every permission.
    pub const ALL: Self = Self((1 << Permission::ALL.len()) - 1);

    /// Whether the permission is one of them.
    #[must_use]
    pub const fn contains(self, permission: Permission) -> bool {
        self.0 & (1 << permission as u32) != 0
    }

    /// Adds a permission.
    pub const fn insert(&mut self, permission: Permission) {
        self.0 |= 1 << permission as u32;
    }

    /// Those of either.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// One after the other, in the order of [`Permission::ALL`].
    pub fn iter(self) -> impl Iterator<Item = Permission> {
        let all = Permission::ALL.iter().copied();
        all.filter(move |permission| self.contains(*permission))
    }

    /// The same in words.
    #[must_use]
    pub fn words(self) -> Vec<String> {
        let words = self.iter().map(|permission| permission.as_str().to_owned());
        words.collect()
    }
}

impl FromIterator<Permission> for Permissions {
    fn from_iter<I: IntoIterator<Item = Permission>>(permissions: I) -> Self {
        let mut set = Self::default();
        for permission in permissions {
            set.insert(permission);
        }
        set
    }
}

impl fmt::Display for Permission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Permission {
    type Err = InvalidPermission;

    fn from_str(text: &str) -> Result<Self, InvalidPermission> {
        Self::ALL
            .iter()
            .copied()
            .find(|permission| permission.as_str() == text)
            .ok_or_else(|| InvalidPermission(text.to_owned()))
    }
}

/// The text is no permission.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{} is no permission (there are: {})", .0.escape_debug(), names())]
pub struct InvalidPermission(String);

fn names() -> String {
    Permission::ALL
        .iter()
        .map(|permission| permission.as_str())
        .collect::<Vec<_>>()
        .join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_has_what_was_put_into_it() {
        let set: Permissions = [Permission::ReadJobs, Permission::RemoteExecution]
            .into_iter()
            .collect();
        let found: Vec<_> = set.iter().collect();
        assert_eq!(found, [Permission::RemoteExecution, Permission::ReadJobs]);
        assert_eq!(Permissions::ALL.iter().count(), Permission::ALL.len());
    }

    #[test]
    fn names_are_read_back_and_others_refused() {
        for permission in Permission::ALL {
            assert_eq!(permission.as_str().parse(), Ok(*permission));
        }
        for text in ["", "administer", "Administer ", "*"] {
            assert!(text.parse::<Permission>().is_err(), "{text}");
        }
    }
}
