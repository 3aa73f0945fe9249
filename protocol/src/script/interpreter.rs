//! Which interpreter a script asks for, read as the kernel reads a `#!` line.

use serde::{Deserialize, Serialize};

/// The family of languages that an interpreter belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Language {
    /// sh, bash, dash, zsh, ksh.
    Shell,
    /// python, python3, python3.11 ...
    Python,
    /// perl.
    Perl,
    /// ruby.
    Ruby,
    /// node.
    JavaScript,
    /// pwsh, powershell.exe.
    PowerShell,
    /// An interpreter that we know nothing of.
    Unknown,
}

impl Language {
    /// The language of the interpreter with this file name.
    #[must_use]
    pub fn of(name: &str) -> Self {
        let name = name.strip_suffix(".exe").unwrap_or(name);
        match name.trim_end_matches(|c: char| c.is_ascii_digit() || c == '.') {
            "sh" | "bash" | "dash" | "zsh" | "ksh" => Self::Shell,
            "python" => Self::Python,
            "perl" => Self::Perl,
            "ruby" => Self::Ruby,
            "node" | "nodejs" => Self::JavaScript,
            "pwsh" | "powershell" => Self::PowerShell,
            _ => Self::Unknown,
        }
    }

    /// The languages that we know.
    pub const KNOWN: &[Self] = &[
        Self::Shell,
        Self::Python,
        Self::Perl,
        Self::Ruby,
        Self::JavaScript,
        Self::PowerShell,
    ];

    /// The language of this word, or of the interpreter with this file name; none where we know nothing of it.
    #[must_use]
    pub fn named(word: &str) -> Option<Self> {
        let of = Self::of(word);
        let mut known = Self::KNOWN.iter().copied();
        known.find(|language| language.as_str() == word || *language == of)
    }

    /// The word that gates see.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Shell => "shell",
            Self::Python => "python",
            Self::Perl => "perl",
            Self::Ruby => "ruby",
            Self::JavaScript => "javascript",
            Self::PowerShell => "powershell",
            Self::Unknown => "unknown",
        }
    }
}

/// An interpreter and its flags, as asked for. Nothing here says that the machine has it or allows it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Interpreter {
    /// A bare name (`bash`) or an absolute path (`/usr/bin/python3`).
    pub command: String,
    /// What stands between the interpreter and the file.
    pub flags: Vec<String>,
}

impl Interpreter {
    /// Reads the first line of a script.
    ///
    /// As the kernel does it, everything behind the interpreter's path is one argument; `env` looks a name up, and only
    /// `env -S` splits. Assignments and other options of `env` would change what runs unseen by the gates.
    ///
    /// # Errors
    ///
    /// No `#!` line, or one that says something else than an interpreter.
    pub fn from_shebang(script: &str) -> Result<Self, InterpreterError> {
        let line = script
            .lines()
            .next()
            .and_then(|line| line.strip_prefix("#!"))
            .ok_or(InterpreterError::Missing)?;
        let line = line.trim_matches([' ', '\t', '\r']);
        let (path, argument) = match line.split_once([' ', '\t']) {
            Some((path, rest)) => (path, Some(rest.trim_start_matches([' ', '\t']))),
            None => (line, None),
        };
        if path.is_empty() {
            return Err(InterpreterError::Missing);
        }
        if file_name(path) == "env" {
            return Self::from_env(argument.unwrap_or_default());
        }
        if !path.starts_with('/') && path.contains('/') {
            return Err(InterpreterError::Relative(path.to_owned()));
        }
        Self::checked(
            path.to_owned(),
            argument.map(str::to_owned).into_iter().collect(),
        )
    }

    /// Reads `--interpreter`: words, the first of which is the interpreter.
    ///
    /// # Errors
    ///
    /// Nothing there, a relative path, or a newline or NUL.
    pub fn from_command(command: &str) -> Result<Self, InterpreterError> {
        if command.contains(['\n', '\r', '\0']) {
            return Err(InterpreterError::ControlCharacter);
        }
        let mut words = command.split_ascii_whitespace().map(str::to_owned);
        let first = words.next().ok_or(InterpreterError::Missing)?;
        if file_name(&first) == "env" {
            return Err(InterpreterError::Env("env in --interpreter".to_owned()));
        }
        Self::checked(first, words.collect())
    }

    /// The last component of the command: what allow-lists name.
    #[must_use]
    pub fn name(&self) -> &str {
        file_name(&self.command)
    }

    /// The language of this interpreter.
    #[must_use]
    pub fn language(&self) -> Language {
        Language::of(self.name())
    }

