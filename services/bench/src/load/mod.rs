//! Load: calls at a fixed number at once (closed loop) or at a fixed rate (open loop), over raw HTTP/2, from one thread.
//!
//! The thread has a runtime of its own, so that its processor time can be told from that of what it loads. A generator shares the
//! machine with what it measures; this one costs a fraction of a client library's call, and that fraction is reported.
//!
//! Reading order: `work` (which calls), `door` (how a call looks in each protocol), `wire` (one connection), `closed`, `open`, `pace`.

mod closed;
mod door;
mod open;
mod pace;
mod wire;
mod work;

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context as _;

pub use self::door::Door;
use self::work::Session;
pub use self::work::{Work, account};
use crate::cpu::{Subject, Watch, this_thread};
use crate::sample::{Sample, Tally};

/// Most calls at once on one connection: fewer than servers allow.
const STREAMS_MAX: usize = 64;
/// Most calls at once in an open loop; more wait for a place, and their waiting counts.
const OPEN_PLACES: usize = 8_192;
/// Connections of an open loop: enough that no call waits for a stream on our side.
const OPEN_CONNECTIONS: usize = OPEN_PLACES.div_ceil(STREAMS_MAX);

/// Where calls go.
#[derive(Clone, Debug)]
pub struct Target {
    /// The server.
    pub address: SocketAddr,
    /// Bearer tokens, taken in turn by connections.
    pub tokens: Vec<String>,
    /// How many accounts there are.
    pub accounts: usize,
    /// What is watched there.
    pub watch: Watch,
}

/// How load is made.
#[derive(Clone, Copy, Debug)]
pub enum Loop {
    /// So many calls at once, each followed by the next.
    Closed {
        /// How many.
        concurrency: usize,
    },
    /// So many calls begun a second, whatever becomes of those before.
    Open {
        /// How many.
        per_second: f64,
    },
}

/// One run of load.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Which calls.
    pub work: Work,
    /// Through which door.
    pub door: Door,
    /// How.
    pub load: Loop,
    /// Before it counts.
    pub warm_up: Duration,
    /// While it counts.
    pub measure: Duration,
}

impl Plan {
    /// What it is called in tables.
    #[must_use]
    pub fn name(&self, of: &str) -> String {
        format!("{of} {} {}", self.work.name(), self.door.name())
    }
}

/// Runs the plan and says how it went. `of` is whom it measures.
///
/// # Errors
/// When the target cannot be reached.
pub async fn run(of: &str, target: &Target, plan: Plan) -> anyhow::Result<Sample> {
    let target = target.clone();
    let name = plan.name(of);
    on_a_thread("bench-load", async move || {
        let mut watch = target.watch.clone();
        watch.add("generator", Subject::Thread(this_thread()));
        let (tally, used) = match plan.load {
            Loop::Closed { concurrency } => closed::run(&target, &plan, concurrency, &watch).await?,
            Loop::Open { per_second } => open::run(&target, &plan, per_second, &watch).await?,
        };
        let mut sample = Sample::of(&name, &tally, &used);
        match plan.load {
            Loop::Closed { concurrency } => sample.concurrency = Some(concurrency),
            Loop::Open { per_second } => sample.rate = Some(per_second),
        }
        Ok(sample)
    })
    .await
}

/// Makes wallets and puts money into them, so that the work has something to work with.
///
/// # Errors
/// When a wallet cannot be made.
pub async fn prepare(target: &Target) -> anyhow::Result<()> {
    let target = target.clone();
    on_a_thread("bench-load", async move || closed::prepare(&target).await).await
}

/// Runs something on a thread with a runtime of its own.
pub(crate) async fn on_a_thread<T, F>(name: &str, work: F) -> anyhow::Result<T>
where
    T: Send + 'static,
    F: AsyncFnOnce() -> anyhow::Result<T> + Send + 'static,
{
    let (done, ended) = tokio::sync::oneshot::channel();
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let outcome = runtime
                .context("a runtime")
                .and_then(|runtime| tokio::task::LocalSet::new().block_on(&runtime, work()));
            let _gone = done.send(outcome);
        })
        .context("a thread")?;
    ended.await.context("the thread of a run panicked")?
}

/// The tally of the calls that ended while it counted.
#[derive(Debug, Default)]
struct Counted {
    counts: bool,
    tally: Tally,
}

fn sessions(work: Work, target: &Target, count: usize) -> Vec<Session> {
    (0..count).map(|n| Session::new(work, n, target.accounts)).collect()
}
