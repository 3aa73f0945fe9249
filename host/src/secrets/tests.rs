use std::os::unix::fs::PermissionsExt as _;

use sluice_protocol::ending::{Ending, State};
use sluice_protocol::ids::JobId;
use sluice_protocol::message::operation::Operation;
use sluice_protocol::report::Report;
use sluice_transport::identity::MachineIdentity;
use sluice_transport::sealing::{Purpose, SealingKey};
use zeroize::Zeroizing;

use super::*;
use crate::clock::UnixMillis;
use crate::jobs::{self, Machine, SubmitError};
use crate::operators::{Actor, Permission};
use crate::store::operations::{self, From};
use crate::store::{Store, secrets};
use crate::testing::{NOW, TestHost, request};

const VALUE: &[u8] = b"hunter2-hunter2\n";

async fn put(test: &TestHost, actor: &Actor, name: &str, value: &[u8], change: Change) -> u64 {
    set(
        &test.host,
        actor,
        name,
        Zeroizing::new(value.to_vec()),
        change,
        NOW,
    )
    .await
    .expect("is set")
    .version
}

/// A machine that has said what to seal to.
async fn confidant(test: &TestHost, name: &'static str) -> (Machine, SealingKey) {
    let machine = test.machine(name).await;
    let key = SealingKey::generate().expect("makes");
    let (id, public) = (machine.id, key.public().expect("has one"));
    test.host
        .store
        .write(move |conn| secrets::set_sealing_key(conn, id, &public))
        .await
        .expect("keeps");
    (machine, key)
}

async fn submit(test: &TestHost, actor: &Actor, name: &str) -> Result<JobId, SubmitError> {
    let mut asked = request("m");
    asked.secrets = vec![name.to_owned()];
    // What is owed to a machine is judged by the clock.
    jobs::submit(&test.host, actor, asked, None, UnixMillis::now()).await
}

fn opened(machine: &Machine, key: &SealingKey, operation: &Operation) -> Vec<(String, Vec<u8>)> {
    let open = |sealed: &sluice_protocol::secret::Sealed| {
        let purpose = Purpose {
            machine: MachineIdentity {
                tenant: machine.tenant.id,
                machine: machine.id,
            },
            operation: operation.operation,
            name: &sealed.name,
        };
        let value = key.open(purpose, &sealed.bytes).expect("opens");
        (sealed.name.clone(), value.to_vec())
    };
    operation.secrets.iter().map(open).collect()
}

/// Whether a text stands in any file of the host.
fn is_on_disk(test: &TestHost, text: &[u8]) -> bool {
    std::fs::read_dir(test.folder())
        .expect("lists")
        .flatten()
        .filter_map(|entry| std::fs::read(entry.path()).ok())
        .any(|bytes| bytes.windows(text.len()).any(|part| part == text))
}

#[tokio::test]
async fn a_value_reaches_the_machine_of_the_job_and_is_erased_when_the_operation_ends() {
    let test = TestHost::new().await;
    let (machine, key) = confidant(&test, "m").await;
    put(&test, &test.admin, "token", VALUE, Change::Set).await;
    let (_session, mut inbox) = test.connect(&machine);
    let job = submit(&test, &test.admin, "token")
        .await
        .expect("is accepted");
    let delivered = inbox.deliveries.recv().await.expect("arrives");
    assert_eq!(delivered.submission.secrets, ["token"]);
    assert_eq!(
        opened(&machine, &key, &delivered),
        [("token".to_owned(), VALUE.to_vec())]
    );
    test.settle().await;
    assert!(!is_on_disk(&test, b"hunter2-hunter2"));

    let (id, tenant) = (test.operation(job).id, test.tenant.id);
    let kept = |test: &TestHost| {
        let sealed = test
            .host
            .store
            .read(|conn| secrets::sealed_of(conn, tenant, id));
        sealed.expect("reads").len()
    };
    assert_eq!(kept(&test), 1);
    let report = Report::without_process(Ending::Succeeded, NOW.to_wire());
    test.host
        .store
        .write(move |conn| operations::end(conn, id, From::Open, &report))
        .await
        .expect("ends");
    assert_eq!(kept(&test), 0);
    let audited = test.audited().await;
    let used = audited.iter().filter(|entry| {
        ["script_execution_attempt", "script_queued"].contains(&entry.event.as_str())
            && entry.details["secrets"][0] == "token"
    });
    assert_eq!(used.count(), 2);
    let text = serde_json::to_string(&audited).expect("is JSON");
    assert!(
        !text.contains("hunter2") && !text.contains("aHVudGVyMi"),
        "{text}"
    );
}

