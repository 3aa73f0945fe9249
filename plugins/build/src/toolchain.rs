//! A Rust that compiles for WebAssembly: one with the target, or Debian's.

use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What plugins are compiled for. It has no system interface, so a plugin cannot even ask for one.
pub const TARGET: &str = "wasm32-unknown-unknown";

/// A way to compile for [`TARGET`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Toolchain {
    /// The Rust at hand has the target.
    Installed,
    /// Debian's packages, which bring the standard library as source, and the linker of the Rust at hand.
    Debian {
        /// `rust-lld`.
        linker: PathBuf,
    },
}

impl Toolchain {
    /// The first way that works in `folder`, whose toolchain file counts.
    ///
    /// # Errors
    ///
    /// None works here.
    pub fn find(folder: &Path) -> Result<Self, ToolchainError> {
        if Self::installed(folder)? {
            return Ok(Self::Installed);
        }
        if Self::debian_is_there() {
            return Self::debian(folder);
        }
        Err(ToolchainError::Missing)
    }

    /// Whether the Rust at hand has the target.
    ///
    /// # Errors
    ///
    /// There is no Rust.
    pub fn installed(folder: &Path) -> Result<bool, ToolchainError> {
        let libraries = target_libraries(folder, Some(TARGET))?;
        Ok(libraries.is_some_and(|libraries| {
            std::fs::read_dir(libraries).is_ok_and(|mut entries| entries.next().is_some())
        }))
    }

    /// Whether Debian's packages for WebAssembly are there.
    #[must_use]
    pub fn debian_is_there() -> bool {
        Path::new("/usr/bin/cargo").exists()
            && Path::new("/usr/lib/rustlib/src/rust/library").exists()
    }

    /// Debian's packages.
    ///
    /// # Errors
    ///
    /// The Rust at hand has no linker for WebAssembly, which they do not bring.
    pub fn debian(folder: &Path) -> Result<Self, ToolchainError> {
        let libraries = target_libraries(folder, None)?.ok_or(ToolchainError::Missing)?;
        let linker = libraries
            .parent()
            .map(|parent| parent.join("bin/rust-lld"))
            .filter(|linker| linker.exists());
        linker
            .map(|linker| Self::Debian { linker })
            .ok_or(ToolchainError::NoLinker)
    }

    /// `cargo build` in `folder`, for [`TARGET`].
    pub(crate) fn cargo_build(&self, folder: &Path) -> Command {
        let mut command;
        match self {
            Self::Installed => {
                command = program(
                    std::env::var_os("CARGO").map_or_else(|| "cargo".into(), PathBuf::from),
                );
                command.arg("build");
            }
            Self::Debian { linker } => {
                // Another compiler's results have a folder of their own.
                let target = std::env::var_os("CARGO_TARGET_DIR")
                    .map_or_else(|| "target".into(), PathBuf::from);
                command = program("/usr/bin/cargo".into());
                command
                    .env("RUSTC", "/usr/bin/rustc")
                    .env("RUSTC_BOOTSTRAP", "1")
                    .env("CARGO_TARGET_DIR", folder.join(target).join("debian-web"))
                    .env("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER", linker)
                    .env_remove("RUSTUP_TOOLCHAIN")
                    .args(["build", "-Zbuild-std=std,panic_abort"]);
            }
        }
        command.current_dir(folder).args(["--target", TARGET]);
        command
    }
}

/// Where rustc has the libraries of `target`; none where it does not know it.
fn target_libraries(
    folder: &Path,
    target: Option<&str>,
) -> Result<Option<PathBuf>, ToolchainError> {
    let mut command =
        program(std::env::var_os("RUSTC").map_or_else(|| "rustc".into(), PathBuf::from));
    command
        .args(["--print", "target-libdir"])
        .current_dir(folder);
    if let Some(target) = target {
        command.args(["--target", target]);
    }
    let output = command.output().map_err(ToolchainError::NoRust)?;
    Ok(output
        .status
        .success()
        .then(|| PathBuf::from(String::from_utf8_lossy(&output.stdout).trim())))
}

#[allow(
    clippy::disallowed_methods,
    reason = "cargo and rustc are started here, for whoever develops a plugin; no host and no agent uses this crate"
)]
fn program(path: PathBuf) -> Command {
    Command::new(path)
}

/// Nothing here compiles for WebAssembly.
#[derive(Debug, thiserror::Error)]
pub enum ToolchainError {
    /// No rustc.
    #[error(
        "building a plugin needs Rust, and rustc cannot be started; install it from https://rustup.rs"
    )]
    NoRust(#[source] io::Error),
    /// No target.
    #[error(
        "building a plugin needs Rust's target {TARGET}, which is not installed; run `rustup target add {TARGET}`, or on \
         Debian, as root, `apt-get install rustc-web cargo-web rust-web-src`"
    )]
    Missing,
    /// Debian's packages alone.
    #[error(
        "this Rust has no rust-lld, which Debian's packages need to link for {TARGET}; run `rustup target add {TARGET}`"
    )]
    NoLinker,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_lacks_the_target_reads_both_ways_to_it() {
        let text = ToolchainError::Missing.to_string();
        assert!(
            text.contains("rustup target add wasm32-unknown-unknown"),
            "{text}"
        );
        assert!(text.contains("apt-get install rustc-web"), "{text}");
    }

    #[test]
    fn both_ways_compile_for_the_same_target_and_keep_their_results_apart() {
        let folder = Path::new("/plugin");
        let words = |toolchain: Toolchain| {
            let command = toolchain.cargo_build(folder);
            let words: Vec<_> = command
                .get_args()
                .map(|word| word.to_string_lossy().into_owned())
                .collect();
            let apart = command.get_envs().any(|(name, value)| {
                name == "CARGO_TARGET_DIR"
                    && value.is_some_and(|value| Path::new(value).ends_with("debian-web"))
            });
            (words.join(" "), apart)
        };
        assert_eq!(
            words(Toolchain::Installed),
            ("build --target wasm32-unknown-unknown".to_owned(), false)
        );
        let debian = Toolchain::Debian {
            linker: "/lld".into(),
        };
        let expected = "build -Zbuild-std=std,panic_abort --target wasm32-unknown-unknown";
        assert_eq!(words(debian), (expected.to_owned(), true));
    }
}
