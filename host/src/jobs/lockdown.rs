//! Nothing starts, on no machine of the host, until it is lifted: no job is made, nothing is delivered, no schedule fires.
//! Machines are told, those that are connected at once and the others when they come back: what they have got already waits
//! there. What runs goes on, unless the lockdown comes with canceling.

use sluice_protocol::causes::Causes;
use sluice_protocol::ending::State;

use super::{cancel, deliver};
use crate::audit::{self, Event, EventKind};
use crate::clock::UnixMillis;
use crate::fleet::Command;
use crate::host::SharedHost;
use crate::operators::{Actor, Denied, Permission, Standing};
use crate::store::lockdown::{self, LockdownRow};
use crate::store::tenants::{self, Tenant, TenantKind};
use crate::store::{Connection, StoreError, operations};

/// The longest reason, in characters.
const LONGEST_REASON: usize = 500;

/// Locks the host down; where `cancel_too`, everything of every tenant that has not ended is canceled then. One that is
/// locked down stays so, with its time and reason. Says how many operations were canceled.
///
/// # Errors
///
/// The operator may not, or the database cannot be used.
pub async fn lock_down(
    host: &SharedHost,
    actor: &Actor,
    reason: Option<String>,
    cancel_too: bool,
    now: UnixMillis,
) -> Result<u64, LockdownError> {
    authorize(host, actor, now).await?;
    if reason.as_deref().is_some_and(|reason| {
        reason.chars().count() > LONGEST_REASON || reason.chars().any(char::is_control)
    }) {
        return Err(LockdownError::Reason);
    }
    let row = LockdownRow {
        since: now,
        operator: actor.name.clone(),
        reason,
    };
    let asked = actor.clone();
    let tenants = host
        .store
        .write(move |conn| {
            let anew = lockdown::start(conn, &row)?;
            in_every_log(conn, &asked, now, |who| {
                Event::by(EventKind::LockdownStarted, who)
                    .detail("reason", row.reason.clone())
                    .detail("cancel", cancel_too)
                    .detail("anew", anew)
            })
        })
        .await?;
    tell_machines(host);
    let mut canceled = 0;
    if cancel_too {
        for tenant in tenants {
            let theirs = actor.reaching(tenant);
            canceled += cancel::halt(host, &theirs, now).await?;
        }
    }
    Ok(canceled)
}

/// Lifts a lockdown, and delivers what has waited for that. Where there is none, that is so already.
///
/// # Errors
///
/// The operator may not, or the database cannot be used.
pub async fn lift_lockdown(
    host: &SharedHost,
    actor: &Actor,
    now: UnixMillis,
) -> Result<(), LockdownError> {
    authorize(host, actor, now).await?;
    let asked = actor.clone();
    let tenants = host
        .store
        .write(move |conn| {
            // Where it was lifted before, something may be left to deliver.
            if !lockdown::lift(conn)? {
                return Ok(tenants::list(conn)?);
            }
            in_every_log(conn, &asked, now, |who| {
                Event::by(EventKind::LockdownLifted, who)
            })
        })
        .await?;
    tell_machines(host);
    host.schedules.wake();
    host.rollouts.wake_all();
    host.later.wake();
    for tenant in tenants {
        // One tenant's failure is not the others'. Its machines get it when they come back, or when this is asked again.
        let states = [State::Queued, State::Delivered];
        if let Err(error) = deliver_all(host, &tenant, &states, now).await {
            tracing::error!(tenant = tenant.name, error = %Causes(&error), "what waited for the lockdown's end was not delivered");
        }
    }
    Ok(())
}

/// A lockdown is about every tenant, so that only the provider's own operators may touch it, at home.
async fn authorize(host: &SharedHost, actor: &Actor, now: UnixMillis) -> Result<(), LockdownError> {
    actor.require(Permission::Administer)?;
    if actor.standing == Standing::Own(TenantKind::Provider) {
        return Ok(());
    }
    let error = LockdownError::NotTheHosts(actor.tenant.name.clone());
    host.metrics.request_refused();
    let event = Event::by(EventKind::RequestRefused, actor)
        .detail("attempt", "start or lift a lockdown")
        .detail("reason", error.to_string());
    let tenant = actor.tenant.clone();
    host.store
        .write(move |conn| {
            audit::append(conn, &tenant, now, [event])?;
            Ok::<_, StoreError>(())
        })
        .await?;
    Err(error)
}

/// Has every connected machine told what is so now. One that connects meanwhile has joined before it is welcomed, and is told
/// in its `Welcome` or by this.
fn tell_machines(host: &SharedHost) {
    for session in host.presence.all() {
        session.send(Command::Lockdown);
    }
}

fn in_every_log(
    conn: &Connection,
    actor: &Actor,
    now: UnixMillis,
    event: impl Fn(&Actor) -> Event,
) -> Result<Vec<Tenant>, LockdownError> {
    let tenants = tenants::list(conn)?;
    for tenant in &tenants {
        audit::append(conn, tenant, now, [event(&actor.reaching(tenant.clone()))])?;
    }
    Ok(tenants)
}

/// Sends connected machines what is in one of `states` and may start now. What one has got already it does not start again.
///
/// # Errors
///
/// Where the database cannot be read.
pub(crate) async fn deliver_all(
    host: &SharedHost,
    tenant: &Tenant,
    states: &[State],
    now: UnixMillis,
) -> Result<(), StoreError> {
    const STEP: u32 = 100;
    let mut after = None;
    loop {
        let id = tenant.id;
        let jobs = host
            .store
            .scan(move |conn| operations::open_jobs(conn, id, after, STEP))
            .await?;
        let Some(last) = jobs.last() else {
            return Ok(());
        };
        after = Some(*last);
        for job in jobs {
            deliver::deliver_unsent(host, tenant, job, states, now).await;
        }
    }
}

/// The host is locked down.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the host is locked down since {since} by {operator}{why}; no job was made, an administrator lifts it with sluice lockdown off"
)]
pub struct Locked {
    since: UnixMillis,
    operator: String,
    why: String,
}

impl Locked {
    /// By this one.
    #[must_use]
    pub fn by(row: &LockdownRow) -> Self {
        Self {
            since: row.since,
            operator: row.operator.clone(),
            why: row
                .reason
                .as_ref()
                .map_or_else(String::new, |reason| format!(" ({reason})")),
        }
    }

    /// Whether nothing may start now, by what the caller's transaction sees.
    pub(super) fn check(conn: &Connection) -> Result<Option<Self>, StoreError> {
        Ok(lockdown::current(conn)?.as_ref().map(Self::by))
    }
}

/// The lockdown was neither started nor lifted.
#[derive(Debug, thiserror::Error)]
pub enum LockdownError {
    /// A permission is missing.
    #[error(transparent)]
    Denied(#[from] Denied),
    /// Another tenant's administrator.
    #[error(
        "a lockdown is about every tenant of the host, and {0} is one of them; nothing was done, ask the provider's administrators"
    )]
    NotTheHosts(String),
    /// It would be shown to everybody who is refused.
    #[error("a reason is one line of at most {LONGEST_REASON} characters; nothing was done")]
    Reason,
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
}
