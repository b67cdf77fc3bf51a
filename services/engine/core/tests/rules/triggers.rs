//! What ends a trade by itself: liquidation, stop-loss and take-profit, and which of them goes first.

use crate::story::check;

#[test]
fn a_long_without_leverage_is_never_liquidated() {
    check(
        "quote SOL_USDC 199.98 200
         open demo SOL_USDC long margin 1000 leverage 1
         quote SOL_USDC 180 180.01
         quote SOL_USDC 0.01 0.02
         quote SOL_USDC 0.01 0.02
         trades demo
         close demo 1",
        "demo trade 1 opened long 5 SOL_USDC at 200, margin 1000, liquidation none
         quote dropped: AwaitingConfirmation
         demo has open [1]
         demo trade 1 closed at 0.01, profit -999.95",
    );
}

#[test]
fn a_maintenance_rate_liquidates_earlier() {
    // M + (P − E) Q <= m Q P: 100 + (P − 200) 5 <= 0.01 × 5 P, so P <= 900 ÷ 4.95 = 181.81…
    check(
        "instrument SOL_USDC maintenance 0.01
         quote SOL_USDC 199.98 200
         open demo SOL_USDC long margin 100 leverage 10
         quote SOL_USDC 181.82 181.9
         quote SOL_USDC 181.81 181.9
         balance demo USDC",
        "demo trade 1 opened long 5 SOL_USDC at 200, margin 100, liquidation 181.81
         demo trade 1 liquidated at 181.81, profit -90.95
         demo has 4909.05 USDC free, 0 locked",
    );
}

#[test]
fn the_maintenance_rate_is_fixed_at_the_open() {
    check(
        "quote SOL_USDC 199.98 200
         open demo SOL_USDC long margin 100 leverage 10
         instrument SOL_USDC maintenance 0.05
         quote SOL_USDC 185 185.02
         trades demo
         open demo SOL_USDC long margin 100 leverage 5",
        "demo has open [1]
         demo trade 2 opened long 2.702 SOL_USDC at 185.02, margin 100, liquidation 155.8",
    );
}

#[test]
fn a_liquidation_executes_at_the_first_tradable_quote_and_the_house_pays_the_rest() {
    check(
        "quote SOL_USDC 199.98 200
         open demo SOL_USDC long margin 100 leverage 20
         quote SOL_USDC 180 180.02
         balance demo USDC
         own house USDC",
        "demo trade 1 opened long 10 SOL_USDC at 200, margin 100, liquidation 190
         demo trade 1 liquidated at 180, profit -100, house pays 100
         demo has 4900 USDC free, 0 locked
         House has 100",
    );
}

#[test]
fn a_stop_loss_and_a_take_profit_fire_at_the_market() {
    check(
        "quote SOL_USDC 199.98 200
         open demo SOL_USDC long quantity 5 leverage 5 stop 190 take 210
         open demo SOL_USDC short quantity 5 leverage 5 stop 210 take 190
         open demo SOL_USDC long quantity 5 leverage 5 take 250
         quote SOL_USDC 190.01 190.03
         quote SOL_USDC 189 189.5
         trades demo",
        "demo trade 1 stopped at 189, profit -55
         demo trade 2 took profit at 189.5, profit 52.4
         demo has open [3]",
    );
}

#[test]
fn triggers_fire_in_order_of_kind_then_of_number() {
    check(
        "quote SOL_USDC 199.98 200
         open a SOL_USDC long quantity 5 leverage 20
         open b SOL_USDC short quantity 5 leverage 5 take 190
         open a SOL_USDC long quantity 5 leverage 20
         open b SOL_USDC long quantity 5 leverage 5 stop 195
         open a SOL_USDC short quantity 5 leverage 5 take 189
         open b SOL_USDC long quantity 5 leverage 5 stop 198
         quote SOL_USDC 188 188.5",
        "b trade 4 stopped at 188
         b trade 6 stopped at 188
         b trade 2 took profit at 188.5
         a trade 5 took profit at 188.5
         a trade 1 liquidated at 188
         a trade 3 liquidated at 188",
    );
}

#[test]
fn a_trade_past_both_its_stop_loss_and_its_liquidation_fires_once_as_a_stop_loss() {
    check(
        "quote SOL_USDC 199.98 200
         open demo SOL_USDC long margin 100 leverage 20 stop 190
         quote SOL_USDC 185 185.02
         balance demo USDC",
        "demo trade 1 stopped at 185, profit -100, house pays 50
         demo has 4900 USDC free, 0 locked",
    );
}

#[test]
fn a_stop_loss_may_stand_at_the_liquidation_price() {
    check(
        "quote SOL_USDC 199.98 200
         open demo SOL_USDC long margin 100 leverage 10 stop 180
         quote SOL_USDC 180 180.02",
        "demo trade 1 stopped at 180, profit -100",
    );
}
