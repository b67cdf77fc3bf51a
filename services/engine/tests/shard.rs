//! One shard in memory: random lives. Replay equals live, a snapshot continues like its original, a repeat changes nothing.

use contracts::bus::request::Command;
use contracts::bus::{JournalBatch, JournalEntry, Reply, Request, VenueQuote};
use contracts::v1;
use engine::shard::{Corrupt, Shard};
use engine_core::Timestamp;
use proptest::prelude::*;
use prost::Message as _;

const START_US: i64 = 1_700_000_000_000_000;
const SYMBOLS: [&str; 3] = ["BTC_USDC", "ETH_USDC", "SOL_USDC"];

#[derive(Clone, Debug)]
enum Step {
    Initialize(u8),
    Deposit(u8, u32),
    Withdraw(u8, u32),
    Open {
        account: u8,
        symbol: u8,
        long: bool,
        margin: u32,
        leverage: u8,
        guarded: bool,
    },
    Close {
        account: u8,
        trade: u8,
        percent: Option<u8>,
    },
    AddMargin {
        account: u8,
        trade: u8,
        margin: u32,
    },
    Quote {
        symbol: u8,
        price: u32,
    },
    Wait(u32),
    Repeat(u8),
}

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

/// A live shard and what it journaled.
struct Life {
    shard: Shard,
    now: i64,
    made: u64,
    sent: Vec<(Request, Reply)>,
}

impl Life {
    fn new() -> Self {
        let mut shard = Shard::new(0);
        shard.configure(Timestamp::from_micros(START_US), &engine::default_instruments());
        Self {
            shard,
            now: START_US,
            made: 0,
            sent: Vec::new(),
        }
    }

    fn at(&self) -> Timestamp {
        Timestamp::from_micros(self.now)
    }

    fn request(&mut self, account: u8, command: Command) -> Request {
        self.made += 1;
        let time_ms = u128::try_from(self.now / 1000).unwrap();
        let id = (time_ms << 80) | (7 << 76) | (2 << 62) | u128::from(self.made);
        Request {
            correlation_id: self.made.to_be_bytes().repeat(2).into(),
            principal: "trader".to_owned(),
            account_id: format!("acct-{account}"),
            request_id: id.to_be_bytes().to_vec().into(),
            expires_at_us: u64::MAX,
            command: Some(command),
            ..Request::default()
        }
    }

    fn take(&mut self, step: &Step) -> Vec<JournalEntry> {
        self.now += 1_000;
        let (account, command) = match step {
            Step::Quote { symbol, price } => return self.quote(*symbol, *price),
            Step::Wait(us) => {
                self.now += i64::from(*us);
                return Vec::new();
            }
            Step::Repeat(n) => return self.repeat(*n),
            Step::Initialize(account) => (
                *account,
                Command::InitializeWallet(v1::InitializeWalletRequest::default()),
            ),
            Step::Deposit(account, cents) => (
                *account,
                Command::Deposit(v1::DepositRequest {
                    amount: usdc(*cents),
                    ..Default::default()
                }),
            ),
            Step::Withdraw(account, cents) => (
                *account,
                Command::Withdraw(v1::WithdrawRequest {
                    amount: usdc(*cents),
                    ..Default::default()
                }),
            ),
            Step::Open {
                account,
                symbol,
                long,
                margin,
                leverage,
                guarded,
            } => (
                *account,
                Command::OpenTrade(v1::OpenTradeRequest {
                    symbol: SYMBOLS[usize::from(*symbol)].to_owned(),
                    side: if *long { v1::Side::Long } else { v1::Side::Short }.into(),
                    size: Some(v1::open_trade_request::Size::Margin(cents(*margin))),
                    leverage: leverage.to_string(),
                    stop_loss_price: if *guarded {
                        if *long { "98" } else { "102" }.to_owned()
                    } else {
                        String::new()
                    },
                    ..Default::default()
                }),
            ),
            Step::Close {
                account,
                trade,
                percent,
            } => (
                *account,
                Command::CloseTrade(v1::CloseTradeRequest {
                    trade_id: format!("0-{}", u64::from(*trade) + 1),
                    portion: percent.map(|percent| v1::close_trade_request::Portion::Percent(percent.to_string())),
                    ..Default::default()
                }),
            ),
            Step::AddMargin { account, trade, margin } => (
                *account,
                Command::ModifyTrade(v1::ModifyTradeRequest {
                    trade_id: format!("0-{}", u64::from(*trade) + 1),
                    add_margin: cents(*margin),
                    ..Default::default()
                }),
            ),
        };
        let request = self.request(account, command);
        let handled = self.shard.handle(self.at(), &request);
        if handled.entry.is_some() {
            self.sent.push((request, handled.reply));
        }
        handled.entry.into_iter().collect()
    }

