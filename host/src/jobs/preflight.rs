//! The host's own look at a job, before anything is sent: does the script fit the machine, and what do the gates say? It
//! blocks early and costs the machine nothing; the gates on the machine are the ones that count.

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use sluice_gate_client::{BoundGate, Input};
use sluice_gate_types::input::{Attribute, Origin, Value};
use sluice_protocol::attachment::LARGEST_TEXT;
use sluice_protocol::bundle::Attachment;
use sluice_protocol::digest::Digest;
use sluice_protocol::ending::{Block, Ending};
use sluice_protocol::gates::is_among;
use sluice_protocol::ids::TenantId;
use sluice_protocol::report::{Finding, Mode, Report, Severity};

use super::targets::Target;
use super::{Order, fit};
use crate::clock::UnixMillis;
use crate::host::SharedHost;
use crate::operators::Actor;
use crate::plugins::judge::Judge;
use crate::plugins::{applies, gates};
use crate::store::bindings::{self, BindingRow, TagPair};
use crate::store::machines::{self, MachineRow};
use crate::store::{Connection, StoreError, tenants};

/// How many machines are looked at at once.
const AT_ONCE: usize = 8;

/// What is to become of an operation.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Plan {
    /// Of the bundle, where it came to that.
    pub(super) bundle_sha256: Option<Digest>,
    /// How it ends here and now, where it does.
    pub(super) ended: Option<Report>,
    /// The gravest finding of a gate that may block.
    pub(super) worst: Option<Severity>,
}

/// The gates of a tenant at one moment.
#[derive(Debug)]
pub(super) struct GatesInForce {
    /// Their revision: the machine waits for it.
    pub(super) revision: u64,
    bindings: Vec<BindingRow>,
    /// By the rules that machines go by.
    judge: Judge,
}

impl GatesInForce {
    /// Reads them. Revision and bindings are of the same moment, as all of one look is.
    pub(super) fn read(conn: &Connection, tenant: TenantId) -> Result<Self, StoreError> {
        let bindings = bindings::list(conn, tenant)?;
        let plugins = bindings.iter().map(|binding| binding.plugin.as_str());
        Ok(Self {
            revision: tenants::gates_revision(conn, tenant)?,
            judge: Judge::read(conn, tenant, plugins)?,
            bindings,
        })
    }
}

/// Looks at every target, in order.
pub(super) async fn check(
    host: &SharedHost,
    actor: &Actor,
    order: &Order,
    targets: &[Target],
    gates: &GatesInForce,
    now: UnixMillis,
) -> Result<Vec<Plan>, StoreError> {
    let mut bound = gates::bound(host, actor.tenant.id, &gates.bindings).await;
    for (binding, bound) in gates.bindings.iter().zip(&mut bound) {
        if let Err(error) = gates.judge.of_binding(&host.signatures, binding, now) {
            *bound = Err(error.to_string());
        }
    }
    let preflight = Preflight {
        host,
        actor,
        order,
        targets: targets.len() as u64,
        gates,
        bound,
        texts: attachment_texts(host, actor.tenant.id, &order.submission.attachments).await,
        now,
    };
    // The futures are made before they are polled: what borrows from `preflight` must not be made inside of the stream.
    let plans: Vec<_> = targets.iter().map(|target| preflight.of(target)).collect();
    stream::iter(plans).buffered(AT_ONCE).try_collect().await
}

struct Preflight<'a> {
    host: &'a SharedHost,
    actor: &'a Actor,
    order: &'a Order,
    targets: u64,
    gates: &'a GatesInForce,
    /// In the order of the bindings: ready, or why not.
    bound: Vec<Result<BoundGate, String>>,
    texts: Vec<(String, String)>,
    now: UnixMillis,
}

