//! Which price is traded at, and when none is: markup and tick, age, spikes, venues that start over, and what an instrument allows.

use crate::story::check;

#[test]
fn a_markup_widens_the_spread_outward_to_the_tick() {
    // 20 bps: half of it, 0.1 %, on each side; 199.98 × 0.999 = 199.78002, 200 × 1.001 = 200.2.
    check(
        "instrument SOL_USDC markup 20
         quote SOL_USDC 199.98 200
         open demo SOL_USDC long quantity 5 leverage 10
         open demo SOL_USDC short quantity 5 leverage 10",
        "demo trade 1 opened long 5 SOL_USDC at 200.2
         demo trade 2 opened short 5 SOL_USDC at 199.78",
    );
}

#[test]
fn a_venue_price_finer_than_the_tick_is_brought_outward_onto_it() {
    check(
        "quote SOL_USDC 199.9899999999 200.0000000001
         open demo SOL_USDC long quantity 5 leverage 10
         open demo SOL_USDC short quantity 5 leverage 10",
        "demo trade 1 opened long 5 SOL_USDC at 200.01
         demo trade 2 opened short 5 SOL_USDC at 199.98",
    );
}

#[test]
fn a_changed_markup_holds_for_the_quote_that_is_there() {
    check(
        "quote SOL_USDC 199.98 200
         instrument SOL_USDC markup 20
         open demo SOL_USDC long quantity 5 leverage 10",
        "demo trade 1 opened long 5 SOL_USDC at 200.2",
    );
}

#[test]
fn a_slippage_bound_refuses_worse_and_takes_better() {
    check(
        "quote SOL_USDC 199.98 200
         open demo SOL_USDC long quantity 1 leverage 10 expect 199.9 within 5
         open demo SOL_USDC long quantity 1 leverage 10 expect 199.9 within 6
         open demo SOL_USDC long quantity 1 leverage 10 expect 250 within 0
         open demo SOL_USDC short quantity 1 leverage 10 expect 200.5 within 10
         open demo SOL_USDC short quantity 1 leverage 10 expect 150 within 0",
        "refused PRICE_MOVED: the price moved from 199.9 to 200, 6 bps against you: accept the new price
         demo trade 1 opened long 1 SOL_USDC at 200
         demo trade 2 opened long 1 SOL_USDC at 200
         refused PRICE_MOVED: the price moved from 200.5 to 199.98, 26 bps against you: accept the new price
         demo trade 3 opened short 1 SOL_USDC at 199.98",
    );
}

#[test]
fn a_soft_stale_price_opens_nothing_and_closes_what_is_there() {
    check(
        "quote SOL_USDC 199.98 200
         open demo SOL_USDC long quantity 5 leverage 10
         wait 5s
         open demo SOL_USDC long quantity 5 leverage 10
         wait 1ms
         freshness SOL_USDC
         open demo SOL_USDC long quantity 5 leverage 10
         modify demo 1 stop 190
         close demo 1
         close demo 2",
        "demo trade 2 opened long 5 SOL_USDC at 200
         SoftStale
         refused STALE_PRICE: the price of SOL_USDC is not current (too old; age 5001000 us, limit 5000000 us): retry shortly
         demo trade 1 modified, stop 190
         demo trade 1 closed at 199.98
         demo trade 2 closed at 199.98",
    );
}

#[test]
fn a_hard_stale_price_closes_nothing_but_takes_margin() {
    check(
        "quote SOL_USDC 199.98 200
         open demo SOL_USDC long quantity 5 leverage 10 stop 190
         wait 31s
         freshness SOL_USDC
         close demo 1
         modify demo 1 stop 191
         modify demo 1 stop none
         modify demo 1 add 10",
        "HardStale
         refused STALE_PRICE: the price of SOL_USDC is not current (too old; age 31000000 us, limit 30000000 us): retry shortly
         refused STALE_PRICE
         demo trade 1 modified, stop none
         demo trade 1 modified, stop none, take none, margin 110",
    );
}

#[test]
fn after_a_silence_nothing_fires_until_two_quotes_agree() {
    check(
        "quote SOL_USDC 199.98 200
         open demo SOL_USDC long margin 100 leverage 10
         wait 31s
         quote SOL_USDC 180 180.02
         freshness SOL_USDC
         close demo 1
         trades demo
         quote SOL_USDC 180 180.02
         freshness SOL_USDC",
        "HardStale
         refused STALE_PRICE: the price of SOL_USDC is not current (the feed is recovering; age 0 us, limit 30000000 us)
         demo has open [1]
         demo trade 1 liquidated at 180
         Fresh",
    );
}

#[test]
fn age_is_counted_from_the_venues_time() {
    check(
        "quote SOL_USDC 199.98 200 late 4s
         wait 2s
         open demo SOL_USDC long quantity 5 leverage 10
         quote SOL_USDC 199.98 200 late 31s",
        "refused STALE_PRICE: the price of SOL_USDC is not current (too old; age 6000000 us, limit 5000000 us)
         quote dropped: TooOld",
    );
}

