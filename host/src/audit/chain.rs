//! Adding to the chain, and walking it.

use sluice_api_types::audit::{AuditEntry, Broken, ChainVerifier, GENESIS, Head};
use sluice_protocol::digest::Digest;

use super::Event;
use crate::clock::UnixMillis;
use crate::store::tenants::Tenant;
use crate::store::{Connection, Store, StoreError, audit};

/// How many entries are read at once when a chain is walked.
const STEP: u32 = 1000;

/// Adds `events` to the tenant's chain in the caller's transaction, and gives the chain's new head.
///
/// # Errors
///
/// Where the database cannot be written; then what they record must not happen either.
pub fn append(
    conn: &Connection,
    tenant: &Tenant,
    now: UnixMillis,
    events: impl IntoIterator<Item = Event>,
) -> Result<Digest, StoreError> {
    let last = audit::head(conn, tenant.id)?;
    // Whoever keeps a tenant may have its name from before it was changed.
    let name = last.tenant.as_ref().unwrap_or(&tenant.name);
    let (mut seq, mut prev) = (last.seq, last.hash);
    for event in events {
        seq += 1;
        let mut entry = AuditEntry {
            seq,
            time: now.to_string(),
            event: event.kind.as_str().to_owned(),
            tenant: name.clone(),
            machine: event.machine,
            job: event.job.map(|id| id.to_string()),
            operation: event.operation.map(|id| id.to_string()),
            operator: event.operator,
            source: event.source,
            script_sha256: event.script_sha256,
            bundle_sha256: event.bundle_sha256,
            details: event.details,
            prev,
            hash: GENESIS,
        };
        entry.hash = entry.compute_hash();
        audit::insert(conn, tenant.id, &entry)?;
        prev = entry.hash;
    }
    Ok(prev)
}

/// Walks the tenant's whole chain.
///
/// # Errors
///
/// The first broken entry, or an entry that cannot even be read.
pub async fn verify(store: &Store, tenant: &Tenant) -> Result<Head, VerifyError> {
    let tenant = tenant.clone();
    store.scan(move |conn| walk(conn, &tenant)).await
}

fn walk(conn: &Connection, tenant: &Tenant) -> Result<Head, VerifyError> {
    let mut verifier = ChainVerifier::default();
    loop {
        let entries = audit::list(conn, tenant.id, verifier.head().seq, STEP)?;
        if entries.is_empty() {
            return Ok(verifier.head());
        }
        for entry in &entries {
            verifier.push(entry)?;
        }
    }
}

