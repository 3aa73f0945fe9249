//! Who a host takes for a machine: a table of certificates that are almost right. (A nested SSH certificate that was
//! taken for an authority's was CVE-2025-49825, Teleport.)

use std::fs;
use std::time::{Duration, SystemTime};

use quinn::ConnectionError;
use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, Issuer, KeyPair, SanType};
use sluice_protocol::ids::{HostId, MachineId, TenantId};
use sluice_protocol::message::control::FromAgent;
use sluice_protocol::message::{ALPN, CloseCode, StreamKind};

use super::fixture::{Fixture, new_authority, soon};
use super::messages;
use super::raw::{self, Shown, closed_with, frame};
use crate::host::Arrival;
use crate::identity::{Authority, MachineIdentity, Signer};

const DAY: Duration = Duration::from_secs(86_400);

fn uri(text: &str) -> SanType {
    SanType::URI(text.try_into().expect("a URI"))
}

fn machine_uri() -> SanType {
    uri(&MachineIdentity {
        tenant: TenantId::generate(),
        machine: MachineId::generate(),
    }
    .to_string())
}

/// A chain and key that `authority` issues to a machine at `now`.
fn issued(authority: &Authority, key: &KeyPair, now: SystemTime) -> Vec<Vec<u8>> {
    let request = CertificateParams::default()
        .serialize_request(key)
        .expect("signs");
    authority
        .issue_machine(
            TenantId::generate(),
            MachineId::generate(),
            request.der(),
            now,
        )
        .expect("issues")
        .chain
}

/// A machine's certificate that `key` signs as if it were the agents' intermediate's.
fn signed_by(key: &KeyPair, issuer: &[u8], new: &KeyPair) -> Vec<u8> {
    let issuer = Issuer::from_ca_cert_der(&issuer.to_vec().into(), key).expect("a certificate");
    let mut params = CertificateParams::default();
    params.subject_alt_names = vec![machine_uri()];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params
        .signed_by(new, &issuer)
        .expect("signs")
        .der()
        .to_vec()
}

