//! One request, one answer, no guest code.

use std::io;
use std::os::unix::net::UnixStream;

use sluice_gate_client::memory_file::{MemoryFile, Space};
use sluice_gate_client::passing::{self, files};
use sluice_gate_client::wire::{self, CompileRequest, CompileResponse};
use sluice_plugin_runtime::engine::{Allocation, Effort, GateEngine};
use sluice_plugin_runtime::{admission, snapshot};

pub(crate) fn run(mut socket: UnixStream, _walls: Vec<String>) -> io::Result<()> {
    let Some((request, received)) = passing::receive::<CompileRequest>(&socket)? else {
        return Ok(());
    };
    let response = match request {
        CompileRequest::Inspect => {
            let [component] = files(received)?;
            let bytes = MemoryFile::received(component)?.to_vec()?;
            CompileResponse::Inspected(Box::new(admission::admit(&bytes)))
        }
        CompileRequest::Instrument => {
            let [component, space] = files(received)?;
            let bytes = MemoryFile::received(component)?.to_vec()?;
            let space = Space::received(space);
            CompileResponse::Instrumented(Box::new(admission::admit(&bytes).map(|admitted| {
                let artifact = snapshot::instrument(&bytes)
                    .and_then(|instrumented| compile(&instrumented, Effort::Little, &space));
                (admitted, artifact)
            })))
        }
        CompileRequest::Compile => {
            let [component, space] = files(received)?;
            let bytes = MemoryFile::received(component)?.to_vec()?;
            let space = Space::received(space);
            CompileResponse::Compiled(compile(&bytes, Effort::Full, &space))
        }
    };
    wire::write(&mut socket, &response)
}

/// Writes the compiled component and gives its length.
fn compile(component: &[u8], effort: Effort, space: &Space) -> Result<u64, String> {
    let engine =
        GateEngine::new(Allocation::OnDemand, effort).map_err(|error| format!("{error:#}"))?;
    let artifact = engine
        .compile(component)
        .map_err(|error| format!("it does not compile: {error:#}"))?;
    space
        .fill(&artifact)
        .map_err(|error| format!("its compiled form cannot be kept: {error}"))
}
