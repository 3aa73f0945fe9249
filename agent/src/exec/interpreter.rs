//! What runs a script: an interpreter of the owner's list, by absolute path, with flags that cannot bring in other code.
//!
//! Names are looked up in a fixed path, not the agent's own, and what is found there must be root's and not writable by
//! others, so that no shim or wrapper of a user takes part. Flags are an allow-list for each language: whatever can name
//! code that no gate saw (`-c`, `-e`, `-m`, `-r` and their relatives) is not on it.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::unistd::Uid;

/// Where interpreters are looked for.
pub const SEARCH: [&str; 6] = [
    "/usr/local/sbin",
    "/usr/local/bin",
    "/usr/sbin",
    "/usr/bin",
    "/sbin",
    "/bin",
];

/// An interpreter that may run, ready for the shim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interpreter {
    /// Absolute path, links as they were found (programs such as busybox go by the name they are called by).
    pub path: PathBuf,
    /// All flags: those every script of the language gets, then those that were asked for.
    pub flags: Vec<String>,
    /// How many every script of the language gets.
    pub fixed: usize,
    /// The name of the script's file, which PowerShell looks at.
    pub script_name: &'static str,
}

/// Why an interpreter is refused.
#[derive(Debug, thiserror::Error)]
pub enum InterpreterError {
    /// Not a program name or absolute path.
    #[error("`{0}` is not the name or absolute path of an interpreter")]
    NotAName(String),
    /// Not in the owner's list.
    #[error("interpreter `{0}` is not allowed on this machine")]
    NotAllowed(String),
    /// Allowed, but not there.
    #[error("interpreter `{0}` is not installed")]
    NotInstalled(String),
    /// There, but others than root could change it.
    #[error("interpreter {} is not used: {reason}", path.display())]
    Unsafe {
        /// Which.
        path: PathBuf,
        /// Why not.
        reason: &'static str,
    },
    /// A flag that is not on the language's list.
    #[error(
        "flag `{flag}` of interpreter `{interpreter}` is not allowed: it could run code that no gate has seen"
    )]
    Flag {
        /// Of which interpreter.
        interpreter: String,
        /// Which.
        flag: String,
    },
}

impl InterpreterError {
    /// True when the machine lacks the interpreter (`unsupported`); false when it is refused (`blocked`).
    #[must_use]
    pub fn is_unsupported(&self) -> bool {
        matches!(self, Self::NotInstalled(_))
    }
}

/// Finds an interpreter by name or absolute path and checks the flags.
///
/// # Errors
/// Every reason not to run it; see [`InterpreterError`].
pub fn resolve(
    command: &str,
    flags: &[String],
    allowed: &[String],
) -> Result<Interpreter, InterpreterError> {
    let name = name_of(command)?;
    if !allowed
        .iter()
        .any(|entry| entry == name || entry == command)
    {
        return Err(InterpreterError::NotAllowed(command.to_owned()));
    }
    let language = Language::of(name);
    let flags_asked = language.check(name, flags)?;
    let candidates: Vec<PathBuf> = if command.starts_with('/') {
        // By path only where the name would have been looked for as well, or where the owner wrote the path.
        let parent = Path::new(command)
            .parent()
            .and_then(Path::to_str)
            .unwrap_or_default();
        if !SEARCH.contains(&parent) && !allowed.iter().any(|entry| entry == command) {
            return Err(InterpreterError::NotAllowed(command.to_owned()));
        }
        vec![command.into()]
    } else {
        SEARCH
            .iter()
            .map(|directory| Path::new(directory).join(name))
            .collect()
    };
    let (path, real) = first_safe(&candidates, command)?;
    let mut flags = language.fixed_flags(&real);
    let fixed = flags.len();
    flags.extend(flags_asked);
    Ok(Interpreter {
        path,
        flags,
        fixed,
        script_name: language.script_name(),
    })
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Language {
    Shell(Shell),
    Python,
    Perl,
    Ruby,
    Node,
    PowerShell,
    Other,
}

/// Shells differ in what a letter means: `-E` of a ksh reads a file of the user's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shell {
    Bash,
    Zsh,
    /// sh, dash, ash, ksh, mksh: what POSIX has.
    Posix,
}

