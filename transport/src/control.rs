//! The control stream: opened by the agent, first and once; it lives as long as the connection.
//!
//! ```text
//! agent: Hello -> (Facts | GatesReady | Renew)*            host: Welcome -> (Gates | Identity | Cancel | ...)*
//! ```
//! The first message of each direction opens it, and no later one is of that kind. Both ends are held to it, the local
//! one too.

use std::marker::PhantomData;

use serde::Serialize;
use serde::de::DeserializeOwned;
use sluice_protocol::message::control::{FromAgent, FromHost};

use crate::error::LinkError;
use crate::frame::{Receiver, Sender};

/// A message of the control stream.
pub trait ControlMessage: Serialize + DeserializeOwned + sealed::Sealed {
    /// Whether it is the one that opens its direction.
    fn is_opening(&self) -> bool;
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for super::FromAgent {}
    impl Sealed for super::FromHost {}
}

impl ControlMessage for FromAgent {
    fn is_opening(&self) -> bool {
        matches!(self, Self::Hello(_))
    }
}

impl ControlMessage for FromHost {
    fn is_opening(&self) -> bool {
        matches!(self, Self::Welcome(_))
    }
}

/// Both directions of the control stream: `In` is received, `Out` is sent.
#[derive(Debug)]
pub struct ControlStream<In, Out> {
    sender: ControlSender<Out>,
    receiver: ControlReceiver<In>,
}

/// The sending direction.
#[derive(Debug)]
pub struct ControlSender<Out> {
    sender: Sender,
    opened: bool,
    messages: PhantomData<fn(Out)>,
}

/// The receiving direction.
#[derive(Debug)]
pub struct ControlReceiver<In> {
    receiver: Receiver,
    opened: bool,
    messages: PhantomData<fn() -> In>,
}

impl<In: ControlMessage, Out: ControlMessage> ControlStream<In, Out> {
    pub(crate) const fn new(sender: Sender, receiver: Receiver) -> Self {
        Self {
            sender: ControlSender {
                sender,
                opened: false,
                messages: PhantomData,
            },
            receiver: ControlReceiver {
                receiver,
                opened: false,
                messages: PhantomData,
            },
        }
    }

    /// See [`ControlSender::send`].
    ///
    /// # Errors
    ///
    /// As there.
    pub async fn send(&mut self, message: &Out) -> Result<(), LinkError> {
        self.sender.send(message).await
    }

    /// See [`ControlReceiver::receive`].
    ///
    /// # Errors
    ///
    /// As there.
    pub async fn receive(&mut self) -> Result<In, LinkError> {
        self.receiver.receive().await
    }

    /// The two directions, for two tasks.
    #[must_use]
    pub fn split(self) -> (ControlSender<Out>, ControlReceiver<In>) {
        (self.sender, self.receiver)
    }
}

impl<Out: ControlMessage> ControlSender<Out> {
    /// Sends a message. If the future is dropped the message still counts as sent: its rest goes out before the next one.
    ///
    /// # Errors
    ///
    /// Where the connection is no more, the message is too long, or it is not its turn (a bug).
    pub async fn send(&mut self, message: &Out) -> Result<(), LinkError> {
        if message.is_opening() == self.opened {
            return Err(LinkError::Misuse(
                "the opening message of a control stream is the first, and no other is",
            ));
        }
        self.sender.send(message).await?;
        self.opened = true;
        Ok(())
    }
}

impl<In: ControlMessage> ControlReceiver<In> {
    /// The next message. May be dropped and called again without loss.
    ///
    /// # Errors
    ///
    /// Where the connection is no more, or the peer broke the protocol (which closes it). The end of the stream is
    /// [`LinkError::Interrupted`]: without control there is no link, so close it.
    pub async fn receive(&mut self) -> Result<In, LinkError> {
        let message: In = match self.receiver.receive().await? {
            Some(message) => message,
            None if self.opened => return Err(LinkError::Interrupted),
            None => {
                return Err(self
                    .receiver
                    .link()
                    .violation("a control stream without its opening message"));
            }
        };
        if message.is_opening() == self.opened {
            return Err(self
                .receiver
                .link()
                .violation("a control message out of turn"));
        }
        self.opened = true;
        Ok(message)
    }
}
