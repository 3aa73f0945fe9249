//! Whether bytes may be a plugin, decided without running or compiling them.

use std::collections::BTreeSet;

use sluice_gate_types::MANIFEST_SECTION;
use sluice_gate_types::admission::{Admitted, Refused};
use sluice_gate_types::contract::Contract;
use sluice_gate_types::limits::CallLimits;
use sluice_gate_types::manifest::{Manifest, Version, World};
use wasmparser::component_types::{ComponentAnyTypeId, ComponentEntityType};
use wasmparser::{Encoding, Parser, Payload, Validator, WasmFeatures};

/// The largest component of the pure profile, in bytes.
pub const MAX_COMPONENT: usize = 8 << 20;

/// Decides about the bytes of a file. Every reason against it is named.
///
/// # Errors
///
/// The reasons, for the person who installs it.
pub fn admit(bytes: &[u8]) -> Result<Admitted, Refused> {
    if bytes.starts_with(b"\x7fELF") {
        return refuse(
            "it is an ELF file (precompiled or native code); plugins are WebAssembly components",
        );
    }
    if bytes.len() > MAX_COMPONENT {
        return refuse(format!(
            "it has {} bytes, over the limit of {MAX_COMPONENT}",
            bytes.len()
        ));
    }
    let shape = Shape::read(bytes)?;
    let mut reasons = Vec::new();
    let manifest = match shape.manifests.as_slice() {
        [text] => Manifest::parse(text)
            .map_err(|error| reasons.push(error.to_string()))
            .ok(),
        [] => {
            reasons.push(format!(
                "it has no manifest (custom section {MANIFEST_SECTION})"
            ));
            None
        }
        _ => {
            reasons.push("it has more than one manifest".to_owned());
            None
        }
    };
    let contract = contract(&shape, &mut reasons);
    shape
        .imports
        .iter()
        .for_each(|import| import.check(&mut reasons));
    if let Some(manifest) = &manifest {
        check_exports(manifest.world, &shape.exports, &mut reasons);
        if let Err(over) = CallLimits::granted(&manifest.limits) {
            reasons.extend(over);
        }
        let runtime = this_version();
        if manifest.minimum_runtime > runtime {
            reasons.push(format!(
                "it needs runtime {}, this is {runtime}",
                manifest.minimum_runtime
            ));
        }
    }
    match (manifest, contract) {
        (Some(manifest), Some(contract)) if reasons.is_empty() => Ok(Admitted {
            manifest,
            contract,
            imports: shape.imports.into_iter().map(|item| item.name).collect(),
            exports: shape.exports.into_iter().map(|item| item.name).collect(),
            size: bytes.len() as u64,
        }),
        _ => Err(Refused(reasons)),
    }
}

/// The contract that a component was built for: that of all interfaces of `sluice:gate` among its imports and exports. Every
/// version that this runtime does not have is a reason against it, and so are two contracts in one component.
fn contract(shape: &Shape, reasons: &mut Vec<String>) -> Option<Contract> {
    let items = shape.imports.iter().chain(&shape.exports);
    let versions: BTreeSet<&str> = items
        .filter_map(|item| item.gate_interface())
        .map(|(_, version)| version)
        .collect();
    let unknown = versions
        .iter()
        .filter(|version| Contract::of(version).is_none());
    reasons.extend(unknown.map(|version| built_for(version)));
    let known: BTreeSet<Contract> = versions
        .iter()
        .filter_map(|version| Contract::of(version))
        .collect();
    if known.len() > 1 {
        reasons.push(format!(
            "it was built for several versions of the gate contract: {}",
            listed(known.iter().copied())
        ));
    }
    known.first().copied()
}

fn listed(contracts: impl Iterator<Item = Contract>) -> String {
    contracts
        .map(Contract::version)
        .collect::<Vec<_>>()
        .join(", ")
}

fn refuse<T>(reason: impl Into<String>) -> Result<T, Refused> {
    Err(Refused(vec![reason.into()]))
}

fn this_version() -> Version {
    env!("CARGO_PKG_VERSION").parse().unwrap_or(Version {
        major: 0,
        minor: 1,
        patch: 0,
    })
}

/// An import or export at the top of a component.
struct Item {
    name: String,
    /// What an instance has beside types: functions, and what has functions in it. None where it is no instance.
    functions: Option<Vec<String>>,
}

impl Item {
    /// The interface and version of `sluice:gate/<interface>@<version>`.
    fn gate_interface(&self) -> Option<(&str, &str)> {
        self.name.strip_prefix("sluice:gate/")?.split_once('@')
    }

