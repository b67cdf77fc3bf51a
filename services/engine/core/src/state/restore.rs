//! A state out of a snapshot.

use super::{Inconsistent, State};
use crate::canonical::EntityOwned;
use crate::event::{Event, EventKind, LedgerAccount};
use crate::time::Timestamp;

impl State {
    /// Puts a state together from what [`State::entities`] gave, in whatever order: trades wait for their accounts
    /// and instruments. The restored state lists its accounts in the order they came.
    ///
    /// # Panics
    ///
    /// When the entities do not fit together. Use [`State::try_restore`] for a snapshot that may be damaged, and
    /// compare the hash afterwards: entities that are merely missing fit together too.
    pub fn restore(entities: impl Iterator<Item = EntityOwned>) -> State {
        State::try_restore(entities).expect("entities come from a state, each once")
    }

    /// The same, or what does not fit.
    pub fn try_restore(entities: impl Iterator<Item = EntityOwned>) -> Result<State, Inconsistent> {
        let mut state = State::new();
        let mut trades = Vec::new();
        for entity in entities {
            match entity {
                EntityOwned::Counters(counters) => state.set_counters(counters),
                EntityOwned::Instrument(instrument) => {
                    let configured = EventKind::InstrumentConfigured(instrument);
                    state.try_apply(
                        Timestamp::default(),
                        &Event {
                            kind: configured,
                            lines: Vec::new(),
                        },
                    )?;
                }
                EntityOwned::Ledger(entry) => match entry.account {
                    LedgerAccount::House | LedgerAccount::Fee | LedgerAccount::Cash => state.set_own(entry),
                    LedgerAccount::Client(_) | LedgerAccount::Margin(_) => {
                        return Err(Inconsistent("a client's balance outside its account"));
                    }
                },
                EntityOwned::Account(account) => state.add_account(account)?,
                EntityOwned::Trade(trade) => trades.push(trade),
            }
        }
        trades
            .into_iter()
            .try_for_each(|trade| state.add_trade(trade).map(drop))?;
        Ok(state)
    }
}
