//! Hostile values in every place of a script where a placeholder may stand.
//!
//! A script has some hundred placeholders, each of its own name and value, and prints a mark and the value for each. What
//! was not misread prints all marks and values in their order, executes none, and has its own text as it was.

use std::collections::BTreeMap;

use crate::interpreter::{is_here, run};
use crate::random::{Random, count};
use crate::template::{rendered, with_text};
use crate::values::hostile;

/// How many values are in one script.
const BATCH: usize = 500;

/// A language, and what to write in it.
pub(crate) struct Language {
    pub(crate) interpreter: &'static str,
    pub(crate) prelude: &'static str,
    pub(crate) postlude: &'static str,
    /// Prints the number at `#` and a NUL.
    pub(crate) marker: &'static str,
    pub(crate) places: Vec<Place>,
}

/// Lines with a placeholder at `@`, which print its value with something around it, and a NUL.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    name: &'static str,
    lines: &'static str,
    before: &'static str,
    behind: &'static str,
    /// The value is not printed.
    is_compared: bool,
    /// Some values are refused there.
    may_refuse: bool,
}

impl Place {
    pub(crate) const fn exact(name: &'static str, lines: &'static str) -> Self {
        Self::around(name, lines, "", "")
    }

    pub(crate) const fn around(
        name: &'static str,
        lines: &'static str,
        before: &'static str,
        behind: &'static str,
    ) -> Self {
        Self {
            name,
            lines,
            before,
            behind,
            is_compared: false,
            may_refuse: false,
        }
    }

    pub(crate) const fn once(mut self) -> Self {
        self.is_compared = true;
        self
    }

    pub(crate) const fn refused(mut self) -> Self {
        self.may_refuse = true;
        self
    }

    fn prints(&self, value: &str) -> String {
        let value = if self.is_compared { "" } else { value };
        format!("{}{value}{}", self.before, self.behind)
    }
}

/// Renders and runs hostile values until there were enough of them.
pub(crate) fn arrive(language: &Language) {
    let interpreter = language.interpreter;
    if !is_here(interpreter) {
        return;
    }
    let mut random = Random::new();
    let mut refused: BTreeMap<&str, usize> = BTreeMap::new();
    let count = count();
    let mut done = 0;
    while done < count {
        let size = BATCH.min(count - done);
        let batch: Vec<(Place, String)> = (0..size)
            .map(|index| {
                let place = language.places[(done + index) % language.places.len()];
                let alone = format!(
                    "{}{}\n",
                    language.prelude,
                    place.lines.replace('@', "{{x}}")
                );
                loop {
                    let value = hostile(&mut random);
                    match with_text(interpreter, &alone, &value) {
                        Ok(_) => return (place, value),
                        Err(reason) => {
                            assert!(place.may_refuse, "{}: {value:?}: {reason}", place.name);
                            *refused.entry(place.name).or_default() += 1;
                        }
                    }
                }
            })
            .collect();
        expect_exact(language, &batch);
        done += size;
    }
    println!("{interpreter}: {done} values arrived; refused: {refused:?}");
    let refused: usize = refused.values().sum();
    assert!(refused < count, "more is refused than arrives");
}

fn expect_exact(language: &Language, batch: &[(Place, String)]) {
    let mut script = language.prelude.to_owned();
    let mut values = Vec::new();
    for (index, (place, value)) in batch.iter().enumerate() {
        let name = format!("p{index}");
        let lines = place.lines.replace('@', &format!("{{{{{name}}}}}"));
        script += &format!(
            "{}\n{lines}\n",
            language.marker.replace('#', &index.to_string())
        );
        values.push((name, value.clone()));
    }
    script += language.postlude;
    let text = rendered(language.interpreter, &script, &values).expect("renders");
    assert!(
        has_own_text(&text, &script),
        "the script's own text was changed"
    );
    let ran = run(language.interpreter, &text);
    assert!(!ran.is_hit, "a value was executed: {}\n{text}", ran.stderr);
    let printed: Vec<&[u8]> = ran.stdout.split(|byte| *byte == 0).collect();
    for (index, (place, value)) in batch.iter().enumerate() {
        let found: Vec<_> = printed
            .iter()
            .skip(2 * index)
            .take(2)
            .map(|text| String::from_utf8_lossy(text).into_owned())
            .collect();
        assert_eq!(
            found,
            [index.to_string(), place.prints(value)],
            "{} in {}: {value:?}; {}",
            language.interpreter,
            place.name,
            ran.stderr
        );
    }
    assert_eq!(
        (printed.len(), ran.code),
        (2 * batch.len() + 1, Some(0)),
        "{}",
        ran.stderr
    );
}

