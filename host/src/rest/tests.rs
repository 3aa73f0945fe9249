//! The API as its clients see it: requests through the router.

use std::time::Duration;

use axum::body::Body;
use axum::http::{Method, Request, StatusCode, header};
use axum::response::Response;
use futures_util::FutureExt as _;
use serde_json::{Value, json};
use tower::ServiceExt as _;

use super::*;
use crate::operators::{BearerToken, Permission};
use crate::testing::TestHost;

mod matrix;

/// An answer: its status, media type and body.
struct Got {
    status: StatusCode,
    media: String,
    body: Vec<u8>,
}

impl Got {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|_| panic!("no JSON: {}", String::from_utf8_lossy(&self.body)))
    }

    /// The code of a refusal, which has the form that refusals have.
    fn refused(&self) -> (u16, String) {
        assert_eq!(self.media, "application/problem+json");
        let problem = self.json();
        assert_eq!(problem["status"], self.status.as_u16());
        assert!(
            problem["detail"]
                .as_str()
                .is_some_and(|detail| !detail.is_empty()),
            "{problem}"
        );
        (
            self.status.as_u16(),
            problem["code"].as_str().expect("a code").to_owned(),
        )
    }
}

async fn send(
    test: &TestHost,
    method: Method,
    path: &str,
    token: Option<&BearerToken>,
    body: impl Into<Body>,
) -> Got {
    let mut request = Request::builder().method(method).uri(path);
    if let Some(token) = token {
        request = request.header(header::AUTHORIZATION, format!("Bearer {}", token.reveal()));
    }
    let request = request.body(body.into()).expect("a request");
    got(router(test.host.clone())
        .oneshot(request)
        .await
        .expect("answers"))
    .await
}

async fn got(response: Response) -> Got {
    let status = response.status();
    let media = response
        .headers()
        .get(header::CONTENT_TYPE)
        .map_or_else(String::new, |media| {
            media.to_str().unwrap_or_default().to_owned()
        });
    let body = axum::body::to_bytes(response.into_body(), 1 << 24)
        .await
        .expect("a body")
        .to_vec();
    Got {
        status,
        media,
        body,
    }
}

async fn ask(test: &TestHost, method: Method, path: &str, body: Value) -> Got {
    send(test, method, path, Some(&test.token), body.to_string()).await
}

async fn get(test: &TestHost, path: &str) -> Got {
    send(test, Method::GET, path, Some(&test.token), Body::empty()).await
}

fn job(machine: &str) -> Value {
    json!({"script": "IyEvYmluL3NoCmVjaG8gaGkK", "machines": [machine]})
}

/// Every route of the document, with its parameters filled in.
fn every_route() -> Vec<(Method, String)> {
    let document = serde_json::to_value(openapi()).expect("a document");
    let paths = document["paths"].as_object().expect("paths").clone();
    paths
        .iter()
        .flat_map(|(path, item)| {
            let path: String = path
                .split('/')
                .map(|part| if part.starts_with('{') { "x" } else { part })
                .collect::<Vec<_>>()
                .join("/");
            let methods = ["get", "post", "put", "patch", "delete"]
                .into_iter()
                .filter(|method| item.get(*method).is_some());
            methods
                .map(move |method| {
                    (
                        method.to_uppercase().parse().expect("a method"),
                        path.clone(),
                    )
                })
                .collect::<Vec<_>>()
        })
        .collect()
}

/// Routes that need no token.
const OPEN: &[&str] = &["/healthz", "/readyz", "/metrics"];

/// A body that a route takes, as far as its form goes.
fn body_for(path: &str) -> Value {
    match path {
        "/v1/jobs" | "/v1/jobs/preview" => job("web-1"),
        "/v1/schedules" => json!({"name": "x", "every": "1h", "job": job("web-1")}),
        "/v1/publishers" => json!({"key": "x"}),
        "/v1/plugins" => json!({"component": "", "signature": ""}),
        "/v1/bindings" | "/v1/plugins/backtest" => json!({"plugin": "x"}),
        "/v1/tokens" => json!({"name": "x", "permissions": []}),
        "/v1/standing-approvals" => json!({"targets": 1}),
        "/v1/scripts" => json!({"name": "x", "script": "IyEvYmluL3NoCg=="}),
        "/v1/secrets/x" | "/v1/secrets/x/rotate" => json!({"value": "aHVudGVyMjI="}),
        _ => json!({}),
    }
}

#[test]
fn the_committed_description_is_that_of_the_routes() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/openapi.json");
    let text = openapi_text().expect("a document");
    if std::env::var_os("SLUICE_WRITE_OPENAPI").is_some() {
        std::fs::write(path, &text).expect("writes");
    }
    let committed = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        committed == text,
        "host/openapi.json is not up to date; run this test with SLUICE_WRITE_OPENAPI=1, or: sluice-host openapi"
    );
}

