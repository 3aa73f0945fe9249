//! A compiled gate that is gone from the cache is compiled again, and until then there is no answer.

use std::fs;
use std::path::Path;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sluice_gate_client::{BindRequest, BoundGate, Component, GateDomain};
use sluice_gate_types::answer::CallError;
use sluice_guests::Guest;
use sluice_protocol::report::Mode;

use crate::domain::{ALONE, ask, domain, is_right, runners};

async fn bound(domain: &GateDomain, component: Component) -> BoundGate {
    let request = BindRequest {
        component,
        settings: vec![],
        mode: Mode::Enforce,
        owner: false,
    };
    let gate = domain.bind(request).await;
    gate.unwrap_or_else(|error| panic!("{error}"))
}

/// Takes everything out of the cache but its key, and ends the runner, which has the gate still.
async fn take_away(cache: &Path) {
    for entry in fs::read_dir(cache).expect("reads") {
        let entry = entry.expect("reads");
        if entry.file_name() != "mac.key" {
            fs::remove_file(entry.path()).expect("removes");
        }
    }
    for pid in runners() {
        kill(Pid::from_raw(pid), Signal::SIGKILL).expect("kills");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gate_whose_compiled_form_is_gone_is_compiled_again_from_where_it_was_read() {
    let _alone = ALONE.lock().await;
    let (folder, domain) = domain(0);
    let file = folder.path().join("guest.wasm");
    fs::write(&file, Guest::honest().build()).expect("writes");
    let gate = bound(&domain, Component::open(&file).expect("reads")).await;
    take_away(&folder.path().join("cache")).await;
    let CallError::Runner(text) = ask(&gate).await.answer.expect_err("there is none") else {
        panic!("another error");
    };
    assert!(text.contains("being compiled again"), "{text}");
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while !is_right(&ask(&gate).await) {
        assert!(
            std::time::Instant::now() < deadline,
            "it is not compiled again"
        );
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_component_that_was_changed_since_is_not_compiled_in_its_place() {
    let _alone = ALONE.lock().await;
    let (folder, domain) = domain(0);
    let cache = folder.path().join("cache");
    let file = folder.path().join("guest.wasm");
    fs::write(&file, Guest::honest().build()).expect("writes");
    let gate = bound(&domain, Component::open(&file).expect("reads")).await;
    fs::write(&file, Guest::named("trap").build()).expect("writes");
    take_away(&cache).await;
    for _ in 0..20 {
        let answer = ask(&gate).await.answer;
        assert!(matches!(answer, Err(CallError::Runner(_))), "{answer:?}");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    let kept = fs::read_dir(&cache).expect("reads").count();
    assert_eq!(kept, 1, "something is in the cache beside its key");
}
