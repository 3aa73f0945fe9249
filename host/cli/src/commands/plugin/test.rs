//! `sluice plugin test`: a plugin's cases, behind the walls and under the limits that it will have.

use std::path::Path;

use serde::Serialize;
use sluice_gate_client::trial::{self, Tried, TriedAnswer};
use sluice_gate_client::{BindError, BoundGate};
use sluice_gate_types::input::Value;
use sluice_protocol::ending::one_line;

use super::case::Case;
use super::workbench::{Subject, Workbench, WorkbenchError};
use crate::error::Error;
use crate::{exit, output};

pub(super) async fn test(json: bool, plugin: &Path, cases: Option<&Path>) -> Result<u8, Error> {
    let subject = Subject::of(plugin, cases)?;
    let cases = Case::all(&subject.cases)?;
    let workbench = Workbench::new()?;
    let mut gates = Gates::new(&workbench, &subject.component);
    let (mut passed, mut failed) = (0_u32, 0_u32);
    for case in &cases {
        let outcome = run(&mut gates, case).await?;
        if outcome.ok {
            passed += 1;
        } else {
            failed += 1;
        }
        if json {
            output::json_line(&outcome)?;
        } else {
            output::print(&outcome.text())?;
        }
    }
    if !json {
        if let Some(reason) = gates.not_snapshotted() {
            output::print(&format!(
                "note: it is configured anew on every call, which costs time: {}\n",
                one_line(&reason)
            ))?;
        }
        output::print(&format!("{passed} passed, {failed} failed\n"))?;
    }
    Ok(if failed == 0 {
        exit::SUCCESS
    } else {
        exit::NOT_ALL
    })
}

/// What came of a case.
#[derive(Debug, Serialize)]
struct Outcome<'a> {
    case: &'a str,
    ok: bool,
    differences: Vec<String>,
    /// In a word; null where there was no answer.
    verdict: Option<&'static str>,
    fuel: u64,
    /// The most at once, in bytes.
    memory: u64,
    duration_us: u64,
    log: Vec<String>,
}

impl Outcome<'_> {
    fn text(&self) -> String {
        let word = if self.ok { "ok    " } else { "FAILED" };
        let mut text = format!(
            "{word}  {:32}  {}\n",
            one_line(self.case),
            cost(self.fuel, self.memory, self.duration_us)
        );
        for difference in &self.differences {
            text.push_str(&format!("        {}\n", one_line(difference)));
        }
        // What a gate logs helps to find out why, and is noise otherwise.
        for line in self.log.iter().filter(|_| !self.ok) {
            text.push_str(&format!("        log: {}\n", one_line(line)));
        }
        text
    }
}

/// What a call took, for people.
pub(super) fn cost(fuel: u64, memory: u64, duration_us: u64) -> String {
    let fuel = format!("{}.{:03} M fuel", fuel / 1_000_000, fuel / 1_000 % 1_000);
    let time = format!("{}.{:03} ms", duration_us / 1_000, duration_us % 1_000);
    format!(
        "{fuel:>14}  {:>6} KiB  {time:>10}",
        memory.div_ceil(1 << 10)
    )
}

async fn run<'a>(gates: &mut Gates<'_>, case: &'a Case) -> Result<Outcome<'a>, Error> {
    let (answer, cost) = match gates.with(&case.settings).await? {
        Ok(gate) => {
            let Tried {
                answer,
                fuel,
                memory,
                duration_us,
                log,
            } = trial::ask(&gate, &case.trial).await;
            let answer = answer.map_err(|error| error.to_string());
            (answer, (fuel, memory, duration_us, log))
        }
        // Settings that a plugin does not take are an answer to what the case says.
        Err(error) => (Err(error), (0, 0, 0, Vec::new())),
    };
    let differences = case.expected.differences(&answer);
    let (fuel, memory, duration_us, log) = cost;
    Ok(Outcome {
        case: &case.name,
        ok: differences.is_empty(),
        differences,
        verdict: answer.as_ref().ok().map(TriedAnswer::verdict),
        fuel,
        memory,
        duration_us,
        log,
    })
}

/// The settings of cases, and what came of binding the plugin with them: once each.
type BoundWith = (Vec<(String, Value)>, Result<BoundGate, String>);

/// One plugin, bound with the settings of each case.
pub(super) struct Gates<'a> {
    workbench: &'a Workbench,
    component: &'a [u8],
    bound: Vec<BoundWith>,
}

impl<'a> Gates<'a> {
    pub(super) const fn new(workbench: &'a Workbench, component: &'a [u8]) -> Self {
        Self {
            workbench,
            component,
            bound: Vec::new(),
        }
    }

    /// The gate with these settings, or why it does not come up with them.
    ///
    /// # Errors
    ///
    /// It comes up with none: it is refused, or there is no runner.
    pub(super) async fn with(
        &mut self,
        settings: &[(String, Value)],
    ) -> Result<Result<BoundGate, String>, Error> {
        if let Some((_, bound)) = self.bound.iter().find(|(with, _)| with == settings) {
            return Ok(bound.clone());
        }
        let bound = match self.workbench.bind(self.component, settings.to_vec()).await {
            Ok(gate) => Ok(gate),
            Err(error @ (BindError::Settings(_) | BindError::Limits(_) | BindError::Call(_))) => {
                Err(error.to_string())
            }
            Err(error @ (BindError::Refused(_) | BindError::Written(_))) => {
                return Err(WorkbenchError::Refused(error).into());
            }
            Err(BindError::Runner(error) | BindError::Cache(error)) => {
                return Err(WorkbenchError::Runner(error).into());
            }
        };
        self.bound.push((settings.to_vec(), bound.clone()));
        Ok(bound)
    }

    /// Why it is configured on every call, where it is.
    fn not_snapshotted(&self) -> Option<String> {
        let gates = self
            .bound
            .iter()
            .filter_map(|(_, bound)| bound.as_ref().ok());
        let mut reasons = gates.filter_map(BoundGate::not_snapshotted);
        reasons.next().map(str::to_owned)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_shows_what_differs_and_what_the_gate_said_and_obeys_neither() {
        let outcome = Outcome {
            case: "a",
            ok: false,
            differences: vec!["found\x1b[2J".to_owned()],
            verdict: None,
            fuel: 1_234_567,
            memory: 1,
            duration_us: 2_500,
            log: vec!["panicked\nhere".to_owned()],
        };
        let text = outcome.text();
        assert!(text.starts_with("FAILED  a "), "{text}");
        assert!(
            text.contains("1.234 M fuel") && text.contains("1 KiB") && text.contains("2.500 ms"),
            "{text}"
        );
        assert!(
            text.contains("found\u{fffd}[2J") && text.contains("log: panicked here"),
            "{text}"
        );
        let good = Outcome {
            ok: true,
            differences: Vec::new(),
            ..outcome
        };
        assert_eq!(good.text().lines().count(), 1);
    }
}
