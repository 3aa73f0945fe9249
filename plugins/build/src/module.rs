//! Cargo compiles crates to core modules.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};

use serde::Deserialize;

use crate::toolchain::Toolchain;

/// A core module that cargo made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Module {
    /// The library's name, with underscores.
    pub name: String,
    /// The crate's manifest.
    pub manifest: PathBuf,
    /// The module.
    pub file: PathBuf,
}

/// Runs `cargo build` in `folder` with these options, its messages on stderr, and returns the modules of all crates that
/// were asked for, up to date.
///
/// # Errors
///
/// Cargo cannot be started, or does not succeed.
pub fn compile(
    toolchain: &Toolchain,
    folder: &Path,
    options: &[&str],
) -> Result<Vec<Module>, CompileError> {
    let output = toolchain
        .cargo_build(folder)
        .args(options)
        .arg("--message-format=json-render-diagnostics")
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .map_err(CompileError::Start)?;
    if !output.status.success() {
        return Err(CompileError::Failed(output.status));
    }
    Ok(modules(&String::from_utf8_lossy(&output.stdout)))
}

/// One line of cargo's messages: <https://doc.rust-lang.org/cargo/reference/external-tools.html>.
#[derive(Deserialize)]
struct Message {
    reason: String,
    #[serde(default)]
    manifest_path: PathBuf,
    target: Option<CargoTarget>,
    #[serde(default)]
    filenames: Vec<PathBuf>,
}

#[derive(Deserialize)]
struct CargoTarget {
    name: String,
    kind: Vec<String>,
}

fn modules(messages: &str) -> Vec<Module> {
    let read = |line| serde_json::from_str::<Message>(line).ok();
    messages
        .lines()
        .filter_map(read)
        .filter(|message| message.reason == "compiler-artifact")
        .filter_map(|message| {
            let target = message.target?;
            if !target.kind.iter().any(|kind| kind == "cdylib") {
                return None;
            }
            let mut files = message.filenames.into_iter();
            Some(Module {
                name: target.name.replace('-', "_"),
                manifest: message.manifest_path,
                file: files.find(|file| file.extension().is_some_and(|end| end == "wasm"))?,
            })
        })
        .collect()
}

/// There is no module.
#[derive(Debug, thiserror::Error)]
pub enum CompileError {
    /// No cargo.
    #[error("cargo cannot be started")]
    Start(#[source] io::Error),
    /// It does not compile.
    #[error("cargo build failed ({0}); its messages stand above")]
    Failed(ExitStatus),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_are_what_cargo_says_that_they_are() {
        let messages = r#"{"reason":"compiler-artifact","manifest_path":"/sdk/Cargo.toml","target":{"kind":["lib"],"name":"sdk"},"filenames":["/t/libsdk.rlib"]}
not JSON
{"reason":"compiler-artifact","manifest_path":"/p/Cargo.toml","target":{"kind":["cdylib","rlib"],"name":"my-words"},"filenames":["/t/libmy_words.rlib","/t/my_words.wasm"]}
{"reason":"build-finished","success":true}"#;
        let module = Module {
            name: "my_words".to_owned(),
            manifest: "/p/Cargo.toml".into(),
            file: "/t/my_words.wasm".into(),
        };
        assert_eq!(modules(messages), [module]);
    }
}
