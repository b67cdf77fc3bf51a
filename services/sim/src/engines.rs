//! The engine processes: started, started again whenever they end, and each end judged.

use std::sync::{Arc, Mutex};

use engine::window::Limits;
use engine::{EngineError, Instrument, Snapshots};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::coverage::Corner;
use crate::ground::SimGround;
use crate::journal::wait;
use crate::process::Process;
use crate::world::World;

/// How many engine processes there are.
pub const ENGINES: usize = 2;
/// How long an engine may take to leave in order when nothing is wrong.
const LEAVE_MAX: std::time::Duration = std::time::Duration::from_secs(20);

/// What all engines of a run are told.
#[derive(Clone, Debug)]
pub struct Terms {
    pub instruments: Vec<Instrument>,
    pub snapshots: Snapshots,
    pub window: Limits,
}

/// The running engines. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Engines(Arc<Mutex<Vec<Slot>>>);

/// A machine with its present process.
#[derive(Clone, Debug)]
struct Slot {
    process: Process,
    stop: CancellationToken,
}

impl Engines {
    /// Starts all of them; they start again until `over`.
    pub fn start(world: &World, terms: &Terms, over: &CancellationToken) -> (Self, JoinSet<()>) {
        let slots = (0..ENGINES).map(|slot| Slot {
            process: Process::new(number(slot, 0)),
            stop: CancellationToken::new(),
        });
        let engines = Self(Arc::new(Mutex::new(slots.collect())));
        let mut machines = JoinSet::new();
        for slot in 0..ENGINES {
            machines.spawn(
                engines
                    .clone()
                    .keep_running(world.clone(), terms.clone(), slot, over.clone()),
            );
        }
        (engines, machines)
    }

    /// The present process of a machine.
    pub fn process(&self, slot: usize) -> Process {
        self.slots()[slot].process.clone()
    }

    /// Asks the present process of a machine to leave in order.
    pub fn stop(&self, slot: usize) {
        self.slots()[slot].stop.cancel();
    }

    fn slots(&self) -> std::sync::MutexGuard<'_, Vec<Slot>> {
        self.0.lock().expect("nothing panics while it holds this lock")
    }

    async fn keep_running(self, world: World, terms: Terms, slot: usize, over: CancellationToken) {
        for boot in 1.. {
            let process = Process::new(number(slot, boot));
            process.set_wall_off_us(self.process(slot).wall_off_us());
            let stop = CancellationToken::new();
            self.slots()[slot] = Slot {
                process: process.clone(),
                stop: stop.clone(),
            };
            if over.is_cancelled() {
                return;
            }
            let left = run_once(&world, &terms, slot, &process, stop, &over).await;
            if left && over.is_cancelled() {
                return;
            }
            let rest = world.with(|inner| inner.dice.between(20, 1_500));
            wait(rest).await;
        }
    }
}

/// One life of a process. True when it left in order.
async fn run_once(
    world: &World,
    terms: &Terms,
    slot: usize,
    process: &Process,
    stop: CancellationToken,
    over: &CancellationToken,
) -> bool {
    let who = process.number();
    world.with(|inner| inner.note("engine starts", who, 0, String::new));
    let options = engine::Options {
        name: engine_name(slot),
        shards: world.with(|inner| inner.options.shards),
        instruments: terms.instruments.clone(),
        snapshots: terms.snapshots,
        window: terms.window,
    };
    let (tell, _status) = watch::channel(engine::Status::default());
    let mut life = tokio::spawn(engine::serve(
        SimGround::new(world, process),
        options,
        tell,
        stop.clone(),
    ));
    let ended = tokio::select! {
        biased;
        () = process.died() => None,
        ended = &mut life => Some(ended),
        () = leave_in_time(over, &stop) => {
            world.with(|inner| inner.violation(format!("engine {who} does not leave though nothing is wrong")));
            None
        }
    };
    life.abort();
    // Whatever its tasks still hold: a process that ended does nothing any more.
    process.kill();
    world.with(|inner| {
        let what = match ended {
            None => {
                inner.coverage.visit(Corner::Killed);
                "killed".to_owned()
            }
            Some(Ok(Ok(()))) => {
                inner.coverage.visit(Corner::Stopped);
                inner.note("engine left", who, 0, String::new);
                return true;
            }
            Some(Ok(Err(error))) => {
                match &error {
                    EngineError::Fenced(_) => inner.coverage.visit(Corner::ExitFenced),
                    EngineError::Clock { .. } => inner.coverage.visit(Corner::ExitClocks),
                    EngineError::Journal(_) | EngineError::Bus(_) | EngineError::Thread(_) => {}
                    EngineError::Corrupt(_) | EngineError::UnsafeSetting(_) => {
                        inner.violation(format!("engine {who} ended: {error}"));
                    }
                }
                error.to_string()
            }
            Some(Err(panic)) => {
                inner.violation(format!("engine {who} panicked: {panic}"));
                panic.to_string()
            }
        };
        inner.note("engine ended", who, 0, || what);
        false
    })
}

/// Once all is over and it was asked to leave, an engine has so much time.
async fn leave_in_time(over: &CancellationToken, stop: &CancellationToken) {
    over.cancelled().await;
    stop.cancelled().await;
    tokio::time::sleep(LEAVE_MAX).await;
}

/// What the engine of a machine is called.
pub fn engine_name(slot: usize) -> String {
    format!("e{slot}")
}

fn number(slot: usize, boot: u64) -> u64 {
    (slot as u64 + 1) * 100 + boot
}
