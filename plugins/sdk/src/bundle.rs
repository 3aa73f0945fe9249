//! The parts of a bundle that are text, under the names that findings use for them.

use crate::types::{Attachment, Binding, Bundle, Script};

/// One text of a bundle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TextPart<'a> {
    /// What a finding's `subject` says: `script`, `argument:<index from 0>`, `environment:<name>`,
    /// `attachment:<name>`.
    pub subject: String,
    /// The text. Spans are offsets into it.
    pub text: &'a str,
}

impl Bundle {
    /// Every text that will reach the machine: the script, its arguments, the values of its environment and the
    /// attachments that are text.
    pub fn texts(&self) -> impl Iterator<Item = TextPart<'_>> {
        let script = TextPart {
            subject: "script".to_owned(),
            text: &self.script.text,
        };
        let arguments = self
            .arguments
            .iter()
            .enumerate()
            .map(|(index, text)| TextPart {
                subject: format!("argument:{index}"),
                text,
            });
        let environment = self.environment.iter().map(|binding| TextPart {
            subject: format!("environment:{}", binding.name),
            text: &binding.value,
        });
        let attachments = self.attachments.iter().filter_map(|attachment| {
            let text = attachment.text.as_deref()?;
            Some(TextPart {
                subject: format!("attachment:{}", attachment.name),
                text,
            })
        });
        std::iter::once(script)
            .chain(arguments)
            .chain(environment)
            .chain(attachments)
    }

    /// A bundle with nothing but a script, for tests. `language` is one of the contract's: `shell`, `python`, `perl`,
    /// `ruby`, `javascript`, `powershell`, `unknown`.
    #[must_use]
    pub fn of_script(language: &str, text: impl Into<String>) -> Self {
        let interpreter = match language {
            "shell" => "bash",
            "python" => "python3",
            "javascript" => "node",
            "powershell" => "pwsh",
            other => other,
        };
        Self {
            script: Script {
                interpreter: interpreter.to_owned(),
                flags: Vec::new(),
                language: language.to_owned(),
                text: text.into(),
                sha256: vec![0; 32],
            },
            arguments: Vec::new(),
            environment: Vec::new(),
            attachments: Vec::new(),
            secrets: Vec::new(),
            run_as: "ephemeral".to_owned(),
            limits: Vec::new(),
        }
    }

    /// The same bundle with one more argument, for tests.
    #[must_use]
    pub fn with_argument(mut self, text: impl Into<String>) -> Self {
        self.arguments.push(text.into());
        self
    }

    /// The same bundle with one more environment variable, for tests.
    #[must_use]
    pub fn with_environment(mut self, name: &str, value: impl Into<String>) -> Self {
        self.environment.push(Binding {
            name: name.to_owned(),
            value: value.into(),
        });
        self
    }

    /// The same bundle with one more attachment, for tests.
    #[must_use]
    pub fn with_attachment(mut self, name: &str, text: impl Into<String>) -> Self {
        let text = text.into();
        self.attachments.push(Attachment {
            name: name.to_owned(),
            size: text.len() as u64,
            sha256: vec![0; 32],
            text: Some(text),
        });
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_text_of_a_bundle_has_the_subject_of_the_contract() {
        let mut bundle = Bundle::of_script("shell", "a")
            .with_argument("b")
            .with_argument("c")
            .with_environment("D", "d")
            .with_attachment("e.txt", "e");
        bundle.attachments.push(Attachment {
            name: "binary".into(),
            size: 3,
            sha256: vec![],
            text: None,
        });
        let subjects: Vec<_> = bundle
            .texts()
            .map(|part| format!("{}={}", part.subject, part.text))
            .collect();
        assert_eq!(
            subjects,
            [
                "script=a",
                "argument:0=b",
                "argument:1=c",
                "environment:D=d",
                "attachment:e.txt=e"
            ]
        );
    }
}
