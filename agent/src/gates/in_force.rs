//! The gates that apply at one moment, and which of them an operation is shown to.

use std::sync::Arc;

use sluice_gate_client::BoundGate;
use sluice_gate_types::input::Value;
use sluice_gate_types::manifest::World;
use sluice_protocol::ending::{Block, Ending};
use sluice_protocol::gates::GateBinding;
use sluice_protocol::ids::BindingId;
use sluice_protocol::report::Mode;
use sluice_protocol::script::Language;

use crate::config::{Config, RequiredGate};

/// The gates that apply at one moment, and the owner's policy that they were set up under.
pub(super) struct Bound {
    /// The owner's policy.
    pub(super) config: Arc<Config>,
    /// Of the host's set.
    pub(super) revision: u64,
    /// From files of the owner's.
    pub(super) owners: Vec<OwnersGate>,
    /// Those that the host binds, in its order.
    pub(super) host: Vec<HostsGate>,
    /// Ids of gates that the owner requires the host to bind.
    pub(super) required: Vec<String>,
    /// Why nothing may run: a gate of the owner's, or an enforcing one of the host's, cannot be asked.
    pub(super) broken: Option<Ending>,
}

/// A gate from a file of the owner's.
#[derive(Clone)]
pub(super) struct OwnersGate {
    pub(super) gate: BoundGate,
    /// As the owner gave them.
    pub(super) settings: Vec<(String, Value)>,
    /// Milliseconds since 1970 after which its publisher's signature is void.
    pub(super) not_after: u64,
}

/// A gate that the host binds.
#[derive(Clone)]
pub(super) struct HostsGate {
    /// What it was bound by.
    pub(super) binding: GateBinding,
    pub(super) gate: BoundGate,
    /// Whether the owner requires the host to bind it.
    pub(super) required: bool,
    /// Milliseconds since 1970 after which its publisher's signature is void.
    pub(super) not_after: u64,
    /// The revision that the host has bound meanwhile, and why it cannot be used here.
    pub(super) refused: Option<(u64, String)>,
}

/// What an operation is shown to.
pub struct Asked {
    /// The owner's policy that the gates were set up under.
    pub config: Arc<Config>,
    /// The gates, the owner's first.
    pub gates: Vec<BoundGate>,
    /// What the operator should know of them.
    pub notes: Vec<String>,
}

impl Bound {
    /// No gates yet.
    pub(super) const fn new(config: Arc<Config>, revision: u64) -> Self {
        Self {
            config,
            revision,
            owners: Vec::new(),
            host: Vec::new(),
            required: Vec::new(),
            broken: None,
        }
    }

    /// The gate that is in force for a binding.
    pub(super) fn of_binding(&self, binding: BindingId) -> Option<&HostsGate> {
        self.host
            .iter()
            .find(|gate| gate.binding.binding == binding)
    }

    /// The gate that is in force for what the owner requires.
    pub(super) fn owners_gate(&self, required: &RequiredGate) -> Option<&OwnersGate> {
        self.owners
            .iter()
            .find(|known| known.gate.manifest().id == required.id)
    }

    /// What an operation with a script in this language is shown to at this time, in milliseconds since 1970.
    ///
    /// # Errors
    ///
    /// How it ends where one of them cannot be asked, or a stage has none that enforces.
    pub(super) fn asked(
        &self,
        language: Language,
        skip_scan: bool,
        now: u64,
    ) -> Result<Asked, Ending> {
        if let Some(ending) = &self.broken {
            return Err(ending.clone());
        }
        let (mut gates, mut notes) = (Vec::new(), Vec::new());
        for owners in &self.owners {
            if owners.not_after < now {
                let reason = format!(
                    "the required gate {} cannot be asked: {EXPIRED}",
                    owners.gate.manifest().id
                );
                return Err(Ending::Blocked(Block::machine_policy(reason)));
            }
            gates.push(owners.gate.clone());
        }
        let applies = |hosts: &&HostsGate| hosts.required || hosts.binding.is_about(language);
        for hosts in self.host.iter().filter(applies) {
            let plugin = &hosts.binding.plugin;
            if hosts.not_after < now {
                if hosts.gate.mode() == Mode::Monitor {
                    notes.push(format!(
                        "the gate {plugin}, which only monitors, was not asked: {EXPIRED}"
                    ));
                    continue;
                }
                return Err(Ending::Blocked(Block {
                    by: plugin.clone(),
                    reason: EXPIRED.to_owned(),
                    code: Some("gate-error".to_owned()),
                }));
            }
            if let Some((newer, reason)) = &hosts.refused {
                notes.push(format!(
                    "the gate {plugin} was asked in revision {}: revision {newer} cannot be used on this machine: {reason}",
                    hosts.revision()
                ));
            }
            gates.push(hosts.gate.clone());
        }
        for stage in &self.config.gates.stages {
            let counts = |gate: &&BoundGate| {
                let skipped = *stage == World::ScannerPlugin && skip_scan && !gate.is_owners();
                gate.world() == *stage && gate.mode() == Mode::Enforce && !skipped
            };
            if gates.iter().find(counts).is_none() {
                let reason = format!("no {} for stage {}", kind(*stage), stage.stage());
                return Err(Ending::Blocked(Block::machine_policy(reason)));
            }
        }
        Ok(Asked {
            config: Arc::clone(&self.config),
            gates,
            notes,
        })
    }
}

