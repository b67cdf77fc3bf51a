//! A story is a test: one command or quote a line in, what happened a line each out.
//!
//! ```text
//! wallet demo                                   deposit demo 100 USDC        withdraw demo 10 USDC
//! quote SOL_USDC 200 200.02 [late 3s] [id 7]    wait 6s                      restart
//! open demo SOL_USDC long margin 100 leverage 10 [stop 190] [take 220] [expect 200 within 50]
//! open demo SOL_USDC short quantity 5 leverage 10
//! close demo 1 [quantity 2 | percent 50]        modify demo 1 [stop 195 | stop none] [take 230] [add 50]
//! instrument SOL_USDC commission 0.001 maintenance 0.005 markup 20 mode halted hard 60s …
//! balance demo USDC      summary demo USDC      trades demo      own fee USDC
//! ```
//!
//! An account opens its wallet when a story first names it, unless its name starts with `no`. After every event the
//! promises are checked too: lines sum to zero, balances equal the ledger, the running hash equals the recomputed
//! one; and at the end a replay of the events and a copy made through a snapshot must both hash the same.

use std::collections::BTreeMap;

use engine_core::{
    AccountId, Change, CloseReason, Command, Currency, EntityOwned, Event, EventKind, Instrument, LedgerAccount,
    Leverage, Market, Money, Observation, OpenTrade, Percent, Portion, Price, Quantity, Quote, Rate, Refusal, Side,
    Size, SlippageBound, State, Symbol, Timestamp, TradeClosing, TradeId, TradingMode, decide, default_instruments,
    fire, summary,
};

/// Plays a story and holds its last outcomes against the expected ones, line by line. An expected line may stop short
/// of the outcome's details, at a comma, colon or space.
#[track_caller]
pub fn check(story: &str, expected: &str) {
    let outcomes = play(story).outcomes;
    let expected: Vec<&str> = expected
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect();
    let tail = outcomes.iter().rev().take(expected.len()).rev();
    let agrees = |outcome: &str, line: &str| {
        let rest = outcome.strip_prefix(line);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with([',', ':', ' ']))
    };
    let agree = tail.clone().count() == expected.len() && tail.zip(&expected).all(|(a, b)| agrees(a, b));
    assert!(
        agree,
        "expected at the end:\n  {}\nall that happened:\n  {}",
        expected.join("\n  "),
        outcomes.join("\n  ")
    );
}

/// Plays a story to its end.
#[track_caller]
pub fn play(story: &str) -> World {
    let mut world = World::new();
    for line in story.lines().map(str::trim).filter(|line| !line.is_empty()) {
        world.tell(line);
    }
    world.close_the_books();
    world
}

/// The instrument that stories trade unless they say otherwise.
pub fn instrument(symbol: &str) -> Instrument {
    let known = default_instruments()
        .into_iter()
        .find(|it| it.symbol.as_str() == symbol);
    known.unwrap_or_else(|| {
        let mut copy = default_instruments().pop().expect("there are defaults");
        copy.symbol = Symbol::new(symbol).expect("a symbol");
        copy
    })
}

/// A state, a market, a clock that only moves when told, and everything that happened.
pub struct World {
    pub state: State,
    pub market: Market,
    pub now: Timestamp,
    pub events: Vec<(Timestamp, Event)>,
    pub outcomes: Vec<String>,
    ledger: BTreeMap<(LedgerAccount, String), Money>,
    next_update: u64,
}

impl World {
    pub fn new() -> World {
        let mut world = World {
            state: State::new(),
            market: Market::new(),
            now: Timestamp::from_micros(1_700_000_000_000_000),
            events: Vec::new(),
            outcomes: Vec::new(),
            ledger: BTreeMap::new(),
            next_update: 1,
        };
        for instrument in default_instruments() {
            world
                .act(&Command::ConfigureInstrument(instrument))
                .expect("defaults are valid");
        }
        world.outcomes.clear();
        world
    }

