//! What may depend on what, and whether documents tell the truth. No processes of the product.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("is in the workspace")
        .to_owned()
}

/// What cargo prints, in the workspace's root.
fn cargo(arguments: &[&str]) -> String {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(arguments)
        .current_dir(root())
        .output();
    let output = output.expect("cargo is there");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).expect("is text")
}

/// <https://doc.rust-lang.org/cargo/commands/cargo-metadata.html>
fn metadata() -> Value {
    let text = cargo(&["metadata", "--format-version", "1"]);
    serde_json::from_str(&text).expect("is JSON")
}

/// The objects, or what else is in a list.
fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().expect("is a list").iter()
}

fn string(value: &Value) -> &str {
    value.as_str().expect("is text")
}

/// What each package of the workspace names in its manifest, tests included.
fn arrows(metadata: &Value) -> BTreeMap<String, BTreeSet<String>> {
    let members: BTreeSet<_> = list(&metadata["workspace_members"]).map(string).collect();
    list(&metadata["packages"])
        .filter(|package| members.contains(string(&package["id"])))
        .map(|package| {
            let named = list(&package["dependencies"]);
            (
                string(&package["name"]).to_owned(),
                named
                    .map(|dependency| string(&dependency["name"]).to_owned())
                    .collect(),
            )
        })
        .collect()
}

/// Everything that one package of the workspace builds on, directly or not.
fn reach(arrows: &BTreeMap<String, BTreeSet<String>>, from: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut open = vec![from.to_owned()];
    while let Some(name) = open.pop() {
        for next in arrows.get(&name).into_iter().flatten() {
            if found.insert(next.clone()) {
                open.push(next.clone());
            }
        }
    }
    found
}

#[test]
fn arrows_only_point_to_the_contracts() {
    let arrows = arrows(&metadata());
    for name in [
        "sluice-host",
        "sluice-agent",
        "sluice-protocol",
        "sluice-plugin-runtime",
        "sluice-transport",
        "sluice-database",
        "sluice-cli",
    ] {
        assert!(
            arrows.contains_key(name),
            "{name} is no package: {:?}",
            arrows.keys()
        );
    }
    let never = [
        ("sluice-host", "sluice-agent"),
        ("sluice-host", "sluice-shim"),
        ("sluice-agent", "sluice-host"),
        ("sluice-agent", "sluice-api-types"),
        ("sluice-cli", "sluice-host"),
        ("sluice-cli", "sluice-agent"),
        ("sluice-cli", "sluice-plugin-runtime"),
        ("sluice-cli", "wasmtime"),
        // What starts compilers is for authors alone.
        ("sluice-host", "sluice-plugin-build"),
        ("sluice-agent", "sluice-plugin-build"),
        ("sluice-protocol", "sluice-plugin-runtime"),
        ("sluice-protocol", "sluice-gate-types"),
        ("sluice-plugin-runtime", "sluice-protocol"),
        ("sluice-plugin-runtime", "sluice-transport"),
        ("sluice-agent", "sluice-plugin-runtime"),
        ("sluice-host", "sluice-plugin-runtime"),
        ("sluice-protocol", "tokio"),
        ("sluice-protocol", "quinn"),
        ("sluice-shim", "tokio"),
    ];
    for (from, to) in never {
        assert!(!reach(&arrows, from).contains(to), "{from} depends on {to}");
    }
    // What is in the file is its owner's to say.
    let ours = |name: &&String| name.starts_with("sluice-");
    let database = reach(&arrows, "sluice-database");
    assert_eq!(database.iter().find(ours), None);
    let naming_database: Vec<_> = arrows
        .iter()
        .filter(|(_, named)| named.contains("sluice-database"))
        .map(|(name, _)| name.as_str())
        .collect();
    assert!(
        naming_database
            .iter()
            // The tests play a host whose database somebody changed, and simulate what a commit costs; the benches fill one.
            .all(|name| [
                "sluice-agent",
                "sluice-benches",
                "sluice-host",
                "sluice-tests",
                "sluice-simulation"
            ]
            .contains(name)),
        "{naming_database:?}"
    );
}

#[test]
fn what_is_dangerous_or_replaceable_is_named_in_one_place() {
    let arrows = arrows(&metadata());
    // What measures and what builds the product is not part of it.
    let tools = [
        "sluice-benches",
        "sluice-guests",
        "sluice-tests",
        "xtask",
        "xtask-gates",
    ];
    let product = || {
        arrows
            .iter()
            .filter(|(name, _)| !tools.contains(&name.as_str()))
    };
    let naming = |library: &str| {
        product()
            .filter(|(_, named)| named.contains(library))
            .map(|(name, _)| name.as_str())
            .collect::<Vec<_>>()
    };
    assert_eq!(naming("quinn"), ["sluice-transport"]);
    assert_eq!(naming("wasmtime"), ["sluice-plugin-runtime"]);
    assert_eq!(naming("wasmtime-wizer"), ["sluice-plugin-runtime"]);
    assert_eq!(
        naming("rustls"),
        ["sluice-cli", "sluice-host", "sluice-transport"]
    );
    assert_eq!(naming("rcgen"), ["sluice-transport"]);
    assert_eq!(naming("rusqlite"), ["sluice-database"]);
    assert_eq!(naming("rusqlite_migration"), ["sluice-database"]);
    assert_eq!(naming("seccompiler"), ["sluice-gate-runner", "sluice-shim"]);
    assert_eq!(naming("landlock"), ["sluice-gate-runner", "sluice-shim"]);
    assert_eq!(naming("wit-component"), ["sluice-plugin-build"]);
}

