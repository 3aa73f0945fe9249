//! Who may do what: every route of the document, for every shipped role, in the operator's tenant, in another, and by a grant of
//! the provider. A route that has no row fails.

use std::str::FromStr as _;

use sluice_database::rusqlite::Connection;

use super::*;
use crate::operators::{Permission, Permissions, SHIPPED, shipped};
use crate::store::StoreError;

/// What a route needs.
enum Needs {
    /// No token.
    Nothing,
    /// Any token.
    Token,
    /// One of these.
    One(&'static [Permission]),
}

/// What somebody of another tenant gets who may do it in theirs and names what is there in this one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Foreign {
    /// It is about no single thing, so there is nothing to name.
    NoThing,
    /// The answer that they would get if it were not there.
    NotThere,
    /// A thing of that name of their own.
    Theirs,
    /// It is for the provider's own operators, whatever is there or not.
    Providers,
    /// It is for the tenant's own operators, and for nobody by a grant.
    Own,
}

struct Row(&'static str, &'static str, Needs, Foreign);

use Foreign::{NoThing, NotThere, Own, Providers, Theirs};
use Needs::{Nothing, One, Token};
use Permission as P;

const ROWS: &[Row] = &[
    Row("GET", "/healthz", Nothing, NoThing),
    Row("GET", "/readyz", Nothing, NoThing),
    Row("GET", "/metrics", Nothing, NoThing),
    Row("GET", "/v1/whoami", Token, NoThing),
    Row("GET", "/v1/jobs", One(&[P::ReadJobs]), NoThing),
    Row("POST", "/v1/jobs", One(&[P::RemoteExecution]), NoThing),
    Row(
        "POST",
        "/v1/jobs/preview",
        One(&[P::RemoteExecution]),
        NoThing,
    ),
    Row("POST", "/v1/jobs/halt", One(&[P::RemoteExecution]), NoThing),
    Row("GET", "/v1/jobs/{job}", One(&[P::ReadJobs]), NotThere),
    Row(
        "GET",
        "/v1/jobs/{job}/groups",
        One(&[P::ReadJobs]),
        NotThere,
    ),
    Row(
        "GET",
        "/v1/jobs/{job}/events",
        One(&[P::ReadJobs]),
        NotThere,
    ),
    Row(
        "POST",
        "/v1/jobs/{job}/cancel",
        One(&[P::RemoteExecution]),
        NotThere,
    ),
    Row(
        "POST",
        "/v1/jobs/{job}/pause",
        One(&[P::RemoteExecution]),
        NotThere,
    ),
    Row(
        "POST",
        "/v1/jobs/{job}/resume",
        One(&[P::RemoteExecution]),
        NotThere,
    ),
    Row(
        "POST",
        "/v1/jobs/{job}/approve",
        One(&[P::ApproveJobs]),
        NotThere,
    ),
    Row(
        "POST",
        "/v1/jobs/{job}/deny",
        One(&[P::ApproveJobs]),
        NotThere,
    ),
    Row("GET", "/v1/approval-policy", One(&[P::ReadJobs]), NoThing),
    Row("PUT", "/v1/approval-policy", One(&[P::Administer]), NoThing),
    Row(
        "GET",
        "/v1/approval-policy/revisions",
        One(&[P::ReadJobs]),
        NoThing,
    ),
    Row(
        "GET",
        "/v1/standing-approvals",
        One(&[P::ReadJobs]),
        NoThing,
    ),
    Row(
        "POST",
        "/v1/standing-approvals",
        One(&[P::ApproveJobs]),
        NoThing,
    ),
    Row(
        "DELETE",
        "/v1/standing-approvals/{standing}",
        One(&[P::ApproveJobs]),
        NotThere,
    ),
    Row(
        "POST",
        "/v1/standing-approvals/{standing}/approve",
        One(&[P::ApproveJobs]),
        NotThere,
    ),
    Row(
        "GET",
        "/v1/operations/{operation}",
        One(&[P::ReadJobs]),
        NotThere,
    ),
    Row(
        "GET",
        "/v1/operations/{operation}/output",
        One(&[P::ReadJobs]),
        NotThere,
    ),
    Row(
        "GET",
        "/v1/operations/{operation}/receipts",
        One(&[P::ReadJobs]),
        NotThere,
    ),
    Row(
        "POST",
        "/v1/operations/{operation}/replay",
        One(&[P::ManagePlugins]),
        NotThere,
    ),
    Row(
        "POST",
        "/v1/plugins/backtest",
        One(&[P::ManagePlugins]),
        NoThing,
    ),
    Row(
        "GET",
        "/v1/bindings/{binding}/revisions",
        One(&[P::ReadPlugins]),
        NotThere,
    ),
    Row(
        "POST",
        "/v1/machines/{machine}/release",
        One(&[P::ManageMachines]),
        NotThere,
    ),
    Row("GET", "/v1/lockdown", Token, NoThing),
    Row("PUT", "/v1/lockdown", One(&[P::Administer]), Providers),
    Row("DELETE", "/v1/lockdown", One(&[P::Administer]), Providers),
    Row("GET", "/v1/tenants", Token, NoThing),
    Row("POST", "/v1/tenants", One(&[P::Administer]), Providers),
    Row("GET", "/v1/tenants/{tenant}", Token, NotThere),
    Row(
        "PATCH",
        "/v1/tenants/{tenant}",
        One(&[P::Administer]),
        Providers,
    ),
    Row(
        "POST",
        "/v1/tenants/{tenant}/archive",
        One(&[P::Administer]),
        Providers,
    ),
    Row("PUT", "/v1/provider-access", One(&[P::Administer]), Own),
    Row("GET", "/v1/grants", One(&[P::Administer]), NoThing),
    Row("POST", "/v1/grants", One(&[P::Administer]), Providers),
    Row(
        "DELETE",
        "/v1/grants/{grant}",
        One(&[P::Administer]),
        Providers,
    ),
    Row("GET", "/v1/windows", One(&[P::ReadJobs]), NoThing),
    Row("POST", "/v1/windows", One(&[P::ManageMachines]), NoThing),
    Row("GET", "/v1/windows/{window}", One(&[P::ReadJobs]), NotThere),
    Row(
        "DELETE",
        "/v1/windows/{window}",
        One(&[P::ManageMachines]),
        NotThere,
    ),
    Row("GET", "/v1/schedules", One(&[P::ReadJobs]), NoThing),
    Row("POST", "/v1/schedules", One(&[P::ScheduleScript]), NoThing),
    Row(
        "GET",
        "/v1/schedules/{schedule}",
        One(&[P::ReadJobs]),
        NotThere,
    ),
    Row(
        "DELETE",
        "/v1/schedules/{schedule}",
        One(&[P::ScheduleScript]),
        NotThere,
    ),
    Row(
        "POST",
        "/v1/schedules/{schedule}/pause",
        One(&[P::ScheduleScript]),
        NotThere,
    ),
    Row(
        "POST",
        "/v1/schedules/{schedule}/resume",
        One(&[P::ScheduleScript]),
        NotThere,
    ),
    Row(
        "GET",
        "/v1/schedules/{schedule}/runs",
        One(&[P::ReadJobs]),
        NotThere,
    ),
    Row("GET", "/v1/scripts", One(&[P::ReadScripts]), NoThing),
    Row("POST", "/v1/scripts", One(&[P::ManageScripts]), NoThing),
    Row(
        "GET",
        "/v1/scripts/{script}",
        One(&[P::ReadScripts]),
        NotThere,
    ),
    Row(
        "POST",
        "/v1/scripts/{script}/archive",
        One(&[P::ManageScripts]),
        NotThere,
    ),
    Row(
        "GET",
        "/v1/scripts/{script}/versions",
        One(&[P::ReadScripts]),
        NotThere,
    ),
    Row(
        "GET",
        "/v1/scripts/{script}/versions/{version}",
        One(&[P::ReadScripts]),
        NotThere,
    ),
    Row(
        "POST",
        "/v1/scripts/{script}/versions/{version}/redact",
        One(&[P::ManageScripts]),
        NotThere,
    ),
    Row("PUT", "/v1/blobs", One(&[P::RemoteExecution]), NoThing),
    Row(
        "POST",
        "/v1/enroll-tokens",
        One(&[P::ManageMachines]),
        NoThing,
    ),
    Row(
        "GET",
        "/v1/enroll-tokens",
        One(&[P::ManageMachines]),
        NoThing,
    ),
    Row(
        "DELETE",
        "/v1/enroll-tokens/{enroll_token}",
        One(&[P::ManageMachines]),
        NotThere,
    ),
    Row(
        "POST",
        "/v1/machines/{machine}/approve",
        One(&[P::ManageMachines]),
        NotThere,
    ),
    Row(
        "POST",
        "/v1/machines/{machine}/deny",
        One(&[P::ManageMachines]),
        NotThere,
    ),
    Row("GET", "/v1/machines", One(&[P::ReadMachines]), NoThing),
    Row(
        "GET",
        "/v1/machines/{machine}",
        One(&[P::ReadMachines]),
        NotThere,
    ),
    Row(
        "PATCH",
        "/v1/machines/{machine}",
        One(&[P::ManageMachines]),
        NotThere,
    ),
    Row(
        "DELETE",
        "/v1/machines/{machine}",
        One(&[P::ManageMachines]),
        NotThere,
    ),
    Row("GET", "/v1/publishers", One(&[P::ReadPlugins]), NoThing),
    Row("POST", "/v1/publishers", One(&[P::ManagePlugins]), NoThing),
    Row(
        "DELETE",
        "/v1/publishers/{key}",
        One(&[P::ManagePlugins]),
        NotThere,
    ),
    Row("GET", "/v1/plugins", One(&[P::ReadPlugins]), NoThing),
    Row("POST", "/v1/plugins", One(&[P::ManagePlugins]), NoThing),
    Row("GET", "/v1/bindings", One(&[P::ReadPlugins]), NoThing),
    Row("POST", "/v1/bindings", One(&[P::ManagePlugins]), NoThing),
    Row(
        "DELETE",
        "/v1/bindings/{binding}",
        One(&[P::ManagePlugins]),
        NotThere,
    ),
    Row(
        "GET",
        "/v1/secrets",
        One(&[P::UseSecret, P::ManageSecrets]),
        NoThing,
    ),
    Row(
        "PUT",
        "/v1/secrets/{name}",
        One(&[P::ManageSecrets]),
        Theirs,
    ),
    Row(
        "POST",
        "/v1/secrets/{name}/rotate",
        One(&[P::ManageSecrets]),
        NotThere,
    ),
    Row(
        "DELETE",
        "/v1/secrets/{name}",
        One(&[P::ManageSecrets]),
        NotThere,
    ),
    Row("GET", "/v1/tokens", One(&[P::Administer]), NoThing),
    Row("POST", "/v1/tokens", One(&[P::Administer]), NoThing),
    Row(
        "DELETE",
        "/v1/tokens/{token}",
        One(&[P::Administer]),
        NotThere,
    ),
    Row("GET", "/v1/operators", One(&[P::Administer]), NoThing),
    Row("POST", "/v1/operators", One(&[P::Administer]), NoThing),
    Row(
        "PATCH",
        "/v1/operators/{operator}",
        One(&[P::Administer]),
        NotThere,
    ),
    Row(
        "DELETE",
        "/v1/operators/{operator}",
        One(&[P::Administer]),
        NotThere,
    ),
    Row("GET", "/v1/roles", One(&[P::Administer]), NoThing),
    Row("GET", "/v1/roles/{role}", One(&[P::Administer]), NotThere),
    Row("PUT", "/v1/roles/{role}", One(&[P::Administer]), Theirs),
    Row(
        "DELETE",
        "/v1/roles/{role}",
        One(&[P::Administer]),
        NotThere,
    ),
    Row("GET", "/v1/offers", One(&[P::Administer]), Providers),
    Row("POST", "/v1/offers", One(&[P::Administer]), Providers),
    Row(
        "DELETE",
        "/v1/offers/{offer}",
        One(&[P::Administer]),
        Providers,
    ),
    Row("GET", "/v1/audit", One(&[P::ReadAudit]), NoThing),
];

