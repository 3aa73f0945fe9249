//! What may come next among commands, and what a word is there.
//!
//! ```text
//! Command --word--> Argument --operator--> Command   (`time` is passed: a command may still start)
//!    |                  `--redirection--> Target --word--> Argument
//!    |--a=b---------> Prefix (a command may start, reserved words are none)
//!    |--for---------> Name --word--> AfterName --in--> Items --;--> Command
//!    |--case--------> Subject --word--> In --in--> Pattern --)--> Command --;;--> Pattern --esac--> End
//!    `--fi, ), }, ]]--> End (redirections and operators follow)
//! ```

use super::Dialect;
use super::command::Pipeline;
use super::reader::{DEEPEST, Within};
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
    /// What is open in it: `if`, `{` and their like.
    pub(super) compounds: Vec<Compound>,
    /// `time` is in front, and not every shell takes it for a reserved word here.
    pub(super) may_be_timed: bool,
}

/// A compound command whose end was not read yet.
pub(super) struct Compound {
    /// The word that ends it.
    closes: &'static str,
    /// What it is a part of.
    pipeline: Pipeline,
    pub(super) opened: Opened,
}

/// What was known where a compound command, a subshell or a process began.
#[derive(Debug, Clone, Copy)]
pub(super) struct Opened {
    /// The number of the first placeholder in it.
    pub(super) place: usize,
    /// The number of the first here-document in it.
    pub(super) document: usize,
    /// Whether a command in front of it takes its input for a program.
    pub(super) reads_program: bool,
}

/// What a word that was taken starts.
pub(super) enum Taken {
    Word,
    Condition,
    Function,
    Time,
    /// It starts a compound command, which this word ends.
    Opens(&'static str),
    /// It ends a compound command.
    Closes(&'static str),
}

impl Commands {
    pub(super) fn new(within: Within) -> Self {
        Self {
            within,
            state: State::Command,
            cases: 0,
            pipeline: Pipeline::default(),
            compounds: Vec::new(),
            may_be_timed: false,
        }
    }

    /// A compound command starts; what is in it has pipelines of its own.
    pub(super) fn open(&mut self, closes: &'static str, opened: Opened) -> Result<(), Doubt> {
        if self.compounds.len() >= DEEPEST {
            return Err(Doubt("something nested too deeply"));
        }
        self.compounds.push(Compound {
            closes,
            pipeline: std::mem::take(&mut self.pipeline),
            opened,
        });
        Ok(())
    }

    /// A compound command ends; what it is a part of goes on.
    pub(super) fn close(&mut self, word: &'static str) -> Result<Opened, Doubt> {
        let compound = self
            .compounds
            .pop()
            .filter(|compound| compound.closes == word)
            .ok_or(Doubt("the end of something that was not started"))?;
        self.pipeline = compound.pipeline;
        Ok(compound.opened)
    }

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
                    Target::File if word.is_process => self.pipeline.strings.extend(word.places),
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
        if std::mem::take(&mut self.may_be_timed) && (is_reserved(&word) || text == "time") {
            return Err(Doubt("a reserved word behind time"));
        }
        let (state, taken) = match text {
            "then" | "do" | "else" | "elif" => (State::Command, Taken::Word),
            "fi" => (State::End, Taken::Closes("fi")),
            "done" => (State::End, Taken::Closes("done")),
            "}" => (State::End, Taken::Closes("}")),
            "esac" => {
                self.cases = self
                    .cases
                    .checked_sub(1)
                    .ok_or(Doubt("an esac without a case"))?;
                (State::End, Taken::Closes("esac"))
            }
            _ if self.state == State::End => {
                return Err(Doubt("a word behind the end of a command"));
            }
            "!" => (State::Command, Taken::Word),
            "time" => (State::Command, Taken::Time),
            "if" => (State::Command, Taken::Opens("fi")),
            "while" | "until" => (State::Command, Taken::Opens("done")),
            "{" => (State::Command, Taken::Opens("}")),
            "case" => (State::Subject, Taken::Opens("esac")),
            "for" => (State::Name, Taken::Opens("done")),
            "select" if dialect.is_extended() => (State::Name, Taken::Opens("done")),
            "function" if dialect.is_extended() => (State::FunctionName, Taken::Word),
            "[[" => (State::End, Taken::Condition),
            _ if is_reserved(&word) => {
                return Err(Doubt("a reserved word that only some shells know"));
            }
            _ => {
                self.start(word);
                return Ok(Taken::Word);
            }
        };
        self.state = state;
        Ok(taken)
    }

    /// Takes a word where a command starts: an assignment, or its name.
    fn start(&mut self, word: Word) {
        self.may_be_timed = false;
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
