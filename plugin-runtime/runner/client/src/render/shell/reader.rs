//! The commands of a shell script, read one after the other with a stack of what is open around them.
//!
//! It knows what all shells of a dialect agree about. Whatever else it meets is a doubt, which takes the literals away
//! from everything behind, and from the command that it is in.

use super::builtin;
use super::command::{Attributes, Command, Pipeline};
use super::document::Document;
use super::evaluators::{CALCULATES, DECLARES};
use super::expansion::Arithmetic;
use super::state::{Commands, Opened, State, Taken, Target};
use super::word::{Assigns, UNFINISHED, Word, calculated_in, is_name};
use super::{Dialect, Reading};
use crate::render::position::Position;
use crate::render::template::{Cursor, Doubt, Template};

/// Nothing that people write nests deeper.
pub(super) const DEEPEST: usize = 64;

/// What is open around a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Open {
    /// `( ... )`
    Subshell,
    /// `$( ... )`, `<( ... )`
    Substitution,
    DoubleQuotes,
    /// `${ ... }`
    Expansion,
    /// `$(( ... ))`
    Arithmetic,
    /// `name=( ... )`
    List,
    /// `[[ ... ]]`
    Condition,
    /// `<<`
    Document,
}

/// What ends a list of commands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Within {
    Script,
    Parentheses,
}

/// Reads one script.
pub(super) struct Reader<'t> {
    pub(super) cursor: Cursor<'t>,
    pub(super) dialect: Dialect,
    pub(super) open: Vec<Open>,
    /// Here-documents whose text starts at the next line.
    pub(super) pending: Vec<usize>,
    pub(super) documents: Vec<Document>,
    pub(super) attributes: Attributes,
    /// A command since the innermost compound command or subshell began takes its input for a program.
    reads_program: bool,
    /// Placeholders in front of this one are in commands that were understood to their end.
    understood: usize,
}

impl<'t> Reader<'t> {
    pub(super) fn new(template: &'t Template<'_>, dialect: Dialect) -> Self {
        Self {
            cursor: Cursor::new(template),
            dialect,
            open: Vec::new(),
            pending: Vec::new(),
            documents: Vec::new(),
            attributes: Attributes::default(),
            reads_program: false,
            understood: 0,
        }
    }

    /// Where the placeholders stand.
    pub(super) fn read(mut self) -> Reading {
        if let Err(doubt) = self.commands(Within::Script) {
            self.cursor.refuse_from(self.understood, doubt);
            // What is behind the doubt may say that what was assigned before is calculated.
            let mut words = DECLARES.iter().chain(CALCULATES);
            self.attributes.any |= words.any(|word| self.cursor.has_word(word));
        }
        for (place, reason) in self.attributes.evaluated() {
            self.evaluated(place, reason);
        }
        Reading {
            standings: self.cursor.standings,
            documents: self.documents,
        }
    }

    /// Passes the placeholder that is next.
    pub(super) fn place(&mut self, position: Position) {
        let refused = self.open.iter().find_map(|open| match open {
            Open::Expansion => Some("an expansion of a variable"),
            Open::Document => Some("an expansion in a here-document"),
            _ => None,
        });
        self.cursor
            .pass(refused.map_or(position, Position::Refused));
        if position != Position::Arithmetic && self.open.contains(&Open::Arithmetic) {
            // What a command in it prints is calculated.
            self.evaluated(
                self.cursor.standings.len() - 1,
                "a command whose output is calculated",
            );
        }
    }

    /// What is known here, where something that is a command as a whole starts.
    pub(super) fn opened(&mut self) -> Opened {
        Opened {
            place: self.cursor.standings.len(),
            document: self.documents.len(),
            reads_program: std::mem::take(&mut self.reads_program),
        }
    }

    /// What starts there ended, and is a command of the pipeline.
    fn closed(&mut self, commands: &mut Commands, opened: Opened) {
        commands.pipeline.take_whole(Command {
            places: opened.place..self.cursor.standings.len(),
            documents: opened.document..self.documents.len(),
            reads_program: self.reads_program,
            ..Command::default()
        });
        self.reads_program |= opened.reads_program;
    }

