//! What was approved in advance, and which jobs fit it.

use sluice_api_types::approval::AddStandingApproval;
use sluice_api_types::job::Variable;
use sluice_protocol::bundle::{Compatibility, Limits, Submission};
use sluice_protocol::digest::Digest;
use sluice_protocol::units::Span;
use uuid::Uuid;

use super::rule::{self, MachineFacts, PolicyError, is_user_among};
use crate::audit::{self, Event, EventKind};
use crate::clock::UnixMillis;
use crate::host::SharedHost;
use crate::library::{self, ChooseError, VersionId};
use crate::operators::Actor;
use crate::store::bindings::TagPair;
use crate::store::standing_approvals::{self as store, StandingApproverRow, StandingRow};
use crate::store::{Connection, StoreError};

/// How long one counts where nothing is said.
const DEFAULT_EXPIRY: Span = Span::seconds(30 * 24 * 3600);
/// The longest that one counts.
const LONGEST_EXPIRY: Span = Span::seconds(90 * 24 * 3600);
/// The most that are good at once, of a tenant.
const MOST: usize = 1000;
/// The most parameters, users or tags of one.
const MOST_NAMES: usize = 100;

/// Which jobs need no further approval.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// Of the script's bytes.
    pub script_sha256: Digest,
    /// The version of the library that they run as it is there; none for those that bring the text.
    pub script: Option<VersionId>,
    /// The users, at least one.
    pub run_as: Vec<String>,
    /// Exactly these; any where none.
    pub parameters: Option<Vec<Variable>>,
    /// All of which every machine must have.
    pub tags: Vec<TagPair>,
    /// How many machines there may be.
    pub targets: u64,
}

/// What is asked of a standing approval: a job.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// What is to run.
    pub submission: &'a Submission,
    /// The version of the library that it runs as it is there; none for everything else.
    pub as_stored: Option<&'a VersionId>,
    /// Whether the host's scanners are left out.
    pub skips_scan: bool,
    /// Where it may run.
    pub machines: &'a [MachineFacts],
}

/// Whether a job fits. Whatever is not named in a standing approval must not be there: secrets, and with a text of its own
/// variables, attachments, limits and another interpreter.
#[must_use]
pub fn fits(standing: &Standing, asked: &Asked<'_>) -> bool {
    let submission = asked.submission;
    let is_same_script = match (&standing.script, asked.as_stored) {
        (Some(approved), Some(version)) => approved == version,
        (None, None) => {
            submission.interpreter.is_none()
                && submission.environment.is_empty()
                && submission.attachments.is_empty()
                && submission.declared.is_none()
                && submission.compatibility == Compatibility::None
                && submission.limits == Limits::default()
        }
        _ => false,
    };
    let same_parameters = standing.parameters.as_ref().is_none_or(|approved| {
        let has = |one: &Variable| {
            let mut given = submission.parameters.iter();
            given.any(|given| given.name == one.name && given.value == one.value)
        };
        approved.len() == submission.parameters.len() && approved.iter().all(has)
    });
    let is_there = |machine: &MachineFacts| {
        let mut tags = standing.tags.iter();
        tags.all(|tag| machine.tags.contains(tag))
    };
    is_same_script
        && Digest::of(&submission.script) == standing.script_sha256
        && same_parameters
        && submission.secrets.is_empty()
        && !asked.skips_scan
        && is_user_among(&standing.run_as, submission.run_as.as_deref())
        && asked.machines.len() as u64 <= standing.targets
        && asked.machines.iter().all(is_there)
}

/// Adds one, with its first approver.
///
/// # Errors
///
/// It makes no sense, or there is no such script.
pub async fn add(
    host: &SharedHost,
    actor: &Actor,
    request: AddStandingApproval,
    now: UnixMillis,
) -> Result<StandingRow, StandingError> {
    let expires = request.expires.unwrap_or(DEFAULT_EXPIRY);
    if expires.0 == 0 || expires > LONGEST_EXPIRY {
        return Err(StandingError::Expires(expires));
    }
    if request.targets == 0 {
        return Err(StandingError::NoTargets);
    }
    if request.run_as.is_empty() {
        return Err(StandingError::NoUser);
    }
    let parameters = request.parameters.as_ref().map_or(0, Vec::len);
    if request.run_as.len().max(request.tags.len()).max(parameters) > MOST_NAMES {
        return Err(StandingError::TooManyNames);
    }
    let users = rule::users(&request.run_as)?;
    let tags = rule::tags(&request.tags)?;
    let asked = actor.clone();
    host.store
        .write(move |conn| {
            let tenant = asked.tenant.id;
            let (script_sha256, script) = match (&request.script_ref, request.script_sha256) {
                (Some(script), None) => {
                    let chosen = library::choose(conn, tenant, script)?;
                    (chosen.script_sha256, Some(chosen.id))
                }
                (None, Some(sha256)) => (sha256, None),
                _ => return Err(StandingError::NoScript),
            };
            if store::good(conn, tenant, None, now)?.len() >= MOST {
                return Err(StandingError::TooMany);
            }
            let row = StandingRow {
                id: Uuid::now_v7(),
                standing: Standing {
                    script_sha256,
                    script,
                    run_as: users,
                    parameters: request.parameters,
                    tags,
                    targets: request.targets,
                },
                created: now,
                until: now.plus(expires),
                revoked: None,
            };
            store::insert(conn, tenant, &row)?;
            store::approve(conn, tenant, row.id, &approver(&asked), now)?;
            let event = event(EventKind::StandingApprovalAdded, &asked, &row);
            audit::append(conn, &asked.tenant, now, [event])?;
            Ok(row)
        })
        .await
}

