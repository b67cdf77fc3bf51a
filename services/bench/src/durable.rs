//! What it costs that nothing acknowledged is lost: the journal beside a file, calls with and without it, and the recorder behind it.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use sqlx::{Connection as _, PgConnection};

use crate::compare::{Rounds, Side};
use crate::load::{self, Door, Loop, Plan, Work};
use crate::marks::{Limit, Mark};
use crate::mesh::{Mesh, MeshSettings, PATH, RECORDERS};
use crate::report::Report;
use crate::sample::{Sample, Spread};
use crate::yardstick::disk;
use crate::{Timing, say};

/// Events of the batches that are judged.
const BATCH: usize = 256;
/// A database of the bench's own in the server of the mesh.
const SCRATCH: &str = "bench_journal";
/// How long the recorder may be behind after a run.
const GONE_WITHIN: Duration = Duration::from_secs(30);
/// Pause between two looks at how far behind it is.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Calls of this many measurements are made while the recorder is watched.
const LONGER: u32 = 3;

/// Mark 13: the engine's journal and a file on the same disk, in turn.
///
/// # Errors
/// When the database cannot be made.
pub async fn journal(mesh: &Mesh, timing: Timing, rounds: usize, report: &mut Report) -> anyhow::Result<()> {
    let what = "journal at batch 256, events/s ÷ file with fdatasync";
    let (Some(database), Some(directory), Some(program)) = (&mesh.database, &mesh.directory, &mesh.program) else {
        report.judged(Mark::unmeasured(13, what, "only on a mesh that was started for it"));
        return Ok(());
    };
    let mut connection = PgConnection::connect(database).await.context("the database")?;
    sqlx::query("CREATE DATABASE bench_journal")
        .execute(&mut connection)
        .await?;
    let scratch = database.replacen("/fulcrum?", &format!("/{SCRATCH}?"), 1);
    let migrated = Command::new(program)
        .arg("migrate")
        .arg(format!("--database-url={scratch}"))
        .arg("--shards=1")
        .output()
        .context("migrating")?;
    ensure!(
        migrated.status.success(),
        "migrating: {}",
        String::from_utf8_lossy(&migrated.stderr)
    );
    let measured = {
        let (scratch, server, measure) = (scratch.as_str(), mesh.postgres, timing.measure);
        let file: Side<'_> = Box::new(move || Box::pin(disk::file(directory, BATCH, measure)));
        let ours: Side<'_> = Box::new(move || Box::pin(disk::journal(scratch, server, BATCH, measure)));
        Rounds::of("journal and file", rounds, &[file, ours]).await
    };
    sqlx::query("DROP DATABASE bench_journal WITH (FORCE)")
        .execute(&mut connection)
        .await?;
    let measured = measured?;
    let seen = measured.spread(|it| it[1].per_second / it[0].per_second);
    report.judged(Mark::judge(13, what, Limit::AtLeast(0.5), seen).noting(&measured.note()));
    measured.typical().into_iter().for_each(|sample| report.add(sample));
    Ok(())
}

/// Mark 4: the same calls on a mesh whose engine keeps its journal in memory.
///
/// # Errors
/// When that mesh does not start.
pub async fn without(
    mesh: &Mesh,
    settings: &MeshSettings,
    timing: Timing,
    rounds: usize,
    report: &mut Report,
) -> anyhow::Result<()> {
    let what = "cpu of an open with the journal ÷ without it, 256 at once";
    if !mesh.is_ours() {
        report.judged(Mark::unmeasured(4, what, "only on a mesh that was started for it"));
        return Ok(());
    }
    let memory = Mesh::unjournaled(settings).await?;
    let plan = Plan {
        work: Work::Open,
        door: Door::Grpc,
        load: Loop::Closed { concurrency: 256 },
        warm_up: timing.warm_up,
        measure: timing.measure,
    };
    let of = |name: &'static str, mesh: &Mesh| -> Side<'_> {
        let target = mesh.target.clone();
        Box::new(move || {
            let target = target.clone();
            Box::pin(async move { load::run(name, &target, plan).await })
        })
    };
    let sides = [of("mesh", mesh), of("without a journal", &memory)];
    let measured = Rounds::of("with and without a journal", rounds, &sides).await?;
    let seen = measured.spread(|it| it[0].cpu_of(&PATH) / it[1].cpu_of(&PATH));
    report.judged(Mark::judge(4, what, Limit::AtMost(1.2), seen).noting(&measured.note()));
    let alone = measured.typical().split_off(1);
    alone.into_iter().for_each(|sample| report.add(sample));
    Ok(())
}

/// Mark 17: how far the recorder is behind while trades are opened, and when it is there again.
///
/// # Errors
/// When the database is away.
pub async fn recorder(mesh: &Mesh, timing: Timing, report: &mut Report) -> anyhow::Result<()> {
    let Some(backends) = &mesh.backends else {
        report.judged(Mark::unmeasured(17, "the recorder's lag", "its database is not known"));
        return Ok(());
    };
    let mut backends = backends.lock().await;
    settled(&mut backends).await?;
    backends.most_behind();
    let plan = Plan {
        work: Work::Open,
        door: Door::Grpc,
        load: Loop::Closed { concurrency: 256 },
        warm_up: timing.warm_up,
        measure: timing.measure * LONGER,
    };
    let sample = load::run("mesh, recorder watched:", &mesh.target, plan).await?;
    let most = backends.most_behind();
    let after = settled(&mut backends).await?;
    let left = backends.behind().await?;
    let one = |value: f64| Spread::of(&[value]);
    let cpu = |name: &str, sample: &Sample| one(sample.cpu_of(&[name]));
    report.figure(
        "recorder, an open at 256 at once: its own processor time",
        "µs",
        cpu("recorder", &sample),
    );
    report.figure("what it makes Postgres do for one", "µs", cpu(RECORDERS, &sample));
    report.figure("most journal entries it was behind", "", one(most as f64));
    report.figure("until it had them all", "s", one(after.as_secs_f64()));
    let seconds = most as f64 / sample.per_second;
    report.judged(Mark::judge(
        17,
        "recorder: most seconds of opens it was behind during a run",
        Limit::AtMost(5.0),
        one(seconds),
    ));
    let gone = if left == 0 { after.as_secs_f64() } else { f64::MAX };
    report.judged(Mark::judge(
        17,
        "recorder: seconds after the run until it had them all",
        Limit::AtMost(GONE_WITHIN.as_secs_f64()),
        one(gone),
    ));
    report.add(sample);
    Ok(())
}

/// Waits until the recorder has everything, but not for ever.
async fn settled(backends: &mut crate::backends::Backends) -> anyhow::Result<Duration> {
    let begun = Instant::now();
    while backends.behind().await? > 0 && begun.elapsed() < GONE_WITHIN {
        tokio::time::sleep(LOOK_EVERY).await;
    }
    if backends.behind().await? > 0 {
        say::aside("the recorder is still behind");
    }
    Ok(begun.elapsed())
}
