//! Shell scripts that nobody would write: whatever is taken for understood in them is read by the shells in the same way,
//! so that a value changes neither what runs nor where it stands.

use crate::interpreter::{is_here, run};
use crate::random::{Random, count};
use crate::template::with_text;

const VALUES: &[&str] = &[
    "$(>canary)",
    "`>canary`",
    ";>canary;",
    "\n>canary\n",
    "' ; >canary; '",
    "\" ; >canary; \"",
    "$(>canary)' $(>canary) '",
    "E\n>canary\n",
    "\\$(>canary)",
    "a[$(>canary)]",
    "'\"'\"'$(>canary)",
    "}>canary;$(>canary)",
    "|>canary;",
    "&>canary ",
    "#\n>canary\n",
    "'",
    "\"",
    "\\",
    "{{x}}",
    "*",
    "(>canary)",
    "{>canary;}",
    "'$(>canary)",
    "\"$(>canary)",
    "\\`>canary`",
];

/// Writes scripts.
struct Writer {
    random: Random,
}

impl Writer {
    fn one_of(&mut self, choices: &[&str]) -> String {
        self.random.pick(choices).to_owned()
    }

    fn words(&mut self, depth: usize) -> String {
        let count = [1, 1, 1, 2, 3][self.random.below(5)];
        (0..count).map(|_| self.piece(depth)).collect()
    }

    fn piece(&mut self, depth: usize) -> String {
        let kinds = if depth > 0 { 20 } else { 9 };
        match self.random.below(kinds) {
            0..3 => self.one_of(&[
                "a", "b1", "x-y", "/p", "1", "#", "=", "a=b", "~", "%", "@", ":", ",", "!",
            ]),
            3..5 => "{{x}}".to_owned(),
            5 => {
                let inner = self.one_of(&[
                    "",
                    "it",
                    "$(x)",
                    "\"",
                    "\\",
                    "#",
                    "`",
                    "{{x}}",
                    "a {{x}} b",
                    "${{x}}",
                ]);
                format!("'{inner}'")
            }
            6 => self.one_of(&[
                "\\\"", "\\'", "\\$", "\\\\", "\\`", "\\(", "\\)", "\\#", "\\ ", "\\\n", "\\{{x}}",
            ]),
            7 => self.one_of(&[
                "$a", "$1", "$#", "$@", "$", "${a}", "${#a}", "$?", "$-", "$a{{x}}",
            ]),
            8 => self.one_of(&[
                "$'a'",
                "$'\\''",
                "$'\\n'",
                "$'{{x}}'",
                "$\"a{{x}}\"",
                "${{x}}",
            ]),
            9..13 => {
                let count = self.random.below(4);
                let inner: String = (0..count).map(|_| self.quoted(depth)).collect();
                format!("\"{inner}\"")
            }
            13 => format!("$({})", self.commands(depth - 1)),
            14 => {
                let inner = self.one_of(&[
                    "echo a",
                    "echo 'a'",
                    "echo \"a\"",
                    "echo a#b",
                    "echo {{x}}",
                    "echo \\\"a\\\"",
                    "echo #",
                ]);
                format!("`{inner}`")
            }
            15 => {
                let name = self.one_of(&["a", "b", "u"]);
                let operator = self.one_of(&[":-", ":=", "#", "##", "%", "%%", "/", ":+"]);
                let word = self.one_of(&[
                    "x",
                    "'x'",
                    "\"x\"",
                    "$a",
                    "\\}",
                    "it's",
                    "{",
                    "}",
                    "{{x}}",
                    "$(echo a)",
                    "#",
                    "\"}\"",
                    "'}'",
                ]);
                format!("${{{name}{operator}{word}}}")
            }
            16 => {
                let inner = self.one_of(&[
                    "1+2", "1 << 2", "$a", "(1)", "a[0]", "16#ff", "{{x}}", "1)", "\"1\"", "1 + (2",
                ]);
                format!("$(({inner}))")
            }
            17 => self.one_of(&[
                "<(echo a)",
                "<<<{{x}}",
                "<<< \"{{x}}\"",
                "2>&1",
                ">/dev/null",
                "</dev/null",
                "&>/dev/null",
                ">&2",
                ">&{{x}}",
                "$( ( echo a ) )",
            ]),
            18 => self.one_of(&[
                "(",
                "*(",
                "@(a|b)",
                "a(b)",
                "[a]",
                "[[",
                "]]",
                "[a b]",
                "{a,{{x}}}",
                "$[1+2]",
                "case",
                "esac",
                "in",
                "fi",
                "}",
                "{",
                "do",
                "a[1]",
                "a[$a]",
                "a[\"x y\"]",
            ]),
            _ => format!("\"$({})\"", self.commands(depth - 1)),
        }
    }

