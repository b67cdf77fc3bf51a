//! Every limit, held at its very edge: the largest that passes does, the next one does not. A comparison that is off by one shows here
//! and nowhere else.

use engine_core::number::{self, TEXT_LEN_MAX};
use engine_core::{
    AccountId, Command, Currency, Event, EventKind, Instrument, LedgerAccount, LedgerLine, Leverage, Market, Money,
    NumberError, Observation, OpenTrade, Percent, Price, Quantity, Quote, Rate, Refusal, Side, Size, State, StateHash,
    Symbol, Timestamp, TradeId, decide, default_instruments,
};

const NOW: i64 = 1_700_000_000_000_000;

fn sol() -> Instrument {
    let all = default_instruments();
    all.into_iter().find(|it| it.symbol.as_str() == "SOL_USDC").unwrap()
}

/// The field that is refused when an instrument is configured with this change.
fn refused(change: impl FnOnce(&mut Instrument)) -> Option<&'static str> {
    let mut it = sol();
    change(&mut it);
    let command = Command::ConfigureInstrument(it);
    match decide(&State::new(), &Market::new(), Timestamp::from_micros(NOW), &command) {
        Ok(events) => {
            assert_eq!(events.len(), 1);
            None
        }
        Err(Refusal::Invalid { field, .. }) => Some(field),
        Err(other) => panic!("{other}"),
    }
}

fn price(text: &str) -> Price {
    Price::parse(text).unwrap()
}

fn quantity(text: &str) -> Quantity {
    Quantity::parse(text).unwrap()
}

fn money(text: &str) -> Money {
    Money::parse(text).unwrap()
}

/// Tick, step and the two quantities; a step decides which quantities are on it.
fn grid(it: &mut Instrument, tick: &str, step: &str) {
    it.tick = price(tick);
    it.step = quantity(step);
    it.quantity_min = it.step;
    it.quantity_max = it.step;
}

#[test]
fn ticks_and_steps_have_a_largest_a_finest_and_a_largest_product() {
    for (tick, step, want) in [
        ("1000", "1", None),
        ("1000.1", "1", Some("tick")),
        ("2000", "1", Some("tick")),
        ("0.000000000001", "1", None),
        ("0.0000000000001", "1", Some("tick")),
        ("0.00000000000001", "1", Some("tick")),
        ("1", "1000", None),
        ("1", "1000.1", Some("step")),
        ("1", "2000", Some("step")),
        ("1", "0.0000000001", None),
        ("1", "0.00000000001", Some("step")),
        ("1", "0.000000000001", Some("step")),
        ("1000", "1000", None),
        ("999.9", "100.1", Some("step")),
        ("100.1", "999", None),
        ("100.1", "1000", Some("step")),
    ] {
        assert_eq!(refused(|it| grid(it, tick, step)), want, "tick {tick}, step {step}");
    }
}

#[test]
fn quantities_of_an_instrument_are_on_its_step_and_in_order() {
    let with = |least: &str, most: &str| {
        refused(|it| {
            it.quantity_min = quantity(least);
            it.quantity_max = quantity(most);
        })
    };
    assert_eq!(with("0.001", "10000000"), None, "ten billion steps");
    assert_eq!(with("0.001", "10000000.001"), Some("quantity_max"));
    assert_eq!(with("0.0015", "1"), Some("quantity_min"));
    assert_eq!(with("1", "1"), None);
    assert_eq!(with("1.001", "1"), Some("quantity_max"));
}

