//! `plugin.toml`: what a plugin says about itself, read without running it.

use std::collections::BTreeSet;
use std::fmt;

use regex_lite::{Regex, RegexBuilder};
use serde::{Deserialize, Serialize};

use crate::answer::{SettingsProblem, Severity};
use crate::input::{Attribute, Origin, Value};

/// The most rules that a manifest may list.
pub const MAX_RULES: usize = 2000;
/// The most settings that a manifest may list.
pub const MAX_SETTINGS: usize = 200;
/// The longest manifest, in bytes.
pub const MAX_MANIFEST: usize = 512 << 10;
/// Compiled patterns of settings larger than this, in bytes, are refused.
const LARGEST_PATTERN: usize = 256 << 10;

/// A plugin's manifest.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Lower-case words joined by dashes or dots.
    pub id: String,
    /// Three numbers.
    pub version: Version,
    /// Who makes it.
    pub vendor: String,
    /// Which gate it is.
    pub world: World,
    /// For people.
    #[serde(default)]
    pub description: String,
    /// The oldest runtime that it works with.
    pub minimum_runtime: Version,
    /// Keys of the attributes that it reads.
    #[serde(default)]
    pub attributes: Vec<String>,
    /// Limits that it asks for, up to the runtime's ceilings.
    #[serde(default)]
    pub limits: LimitsAsked,
    /// The digest of its test cases, for those who want to see them run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub test_cases: Option<String>,
    /// What can be set.
    #[serde(default)]
    pub settings: Vec<SettingSchema>,
    /// What can be found.
    #[serde(default)]
    pub rules: Vec<Rule>,
}

/// The worlds of the contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[expect(missing_docs, reason = "as in wit/worlds.wit")]
pub enum World {
    EnvironmentPlugin,
    PreparerPlugin,
    ScannerPlugin,
    PolicyPlugin,
}

impl World {
    /// Every world, in the order of the stages.
    pub const ALL: &[Self] = &[
        Self::EnvironmentPlugin,
        Self::PreparerPlugin,
        Self::ScannerPlugin,
        Self::PolicyPlugin,
    ];

    /// The interface that a component of this world exports.
    #[must_use]
    pub const fn interface(self) -> &'static str {
        match self {
            Self::EnvironmentPlugin => "environment",
            Self::PreparerPlugin => "preparer",
            Self::ScannerPlugin => "scanner",
            Self::PolicyPlugin => "policy",
        }
    }

    /// The stage's name in `agent.toml`.
    #[must_use]
    pub const fn stage(self) -> &'static str {
        match self {
            Self::EnvironmentPlugin => "environment",
            Self::PreparerPlugin => "prepare",
            Self::ScannerPlugin => "scan",
            Self::PolicyPlugin => "policy",
        }
    }

    /// The world's name in WIT.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::EnvironmentPlugin => "environment-plugin",
            Self::PreparerPlugin => "preparer-plugin",
            Self::ScannerPlugin => "scanner-plugin",
            Self::PolicyPlugin => "policy-plugin",
        }
    }
}

/// Limits that a plugin asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LimitsAsked {
    /// Fuel for one call.
    #[serde(default)]
    pub fuel: Option<u64>,
    /// Bytes, written `16777216` or `16MiB`.
    #[serde(default, deserialize_with = "bytes_or_text")]
    pub memory: Option<u64>,
    /// Milliseconds, written `2000` or `2s`.
    #[serde(default, deserialize_with = "millis_or_text")]
    pub time: Option<u64>,
}

/// One setting.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "the words say it")]
pub struct SettingSchema {
    pub id: String,
    #[serde(default)]
    pub title: String,
    #[serde(rename = "type")]
    pub kind: SettingType,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default: Option<toml::Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<f64>,
    #[serde(default)]
    pub choices: Vec<String>,
    /// What the whole of a text, or of each text of a list, has to match: a regular expression, as the crate `regex-lite`
    /// reads it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pattern: Option<String>,
    #[serde(default)]
    pub required: bool,
    #[serde(default)]
    pub secret: bool,
}

