//! The price index: which trades a quote fires, found without looking at the others.
//!
//! Per instrument four ordered sets, one for each way a closing price can reach a trigger. A tick reads from the near
//! end of each until the price is passed, so it costs what it fires, not what is open.

use std::collections::BTreeSet;

use crate::event::CloseReason;
use crate::grid;
use crate::ids::TradeId;
use crate::money::Price;
use crate::trade::{Side, Trade};

/// Price in ticks first, so that a set is ordered by how soon it is reached; the rest makes a key unique.
type Key = (i64, Trigger);

/// A trade and which of its triggers, in one number: there are up to three of these for each open trade. Ordered by trade, then by reason.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Trigger(u64);

impl Trigger {
    const STOP_LOSS: u64 = 0;
    const TAKE_PROFIT: u64 = 1;
    const REASONS: u64 = 4;

    fn new(trade: TradeId, reason: CloseReason) -> Self {
        let reason = match reason {
            CloseReason::StopLoss => Self::STOP_LOSS,
            CloseReason::TakeProfit => Self::TAKE_PROFIT,
            CloseReason::Liquidation | CloseReason::Client => Self::REASONS - 1,
        };
        // A trade of a larger number than this leaves room for is not taken into a state.
        Self(trade.get().wrapping_mul(Self::REASONS) | reason)
    }

    fn trade(self) -> TradeId {
        TradeId::new(self.0 / Self::REASONS)
    }

    fn reason(self) -> CloseReason {
        match self.0 % Self::REASONS {
            Self::STOP_LOSS => CloseReason::StopLoss,
            Self::TAKE_PROFIT => CloseReason::TakeProfit,
            _ => CloseReason::Liquidation,
        }
    }
}

/// The triggers of one instrument's open trades.
#[derive(Clone, Default)]
pub(crate) struct TriggerIndex {
    /// Stop-losses and liquidations of longs: reached when the bid is at the key or below.
    long_falling: BTreeSet<Key>,
    /// Take-profits of longs: reached when the bid is at the key or above.
    long_rising: BTreeSet<Key>,
    /// Stop-losses and liquidations of shorts: reached when the ask is at the key or above.
    short_rising: BTreeSet<Key>,
    /// Take-profits of shorts: reached when the ask is at the key or below.
    short_falling: BTreeSet<Key>,
}

impl TriggerIndex {
    /// Adds what a trade has set.
    pub(crate) fn insert(&mut self, trade: &Trade, tick: Price) {
        for key in keys(trade, tick).into_iter().flatten() {
            self.set(key.1.reason(), trade.side).insert(key);
        }
    }

    /// Removes what a trade has set; `trade` must be as it was inserted.
    pub(crate) fn remove(&mut self, trade: &Trade, tick: Price) {
        for key in keys(trade, tick).into_iter().flatten() {
            self.set(key.1.reason(), trade.side).remove(&key);
        }
    }

    fn set(&mut self, reason: CloseReason, side: Side) -> &mut BTreeSet<Key> {
        match (side, reason) {
            (Side::Long, CloseReason::TakeProfit) => &mut self.long_rising,
            (Side::Long, _) => &mut self.long_falling,
            (Side::Short, CloseReason::TakeProfit) => &mut self.short_falling,
            (Side::Short, _) => &mut self.short_rising,
        }
    }

    /// Every trade that these prices fire, each once, with its foremost reason: stop-losses, then take-profits, then
    /// liquidations, by trade id within each.
    pub(crate) fn fired(&self, bid_ticks: i64, ask_ticks: i64) -> Vec<(CloseReason, TradeId)> {
        let at_or_above = |set: &BTreeSet<Key>, price| {
            // From the far end of the set down: the highest stop is the first that a falling bid reaches.
            set.iter()
                .rev()
                .take_while(move |key| key.0 >= price)
                .map(|key| key.1)
                .collect::<Vec<_>>()
        };
        let at_or_below = |set: &BTreeSet<Key>, price| {
            set.iter()
                .take_while(move |key| key.0 <= price)
                .map(|key| key.1)
                .collect::<Vec<_>>()
        };
        let mut reached = at_or_above(&self.long_falling, bid_ticks);
        reached.extend(at_or_below(&self.long_rising, bid_ticks));
        reached.extend(at_or_below(&self.short_rising, ask_ticks));
        reached.extend(at_or_above(&self.short_falling, ask_ticks));
        reached.sort_unstable();
        reached.dedup_by_key(|trigger| trigger.trade());
        let mut fired: Vec<_> = reached.iter().map(|it| (it.reason(), it.trade())).collect();
        fired.sort_unstable();
        fired
    }
}

/// The keys of a trade's triggers. All three prices are on the grid already; rounding away from the fire is what is
/// right should one ever not be.
fn keys(trade: &Trade, tick: Price) -> [Option<Key>; 3] {
    let key = |price: Option<Price>, reason: CloseReason| {
        let price = price?.get();
        let ticks = match (trade.side, reason) {
            (Side::Long, CloseReason::TakeProfit) | (Side::Short, CloseReason::StopLoss | CloseReason::Liquidation) => {
                grid::ceil(price, tick.get())
            }
            _ => grid::floor(price, tick.get()),
        };
        Some((ticks?, Trigger::new(trade.id, reason)))
    };
    [
        key(trade.stop_loss, CloseReason::StopLoss),
        key(trade.take_profit, CloseReason::TakeProfit),
        key(trade.liquidation_price, CloseReason::Liquidation),
    ]
}
