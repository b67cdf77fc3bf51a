//! A shard as chunks of a snapshot, and back.

use bus::mutants::{self, Mutant};
use contracts::bus::{AccountSequence, ShardPosition, SnapshotChunk};
use engine_core::{AccountId, EntityOwned, State};
use prost::Message as _;

use super::{Corrupt, Shard};
use crate::window::{Limits, micros};
use crate::wire::moment;

/// About how large a snapshot chunk gets. Bytes.
const CHUNK_BYTES: usize = 1024 * 1024;
impl Shard {
    /// The whole durable state in chunks of about 1 MiB.
    #[must_use]
    pub fn chunks(&self) -> Vec<SnapshotChunk> {
        let mut chunks = Chunks::default();
        chunks.current.position = Some(ShardPosition {
            horizon_ms: self.window.horizon_ms(),
            at_us: micros(self.at),
            price_cursor: self.price_cursor.clone(),
        });
        for entity in self.state.entities() {
            let mut bytes = Vec::new();
            entity.encode(&mut bytes);
            let size = bytes.len();
            chunks.current.entities.push(bytes.into());
            chunks.grown(size);
        }
        let without_window = mutants::is(Mutant::SnapshotWithoutDedupe);
        for operation in self.window.entries().filter(|_| !without_window) {
            let size = operation.encoded_len();
            chunks.current.operations.push(operation);
            chunks.grown(size);
        }
        let mut touched: Vec<_> = self.touched.iter().collect();
        touched.sort_unstable();
        for (account, sequence) in touched {
            chunks.current.accounts.push(AccountSequence {
                account_id: account.to_string(),
                sequence: *sequence,
            });
            chunks.grown(account.as_str().len() + 12);
        }
        chunks.finish()
    }

    /// Builds a shard from the chunks of a snapshot at `sequence`.
    ///
    /// # Errors
    /// [`Corrupt`] when something in them cannot be read.
    pub fn restore(
        number: u32,
        limits: Limits,
        sequence: u64,
        chunks: impl IntoIterator<Item = SnapshotChunk>,
    ) -> Result<Self, Corrupt> {
        let corrupt = |what: &str| Corrupt::Entry {
            shard: number,
            sequence,
            what: what.to_owned(),
        };
        let mut shard = Self {
            sequence,
            ..Self::with_window(number, limits)
        };
        let mut entities: Vec<EntityOwned> = Vec::new();
        for chunk in chunks {
            for bytes in &chunk.entities {
                entities
                    .push(EntityOwned::decode(bytes).map_err(|_| corrupt("an entity of the snapshot cannot be read"))?);
            }
            for operation in chunk.operations {
                shard
                    .window
                    .restore(operation)
                    .ok_or_else(|| corrupt("an operation of the snapshot cannot be read"))?;
            }
            for touched in chunk.accounts {
                let account = AccountId::new(&touched.account_id)
                    .map_err(|_| corrupt("an account of the snapshot cannot be read"))?;
                shard.touch(account, touched.sequence);
            }
            if let Some(position) = chunk.position {
                shard.window.set_horizon(position.horizon_ms);
                shard.at = moment(position.at_us);
                shard.price_cursor = position.price_cursor;
            }
        }
        shard.state = State::try_restore(entities.into_iter()).map_err(|cause| corrupt(&cause.to_string()))?;
        Ok(shard)
    }
}

/// Collects a snapshot, starting a new chunk when one is large enough.
#[derive(Default)]
struct Chunks {
    done: Vec<SnapshotChunk>,
    current: SnapshotChunk,
    size: usize,
}

impl Chunks {
    fn grown(&mut self, by: usize) {
        self.size += by;
        if self.size >= CHUNK_BYTES {
            self.done.push(std::mem::take(&mut self.current));
            self.size = 0;
        }
    }

    fn finish(mut self) -> Vec<SnapshotChunk> {
        self.done.push(self.current);
        self.done
    }
}
