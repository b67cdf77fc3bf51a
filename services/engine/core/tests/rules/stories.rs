//! What is allowed, and what comes of it.

use crate::story::check;

#[test]
fn a_tenfold_long_is_liquidated_by_a_ten_percent_fall() {
    check(
        "quote SOL_USDC 200 200.02
         deposit demo 100 USDC
         open demo SOL_USDC long margin 100 leverage 10
         quote SOL_USDC 180 180.02",
        "demo trade 1 liquidated at 180",
    );
}

#[test]
fn a_tenfold_short_is_liquidated_by_a_ten_percent_rise() {
    check(
        "quote SOL_USDC 199.98 200
         open demo SOL_USDC short margin 100 leverage 10
         quote SOL_USDC 219.9 219.97
         quote SOL_USDC 219.9 219.98",
        "demo trade 1 opened short 5 SOL_USDC at 199.98, margin 100, liquidation 219.98
         demo trade 1 liquidated at 219.98, profit -100",
    );
}

#[test]
fn a_trade_survives_the_tick_before_its_liquidation_price() {
    check(
        "quote SOL_USDC 199.98 200
         open demo SOL_USDC long margin 100 leverage 10
         quote SOL_USDC 180.01 180.03
         trades demo
         quote SOL_USDC 180 180.02",
        "demo trade 1 opened long 5 SOL_USDC at 200, margin 100, liquidation 180
         demo has open [1]
         demo trade 1 liquidated at 180, profit -100",
    );
}

#[test]
fn a_wallet_starts_with_five_thousand_and_three_zeros() {
    check(
        "wallet demo
         balance demo USDC
         balance demo BTC
         own cash USDC",
        "demo wallet opened
         demo has 5000 USDC free, 0 locked
         demo has 0 BTC free, 0 locked
         Cash has -5000",
    );
}

#[test]
fn a_wallet_is_opened_once() {
    check(
        "wallet demo
         withdraw demo 1000 USDC
         wallet demo
         balance demo USDC",
        "nothing to do
         demo has 4000 USDC free, 0 locked",
    );
}

#[test]
fn deposits_and_withdrawals_touch_free_cash_only() {
    check(
        "quote SOL_USDC 199.98 200
         open demo SOL_USDC long margin 4000 leverage 2
         deposit demo 0.5 BTC
         withdraw demo 1000 USDC
         withdraw demo 0.01 USDC
         balance demo USDC
         balance demo BTC",
        "demo withdrew 1000 USDC
         refused INSUFFICIENT_FUNDS: needs 0.01 USDC, 0 is free: margin of open trades cannot be withdrawn
         demo has 0 USDC free, 4000 locked
         demo has 0.5 BTC free, 0 locked",
    );
}

#[test]
fn a_long_opens_at_the_ask_and_closes_at_the_bid() {
    check(
        "quote SOL_USDC 199 200
         open demo SOL_USDC long quantity 5 leverage 10
         close demo 1
         balance demo USDC",
        "demo trade 1 opened long 5 SOL_USDC at 200, margin 100
         demo trade 1 closed at 199, profit -5
         demo has 4995 USDC free, 0 locked",
    );
}

#[test]
fn a_short_opens_at_the_bid_and_closes_at_the_ask() {
    check(
        "quote SOL_USDC 200 201
         open demo SOL_USDC short quantity 5 leverage 10
         close demo 1
         balance demo USDC
         own house USDC",
        "demo trade 1 opened short 5 SOL_USDC at 200, margin 100
         demo trade 1 closed at 201, profit -5
         demo has 4995 USDC free, 0 locked
         House has 5",
    );
}

#[test]
fn a_margin_buys_a_quantity_floored_to_the_step() {
    check(
        "quote SOL_USDC 199.98 200.02
         open demo SOL_USDC long margin 100 leverage 10",
        "demo trade 1 opened long 4.999 SOL_USDC at 200.02, margin 100, liquidation 180.01",
    );
}

#[test]
fn a_quantity_locks_a_margin_rounded_half_to_even() {
    // 0.001 × 200.05 ÷ 0.02 … chosen so that the third decimal is exactly a half: 1.005 and 1.015.
    check(
        "instrument SOL_USDC leverage_min 0.01 leverage_step 0.01 margin_min 0.01
         quote SOL_USDC 200 201
         open demo SOL_USDC long quantity 0.005 leverage 1
         instrument SOL_USDC tick 0.01
         quote SOL_USDC 202 203
         open demo SOL_USDC long quantity 0.005 leverage 1",
        "demo trade 1 opened long 0.005 SOL_USDC at 201, margin 1
         SOL_USDC configured
         demo trade 2 opened long 0.005 SOL_USDC at 203, margin 1.02",
    );
}

