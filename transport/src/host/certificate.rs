//! The certificate that a host shows. Issued by the host's own authority, and anew when half of its life is over, so that
//! a host that runs for long needs no one to think of it.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use sluice_protocol::ids::HostId;
use sluice_protocol::message::ALPN_ENROLL;

use crate::identity::{Authority, crypto_provider};
use crate::surroundings;

pub(super) struct HostCertificates {
    authority: Authority,
    host: HostId,
    current: Mutex<Current>,
}

#[derive(Clone)]
struct Current {
    /// Leaf and intermediate, for machines, which have the root.
    machines: Arc<CertifiedKey>,
    /// The root too, for those who know its fingerprint alone.
    enrollment: Arc<CertifiedKey>,
    issued_at: SystemTime,
    renew_at: SystemTime,
}

impl HostCertificates {
    pub(super) fn new(authority: Authority, host: HostId) -> Result<Self, String> {
        let current = Mutex::new(issue(&authority, host, surroundings::now())?);
        Ok(Self {
            authority,
            host,
            current,
        })
    }

    /// The certificate to show at `now`.
    fn current(&self, now: SystemTime) -> Current {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        // One from the future was issued by a clock that was wrong; nobody would take it before its time.
        if now >= current.renew_at || now < current.issued_at {
            match issue(&self.authority, self.host, now) {
                Ok(renewed) => *current = renewed,
                // The old one is still good for as long again.
                Err(error) => tracing::error!(%error, "cannot renew the certificate of this host"),
            }
        }
        current.clone()
    }
}

fn issue(authority: &Authority, host: HostId, now: SystemTime) -> Result<Current, String> {
    let issued = authority
        .issue_host(host, now)
        .map_err(|error| error.to_string())?;
    let key = PrivatePkcs8KeyDer::from(issued.key.as_slice()).clone_key();
    let key = crypto_provider()
        .key_provider
        .load_private_key(key.into())
        .map_err(|error| error.to_string())?;
    let chain: Vec<CertificateDer<'static>> = issued
        .chain
        .iter()
        .cloned()
        .map(CertificateDer::from)
        .collect();
    let mut whole = chain.clone();
    whole.push(CertificateDer::from(authority.root_der().to_vec()));
    let life = issued.expires.duration_since(now).unwrap_or_default();
    Ok(Current {
        machines: Arc::new(CertifiedKey::new(chain, Arc::clone(&key))),
        enrollment: Arc::new(CertifiedKey::new(whole, key)),
        issued_at: now,
        renew_at: now + life / 2,
    })
}

impl ResolvesServerCert for HostCertificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let current = self.current(surroundings::now());
        let enrolls = hello
            .alpn()
            .is_some_and(|mut offered| offered.any(|alpn| alpn == ALPN_ENROLL));
        Some(if enrolls {
            current.enrollment
        } else {
            current.machines
        })
    }
}

impl fmt::Debug for HostCertificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HostCertificates")
            .field("host", &self.host)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::identity::verify::CertificateFacts;

    #[test]
    fn a_host_has_a_good_certificate_whatever_its_clock_did() {
        let folder = tempfile::tempdir().expect("a folder");
        let authority = Authority::create(&folder.path().join("authority")).expect("makes one");
        let certificates = HostCertificates::new(authority, HostId::generate()).expect("issues");
        let (now, day) = (SystemTime::now(), Duration::from_secs(24 * 3600));
        let ends = |now| {
            let shown = certificates.current(now).machines;
            let leaf = shown.cert.first().expect("a leaf");
            let ends = CertificateFacts::read(leaf).expect("a certificate").expires;
            ends.duration_since(now).unwrap_or_default()
        };
        for (clock, least) in [
            (now, 29 * day),
            (now + 14 * day, 15 * day),
            (now + 16 * day, 29 * day),
            (now + 1000 * day, 29 * day),
            // Somebody has put it right: what was issued in the meantime is good in three years.
            (now + 17 * day, 29 * day),
        ] {
            let left = ends(clock);
            assert!((least..=31 * day).contains(&left), "{left:?} at {clock:?}");
        }
    }
}
