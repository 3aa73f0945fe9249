//! The host's own look at a job, before anything is sent: does the script fit the machine, and what do the gates say? It
//! blocks early and costs the machine nothing; the gates on the machine are the ones that count.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use futures_util::{StreamExt as _, stream};
use sluice_gate_client::{BoundGate, Input};
use sluice_gate_types::input::{Attribute, Origin, Value};
use sluice_gate_types::manifest::World;
use sluice_protocol::attachment::LARGEST_TEXT;
use sluice_protocol::bundle::Attachment;
use sluice_protocol::codec;
use sluice_protocol::digest::Digest;
use sluice_protocol::ending::{Block, Ending};
use sluice_protocol::gates::is_among;
use sluice_protocol::ids::TenantId;
use sluice_protocol::message::control::Fact;
use sluice_protocol::report::{Finding, Mode, Report, Severity};

use super::targets::Target;
use super::{Order, fit};
use crate::approvals::Found;
use crate::clock::UnixMillis;
use crate::host::SharedHost;
use crate::operators::Actor;
use crate::plugins::judge::Judge;
use crate::plugins::{applies, gates};
use crate::store::bindings::{self, BindingRow, TagPair};
use crate::store::machines::{self, MachineRow};
use crate::store::{Connection, StoreError, tenants};

/// How many questions are asked at once.
const AT_ONCE: usize = 8;
/// How many different machines the gates that look at a machine are asked about, for one job. Of machines that say the same of
/// themselves one is asked about for all; behind so many that differ, only what does not depend on the machine is asked: the job
/// is not to wait for thousands of calls whose like each machine makes anyway.
const MOST_ASKED: usize = 512;

/// What is to become of an operation.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Plan {
    /// Of the bundle, where it came to that.
    pub(super) bundle_sha256: Option<Digest>,
    /// How it ends here and now, where it does.
    pub(super) ended: Option<Report>,
    /// The gravest finding of a gate that may block.
    pub(super) worst: Option<Severity>,
    /// What such gates found, each thing once.
    pub(super) found: Arc<Vec<Found>>,
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

/// Looks at every target, in order; the job has `of` of them in all.
pub(super) async fn check(
    host: &SharedHost,
    actor: &Actor,
    order: &Order,
    targets: &[Target],
    of: u64,
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
        targets: of,
        gates,
        bound,
        texts: attachment_texts(host, actor.tenant.id, &order.submission.attachments).await,
        now,
    };
    let mut plans = Vec::with_capacity(targets.len());
    let mut questions = Questions::default();
    for target in targets {
        plans.push(match preflight.look(target)? {
            Look::Over(plan) => Err(*plan),
            Look::Ask(about) => Ok(questions.add(about)),
        });
    }
    // The futures are made before they are polled: what borrows from `preflight` must not be made inside of the stream.
    let answers: Vec<_> = questions
        .all
        .into_iter()
        .map(|about| preflight.ask(about))
        .collect();
    let answers: Vec<Plan> = stream::iter(answers).buffered(AT_ONCE).collect().await;
    let planned = plans.into_iter().map(|plan| match plan {
        Err(plan) => plan,
        Ok(question) => answers[question].clone(),
    });
    Ok(planned.collect())
}

/// What one look at a target came to, before any gate is asked.
enum Look<'a> {
    /// It is clear how it ends.
    Over(Box<Plan>),
    /// The gates are to say.
    Ask(About<'a>),
}

/// Everything that an answer of the gates depends on, within one job.
struct About<'a> {
    /// Those that are asked, by their position among the bindings.
    gates: Vec<usize>,
    /// What the machine says of itself; none where the gates that look at that are left to it.
    facts: Option<&'a [Fact]>,
    approval: Option<sluice_gate_client::Approval>,
    /// Remarks on gates that could not be asked.
    notes: Vec<String>,
}

/// What the gates are asked, each thing once.
#[derive(Default)]
struct Questions<'a> {
    all: Vec<About<'a>>,
    known: HashMap<Digest, usize>,
    /// How many of them are about a machine.
    of_machines: usize,
}

impl<'a> Questions<'a> {
    /// Which of the questions it is.
    fn add(&mut self, mut about: About<'a>) -> usize {
        let mut key = about.key();
        let mut known = key.and_then(|key| self.known.get(&key));
        if known.is_none() && self.of_machines >= MOST_ASKED {
            (about.facts, about.approval) = (None, None);
            key = about.key();
            known = key.and_then(|key| self.known.get(&key));
        }
        if let Some(known) = known {
            return *known;
        }
        let next = self.all.len();
        self.of_machines += usize::from(about.facts.is_some());
        self.known.extend(key.map(|key| (key, next)));
        self.all.push(about);
        next
    }
}

