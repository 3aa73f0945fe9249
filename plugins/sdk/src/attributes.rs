//! Typed access to lists of attributes.

use crate::types::{Attribute, Origin, Value};

/// Reads attributes by key. Where a key occurs more than once, the first one counts.
pub trait Attributes {
    /// The attribute with that key.
    fn find(&self, key: &str) -> Option<&Attribute>;

    /// The value of that key, whatever its type.
    fn value(&self, key: &str) -> Option<&Value> {
        self.find(key).map(|attribute| &attribute.value)
    }

    /// The text under that key; `None` where it is absent or of another type.
    fn text(&self, key: &str) -> Option<&str> {
        match self.value(key)? {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The texts under that key; a single text counts as a list of one.
    fn texts(&self, key: &str) -> Option<&[String]> {
        match self.value(key)? {
            Value::Texts(texts) => Some(texts),
            Value::Text(text) => Some(std::slice::from_ref(text)),
            _ => None,
        }
    }

    /// The integer under that key; `None` where it is absent or of another type.
    fn integer(&self, key: &str) -> Option<i64> {
        match self.value(key)? {
            Value::Integer(number) => Some(*number),
            _ => None,
        }
    }

    /// The boolean under that key; `None` where it is absent or of another type.
    fn boolean(&self, key: &str) -> Option<bool> {
        match self.value(key)? {
            Value::Boolean(value) => Some(*value),
            _ => None,
        }
    }
}

impl Attributes for [Attribute] {
    fn find(&self, key: &str) -> Option<&Attribute> {
        self.iter().find(|attribute| attribute.key == key)
    }
}

impl Attribute {
    /// An attribute that the machine itself vouches for.
    pub fn of_machine(key: impl Into<String>, value: impl Into<Value>) -> Self {
        Self {
            key: key.into(),
            value: value.into(),
            origin: Origin::Machine,
        }
    }

    /// An attribute that the host claims.
    pub fn of_host(key: impl Into<String>, value: impl Into<Value>) -> Self {
        Self {
            key: key.into(),
            value: value.into(),
            origin: Origin::HostClaim,
        }
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<&[&str]> for Value {
    fn from(texts: &[&str]) -> Self {
        Self::Texts(texts.iter().map(|&text| text.to_owned()).collect())
    }
}

impl<const N: usize> From<[&str; N]> for Value {
    fn from(texts: [&str; N]) -> Self {
        Self::from(&texts[..])
    }
}

impl From<i64> for Value {
    fn from(number: i64) -> Self {
        Self::Integer(number)
    }
}

impl From<f64> for Value {
    fn from(number: f64) -> Self {
        Self::Decimal(number)
    }
}

impl From<bool> for Value {
    fn from(value: bool) -> Self {
        Self::Boolean(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_of_another_type_is_not_found() {
        let list = [
            Attribute::of_machine("os.family", "linux"),
            Attribute::of_host("targets", 3),
        ];
        assert_eq!(list.text("os.family"), Some("linux"));
        assert_eq!(list.integer("os.family"), None);
        assert_eq!(list.integer("targets"), Some(3));
        assert_eq!(list.texts("os.family"), Some(&["linux".to_owned()][..]));
        assert_eq!(list.text("absent"), None);
    }
}
