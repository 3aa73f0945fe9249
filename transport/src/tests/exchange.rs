use std::time::{Duration, SystemTime};

use sluice_protocol::digest::Digest;
use sluice_protocol::ids::{MachineId, OperationId, TenantId, TokenId};
use sluice_protocol::message::CloseCode;
use sluice_protocol::message::control::{FromAgent, FromHost};
use sluice_protocol::message::enroll::{Answer, Request, Token};
use sluice_protocol::message::operation::{Operation, Progress};
use tokio::io::AsyncReadExt as _;

use super::fixture::{Fixture, Pair, new_authority, new_identity, soon};
use super::messages;
use crate::agent::{AgentConnection, Delivered, EnrollError, connect, enroll};
use crate::blob::{BlobError, BlobResponder};
use crate::error::LinkError;
use crate::host::{Arrival, DeliverError, FromMachine, HostConnection};
use crate::identity::{AgentIdentity, IdentityError, MachineKey};
use crate::progress::ProgressReceiver;

async fn next_progress(host: &HostConnection) -> ProgressReceiver {
    match soon("a stream", host.next()).await {
        Ok(FromMachine::Progress(progress)) => progress,
        other => panic!("expected progress, got {other:?}"),
    }
}

async fn next_blob(host: &HostConnection) -> BlobResponder {
    match soon("a stream", host.next()).await {
        Ok(FromMachine::Blob(blob)) => blob,
        other => panic!("expected a blob request, got {other:?}"),
    }
}

async fn next_operation(agent: &AgentConnection) -> Operation {
    match soon("an operation", agent.next_operation()).await {
        Ok(Delivered::Operation(operation)) => *operation,
        other => panic!("expected an operation, got {other:?}"),
    }
}

#[tokio::test]
async fn every_message_arrives_as_it_was_sent() {
    let fixture = Fixture::new();
    let Pair {
        machine,
        agent,
        mut agent_control,
        host,
        mut host_control,
    } = fixture.pair().await;
    assert_eq!(host.machine(), machine);
    assert!(host.certificate_expires() > SystemTime::now() + Duration::from_secs(29 * 86_400));

    for message in messages::from_agent() {
        agent_control.send(&message).await.expect("sends");
        assert_eq!(soon("a message", host_control.receive()).await, Ok(message));
    }
    for message in messages::from_host() {
        host_control.send(&message).await.expect("sends");
        assert_eq!(
            soon("a message", agent_control.receive()).await,
            Ok(message)
        );
    }
    for size in [1, 100_000, 7 << 20] {
        let operation = messages::operation(vec![b'x'; size]);
        let (delivered, received) = tokio::join!(host.deliver(&operation), next_operation(&agent));
        delivered.expect("is delivered");
        assert!(received == operation, "of {size} bytes");
    }
    let operation = OperationId::generate();
    let mut sender = agent.open_progress(operation).await.expect("opens");
    let mut receiver = next_progress(&host).await;
    assert_eq!(
        (sender.operation(), receiver.operation()),
        (operation, operation)
    );
    for message in messages::progress() {
        // The longest piece is longer than the window: it is sent while it is read.
        let (sent, received) = tokio::join!(
            soon("sending", sender.send(&message)),
            soon("progress", receiver.recv())
        );
        sent.expect("sends");
        assert_eq!(received, Ok(Some(message)));
    }
    sender.finish().await.expect("finishes");
    assert_eq!(soon("the end", receiver.recv()).await, Ok(None));
    assert!(
        agent.stats().sent_bytes > 0
            && host.stats().received_bytes > 0
            && host.stats().rtt > Duration::ZERO
    );
}

