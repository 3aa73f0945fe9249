//! Many enrolled machines in one process, for what depends on their number.
//!
//! Each is a certificate, a connection, and what an agent keeps on its disk: how far its ledger is, which operations it has
//! taken in, and what came of those whose end the host has not acknowledged. So it comes back as an agent does after a link
//! broke or the host was killed. It runs nothing: what becomes of an operation a test says ([`Behavior`]), and what machines saw
//! of it is on a list, in the order in which it happened ([`Sights`]).

mod behavior;
mod ledger;
mod link;
mod member;
mod roster;
mod seen;
mod telling;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use quinn::Endpoint;
use sluice_protocol::message::enroll::Token;
use tokio::runtime::Runtime;
use tokio::sync::watch;

pub use behavior::{Behavior, Manner};
use link::Site;
use member::Member;
pub(crate) use roster::Roster;
use seen::Seen;
pub use seen::{Sight, Sights, What};

use crate::fleet::Fleet;

/// How long it is waited for something that must come.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks: short, so that a host can be killed in the middle of something.
const LOOK: Duration = Duration::from_millis(1);

/// Simulated machines. They end with it.
#[derive(Debug)]
pub struct Crowd {
    members: Vec<Arc<Member>>,
    seen: Arc<Seen>,
    site: Arc<Site>,
    answers: watch::Sender<bool>,
    runtime: Runtime,
}

impl Crowd {
    /// Enrolls so many machines, named `c00001`, `c00002` and so on, with a token that is good for all of them, connects them,
    /// and waits until they are welcome.
    ///
    /// # Panics
    ///
    /// Where the host does not let one of them in.
    #[must_use]
    pub fn enroll(token: &str, count: usize, behavior: &Behavior) -> Self {
        let token: Token = token.trim().parse().expect("is a token");
        let host = token.addresses[0].parse().expect("is an address");
        let runtime = Runtime::new().expect("a run time");
        let roster = Roster::enroll(&runtime, &token, count);
        Self::connect(runtime, roster, host, behavior)
    }

    /// The machines of a fleet that was made with them ([`crate::Builder::crowd`]), once they are connected and welcome.
    ///
    /// # Panics
    ///
    /// Where the fleet has none, or the host does not take one of them in.
    #[must_use]
    pub fn of(fleet: &Fleet, behavior: &Behavior) -> Self {
        let roster = Roster::load(&fleet.roster());
        let host = fleet.host.agents.parse().expect("is an address");
        let runtime = Runtime::new().expect("a run time");
        Self::connect(runtime, roster, host, behavior)
    }

    fn connect(runtime: Runtime, roster: Roster, host: SocketAddr, behavior: &Behavior) -> Self {
        let (seen, answers) = (Arc::<Seen>::default(), watch::Sender::new(false));
        let Roster(machines) = roster;
        let behavior = Arc::new(behavior.clone());
        let members = machines
            .into_iter()
            .map(|machine| Member::new(machine, Arc::clone(&behavior), &seen, &answers))
            .map(Arc::new)
            .collect();
        let site = {
            let _entered = runtime.enter();
            let local = SocketAddr::from(([127, 0, 0, 1], 0));
            Arc::new(Site::new(Endpoint::client(local).expect("binds"), host))
        };
        let crowd = Self {
            members,
            seen,
            site,
            answers,
            runtime,
        };
        for member in &crowd.members {
            let keeping = link::keep(Arc::clone(member), Arc::clone(&crowd.site));
            crowd.runtime.spawn(keeping);
        }
        let count = crowd.members.len();
        crowd.until("all are connected", |crowd| crowd.connected() == count);
        crowd
    }

    /// The names of the machines, in their order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.members.iter().map(|member| &*member.name)
    }

    /// Operations that come to this machine from here on go so.
    ///
    /// # Panics
    ///
    /// Where there is no such machine.
    pub fn behave(&self, machine: &str, behavior: &Behavior) {
        self.member(machine).behave(Arc::new(behavior.clone()));
    }

    /// The same for all of them.
    pub fn all_behave(&self, behavior: &Behavior) {
        let behavior = Arc::new(behavior.clone());
        for member in &self.members {
            member.behave(Arc::clone(&behavior));
        }
    }

    /// From here on machines that answer late do.
    pub fn answer(&self) {
        self.answers.send_replace(true);
    }

    /// The machine's link ends, and there is no other until all are to come back.
    ///
    /// # Panics
    ///
    /// Where there is no such machine.
    pub fn leave(&self, machine: &str) {
        self.member(machine).away.send_replace(true);
    }

    /// Every machine sets up its link anew, also those that are away: agents need half a minute to find out by themselves that
    /// a host which was killed does not know them any more.
    pub fn come_back(&self) {
        for member in &self.members {
            member.hang_up();
            member.away.send_replace(false);
        }
        self.site.turn.send_modify(|turn| *turn += 1);
    }

    /// Waits until something holds.
    ///
    /// # Panics
    ///
    /// Where it does not within a minute, or the host does what it never may.
    pub fn until(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !holds(self) {
            let faults = self.faults();
            assert!(
                faults.is_empty() && Instant::now() < deadline,
                "waited in vain until {what}; {} of {} are connected, {faults:?}",
                self.connected(),
                self.members.len()
            );
            std::thread::sleep(LOOK);
        }
    }

    /// What machines saw of this job.
    ///
    /// # Panics
    ///
    /// Where that is no job's id.
    #[must_use]
    pub fn sights(&self, job: &str) -> Sights {
        self.seen.of(job)
    }

    /// What the host did that it never may: sent an operation again whose end it had acknowledged, or took a machine for another.
    #[must_use]
    pub fn faults(&self) -> Vec<String> {
        self.seen.faults()
    }

    /// How many operations have come, each counted once.
    #[must_use]
    pub fn operations(&self) -> usize {
        self.seen.operations.load(Ordering::Relaxed)
    }

    /// How often one of them was told to end an operation that it had.
    #[must_use]
    pub fn cancels(&self) -> usize {
        self.seen.cancels.load(Ordering::Relaxed)
    }

    /// How often one of them was told that a lockdown has begun.
    #[must_use]
    pub fn lockdowns(&self) -> usize {
        self.seen.lockdowns.load(Ordering::Relaxed)
    }

    /// How many are connected.
    #[must_use]
    pub fn connected(&self) -> usize {
        let connected = self.members.iter().filter(|member| member.is_connected());
        connected.count()
    }

    fn member(&self, machine: &str) -> &Member {
        let found = self.members.iter().find(|member| &*member.name == machine);
        found.unwrap_or_else(|| panic!("there is no machine {machine}"))
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        let _entered = self.runtime.enter();
        self.site.endpoint.close(0_u32.into(), b"");
    }
}
