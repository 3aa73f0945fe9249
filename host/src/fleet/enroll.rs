//! A machine joins. The certificate is [`crate::link`]'s to make; here is who may have one, and what the machine is
//! called.

use sluice_protocol::digest::Digest;
use sluice_protocol::ids::{MachineId, TokenId};
use sluice_protocol::message::control::{Fact, FactValue};
use sluice_protocol::units::Span;

use super::MachineName;
use crate::audit::{self, Event, EventKind};
use crate::clock::UnixMillis;
use crate::operators::Actor;
use crate::random;
use crate::store::enroll_tokens::{self, EnrollTokenRow};
use crate::store::tenants::{self, Tenant};
use crate::store::{Store, StoreError, machines};

/// How long a token is good where nothing else is said.
const DEFAULT_EXPIRY: Span = Span::seconds(24 * 3600);
/// The longest that a token may be good.
const LONGEST_EXPIRY: Span = Span::seconds(365 * 24 * 3600);
/// The most machines that one token may let in.
const MOST_USES: u32 = 10_000;
/// The most facts that a machine may have.
pub const MAX_FACTS: usize = 500;

/// A token that was made: what the host's addresses are added to.
#[derive(Debug)]
pub struct NewToken {
    /// The public part.
    pub id: TokenId,
    /// The secret part.
    pub secret: [u8; 32],
}

/// Makes an enrollment token.
///
/// # Errors
///
/// Where uses or expiry are out of bounds.
pub async fn create_token(
    store: &Store,
    actor: &Actor,
    uses: Option<u32>,
    expires: Option<Span>,
    now: UnixMillis,
) -> Result<NewToken, EnrollError> {
    let uses = uses.unwrap_or(1);
    if !(1..=MOST_USES).contains(&uses) {
        return Err(EnrollError::Uses(uses));
    }
    let expires = expires.unwrap_or(DEFAULT_EXPIRY);
    if expires.0 == 0 || expires > LONGEST_EXPIRY {
        return Err(EnrollError::Expiry(expires));
    }
    let token = NewToken {
        id: TokenId::generate(),
        secret: random::bytes()?,
    };
    let row = EnrollTokenRow {
        id: token.id,
        tenant: actor.tenant.id,
        secret: Digest::of(&token.secret),
        uses_left: uses,
        expires: now.plus(expires),
        created_by: actor.name.clone(),
    };
    let (tenant, event) = (
        actor.tenant.clone(),
        Event::by(EventKind::EnrollTokenCreated, actor)
            .detail("token", row.id.to_string())
            .detail("uses", uses)
            .detail("expires", row.expires.to_string()),
    );
    store
        .write(move |conn| {
            enroll_tokens::insert(conn, &row, now)?;
            audit::append(conn, &tenant, now, [event])?;
            Ok::<_, EnrollError>(())
        })
        .await?;
    Ok(token)
}

/// A machine that has joined.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Joined {
    /// Its tenant.
    pub tenant: Tenant,
    /// Its id.
    pub machine: MachineId,
    /// The name that it got.
    pub name: MachineName,
}

/// Checks a token and finds the machine that may join with it a place, in one transaction with its audit entry.
/// `issued` is called for the certificate's sake before that is committed: a machine whose certificate cannot be made
/// does not join, and its token keeps its use. What it gives comes back.
///
/// # Errors
///
/// The token is unknown, used up or expired; those are recorded where the token's tenant is known.
#[expect(
    clippy::too_many_arguments,
    reason = "what a machine shows, where it stands, and what it gets; called in one place"
)]
pub async fn admit<F, R>(
    store: &Store,
    token: TokenId,
    secret: &[u8],
    wish: &str,
    facts: Vec<Fact>,
    remote: &str,
    now: UnixMillis,
    issued: F,
) -> Result<(Joined, R), EnrollError>
where
    F: FnOnce(&Tenant, MachineId) -> Result<R, String> + Send + 'static,
    R: Send + 'static,
{
    let (secret, wish, remote) = (
        Digest::of(secret),
        MachineName::from_wish(wish),
        remote.to_owned(),
    );
    store
        .write(move |conn| {
            let row = enroll_tokens::find(conn, token)?.ok_or(EnrollError::Unknown)?;
            let tenant = tenants::find(conn, row.tenant)?.ok_or(EnrollError::Unknown)?;
            // Digests of random secrets: comparing them tells nothing about either.
            if row.secret != secret {
                return Err(EnrollError::WrongSecret(tenant));
            }
            if row.expires <= now {
                return Err(EnrollError::Expired(tenant));
            }
            if !enroll_tokens::take_use(conn, token, now)? {
                return Err(EnrollError::UsedUp(tenant));
            }
            let mut name = wish.clone();
            let mut number = 1;
            while machines::name_is_taken(conn, tenant.id, name.as_str())? {
                number += 1;
                name = wish.numbered(number);
            }
            let machine = MachineId::generate();
            machines::insert(
                conn,
                tenant.id,
                machine,
                name.as_str(),
                &bound_facts(facts),
                now,
            )?;
            let event = Event::from_source(EventKind::MachineEnrolled, &remote)
                .on(name.as_str())
                .detail("machine_id", machine.to_string())
                .detail("token", token.to_string())
                .detail("token_made_by", row.created_by.as_str());
            audit::append(conn, &tenant, now, [event])?;
            let certificate = issued(&tenant, machine)
                .map_err(|reason| EnrollError::Certificate(tenant.clone(), reason))?;
            Ok((
                Joined {
                    tenant,
                    machine,
                    name,
                },
                certificate,
            ))
        })
        .await
}

