//! Every refusal, and what it says. A refusal changes nothing, which the harness checks after each.

use crate::story::check;

#[test]
fn unknown_things_are_not_found() {
    check(
        "quote SOL_USDC 199.98 200
         deposit nobody 1 USDC
         withdraw nobody 1 USDC
         open nobody SOL_USDC long quantity 5 leverage 10
         close nobody 1
         modify nobody 1 stop none
         open demo DOGE_USDC long quantity 5 leverage 10
         deposit demo 1 DOGE
         close demo 1",
        "refused ACCOUNT_NOT_FOUND: account nobody has no wallet: initialize one first
         refused ACCOUNT_NOT_FOUND
         refused ACCOUNT_NOT_FOUND
         refused ACCOUNT_NOT_FOUND
         refused ACCOUNT_NOT_FOUND
         demo wallet opened
         refused SYMBOL_UNKNOWN: DOGE_USDC is not an instrument here: list the instruments to see which are
         refused CURRENCY_UNKNOWN: DOGE is not a currency held here: list the balances to see which are
         refused TRADE_NOT_FOUND: this account has no trade 1: list its trades to see which are open",
    );
}

#[test]
fn anothers_trade_is_not_found() {
    check(
        "quote SOL_USDC 199.98 200
         open alice SOL_USDC long quantity 5 leverage 10
         close mallory 1
         modify mallory 1 stop none
         close alice 1
         close mallory 1
         close alice 1",
        "mallory wallet opened
         refused TRADE_NOT_FOUND
         refused TRADE_NOT_FOUND
         alice trade 1 closed at 199.98
         refused TRADE_NOT_FOUND
         refused TRADE_CLOSED: trade 1 is closed already: its result is in the history",
    );
}

#[test]
fn a_trade_closed_by_a_trigger_is_told_closed() {
    check(
        "quote SOL_USDC 199.98 200
         open demo SOL_USDC long margin 100 leverage 10
         quote SOL_USDC 180 180.02
         close demo 1
         modify demo 1 add 10",
        "refused TRADE_CLOSED
         refused TRADE_CLOSED",
    );
}

#[test]
fn margin_and_commission_must_both_be_free() {
    check(
        "instrument SOL_USDC commission 0.001
         quote SOL_USDC 199.98 200
         open demo SOL_USDC long margin 5000 leverage 1
         open demo SOL_USDC long margin 4990 leverage 2
         open demo SOL_USDC long margin 4990 leverage 1",
        "refused INSUFFICIENT_MARGIN: needs 5005 USDC, 5000 is free
         demo trade 1 opened long 49.9 SOL_USDC at 200, margin 4990, liquidation 100, commission 9.98
         refused INSUFFICIENT_MARGIN: needs 4994.99 USDC, 0.02 is free",
    );
}

#[test]
fn no_price_no_trade() {
    check(
        "open demo SOL_USDC long quantity 5 leverage 10",
        "refused STALE_PRICE: there is no price for SOL_USDC yet: retry shortly",
    );
}

#[test]
fn leverage_has_a_range_and_a_step() {
    check(
        "quote SOL_USDC 199.98 200
         open demo SOL_USDC long quantity 5 leverage 101
         open demo SOL_USDC long quantity 5 leverage 0.5
         open demo SOL_USDC long quantity 5 leverage 2.5",
        "refused INVALID_ARGUMENT: leverage: must be from 1 to 100
         refused INVALID_ARGUMENT: leverage: must be from 1 to 100
         refused INVALID_ARGUMENT: leverage: must be a multiple of 1",
    );
}

#[test]
fn a_leverage_that_the_spread_would_eat_is_refused() {
    check(
        "quote SOL_USDC 190 200
         open demo SOL_USDC long quantity 5 leverage 20
         open demo SOL_USDC long quantity 5 leverage 19",
        "refused INVALID_ARGUMENT: leverage: is so high that the trade would be liquidated at once, at 190: use less leverage
         demo trade 1 opened long 5 SOL_USDC at 200, margin 52.63",
    );
}

