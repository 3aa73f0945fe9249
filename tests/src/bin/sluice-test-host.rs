//! A host whose clock a test moves: all of `sluice-host serve` but for that. It is no part of the product.
//!
//! ```text
//! sluice-test-host NOW DATA AGENTS API
//! stdin      set TIME     the clock shows TIME, whatever it showed before
//!            pass TIME    the same, having shown each time on the way for which something of the host waits
//! stdout     ready ...    as `sluice-host serve` says it
//!            at TIME      the order is carried out, and everything that goes by the clock has looked at it
//! ```
//!
//! Between orders the clock stands still.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::process::exit;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use sluice_host::clock::{Clock, UnixMillis};
use sluice_host::config::Tls;
use sluice_host::server::{Options, serve};
use tokio::sync::watch;

/// What of a host waits for the clock: its sweeper, its rollouts, its schedules and its windows.
const PARTS: usize = 4;
/// How long these may take to look at the clock and do what is due.
const SOON: Duration = Duration::from_secs(30);

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .init();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [now, data, agents, api] = arguments.as_slice() else {
        anyhow::bail!("NOW DATA AGENTS API");
    };
    let clock = TestClock::new(time(now)?);
    let moved = clock.clone();
    std::thread::spawn(move || {
        if let Err(error) = obey(&moved) {
            eprintln!("sluice-test-host: {error:#}");
            exit(1);
        }
    });
    let options = Options {
        data: data.into(),
        agents: agents.parse::<SocketAddr>()?,
        api: api.parse::<SocketAddr>()?,
        advertise: Vec::new(),
        tls: Tls::default(),
        gate_runner: None,
    };
    Ok(serve(options, Arc::new(clock)).await?)
}

fn time(text: &str) -> anyhow::Result<UnixMillis> {
    let time: jiff::Timestamp = text.parse()?;
    Ok(UnixMillis(time.as_millisecond()))
}

fn obey(clock: &TestClock) -> anyhow::Result<()> {
    for line in std::io::stdin().lines() {
        let line = line?;
        match line.split_once(' ') {
            Some(("set", to)) => clock.set(time(to)?)?,
            Some(("pass", to)) => clock.pass(time(to)?)?,
            _ => anyhow::bail!("no such order: {line}"),
        }
        println!("at {}", clock.now());
    }
    Ok(())
}

/// A clock that stands still until somebody moves it.
#[derive(Debug, Clone)]
struct TestClock(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    shows: watch::Sender<UnixMillis>,
    waiting: Mutex<HashMap<u64, Waits>>,
    changed: Condvar,
    count: AtomicU64,
}

/// Somebody who has looked at the clock and waits for it.
#[derive(Debug, Clone, Copy)]
struct Waits {
    looked: UnixMillis,
    until: Option<UnixMillis>,
}

impl TestClock {
    fn new(now: UnixMillis) -> Self {
        Self(Arc::new(Inner {
            shows: watch::Sender::new(now),
            waiting: Mutex::default(),
            changed: Condvar::new(),
            count: AtomicU64::new(0),
        }))
    }

    /// Waits until all have looked at the clock as it is now and wait for another time. Gives the first of those.
    fn settle(&self) -> anyhow::Result<Option<UnixMillis>> {
        let now = self.now();
        let have_not_looked = |waiting: &mut HashMap<u64, Waits>| {
            waiting.values().filter(|one| one.looked == now).count() < PARTS
        };
        let (waiting, timeout) = self
            .0
            .changed
            .wait_timeout_while(self.0.waiting(), SOON, have_not_looked)
            .unwrap_or_else(PoisonError::into_inner);
        anyhow::ensure!(
            !timeout.timed_out(),
            "not all look at the clock, which is at {now}: {waiting:?}"
        );
        Ok(waiting.values().filter_map(|one| one.until).min())
    }

    fn set(&self, to: UnixMillis) -> anyhow::Result<()> {
        self.settle()?;
        self.0.shows.send_replace(to);
        self.settle().map(drop)
    }

    fn pass(&self, to: UnixMillis) -> anyhow::Result<()> {
        while let Some(next) = self.settle()?.filter(|next| *next < to) {
            self.set(next).context("on the way")?;
        }
        self.set(to)
    }
}

impl Inner {
    fn waiting(&self) -> MutexGuard<'_, HashMap<u64, Waits>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Clock for TestClock {
    fn now(&self) -> UnixMillis {
        *self.0.shows.borrow()
    }

    fn wait(
        &self,
        looked: UnixMillis,
        until: Option<UnixMillis>,
        at_most: Duration,
    ) -> BoxFuture<'static, ()> {
        let inner = Arc::clone(&self.0);
        async move {
            let mut shows = inner.shows.subscribe();
            let now = *shows.borrow_and_update();
            if now != looked || until.is_some_and(|until| until <= now) {
                return;
            }
            let _waits = Waiting::begin(Arc::clone(&inner), Waits { looked, until });
            // What does not go by this clock is looked at now and then, as by the system's.
            let _either = tokio::time::timeout(at_most, shows.changed()).await;
        }
        .boxed()
    }
}

/// As long as it is there, somebody waits.
struct Waiting(Arc<Inner>, u64);

impl Waiting {
    fn begin(inner: Arc<Inner>, waits: Waits) -> Self {
        let number = inner.count.fetch_add(1, Ordering::Relaxed);
        inner.waiting().insert(number, waits);
        inner.changed.notify_all();
        Self(inner, number)
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.waiting().remove(&self.1);
    }
}
