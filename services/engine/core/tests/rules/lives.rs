//! Random lives: commands, quotes, waits and changed terms in any order, played to the core and to the naive model at
//! once. After every step the answers, the balances, the open trades and what fired must be the same.
//!
//! A life that goes wrong is shrunk and printed step by step. `PROPTEST_CASES` plays more of them.

mod steps;
mod words;

use engine_core::{
    Change, Command, Currency, Instrument, LedgerAccount, Leverage, Market, Money, Observation, OpenTrade, Percent,
    Portion, Price, Quantity, Quote, Rate, Side, Size, SlippageBound, TradeId, TradingMode,
};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::FileFailurePersistence;
use rust_decimal::Decimal;

use self::steps::{Parting, Sizing, Step, Stop, step};
use self::words::{in_integers, in_model_words, outcome};
use crate::naive::{self, Naive, Outcome, Terms, scaled};
use crate::story::{World, account, currency, instrument, later, symbol};

const ACCOUNTS: [&str; 3] = ["alice", "bob", "carol"];
const SYMBOLS: [&str; 2] = ["SOL_USDC", "BTC_USDC"];

struct Life {
    world: World,
    naive: Naive,
    /// The venue's mid, in hundredths of a tick.
    mids: [i64; 2],
    update: u64,
}

impl Life {
    fn new() -> Life {
        let mut world = World::new();
        let instruments: Vec<Instrument> = SYMBOLS.iter().map(|name| instrument(name)).collect();
        let mut naive = Naive::new(instruments.iter().map(Terms::of).collect(), ACCOUNTS.len());
        for (number, name) in ACCOUNTS.iter().enumerate().take(2) {
            world
                .act(&Command::InitializeWallet { account: account(name) })
                .expect("a new name");
            naive.wallet(number);
        }
        Life {
            world,
            naive,
            mids: [2_000_000, 60_000_000],
            update: 0,
        }
    }

