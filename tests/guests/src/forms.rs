//! The forms of a module's text, by name.

/// `honest`, with each of `forms` in the place of the one with its name, or behind all others.
pub(crate) fn replaced(honest: &str, forms: &str) -> String {
    let mut result: Vec<&str> = split(honest);
    for form in split(forms) {
        let same = |other: &&mut &str| name(form).is_some() && name(other) == name(form);
        match result.iter_mut().find(same) {
            Some(place) => *place = form,
            None => result.push(form),
        }
    }
    result.join("\n")
}

/// What a form is called: its kind and its `$name`.
fn name(form: &str) -> Option<(&str, &str)> {
    let mut words = form.trim_start_matches('(').split([' ', '\n', '(', ')']);
    let kind = words.next()?;
    words
        .next()
        .filter(|word| word.starts_with('$'))
        .map(|name| (kind, name))
}

/// The parenthesized forms of a text; what stands between them are comments.
fn split(text: &str) -> Vec<&str> {
    let mut forms = Vec::new();
    let (mut depth, mut start) = (0_usize, 0);
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            ';' => skip(&mut characters, |character| character == '\n'),
            '"' => {
                let mut escaped = false;
                skip(&mut characters, |character| {
                    let ends = character == '"' && !escaped;
                    escaped = character == '\\' && !escaped;
                    ends
                });
            }
            '(' => {
                if depth == 0 {
                    start = at;
                }
                depth += 1;
            }
            ')' => {
                depth -= 1;
                if depth == 0 {
                    forms.push(&text[start..=at]);
                }
            }
            _ => {}
        }
    }
    forms
}

/// Goes on behind the first character that ends what is skipped.
fn skip(characters: &mut std::str::CharIndices<'_>, mut ends: impl FnMut(char) -> bool) {
    while characters
        .next()
        .is_some_and(|(_, character)| !ends(character))
    {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_takes_the_place_of_the_one_with_its_name() {
        let honest = ";; (no form)\n(func $a (result i32)\n  (i32.const 1)) (data $a \"\\\")(\")";
        let forms = "(func $b)\n(func $a) ;; )";
        assert_eq!(
            replaced(honest, forms),
            "(func $a)\n(data $a \"\\\")(\")\n(func $b)"
        );
    }
}
