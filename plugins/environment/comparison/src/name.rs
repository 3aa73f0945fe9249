//! Names that vendors write in several ways.

/// Whether `wanted` names the system with this family and distribution: either of the two, in any case. `darwin` is macOS.
#[must_use]
pub fn is_os(wanted: &str, family: &str, distribution: Option<&str>) -> bool {
    let wanted = if wanted.eq_ignore_ascii_case("darwin") {
        "macos"
    } else {
        wanted
    };
    wanted.eq_ignore_ascii_case(family)
        || distribution.is_some_and(|name| wanted.eq_ignore_ascii_case(name))
}

/// Whether two names are of one processor architecture.
#[must_use]
pub fn same_arch(one: &str, other: &str) -> bool {
    one_arch(one) == one_arch(other)
}

/// Vendors name the same architecture in several ways.
fn one_arch(name: &str) -> String {
    let name = name.to_ascii_lowercase();
    match name.as_str() {
        "amd64" | "x64" | "x86-64" => "x86_64".to_owned(),
        "arm64" => "aarch64".to_owned(),
        "i386" | "i486" | "i586" | "i686" => "x86".to_owned(),
        _ => name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_system_goes_by_its_family_and_its_distribution() {
        for (wanted, is) in [
            ("Linux", true),
            ("debian", true),
            ("ubuntu", false),
            ("darwin", false),
        ] {
            assert_eq!(is_os(wanted, "linux", Some("debian")), is, "{wanted}");
        }
        assert!(is_os("Darwin", "macos", None));
    }

    #[test]
    fn an_architecture_has_many_names() {
        assert!(same_arch("AMD64", "x86_64") && same_arch("arm64", "aarch64"));
        assert!(!same_arch("amd64", "arm64"));
    }
}
