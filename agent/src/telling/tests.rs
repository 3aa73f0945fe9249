//! Telling a host that is played by the test, over a real link.

use std::fs::File;
use std::future::Future;
use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::SystemTime;

use sluice_protocol::digest::Digest;
use sluice_protocol::ending::Ending;
use sluice_protocol::ids::{HostId, MachineId, TenantId};
use sluice_protocol::message::control::{FromHost, Hardware, Hello, Identity, Lockdown, Welcome};
use sluice_protocol::report::StreamEnd;
use sluice_shim::event::{Event, HeadFull, Stream};
use sluice_shim::frame;
use sluice_transport::agent::connect;
use sluice_transport::host::{Arrival, FromMachine, HostConnection, HostEndpoint};
use sluice_transport::identity::{AgentIdentity, Authority, MachineKey};

use super::*;

async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(10), future)
        .await
        .unwrap_or_else(|_| panic!("{what} did not come in time"))
}

/// Both ends of a link.
struct Ends {
    _endpoint: HostEndpoint,
    agent: AgentConnection,
    host: HostConnection,
    _controls: Box<dyn std::any::Any>,
}

impl Ends {
    async fn new() -> Self {
        let folder = tempfile::tempdir().expect("makes a folder");
        let authority = Authority::create(&folder.path().join("authority")).expect("creates");
        let loopback = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let endpoint = HostEndpoint::bind(loopback, &authority, HostId::generate()).expect("binds");
        let (key, now) = (
            MachineKey::generate().expect("makes a key"),
            SystemTime::now(),
        );
        let request = key.request().expect("makes a request");
        let issued = authority
            .issue_machine(TenantId::generate(), MachineId::generate(), &request, now)
            .expect("issues");
        let identity = AgentIdentity::new(key, &issued.chain, authority.root_der(), now);
        let identity = identity.expect("fits together");
        let addresses = [endpoint.local_addr().to_string()];
        let agent = async {
            let agent = connect(&addresses, &identity, None)
                .await
                .expect("connects");
            let hello = Hello {
                versions: vec![sluice_protocol::VERSION],
                software: String::new(),
                facts: vec![],
                open: vec![],
                hardware: Hardware::default(),
                sealing_key: Vec::new(),
            };
            let (_, control) = agent.open_control(hello).await.expect("is welcome");
            (agent, control)
        };
        let host = async {
            let Some(Arrival::Machine(host)) = endpoint.accept().await else {
                panic!("expected a machine");
            };
            let (_, mut control) = host.accept_control().await.expect("says hello");
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
            let welcome = FromHost::Welcome(Box::new(welcome));
            control.send(&welcome).await.expect("sends");
            (host, control)
        };
        let ((agent, ours), (host, theirs)) =
            soon("a link", async { tokio::join!(agent, host) }).await;
        Self {
            _endpoint: endpoint,
            agent,
            host,
            _controls: Box::new((ours, theirs)),
        }
    }

    /// Everything that the host hears about one operation.
    async fn hear(&self) -> Vec<Progress> {
        let Ok(FromMachine::Progress(mut stream)) = soon("a stream", self.host.next()).await else {
            panic!("expected progress");
        };
        let mut heard = Vec::new();
        while let Some(progress) = soon("progress", stream.recv()).await.expect("receives") {
            heard.push(progress);
        }
        heard
    }
}

/// A spool that the test writes.
struct Spool {
    folder: tempfile::TempDir,
    events: File,
    at: u64,
}

impl Spool {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("makes a folder");
        let events = File::create(folder.path().join("events")).expect("makes a file");
        Self {
            folder,
            events,
            at: 0,
        }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn add(&mut self, event: &Event) {
        let frame = frame::encode(event);
        self.events.write_all(&frame).expect("writes");
    }

    fn write(&mut self, text: &str) {
        let event = Event::Output {
            stream: Stream::Stdout,
            at: self.at,
            bytes: text.as_bytes().to_vec().into(),
        };
        self.at += text.len() as u64;
        self.add(&event);
    }
}

fn report(kept: u64, lost: u64, head: u64) -> Report {
    Report {
        started_at: Some(1),
        stdout: StreamEnd { kept, lost, head },
        ..Report::without_process(Ending::Succeeded, 2)
    }
}

/// The output among what was heard: where it begins, and its text.
fn output(heard: &[Progress]) -> Vec<(u64, String)> {
    let chunk = |progress: &Progress| match progress {
        Progress::Output(chunk) => {
            let text = String::from_utf8(chunk.bytes.clone()).expect("is text");
            Some((chunk.offset, text))
        }
        _ => None,
    };
    heard.iter().filter_map(chunk).collect()
}

