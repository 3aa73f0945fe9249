//! Between what the protocol says and what gates see.

use sluice_gate_types::manifest::LimitsAsked;
use sluice_gate_types::{answer as a, input as i};
use sluice_protocol::bundle::{Bundle, Source, Submission};
use sluice_protocol::digest::Digest;
use sluice_protocol::gates::{GateLimits, Setting, SettingValue};
use sluice_protocol::message::control::{Fact, FactValue};
use sluice_protocol::report;
use sluice_protocol::script::{ParameterDeclaration, Requirements};

/// A fact as gates see it.
#[must_use]
pub fn fact(fact: Fact, origin: i::Origin) -> i::Attribute {
    let value = match fact.value {
        FactValue::Boolean(v) => i::Value::Boolean(v),
        FactValue::Integer(v) => i::Value::Integer(v),
        FactValue::Decimal(v) => i::Value::Decimal(v),
        FactValue::Text(v) => i::Value::Text(v),
        FactValue::Texts(v) => i::Value::Texts(v),
    };
    i::Attribute {
        key: fact.key,
        value,
        origin,
    }
}

/// Settings of a gate set as a binding takes them.
#[must_use]
pub fn settings(settings: &[Setting]) -> Vec<(String, i::Value)> {
    let value = |value: &SettingValue| match value.clone() {
        SettingValue::Boolean(v) => i::Value::Boolean(v),
        SettingValue::Integer(v) => i::Value::Integer(v),
        SettingValue::Decimal(v) => i::Value::Decimal(v),
        SettingValue::Text(v) => i::Value::Text(v),
        SettingValue::Texts(v) => i::Value::Texts(v),
    };
    settings
        .iter()
        .map(|setting| (setting.key.clone(), value(&setting.value)))
        .collect()
}

/// A binding's limits as the runtime takes them.
#[must_use]
pub const fn call_limits(limits: &GateLimits) -> LimitsAsked {
    LimitsAsked {
        fuel: limits.fuel,
        memory: limits.memory,
        time: limits.time_ms,
    }
}

/// The script before its placeholders are filled, for the first two stages.
pub(crate) fn source_script(source: &Source) -> i::Script {
    script(
        &source.interpreter.command,
        &source.interpreter.flags,
        source.interpreter.language().as_str(),
        source.text.as_str(),
    )
}

fn script(command: &str, flags: &[String], language: &str, text: &str) -> i::Script {
    i::Script {
        interpreter: command.to_owned(),
        flags: flags.to_vec(),
        language: language.to_owned(),
        text: text.to_owned(),
        sha256: Digest::of(text.as_bytes()).as_bytes().to_vec(),
    }
}

/// The bundle as scanners and policies see it. `texts` are the attachments' contents by name, where they are text.
pub(crate) fn bundle(bundle: &Bundle, texts: &[(String, String)]) -> i::Bundle {
    i::Bundle {
        script: script(
            &bundle.interpreter.command,
            &bundle.interpreter.flags,
            bundle.interpreter.language().as_str(),
            &bundle.script,
        ),
        arguments: bundle.arguments.clone(),
        environment: bundle
            .environment
            .iter()
            .map(|variable| i::Binding {
                name: variable.name.clone(),
                value: variable.value.clone(),
            })
            .collect(),
        attachments: bundle
            .attachments
            .iter()
            .map(|attachment| i::Attachment {
                name: attachment.name.clone(),
                size: attachment.size,
                sha256: attachment.sha256.as_bytes().to_vec(),
                text: texts
                    .iter()
                    .find(|(name, _)| *name == attachment.name)
                    .map(|(_, text)| text.clone()),
            })
            .collect(),
        secrets: bundle.secrets.clone(),
        run_as: bundle.run_as.clone().unwrap_or_default(),
        limits: limits(bundle),
    }
}

/// What the script may use and reach, as the job asks for it.
fn limits(bundle: &Bundle) -> Vec<i::Attribute> {
    let limits = &bundle.limits;
    let asked = [
        ("time", limits.time.map(|time| time.0)),
        ("output", limits.output.map(|size| size.0)),
        ("memory", limits.memory.map(|size| size.0)),
    ];
    let integer = |value| i::Value::Integer(i64::try_from(value).unwrap_or(i64::MAX));
    let confinement = bundle
        .confinement
        .map(|asked| i::Value::Text(asked.as_str().to_owned()));
    asked
        .map(|(key, value)| (key, value.map(integer)))
        .into_iter()
        .chain([("confinement", confinement)])
        .filter_map(|(key, value)| Some(i::Attribute::new(key, value?, i::Origin::HostClaim)))
        .collect()
}

/// Every declared parameter, given or not, and every given one, declared or not.
pub(crate) fn parameters(submission: &Submission, source: &Source) -> Vec<i::Parameter> {
    let declared = source.header.as_ref().map(|header| &header.parameters);
    let given = |name: &str| {
        submission
            .parameters
            .iter()
            .find(|given| given.name == name)
            .map(|given| i::Value::Text(given.value.clone()))
    };
    let mut parameters: Vec<_> = declared
        .into_iter()
        .flatten()
        .map(|(name, declaration)| i::Parameter {
            name: name.clone(),
            kind: declaration.kind.as_str().to_owned(),
            value: given(name),
            declared: declaration_attributes(declaration),
        })
        .collect();
    for extra in &submission.parameters {
        if declared.is_none_or(|declared| declared.get(&extra.name).is_none()) {
            parameters.push(i::Parameter {
                name: extra.name.clone(),
                kind: "text".to_owned(),
                value: Some(i::Value::Text(extra.value.clone())),
                declared: Vec::new(),
            });
        }
    }
    parameters
}

