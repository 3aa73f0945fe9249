//! What a shell, or a program that reads programs, does with the words of a command: quotes do not keep a value from
//! being executed where a word is evaluated again.
//!
//! It is a net, not a wall: what a program makes of its arguments cannot be known in general. What shells do themselves is
//! told in full for what they share; of programs, those are named that are known for it.

use std::collections::HashSet;
use std::ops::Range;

use super::builtin;
use super::evaluators::{
    DECLARES, FILTERS, INTERPRETERS, PREFIXES, PROGRAMS, READERS, RUNNERS, SHELL_PREFIXES, base,
    is_own,
};
use super::word::{Word, is_name_byte};
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
    /// What it writes goes to a process that takes it for a program.
    pub(super) feeds_program: bool,
}

/// A simple command; or a compound one, which was judged before and has no words of its own.
#[derive(Debug, Default)]
pub(super) struct Command {
    pub(super) assignments: Vec<Word>,
    pub(super) words: Vec<Word>,
    /// The numbers of the placeholders in a compound command.
    pub(super) places: Range<usize>,
    /// The numbers of the here-documents in it.
    pub(super) documents: Range<usize>,
    /// Something in it takes its input for a program.
    pub(super) reads_program: bool,
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

    /// Takes a compound command, which has ended.
    pub(super) fn take_whole(&mut self, command: Command) {
        *self.current() = command;
    }

    /// Whether no bar is in front of the command that is being read.
    pub(super) fn is_first(&self) -> bool {
        self.commands.len() <= 1
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
        judged.input = self
            .commands
            .iter()
            .any(Command::reads_program)
            .then_some(INPUT);
        let is_fed = self.feeds_program.then_some(INPUT);
        if let Some(reason) = judged.input.or(is_fed) {
            judged.input = Some(reason);
            let piped = self.commands.iter().flat_map(Command::places);
            let strings = self.strings.drain(..);
            judged
                .evaluated
                .extend(strings.map(|place| (place, reason)));
            if self.commands.len() > 1 || self.feeds_program {
                judged.evaluated.extend(piped.map(|place| (place, reason)));
                let inner = self.commands.iter().flat_map(|one| one.documents.clone());
                judged.documents.extend(inner);
            }
        }
        Ok(judged)
    }
}

impl Command {
    fn places(&self) -> impl Iterator<Item = usize> {
        let words = self.words.iter().flat_map(|word| word.places.clone());
        words.chain(self.places.clone())
    }

    fn judge(&self, judged: &mut Judged) -> Result<(), Doubt> {
        for word in &self.assignments {
            let name = word.assigns.as_deref().unwrap_or_default();
            if is_of_aliases(name) {
                return Err(ALIAS);
            }
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
        let names_aliases = |word: &Word| {
            word.assigns.as_deref().is_some_and(is_of_aliases)
                || word.literal.as_deref().is_some_and(is_of_aliases)
        };
        if arguments.iter().any(names_aliases) {
            return Err(ALIAS);
        }
        for (at, name) in self.names(name) {
            let arguments = &self.words[at + 1..];
            if name == "alias" && !arguments.is_empty() {
                return Err(ALIAS);
            }
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

    /// The words that may name the command, with their numbers: the first, and behind such as `command` any other.
    fn names<'w>(&'w self, first: &'w str) -> Vec<(usize, &'w str)> {
        // `-p` is an option of `time`.
        if SHELL_PREFIXES.contains(&first) || first.starts_with('-') {
            let words = self.words.iter().enumerate();
            words
                .filter_map(|(at, word)| Some((at, word.text()?)))
                .collect()
        } else {
            vec![(0, first)]
        }
    }

    /// Whether it takes its input for a program. Which command a computed name is cannot be told, nor which words of
    /// another command are the command that it runs.
    fn reads_program(&self) -> bool {
        let Some((first, arguments)) = self.words.split_first() else {
            return self.reads_program;
        };
        let Some(name) = first.text() else {
            return true;
        };
        let runs_others = first.is_one_of(PREFIXES) || first.is_one_of(RUNNERS);
        let is_input = |word: &Word| [".", "eval", "source"].iter().any(|name| word.is(name));
        let is_computed = |word: &Word| word.literal.is_none();
        let may_be_option = |word: &&Word| {
            let text = word.text().unwrap_or("-");
            text.starts_with(['-', '+']) || text.contains('=') || text.parse::<f64>().is_ok()
        };
        first.reads_program()
            || is_input(first)
            || (runs_others && arguments.iter().any(Word::reads_program))
            || (PREFIXES.contains(&base(name))
                && (arguments.iter().any(is_input)
                    || arguments.iter().take_while(may_be_option).any(is_computed)))
            || arguments.iter().any(Word::interprets_input)
    }
}

/// What a value is in what another program reads.
const INPUT: &str = "the input of another program that takes it for a program";

/// What a word stands for is text that is read in its place.
pub(super) const ALIAS: Doubt = Doubt("an alias");

/// Whether a name, or what is in front of a subscript or sign, is that of a list of aliases.
pub(super) fn is_of_aliases(text: &[u8]) -> bool {
    let length = text.iter().take_while(|byte| is_name_byte(**byte)).count();
    [
        &b"BASH_ALIASES"[..],
        b"aliases",
        b"dis_aliases",
        b"dis_galiases",
        b"dis_saliases",
        b"galiases",
        b"saliases",
    ]
    .contains(&&text[..length])
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

    /// Whether it names one for certain that runs commands, wherever it stands among words.
    fn interprets_input(&self) -> bool {
        (self.is_one_of(INTERPRETERS) || self.is_one_of(PROGRAMS)) && self.reads_program()
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
