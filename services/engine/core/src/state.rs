//! Everything durable: accounts, open trades, instruments, and our own side of the ledger.
//!
//! Changed by [`State::apply`] alone. Identified by [`State::hash`], the wrapping sum of one hash per entity, kept up
//! to date as entities change, so that comparing two states costs nothing and the order of storage does not show.
//! Inside, things are found by dense number; names are looked up once, at the door.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::Bound;

use crate::account::Account;
use crate::canonical::{Counters, Entity, LedgerBalance};
use crate::event::LedgerAccount;
use crate::growth::{List, Spread};
use crate::ids::{AccountId, Currency, Symbol, TradeId};
use crate::index::TriggerIndex;
use crate::instrument::Instrument;
use crate::money::Money;
use crate::trade::Trade;

mod apply;
mod restore;

/// The durable state of one shard.
#[derive(Clone)]
pub struct State {
    next_trade_id: u64,
    accounts: List<AccountSlot>,
    account_numbers: Spread<AccountId, usize>,
    /// Open trades; a closed one leaves a gap that the next open fills.
    trades: List<Option<TradeSlot>>,
    gaps: Vec<usize>,
    trade_numbers: Spread<TradeId, usize>,
    books: Vec<Book>,
    book_numbers: BTreeMap<Symbol, usize>,
    /// House, fee and cash, per currency.
    ledger: BTreeMap<(LedgerAccount, Currency), LedgerSlot>,
    hash: u128,
    /// Room to encode an entity in, kept between uses.
    scratch: Vec<u8>,
}

#[derive(Clone)]
struct AccountSlot {
    account: Account,
    open: BTreeSet<TradeId>,
    /// Open notional at entry prices, per book. Derived from the open trades, so not hashed.
    exposure: Vec<(usize, Money)>,
    hash: u128,
}

/// An open trade and what it hangs on. There are millions, so its numbers are as narrow as they can be, and its hash asks for no place that
/// is a multiple of sixteen.
#[derive(Clone)]
struct TradeSlot {
    trade: Trade,
    account: u32,
    book: u32,
    hash: [u8; 16],
}

impl TradeSlot {
    fn new(trade: Trade, account: usize, book: usize, hash: u128) -> Result<TradeSlot, Inconsistent> {
        let narrow = |number| u32::try_from(number).map_err(|_| Inconsistent("more accounts than a shard can have"));
        Ok(TradeSlot {
            trade,
            account: narrow(account)?,
            book: narrow(book)?,
            hash: hash.to_ne_bytes(),
        })
    }

    fn account(&self) -> usize {
        wide(self.account)
    }

    fn book(&self) -> usize {
        wide(self.book)
    }

    fn hash(&self) -> u128 {
        u128::from_ne_bytes(self.hash)
    }
}

