//! One simulated machine: what it does with operations, whatever becomes of its links.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use quinn::Connection;
use sluice_protocol::ending::Ending;
use sluice_protocol::ids::OperationId;
use sluice_protocol::message::control::{Lockdown, StoredOutput};
use sluice_protocol::message::operation::Operation;
use sluice_protocol::report::{Exit, Report, StreamEnd};
use sluice_transport::identity::AgentIdentity;
use tokio::sync::watch;

use super::behavior::{Behavior, Manner};
use super::ledger::{Answer, Known, Ledger, Open, Phase};
use super::seen::{Seen, Sight, What};
use super::telling::tell;

/// What a machine that contradicts itself says in the end.
const CONTRADICTION: i32 = 77;

/// A machine.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) name: Arc<str>,
    pub(super) identity: AgentIdentity,
    behavior: Mutex<Arc<Behavior>>,
    ledger: Mutex<Ledger>,
    pub(super) lockdown: watch::Sender<Lockdown>,
    /// It is not to be connected.
    pub(super) away: watch::Sender<bool>,
    link: Mutex<Option<Link>>,
    pub(super) seen: Arc<Seen>,
    /// Whether those that answer late may.
    answers: watch::Sender<bool>,
}

/// A link over which the machine was welcomed.
#[derive(Debug, Clone)]
struct Link {
    connection: Connection,
    stored: Arc<Vec<StoredOutput>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Member {
    pub(super) fn new(
        (name, identity): (String, AgentIdentity),
        behavior: Arc<Behavior>,
        seen: &Arc<Seen>,
        answers: &watch::Sender<bool>,
    ) -> Self {
        Self {
            name: name.into(),
            identity,
            behavior: Mutex::new(behavior),
            ledger: Mutex::default(),
            lockdown: watch::Sender::new(Lockdown::Off),
            away: watch::Sender::new(false),
            link: Mutex::default(),
            seen: Arc::clone(seen),
            answers: answers.clone(),
        }
    }

    /// Operations that come from here on go so.
    pub(super) fn behave(&self, behavior: Arc<Behavior>) {
        *lock(&self.behavior) = behavior;
    }

    pub(super) fn ledger(&self) -> MutexGuard<'_, Ledger> {
        lock(&self.ledger)
    }

    /// The host takes operations of this machine to be in this state: what is open is told over this link.
    pub(super) fn connected(self: &Arc<Self>, connection: &Connection, stored: Vec<StoredOutput>) {
        let link = Link {
            connection: connection.clone(),
            stored: Arc::new(stored),
        };
        *lock(&self.link) = Some(link);
        let open = self.ledger().open_ids();
        for operation in open {
            self.tell(operation);
        }
    }

    /// The link is no more.
    pub(super) fn hang_up(&self) {
        if let Some(link) = lock(&self.link).take() {
            link.connection.close(0_u32.into(), b"");
        }
    }

    pub(super) fn is_connected(&self) -> bool {
        let link = lock(&self.link);
        link.as_ref()
            .is_some_and(|link| link.connection.close_reason().is_none())
    }

    /// Tells of an operation over the link of the moment.
    fn tell(self: &Arc<Self>, operation: OperationId) {
        let (link, open) = (lock(&self.link).clone(), self.ledger().open(operation));
        if let (Some(link), Some(open)) = (link, open) {
            let stored = link.stored.iter().find(|it| it.operation == operation);
            let stored = stored.map_or(0, |stored| stored.stdout);
            let member = Arc::clone(self);
            tokio::spawn(async move {
                tell(&member, &link.connection, operation, &open, stored).await;
            });
        }
    }

    /// Tells something else of an operation of which the host has acknowledged the end.
    fn tell_again(self: &Arc<Self>, operation: OperationId, open: Open) {
        if let Some(link) = lock(&self.link).clone() {
            let member = Arc::clone(self);
            tokio::spawn(async move {
                tell(&member, &link.connection, operation, &open, 0).await;
            });
        }
    }

    fn note(&self, operation: OperationId, open: &Open, what: What) {
        self.seen.note(Sight {
            machine: Arc::clone(&self.name),
            job: open.job,
            operation,
            what,
        });
    }

    /// An operation has come.
    pub(super) fn arrived(self: &Arc<Self>, message: &Operation) {
        let operation = message.operation;
        let behavior = Arc::clone(&lock(&self.behavior));
        let known = self.ledger().take_in(operation, message.job, &behavior);
        match known {
            Known::New(open) => {
                self.note(operation, &open, What::Delivered);
                self.seen.operations.fetch_add(1, Ordering::Relaxed);
                let member = Arc::clone(self);
                tokio::spawn(async move { member.run(operation, open).await });
                self.tell(operation);
            }
            Known::Open(open) => {
                self.note(operation, &open, What::Delivered);
                self.tell(operation);
            }
            Known::Over => self.seen.fault(format!(
                "{operation} came to {} after its end was acknowledged",
                self.name
            )),
        }
    }

