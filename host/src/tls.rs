//! How the API speaks TLS: with a certificate of the configuration, or with one that the host issues to itself and renews.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum_server::tls_rustls::RustlsConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use sluice_transport::identity::{Authority, crypto_provider};

use crate::config::Tls;
use crate::server::ServeError;

/// How often the host issues the API a new certificate of its own. It lives for 397 days; a clock that was wrong when it was
/// issued is right again on one of the next days.
pub(crate) const RENEWAL: Duration = Duration::from_secs(24 * 3600);

/// The TLS of the API. A cheap handle.
#[derive(Debug, Clone)]
pub(crate) struct ApiTls {
    /// What the listener uses from the next connection on.
    pub(crate) config: RustlsConfig,
    /// For which names the host issues it a certificate; none where the configuration has one.
    own: Option<Vec<String>>,
}

impl ApiTls {
    /// With the certificate of the configuration; else with one of the host's own authority, for its names or those found by
    /// `names`. None where there are none: on loopback.
    ///
    /// # Errors
    ///
    /// The certificate of the configuration cannot be used, or none be issued.
    pub(crate) fn find(
        tls: &Tls,
        authority: &Authority,
        names: impl FnOnce() -> Option<Vec<String>>,
    ) -> Result<Option<Self>, ServeError> {
        if let (Some(certificate), Some(key)) = (&tls.certificate, &tls.key) {
            return Ok(Some(Self {
                config: RustlsConfig::from_config(given(certificate, key)?),
                own: None,
            }));
        }
        let Some(found) = names() else {
            return Ok(None);
        };
        let own = if tls.names.is_empty() {
            found
        } else {
            tls.names.clone()
        };
        Ok(Some(Self {
            config: RustlsConfig::from_config(issued(authority, &own)?),
            own: Some(own),
        }))
    }

    /// Issues new certificates for as long as the host runs, where they are its own.
    pub(crate) async fn renew(self, authority: Authority, every: Duration) -> std::io::Result<()> {
        let Some(names) = self.own else {
            return std::future::pending().await;
        };
        loop {
            tokio::time::sleep(every).await;
            match issued(&authority, &names) {
                Ok(config) => self.config.reload_from_config(config),
                Err(error) => {
                    tracing::error!(%error, "the API keeps its certificate for another day");
                }
            }
        }
    }
}

fn given(certificate: &Path, key: &Path) -> Result<Arc<rustls::ServerConfig>, ServeError> {
    let unusable = |path: &Path, reason: rustls::pki_types::pem::Error| ServeError::Certificate {
        path: path.to_owned(),
        reason: reason.to_string(),
    };
    let chain = CertificateDer::pem_file_iter(certificate)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| unusable(certificate, error))?;
    let key = PrivateKeyDer::from_pem_file(key).map_err(|error| unusable(key, error))?;
    config(chain, key)
}

fn issued(
    authority: &Authority,
    names: &[String],
) -> Result<Arc<rustls::ServerConfig>, ServeError> {
    let issued = authority.issue_api(names, SystemTime::now())?;
    let chain = issued
        .chain
        .iter()
        .map(|der| CertificateDer::from(der.clone()))
        .collect();
    config(chain, PrivatePkcs8KeyDer::from(issued.key.to_vec()).into())
}

fn config(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<Arc<rustls::ServerConfig>, ServeError> {
    let mut config = rustls::ServerConfig::builder_with_provider(crypto_provider())
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key))
        .map_err(ServeError::Tls)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_certificate_of_the_hosts_own_is_replaced_while_it_runs() {
        let dir = tempfile::tempdir().expect("a directory");
        let authority = Authority::create(&dir.path().join("authority")).expect("makes one");
        let found = || Some(vec!["localhost".to_owned()]);
        let tls = ApiTls::find(&Tls::default(), &authority, found).expect("finds");
        let tls = tls.expect("is one");
        let first = tls.config.get_inner();
        let renewing = tokio::spawn(tls.clone().renew(authority, Duration::from_millis(1)));
        let replaced = async {
            while Arc::ptr_eq(&first, &tls.config.get_inner()) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        let replaced = tokio::time::timeout(Duration::from_secs(30), replaced).await;
        assert!(replaced.is_ok() && !renewing.is_finished());
    }
}
