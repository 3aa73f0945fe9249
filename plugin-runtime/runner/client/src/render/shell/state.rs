//! What may come next among commands, and what a word is there.
//!
//! ```text
//! Command --word--> Argument --operator--> Command
//!    |                  `--redirection--> Target --word--> Argument
//!    |--a=b---------> Prefix (a command may start, reserved words are none)
//!    |--for---------> Name --word--> AfterName --in--> Items --;--> Command
//!    |--case--------> Subject --word--> In --in--> Pattern --)--> Command --;;--> Pattern --esac--> End
//!    `--fi, ), }, ]]--> End (redirections and operators follow)
//! ```

use super::Dialect;
use super::command::Pipeline;
use super::reader::Within;
use super::word::{Word, is_name};
use crate::render::template::Doubt;

/// What may come next; see the drawing above.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Command,
    Prefix,
    Argument,
    Target(Target, Behind),
    Name,
    FunctionName,
    AfterName,
    Items,
    Subject,
    In,
    Pattern { parenthesis: bool, started: bool },
    End,
}

/// Where a redirection stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Behind {
    Prefix,
    Argument,
    End,
}

/// What a redirection leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Target {
    File,
    /// `<<`, whose text comes later.
    Document,
    /// `<<<`
    String,
    /// `>&` and `<&`. What is no number is a file to bash, and expanded once more.
    Descriptor,
}

/// A list of commands that is being read.
pub(super) struct Commands {
    pub(super) within: Within,
    pub(super) state: State,
    /// How many `case` are open in it.
    pub(super) cases: usize,
    pub(super) pipeline: Pipeline,
}

/// What a word that was taken starts.
pub(super) enum Taken {
    Word,
    Condition,
    Function,
}

impl Commands {
    pub(super) const fn may_end(&self) -> bool {
        matches!(
            self.state,
            State::Command | State::Prefix | State::Argument | State::End | State::Items
        )
    }

    pub(super) fn redirect(&mut self, target: Target) -> Result<(), Doubt> {
        let behind = match self.state {
            State::Command | State::Prefix => Behind::Prefix,
            State::Argument => Behind::Argument,
            State::End => Behind::End,
            _ => return Err(Doubt("a redirection of nothing")),
        };
        self.state = State::Target(target, behind);
        Ok(())
    }

    pub(super) fn take(&mut self, word: Word, dialect: Dialect) -> Result<Taken, Doubt> {
        const FOR: Doubt = Doubt("a for that is not understood");
        const CASE: Doubt = Doubt("a case that is not understood");
        match self.state {
            State::Target(target, behind) => {
                match target {
                    Target::File | Target::Document => {}
                    Target::String => self.pipeline.strings.extend(word.places),
                    Target::Descriptor => self.pipeline.descriptors.extend(word.places),
                }
                self.state = match behind {
                    Behind::Prefix => State::Prefix,
                    Behind::Argument => State::Argument,
                    Behind::End => State::End,
                };
            }
            State::Command | State::End if word.is_bare => return self.take_first(word, dialect),
            State::Command => self.start(word),
            State::Prefix if word.is_bare && is_reserved(&word) => {
                return Err(Doubt("a reserved word behind an assignment"));
            }
            State::Prefix => self.start(word),
            // To zsh these are reserved behind any word.
            State::Argument | State::Items
                if dialect == Dialect::Zsh && word.is_bare && (word.is("{") || word.is("}")) =>
            {
                return Err(Doubt("a brace among words"));
            }
            State::Argument => self.pipeline.current().words.push(word),
            State::Name => {
                let named = word.is_bare && word.literal.as_deref().is_some_and(is_name);
                self.state = if named {
                    State::AfterName
                } else {
                    return Err(FOR);
                };
            }
            State::FunctionName => {
                let named =
                    word.is_bare && word.text().is_some_and(|name| !name.contains(['{', '}']));
                self.state = if named {
                    State::Command
                } else {
                    return Err(FOR);
                };
                return Ok(Taken::Function);
            }
            State::AfterName if word.is_bare && word.is("in") => self.state = State::Items,
            State::AfterName if word.is_bare && word.is("do") => self.state = State::Command,
            State::AfterName => return Err(FOR),
            State::Items => {}
            State::Subject => self.state = State::In,
            State::In if word.is_bare && word.is("in") => {
                self.cases += 1;
                self.state = State::Pattern {
                    parenthesis: false,
                    started: false,
                };
            }
            State::In => return Err(CASE),
            State::Pattern {
                parenthesis: false,
                started: false,
            } if word.is_bare && word.is("esac") => {
                return self.take_first(word, dialect);
            }
            State::Pattern {
                parenthesis,
                started: false,
            } => {
                self.state = State::Pattern {
                    parenthesis,
                    started: true,
                };
            }
            State::Pattern { .. } => return Err(CASE),
            State::End => return Err(Doubt("a word behind the end of a command")),
        }
        Ok(Taken::Word)
    }

    /// Takes a bare word where a command may start, or behind one that has ended.
    fn take_first(&mut self, word: Word, dialect: Dialect) -> Result<Taken, Doubt> {
        let text = word.text().unwrap_or_default();
        let state = match text {
            "then" | "do" | "else" | "elif" => State::Command,
            "fi" | "done" | "}" => State::End,
            "esac" => {
                self.cases = self
                    .cases
                    .checked_sub(1)
                    .ok_or(Doubt("an esac without a case"))?;
                State::End
            }
            _ if self.state == State::End => {
                return Err(Doubt("a word behind the end of a command"));
            }
            "if" | "while" | "until" | "!" | "{" => State::Command,
            "case" => State::Subject,
            "for" => State::Name,
            "select" if dialect.is_extended() => State::Name,
            "function" if dialect.is_extended() => State::FunctionName,
            "[[" => {
                self.state = State::End;
                return Ok(Taken::Condition);
            }
            _ if is_reserved(&word) => {
                return Err(Doubt("a reserved word that only some shells know"));
            }
            _ => {
                self.start(word);
                return Ok(Taken::Word);
            }
        };
        self.state = state;
        Ok(Taken::Word)
    }

    /// Takes a word where a command starts: an assignment, or its name.
    fn start(&mut self, word: Word) {
        if word.assigns.is_some() {
            self.pipeline.current().assignments.push(word);
            self.state = State::Prefix;
        } else {
            self.pipeline.current().words.push(word);
            self.state = State::Argument;
        }
    }
}

/// Whether any shell has it for a reserved word.
fn is_reserved(word: &Word) -> bool {
    const RESERVED: &[&str] = &[
        "if",
        "then",
        "else",
        "elif",
        "fi",
        "while",
        "until",
        "do",
        "done",
        "for",
        "select",
        "case",
        "esac",
        "in",
        "function",
        "{",
        "}",
        "!",
        "[[",
        "]]",
        "coproc",
        "foreach",
        "end",
        "repeat",
        "nocorrect",
        "namespace",
        "always",
    ];
    RESERVED.iter().any(|reserved| word.is(reserved))
}
