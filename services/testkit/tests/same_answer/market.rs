//! Instruments, quotes and candles.

use serde_json::json;
use tonic::Code::{InvalidArgument, NotFound, Unavailable};

use crate::life::{Life, SOL, World, decimal};

pub async fn market(life: &mut Life, world: &World) {
    let listed = life.good("", "ListInstruments", json!({})).await;
    let symbols: Vec<&str> = listed["instruments"]
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(|it| it["symbol"].as_str())
        .collect();
    assert_eq!(symbols, ["BTC_USDC", "ETH_USDC", "SOL_USDC"]);
    let one = life.good("", "GetInstrument", json!({"symbol": "SOL_USDC"})).await;
    assert_eq!(one["instrument"], listed["instruments"][2]);
    let quote = life.good("", "GetQuote", json!({"symbol": "SOL_USDC"})).await;
    assert_eq!(
        (&quote["quote"]["bid"], &quote["quote"]["ask"]),
        (&json!(SOL.0), &json!(SOL.1))
    );
    let stale = life.good("", "GetQuote", json!({"symbol": "ETH_USDC"})).await;
    assert_eq!(stale["quote"]["state"], "QUOTE_STATE_STALE");
    life.bad(
        "GetQuote",
        json!({"symbol": "BTC_USDC"}),
        Unavailable,
        "STALE_PRICE",
        &[],
    )
    .await;
    for name in ["GetInstrument", "GetQuote"] {
        life.bad(name, json!({"symbol": "DOGE_USDC"}), NotFound, "SYMBOL_UNKNOWN", &[])
            .await;
        life.bad(
            name,
            json!({"symbol": "sol"}),
            InvalidArgument,
            "INVALID_FIELD",
            &["symbol"],
        )
        .await;
    }
    let (start, end) = &world.second;
    let second = json!({"symbol": "SOL_USDC", "interval": "CANDLE_INTERVAL_1S", "start_time": start, "end_time": end});
    let candles = life.good("", "ListCandles", second).await;
    let candle = &candles["candles"][0];
    let prices = ["open", "high", "low", "close"].map(|price| decimal(&candle[price]));
    assert_eq!(prices, [decimal(&json!("200")); 4], "the mid price: {candle}");
    let no_interval = json!({"symbol": "SOL_USDC"});
    life.bad(
        "ListCandles",
        no_interval,
        InvalidArgument,
        "INVALID_FIELD",
        &["interval"],
    )
    .await;
    let backwards =
        json!({"symbol": "SOL_USDC", "interval": "CANDLE_INTERVAL_1M", "start_time": end, "end_time": start});
    life.bad(
        "ListCandles",
        backwards,
        InvalidArgument,
        "INVALID_FIELD",
        &["end_time"],
    )
    .await;
    let unknown = json!({"symbol": "DOGE_USDC", "interval": "CANDLE_INTERVAL_1M"});
    life.bad("ListCandles", unknown, NotFound, "SYMBOL_UNKNOWN", &[]).await;
    let many = json!({"symbol": "SOL_USDC", "interval": "CANDLE_INTERVAL_1M", "page_size": 1001});
    life.bad("ListCandles", many, InvalidArgument, "INVALID_FIELD", &["page_size"])
        .await;
}
