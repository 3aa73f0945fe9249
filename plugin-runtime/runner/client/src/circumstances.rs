//! What gates were asked beside the submission. It is kept with their receipts, so that the very questions can be made again.
//!
//! Secrets are not in it: what gates see of those are names.

use serde::{Deserialize, Serialize};
use sluice_gate_types::answer::{Check, Finding, Planned};
use sluice_gate_types::input::Attribute;
use sluice_protocol::codec::{self, DecodeError};

/// What was known of machine and job, and what the stages before have answered that counts.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Circumstances {
    /// What was known about the machine.
    pub facts: Vec<Attribute>,
    /// The circumstances of the job.
    pub job: Vec<Attribute>,
    /// What enforcing preparers planned.
    pub plan: Vec<Planned>,
    /// What enforcing environment gates said, as policies see it.
    pub checks: Vec<Check>,
    /// What enforcing scanners found, as policies see it.
    pub findings: Vec<Finding>,
}

impl Circumstances {
    /// The bytes to keep; none where there would be more than `most`.
    #[must_use]
    pub fn encode(&self, most: usize) -> Option<Vec<u8>> {
        let bytes = codec::encode(self).ok()?;
        (bytes.len() <= most).then_some(bytes)
    }

    /// What was kept.
    ///
    /// # Errors
    ///
    /// It is something else.
    pub fn read(bytes: &[u8]) -> Result<Self, DecodeError> {
        codec::decode(bytes)
    }
}

#[cfg(test)]
mod tests {
    use sluice_gate_types::answer::Destination;
    use sluice_gate_types::input::{Origin, Value};

    use super::*;

    #[test]
    fn what_was_asked_is_read_as_it_was_or_not_kept_at_all() {
        let texts = Value::Texts(vec!["bash".to_owned(), "é".to_owned()]);
        let kept = Circumstances {
            facts: vec![
                Attribute::new("load", Value::Decimal(0.25), Origin::Machine),
                Attribute::new("commands", texts, Origin::Machine),
            ],
            job: vec![Attribute::new(
                "targets",
                Value::Integer(-1),
                Origin::HostClaim,
            )],
            plan: vec![Planned {
                name: "who".to_owned(),
                value: Value::Boolean(true),
                destination: Destination::Argument,
            }],
            ..Circumstances::default()
        };
        let bytes = kept.encode(1 << 10).expect("fits");
        assert_eq!(Circumstances::read(&bytes), Ok(kept.clone()));
        assert_eq!(kept.encode(bytes.len() - 1), None);
        assert!(Circumstances::read(&bytes[1..]).is_err());
    }
}
