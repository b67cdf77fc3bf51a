//! Odd input, with what is different and why.

use http::Method;

/// How the two answers compare.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Says {
    /// In status and JSON.
    Same,
    /// In the status, which is this; not in the words, and why.
    Words(u16, &'static str),
    /// In neither: our status and Envoy's, and why.
    Status(u16, u16, &'static str),
}
pub use Says::{Same, Status, Words};

const TEXT: &str = "Envoy refuses it by itself in plain text; here every error is a google.rpc.Status with details";
const METHODS: &str =
    "Envoy knows no 405: whatever does not match is not there; here the answer lists the methods in Allow";
const EMPTY_SEGMENTS: &str =
    "Envoy drops a slash at the end and takes an empty segment for a value; here neither is a path of a binding";
const VERBS: &str = "to Envoy a verb of any method ends the path of all; here it does for the methods that have it, and this is an id with a colon";
const PERCENT: &str =
    "Envoy passes on what is no percent-encoding of UTF-8, and the room finds fault with it; here the path is refused";
const CONFLICT: &str = "Envoy lets one value win silently; here two values for one field are refused";
const TWICE: &str = "Envoy takes the last of several values for a field that has one; here that is refused by name";
const NO_NAME: &str = "Envoy passes over a parameter without a name; here it is one that there is not";
const UNKNOWN: &str = "Envoy passes over body fields that there are not, so a misspelt stop loss would open without one; here it is refused by name, \
                       and what the room says of the rest comes later";
const LENIENT: &str =
    "Envoy reads what is not quite JSON, so the room finds fault with the rest; here it is refused for what it is";
const MEDIA: &str =
    "Envoy does not look at the type of a body and fails to read it as JSON; here the type is what is refused";
const HEADER: &str = "the timeout is refused by the room behind Envoy, and here by the transcoder, which reads it first: the same reason, other words";
const STREAMS: &str =
    "Envoy has sent a 200 before the stream fails; here a stream that fails before its first message has its status";
const SHORT_NAMES: &str = "here a query may name an enum value without its prefix, too";

pub struct Odd {
    pub verb: Method,
    pub path: &'static str,
    pub header: Option<(&'static str, &'static str)>,
    pub body: &'static [u8],
    pub says: Says,
}

fn get(path: &'static str, says: Says) -> Odd {
    Odd {
        verb: Method::GET,
        path,
        header: None,
        body: b"",
        says,
    }
}

fn post(path: &'static str, body: &'static [u8], says: Says) -> Odd {
    Odd {
        verb: Method::POST,
        body,
        ..get(path, says)
    }
}

const TRADES: &str = "/v1/accounts/demo/trades";

/// Requests that no careful client makes, with what is different and why.
pub fn odd() -> Vec<Odd> {
    let with = |odd: Odd, name, value| Odd {
        header: Some((name, value)),
        ..odd
    };
    vec![
        // What gets through both transcoders is refused by the same room, in the same words.
        get("/v1/accounts/other/balances", Same),
        get("/v1/accounts/demo/balances/DOGE", Same),
        get("/v1/accounts/demo/balances/usdc", Same),
        get("/v1/accounts/demo/trades/x", Same),
        get("/v1/accounts/demo/trades/0-999999", Same),
        get("/v1/quotes/NO_SUCH", Same),
        get("/v1/instruments/%20", Same),
        get("/v1/conservation", Same),
        get("/v1/accounts/demo/trades?status=CLOSED", Status(200, 400, SHORT_NAMES)),
        get("/v1/accounts/demo/trades?page_size=1", Same),
        get("/v1/accounts/demo/trades?pageSize=1", Same),
        get("/v1/accounts/demo/trades?pageSize=-1", Same),
        get("/v1/accounts/demo/trades?pageToken=nonsense", Same),
        get("/v1/accounts/demo/trades?", Same),
        get("/v1/accounts/demo/trades?symbol=", Same),
        get("/v1/accounts/demo/trades?symbol=SOL%5FUSDC", Same),
        get("/v1/accounts/demo/trades?symbol=SOL+USDC", Same),
        get("/v1/accounts/d%65mo/balances", Same),
        get(
            "/v1/candles/SOL_USDC?interval=CANDLE_INTERVAL_1D&startTime=2026-01-01T00:00:00Z",
            Same,
        ),
        get(
            "/v1/candles/SOL_USDC?interval=CANDLE_INTERVAL_1D&start_time=2026-01-01T00%3A00%3A00.5%2B01%3A00",
            Same,
        ),
        get("/v1/quotes:stream?symbols=NO_SUCH", Status(404, 200, STREAMS)),
        get("/v1/quotes:stream?conflationInterval=-1s", Same),
        get("/v1/accounts/demo/operations/x", Same),
        post(
            TRADES,
            br#"{"symbol":"SOL_USDC","side":"SIDE_LONG","margin":"1e2","leverage":"10"}"#,
            Same,
        ),
        post(
            TRADES,
            br#"{"symbol":"SOL_USDC","side":1,"margin":"-1","leverage":"10"}"#,
            Same,
        ),
        post(
            TRADES,
            br#"{"symbol":"SOL_USDC","side":"SIDE_LONG","margin":null,"leverage":"10"}"#,
            Same,
        ),
        post(TRADES, br#"{}"#, Same),
        post(
            "/v1/accounts/demo/wallet:deposit",
            br#"{"amount":{"currencyCode":"USDC","amount":"0"}}"#,
            Same,
        ),
        post(
            "/v1/accounts/demo/wallet:deposit",
            br#"{"amount":{"currency_code":"USDC","amount":"-1"}}"#,
            Same,
        ),
        post(
            "/v1/accounts/other/wallet:deposit",
            br#"{"amount":{"currencyCode":"USDC","amount":"1"}}"#,
            Same,
        ),
        with(
            get("/v1/accounts/demo/balances", Words(400, HEADER)),
            "grpc-timeout",
            "nonsense",
        ),
        // What is refused before there is a call.
        get("/", Words(404, TEXT)),
        get("/v1", Words(404, TEXT)),
        get("/v1/nothing", Words(404, TEXT)),
        get("/v1/accounts/demo/balances/", Status(404, 200, EMPTY_SEGMENTS)),
        get("/v1/accounts//balances", Status(404, 400, EMPTY_SEGMENTS)),
        get("//v1/instruments", Words(404, TEXT)),
        get("/v1/instruments/", Status(404, 200, EMPTY_SEGMENTS)),
        get("/v1/accounts/demo/wallet:deposit", Status(405, 404, METHODS)),
        get("/v1/accounts/demo/trades/1-1:close", Status(400, 404, VERBS)),
        get("/v1/accounts/demo/trades:nothing", Words(404, TEXT)),
        get("/v1/quotes/SOL_USDC:nothing", Same),
        get("/v1/accounts/demo/balances%2FUSDC", Words(404, TEXT)),
        get("/v1/accounts/de%2Fmo/balances", Same),
        get("/v1/accounts/%zz/balances", Words(400, PERCENT)),
        get("/v1/accounts/%ff/balances", Words(400, PERCENT)),
        get("/v1/accounts/demo/trades?nothing=1", Words(400, TEXT)),
        get("/v1/accounts/demo/trades?account_id=demo", Same),
        get("/v1/accounts/demo/trades?account_id=other", Status(400, 403, CONFLICT)),
        get("/v1/accounts/demo/trades?page_size=x", Words(400, TEXT)),
        get("/v1/accounts/demo/trades?page_size=1.5", Words(400, TEXT)),
        get("/v1/accounts/demo/trades?page_size=99999999999", Words(400, TEXT)),
        get(
            "/v1/accounts/demo/trades?page_size=1&page_size=2",
            Status(400, 200, TWICE),
        ),
        get("/v1/accounts/demo/trades?status=NOTHING", Words(400, TEXT)),
        get("/v1/accounts/demo/trades?status=1", Same),
        get("/v1/accounts/demo/trades?status=%ff", Words(400, TEXT)),
        get("/v1/accounts/demo/trades?symbol.nothing=1", Words(400, TEXT)),
        get("/v1/accounts/demo/trades?=1", Status(400, 200, NO_NAME)),
        get("/v1/accounts/demo/trades?&&", Same),
        get(
            "/v1/candles/SOL_USDC?interval=CANDLE_INTERVAL_1D&startTime=yesterday",
            Words(400, TEXT),
        ),
        get("/v1/quotes:stream?conflationInterval=1", Words(400, TEXT)),
        post("/v1/instruments", b"{}", Status(405, 404, METHODS)),
        post(TRADES, b"", Same),
        post(TRADES, b"{", Words(400, TEXT)),
        post(TRADES, b"[]", Words(400, TEXT)),
        post(TRADES, b"null", Words(400, TEXT)),
        post(TRADES, b"1", Words(400, TEXT)),
        post(TRADES, b"{} {}", Words(400, TEXT)),
        post(TRADES, b"\xff", Words(400, TEXT)),
        post(TRADES, b"\xef\xbb\xbf{}", Words(400, TEXT)),
        post(TRADES, br#"{"nothing":1}"#, Words(400, UNKNOWN)),
        post(TRADES, br#"{"symbol":"A","symbol":"B"}"#, Words(400, TWICE)),
        post(TRADES, br#"{"accountId":"demo"}"#, Same),
        post(TRADES, br#"{"accountId":"other"}"#, Words(400, CONFLICT)),
        post(TRADES, br#"{"symbol":1}"#, Words(400, TEXT)),
        post(TRADES, br#"{"margin":100}"#, Words(400, TEXT)),
        post(TRADES, br#"{"symbol":{}}"#, Words(400, TEXT)),
        post(TRADES, br#"{"side":"SIDE_UP"}"#, Words(400, TEXT)),
        post(TRADES, br#"{"side":7}"#, Same),
        post(TRADES, br#"{"side":"1"}"#, Words(400, LENIENT)),
        post(TRADES, br#"{"margin":"1","quantity":"1"}"#, Words(400, TEXT)),
        post(TRADES, br#"{"symbol":"\ud800"}"#, Words(400, TEXT)),
        post(TRADES, br#"{"symbol":"\u0000"}"#, Same),
        post(TRADES, br#"{'symbol':'SOL_USDC'}"#, Words(400, LENIENT)),
        post(TRADES, br#"{"symbol":"SOL_USDC",}"#, Words(400, LENIENT)),
        post(TRADES, br#"{symbol:"SOL_USDC"}"#, Words(400, LENIENT)),
        post(TRADES, br#"{"symbol":"SOL_USDC"} // opened"#, Words(400, TEXT)),
        with(
            post(TRADES, b"x", Status(415, 400, MEDIA)),
            "content-type",
            "text/plain",
        ),
        with(
            post(TRADES, b"{}", Same),
            "content-type",
            "application/json; charset=utf-8",
        ),
        with(
            post(TRADES, b"a=b", Status(415, 400, MEDIA)),
            "content-type",
            "application/x-www-form-urlencoded",
        ),
        Odd {
            verb: Method::PUT,
            ..post(TRADES, b"{}", Status(405, 404, METHODS))
        },
        Odd {
            verb: Method::DELETE,
            ..get("/v1/instruments", Status(405, 404, METHODS))
        },
        Odd {
            body: b"{}",
            ..get("/v1/instruments", Same)
        },
    ]
}
