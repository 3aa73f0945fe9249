//! A receipt's question is made again, from what the host has, and asked again in the tenant's runner.
//!
//! What is compared are digests: of the question, before the gate is asked, and of the answer. Fuel is compared where the runtime
//! is the same.

use std::collections::BTreeMap;

use serde_json::Value;
use sluice_gate_client::replay::{Material, Replayed as Answer};
use sluice_gate_client::{
    BindRequest, BoundGate, Circumstances, GateDomain, call_limits, settings_sha256,
};
use sluice_gate_types::input as gate;
use sluice_gate_types::manifest::World;
use sluice_protocol::bundle::Submission;
use sluice_protocol::causes::Causes;
use sluice_protocol::digest::Digest;
use sluice_protocol::gates::GateLimits;
use sluice_protocol::ids::OperationId;
use sluice_protocol::receipt::{Receipt, Stage};
use sluice_protocol::report::Mode;

use super::material::material;
use super::show::{Shown, show};
use super::{Busy, settings_digest};
use crate::host::SharedHost;
use crate::operators::Actor;
use crate::plugins::{checked, from_json, manifest};
use crate::store::plugins::{self, PluginRow};
use crate::store::{StoreError, bindings, jobs, receipts};

/// What came of one receipt.
#[derive(Debug, Clone, PartialEq)]
pub struct Replayed {
    /// The receipt.
    pub receipt: Receipt,
    /// What came of it.
    pub compared: Compared,
    /// What else there is to know, for people.
    pub notes: Vec<String>,
}

/// A receipt, and the same question asked again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Compared {
    /// The same verdict, and the same fuel where the runtime is the same.
    Same,
    /// Something else: what, for people.
    Different(Vec<String>),
    /// It cannot be asked again: what is missing, for people.
    Missing(String),
}

/// Replays the receipts of an operation; of one plugin alone where one is named. `given` are settings to try where the host
/// does not know them.
///
/// # Errors
///
/// The tenant has no such operation, or nothing can be asked at all.
pub async fn replay(
    host: &SharedHost,
    actor: &Actor,
    operation: OperationId,
    plugin: Option<&str>,
    given: &BTreeMap<String, Value>,
) -> Result<Vec<Replayed>, ReplayError> {
    let _place = host.trials.begin()?;
    let (tenant, id) = (actor.tenant.clone(), operation);
    let (shown, job) = host
        .store
        .scan(move |conn| {
            let shown = show(conn, &tenant, id)?.ok_or(ReplayError::NoOperation(id))?;
            let job = jobs::find(conn, tenant.id, shown.operation.job)?;
            let job =
                job.ok_or_else(|| StoreError::Corrupt(format!("operation {id} has no job")))?;
            Ok::<_, ReplayError>((shown, job))
        })
        .await?;
    let material = match circumstances(&shown) {
        Ok(circumstances) => {
            let submission = Submission::clone(&job.submission);
            material(host, &actor.tenant, submission, circumstances).await
        }
        Err(missing) => Err(missing),
    };
    let domain = host.gates.domain(actor.tenant.id).await?;
    let again = Again {
        host,
        actor,
        domain,
        given,
    };
    let mut replayed = Vec::new();
    for receipt in shown.receipts {
        if plugin.is_some_and(|plugin| plugin != receipt.plugin) {
            continue;
        }
        let mut notes = Vec::new();
        let compared = match &material {
            Ok(material) => match again.ask(&receipt, material, &mut notes).await {
                Ok(compared) => compared,
                Err(Stop::Missing(missing)) => Compared::Missing(missing),
                Err(Stop::Failed(error)) => return Err(error),
            },
            Err(missing) => Compared::Missing(missing.clone()),
        };
        replayed.push(Replayed {
            receipt,
            compared,
            notes,
        });
    }
    Ok(replayed)
}

/// What the machine's gates were asked beside the submission, or why that is not known.
fn circumstances(shown: &Shown) -> Result<Circumstances, String> {
    let Some((_, verified)) = &shown.signed else {
        return Err(
            "these gates were asked by the host, before anything was sent; what they saw of the machine is not kept"
                .to_owned(),
        );
    };
    let Some(inputs) = &verified.inputs else {
        return Err(
            "what the gates saw of the machine is not here: it was too large, or the agent was restarted in between"
                .to_owned(),
        );
    };
    Circumstances::read(inputs)
        .map_err(|error| format!("what the gates saw of the machine cannot be read: {error}"))
}

struct Again<'a> {
    host: &'a SharedHost,
    actor: &'a Actor,
    domain: GateDomain,
    given: &'a BTreeMap<String, Value>,
}

/// Why a receipt is not asked again.
enum Stop {
    Missing(String),
    Failed(ReplayError),
}

impl From<StoreError> for Stop {
    fn from(error: StoreError) -> Self {
        Self::Failed(error.into())
    }
}

