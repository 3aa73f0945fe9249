//! Scripts in which a literal in the wrong place, or a word that is evaluated again, would execute its value.

use crate::interpreter::{is_here, run};
use crate::template::with_text;

/// Each executes something where it is read as code, unquoted, in double quotes, or as an arithmetic expression.
const HOSTILE: &[&str] = &[
    "$(>canary)",
    "`>canary`",
    "a[$(>canary)]",
    "a[`>canary`]=1",
    "path[$(>canary)]",
    "($(>canary))",
    "; >canary;",
    ">canary",
    "\n>canary\n",
    "' ; >canary; '",
    "\" ; >canary; \"",
    "$(>canary)' $(>canary) '",
];

const SHELLS: [&str; 3] = ["bash", "dash", "zsh"];

/// Refused, or harmless: each body with each value.
fn expect_harmless(interpreters: &[&str], bodies: &[&str], values: &[&str]) {
    let mut executed = Vec::new();
    for interpreter in interpreters.iter().filter(|name| is_here(name)) {
        for body in bodies {
            for value in values {
                if let Ok(script) = with_text(interpreter, body, value)
                    && run(interpreter, &script).is_hit
                {
                    executed.push((interpreter, body, value));
                }
            }
        }
    }
    assert!(executed.is_empty(), "executed: {executed:#?}");
}

#[test]
fn no_value_is_executed_because_a_shell_script_was_misread() {
    let bodies = [
        // The parenthesis of a pattern ends no substitution.
        "os=linux\nresult=\"$(case \"$os\" in linux) echo \"linux {{x}}\" ;; esac)\"\n",
        "r=$(case a in a) echo '1' ;; esac; echo \"{{x}}\")\n",
        // dash ends this string one quote earlier than bash.
        ": $'\\'' {{x}} ' \\'\n",
        // A single quote is plain in an expansion within double quotes.
        ": \"${y:-it's}\" '}\" {{x}} ' \\'\n",
        // The line goes on, so this is no comment.
        ": a\\\n#'\n: {{x}} ' \\'\n",
        // The document is inside of the substitution.
        "r=\"$(cat <<E\n\"\nE\n)\" ; : \" {{x}} \"\n",
        ": $((1 << 2))\n2\n{{x}}\n",
        // A pattern, and no subshell.
        "shopt -s extglob\n!(a #'\n)\necho {{x}} # ')\n",
        "shopt -s extglob\n@()#'\n:; echo {{x}} # '\n",
        // What a word of the script stands for.
        "shopt -s expand_aliases\nBASH_ALIASES[q]='echo \"'\nq {{x}} #\"\n",
        "shopt -s expand_aliases\ndeclare -A 'BASH_ALIASES[q]=echo \"'\nq {{x}} #\"\n",
        "shopt -s expand_aliases\n: ${BASH_ALIASES[q]:=echo \\\"}\nq {{x}} #\"\n",
        "shopt -s expand_aliases\nprintf -v 'BASH_ALIASES[q]' %s 'echo \"'\nq {{x}} #\"\n",
        "aliases[q]='echo \"'\nq {{x}} #\"\n",
        "typeset -A aliases=(q 'echo \"')\nq {{x}} #\"\n",
        "aliases=(q 'echo \"')\nq {{x}} #\"\n",
    ];
    expect_harmless(&SHELLS, &bodies, HOSTILE);
}

