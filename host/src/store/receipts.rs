//! What machines signed of their receipts, and the settings that gates were asked with.

use sluice_database::rusqlite::{Connection, params};
use sluice_protocol::codec::EncodeError;
use sluice_protocol::digest::Digest;
use sluice_protocol::gates::Setting;
use sluice_protocol::ids::{MachineId, OperationId, TenantId};
use sluice_protocol::receipt::{Receipt, Subject, statement};
use sluice_transport::identity::is_signed;

use super::StoreError;
use super::row::{bytes, bytes_or_null, change, exists, first, from_json, parsed, to_json};
use crate::receipts::{Verified, settings_digest};

/// Which report of an operation has the receipts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum In {
    /// The one that counts.
    Report,
    /// The one that came after the host had given the operation up.
    LateReport,
    /// None yet: they came ahead of it, and are in none that is stored.
    Ahead,
}

impl In {
    const fn to_column(self) -> i64 {
        match self {
            Self::Report => 0,
            Self::LateReport => 1,
            Self::Ahead => 2,
        }
    }

    fn of_column(late: i64) -> Result<Self, StoreError> {
        match late {
            0 => Ok(Self::Report),
            1 => Ok(Self::LateReport),
            2 => Ok(Self::Ahead),
            other => Err(StoreError::Corrupt(format!("late: {other}"))),
        }
    }
}

/// What a machine signed of an operation's receipts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedRow {
    /// Where the receipts are.
    pub place: In,
    /// Which machine.
    pub machine: MachineId,
    /// What was verified, and is to be verified again by whoever wants to.
    pub verified: Verified,
}

impl SignedRow {
    /// What the machine signed, where these are the receipts.
    ///
    /// # Errors
    ///
    /// As [`statement`].
    pub fn statement(
        &self,
        tenant: TenantId,
        operation: OperationId,
        receipts: &[Receipt],
    ) -> Result<Vec<u8>, EncodeError> {
        let subject = Subject {
            tenant,
            machine: self.machine,
            operation,
        };
        let inputs = self.verified.inputs.as_deref().map(Digest::of);
        statement(subject, receipts, inputs)
    }

    /// Whether it is these receipts that were signed.
    #[must_use]
    pub fn is_of(&self, tenant: TenantId, operation: OperationId, receipts: &[Receipt]) -> bool {
        let Verified {
            signature,
            certificate,
            ..
        } = &self.verified;
        self.statement(tenant, operation, receipts)
            .is_ok_and(|statement| is_signed(certificate, &statement, signature))
    }
}

/// Stores it. The first one stays, but what came ahead of its report gives way to what came with it.
///
/// # Errors
///
/// Where the database cannot be written.
pub fn insert(
    conn: &Connection,
    tenant: TenantId,
    machine: MachineId,
    operation: OperationId,
    place: In,
    verified: &Verified,
) -> Result<(), StoreError> {
    let certificate = Digest::of(&verified.certificate).to_string();
    change(
        conn,
        "INSERT INTO machine_certificates (sha256, tenant, machine, certificate) VALUES (?, ?, ?, ?)
         ON CONFLICT DO NOTHING",
        params![
            certificate,
            tenant.to_string(),
            machine.to_string(),
            verified.certificate
        ],
    )?;
    change(
        conn,
        "INSERT INTO receipts (operation, tenant, machine, late, signature, certificate, inputs)
         VALUES (?, ?, ?, ?, ?, ?, ?)
         ON CONFLICT (operation) DO UPDATE SET late = excluded.late, signature = excluded.signature,
             certificate = excluded.certificate, inputs = excluded.inputs WHERE late = 2",
        params![
            operation.to_string(),
            tenant.to_string(),
            machine.to_string(),
            place.to_column(),
            verified.signature,
            certificate,
            verified.inputs,
        ],
    )?;
    Ok(())
}

/// The report is here of an operation whose receipts came ahead of it.
///
/// # Errors
///
/// Where the database cannot be written.
pub fn settle(conn: &Connection, operation: OperationId, place: In) -> Result<(), StoreError> {
    change(
        conn,
        "UPDATE receipts SET late = ? WHERE operation = ? AND late = 2",
        params![place.to_column(), operation.to_string()],
    )?;
    Ok(())
}

/// Whether something that was signed of this operation's receipts is stored.
///
/// # Errors
///
/// Where the database cannot be read.
pub fn is_there(conn: &Connection, operation: OperationId) -> Result<bool, StoreError> {
    exists(
        conn,
        "SELECT 1 FROM receipts WHERE operation = ?",
        params![operation.to_string()],
    )
}

/// What was signed of the receipts of the tenant's operation.
///
/// # Errors
///
/// Where the database cannot be read.
pub fn find(
    conn: &Connection,
    tenant: TenantId,
    operation: OperationId,
) -> Result<Option<SignedRow>, StoreError> {
    first(
        conn,
        "SELECT r.*, c.certificate AS der FROM receipts r JOIN machine_certificates c ON c.sha256 = r.certificate
         WHERE r.tenant = ? AND r.operation = ?",
        params![tenant.to_string(), operation.to_string()],
        |row| {
            Ok(SignedRow {
                place: In::of_column(row.get("late")?)?,
                machine: parsed(row, "machine")?,
                verified: Verified {
                    signature: bytes(row, "signature")?.to_vec(),
                    certificate: bytes(row, "der")?.to_vec(),
                    inputs: bytes_or_null(row, "inputs")?.map(<[u8]>::to_vec),
                },
            })
        },
    )
}

/// Remembers settings that a plugin is bound with.
///
/// # Errors
///
/// Where the database cannot be written.
pub fn remember_settings(
    conn: &Connection,
    tenant: TenantId,
    settings: &[Setting],
) -> Result<(), StoreError> {
    change(
        conn,
        "INSERT INTO bound_settings (tenant, sha256, settings) VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
        params![
            tenant.to_string(),
            settings_digest(settings)?.to_string(),
            to_json(settings)?
        ],
    )?;
    Ok(())
}

/// The settings with this digest that the tenant has, or had, a plugin bound with.
///
/// # Errors
///
/// Where the database cannot be read.
pub fn settings(
    conn: &Connection,
    tenant: TenantId,
    sha256: Digest,
) -> Result<Option<Vec<Setting>>, StoreError> {
    first(
        conn,
        "SELECT settings FROM bound_settings WHERE tenant = ? AND sha256 = ?",
        params![tenant.to_string(), sha256.to_string()],
        |row| from_json(row, "settings"),
    )
}
