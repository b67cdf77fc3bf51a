//! One shard in memory: random lives. Replay equals live, a snapshot continues like its original, a repeat changes nothing.

use contracts::bus::request::Command;
use contracts::bus::{JournalEntry, OpenTradesRequest, SnapshotChunk, VenueQuote, reply};
use contracts::{names, v1};
use engine::shard::Corrupt;
use fuzz::life::{Life, START_US, Step, follower, journaled, sums_to_zero, through_snapshot};
use proptest::prelude::*;
use prost::Message as _;
use rust_decimal::Decimal;

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        1 => (0..4u8).prop_map(Step::Initialize),
        1 => (0..4u8, 0..100_000u32).prop_map(|(a, n)| Step::Deposit(a, n)),
        1 => (0..4u8, 0..600_000u32).prop_map(|(a, n)| Step::Withdraw(a, n)),
        6 => (0..4u8, 0..3u8, any::<bool>(), 100..40_000u32, 1..101u8, any::<bool>())
            .prop_map(|(account, symbol, long, margin, leverage, guarded)| Step::Open { account, symbol, long, margin, leverage, guarded }),
        3 => (0..4u8, 0..30u8, proptest::option::of(1..101u8)).prop_map(|(account, trade, percent)| Step::Close { account, trade, percent }),
        1 => (0..4u8, 0..30u8, 1..10_000u32).prop_map(|(account, trade, margin)| Step::AddMargin { account, trade, margin }),
        8 => (0..3u8, 900..1_100u32).prop_map(|(symbol, price)| Step::Quote { symbol, price }),
        1 => (0..40_000_000u32).prop_map(Step::Wait),
        2 => any::<u8>().prop_map(Step::Repeat),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn replay_equals_live_and_a_snapshot_continues_like_its_original(
        steps in proptest::collection::vec(step(), 1..120),
        snapshot_at in 0..120usize,
    ) {
        let mut life = Life::begin();
        let mut follower = follower();
        prop_assert_eq!(life.shard.hash(), follower.hash());
        for (n, step) in steps.iter().enumerate() {
            let entries = life.take(step);
            for entry in &entries {
                prop_assert!(sums_to_zero(entry), "{entry:?}");
            }
            if !entries.is_empty() {
                follower.replay(&journaled(entries)).expect("replays");
            }
            prop_assert_eq!(life.shard.hash(), follower.hash(), "after step {} {:?}", n, step);
            if n == snapshot_at {
                let restored = through_snapshot(&follower);
                prop_assert_eq!(restored.hash(), follower.hash());
                follower = restored;
            }
        }
        prop_assert_eq!(life.shard.state().hash(), life.shard.state().recompute_hash());
    }
}

/// What the shard says are the account's open trades.
fn open_trades(life: &mut Life, account: u8, command: Command) -> Vec<v1::Trade> {
    let request = life.request(account, command);
    match life.shard.handle(life.at(), &request).reply.outcome {
        Some(reply::Outcome::Response(bytes)) => v1::ListTradesResponse::decode(bytes).expect("a page").trades,
        _ => Vec::new(),
    }
}

/// By what trades may be ordered: number alone, or profit and then number.
fn key(trade: &v1::Trade, by_realised_profit: bool) -> (Decimal, u64) {
    let profit = trade
        .realised_profit
        .as_ref()
        .expect("a profit")
        .amount
        .parse()
        .expect("a number");
    let (_, number) = names::parse_trade_id(&trade.trade_id).expect("an id");
    (if by_realised_profit { profit } else { Decimal::ZERO }, number)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn pages_of_open_trades_put_together_are_all_of_them_in_order(
        steps in proptest::collection::vec(step(), 60..200),
        limit in 1..5u32,
        by_realised_profit: bool,
        descending: bool,
        symbol in prop_oneof![Just(""), Just("SOL_USDC")],
    ) {
        let mut life = Life::begin();
        for step in &steps {
            life.take(step);
        }
        for account in 0..4 {
            let mut all = open_trades(&mut life, account, Command::ListOpenTrades(v1::ListTradesRequest::default()));
            all.retain(|trade| symbol.is_empty() || trade.symbol == symbol);
            all.sort_by_key(|trade| key(trade, by_realised_profit));
            if descending {
                all.reverse();
            }
            let mut page = OpenTradesRequest { symbol: symbol.to_owned(), limit, by_realised_profit, descending, ..Default::default() };
            let mut paged = Vec::new();
            loop {
                let trades = open_trades(&mut life, account, Command::OpenTrades(page.clone()));
                prop_assert!(trades.len() <= limit as usize);
                let Some(last) = trades.last() else { break };
                page.after_number = Some(key(last, false).1);
                page.after_realised_profit = last.realised_profit.as_ref().expect("a profit").amount.clone();
                paged.extend(trades);
                prop_assert!(paged.len() <= all.len(), "a page repeats");
            }
            prop_assert_eq!(paged, all);
        }
    }
}

