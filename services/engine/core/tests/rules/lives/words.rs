//! What the core says, in the model's words.

use engine_core::{CloseReason, Event, EventKind, Money, Price, Refusal};

use super::{ACCOUNTS, SYMBOLS};
use crate::naive::{self, Naive, Outcome, scaled};

/// A refusal in the model's words; the model knows a few fields less.
pub fn in_model_words(refusal: &Refusal) -> Outcome {
    naive::refused(refusal)
}

/// A trade in the model's integers.
pub fn in_integers(it: &engine_core::Trade, naive: &Naive) -> naive::Trade {
    let symbol = SYMBOLS
        .iter()
        .position(|name| *name == it.symbol.as_str())
        .expect("one of ours");
    let terms = &naive.terms[symbol];
    let ticks = |price: Price| scaled(price.get(), terms.price_scale);
    naive::Trade {
        id: it.id.get(),
        account: ACCOUNTS
            .iter()
            .position(|name| *name == it.account.as_str())
            .expect("one of ours"),
        symbol,
        side: it.side,
        quantity: scaled(it.quantity.get(), terms.quantity_scale),
        entry: ticks(it.entry_price),
        margin: scaled(it.margin.get(), 2),
        stop_loss: it.stop_loss.map(ticks),
        take_profit: it.take_profit.map(ticks),
        maintenance_ppm: scaled(it.maintenance_rate.get(), 6),
    }
}

/// An event in the model's words; `None` for those the model has no answer to.
pub fn outcome(event: &Event, naive: &Naive) -> Option<Outcome> {
    let cents = |amount: Money| scaled(amount.get(), 2);
    Some(match &event.kind {
        EventKind::TradeOpened { trade, .. } => Outcome::Opened(in_integers(trade, naive), cents(trade.commission)),
        EventKind::Deposited { amount, .. } => Outcome::Moved(cents(*amount)),
        EventKind::Withdrawn { amount, .. } => Outcome::Moved(-cents(*amount)),
        EventKind::TradeModified {
            trade,
            margin,
            stop_loss,
            take_profit,
            ..
        } => {
            let mine = naive.trades.iter().find(|it| it.id == trade.get());
            let scale = naive.terms[mine.map_or(0, |it| it.symbol)].price_scale;
            let ticks = |price: &Option<Price>| price.map(|price| scaled(price.get(), scale));
            Outcome::Modified(trade.get(), cents(*margin), ticks(stop_loss), ticks(take_profit))
        }
        EventKind::TradeReduced(it) | EventKind::TradeClosed(it) => {
            let symbol = SYMBOLS
                .iter()
                .position(|name| *name == it.symbol.as_str())
                .expect("one of ours");
            let terms = &naive.terms[symbol];
            assert_eq!(
                it.gross_profit.get() + it.house_covered.get() - it.commission.get(),
                it.realised_profit.get(),
                "what the four amounts mean"
            );
            Outcome::Closed(naive::Closing {
                trade: it.trade.get(),
                reason: match it.reason {
                    CloseReason::Client => "client",
                    CloseReason::StopLoss => "stop-loss",
                    CloseReason::TakeProfit => "take-profit",
                    CloseReason::Liquidation => "liquidation",
                },
                quantity: scaled(it.quantity.get(), terms.quantity_scale),
                price: scaled(it.close_price.get(), terms.price_scale),
                released: cents(it.margin_released),
                profit: cents(it.realised_profit),
                commission: cents(it.commission),
                covered: cents(it.house_covered),
                left: (
                    it.remaining_quantity
                        .map_or(0, |rest| scaled(rest.get(), terms.quantity_scale)),
                    cents(it.remaining_margin),
                ),
            })
        }
        EventKind::WalletInitialized { .. } | EventKind::InstrumentConfigured(_) => return None,
    })
}
