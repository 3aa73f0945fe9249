//! Operations and gates as an honest host would send them; a test changes what it likes.

use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

use sha2::{Digest as _, Sha256};
use sluice_gate_types::input::Value;
use sluice_gate_types::manifest::Manifest;
use sluice_protocol::bundle::{Prepared, Source, Submission, assemble};
use sluice_protocol::digest::Digest;
use sluice_protocol::gates::{GateBinding, GateLimits, Setting, SettingValue};
use sluice_protocol::ids::{BindingId, JobId, OperationId};
use sluice_protocol::message::operation::Operation;
use sluice_protocol::report::Mode;

use crate::places::plugins;

/// The names of the shipped gates, in the order of their stages.
const SHIPPED: [&str; 4] = ["environment", "parameters", "scanner", "policy"];

/// A new operation that runs this script as the machine's default user, with the digest that it has.
#[must_use]
pub fn operation(script: impl AsRef<[u8]>) -> Operation {
    let in_an_hour = SystemTime::now() + Duration::from_secs(3600);
    let not_after = in_an_hour
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    sealed(Operation {
        operation: OperationId::generate(),
        job: JobId::generate(),
        submission: Submission::of(script.as_ref()).into(),
        bundle_sha256: Digest::of(b""),
        not_after: u64::try_from(not_after.as_millis()).unwrap_or(u64::MAX),
        gates_revision: 1,
        skip_security_scan: false,
        targets: 1,
        operator: "admin".to_owned(),
        submitted_at: "2026-11-21T06:00:00Z".to_owned(),
        authorizations: Vec::new(),
        secrets: Vec::new(),
        approval: None,
    })
}

/// The operation with the digest that its submission has now, where no preparer adds anything. One whose script cannot be
/// read keeps what it had.
#[must_use]
pub fn sealed(mut operation: Operation) -> Operation {
    if let Ok(source) = Source::read(&operation.submission) {
        let bundle = assemble(&operation.submission, &source, Prepared::default());
        operation.bundle_sha256 = bundle.digest().unwrap_or(operation.bundle_sha256);
    }
    operation
}

/// The four shipped gates, enforcing, with their default settings.
#[must_use]
pub fn shipped_gates() -> Vec<GateBinding> {
    SHIPPED.iter().map(|name| shipped_gate(name, &[])).collect()
}

/// A shipped gate, enforcing, with these settings and the defaults of the others.
///
/// # Panics
///
/// Where it was not built, or has no such setting.
#[must_use]
pub fn shipped_gate(name: &str, settings: &[(&str, Value)]) -> GateBinding {
    let read = |ending: &str| {
        fs::read(plugins().join(format!("{name}.{ending}")))
            .expect("was made by cargo xtask plugins")
    };
    let component = read("wasm");
    let given: Vec<_> = settings
        .iter()
        .map(|(key, value)| ((*key).to_owned(), value.clone()))
        .collect();
    let settings = manifest(name).settings(&given).expect("are its settings");
    GateBinding {
        binding: BindingId::generate(),
        revision: 1,
        plugin: name.to_owned(),
        component: Digest::from_bytes(Sha256::digest(&component).into()),
        size: component.len() as u64,
        signature: read("wasm.sig"),
        settings: settings
            .into_iter()
            .map(|setting| Setting {
                key: setting.key,
                value: match setting.value {
                    Value::Boolean(value) => SettingValue::Boolean(value),
                    Value::Integer(value) => SettingValue::Integer(value),
                    Value::Decimal(value) => SettingValue::Decimal(value),
                    Value::Text(value) => SettingValue::Text(value),
                    Value::Texts(value) => SettingValue::Texts(value),
                    Value::Bytes(_) | Value::Secret(_) => panic!("no setting has this type"),
                },
            })
            .collect(),
        mode: Mode::Enforce,
        limits: GateLimits::default(),
        languages: Vec::new(),
    }
}

/// What its author's file says.
fn manifest(name: &str) -> Manifest {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../plugins/{name}/plugin.toml"));
    let text = fs::read_to_string(&file).expect("is in the repository");
    Manifest::parse(&text).expect("is a manifest")
}
