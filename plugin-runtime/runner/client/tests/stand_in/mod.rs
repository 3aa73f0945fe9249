//! A program that stands in for the runner, and a domain that takes it for one.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::sync::OnceLock;

use sluice_gate_client::wire::{Memory, Ready, Response};
use sluice_gate_client::{BindError, BindRequest, BoundGate, Component, DomainOptions, GateDomain};
use sluice_gate_types::admission::Admitted;
use sluice_gate_types::contract::Contract;
use sluice_gate_types::manifest::Manifest;
use sluice_protocol::report::Mode;
use tempfile::TempDir;

/// The program. It is written once and before anything is started, because no program can be started that is being
/// written.
fn program() -> PathBuf {
    static FOLDER: OnceLock<TempDir> = OnceLock::new();
    let folder = FOLDER.get_or_init(|| {
        let manifest = Manifest::parse(
            "id='a'\nversion='0.1.0'\nvendor='v'\nworld='scanner-plugin'\nminimum_runtime='0.1.0'",
        );
        let admitted = Admitted {
            manifest: manifest.expect("parses"),
            contract: Contract::V0_1,
            imports: vec![],
            exports: vec![],
            size: 1,
        };
        let ready = Response::Ready(Ready {
            walls: vec![],
            compatibility: [7; 32],
            runtime: "0.0.0".to_owned(),
            memory: Memory::Pool,
        });
        let text = include_str!("runner.py")
            .replace("@ADMITTED@", &in_hex(&admitted))
            .replace("@READY@", &in_hex(&ready));
        let folder = tempfile::tempdir().expect("makes a directory");
        let path = folder.path().join("runner");
        fs::write(&path, text).expect("writes");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).expect("changes");
        folder
    });
    folder.path().join("runner")
}

fn in_hex(value: &impl serde::Serialize) -> String {
    let mut bytes = Vec::new();
    ciborium::into_writer(value, &mut bytes).expect("encodes");
    hex::encode(bytes)
}

/// A domain with this program as its runner, and its cache.
#[allow(dead_code, reason = "each test program uses its part of this module")]
pub(crate) fn domain() -> (TempDir, GateDomain) {
    domain_with(sluice_gate_client::IDLE)
}

/// The same, whose runner ends when nobody has asked it for this long.
pub(crate) fn domain_with(idle: std::time::Duration) -> (TempDir, GateDomain) {
    let cache = tempfile::tempdir().expect("makes a directory");
    let domain = GateDomain::new(DomainOptions {
        name: "test".to_owned(),
        slot: 0,
        cache: cache.path().join("cache"),
        runner: Some(program()),
        idle,
    });
    (cache, domain.expect("is set up"))
}

/// Binds a component that tells the runner what to do.
pub(crate) async fn bind(domain: &GateDomain, told: &str) -> Result<BoundGate, BindError> {
    let request = BindRequest {
        component: Component::read(told.as_bytes()).expect("is read"),
        settings: vec![],
        mode: Mode::Enforce,
        owner: false,
    };
    domain.bind(request).await
}
