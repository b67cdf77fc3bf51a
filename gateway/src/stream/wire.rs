//! Journal entries as public events: the only file of the gateway that knows both.

use contracts::bus::{
    JournalEntry, JournalEvent, JournalLine, OperationKind, OperationRecord, QuoteUsed, TradeClosed, TradeState,
    journal_event::Kind, operation_record::Outcome,
};
use contracts::v1::stream_account_events_response::Event;
use contracts::v1::{
    DepositResponse, DepositedEvent, InitializeWalletResponse, LedgerLine, Money, OperationRefusedEvent,
    StreamAccountEventsResponse, Trade, TradeClosedEvent, TradeModifiedEvent, TradeOpenedEvent, TradeStatus,
    WalletInitializedEvent, WithdrawResponse, WithdrawnEvent,
};
use contracts::{bus, names};
use prost::Message;
use uuid::Uuid;

use crate::wire::{ledger_account, method, quote, time};

/// The accounts that an entry concerns, each once.
pub(crate) fn accounts(entry: &JournalEntry) -> Vec<&str> {
    let of_operation = entry.operation.iter().map(|operation| operation.account_id.as_str());
    let of_events = entry.events.iter().filter_map(owner);
    let mut accounts: Vec<&str> = of_operation.chain(of_events).collect();
    accounts.sort_unstable();
    accounts.dedup();
    accounts
}

/// What an entry means to one account.
pub(crate) fn public(shard: u32, account_id: &str, entry: &JournalEntry) -> Vec<StreamAccountEventsResponse> {
    let operation = entry
        .operation
        .as_ref()
        .filter(|operation| operation.account_id == account_id);
    let message = |event: Event, lines: &[JournalLine]| StreamAccountEventsResponse {
        sequence: entry.sequence,
        event_time: Some(time(entry.at_us)),
        event: Some(event),
        ledger_lines: lines.iter().map(line).collect(),
        request_id: operation
            .and_then(|it| Uuid::from_slice(&it.request_id).ok())
            .map(|it| it.to_string())
            .unwrap_or_default(),
    };
    if let Some((operation, Outcome::Failure(failure))) = operation.and_then(|it| Some((it, it.outcome.as_ref()?))) {
        let refused = OperationRefusedEvent {
            method: method(operation.kind()).to_owned(),
            reason: failure.reason().code().to_owned(),
            message: failure.message.clone(),
        };
        return vec![message(Event::OperationRefused(refused), &[])];
    }
    let own = entry.events.iter().filter(|event| owner(event) == Some(account_id));
    own.filter_map(|event| Some(message(translate(shard, entry, operation, event)?, &event.lines)))
        .collect()
}

/// Whose event it is; nobody's when the house changed an instrument.
fn owner(event: &JournalEvent) -> Option<&str> {
    Some(match event.kind.as_ref()? {
        Kind::InstrumentConfigured(_) => return None,
        Kind::WalletInitialized(it) => &it.account_id,
        Kind::Deposited(it) => &it.account_id,
        Kind::Withdrawn(it) => &it.account_id,
        Kind::TradeOpened(it) => &it.trade.as_ref()?.account_id,
        Kind::TradeModified(it) => &it.trade.as_ref()?.account_id,
        Kind::TradeClosed(it) => &it.trade.as_ref()?.account_id,
    })
}

