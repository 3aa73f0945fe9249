//! Which gates a machine gets from this host, and telling it.

use std::str::FromStr as _;

use sluice_protocol::gates::{GateBinding, GateSet};
use sluice_protocol::ids::MachineId;

use crate::fleet::Command;
use crate::host::SharedHost;
use crate::store::bindings::{self, BindingRow, TagPair};
use crate::store::tenants::{self, Tenant};
use crate::store::{Connection, StoreError, machines, publishers};

/// Whether a binding is for a machine with these tags.
#[must_use]
pub fn applies(binding: &BindingRow, tags: &[TagPair]) -> bool {
    binding.tags.iter().all(|tag| tags.contains(tag))
}

/// The gates that a machine gets. Its order is that of the stages, then of the bindings' positions, then of their age.
///
/// # Errors
///
/// Where the database cannot be read.
pub fn of_machine(
    conn: &Connection,
    tenant: &Tenant,
    machine: MachineId,
) -> Result<GateSet, StoreError> {
    let revision = tenants::gates_revision(conn, tenant.id)?;
    let tags = machines::tags(conn, machine)?;
    let mut rows = bindings::list(conn, tenant.id)?;
    let publishers = publishers::list(conn, tenant.id)?;
    rows.retain(|binding| applies(binding, &tags));
    rows.sort_by_key(|binding| stage(&binding.world));
    Ok(GateSet {
        revision,
        publishers: publishers
            .into_iter()
            .map(|publisher| publisher.key)
            .collect(),
        bindings: rows
            .into_iter()
            .map(|row| GateBinding {
                binding: row.id,
                revision: row.revision,
                plugin: row.plugin,
                component: row.component,
                size: row.size,
                signature: row.signature,
                settings: row.settings,
                mode: row.mode,
                limits: row.limits,
                languages: row.languages,
            })
            .collect(),
    })
}

/// Tells every connected machine of a tenant what its gates are now.
///
/// # Errors
///
/// Where the database cannot be read. The machines learn it when they connect again, and an operation that was checked
/// with later gates waits for that.
pub fn announce(host: &SharedHost, tenant: &Tenant) -> Result<(), StoreError> {
    for session in host.presence.of_tenant(tenant.id) {
        let gates = host
            .store
            .read(|conn| of_machine(conn, tenant, session.machine))?;
        session.send(Command::Gates(Box::new(gates)));
    }
    Ok(())
}

/// The place of a world in the order of the stages.
fn stage(world: &str) -> usize {
    use sluice_gate_types::manifest::World;
    World::ALL
        .iter()
        .position(|known| known.as_str() == world)
        .unwrap_or(usize::MAX)
}

/// The name of a world as operators read it: that of its interface.
#[must_use]
pub fn interface(world: &str) -> String {
    use sluice_gate_types::manifest::World;
    World::ALL
        .iter()
        .find(|known| known.as_str() == world)
        .map_or_else(|| world.to_owned(), |world| world.interface().to_owned())
}

/// A digest, or else a plugin's id.
pub(super) fn as_digest(text: &str) -> Option<sluice_protocol::digest::Digest> {
    sluice_protocol::digest::Digest::from_str(text).ok()
}