#[test]
fn there_is_one_tls_one_cryptography_and_no_git() {
    // `cargo metadata` lists packages that no feature switches on; `cargo tree` has what is built.
    let tree = built("all");
    let packages: BTreeSet<_> = tree
        .keys()
        .map(|package| package.split_once(" v").expect("has a version"))
        .collect();
    let count = |name: &str| packages.iter().filter(|package| package.0 == name).count();
    assert_eq!(
        (
            count("aws-lc-rs"),
            count("rustls"),
            count("wasmtime"),
            count("quinn")
        ),
        (1, 1, 1, 1)
    );
    for name in ["ring", "openssl", "openssl-sys", "native-tls"] {
        assert_eq!(count(name), 0, "{name} is in the graph");
    }
    for package in list(&metadata()["packages"]) {
        let source = package["source"].as_str().unwrap_or_default();
        assert!(
            !source.starts_with("git+"),
            "{} comes from {source}",
            package["name"]
        );
    }
}

/// What macros and build scripts need while compiling, with other features than the product has it: built for both.
const BUILT_TWICE: &[&str] = &[
    "bitflags",
    "cranelift-bitset",
    "crypto-common",
    "digest",
    "either",
    "hashbrown",
    "itertools",
    "lalrpop-util",
    "libc",
    "log",
    "memchr",
    "object",
    "pulley-interpreter",
    "regex",
    "regex-automata",
    "semver",
    "serde",
    "serde_core",
    "serde_json",
    "siphasher",
    "smallvec",
    "uuid",
    "wasm-encoder",
    "wasmparser",
    "wasmtime-internal-core",
];

#[test]
fn tests_add_no_feature_to_what_binaries_are_built_with_so_that_nothing_is_compiled_again() {
    let (everything, product) = (built("all"), built("normal,build"));
    for (package, features) in &product {
        assert_eq!(everything.get(package), Some(features), "{package}");
    }
    for (package, features) in &everything {
        let name = package.split(' ').next().unwrap_or_default();
        assert!(
            features.len() == 1 || BUILT_TWICE.contains(&name),
            "{package} is compiled with {features:?}; set the features in the root manifest"
        );
    }
}

/// Every package that is built along these edges, `name v1.2.3`, with each of the lists of features that it is built with.
fn built(edges: &str) -> BTreeMap<String, BTreeSet<String>> {
    let mut found: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let tree = cargo(&[
        "tree",
        "--workspace",
        "--edges",
        edges,
        "--prefix",
        "none",
        "--format",
        "{p}|{f}|",
    ]);
    for line in tree.lines() {
        let mut parts = line.split('|');
        let (Some(package), Some(features)) = (parts.next(), parts.next()) else {
            continue;
        };
        let package: Vec<_> = package.split(' ').take(2).collect();
        let features = features.to_owned();
        found.entry(package.join(" ")).or_default().insert(features);
    }
    found
}

#[test]
fn wasmtime_has_the_features_that_were_chosen_and_no_others() {
    let metadata = metadata();
    let package = list(&metadata["packages"])
        .find(|package| package["name"] == "wasmtime")
        .expect("is in the graph");
    let node = list(&metadata["resolve"]["nodes"])
        .find(|node| node["id"] == package["id"])
        .expect("is resolved");
    let features: BTreeSet<_> = list(&node["features"]).map(string).collect();
    let chosen = [
        "runtime",
        "std",
        "cranelift",
        "component-model",
        "async",
        "pooling-allocator",
        "parallel-compilation",
    ];
    assert!(
        chosen.iter().all(|feature| features.contains(feature)),
        "{features:?}"
    );
    let never = [
        "cache",
        "gc",
        "gc-drc",
        "gc-null",
        "gc-copying",
        "threads",
        "component-model-async",
        "component-model-threading",
        "profiling",
        "debug",
        "debug-builtins",
        "coredump",
        "winch",
        "all-arch",
        "wat",
        "default",
        "stack-switching",
        "guest-debug",
        "wmemcheck",
        "pulley",
        "call-hook",
        "demangle",
        "addr2line",
    ];
    for feature in never {
        assert!(
            !features.contains(feature),
            "wasmtime has {feature}: {features:?}"
        );
    }
    let version = string(&package["version"]);
    let parts: Vec<u32> = version.split('.').flat_map(str::parse).collect();
    assert!(
        matches!(parts[..], [48, minor, patch] if (minor, patch) >= (0, 8)),
        "{version} is below the floor 48.0.8"
    );
}

