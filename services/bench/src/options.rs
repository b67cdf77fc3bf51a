//! The commands of the bench and their options.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};

use crate::Timing;
use crate::load::{Door, Loop, Work};
use crate::mesh::MeshSettings;
use crate::unjournaled::UnjournaledOptions;
use crate::yardstick::lists::Way;

/// Measures what calls cost: processor time a call, calls a second, latency, and all of it beside yardsticks of the same run.
#[derive(Debug, Args)]
pub struct Options {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// A bare gRPC server with the same messages: the first yardstick.
    Echo(EchoOptions),
    /// Request and reply over two Redis lists with nothing behind them, and our own queue beside it: the second yardstick.
    Redis(RedisOptions),
    /// A file with fdatasync, and commits to Postgres: the third yardstick.
    Fsync(FsyncOptions),
    /// Opening trades; they pile up.
    Open(LoadOptions),
    /// Opening a trade and closing it, again and again.
    OpenClose(LoadOptions),
    /// Reading balances.
    Balance(LoadOptions),
    /// Eight reads to an open and a close.
    Mix(LoadOptions),
    /// Interleaved rounds of yardstick and mesh, and whether each mark is met.
    Compare(CompareOptions),
    /// The margin state machine alone: commands, ticks, memory, replaying.
    Core(InsideOptions),
    /// A start without a standby: from the first journal entry, and from a snapshot.
    Recovery(InsideOptions),
    /// What a leader loses while a snapshot of a large state is made.
    Snapshot(InsideOptions),
    /// What durability costs: the journal beside a file, calls without it, how far the recorder is behind.
    Durable(CompareOptions),
    /// Opens a second with few trades open and with many.
    Pile(CompareOptions),
    /// Quotes a second through the real poller and engine, and their age when they are decided on.
    Ticks(TicksOptions),
    /// Account events told to many subscribers.
    Streams(StreamsOptions),
    /// An engine whose journal is its memory; the bench starts it itself.
    #[command(hide = true)]
    Engine(UnjournaledOptions),
    /// All of the above.
    All(AllOptions),
}

/// How long a measurement takes.
#[derive(Args, Clone, Copy, Debug)]
pub struct TimingSettings {
    /// How long each measurement counts. Seconds.
    #[arg(long, env = "FULCRUM_BENCH_SECONDS", default_value_t = 3.0, value_name = "SECONDS", value_parser = seconds)]
    seconds: f64,
    /// How long load runs before it counts. Seconds.
    #[arg(long, env = "FULCRUM_BENCH_WARM_UP", default_value_t = 1.0, value_name = "SECONDS", value_parser = seconds)]
    warm_up: f64,
}

impl TimingSettings {
    pub(crate) fn timing(self) -> Timing {
        Timing {
            warm_up: Duration::from_secs_f64(self.warm_up),
            measure: Duration::from_secs_f64(self.seconds),
        }
    }
}

/// Where results go besides the terminal.
#[derive(Args, Clone, Debug)]
pub(crate) struct OutSettings {
    /// Writes the results as JSON.
    #[arg(long, env = "FULCRUM_BENCH_JSON", value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// Draws latency against rate, as SVG.
    #[arg(long, env = "FULCRUM_BENCH_PLOT", value_name = "FILE")]
    pub(crate) plot: Option<PathBuf>,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct LoopSettings {
    /// Calls at once, each number a measurement.
    #[arg(
        long,
        env = "FULCRUM_BENCH_CONCURRENCY",
        value_delimiter = ',',
        default_value = "1,16,64,256,1024",
        value_name = "COUNT",
        value_parser = clap::value_parser!(u32).range(1..=8_192)
    )]
    pub(crate) concurrency: Vec<u32>,
    /// Calls begun a second whatever becomes of those before, each number a measurement.
    #[arg(long, env = "FULCRUM_BENCH_RATE", value_delimiter = ',', value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) rate: Vec<u32>,
}

impl LoopSettings {
    pub(crate) fn loops(&self) -> Vec<Loop> {
        let closed = self.concurrency.iter().map(|&count| Loop::Closed {
            concurrency: count as usize,
        });
        let open = self.rate.iter().map(|&count| Loop::Open {
            per_second: f64::from(count),
        });
        closed.chain(open).collect()
    }
}