    fn play(&mut self, step: &Step) {
        let events = self.world.events.len();
        let now = self.world.now.micros();
        let mut expected = Vec::new();
        let mut answer = Ok(());
        match step.clone() {
            Step::Wallet { account: number } => {
                answer = self.world.act(&Command::InitializeWallet {
                    account: account(ACCOUNTS[number]),
                });
                self.naive.wallet(number);
            }
            Step::Transfer { account: number, cents } => {
                let (account, currency) = (account(ACCOUNTS[number]), usdc());
                let amount = money(cents.abs());
                answer = self.world.act(&if cents < 0 {
                    Command::Withdraw {
                        account,
                        currency,
                        amount,
                    }
                } else {
                    Command::Deposit {
                        account,
                        currency,
                        amount,
                    }
                });
                expected.push(if cents == 0 {
                    Outcome::Refused("INVALID_ARGUMENT", "amount")
                } else {
                    self.naive.transfer(number, cents.into())
                });
            }
            Step::Wait { ms } => self.world.now = later(self.world.now, ms * 1_000),
            Step::Quote {
                symbol: place,
                move_bps,
                spread,
                late_ms,
                repeat,
            } => {
                let mid = (self.mids[place] * (10_000 + move_bps) / 10_000).clamp(5_000, 1_000_000_000);
                self.mids[place] = mid;
                self.update += u64::from(!repeat);
                let spread = spread.min(mid);
                let (bid, ask) = (mid - spread / 2, mid + spread - spread / 2);
                let scale = self.naive.terms[place].price_scale + 2;
                let venue_time = later(self.world.now, -late_ms * 1_000);
                let price = |count| Price::new(Decimal::new(count, scale)).expect("a price");
                let (name, bid_price, ask_price) = (symbol(SYMBOLS[place]), price(bid), price(ask));
                let quote = Quote {
                    symbol: name,
                    bid: bid_price,
                    ask: ask_price,
                    venue_time,
                    update_id: self.update,
                };
                let accepted = self.world.observe(&quote) == Observation::Accepted;
                let venue = (bid.into(), ask.into());
                assert_eq!(
                    accepted,
                    self.naive.observe(now, place, venue, venue_time.micros(), self.update)
                );
                expected = self.naive.fire(now, place);
            }
            Step::Open {
                account: number,
                symbol: place,
                long,
                size,
                leverage,
                stop_bps,
                take_bps,
                bound,
            } => {
                let side = if long { Side::Long } else { Side::Short };
                let terms = &self.naive.terms[place];
                let (price_scale, quantity_scale) = (terms.price_scale, terms.quantity_scale);
                let mid = self.mids[place] / 100;
                let near = |bps: i64| (bps != 0).then_some((mid * (10_000 + bps) / 10_000).max(1));
                let (stop_loss, take_profit) = (near(stop_bps), near(take_bps));
                let a_thousand = 10_i64.pow(price_scale + quantity_scale) * 1_000 / mid;
                let (core_size, margin, quantity) = match size {
                    Sizing::Cents(cents) => (Size::Margin(money(cents)), Some(cents.into()), 0),
                    Sizing::Share(share) => {
                        let steps = (a_thousand * share / 1_000).max(1);
                        let quantity = Quantity::new(Decimal::new(steps, quantity_scale)).expect("a quantity");
                        (Size::Quantity(quantity), None, steps.into())
                    }
                };
                let ticks = |count: i64| Price::new(Decimal::new(count, price_scale)).expect("a price");
                let bound = bound.map(|(bps, max)| ((mid * (10_000 + bps) / 10_000).max(1), max));
                answer = self.world.act(&Command::OpenTrade(OpenTrade {
                    account: account(ACCOUNTS[number]),
                    symbol: symbol(SYMBOLS[place]),
                    side,
                    size: core_size,
                    leverage: Leverage::new(leverage.into()).expect("leverage"),
                    stop_loss: stop_loss.map(ticks),
                    take_profit: take_profit.map(ticks),
                    slippage: bound.map(|(at, max)| SlippageBound {
                        expected: ticks(at),
                        deviation_max_bps: max,
                    }),
                }));
                let order = naive::Open {
                    account: number,
                    symbol: place,
                    side,
                    margin,
                    quantity,
                    leverage: leverage.into(),
                    stop_loss: stop_loss.map(Into::into),
                    take_profit: take_profit.map(Into::into),
                    slippage: bound.map(|(at, max)| (at.into(), max.into())),
                };
                expected.push(self.naive.open(now, &order));
            }
            Step::Close {
                account: number,
                trade,
                part,
            } => {
                let id = self.pick(number, trade);
                let open = self
                    .naive
                    .trades
                    .iter()
                    .find(|it| it.id == id)
                    .map_or((1_000, 3), |it| {
                        (it.quantity, self.naive.terms[it.symbol].quantity_scale)
                    });
                let (portion, steps, percent) = match part {
                    Parting::All => (Portion::All, None, false),
                    Parting::Steps(hundredths, more) => {
                        let steps = (open.0 * i128::from(hundredths) / 100 + i128::from(more)).max(1);
                        let value = Decimal::from_i128_with_scale(steps, open.1);
                        (
                            Portion::Quantity(Quantity::new(value).expect("a quantity")),
                            Some(steps),
                            false,
                        )
                    }
                    Parting::Percent(hundredths) => {
                        let percent = Percent::new(Decimal::new(hundredths, 2)).expect("a percentage");
                        (
                            Portion::Percent(percent),
                            Some(open.0 * i128::from(hundredths) / 10_000),
                            true,
                        )
                    }
                };
                let account = account(ACCOUNTS[number]);
                answer = self.world.act(&Command::CloseTrade {
                    account,
                    trade: TradeId::new(id),
                    portion,
                });
                expected.push(self.naive.close(now, number, id, steps, percent));
            }
            Step::Modify {
                account: number,
                trade,
                stop,
                take,
                add,
            } => {
                let id = self.pick(number, trade);
                let place = self
                    .naive
                    .trades
                    .iter()
                    .find(|it| it.id == id)
                    .map_or(0, |it| it.symbol);
                let mid = self.mids[place] / 100;
                let ticks = |stop| match stop {
                    Stop::Keep => None,
                    Stop::Clear => Some(None),
                    Stop::At(bps) => Some(Some((mid * (10_000 + bps) / 10_000).max(1))),
                };
                let scale = self.naive.terms[place].price_scale;
                let change = |stop| match ticks(stop) {
                    None => Change::Keep,
                    Some(None) => Change::Clear,
                    Some(Some(count)) => Change::Set(Price::new(Decimal::new(count, scale)).expect("a price")),
                };
                answer = self.world.act(&Command::ModifyTrade {
                    account: account(ACCOUNTS[number]),
                    trade: TradeId::new(id),
                    stop_loss: change(stop),
                    take_profit: change(take),
                    add_margin: add.map(money),
                });
                let naive = |stop| ticks(stop).map(|stop| stop.map(i128::from));
                expected.push(
                    self.naive
                        .modify(now, number, id, naive(stop), naive(take), add.map(Into::into)),
                );
            }
            Step::Terms {
                symbol: place,
                term,
                value,
            } => {
                let mut changed = self
                    .world
                    .state
                    .instrument(&symbol(SYMBOLS[place]))
                    .expect("it is listed")
                    .clone();
                let rate = |text: &str| Rate::parse(text).expect("a rate");
                match term {
                    0 => {
                        changed.mode = [
                            TradingMode::Enabled,
                            TradingMode::Enabled,
                            TradingMode::CloseOnly,
                            TradingMode::Halted,
                        ][value]
                    }
                    1 => changed.commission_rate = rate(["0", "0.0005", "0.002", "0.03"][value]),
                    2 => changed.maintenance_rate = rate(["0", "0.004", "0.005", "0.05"][value]),
                    3 => changed.spread_markup_bps = [0, 3, 20, 100][value],
                    4 => changed.exposure_max = money([100_000, 1_000_000, 5_000_000, 1_000_000_000][value]),
                    _ => {
                        let steps = [1, 1, 50, 500][value];
                        changed.quantity_min =
                            Quantity::new(changed.step.get() * Decimal::from(steps)).expect("a quantity");
                    }
                }
                self.naive.terms[place] = Terms::of(&changed);
                self.world
                    .act(&Command::ConfigureInstrument(changed))
                    .expect("these terms are in range");
                return self.compare();
            }
            Step::Restore { forget } => {
                self.world.state = self.world.copied();
                if forget {
                    self.world.market = Market::new();
                    self.naive.forget();
                }
            }
        }
        let mut happened: Vec<Outcome> = self.world.events[events..]
            .iter()
            .filter_map(|(_, event)| outcome(event, &self.naive))
            .collect();
        happened.extend(answer.as_ref().err().map(in_model_words));
        assert_eq!(
            happened, expected,
            "the core on the left, the model on the right: {step:?}"
        );
        self.compare();
    }

