//! A script to run, and what came of it.

use base64::Engine as _;
use serde_json::Value;

/// A script and the options of `sluice run`.
#[derive(Debug, Clone)]
pub struct Script {
    pub(crate) bytes: Vec<u8>,
    pub(crate) arguments: Vec<String>,
    pub(crate) machine: Option<String>,
}

/// A script.
pub fn script(text: impl AsRef<[u8]>) -> Script {
    Script {
        bytes: text.as_ref().to_vec(),
        arguments: Vec::new(),
        machine: None,
    }
}

impl Script {
    /// Its text.
    #[must_use]
    pub fn text(&self) -> &[u8] {
        &self.bytes
    }

    /// Any option of `sluice run`.
    #[must_use]
    pub fn option(mut self, name: &str, value: &str) -> Self {
        self.arguments.extend([name.to_owned(), value.to_owned()]);
        self
    }

    /// An option without a value.
    #[must_use]
    pub fn flag(mut self, name: &str) -> Self {
        self.arguments.push(name.to_owned());
        self
    }

    /// `--param NAME=VALUE`
    #[must_use]
    pub fn param(self, name: &str, value: &str) -> Self {
        self.option("--param", &format!("{name}={value}"))
    }

    /// `--as USER`
    #[must_use]
    pub fn as_user(self, user: &str) -> Self {
        self.option("--as", user)
    }

    /// `--time-limit`
    #[must_use]
    pub fn time_limit(self, limit: &str) -> Self {
        self.option("--time-limit", limit)
    }

    /// `--on` another machine than the first.
    #[must_use]
    pub fn on(mut self, machine: &str) -> Self {
        self.machine = Some(machine.to_owned());
        self
    }
}

/// What `sluice run --json` said.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// The exit code of `sluice`.
    pub code: i32,
    /// The object on stdout; null where there was none.
    pub json: Value,
    /// Everything on stderr.
    pub stderr: String,
}

impl Outcome {
    /// A text of the object, empty where it is null.
    #[must_use]
    pub fn text(&self, key: &str) -> String {
        self.json[key].as_str().unwrap_or_default().to_owned()
    }

    /// The exact bytes of `output`, `stdout` or `stderr`.
    ///
    /// # Panics
    ///
    /// Where the host's base64 is none.
    #[must_use]
    pub fn bytes(&self, key: &str) -> Vec<u8> {
        match self.json[format!("{key}_base64")].as_str() {
            Some(encoded) => base64::engine::general_purpose::STANDARD
                .decode(encoded)
                .expect("is base64"),
            None => self.text(key).into_bytes(),
        }
    }

    /// Checks state and message in one go.
    ///
    /// # Panics
    ///
    /// Where they are others, with all that is known.
    pub fn expect(&self, state: &str, message: &str) -> &Self {
        assert_eq!(
            (self.text("state").as_str(), self.text("message").as_str()),
            (state, message),
            "{self:#?}"
        );
        self
    }
}
