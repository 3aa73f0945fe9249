//! `sluice plugin new`: a folder that builds as it is.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use sluice_gate_types::manifest::World;
use sluice_plugin_build::sdk;

use crate::error::Error;
use crate::{exit, output};

/// A plugin's id that is a crate's and a folder's name too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PluginName(String);

impl FromStr for PluginName {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let word = |word: &str| {
            !word.is_empty()
                && word
                    .chars()
                    .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit())
        };
        let good = text.len() <= 64
            && text.starts_with(|c: char| c.is_ascii_lowercase())
            && text.split('-').all(word);
        if good {
            Ok(Self(text.to_owned()))
        } else {
            Err("lower-case words joined by dashes, for example acme-words")
        }
    }
}

/// What a plugin is written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Language {
    Rust,
    C,
    Python,
    JavaScript,
}

pub(super) fn language(word: &str) -> Result<Language, String> {
    match word {
        "rust" => Ok(Language::Rust),
        "c" => Ok(Language::C),
        "python" => Ok(Language::Python),
        "js" => Ok(Language::JavaScript),
        _ => Err("rust, c, python or js".to_owned()),
    }
}

pub(super) fn world(word: &str) -> Result<World, String> {
    World::ALL
        .iter()
        .copied()
        .find(|world| [world.interface(), world.as_str()].contains(&word))
        .ok_or_else(|| "scanner, environment, preparer or policy".to_owned())
}

pub(super) fn new(
    json: bool,
    name: &PluginName,
    language: Language,
    world: World,
    sdk: Option<PathBuf>,
) -> Result<u8, Error> {
    match language {
        Language::Rust => {}
        Language::C => return Err(Error::NotImplemented("sluice plugin new --lang c")),
        Language::Python => return Err(Error::NotImplemented("sluice plugin new --lang python")),
        Language::JavaScript => return Err(Error::NotImplemented("sluice plugin new --lang js")),
    }
    let sdk = sdk.or_else(|| std::env::var_os("SLUICE_SDK").map(PathBuf::from));
    let sdk = sdk.as_deref().map(checked_sdk).transpose()?;
    let folder = Path::new(&name.0);
    std::fs::create_dir(folder).map_err(|source| match source.kind() {
        io::ErrorKind::AlreadyExists => NewError::Exists(folder.to_owned()),
        _ => NewError::write(folder)(source),
    })?;
    if let Err(error) = fill(folder, name, world, sdk.as_deref()) {
        // Half a plugin helps nobody, and everything in it is what was just written.
        if let Err(left) = std::fs::remove_dir_all(folder) {
            output::complain(&format!(
                "sluice: {} is left half made: {left}",
                folder.display()
            ));
        }
        return Err(error.into());
    }
    let name = &name.0;
    if json {
        let sdk = sdk.unwrap_or_else(|| folder.join("sdk").join(sdk::FOLDER).display().to_string());
        output::json_line(&serde_json::json!({
            "folder": name, "id": name, "world": world.as_str(), "language": "rust", "sdk": sdk,
        }))?;
    } else {
        let from = sdk.map_or_else(
            || "of this version, in its folder sdk".to_owned(),
            |path| format!("in {path}"),
        );
        let kind = world.interface();
        output::print(&format!(
            "made {name}, a plugin of the world {kind} in Rust, with the SDK {from}\n\n\
             cargo test --manifest-path {name}/Cargo.toml    its code, as any other\n\
             sluice plugin test {name}                       builds it and runs its cases under the limits of production\n"
        ))?;
    }
    Ok(exit::SUCCESS)
}

/// The SDK's real path. A folder of another crate would be found out by cargo alone, and late.
fn checked_sdk(path: &Path) -> Result<String, NewError> {
    let wrong = || NewError::Sdk(path.to_owned());
    let real = path.canonicalize().map_err(|_| wrong())?;
    let manifest = std::fs::read_to_string(real.join("Cargo.toml")).map_err(|_| wrong())?;
    let manifest: toml::Table = toml::from_str(&manifest).map_err(|_| wrong())?;
    let package = manifest
        .get("package")
        .and_then(|package| package.get("name"));
    if package.and_then(toml::Value::as_str) != Some("sluice-plugin-sdk") {
        return Err(wrong());
    }
    real.to_str().map(str::to_owned).ok_or_else(wrong)
}

/// A file of the new folder, and its text.
type Template = (&'static str, &'static str);

macro_rules! templates {
    ($world:literal, $first:literal, $second:literal) => {
        &[
            (
                "plugin.toml",
                include_str!(concat!("../../../templates/", $world, "/plugin.toml")),
            ),
            (
                "src/lib.rs",
                include_str!(concat!("../../../templates/", $world, "/lib.rs")),
            ),
            (
                concat!("cases/", $first),
                include_str!(concat!("../../../templates/", $world, "/cases/", $first)),
            ),
            (
                concat!("cases/", $second),
                include_str!(concat!("../../../templates/", $world, "/cases/", $second)),
            ),
        ]
    };
}

