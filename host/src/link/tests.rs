//! A whole host on loopback, and machines that speak through the real transport.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, SystemTime};

use sluice_api_types::job::AttachmentRef;
use sluice_protocol::digest::Digest;
use sluice_protocol::ending::{Ending, State};
use sluice_protocol::ids::{JobId, MachineId, OperationId};
use sluice_protocol::message::control::{
    Fact, FactValue, FromAgent, FromHost, Hardware, Hello, History, LedgerMark, Lockdown,
    StoredOutput, Verdict,
};
use sluice_protocol::message::enroll::{Enroll, Request, Token};
use sluice_protocol::message::operation::{Chunk, Operation, OutputStream, Progress};
use sluice_protocol::receipt::{
    Attestation, Attested, GateLimits, Receipt, Stage, Subject, Whose, statement,
};
use sluice_protocol::report::{Exit, Mode, Report, StreamEnd};
use sluice_transport::agent::{self, AgentConnection, Delivered};
use sluice_transport::control::ControlStream;
use sluice_transport::error::LinkError;
use sluice_transport::identity::{AgentIdentity, MachineKey};
use tokio::io::AsyncReadExt as _;

use crate::clock::UnixMillis;
use crate::config::Tls;
use crate::directory::DataDirectory;
use crate::fleet;
use crate::init;
use crate::jobs;
use crate::operators::{self, Actor, BearerToken};
use crate::plugins;
use crate::schedules;
use crate::server::{Options, Server};
use crate::store::{self, blobs, machines, operations};
use crate::testing::request;

/// Nothing here takes long.
const SOON: Duration = Duration::from_secs(5);

struct Fleet {
    server: Server,
    admin: Actor,
    dir: tempfile::TempDir,
}

type Control = ControlStream<FromHost, FromAgent>;

async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(SOON, what)
        .await
        .expect("takes too long")
}

async fn start(data: &Path, api: SocketAddr) -> Server {
    let directory = DataDirectory::open(data).expect("opens");
    let options = Options {
        data: data.to_owned(),
        agents: SocketAddr::from(([127, 0, 0, 1], 0)),
        api,
        advertise: Vec::new(),
        tls: Tls::default(),
        gate_runner: Some("/nonexistent/sluice-gate-runner".into()),
    };
    Server::start(&directory, options).await.expect("starts")
}

const LOOPBACK: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

fn actor(server: &Server, token: &BearerToken) -> Actor {
    let host = server.host();
    host.store
        .read(|conn| operators::authenticate(conn, &host.roles, token, "test", UnixMillis::now()))
        .expect("is good")
}

