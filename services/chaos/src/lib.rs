//! Real misfortune: the real program in processes of its own, on real stores, killed, stopped and made to stand still while clients trade;
//! and an auditor who then compares what clients can prove with what the journal says.
//!
//! The simulation meets more faults in a second than this does in an hour. What it cannot know is whether the real Redis, the real
//! Postgres and the real operating system behave as it believes; that is what this is for. Reading order: [`mesh`] (what is struck),
//! [`strike`] (how), [`client`] (who minds), [`history`] and [`audit`] (who judges), [`report`].

pub mod audit;
pub mod book;
pub mod client;
pub mod history;
pub mod mesh;
pub mod order;
pub mod process;
pub mod progress;
pub mod proof;
pub mod report;
mod say;
pub mod strike;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use clap::Args;
use contracts::shard::of_account;
use tokio::task::JoinSet;

use crate::client::{Client, Holdings};
use crate::history::History;
use crate::mesh::Mesh;
use crate::order::Door;
use crate::progress::Progress;
use crate::report::{Report, Tally};
use crate::strike::{Deck, Marks, Strike, Striker};

/// New acknowledgements between two strikes at least. One that strikes by the clock finds the mesh down most of the time, and a
/// mesh that is down makes no mistakes.
pub const PROGRESS_MIN: u64 = 40;

/// Kills, stops and empties everything under load, again and again, and then proves that nothing acknowledged was lost or done twice.
///
/// It starts private stores, two engines, two gateways, a poller and a recorder, each a process of its own, and needs nothing else.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// How many strikes.
    #[arg(long, env = "FULCRUM_CHAOS_KILLS", default_value_t = 200, value_name = "COUNT")]
    pub kills: u32,
    /// How many acknowledged operations at least.
    #[arg(long, env = "FULCRUM_CHAOS_ACKS", default_value_t = 50_000, value_name = "COUNT")]
    pub acks: u64,
    /// Decides what is struck, and when. Another one each time unless given.
    #[arg(long, env = "FULCRUM_CHAOS_SEED", value_name = "NUMBER")]
    pub seed: Option<u64>,
    /// Clients, each with an account of its own; at least one for each shard.
    #[arg(long, env = "FULCRUM_CHAOS_CLIENTS", default_value_t = 16, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub clients: u32,
    /// Number of shards.
    #[arg(long, env = "FULCRUM_CHAOS_SHARDS", default_value_t = 8, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=1_024))]
    pub shards: u32,
    /// How long Postgres stays away when it is stopped. Seconds.
    #[arg(long, env = "FULCRUM_CHAOS_OUTAGE", default_value_t = 30, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(3..=600))]
    pub outage: u64,
    /// The program that is struck; this one unless given.
    #[arg(long, env = "FULCRUM_CHAOS_PROGRAM", value_name = "FILE")]
    pub program: Option<PathBuf>,
}

/// Runs `fulcrum chaos`.
///
/// # Errors
/// When a promise was broken, or the mesh does not come up.
pub async fn command(options: Options) -> anyhow::Result<()> {
    let program = match &options.program {
        Some(program) => program.clone(),
        None => std::env::current_exe().context("our own program")?,
    };
    let (report, _) = run(&program, &options).await?;
    say::line(&report);
    if report.is_good() {
        return Ok(());
    }
    bail!("a promise was broken: run it again with --seed {}", report.seed)
}

/// One run, from start to judgement. The history is what was judged.
///
/// # Errors
/// When the mesh does not come up, or stands still for good.
pub async fn run(program: &Path, options: &Options) -> anyhow::Result<(Report, History)> {
    ensure!(
        options.clients >= options.shards,
        "{} clients cannot be on all of {} shards: ask for more clients, or for fewer shards",
        options.clients,
        options.shards
    );
    let seed = options.seed.unwrap_or_else(rand::random);
    say::aside(format!("seed {seed}"));
    let begun = Instant::now();
    let mut mesh = Mesh::start(program, options.shards).await?;
    match strike_and_judge(&mut mesh, options, seed, begun).await {
        Ok((report, history)) => {
            if !report.is_good() {
                say::aside(format!(
                    "logs and acknowledgements are in {}",
                    mesh.keep_files().display()
                ));
            }
            Ok((report, history))
        }
        Err(error) => {
            let files = mesh.keep_files();
            Err(error.context(format!(
                "seed {seed}; logs and acknowledgements are in {}",
                files.display()
            )))
        }
    }
}

