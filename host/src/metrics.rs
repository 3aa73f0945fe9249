//! What is counted, in Prometheus' text format. No label names a tenant, a machine or an operator.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};

use sluice_protocol::ending::State;

/// Counters since the host was started.
#[derive(Debug, Default)]
pub struct Metrics {
    ended: [AtomicU64; State::ALL.len()],
    submitted: AtomicU64,
    refused: AtomicU64,
    output_dropped: AtomicU64,
    connections: AtomicU64,
    violations: AtomicU64,
}

impl Metrics {
    /// An operation has ended.
    pub fn operation_ended(&self, state: State) {
        if let Some(index) = State::ALL.iter().position(|known| *known == state) {
            self.ended[index].fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Operations were recorded.
    pub fn operations_submitted(&self, count: u64) {
        self.submitted.fetch_add(count, Ordering::Relaxed);
    }

    /// A request was refused for want of a token or a permission.
    pub fn request_refused(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    /// A piece of output came beyond its operation's limit, so that older ones were dropped, or it was.
    pub fn output_dropped(&self) {
        self.output_dropped.fetch_add(1, Ordering::Relaxed);
    }

    /// A machine has connected.
    pub fn connected(&self) {
        self.connections.fetch_add(1, Ordering::Relaxed);
    }

    /// A machine broke the protocol.
    pub fn violation(&self) {
        self.violations.fetch_add(1, Ordering::Relaxed);
    }

    /// The page for `/metrics`; `connected` machines and `open` operations by state are counted now.
    #[must_use]
    pub fn render(&self, connected: usize, open: &[(String, u64)]) -> String {
        let mut page = String::new();
        let mut metric = |name: &str, kind: &str, help: &str, values: &[(String, u64)]| {
            // Writing to a String does not fail.
            let _ = writeln!(
                page,
                "# HELP sluice_{name} {help}\n# TYPE sluice_{name} {kind}"
            );
            for (labels, value) in values {
                let _ = writeln!(page, "sluice_{name}{labels} {value}");
            }
        };
        let ended: Vec<_> = State::ALL
            .iter()
            .zip(&self.ended)
            .filter(|(state, _)| state.is_terminal())
            .map(|(state, count)| {
                (
                    format!("{{state=\"{}\"}}", state.as_str()),
                    count.load(Ordering::Relaxed),
                )
            })
            .collect();
        let open: Vec<_> = open
            .iter()
            .map(|(state, count)| (format!("{{state=\"{state}\"}}"), *count))
            .collect();
        let one = |value: &AtomicU64| [(String::new(), value.load(Ordering::Relaxed))];
        metric(
            "machines_connected",
            "gauge",
            "Machines with a live connection.",
            &[(String::new(), connected as u64)],
        );
        metric(
            "operations_open",
            "gauge",
            "Operations that have not ended.",
            &open,
        );
        metric(
            "operations_ended_total",
            "counter",
            "Operations that have ended.",
            &ended,
        );
        metric(
            "operations_submitted_total",
            "counter",
            "Operations that were recorded.",
            &one(&self.submitted),
        );
        metric(
            "requests_refused_total",
            "counter",
            "Requests without a good token or permission.",
            &one(&self.refused),
        );
        metric(
            "output_dropped_total",
            "counter",
            "Pieces of output beyond an operation's limit.",
            &one(&self.output_dropped),
        );
        metric(
            "connections_total",
            "counter",
            "Connections of machines.",
            &one(&self.connections),
        );
        metric(
            "protocol_violations_total",
            "counter",
            "Connections closed for what they sent.",
            &one(&self.violations),
        );
        page
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_has_every_metric_with_its_value() {
        let metrics = Metrics::default();
        metrics.operation_ended(State::Blocked);
        metrics.operations_submitted(7);
        let page = metrics.render(3, &[("queued".to_owned(), 2)]);
        for line in [
            "sluice_machines_connected 3",
            "sluice_operations_open{state=\"queued\"} 2",
            "sluice_operations_ended_total{state=\"blocked\"} 1",
            "sluice_operations_ended_total{state=\"succeeded\"} 0",
            "sluice_operations_submitted_total 7",
        ] {
            assert!(
                page.lines().any(|found| found == line),
                "{line} is missing in\n{page}"
            );
        }
    }
}
