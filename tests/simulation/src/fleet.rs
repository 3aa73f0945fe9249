//! A host and its machines in a simulated world, and what must hold of them whatever happens.

mod check;
mod images;

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use sluice_agent::config::Config;
use sluice_agent::exec::executor::Executor;
use sluice_agent::link;
use sluice_agent::state::StateDirectory;
use sluice_agent::supervisor::{Agent, Started};
use sluice_api_types::job::SubmitJob;
use sluice_host::clock::{SystemClock, UnixMillis};
use sluice_host::config::Tls;
use sluice_host::directory::DataDirectory;
use sluice_host::jobs::SubmitError;
use sluice_host::operators::{self, Actor};
use sluice_host::server::{Options, Server};
use sluice_host::store::operations::{self, OperationRow};
use sluice_host::store::{self, StoreError};
use sluice_host::{init, jobs};
use sluice_protocol::ending::State;
use sluice_protocol::ids::{JobId, MachineId, OperationId};
use sluice_protocol::units::Span;
use sluice_transport::identity::{AgentIdentity, Authority, MachineKey};
use tempfile::TempDir;
use tokio::task::JoinHandle;

use crate::network::Weather;
use crate::random::Random;
use crate::scripts::Scripts;
use crate::world::{Id, World};

/// Where the host is.
const HOST: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));
const PORT: u16 = 7443;
/// What the owner of every machine says: no gates, since nothing is looked at here but delivery.
const OWNER: &str = "
[gates]
stages = []
[limits]
parallel = 2
[interpreters]
allowed = [\"sh\"]
";
/// A host, its machines, and what was asked of them.
#[derive(Debug)]
pub struct Fleet {
    /// Where all of it happens.
    pub world: World,
    /// What the machines run.
    pub scripts: Scripts,
    /// The machines.
    pub machines: Vec<Machine>,
    host: Id,
    server: Option<Server>,
    actor: Actor,
    /// Requests that were not answered yet.
    asked: Vec<JoinHandle<Result<JobId, SubmitError>>>,
    /// Jobs that the host has accepted.
    pub accepted: Vec<JobId>,
    /// How operations had ended when it was looked last.
    ended: HashMap<OperationId, State>,
    /// A copy of the host's database was put in its place.
    restored: bool,
    /// What may have been started in what a machine lost, without that its host had heard of it: nobody can know.
    may_start_again: HashSet<OperationId>,
    /// Tasks of each program in a fleet that has nothing to do.
    at_rest: Vec<(Id, usize)>,
    folder: TempDir,
}

/// A machine.
#[derive(Debug)]
pub struct Machine {
    name: String,
    id: Id,
    machine: MachineId,
    /// Its own address.
    pub ip: IpAddr,
    agent: Option<AgentHandle>,
    moves: u8,
    /// An older copy of its disk was put in its place.
    rolled_back: bool,
}

/// An agent that runs.
struct AgentHandle(Arc<Agent>);

impl std::fmt::Debug for AgentHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Agent").finish_non_exhaustive()
    }
}

impl Fleet {
    /// A host and so many machines, all connected, over good paths.
    #[must_use]
    pub fn new(random: &mut Random, count: u8) -> Self {
        have_runner();
        let folder = folder();
        let mut world = World::new(random);
        let scripts = Scripts::new(random.part(), world.clock.clone());
        let host = world.place();
        let data = folder.path().join("host");
        let carrier = world.network.at(HOST);
        let (server, actor) = world.start(host, async {
            let token = init::init(&data, UnixMillis::now()).await.expect("sets up");
            let server = serve(&carrier, data.clone()).await;
            let host = server.host();
            let actor = host.store.read(|conn| {
                let now = UnixMillis::now();
                operators::authenticate(conn, &host.roles, &token, "simulation", now)
            });
            (server, actor.expect("is good"))
        });
        let mut fleet = Self {
            world,
            scripts,
            machines: Vec::new(),
            host,
            server: Some(server),
            actor,
            asked: Vec::new(),
            accepted: Vec::new(),
            ended: HashMap::new(),
            restored: false,
            may_start_again: HashSet::new(),
            at_rest: Vec::new(),
            folder,
        };
        for number in 1..=count {
            fleet.enroll(number);
        }
        for number in 0..fleet.machines.len() {
            fleet.start_agent(number);
        }
        fleet.until(
            Duration::from_secs(60),
            "all connect",
            Self::all_are_connected,
        );
        fleet.pass(Duration::from_secs(30));
        fleet.at_rest = fleet.tasks();
        fleet
    }

