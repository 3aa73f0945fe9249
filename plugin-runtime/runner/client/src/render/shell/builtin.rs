//! Builtins of shells that may calculate, declare or change how the shell reads, by their arguments.

use super::command::Judged;
use super::evaluators::{DECLARES, EVALUATES, HARMLESS, HARMLESS_FLAGS, is_own};
use super::word::{Word, calculated_in};
use crate::render::template::Doubt;

/// What the builtin `name`, where it is one, does with its arguments.
pub(super) fn judge(name: &str, arguments: &[Word], judged: &mut Judged) -> Result<(), Doubt> {
    match name {
        "set" | "shopt" | "setopt" | "unsetopt" | "emulate" => {
            judged.evaluate_all(arguments, "an option of the shell");
            options(name, arguments)
        }
        "test" | "[" => {
            if !compares_texts(arguments, name == "[") {
                calculates_with(arguments, judged);
                judged.evaluate_all(arguments, "a test that may calculate");
            }
            Ok(())
        }
        "printf" => {
            if !prints_texts(arguments) {
                judged.evaluate_all(arguments, "a printf with more than %s in its format");
            }
            Ok(())
        }
        _ if DECLARES.contains(&name) => {
            declares(name, arguments, judged);
            Ok(())
        }
        _ if EVALUATES.contains(&name) => {
            if matches!(
                name,
                "break" | "continue" | "exit" | "let" | "return" | "shift"
            ) {
                calculates_with(arguments, judged);
            }
            judged.evaluate_all(arguments, "an argument that the shell evaluates again");
            Ok(())
        }
        _ => Ok(()),
    }
}

/// To zsh, a variable that is assigned in a calculation for the first time is a number from then on.
fn calculates_with(arguments: &[Word], judged: &mut Judged) {
    for word in arguments {
        match &word.literal {
            Some(literal) => judged.attributes.numbers.extend(calculated_in(literal)),
            None => judged.attributes.any |= !word.has_places(),
        }
    }
}

/// Whether a word of `[[ ... ]]` or `[ ... ]` compares numbers, or looks a variable up.
pub(super) fn calculates(word: &Word) -> bool {
    [
        "-eq", "-ne", "-lt", "-le", "-gt", "-ge", "-v", "-R", "-t", "-o", "-N",
    ]
    .iter()
    .any(|operator| word.is(operator))
}

/// Whether it is a test that every shell takes for one of texts or files, whatever the values are.
fn compares_texts(arguments: &[Word], bracket: bool) -> bool {
    let mut words = arguments;
    if bracket {
        match words.split_last() {
            Some((last, rest)) if last.is("]") => words = rest,
            _ => return false,
        }
    }
    if let [first, rest @ ..] = words
        && first.is("!")
        && rest.len() > 1
    {
        words = rest;
    }
    match words {
        [_] => true,
        [operator, _] => operator.text().is_some_and(|text| {
            let letter = text.strip_prefix('-').unwrap_or_default();
            letter.len() == 1 && "bcdefghkLnprsSuwxz".contains(letter)
        }),
        [_, operator, _] => ["=", "==", "!="].iter().any(|text| operator.is(text)),
        _ => false,
    }
}

/// Whether it prints texts alone, as its format says. Numbers are calculated by some shells.
fn prints_texts(arguments: &[Word]) -> bool {
    let format = match arguments {
        [first, rest @ ..] if first.is("--") => rest.first(),
        _ => arguments.first(),
    };
    let Some(format) = format
        .and_then(Word::text)
        .filter(|format| !format.starts_with('-'))
    else {
        return false;
    };
    printed_plainly(format)
}

/// Whether every conversion of a format is `%s`, `%b`, `%q` or `%%`.
fn printed_plainly(format: &str) -> bool {
    let mut rest = format;
    while let Some(at) = rest.find('%') {
        rest = rest[at + 1..].trim_start_matches(|c: char| c.is_ascii_digit() || "-. ".contains(c));
        if !rest.starts_with(['s', 'b', 'q', '%']) {
            return false;
        }
        rest = &rest[1..];
    }
    true
}

/// `declare` and its like: values of plain variables are values, all else is evaluated.
fn declares(name: &str, arguments: &[Word], judged: &mut Judged) {
    let mut numbers = matches!(name, "integer" | "float");
    let mut lists = false;
    let mut names = Vec::new();
    for word in arguments {
        match (&word.assigns, word.text()) {
            (Some(name), _) => {
                if is_own(name) {
                    judged.evaluate(word, "an assignment to a variable of the shell's own");
                } else {
                    let places = word.places.clone();
                    let declared = places.map(|place| (place, name.clone()));
                    if word.is_list {
                        // What is in a list that is written as one is read once.
                        judged.attributes.assign(word);
                        judged.attributes.lists.insert(name.clone());
                    } else {
                        judged.attributes.declared.extend(declared);
                    }
                }
                names.push(name.clone());
            }
            (None, Some(text)) if text.starts_with(['-', '+']) => {
                let flags = text.trim_start_matches(['-', '+']);
                lists |= flags.contains(['a', 'A']);
                numbers |= flags.contains(['i', 'E', 'F']);
                judged.attributes.any |= flags.contains(|c: char| !"aAiEFrxgpflut".contains(c));
            }
            (None, Some(text)) => names.push(text.as_bytes().to_vec()),
            // Computed: it may say anything.
            (None, None) if !word.has_places() => judged.attributes.any = true,
            (None, None) => judged.evaluate(word, "a name that is declared"),
        }
    }
    if numbers {
        judged.attributes.numbers.extend(names.iter().cloned());
    }
    if lists {
        judged.attributes.lists.extend(names);
    }
}

/// Options that change how a script is read are doubtful, and those that are not known.
fn options(name: &str, arguments: &[Word]) -> Result<(), Doubt> {
    const DOUBT: Doubt = Doubt("an option of the shell that may change how it reads");
    let harmless = |text: &str| {
        let plain: String = text
            .chars()
            .filter(|c| !matches!(c, '_' | '-'))
            .flat_map(char::to_lowercase)
            .collect();
        HARMLESS.contains(&plain.as_str())
            || plain
                .strip_prefix("no")
                .is_some_and(|plain| HARMLESS.contains(&plain))
    };
    let mut words = arguments.iter();
    while let Some(word) = words.next() {
        let Some(text) = word.text() else {
            // What a script computes is data for `set`, where nothing but data follows `--`.
            return Err(DOUBT);
        };
        match name {
            "set" if text == "--" || text == "-" => return Ok(()),
            "set" => match text.strip_prefix(['-', '+']) {
                Some(flags) if flags.chars().all(|flag| HARMLESS_FLAGS.contains(flag)) => {
                    if flags.contains('o')
                        && let Some(option) = words.next()
                        && !option.text().is_some_and(harmless)
                    {
                        return Err(DOUBT);
                    }
                }
                // From the first word on that is no flag, it sets arguments.
                None => return Ok(()),
                Some(_) => return Err(DOUBT),
            },
            "emulate" => {
                if !matches!(text, "zsh" | "-L" | "-R" | "-LR") {
                    return Err(DOUBT);
                }
            }
            _ if text.starts_with('-')
                && text.chars().skip(1).all(|flag| "suqpo".contains(flag)) => {}
            _ if harmless(text) || (name == "shopt" && text == "expand_aliases") => {}
            _ => return Err(DOUBT),
        }
    }
    Ok(())
}