#[tokio::test]
async fn a_machine_that_comes_back_gets_the_value_that_was_sealed_when_the_job_was_submitted() {
    let test = TestHost::new().await;
    let (machine, key) = confidant(&test, "m").await;
    put(&test, &test.admin, "token", VALUE, Change::Set).await;
    submit(&test, &test.admin, "token")
        .await
        .expect("is accepted");
    assert_eq!(
        put(&test, &test.admin, "token", b"another-one", Change::Rotate).await,
        2
    );
    let (session, mut inbox) = test.connect(&machine);
    jobs::deliver_pending(&test.host, &session, &[])
        .await
        .expect("delivers");
    let delivered = inbox.deliveries.recv().await.expect("arrives");
    assert_eq!(opened(&machine, &key, &delivered)[0].1, VALUE);
}

#[tokio::test]
async fn a_revoked_secret_is_given_to_nobody() {
    let test = TestHost::new().await;
    let (machine, _key) = confidant(&test, "m").await;
    put(&test, &test.admin, "token", VALUE, Change::Set).await;
    submit(&test, &test.admin, "token")
        .await
        .expect("is accepted");
    revoke(&test.host, &test.admin, "token", NOW)
        .await
        .expect("is revoked");
    let refused = submit(&test, &test.admin, "token").await;
    assert!(
        matches!(&refused, Err(SubmitError::Secret(UseError::Revoked(name))) if name == "token"),
        "{refused:?}"
    );
    // What waited goes to the machine without it, which says so.
    let (session, mut inbox) = test.connect(&machine);
    jobs::deliver_pending(&test.host, &session, &[])
        .await
        .expect("delivers");
    let delivered = inbox.deliveries.recv().await.expect("arrives");
    assert_eq!(delivered.submission.secrets, ["token"]);
    assert!(delivered.secrets.is_empty());
    for gone in ["token", "nothing"] {
        let again = revoke(&test.host, &test.admin, gone, NOW).await;
        assert!(matches!(again, Err(ChangeSecretError::NoSecret(_))));
        let value = Zeroizing::new(VALUE.to_vec());
        let rotated = set(&test.host, &test.admin, gone, value, Change::Rotate, NOW).await;
        assert!(matches!(rotated, Err(ChangeSecretError::NoSecret(_))));
    }
    assert_eq!(
        put(&test, &test.admin, "token", VALUE, Change::Set).await,
        2
    );
    for (event, times) in [
        ("secret_set", 2),
        ("secret_revoked", 1),
        ("secret_rotated", 0),
    ] {
        assert_eq!(test.count_audited(event).await, times, "{event}");
    }
}

#[tokio::test]
async fn who_may_not_use_secrets_and_who_names_none_of_theirs_is_refused() {
    let test = TestHost::new().await;
    confidant(&test, "m").await;
    put(&test, &test.admin, "token", VALUE, Change::Set).await;
    let (plain, _) = test.operator("plain", &[Permission::RemoteExecution]).await;
    let refused = submit(&test, &plain, "token").await;
    assert!(
        matches!(&refused, Err(SubmitError::Denied(denied)) if denied.permission == Permission::UseSecret),
        "{refused:?}"
    );
    // What is as stored otherwise is not with a secret.
    let stored: &[Permission] = &[Permission::RunStoredScripts, Permission::UseSecret];
    let (stored, _) = test.operator("stored", stored).await;
    let refused = submit(&test, &stored, "token").await;
    assert!(
        matches!(&refused, Err(SubmitError::Denied(_))),
        "{refused:?}"
    );
    let (stranger, _) = test.stranger().await;
    put(&test, &stranger, "theirs", VALUE, Change::Set).await;
    for none in ["theirs", "nothing"] {
        let refused = submit(&test, &test.admin, none).await;
        assert!(
            matches!(&refused, Err(SubmitError::Secret(UseError::NoSecret(_)))),
            "{refused:?}"
        );
    }
}

#[tokio::test]
async fn a_value_that_is_given_in_place_of_a_name_is_not_on_record() {
    let test = TestHost::new().await;
    let refused = submit(&test, &test.admin, "db=hunter22secret").await;
    let Err(error) = refused else {
        panic!("{refused:?}");
    };
    assert!(!error.to_string().contains("hunter22"), "{error}");
    assert_eq!(test.count_audited("request_refused").await, 1);
    assert!(!is_on_disk(&test, b"hunter22"));
}

