//! What may be a plugin, and every reason why something may not.

use sluice_gate_types::contract::Contract;
use sluice_guests::{Guest, component, manifest};
use sluice_plugin_runtime::admission::{MAX_COMPONENT, admit};

/// Everything that is said against these bytes.
fn reasons(bytes: &[u8]) -> String {
    admit(bytes).expect_err("is refused").to_string()
}

#[track_caller]
fn refused(bytes: &[u8], words: &[&str]) {
    let reasons = reasons(bytes);
    for words in words {
        assert!(reasons.contains(words), "{words:?} is not in {reasons:?}");
    }
}

#[test]
fn an_honest_gate_is_admitted_with_its_manifest_contract_imports_and_exports() {
    let bytes = Guest::honest().build();
    let admitted = admit(&bytes).expect("is admitted");
    assert_eq!(admitted.manifest.id, "guest");
    assert_eq!(admitted.contract, Contract::V0_1);
    assert_eq!(admitted.size, bytes.len() as u64);
    let named = |names: &[String], name: &str| names.iter().any(|found| found == name);
    assert!(named(&admitted.imports, "sluice:gate/log@0.1.0"));
    assert!(named(&admitted.exports, "sluice:gate/scanner@0.1.0"));
}

#[test]
fn what_is_no_component_is_refused() {
    refused(b"\x7fELF and so on", &["ELF"]);
    refused(b"\0asm\x01\0\0\0", &["it is a core module"]);
    refused(b"", &["not valid WebAssembly"]);
    refused(b"#!/bin/sh\n", &["not valid WebAssembly"]);
    let whole = Guest::honest().build();
    refused(&whole[..whole.len() / 2], &["not valid WebAssembly"]);
    // What an engine made of it is native code.
    let engine = sluice_plugin_runtime::engine::GateEngine::new(
        sluice_plugin_runtime::engine::Allocation::OnDemand,
        sluice_plugin_runtime::engine::Effort::Little,
    );
    let compiled = engine.expect("starts").compile(&whole).expect("compiles");
    refused(&compiled, &["ELF"]);
}

#[test]
fn a_component_over_the_limit_is_refused_before_it_is_read() {
    let mut bytes = Guest::honest().build();
    bytes.resize(MAX_COMPONENT + 1, 0);
    assert_eq!(
        reasons(&bytes),
        format!(
            "it has {} bytes, over the limit of {MAX_COMPONENT}",
            bytes.len()
        )
    );
    // As large as it may be: a custom section of zeros fills it up.
    let guest = Guest::honest();
    let room = MAX_COMPONENT - guest.build().len() - 16;
    let bytes = component::with_section(&guest.build(), "filling", &vec![0; room]);
    assert!(bytes.len() <= MAX_COMPONENT && bytes.len() > MAX_COMPONENT - 16);
    assert!(admit(&bytes).is_ok());
}

#[test]
fn a_component_has_one_manifest_that_parses() {
    let honest = Guest::honest;
    refused(&honest().manifests(&[]).build(), &["it has no manifest"]);
    let text = manifest("");
    let twice = honest().manifests(&[text.as_bytes(), text.as_bytes()]);
    refused(&twice.build(), &["more than one manifest"]);
    refused(&honest().manifests(&[b"\xff"]).build(), &["not UTF-8"]);
    refused(&honest().manifests(&[b"id = 1"]).build(), &["line 1"]);
    let with = |from: &str, to: &str| {
        let text = text.replace(from, to);
        honest().manifests(&[text.as_bytes()]).build()
    };
    refused(
        &with("id = \"r1\"", "id = \"R 1\""),
        &["the rule R 1 is not"],
    );
    refused(
        &with("severity = \"low\"", "severity = \"some\""),
        &["unknown variant"],
    );
    let setting = "\n[[settings]]\nid = \"s\"\ntype = \"integer\"\ndefault = \"text\"\n[[rules]]";
    refused(
        &with("[[rules]]", setting),
        &["the setting s: its default must be an integer"],
    );
    let rule = "[[rules]]\nid = \"r1\"\nname = \"Again\"\nseverity = \"low\"\n[[rules]]";
    refused(&with("[[rules]]", rule), &["the rule r1 is listed twice"]);
    let hidden = with("vendor = \"Sluice\"", "vendor = \"S\\u001b[2J\"");
    refused(&hidden, &["control characters"]);
}