#[tokio::test]
async fn what_the_host_has_is_not_told_again_and_what_is_lost_is_not_told() {
    let mut spool = Spool::new();
    spool.write("0123456789");
    spool.add(&Event::HeadFull(HeadFull {
        stdout: 10,
        stderr: 0,
        rest: 5,
    }));
    spool.write("abcdefghij");
    let ends = Ends::new().await;
    let journal = Journal::of_ended(report(15, 5, 10));
    for (stdout, expected) in [
        (0, vec![(0, "0123456789"), (15, "fghij")]),
        (3, vec![(3, "3456789"), (15, "fghij")]),
        (12, vec![(15, "fghij")]),
        (17, vec![(17, "hij")]),
        (20, vec![]),
        (u64::MAX, vec![]),
    ] {
        let told = Told { stdout, stderr: 0 };
        let telling = tell(
            &journal,
            OperationId::generate(),
            &ends.agent,
            told,
            spool.path(),
            &|| None,
        );
        let (told, heard) = tokio::join!(telling, ends.hear());
        told.expect("is told");
        let heard_output = output(&heard);
        let heard_output: Vec<_> = heard_output
            .iter()
            .map(|(at, text)| (*at, &**text))
            .collect();
        assert_eq!(heard_output, expected, "the host had {stdout}");
        assert!(matches!(heard.last(), Some(Progress::Finished(_))));
        assert_eq!(heard.first(), Some(&Progress::Accepted));
    }
}

#[tokio::test]
async fn output_is_told_while_it_is_written_and_the_report_comes_last() {
    let mut spool = Spool::new();
    let (ends, journal) = (Ends::new().await, Journal::default());
    journal.push(Progress::Accepted);
    journal.accepted();
    let path = spool.path().to_owned();
    let telling = {
        let (journal, agent) = (journal.clone(), ends.agent.clone());
        tokio::spawn(async move {
            let id = OperationId::generate();
            tell(&journal, id, &agent, Told::default(), &path, &|| None).await
        })
    };
    let Ok(FromMachine::Progress(mut stream)) = soon("a stream", ends.host.next()).await else {
        panic!("expected progress");
    };
    let mut hear = async || soon("progress", stream.recv()).await.expect("receives");
    assert_eq!(hear().await, Some(Progress::Accepted));
    journal.push(Progress::Running { started_at: 1 });
    assert_eq!(hear().await, Some(Progress::Running { started_at: 1 }));
    spool.write("with the events, ");
    journal.output(Chunk {
        stream: OutputStream::Stdout,
        offset: 0,
        bytes: b"with the events, ".to_vec(),
    });
    let heard = hear().await;
    assert_eq!(output(&[heard.expect("is told")])[0].0, 0);
    journal.spooled();
    for (at, text) in [(17, "in the "), (24, "spool")] {
        spool.write(text);
        let heard = hear().await.expect("is told");
        assert_eq!(output(&[heard]), [(at, text.to_owned())]);
    }
    spool.write("!");
    journal.ended(report(30, 0, 30));
    assert_eq!(output(&[hear().await.expect("is told")])[0].1, "!");
    assert!(matches!(hear().await, Some(Progress::Finished(_))));
    assert_eq!(hear().await, None);
    telling.await.expect("runs").expect("is told");
}

#[tokio::test]
async fn a_spool_that_cannot_be_read_does_not_keep_the_report_back() {
    let spool = tempfile::tempdir().expect("makes a folder");
    std::fs::create_dir(spool.path().join("events")).expect("makes a folder");
    let (ends, journal) = (Ends::new().await, Journal::of_ended(report(5, 0, 5)));
    let id = OperationId::generate();
    let telling = tell(
        &journal,
        id,
        &ends.agent,
        Told::default(),
        spool.path(),
        &|| None,
    );
    let (told, heard) = tokio::join!(telling, ends.hear());
    told.expect("is told");
    assert!(matches!(heard.last(), Some(Progress::Finished(_))));
    assert_eq!(output(&heard), []);
}

#[tokio::test]
async fn operations_that_wait_do_not_keep_back_those_that_have_ended() {
    let places = Places::default();
    let mut waiting = Vec::new();
    for _ in 0..UNDER_WAY {
        waiting.push(places.of_one_under_way(&Journal::default()).await);
    }
    let journal = Journal::default();
    let place = places.of_one_under_way(&journal);
    tokio::pin!(place);
    let early = tokio::time::timeout(Duration::from_millis(20), &mut place).await;
    assert!(early.is_err(), "all places are taken");
    journal.ended(report(0, 0, 0));
    let _place = soon("a place", place).await;
    drop(waiting);
}

#[test]
fn little_output_is_in_memory_and_more_is_left_to_the_spool() {
    let journal = Journal::default();
    let piece = |offset| Chunk {
        stream: OutputStream::Stdout,
        offset,
        bytes: vec![b'x'; 40 << 10],
    };
    journal.output(piece(0));
    assert!(!journal.after(0).spooled);
    for number in 1..100 {
        journal.output(piece(number * (40 << 10)));
    }
    let news = journal.after(0);
    assert!(news.spooled);
    assert_eq!(news.entries.len(), 1);
}

#[test]
fn pieces_are_joined_but_not_over_the_end_of_the_head() {
    let mut spool = Spool::new();
    (0..3).for_each(|_| spool.write("head "));
    spool.add(&Event::HeadFull(HeadFull {
        stdout: 15,
        stderr: 0,
        rest: 100,
    }));
    (0..3).for_each(|_| spool.write("tail "));
    let batch = read_on(&mut Reader::new(spool.path()), false).expect("reads");
    let chunks: Vec<_> = batch
        .chunks
        .iter()
        .map(|chunk| (chunk.offset, chunk.bytes.len()))
        .collect();
    assert_eq!(chunks, [(0, 15), (15, 15)]);
    assert!(!batch.more);
}
