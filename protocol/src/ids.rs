//! Ids. Each is a UUID in its own type, so that a tenant's id cannot be passed where a machine's is wanted.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Uuid);

        impl $name {
            /// A new random id (UUID version 7, so that ids of one kind sort by the time they were made).
            #[must_use]
            #[allow(
                clippy::disallowed_methods,
                reason = "an id has the time in it so that ids sort; nothing is decided by it"
            )]
            pub fn generate() -> Self {
                Self(Uuid::now_v7())
            }

            /// The id that `uuid` stands for.
            #[must_use]
            pub const fn from_uuid(uuid: Uuid) -> Self {
                Self(uuid)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.hyphenated().fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({})", stringify!($name), self.0.hyphenated())
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;

            /// Takes the hyphenated lower-case form alone, so that one id has one spelling.
            fn from_str(text: &str) -> Result<Self, InvalidId> {
                let uuid = Uuid::try_parse(text).map_err(|_| InvalidId)?;
                if uuid.hyphenated().to_string() == text { Ok(Self(uuid)) } else { Err(InvalidId) }
            }
        }
    };
}

id!(/// A customer of the provider.
    TenantId);
id!(/// An enrolled computer.
    MachineId);
id!(/// What an operator asked, perhaps for many machines.
    JobId);
id!(/// A job's run on one machine.
    OperationId);
id!(/// An enrollment token's public part.
    TokenId);
id!(/// A plugin put to use.
    BindingId);
id!(/// A script that runs by itself.
    ScheduleId);
id!(/// A host.
    HostId);

/// The text is not an id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an id (expected the form 01890a5d-ac96-774b-bcce-b302099a8057)")]
pub struct InvalidId;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_id_has_one_spelling() {
        let id = JobId::generate();
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!(
            id.to_string().to_uppercase().parse::<JobId>(),
            Err(InvalidId)
        );
        assert_eq!(
            id.to_string().replace('-', "").parse::<JobId>(),
            Err(InvalidId)
        );
        assert_eq!("../etc/passwd".parse::<JobId>(), Err(InvalidId));
    }
}
