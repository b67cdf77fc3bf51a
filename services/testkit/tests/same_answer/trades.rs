//! Trades that are opened, changed, closed and read.

use serde_json::{Value, json};
use tonic::Code::{self, AlreadyExists, FailedPrecondition, InvalidArgument, NotFound};

use crate::life::{Life, SOL, World, decimal, id, long};

/// Opens, changes, closes and reads. Gives the id of a closed trade and the request that closed it.
pub async fn trades(life: &mut Life, world: &World) -> Closed {
    let me = life.account.clone();
    let protect = json!({"stop_loss_price": "190", "take_profit_price": "250", "slippage": {"expected_price": SOL.1, "deviation_max_bps": 0}});
    let first = long(&me, protect);
    let opened = life.good("long", "OpenTrade", first.clone()).await;
    let trade = &opened["trade"];
    assert_eq!(
        (&trade["entryPrice"], &trade["quantity"]),
        (&json!(SOL.1), &json!("4.999"))
    );
    assert_eq!(
        trade["liquidationPrice"], "180.01",
        "the first price on the grid at which 100 is lost: 200.02 - 100 / 4.999"
    );
    assert_eq!(opened["freeBalance"]["amount"], "5100.00");
    let long_id = trade["tradeId"].clone();
    assert_eq!(
        life.good("long, again", "OpenTrade", first.clone()).await,
        opened,
        "a repeat gets the first answer"
    );
    let mut other = first;
    other["margin"] = "101".into();
    life.bad("OpenTrade", other, AlreadyExists, "REQUEST_ID_REUSED", &[])
        .await;

    let short = long(
        &me,
        json!({"side": "SIDE_SHORT", "margin": null, "quantity": "2.5", "leverage": "5"}),
    );
    let opened = life.good("short", "OpenTrade", short).await;
    assert_eq!(opened["trade"]["entryPrice"], SOL.0);
    assert_eq!(opened["trade"]["margin"]["amount"], "99.99");
    let short_id = opened["trade"]["tradeId"].clone();

    let of = |trade: &Value, more: Value| {
        let mut request = json!({"account_id": me, "trade_id": trade, "request_id": id()});
        for (name, value) in more.as_object().expect("fields") {
            request[name] = value.clone();
        }
        request
    };
    let read = |trade: &Value| json!({"account_id": me, "trade_id": trade});
    life.good("open", "GetTrade", read(&long_id)).await;
    let summary = life.mine("two open", "GetAccountSummary", json!({})).await;
    assert_eq!(
        (&summary["openTrades"], &summary["usedMargin"]["amount"]),
        (&json!(2), &json!("199.99"))
    );
    assert_eq!(
        summary["unrealisedProfit"]["amount"], "-0.30",
        "the spread: 0.04 x 4.999 + 0.04 x 2.5"
    );

    let changes = [
        json!({"stop_loss_price": "185.50", "add_margin": "10"}),
        json!({"clear_stop_loss": true, "take_profit_price": "300"}),
        json!({"clear_take_profit": true}),
    ];
    for change in changes {
        life.good("", "ModifyTrade", of(&long_id, change)).await;
    }
    let refused: [(Value, Code, &str, &[&str]); 9] = [
        (json!({}), InvalidArgument, "INVALID_FIELD", &["request"]),
        (
            json!({"stop_loss_price": "1e2"}),
            InvalidArgument,
            "INVALID_FIELD",
            &["stop_loss_price"],
        ),
        (
            json!({"stop_loss_price": "210"}),
            InvalidArgument,
            "INVALID_FIELD",
            &["stop_loss_price"],
        ),
        (
            json!({"stop_loss_price": "199.999"}),
            InvalidArgument,
            "INVALID_FIELD",
            &["stop_loss_price"],
        ),
        (
            json!({"take_profit_price": "100"}),
            InvalidArgument,
            "INVALID_FIELD",
            &["take_profit_price"],
        ),
        (
            json!({"clear_stop_loss": false}),
            InvalidArgument,
            "INVALID_FIELD",
            &["clear_stop_loss"],
        ),
        (
            json!({"add_margin": "0"}),
            InvalidArgument,
            "INVALID_FIELD",
            &["add_margin"],
        ),
        (
            json!({"add_margin": "0.001"}),
            InvalidArgument,
            "INVALID_FIELD",
            &["add_margin"],
        ),
        (
            json!({"add_margin": "100000"}),
            FailedPrecondition,
            "INSUFFICIENT_MARGIN",
            &[],
        ),
    ];
    for (change, code, reason, fields) in refused {
        life.bad("ModifyTrade", of(&long_id, change), code, reason, fields)
            .await;
    }
    let refused: [(Value, &[&str]); 8] = [
        (json!({"quantity": "0"}), &["quantity"]),
        (json!({"quantity": "5"}), &["quantity"]),
        (json!({"quantity": "0.0001"}), &["quantity"]),
        (json!({"percent": "0"}), &["percent"]),
        (json!({"percent": "101"}), &["percent"]),
        (json!({"percent": "5e1"}), &["percent"]),
        (json!({"percent": "0.001"}), &["percent"]),
        (json!({"trade_id": "first"}), &["trade_id"]),
    ];
    for (change, fields) in refused {
        life.bad(
            "CloseTrade",
            of(&long_id, change),
            InvalidArgument,
            "INVALID_FIELD",
            fields,
        )
        .await;
    }
    let nowhere = json!("0-999999");
    for trade in [json!(world.foreign), nowhere] {
        life.bad("CloseTrade", of(&trade, json!({})), NotFound, "TRADE_NOT_FOUND", &[])
            .await;
        life.bad(
            "ModifyTrade",
            of(&trade, json!({"add_margin": "1"})),
            NotFound,
            "TRADE_NOT_FOUND",
            &[],
        )
        .await;
        life.bad("GetTrade", read(&trade), NotFound, "TRADE_NOT_FOUND", &[])
            .await;
    }

    let half = of(&short_id, json!({"percent": "50"}));
    let closed = life.good("half", "CloseTrade", half.clone()).await;
    assert_eq!(
        (&closed["closedQuantity"], &closed["realisedProfit"]["amount"]),
        (&json!("1.250"), &json!("-0.05"))
    );
    assert_eq!(
        life.good("half, again", "CloseTrade", half).await,
        closed,
        "a repeat gets the first answer"
    );
    life.good("a part", "CloseTrade", of(&short_id, json!({"quantity": "0.25"})))
        .await;
    let whole = of(&short_id, json!({}));
    let closed = life.good("the rest", "CloseTrade", whole.clone()).await;
    assert_eq!(
        (&closed["trade"]["status"], &closed["trade"]["quantity"]),
        (&json!("TRADE_STATUS_CLOSED"), &json!("0"))
    );
    life.bad(
        "CloseTrade",
        of(&short_id, json!({})),
        FailedPrecondition,
        "TRADE_CLOSED",
        &[],
    )
    .await;
    life.bad(
        "ModifyTrade",
        of(&short_id, json!({"add_margin": "1"})),
        FailedPrecondition,
        "TRADE_CLOSED",
        &[],
    )
    .await;

    life.good("closed", "GetTrade", read(&short_id)).await;
    for status in ["TRADE_STATUS_OPEN", "TRADE_STATUS_CLOSED"] {
        let listed = life.mine(status, "ListTrades", json!({"status": status})).await;
        assert_eq!(listed["trades"].as_array().expect("trades").len(), 1, "{status}");
    }
    let page = life
        .mine("a page", "ListTrades", json!({"page_size": 1, "symbol": "SOL_USDC"}))
        .await;
    assert_eq!(page["trades"][0]["tradeId"], short_id, "newest first");
    let token = page["nextPageToken"].clone();
    let rest = life
        .mine(
            "the next",
            "ListTrades",
            json!({"page_size": 1, "symbol": "SOL_USDC", "page_token": token}),
        )
        .await;
    assert_eq!(
        (&rest["trades"][0]["tradeId"], &rest["nextPageToken"]),
        (&long_id, &json!(""))
    );
    let foreign_page = json!({"account_id": me, "page_token": token});
    life.bad(
        "ListTrades",
        foreign_page,
        InvalidArgument,
        "INVALID_FIELD",
        &["page_token"],
    )
    .await;
    life.bad(
        "ListTrades",
        json!({"account_id": me, "page_token": "x"}),
        InvalidArgument,
        "INVALID_FIELD",
        &["page_token"],
    )
    .await;
    life.bad(
        "ListTrades",
        json!({"account_id": me, "page_size": -1}),
        InvalidArgument,
        "INVALID_FIELD",
        &["page_size"],
    )
    .await;
    life.bad(
        "ListTrades",
        json!({"account_id": me, "status": 9}),
        InvalidArgument,
        "INVALID_FIELD",
        &["status"],
    )
    .await;

    let lines = life.mine("all", "ListTransactions", json!({})).await;
    let lines = lines["transactions"].as_array().expect("lines");
    let mine = |account: &str| -> rust_decimal::Decimal {
        let of = lines.iter().filter(|line| {
            line["entry"]["ledgerAccount"] == account && line["entry"]["amount"]["currencyCode"] == "USDC"
        });
        of.map(|line| decimal(&line["entry"]["amount"]["amount"])).sum()
    };
    let balance = life
        .mine("at the end", "GetBalance", json!({"currency_code": "USDC"}))
        .await["balance"]
        .clone();
    assert_eq!(
        (mine("client"), mine("margin")),
        (decimal(&balance["free"]), decimal(&balance["locked"])),
        "balances are the ledger"
    );
    life.mine(
        "of one trade",
        "ListTransactions",
        json!({"trade_id": short_id, "currency_code": "USDC", "page_size": 3}),
    )
    .await;
    life.bad(
        "ListTransactions",
        json!({"account_id": me, "trade_id": "x"}),
        InvalidArgument,
        "INVALID_FIELD",
        &["trade_id"],
    )
    .await;
    Closed {
        request_id: whole["request_id"].clone(),
        answer: closed,
    }
}

/// What closed a trade, and what was said.
pub struct Closed {
    pub request_id: Value,
    pub answer: Value,
}
