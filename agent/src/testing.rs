//! What unit tests of several modules need.

use sluice_protocol::bundle::{Compatibility, Limits, Submission};
use sluice_protocol::digest::Digest;
use sluice_protocol::ids::{JobId, OperationId};
use sluice_protocol::message::operation::Operation;

/// What an honest host would send.
pub(crate) fn operation() -> Operation {
    Operation {
        operation: OperationId::generate(),
        job: JobId::generate(),
        submission: Submission {
            script: b"#!/bin/sh\n:\n".to_vec(),
            declared: None,
            interpreter: None,
            parameters: vec![],
            environment: vec![],
            attachments: vec![],
            secrets: vec![],
            run_as: None,
            limits: Limits::default(),
            confinement: None,
            compatibility: Compatibility::None,
        },
        bundle_sha256: Digest::of(b"bundle"),
        not_after: u64::MAX,
        gates_revision: 1,
        skip_security_scan: false,
        targets: 1,
        operator: "ann".to_owned(),
        submitted_at: "2026-01-01T00:00:00Z".to_owned(),
        authorizations: vec![],
    }
}