/// Every route of the document, with its row.
fn routes_with_rows() -> Vec<(Method, String, &'static Row)> {
    let document = serde_json::to_value(openapi()).expect("a document");
    let paths = document["paths"].as_object().expect("paths");
    let mut found = Vec::new();
    for (path, item) in paths {
        for method in ["get", "post", "put", "patch", "delete"] {
            if item.get(method).is_some() {
                let method = method.to_uppercase();
                let row = ROWS
                    .iter()
                    .find(|Row(verb, route, ..)| *verb == method && route == path)
                    .unwrap_or_else(|| panic!("{method} {path} has no row: who may do it?"));
                found.push((
                    Method::from_str(&method).expect("a method"),
                    path.clone(),
                    row,
                ));
            }
        }
    }
    assert_eq!(found.len(), ROWS.len(), "a row is about no route");
    found
}

impl Row {
    /// Whether a role gives it, by the role's own policies.
    fn is_given_by(&self, gives: Permissions) -> bool {
        let given = |permission: &Permission| {
            gives.contains(*permission)
                || permission
                    .given_by()
                    .is_some_and(|wider| gives.contains(wider))
        };
        match &self.2 {
            Nothing | Token => true,
            One(permissions) => permissions.iter().any(given),
        }
    }

    /// Whether a refusal names what is missing.
    fn is_named_in(&self, detail: &str) -> bool {
        matches!(&self.2, One(permissions) if permissions.iter().any(|p| detail.contains(p.as_str())))
    }
}

