//! `sluice doctor`: why commands do not work, and what to do.

use std::time::{Duration, SystemTime};

use clap::Args;
use serde::Serialize;
use sluice_api_types::whoami::WhoAmI;
use sluice_protocol::ending::one_line;

use crate::command_line::Global;
use crate::error::Error;
use crate::host::{Client, config_path};
use crate::{exit, output};

/// Options of `sluice doctor`: the common ones.
#[derive(Debug, Args)]
pub(crate) struct DoctorArgs {}

/// Clocks may differ by this much.
const MAX_SKEW: Duration = Duration::from_secs(60);

/// One thing that was looked at.
#[derive(Debug, Serialize)]
struct Check {
    check: &'static str,
    ok: bool,
    message: String,
}

/// Runs the command; exit code 1 where something is wrong.
pub(crate) async fn run(global: &Global, _: DoctorArgs) -> Result<u8, Error> {
    let mut checks = Vec::new();
    examine(global, &mut checks).await;
    for check in &checks {
        if global.json {
            output::json_line(check)?;
        } else {
            let mark = if check.ok { "ok  " } else { "FAIL" };
            output::print(&format!(
                "{mark} {}: {}\n",
                check.check,
                one_line(&check.message)
            ))?;
        }
    }
    Ok(if checks.iter().all(|check| check.ok) {
        exit::SUCCESS
    } else {
        exit::NOT_ALL
    })
}

/// Looks at one thing after the other, as far as that makes sense.
async fn examine(global: &Global, checks: &mut Vec<Check>) {
    let mut record = |check, outcome: Result<String, String>| {
        let ok = outcome.is_ok();
        checks.push(Check {
            check,
            ok,
            message: outcome.unwrap_or_else(|message| message),
        });
        ok
    };
    let client = match Client::new(global) {
        Ok(client) => client,
        Err(error) => {
            record("settings", Err(error.line()));
            return;
        }
    };
    let file = config_path().map_or_else(
        || "none, HOME is not set".to_owned(),
        |path| path.display().to_string(),
    );
    record(
        "settings",
        Ok(format!("host {}, file {file}", client.settings().host)),
    );

    let health = match client.probe("/healthz").await {
        Ok(health) => health,
        Err(error) => {
            record("host", Err(error.line()));
            return;
        }
    };
    let (status, skew) = (health.status(), skew(health.headers()));
    if !record(
        "host",
        if status.is_success() {
            Ok("answers".to_owned())
        } else {
            Err(not_a_host(status))
        },
    ) {
        return;
    }
    match client.probe("/readyz").await {
        Ok(ready) if ready.status().is_success() => record("ready", Ok("takes jobs".to_owned())),
        Ok(ready) => record(
            "ready",
            Err(format!(
                "{}; the host is starting or its store fails, see its log",
                ready.status()
            )),
        ),
        Err(error) => record("ready", Err(error.line())),
    };
    record("clock", clock(skew));
    let whoami: Result<WhoAmI, Error> = match client.get(&["whoami"]) {
        Ok(request) => request.timeout(Duration::from_secs(10)).json().await,
        Err(error) => Err(error),
    };
    match whoami {
        Ok(whoami) => {
            let permissions = whoami.permissions.join(", ");
            record(
                "token",
                Ok(format!(
                    "{} of tenant {}, may do: {permissions}",
                    whoami.operator, whoami.tenant
                )),
            );
            record(
                "version",
                versions(env!("CARGO_PKG_VERSION"), &whoami.host_version),
            );
        }
        Err(error) => {
            let advice = "ask for a new token (sluice token create) and run sluice login";
            record("token", Err(format!("{}; {advice}", error.line())));
        }
    }
}

fn not_a_host(status: reqwest::StatusCode) -> String {
    format!("/healthz answers {status}; is this URL a Sluice host?")
}

/// How far the host's clock is from this one, where it says what time it has: seconds, signed.
fn skew(headers: &reqwest::header::HeaderMap) -> Option<i64> {
    let date = headers.get(reqwest::header::DATE)?.to_str().ok()?;
    let host = jiff::fmt::rfc2822::parse(date)
        .ok()?
        .timestamp()
        .as_second();
    let here = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .ok()?
        .as_secs();
    Some(host - i64::try_from(here).ok()?)
}

fn clock(skew: Option<i64>) -> Result<String, String> {
    match skew {
        None => {
            Err("the host does not say what time it has, so expiry times may surprise".to_owned())
        }
        Some(skew) if skew.unsigned_abs() <= MAX_SKEW.as_secs() => Ok(format!("{skew} s apart")),
        Some(skew) => Err(format!(
            "the host's clock differs by {skew} s; certificates and expiry times need NTP on both"
        )),
    }
}

/// Before 1.0 the minor version is what may break.
fn versions(own: &str, host: &str) -> Result<String, String> {
    let series = |version: &str| {
        version
            .split('.')
            .take(2)
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    if series(own) == series(host) {
        Ok(format!("sluice {own}, host {host}"))
    } else {
        Err(format!(
            "sluice {own} talks to host {host}; install the sluice command of the host's version"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_of_one_series_go_together() {
        assert!(versions("0.1.0", "0.1.7").is_ok());
        assert!(versions("0.1.0", "0.2.0").is_err());
    }

    #[test]
    fn the_clock_is_read_from_the_date_header() {
        let mut headers = reqwest::header::HeaderMap::new();
        assert!(clock(skew(&headers)).is_err());
        headers.insert(
            reqwest::header::DATE,
            "Sun, 06 Nov 1994 08:49:37 GMT".parse().expect("is a value"),
        );
        assert!(skew(&headers).is_some_and(|skew| skew < -900_000_000));
        assert!(clock(skew(&headers)).is_err());
        assert!(clock(Some(-60)).is_ok() && clock(Some(61)).is_err());
    }
}
