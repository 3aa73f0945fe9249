//! Loads and calls gates. One thread reads, a few work, and answers go out as they are ready.

use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock, mpsc};
use std::thread;

use sluice_gate_client::memory_file::{MemoryFile, Space};
use sluice_gate_client::passing::{self, files};
use sluice_gate_client::wire::{
    self, Called, Encoded, FromRunner, Load, Memory, Ready, Request, Response, Snapshot, ToRunner,
};
use sluice_gate_types::answer::CallError;
use sluice_plugin_runtime::engine::{Allocation, Effort, GateEngine};
use sluice_plugin_runtime::gate::Gate;
use sluice_plugin_runtime::{RUNTIME, snapshot};

/// One thread for each call that the parent makes at once, and one to load and to take snapshots.
const WORKERS: usize = wire::CALLS + 1;

struct Server {
    engine: GateEngine,
    /// For snapshots alone: made when the first is taken.
    snapshots: OnceLock<Result<GateEngine, String>>,
    gates: RwLock<HashMap<u64, Arc<Gate>>>,
    socket: Mutex<UnixStream>,
}

pub(crate) fn run(socket: UnixStream, walls: Vec<String>) -> io::Result<()> {
    // A pool reserves address space, of which some machines give a process little. The parent is told.
    let (engine, memory) = match GateEngine::new(Allocation::Pool, Effort::Full) {
        Ok(engine) => (Ok(engine), Memory::Pool),
        Err(_) => {
            let engine = GateEngine::new(Allocation::OnDemand, Effort::Full);
            (engine, Memory::OnDemand)
        }
    };
    let engine = engine
        .map_err(|error| io::Error::other(format!("the engine does not start: {error:#}")))?;
    let compatibility = engine.compatibility();
    let server = Arc::new(Server {
        engine,
        snapshots: OnceLock::new(),
        gates: RwLock::default(),
        socket: Mutex::new(socket.try_clone()?),
    });
    server.answer(
        0,
        Response::Ready(Ready {
            walls,
            compatibility,
            runtime: RUNTIME.to_owned(),
            memory,
        }),
    )?;
    let (queue, work) = mpsc::channel::<(ToRunner, Vec<OwnedFd>)>();
    let work = Arc::new(Mutex::new(work));
    for _ in 0..WORKERS {
        let (server, work) = (Arc::clone(&server), Arc::clone(&work));
        thread::Builder::new()
            .name("gate".to_owned())
            .spawn(move || {
                loop {
                    let next = work.lock().unwrap_or_else(PoisonError::into_inner).recv();
                    let Ok((ToRunner { id, request }, files)) = next else {
                        return;
                    };
                    if server.answer(id, server.handle(request, files)).is_err() {
                        // the parent is gone, and so are we
                        std::process::exit(0);
                    }
                }
            })?;
    }
    while let Some(frame) = passing::receive::<ToRunner>(&socket)? {
        if queue.send(frame).is_err() {
            return Err(io::Error::other("the workers are gone"));
        }
    }
    Ok(())
}

impl Server {
    fn handle(&self, request: Request, received: Vec<OwnedFd>) -> Response {
        match request {
            Request::Load(load) => Response::Loaded(self.load(*load, received)),
            Request::Unload { gate } => {
                self.gates
                    .write()
                    .unwrap_or_else(PoisonError::into_inner)
                    .remove(&gate);
                Response::Loaded(Ok(()))
            }
            Request::Call { gate, question } => {
                let loaded = self
                    .gates
                    .read()
                    .unwrap_or_else(PoisonError::into_inner)
                    .get(&gate)
                    .cloned();
                let failed = |error| Called {
                    answer: Err(error),
                    fuel: 0,
                    memory: 0,
                    duration_us: 0,
                    log: Vec::new(),
                };
                Response::Called(Box::new(match (loaded, Encoded::read(&question)) {
                    (Some(gate), Ok(question)) => {
                        let called = gate.call(&self.engine, &question);
                        Called {
                            answer: called.answer,
                            fuel: called.fuel,
                            memory: called.memory,
                            duration_us: called.duration_us,
                            log: called.log,
                        }
                    }
                    (None, _) => failed(CallError::Runner("the gate is not loaded".to_owned())),
                    (_, Err(error)) => failed(CallError::Runner(error.to_string())),
                }))
            }
            Request::Snapshot(snapshot) => Response::Snapshot(self.snapshot(&snapshot, received)),
        }
    }

    fn load(&self, load: Load, received: Vec<OwnedFd>) -> Result<(), CallError> {
        let artifact = files(received)
            .and_then(|[artifact]| MemoryFile::received(artifact)?.to_vec())
            .map_err(unreadable)?;
        let configure = load
            .configure
            .map(|configure| (configure.settings, configure.data));
        let gate = Gate::load(
            &self.engine,
            load.contract,
            load.world,
            &artifact,
            load.limits,
            configure,
        )?;
        self.gates
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(load.gate, Arc::new(gate));
        Ok(())
    }

    fn snapshot(&self, request: &Snapshot, received: Vec<OwnedFd>) -> Result<u64, CallError> {
        let [component, artifact, space] = files(received).map_err(unreadable)?;
        let read = |descriptor| MemoryFile::received(descriptor)?.to_vec();
        let component = read(component).map_err(unreadable)?;
        let artifact = read(artifact).map_err(unreadable)?;
        let engine = self.snapshots.get_or_init(|| {
            GateEngine::new(Allocation::OnDemand, Effort::Little)
                .map_err(|error| format!("{error:#}"))
        });
        let engine = engine
            .as_ref()
            .map_err(|error| CallError::Instantiation(error.clone()))?;
        let (settings, data) = (&request.configure.settings, &request.configure.data);
        let snapshot = snapshot::take(
            engine,
            request.contract,
            request.world,
            &component,
            &artifact,
            settings,
            data,
        )?;
        Space::received(space).fill(&snapshot).map_err(|error| {
            CallError::Instantiation(format!("its snapshot cannot be kept: {error}"))
        })
    }

    fn answer(&self, id: u64, response: Response) -> io::Result<()> {
        let mut socket = self.socket.lock().unwrap_or_else(PoisonError::into_inner);
        wire::write(&mut *socket, &FromRunner { id, response })
    }
}

fn unreadable(error: io::Error) -> CallError {
    CallError::Runner(format!("what it was sent cannot be read: {error}"))
}
