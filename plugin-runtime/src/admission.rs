//! Whether bytes may be a plugin, decided without running or compiling them.

use sluice_gate_types::admission::{Admitted, Refused};
use sluice_gate_types::limits::CallLimits;
use sluice_gate_types::manifest::{Manifest, Version, World};
use sluice_gate_types::{CONTRACT, MANIFEST_SECTION};
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
    match manifest {
        Some(manifest) if reasons.is_empty() => Ok(Admitted {
            manifest,
            imports: shape.imports.into_iter().map(|item| item.name).collect(),
            exports: shape.exports.into_iter().map(|item| item.name).collect(),
            size: bytes.len() as u64,
        }),
        _ => Err(Refused(reasons)),
    }
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
    /// The functions of an instance, or none where it is no instance.
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
            Some((_, version)) if !speaks(version) => reasons.push(built_for(version)),
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
    let found = exports.iter().find_map(|item| {
        item.gate_interface()
            .filter(|(interface, _)| *interface == world.interface())
            .map(|(_, version)| (item, version))
    });
    match found {
        None => reasons.push(format!(
            "it is said to be a {} and does not export sluice:gate/{}",
            world.as_str(),
            world.interface()
        )),
        Some((_, version)) if !speaks(version) => reasons.push(built_for(version)),
        Some((item, _)) => {
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

/// Whether a component built for this version of the contract can be called: while the contract is 0.x, a minor version
/// is a major one.
fn speaks(version: &str) -> bool {
    version.rsplit_once('.').map(|(minor, _)| minor)
        == CONTRACT.rsplit_once('.').map(|(minor, _)| minor)
}

fn built_for(version: &str) -> String {
    format!(
        "it was built for version {} of the gate contract, this runtime has {CONTRACT}",
        version.escape_debug()
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
                        .filter(|(_, export)| matches!(export.ty, ComponentEntityType::Func(_)))
                        .map(|(name, _)| name.clone())
                        .collect(),
                ),
                // a type that is imported or exported by itself carries no function
                Some(ComponentEntityType::Type {
                    referenced: ComponentAnyTypeId::Defined(_),
                    ..
                }) => Some(Vec::new()),
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