#[derive(Args, Clone, Debug)]
pub(crate) struct EchoOptions {
    /// Which messages.
    #[arg(long, env = "FULCRUM_BENCH_WORK", value_enum, default_value_t = Work::Open)]
    pub(crate) work: Work,
    #[command(flatten)]
    pub(crate) loops: LoopSettings,
    #[command(flatten)]
    pub(crate) timing: TimingSettings,
    #[command(flatten)]
    pub(crate) out: OutSettings,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct RedisOptions {
    /// How requests and replies travel.
    #[arg(
        long,
        env = "FULCRUM_BENCH_WAY",
        value_enum,
        value_delimiter = ',',
        default_value = "aggregated,naive,ours"
    )]
    pub(crate) way: Vec<Way>,
    #[command(flatten)]
    pub(crate) loops: LoopSettings,
    #[command(flatten)]
    pub(crate) timing: TimingSettings,
    #[command(flatten)]
    pub(crate) out: OutSettings,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct FsyncOptions {
    /// Directory for the file: on the disk that the database is on.
    #[arg(long, env = "FULCRUM_BENCH_DIRECTORY", default_value = ".", value_name = "DIRECTORY")]
    pub(crate) directory: PathBuf,
    /// Database for the commits; none are measured without it. A table is made and removed.
    #[arg(long, env = "FULCRUM_BENCH_DATABASE_URL", hide_env_values = true, value_name = "URL")]
    pub(crate) database_url: Option<String>,
    #[command(flatten)]
    pub(crate) timing: TimingSettings,
    #[command(flatten)]
    pub(crate) out: OutSettings,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct LoadOptions {
    #[command(flatten)]
    pub(crate) mesh: MeshSettings,
    /// Through which door, each a measurement.
    #[arg(
        long,
        env = "FULCRUM_BENCH_DOOR",
        value_enum,
        value_delimiter = ',',
        default_value = "grpc,rest,grpc-web"
    )]
    pub(crate) door: Vec<Door>,
    #[command(flatten)]
    pub(crate) loops: LoopSettings,
    #[command(flatten)]
    pub(crate) timing: TimingSettings,
    #[command(flatten)]
    pub(crate) out: OutSettings,
}

/// How large it is what is measured in this process alone.
#[derive(Args, Clone, Debug)]
pub(crate) struct InsideSettings {
    /// Open trades of the largest state.
    #[arg(
        long,
        env = "FULCRUM_BENCH_OPEN_TRADES",
        default_value_t = 1_000_000,
        value_name = "COUNT"
    )]
    pub(crate) open_trades: usize,
    /// Journal entries after a snapshot.
    #[arg(long, env = "FULCRUM_BENCH_TAIL", default_value_t = 100_000, value_name = "COUNT")]
    pub(crate) tail: usize,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct InsideOptions {
    #[command(flatten)]
    pub(crate) inside: InsideSettings,
    /// How often each figure is taken.
    #[arg(long, env = "FULCRUM_BENCH_ROUNDS", default_value_t = 7, value_name = "COUNT")]
    pub(crate) rounds: usize,
    #[command(flatten)]
    pub(crate) out: OutSettings,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct CompareOptions {
    #[command(flatten)]
    pub(crate) mesh: MeshSettings,
    /// Rounds of each comparison.
    #[arg(long, env = "FULCRUM_BENCH_ROUNDS", default_value_t = 7, value_name = "COUNT")]
    pub(crate) rounds: usize,
    /// Trades that are opened to see whether many make it slower.
    #[arg(long, env = "FULCRUM_BENCH_PILE", default_value_t = 200_000, value_name = "COUNT")]
    pub(crate) pile: u64,
    #[command(flatten)]
    pub(crate) timing: TimingSettings,
    #[command(flatten)]
    pub(crate) out: OutSettings,
}

/// Frames a second that are sent.
#[derive(Args, Clone, Debug)]
pub(crate) struct RateSettings {
    /// Frames a second that the venue sends, each number a measurement.
    #[arg(
        long,
        env = "FULCRUM_BENCH_TICK_RATE",
        value_delimiter = ',',
        default_value = "300,3000,30000",
        value_name = "COUNT",
        value_parser = clap::value_parser!(u32).range(1..=200_000)
    )]
    pub(crate) tick_rate: Vec<u32>,
}

/// How many are told.
#[derive(Args, Clone, Debug)]
pub(crate) struct SubscriberSettings {
    /// Streams of account events, spread over the accounts that trade.
    #[arg(long, env = "FULCRUM_BENCH_SUBSCRIBERS", default_value_t = 512, value_name = "COUNT")]
    pub(crate) subscribers: usize,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct TicksOptions {
    #[command(flatten)]
    pub(crate) compare: CompareOptions,
    #[command(flatten)]
    pub(crate) rates: RateSettings,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct StreamsOptions {
    #[command(flatten)]
    pub(crate) compare: CompareOptions,
    #[command(flatten)]
    pub(crate) subscribers: SubscriberSettings,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct AllOptions {
    #[command(flatten)]
    pub(crate) rates: RateSettings,
    #[command(flatten)]
    pub(crate) subscribers: SubscriberSettings,
    #[command(flatten)]
    pub(crate) compare: CompareOptions,
    #[command(flatten)]
    pub(crate) inside: InsideSettings,
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.0..=600.0).contains(&seconds) => Ok(seconds),
        _ => Err("a number of seconds, at most 600".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_bounded() {
        assert!(seconds("0.25").is_ok() && seconds("600").is_ok());
        for bad in ["", "-1", "601", "NaN", "inf", "3s"] {
            assert!(seconds(bad).is_err(), "{bad}");
        }
    }
}
