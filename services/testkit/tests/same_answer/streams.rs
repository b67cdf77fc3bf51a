//! Streams, from their beginning to their refusal.

use serde_json::json;
use tonic::Code::{FailedPrecondition, InvalidArgument, NotFound, OutOfRange, PermissionDenied};

use crate::doors::next;
use crate::life::{Life, SOL, long, refused};

pub async fn streams(life: &mut Life) {
    let me = life.account.clone();
    let mut events = life.stream("StreamAccountEvents", json!({"account_id": me})).await;
    let snapshot = next(&mut events).await;
    assert!(
        snapshot["snapshot"]["openTrades"]
            .as_array()
            .is_some_and(|open| open.len() == 1),
        "{snapshot}"
    );
    life.steps
        .push(("snapshot".to_owned(), life.names.anonymous(&snapshot)));

    // What happens while somebody watches.
    let opened = life
        .good("watched", "OpenTrade", long(&me, json!({"margin": "50"})))
        .await;
    let event = next(&mut events).await;
    let mut trade = event["tradeOpened"]["trade"].clone();
    trade["unrealisedProfit"] = opened["trade"]["unrealisedProfit"].clone();
    assert_eq!(
        (&event["sequence"], &trade["tradeId"]),
        (&opened["sequence"], &opened["trade"]["tradeId"])
    );
    life.steps.push(("event".to_owned(), life.names.anonymous(&event)));
    let poor = life
        .bad(
            "OpenTrade",
            long(&me, json!({"margin": "100000"})),
            FailedPrecondition,
            "INSUFFICIENT_MARGIN",
            &[],
        )
        .await;
    let event = next(&mut events).await;
    assert_eq!(event["operationRefused"]["message"], poor.message.as_str());
    life.steps.push(("event".to_owned(), life.names.anonymous(&event)));

    // The whole life again, from its beginning: the sequence before the wallet was made.
    let lines = life
        .client
        .call("ListTransactions", json!({"account_id": me, "page_size": 1}))
        .await
        .good();
    let first: u64 = lines["transactions"][0]["sequence"]
        .as_str()
        .and_then(|it| it.parse().ok())
        .expect("a sequence");
    let last = opened["sequence"].clone();
    let mut again = life
        .stream(
            "StreamAccountEvents",
            json!({"account_id": me, "resume_after_sequence": (first - 1).to_string()}),
        )
        .await;
    loop {
        let event = next(&mut again).await;
        life.steps.push(("replayed".to_owned(), life.names.anonymous(&event)));
        if event["sequence"] == last {
            break;
        }
    }
    let ahead = json!({"account_id": me, "resume_after_sequence": "1000000"});
    refused(
        life,
        "StreamAccountEvents",
        ahead,
        OutOfRange,
        "RESUME_POINT_EXPIRED",
        &[],
    )
    .await;
    let rare = json!({"account_id": me, "heartbeat_interval": "61s"});
    refused(
        life,
        "StreamAccountEvents",
        rare,
        InvalidArgument,
        "INVALID_FIELD",
        &["heartbeat_interval"],
    )
    .await;
    refused(
        life,
        "StreamAccountEvents",
        json!({"account_id": "other"}),
        PermissionDenied,
        "NOT_ALLOWED",
        &[],
    )
    .await;

    let mut quotes = life
        .stream(
            "StreamQuotes",
            json!({"symbols": ["SOL_USDC"], "conflation_interval": "0.100s"}),
        )
        .await;
    let mut before = 0;
    for _ in 0..3 {
        let quote = next(&mut quotes).await["quote"].clone();
        assert_eq!(
            (&quote["symbol"], &quote["bid"], &quote["ask"]),
            (&json!("SOL_USDC"), &json!(SOL.0), &json!(SOL.1))
        );
        let update: u64 = quote["updateId"]
            .as_str()
            .and_then(|it| it.parse().ok())
            .expect("a number");
        assert!(update > before, "each is newer than the one before");
        before = update;
        life.steps.push(("quote".to_owned(), life.names.anonymous(&quote)));
    }
    refused(
        life,
        "StreamQuotes",
        json!({"symbols": ["SOL_USDC", "DOGE_USDC"]}),
        NotFound,
        "SYMBOL_UNKNOWN",
        &[],
    )
    .await;
    refused(
        life,
        "StreamQuotes",
        json!({"symbols": ["SOL_USDC", "x"]}),
        InvalidArgument,
        "INVALID_FIELD",
        &["symbols[1]"],
    )
    .await;
    refused(
        life,
        "StreamQuotes",
        json!({"conflation_interval": "-1s"}),
        InvalidArgument,
        "INVALID_FIELD",
        &["conflation_interval"],
    )
    .await;
}