impl HostsGate {
    /// Of its binding.
    pub(super) const fn revision(&self) -> u64 {
        self.binding.revision
    }

    /// The same gate in place of a revision that cannot be used here.
    pub(super) fn instead_of(self, newer: u64, reason: String) -> Self {
        Self {
            refused: Some((newer, reason)),
            ..self
        }
    }

    /// Whether a binding asks for this very gate, so that it is not made anew.
    pub(super) fn is_as(&self, binding: &GateBinding, required: bool) -> bool {
        let known = &self.binding;
        self.required == required
            && (&known.plugin, known.component, known.mode, known.limits)
                == (
                    &binding.plugin,
                    binding.component,
                    binding.mode,
                    binding.limits,
                )
            && known.settings == binding.settings
    }
}

/// Whether the gate of a binding may be asked where a newer revision of it is meant to be: it is the same plugin, it blocks
/// where that would, and is asked about every script that that would be asked about.
pub(super) fn stands_in_for(known: &GateBinding, newer: &GateBinding) -> bool {
    let enforces = known.mode == Mode::Enforce || newer.mode == Mode::Monitor;
    let covers = known.languages.is_empty()
        || (!newer.languages.is_empty()
            && newer
                .languages
                .iter()
                .all(|language| known.languages.contains(language)));
    known.plugin == newer.plugin && enforces && covers
}

const EXPIRED: &str = "its publisher's signature has expired";

const fn kind(stage: World) -> &'static str {
    match stage {
        World::EnvironmentPlugin => "environment gate",
        World::PreparerPlugin => "preparer",
        World::ScannerPlugin => "scanner",
        World::PolicyPlugin => "policy",
    }
}

#[cfg(test)]
mod tests {
    use sluice_protocol::digest::Digest;
    use sluice_protocol::gates::GateLimits;

    use super::*;

    fn binding(mode: Mode, languages: &[Language]) -> GateBinding {
        GateBinding {
            binding: BindingId::generate(),
            revision: 1,
            plugin: "scanner".to_owned(),
            component: Digest::of(b"a"),
            size: 1,
            signature: Vec::new(),
            settings: Vec::new(),
            mode,
            limits: GateLimits::default(),
            languages: languages.to_vec(),
        }
    }

    #[test]
    fn a_gate_stands_in_only_for_one_that_blocks_no_more_and_is_asked_no_more() {
        use Language::{Python, Shell};
        use Mode::{Enforce, Monitor};
        for (mode, languages, newer, newer_languages, stands_in) in [
            (Enforce, &[][..], Enforce, &[][..], true),
            (Enforce, &[], Monitor, &[], true),
            (Monitor, &[], Monitor, &[], true),
            (Monitor, &[], Enforce, &[], false),
            (Enforce, &[], Enforce, &[Shell], true),
            (Enforce, &[Shell], Enforce, &[], false),
            (Enforce, &[Shell], Enforce, &[Shell, Python], false),
            (Enforce, &[Shell, Python], Enforce, &[Shell], true),
        ] {
            assert_eq!(
                stands_in_for(&binding(mode, languages), &binding(newer, newer_languages)),
                stands_in,
                "{mode:?} {languages:?} for {newer:?} {newer_languages:?}"
            );
        }
        let other = GateBinding {
            plugin: "policy".to_owned(),
            ..binding(Enforce, &[])
        };
        assert!(!stands_in_for(&other, &binding(Enforce, &[])));
    }
}
