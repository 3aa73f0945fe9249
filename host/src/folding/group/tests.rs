use sluice_protocol::ending::Ending;
use sluice_protocol::message::operation::Chunk;
use sluice_protocol::report::{Exit, Report, StreamEnd};

use super::*;
use crate::store::operations::From as EndsFrom;
use crate::store::output;
use crate::testing::TestHost;

/// A job on machines with these names, which wrote these texts and ended with these exit codes; one without has not ended.
async fn job(test: &TestHost, results: &[(&'static str, &str, Option<i32>)]) -> JobId {
    for (name, ..) in results {
        test.machine(name).await;
    }
    let job = test
        .submit("x", |request| {
            request.machines = results
                .iter()
                .map(|(name, ..)| (*name).to_owned())
                .collect();
        })
        .await;
    for (row, (_, text, code)) in test.operations(job).into_iter().zip(results) {
        let size = text.len() as u64;
        let chunk = Chunk {
            stream: Stdout,
            offset: 0,
            bytes: text.as_bytes().to_vec(),
        };
        let ending = match code {
            Some(0) => Some(Ending::Succeeded),
            Some(code) => Some(Ending::ExitCode(*code)),
            None => None,
        };
        let report = ending.map(|ending| {
            let mut report = Report::without_process(ending, 7);
            report.exit = code.map(Exit::Code);
            report.started_at = Some(7);
            report.stdout = StreamEnd {
                kept: size,
                lost: 0,
                head: size,
            };
            report
        });
        let stored = test.host.store.write(move |conn| {
            output::append(conn, row.id, &chunk, 1 << 20)?;
            if let Some(report) = report {
                assert!(operations::end(conn, row.id, EndsFrom::Open, &report)?);
            }
            Ok::<_, StoreError>(())
        });
        stored.await.expect("writes");
    }
    job
}

async fn folded(test: &TestHost, job: JobId) -> Groups {
    groups(&test.host.store, &test.tenant, job)
        .await
        .expect("reads")
        .expect("is there")
}

#[tokio::test]
async fn results_that_differ_only_in_what_is_each_machines_own_are_one_group() {
    let test = TestHost::new().await;
    let results = [
        ("web-1", "web-1 at 03:04:05\nfine\n", Some(0)),
        ("web-2", "web-2 at 03:04:06\nfine\n", Some(0)),
        ("web-3", "web-3 at 03:04:07\nbroken\n", Some(0)),
        ("web-4", "web-4 at 03:04:07\nfine\n", Some(3)),
        ("web-5", "", None),
    ];
    let job = job(&test, &results).await;
    let folded = folded(&test, job).await;
    let shown: Vec<_> = folded
        .groups
        .iter()
        .map(|group| (group.count, group.state.as_str(), group.machines.join(" ")))
        .collect();
    let group = |count, state, machines: &str| (count, state, machines.to_owned());
    assert_eq!(
        shown,
        [
            group(2, "succeeded", "web-1 web-2"),
            group(1, "succeeded", "web-3"),
            group(1, "failed", "web-4"),
            group(1, "queued", "web-5"),
        ]
    );
    assert_eq!(folded.operations, 5);
    assert_eq!(folded.groups[0].diff, None);
    assert_eq!(folded.groups[0].example.stdout, "web-1 at 03:04:05\nfine\n");
    let diff = folded.groups[1].diff.as_deref().expect("a difference");
    assert!(
        diff.contains("\n <machine> at <time>\n-fine\n+broken\n"),
        "{diff}"
    );
    assert_eq!(folded.groups[2].diff.as_deref(), Some(""));
    assert_eq!(folded.groups[3].diff, None);
}

#[tokio::test]
async fn the_answer_is_bounded_however_many_groups_and_machines_there_are() {
    const NAMES: usize = GROUPS + 10;
    let test = TestHost::new().await;
    let names: Vec<&'static str> = (0..NAMES + MACHINES + 5)
        .map(|n| &*Box::leak(format!("m-{n:03}").into_boxed_str()))
        .collect();
    let texts: Vec<_> = (0..names.len())
        .map(|n| {
            if n < NAMES {
                format!("{n}\n")
            } else {
                "same\n".to_owned()
            }
        })
        .collect();
    let results: Vec<_> = names
        .iter()
        .zip(&texts)
        .map(|(name, text)| (*name, text.as_str(), Some(0)))
        .collect();
    let job = job(&test, &results).await;
    let folded = folded(&test, job).await;
    assert_eq!(folded.groups.len(), GROUPS);
    assert_eq!((folded.more_groups, folded.more_operations), (11, 11));
    let first = &folded.groups[0];
    assert_eq!(
        (first.count, first.machines.len()),
        (MACHINES as u64 + 5, MACHINES)
    );
}

#[tokio::test]
async fn another_tenants_job_has_no_groups() {
    let test = TestHost::new().await;
    let job = job(&test, &[("web-1", "a", Some(0))]).await;
    let (stranger, _) = test.stranger().await;
    let asked = groups(&test.host.store, &stranger.tenant, job).await;
    assert_eq!(asked.expect("reads"), None);
}
