//! Between the generated types and those of `sluice-gate-types`, field by field.

use sluice_gate_types::{answer as a, input as i};
use wasmtime::Store;

use crate::bindings::types as w;
use crate::gate::{Bound, CallState};

/// An answer as the bindings give it.
pub(crate) enum Raw {
    Checks(Vec<w::Check>),
    Prepared(w::Prepared),
    Findings(Vec<w::Finding>),
    Decision(w::Decision),
}

/// Calls the export that `question` is for; none where the gate is of another stage.
pub(crate) fn ask(
    bound: &Bound,
    store: &mut Store<CallState>,
    question: &i::Question,
) -> wasmtime::Result<Option<Result<Raw, w::GateError>>> {
    Ok(Some(match (bound, question.clone()) {
        (
            Bound::Environment(plugin),
            i::Question::Check {
                script,
                requirements,
                facts,
                job,
            },
        ) => plugin
            .sluice_gate_environment()
            .call_check(
                store,
                &script.into(),
                &all(requirements),
                &all(facts),
                &job.into(),
            )?
            .map(Raw::Checks),
        (
            Bound::Preparer(plugin),
            i::Question::Prepare {
                script,
                parameters,
                job,
            },
        ) => plugin
            .sluice_gate_preparer()
            .call_prepare(store, &script.into(), &all(parameters), &job.into())?
            .map(Raw::Prepared),
        (Bound::Scanner(plugin), i::Question::Scan { bundle, job }) => plugin
            .sluice_gate_scanner()
            .call_scan(store, &bundle.into(), &job.into())?
            .map(Raw::Findings),
        (Bound::Policy(plugin), i::Question::Decide(review)) => plugin
            .sluice_gate_policy()
            .call_decide(store, &(*review).into())?
            .map(Raw::Decision),
        _ => return Ok(None),
    }))
}

/// The answer without the bindings' types.
pub(crate) fn answer(raw: Raw) -> a::Answer {
    match raw {
        Raw::Checks(checks) => a::Answer::Checks(all(checks)),
        Raw::Prepared(prepared) => a::Answer::Prepared(prepared.into()),
        Raw::Findings(findings) => a::Answer::Findings(all(findings)),
        Raw::Decision(decision) => a::Answer::Decision(decision.into()),
    }
}

fn all<T: Into<U>, U>(items: Vec<T>) -> Vec<U> {
    items.into_iter().map(Into::into).collect()
}

/// Records whose fields have the same names on both sides.
macro_rules! record {
    ($from:path => $to:path { $($plain:ident),* $(; $($converted:ident),*)? }) => {
        impl From<$from> for $to {
            fn from(value: $from) -> Self {
                Self { $($plain: value.$plain,)* $($($converted: all(value.$converted),)*)? }
            }
        }
    };
}

/// Enums whose cases have the same names on both sides.
macro_rules! cases {
    ($a:path, $b:path: $($case:ident),*) => {
        impl From<$a> for $b {
            fn from(value: $a) -> Self {
                match value { $(<$a>::$case => Self::$case,)* }
            }
        }
        impl From<$b> for $a {
            fn from(value: $b) -> Self {
                match value { $(<$b>::$case => Self::$case,)* }
            }
        }
    };
}

cases!(w::Severity, a::Severity: Info, Low, Medium, High, Critical);
cases!(w::Confidence, a::Confidence: Low, Medium, High);
cases!(w::CheckStatus, a::CheckStatus: Met, Unmet, Unknown);
cases!(w::Origin, i::Origin: Machine, Owner, Signed, HostClaim);
cases!(w::Destination, a::Destination: Environment, Argument, Placeholder);
cases!(w::Verdict, a::Verdict: Allow, AllowWithWarnings, RequireApproval, Block);

record!(i::Binding => w::Binding { name, value });
record!(i::Script => w::Script { interpreter, flags, language, text, sha256 });
record!(i::Attachment => w::Attachment { name, size, sha256, text });
record!(i::DataPack => w::DataPack { name, version, bytes });
record!(i::Job => w::Job { ; attributes });
record!(w::Span => a::Span { start, end });
record!(a::Span => w::Span { start, end });
record!(w::SettingsProblem => a::SettingsProblem { key, message });
record!(w::ParameterProblem => a::ParameterProblem { parameter, message });
record!(w::Reason => a::Reason { code, message });

