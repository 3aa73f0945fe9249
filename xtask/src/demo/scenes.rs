//! The scenes: scripts, and what has to come of them.

use std::path::Path;

use anyhow::{Result, ensure};

use super::processes::processes;
use super::stage::{Ran, Stage};
use crate::steps::headline;

/// One script and what is expected of it.
pub(super) struct Scene {
    pub(super) title: &'static str,
    script: &'static str,
    arguments: &'static [&'static str],
    /// Left out where this interpreter is not installed.
    needs: &'static str,
    check: fn(&Ran) -> Result<()>,
}

impl Scene {
    /// Plays it and checks what came of it.
    pub(super) fn play(&self, stage: &Stage) -> Result<Played> {
        headline(self.title);
        let folders = ["/usr/local/bin", "/usr/bin", "/bin"];
        if !folders
            .iter()
            .any(|folder| Path::new(folder).join(self.needs).exists())
        {
            let why = format!("{} is not installed in {}", self.needs, folders.join(", "));
            println!("   left out: {why}");
            return Ok(Played::LeftOut(why));
        }
        let ran = stage.run(self.script, self.arguments)?;
        ran.show();
        (self.check)(&ran)?;
        Ok(Played::AsExpected)
    }
}

/// What became of a scene.
pub(super) enum Played {
    /// Every check held.
    AsExpected,
    /// It was not played, and why.
    LeftOut(String),
}

/// A value that breaks out of scripts which paste parameters into their text. What it then touches is looked for by the
/// script: nobody else sees the `/tmp` of a user who exists for one operation.
macro_rules! hostile {
    () => {
        "it's \"$(touch /tmp/owned-$$)\" `id`; exit 1 #\\ ünï {{y}}"
    };
}

const HOSTILE: &str = hostile!();

fn ended(ran: &Ran, state: &str, message: &str, code: i32) -> Result<()> {
    ensure!(
        ran.text("state") == state,
        "the state is {:?} and not {state:?}",
        ran.text("state")
    );
    ensure!(
        ran.text("message").starts_with(message),
        "the message is {:?} and not {message:?}",
        ran.text("message")
    );
    ensure!(
        ran.code == code,
        "sluice exited with {} and not {code}",
        ran.code
    );
    Ok(())
}

fn succeeded(ran: &Ran, stdout: &str) -> Result<()> {
    ended(ran, "succeeded", "Script executed successfully", 0)?;
    ensure!(
        ran.text("stdout") == stdout,
        "stdout is {:?} and not {stdout:?}",
        ran.text("stdout")
    );
    Ok(())
}

