//! A shard with many open trades, each remembered with its first answer, and what goes on happening to it.
#![allow(dead_code, reason = "each program uses its part")]

use contracts::bus::request::Command;
use contracts::bus::{JournalEntry, Request, VenueQuote, reply};
use contracts::v1;
use engine::shard::Shard;
use engine_core::Timestamp;

/// Open trades of one account.
const TRADES_EACH: usize = 20;
/// When all of it happens. Microseconds since the epoch.
const NOW_US: i64 = 1_700_000_000_000_000;

/// See the module.
pub struct Large {
    /// The live shard.
    pub shard: Shard,
    accounts: usize,
    made: u64,
}

impl Large {
    /// A shard with so many open trades. What it journals goes to `out`, entry by entry.
    pub fn build(trades: usize, mut out: impl FnMut(JournalEntry)) -> Self {
        let mut shard = Shard::new(0);
        let at = Timestamp::from_micros(NOW_US);
        shard
            .configure(at, &engine::default_instruments())
            .into_iter()
            .for_each(&mut out);
        let quote = VenueQuote {
            symbol: "SOL_USDC".to_owned(),
            bid: "200.00".to_owned(),
            ask: "200.02".to_owned(),
            venue_time_us: NOW_US.unsigned_abs(),
            update_id: 1,
            ..VenueQuote::default()
        };
        shard.observe(at, &quote, "", &mut Vec::new());
        let mut it = Self {
            shard,
            accounts: trades.div_ceil(TRADES_EACH).max(1),
            made: 0,
        };
        for account in 0..it.accounts {
            let wallet = Command::InitializeWallet(v1::InitializeWalletRequest::default());
            it.act(account, wallet).into_iter().for_each(&mut out);
            for n in 0..TRADES_EACH {
                let open = open(it.accounts * n + account);
                it.act(account, open).into_iter().for_each(&mut out);
            }
        }
        assert_eq!(it.shard.state().open_trades(), it.accounts * TRADES_EACH);
        it
    }

    /// Handles one more command: a little money in, on one account after the other.
    pub fn next(&mut self) -> Option<JournalEntry> {
        let account = usize::try_from(self.made).expect("few") % self.accounts;
        self.act(
            account,
            Command::Deposit(v1::DepositRequest {
                amount: Some(v1::Money {
                    currency_code: "USDC".to_owned(),
                    amount: "0.01".to_owned(),
                }),
                ..Default::default()
            }),
        )
    }

    fn act(&mut self, account: usize, command: Command) -> Option<JournalEntry> {
        self.made += 1;
        let account = format!("account-{account}");
        let time_ms = u128::from(NOW_US.unsigned_abs() / 1_000);
        let id = (time_ms << 80) | (7 << 76) | (2 << 62) | u128::from(self.made);
        let request = Request {
            principal: account.clone(),
            account_id: account,
            request_id: id.to_be_bytes().to_vec().into(),
            expires_at_us: u64::MAX,
            command: Some(command),
            ..Request::default()
        };
        let handled = self.shard.handle(Timestamp::from_micros(NOW_US), &request);
        let outcome = handled.reply.outcome;
        assert!(matches!(outcome, Some(reply::Outcome::Response(_))), "{outcome:?}");
        handled.entry
    }
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
