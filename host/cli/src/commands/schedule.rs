//! `sluice schedule`: scripts that run by themselves.

use clap::{Args, Subcommand};
use sluice_api_types::schedule::{
    AddSchedule, MachineEvent, OnMissed, OnOverlap, RunState, Schedule, ScheduleRun, ScheduleState,
};
use sluice_protocol::units::Span;

use super::run::{JobArgs, Prepared};
use crate::command_line::Global;
use crate::error::Error;
use crate::exit;
use crate::host::Client;
use crate::output::{self, List};

/// How many of the last runs `show` shows.
const LAST: u64 = 10;

/// Commands about schedules.
#[derive(Debug, Subcommand)]
pub(crate) enum ScheduleCommand {
    /// Have a script run at a time, by a cron expression, at an interval, or when something happens to a machine
    Add(Box<AddArgs>),
    /// List schedules
    List {
        /// The tenant
        #[arg(long, value_name = "T")]
        tenant: Option<String>,
    },
    /// Show a schedule, its next three runs and its last ones
    Show {
        /// Its name or id
        schedule: String,
    },
    /// Let a schedule run no more until it is resumed
    Pause {
        /// Its name or id
        schedule: String,
    },
    /// Go on with a schedule; what was planned in between is not made up for
    Resume {
        /// Its name or id
        schedule: String,
    },
    /// Remove a schedule; jobs that it made go on
    Remove {
        /// Its name or id
        schedule: String,
    },
}

/// Options of `sluice schedule add`.
#[derive(Debug, Args)]
pub(crate) struct AddArgs {
    /// What to call it
    name: String,
    #[command(flatten)]
    job: JobArgs,
    /// Run once, for example at 2026-11-22T03:00:00+01:00
    #[arg(long, value_name = "TIME", required_unless_present_any = ["cron", "every", "event"], conflicts_with_all = ["cron", "every", "event"], help_heading = "When")]
    at: Option<String>,
    /// Run by a cron expression of five fields, for example "0 3 * * *"
    #[arg(
        long,
        value_name = "EXPR",
        conflicts_with_all = ["every", "event"],
        help_heading = "When"
    )]
    cron: Option<String>,
    /// Run at an interval, for example 6h
    #[arg(
        long,
        value_name = "DURATION",
        conflicts_with = "event",
        help_heading = "When"
    )]
    every: Option<Span>,
    /// Run on a machine when this happens to it: enrolled, online or facts-changed
    #[arg(long, value_name = "WHAT", value_parser = event, help_heading = "When")]
    event: Option<MachineEvent>,
    /// With --event: the least time between two runs on one machine (1h where absent)
    #[arg(
        long,
        value_name = "DURATION",
        requires = "event",
        help_heading = "When"
    )]
    at_most_every: Option<Span>,
    /// The time zone of --at or --cron, for example Europe/Berlin (UTC where absent)
    #[arg(
        long,
        value_name = "ZONE",
        conflicts_with = "every",
        help_heading = "When"
    )]
    zone: Option<String>,
    /// Start each run later than planned by up to this
    #[arg(long, value_name = "DURATION", help_heading = "When")]
    jitter: Option<Span>,
    /// Runs that were missed because the host did not run: skip, once or all
    #[arg(long, value_name = "WHAT", value_parser = on_missed, default_value = "once", help_heading = "When")]
    missed: OnMissed,
    /// A run while the one before has not ended: skip, queue or cancel (the one before)
    #[arg(long, value_name = "WHAT", value_parser = on_overlap, default_value = "skip", help_heading = "When")]
    overlap: OnOverlap,
}

fn event(word: &str) -> Result<MachineEvent, String> {
    MachineEvent::from_word(word).ok_or_else(|| "enrolled, online or facts-changed".to_owned())
}

fn on_missed(word: &str) -> Result<OnMissed, String> {
    match word {
        "skip" => Ok(OnMissed::Skip),
        "once" => Ok(OnMissed::Once),
        "all" => Ok(OnMissed::All),
        _ => Err("skip, once or all".to_owned()),
    }
}