/// Whether `text` is the script with something else at its placeholders.
fn has_own_text(text: &str, script: &str) -> bool {
    let mut pieces = script
        .split("{{p")
        .enumerate()
        .map(|(index, piece)| match index {
            0 => piece,
            _ => piece.split_once("}}").expect("is a placeholder").1,
        });
    let Some(rest) = text.strip_prefix(pieces.next().unwrap_or_default()) else {
        return false;
    };
    let pieces: Vec<&str> = pieces.collect();
    let (last, between) = pieces.split_last().expect("has placeholders");
    let Some(mut rest) = rest.strip_suffix(last) else {
        return false;
    };
    for piece in between {
        let Some(at) = rest.find(piece) else {
            return false;
        };
        rest = &rest[at + piece.len()..];
    }
    true
}

#[test]
fn hostile_values_reach_python_byte_for_byte_wherever_they_may_stand() {
    let places = vec![
        Place::exact("an argument", "out(@)"),
        Place::exact("an assignment", "v = @\nout(v)"),
        Place::exact("a list", "out([1, @][1])"),
        Place::exact("a string", "out('@')"),
        Place::exact("a double-quoted string", "out(\"@\")"),
        Place::exact("a long string", "out('''@''')"),
        Place::exact("a long double-quoted string", "out(\"\"\"@\"\"\")"),
        Place::around(
            "a part of a string",
            "out('it\\'s \"@\" \\\\')",
            "it's \"",
            "\" \\",
        ),
        Place::around(
            "a formatted string",
            "out(f'{1}@{{}}{a!r:>3}')",
            "1",
            "{}'A'",
        ),
        Place::around(
            "a long formatted string",
            "out(f\"\"\"\n@{a}\"\"\")",
            "\n",
            "A",
        ),
        Place::around("a comment", "out('none') # @ it's", "none", "").once(),
        Place::around(
            "a comparison",
            "out('same' if @ == '@' else 'other')",
            "same",
            "",
        )
        .once(),
    ];
    arrive(&Language {
        interpreter: "python3",
        prelude: "import sys\na = 'A'\ndef out(v):\n    sys.stdout.buffer.write(v.encode() + b'\\0')\n",
        postlude: "",
        marker: "out('#')",
        places,
    });
}

#[test]
fn hostile_values_reach_node_byte_for_byte_wherever_they_may_stand() {
    let places = vec![
        Place::exact("an argument", "out(@);"),
        Place::exact("an assignment", "v = @;\nout(v)"),
        Place::exact("a list", "out([1, @][1]);"),
        Place::exact("a property", "out({a: @}.a);"),
        Place::exact("a string", "out('@');"),
        Place::exact("a double-quoted string", "out(\"@\");"),
        Place::exact("a template", "out(`@`);"),
        Place::around(
            "a part of a string",
            "out('it\\'s \"@\" \\\\');",
            "it's \"",
            "\" \\",
        ),
        Place::around(
            "a part of a template",
            "out(`'${a}@${`${a}`}\\``);",
            "'A",
            "A`",
        ),
        Place::around("a comment", "out('none'); // @ it's", "none", "").once(),
        Place::around("a long comment", "out('none'); /* @\n' */", "none", "").once(),
        Place::around(
            "a comparison",
            "out(@ === '@' ? /'/.source : 'other');",
            "'",
            "",
        )
        .once(),
    ];
    arrive(&Language {
        interpreter: "node",
        prelude: "#!/usr/bin/env node\nconst fs = require('fs');\nconst a = 'A';\nlet v, all = '';\nfunction out(v) { all += v + '\\0'; }\n",
        postlude: "fs.writeFileSync(1, all);\n",
        marker: "out('#');",
        places,
    });
}

