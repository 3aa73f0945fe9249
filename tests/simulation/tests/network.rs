//! The transport alone over bad networks: links come up, carry what they are given, and end when they should.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use sluice_protocol::digest::Digest;
use sluice_protocol::ending::Ending;
use sluice_protocol::ids::{HostId, MachineId, OperationId, TenantId};
use sluice_protocol::message::control::{FromHost, Hardware, Hello, Identity, Lockdown, Welcome};
use sluice_protocol::message::operation::{Chunk, Operation, OutputStream, Progress};
use sluice_protocol::report::Report;
use sluice_simulation::network::Weather;
use sluice_simulation::random::Random;
use sluice_simulation::samples::operation;
use sluice_simulation::seeds;
use sluice_simulation::world::{Id, World};
use sluice_transport::agent::{AgentConnection, Delivered, connect_on};
use sluice_transport::backoff::Backoff;
use sluice_transport::carrier::Carrier;
use sluice_transport::error::LinkError;
use sluice_transport::host::{Arrival, FromMachine, HostConnection, HostEndpoint};
use sluice_transport::identity::{AgentIdentity, Authority, MachineKey};
use sluice_transport::{limits, surroundings};

const HOST: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));
const AGENT: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 1, 0, 1));
const PORT: u16 = 7443;
const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);
const BUDGET: Duration = Duration::from_secs(3);
/// How long each script and each output is.
const SIZE: usize = 20_000;

/// What both ends have seen.
#[derive(Debug, Default)]
struct Seen {
    /// How often each operation was delivered.
    arrived: BTreeMap<OperationId, u32>,
    /// What the host heard of each, to its end.
    reported: BTreeMap<OperationId, Vec<u8>>,
    /// How the agent's links have ended.
    ended: Vec<LinkError>,
    /// How many came up.
    links: u32,
}

#[derive(Debug, Clone, Default)]
struct Record(Arc<Mutex<Seen>>);

impl Record {
    fn with<T>(&self, look: impl FnOnce(&mut Seen) -> T) -> T {
        look(&mut self.0.lock().expect("is whole"))
    }
}

/// A host that delivers these operations until each is reported, and an agent that reports them.
struct Bench {
    world: World,
    host: Id,
    agent: Id,
    record: Record,
    wanted: Vec<Operation>,
    authority: Authority,
    host_id: HostId,
    identity: Arc<AgentIdentity>,
}

impl Bench {
    fn new(random: &mut Random, operations: usize) -> Self {
        let folder = tempfile::tempdir().expect("makes a folder");
        let authority = Authority::create(&folder.path().join("authority")).expect("creates");
        let (key, now) = (MachineKey::generate().expect("a key"), SystemTime::now());
        let request = key.request().expect("a request");
        let issued = authority
            .issue_machine(TenantId::generate(), MachineId::generate(), &request, now)
            .expect("issues");
        let identity = AgentIdentity::new(key, &issued.chain, authority.root_der(), now);
        let script = format!("#!/bin/sh\n{}\n", ":".repeat(SIZE));
        let mut world = World::new(random);
        let (host, agent) = (world.place(), world.place());
        Self {
            world,
            host,
            agent,
            record: Record::default(),
            wanted: (0..operations).map(|_| operation(&script)).collect(),
            authority,
            host_id: HostId::generate(),
            identity: Arc::new(identity.expect("fits together")),
        }
    }

    fn start(&mut self) {
        self.start_host();
        let (carrier, record) = (self.world.network.at(AGENT), self.record.clone());
        let identity = Arc::clone(&self.identity);
        self.world.start(self.agent, async {
            tokio::spawn(async move { agent(&carrier, &identity, &record).await });
        });
    }

    fn start_host(&mut self) {
        let (carrier, record) = (self.world.network.at(HOST), self.record.clone());
        let (wanted, address) = (self.wanted.clone(), SocketAddr::new(HOST, PORT));
        let (authority, id) = (&self.authority, self.host_id);
        self.world.start(self.host, async {
            let endpoint = HostEndpoint::bind_on(&carrier, address, authority, id).expect("binds");
            tokio::spawn(async move {
                while let Some(arrival) = endpoint.accept().await {
                    let Arrival::Machine(machine) = arrival else {
                        panic!("expected a machine");
                    };
                    let (wanted, record) = (wanted.clone(), record.clone());
                    tokio::spawn(async move {
                        let _ended = serve(&machine, &wanted, &record).await;
                    });
                }
            });
        });
    }

    fn set_weather(&self, to_agent: Weather, to_host: Weather) {
        self.world.network.set_weather(HOST, AGENT, to_agent);
        self.world.network.set_weather(AGENT, HOST, to_host);
    }

