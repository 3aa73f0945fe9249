//! Datagrams that are lost, late, doubled or out of order.
//!
//! A path leads from one IP address to another; each direction has a weather of its own. A machine may be behind a router
//! that gives it another address at any moment ([`Network::readdress`]): what others send to the old one is lost.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use sluice_transport::carrier::{self, Carrier};

use crate::random::Random;
use crate::world::Clock;

/// How many datagrams wait for a program to read them; more are lost, as in a socket's buffer.
const BUFFER: usize = 1024;
/// How long the queue in front of a slow path may get.
const QUEUE: Duration = Duration::from_millis(400);

/// How one direction of a path fares.
#[derive(Debug, Clone, PartialEq)]
pub struct Weather {
    /// How long a datagram takes. Those that take longer are overtaken.
    pub latency: Range<Duration>,
    /// How many of a thousand are lost.
    pub loss: u64,
    /// How many of a thousand come twice.
    pub doubled: u64,
    /// How many of a thousand are held back, so that many overtake them.
    pub held_back: u64,
    /// How many of a thousand begin a burst, in which nine of ten are lost, and how many end one (Gilbert-Elliott).
    pub bursts: Option<(u64, u64)>,
    /// Bytes a second.
    pub rate: Option<u64>,
    /// The largest datagram.
    pub largest: usize,
    /// Nothing comes through.
    pub is_blocked: bool,
}

impl Weather {
    /// A good path.
    #[must_use]
    pub const fn fair() -> Self {
        Self {
            latency: Duration::from_millis(5)..Duration::from_millis(8),
            loss: 0,
            doubled: 0,
            held_back: 0,
            bursts: None,
            rate: None,
            largest: 1500,
            is_blocked: false,
        }
    }

    /// Nothing comes through.
    #[must_use]
    pub const fn blocked() -> Self {
        Self {
            is_blocked: true,
            ..Self::fair()
        }
    }

    /// As bad as a path may be over which work still has to get done.
    #[must_use]
    pub fn foul(random: &mut Random) -> Self {
        let shortest = random.within(1..150);
        let spread = random.one_of(&[1, 5, 50]);
        Self {
            latency: Duration::from_millis(shortest)..Duration::from_millis(shortest + spread),
            loss: random.one_of(&[0, 10, 50, 200, 400]),
            doubled: random.one_of(&[0, 20, 200]),
            held_back: random.one_of(&[0, 20, 100]),
            bursts: random.one_of(&[None, None, Some((10, 200))]),
            rate: random.one_of(&[None, None, Some(16_000), Some(64_000)]),
            // The least that QUIC needs (RFC 9000, section 14).
            largest: random.one_of(&[1200, 1280, 1500]),
            is_blocked: false,
        }
    }
}

/// What became of datagrams.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Given to the network.
    pub sent: u64,
    /// Arrived, those that came twice counted twice.
    pub arrived: u64,
    /// Everything that was sent and when, as one number: equal where everything was.
    pub trace: u64,
}

/// A network in memory. A cheap handle.
#[derive(Clone)]
pub struct Network(Arc<Shared>);

struct Shared {
    clock: Clock,
    state: Mutex<State>,
}

struct State {
    random: Random,
    sockets: HashMap<SocketAddr, Weak<Buffer>>,
    under_way: BinaryHeap<Reverse<Datagram>>,
    count: u64,
    weather: HashMap<(IpAddr, IpAddr), Weather>,
    paths: HashMap<(IpAddr, IpAddr), Path>,
    /// What others see instead of a machine's own address.
    seen_as: HashMap<IpAddr, (IpAddr, u16)>,
    next_port: u16,
    counts: Counts,
}

#[derive(Debug, Default)]
struct Path {
    is_in_burst: bool,
    busy_until: Duration,
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Datagram {
    due: Duration,
    number: u64,
    from: SocketAddr,
    to: SocketAddr,
    bytes: Vec<u8>,
}

#[derive(Debug, Default)]
struct Buffer(Mutex<Arrived>);

/// What a program has not read yet, and how it is told of more.
#[derive(Debug, Default)]
struct Arrived {
    datagrams: VecDeque<(SocketAddr, Vec<u8>)>,
    reader: Option<Waker>,
}

impl fmt::Debug for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Network").finish_non_exhaustive()
    }
}

impl Network {
    /// A network of good paths.
    #[must_use]
    pub fn new(random: Random, clock: Clock) -> Self {
        Self(Arc::new(Shared {
            clock,
            state: Mutex::new(State {
                random,
                sockets: HashMap::new(),
                under_way: BinaryHeap::new(),
                count: 0,
                weather: HashMap::new(),
                paths: HashMap::new(),
                seen_as: HashMap::new(),
                next_port: 40_000,
                counts: Counts::default(),
            }),
        }))
    }

    /// The network for a program at this address.
    #[must_use]
    pub fn at(&self, ip: IpAddr) -> Carrier {
        Carrier::Network(Arc::new(Place {
            network: self.clone(),
            ip,
        }))
    }

    /// From here on the weather from `from` to `to`, which are programs' own addresses.
    pub fn set_weather(&self, from: IpAddr, to: IpAddr, weather: Weather) {
        let mut state = self.lock();
        state.paths.remove(&(from, to));
        state.weather.insert((from, to), weather);
    }

    /// From here on others see this address, and other ports, where the program at `own` is.
    pub fn readdress(&self, own: IpAddr, seen: IpAddr) {
        let mut state = self.lock();
        let shift = state
            .seen_as
            .get(&own)
            .map_or(1000, |(_, shift)| shift + 1000);
        state.seen_as.insert(own, (seen, shift));
    }