#[test]
fn leverage_and_rates_of_an_instrument_have_their_edges() {
    let leverage = |least: &str, most: &str, step: &str| {
        refused(|it| {
            it.leverage_min = Leverage::parse(least).unwrap();
            it.leverage_max = Leverage::parse(most).unwrap();
            it.leverage_step = Leverage::parse(step).unwrap();
        })
    };
    assert_eq!(leverage("1", "1000", "1"), None);
    assert_eq!(leverage("1", "1001", "1"), Some("leverage_max"));
    assert_eq!(leverage("1", "1000.1", "1"), Some("leverage_max"));
    assert_eq!(leverage("5", "5", "1"), None);
    assert_eq!(leverage("6", "5", "1"), Some("leverage_max"));
    assert_eq!(leverage("1", "5", "0.000001"), None);
    assert_eq!(leverage("1", "5", "0.0000001"), Some("leverage_max"));
    assert_eq!(leverage("1", "5", "0.00000001"), Some("leverage_max"));

    for (text, is_refused) in [
        ("0", false),
        ("0.999999", false),
        ("0.9999999", true),
        ("0.00000001", true),
        ("1", true),
        ("1.5", true),
    ] {
        let rate = Rate::parse(text).unwrap();
        let want = |field| is_refused.then_some(field);
        assert_eq!(
            refused(|it| it.maintenance_rate = rate),
            want("maintenance_rate"),
            "{text}"
        );
        assert_eq!(
            refused(|it| it.commission_rate = rate),
            want("commission_rate"),
            "{text}"
        );
    }
}

#[test]
fn amounts_ages_markup_and_band_of_an_instrument_have_their_edges() {
    for (amount, is_refused) in [("0.01", false), ("0", true), ("-1", true), ("0.001", true)] {
        let want = |field| is_refused.then_some(field);
        assert_eq!(
            refused(|it| it.margin_min = money(amount)),
            want("margin_min"),
            "{amount}"
        );
        assert_eq!(
            refused(|it| it.exposure_max = money(amount)),
            want("exposure_max"),
            "{amount}"
        );
    }
    assert_eq!(refused(|it| it.spread_markup_bps = 10_000), None);
    assert_eq!(refused(|it| it.spread_markup_bps = 10_001), Some("spread_markup_bps"));
    assert_eq!(refused(|it| it.band_bps = 1), None);
    assert_eq!(refused(|it| it.band_bps = 0), Some("band_bps"));
    let ages = |soft: i64, hard: i64| {
        refused(|it| {
            it.stale_soft_us = soft;
            it.stale_hard_us = hard;
        })
    };
    assert_eq!(ages(1, 1), None);
    assert_eq!(ages(0, 1), Some("stale_soft_us"));
    assert_eq!(ages(-1, 1), Some("stale_soft_us"));
    assert_eq!(ages(2, 1), Some("stale_hard_us"));
}

/// The quote that is there is brought onto a grid that changed since it came.
#[test]
fn a_changed_tick_holds_for_the_quote_that_is_there() {
    let (mut state, mut market, account) = wallet();
    let at = Timestamp::from_micros(NOW);
    let quote = Quote {
        symbol: Symbol::new("SOL_USDC").unwrap(),
        bid: price("100.01"),
        ask: price("100.02"),
        venue_time: at,
        update_id: 1,
    };
    assert_eq!(market.observe(&state, at, &quote), Observation::Accepted);
    let mut entry_at = |tick: &str| {
        let mut coarse = sol();
        coarse.tick = price(tick);
        for event in decide(&state, &market, at, &Command::ConfigureInstrument(coarse)).unwrap() {
            state.apply(at, &event);
        }
        let events = decide(&state, &market, at, &Command::OpenTrade(long(&account, "1"))).unwrap();
        let opened = events.iter().find_map(|event| match &event.kind {
            EventKind::TradeOpened { trade, .. } => Some(trade.entry_price.to_string()),
            _ => None,
        });
        opened.unwrap()
    };
    assert_eq!(entry_at("0.01"), "100.02");
    assert_eq!(entry_at("0.5"), "100.5");
}

fn long(account: &AccountId, text: &str) -> OpenTrade {
    OpenTrade {
        account: account.clone(),
        symbol: Symbol::new("SOL_USDC").unwrap(),
        side: Side::Long,
        size: Size::Quantity(quantity(text)),
        leverage: Leverage::parse("1").unwrap(),
        stop_loss: None,
        take_profit: None,
        slippage: None,
    }
}