    fn until(&mut self, patience: Duration, what: &str, is_so: impl Fn(&Seen) -> bool) {
        let deadline = self.world.now() + patience;
        while !self.record.with(|seen| is_so(seen)) {
            assert!(
                self.world.now() < deadline,
                "not within {patience:?}: {what}: {:?}",
                self.record
                    .with(|seen| (seen.links, seen.reported.len(), seen.ended.clone()))
            );
            self.world.turn(deadline);
        }
    }

    fn all_reported(&mut self, patience: Duration) {
        let count = self.wanted.len();
        self.until(patience, "all are reported", |seen| {
            seen.reported.len() == count
        });
        self.record.with(|seen| {
            for (id, output) in &seen.reported {
                assert!(*output == output_of(*id), "{id} has other output");
            }
        });
    }
}

fn output_of(id: OperationId) -> Vec<u8> {
    id.to_string().bytes().cycle().take(SIZE).collect()
}

async fn serve(
    machine: &HostConnection,
    wanted: &[Operation],
    record: &Record,
) -> Result<(), LinkError> {
    let (_, mut control) = machine.accept_control().await?;
    let welcome = Welcome {
        version: sluice_protocol::VERSION,
        time: 0,
        identity: Identity {
            tenant: String::new(),
            name: String::new(),
            tags: vec![],
            url: String::new(),
        },
        epoch: 1,
        acknowledged: None,
        audit_head: Digest::of(b""),
        stored: vec![],
        lockdown: Lockdown::Off,
    };
    control.send(&FromHost::Welcome(Box::new(welcome))).await?;
    for operation in wanted {
        if record.with(|seen| !seen.reported.contains_key(&operation.operation)) {
            let (machine, operation) = (machine.clone(), operation.clone());
            tokio::spawn(async move { machine.deliver(&operation).await });
        }
    }
    loop {
        let FromMachine::Progress(mut stream) = machine.next().await? else {
            panic!("expected progress");
        };
        let record = record.clone();
        tokio::spawn(async move {
            let mut output = Vec::new();
            while let Some(progress) = stream.recv().await? {
                match progress {
                    Progress::Output(chunk) => output.extend(chunk.bytes),
                    Progress::Finished(_) => {
                        let (id, output) = (stream.operation(), std::mem::take(&mut output));
                        record.with(|seen| seen.reported.insert(id, output));
                    }
                    _ => {}
                }
            }
            Ok::<_, LinkError>(())
        });
    }
}

async fn agent(carrier: &Carrier, identity: &AgentIdentity, record: &Record) {
    let addresses = [SocketAddr::new(HOST, PORT).to_string()];
    let mut backoff = Backoff::new();
    loop {
        let ended = match connect_on(carrier, &addresses, identity, None).await {
            Ok(connection) => linked(&connection, record).await,
            Err(error) => error,
        };
        record.with(|seen| seen.ended.push(ended));
        tokio::time::sleep(backoff.next(surroundings::jitter())).await;
    }
}

async fn linked(connection: &AgentConnection, record: &Record) -> LinkError {
    let hello = Hello {
        versions: vec![sluice_protocol::VERSION],
        software: String::new(),
        facts: vec![],
        open: vec![],
        hardware: Hardware::default(),
        sealing_key: Vec::new(),
    };
    let _control = match connection.open_control(hello).await {
        Ok(opened) => opened,
        Err(error) => return error,
    };
    record.with(|seen| seen.links += 1);
    loop {
        match connection.next_operation().await {
            Ok(Delivered::Operation(operation)) => {
                let (id, connection) = (operation.operation, connection.clone());
                record.with(|seen| *seen.arrived.entry(id).or_default() += 1);
                tokio::spawn(async move { report(&connection, id).await });
            }
            Ok(Delivered::Unreadable { reason, .. }) => panic!("{reason}"),
            Err(error) => return error,
        }
    }
}

async fn report(connection: &AgentConnection, id: OperationId) -> Result<(), LinkError> {
    let mut stream = connection.open_progress(id).await?;
    stream.send(&Progress::Accepted).await?;
    let output = Chunk {
        stream: OutputStream::Stdout,
        offset: 0,
        bytes: output_of(id),
    };
    stream.send(&Progress::Output(output)).await?;
    let report = Report::without_process(Ending::Succeeded, 1);
    stream.send(&Progress::Finished(Box::new(report))).await?;
    stream.finish().await
}

