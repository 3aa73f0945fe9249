//! What a shell, or a program that reads programs, does with the words of a command: quotes do not keep a value from
//! being executed where a word is evaluated again.
//!
//! It is a net, not a wall: what a program makes of its arguments cannot be known in general. What shells do themselves is
//! told in full for what they share; of programs, those are named that are known for it.

use std::collections::HashSet;

use super::builtin;
use super::evaluators::{
    DECLARES, FILTERS, INTERPRETERS, PREFIXES, PROGRAMS, READERS, RUNNERS, SHELL_PREFIXES, base,
    is_own,
};
use super::word::Word;
use crate::render::template::Doubt;

/// Commands that are joined by bars.
#[derive(Debug, Default)]
pub(super) struct Pipeline {
    commands: Vec<Command>,
    /// Here-documents that they read.
    pub(super) documents: Vec<usize>,
    /// Placeholders in here-strings that they read.
    pub(super) strings: Vec<usize>,
    /// Placeholders in what is copied to or from a descriptor.
    pub(super) descriptors: Vec<usize>,
}

/// A simple command.
#[derive(Debug, Default)]
pub(super) struct Command {
    pub(super) assignments: Vec<Word>,
    pub(super) words: Vec<Word>,
}

/// What variables of a script are, wherever it says so.
#[derive(Debug, Default)]
pub(super) struct Attributes {
    /// Numbers: what is assigned to one is calculated.
    pub(super) numbers: HashSet<Vec<u8>>,
    /// Lists: what is declared of one may be read as a list.
    pub(super) lists: HashSet<Vec<u8>>,
    /// Some are references, or of a kind that the script computes: any other may be meant.
    pub(super) any: bool,
    /// Placeholders in values of assignments, with the variable.
    pub(super) assigned: Vec<(usize, Vec<u8>)>,
    /// Placeholders in values of declarations, likewise.
    pub(super) declared: Vec<(usize, Vec<u8>)>,
}

impl Attributes {
    /// Takes note of the placeholders in a value of an assignment.
    pub(super) fn assign(&mut self, word: &Word) {
        let name = word.assigns.as_deref().unwrap_or_default();
        if word.is_list {
            let values = word.values.iter();
            self.assigned
                .extend(values.map(|place| (*place, name.to_vec())));
        } else {
            let places = word.places.clone();
            self.assigned
                .extend(places.map(|place| (place, name.to_vec())));
        }
    }

    pub(super) fn add(&mut self, other: Self) {
        self.numbers.extend(other.numbers);
        self.lists.extend(other.lists);
        self.any |= other.any;
        self.assigned.extend(other.assigned);
        self.declared.extend(other.declared);
    }

    /// The placeholders that may be evaluated because of what the variables are.
    pub(super) fn evaluated(&self) -> Vec<(usize, &'static str)> {
        let is_number = |name: &Vec<u8>| self.any || self.numbers.contains(name);
        let assigned = self.assigned.iter().filter(|(_, name)| is_number(name));
        let declared = self
            .declared
            .iter()
            .filter(|(_, name)| is_number(name) || self.lists.contains(name));
        let reason = "an assignment to what the script declares as a number, a list or a reference";
        assigned
            .chain(declared)
            .map(|(place, _)| (*place, reason))
            .collect()
    }
}

/// What is known of a pipeline once it has ended.
#[derive(Debug, Default)]
pub(super) struct Judged {
    /// Placeholders in words that are evaluated again.
    pub(super) evaluated: Vec<(usize, &'static str)>,
    /// Where its input is.
    pub(super) input: Option<&'static str>,
    pub(super) documents: Vec<usize>,
    pub(super) attributes: Attributes,
}

impl Pipeline {
    pub(super) fn current(&mut self) -> &mut Command {
        if self.commands.is_empty() {
            self.commands.push(Command::default());
        }
        let last = self.commands.len() - 1;
        &mut self.commands[last]
    }

    /// Goes on behind a bar.
    pub(super) fn next(&mut self) {
        self.current();
        self.commands.push(Command::default());
    }

    /// Whether it is one plain word so far, as the name of a function is.
    pub(super) fn is_one_name(&self) -> bool {
        let [command] = self.commands.as_slice() else {
            return false;
        };
        let named = |word: &Word| word.is_bare && word.literal.is_some();
        command.assignments.is_empty()
            && matches!(command.words.as_slice(), [word] if named(word))
            && self.documents.is_empty()
            && self.strings.is_empty()
    }

    /// Whether the command that is being read declares variables.
    pub(super) fn declares(&self) -> bool {
        let first = self
            .commands
            .last()
            .and_then(|command| command.words.first());
        first.is_some_and(|word| DECLARES.iter().any(|name| word.is(name)))
    }

