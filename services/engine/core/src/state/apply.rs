//! Folding one event in. Nothing is decided here: every number comes out of the event.

use super::{AccountSlot, Book, Inconsistent, LedgerSlot, State, TradeSlot};
use crate::account::{Account, Balance, RECENTLY_CLOSED_MAX};
use crate::canonical::{Counters, Entity, LedgerBalance};
use crate::event::{Event, EventKind, LedgerAccount, LedgerLine, TradeClosing};
use crate::ids::{AccountId, Currency, TradeId};
use crate::instrument::Instrument;
use crate::money::{Money, Price};
use crate::time::Timestamp;
use crate::trade::Trade;

impl State {
    /// Folds one event in. `at` is the engine's clock when it happened.
    ///
    /// # Panics
    ///
    /// When the event does not fit, which one of [`crate::decide()`]'s or [`crate::fire()`]'s for this very state always
    /// does. Use [`State::try_apply`] for events that come out of storage.
    pub fn apply(&mut self, at: Timestamp, event: &Event) {
        self.try_apply(at, event)
            .expect("events are decided against the state they are applied to");
    }

    /// Folds one event in, or says why it does not fit. After an error the state must be thrown away.
    pub fn try_apply(&mut self, at: Timestamp, event: &Event) -> Result<(), Inconsistent> {
        // Whose lines they will be, where that is known already: one look into the accounts less.
        let mut owner = None;
        match &event.kind {
            EventKind::InstrumentConfigured(instrument) => self.configure(instrument)?,
            EventKind::WalletInitialized { account } => self.open_wallet(at, account)?,
            EventKind::Deposited { .. } | EventKind::Withdrawn { .. } => {} // The lines are all there is to it.
            EventKind::TradeOpened { trade, quote: _ } => owner = Some(self.open_trade(trade)?),
            EventKind::TradeModified {
                account,
                trade,
                stop_loss,
                take_profit,
                margin_added: _,
                margin,
                liquidation_price,
                quote: _,
            } => {
                let triggers = (*stop_loss, *take_profit, *liquidation_price);
                self.modify_trade(account, *trade, *margin, triggers)?;
            }
            EventKind::TradeReduced(closing) => self.reduce_trade(closing)?,
            EventKind::TradeClosed(closing) => owner = Some(self.close_trade(closing)?),
        }
        self.book_lines(&event.lines, owner)
    }

    fn configure(&mut self, instrument: &Instrument) -> Result<(), Inconsistent> {
        let hash = Entity::Instrument(instrument).hash(&mut self.scratch);
        let known = self
            .book_numbers
            .get(&instrument.symbol)
            .and_then(|&number| self.books.get_mut(number));
        if let Some(book) = known {
            if book.open > 0 && (book.instrument.tick != instrument.tick || book.instrument.step != instrument.step) {
                return Err(Inconsistent("the grid of an instrument moved under open trades"));
            }
            self.hash = self.hash.wrapping_sub(book.hash).wrapping_add(hash);
            book.instrument = instrument.clone();
            book.hash = hash;
        } else {
            self.hash = self.hash.wrapping_add(hash);
            self.book_numbers.insert(instrument.symbol.clone(), self.books.len());
            self.books.push(Book {
                instrument: instrument.clone(),
                triggers: Default::default(),
                open: 0,
                hash,
            });
        }
        Ok(())
    }

    fn open_wallet(&mut self, at: Timestamp, id: &AccountId) -> Result<(), Inconsistent> {
        let account = Account {
            id: id.clone(),
            balances: Vec::new(),
            created_at: at,
            recently_closed: Vec::new(),
        };
        self.add_account(account)
    }

    pub(super) fn add_account(&mut self, account: Account) -> Result<(), Inconsistent> {
        let number = self.accounts.len();
        if self.account_numbers.insert(account.id.clone(), number).is_some() {
            return Err(Inconsistent("an account was opened twice"));
        }
        let hash = Entity::Account(&account).hash(&mut self.scratch);
        self.hash = self.hash.wrapping_add(hash);
        self.accounts.push(AccountSlot {
            account,
            open: Default::default(),
            exposure: Vec::new(),
            hash,
        });
        Ok(())
    }

    fn open_trade(&mut self, trade: &Trade) -> Result<usize, Inconsistent> {
        if trade.id.get() != self.next_trade_id {
            return Err(Inconsistent("a trade is out of number"));
        }
        self.set_counters(Counters {
            next_trade_id: self
                .next_trade_id
                .checked_add(1)
                .ok_or(Inconsistent("out of trade numbers"))?,
        });
        self.add_trade(trade.clone())
    }

    pub(super) fn set_counters(&mut self, counters: Counters) {
        let before = Entity::Counters(Counters {
            next_trade_id: self.next_trade_id,
        })
        .hash(&mut self.scratch);
        let after = Entity::Counters(counters).hash(&mut self.scratch);
        self.hash = self.hash.wrapping_sub(before).wrapping_add(after);
        self.next_trade_id = counters.next_trade_id;
    }