/// Adds an approver to one.
///
/// # Errors
///
/// There is none of that id that counts, or they approve it already.
pub async fn approve(
    host: &SharedHost,
    actor: &Actor,
    id: Uuid,
    now: UnixMillis,
) -> Result<StandingRow, StandingError> {
    let asked = actor.clone();
    host.store
        .write(move |conn| {
            let row = good(conn, &asked, id, now)?;
            if !store::approve(conn, asked.tenant.id, id, &approver(&asked), now)? {
                return Err(StandingError::Before(asked.name));
            }
            let event = event(EventKind::StandingApprovalApproved, &asked, &row);
            audit::append(conn, &asked.tenant, now, [event])?;
            Ok(row)
        })
        .await
}

/// Revokes one: no job that is submitted from then on fits it.
///
/// # Errors
///
/// There is none of that id that counts.
pub async fn revoke(
    host: &SharedHost,
    actor: &Actor,
    id: Uuid,
    now: UnixMillis,
) -> Result<(), StandingError> {
    let asked = actor.clone();
    host.store
        .write(move |conn| {
            let row = good(conn, &asked, id, now)?;
            store::revoke(conn, asked.tenant.id, id, now)?;
            let event = event(EventKind::StandingApprovalRevoked, &asked, &row);
            audit::append(conn, &asked.tenant, now, [event])?;
            Ok(())
        })
        .await
}

fn good(
    conn: &Connection,
    actor: &Actor,
    id: Uuid,
    now: UnixMillis,
) -> Result<StandingRow, StandingError> {
    let found = store::find(conn, actor.tenant.id, id)?;
    found
        .filter(|row| row.revoked.is_none() && row.until > now)
        .ok_or(StandingError::NoStanding(id.to_string()))
}

fn approver(actor: &Actor) -> StandingApproverRow {
    StandingApproverRow {
        token: actor.token,
        operator: actor.operator,
        name: actor.name.clone(),
    }
}

fn event(kind: EventKind, actor: &Actor, row: &StandingRow) -> Event {
    let standing = &row.standing;
    let parameters = standing.parameters.as_ref().map(|parameters| {
        let names = parameters.iter().map(|parameter| parameter.name.as_str());
        names.collect::<Vec<_>>()
    });
    Event::by(kind, actor)
        .with_script(standing.script_sha256)
        .detail("standing", row.id.to_string())
        .detail("script", standing.script.as_ref().map(VersionId::to_string))
        .detail("run_as", standing.run_as.clone())
        .detail("parameters", parameters)
        .detail("tags", rule::words(&standing.tags))
        .detail("targets", standing.targets)
        .detail("until", row.until.to_string())
}

/// Nothing was approved in advance.
#[derive(Debug, thiserror::Error)]
pub enum StandingError {
    /// Unknown, over, or another tenant's: the answer is the same.
    #[error("there is no standing approval {} that counts (sluice approval standing list)", .0.escape_debug())]
    NoStanding(String),
    /// Neither, or both.
    #[error(
        "give either a script of the library (script_ref) or the digest of one (script_sha256); nothing was approved"
    )]
    NoScript,
    /// No script of the library.
    #[error("{0}; nothing was approved")]
    Script(ChooseError),
    /// For nobody.
    #[error("a standing approval names the users that jobs may run as; nothing was approved")]
    NoUser,
    /// For no machine.
    #[error("a standing approval is for at least one machine; nothing was approved")]
    NoTargets,
    /// Too short or too long.
    #[error(
        "a standing approval counts for more than nothing and at most {LONGEST_EXPIRY}, and {0} was given; nothing was approved"
    )]
    Expires(Span),
    /// Users and tags.
    #[error("{0}; nothing was approved")]
    Names(#[from] PolicyError),
    /// Too many of something.
    #[error("there are more than {MOST_NAMES} users, tags or parameters; nothing was approved")]
    TooManyNames,
    /// Too many of them.
    #[error(
        "there are {MOST} standing approvals that count; nothing was approved, revoke one that is not needed"
    )]
    TooMany,
    /// Once is enough.
    #[error("{0} approves it already; nothing was changed")]
    Before(String),
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<ChooseError> for StandingError {
    fn from(error: ChooseError) -> Self {
        match error {
            ChooseError::Store(error) => Self::Store(error),
            error => Self::Script(error),
        }
    }
}