/// The types of settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the words say it")]
pub enum SettingType {
    Text,
    Integer,
    Decimal,
    Boolean,
    Texts,
}

impl fmt::Display for SettingType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Text => "text",
            Self::Integer => "an integer",
            Self::Decimal => "a number",
            Self::Boolean => "true or false",
            Self::Texts => "a list of texts",
        })
    }
}

/// One rule of a scanner.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "the words say it")]
pub struct Rule {
    pub id: String,
    pub name: String,
    #[serde(default)]
    pub short: String,
    #[serde(default)]
    pub help: String,
    pub severity: Severity,
    #[serde(default)]
    pub tags: Vec<String>,
}

/// Three numbers, compared in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "the words say it")]
pub struct Version {
    pub major: u32,
    pub minor: u32,
    pub patch: u32,
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

impl std::str::FromStr for Version {
    type Err = InvalidVersion;

    fn from_str(text: &str) -> Result<Self, InvalidVersion> {
        let mut parts = text
            .split('.')
            .map(|part| part.parse::<u32>().map_err(|_| InvalidVersion));
        let mut next = || parts.next().unwrap_or(Err(InvalidVersion));
        let version = Self {
            major: next()?,
            minor: next()?,
            patch: next()?,
        };
        if version.to_string() == text {
            Ok(version)
        } else {
            Err(InvalidVersion)
        }
    }
}

impl Serialize for Version {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Version {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

/// The text is not a version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a version (expected three numbers, for example 1.4.0)")]
pub struct InvalidVersion;

impl Manifest {
    /// Reads `plugin.toml`.
    ///
    /// # Errors
    ///
    /// Every reason why it is no manifest.
    pub fn parse(text: &str) -> Result<Self, ManifestError> {
        if text.len() > MAX_MANIFEST {
            return Err(ManifestError(vec![format!(
                "it has {} bytes, over the limit of {MAX_MANIFEST}",
                text.len()
            )]));
        }
        let manifest: Self = toml::from_str(text).map_err(|error| {
            let line = error.span().map_or(1, |span| {
                text[..span.start.min(text.len())].matches('\n').count() + 1
            });
            ManifestError(vec![format!("line {line}: {}", error.message())])
        })?;
        manifest.check().map(|()| manifest)
    }

    /// Whether it makes sense, however it came here.
    ///
    /// # Errors
    ///
    /// Every reason why it is no manifest.
    pub fn check(&self) -> Result<(), ManifestError> {
        let problems = self.problems();
        if problems.is_empty() {
            Ok(())
        } else {
            Err(ManifestError(problems))
        }
    }

    /// The settings that a guest gets: those given, and the defaults of the others, sorted by key.
    ///
    /// # Errors
    ///
    /// Every setting that is unknown, missing or of the wrong type or range.
    pub fn settings(
        &self,
        given: &[(String, Value)],
    ) -> Result<Vec<Attribute>, Vec<SettingsProblem>> {
        let mut problems = Vec::new();
        let mut settings = Vec::new();
        let mut problem = |key: &str, message: String| {
            problems.push(SettingsProblem {
                key: key.to_owned(),
                message,
            })
        };
        let mut seen = BTreeSet::new();
        for (key, value) in given {
            if !seen.insert(key) {
                problem(key, "is given twice".to_owned());
            }
            match self.settings.iter().find(|schema| schema.id == *key) {
                None => problem(
                    key,
                    format!(
                        "is not a setting of {} (it has: {})",
                        self.id,
                        self.setting_ids()
                    ),
                ),
                Some(schema) => match schema.check(value) {
                    Ok(value) => settings.push(Attribute::new(key.clone(), value, Origin::Owner)),
                    Err(message) => problem(key, message),
                },
            }
        }
        for schema in self
            .settings
            .iter()
            .filter(|schema| !seen.contains(&schema.id))
        {
            match &schema.default {
                Some(default) => {
                    match toml_value(default).and_then(|value| schema.check(&value).ok()) {
                        Some(value) => {
                            settings.push(Attribute::new(schema.id.clone(), value, Origin::Owner))
                        }
                        None => problem(&schema.id, "has a default of another type".to_owned()),
                    }
                }
                None if schema.required => problem(&schema.id, "is required".to_owned()),
                None => {}
            }
        }
        settings.sort_by(|a, b| a.key.cmp(&b.key));
        if problems.is_empty() {
            Ok(settings)
        } else {
            Err(problems)
        }
    }

