//! Messages as honest programs send them.

use sluice_protocol::bundle::Submission;
use sluice_protocol::digest::Digest;
use sluice_protocol::ids::{JobId, OperationId};
use sluice_protocol::message::operation::Operation;

/// An operation that runs this.
#[must_use]
pub fn operation(script: &str) -> Operation {
    Operation {
        operation: OperationId::generate(),
        job: JobId::generate(),
        submission: Submission::of(script).into(),
        bundle_sha256: Digest::of(b"bundle"),
        not_after: u64::MAX,
        gates_revision: 1,
        skip_security_scan: false,
        targets: 1,
        operator: "ann".to_owned(),
        submitted_at: "2026-01-01T00:00:00Z".to_owned(),
        authorizations: vec![],
        secrets: Vec::new(),
        approval: None,
    }
}
