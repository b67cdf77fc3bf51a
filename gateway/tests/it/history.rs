//! What is past, from a real Postgres: paging, barriers, and the journal behind streams.

use std::time::Duration;

use contracts::bus::{JournalBatch, OperationKind, OperationRecord, QuoteUsed, operation_record};
use prost::Message as _;
use serde_json::{Value, json};
use sqlx::PgPool;
use testkit::PrivatePostgres;

use crate::support::{Case, Door, Running, bearer, call, deposited, get, shard, start_with, token};

/// What the recorder would have written: trades 1 (closed), 2 (open), 3 to 5 (closed) of `demo`, some ledger lines and
/// candles, one operation, and a journal of two rows.
pub async fn fill(pool: &PgPool) {
    let shard = i32::try_from(shard("demo")).unwrap();
    let quote = QuoteUsed {
        symbol: "SOL_USDC".into(),
        bid: "199.00".into(),
        ask: "199.02".into(),
        ..Default::default()
    };
    sqlx::query("INSERT INTO recorder_cursor (shard, seq) VALUES ($1, 9)")
        .bind(shard)
        .execute(pool)
        .await
        .unwrap();
    for (number, status, symbol) in [
        (1_i64, 2_i16, "SOL_USDC"),
        (2, 1, "SOL_USDC"),
        (3, 2, "BTC_USDC"),
        (4, 2, "SOL_USDC"),
        (5, 2, "SOL_USDC"),
    ] {
        sqlx::query(
            "INSERT INTO trades (shard, number, account_id, symbol, side, status, quantity, opened_quantity, entry_price, leverage, \
             currency_code, margin, opened_at, closed_at, close_price, close_reason, realised_profit, commission, opened_seq, seq, quote) \
             VALUES ($1, $2, 'demo', $4, 1, $3, CASE $3 WHEN 1 THEN 5.000 ELSE 0 END, 5.000, 200.02, 10, 'USDC', 100.00, \
             '2026-01-02 03:04:05.123456Z', CASE $3 WHEN 2 THEN timestamptz '2026-01-03 00:00:00Z' END, \
             CASE $3 WHEN 2 THEN 210.00 END, CASE $3 WHEN 2 THEN 1 ELSE 0 END, -1.50, 0.00, $2, $2, $5)",
        )
        .bind(shard)
        .bind(number)
        .bind(status)
        .bind(symbol)
        .bind(quote.encode_to_vec())
        .execute(pool)
        .await
        .unwrap();
    }
    for (seq, line, account, amount, trade) in [
        (1_i64, 0, 1_i16, "5000.00", None),
        (1, 1, 5, "-5000.00", None),
        (2, 0, 1, "-100.00", Some(1_i64)),
        (2, 1, 2, "100.00", Some(1)),
    ] {
        sqlx::query(
            "INSERT INTO ledger_entries (shard, seq, line, event, kind, account_id, ledger_account, currency_code, amount, booked_at, trade_number) \
             VALUES ($1, $2, $3, 0, 'TRADE_OPENED', 'demo', $4, 'USDC', $5::text::numeric, '2026-01-02 03:04:05Z', $6)",
        )
        .bind(shard)
        .bind(seq)
        .bind(line)
        .bind(account)
        .bind(amount)
        .bind(trade)
        .execute(pool)
        .await
        .unwrap();
    }
    for minute in 0..5_i32 {
        sqlx::query(
            "INSERT INTO candles (symbol, interval, open_at, open, high, low, close, quotes) \
             VALUES ('SOL_USDC', 2, timestamptz '2026-01-02 03:00:00Z' + $1 * interval '1 minute', 200, 201.5, 199, $1, 7)",
        )
        .bind(minute)
        .execute(pool)
        .await
        .unwrap();
    }
    let record = OperationRecord {
        principal: "alice".into(),
        request_id: uuid::Uuid::parse_str(OLD).unwrap().as_bytes().to_vec().into(),
        kind: OperationKind::Deposit.into(),
        account_id: "demo".into(),
        outcome: Some(operation_record::Outcome::Response(Vec::new().into())),
        ..Default::default()
    };
    sqlx::query(
        "INSERT INTO operations VALUES ('alice', $1::text::uuid, 'demo', $2, 3, 2, '2026-01-02 03:04:05Z', $3)",
    )
    .bind(OLD)
    .bind(shard)
    .bind(record.encode_to_vec())
    .execute(pool)
    .await
    .unwrap();
    journal(pool, shard, 1, 5).await;
    journal(pool, shard, 6, 9).await;
    sqlx::query("INSERT INTO shard_head (shard, seq) VALUES ($1, 9)")
        .bind(shard)
        .execute(pool)
        .await
        .unwrap();
}

