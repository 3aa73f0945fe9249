//! Somebody with a token, perhaps.

use std::net::IpAddr;
use std::time::SystemTime;

use sluice_protocol::message::enroll::{Answer, Enroll, Enrolled, Request};
use sluice_transport::host::EnrollConnection;

use super::Link;
use crate::fleet::{self, EnrollError};

/// Answers one request to join.
pub(super) async fn serve(link: &Link, connection: EnrollConnection) {
    let remote = connection.remote().ip();
    let answer = match connection.request() {
        Request::Enroll(request) => enroll(link, request, remote).await,
        Request::Reenroll { .. } => Answer::Refused {
            reason:
                "joining again with the old key is not implemented in this version; use a new token"
                    .to_owned(),
        },
    };
    if let Err(error) = connection.answer(&answer).await {
        tracing::info!(%remote, %error, "an answer to an enrollment did not arrive");
    }
}

async fn enroll(link: &Link, request: &Enroll, remote: IpAddr) -> Answer {
    let now = link.host.clock.now();
    let (authority, csr) = (link.authority.clone(), request.request.clone());
    let joined = fleet::admit(
        &link.host.store,
        request.token,
        &request.secret,
        &request.name,
        request.facts.clone(),
        remote,
        now,
        move |tenant, machine| {
            authority
                .issue_machine(tenant.id, machine, &csr, SystemTime::now())
                .map_err(|error| error.to_string())
        },
    )
    .await;
    match joined {
        Ok((joined, issued)) => {
            link.host.later.wake();
            tracing::info!(%remote, machine = %joined.machine, name = %joined.name, tenant = joined.tenant.name, "a machine has joined");
            Answer::Enrolled(Box::new(Enrolled {
                chain: issued.chain.into_iter().map(Into::into).collect(),
                name: joined.name.to_string(),
                tenant: joined.tenant.name,
            }))
        }
        Err(error) => {
            let from = remote.to_string();
            if let Err(store) =
                fleet::refuse(&link.host.store, request.token, &error, &from, now).await
            {
                tracing::error!(%store, "a refused enrollment could not be recorded");
            }
            let reason = match &error {
                EnrollError::Store(store) => {
                    tracing::error!(error = %store, "an enrollment failed");
                    "the host has a problem with its database; try again later".to_owned()
                }
                error => error.to_string(),
            };
            Answer::Refused { reason }
        }
    }
}
