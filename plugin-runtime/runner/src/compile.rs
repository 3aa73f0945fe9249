//! One request, one answer, no guest code.

use std::io;
use std::os::unix::net::UnixStream;

use sluice_gate_client::wire::{self, CompileRequest, CompileResponse};
use sluice_plugin_runtime::engine::{Allocation, Effort, GateEngine};
use sluice_plugin_runtime::{admission, snapshot};

pub(crate) fn run(mut socket: UnixStream, _walls: Vec<String>) -> io::Result<()> {
    let Some(request) = wire::read::<CompileRequest>(&mut socket)? else {
        return Ok(());
    };
    let response = match request {
        CompileRequest::Inspect(bytes) => {
            CompileResponse::Inspected(Box::new(admission::admit(&bytes)))
        }
        CompileRequest::Instrument(bytes) => {
            CompileResponse::Instrumented(Box::new(admission::admit(&bytes).map(|admitted| {
                let artifact = snapshot::instrument(&bytes)
                    .and_then(|instrumented| compile(&instrumented, Effort::Little));
                (admitted, artifact)
            })))
        }
        CompileRequest::Compile(bytes) => CompileResponse::Compiled(compile(&bytes, Effort::Full)),
    };
    wire::write(&mut socket, &response)
}

fn compile(component: &[u8], effort: Effort) -> Result<serde_bytes::ByteBuf, String> {
    let engine =
        GateEngine::new(Allocation::OnDemand, effort).map_err(|error| format!("{error:#}"))?;
    engine
        .compile(component)
        .map(Into::into)
        .map_err(|error| format!("it does not compile: {error:#}"))
}
