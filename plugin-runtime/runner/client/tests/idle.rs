//! A runner that nobody asks does not stay.

mod stand_in;

use std::fs;
use std::time::{Duration, Instant};

use stand_in::{bind, domain_with};

/// Living children of this process, whichever of its threads started them.
fn children() -> usize {
    let threads = fs::read_dir("/proc/self/task").expect("reads").flatten();
    threads
        .filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok())
        .map(|text| text.split_whitespace().count())
        .sum()
}

fn eventually(what: &str, holds: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !holds() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_runner_ends_when_nobody_asks_it_and_comes_back_when_asked() {
    let (_cache, domain) = domain_with(Duration::from_millis(300));
    for _ in 0..2 {
        let gate = bind(&domain, "pass").await;
        let _gate = gate.unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(children(), 1);
        eventually("the runner ends", || children() == 0);
    }
}