#[test]
fn calls_that_are_refused_everywhere_are_refused_where_clippy_has_a_list_of_its_own() {
    let read = |file: &str| std::fs::read_to_string(root().join(file)).expect("reads");
    let refused = |text: &str| {
        let lines = text.lines().filter(|line| line.contains("{ path = "));
        lines.map(str::to_owned).collect::<BTreeSet<_>>()
    };
    let everywhere = refused(&read("clippy.toml"));
    assert!(!everywhere.is_empty());
    for file in ["protocol/clippy.toml", "plugin-runtime/clippy.toml"] {
        let missing: Vec<_> = everywhere
            .difference(&refused(&read(file)))
            .cloned()
            .collect();
        assert!(missing.is_empty(), "{file} lacks {missing:#?}");
    }
}

/// Paths that a document tells the reader to make.
const TO_BE_MADE: &[&str] = &["acme-words/", "target/"];

#[test]
fn every_path_that_a_document_names_exists() {
    let mut documents = Vec::new();
    find_documents(&root(), &mut documents);
    assert!(!documents.is_empty());
    let mut missing = Vec::new();
    for document in &documents {
        let text = std::fs::read_to_string(document).expect("is UTF-8");
        let folder = document.parent().expect("has a folder");
        for path in paths(&text) {
            let made = TO_BE_MADE.iter().any(|prefix| path.starts_with(prefix));
            if !made && !folder.join(path).exists() && !root().join(path).exists() {
                missing.push(format!("{}: {path}", document.display()));
            }
        }
    }
    assert!(missing.is_empty(), "{missing:#?}");
}

fn find_documents(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("reads").flatten() {
        let (path, name) = (entry.path(), entry.file_name());
        if path.is_dir() && name != "target" && !name.to_string_lossy().starts_with('.') {
            find_documents(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "md") {
            found.push(path);
        }
    }
}

/// What stands in backticks or as a link's target and can only be a relative path.
fn paths(text: &str) -> impl Iterator<Item = &str> {
    let quoted = text.split('`').skip(1).step_by(2);
    let linked = text
        .split("](")
        .skip(1)
        .filter_map(|rest| rest.split([')', '#']).next());
    quoted.chain(linked).filter(|word| {
        let known = [".md", ".rs", ".toml", ".wit", ".json", "/"];
        let letters = word
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '/' | '.' | '-' | '_'));
        letters
            && word.contains('/')
            && !word.starts_with(['/', '-'])
            && known.iter().any(|ending| word.ends_with(ending))
    })
}

#[test]
fn a_path_is_told_from_other_words() {
    let text = "See `agent/src/operation.rs`, `sluice:gate/log`, `/etc/x.toml`, `a/b`, `plugins/`, [this](docs/x.md#part) and [that](https://x.org/y.md).";
    assert_eq!(
        paths(text).collect::<Vec<_>>(),
        ["agent/src/operation.rs", "plugins/", "docs/x.md"]
    );
}

/// A page with tables that name tests as `file`: `test`, `another one`.
fn page_with_tests(page: &str) -> (String, usize, Vec<String>) {
    let page = std::fs::read_to_string(root().join(page)).expect("is UTF-8");
    let (mut named, mut missing) = (0, Vec::new());
    for line in page.lines() {
        let mut file = None;
        let parts: Vec<_> = line.split('`').collect();
        // What stands between two backquotes, and the text before it.
        for [before, code] in parts.as_chunks().0 {
            if code.ends_with(".rs") {
                file = Some((
                    *code,
                    std::fs::read_to_string(root().join(code)).expect("is UTF-8"),
                ));
            } else if let Some((name, text)) = &file
                && [": ", ", ", " and "].contains(before)
            {
                named += 1;
                if !text.contains(&format!("fn {code}(")) {
                    missing.push(format!("{name}: {code}"));
                }
            }
        }
    }
    (page, named, missing)
}

#[test]
fn every_test_that_an_incident_names_exists() {
    let (_, named, missing) = page_with_tests("docs/past-incidents.md");
    assert!(missing.is_empty() && named > 20, "{named}: {missing:#?}");
}

/// How many cases there are in docs/adversarial.md. One that is no longer tried stays, and says why.
const CASES: usize = 35;

#[test]
fn every_adversarial_case_names_tests_that_exist_or_says_why_there_is_none() {
    let (page, named, missing) = page_with_tests("docs/adversarial.md");
    assert!(missing.is_empty() && named > 90, "{named}: {missing:#?}");
    let rows = |line: &&str| line.starts_with("| ") && !line.starts_with("| case |");
    let mut cases = BTreeSet::new();
    for row in page.lines().filter(rows) {
        // The case, what must hold, and what holds it.
        let cells: Vec<_> = row.trim_matches('|').split(" | ").collect();
        let [case, must, held] = cells.as_slice() else {
            panic!("a row has three cells: {row}");
        };
        assert!(cases.insert(case.trim().to_owned()), "twice: {case}");
        assert!(!must.trim().is_empty(), "{case}");
        assert!(
            held.contains(".rs`: `") || held.contains("Not covered: "),
            "{case}"
        );
    }
    assert!(cases.len() >= CASES, "{}: a case has gone", cases.len());
}