#[test]
fn amounts_have_the_currencys_decimals_and_are_positive() {
    check(
        "quote SOL_USDC 199.98 200
         deposit demo 0 USDC
         deposit demo -1 USDC
         withdraw demo -1 USDC
         deposit demo 0.001 USDC
         deposit demo 0.000000001 BTC
         deposit demo 1000000000001 USDC
         open demo SOL_USDC long margin 0 leverage 10
         open demo SOL_USDC long margin 100.005 leverage 10
         open demo SOL_USDC long margin 0.99 leverage 10
         open demo SOL_USDC long quantity 0.01 leverage 10
         deposit demo 1.500 USDC",
        "refused INVALID_ARGUMENT: amount: must be greater than zero
         refused INVALID_ARGUMENT: amount: must be greater than zero
         refused INVALID_ARGUMENT: amount: must be greater than zero
         refused INVALID_ARGUMENT: amount: has more than 2 decimals, which USDC does not keep
         refused INVALID_ARGUMENT: amount: has more than 8 decimals, which BTC does not keep
         refused INVALID_ARGUMENT: amount: is too large or has too many decimals to be exact
         refused INVALID_ARGUMENT: margin: must be greater than zero
         refused INVALID_ARGUMENT: margin: has more than 2 decimals, which USDC does not keep
         refused INVALID_ARGUMENT: margin: makes a margin of 0.99, the least is 1
         refused INVALID_ARGUMENT: quantity: makes a margin of 0.2, the least is 1
         demo deposited 1.5 USDC",
    );
}

#[test]
fn quantities_have_a_range_and_a_step() {
    check(
        "instrument SOL_USDC quantity_min 0.01 quantity_max 10 margin_min 0.01
         quote SOL_USDC 199.98 200
         open demo SOL_USDC long quantity 0.009 leverage 10
         open demo SOL_USDC long quantity 10.001 leverage 10
         open demo SOL_USDC long quantity 1.0005 leverage 10
         open demo SOL_USDC long margin 0.1 leverage 10
         open demo SOL_USDC long margin 300 leverage 10",
        "refused INVALID_ARGUMENT: quantity: must be from 0.01 to 10
         refused INVALID_ARGUMENT: quantity: must be from 0.01 to 10
         refused INVALID_ARGUMENT: quantity: must be a multiple of 0.001
         refused INVALID_ARGUMENT: margin: buys 0.005 at 200, which must be from 0.01 to 10
         refused INVALID_ARGUMENT: margin: buys 15 at 200, which must be from 0.01 to 10",
    );
}

#[test]
fn stops_must_be_on_the_tick_and_on_their_side() {
    check(
        "quote SOL_USDC 199 200
         open demo SOL_USDC long quantity 5 leverage 10 stop 190.005
         open demo SOL_USDC long quantity 5 leverage 10 take 210.005
         open demo SOL_USDC long quantity 5 leverage 10 stop 199
         open demo SOL_USDC long quantity 5 leverage 10 take 199
         open demo SOL_USDC short quantity 5 leverage 10 stop 200
         open demo SOL_USDC short quantity 5 leverage 10 take 200
         open demo SOL_USDC long quantity 5 leverage 10 stop 179.99
         open demo SOL_USDC short quantity 5 leverage 10 stop 218.91
         open demo SOL_USDC long quantity 5 leverage 10 stop 198.99 take 199.01",
        "refused INVALID_ARGUMENT: stop_loss: must be a multiple of the tick 0.01
         refused INVALID_ARGUMENT: take_profit: must be a multiple of the tick 0.01
         refused INVALID_ARGUMENT: stop_loss: must be below the price it closes at, 199 now, or it would fire at once
         refused INVALID_ARGUMENT: take_profit: must be above the price it closes at, 199 now, or it would fire at once
         refused INVALID_ARGUMENT: stop_loss: must be above the price it closes at, 200 now, or it would fire at once
         refused INVALID_ARGUMENT: take_profit: must be below the price it closes at, 200 now, or it would fire at once
         refused INVALID_ARGUMENT: stop_loss: is beyond the liquidation price 180, so it would never fire
         refused INVALID_ARGUMENT: stop_loss: is beyond the liquidation price 218.9, so it would never fire
         demo trade 1 opened",
    );
}

