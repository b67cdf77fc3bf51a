//! The margin state machine alone, with so many open trades: what makes them, closes them and shows it prices.

use engine_core::{
    AccountId, Command, Currency, Event, Leverage, Market, Money, OpenTrade, Portion, Price, Quote, Side, Size, State,
    Symbol, Timestamp, TradeId, decide, default_instruments, fire,
};
use rust_decimal::Decimal;

/// Trades of one account.
const TRADES_EACH: usize = 10;
/// The price at which it all begins, in hundredths of a cent.
pub const MID: i64 = 2_000_000;

/// See the module.
#[derive(Debug)]
pub struct Machine {
    /// The state, for whoever measures what it costs to copy it.
    pub state: State,
    market: Market,
    now: Timestamp,
    update: u64,
    accounts: Vec<AccountId>,
    symbol: Symbol,
}

impl Machine {
    /// So many open trades, ten an account, with liquidation prices spread over the whole range below and above.
    #[must_use]
    pub fn with(open: usize) -> Machine {
        let mut machine = Machine::of_accounts(open.div_ceil(TRADES_EACH));
        for number in 0..open {
            machine.open(number);
        }
        machine
    }

    /// So many accounts with money, and no trade.
    #[must_use]
    pub fn of_accounts(count: usize) -> Machine {
        let mut machine = Machine {
            state: State::new(),
            market: Market::new(),
            now: Timestamp::from_micros(1_700_000_000_000_000),
            update: 0,
            accounts: Vec::new(),
            symbol: Symbol::new("SOL_USDC").expect("a symbol"),
        };
        for instrument in default_instruments() {
            machine.act(&Command::ConfigureInstrument(instrument));
        }
        for number in 0..count.max(1) {
            let account = AccountId::new(&format!("account-{number:08}")).expect("an id");
            machine.act(&Command::InitializeWallet {
                account: account.clone(),
            });
            let (currency, amount) = (
                Currency::new("USDC").expect("a code"),
                Money::new(Decimal::from(10_000_000)),
            );
            machine.act(&Command::Deposit {
                account: account.clone(),
                currency,
                amount,
            });
            machine.accounts.push(account);
        }
        machine.quote(MID);
        machine.quote(MID);
        machine
    }

    /// Decides and folds in.
    fn act(&mut self, command: &Command) -> Vec<Event> {
        let events = decide(&self.state, &self.market, self.now, command).expect("it is allowed");
        for event in &events {
            self.state.apply(self.now, event);
        }
        events
    }

    fn order(&self, number: usize, leverage: i64) -> Command {
        let margin = Money::new(Decimal::new(1_000 + (number as i64 * 7_919) % 9_000, 2));
        Command::OpenTrade(OpenTrade {
            account: self.accounts[number % self.accounts.len()].clone(),
            symbol: self.symbol.clone(),
            side: if number.is_multiple_of(2) {
                Side::Long
            } else {
                Side::Short
            },
            size: Size::Margin(margin),
            leverage: Leverage::new(Decimal::from(leverage)).expect("leverage"),
            stop_loss: None,
            take_profit: None,
            slippage: None,
        })
    }

    /// The number the next trade gets.
    #[must_use]
    pub fn next_trade(&self) -> u64 {
        self.state.next_trade_id().get()
    }

    /// Opens a trade whose price of liquidation is one of many, and at least a hundredth away.
    pub fn open(&mut self, number: usize) -> Vec<Event> {
        let order = self.order(number, 2 + (number as i64 * 31) % 50);
        self.act(&order)
    }

    /// Opens long trades that a fall by a hundredth liquidates, before any other.
    pub fn open_brittle(&mut self, count: usize) {
        for number in 0..count {
            let order = self.order(2 * number, 100);
            self.act(&order);
        }
    }

    /// Closes the trade that [`Machine::open`] made of this number.
    pub fn close(&mut self, number: usize, trade: u64) -> Vec<Event> {
        let account = self.accounts[number % self.accounts.len()].clone();
        self.act(&Command::CloseTrade {
            account,
            trade: TradeId::new(trade),
            portion: Portion::All,
        })
    }

    /// When all of it happens.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.now
    }

    /// Shows it a quote around a price in hundredths of a cent; how many events it fires.
    pub fn quote(&mut self, mid: i64) -> usize {
        self.update += 1;
        let price = |count| Price::new(Decimal::new(count, 4)).expect("a price");
        let (bid, ask) = (price(mid - 100), price(mid + 100));
        let symbol = self.symbol.clone();
        let quote = Quote {
            symbol,
            bid,
            ask,
            venue_time: self.now,
            update_id: self.update,
        };
        self.market.observe(&self.state, self.now, &quote);
        let mut fired = Vec::new();
        fire(&self.state, &self.market, self.now, &self.symbol, &mut fired);
        for event in &fired {
            self.state.apply(self.now, event);
        }
        fired.len()
    }
}