    fn setting_ids(&self) -> String {
        let ids: Vec<_> = self
            .settings
            .iter()
            .map(|schema| schema.id.as_str())
            .collect();
        if ids.is_empty() {
            "none".to_owned()
        } else {
            ids.join(", ")
        }
    }

    fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let mut name = |what: &str, id: &str| {
            let ok = id.len() <= 64
                && id.starts_with(|c: char| c.is_ascii_lowercase())
                && id
                    .chars()
                    .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '.');
            if !ok {
                problems.push(format!(
                    "{what} {} is not lower-case words joined by dashes or dots",
                    id.escape_debug()
                ));
            }
        };
        name("the id", &self.id);
        self.settings
            .iter()
            .for_each(|schema| name("the setting", &schema.id));
        self.rules
            .iter()
            .for_each(|rule| name("the rule", &rule.id));
        for (what, count, max) in [
            ("rules", self.rules.len(), MAX_RULES),
            ("settings", self.settings.len(), MAX_SETTINGS),
        ] {
            if count > max {
                problems.push(format!("it lists {count} {what}, over the limit of {max}"));
            }
        }
        for (what, ids) in [
            (
                "rule",
                self.rules.iter().map(|rule| &rule.id).collect::<Vec<_>>(),
            ),
            (
                "setting",
                self.settings.iter().map(|schema| &schema.id).collect(),
            ),
        ] {
            let mut seen = BTreeSet::new();
            problems.extend(
                ids.iter()
                    .filter(|id| !seen.insert(**id))
                    .map(|id| format!("the {what} {id} is listed twice")),
            );
        }
        for schema in &self.settings {
            let wrong = match &schema.default {
                Some(default) => match toml_value(default) {
                    Some(value) => schema.check(&value).err(),
                    None => Some(format!("must be {}", schema.kind)),
                }
                .map(|reason| format!("its default {reason}")),
                None => None,
            };
            let pattern = schema.pattern.as_deref().map(whole_text);
            let wrong = pattern.and_then(Result::err).or(wrong);
            problems.extend(wrong.map(|reason| format!("the setting {}: {reason}", schema.id)));
        }
        // Written for people, on terminals and pages.
        let rules = self.rules.iter();
        let of_rules = rules.flat_map(|rule| [&rule.name, &rule.short, &rule.help]);
        let of_settings = self.settings.iter().map(|schema| &schema.title);
        let texts = [&self.vendor, &self.description].into_iter();
        let hidden = |text: &&String| text.chars().any(|c| c.is_control() && c != '\n');
        if let Some(text) = texts.chain(of_rules).chain(of_settings).find(hidden) {
            problems.push(format!(
                "the text {:?} has control characters",
                text.chars().take(60).collect::<String>()
            ));
        }
        problems
    }
}

impl SettingSchema {
    fn check(&self, value: &Value) -> Result<Value, String> {
        let value = match (self.kind, value) {
            (SettingType::Decimal, Value::Integer(n)) =>
            {
                #[expect(
                    clippy::cast_precision_loss,
                    reason = "a decimal setting is a double; that is its precision"
                )]
                Value::Decimal(*n as f64)
            }
            (SettingType::Text, Value::Text(_))
            | (SettingType::Integer, Value::Integer(_))
            | (SettingType::Decimal, Value::Decimal(_))
            | (SettingType::Boolean, Value::Boolean(_))
            | (SettingType::Texts, Value::Texts(_)) => value.clone(),
            _ => return Err(format!("must be {}", self.kind)),
        };
        #[expect(
            clippy::cast_precision_loss,
            reason = "compared with bounds that are doubles"
        )]
        let size = match &value {
            Value::Integer(n) => *n as f64,
            Value::Decimal(n) => *n,
            Value::Text(text) => text.chars().count() as f64,
            Value::Texts(texts) => texts.len() as f64,
            _ => 0.0,
        };
        if let Some(min) = self.min.filter(|min| size < *min) {
            return Err(format!("must be at least {min}"));
        }
        if let Some(max) = self.max.filter(|max| size > *max) {
            return Err(format!("must be at most {max}"));
        }
        let pattern = self.pattern.as_deref().map(whole_text).transpose()?;
        let texts: &[String] = match &value {
            Value::Text(text) => std::slice::from_ref(text),
            Value::Texts(texts) => texts,
            _ => &[],
        };
        if let (Some(pattern), Some(written)) = (&pattern, &self.pattern)
            && let Some(text) = texts.iter().find(|text| !pattern.is_match(text))
        {
            return Err(format!("cannot be {text:?} (it must match {written})"));
        }
        match texts
            .iter()
            .find(|text| !self.choices.is_empty() && !self.choices.contains(text))
        {
            Some(text) => Err(format!(
                "cannot be {:?} (choices: {})",
                text,
                self.choices.join(", ")
            )),
            None => Ok(value),
        }
    }
}

