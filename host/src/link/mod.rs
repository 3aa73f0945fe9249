//! The machines' connections: the only part of the host that knows the transport.
//!
//! ```text
//! HostEndpoint -> Arrival::Enrollment -> enroll    (a token becomes a certificate)
//!              -> Arrival::Machine    -> session   (Hello, Welcome, Gates; operations out, progress and blobs in)
//! ```

mod blob;
mod enroll;
mod progress;
mod session;
mod violations;

use std::sync::Arc;

use sluice_transport::host::{Arrival, HostEndpoint};
use sluice_transport::identity::Authority;
use tokio_util::task::TaskTracker;

use self::violations::Violations;
use crate::host::SharedHost;

/// What connections need beyond the host's shared parts.
#[derive(Clone)]
pub struct Link {
    host: SharedHost,
    authority: Authority,
    violations: Arc<Violations>,
    tasks: TaskTracker,
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Link").finish_non_exhaustive()
    }
}

impl Link {
    /// Serves connections for `host` with certificates of `authority`.
    #[must_use]
    pub fn new(host: SharedHost, authority: Authority) -> Self {
        Self {
            host,
            authority,
            violations: Arc::default(),
            tasks: TaskTracker::new(),
        }
    }

    /// Takes in who comes, until the endpoint is closed.
    pub async fn accept_all(&self, endpoint: Arc<HostEndpoint>) {
        while let Some(arrival) = endpoint.accept().await {
            let link = self.clone();
            match arrival {
                Arrival::Machine(connection) => drop(
                    self.tasks
                        .spawn(async move { session::serve(&link, connection).await }),
                ),
                Arrival::Enrollment(connection) => drop(
                    self.tasks
                        .spawn(async move { enroll::serve(&link, *connection).await }),
                ),
            }
        }
    }

    /// Waits for the tasks of connections, once the endpoint is closed.
    pub async fn finished(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }
}

#[cfg(test)]
mod tests;