/// A tenant with one of everything, and what its things are called in paths.
struct Things {
    test: TestHost,
    router: Router,
    names: Vec<(&'static str, String)>,
}

impl Things {
    async fn new() -> Self {
        let test = TestHost::new().await;
        test.machine("web-1").await;
        let made = ask(&test, Method::POST, "/v1/jobs", job("web-1"))
            .await
            .json();
        let text = |value: &Value| value.as_str().expect("text").to_owned();
        let key = format!("ed25519:{}=", "A".repeat(43));
        for (method, path, body) in [
            (
                Method::POST,
                "/v1/schedules",
                json!({"name": "nightly", "cron": "0 3 * * *", "job": job("web-1")}),
            ),
            (
                Method::POST,
                "/v1/windows",
                json!({"name": "sundays", "cron": "0 2 * * 0", "lasts": "3h"}),
            ),
            (
                Method::POST,
                "/v1/scripts",
                json!({"name": "a", "script": "IyEvYmluL3NoCg=="}),
            ),
            (
                Method::PUT,
                "/v1/secrets/s",
                json!({"value": "aHVudGVyMjI="}),
            ),
            (
                Method::POST,
                "/v1/operators",
                json!({"name": "dora", "roles": ["viewer"]}),
            ),
            (
                Method::PUT,
                "/v1/roles/night",
                json!({"policy": "permit (principal, action == Action::\"ReadJobs\", resource);"}),
            ),
            (Method::POST, "/v1/tenants", json!({"name": "acme"})),
        ] {
            let got = ask(&test, method, path, body).await;
            assert!(got.status.is_success(), "{path}: {}", got.json());
        }
        let token = ask(
            &test,
            Method::POST,
            "/v1/tokens",
            json!({"name": "ci", "operator": "dora"}),
        )
        .await
        .json();
        let enroll = ask(&test, Method::POST, "/v1/enroll-tokens", json!({}))
            .await
            .json();
        let approve = json!({"script_sha256": "ab".repeat(32), "run_as": ["root"], "targets": 1});
        let standing = ask(&test, Method::POST, "/v1/standing-approvals", approve)
            .await
            .json();
        let grant = json!({"operator": "dora", "granted_in": "acme", "roles": ["viewer"]});
        let grant = ask(&test, Method::POST, "/v1/grants", grant).await.json();
        let offer = json!({"script": "a", "version": 1, "to": ["acme"]});
        let offer = ask(&test, Method::POST, "/v1/offers", offer).await.json();
        let binding = "019a0000-0000-7000-8000-0000000000bb";
        let (tenant, publisher) = (test.tenant.id.to_string(), key.clone());
        let fill = move |conn: &Connection| {
            conn.execute_batch(&format!(
                "INSERT INTO publishers (tenant, key, created, created_by) VALUES ('{tenant}', '{publisher}', 0, 'admin');
                 INSERT INTO plugins (tenant, sha256, id, version, vendor, world, description, manifest, publisher, signature,
                                      size, installed)
                     VALUES ('{tenant}', '{digest}', 'p', '1.0.0', 'v', 'policy', '', '', '{publisher}', x'', 0, 0);
                 INSERT INTO bindings (id, tenant, component, plugin, settings, mode, tags, created, created_by)
                     VALUES ('{binding}', '{tenant}', '{digest}', 'p', '[]', 'enforce', '[]', 0, 'admin');
                 INSERT INTO binding_revisions (tenant, binding, revision, component, plugin, settings, mode, tags, languages,
                                                limits, position, state, created, created_by)
                     VALUES ('{tenant}', '{binding}', 1, '{digest}', 'p', '[]', 'enforce', '[]', '[]', '{{}}', 100, 'active', 0,
                             'admin');",
                digest = "ab".repeat(32),
            ))
            .map_err(StoreError::from)
        };
        test.host.store.write(fill).await.expect("inserts");
        Self {
            router: router(test.host.clone()),
            names: vec![
                ("{job}", text(&made["job"])),
                ("{operation}", text(&made["operations"][0]["operation"])),
                ("{schedule}", "nightly".to_owned()),
                ("{window}", "sundays".to_owned()),
                ("{script}", "a".to_owned()),
                ("{version}", "1".to_owned()),
                ("{machine}", "web-1".to_owned()),
                ("{key}", key),
                ("{binding}", binding.to_owned()),
                ("{name}", "s".to_owned()),
                ("{standing}", text(&standing["id"])),
                ("{token}", text(&token["id"])),
                ("{enroll_token}", text(&enroll["id"])),
                ("{operator}", "dora".to_owned()),
                ("{role}", "night".to_owned()),
                ("{tenant}", "acme".to_owned()),
                ("{grant}", text(&grant["grant"])),
                ("{offer}", text(&offer["items"][0]["offer"])),
            ],
            test,
        }
    }