#[tokio::test]
async fn what_was_erased_is_in_no_page_of_the_database() {
    let test = TestHost::new().await;
    confidant(&test, "m").await;
    put(&test, &test.admin, "token", &[b'x'; 20_000], Change::Set).await;
    let encrypted = test
        .host
        .store
        .read(|conn| secrets::find(conn, test.tenant.id, "token"))
        .expect("reads")
        .and_then(|row| row.value)
        .expect("is there");
    let revoked = revoke(&test.host, &test.admin, "token", NOW).await;
    revoked.expect("is revoked");
    let settle = |conn: &crate::store::Connection| {
        conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
        Ok::<_, crate::store::StoreError>(())
    };
    let path = test.folder().join("host.db");
    test.host.store.close().await;
    let settled = sluice_database::rusqlite::Connection::open(&path).expect("opens");
    settle(&settled).expect("settles");
    let whole = std::fs::read(&path).expect("reads");
    let part = &encrypted[8_000..8_064];
    assert!(!whole.windows(part.len()).any(|bytes| bytes == part));
}

#[tokio::test]
async fn a_machine_that_never_said_what_to_seal_to_gets_nothing() {
    let test = TestHost::new().await;
    let machine = test.machine("m").await;
    put(&test, &test.admin, "token", VALUE, Change::Set).await;
    for key in [None, Some(vec![1; 31])] {
        if let Some(key) = key {
            let id = machine.id;
            let keep =
                move |conn: &crate::store::Connection| secrets::set_sealing_key(conn, id, &key);
            test.host.store.write(keep).await.expect("keeps");
        }
        let job = submit(&test, &test.admin, "token")
            .await
            .expect("is accepted");
        let operation = test.operation(job);
        assert_eq!(operation.state, State::Error);
        let message = operation.message.unwrap_or_default();
        assert!(
            message.contains("which key secrets are to be sealed to"),
            "{message}"
        );
    }
}

#[tokio::test]
async fn a_value_in_the_database_is_good_for_its_tenant_name_and_version_alone() {
    let test = TestHost::new().await;
    let key = SecretsKey::for_test();
    let tenant = test.tenant.id;
    let encrypted = key.encrypt(tenant, "a", 1, VALUE).expect("encrypts");
    let open = |tenant, name: &str, version| key.decrypt(tenant, name, version, &encrypted);
    assert_eq!(open(tenant, "a", 1).expect("opens").as_slice(), VALUE);
    let other = sluice_protocol::ids::TenantId::generate();
    for wrong in [
        open(other, "a", 1),
        open(tenant, "b", 1),
        open(tenant, "a", 2),
    ] {
        assert!(wrong.is_none());
    }
    for at in 0..encrypted.len() {
        assert!(key.decrypt(tenant, "a", 1, &encrypted[..at]).is_none());
    }
    assert_ne!(
        encrypted,
        key.encrypt(tenant, "a", 1, VALUE).expect("encrypts")
    );
}

#[tokio::test]
async fn the_key_is_made_once_for_the_host_alone_and_never_anew_while_there_are_values() {
    let folder = tempfile::tempdir().expect("makes a directory");
    let test = TestHost::new().await;
    let empty = Store::open(&folder.path().join("host.db")).expect("opens");
    let path = folder.path().join("secrets.key");
    SecretsKey::open(&path, &empty).expect("is made");
    let bytes = std::fs::read(&path).expect("reads");
    let mode = std::fs::metadata(&path).expect("is there").permissions();
    assert_eq!((bytes.len(), mode.mode() & 0o777), (32, 0o600));
    SecretsKey::open(&path, &empty).expect("is read");
    assert_eq!(std::fs::read(&path).expect("reads"), bytes);

    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).expect("changes");
    assert!(matches!(
        SecretsKey::open(&path, &empty),
        Err(KeyError::Open { .. })
    ));
    std::fs::remove_file(&path).expect("removes");
    put(&test, &test.admin, "token", VALUE, Change::Set).await;
    let lost = SecretsKey::open(&path, &test.host.store);
    assert!(matches!(lost, Err(KeyError::Lost(_))), "{lost:?}");
    assert!(!path.exists());
}

#[tokio::test]
async fn names_and_values_that_cannot_be_are_refused_and_no_value_is_repeated() {
    let test = TestHost::new().await;
    for (name, value) in [("a b", VALUE), ("a", b"abc"), ("a", b"   abc  ")] {
        let value = Zeroizing::new(value.to_vec());
        let refused = set(&test.host, &test.admin, name, value, Change::Set, NOW).await;
        let said = refused.expect_err("is refused").to_string();
        assert!(
            said.ends_with("nothing was changed") && !said.contains("abc"),
            "{said}"
        );
    }
}