#[test]
fn a_modification_must_modify_and_must_be_possible() {
    check(
        "quote SOL_USDC 199 200
         open demo SOL_USDC long quantity 5 leverage 10
         modify demo 1
         modify demo 1 add 0
         modify demo 1 add 1.001
         modify demo 1 add 4900.01
         modify demo 1 stop 199
         modify demo 1 take 198.5
         modify demo 1 stop 0.001
         trade 1",
        "refused INVALID_ARGUMENT: trade: nothing to change was given
         refused INVALID_ARGUMENT: add_margin: must be greater than zero
         refused INVALID_ARGUMENT: add_margin: has more than 2 decimals
         refused INSUFFICIENT_MARGIN: needs 4900.01 USDC, 4900 is free
         refused INVALID_ARGUMENT: stop_loss: must be below the price it closes at
         refused INVALID_ARGUMENT: take_profit: must be above the price it closes at
         refused INVALID_ARGUMENT: stop_loss: must be a multiple of the tick 0.01
         trade 1: 5 of 5 margin 100 stops none none paid 0 earned 0",
    );
}

#[test]
fn a_partial_close_leaves_something_tradable_or_nothing() {
    check(
        "instrument SOL_USDC quantity_min 1
         quote SOL_USDC 199.98 200
         open demo SOL_USDC long quantity 5 leverage 10
         close demo 1 quantity 4.5
         close demo 1 quantity 0.5
         close demo 1 quantity 5.001
         close demo 1 quantity 2.0005
         close demo 1 percent 0.01
         close demo 1 percent 90
         trade 1",
        "refused INVALID_ARGUMENT: quantity: leaves 0.5 open, the least is 1: close all of it or less of it
         refused INVALID_ARGUMENT: quantity: closes 0.5, the least is 1: close more
         refused INVALID_ARGUMENT: quantity: is more than the 5 that is open
         refused INVALID_ARGUMENT: quantity: must be a multiple of 0.001
         refused INVALID_ARGUMENT: percent: closes 0, the least is 1: close more
         refused INVALID_ARGUMENT: percent: leaves 0.5 open, the least is 1
         trade 1: 5 of 5",
    );
}

#[test]
fn a_partial_close_may_not_leave_a_trade_without_a_cent() {
    // Two thirds of one cent of margin are, rounded, the whole cent.
    check(
        "instrument SOL_USDC margin_min 0.01 step 1 quantity_min 1 tick 0.0001
         quote SOL_USDC 0.3333 0.3334
         open demo SOL_USDC long quantity 3 leverage 100
         close demo 1 quantity 2
         close demo 1 quantity 1",
        "demo trade 1 opened long 3 SOL_USDC at 0.3334, margin 0.01
         refused INVALID_ARGUMENT: portion: leaves 1 open, the least is 1: close all of it or less of it
         demo trade 1 reduced by 1 at 0.3333, profit 0, leaves 2 with margin 0.01",
    );
}

#[test]
fn exposure_has_a_limit_per_account_and_instrument() {
    check(
        "instrument SOL_USDC exposure 2000
         quote SOL_USDC 199.98 200
         quote BTC_USDC 60000 60001
         open demo SOL_USDC long quantity 6 leverage 10
         open demo SOL_USDC short quantity 5 leverage 10
         open demo BTC_USDC long quantity 0.1 leverage 10
         open other SOL_USDC long quantity 10 leverage 10
         close demo 1 quantity 2
         open demo SOL_USDC short quantity 6 leverage 10
         close demo 1
         open demo SOL_USDC short quantity 4 leverage 10
         open demo SOL_USDC long quantity 0.1 leverage 1",
        "refused MAX_EXPOSURE_REACHED: open notional in SOL_USDC would be 2199.9, the limit is 2000: close a trade or open a smaller one
         demo trade 2 opened
         other wallet opened
         other trade 3 opened
         demo trade 1 reduced by 2
         demo trade 4 opened
         demo trade 1 closed
         demo trade 5 opened
         refused MAX_EXPOSURE_REACHED: open notional in SOL_USDC would be 2019.8, the limit is 2000",
    );
}