    /// No function but `log`'s, whatever the name says.
    fn check(&self, reasons: &mut Vec<String>) {
        let Some(functions) = &self.functions else {
            return reasons.push(format!(
                "it imports {}, which is no interface",
                self.name.escape_debug()
            ));
        };
        match self.gate_interface() {
            // said of all of them once, above
            Some((_, version)) if Contract::of(version).is_none() => {}
            Some(("log", _)) if functions.iter().all(|function| function == "emit") => {}
            _ if functions.is_empty() => {}
            _ => reasons.push(format!(
                "it imports {} ({}); a gate may import sluice:gate/log and nothing else",
                self.name.escape_debug(),
                functions.join(", ").escape_debug()
            )),
        }
    }
}

fn check_exports(world: World, exports: &[Item], reasons: &mut Vec<String>) {
    let found = exports.iter().find(|item| {
        item.gate_interface()
            .is_some_and(|(interface, _)| interface == world.interface())
    });
    match found {
        None => reasons.push(format!(
            "it is said to be a {} and does not export sluice:gate/{}",
            world.as_str(),
            world.interface()
        )),
        // Of another version nobody knows what it needs.
        Some(item)
            if item
                .gate_interface()
                .is_none_or(|(_, version)| Contract::of(version).is_none()) => {}
        Some(item) => {
            let verb = match world {
                World::EnvironmentPlugin => "check",
                World::PreparerPlugin => "prepare",
                World::ScannerPlugin => "scan",
                World::PolicyPlugin => "decide",
            };
            let functions = item.functions.as_deref().unwrap_or_default();
            for needed in ["configure", verb] {
                if !functions.iter().any(|function| function == needed) {
                    reasons.push(format!(
                        "{} lacks the function {needed}",
                        item.name.escape_debug()
                    ));
                }
            }
        }
    }
}

fn built_for(version: &str) -> String {
    format!(
        "it was built for version {} of the gate contract, and this runtime has {}",
        version.escape_debug(),
        listed(Contract::ALL.iter().copied())
    )
}

/// What a component's bytes show.
struct Shape {
    manifests: Vec<String>,
    imports: Vec<Item>,
    exports: Vec<Item>,
}

impl Shape {
    fn read(bytes: &[u8]) -> Result<Self, Refused> {
        let broken = |error: wasmparser::BinaryReaderError| {
            Refused(vec![format!("it is not valid WebAssembly: {error}")])
        };
        let mut names = (Vec::new(), Vec::new());
        let mut manifests = Vec::new();
        let mut depth = 0_usize;
        for payload in Parser::new(0).parse_all(bytes) {
            match payload.map_err(broken)? {
                Payload::Version {
                    encoding: Encoding::Module,
                    ..
                } if depth == 0 => {
                    return refuse("it is a core module; plugins are components");
                }
                Payload::Version { .. } => depth += 1,
                Payload::End(_) => depth -= 1,
                Payload::ComponentImportSection(section) if depth == 1 => {
                    for import in section {
                        names.0.push(import.map_err(broken)?.name.name.to_owned());
                    }
                }
                Payload::ComponentExportSection(section) if depth == 1 => {
                    for export in section {
                        names.1.push(export.map_err(broken)?.name.name.to_owned());
                    }
                }
                Payload::CustomSection(section)
                    if depth == 1 && section.name() == MANIFEST_SECTION =>
                {
                    match str::from_utf8(section.data()) {
                        Ok(text) => manifests.push(text.to_owned()),
                        Err(_) => return refuse("its manifest is not UTF-8"),
                    }
                }
                _ => {}
            }
        }
        let mut validator = Validator::new_with_features(WasmFeatures::default());
        let types = validator.validate_all(bytes).map_err(broken)?;
        let types = types.as_ref();
        let item = |name: &String, entity: Option<ComponentEntityType>| Item {
            name: name.clone(),
            functions: match entity {
                Some(ComponentEntityType::Instance(id)) => Some(
                    types[id]
                        .exports
                        .iter()
                        .filter(|(_, export)| !is_plain_type(&export.ty))
                        .map(|(name, _)| name.clone())
                        .collect(),
                ),
                // a type that is imported or exported by itself carries no function
                Some(entity) if is_plain_type(&entity) => Some(Vec::new()),
                _ => None,
            },
        };
        Ok(Self {
            manifests,
            imports: names
                .0
                .iter()
                .map(|name| {
                    item(
                        name,
                        types.component_item_for_import(name).map(|item| item.ty),
                    )
                })
                .collect(),
            exports: names
                .1
                .iter()
                .map(|name| {
                    item(
                        name,
                        types.component_item_for_export(name).map(|item| item.ty),
                    )
                })
                .collect(),
        })
    }
}

/// A record, a list and the like: neither a resource nor the type of a function, an instance or a component.
const fn is_plain_type(entity: &ComponentEntityType) -> bool {
    matches!(
        entity,
        ComponentEntityType::Type {
            referenced: ComponentAnyTypeId::Defined(_),
            ..
        }
    )
}
