//! A plugin is put to use, or no more.

use std::collections::BTreeMap;

use serde_json::Value;
use sluice_gate_client::BindError as ClientError;
use sluice_gate_types::answer::SettingsProblem;
use sluice_gate_types::input as gate;
use sluice_gate_types::manifest::{Manifest, Version};
use sluice_gate_types::signature::{self, SignatureError};
use sluice_protocol::gates::{Setting, SettingValue};
use sluice_protocol::ids::BindingId;
use sluice_protocol::report::Mode;

use super::gate_set::as_digest;
use super::gates::raw;
use super::install;
use crate::audit::{self, Event, EventKind};
use crate::blobs::BlobError;
use crate::clock::UnixMillis;
use crate::host::SharedHost;
use crate::operators::Actor;
use crate::store::bindings::{self, BindingRow, TagPair};
use crate::store::plugins::{self, PluginRow};
use crate::store::{StoreError, tenants};

/// The most bindings that a tenant may have: a machine's gate set is one message.
const MOST_BINDINGS: usize = 32;
/// The most bytes that a binding's settings may have as JSON.
const LARGEST_SETTINGS: usize = 8 << 10;

/// What is asked for.
#[derive(Debug, Clone, PartialEq)]
pub struct NewBinding {
    /// A plugin's id, or the digest of its component.
    pub plugin: String,
    /// Settings as given.
    pub settings: BTreeMap<String, Value>,
    /// Whether it can block.
    pub mode: Mode,
    /// Only on machines that have all of these.
    pub tags: Vec<TagPair>,
}

/// Binds a plugin: its settings are checked against its schema and by the plugin itself, on the host, before any machine
/// hears of it.
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
    let tenant = actor.tenant.id;
    let plugin = find(host, actor, &new.plugin)?;
    check_publisher(host, actor, &plugin, now)?;
    let settings = checked(&plugin, &new.settings)?;
    if serde_json::to_vec(&settings).map_or(usize::MAX, |json| json.len()) > LARGEST_SETTINGS {
        return Err(BindError::TooLarge);
    }
    let component = host.blobs.component(tenant, plugin.sha256).await?;
    let binding = BindingRow {
        id: BindingId::generate(),
        component: plugin.sha256,
        plugin: plugin.id,
        version: plugin.version,
        world: plugin.world,
        size: plugin.size,
        signature: plugin.signature,
        settings,
        mode: new.mode,
        tags: new.tags,
        created: now,
    };
    host.gates
        .try_binding(
            tenant,
            binding.id,
            component,
            &binding.settings,
            binding.mode,
        )
        .await?;
    let (row, asked) = (binding.clone(), actor.clone());
    let stored = host
        .store
        .write(move |conn| {
            if bindings::list(conn, tenant)?.len() >= MOST_BINDINGS {
                return Err(BindError::TooMany);
            }
            bindings::insert(conn, tenant, &row, &asked.name)?;
            let revision = tenants::next_gates_revision(conn, tenant)?;
            audit::append(
                conn,
                &asked.tenant,
                now,
                [event(EventKind::PluginBound, &asked, &row, revision)],
            )?;
            Ok(())
        })
        .await;
    if let Err(error) = stored {
        host.gates.forget(tenant, binding.id).await;
        return Err(error);
    }
    super::announce(host, &actor.tenant)?;
    Ok(binding)
}

/// Removes a binding.
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
            let revision = tenants::next_gates_revision(conn, asked.tenant.id)?;
            audit::append(
                conn,
                &asked.tenant,
                now,
                [event(EventKind::PluginUnbound, &asked, &row, revision)],
            )?;
            Ok::<_, BindError>(())
        })
        .await?;
    host.gates.forget(actor.tenant.id, id).await;
    super::announce(host, &actor.tenant)?;
    Ok(())
}

fn event(kind: EventKind, actor: &Actor, binding: &BindingRow, revision: u64) -> Event {
    let tags: Vec<String> = binding
        .tags
        .iter()
        .map(|tag| format!("{}={}", tag.key, tag.value))
        .collect();
    Event::by(kind, actor)
        .detail("binding", binding.id.to_string())
        .detail("plugin", binding.plugin.as_str())
        .detail("version", binding.version.as_str())
        .detail("component_sha256", binding.component.to_string())
        .detail(
            "mode",
            serde_json::to_value(binding.mode).unwrap_or_default(),
        )
        .detail("tags", tags)
        .detail("gates_revision", revision)
}

fn find(host: &SharedHost, actor: &Actor, plugin: &str) -> Result<PluginRow, BindError> {
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
            .max_by_key(|row| {
                row.version
                    .parse::<sluice_gate_types::manifest::Version>()
                    .ok()
            }),
    };
    found.ok_or_else(|| BindError::NoPlugin(plugin.to_owned()))
}