#[test]
fn a_refusal_that_is_remembered_is_the_last_change_of_its_account() {
    let mut life = Life::begin();
    life.take(&Step::Initialize(0));
    life.take(&Step::Initialize(1));
    let withdrawal = Command::Withdraw(v1::WithdrawRequest {
        amount: Some(v1::Money {
            currency_code: "USDC".to_owned(),
            amount: "1000000.00".to_owned(),
        }),
        ..v1::WithdrawRequest::default()
    });
    let request = life.request(0, withdrawal);
    let refused = life.shard.handle(life.at(), &request);
    assert!(refused.entry.is_some() && matches!(refused.reply.outcome, Some(reply::Outcome::Failure(_))));
    assert_eq!(refused.reply.account_sequence, refused.reply.sequence);
    let asked = life.request(0, Command::ListBalances(v1::ListBalancesRequest::default()));
    let read = life.shard.handle(life.at(), &asked).reply;
    assert_eq!(read.account_sequence, refused.reply.sequence);
}

#[test]
fn a_chunk_is_the_message_of_the_format() {
    let mut life = Life::begin();
    let entries: Vec<JournalEntry> = [Step::Initialize(0), Step::Deposit(0, 5_000), Step::Initialize(1)]
        .iter()
        .flat_map(|step| life.take(step))
        .collect();
    let chunks: Vec<_> = life.shard.chunks().collect();
    let [chunk] = &chunks[..] else {
        panic!("{} chunks of a small shard", chunks.len())
    };
    let read = SnapshotChunk::decode(chunk.clone()).unwrap();
    let operations: Vec<_> = read
        .operations
        .iter()
        .map(|it| (it.sequence, it.at_us, &it.operation))
        .collect();
    let journaled: Vec<_> = entries
        .iter()
        .map(|it| (it.sequence, it.at_us, &it.operation))
        .collect();
    assert_eq!(operations, journaled);
    assert_eq!(read.accounts.len(), 2);
    assert!(read.position.is_some() && !read.entities.is_empty());
    assert_eq!(read.encode_to_vec(), *chunk);
}

#[test]
fn a_gap_in_the_journal_is_refused() {
    let mut life = Life::begin();
    let first = life.take(&Step::Initialize(0));
    let second = life.take(&Step::Initialize(1));
    let mut shard = follower();
    let gap = shard.replay(&journaled(second)).expect_err("sequence skipped");
    assert!(matches!(gap, Corrupt::Gap { .. }), "{gap}");
    let mut shard = follower();
    shard.replay(&journaled(first.clone())).expect("replays");
    assert!(shard.replay(&journaled(first)).is_err(), "a row folded in twice");
}

#[test]
fn an_id_from_the_future_or_the_past_is_never_executed() {
    let mut life = Life::begin();
    for (shift_ms, reason) in [
        (10 * 60 * 1000, v1::ErrorReason::InvalidField),
        (-25 * 60 * 60 * 1000, v1::ErrorReason::RequestIdExpired),
    ] {
        let mut request = life.request(0, Command::InitializeWallet(v1::InitializeWalletRequest::default()));
        let time_ms = u128::try_from(START_US / 1000 + shift_ms).unwrap();
        request.request_id = ((time_ms << 80) | (7 << 76) | 1).to_be_bytes().to_vec().into();
        let handled = life.shard.handle(life.at(), &request);
        assert!(handled.entry.is_none());
        let Some(reply::Outcome::Failure(failure)) = handled.reply.outcome else {
            panic!("executed")
        };
        assert_eq!(failure.reason(), reason);
    }
}

#[test]
fn another_feed_starts_the_market_anew() {
    let mut life = Life::begin();
    let quote = |update_id, at: i64| VenueQuote {
        symbol: "SOL_USDC".to_owned(),
        bid: "100".to_owned(),
        ask: "100.01".to_owned(),
        venue_time_us: u64::try_from(at).unwrap(),
        update_id,
        ..VenueQuote::default()
    };
    let mut fired = Vec::new();
    life.shard.feed_is("replay");
    let far_ahead = life.shard.observe(
        life.at(),
        &quote(1_800_000_000_000_000, life.at().micros()),
        "",
        &mut fired,
    );
    assert_eq!(far_ahead, Some(engine_core::Observation::Accepted));
    life.shard.feed_is("live");
    let live = life
        .shard
        .observe(life.at(), &quote(1_328_288_557, life.at().micros()), "", &mut fired);
    assert_eq!(
        live,
        Some(engine_core::Observation::Accepted),
        "its numbers are not held against the other feed's"
    );
}
