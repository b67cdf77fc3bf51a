//! HTTP/1.1 as it should not be spoken.

use std::time::Duration;

use futures::future::join_all;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::memory::Watch;
use crate::neighbour::{Neighbour, PATIENCE};
use crate::support::{nowhere, start, start_with};

/// Reads until the server has closed the connection; what came.
async fn rest(mut stream: TcpStream) -> Vec<u8> {
    let mut all = Vec::new();
    // A reset is an end, too.
    let _end = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut all))
        .await
        .expect("the connection is closed");
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_that_come_byte_by_byte_are_not_waited_for() {
    const CONNECTIONS: usize = 300;
    let watch = Watch::begin().await;
    let gateway = start_with(nowhere(), |config| {
        config.connections.first_request = Duration::from_millis(800);
        config.connections.idle = Duration::from_millis(800);
    })
    .await;
    let neighbour = Neighbour::of(gateway.address).await;
    let closed = join_all((0..CONNECTIONS).map(|number| async move {
        let mut stream = TcpStream::connect(gateway.address).await.unwrap();
        // Every second one has made a call before, and is not new any more.
        if number % 2 == 0 {
            stream
                .write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n")
                .await
                .unwrap();
            let mut answer = Vec::new();
            while !answer.ends_with(b"}") {
                assert_ne!(stream.read_buf(&mut answer).await.unwrap(), 0);
            }
        }
        stream
            .write_all(b"GET /v1/instruments HTTP/1.1\r\nhost: x\r\n")
            .await
            .unwrap();
        let (read, mut write) = stream.into_split();
        let slowly = async move {
            for byte in b"x-slow: ".iter().chain(std::iter::repeat(&b'a')) {
                if write.write_all(&[*byte]).await.is_err() {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        let gone = async move {
            let mut read = read;
            let mut all = Vec::new();
            let _end = tokio::time::timeout(PATIENCE, read.read_to_end(&mut all))
                .await
                .expect("the connection is closed");
        };
        tokio::select! { () = slowly => {}, () = gone => {} }
    }))
    .await;
    assert_eq!(closed.len(), CONNECTIONS);
    neighbour.leaves().await;
    watch.end("slow headers");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_address_does_not_take_all_connections() {
    const MAX: usize = 50;
    let watch = Watch::begin().await;
    let gateway = start_with(nowhere(), |config| {
        (config.connections.count_max, config.connections.address_max) = (MAX + 10, MAX);
    })
    .await;
    let neighbour = Neighbour::of(gateway.address).await;
    let mut kept = Vec::new();
    let mut closed = 0;
    for _ in 0..4 * MAX {
        let mut stream = TcpStream::connect(gateway.address).await.unwrap();
        let mut answer = Vec::new();
        let sent = stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").await;
        while sent.is_ok() && !answer.ends_with(b"}") {
            if !matches!(stream.read_buf(&mut answer).await, Ok(1..)) {
                break;
            }
        }
        if answer.is_empty() {
            closed += 1;
        } else {
            kept.push(stream);
        }
    }
    assert_eq!((kept.len(), closed), (MAX, 3 * MAX));
    neighbour.leaves().await;
    drop(kept);
    // The places are free again.
    let neighbour = Neighbour::of(gateway.address).await;
    tokio::time::timeout(PATIENCE, async {
        loop {
            let mut stream = TcpStream::connect(gateway.address).await.unwrap();
            let sent = stream
                .write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
                .await;
            if sent.is_ok() && rest(stream).await.starts_with(b"HTTP/1.1 200") {
                break;
            }
        }
    })
    .await
    .expect("a connection is accepted");
    neighbour.leaves().await;
    watch.end("connections of one address");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_without_end_is_answered_and_cut_off() {
    const ATTEMPTS: usize = 20;
    /// What is still taken: what the server looks at, and what lies in the sockets of both sides.
    const TAKEN_MAX: usize = 16 << 20;
    let watch = Watch::begin().await;
    let gateway = start().await;
    let neighbour = Neighbour::of(gateway.address).await;
    for (what, head, part) in [
        ("a path", "GET /", "a".repeat(16_000)),
        ("a header", "GET / HTTP/1.1\r\nhost: x\r\nx-large: ", "a".repeat(16_000)),
        (
            "headers",
            "GET / HTTP/1.1\r\nhost: x\r\n",
            "x-many: a\r\n".repeat(1_000),
        ),
    ] {
        for _ in 0..ATTEMPTS {
            let mut stream = TcpStream::connect(gateway.address).await.unwrap();
            stream.write_all(head.as_bytes()).await.unwrap();
            let mut taken = 0;
            while stream.write_all(part.as_bytes()).await.is_ok() && taken <= TAKEN_MAX {
                taken += part.len();
            }
            assert!(taken <= TAKEN_MAX, "{what}: {taken} bytes and more are taken");
        }
        neighbour.goes_on().await;
    }
    neighbour.leaves().await;
    watch.end("heads without end");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_only_asks_and_never_reads_piles_up_no_answers_and_is_let_go() {
    const CONNECTIONS: usize = 20;
    /// 20 MB and more of answers on each.
    const REQUESTS: usize = 20_000;
    let watch = Watch::begin().await;
    let gateway = start_with(nowhere(), |config| config.connections.unread = Duration::from_secs(2)).await;
    let neighbour = Neighbour::of(gateway.address).await;
    let many = "GET /nowhere HTTP/1.1\r\nhost: x\r\n\r\n".repeat(REQUESTS);
    let mut attackers = Vec::new();
    for _ in 0..CONNECTIONS {
        let mut stream = TcpStream::connect(gateway.address).await.unwrap();
        // Until it takes no more.
        let writing = stream.write_all(many.as_bytes());
        let _full = tokio::time::timeout(Duration::from_millis(500), writing).await;
        attackers.push(stream);
    }
    neighbour.goes_on().await;
    // Nothing is read here to the end: that it was let go shows when it writes.
    for stream in attackers {
        let gone = async {
            while stream.writable().await.is_ok() {
                match stream.try_write(b"x") {
                    Err(error) if error.kind() != std::io::ErrorKind::WouldBlock => break,
                    _ => tokio::task::yield_now().await,
                }
            }
        };
        tokio::time::timeout(PATIENCE, gone).await.expect("it is let go");
    }
    neighbour.leaves().await;
    watch.end("answers that nobody reads");
}
