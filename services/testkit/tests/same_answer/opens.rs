//! Trades that are not opened, and what is no request at all.

use http::Method;
use serde_json::{Value, json};
use tonic::Code::{self, FailedPrecondition, InvalidArgument, NotFound, PermissionDenied, Unavailable};

use crate::doors::Door;
use crate::life::{Life, long};

pub async fn refused_opens(life: &mut Life) {
    let me = life.account.clone();
    let mut refused: Vec<(Value, Code, &str, Vec<&str>)> = vec![
        (json!({"symbol": "DOGE_USDC"}), NotFound, "SYMBOL_UNKNOWN", vec![]),
        (
            json!({"symbol": "SOL-USDC"}),
            InvalidArgument,
            "INVALID_FIELD",
            vec!["symbol"],
        ),
        (
            json!({"symbol": null}),
            InvalidArgument,
            "INVALID_FIELD",
            vec!["symbol"],
        ),
        (json!({"side": null}), InvalidArgument, "INVALID_FIELD", vec!["side"]),
        (
            json!({"side": "SIDE_UNSPECIFIED"}),
            InvalidArgument,
            "INVALID_FIELD",
            vec!["side"],
        ),
        (json!({"side": 7}), InvalidArgument, "INVALID_FIELD", vec!["side"]),
        (json!({"margin": null}), InvalidArgument, "INVALID_FIELD", vec!["size"]),
        (
            json!({"leverage": null}),
            InvalidArgument,
            "INVALID_FIELD",
            vec!["leverage"],
        ),
        (
            json!({"leverage": "0"}),
            InvalidArgument,
            "INVALID_FIELD",
            vec!["leverage"],
        ),
        (
            json!({"leverage": "0.5"}),
            InvalidArgument,
            "INVALID_FIELD",
            vec!["leverage"],
        ),
        (
            json!({"leverage": "101"}),
            InvalidArgument,
            "INVALID_FIELD",
            vec!["leverage"],
        ),
        (
            json!({"leverage": "1e1"}),
            InvalidArgument,
            "INVALID_FIELD",
            vec!["leverage"],
        ),
        (
            json!({"leverage": "2.5"}),
            InvalidArgument,
            "INVALID_FIELD",
            vec!["leverage"],
        ),
        (
            json!({"margin": "5200.01"}),
            FailedPrecondition,
            "INSUFFICIENT_MARGIN",
            vec![],
        ),
        (
            json!({"margin": "0.50"}),
            InvalidArgument,
            "INVALID_FIELD",
            vec!["margin"],
        ),
        (
            json!({"margin": null, "quantity": "0.0001"}),
            InvalidArgument,
            "INVALID_FIELD",
            vec!["quantity"],
        ),
        (
            json!({"margin": null, "quantity": "1e-3"}),
            InvalidArgument,
            "INVALID_FIELD",
            vec!["quantity"],
        ),
        (
            json!({"margin": null, "quantity": "100000", "leverage": "100"}),
            FailedPrecondition,
            "MAX_EXPOSURE_REACHED",
            vec![],
        ),
        (
            json!({"stop_loss_price": "200.02"}),
            InvalidArgument,
            "INVALID_FIELD",
            vec!["stop_loss_price"],
        ),
        (
            json!({"stop_loss_price": "190.001"}),
            InvalidArgument,
            "INVALID_FIELD",
            vec!["stop_loss_price"],
        ),
        (
            json!({"take_profit_price": "150"}),
            InvalidArgument,
            "INVALID_FIELD",
            vec!["take_profit_price"],
        ),
        (
            json!({"slippage": {"expected_price": "190", "deviation_max_bps": 10}}),
            Code::Aborted,
            "PRICE_MOVED",
            vec![],
        ),
        (
            json!({"slippage": {"expected_price": "190", "deviation_max_bps": 10001}}),
            InvalidArgument,
            "INVALID_FIELD",
            vec!["slippage.deviation_max_bps"],
        ),
        (
            json!({"slippage": {"deviation_max_bps": 10}}),
            InvalidArgument,
            "INVALID_FIELD",
            vec!["slippage.expected_price"],
        ),
        (json!({"symbol": "ETH_USDC"}), Unavailable, "STALE_PRICE", vec![]),
        (json!({"symbol": "BTC_USDC"}), Unavailable, "STALE_PRICE", vec![]),
        // Everything that is wrong is said at once.
        (
            json!({"side": null, "margin": "x", "leverage": null}),
            InvalidArgument,
            "INVALID_FIELD",
            vec!["side", "margin", "leverage"],
        ),
        (
            json!({"account_id": "Not An Account"}),
            InvalidArgument,
            "INVALID_FIELD",
            vec!["account_id"],
        ),
        (json!({"account_id": "other"}), PermissionDenied, "NOT_ALLOWED", vec![]),
    ];
    for margin in [
        "0", "-100", "0.00", "100.001", "1e2", "1E2", "+100", "0x64", "100 ", "١٠٠", "Infinity",
    ] {
        refused.push((
            json!({"margin": margin}),
            InvalidArgument,
            "INVALID_FIELD",
            vec!["margin"],
        ));
    }
    for (change, code, reason, fields) in refused {
        let answer = life.bad("OpenTrade", long(&me, change), code, reason, &fields).await;
        let retry = answer.detail("RetryInfo").is_some();
        assert_eq!(
            retry,
            code == Unavailable,
            "come back later, and only then: {}",
            answer.all()
        );
    }
    // Too much to look at. The doors read it by different libraries, so only the words may differ.
    let large = long(&me, json!({"symbol": "A".repeat(100_000)}));
    let before = life.look().await;
    let answer = life.client.call("OpenTrade", large).await;
    assert_eq!(
        (answer.code, answer.reason()),
        (Code::ResourceExhausted, "BODY_TOO_LARGE"),
        "{:?}: {}",
        life.client.door,
        answer.all()
    );
    // What is no request at all.
    match life.client.door {
        Door::Rest => {
            let path = format!("/v1/accounts/{me}/trades");
            for body in [
                &b"{"[..],
                b"[]",
                b"\xff",
                b"{\"margin\": {}}",
                b"{\"nonsense\": 1}",
                b"{\"side\": \"SIDE_UP\"}",
            ] {
                let (status, _, _) = life.client.http(Method::POST, &path, body.to_vec()).await;
                assert_eq!(status.as_u16(), 400, "{}", String::from_utf8_lossy(body));
            }
        }
        _ => {
            for bytes in [&b"\xff\xff\xff\xff"[..], b"\x0a\x7f", b"\x0a\x02\xc3\x28"] {
                let answer = life.client.raw("OpenTrade", bytes.to_vec()).await;
                assert_eq!(
                    (answer.code, answer.reason()),
                    (InvalidArgument, "INVALID_FIELD"),
                    "{}",
                    answer.all()
                );
            }
        }
    }
    assert_eq!(life.look().await, before);
}
