//! Requests to the host, and what its refusals become.

use std::time::Duration;

use reqwest::header::{CONTENT_TYPE, HeaderMap};
use reqwest::{Method, Response, StatusCode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use sluice_api_types::page::Page;
use sluice_api_types::problem::Problem;

use super::{EventStream, Settings, SettingsError};
use crate::command_line::Global;
use crate::error::Error;

/// A host, and the operator who asks it.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    http: reqwest::Client,
    settings: Settings,
}

/// A request on its way.
#[derive(Debug)]
pub(crate) struct Request<'a> {
    client: &'a Client,
    builder: reqwest::RequestBuilder,
}

impl Client {
    /// A client for the host that flags, environment or file name.
    pub(crate) fn new(global: &Global) -> Result<Self, Error> {
        Self::with(Settings::load(global)?)
    }

    /// The same for what is asked at home, whatever tenant the flags or environment name.
    pub(crate) fn at_home(global: &Global) -> Result<Self, Error> {
        let settings = Settings::load(global)?;
        Self::with(Settings {
            tenant: None,
            ..settings
        })
    }

    /// A client with these settings.
    pub(crate) fn with(settings: Settings) -> Result<Self, Error> {
        let mut builder = reqwest::Client::builder()
            .user_agent(concat!("sluice/", env!("CARGO_PKG_VERSION")))
            // A redirect could take the token to another host, a proxy could read it.
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .connect_timeout(Duration::from_secs(10))
            .read_timeout(SILENCE)
            .tcp_keepalive(Duration::from_secs(15));
        if let Some(path) = &settings.ca {
            let pem = std::fs::read(path).map_err(Error::read(path))?;
            let roots = reqwest::Certificate::from_pem_bundle(&pem)
                .ok()
                .filter(|roots| !roots.is_empty())
                .ok_or_else(|| SettingsError::BadCa { path: path.clone() })?;
            builder = builder.tls_certs_only(roots);
        } else if settings.host.scheme() == "http" {
            // Plain HTTP needs no roots: they are not loaded, and a computer without any is no error.
            builder = builder.tls_certs_only([]);
        }
        let http = builder
            .build()
            .map_err(|source| Error::no_answer(settings.host.to_string(), source))?;
        Ok(Self { http, settings })
    }

    /// Where requests go.
    pub(crate) const fn settings(&self) -> &Settings {
        &self.settings
    }

    /// A request for `/v1/` and these path segments, which may hold any character.
    pub(crate) fn request(&self, method: Method, segments: &[&str]) -> Result<Request<'_>, Error> {
        let mut url = self.settings.host.clone();
        // URLs give these two a meaning of their own, whatever way they are written.
        if let Some(name) = segments
            .iter()
            .find(|segment| matches!(**segment, "" | "." | ".."))
        {
            return Err(Error::Usage(format!(
                "{name:?} is not a name; nothing was done"
            )));
        }
        url.path_segments_mut()
            .map_err(|()| SettingsError::BadHost(self.settings.host.to_string()))?
            .pop_if_empty()
            .push("v1")
            .extend(segments);
        if let Some(tenant) = &self.settings.tenant {
            url.query_pairs_mut().append_pair(TENANT, tenant);
        }
        Ok(Request {
            client: self,
            builder: self
                .http
                .request(method, url)
                .bearer_auth(&self.settings.token),
        })
    }

    /// A request for what is not part of the API, such as `/healthz`, without the token.
    pub(crate) async fn probe(&self, path: &str) -> Result<Response, Error> {
        let mut url = self.settings.host.clone();
        url.set_path(path);
        self.http
            .get(url)
            .timeout(Duration::from_secs(10))
            .send()
            .await
            .map_err(|source| self.unreachable(source))
    }

    /// A `GET`.
    pub(crate) fn get(&self, segments: &[&str]) -> Result<Request<'_>, Error> {
        self.request(Method::GET, segments)
    }

    /// A `POST`.
    pub(crate) fn post(&self, segments: &[&str]) -> Result<Request<'_>, Error> {
        self.request(Method::POST, segments)
    }

    /// A `PUT` of what is not a file.
    pub(crate) fn put(&self, segments: &[&str]) -> Result<Request<'_>, Error> {
        self.request(Method::PUT, segments)
    }

    /// A `PATCH`.
    pub(crate) fn patch(&self, segments: &[&str]) -> Result<Request<'_>, Error> {
        self.request(Method::PATCH, segments)
    }

    /// A `DELETE`.
    pub(crate) fn delete(&self, segments: &[&str]) -> Result<Request<'_>, Error> {
        self.request(Method::DELETE, segments)
    }

    /// A request or an answer that broke off.
    pub(super) fn unreachable(&self, source: reqwest::Error) -> Error {
        Error::no_answer(self.settings.host.to_string(), source)
    }

    /// Goes through a list part by part; `each` takes one part and says whether to go on.
    pub(crate) async fn pages<T: DeserializeOwned>(
        &self,
        segments: &[&str],
        query: &[(&str, Option<&str>)],
        mut after: Option<String>,
        mut limit: Option<u64>,
        mut each: impl FnMut(Vec<T>) -> Result<bool, Error>,
    ) -> Result<(), Error> {
        loop {
            let part = limit.unwrap_or(PAGE).min(PAGE);
            let mut request = self
                .get(segments)?
                .query(query)
                .query(&[("limit", Some(part.to_string().as_str()))]);
            request = request.query(&[("after", after.as_deref())]);
            let page: Page<T> = request.json().await?;
            let got = page.items.len() as u64;
            limit = limit.map(|limit| limit.saturating_sub(got));
            let go_on = each(page.items)?;
            // A host that repeats itself must not keep this command going for ever.
            if !go_on || limit == Some(0) || page.next.is_none() || page.next == after {
                return Ok(());
            }
            after = page.next;
        }
    }
}