    /// Decides and applies one command; the state is left alone by a refusal and by deciding.
    pub fn act(&mut self, command: &Command) -> Result<(), Refusal> {
        let before = self.state.hash();
        let decided = self.act_quickly(command);
        assert!(
            decided.is_ok() || self.state.hash() == before,
            "a refusal changes nothing"
        );
        assert_eq!(self.state.hash(), self.state.recompute_hash());
        decided
    }

    /// The same without a look at the whole state.
    pub fn act_quickly(&mut self, command: &Command) -> Result<(), Refusal> {
        let decided = decide(&self.state, &self.market, self.now, command);
        match &decided {
            Ok(events) if events.is_empty() => self.outcomes.push("nothing to do".to_owned()),
            Ok(events) => events.iter().for_each(|event| self.apply(event)),
            Err(refusal) => self.outcomes.push(format!("refused {}: {refusal}", refusal.reason())),
        }
        decided.map(drop)
    }

    pub fn observe(&mut self, quote: &Quote) -> Observation {
        let observation = self.market.observe(&self.state, self.now, quote);
        if observation != Observation::Accepted {
            self.outcomes.push(format!("quote dropped: {observation:?}"));
        }
        let mut fired = Vec::new();
        fire(&self.state, &self.market, self.now, &quote.symbol, &mut fired);
        fired.iter().for_each(|event| self.apply(event));
        observation
    }

    pub fn apply(&mut self, event: &Event) {
        assert!(event.is_balanced(), "{event:?}");
        self.state.apply(self.now, event);
        for line in &event.lines {
            let key = (line.account.clone(), line.currency.to_string());
            let balance = self.ledger.entry(key).or_default();
            *balance = balance.checked_add(line.amount).expect("small numbers");
        }
        self.outcomes.push(told(event));
        self.events.push((self.now, event.clone()));
    }

    /// Holds the balances against the ledger, and the state against its replay and its snapshot.
    pub fn close_the_books(&self) {
        let mut sums: BTreeMap<&str, Money> = BTreeMap::new();
        for ((account, code), balance) in &self.ledger {
            let currency = Currency::new(code).expect("a currency");
            assert_eq!(
                self.state.ledger_balance(account, &currency),
                *balance,
                "{account:?} {code}"
            );
            if matches!(account, LedgerAccount::Client(_) | LedgerAccount::Margin(_)) {
                assert!(!balance.is_negative(), "{account:?} has {balance} {code}");
            }
            let sum = sums.entry(code).or_default();
            *sum = sum.checked_add(*balance).expect("small numbers");
        }
        assert!(
            sums.values().all(|sum| sum.is_zero()),
            "money was made or lost: {sums:?}"
        );

        assert_eq!(self.state.hash(), self.state.recompute_hash());
        let mut replayed = State::new();
        self.events.iter().for_each(|(at, event)| replayed.apply(*at, event));
        assert_eq!(replayed.hash(), self.state.hash(), "a replay must give the same state");
        assert_eq!(
            self.copied().hash(),
            self.state.hash(),
            "a snapshot must give the same state"
        );
    }

    /// The state through the bytes of a snapshot and back.
    pub fn copied(&self) -> State {
        State::restore(self.state.entities().map(|entity| {
            let mut bytes = Vec::new();
            entity.encode(&mut bytes);
            EntityOwned::decode(&bytes).expect("what was encoded can be decoded")
        }))
    }

