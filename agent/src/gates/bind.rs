//! One gate is bound: verified, fetched, configured; or the one that was in force stays.

use std::path::Path;

use sluice_gate_client::{BindRequest, BoundGate, Component, GateDomain, call_limits, settings};
use sluice_gate_types::signature::{self, PublicKey, SignatureError, Signed, Statement};
use sluice_protocol::causes::Causes;
use sluice_protocol::gates::{GateBinding, GateSet};
use sluice_protocol::report::Mode;
use sluice_transport::agent::AgentConnection;

use super::in_force::{HostsGate, OwnersGate, stands_in_for};
use super::required::{check_version, owners_settings, satisfies};
use crate::attachments::{BlobError, Blobs};
use crate::clock::now;
use crate::config::{Config, RequiredGate};
use crate::ledger::{Ledger, LedgerError};

/// What gates of one set are bound with.
pub(super) struct Binder<'a> {
    /// The process of the owner's gates.
    pub(super) owner: &'a GateDomain,
    /// That of the host's.
    pub(super) host: &'a GateDomain,
    /// Whose plugins the host may bind.
    pub(super) trusted: Vec<PublicKey>,
    pub(super) ledger: &'a Ledger,
    pub(super) blobs: &'a Blobs,
    pub(super) connection: &'a AgentConnection,
}

/// Why one gate is not bound.
pub(super) enum Unbound {
    /// Its component has not arrived, for a reason that has nothing to do with it.
    BrokenOff(BlobError),
    /// It may not, or cannot, be asked: what is wrong, in one line.
    Refused(String),
}

impl From<String> for Unbound {
    fn from(reason: String) -> Self {
        Self::Refused(reason)
    }
}

impl Binder<'_> {
    /// A gate of the host's. One that is in force as the binding has it is looked at again and not bound anew.
    pub(super) async fn bind(
        &self,
        binding: &GateBinding,
        required: bool,
        known: Option<&HostsGate>,
    ) -> Result<HostsGate, Unbound> {
        // Whoever may publish here is decided before a byte is fetched.
        let signed = self.judge(binding)?;
        let gate = match known.filter(|known| known.is_as(binding, required)) {
            Some(known) => known.gate.clone(),
            None => self.make(binding, required, &signed.statement).await?,
        };
        // What only monitors is tried, and what cannot be asked was not taken: neither keeps the way back shut.
        if binding.mode == Mode::Enforce {
            self.remember(&signed).await?;
        }
        Ok(HostsGate {
            binding: binding.clone(),
            gate,
            required,
            not_after: signed.statement.not_after,
            refused: None,
        })
    }

    /// The gate that was in force, also before the agent was started anew, where it may stand in for a revision that cannot
    /// be used: trusted, not expired, not below what was taken, and as the owner requires it.
    pub(super) async fn last_good(
        &self,
        newer: &GateBinding,
        config: &Config,
        required: bool,
        known: Option<&HostsGate>,
    ) -> Option<HostsGate> {
        let binding = match known {
            Some(known) => known.binding.clone(),
            None => self.remembered(newer)?,
        };
        let owner_agrees = config
            .gates
            .required
            .iter()
            .filter(|required| required.file.is_none() && required.id == newer.plugin)
            .all(|required| satisfies(required, &binding).is_ok());
        if !owner_agrees || !stands_in_for(&binding, newer) || !is_of_stage(&binding, newer) {
            return None;
        }
        match self.bind(&binding, required, known).await {
            Ok(gate) => Some(gate),
            Err(Unbound::BrokenOff(_)) => None,
            Err(Unbound::Refused(reason)) => {
                tracing::warn!(
                    plugin = binding.plugin,
                    revision = binding.revision,
                    reason,
                    "the revision that was in force cannot be used either"
                );
                None
            }
        }
    }

    fn remembered(&self, newer: &GateBinding) -> Option<GateBinding> {
        let remembered = self
            .ledger
            .gates_in_force()
            .inspect_err(
                |error| tracing::error!(error = %Causes(error), "which gates were in force is not known"),
            )
            .ok()?;
        remembered
            .into_iter()
            .find(|known| known.binding == newer.binding)
    }

    /// Whether a binding's plugin may be asked here, by what its publisher states.
    fn judge(&self, binding: &GateBinding) -> Result<Signed, String> {
        let signed = signature::verify(
            &binding.signature,
            *binding.component.as_bytes(),
            &self.trusted,
            now(),
        )
        .map_err(|error| match error {
            SignatureError::Untrusted(_) => format!(
                "{error} on this machine: it is not in its owner's [trust] publishers or, where that is empty, in the list that the host showed first"
            ),
            error => error.to_string(),
        })?;
        self.refuse_downgrade(&signed)?;
        Ok(signed)
    }

    async fn make(
        &self,
        binding: &GateBinding,
        required: bool,
        statement: &Statement,
    ) -> Result<BoundGate, Unbound> {
        let path = match self
            .blobs
            .ensure(self.connection, binding.component, binding.size)
            .await
        {
            Ok(path) => path,
            Err(error) if error.is_broken_off() => return Err(Unbound::BrokenOff(error)),
            Err(error) => return Err(error.to_string().into()),
        };
        let request = BindRequest {
            component: read_verified(&path, *binding.component.as_bytes())?,
            settings: settings(&binding.settings),
            mode: binding.mode,
            owner: required,
        };
        let gate = self
            .host
            .bind_within(request, &call_limits(&binding.limits))
            .await
            .map_err(|error| error.to_string())?;
        check_statement(&gate, statement)?;
        if gate.manifest().id != binding.plugin {
            return Err(Unbound::Refused(format!(
                "the host says it is {}, its manifest {}",
                binding.plugin,
                gate.manifest().id
            )));
        }
        Ok(gate)
    }

    /// A gate that the owner requires: from the owner's file, or one that the host has to have bound.
    pub(super) async fn bind_required(
        &self,
        required: &RequiredGate,
        set: &GateSet,
        known: Option<&OwnersGate>,
    ) -> Result<Option<OwnersGate>, String> {
        let given = owners_settings(required)?;
        let Some(file) = &required.file else {
            let binding = set
                .bindings
                .iter()
                .find(|binding| binding.plugin == required.id)
                .ok_or("the host does not bind it")?;
            return satisfies(required, binding).map(|()| None);
        };
        let component = read(file)?;
        let mut signature_file = file.clone().into_os_string();
        signature_file.push(".sig");
        let signature_file = Path::new(&signature_file);
        let signature = std::fs::read(signature_file)
            .map_err(|error| format!("{}: {error}", signature_file.display()))?;
        let signed =
            signature::verify(&signature, component.sha256(), &[required.publisher], now())
                .map_err(|error| error.to_string())?;
        check_version(required, &signed.statement)?;
        let is_known = |known: &&OwnersGate| {
            known.gate.component_sha256() == component.sha256() && known.settings == given
        };
        let gate = match known.filter(is_known) {
            Some(known) => known.gate.clone(),
            None => {
                let request = BindRequest {
                    component,
                    settings: given.clone(),
                    mode: Mode::Enforce,
                    owner: true,
                };
                let bound = self.owner.bind(request).await;
                bound.map_err(|error| error.to_string())?
            }
        };
        check_statement(&gate, &signed.statement)?;
        if gate.manifest().id != required.id {
            return Err(format!(
                "{} holds the gate {}",
                file.display(),
                gate.manifest().id
            ));
        }
        Ok(Some(OwnersGate {
            gate,
            settings: given,
            not_after: signed.statement.not_after,
        }))
    }

    /// A publisher's statement says below which version nobody goes back; the machine remembers the highest that it took.
    fn refuse_downgrade(&self, signed: &Signed) -> Result<(), String> {
        let statement = &signed.statement;
        let minimum = self
            .ledger
            .minimum_version(&name(signed))
            .map_err(|error| Causes(&error).to_string())?;
        match minimum {
            Some(minimum) if statement.version < minimum => Err(format!(
                "version {} is older than {minimum}, below which its publisher lets nobody go back",
                statement.version
            )),
            _ => Ok(()),
        }
    }

    /// Remembers what was taken.
    async fn remember(&self, signed: &Signed) -> Result<(), String> {
        self.ledger
            .raise_minimum_version(&name(signed), signed.statement.minimum_version)
            .await
            .map_err(|error| Causes(&error).to_string())
    }
}

