//! The authority of a provider's hosts: made once, kept in one folder.
//!
//! | file | mode | what |
//! |---|---|---|
//! | `root.pem` | 0644 | the root certificate, whose SHA-256 is in every enrollment token |
//! | `root.key` | 0600 | its key; needed for new intermediates alone, so it can be taken offline |
//! | `hosts.pem`, `hosts.key` | 0644, 0600 | the intermediate that issues for servers |
//! | `agents.pem`, `agents.key` | 0644, 0600 | the intermediate that issues for machines |

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use aws_lc_rs::hmac;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyUsagePurpose, PublicKeyData as _,
};
use rustls::pki_types::CertificateDer;
use sluice_protocol::digest::Digest;
use zeroize::Zeroizing;

use super::files::{self, Secrecy, StoreError};
use super::issue::{Validity, random_serial};
use super::pem;
use super::private_key::PrivateKey;
use super::verify::CertificateFacts;

const ROOT_LIFE: Duration = Duration::from_secs(3652 * 24 * 60 * 60);
const INTERMEDIATE_LIFE: Duration = Duration::from_secs(1826 * 24 * 60 * 60);

/// The authority that hosts work with: the root's certificate, and both intermediates with their keys. A cheap handle.
#[derive(Clone)]
pub struct Authority(pub(super) Arc<Parts>);

pub(super) struct Parts {
    pub(super) root: CertificateDer<'static>,
    pub(super) hosts: Intermediate,
    pub(super) agents: Intermediate,
}

pub(super) struct Intermediate {
    pub(super) certificate: CertificateDer<'static>,
    pub(super) issuer: Issuer<'static, PrivateKey>,
}

impl Authority {
    /// Makes the folder `path` (0700) with a new root (10 years) and both intermediates (5 years).
    ///
    /// # Errors
    ///
    /// Where there is one already, or it cannot be written. Nothing is left behind then.
    pub fn create(path: &Path) -> Result<Self, StoreError> {
        let now = SystemTime::now();
        let root_key = PrivateKey::generate()?;
        let root_params = authority_params("Sluice root", None, Validity::new(now, ROOT_LIFE))?;
        let root = root_params.self_signed(&root_key)?.der().clone();
        let root_issuer = Issuer::new(root_params, root_key);
        let hosts = Self::intermediate(
            "Sluice hosts",
            ExtendedKeyUsagePurpose::ServerAuth,
            now,
            &root_issuer,
        )?;
        let agents = Self::intermediate(
            "Sluice agents",
            ExtendedKeyUsagePurpose::ClientAuth,
            now,
            &root_issuer,
        )?;
        let certificate = |der: &CertificateDer<'_>| pem::encode(pem::CERTIFICATE, der);
        let key = |key: &PrivateKey| pem::encode(pem::PRIVATE_KEY, key.pkcs8());
        files::create(
            path,
            &[
                (ROOT.certificate, Secrecy::Public, &certificate(&root)),
                (ROOT.key, Secrecy::Secret, &key(root_issuer.key())),
                (
                    HOSTS.certificate,
                    Secrecy::Public,
                    &certificate(&hosts.certificate),
                ),
                (HOSTS.key, Secrecy::Secret, &key(hosts.issuer.key())),
                (
                    AGENTS.certificate,
                    Secrecy::Public,
                    &certificate(&agents.certificate),
                ),
                (AGENTS.key, Secrecy::Secret, &key(agents.issuer.key())),
            ],
        )?;
        Ok(Self(Arc::new(Parts {
            root,
            hosts,
            agents,
        })))
    }

    /// Reads the folder. `root.key` is not read and need not be there.
    ///
    /// # Errors
    ///
    /// Where a file is missing, can be read by others, or does not fit its neighbor.
    pub fn load(path: &Path) -> Result<Self, StoreError> {
        files::check_private(path, 0o700)?;
        let root = read_certificate(&path.join(ROOT.certificate))?;
        Ok(Self(Arc::new(Parts {
            root,
            hosts: Intermediate::load(path, &HOSTS)?,
            agents: Intermediate::load(path, &AGENTS)?,
        })))
    }

    /// The SHA-256 of the root certificate's DER: what a token pins.
    #[must_use]
    pub fn root_fingerprint(&self) -> Digest {
        Digest::of(&self.0.root)
    }

    /// DER of the root certificate.
    #[must_use]
    pub fn root_der(&self) -> &[u8] {
        &self.0.root
    }

    /// The root certificate as text, for clients of the API.
    #[must_use]
    pub fn root_pem(&self) -> String {
        pem::encode(pem::CERTIFICATE, &self.0.root).to_string()
    }

    pub(crate) fn agents_certificate(&self) -> &CertificateDer<'static> {
        &self.0.agents.certificate
    }

    /// What only this authority's hosts have, for a purpose that `label` says: the same after a restart.
    pub(crate) fn secret(&self, label: &[u8]) -> hmac::Tag {
        let key = hmac::Key::new(hmac::HMAC_SHA256, self.0.hosts.issuer.key().pkcs8());
        hmac::sign(&key, label)
    }

    fn intermediate(
        name: &str,
        usage: ExtendedKeyUsagePurpose,
        now: SystemTime,
        root: &Issuer<'_, PrivateKey>,
    ) -> Result<Intermediate, StoreError> {
        let key = PrivateKey::generate()?;
        let params = authority_params(name, Some(usage), Validity::new(now, INTERMEDIATE_LIFE))?;
        let certificate = params.signed_by(&key, root)?.der().clone();
        Ok(Intermediate {
            certificate,
            issuer: Issuer::new(params, key),
        })
    }
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority")
            .field("root", &self.root_fingerprint())
            .finish_non_exhaustive()
    }
}