#[test]
fn no_value_is_executed_because_the_shell_evaluates_a_word_again() {
    let bodies = [
        "eval {{x}}\n",
        "eval echo {{x}}\n",
        "trap {{x}} EXIT\n",
        "let a={{x}}\n",
        "let {{x}}\n",
        "declare -i n={{x}}\n",
        "declare -i n\nn={{x}}\n",
        "f() { n={{x}}; }\nalias q=:\ndeclare -i n\nf\n",
        "f() { local -i n; n={{x}}; }\nf\n",
        "typeset -n n={{x}}\necho $n\n",
        "[[ {{x}} -eq 1 ]]\n",
        "[[ 1 -lt {{x}} ]]\n",
        "[[ -v {{x}} ]]\n",
        "test -v {{x}}\n",
        "a[{{x}}]=1\n",
        "a=([{{x}}]=1)\n",
        "unset {{x}}\n",
        "read {{x}} <<< v\n",
        "printf -v {{x}} %s v\n",
        "printf %d {{x}}\n",
        "declare {{x}}\n",
        // bash expands what it copies a descriptor to twice.
        "echo v >&{{x}}\n",
        // bash reads a list in a substitution twice.
        "a=A\nprintf '%s\\n' \"$(printf '%s\\n' $a {{x}}@{{x}}\na=('\"' {{x}}))\"~\n",
        "sed -n \"s/a/{{x}}/e\" <<E\na\nE\n",
        "ssh localhost {{x}}\n",
        "cat <<E | sh\n{{x}}\nE\n",
        "sh <<'E'\n{{x}}\nE\n",
        "sh -c \"echo {{x}}\"\n",
        "env sh -c 'echo {{x}}'\n",
        "echo {{x}} | sh\n",
        "command eval {{x}}\n",
        "(( n = 1 ))\nn={{x}}\n",
        ": $(( n = 1 ))\nn={{x}}\n",
        "let n=1\nn={{x}}\n",
        "for (( n = 0; n < 1; n++ )); do :; done\nn={{x}}\n",
        "l=(1)\nl[n=1]=x\nn={{x}}\n",
        "l=(1)\n: $l[n=1]\nn={{x}}\n",
        "l=(1)\n: ${l[n=1]}\nn={{x}}\n",
        "[[ n=1 -eq 1 ]]\nn={{x}}\n",
        "v=(1)\ntypeset v={{x}}\n",
        "typeset -a v\ntypeset v={{x}}\n",
        "for i in a { eval {{x}} }\n",
        "functions=(f {{x}})\nf\n",
        "setopt aliases; aliases[q]={{x}}\nq\n",
        "c=eval\n$c {{x}}\n",
        "alias q='echo \"'\nq {{x}}\"\n",
        "emulate csh\nsetopt cshjunkiequotes\necho \"\n{{x}}\"\n",
        "typeset -A m\nm[{{x}}]=1\n",
        "cat <<E\n\\{{x}}\nE\n",
        "cat <<E\n${{x}}\nE\n",
        "cat <<E\n$a{{x}}\nE\n",
        "cat <<E\n$(echo {{x}})\nE\n",
        "cat <<E\n{{x}}\\\nE\nE\n",
        "make -f /dev/null -n A={{x}}\n",
        "export {{x}}\n",
        "return {{x}}\n",
        "exit {{x}}\n",
        "PS4={{x}}\nset -x\n:\n",
        "SECONDS={{x}}\n",
        "bash -c {{x}}\n",
        ". {{x}}\n",
        "{{x}}\n",
        "echo ${{x}}\n",
        "echo \\{{x}}\n",
        // A reserved word follows `time`.
        "time [[ {{x}} -gt 5 ]]\n",
        "time -p [[ {{x}} -gt 5 ]]\n",
        "time -- [[ {{x}} -gt 5 ]]\n",
        "time if RANDOM={{x}}; then :; fi\n",
        "time { RANDOM={{x}}; }\n",
        "time ! eval {{x}}\n",
        "time ! RANDOM={{x}}\n",
        ": | time [[ {{x}} -gt 5 ]]\n",
        "command printf -v {{x}} %s foo\n",
        "builtin printf -v {{x}} %s foo\n",
        "command -p printf %d {{x}}\n",
        "builtin test -v {{x}}\n",
        "builtin set -o histexpand\nset -o history\necho a\necho \"!{{x}}\"\n",
        "source <(echo {{x}})\n",
        ". <(echo {{x}})\n",
        "bash <(echo {{x}})\n",
        "bash < <(echo {{x}})\n",
        "cat < <(echo {{x}}) | bash\n",
        "echo {{x}} > >(bash)\nwait; sleep 0.1\n",
        "echo {{x}} | tee >(bash)\nwait; sleep 0.1\n",
        "{ echo {{x}}; } | sh\n",
        "{ echo {{x}}; echo; } | { cat; } | sh\n",
        "echo {{x}} | { cat; } | sh\n",
        "echo {{x}} | { :; sh; }\n",
        "echo {{x}} | if :; then sh; fi\n",
        "echo {{x}} | ( :; sh )\n",
        "{ :; sh; } <<E\n{{x}}\nE\n",
        "while read -r l; do echo \"$l\"; done <<EOF | sh\n{{x}}\nEOF\n",
        "while read -r l; do echo \"$l\"; done <<'EOF' | sh\n{{x}}\nEOF\n",
        "for i in {{x}}; do echo \"$i\"; done | sh\n",
        "for i in a; do echo {{x}}; echo; done | bash\n",
        "if :; then echo {{x}}; fi | bash\n",
        "case a in a) echo {{x}};; esac | bash\n",
        "case {{x}} in *) echo {{x}};; esac | bash\n",
        "{ cat <<'E'; } | sh\n{{x}}\nE\n",
        "( echo {{x}} ) | bash\n",
        "( echo a; echo {{x}}; ) | bash\n",
        "SHELL=sh; $SHELL <<'EOF'\n{{x}}\nEOF\n",
        "SUDO=env; $SUDO bash <<'EOF'\n{{x}}\nEOF\n",
        "SUDO=env; env $SUDO sh <<'EOF'\n{{x}}\nEOF\n",
        "SH=sh; env -i $SH <<'EOF'\n{{x}}\nEOF\n",
        "SH=sh; echo {{x}} | $SH\n",
        "run() { shift; \"$@\"; }\nrun a sh <<'EOF'\n{{x}}\nEOF\n",
        "eval \"$(cat)\" <<'EOF'\n{{x}}\nEOF\n",
        "n=$(( $(echo {{x}}) / 60 ))\n",
        "(( n = $(echo {{x}}) ))\n",
        "n=$(( $(echo \"{{x}}\") / 60 ))\n",
        "set a b\necho $@[{{x}}]\n",
        "set a b\necho \"$@[{{x}}]\"\n",
        "set a b\necho $*[{{x}}]\n",
        "set a b\necho \"$#[{{x}}]\" $?[{{x}}] $1[{{x}}]\n",
        "l=(a b)\necho $#l[{{x}}]\n",
        "l=(a b)\necho $l[1][{{x}}]\n",
        "l=(a b)\necho ${l}[{{x}}] \"${l}[{{x}}]\" $(echo a)[{{x}}]\n",
    ];
    expect_harmless(&SHELLS, &bodies, HOSTILE);
}