/// By which a publisher's plugin is remembered.
fn name(signed: &Signed) -> String {
    format!("{} {}", signed.publisher, signed.statement.id)
}

/// The publisher's statement and the component's own manifest must tell the same.
fn check_statement(gate: &BoundGate, statement: &Statement) -> Result<(), String> {
    let manifest = gate.manifest();
    if (&manifest.id, manifest.version, manifest.world)
        == (&statement.id, statement.version, statement.world)
    {
        Ok(())
    } else {
        Err("its manifest and its publisher's statement differ".to_owned())
    }
}

/// Whose plugins may run here: the owner's list, or the first list that the host showed.
pub(super) async fn trusted(
    set: &GateSet,
    config: &Config,
    ledger: &Ledger,
) -> Result<Vec<PublicKey>, LedgerError> {
    if !config.trust.publishers.is_empty() {
        return Ok(config.trust.publishers.clone());
    }
    let pinned = match ledger.pinned_publishers()? {
        Some(pinned) => pinned,
        None if set.publishers.is_empty() => Vec::new(),
        None => {
            ledger.pin_publishers(&set.publishers, now()).await?;
            set.publishers.clone()
        }
    };
    // The host may withdraw a publisher, and never add one.
    Ok(pinned
        .iter()
        .filter(|key| set.publishers.contains(key))
        .filter_map(|key| key.parse().ok())
        .collect())
}

/// Whether both are for the same stage, by what their publisher has signed: a scanner stands in for no policy.
fn is_of_stage(known: &GateBinding, newer: &GateBinding) -> bool {
    let world = |binding: &GateBinding| {
        let publisher = signature::stated_publisher(&binding.signature).ok()?;
        let component = *binding.component.as_bytes();
        let signed = signature::verify(&binding.signature, component, &[publisher], now());
        Some(signed.ok()?.statement.world)
    };
    // What is not signed as it should be is of no stage, and was refused for that.
    world(known).is_some_and(|stage| world(newer).is_none_or(|other| other == stage))
}

fn read(path: &Path) -> Result<Component, String> {
    Component::open(path).map_err(|error| format!("{}: {error}", path.display()))
}

fn read_verified(path: &Path, digest: [u8; 32]) -> Result<Component, String> {
    let component = read(path)?;
    if component.sha256() == digest {
        Ok(component)
    } else {
        Err("the component was changed on its way".to_owned())
    }
}