impl Intermediate {
    fn load(folder: &Path, names: &Files) -> Result<Self, StoreError> {
        let key_path = folder.join(names.key);
        files::check_private(&key_path, 0o600)?;
        let malformed = |reason: String| StoreError::Malformed {
            path: key_path.clone(),
            reason,
        };
        let text = Zeroizing::new(files::read(&key_path)?);
        let key = PrivateKey::from_pkcs8(pem::key(&text).map_err(malformed)?)
            .map_err(|error| malformed(error.to_string()))?;
        let path = folder.join(names.certificate);
        let certificate = read_certificate(&path)?;
        let facts = CertificateFacts::read(&certificate).ok_or_else(|| StoreError::Malformed {
            path: path.clone(),
            reason: "not a certificate".to_owned(),
        })?;
        if facts.public_key != key.subject_public_key_info() {
            return Err(malformed(format!("not the key of {}", path.display())));
        }
        if facts.expires <= SystemTime::now() {
            return Err(StoreError::Malformed {
                path,
                reason: "it has expired".to_owned(),
            });
        }
        let issuer = Issuer::from_ca_cert_der(&certificate, key)?;
        Ok(Self {
            certificate,
            issuer,
        })
    }
}

fn read_certificate(path: &Path) -> Result<CertificateDer<'static>, StoreError> {
    pem::certificate(&files::read(path)?).map_err(|reason| StoreError::Malformed {
        path: path.to_owned(),
        reason,
    })
}

/// A certificate that may issue: the root, intermediates below it, and (path length 0) nothing that issues below those.
fn authority_params(
    name: &str,
    usage: Option<ExtendedKeyUsagePurpose>,
    validity: Validity,
) -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    // Authorities are told apart by name too, where several are about.
    let serial = random_serial()?;
    params.distinguished_name.push(
        DnType::CommonName,
        format!("{name} {}", serial.to_string().replace(':', "")),
    );
    params.serial_number = Some(serial);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(if usage.is_some() {
        0
    } else {
        1
    }));
    params.key_usages = vec![
        KeyUsagePurpose::KeyCertSign,
        KeyUsagePurpose::DigitalSignature,
    ];
    params.extended_key_usages = usage.into_iter().collect();
    params.use_authority_key_identifier_extension = true;
    validity.apply(&mut params);
    Ok(params)
}

struct Files {
    certificate: &'static str,
    key: &'static str,
}

const ROOT: Files = Files {
    certificate: "root.pem",
    key: "root.key",
};
const HOSTS: Files = Files {
    certificate: "hosts.pem",
    key: "hosts.key",
};
const AGENTS: Files = Files {
    certificate: "agents.pem",
    key: "agents.key",
};

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn an_authority_is_private_is_made_once_and_works_without_its_root_key() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let path = folder.path().join("authority");
        let made = Authority::create(&path).expect("makes");
        let mode = |name: &str| {
            fs::metadata(path.join(name))
                .expect("exists")
                .permissions()
                .mode()
                & 0o777
        };
        assert_eq!(mode(""), 0o700);
        for name in ["root.key", "hosts.key", "agents.key"] {
            assert_eq!(mode(name), 0o600, "{name}");
        }
        assert!(matches!(
            Authority::create(&path),
            Err(StoreError::Exists { .. })
        ));
        assert_eq!(
            fs::read_dir(folder.path()).expect("reads").count(),
            1,
            "nothing is left beside it"
        );

        fs::remove_file(path.join("root.key")).expect("removes");
        let loaded = Authority::load(&path).expect("loads");
        assert_eq!(loaded.root_fingerprint(), made.root_fingerprint());
        assert_eq!(Digest::of(loaded.root_der()), loaded.root_fingerprint());
        let secret = |of: &Authority, label: &[u8]| of.secret(label).as_ref().to_vec();
        assert_eq!(secret(&loaded, b"one"), secret(&made, b"one"));
        assert_ne!(secret(&loaded, b"one"), secret(&made, b"two"));
        assert!(
            loaded
                .root_pem()
                .starts_with("-----BEGIN CERTIFICATE-----\n")
        );
    }

    #[test]
    fn a_folder_that_others_can_read_or_that_does_not_fit_together_is_refused() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let path = folder.path().join("authority");
        Authority::create(&path).expect("makes");
        let chmod = |name: &str, mode| {
            fs::set_permissions(path.join(name), fs::Permissions::from_mode(mode))
                .expect("sets the mode");
        };
        chmod("hosts.key", 0o640);
        assert!(matches!(
            Authority::load(&path),
            Err(StoreError::Exposed { mode: 0o640, .. })
        ));
        chmod("hosts.key", 0o600);
        chmod("", 0o755);
        assert!(matches!(
            Authority::load(&path),
            Err(StoreError::Exposed { mode: 0o755, .. })
        ));
        chmod("", 0o700);
        fs::copy(path.join("agents.key"), path.join("hosts.key")).expect("copies");
        assert!(matches!(
            Authority::load(&path),
            Err(StoreError::Malformed { .. })
        ));
        fs::remove_file(path.join("hosts.key")).expect("removes");
        assert!(matches!(Authority::load(&path), Err(StoreError::Io { .. })));
    }
}