fn wide(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

/// An instrument with what hangs on it.
#[derive(Clone)]
pub(crate) struct Book {
    pub(crate) instrument: Instrument,
    pub(crate) triggers: TriggerIndex,
    /// Open trades in it.
    pub(crate) open: usize,
    hash: u128,
}

#[derive(Clone)]
struct LedgerSlot {
    entry: LedgerBalance,
    hash: u128,
}

/// What a state is, in 128 bits. Equal states have equal hashes on every machine; it does not guard against forgery.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct StateHash(u128);

impl StateHash {
    /// From its number, as kept in a journal.
    pub const fn new(hash: u128) -> StateHash {
        StateHash(hash)
    }

    /// Its number.
    pub const fn get(self) -> u128 {
        self.0
    }
}

impl fmt::Display for StateHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// An event or a snapshot that does not fit the state it is put into: a damaged journal, or a bug of ours. The state
/// it was reported by may be half changed and must be thrown away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("does not fit the state: {0}")]
pub struct Inconsistent(pub &'static str);

impl Default for State {
    fn default() -> State {
        State::new()
    }
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("State")
            .field("hash", &format_args!("{}", self.hash()))
            .field("accounts", &self.accounts.len())
            .field("open_trades", &self.open_trades())
            .finish_non_exhaustive()
    }
}

impl State {
    /// Nothing: no instrument, no account. Instruments come as events like everything else.
    #[must_use]
    pub fn new() -> State {
        let mut scratch = Vec::new();
        let counters = Counters { next_trade_id: 1 };
        State {
            next_trade_id: counters.next_trade_id,
            hash: Entity::Counters(counters).hash(&mut scratch),
            accounts: List::default(),
            account_numbers: Spread::default(),
            trades: List::default(),
            gaps: Vec::new(),
            trade_numbers: Spread::default(),
            books: Vec::new(),
            book_numbers: BTreeMap::new(),
            ledger: BTreeMap::new(),
            scratch,
        }
    }

    /// What this state is, in 128 bits. Costs nothing.
    pub fn hash(&self) -> StateHash {
        StateHash(self.hash)
    }

    /// The same, worked out from every entity: what a verified snapshot is compared with. Costs a pass over all.
    pub fn recompute_hash(&self) -> StateHash {
        let mut scratch = Vec::new();
        let sum = self
            .entities()
            .fold(0_u128, |sum, entity| sum.wrapping_add(entity.hash(&mut scratch)));
        StateHash(sum)
    }

    /// One account.
    pub fn account(&self, id: &AccountId) -> Option<&Account> {
        self.account_slot(id).map(|slot| &slot.account)
    }

    /// Every account, in the order their wallets were opened.
    pub fn accounts(&self) -> impl Iterator<Item = &Account> {
        self.accounts.iter().map(|slot| &slot.account)
    }

    /// One open trade, whosoever it is.
    pub fn trade(&self, id: TradeId) -> Option<&Trade> {
        let number = *self.trade_numbers.get(&id)?;
        self.trades.get(number)?.as_ref().map(|slot| &slot.trade)
    }

    /// The open trades of one account, by ascending number.
    pub fn trades_of(&self, account: &AccountId) -> impl Iterator<Item = &Trade> {
        self.trades_between(account, (Bound::Unbounded, Bound::Unbounded))
    }

    /// Those of the open trades of one account whose numbers lie between these, by number from either end.
    pub fn trades_between(
        &self,
        account: &AccountId,
        numbers: (Bound<TradeId>, Bound<TradeId>),
    ) -> impl DoubleEndedIterator<Item = &Trade> {
        let open = self.account_slot(account).map(|slot| slot.open.range(numbers));
        open.into_iter().flatten().filter_map(|id| self.trade(*id))
    }

    /// How many trades are open.
    pub fn open_trades(&self) -> usize {
        self.trade_numbers.len()
    }

    /// The number the next trade gets.
    pub fn next_trade_id(&self) -> TradeId {
        TradeId::new(self.next_trade_id)
    }

    /// One instrument.
    pub fn instrument(&self, symbol: &Symbol) -> Option<&Instrument> {
        self.book(symbol).map(|book| &book.instrument)
    }

    /// Every instrument, by symbol.
    pub fn instruments(&self) -> impl Iterator<Item = &Instrument> {
        self.book_numbers
            .values()
            .filter_map(|&number| self.books.get(number))
            .map(|book| &book.instrument)
    }

    /// The balance of one account of the ledger; zero when nothing was ever booked on it.
    pub fn ledger_balance(&self, account: &LedgerAccount, currency: &Currency) -> Money {
        match account {
            LedgerAccount::Client(id) => self.account(id).map_or(Money::ZERO, |account| account.free(currency)),
            LedgerAccount::Margin(id) => self.account(id).map_or(Money::ZERO, |account| account.locked(currency)),
            LedgerAccount::House | LedgerAccount::Fee | LedgerAccount::Cash => {
                // The key owns its currency; a clone of one is a copy of 16 bytes.
                let slot = self.ledger.get(&(account.clone(), currency.clone()));
                slot.map_or(Money::ZERO, |slot| slot.entry.balance)
            }
        }
    }

    /// Everything that is hashed, each once, in an order that depends on history alone: counters, instruments, our
    /// ledger, then each account followed by its trades. [`State::restore`] takes them back.
    pub fn entities(&self) -> impl Iterator<Item = Entity<'_>> + '_ {
        let counters = Counters {
            next_trade_id: self.next_trade_id,
        };
        let accounts = self.accounts.iter().flat_map(|slot| {
            let trades = slot.open.iter().filter_map(|id| self.trade(*id)).map(Entity::Trade);
            std::iter::once(Entity::Account(&slot.account)).chain(trades)
        });
        std::iter::once(Entity::Counters(counters))
            .chain(self.instruments().map(Entity::Instrument))
            .chain(self.ledger.values().map(|slot| Entity::Ledger(&slot.entry)))
            .chain(accounts)
    }

    /// An instrument with its triggers.
    pub(crate) fn book(&self, symbol: &Symbol) -> Option<&Book> {
        self.books.get(*self.book_numbers.get(symbol)?)
    }

    /// One account, with its open notional in one instrument at entry prices.
    pub(crate) fn holding(&self, account: &AccountId, symbol: &Symbol) -> Option<(&Account, Money)> {
        let slot = self.account_slot(account)?;
        let book = self.book_numbers.get(symbol);
        let held = slot.exposure.iter().find(|(number, _)| Some(number) == book);
        Some((&slot.account, held.map_or(Money::ZERO, |(_, notional)| *notional)))
    }

    fn account_slot(&self, id: &AccountId) -> Option<&AccountSlot> {
        self.accounts.get(*self.account_numbers.get(id)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::{Command, OpenTrade, Portion, Size};
    use crate::instrument::default_instruments;
    use crate::market::Market;
    use crate::money::{Leverage, Price, Quantity};
    use crate::quote::Quote;
    use crate::time::Timestamp;
    use crate::trade::Side;

    #[test]
    fn the_room_of_a_closed_trade_is_used_again() {
        let (mut state, mut market, at) = (State::new(), Market::new(), Timestamp::from_micros(1));
        let account = AccountId::new("demo").expect("an id");
        let instrument = default_instruments().pop().expect("there are defaults");
        let symbol = instrument.symbol.clone();
        let mut act = |market: &Market, command: Command| {
            let events = crate::decide(&state, market, at, &command).expect("it is allowed");
            events.iter().for_each(|event| state.apply(at, event));
            (state.trades.len(), state.gaps.len(), state.clone())
        };
        act(
            &market,
            Command::InitializeWallet {
                account: account.clone(),
            },
        );
        let (.., listed) = act(&market, Command::ConfigureInstrument(instrument));
        let [bid, ask] = ["199.98", "200"].map(|text| Price::parse(text).expect("a price"));
        market.observe(
            &listed,
            at,
            &Quote {
                symbol: symbol.clone(),
                bid,
                ask,
                venue_time: at,
                update_id: 1,
            },
        );
        for number in 1..=5 {
            let order = OpenTrade {
                account: account.clone(),
                symbol: symbol.clone(),
                side: Side::Long,
                size: Size::Quantity(Quantity::parse("1").expect("a quantity")),
                leverage: Leverage::parse("10").expect("leverage"),
                stop_loss: None,
                take_profit: None,
                slippage: None,
            };
            let (room, gaps, _) = act(&market, Command::OpenTrade(order));
            assert_eq!((room, gaps), (1, 0));
            let trade = TradeId::new(number);
            let close = Command::CloseTrade {
                account: account.clone(),
                trade,
                portion: Portion::All,
            };
            let (room, gaps, _) = act(&market, close);
            assert_eq!((room, gaps), (1, 1));
        }
    }
}
