//! A shard with many open trades, each remembered with its first answer, and what goes on happening to it.

use std::time::{Duration, Instant};

use contracts::bus::request::Command;
use contracts::bus::{JournalEntry, Request, VenueQuote, reply};
use contracts::v1;
use engine::shard::Shard;
use engine_core::Timestamp;

/// Open trades of one account.
const TRADES_EACH: usize = 20;
/// When it begins. Microseconds since the epoch.
const BEGAN_US: i64 = 1_700_000_000_000_000;
/// Between two commands: a thousand a second, so that what is remembered spreads over minutes as it does in life. Microseconds.
const EACH_US: u64 = 1_000;
/// Commands between two quotes, which must not be old.
const QUOTE_EVERY: u64 = 2_000;

/// What a shard is full of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// So many open trades, twenty an account.
    Trades,
    /// So many accounts, each with a wallet and this many deposits.
    Deposits(usize),
}

/// See the module.
#[derive(Debug)]
pub struct Large {
    /// The live shard.
    pub shard: Shard,
    /// The longest that a command took.
    pub longest: Duration,
    accounts: usize,
    made: u64,
    asked: usize,
}

impl Large {
    /// A shard with so much in it. What it journals goes to `out`, with the state hash after it.
    ///
    /// # Panics
    /// When a command is refused: it would not be as large as it should.
    pub fn build(count: usize, content: Content, mut out: impl FnMut(Vec<JournalEntry>, u128)) -> Self {
        let mut shard = Shard::new(0);
        let listed = shard.configure(Timestamp::from_micros(BEGAN_US), &engine::default_instruments());
        out(listed, shard.hash());
        let accounts = match content {
            Content::Trades => count.div_ceil(TRADES_EACH).max(1),
            Content::Deposits(_) => count.max(1),
        };
        let mut it = Self {
            shard,
            longest: Duration::ZERO,
            accounts,
            made: 0,
            asked: 0,
        };
        for account in 0..accounts {
            let wallet = Command::InitializeWallet(v1::InitializeWalletRequest::default());
            let commands = match content {
                Content::Trades => TRADES_EACH,
                Content::Deposits(each) => each,
            };
            let more = (0..commands).map(|n| match content {
                Content::Trades => open(accounts * n + account),
                Content::Deposits(_) => deposit(),
            });
            for command in std::iter::once(wallet).chain(more) {
                if let Some(entry) = it.act(account, command) {
                    out(vec![entry], it.shard.hash());
                }
            }
        }
        let open = if content == Content::Trades {
            accounts * TRADES_EACH
        } else {
            0
        };
        assert_eq!(it.shard.state().open_trades(), open);
        it
    }

    /// Handles one more command: a little money in, on one account after the other.
    pub fn step(&mut self) -> Option<JournalEntry> {
        let account = usize::try_from(self.made).expect("few") % self.accounts;
        self.act(account, deposit())
    }

    /// Asks what one account after the other has.
    pub fn ask(&mut self) {
        self.asked += 1;
        let account = format!("account-{}", self.asked % self.accounts);
        let request = Request {
            principal: account.clone(),
            account_id: account,
            expires_at_us: u64::MAX,
            command: Some(Command::ListBalances(v1::ListBalancesRequest::default())),
            ..Request::default()
        };
        let handled = self.shard.handle(self.now(), &request);
        assert!(handled.is_read);
    }

    fn now_us(&self) -> u64 {
        BEGAN_US.unsigned_abs() + self.made * EACH_US
    }

    fn now(&self) -> Timestamp {
        Timestamp::from_micros(self.now_us().cast_signed())
    }

    fn quote(&mut self) {
        let quote = VenueQuote {
            symbol: "SOL_USDC".to_owned(),
            bid: "200.00".to_owned(),
            ask: "200.02".to_owned(),
            venue_time_us: self.now_us(),
            update_id: self.made + 1,
            ..VenueQuote::default()
        };
        self.shard.observe(self.now(), &quote, "", &mut Vec::new());
    }

    fn act(&mut self, account: usize, command: Command) -> Option<JournalEntry> {
        if self.made.is_multiple_of(QUOTE_EVERY) {
            self.quote();
        }
        self.made += 1;
        let account = format!("account-{account}");
        let time_ms = u128::from(self.now_us() / 1_000);
        let id = (time_ms << 80) | (7 << 76) | (2 << 62) | u128::from(self.made);
        let request = Request {
            principal: account.clone(),
            account_id: account,
            request_id: id.to_be_bytes().to_vec().into(),
            expires_at_us: u64::MAX,
            command: Some(command),
            ..Request::default()
        };
        let begun = Instant::now();
        let handled = self.shard.handle(self.now(), &request);
        self.longest = self.longest.max(begun.elapsed());
        let outcome = handled.reply.outcome;
        assert!(matches!(outcome, Some(reply::Outcome::Response(_))), "{outcome:?}");
        handled.entry
    }
}

fn deposit() -> Command {
    Command::Deposit(v1::DepositRequest {
        amount: Some(v1::Money {
            currency_code: "USDC".to_owned(),
            amount: "0.01".to_owned(),
        }),
        ..Default::default()
    })
}

/// A trade whose triggers lie on one of many prices.
fn open(n: usize) -> Command {
    let cents = 10_000 + n % 9_000;
    Command::OpenTrade(v1::OpenTradeRequest {
        symbol: "SOL_USDC".to_owned(),
        side: v1::Side::Long.into(),
        size: Some(v1::open_trade_request::Size::Margin("10".to_owned())),
        leverage: "1".to_owned(),
        stop_loss_price: format!("{}.{:02}", cents / 100, cents % 100),
        ..Default::default()
    })
}
