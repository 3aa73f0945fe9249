//! What must hold of a fleet.

use std::time::Duration;

use sluice_agent::ledger::Known;
use sluice_host::store::operations::OperationRow;
use sluice_host::{audit, jobs, store};
use sluice_protocol::ending::State;
use sluice_protocol::ids::{JobId, OperationId};

use super::{AgentHandle, Fleet, Machine};
use crate::network::Weather;
use crate::scripts::Run;

/// How much later than it says a script may start: its start is being put on disk when the last look at the clock is past.
const SLACK: u64 = 2_000;
/// How long a quiet fleet is listened to, and how many datagrams each of its machines may cause in that time: a keep-alive
/// every ten seconds, and what QUIC sends along.
const LISTEN: Duration = Duration::from_secs(60);
const MURMUR: u64 = 40;

impl Fleet {
    /// What must hold at any moment at which the host runs.
    pub fn check(&mut self) {
        self.check_all(false);
    }

    /// The same, and once more of what was looked at when it ended, where it is the last time.
    fn check_all(&mut self, is_last: bool) {
        let rows = self.operations();
        for job in &self.accepted {
            assert!(
                self.restored || rows.iter().any(|row| row.job == *job),
                "job {job} was accepted, and the host does not know it"
            );
        }
        let runs = self.scripts.runs();
        for (id, run) in &runs {
            assert!(
                run.starts.len() == 1 || self.may_start_again.contains(id),
                "{id} was started more than once"
            );
            let is_known = self.restored || rows.iter().any(|row| row.id == *id);
            assert!(is_known, "{id} was started, and the host does not know it");
        }
        for row in &rows {
            if let Some(before) = self.ended.get(&row.id) {
                assert_eq!(row.state, *before, "{} has ended twice", row.id);
            }
            let is_new = !row.state.is_terminal() || self.ended.insert(row.id, row.state).is_none();
            if (is_new || is_last) && !self.may_start_again.contains(&row.id) {
                self.check_one(row, runs.get(&row.id));
            }
        }
        for machine in &self.machines {
            let Some(AgentHandle(agent)) = &machine.agent else {
                continue;
            };
            let open = agent.ledger.open_operations().expect("reads");
            for row in &rows {
                let is_forgotten = row.machine == Some(machine.machine)
                    && agent.ledger.knows(row.id).expect("reads") == Known::Here
                    && !open.iter().any(|open| open.id == row.id);
                assert!(
                    self.restored || !is_forgotten || row.state.is_terminal(),
                    "{} was acknowledged, and the host has no end of it: {:?}",
                    row.id,
                    row.state
                );
            }
        }
    }

    /// What must hold of one operation and its script.
    fn check_one(&self, row: &OperationRow, run: Option<&Run>) {
        let (id, state) = (row.id, row.state);
        if let Some(started) = run.and_then(|run| run.starts.first()) {
            let not_after = self.not_after(row.job);
            assert!(
                *started <= not_after.saturating_add(SLACK),
                "{id} was started {} ms after it had expired",
                started - not_after
            );
        }
        match (state, run) {
            (State::Succeeded | State::Failed, Some(run)) => {
                assert!(
                    run.has_ended,
                    "{id} ended as {state:?}, and its script goes on"
                );
                assert_eq!(row.exit_code, Some(run.code), "{id} ended as {state:?}");
                let stdout = self.stdout(id);
                assert!(
                    stdout == run.stdout,
                    "{id} wrote {} bytes, and the host has {} others",
                    run.stdout.len(),
                    stdout.len()
                );
            }
            (State::Succeeded | State::Failed, None) => {
                panic!("{id} ended as {state:?}, and nothing was started")
            }
            (State::Interrupted, Some(run)) => {
                assert!(
                    run.was_killed || self.is_history_lost(row),
                    "{id} ended as interrupted, and nothing had interrupted it"
                );
            }
            (State::Interrupted, None) if self.is_history_lost(row) => {}
            // An error says that nothing was started: an agent that is killed right before a start cannot do better.
            (State::Expired | State::Canceled | State::Error, None) => {}
            (state, Some(_)) if state.is_terminal() => {
                panic!(
                    "{id} ended as {state:?} ({:?}), and was started",
                    row.message
                )
            }
            (state, None) if state.is_terminal() => {
                panic!("{id} ended as {state:?} ({:?}) for no reason", row.message)
            }
            _ => {}
        }
    }

