//! Published numbers, recomputed. Each row names its source; where a source rounds, so does the comparison. The labels
//! V1, V2 and so on only tell the rows apart.

use engine_core::Side::{self, Long, Short};
use engine_core::formula::{
    liquidation_price, liquidation_price_from_entry, liquidation_price_with_fee, maintenance_amount, profit,
};
use rust_decimal::{Decimal, RoundingStrategy};

fn d(text: &str) -> Decimal {
    engine_core::number::parse(text).expect("a number")
}

/// Equal after rounding to as many decimals as the published figure has.
#[track_caller]
fn assert_published(name: &str, computed: Option<Decimal>, published: &str) {
    let published = d(published);
    let computed = computed.expect("within range");
    let rounded = computed.round_dp_with_strategy(published.scale(), RoundingStrategy::MidpointNearestEven);
    assert_eq!(rounded, published, "{name}: computed {computed}");
}

#[test]
fn liquidation_prices_with_a_maintenance_amount() {
    // Binance's worked examples (support FAQ b3c689c1f50a44cabb3a84e663b81d93), as asserted by freqtrade,
    // tests/exchange/test_binance.py, test_liquidation_price_binance, commit c9ae5e1.
    for (name, entry, quantity, wallet, rate, cum, published) in [
        (
            "V1 ETH long",
            "1456.84",
            "3683.979",
            "1535443.01",
            "0.1",
            "135365",
            "1114.78",
        ),
        (
            "V2 BTC long",
            "32481.98",
            "109.488",
            "1535443.01",
            "0.025",
            "16300",
            "18778.73",
        ),
    ] {
        let price = liquidation_price(Long, d(entry), d(quantity), d(wallet), d(rate), d(cum));
        assert_published(name, price, published);
    }
}

#[test]
fn liquidation_prices_of_one_contract() {
    // freqtrade, tests/exchange/test_exchange.py, test_get_liquidation_price, commit c9ae5e1: maintenance rate 0.01,
    // maintenance amount 0.01, quantity 1, wallet = entry ÷ leverage. The published figures are doubles.
    for (name, side, entry, leverage, published) in [
        ("V5", Short, "10", "5", "11.89108910891089"),
        ("V6", Short, "10", "3", "13.21122112207921"),
        ("V7", Short, "8", "5", "9.51485148514851"),
        ("V9", Long, "10", "5", "8.07070707070707"),
        ("V10", Long, "8", "5", "6.45454545454545"),
        ("V11", Long, "10", "3", "6.72390572390572"),
    ] {
        let wallet = d(entry) / d(leverage);
        let price = liquidation_price(side, d(entry), Decimal::ONE, wallet, d("0.01"), d("0.01"));
        assert_close(name, price, published);
    }
}

/// Within 1e-10 of the published figure. Its source compares with a tolerance of 1e-6, and V6 is 3e-11 off its formula.
#[track_caller]
fn assert_close(name: &str, computed: Option<Decimal>, published: &str) {
    let computed = computed.expect("within range");
    let apart = (computed - d(published)).abs();
    assert!(
        apart <= d("0.0000000001"),
        "{name}: computed {computed}, published {published}"
    );
}

#[test]
fn liquidation_prices_with_a_closing_fee() {
    // OKX and Gate, as asserted by freqtrade in the same test: taker fee 0.0006, maintenance rate 0.01.
    for (name, side, entry, leverage, published) in [
        ("V13", Short, "10", "5", "11.87413417771621"),
        ("V14", Short, "10", "3", "13.19348241968468"),
        ("V15", Short, "8", "5", "9.49930734217297"),
        ("V16", Long, "10", "5", "8.08570851020821"),
        ("V17", Long, "10", "3", "6.73809042517351"),
    ] {
        let wallet = d(entry) / d(leverage);
        let price = liquidation_price_with_fee(side, d(entry), Decimal::ONE, wallet, d("0.01"), d("0.0006"));
        assert_close(name, price, published);
    }
}

#[test]
fn liquidation_prices_from_the_entry() {
    // V18: Bybit's entry form, no fee, maintenance rate 1 %, entry 10, as asserted by freqtrade. The third of each is
    // cut, not rounded, in the table: 6.7666… and 13.2333….
    for (side, leverage, published) in [
        (Long, "1", "0.1"),
        (Long, "3", "6.76666667"),
        (Long, "5", "8.1"),
        (Long, "10", "9.1"),
        (Short, "1", "19.9"),
        (Short, "3", "13.23333333"),
        (Short, "5", "11.9"),
        (Short, "10", "10.9"),
    ] {
        let price = liquidation_price_from_entry(side, d("10"), d(leverage), d("0.01"));
        assert_published(&format!("V18 {side} {leverage}x"), price, published);
    }
    // V19: testnet.bybit.com help, Liquidation-Price-USDT-Contract: 1 BTC at 20,000, 50x, 0.5 %; bankruptcy at 10,000.
    let initial = d("20000") / d("50");
    assert_eq!((initial, d("20000") * d("0.005")), (d("400"), d("100")));
    assert_published(
        "V19",
        liquidation_price_from_entry(Long, d("20000"), d("50"), d("0.005")),
        "19700",
    );
    assert_published(
        "V19",
        liquidation_price_from_entry(Long, d("10000"), d("50"), Decimal::ZERO),
        "9800",
    );
    // V21: docs.dydx.exchange, concepts/trading/liquidations: short 3 ETH, equity 1,000 at oracle price 3,000, 5 %:
    // the general form with the equity at that price as margin.
    let price = liquidation_price(Short, d("3000"), d("3"), d("1000"), d("0.05"), Decimal::ZERO);
    assert_published("V21", price, "3174.60");
}

