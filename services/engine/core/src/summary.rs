//! What an account is worth now: the one calculation that looks at all of its trades, and only at its own.

use rust_decimal::Decimal;

use crate::currency;
use crate::formula;
use crate::ids::{AccountId, Currency, TradeId};
use crate::market::Market;
use crate::money::{Money, Rate};
use crate::quote::TradableQuote;
use crate::state::State;
use crate::time::Timestamp;
use crate::trade::Trade;

/// An account in one currency, valued at the last quotes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// When it was worked out: what the ages of the quotes are to be judged against.
    pub as_of: Timestamp,
    /// The currency of every amount here.
    pub currency: Currency,
    /// All cash, free and locked.
    pub balance: Money,
    /// `balance + unrealised_profit`.
    pub equity: Money,
    /// Locked by open trades.
    pub used_margin: Money,
    /// What a new trade can lock: the free cash. Margin is isolated, so other trades' profits do not count.
    pub free_margin: Money,
    /// `equity / used_margin` in percent, to two decimals; `None` when nothing is locked.
    pub margin_level: Option<Rate>,
    /// The sum over the trades that have a price.
    pub unrealised_profit: Money,
    /// Each open trade in this currency, by ascending number.
    pub trades: Vec<TradeProfit>,
    /// The quotes used, by symbol, each with its time: how old they are is for the reader to judge.
    pub quotes: Vec<TradableQuote>,
}

/// What one open trade has earned so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TradeProfit {
    /// Which.
    pub trade: TradeId,
    /// What closing it at the last quote would earn before commission; `None` when there has been no quote.
    pub unrealised_profit: Option<Money>,
}

/// What closing a trade at this quote would earn: direction × (closing price − entry) × quantity, rounded half to
/// even as the ledger would. Neither commission nor negative balance protection is in it.
pub fn unrealised_profit(trade: &Trade, quote: &TradableQuote) -> Money {
    let price = trade.side.closing(quote);
    let profit = formula::profit(trade.side, trade.entry_price.get(), price.get(), trade.quantity.get());
    // Both prices and the quantity are on grids that keep the product within a decimal.
    let profit = Money::new(profit.expect("prices and quantities are bounded"));
    currency::exponent(&trade.currency).map_or(profit, |exponent| profit.rounded(exponent))
}

/// Values an account at the last quotes, however old; `None` when there is no such account.
pub fn summary(
    state: &State,
    market: &Market,
    at: Timestamp,
    account: &AccountId,
    currency: &Currency,
) -> Option<Summary> {
    let owner = state.account(account)?;
    let (free, used_margin) = (owner.free(currency), owner.locked(currency));
    let mut quotes: Vec<TradableQuote> = Vec::new();
    let mut trades = Vec::new();
    let mut unrealised = Money::ZERO;
    for trade in state.trades_of(account).filter(|trade| trade.currency == *currency) {
        let place = quotes.binary_search_by(|quote| quote.symbol.cmp(&trade.symbol));
        let quote = match place {
            Ok(place) => quotes.get(place),
            Err(place) => match market.tradable(&trade.symbol) {
                Some(quote) => {
                    quotes.insert(place, quote);
                    quotes.get(place)
                }
                None => None,
            },
        };
        let profit = quote.map(|quote| unrealised_profit(trade, quote));
        unrealised = unrealised.checked_add(profit.unwrap_or(Money::ZERO))?;
        trades.push(TradeProfit {
            trade: trade.id,
            unrealised_profit: profit,
        });
    }
    let balance = free.checked_add(used_margin)?;
    let equity = balance.checked_add(unrealised)?;
    Some(Summary {
        as_of: at,
        currency: currency.clone(),
        balance,
        equity,
        used_margin,
        free_margin: free,
        margin_level: margin_level(equity, used_margin),
        unrealised_profit: unrealised,
        trades,
        quotes,
    })
}

/// Equity over used margin, in percent to two decimals; below zero it is zero, for a level is not a debt.
fn margin_level(equity: Money, used_margin: Money) -> Option<Rate> {
    let level = equity
        .get()
        .checked_mul(Decimal::ONE_HUNDRED)?
        .checked_div(used_margin.get())?;
    Rate::new(Money::new(level).rounded(2).get().max(Decimal::ZERO)).ok()
}