#[test]
fn no_value_is_executed_because_a_python_script_was_misread() {
    let values = [
        "{open('canary', 'w')}",
        "'+str(open('canary', 'w'))+'",
        "\"+str(open('canary', 'w'))+\"",
        "open('canary', 'w')",
        "\nopen('canary', 'w')\n",
        "\\' + open('canary', 'w') #",
        "touch canary",
        "; touch canary",
        "<_io.TextIOWrapper name='canary' mode='w' encoding='UTF-8'>",
        "+ACc-+open(+ACc-canary+ACc-,+ACc-w+ACc-)#",
    ];
    let bodies = [
        "p = f{{x}}\n",
        "p = f\"{ {{x}} }\"\n",
        "p = f'{ {{x}} }'\n",
        "p = f'{{x}}'\n",
        "p = f'{{{x}}}'\n",
        "p = f'{1:{{x}}}'\n",
        "d = {'k': 1}\np = f'{d[\"k\"]}{{x}}'\n",
        "p = rf'{{x}}'\n",
        "p = '\\{{x}}'\n",
        "p = r'\\{{x}}'\n",
        "eval({{x}})\n",
        "eval('{{x}}')\n",
        "exec(\n  {{x}})\n",
        "import os\nos.system({{x}})\n",
        "import os\nos.system('echo {{x}}')\n",
        "import subprocess\nsubprocess.run({{x}}, shell=True)\n",
        "import subprocess\nsubprocess.run('echo {{x}}', shell=True)\n",
        "__import__({{x}})\n",
        "exec(compile({{x}}, 'a', 'exec'))\n",
        "# \r{{x}}\n",
        "# coding: utf-7\np = '{{x}}'\n",
        "# about coding, coding: utf-7\np = '{{x}}'\n",
        "#!/usr/bin/python3\r\n# coding: utf-7\r\np = '{{x}}'\n",
        "client.exec_command({{x}})\n",
    ];
    expect_harmless(&["python3"], &bodies, &values);
}

#[test]
fn no_value_is_executed_because_a_perl_script_was_misread() {
    let values = [
        "$(>canary)",
        "`>canary`",
        "system('>canary')",
        "\";system('>canary');\"",
        "';system('>canary');'",
        "@{[system('>canary')]}",
        "${\\system('>canary')}",
        "|>canary",
        "touch canary|",
        "{system('>canary')}",
        "[system('>canary')]",
        "/;system('>canary');/",
        "(?{system('>canary')})",
    ];
    let bodies = [
        "print \"$h[{{x}}]\";",
        "print \"$h{ {{x}} }\";",
        "print \"@{[ {{x}} ]}\";",
        "print \"${\\ {{x}} }\";",
        "system {{x}};",
        "system(\"echo {{x}}\");",
        "system(map { $_ } \"{{x}}\");",
        "exec \"{{x}}\";",
        "`{{x}}`;",
        "qx{ {{x}} };",
        "eval {{x}};",
        "eval \"{{x}}\";",
        "open(F, {{x}});",
        "open F, \"{{x}}\"; <F>;",
        "print <<E;\n{{x}}\nE\n",
        "$_ = 'a'; s/a/{{x}}/e;",
        "$_ = 'a'; s/a/{{x}}/ee;",
        "'a' =~ m{{{x}}};",
        "print q'{{x}}';",
        "print q;{{x}};;",
        "$y = foo / 2; $z = '/{{x}}';",
        "$x = isn't; print ' {{x}}';",
        "do {{x}};",
        "require {{x}};",
        "&{\"{{x}}\"}();",
        "print \"a\\{{x}}\";",
        "print \"$a{{x}}\";",
        "print \"$x->[ {{x}} ]\";",
        "print $' . {{x}}; '",
        "{ q}\"}; print {{x}}; }#\"",
        "%h = (q\n=>\"=, {{x}}, \"",
        "$a = 1;\n=cut1\n'\n=cut\n\n=cut\nprint ' {{x}}';",
        "\n=cut\n'\n=cut\n';print {{x}}; #'",
        "$n = 1; print \"k='$n'{{x}}\";",
        "print \"$#{{{x}}} $-[{{x}}] $+{{{x}}}\";",
    ];
    expect_harmless(&["perl"], &bodies, &values);
}

