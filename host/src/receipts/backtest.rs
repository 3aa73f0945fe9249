//! What past jobs would be decided as with another version of a plugin, or other settings. Nothing is changed.
//!
//! Every operation is asked about twice: with the gates that the tenant binds now, and with the same where the tried plugin
//! stands in the place of those with its id. What differs between the two is the plugin's doing and nothing else's. The gates
//! of the machines' owners are not here, and not asked.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::Value;
use sluice_gate_client::{BindRequest, BoundGate, Circumstances, Evaluation, Input, call_limits};
use sluice_gate_types::input::{Attribute, Origin, Value as GateValue};
use sluice_protocol::bundle::Source;
use sluice_protocol::digest::Digest;
use sluice_protocol::ending::{Ending, State};
use sluice_protocol::gates::{GateLimits, is_among};
use sluice_protocol::ids::{JobId, OperationId};
use sluice_protocol::report::Mode;
use sluice_protocol::script::Language;

use super::Busy;
use super::material::source;
use crate::host::SharedHost;
use crate::jobs::attachment_texts;
use crate::operators::Actor;
use crate::plugins::{self, applies, checked, gates, manifest};
use crate::store::bindings::{self, BindingRow, TagPair};
use crate::store::jobs::{self, JobRow};
use crate::store::machines::{self, MachineRow};
use crate::store::operations::{self, OperationRow};
use crate::store::{Connection, StoreError, receipts};

/// The most jobs that one request looks at; who wants more asks for those before.
pub const MOST_JOBS: u32 = 25;
/// The most operations of one job that are asked about.
const MOST_OPERATIONS: usize = 100;
/// After this long a request begins with no other operation.
const TIME: Duration = Duration::from_secs(20);

/// What is tried.
#[derive(Debug, Clone, PartialEq)]
pub struct Tried {
    /// A plugin's id (its newest installed version), or the digest of its component.
    pub plugin: String,
    /// Its settings; absent: those of the bindings whose place it takes, or its defaults where there is none.
    pub settings: Option<BTreeMap<String, Value>>,
    /// How many jobs to look at, [`MOST_JOBS`] at most.
    pub jobs: u32,
    /// Only jobs before this one.
    pub before: Option<JobId>,
}

/// What came of it, for some jobs.
#[derive(Debug, Clone, PartialEq)]
pub struct Backtest {
    /// The plugin's id.
    pub plugin: String,
    /// Its version.
    pub version: String,
    /// The digest of its component.
    pub component: Digest,
    /// How many jobs were looked at.
    pub jobs: u64,
    /// How many operations were asked about.
    pub asked: u64,
    /// Of those, how many with the inventory's facts, because what their machine knew then is not kept.
    pub by_inventory: u64,
    /// Operations that could not be asked about: the script's text is gone, or no machine ever had it.
    pub unknown: u64,
    /// Operations that were not asked about, because their job has too many or the time was over.
    pub left_out: u64,
    /// Operations that would be decided the same, with other findings.
    pub other_findings: u64,
    /// Operations that would be decided otherwise.
    pub changed: Vec<Changed>,
    /// What the next request asks for the jobs before; none where there are none.
    pub next: Option<JobId>,
    /// What else there is to know, for people.
    pub notes: Vec<String>,
}

/// An operation that would be decided otherwise.
#[derive(Debug, Clone, PartialEq)]
pub struct Changed {
    /// Its job.
    pub job: JobId,
    /// Which one.
    pub operation: OperationId,
    /// Its machine's name.
    pub machine: String,
    /// How it went then.
    pub recorded: State,
    /// What the gates of now say.
    pub now: Decision,
    /// What they say with what is tried.
    pub then: Decision,
}

/// What gates say about an operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// How it ends because of a gate; none where every one lets it pass.
    pub ending: Option<Ending>,
    /// How many findings there are.
    pub findings: u64,
}