#[tokio::test]
async fn a_blob_comes_from_its_offset_on_or_not_at_all() {
    let fixture = Fixture::new();
    let Pair { agent, host, .. } = fixture.pair().await;
    let blob: Vec<u8> = (0..3_000_000_u32).map(|n| n as u8).collect();
    let digest = Digest::of(&blob);
    let size = blob.len() as u64;

    let serving = blob.clone();
    let server = tokio::spawn(async move {
        for offset in [0, 2_999_999, 3_000_000, 1_000] {
            let request = next_blob(&host).await;
            assert_eq!(
                (request.request().sha256, request.request().offset),
                (digest, offset)
            );
            request
                .found(size, &serving[offset as usize..])
                .await
                .expect("sends");
        }
        // An offset behind the end, and no blob at all.
        next_blob(&host)
            .await
            .found(size, &b""[..])
            .await
            .expect("answers");
        next_blob(&host).await.not_found().await.expect("answers");
        // A source that ends early, and one that nobody answers for.
        let short = next_blob(&host).await.found(size, &serving[..1000]).await;
        assert!(
            matches!(short, Err(BlobError::Short(2_999_000))),
            "{short:?}"
        );
        drop(next_blob(&host).await);
        host
    });
    for offset in [0, 2_999_999, 3_000_000, 1_000] {
        let (whole, mut reader) = agent
            .fetch(digest, offset)
            .await
            .expect("answers")
            .expect("is there");
        assert_eq!((whole, reader.remaining()), (size, size - offset));
        let mut bytes = Vec::new();
        reader.read_to_end(&mut bytes).await.expect("reads");
        assert!(bytes == blob[offset as usize..], "from {offset}");
    }
    for offset in [size + 1, 0] {
        assert!(
            agent
                .fetch(digest, offset)
                .await
                .expect("answers")
                .is_none()
        );
    }
    // The reset may overtake the answer.
    match agent.fetch(digest, 0).await {
        Ok(Some((_, mut reader))) => {
            let cut = reader.read_to_end(&mut Vec::new()).await;
            assert!(cut.is_err(), "half of a blob looked like all of it");
        }
        other => assert_eq!(other.err(), Some(LinkError::Interrupted)),
    }
    assert_eq!(
        agent.fetch(digest, 0).await.err(),
        Some(LinkError::Interrupted)
    );
    let host = server.await.expect("serves");
    // None of this has closed the connection.
    let _progress = agent
        .open_progress(OperationId::generate())
        .await
        .expect("opens");
    next_progress(&host).await;
}

#[tokio::test]
async fn a_stream_that_is_dropped_is_never_taken_for_a_whole_one() {
    let fixture = Fixture::new();
    let Pair { agent, host, .. } = fixture.pair().await;
    let mut sender = agent
        .open_progress(OperationId::generate())
        .await
        .expect("opens");
    let mut receiver = next_progress(&host).await;
    sender.send(&Progress::Accepted).await.expect("sends");
    assert_eq!(receiver.recv().await, Ok(Some(Progress::Accepted)));
    drop(sender);
    assert_eq!(
        soon("the reset", receiver.recv()).await,
        Err(LinkError::Interrupted)
    );

    // A delivery that is canceled while it waits for the agent to take earlier ones is not sent, or is whole.
    let operation = messages::operation(vec![b'x'; 4 << 20]);
    for _ in 0..20 {
        let _canceled =
            tokio::time::timeout(Duration::from_millis(3), host.deliver(&operation)).await;
    }
    let last = messages::operation(b"last".to_vec());
    let mut received = Vec::new();
    let (delivered, ()) = tokio::join!(host.deliver(&last), async {
        while received.last() != Some(&last) {
            received.push(next_operation(&agent).await);
        }
    });
    delivered.expect("is delivered");
    assert!(received.iter().all(|one| *one == operation || *one == last));
}

#[tokio::test]
async fn dropping_a_send_in_the_middle_loses_nothing_and_tears_no_frame() {
    let fixture = Fixture::new();
    let Pair {
        mut agent_control,
        mut host_control,
        host: _host,
        agent: _agent,
        ..
    } = fixture.pair().await;
    // Longer than the windows: it cannot be sent before the other side reads.
    let long = FromAgent::Renew {
        request: vec![1; 1_000_000],
    };
    let short = FromAgent::GatesReady {
        revision: 1,
        problems: vec![],
    };
    let canceled = tokio::time::timeout(Duration::from_millis(50), agent_control.send(&long)).await;
    assert!(
        canceled.is_err(),
        "the windows are wider than this test thinks"
    );
    let (sent, received) = tokio::join!(agent_control.send(&short), async {
        // And the receiving side is canceled again and again.
        let mut received = Vec::new();
        while received.len() < 2 {
            if let Ok(message) =
                tokio::time::timeout(Duration::from_micros(200), host_control.receive()).await
            {
                received.push(message.expect("arrives"));
            }
        }
        received
    });
    sent.expect("sends");
    assert!(received == [long, short]);
}

