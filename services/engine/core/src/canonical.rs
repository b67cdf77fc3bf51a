//! The one byte form of everything that is durable: what the state hash is computed over and what a snapshot may hold.
//!
//! Two states are equal when their entities' bytes are. Decimals are written without trailing zeros, so 1.50 and 1.5
//! are one number here as they are everywhere. [`Entity::encode`] and [`EntityOwned::decode`] are inverse, so a
//! snapshot made of these bytes can be checked against the hash without decoding it.

use xxhash_rust::xxh3::xxh3_128;

use crate::account::Account;
use crate::event::LedgerAccount;
use crate::ids::Currency;
use crate::instrument::Instrument;
use crate::money::Money;
use crate::trade::Trade;

mod bytes;

use bytes::Canonical;

/// One durable thing, borrowed from the state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entity<'a> {
    /// The numbers that only grow.
    Counters(Counters),
    /// An instrument.
    Instrument(&'a Instrument),
    /// A balance of ours, not of a client: house, fee or cash.
    Ledger(&'a LedgerBalance),
    /// A client's account.
    Account(&'a Account),
    /// An open trade.
    Trade(&'a Trade),
}

/// One durable thing, on its way out of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EntityOwned {
    /// The numbers that only grow.
    Counters(Counters),
    /// An instrument.
    Instrument(Instrument),
    /// A balance of ours.
    Ledger(LedgerBalance),
    /// A client's account.
    Account(Account),
    /// An open trade.
    Trade(Trade),
}

/// The numbers that only grow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counters {
    /// The number the next trade gets.
    pub next_trade_id: u64,
}

/// A balance of house, fee or cash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LedgerBalance {
    /// Which account; never a client's.
    pub account: LedgerAccount,
    /// Of which currency.
    pub currency: Currency,
    /// The sum of its lines.
    pub balance: Money,
}

/// The bytes are not an entity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not the canonical form of an entity")]
pub struct NotCanonical;

impl Entity<'_> {
    /// Appends the canonical bytes.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Entity::Counters(it) => {
                out.push(0);
                it.next_trade_id.write(out);
            }
            Entity::Instrument(it) => {
                out.push(1);
                it.write(out);
            }
            Entity::Ledger(it) => {
                out.push(2);
                it.write(out);
            }
            Entity::Account(it) => {
                out.push(3);
                it.write(out);
            }
            Entity::Trade(it) => {
                out.push(4);
                it.write(out);
            }
        }
    }

    /// The hash of the canonical bytes; `scratch` is only there to be used again.
    pub(crate) fn hash(&self, scratch: &mut Vec<u8>) -> u128 {
        scratch.clear();
        self.encode(scratch);
        xxh3_128(scratch)
    }

    /// A copy that outlives the state.
    pub fn to_owned(&self) -> EntityOwned {
        match *self {
            Entity::Counters(it) => EntityOwned::Counters(it),
            Entity::Instrument(it) => EntityOwned::Instrument(it.clone()),
            Entity::Ledger(it) => EntityOwned::Ledger(it.clone()),
            Entity::Account(it) => EntityOwned::Account(it.clone()),
            Entity::Trade(it) => EntityOwned::Trade(it.clone()),
        }
    }
}

impl EntityOwned {
    /// The same thing, borrowed.
    pub fn as_entity(&self) -> Entity<'_> {
        match self {
            EntityOwned::Counters(it) => Entity::Counters(*it),
            EntityOwned::Instrument(it) => Entity::Instrument(it),
            EntityOwned::Ledger(it) => Entity::Ledger(it),
            EntityOwned::Account(it) => Entity::Account(it),
            EntityOwned::Trade(it) => Entity::Trade(it),
        }
    }

    /// Reads exactly one entity out of all the bytes. Other bytes than `encode` writes are refused.
    pub fn decode(bytes: &[u8]) -> Result<EntityOwned, NotCanonical> {
        let mut rest = bytes;
        let entity = Self::read(&mut rest).filter(|_| rest.is_empty()).ok_or(NotCanonical)?;
        let mut again = Vec::with_capacity(bytes.len());
        entity.as_entity().encode(&mut again);
        if again == bytes { Ok(entity) } else { Err(NotCanonical) }
    }

    fn read(from: &mut &[u8]) -> Option<EntityOwned> {
        Some(match u8::read(from)? {
            0 => EntityOwned::Counters(Counters {
                next_trade_id: u64::read(from)?,
            }),
            1 => EntityOwned::Instrument(Instrument::read(from)?),
            2 => EntityOwned::Ledger(LedgerBalance::read(from)?),
            3 => EntityOwned::Account(Account::read(from)?),
            4 => EntityOwned::Trade(Trade::read(from)?),
            _ => return None,
        })
    }
}
