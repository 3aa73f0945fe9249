//! An enrolled machine that says what a test wants.

use std::net::SocketAddr;
use std::time::SystemTime;

use quinn::Connection;
use sluice_protocol::digest::Digest;
use sluice_protocol::ids::OperationId;
use sluice_protocol::message::control::{FromAgent, Hardware, Hello, History, LedgerMark};
use sluice_protocol::message::enroll::{Enroll, Request, Token};
use sluice_protocol::message::{ALPN, Direction, StreamKind};
use sluice_transport::agent::enroll;
use sluice_transport::identity::{AgentIdentity, MachineKey};
use tokio::runtime::Runtime;

use super::wire::{closed_with, connect, frame, open_stream, stream};
use crate::eventually::eventually;

/// A machine that a real host has let in.
#[derive(Debug)]
pub struct FakeMachine {
    identity: AgentIdentity,
    host: SocketAddr,
    runtime: Runtime,
}

/// One of its connections, on which nothing was said yet. Dropped, it is closed.
#[derive(Debug)]
pub struct FakeConnection<'a> {
    connection: Connection,
    machine: &'a FakeMachine,
    _endpoint: quinn::Endpoint,
}

impl FakeMachine {
    /// Enrolls under this name, as a real one does.
    ///
    /// # Panics
    ///
    /// Where the host says no.
    #[must_use]
    pub fn enroll(token: &str, name: &str) -> Self {
        let token: Token = token.trim().parse().expect("is a token");
        let runtime = Runtime::new().expect("a run time");
        let identity = runtime.block_on(enrolled(&token, name));
        Self {
            identity,
            host: token.addresses[0].parse().expect("is an address"),
            runtime,
        }
    }

    /// Who it is, and its key.
    #[must_use]
    pub const fn identity(&self) -> &AgentIdentity {
        &self.identity
    }

    /// Connects, and says nothing.
    ///
    /// # Panics
    ///
    /// Where the host does not shake hands.
    #[must_use]
    pub fn connect(&self) -> FakeConnection<'_> {
        let local = SocketAddr::from(([127, 0, 0, 1], 0));
        let connected = connect(local, self.host, ALPN, Some(&self.identity));
        let (endpoint, connection) = self
            .runtime
            .block_on(connected)
            .expect("the host shakes hands");
        FakeConnection {
            connection,
            machine: self,
            _endpoint: endpoint,
        }
    }
}

/// Who a machine is that has enrolled under this name, as a real one does.
pub(super) async fn enrolled(token: &Token, name: &str) -> AgentIdentity {
    let key = MachineKey::generate().expect("makes a key");
    let request = Request::Enroll(Box::new(Enroll {
        token: token.id,
        secret: token.secret.clone(),
        request: key.request().expect("makes a request"),
        name: name.to_owned(),
        facts: Vec::new(),
    }));
    let enrollment = enroll(token, &request).await.expect("is let in");
    let chain: Vec<Vec<u8>> = enrollment
        .enrolled
        .chain
        .iter()
        .map(|der| der.to_vec())
        .collect();
    AgentIdentity::new(key, &chain, &enrollment.root, SystemTime::now()).expect("fits together")
}

/// What a machine says first: `Hello`, and that its ledger is empty.
pub(super) fn greeting(open: &[OperationId]) -> Vec<u8> {
    let hello = FromAgent::Hello(Box::new(Hello {
        versions: vec![sluice_protocol::VERSION],
        software: "fake".to_owned(),
        facts: Vec::new(),
        open: open.to_vec(),
        hardware: Hardware::default(),
        sealing_key: Vec::new(),
    }));
    // An empty ledger, of which the host can have acknowledged nothing but that.
    let head = LedgerMark {
        seq: 0,
        hash: Digest::from_bytes([0; 32]),
    };
    let history = FromAgent::History(History {
        at_acknowledged: Some(head.hash),
        head,
    });
    stream(StreamKind::Control, &[frame(&hello), frame(&history)])
}

impl FakeConnection<'_> {
    /// Opens the control stream and says `Hello` on it, and these bytes after it. Where there are none, waits until the host
    /// has begun to answer or has closed the connection.
    pub fn greet(&self, open: &[OperationId], then: &[u8]) {
        let bytes = [greeting(open), then.to_vec()].concat();
        let (connection, waits) = (self.connection.clone(), then.is_empty());
        self.machine.runtime.block_on(async move {
            if let Ok((mut send, mut receive)) = connection.open_bi().await {
                let _closed = send.write_all(&bytes).await;
                if waits {
                    let _closed = receive.read_exact(&mut [0]).await;
                }
                // It lives as long as the connection.
                tokio::spawn(async move {
                    connection.closed().await;
                    drop((send, receive));
                });
            }
        });
    }

    /// Opens a stream, writes these bytes, ends it, and waits until the host has them or has closed the connection.
    pub fn open_stream(&self, direction: Direction, bytes: &[u8]) {
        self.machine
            .runtime
            .block_on(open_stream(&self.connection, direction, bytes));
    }

    /// Waits until the host closes the connection: the code and the reason.
    ///
    /// # Panics
    ///
    /// Where it does not, or something else ends it.
    #[must_use]
    pub fn ended(&self) -> (u64, String) {
        let error = eventually("the host closes the connection", || {
            self.connection.close_reason()
        });
        closed_with(&error).unwrap_or_else(|| panic!("the connection ended otherwise: {error}"))
    }
}

impl Drop for FakeConnection<'_> {
    fn drop(&mut self) {
        self.connection.close(0_u32.into(), b"");
    }
}
