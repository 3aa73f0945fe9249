//! What a token may do.

use std::fmt;
use std::str::FromStr;

/// A permission. A token has a list of them; what is not on the list is refused, by name.
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
    /// Enroll, rename, tag and revoke machines.
    ManageMachines,
    /// Give secrets to scripts.
    UseSecret,
    /// Set, rotate and revoke secrets.
    ManageSecrets,
    /// Leave out the host's scanners.
    SkipSecurityScan,
    /// Read the audit log.
    ReadAudit,
    /// Make and revoke tokens.
    Administer,
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
        Self::ReadAudit,
        Self::Administer,
    ];

    /// Whether who has this one may do what `needed` is for: each gives itself, and who may run any script may run a
    /// stored one.
    #[must_use]
    pub fn gives(self, needed: Self) -> bool {
        self == needed || (self == Self::RemoteExecution && needed == Self::RunStoredScripts)
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
            Self::ReadAudit => "ReadAudit",
            Self::Administer => "Administer",
        }
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
    fn who_may_run_any_script_may_run_a_stored_one_and_not_the_other_way_round() {
        for held in Permission::ALL {
            for needed in Permission::ALL {
                let given = held == needed
                    || (*held, *needed)
                        == (Permission::RemoteExecution, Permission::RunStoredScripts);
                assert_eq!(held.gives(*needed), given, "{held} {needed}");
            }
        }
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