fn on_overlap(word: &str) -> Result<OnOverlap, String> {
    match word {
        "skip" => Ok(OnOverlap::Skip),
        "queue" => Ok(OnOverlap::Queue),
        "cancel" => Ok(OnOverlap::Cancel),
        _ => Err("skip, queue or cancel".to_owned()),
    }
}

/// Runs the command.
pub(crate) async fn run(global: &Global, command: ScheduleCommand) -> Result<u8, Error> {
    match command {
        ScheduleCommand::Add(arguments) => add(global, *arguments).await,
        ScheduleCommand::List { tenant } => list(global, tenant.as_deref()).await,
        ScheduleCommand::Show { schedule } => show(global, &schedule).await,
        ScheduleCommand::Pause { schedule } => change(global, &schedule, "pause").await,
        ScheduleCommand::Resume { schedule } => change(global, &schedule, "resume").await,
        ScheduleCommand::Remove { schedule } => {
            let request = Client::new(global)?;
            request.delete(&["schedules", &schedule])?.send().await?;
            if !global.json {
                output::print(&format!("removed schedule {schedule}\n"))?;
            }
            Ok(exit::SUCCESS)
        }
    }
}

async fn add(global: &Global, arguments: AddArgs) -> Result<u8, Error> {
    let prepared = Prepared::read(arguments.job)?;
    let client = Client::new(global)?;
    let request = AddSchedule {
        name: arguments.name,
        at: arguments.at,
        cron: arguments.cron,
        zone: arguments.zone,
        every: arguments.every,
        event: arguments.event,
        at_most_every: arguments.at_most_every,
        jitter: arguments.jitter,
        missed: arguments.missed,
        overlap: arguments.overlap,
        job: prepared.upload(&client).await?,
    };
    let added: Schedule = client.post(&["schedules"])?.body(&request).json().await?;
    print(global, &added)?;
    Ok(exit::SUCCESS)
}

async fn list(global: &Global, tenant: Option<&str>) -> Result<u8, Error> {
    let mut list = List::new(
        &["name", "state", "when", "next", "last", "owner"],
        global.json,
    );
    let each = |schedules: Vec<Schedule>| {
        list.write(&schedules, |schedule| {
            vec![
                schedule.name.clone(),
                state(schedule.state).to_owned(),
                when(schedule),
                schedule
                    .next
                    .first()
                    .map_or_else(String::new, |next| next.local.clone()),
                schedule.last.as_ref().map_or_else(String::new, outcome),
                schedule.operator.clone(),
            ]
        })?;
        Ok(true)
    };
    Client::new(global)?
        .pages(&["schedules"], &[("tenant", tenant)], None, None, each)
        .await?;
    Ok(exit::SUCCESS)
}

/// With `--json` one object: the schedule, and its last runs as `runs`.
async fn show(global: &Global, schedule: &str) -> Result<u8, Error> {
    let client = Client::new(global)?;
    let path = ["schedules", schedule];
    let mut shown: serde_json::Value = client.get(&path)?.json().await?;
    let mut runs: Vec<serde_json::Value> = Vec::new();
    client
        .pages(
            &["schedules", schedule, "runs"],
            &[],
            None,
            Some(LAST),
            |part| {
                runs.extend(part);
                Ok(true)
            },
        )
        .await?;
    if global.json {
        shown["runs"] = runs.into();
        output::json_line(&shown)?;
        return Ok(exit::SUCCESS);
    }
    let read = |error: serde_json::Error| Error::Answer(error.to_string());
    print(global, &serde_json::from_value(shown).map_err(read)?)?;
    let fields = runs
        .into_iter()
        .map(|run| {
            let run: ScheduleRun = serde_json::from_value(run)?;
            let on = run.machine.as_ref();
            let on = on.map_or_else(String::new, |machine| format!(" {machine}"));
            let text = format!("{}{on} {}", run.planned_at, outcome(&run));
            Ok(("run", Some(text)))
        })
        .collect::<Result<Vec<_>, _>>()
        .map_err(read)?;
    output::print(&output::record(&fields))?;
    Ok(exit::SUCCESS)
}