/// What every machine asks before it takes a gate, and would block operations over.
fn check_publisher(
    host: &SharedHost,
    actor: &Actor,
    plugin: &PluginRow,
    now: UnixMillis,
) -> Result<(), BindError> {
    let tenant = actor.tenant.id;
    let trusted = install::trusted(host, tenant)?;
    let digest = raw(&plugin.sha256);
    let signed = signature::verify(&plugin.signature, digest, &trusted, now.to_wire())?;
    let version = signed.statement.version;
    let others = host
        .store
        .read(|conn| plugins::with_id(conn, tenant, &plugin.id))?;
    match install::floor(&others) {
        Some(minimum) if version < minimum => Err(BindError::Downgrade {
            id: plugin.id.clone(),
            version,
            minimum,
        }),
        _ => Ok(()),
    }
}

/// The settings with defaults, or everything that is wrong with them.
fn checked(plugin: &PluginRow, given: &BTreeMap<String, Value>) -> Result<Vec<Setting>, BindError> {
    let manifest: Manifest = serde_json::from_str(&plugin.manifest)
        .map_err(|error| BindError::Manifest(error.to_string()))?;
    let mut values = Vec::new();
    for (key, value) in given {
        values.push((
            key.clone(),
            from_json(value).ok_or_else(|| BindError::SettingType(key.clone()))?,
        ));
    }
    let settings = manifest.settings(&values).map_err(BindError::Settings)?;
    settings
        .into_iter()
        .map(|attribute| {
            let value = match attribute.value {
                gate::Value::Boolean(value) => SettingValue::Boolean(value),
                gate::Value::Integer(value) => SettingValue::Integer(value),
                gate::Value::Decimal(value) => SettingValue::Decimal(value),
                gate::Value::Text(value) => SettingValue::Text(value),
                gate::Value::Texts(value) => SettingValue::Texts(value),
                gate::Value::Bytes(_) | gate::Value::Secret(_) => {
                    return Err(BindError::SettingType(attribute.key));
                }
            };
            Ok(Setting {
                key: attribute.key,
                value,
            })
        })
        .collect()
}

fn from_json(value: &Value) -> Option<gate::Value> {
    Some(match value {
        Value::Bool(value) => gate::Value::Boolean(*value),
        Value::Number(number) => match number.as_i64() {
            Some(integer) => gate::Value::Integer(integer),
            None => gate::Value::Decimal(number.as_f64().filter(|number| number.is_finite())?),
        },
        Value::String(text) => gate::Value::Text(text.clone()),
        Value::Array(items) => gate::Value::Texts(
            items
                .iter()
                .map(|item| item.as_str().map(str::to_owned))
                .collect::<Option<_>>()?,
        ),
        Value::Null | Value::Object(_) => return None,
    })
}

/// A binding was not made or removed.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Unknown, or another tenant's: the answer is the same.
    #[error("no plugin {} is installed; install it first (sluice plugin install)", .0.escape_debug())]
    NoPlugin(String),
    /// Unknown, or another tenant's.
    #[error("there is no binding {0}")]
    NoBinding(BindingId),
    /// Its publisher is not trusted any more, or its signature is no longer good.
    #[error("{0}{advice}; nothing was bound", advice = install::advice(.0))]
    Signature(#[from] SignatureError),
    /// A newer one has come, whose publisher lets nobody go back.
    #[error(
        "{id} {version} may not be used any more: its publisher lets nobody go back below {minimum}, and no machine takes it; nothing was bound"
    )]
    Downgrade {
        /// The plugin.
        id: String,
        /// What was asked for.
        version: Version,
        /// What is needed.
        minimum: Version,
    },
    /// More bindings than one message carries.
    #[error("a tenant has at most {MOST_BINDINGS} bindings; unbind one first; nothing was bound")]
    TooMany,
    /// Larger settings than one message carries.
    #[error("the settings have more than {LARGEST_SETTINGS} bytes; nothing was bound")]
    TooLarge,
    /// A setting of a type that no setting has.
    #[error("the setting {} must be text, a number, true or false, or a list of texts; nothing was bound", .0.escape_debug())]
    SettingType(String),
    /// The schema says no.
    #[error("the settings are not valid: {}; nothing was bound", join(.0))]
    Settings(Vec<SettingsProblem>),
    /// The plugin itself says no, or cannot be asked.
    #[error("{0}; nothing was bound")]
    Refused(#[from] ClientError),
    /// The stored manifest cannot be read.
    #[error("the stored manifest cannot be read: {0}")]
    Manifest(String),
    /// The file system.
    #[error("the plugin's bytes cannot be read")]
    Blob(#[from] BlobError),
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
}

fn join(problems: &[SettingsProblem]) -> String {
    problems
        .iter()
        .map(|problem| format!("{} {}", problem.key, problem.message))
        .collect::<Vec<_>>()
        .join("; ")
}