    /// One of the account's own open trades mostly, else any number.
    fn pick(&self, account: usize, number: usize) -> u64 {
        let own: Vec<u64> = self
            .naive
            .trades
            .iter()
            .filter(|it| it.account == account)
            .map(|it| it.id)
            .collect();
        let any = if number < 34 {
            own.get(number % own.len().max(1))
        } else {
            None
        };
        any.copied().unwrap_or(number as u64)
    }

    fn compare(&self) {
        let cents = |account: &LedgerAccount| scaled(self.world.state.ledger_balance(account, &usdc()).get(), 2);
        for (number, name) in ACCOUNTS.iter().enumerate() {
            let id = account(name);
            assert_eq!(
                self.world.state.account(&id).is_some(),
                self.naive.free[number].is_some()
            );
            assert_eq!(
                cents(&LedgerAccount::Client(id.clone())),
                self.naive.free[number].unwrap_or(0),
                "{name}"
            );
            let own = || self.naive.trades.iter().filter(|it| it.account == number);
            assert_eq!(
                cents(&LedgerAccount::Margin(id.clone())),
                own().map(|it| it.margin).sum::<i128>(),
                "{name}"
            );
            let open: Vec<_> = self
                .world
                .state
                .trades_of(&id)
                .map(|it| in_integers(it, &self.naive))
                .collect();
            assert_eq!(open, own().cloned().collect::<Vec<_>>(), "{name}");
            for trade in self.world.state.trades_of(&id) {
                self.check_liquidation_price(trade);
            }
        }
        let own = [LedgerAccount::House, LedgerAccount::Fee, LedgerAccount::Cash].map(|account| cents(&account));
        assert_eq!(own, [self.naive.house, self.naive.fee, self.naive.cash]);
        assert_eq!(self.world.state.hash(), self.world.state.recompute_hash());
        assert_eq!(self.world.state.open_trades(), self.naive.trades.len());
    }