    #[track_caller]
    pub fn tell(&mut self, line: &str) {
        let mut words = line.split_whitespace();
        let mut word = || words.next();
        let mut must = || word().unwrap_or_else(|| panic!("the line stops short: {line}"));
        match must() {
            "wait" => self.wait(must()),
            "restart" => {
                self.state = self.copied();
                self.market = Market::new();
            }
            "wallet" => drop(self.act(&Command::InitializeWallet {
                account: account(must()),
            })),
            "deposit" => {
                let account = self.named(must());
                let (amount, currency) = (money(must()), currency(must()));
                drop(self.act(&Command::Deposit {
                    account,
                    currency,
                    amount,
                }));
            }
            "withdraw" => {
                let account = self.named(must());
                let (amount, currency) = (money(must()), currency(must()));
                drop(self.act(&Command::Withdraw {
                    account,
                    currency,
                    amount,
                }));
            }
            "quote" => {
                let (symbol, bid, ask) = (symbol(must()), price(must()), price(must()));
                let mut quote = Quote {
                    symbol,
                    bid,
                    ask,
                    venue_time: self.now,
                    update_id: self.next_update,
                };
                while let Some(detail) = words.next() {
                    let value = words.next().unwrap_or_else(|| panic!("{detail} what? {line}"));
                    match detail {
                        "late" => quote.venue_time = later(self.now, -micros(value)),
                        "early" => quote.venue_time = later(self.now, micros(value)),
                        "id" => quote.update_id = value.parse().expect("an update id"),
                        _ => panic!("unknown detail {detail}: {line}"),
                    }
                }
                self.next_update = self.next_update.max(quote.update_id) + 1;
                self.observe(&quote);
            }
            "open" => {
                let account = self.named(must());
                let (symbol, side) = (symbol(must()), side(must()));
                let size = match (must(), must()) {
                    ("margin", text) => Size::Margin(money(text)),
                    ("quantity", text) => Size::Quantity(quantity(text)),
                    other => panic!("a size, not {other:?}: {line}"),
                };
                assert_eq!(must(), "leverage", "{line}");
                let leverage = Leverage::parse(must()).expect("leverage");
                let (mut stop_loss, mut take_profit, mut slippage) = (None, None, None);
                while let Some(detail) = words.next() {
                    let value = price(words.next().expect("a price"));
                    match detail {
                        "stop" => stop_loss = Some(value),
                        "take" => take_profit = Some(value),
                        "expect" => {
                            assert_eq!(words.next(), Some("within"), "{line}");
                            let deviation_max_bps = words.next().and_then(|bps| bps.parse().ok()).expect("bps");
                            slippage = Some(SlippageBound {
                                expected: value,
                                deviation_max_bps,
                            });
                        }
                        _ => panic!("unknown detail {detail}: {line}"),
                    }
                }
                let order = OpenTrade {
                    account,
                    symbol,
                    side,
                    size,
                    leverage,
                    stop_loss,
                    take_profit,
                    slippage,
                };
                drop(self.act(&Command::OpenTrade(order)));
            }
            "close" => {
                let account = self.named(must());
                let trade = trade(must());
                let portion = match (words.next(), words.next()) {
                    (None, None) => Portion::All,
                    (Some("quantity"), Some(text)) => Portion::Quantity(quantity(text)),
                    (Some("percent"), Some(text)) => Portion::Percent(Percent::parse(text).expect("a percentage")),
                    other => panic!("a portion, not {other:?}: {line}"),
                };
                drop(self.act(&Command::CloseTrade {
                    account,
                    trade,
                    portion,
                }));
            }
            "modify" => {
                let account = self.named(must());
                let trade = trade(must());
                let (mut stop_loss, mut take_profit, mut add_margin) = (Change::Keep, Change::Keep, None);
                while let Some(detail) = words.next() {
                    let value = words.next().unwrap_or_else(|| panic!("{detail} what? {line}"));
                    let change = || {
                        if value == "none" {
                            Change::Clear
                        } else {
                            Change::Set(price(value))
                        }
                    };
                    match detail {
                        "stop" => stop_loss = change(),
                        "take" => take_profit = change(),
                        "add" => add_margin = Some(money(value)),
                        _ => panic!("unknown detail {detail}: {line}"),
                    }
                }
                drop(self.act(&Command::ModifyTrade {
                    account,
                    trade,
                    stop_loss,
                    take_profit,
                    add_margin,
                }));
            }
            "instrument" => {
                let name = symbol(must());
                let known = self.state.instrument(&name).cloned();
                let mut changed = known.unwrap_or_else(|| instrument(name.as_str()));
                while let Some(parameter) = words.next() {
                    configure(&mut changed, parameter, words.next().expect("a value"));
                }
                drop(self.act(&Command::ConfigureInstrument(changed)));
            }
            "balance" => {
                let (id, currency) = (account(must()), currency(must()));
                let balance = |account| self.state.ledger_balance(&account, &currency);
                let (free, locked) = (
                    balance(LedgerAccount::Client(id.clone())),
                    balance(LedgerAccount::Margin(id.clone())),
                );
                self.outcomes
                    .push(format!("{id} has {free} {currency} free, {locked} locked"));
            }
            "own" => {
                let account = match must() {
                    "house" => LedgerAccount::House,
                    "fee" => LedgerAccount::Fee,
                    "cash" => LedgerAccount::Cash,
                    other => panic!("an own account, not {other}"),
                };
                let balance = self.state.ledger_balance(&account, &currency(must()));
                self.outcomes.push(format!("{account:?} has {balance}"));
            }
            "trades" => {
                let id = account(must());
                let open: Vec<String> = self.state.trades_of(&id).map(|it| format!("{}", it.id)).collect();
                self.outcomes.push(format!("{id} has open [{}]", open.join(" ")));
            }
            "trade" => {
                let id = trade(must());
                let told = self.state.trade(id).map(|it| {
                    let stops = format!("{} {}", or_none(it.stop_loss), or_none(it.take_profit));
                    let so_far = format!("paid {} earned {}", it.commission, it.realised_profit);
                    format!(
                        "trade {id}: {} of {} margin {} stops {stops} {so_far}",
                        it.quantity, it.opened_quantity, it.margin
                    )
                });
                self.outcomes
                    .push(told.unwrap_or_else(|| format!("trade {id} is not open")));
            }
            "summary" => {
                let (id, currency) = (account(must()), currency(must()));
                let told = summary(&self.state, &self.market, self.now, &id, &currency).map(|it| {
                    let level = it.margin_level.map_or("none".to_owned(), |level| level.to_string());
                    let profits: Vec<String> = (it.trades.iter())
                        .map(|it| {
                            format!(
                                "{}:{}",
                                it.trade,
                                it.unrealised_profit.map_or("?".to_owned(), |it| it.to_string())
                            )
                        })
                        .collect();
                    format!(
                        "{id}: balance {} equity {} used {} free {} level {level} profit {} [{}] from {} quotes",
                        it.balance,
                        it.equity,
                        it.used_margin,
                        it.free_margin,
                        it.unrealised_profit,
                        profits.join(" "),
                        it.quotes.len(),
                    )
                });
                self.outcomes.push(told.unwrap_or_else(|| format!("{id} is unknown")));
            }
            "freshness" => {
                let freshness = self.market.freshness(&self.state, self.now, &symbol(must()));
                self.outcomes.push(format!("{freshness:?}"));
            }
            other => panic!("unknown statement {other}: {line}"),
        }
    }

