//! A machine joins. The certificate is [`crate::link`]'s to make; here is who may have one, and what the machine is
//! called.

use std::net::IpAddr;

use sluice_api_types::schedule::MachineEvent;
use sluice_protocol::digest::Digest;
use sluice_protocol::ids::{MachineId, TokenId};
use sluice_protocol::message::control::{Fact, FactValue};
use sluice_protocol::units::Span;

use super::change::words;
use super::{AddressRange, MAX_TAGS, MachineName};
use crate::audit::{self, Event, EventKind};
use crate::clock::UnixMillis;
use crate::operators::{About, Actor, Denied, Permission};
use crate::random;
use crate::schedules;
use crate::store::bindings::TagPair;
use crate::store::enroll_tokens::{self, EnrollTokenRow};
use crate::store::tenants::{self, Tenant};
use crate::store::{Store, StoreError, grants, later, machines};

/// How long a token is good where nothing else is said.
const DEFAULT_EXPIRY: Span = Span::seconds(24 * 3600);
/// The longest that a token may be good.
const LONGEST_EXPIRY: Span = Span::seconds(365 * 24 * 3600);
/// The most machines that one token may let in.
const MOST_USES: u32 = 10_000;
/// The most ranges of addresses of a token.
const MOST_RANGES: usize = 64;
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

/// Whether a machine that joins is one of the fleet at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Approval {
    /// It is.
    #[default]
    Automatic,
    /// Somebody approves it first. Until then it gets nothing.
    Manual,
}

impl Approval {
    /// The word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Automatic => "automatic",
            Self::Manual => "manual",
        }
    }

    /// What a word means.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        [Self::Automatic, Self::Manual]
            .into_iter()
            .find(|approval| approval.as_str() == word)
    }
}

/// What a token is for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Terms {
    /// How many machines may join with it; one where absent.
    pub uses: Option<u32>,
    /// How long it is good.
    pub expires: Option<Span>,
    /// What they are tagged with.
    pub tags: Vec<TagPair>,
    /// Where they may come from; anywhere where empty.
    pub addresses: Vec<AddressRange>,
    /// Whether they wait for somebody.
    pub approval: Approval,
}

/// Makes an enrollment token.
///
/// # Errors
///
/// Where something is out of bounds, or the actor may not manage machines with these tags.
pub async fn create_token(
    store: &Store,
    actor: &Actor,
    terms: Terms,
    now: UnixMillis,
) -> Result<NewToken, EnrollError> {
    let Terms {
        uses,
        expires,
        mut tags,
        addresses,
        approval,
    } = terms;
    let uses = uses.unwrap_or(1);
    if !(1..=MOST_USES).contains(&uses) {
        return Err(EnrollError::Uses(uses));
    }
    let expires = expires.unwrap_or(DEFAULT_EXPIRY);
    if expires.0 == 0 || expires > LONGEST_EXPIRY {
        return Err(EnrollError::Expiry(expires));
    }
    if addresses.len() > MOST_RANGES {
        return Err(EnrollError::Ranges(addresses.len()));
    }
    tags.sort_by(|a, b| a.key.cmp(&b.key));
    if tags.len() > MAX_TAGS || tags.windows(2).any(|two| two[0].key == two[1].key) {
        return Err(EnrollError::Tags);
    }
    let words = words(&tags);
    let machines = About::Machine(&words);
    let place = "machines that join with this token";
    actor.require_on(Permission::ManageMachines, machines, place)?;
    let token = NewToken {
        id: TokenId::generate(),
        secret: random::bytes()?,
    };
    let ranges: Vec<String> = addresses.iter().map(ToString::to_string).collect();
    let row = EnrollTokenRow {
        id: token.id,
        tenant: actor.tenant.id,
        secret: Digest::of(&token.secret),
        uses,
        uses_left: uses,
        // No longer than the grant by which it is made.
        expires: now
            .plus(expires)
            .min(actor.ends().unwrap_or(UnixMillis(i64::MAX))),
        tags,
        addresses,
        approval,
        created: now,
        created_by: actor.name.clone(),
        made_by_grant: None,
        revoked: None,
    };
    let (asked, event) = (
        actor.clone(),
        Event::by(EventKind::EnrollTokenCreated, actor)
            .detail("token", row.id.to_string())
            .detail("uses", uses)
            .detail("expires", row.expires.to_string())
            .detail("tags", words)
            .detail("addresses", ranges)
            .detail("approval", approval.as_str()),
    );
    store
        .write(move |conn| {
            let made_by_grant = asked.grant_behind(conn)?;
            let row = EnrollTokenRow {
                made_by_grant,
                ..row
            };
            enroll_tokens::insert(conn, &row)?;
            audit::append(conn, &asked.tenant, now, [event])?;
            Ok::<_, EnrollError>(())
        })
        .await?;
    Ok(token)
}

