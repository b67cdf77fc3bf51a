//! Every journal event expanded into its rows, and the journals that must be refused.

use contracts::bus::{
    Deposited, Failure, InstrumentConfigured, JournalLine, QuoteUsed, TradeClosed, TradeModified, TradeOpened,
    WalletInitialized, Withdrawn,
};

use super::*;

const AT_US: u64 = 1_700_000_000_123_456;

fn line(kind: LedgerAccountKind, account_id: &str, amount: &str) -> JournalLine {
    let (account_id, currency_code, amount) = (account_id.into(), "USDC".into(), amount.into());
    JournalLine {
        ledger_account: kind.into(),
        account_id,
        currency_code,
        amount,
    }
}

fn moved(from: LedgerAccountKind, to: LedgerAccountKind, amount: &str) -> Vec<JournalLine> {
    vec![line(from, "demo", &format!("-{amount}")), line(to, "demo", amount)]
}

fn event(kind: Kind, lines: Vec<JournalLine>) -> JournalEvent {
    JournalEvent {
        kind: Some(kind),
        lines,
    }
}

fn deposited() -> JournalEvent {
    let kind = Deposited {
        account_id: "demo".into(),
        currency_code: "USDC".into(),
        amount: "100.00".into(),
    };
    event(
        Kind::Deposited(kind),
        moved(LedgerAccountKind::Cash, LedgerAccountKind::Client, "100.00"),
    )
}

fn trade(number: u64, quantity: &str) -> TradeState {
    TradeState {
        number,
        account_id: "demo".into(),
        symbol: "SOL_USDC".into(),
        side: Side::Long.into(),
        quantity: quantity.into(),
        opened_quantity: "5.000".into(),
        entry_price: "200.02".into(),
        leverage: "10".into(),
        margin: "100.00".into(),
        currency_code: "USDC".into(),
        liquidation_price: "180.02".into(),
        maintenance_rate: "0".into(),
        opened_at_us: AT_US,
        commission: "0.50".into(),
        realised_profit: "0.00".into(),
        ..TradeState::default()
    }
}

fn quote(update_id: u64) -> QuoteUsed {
    QuoteUsed {
        symbol: "SOL_USDC".into(),
        bid: "200.00".into(),
        ask: "200.02".into(),
        update_id,
        ..QuoteUsed::default()
    }
}

fn opened(number: u64) -> JournalEvent {
    let kind = TradeOpened {
        trade: Some(trade(number, "5.000")),
        quote: Some(quote(1)),
    };
    event(
        Kind::TradeOpened(kind),
        moved(LedgerAccountKind::Client, LedgerAccountKind::Margin, "100.00"),
    )
}

fn modified(number: u64) -> JournalEvent {
    let trade = TradeState {
        stop_loss_price: "190.00".into(),
        take_profit_price: "220.00".into(),
        ..trade(number, "5.000")
    };
    event(
        Kind::TradeModified(TradeModified {
            trade: Some(trade),
            ..TradeModified::default()
        }),
        vec![],
    )
}

fn closed(number: u64, remaining: &str, profit_so_far: &str, reason: CloseReason) -> JournalEvent {
    let trade = TradeState {
        realised_profit: profit_so_far.into(),
        commission: "0.75".into(),
        margin: if remaining == "0" { "0.00" } else { "60.00" }.into(),
        ..trade(number, remaining)
    };
    let kind = TradeClosed {
        trade: Some(trade),
        reason: reason.into(),
        close_price: "210.00".into(),
        quote: Some(quote(2)),
        ..TradeClosed::default()
    };
    event(
        Kind::TradeClosed(kind),
        moved(LedgerAccountKind::Margin, LedgerAccountKind::Client, "40.00"),
    )
}

fn operation(request: u8) -> OperationRecord {
    OperationRecord {
        principal: "alice".into(),
        request_id: vec![request; 16].into(),
        kind: OperationKind::OpenTrade.into(),
        account_id: "demo".into(),
        ..OperationRecord::default()
    }
}

fn entry(sequence: u64, operation: Option<OperationRecord>, events: Vec<JournalEvent>) -> JournalEntry {
    JournalEntry {
        sequence,
        at_us: AT_US + sequence,
        operation,
        events,
        traceparent: String::new(),
    }
}

