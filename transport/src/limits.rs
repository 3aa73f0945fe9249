//! Every number of this crate, each with its reason. quinn's defaults leave several of these unlimited.

use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::hmac;
use quinn::{EndpointConfig, IdleTimeout, ServerConfig, TransportConfig, VarInt};
use quinn_proto::HashedConnectionIdGenerator;

use crate::identity::Authority;

/// A peer that is silent for so long is gone. Long enough for a Wi-Fi that changes over, short enough that presence is
/// true within half a minute.
pub const IDLE_TIME_LIMIT: Duration = Duration::from_secs(30);

/// An agent says something this often: two can be lost before the idle limit, and NAT bindings for UDP live 30 s and
/// more (RFC 4787, section 4.3). Only agents do it, since one side is enough and a host has many.
pub const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// A handshake is two round trips; whoever needs longer is away or hostile.
pub const HANDSHAKE_TIME_LIMIT: Duration = Duration::from_secs(10);

/// For one address, before the next one is tried.
pub const CONNECT_TIME_LIMIT: Duration = Duration::from_secs(5);

/// From the end of the handshake to `Hello`, and from `Hello` to `Welcome`. Whoever needs longer is sent away and may come
/// back: a slow link is no violation.
pub const CONTROL_TIME_LIMIT: Duration = Duration::from_secs(10);

/// From a stream's opening to its first message. As long as the idle limit: packets of it may be lost.
pub const FIRST_MESSAGE_TIME_LIMIT: Duration = Duration::from_secs(30);

/// Everything about one enrollment, from the end of the handshake to the close.
pub const ENROLL_TIME_LIMIT: Duration = Duration::from_secs(15);

/// Of that, until the request is here. It is one message, and its sender has it ready.
pub const ENROLL_REQUEST_TIME_LIMIT: Duration = Duration::from_secs(5);

/// Handshakes that a host works on at a time. Each costs about a millisecond of a core (two signatures, one key
/// exchange); more would only wait for each other. Over it, connections are refused.
pub const MAX_HANDSHAKES: usize = 256;

/// With so many handshakes under way, a new peer must first show that it gets what is sent to its address (a QUIC Retry),
/// so that a flood from forged addresses costs a host no signature.
pub const RETRY_AT: usize = 64;

/// Handshakes of one source (an IPv4 address, an IPv6 network of 56 bits) at a time: an eighth of all, so that one that
/// begins many and ends none keeps nobody else out. Many machines may stand behind one address; at 50 ms each this is still
/// 600 a second.
pub const MAX_HANDSHAKES_OF_SOURCE: usize = 32;

/// With so many of one source under way, its peers must show their address first, so that nobody uses up what is another's
/// by forging its address.
pub const RETRY_AT_OF_SOURCE: usize = 8;

/// Connections of one host. At 40 KiB for an idle one this is 2 GiB.
pub const MAX_CONNECTIONS: usize = 50_000;

/// Enrollments that a host works on at a time: each is a write to its database.
pub const MAX_ENROLLMENTS: usize = 32;

/// Of those, of one source.
pub const MAX_ENROLLMENTS_OF_SOURCE: usize = 4;

/// How often one source may try to enroll in vain at once. Tokens cannot be guessed; this keeps the audit log, which has
/// each refusal, for those who look into it. Whoever is let in has tried for nothing, so that a site behind one address
/// enrolls as many machines as it likes.
pub const ENROLLMENT_TRIES: u32 = 10;

/// How soon one of those tries is given back.
pub const ENROLLMENT_TRY_EVERY: Duration = Duration::from_secs(6);

/// Streams whose first message is here, and that the program has not yet taken.
pub const QUEUED_STREAMS: usize = 16;

/// Streams that an agent may have open towards its host, both ways: control, and blobs.
const AGENT_BIDIRECTIONAL: u32 = 8;

/// Streams that an agent may have open towards its host, one way: progress of operations that run, and of those that are
/// reported again after a reconnect.
const AGENT_UNIDIRECTIONAL: u32 = 64;

/// Streams that a host may have open towards an agent, both ways. None is allowed; one can be opened, so that it is
/// answered with `CloseCode::Protocol` and not by silence.
const HOST_BIDIRECTIONAL: u32 = 1;

/// Streams that a host may have open towards an agent, one way: operations. With those that wait to be taken this bounds
/// what the transport keeps of them in memory to twice 4 times the longest one; what the program takes is its own to bound.
pub(crate) const HOST_UNIDIRECTIONAL: u32 = 4;