impl From<i::Value> for w::Value {
    fn from(value: i::Value) -> Self {
        match value {
            i::Value::Boolean(v) => Self::Boolean(v),
            i::Value::Integer(v) => Self::Integer(v),
            i::Value::Decimal(v) => Self::Decimal(v),
            i::Value::Text(v) => Self::Text(v),
            i::Value::Texts(v) => Self::Texts(v),
            i::Value::Bytes(v) => Self::Bytes(v),
            i::Value::Secret(v) => Self::Secret(v),
        }
    }
}

impl From<w::Value> for i::Value {
    fn from(value: w::Value) -> Self {
        match value {
            w::Value::Boolean(v) => Self::Boolean(v),
            w::Value::Integer(v) => Self::Integer(v),
            w::Value::Decimal(v) => Self::Decimal(v),
            w::Value::Text(v) => Self::Text(v),
            w::Value::Texts(v) => Self::Texts(v),
            w::Value::Bytes(v) => Self::Bytes(v),
            w::Value::Secret(v) => Self::Secret(v),
        }
    }
}

impl From<i::Attribute> for w::Attribute {
    fn from(value: i::Attribute) -> Self {
        Self {
            key: value.key,
            value: value.value.into(),
            origin: value.origin.into(),
        }
    }
}

impl From<w::Attribute> for i::Attribute {
    fn from(value: w::Attribute) -> Self {
        Self {
            key: value.key,
            value: value.value.into(),
            origin: value.origin.into(),
        }
    }
}

impl From<i::Bundle> for w::Bundle {
    fn from(value: i::Bundle) -> Self {
        Self {
            script: value.script.into(),
            arguments: value.arguments,
            environment: all(value.environment),
            attachments: all(value.attachments),
            secrets: value.secrets,
            run_as: value.run_as,
            limits: all(value.limits),
        }
    }
}

impl From<i::Parameter> for w::Parameter {
    fn from(value: i::Parameter) -> Self {
        Self {
            name: value.name,
            type_: value.kind,
            value: value.value.map(Into::into),
            declared: all(value.declared),
        }
    }
}

impl From<i::Review> for w::Review {
    fn from(value: i::Review) -> Self {
        Self {
            bundle: value.bundle.into(),
            parameters: all(value.parameters),
            facts: all(value.facts),
            checks: all(value.checks),
            findings: all(value.findings),
            job: value.job.into(),
        }
    }
}

impl From<a::Check> for w::Check {
    fn from(value: a::Check) -> Self {
        Self {
            id: value.id,
            status: value.status.into(),
            message: value.message,
        }
    }
}

impl From<w::Check> for a::Check {
    fn from(value: w::Check) -> Self {
        Self {
            id: value.id,
            status: value.status.into(),
            message: value.message,
        }
    }
}

macro_rules! finding {
    ($from:path => $to:path) => {
        impl From<$from> for $to {
            fn from(value: $from) -> Self {
                Self {
                    rule: value.rule,
                    severity: value.severity.into(),
                    confidence: value.confidence.into(),
                    message: value.message,
                    primary: value.primary.map(Into::into),
                    related: all(value.related),
                    subject: value.subject,
                    remediation: value.remediation,
                    attributes: all(value.attributes),
                }
            }
        }
    };
}

finding!(a::Finding => w::Finding);
finding!(w::Finding => a::Finding);

impl From<w::Planned> for a::Planned {
    fn from(value: w::Planned) -> Self {
        Self {
            name: value.name,
            value: value.value.into(),
            destination: value.destination.into(),
        }
    }
}

impl From<w::Prepared> for a::Prepared {
    fn from(value: w::Prepared) -> Self {
        match value {
            w::Prepared::Planned(plan) => Self::Planned(all(plan.values)),
            w::Prepared::Refused(problems) => Self::Refused(all(problems)),
        }
    }
}

impl From<w::Decision> for a::Decision {
    fn from(value: w::Decision) -> Self {
        Self {
            verdict: value.verdict.into(),
            reasons: all(value.reasons),
        }
    }
}

impl From<w::GateError> for a::CallError {
    fn from(value: w::GateError) -> Self {
        match value {
            w::GateError::InvalidSettings(problems) => Self::InvalidSettings(all(problems)),
            w::GateError::Unsupported(text) => Self::Unsupported(text),
            w::GateError::Internal(text) => Self::Internal(text),
        }
    }
}