#[test]
fn an_instrument_must_make_sense() {
    for (change, refusal) in [
        ("quote DOGE", "refused CURRENCY_UNKNOWN"),
        (
            "tick 0.0000000000001",
            "refused INVALID_ARGUMENT: tick: is too large or has too many decimals to be exact",
        ),
        (
            "step 0.00000000001",
            "refused INVALID_ARGUMENT: step: is too large or has too many decimals to be exact",
        ),
        (
            "tick 0.123456 step 1.234567",
            "refused INVALID_ARGUMENT: step: has too many significant digits for this tick",
        ),
        (
            "quantity_min 0.0005",
            "refused INVALID_ARGUMENT: quantity_min: must be a multiple of 0.001",
        ),
        (
            "quantity_max 99999999999",
            "refused INVALID_ARGUMENT: quantity_max: is too large",
        ),
        (
            "quantity_min 2 quantity_max 1",
            "refused INVALID_ARGUMENT: quantity_max: must not be less than quantity_min",
        ),
        (
            "leverage_min 200",
            "refused INVALID_ARGUMENT: leverage_max: must not be less than leverage_min",
        ),
        (
            "leverage_max 1001",
            "refused INVALID_ARGUMENT: leverage_max: is too large",
        ),
        (
            "maintenance 1",
            "refused INVALID_ARGUMENT: maintenance_rate: must be less than one",
        ),
        (
            "commission 0.0000001",
            "refused INVALID_ARGUMENT: commission_rate: is too large or has too many decimals",
        ),
        (
            "margin_min 0",
            "refused INVALID_ARGUMENT: margin_min: must be greater than zero",
        ),
        (
            "exposure 0.001",
            "refused INVALID_ARGUMENT: exposure_max: has more than 2 decimals",
        ),
        (
            "markup 10001",
            "refused INVALID_ARGUMENT: spread_markup_bps: is too large",
        ),
        (
            "soft 0s",
            "refused INVALID_ARGUMENT: stale_soft_us: must be greater than zero",
        ),
        (
            "soft 31s",
            "refused INVALID_ARGUMENT: stale_hard_us: must not be less than stale_soft_us",
        ),
        (
            "band 0",
            "refused INVALID_ARGUMENT: band_bps: must be greater than zero",
        ),
    ] {
        let outcome = crate::story::play(&format!("instrument SOL_USDC {change}"))
            .outcomes
            .join("\n");
        assert!(outcome.starts_with(refusal), "{change}: {outcome}");
    }
}

#[test]
fn the_grid_of_an_instrument_stands_while_trades_are_open() {
    check(
        "quote SOL_USDC 199.98 200
         open demo SOL_USDC long quantity 5 leverage 10
         instrument SOL_USDC tick 0.05
         instrument SOL_USDC step 0.01 quantity_min 0.01
         instrument SOL_USDC quote BTC
         instrument SOL_USDC maintenance 0.01 commission 0.001
         close demo 1
         instrument SOL_USDC tick 0.05
         open demo SOL_USDC long quantity 5 leverage 10 stop 199.9",
        "refused INVALID_ARGUMENT: tick: cannot change while trades are open in it (1 now)
         refused INVALID_ARGUMENT: step: cannot change while trades are open in it (1 now)
         refused INVALID_ARGUMENT: quote: cannot change while trades are open in it (1 now)
         SOL_USDC configured
         demo trade 1 closed
         SOL_USDC configured
         demo trade 2 opened long 5 SOL_USDC at 200",
    );
}
