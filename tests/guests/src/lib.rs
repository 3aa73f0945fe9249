//! Hostile guests, and the honest one that they are made from.
//!
//! Each `*.wat` beside `honest.wat` is a guest: the honest gate, but for the forms that the file says instead. Each in
//! `beside/` is a component that is instantiated beside the honest gate within one plugin. What has to come of each is said
//! in [`expected`]: a test fails where a file has nothing there.

pub mod component;
pub mod expected;
mod forms;

use std::path::{Path, PathBuf};

use sluice_gate_types::input::{Bundle, Job, Question, Script};
use sluice_gate_types::{CONTRACT, MANIFEST_SECTION};
use wasm_encoder::{
    ComponentInstanceSection, ComponentSection as _, ComponentSectionId, Encode as _,
};
use wasmparser::{Parser, Payload};
pub use wit_component::StringEncoding;
use wit_component::{ComponentEncoder, embed_component_metadata};
use wit_parser::{Resolve, WorldId};

/// Limits that leave a guest that loops its time, and not much fuel.
pub const LITTLE_FUEL: &str = "fuel = 200000000\ntime = \"10s\"";
/// Limits that leave a guest that loops its fuel, and not much time.
pub const LITTLE_TIME: &str = "fuel = 20000000000\ntime = \"100ms\"";

/// A plugin in the making.
#[derive(Debug, Clone)]
pub struct Guest {
    text: String,
    manifests: Vec<Vec<u8>>,
    contract: String,
    encoding: StringEncoding,
    beside: Vec<Vec<u8>>,
}

impl Guest {
    /// The honest gate.
    #[must_use]
    pub fn honest() -> Self {
        Self {
            text: read(&folder().join("honest.wat")),
            manifests: vec![manifest(LITTLE_FUEL).into_bytes()],
            contract: CONTRACT.to_owned(),
            encoding: StringEncoding::UTF8,
            beside: Vec::new(),
        }
    }

    /// The guest of this file, without its ending.
    #[must_use]
    pub fn named(name: &str) -> Self {
        if let Some(beside) = name.strip_prefix("beside/") {
            return Self::honest().beside(&read(&folder().join(format!("beside/{beside}.wat"))));
        }
        match name {
            "honest" => Self::honest(),
            _ => Self::honest().saying(&read(&folder().join(format!("{name}.wat")))),
        }
    }

    /// With these forms: each in the place of the one with its name, or on top.
    #[must_use]
    pub fn saying(mut self, forms: &str) -> Self {
        self.text = forms::replaced(&self.text, forms);
        self
    }

    /// With a component, as text, that is instantiated beside the gate.
    #[must_use]
    pub fn beside(mut self, component: &str) -> Self {
        self.beside
            .push(wat::parse_str(component).expect("is a component"));
        self
    }

    /// With these manifests and no others.
    #[must_use]
    pub fn manifests(mut self, manifests: &[&[u8]]) -> Self {
        self.manifests = manifests.iter().map(|text| text.to_vec()).collect();
        self
    }

    /// Asking for these limits, lines of TOML.
    #[must_use]
    pub fn limits(self, limits: &str) -> Self {
        self.manifests(&[manifest(limits).as_bytes()])
    }

    /// Built for this version of the contract.
    #[must_use]
    pub fn contract(mut self, version: &str) -> Self {
        version.clone_into(&mut self.contract);
        self
    }

    /// With its texts in this encoding.
    #[must_use]
    pub fn encoding(mut self, encoding: StringEncoding) -> Self {
        self.encoding = encoding;
        self
    }