    /// Gives back the number of its owner.
    pub(super) fn add_trade(&mut self, mut trade: Trade) -> Result<usize, Inconsistent> {
        if trade.id > TradeId::MAX {
            return Err(Inconsistent("a trade number too large"));
        }
        let account = self.account_number(&trade.account)?;
        let book_number = *self
            .book_numbers
            .get(&trade.symbol)
            .ok_or(Inconsistent("no such instrument"))?;
        let book = self
            .books
            .get_mut(book_number)
            .ok_or(Inconsistent("no such instrument"))?;
        book.triggers.insert(&trade, book.instrument.tick);
        book.open = book.open.saturating_add(1);
        let slot = self.accounts.get_mut(account).ok_or(Inconsistent("no such account"))?;
        // All trades of an account share the text of its id.
        trade.account = slot.account.id.clone();
        slot.open.insert(trade.id);
        slot.change_exposure(book_number, notional(&trade)?)?;

        let hash = Entity::Trade(&trade).hash(&mut self.scratch);
        self.hash = self.hash.wrapping_add(hash);
        let id = trade.id;
        let slot = Some(TradeSlot::new(trade, account, book_number, hash)?);
        let number = match self.gaps.pop() {
            Some(number) => {
                *self.trades.get_mut(number).ok_or(Inconsistent("no such slot"))? = slot;
                number
            }
            None => {
                self.trades.push(slot);
                self.trades.len().saturating_sub(1)
            }
        };
        match self.trade_numbers.insert(id, number) {
            None => Ok(account),
            Some(_) => Err(Inconsistent("a trade was opened twice")),
        }
    }

    fn modify_trade(
        &mut self,
        account: &AccountId,
        id: TradeId,
        margin: Money,
        (stop_loss, take_profit, liquidation_price): (Option<Price>, Option<Price>, Option<Price>),
    ) -> Result<(), Inconsistent> {
        self.change_trade(account, id, |trade| {
            trade.margin = margin;
            trade.stop_loss = stop_loss;
            trade.take_profit = take_profit;
            trade.liquidation_price = liquidation_price;
            Some(())
        })
    }

    fn reduce_trade(&mut self, closing: &TradeClosing) -> Result<(), Inconsistent> {
        let rest = closing
            .remaining_quantity
            .ok_or(Inconsistent("a reduced trade has nothing left"))?;
        self.change_trade(&closing.account, closing.trade, |trade| {
            trade.quantity = rest;
            trade.margin = closing.remaining_margin;
            trade.liquidation_price = closing.liquidation_price;
            trade.commission = trade.commission.checked_add(closing.commission)?;
            trade.realised_profit = trade.realised_profit.checked_add(closing.realised_profit)?;
            Some(())
        })
    }

    /// Changes an open trade where it stands: out of the index, changed, and back in.
    fn change_trade(
        &mut self,
        account: &AccountId,
        id: TradeId,
        change: impl FnOnce(&mut Trade) -> Option<()>,
    ) -> Result<(), Inconsistent> {
        let number = *self.trade_numbers.get(&id).ok_or(Inconsistent("no such trade"))?;
        let slot = self
            .trades
            .get_mut(number)
            .and_then(Option::as_mut)
            .ok_or(Inconsistent("no such trade"))?;
        if slot.trade.account != *account {
            return Err(Inconsistent("the trade is another account's"));
        }
        let book = self
            .books
            .get_mut(slot.book())
            .ok_or(Inconsistent("no such instrument"))?;
        let before = notional(&slot.trade)?;
        book.triggers.remove(&slot.trade, book.instrument.tick);
        change(&mut slot.trade).ok_or(Inconsistent("an amount is too large"))?;
        book.triggers.insert(&slot.trade, book.instrument.tick);
        let after = notional(&slot.trade)?;
        let grown = after
            .checked_sub(before)
            .ok_or(Inconsistent("an exposure is too large"))?;
        let hash = Entity::Trade(&slot.trade).hash(&mut self.scratch);
        self.hash = self.hash.wrapping_sub(slot.hash()).wrapping_add(hash);
        slot.hash = hash.to_ne_bytes();
        let owner = self
            .accounts
            .get_mut(slot.account())
            .ok_or(Inconsistent("no such account"))?;
        owner.change_exposure(slot.book(), grown)
    }

    fn close_trade(&mut self, closing: &TradeClosing) -> Result<usize, Inconsistent> {
        let number = self
            .trade_numbers
            .remove(&closing.trade)
            .ok_or(Inconsistent("no such trade"))?;
        let slot = self
            .trades
            .get_mut(number)
            .and_then(Option::take)
            .ok_or(Inconsistent("no such trade"))?;
        self.gaps.push(number);
        if slot.trade.account != closing.account {
            return Err(Inconsistent("the trade is another account's"));
        }
        self.hash = self.hash.wrapping_sub(slot.hash());
        let book = self
            .books
            .get_mut(slot.book())
            .ok_or(Inconsistent("no such instrument"))?;
        book.triggers.remove(&slot.trade, book.instrument.tick);
        book.open = book.open.saturating_sub(1);
        let owner = self
            .accounts
            .get_mut(slot.account())
            .ok_or(Inconsistent("no such account"))?;
        owner.open.remove(&closing.trade);
        owner.change_exposure(slot.book(), notional(&slot.trade)?.negated())?;
        let closed = &mut owner.account.recently_closed;
        if closed.len() >= RECENTLY_CLOSED_MAX {
            closed.remove(0);
        }
        closed.push(closing.trade);
        Ok(slot.account())
    }

