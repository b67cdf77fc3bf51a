//! What a command and a quote cost, at a thousand and at a million open trades, on one core.
//!
//! `cargo bench -p engine-core` prints nanoseconds; anything else that runs this program gets a short round, to see
//! that it still works.
#![allow(clippy::print_stdout)]

use std::hint::black_box;
use std::time::Instant;

use engine_core::{
    AccountId, Command, Currency, Leverage, Market, Money, OpenTrade, Portion, Price, Quote, Side, Size, State, Symbol,
    Timestamp, TradeId, decide, default_instruments, fire,
};
use rust_decimal::Decimal;

struct Machine {
    state: State,
    market: Market,
    now: Timestamp,
    update: u64,
    accounts: Vec<AccountId>,
    symbol: Symbol,
}

impl Machine {
    /// So many open trades, ten an account, with liquidation prices spread over the whole range below and above.
    fn with(open: usize) -> Machine {
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
        for number in 0..open.div_ceil(10).max(1) {
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
        machine.quote(2_000_000);
        machine.quote(2_000_000);
        for number in 0..open {
            machine.open(number);
        }
        machine
    }

    fn act(&mut self, command: &Command) {
        let events = decide(&self.state, &self.market, self.now, command).expect("it is allowed");
        for event in &events {
            self.state.apply(self.now, event);
        }
        black_box(events);
    }

    fn order(&self, number: usize) -> Command {
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
            leverage: Leverage::new(Decimal::from(2 + (number * 31) % 50)).expect("leverage"),
            stop_loss: None,
            take_profit: None,
            slippage: None,
        })
    }

    fn open(&mut self, number: usize) {
        let order = self.order(number);
        self.act(&order);
    }

    /// In hundredths of a cent.
    fn quote(&mut self, mid: i64) -> usize {
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

/// Nanoseconds this thread has run: the machine may be busy with others. Wall time where the system does not say.
fn clock(start: Instant) -> u64 {
    let told = std::fs::read_to_string("/proc/thread-self/schedstat").ok();
    let ran = told
        .as_deref()
        .and_then(|text| text.split_whitespace().next()?.parse().ok());
    ran.unwrap_or_else(|| start.elapsed().as_nanos() as u64)
}

fn nanos(rounds: usize, mut round: impl FnMut(usize)) -> f64 {
    let start = Instant::now();
    let before = clock(start);
    for number in 0..rounds {
        round(number);
    }
    (clock(start) - before) as f64 / rounds as f64
}

fn main() {
    let full = std::env::args().any(|argument| argument == "--bench");
    let sizes: &[usize] = if full { &[1_000, 100_000, 1_000_000] } else { &[1_000] };
    let rounds = if full { 200_000 } else { 100 };
    println!(
        "{:>10} {:>10} {:>10} {:>10} {:>10} {:>10}",
        "open", "open ns", "close ns", "quote ns", "fire ns", "decide ns"
    );
    for &size in sizes {
        let mut machine = Machine::with(size);
        let first = machine.state.next_trade_id().get();
        let deciding = nanos(rounds, |number| {
            let order = machine.order(number);
            drop(black_box(decide(&machine.state, &machine.market, machine.now, &order)));
        });
        let opening = nanos(rounds, |number| machine.open(size + number));
        let quoting = nanos(rounds, |number| {
            assert_eq!(machine.quote(2_000_000 + (number as i64 % 3) * 100), 0)
        });
        let closing = nanos(rounds, |number| {
            let account = machine.accounts[(size + number) % machine.accounts.len()].clone();
            let trade = TradeId::new(first + number as u64);
            machine.act(&Command::CloseTrade {
                account,
                trade,
                portion: Portion::All,
            });
        });
        machine.quote(2_000_000);
        let mut fired = 0;
        let firing = nanos(1, |_| fired = machine.quote(1_900_000)) / fired.max(1) as f64;
        println!("{size:>10} {opening:>10.0} {closing:>10.0} {quoting:>10.0} {firing:>10.0} {deciding:>10.0}");
    }
}