#[tokio::test]
async fn a_close_says_why() {
    let fixture = Fixture::new();
    let table = [
        (CloseCode::Stopping, LinkError::Stopping),
        (
            CloseCode::Protocol,
            LinkError::Accused {
                reason: "because \u{fffd}".to_owned(),
            },
        ),
        (
            CloseCode::Version,
            LinkError::Version {
                reason: "because \u{fffd}".to_owned(),
            },
        ),
        (CloseCode::Revoked, LinkError::Revoked),
        (CloseCode::Replaced, LinkError::Replaced),
        (CloseCode::Done, LinkError::Done),
        (CloseCode::Busy, LinkError::Busy),
        (CloseCode::Waiting, LinkError::Waiting),
        (CloseCode::Quarantined, LinkError::Quarantined),
    ];
    for (code, expected) in table {
        let Pair {
            agent,
            host,
            mut agent_control,
            ..
        } = fixture.pair().await;
        host.close(code, "because \x1b");
        assert_eq!(soon("the close", agent.closed()).await, expected);
        assert_eq!(agent.next_operation().await.err(), Some(expected.clone()));
        assert_eq!(agent_control.receive().await.err(), Some(expected.clone()));
        assert_eq!(
            agent.open_progress(OperationId::generate()).await.err(),
            Some(expected)
        );
        let delivered = host.deliver(&messages::operation(b"x".to_vec())).await;
        assert_eq!(delivered, Err(DeliverError::NotSent(LinkError::Closed)));
    }
    let Pair { agent, host, .. } = fixture.pair().await;
    drop(agent);
    assert_eq!(soon("the close", host.closed()).await, LinkError::Stopping);
    let Pair { agent, .. } = fixture.pair().await;
    fixture.endpoint.close().await;
    assert_eq!(soon("the close", agent.closed()).await, LinkError::Stopping);
}

#[tokio::test]
async fn an_operation_that_is_too_long_is_not_sent() {
    let fixture = Fixture::new();
    let pair = fixture.pair().await;
    let delivered = pair
        .host
        .deliver(&messages::operation(vec![0; 8 << 20]))
        .await;
    assert!(
        matches!(
            delivered,
            Err(DeliverError::NotSent(LinkError::TooLarge { .. }))
        ),
        "{delivered:?}"
    );
}

#[tokio::test]
async fn no_common_version_ends_the_connection_on_either_side() {
    let fixture = Fixture::new();
    let identity = new_identity(&fixture.authority);
    let agent = connect(&fixture.addresses(), &identity, None)
        .await
        .expect("connects");
    let host = fixture.machine().await;
    let mut hello = messages::hello();
    hello.versions = vec![0, 99];
    let (opened, accepted) = tokio::join!(agent.open_control(hello), host.accept_control());
    assert!(
        matches!(opened, Err(LinkError::Version { .. })),
        "{opened:?}"
    );
    assert!(accepted.is_err());

    let agent = connect(&fixture.addresses(), &identity, None)
        .await
        .expect("connects");
    let host = fixture.machine().await;
    let mut welcome = messages::welcome();
    welcome.version = 99;
    let (opened, _control) = tokio::join!(agent.open_control(messages::hello()), async {
        let (_, mut control) = host.accept_control().await.expect("says hello");
        control
            .send(&FromHost::Welcome(Box::new(welcome)))
            .await
            .expect("sends");
        control
    });
    assert!(
        matches!(opened, Err(LinkError::Version { .. })),
        "{opened:?}"
    );
}

#[tokio::test]
async fn messages_out_of_turn_are_not_even_sent() {
    let fixture = Fixture::new();
    let identity = new_identity(&fixture.authority);
    let agent = connect(&fixture.addresses(), &identity, None)
        .await
        .expect("connects");
    assert!(matches!(
        agent.open_progress(OperationId::generate()).await,
        Err(LinkError::Misuse(_))
    ));
    assert!(matches!(
        agent.fetch(Digest::of(b""), 0).await,
        Err(LinkError::Misuse(_))
    ));
    fixture.machine().await;
    let mut pair = fixture.pair().await;
    let hello = FromAgent::Hello(Box::new(messages::hello()));
    assert!(matches!(
        pair.agent_control.send(&hello).await,
        Err(LinkError::Misuse(_))
    ));
    assert!(matches!(
        pair.agent.open_control(messages::hello()).await,
        Err(LinkError::Misuse(_))
    ));
    assert!(matches!(
        pair.host.accept_control().await,
        Err(LinkError::Misuse(_))
    ));
}

