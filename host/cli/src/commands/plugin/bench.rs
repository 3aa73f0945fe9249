//! `sluice plugin bench`: what an answer costs, again and again.

use std::path::Path;

use sluice_gate_client::trial::{self, Tried};
use sluice_protocol::ending::one_line;

use super::case::Case;
use super::test::{Gates, cost};
use super::workbench::{Subject, Workbench};
use crate::error::Error;
use crate::{exit, output};

pub(super) async fn bench(
    json: bool,
    plugin: &Path,
    cases: Option<&Path>,
    calls: u32,
) -> Result<u8, Error> {
    let subject = Subject::of(plugin, cases)?;
    let cases = Case::all(&subject.cases)?;
    let workbench = Workbench::new()?;
    let mut gates = Gates::new(&workbench, &subject.component);
    let mut code = exit::SUCCESS;
    for case in &cases {
        let measured = match gates.with(&case.settings).await? {
            Ok(gate) => {
                let mut tried = Vec::new();
                for _ in 0..calls {
                    tried.push(trial::ask(&gate, &case.trial).await);
                }
                Measured::of(&tried)
            }
            Err(error) => Err(error),
        };
        match measured {
            Ok(measured) if json => output::json_line(&measured.json(&case.name, calls))?,
            Ok(measured) => output::print(&measured.text(&case.name))?,
            // What gives no answer cannot be measured; the cases after it can.
            Err(error) => {
                code = exit::NOT_ALL;
                output::complain(&format!(
                    "{}: no answer: {}",
                    one_line(&case.name),
                    one_line(&error)
                ));
            }
        }
    }
    Ok(code)
}

/// What the calls of one case came to.
#[derive(Debug, PartialEq, Eq)]
struct Measured {
    fuel: u64,
    memory: u64,
    /// Half of the calls took at most this, in microseconds.
    median_us: u64,
    /// Nine of ten.
    most_us: u64,
}

impl Measured {
    /// # Errors
    ///
    /// A call without an answer; or calls that differ in fuel, though a gate is a pure function.
    fn of(tried: &[Tried]) -> Result<Self, String> {
        if let Some(error) = tried.iter().find_map(|tried| tried.answer.as_ref().err()) {
            return Err(error.to_string());
        }
        let first = tried.first().ok_or("it was not asked")?;
        if tried
            .iter()
            .any(|tried| tried.fuel != first.fuel || tried.answer != first.answer)
        {
            return Err(
                "the same question had different answers or fuel: it is no pure function"
                    .to_owned(),
            );
        }
        let mut times: Vec<_> = tried.iter().map(|tried| tried.duration_us).collect();
        times.sort_unstable();
        let at = |tenths: usize| times[(times.len() - 1) * tenths / 10];
        Ok(Self {
            fuel: first.fuel,
            memory: first.memory,
            median_us: at(5),
            most_us: at(9),
        })
    }

    fn text(&self, case: &str) -> String {
        let cost = cost(self.fuel, self.memory, self.median_us);
        let most = format!("{}.{:03} ms", self.most_us / 1_000, self.most_us % 1_000);
        format!(
            "{:32}  {cost} median  {most:>10} nine of ten\n",
            one_line(case)
        )
    }

    fn json(&self, case: &str, calls: u32) -> serde_json::Value {
        serde_json::json!({
            "case": case, "calls": calls, "fuel": self.fuel, "memory": self.memory, "median_us": self.median_us,
            "p90_us": self.most_us,
        })
    }
}

#[cfg(test)]
mod tests {
    use sluice_gate_types::answer::CallError;

    use super::*;

    fn tried(fuel: u64, duration_us: u64) -> Tried {
        Tried {
            answer: Ok(trial::TriedAnswer::Findings(Vec::new())),
            fuel,
            memory: 7,
            duration_us,
            log: Vec::new(),
        }
    }

    #[test]
    fn the_median_and_nine_of_ten_are_measured_calls() {
        let calls: Vec<_> = (1..=11).rev().map(|time| tried(5, time)).collect();
        let expected = Measured {
            fuel: 5,
            memory: 7,
            median_us: 6,
            most_us: 10,
        };
        assert_eq!(Measured::of(&calls), Ok(expected));
        assert!(
            Measured::of(&[tried(5, 3)]).is_ok_and(|one| (one.median_us, one.most_us) == (3, 3))
        );
    }

    #[test]
    fn what_differs_from_call_to_call_or_fails_is_not_measured() {
        assert!(Measured::of(&[tried(5, 1), tried(6, 1)]).is_err());
        let failed = Tried {
            answer: Err(CallError::Fuel(1)),
            ..tried(5, 1)
        };
        assert!(Measured::of(&[tried(5, 1), failed]).is_err_and(|error| error.contains("fuel")));
        assert!(Measured::of(&[]).is_err());
    }
}
