//! What the ledger keeps of an operation, as bytes: the number of the format, then CBOR.
//!
//! Another version of the agent may have written it, before an upgrade or a downgrade. What cannot be read is a value of its
//! own ([`Unreadable`]), so that one operation is answered with it and the others go on.

use serde::Serialize;
use serde::de::DeserializeOwned;
use sluice_protocol::causes::Causes;
use sluice_protocol::codec::{self, DecodeError, EncodeError};

/// The format of this version. Whatever changes the form of what is kept (an operation as it came, what is known when it
/// starts, its report) raises it; a reader that can take the one before too may then do so.
const FORMAT: u8 = 2;

/// What is kept of an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kept {
    /// As it came.
    Operation,
    /// What was known when it started.
    Start,
    /// How it ended.
    Report,
}

impl Kept {
    /// The word on the record.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Operation => "operation",
            Self::Start => "start",
            Self::Report => "report",
        }
    }
}

/// Why something that was kept cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// Another version of the agent wrote it.
    #[error("another version of Sluice wrote it (format {0}, and not {FORMAT})")]
    Format(u8),
    /// It is not what was written.
    #[error("it is damaged")]
    Damaged(#[from] DecodeError),
    /// There is none.
    #[error("it is not there")]
    Missing,
}

impl Unreadable {
    /// With its cause, on one line.
    #[must_use]
    pub fn sentence(&self) -> String {
        Causes(self).to_string()
    }
}

/// The bytes to keep.
///
/// # Errors
///
/// As [`codec::encode`].
pub(crate) fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, EncodeError> {
    let mut bytes = vec![FORMAT];
    bytes.append(&mut codec::encode(value)?);
    Ok(bytes)
}

/// What was kept.
///
/// # Errors
///
/// It is not there, of another version, or something else.
pub(crate) fn decode<T: Serialize + DeserializeOwned>(
    bytes: Option<&[u8]>,
) -> Result<T, Unreadable> {
    match bytes.and_then(|bytes| bytes.split_first()) {
        Some((&FORMAT, value)) => Ok(codec::decode(value)?),
        Some((&other, _)) => Err(Unreadable::Format(other)),
        None => Err(Unreadable::Missing),
    }
}

#[cfg(test)]
mod tests {
    use sluice_protocol::bundle::{Attachment, Confinement};
    use sluice_protocol::digest::Digest;
    use sluice_protocol::ending::Ending;
    use sluice_protocol::message::operation::Approval;
    use sluice_protocol::receipt::{Attestation, GateLimits, Receipt, Stage, Whose};
    use sluice_protocol::report::{Context, Exit, LimitHit, Mode, Report};
    use sluice_protocol::secret::Sealed;
    use sluice_protocol::units::Span;

    use super::*;
    use crate::ledger::Passed;
    use crate::testing::operation;

    #[test]
    fn what_another_version_kept_is_told_from_what_is_damaged() {
        let kept = operation();
        let bytes = encode(&kept).expect("encodes");
        assert_eq!(decode(Some(&bytes)), Ok(kept.clone()));
        let mut other = bytes.clone();
        other[0] = FORMAT + 1;
        // Without a number, as a version would have kept it that knew none.
        for bytes in [&other, &bytes[1..]] {
            let read = decode::<Passed>(Some(bytes));
            assert_eq!(read, Err(Unreadable::Format(bytes[0])));
        }
        let torn = decode::<Passed>(Some(&bytes[..bytes.len() - 1]));
        assert!(matches!(torn, Err(Unreadable::Damaged(_))), "{torn:?}");
        for nothing in [None, Some(&[][..])] {
            let read = decode::<Passed>(nothing);
            assert_eq!(read, Err(Unreadable::Missing));
        }
    }

    #[test]
    fn what_is_kept_has_the_form_that_goes_with_its_number() {
        let mut asked = operation();
        let id = "0192f7c8-0000-7000-8000-000000000001";
        asked.operation = id.parse().expect("is an id");
        asked.job = id.parse().expect("is an id");
        asked.submission.confinement = Some(Confinement::Strict);
        asked.approval = Some(Approval {
            bundle_sha256: Digest::of(b"b"),
            machine: id.parse().expect("is an id"),
            by: "carol".to_owned(),
        });
        asked.submission.attachments.push(Attachment {
            name: "a".to_owned(),
            sha256: Digest::of(b"a"),
            size: 1,
        });
        asked.secrets.push(Sealed {
            name: "t".to_owned(),
            bytes: vec![7],
        });
        let receipt = || Receipt {
            whose: Whose::Host,
            stage: Stage::Scan,
            plugin: "p".to_owned(),
            version: "1.0.0".to_owned(),
            component_sha256: Digest::of(b"c"),
            settings_sha256: Digest::of(b"s"),
            data_sha256: Vec::new(),
            contract: "1".to_owned(),
            runtime: "1".to_owned(),
            limits: GateLimits {
                fuel: 1,
                memory: 2,
                time_ms: 3,
                answer: 4,
            },
            bundle_sha256: None,
            input_sha256: Digest::of(b"q"),
            verdict_sha256: Digest::of(b"v"),
            verdict: "pass".to_owned(),
            fuel: 1,
            duration_us: 2,
            cached: false,
            mode: Mode::Enforce,
        };
        let passed = Passed {
            bundle_sha256: Digest::of(b"b"),
            run_as: "nobody".to_owned(),
            time_limit: Span::seconds(1),
            workspaces: "/w".into(),
            boot: "b".to_owned(),
            findings: Vec::new(),
            checks: Vec::new(),
            receipts: vec![receipt()],
            notes: vec!["n".to_owned()],
        };
        let report = Report {
            exit: Some(Exit::Code(1)),
            bundle_sha256: Some(Digest::of(b"b")),
            limit_hit: Some(LimitHit::Memory),
            started_at: Some(2),
            duration_ms: Some(3),
            run_as: Some("nobody".to_owned()),
            context: Some(Context {
                uid: 4,
                gids: vec![5],
                cwd: "/".to_owned(),
                interpreter: "/i".to_owned(),
            }),
            containment: Some("none".to_owned()),
            confinement: Some("none".to_owned()),
            receipts: vec![receipt()],
            attestation: Some(Attestation {
                signature: vec![9],
                inputs: None,
            }),
            notes: vec!["n".to_owned()],
            ..Report::without_process(Ending::ExitCode(1), 6)
        };
        let kept = [encode(&asked), encode(&passed), encode(&report)];
        let written: Vec<u8> = kept
            .into_iter()
            .flat_map(|kept| kept.expect("encodes"))
            .collect();
        // Where the form is another on purpose, the number goes up, and the digest is that of the new form.
        assert_eq!(
            (FORMAT, Digest::of(&written).to_string().as_str()),
            (
                2,
                "3fc4f79283eb604b81e05055078c5fa1546ccce226348f84b5fbb17d8163769b"
            )
        );
    }
}