    /// The path with the names of this tenant's things.
    fn there(&self, path: &str) -> String {
        let mut filled = path.to_owned();
        for (parameter, name) in &self.names {
            filled = filled.replace(parameter, &name.replace('/', "%2F"));
        }
        assert!(!filled.contains('{'), "{path}: nothing to put in");
        with_query(&filled)
    }

    /// The path with names of nothing, of the same form.
    fn nowhere(&self, path: &str) -> String {
        let mut filled = path.to_owned();
        for (parameter, name) in &self.names {
            let other = match *parameter {
                "{version}" => "77".to_owned(),
                "{key}" => format!("ed25519:{}=", "B".repeat(42) + "A"),
                _ if uuid::Uuid::try_parse(name).is_ok() => uuid::Uuid::now_v7().to_string(),
                _ => "zz".to_owned(),
            };
            filled = filled.replace(parameter, &other);
        }
        with_query(&filled)
    }

    async fn send(&self, method: &Method, path: &str, token: &BearerToken, body: String) -> Got {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::AUTHORIZATION, format!("Bearer {}", token.reveal()))
            .body(Body::from(body))
            .expect("a request");
        let answer = self.router.clone().oneshot(request).await.expect("answers");
        // A stream of events has no end while a job has none; that it is one is all there is to know.
        if answer
            .headers()
            .get(header::CONTENT_TYPE)
            .is_some_and(|media| media == "text/event-stream")
        {
            return Got {
                status: answer.status(),
                media: "text/event-stream".to_owned(),
                body: Vec::new(),
            };
        }
        got(answer).await
    }

