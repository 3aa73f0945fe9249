//! A host of canned answers, and the command that asks it.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

/// What the command asked.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    /// Method and path, for example `POST /v1/jobs`.
    pub(crate) line: String,
    /// Names in lower case.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Asked {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("the body is JSON")
    }
}

/// The connection that an answer goes to.
pub(crate) struct Answer(TcpStream);

impl Answer {
    pub(crate) fn json(self, status: &str, body: &Value) {
        let kind = if status.starts_with('2') {
            "application/json"
        } else {
            "application/problem+json"
        };
        self.whole(status, kind, &body.to_string());
    }

    fn whole(mut self, status: &str, kind: &str, body: &str) {
        let length = body.len();
        let head = format!(
            "HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n"
        );
        // the command may have gone away, which is for the test to notice
        let _ = self.0.write_all(format!("{head}{body}").as_bytes());
    }

    /// Starts an event stream, which ends when the answer is dropped.
    pub(crate) fn events(&mut self, events: &[(&str, Value)]) {
        let mut text = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n: hello\n\n".to_owned();
        for (name, data) in events {
            text.push_str(&format!("event: {name}\ndata: {data}\n\n"));
        }
        let _ = self.0.write_all(text.as_bytes());
    }

    pub(crate) fn more(&mut self, name: &str, data: &Value) {
        let _ = self
            .0
            .write_all(format!("event: {name}\ndata: {data}\n\n").as_bytes());
    }
}

/// A host on this computer. `answers` is called for each request, each on a thread of its own.
pub(crate) struct Host {
    url: String,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl Host {
    pub(crate) fn start(answers: impl Fn(&Asked, Answer) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("binds");
        let url = format!("http://{}", listener.local_addr().expect("has an address"));
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (answers, record) = (Arc::new(answers), Arc::clone(&asked));
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (answers, record) = (Arc::clone(&answers), Arc::clone(&record));
                std::thread::spawn(move || {
                    let Some(request) = read(&stream) else { return };
                    record
                        .lock()
                        .expect("no test thread panicked")
                        .push(request.clone());
                    answers(&request, Answer(stream));
                });
            }
        });
        Self { url, asked }
    }

    /// Where it is.
    pub(crate) fn url(&self) -> String {
        self.url.clone()
    }

    /// All requests so far.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.asked.lock().expect("no test thread panicked").clone()
    }

    /// The first request of this method and path.
    pub(crate) fn asked_for(&self, line: &str) -> Option<Asked> {
        self.asked().into_iter().find(|asked| asked.line == line)
    }

    pub(crate) fn sluice(&self, arguments: &[&str]) -> Output {
        self.spawn(arguments).wait_with_output().expect("ends")
    }

    pub(crate) fn spawn(&self, arguments: &[&str]) -> Child {
        let mut command = sluice(arguments);
        command
            .env("SLUICE_HOST", &self.url)
            .env("SLUICE_TOKEN", "secret")
            .spawn()
            .expect("starts")
    }
}

/// The command with an environment of its own.
pub(crate) fn sluice(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sluice"));
    command
        .args(arguments)
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

fn read(stream: &TcpStream) -> Option<Asked> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let mut words = line.split_whitespace();
    let line = format!("{} {}", words.next()?, words.next()?);
    let mut headers = Vec::new();
    loop {
        let mut header = String::new();
        reader.read_line(&mut header).ok()?;
        let Some((name, value)) = header.trim_end().split_once(':') else {
            break;
        };
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    let mut asked = Asked {
        line,
        headers,
        body: Vec::new(),
    };
    let length: usize = asked
        .header("content-length")
        .map_or(Ok(0), str::parse)
        .ok()?;
    asked.body.resize(length, 0);
    reader.read_exact(&mut asked.body).ok()?;
    Some(asked)
}

pub(crate) const JOB: &str = "019a0000-0000-7000-8000-000000000001";
pub(crate) const OPERATIONS: [&str; 2] = [
    "019a0000-0000-7000-8000-00000000000a",
    "019a0000-0000-7000-8000-00000000000b",
];
pub(crate) const MACHINES: [&str; 2] = ["web-1", "web-2"];

/// The answer to a submission for the first `machines` of [`MACHINES`].
pub(crate) fn job(machines: usize) -> Value {
    let operation = |index: usize| {
        json!({"operation": OPERATIONS[index], "machine": MACHINES[index], "state": "queued", "status": null,
            "message": null, "exit_code": null})
    };
    json!({"job": JOB, "tenant": "default", "operator": "admin", "submitted_at": "2026-11-21T06:00:00Z",
        "script_sha256": "0".repeat(64), "operations": (0..machines).map(operation).collect::<Vec<_>>()})
}

pub(crate) fn output(
    index: usize,
    stream: &str,
    offset: usize,
    text: &str,
) -> (&'static str, Value) {
    let data = sluice_api_types::bytes::Base64(text.as_bytes().to_vec()).encode();
    let event = json!({"operation": OPERATIONS[index], "machine": MACHINES[index], "stream": stream, "offset": offset, "data": data});
    ("output", event)
}

pub(crate) fn result(
    index: usize,
    state: &str,
    exit_code: i32,
    message: &str,
) -> (&'static str, Value) {
    let result = sluice_api_types::operation::OperationResult::pending(
        JOB.parse().expect("is an id"),
        OPERATIONS[index].parse().expect("is an id"),
        "default".to_owned(),
        MACHINES[index].to_owned(),
        sluice_protocol::ending::State::from_word(state).expect("is a state"),
    );
    let mut result = serde_json::to_value(result).expect("serializes");
    result["exit_code"] = exit_code.into();
    result["message"] = message.into();
    ("result", result)
}

pub(crate) fn end() -> (&'static str, Value) {
    ("end", json!({}))
}

/// What a process wrote and how it ended.
pub(crate) fn ending(output: &Output) -> (Option<i32>, String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (
        output.status.code(),
        text(&output.stdout),
        text(&output.stderr),
    )
}
