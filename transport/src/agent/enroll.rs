//! A machine joins: one request to a host whose root has the fingerprint in the token.

use rustls::pki_types::CertificateDer;
use sluice_protocol::message::enroll::{Answer, Enrolled, Request, Token};
use sluice_protocol::message::{ALPN_ENROLL, CloseCode, Side, StreamKind};
use tokio::time::timeout;

use super::connect::{client_config, dial};
use super::connection::flush;
use crate::carrier::Carrier;
use crate::error::LinkError;
use crate::frame::{Receiver, Sender};
use crate::identity::verify::Trust;
use crate::limits::{self, priority};
use crate::link::Link;

/// What an enrollment gives: make an [`AgentIdentity`](crate::identity::AgentIdentity) of it and the key, which checks
/// it, before it is stored.
#[derive(Debug, Clone, PartialEq)]
pub struct Enrollment {
    /// The host's answer.
    pub enrolled: Enrolled,
    /// DER of the root, which has the fingerprint in the token.
    pub root: Vec<u8>,
}

/// A machine could not enroll.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EnrollError {
    /// No host was reached, or not the one that the token is for. The token was not sent to another, and is not used up.
    #[error("cannot reach the host that the token is for")]
    Link(#[source] LinkError),
    /// The host has not looked at the request.
    #[error(
        "the host takes no more enrollments from this address at the moment; the token is not used up: try again in a minute"
    )]
    Busy,
    /// The connection broke after the request was sent: whether the token is used up is unknown.
    #[error(
        "the host did not answer; check with `sluice machine list` whether the machine is there, or use a new token"
    )]
    Unanswered(#[source] LinkError),
    /// The host says no.
    #[error("the host refused the enrollment: {reason}")]
    Refused {
        /// As the host said it, one line.
        reason: String,
    },
}

/// Sends `request` to the first of the token's addresses where a host answers whose root has the token's fingerprint.
///
/// # Errors
///
/// Where no such host answers, or it says no.
pub async fn enroll(token: &Token, request: &Request) -> Result<Enrollment, EnrollError> {
    let trust = Trust::Fingerprint(token.authority);
    let config = client_config(trust.clone(), ALPN_ENROLL, None).map_err(EnrollError::Link)?;
    let (endpoint, connection) = dial(&Carrier::System, &token.addresses, &config, None)
        .await
        .map_err(EnrollError::Link)?;
    let shown = connection
        .peer_identity()
        .and_then(|any| any.downcast::<Vec<CertificateDer<'static>>>().ok());
    let root = shown.and_then(|shown| trust.root(&shown));
    let root = root.ok_or(EnrollError::Link(LinkError::Misuse(
        "a handshake without a certificate",
    )))?;
    let link = Link::new(connection, ALPN_ENROLL, Side::Host);
    let answer = timeout(limits::ENROLL_TIME_LIMIT, exchange(&link, request)).await;
    link.close(CloseCode::Done, "");
    flush(&endpoint).await;
    match answer {
        Ok(Ok(Answer::Enrolled(enrolled))) => Ok(Enrollment {
            enrolled: *enrolled,
            root: root.to_vec(),
        }),
        Ok(Ok(Answer::Refused { reason })) => Err(EnrollError::Refused {
            reason: sluice_protocol::ending::one_line(&reason),
        }),
        Ok(Err(LinkError::Busy)) => Err(EnrollError::Busy),
        Ok(Err(error)) => Err(EnrollError::Unanswered(error)),
        Err(_) => Err(EnrollError::Unanswered(LinkError::Lost {
            reason: "no answer in time".to_owned(),
        })),
    }
}

async fn exchange(link: &Link, request: &Request) -> Result<Answer, LinkError> {
    let ask = async {
        let (send, receive) = link.open_bi().await?;
        let mut sender = Sender::open(link, send, StreamKind::Enroll, priority::CONTROL);
        sender.send(request).await?;
        sender.finish()?;
        let mut receiver = Receiver::new(link, receive, StreamKind::Enroll);
        let answer = receiver.expect(StreamKind::Enroll.max_frame()).await?;
        receiver.expect_end().await?;
        Ok(answer)
    };
    tokio::select! {
        biased;
        answer = ask => answer,
        // A host opens nothing here.
        opened = link.accept() => Err(opened.map_or_else(|error| error, |_| link.violation("a stream of the host's"))),
    }
}