    /// Takes note that what stands at a placeholder is evaluated again.
    pub(super) fn evaluated(&mut self, place: usize, reason: &'static str) {
        if let Some(standing) = self.cursor.standings.get_mut(place) {
            standing.evaluated.get_or_insert(reason);
        }
    }

    pub(super) fn enter(&mut self, open: Open) -> Result<(), Doubt> {
        if self.open.len() >= DEEPEST {
            return Err(Doubt("something nested too deeply"));
        }
        self.open.push(open);
        Ok(())
    }

    pub(super) fn is_substituted(&self) -> bool {
        self.open.contains(&Open::Substitution)
    }

    /// Commands up to the end, which is passed.
    pub(super) fn commands(&mut self, within: Within) -> Result<(), Doubt> {
        let mut commands = Commands::new(within);
        loop {
            self.blanks();
            if self.cursor.at_place() {
                self.read_word(&mut commands)?;
                continue;
            }
            match self.cursor.peek() {
                None => return self.end_of_script(&mut commands),
                Some(b'\n') => self.line_feed(&mut commands)?,
                Some(b';') => self.semicolon(&mut commands)?,
                Some(b'&') => self.ampersand(&mut commands)?,
                Some(b'|') => self.bar(&mut commands)?,
                Some(b'(') => self.parenthesis(&mut commands)?,
                Some(b')') => {
                    if self.closing_parenthesis(&mut commands)? {
                        return Ok(());
                    }
                }
                Some(b'<' | b'>') => self.redirection(&mut commands)?,
                Some(b'#') if matches!(commands.state, State::Target(..)) => {
                    return Err(Doubt("a comment behind a redirection"));
                }
                Some(b'#') => self.comment()?,
                Some(_) => self.read_word(&mut commands)?,
            }
        }
    }

    /// Passes blanks and continued lines.
    pub(super) fn blanks(&mut self) {
        loop {
            match self.cursor.peek() {
                Some(b' ' | b'\t') => self.cursor.at += 1,
                Some(b'\\') if self.cursor.byte(1) == Some(b'\n') => self.cursor.at += 2,
                _ => return,
            }
        }
    }

    /// Passes a comment. In a substitution, older shells look for its end in comments too.
    pub(super) fn comment(&mut self) -> Result<(), Doubt> {
        let end = self.cursor.line_end(self.cursor.at);
        let text = self.cursor.text(self.cursor.at, end);
        if self.is_substituted() && text.iter().any(|byte| b"'\"`()\\".contains(byte)) {
            return Err(Doubt("a comment with quotes or parentheses within $(...)"));
        }
        self.cursor.skip(end, Position::Comment);
        Ok(())
    }

    fn end_of_script(&mut self, commands: &mut Commands) -> Result<(), Doubt> {
        let is_whole = commands.within == Within::Script
            && commands.compounds.is_empty()
            && self.pending.is_empty()
            && commands.may_end();
        if !is_whole || !self.cursor.at_end() {
            return Err(UNFINISHED);
        }
        self.end_pipeline(commands)
    }

    fn end_pipeline(&mut self, commands: &mut Commands) -> Result<(), Doubt> {
        let judged = commands.pipeline.judge()?;
        for (place, reason) in judged.evaluated {
            self.evaluated(place, reason);
        }
        if let Some(reason) = judged.input {
            self.reads_program = true;
            for document in judged.documents {
                self.documents[document].evaluated = Some(reason);
            }
        }
        self.attributes.add(judged.attributes);
        commands.pipeline = Pipeline::default();
        commands.state = State::Command;
        commands.may_be_timed = false;
        if self.is_certain(commands) {
            self.understood = self.cursor.standings.len();
        }
        Ok(())
    }

    /// Whether nothing is open, so that what comes next changes nothing about what was read.
    fn is_certain(&self, commands: &Commands) -> bool {
        self.open.is_empty() && self.pending.is_empty() && commands.compounds.is_empty()
    }