    /// Whether what became of an operation may be known to nobody: an older copy of a disk is in use.
    fn is_history_lost(&self, row: &OperationRow) -> bool {
        let of_machine = |machine: &Machine| Some(machine.machine) == row.machine;
        self.restored
            || self
                .machines
                .iter()
                .any(|it| of_machine(it) && it.rolled_back)
    }

    fn not_after(&self, job: JobId) -> u64 {
        let tenant = self.actor.tenant.id;
        let not_after = self
            .server()
            .host()
            .store
            .read(|conn| store::jobs::not_after(conn, tenant, job));
        not_after.expect("reads").expect("is there").to_wire()
    }

    fn stdout(&self, id: OperationId) -> Vec<u8> {
        let tenant = &self.actor.tenant;
        let result = self
            .server()
            .host()
            .store
            .read(|conn| jobs::operation_result(conn, tenant, id));
        let result = result.expect("reads").expect("is there");
        result.stdout.unwrap_or_default().into_bytes()
    }

    /// Puts an end to all trouble, waits until everything has ended, and checks what must hold then.
    pub fn conclude(&mut self, patience: Duration) {
        if !self.host_is_up() {
            self.start_host();
        }
        for number in 0..self.machines.len() {
            self.set_weather(number, Weather::fair(), Weather::fair());
            if !self.agent_is_up(number) {
                self.start_agent(number);
            }
        }
        self.until(
            patience,
            "every operation ends and is acknowledged",
            Self::has_nothing_open,
        );
        self.check_all(true);
        self.check_rest();
        self.check_records();
    }

    /// Everybody is there, and everything that was asked has ended, with all of it told.
    #[must_use]
    pub fn has_nothing_open(&self) -> bool {
        self.asked.is_empty()
            && self.all_are_connected()
            && !self.scripts.are_running()
            && self.machines.iter().all(Machine::has_nothing_open)
            && self.operations().iter().all(|row| row.state.is_terminal())
    }

    /// Nothing is left of what was done: no stream, no task, nothing that is said again and again.
    fn check_rest(&mut self) {
        // Connections that were lost are held for a while.
        self.pass(Duration::from_secs(90));
        let before = self.world.network.counts().sent;
        self.pass(LISTEN);
        let sent = self.world.network.counts().sent - before;
        let most = MURMUR * self.machines.len() as u64;
        assert!(sent <= most, "{sent} datagrams in a minute at rest");
        for ((id, before), (_, now)) in self.at_rest.iter().zip(self.tasks()) {
            assert!(
                now <= *before,
                "{id:?} had {before} tasks at rest, and has {now} now"
            );
        }
    }

    /// The audit chains hold.
    fn check_records(&self) {
        for machine in &self.machines {
            let Some(AgentHandle(agent)) = &machine.agent else {
                continue;
            };
            let ledger = agent.ledger.clone();
            let entries =
                self.world.run(
                    machine.id,
                    async move { ledger.audit().await.expect("reads") },
                );
            sluice_agent::audit::verify(&entries).expect("holds");
        }
        let (store, tenant) = (
            self.server().host().store.clone(),
            self.actor.tenant.clone(),
        );
        self.world.run(self.host, async move {
            audit::verify(&store, &tenant).await.expect("holds");
        });
    }

    /// Where everything is, for people.
    pub(super) fn describe(&self) -> String {
        use std::fmt::Write as _;
        let mut text = format!("after {:?}:\n", self.world.now());
        for machine in &self.machines {
            let linked = machine.agent.as_ref().map(|agent| agent.0.is_linked());
            let open = machine.agent.as_ref().map(|agent| {
                let open = agent.0.ledger.open_operations().expect("reads");
                open.iter()
                    .map(|open| {
                        (
                            open.id,
                            format!("{:?}", open.step)
                                .chars()
                                .take(20)
                                .collect::<String>(),
                        )
                    })
                    .collect::<Vec<_>>()
            });
            let _infallible = writeln!(text, "{}: linked {linked:?}, open {open:?}", machine.name);
        }
        if self.host_is_up() {
            for row in self.operations() {
                if !row.state.is_terminal() {
                    let _infallible =
                        writeln!(text, "{} on {}: {:?}", row.id, row.machine_name, row.state);
                }
            }
        }
        text
    }
}