fn row(entries: Vec<JournalEntry>) -> JournalRow {
    let sequence = |entry: Option<&JournalEntry>| i64::try_from(entry.expect("entries").sequence).unwrap();
    let (first_seq, last_seq) = (sequence(entries.first()), sequence(entries.last()));
    JournalRow {
        shard: 7,
        first_seq,
        last_seq,
        epoch: 1,
        body: JournalBatch {
            entries,
            price_cursor: "1-0".into(),
        }
        .encode_to_vec(),
    }
}

/// Expands events as the one entry of a fresh journal.
fn expand_events(events: Vec<JournalEvent>) -> Result<Expansion, RecorderError> {
    expand(7, 0, &[row(vec![entry(1, Some(operation(9)), events)])])
}

fn one_trade(expansion: &Expansion) -> TradeRow {
    let trades: Vec<_> = expansion.trades.opened().chain(expansion.trades.changed()).collect();
    assert_eq!(trades.len(), 1, "{trades:?}");
    trades[0].clone()
}

fn at(sequence: u64) -> DateTime<Utc> {
    DateTime::from_timestamp_micros(i64::try_from(AT_US + sequence).unwrap()).unwrap()
}

fn number(text: &str) -> Decimal {
    text.parse().unwrap()
}

#[test]
fn the_first_answer_is_the_end_of_the_record() {
    let refusal = Failure {
        message: "too little".into(),
        ..Failure::default()
    };
    for (outcome, answer) in [
        (Some(Outcome::Response(b"done".to_vec().into())), b"done".to_vec()),
        (Some(Outcome::Failure(refusal.clone())), refusal.encode_to_vec()),
        (None, Vec::new()),
    ] {
        let operation = OperationRecord {
            outcome,
            ..operation(1)
        };
        let expansion = expand(7, 0, &[row(vec![entry(1, Some(operation), Vec::new())])]).unwrap();
        let recorded = &expansion.operations[0];
        let answer_at = recorded.record.len() - usize::try_from(recorded.result_bytes).unwrap();
        assert_eq!(recorded.record[answer_at..], answer, "{recorded:?}");
    }
}

#[test]
fn every_kind_of_event_is_booked_under_its_own_name() {
    let money = || moved(LedgerAccountKind::Cash, LedgerAccountKind::Client, "1.00");
    let account_id = "demo".to_owned();
    for (kind, name, trade) in [
        (
            Kind::InstrumentConfigured(InstrumentConfigured::default()),
            "INSTRUMENT_CONFIGURED",
            None,
        ),
        (
            Kind::WalletInitialized(WalletInitialized {
                account_id: account_id.clone(),
            }),
            "WALLET_INITIALIZED",
            None,
        ),
        (
            Kind::Deposited(Deposited {
                account_id: account_id.clone(),
                ..Deposited::default()
            }),
            "DEPOSITED",
            None,
        ),
        (
            Kind::Withdrawn(Withdrawn {
                account_id,
                ..Withdrawn::default()
            }),
            "WITHDRAWN",
            None,
        ),
        (opened(3).kind.unwrap(), "TRADE_OPENED", Some(3)),
        (modified(3).kind.unwrap(), "TRADE_MODIFIED", Some(3)),
        (
            closed(3, "0", "1.00", CloseReason::Client).kind.unwrap(),
            "TRADE_CLOSED",
            Some(3),
        ),
    ] {
        let expansion = expand_events(vec![event(kind, money())]).unwrap();
        let account = if name == "INSTRUMENT_CONFIGURED" { "" } else { "demo" };
        for line in &expansion.ledger {
            assert_eq!(
                (line.kind, line.trade_number, line.account_id.as_str()),
                (name, trade, account)
            );
        }
        assert_eq!(expansion.ledger.len(), 2, "{name}");
    }
}

#[test]
fn lines_are_numbered_through_the_entry_and_name_their_event_and_request() {
    let expansion = expand_events(vec![deposited(), opened(1)]).unwrap();
    let numbers: Vec<_> = expansion
        .ledger
        .iter()
        .map(|line| (line.seq, line.line, line.event))
        .collect();
    assert_eq!(numbers, [(1, 0, 0), (1, 1, 0), (1, 2, 1), (1, 3, 1)]);
    let first = &expansion.ledger[0];
    assert_eq!(
        *first,
        LedgerRow {
            seq: 1,
            line: 0,
            event: 0,
            kind: "DEPOSITED",
            account_id: "demo".into(),
            ledger_account: 5,
            currency_code: "USDC".into(),
            amount: number("-100.00"),
            booked_at: at(1),
            trade_number: None,
            request_id: Some(Uuid::from_bytes([9; 16])),
        }
    );
    assert_eq!(first.amount.to_string(), "-100.00", "with the currency's decimals");
}