    /// A machine that is enrolled, and whose agent has not started.
    fn enroll(&mut self, number: u8) {
        let (key, machine) = (
            MachineKey::generate().expect("a key"),
            MachineId::generate(),
        );
        let request = key.request().expect("a request");
        let (tenant, now) = (self.actor.tenant.id, SystemTime::now());
        let directory = DataDirectory::open(&self.data()).expect("opens");
        let authority = Authority::load(&directory.authority()).expect("loads");
        let issued = authority.issue_machine(tenant, machine, &request, now);
        let issued = issued.expect("issues");
        let identity = AgentIdentity::new(key, &issued.chain, authority.root_der(), now);
        let name = format!("machine-{number}");
        let state = StateDirectory::open(&self.folder.path().join(&name)).expect("opens");
        let address = SocketAddr::new(HOST, PORT).to_string();
        state
            .save_identity(&identity.expect("fits together"), &[address])
            .expect("saves");
        let owner = format!(
            "script_tempdir = \"{}\"\n{OWNER}",
            self.folder.path().join("run").display()
        );
        std::fs::write(state.path("agent.toml"), owner).expect("writes");
        let known = name.clone();
        let store = self.server().host().store.clone();
        self.world.run(self.host, async move {
            store
                .write(move |conn| {
                    let now = UnixMillis::now();
                    store::machines::insert(conn, tenant, machine, &known, &[], now)
                })
                .await
                .expect("is stored");
        });
        self.machines.push(Machine {
            name,
            id: self.world.place(),
            machine,
            ip: IpAddr::V4(Ipv4Addr::new(10, 1, 0, number)),
            agent: None,
            moves: 0,
            rolled_back: false,
        });
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("host")
    }

    fn server(&self) -> &Server {
        self.server.as_ref().expect("the host runs")
    }

    /// Whether the host runs.
    #[must_use]
    pub const fn host_is_up(&self) -> bool {
        self.server.is_some()
    }

    /// Whether the agent of a machine runs.
    #[must_use]
    pub fn agent_is_up(&self, number: usize) -> bool {
        self.machines[number].agent.is_some()
    }

    /// Kills the host, wherever it is.
    pub fn kill_host(&mut self) {
        self.take_answers();
        self.world.kill(self.host);
        drop(self.server.take());
        // Nobody knows what became of those.
        self.asked.clear();
    }

    /// Starts the host again.
    pub fn start_host(&mut self) {
        let (carrier, data) = (self.world.network.at(HOST), self.data());
        let server = self.world.start(self.host, serve(&carrier, data));
        self.server = Some(server);
        self.check();
    }

    /// Kills the agent of a machine, wherever it is. Its scripts go on.
    pub fn kill_agent(&mut self, number: usize) {
        let machine = &mut self.machines[number];
        self.world.kill(machine.id);
        drop(machine.agent.take());
    }

    /// Starts the agent of a machine, again.
    pub fn start_agent(&mut self, number: usize) {
        let machine = &self.machines[number];
        let path = self.folder.path().join(&machine.name);
        let carrier = self.world.network.at(machine.ip);
        let executor = Executor::StandIn(Arc::new(self.scripts.clone()));
        let agent = self.world.start(machine.id, async {
            let state = StateDirectory::open(&path).expect("opens");
            let file = state.path("agent.toml");
            let config = Config::load(Some(&file)).expect("is a policy");
            let started = Agent::start(state, config, Some(file), executor, carrier).await;
            let Started {
                agent,
                identity,
                addresses,
            } = started.expect("starts");
            let linked = Arc::clone(&agent);
            tokio::spawn(async move {
                let ended = link::keep(&linked, identity, &addresses).await;
                panic!("an agent has given up: {ended:?}");
            });
            agent
        });
        self.machines[number].agent = Some(AgentHandle(agent));
    }

    /// Gives a machine another address, as a router may that forgot the old one.
    pub fn readdress(&mut self, number: usize) {
        let machine = &mut self.machines[number];
        machine.moves = machine.moves.wrapping_add(1);
        let last = u8::try_from(number + 1).unwrap_or(u8::MAX);
        let seen = Ipv4Addr::new(10, 2, machine.moves, last);
        self.world.network.readdress(machine.ip, seen.into());
    }

    /// The weather to a machine, and from it.
    pub fn set_weather(&self, number: usize, to: Weather, from: Weather) {
        let ip = self.machines[number].ip;
        self.world.network.set_weather(HOST, ip, to);
        self.world.network.set_weather(ip, HOST, from);
    }

