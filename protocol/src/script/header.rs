//! The header block: what a script declares about itself, as TOML behind comment signs.
//!
//! ```text
//! #!/bin/bash
//! # /// sluice
//! # [parameters.path]
//! # type = "path"
//! # [requires]
//! # os = ["linux"]
//! # ///
//! ```

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer};
use toml::Spanned;

use crate::units::ByteSize;

/// The largest declaration of a library entry, in bytes.
pub const MAX_DECLARED: usize = 64 << 10;

/// What a script declares, in its header block or its entry in the library.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Header {
    /// The parameters.
    #[serde(default)]
    pub parameters: Parameters,
    /// What the machine must have.
    #[serde(default)]
    pub requires: Requirements,
}

/// The `[parameters.<name>]` tables, in the order in which they are written.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Parameters(Vec<(String, ParameterDeclaration)>);

impl Parameters {
    /// What is declared of the parameter `name`.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&ParameterDeclaration> {
        self.iter()
            .find(|(declared, _)| declared == name)
            .map(|(_, declaration)| declaration)
    }

    /// Names and declarations, in their order.
    pub fn iter(&self) -> std::slice::Iter<'_, (String, ParameterDeclaration)> {
        self.0.iter()
    }
}

impl<'p> IntoIterator for &'p Parameters {
    type Item = &'p (String, ParameterDeclaration);
    type IntoIter = std::slice::Iter<'p, (String, ParameterDeclaration)>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl IntoIterator for Parameters {
    type Item = (String, ParameterDeclaration);
    type IntoIter = std::vec::IntoIter<(String, ParameterDeclaration)>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl<'de> Deserialize<'de> for Parameters {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // A table of TOML has no order; where its keys are written has.
        let tables = BTreeMap::<Spanned<String>, ParameterDeclaration>::deserialize(deserializer)?;
        let mut tables: Vec<_> = tables.into_iter().collect();
        tables.sort_by_key(|(name, _)| name.span().start);
        Ok(Self(
            tables
                .into_iter()
                .map(|(name, declaration)| (name.into_inner(), declaration))
                .collect(),
        ))
    }
}

/// One `[parameters.<name>]` table.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ParameterDeclaration {
    /// Text where nothing else is said.
    #[serde(default, rename = "type")]
    pub kind: ParameterType,
    /// Whether a value must be given where there is no default.
    #[serde(default)]
    pub required: bool,
    /// The value where none is given, in the same spelling as on the command line or as a TOML value.
    #[serde(default)]
    pub default: Option<toml::Value>,
    /// A regular expression that the whole value must match.
    #[serde(default)]
    pub pattern: Option<String>,
    /// The smallest number, length in characters, or number of entries.
    #[serde(default)]
    pub min: Option<f64>,
    /// The largest, likewise.
    #[serde(default)]
    pub max: Option<f64>,
    /// What may be chosen.
    #[serde(default)]
    pub choices: Vec<String>,
    /// How the value reaches the script.
    #[serde(default, rename = "as")]
    pub delivery: As,
    /// For people.
    #[serde(default)]
    pub description: Option<String>,
}

/// The types of parameters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the names are the words of the header")]
pub enum ParameterType {
    #[default]
    Text,
    Integer,
    Decimal,
    Boolean,
    Choice,
    List,
    Path,
    Secret,
}

impl ParameterType {
    /// The word of the header block.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Integer => "integer",
            Self::Decimal => "decimal",
            Self::Boolean => "boolean",
            Self::Choice => "choice",
            Self::List => "list",
            Self::Path => "path",
            Self::Secret => "secret",
        }
    }
}

/// How a parameter reaches the script.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum As {
    /// As the variable `SLUICE_PARAM_<NAME>`.
    #[default]
    Env,
    /// As an argument, in the order in which the parameters are declared.
    Argument,
    /// As a literal at `{{name}}`.
    Placeholder,
}

impl As {
    /// The word of the header block.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Env => "env",
            Self::Argument => "argument",
            Self::Placeholder => "placeholder",
        }
    }
}

/// The `[requires]` table.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Requirements {
    /// `linux`, `windows`, `macos`; any of them will do.
    #[serde(default)]
    pub os: Vec<String>,
    /// `x86_64`, `aarch64` ...; any of them will do.
    #[serde(default)]
    pub arch: Vec<String>,
    /// Commands that must all be there.
    #[serde(default)]
    pub commands: Vec<String>,
    /// A version of the script's own interpreter, for example `>=3.9`.
    #[serde(default)]
    pub interpreter: Option<String>,
    /// A user that must exist.
    #[serde(default)]
    pub user: Option<String>,
    /// Free space where scripts run.
    #[serde(default)]
    pub disk: Option<ByteSize>,
    /// Memory that is available.
    #[serde(default)]
    pub memory: Option<ByteSize>,
}