#[tokio::test]
async fn nothing_but_a_machine_certificate_is_taken_for_one() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let path = folder.path().join("authority");
    let fixture = Fixture::with(Authority::create(&path).expect("makes an authority"));
    let authority = &fixture.authority;
    let now = SystemTime::now();
    let key = KeyPair::generate().expect("makes");
    let new = KeyPair::generate().expect("makes");
    let client = ExtendedKeyUsagePurpose::ClientAuth;
    let server = ExtendedKeyUsagePurpose::ServerAuth;
    let good = issued(authority, &key, now);
    let (leaf, agents) = (good[0].clone(), good[1].clone());
    let host = authority
        .issue_host(HostId::generate(), now)
        .expect("issues");
    let api = authority
        .issue_api(&["localhost".to_owned()], now)
        .expect("issues");
    let nested = vec![signed_by(&key, &leaf, &new), leaf.clone(), agents.clone()];
    let sign = |signer, usage: &ExtendedKeyUsagePurpose, names| {
        authority.dangerous_sign(signer, usage.clone(), names, &key)
    };
    let root_key = fs::read_to_string(path.join("root.key")).expect("reads");
    let root_key = KeyPair::from_pem(&root_key).expect("a key");
    let by_root = vec![signed_by(&root_key, authority.root_der(), &new)];
    let mut flipped = leaf.clone();
    *flipped.last_mut().expect("has bytes") ^= 1;
    let (a, b) = (TenantId::generate(), MachineId::generate());

    let shown = |chain: &[Vec<u8>], key: &KeyPair| Some(Shown::new(chain, key.serialized_der()));
    let table = vec![
        ("no certificate", None),
        ("a leaf signed by a leaf", shown(&nested, &new)),
        ("a leaf signed by a leaf, alone", shown(&nested[..2], &new)),
        ("issued by the root itself", shown(&by_root, &new)),
        ("a host's", Some(Shown::new(&host.chain, &host.key))),
        ("the API's", Some(Shown::new(&api.chain, &api.key))),
        (
            "another authority's",
            shown(&issued(&new_authority(), &key, now), &key),
        ),
        (
            "expired",
            shown(&issued(authority, &key, now - 31 * DAY), &key),
        ),
        (
            "not yet valid",
            shown(&issued(authority, &key, now + DAY), &key),
        ),
        (
            "for servers",
            shown(&sign(Signer::Agents, &server, vec![machine_uri()]), &key),
        ),
        (
            "issued by the hosts' intermediate",
            shown(&sign(Signer::Hosts, &client, vec![machine_uri()]), &key),
        ),
        (
            "without a name",
            shown(&sign(Signer::Agents, &client, vec![]), &key),
        ),
        (
            "with two URIs",
            shown(
                &sign(Signer::Agents, &client, vec![machine_uri(), machine_uri()]),
                &key,
            ),
        ),
        (
            "with a host's URI",
            shown(
                &sign(
                    Signer::Agents,
                    &client,
                    vec![uri(&format!("sluice://host/{b}"))],
                ),
                &key,
            ),
        ),
        (
            "with a longer URI",
            shown(
                &sign(
                    Signer::Agents,
                    &client,
                    vec![uri(&format!("sluice://machine/{a}/{b}/x"))],
                ),
                &key,
            ),
        ),
        (
            "self-signed, by the same name",
            shown(&[signed_by(&key, &agents, &key), agents.clone()], &key),
        ),
        ("the intermediate's itself", shown(&good[1..], &key)),
        (
            "with a bad signature",
            shown(&[flipped, agents.clone()], &key),
        ),
        ("with another's key", shown(&good, &new)),
        (
            "garbage",
            shown(&[b"garbage".to_vec(), agents.clone()], &key),
        ),
    ];
    for (what, shown) in table {
        let anonymous = shown.is_none();
        let address = fixture.endpoint.local_addr();
        let refused = match raw::client(authority, address, ALPN, shown).await {
            Err(error) => error,
            Ok((_endpoint, connection)) => {
                // A client is done with the handshake before the host is: it may send at once.
                if let Ok((mut send, _receive)) = connection.open_bi().await {
                    let hello = frame(&FromAgent::Hello(Box::new(messages::hello())));
                    let _closed = send
                        .write_all(&[&[StreamKind::Control as u8], hello.as_slice()].concat())
                        .await;
                }
                soon(what, connection.closed()).await
            }
        };
        if anonymous {
            assert!(
                closed_with(&refused, CloseCode::Protocol),
                "{what}: {refused}"
            );
        } else {
            // An alert, which is 0x100 and above (RFC 9001, section 4.8): the handshake itself has failed.
            let alert = matches!(&refused, ConnectionError::ConnectionClosed(close) if u64::from(close.error_code) >= 0x100);
            assert!(alert, "{what}: {refused}");
        }
    }
    // None of them has come through; one that is right does, and is the first.
    let shown = Some(Shown::new(&good, key.serialized_der()));
    let address = fixture.endpoint.local_addr();
    let (_endpoint, _connection) = raw::client(authority, address, ALPN, shown)
        .await
        .expect("connects");
    let Some(Arrival::Machine(machine)) = soon("the good one", fixture.endpoint.accept()).await
    else {
        panic!("expected a machine");
    };
    assert_eq!(Ok(machine.machine()), crate::identity::machine_of(&leaf));
}

#[tokio::test]
async fn an_unknown_alpn_is_refused() {
    let fixture = Fixture::new();
    for alpn in [&b"sluice/2"[..], b"h3"] {
        let connected = raw::client(
            &fixture.authority,
            fixture.endpoint.local_addr(),
            alpn,
            None,
        )
        .await;
        assert!(connected.is_err(), "{alpn:?}");
    }
}
