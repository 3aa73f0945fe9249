//! A host without sockets, for unit tests: a store in a temporary directory, and machines that are connected as far as the
//! rest of the host can tell.

use std::sync::Arc;

use sluice_api_types::job::SubmitJob;
use sluice_gate_types::signature::Remembered;
use sluice_protocol::digest::Digest;
use sluice_protocol::ids::{JobId, MachineId, OperationId};
use tempfile::TempDir;

use crate::blobs::BlobStore;
use crate::clock::{SystemClock, UnixMillis};
use crate::fleet::{Inbox, Presence, Session};
use crate::host::{Addresses, Host, SharedHost};
use crate::jobs::{self, Events, Machine, Turns};
use crate::metrics::Metrics;
use crate::operators::{self, Actor, BearerToken, Failures, Grants, MadeBy, Permission};
use crate::plugins::Gates;
use crate::receipts::Trials;
use crate::rollouts::Rollouts;
use crate::schedules::Schedules;
use crate::secrets::SecretsKey;
use crate::store::operations::OperationRow;
use crate::store::tenants::{self, Tenant};
use crate::store::{self, Store, StoreError, machines, operations};
use crate::windows::Windows;

/// When tests happen.
pub(crate) const NOW: UnixMillis = UnixMillis(1_795_000_000_000);

/// A host and its first operator.
pub(crate) struct TestHost {
    pub(crate) host: SharedHost,
    pub(crate) tenant: Tenant,
    pub(crate) admin: Actor,
    pub(crate) token: BearerToken,
    dir: TempDir,
}