#[test]
fn no_value_is_executed_because_a_ruby_script_was_misread() {
    let values = [
        "$(>canary)",
        "`>canary`",
        "system('>canary')",
        "\";system('>canary');\"",
        "';system('>canary');'",
        "#{system('>canary')}",
        "|>canary",
        "/;system('>canary');/",
        "\n=end\nsystem('>canary')\n=begin\n",
    ];
    let bodies = [
        "system {{x}}",
        "system(\"echo {{x}}\")",
        "system(\n\"sh\",\n\"-c\",\n\"{{x}}\")",
        "`{{x}}`",
        "%x({{x}})",
        "eval {{x}}",
        "eval \"{{x}}\"",
        "puts \"#{ {{x}} }\"",
        "puts \"#{{x}}\"",
        "open({{x}}).read",
        "IO.popen \"{{x}}\"",
        "send({{x}}, '>canary')",
        "puts <<E\n{{x}}\nE\n",
        "puts <<~E\n{{x}}\nE\n",
        "x = foo /2; '/{{x}}'",
        "puts ?' + '{{x}}'",
        "puts :'{{x}}'",
        "puts %q({{x}})",
        "puts %({{x}})",
        "puts /#{{{x}}}/",
        "puts \"\\{{x}}\"",
        "puts \"#$a{{x}}\"",
        "exec({{x}})",
        "trap('EXIT', \"{{x}}\")",
        "# encoding: shift_jis\nputs '{{x}}'",
        " # coding: shift_jis\nputs '{{x}}'",
        "# CODING: shift_jis\nputs '{{x}}'",
        "#!/usr/bin/ruby -Ks\nputs '{{x}}'",
        "=begin\n=end.\n'\n=end\n'\nputs {{x}} #'",
        "def f\n next / \"/; puts {{x}} #\"\nend",
        "[1].each { next / \"/; puts {{x}} #\"/ }",
    ];
    expect_harmless(&["ruby"], &bodies, &values);
}

#[test]
fn no_value_is_executed_because_a_script_of_node_was_misread() {
    let values = [
        "';require('fs').writeFileSync('canary','');'",
        "\";require('fs').writeFileSync('canary','');\"",
        "`;require('fs').writeFileSync('canary','');`",
        "${require('fs').writeFileSync('canary','')}",
        "/;require('fs').writeFileSync('canary','');/",
        "*/require('fs').writeFileSync('canary','')/*",
        "\u{2028}require('fs').writeFileSync('canary','')//",
        "require('fs').writeFileSync('canary','')",
        ">canary",
    ];
    let bodies = [
        "eval({{x}})",
        "eval('{{x}}')",
        "new Function({{x}})()",
        "`${ {{x}} }`",
        "`${{x}}`",
        "String.raw`{{x}}`",
        "require('child_process').execSync({{x}})",
        "require('child_process').execSync('echo {{x}}')",
        "require('child_process').spawnSync('{{x}}', {shell: true})",
        "x = a++ /2; '/{{x}}'",
        "let y = {} / 1; '/{{x}}'",
        "let of = 4; x = of / 2; '/{{x}}/'",
        "<!-- '\nconsole.log({{x}}) // '",
        "'a\\{{x}}'",
        "`\\{{x}}`",
        "x\n{{x}}",
        "require({{x}})",
        "import({{x}})",
        "// \u{2028} '{{x}}'",
        "require('vm').runInThisContext({{x}})",
        "const $ = (s, ...v) => require('child_process').execSync(String.raw(s, ...v));\n$`{{x}}`",
        "const sql$ = String.raw; sql$`{{x}}`",
        "const a$ = 4; const b = a$ / 2 + \"/\" + {{x}};",
        "new /\"/.constructor(); f({{x}}); //\"",
        "class A { #if = 4; f() { return this.#if / 2 + '/' + {{x}}; } }",
        "const a = { return: 4 }; a. return / 2 + '/' + {{x}};",
        "const execAsync = require('child_process').execSync; execAsync(`{{x}}`)",
        "eval?.({{x}})",
    ];
    expect_harmless(&["node"], &bodies, &values);
}