#[tokio::test]
async fn no_route_but_those_of_watchers_answers_without_a_token() {
    let test = TestHost::new().await;
    let since = std::time::Instant::now();
    for (method, path) in every_route() {
        let got = send(
            &test,
            method.clone(),
            &path,
            None,
            body_for(&path).to_string(),
        )
        .await;
        if OPEN.contains(&path.as_str()) {
            assert_eq!(got.status, StatusCode::OK, "{method} {path}");
        } else {
            assert_eq!(
                got.refused(),
                (401, "unauthenticated".to_owned()),
                "{method} {path}"
            );
        }
    }
    let noted = test.count_audited("authentication_failed").await as u64;
    let most = since.elapsed().as_secs() + 1;
    assert!(
        (1..=most).contains(&noted) && most < every_route().len() as u64,
        "a flood is one entry a second: {noted} in {most}"
    );
}

#[tokio::test]
async fn whoami_names_the_operator_and_what_it_may_do() {
    let test = TestHost::new().await;
    let got = get(&test, "/v1/whoami").await.json();
    assert_eq!(
        (got["operator"].as_str(), got["tenant"].as_str()),
        (Some("admin"), Some("default"))
    );
    assert_eq!(
        got["permissions"].as_array().map(Vec::len),
        Some(Permission::ALL.len())
    );
}

#[tokio::test]
async fn a_job_is_made_listed_read_and_followed() {
    let test = TestHost::new().await;
    let made = ask(&test, Method::POST, "/v1/jobs", job("no-such-machine")).await;
    assert_eq!(made.status, StatusCode::CREATED);
    let made = made.json();
    let (id, operation) = (
        made["job"].as_str().expect("an id"),
        made["operations"][0]["operation"].as_str().expect("an id"),
    );
    assert_eq!(made["operations"][0]["message"], "Machine not found");
    assert_eq!(get(&test, &format!("/v1/jobs/{id}")).await.json(), made);
    assert_eq!(
        get(&test, "/v1/jobs?limit=1").await.json()["items"][0]["job"],
        id
    );
    let result = get(&test, &format!("/v1/operations/{operation}"))
        .await
        .json();
    assert_eq!(
        (result["machine"].as_str(), result["exit_code"].as_i64()),
        (Some("no-such-machine"), Some(-1))
    );
    let events = get(&test, &format!("/v1/jobs/{id}/events")).await;
    assert_eq!(events.media, "text/event-stream");
    let text = String::from_utf8(events.body).expect("text");
    let names: Vec<_> = text
        .lines()
        .filter_map(|line| line.strip_prefix("event: "))
        .collect();
    assert_eq!(names, ["state", "result", "end"]);
    let output = get(
        &test,
        &format!("/v1/operations/{operation}/output?stream=stdout"),
    )
    .await;
    assert_eq!((output.status, output.body.len()), (StatusCode::OK, 0));
}

#[tokio::test]
async fn pages_of_jobs_follow_each_other_without_gaps() {
    let test = TestHost::new().await;
    let mut made = Vec::new();
    for _ in 0..5 {
        made.push(
            ask(&test, Method::POST, "/v1/jobs", job("x")).await.json()["job"]
                .as_str()
                .expect("an id")
                .to_owned(),
        );
    }
    made.reverse();
    let (mut found, mut path) = (Vec::new(), "/v1/jobs?limit=2".to_owned());
    loop {
        let page = get(&test, &path).await.json();
        found.extend(
            page["items"]
                .as_array()
                .expect("items")
                .iter()
                .map(|item| item["job"].as_str().expect("an id").to_owned()),
        );
        let Some(next) = page["next"].as_str() else {
            break;
        };
        path = format!("/v1/jobs?limit=2&after={next}");
    }
    assert_eq!(found, made);
}

#[tokio::test]
async fn a_list_of_jobs_is_narrowed_by_what_the_query_says() {
    let test = TestHost::new().await;
    test.machine("web-1").await;
    test.machine("web-2").await;
    let mut made = Vec::new();
    for machine in ["web-1", "web-2", "nowhere"] {
        let job = ask(&test, Method::POST, "/v1/jobs", job(machine)).await;
        made.push(job.json()["job"].as_str().expect("an id").to_owned());
    }
    let operator = get(&test, "/v1/jobs").await.json()["items"][0]["operator"]
        .as_str()
        .expect("a name")
        .to_owned();
    let of_operator = format!("operator={operator}");
    for (query, expected) in [
        ("machine=web-2", vec![1]),
        ("state=queued", vec![1, 0]),
        ("state=failed", vec![2]),
        ("status=failed", vec![2]),
        ("status=failed&state=failed", vec![2]),
        ("status=success", vec![]),
        ("machine=web-1&status=failed", vec![]),
        ("script=backup", vec![]),
        (&of_operator, vec![2, 1, 0]),
        ("operator=nobody", vec![]),
        ("since=2020-01-01T00:00:00Z", vec![2, 1, 0]),
        ("until=2020-01-01T00:00:00Z", vec![]),
    ] {
        let page = get(&test, &format!("/v1/jobs?{query}")).await.json();
        let items = page["items"].as_array().expect("items").iter();
        let found: Vec<_> = items
            .map(|item| item["job"].as_str().expect("an id"))
            .collect();
        let expected: Vec<_> = expected.into_iter().map(|at: usize| &made[at]).collect();
        assert_eq!(found, expected, "{query}");
    }
}