    /// Asks the host, which runs, to have something run on a machine.
    pub fn submit(&mut self, number: usize, expires: Duration) {
        let request = SubmitJob {
            script: Some(b"#!/bin/sh\n:\n".to_vec().into()),
            machines: vec![self.machines[number].name.clone()],
            expires: Some(Span(u64::try_from(expires.as_millis()).unwrap_or(u64::MAX))),
            ..SubmitJob::default()
        };
        let (host, actor) = (self.server().host().clone(), self.actor.clone());
        let asked = self.world.spawn(self.host, async move {
            jobs::submit(&host, &actor, request, None, UnixMillis::now()).await
        });
        self.asked.push(asked);
    }

    /// Asks the host, which runs, to cancel a job that it has accepted.
    pub fn cancel(&mut self, job: JobId) {
        let (host, actor) = (self.server().host().clone(), self.actor.clone());
        drop(self.world.spawn(self.host, async move {
            let _too_late = jobs::cancel(&host, &actor, job, UnixMillis::now()).await;
        }));
    }

    fn take_answers(&mut self) {
        let mut open = Vec::new();
        for asked in std::mem::take(&mut self.asked) {
            if asked.is_finished() {
                let answer = self.world.run(self.host, asked).expect("does not panic");
                self.accepted.push(answer.expect("is accepted"));
            } else {
                open.push(asked);
            }
        }
        self.asked = open;
    }

    /// Goes on for so long.
    pub fn pass(&mut self, time: Duration) {
        let until = self.world.now() + time;
        while self.world.now() < until {
            self.turn(until);
        }
    }

    /// Goes on until something is so, which must be within `patience`.
    pub fn until(&mut self, patience: Duration, what: &str, is_so: impl Fn(&Self) -> bool) {
        let deadline = self.world.now() + patience;
        while !is_so(self) {
            assert!(
                self.world.now() < deadline,
                "not within {patience:?}: {what}\n{}",
                self.describe()
            );
            self.turn(deadline);
        }
    }

    fn turn(&mut self, until: Duration) {
        self.world.turn(until);
        self.scripts.go_on(self.world.now());
        if !self.asked.is_empty() {
            self.take_answers();
        }
    }

    fn all_are_connected(&self) -> bool {
        self.machines.iter().all(|machine| {
            let agent = machine.agent.as_ref();
            agent.is_some_and(|agent| agent.0.is_linked())
        })
    }

    fn tasks(&self) -> Vec<(Id, usize)> {
        let ids = self.machines.iter().map(|machine| machine.id);
        ids.chain([self.host])
            .map(|id| (id, self.world.tasks(id)))
            .collect()
    }

    /// All operations, as the host has them.
    #[must_use]
    pub fn operations(&self) -> Vec<OperationRow> {
        let tenant = self.actor.tenant.id;
        let rows = self.server().host().store.read(|conn| {
            let mut rows = Vec::new();
            for job in store::jobs::ids_before(conn, tenant, None, 10_000)? {
                rows.extend(operations::of_job(conn, tenant, job)?);
            }
            Ok::<_, StoreError>(rows)
        });
        rows.expect("reads")
    }
}

impl Machine {
    fn has_nothing_open(&self) -> bool {
        self.agent.as_ref().is_some_and(|agent| {
            let open = agent.0.ledger.open_operations();
            open.is_ok_and(|open| open.is_empty())
        })
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        for number in 0..self.machines.len() {
            self.kill_agent(number);
        }
        self.world.kill(self.host);
    }
}

async fn serve(carrier: &sluice_transport::carrier::Carrier, data: PathBuf) -> Server {
    let directory = DataDirectory::open(&data).expect("opens");
    let agents = SocketAddr::new(HOST, PORT);
    let options = Options {
        data,
        agents,
        api: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
        advertise: vec![agents.to_string()],
        tls: Tls::default(),
        gate_runner: Some("/nonexistent/sluice-gate-runner".into()),
    };
    Server::start_on(carrier, Arc::new(SystemClock), &directory, options)
        .await
        .expect("starts")
}

/// An agent does not start without the program that asks gates, beside its own. No gate is asked here, so anything will do
/// where that was not built.
fn have_runner() {
    let own = std::env::current_exe().expect("is known");
    let folder = own.parent().expect("is in a folder");
    let runner = folder.join("sluice-gate-runner");
    if !runner.exists() {
        let empty = tempfile::NamedTempFile::new_in(folder).expect("makes a file");
        // Another test may have been quicker.
        let _there = empty.persist_noclobber(&runner);
        assert!(runner.exists());
    }
}

/// In memory where there is such a place: what a commit costs is simulated.
fn folder() -> TempDir {
    let memory = std::path::Path::new("/dev/shm");
    let made = if memory.is_dir() {
        tempfile::tempdir_in(memory)
    } else {
        tempfile::tempdir()
    };
    made.expect("makes a folder")
}
