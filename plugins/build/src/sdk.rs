//! The source of the SDK of this very version.
//!
//! The SDK is in no registry. A new plugin therefore gets it as a folder of its own: a dependency by name alone would be
//! one on whoever registers that name first.

use std::io;
use std::path::{Path, PathBuf};

/// The SDK, the contract, and a workspace for them: paths below one folder as they are in Sluice's repository.
const FILES: &[(&str, &str)] = &[
    (
        "wit/environment.wit",
        include_str!("../../../wit/environment.wit"),
    ),
    ("wit/log.wit", include_str!("../../../wit/log.wit")),
    ("wit/policy.wit", include_str!("../../../wit/policy.wit")),
    (
        "wit/preparer.wit",
        include_str!("../../../wit/preparer.wit"),
    ),
    ("wit/scanner.wit", include_str!("../../../wit/scanner.wit")),
    ("wit/types.wit", include_str!("../../../wit/types.wit")),
    ("wit/worlds.wit", include_str!("../../../wit/worlds.wit")),
    (
        "plugins/sdk/Cargo.toml",
        include_str!("../../sdk/Cargo.toml"),
    ),
    (
        "plugins/sdk/src/attributes.rs",
        include_str!("../../sdk/src/attributes.rs"),
    ),
    (
        "plugins/sdk/src/bindings.rs",
        include_str!("../../sdk/src/bindings.rs"),
    ),
    (
        "plugins/sdk/src/bundle.rs",
        include_str!("../../sdk/src/bundle.rs"),
    ),
    (
        "plugins/sdk/src/export.rs",
        include_str!("../../sdk/src/export.rs"),
    ),
    (
        "plugins/sdk/src/finding.rs",
        include_str!("../../sdk/src/finding.rs"),
    ),
    (
        "plugins/sdk/src/gate.rs",
        include_str!("../../sdk/src/gate.rs"),
    ),
    (
        "plugins/sdk/src/lib.rs",
        include_str!("../../sdk/src/lib.rs"),
    ),
    (
        "plugins/sdk/src/log.rs",
        include_str!("../../sdk/src/log.rs"),
    ),
    (
        "plugins/sdk/src/settings.rs",
        include_str!("../../sdk/src/settings.rs"),
    ),
];

/// What the manifest of the SDK takes from Sluice's workspace, and no more of it.
const WORKSPACE: &str = include_str!("sdk/workspace.toml");

/// The SDK's own folder below the one that [`write`] fills.
pub const FOLDER: &str = "plugins/sdk";

/// Writes the SDK into `folder`, which it makes, and returns the crate's folder.
///
/// # Errors
///
/// Where something cannot be written, or is there already.
pub fn write(folder: &Path) -> io::Result<PathBuf> {
    let manifest = ("Cargo.toml", WORKSPACE);
    for (path, text) in FILES.iter().chain([&manifest]) {
        let path = folder.join(path);
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent)?;
        }
        let mut file = std::fs::File::create_new(path)?;
        io::Write::write_all(&mut file, text.as_bytes())?;
    }
    Ok(folder.join(FOLDER))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn names(folder: &str) -> BTreeSet<String> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        std::fs::read_dir(root.join(folder))
            .expect("reads")
            .map(|entry| {
                let name = entry.expect("reads").file_name();
                format!("{folder}/{}", name.to_string_lossy())
            })
            .collect()
    }

    #[test]
    fn no_file_of_the_sdk_and_the_contract_is_left_out() {
        let mut expected = names("wit");
        expected.extend(names("plugins/sdk/src"));
        expected.insert("plugins/sdk/Cargo.toml".to_owned());
        let written: BTreeSet<_> = FILES.iter().map(|(path, _)| (*path).to_owned()).collect();
        assert_eq!(written, expected);
    }

    #[test]
    fn its_workspace_says_what_ours_says() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../Cargo.toml");
        let ours = std::fs::read_to_string(root).expect("reads");
        let parse = |text: &str| text.parse::<toml::Table>().expect("is TOML");
        let (ours, theirs) = (parse(&ours), parse(WORKSPACE));
        for key in ["version", "edition", "rust-version", "license"] {
            let of = |manifest: &toml::Table| manifest["workspace"]["package"][key].clone();
            assert_eq!(of(&ours), of(&theirs), "{key}");
        }
        let of =
            |manifest: &toml::Table| manifest["workspace"]["dependencies"]["wit-bindgen"].clone();
        assert_eq!(of(&ours), of(&theirs));
    }
}