async fn change(global: &Global, schedule: &str, what: &str) -> Result<u8, Error> {
    let changed: Schedule = Client::new(global)?
        .post(&["schedules", schedule, what])?
        .json()
        .await?;
    print(global, &changed)?;
    Ok(exit::SUCCESS)
}

fn print(global: &Global, schedule: &Schedule) -> Result<(), Error> {
    if global.json {
        return output::json_line(schedule);
    }
    let script = schedule.script.as_ref().map(|of| match of.version {
        Some(version) => format!("{}@{version}", of.name),
        None => of.name.clone(),
    });
    let digest = schedule.script_sha256.to_string();
    let mut fields = vec![
        ("schedule", Some(schedule.name.clone())),
        ("id", Some(schedule.schedule.to_string())),
        ("state", Some(state(schedule.state).to_owned())),
        ("when", Some(when(schedule))),
        ("zone", Some(schedule.zone.clone())),
        ("jitter", schedule.jitter.map(|span| span.to_string())),
        ("on", Some(machines(schedule))),
        ("as", schedule.run_as.clone()),
        (
            "confinement",
            schedule.confinement.map(|asked| asked.to_string()),
        ),
        ("owner", Some(schedule.operator.clone())),
        ("script", script),
        ("script sha256", Some(digest)),
        ("paused by", schedule.paused_by.clone()),
    ];
    let next = schedule.next.iter();
    fields.extend(next.map(|next| ("next", Some(next.local.clone()))));
    output::print(&output::record(&fields))
}

const fn state(state: ScheduleState) -> &'static str {
    match state {
        ScheduleState::Active => "active",
        ScheduleState::Paused => "paused",
        ScheduleState::Ended => "ended",
    }
}

fn when(schedule: &Schedule) -> String {
    let at = schedule.at.as_ref().map(|at| format!("at {at}"));
    let every = schedule.every.map(|every| format!("every {every}"));
    let cron = schedule
        .cron
        .as_ref()
        .map(|cron| format!("{cron} ({})", schedule.zone));
    let event = schedule.event.map(|event| {
        let pause = schedule.at_most_every.unwrap_or_default();
        format!(
            "a machine is {}, at most every {pause}",
            match event {
                MachineEvent::Enrolled => "enrolled",
                MachineEvent::Online => "online",
                MachineEvent::FactsChanged => "known by other facts",
            }
        )
    });
    at.or(every).or(cron).or(event).unwrap_or_default()
}

fn machines(schedule: &Schedule) -> String {
    let condition = schedule.condition.as_deref();
    let all = schedule.all || (schedule.machines.is_empty() && schedule.tags.is_empty());
    if all {
        return condition.map_or_else(
            || "all machines".to_owned(),
            |condition| format!("machines where {condition}"),
        );
    }
    let tags = schedule
        .tags
        .iter()
        .map(|tag| format!("{}={}", tag.key, tag.value));
    let named = schedule.machines.iter().cloned();
    let some = named.chain(tags).collect::<Vec<_>>().join(", ");
    condition.map_or_else(
        || some.clone(),
        |condition| format!("{some} where {condition}"),
    )
}

fn outcome(run: &ScheduleRun) -> String {
    match (run.state, &run.job, &run.reason) {
        (RunState::Waiting, ..) => "waits for the run before".to_owned(),
        (_, Some(job), None) => format!("job {job}"),
        (_, Some(job), Some(reason)) => format!("job {job} ({reason})"),
        (_, None, reason) => format!(
            "no job: {}",
            reason.as_deref().unwrap_or("no reason is known")
        ),
    }
}