/// The expression that matches a text as a whole. Matching takes time linear in the text, whatever the pattern.
fn whole_text(pattern: &str) -> Result<Regex, String> {
    // By itself before: a pattern that closes the group around it would be another one.
    let wrong = |error| format!("has a pattern that cannot be read: {error}");
    let build = |pattern: &str| {
        RegexBuilder::new(pattern)
            .size_limit(LARGEST_PATTERN)
            .nest_limit(50)
            .build()
    };
    build(pattern).map_err(wrong)?;
    build(&format!(r"\A(?:{pattern})\z")).map_err(wrong)
}

/// The value that a TOML value stands for, where it is of a type that settings have.
#[must_use]
pub fn toml_value(value: &toml::Value) -> Option<Value> {
    Some(match value {
        toml::Value::String(text) => Value::Text(text.clone()),
        toml::Value::Integer(n) => Value::Integer(*n),
        toml::Value::Float(n) => Value::Decimal(*n),
        toml::Value::Boolean(b) => Value::Boolean(*b),
        toml::Value::Array(items) => Value::Texts(
            items
                .iter()
                .map(|item| item.as_str().map(str::to_owned))
                .collect::<Option<_>>()?,
        ),
        toml::Value::Datetime(_) | toml::Value::Table(_) => return None,
    })
}

#[derive(Deserialize)]
#[serde(untagged)]
enum NumberOrText {
    Number(u64),
    Text(String),
}

fn bytes_or_text<'de, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<u64>, D::Error> {
    with_units(
        deserializer,
        &[("KiB", 1 << 10), ("MiB", 1 << 20), ("B", 1)],
        "16MiB",
    )
}

fn millis_or_text<'de, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<u64>, D::Error> {
    with_units(deserializer, &[("ms", 1), ("s", 1000)], "2s")
}

fn with_units<'de, D: serde::Deserializer<'de>>(
    deserializer: D,
    units: &[(&str, u64)],
    example: &str,
) -> Result<Option<u64>, D::Error> {
    let Some(value) = Option::<NumberOrText>::deserialize(deserializer)? else {
        return Ok(None);
    };
    match value {
        NumberOrText::Number(n) => Some(n),
        NumberOrText::Text(text) => units.iter().find_map(|(unit, factor)| {
            text.strip_suffix(unit)
                .and_then(|n| n.parse::<u64>().ok())
                .and_then(|n| n.checked_mul(*factor))
        }),
    }
    .map(Some)
    .ok_or_else(|| {
        serde::de::Error::custom(format!(
            "expected a whole number, alone or with a unit as in {example:?}"
        ))
    })
}

/// Why a text is no manifest: every reason.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the manifest (plugin.toml) is not valid: {}", .0.join("; "))]
pub struct ManifestError(pub Vec<String>);

