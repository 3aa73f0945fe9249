//! Certificates and keys as text (RFC 7468).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use zeroize::Zeroizing;

pub(super) const CERTIFICATE: &str = "CERTIFICATE";
pub(super) const PRIVATE_KEY: &str = "PRIVATE KEY";

/// `der` as text. Wiped when dropped, since it may be a key.
pub(super) fn encode(label: &str, der: &[u8]) -> Zeroizing<String> {
    let base64 = Zeroizing::new(STANDARD.encode(der));
    let mut text = Zeroizing::new(String::with_capacity(
        base64.len() + base64.len() / 64 + 64 + 2 * label.len(),
    ));
    text.push_str(&format!("-----BEGIN {label}-----\n"));
    let mut rest = base64.as_str();
    while !rest.is_empty() {
        let (line, after) = rest.split_at(rest.len().min(64));
        text.push_str(line);
        text.push('\n');
        rest = after;
    }
    text.push_str(&format!("-----END {label}-----\n"));
    text
}

/// The one certificate in `text`.
pub(super) fn certificate(text: &str) -> Result<CertificateDer<'static>, String> {
    CertificateDer::from_pem_slice(text.as_bytes()).map_err(|error| error.to_string())
}

/// The one key in `text`, as PKCS#8.
pub(super) fn key(text: &str) -> Result<Zeroizing<Vec<u8>>, String> {
    let key =
        PrivatePkcs8KeyDer::from_pem_slice(text.as_bytes()).map_err(|error| error.to_string())?;
    Ok(Zeroizing::new(key.secret_pkcs8_der().to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        for length in [1, 47, 48, 49, 500] {
            let der: Vec<u8> = (0..length).map(|n| n as u8).collect();
            assert_eq!(
                certificate(&encode(CERTIFICATE, &der)).as_deref(),
                Ok(der.as_slice())
            );
            assert_eq!(key(&encode(PRIVATE_KEY, &der)).as_deref(), Ok(&der));
        }
    }
}
