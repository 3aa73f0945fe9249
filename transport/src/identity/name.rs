//! What a certificate says about its holder: exactly one URI among its alternative names, in exactly one form.

use std::fmt;
use std::str::FromStr;

use sluice_protocol::ids::{HostId, MachineId, TenantId};
use x509_parser::extensions::GeneralName;

/// The name that agents ask for, in every host certificate. Addresses change; which host is meant follows from the pinned
/// root, so the name is the same everywhere. `.invalid` never resolves (RFC 2606).
pub const HOST_SERVER_NAME: &str = "host.sluice.invalid";

const MACHINE: &str = "sluice://machine/";
const HOST: &str = "sluice://host/";

/// A machine and the tenant that it belongs to. From a verified certificate, never from a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct MachineIdentity {
    /// The tenant.
    pub tenant: TenantId,
    /// The machine.
    pub machine: MachineId,
}

impl fmt::Display for MachineIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{MACHINE}{}/{}", self.tenant, self.machine)
    }
}

impl FromStr for MachineIdentity {
    type Err = InvalidName;

    fn from_str(uri: &str) -> Result<Self, InvalidName> {
        let (tenant, machine) = uri
            .strip_prefix(MACHINE)
            .and_then(|rest| rest.split_once('/'))
            .ok_or(InvalidName::NotAMachine)?;
        Ok(Self {
            tenant: tenant.parse().map_err(|_| InvalidName::NotAMachine)?,
            machine: machine.parse().map_err(|_| InvalidName::NotAMachine)?,
        })
    }
}

/// The URI of a host.
pub(crate) fn host_uri(host: HostId) -> String {
    format!("{HOST}{host}")
}

/// The machine that the certificate (DER) names. This reads and does not verify.
///
/// # Errors
///
/// Where the certificate does not have exactly one URI, of the exact form of a machine's.
pub fn machine_of(certificate: &[u8]) -> Result<MachineIdentity, InvalidName> {
    the_uri(certificate)?.parse()
}

/// The host that the certificate (DER) names. This reads and does not verify.
///
/// # Errors
///
/// Where the certificate does not have exactly one URI, of the exact form of a host's.
pub fn host_of(certificate: &[u8]) -> Result<HostId, InvalidName> {
    let uri = the_uri(certificate)?;
    uri.strip_prefix(HOST)
        .and_then(|id| id.parse().ok())
        .ok_or(InvalidName::NotAHost)
}

fn the_uri(certificate: &[u8]) -> Result<String, InvalidName> {
    let (rest, certificate) =
        x509_parser::parse_x509_certificate(certificate).map_err(|_| InvalidName::Malformed)?;
    if !rest.is_empty() {
        return Err(InvalidName::Malformed);
    }
    let names = certificate
        .subject_alternative_name()
        .map_err(|_| InvalidName::Malformed)?;
    let names = names
        .map(|extension| extension.value.general_names.as_slice())
        .unwrap_or_default();
    let mut uris = names.iter().filter_map(|name| match name {
        GeneralName::URI(uri) => Some(*uri),
        _ => None,
    });
    match (uris.next(), uris.next()) {
        (Some(uri), None) => Ok(uri.to_owned()),
        _ => Err(InvalidName::NotOneUri),
    }
}

/// A certificate does not name whom it should.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidName {
    /// It cannot be read.
    #[error("the certificate cannot be read")]
    Malformed,
    /// None, or several.
    #[error("the certificate does not have exactly one URI")]
    NotOneUri,
    /// The URI is not a machine's.
    #[error(
        "the certificate is not a machine's (its URI is not of the form {MACHINE}<tenant>/<machine>)"
    )]
    NotAMachine,
    /// The URI is not a host's.
    #[error("the certificate is not a host's (its URI is not of the form {HOST}<id>)")]
    NotAHost,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_has_one_spelling() {
        let identity = MachineIdentity {
            tenant: TenantId::generate(),
            machine: MachineId::generate(),
        };
        let uri = identity.to_string();
        assert_eq!(uri.parse(), Ok(identity));
        let others = [
            uri.to_uppercase(),
            uri.replace("machine", "host"),
            uri.replace("sluice", "https"),
            uri.replace("machine/", "machine//"),
            format!("{uri}/"),
            format!("{uri}?x"),
            format!(" {uri}"),
            format!("{MACHINE}{}", identity.machine),
            format!("{MACHINE}{}/../{}", identity.tenant, identity.machine),
        ];
        for other in others {
            assert_eq!(
                other.parse::<MachineIdentity>(),
                Err(InvalidName::NotAMachine),
                "{other}"
            );
        }
    }
}