    fn wait(&mut self, time: &str) {
        self.now = later(self.now, micros(time));
    }

    /// The account of this name, with a wallet unless the name says no.
    fn named(&mut self, name: &str) -> AccountId {
        let id = account(name);
        if !name.starts_with("no") && self.state.account(&id).is_none() {
            self.act(&Command::InitializeWallet { account: id.clone() })
                .expect("a new name");
        }
        id
    }
}

fn told(event: &Event) -> String {
    match &event.kind {
        EventKind::InstrumentConfigured(it) => format!("{} configured", it.symbol),
        EventKind::WalletInitialized { account } => format!("{account} wallet opened"),
        EventKind::Deposited {
            account,
            currency,
            amount,
        } => format!("{account} deposited {amount} {currency}"),
        EventKind::Withdrawn {
            account,
            currency,
            amount,
        } => format!("{account} withdrew {amount} {currency}"),
        EventKind::TradeOpened { trade: it, quote: _ } => format!(
            "{} trade {} opened {} {} {} at {}, margin {}, liquidation {}{}",
            it.account,
            it.id,
            it.side,
            it.quantity,
            it.symbol,
            it.entry_price,
            it.margin,
            or_none(it.liquidation_price),
            or_nothing(", commission", it.commission),
        ),
        EventKind::TradeModified {
            account,
            trade,
            stop_loss,
            take_profit,
            margin,
            liquidation_price,
            ..
        } => format!(
            "{account} trade {trade} modified, stop {}, take {}, margin {margin}, liquidation {}",
            or_none(*stop_loss),
            or_none(*take_profit),
            or_none(*liquidation_price),
        ),
        EventKind::TradeReduced(it) => format!(
            "{} trade {} reduced by {} at {}, {}, leaves {} with margin {}, liquidation {}",
            it.account,
            it.trade,
            it.quantity,
            it.close_price,
            result(it),
            it.remaining_quantity.expect("a reduced trade has a rest"),
            it.remaining_margin,
            or_none(it.liquidation_price),
        ),
        EventKind::TradeClosed(it) => {
            let how = match it.reason {
                CloseReason::Client => "closed",
                CloseReason::StopLoss => "stopped",
                CloseReason::TakeProfit => "took profit",
                CloseReason::Liquidation => "liquidated",
            };
            format!(
                "{} trade {} {how} at {}, {}",
                it.account,
                it.trade,
                it.close_price,
                result(it)
            )
        }
    }
}

