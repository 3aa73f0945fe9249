//! Secrets of operations: opened with the machine's own key, right before a start.
//!
//! The ledger keeps an operation as it came, so on this machine's disk a secret is sealed too, to a key beside it. It is in
//! clear in the agent's memory for as long as it takes to describe the operation to a shim, in that shim's memory, and in a
//! file of the operation's private directory.

use std::fmt;

use serde_bytes::ByteBuf;
use sluice_protocol::ending::Ending;
use sluice_protocol::environment::secret_variable;
use sluice_protocol::message::operation::Operation;
use sluice_protocol::secret;
use sluice_shim::spec::Secret;
use sluice_transport::identity::MachineIdentity;
use sluice_transport::sealing::{Purpose, SealingError, SealingKey};

/// Opens the secrets of this machine's operations.
pub struct Secrets {
    machine: MachineIdentity,
    key: SealingKey,
    public: Vec<u8>,
}

impl Secrets {
    /// With the machine's key.
    ///
    /// # Errors
    ///
    /// Never for a key that could be read.
    pub fn new(machine: MachineIdentity, key: SealingKey) -> Result<Self, SealingError> {
        let public = key.public()?;
        Ok(Self {
            machine,
            key,
            public,
        })
    }

    /// What a host seals to.
    #[must_use]
    pub fn public(&self) -> &[u8] {
        &self.public
    }

    /// Opens the secrets with these `names`, which are those of the bundle, in their order.
    ///
    /// # Errors
    ///
    /// One did not come, or comes without a name in the bundle, or cannot be opened. Nothing may be started then.
    pub fn open(&self, operation: &Operation, names: &[String]) -> Result<Vec<Secret>, Ending> {
        let wrong = |problem: String| Ending::Error(format!("{problem}; nothing was started"));
        secret::check(names.iter().map(String::as_str))
            .map_err(|error| wrong(error.to_string()))?;
        let given = &operation.secrets;
        if given.iter().any(|sealed| !names.contains(&sealed.name)) {
            return Err(wrong("a secret came that the job does not name".to_owned()));
        }
        names
            .iter()
            .map(|name| {
                let mut sealed = given.iter().filter(|sealed| sealed.name == *name);
                let (Some(sealed), None) = (sealed.next(), sealed.next()) else {
                    return Err(wrong(format!(
                        "the secret {name} did not come with the operation; was it revoked on the host?"
                    )));
                };
                let purpose = Purpose {
                    machine: self.machine,
                    operation: operation.operation,
                    name,
                };
                let value = self.key.open(purpose, &sealed.bytes);
                let value = value.map_err(|error| {
                    wrong(format!(
                        "the secret {name} cannot be opened on this machine: {error}"
                    ))
                })?;
                secret::check_value(&value)
                    .map_err(|error| wrong(format!("the secret {name} is none: {error}")))?;
                Ok(Secret {
                    variable: secret_variable(name),
                    name: name.clone(),
                    value: ByteBuf::from(value.to_vec()),
                })
            })
            .collect()
    }
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Secrets").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use sluice_protocol::ids::{MachineId, OperationId, TenantId};
    use sluice_protocol::secret::Sealed;
    use sluice_transport::sealing::seal;

    use super::*;
    use crate::testing::operation;

    fn secrets() -> Secrets {
        let machine = MachineIdentity {
            tenant: TenantId::generate(),
            machine: MachineId::generate(),
        };
        Secrets::new(machine, SealingKey::generate().unwrap()).unwrap()
    }

    fn sealed(secrets: &Secrets, operation: OperationId, name: &str, value: &[u8]) -> Sealed {
        let purpose = Purpose {
            machine: secrets.machine,
            operation,
            name,
        };
        Sealed {
            name: name.to_owned(),
            bytes: seal(secrets.public(), purpose, value).unwrap(),
        }
    }

    fn message(ending: Result<Vec<Secret>, Ending>) -> String {
        ending.unwrap_err().message()
    }

    #[test]
    fn secrets_are_opened_in_the_order_of_the_bundle_and_named_by_their_variables() {
        let (secrets, mut operation) = (secrets(), operation());
        let seal = |name, value| sealed(&secrets, operation.operation, name, value);
        operation.secrets = vec![
            seal("db-password", b"hunter22\n"),
            seal("a", b"\0\xff\0\xff"),
        ];
        let names = ["a".to_owned(), "db-password".to_owned()];
        let opened = secrets.open(&operation, &names).unwrap();
        let seen: Vec<_> = opened
            .iter()
            .map(|secret| (secret.variable.as_str(), secret.value.as_slice()))
            .collect();
        let expected = [
            ("SLUICE_SECRET_A", &b"\0\xff\0\xff"[..]),
            ("SLUICE_SECRET_DB_PASSWORD", b"hunter22\n"),
        ];
        assert_eq!(seen, expected);
        assert!(!format!("{opened:?}").contains("hunter22"));
    }

    #[test]
    fn without_every_secret_and_none_besides_nothing_is_started() {
        let (secrets, mut operation) = (secrets(), operation());
        let names = ["a".to_owned()];
        let id = operation.operation;
        let good = sealed(&secrets, id, "a", b"hunter22");
        for (given, expected) in [
            (vec![], "the secret a did not come"),
            (
                vec![good.clone(), good.clone()],
                "the secret a did not come",
            ),
            (
                vec![good.clone(), sealed(&secrets, id, "b", b"hunter22")],
                "that the job does not name",
            ),
            (
                vec![sealed(&secrets, OperationId::generate(), "a", b"hunter22")],
                "the secret a cannot be opened",
            ),
            (
                vec![sealed(&secrets, id, "a", b"abc")],
                "the secret a is none",
            ),
        ] {
            operation.secrets = given;
            let said = message(secrets.open(&operation, &names));
            assert!(said.contains(expected), "{said}");
            assert!(!said.contains("hunter22"), "{said}");
        }
        operation.secrets = Vec::new();
        let both = ["a-b".to_owned(), "a_b".to_owned()];
        assert!(message(secrets.open(&operation, &both)).contains("given twice"));
        assert!(secrets.open(&operation, &[]).unwrap().is_empty());
    }
}