    /// Everything that can be looked at, as the tenant's owner sees it.
    async fn seen(&self) -> Vec<(String, Vec<u8>)> {
        let mut seen = Vec::new();
        for (method, path, Row(.., needs, _)) in routes_with_rows() {
            let changes_by_itself = [
                "/v1/audit",
                "/v1/whoami",
                "/v1/jobs/{job}/events",
                "/v1/lockdown",
            ];
            if method == Method::GET
                && !matches!(needs, Nothing)
                && !changes_by_itself.contains(&path.as_str())
            {
                let path = self.there(&path);
                let got = self
                    .send(&method, &path, &self.test.token, String::new())
                    .await;
                assert!(got.status.is_success(), "{path}");
                seen.push((path, got.body));
            }
        }
        seen
    }
}

fn with_query(path: &str) -> String {
    match path.ends_with("/output") {
        true => format!("{path}?stream=stdout"),
        false => path.to_owned(),
    }
}

/// A body that a route takes; what it makes is not there yet.
fn body(path: &str) -> String {
    match path {
        // A schedule needs what its job needs too, and that a stored script is not there is found out after that.
        "/v1/schedules" => {
            let job = json!({"script_ref": {"name": "zz"}, "machines": ["web-1"]});
            json!({"name": "x", "every": "1h", "job": job})
        }
        "/v1/windows" => json!({"name": "x", "cron": "@daily", "lasts": "1h"}),
        "/v1/operators" => json!({"name": "x", "roles": ["viewer"]}),
        "/v1/operators/{operator}" => json!({"roles": ["viewer"]}),
        "/v1/tenants" | "/v1/tenants/{tenant}" => json!({"name": "x"}),
        "/v1/offers" => json!({"script": "zz", "version": 1}),
        "/v1/grants" => json!({"operator": "zz", "granted_in": "zz", "roles": ["viewer"]}),
        "/v1/provider-access" => json!({"access": "denied"}),
        "/v1/roles/{role}" => {
            json!({"policy": "permit (principal, action == Action::\"ReadJobs\", resource);"})
        }
        "/v1/secrets/{name}" | "/v1/secrets/{name}/rotate" => json!({"value": "aHVudGVyMjI="}),
        path => body_for(path),
    }
    .to_string()
}

