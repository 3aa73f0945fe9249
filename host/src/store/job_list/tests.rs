use sluice_database::rusqlite::types::Null;
use sluice_protocol::ids::OperationId;

use super::*;
use crate::store::row::{all, change};
use crate::store::tests_support::temporary;
use crate::store::{Store, machines, tenants};
use crate::testing::NOW;

/// A job that is made: who submits it, with which script of the library, how many milliseconds after `NOW`, and where its
/// operations are.
#[derive(Clone, Default)]
struct Made {
    operator: &'static str,
    script: Option<&'static str>,
    at: i64,
    operations: Vec<(Option<MachineId>, State)>,
}

struct Case {
    _dir: tempfile::TempDir,
    store: Store,
    tenant: TenantId,
    machine: MachineId,
}

impl Case {
    async fn new() -> Self {
        let (dir, store) = temporary();
        let machine = MachineId::generate();
        let tenant = store
            .write(move |conn| {
                let tenant = tenants::create(conn, "default", NOW)?.id;
                machines::insert(conn, tenant, machine, "web-1", &[], NOW)?;
                Ok::<_, StoreError>(tenant)
            })
            .await
            .expect("makes a tenant");
        Self {
            _dir: dir,
            store,
            tenant,
            machine,
        }
    }

    async fn job(&self, made: Made) -> JobId {
        self.job_of(self.tenant, made).await
    }

    async fn job_of(&self, tenant: TenantId, made: Made) -> JobId {
        let id = JobId::generate();
        let insert = move |conn: &Connection| insert(conn, tenant, id, &made);
        self.store.write(insert).await.expect("makes a job");
        id
    }

    fn part(&self, filter: &JobFilter, before: Option<JobId>, limit: u32, most: usize) -> Part {
        self.store
            .read(|conn| list_among(conn, self.tenant, filter, before, limit, most))
            .expect("lists")
    }

    fn listed(&self, filter: &JobFilter) -> Vec<JobId> {
        let part = self.part(filter, None, 100, LOOKED_AT);
        part.lines.iter().map(|line| line.id).collect()
    }
}

fn insert(conn: &Connection, tenant: TenantId, id: JobId, made: &Made) -> Result<(), StoreError> {
    change(
        conn,
        "INSERT INTO jobs (id, tenant, token, operator, submission, script_sha256, submitted, not_after, targets,
                           skip_security_scan, gates_revision, request_sha256, script_name, script_version)
         VALUES (?1, ?2, '', ?3, x'', ?4, ?5, 0, 1, 0, 1, '', ?6, iif(?6 IS NULL, NULL, 1))",
        params![
            id.to_string(),
            tenant.to_string(),
            made.operator,
            Digest::of(b"").to_string(),
            NOW.0 + made.at,
            made.script,
        ],
    )?;
    for (position, (machine, state)) in made.operations.iter().enumerate() {
        change(
            conn,
            "INSERT INTO operations (id, tenant, job, machine, machine_name, position, state, ended, silence_after,
                                     output_limit)
             VALUES (?, ?, ?, ?, 'web-1', ?, ?, ?, 0, 0)",
            params![
                OperationId::generate().to_string(),
                tenant.to_string(),
                id.to_string(),
                machine.map(|id| id.to_string()),
                i64::try_from(position).expect("a few"),
                state.as_str(),
                state.is_terminal(),
            ],
        )?;
    }
    Ok(())
}

