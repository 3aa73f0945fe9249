//! How a machine joins: the key is made here and never leaves.

use std::time::SystemTime;

use sluice_protocol::message::enroll::{Enroll, Request, Token};
use sluice_transport::agent::{EnrollError, enroll};
use sluice_transport::identity::{AgentIdentity, IdentityError, MachineKey};

use crate::facts;
use crate::state::{StateDirectory, StateError};

/// What is told to the person who enrolled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Joined {
    /// The name that the machine got.
    pub name: String,
    /// The tenant's name.
    pub tenant: String,
}

/// Joins with a token and keeps the identity.
///
/// # Errors
///
/// Where the state is in use or enrolled already, or the host says no.
pub async fn join(
    state: &StateDirectory,
    token: &Token,
    name: Option<String>,
) -> Result<Joined, JoinError> {
    let _lock = state.lock()?;
    if state.is_enrolled() {
        return Err(JoinError::AlreadyEnrolled);
    }
    let key = MachineKey::generate()?;
    let request = Request::Enroll(Box::new(Enroll {
        token: token.id,
        secret: token.secret.clone(),
        request: key.request()?,
        name: name.unwrap_or_else(facts::host_name),
        facts: facts::of_machine(),
    }));
    let enrollment = enroll(token, &request).await?;
    let chain: Vec<Vec<u8>> = enrollment
        .enrolled
        .chain
        .iter()
        .map(|der| der.to_vec())
        .collect();
    let identity = AgentIdentity::new(key, &chain, &enrollment.root, SystemTime::now())?;
    state.save_identity(&identity, &token.addresses)?;
    Ok(Joined {
        name: enrollment.enrolled.name,
        tenant: enrollment.enrolled.tenant,
    })
}

/// A machine could not join.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// It has.
    #[error(
        "this machine is enrolled already with this state; use another --state, or remove it if the machine was revoked"
    )]
    AlreadyEnrolled,
    /// The state cannot be used.
    #[error(transparent)]
    State(#[from] StateError),
    /// No key, or a certificate that does not fit it.
    #[error("the machine's identity cannot be made")]
    Identity(#[from] IdentityError),
    /// The host says no, or does not answer.
    #[error(transparent)]
    Enroll(#[from] EnrollError),
}