/// A state with SOL_USDC and a wallet, and its market.
fn wallet() -> (State, Market, AccountId) {
    let (mut state, market, at) = (State::new(), Market::new(), Timestamp::from_micros(NOW));
    let account = AccountId::new("demo").unwrap();
    for command in [
        Command::ConfigureInstrument(sol()),
        Command::InitializeWallet {
            account: account.clone(),
        },
    ] {
        for event in decide(&state, &market, at, &command).unwrap() {
            state.apply(at, &event);
        }
    }
    (state, market, account)
}

#[test]
fn the_largest_amount_is_a_million_millions() {
    let (state, market, account) = wallet();
    let deposit = |text: &str| {
        let command = Command::Deposit {
            account: account.clone(),
            currency: Currency::new("USDC").unwrap(),
            amount: money(text),
        };
        decide(&state, &market, Timestamp::from_micros(NOW), &command).is_ok()
    };
    assert!(deposit("1000000000000"));
    assert!(!deposit("1000000000000.01"));
}

#[test]
fn all_that_is_free_may_be_added_to_a_trade() {
    crate::story::check(
        "quote SOL_USDC 199.98 200
         open demo SOL_USDC long margin 100 leverage 10
         modify demo 1 add 4900.01
         modify demo 1 add 4900",
        "refused INSUFFICIENT_MARGIN: needs 4900.01 USDC, 4900 is free
         demo trade 1 modified",
    );
}

#[test]
fn the_largest_quantity_may_be_opened() {
    let (mut state, mut market, account) = wallet();
    let at = Timestamp::from_micros(NOW);
    let mut small = sol();
    small.quantity_max = quantity("5");
    for event in decide(&state, &market, at, &Command::ConfigureInstrument(small)).unwrap() {
        state.apply(at, &event);
    }
    let quote = Quote {
        symbol: Symbol::new("SOL_USDC").unwrap(),
        bid: price("100"),
        ask: price("100.02"),
        venue_time: at,
        update_id: 1,
    };
    assert_eq!(market.observe(&state, at, &quote), Observation::Accepted);
    let opens = |size: Size| {
        let order = OpenTrade {
            size,
            ..long(&account, "1")
        };
        decide(&state, &market, at, &Command::OpenTrade(order)).is_ok()
    };
    assert!(opens(Size::Quantity(quantity("5"))));
    assert!(!opens(Size::Quantity(quantity("5.001"))));
    assert!(opens(Size::Margin(money("500.1"))));
    assert!(!opens(Size::Margin(money("500.21"))));
}

#[test]
fn a_quote_may_be_two_seconds_ahead_and_as_old_as_the_hard_age() {
    let (state, ..) = wallet();
    let observed = |ahead_us: i64| {
        let quote = Quote {
            symbol: Symbol::new("SOL_USDC").unwrap(),
            bid: price("100"),
            ask: price("100.02"),
            venue_time: Timestamp::from_micros(NOW + ahead_us),
            update_id: 1,
        };
        Market::new().observe(&state, Timestamp::from_micros(NOW), &quote)
    };
    let hard = sol().stale_hard_us;
    assert_eq!(observed(2_000_000), Observation::Accepted);
    assert_eq!(observed(2_000_001), Observation::Future);
    assert_eq!(observed(-hard), Observation::Accepted);
    assert_eq!(observed(-hard - 1), Observation::TooOld);
}

#[test]
fn an_age_is_never_below_zero() {
    let at = Timestamp::from_micros;
    assert_eq!(at(7).age_us_since(at(5)), 2);
    assert_eq!(at(5).age_us_since(at(5)), 0);
    assert_eq!(at(5).age_us_since(at(7)), 0);
    assert_eq!(at(i64::MIN).age_us_since(at(i64::MAX)), 0);
}

