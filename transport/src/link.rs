//! One QUIC connection, as the rest of the crate sees it.

use std::fmt::Display;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use quinn::{ConnectionError, ReadError, VarInt, WriteError};
use sluice_protocol::message::{CloseCode, Direction, Side, StreamKind};

use crate::error::LinkError;
use crate::limits;

/// How a link fares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LinkStats {
    /// The round-trip time, as estimated.
    pub rtt: Duration,
    /// Packets that were sent.
    pub sent_packets: u64,
    /// Packets that were sent and lost.
    pub lost_packets: u64,
    /// Bytes sent, UDP payload.
    pub sent_bytes: u64,
    /// Bytes received, UDP payload.
    pub received_bytes: u64,
}

/// A connection whose peer is verified, or has shown nothing and may do nothing but enroll.
#[derive(Debug, Clone)]
pub(crate) struct Link {
    connection: quinn::Connection,
    alpn: &'static [u8],
    peer: Side,
    /// Why this side closed the connection, if it was for something that the peer did or did not do.
    fault: Arc<OnceLock<Fault>>,
}

/// Why this side closed a connection.
#[derive(Debug)]
struct Fault {
    code: CloseCode,
    reason: String,
}

impl Fault {
    fn error(&self) -> LinkError {
        let reason = self.reason.clone();
        match self.code {
            CloseCode::Protocol => LinkError::Violation { reason },
            _ => LinkError::Lost { reason },
        }
    }
}

/// A stream that the peer has opened, before its first byte.
#[derive(Debug)]
pub(crate) enum Opened {
    Unidirectional(quinn::RecvStream),
    Bidirectional(quinn::SendStream, quinn::RecvStream),
}

impl Link {
    pub(crate) fn new(connection: quinn::Connection, alpn: &'static [u8], peer: Side) -> Self {
        Self {
            connection,
            alpn,
            peer,
            fault: Arc::default(),
        }
    }

    pub(crate) fn remote(&self) -> SocketAddr {
        self.connection.remote_address()
    }

    pub(crate) fn stats(&self) -> LinkStats {
        let stats = self.connection.stats();
        LinkStats {
            rtt: stats.path.rtt,
            sent_packets: stats.path.sent_packets,
            lost_packets: stats.path.lost_packets,
            sent_bytes: stats.udp_tx.bytes,
            received_bytes: stats.udp_rx.bytes,
        }
    }

    pub(crate) async fn open_uni(&self) -> Result<quinn::SendStream, LinkError> {
        self.connection
            .open_uni()
            .await
            .map_err(|error| self.lost(&error))
    }

    pub(crate) async fn open_bi(
        &self,
    ) -> Result<(quinn::SendStream, quinn::RecvStream), LinkError> {
        self.connection
            .open_bi()
            .await
            .map_err(|error| self.lost(&error))
    }

    /// The next stream that the peer opens. May be dropped and called again.
    pub(crate) async fn accept(&self) -> Result<Opened, LinkError> {
        tokio::select! {
            // Of two that have come at once, the control stream is the first.
            biased;
            stream = self.connection.accept_bi() => {
                let (send, receive) = stream.map_err(|error| self.lost(&error))?;
                Ok(Opened::Bidirectional(send, receive))
            }
            stream = self.connection.accept_uni() => {
                stream.map(Opened::Unidirectional).map_err(|error| self.lost(&error))
            }
        }
    }

    /// What the peer's stream is for, if its first byte says something that the peer may open here.
    pub(crate) fn kind(&self, byte: u8, direction: Direction) -> Result<StreamKind, LinkError> {
        match StreamKind::from_byte(byte) {
            Some(kind) if kind.allowed(self.alpn, self.peer, direction) => Ok(kind),
            Some(kind) => Err(self.violation(format_args!(
                "a {direction:?} {kind:?} stream is not allowed here"
            ))),
            None => Err(self.violation(format_args!("{byte} is no kind of stream"))),
        }
    }

    /// Closes the connection for something that the peer did.
    pub(crate) fn violation(&self, what: impl Display) -> LinkError {
        let reason = what.to_string();
        self.close_for(Fault {
            code: CloseCode::Protocol,
            reason,
        })
    }

    /// Closes the connection for something that the peer did not do in time. Its network may be slow: that is nobody's
    /// fault, and it may come back.
    pub(crate) fn too_slow(&self, what: &str) -> LinkError {
        self.close_for(Fault {
            code: CloseCode::Busy,
            reason: what.to_owned(),
        })
    }

    /// What the peer did that this side has closed the connection for.
    pub(crate) fn violated(&self) -> Option<&str> {
        let fault = self.fault.get()?;
        (fault.code == CloseCode::Protocol).then_some(fault.reason.as_str())
    }

