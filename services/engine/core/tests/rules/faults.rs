//! Faults of a published system of the same shape, each as a story in which it would show. The numbers are those of
//! its list of faults; the ones of a gateway, a queue or a database are tested where those live.

use std::time::Instant;

use crate::story::{check, play};

/// It scanned every trade ever made on every price, so a tick cost as much as the whole history.
#[test]
fn fault_03_cost_does_not_grow_with_closed_history() {
    let mut world = play("quote SOL_USDC 199.98 200");
    let mut time_a_thousand = || {
        let start = Instant::now();
        for _ in 0..1_000 {
            world.tell("open demo SOL_USDC long margin 10 leverage 2");
            let id = world.state.next_trade_id().get() - 1;
            world.tell(&format!("close demo {id}"));
            world.events.clear();
            world.outcomes.clear();
        }
        assert_eq!(world.state.open_trades(), 0);
        (
            start.elapsed(),
            world
                .state
                .entities()
                .map(|it| {
                    let mut bytes = Vec::new();
                    it.encode(&mut bytes);
                    bytes.len()
                })
                .sum::<usize>(),
        )
    };
    let (_, size) = time_a_thousand();
    let (early, size_early) = time_a_thousand();
    let (_, _) = time_a_thousand();
    let (late, size_late) = time_a_thousand();
    // What is kept is counted exactly; time only coarsely, for the machine may be busy.
    assert!(
        size.abs_diff(size_early) <= 8 && size_early.abs_diff(size_late) <= 8,
        "{size} {size_early} {size_late}"
    );
    assert!(late < early * 5, "a thousand trades took {early:?}, later {late:?}");
}

/// It let the client choose the order id; the same one twice charged margin twice for one trade.
#[test]
fn fault_07_a_trade_number_is_never_used_twice() {
    check(
        "quote SOL_USDC 199.98 200
         open demo SOL_USDC long quantity 5 leverage 10
         close demo 1
         restart
         quote SOL_USDC 199.98 200
         open demo SOL_USDC long quantity 5 leverage 10
         open demo SOL_USDC long quantity 5 leverage 10
         balance demo USDC",
        "demo trade 2 opened
         demo trade 3 opened
         demo has 4799.9 USDC free, 200 locked",
    );
}

/// After a restart it opened at price zero until the first tick came; such a trade could never be closed.
#[test]
fn fault_08_entry_price_zero_cannot_happen() {
    check(
        "quote SOL_USDC 199.98 200
         restart
         open demo SOL_USDC long margin 100 leverage 10
         quote SOL_USDC 0.001 0.002
         open demo SOL_USDC long margin 100 leverage 10
         open demo SOL_USDC short margin 100 leverage 10",
        "refused STALE_PRICE: there is no price for SOL_USDC yet
         quote dropped: OutOfRange
         refused STALE_PRICE: there is no price for SOL_USDC yet
         refused STALE_PRICE: there is no price for SOL_USDC yet",
    );
    assert!(engine_core::Price::parse("0").is_err() && engine_core::Price::parse("-1").is_err());
}

/// It restored a leverage as another type, profit threw, was caught and became zero: the full margin came back.
#[test]
fn fault_09_a_restart_does_not_change_what_a_trade_is() {
    check(
        "quote SOL_USDC 199.98 200
         open demo SOL_USDC long margin 100 leverage 50
         restart
         quote SOL_USDC 199.98 200
         quote SOL_USDC 190 190.02
         balance demo USDC",
        "demo trade 1 liquidated at 190, profit -100, house pays 150
         demo has 4900 USDC free, 0 locked",
    );
}

/// It failed on margins that are not whole cents in binary, such as 1.15 and 115.00000000000003.
#[test]
fn fault_10_every_cent_can_be_traded_and_no_fraction_of_one() {
    check(
        "quote SOL_USDC 199.98 200
         open demo SOL_USDC long margin 1.15 leverage 10
         open demo SOL_USDC long margin 100.5 leverage 10
         open demo SOL_USDC long margin 115.00000000000003 leverage 10
         balance demo USDC",
        "demo trade 1 opened long 0.057 SOL_USDC at 200, margin 1.15
         demo trade 2 opened long 5.025 SOL_USDC at 200, margin 100.5
         refused INVALID_ARGUMENT: margin: has more than 2 decimals, which USDC does not keep
         demo has 4898.35 USDC free, 101.65 locked",
    );
}

