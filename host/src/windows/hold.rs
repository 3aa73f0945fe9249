//! Which windows an operation is held to: those that its job asked for, and those outside of which nothing starts on its
//! machine.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use sluice_protocol::ids::{JobId, MachineId, TenantId};
use sluice_protocol::units::Span;
use uuid::Uuid;

use super::{Bounds, Calendar, CalendarError, Standing, Window};
use crate::clock::UnixMillis;
use crate::jobs::{DEFAULT_EXPIRY, LONGEST_EXPIRY};
use crate::schedules::Zone;
use crate::store::bindings::TagPair;
use crate::store::operations::OperationRow;
use crate::store::windows::{self, Scope, WindowRow};
use crate::store::{Connection, StoreError, machines};

/// What a job says of windows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Asked {
    /// It starts in these alone, by name; in none of them in particular where there is none.
    Names(Vec<String>),
    /// The same as another job.
    AsIn(JobId),
    /// It starts outside of all windows.
    Ignored,
}

/// The windows of a tenant as far as they are about a job.
#[derive(Debug, Default)]
struct Concerning {
    asked: Vec<Arc<Window>>,
    required: Vec<(Scope, Arc<Window>)>,
}

impl Concerning {
    fn read(conn: &Connection, tenant: TenantId, asked: &[WindowRow]) -> Result<Self, StoreError> {
        let required = if windows::are_required(conn, tenant)? {
            windows::required(conn, tenant)?
        } else {
            Vec::new()
        };
        let required = required.into_iter().map(|row| {
            let window = window(&row)?;
            Ok((row.scope, window))
        });
        Ok(Self {
            asked: asked.iter().map(window).collect::<Result<_, _>>()?,
            required: required.collect::<Result<_, StoreError>>()?,
        })
    }

    /// Whether none can be about any machine of the job.
    const fn is_empty(&self) -> bool {
        self.asked.is_empty() && self.required.is_empty()
    }

    /// Which of those that are required are about a machine.
    fn about(&self, conn: &Connection, machine: MachineId) -> Result<Vec<bool>, StoreError> {
        let by_tags = |(scope, _): &(Scope, _)| matches!(scope, Scope::Tagged(_));
        let tags = if self.required.iter().any(by_tags) {
            machines::tags(conn, machine)?
        } else {
            Vec::new()
        };
        let about = self.required.iter().map(|(scope, _)| scope.has(&tags));
        Ok(about.collect())
    }

    fn bounds(&self, about: &[bool]) -> Bounds {
        let required = self.required.iter().zip(about);
        let required = required.filter(|(_, about)| **about);
        Bounds::default()
            .and(self.asked.clone())
            .and(required.map(|((_, window), _)| window.clone()).collect())
    }
}

/// What decides when a window is open. A window that cannot be read is an error wherever it is about something: nothing
/// starts by that.
fn window(row: &WindowRow) -> Result<Arc<Window>, StoreError> {
    let calendar = calendar(row).map_err(|error| {
        StoreError::Corrupt(format!("window {}: {error}", row.name.escape_debug()))
    })?;
    Ok(Arc::new(Window {
        name: row.name.clone(),
        calendar,
    }))
}

pub(super) fn calendar(row: &WindowRow) -> Result<Calendar, CalendarError> {
    Calendar::read(&row.cron, row.lasts, Zone::read(&row.zone)?)
}

/// Whether the operations of one job may start at one moment, as far as windows go.
#[derive(Debug)]
pub struct Look {
    concerning: Concerning,
    now: UnixMillis,
    /// A fleet has many machines and few windows: what was asked once is known.
    known: HashMap<Vec<bool>, Standing>,
}

impl Look {
    /// A look at the windows of the tenant's job.
    ///
    /// # Errors
    ///
    /// Where the database cannot be read, or a window in it.
    pub fn at(
        conn: &Connection,
        tenant: TenantId,
        job: JobId,
        now: UnixMillis,
    ) -> Result<Self, StoreError> {
        let concerning = if windows::are_ignored(conn, tenant, job)? {
            Concerning::default()
        } else {
            Concerning::read(conn, tenant, &windows::asked_by(conn, tenant, job)?)?
        };
        Ok(Self::new(concerning, now))
    }

    /// A look at the windows of a job that is not there yet, and asks for these.
    ///
    /// # Errors
    ///
    /// There is no such window, or the database cannot be read.
    pub fn ahead(
        conn: &Connection,
        tenant: TenantId,
        asked: &Asked,
        now: UnixMillis,
    ) -> Result<Self, HoldError> {
        let concerning = match asked {
            Asked::Ignored => Concerning::default(),
            _ => Concerning::read(conn, tenant, &rows(conn, tenant, asked)?)?,
        };
        Ok(Self::new(concerning, now))
    }

    fn new(concerning: Concerning, now: UnixMillis) -> Self {
        Self {
            concerning,
            now,
            known: HashMap::new(),
        }
    }

    /// Whether no window can be about any machine of the job.
    #[must_use]
    pub fn is_free(&self) -> bool {
        self.concerning.is_empty()
    }

    /// Whether an operation of the job may start on a machine.
    ///
    /// # Errors
    ///
    /// Where the database cannot be read.
    pub fn standing(
        &mut self,
        conn: &Connection,
        machine: Option<MachineId>,
    ) -> Result<Standing, StoreError> {
        // Where there is no machine nothing starts.
        let (Some(machine), false) = (machine, self.is_free()) else {
            return Ok(Standing::Free);
        };
        let about = self.concerning.about(conn, machine)?;
        if let Some(known) = self.known.get(&about) {
            return Ok(known.clone());
        }
        let standing = self.concerning.bounds(&about).standing(self.now);
        self.known.insert(about, standing.clone());
        Ok(standing)
    }
}

