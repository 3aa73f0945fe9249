//! `sluice plugin inspect`: what a component says about itself and what its bytes show. It is not run.

use std::path::Path;
use std::time::SystemTime;

use jiff::Timestamp;
use serde_json::{Value, json};
use sluice_gate_client::BindError;
use sluice_gate_types::admission::Admitted;
use sluice_gate_types::limits::CallLimits;
use sluice_gate_types::manifest::{Rule, SettingSchema};
use sluice_gate_types::signature::{
    MAX_SIGNATURE_FILE, SignatureError, Signed, stated_publisher, verify,
};
use sluice_protocol::digest::Digest;

use super::expectation::word;
use super::install::{MAX_COMPONENT, read_at_most, signature_of};
use super::workbench::{Workbench, WorkbenchError};
use crate::error::Error;
use crate::{exit, output};

pub(super) async fn inspect(json: bool, file: &Path) -> Result<u8, Error> {
    let component = read_at_most(file, MAX_COMPONENT)?;
    let sha256 = Digest::of(&component);
    let signature = Signature::beside(file, sha256)?;
    let shown = match Workbench::new()?.examine(&component).await {
        Ok((admitted, not_snapshotted)) => Ok(Shown {
            // Admission has refused a plugin that asks for more than there is.
            limits: CallLimits::granted(&admitted.manifest.limits).unwrap_or(CallLimits::DEFAULT),
            admitted,
            not_snapshotted,
        }),
        Err(BindError::Refused(refused)) => Err(refused.0),
        Err(BindError::Runner(error)) => return Err(WorkbenchError::Runner(error).into()),
        Err(other) => return Err(WorkbenchError::Refused(other).into()),
    };
    let size = component.len();
    if json {
        let mut object = json!({
            "file": file, "sha256": sha256, "size": size, "admitted": shown.is_ok(),
            "refused": shown.as_ref().err().cloned().unwrap_or_default(), "signature": signature.json(),
        });
        let details = shown.as_ref().map_or(Value::Null, Shown::json);
        for key in [
            "manifest",
            "imports",
            "exports",
            "limits",
            "snapshot",
            "not_snapshotted",
        ] {
            object[key] = details.get(key).cloned().unwrap_or_default();
        }
        output::json_line(&object)?;
    } else {
        let mut fields = vec![
            ("sha256", sha256.to_string()),
            ("size", format!("{size} bytes")),
        ];
        match &shown {
            Ok(shown) => fields.extend(shown.fields()),
            Err(reasons) => fields.extend(reasons.iter().map(|reason| ("refused", reason.clone()))),
        }
        fields.extend(signature.fields());
        let fields: Vec<_> = fields
            .into_iter()
            .map(|(name, text)| (name, Some(text)))
            .collect();
        output::print(&output::record(&fields))?;
    }
    Ok(if shown.is_ok() && signature.holds() {
        exit::SUCCESS
    } else {
        exit::NOT_ALL
    })
}

/// A component that may be a plugin.
struct Shown {
    admitted: Admitted,
    limits: CallLimits,
    not_snapshotted: Option<String>,
}

impl Shown {
    fn fields(&self) -> Vec<(&'static str, String)> {
        let (manifest, limits) = (&self.admitted.manifest, &self.limits);
        let none = |names: &[String]| {
            if names.is_empty() {
                "none".to_owned()
            } else {
                names.join(", ")
            }
        };
        let mut fields = vec![
            ("id", manifest.id.clone()),
            ("version", manifest.version.to_string()),
            ("vendor", manifest.vendor.clone()),
            ("world", manifest.world.as_str().to_owned()),
            ("description", manifest.description.clone()),
            ("runtime", format!("{} or later", manifest.minimum_runtime)),
            ("imports", none(&self.admitted.imports)),
            ("exports", none(&self.admitted.exports)),
            ("reads", none(&manifest.attributes)),
            (
                "limits",
                format!(
                    "{} M fuel, {} KiB, {} ms for each call",
                    limits.fuel / 1_000_000,
                    limits.memory >> 10,
                    limits.time_ms
                ),
            ),
            (
                "snapshot",
                self.not_snapshotted.as_ref().map_or_else(
                    || "its shape allows one: configured once, when it is bound".to_owned(),
                    |reason| format!("none, it is configured on every call: {reason}"),
                ),
            ),
        ];
        fields.extend(
            manifest
                .settings
                .iter()
                .map(|setting| ("setting", text_of_setting(setting))),
        );
        fields.extend(
            manifest
                .rules
                .iter()
                .map(|rule| ("rule", text_of_rule(rule))),
        );
        fields
    }