    fn quote(&mut self, symbol: u8, price: u32) -> Vec<JournalEntry> {
        self.made += 1;
        let quote = VenueQuote {
            symbol: SYMBOLS[usize::from(symbol)].to_owned(),
            bid: format!("{}.{}", price / 10, price % 10),
            ask: format!("{}.{}5", price / 10, price % 10),
            venue_time_us: u64::try_from(self.now).unwrap(),
            update_id: self.made,
            ..VenueQuote::default()
        };
        let mut entries = Vec::new();
        self.shard.observe(self.at(), &quote, "", &mut entries);
        entries
    }

    /// Sends something old again: the first answer comes back and nothing is journaled.
    fn repeat(&mut self, n: u8) -> Vec<JournalEntry> {
        if self.sent.is_empty() {
            return Vec::new();
        }
        let (request, first) = self.sent[usize::from(n) % self.sent.len()].clone();
        let hash = self.shard.hash();
        let handled = self.shard.handle(self.at(), &request);
        assert!(handled.entry.is_none(), "a repeat is not executed");
        assert_eq!(
            (handled.reply.sequence, &handled.reply.outcome),
            (first.sequence, &first.outcome),
            "a repeat gets the first answer"
        );
        assert_eq!(self.shard.hash(), hash);
        Vec::new()
    }
}

fn cents(cents: u32) -> String {
    format!("{}.{:02}", cents / 100, cents % 100)
}

fn usdc(amount: u32) -> Option<v1::Money> {
    Some(v1::Money {
        currency_code: "USDC".to_owned(),
        amount: cents(amount),
    })
}

/// A shard that has what `Life::new` starts with, by replay.
fn follower() -> Shard {
    let entries = Shard::new(0).configure(Timestamp::from_micros(START_US), &engine::default_instruments());
    let mut shard = Shard::new(0);
    shard
        .replay(&JournalBatch {
            entries,
            price_cursor: String::new(),
        })
        .expect("replays");
    shard
}

/// As it would be after a trip through the journal's bytes.
fn journaled(entries: Vec<JournalEntry>) -> JournalBatch {
    let batch = JournalBatch {
        entries,
        price_cursor: "7-0".to_owned(),
    };
    JournalBatch::decode(batch.encode_to_vec().as_slice()).expect("decodes what was encoded")
}

fn through_snapshot(shard: &Shard) -> Shard {
    let chunks = shard.chunks().into_iter().map(|chunk| {
        contracts::bus::SnapshotChunk::decode(chunk.encode_to_vec().as_slice()).expect("decodes what was encoded")
    });
    Shard::restore(0, engine::window::Limits::default(), shard.sequence(), chunks).expect("restores")
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn replay_equals_live_and_a_snapshot_continues_like_its_original(
        steps in proptest::collection::vec(step(), 1..120),
        snapshot_at in 0..120usize,
    ) {
        let mut life = Life::new();
        let mut follower = follower();
        prop_assert_eq!(life.shard.hash(), follower.hash());
        for (n, step) in steps.iter().enumerate() {
            let entries = life.take(step);
            for entry in &entries {
                for event in &entry.events {
                    let mut sum = rust_decimal::Decimal::ZERO;
                    for line in &event.lines {
                        sum += line.amount.parse::<rust_decimal::Decimal>().expect("a decimal");
                    }
                    prop_assert!(sum.is_zero(), "lines of one event sum to zero: {:?}", event);
                }
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

#[test]
fn a_gap_in_the_journal_is_refused() {
    let mut life = Life::new();
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
    let mut life = Life::new();
    for (shift_ms, reason) in [
        (10 * 60 * 1000, v1::ErrorReason::InvalidField),
        (-25 * 60 * 60 * 1000, v1::ErrorReason::RequestIdExpired),
    ] {
        let mut request = life.request(0, Command::InitializeWallet(v1::InitializeWalletRequest::default()));
        let time_ms = u128::try_from(START_US / 1000 + shift_ms).unwrap();
        request.request_id = ((time_ms << 80) | (7 << 76) | 1).to_be_bytes().to_vec().into();
        let handled = life.shard.handle(life.at(), &request);
        assert!(handled.entry.is_none());
        let Some(contracts::bus::reply::Outcome::Failure(failure)) = handled.reply.outcome else {
            panic!("executed")
        };
        assert_eq!(failure.reason(), reason);
    }
}

#[test]
fn another_feed_starts_the_market_anew() {
    let mut life = Life::new();
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
    let far_ahead = life
        .shard
        .observe(life.at(), &quote(1_800_000_000_000_000, life.now), "", &mut fired);
    assert_eq!(far_ahead, Some(engine_core::Observation::Accepted));
    life.shard.feed_is("live");
    let live = life
        .shard
        .observe(life.at(), &quote(1_328_288_557, life.now), "", &mut fired);
    assert_eq!(
        live,
        Some(engine_core::Observation::Accepted),
        "its numbers are not held against the other feed's"
    );
}