    /// The first tick at which the definition says dead, and not a tick sooner.
    fn check_liquidation_price(&self, trade: &engine_core::Trade) {
        let it = in_integers(trade, &self.naive);
        let better = if trade.side == Side::Long { 1 } else { -1 };
        match trade.liquidation_price {
            Some(price) => {
                let ticks = scaled(price.get(), self.naive.terms[it.symbol].price_scale);
                assert!(
                    self.naive.is_dead(&it, ticks) && !self.naive.is_dead(&it, ticks + better),
                    "{trade:?}"
                );
            }
            None => assert!(trade.side == Side::Long && !self.naive.is_dead(&it, 1), "{trade:?}"),
        }
    }
}

fn usdc() -> Currency {
    currency("USDC")
}

fn money(cents: i64) -> Money {
    Money::new(Decimal::new(cents, 2))
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(200),
        failure_persistence: Some(Box::new(FileFailurePersistence::Off)),
        max_shrink_iters: 20_000,
        ..ProptestConfig::default()
    })]

    #[test]
    fn the_core_and_the_naive_model_agree(steps in prop::collection::vec(step(), 1..160)) {
        let mut life = Life::new();
        for step in &steps {
            life.play(step);
        }
        life.world.close_the_books();
    }
}

/// A test that never opens a trade proves nothing: lives must reach every kind of event and of refusal.
#[test]
fn random_lives_reach_everything() {
    use std::collections::BTreeMap;

    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let mut reached: BTreeMap<String, usize> = BTreeMap::new();
    for _ in 0..150 {
        let steps = prop::collection::vec(step(), 100..160)
            .new_tree(&mut runner)
            .expect("steps")
            .current();
        let mut life = Life::new();
        steps.iter().for_each(|step| life.play(step));
        for outcome in &life.world.outcomes {
            let words: Vec<&str> = outcome.split_whitespace().collect();
            let kind = match words.as_slice() {
                ["refused", "INVALID_ARGUMENT:", field, ..] => format!("refused {field}"),
                ["refused", reason, ..] => format!("refused {reason}"),
                ["quote", "dropped:", why] => format!("dropped {why}"),
                [_, "trade", _, what, ..] => format!("trade {}", what.trim_end_matches(',')),
                [_, what, ..] => (*what).to_owned(),
                _ => continue,
            };
            *reached.entry(kind).or_default() += 1;
            if outcome.contains("house pays") {
                *reached.entry("house pays".to_owned()).or_default() += 1;
            }
        }
    }
    for kind in [
        "trade opened",
        "trade modified",
        "trade reduced",
        "trade closed",
        "trade stopped",
        "trade took",
        "trade liquidated",
        "house pays",
        "deposited",
        "withdrew",
        "dropped AwaitingConfirmation",
        "dropped OutOfOrder",
        "dropped TooOld",
        "dropped Future",
        "refused ACCOUNT_NOT_FOUND:",
        "refused TRADE_NOT_FOUND:",
        "refused TRADE_CLOSED:",
        "refused INSUFFICIENT_MARGIN:",
        "refused INSUFFICIENT_FUNDS:",
        "refused STALE_PRICE:",
        "refused PRICE_MOVED:",
        "refused MARKET_CLOSED:",
        "refused MAX_EXPOSURE_REACHED:",
        "refused leverage:",
        "refused margin:",
        "refused quantity:",
        "refused percent:",
        "refused stop_loss:",
        "refused take_profit:",
        "refused add_margin:",
    ] {
        assert!(
            reached.get(kind).is_some_and(|count| *count >= 3),
            "{kind} is too rare: {reached:#?}"
        );
    }
}
