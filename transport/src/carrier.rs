//! What carries datagrams: the system's sockets, or a network that a test has in memory.

use std::fmt;
use std::io::{self, IoSliceMut};
use std::net::{SocketAddr, UdpSocket};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, UdpPoller};

use crate::surroundings;

/// Where sockets come from. The system's by default; nothing of the product uses another one.
#[derive(Debug, Clone, Default)]
pub enum Carrier {
    /// UDP sockets of the system.
    #[default]
    System,
    /// Somebody else's.
    Network(Arc<dyn Network>),
}

/// A network other than the system's.
pub trait Network: fmt::Debug + Send + Sync {
    /// A socket at this address; with an unspecified IP or port 0, at one that the network chooses.
    ///
    /// # Errors
    ///
    /// Where the address is taken.
    fn bind(&self, address: SocketAddr) -> io::Result<Arc<dyn Socket>>;
}

/// A socket of such a network. Datagrams that cannot be delivered are lost, and nobody is told.
pub trait Socket: fmt::Debug + Send + Sync {
    /// Where it is.
    fn local_addr(&self) -> SocketAddr;

    /// Sends a datagram. Never waits.
    fn send(&self, to: SocketAddr, datagram: &[u8]);

    /// The next datagram: its length, and where it comes from. What does not fit into the buffer is cut off.
    fn poll_receive(
        &self,
        context: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<(usize, SocketAddr)>;
}

impl Carrier {
    /// An endpoint at `address`, and where that is. To be called within a tokio run time.
    pub(crate) fn endpoint(
        &self,
        address: SocketAddr,
        mut config: quinn::EndpointConfig,
        server: Option<quinn::ServerConfig>,
    ) -> io::Result<(quinn::Endpoint, SocketAddr)> {
        config.rng_seed(surroundings::seed());
        let runtime = Arc::new(quinn::TokioRuntime);
        match self {
            Self::System => {
                let socket = UdpSocket::bind(address)?;
                let address = socket.local_addr()?;
                let endpoint = quinn::Endpoint::new(config, server, socket, runtime)?;
                Ok((endpoint, address))
            }
            Self::Network(network) => {
                let socket = network.bind(address)?;
                let address = socket.local_addr();
                let socket = Arc::new(Adapted(socket));
                let endpoint =
                    quinn::Endpoint::new_with_abstract_socket(config, server, socket, runtime)?;
                Ok((endpoint, address))
            }
        }
    }
}

/// A socket as quinn wants it.
#[derive(Debug)]
struct Adapted(Arc<dyn Socket>);

impl AsyncUdpSocket for Adapted {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(Writable)
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let size = transmit
            .segment_size
            .unwrap_or(transmit.contents.len())
            .max(1);
        for datagram in transmit.contents.chunks(size) {
            self.0.send(transmit.destination, datagram);
        }
        Ok(())
    }

    fn poll_recv(
        &self,
        context: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let mut count = 0;
        for (buffer, meta) in buffers.iter_mut().zip(meta) {
            match self.0.poll_receive(context, buffer) {
                Poll::Ready((length, from)) => {
                    *meta = RecvMeta::default();
                    (meta.addr, meta.len, meta.stride) = (from, length, length);
                    count += 1;
                }
                Poll::Pending => break,
            }
        }
        if count > 0 {
            Poll::Ready(Ok(count))
        } else {
            Poll::Pending
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.0.local_addr())
    }

    fn may_fragment(&self) -> bool {
        false
    }
}

/// [`Socket::send`] never waits.
#[derive(Debug)]
struct Writable;

impl UdpPoller for Writable {
    fn poll_writable(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