/// Whether one operation may start at `now`, as far as windows go.
///
/// # Errors
///
/// Where the database cannot be read.
pub fn standing(
    conn: &Connection,
    operation: &OperationRow,
    now: UnixMillis,
) -> Result<Standing, StoreError> {
    Look::at(conn, operation.tenant, operation.job, now)?.standing(conn, operation.machine)
}

/// The names of the windows outside of which nothing starts on a machine with these tags.
///
/// # Errors
///
/// Where the database cannot be read.
pub fn required_of(
    conn: &Connection,
    tenant: TenantId,
    tags: &[TagPair],
) -> Result<Vec<String>, StoreError> {
    let rows = windows::required(conn, tenant)?;
    let about = rows.into_iter().filter(|row| row.scope.has(tags));
    Ok(about.map(|row| row.name).collect())
}

/// Whether the windows are there that a job asks for.
///
/// # Errors
///
/// The first that is not.
pub fn are_there(conn: &Connection, tenant: TenantId, asked: &Asked) -> Result<(), HoldError> {
    rows(conn, tenant, asked).map(|_| ())
}

fn rows(conn: &Connection, tenant: TenantId, asked: &Asked) -> Result<Vec<WindowRow>, HoldError> {
    match asked {
        Asked::Ignored => Ok(Vec::new()),
        Asked::AsIn(job) => Ok(windows::asked_by(conn, tenant, *job)?),
        Asked::Names(names) => {
            let mut rows = Vec::with_capacity(names.len());
            for name in names {
                let row = windows::find(conn, tenant, name)?;
                rows.push(row.ok_or_else(|| HoldError::NoWindow(name.clone()))?);
            }
            Ok(rows)
        }
    }
}

/// What windows make of a job that is about to be recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hold {
    /// The windows that it asked for.
    asked: Vec<Uuid>,
    ignores: bool,
    /// Whether a window is about any of its operations: then they are held at first.
    pub is_held: bool,
    /// When it expires.
    pub not_after: UnixMillis,
}

impl Hold {
    /// What windows make of a job on these machines that expires after `expires`. Where that is not said, it expires after a
    /// day, or else when for each machine the windows have been open once.
    ///
    /// # Errors
    ///
    /// There is no such window, or none that would open before the job expires.
    pub fn of(
        conn: &Connection,
        tenant: TenantId,
        asked: &Asked,
        machines: &[MachineId],
        expires: Option<Span>,
        now: UnixMillis,
    ) -> Result<Self, HoldError> {
        let rows = rows(conn, tenant, asked)?;
        let mut hold = Self {
            asked: rows.iter().map(|row| row.id).collect(),
            ignores: *asked == Asked::Ignored,
            is_held: !rows.is_empty(),
            not_after: now.plus(expires.unwrap_or(DEFAULT_EXPIRY)),
        };
        if hold.ignores {
            return Ok(hold);
        }
        let concerning = Concerning::read(conn, tenant, &rows)?;
        if concerning.is_empty() {
            return Ok(hold);
        }
        let mut known = HashSet::new();
        for machine in machines {
            let about = concerning.about(conn, *machine)?;
            hold.is_held |= about.contains(&true);
            if !known.contains(&about) {
                hold.wait_for(&concerning.bounds(&about), expires, now)?;
                known.insert(about);
            }
        }
        Ok(hold)
    }

    fn wait_for(
        &mut self,
        bounds: &Bounds,
        expires: Option<Span>,
        now: UnixMillis,
    ) -> Result<(), HoldError> {
        let furthest = now.plus(expires.unwrap_or(LONGEST_EXPIRY));
        let window = match bounds.standing(now) {
            Standing::Free => return Ok(()),
            Standing::Open { .. } => None,
            Standing::Closed(closed) => Some(closed.window),
        };
        let opening = bounds.next(now);
        // A machine's own window may be too far away: what is on others starts all the same, and this expires.
        let is_asked = !self.asked.is_empty();
        match (opening, window) {
            (None, Some(window)) if is_asked => Err(HoldError::Never(window)),
            (Some((opens, _)), Some(window)) if is_asked && opens > furthest => {
                Err(HoldError::TooLate {
                    window,
                    opens,
                    expires: furthest,
                })
            }
            (Some((_, closes)), _) if expires.is_none() => {
                self.not_after = self.not_after.max(closes.min(furthest));
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Records it with the job, in the same transaction.
    ///
    /// # Errors
    ///
    /// Where the database cannot be written.
    pub fn store(&self, conn: &Connection, tenant: TenantId, job: JobId) -> Result<(), StoreError> {
        for window in &self.asked {
            windows::ask(conn, tenant, job, *window)?;
        }
        if self.ignores {
            windows::ignore(conn, tenant, job)?;
        }
        Ok(())
    }
}

/// A job cannot be held to the windows that it asks for.
#[derive(Debug, thiserror::Error)]
pub enum HoldError {
    /// Not there.
    #[error("there is no window {} (sluice window list); no job was made", .0.escape_debug())]
    NoWindow(String),
    /// It would expire.
    #[error(
        "the window {window} opens at {opens}, and the job expires at {expires}; no job was made, give it more time (--expires)"
    )]
    TooLate {
        /// Its name.
        window: String,
        /// When it opens.
        opens: UnixMillis,
        /// When the job expires.
        expires: UnixMillis,
    },
    /// Nothing could ever start.
    #[error(
        "the window {0} is never open together with those of the machines (sluice window list); no job was made"
    )]
    Never(String),
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
}