    fn line_feed(&mut self, commands: &mut Commands) -> Result<(), Doubt> {
        match commands.state {
            State::AfterName | State::In | State::Pattern { started: false, .. } => {}
            // Behind `|`, `&&` and `||` the pipeline goes on.
            State::Command => {}
            State::Prefix | State::Argument | State::End | State::Items => {
                self.end_pipeline(commands)?;
            }
            _ => return Err(Doubt("a line that ends too early")),
        }
        self.cursor.at += 1;
        if !self.pending.is_empty() {
            if self.open.iter().any(|open| *open != Open::Subshell) {
                return Err(Doubt("a here-document that starts within something else"));
            }
            self.read_documents()?;
            if self.is_certain(commands) && commands.state == State::Command {
                self.understood = self.cursor.standings.len();
            }
        }
        Ok(())
    }

    fn semicolon(&mut self, commands: &mut Commands) -> Result<(), Doubt> {
        let rest = self.cursor.rest();
        let length = [&b";;&"[..], b";;", b";&", b";|"]
            .iter()
            .find(|end| rest.starts_with(end))
            .map(|end| end.len());
        if let Some(length) = length {
            if commands.cases == 0 || !commands.may_end() {
                return Err(Doubt("the end of a case that is none"));
            }
            self.end_pipeline(commands)?;
            commands.state = State::Pattern {
                parenthesis: false,
                started: false,
            };
            self.cursor.at += length;
            return Ok(());
        }
        match commands.state {
            State::AfterName => {}
            State::Prefix | State::Argument | State::End | State::Items => {
                self.end_pipeline(commands)?;
            }
            _ => return Err(Doubt("a semicolon that ends nothing")),
        }
        self.cursor.at += 1;
        Ok(())
    }

    fn ampersand(&mut self, commands: &mut Commands) -> Result<(), Doubt> {
        if self.cursor.looking_at(b"&>") {
            if !self.dialect.is_extended() {
                return Err(Doubt("&>, which not every sh knows"));
            }
            self.cursor.at += 2;
            if self.cursor.peek() == Some(b'>') {
                self.cursor.at += 1;
            }
            return commands.redirect(Target::File);
        }
        if !commands.may_end() || commands.state == State::Command {
            return Err(Doubt("an ampersand behind no command"));
        }
        self.cursor.at += if self.cursor.looking_at(b"&&") { 2 } else { 1 };
        self.end_pipeline(commands)
    }

    fn bar(&mut self, commands: &mut Commands) -> Result<(), Doubt> {
        if let State::Pattern {
            started: true,
            parenthesis,
        } = commands.state
        {
            self.cursor.at += 1;
            commands.state = State::Pattern {
                parenthesis,
                started: false,
            };
            return Ok(());
        }
        if !commands.may_end() || commands.state == State::Command {
            return Err(Doubt("a bar behind no command"));
        }
        if self.cursor.looking_at(b"||") {
            self.cursor.at += 2;
            return self.end_pipeline(commands);
        }
        if self.cursor.looking_at(b"|&") {
            if !self.dialect.is_extended() {
                return Err(Doubt("|&, which not every sh knows"));
            }
            self.cursor.at += 1;
        }
        self.cursor.at += 1;
        commands.pipeline.next();
        commands.state = State::Command;
        commands.may_be_timed = false;
        Ok(())
    }

    fn parenthesis(&mut self, commands: &mut Commands) -> Result<(), Doubt> {
        let is_double = self.cursor.byte(1) == Some(b'(');
        if matches!(self.cursor.before(), Some(b'!' | b'@' | b'?' | b'*' | b'+')) {
            return Err(Doubt("a parenthesis that may belong to a pattern"));
        }
        match commands.state {
            State::Command if commands.may_be_timed => {
                return Err(Doubt("a parenthesis behind time"));
            }
            State::Command if is_double => {
                self.extended("((...)), which not every sh knows")?;
                self.arithmetic(Arithmetic::Value)?;
                commands.state = State::End;
            }
            State::Command => {
                self.cursor.at += 1;
                if self.cursor.peek() == Some(b')') {
                    return Err(Doubt("a function without a name"));
                }
                self.enter(Open::Subshell)?;
                let opened = self.opened();
                self.commands(Within::Parentheses)?;
                self.closed(commands, opened);
                self.open.pop();
                if self.cursor.peek() == Some(b'#') {
                    return Err(Doubt("a comment right behind a parenthesis"));
                }
                commands.state = State::End;
            }
            State::Name if is_double => {
                self.extended("for ((...)), which not every sh knows")?;
                self.arithmetic(Arithmetic::Loop)?;
                commands.state = State::AfterName;
            }
            State::Pattern {
                parenthesis: false,
                started: false,
            } => {
                self.cursor.at += 1;
                commands.state = State::Pattern {
                    parenthesis: true,
                    started: false,
                };
            }
            State::Argument if commands.pipeline.is_one_name() => {
                self.no_parameters()?;
                commands.pipeline = Pipeline::default();
                commands.state = State::Command;
            }
            _ => return Err(Doubt("a parenthesis within a word")),
        }
        Ok(())
    }

