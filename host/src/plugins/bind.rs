//! A plugin is put to use, otherwise than before, or no more.

mod error;

use std::collections::BTreeMap;

use serde_json::Value;
use sluice_gate_types::manifest::Version;
use sluice_protocol::gates::GateLimits;
use sluice_protocol::ids::{BindingId, TenantId};
use sluice_protocol::report::Mode;
use sluice_protocol::script::Language;

pub use self::error::BindError;
use super::gate_set::as_digest;
use super::judge::Judge;
use super::settings;
use crate::audit::{self, Event, EventKind};
use crate::clock::UnixMillis;
use crate::host::SharedHost;
use crate::operators::{Actor, Permission};
use crate::store::bindings::{self, BindingRow, RevisionState, TagPair};
use crate::store::plugins::{self, PluginRow};
use crate::store::{Connection, receipts, tenants};

/// The most bindings that a tenant may have: a machine's gate set is one message.
const MOST_BINDINGS: usize = 32;

/// What is asked for. What is left out is not as it was before, but as it is by itself.
#[derive(Debug, Clone, PartialEq)]
pub struct NewBinding {
    /// A plugin's id, or the digest of its component.
    pub plugin: String,
    /// The binding to change; where absent that of this plugin with the same scope, or else a new one is made.
    pub binding: Option<BindingId>,
    /// Settings as given.
    pub settings: BTreeMap<String, Value>,
    /// Whether it can block.
    pub mode: Mode,
    /// Lower than what the plugin asks for.
    pub limits: GateLimits,
    /// Only on machines that have all of these.
    pub tags: Vec<TagPair>,
    /// Only for scripts in one of these languages; for all where empty.
    pub languages: Vec<Language>,
    /// Within a stage the lower one comes first.
    pub position: u32,
}

/// Binds a plugin, or changes how it is bound: its settings are checked against its schema and by the plugin itself, on the
/// host, before any machine hears of it. A binding that is there is replaced in one transaction, and goes on as it is where
/// the new revision cannot be put to use.
///
/// # Errors
///
/// Why it cannot be put to use; nothing is changed then.
pub async fn bind(
    host: &SharedHost,
    actor: &Actor,
    new: NewBinding,
    now: UnixMillis,
) -> Result<BindingRow, BindError> {
    let plugin = find(host, actor, &new.plugin)?;
    let before = host
        .store
        .read(|conn| predecessor(conn, actor.tenant.id, &plugin, &new))?;
    let Some(before) = before else {
        return put_to_use(host, actor, plugin, new, None, now).await;
    };
    let (binding, revision) = (before.id, before.revision);
    let bound = put_to_use(host, actor, plugin, new, Some(before), now).await;
    bound.map_err(|error| match error {
        // What has nothing to do with the revision says what it has to do with.
        BindError::Weaker { .. } | BindError::Changed(_) | BindError::Store(_) => error,
        error => BindError::Stays {
            error: Box::new(error),
            binding,
            revision,
        },
    })
}

async fn put_to_use(
    host: &SharedHost,
    actor: &Actor,
    plugin: PluginRow,
    new: NewBinding,
    before: Option<BindingRow>,
    now: UnixMillis,
) -> Result<BindingRow, BindError> {
    let tenant = actor.tenant.id;
    if let Some(before) = &before {
        may_weaken(actor, weakened(before, &new))?;
    }
    let judge = host
        .store
        .read(|conn| Judge::read(conn, tenant, [plugin.id.as_str()]))?;
    judge.of(
        &host.signatures,
        &plugin.id,
        plugin.sha256,
        &plugin.signature,
        now,
    )?;
    let manifest = settings::manifest(&plugin)?;
    let settings = settings::checked(&manifest, &new.settings)?;
    settings::check_limits(&manifest, &new.limits)?;
    let component = host.blobs.component(tenant, plugin.sha256).await?;
    let known = before.as_ref();
    let mut binding = BindingRow {
        id: known.map_or_else(BindingId::generate, |before| before.id),
        revision: 1,
        component: plugin.sha256,
        plugin: plugin.id,
        version: plugin.version,
        world: plugin.world,
        size: plugin.size,
        signature: plugin.signature,
        settings,
        mode: new.mode,
        tags: new.tags,
        languages: new.languages,
        limits: new.limits,
        position: new.position,
        created: known.map_or(now, |before| before.created),
        revised: now,
    };
    let gate = match host.gates.try_out(tenant, component, &binding).await {
        Ok(gate) => gate,
        Err(error) => {
            if before.is_some() {
                record_failure(host, actor, binding, error.to_string(), now).await?;
            }
            return Err(error.into());
        }
    };
    let asked = actor.clone();
    binding = host
        .store
        .write(move |conn| {
            let event = match &before {
                None => {
                    if bindings::list(conn, tenant)?.len() >= MOST_BINDINGS {
                        return Err(BindError::TooMany);
                    }
                    event(EventKind::PluginBound, &asked, &binding)
                }
                Some(before) => {
                    let there = bindings::find(conn, tenant, before.id)?;
                    if there.is_none_or(|there| there.revision != before.revision) {
                        return Err(BindError::Changed(before.id));
                    }
                    binding.revision = bindings::next_revision(conn, tenant, before.id)?;
                    event(EventKind::PluginRevised, &asked, &binding)
                        .detail("replaced_revision", before.revision)
                        .detail("replaced_mode", mode(before.mode))
                }
            };
            bindings::put(conn, tenant, &binding, &asked.name)?;
            receipts::remember_settings(conn, tenant, &binding.settings)?;
            let revision = tenants::next_gates_revision(conn, tenant)?;
            let event = event.detail("gates_revision", revision);
            audit::append(conn, &asked.tenant, now, [event])?;
            Ok(binding)
        })
        .await?;
    host.gates.put(tenant, &binding, gate).await;
    super::announce(host, &actor.tenant)?;
    Ok(binding)
}

