//! Which calls are made: what one caller does, call after call.

use clap::ValueEnum;
use contracts::v1;
use uuid::Uuid;

use super::door::{Answer, Call};

/// What callers do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Work {
    /// Open a trade; trades pile up.
    Open,
    /// Open a trade, close it, open the next.
    OpenClose,
    /// Read the balances.
    Balance,
    /// Read the balances eight times, open a trade, close it.
    Mix,
}

impl Work {
    /// As a word.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::OpenClose => "open-close",
            Self::Balance => "balance",
            Self::Mix => "mix",
        }
    }
}

/// Reads before a mix trades.
const READS_OF_MIX: u32 = 8;
/// What trades are made of. Little leverage, so that no replayed price liquidates any.
const SYMBOL: &str = "SOL_USDC";
const MARGIN: &str = "100";
const LEVERAGE: &str = "2";

/// The name of an account of the bench.
#[must_use]
pub fn account(number: usize) -> String {
    format!("bench-{number:05}")
}

/// One caller.
#[derive(Debug)]
pub(super) struct Session {
    work: Work,
    account: String,
    step: u32,
    /// The trade it opened and has not closed.
    open: Option<String>,
    /// Its call under way opens one.
    opening: bool,
}

impl Session {
    /// The caller number `number`, on one of so many accounts.
    pub(super) fn new(work: Work, number: usize, accounts: usize) -> Self {
        Self {
            work,
            account: account(number % accounts.max(1)),
            step: 0,
            open: None,
            opening: false,
        }
    }

    /// Its next call.
    pub(super) fn next(&mut self) -> Call {
        let trades = match self.work {
            Work::Open | Work::OpenClose => true,
            Work::Balance => false,
            Work::Mix => self.step % (READS_OF_MIX + 2) >= READS_OF_MIX,
        };
        self.step = self.step.wrapping_add(1);
        let (account_id, request_id) = (self.account.clone(), Uuid::now_v7().to_string());
        self.opening = trades && self.open.is_none();
        if !trades {
            return Call::ListBalances(v1::ListBalancesRequest {
                account_id,
                min_sequence: 0,
            });
        }
        match self.open.take() {
            Some(trade_id) => Call::CloseTrade(v1::CloseTradeRequest {
                account_id,
                trade_id,
                request_id,
                portion: None,
            }),
            None => Call::OpenTrade(v1::OpenTradeRequest {
                account_id,
                request_id,
                symbol: SYMBOL.to_owned(),
                side: v1::Side::Long.into(),
                size: Some(v1::open_trade_request::Size::Margin(MARGIN.to_owned())),
                leverage: LEVERAGE.to_owned(),
                ..Default::default()
            }),
        }
    }

    /// Whether it must know which trade a call opened.
    pub(super) fn wants_trade(&self) -> bool {
        self.opening && matches!(self.work, Work::OpenClose | Work::Mix)
    }

    /// What came of its call.
    pub(super) fn answered(&mut self, answer: &mut Answer) {
        if self.wants_trade() {
            self.open = answer.opened.take();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn steps(work: Work, count: usize) -> String {
        let mut session = Session::new(work, 1, 4);
        let letter = |_| match session.next() {
            Call::OpenTrade(_) => {
                session.answered(&mut Answer {
                    opened: Some("1-1".to_owned()),
                    ..Answer::default()
                });
                'o'
            }
            Call::CloseTrade(it) => {
                assert_eq!(it.trade_id, "1-1");
                // The answer to a close has a trade, too.
                session.answered(&mut Answer {
                    opened: Some("1-1".to_owned()),
                    ..Answer::default()
                });
                'c'
            }
            Call::ListBalances(_) => 'b',
            Call::InitializeWallet(_) | Call::Deposit(_) => '?',
        };
        (0..count).map(letter).collect()
    }

    #[test]
    fn each_work_has_its_calls() {
        assert_eq!(steps(Work::Open, 4), "oooo");
        assert_eq!(steps(Work::OpenClose, 4), "ococ");
        assert_eq!(steps(Work::Balance, 3), "bbb");
        assert_eq!(steps(Work::Mix, 11), "bbbbbbbbocb");
    }

    #[test]
    fn a_refused_open_is_tried_again_with_a_new_id() {
        let mut session = Session::new(Work::OpenClose, 0, 1);
        let id = |call| match call {
            Call::OpenTrade(it) => it.request_id,
            other => panic!("{other:?}"),
        };
        let first = id(session.next());
        session.answered(&mut Answer::default());
        assert_ne!(first, id(session.next()));
    }

    #[test]
    fn callers_share_the_accounts() {
        assert_eq!(Session::new(Work::Balance, 5, 4).account, account(1));
        assert!(contracts::names::check_account_id(&account(99_999)).is_ok());
    }
}
