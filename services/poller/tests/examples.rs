//! Every known message of the venue, in both directions, against the parser and the server's protocol.
//!
//! The messages stand in `data/backpack_frames.json`, with where each comes from. A larger collection of the same form is read too when
//! `FULCRUM_MARKET_DATA` names its directory, or when it lies in `../shared/market-data` beside the repository.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use poller::TapeSource;
use poller::frame::{Frame, Rejection, parse};
use poller::protocol::Subscriptions;
use poller::stream::StreamKind;
use poller::tape::Tape;
use serde_json::Value;

const FIXTURE: &str = include_str!("data/backpack_frames.json");

struct Example {
    id: String,
    to_us: bool,
    raw: String,
}

fn examples(text: &str) -> Vec<Example> {
    let document: Value = serde_json::from_str(text).expect("a JSON document");
    let messages = document["ws_messages"].as_array().expect("a list of messages");
    let text = |message: &Value, key: &str| message[key].as_str().unwrap_or_default().to_owned();
    messages
        .iter()
        .map(|message| Example {
            id: text(message, "id"),
            to_us: message["direction"] == "server_to_client",
            raw: text(message, "raw"),
        })
        .collect()
}

/// What a frame turned out to be, in a few words.
fn shown(raw: &str) -> String {
    match parse(raw) {
        Frame::Quote(quote) => format!(
            "{} {}/{} x {}/{} u {}",
            quote.symbol, quote.bid, quote.ask, quote.bid_quantity, quote.ask_quantity, quote.update_id
        ),
        Frame::Other(kind) => format!("{kind:?}"),
        Frame::VenueError { code, message } => format!("error {code} {message}"),
        Frame::Rejected { symbol, reason } => format!("{symbol} {reason:?}"),
        Frame::Garbage(why) => format!("garbage {why:?}"),
    }
}

#[test]
fn each_message_is_read_as_what_it_is() {
    let read: BTreeMap<String, String> = examples(FIXTURE)
        .into_iter()
        .filter(|example| example.to_us)
        .map(|example| (example.id, shown(&example.raw)))
        .collect();
    let other = |kind: StreamKind| format!("{:?}", Some(kind));
    let expected = [
        (
            "bookTicker_sol_spot_a",
            "SOL_USDC 218.58/218.61 x 56.02/19.60 u 1802083092".to_owned(),
        ),
        (
            "bookTicker_sol_spot_b",
            "SOL_USDC 219.38/219.42 x 46.30/6.00 u 1802736850".to_owned(),
        ),
        (
            "bookTicker_sol_spot_c",
            "SOL_USDC 207.51/207.52 x 16.46/20.52 u 1804072087".to_owned(),
        ),
        (
            "bookTicker_btc_spot_a",
            "BTC_USDC 87678.3/87693.1 x 0.00013/0.01721 u 2203535706".to_owned(),
        ),
        (
            "bookTicker_btc_spot_b",
            "BTC_USDC 68983.0/68983.1 x 0.02426/0.06093 u 2442329321".to_owned(),
        ),
        (
            "bookTicker_eth_spot",
            "ETH_USDC 3667.49/3667.50 x 0.0020/0.4087 u 1328288557".to_owned(),
        ),
        (
            "bookTicker_wif_spot",
            "WIF_USDC 4.4029/4.4030 x 272.0/274.5 u 161567336".to_owned(),
        ),
        (
            "bookTicker_btc_perp",
            "BTC_USDC_PERP 86655.9/86656.0 x 1.94230/2.01178 u 6730019258".to_owned(),
        ),
        (
            "bookTicker_doc",
            "SOL_USDC 18.67/18.70 x 2.000/1.000 u 111063070525358080".to_owned(),
        ),
        ("bookTicker_empty_side", format!("SOL_USDC {:?}", Rejection::OneSided)),
        ("trade_sol_spot", other(StreamKind::Trade)),
        ("trade_eth_perp", other(StreamKind::Trade)),
        ("ticker_sol_spot", other(StreamKind::Ticker)),
        ("ticker_btc_perp", other(StreamKind::Ticker)),
        ("markPrice_sol_perp", other(StreamKind::MarkPrice)),
        ("markPrice_equity_perp", other(StreamKind::MarkPrice)),
        ("kline_2h_eth", other(StreamKind::Kline)),
        ("depth_sol_200ms", other(StreamKind::Depth)),
        ("depth_btc_perp", other(StreamKind::Depth)),
        ("depth_delete_level", other(StreamKind::Depth)),
        ("openInterest_doc", other(StreamKind::OpenInterest)),
        ("liquidation_doc", other(StreamKind::Liquidation)),
        ("error_invalid_stream", "error 4006 Invalid stream".to_owned()),
        ("error_parse", "error 4002 Parse error".to_owned()),
        ("error_depth_window", "error 4008 Invalid depth window".to_owned()),
    ];
    let expected: BTreeMap<String, String> = expected.into_iter().map(|(id, shown)| (id.to_owned(), shown)).collect();
    assert_eq!(read, expected);
}

#[test]
fn each_documented_request_is_understood_by_the_replay_server() {
    let mut subscriptions = Subscriptions::default();
    let requests: Vec<Example> = examples(FIXTURE).into_iter().filter(|example| !example.to_us).collect();
    assert_eq!(requests.len(), 5);
    for request in requests {
        assert!(subscriptions.hear(&request.raw).is_empty(), "{}", request.id);
    }
}

/// Where a larger collection would be.
fn collection() -> PathBuf {
    std::env::var_os("FULCRUM_MARKET_DATA").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/market-data"),
        PathBuf::from,
    )
}

#[test]
fn a_larger_collection_holds_no_surprise() {
    let directory = collection();
    let path = directory.join("backpack_examples.json");
    let Ok(text) = std::fs::read_to_string(&path) else {
        // Past the test harness, which would swallow it.
        let _ = writeln!(
            std::io::stderr(),
            "SKIPPED: there is no {}; set FULCRUM_MARKET_DATA to read a larger collection",
            path.display()
        );
        return;
    };
    let examples = examples(&text);
    assert!(!examples.is_empty());
    for example in examples.iter().filter(|example| example.to_us) {
        let shown = shown(&example.raw);
        assert!(
            !shown.starts_with("garbage") && shown != "None",
            "{}: {shown}",
            example.id
        );
    }
}

#[test]
fn tapes_of_a_larger_collection_are_read() {
    let files = std::fs::read_dir(collection())
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path());
    let tapes =
        files.filter(|path| path.to_string_lossy().contains("_quotes") && path.to_string_lossy().ends_with(".csv.zst"));
    for path in tapes {
        let tape = Tape::open(&TapeSource::File(path.clone())).unwrap();
        let mut read = 0;
        for event in tape.take(20_000) {
            event.unwrap_or_else(|error| panic!("{error}"));
            read += 1;
        }
        assert!(read > 1_000, "{}: {read} quotes", path.display());
    }
}