    /// `()` behind the name of a function.
    fn no_parameters(&mut self) -> Result<(), Doubt> {
        self.cursor.at += 1;
        self.blanks();
        if self.cursor.peek() != Some(b')') {
            return Err(Doubt("a parenthesis within a word"));
        }
        self.cursor.at += 1;
        Ok(())
    }

    fn extended(&self, what: &'static str) -> Result<(), Doubt> {
        if self.dialect.is_extended() {
            Ok(())
        } else {
            Err(Doubt(what))
        }
    }

    /// Whether it ends the commands.
    fn closing_parenthesis(&mut self, commands: &mut Commands) -> Result<bool, Doubt> {
        if let State::Pattern {
            started: true,
            parenthesis,
        } = commands.state
        {
            // Older shells take this one for the end of the substitution.
            if !parenthesis && self.is_substituted() {
                return Err(Doubt(
                    "a case within $(...) whose patterns have no ( in front",
                ));
            }
            self.cursor.at += 1;
            commands.state = State::Command;
            return Ok(false);
        }
        let ends = commands.within == Within::Parentheses
            && commands.compounds.is_empty()
            && commands.may_end();
        if !ends {
            return Err(Doubt("a parenthesis that closes nothing"));
        }
        self.end_pipeline(commands)?;
        self.cursor.at += 1;
        Ok(true)
    }

    fn redirection(&mut self, commands: &mut Commands) -> Result<(), Doubt> {
        if self.cursor.byte(1) == Some(b'(') {
            let is_output = self.cursor.peek() == Some(b'>');
            let opened = self.opened();
            self.substituted_process()?;
            // A process that takes what the command writes for a program.
            commands.pipeline.feeds_program |= is_output && self.reads_program;
            self.reads_program |= opened.reads_program;
            let word = Word {
                places: opened.place..self.cursor.standings.len(),
                is_process: true,
                ..Word::default()
            };
            return commands.take(word, self.dialect).map(|_| ());
        }
        let rest = self.cursor.rest();
        if rest.starts_with(b"<<") && !rest.starts_with(b"<<<") {
            if self.open.iter().any(|open| *open != Open::Subshell) {
                return Err(Doubt("a here-document within $(...)"));
            }
            let document = self.documents.len();
            self.document()?;
            commands.redirect(Target::Document)?;
            commands.pipeline.documents.push(document);
            return commands.take(Word::default(), self.dialect).map(|_| ());
        }
        let length = [
            &b"<<<"[..],
            b"<>",
            b"<&",
            b"<",
            b">>",
            b">|",
            b">&",
            b">!",
            b">",
        ]
        .iter()
        .find(|operator| rest.starts_with(operator))
        .map_or(1, |operator| operator.len());
        let target = match rest[..length] {
            [_, b'&'] => Target::Descriptor,
            [_, b'!'] => return Err(Doubt(">!, which only some shells know")),
            [_, _, _] => Target::String,
            _ => Target::File,
        };
        if target == Target::String {
            self.extended("<<<, which not every sh knows")?;
        }
        self.cursor.at += length;
        commands.redirect(target)
    }

