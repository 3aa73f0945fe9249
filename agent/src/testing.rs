//! What unit tests of several modules need.

use sluice_protocol::bundle::Submission;
use sluice_protocol::digest::Digest;
use sluice_protocol::ids::{JobId, OperationId};
use sluice_protocol::message::operation::Operation;
use sluice_protocol::units::Span;

use crate::ledger::Passed;

/// What an honest host would send.
pub(crate) fn operation() -> Operation {
    Operation {
        operation: OperationId::generate(),
        job: JobId::generate(),
        submission: Submission::of("#!/bin/sh\n:\n").into(),
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

/// What is known of an operation when it starts.
pub(crate) fn passed() -> Passed {
    Passed {
        bundle_sha256: Digest::of(b"x"),
        run_as: "nobody".to_owned(),
        time_limit: Span::seconds(7),
        workspaces: "/run/somewhere".into(),
        boot: "one".to_owned(),
        findings: vec![],
        checks: vec![],
        receipts: vec![],
        notes: vec!["a warning".to_owned()],
    }
}
