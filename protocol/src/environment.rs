//! Which variables a job may set.

use std::fmt;

/// What is wrong with a variable that a job wants to set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// No valid name, or a NUL: such a request is refused before an operation exists.
    Invalid(String),
    /// Sluice's own names: likewise.
    Reserved(String),
    /// The variable makes interpreters or loaders run code that no gate saw: the operation is blocked.
    Loader(String),
    /// A part of PATH that depends on a directory: likewise.
    RelativePath,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Invalid(name) => write!(
                f,
                "the variable {} cannot be set: names are letters, digits and _ and do not start with a digit, values have no NUL",
                name.escape_default()
            ),
            Self::Reserved(name) => write!(
                f,
                "the variable {name} cannot be set: SLUICE_ names are reserved"
            ),
            Self::Loader(name) => write!(
                f,
                "the variable {name} would load code that no gate has seen"
            ),
            Self::RelativePath => f.write_str("PATH has a part that is not absolute"),
        }
    }
}

/// Variables through which an interpreter or the loader takes in code, and the prefixes of such.
const LOADERS: &[&str] = &[
    "BASH_ENV",
    "ENV",
    "SHELLOPTS",
    "BASHOPTS",
    "PS4",
    "IFS",
    "PYTHONPATH",
    "PYTHONHOME",
    "PYTHONSTARTUP",
    "PERL5LIB",
    "PERL5OPT",
    "PERLLIB",
    "RUBYLIB",
    "RUBYOPT",
    "NODE_OPTIONS",
    "NODE_PATH",
    "GCONV_PATH",
    "LOCPATH",
    "ZDOTDIR",
    "FPATH",
    "PYTHONPLATLIBDIR",
    "PYTHONPYCACHEPREFIX",
    "PYTHONWARNINGS",
    "RUBYGEMS_GEMDEPS",
    "GEM_HOME",
    "GEM_PATH",
    "OPENSSL_CONF",
    "OPENSSL_ENGINES",
    "OPENSSL_MODULES",
    "PYTHONBREAKPOINT",
    "PSModulePath",
    "DOTNET_STARTUP_HOOKS",
    "DOTNET_ADDITIONAL_DEPS",
    "DOTNET_SHARED_STORE",
];
const LOADER_PREFIXES: &[&str] = &["LD_", "BASH_FUNC_", "CORECLR_", "COR_"];

/// The most bytes that names and values of a job's variables may have in all.
pub const MAX_ENVIRONMENT: usize = 256 << 10;

/// Whether a request may carry this variable at all.
///
/// # Errors
///
/// [`Refusal::Invalid`] or [`Refusal::Reserved`].
pub fn check_request(name: &str, value: &str) -> Result<(), Refusal> {
    // Exported bash functions have names such as BASH_FUNC_x%%: those are loaders, to be blocked and recorded.
    let function = name.starts_with("BASH_FUNC_") && !name.contains(['=', '\0']);
    let valid = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    if !(valid || function) || value.contains('\0') {
        return Err(Refusal::Invalid(name.to_owned()));
    }
    if name.starts_with("SLUICE_") {
        return Err(Refusal::Reserved(name.to_owned()));
    }
    Ok(())
}

/// Whether a machine may give this variable to a script; `allowed` are the loader variables that its owner allows.
///
/// # Errors
///
/// [`Refusal::Loader`] or [`Refusal::RelativePath`].
pub fn check_run(name: &str, value: &str, allowed: &[String]) -> Result<(), Refusal> {
    if name == "PATH" && value.split(':').any(|part| !part.starts_with('/')) {
        return Err(Refusal::RelativePath);
    }
    let loader = LOADERS.contains(&name)
        || LOADER_PREFIXES
            .iter()
            .any(|prefix| name.starts_with(prefix));
    if loader && !allowed.iter().any(|allowed| allowed == name) {
        return Err(Refusal::Loader(name.to_owned()));
    }
    Ok(())
}

/// The variable that carries the parameter `name`: upper case, `-` as `_`.
#[must_use]
pub fn parameter_variable(name: &str) -> String {
    format!(
        "SLUICE_PARAM_{}",
        name.to_ascii_uppercase().replace('-', "_")
    )
}

/// The variable that names the file of the secret `name`: upper case, `-` as `_`.
#[must_use]
pub fn secret_variable(name: &str) -> String {
    let name = name.replace('-', "_");
    format!("SLUICE_SECRET_{}", name.to_ascii_uppercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_carry_valid_names_only() {
        for name in ["", "1A", "A-B", "A=B", "A\0", "Ä", "A B", "x%%"] {
            assert!(
                matches!(check_request(name, ""), Err(Refusal::Invalid(_))),
                "{name:?}"
            );
        }
        assert!(matches!(
            check_request("SLUICE_JOB_ID", "x"),
            Err(Refusal::Reserved(_))
        ));
        assert!(matches!(check_request("A", "\0"), Err(Refusal::Invalid(_))));
        assert_eq!(check_request("_a1", "ünï\n"), Ok(()));
        assert_eq!(check_request("BASH_FUNC_x%%", "() { :; }"), Ok(()));
    }

    #[test]
    fn loaders_are_blocked_unless_the_owner_allows_them() {
        for name in [
            "LD_PRELOAD",
            "LD_AUDIT",
            "BASH_ENV",
            "BASH_FUNC_ls%%",
            "IFS",
            "PYTHONPATH",
            "NODE_OPTIONS",
        ] {
            assert!(
                matches!(check_run(name, "x", &[]), Err(Refusal::Loader(_))),
                "{name}"
            );
            assert_eq!(check_run(name, "x", &[name.to_owned()]), Ok(()));
        }
        for path in ["", ".", "/bin:", ":/bin", "bin:/bin"] {
            assert_eq!(
                check_run("PATH", path, &[]),
                Err(Refusal::RelativePath),
                "{path:?}"
            );
        }
        assert_eq!(check_run("PATH", "/bin:/usr/bin", &[]), Ok(()));
        assert_eq!(check_run("HOME", "/", &[]), Ok(()));
    }
}
