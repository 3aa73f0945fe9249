//! What a machine tells about an operation, on one stream.

use sluice_protocol::ids::OperationId;
use sluice_protocol::message::operation::{OutputStream, Progress};
use sluice_protocol::report::Report;

/// One progress stream, as far as it has come.
#[derive(Debug, Clone)]
pub(super) struct Telling {
    pub(super) operation: OperationId,
    pub(super) progress: Vec<Progress>,
}

/// Everything that one stream told about an operation, to its end.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// How it ended.
    pub report: Report,
    /// Everything on stdout.
    pub stdout: Vec<u8>,
    /// Everything on stderr.
    pub stderr: Vec<u8>,
}

impl Answer {
    /// The state's word and the message for operators.
    #[must_use]
    pub fn ending(&self) -> (&'static str, String) {
        let ending = &self.report.ending;
        (ending.state().as_str(), ending.message())
    }

    /// Checks state and message in one go.
    ///
    /// # Panics
    ///
    /// Where they are others, with all that is known.
    pub fn expect(&self, state: &str, message: &str) -> &Self {
        let ending = self.ending();
        assert_eq!((ending.0, ending.1.as_str()), (state, message), "{self:#?}");
        self
    }
}

impl Telling {
    /// The whole answer, once the report is here.
    pub(super) fn answer(&self) -> Option<Answer> {
        let Some(Progress::Finished(report)) = self.progress.last() else {
            return None;
        };
        let output = |stream: OutputStream| {
            let mut bytes = Vec::new();
            for progress in &self.progress {
                if let Progress::Output(chunk) = progress
                    && chunk.stream == stream
                {
                    assert_eq!(chunk.offset, bytes.len() as u64, "a gap in {stream:?}");
                    bytes.extend_from_slice(&chunk.bytes);
                }
            }
            bytes
        };
        let mut report = (**report).clone();
        for progress in &self.progress {
            if let Progress::Receipts(attested) = progress {
                assert!(
                    report.receipts.is_empty() && report.attestation.is_none(),
                    "receipts came twice: {:#?}",
                    self.progress
                );
                report.receipts.clone_from(&attested.receipts);
                report.attestation = Some(attested.attestation.clone());
            }
        }
        Some(Answer {
            report,
            stdout: output(OutputStream::Stdout),
            stderr: output(OutputStream::Stderr),
        })
    }
}