    /// Closes the connection unless it is closed already, and says why it is.
    fn close_for(&self, fault: Fault) -> LinkError {
        if self.connection.close_reason().is_some() {
            return self.reason();
        }
        // Before the close, so that whoever wakes up for that finds it.
        let fault = self.fault.get_or_init(|| fault);
        tracing::warn!(remote = %self.remote(), reason = fault.reason, "closing a connection for what its peer did or did not do");
        self.close(fault.code, &fault.reason);
        fault.error()
    }

    /// Closes the connection. The first close counts.
    pub(crate) fn close(&self, code: CloseCode, reason: &str) {
        let mut end = reason.len().min(limits::REASON);
        while !reason.is_char_boundary(end) {
            end -= 1;
        }
        self.connection
            .close(VarInt::from_u32(code as u32), &reason.as_bytes()[..end]);
    }

    /// Waits until the connection is no more, and says why.
    pub(crate) async fn closed(&self) -> LinkError {
        let error = self.connection.closed().await;
        self.lost(&error)
    }

    /// Why the connection is no more.
    pub(crate) fn reason(&self) -> LinkError {
        self.connection
            .close_reason()
            .map_or(LinkError::Closed, |error| self.lost(&error))
    }

    pub(crate) fn lost(&self, error: &ConnectionError) -> LinkError {
        match (error, self.fault.get()) {
            (ConnectionError::LocallyClosed, Some(fault)) => fault.error(),
            _ => connection_error(error, &self.remote().to_string()),
        }
    }

    pub(crate) fn read_error(&self, error: &ReadError) -> LinkError {
        match error {
            ReadError::ConnectionLost(error) => self.lost(error),
            ReadError::Reset(_) => LinkError::Interrupted,
            _ => LinkError::Misuse("read from a stream that has ended"),
        }
    }

    pub(crate) fn write_error(&self, error: &WriteError) -> LinkError {
        match error {
            WriteError::ConnectionLost(error) => self.lost(error),
            WriteError::Stopped(_) => LinkError::Interrupted,
            _ => LinkError::Misuse("write to a stream that has ended"),
        }
    }
}

/// What quinn's error means. An alert (RFC 9001, section 4.8) that this side has raised is about the peer's certificate,
/// one that came from the peer is about this side's.
pub(crate) fn connection_error(error: &ConnectionError, address: &str) -> LinkError {
    match error {
        ConnectionError::ApplicationClosed(close) => {
            let reason = sluice_protocol::ending::one_line(&String::from_utf8_lossy(&close.reason));
            LinkError::closed_by_peer(close.error_code.into_inner(), reason)
        }
        ConnectionError::ConnectionClosed(close) => match alert(close.error_code.into()) {
            Some(NO_APPLICATION_PROTOCOL) => LinkError::Version {
                reason: "the peer knows no common ALPN".to_owned(),
            },
            Some(_) => LinkError::IdentityRefused {
                reason: sluice_protocol::ending::one_line(&close.to_string()),
            },
            None if u64::from(close.error_code) == CONNECTION_REFUSED => LinkError::Busy,
            None => LinkError::Lost {
                reason: sluice_protocol::ending::one_line(&close.to_string()),
            },
        },
        ConnectionError::TransportError(error) => match alert(error.code.into()) {
            Some(NO_APPLICATION_PROTOCOL) => LinkError::Version {
                reason: "the peer offers no known ALPN".to_owned(),
            },
            Some(_) => LinkError::UntrustedHost {
                address: address.to_owned(),
                reason: error.reason.clone(),
            },
            None => LinkError::Lost {
                reason: error.to_string(),
            },
        },
        ConnectionError::VersionMismatch => LinkError::Version {
            reason: "no common version of QUIC".to_owned(),
        },
        ConnectionError::LocallyClosed => LinkError::Closed,
        ConnectionError::TimedOut => LinkError::Lost {
            reason: "the peer is silent".to_owned(),
        },
        ConnectionError::Reset => LinkError::Lost {
            reason: "the peer does not know the connection".to_owned(),
        },
        ConnectionError::CidsExhausted => LinkError::Local("out of connection ids".to_owned()),
    }
}

fn alert(code: u64) -> Option<u64> {
    code.checked_sub(0x100).filter(|alert| *alert < 0x100)
}

/// RFC 7301, section 3.2.
const NO_APPLICATION_PROTOCOL: u64 = 120;
/// RFC 9000, section 20.1.
const CONNECTION_REFUSED: u64 = 2;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_around_those_of_alerts_are_no_alerts() {
        let alerts = [0, 1, 0xff, 0x100, 0x178, 0x1ff, 0x200, u64::MAX].map(alert);
        let expected = [None, None, None, Some(0), Some(120), Some(0xff), None, None];
        assert_eq!(alerts, expected);
    }
}