impl Header {
    /// Reads the tables themselves, as a library entry has them.
    ///
    /// # Errors
    ///
    /// TOML that is not a header, with its line.
    pub fn parse(tables: &str) -> Result<Self, HeaderError> {
        toml::from_str(tables).map_err(|error: toml::de::Error| {
            let at = error.span().map_or(0, |span| {
                tables[..span.start.min(tables.len())].matches('\n').count()
            });
            HeaderError {
                line: at + 1,
                message: error.message().to_owned(),
            }
        })
    }

    /// The header block of `script`, or none where it has none.
    ///
    /// # Errors
    ///
    /// A block without an end, a line in it without a comment sign, or TOML that is not a header; with the script's line.
    pub fn find(script: &str) -> Result<Option<Self>, HeaderError> {
        let mut lines = script.lines().enumerate();
        let sign = loop {
            let Some((_, line)) = lines.next() else {
                return Ok(None);
            };
            match line.trim() {
                "# /// sluice" => break "#",
                "// /// sluice" => break "//",
                other if other.is_empty() || other.starts_with('#') || other.starts_with("//") => {}
                _ => return Ok(None),
            }
        };
        let mut block = String::new();
        let mut first = None;
        for (index, line) in lines {
            let first = *first.get_or_insert(index + 1);
            let body = line.trim_start().strip_prefix(sign).ok_or(HeaderError {
                line: index + 1,
                message: format!(
                    "expected a line that starts with {sign}, or {sign} /// to end the header"
                ),
            })?;
            let body = body.strip_prefix(' ').unwrap_or(body);
            if body.trim_end() == "///" {
                return Self::parse(&block).map(Some).map_err(|error| HeaderError {
                    line: first + error.line - 1,
                    ..error
                });
            }
            block.push_str(body);
            block.push('\n');
        }
        Err(HeaderError {
            line: script.lines().count(),
            message: format!("the header block has no end ({sign} ///)"),
        })
    }
}

/// A header block that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {message}")]
pub struct HeaderError {
    /// The line of the script, or of the tables, counted from 1.
    pub line: usize,
    /// What is wrong there.
    pub message: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_found_behind_the_interpreter_line() {
        let script = "#!/bin/bash\n# /// sluice\n# [parameters.path]\n# type = \"path\"\n# required = true\n#\n# [requires]\n# os = [\"linux\"]\n# disk = \"1GiB\"\n# ///\necho\n";
        let header = Header::find(script).expect("reads").expect("is there");
        let path = header.parameters.get("path").expect("is declared");
        assert_eq!(path.kind, ParameterType::Path);
        assert!(path.required);
        assert_eq!(header.requires.disk, Some(ByteSize(1 << 30)));
    }

    #[test]
    fn parameters_keep_the_order_in_which_they_are_written() {
        let tables =
            "[parameters.zebra]\n[parameters.b]\nas = \"argument\"\n[requires]\n[parameters.a]\n";
        let names = |header: Header| -> Vec<String> {
            header
                .parameters
                .into_iter()
                .map(|(name, _)| name)
                .collect()
        };
        let header = Header::parse(tables).expect("reads");
        assert_eq!(names(header), ["zebra", "b", "a"]);
        let inline = "parameters = { z = { type = \"path\" }, a = {} }\nparameters.m.min = 1\n";
        if let Ok(header) = Header::parse(inline) {
            assert_eq!(names(header), ["z", "a", "m"]);
        }
        let dotted = "parameters.z.min = 1\nparameters.a.min = 1\nparameters.z.max = 2\n";
        assert_eq!(names(Header::parse(dotted).expect("reads")), ["z", "a"]);
    }

    #[test]
    fn javascript_has_its_own_comment_sign() {
        let header = Header::find(
            "#!/usr/bin/env node\n// /// sluice\n// [requires]\n// commands = [\"git\"]\n// ///\n",
        );
        assert_eq!(
            header.expect("reads").expect("is there").requires.commands,
            ["git"]
        );
    }

    #[test]
    fn no_header_is_no_error() {
        assert_eq!(
            Header::find("#!/bin/sh\necho '# /// sluice'\n# /// sluice\n"),
            Ok(None)
        );
    }

    #[test]
    fn errors_name_the_line_of_the_script() {
        let error = Header::find("#!/bin/sh\n# /// sluice\n# [requires]\n# oss = 1\n# ///\n")
            .expect_err("is wrong");
        assert_eq!(error.line, 4, "{error}");
        assert!(error.message.contains("oss"), "{error}");
        assert_eq!(
            Header::find("# /// sluice\necho\n")
                .expect_err("is wrong")
                .line,
            2
        );
        assert!(Header::find("# /// sluice\n# [requires]\n").is_err());
    }
}
