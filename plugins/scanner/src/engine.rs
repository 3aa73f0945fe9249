//! From rules to findings.

use aho_corasick::{AhoCorasick, AhoCorasickKind, MatchKind};
use sluice_plugin_sdk::prelude::*;

use crate::comments::{Comments, Language};
use crate::expression::Expression;
use crate::rules::{Pattern, Rule, Scope};
use crate::views::View;

/// Findings of one rule in one text; more say nothing new.
const MOST_OF_A_RULE: usize = 20;

/// All rules, compiled.
#[derive(Debug)]
pub(crate) struct Engine {
    /// Every needle of every pattern, case-insensitive.
    needles: AhoCorasick,
    /// For each needle, the patterns that it wakes.
    woken: Vec<Vec<usize>>,
    /// For each needle, the patterns that need it beside their own.
    supported: Vec<Vec<usize>>,
    patterns: Vec<Compiled>,
    rules: Vec<&'static Rule>,
}

#[derive(Debug)]
struct Compiled {
    rule: usize,
    scope: Scope,
    whole_words: bool,
    /// Number of needles that must all be somewhere in the text.
    support: usize,
    regex: Option<Expression>,
}

/// What is known while one view of one text is scanned.
struct Progress {
    /// For each pattern, the end of the last line that it was tried on.
    tried: Vec<usize>,
    /// For patterns on whole texts: the first needle found.
    awake: Vec<Option<(usize, usize)>>,
    /// For each pattern, how many different supporting needles were found.
    support: Vec<usize>,
    seen: Vec<bool>,
}

/// What was found in one text, in any of its views.
struct Report<'a, 'b> {
    part: &'a TextPart<'a>,
    comments: Comments,
    /// Rule and line, so that a line that matches in two views is reported once.
    known: Vec<(usize, usize)>,
    findings: &'b mut Vec<Finding>,
}

impl Engine {
    /// # Errors
    /// `internal` where a rule does not compile; a test keeps the shipped ones from that.
    pub(crate) fn new(rules: impl Iterator<Item = &'static Rule>) -> Result<Self, GateError> {
        let rules: Vec<_> = rules.collect();
        let mut words: Vec<&str> = Vec::new();
        let mut woken: Vec<Vec<usize>> = Vec::new();
        let mut supported: Vec<Vec<usize>> = Vec::new();
        let mut patterns = Vec::new();
        for (
            rule,
            Pattern {
                any,
                all,
                regex,
                scope,
                whole_words,
            },
        ) in rules
            .iter()
            .enumerate()
            .flat_map(|(index, rule)| rule.patterns.iter().map(move |pattern| (index, pattern)))
        {
            let mut needle = |word: &'static str| {
                words
                    .iter()
                    .position(|known| *known == word)
                    .unwrap_or_else(|| {
                        words.push(word);
                        woken.push(Vec::new());
                        supported.push(Vec::new());
                        words.len() - 1
                    })
            };
            let any: Vec<_> = any.iter().map(|word| needle(word)).collect();
            let all: Vec<_> = all.iter().map(|word| needle(word)).collect();
            any.iter()
                .for_each(|&index| woken[index].push(patterns.len()));
            all.iter()
                .for_each(|&index| supported[index].push(patterns.len()));
            let regex = if regex.is_empty() {
                None
            } else {
                Some(Expression::new(regex).map_err(|error| {
                    GateError::Internal(format!("rule `{}`: {error}", rules[rule].id))
                })?)
            };
            patterns.push(Compiled {
                rule,
                scope: *scope,
                whole_words: *whole_words,
                support: all.len(),
                regex,
            });
        }
        let needles = AhoCorasick::builder()
            .ascii_case_insensitive(true)
            .match_kind(MatchKind::Standard)
            .kind(Some(AhoCorasickKind::ContiguousNFA))
            .build(&words)
            .map_err(|error| GateError::Internal(format!("words of the rules: {error}")))?;
        Ok(Self {
            needles,
            woken,
            supported,
            patterns,
            rules,
        })
    }

    /// Adds what is found in one text, in all its views.
    pub(crate) fn scan(
        &self,
        part: &TextPart<'_>,
        language: Language,
        findings: &mut Vec<Finding>,
    ) {
        let comments = Comments::of(part.text, language);
        let mut report = Report {
            part,
            comments,
            known: Vec::new(),
            findings,
        };
        self.scan_view(&View::of_text(part.text.as_bytes()), &mut report);
        if let Some(view) = View::without_disguise(part.text) {
            self.scan_view(&view, &mut report);
        }
        for view in View::decoded(part.text) {
            self.scan_view(&view, &mut report);
        }
    }

    fn scan_view(&self, view: &View<'_>, report: &mut Report<'_, '_>) {
        let bytes = view.bytes();
        let mut progress = Progress {
            tried: vec![0; self.patterns.len()],
            awake: vec![None; self.patterns.len()],
            support: vec![0; self.patterns.len()],
            seen: vec![false; self.woken.len()],
        };
        for found in self.needles.find_overlapping_iter(bytes) {
            let needle = found.pattern().as_usize();
            if !std::mem::replace(&mut progress.seen[needle], true) {
                self.supported[needle]
                    .iter()
                    .for_each(|&pattern| progress.support[pattern] += 1);
            }
            for &index in &self.woken[needle] {
                let pattern = &self.patterns[index];
                if pattern.whole_words && !is_whole_word(bytes, found.start(), found.end()) {
                    continue;
                }
                if pattern.scope == Scope::Text || pattern.support > 0 {
                    progress.awake[index].get_or_insert((found.start(), found.end()));
                } else if found.start() >= progress.tried[index] {
                    let (start, end) = line_around(bytes, found.start());
                    progress.tried[index] = end + 1;
                    self.try_on(
                        pattern,
                        (found.start(), found.end()),
                        (start, end),
                        view,
                        report,
                    );
                }
            }
        }
        for (pattern, (awake, support)) in self
            .patterns
            .iter()
            .zip(progress.awake.iter().zip(&progress.support))
        {
            if let Some(needle) = awake.filter(|_| *support >= pattern.support) {
                self.try_on(pattern, needle, (0, bytes.len()), view, report);
            }
        }
    }

    fn try_on(
        &self,
        pattern: &Compiled,
        needle: (usize, usize),
        (start, end): (usize, usize),
        view: &View<'_>,
        report: &mut Report<'_, '_>,
    ) {
        let Some(regex) = &pattern.regex else {
            report.add(
                self.rules[pattern.rule],
                pattern.rule,
                view.original(needle.0, needle.1),
            );
            return;
        };
        // A match in a comment must not hide one behind it.
        let mut left = MOST_OF_A_RULE;
        regex.each(&view.bytes()[start..end], |found| {
            left -= 1;
            let range = view.original(start + found.start, start + found.end);
            !report.add(self.rules[pattern.rule], pattern.rule, range) && left > 0
        });
    }
}

