//! What may happen in a life.

use proptest::prelude::*;

use super::{ACCOUNTS, SYMBOLS};

/// One step; what it refers to is worked out when it is played, so that most steps mean something.
#[derive(Clone, Debug)]
pub enum Step {
    Wallet {
        account: usize,
    },
    Transfer {
        account: usize,
        cents: i64,
    },
    Wait {
        ms: i64,
    },
    /// Moves the venue's mid by so many bps and quotes around it, in hundredths of a tick.
    Quote {
        symbol: usize,
        move_bps: i64,
        spread: i64,
        late_ms: i64,
        repeat: bool,
    },
    Open {
        account: usize,
        symbol: usize,
        long: bool,
        size: Sizing,
        leverage: i64,
        stop_bps: i64,
        take_bps: i64,
        bound: Option<(i64, u32)>,
    },
    Close {
        account: usize,
        trade: usize,
        part: Parting,
    },
    Modify {
        account: usize,
        trade: usize,
        stop: Stop,
        take: Stop,
        add: Option<i64>,
    },
    Terms {
        symbol: usize,
        term: usize,
        value: usize,
    },
    /// Through a snapshot and back; a new process has forgotten the quotes too.
    Restore {
        forget: bool,
    },
}

/// How large a trade is to be.
#[derive(Clone, Copy, Debug)]
pub enum Sizing {
    Cents(i64),
    /// Thousandths of what a thousand would buy.
    Share(i64),
}

/// How much of a trade is to be closed.
#[derive(Clone, Copy, Debug)]
pub enum Parting {
    All,
    /// Of a hundred parts of what is open, plus so many steps.
    Steps(i64, i64),
    /// In hundredths of a percent.
    Percent(i64),
}

/// What becomes of a stop.
#[derive(Clone, Copy, Debug)]
pub enum Stop {
    Keep,
    Clear,
    /// From the mid, in bps.
    At(i64),
}

/// Steps as a life has them: mostly sensible, some not.
pub fn step() -> impl Strategy<Value = Step> {
    // The last of them seldom, and mostly before it has a wallet.
    let who = prop_oneof![10 => 0..ACCOUNTS.len() - 1, 1 => Just(ACCOUNTS.len() - 1)];
    let what = 0..SYMBOLS.len();
    let moves = prop_oneof![20 => -120..120_i64, 4 => -600..600_i64, 1 => -5_000..5_000_i64];
    let spread = prop_oneof![30 => 1..600_i64, 1 => 600..2_000_000_i64];
    let late = prop_oneof![20 => Just(0_i64), 2 => 0..6_000_i64, 1 => -3_000..40_000_i64];
    let sizing = prop_oneof![
        prop_oneof![8 => 50..200_000_i64, 1 => -1..150_i64].prop_map(Sizing::Cents),
        (1..3_000_i64).prop_map(Sizing::Share)
    ];
    let leverage = prop_oneof![1..=101_i64, Just(1), Just(100), 5..30_i64];
    let parting = prop_oneof![
        Just(Parting::All),
        (0..120_i64, -2..3_i64).prop_map(|(hundredths, more)| Parting::Steps(hundredths, more)),
        (1..=10_000_i64).prop_map(Parting::Percent),
    ];
    let offset = || prop_oneof![6 => Just(0_i64), 5 => -400..400_i64];
    let stop = || prop_oneof![Just(Stop::Keep), Just(Stop::Clear), (-400..400_i64).prop_map(Stop::At)];
    let bound = prop::option::weighted(0.2, (-50..50_i64, 0..60_u32));
    prop_oneof![
        2 => who.clone().prop_map(|account| Step::Wallet { account }),
        2 => (who.clone(), -600_000..600_000_i64).prop_map(|(account, cents)| Step::Transfer { account, cents }),
        3 => prop_oneof![10 => 0..2_000_i64, 2 => 0..8_000_i64, 1 => 0..50_000_i64].prop_map(|ms| Step::Wait { ms }),
        30 => (what.clone(), moves, spread, late, prop::bool::weighted(0.05))
            .prop_map(|(symbol, move_bps, spread, late_ms, repeat)| Step::Quote { symbol, move_bps, spread, late_ms, repeat }),
        20 => (who.clone(), what.clone(), any::<bool>(), sizing, leverage, offset(), offset(), bound).prop_map(
            |(account, symbol, long, size, leverage, stop_bps, take_bps, bound)| Step::Open { account, symbol, long, size, leverage, stop_bps, take_bps, bound }
        ),
        10 => (who.clone(), 0..40_usize, parting).prop_map(|(account, trade, part)| Step::Close { account, trade, part }),
        8 => (who.clone(), 0..40_usize, stop(), stop(), prop::option::weighted(0.4, prop_oneof![5 => 1..40_000_i64, 1 => -100..2_i64, 1 => Just(9_000_000)]))
            .prop_map(|(account, trade, stop, take, add)| Step::Modify { account, trade, stop, take, add }),
        3 => (what, 0..6_usize, 0..4_usize).prop_map(|(symbol, term, value)| Step::Terms { symbol, term, value }),
        1 => any::<bool>().prop_map(|forget| Step::Restore { forget }),
    ]
}
