//! The fake host itself: lets everybody in, hands out what a test gives it, and does nothing else by itself.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use quinn::{Connection, RecvStream, SendStream};
use rustls::pki_types::CertificateDer;
use sluice_protocol::digest::Digest;
use sluice_protocol::gates::{GateBinding, GateSet};
use sluice_protocol::ids::{MachineId, TenantId, TokenId};
use sluice_protocol::message::ALPN;
use sluice_protocol::message::blob;
use sluice_protocol::message::control::{FromHost, Verdict};
use sluice_protocol::message::enroll::{Answer, Enrolled, Request, Token};
use sluice_transport::identity::Authority;
use tokio::runtime::Runtime;

use super::link::FakeLink;
use super::operation::shipped_gates;
use super::wire::{frame, listen, read_frame};
use crate::agent::Machine;
use crate::places::plugins;
use crate::template::prepare;

/// How long a test waits for a machine to come back: longer than the longest wait between two of its attempts.
const PATIENCE: Duration = Duration::from_secs(75);

/// A host that does what a test says. Its links come to the test, which answers them.
#[derive(Debug)]
pub struct FakeHost {
    keeps: Arc<Keeps>,
    address: SocketAddr,
    links: Receiver<FakeLink>,
    endpoint: quinn::Endpoint,
    folder: tempfile::TempDir,
    runtime: Option<Runtime>,
}

/// How the next request for a blob goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BlobFault {
    /// The link breaks after that many bytes.
    LinkBreaksAfter(usize),
    /// The stream is given up after that many bytes; the link stays.
    GivenUpAfter(usize),
    /// That many bytes come, and nothing more for as long as the link is up.
    StopsAfter(usize),
    /// One byte more comes than was said.
    Longer,
    /// One byte less comes than was said.
    Shorter,
    /// The last byte is another.
    Changed,
    /// The host says that the blob is longer than it is.
    OtherSize,
    /// There is none.
    NotFound,
}