fn translate(
    shard: u32,
    entry: &JournalEntry,
    operation: Option<&OperationRecord>,
    event: &JournalEvent,
) -> Option<Event> {
    Some(match event.kind.as_ref()? {
        Kind::InstrumentConfigured(_) => return None,
        Kind::WalletInitialized(it) => {
            let answered = answer::<InitializeWalletResponse>(operation, OperationKind::InitializeWallet);
            // The journal keeps what was booked; currencies that start at zero stand in the answer alone.
            let booked = || {
                let own = event.lines.iter().filter(|line| line.account_id == it.account_id);
                own.map(|line| money(&line.currency_code, &line.amount)).collect()
            };
            Event::WalletInitialized(WalletInitializedEvent {
                balances: answered.map_or_else(booked, |it| it.balances),
            })
        }
        Kind::Deposited(it) => Event::Deposited(DepositedEvent {
            amount: Some(money(&it.currency_code, &it.amount)),
            free_balance: answer::<DepositResponse>(operation, OperationKind::Deposit).and_then(|it| it.free_balance),
        }),
        Kind::Withdrawn(it) => Event::Withdrawn(WithdrawnEvent {
            amount: Some(money(&it.currency_code, &it.amount)),
            free_balance: answer::<WithdrawResponse>(operation, OperationKind::Withdraw).and_then(|it| it.free_balance),
        }),
        Kind::TradeOpened(it) => Event::TradeOpened(TradeOpenedEvent {
            trade: Some(trade(shard, entry, it.trade.as_ref()?, it.quote.clone())),
        }),
        Kind::TradeModified(it) => {
            let state = it.trade.as_ref()?;
            Event::TradeModified(TradeModifiedEvent {
                trade: Some(trade(shard, entry, state, it.quote.clone())),
                margin_added: (!it.margin_added.is_empty()).then(|| money(&state.currency_code, &it.margin_added)),
            })
        }
        Kind::TradeClosed(it) => Event::TradeClosed(closed(shard, entry, it)?),
    })
}

fn closed(shard: u32, entry: &JournalEntry, it: &TradeClosed) -> Option<TradeClosedEvent> {
    let state = it.trade.as_ref()?;
    let amount = |text: &str| Some(money(&state.currency_code, text));
    let mut after = trade(shard, entry, state, it.quote.clone());
    after.close_price.clone_from(&it.close_price);
    after.close_reason = it.reason;
    if after.status() == TradeStatus::Closed {
        after.close_time = Some(time(entry.at_us));
    }
    Some(TradeClosedEvent {
        trade: Some(after),
        closed_quantity: it.closed_quantity.clone(),
        close_price: it.close_price.clone(),
        reason: it.reason,
        realised_profit: amount(&it.realised_profit),
        released_margin: amount(&it.released_margin),
        house_covered: amount(&it.house_covered),
    })
}

/// A trade as the public API has it, as of an entry.
fn trade(shard: u32, entry: &JournalEntry, state: &TradeState, used: Option<QuoteUsed>) -> Trade {
    let amount = |text: &str| Some(money(&state.currency_code, text));
    let status = if is_zero(&state.quantity) {
        TradeStatus::Closed
    } else {
        TradeStatus::Open
    };
    Trade {
        trade_id: names::trade_id(shard, state.number),
        account_id: state.account_id.clone(),
        symbol: state.symbol.clone(),
        side: state.side,
        status: status.into(),
        quantity: state.quantity.clone(),
        opened_quantity: state.opened_quantity.clone(),
        entry_price: state.entry_price.clone(),
        leverage: state.leverage.clone(),
        margin: amount(&state.margin),
        stop_loss_price: state.stop_loss_price.clone(),
        take_profit_price: state.take_profit_price.clone(),
        liquidation_price: state.liquidation_price.clone(),
        open_time: Some(time(state.opened_at_us)),
        realised_profit: amount(&state.realised_profit),
        commission: amount(&state.commission),
        quote: used.map(quote),
        sequence: entry.sequence,
        ..Trade::default()
    }
}

/// The answer of the operation behind an event, if it is of this kind.
fn answer<R: Message + Default>(operation: Option<&OperationRecord>, kind: OperationKind) -> Option<R> {
    let operation = operation.filter(|it| it.kind() == kind)?;
    match operation.outcome.as_ref()? {
        Outcome::Response(response) => R::decode(response.as_ref()).ok(),
        Outcome::Failure(_) => None,
    }
}

fn line(it: &bus::JournalLine) -> LedgerLine {
    LedgerLine {
        ledger_account: ledger_account(it.ledger_account).to_owned(),
        amount: Some(money(&it.currency_code, &it.amount)),
    }
}

fn money(currency_code: &str, amount: &str) -> Money {
    Money {
        currency_code: currency_code.to_owned(),
        amount: amount.to_owned(),
    }
}

fn is_zero(quantity: &str) -> bool {
    quantity.bytes().all(|byte| matches!(byte, b'0' | b'.'))
}

#[cfg(test)]
mod tests;