impl Engine {
    /// The rule with this id, unless it was left out.
    pub(crate) fn rule(&self, id: &str) -> Option<&'static Rule> {
        self.rules.iter().copied().find(|rule| rule.id == id)
    }
}

impl Report<'_, '_> {
    /// Whether the match counts.
    fn add(&mut self, rule: &Rule, index: usize, (start, end): (usize, usize)) -> bool {
        let text = self.part.text;
        let line = line_around(text.as_bytes(), start.min(text.len())).0;
        let mut severity = rule.severity;
        let mut confidence = rule.confidence;
        match self.comments.at(start) {
            Some(true) => return false,
            Some(false) => {
                severity = severity.min(Severity::Medium);
                confidence = Confidence::Low;
            }
            None => {}
        }
        let of_rule = self
            .known
            .iter()
            .filter(|(known, _)| *known == index)
            .count();
        if of_rule >= MOST_OF_A_RULE || self.known.contains(&(index, line)) {
            return true;
        }
        self.known.push((index, line));
        let range = text.floor_char_boundary(start)..text.ceil_char_boundary(end);
        let finding = Finding::new(rule.id, severity, rule.message)
            .confidence(confidence)
            .remediation(rule.remediation);
        self.findings.push(finding.at(self.part, range));
        true
    }
}

fn is_whole_word(bytes: &[u8], start: usize, end: usize) -> bool {
    let is_word = |index: usize| {
        bytes
            .get(index)
            .is_some_and(|b| b.is_ascii_alphanumeric() || *b == b'_')
    };
    let joined_before = start > 0 && is_word(start - 1) && is_word(start);
    let joined_after = end > 0 && is_word(end - 1) && is_word(end);
    !joined_before && !joined_after
}

/// The line with that offset, without its end of line.
fn line_around(bytes: &[u8], offset: usize) -> (usize, usize) {
    let start = bytes[..offset]
        .iter()
        .rposition(|&b| b == b'\n')
        .map_or(0, |index| index + 1);
    let end = bytes[offset..]
        .iter()
        .position(|&b| b == b'\n')
        .map_or(bytes.len(), |index| offset + index);
    (start, end)
}