#[tokio::test]
async fn what_a_list_of_jobs_cannot_be_narrowed_to_is_said_exactly() {
    let test = TestHost::new().await;
    let (stranger, _) = test.stranger().await;
    let theirs = sluice_protocol::ids::MachineId::generate();
    let insert = move |conn: &crate::store::Connection| {
        let tenant = stranger.tenant.id;
        crate::store::machines::insert(conn, tenant, theirs, "theirs", &[], crate::testing::NOW)
    };
    test.host.store.write(insert).await.expect("enrolls");
    let of_theirs = format!("machine={theirs}");
    for (query, status, code, detail) in [
        ("after=5", 400, "invalid-request", "after: "),
        (
            "state=done",
            400,
            "invalid-request",
            "state: there is no done; it is one of held, queued, ",
        ),
        (
            "status=ok",
            400,
            "invalid-request",
            "status: there is no ok; it is one of success, failed, blocked, error",
        ),
        (
            "state=running&status=failed",
            400,
            "invalid-request",
            "no operation in state running has the status failed",
        ),
        ("script=a%20b", 400, "invalid-request", "script: "),
        (
            "since=yesterday",
            400,
            "invalid-request",
            "since: expected a time like ",
        ),
        (
            "until=5",
            400,
            "invalid-request",
            "until: expected a time like ",
        ),
        (
            "limit=0",
            400,
            "invalid-request",
            "limit must be at least 1",
        ),
        (
            "color=red",
            400,
            "invalid-request",
            "the query is not what this route takes",
        ),
        (
            "machine=web-9",
            404,
            "machine-not-found",
            "there is no machine web-9",
        ),
        (
            "machine=theirs",
            404,
            "machine-not-found",
            "there is no machine theirs",
        ),
        (&of_theirs, 404, "machine-not-found", "there is no machine "),
    ] {
        let got = get(&test, &format!("/v1/jobs?{query}")).await;
        assert_eq!(got.refused(), (status, code.to_owned()), "{query}");
        let said = got.json()["detail"].as_str().expect("a detail").to_owned();
        assert!(said.starts_with(detail), "{query}: {said}");
    }
}

#[tokio::test]
async fn what_is_anothers_is_answered_as_what_is_not_there() {
    let test = TestHost::new().await;
    test.machine("web-1").await;
    let made = ask(&test, Method::POST, "/v1/jobs", job("web-1"))
        .await
        .json();
    let nightly = json!({"name": "nightly", "cron": "0 3 * * *", "job": job("web-1")});
    let added = ask(&test, Method::POST, "/v1/schedules", nightly).await;
    assert_eq!(added.status, StatusCode::CREATED);
    let (_, stranger) = test.stranger().await;
    let (id, operation) = (
        made["job"].as_str().expect("an id"),
        made["operations"][0]["operation"].as_str().expect("an id"),
    );
    let none = sluice_protocol::ids::JobId::generate();
    let pairs = [
        (
            Method::GET,
            format!("/v1/jobs/{id}"),
            format!("/v1/jobs/{none}"),
        ),
        (
            Method::GET,
            format!("/v1/jobs/{id}/events"),
            format!("/v1/jobs/{none}/events"),
        ),
        (
            Method::POST,
            format!("/v1/jobs/{id}/cancel"),
            format!("/v1/jobs/{none}/cancel"),
        ),
        (
            Method::GET,
            format!("/v1/operations/{operation}"),
            format!("/v1/operations/{none}"),
        ),
        (
            Method::GET,
            format!("/v1/operations/{operation}/output?stream=stdout"),
            format!("/v1/operations/{none}/output?stream=stdout"),
        ),
        (
            Method::GET,
            "/v1/machines/web-1".to_owned(),
            "/v1/machines/none".to_owned(),
        ),
        (
            Method::DELETE,
            "/v1/machines/web-1".to_owned(),
            "/v1/machines/none".to_owned(),
        ),
        (
            Method::GET,
            "/v1/schedules/nightly".to_owned(),
            "/v1/schedules/none".to_owned(),
        ),
        (
            Method::GET,
            "/v1/schedules/nightly/runs".to_owned(),
            "/v1/schedules/none/runs".to_owned(),
        ),
        (
            Method::POST,
            "/v1/schedules/nightly/pause".to_owned(),
            "/v1/schedules/none/pause".to_owned(),
        ),
        (
            Method::DELETE,
            "/v1/schedules/nightly".to_owned(),
            "/v1/schedules/none".to_owned(),
        ),
    ];
    for (method, theirs, nobodys) in pairs {
        let one = send(
            &test,
            method.clone(),
            &theirs,
            Some(&stranger),
            Body::empty(),
        )
        .await;
        let other = send(
            &test,
            method.clone(),
            &nobodys,
            Some(&stranger),
            Body::empty(),
        )
        .await;
        assert_eq!(one.status, StatusCode::NOT_FOUND, "{method} {theirs}");
        assert_eq!(one.refused(), other.refused(), "{method} {theirs}");
    }
    for path in [
        "/v1/jobs?tenant=default",
        "/v1/jobs?tenant=none",
        "/v1/machines?tenant=default",
        "/v1/audit?tenant=default",
        "/v1/schedules?tenant=default",
        "/v1/whoami?tenant=default",
    ] {
        let got = send(&test, Method::GET, path, Some(&stranger), Body::empty()).await;
        assert_eq!(
            got.refused(),
            (404, "tenant-not-found".to_owned()),
            "{path}"
        );
    }
    let list = send(
        &test,
        Method::GET,
        "/v1/machines",
        Some(&stranger),
        Body::empty(),
    )
    .await
    .json();
    assert_eq!(list["items"], json!([]));
    let kept = get(&test, "/v1/schedules/nightly").await.json();
    assert_eq!(kept["state"], "active", "nothing was changed");
    assert_eq!(
        get(&test, "/v1/machines/web-1").await.status,
        StatusCode::OK,
        "nothing was changed"
    );
}

