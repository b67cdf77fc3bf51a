//! The gateways: the bus's own caller over simulated lists, in an envelope built as the gateway builds it.
//!
//! The layers in front (doors, tokens, validation) read this machine's clock and listen on its network, so they stay outside; what
//! decides whether an answer is the right one, admission, correlation and deadlines, is the caller's and runs here.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bus::{CallError, Caller, CallerOptions, Calls as _};
use contracts::bus::{Reply, Request};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::call_lists::SimLists;
use crate::process::Process;
use crate::shard_bus::Connection;
use crate::world::World;

/// How many gateways there are.
pub const GATEWAYS: usize = 2;

/// The running gateways. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Gateways {
    world: World,
    options: CallerOptions,
    running: Arc<Mutex<Vec<Gateway>>>,
}

#[derive(Clone, Debug)]
struct Gateway {
    caller: Caller<SimLists>,
    process: Process,
    gone: CancellationToken,
}

impl Gateways {
    /// Starts all of them.
    pub fn start(world: &World, options: CallerOptions) -> Self {
        let running = (0..GATEWAYS).map(|slot| start(world, options, slot)).collect();
        Self {
            world: world.clone(),
            options,
            running: Arc::new(Mutex::new(running)),
        }
    }

    /// Kills one and starts it again: who waited there knows nothing any more.
    pub fn kill(&self, slot: usize) {
        let mut running = self.running.lock().expect("nothing panics while it holds this lock");
        running[slot].process.kill();
        running[slot].gone.cancel();
        running[slot] = start(&self.world, self.options, slot);
    }

    /// Ends all of them.
    pub fn end(&self) {
        let running = self.running.lock().expect("nothing panics while it holds this lock");
        running.iter().for_each(|gateway| gateway.gone.cancel());
    }

    /// Sends a request through one of them and waits for its outcome.
    pub async fn call(&self, slot: usize, request: Request, patience: Duration) -> Result<Reply, CallError> {
        let gateway = self.running.lock().expect("nothing panics while it holds this lock")[slot].clone();
        tokio::select! {
            biased;
            () = gateway.gone.cancelled() => Err(CallError::UnknownOutcome),
            outcome = gateway.caller.call(request, Instant::now() + patience) => outcome,
        }
    }
}

fn start(world: &World, options: CallerOptions, slot: usize) -> Gateway {
    let process = Process::new(500 + slot as u64);
    let connection = Connection {
        world: world.clone(),
        process: process.clone(),
    };
    let gone = CancellationToken::new();
    Gateway {
        caller: Caller::over(SimLists::new(connection), options, gone.clone()),
        process,
        gone,
    }
}