fn token(fixture: &Fixture) -> Token {
    Token {
        addresses: fixture.addresses(),
        authority: fixture.authority.root_fingerprint(),
        id: TokenId::generate(),
        secret: vec![9; 32],
    }
}

#[tokio::test]
async fn a_machine_enrolls_and_connects_with_what_it_got() {
    let fixture = Fixture::new();
    let key = MachineKey::generate().expect("makes a key");
    let request = messages::enroll_request(key.request().expect("makes a request"));
    let (tenant, machine) = (TenantId::generate(), MachineId::generate());
    let token = token(&fixture);
    let host = async {
        let Some(Arrival::Enrollment(enrollment)) =
            soon("an enrollment", fixture.endpoint.accept()).await
        else {
            panic!("expected an enrollment");
        };
        assert_eq!(*enrollment.request(), request);
        let Request::Enroll(asked) = enrollment.request() else {
            panic!("expected an enrollment")
        };
        let issued = fixture
            .authority
            .issue_machine(tenant, machine, &asked.request, SystemTime::now())
            .expect("issues");
        enrollment
            .answer(&Answer::Enrolled(Box::new(messages::enrolled(
                issued.chain,
            ))))
            .await
            .expect("answers");
    };
    let (enrollment, ()) = tokio::join!(enroll(&token, &request), host);
    let enrollment = enrollment.expect("enrolls");
    assert_eq!(enrollment.root, fixture.authority.root_der());
    let chain: Vec<Vec<u8>> = enrollment
        .enrolled
        .chain
        .iter()
        .map(|der| der.to_vec())
        .collect();

    let now = SystemTime::now();
    let other_key = MachineKey::generate().expect("makes a key");
    let swapped = AgentIdentity::new(other_key, &chain, &enrollment.root, now);
    assert_eq!(swapped.err(), Some(IdentityError::OtherKey));
    let again =
        || MachineKey::from_pkcs8(zeroize::Zeroizing::new(key.pkcs8().to_vec())).expect("reads");
    let other_root = new_authority();
    let swapped = AgentIdentity::new(again(), &chain, other_root.root_der(), now);
    assert!(
        matches!(swapped, Err(IdentityError::Chain(_))),
        "{swapped:?}"
    );
    let late = AgentIdentity::new(
        again(),
        &chain,
        &enrollment.root,
        now + Duration::from_secs(31 * 86_400),
    );
    assert_eq!(late.err(), Some(IdentityError::Expired));

    let identity =
        AgentIdentity::new(again(), &chain, &enrollment.root, now).expect("fits together");
    let agent = connect(&fixture.addresses(), &identity, None)
        .await
        .expect("connects");
    let host = fixture.machine().await;
    assert_eq!(
        (host.machine().tenant, host.machine().machine),
        (tenant, machine)
    );
    drop(agent);
}

#[tokio::test]
async fn a_refused_enrollment_says_why() {
    let fixture = Fixture::new();
    let token = token(&fixture);
    let request = messages::enroll_request(vec![]);
    let host = async {
        let Some(Arrival::Enrollment(enrollment)) =
            soon("an enrollment", fixture.endpoint.accept()).await
        else {
            panic!("expected an enrollment");
        };
        enrollment
            .answer(&Answer::Refused {
                reason: "used up\n".to_owned(),
            })
            .await
            .expect("answers");
    };
    let (answer, ()) = tokio::join!(enroll(&token, &request), host);
    assert_eq!(
        answer,
        Err(EnrollError::Refused {
            reason: "used up ".to_owned()
        })
    );

    let host = async { drop(soon("an enrollment", fixture.endpoint.accept()).await) };
    let (answer, ()) = tokio::join!(enroll(&token, &request), host);
    assert_eq!(answer, Err(EnrollError::Unanswered(LinkError::Done)));
}

#[tokio::test]
async fn an_address_without_a_host_is_passed_over() {
    let fixture = Fixture::new();
    let identity = new_identity(&fixture.authority);
    let addresses = vec!["not an address".to_owned(), fixture.addresses().remove(0)];
    connect(&addresses, &identity, None)
        .await
        .expect("connects to the second");
    let nowhere = connect(&addresses[..1], &identity, None).await;
    assert!(
        matches!(nowhere, Err(LinkError::Unreachable { .. })),
        "{nowhere:?}"
    );
}