#[test]
fn an_operation_is_listed_whether_it_was_executed_or_refused() {
    let refused = entry(1, Some(operation(1)), vec![]);
    let executed = entry(2, Some(operation(2)), vec![deposited()]);
    let of_the_market = entry(3, None, vec![closed(1, "0", "-100.00", CloseReason::Liquidation)]);
    let expansion = expand(7, 0, &[row(vec![refused, executed, of_the_market])]).unwrap();
    let listed: Vec<_> = expansion
        .operations
        .iter()
        .map(|row| (row.seq, row.request_id, row.done_at))
        .collect();
    assert_eq!(
        listed,
        [
            (1, Uuid::from_bytes([1; 16]), at(1)),
            (2, Uuid::from_bytes([2; 16]), at(2))
        ]
    );
    assert_eq!(expansion.operations[0].record, operation(1).encode_to_vec());
    assert_eq!(expansion.ledger.last().unwrap().request_id, None);
}

#[test]
fn a_trade_that_opens_is_a_new_row() {
    let row = one_trade(&expand_events(vec![opened(3)]).unwrap());
    assert_eq!(
        (row.number, row.status, row.side, row.opened_seq, row.seq),
        (3, 1, 1, Some(1), 1)
    );
    assert_eq!(
        (row.stop_loss_price, row.liquidation_price),
        (None, Some(number("180.02")))
    );
    assert_eq!(
        (row.closed_at, row.close.is_none(), row.quote),
        (None, true, Some(quote(1).encode_to_vec()))
    );
}

#[test]
fn fault_11_a_short_is_stored_as_a_short() {
    for (side, column) in [(Side::Long, 1), (Side::Short, 2)] {
        let state = TradeState {
            side: side.into(),
            ..trade(1, "5.000")
        };
        let kind = TradeOpened {
            trade: Some(state),
            quote: Some(quote(1)),
        };
        let row = one_trade(&expand_events(vec![event(Kind::TradeOpened(kind), vec![])]).unwrap());
        assert_eq!(row.side, column);
    }
    let sideless = TradeState {
        side: 0,
        ..trade(1, "5.000")
    };
    let kind = TradeOpened {
        trade: Some(sideless),
        quote: Some(quote(1)),
    };
    let error = expand_events(vec![event(Kind::TradeOpened(kind), vec![])]).unwrap_err();
    assert!(
        matches!(error, RecorderError::Unreadable { what: "the side", .. }),
        "never a side by default: {error}"
    );
}

#[test]
fn a_trade_that_is_modified_keeps_what_its_executions_told() {
    let row = one_trade(&expand_events(vec![modified(3)]).unwrap());
    assert_eq!(
        (row.stop_loss_price, row.take_profit_price),
        (Some(number("190.00")), Some(number("220.00")))
    );
    assert_eq!((row.opened_seq, row.quote, row.close), (None, None, None));
}

#[test]
fn a_partial_close_leaves_the_trade_open_and_a_whole_one_does_not() {
    let row = one_trade(&expand_events(vec![closed(3, "2.000", "20.00", CloseReason::Client)]).unwrap());
    assert_eq!((row.status, row.closed_at, row.quantity), (1, None, number("2.000")));
    assert_eq!(
        row.close,
        Some(CloseColumns {
            price: number("210.00"),
            reason: 1
        })
    );
    assert_eq!(
        (row.realised_profit, row.commission, row.margin),
        (number("20.00"), number("0.75"), number("60.00"))
    );

    for nothing in ["0", "0.000"] {
        let row = one_trade(&expand_events(vec![closed(3, nothing, "50.00", CloseReason::StopLoss)]).unwrap());
        assert_eq!((row.status, row.closed_at), (2, Some(at(1))));
        assert_eq!(
            row.close,
            Some(CloseColumns {
                price: number("210.00"),
                reason: 2
            })
        );
    }
}

