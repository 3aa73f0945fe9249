//! What a parent makes of bytes that it does not believe, as plain functions: for tests and fuzzers, and for nothing else.

use sluice_gate_types::admission::{Admitted, Refused};
use sluice_gate_types::answer::{Answer, CallError};
use sluice_gate_types::input::Bundle;
use sluice_gate_types::manifest::Manifest;

use crate::wire::{self, CompileResponse, FromRunner, Response};
use crate::{check, wire::MAX_ANSWER};

/// No span is in a text that is longer than this, in bytes.
pub const LONGEST_TEXT: u64 = wire::MAX_FRAME as u64;

/// What a frame's bytes come to as the answer of a serving runner to a call; none where they are nothing of the kind, which
/// ends the runner.
#[must_use]
pub fn answer(
    bytes: &[u8],
    manifest: &Manifest,
    bundle: &Bundle,
) -> Option<Result<Answer, CallError>> {
    if bytes.len() > MAX_ANSWER {
        return None;
    }
    let frame: FromRunner = wire::decode(bytes).ok()?;
    match frame.response {
        Response::Called(called) => Some(check::check(called.answer, manifest, Some(bundle))),
        Response::Loaded(Err(error)) | Response::Snapshot(Err(error)) => {
            Some(Err(check::inert_error(error)))
        }
        Response::Ready(_) | Response::Loaded(Ok(())) | Response::Snapshot(Ok(_)) => None,
    }
}

/// What a parent makes of what a child says of a component.
///
/// # Errors
///
/// The reasons against it, as they are shown.
pub fn said(said: Result<Admitted, Refused>) -> Result<Admitted, Refused> {
    check::admitted(said)
}

/// The same of a compiling child to the question what a component is.
#[must_use]
pub fn inspected(bytes: &[u8]) -> Option<Result<Admitted, Refused>> {
    match wire::decode(bytes).ok()? {
        CompileResponse::Inspected(result) => Some(check::admitted(*result)),
        CompileResponse::Instrumented(result) => {
            Some(check::admitted((*result).map(|(admitted, _)| admitted)))
        }
        CompileResponse::Compiled(_) => None,
    }
}
