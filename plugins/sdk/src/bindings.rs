//! What `wit-bindgen` makes of the folder `wit/`. The types exist once, so that code is shared between the four worlds.
#![allow(
    unsafe_code,
    missing_docs,
    unreachable_pub,
    elided_lifetimes_in_paths,
    unused_qualifications,
    clippy::undocumented_unsafe_blocks,
    clippy::allow_attributes_without_reason,
    clippy::use_self,
    reason = "generated code: the canonical ABI is raw memory, and its items are documented in wit/"
)]

wit_bindgen::generate!({
    world: "policy-plugin",
    path: "../../wit",
    generate_all,
    generate_unused_types: true,
    additional_derives: [PartialEq],
    pub_export_macro: true,
    disable_custom_section_link_helpers: true,
    export_macro_name: "export_policy_abi",
});

/// The world of environment checks.
pub mod environment {
    wit_bindgen::generate!({
        world: "environment-plugin",
        path: "../../wit",
        with: {
            "sluice:gate/types@0.1.0": crate::bindings::sluice::gate::types,
            "sluice:gate/log@0.1.0": crate::bindings::sluice::gate::log,
        },
        pub_export_macro: true,
        disable_custom_section_link_helpers: true,
        export_macro_name: "export_environment_abi",
    });
}

/// The world of preparers.
pub mod preparer {
    wit_bindgen::generate!({
        world: "preparer-plugin",
        path: "../../wit",
        with: {
            "sluice:gate/types@0.1.0": crate::bindings::sluice::gate::types,
            "sluice:gate/log@0.1.0": crate::bindings::sluice::gate::log,
        },
        pub_export_macro: true,
        disable_custom_section_link_helpers: true,
        export_macro_name: "export_preparer_abi",
    });
}

/// The world of scanners.
pub mod scanner {
    wit_bindgen::generate!({
        world: "scanner-plugin",
        path: "../../wit",
        with: {
            "sluice:gate/types@0.1.0": crate::bindings::sluice::gate::types,
            "sluice:gate/log@0.1.0": crate::bindings::sluice::gate::log,
        },
        pub_export_macro: true,
        disable_custom_section_link_helpers: true,
        export_macro_name: "export_scanner_abi",
    });
}