#[tokio::test]
async fn another_tenants_administrator_neither_locks_the_host_down_nor_lifts_that() {
    let test = TestHost::new().await;
    let (_, stranger) = test.stranger().await;
    let ours = ask(
        &test,
        Method::PUT,
        "/v1/lockdown",
        json!({"reason": "drill"}),
    )
    .await;
    assert_eq!(
        (ours.json()["on"].as_bool(), ours.json()["reason"].as_str()),
        (Some(true), Some("drill"))
    );
    for (method, body) in [(Method::PUT, "{}"), (Method::DELETE, "")] {
        let theirs = send(&test, method, "/v1/lockdown", Some(&stranger), body).await;
        assert_eq!(
            theirs.refused(),
            (403, "not-the-hosts-administrator".to_owned())
        );
    }
    let refused = ask(&test, Method::POST, "/v1/jobs", job("web-1")).await;
    assert_eq!(refused.refused(), (423, "locked-down".to_owned()));
    let lifted = ask(&test, Method::DELETE, "/v1/lockdown", Value::Null).await;
    assert_eq!(lifted.json()["on"], false);
    let made = ask(&test, Method::POST, "/v1/jobs", job("web-1")).await;
    assert_eq!(made.status, StatusCode::CREATED);
}

#[tokio::test]
async fn malformed_requests_get_exact_errors() {
    let test = TestHost::new().await;
    let mut with = job("web-1");
    with["machine"] = "x".into();
    let table = [
        (
            Method::POST,
            "/v1/jobs",
            with.to_string(),
            400,
            "invalid-request",
            "unknown field `machine`",
        ),
        (
            Method::POST,
            "/v1/jobs",
            "{".to_owned(),
            400,
            "invalid-request",
            "line 1 column 1",
        ),
        (
            Method::POST,
            "/v1/jobs",
            json!({"script": "AA==", "machines": ["x"]}).to_string(),
            400,
            "invalid-request",
            "NUL byte",
        ),
        (
            Method::POST,
            "/v1/enroll-tokens",
            json!({"uses": 0}).to_string(),
            400,
            "invalid-request",
            "cannot be for 0 machines",
        ),
        (
            Method::POST,
            "/v1/tokens",
            json!({"name": "x", "permissions": ["Fly"]}).to_string(),
            400,
            "invalid-request",
            "Fly is no permission",
        ),
        (
            Method::PUT,
            "/v1/secrets/token",
            json!({"value": "YWJj"}).to_string(),
            400,
            "invalid-request",
            "4 bytes at least",
        ),
        (
            Method::POST,
            "/v1/secrets/none/rotate",
            json!({"value": "aHVudGVyMjI="}).to_string(),
            404,
            "secret-not-found",
            "there is no secret none",
        ),
        (
            Method::POST,
            "/v1/publishers",
            json!({"key": "rsa:x"}).to_string(),
            400,
            "invalid-request",
            "ed25519:",
        ),
        (
            Method::POST,
            "/v1/plugins",
            json!({"component": "AA==", "signature": "AA=="}).to_string(),
            409,
            "no-publisher-trusted",
            "sluice plugin trust",
        ),
        (
            Method::POST,
            "/v1/bindings",
            json!({"plugin": "none"}).to_string(),
            404,
            "plugin-not-found",
            "none",
        ),
        (
            Method::PATCH,
            "/v1/machines/none",
            json!({"name": "a"}).to_string(),
            404,
            "machine-not-found",
            "none",
        ),
        (
            Method::PATCH,
            "/v1/machines/none",
            json!({"name": "a b"}).to_string(),
            400,
            "invalid-request",
            "a b",
        ),
        (
            Method::GET,
            "/v1/jobs?limit=0",
            String::new(),
            400,
            "invalid-request",
            "at least 1",
        ),
        (
            Method::GET,
            "/v1/jobs?lim=1",
            String::new(),
            400,
            "invalid-request",
            "unknown field",
        ),
        (
            Method::GET,
            "/v1/audit?after=x",
            String::new(),
            400,
            "invalid-request",
            "after",
        ),
        (
            Method::GET,
            "/v1/jobs/x",
            String::new(),
            404,
            "job-not-found",
            "x",
        ),
        (
            Method::GET,
            "/nowhere",
            String::new(),
            404,
            "route-not-found",
            "openapi",
        ),
        (
            Method::DELETE,
            "/v1/jobs",
            String::new(),
            405,
            "method-not-allowed",
            "openapi",
        ),
    ];
    for (method, path, body, status, code, text) in table {
        let got = send(&test, method.clone(), path, Some(&test.token), body).await;
        assert_eq!(got.refused(), (status, code.to_owned()), "{method} {path}");
        let detail = got.json()["detail"].as_str().expect("text").to_owned();
        assert!(detail.contains(text), "expected {text:?} in {detail:?}");
    }
}