#[cfg(test)]
mod tests {
    use super::*;

    const MANIFEST: &str = r#"
        id = "scanner"
        version = "0.1.0"
        vendor = "Acme"
        world = "scanner-plugin"
        minimum_runtime = "0.1.0"
        limits = { memory = "16MiB", time = "2s", fuel = 5 }
        settings = [{ id = "threshold", type = "text", default = "high", choices = ["high", "low"] }, { id = "n", type = "integer", min = 1 }]
        rules = [{ id = "a", name = "A", severity = "high" }]
    "#;

    #[test]
    fn settings_are_checked_and_defaults_filled_in() {
        let manifest = Manifest::parse(MANIFEST).expect("parses");
        assert_eq!(
            manifest.limits,
            LimitsAsked {
                fuel: Some(5),
                memory: Some(16 << 20),
                time: Some(2000)
            }
        );
        let settings = manifest
            .settings(&[("n".to_owned(), Value::Integer(2))])
            .expect("are valid");
        assert_eq!(
            settings.iter().map(|s| s.key.as_str()).collect::<Vec<_>>(),
            ["n", "threshold"]
        );
        let bad = [
            ("n", Value::Text("2".to_owned()), "must be an integer"),
            ("n", Value::Integer(0), "must be at least 1"),
            (
                "threshold",
                Value::Text("medium".to_owned()),
                "cannot be \"medium\" (choices: high, low)",
            ),
            (
                "treshold",
                Value::Integer(0),
                "is not a setting of scanner (it has: threshold, n)",
            ),
        ];
        for (key, value, message) in bad {
            let problems = manifest
                .settings(&[(key.to_owned(), value)])
                .expect_err("is wrong");
            assert_eq!(
                (problems[0].key.as_str(), problems[0].message.as_str()),
                (key, message)
            );
        }
    }

    #[test]
    fn a_pattern_holds_for_the_whole_of_each_text() {
        let with = |pattern: &str, more: &str| {
            let setting = format!(
                "settings = [{{ id = \"host\", type = \"texts\", pattern = '{pattern}'{more} }}]\n"
            );
            let lines = MANIFEST.lines();
            let rest: Vec<_> = lines.filter(|line| !line.contains("settings =")).collect();
            Manifest::parse(&format!("{}\n{setting}", rest.join("\n")))
        };
        let manifest = with("[a-z]+|[0-9]+", "").expect("parses");
        let given = |texts: &[&str]| {
            let texts = texts.iter().map(|text| (*text).to_owned()).collect();
            manifest.settings(&[("host".to_owned(), Value::Texts(texts))])
        };
        assert!(given(&["web", "12"]).is_ok());
        for wrong in ["Web", "web12", "web\n", ""] {
            let problems = given(&["web", wrong]).expect_err("is wrong");
            assert_eq!(problems[0].key, "host");
            assert!(
                problems[0].message.contains("it must match [a-z]+|[0-9]+"),
                "{problems:?}"
            );
        }
        // One that would mean something else between the anchors, one too large, and a default that does not match.
        for (pattern, more) in [
            ("a)|(?:.*", ""),
            ("a{1000}{1000}", ""),
            ("[a-z]+", ", default = [\"A\"]"),
            ("[a-z]+", ", default = 3"),
        ] {
            let ManifestError(reasons) = with(pattern, more).expect_err("is wrong");
            assert!(
                reasons.len() == 1 && reasons[0].starts_with("the setting host: "),
                "{pattern}: {reasons:?}"
            );
        }
    }

    #[test]
    fn every_reason_is_named() {
        let broken = MANIFEST
            .replace("id = \"a\"", "id = \"A\"")
            .replace("id = \"n\"", "id = \"threshold\"");
        let ManifestError(reasons) = Manifest::parse(&broken).expect_err("is wrong");
        assert_eq!(reasons.len(), 2, "{reasons:?}");
        assert!(Manifest::parse(&format!("{MANIFEST}\nx = 1")).is_err());
        assert!(Manifest::parse(&MANIFEST.replace("0.1.0", "0.1")).is_err());
    }
}
