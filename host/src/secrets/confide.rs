//! From the secrets that a job names to values that only its machines can open.

use std::collections::HashMap;

use sluice_protocol::ending::Ending;
use sluice_protocol::ids::{MachineId, OperationId, TenantId};
use sluice_protocol::secret::Sealed;
use sluice_transport::identity::MachineIdentity;
use sluice_transport::sealing::{Purpose, seal};
use zeroize::Zeroizing;

use crate::host::SharedHost;
use crate::store::secrets::{self, SecretRow};
use crate::store::{Connection, StoreError};

/// Whether a job may name these secrets now.
///
/// # Errors
///
/// One is not there, or was revoked.
pub fn are_usable(conn: &Connection, tenant: TenantId, names: &[String]) -> Result<(), UseError> {
    names
        .iter()
        .try_for_each(|name| usable(conn, tenant, name).map(|_| ()))
}

fn usable(
    conn: &Connection,
    tenant: TenantId,
    name: &str,
) -> Result<(SecretRow, Vec<u8>), UseError> {
    let none = || UseError::NoSecret(name.to_owned());
    let mut row = secrets::find(conn, tenant, name)?.ok_or_else(none)?;
    match row.value.take() {
        Some(value) => Ok((row, value)),
        None => Err(UseError::Revoked(name.to_owned())),
    }
}

/// How much one job may have sealed for all of its machines, in bytes: it is in memory at once, and in one transaction.
const MOST_SEALED: usize = 64 << 20;

/// The secrets of a job, sealed to its machines.
#[derive(Debug, Default)]
pub struct Confided {
    /// Which version of each was sealed.
    versions: Vec<(String, u64)>,
    /// What was sealed, or why nothing could be.
    sealed: HashMap<OperationId, Result<Vec<Sealed>, Ending>>,
}

impl Confided {
    /// Decrypts the secrets with these names and seals them to the machine of each operation, on a thread where that may take
    /// its time. Nothing that is decrypted leaves it.
    ///
    /// # Errors
    ///
    /// One is not there, was revoked, or cannot be decrypted.
    pub async fn seal(
        host: &SharedHost,
        tenant: TenantId,
        names: &[String],
        operations: Vec<(OperationId, MachineId)>,
    ) -> Result<Self, UseError> {
        if names.is_empty() {
            return Ok(Self::default());
        }
        let (key, names) = (host.secrets.clone(), names.to_vec());
        host.store
            .scan(move |conn| {
                let (mut versions, mut values) = (Vec::new(), Vec::new());
                for name in names {
                    let (row, encrypted) = usable(conn, tenant, &name)?;
                    let value = key.decrypt(tenant, &name, row.version, &encrypted);
                    let value = value.ok_or_else(|| UseError::Unreadable(name.clone()))?;
                    versions.push((name.clone(), row.version));
                    values.push((name, value));
                }
                let bytes: usize = values.iter().map(|(_, value)| value.len()).sum();
                if bytes.saturating_mul(operations.len()) > MOST_SEALED {
                    return Err(UseError::TooMuch {
                        bytes,
                        machines: operations.len(),
                    });
                }
                let mut sealed = HashMap::new();
                for (operation, machine) in operations {
                    let key = secrets::sealing_key(conn, tenant, machine)?;
                    let machine = MachineIdentity { tenant, machine };
                    sealed.insert(operation, to_machine(key, machine, operation, &values));
                }
                Ok(Self { versions, sealed })
            })
            .await
    }

    /// What was sealed for an operation; nothing where the job names no secret.
    ///
    /// # Errors
    ///
    /// Its machine has no key that can be used: its end.
    pub fn of(&self, operation: OperationId) -> Result<Vec<Sealed>, Ending> {
        self.sealed
            .get(&operation)
            .cloned()
            .unwrap_or(Ok(Vec::new()))
    }

    /// Keeps what was sealed for these operations until they end, in the transaction that stores them.
    ///
    /// # Errors
    ///
    /// A secret was revoked or rotated since it was sealed.
    pub fn store(
        &self,
        conn: &Connection,
        tenant: TenantId,
        operations: &[OperationId],
    ) -> Result<(), UseError> {
        for (name, version) in &self.versions {
            if usable(conn, tenant, name)?.0.version != *version {
                return Err(UseError::Rotated(name.clone()));
            }
        }
        for operation in operations {
            for sealed in self.of(*operation).unwrap_or_default() {
                secrets::insert_sealed(conn, tenant, *operation, &sealed)?;
            }
        }
        Ok(())
    }
}

fn to_machine(
    key: Option<Vec<u8>>,
    machine: MachineIdentity,
    operation: OperationId,
    values: &[(String, Zeroizing<Vec<u8>>)],
) -> Result<Vec<Sealed>, Ending> {
    let seal = |name: &String, value: &[u8]| {
        let purpose = Purpose {
            machine,
            operation,
            name,
        };
        let bytes = seal(key.as_deref()?, purpose, value).ok()?;
        let name = name.clone();
        Some(Sealed { name, bytes })
    };
    let sealed = values.iter().map(|(name, value)| seal(name, value));
    sealed.collect::<Option<_>>().ok_or_else(|| {
        Ending::Error(
            "this machine has not said yet which key secrets are to be sealed to; run the job again once it was connected"
                .to_owned(),
        )
    })
}

/// A job cannot have a secret.
#[derive(Debug, thiserror::Error)]
pub enum UseError {
    /// None there.
    #[error("there is no secret {}; no job was made; see sluice secret list", .0.escape_debug())]
    NoSecret(String),
    /// It has no value any more.
    #[error(
        "the secret {0} was revoked; no job was made; set it again (sluice secret set) if it is needed"
    )]
    Revoked(String),
    /// It was encrypted with another key.
    #[error(
        "the value of the secret {0} cannot be decrypted with this host's key; no job was made; set it again (sluice secret set)"
    )]
    Unreadable(String),
    /// It has another value now.
    #[error("the secret {0} was rotated at this moment; no job was made; submit it again")]
    Rotated(String),
    /// Every machine gets a copy of its own.
    #[error(
        "the secrets of this job have {bytes} bytes, and each of its {machines} machines gets a copy of its own, together more than {} MiB; no job was made; give it smaller secrets or fewer machines",
        MOST_SEALED >> 20
    )]
    TooMuch {
        /// Of all values together.
        bytes: usize,
        /// How many machines.
        machines: usize,
    },
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
}