#[test]
fn a_trades_whole_life_in_one_stretch_is_one_row() {
    let life = vec![
        entry(1, None, vec![opened(3)]),
        entry(2, None, vec![closed(3, "2.000", "20.00", CloseReason::Client)]),
        entry(3, None, vec![modified(3), opened(4)]),
    ];
    let expansion = expand(7, 0, &[row(life)]).unwrap();
    let rows: Vec<_> = expansion.trades.opened().collect();
    assert_eq!(
        rows.iter()
            .map(|row| (row.number, row.opened_seq, row.seq))
            .collect::<Vec<_>>(),
        [(3, Some(1), 3), (4, Some(3), 3)]
    );
    assert_eq!(
        rows[0].close,
        Some(CloseColumns {
            price: number("210.00"),
            reason: 1
        }),
        "the modification did not undo it"
    );
    assert_eq!(rows[0].quote, Some(quote(2).encode_to_vec()));
    assert!(expansion.trades.changed().next().is_none());
}

#[test]
fn a_missing_sequence_is_an_error_wherever_it_is_missing() {
    let entries = |sequences: &[u64]| sequences.iter().map(|n| entry(*n, None, vec![])).collect::<Vec<_>>();
    let gap = |cursor, rows: &[JournalRow]| match expand(7, cursor, rows).unwrap_err() {
        RecorderError::Gap {
            shard: 7,
            expected,
            found,
        } => (expected, found),
        other => panic!("{other}"),
    };
    assert_eq!(
        expand(7, 4, &[row(entries(&[5, 6])), row(entries(&[7]))])
            .unwrap()
            .last_seq,
        7
    );
    assert_eq!(gap(3, &[row(entries(&[5, 6]))]), (4, Some(5)));
    assert_eq!(gap(4, &[row(entries(&[5, 6])), row(entries(&[8]))]), (7, Some(8)));
    assert_eq!(gap(4, &[row(entries(&[5, 7]))]), (6, Some(7)));
    assert_eq!(
        gap(4, &[row(entries(&[5, 5, 6]))]),
        (6, Some(5)),
        "twice the same is no better"
    );
    let short = JournalRow {
        last_seq: 7,
        ..row(entries(&[5, 6]))
    };
    assert_eq!(gap(4, &[short]), (7, Some(6)));
}

#[test]
fn lines_that_do_not_sum_to_zero_are_an_error_in_each_currency() {
    let mut odd = deposited();
    odd.lines.push(JournalLine {
        currency_code: "BTC".into(),
        ..line(LedgerAccountKind::House, "", "0.00000001")
    });
    let error = expand_events(vec![deposited(), odd]).unwrap_err();
    let RecorderError::Unbalanced {
        sequence: 1,
        event: 1,
        currency_code,
        ..
    } = &error
    else {
        panic!("{error}")
    };
    assert_eq!(currency_code, "BTC");
}

#[test]
fn what_cannot_be_read_is_an_error_and_never_a_blank() {
    let what = |events| match expand_events(events).unwrap_err() {
        RecorderError::Unreadable {
            shard: 7,
            sequence: 1,
            what,
        } => what,
        other => panic!("{other}"),
    };
    assert_eq!(what(vec![JournalEvent::default()]), "the kind of event");
    assert_eq!(
        what(vec![event(Kind::TradeModified(TradeModified::default()), vec![])]),
        "the trade"
    );
    let mut unreadable = deposited();
    unreadable.lines[0].amount = "1e2".into();
    assert_eq!(what(vec![unreadable]), "a line's amount");
    let torn = JournalRow {
        shard: 7,
        first_seq: 1,
        last_seq: 1,
        epoch: 1,
        body: vec![0xff],
    };
    assert!(matches!(
        expand(7, 0, &[torn]),
        Err(RecorderError::Unreadable { what: "the batch", .. })
    ));
    let anonymous = OperationRecord {
        request_id: vec![1; 3].into(),
        ..operation(1)
    };
    let error = expand(7, 0, &[row(vec![entry(1, Some(anonymous), vec![])])]).unwrap_err();
    assert!(
        matches!(
            error,
            RecorderError::Unreadable {
                what: "the request id",
                ..
            }
        ),
        "{error}"
    );
}

#[test]
fn a_principal_that_postgres_cannot_keep_does_not_stop_us() {
    let odd = OperationRecord {
        principal: "a\0b".into(),
        ..operation(1)
    };
    let expansion = expand(7, 0, &[row(vec![entry(1, Some(odd), vec![])])]).unwrap();
    assert_eq!(expansion.operations[0].principal, "a\u{fffd}b");
}