/// Takes an enrollment token back: no machine joins with it any more. Those that did stay.
///
/// # Errors
///
/// There is no such token, or the actor may not manage the machines that it is for.
pub async fn revoke_token(
    store: &Store,
    actor: &Actor,
    typed: &str,
    now: UnixMillis,
) -> Result<(), EnrollError> {
    let none = || EnrollError::NoToken(typed.chars().take(100).collect());
    let id: TokenId = typed.parse().map_err(|_| none())?;
    let (asked, none) = (actor.clone(), none());
    store
        .write(move |conn| {
            let tenant = asked.tenant.id;
            let Some(row) = enroll_tokens::find(conn, id)?.filter(|row| row.tenant == tenant)
            else {
                return Err(none);
            };
            let words = words(&row.tags);
            let machines = About::Machine(&words);
            let place = "machines that join with this token";
            asked.require_on(Permission::ManageMachines, machines, place)?;
            if !enroll_tokens::revoke(conn, tenant, id, now)? {
                return Err(none);
            }
            let event = Event::by(EventKind::EnrollTokenRevoked, &asked)
                .detail("token", id.to_string())
                .detail("uses_left", row.uses_left);
            audit::append(conn, &asked.tenant, now, [event])?;
            Ok(())
        })
        .await
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
    remote: IpAddr,
    now: UnixMillis,
    issued: F,
) -> Result<(Joined, R), EnrollError>
where
    F: FnOnce(&Tenant, MachineId) -> Result<R, String> + Send + 'static,
    R: Send + 'static,
{
    let (secret, wish) = (Digest::of(secret), MachineName::from_wish(wish));
    store
        .write(move |conn| {
            let row = enroll_tokens::find(conn, token)?.ok_or(EnrollError::Unknown)?;
            let there = tenants::row(conn, row.tenant)?.ok_or(EnrollError::Unknown)?;
            let tenant = there.tenant;
            // Digests of random secrets: comparing them tells nothing about either.
            if row.secret != secret {
                return Err(EnrollError::WrongSecret(tenant));
            }
            // Where a tenant is archived, so are its tokens.
            if row.revoked.is_some() || there.archived.is_some() {
                return Err(EnrollError::Revoked(tenant));
            }
            if row.expires <= now {
                return Err(EnrollError::Expired(tenant));
            }
            // Nor does a grant that is over, or by which the tenant lets nobody in, bring machines in.
            if let Some(grant) = row.made_by_grant
                && !grants::lets_in(conn, grant, now)?
            {
                return Err(EnrollError::Revoked(tenant));
            }
            let is_in = |range: &AddressRange| range.contains(remote);
            if !row.addresses.is_empty() && !row.addresses.iter().any(is_in) {
                return Err(EnrollError::Elsewhere(tenant, remote));
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
            for tag in &row.tags {
                machines::set_tag(conn, tenant.id, machine, tag)?;
            }
            if row.approval == Approval::Manual {
                machines::set_pending(conn, tenant.id, machine, Some(now))?;
            }
            let event = Event::from_source(EventKind::MachineEnrolled, &remote.to_string())
                .on(name.as_str())
                .detail("machine_id", machine.to_string())
                .detail("token", token.to_string())
                .detail("token_made_by", row.created_by.as_str())
                .detail("tags", words(&row.tags))
                .detail("approval", row.approval.as_str());
            audit::append(conn, &tenant, now, [event])?;
            if row.approval == Approval::Automatic {
                schedules::note(conn, tenant.id, machine, MachineEvent::Enrolled, now)?;
                later::note(conn, tenant.id, machine)?;
            }
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
    /// Somebody took it back.
    #[error("the token was revoked; ask for a new one (sluice machine enroll-token)")]
    Revoked(Tenant),
    /// It is for other networks.
    #[error(
        "the token is not for machines at {1}; ask for one that is (sluice machine enroll-token --address)"
    )]
    Elsewhere(Tenant, IpAddr),
    /// Unknown, or another tenant's: the answer is the same.
    #[error("there is no enrollment token {} to revoke (sluice machine enroll-tokens)", .0.escape_debug())]
    NoToken(String),
    /// Too many ranges.
    #[error("a token is for at most {MOST_RANGES} ranges of addresses, and these are {0}")]
    Ranges(usize),
    /// Too many tags, or one twice.
    #[error("a machine has at most {MAX_TAGS} tags, each once")]
    Tags,
    /// A permission is missing.
    #[error(transparent)]
    Denied(#[from] Denied),
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
            | Self::Revoked(tenant)
            | Self::Elsewhere(tenant, _)
            | Self::UsedUp(tenant)
            | Self::Certificate(tenant, _) => Some(tenant),
            Self::Unknown
            | Self::Uses(_)
            | Self::Expiry(_)
            | Self::NoToken(_)
            | Self::Ranges(_)
            | Self::Tags
            | Self::Denied(_)
            | Self::Random(_)
            | Self::Store(_) => None,
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
            "192.0.2.7".parse().expect("an address"),
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

    fn times(uses: u32) -> Terms {
        Terms {
            uses: Some(uses),
            ..Terms::default()
        }
    }

    #[tokio::test]
    async fn a_token_for_other_addresses_lets_nobody_in_and_keeps_its_use() {
        let test = TestHost::new().await;
        let ranges = |text: &str| Terms {
            addresses: vec![text.parse().expect("a range")],
            ..Terms::default()
        };
        for (range, is_let_in) in [("198.51.100.0/24", false), ("192.0.2.0/24", true)] {
            let token = create_token(&test.host.store, &test.admin, ranges(range), NOW)
                .await
                .expect("makes");
            let joined = try_with(&test, &token, &token.secret, "web", NOW).await;
            assert_eq!(joined.is_ok(), is_let_in, "{range}");
            let left = test
                .host
                .store
                .read(|conn| enroll_tokens::find(conn, token.id));
            let left = left.expect("reads").expect("is there").uses_left;
            assert_eq!(left, u32::from(!is_let_in), "{range}");
        }
        assert_eq!(test.count_audited("machine_enrollment_refused").await, 1);
    }

    #[tokio::test]
    async fn a_revoked_token_lets_nobody_in_and_another_tenant_revokes_none() {
        let test = TestHost::new().await;
        let store = &test.host.store;
        let token = create_token(store, &test.admin, times(2), NOW)
            .await
            .expect("makes");
        let id = token.id.to_string();
        let (stranger, _) = test.stranger().await;
        let theirs = revoke_token(store, &stranger, &id, NOW).await;
        assert!(matches!(theirs, Err(EnrollError::NoToken(_))), "{theirs:?}");
        try_with(&test, &token, &token.secret, "web", NOW)
            .await
            .expect("joins");
        revoke_token(store, &test.admin, &id, NOW)
            .await
            .expect("revokes");
        let late = try_with(&test, &token, &token.secret, "web", NOW).await;
        assert!(matches!(late, Err(EnrollError::Revoked(_))), "{late:?}");
        let twice = revoke_token(store, &test.admin, &id, NOW).await;
        assert!(matches!(twice, Err(EnrollError::NoToken(_))), "{twice:?}");
        assert_eq!(test.count_audited("enroll_token_revoked").await, 1);
    }

    #[tokio::test]
    async fn a_token_lets_in_as_many_machines_as_it_says_each_with_a_name_of_its_own() {
        let test = TestHost::new().await;
        let token = create_token(&test.host.store, &test.admin, times(3), NOW)
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
        let token = create_token(&test.host.store, &test.admin, Terms::default(), NOW)
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
        let token = create_token(&test.host.store, &test.admin, Terms::default(), NOW)
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
            Terms {
                expires: Some(Span::seconds(60)),
                ..Terms::default()
            },
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
        let token = create_token(&test.host.store, &test.admin, Terms::default(), NOW)
            .await
            .expect("makes");
        let failed = admit(
            &test.host.store,
            token.id,
            &token.secret,
            "web",
            Vec::new(),
            "192.0.2.7".parse().expect("an address"),
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
            let terms = Terms {
                uses,
                expires,
                ..Terms::default()
            };
            let made = create_token(&test.host.store, &test.admin, terms, NOW).await;
            assert!(made.is_err(), "{uses:?} {expires:?}");
        }
    }
}
