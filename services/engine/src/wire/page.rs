//! A page of an account's open trades. It costs what is on it, but where it is ordered by profit: then all are looked at, and one page
//! is written.

use std::cmp::Ordering;
use std::ops::Bound;

use contracts::bus::{Failure, OpenTradesRequest};
use engine_core::{AccountId, Money, State, Symbol, Trade, TradeId};

use super::command::invalid;

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    symbol: Option<Symbol>,
    limit: usize,
    by_profit: bool,
    descending: bool,
    /// Begin after this trade, with this profit.
    after: Option<(Money, TradeId)>,
}

impl Page {
    /// Reads a request.
    ///
    /// # Errors
    /// `INVALID_FIELD` with the field at fault.
    pub fn read(it: &OpenTradesRequest) -> Result<Self, Failure> {
        let symbol = match it.symbol.as_str() {
            "" => None,
            text => Some(Symbol::new(text).map_err(|problem| invalid("symbol", &problem.to_string()))?),
        };
        let after = match it.after_number {
            None => None,
            Some(number) => {
                let profit = if it.by_realised_profit {
                    let read = Money::parse(&it.after_realised_profit);
                    read.map_err(|problem| invalid("after_realised_profit", &problem.to_string()))?
                } else {
                    Money::ZERO
                };
                Some((profit, TradeId::new(number)))
            }
        };
        Ok(Self {
            symbol,
            limit: usize::try_from(it.limit).unwrap_or(usize::MAX),
            by_profit: it.by_realised_profit,
            descending: it.descending,
            after,
        })
    }

    /// The trades of the page, in its order.
    #[must_use]
    pub fn of<'a>(&self, state: &'a State, account: &AccountId) -> Vec<&'a Trade> {
        let wanted = |trade: &&Trade| self.symbol.as_ref().is_none_or(|symbol| trade.symbol == *symbol);
        if self.by_profit {
            let all = state.trades_between(account, (Bound::Unbounded, Bound::Unbounded));
            return self.by_profit(all.filter(wanted).collect());
        }
        let after = self
            .after
            .map_or(Bound::Unbounded, |(_, number)| Bound::Excluded(number));
        if self.descending {
            let older = state.trades_between(account, (Bound::Unbounded, after));
            older.rev().filter(wanted).take(self.limit).collect()
        } else {
            let newer = state.trades_between(account, (after, Bound::Unbounded));
            newer.filter(wanted).take(self.limit).collect()
        }
    }

    fn by_profit<'a>(&self, mut trades: Vec<&'a Trade>) -> Vec<&'a Trade> {
        let key = |trade: &Trade| (trade.realised_profit, trade.id);
        let turn = |ordering: Ordering| {
            if self.descending { ordering.reverse() } else { ordering }
        };
        let compare = |one: &&Trade, other: &&Trade| turn(key(one).cmp(&key(other)));
        if let Some(after) = self.after {
            trades.retain(|trade| turn(key(trade).cmp(&after)).is_gt());
        }
        if self.limit < trades.len() {
            trades.select_nth_unstable_by(self.limit, compare);
            trades.truncate(self.limit);
        }
        trades.sort_unstable_by(compare);
        trades
    }
}
