//! A host on loopback, and machines for it.

use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, SystemTime};

use sluice_protocol::ids::{HostId, MachineId, TenantId};
use sluice_protocol::message::control::{FromAgent, FromHost};
use tokio::time::timeout;

use super::messages;
use crate::agent::{AgentConnection, connect};
use crate::control::ControlStream;
use crate::host::{Arrival, HostConnection, HostEndpoint};
use crate::identity::{AgentIdentity, Authority, MachineIdentity, MachineKey};

pub(super) const LOOPBACK: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// Everything here takes milliseconds; what does not come within this does not come.
const PATIENCE: Duration = Duration::from_secs(8);

/// `future`, which must be done soon.
pub(super) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    timeout(PATIENCE, future)
        .await
        .unwrap_or_else(|_| panic!("{what} did not come in time"))
}

pub(super) fn new_authority() -> Authority {
    let folder = tempfile::tempdir().expect("temporary folder");
    Authority::create(&folder.path().join("authority")).expect("makes an authority")
}

pub(super) fn new_identity(authority: &Authority) -> AgentIdentity {
    let key = MachineKey::generate().expect("makes a key");
    let now = SystemTime::now();
    let request = key.request().expect("makes a request");
    let issued = authority
        .issue_machine(TenantId::generate(), MachineId::generate(), &request, now)
        .expect("issues");
    AgentIdentity::new(key, &issued.chain, authority.root_der(), now).expect("fits together")
}

pub(super) struct Fixture {
    pub(super) authority: Authority,
    pub(super) endpoint: HostEndpoint,
}

/// Both ends, after the handshake.
pub(super) struct Pair {
    pub(super) machine: MachineIdentity,
    pub(super) agent: AgentConnection,
    pub(super) agent_control: ControlStream<FromHost, FromAgent>,
    pub(super) host: HostConnection,
    pub(super) host_control: ControlStream<FromAgent, FromHost>,
}

impl Fixture {
    pub(super) fn new() -> Self {
        Self::with(new_authority())
    }

    pub(super) fn with(authority: Authority) -> Self {
        let endpoint = HostEndpoint::bind(LOOPBACK, &authority, HostId::generate()).expect("binds");
        Self {
            authority,
            endpoint,
        }
    }

    pub(super) fn addresses(&self) -> Vec<String> {
        vec![self.endpoint.local_addr().to_string()]
    }

    pub(super) async fn machine(&self) -> HostConnection {
        match soon("a machine", self.endpoint.accept()).await {
            Some(Arrival::Machine(machine)) => machine,
            other => panic!("expected a machine, got {other:?}"),
        }
    }

    pub(super) async fn pair(&self) -> Pair {
        let identity = new_identity(&self.authority);
        let addresses = self.addresses();
        let agent = async {
            let agent = connect(&addresses, &identity, None)
                .await
                .expect("connects");
            let (welcome, control) = agent
                .open_control(messages::hello())
                .await
                .expect("is welcome");
            assert_eq!(welcome, messages::welcome());
            (agent, control)
        };
        let host = async {
            let host = self.machine().await;
            let (_, mut control) = soon("hello", host.accept_control())
                .await
                .expect("says hello");
            control
                .send(&FromHost::Welcome(Box::new(messages::welcome())))
                .await
                .expect("sends");
            (host, control)
        };
        let ((agent, agent_control), (host, host_control)) = tokio::join!(agent, host);
        Pair {
            machine: identity.machine(),
            agent,
            agent_control,
            host,
            host_control,
        }
    }
}