impl Decision {
    /// Whether two come to the same: the words in which a gate says so may differ.
    fn is_as(&self, other: &Self) -> bool {
        let key = |decision: &Self| {
            let code = match &decision.ending {
                Some(Ending::Blocked(block)) => block.code.clone(),
                _ => None,
            };
            (decision.ending.as_ref().map(Ending::state), code)
        };
        key(self) == key(other)
    }
}

/// Looks at the last jobs of the tenant.
///
/// # Errors
///
/// What is tried cannot be put to use, or nothing can be asked at all.
pub async fn backtest(
    host: &SharedHost,
    actor: &Actor,
    tried: &Tried,
) -> Result<Backtest, BacktestError> {
    let _place = host.trials.begin()?;
    let plugin = plugins::find(host, actor, &tried.plugin)?;
    let (gates, notes) = Gates::of(host, actor, &plugin, tried).await?;
    let mut backtest = Backtest {
        plugin: plugin.id,
        version: plugin.version,
        component: plugin.sha256,
        jobs: 0,
        asked: 0,
        by_inventory: 0,
        unknown: 0,
        left_out: 0,
        other_findings: 0,
        changed: Vec::new(),
        next: None,
        notes,
    };
    let (tenant, before) = (actor.tenant.id, tried.before);
    let limit = tried.jobs.clamp(1, MOST_JOBS);
    let ids = host
        .store
        .scan(move |conn| jobs::ids_before(conn, tenant, before, limit))
        .await?;
    let is_full = ids.len() == limit as usize;
    // What it takes to bring the gates up does not count: each request gets on by one job at least.
    let until = Instant::now() + TIME;
    for id in &ids {
        if Instant::now() >= until {
            return Ok(backtest);
        }
        let past = Past::read(host, actor, *id).await?;
        past.ask(host, actor, &gates, until, &mut backtest).await?;
        backtest.jobs += 1;
        backtest.next = Some(*id);
    }
    if !is_full {
        backtest.next = None;
    }
    Ok(backtest)
}

/// The gates of now, and those with what is tried in its place.
struct Gates {
    now: Vec<(BindingRow, BoundGate)>,
    /// Without a binding: for everything.
    then: Vec<(Option<BindingRow>, BoundGate)>,
}

impl Gates {
    async fn of(
        host: &SharedHost,
        actor: &Actor,
        plugin: &crate::store::plugins::PluginRow,
        tried: &Tried,
    ) -> Result<(Self, Vec<String>), BacktestError> {
        let tenant = actor.tenant.id;
        let rows = host.store.read(|conn| bindings::list(conn, tenant))?;
        let bound = gates::bound(host, tenant, &rows).await;
        let (mut notes, mut now) = (Vec::new(), Vec::new());
        for (row, gate) in rows.into_iter().zip(bound) {
            match gate {
                Ok(gate) => now.push((row, gate)),
                Err(reason) => notes.push(format!(
                    "the gate {} cannot be asked on this host, and is left out: {reason}",
                    row.plugin
                )),
            }
        }
        let given = match &tried.settings {
            Some(given) => Some(sluice_gate_client::settings(&checked(
                &manifest(plugin)?,
                given,
            )?)),
            None => None,
        };
        let domain = host.gates.domain(tenant).await?;
        let bind = async |settings, limits: &GateLimits| {
            let request = BindRequest {
                component: host.blobs.component(tenant, plugin.sha256).await?,
                settings,
                mode: Mode::Enforce,
                owner: false,
            };
            Ok::<_, BacktestError>(domain.bind_within(request, &call_limits(limits)).await?)
        };
        let mut then = Vec::new();
        let mut stands_in = false;
        for (row, gate) in &now {
            if row.plugin != plugin.id {
                then.push((Some(row.clone()), gate.clone()));
                continue;
            }
            stands_in = true;
            let own = || sluice_gate_client::settings(&row.settings);
            let settings = given.clone().unwrap_or_else(own);
            then.push((Some(row.clone()), bind(settings, &row.limits).await?));
        }
        if !stands_in {
            notes.push(format!(
                "{} is not bound now; it is tried as if it were, on every machine",
                plugin.id
            ));
            then.push((
                None,
                bind(given.unwrap_or_default(), &GateLimits::default()).await?,
            ));
        }
        Ok((Self { now, then }, notes))
    }

