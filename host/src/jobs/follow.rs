//! Following a job: first what has happened, then what happens, to the end of its last operation.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use sluice_api_types::event::{OutputEvent, StateEvent};
use sluice_api_types::operation::OperationResult;
use sluice_api_types::rollout::{Rollout, RolloutState};
use sluice_protocol::ending::State;
use sluice_protocol::ids::{JobId, OperationId, TenantId};
use sluice_protocol::message::operation::OutputStream;

use super::{Subscription, ends_that_are_lost, operation_result};
use crate::host::SharedHost;
use crate::store::operations::{self, Step};
use crate::store::output::Piece;
use crate::store::tenants::Tenant;
use crate::store::{Connection, Extent, StoreError, jobs, later, output, rollouts};

/// How many pieces of output are read at once.
const PIECES: u32 = 64;
/// Once so many bytes of output wait to be taken, no other operation is looked at: a follower that comes late holds what it
/// can take, and not all that a fleet wrote.
const ENOUGH: usize = 1 << 20;
/// With more operations than this, changes are gathered for a moment before the store is read.
const MANY: usize = 32;
const GATHER: Duration = Duration::from_millis(100);

/// What a follower sees.
#[derive(Debug, Clone, PartialEq)]
pub enum Followed {
    /// An operation is in another state.
    State(StateEvent),
    /// A piece of output.
    Output(OutputEvent),
    /// The job's rollout is somewhere else: another batch has begun, or it was paused or resumed.
    Rollout(Box<Rollout>),
    /// An operation has ended.
    Result(Box<OperationResult>),
    /// All have.
    End,
}

/// What a piece of output costs besides its bytes, about: they may be one byte each.
const PIECE: usize = 256;

impl Followed {
    /// How much output it holds.
    fn bytes(&self) -> usize {
        match self {
            Self::Output(event) => PIECE + event.data.0.len(),
            Self::Result(result) => [&result.stdout, &result.stderr, &result.output]
                .into_iter()
                .flatten()
                .map(String::len)
                .sum(),
            Self::State(_) | Self::Rollout(_) | Self::End => 0,
        }
    }
}

/// Somebody who follows a job.
#[derive(Debug)]
pub struct Follower {
    host: SharedHost,
    tenant: Tenant,
    job: JobId,
    operations: usize,
    subscription: Subscription,
    /// Where its rollout was last; none where it has none.
    rollout: Option<(RolloutState, u64)>,
    seen: HashMap<OperationId, Seen>,
    ready: VecDeque<Followed>,
    /// Of what the last look at the job found, what was not told yet.
    rest: Vec<(Step, Seen)>,
    /// Every operation had ended by that look.
    is_over: bool,
    ended: bool,
}

/// What was seen of an operation.
#[derive(Debug, Clone, Copy, Default)]
struct Seen {
    state: Option<State>,
    piece: i64,
}

impl Seen {
    fn is_all(self) -> bool {
        self.state.is_some_and(State::is_terminal)
    }
}

impl Follower {
    /// Follows a job; none where the tenant has no such job.
    ///
    /// # Errors
    ///
    /// Where the database cannot be read.
    pub fn new(host: SharedHost, tenant: Tenant, job: JobId) -> Result<Option<Self>, StoreError> {
        // The subscription stands before the first look, so that nothing falls between the two.
        let subscription = host.events.subscribe(job);
        let (head, rollout) = host.store.read(|conn| {
            let rollout = rollouts::find(conn, tenant.id, job)?;
            Ok::<_, StoreError>((jobs::head(conn, tenant.id, job)?, rollout))
        })?;
        Ok(head.map(|head| Self {
            host,
            tenant,
            job,
            operations: usize::try_from(head.targets).unwrap_or(usize::MAX),
            subscription,
            // Before its first batch, so that the first is told.
            rollout: rollout.map(|row| (row.state, 0)),
            seen: HashMap::new(),
            ready: VecDeque::new(),
            rest: Vec::new(),
            is_over: false,
            ended: false,
        }))
    }

    /// What comes next; none after the end.
    ///
    /// # Errors
    ///
    /// Where the database cannot be read.
    pub async fn next(&mut self) -> Result<Option<Followed>, StoreError> {
        loop {
            if let Some(next) = self.ready.pop_front() {
                return Ok(Some(next));
            }
            if self.ended {
                return Ok(None);
            }
            if self.seen.is_empty() || !self.rest.is_empty() {
                self.look().await?;
                continue;
            }
            self.subscription.changed().await;
            if self.operations > MANY {
                tokio::time::sleep(GATHER).await;
            }
            self.look().await?;
        }
    }

    /// Reads from the store what is new, or the next part of that.
    async fn look(&mut self) -> Result<(), StoreError> {
        if self.rest.is_empty() {
            self.look_at_the_rollout()?;
            if Extent::of_rows(self.operations) == Extent::Short && self.glance()? {
                return Ok(());
            }
            self.look_at_the_job().await?;
        }
        let (news, tenant) = (std::mem::take(&mut self.rest), self.tenant.clone());
        let store = &self.host.store;
        let extent = match Extent::of_rows(news.len()) {
            Extent::Short => store.read(|conn| extent(conn, &news))?,
            Extent::Long => Extent::Long,
        };
        let news = store
            .look(extent, move |conn| tell_all(conn, &tenant, news))
            .await?;
        self.take(news);
        Ok(())
    }