impl Preflight<'_> {
    async fn of(&self, target: &Target) -> Result<Plan, StoreError> {
        let machine = match target {
            Target::NotFound(_) => return Ok(self.ended(Ending::MachineNotFound)),
            Target::Machine(machine) => machine,
        };
        if let Some(misfit) = fit::misfit(&self.order.source, &self.order.os, &machine.facts) {
            return Ok(self.ended(misfit));
        }
        let mut gates = Vec::new();
        let mut notes = Vec::new();
        let tags = self.tags(machine)?;
        let language = self.order.source.interpreter.language();
        for (binding, bound) in
            self.gates
                .bindings
                .iter()
                .zip(&self.bound)
                .filter(|(binding, _)| {
                    applies(binding, &tags) && is_among(&binding.languages, language)
                })
        {
            match bound {
                Ok(gate) => gates.push(gate.clone()),
                Err(reason) if binding.mode == Mode::Monitor => notes.push(format!(
                    "the gate {} could not be asked on the host: {reason}",
                    binding.plugin
                )),
                Err(reason) => {
                    let block = Block {
                        by: binding.plugin.clone(),
                        reason: format!("the gate cannot be asked on the host: {reason}"),
                        code: Some("gate-unavailable".to_owned()),
                    };
                    return Ok(self.ended(Ending::Blocked(block)));
                }
            }
        }
        Ok(self.ask(&gates, machine, notes).await)
    }

    async fn ask(&self, gates: &[BoundGate], machine: &MachineRow, mut notes: Vec<String>) -> Plan {
        let claim = |key: &str, value| Attribute::new(key, value, Origin::HostClaim);
        let input = Input {
            submission: &self.order.submission,
            source: &self.order.source,
            facts: machine
                .facts
                .iter()
                .map(|fact| sluice_gate_client::fact(fact.clone(), Origin::Machine))
                .collect(),
            job: vec![
                claim("operator", Value::Text(self.actor.name.clone())),
                claim("tenant", Value::Text(self.actor.tenant.name.clone())),
                claim(
                    "targets",
                    Value::Integer(i64::try_from(self.targets).unwrap_or(i64::MAX)),
                ),
            ],
            attachments: self.texts.clone(),
            skip_security_scan: self.order.skip_security_scan,
            approval: self
                .order
                .approval
                .as_ref()
                .and_then(|approval| approval.on(machine.id)),
            live_facts: false,
        };
        let evaluation = sluice_gate_client::evaluate(gates, &input).await;
        let bundle_sha256 = evaluation.bundle.map(|(_, digest)| digest);
        let counts = |finding: &&Finding| finding.mode == Mode::Enforce;
        let findings = evaluation.findings.iter().filter(counts);
        let worst = findings.map(|finding| finding.severity).max();
        let ending = match (evaluation.ended, bundle_sha256) {
            (Some(ending), _) => Some(ending),
            (None, Some(_)) => None,
            // No gate said no, and yet there is nothing that could run.
            (None, None) => Some(Ending::Error(
                "the host could not make the bundle; this is a bug, please report it".to_owned(),
            )),
        };
        let ended = ending.map(|ending| {
            notes.extend(evaluation.notes);
            notes.push("blocked on the host: nothing was sent to the machine".to_owned());
            Report {
                bundle_sha256,
                findings: evaluation.findings,
                checks: evaluation.checks,
                receipts: evaluation.receipts,
                notes,
                ..Report::without_process(ending, self.now.to_wire())
            }
        });
        Plan {
            bundle_sha256,
            ended,
            worst,
        }
    }

    fn ended(&self, ending: Ending) -> Plan {
        Plan {
            bundle_sha256: None,
            worst: None,
            ended: Some(Report::without_process(ending, self.now.to_wire())),
        }
    }

    /// The machine's tags, where a binding looks at any.
    fn tags(&self, machine: &MachineRow) -> Result<Vec<TagPair>, StoreError> {
        if self
            .gates
            .bindings
            .iter()
            .all(|binding| binding.tags.is_empty())
        {
            return Ok(Vec::new());
        }
        self.host
            .store
            .read(|conn| machines::tags(conn, machine.id))
    }
}

/// Contents of attachments by name, where they are text that gates may want to see.
pub(crate) async fn attachment_texts(
    host: &SharedHost,
    tenant: TenantId,
    attachments: &[Attachment],
) -> Vec<(String, String)> {
    let mut texts = Vec::new();
    for attachment in attachments
        .iter()
        .filter(|attachment| attachment.size <= LARGEST_TEXT)
    {
        // One that cannot be read is for the gates to judge: they see its name and digest without a text.
        match host.blobs.read(tenant, attachment.sha256).await {
            // A byte that is no text must not hide the rest from a scanner.
            Ok(bytes) => texts.push((
                attachment.name.clone(),
                String::from_utf8_lossy(&bytes).into_owned(),
            )),
            Err(error) => {
                tracing::warn!(attachment = %attachment.sha256, %error, "an attachment cannot be read")
            }
        }
    }
    texts
}
