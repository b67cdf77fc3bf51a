//! Every kind of journal event as the public one.

//! Every journal event as the public event a client sees.

use super::*;
use contracts::bus::{
    Deposited, Failure, InstrumentConfigured, TradeModified, TradeOpened, WalletInitialized, Withdrawn,
};
use contracts::v1::{CloseReason, ErrorReason, Side};

fn state(quantity: &str) -> TradeState {
    TradeState {
        number: 42,
        account_id: "demo".into(),
        symbol: "SOL_USDC".into(),
        side: Side::Long.into(),
        quantity: quantity.into(),
        opened_quantity: "5.000".into(),
        entry_price: "200.02".into(),
        leverage: "10".into(),
        margin: "100.00".into(),
        currency_code: "USDC".into(),
        realised_profit: "-1.00".into(),
        commission: "0.50".into(),
        opened_at_us: 1_000_000,
        ..Default::default()
    }
}

fn used() -> QuoteUsed {
    QuoteUsed {
        symbol: "SOL_USDC".into(),
        bid: "200.00".into(),
        ask: "200.02".into(),
        update_id: 7,
        ..Default::default()
    }
}

fn event(kind: Kind) -> JournalEvent {
    let lines = vec![
        JournalLine {
            ledger_account: bus::LedgerAccountKind::Client.into(),
            account_id: "demo".into(),
            currency_code: "USDC".into(),
            amount: "-100.00".into(),
        },
        JournalLine {
            ledger_account: bus::LedgerAccountKind::Margin.into(),
            account_id: "demo".into(),
            currency_code: "USDC".into(),
            amount: "100.00".into(),
        },
    ];
    JournalEvent {
        kind: Some(kind),
        lines,
    }
}

fn operation(kind: OperationKind, outcome: Outcome) -> OperationRecord {
    OperationRecord {
        principal: "alice".into(),
        request_id: Uuid::nil().as_bytes().to_vec().into(),
        kind: kind.into(),
        account_id: "demo".into(),
        outcome: Some(outcome),
        ..Default::default()
    }
}

fn entry(operation: Option<OperationRecord>, events: Vec<JournalEvent>) -> JournalEntry {
    JournalEntry {
        sequence: 9,
        at_us: 2_000_000,
        operation,
        events,
        ..Default::default()
    }
}

fn one(entry: &JournalEntry) -> StreamAccountEventsResponse {
    let mut all = public(3, "demo", entry);
    assert_eq!(all.len(), 1);
    all.remove(0)
}

#[test]
fn an_opened_trade_is_told_with_its_lines_and_its_cause() {
    let opened = Kind::TradeOpened(TradeOpened {
        trade: Some(state("5.000")),
        quote: Some(used()),
    });
    let by = operation(OperationKind::OpenTrade, Outcome::Response(Vec::new().into()));
    let told = one(&entry(Some(by), vec![event(opened)]));
    assert_eq!((told.sequence, told.event_time), (9, Some(time(2_000_000))));
    assert_eq!(told.request_id, Uuid::nil().to_string());
    let lines: Vec<_> = told.ledger_lines.iter().map(|it| it.ledger_account.as_str()).collect();
    assert_eq!(lines, ["client", "margin"]);
    let Some(Event::TradeOpened(TradeOpenedEvent { trade: Some(trade) })) = told.event else {
        panic!("opened")
    };
    assert_eq!(
        (trade.trade_id.as_str(), trade.status(), trade.sequence),
        ("3-42", TradeStatus::Open, 9)
    );
    assert_eq!(trade.margin, Some(money("USDC", "100.00")));
    assert_eq!(trade.quote.unwrap().ask, "200.02");
}