impl About<'_> {
    /// The same for what is asked in the same words, and only for that. What has none is a question of its own.
    fn key(&self) -> Option<Digest> {
        let approval = self.approval.as_ref();
        let approval = approval.map(|approval| (approval.bundle_sha256, &approval.by));
        let words = codec::encode(&(&self.gates, self.facts, approval, &self.notes));
        words.ok().map(|words| Digest::of(&words))
    }
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
    fn look<'t>(&self, target: &'t Target) -> Result<Look<'t>, StoreError> {
        let over = |ending| Ok(Look::Over(Box::new(self.ended(ending))));
        let machine = match target {
            Target::NotFound(_) => return over(Ending::MachineNotFound),
            Target::Machine(machine) => machine,
        };
        if let Some(misfit) = fit::misfit(&self.order.source, &self.order.os, &machine.facts) {
            return over(misfit);
        }
        let mut gates = Vec::new();
        let mut notes = Vec::new();
        let tags = self.tags(machine)?;
        let language = self.order.source.interpreter.language();
        for (index, (binding, bound)) in self.gates.bindings.iter().zip(&self.bound).enumerate() {
            if !applies(binding, &tags) || !is_among(&binding.languages, language) {
                continue;
            }
            match bound {
                Ok(_) => gates.push(index),
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
                    return over(Ending::Blocked(block));
                }
            }
        }
        let approval = self.order.approval.as_ref();
        Ok(Look::Ask(About {
            gates,
            facts: Some(&machine.facts),
            approval: approval.and_then(|approval| approval.on(machine.id)),
            notes,
        }))
    }

    async fn ask(&self, about: About<'_>) -> Plan {
        let About {
            gates,
            facts,
            approval,
            mut notes,
        } = about;
        let gates = gates.into_iter().filter_map(|index| self.bound.get(index));
        let gates: Vec<BoundGate> = gates
            .flatten()
            .filter(|gate| facts.is_some() || !looks_at_a_machine(gate))
            .cloned()
            .collect();
        let claim = |key: &str, value| Attribute::new(key, value, Origin::HostClaim);
        let input = Input {
            submission: &self.order.submission,
            source: &self.order.source,
            facts: facts
                .unwrap_or_default()
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
            approval,
            live_facts: false,
        };
        let evaluation = sluice_gate_client::evaluate(&gates, &input).await;
        let bundle_sha256 = evaluation.bundle.map(|(_, digest)| digest);
        let counts = |finding: &&Finding| finding.mode == Mode::Enforce;
        let findings = evaluation.findings.iter().filter(counts);
        let found: BTreeSet<Found> = findings
            .map(|finding| Found {
                severity: finding.severity,
                gate: finding.gate.clone(),
                rule: finding.rule.clone(),
            })
            .collect();
        let worst = found.last().map(|found| found.severity);
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
            found: Arc::new(found.into_iter().collect()),
        }
    }

    fn ended(&self, ending: Ending) -> Plan {
        Plan {
            bundle_sha256: None,
            worst: None,
            found: Arc::default(),
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

/// Whether a gate is told what the machine says of itself.
fn looks_at_a_machine(gate: &BoundGate) -> bool {
    matches!(gate.world(), World::EnvironmentPlugin | World::PolicyPlugin)
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

#[cfg(test)]
mod tests {
    use sluice_gate_client::Counts;
    use sluice_protocol::message::control::FactValue;

    use super::*;

    fn about(facts: &[Fact]) -> About<'_> {
        About {
            gates: vec![0, 2],
            facts: Some(facts),
            approval: None,
            notes: Vec::new(),
        }
    }

    fn numbered(number: i64) -> Vec<Fact> {
        vec![Fact {
            key: "number".to_owned(),
            value: FactValue::Integer(number),
        }]
    }

    #[test]
    fn machines_that_say_the_same_are_one_question_and_whatever_differs_is_another() {
        let (one, other) = (numbered(1), numbered(2));
        let mut questions = Questions::default();
        assert_eq!(questions.add(about(&one)), 0);
        assert_eq!(questions.add(about(&other)), 1);
        assert_eq!(questions.add(about(&one)), 0);
        let gates = About {
            gates: vec![0],
            ..about(&one)
        };
        assert_eq!(questions.add(gates), 2);
        let approved = |by: &str| About {
            approval: Some(sluice_gate_client::Approval {
                bundle_sha256: Digest::of(b"bundle"),
                by: by.to_owned(),
                counts: Counts::ForAllGates,
            }),
            ..about(&one)
        };
        assert_eq!(questions.add(approved("eve")), 3);
        assert_eq!(questions.add(approved("ida")), 4);
        assert_eq!(questions.add(approved("eve")), 3);
    }

    #[test]
    fn behind_so_many_that_differ_only_what_no_machine_changes_is_asked() {
        let numbers = i64::try_from(MOST_ASKED).expect("is small") + 10;
        let facts: Vec<_> = (0..numbers).map(numbered).collect();
        let mut questions = Questions::default();
        let asked: Vec<_> = facts
            .iter()
            .map(|facts| questions.add(about(facts)))
            .collect();
        assert_eq!(asked[MOST_ASKED - 1], MOST_ASKED - 1);
        assert!(asked[MOST_ASKED..].iter().all(|one| *one == MOST_ASKED));
        assert_eq!(questions.add(about(&facts[0])), 0, "that answer is known");
        assert_eq!(questions.all.len(), MOST_ASKED + 1);
        let of_machines = questions.all.iter().filter(|about| about.facts.is_some());
        assert_eq!(of_machines.count(), MOST_ASKED);
    }
}