const OLD: &str = "01810000-0000-7000-8000-000000000001";

/// A row of the journal: a deposit of `demo` at every odd sequence, of somebody else at every even one.
pub async fn journal(pool: &PgPool, shard: i32, first: u64, last: u64) {
    let entries = (first..=last).map(|sequence| deposited(sequence, if sequence % 2 == 1 { "demo" } else { "other" }));
    let batch = JournalBatch {
        entries: entries.collect(),
        ..Default::default()
    };
    sqlx::query("INSERT INTO journal (shard, first_seq, last_seq, epoch, batch, body, state_hash, chain) VALUES ($1, $2, $3, 1, gen_random_uuid(), $4, '', '')")
        .bind(shard)
        .bind(i64::try_from(first).unwrap())
        .bind(i64::try_from(last).unwrap())
        .bind(batch.encode_to_vec())
        .execute(pool)
        .await
        .unwrap();
}

async fn started() -> (PrivatePostgres, Running) {
    let postgres = PrivatePostgres::migrated().await;
    fill(&postgres.pool()).await;
    let gateway = start_with(postgres.pool(), |_| {}).await;
    (postgres, gateway)
}

async fn read(gateway: &Running, path: &str) -> Value {
    let authorization = bearer(&token(&["demo"]));
    let headers = [("authorization", authorization.as_str()), ("x-request-timeout", "2s")];
    call(gateway.address, Door::Rest, &get("x/y", path, json!({})), &headers)
        .await
        .1
        .json
}

/// Reads all pages of a list.
async fn pages(gateway: &Running, path: &str, field: &str) -> Vec<Vec<Value>> {
    let (mut all, mut token) = (Vec::new(), String::new());
    loop {
        let page = read(gateway, &format!("{path}&pageToken={token}")).await;
        all.push(page[field].as_array().unwrap_or_else(|| panic!("{page}")).clone());
        page["nextPageToken"].as_str().unwrap().clone_into(&mut token);
        if token.is_empty() {
            return all;
        }
    }
}