#[test]
fn hostile_values_reach_perl_byte_for_byte_wherever_they_may_stand() {
    let places = vec![
        Place::exact("an argument", "out(@);"),
        Place::exact("an assignment", "$v = @;\nout($v);"),
        Place::exact("a list", "out((1, @)[1]);"),
        Place::exact("a hash", "%h = (a => @, s => 'it\\'s'); out($h{a});"),
        Place::exact("a word's argument", "print @, \"\\0\";"),
        Place::exact("a string", "out('@');").refused(),
        Place::exact("a double-quoted string", "out(\"@\");"),
        Place::around(
            "a part of a string",
            "out('it\\'s \"@\" \\\\');",
            "it's \"",
            "\" \\",
        )
        .refused(),
        Place::around(
            "a string with variables",
            "out(\"$a1 @ ${a1}\\\"\");",
            "A ",
            " A\"",
        ),
        Place::around("a comment", "out('none'); # @ it's", "none", "").once(),
        Place::around(
            "documentation",
            "out('none');\n\n=pod\n\n@'\n\n=cut\n",
            "none",
            "",
        )
        .once(),
        Place::exact("behind an expression", "out($a1 =~ m{'} ? 'x' : @);"),
        Place::around("a comparison", "out('same') if @ eq \"@\";", "same", "").once(),
    ];
    arrive(&Language {
        interpreter: "perl",
        prelude: "use strict;\nuse warnings;\nmy $a1 = 'A';\nmy ($v, %h);\nsub out { print $_[0], \"\\0\"; }\n",
        postlude: "",
        marker: "out('#');",
        places,
    });
}

#[test]
fn hostile_values_reach_ruby_byte_for_byte_wherever_they_may_stand() {
    let places = vec![
        Place::exact("an argument", "out(@)"),
        Place::exact("an assignment", "v = @\nout(v)"),
        Place::exact("a list", "out([1, @][1])"),
        Place::exact("a hash", "out({ 'a' => @, b: @ }[:b])"),
        Place::exact("a word's argument", "print @, \"\\0\""),
        Place::exact("a string", "out('@')").refused(),
        Place::exact("a double-quoted string", "out(\"@\")"),
        Place::around(
            "a part of a string",
            "out('it\\'s \"@\" \\\\')",
            "it's \"",
            "\" \\",
        )
        .refused(),
        Place::around(
            "an interpolated string",
            "out(\"#{a}@#{'}'}\\\"\")",
            "A",
            "}\"",
        ),
        Place::around("a comment", "out('none') # @ it's", "none", "").once(),
        Place::around(
            "a long comment",
            "out('none')\n=begin\n@'\n=end\n",
            "none",
            "",
        )
        .once(),
        Place::exact("behind an expression", "out(a =~ /'/ ? 'x' : @)"),
        Place::around("a comparison", "out('same') if @ == \"@\"", "same", "").once(),
    ];
    arrive(&Language {
        interpreter: "ruby",
        prelude: "a = 'A'\ndef out(v)\n  print v, \"\\0\"\nend\n",
        postlude: "",
        marker: "out('#')",
        places,
    });
}

#[test]
fn hostile_values_reach_powershell_nowhere() {
    let refused = with_text("pwsh", "Write-Output '{{x}}'\n", "v");
    assert!(refused.expect_err("is refused").contains("powershell"));
    // Its reader is to be written where it can be tried.
    is_here("pwsh");
}
