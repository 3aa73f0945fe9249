//! A plugin comes in. Its bytes are read once: what was verified is what is stored, and later compiled.

use std::str::FromStr as _;

use sluice_gate_client::{BindError as ClientError, Component};
use sluice_gate_types::manifest::{Manifest, Version};
use sluice_gate_types::signature::{self, PublicKey, SignatureError};
use sluice_protocol::digest::Digest;
use sluice_protocol::ids::TenantId;

use super::gates::raw;
use crate::audit::{self, Event, EventKind};
use crate::blobs::BlobError;
use crate::clock::UnixMillis;
use crate::host::SharedHost;
use crate::operators::Actor;
use crate::store::plugins::{self, PluginRow};
use crate::store::{StoreError, bindings, blobs, publishers, tenants};

/// A plugin that was installed.
#[derive(Debug, Clone, PartialEq)]
pub struct Installed {
    /// As it is stored.
    pub row: PluginRow,
    /// What it says about itself.
    pub manifest: Manifest,
}

/// Installs a plugin for the operator's tenant. A refusal is recorded with its reason.
///
/// # Errors
///
/// Every reason why it may not be installed.
pub async fn install(
    host: &SharedHost,
    actor: &Actor,
    component: Vec<u8>,
    signature: Vec<u8>,
    now: UnixMillis,
) -> Result<Installed, InstallError> {
    let sha256 = Digest::of(&component);
    let installed = admit(host, actor, component, sha256, signature, now).await;
    if let Err(error) = &installed {
        let event = Event::by(EventKind::PluginRefused, actor)
            .detail("component_sha256", sha256.to_string())
            .detail("reason", error.to_string());
        let tenant = actor.tenant.clone();
        host.store
            .write(move |conn| audit::append(conn, &tenant, now, [event]).map(|_| ()))
            .await?;
    }
    installed
}

async fn admit(
    host: &SharedHost,
    actor: &Actor,
    component: Vec<u8>,
    sha256: Digest,
    signature: Vec<u8>,
    now: UnixMillis,
) -> Result<Installed, InstallError> {
    let trusted = trusted(host, actor.tenant.id)?;
    if trusted.is_empty() {
        return Err(InstallError::NobodyTrusted);
    }
    let signed = signature::verify(&signature, raw(&sha256), &trusted, now.to_wire())?;
    let domain = host
        .gates
        .domain(actor.tenant.id)
        .await
        .map_err(ClientError::Runner)?;
    let inspected = Component::read(component.as_slice()).map_err(ClientError::Runner)?;
    let manifest = domain.inspect(&inspected).await?.manifest;
    let statement = &signed.statement;
    for (what, stated, said) in [
        ("id", statement.id.clone(), manifest.id.clone()),
        (
            "version",
            statement.version.to_string(),
            manifest.version.to_string(),
        ),
        (
            "world",
            statement.world.as_str().to_owned(),
            manifest.world.as_str().to_owned(),
        ),
    ] {
        if stated != said {
            return Err(InstallError::OtherStatement { what, stated, said });
        }
    }
    let size = component.len() as u64;
    host.blobs.put(actor.tenant.id, component).await?;
    let row = PluginRow {
        sha256,
        id: manifest.id.clone(),
        version: manifest.version.to_string(),
        vendor: manifest.vendor.clone(),
        world: manifest.world.as_str().to_owned(),
        description: manifest.description.clone(),
        manifest: serde_json::to_string(&manifest)
            .map_err(|error| InstallError::Manifest(error.to_string()))?,
        publisher: signed.publisher.to_string(),
        minimum_version: Some(statement.minimum_version.to_string()),
        signature,
        size,
        installed: now,
    };
    let (stored, asked, version) = (row.clone(), actor.clone(), manifest.version);
    let is_bound = host
        .store
        .write(move |conn| {
            let tenant = asked.tenant.id;
            let others = plugins::with_id(conn, tenant, &stored.id)?;
            check_against(&others, &stored, version)?;
            blobs::insert(conn, tenant, sha256, size, now)?;
            plugins::insert(conn, tenant, &stored)?;
            // Its publisher may have signed it anew: the machines that have the gate need that before the old one expires.
            let is_bound = bindings::any_is_of(conn, tenant, sha256)?;
            if is_bound {
                tenants::next_gates_revision(conn, tenant)?;
            }
            let event = Event::by(EventKind::PluginInstalled, &asked)
                .detail("plugin", stored.id)
                .detail("version", stored.version)
                .detail("component_sha256", sha256.to_string())
                .detail("publisher", stored.publisher);
            audit::append(conn, &asked.tenant, now, [event])?;
            Ok::<_, InstallError>(is_bound)
        })
        .await?;
    if is_bound {
        super::announce(host, &actor.tenant)?;
    }
    Ok(Installed { row, manifest })
}

/// The publishers whom a tenant trusts.
fn trusted(host: &SharedHost, tenant: TenantId) -> Result<Vec<PublicKey>, StoreError> {
    let trusted = host.store.read(|conn| publishers::list(conn, tenant))?;
    Ok(trusted
        .iter()
        .filter_map(|publisher| publisher.key.parse().ok())
        .collect())
}