    /// The same of a few operations, with one look at one moment. False where there is more than can be read here.
    fn glance(&mut self) -> Result<bool, StoreError> {
        let found = self.host.store.read(|conn| {
            let steps = operations::steps_of_job(conn, self.tenant.id, self.job)?;
            let (is_over, unseen) = self.unseen(steps);
            let is_over = is_over && !is_open(conn, self.tenant.id, self.job)?;
            match extent(conn, &unseen)? {
                Extent::Short => Ok(Some((is_over, tell_all(conn, &self.tenant, unseen)?))),
                Extent::Long => Ok::<_, StoreError>(None),
            }
        })?;
        let Some((is_over, news)) = found else {
            return Ok(false);
        };
        self.is_over = is_over;
        self.take(news);
        Ok(true)
    }

    fn take(&mut self, news: News) {
        self.seen
            .extend(news.told.into_iter().map(|(step, seen)| (step.id, seen)));
        self.rest = news.rest;
        self.ready.extend(news.found);
        if self.is_over && self.rest.is_empty() {
            self.ended = true;
            self.ready.push_back(Followed::End);
        }
    }

    /// Says where the rollout is, where that was not said. A job without one is not asked again.
    fn look_at_the_rollout(&mut self) -> Result<(), StoreError> {
        let Some(seen) = self.rollout else {
            return Ok(());
        };
        let (tenant, job) = (self.tenant.id, self.job);
        let shown = self.host.store.read(|conn| {
            let row = rollouts::find(conn, tenant, job)?;
            let news = row.filter(|row| (row.state, row.batch) != seen);
            news.map(|row| crate::rollouts::show(conn, &row))
                .transpose()
        })?;
        if let Some(shown) = shown {
            self.rollout = Some((shown.state, shown.batch));
            self.ready.push_back(Followed::Rollout(Box::new(shown)));
        }
        Ok(())
    }

    /// Finds the operations of which not everything was seen.
    async fn look_at_the_job(&mut self) -> Result<(), StoreError> {
        let store = &self.host.store;
        let (tenant, job) = (self.tenant.id, self.job);
        let steps = store
            .look(Extent::of_rows(self.operations), move |conn| {
                let steps = operations::steps_of_job(conn, tenant, job)?;
                Ok::<_, StoreError>((steps, is_open(conn, tenant, job)?))
            })
            .await?;
        let (steps, is_open) = steps;
        // More may have joined.
        self.operations = steps.len();
        let (is_over, rest) = self.unseen(steps);
        (self.is_over, self.rest) = (is_over && !is_open, rest);
        Ok(())
    }

    /// Whether all have ended, and those of which not everything was seen.
    fn unseen(&self, steps: Vec<Step>) -> (bool, Vec<(Step, Seen)>) {
        let is_over = steps.iter().all(|step| step.state.is_terminal());
        let unseen = steps
            .into_iter()
            .map(|step| {
                let seen = self.seen.get(&step.id).copied().unwrap_or_default();
                (step, seen)
            })
            .filter(|(_, seen)| !seen.is_all())
            .collect();
        (is_over, unseen)
    }
}

/// Whether machines may join the job yet.
fn is_open(conn: &Connection, tenant: TenantId, job: JobId) -> Result<bool, StoreError> {
    Ok(later::open_until(conn, tenant, job)?.is_some())
}

/// What a look found.
struct News {
    /// Of which everything up to now is in `found`.
    told: Vec<(Step, Seen)>,
    /// To which it did not come.
    rest: Vec<(Step, Seen)>,
    found: Vec<Followed>,
}

/// What is new of these operations, until it is enough.
fn tell_all(
    conn: &Connection,
    tenant: &Tenant,
    mut unseen: Vec<(Step, Seen)>,
) -> Result<News, StoreError> {
    let (mut found, mut bytes, mut told) = (Vec::new(), 0, 0);
    for (step, seen) in &mut unseen {
        if bytes >= ENOUGH {
            break;
        }
        let before = found.len();
        tell(conn, tenant, step, seen, &mut found)?;
        bytes += found[before..].iter().map(Followed::bytes).sum::<usize>();
        told += 1;
    }
    let rest = unseen.split_off(told);
    Ok(News {
        told: unseen,
        rest,
        found,
    })
}

/// How much there is to read of what these operations wrote.
fn extent(conn: &Connection, unseen: &[(Step, Seen)]) -> Result<Extent, StoreError> {
    let writers = unseen.iter().filter(|(step, _)| may_have_output(step));
    let mut bytes = 0;
    for (step, _) in writers {
        let lengths = output::lengths(conn, step.id)?;
        bytes += lengths.stdout + lengths.stderr;
    }
    Ok(Extent::of_bytes(bytes))
}

