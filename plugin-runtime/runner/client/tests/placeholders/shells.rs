//! Hostile values in every place of a shell script where a placeholder may stand.

use crate::languages::{Language, Place, arrive};

/// In every shell.
const PLACES: &[Place] = &[
    Place::exact("a word", "printf '%s\\0' @"),
    Place::exact("a double-quoted string", "printf '%s\\0' \"@\""),
    Place::exact("a single-quoted string", "printf '%s\\0' '@'"),
    Place::around("a part of a word", "printf '%s\\0' x${a}@$a/", "xA", "A/"),
    Place::around(
        "a part of a string",
        "printf '%s\\0' \"<$a@$a'>\"",
        "<A",
        "A'>",
    ),
    Place::around(
        "a string with escapes",
        "printf '%s\\0' \"\\\"\\\\@\\$\"",
        "\"\\",
        "$",
    ),
    Place::exact("an assignment", "v=@; printf '%s\\0' \"$v\""),
    Place::exact(
        "an assignment of a string",
        "v=\"@\"; printf '%s\\0' \"$v\"",
    ),
    Place::exact(
        "a substitution",
        "v=$(printf '%s.' @); printf '%s\\0' \"${v%.}\"",
    ),
    Place::exact(
        "a substitution in a string",
        "v=\"$(printf '%s.' \"@\")\"; printf '%s\\0' \"${v%.}\"",
    ),
    Place::exact("a subshell", "( printf '%s\\0' @ )"),
    Place::exact(
        "an argument of a function",
        "f() { printf '%s\\0' \"$1\"; }; f @",
    ),
    Place::exact(
        "a list of for",
        "for v in @; do printf '%s\\0' \"$v\"; done",
    ),
    Place::around(
        "a subject and pattern of case",
        "case @ in (x) ;; \"@\") printf 'same\\0' ;; esac",
        "same",
        "",
    )
    .once(),
    Place::around("a test", "[ @ = \"@\" ] && printf 'same\\0'", "same", "").once(),
    Place::around("a comment", ": # @ it's\nprintf 'none\\0'", "none", "").once(),
    Place::around(
        "a quoted here-document",
        "cat <<'E'\n<@>\nE\nprintf '\\0'",
        "<",
        ">\n",
    )
    .refused(),
    Place::around(
        "a here-document",
        "cat <<E\n<@> $a\nE\nprintf '\\0'",
        "<",
        "> A\n",
    )
    .refused(),
    Place::around(
        "a here-document of one value",
        "cat <<E\n@\nE\nprintf '\\0'",
        "",
        "\n",
    )
    .refused(),
    Place::around(
        "a here-document without tabs",
        "cat <<-E\n\t@\n\tE\nprintf '\\0'",
        "",
        "\n",
    )
    .refused(),
];

/// In bash, zsh and ksh.
const EXTENDED: &[Place] = &[
    Place::exact("$'...'", "printf '%s\\0' $'@'"),
    Place::around("a part of $'...'", "printf '%s\\0' $'\\'@\\x41'", "'", "A"),
    Place::around("a here-string", "cat <<< @; printf '\\0'", "", "\n"),
    Place::exact("a list", "l=(@); printf '%s\\0' \"${l[*]}\""),
    Place::exact(
        "a local variable",
        "f() { typeset v=@; printf '%s\\0' \"$v\"; }; f",
    ),
    Place::around(
        "a condition",
        "[[ @ == \"@\" ]] && printf 'same\\0'",
        "same",
        "",
    )
    .once(),
    Place::around(
        "an input of a process",
        "cat <(printf '%s' @); printf '\\0'",
        "",
        "",
    ),
];

fn shell(name: &'static str, places: &[&[Place]]) {
    arrive(&Language {
        interpreter: name,
        prelude: "a=A\n",
        postlude: "",
        marker: "printf '%s\\0' #",
        places: places.concat(),
    });
}

#[test]
fn hostile_values_reach_bash_byte_for_byte_wherever_they_may_stand() {
    shell("bash", &[PLACES, EXTENDED]);
}

#[test]
fn hostile_values_reach_dash_byte_for_byte_wherever_they_may_stand() {
    shell("dash", &[PLACES]);
}

#[test]
fn hostile_values_reach_sh_byte_for_byte_wherever_they_may_stand() {
    shell("sh", &[PLACES]);
}

#[test]
fn hostile_values_reach_zsh_byte_for_byte_wherever_they_may_stand() {
    shell("zsh", &[PLACES, EXTENDED]);
}

#[test]
fn hostile_values_reach_ksh_byte_for_byte_wherever_they_may_stand() {
    shell("ksh", &[PLACES, EXTENDED]);
}