    /// What became of datagrams so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.lock().counts
    }

    /// When the next datagram is due.
    pub(crate) fn due(&self) -> Option<Duration> {
        let state = self.lock();
        state.under_way.peek().map(|Reverse(next)| next.due)
    }

    /// Delivers what is due.
    pub(crate) fn deliver(&self, now: Duration) {
        let mut woken = Vec::new();
        let mut state = self.lock();
        while let Some(Reverse(next)) = state.under_way.peek()
            && next.due <= now
        {
            let Some(Reverse(datagram)) = state.under_way.pop() else {
                break;
            };
            let Some(own) = state.own(datagram.to) else {
                continue;
            };
            let Some(buffer) = state.sockets.get(&own).and_then(Weak::upgrade) else {
                continue;
            };
            state.counts.arrived += 1;
            let mut arrived = buffer.lock();
            if arrived.datagrams.len() < BUFFER {
                arrived.datagrams.push_back((datagram.from, datagram.bytes));
                woken.extend(arrived.reader.take());
            }
        }
        drop(state);
        woken.into_iter().for_each(Waker::wake);
    }

    fn send(&self, from: SocketAddr, to: SocketAddr, bytes: &[u8]) {
        let now = self.0.clock.now();
        self.lock().send(now, from, to, bytes);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn send(&mut self, now: Duration, own: SocketAddr, to: SocketAddr, bytes: &[u8]) {
        self.counts.sent += 1;
        let nanos = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX);
        for part in [nanos, bytes.len() as u64] {
            self.counts.trace = (self.counts.trace ^ part).wrapping_mul(0x0100_0000_01b3);
        }
        let Some(there) = self.own(to) else { return };
        let key = (own.ip(), there.ip());
        let weather = self.weather.get(&key).cloned();
        let weather = weather.unwrap_or_else(Weather::fair);
        if weather.is_blocked || bytes.len() > weather.largest {
            return;
        }
        let random = &mut self.random;
        let path = self.paths.entry(key).or_default();
        if let Some((begins, ends)) = weather.bursts {
            let changes = if path.is_in_burst { ends } else { begins };
            path.is_in_burst ^= random.happens(changes);
            if path.is_in_burst && random.happens(900) {
                return;
            }
        }
        if random.happens(weather.loss) {
            return;
        }
        let mut leaves = now;
        if let Some(rate) = weather.rate {
            leaves = now.max(path.busy_until);
            if leaves - now > QUEUE {
                return;
            }
            let takes = Duration::from_nanos(bytes.len() as u64 * 1_000_000_000 / rate.max(1));
            path.busy_until = leaves + takes;
            leaves = path.busy_until;
        }
        let from = self.seen(own);
        for _ in 0..1 + u64::from(self.random.happens(weather.doubled)) {
            let mut takes = self.random.time(weather.latency.clone());
            if self.random.happens(weather.held_back) {
                takes += self.random.time(Duration::ZERO..Duration::from_millis(200));
            }
            self.count += 1;
            self.under_way.push(Reverse(Datagram {
                due: leaves + takes,
                number: self.count,
                from,
                to,
                bytes: bytes.to_vec(),
            }));
        }
    }

    /// What others see instead of a program's own address.
    fn seen(&self, own: SocketAddr) -> SocketAddr {
        match self.seen_as.get(&own.ip()) {
            Some((ip, shift)) => SocketAddr::new(*ip, own.port().wrapping_add(*shift)),
            None => own,
        }
    }

    /// The program's own address, where that is what others see at the moment.
    fn own(&self, seen: SocketAddr) -> Option<SocketAddr> {
        for (own, (ip, shift)) in &self.seen_as {
            if *ip == seen.ip() {
                return Some(SocketAddr::new(*own, seen.port().wrapping_sub(*shift)));
            }
        }
        (!self.seen_as.contains_key(&seen.ip())).then_some(seen)
    }
}

impl Buffer {
    fn lock(&self) -> MutexGuard<'_, Arrived> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The network as one program has it.
#[derive(Debug)]
struct Place {
    network: Network,
    ip: IpAddr,
}

impl carrier::Network for Place {
    fn bind(&self, address: SocketAddr) -> io::Result<Arc<dyn carrier::Socket>> {
        let mut state = self.network.lock();
        let port = match address.port() {
            0 => {
                state.next_port = state.next_port.wrapping_add(1).max(40_000);
                state.next_port
            }
            port => port,
        };
        let address = SocketAddr::new(self.ip, port);
        state.sockets.retain(|_, socket| socket.strong_count() > 0);
        if state.sockets.contains_key(&address) {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        let buffer = Arc::new(Buffer::default());
        state.sockets.insert(address, Arc::downgrade(&buffer));
        Ok(Arc::new(Socket {
            network: self.network.clone(),
            address,
            buffer,
        }))
    }
}

#[derive(Debug)]
struct Socket {
    network: Network,
    address: SocketAddr,
    buffer: Arc<Buffer>,
}

impl carrier::Socket for Socket {
    fn local_addr(&self) -> SocketAddr {
        self.address
    }

    fn send(&self, to: SocketAddr, datagram: &[u8]) {
        self.network.send(self.address, to, datagram);
    }

    fn poll_receive(
        &self,
        context: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<(usize, SocketAddr)> {
        let mut arrived = self.buffer.lock();
        match arrived.datagrams.pop_front() {
            Some((from, bytes)) => {
                let length = bytes.len().min(buffer.len());
                buffer[..length].copy_from_slice(&bytes[..length]);
                Poll::Ready((length, from))
            }
            None => {
                arrived.reader = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }
}