#[test]
fn a_spike_waits_for_a_second_quote() {
    check(
        "quote SOL_USDC 199.98 200
         quote SOL_USDC 199.98 200
         open demo SOL_USDC long margin 100 leverage 10
         quote SOL_USDC 100 100.02
         freshness SOL_USDC
         close demo 1
         open demo SOL_USDC long margin 100 leverage 10
         quote SOL_USDC 199.97 200
         trades demo",
        "quote dropped: AwaitingConfirmation
         HardStale
         refused STALE_PRICE: the price of SOL_USDC is not current (a jump awaits a second quote; age 0 us, limit 30000000 us)
         refused STALE_PRICE: the price of SOL_USDC is not current (a jump awaits a second quote; age 0 us, limit 5000000 us)
         demo has open [1]",
    );
}

#[test]
fn a_confirmed_spike_is_the_price() {
    check(
        "quote SOL_USDC 199.98 200
         open demo SOL_USDC long margin 100 leverage 10
         quote SOL_USDC 100 100.02
         quote SOL_USDC 101 101.02",
        "quote dropped: AwaitingConfirmation
         demo trade 1 liquidated at 101, profit -100, house pays 395",
    );
}

#[test]
fn a_spike_of_one_side_is_a_spike() {
    check(
        "quote SOL_USDC 199.98 200
         quote SOL_USDC 150 200
         quote SOL_USDC 199.98 200
         quote SOL_USDC 199.98 250
         freshness SOL_USDC",
        "quote dropped: AwaitingConfirmation
         quote dropped: AwaitingConfirmation
         HardStale",
    );
}

#[test]
fn each_new_spike_waits_for_its_own_confirmation() {
    check(
        "quote SOL_USDC 199.98 200
         open demo SOL_USDC long margin 100 leverage 10
         quote SOL_USDC 100 100.02
         quote SOL_USDC 50 50.02
         quote SOL_USDC 100 100.02
         quote SOL_USDC 199 199.02
         trades demo",
        "quote dropped: AwaitingConfirmation
         quote dropped: AwaitingConfirmation
         quote dropped: AwaitingConfirmation
         demo has open [1]",
    );
}

#[test]
fn a_spike_does_not_wait_for_ever() {
    check(
        "quote SOL_USDC 199.98 200
         quote SOL_USDC 100 100.02
         wait 31s
         quote SOL_USDC 100 100.02
         quote SOL_USDC 100 100.02
         freshness SOL_USDC",
        "quote dropped: AwaitingConfirmation
         quote dropped: AwaitingConfirmation
         Fresh",
    );
}

#[test]
fn bad_quotes_are_dropped_and_told_apart() {
    check(
        "quote SOL_USDC 199.98 200 id 10
         quote SOL_USDC 200 200
         quote SOL_USDC 201 200
         quote DOGE_USDC 1 2
         quote SOL_USDC 199.98 200 id 10
         quote SOL_USDC 199.98 200 late 1s
         quote SOL_USDC 199.98 200 early 3s
         quote SOL_USDC 0.001 200
         quote SOL_USDC 199.98 99999999999999
         freshness SOL_USDC",
        "quote dropped: Crossed
         quote dropped: Crossed
         quote dropped: UnknownSymbol
         quote dropped: OutOfOrder
         quote dropped: OutOfOrder
         quote dropped: Future
         quote dropped: OutOfRange
         quote dropped: OutOfRange
         Fresh",
    );
}

#[test]
fn a_venue_that_starts_over_is_taken_after_a_silence() {
    check(
        "quote SOL_USDC 199.98 200 id 900
         quote SOL_USDC 199.98 200 id 1
         wait 31s
         quote SOL_USDC 199.98 200 id 1
         quote SOL_USDC 199.98 200 id 2
         freshness SOL_USDC",
        "quote dropped: OutOfOrder
         Fresh",
    );
}

#[test]
fn a_new_process_does_not_liquidate_on_its_first_quote() {
    check(
        "quote SOL_USDC 199.98 200
         open demo SOL_USDC long margin 100 leverage 10
         restart
         freshness SOL_USDC
         close demo 1
         quote SOL_USDC 100 100.02
         trades demo
         quote SOL_USDC 199.98 200
         quote SOL_USDC 199.98 200
         trades demo",
        "Missing
         refused STALE_PRICE: there is no price for SOL_USDC yet: retry shortly
         demo has open [1]
         quote dropped: AwaitingConfirmation
         demo has open [1]",
    );
}

#[test]
fn close_only_closes_and_fires_and_opens_nothing() {
    check(
        "quote SOL_USDC 199.98 200
         open demo SOL_USDC long quantity 5 leverage 10
         open demo SOL_USDC long quantity 5 leverage 10 stop 190
         instrument SOL_USDC mode close-only
         open demo SOL_USDC long quantity 5 leverage 10
         close demo 1
         quote SOL_USDC 190 190.02",
        "refused MARKET_CLOSED: SOL_USDC is close-only: try again when it is enabled
         demo trade 1 closed at 199.98
         demo trade 2 stopped at 190",
    );
}

#[test]
fn a_halted_instrument_neither_closes_nor_fires_but_takes_margin() {
    check(
        "quote SOL_USDC 199.98 200
         open demo SOL_USDC long margin 100 leverage 10
         instrument SOL_USDC mode halted
         close demo 1
         quote SOL_USDC 180 180.02
         trades demo
         modify demo 1 add 1
         instrument SOL_USDC mode enabled
         quote SOL_USDC 179 179.02",
        "refused MARKET_CLOSED: SOL_USDC is halted: try again when it is enabled
         demo has open [1]
         demo trade 1 modified
         SOL_USDC configured
         demo trade 1 liquidated at 179",
    );
}
