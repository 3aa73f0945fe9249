//! Another approval policy.

use sluice_api_types::approval::SetApprovalPolicy;

use super::{Policy, PolicyError};
use crate::audit::{self, Event, EventKind};
use crate::clock::UnixMillis;
use crate::host::SharedHost;
use crate::operators::Actor;
use crate::store::StoreError;
use crate::store::approval_policies::{self, PolicyRow};

/// Sets the policy of the operator's tenant: its next revision, which counts for what is submitted from then on. What waits
/// goes on waiting for what it waited for.
///
/// # Errors
///
/// It makes no sense, or the database cannot be used.
pub async fn set_policy(
    host: &SharedHost,
    actor: &Actor,
    request: &SetApprovalPolicy,
    now: UnixMillis,
) -> Result<PolicyRow, ChangePolicyError> {
    let policy = Policy::read(&request.rules, request.expires)?;
    let asked = actor.clone();
    host.store
        .write(move |conn| {
            let before = approval_policies::current(conn, asked.tenant.id)?;
            let revision = before.as_ref().map_or(0, |row| row.revision) + 1;
            let before = before.map(|row| row.policy).unwrap_or_default();
            let rules: Vec<_> = policy.rules.iter().map(super::Rule::shown).collect();
            let rules = serde_json::to_value(rules)
                .map_err(|error| StoreError::Corrupt(error.to_string()))?;
            let event = Event::by(EventKind::ApprovalPolicySet, &asked)
                .detail("revision", revision)
                .detail("weaker", policy.is_weaker_than(&before))
                .detail("rules", rules)
                .detail("expires", policy.expires.to_string());
            let row = PolicyRow {
                revision,
                policy,
                changed: now,
                changed_by: asked.name.clone(),
            };
            approval_policies::insert(conn, asked.tenant.id, &row)?;
            audit::append(conn, &asked.tenant, now, [event])?;
            Ok(row)
        })
        .await
}

/// The policy stays as it is.
#[derive(Debug, thiserror::Error)]
pub enum ChangePolicyError {
    /// It makes no sense.
    #[error("{0}; the policy stays as it is")]
    Policy(#[from] PolicyError),
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
}
