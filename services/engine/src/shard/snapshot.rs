//! A shard as chunks of a snapshot, and back.
//!
//! A chunk is a `SnapshotChunk` of `proto/fulcrum/bus/v1/snapshot.proto`. Operations go into it and come out of it as the bytes that they
//! are in the journal, which nobody takes apart on the way.

use bus::mutants::{self, Mutant};
use bytes::Bytes;
use contracts::bus::{AccountSequence, ShardPosition};
use engine_core::{AccountId, EntityOwned, State};
use prost::Message as _;

use super::{Corrupt, Shard};
use crate::window::{Journaled, Limits, micros};
use crate::wire::moment;

/// About how large a snapshot chunk gets. Bytes.
const CHUNK_BYTES: usize = 1024 * 1024;

/// `SnapshotChunk`.
#[derive(Clone, PartialEq, prost::Message)]
struct Chunk {
    #[prost(bytes = "bytes", repeated, tag = "1")]
    entities: Vec<Bytes>,
    #[prost(message, repeated, tag = "2")]
    operations: Vec<Operation>,
    #[prost(message, repeated, tag = "3")]
    accounts: Vec<AccountSequence>,
    #[prost(message, optional, tag = "4")]
    position: Option<ShardPosition>,
}

/// `WindowEntry`.
#[derive(Clone, PartialEq, prost::Message)]
struct Operation {
    #[prost(uint64, tag = "1")]
    sequence: u64,
    #[prost(fixed64, tag = "2")]
    at_us: u64,
    /// Encoded `OperationRecord`.
    #[prost(bytes = "bytes", optional, tag = "3")]
    record: Option<Bytes>,
}

impl Shard {
    /// The whole durable state in chunks of about 1 MiB, each made when it is asked for.
    pub fn chunks(&self) -> impl Iterator<Item = Bytes> + Send + '_ {
        let entities = self.state.entities().map(|entity| {
            let mut bytes = Vec::new();
            entity.encode(&mut bytes);
            Part::Entity(bytes.into())
        });
        let without_window = mutants::is(Mutant::SnapshotWithoutDedupe);
        let operations = self.window.entries().filter(move |_| !without_window);
        let mut touched: Vec<(&AccountId, u64)> = self.touched.iter().map(|(id, sequence)| (id, *sequence)).collect();
        touched.sort_unstable();
        let accounts = touched.into_iter().map(|(account, sequence)| AccountSequence {
            account_id: account.as_str().to_owned(),
            sequence,
        });
        Chunks {
            position: Some(ShardPosition {
                horizon_ms: self.window.horizon_ms(),
                at_us: micros(self.at),
                price_cursor: self.price_cursor.clone(),
            }),
            parts: entities
                .chain(operations.map(|kept| {
                    Part::Operation(Operation {
                        sequence: kept.sequence,
                        at_us: micros(kept.at),
                        record: Some(Bytes::copy_from_slice(&kept.record)),
                    })
                }))
                .chain(accounts.map(Part::Account)),
        }
    }

    /// Builds a shard from the chunks of a snapshot at `sequence`.
    ///
    /// # Errors
    /// [`Corrupt`] when something in them cannot be read.
    pub fn restore(
        number: u32,
        limits: Limits,
        sequence: u64,
        chunks: impl IntoIterator<Item = Bytes>,
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
            let chunk = Chunk::decode(chunk).map_err(|_| corrupt("a chunk of the snapshot cannot be read"))?;
            for bytes in &chunk.entities {
                entities
                    .push(EntityOwned::decode(bytes).map_err(|_| corrupt("an entity of the snapshot cannot be read"))?);
            }
            for operation in &chunk.operations {
                let record = operation.record.as_deref().unwrap_or_default();
                let record =
                    Journaled::read(record).map_err(|_| corrupt("an operation of the snapshot cannot be read"))?;
                shard
                    .window
                    .restore(operation.sequence, moment(operation.at_us), record);
            }
            for touched in chunk.accounts {
                let account = AccountId::new(&touched.account_id)
                    .map_err(|_| corrupt("an account of the snapshot cannot be read"))?;
                shard.touch(&account, touched.sequence);
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

/// One thing in a snapshot.
enum Part {
    Entity(Bytes),
    Operation(Operation),
    Account(AccountSequence),
}

/// Collects parts until a chunk is large enough.
struct Chunks<P> {
    /// Stands in the first chunk, which there always is.
    position: Option<ShardPosition>,
    parts: P,
}

impl<P: Iterator<Item = Part>> Iterator for Chunks<P> {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        let mut chunk = Chunk {
            position: self.position.take(),
            ..Chunk::default()
        };
        let mut size = 0;
        while size < CHUNK_BYTES {
            match self.parts.next() {
                None if size == 0 && chunk.position.is_none() => return None,
                None => break,
                Some(Part::Entity(bytes)) => {
                    size += bytes.len();
                    chunk.entities.push(bytes);
                }
                Some(Part::Operation(operation)) => {
                    size += operation.encoded_len();
                    chunk.operations.push(operation);
                }
                Some(Part::Account(account)) => {
                    size += account.account_id.len() + 12;
                    chunk.accounts.push(account);
                }
            }
        }
        Some(chunk.encode_to_vec().into())
    }
}