impl Shell {
    const fn letters(self) -> &'static str {
        match self {
            Self::Bash => "euxfvnCpBET",
            Self::Zsh | Self::Posix => "euxfvnC",
        }
    }

    fn words(self) -> &'static [&'static str] {
        match self {
            Self::Bash => &["--norc", "--noprofile", "--posix"],
            Self::Zsh | Self::Posix => &[],
        }
    }
}

impl Language {
    fn of(name: &str) -> Self {
        match name.trim_end_matches(|c: char| c.is_ascii_digit() || c == '.') {
            "bash" => Self::Shell(Shell::Bash),
            "zsh" => Self::Shell(Shell::Zsh),
            "sh" | "dash" | "ksh" | "ash" | "mksh" => Self::Shell(Shell::Posix),
            "python" => Self::Python,
            "perl" => Self::Perl,
            "ruby" => Self::Ruby,
            "node" | "nodejs" => Self::Node,
            "pwsh" | "powershell" => Self::PowerShell,
            _ => Self::Other,
        }
    }

    fn script_name(self) -> &'static str {
        if self == Self::PowerShell {
            "script.ps1"
        } else {
            "script"
        }
    }

    /// What every script gets. For Python: no packages of the user's home, and (from 3.11) not the script's directory.
    /// Never `-I` or `-E`: variables that the owner allows shall count. For zsh: no `.zshenv` of a home that the job names,
    /// which zsh reads for scripts too.
    fn fixed_flags(self, real: &Path) -> Vec<String> {
        let flags: &[&str] = match self {
            Self::Shell(Shell::Zsh) => &["-f"],
            Self::Python if has_safe_path(real) => &["-s", "-P"],
            Self::Python => &["-s"],
            Self::PowerShell => &["-NoLogo", "-NoProfile", "-NonInteractive", "-File"],
            _ => &[],
        };
        flags.iter().map(ToString::to_string).collect()
    }

    /// The flags to pass on, or the first that is not on the list.
    fn check(self, name: &str, flags: &[String]) -> Result<Vec<String>, InterpreterError> {
        let mut passed = Vec::new();
        let mut rest = flags.iter();
        while let Some(flag) = rest.next() {
            let refuse = || InterpreterError::Flag {
                interpreter: name.to_owned(),
                flag: flag.escape_debug().take(80).collect(),
            };
            match self {
                Self::Shell(_) if flag == "-o" || flag == "+o" => {
                    let option = rest
                        .next()
                        .filter(|option| SHELL_OPTIONS.contains(&option.as_str()))
                        .ok_or_else(refuse)?;
                    passed.push(flag.clone());
                    passed.push(option.clone());
                }
                // `-eo pipefail`
                Self::Shell(shell)
                    if flag.ends_with('o')
                        && letters(flag.trim_end_matches('o'), shell.letters()) =>
                {
                    let option = rest
                        .next()
                        .filter(|option| SHELL_OPTIONS.contains(&option.as_str()))
                        .ok_or_else(refuse)?;
                    passed.push(flag.clone());
                    passed.push(option.clone());
                }
                // PowerShell gets these anyway, in the order it wants them.
                Self::PowerShell
                    if POWERSHELL_WORDS
                        .iter()
                        .any(|word| word.eq_ignore_ascii_case(flag)) => {}
                _ if self.allows(flag) => passed.push(flag.clone()),
                _ => return Err(refuse()),
            }
        }
        Ok(passed)
    }

    fn allows(self, flag: &str) -> bool {
        match self {
            Self::Shell(shell) => letters(flag, shell.letters()) || shell.words().contains(&flag),
            Self::Python => letters(flag, "uBbOsSPEIvq"),
            Self::Perl => letters(flag, "wWtTX"),
            Self::Ruby => {
                letters(flag, "wU")
                    || [
                        "-W0",
                        "-W1",
                        "-W2",
                        "-W:no-deprecated",
                        "--disable-gems",
                        "--disable=gems",
                    ]
                    .contains(&flag)
            }
            Self::Node => {
                NODE_FLAGS.contains(&flag)
                    || flag
                        .strip_prefix("--max-old-space-size=")
                        .is_some_and(is_number)
            }
            Self::PowerShell | Self::Other => false,
        }
    }
}