impl Fleet {
    async fn start() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let data = dir.path().join("data");
        let token = init::init(&data, UnixMillis::now()).await.expect("sets up");
        let server = start(&data, LOOPBACK).await;
        let admin = actor(&server, &token);
        Self { server, admin, dir }
    }

    async fn restart(self) -> Self {
        self.server.stop().await;
        let server = start(&self.dir.path().join("data"), LOOPBACK).await;
        Self {
            server,
            admin: self.admin,
            dir: self.dir,
        }
    }

    async fn token(&self) -> Token {
        let host = self.server.host();
        let new = fleet::create_token(
            &host.store,
            &self.admin,
            fleet::Terms::default(),
            UnixMillis::now(),
        )
        .await
        .expect("makes");
        Token {
            addresses: host.addresses.agents.clone(),
            authority: host.addresses.authority,
            id: new.id,
            secret: new.secret.to_vec(),
        }
    }

    async fn enroll(&self, name: &str) -> AgentIdentity {
        enroll(&self.token().await, name).await.expect("enrolls")
    }

    async fn connect(&self, identity: &AgentIdentity) -> Result<AgentConnection, LinkError> {
        soon(agent::connect(
            &[self.server.agents_address().to_string()],
            identity,
            None,
        ))
        .await
    }

    /// Connects and takes in Welcome and Gates.
    async fn greet(
        &self,
        identity: &AgentIdentity,
        open: &[OperationId],
    ) -> (AgentConnection, Control) {
        let connection = self.connect(identity).await.expect("connects");
        let (welcome, mut control) = soon(connection.open_control(hello(open)))
            .await
            .expect("is welcome");
        assert_eq!(welcome.identity.tenant, "default");
        prove(&mut control).await;
        assert!(matches!(
            soon(control.receive()).await,
            Ok(FromHost::Gates(_))
        ));
        (connection, control)
    }

    async fn submit(&self, machine: &str) -> JobId {
        jobs::submit(
            self.server.host(),
            &self.admin,
            request(machine),
            None,
            UnixMillis::now(),
        )
        .await
        .expect("is accepted")
    }

    /// Waits until there are as many violations on the record as there should be, and gives their reasons and counts.
    async fn violations(&self, expected: usize) -> Vec<(String, u64)> {
        let store = &self.server.host().store;
        let deadline = tokio::time::Instant::now() + SOON;
        loop {
            let tenant = &self.admin.tenant;
            let entries = store
                .read(|conn| store::audit::list(conn, tenant.id, 0, 1000))
                .expect("reads");
            let found: Vec<_> = entries
                .iter()
                .filter(|entry| entry.event == "machine_protocol_violation")
                .map(|entry| {
                    let details = &entry.details;
                    assert_eq!(entry.source, "agent");
                    assert_eq!(details["address"], "127.0.0.1");
                    let reason = details["reason"].as_str().expect("is a text").to_owned();
                    (reason, details["count"].as_u64().expect("is a number"))
                })
                .collect();
            if found.len() >= expected {
                return found;
            }
            assert!(tokio::time::Instant::now() < deadline, "{entries:#?}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// How many violations were counted.
    fn counted(&self) -> String {
        let page = self.server.host().metrics.render(0, &[]);
        let mut lines = page.lines();
        lines
            .find_map(|line| line.strip_prefix("sluice_protocol_violations_total "))
            .expect("is counted")
            .to_owned()
    }

    fn state(&self, job: JobId) -> State {
        self.server
            .host()
            .store
            .read(|conn| operations::of_job(conn, self.admin.tenant.id, job))
            .expect("reads")[0]
            .state
    }
}

async fn enroll(token: &Token, name: &str) -> Result<AgentIdentity, agent::EnrollError> {
    let key = MachineKey::generate().expect("a key");
    let request = Request::Enroll(Box::new(Enroll {
        token: token.id,
        secret: token.secret.clone(),
        request: key.request().expect("a request"),
        name: name.to_owned(),
        facts: Vec::new(),
    }));
    let enrollment = soon(agent::enroll(token, &request)).await?;
    let chain: Vec<Vec<u8>> = enrollment
        .enrolled
        .chain
        .iter()
        .map(|der| der.to_vec())
        .collect();
    Ok(AgentIdentity::new(key, &chain, &enrollment.root, SystemTime::now()).expect("an identity"))
}

fn mark(seq: u64) -> LedgerMark {
    LedgerMark {
        seq,
        hash: Digest::of(&seq.to_be_bytes()),
    }
}

/// Has the entry with this number where the host asked, and ends at that one.
fn history(at_acknowledged: Option<u64>, head: u64) -> FromAgent {
    FromAgent::History(History {
        at_acknowledged: at_acknowledged.map(|seq| mark(seq).hash),
        head: mark(head),
    })
}

/// Says what an honest machine says of a ledger of which the host knows nothing, and is believed.
async fn prove(control: &mut Control) {
    let nothing = history(Some(0), 0);
    soon(control.send(&nothing)).await.expect("sends");
    assert_eq!(
        soon(control.receive()).await,
        Ok(FromHost::History(Verdict::Held))
    );
}

fn hello(open: &[OperationId]) -> Hello {
    Hello {
        versions: vec![1],
        software: "test".to_owned(),
        facts: Vec::new(),
        open: open.to_vec(),
        hardware: Hardware::default(),
        sealing_key: Vec::new(),
    }
}

fn succeeded(stdout: u64) -> Report {
    Report {
        exit: Some(Exit::Code(0)),
        started_at: Some(1),
        stdout: StreamEnd {
            kept: stdout,
            lost: 0,
            head: stdout,
        },
        ..Report::without_process(Ending::Succeeded, 2)
    }
}

async fn next(connection: &AgentConnection) -> Operation {
    match soon(connection.next_operation()).await {
        Ok(Delivered::Operation(operation)) => *operation,
        other => panic!("expected an operation, got {other:?}"),
    }
}

async fn report(connection: &AgentConnection, operation: OperationId, progress: Vec<Progress>) {
    let mut stream = soon(connection.open_progress(operation))
        .await
        .expect("opens");
    for progress in progress {
        soon(stream.send(&progress)).await.expect("sends");
    }
    // A host that closes the connection for it does not take the end of the stream.
    let _ = soon(stream.finish()).await;
}

#[tokio::test]
async fn an_operation_goes_out_and_its_report_comes_back_and_is_acknowledged() {
    let fleet = Fleet::start().await;
    let identity = fleet.enroll("web-1").await;
    let (connection, mut control) = fleet.greet(&identity, &[]).await;
    let job = fleet.submit("web-1").await;
    let operation = next(&connection).await;
    assert_eq!(
        (
            operation.job,
            operation.targets,
            operation.operator.as_str()
        ),
        (job, 1, "admin")
    );
    let output = Chunk {
        stream: OutputStream::Stdout,
        offset: 0,
        bytes: b"hi\n".to_vec(),
    };
    let progress = vec![
        Progress::Accepted,
        Progress::Checking,
        Progress::Running { started_at: 1 },
        Progress::Output(output),
        Progress::Finished(Box::new(succeeded(3))),
    ];
    report(&connection, operation.operation, progress).await;
    let Ok(FromHost::Acknowledge {
        operation: acknowledged,
        audit_head,
    }) = soon(control.receive()).await
    else {
        panic!("expected an acknowledgement");
    };
    assert_eq!(acknowledged, operation.operation);
    let host = fleet.server.host();
    let head = crate::audit::verify(&host.store, &fleet.admin.tenant)
        .await
        .expect("holds");
    assert_eq!(head.hash, audit_head);
    let result = host
        .store
        .read(|conn| jobs::operation_result(conn, &fleet.admin.tenant, acknowledged))
        .expect("reads")
        .expect("is there");
    assert_eq!(
        (result.state, result.output.as_deref()),
        (State::Succeeded, Some("hi\n"))
    );
    fleet.server.stop().await;
}

#[tokio::test]
async fn a_token_lets_one_machine_in_and_a_refusal_says_why() {
    let fleet = Fleet::start().await;
    let token = fleet.token().await;
    enroll(&token, "web-1").await.expect("enrolls");
    let Err(agent::EnrollError::Refused { reason }) = enroll(&token, "web-2").await else {
        panic!("expected a refusal")
    };
    assert!(reason.contains("used already"), "{reason}");
    let wrong = Token {
        secret: vec![0; 32],
        ..fleet.token().await
    };
    assert!(matches!(
        enroll(&wrong, "web-2").await,
        Err(agent::EnrollError::Refused { .. })
    ));
}

#[tokio::test]
async fn a_revoked_machine_is_cut_off_and_stays_out() {
    let fleet = Fleet::start().await;
    let identity = fleet.enroll("web-1").await;
    let (connection, _control) = fleet.greet(&identity, &[]).await;
    fleet::revoke(
        fleet.server.host(),
        &fleet.admin,
        "web-1",
        UnixMillis::now(),
    )
    .await
    .expect("revokes");
    assert_eq!(soon(connection.closed()).await, LinkError::Revoked);
    let refused = match fleet.connect(&identity).await {
        Ok(connection) => match soon(connection.open_control(hello(&[]))).await {
            Ok(_) => panic!("a revoked machine is welcome"),
            Err(error) => error,
        },
        Err(error) => error,
    };
    assert_eq!(refused, LinkError::Revoked);
}

#[tokio::test]
async fn a_new_connection_replaces_the_old_one() {
    let fleet = Fleet::start().await;
    let identity = fleet.enroll("web-1").await;
    let (old, _old_control) = fleet.greet(&identity, &[]).await;
    let (new, _new_control) = fleet.greet(&identity, &[]).await;
    assert_eq!(soon(old.closed()).await, LinkError::Replaced);
    let job = fleet.submit("web-1").await;
    assert_eq!(next(&new).await.job, job);
}

/// Answers what a host asks on a connection, as an agent does, until it ends.
async fn answer(control: &mut Control) -> LinkError {
    loop {
        match soon(control.receive()).await {
            Ok(FromHost::Ping { nonce }) => {
                let _over = control.send(&FromAgent::Pong { nonce }).await;
            }
            Ok(_) => {}
            Err(error) => return error,
        }
    }
}

#[tokio::test]
async fn a_machine_that_is_there_twice_is_turned_away_until_it_is_released() {
    let fleet = Fleet::start().await;
    let identity = fleet.enroll("web-1").await;
    let (first, mut first_control) = fleet.greet(&identity, &[]).await;
    let job = fleet.submit("web-1").await;
    next(&first).await;
    let second = fleet.connect(&identity).await.expect("connects");
    let (_welcome, mut second_control) = soon(second.open_control(hello(&[])))
        .await
        .expect("is welcome");
    let proving = async {
        second_control.send(&history(None, 0)).await.expect("sends");
        soon(second_control.receive()).await
    };
    let (first_ended, second_ended) = tokio::join!(answer(&mut first_control), proving);
    assert_eq!(first_ended, LinkError::Quarantined);
    assert_eq!(second_ended, Err(LinkError::Quarantined));
    assert_eq!(fleet.state(job), State::Interrupted);
    let waits = fleet.submit("web-1").await;
    let turned_away = fleet.connect(&identity).await.expect("connects");
    assert_eq!(
        soon(turned_away.open_control(hello(&[]))).await.err(),
        Some(LinkError::Quarantined)
    );
    assert_eq!(fleet.state(waits), State::Queued);
    let host = fleet.server.host();
    let release = || fleet::release(host, &fleet.admin, "web-1", UnixMillis::now());
    release().await.expect("releases");
    assert!(release().await.is_err(), "it is not quarantined any more");

    // Whatever it has is given up then, once.
    let again = fleet.connect(&identity).await.expect("connects");
    let (_welcome, mut control) = soon(again.open_control(hello(&[])))
        .await
        .expect("is welcome");
    control.send(&history(None, 3)).await.expect("sends");
    assert_eq!(
        soon(control.receive()).await,
        Ok(FromHost::History(Verdict::Lost))
    );
    assert_eq!(next(&again).await.job, waits);
    drop((again, control));
    let back = fleet.connect(&identity).await.expect("connects");
    let (welcome, mut control) = soon(back.open_control(hello(&[])))
        .await
        .expect("is welcome");
    assert_eq!(welcome.acknowledged, Some(3));
    control.send(&history(Some(3), 3)).await.expect("sends");
    assert_eq!(
        soon(control.receive()).await,
        Ok(FromHost::History(Verdict::Held))
    );
}

#[tokio::test]
async fn a_machine_that_lacks_what_was_acknowledged_gets_nothing_back_and_begins_anew() {
    let fleet = Fleet::start().await;
    let identity = fleet.enroll("web-1").await;
    let (connection, control) = fleet.greet(&identity, &[]).await;
    let jobs = [fleet.submit("web-1").await, fleet.submit("web-1").await];
    let (ends, runs) = (next(&connection).await, next(&connection).await);
    let running = vec![
        Progress::Accepted,
        Progress::Ledger(mark(4)),
        Progress::Running { started_at: 1 },
    ];
    report(&connection, runs.operation, running).await;
    let ended = vec![
        Progress::Ledger(mark(7)),
        Progress::Finished(Box::new(succeeded(0))),
    ];
    report(&connection, ends.operation, ended).await;
    let mut control = control;
    assert!(matches!(
        soon(control.receive()).await,
        Ok(FromHost::Acknowledge { .. })
    ));
    drop((connection, control));

    let back = fleet.connect(&identity).await.expect("connects");
    let hello = hello(&[runs.operation]);
    let (welcome, mut control) = soon(back.open_control(hello)).await.expect("is welcome");
    assert_eq!(welcome.acknowledged, Some(7), "the farther one");
    control.send(&history(None, 3)).await.expect("sends");
    assert_eq!(
        soon(control.receive()).await,
        Ok(FromHost::History(Verdict::Lost))
    );
    let state = |operation| {
        let tenant = fleet.admin.tenant.id;
        let store = &fleet.server.host().store;
        let row = store.read(|conn| operations::find(conn, tenant, operation));
        row.expect("reads").expect("is there").state
    };
    assert_eq!(
        (state(ends.operation), state(runs.operation)),
        (State::Succeeded, State::Interrupted)
    );
    assert_eq!(jobs.len(), 2);
    drop((back, control));

    // Another entry than the one that it had told of: there are two.
    let forked = fleet.connect(&identity).await.expect("connects");
    let (welcome, mut control) = soon(forked.open_control(self::hello(&[])))
        .await
        .expect("is welcome");
    assert_eq!(welcome.acknowledged, Some(3));
    control.send(&history(Some(9), 12)).await.expect("sends");
    assert_eq!(soon(control.receive()).await, Err(LinkError::Quarantined));
}

#[tokio::test]
async fn a_machine_says_first_what_its_history_is() {
    let fleet = Fleet::start().await;
    let identity = fleet.enroll("web-1").await;
    let connection = fleet.connect(&identity).await.expect("connects");
    let (_welcome, mut control) = soon(connection.open_control(hello(&[])))
        .await
        .expect("is welcome");
    let facts = FromAgent::Facts(Vec::new());
    control.send(&facts).await.expect("sends");
    let ended = soon(connection.closed()).await;
    assert!(matches!(ended, LinkError::Accused { .. }), "{ended}");
}

#[tokio::test]
async fn what_a_machine_has_not_got_is_sent_again_and_what_it_has_is_not() {
    let fleet = Fleet::start().await;
    let identity = fleet.enroll("web-1").await;
    let queued = fleet.submit("web-1").await;
    assert_eq!(fleet.state(queued), State::Queued);
    let (connection, control) = fleet.greet(&identity, &[]).await;
    let first = next(&connection).await;
    assert_eq!((first.job, fleet.state(queued)), (queued, State::Delivered));
    drop((connection, control));
    let (connection, control) = fleet.greet(&identity, &[]).await;
    assert_eq!(next(&connection).await, first);
    drop((connection, control));
    let (connection, _control) = fleet.greet(&identity, &[first.operation]).await;
    let later = fleet.submit("web-1").await;
    assert_eq!(
        next(&connection).await.job,
        later,
        "the first is not sent again"
    );
}

#[tokio::test]
async fn a_machine_that_comes_back_hears_what_output_the_host_has_of_its_own_operations() {
    let fleet = Fleet::start().await;
    let (identity, other) = (fleet.enroll("web-1").await, fleet.enroll("web-2").await);
    let (connection, mut control) = fleet.greet(&identity, &[]).await;
    fleet.submit("web-1").await;
    fleet.submit("web-1").await;
    let (running, waiting) = (next(&connection).await, next(&connection).await);
    let output = |stream, offset, bytes: &[u8]| {
        Progress::Output(Chunk {
            stream,
            offset,
            bytes: bytes.to_vec(),
        })
    };
    let progress = vec![
        Progress::Accepted,
        Progress::Running { started_at: 1 },
        output(OutputStream::Stdout, 0, b"hi"),
        output(OutputStream::Stderr, 10, b"oh"),
    ];
    report(&connection, running.operation, progress).await;
    report(&connection, waiting.operation, vec![Progress::Accepted]).await;
    let stored = StoredOutput {
        operation: running.operation,
        stdout: 2,
        stderr: 12,
    };
    let mut told = Vec::new();
    let deadline = tokio::time::Instant::now() + SOON;
    while told != [stored] {
        assert!(tokio::time::Instant::now() < deadline, "{told:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
        let again = fleet.connect(&identity).await.expect("connects");
        let (welcome, _control) = soon(again.open_control(hello(&[running.operation])))
            .await
            .expect("is welcome");
        told = welcome.stored;
    }
    let elsewhere = fleet.connect(&other).await.expect("connects");
    let (welcome, _control) = soon(elsewhere.open_control(hello(&[running.operation])))
        .await
        .expect("is welcome");
    assert_eq!(welcome.stored, []);
    let (connection, mut control_again) = fleet.greet(&identity, &[running.operation]).await;
    let ended = vec![Progress::Finished(Box::new(succeeded(2)))];
    report(&connection, running.operation, ended).await;
    assert!(matches!(
        soon(control_again.receive()).await,
        Ok(FromHost::Acknowledge { .. })
    ));
    while let Ok(message) = soon(control.receive()).await {
        assert!(matches!(message, FromHost::Ping { .. }), "it was replaced");
    }
    let again = fleet.connect(&identity).await.expect("connects");
    let (welcome, _control) = soon(again.open_control(hello(&[])))
        .await
        .expect("is welcome");
    assert_eq!(welcome.stored, [], "what has ended is not wanted again");
}

/// What a machine signs of a receipt for one of its operations.
fn attested(identity: &AgentIdentity, operation: OperationId) -> Attested {
    let receipt = Receipt {
        whose: Whose::Host,
        stage: Stage::Scan,
        plugin: "scanner".to_owned(),
        version: "1.0.0".to_owned(),
        component_sha256: Digest::of(b"c"),
        settings_sha256: Digest::of(b"s"),
        data_sha256: Vec::new(),
        contract: "0.1.0".to_owned(),
        runtime: "r".to_owned(),
        limits: GateLimits {
            fuel: 1,
            memory: 1,
            time_ms: 1,
            answer: 1,
        },
        bundle_sha256: None,
        input_sha256: Digest::of(b"q"),
        verdict_sha256: Digest::of(b"v"),
        verdict: "pass".to_owned(),
        fuel: 1,
        duration_us: 1,
        cached: false,
        mode: Mode::Enforce,
    };
    let receipts = vec![receipt];
    Attested {
        attestation: sign(identity, operation, &receipts),
        receipts,
    }
}

fn sign(identity: &AgentIdentity, operation: OperationId, receipts: &[Receipt]) -> Attestation {
    let machine = identity.machine();
    let subject = Subject {
        tenant: machine.tenant,
        machine: machine.machine,
        operation,
    };
    let statement = statement(subject, receipts, None).expect("encodes");
    Attestation {
        signature: identity.key().sign(&statement).expect("signs"),
        inputs: None,
    }
}

#[tokio::test]
async fn receipts_that_come_ahead_of_their_report_are_recorded_once_over_however_many_links() {
    let fleet = Fleet::start().await;
    let identity = fleet.enroll("web-1").await;
    let (connection, control) = fleet.greet(&identity, &[]).await;
    for _ in 0..4 {
        fleet.submit("web-1").await;
    }
    let mut ids = Vec::new();
    for _ in 0..4 {
        ids.push(next(&connection).await.operation);
    }
    let (store, tenant) = (&fleet.server.host().store, &fleet.admin.tenant);
    let verdicts = |id: OperationId| {
        let entries = store
            .read(|conn| store::audit::list(conn, tenant.id, 0, 1000))
            .expect("reads");
        let of_it = entries.iter().filter(|entry| {
            entry.event == "script_gate_verdict" && entry.operation == Some(id.to_string())
        });
        of_it.count()
    };
    let shown = |id| {
        store
            .read(|conn| crate::receipts::show(conn, tenant, id))
            .expect("reads")
            .expect("is there")
    };
    let told = |id| Progress::Receipts(Box::new(attested(&identity, id)));
    let ended = || Progress::Finished(Box::new(succeeded(0)));
    let running = || [Progress::Accepted, Progress::Running { started_at: 1 }];
    let in_report = |id| {
        let Attested {
            receipts,
            attestation,
        } = attested(&identity, id);
        Progress::Finished(Box::new(Report {
            receipts,
            attestation: Some(attestation),
            ..succeeded(0)
        }))
    };
    // They are on the record while the script runs, and shown with its report.
    for id in &ids {
        report(&connection, *id, [&running()[..], &[told(*id)]].concat()).await;
        let deadline = tokio::time::Instant::now() + SOON;
        while verdicts(*id) == 0 {
            assert!(tokio::time::Instant::now() < deadline);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let early = shown(*id);
        assert!(early.receipts.is_empty() && early.signed.is_none());
    }
    drop((connection, control));
    // On the next link they come again: as before, with the report, as an agent that was restarted does, or not at all.
    let (connection, mut control) = fleet.greet(&identity, &ids).await;
    for (id, progress) in [
        (ids[0], [&running()[..], &[told(ids[0]), ended()]].concat()),
        (ids[1], vec![in_report(ids[1])]),
    ] {
        report(&connection, id, progress).await;
        assert!(matches!(
            soon(control.receive()).await,
            Ok(FromHost::Acknowledge { .. })
        ));
        let shown = shown(id);
        let (statement, verified) = shown.signed.expect("is signed");
        assert_eq!((shown.receipts.len(), verdicts(id)), (1, 1));
        assert!(sluice_transport::identity::is_signed(
            &verified.certificate,
            &statement,
            &verified.signature
        ));
    }
    // What a machine says otherwise in the end is on the record as well.
    let Progress::Finished(mut other) = in_report(ids[2]) else {
        panic!("is a report");
    };
    other.receipts[0].verdict = "findings".to_owned();
    other.attestation = Some(sign(&identity, ids[2], &other.receipts));
    report(&connection, ids[2], vec![Progress::Finished(other)]).await;
    assert!(matches!(
        soon(control.receive()).await,
        Ok(FromHost::Acknowledge { .. })
    ));
    assert_eq!(verdicts(ids[2]), 2);
    assert_eq!(shown(ids[2]).receipts[0].verdict, "findings");
    report(&connection, ids[3], vec![ended()]).await;
    assert!(matches!(
        soon(control.receive()).await,
        Ok(FromHost::Acknowledge { .. })
    ));
    let without = shown(ids[3]);
    assert!(without.receipts.is_empty() && without.signed.is_none());
}

#[tokio::test]
async fn queued_operations_outlive_a_restart_of_the_host() {
    let fleet = Fleet::start().await;
    let identity = fleet.enroll("web-1").await;
    let job = fleet.submit("web-1").await;
    let fleet = fleet.restart().await;
    let (connection, _control) = fleet.greet(&identity, &[]).await;
    assert_eq!(next(&connection).await.job, job);
}

#[tokio::test]
async fn whoever_reports_another_machines_operation_is_cut_off() {
    let fleet = Fleet::start().await;
    let (victim, liar) = (fleet.enroll("web-1").await, fleet.enroll("web-2").await);
    let (connection, _control) = fleet.greet(&victim, &[]).await;
    let (lying, _lying_control) = fleet.greet(&liar, &[]).await;
    let job = fleet.submit("web-1").await;
    let operation = next(&connection).await.operation;
    report(
        &lying,
        operation,
        vec![Progress::Finished(Box::new(succeeded(0)))],
    )
    .await;
    assert!(matches!(
        soon(lying.closed()).await,
        LinkError::Accused { .. }
    ));
    assert_eq!(fleet.state(job), State::Delivered);
    let (reason, count) = fleet.violations(1).await.swap_remove(0);
    assert!(
        reason.contains("an operation of another") && reason.contains(&operation.to_string()),
        "{reason}"
    );
    assert_eq!((count, fleet.counted().as_str()), (1, "1"));
}

#[tokio::test]
async fn a_machine_that_breaks_the_protocol_is_on_the_record_once_a_minute_and_counted_each_time() {
    let fleet = Fleet::start().await;
    let (one, other) = (fleet.enroll("web-1").await, fleet.enroll("web-2").await);
    // What no program of ours says: something after the end of an operation.
    let misbehave = async |identity: &AgentIdentity| {
        let (connection, _control) = fleet.greet(identity, &[]).await;
        let progress = vec![
            Progress::Finished(Box::new(succeeded(0))),
            Progress::Checking,
        ];
        report(&connection, OperationId::generate(), progress).await;
        let error = soon(connection.closed()).await;
        assert!(matches!(error, LinkError::Accused { .. }), "{error:?}");
    };
    for _ in 0..3 {
        misbehave(&one).await;
    }
    misbehave(&other).await;
    let found = fleet.violations(2).await;
    let expected = ("progress after the end of an operation".to_owned(), 1);
    assert_eq!(found, [expected.clone(), expected]);
    // The session ends after the machine's end of the connection.
    let deadline = tokio::time::Instant::now() + SOON;
    while fleet.counted() != "4" {
        assert!(
            tokio::time::Instant::now() < deadline,
            "{}",
            fleet.counted()
        );
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(fleet.violations(2).await.len(), 2);
}

#[tokio::test]
async fn a_machine_that_takes_no_operations_is_told_to_end_one_all_the_same() {
    let fleet = Fleet::start().await;
    let identity = fleet.enroll("web-1").await;
    let (connection, mut control) = fleet.greet(&identity, &[]).await;
    // More than are sent to one machine at once, and than its carrier takes before the program does.
    let mut jobs = Vec::new();
    for _ in 0..60 {
        jobs.push(fleet.submit("web-1").await);
    }
    let first = next(&connection).await;
    assert_eq!(first.job, jobs[0]);
    jobs::cancel(
        fleet.server.host(),
        &fleet.admin,
        first.job,
        UnixMillis::now(),
    )
    .await
    .expect("cancels");
    assert_eq!(
        soon(control.receive()).await,
        Ok(FromHost::Cancel {
            operation: first.operation,
            by: "admin".to_owned()
        })
    );
    // A report is acknowledged meanwhile, too.
    report(
        &connection,
        first.operation,
        vec![Progress::Finished(Box::new(succeeded(0)))],
    )
    .await;
    assert!(matches!(
        soon(control.receive()).await,
        Ok(FromHost::Acknowledge { operation, .. }) if operation == first.operation
    ));
    // And all of the others were only waiting. In whatever order: each has a stream of its own.
    let mut rest = Vec::new();
    for _ in 1..jobs.len() {
        rest.push(next(&connection).await.job);
    }
    rest.sort();
    jobs.remove(0);
    jobs.sort();
    assert_eq!(rest, jobs);
}

#[tokio::test]
async fn a_blob_is_for_the_machine_whose_open_operation_names_it() {
    let fleet = Fleet::start().await;
    let (one, other) = (fleet.enroll("web-1").await, fleet.enroll("web-2").await);
    let (connection, mut control) = fleet.greet(&one, &[]).await;
    let (elsewhere, _other_control) = fleet.greet(&other, &[]).await;
    let (host, tenant, now) = (
        fleet.server.host(),
        fleet.admin.tenant.id,
        UnixMillis::now(),
    );
    let sha256 = host
        .blobs
        .put(tenant, b"0123456789".to_vec())
        .await
        .expect("stores");
    host.store
        .write(move |conn| blobs::insert(conn, tenant, sha256, 10, now))
        .await
        .expect("records");
    assert!(
        soon(connection.fetch(sha256, 0))
            .await
            .expect("asks")
            .is_none(),
        "no operation names it yet"
    );
    let mut with = request("web-1");
    with.attachments = vec![AttachmentRef {
        name: "a".to_owned(),
        sha256,
        size: 10,
    }];
    jobs::submit(host, &fleet.admin, with, None, now)
        .await
        .expect("is accepted");
    let operation = next(&connection).await.operation;
    let (size, mut reader) = soon(connection.fetch(sha256, 4))
        .await
        .expect("asks")
        .expect("is there");
    let mut bytes = Vec::new();
    soon(reader.read_to_end(&mut bytes)).await.expect("reads");
    assert_eq!((size, bytes.as_slice()), (10, b"456789".as_slice()));
    assert!(
        soon(elsewhere.fetch(sha256, 0))
            .await
            .expect("asks")
            .is_none(),
        "another machine does not get it"
    );
    assert!(
        soon(connection.fetch(Digest::of(b"x"), 0))
            .await
            .expect("asks")
            .is_none()
    );
    report(
        &connection,
        operation,
        vec![Progress::Finished(Box::new(succeeded(0)))],
    )
    .await;
    assert!(matches!(
        soon(control.receive()).await,
        Ok(FromHost::Acknowledge { .. })
    ));
    assert!(
        soon(connection.fetch(sha256, 0))
            .await
            .expect("asks")
            .is_none(),
        "the operation has ended"
    );
}

#[tokio::test]
async fn machines_hear_of_new_gates_names_and_cancellations_and_renew_their_certificates() {
    let fleet = Fleet::start().await;
    let identity = fleet.enroll("web-1").await;
    let (connection, mut control) = fleet.greet(&identity, &[]).await;
    let (host, now) = (fleet.server.host(), UnixMillis::now());
    let key = "ed25519:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
    plugins::trust(host, &fleet.admin, key, now)
        .await
        .expect("trusts");
    let Ok(FromHost::Gates(gates)) = soon(control.receive()).await else {
        panic!("expected gates")
    };
    assert_eq!(
        (gates.publishers, gates.revision),
        (vec![key.to_owned()], 2)
    );
    let name = "app-1".parse().expect("a name");
    fleet::patch(
        host,
        &fleet.admin,
        "web-1",
        Some(name),
        Vec::new(),
        Vec::new(),
        now,
    )
    .await
    .expect("renames");
    assert!(
        matches!(soon(control.receive()).await, Ok(FromHost::Identity(identity)) if identity.name == "app-1")
    );
    let job = fleet.submit("app-1").await;
    let operation = next(&connection).await.operation;
    jobs::cancel(host, &fleet.admin, job, now)
        .await
        .expect("cancels");
    assert_eq!(
        soon(control.receive()).await,
        Ok(FromHost::Cancel {
            operation,
            by: "admin".to_owned()
        })
    );
    let request = identity.key().request().expect("a request");
    soon(control.send(&FromAgent::Renew { request }))
        .await
        .expect("sends");
    let Ok(FromHost::Renewed { chain }) = soon(control.receive()).await else {
        panic!("expected a certificate")
    };
    assert_eq!(
        sluice_transport::identity::machine_of(&chain[0]),
        Ok(identity.machine())
    );
}

/// Says this fact, and waits until all that was said is stored.
async fn tells(fleet: &Fleet, control: &mut Control, machine: MachineId, versions: &[i64]) -> i64 {
    for version in versions {
        let fact = Fact {
            key: "version".to_owned(),
            value: FactValue::Integer(*version),
        };
        let said = soon(control.send(&FromAgent::Facts(vec![fact]))).await;
        said.expect("sends");
    }
    // Messages are taken in, in their order.
    let mark = versions.iter().fold(1_000, |sum, version| sum + version);
    let revision = u64::try_from(mark).expect("is positive");
    let ready = FromAgent::GatesReady {
        revision,
        problems: Vec::new(),
    };
    soon(control.send(&ready)).await.expect("sends");
    let tenant = fleet.admin.tenant.id;
    soon(async {
        loop {
            let store = &fleet.server.host().store;
            let row = store.read(|conn| machines::readiness(conn, tenant, machine));
            if row.expect("reads").expect("is there").gates_revision == Some(revision) {
                let row = store.read(|conn| machines::find(conn, tenant, machine));
                let facts = row.expect("reads").expect("is there").facts;
                match facts.as_slice() {
                    [
                        Fact {
                            value: FactValue::Integer(version),
                            ..
                        },
                    ] => return *version,
                    other => panic!("expected one fact, got {other:?}"),
                }
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
}

#[tokio::test]
async fn facts_that_change_on_a_link_are_kept_and_run_a_schedule_and_a_flood_of_them_is_not() {
    let fleet = Fleet::start().await;
    let identity = fleet.enroll("web-1").await;
    let machine = identity.machine().machine;
    let add = serde_json::json!({
        "name": "changed",
        "event": "facts-changed",
        "job": request("web-1"),
    });
    let add = serde_json::from_value(add).expect("is a request");
    let host = fleet.server.host();
    schedules::add(host, &fleet.admin, add, UnixMillis::now())
        .await
        .expect("is a schedule");
    let (_connection, mut control) = fleet.greet(&identity, &[]).await;
    assert_eq!(tells(&fleet, &mut control, machine, &[1]).await, 1);
    let tenant = fleet.admin.tenant.id;
    soon(async {
        let fired = |conn: &_| store::audit::list(conn, tenant, 0, 1000);
        while !(host.store.read(fired).expect("reads").iter())
            .any(|entry| entry.event == "schedule_fired")
        {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    let flood: Vec<i64> = (2..=60).collect();
    let last = tells(&fleet, &mut control, machine, &flood).await;
    assert!((9..30).contains(&last), "{last} of 60");
}

#[tokio::test]
async fn an_api_that_others_can_reach_speaks_tls() {
    let fleet = Fleet::start().await;
    assert!(
        fleet
            .server
            .host()
            .addresses
            .api
            .starts_with("http://127.0.0.1:")
    );
    fleet.server.stop().await;
    let server = start(
        &fleet.dir.path().join("data"),
        SocketAddr::from(([0, 0, 0, 0], 0)),
    )
    .await;
    assert!(server.host().addresses.api.starts_with("https://"));
    // What answers plain HTTP there is no HTTP server.
    let mut stream = tokio::net::TcpStream::connect(("127.0.0.1", server.api_address().port()))
        .await
        .expect("connects");
    tokio::io::AsyncWriteExt::write_all(&mut stream, b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        .await
        .expect("sends");
    let mut answer = Vec::new();
    let _ = soon(stream.read_to_end(&mut answer)).await;
    assert!(
        !answer.starts_with(b"HTTP/"),
        "{}",
        String::from_utf8_lossy(&answer)
    );
    server.stop().await;
}

#[tokio::test]
async fn a_host_that_stops_says_so_and_stops_soon() {
    let fleet = Fleet::start().await;
    let identity = fleet.enroll("web-1").await;
    let (connection, _control) = fleet.greet(&identity, &[]).await;
    let stopping = tokio::spawn(fleet.server.stop());
    assert_eq!(soon(connection.closed()).await, LinkError::Stopping);
    soon(stopping).await.expect("stops");
}

/// What is on its way to a machine when a lockdown begins does not count as delivered for ever.
#[tokio::test]
async fn what_a_lockdown_keeps_from_a_machine_waits_again_or_ends_where_it_was_canceled() {
    let fleet = Fleet::start().await;
    let (host, identity) = (fleet.server.host(), fleet.enroll("web-1").await);
    let (connection, mut control) = fleet.greet(&identity, &[]).await;
    // More than are sent to one machine at once, and than its carrier takes before the program does.
    let mut jobs = Vec::new();
    for _ in 0..60 {
        jobs.push(fleet.submit("web-1").await);
    }
    let now = UnixMillis::now();
    jobs::lock_down(host, &fleet.admin, None, false, now)
        .await
        .expect("locks down");
    // Of one that is held back it is known that it never comes.
    let last = jobs.pop().expect("is there");
    jobs::cancel(host, &fleet.admin, last, now)
        .await
        .expect("cancels");
    let mut got = Vec::new();
    while let Ok(Delivered::Operation(operation)) = soon(connection.next_operation()).await {
        got.push(operation.operation);
    }
    assert!(got.len() < jobs.len(), "nothing was held back");
    while soon(control.receive()).await.is_ok() {}
    let (connection, _control) = fleet.greet(&identity, &got).await;
    let states = || jobs.iter().map(|job| fleet.state(*job));
    let waiting = |state| states().filter(|found| *found == state).count();
    soon(async {
        while waiting(State::Queued) < jobs.len() - got.len() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    assert_eq!(waiting(State::Delivered), got.len());
    assert_eq!(fleet.state(last), State::Canceled);
    jobs::lift_lockdown(host, &fleet.admin, now)
        .await
        .expect("lifts");
    // What it has it is told again, and does not start twice.
    let mut all: BTreeSet<_> = got.into_iter().collect();
    while all.len() < jobs.len() {
        all.insert(next(&connection).await.operation);
    }
}

#[tokio::test]
async fn connected_machines_hear_of_a_lockdown_within_a_second_and_others_in_their_welcome() {
    const MACHINES: usize = 20;
    let fleet = Fleet::start().await;
    let host = fleet.server.host();
    let mut links = Vec::new();
    for number in 0..MACHINES {
        let identity = fleet.enroll(&format!("m{number}")).await;
        links.push((fleet.greet(&identity, &[]).await, identity));
    }
    for said in [Lockdown::On, Lockdown::Off] {
        let asked = tokio::time::Instant::now();
        let now = UnixMillis::now();
        match said {
            Lockdown::On => {
                jobs::lock_down(host, &fleet.admin, None, false, now)
                    .await
                    .expect("locks down");
            }
            Lockdown::Off => jobs::lift_lockdown(host, &fleet.admin, now)
                .await
                .expect("lifts"),
        }
        for ((_, control), _) in &mut links {
            let heard = soon(control.receive()).await.expect("hears");
            assert_eq!(heard, FromHost::Lockdown(said));
        }
        let took = asked.elapsed();
        assert!(took < Duration::from_secs(1), "{took:?}");
        // Who comes back is told at once.
        let back = fleet.connect(&links[0].1).await.expect("connects");
        let (welcome, control) = soon(back.open_control(hello(&[])))
            .await
            .expect("is welcome");
        assert_eq!(welcome.lockdown, said);
        links[0].0 = (back, control);
        prove(&mut links[0].0.1).await;
        let gates = soon(links[0].0.1.receive()).await;
        assert!(matches!(gates, Ok(FromHost::Gates(_))));
    }
    fleet.server.stop().await;
}
