//! A script through a shim that waits ready (private directory, cgroups, limits, spool, rights dropped, everything removed
//! again) against the job floor.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use sluice_agent::exec::spawn::Launcher;
use sluice_agent::exec::users::{self, Allowed};
use sluice_shim::event::{End, Event};
use sluice_shim::spec::{Attachments, Limits, Opened, Profile, Script, Spec};

use crate::floor::{SCRIPT, job_floor};
use crate::samples::{Samples, ratio};

const ROUNDS: usize = 5;
const RUNS: usize = 100;

pub(crate) fn run() -> Result<()> {
    if !nix::unistd::Uid::effective().is_root() {
        println!("   left out: running scripts as another user needs root");
        return Ok(());
    }
    let shim = sluice_tests::binaries().join("sluice-shim");
    let directory = tempfile::tempdir()?;
    std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o711))?;
    let launcher = Launcher::with_shim(&shim, directory.path().to_owned())?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let (mut floor, mut through) = (Samples::default(), Samples::default());
    for round in 0..ROUNDS {
        for _ in 0..RUNS {
            floor.push(job_floor()?);
        }
        for run in 0..RUNS {
            let spec = spec(directory.path(), &format!("bench-{round}-{run}"))?;
            through.push(runtime.block_on(operation(&launcher, &spec))?);
        }
    }
    floor.show("job floor: file, chown, bash as nobody");
    through.show("shim: hand over to last event");
    println!("   ratio of the medians: {:.2}", ratio(&through, &floor));
    Ok(())
}

async fn operation(launcher: &Launcher, spec: &Spec) -> Result<Duration> {
    launcher.prepare_spare().await?;
    // The spare is there while an operation passes its gates.
    tokio::time::sleep(Duration::from_millis(3)).await;
    let started = Instant::now();
    let mut running = launcher.describe(spec).await?.go().await?;
    let (mut output, mut end) = (Vec::new(), None);
    while let Some(event) = running.next().await? {
        match event {
            Event::Output { bytes, .. } => output.extend_from_slice(&bytes),
            Event::Exited(outcome) => end = Some(outcome.end),
            _ => {}
        }
    }
    let elapsed = started.elapsed();
    ensure!(
        output == b"hello\n" && end == Some(End::Code(0)),
        "another outcome: {end:?}"
    );
    Ok(elapsed)
}

fn spec(directory: &Path, name: &str) -> Result<Spec> {
    let allowed = Allowed::Names(vec!["nobody".to_owned()]);
    Ok(Spec {
        operation: format!("{name}-{}", std::process::id()),
        spool: directory.join(name),
        workspace_base: directory.join("run"),
        interpreter: "/bin/bash".into(),
        flags: Vec::new(),
        script: Script {
            name: "script".to_owned(),
            bytes: SCRIPT.as_bytes().to_vec().into(),
        },
        arguments: Vec::new(),
        environment: Vec::new(),
        user: users::resolve("nobody", &allowed)
            .context("there is no user nobody")?
            .to_spec(),
        attachments: Attachments::default(),
        secrets: Vec::new(),
        limits: Limits {
            time: Duration::from_secs(60),
            grace: Duration::from_secs(1),
            output: 1 << 20,
            memory: Some(512 << 20),
            processes: Some(512),
            cpu_percent: Some(100),
            file_size: Some(1 << 30),
            open_files: Some(1024),
        },
        no_new_privs: true,
        profile: Profile::None,
        opened: Opened::default(),
        hidden: Vec::new(),
    })
}