fn result(it: &TradeClosing) -> String {
    format!(
        "profit {}{}{}",
        it.realised_profit,
        or_nothing(", commission", it.commission),
        or_nothing(", house pays", it.house_covered),
    )
}

fn or_nothing(label: &str, amount: Money) -> String {
    if amount.is_zero() {
        String::new()
    } else {
        format!("{label} {amount}")
    }
}

fn or_none(price: Option<Price>) -> String {
    price.map_or("none".to_owned(), |price| price.to_string())
}

fn configure(it: &mut Instrument, parameter: &str, value: &str) {
    match parameter {
        "quote" => it.quote = currency(value),
        "tick" => it.tick = price(value),
        "step" => it.step = quantity(value),
        "quantity_min" => it.quantity_min = quantity(value),
        "quantity_max" => it.quantity_max = quantity(value),
        "leverage_min" => it.leverage_min = Leverage::parse(value).expect("leverage"),
        "leverage_max" => it.leverage_max = Leverage::parse(value).expect("leverage"),
        "leverage_step" => it.leverage_step = Leverage::parse(value).expect("leverage"),
        "margin_min" => it.margin_min = money(value),
        "markup" => it.spread_markup_bps = value.parse().expect("bps"),
        "maintenance" => it.maintenance_rate = Rate::parse(value).expect("a rate"),
        "commission" => it.commission_rate = Rate::parse(value).expect("a rate"),
        "soft" => it.stale_soft_us = micros(value),
        "hard" => it.stale_hard_us = micros(value),
        "band" => it.band_bps = value.parse().expect("bps"),
        "exposure" => it.exposure_max = money(value),
        "mode" => {
            it.mode = match value {
                "enabled" => TradingMode::Enabled,
                "close-only" => TradingMode::CloseOnly,
                "halted" => TradingMode::Halted,
                _ => panic!("a mode, not {value}"),
            }
        }
        _ => panic!("unknown parameter {parameter}"),
    }
}

pub fn later(at: Timestamp, micros: i64) -> Timestamp {
    at.checked_add_micros(micros).expect("a time")
}

pub fn account(text: &str) -> AccountId {
    AccountId::new(text).expect("an account id")
}

pub fn symbol(text: &str) -> Symbol {
    Symbol::new(text).expect("a symbol")
}

pub fn currency(text: &str) -> Currency {
    Currency::new(text).expect("a currency")
}

pub fn money(text: &str) -> Money {
    Money::parse(text).expect("an amount")
}

pub fn price(text: &str) -> Price {
    Price::parse(text).expect("a price")
}

pub fn quantity(text: &str) -> Quantity {
    Quantity::parse(text).expect("a quantity")
}

fn trade(text: &str) -> TradeId {
    TradeId::new(text.parse().expect("a trade number"))
}

fn side(text: &str) -> Side {
    match text {
        "long" => Side::Long,
        "short" => Side::Short,
        _ => panic!("a side, not {text}"),
    }
}

fn micros(text: &str) -> i64 {
    let (number, unit) = match text.strip_suffix("ms") {
        Some(number) => (number, 1_000),
        None => (text.strip_suffix('s').expect("a time such as 6s or 500ms"), 1_000_000),
    };
    number
        .parse::<i64>()
        .expect("a whole number of seconds or milliseconds")
        * unit
}