async fn strike_and_judge(
    mesh: &mut Mesh,
    options: &Options,
    seed: u64,
    begun: Instant,
) -> anyhow::Result<(Report, History)> {
    let progress = Arc::new(Progress::new(options.shards));
    let mut party = Party::gather(mesh, options.clients, seed, &progress).await?;
    let (mut deck, mut marks, mut strikes) = (Deck::new(seed), Marks::default(), BTreeMap::<Strike, Tally>::new());
    let mut striker = Striker {
        mesh,
        progress: &progress,
        deck: &mut deck,
        marks: &mut marks,
        outage: Duration::from_secs(options.outage),
    };
    striker
        .until("the first answers", |progress| progress.acknowledged() >= PROGRESS_MIN)
        .await?;
    striker.mesh.redis.keep_copy().await;
    progress.take_gap();
    // So many that the acknowledgements are there by the time of the last strike.
    let each = (options.acks / u64::from(options.kills.max(1))).max(PROGRESS_MIN);
    for number in 1..=options.kills {
        let what = striker.deck.draw();
        let struck = Instant::now();
        let before = progress.acknowledged();
        striker
            .strike(what)
            .await
            .with_context(|| format!("strike {number}, {what:?}"))?;
        progress.next_round();
        let spread = (each - PROGRESS_MIN).min(each / 2);
        let goal = before + striker.deck.between(each - spread, each + spread);
        striker
            .until("new acknowledgements", |progress| progress.acknowledged() >= goal)
            .await
            .with_context(|| format!("after strike {number}, {what:?}"))?;
        let tally = strikes.entry(what).or_default();
        tally.count += 1;
        tally.worst_gap = tally.worst_gap.max(progress.take_gap());
        say::aside(format!(
            "{number}/{} {what:?}: {} acknowledged, {:.1} s",
            options.kills,
            progress.acknowledged(),
            struck.elapsed().as_secs_f64()
        ));
    }
    striker
        .until("the last acknowledgements", |progress| {
            progress.acknowledged() >= options.acks
        })
        .await?;
    progress.stop();
    let holdings = party.end(&mut striker).await?;
    say::aside("waiting for the recorder, then judging");
    mesh.until_recorded().await?;
    let history = History::gather(mesh.shards, &mesh.pool, &party.files, &holdings, &party.doors).await?;
    if let Err(error) = mesh.verify().await {
        progress.fault(format!("{error:#}"));
    }
    let report = Report {
        seed,
        took: begun.elapsed(),
        strikes,
        acknowledged: progress.acknowledged(),
        repeated: progress.repeated(),
        again: progress.agains(),
        worst_gap: progress.worst_gap(),
        marks,
        judged: (history.journal.len(), history.operations.len(), history.ledger.len()),
        faults: progress.faults(),
        findings: audit::audit(&history),
    };
    Ok((report, history))
}

/// The account of a client, one that lives on this shard: by chance alone some shards would have none, and nobody would notice whether
/// they answer.
fn account_on(number: u32, shard: u32, shards: u32) -> String {
    let names = (0_u32..).map(|n| format!("client-{number}-{n}"));
    let mut there = names.filter(|account| of_account(account, shards) == shard);
    there.next().expect("one name of a few fits")
}

/// The clients of a run.
struct Party {
    trading: JoinSet<anyhow::Result<Holdings>>,
    files: Vec<PathBuf>,
    doors: BTreeMap<String, Door>,
}

impl Party {
    async fn gather(mesh: &Mesh, count: u32, seed: u64, progress: &Arc<Progress>) -> anyhow::Result<Self> {
        let mut party = Self {
            trading: JoinSet::new(),
            files: Vec::new(),
            doors: BTreeMap::new(),
        };
        for number in 0..count {
            let shard = number % mesh.shards;
            let account = account_on(number, shard, mesh.shards);
            let token = mesh.token(&account).await?;
            let doors = [
                Door::new(mesh.gateways[0], &token)?,
                Door::new(mesh.gateways[1], &token)?,
            ];
            let file = mesh.path(&format!("{account}.jsonl"));
            party.doors.insert(account.clone(), doors[0].clone());
            party.files.push(file.clone());
            let seed = seed.wrapping_mul(1_000).wrapping_add(u64::from(number));
            let client = Client::new(account, shard, doors, file, seed, Arc::clone(progress)).await?;
            party.trading.spawn(client.run());
        }
        Ok(party)
    }

    /// Waits for all of them.
    async fn end(&mut self, striker: &mut Striker<'_>) -> anyhow::Result<Vec<Holdings>> {
        let mut holdings = Vec::new();
        while !self.trading.is_empty() {
            let next = tokio::time::timeout(Duration::from_millis(100), self.trading.join_next());
            if let Ok(Some(ended)) = next.await {
                holdings.push(ended.context("a client panicked")??);
            }
            striker.mind()?;
        }
        Ok(holdings)
    }
}