#[test]
fn a_number_has_a_longest_text() {
    let longest = format!("0.{}", "0".repeat(TEXT_LEN_MAX - 2));
    // Too fine to be held, but looked at; with one more it is not.
    assert_eq!(number::parse(&longest), Err(NumberError::TooManyDigits));
    let malformed = "x".repeat(TEXT_LEN_MAX);
    assert_eq!(number::parse(&malformed), Err(NumberError::Malformed));
    for more in [1, 2, 1_000_000] {
        let longer = "x".repeat(TEXT_LEN_MAX + more);
        assert_eq!(number::parse(&longer), Err(NumberError::TooManyDigits));
    }
}

#[test]
fn an_event_is_balanced_in_each_of_its_currencies() {
    let line = |account: LedgerAccount, currency: &str, amount: &str| LedgerLine {
        account,
        currency: Currency::new(currency).unwrap(),
        amount: money(amount),
    };
    let balanced = |lines: Vec<LedgerLine>| {
        let kind = EventKind::WalletInitialized {
            account: AccountId::new("demo").unwrap(),
        };
        Event { kind, lines }.is_balanced()
    };
    use LedgerAccount::{Cash, Fee, House};
    assert!(balanced(vec![]));
    assert!(balanced(vec![line(House, "USDC", "0")]));
    assert!(balanced(vec![line(House, "USDC", "5"), line(Cash, "USDC", "-5")]));
    assert!(balanced(vec![
        line(House, "USDC", "5"),
        line(House, "SOL", "2"),
        line(Fee, "USDC", "-4"),
        line(Cash, "SOL", "-2"),
        line(Cash, "USDC", "-1"),
    ]));
    assert!(!balanced(vec![line(House, "USDC", "5")]), "made out of nothing");
    assert!(!balanced(vec![line(House, "USDC", "5"), line(Cash, "USDC", "-4.99")]));
    assert!(
        !balanced(vec![
            line(House, "USDC", "5"),
            line(Cash, "USDC", "-5"),
            line(House, "SOL", "0.00000001"),
        ]),
        "the second currency counts too"
    );
    assert!(
        !balanced(vec![line(House, "USDC", "5"), line(Cash, "SOL", "-5")]),
        "currencies do not make up for each other"
    );
    assert!(
        !balanced(vec![
            line(House, "USDC", "0"),
            line(House, "SOL", "3"),
            line(Cash, "SOL", "-2"),
        ]),
        "nothing in the first excuses nothing in the second"
    );
    let most = "79228162514264337593543950335";
    assert!(
        !balanced(vec![line(House, "USDC", most), line(House, "USDC", most)]),
        "a sum that is none is not zero"
    );
}

#[test]
fn what_is_shown_to_people_says_something() {
    assert_eq!(format!("{:?}", TradeId::new(7)), "#7");
    assert_eq!(Percent::parse("12.50").unwrap().to_string(), "12.5");
    assert_eq!(Timestamp::from_micros(7).to_string(), "7us");
    let state = State::new();
    let shown = format!("{state:?}");
    assert!(
        shown.contains(&state.hash().to_string()) && shown.contains("accounts: 0"),
        "{shown}"
    );
    assert_eq!(StateHash::new(7).get(), 7);
    assert_eq!(StateHash::new(7).to_string(), "00000000000000000000000000000007");
}

#[test]
fn accounts_are_listed_in_the_order_of_their_wallets() {
    let (mut state, market, _) = wallet();
    let at = Timestamp::from_micros(NOW);
    for name in ["zoe", "adam"] {
        let account = AccountId::new(name).unwrap();
        for event in decide(&state, &market, at, &Command::InitializeWallet { account }).unwrap() {
            state.apply(at, &event);
        }
    }
    let listed: Vec<&str> = state.accounts().map(|account| account.id.as_str()).collect();
    assert_eq!(listed, ["demo", "zoe", "adam"]);
}