#[test]
fn commission_is_charged_at_the_open_and_at_the_close() {
    check(
        "instrument SOL_USDC commission 0.001
         quote SOL_USDC 199.98 200
         open demo SOL_USDC long quantity 5 leverage 10
         quote SOL_USDC 210 210.02
         close demo 1
         own fee USDC
         own house USDC
         balance demo USDC",
        "demo trade 1 closed at 210, profit 48.95, commission 1.05
         Fee has 2.05
         House has -50
         demo has 5047.95 USDC free, 0 locked",
    );
}

#[test]
fn commission_comes_out_of_what_the_loss_left_and_never_out_of_the_house() {
    check(
        "instrument SOL_USDC commission 0.01
         quote SOL_USDC 199.98 200
         open demo SOL_USDC long quantity 5 leverage 10
         quote SOL_USDC 181 181.02
         close demo 1
         own fee USDC
         own house USDC
         balance demo USDC",
        "demo trade 1 closed at 181, profit -100, commission 5
         Fee has 15
         House has 95
         demo has 4890 USDC free, 0 locked",
    );
}

#[test]
fn a_partial_close_releases_margin_in_proportion_and_keeps_the_stops() {
    check(
        "quote SOL_USDC 199.98 200
         open demo SOL_USDC long quantity 5 leverage 10 stop 190 take 230
         quote SOL_USDC 210 210.02
         close demo 1 quantity 2
         trade 1
         close demo 1 percent 33.4
         quote SOL_USDC 190 190.02
         balance demo USDC",
        "demo trade 1 reduced by 2 at 210, profit 20, leaves 3 with margin 60, liquidation 180
         trade 1: 3 of 5 margin 60 stops 190 230 paid 0 earned 20
         demo trade 1 reduced by 1.002 at 210, profit 10.02, leaves 1.998 with margin 39.96, liquidation 180
         demo trade 1 stopped at 190, profit -19.98
         demo has 5010.04 USDC free, 0 locked",
    );
}

#[test]
fn the_last_part_gets_what_rounding_left() {
    // A third of 100.00 is 33.33, half of the rest is 33.335 and goes to the even cent, the last gets what is there.
    check(
        "quote SOL_USDC 199.98 200
         open demo SOL_USDC long quantity 0.300 leverage 1
         modify demo 1 add 40
         close demo 1 quantity 0.1
         close demo 1 quantity 0.1
         close demo 1
         balance demo USDC",
        "demo trade 1 reduced by 0.1 at 199.98, profit 0, leaves 0.2 with margin 66.67, liquidation none
         demo trade 1 reduced by 0.1 at 199.98, profit 0, leaves 0.1 with margin 33.33, liquidation none
         demo trade 1 closed at 199.98, profit 0
         demo has 5000 USDC free, 0 locked",
    );
}

#[test]
fn a_partial_close_moves_the_trigger_with_the_trade() {
    check(
        "instrument SOL_USDC margin_min 0.01 step 1 quantity_min 1
         quote SOL_USDC 0.98 1
         open demo SOL_USDC long quantity 3 leverage 100
         trade 1",
        "refused INVALID_ARGUMENT: leverage: is so high that the trade would be liquidated at once, at 0.98: use less leverage
         trade 1 is not open",
    );
    check(
        "instrument SOL_USDC margin_min 0.01 step 1 quantity_min 1
         quote SOL_USDC 0.99 1
         open demo SOL_USDC long quantity 7 leverage 50
         close demo 1 quantity 3
         quote SOL_USDC 0.98 0.99
         trades demo",
        "demo trade 1 opened long 7 SOL_USDC at 1, margin 0.14, liquidation 0.98
         demo trade 1 reduced by 3 at 0.99, profit -0.03, leaves 4 with margin 0.08, liquidation 0.98
         demo trade 1 liquidated at 0.98, profit -0.08
         demo has open []",
    );
}

#[test]
fn the_whole_margin_stands_behind_each_part() {
    // Closed by hand past its liquidation price, which can be done before the second quote after a start. Half of it
    // lost 75 with a share of 50: the other half's margin pays before the house does.
    check(
        "quote SOL_USDC 199.98 200
         open demo SOL_USDC long margin 100 leverage 10
         restart
         quote SOL_USDC 170 170.02
         close demo 1 percent 50
         quote SOL_USDC 170 170.02
         balance demo USDC
         own house USDC",
        "demo trade 1 reduced by 2.5 at 170, profit -75, leaves 2.5 with margin 25, liquidation 190
         demo trade 1 liquidated at 170, profit -25, house pays 50
         demo has 4900 USDC free, 0 locked
         House has 100",
    );
}

#[test]
fn a_hundred_percent_is_all_of_it() {
    check(
        "quote SOL_USDC 199.98 200
         open demo SOL_USDC long quantity 5 leverage 10
         open demo SOL_USDC long quantity 5 leverage 10
         close demo 1 percent 100
         close demo 2 quantity 5",
        "demo trade 1 closed at 199.98, profit -0.1
         demo trade 2 closed at 199.98, profit -0.1",
    );
}

