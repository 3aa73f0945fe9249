//! The gates of the preflight: one trust domain for each tenant, so that an escape from a guest of one tenant reaches
//! neither another's nor the host's keys.

use std::collections::HashMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use sluice_gate_client::{BindError, BindRequest, BoundGate, Component, DomainOptions, GateDomain};
use sluice_protocol::digest::Digest;
use sluice_protocol::gates::Setting;
use sluice_protocol::ids::{BindingId, TenantId};
use sluice_protocol::report::Mode;
use tokio::sync::Mutex;

use crate::host::SharedHost;
use crate::store::bindings::BindingRow;

/// The preflight's gates.
pub struct Gates {
    /// The folder with compiled components, one folder in it for each tenant.
    cache: PathBuf,
    /// The runner's binary; beside our own where none is given.
    runner: Option<PathBuf>,
    tenants: Mutex<HashMap<TenantId, Arc<TenantGates>>>,
}

struct TenantGates {
    domain: GateDomain,
    /// The bindings that are ready. The lock is held while one is made ready, so that two jobs do not compile it twice.
    ready: Mutex<HashMap<BindingId, BoundGate>>,
}

impl fmt::Debug for Gates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gates")
            .field("cache", &self.cache)
            .finish_non_exhaustive()
    }
}

impl Gates {
    /// No process is started before a gate is needed.
    #[must_use]
    pub fn new(cache: PathBuf, runner: Option<PathBuf>) -> Self {
        Self {
            cache,
            runner,
            tenants: Mutex::default(),
        }
    }

    /// The tenant's trust domain.
    ///
    /// # Errors
    ///
    /// Where its cache cannot be opened, or no runner is found.
    pub async fn domain(&self, tenant: TenantId) -> Result<GateDomain, std::io::Error> {
        Ok(self.tenant(tenant).await?.domain.clone())
    }

    async fn tenant(&self, tenant: TenantId) -> Result<Arc<TenantGates>, std::io::Error> {
        let mut tenants = self.tenants.lock().await;
        if let Some(gates) = tenants.get(&tenant) {
            return Ok(Arc::clone(gates));
        }
        let domain = GateDomain::new(DomainOptions {
            name: format!("tenant {tenant}"),
            slot: u32::try_from(tenants.len()).unwrap_or(u32::MAX),
            cache: self.cache.join(tenant.to_string()),
            runner: self.runner.clone(),
            idle: sluice_gate_client::IDLE,
        })?;
        let gates = Arc::new(TenantGates {
            domain,
            ready: Mutex::default(),
        });
        tenants.insert(tenant, Arc::clone(&gates));
        Ok(gates)
    }

    /// Tries a binding: whatever keeps it from being asked shows here, and not in an operator's first job.
    ///
    /// # Errors
    ///
    /// Why it cannot be asked.
    pub async fn try_binding(
        &self,
        tenant: TenantId,
        id: BindingId,
        component: Component,
        settings: &[Setting],
        mode: Mode,
    ) -> Result<(), BindError> {
        let gates = self.tenant(tenant).await.map_err(BindError::Runner)?;
        let mut ready = gates.ready.lock().await;
        let gate = gates
            .domain
            .bind(request(component, settings, mode))
            .await?;
        ready.insert(id, gate);
        Ok(())
    }

    /// Forgets a binding that was removed.
    pub async fn forget(&self, tenant: TenantId, id: BindingId) {
        let gates = self.tenants.lock().await.get(&tenant).cloned();
        if let Some(gates) = gates {
            gates.ready.lock().await.remove(&id);
        }
    }
}

/// The gates of these bindings, in order: each ready to be asked, or why it is not.
pub(crate) async fn bound(
    host: &SharedHost,
    tenant: TenantId,
    bindings: &[BindingRow],
) -> Vec<Result<BoundGate, String>> {
    if bindings.is_empty() {
        return Vec::new();
    }
    let gates = match host.gates.tenant(tenant).await {
        Ok(gates) => gates,
        Err(error) => {
            return bindings
                .iter()
                .map(|_| Err(format!("the gate runner cannot be used: {error}")))
                .collect();
        }
    };
    let mut ready = gates.ready.lock().await;
    let mut bound = Vec::with_capacity(bindings.len());
    for binding in bindings {
        if let Some(gate) = ready.get(&binding.id) {
            bound.push(Ok(gate.clone()));
            continue;
        }
        let gate = make_ready(host, tenant, &gates.domain, binding).await;
        if let Ok(gate) = &gate {
            ready.insert(binding.id, gate.clone());
        }
        bound.push(gate);
    }
    bound
}

async fn make_ready(
    host: &SharedHost,
    tenant: TenantId,
    domain: &GateDomain,
    binding: &BindingRow,
) -> Result<BoundGate, String> {
    let component = host
        .blobs
        .component(tenant, binding.component)
        .await
        .map_err(|error| error.to_string())?;
    domain
        .bind(request(component, &binding.settings, binding.mode))
        .await
        .map_err(|error| error.to_string())
}

fn request(component: Component, settings: &[Setting], mode: Mode) -> BindRequest {
    BindRequest {
        component,
        settings: sluice_gate_client::settings(settings),
        mode,
        owner: false,
    }
}

/// The digest of bytes, as signatures have it.
pub(super) const fn raw(digest: &Digest) -> [u8; 32] {
    *digest.as_bytes()
}
