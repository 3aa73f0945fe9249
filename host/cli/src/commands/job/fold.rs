//! `sluice job show --fold`: machines with the same result as one.

use std::fmt::Write as _;

use sluice_api_types::group::{Group, Groups};

use crate::command_line::Global;
use crate::error::Error;
use crate::exit;
use crate::host::Client;
use crate::output::{self, Inert};

/// How many lines of an example are printed; `--json` and `sluice job output` have more.
const LINES: usize = 20;

/// Asks the host, and prints its answer.
pub(super) async fn show(global: &Global, job: &str) -> Result<u8, Error> {
    let client = Client::new(global)?;
    let groups: Groups = client.get(&["jobs", job, "groups"])?.json().await?;
    if global.json {
        output::json_line(&groups)?;
    } else {
        output::print(&text(&groups))?;
    }
    Ok(exit::SUCCESS)
}

fn text(groups: &Groups) -> String {
    let mut out = format!("{}\n", summary(groups));
    for group in &groups.groups {
        out.push('\n');
        out.push_str(&describe(group));
    }
    if groups.more_groups > 0 {
        let _ = write!(
            out,
            "\n... and {} more groups with {} operations\n",
            groups.more_groups, groups.more_operations
        );
    }
    out
}

/// `4,981 the same, 12 differ here, 7 here`
fn summary(groups: &Groups) -> String {
    let mut parts = groups.groups.iter().enumerate().map(|(index, group)| {
        let count = grouped(group.count);
        match index {
            0 => format!("{count} the same"),
            1 => format!("{count} differ here"),
            _ => format!("{count} here"),
        }
    });
    let mut text = parts.by_ref().take(10).collect::<Vec<_>>().join(", ");
    let rest = parts.count() as u64 + groups.more_groups;
    if rest > 0 {
        let _ = write!(text, ", and {rest} more groups");
    }
    text
}

/// A number with a comma before each three digits.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

fn describe(group: &Group) -> String {
    let left_out = group
        .count
        .saturating_sub(u64::try_from(group.machines.len()).unwrap_or(u64::MAX));
    let mut machines = group.machines.join(", ");
    if left_out > 0 {
        let _ = write!(machines, " and {} more", grouped(left_out));
    }
    let mut out = output::record(&[
        ("operations", Some(grouped(group.count))),
        ("state", Some(group.state.as_str().to_owned())),
        ("message", group.message.clone()),
        ("exit code", group.exit_code.map(|code| code.to_string())),
        ("machines", Some(machines)),
        ("example", Some(group.example.operation.to_string())),
    ]);
    match &group.diff {
        Some(diff) => {
            out.push_str(&inert(diff));
            if group.diff_truncated {
                out.push_str("... and more differences\n");
            }
        }
        None => {
            for (name, text) in [
                ("stdout", &group.example.stdout),
                ("stderr", &group.example.stderr),
            ] {
                let shown = inert(text);
                for line in shown.lines().take(LINES) {
                    let _ = writeln!(out, "{name}: {line}");
                }
                if group.example.truncated || shown.lines().count() > LINES {
                    let _ = writeln!(out, "{name}: ...");
                }
            }
        }
    }
    out
}

/// Script output is shown, never obeyed; also in a file, in which it stands among the command's own lines.
fn inert(text: &str) -> String {
    Inert::default().push(text.as_bytes())
}

#[cfg(test)]
mod tests {
    use sluice_api_types::group::Example;
    use sluice_protocol::ending::State;
    use sluice_protocol::ids::OperationId;

    use super::*;

    fn group(count: u64, state: State, diff: Option<&str>) -> Group {
        Group {
            count,
            state,
            exit_code: Some(0),
            message: None,
            machines: vec!["web-1".to_owned()],
            example: Example {
                operation: OperationId::generate(),
                machine: "web-1".to_owned(),
                stdout: "\u{1b}[2Jhi\n".to_owned(),
                stderr: String::new(),
                truncated: false,
            },
            diff: diff.map(str::to_owned),
            diff_truncated: false,
        }
    }

    #[test]
    fn the_first_line_says_how_many_are_the_same_and_how_many_differ() {
        let groups = Groups {
            operations: 5000,
            groups: vec![
                group(4981, State::Succeeded, None),
                group(12, State::Failed, Some("-hi\n+ho\n")),
                group(7, State::Blocked, Some("")),
            ],
            more_groups: 0,
            more_operations: 0,
        };
        let text = text(&groups);
        assert!(
            text.starts_with("4,981 the same, 12 differ here, 7 here\n"),
            "{text}"
        );
        assert!(text.contains("web-1 and 4,980 more"), "{text}");
        assert!(text.contains("stdout: \\x1b[2Jhi\n"), "{text}");
        assert!(text.contains("\n-hi\n+ho\n"), "{text}");
        assert_eq!(grouped(1_234_567), "1,234,567");
        assert_eq!(grouped(100), "100");
    }
}
