//! One connection of a machine, as the fake host holds it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use quinn::{Connection, RecvStream, SendStream};
use sluice_protocol::digest::Digest;
use sluice_protocol::ids::OperationId;
use sluice_protocol::message::control::{FromAgent, FromHost, Hello, Identity, Lockdown, Welcome};
use sluice_protocol::message::operation::{Operation, Progress};
use sluice_protocol::message::{CloseCode, Direction, StreamKind};
use tokio::runtime::Handle;

use super::answer::{Answer, Telling};
use super::wire::{closed_with, frame, open_stream, raw_frame, read_frame, stream};
use crate::eventually::eventually;

/// A close code that nobody has: for the peer it is as if the network had failed.
const BROKEN: u32 = 99;

/// A connection on which a machine has said `Hello`. A cheap handle.
#[derive(Debug, Clone)]
pub struct FakeLink(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    connection: Connection,
    runtime: Handle,
    hello: Hello,
    hello_after: Duration,
    certificate: Vec<u8>,
    control: tokio::sync::Mutex<SendStream>,
    heard: Arc<Mutex<Vec<FromAgent>>>,
    told: Arc<Mutex<Vec<Telling>>>,
}

/// What the background tasks of a link write to.
type Told = Arc<Mutex<Vec<Telling>>>;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl FakeLink {
    /// Reads the control stream to `Hello`, and everything that comes after it in the background. None where there is
    /// none.
    pub(super) async fn open(
        connection: Connection,
        since: std::time::Instant,
        certificate: Vec<u8>,
    ) -> Option<Self> {
        let (control, mut receive) = connection.accept_bi().await.ok()?;
        let mut kind = [0; 1];
        receive.read_exact(&mut kind).await.ok()?;
        let Some(FromAgent::Hello(hello)) = read_frame(&mut receive).await else {
            return None;
        };
        let (heard, told) = (Arc::default(), Told::default());
        tokio::spawn(listen(receive, Arc::clone(&heard)));
        tokio::spawn(progress(connection.clone(), Arc::clone(&told)));
        Some(Self(Arc::new(Inner {
            connection,
            runtime: Handle::current(),
            hello: *hello,
            hello_after: since.elapsed(),
            certificate,
            control: tokio::sync::Mutex::new(control),
            heard,
            told,
        })))
    }

    /// What the machine said first.
    #[must_use]
    pub fn hello(&self) -> &Hello {
        &self.0.hello
    }

    /// How long after the handshake it did.
    #[must_use]
    pub fn hello_after(&self) -> Duration {
        self.0.hello_after
    }

    /// The certificate that the machine showed, in DER.
    #[must_use]
    pub fn certificate(&self) -> &[u8] {
        &self.0.certificate
    }

    /// The answer to `Hello` that an honest host gives.
    #[must_use]
    pub fn welcome(&self) -> Welcome {
        Welcome {
            version: sluice_protocol::VERSION,
            time: 1_795_000_000_000,
            identity: Identity {
                tenant: "default".to_owned(),
                name: "m1".to_owned(),
                tags: Vec::new(),
                url: "https://sluice.example.com".to_owned(),
            },
            epoch: 1,
            acknowledged: None,
            audit_head: Digest::of(b"audit"),
            stored: Vec::new(),
            lockdown: Lockdown::Off,
        }
    }

    /// Says something on the control stream.
    pub fn say(&self, message: &FromHost) {
        self.say_bytes(&frame(message));
    }

    /// Writes any bytes to the control stream. A machine that has closed the connection takes none.
    pub fn say_bytes(&self, bytes: &[u8]) {
        let written = async { self.0.control.lock().await.write_all(bytes).await };
        let _closed = self.0.runtime.block_on(written);
    }

    /// Ends the host's direction of the control stream.
    pub fn hang_up(&self) {
        let ended = async { self.0.control.lock().await.finish() };
        let _closed = self.0.runtime.block_on(ended);
    }

    /// Sends an operation, and waits until the machine has all of it.
    pub fn deliver(&self, operation: &Operation) {
        self.open_stream(
            Direction::Unidirectional,
            &stream(StreamKind::Operation, &[frame(operation)]),
        );
    }

    /// Sends something that stands where an operation should.
    pub fn deliver_bytes(&self, body: &[u8]) {
        self.open_stream(
            Direction::Unidirectional,
            &stream(StreamKind::Operation, &[raw_frame(body)]),
        );
    }

    /// Opens a stream, writes these bytes, ends it, and waits until the machine has them or has closed the connection.
    pub fn open_stream(&self, direction: Direction, bytes: &[u8]) {
        let opened = open_stream(&self.0.connection, direction, bytes);
        self.0.runtime.block_on(opened);
    }

    /// Says that the report is stored.
    pub fn acknowledge(&self, operation: OperationId) {
        self.say(&FromHost::Acknowledge {
            operation,
            audit_head: Digest::of(b"audit"),
        });
    }

    /// Every whole answer to this operation so far, in the order in which their streams were opened.
    #[must_use]
    pub fn answers(&self, operation: OperationId) -> Vec<Answer> {
        lock(&self.0.told)
            .iter()
            .filter(|telling| telling.operation == operation)
            .filter_map(Telling::answer)
            .collect()
    }

    /// Waits for that many whole answers to this operation on this link.
    ///
    /// # Panics
    ///
    /// Where they do not come, or there is a different one among them.
    pub fn answered(&self, operation: OperationId, count: usize) -> Answer {
        let mut answers = eventually(&format!("{operation} is answered {count} times"), || {
            Some(self.answers(operation)).filter(|answers| answers.len() >= count)
        });
        let first = answers.remove(0);
        for answer in answers {
            assert_eq!(answer, first, "another answer to the same operation");
        }
        first
    }

    /// Waits until the machine has told something about an operation that fits.
    ///
    /// # Panics
    ///
    /// Where it does not.
    pub fn until_told(&self, operation: OperationId, fits: impl Fn(&Progress) -> bool) {
        eventually(&format!("{operation} gets there"), || {
            lock(&self.0.told)
                .iter()
                .filter(|telling| telling.operation == operation)
                .flat_map(|telling| &telling.progress)
                .any(&fits)
                .then_some(())
        });
    }

    /// How many streams the machine has opened about an operation.
    #[must_use]
    pub fn tellings(&self, operation: OperationId) -> usize {
        lock(&self.0.told)
            .iter()
            .filter(|telling| telling.operation == operation)
            .count()
    }

    /// What the machine has said on the control stream after `Hello`.
    #[must_use]
    pub fn heard(&self) -> Vec<FromAgent> {
        lock(&self.0.heard).clone()
    }

    /// Waits until the machine has taken a gate set in, and says what it finds wrong with it.
    ///
    /// # Panics
    ///
    /// Where it does not.
    pub fn gates_ready(&self, wanted: u64) -> Vec<String> {
        eventually(&format!("the gates of revision {wanted} are ready"), || {
            self.heard().into_iter().find_map(|said| match said {
                FromAgent::GatesReady { revision, problems } if revision == wanted => {
                    Some(problems)
                }
                _ => None,
            })
        })
    }

    /// Breaks the link, as far as the machine can tell.
    pub fn cut(&self) {
        self.0.connection.close(BROKEN.into(), b"");
    }

    /// Closes the link with one of the protocol's codes.
    pub fn close(&self, code: CloseCode) {
        self.0.connection.close((code as u32).into(), b"");
    }

    /// Whether the link is up.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.0.connection.close_reason().is_none()
    }

    /// Waits until the machine closes the link: the code and the reason.
    ///
    /// # Panics
    ///
    /// Where it does not, or something else ends it.
    pub fn ended(&self) -> (u64, String) {
        let error = eventually("the machine closes the link", || {
            self.0.connection.close_reason()
        });
        closed_with(&error).unwrap_or_else(|| panic!("the link ended otherwise: {error}"))
    }
}

/// Keeps what the machine says on the control stream.
async fn listen(mut receive: RecvStream, heard: Arc<Mutex<Vec<FromAgent>>>) {
    while let Some(message) = read_frame(&mut receive).await {
        lock(&heard).push(message);
    }
}

/// Keeps what the machine tells of its operations.
async fn progress(connection: Connection, told: Told) {
    while let Ok(mut receive) = connection.accept_uni().await {
        let told = Arc::clone(&told);
        tokio::spawn(async move {
            let mut kind = [0; 1];
            if receive.read_exact(&mut kind).await.is_err() {
                return;
            }
            let Some(Progress::Of(operation)) = read_frame(&mut receive).await else {
                return;
            };
            let index = {
                let mut told = lock(&told);
                told.push(Telling {
                    operation,
                    progress: Vec::new(),
                });
                told.len() - 1
            };
            while let Some(message) = read_frame(&mut receive).await {
                lock(&told)[index].progress.push(message);
            }
        });
    }
}