    fn read_word(&mut self, commands: &mut Commands) -> Result<(), Doubt> {
        let assigns = match commands.state {
            State::Command | State::Prefix => Assigns::All,
            State::Argument if commands.pipeline.declares() => Assigns::Declared,
            _ => Assigns::Nothing,
        };
        let from = self.cursor.at;
        let word = self.word(assigns)?;
        if self.cursor.at == from {
            return Err(Doubt("a character that is not understood"));
        }
        if matches!(self.cursor.peek(), Some(b'<' | b'>')) && self.is_descriptor(&word)? {
            return Ok(());
        }
        match commands.take(word, self.dialect)? {
            Taken::Word => Ok(()),
            Taken::Condition => {
                self.extended("[[, which not every sh knows")?;
                self.condition()
            }
            Taken::Function => {
                self.blanks();
                if self.cursor.peek() == Some(b'(') {
                    self.no_parameters()?;
                }
                Ok(())
            }
            Taken::Time => self.time(commands),
            Taken::Opens(end) => {
                let opened = self.opened();
                commands.open(end, opened)
            }
            Taken::Closes(end) => {
                let opened = commands.close(end)?;
                self.closed(commands, opened);
                Ok(())
            }
        }
    }

    /// What follows `time`: a command, or a word that is reserved for those shells alone that have `time` for one.
    fn time(&mut self, commands: &mut Commands) -> Result<(), Doubt> {
        let mut is_known = self.dialect.is_extended() && commands.pipeline.is_first();
        loop {
            self.blanks();
            let option = [&b"-p"[..], b"--"].into_iter().find(|option| {
                self.cursor.looking_at(option) && matches!(self.cursor.byte(2), Some(b' ' | b'\t'))
            });
            if option.is_none() {
                break;
            }
            self.cursor.at += 2;
            is_known &= self.dialect == Dialect::Bash;
        }
        if self.cursor.peek() == Some(b'-') {
            return Err(Doubt("an option of time"));
        }
        commands.may_be_timed = !is_known;
        Ok(())
    }

    /// Whether a word in front of a redirection is what is redirected: `2>`, or `{name}>`.
    fn is_descriptor(&self, word: &Word) -> Result<bool, Doubt> {
        let Some(text) = word.text().filter(|_| word.is_bare) else {
            return Ok(false);
        };
        let named = text
            .strip_prefix('{')
            .and_then(|text| text.strip_suffix('}'))
            .is_some_and(|name| is_name(name.as_bytes()));
        if named {
            self.extended("{name}>, which not every sh knows")?;
        }
        Ok(named || (!text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())))
    }

    /// The inside of `[[ ... ]]`. Parentheses and operators in it do not matter for where its quotes are.
    fn condition(&mut self) -> Result<(), Doubt> {
        const DOUBT: Doubt = Doubt("a [[ ... ]] that is not understood");
        self.enter(Open::Condition)?;
        let mut names = Vec::new();
        let (first, mut calculates, mut operator) = (self.cursor.standings.len(), false, true);
        loop {
            self.blanks();
            match self.cursor.peek() {
                Some(b'\n') => {
                    self.line_feed_in_quotes(b'\n')?;
                    self.cursor.at += 1;
                }
                Some(b'#' | b';') => return Err(DOUBT),
                Some(b'<' | b'>') if self.cursor.byte(1) == Some(b'(') => return Err(DOUBT),
                Some(b'(' | b')' | b'<' | b'>' | b'|' | b'&') => self.cursor.at += 1,
                None if !self.cursor.at_place() => return Err(UNFINISHED),
                _ => {
                    let word = self.word(Assigns::Nothing)?;
                    if word.is_bare && word.is("]]") {
                        if operator {
                            return Err(DOUBT);
                        }
                        break;
                    }
                    calculates |= builtin::calculates(&word);
                    if self.dialect == Dialect::Zsh
                        && let Some(literal) = &word.literal
                    {
                        names.extend(calculated_in(literal));
                    }
                    operator =
                        word.is_bare && ["=", "==", "!=", "=~"].iter().any(|text| word.is(text));
                }
            }
        }
        self.open.pop();
        if calculates {
            self.attributes.numbers.extend(names);
            for place in first..self.cursor.standings.len() {
                self.evaluated(place, "a [[ ... ]] that calculates");
            }
        }
        Ok(())
    }
}
