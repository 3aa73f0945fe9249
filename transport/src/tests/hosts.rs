//! Whom an agent takes for its host.

use std::time::{Duration, SystemTime};

use rcgen::{ExtendedKeyUsagePurpose, KeyPair, SanType};
use sluice_protocol::digest::Digest;
use sluice_protocol::ids::{HostId, MachineId, TenantId, TokenId};
use sluice_protocol::message::enroll::Token;
use sluice_protocol::message::{ALPN, ALPN_ENROLL};
use tokio::time::timeout;

use super::fixture::{Fixture, new_authority, new_identity, soon};
use super::messages;
use super::raw::{self, Shown};
use crate::agent::{EnrollError, connect, enroll};
use crate::error::LinkError;
use crate::identity::{
    Authority, HOST_SERVER_NAME, IssueError, MachineIdentity, ServerCertificate, Signer,
};

fn names(uri: &str) -> Vec<SanType> {
    vec![
        SanType::URI(uri.try_into().expect("a URI")),
        SanType::DnsName(HOST_SERVER_NAME.try_into().expect("a name")),
    ]
}

fn host(authority: &Authority, now: SystemTime) -> Result<ServerCertificate, IssueError> {
    authority.issue_host(HostId::generate(), now)
}

#[tokio::test]
async fn nothing_but_a_host_of_the_pinned_authority_is_taken_for_one() {
    let authority = new_authority();
    let identity = new_identity(&authority);
    let now = SystemTime::now();
    let day = Duration::from_secs(86_400);
    let key = KeyPair::generate().expect("makes");
    let server = ExtendedKeyUsagePurpose::ServerAuth;
    let host_uri = format!("sluice://host/{}", HostId::generate());
    let machine_uri = MachineIdentity {
        tenant: TenantId::generate(),
        machine: MachineId::generate(),
    }
    .to_string();
    let sign = |signer, usage: &ExtendedKeyUsagePurpose, names: Vec<SanType>| {
        Shown::new(
            &authority.dangerous_sign(signer, usage.clone(), names, &key),
            key.serialized_der(),
        )
    };
    let of = |certificate: Result<ServerCertificate, IssueError>| {
        let certificate = certificate.expect("issues");
        Shown::new(&certificate.chain, &certificate.key)
    };
    let without_intermediate = host(&authority, now).expect("issues");
    let table = vec![
        ("a machine's", Shown::of(&identity)),
        (
            "a machine's, with the host's name",
            sign(Signer::Agents, &server, names(&machine_uri)),
        ),
        (
            "a host's, issued by the agents' intermediate",
            sign(Signer::Agents, &server, names(&host_uri)),
        ),
        (
            "a machine's, issued by the hosts' intermediate",
            sign(Signer::Hosts, &server, names(&machine_uri)),
        ),
        (
            "for clients",
            sign(
                Signer::Hosts,
                &ExtendedKeyUsagePurpose::ClientAuth,
                names(&host_uri),
            ),
        ),
        (
            "without the server name",
            sign(Signer::Hosts, &server, names(&host_uri)[..1].to_vec()),
        ),
        (
            "without a URI",
            sign(Signer::Hosts, &server, names(&host_uri)[1..].to_vec()),
        ),
        (
            "with two URIs",
            sign(
                Signer::Hosts,
                &server,
                [names(&host_uri), names(&host_uri)].concat(),
            ),
        ),
        (
            "the API's",
            of(authority.issue_api(&["127.0.0.1".to_owned()], now)),
        ),
        ("another authority's", of(host(&new_authority(), now))),
        ("expired", of(host(&authority, now - 31 * day))),
        ("not yet valid", of(host(&authority, now + day))),
        (
            "without its issuer",
            Shown::new(&without_intermediate.chain[..1], &without_intermediate.key),
        ),
        (
            "with another's key",
            Shown::new(&without_intermediate.chain, key.serialized_der()),
        ),
    ];
    for (what, shown) in table {
        let (endpoint, address) = raw::server(shown, &[ALPN]);
        let accept = tokio::spawn(async move {
            if let Some(incoming) = endpoint.accept().await {
                assert!(incoming.await.is_err(), "the agent went on");
            }
        });
        let connected = soon(what, connect(&[address.to_string()], &identity, None)).await;
        assert!(
            matches!(connected, Err(LinkError::UntrustedHost { .. })),
            "{what}: {connected:?}"
        );
        soon(what, accept).await.expect("the agent stops there");
    }
    // The table is not refused for some reason that all of it has in common.
    let (endpoint, address) = raw::server(of(host(&authority, now)), &[ALPN]);
    let addresses = [address.to_string()];
    let (connected, _connection) =
        tokio::join!(connect(&addresses, &identity, None), raw::accept(&endpoint));
    connected.expect("connects");
}

#[tokio::test]
async fn a_token_is_shown_to_the_authority_that_it_names_and_to_no_other() {
    let fixture = Fixture::new();
    let request = messages::enroll_request(vec![1]);
    let token = |address: String, authority| Token {
        addresses: vec![address],
        authority,
        id: TokenId::generate(),
        secret: vec![9; 32],
    };
    let refused = |answer: &Result<_, EnrollError>| {
        matches!(
            answer,
            Err(EnrollError::Link(LinkError::UntrustedHost { .. }))
        )
    };
    // A host of another authority than the token's.
    let answer = enroll(
        &token(fixture.addresses().remove(0), Digest::of(b"another root")),
        &request,
    )
    .await;
    assert!(refused(&answer), "{answer:?}");
    let nothing = timeout(Duration::from_millis(100), fixture.endpoint.accept()).await;
    assert!(nothing.is_err(), "the host got a request");

    // One that shows the right root beside its own chain, and one that shows the right root alone.
    let right = fixture.authority.root_der().to_vec();
    let other = new_authority();
    let certificate = host(&other, SystemTime::now()).expect("issues");
    let beside = [
        certificate.chain.clone(),
        vec![other.root_der().to_vec(), right.clone()],
    ]
    .concat();
    for chain in [
        beside,
        vec![certificate.chain[0].clone(), right.clone()],
        vec![right],
    ] {
        let (endpoint, address) = raw::server(Shown::new(&chain, &certificate.key), &[ALPN_ENROLL]);
        let accept = tokio::spawn(async move {
            if let Some(incoming) = endpoint.accept().await {
                assert!(incoming.await.is_err(), "the agent went on");
            }
        });
        let pinned = fixture.authority.root_fingerprint();
        let answer = soon(
            "an answer",
            enroll(&token(address.to_string(), pinned), &request),
        )
        .await;
        assert!(refused(&answer), "{answer:?}");
        soon("the end", accept)
            .await
            .expect("the agent stops there");
    }
}

#[tokio::test]
async fn a_machine_that_the_host_does_not_know_is_told_so() {
    let fixture = Fixture::new();
    let other = new_authority();
    // It trusts the right root, and has a certificate of another.
    let stranger = new_identity(&other);
    let chain: Vec<Vec<u8>> = stranger.chain().map(<[u8]>::to_vec).collect();
    let shown = Shown::new(&chain, stranger.key().pkcs8());
    let address = fixture.endpoint.local_addr();
    let error = match raw::client(&fixture.authority, address, ALPN, Some(shown)).await {
        Err(error) => error,
        Ok((_endpoint, connection)) => soon("the close", connection.closed()).await,
    };
    let meaning = crate::link::connection_error(&error, "here");
    assert!(
        matches!(meaning, LinkError::IdentityRefused { .. }),
        "{meaning:?}"
    );
}