    /// The host wants an operation to end. One that is not here has ended, since none is canceled before it was sent.
    pub(super) fn cancel(&self, operation: OperationId, by: String) {
        if let Some(open) = self.ledger().open(operation) {
            self.note(operation, &open, What::Canceled);
            open.canceled.send_replace(Some(by));
        }
    }

    /// The host has stored the end of an operation.
    pub(super) fn acknowledged(self: &Arc<Self>, operation: OperationId) {
        let Some(open) = self.ledger().forget(operation) else {
            return;
        };
        self.note(operation, &open, What::Acknowledged);
        match open.behavior.manner {
            Manner::Honest | Manner::Silent | Manner::Late => {}
            Manner::Twice => self.tell_again(operation, open),
            Manner::Contradicting => {
                open.phase.send_modify(|phase| {
                    if let Phase::Ended(answer) = phase {
                        answer.report.ending = Ending::ExitCode(CONTRADICTION);
                        answer.report.exit = Some(Exit::Code(CONTRADICTION));
                    }
                });
                self.tell_again(operation, open);
            }
            Manner::Dark => drop(self.away.send_replace(true)),
        }
    }

    /// An operation from the moment in which it was taken in to its end.
    async fn run(self: Arc<Self>, operation: OperationId, open: Open) {
        let (mut lockdown, mut canceled) = (self.lockdown.subscribe(), open.canceled.subscribe());
        let may_start = async { lockdown.wait_for(|it| *it == Lockdown::Off).await.is_ok() };
        let by = tokio::select! {
            biased;
            by = wish(&mut canceled) => by,
            _ = may_start => None,
        };
        if let Some(by) = by {
            let report = Report::without_process(Ending::Canceled(by), now());
            return self.end(operation, &open, report, Vec::new());
        }
        let behavior = &open.behavior;
        let started_at = now();
        self.ledger().step();
        self.note(operation, &open, What::Started);
        open.phase.send_replace(Phase::Running { started_at });
        let by = tokio::select! {
            biased;
            by = wish(&mut canceled) => by,
            () = self.work(behavior) => None,
        };
        let (ending, exit) = match (by, behavior.exit_code) {
            (Some(by), _) => (Ending::Canceled(by), None),
            (None, 0) => (Ending::Succeeded, Some(Exit::Code(0))),
            (None, code) => (Ending::ExitCode(code), Some(Exit::Code(code))),
        };
        let stdout = behavior.stdout.clone().into_bytes();
        let length = stdout.len() as u64;
        let report = Report {
            exit,
            started_at: Some(started_at),
            duration_ms: Some(now().saturating_sub(started_at)),
            stdout: StreamEnd {
                kept: length,
                lost: 0,
                head: length,
            },
            ..Report::without_process(ending, now())
        };
        self.end(operation, &open, report, stdout);
        if behavior.manner == Manner::Twice {
            self.tell(operation);
        }
    }

    async fn work(&self, behavior: &Behavior) {
        if !behavior.takes.is_zero() {
            tokio::time::sleep(behavior.takes).await;
        }
        match behavior.manner {
            Manner::Silent => std::future::pending().await,
            Manner::Late => {
                let mut answers = self.answers.subscribe();
                let _closed = answers.wait_for(|may| *may).await;
            }
            Manner::Honest | Manner::Twice | Manner::Contradicting | Manner::Dark => {}
        }
    }

    fn end(&self, operation: OperationId, open: &Open, report: Report, stdout: Vec<u8>) {
        self.ledger().step();
        // Before anybody can have heard of it.
        self.note(operation, open, What::Ended(report.ending.state()));
        let answer = Box::new(Answer { report, stdout });
        open.phase.send_replace(Phase::Ended(answer));
    }
}

/// Who wants an operation to end, once somebody does.
async fn wish(canceled: &mut watch::Receiver<Option<String>>) -> Option<String> {
    let by = canceled.wait_for(Option::is_some).await;
    let by = by.ok().and_then(|by| by.clone());
    if by.is_none() {
        // Nobody ever will.
        std::future::pending::<()>().await;
    }
    by
}

/// Milliseconds since 1970.
fn now() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    u64::try_from(now.unwrap_or(Duration::ZERO).as_millis()).unwrap_or(u64::MAX)
}
