//! What a snapshot costs those who share its thread: a chunk at a time.

use std::pin::pin;
use std::task::{Context, Poll, Waker};

use contracts::bus::request::Command;
use contracts::bus::{Request, VenueQuote, reply};
use contracts::v1;
use engine_core::Timestamp;

use super::*;
use crate::shard::Shard;

/// Open trades of one account.
const TRADES_EACH: usize = 20;
/// What the largest entity or operation may add to a chunk of 1 MiB.
const CHUNK_BYTES_MAX: usize = 1024 * 1024 + 64 * 1024;

/// A shard with so many open trades, each remembered with its answer.
fn large(trades: usize) -> Replica {
    let now = Timestamp::from_micros(1_700_000_000_000_000);
    let mut shard = Shard::new(0);
    shard.configure(now, &crate::default_instruments());
    let quote = VenueQuote {
        symbol: "SOL_USDC".to_owned(),
        bid: "200.00".to_owned(),
        ask: "200.02".to_owned(),
        venue_time_us: 1_700_000_000_000_000,
        update_id: 1,
        ..VenueQuote::default()
    };
    shard.observe(now, &quote, "", &mut Vec::new());
    for n in 0..trades + trades / TRADES_EACH {
        let account = format!("account-{}", n / (TRADES_EACH + 1));
        let command = if n % (TRADES_EACH + 1) == 0 {
            Command::InitializeWallet(v1::InitializeWalletRequest::default())
        } else {
            Command::OpenTrade(v1::OpenTradeRequest {
                symbol: "SOL_USDC".to_owned(),
                side: v1::Side::Long.into(),
                size: Some(v1::open_trade_request::Size::Margin("10".to_owned())),
                leverage: "2".to_owned(),
                ..Default::default()
            })
        };
        let id: u128 = (1_700_000_000_000_u128 << 80) | (7 << 76) | (2 << 62) | n as u128;
        let request = Request {
            principal: account.clone(),
            account_id: account,
            request_id: id.to_be_bytes().to_vec().into(),
            expires_at_us: u64::MAX,
            command: Some(command),
            ..Request::default()
        };
        let outcome = shard.handle(now, &request).reply.outcome;
        assert!(matches!(outcome, Some(reply::Outcome::Response(_))), "{outcome:?}");
    }
    assert_eq!(shard.state().open_trades(), trades);
    Replica { shard, chain: [7; 32] }
}

fn row(first: u64, last: u64, bytes: usize) -> Row {
    Row {
        first,
        last,
        body: vec![0; bytes].into(),
        state_hash: 0,
        chain: [0; 32],
    }
}

#[test]
fn rows_handed_over_are_taken_in_order_and_not_past_a_gap() {
    let firsts = |rows: Vec<Row>| rows.iter().map(|row| row.first).collect::<Vec<_>>();
    let mut handed = HandedOver::default();
    for (first, last) in [(1, 3), (4, 4), (5, 9)] {
        handed.add(row(first, last, 10));
    }
    assert_eq!(firsts(handed.after(3)), [4, 5], "what is known already is let go");
    assert!(handed.after(9).is_empty());
    assert_eq!(handed.bytes, 0);

    handed.add(row(20, 20, 10));
    assert!(handed.after(9).is_empty(), "10 to 19 are to be read first");
    assert_eq!(firsts(handed.after(19)), [20]);

    handed.add(row(21, 21, 10));
    handed.add(row(30, 30, 10));
    assert!(
        handed.after(20).is_empty(),
        "another leadership has begun: the older rows are read"
    );
    assert_eq!(firsts(handed.after(29)), [30]);
    for first in 31..31 + 2 * ROWS_MAX as u64 {
        handed.add(row(first, first, 10));
    }
    assert_eq!(handed.after(30).len(), ROWS_MAX);
}

#[test]
fn rows_that_nobody_takes_are_let_go() {
    let mut handed = HandedOver::default();
    let bytes = HANDED_OVER_MAX / 4;
    for first in 1..100 {
        handed.add(row(first, first, bytes));
        assert!(handed.bytes <= HANDED_OVER_MAX);
        assert_eq!(handed.bytes, handed.rows.len() * bytes);
    }
}

#[tokio::test]
async fn whoever_leads_on_the_same_thread_has_a_turn_after_every_chunk_of_a_snapshot() {
    let (replica, place) = (large(6_000), Place::default());
    let mut encoding = pin!(encode(&place, &replica));
    let mut cx = Context::from_waker(Waker::noop());
    let mut turns = 0;
    let (head, chunks) = loop {
        match encoding.as_mut().poll(&mut cx) {
            Poll::Pending => turns += 1,
            Poll::Ready(made) => break made.expect("nobody wanted the replica"),
        }
    };
    assert!(
        chunks.len() >= 3,
        "{} chunks: too small a state to show anything",
        chunks.len()
    );
    assert_eq!(turns, chunks.len());
    let largest = chunks.iter().map(Bytes::len).max().expect("some");
    assert!(
        largest < CHUNK_BYTES_MAX,
        "nobody waits for more than a chunk: {largest} bytes"
    );
    assert_eq!(head.sequence, replica.shard.sequence());
    assert_eq!(replica.snapshot().1, chunks, "the same as in one go");
}

#[tokio::test]
async fn a_snapshot_is_given_up_after_a_chunk_when_a_leader_wants_the_replica() {
    let (replica, place) = (large(6_000), Place::default());
    let mut encoding = pin!(encode(&place, &replica));
    let mut cx = Context::from_waker(Waker::noop());
    assert!(encoding.as_mut().poll(&mut cx).is_pending());
    place.wanted.store(true, Ordering::Relaxed);
    assert!(matches!(encoding.as_mut().poll(&mut cx), Poll::Ready(None)));
}