/// A chain does not hold, or cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// Somebody changed it.
    #[error("the audit chain is broken")]
    Broken(#[from] Broken),
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::EventKind;
    use crate::store::tenants;

    async fn chain(entries: usize) -> (tempfile::TempDir, Store, Tenant) {
        let (dir, store) = crate::store::tests_support::temporary();
        let tenant = store
            .write(move |conn| {
                let tenant = tenants::create(conn, "default", UnixMillis(0))?;
                let events = (0..entries).map(|n| {
                    Event::by_host(EventKind::ScriptStarted)
                        .on("web-1")
                        .detail("n", n)
                });
                append(conn, &tenant, UnixMillis(5), events)?;
                Ok::<_, StoreError>(tenant)
            })
            .await
            .expect("writes");
        (dir, store, tenant)
    }

    /// What somebody does who has the file and knows SQL.
    async fn tamper(store: &Store, statement: &'static str) {
        store
            .write(move |conn| {
                for sql in [
                    "DROP TRIGGER audit_is_not_altered",
                    "DROP TRIGGER audit_is_not_deleted",
                    statement,
                ] {
                    conn.execute_batch(sql)?;
                }
                Ok::<_, StoreError>(())
            })
            .await
            .expect("changes");
    }

    async fn broken_at(store: &Store, tenant: &Tenant) -> u64 {
        match verify(store, tenant).await {
            Err(VerifyError::Broken(broken)) => broken.seq,
            other => panic!("expected a broken chain, got {other:?}"),
        }
    }

    #[tokio::test]
    async fn an_untouched_chain_verifies_and_goes_on() {
        let (_dir, store, tenant) = chain(5).await;
        let head = verify(&store, &tenant).await.expect("holds");
        assert_eq!(head.entries, 5);
        let again = tenant.clone();
        let hash = store
            .write(move |conn| {
                append(
                    conn,
                    &again,
                    UnixMillis(6),
                    [Event::by_host(EventKind::ScriptExecuted)],
                )
            })
            .await
            .expect("writes");
        let head = verify(&store, &tenant).await.expect("holds");
        assert_eq!((head.entries, head.hash), (6, hash));
    }

    #[tokio::test]
    async fn every_kind_of_change_is_found_at_the_first_broken_entry() {
        let changes = [
            ("UPDATE audit SET details = '{\"n\":9}' WHERE seq = 3", 3),
            ("UPDATE audit SET machine = NULL WHERE seq = 1", 1),
            ("DELETE FROM audit WHERE seq = 2", 3),
            (
                "UPDATE audit SET seq = CASE seq WHEN 2 THEN -3 ELSE -2 END WHERE seq IN (2, 3); UPDATE audit SET seq = -seq WHERE seq < 0",
                2,
            ),
            ("UPDATE audit SET hash = prev, prev = hash WHERE seq = 4", 4),
            ("DELETE FROM audit WHERE seq = 1", 2),
        ];
        for (statement, seq) in changes {
            let (_dir, store, tenant) = chain(5).await;
            tamper(&store, statement).await;
            assert_eq!(broken_at(&store, &tenant).await, seq, "{statement}");
        }
    }

    #[tokio::test]
    async fn a_chain_that_lost_its_end_has_another_head() {
        let (_dir, store, tenant) = chain(5).await;
        let before = verify(&store, &tenant).await.expect("holds");
        tamper(&store, "DELETE FROM audit WHERE seq = 5").await;
        let after = verify(&store, &tenant)
            .await
            .expect("a shorter chain holds in itself: its head tells");
        assert_ne!((before.entries, before.hash), (after.entries, after.hash));
    }

    #[tokio::test]
    async fn entries_cannot_be_changed_through_the_program() {
        let (_dir, store, _) = chain(2).await;
        for statement in ["UPDATE audit SET event = 'x'", "DELETE FROM audit"] {
            let refused = store
                .write(move |conn| Ok::<_, StoreError>(conn.execute(statement, [])?))
                .await;
            assert!(refused.is_err(), "{statement}");
        }
    }

    #[tokio::test]
    async fn entries_have_the_name_that_the_tenant_has_then_whoever_knows_an_older_one() {
        let (_dir, store, before) = chain(1).await;
        let kept = before.clone();
        store
            .write(move |conn| {
                tenants::rename(conn, kept.id, "zenith")?;
                let event = Event::by_host(EventKind::ScriptExecuted);
                append(conn, &kept, UnixMillis(6), [event])
            })
            .await
            .expect("writes");
        let read = |conn: &Connection| audit::list(conn, before.id, 0, 10);
        let entries = store.read(read).expect("reads");
        let names: Vec<_> = entries.iter().map(|entry| entry.tenant.as_str()).collect();
        assert_eq!(names, ["default", "zenith"]);
        assert_eq!(verify(&store, &before).await.expect("holds").entries, 2);
    }

    #[tokio::test]
    async fn tenants_have_chains_of_their_own() {
        let (_dir, store, first) = chain(3).await;
        let second = store
            .write(|conn| {
                let tenant = tenants::create(conn, "other", UnixMillis(0))?;
                append(
                    conn,
                    &tenant,
                    UnixMillis(5),
                    [Event::by_host(EventKind::TokenCreated)],
                )?;
                Ok::<_, StoreError>(tenant)
            })
            .await
            .expect("writes");
        assert_eq!(verify(&store, &first).await.expect("holds").entries, 3);
        assert_eq!(verify(&store, &second).await.expect("holds").entries, 1);
    }
}