#[tokio::test]
async fn every_route_answers_every_shipped_role_as_its_policies_say_and_names_what_is_missing() {
    let things = Things::new().await;
    let before = things.test.count_audited("permission_denied").await;
    let mut refused = 0;
    for (name, _) in SHIPPED {
        let (_, token) = things.test.with_roles(name, &[name]).await;
        let gives = shipped(name).expect("is shipped").gives();
        for (method, path, row) in routes_with_rows() {
            // Nothing is there, so that no role takes from the next what it would be asked about.
            let got = things
                .send(&method, &things.nowhere(&path), &token, body(&path))
                .await;
            if row.is_given_by(gives) {
                assert!(
                    ![401, 403].contains(&got.status.as_u16()) && !got.status.is_server_error()
                        || path == "/readyz",
                    "{name} may {method} {path}: {}",
                    String::from_utf8_lossy(&got.body)
                );
                continue;
            }
            refused += 1;
            assert_eq!(
                got.refused(),
                (403, "permission-denied".to_owned()),
                "{name}: {method} {path}"
            );
            let detail = got.json()["detail"].as_str().expect("text").to_owned();
            assert!(
                row.is_named_in(&detail),
                "{name}: {method} {path}: {detail}"
            );
        }
        // What an owner locked, the next finds open.
        ask(&things.test, Method::DELETE, "/v1/lockdown", Value::Null).await;
    }
    let after = things.test.count_audited("permission_denied").await;
    assert_eq!(after - before, refused, "every refusal is on the record");
}

#[tokio::test]
async fn no_role_of_another_tenant_sees_or_changes_anything() {
    let things = Things::new().await;
    let (_, _) = things.test.stranger().await;
    let before = things.seen().await;
    for (name, _) in SHIPPED {
        let (_, token) = things.test.stranger_with_roles(name, &[name]).await;
        let gives = shipped(name).expect("is shipped").gives();
        for (method, path, row) in routes_with_rows() {
            let Row(.., needs, foreign) = row;
            if matches!(needs, Nothing) {
                continue;
            }
            let there = things.there(&path);
            let and = if there.contains('?') { '&' } else { '?' };
            let named = format!("{there}{and}tenant=default");
            let got = things.send(&method, &named, &token, body(&path)).await;
            assert_eq!(
                got.refused(),
                (404, "tenant-not-found".to_owned()),
                "{name}: {method} {named}"
            );
            // What is about no single thing is about their own tenant; what they make is for later.
            if matches!(foreign, NoThing | Own) || *foreign == Theirs && row.is_given_by(gives) {
                continue;
            }
            let got = things.send(&method, &there, &token, body(&path)).await;
            if !row.is_given_by(gives) {
                assert_eq!(got.refused().0, 403, "{name}: {method} {there}");
                continue;
            }
            let nowhere = things.nowhere(&path);
            let nowhere = things.send(&method, &nowhere, &token, body(&path)).await;
            assert_eq!(got.refused(), nowhere.refused(), "{name}: {method} {there}");
            let expected = if *foreign == Providers { 403 } else { 404 };
            assert_eq!(got.refused().0, expected, "{name}: {method} {there}");
        }
    }
    let (_, owner) = things.test.stranger_with_roles("maker", &["owner"]).await;
    for (method, path, Row(.., foreign)) in routes_with_rows() {
        if *foreign == Theirs {
            let there = things.there(&path);
            let got = things.send(&method, &there, &owner, body(&path)).await;
            assert!(got.status.is_success(), "{method} {there}");
        }
    }
    for ((path, before), (_, after)) in before.iter().zip(things.seen().await) {
        assert_eq!(
            String::from_utf8_lossy(before),
            String::from_utf8_lossy(&after),
            "{path}: nothing was changed"
        );
    }
}

