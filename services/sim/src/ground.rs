//! What a simulated engine stands on.

use engine::EngineError;
use engine::ground::Ground;
use uuid::Uuid;

use crate::journal::SimJournal;
use crate::prices::SimPrices;
use crate::process::Process;
use crate::shard_bus::{Connection, SimPresence, SimShardBus};
use crate::world::World;

/// See the module.
#[derive(Clone, Debug)]
pub struct SimGround {
    connection: Connection,
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
            journal: SimJournal::new(world.clone(), process.clone()),
            prices: SimPrices::new(connection.clone()),
            connection,
        }
    }
}

impl Ground for SimGround {
    type Journal = SimJournal;
    type Bus = SimShardBus;
    type Presence = SimPresence;
    type Prices = SimPrices;

    fn journal(&self) -> &SimJournal {
        &self.journal
    }

    fn bus(&self, shard: u32) -> SimShardBus {
        SimShardBus::new(self.connection.clone(), shard)
    }

    fn presence(&self) -> SimPresence {
        SimPresence(self.connection.clone())
    }

    fn prices(&self) -> &SimPrices {
        &self.prices
    }

    fn wall_us(&self) -> i64 {
        self.connection.world.true_us() + self.connection.process.wall_off_us()
    }

    async fn clocks(&self) -> Result<[i64; 3], EngineError> {
        let postgres = self.journal.clock_us().await?;
        Ok([postgres, self.connection.world.true_us(), self.wall_us()])
    }

    fn fresh_id(&self) -> Uuid {
        self.connection.world.with(|inner| inner.dice.id())
    }
}
