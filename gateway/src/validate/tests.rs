//! Every field of every request, right and wrong.

//! What each request must look like, field by field.

use super::*;
use contracts::v1::{Money, Side, SlippageBound};

fn caller() -> Identity {
    Identity::sample(&["demo"], "view trade fund")
}

fn fields(refused: Result<impl Sized, Failure>) -> Vec<String> {
    match refused {
        Ok(_) => Vec::new(),
        Err(Failure::Invalid(violations)) => violations.into_iter().map(|it| it.field).collect(),
        Err(other) => panic!("{other:?}"),
    }
}

fn open() -> v1::OpenTradeRequest {
    v1::OpenTradeRequest {
        account_id: "demo".into(),
        symbol: "SOL_USDC".into(),
        side: Side::Long.into(),
        size: Some(open::Size::Margin("100.50".into())),
        leverage: "10".into(),
        ..Default::default()
    }
}

#[test]
fn a_good_order_passes_and_gets_an_id_and_its_account() {
    let it = open_trade(
        &caller(),
        v1::OpenTradeRequest {
            account_id: "me".into(),
            ..open()
        },
    )
    .unwrap();
    assert_eq!(
        (it.account_id.as_str(), it.command.account_id.as_str()),
        ("demo", "demo")
    );
    assert_eq!(it.request_id.get_version_num(), 7);
    assert_eq!(it.command.request_id, it.request_id.to_string());
}

#[test]
fn an_id_has_one_spelling() {
    let id = Uuid::now_v7();
    let shouted = v1::OpenTradeRequest {
        request_id: id.to_string().to_uppercase(),
        ..open()
    };
    let it = open_trade(&caller(), shouted).unwrap();
    assert_eq!((it.request_id, it.command.request_id), (id, id.to_string()));
}

#[test]
fn every_field_of_an_order_is_looked_at() {
    type Change = fn(&mut v1::OpenTradeRequest);
    let ahead = || {
        let ms = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64 + 6 * 60 * 1000;
        Uuid::new_v7(uuid::Timestamp::from_unix_time(ms / 1000, 0, 0, 0)).to_string()
    };
    let cases: &[(Change, &str)] = &[
        (|it| it.account_id = String::new(), "account_id"),
        (|it| it.account_id = "Demo".into(), "account_id"),
        (|it| it.request_id = "1".into(), "request_id"),
        (|it| it.request_id = Uuid::new_v4().to_string(), "request_id"),
        (|it| it.symbol = "sol".into(), "symbol"),
        (|it| it.side = 0, "side"),
        (|it| it.side = 9, "side"),
        (|it| it.size = None, "size"),
        (|it| it.size = Some(open::Size::Margin("0".into())), "margin"),
        (|it| it.size = Some(open::Size::Margin("-1".into())), "margin"),
        (|it| it.size = Some(open::Size::Margin("1e3".into())), "margin"),
        (|it| it.size = Some(open::Size::Quantity(String::new())), "quantity"),
        (|it| it.leverage = String::new(), "leverage"),
        (|it| it.leverage = "0".into(), "leverage"),
        (|it| it.leverage = "NaN".into(), "leverage"),
        (|it| it.stop_loss_price = "-5".into(), "stop_loss_price"),
        (|it| it.take_profit_price = "x".into(), "take_profit_price"),
        (
            |it| {
                it.slippage = Some(SlippageBound {
                    expected_price: "0".into(),
                    deviation_max_bps: 1,
                })
            },
            "slippage.expected_price",
        ),
        (
            |it| {
                it.slippage = Some(SlippageBound {
                    expected_price: "1".into(),
                    deviation_max_bps: 10_001,
                })
            },
            "slippage.deviation_max_bps",
        ),
    ];
    for (change, field) in cases {
        let mut it = open();
        change(&mut it);
        assert_eq!(fields(open_trade(&caller(), it)), [*field]);
    }
    let late = v1::OpenTradeRequest {
        request_id: ahead(),
        ..open()
    };
    assert_eq!(fields(open_trade(&caller(), late)), ["request_id"]);
}

#[test]
fn all_that_is_wrong_is_said_at_once() {
    let nothing = v1::OpenTradeRequest::default();
    assert_eq!(
        fields(open_trade(&caller(), nothing)),
        ["account_id", "symbol", "side", "size", "leverage"]
    );
}

#[test]
fn an_account_outside_the_token_is_refused_and_only_after_the_syntax() {
    let foreign = v1::OpenTradeRequest {
        account_id: "alice".into(),
        ..open()
    };
    assert!(matches!(
        open_trade(&caller(), foreign.clone()),
        Err(Failure::NotAllowed(_))
    ));
    let malformed = v1::OpenTradeRequest {
        leverage: "x".into(),
        ..foreign
    };
    assert_eq!(fields(open_trade(&caller(), malformed)), ["leverage"]);
}

#[test]
fn me_needs_a_token_for_exactly_one_account() {
    let me = v1::OpenTradeRequest {
        account_id: "me".into(),
        ..open()
    };
    for accounts in [&["*"][..], &["a", "b"], &[]] {
        let caller = Identity::sample(accounts, "trade");
        assert_eq!(fields(open_trade(&caller, me.clone())), ["account_id"], "{accounts:?}");
    }
}

