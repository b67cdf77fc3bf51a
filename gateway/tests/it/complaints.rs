//! What people complain about in gateways and in the libraries they are made of, one test each: here it is otherwise. Those about
//! transcoders are in the tests of `transcode`.

use std::time::Duration;

use bytes::Bytes;
use serde_json::json;
use testkit::PrivateRedis;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use crate::support::{
    Case, DOORS, Door, ORIGIN, bearer, call, call_stream, get, nowhere, send, start, start_with, token,
};

/// Past this a server hangs.
const PATIENCE: Duration = Duration::from_secs(30);

fn balances(account_id: &str) -> Case {
    let path = format!("/v1/accounts/{account_id}/balances");
    get("BalanceService/ListBalances", &path, json!({"accountId": account_id}))
}

fn events() -> Case {
    let message = json!({"accountId": "demo", "heartbeatInterval": "60s"});
    get(
        "TradeService/StreamAccountEvents",
        "/v1/accounts/demo/events:stream?heartbeatInterval=60s",
        message,
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn the_deadline_is_parsed_and_not_enforced_or_enforced_as_cancelled() {
    let gateway = start().await;
    let authorization = bearer(&token(&["stuck", "demo"]));
    let headers = [("authorization", authorization.as_str()), ("grpc-timeout", "300m")];
    for door in DOORS {
        let (_, outcome) = call(gateway.address, door, &balances("stuck"), &headers).await;
        assert_eq!(outcome.code, 4, "DEADLINE_EXCEEDED through {door:?}");
    }
    // Also past the headers of a stream.
    let streamed = call_stream(gateway.address, &events(), &headers).await;
    assert_eq!((streamed.code, streamed.messages.len()), (4, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn cors_hides_the_grpc_status_and_errors_without_a_body_are_lost() {
    let gateway = start().await;
    let authorization = bearer(&token(&["poor"]));
    for door in [Door::WebBinary, Door::WebText] {
        // One that the engine refuses, and one that never gets that far and has headers alone.
        for (token, code) in [(authorization.as_str(), 9), ("Bearer x", 16)] {
            let headers = [("authorization", token), ("origin", ORIGIN)];
            let (answer, outcome) = call(gateway.address, door, &balances("poor"), &headers).await;
            assert_eq!(outcome.code, code, "{door:?}: {}", outcome.json);
            assert!(outcome.detail("ErrorInfo").is_some(), "{door:?}: {}", outcome.json);
            let exposed = answer.headers["access-control-expose-headers"]
                .to_str()
                .unwrap()
                .to_owned();
            for name in answer.headers.keys().filter(|name| name.as_str().starts_with("grpc-")) {
                let own = name == "grpc-accept-encoding" || name == "grpc-encoding";
                assert!(own || exposed.contains(name.as_str()), "a page cannot read {name}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn shutdown_hangs_on_clients_that_stay() {
    let gateway = start_with(nowhere(), |config| config.drain = Duration::from_millis(500)).await;
    let authorization = bearer(&token(&["demo"]));
    let address = gateway.address;
    // One that has said nothing, one in the middle of its headers, one between two requests, one with a stream.
    let silent = TcpStream::connect(address).await.unwrap();
    let mut half = TcpStream::connect(address).await.unwrap();
    half.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n").await.unwrap();
    let mut idle = TcpStream::connect(address).await.unwrap();
    idle.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n")
        .await
        .unwrap();
    let stream = tokio::spawn(async move {
        let headers = [("authorization", authorization.as_str())];
        call_stream(address, &events(), &headers).await.code
    });
    while gateway.engine.of("demo").is_empty() {
        tokio::task::yield_now().await;
    }
    gateway.shutdown.cancel();
    let served = tokio::time::timeout(PATIENCE, gateway.served).await.expect("it ends");
    served.unwrap().unwrap();
    assert_eq!(stream.await.unwrap(), 14, "the stream was told");
    drop((silent, half, idle));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blocking_command_of_redis_is_given_up_after_half_a_second() {
    let redis = PrivateRedis::start().await;
    let bus = bus::Redis::open(&redis.url()).unwrap();
    let _gateway = start_with(nowhere(), |config| config.redis = bus.clone()).await;
    let mut commands = bus.commands().await.unwrap();
    let mut made = async || {
        let info: String = redis::cmd("INFO")
            .arg("stats")
            .query_async(&mut commands)
            .await
            .unwrap();
        let line = info
            .lines()
            .find_map(|line| line.strip_prefix("total_connections_received:"));
        line.unwrap().trim().parse::<u64>().unwrap()
    };
    // The readers of events and of prices connect at the start.
    let mut before = made().await;
    loop {
        tokio::time::sleep(Duration::from_millis(200)).await;
        let now = made().await;
        if now == before && now > 2 {
            break;
        }
        before = now;
    }
    // Nothing comes for longer than that, and they wait on the same connections.
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    assert_eq!(made().await, before, "nobody had to connect again");
}

#[tokio::test(flavor = "multi_thread")]
async fn anything_but_grpc_web_on_the_port_is_a_bad_request() {
    let gateway = start().await;
    let request = |path: &str| http::Request::get(format!("http://x{path}")).header("host", "x");
    for http2 in [false, true] {
        let healthy = request("/healthz").body(Bytes::new()).unwrap();
        assert_eq!(send(gateway.address, http2, healthy).await.status.as_u16(), 200);
        let nowhere = request("/nowhere").body(Bytes::new()).unwrap();
        assert_eq!(send(gateway.address, http2, nowhere).await.status.as_u16(), 404);
    }
}