    /// The component.
    ///
    /// # Panics
    ///
    /// Where a file of this folder is not what it should be.
    #[must_use]
    pub fn build(&self) -> Vec<u8> {
        let text = format!("(module\n{}\n)", self.text).replace(CONTRACT, &self.contract);
        let mut module = wat::parse_str(&text).unwrap_or_else(|error| panic!("{error}"));
        let (resolve, world) = contract(&self.contract);
        embed_component_metadata(&mut module, &resolve, world, self.encoding)
            .expect("takes the contract");
        let encoder = ComponentEncoder::default().validate(true).module(&module);
        let mut component = encoder
            .and_then(|mut encoder| encoder.encode())
            .unwrap_or_else(|error| panic!("{error:#}"));
        for (nested, index) in self.beside.iter().zip(nested(&component)..) {
            component.push(ComponentSectionId::Component.into());
            nested.encode(&mut component);
            let mut instances = ComponentInstanceSection::new();
            instances.instantiate(index, Vec::<(&str, _, _)>::new());
            instances.append_to_component(&mut component);
        }
        let manifests = self.manifests.iter();
        manifests.fold(component, |component, manifest| {
            component::with_section(&component, MANIFEST_SECTION, manifest)
        })
    }
}

/// The names of all guests, the honest one too.
///
/// # Panics
///
/// Where the folder cannot be read.
#[must_use]
pub fn names() -> Vec<String> {
    let list = |folder: PathBuf, prefix: &str| {
        let entries = std::fs::read_dir(folder).expect("is there");
        let names = entries.map(|entry| entry.expect("reads").file_name());
        names
            .filter_map(|name| Some(format!("{prefix}{}", name.to_str()?.strip_suffix(".wat")?)))
            .collect::<Vec<_>>()
    };
    let mut names = list(folder(), "");
    names.extend(list(folder().join("beside"), "beside/"));
    names.sort_unstable();
    names
}

/// What a guest says about itself, with these limits.
#[must_use]
pub fn manifest(limits: &str) -> String {
    format!(
        "id = \"guest\"\nversion = \"0.1.0\"\nvendor = \"Sluice\"\nworld = \"scanner-plugin\"\n\
         minimum_runtime = \"0.1.0\"\n[limits]\n{limits}\n\
         [[rules]]\nid = \"r1\"\nname = \"The whole script\"\nseverity = \"low\"\n"
    )
}

/// The question to a scanner what it makes of this script.
#[must_use]
pub fn question(script: &str) -> Question {
    let script = Script {
        interpreter: "sh".to_owned(),
        flags: Vec::new(),
        language: "shell".to_owned(),
        text: script.to_owned(),
        sha256: vec![0; 32],
    };
    let bundle = Bundle {
        script,
        arguments: Vec::new(),
        environment: Vec::new(),
        attachments: Vec::new(),
        secrets: Vec::new(),
        run_as: "ephemeral".to_owned(),
        limits: Vec::new(),
    };
    Question::Scan {
        bundle,
        job: Job::default(),
    }
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The contract as it is, but for its version, and the world of scanners in it.
fn contract(version: &str) -> (Resolve, WorldId) {
    let package = format!("package sluice:gate@{version};\n");
    let mut text = package.clone();
    let files = std::fs::read_dir(folder().join("../../wit")).expect("is there");
    let mut files: Vec<_> = files.map(|entry| entry.expect("reads").path()).collect();
    files.sort_unstable();
    for file in files {
        text.push_str(&read(&file).replace(CONTRACT, version).replace(&package, ""));
    }
    let mut resolve = Resolve::default();
    let package = resolve
        .push_str("wit", &text)
        .unwrap_or_else(|error| panic!("{error:#}"));
    let world = resolve.select_world(&[package], Some("scanner-plugin"));
    (resolve, world.expect("is in the contract"))
}

/// How many components are in a component.
fn nested(component: &[u8]) -> u32 {
    let mut depth = 0_u32;
    let mut found = 0;
    for payload in Parser::new(0).parse_all(component) {
        match payload.expect("was made above") {
            Payload::Version { .. } => depth += 1,
            Payload::End(_) => depth -= 1,
            Payload::ComponentSection { .. } if depth == 1 => found += 1,
            _ => {}
        }
    }
    found
}