#[derive(Debug)]
struct Keeps {
    authority: Authority,
    gates: Mutex<GateSet>,
    blobs: Mutex<HashMap<Digest, Arc<Vec<u8>>>>,
    faults: Mutex<VecDeque<BlobFault>>,
    /// Each request for a blob, with its offset.
    asked: Mutex<Vec<(Digest, u64)>>,
    issued_at: Mutex<SystemTime>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl FakeHost {
    /// Listens on a free port, with the shipped gates bound as revision 1.
    ///
    /// # Panics
    ///
    /// Where it cannot.
    #[must_use]
    pub fn start() -> Self {
        let folder = tempfile::tempdir().expect("makes a folder");
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o711))
            .expect("changes the mode");
        let authority = Authority::create(&folder.path().join("authority")).expect("makes one");
        let publisher = std::fs::read_to_string(plugins().join("publisher.pub"))
            .expect("was made by cargo xtask plugins");
        let keeps = Arc::new(Keeps {
            authority,
            gates: Mutex::new(GateSet {
                revision: 1,
                publishers: vec![publisher.trim().to_owned()],
                bindings: shipped_gates(),
            }),
            blobs: Mutex::default(),
            faults: Mutex::default(),
            asked: Mutex::default(),
            issued_at: Mutex::new(SystemTime::now()),
        });
        let runtime = Runtime::new().expect("a run time");
        let (found, links) = channel();
        let endpoint = {
            let _entered = runtime.enter();
            let endpoint = listen(&keeps.authority, SocketAddr::from(([127, 0, 0, 1], 0)));
            tokio::spawn(accept(endpoint.clone(), Arc::clone(&keeps), found));
            endpoint
        };
        let host = Self {
            keeps,
            address: endpoint.local_addr().expect("is bound"),
            links,
            endpoint,
            folder,
            runtime: Some(runtime),
        };
        for gate in shipped_gates() {
            let file = plugins().join(format!("{}.wasm", gate.plugin));
            host.hold(std::fs::read(file).expect("was made by cargo xtask plugins"));
        }
        host
    }

    /// A machine's folder, with the gates compiled, and enrolled here.
    ///
    /// # Panics
    ///
    /// Where it cannot be enrolled.
    #[must_use]
    pub fn machine(&self, name: &str, policy: &str) -> Machine {
        let machine = prepare(self.folder.path(), name, policy);
        let token = Token {
            addresses: vec![self.address.to_string()],
            authority: self.keeps.authority.root_fingerprint(),
            id: TokenId::generate(),
            secret: vec![9; 32],
        };
        let enrolled = machine.enroll(&token.to_string());
        assert!(
            enrolled.status.success(),
            "{}",
            String::from_utf8_lossy(&enrolled.stderr)
        );
        machine
    }

    /// Its folder, which users may pass through.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The authority that machines trust.
    #[must_use]
    pub fn authority(&self) -> &Authority {
        &self.keeps.authority
    }

    /// Certificates are issued as of then from here on, for 30 days.
    pub fn issue_as_of(&self, then: SystemTime) {
        *lock(&self.keeps.issued_at) = then;
    }

    /// Binds these gates from here on; the revision is one more than before.
    pub fn bind(&self, bindings: Vec<GateBinding>) -> GateSet {
        let mut gates = lock(&self.keeps.gates);
        gates.revision += 1;
        gates.bindings = bindings;
        gates.clone()
    }

    /// Names these publishers from here on.
    pub fn trust(&self, publishers: Vec<String>) {
        lock(&self.keeps.gates).publishers = publishers;
    }

    /// The gates as they are bound now.
    #[must_use]
    pub fn gates(&self) -> GateSet {
        lock(&self.keeps.gates).clone()
    }

    /// Hands these bytes out to whoever asks for their digest.
    pub fn hold(&self, bytes: Vec<u8>) -> Digest {
        let digest = Digest::of(&bytes);
        lock(&self.keeps.blobs).insert(digest, Arc::new(bytes));
        digest
    }

    /// Lets one of the next requests for a blob go wrong, in the order of these calls; later ones are answered.
    pub fn let_blob_fail(&self, fault: BlobFault) {
        lock(&self.keeps.faults).push_back(fault);
    }

    /// How often a blob was asked for.
    #[must_use]
    pub fn asked_for(&self, blob: Digest) -> usize {
        self.asked_from(blob).len()
    }

    /// From which offsets a blob was asked for.
    #[must_use]
    pub fn asked_from(&self, blob: Digest) -> Vec<u64> {
        let asked = lock(&self.keeps.asked);
        let of_it = asked.iter().filter(|(sha256, _)| *sha256 == blob);
        of_it.map(|(_, offset)| *offset).collect()
    }

    /// The next connection on which a machine says `Hello`. Nothing was answered yet.
    ///
    /// # Panics
    ///
    /// Where nobody comes.
    #[must_use]
    pub fn greeted(&self) -> FakeLink {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let link = self.links.recv_timeout(left).expect("a machine comes");
            // A machine that was not answered in time has come again.
            if link.is_up() {
                return link;
            }
        }
    }

    /// The next connection, with the answer of an honest host: `Welcome`, that the machine's history is held, and the
    /// gates of the moment.
    #[must_use]
    pub fn serve(&self) -> FakeLink {
        let link = self.greeted();
        link.say(&FromHost::Welcome(Box::new(link.welcome())));
        link.say(&FromHost::History(Verdict::Held));
        link.say(&FromHost::Gates(Box::new(self.gates())));
        link
    }

    /// Forgets who has come and was not looked at: a machine that has ended since.
    pub fn send_away(&self) {
        while let Ok(link) = self.links.try_recv() {
            link.cut();
        }
    }

    /// Whether a machine has come that the test has not looked at.
    #[must_use]
    pub fn has_visitor(&self) -> bool {
        self.links.try_recv().is_ok_and(|link| link.is_up())
    }
}