#[test]
fn money_needs_a_currency_and_an_amount_above_zero() {
    let deposit_of = |amount| {
        fields(deposit(
            &caller(),
            v1::DepositRequest {
                account_id: "demo".into(),
                amount,
                ..Default::default()
            },
        ))
    };
    let money = |code: &str, amount: &str| {
        Some(Money {
            currency_code: code.into(),
            amount: amount.into(),
        })
    };
    assert_eq!(deposit_of(money("USDC", "0.01")), [""; 0]);
    assert_eq!(deposit_of(None), ["amount"]);
    assert_eq!(deposit_of(money("", "")), ["amount.currency_code", "amount.amount"]);
    assert_eq!(deposit_of(money("USDC", "0.00")), ["amount.amount"]);
    let both = v1::WithdrawRequest {
        account_id: "demo".into(),
        amount: money("usdc", "-1"),
        ..Default::default()
    };
    assert_eq!(
        fields(withdraw(&caller(), both)),
        ["amount.currency_code", "amount.amount"]
    );
}

#[test]
fn a_close_is_of_a_trade_and_at_most_all_of_it() {
    let close_of = |trade_id: &str, portion| {
        let it = v1::CloseTradeRequest {
            account_id: "demo".into(),
            trade_id: trade_id.into(),
            portion,
            ..Default::default()
        };
        fields(close_trade(&caller(), it))
    };
    let percent = |text: &str| Some(close::Portion::Percent(text.into()));
    assert_eq!(close_of("3-1", None), [""; 0]);
    assert_eq!(close_of("3-1", percent("100")), [""; 0]);
    assert_eq!(close_of("3-1", percent("100.01")), ["percent"]);
    assert_eq!(close_of("3-01", percent("0")), ["trade_id", "percent"]);
    assert_eq!(
        close_of("x", Some(close::Portion::Quantity("1,5".into()))),
        ["trade_id", "quantity"]
    );
}

#[test]
fn a_change_changes_something() {
    let base = || v1::ModifyTradeRequest {
        account_id: "demo".into(),
        trade_id: "3-1".into(),
        ..Default::default()
    };
    assert_eq!(fields(modify_trade(&caller(), base())), ["request"]);
    let cleared = v1::ModifyTradeRequest {
        stop_loss: Some(modify::StopLoss::ClearStopLoss(true)),
        ..base()
    };
    assert_eq!(fields(modify_trade(&caller(), cleared)), [""; 0]);
    let unclear = v1::ModifyTradeRequest {
        stop_loss: Some(modify::StopLoss::ClearStopLoss(false)),
        take_profit: Some(modify::TakeProfit::TakeProfitPrice("0".into())),
        add_margin: "1e2".into(),
        ..base()
    };
    assert_eq!(
        fields(modify_trade(&caller(), unclear)),
        ["clear_stop_loss", "take_profit_price", "add_margin"]
    );
}

#[test]
fn pages_streams_and_times_have_bounds() {
    let caller = caller();
    let mut checks = Checks::new(&caller);
    assert_eq!((checks.page(0, ""), checks.page(1000, "")), (100, 1000));
    checks.page(-1, "");
    checks.page(1001, "");
    checks.page(1, &"a".repeat(200));
    checks.sequence("min_sequence", u64::MAX);
    checks.time(
        "start_time",
        Some(prost_types::Timestamp {
            seconds: i64::MAX,
            nanos: 0,
        }),
    );
    checks.time("end_time", Some(prost_types::Timestamp { seconds: 0, nanos: -1 }));
    let named = [
        "page_size",
        "page_size",
        "page_token",
        "min_sequence",
        "start_time",
        "end_time",
    ];
    assert_eq!(fields(checks.finish(None)), named);

    let events = |seconds, nanos| {
        let heartbeat_interval = Some(prost_types::Duration { seconds, nanos });
        let mut it = v1::StreamAccountEventsRequest {
            account_id: "demo".into(),
            heartbeat_interval,
            ..Default::default()
        };
        account_events(&caller, &mut it)
    };
    assert_eq!(events(2, 500_000_000).unwrap(), Duration::from_millis(2500));
    for (seconds, nanos) in [(0, 999_999_999), (61, 0), (-1, 0), (i64::MAX, 0), (0, i32::MIN)] {
        assert_eq!(
            fields(events(seconds, nanos)),
            ["heartbeat_interval"],
            "{seconds} {nanos}"
        );
    }

    let quotes = |symbols: Vec<String>, conflation_interval| {
        stream_quotes(
            &caller,
            &v1::StreamQuotesRequest {
                symbols,
                conflation_interval,
            },
        )
    };
    assert_eq!(quotes(Vec::new(), None).unwrap(), Duration::ZERO);
    assert_eq!(fields(quotes(vec!["SOL_USDC".into(); 101], None)), ["symbols"]);
    let minute_and_more = Some(prost_types::Duration { seconds: 60, nanos: 1 });
    assert_eq!(
        fields(quotes(vec!["A".into(), "b".into()], minute_and_more)),
        ["symbols[1]", "conflation_interval"]
    );
}

#[test]
fn an_old_operation_may_be_asked_for() {
    let ask = |id: &str| {
        let mut it = v1::GetOperationRequest {
            account_id: "demo".into(),
            request_id: id.into(),
        };
        get_operation(&caller(), &mut it)
    };
    assert!(ask("00000000-0000-7000-8000-000000000000").is_ok());
    assert_eq!(fields(ask("")), ["request_id"]);
}
