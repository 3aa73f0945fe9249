//! What a machine has signed with the key of its certificate, beside the handshake and requests for certificates. Those begin
//! with 64 spaces and with DER; whatever else is signed begins with a label of its own, so that none of it passes for another.

use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};

/// Whether `signature` (DER) is over `message`, by the key of this certificate (DER). Nothing is said about the certificate
/// itself: it is to be one that the handshake verified.
#[must_use]
pub fn is_signed(certificate: &[u8], message: &[u8], signature: &[u8]) -> bool {
    let Ok((_, certificate)) = x509_parser::parse_x509_certificate(certificate) else {
        return false;
    };
    let key = &certificate.public_key().subject_public_key.data;
    UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, key)
        .verify(message, signature)
        .is_ok()
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use sluice_protocol::ids::{MachineId, TenantId};

    use super::*;
    use crate::identity::{Authority, MachineKey};

    #[test]
    fn a_signature_is_good_for_one_message_and_the_certificate_of_one_key() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let authority = Authority::create(&folder.path().join("authority")).expect("makes");
        let [one, other] = [(); 2].map(|()| {
            let key = MachineKey::generate().expect("makes a key");
            let request = key.request().expect("makes a request");
            let (tenant, machine) = (TenantId::generate(), MachineId::generate());
            let issued = authority.issue_machine(tenant, machine, &request, SystemTime::now());
            (key, issued.expect("issues").chain[0].to_vec())
        });
        let signature = one.0.sign(b"said").expect("signs");
        assert!(is_signed(&one.1, b"said", &signature));
        let mut torn = signature.clone();
        *torn.last_mut().expect("has bytes") ^= 1;
        for (certificate, message, signature) in [
            (&other.1, &b"said"[..], &signature),
            (&one.1, b"say", &signature),
            (&one.1, b"said", &torn),
            (&one.1, b"said", &other.0.sign(b"said").expect("signs")),
            (&b"no certificate".to_vec(), b"said", &signature),
        ] {
            assert!(!is_signed(certificate, message, signature));
        }
        // Kept and read again, as after a restart, it is the same key.
        let kept = MachineKey::from_pkcs8(one.0.pkcs8().to_vec().into()).expect("reads");
        let again = kept.sign(b"said").expect("signs");
        assert!(is_signed(&one.1, b"said", &again));
    }
}
