//! What is sent is closed again. The one test of this program, because it counts what the whole process has open.

mod stand_in;

use std::fs;
use std::time::{Duration, Instant};

use stand_in::{bind, domain};

/// How many descriptors are open, and how many of them are memory files.
fn open() -> (usize, usize) {
    let entries = fs::read_dir("/proc/self/fd").expect("reads").flatten();
    let targets: Vec<_> = entries
        .filter_map(|entry| fs::read_link(entry.path()).ok())
        .collect();
    let memory = targets
        .iter()
        .filter(|target| target.to_string_lossy().contains("sluice-gate"));
    (targets.len(), memory.count())
}

/// The same when everything was sent: a frame is dropped by the task that sent it, which may be after its answer came.
async fn settled() -> (usize, usize) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while open().1 > 0 && Instant::now() < deadline {
        tokio::task::yield_now().await;
    }
    open()
}

#[tokio::test(flavor = "multi_thread")]
async fn loading_gates_again_and_again_leaves_no_descriptor_open() {
    let (_cache, domain) = domain();
    let mut gates = vec![
        bind(&domain, "pass")
            .await
            .unwrap_or_else(|e| panic!("{e}")),
    ];
    let before = settled().await;
    assert_eq!(before.1, 0, "memory files stay open");
    for _ in 0..100 {
        // Found in the cache, and loaded once more under another number.
        gates.push(
            bind(&domain, "pass")
                .await
                .unwrap_or_else(|e| panic!("{e}")),
        );
    }
    for length in 0..5 {
        let told = format!("compiled = lambda space: {length}");
        assert!(bind(&domain, &told).await.is_err(), "is refused");
    }
    assert_eq!((settled().await, gates.len()), (before, 101));
}