fn ids(pages: &[Vec<Value>]) -> Vec<Vec<String>> {
    let number = |trade: &Value| trade["tradeId"].as_str().unwrap().split_once('-').unwrap().1.to_owned();
    pages.iter().map(|page| page.iter().map(number).collect()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn trades_are_paged_newest_first_and_open_ones_carry_their_profit() {
    let (_postgres, gateway) = started().await;
    let all = pages(&gateway, "/v1/accounts/demo/trades?pageSize=2", "trades").await;
    assert_eq!(ids(&all), [vec!["5", "4"], vec!["3", "2"], vec!["1"]]);
    assert_eq!(all[1][1]["unrealisedProfit"]["amount"], "1.50", "open, from the engine");
    assert_eq!(all[0][0]["unrealisedProfit"], Value::Null);

    let closed = pages(
        &gateway,
        "/v1/accounts/demo/trades?status=TRADE_STATUS_CLOSED&symbol=SOL_USDC&pageSize=2",
        "trades",
    )
    .await;
    assert_eq!(ids(&closed), [vec!["5", "4"], vec!["1"]]);
    let one = &closed[1][0];
    assert_eq!(
        (one["status"].as_str(), one["quantity"].as_str()),
        (Some("TRADE_STATUS_CLOSED"), Some("0"))
    );
    assert_eq!(
        (one["openedQuantity"].as_str(), one["margin"]["amount"].as_str()),
        (Some("5.000"), Some("100.00"))
    );
    assert_eq!(
        (one["realisedProfit"]["amount"].as_str(), one["closePrice"].as_str()),
        (Some("-1.50"), Some("210.00"))
    );
    assert_eq!(
        (one["openTime"].as_str(), one["closeTime"].as_str()),
        (Some("2026-01-02T03:04:05.123456Z"), Some("2026-01-03T00:00:00Z"))
    );
    assert_eq!(
        (one["closeReason"].as_str(), one["quote"]["bid"].as_str()),
        (Some("CLOSE_REASON_CLIENT"), Some("199.00"))
    );
    assert_eq!(one["stopLossPrice"], "");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_token_is_good_for_its_filter_alone() {
    let (_postgres, gateway) = started().await;
    let first = read(&gateway, "/v1/accounts/demo/trades?pageSize=2").await;
    let token = first["nextPageToken"].as_str().unwrap();
    for path in [
        format!("/v1/accounts/demo/trades?pageSize=2&symbol=SOL_USDC&pageToken={token}"),
        format!("/v1/accounts/demo/trades?status=TRADE_STATUS_OPEN&pageToken={token}"),
        format!("/v1/accounts/demo/transactions?pageToken={token}"),
        "/v1/accounts/demo/trades?pageToken=garbage".to_owned(),
    ] {
        let refused = read(&gateway, &path).await;
        assert_eq!(refused["code"], 3, "{path}: {refused}");
        assert!(refused.to_string().contains("page_token"));
    }
    let other_size = read(
        &gateway,
        &format!("/v1/accounts/demo/trades?pageSize=3&pageToken={token}"),
    )
    .await;
    assert_eq!(other_size["trades"].as_array().unwrap().len(), 3, "the size may change");
}

#[tokio::test(flavor = "multi_thread")]
async fn trades_are_paged_in_any_order_without_a_repeat_or_a_hole() {
    let (postgres, gateway) = started().await;
    // 1 and 4 closed at one time with one profit, 2 is open.
    sqlx::query(
        "UPDATE trades SET closed_at = CASE number WHEN 3 THEN timestamptz '2026-01-02 12:00:00.000001Z' WHEN 5 THEN \
         timestamptz '2026-01-04Z' ELSE closed_at END, realised_profit = CASE number WHEN 2 THEN 0 WHEN 3 THEN 7.10 WHEN 5 THEN 20 \
         ELSE realised_profit END",
    )
    .execute(&postgres.pool())
    .await
    .unwrap();
    for (order, want) in [
        ("", ["5", "4", "3", "2", "1"]),
        ("open_time", ["1", "2", "3", "4", "5"]),
        ("open_time%20desc", ["5", "4", "3", "2", "1"]),
        ("close_time", ["3", "1", "4", "5", "2"]),
        ("close_time+desc", ["2", "5", "4", "1", "3"]),
        ("realised_profit", ["1", "4", "2", "3", "5"]),
        ("realised_profit%20desc", ["5", "3", "2", "4", "1"]),
    ] {
        for size in [1, 2, 5] {
            let path = format!("/v1/accounts/demo/trades?orderBy={order}&pageSize={size}");
            assert_eq!(ids(&pages(&gateway, &path, "trades").await).concat(), want, "{path}");
        }
    }
    // With a filter, and of what is open, which the engine knows.
    let path = "/v1/accounts/demo/trades?orderBy=close_time%20desc&symbol=SOL_USDC&pageSize=2";
    assert_eq!(
        ids(&pages(&gateway, path, "trades").await).concat(),
        ["2", "5", "4", "1"]
    );
    let path = "/v1/accounts/demo/trades?orderBy=realised_profit&status=OPEN&pageSize=1";
    assert_eq!(ids(&pages(&gateway, path, "trades").await).concat(), ["2"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_that_there_is_not_is_refused_and_told_what_there_is() {
    let (_postgres, gateway) = started().await;
    for (list, order, known) in [
        ("trades", "margin", "open_time, close_time, realised_profit"),
        ("trades", "close_time%20DESC", "open_time, close_time, realised_profit"),
        (
            "trades",
            "open_time,close_time",
            "open_time, close_time, realised_profit",
        ),
        ("transactions", "amount", "sequence, book_time"),
    ] {
        let refused = read(&gateway, &format!("/v1/accounts/demo/{list}?orderBy={order}")).await;
        assert_eq!(refused["code"], 3, "{order}: {refused}");
        let violation = &refused["details"]
            .as_array()
            .and_then(|all| all.iter().find(|it| it["fieldViolations"].is_array()))
            .unwrap_or_else(|| panic!("{refused}"))["fieldViolations"][0];
        assert_eq!(violation["field"], "order_by", "{refused}");
        assert!(violation["description"].as_str().unwrap().contains(known), "{refused}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_token_is_good_for_its_order_alone() {
    let (_postgres, gateway) = started().await;
    for (list, orders) in [
        ("trades", ["", "open_time", "close_time%20desc", "realised_profit"]),
        ("transactions", ["", "sequence%20desc", "book_time", "book_time%20desc"]),
    ] {
        for made in orders {
            let first = read(&gateway, &format!("/v1/accounts/demo/{list}?pageSize=1&orderBy={made}")).await;
            let token = first["nextPageToken"].as_str().unwrap();
            for used in orders {
                let path = format!("/v1/accounts/demo/{list}?pageSize=1&orderBy={used}&pageToken={token}");
                let answer = read(&gateway, &path).await;
                if used == made {
                    assert_eq!(answer[list].as_array().map(Vec::len), Some(1), "{path}: {answer}");
                } else {
                    assert_eq!(answer["code"], 3, "{path}: {answer}");
                    assert!(
                        answer["message"].as_str().unwrap().contains("another filter or order"),
                        "{answer}"
                    );
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_closed_trade_is_found_in_the_history_and_one_that_never_was_is_not() {
    let (_postgres, gateway) = started().await;
    let shard = shard("demo");
    let closed = read(&gateway, &format!("/v1/accounts/demo/trades/{shard}-1")).await;
    assert_eq!(
        (closed["trade"]["status"].as_str(), closed["sequence"].as_str()),
        (Some("TRADE_STATUS_CLOSED"), Some("9"))
    );
    let none = read(&gateway, &format!("/v1/accounts/demo/trades/{shard}-99")).await;
    assert_eq!(none["code"], 5, "{none}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_ledger_is_paged_line_by_line_and_filtered() {
    let (_postgres, gateway) = started().await;
    let all = pages(&gateway, "/v1/accounts/demo/transactions?pageSize=3", "transactions").await;
    let lines: Vec<(&str, &str, &str)> = all
        .iter()
        .flatten()
        .map(|it| {
            let text = |value: &'_ Value| -> &'static str { value.as_str().unwrap().to_owned().leak() };
            (
                text(&it["sequence"]),
                text(&it["entry"]["ledgerAccount"]),
                text(&it["entry"]["amount"]["amount"]),
            )
        })
        .collect();
    let want = [
        ("1", "client", "5000.00"),
        ("1", "cash", "-5000.00"),
        ("2", "client", "-100.00"),
        ("2", "margin", "100.00"),
    ];
    assert_eq!((all.len(), lines.as_slice()), (2, want.as_slice()));
    let places = |all: Vec<Vec<Value>>| -> Vec<String> {
        let place = |it: &Value| format!("{}/{}", it["sequence"].as_str().unwrap(), it["line"]);
        all.iter().flatten().map(place).collect()
    };
    for (order, want) in [
        ("sequence", ["1/0", "1/1", "2/0", "2/1"]),
        ("book_time", ["1/0", "1/1", "2/0", "2/1"]),
        ("sequence%20desc", ["2/1", "2/0", "1/1", "1/0"]),
        ("book_time%20desc", ["2/1", "2/0", "1/1", "1/0"]),
    ] {
        let path = |more: &str| format!("/v1/accounts/demo/transactions?orderBy={order}&pageSize=1{more}");
        assert_eq!(
            places(pages(&gateway, &path(""), "transactions").await),
            want,
            "{order}"
        );
        let after: Vec<&str> = want.into_iter().filter(|it| it.starts_with('2')).collect();
        assert_eq!(
            places(pages(&gateway, &path("&afterSequence=1"), "transactions").await),
            after,
            "{order}"
        );
    }
    let shard = shard("demo");
    for (filter, count) in [
        ("afterSequence=1".to_owned(), 2),
        ("currencyCode=BTC".to_owned(), 0),
        (format!("tradeId={shard}-1"), 2),
        (format!("tradeId={}-1", shard + 1), 0),
        ("afterSequence=2".to_owned(), 0),
    ] {
        let page = read(&gateway, &format!("/v1/accounts/demo/transactions?{filter}")).await;
        assert_eq!(
            page["transactions"].as_array().unwrap().len(),
            count,
            "{filter}: {page}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn candles_come_oldest_first_the_newest_page_by_default() {
    let (_postgres, gateway) = started().await;
    let closes = |page: &[Value]| {
        page.iter()
            .map(|it| it["close"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    let base = "/v1/candles/SOL_USDC?interval=CANDLE_INTERVAL_1M&pageSize=2";
    let newest = read(&gateway, base).await;
    assert_eq!(closes(newest["candles"].as_array().unwrap()), ["3", "4"]);
    assert_eq!(newest["nextPageToken"], "");
    let from = pages(
        &gateway,
        &format!("{base}&startTime=2026-01-02T03:01:00Z&endTime=2026-01-02T03:04:00Z"),
        "candles",
    )
    .await;
    assert_eq!(
        from.iter().map(|page| closes(page)).collect::<Vec<_>>(),
        [vec!["1", "2"], vec!["3"]]
    );
    let candle = &from[0][0];
    assert_eq!(
        (
            candle["openTime"].as_str(),
            candle["high"].as_str(),
            candle["quotes"].as_str()
        ),
        (Some("2026-01-02T03:01:00Z"), Some("201.5"), Some("7"))
    );
    let unknown = read(&gateway, "/v1/candles/NO_USDC?interval=CANDLE_INTERVAL_1M").await;
    assert_eq!(unknown["code"], 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_operation_is_found_by_its_caller_alone() {
    let (_postgres, gateway) = started().await;
    let path = format!("/v1/accounts/demo/operations/{OLD}");
    let found = read(&gateway, &path).await;
    assert_eq!(found["operation"]["method"], "Deposit", "{found}");
    assert_eq!(
        (
            found["operation"]["sequence"].as_str(),
            found["operation"]["doneTime"].as_str()
        ),
        (Some("3"), Some("2026-01-02T03:04:05Z"))
    );
    assert_eq!(
        found["operation"]["response"]["@type"],
        "type.googleapis.com/fulcrum.v1.DepositResponse"
    );
    let mut bob = crate::support::claims(&["demo"], "view");
    bob.sub = "bob".into();
    let bob = bearer(&crate::support::signed(&bob));
    let (_, outcome) = call(
        gateway.address,
        Door::Rest,
        &get("x/y", &path, json!({})),
        &[("authorization", &bob)],
    )
    .await;
    assert_eq!(outcome.reason(), "OPERATION_NOT_FOUND");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_waits_for_the_recorder_and_says_so_when_it_does_not_come() {
    let (postgres, gateway) = started().await;
    let address = gateway.address;
    let behind = |sequence: u64, timeout: &'static str| async move {
        let authorization = bearer(&token(&["demo"]));
        let path = format!("/v1/accounts/demo/trades?minSequence={sequence}");
        let headers = [
            ("authorization", authorization.as_str()),
            ("x-request-timeout", timeout),
        ];
        call(address, Door::Rest, &get("x/y", &path, json!({})), &headers)
            .await
            .1
    };
    let outcome = behind(50, "400ms").await;
    assert_eq!(
        (outcome.code, outcome.reason()),
        (14, "HISTORY_BEHIND"),
        "{}",
        outcome.json
    );
    assert!(outcome.detail("RetryInfo").is_some());
    // It comes while somebody waits.
    let waiting = tokio::spawn(behind(50, "5s"));
    tokio::time::sleep(Duration::from_millis(100)).await;
    sqlx::query("UPDATE recorder_cursor SET seq = 51")
        .execute(&postgres.pool())
        .await
        .unwrap();
    let outcome = waiting.await.unwrap();
    assert_eq!(
        (outcome.code, outcome.json["sequence"].as_str()),
        (0, Some("51")),
        "{}",
        outcome.json
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_resumes_from_the_journal_and_only_from_where_it_can() {
    let (_postgres, gateway) = started().await;
    let stream = |resume: u64| Case {
        method: "TradeService/StreamAccountEvents",
        verb: "GET",
        path: String::new(),
        body: Value::Null,
        message: json!({"accountId": "demo", "resumeAfterSequence": resume.to_string()}),
    };
    let authorization = bearer(&token(&["demo"]));
    let headers = [("authorization", authorization.as_str()), ("grpc-timeout", "600m")];
    let answer = crate::support::call_stream(gateway.address, &stream(3), &headers).await;
    let told: Vec<(u64, Option<String>)> = answer
        .messages
        .iter()
        .map(|it| {
            (
                it.sequence,
                it.event
                    .as_ref()
                    .map(|it| format!("{it:?}").split('(').next().unwrap().to_owned()),
            )
        })
        .collect();
    assert_eq!(told, [5, 7, 9].map(|sequence| (sequence, Some("Deposited".to_owned()))));
    assert_eq!(answer.code, 4, "it ended at the client's deadline");

    for (resume, reason) in [(10, "RESUME_POINT_EXPIRED"), (1_000_000, "RESUME_POINT_EXPIRED")] {
        let answer = crate::support::call_stream(gateway.address, &stream(resume), &headers).await;
        assert_eq!((answer.code, answer.reason.as_str()), (11, reason), "{resume}");
    }
}
