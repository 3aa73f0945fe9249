//! The streams that an agent opens, from their first byte to their first message. One task for each connection; first
//! messages are read side by side, so that a stream that lost a packet holds up no other.

use sluice_protocol::message::blob;
use sluice_protocol::message::control::{FromAgent, FromHost, Hello};
use sluice_protocol::message::operation::Progress;
use sluice_protocol::message::{CloseCode, Direction, StreamKind};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::connection::FromMachine;
use crate::blob::BlobResponder;
use crate::control::ControlStream;
use crate::error::LinkError;
use crate::frame::{Receiver, Sender, stream_kind};
use crate::limits::{self, priority};
use crate::link::{Link, Opened};
use crate::progress::{self, ProgressReceiver};
use crate::{SUPPORTED_VERSIONS, negotiate};

/// The handshake's message, and the stream that it came on.
pub(super) type Opening = (Hello, ControlStream<FromAgent, FromHost>);

/// Takes in everything that the agent opens, until the connection is no more.
pub(super) async fn accept_all(
    link: Link,
    opened: oneshot::Sender<Opening>,
    found: mpsc::Sender<FromMachine>,
) {
    match timeout(limits::CONTROL_TIME_LIMIT, control(&link)).await {
        // Fails where nobody waits for it any more: the connection is being closed.
        Ok(Ok(control)) => drop(opened.send(control)),
        // The connection has been closed, for this or another reason; or the stream was given up, and then it is now.
        Ok(Err(_)) => {
            link.violation("a control stream that was given up before `Hello`");
            return;
        }
        Err(_) => {
            link.too_slow("no `Hello` in time");
            return;
        }
    }
    let mut first_messages = JoinSet::new();
    loop {
        tokio::select! {
            stream = link.accept() => match stream {
                Ok(stream) => {
                    first_messages.spawn(first_message(link.clone(), stream));
                }
                Err(_) => return,
            },
            Some(done) = first_messages.join_next() => match done {
                Ok(Some(stream)) => {
                    if found.send(stream).await.is_err() {
                        return;
                    }
                }
                Ok(None) => {}
                Err(error) => tracing::error!(%error, "reading a stream failed"),
            },
        }
    }
}

/// The control stream, which is the first, with its first message. Until that is here no other stream may be opened.
async fn control(link: &Link) -> Result<Opening, LinkError> {
    let stream = link.accept().await?;
    let hello = async {
        let (send, mut receive) = match stream {
            Opened::Bidirectional(send, receive) => (send, receive),
            Opened::Unidirectional(_) => return Err(link.violation("a stream before `Hello`")),
        };
        let kind = stream_kind(link, &mut receive, Direction::Bidirectional).await?;
        if kind != StreamKind::Control {
            return Err(link.violation(format_args!("a {kind:?} stream before `Hello`")));
        }
        let sender = Sender::answer(link, send, kind, priority::CONTROL);
        let mut control = ControlStream::new(sender, Receiver::new(link, receive, kind));
        match control.receive().await? {
            FromAgent::Hello(hello) => Ok((*hello, control)),
            _ => Err(link.violation("a control stream that does not begin with `Hello`")),
        }
    };
    let (hello, control) = tokio::select! {
        biased;
        hello = hello => hello?,
        second = link.accept() => {
            return Err(second.map_or_else(|error| error, |_| link.violation("a second stream before `Hello`")));
        }
    };
    if negotiate(&hello.versions).is_none() {
        let reason = format!(
            "the host speaks {SUPPORTED_VERSIONS:?}, the agent {:?}",
            hello.versions
        );
        link.close(CloseCode::Version, &reason);
        return Err(LinkError::Version { reason });
    }
    Ok((hello, control))
}

/// What a stream is, once its first message is here. None where it was given up, or the connection is no more.
async fn first_message(link: Link, stream: Opened) -> Option<FromMachine> {
    match timeout(
        limits::FIRST_MESSAGE_TIME_LIMIT,
        read_first_message(&link, stream),
    )
    .await
    {
        Ok(read) => read.ok(),
        Err(_) => {
            link.too_slow("a stream without a first message");
            None
        }
    }
}

async fn read_first_message(link: &Link, stream: Opened) -> Result<FromMachine, LinkError> {
    match stream {
        Opened::Unidirectional(mut receive) => {
            // Of this direction `Progress` alone is allowed.
            let kind = stream_kind(link, &mut receive, Direction::Unidirectional).await?;
            let mut receiver = Receiver::new(link, receive, kind);
            match receiver.expect(progress::FIRST_FRAME).await? {
                Progress::Of(operation) => Ok(FromMachine::Progress(ProgressReceiver::new(
                    receiver, operation,
                ))),
                _ => Err(link.violation("a progress stream that does not begin with `Of`")),
            }
        }
        Opened::Bidirectional(send, mut receive) => {
            let kind = stream_kind(link, &mut receive, Direction::Bidirectional).await?;
            if kind != StreamKind::Blob {
                return Err(link.violation("a second control stream"));
            }
            let sender = Sender::answer(link, send, kind, priority::BLOB);
            let mut receiver = Receiver::new(link, receive, kind);
            let request: blob::Request = receiver.expect(kind.max_frame()).await?;
            receiver.expect_end().await?;
            Ok(FromMachine::Blob(BlobResponder::new(sender, request)))
        }
    }
}
