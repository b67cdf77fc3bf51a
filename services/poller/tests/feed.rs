//! The client against a venue that closes, breaks, falls silent, babbles and repeats itself.

use std::time::Duration;

use futures::SinkExt as _;
use poller::feed::Heard;
use support::{PATIENCE, Rig, SILENCE, quote};
use tokio::time::{Instant, sleep, timeout};
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Bytes, Message};

mod support;

#[tokio::test(start_paused = true)]
async fn a_quote_reaches_the_desk_and_the_state_says_so() {
    let mut rig = Rig::start();
    let mut state = rig.status.watch();
    let mut socket = rig.venue.subscriber().await;
    state.wait_for(|state| state.connected).await.unwrap();
    assert!(!state.borrow().ready(), "connected, but no price yet");
    socket.quote(1, "143.50", "143.51").await;
    assert_eq!(rig.heard().await, Heard::Data);
    assert_eq!(rig.ready(), ["SOL_USDC 143.50 1"]);
    state.wait_for(|state| state.ready()).await.unwrap();
    rig.stop().await;
    assert!(!state.borrow_and_update().connected);
}

#[tokio::test(start_paused = true)]
async fn a_closed_socket_is_replaced_and_subscribed_again() {
    let mut rig = Rig::start();
    for update_id in 1..=3 {
        let mut socket = rig.venue.subscriber().await;
        socket.quote(update_id, "143.50", "143.51").await;
        rig.heard().await;
        let reason = CloseFrame {
            code: CloseCode::Away,
            reason: "going down".into(),
        };
        socket.0.close(Some(reason)).await.unwrap();
        // The close is answered, as the protocol wants it.
        assert!(matches!(socket.receive().await, Message::Close(_)));
    }
    rig.venue.subscriber().await;
    assert_eq!((rig.counts().connects, rig.counts().disconnects), (4, 3));
    assert_eq!(
        rig.ready(),
        ["SOL_USDC 143.50 1", "SOL_USDC 143.50 2", "SOL_USDC 143.50 3"]
    );
    rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_socket_dropped_without_a_word_is_replaced() {
    let mut rig = Rig::start();
    let socket = rig.venue.subscriber().await;
    drop(socket);
    let mut socket = rig.venue.subscriber().await;
    socket.quote(1, "143.50", "143.51").await;
    rig.heard().await;
    assert_eq!(rig.counts().disconnects, 1);
    rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn fault_13_a_dead_socket_is_replaced_and_its_price_is_not_repeated() {
    let mut rig = Rig::start();
    let mut socket = rig.venue.subscriber().await;
    socket.quote(1, "143.50", "143.51").await;
    rig.heard().await;
    assert_eq!(rig.ready(), ["SOL_USDC 143.50 1"]);

    // The venue is gone for ten minutes: whoever arrives is turned away before the upgrade.
    drop(socket);
    let gone = Instant::now();
    let mut tries = 0;
    while gone.elapsed() < Duration::from_secs(600) {
        drop(rig.venue.arrival().await);
        tries += 1;
        assert!(rig.ready().is_empty(), "an old price is never said again");
    }
    assert!((20..200).contains(&tries), "{tries} tries in ten minutes");
    assert!(!rig.status.watch().borrow().connected);

    // It comes back with what it said last, which is no news, and then with news.
    let mut socket = rig.venue.subscriber().await;
    socket
        .send(&quote("SOL_USDC", 1, poller::clock::now_us(), "143.50", "143.51"))
        .await;
    rig.heard().await;
    assert!(rig.ready().is_empty());
    socket.quote(2, "150.00", "150.01").await;
    rig.heard().await;
    assert_eq!(rig.ready(), ["SOL_USDC 150.00 2"]);
    assert_eq!(rig.counts().duplicates, 1);
    rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn silence_replaces_the_socket_and_pings_are_not_life() {
    let mut rig = Rig::start();
    let mut socket = rig.venue.subscriber().await;
    socket.quote(1, "143.50", "143.51").await;
    rig.heard().await;
    let fell_silent = Instant::now();
    let pings = async {
        loop {
            sleep(Duration::from_secs(5)).await;
            if socket.0.send(Message::Ping(Bytes::new())).await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    };
    tokio::select! {
        () = pings => {}
        _ = rig.venue.subscriber() => {}
    }
    let after = fell_silent.elapsed();
    assert!(
        after >= SILENCE && after < SILENCE + Duration::from_secs(2),
        "{after:?}"
    );
    assert_eq!(rig.counts().silences, 1);
    rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_flood_of_garbage_is_not_life_either() {
    let mut rig = Rig::start();
    let mut socket = rig.venue.subscriber().await;
    let began = Instant::now();
    let babble = async {
        loop {
            for frame in [
                "hello",
                "{}",
                r#"{"id":null,"error":{"code":4006,"message":"Invalid stream"}}"#,
            ] {
                let _ = socket.0.send(Message::text(frame)).await;
            }
            sleep(Duration::from_millis(500)).await;
        }
    };
    tokio::select! {
        () = babble => {}
        _ = rig.venue.subscriber() => {}
    }
    assert!(began.elapsed() < SILENCE + Duration::from_secs(2));
    let counts = rig.counts();
    assert!(
        counts.garbage >= 2 * counts.venue_errors && counts.venue_errors > 30,
        "{counts:?}"
    );
    assert_eq!(counts.silences, 1);
    rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn any_data_is_life_even_a_quote_that_cannot_be_used() {
    let mut rig = Rig::start();
    let mut socket = rig.venue.subscriber().await;
    for update_id in 0..10 {
        sleep(SILENCE - Duration::from_secs(1)).await;
        socket.quote(update_id, "2", "1").await;
        assert_eq!(rig.heard().await, Heard::Data);
    }
    assert!(rig.venue.is_quiet());
    assert_eq!((rig.counts().crossed, rig.counts().silences), (10, 0));
    assert!(rig.ready().is_empty());
    rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_ping_is_answered_with_its_pong() {
    let mut rig = Rig::start();
    let mut socket = rig.venue.subscriber().await;
    for payload in [&b""[..], b"1700000000"] {
        socket.0.send(Message::Ping(Bytes::from_static(payload))).await.unwrap();
        assert_eq!(socket.receive().await, Message::Pong(Bytes::from_static(payload)));
    }
    rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn garbage_is_counted_and_the_socket_stays() {
    let mut rig = Rig::start();
    let mut socket = rig.venue.subscriber().await;
    for garbage in ["", "hello", "[1]", r#"{"stream":"bookTicker.SOL_USDC","data":{}}"#] {
        socket.send(garbage).await;
        assert_eq!(rig.heard().await, Heard::Nothing);
    }
    socket
        .0
        .send(Message::Binary(Bytes::from_static(&[0xff, 0x00])))
        .await
        .unwrap();
    socket
        .send(r#"{"id":null,"error":{"code":4002,"message":"Parse error"}}"#)
        .await;
    rig.heard().await;
    socket.quote(1, "143.50", "143.51").await;
    rig.heard().await;
    assert_eq!(rig.ready(), ["SOL_USDC 143.50 1"]);
    let counts = rig.counts();
    assert_eq!((counts.garbage, counts.venue_errors, counts.connects), (5, 1, 1));
    rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_is_old_repeated_or_not_asked_for_does_not_pass() {
    let mut rig = Rig::start();
    let mut socket = rig.venue.subscriber().await;
    let now_us = poller::clock::now_us();
    for (symbol, update_id, at_us) in [
        ("SOL_USDC", 10, now_us),
        ("SOL_USDC", 9, now_us + 1),    // an id that went back
        ("SOL_USDC", 11, now_us - 1),   // a time that went back
        ("SOL_USDC", 10, now_us),       // the same again
        ("ETH_USDC", 1, now_us),        // not asked for
        ("BTC_USDC", 1, now_us - 1),    // its own order
        ("SOL_USDC", 12, u64::MAX / 2), // from the far future
        ("SOL_USDC", 12, now_us + 2),
    ] {
        socket.send(&quote(symbol, update_id, at_us, "1", "2")).await;
        rig.heard().await;
    }
    assert_eq!(rig.ready(), ["SOL_USDC 1 10", "BTC_USDC 1 1", "SOL_USDC 1 12"]);
    let counts = rig.counts();
    assert_eq!(
        (
            counts.out_of_order,
            counts.duplicates,
            counts.unsubscribed,
            counts.ahead_of_clock
        ),
        (2, 1, 1, 1)
    );
    rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_older_price_on_a_new_socket_does_not_come_back() {
    let mut rig = Rig::start();
    let now_us = poller::clock::now_us();
    let mut socket = rig.venue.subscriber().await;
    socket.send(&quote("SOL_USDC", 10, now_us, "143.50", "143.51")).await;
    rig.heard().await;
    drop(socket);
    let mut socket = rig.venue.subscriber().await;
    socket.send(&quote("SOL_USDC", 9, now_us - 1, "140.00", "140.01")).await;
    rig.heard().await;
    assert_eq!(rig.ready(), ["SOL_USDC 143.50 10"]);
    assert_eq!(rig.counts().out_of_order, 1);
    rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_venue_that_accepts_and_closes_is_not_asked_in_a_tight_loop() {
    let mut rig = Rig::start();
    let began = Instant::now();
    let mut sockets = 0;
    while began.elapsed() < Duration::from_secs(300) {
        let mut socket = rig.venue.subscriber().await;
        let _ = socket.0.close(None).await;
        sockets += 1;
    }
    assert!((10..60).contains(&sockets), "{sockets} sockets in five minutes");
    rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn after_a_long_outage_data_makes_the_next_try_quick_again() {
    let mut rig = Rig::start();
    for _ in 0..12 {
        drop(rig.venue.arrival().await);
    }
    let mut socket = rig.venue.subscriber().await;
    socket.quote(1, "143.50", "143.51").await;
    rig.heard().await;
    drop(socket);
    let lost = Instant::now();
    rig.venue.subscriber().await;
    assert!(lost.elapsed() < Duration::from_secs(1), "{:?}", lost.elapsed());
    rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_venue_that_never_answers_the_upgrade_does_not_hold_the_client() {
    let mut rig = Rig::start();
    let held = rig.venue.arrival().await;
    // The socket stays open and mute; the client gives up by itself.
    let mut socket = rig.venue.subscriber().await;
    socket.quote(1, "143.50", "143.51").await;
    rig.heard().await;
    assert_eq!(rig.counts().connect_failures, 1);
    drop(held);
    rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn it_stops_at_once_wherever_it_is() {
    // Between tries.
    let mut rig = Rig::start();
    drop(rig.venue.arrival().await);
    sleep(Duration::from_millis(1)).await;
    let began = Instant::now();
    rig.stop().await;
    assert!(began.elapsed() < Duration::from_millis(100));
    // During the upgrade.
    let mut rig = Rig::start();
    let _held = rig.venue.arrival().await;
    rig.stop().await;
    // Subscribed: it says goodbye.
    let mut rig = Rig::start();
    let mut socket = rig.venue.subscriber().await;
    rig.shutdown.cancel();
    assert!(matches!(
        timeout(PATIENCE, socket.receive()).await,
        Ok(Message::Close(_))
    ));
    rig.stop().await;
}