#[tokio::test]
async fn bodies_have_limits() {
    let test = TestHost::new().await;
    let large = "x".repeat(10 << 20);
    for (method, path) in [
        (Method::POST, "/v1/tokens"),
        (Method::POST, "/v1/enroll-tokens"),
        (Method::PATCH, "/v1/machines/x"),
    ] {
        let got = send(&test, method, path, Some(&test.token), large.clone()).await;
        assert_eq!(got.refused(), (413, "body-too-large".to_owned()), "{path}");
    }
    let got = send(
        &test,
        Method::POST,
        "/v1/jobs",
        Some(&test.token),
        "x".repeat(super::jobs::BODY + 1),
    )
    .await;
    assert_eq!(got.refused(), (413, "body-too-large".to_owned()));
}

#[tokio::test]
async fn a_key_makes_a_request_safe_to_repeat() {
    let test = TestHost::new().await;
    let post_with = async |key: &str, body: Value| {
        let request = Request::builder()
            .method(Method::POST)
            .uri("/v1/jobs")
            .header(
                header::AUTHORIZATION,
                format!("Bearer {}", test.token.reveal()),
            )
            .header("Idempotency-Key", key)
            .body(Body::from(body.to_string()))
            .expect("a request");
        got(router(test.host.clone())
            .oneshot(request)
            .await
            .expect("answers"))
        .await
    };
    let post = async |body| post_with("deploy-7", body).await;
    let first = post(job("x")).await.json();
    assert_eq!(post(job("x")).await.json(), first);
    assert_eq!(
        post(job("y")).await.refused(),
        (409, "idempotency-key-reused".to_owned())
    );
    // Those of schedules' runs are nobody's to take.
    let taken = post_with("schedule:x:1", job("x")).await;
    assert_eq!(taken.status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn a_token_makes_none_that_outlives_it() {
    let test = TestHost::new().await;
    let made = async |by: Option<&BearerToken>, name: &str, expires: Option<&str>| {
        let body = json!({"name": name, "permissions": ["Administer"], "expires": expires});
        let body = body.to_string();
        match by {
            Some(_) => send(&test, Method::POST, "/v1/tokens", by, body).await,
            None => {
                ask(
                    &test,
                    Method::POST,
                    "/v1/tokens",
                    serde_json::from_str(&body).expect("is JSON"),
                )
                .await
            }
        }
    };
    let hour = made(None, "hour", Some("1h")).await;
    assert_eq!(hour.status, StatusCode::CREATED);
    let hour = hour.json();
    let hour = BearerToken::presented(hour["token"].as_str().expect("a token"));
    for expires in [None, Some("2h")] {
        let got = made(Some(&hour), "longer", expires).await;
        assert_eq!(
            got.refused(),
            (400, "invalid-request".to_owned()),
            "{expires:?}"
        );
    }
    let shorter = made(Some(&hour), "shorter", Some("30m")).await;
    assert_eq!(shorter.status, StatusCode::CREATED);
    assert_eq!(test.count_audited("token_created").await, 2);
}

#[tokio::test]
async fn tokens_give_at_most_what_their_maker_has_and_end_when_revoked() {
    let test = TestHost::new().await;
    let (_, maker) = test
        .operator("maker", &[Permission::Administer, Permission::ReadAudit])
        .await;
    let new = |permissions: &[&str]| json!({"name": "new", "permissions": permissions}).to_string();
    let got = send(
        &test,
        Method::POST,
        "/v1/tokens",
        Some(&maker),
        new(&["ReadAudit", "RemoteExecution"]),
    )
    .await;
    assert_eq!(got.refused(), (403, "permission-denied".to_owned()));
    let made = send(
        &test,
        Method::POST,
        "/v1/tokens",
        Some(&maker),
        new(&["ReadAudit"]),
    )
    .await;
    assert_eq!(made.status, StatusCode::CREATED);
    let made = made.json();
    let token = BearerToken::presented(made["token"].as_str().expect("a token"));
    let audit = send(&test, Method::GET, "/v1/audit", Some(&token), Body::empty()).await;
    assert_eq!(audit.status, StatusCode::OK);
    let list = get(&test, "/v1/tokens").await;
    assert!(
        !String::from_utf8_lossy(&list.body).contains(token.reveal()),
        "a list shows no token"
    );
    let path = format!("/v1/tokens/{}", made["id"].as_str().expect("an id"));
    assert_eq!(
        ask(&test, Method::DELETE, &path, json!({})).await.status,
        StatusCode::NO_CONTENT
    );
    assert_eq!(
        ask(&test, Method::DELETE, &path, json!({})).await.refused(),
        (404, "token-not-found".to_owned())
    );
    let audit = send(&test, Method::GET, "/v1/audit", Some(&token), Body::empty()).await;
    assert_eq!(audit.refused(), (401, "unauthenticated".to_owned()));
    assert_eq!(
        (
            test.count_audited("token_created").await,
            test.count_audited("token_revoked").await
        ),
        (1, 1)
    );
}

#[tokio::test]
async fn an_enrollment_token_carries_where_to_go_and_whom_to_trust() {
    let test = TestHost::new().await;
    let made = ask(
        &test,
        Method::POST,
        "/v1/enroll-tokens",
        json!({"uses": 2, "expires": "1h"}),
    )
    .await
    .json();
    let token: sluice_protocol::message::enroll::Token = made["token"]
        .as_str()
        .expect("a token")
        .parse()
        .expect("reads");
    assert_eq!(
        (token.addresses, token.authority),
        (
            test.host.addresses.agents.clone(),
            test.host.addresses.authority
        )
    );
    assert_eq!(test.count_audited("enroll_token_created").await, 1);
}

#[tokio::test]
async fn machines_are_shown_renamed_tagged_and_revoked() {
    let test = TestHost::new().await;
    let machine = test.machine("web-1").await;
    test.machine("web-2").await;
    let (_session, _inbox) = test.connect(&machine);
    let patch = json!({"name": "app-1", "tags": {"set": [{"key": "role", "value": "web"}]}});
    let got = ask(&test, Method::PATCH, "/v1/machines/web-1", patch)
        .await
        .json();
    assert_eq!(
        (got["name"].as_str(), got["connected"].as_bool()),
        (Some("app-1"), Some(true))
    );
    assert_eq!(got["tags"], json!([{"key": "role", "value": "web"}]));
    let taken = ask(
        &test,
        Method::PATCH,
        "/v1/machines/app-1",
        json!({"name": "web-2"}),
    )
    .await;
    assert_eq!(taken.refused(), (409, "machine-name-taken".to_owned()));
    let tagged = get(&test, "/v1/machines?tag=role=web").await.json();
    assert_eq!(tagged["items"].as_array().map(Vec::len), Some(1));
    assert_eq!(
        ask(&test, Method::DELETE, "/v1/machines/app-1", json!({}))
            .await
            .status,
        StatusCode::NO_CONTENT
    );
    assert_eq!(
        get(&test, "/v1/machines/app-1").await.status,
        StatusCode::NOT_FOUND
    );
    let by_id = get(&test, &format!("/v1/machines/{}", machine.id))
        .await
        .json();
    assert_eq!(by_id["revoked"], true);
}

#[tokio::test]
async fn files_are_uploaded_and_only_then_named_by_a_job() {
    let test = TestHost::new().await;
    let mut with = job("web-1");
    with["attachments"] = json!([{"name": "a.txt", "size": 3, "sha256": sluice_protocol::digest::Digest::of(b"abc").to_string()}]);
    let early = ask(&test, Method::POST, "/v1/jobs", with.clone()).await;
    assert_eq!(early.refused(), (409, "attachment-missing".to_owned()));
    let put = send(&test, Method::PUT, "/v1/blobs", Some(&test.token), "abc").await;
    assert_eq!(
        (put.status, &put.json()["size"]),
        (StatusCode::CREATED, &json!(3))
    );
    assert_eq!(
        ask(&test, Method::POST, "/v1/jobs", with.clone())
            .await
            .status,
        StatusCode::CREATED
    );
    let (_, stranger) = test.stranger().await;
    let theirs = send(
        &test,
        Method::POST,
        "/v1/jobs",
        Some(&stranger),
        with.to_string(),
    )
    .await;
    assert_eq!(
        theirs.refused(),
        (409, "attachment-missing".to_owned()),
        "another tenant's file is not there"
    );
}

#[tokio::test]
async fn the_log_is_read_in_pages_and_verifies_in_the_hands_of_a_client() {
    let test = TestHost::new().await;
    for _ in 0..4 {
        ask(&test, Method::POST, "/v1/jobs", job("x")).await;
    }
    let (mut entries, mut path) = (Vec::new(), "/v1/audit?limit=3".to_owned());
    loop {
        let page: sluice_api_types::page::Page<sluice_api_types::audit::AuditEntry> =
            serde_json::from_slice(&get(&test, &path).await.body).expect("a page");
        entries.extend(page.items);
        let Some(next) = page.next else { break };
        path = format!("/v1/audit?limit=3&after={next}");
    }
    let head = sluice_api_types::audit::verify_chain(&entries).expect("holds");
    assert_eq!(head.entries as usize, test.audited().await.len());
}

#[tokio::test]
async fn watchers_see_numbers_and_no_names() {
    let test = TestHost::new().await;
    let machine = test.machine("secret-name").await;
    let (_session, _inbox) = test.connect(&machine);
    ask(&test, Method::POST, "/v1/jobs", job("secret-name")).await;
    let page = send(&test, Method::GET, "/metrics", None, Body::empty()).await;
    let text = String::from_utf8(page.body).expect("text");
    assert!(
        text.contains("sluice_machines_connected 1")
            && text.contains("sluice_operations_open{state=\"delivered\"} 1"),
        "{text}"
    );
    assert!(
        !text.contains("secret-name") && !text.contains("admin") && !text.contains("default"),
        "{text}"
    );
}

#[tokio::test]
async fn what_a_client_asked_for_is_done_also_when_it_does_not_wait() {
    let test = TestHost::new().await;
    let machine = test.machine("web-1").await;
    let (_session, mut inbox) = test.connect(&machine);
    let request = Request::builder()
        .method(Method::POST)
        .uri("/v1/jobs")
        .header(
            header::AUTHORIZATION,
            format!("Bearer {}", test.token.reveal()),
        )
        .body(Body::from(job("web-1").to_string()))
        .expect("a request");
    // One poll is enough for the route to begin; then the client is gone, and so is the answer's future.
    let answer = router(test.host.clone()).oneshot(request).now_or_never();
    assert!(answer.is_none(), "it could not be answered yet");
    let sent = tokio::time::timeout(Duration::from_secs(5), inbox.deliveries.recv()).await;
    assert!(matches!(sent, Ok(Some(_))), "{sent:?}");
}

#[tokio::test]
async fn a_host_whose_database_takes_no_changes_is_not_ready() {
    let test = TestHost::new().await;
    let ready = async || send(&test, Method::GET, "/readyz", None, Body::empty()).await;
    assert_eq!(ready().await.status, StatusCode::OK);
    // Reads go on; the thread that writes is gone.
    test.host.store.close().await;
    assert_eq!(ready().await.refused(), (503, "stopping".to_owned()));
}

#[tokio::test]
async fn scripts_are_added_listed_read_archived_and_redacted() {
    let test = TestHost::new().await;
    let add = async |name: &str, text: &str| {
        let script = sluice_api_types::bytes::Base64(text.as_bytes().to_vec());
        let body = json!({"name": name, "script": script, "run_as": "nobody", "os": ["linux"]});
        ask(&test, Method::POST, "/v1/scripts", body).await
    };
    let first = add("b", "#!/bin/sh\necho 1\n").await;
    assert_eq!(first.status, StatusCode::CREATED);
    let again = add("b", "#!/bin/sh\necho 1\n").await;
    assert_eq!((again.status, again.json()), (StatusCode::OK, first.json()));
    assert_eq!(add("b", "#!/bin/sh\necho 2\n").await.json()["version"], 2);
    add("a", "#!/bin/sh\n").await;

    let (mut found, mut path) = (Vec::new(), "/v1/scripts?limit=1".to_owned());
    loop {
        let page = get(&test, &path).await.json();
        let items = page["items"].as_array().expect("items").clone();
        found.extend(items.into_iter().map(|item| item["name"].clone()));
        let Some(next) = page["next"].as_str() else {
            break;
        };
        path = format!("/v1/scripts?limit=1&after={next}");
    }
    assert_eq!(found, ["a", "b"]);
    let versions = get(&test, "/v1/scripts/b/versions?limit=1&after=1")
        .await
        .json();
    assert_eq!(
        (&versions["items"][0]["version"], &versions["next"]),
        (&json!(2), &json!("2"))
    );
    let version = get(&test, "/v1/scripts/b/versions/1").await.json();
    assert_eq!(version["script"], "IyEvYmluL3NoCmVjaG8gMQo=");
    assert_eq!(
        (&version["run_as"], &version["os"]),
        (&json!("nobody"), &json!(["linux"]))
    );

    let redact = "/v1/scripts/b/versions/1/redact";
    let redacted = ask(&test, Method::POST, redact, json!({})).await.json();
    assert_eq!(
        redacted,
        json!({"redacted": [{"name": "b", "version": 1}], "canceled": 0})
    );
    let version = get(&test, "/v1/scripts/b/versions/1").await.json();
    assert_eq!(
        (&version["script"], &version["redacted_by"]),
        (&Value::Null, &json!("admin"))
    );
    let archived = ask(&test, Method::POST, "/v1/scripts/b/archive", json!({}))
        .await
        .json();
    assert_eq!(
        (&archived["archived_by"], &archived["versions"]),
        (&json!("admin"), &json!(2))
    );
    assert_eq!(get(&test, "/v1/scripts/b").await.json(), archived);
    let refused = add("b", "#!/bin/sh\necho 3\n").await;
    assert_eq!(refused.refused(), (409, "script-archived".to_owned()));
    let refused = add("c", "#!/bin/sh\necho 1\n").await;
    assert_eq!(refused.refused(), (409, "script-redacted".to_owned()));
}

#[tokio::test]
async fn a_script_of_another_tenant_is_answered_as_one_that_is_not_there() {
    let test = TestHost::new().await;
    let script = json!({"name": "a", "script": "IyEvYmluL3NoCg=="});
    ask(&test, Method::POST, "/v1/scripts", script).await;
    let (_, stranger) = test.stranger().await;
    for (method, path) in [
        (Method::GET, "/v1/scripts/NAME"),
        (Method::GET, "/v1/scripts/NAME/versions"),
        (Method::GET, "/v1/scripts/NAME/versions/1"),
        (Method::POST, "/v1/scripts/NAME/versions/1/redact"),
        (Method::POST, "/v1/scripts/NAME/archive"),
    ] {
        let as_stranger = async |name: &str| {
            let path = path.replace("NAME", name);
            let got = send(&test, method.clone(), &path, Some(&stranger), Body::empty()).await;
            let detail = got.json()["detail"]
                .as_str()
                .expect("text")
                .replace(name, "NAME");
            (got.refused(), detail)
        };
        let (theirs, nobodys) = (as_stranger("a").await, as_stranger("zz").await);
        assert_eq!(theirs.0.0, 404, "{method} {path}");
        assert_eq!(theirs.0, nobodys.0, "{method} {path}");
    }
    let run = json!({"script_ref": {"name": "a"}, "machines": ["x"]}).to_string();
    let got = send(&test, Method::POST, "/v1/jobs", Some(&stranger), run).await;
    assert_eq!(got.refused(), (404, "script-not-found".to_owned()));
    let list = send(
        &test,
        Method::GET,
        "/v1/scripts",
        Some(&stranger),
        Body::empty(),
    )
    .await;
    assert_eq!(list.json()["items"], json!([]));
    let theirs = "/v1/scripts?tenant=default";
    let got = send(&test, Method::GET, theirs, Some(&stranger), Body::empty()).await;
    assert_eq!(got.refused(), (404, "tenant-not-found".to_owned()));
    assert_eq!(
        get(&test, "/v1/scripts/a").await.json()["archived_at"],
        Value::Null,
        "nothing was changed"
    );
}

#[tokio::test]
async fn a_job_says_which_stored_script_it_ran() {
    let test = TestHost::new().await;
    let script = json!({"name": "a", "script": "IyEvYmluL3NoCg=="});
    ask(&test, Method::POST, "/v1/scripts", script).await;
    let run = json!({"script_ref": {"name": "a"}, "machines": ["x"]});
    let made = ask(&test, Method::POST, "/v1/jobs", run).await;
    assert_eq!(made.status, StatusCode::CREATED);
    let expected = json!({"name": "a", "version": 1});
    let made = made.json();
    assert_eq!(made["script"], expected);
    let operation = made["operations"][0]["operation"].as_str().expect("an id");
    let result = get(&test, &format!("/v1/operations/{operation}"))
        .await
        .json();
    assert_eq!(result["script"], expected);
    assert_eq!(
        get(&test, "/v1/jobs").await.json()["items"][0]["script"],
        expected
    );
    let other = ask(&test, Method::POST, "/v1/jobs", job("x")).await.json();
    assert_eq!(other.get("script"), Some(&Value::Null));
}