/// A refusal for whoever may do it in the tenant, where it is not the tenant's to do by a grant.
fn is_for_others(foreign: Foreign, code: &str) -> bool {
    match foreign {
        Providers => code.starts_with("not-the-") && code.ends_with("s-administrator"),
        Own => code == "not-the-tenants-administrator",
        NoThing | NotThere | Theirs => false,
    }
}

#[tokio::test]
async fn a_grant_opens_one_tenant_to_what_its_roles_give_and_nothing_else_of_the_host() {
    let things = Things::new().await;
    let (stranger, _) = things.test.stranger().await;
    let (mut refused, mut grants) = (0, Vec::new());
    for (name, _) in SHIPPED {
        let (_, token) = things.test.with_roles(name, &[]).await;
        let grant = json!({"operator": name, "granted_in": "other", "roles": [name]});
        let grant = ask(&things.test, Method::POST, "/v1/grants", grant).await;
        assert_eq!(grant.status, 201, "{name}");
        grants.push((token.clone(), grant.json()));
        let gives = shipped(name).expect("is shipped").gives();
        for (method, path, row) in routes_with_rows() {
            let Row(.., needs, foreign) = row;
            if matches!(needs, Nothing) {
                continue;
            }
            let nowhere = things.nowhere(&path);
            let and = if nowhere.contains('?') { '&' } else { '?' };
            let send = |tenant: &str| format!("{nowhere}{and}tenant={tenant}");
            let body = body(&path);
            let ask = async |uri: &str| things.send(&method, uri, &token, body.clone()).await;
            // One that is there without a grant, and one that is not.
            for tenant in ["acme", "zz"] {
                assert_eq!(
                    ask(&send(tenant)).await.refused(),
                    (404, "tenant-not-found".to_owned()),
                    "{name}: {method} {path} in {tenant}"
                );
            }
            // At home they have no role.
            if matches!(needs, One(_)) {
                assert_eq!(
                    ask(&nowhere).await.refused().0,
                    403,
                    "{name}: {method} {path}"
                );
            }
            let got = ask(&send("other")).await;
            if !row.is_given_by(gives) {
                refused += 1;
                assert_eq!(
                    got.refused(),
                    (403, "permission-denied".to_owned()),
                    "{name}: {method} {path}"
                );
                let detail = got.json()["detail"].as_str().expect("text").to_owned();
                let who = format!("provider/{name} lacks");
                assert!(
                    row.is_named_in(&detail) && detail.starts_with(&who),
                    "{name}: {method} {path}: {detail}"
                );
            } else if matches!(foreign, Providers | Own) {
                let (status, code) = got.refused();
                assert!(
                    status == 403 && is_for_others(*foreign, &code),
                    "{name}: {method} {path}: {code}"
                );
            } else {
                assert!(
                    ![401, 403].contains(&got.status.as_u16()) && !got.status.is_server_error(),
                    "{name} may {method} {path}: {}",
                    String::from_utf8_lossy(&got.body)
                );
            }
        }
    }
    let other = stranger.tenant.id;
    let recorded = things
        .test
        .host
        .store
        .read(|conn| crate::store::audit::list(conn, other, 0, 10_000));
    let recorded = recorded.expect("reads");
    let denied = recorded
        .iter()
        .filter(|entry| entry.event == "permission_denied");
    assert_eq!(
        denied.count(),
        refused,
        "every refusal is on the tenant's record"
    );
    for (token, grant) in grants {
        let path = format!("/v1/grants/{}", grant["grant"].as_str().expect("text"));
        assert_eq!(
            ask(&things.test, Method::DELETE, &path, Value::Null)
                .await
                .status,
            204
        );
        let whoami = "/v1/whoami?tenant=other";
        let got = things
            .send(&Method::GET, whoami, &token, String::new())
            .await;
        assert_eq!(got.refused(), (404, "tenant-not-found".to_owned()));
    }
}