    fn now(&self, tags: &[TagPair], language: Language) -> Vec<BoundGate> {
        self.now
            .iter()
            .filter(|(row, _)| is_asked(row, tags, language))
            .map(|(_, gate)| gate.clone())
            .collect()
    }

    fn then(&self, tags: &[TagPair], language: Language) -> Vec<BoundGate> {
        let asked = |row: &BindingRow| is_asked(row, tags, language);
        self.then
            .iter()
            .filter(|(row, _)| row.as_ref().is_none_or(asked))
            .map(|(_, gate)| gate.clone())
            .collect()
    }
}

/// Whether a binding is about such a script on a machine with these tags.
fn is_asked(row: &BindingRow, tags: &[TagPair], language: Language) -> bool {
    applies(row, tags) && is_among(&row.languages, language)
}

/// A past job.
struct Past {
    job: JobRow,
    source: Result<Source, String>,
    texts: Vec<(String, String)>,
    operations: Vec<OperationRow>,
}

impl Past {
    async fn read(host: &SharedHost, actor: &Actor, id: JobId) -> Result<Self, StoreError> {
        let tenant = actor.tenant.id;
        let (job, operations) = host
            .store
            .scan(move |conn| {
                let job = jobs::find(conn, tenant, id)?
                    .ok_or_else(|| StoreError::Corrupt(format!("there is no job {id}")))?;
                Ok::<_, StoreError>((job, operations::of_job(conn, tenant, id)?))
            })
            .await?;
        Ok(Self {
            source: source(&job.submission),
            texts: attachment_texts(host, tenant, &job.submission.attachments).await,
            job,
            operations,
        })
    }

    async fn ask(
        &self,
        host: &SharedHost,
        actor: &Actor,
        gates: &Gates,
        until: Instant,
        backtest: &mut Backtest,
    ) -> Result<(), StoreError> {
        let Ok(source) = &self.source else {
            backtest.unknown += self.operations.len() as u64;
            return Ok(());
        };
        for (asked, operation) in self.operations.iter().enumerate() {
            if asked >= MOST_OPERATIONS || Instant::now() >= until {
                backtest.left_out += (self.operations.len() - asked) as u64;
                return Ok(());
            }
            let Some(known) = host.store.read(|conn| Known::read(conn, operation))? else {
                backtest.unknown += 1;
                continue;
            };
            let kept = known.circumstances;
            let live_facts = kept.is_some();
            let (facts, job) = match kept {
                Some(kept) => (kept.facts, kept.job),
                None => (known.inventory, self.job_attributes(actor)),
            };
            let input = Input {
                submission: &self.job.submission,
                source,
                facts,
                job,
                attachments: self.texts.clone(),
                skip_security_scan: self.job.skip_security_scan,
                approval: None,
                live_facts,
            };
            let language = source.interpreter.language();
            let (now, then) = (
                gates.now(&known.tags, language),
                gates.then(&known.tags, language),
            );
            let now = sluice_gate_client::evaluate(&now, &input).await;
            let then = sluice_gate_client::evaluate(&then, &input).await;
            backtest.asked += 1;
            backtest.by_inventory += u64::from(!live_facts);
            let has_other_findings = now.findings != then.findings;
            let (now, then) = (decision(now), decision(then));
            if !now.is_as(&then) {
                backtest.changed.push(Changed {
                    job: self.job.id,
                    operation: operation.id,
                    machine: operation.machine_name.clone(),
                    recorded: operation.state,
                    now,
                    then,
                });
            } else if has_other_findings {
                backtest.other_findings += 1;
            }
        }
        Ok(())
    }