#[test]
fn a_liquidation_has_no_request_id_and_closes_the_trade() {
    let closed = Kind::TradeClosed(TradeClosed {
        trade: Some(state("0")),
        reason: CloseReason::Liquidation.into(),
        closed_quantity: "5.000".into(),
        close_price: "180.00".into(),
        released_margin: "100.00".into(),
        realised_profit: "-100.00".into(),
        house_covered: "0.10".into(),
        quote: Some(used()),
        ..Default::default()
    });
    let told = one(&entry(None, vec![event(closed)]));
    assert_eq!(told.request_id, "");
    let Some(Event::TradeClosed(told)) = told.event else {
        panic!("closed")
    };
    assert_eq!(
        (told.reason(), told.house_covered),
        (CloseReason::Liquidation, Some(money("USDC", "0.10")))
    );
    let trade = told.trade.unwrap();
    assert_eq!(
        (trade.status(), trade.close_time),
        (TradeStatus::Closed, Some(time(2_000_000)))
    );
    assert_eq!(
        (trade.close_price.as_str(), trade.close_reason()),
        ("180.00", CloseReason::Liquidation)
    );
}

#[test]
fn a_partial_close_leaves_the_trade_open() {
    let closed = Kind::TradeClosed(TradeClosed {
        trade: Some(state("2.500")),
        ..Default::default()
    });
    let Some(Event::TradeClosed(told)) = one(&entry(None, vec![event(closed)])).event else {
        panic!("closed")
    };
    let trade = told.trade.unwrap();
    assert_eq!((trade.status(), trade.close_time), (TradeStatus::Open, None));
}

#[test]
fn money_events_carry_the_balance_that_was_answered() {
    let free = Some(money("USDC", "600.00"));
    let answer = DepositResponse {
        free_balance: free.clone(),
        sequence: 9,
    }
    .encode_to_vec();
    let by = operation(OperationKind::Deposit, Outcome::Response(answer.into()));
    let kind = Kind::Deposited(Deposited {
        account_id: "demo".into(),
        currency_code: "USDC".into(),
        amount: "100.00".into(),
    });
    let Some(Event::Deposited(told)) = one(&entry(Some(by), vec![event(kind)])).event else {
        panic!("deposited")
    };
    assert_eq!((told.amount, told.free_balance), (Some(money("USDC", "100.00")), free));

    let kind = Kind::Withdrawn(Withdrawn {
        account_id: "demo".into(),
        currency_code: "USDC".into(),
        amount: "1.00".into(),
    });
    let Some(Event::Withdrawn(told)) = one(&entry(None, vec![event(kind)])).event else {
        panic!("withdrawn")
    };
    assert_eq!(told.free_balance, None);

    let kind = Kind::WalletInitialized(WalletInitialized {
        account_id: "demo".into(),
    });
    let Some(Event::WalletInitialized(told)) = one(&entry(None, vec![event(kind)])).event else {
        panic!("made")
    };
    assert_eq!(told.balances.len(), 2, "what was booked");
}

#[test]
fn a_change_says_what_was_added() {
    let modified = |added: &str| {
        let kind = Kind::TradeModified(TradeModified {
            trade: Some(state("5.000")),
            margin_added: added.into(),
            ..Default::default()
        });
        let Some(Event::TradeModified(told)) = one(&entry(None, vec![event(kind)])).event else {
            panic!("modified")
        };
        told.margin_added
    };
    assert_eq!(modified("50.00"), Some(money("USDC", "50.00")));
    assert_eq!(modified(""), None);
}

#[test]
fn a_refused_operation_is_told_by_name() {
    let failure = Failure {
        reason: ErrorReason::StalePrice.into(),
        message: "old".into(),
        ..Default::default()
    };
    let entry = entry(
        Some(operation(OperationKind::CloseTrade, Outcome::Failure(failure))),
        Vec::new(),
    );
    assert_eq!(accounts(&entry), ["demo"]);
    let Some(Event::OperationRefused(told)) = one(&entry).event else {
        panic!("refused")
    };
    assert_eq!(
        (told.method.as_str(), told.reason.as_str(), told.message.as_str()),
        ("CloseTrade", "STALE_PRICE", "old")
    );
}

#[test]
fn nobody_is_told_of_somebody_elses_events() {
    let opened = Kind::TradeOpened(TradeOpened {
        trade: Some(state("5.000")),
        quote: None,
    });
    let entry = entry(
        None,
        vec![
            event(opened),
            event(Kind::InstrumentConfigured(InstrumentConfigured::default())),
        ],
    );
    assert_eq!(accounts(&entry), ["demo"]);
    assert!(public(3, "alice", &entry).is_empty());
    assert_eq!(public(3, "demo", &entry).len(), 1);
}
