//! Which older jobs a newer one ends, which it leaves alone, and for whom it is not made.

use sluice_api_types::job::SubmitJob;
use sluice_protocol::ending::State;
use sluice_protocol::ids::JobId;

use super::*;
use crate::jobs::submit;
use crate::operators;
use crate::testing::{NOW, TestHost, request};

fn keyed(machine: &str, key: &str) -> SubmitJob {
    SubmitJob {
        supersede: Some(key.to_owned()),
        ..request(machine)
    }
}

async fn submitted(test: &TestHost, key: &'static str) -> JobId {
    test.submit("web-1", |request| request.supersede = Some(key.to_owned()))
        .await
}

fn states(test: &TestHost, job: JobId) -> Vec<State> {
    let operations = test.operations(job).into_iter();
    operations.map(|operation| operation.state).collect()
}

/// Somebody who runs as nobody alone, wherever that is.
async fn only_as_nobody(test: &TestHost) -> Actor {
    let policy = "permit (principal, action == Action::\"RemoteExecution\", resource)
        when { context has run_as && context.run_as == \"nobody\" };";
    operators::put_role(&test.host, &test.admin, "plain", policy.to_owned(), NOW)
        .await
        .expect("is a role");
    test.with_roles("bob", &["plain"]).await.0
}

#[tokio::test]
async fn a_newer_job_ends_what_waits_of_older_ones_with_its_key_on_its_machines_and_nothing_else() {
    let test = TestHost::new().await;
    test.machine("web-1").await;
    test.machine("web-2").await;
    let both = test
        .submit("web-1", |request| {
            request.machines.push("web-2".to_owned());
            request.supersede = Some("patch".to_owned());
        })
        .await;
    let (other, none) = (
        submitted(&test, "report").await,
        test.submit("web-1", |_| ()).await,
    );
    let second = submitted(&test, "patch").await;
    let third = submitted(&test, "patch").await;
    assert_eq!(states(&test, both), [State::Canceled, State::Queued]);
    assert_eq!(states(&test, second), [State::Canceled]);
    for job in [other, none, third] {
        assert_eq!(states(&test, job), [State::Queued]);
    }
    let (first_message, message) = (
        test.operations(both)[0].message.clone(),
        test.operation(second).message,
    );
    assert_eq!(
        (first_message, message),
        (
            Some(format!("Canceled by admin: superseded by job {second}")),
            Some(format!("Canceled by admin: superseded by job {third}"))
        )
    );
    let entries = test.audited().await;
    let canceled: Vec<_> = entries
        .iter()
        .filter(|entry| entry.event == "script_canceled")
        .map(|entry| {
            (
                entry.job.clone(),
                &entry.details["superseded_by"],
                &entry.details["supersede"],
            )
        })
        .collect();
    let (by_second, by_third) = (second.to_string().into(), third.to_string().into());
    assert_eq!(
        canceled,
        [
            (Some(both.to_string()), &by_second, &"patch".into()),
            (Some(second.to_string()), &by_third, &"patch".into())
        ]
    );
    let shown = crate::jobs::job(&test.host, &test.tenant, third).await;
    let shown = shown.expect("reads").expect("is there");
    assert_eq!(shown.supersede.as_deref(), Some("patch"));
}

#[tokio::test]
async fn what_was_sent_and_what_is_another_tenants_stays_as_it_is() {
    let test = TestHost::new().await;
    let machine = test.machine("web-1").await;
    let (stranger, _) = test.stranger().await;
    let (_session, _inbox) = test.connect(&machine);
    let sent = submitted(&test, "patch").await;
    submit(&test.host, &stranger, keyed("web-1", "patch"), None, NOW)
        .await
        .expect("is another tenant's");
    submitted(&test, "patch").await;
    assert_eq!(states(&test, sent), [State::Delivered]);
    assert_eq!(test.count_audited("script_canceled").await, 0);
}

#[tokio::test]
async fn a_job_that_ends_at_once_itself_takes_nobodys_place() {
    let test = TestHost::new().await;
    test.machine("web-1").await;
    let older = submitted(&test, "patch").await;
    let newer = test
        .submit("web-1", |request| {
            request.supersede = Some("patch".to_owned());
            request.no_queue = true;
        })
        .await;
    assert_eq!(states(&test, newer), [State::Failed]);
    assert_eq!(states(&test, older), [State::Queued]);
}

#[tokio::test]
async fn a_request_that_is_repeated_takes_the_place_of_nothing_newer() {
    let test = TestHost::new().await;
    test.machine("web-1").await;
    let again = || {
        let key = Some("once".to_owned());
        submit(&test.host, &test.admin, keyed("web-1", "patch"), key, NOW)
    };
    let first = again().await.expect("is accepted");
    let second = submitted(&test, "patch").await;
    assert_eq!(again().await.expect("is the same job"), first);
    assert_eq!(
        (states(&test, first), states(&test, second)),
        (vec![State::Canceled], vec![State::Queued])
    );
}

#[tokio::test]
async fn what_a_rollout_holds_ends_too() {
    let test = TestHost::new().await;
    test.machine("web-1").await;
    test.machine("web-2").await;
    let held = test
        .submit("web-1", |request| {
            request.machines.push("web-2".to_owned());
            request.batches = Some("1, 100%".to_owned());
            request.supersede = Some("patch".to_owned());
        })
        .await;
    assert_eq!(states(&test, held), [State::Queued, State::Held]);
    test.submit("web-2", |request| {
        request.supersede = Some("patch".to_owned())
    })
    .await;
    assert_eq!(states(&test, held), [State::Queued, State::Canceled]);
}

#[tokio::test]
async fn nobody_ends_by_a_key_what_they_could_not_run_there_and_no_job_is_made() {
    let test = TestHost::new().await;
    test.machine("web-1").await;
    let bob = only_as_nobody(&test).await;
    let mine = |key: &str| SubmitJob {
        run_as: Some("nobody".to_owned()),
        ..keyed("web-1", key)
    };
    let as_root = test
        .submit("web-1", |request| {
            request.run_as = Some("root".to_owned());
            request.supersede = Some("patch".to_owned());
        })
        .await;
    let refused = submit(&test.host, &bob, mine("patch"), None, NOW).await;
    let error = refused.expect_err("is refused").to_string();
    assert_eq!(
        error,
        "bob lacks the permission RemoteExecution for web-1, where a job that was not submitted with this token waits \
         under the key patch; nothing was done"
    );
    assert_eq!(states(&test, as_root), [State::Queued]);
    assert_eq!(test.count_audited("permission_denied").await, 1);
    assert_eq!(test.count_audited("script_queued").await, 1);
    // What bob could run there himself he may end.
    let as_nobody = submit(&test.host, &test.admin, mine("report"), None, NOW).await;
    let as_nobody = as_nobody.expect("is accepted");
    submit(&test.host, &bob, mine("report"), None, NOW)
        .await
        .expect("is accepted");
    assert_eq!(states(&test, as_nobody), [State::Canceled]);
}

#[tokio::test]
async fn what_the_same_token_submitted_gives_way_without_more_rights() {
    let test = TestHost::new().await;
    test.machine("web-1").await;
    let bob = only_as_nobody(&test).await;
    let mine = || {
        let request = SubmitJob {
            run_as: Some("nobody".to_owned()),
            ..keyed("web-1", "patch")
        };
        submit(&test.host, &bob, request, None, NOW)
    };
    let first = mine().await.expect("is accepted");
    let second = mine().await.expect("is accepted");
    assert_eq!(
        (states(&test, first), states(&test, second)),
        (vec![State::Canceled], vec![State::Queued])
    );
}

#[test]
fn a_key_is_plain_and_short() {
    for good in ["patch", "a", "7.x_y-z", &"a".repeat(120)] {
        assert_eq!(good.parse::<SupersedeKey>().expect(good).as_str(), good);
    }
    for wrong in ["", "-a", ".", "a b", "a/b", "ä", "a\n", &"a".repeat(121)] {
        let error = wrong.parse::<SupersedeKey>().expect_err(wrong).to_string();
        assert!(
            error.contains("no job was made") && !error.contains('\n'),
            "{error}"
        );
    }
}
