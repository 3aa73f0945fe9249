//! A connection that may enroll and nothing else: one stream, one request, one answer, within one time limit.

use std::net::SocketAddr;
use std::sync::Arc;

use sluice_protocol::message::enroll::{Answer, Request};
use sluice_protocol::message::{CloseCode, Direction, StreamKind};
use tokio::time::{Instant, timeout, timeout_at};

use super::sources::{Place, Places, Source, Tries};
use crate::error::LinkError;
use crate::frame::{Receiver, Sender, stream_kind};
use crate::limits;
use crate::link::{Link, Opened};

/// Somebody who wants to enroll. Nothing about them is verified; the request has to speak for itself. Dropped without an
/// answer, it closes the connection.
#[derive(Debug)]
pub struct EnrollConnection {
    request: Request,
    sender: Option<Sender>,
    link: Link,
    deadline: Instant,
    place: Place,
    tries: Arc<Tries>,
}

impl EnrollConnection {
    /// What is asked for.
    #[must_use]
    pub const fn request(&self) -> &Request {
        &self.request
    }

    /// Where it comes from.
    #[must_use]
    pub fn remote(&self) -> SocketAddr {
        self.link.remote()
    }

    /// Answers, and waits until the other side has the answer and closes, or its time is over.
    ///
    /// # Errors
    ///
    /// Where the connection is no more: whether the answer arrived is then unknown.
    pub async fn answer(mut self, answer: &Answer) -> Result<(), LinkError> {
        let Some(mut sender) = self.sender.take() else {
            return Err(LinkError::Misuse("a second answer"));
        };
        if matches!(answer, Answer::Enrolled(_)) {
            self.tries.give_back(self.place.source());
        }
        let answered = async {
            sender.send(answer).await?;
            sender.finish()?;
            match self.link.closed().await {
                LinkError::Done => Ok(()),
                error => Err(error),
            }
        };
        timeout_at(self.deadline, answered)
            .await
            .unwrap_or(Err(LinkError::Lost {
                reason: "no time left".to_owned(),
            }))
    }
}

impl Drop for EnrollConnection {
    fn drop(&mut self) {
        self.link.close(CloseCode::Done, "");
    }
}

/// The enrollments of a host. A cheap handle.
#[derive(Debug, Clone)]
pub(super) struct Enrollments {
    places: Arc<Places>,
    tries: Arc<Tries>,
}

impl Enrollments {
    pub(super) fn new() -> Self {
        Self {
            places: Places::new(limits::MAX_ENROLLMENTS, limits::MAX_ENROLLMENTS_OF_SOURCE),
            tries: Arc::default(),
        }
    }

    /// Waits for the request. None where it does not come, or is not what is allowed here, or there are too many.
    pub(super) async fn arrive(&self, link: Link) -> Option<EnrollConnection> {
        let source = Source::of(link.remote());
        let Some(place) = self.places.take(source) else {
            link.close(
                CloseCode::Busy,
                "too many enrollments at a time; try again later",
            );
            return None;
        };
        let now = Instant::now();
        if !self.tries.take(source, now.into_std()) {
            tracing::info!(remote = %link.remote(), "too many enrollments of one address came to nothing");
            link.close(
                CloseCode::Busy,
                "too many enrollments from here came to nothing; try again in a minute",
            );
            return None;
        }
        let request = timeout(limits::ENROLL_REQUEST_TIME_LIMIT, request(&link)).await;
        let (sender, request) = match request {
            Ok(Ok(request)) => request,
            Ok(Err(error)) => {
                tracing::info!(remote = %link.remote(), %error, "an enrollment failed");
                // Does nothing where that is why it has failed.
                link.violation("an enrollment that was given up");
                return None;
            }
            Err(_) => {
                link.too_slow("no request came in time");
                return None;
            }
        };
        let deadline = now + limits::ENROLL_TIME_LIMIT;
        tokio::spawn(watch(link.clone(), deadline));
        Some(EnrollConnection {
            request,
            sender: Some(sender),
            link,
            deadline,
            place,
            tries: Arc::clone(&self.tries),
        })
    }
}

/// The one request, on the one stream.
async fn request(link: &Link) -> Result<(Sender, Request), LinkError> {
    let stream = link.accept().await?;
    let first = async {
        let (kind, send, receive) = match stream {
            Opened::Bidirectional(send, mut receive) => {
                let kind = stream_kind(link, &mut receive, Direction::Bidirectional).await?;
                (kind, send, receive)
            }
            Opened::Unidirectional(mut receive) => {
                stream_kind(link, &mut receive, Direction::Unidirectional).await?;
                return Err(link.violation("a stream of the wrong direction"));
            }
        };
        let mut receiver = Receiver::new(link, receive, kind);
        let request = receiver.expect(StreamKind::Enroll.max_frame()).await?;
        receiver.expect_end().await?;
        Ok((
            Sender::answer(link, send, kind, limits::priority::CONTROL),
            request,
        ))
    };
    tokio::select! {
        biased;
        request = first => request,
        second = link.accept() => Err(second.map_or_else(|error| error, |_| one_stream(link))),
    }
}

/// Holds the peer to one stream and one time limit, for as long as the connection lasts.
async fn watch(link: Link, deadline: Instant) {
    match timeout_at(deadline, link.accept()).await {
        Ok(Ok(_second)) => {
            one_stream(&link);
        }
        Ok(Err(_closed)) => {}
        // Not `Busy`, which says that nothing has happened: the request may have been answered.
        Err(_) => link.close(CloseCode::Done, "the enrollment took too long"),
    }
}

fn one_stream(link: &Link) -> LinkError {
    link.violation("more than one stream on a connection that enrolls")
}
