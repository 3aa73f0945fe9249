//! What every machine asks of a plugin before it takes a gate, and would block operations over.

use std::collections::HashMap;
use std::str::FromStr as _;

use sluice_gate_types::manifest::Version;
use sluice_gate_types::signature::{PublicKey, Remembered, SignatureError};
use sluice_protocol::digest::Digest;
use sluice_protocol::ids::TenantId;

use super::gates::raw;
use crate::clock::UnixMillis;
use crate::store::bindings::{self, BindingRow};
use crate::store::{Connection, StoreError, publishers};

/// Whom a tenant trusts, and how far back it goes, at one moment.
#[derive(Debug)]
pub(crate) struct Judge {
    trusted: Vec<PublicKey>,
    /// By the id of a plugin: the version below which its publisher lets nobody go back who took what was taken here.
    minimums: HashMap<String, Version>,
}

impl Judge {
    /// What there is to know of these plugins.
    pub(crate) fn read<'a>(
        conn: &Connection,
        tenant: TenantId,
        plugins: impl IntoIterator<Item = &'a str>,
    ) -> Result<Self, StoreError> {
        let trusted = publishers::list(conn, tenant)?;
        let mut minimums = HashMap::new();
        for plugin in plugins {
            if minimums.contains_key(plugin) {
                continue;
            }
            let stated = bindings::minimum_versions(conn, tenant, plugin)?;
            let minimum = stated
                .iter()
                .filter_map(|stated| Version::from_str(stated).ok())
                .max();
            minimums.extend(minimum.map(|minimum| (plugin.to_owned(), minimum)));
        }
        Ok(Self {
            trusted: trusted
                .iter()
                .filter_map(|publisher| publisher.key.parse().ok())
                .collect(),
            minimums,
        })
    }

    /// Whether a component may be asked now, by what its publisher states.
    pub(crate) fn of(
        &self,
        remembered: &Remembered,
        plugin: &str,
        component: Digest,
        signature: &[u8],
        now: UnixMillis,
    ) -> Result<(), NotAllowed> {
        let signed = remembered.verify(signature, raw(&component), &self.trusted, now.to_wire())?;
        let version = signed.statement.version;
        match self.minimums.get(plugin) {
            Some(minimum) if version < *minimum => Err(NotAllowed::Downgrade {
                id: plugin.to_owned(),
                version,
                minimum: *minimum,
            }),
            _ => Ok(()),
        }
    }

    /// The same of what is bound.
    pub(crate) fn of_binding(
        &self,
        remembered: &Remembered,
        binding: &BindingRow,
        now: UnixMillis,
    ) -> Result<(), NotAllowed> {
        self.of(
            remembered,
            &binding.plugin,
            binding.component,
            &binding.signature,
            now,
        )
    }
}

/// Why no machine would take it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotAllowed {
    /// Its publisher is not trusted any more, or its signature is no longer good.
    #[error(transparent)]
    Signature(#[from] SignatureError),
    /// A newer one was put to use, whose publisher lets nobody go back.
    #[error(
        "version {version} of {id} is older than {minimum}, below which its publisher lets nobody go back"
    )]
    Downgrade {
        /// The plugin.
        id: String,
        /// Its version.
        version: Version,
        /// What is needed.
        minimum: Version,
    },
}