/// What every request says where it is for a tenant that is not the operator's own.
const TENANT: &str = "tenant";
/// A host that says nothing for this long does not answer.
const SILENCE: Duration = Duration::from_secs(120);
/// How many items are asked for at once.
const PAGE: u64 = 500;

impl Request<'_> {
    /// Adds what is there to the query.
    pub(crate) fn query(mut self, pairs: &[(&str, Option<&str>)]) -> Self {
        for (key, value) in pairs {
            let is_said = *key == TENANT && self.client.settings.tenant.is_some();
            if let Some(value) = value.filter(|_| !is_said) {
                self.builder = self.builder.query(&[(key, value)]);
            }
        }
        self
    }

    /// A header.
    pub(crate) fn header(mut self, name: &'static str, value: &str) -> Self {
        self.builder = self.builder.header(name, value);
        self
    }

    /// A JSON body.
    pub(crate) fn body<T: Serialize + ?Sized>(mut self, body: &T) -> Self {
        self.builder = self.builder.json(body);
        self
    }

    /// A body of bytes.
    pub(crate) fn bytes(mut self, bytes: impl Into<reqwest::Body>, length: u64) -> Self {
        self.builder = self
            .builder
            .header(CONTENT_TYPE, "application/octet-stream")
            .header(reqwest::header::CONTENT_LENGTH, length)
            .body(bytes);
        self
    }

    /// Fails where the whole answer is not there after this long.
    pub(crate) fn timeout(mut self, timeout: Duration) -> Self {
        self.builder = self.builder.timeout(timeout);
        self
    }

    /// Sends it; the answer is one of success.
    pub(crate) async fn send(self) -> Result<Response, Error> {
        let response = self
            .builder
            .send()
            .await
            .map_err(|source| self.client.unreachable(source))?;
        if response.status().is_success() {
            Ok(response)
        } else {
            Err(refusal(response).await)
        }
    }

    /// Sends it, and reads the answer.
    pub(crate) async fn json<T: DeserializeOwned>(self) -> Result<T, Error> {
        let client = self.client;
        decoded(client, self.send().await?).await
    }
}

impl<'a> Request<'a> {
    /// Sends it; the answer is a stream of events.
    pub(crate) async fn events(self) -> Result<EventStream<'a>, Error> {
        let client = self.client;
        let response = self.header("accept", EVENTS).send().await?;
        Ok(EventStream::new(client, response))
    }

    /// Sends it; the answer is a stream of events where the host has one for this, and JSON otherwise.
    pub(crate) async fn events_or_json<T: DeserializeOwned>(
        self,
    ) -> Result<Answered<'a, T>, Error> {
        let client = self.client;
        let response = self
            .header("accept", &format!("{EVENTS}, application/json;q=0.9"))
            .send()
            .await?;
        if content_type(response.headers()).is_some_and(|kind| kind.starts_with(EVENTS)) {
            let events = EventStream::new(client, response);
            return Ok(Answered::Events(Box::new(events)));
        }
        decoded(client, response).await.map(Answered::Json)
    }
}

/// What a host has answered.
#[derive(Debug)]
pub(crate) enum Answered<'a, T> {
    Json(T),
    Events(Box<EventStream<'a>>),
}

const EVENTS: &str = "text/event-stream";

async fn decoded<T: DeserializeOwned>(client: &Client, response: Response) -> Result<T, Error> {
    let bytes = response
        .bytes()
        .await
        .map_err(|source| client.unreachable(source))?;
    serde_json::from_slice(&bytes).map_err(|error| Error::Answer(error.to_string()))
}

/// The longest refusal that is read.
const MAX_PROBLEM: usize = 64 << 10;

async fn refusal(mut response: Response) -> Error {
    let status = response.status();
    let is_json = is_json(response.headers());
    let mut body = Vec::new();
    while let Ok(Some(chunk)) = response.chunk().await {
        body.extend_from_slice(&chunk);
        if body.len() > MAX_PROBLEM {
            break;
        }
    }
    match serde_json::from_slice::<Problem>(&body) {
        Ok(problem) if is_json => Error::Refused(Box::new(problem)),
        _ => Error::Answer(unexplained(status)),
    }
}

fn is_json(headers: &HeaderMap) -> bool {
    content_type(headers).is_some_and(|value| value.contains("json"))
}

fn content_type(headers: &HeaderMap) -> Option<&str> {
    headers.get(CONTENT_TYPE)?.to_str().ok()
}

fn unexplained(status: StatusCode) -> String {
    format!("{status} without an explanation; is this URL a Sluice host?")
}