#[test]
fn a_component_that_is_not_of_its_world_is_refused() {
    let policy = manifest("").replace("scanner-plugin", "policy-plugin");
    refused(
        &Guest::honest().manifests(&[policy.as_bytes()]).build(),
        &["does not export sluice:gate/policy"],
    );
    let none = component::with_manifest("(component)", &manifest(""));
    refused(&none, &["does not export sluice:gate/scanner"]);
    let half = component::with_manifest(
        "(component (instance $i) (export \"sluice:gate/scanner@0.1.0\" (instance $i)))",
        &manifest(""),
    );
    refused(
        &half,
        &["lacks the function configure", "lacks the function scan"],
    );
}

#[test]
fn a_component_of_another_version_is_refused_with_both_versions_named() {
    for version in ["0.2.0", "1.0.0", "1.1.0"] {
        let reasons = reasons(&Guest::honest().contract(version).build());
        assert_eq!(
            reasons,
            format!(
                "it was built for version {version} of the gate contract, and this runtime has 0.1.0"
            )
        );
    }
    let both = component::with_manifest(
        "(component (import \"sluice:gate/log@0.7.0\" (instance))
           (instance $i) (export \"sluice:gate/scanner@0.8.0\" (instance $i)))",
        &manifest(""),
    );
    refused(
        &both,
        &["built for version 0.7.0", "built for version 0.8.0"],
    );
    let later = Guest::honest().contract("0.1.9").build();
    assert_eq!(admit(&later).expect("is admitted").contract, Contract::V0_1);
}

#[test]
fn a_component_that_wants_more_than_a_log_is_refused() {
    for (import, words) in [
        (
            "(import \"run\" (func))",
            "it imports run, which is no interface",
        ),
        (
            "(import \"wasi:cli/environment@0.2.0\" (instance (export \"get-arguments\" (func))))",
            "it imports wasi:cli/environment@0.2.0 (get-arguments)",
        ),
        (
            "(import \"sluice:gate/log@0.1.0\" (instance (export \"emit\" (func)) (export \"read\" (func))))",
            "it imports sluice:gate/log@0.1.0 (emit, read)",
        ),
        (
            "(import \"sluice:gate/types@0.1.0\" (instance (export \"emit\" (func))))",
            "it imports sluice:gate/types@0.1.0 (emit)",
        ),
        (
            "(import \"sluice:gate/log@0.1.0\" (instance (export \"deep\" (instance (export \"run\" (func))))))",
            "it imports sluice:gate/log@0.1.0 (deep)",
        ),
        (
            "(import \"other\" (instance (export \"deep\" (instance (export \"run\" (func))))))",
            "it imports other (deep)",
        ),
        (
            "(import \"thing\" (type (sub resource)))",
            "it imports thing, which is no interface",
        ),
        (
            "(import \"code\" (core module))",
            "it imports code, which is no interface",
        ),
        (
            "(import \"part\" (component))",
            "it imports part, which is no interface",
        ),
    ] {
        let bytes = component::with_manifest(&format!("(component {import})"), &manifest(""));
        refused(&bytes, &[words]);
    }
}

#[test]
fn limits_above_the_ceiling_and_a_runtime_of_the_future_are_refused() {
    let asks = |limits| Guest::honest().limits(limits).build();
    refused(
        &asks("fuel = 20000000001\nmemory = \"65MiB\"\ntime = \"11s\""),
        &["asks for fuel", "asks for memory", "asks for time"],
    );
    let future = manifest("").replace("minimum_runtime = \"0.1.0\"", "minimum_runtime = \"9.0.0\"");
    refused(
        &Guest::honest().manifests(&[future.as_bytes()]).build(),
        &["it needs runtime 9.0.0, this is 0."],
    );
}

#[test]
fn every_reason_is_named_at_once() {
    let bytes = component::with_manifest(
        "(component (import \"run\" (func)))",
        &manifest("fuel = 20000000001").replace("\"0.1.0\"\n[limits]", "\"9.0.0\"\n[limits]"),
    );
    refused(
        &bytes,
        &[
            "it imports run",
            "does not export",
            "asks for fuel",
            "needs runtime",
        ],
    );
}
