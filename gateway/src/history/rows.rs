//! Rows of the recorder's tables as the public API has them, and the columns they are selected by.

use contracts::bus::QuoteUsed;
use contracts::{names, v1};
use prost::Message as _;
use sqlx::FromRow;
use uuid::Uuid;

use super::unsigned;
use crate::wire;

// What is selected: literals, because a statement put together at run time would need to be trusted.

macro_rules! trade_columns {
    () => {
        "shard, number, account_id, symbol, side, status, quantity::text AS quantity, opened_quantity::text AS opened_quantity, \
         entry_price::text AS entry_price, leverage::text AS leverage, currency_code, margin::text AS margin, \
         coalesce(stop_loss_price::text, '') AS stop_loss_price, coalesce(take_profit_price::text, '') AS take_profit_price, \
         coalesce(liquidation_price::text, '') AS liquidation_price, coalesce(close_price::text, '') AS close_price, \
         (extract(epoch FROM opened_at) * 1000000)::bigint AS opened_us, \
         (extract(epoch FROM closed_at) * 1000000)::bigint AS closed_us, \
         close_reason, realised_profit::text AS realised_profit, commission::text AS commission, seq, quote"
    };
}
macro_rules! candle_columns {
    () => {
        "(extract(epoch FROM open_at) * 1000000)::bigint AS open_us, open::text AS open, high::text AS high, low::text AS low, \
         close::text AS close, quotes"
    };
}
macro_rules! candle_where {
    () => {
        " FROM candles WHERE symbol = $1 AND interval = $2 \
         AND ($3::bigint IS NULL OR open_at >= to_timestamp($3 / 1000000) + ($3 % 1000000) * interval '1 microsecond') \
         AND ($4::bigint IS NULL OR open_at < to_timestamp($4 / 1000000) + ($4 % 1000000) * interval '1 microsecond')"
    };
}

pub(super) use {candle_columns, candle_where, trade_columns};

/// A row of `trades`.
#[derive(FromRow)]
pub(super) struct TradeRow {
    shard: i32,
    number: i64,
    account_id: String,
    symbol: String,
    side: i16,
    status: i16,
    quantity: String,
    opened_quantity: String,
    entry_price: String,
    leverage: String,
    currency_code: String,
    margin: String,
    stop_loss_price: String,
    take_profit_price: String,
    liquidation_price: String,
    close_price: String,
    opened_us: i64,
    closed_us: Option<i64>,
    close_reason: i16,
    realised_profit: String,
    commission: String,
    seq: i64,
    quote: Vec<u8>,
}

impl TradeRow {
    /// As the public API has it.
    pub fn into_trade(self) -> v1::Trade {
        let code = self.currency_code;
        let money = |amount: String| {
            Some(v1::Money {
                currency_code: code.clone(),
                amount,
            })
        };
        v1::Trade {
            trade_id: names::trade_id(u32::try_from(self.shard).unwrap_or_default(), unsigned(self.number)),
            account_id: self.account_id,
            symbol: self.symbol,
            side: self.side.into(),
            status: self.status.into(),
            quantity: self.quantity,
            opened_quantity: self.opened_quantity,
            entry_price: self.entry_price,
            leverage: self.leverage,
            margin: money(self.margin),
            stop_loss_price: self.stop_loss_price,
            take_profit_price: self.take_profit_price,
            liquidation_price: self.liquidation_price,
            open_time: Some(wire::signed_time(self.opened_us)),
            close_time: self.closed_us.map(wire::signed_time),
            close_price: self.close_price,
            close_reason: self.close_reason.into(),
            realised_profit: money(self.realised_profit),
            unrealised_profit: None,
            commission: money(self.commission),
            quote: QuoteUsed::decode(self.quote.as_slice()).ok().map(wire::quote),
            sequence: unsigned(self.seq),
        }
    }
}

/// A row of `ledger_entries`.
#[derive(FromRow)]
pub(super) struct LedgerRow {
    shard: i32,
    seq: i64,
    line: i32,
    kind: String,
    ledger_account: i16,
    currency_code: String,
    amount: String,
    trade_number: Option<i64>,
    request_id: Option<Uuid>,
    booked_us: i64,
}

impl LedgerRow {
    /// As the public API has it.
    pub fn into_transaction(self) -> v1::Transaction {
        let shard = u32::try_from(self.shard).unwrap_or_default();
        v1::Transaction {
            sequence: unsigned(self.seq),
            line: u32::try_from(self.line).unwrap_or_default(),
            book_time: Some(wire::signed_time(self.booked_us)),
            kind: self.kind,
            entry: Some(v1::LedgerLine {
                ledger_account: wire::ledger_account(self.ledger_account.into()).to_owned(),
                amount: Some(v1::Money {
                    currency_code: self.currency_code,
                    amount: self.amount,
                }),
            }),
            trade_id: self
                .trade_number
                .map(|number| names::trade_id(shard, unsigned(number)))
                .unwrap_or_default(),
            request_id: self.request_id.map(|id| id.to_string()).unwrap_or_default(),
        }
    }
}

/// A row of `candles`.
#[derive(FromRow)]
pub(super) struct CandleRow {
    open_us: i64,
    open: String,
    high: String,
    low: String,
    close: String,
    quotes: i64,
}

impl CandleRow {
    /// As the public API has it.
    pub fn into_candle(self) -> v1::Candle {
        v1::Candle {
            open_time: Some(wire::signed_time(self.open_us)),
            open: self.open,
            high: self.high,
            low: self.low,
            close: self.close,
            quotes: unsigned(self.quotes),
        }
    }
}
