//! What has machines join: it sleeps until something of one has changed, or a job may take some again.

use std::collections::HashSet;
use std::time::Duration;

use sluice_protocol::causes::Causes;
use sluice_protocol::ids::MachineId;
use tokio::sync::Notify;

use super::join::{Joined, join};
use crate::clock::UnixMillis;
use crate::host::SharedHost;
use crate::store::later::{self, LaterRow};
use crate::store::machines::MachineRow;
use crate::store::{Connection, StoreError, lockdown, machines, operations};

/// The longest sleep: what nobody woke it for.
const LOOK: Duration = Duration::from_secs(15);
/// How long it waits after something has failed.
const PAUSE: Duration = Duration::from_secs(1);
/// How many machines that have changed are looked at together.
const STEP: u32 = 256;

/// Wakes the driver.
#[derive(Debug, Default)]
pub struct Later {
    changed: Notify,
}

impl Later {
    /// Something of a machine has changed, or a job may take machines, and that is committed.
    pub fn wake(&self) {
        self.changed.notify_one();
    }
}

/// Which machines are looked at.
#[derive(Debug, Clone)]
enum Among {
    All,
    These(Vec<MachineId>),
}

/// Has machines join that match now; says no where something is to be tried again. Under a lockdown none joins.
///
/// # Errors
///
/// Where the database cannot be used; what was not looked at is looked at later.
pub async fn look(host: &SharedHost, now: UnixMillis) -> Result<bool, StoreError> {
    let (behind, locked) = host.store.read(|conn| {
        Ok::<_, StoreError>((later::behind(conn)?, lockdown::current(conn)?.is_some()))
    })?;
    if locked {
        return Ok(true);
    }
    let mut well = true;
    for row in behind {
        well &= take(host, row, Among::All, now).await?;
    }
    loop {
        let noted = host.store.read(|conn| later::noted(conn, STEP))?;
        let Some(tenant) = noted.first().map(|row| row.tenant) else {
            return Ok(well);
        };
        let these: Vec<MachineId> = noted.iter().map(|row| row.machine).collect();
        // The newest first: of jobs that supersede each other it is the one to run.
        for row in host.store.read(|conn| later::open(conn, tenant))? {
            well &= take(host, row, Among::These(these.clone()), now).await?;
        }
        host.store
            .write(move |conn| later::forget(conn, &noted))
            .await?;
    }
}

async fn take(
    host: &SharedHost,
    row: LaterRow,
    among: Among,
    now: UnixMillis,
) -> Result<bool, StoreError> {
    let (of, whole) = (row.clone(), matches!(among, Among::All));
    let found = host
        .store
        .scan(move |conn| candidates(conn, &of, &among))
        .await?;
    let joined = match found.is_empty() {
        true => Joined::Whole,
        false => join(host, &row, found, now).await?,
    };
    let behind = joined != Joined::Whole;
    if behind != whole {
        let job = row.job;
        host.store
            .write(move |conn| later::set_behind(conn, job, behind))
            .await?;
    }
    Ok(joined != Joined::Again)
}

/// Machines that match and are none of the job's.
fn candidates(
    conn: &Connection,
    row: &LaterRow,
    among: &Among,
) -> Result<Vec<MachineRow>, StoreError> {
    let mut found = Vec::new();
    match among {
        Among::All => {
            let known: HashSet<MachineId> = operations::machines_of_job(conn, row.tenant, row.job)?;
            found = row.selector.all(conn, row.tenant)?;
            found.retain(|machine| !known.contains(&machine.id));
        }
        Among::These(these) => {
            for id in these {
                let Some(machine) = machines::find(conn, row.tenant, *id)? else {
                    continue;
                };
                if row.selector.matches(conn, &machine)?
                    && !operations::is_of_job(conn, row.tenant, row.job, *id)?
                {
                    found.push(machine);
                }
            }
        }
    }
    Ok(found)
}

/// Has machines join as long as the host runs.
pub async fn drive(host: SharedHost) -> std::io::Result<()> {
    loop {
        let pause = match look(&host, host.clock.now()).await {
            Ok(true) => LOOK,
            Ok(false) => PAUSE,
            Err(error) => {
                tracing::error!(error = %Causes(&error), "machines that match a job later cannot join now; trying again");
                PAUSE
            }
        };
        let _ = tokio::time::timeout(pause, host.later.changed.notified()).await;
    }
}