impl Drop for FakeHost {
    fn drop(&mut self) {
        self.endpoint.close(0_u32.into(), b"");
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

async fn accept(endpoint: quinn::Endpoint, keeps: Arc<Keeps>, found: Sender<FakeLink>) {
    while let Some(incoming) = endpoint.accept().await {
        let (keeps, found) = (Arc::clone(&keeps), found.clone());
        tokio::spawn(async move {
            let Ok(connection) = incoming.await else {
                return;
            };
            let since = Instant::now();
            let data = connection
                .handshake_data()
                .and_then(|data| data.downcast::<quinn::crypto::rustls::HandshakeData>().ok());
            if data.and_then(|data| data.protocol).as_deref() != Some(ALPN) {
                enroll(&connection, &keeps).await;
                return;
            }
            let shown = connection
                .peer_identity()
                .and_then(|any| any.downcast::<Vec<CertificateDer<'static>>>().ok())
                .and_then(|chain| chain.first().map(|leaf| leaf.to_vec()));
            let Some(link) =
                FakeLink::open(connection.clone(), since, shown.unwrap_or_default()).await
            else {
                return;
            };
            tokio::spawn(blobs(connection, keeps));
            // Nobody may be waiting for it any more.
            let _over = found.send(link);
        });
    }
}

/// Lets one machine in, whoever it is.
async fn enroll(connection: &Connection, keeps: &Keeps) {
    let Ok((mut send, mut receive)) = connection.accept_bi().await else {
        return;
    };
    let mut kind = [0; 1];
    if receive.read_exact(&mut kind).await.is_err() {
        return;
    }
    let Some(Request::Enroll(request)) = read_frame(&mut receive).await else {
        return;
    };
    let issued_at = *lock(&keeps.issued_at);
    let issued = keeps.authority.issue_machine(
        TenantId::generate(),
        MachineId::generate(),
        &request.request,
        issued_at,
    );
    let enrolled = Enrolled {
        chain: issued
            .expect("issues")
            .chain
            .into_iter()
            .map(Into::into)
            .collect(),
        name: request.name.clone(),
        tenant: "default".to_owned(),
    };
    let answer = frame(&Answer::Enrolled(Box::new(enrolled)));
    let _closed = send.write_all(&answer).await;
    let _closed = send.finish();
    connection.closed().await;
}

/// Answers requests for blobs.
async fn blobs(connection: Connection, keeps: Arc<Keeps>) {
    while let Ok((send, receive)) = connection.accept_bi().await {
        let (connection, keeps) = (connection.clone(), Arc::clone(&keeps));
        tokio::spawn(async move { blob(&connection, &keeps, send, receive).await });
    }
}

async fn blob(
    connection: &Connection,
    keeps: &Keeps,
    mut send: SendStream,
    mut receive: RecvStream,
) -> Option<()> {
    let mut kind = [0; 1];
    receive.read_exact(&mut kind).await.ok()?;
    let request: blob::Request = read_frame(&mut receive).await?;
    lock(&keeps.asked).push((request.sha256, request.offset));
    let fault = lock(&keeps.faults).pop_front();
    let bytes = lock(&keeps.blobs).get(&request.sha256).cloned();
    let Some(bytes) = bytes.filter(|_| fault != Some(BlobFault::NotFound)) else {
        send.write_all(&frame(&blob::Answer::NotFound)).await.ok()?;
        return send.finish().ok();
    };
    let mut bytes = bytes[usize::try_from(request.offset).ok()?..].to_vec();
    let mut size = request.offset + bytes.len() as u64;
    match fault {
        Some(
            BlobFault::LinkBreaksAfter(length)
            | BlobFault::GivenUpAfter(length)
            | BlobFault::StopsAfter(length),
        ) => bytes.truncate(length),
        Some(BlobFault::Longer) => bytes.push(0),
        Some(BlobFault::Shorter) => drop(bytes.pop()),
        Some(BlobFault::Changed) => *bytes.last_mut()? ^= 1,
        Some(BlobFault::OtherSize) => size += 1,
        Some(BlobFault::NotFound) | None => {}
    }
    send.write_all(&frame(&blob::Answer::Found { size }))
        .await
        .ok()?;
    send.write_all(&bytes).await.ok()?;
    match fault {
        Some(BlobFault::LinkBreaksAfter(_)) => connection.close(99_u32.into(), b""),
        Some(BlobFault::GivenUpAfter(_)) => send.reset(0_u32.into()).ok()?,
        Some(BlobFault::StopsAfter(_)) => drop(connection.closed().await),
        _ => send.finish().ok()?,
    }
    Some(())
}