/// What a peer may send on one stream before it was read. Frames are taken out as they come, so that this bounds the
/// buffer and not the frame; 256 KiB for each round trip of 50 ms are 5 MB/s.
const STREAM_WINDOW: u32 = 256 << 10;

/// What a peer may send on all streams before it was read (default: unlimited).
const HOST_RECEIVE_WINDOW: u32 = 1 << 20;

/// The same on an agent, which has one connection alone and fetches plugins over it.
const AGENT_RECEIVE_WINDOW: u32 = 2 << 20;

/// How often a host answers packets of connections that it does not know (default: the same).
const RESETS: Duration = Duration::from_millis(20);

/// What is kept of what was sent until the peer has it (default: 10 MiB for each connection).
const SEND_WINDOW: u64 = 1 << 20;

/// How much is read from a stream at a time: a frame's length is a claim, and memory follows what came.
pub(crate) const READ_PIECE: usize = 64 << 10;

/// The longest reason in a close, in bytes. It must fit into one packet.
pub(crate) const REASON: usize = 256;

/// Larger is sent first. Control is small and urgent (cancel, acknowledge); blobs are large and can wait.
pub(crate) mod priority {
    pub(crate) const CONTROL: i32 = 2;
    pub(crate) const OPERATION: i32 = 1;
    pub(crate) const BLOB: i32 = 0;
}

fn transport(receive_window: u32, bidirectional: u32, unidirectional: u32) -> TransportConfig {
    let mut config = TransportConfig::default();
    config
        .max_idle_timeout(IdleTimeout::try_from(IDLE_TIME_LIMIT).ok())
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW))
        .receive_window(VarInt::from_u32(receive_window))
        .send_window(SEND_WINDOW)
        .max_concurrent_bidi_streams(VarInt::from_u32(bidirectional))
        .max_concurrent_uni_streams(VarInt::from_u32(unidirectional))
        // Datagrams carry nothing here.
        .datagram_receive_buffer_size(None)
        .datagram_send_buffer_size(0)
        // Tells an observer the round-trip time and nobody here anything.
        .allow_spin(false);
    config
}

/// Of a host's end of a connection: the numbers are what an *agent* may do.
pub(crate) fn host_transport() -> TransportConfig {
    transport(
        HOST_RECEIVE_WINDOW,
        AGENT_BIDIRECTIONAL,
        AGENT_UNIDIRECTIONAL,
    )
}

/// Of an agent's end of a connection: the numbers are what a *host* may do.
pub(crate) fn agent_transport() -> TransportConfig {
    let mut config = transport(
        AGENT_RECEIVE_WINDOW,
        HOST_BIDIRECTIONAL,
        HOST_UNIDIRECTIONAL,
    );
    config.keep_alive_interval(Some(KEEP_ALIVE));
    config
}

/// Of any end: QUIC version 1 alone; quinn would take the drafts too.
pub(crate) fn endpoint() -> EndpointConfig {
    let mut config = EndpointConfig::default();
    config.supported_versions(vec![1]);
    config
}

/// Of a host's end. A packet of a connection that the process before this one had is answered with a stateless reset
/// (RFC 9000, section 10.3), so that an agent finds out by its next word that the host was killed, and not by its idle limit.
/// One every 20 ms at most, whoever asks: the agents of a large fleet find out one after the other.
pub(crate) fn host_endpoint(authority: &Authority) -> EndpointConfig {
    let mut config = endpoint();
    let resets = authority.secret(b"sluice: resets of QUIC connections");
    let ids = authority.secret(b"sluice: ids of QUIC connections");
    let ids = ids.as_ref().first_chunk().copied().unwrap_or_default();
    let ids = u64::from_le_bytes(ids);
    config
        .reset_key(Arc::new(hmac::Key::new(hmac::HMAC_SHA256, resets.as_ref())))
        .cid_generator(move || Box::new(HashedConnectionIdGenerator::from_key(ids)))
        .min_reset_interval(RESETS);
    config
}

/// What a host keeps of connections before their handshake.
pub(crate) fn incoming(config: &mut ServerConfig) {
    let mut tokens = quinn::ValidationTokenConfig::default();
    // Agents keep no tokens between connections, so none is made for them.
    tokens.sent(0);
    config
        .transport_config(Arc::new(host_transport()))
        // They are taken at once, into a handshake or a refusal (default: 65,536 of 10 MiB each, 100 MiB in all).
        .max_incoming(1024)
        .incoming_buffer_size(16 << 10)
        .incoming_buffer_size_total(8 << 20)
        .validation_token_config(tokens)
        // A machine that changes its network keeps its connection; the new path is validated (RFC 9000, section 9).
        .migration(true);
}