fn may_have_output(step: &Step) -> bool {
    step.started || step.state.is_terminal()
}

/// What is new of one operation: output before the state that ends it, and then the result.
fn tell(
    conn: &Connection,
    tenant: &Tenant,
    step: &Step,
    seen: &mut Seen,
    found: &mut Vec<Followed>,
) -> Result<(), StoreError> {
    if may_have_output(step) {
        output_of(conn, step, seen, found)?;
    }
    let result = if step.state.is_terminal() {
        operation_result(conn, tenant, step.id)?
    } else {
        None
    };
    if result
        .as_ref()
        .is_some_and(|result| result.output_truncated)
    {
        // Nothing comes behind a gap at the end of a stream: a piece without bytes says that there is one.
        for (stream, written) in ends_that_are_lost(conn, tenant, step.id)? {
            found.push(piece(step, stream, written, Vec::new()));
        }
    }
    if seen.state != Some(step.state) {
        found.push(Followed::State(StateEvent {
            operation: step.id,
            machine: step.machine_name.clone(),
            state: step.state,
        }));
    }
    found.extend(result.map(|result| Followed::Result(Box::new(result))));
    seen.state = Some(step.state);
    Ok(())
}

fn output_of(
    conn: &Connection,
    step: &Step,
    seen: &mut Seen,
    found: &mut Vec<Followed>,
) -> Result<(), StoreError> {
    loop {
        let pieces = output::pieces(conn, step.id, seen.piece, PIECES)?;
        let last = pieces.len() < PIECES as usize;
        for Piece { id, chunk } in pieces {
            seen.piece = id;
            found.push(piece(step, chunk.stream, chunk.offset, chunk.bytes));
        }
        if last {
            return Ok(());
        }
    }
}

fn piece(step: &Step, stream: OutputStream, offset: u64, bytes: Vec<u8>) -> Followed {
    Followed::Output(OutputEvent {
        operation: step.id,
        machine: step.machine_name.clone(),
        stream,
        offset,
        data: bytes.into(),
    })
}

#[cfg(test)]
mod tests {
    use sluice_protocol::ending::Ending;
    use sluice_protocol::message::operation::Chunk;
    use sluice_protocol::report::{Exit, Report, StreamEnd};

    use super::*;
    use crate::jobs::{Machine, store_output, store_report, store_step};
    use crate::testing::{NOW, TestHost};

    const EACH: usize = ENOUGH / 2 + 1;
    const NAMES: [&str; 6] = ["m1", "m2", "m3", "m4", "m5", "m6"];

    async fn wrote(test: &TestHost, machine: &Machine, id: OperationId) {
        let piece = Chunk {
            stream: OutputStream::Stdout,
            offset: 0,
            bytes: vec![b'a'; EACH],
        };
        let report = Report {
            stdout: StreamEnd {
                kept: EACH as u64,
                lost: 0,
                head: EACH as u64,
            },
            exit: Some(Exit::Code(0)),
            started_at: Some(NOW.to_wire()),
            ..Report::without_process(Ending::Succeeded, NOW.to_wire())
        };
        let running = store_step(&test.host, machine, id, State::Running, Some(NOW), NOW);
        running.await.expect("stores");
        let stored = store_output(&test.host, machine, id, piece);
        stored.await.expect("stores");
        let stored = store_report(&test.host, machine, id, report, NOW);
        stored.await.expect("stores");
    }

    #[tokio::test]
    async fn who_comes_late_is_handed_everything_and_never_all_of_it_at_once() {
        let test = TestHost::new().await;
        let mut machines = Vec::new();
        let mut connected = Vec::new();
        for name in NAMES {
            let machine = test.machine(name).await;
            connected.push(test.connect(&machine));
            machines.push(machine);
        }
        let job = test
            .submit("m1", |request| {
                request.machines.clear();
                request.all = true;
                request.limits.output = Some(sluice_protocol::units::ByteSize(4 << 20));
            })
            .await;
        let steps = test
            .host
            .store
            .read(|conn| operations::steps_of_job(conn, test.tenant.id, job))
            .expect("reads");
        for step in &steps {
            let machine = machines
                .iter()
                .find(|machine| machine.name == step.machine_name);
            wrote(&test, machine.expect("is there"), step.id).await;
        }
        let late = Follower::new(test.host.clone(), test.tenant.clone(), job);
        let mut late = late.expect("reads").expect("is there");
        let (mut output, mut results) = (0, 0);
        while let Some(followed) = late.next().await.expect("reads") {
            let waits: usize = late.ready.iter().map(Followed::bytes).sum();
            // Of each operation the output comes as pieces, as a stream, and as all that it wrote.
            assert!(waits < ENOUGH + 3 * EACH, "{waits}");
            match followed {
                Followed::Output(event) => output += event.data.0.len(),
                Followed::Result(_) => results += 1,
                Followed::State(_) | Followed::Rollout(_) | Followed::End => {}
            }
        }
        assert_eq!((output, results), (NAMES.len() * EACH, NAMES.len()));
    }
}