/// Records that a machine may not join.
///
/// # Errors
///
/// Where the database cannot be written.
pub async fn refuse(
    store: &Store,
    token: TokenId,
    error: &EnrollError,
    remote: &str,
    now: UnixMillis,
) -> Result<(), StoreError> {
    let Some(tenant) = error.tenant().cloned() else {
        tracing::warn!(remote, %error, "a machine tried to join with a token that is not one of this host");
        return Ok(());
    };
    let event = Event::from_source(EventKind::MachineEnrollmentRefused, remote)
        .detail("token", token.to_string())
        .detail("reason", error.to_string());
    store
        .write(move |conn| audit::append(conn, &tenant, now, [event]).map(|_| ()))
        .await
}

/// What a machine says about itself, cut to what the host is ready to keep.
#[must_use]
pub fn bound_facts(mut facts: Vec<Fact>) -> Vec<Fact> {
    const LONGEST: usize = 4096;
    facts.truncate(MAX_FACTS);
    facts.retain(|fact| {
        fact.key.len() <= 128
            && match &fact.value {
                FactValue::Boolean(_) | FactValue::Integer(_) => true,
                FactValue::Decimal(number) => number.is_finite(),
                FactValue::Text(text) => text.len() <= LONGEST,
                FactValue::Texts(texts) => {
                    texts.len() <= 1000 && texts.iter().all(|text| text.len() <= LONGEST)
                }
            }
    });
    facts
}