    fn json(&self) -> Value {
        json!({
            "manifest": self.admitted.manifest,
            "imports": self.admitted.imports,
            "exports": self.admitted.exports,
            "limits": self.limits,
            "snapshot": self.not_snapshotted.is_none(),
            "not_snapshotted": self.not_snapshotted,
        })
    }
}

fn text_of_setting(setting: &SettingSchema) -> String {
    let mut text = format!("{} ({})", setting.id, word(&setting.kind));
    if setting.required {
        text.push_str(", required");
    }
    if let Some(default) = &setting.default {
        text.push_str(&format!(", {default} where absent"));
    }
    if !setting.choices.is_empty() {
        text.push_str(&format!(", one of {}", setting.choices.join(" ")));
    }
    for (name, bound) in [("at least", setting.min), ("at most", setting.max)] {
        if let Some(bound) = bound {
            text.push_str(&format!(", {name} {bound}"));
        }
    }
    format!("{text}: {}", setting.title)
}

fn text_of_rule(rule: &Rule) -> String {
    let severity = word(&rule.severity);
    let tags = if rule.tags.is_empty() {
        String::new()
    } else {
        format!(" [{}]", rule.tags.join(" "))
    };
    format!("{} ({severity}): {}{tags}", rule.id, rule.short)
}

/// What stands in `FILE.sig`.
enum Signature {
    None,
    Wrong(SignatureError),
    Right(Signed),
}

impl Signature {
    /// Whether the statement beside a file is one about these bytes. Whether its publisher is trusted is another's to say.
    fn beside(file: &Path, sha256: Digest) -> Result<Self, Error> {
        let path = signature_of(file);
        if !path.exists() {
            return Ok(Self::None);
        }
        let bytes = read_at_most(&path, MAX_SIGNATURE_FILE as u64)?;
        let now = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        let now = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
        let signed = stated_publisher(&bytes)
            .and_then(|publisher| verify(&bytes, *sha256.as_bytes(), &[publisher], now));
        Ok(signed.map_or_else(Self::Wrong, Self::Right))
    }

    const fn holds(&self) -> bool {
        !matches!(self, Self::Wrong(_))
    }

    fn fields(&self) -> Vec<(&'static str, String)> {
        match self {
            Self::None => vec![("signature", "none beside it".to_owned())],
            Self::Wrong(error) => vec![("signature", format!("WRONG: {error}"))],
            Self::Right(signed) => {
                let statement = &signed.statement;
                vec![
                    ("publisher", signed.publisher.to_string()),
                    (
                        "signed for",
                        format!("{} {}", statement.id, statement.version),
                    ),
                    ("good until", time(statement.not_after)),
                    ("no older than", statement.minimum_version.to_string()),
                ]
            }
        }
    }

    fn json(&self) -> Value {
        match self {
            Self::None => Value::Null,
            Self::Wrong(error) => json!({ "valid": false, "problem": error.to_string() }),
            Self::Right(signed) => json!({
                "valid": true,
                "publisher": signed.publisher.to_string(),
                "id": signed.statement.id,
                "version": signed.statement.version,
                "world": signed.statement.world,
                "not_after": time(signed.statement.not_after),
                "minimum_version": signed.statement.minimum_version,
            }),
        }
    }
}

fn time(milliseconds: u64) -> String {
    i64::try_from(milliseconds)
        .ok()
        .and_then(|time| Timestamp::from_millisecond(time).ok())
        .map_or_else(|| "the end of time".to_owned(), |time| time.to_string())
}