    /// What the preflight says of a job.
    fn job_attributes(&self, actor: &Actor) -> Vec<Attribute> {
        let claim = |key: &str, value| Attribute::new(key, value, Origin::HostClaim);
        vec![
            claim("operator", GateValue::Text(self.job.operator.clone())),
            claim("tenant", GateValue::Text(actor.tenant.name.clone())),
            claim(
                "targets",
                GateValue::Integer(i64::try_from(self.job.targets).unwrap_or(i64::MAX)),
            ),
        ]
    }
}

/// What is known of the machine of an operation.
struct Known {
    tags: Vec<TagPair>,
    /// What its gates were asked, where that is kept.
    circumstances: Option<Circumstances>,
    inventory: Vec<Attribute>,
}

impl Known {
    /// None where there is no such machine.
    fn read(conn: &Connection, operation: &OperationRow) -> Result<Option<Self>, StoreError> {
        let machine = match operation.machine {
            Some(id) => machines::find(conn, operation.tenant, id)?,
            None => None,
        };
        let Some(MachineRow { id, facts, .. }) = machine else {
            return Ok(None);
        };
        // What came ahead of a report that is not here is nobody's word for how it ended.
        let signed = receipts::find(conn, operation.tenant, operation.id)?
            .filter(|signed| signed.place != receipts::In::Ahead);
        let inputs = signed.and_then(|signed| signed.verified.inputs);
        Ok(Some(Self {
            tags: machines::tags(conn, id)?,
            circumstances: inputs.and_then(|inputs| Circumstances::read(&inputs).ok()),
            inventory: facts
                .into_iter()
                .map(|fact| sluice_gate_client::fact(fact, Origin::Machine))
                .collect(),
        }))
    }
}

fn decision(evaluation: Evaluation) -> Decision {
    Decision {
        ending: evaluation.ended,
        findings: evaluation.findings.len() as u64,
    }
}

/// Nothing was tried.
#[derive(Debug, thiserror::Error)]
pub enum BacktestError {
    /// What is tried cannot be put to use.
    #[error(transparent)]
    Bind(#[from] plugins::BindError),
    /// Another one runs.
    #[error(transparent)]
    Busy(#[from] Busy),
    /// No gate can be asked.
    #[error("the gate runner cannot be used; nothing was tried")]
    Runner(#[from] std::io::Error),
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<crate::blobs::BlobError> for BacktestError {
    fn from(error: crate::blobs::BlobError) -> Self {
        Self::Bind(error.into())
    }
}

impl From<sluice_gate_client::BindError> for BacktestError {
    fn from(error: sluice_gate_client::BindError) -> Self {
        Self::Bind(error.into())
    }
}

#[cfg(test)]
mod tests {
    use sluice_protocol::ending::Block;

    use super::*;

    #[test]
    fn two_decisions_are_the_same_where_state_and_code_are_whatever_the_words() {
        let decision = |ending| Decision {
            ending,
            findings: 0,
        };
        let blocked = |reason: &str, code: Option<&str>| {
            decision(Some(Ending::Blocked(Block {
                by: "policy".to_owned(),
                reason: reason.to_owned(),
                code: code.map(str::to_owned),
            })))
        };
        let approval = || blocked("ask", Some("approval-required"));
        assert!(blocked("a", None).is_as(&blocked("b", None)));
        assert!(decision(None).is_as(&decision(None)));
        for (one, other) in [
            (blocked("a", None), decision(None)),
            (blocked("a", None), approval()),
            (approval(), decision(None)),
            (
                blocked("a", None),
                decision(Some(Ending::Unsupported("linux".to_owned()))),
            ),
        ] {
            assert!(!one.is_as(&other), "{one:?} {other:?}");
        }
    }
}