    fn from_env(argument: &str) -> Result<Self, InterpreterError> {
        let words: Vec<&str> = match argument
            .strip_prefix("-S")
            .or_else(|| argument.strip_prefix("--split-string="))
        {
            Some(rest) => rest.split_ascii_whitespace().collect(),
            None => vec![argument],
        };
        let Some((command, flags)) = words
            .split_first()
            .filter(|(command, _)| !command.is_empty())
        else {
            return Err(InterpreterError::Missing);
        };
        if command.starts_with('-')
            || words
                .iter()
                .any(|word| word.contains(['\\', '\'', '"', '$', '#']))
        {
            return Err(InterpreterError::Env(argument.to_owned()));
        }
        if command.contains('=') {
            return Err(InterpreterError::Env((*command).to_owned()));
        }
        if command.contains([' ', '\t']) {
            // without -S the kernel hands "python3 -u" to env as one name, which no machine has
            return Err(InterpreterError::Env(argument.to_owned()));
        }
        Self::checked(
            (*command).to_owned(),
            flags.iter().map(|flag| (*flag).to_owned()).collect(),
        )
    }

    fn checked(command: String, flags: Vec<String>) -> Result<Self, InterpreterError> {
        if command.contains(['\n', '\0']) || flags.iter().any(|flag| flag.contains(['\n', '\0'])) {
            return Err(InterpreterError::ControlCharacter);
        }
        if !command.starts_with('/') && command.contains('/') {
            return Err(InterpreterError::Relative(command));
        }
        if file_name(&command).is_empty() {
            return Err(InterpreterError::Missing);
        }
        Ok(Self { command, flags })
    }
}

fn file_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// A script or option that names no interpreter.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InterpreterError {
    /// Neither a `#!` line nor an option.
    #[error(
        "the script names no interpreter; start it with a line such as #!/bin/bash, or pass --interpreter"
    )]
    Missing,
    /// A path that depends on a directory.
    #[error("the interpreter {0} is a relative path; use a name or an absolute path")]
    Relative(String),
    /// `env` with options or assignments.
    #[error(
        "the interpreter line uses env in a way that is not allowed ({0}); only env NAME and env -S NAME FLAGS are"
    )]
    Env(String),
    /// A newline or NUL.
    #[error("the interpreter contains a newline or NUL")]
    ControlCharacter,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shebang(line: &str) -> Result<(String, Vec<String>), InterpreterError> {
        Interpreter::from_shebang(&format!("{line}\necho\n")).map(|i| (i.command, i.flags))
    }

    fn ok(command: &str, flags: &[&str]) -> Result<(String, Vec<String>), InterpreterError> {
        Ok((
            command.to_owned(),
            flags.iter().map(|f| (*f).to_owned()).collect(),
        ))
    }

    #[test]
    fn lines_are_read_as_the_kernel_reads_them() {
        assert_eq!(shebang("#!/bin/bash"), ok("/bin/bash", &[]));
        assert_eq!(shebang("#! /bin/bash -e\r"), ok("/bin/bash", &["-e"]));
        assert_eq!(shebang("#!/bin/bash -e -u"), ok("/bin/bash", &["-e -u"]));
        assert_eq!(shebang("#!/usr/bin/env python3"), ok("python3", &[]));
        assert_eq!(
            shebang("#!/usr/bin/env -S python3 -u -O"),
            ok("python3", &["-u", "-O"])
        );
        assert_eq!(
            shebang("#!/usr/bin/perl -wé"),
            ok("/usr/bin/perl", &["-wé"])
        );
    }

    #[test]
    fn what_would_run_unseen_is_refused() {
        for line in [
            "#!/usr/bin/env -S A=b bash",
            "#!/usr/bin/env -i bash",
            "#!/usr/bin/env A=b",
            "#!/usr/bin/env bash -e",
            "#!/usr/bin/env -S bash -c 'x'",
        ] {
            assert!(
                matches!(shebang(line), Err(InterpreterError::Env(_))),
                "{line}"
            );
        }
        assert_eq!(shebang("echo"), Err(InterpreterError::Missing));
        assert_eq!(shebang("#!"), Err(InterpreterError::Missing));
        assert!(matches!(
            shebang("#!bin/bash"),
            Err(InterpreterError::Relative(_))
        ));
        assert_eq!(
            Interpreter::from_command("bash\n-c"),
            Err(InterpreterError::ControlCharacter)
        );
    }

    #[test]
    fn languages_follow_the_name() {
        assert_eq!(Language::of("python3.11"), Language::Python);
        assert_eq!(Language::of("powershell.exe"), Language::PowerShell);
        assert_eq!(Language::of("awk"), Language::Unknown);
    }
}
