//! The gates of the preflight: one trust domain for each tenant, so that an escape from a guest of one tenant reaches
//! neither another's nor the host's keys.

use std::collections::HashMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use sluice_gate_client::{BindError, BindRequest, BoundGate, Component, DomainOptions, GateDomain};
use sluice_protocol::digest::Digest;
use sluice_protocol::ids::{BindingId, TenantId};
use tokio::sync::{Mutex, watch};

use crate::host::SharedHost;
use crate::store::bindings::{self, BindingRow};
use crate::store::{StoreError, tenants};

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
    /// By binding and revision.
    ready: std::sync::Mutex<HashMap<(BindingId, u64), watch::Receiver<Readiness>>>,
}

/// How far a binding is. Compiling takes long, so it is done beside the jobs; they wait for it.
#[derive(Clone)]
enum Readiness {
    Preparing,
    Ready(BoundGate),
    /// Why it is not, and since when that is known.
    Failed(String, Instant),
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
            ready: std::sync::Mutex::default(),
        });
        tenants.insert(tenant, Arc::clone(&gates));
        Ok(gates)
    }

    /// Tries a binding: whatever keeps it from being asked shows here, and not in an operator's first job.
    ///
    /// # Errors
    ///
    /// Why it cannot be asked.
    pub async fn try_out(
        &self,
        tenant: TenantId,
        component: Component,
        binding: &BindingRow,
    ) -> Result<BoundGate, BindError> {
        let gates = self.tenant(tenant).await.map_err(BindError::Runner)?;
        gates.make(component, binding).await
    }

    /// Takes in what was tried, and forgets what the binding was before.
    pub async fn put(&self, tenant: TenantId, binding: &BindingRow, gate: BoundGate) {
        if let Ok(gates) = self.tenant(tenant).await {
            let (_, ready) = watch::channel(Readiness::Ready(gate));
            let mut known = gates.ready();
            known.retain(|(id, revision), _| *id != binding.id || *revision >= binding.revision);
            known.insert((binding.id, binding.revision), ready);
        }
    }

    /// Forgets a binding that was ended.
    pub async fn forget(&self, tenant: TenantId, id: BindingId) {
        let gates = self.tenants.lock().await.get(&tenant).cloned();
        if let Some(gates) = gates {
            gates.ready().retain(|(known, _), _| *known != id);
        }
    }
}

impl TenantGates {
    fn ready(&self) -> MutexGuard<'_, HashMap<(BindingId, u64), watch::Receiver<Readiness>>> {
        self.ready.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn make(
        &self,
        component: Component,
        binding: &BindingRow,
    ) -> Result<BoundGate, BindError> {
        let request = BindRequest {
            component,
            settings: sluice_gate_client::settings(&binding.settings),
            mode: binding.mode,
            owner: false,
        };
        let limits = sluice_gate_client::call_limits(&binding.limits);
        self.domain.bind_within(request, &limits).await
    }

    /// How far a binding is; where nobody has begun with it, or it failed a while ago, somebody begins.
    fn readiness(
        self: &Arc<Self>,
        host: &SharedHost,
        tenant: TenantId,
        binding: &BindingRow,
    ) -> watch::Receiver<Readiness> {
        let key = (binding.id, binding.revision);
        let mut known = self.ready();
        if let Some(ready) = known.get(&key) {
            let failed_long_ago = match &*ready.borrow() {
                Readiness::Failed(_, since) => since.elapsed() >= AGAIN,
                // Whoever was at it is gone.
                Readiness::Preparing => ready.has_changed().is_err(),
                Readiness::Ready(_) => false,
            };
            if !failed_long_ago {
                return ready.clone();
            }
        }
        let (done, ready) = watch::channel(Readiness::Preparing);
        known.insert(key, ready.clone());
        drop(known);
        let (gates, host, binding) = (Arc::clone(self), Arc::clone(host), binding.clone());
        tokio::spawn(async move {
            let component = host.blobs.component(tenant, binding.component).await;
            let made = match component {
                Ok(component) => gates.make(component, &binding).await,
                Err(error) => {
                    let reason = error.to_string();
                    done.send_replace(Readiness::Failed(reason, Instant::now()));
                    return;
                }
            };
            done.send_replace(match made {
                Ok(gate) => Readiness::Ready(gate),
                Err(error) => {
                    tracing::error!(plugin = binding.plugin, binding = %binding.id, %error, "a gate cannot be asked on the host");
                    Readiness::Failed(error.to_string(), Instant::now())
                }
            });
        });
        ready
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
    // All of them begin before one is waited for.
    let ready: Vec<_> = bindings
        .iter()
        .map(|binding| gates.readiness(host, tenant, binding))
        .collect();
    let until = tokio::time::Instant::now() + PATIENCE;
    let mut bound = Vec::with_capacity(bindings.len());
    for mut ready in ready {
        let settled = ready.wait_for(|ready| !matches!(ready, Readiness::Preparing));
        let settled = tokio::time::timeout_at(until, settled).await;
        bound.push(match settled {
            Ok(Ok(ready)) => match &*ready {
                Readiness::Ready(gate) => Ok(gate.clone()),
                Readiness::Failed(reason, _) => Err(reason.clone()),
                Readiness::Preparing => Err(PREPARING.to_owned()),
            },
            Ok(Err(_)) | Err(_) => Err(PREPARING.to_owned()),
        });
    }
    bound
}

/// Begins to make every binding of every tenant ready, so that the first job after a start does not wait for it.
///
/// # Errors
///
/// Where the database cannot be read. Jobs make ready what is not, then.
pub async fn prepare(host: &SharedHost) -> Result<(), StoreError> {
    for tenant in host.store.read(tenants::list)? {
        let rows = host.store.read(|conn| bindings::list(conn, tenant.id))?;
        if rows.is_empty() {
            continue;
        }
        match host.gates.tenant(tenant.id).await {
            Ok(gates) => rows
                .iter()
                .for_each(|row| drop(gates.readiness(host, tenant.id, row))),
            Err(error) => {
                tracing::error!(tenant = tenant.name, %error, "the gate runner cannot be used")
            }
        }
    }
    Ok(())
}

/// How long a job waits for gates that are being compiled.
const PATIENCE: Duration = Duration::from_secs(120);
/// After which time a binding that failed is tried again.
const AGAIN: Duration = Duration::from_secs(60);
const PREPARING: &str = "it is still being compiled; try again in a moment";

/// The digest of bytes, as signatures have it.
pub(super) const fn raw(digest: &Digest) -> [u8; 32] {
    *digest.as_bytes()
}