    fn quoted(&mut self, depth: usize) -> String {
        if self.random.below(10) < 7 || depth == 0 {
            return self.one_of(&[
                "t", "'", " ", "#", "\\\"", "\\\\", "\\$", "{{x}}", "{{x}}", "(", ")", "$a", "\n",
            ]);
        }
        match self.random.below(4) {
            0 => format!("$({})", self.commands(depth - 1)),
            1 => self.one_of(&[
                "${a:-x}",
                "$((1+1))",
                "`echo a`",
                "${a#\"x\"}",
                "${a:-it's}",
                "\"",
            ]),
            _ => self.one_of(&[
                "$(echo ')')",
                "$(echo \"{{x}}\")",
                "$(case a in a) echo \"{{x}}\";; esac)",
                "$(case a in (a) echo \"{{x}}\";; esac)",
            ]),
        }
    }

    fn document(&mut self) -> String {
        let delimiter = self.one_of(&["E", "E", "EOF", "\"E\"", "'E'", "\\E", "E.F"]);
        let plain = delimiter.trim_matches(['"', '\'', '\\']).to_owned();
        let strips = self.one_of(&["", "", "-"]);
        let behind = self.one_of(&["", "", " ; echo after", " | cat", " >/dev/null"]);
        let mut text = format!("cat <<{strips}{delimiter}{behind}\n");
        for _ in 0..self.random.below(4) {
            text += &self.one_of(&[
                "t",
                "it's",
                "\"",
                " #",
                "$a",
                "{{x}}",
                "a {{x}} b",
                "\\",
                "\\{{x}}",
                "${{x}}",
                "$(echo a)",
                "`echo a`",
                "\t{{x}}",
                "E ",
                " E",
                "\tE",
                "${a:-x}",
                "$a{{x}}",
                "x\\",
                "\"{{x}}\"",
                "$(echo {{x}})",
            ]);
            text.push('\n');
        }
        if strips == "-" {
            text.push('\t');
        }
        text + &plain + "\n"
    }