fn declaration_attributes(declaration: &ParameterDeclaration) -> Vec<i::Attribute> {
    let mut attributes = Vec::new();
    let mut add = |key: &str, value: i::Value| {
        attributes.push(i::Attribute::new(key, value, i::Origin::HostClaim))
    };
    add("type", i::Value::Text(declaration.kind.as_str().to_owned()));
    add("required", i::Value::Boolean(declaration.required));
    if let Some(default) = declaration
        .default
        .as_ref()
        .and_then(sluice_gate_types::manifest::toml_value)
    {
        add("default", default);
    }
    if let Some(pattern) = &declaration.pattern {
        add("pattern", i::Value::Text(pattern.clone()));
    }
    if let Some(min) = declaration.min {
        add("min", i::Value::Decimal(min));
    }
    if let Some(max) = declaration.max {
        add("max", i::Value::Decimal(max));
    }
    if !declaration.choices.is_empty() {
        add("choices", i::Value::Texts(declaration.choices.clone()));
    }
    add(
        "as",
        i::Value::Text(declaration.delivery.as_str().to_owned()),
    );
    attributes
}

/// The job's attributes that every gate sees: those given, and whether the script declares its parameters.
pub(crate) fn job(source: &Source, given: &[i::Attribute]) -> Vec<i::Attribute> {
    let declared = i::Attribute::new(
        "parameters.declared",
        i::Value::Boolean(source.header.is_some()),
        i::Origin::HostClaim,
    );
    given.iter().cloned().chain([declared]).collect()
}

/// What the script requires; nothing where it declares nothing.
pub(crate) fn requirements_of(source: &Source) -> Vec<i::Attribute> {
    let header = source.header.as_ref();
    header
        .map(|header| requirements(&header.requires))
        .unwrap_or_default()
}

/// What a declaration requires.
fn requirements(requires: &Requirements) -> Vec<i::Attribute> {
    let mut attributes = Vec::new();
    let mut add = |key: &str, value: i::Value| {
        attributes.push(i::Attribute::new(key, value, i::Origin::HostClaim))
    };
    for (key, values) in [
        ("os", &requires.os),
        ("arch", &requires.arch),
        ("commands", &requires.commands),
    ] {
        if !values.is_empty() {
            add(key, i::Value::Texts(values.clone()));
        }
    }
    for (key, value) in [
        ("interpreter", &requires.interpreter),
        ("user", &requires.user),
    ] {
        if let Some(value) = value {
            add(key, i::Value::Text(value.clone()));
        }
    }
    for (key, value) in [("disk", requires.disk), ("memory", requires.memory)] {
        if let Some(size) = value {
            add(
                key,
                i::Value::Integer(i64::try_from(size.0).unwrap_or(i64::MAX)),
            );
        }
    }
    attributes
}

/// A checked finding as reports carry it, with what the runtime adds.
pub(crate) fn finding(
    finding: a::Finding,
    gate: &str,
    mode: report::Mode,
    place: Option<(u32, u32)>,
) -> report::Finding {
    let range = |span: a::Span| report::Range {
        start: span.start,
        end: span.end,
    };
    report::Finding {
        rule: finding.rule,
        severity: match finding.severity {
            a::Severity::Info => report::Severity::Info,
            a::Severity::Low => report::Severity::Low,
            a::Severity::Medium => report::Severity::Medium,
            a::Severity::High => report::Severity::High,
            a::Severity::Critical => report::Severity::Critical,
        },
        confidence: match finding.confidence {
            a::Confidence::Low => report::Confidence::Low,
            a::Confidence::Medium => report::Confidence::Medium,
            a::Confidence::High => report::Confidence::High,
        },
        message: finding.message,
        primary: finding.primary.map(range),
        related: finding.related.into_iter().map(range).collect(),
        subject: finding.subject,
        remediation: finding.remediation,
        attributes: finding
            .attributes
            .into_iter()
            .map(|attribute| {
                crate::check::inert(&format!("{}={}", attribute.key, display(&attribute.value)))
            })
            .collect(),
        line: place.map(|(line, _)| line),
        column: place.map(|(_, column)| column),
        gate: gate.to_owned(),
        mode,
    }
}

/// A check as reports carry it.
pub(crate) fn check(check: a::Check, gate: &str) -> report::Check {
    report::Check {
        gate: gate.to_owned(),
        id: check.id,
        status: match check.status {
            a::CheckStatus::Met => report::CheckStatus::Met,
            a::CheckStatus::Unmet => report::CheckStatus::Unmet,
            a::CheckStatus::Unknown => report::CheckStatus::Unknown,
        },
        message: check.message,
    }
}

fn display(value: &i::Value) -> String {
    match value {
        i::Value::Boolean(v) => v.to_string(),
        i::Value::Integer(v) => v.to_string(),
        i::Value::Decimal(v) => v.to_string(),
        i::Value::Text(v) => v.clone(),
        i::Value::Texts(v) => v.join(","),
        i::Value::Bytes(v) => format!("{} bytes", v.len()),
        i::Value::Secret(_) => "***".to_owned(),
    }
}