#[tokio::test]
async fn each_filter_leaves_the_jobs_for_which_it_holds_and_all_of_them_hold_together() {
    let case = Case::new().await;
    let here = Some(case.machine);
    let succeeded = case
        .job(Made {
            operator: "ann",
            script: Some("backup"),
            operations: vec![(here, State::Succeeded), (None, State::Failed)],
            ..Made::default()
        })
        .await;
    let running = case
        .job(Made {
            operator: "bob",
            at: 1000,
            operations: vec![(None, State::Running), (here, State::TimedOut)],
            ..Made::default()
        })
        .await;
    let queued = case
        .job(Made {
            operator: "ann",
            at: 2000,
            operations: vec![(None, State::Queued)],
            ..Made::default()
        })
        .await;

    let any = JobFilter::default();
    let on_machine = JobFilter {
        machine: here,
        ..any.clone()
    };
    let in_state = |states: &[State]| JobFilter {
        states: states.to_vec(),
        ..any.clone()
    };
    let of = |operator: &str| JobFilter {
        operator: Some(operator.to_owned()),
        ..any.clone()
    };
    let backup = JobFilter {
        script: Some("backup".parse().expect("a name")),
        ..any.clone()
    };
    let since = |at| JobFilter {
        since: Some(UnixMillis(NOW.0 + at)),
        ..any.clone()
    };
    let until = |at| JobFilter {
        until: Some(UnixMillis(NOW.0 + at)),
        ..any.clone()
    };
    let failed = [State::Failed, State::TimedOut];
    for (filter, expected) in [
        (any.clone(), vec![queued, running, succeeded]),
        (on_machine.clone(), vec![running, succeeded]),
        (in_state(&[State::Queued]), vec![queued]),
        (in_state(&[State::Running]), vec![running]),
        (in_state(&[State::Succeeded]), vec![succeeded]),
        (in_state(&failed), vec![running, succeeded]),
        (in_state(&[State::Error]), vec![]),
        (of("ann"), vec![queued, succeeded]),
        (of("nobody"), vec![]),
        (backup.clone(), vec![succeeded]),
        (since(1000), vec![queued, running]),
        (since(2001), vec![]),
        (until(1000), vec![succeeded]),
        (until(0), vec![]),
        // Machine and state are those of one operation.
        (
            JobFilter {
                machine: here,
                ..in_state(&failed)
            },
            vec![running],
        ),
        (
            JobFilter {
                machine: here,
                ..in_state(&[State::Running])
            },
            vec![],
        ),
        (
            JobFilter {
                machine: here,
                ..of("ann")
            },
            vec![succeeded],
        ),
        (
            JobFilter {
                operator: Some("bob".to_owned()),
                ..backup.clone()
            },
            vec![],
        ),
        (
            JobFilter {
                machine: here,
                ..backup
            },
            vec![succeeded],
        ),
        (
            JobFilter {
                since: Some(NOW),
                ..until(2000)
            },
            vec![running, succeeded],
        ),
    ] {
        assert_eq!(case.listed(&filter), expected, "{filter:?}");
    }

    let lines = case.part(&any, None, 100, LOOKED_AT).lines;
    let counts = |line: &JobLine| (line.operations, line.ended, line.succeeded);
    let counts: Vec<_> = lines.iter().map(counts).collect();
    assert_eq!(counts, [(1, 0, 0), (2, 1, 0), (2, 2, 1)]);
}

#[tokio::test]
async fn what_is_days_from_the_times_that_are_asked_for_is_not_looked_at() {
    let case = Case::new().await;
    let day = DISORDER;
    let mut made = Vec::new();
    for at in [0, 3 * day, 6 * day] {
        made.push(
            case.job(Made {
                at,
                ..Made::default()
            })
            .await,
        );
    }
    let filter = JobFilter {
        since: Some(UnixMillis(NOW.0 + 2 * day)),
        until: Some(UnixMillis(NOW.0 + 4 * day)),
        ..JobFilter::default()
    };
    assert_eq!(case.listed(&filter), [made[1]]);
    // Two looks are enough to find it and to know that it is the only one.
    let part = case.part(&filter, None, 100, 2);
    assert_eq!((part.lines.len(), part.next), (1, None));
}

