//! The harness of the whole-system tests: a fleet of real processes that speaks the domain.

use std::path::PathBuf;

/// Where the product's binaries are: beside the folder of the test's own executable. `cargo xtask test` builds them.
#[must_use]
pub fn binaries() -> PathBuf {
    let own = std::env::current_exe().expect("the test has an executable");
    own.parent().and_then(std::path::Path::parent).expect("target/<profile>/deps/<test>").to_owned()
}

/// Where `cargo xtask plugins` puts the shipped gates.
#[must_use]
pub fn plugins() -> PathBuf {
    binaries().parent().expect("target/<profile>").join("plugins")
}