impl Again<'_> {
    async fn ask(
        &self,
        receipt: &Receipt,
        material: &Material,
        notes: &mut Vec<String>,
    ) -> Result<Compared, Stop> {
        let remade = material.remake(world(receipt.stage)).map_err(|reason| {
            Stop::Missing(format!("the question cannot be made again: {reason}"))
        })?;
        if remade.input_sha256() != receipt.input_sha256 {
            let mut differences = vec![format!(
                "the question that this host makes of it is another ({}, and not {}): the machine was asked something else, or a file of the job is gone",
                remade.input_sha256(),
                receipt.input_sha256
            )];
            if remade.bundle_sha256 != receipt.bundle_sha256 {
                differences.push("the bundle is another too".to_owned());
            }
            return Ok(Compared::Different(differences));
        }
        let gate = self.bind(receipt).await?;
        if gate.limits() != receipt.limits {
            notes.push("the limits of a call are others on this host".to_owned());
        }
        Ok(compare(receipt, &remade.ask(&gate).await, notes))
    }

    /// The gate of a receipt: these bytes with these settings.
    async fn bind(&self, receipt: &Receipt) -> Result<BoundGate, Stop> {
        let (tenant, sha256) = (self.actor.tenant.id, receipt.component_sha256);
        let plugin = self
            .host
            .store
            .read(|conn| plugins::find(conn, tenant, sha256))?
            .ok_or_else(|| {
                Stop::Missing(format!(
                    "the component is not installed on this host: {} {} ({sha256})",
                    receipt.plugin, receipt.version
                ))
            })?;
        let settings = self.settings(receipt, &plugin)?.ok_or_else(|| {
            Stop::Missing(format!(
                "its settings are not known here ({}); they can be given with --settings",
                receipt.settings_sha256
            ))
        })?;
        let component = self.host.blobs.component(tenant, sha256).await;
        let component = component.map_err(|error| {
            Stop::Missing(format!("the component cannot be read: {}", Causes(&error)))
        })?;
        let request = BindRequest {
            component,
            settings,
            mode: Mode::Monitor,
            owner: false,
        };
        // What stopped it there stops it here.
        let limits = call_limits(&GateLimits {
            fuel: Some(receipt.limits.fuel),
            memory: Some(receipt.limits.memory),
            time_ms: Some(receipt.limits.time_ms),
        });
        let bound = self.domain.bind_within(request, &limits);
        bound.await.map_err(|error| {
            Stop::Missing(format!("the gate does not come up on this host: {error}"))
        })
    }

    /// The settings that the receipt names by digest: among those that were ever bound here, those given, and none at all.
    fn settings(
        &self,
        receipt: &Receipt,
        plugin: &PluginRow,
    ) -> Result<Option<Vec<(String, gate::Value)>>, StoreError> {
        let (tenant, wanted) = (self.actor.tenant.id, receipt.settings_sha256);
        let (remembered, bound) = self.host.store.read(|conn| {
            let remembered = receipts::settings(conn, tenant, wanted)?;
            Ok::<_, StoreError>((remembered, bindings::list(conn, tenant)?))
        })?;
        if let Some(settings) = remembered {
            return Ok(Some(sluice_gate_client::settings(&settings)));
        }
        for binding in bound {
            if settings_digest(&binding.settings)? == wanted {
                return Ok(Some(sluice_gate_client::settings(&binding.settings)));
            }
        }
        let as_given: Option<Vec<_>> = self
            .given
            .iter()
            .map(|(key, value)| Some((key.clone(), from_json(value)?)))
            .collect();
        let with_defaults = manifest(plugin).and_then(|manifest| checked(&manifest, self.given));
        let with_defaults = with_defaults
            .ok()
            .map(|settings| sluice_gate_client::settings(&settings));
        let candidates = [Some(Vec::new()), as_given, with_defaults];
        Ok(candidates.into_iter().flatten().find(|settings| {
            settings_sha256(settings).is_ok_and(|sha256| Digest::from_bytes(sha256) == wanted)
        }))
    }
}

/// A receipt, and what came of asking again.
fn compare(receipt: &Receipt, again: &Answer, notes: &mut Vec<String>) -> Compared {
    let mut differences = Vec::new();
    if again.verdict_sha256 != receipt.verdict_sha256 {
        differences.push(format!(
            "the verdict is another: {} ({}), and not {} ({})",
            again.verdict, again.verdict_sha256, receipt.verdict, receipt.verdict_sha256
        ));
    } else if again.verdict != receipt.verdict {
        differences.push(format!(
            "the same verdict is called {} here, and not {}",
            again.verdict, receipt.verdict
        ));
    }
    if again.runtime != receipt.runtime {
        notes.push(format!(
            "the runtime is another ({}, and not {}), so the fuel is not compared: {}, and not {}",
            again.runtime, receipt.runtime, again.fuel, receipt.fuel
        ));
    } else if again.fuel != receipt.fuel {
        differences.push(format!(
            "the fuel is another: {}, and not {}",
            again.fuel, receipt.fuel
        ));
    }
    if differences.is_empty() {
        Compared::Same
    } else {
        Compared::Different(differences)
    }
}

/// Which gates are asked in a stage.
const fn world(stage: Stage) -> World {
    match stage {
        Stage::Environment => World::EnvironmentPlugin,
        Stage::Prepare => World::PreparerPlugin,
        Stage::Scan => World::ScannerPlugin,
        Stage::Policy => World::PolicyPlugin,
    }
}

/// Nothing was replayed.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// Unknown, or another tenant's: the answer is the same.
    #[error("there is no operation {0}")]
    NoOperation(OperationId),
    /// Another one runs.
    #[error(transparent)]
    Busy(#[from] Busy),
    /// No gate can be asked.
    #[error("the gate runner cannot be used; nothing was replayed")]
    Runner(#[from] std::io::Error),
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
}