    /// What becomes of the words.
    pub(super) fn judge(&mut self) -> Result<Judged, Doubt> {
        let mut judged = Judged {
            documents: std::mem::take(&mut self.documents),
            ..Judged::default()
        };
        for command in &self.commands {
            command.judge(&mut judged)?;
        }
        let descriptors = self.descriptors.drain(..);
        judged
            .evaluated
            .extend(descriptors.map(|place| (place, "what follows >& or <&")));
        judged.input = self.commands.iter().find_map(Command::reads_program);
        if let Some(reason) = judged.input {
            let piped = self.commands.iter().flat_map(Command::places);
            let strings = self.strings.drain(..);
            judged
                .evaluated
                .extend(strings.map(|place| (place, reason)));
            if self.commands.len() > 1 {
                judged.evaluated.extend(piped.map(|place| (place, reason)));
            }
        }
        Ok(judged)
    }
}

impl Command {
    fn places(&self) -> impl Iterator<Item = usize> {
        self.words.iter().flat_map(|word| word.places.clone())
    }

    fn judge(&self, judged: &mut Judged) -> Result<(), Doubt> {
        for word in &self.assignments {
            let name = word.assigns.as_deref().unwrap_or_default();
            if word.is_list {
                judged.attributes.lists.insert(name.to_vec());
            }
            if is_own(name) {
                judged.evaluate(word, "an assignment to a variable of the shell's own");
            } else if word.is_element {
                judged.evaluate(word, "an assignment to an element");
            } else {
                judged.attributes.assign(word);
            }
        }
        let Some((first, arguments)) = self.words.split_first() else {
            return Ok(());
        };
        judged.evaluate(first, "the name of a command");
        let Some(name) = first.text() else {
            judged.evaluate_all(arguments, "a command whose name the script computes");
            return Ok(());
        };
        let names = self.names(name);
        if names.contains(&"alias") && !arguments.is_empty() {
            return Err(Doubt("an alias"));
        }
        for name in names {
            builtin::judge(name, arguments, judged)?;
        }
        if PREFIXES.contains(&base(name)) {
            // A placeholder in front of the first word that can be a command's name may be its name.
            let may_be_name = |word: &&Word| {
                let text = word.text().unwrap_or("-");
                text.starts_with(['-', '+']) || text.contains('=') || text.parse::<f64>().is_ok()
            };
            let before = arguments.iter().take_while(may_be_name).count();
            judged.evaluate_all(&arguments[..before], "the name of a command");
        }
        if arguments
            .iter()
            .chain([first])
            .any(|word| word.is_one_of(PROGRAMS))
        {
            judged.evaluate_all(
                arguments,
                "an argument that another program takes for a program",
            );
        }
        if let Some(at) = self
            .words
            .iter()
            .position(|word| word.is_one_of(INTERPRETERS))
        {
            let behind = &self.words[at + 1..];
            let is_option = |word: &Word| -> bool {
                word.literal
                    .as_ref()
                    .is_none_or(|text| text.starts_with(b"-") && text != b"--")
                    && !word.has_places()
            };
            let starts_with_file = behind.first().is_none_or(|word| {
                !word.has_places() && !word.text().unwrap_or("-").starts_with('-')
            });
            let is_command = at == 0 || PREFIXES.contains(&base(name));
            let takes_option = behind.first().is_some_and(is_option)
                || (is_command && behind.iter().any(is_option));
            if takes_option || (is_command && !starts_with_file) {
                judged.evaluate_all(
                    &self.words,
                    "an argument that another interpreter may take for a program",
                );
            }
        }
        Ok(())
    }

    /// The words that may name the command: the first, and behind such as `command` any other.
    fn names<'w>(&'w self, first: &'w str) -> Vec<&'w str> {
        // `-p` is an option of `time`.
        if SHELL_PREFIXES.contains(&first) || first.starts_with('-') {
            self.words.iter().filter_map(Word::text).collect()
        } else {
            vec![first]
        }
    }

    /// Whether it takes its input for a program.
    fn reads_program(&self) -> Option<&'static str> {
        let first = self.words.first()?;
        let runs_others = first.is_one_of(PREFIXES) || first.is_one_of(RUNNERS);
        let mut words = self.words.iter();
        let reads = if runs_others {
            words.any(Word::reads_program)
        } else {
            first.reads_program() || first.is("source") || first.is(".")
        };
        reads.then_some("the input of another program that takes it for a program")
    }
}

impl Judged {
    pub(super) fn evaluate(&mut self, word: &Word, reason: &'static str) {
        self.evaluated
            .extend(word.places.clone().map(|place| (place, reason)));
    }

    pub(super) fn evaluate_all(&mut self, words: &[Word], reason: &'static str) {
        for word in words {
            self.evaluate(word, reason);
        }
    }
}

impl Word {
    /// Whether it names a program that takes its input for a program.
    fn reads_program(&self) -> bool {
        (self.is_one_of(INTERPRETERS) && !self.is_one_of(&["flock", "script"]))
            || self.is_one_of(READERS)
            || (self.is_one_of(PROGRAMS) && !self.is_one_of(FILTERS))
    }

    /// Whether it is one of these, without its path and version.
    fn is_one_of(&self, names: &[&str]) -> bool {
        self.text().is_some_and(|text| {
            let name = base(text);
            let plain = name.trim_end_matches(|c: char| c.is_ascii_digit() || c == '.');
            names.contains(&name) || names.contains(&plain)
        })
    }
}
