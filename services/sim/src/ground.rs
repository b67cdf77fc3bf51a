//! What a simulated engine stands on.

use engine::EngineError;
use engine::ground::Ground;
use uuid::Uuid;

use crate::journal::SimJournal;
use crate::prices::SimPrices;
use crate::process::Process;
use crate::shard_bus::{Connection, SimShardBus};
use crate::world::World;

/// See the module.
#[derive(Clone, Debug)]
pub struct SimGround {
    world: World,
    process: Process,
    journal: SimJournal,
    prices: SimPrices,
}

impl SimGround {
    /// The ground of one process.
    pub fn new(world: &World, process: &Process) -> Self {
        let connection = Connection {
            world: world.clone(),
            process: process.clone(),
        };
        Self {
            world: world.clone(),
            process: process.clone(),
            journal: SimJournal::new(world.clone(), process.clone()),
            prices: SimPrices::new(connection),
        }
    }
}

impl Ground for SimGround {
    type Journal = SimJournal;
    type Bus = SimShardBus;
    type Prices = SimPrices;

    fn journal(&self) -> &SimJournal {
        &self.journal
    }

    fn bus(&self, shard: u32) -> SimShardBus {
        let connection = Connection {
            world: self.world.clone(),
            process: self.process.clone(),
        };
        SimShardBus::new(connection, shard)
    }

    fn prices(&self) -> &SimPrices {
        &self.prices
    }

    fn wall_us(&self) -> i64 {
        self.world.true_us() + self.process.wall_off_us()
    }

    async fn clocks(&self) -> Result<[i64; 3], EngineError> {
        let postgres = self.journal.clock_us().await?;
        Ok([postgres, self.world.true_us(), self.wall_us()])
    }

    fn fresh_id(&self) -> Uuid {
        self.world.with(|inner| inner.dice.id())
    }
}