#[test]
fn maintenance_amounts_have_no_jump_between_tiers() {
    // V23: exchange brackets.
    let tiers = [
        ("0", "0.025", "0"),
        ("100000", "0.05", "2500"),
        ("500000", "0.1", "27500"),
        ("1000000", "0.15", "77500"),
        ("2000000", "0.25", "277500"),
        ("5000000", "0.5", "1527500"),
    ];
    let (mut amount, mut before) = (Decimal::ZERO, d("0.025"));
    for (floor, rate, published) in tiers {
        amount = maintenance_amount(amount, d(floor), d(rate), before).expect("within range");
        before = d(rate);
        assert_eq!(amount, d(published), "tier from {floor}");
    }
    // V25: Binance COIN-M example.
    assert_eq!(
        maintenance_amount(d("0.56"), d("50"), d("0.05"), d("0.025")),
        Some(d("1.81"))
    );
}

#[test]
fn profits() {
    for (name, side, quantity, entry, price, published) in [
        // V62, V63: nautilus_trader, position tests, commit a95c804.
        ("V62", Long, "12", "10500", "10510", "120"),
        ("V63", Long, "12", "10500", "10480.5", "-234"),
        ("V63", Short, "10.15", "10500", "10390", "1116.5"),
        ("V63", Short, "10", "10500", "10670.5", "-1705"),
        // V67: MQL5 examples: EURJPY 1 lot, XAUUSD 1 lot.
        ("V67", Long, "100000", "155", "156", "100000"),
        ("V67", Long, "100", "2500", "2510", "1000"),
        // V72: the raw figures behind `faults::a_balance_never_goes_below_zero`, before protection caps them.
        ("V72", Long, "500", "100", "90", "-5000"),
    ] {
        assert_eq!(
            profit(side, d(entry), d(price), d(quantity)),
            Some(d(published)),
            "{name}"
        );
    }
    // V59: freqtrade test_calc_profit, 30 units, entry 2.0, 0.25 % at each side.
    for (close, published) in [("2.1", "2.6925"), ("1.9", "-3.2925"), ("2.2", "5.685")] {
        let fees = d("30") * (d("2") + d(close)) * d("0.0025");
        let net = profit(Long, d("2"), d(close), d("30")).map(|gross| gross - fees);
        assert_eq!(net, Some(d(published)), "V59 at {close}");
    }
    // V56: barter-rs: long 10 at 100, closed at 150, fees 5.
    assert_eq!(
        profit(Long, d("100"), d("150"), d("10")).map(|gross| gross - d("5")),
        Some(d("495"))
    );
}

#[test]
fn the_exact_liquidation_tick_is_the_textbook_price_brought_onto_the_grid() {
    let cases: [(Side, &str, &str, &str, &str); 6] = [
        (Long, "200", "5", "100", "0"),
        (Long, "200.02", "4.999", "100", "0"),
        (Long, "200.02", "4.999", "100", "0.005"),
        (Short, "199.98", "5", "100", "0"),
        (Short, "199.98", "5", "100", "0.005"),
        (Short, "61234.56", "0.123", "75.33", "0.004"),
    ];
    for (side, entry, quantity, margin, rate) in cases {
        let (tick, step) = (d("0.01"), d("0.001"));
        let position = engine_core::formula::Position {
            side,
            entry_ticks: engine_core::grid::exact(d(entry), tick).expect("on the tick"),
            steps: engine_core::grid::exact(d(quantity), step).expect("on the step"),
            tick,
            step,
            margin: engine_core::Money::new(d(margin)),
            maintenance_rate: d(rate),
        };
        let textbook =
            liquidation_price(side, d(entry), d(quantity), d(margin), d(rate), Decimal::ZERO).expect("in range");
        let on_grid = match side {
            Long => engine_core::grid::floor(textbook, tick),
            Short => engine_core::grid::ceil(textbook, tick),
        };
        assert_eq!(
            engine_core::formula::liquidation_ticks(&position),
            Ok(on_grid),
            "{side} {quantity} at {entry}"
        );
    }
}