    fn command(&mut self, depth: usize) -> String {
        let kinds = if depth > 0 { 24 } else { 6 };
        let inner = depth.saturating_sub(1);
        match self.random.below(kinds) {
            0..4 => format!("printf '%s\\n' {}", self.words(inner)),
            4 => format!("v={}", self.words(inner)),
            5 => {
                let comment = self.one_of(&[
                    "", " # c", " # it's", " # \"", " # {{x}}", " # (", " # )", " # \\",
                ]);
                format!(": {}{comment}", self.words(inner))
            }
            6 => format!("if true; then {}; fi", self.commands(inner)),
            7 => {
                let parenthesis = self.one_of(&["", "("]);
                let pattern = self.one_of(&["a", "*", "a|b", "{{x}}", "\"x\"", "esac"]);
                let end = self.one_of(&[" ;;", "", " ;;\n b) : ;;"]);
                format!(
                    "case {} in {parenthesis}{pattern}) {}{end}\nesac",
                    self.words(inner),
                    self.commands(inner)
                )
            }
            8 => format!(
                "for i in {} {}; do {}; done",
                self.words(inner),
                self.words(inner),
                self.commands(inner)
            ),
            9 => format!("( {} )", self.commands(inner)),
            10 => format!("{{ {}; }}", self.commands(inner)),
            11 | 12 => self.document(),
            13 => format!("f() {{ {}; }}\nf", self.commands(inner)),
            14 => {
                let operator = self.one_of(&["==", "!=", "=~", "<", "-eq", "&&"]);
                format!(
                    "[[ {} {operator} {} ]]",
                    self.words(inner),
                    self.words(inner)
                )
            }
            15 => {
                let operator = self.one_of(&["=", "!=", "-eq"]);
                format!("[ {} {operator} {} ]", self.words(inner), self.words(inner))
            }
            16 => format!("a=({} {})", self.words(inner), self.words(inner)),
            17 => {
                let name = self.one_of(&[
                    "eval",
                    "let",
                    "trap",
                    "declare -i n=",
                    "typeset x=",
                    "export q=",
                    "exit",
                    "return",
                    "test -v",
                    "read",
                    "unset",
                    "bash -c",
                    "command eval",
                    "set --",
                    "shift",
                    "time",
                    "!",
                    "exec",
                ]);
                format!("{name} {}", self.words(inner))
            }
            // It ends even where a stray sign makes its condition true.
            18 => format!("while false; do {}; break; done", self.commands(inner)),
            19 => self.one_of(&["(( 1+1 ))", "(( a=1 ))", "(( {{x}} ))"]),
            20 => format!("{} {}", self.words(inner), self.words(inner)),
            21 => format!("v={} cat </dev/null", self.words(inner)),
            22 => self.one_of(&[
                "\n# it's\n",
                "\n# \"\n",
                "\n# {{x}}\n",
                "\n# `\n",
                "\n# $(\n",
                "\n# \\\n",
            ]),
            _ => format!("echo {} \\\n {}", self.words(inner), self.words(inner)),
        }
    }

    fn commands(&mut self, depth: usize) -> String {
        let mut text = self.command(depth);
        if self.random.below(3) == 0 {
            text += &self.one_of(&["; ", "\n", " && "]);
            text += &self.command(depth);
        }
        text
    }

    /// A script, a third of them with something in it that does not belong there.
    fn script(&mut self) -> String {
        let mut text = "a=A\n".to_owned();
        for _ in 0..=self.random.below(3) {
            text += &self.command(3);
            text.push('\n');
        }
        text += "printf '%s\\n' {{x}}\n";
        if self.random.below(3) == 0 {
            let at = self.random.below(text.len());
            let at = (at..=text.len())
                .find(|at| text.is_char_boundary(*at))
                .expect("ends");
            let noise = self.one_of(&[
                "'", "\"", "`", "$(", ")", "{", "}", "\\", "#", ";", "&", "|", "<", ">", "\n", " ",
                "=", "[", "]", "!", "${", "case ", "esac", "))", ";;", " in ", "<<E\n",
            ]);
            text.insert_str(at, &noise);
        }
        text
    }
}

fn expect_harmless(interpreter: &str) {
    if !is_here(interpreter) {
        return;
    }
    let mut writer = Writer {
        random: Random::new(),
    };
    let (mut understood, mut refused) = (0, 0);
    for _ in 0..count() / 10 {
        let script = writer.script();
        let value = writer.one_of(VALUES);
        let Ok(text) = with_text(interpreter, &script, &value) else {
            refused += 1;
            continue;
        };
        understood += 1;
        let ran = run(interpreter, &text);
        assert!(
            !ran.is_hit,
            "{interpreter} executed {value:?}:\n{script}\n---\n{text}"
        );
    }
    println!("{interpreter}: {understood} scripts understood, {refused} refused");
    assert!(understood * 10 > refused, "hardly anything is understood");
}

#[test]
fn no_script_makes_bash_execute_a_value() {
    expect_harmless("bash");
}

#[test]
fn no_script_makes_dash_execute_a_value() {
    expect_harmless("dash");
}

#[test]
fn no_script_makes_zsh_execute_a_value() {
    expect_harmless("zsh");
}

#[test]
fn no_script_makes_ksh_execute_a_value() {
    expect_harmless("ksh");
}