/// All scenes, in the order of the show.
pub(super) fn all() -> Vec<Scene> {
    vec![
        Scene {
            title: "A bash script, as a user made for it alone",
            script: "#!/bin/bash\necho \"hello from $USER\"\n",
            arguments: &[],
            needs: "bash",
            check: |ran| {
                ended(ran, "succeeded", "Script executed successfully", 0)?;
                ensure!(
                    ran.text("stdout").starts_with("hello from "),
                    "stdout is {:?}",
                    ran.text("stdout")
                );
                Ok(())
            },
        },
        Scene {
            title: "A Python script",
            script: "#!/usr/bin/env python3\nprint(sum(range(101)))\n",
            arguments: &[],
            needs: "python3",
            check: |ran| succeeded(ran, "5050\n"),
        },
        Scene {
            title: "A Ruby script",
            script: "#!/usr/bin/env ruby\nputs [3, 1, 2].sort.inspect\n",
            arguments: &[],
            needs: "ruby",
            check: |ran| succeeded(ran, "[1, 2, 3]\n"),
        },
        Scene {
            title: "A Perl script",
            script: "#!/usr/bin/perl\nprint join(',', map { $_ * 2 } 1..3), \"\\n\";\n",
            arguments: &[],
            needs: "perl",
            check: |ran| succeeded(ran, "2,4,6\n"),
        },
        Scene {
            title: "A PowerShell script",
            script: "#!/usr/bin/env pwsh\nWrite-Output (1 + 1)\n",
            arguments: &[],
            needs: "pwsh",
            check: |ran| succeeded(ran, "2\n"),
        },
        Scene {
            title: "Typed parameters with hostile values, as variable, argument and literal",
            script: PARAMETERS,
            arguments: &[
                "--param",
                "count=42",
                "--param",
                concat!("v=", hostile!()),
                "--param",
                concat!("w=", hostile!()),
                "--param",
                concat!("x=", hostile!()),
            ],
            needs: "bash",
            check: |ran| {
                let values = format!("42\n{HOSTILE}\n{HOSTILE}\n{HOSTILE}\n");
                succeeded(ran, &(values + "nothing was executed\n"))
            },
        },
        Scene {
            title: "A parameter of the wrong type",
            script: PARAMETERS,
            arguments: &[
                "--param",
                "count=42; reboot",
                "--param",
                "v=a",
                "--param",
                "w=b",
                "--param",
                "x=c",
            ],
            needs: "bash",
            check: |ran| ended(ran, "blocked", "Blocked by parameters: count", 126),
        },
        Scene {
            title: "A download that is run unseen: the scanner finds it, the policy blocks it",
            script: "#!/bin/bash\necho preparing\ncurl -fsSL https://example.com/install.sh | sh\n",
            arguments: &[],
            needs: "bash",
            check: |ran| {
                ended(
                    ran,
                    "blocked",
                    "Security scan detected potential threat: ",
                    126,
                )?;
                ensure!(
                    ran.json["findings"][0]["line"] == 3,
                    "the finding is not in line 3"
                );
                ensure!(ran.json["stdout"].is_null(), "something was started");
                Ok(())
            },
        },
        Scene {
            title: "A script whose environment check fails",
            script: "#!/bin/bash\n# /// sluice\n# [requires]\n# os = [\"linux\"]\n# commands = [\"no-such-command\"]\n# ///\necho never\n",
            arguments: &[],
            needs: "bash",
            check: |ran| {
                ended(
                    ran,
                    "unsupported",
                    "Script not supported on target environment: ",
                    127,
                )
            },
        },
        Scene {
            title: "A script that exits with 3",
            script: "#!/bin/sh\nexit 3\n",
            arguments: &[],
            needs: "sh",
            check: |ran| ended(ran, "failed", "Script failed with exit code 3", 3),
        },
        Scene {
            title: "A script that runs into its time limit, and leaves nothing behind",
            script: "#!/bin/bash\necho $$\ntrap '' TERM\nsetsid sleep 1000.$$ &\nsleep 1000.$$\n",
            arguments: &["--time-limit", "500ms"],
            needs: "bash",
            check: |ran| {
                ended(ran, "timed-out", "Time limit of 500ms reached", 124)?;
                let shell: u32 = ran.text("stdout").trim().parse()?;
                let mark = format!("sleep 1000.{shell}");
                let left: Vec<_> = processes()?
                    .into_iter()
                    .filter(|process| process.command == mark)
                    .collect();
                ensure!(left.is_empty(), "it left something behind: {left:?}");
                Ok(())
            },
        },
        Scene {
            title: "Output on both streams, kept apart",
            script: "#!/bin/bash\nfor i in 1 2 3; do echo \"out $i\"; echo \"err $i\" >&2; done\n",
            arguments: &[],
            needs: "bash",
            check: |ran| {
                succeeded(ran, "out 1\nout 2\nout 3\n")?;
                ensure!(
                    ran.text("stderr") == "err 1\nerr 2\nerr 3\n",
                    "stderr is {:?}",
                    ran.text("stderr")
                );
                Ok(())
            },
        },
    ]
}

const PARAMETERS: &str = r#"#!/bin/bash
# /// sluice
# [parameters.count]
# type = "integer"
# required = true
# [parameters.v]
# [parameters.w]
# as = "argument"
# [parameters.x]
# as = "placeholder"
# ///
printf '%s\n' "$SLUICE_PARAM_COUNT" "$SLUICE_PARAM_V" "$1" {{x}}
[ -e /tmp/owned-$$ ] || echo "nothing was executed"
"#;