const SHELL_OPTIONS: [&str; 9] = [
    "errexit",
    "nounset",
    "xtrace",
    "pipefail",
    "noglob",
    "verbose",
    "noclobber",
    "errtrace",
    "functrace",
];
const NODE_FLAGS: [&str; 6] = [
    "--no-warnings",
    "--trace-warnings",
    "--no-deprecation",
    "--use-strict",
    "--unhandled-rejections=strict",
    "--enable-source-maps",
];
const POWERSHELL_WORDS: [&str; 4] = ["-NoLogo", "-NoProfile", "-NonInteractive", "-File"];

/// A dash and one or more of the letters.
fn letters(flag: &str, allowed: &str) -> bool {
    flag.strip_prefix('-')
        .is_some_and(|rest| !rest.is_empty() && rest.chars().all(|c| allowed.contains(c)))
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.len() < 10 && text.bytes().all(|b| b.is_ascii_digit())
}

fn name_of(command: &str) -> Result<&str, InterpreterError> {
    let refuse = || InterpreterError::NotAName(command.escape_debug().take(80).collect());
    let path = Path::new(command);
    let name = path
        .file_name()
        .and_then(|name| name.to_str())
        .ok_or_else(refuse)?;
    let plain = !command.contains(|c: char| c.is_control())
        && !path.components().any(|part| part.as_os_str() == "..");
    let shape =
        command == name || (command.starts_with('/') && command.ends_with(&format!("/{name}")));
    if plain && shape {
        Ok(name)
    } else {
        Err(refuse())
    }
}

/// The first that can be trusted, with its path without links.
fn first_safe(
    candidates: &[PathBuf],
    command: &str,
) -> Result<(PathBuf, PathBuf), InterpreterError> {
    let mut refused = None;
    for path in candidates {
        // Not there, or a link to nowhere.
        let Ok(real) = path.canonicalize() else {
            continue;
        };
        match unsafe_because(path, &real) {
            None => return Ok((path.clone(), real)),
            Some(reason) => {
                refused = refused.or(Some(InterpreterError::Unsafe {
                    path: path.clone(),
                    reason,
                }))
            }
        }
    }
    Err(refused.unwrap_or_else(|| InterpreterError::NotInstalled(command.to_owned())))
}

fn unsafe_because(path: &Path, real: &Path) -> Option<&'static str> {
    let me = Uid::effective().as_raw();
    let Ok(meta) = std::fs::metadata(real) else {
        return Some("it cannot be looked at");
    };
    if !meta.is_file() || meta.mode() & 0o111 == 0 {
        return Some("it is not an executable file");
    }
    if meta.mode() & 0o6000 != 0 {
        return Some("it changes its user or group when it is executed");
    }
    let Some(way) = way_to(path) else {
        return Some("it is behind more links than a kernel follows");
    };
    for part in way {
        let Ok(meta) = std::fs::symlink_metadata(&part) else {
            return Some("a directory on the way to it cannot be read");
        };
        if meta.uid() != 0 && meta.uid() != me {
            return Some("it, or a directory on the way to it, does not belong to root");
        }
        if meta.mode() & 0o022 != 0 {
            return Some(
                "it, or a directory on the way to it, is writable by its group or by everyone",
            );
        }
    }
    None
}

/// Every directory in which something is looked up on the way to a file, also to each link, and the file itself. Whoever can
/// change one of them chooses what is executed.
fn way_to(path: &Path) -> Option<Vec<PathBuf>> {
    const MOST_LINKS: usize = 40;
    let steps = |path: &Path| -> Vec<std::ffi::OsString> {
        let parts = path.components().rev();
        parts.map(|part| part.as_os_str().to_owned()).collect()
    };
    let (mut at, mut links) = (PathBuf::from("/"), 0);
    let (mut way, mut left) = (vec![at.clone()], steps(path));
    while let Some(step) = left.pop() {
        match step.as_encoded_bytes() {
            b"/" => at = PathBuf::from("/"),
            b".." => drop(at.pop()),
            _ => {
                let next = at.join(&step);
                match std::fs::read_link(&next) {
                    Ok(target) => {
                        links += 1;
                        left.extend(steps(&target));
                    }
                    Err(_) => {
                        at = next;
                        way.push(at.clone());
                    }
                }
            }
        }
        if links > MOST_LINKS {
            return None;
        }
    }
    Some(way)
}