/// Keeps a revision that did not come up on the record, with the reason. The one in force is not touched.
async fn record_failure(
    host: &SharedHost,
    actor: &Actor,
    mut binding: BindingRow,
    reason: String,
    now: UnixMillis,
) -> Result<(), BindError> {
    let asked = actor.clone();
    host.store
        .write(move |conn| {
            let tenant = asked.tenant.id;
            binding.revision = bindings::next_revision(conn, tenant, binding.id)?;
            let event = event(EventKind::PluginRevisionFailed, &asked, &binding)
                .detail("reason", reason.as_str());
            let failed = RevisionState::Failed(reason);
            bindings::record(conn, tenant, &binding, &failed, &asked.name)?;
            audit::append(conn, &asked.tenant, now, [event])?;
            Ok(())
        })
        .await
}

/// Ends a binding.
///
/// # Errors
///
/// The tenant has no such binding.
pub async fn unbind(
    host: &SharedHost,
    actor: &Actor,
    id: BindingId,
    now: UnixMillis,
) -> Result<(), BindError> {
    let asked = actor.clone();
    host.store
        .write(move |conn| {
            let row =
                bindings::remove(conn, asked.tenant.id, id)?.ok_or(BindError::NoBinding(id))?;
            // Else whoever may not move a gate to monitor would end it, and bind it anew.
            let ended = (row.mode == Mode::Enforce).then_some("without its binding");
            may_weaken(&asked, ended)?;
            let revision = tenants::next_gates_revision(conn, asked.tenant.id)?;
            let event =
                event(EventKind::PluginUnbound, &asked, &row).detail("gates_revision", revision);
            audit::append(conn, &asked.tenant, now, [event])?;
            Ok::<_, BindError>(())
        })
        .await?;
    host.gates.forget(actor.tenant.id, id).await;
    super::announce(host, &actor.tenant)?;
    Ok(())
}

/// The binding that is changed, where there is one.
fn predecessor(
    conn: &Connection,
    tenant: TenantId,
    plugin: &PluginRow,
    new: &NewBinding,
) -> Result<Option<BindingRow>, BindError> {
    if let Some(id) = new.binding {
        let found = bindings::find(conn, tenant, id)?.ok_or(BindError::NoBinding(id))?;
        if found.plugin != plugin.id {
            return Err(BindError::OtherPlugin {
                binding: id,
                of: found.plugin,
                plugin: plugin.id.clone(),
            });
        }
        return Ok(Some(found));
    }
    let mut same = bindings::list(conn, tenant)?.into_iter().filter(|row| {
        row.plugin == plugin.id
            && is_within(&row.tags, &new.tags)
            && is_within(&new.tags, &row.tags)
            && is_within(&row.languages, &new.languages)
            && is_within(&new.languages, &row.languages)
    });
    match (same.next(), same.next()) {
        (_, Some(_)) => Err(BindError::Several(plugin.id.clone())),
        (found, None) => Ok(found),
    }
}

fn is_within<T: PartialEq>(these: &[T], those: &[T]) -> bool {
    these.iter().all(|one| those.contains(one))
}

