//! Following a job: first what has happened, then what happens, to the end of its last operation.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use sluice_api_types::event::{OutputEvent, StateEvent};
use sluice_api_types::operation::OperationResult;
use sluice_protocol::ending::State;
use sluice_protocol::ids::{JobId, OperationId};
use sqlx::SqliteConnection;

use super::{Subscription, operation_result};
use crate::host::SharedHost;
use crate::store::tenants::Tenant;
use crate::store::{StoreError, jobs, operations, output};

/// How many pieces of output are read at once.
const PIECES: u32 = 64;
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
    /// An operation has ended.
    Result(Box<OperationResult>),
    /// All have.
    End,
}

/// Somebody who follows a job.
#[derive(Debug)]
pub struct Follower {
    host: SharedHost,
    tenant: Tenant,
    job: JobId,
    subscription: Subscription,
    seen: HashMap<OperationId, Seen>,
    ready: VecDeque<Followed>,
    ended: bool,
}

#[derive(Debug, Default)]
struct Seen {
    state: Option<State>,
    piece: i64,
}

impl Follower {
    /// Follows a job; none where the tenant has no such job.
    ///
    /// # Errors
    ///
    /// Where the database cannot be read.
    pub async fn new(
        host: SharedHost,
        tenant: Tenant,
        job: JobId,
    ) -> Result<Option<Self>, StoreError> {
        // The subscription stands before the first look, so that nothing falls between the two.
        let subscription = host.events.subscribe(job);
        let mut conn = host.store.read().await?;
        let known = jobs::not_after(&mut conn, tenant.id, job).await?.is_some();
        drop(conn);
        Ok(known.then(|| Self {
            host,
            tenant,
            job,
            subscription,
            seen: HashMap::new(),
            ready: VecDeque::new(),
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
            if self.seen.is_empty() {
                self.look().await?;
                continue;
            }
            self.subscription.changed().await;
            if self.seen.len() > MANY {
                tokio::time::sleep(GATHER).await;
            }
            self.look().await?;
        }
    }

    /// Reads from the store what is new.
    async fn look(&mut self) -> Result<(), StoreError> {
        let host = self.host.clone();
        let mut conn = host.store.read().await?;
        let rows = operations::of_job(&mut conn, self.tenant.id, self.job).await?;
        let mut open = 0;
        let mut found = Vec::new();
        for row in rows {
            let seen = self.seen.entry(row.id).or_default();
            if seen.state.is_some_and(State::is_terminal) {
                continue;
            }
            if row.started.is_some() || row.state.is_terminal() {
                output_of(&mut conn, row.id, &row.machine_name, seen, &mut found).await?;
            }
            if seen.state != Some(row.state) {
                found.push(Followed::State(StateEvent {
                    operation: row.id,
                    machine: row.machine_name,
                    state: row.state,
                }));
            }
            if row.state.is_terminal() {
                found.extend(
                    operation_result(&mut conn, &self.tenant, row.id)
                        .await?
                        .map(|result| Followed::Result(Box::new(result))),
                );
            } else {
                open += 1;
            }
            seen.state = Some(row.state);
        }
        self.ready.extend(found);
        if open == 0 {
            self.ended = true;
            self.ready.push_back(Followed::End);
        }
        Ok(())
    }
}

async fn output_of(
    conn: &mut SqliteConnection,
    operation: OperationId,
    machine: &str,
    seen: &mut Seen,
    found: &mut Vec<Followed>,
) -> Result<(), StoreError> {
    loop {
        let pieces = output::pieces(&mut *conn, operation, seen.piece, PIECES).await?;
        let last = pieces.len() < PIECES as usize;
        for piece in pieces {
            seen.piece = piece.id;
            found.push(Followed::Output(OutputEvent {
                operation,
                machine: machine.to_owned(),
                stream: piece.chunk.stream,
                offset: piece.chunk.offset,
                data: piece.chunk.bytes.into(),
            }));
        }
        if last {
            return Ok(());
        }
    }
}