#[tokio::test]
async fn a_part_looks_at_a_bounded_number_of_jobs_and_the_next_goes_on_behind_them() {
    let case = Case::new().await;
    let mut of_ann = Vec::new();
    for number in 0..10 {
        let operator = if number % 5 == 0 { "ann" } else { "bob" };
        let id = case
            .job(Made {
                operator,
                script: Some("backup"),
                ..Made::default()
            })
            .await;
        if operator == "ann" {
            of_ann.insert(0, id);
        }
    }
    let filter = JobFilter {
        operator: Some("ann".to_owned()),
        script: Some("backup".parse().expect("a name")),
        ..JobFilter::default()
    };
    let (mut found, mut before, mut parts) = (Vec::new(), None, 0);
    loop {
        let part = case.part(&filter, before, 100, 3);
        assert!(part.lines.len() <= 1, "three jobs were looked at");
        found.extend(part.lines.iter().map(|line| line.id));
        parts += 1;
        before = part.next;
        if before.is_none() {
            break;
        }
        // What is made meanwhile is in front of the list and moves nothing.
        case.job(Made {
            operator: "ann",
            script: Some("backup"),
            ..Made::default()
        })
        .await;
    }
    assert_eq!((found, parts), (of_ann, 4));
}

#[tokio::test]
async fn no_list_shows_what_is_another_tenants() {
    let case = Case::new().await;
    let other = case
        .store
        .write(|conn| tenants::create(conn, "other", NOW))
        .await
        .expect("makes a tenant");
    let made = Made {
        operator: "ann",
        script: Some("backup"),
        operations: vec![
            (Some(case.machine), State::Succeeded),
            (None, State::Running),
        ],
        ..Made::default()
    };
    case.job_of(other.id, made).await;
    let any = JobFilter::default();
    for filter in [
        any.clone(),
        JobFilter {
            machine: Some(case.machine),
            ..any.clone()
        },
        JobFilter {
            states: vec![State::Succeeded],
            ..any.clone()
        },
        JobFilter {
            states: vec![State::Running],
            ..any.clone()
        },
        JobFilter {
            script: Some("backup".parse().expect("a name")),
            ..any.clone()
        },
        JobFilter {
            operator: Some("ann".to_owned()),
            ..any.clone()
        },
        JobFilter {
            since: Some(NOW),
            ..any
        },
    ] {
        assert_eq!(case.listed(&filter), [], "{filter:?}");
    }
}

#[tokio::test]
async fn every_statement_of_a_list_searches_an_index_and_sorts_nothing() {
    let case = Case::new().await;
    for (query, index) in [
        (FIRST_FROM, "COVERING INDEX jobs_submitted "),
        (ON_MACHINE, "COVERING INDEX operations_machine "),
        (OF_SCRIPT, "COVERING INDEX jobs_of_script "),
        (WITH_OUTCOME, "COVERING INDEX operations_outcome "),
        (UNENDED, "COVERING INDEX operations_unended "),
        (OF_OPERATOR, "COVERING INDEX jobs_operator "),
        (ANY, "COVERING INDEX jobs_tenant "),
        (HEAD, "COVERING INDEX jobs_tenant "),
        (COUNTS, "COVERING INDEX operations_job "),
        (COUNTS, "COVERING INDEX operations_unended "),
        (COUNTS, "COVERING INDEX operations_outcome "),
        (ON_MACHINE_IN, "INDEX operations_machine "),
        (OUTCOME_IN, "COVERING INDEX operations_outcome "),
        (UNENDED_IN, "INDEX operations_unended "),
    ] {
        let plan = case.store.read(|conn| {
            let explained = format!("EXPLAIN QUERY PLAN {query}");
            let bound = conn.prepare(&explained)?.parameter_count();
            let nulls = sluice_database::rusqlite::params_from_iter(vec![Null; bound]);
            all(conn, &explained, nulls, |row| {
                Ok(row.get::<_, String>("detail")?)
            })
        });
        let plan = plan.expect("explains");
        let looks_through = |step: &String| {
            step.starts_with("SCAN") && step != "SCAN CONSTANT ROW" || step.contains("TEMP B-TREE")
        };
        assert!(!plan.iter().any(looks_through), "{query}: {plan:#?}");
        assert!(
            plan.iter()
                .any(|step| step.contains(index) && step.contains("tenant=?")),
            "{query}: {plan:#?}"
        );
    }
}