impl TestHost {
    pub(crate) async fn new() -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let store = Store::open(&dir.path().join("host.db")).expect("opens");
        let host = Arc::new(Host {
            clock: Arc::new(SystemClock),
            store,
            secrets: Arc::new(SecretsKey::for_test()),
            blobs: BlobStore::open(&dir.path().join("blobs")).expect("opens"),
            presence: Presence::default(),
            events: Events::default(),
            turns: Turns::default(),
            rollouts: Rollouts::default(),
            later: jobs::Later::default(),
            schedules: Schedules::default(),
            windows: Windows::default(),
            gates: Gates::new(
                dir.path().join("gates"),
                Some("/nonexistent/sluice-gate-runner".into()),
            ),
            trials: Trials::default(),
            signatures: Remembered::default(),
            metrics: Metrics::default(),
            roles: crate::operators::Roles::default(),
            failures: Failures::default(),
            addresses: Addresses {
                agents: vec!["127.0.0.1:7443".to_owned()],
                api: "http://127.0.0.1:7480".to_owned(),
                authority: Digest::of(b"root"),
            },
        });
        let tenant = host
            .store
            .write(|conn| tenants::create_provider(conn, tenants::DEFAULT, NOW))
            .await
            .expect("creates");
        let (admin, token) =
            operator(&host, &tenant, "admin", Grants::of_role(operators::OWNER)).await;
        Self {
            host,
            tenant,
            admin,
            token,
            dir,
        }
    }

    /// The folder with the database.
    pub(crate) fn folder(&self) -> &std::path::Path {
        self.dir.path()
    }

    /// Another operator of the same tenant.
    pub(crate) async fn operator(
        &self,
        name: &'static str,
        permissions: &'static [Permission],
    ) -> (Actor, BearerToken) {
        operator(
            &self.host,
            &self.tenant,
            name,
            Grants::of_permissions(permissions),
        )
        .await
    }

    /// Another operator of the same tenant, with roles alone.
    pub(crate) async fn with_roles(
        &self,
        name: &'static str,
        roles: &[&str],
    ) -> (Actor, BearerToken) {
        operator(&self.host, &self.tenant, name, with_roles(roles)).await
    }

    /// Another operator of [`Self::stranger`]'s tenant, with roles alone.
    pub(crate) async fn stranger_with_roles(
        &self,
        name: &'static str,
        roles: &[&str],
    ) -> (Actor, BearerToken) {
        let tenant = self
            .host
            .store
            .read(|conn| tenants::find_by_name(conn, "other"))
            .expect("reads")
            .expect("there is another tenant");
        operator(&self.host, &tenant, name, with_roles(roles)).await
    }

    /// Another tenant, and an operator of it who may do everything.
    pub(crate) async fn stranger(&self) -> (Actor, BearerToken) {
        let tenant = self
            .host
            .store
            .write(|conn| tenants::create(conn, "other", NOW))
            .await
            .expect("creates");
        operator(
            &self.host,
            &tenant,
            "stranger",
            Grants::of_role(operators::OWNER),
        )
        .await
    }

    /// An enrolled machine that is not connected.
    pub(crate) async fn machine(&self, name: &'static str) -> Machine {
        let (id, tenant) = (MachineId::generate(), self.tenant.id);
        self.host
            .store
            .write(move |conn| machines::insert(conn, tenant, id, name, &[], NOW))
            .await
            .expect("enrolls");
        Machine {
            tenant: self.tenant.clone(),
            id,
            name: name.to_owned(),
        }
    }

    /// Connects a machine.
    pub(crate) fn connect(&self, machine: &Machine) -> (Session, Inbox) {
        let joined = self.host.presence.join(self.tenant.clone(), machine.id);
        joined.0.confirm();
        joined.0.prove();
        joined
    }

    /// Submits a script as the first operator.
    pub(crate) async fn submit(&self, machine: &str, change: impl FnOnce(&mut SubmitJob)) -> JobId {
        let mut request = request(machine);
        change(&mut request);
        jobs::submit(&self.host, &self.admin, request, None, NOW)
            .await
            .expect("is accepted")
    }

    /// The operations of a job.
    pub(crate) fn operations(&self, job: JobId) -> Vec<OperationRow> {
        self.host
            .store
            .read(|conn| operations::of_job(conn, self.tenant.id, job))
            .expect("reads")
    }

    /// The one operation of a job.
    pub(crate) fn operation(&self, job: JobId) -> OperationRow {
        self.operations(job).pop().expect("one operation")
    }

    /// The result of an operation.
    pub(crate) fn result(
        &self,
        operation: OperationId,
    ) -> sluice_api_types::operation::OperationResult {
        self.host
            .store
            .read(|conn| jobs::operation_result(conn, &self.tenant, operation))
            .expect("reads")
            .expect("is there")
    }

    /// The events of the tenant's audit log, in order, after its chain was verified.
    pub(crate) async fn audited(&self) -> Vec<sluice_api_types::audit::AuditEntry> {
        crate::audit::verify(&self.host.store, &self.tenant)
            .await
            .expect("the chain holds");
        self.host
            .store
            .read(|conn| store::audit::list(conn, self.tenant.id, 0, 10_000))
            .expect("reads")
    }

    /// How often an event is in the audit log.
    pub(crate) async fn count_audited(&self, event: &str) -> usize {
        self.audited()
            .await
            .iter()
            .filter(|entry| entry.event == event)
            .count()
    }

    /// Waits until everything that was handed to the writer is committed.
    pub(crate) async fn settle(&self) {
        // Who waits is told before those of the same commit who do not; so what was handed over before is over after two.
        for _ in 0..2 {
            let written = self.host.store.write(|_| Ok::<_, StoreError>(())).await;
            written.expect("commits");
        }
    }
}

/// A request to run `echo hi`.
pub(crate) fn request(machine: &str) -> SubmitJob {
    SubmitJob {
        script: Some(b"#!/bin/sh\necho hi\n".to_vec().into()),
        machines: vec![machine.to_owned()],
        ..SubmitJob::default()
    }
}

fn with_roles(roles: &[&str]) -> Grants {
    Grants {
        roles: roles.iter().map(|&role| role.to_owned()).collect(),
        permissions: None,
    }
}

async fn operator(
    host: &SharedHost,
    tenant: &Tenant,
    name: &'static str,
    grants: Grants,
) -> (Actor, BearerToken) {
    let id = tenant.id;
    let (_, token) = host
        .store
        .write(move |conn| operators::create(conn, id, name, grants, None, MadeBy::default(), NOW))
        .await
        .expect("makes a token");
    let actor = host
        .store
        .read(|conn| operators::authenticate(conn, &host.roles, &token, "test", NOW))
        .expect("is good");
    (actor, token)
}
