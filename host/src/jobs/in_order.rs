//! Lets the next operation go where one that is in order has ended.
//!
//! The store says on which machines that may be, in the transaction of whatever ended there, so that neither a crash nor
//! somebody who ends operations in a new way forgets them. Whose turn it is, `store::operations::in_order` says.

use std::time::Duration;

use sluice_protocol::causes::Causes;
use sluice_protocol::ending::State;
use sluice_protocol::ids::{MachineId, TenantId};
use tokio::sync::Notify;

use super::{Locked, deliver};
use crate::clock::UnixMillis;
use crate::fleet::Session;
use crate::host::SharedHost;
use crate::store::operations::{self, OperationRow, in_order};
use crate::store::{Connection, StoreError, jobs};
use crate::windows::{self, Standing};

/// How many machines one transaction looks at.
const STEP: u32 = 256;
/// The longest sleep: who ends something otherwise than by a report wakes nobody.
const LOOK: Duration = Duration::from_secs(1);

/// Wakes the driver.
#[derive(Debug, Default)]
pub struct Turns {
    changed: Notify,
}

impl Turns {
    /// An operation that is in order has ended, and that is committed.
    pub fn wake(&self) {
        self.changed.notify_one();
    }
}

/// Delivers what may go now, as long as the host runs.
pub async fn drive(host: SharedHost) -> std::io::Result<()> {
    loop {
        if let Err(error) = look(&host, host.clock.now()).await {
            tracing::error!(error = %Causes(&error), "what is next in order was not delivered; trying again");
            // Whoever wakes it would have it try without a pause.
            tokio::time::sleep(LOOK).await;
        }
        let _ = tokio::time::timeout(LOOK, host.turns.changed.notified()).await;
    }
}

/// Looks at each machine on which it may be another's turn, and sends what that is.
///
/// # Errors
///
/// Where the database cannot be used; a later look tries again.
pub async fn look(host: &SharedHost, now: UnixMillis) -> Result<(), StoreError> {
    loop {
        // Most looks find nothing, and are no commit.
        let machines = host.store.read(|conn| {
            // Nothing is sent until that is lifted, and then everything that may go.
            if Locked::check(conn)?.is_some() {
                return Ok(Vec::new());
            }
            in_order::machines_to_look_at(conn, STEP)
        })?;
        if machines.is_empty() {
            return Ok(());
        }
        let own = host.clone();
        let next = host
            .store
            .write(move |conn| take(conn, &own, machines, now))
            .await?;
        for next in next {
            send(host, &next);
            host.events.notify(next.operation.job);
        }
    }
}

/// What is sent.
struct Next {
    operation: OperationRow,
    standing: Standing,
    /// Of before the commit: over one that came since, the machine gets what it is owed anyway.
    session: Session,
}

/// Records what is next on these machines as delivered, where they are connected. One that is not gets it when it connects.
fn take(
    conn: &Connection,
    host: &SharedHost,
    machines: Vec<(TenantId, MachineId)>,
    now: UnixMillis,
) -> Result<Vec<Next>, StoreError> {
    let mut taken = Vec::new();
    let is_locked = Locked::check(conn)?.is_some();
    for (tenant, machine) in machines {
        in_order::looked_at(conn, machine)?;
        let session = host.presence.get(machine).filter(|_| !is_locked);
        let Some(session) = session else { continue };
        let Some(mut operation) = in_order::next(conn, tenant, machine)? else {
            continue;
        };
        let standing = windows::standing(conn, &operation, now)?;
        // What is overdue the sweeper ends, and then it is the next one's turn.
        let may_start = !matches!(standing, Standing::Closed(_))
            && jobs::not_after(conn, tenant, operation.job)?
                .is_some_and(|not_after| now <= not_after);
        if may_start && operations::set_delivered(conn, operation.id)? {
            operation.state = State::Delivered;
            taken.push(Next {
                operation,
                standing,
                session,
            });
        }
    }
    Ok(taken)
}

fn send(host: &SharedHost, next: &Next) {
    let message = host
        .store
        .read(|conn| deliver::stored_message(conn, &next.operation, &next.standing));
    match message {
        Ok(Some(message)) => next.session.deliver(Box::new(message)),
        Ok(None) => {}
        Err(error) => {
            tracing::error!(operation = %next.operation.id, %error, "what is next in order cannot be delivered now; its machine gets it when it connects again");
        }
    }
}

#[cfg(test)]
mod tests;
