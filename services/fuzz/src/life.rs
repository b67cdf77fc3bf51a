//! One shard's random life: what accounts, prices and time may do to it, and what must hold whatever they do.
#![allow(missing_docs, reason = "the fields of a step are named for what they are")]

use contracts::bus::request::Command;
use contracts::bus::{JournalBatch, JournalEntry, Reply, Request, VenueQuote};
use contracts::v1;
use engine::shard::Shard;
use engine_core::Timestamp;
use prost::Message as _;
use rust_decimal::Decimal;

/// When a life begins, microseconds since the epoch.
pub const START_US: i64 = 1_700_000_000_000_000;
const SYMBOLS: [&str; 3] = ["BTC_USDC", "ETH_USDC", "SOL_USDC"];

/// One thing that happens. Accounts, symbols and trades are numbers; a trade need not exist.
#[derive(Clone, Debug)]
pub enum Step {
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

/// A live shard and what it was told.
#[derive(Debug)]
pub struct Life {
    /// The shard.
    pub shard: Shard,
    now: i64,
    made: u64,
    sent: Vec<(Request, Reply)>,
}

impl Life {
    /// A shard with the usual instruments and nobody in it.
    #[must_use]
    pub fn begin() -> Self {
        let mut shard = Shard::new(0);
        shard.configure(Timestamp::from_micros(START_US), &engine::default_instruments());
        Self {
            shard,
            now: START_US,
            made: 0,
            sent: Vec::new(),
        }
    }

    pub fn at(&self) -> Timestamp {
        Timestamp::from_micros(self.now)
    }

    pub fn request(&mut self, account: u8, command: Command) -> Request {
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

    pub fn take(&mut self, step: &Step) -> Vec<JournalEntry> {
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

/// A shard that has what `Life::begin` starts with, by replay.
pub fn follower() -> Shard {
    let entries = Shard::new(0).configure(Timestamp::from_micros(START_US), &engine::default_instruments());
    let mut shard = Shard::new(0);
    shard.replay(&journaled(entries)).expect("replays");
    shard
}

/// The body of a row of these entries.
pub fn journaled(entries: Vec<JournalEntry>) -> Vec<u8> {
    let batch = JournalBatch {
        entries,
        price_cursor: "7-0".to_owned(),
    };
    batch.encode_to_vec()
}

pub fn through_snapshot(shard: &Shard) -> Shard {
    let limits = engine::window::Limits::default();
    Shard::restore(0, limits, shard.sequence(), shard.chunks()).expect("restores")
}

/// Whether the ledger lines of each event sum to zero in each currency.
#[must_use]
pub fn sums_to_zero(entry: &JournalEntry) -> bool {
    entry.events.iter().all(|event| {
        let mut sums = std::collections::BTreeMap::new();
        for line in &event.lines {
            *sums.entry(line.currency_code.as_str()).or_insert(Decimal::ZERO) +=
                line.amount.parse::<Decimal>().expect("a decimal");
        }
        sums.values().all(Decimal::is_zero)
    })
}

impl Step {
    /// Reads a step from six bytes, whatever they are.
    #[must_use]
    pub fn read(bytes: [u8; 6]) -> Self {
        let [kind, a, b, c, d, e] = bytes;
        let number = u32::from_be_bytes([0, c, d, e]);
        match kind % 16 {
            0 => Self::Initialize(a % 4),
            1 => Self::Deposit(a % 4, number),
            2 => Self::Withdraw(a % 4, number),
            3..=7 => Self::Open {
                account: a % 4,
                symbol: (b >> 2) % 3,
                long: b & 1 == 1,
                margin: number % 100_000,
                leverage: e,
                guarded: b & 2 == 2,
            },
            8 | 9 => Self::Close {
                account: a % 4,
                trade: b,
                percent: (c & 1 == 1).then_some(d),
            },
            10 => Self::AddMargin {
                account: a % 4,
                trade: b,
                margin: number,
            },
            11..=13 => Self::Quote {
                symbol: a % 3,
                price: u32::from_be_bytes([0, 0, d, e]),
            },
            14 => Self::Wait(number),
            _ => Self::Repeat(a),
        }
    }
}
