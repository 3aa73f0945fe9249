//! Server-sent events: `/v1/jobs/{job}/events`, and the answer of `POST /v1/jobs` to whoever asks for them.

use std::convert::Infallible;
use std::time::{Duration, Instant};

use axum::extract::State;
use axum::response::Sse;
use axum::response::sse::{Event, KeepAlive};
use futures_util::{Stream, stream};
use serde::Serialize;
use sluice_api_types::event::{END, EndEvent, OUTPUT, RESULT, ROLLOUT, STATE};

use super::Refusal;
use super::auth::{Operator, allow};
use super::extract::Path;
use super::jobs::{job_id, no_job};
use crate::host::SharedHost;
use crate::jobs::{Followed, Follower};
use crate::operators::{self, Actor, Permission};

/// How long a stream may go on after its token was revoked.
const TOKEN_CHECK: Duration = Duration::from_secs(3);

/// Follows a job: `state`, `output`, `rollout` and `result` events from its start, and `end` when every operation has ended. Needs `ReadJobs`.
#[utoipa::path(
    get, path = "/v1/jobs/{job}/events", params(("job" = String, Path)),
    responses((status = 200, description = "Server-sent events: state, output, rollout, result, end", content_type = "text/event-stream", body = String))
)]
pub(super) async fn follow_job(
    State(host): State<SharedHost>,
    Operator(actor): Operator,
    Path(job): Path,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, Refusal> {
    allow(&host, &actor, Permission::ReadJobs, "follow a job").await?;
    let follower = Follower::new(host.clone(), actor.tenant.clone(), job_id(&job)?)?
        .ok_or_else(|| no_job(&job))?;
    Ok(stream(host, actor, follower, None))
}

/// What a follower sees, after a first event.
pub(super) fn stream(
    host: SharedHost,
    actor: Actor,
    follower: Follower,
    first: Option<Event>,
) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let watch = Watch {
        host,
        actor,
        follower,
        checked: Instant::now(),
    };
    let events = stream::unfold((watch, first), |(mut watch, first)| async move {
        let event = match first {
            Some(first) => first,
            None => watch.next().await?,
        };
        Some((Ok(event), (watch, None)))
    });
    Sse::new(events).keep_alive(KeepAlive::new().interval(Duration::from_secs(15)))
}

/// Somebody who watches a job with a token.
struct Watch {
    host: SharedHost,
    actor: Actor,
    follower: Follower,
    /// When the token was last looked at.
    checked: Instant,
}

impl Watch {
    /// The next event; none at the end, when the token is no good any more, or when the store fails: then the client, which
    /// has seen no `end`, asks again.
    async fn next(&mut self) -> Option<Event> {
        let mut followed = std::pin::pin!(self.follower.next());
        let followed = loop {
            // Also of a job that tells something all the time.
            let left = TOKEN_CHECK.saturating_sub(self.checked.elapsed());
            let followed = tokio::time::timeout(left, &mut followed).await;
            if self.checked.elapsed() >= TOKEN_CHECK {
                let (tenant, token) = (self.actor.tenant.id, self.actor.token);
                let (roles, now) = (&self.host.roles, self.host.clock.now());
                let source = &self.actor.source;
                let actor = self
                    .host
                    .store
                    .read(|conn| operators::on_behalf_of(conn, roles, tenant, token, source, now));
                actor.ok()?.require(Permission::ReadJobs).ok()?;
                self.checked = Instant::now();
            }
            if let Ok(followed) = followed {
                break followed;
            }
        };
        match followed {
            Ok(Some(Followed::State(event))) => json(STATE, &event),
            Ok(Some(Followed::Output(event))) => json(OUTPUT, &event),
            Ok(Some(Followed::Result(result))) => json(RESULT, &*result),
            Ok(Some(Followed::Rollout(rollout))) => json(ROLLOUT, &*rollout),
            Ok(Some(Followed::End)) => json(END, &EndEvent {}),
            Ok(None) => None,
            Err(error) => {
                tracing::error!(%error, "a job cannot be followed on");
                None
            }
        }
    }
}

/// An event with JSON as its data.
pub(super) fn json<T: Serialize>(name: &str, data: &T) -> Option<Event> {
    Event::default().event(name).json_data(data).ok()
}