/// A machine may not join, or a token for it cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum EnrollError {
    /// Never made here.
    #[error("the token is not one of this host; ask for a new one (sluice machine enroll-token)")]
    Unknown,
    /// Its secret part is another.
    #[error("the token is not one of this host; ask for a new one (sluice machine enroll-token)")]
    WrongSecret(Tenant),
    /// Its time is over.
    #[error("the token has expired; ask for a new one (sluice machine enroll-token)")]
    Expired(Tenant),
    /// No use is left.
    #[error("the token was used already; ask for a new one (sluice machine enroll-token)")]
    UsedUp(Tenant),
    /// No certificate can be made for the machine's key.
    #[error("no certificate can be issued: {1}")]
    Certificate(Tenant, String),
    /// A token for no machine, or for too many.
    #[error("a token cannot be for {0} machines (1 to {MOST_USES})")]
    Uses(u32),
    /// A token for no time, or for too long.
    #[error("a token cannot be good for {0} (at most {LONGEST_EXPIRY})")]
    Expiry(Span),
    /// No randomness.
    #[error(transparent)]
    Random(#[from] random::NoRandomness),
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl EnrollError {
    const fn tenant(&self) -> Option<&Tenant> {
        match self {
            Self::WrongSecret(tenant)
            | Self::Expired(tenant)
            | Self::UsedUp(tenant)
            | Self::Certificate(tenant, _) => Some(tenant),
            Self::Unknown | Self::Uses(_) | Self::Expiry(_) | Self::Random(_) | Self::Store(_) => {
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{NOW, TestHost};

    async fn try_with(
        test: &TestHost,
        token: &NewToken,
        secret: &[u8],
        name: &str,
        now: UnixMillis,
    ) -> Result<Joined, EnrollError> {
        let joined = admit(
            &test.host.store,
            token.id,
            secret,
            name,
            Vec::new(),
            "test",
            now,
            |_, _| Ok(()),
        )
        .await;
        if let Err(error) = &joined {
            refuse(&test.host.store, token.id, error, "test", now)
                .await
                .expect("records");
        }
        joined.map(|(joined, ())| joined)
    }

    #[tokio::test]
    async fn a_token_lets_in_as_many_machines_as_it_says_each_with_a_name_of_its_own() {
        let test = TestHost::new().await;
        let token = create_token(&test.host.store, &test.admin, Some(3), None, NOW)
            .await
            .expect("makes");
        let mut names = Vec::new();
        for _ in 0..3 {
            names.push(
                try_with(&test, &token, &token.secret, "web", NOW)
                    .await
                    .expect("joins")
                    .name
                    .to_string(),
            );
        }
        assert_eq!(names, ["web", "web-2", "web-3"]);
        assert!(matches!(
            try_with(&test, &token, &token.secret, "web", NOW).await,
            Err(EnrollError::UsedUp(_))
        ));
        assert_eq!(test.count_audited("machine_enrolled").await, 3);
        assert_eq!(test.count_audited("machine_enrollment_refused").await, 1);
    }

    #[tokio::test]
    async fn machines_that_race_for_one_use_do_not_both_join() {
        let test = TestHost::new().await;
        let token = create_token(&test.host.store, &test.admin, None, None, NOW)
            .await
            .expect("makes");
        let tries = (0..5).map(|_| try_with(&test, &token, &token.secret, "web", NOW));
        let joined = futures_util::future::join_all(tries)
            .await
            .into_iter()
            .filter(Result::is_ok)
            .count();
        assert_eq!(joined, 1);
    }

    #[tokio::test]
    async fn the_database_does_not_hold_what_a_machine_enrolls_with() {
        let test = TestHost::new().await;
        let token = create_token(&test.host.store, &test.admin, None, None, NOW)
            .await
            .expect("makes");
        let mut looked_at = 0;
        for entry in std::fs::read_dir(test.folder()).expect("lists") {
            let path = entry.expect("an entry").path();
            if path.is_file() {
                let bytes = std::fs::read(&path).expect("reads");
                let mut windows = bytes.windows(token.secret.len());
                assert!(!windows.any(|window| window == token.secret), "{path:?}");
                looked_at += usize::from(bytes.len() > 1000);
            }
        }
        assert!(looked_at > 0, "there is a database");
    }

    #[tokio::test]
    async fn wrong_expired_and_unknown_tokens_are_refused() {
        let test = TestHost::new().await;
        let token = create_token(
            &test.host.store,
            &test.admin,
            None,
            Some(Span::seconds(60)),
            NOW,
        )
        .await
        .expect("makes");
        assert!(matches!(
            try_with(&test, &token, b"wrong", "web", NOW).await,
            Err(EnrollError::WrongSecret(_))
        ));
        let later = NOW.plus(Span::seconds(60));
        assert!(matches!(
            try_with(&test, &token, &token.secret, "web", later).await,
            Err(EnrollError::Expired(_))
        ));
        let unknown = NewToken {
            id: TokenId::generate(),
            secret: token.secret,
        };
        assert!(matches!(
            try_with(&test, &unknown, &token.secret, "web", NOW).await,
            Err(EnrollError::Unknown)
        ));
        assert_eq!(test.count_audited("machine_enrollment_refused").await, 2);
    }

    #[tokio::test]
    async fn a_machine_without_a_certificate_has_not_joined_and_the_use_is_not_gone() {
        let test = TestHost::new().await;
        let token = create_token(&test.host.store, &test.admin, None, None, NOW)
            .await
            .expect("makes");
        let failed = admit(
            &test.host.store,
            token.id,
            &token.secret,
            "web",
            Vec::new(),
            "test",
            NOW,
            |_, _| Err::<(), _>("a bad request".to_owned()),
        );
        assert!(matches!(failed.await, Err(EnrollError::Certificate(..))));
        assert_eq!(
            try_with(&test, &token, &token.secret, "web", NOW)
                .await
                .expect("joins")
                .name
                .as_str(),
            "web"
        );
    }

    #[tokio::test]
    async fn uses_and_expiry_have_bounds() {
        let test = TestHost::new().await;
        for (uses, expires) in [
            (Some(0), None),
            (Some(10_001), None),
            (None, Some(Span(0))),
            (None, Some(Span(u64::MAX))),
        ] {
            assert!(
                create_token(&test.host.store, &test.admin, uses, expires, NOW)
                    .await
                    .is_err(),
                "{uses:?} {expires:?}"
            );
        }
    }
}