/// The version below which the publisher of these plugins of one id lets nobody go back.
fn floor(plugins: &[PluginRow]) -> Option<Version> {
    plugins
        .iter()
        .filter_map(|plugin| Version::from_str(plugin.minimum_version.as_deref()?).ok())
        .max()
}

/// Of one id there is one publisher, and no way back below the version that a publisher asked for.
fn check_against(
    others: &[PluginRow],
    new: &PluginRow,
    version: Version,
) -> Result<(), InstallError> {
    for other in others {
        if other.publisher != new.publisher {
            return Err(InstallError::OtherPublisher {
                id: new.id.clone(),
                publisher: other.publisher.clone(),
            });
        }
        if other.version == new.version && other.sha256 != new.sha256 {
            return Err(InstallError::SameVersion {
                id: new.id.clone(),
                version,
                other: other.sha256,
            });
        }
    }
    if let Some(minimum) = floor(others).filter(|minimum| version < *minimum) {
        return Err(InstallError::Downgrade {
            id: new.id.clone(),
            version,
            minimum,
        });
    }
    Ok(())
}

pub(super) const fn advice(error: &SignatureError) -> &'static str {
    match error {
        SignatureError::Untrusted(_) => " (sluice plugin trust adds one)",
        _ => "",
    }
}

/// A plugin was not installed.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    /// No list of publishers.
    #[error(
        "no publisher is trusted yet; trust the plugin's first (sluice plugin trust ed25519:...); nothing was installed"
    )]
    NobodyTrusted,
    /// The signature says no.
    #[error("{0}{advice}; nothing was installed", advice = advice(.0))]
    Signature(#[from] SignatureError),
    /// The bytes are no plugin, or cannot be looked at.
    #[error("{0}; nothing was installed")]
    Refused(#[from] ClientError),
    /// Signature and manifest disagree.
    #[error(
        "the publisher signed the {what} {stated}, and the plugin says {said}; nothing was installed"
    )]
    OtherStatement {
        /// Which field.
        what: &'static str,
        /// In the signature.
        stated: String,
        /// In the manifest.
        said: String,
    },
    /// Somebody else publishes a plugin of this id here.
    #[error(
        "{id} is installed from the publisher {publisher}; another publisher's cannot take its place; nothing was installed"
    )]
    OtherPublisher {
        /// The plugin.
        id: String,
        /// Whose it is.
        publisher: String,
    },
    /// Below what the publisher accepts.
    #[error(
        "{id} {version} is below {minimum}, the oldest version that its publisher still accepts; nothing was installed"
    )]
    Downgrade {
        /// The plugin.
        id: String,
        /// The version at hand.
        version: Version,
        /// The oldest one.
        minimum: Version,
    },
    /// One version, two files.
    #[error(
        "{id} {version} is installed with other bytes ({other}); a new build needs a new version; nothing was installed"
    )]
    SameVersion {
        /// The plugin.
        id: String,
        /// The version.
        version: Version,
        /// The digest of the installed one.
        other: Digest,
    },
    /// No JSON form: a bug.
    #[error("the manifest cannot be stored: {0}")]
    Manifest(String),
    /// The file system.
    #[error("the plugin could not be stored")]
    Blob(#[from] BlobError),
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plugin(version: &str, minimum: &str, publisher: &str, bytes: &[u8]) -> PluginRow {
        PluginRow {
            sha256: Digest::of(bytes),
            id: "scanner".to_owned(),
            version: version.to_owned(),
            vendor: String::new(),
            world: "scanner-plugin".to_owned(),
            description: String::new(),
            manifest: String::new(),
            publisher: publisher.to_owned(),
            minimum_version: Some(minimum.to_owned()),
            signature: Vec::new(),
            size: 0,
            installed: UnixMillis(0),
        }
    }

    fn against(others: &[PluginRow], new: &PluginRow) -> Result<(), InstallError> {
        check_against(others, new, new.version.parse().expect("a version"))
    }

    #[test]
    fn newer_versions_and_repetitions_are_taken() {
        let old = plugin("1.1.0", "1.0.0", "a", b"1");
        assert!(against(&[], &old).is_ok());
        assert!(against(std::slice::from_ref(&old), &old).is_ok());
        assert!(
            against(
                std::slice::from_ref(&old),
                &plugin("1.2.0", "1.0.0", "a", b"2")
            )
            .is_ok()
        );
        assert!(
            against(
                std::slice::from_ref(&old),
                &plugin("1.0.0", "1.0.0", "a", b"2")
            )
            .is_ok()
        );
    }

    #[test]
    fn downgrades_other_publishers_and_changed_bytes_are_refused() {
        let old = plugin("2.1.0", "2.0.0", "a", b"1");
        let old = std::slice::from_ref(&old);
        assert!(matches!(
            against(old, &plugin("1.9.9", "1.0.0", "a", b"2")),
            Err(InstallError::Downgrade { .. })
        ));
        assert!(matches!(
            against(old, &plugin("3.0.0", "1.0.0", "b", b"2")),
            Err(InstallError::OtherPublisher { .. })
        ));
        assert!(matches!(
            against(old, &plugin("2.1.0", "1.0.0", "a", b"2")),
            Err(InstallError::SameVersion { .. })
        ));
    }
}
