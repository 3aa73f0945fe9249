//! The settings of a binding, with typed access.

use crate::attributes::Attributes;
use crate::types::{Attribute, GateError, SettingsProblem, Severity, Value};

/// The settings that the plugin was bound with. The runtime has checked them against the manifest and filled in the
/// defaults; the getters check the types all the same, so that a plugin never works with a setting it did not
/// understand.
#[derive(Debug, Clone, Default)]
pub struct Settings(Vec<Attribute>);

impl Settings {
    /// Settings as they come from the runtime.
    #[must_use]
    pub const fn new(attributes: Vec<Attribute>) -> Self {
        Self(attributes)
    }

    /// The same settings with one more, for tests.
    #[must_use]
    pub fn with(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.0.push(Attribute::of_host(key, value));
        self
    }

    /// Refuses every setting that is not in `known`.
    ///
    /// # Errors
    /// All unknown settings at once.
    pub fn only(&self, known: &[&str]) -> Result<(), GateError> {
        let problems: Vec<_> = self
            .0
            .iter()
            .filter(|setting| !known.contains(&setting.key.as_str()))
            .map(|setting| {
                SettingsProblem::new(
                    &setting.key,
                    format!("is not a setting; there are: {}", known.join(", ")),
                )
            })
            .collect();
        if problems.is_empty() {
            Ok(())
        } else {
            Err(GateError::InvalidSettings(problems))
        }
    }

    /// The text of a setting.
    ///
    /// # Errors
    /// The setting is of another type.
    pub fn text(&self, key: &str) -> Result<Option<&str>, SettingsProblem> {
        self.typed(key, "a text", |value| match value {
            Value::Text(text) => Some(text.as_str()),
            _ => None,
        })
    }

    /// The texts of a setting; empty where it is absent.
    ///
    /// # Errors
    /// The setting is of another type.
    pub fn texts(&self, key: &str) -> Result<&[String], SettingsProblem> {
        let texts = self.typed(key, "a list of texts", |value| match value {
            Value::Texts(texts) => Some(texts.as_slice()),
            Value::Text(text) => Some(std::slice::from_ref(text)),
            _ => None,
        })?;
        Ok(texts.unwrap_or_default())
    }

    /// The integer of a setting.
    ///
    /// # Errors
    /// The setting is of another type.
    pub fn integer(&self, key: &str) -> Result<Option<i64>, SettingsProblem> {
        self.typed(key, "an integer", |value| match value {
            Value::Integer(number) => Some(*number),
            _ => None,
        })
    }

    /// The boolean of a setting.
    ///
    /// # Errors
    /// The setting is of another type.
    pub fn boolean(&self, key: &str) -> Result<Option<bool>, SettingsProblem> {
        self.typed(key, "true or false", |value| match value {
            Value::Boolean(value) => Some(*value),
            _ => None,
        })
    }

    /// The severity that a setting names.
    ///
    /// # Errors
    /// The setting is not the name of a severity.
    pub fn severity(&self, key: &str) -> Result<Option<Severity>, SettingsProblem> {
        let Some(name) = self.text(key)? else {
            return Ok(None);
        };
        Severity::from_name(name).map(Some).ok_or_else(|| {
            SettingsProblem::new(
                key,
                format!("`{name}` is not one of info, low, medium, high, critical"),
            )
        })
    }

    fn typed<'a, T>(
        &'a self,
        key: &str,
        expected: &str,
        read: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, SettingsProblem> {
        let Some(value) = self.0.value(key) else {
            return Ok(None);
        };
        read(value)
            .map(Some)
            .ok_or_else(|| SettingsProblem::new(key, format!("must be {expected}")))
    }
}

impl SettingsProblem {
    /// A problem with the setting `key`.
    pub fn new(key: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            key: key.into(),
            message: message.into(),
        }
    }
}

impl From<SettingsProblem> for GateError {
    fn from(problem: SettingsProblem) -> Self {
        Self::InvalidSettings(vec![problem])
    }
}

impl Severity {
    /// The severity of that name, as it stands in the contract and in manifests.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "info" => Self::Info,
            "low" => Self::Low,
            "medium" => Self::Medium,
            "high" => Self::High,
            "critical" => Self::Critical,
            _ => return None,
        })
    }

    /// The name, as it stands in the contract and in manifests.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
            Self::Critical => "critical",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_of_the_wrong_type_is_named() {
        let settings = Settings::default()
            .with("threshold", 3)
            .with("words", ["a", "b"]);
        assert_eq!(
            settings.text("threshold"),
            Err(SettingsProblem::new("threshold", "must be a text"))
        );
        assert_eq!(settings.integer("threshold"), Ok(Some(3)));
        assert_eq!(settings.texts("words").map(<[_]>::len), Ok(2));
        assert_eq!(settings.texts("absent").map(<[_]>::len), Ok(0));
        assert_eq!(settings.boolean("absent"), Ok(None));
    }

    #[test]
    fn unknown_settings_are_refused_all_at_once() {
        let settings = Settings::default()
            .with("a", 1)
            .with("b", 2)
            .with("known", 3);
        match settings.only(&["known"]) {
            Err(GateError::InvalidSettings(problems)) => assert_eq!(problems.len(), 2),
            other => panic!("not refused: {other:?}"),
        }
    }

    #[test]
    fn a_severity_has_one_name() {
        for severity in [
            Severity::Info,
            Severity::Low,
            Severity::Medium,
            Severity::High,
            Severity::Critical,
        ] {
            assert_eq!(Severity::from_name(severity.name()), Some(severity));
        }
        assert!(
            Settings::default()
                .with("threshold", "High")
                .severity("threshold")
                .is_err()
        );
    }
}