/// `-P` came with Python 3.11. The version is in the name of the real file, as every distribution has it.
fn has_safe_path(real: &Path) -> bool {
    let name = real
        .file_name()
        .and_then(|name| name.to_str())
        .unwrap_or_default();
    let minor = name.strip_prefix("python3.").map(|rest| {
        rest.chars()
            .take_while(char::is_ascii_digit)
            .collect::<String>()
    });
    minor
        .and_then(|minor| minor.parse::<u32>().ok())
        .is_some_and(|minor| minor >= 11)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn strings(list: &[&str]) -> Vec<String> {
        list.iter().map(ToString::to_string).collect()
    }

    fn ask(command: &str, flags: &[&str]) -> Result<Interpreter, InterpreterError> {
        resolve(
            command,
            &strings(flags),
            &strings(&[
                "sh",
                "bash",
                "python3",
                "perl",
                "ruby",
                "node",
                "pwsh",
                "no-such-thing",
            ]),
        )
    }

    #[test]
    fn a_name_becomes_an_absolute_path_of_the_system() {
        let found = ask("bash", &["-eu", "-o", "pipefail"]).unwrap();
        assert!(found.path.is_absolute() && found.path.ends_with("bash"));
        assert_eq!(found.flags, ["-eu", "-o", "pipefail"]);
        assert_eq!(
            ask("/bin/bash", &["-euo", "pipefail"]).unwrap().path,
            Path::new("/bin/bash")
        );
    }

    #[test]
    fn what_is_not_listed_or_not_a_name_is_refused() {
        assert!(
            matches!(ask("awk", &[]), Err(InterpreterError::NotAllowed(name)) if name == "awk")
        );
        assert!(matches!(
            ask("/tmp/bash", &[]),
            Err(InterpreterError::NotAllowed(_))
        ));
        assert!(matches!(ask("no-such-thing", &[]), Err(error) if error.is_unsupported()));
        for command in [
            "",
            "bash\n",
            "ba\0sh",
            "./bash",
            "../bin/bash",
            "/bin/../tmp/bash",
            "bin/bash",
            "/",
            "/bin/bash/",
        ] {
            assert!(
                matches!(ask(command, &[]), Err(InterpreterError::NotAName(_))),
                "{command:?}"
            );
        }
    }

    #[test]
    fn flags_that_bring_in_code_are_refused_in_every_language() {
        let bad: [(&str, &[&[&str]]); 5] = [
            (
                "bash",
                &[
                    &["-c"],
                    &["-ec"],
                    &["--rcfile"],
                    &["--init-file"],
                    &["-s"],
                    &["-i"],
                    &["-l"],
                    &["-o"],
                    &["-o", "evil"],
                    &["-eo"],
                    &["x"],
                    &["-"],
                    &["--"],
                ],
            ),
            (
                "python3",
                &[
                    &["-c"],
                    &["-m"],
                    &["-uc"],
                    &["-i"],
                    &["-W", "x"],
                    &["-X", "y"],
                    &["-"],
                ],
            ),
            (
                "perl",
                &[
                    &["-e"],
                    &["-E"],
                    &["-M"],
                    &["-Mevil"],
                    &["-I/tmp"],
                    &["-we"],
                    &["-x"],
                    &["-d"],
                ],
            ),
            (
                "ruby",
                &[&["-e"], &["-r"], &["-rx"], &["-I"], &["-x"], &["-C"]],
            ),
            (
                "node",
                &[
                    &["-e"],
                    &["-p"],
                    &["-r"],
                    &["--require=x"],
                    &["--import=x"],
                    &["--eval"],
                    &["--inspect"],
                    &["--max-old-space-size=x"],
                ],
            ),
        ];
        for (interpreter, lists) in bad {
            for flags in lists {
                let language = Language::of(interpreter);
                let result = language.check(interpreter, &strings(flags));
                assert!(
                    matches!(result, Err(InterpreterError::Flag { .. })),
                    "{interpreter} {flags:?}"
                );
            }
        }
        assert!(matches!(
            ask("bash", &["-c"]),
            Err(InterpreterError::Flag { .. })
        ));
    }

    #[test]
    fn a_letter_counts_for_the_shell_that_it_means_something_harmless_to() {
        for (shell, flags, allowed) in [
            ("bash", "-EeT", true),
            ("ksh", "-E", false),
            ("ksh93", "-E", false),
            ("ksh", "-T", false),
            ("dash", "-p", false),
            ("zsh", "-E", false),
            ("zsh", "-eu", true),
            ("sh", "-eu", true),
            ("sh", "--norc", false),
        ] {
            let checked = Language::of(shell).check(shell, &strings(&[flags]));
            assert_eq!(checked.is_ok(), allowed, "{shell} {flags}");
        }
        let zsh = Language::of("zsh");
        assert_eq!(zsh.fixed_flags(Path::new("/usr/bin/zsh")), ["-f"]);
    }

    #[test]
    fn what_cannot_be_looked_at_is_not_called_safe() {
        let gone = Path::new("/usr/bin/there-is-no-such-program");
        assert_eq!(unsafe_because(gone, gone), Some("it cannot be looked at"));
    }

    #[test]
    fn powershell_gets_its_flags_once_and_a_file_name_it_accepts() {
        assert_eq!(
            Language::PowerShell
                .check("pwsh", &strings(&["-noprofile"]))
                .unwrap(),
            Vec::<String>::new()
        );
        assert!(
            Language::PowerShell
                .check("pwsh", &strings(&["-Command"]))
                .is_err()
        );
        assert!(
            Language::PowerShell
                .check("pwsh", &strings(&["-EncodedCommand"]))
                .is_err()
        );
        assert_eq!(
            Language::PowerShell.fixed_flags(Path::new("/opt/pwsh")),
            ["-NoLogo", "-NoProfile", "-NonInteractive", "-File"]
        );
        assert_eq!(Language::PowerShell.script_name(), "script.ps1");
    }

    #[test]
    fn python_is_kept_from_the_directory_of_the_script_where_it_can_be() {
        for (name, flags) in [
            ("python3.9", vec!["-s"]),
            ("python3.11", vec!["-s", "-P"]),
            ("python3.12d", vec!["-s", "-P"]),
            ("python3", vec!["-s"]),
        ] {
            assert_eq!(
                Language::Python.fixed_flags(&Path::new("/usr/bin").join(name)),
                flags,
                "{name}"
            );
        }
    }

    #[test]
    fn a_program_that_others_can_change_is_not_used() {
        let directory = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        let directory = directory.path().canonicalize().unwrap();
        let file = directory.join("tool");
        std::fs::write(&file, "").unwrap();
        let mode = |path: &Path, mode| {
            std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap()
        };
        mode(&file, 0o755);
        let link = directory.join("link");
        symlink(&file, &link).unwrap();
        if directory
            .ancestors()
            .skip(1)
            .any(|part| std::fs::metadata(part).unwrap().mode() & 0o022 != 0)
        {
            return eprintln!(
                "LEFT OUT: the checkout is below a directory that others can write to"
            );
        }
        assert_eq!(unsafe_because(&link, &file), None);
        for bad in [0o775, 0o757, 0o644, 0o4755] {
            mode(&file, bad);
            assert!(unsafe_because(&link, &file).is_some(), "{bad:o}");
        }
        mode(&file, 0o755);
        mode(&directory, 0o777);
        assert!(unsafe_because(&link, &file).is_some());
        assert!(matches!(
            first_safe(&[link], "link"),
            Err(InterpreterError::Unsafe { .. })
        ));
        mode(&directory, 0o755);

        // A link on the way that others can put elsewhere is as good as the file.
        let hop = directory.join("hop");
        std::fs::create_dir(&hop).unwrap();
        symlink(&file, hop.join("current")).unwrap();
        let behind = directory.join("behind");
        symlink("hop/../hop/current", &behind).unwrap();
        assert_eq!(unsafe_because(&behind, &file), None);
        mode(&hop, 0o777);
        assert!(unsafe_because(&behind, &file).is_some());
        mode(&directory, 0o700);
    }

    #[test]
    fn a_way_goes_through_every_directory_and_ends_where_links_go_round() {
        let directory = tempfile::tempdir().unwrap();
        let directory = directory.path().canonicalize().unwrap();
        std::fs::create_dir(directory.join("a")).unwrap();
        symlink("a", directory.join("b")).unwrap();
        std::fs::write(directory.join("a/file"), "").unwrap();
        let mut expected: Vec<PathBuf> = directory.ancestors().map(Path::to_owned).collect();
        expected.reverse();
        expected.extend([directory.join("a"), directory.join("a/file")]);
        assert_eq!(way_to(&directory.join("b/file")), Some(expected));
        symlink("round", directory.join("round")).unwrap();
        assert_eq!(way_to(&directory.join("round")), None);
    }
}