/// In what way a new revision of a gate that blocks would keep less than the one that is in force. What its settings keep
/// only its plugin knows.
fn weakened(before: &BindingRow, new: &NewBinding) -> Option<&'static str> {
    if before.mode == Mode::Monitor {
        return None;
    }
    if new.mode == Mode::Monitor {
        return Some("in mode monitor");
    }
    if !is_within(&new.tags, &before.tags) {
        return Some("with more tags");
    }
    let fewer = !new.languages.is_empty() && !is_within(&before.languages, &new.languages);
    let first = !new.languages.is_empty() && before.languages.is_empty();
    (fewer || first).then_some("for fewer languages")
}

fn may_weaken(actor: &Actor, what: Option<&'static str>) -> Result<(), BindError> {
    let Some(what) = what else {
        return Ok(());
    };
    actor
        .require(Permission::Administer)
        .map_err(|denied| BindError::Weaker { denied, what })
}

fn event(kind: EventKind, actor: &Actor, binding: &BindingRow) -> Event {
    let tags: Vec<String> = binding.tags.iter().map(ToString::to_string).collect();
    let languages: Vec<_> = binding.languages.iter().map(|one| one.as_str()).collect();
    Event::by(kind, actor)
        .detail("binding", binding.id.to_string())
        .detail("revision", binding.revision)
        .detail("plugin", binding.plugin.as_str())
        .detail("version", binding.version.as_str())
        .detail("component_sha256", binding.component.to_string())
        .detail("mode", mode(binding.mode))
        .detail("tags", tags)
        .detail("languages", languages)
}

fn mode(mode: Mode) -> Value {
    serde_json::to_value(mode).unwrap_or_default()
}

/// The installed plugin with this id, in its newest version, or with this digest.
pub(crate) fn find(host: &SharedHost, actor: &Actor, plugin: &str) -> Result<PluginRow, BindError> {
    let tenant = actor.tenant.id;
    let found = match as_digest(plugin) {
        Some(digest) => host
            .store
            .read(|conn| plugins::find(conn, tenant, digest))?,
        // The newest version, not the one installed last: installing an old one again is no update.
        None => host
            .store
            .read(|conn| plugins::with_id(conn, tenant, plugin))?
            .into_iter()
            .max_by_key(|row| row.version.parse::<Version>().ok()),
    };
    found.ok_or_else(|| BindError::NoPlugin(plugin.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tag(value: &str) -> TagPair {
        TagPair {
            key: "role".to_owned(),
            value: value.to_owned(),
        }
    }

    fn row(mode: Mode, tags: &[&str], languages: &[Language]) -> BindingRow {
        BindingRow {
            id: BindingId::generate(),
            revision: 1,
            component: sluice_protocol::digest::Digest::of(b"a"),
            plugin: "scanner".to_owned(),
            version: "0.1.0".to_owned(),
            world: "scanner-plugin".to_owned(),
            size: 1,
            signature: Vec::new(),
            settings: Vec::new(),
            mode,
            tags: tags.iter().map(|value| tag(value)).collect(),
            languages: languages.to_vec(),
            limits: GateLimits::default(),
            position: 100,
            created: UnixMillis(0),
            revised: UnixMillis(0),
        }
    }

    fn new(mode: Mode, tags: &[&str], languages: &[Language]) -> NewBinding {
        let row = row(mode, tags, languages);
        NewBinding {
            plugin: row.plugin,
            binding: None,
            settings: BTreeMap::new(),
            mode: row.mode,
            limits: row.limits,
            tags: row.tags,
            languages: row.languages,
            position: row.position,
        }
    }

    #[test]
    fn a_gate_that_blocks_is_weakened_by_its_mode_and_a_narrower_scope_alone() {
        use Language::{Python, Shell};
        use Mode::{Enforce, Monitor};
        let all = || row(Enforce, &[], &[]);
        let web = || row(Enforce, &["web"], &[Shell]);
        for (before, after, weaker) in [
            (all(), new(Enforce, &[], &[]), false),
            (all(), new(Monitor, &[], &[]), true),
            (all(), new(Enforce, &["web"], &[]), true),
            (all(), new(Enforce, &[], &[Shell]), true),
            (web(), new(Enforce, &["web"], &[Shell, Python]), false),
            (web(), new(Enforce, &["web"], &[Python]), true),
            (web(), new(Enforce, &["db"], &[Shell]), true),
            (web(), new(Enforce, &[], &[]), false),
            (
                row(Monitor, &[], &[]),
                new(Monitor, &["web"], &[Shell]),
                false,
            ),
            (row(Monitor, &[], &[]), new(Enforce, &[], &[]), false),
        ] {
            assert_eq!(
                weakened(&before, &after).is_some(),
                weaker,
                "{before:?} {after:?}"
            );
        }
    }
}