#[test]
fn added_margin_moves_the_liquidation_away() {
    check(
        "quote SOL_USDC 199.98 200
         open demo SOL_USDC long margin 100 leverage 10
         modify demo 1 add 100
         balance demo USDC
         quote SOL_USDC 180 180.02
         trades demo
         quote SOL_USDC 162 162.02
         quote SOL_USDC 160 160.02",
        "demo trade 1 modified, stop none, take none, margin 200, liquidation 160
         demo has 4800 USDC free, 200 locked
         demo has open [1]
         demo trade 1 liquidated at 160, profit -200",
    );
}

#[test]
fn more_margin_than_notional_makes_a_long_unliquidatable() {
    check(
        "quote SOL_USDC 199.98 200
         open demo SOL_USDC long margin 100 leverage 10
         modify demo 1 add 900
         modify demo 1 add 900",
        "demo trade 1 modified, stop none, take none, margin 1000, liquidation none
         demo trade 1 modified, stop none, take none, margin 1900, liquidation none",
    );
}

#[test]
fn stops_can_be_moved_and_taken_away() {
    check(
        "quote SOL_USDC 199.98 200
         open demo SOL_USDC long margin 100 leverage 10 stop 190 take 230
         modify demo 1 stop 195
         modify demo 1 take none
         quote SOL_USDC 195.01 196
         modify demo 1 stop none
         quote SOL_USDC 190 191
         trades demo",
        "demo trade 1 modified, stop 195, take 230, margin 100, liquidation 180
         demo trade 1 modified, stop 195, take none, margin 100, liquidation 180
         demo trade 1 modified, stop none, take none, margin 100, liquidation 180
         demo has open [1]",
    );
}

#[test]
fn a_stop_loss_beyond_liquidation_is_fine_when_the_margin_comes_with_it() {
    check(
        "quote SOL_USDC 199.98 200
         open demo SOL_USDC long margin 100 leverage 10
         modify demo 1 stop 170
         modify demo 1 stop 170 add 100",
        "refused INVALID_ARGUMENT: stop_loss: is beyond the liquidation price 180, so it would never fire: move it closer
         demo trade 1 modified, stop 170, take none, margin 200, liquidation 160",
    );
}

#[test]
fn margin_is_isolated_a_liquidation_reaches_nothing_else() {
    check(
        "quote SOL_USDC 199.98 200
         open demo SOL_USDC long margin 100 leverage 10
         open demo SOL_USDC long margin 100 leverage 2
         quote SOL_USDC 180 180.02
         summary demo USDC",
        "demo trade 1 liquidated at 180
         demo: balance 4900 equity 4880 used 100 free 4800 level 4880 profit -20 [2:-20] from 1 quotes",
    );
}

#[test]
fn a_summary_values_every_trade_at_its_closing_price() {
    check(
        "quote SOL_USDC 199.98 200
         quote BTC_USDC 60000 60001
         open demo SOL_USDC long quantity 5 leverage 10
         open demo BTC_USDC short quantity 0.1 leverage 10
         quote SOL_USDC 210 210.02
         quote BTC_USDC 60100 60101
         summary demo USDC
         summary demo BTC
         summary nobody USDC
         restart
         summary demo USDC",
        "demo: balance 5000 equity 5039.9 used 700 free 4300 level 719.99 profit 39.9 [1:50 2:-10.1] from 2 quotes
         demo: balance 0 equity 0 used 0 free 0 level none profit 0 [] from 0 quotes
         nobody is unknown
         demo: balance 5000 equity 5000 used 700 free 4300 level 714.29 profit 0 [1:? 2:?] from 0 quotes",
    );
}

#[test]
fn profits_of_other_trades_are_not_margin() {
    check(
        "quote SOL_USDC 199.98 200
         open demo SOL_USDC long margin 5000 leverage 2
         quote SOL_USDC 219 219.02
         open demo SOL_USDC long margin 1 leverage 2",
        "refused INSUFFICIENT_MARGIN: needs 1 USDC, 0 is free: lower the margin, deposit, or close a trade",
    );
}

#[test]
fn an_instrument_settled_in_bitcoin_keeps_eight_decimals() {
    check(
        "instrument SOL_BTC quote BTC tick 0.000001 margin_min 0.00001 exposure 10
         deposit demo 1 BTC
         quote SOL_BTC 0.002 0.002001
         open demo SOL_BTC long margin 0.01 leverage 10
         close demo 1
         balance demo BTC",
        "demo trade 1 opened long 49.975 SOL_BTC at 0.002001, margin 0.01, liquidation 0.0018
         demo trade 1 closed at 0.002, profit -0.00004998
         demo has 0.99995002 BTC free, 0 locked",
    );
}
