//! What a runner writes is taken only where it can change no more and can be what was asked for.

mod stand_in;

use std::fs;
use std::path::Path;

use sluice_gate_client::BindError;
use sluice_gate_client::memory_file::SpaceError;
use stand_in::{bind, domain};

/// Whether anything is in the cache but the key.
fn kept(cache: &Path) -> bool {
    let entries = fs::read_dir(cache.join("cache")).expect("reads").flatten();
    entries.count() > 1
}

/// Why a runner that is told this is not believed. Nothing of it is kept.
async fn refused(told: &str) -> SpaceError {
    let (cache, domain) = domain();
    match bind(&domain, told).await {
        Err(BindError::Written(error)) => {
            assert!(!kept(cache.path()), "{told}");
            error
        }
        Err(other) => panic!("{told}: {other}"),
        Ok(_) => panic!("{told}: it was bound"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_runner_that_keeps_the_protocol_is_believed() {
    let (cache, domain) = domain();
    let gate = bind(&domain, "pass")
        .await
        .unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(
        (gate.manifest().id.as_str(), gate.not_snapshotted()),
        ("a", None)
    );
    assert!(kept(cache.path()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_runner_that_could_go_on_writing_is_killed_and_nothing_is_bound() {
    let (cache, domain) = domain();
    let pid = cache.path().join("pid");
    let told = format!(
        "def snapshotted(space, component):\n    global mapped\n    open({:?}, 'w').write(str(os.getpid()))\n    \
         length = write(space, b'\\0asm')\n    mapped = mmap.mmap(space, 4096)\n    return length\n",
        pid.display()
    );
    let refused = bind(&domain, &told).await;
    assert!(matches!(
        refused.err(),
        Some(BindError::Written(SpaceError::Mapped))
    ));
    assert!(!kept(cache.path()));
    let pid = fs::read_to_string(pid).expect("it was asked");
    assert!(!Path::new("/proc").join(pid).exists(), "it runs on");
    assert!(bind(&domain, "pass").await.is_ok(), "no new one is started");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_runner_that_answers_without_bound_is_killed_and_nothing_is_bound() {
    let (cache, domain) = domain();
    let pid = cache.path().join("pid");
    // Five million empty texts take room in a frame, and much more memory.
    let told = format!(
        "def snapshotted(space, component):\n    open({:?}, 'w').write(str(os.getpid()))\n    \
         try:\n        send(b'\\x9a\\x00\\x4c\\x4b\\x40' + b'\\x60' * 5000000)\n    \
         except OSError:\n        pass\n    \
         while True:\n        import time\n        time.sleep(1)\n",
        pid.display()
    );
    let refused = bind(&domain, &told).await;
    assert!(matches!(
        refused.err(),
        Some(BindError::Runner(_) | BindError::Call(_))
    ));
    assert!(!kept(cache.path()));
    let pid = fs::read_to_string(pid).expect("it was asked");
    let process = Path::new("/proc").join(pid);
    for _ in 0..1000 {
        if !process.exists() {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    panic!("it runs on");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_runner_that_dies_while_it_loads_a_gate_is_started_again_once() {
    let (_cache, domain) = domain();
    // Only the runner that takes the snapshot is told: the next one loads.
    let told = "def loaded():\n    os._exit(1)\n";
    assert!(bind(&domain, told).await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_length_beyond_the_file_or_none_is_refused() {
    for told in [
        "snapshotted = lambda space, component: write(space, b'\\0asm') + (96 << 20)",
        "instrumented = lambda space: write(space, b'\\x7fELF') + (96 << 20)",
        "compiled = lambda space: write(space, b'\\x7fELF') and 0",
        "compiled = lambda space: write(space, b'\\x7fELF') and (1 << 64) - 1",
    ] {
        let error = refused(told).await;
        assert!(matches!(error, SpaceError::Length(_)), "{told}: {error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_was_never_written_is_refused() {
    for told in [
        "instrumented = lambda space: 100",
        "snapshotted = lambda space, component: 100",
        "compiled = lambda space: 100",
        "compiled = lambda space: write(space, b'\\0asm')",
        "snapshotted = lambda space, component: write(space, b'\\x7fELF')",
    ] {
        let error = refused(told).await;
        assert!(matches!(error, SpaceError::Other(_)), "{told}: {error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_space_that_was_shortened_is_refused() {
    for told in [
        "compiled = lambda space: write(space, b'\\x7fELF') + (os.ftruncate(space, 2) or 0)",
        "snapshotted = lambda space, component: write(space, b'\\0asm') + (os.ftruncate(space, 2) or 0)",
    ] {
        let error = refused(told).await;
        assert!(matches!(error, SpaceError::Changed), "{told}: {error}");
    }
}
