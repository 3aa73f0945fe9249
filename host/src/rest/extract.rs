//! Bodies, queries and answers, with refusals in the API's own form.

use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::request::Parts;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::Refusal;

/// How long a body may take to come. What a request may do is decided when it begins.
const BODY: Duration = Duration::from_secs(30);

/// A JSON body. Unknown fields are the types' to refuse.
#[derive(Debug)]
pub(super) struct Body<T>(pub(super) T);

impl<S, T> FromRequest<S> for Body<T>
where
    S: Send + Sync,
    T: DeserializeOwned,
{
    type Rejection = Refusal;

    async fn from_request(request: Request, state: &S) -> Result<Self, Refusal> {
        // Whoever asks was looked at before: a body that never comes must not keep what they were allowed to then.
        let bytes = tokio::time::timeout(BODY, Bytes::from_request(request, state))
            .await
            .map_err(|_| Refusal::invalid("the body did not come in time; nothing was done"))?
            .map_err(|rejection| {
                if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE {
                    Refusal::too_large("the body is larger than this route takes; nothing was done")
                } else {
                    Refusal::invalid("the body was broken off; nothing was done")
                }
            })?;
        serde_json::from_slice(&bytes).map(Self).map_err(|error| {
            Refusal::invalid(format!("the body is not the JSON that this route takes: {error}; see /v1/openapi.json; nothing was done"))
        })
    }
}

/// A query string.
#[derive(Debug)]
pub(super) struct Query<T>(pub(super) T);

impl<S, T> FromRequestParts<S> for Query<T>
where
    S: Send + Sync,
    T: DeserializeOwned,
{
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        axum::extract::Query::from_request_parts(parts, state)
            .await
            .map(|axum::extract::Query(query)| Self(query))
            .map_err(|rejection| {
                Refusal::invalid(format!(
                    "the query is not what this route takes: {}",
                    rejection.body_text()
                ))
            })
    }
}

/// The parameters in a path: one text, unless something else is said.
#[derive(Debug)]
pub(super) struct Path<T = String>(pub(super) T);

impl<S, T> FromRequestParts<S> for Path<T>
where
    S: Send + Sync,
    T: DeserializeOwned + Send,
{
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        axum::extract::Path::from_request_parts(parts, state)
            .await
            .map(|axum::extract::Path(found)| Self(found))
            .map_err(|rejection| {
                Refusal::invalid(format!(
                    "the path is not what this route takes: {}",
                    rejection.body_text()
                ))
            })
    }
}

/// A JSON answer. Answers are about one operator's view at one moment: nobody keeps them.
#[derive(Debug)]
pub(super) struct Answer<T>(pub(super) T);

impl<T: Serialize> IntoResponse for Answer<T> {
    fn into_response(self) -> Response {
        ([(header::CACHE_CONTROL, "no-store")], axum::Json(self.0)).into_response()
    }
}

/// Does what a request asks for to its end, also where the client does not wait for it: the server drops the future of a
/// handler whose client is gone, and what follows a commit (an operation is sent, a revoked machine's connection closed,
/// gates are announced) is not to depend on somebody waiting for an answer. A panic is answered as one of a handler is.
///
/// # Errors
///
/// Those of `work`.
pub(super) async fn uninterrupted<T: Send + 'static>(
    work: impl Future<Output = Result<T, Refusal>> + Send + 'static,
) -> Result<T, Refusal> {
    tokio::spawn(work)
        .await
        .unwrap_or_else(|_| Err(Refusal::bug()))
}

/// What a page may have at most, and what it has where nothing is said.
pub(super) fn limit(asked: Option<u32>) -> Result<u32, Refusal> {
    const MOST: u32 = 1000;
    const USUAL: u32 = 100;
    match asked {
        None => Ok(USUAL),
        Some(0) => Err(Refusal::invalid("limit must be at least 1")),
        Some(limit) => Ok(limit.min(MOST)),
    }
}

/// Where the next page begins; none where this one is not full.
pub(super) fn next<T>(page: &[T], limit: u32, place: impl FnOnce(&T) -> String) -> Option<String> {
    let last = page.last().filter(|_| page.len() == limit as usize);
    last.map(place)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn work_that_panics_is_answered_as_a_bug() {
        let refused = uninterrupted::<()>(async { panic!("on purpose") }).await;
        assert_eq!(refused, Err(Refusal::bug()));
    }
}