const fn templates(world: World) -> &'static [Template] {
    match world {
        World::ScannerPlugin => templates!("scanner", "finds.toml", "passes.toml"),
        World::EnvironmentPlugin => templates!("environment", "enough.toml", "too-little.toml"),
        World::PreparerPlugin => templates!("preparer", "plans.toml", "refuses.toml"),
        World::PolicyPlugin => templates!("policy", "allows.toml", "blocks.toml"),
    }
}

const COMMON: &[Template] = &[
    (
        "Cargo.toml",
        include_str!("../../../templates/Cargo.toml.in"),
    ),
    (".gitignore", include_str!("../../../templates/gitignore")),
];

fn fill(folder: &Path, name: &PluginName, world: World, sdk: Option<&str>) -> Result<(), NewError> {
    let own = format!("sdk/{}", sdk::FOLDER);
    // As TOML writes a text, whatever is in the path.
    let path = toml::Value::String(sdk.unwrap_or(&own).to_owned()).to_string();
    for (file, text) in COMMON.iter().chain(templates(world)) {
        let text = text
            .replace("{name}", &name.0)
            .replace("{runtime}", env!("CARGO_PKG_VERSION"))
            .replace("{sdk}", &path);
        write(&folder.join(file), &text)?;
    }
    if sdk.is_none() {
        let own = folder.join("sdk");
        sdk::write(&own).map_err(NewError::write(&own))?;
    }
    Ok(())
}

fn write(path: &Path, text: &str) -> Result<(), NewError> {
    let wrong = NewError::write(path);
    let written = path
        .parent()
        .map_or(Ok(()), std::fs::create_dir_all)
        .and_then(|()| std::fs::File::create_new(path))
        .and_then(|mut file| file.write_all(text.as_bytes()));
    written.map_err(wrong)
}

/// There is no new folder.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NewError {
    /// Something of that name.
    #[error("{} is there already; nothing was changed, take another name", .0.display())]
    Exists(PathBuf),
    /// A path to something else.
    #[error("{} is no SDK; nothing was made, name the folder plugins/sdk of a checkout of Sluice or leave it out", .0.display())]
    Sdk(PathBuf),
    /// The file system.
    #[error("cannot write {}; nothing was made", path.display())]
    Write {
        /// What.
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

impl NewError {
    fn write(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Write { path, source }
    }
}

#[cfg(test)]
mod tests {
    use sluice_gate_types::manifest::Manifest;

    use super::*;
    use crate::commands::plugin::case::Case;

    #[test]
    fn a_name_is_good_for_a_crate_a_folder_and_an_id() {
        for name in ["words", "acme-words-2"] {
            assert!(name.parse::<PluginName>().is_ok(), "{name}");
        }
        for name in [
            "", "Words", "2words", "a.b", "../a", "a/b", "-a", "a-", "a--b", "a_b", "é",
        ] {
            assert!(name.parse::<PluginName>().is_err(), "{name}");
        }
    }

    #[test]
    fn every_world_starts_with_a_manifest_of_its_own_and_two_cases_that_can_be_read() {
        for world in World::ALL {
            let folder = tempfile::tempdir().expect("makes a folder");
            let folder = folder.path();
            fill(
                folder,
                &PluginName("acme".to_owned()),
                *world,
                Some("/a \"b"),
            )
            .expect("writes");
            let read = |file: &str| std::fs::read_to_string(folder.join(file)).expect("reads");
            let manifest = Manifest::parse(&read("plugin.toml")).expect("is a manifest");
            assert_eq!((manifest.id.as_str(), manifest.world), ("acme", *world));
            let cargo: toml::Table = toml::from_str(&read("Cargo.toml")).expect("is TOML");
            let sdk = &cargo["dependencies"]["sluice-plugin-sdk"]["path"];
            assert_eq!(sdk.as_str(), Some("/a \"b"));
            let cases = Case::all(&folder.join("cases")).expect("can be read");
            assert_eq!(cases.len(), 2, "{world:?}");
            assert!(read("src/lib.rs").lines().count() < 80);
        }
    }

    #[test]
    fn only_the_sdk_is_taken_for_the_sdk() {
        let folder = tempfile::tempdir().expect("makes a folder");
        assert!(checked_sdk(folder.path()).is_err());
        let manifest = folder.path().join("Cargo.toml");
        std::fs::write(&manifest, "[package]\nname = \"other\"\n").expect("writes");
        assert!(checked_sdk(folder.path()).is_err());
        std::fs::write(&manifest, "[package]\nname = \"sluice-plugin-sdk\"\n").expect("writes");
        assert!(checked_sdk(folder.path()).is_ok_and(|path| Path::new(&path).is_absolute()));
    }
}