#[test]
fn whatever_the_weather_operations_arrive_whole_and_are_reported_whole() {
    let test = "whatever_the_weather_operations_arrive_whole_and_are_reported_whole";
    seeds::each(test, 2_000, BUDGET, |seed| {
        let mut random = Random::new(seed);
        let operations = usize::try_from(random.within(1..10)).expect("is small");
        let mut bench = Bench::new(&mut random, operations);
        let (to, from) = (Weather::foul(&mut random), Weather::foul(&mut random));
        bench.set_weather(to, from);
        bench.start();
        bench.all_reported(12 * HOUR);
        for error in bench.record.with(|seen| seen.ended.clone()) {
            // A bad network is nobody's fault.
            assert!(!matches!(error, LinkError::Violation { .. }), "{error:?}");
        }
    });
}

#[test]
fn over_a_good_path_each_operation_arrives_once_over_one_link() {
    let mut bench = Bench::new(&mut Random::new(1), 20);
    bench.start();
    bench.all_reported(30 * SECOND);
    bench.record.with(|seen| {
        assert!(seen.arrived.values().all(|times| *times == 1));
        assert_eq!((seen.links, seen.ended.len()), (1, 0));
    });
}

#[test]
fn a_machine_whose_address_changes_keeps_its_link() {
    let test = "a_machine_whose_address_changes_keeps_its_link";
    seeds::each(test, 20, BUDGET, |seed| {
        let mut random = Random::new(seed);
        let mut bench = Bench::new(&mut random, 40);
        let slow = Weather {
            rate: Some(100_000),
            ..Weather::fair()
        };
        bench.set_weather(slow.clone(), slow);
        bench.start();
        bench.until(10 * SECOND, "the first is reported", |seen| {
            !seen.reported.is_empty()
        });
        for moved in 1..4 {
            let seen = Ipv4Addr::new(10, 2, moved, 1);
            bench.world.network.readdress(AGENT, seen.into());
            bench.world.pass(random.time(SECOND..4 * SECOND));
        }
        bench.all_reported(HOUR);
        bench.record.with(|seen| {
            assert_eq!((seen.links, &*seen.ended), (1, &[][..]));
        });
    });
}

#[test]
fn the_smallest_datagrams_that_quic_allows_are_enough() {
    let mut bench = Bench::new(&mut Random::new(1), 10);
    let small = Weather {
        largest: 1200,
        ..Weather::fair()
    };
    bench.set_weather(small.clone(), small);
    bench.start();
    bench.all_reported(30 * SECOND);
    assert_eq!(bench.record.with(|seen| seen.links), 1);
}

#[test]
fn a_path_that_is_open_in_one_direction_alone_is_given_up_in_time() {
    for is_blocked_to_host in [false, true] {
        let mut bench = Bench::new(&mut Random::new(1), 1);
        bench.start();
        bench.all_reported(10 * SECOND);
        let (open, blocked) = (Weather::fair(), Weather::blocked());
        if is_blocked_to_host {
            bench.set_weather(open, blocked);
        } else {
            bench.set_weather(blocked, open);
        }
        let patience = limits::IDLE_TIME_LIMIT + 2 * limits::KEEP_ALIVE;
        bench.until(patience, "the link is given up", |seen| {
            !seen.ended.is_empty()
        });
        bench.set_weather(Weather::fair(), Weather::fair());
        bench.until(Duration::from_secs(70), "there is a link again", |seen| {
            seen.links == 2
        });
    }
}

#[test]
fn a_day_without_a_network_ends_a_link_within_a_minute_and_the_next_comes_soon_after_it() {
    let mut bench = Bench::new(&mut Random::new(1), 1);
    bench.start();
    bench.all_reported(10 * SECOND);
    bench.set_weather(Weather::blocked(), Weather::blocked());
    let patience = limits::IDLE_TIME_LIMIT + limits::KEEP_ALIVE + 5 * SECOND;
    bench.until(patience, "the link is given up", |seen| {
        !seen.ended.is_empty()
    });
    bench.world.pass(24 * HOUR);
    assert_eq!(bench.record.with(|seen| seen.links), 1);
    bench.set_weather(Weather::fair(), Weather::fair());
    let patience = 2 * sluice_transport::backoff::CAP;
    bench.until(patience, "there is a link again", |seen| seen.links == 2);
}

#[test]
fn a_host_that_was_killed_gets_its_machines_back() {
    let mut bench = Bench::new(&mut Random::new(1), 5);
    bench.start();
    bench.all_reported(10 * SECOND);
    bench.world.kill(bench.host);
    bench.world.pass(SECOND);
    bench.start_host();
    let patience = limits::IDLE_TIME_LIMIT + limits::KEEP_ALIVE + 15 * SECOND;
    bench.until(patience, "there is a link again", |seen| seen.links == 2);
}