    /// Moves the money. Nothing else does. `touched` is an account that has changed and is not hashed anew yet.
    fn book_lines(&mut self, lines: &[LedgerLine], mut touched: Option<usize>) -> Result<(), Inconsistent> {
        for line in lines {
            match &line.account {
                LedgerAccount::Client(id) | LedgerAccount::Margin(id) => {
                    let number = match touched.filter(|&number| self.is_account(number, id)) {
                        Some(number) => number,
                        None => self.account_number(id)?,
                    };
                    if let Some(other) = touched.filter(|&other| other != number) {
                        self.rehash_account(other)?;
                    }
                    touched = Some(number);
                    let slot = self.accounts.get_mut(number).ok_or(Inconsistent("no such account"))?;
                    let balance = slot.balance_mut(&line.currency);
                    let part = match line.account {
                        LedgerAccount::Margin(_) => &mut balance.locked,
                        _ => &mut balance.free,
                    };
                    *part = part
                        .checked_add(line.amount)
                        .ok_or(Inconsistent("a balance is too large"))?;
                    if part.is_negative() {
                        return Err(Inconsistent("a client's balance went below zero"));
                    }
                }
                LedgerAccount::House | LedgerAccount::Fee | LedgerAccount::Cash => self.book_own(line)?,
            }
        }
        touched.map_or(Ok(()), |number| self.rehash_account(number))
    }

    fn book_own(&mut self, line: &LedgerLine) -> Result<(), Inconsistent> {
        let before = self.ledger_balance(&line.account, &line.currency);
        let balance = before
            .checked_add(line.amount)
            .ok_or(Inconsistent("a balance is too large"))?;
        self.set_own(LedgerBalance {
            account: line.account.clone(),
            currency: line.currency.clone(),
            balance,
        });
        Ok(())
    }

    pub(super) fn set_own(&mut self, entry: LedgerBalance) {
        let hash = Entity::Ledger(&entry).hash(&mut self.scratch);
        let key = (entry.account.clone(), entry.currency.clone());
        let replaced = self.ledger.insert(key, LedgerSlot { entry, hash });
        let before = replaced.map_or(0, |slot| slot.hash);
        self.hash = self.hash.wrapping_sub(before).wrapping_add(hash);
    }

    fn rehash_account(&mut self, number: usize) -> Result<(), Inconsistent> {
        let slot = self.accounts.get_mut(number).ok_or(Inconsistent("no such account"))?;
        let hash = Entity::Account(&slot.account).hash(&mut self.scratch);
        self.hash = self.hash.wrapping_sub(slot.hash).wrapping_add(hash);
        slot.hash = hash;
        Ok(())
    }

    fn is_account(&self, number: usize, id: &AccountId) -> bool {
        self.accounts.get(number).is_some_and(|slot| slot.account.id == *id)
    }

    fn account_number(&self, id: &AccountId) -> Result<usize, Inconsistent> {
        self.account_numbers
            .get(id)
            .copied()
            .ok_or(Inconsistent("no such account"))
    }
}

impl AccountSlot {
    /// The balance of a currency; one that was never held starts at zero, in its place by code.
    fn balance_mut(&mut self, currency: &Currency) -> &mut Balance {
        let balances = &mut self.account.balances;
        let place = balances.partition_point(|balance| balance.currency < *currency);
        if balances.get(place).is_none_or(|balance| balance.currency != *currency) {
            let empty = Balance {
                currency: currency.clone(),
                free: Money::ZERO,
                locked: Money::ZERO,
            };
            balances.insert(place, empty);
        }
        balances.get_mut(place).expect("it is there or was just put there")
    }

    fn change_exposure(&mut self, book: usize, by: Money) -> Result<(), Inconsistent> {
        if !self.exposure.iter().any(|(number, _)| *number == book) {
            self.exposure.push((book, Money::ZERO));
        }
        for (_, held) in self.exposure.iter_mut().filter(|(number, _)| *number == book) {
            *held = held.checked_add(by).ok_or(Inconsistent("an exposure is too large"))?;
        }
        Ok(())
    }
}

/// Notional at the entry price; exact, because tick and step are held to what one product can hold.
fn notional(trade: &Trade) -> Result<Money, Inconsistent> {
    let product = trade.quantity.get().checked_mul(trade.entry_price.get());
    product.map(Money::new).ok_or(Inconsistent("a notional is too large"))
}