/// It stored every trade as a long, because one program wrote a field that the other did not read.
#[test]
fn fault_11_a_short_stays_a_short() {
    check(
        "quote SOL_USDC 199.98 200
         open demo SOL_USDC short quantity 5 leverage 10
         restart
         quote SOL_USDC 190 190.02
         close demo 1",
        "demo trade 1 closed at 190.02, profit 49.8",
    );
}

/// It closed at whatever price it had, however old, while its feed was dead and repeated the last price for ever.
#[test]
fn fault_13_nothing_closes_or_fires_on_an_old_price() {
    check(
        "quote SOL_USDC 199.98 200
         open demo SOL_USDC long margin 100 leverage 10
         wait 29s
         quote SOL_USDC 199.98 200 late 29s
         wait 2s
         quote SOL_USDC 199.98 200 late 31s
         close demo 1
         trades demo",
        "quote dropped: TooOld
         refused STALE_PRICE
         demo has open [1]",
    );
}

/// A fresh install had no instruments and no way to add one.
#[test]
fn fault_15_a_fresh_install_can_trade() {
    for symbol in ["BTC_USDC", "ETH_USDC", "SOL_USDC"] {
        check(
            &format!(
                "quote {symbol} 1999.9 2000
                 open demo {symbol} long margin 100 leverage 10"
            ),
            &format!("demo trade 1 opened long 0.5 {symbol} at 2000, margin 100, liquidation 1800"),
        );
    }
}

/// Any client could put another's name into the queue message and close the other's trades.
#[test]
fn fault_16_a_trade_obeys_its_owner_alone() {
    check(
        "quote SOL_USDC 199.98 200
         open alice SOL_USDC long margin 100 leverage 10 stop 190
         close mallory 1
         modify mallory 1 stop none
         modify mallory 1 add 10
         trade 1
         balance mallory USDC",
        "refused TRADE_NOT_FOUND
         refused TRADE_NOT_FOUND
         refused TRADE_NOT_FOUND
         trade 1: 5 of 5 margin 100 stops 190 none
         mallory has 5000 USDC free, 0 locked",
    );
}

/// Elsewhere a long at 100, 20x, that gapped to 90 was booked at its trigger price of about 95.
#[test]
fn a_gap_is_booked_where_the_market_is() {
    check(
        "instrument SOL_USDC maintenance 0.004
         quote SOL_USDC 99.99 100
         open demo SOL_USDC long margin 100 leverage 20
         quote SOL_USDC 90 90.01
         balance demo USDC",
        "demo trade 1 opened long 20 SOL_USDC at 100, margin 100, liquidation 95.38
         demo trade 1 liquidated at 90, profit -100, house pays 100
         demo has 4900 USDC free, 0 locked",
    );
}

/// Elsewhere 1,000 at 50x went to a balance of −4,000, because liquidation was only displayed.
#[test]
fn a_balance_never_goes_below_zero() {
    check(
        "withdraw demo 4000 USDC
         quote SOL_USDC 99.99 100
         open demo SOL_USDC long margin 1000 leverage 50
         quote SOL_USDC 90 90.01
         balance demo USDC
         own house USDC",
        "demo trade 1 opened long 500 SOL_USDC at 100, margin 1000, liquidation 98
         demo trade 1 liquidated at 90, profit -1000, house pays 4000
         demo has 0 USDC free, 0 locked
         House has 1000",
    );
}

/// Elsewhere an account so small that it rounded to zero could never be liquidated.
#[test]
fn dust_is_liquidated_too() {
    check(
        "instrument SOL_USDC margin_min 0.01
         quote SOL_USDC 199.98 200
         open demo SOL_USDC long quantity 0.001 leverage 20
         quote SOL_USDC 180 180.02
         quote SOL_USDC 180 180.02",
        "demo trade 1 opened long 0.001 SOL_USDC at 200, margin 0.01, liquidation 190
         demo trade 1 liquidated at 180, profit -0.01, house pays 0.01",
    );
}
