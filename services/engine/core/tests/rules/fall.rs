//! The largest real fall at hand: BitMEX XBTUSD on 2 January 2018, 04:00 to 05:00 UTC, with 10,000 trades open.
//!
//! Every quote of the hour is played to the core and to the naive model; both must liquidate the same trades, at the
//! same prices, to the cent. The recording is not part of the project: its folder is named by `FULCRUM_MARKET_DATA`,
//! or found beside the workspace, and without it the test says so and passes.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;

use engine_core::{Command, EventKind, LedgerAccount, Leverage, Money, OpenTrade, Price, Quote, Side, Size, Timestamp};
use rust_decimal::Decimal;

use crate::naive::{Naive, Open, Outcome, Terms, scaled};
use crate::story::{World, account, currency, instrument, symbol};

const RECORDING: &str = "bitmex_xbtusd_20180101_20180103_quotes_derived.csv.zst";
const SYMBOL: &str = "BTC_USDC_PERP";
/// 2018-01-02, in microseconds.
const MIDNIGHT: i64 = 1_514_851_200_000_000;
const MINUTE: i64 = 60_000_000;
const ACCOUNTS: usize = 100;
const TRADES: usize = 10_000;

/// Numbers that look random and are the same every time.
struct Draw(u64);

impl Draw {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        ((mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB) >> 31) % bound
    }
}

/// Time, bid and ask of every quote from 03:55 to 05:00, or `None` without the recording.
fn recording() -> Option<Vec<(i64, Decimal, Decimal)>> {
    let beside = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../../shared/market-data");
    let folder = std::env::var_os("FULCRUM_MARKET_DATA").map_or(beside, PathBuf::from);
    let file = std::fs::File::open(folder.join(RECORDING)).ok()?;
    let text = BufReader::new(zstd::Decoder::new(file).expect("a zstd file"));
    let rows = text.lines().skip(1).map(|line| line.expect("text")).map(|line| {
        let cells: Vec<&str> = line.split(',').collect();
        let price = |cell: &str| engine_core::number::parse(cell).expect("a price");
        (
            cells[0].parse::<i64>().expect("a time"),
            price(cells[2]),
            price(cells[4]),
        )
    });
    let hour = (MIDNIGHT + 235 * MINUTE)..(MIDNIGHT + 300 * MINUTE);
    Some(rows.filter(|(time, ..)| hour.contains(time)).collect())
}

#[test]
#[allow(clippy::print_stderr)]
fn ten_thousand_trades_through_the_largest_fall() {
    let Some(quotes) = recording() else {
        eprintln!("SKIPPED: no {RECORDING}; set FULCRUM_MARKET_DATA to the folder that has it");
        return;
    };
    let mut world = World::new();
    let mut terms = instrument(SYMBOL);
    // Gaps in the recording reach 215 s, and it has no update ids.
    (terms.stale_soft_us, terms.stale_hard_us) = (300_000_000, 600_000_000);
    terms.tick = Price::parse("0.1").expect("a tick");
    terms.maintenance_rate = engine_core::Rate::parse("0.005").expect("a rate");
    terms.exposure_max = Money::new(Decimal::from(1_000_000_000));
    world
        .act(&Command::ConfigureInstrument(terms.clone()))
        .expect("valid terms");
    let mut naive = Naive::new(vec![Terms::of(&terms)], ACCOUNTS);
    for number in 0..ACCOUNTS {
        let account = account(&format!("a{number}"));
        world
            .act(&Command::InitializeWallet {
                account: account.clone(),
            })
            .expect("a new name");
        let amount = Money::new(Decimal::from(10_000_000));
        world
            .act(&Command::Deposit {
                account,
                currency: currency("USDC"),
                amount,
            })
            .expect("an amount");
        naive.wallet(number);
        naive.transfer(number, 1_000_000_000);
    }

    let mut draw = Draw(2018);
    let (mut opened, mut fired, mut compared) = (0, 0, 0);
    for (update, (time, bid, ask)) in quotes.iter().enumerate() {
        world.now = Timestamp::from_micros(*time);
        let price = |value: &Decimal| Price::new(*value).expect("a price");
        let (bid_price, ask_price) = (price(bid), price(ask));
        let quote = Quote {
            symbol: symbol(SYMBOL),
            bid: bid_price,
            ask: ask_price,
            venue_time: world.now,
            update_id: update as u64,
        };
        let before = world.events.len();
        world.observe(&quote);
        naive.observe(*time, 0, (scaled(*bid, 3), scaled(*ask, 3)), *time, update as u64);
        let expected = naive.fire(*time, 0);
        let happened: Vec<(u64, i128, i128, i128)> = world.events[before..]
            .iter()
            .map(|(_, event)| match &event.kind {
                EventKind::TradeClosed(it) => (
                    it.trade.get(),
                    scaled(it.close_price.get(), 1),
                    scaled(it.realised_profit.get(), 2),
                    scaled(it.house_covered.get(), 2),
                ),
                other => panic!("a quote closes trades and does nothing else: {other:?}"),
            })
            .collect();
        let expected: Vec<(u64, i128, i128, i128)> = expected
            .iter()
            .map(|outcome| match outcome {
                Outcome::Closed(it) => (it.trade, it.price, it.profit, it.covered),
                other => panic!("a quote closes trades and does nothing else: {other:?}"),
            })
            .collect();
        assert_eq!(happened, expected, "at {time}");
        fired += happened.len();
        compared += 1;

        // All of them in the minutes before the hour.
        while *time < MIDNIGHT + 240 * MINUTE && opened < TRADES {
            open_one(&mut world, &mut naive, &mut draw, *time);
            opened += 1;
            if opened % 500 == 0 {
                break;
            }
        }
    }
    assert_eq!(opened, TRADES);
    assert!(
        (1_000..TRADES).contains(&fired),
        "{fired} of {opened} fired, which proves little"
    );
    assert_eq!(world.state.open_trades(), naive.trades.len());
    for number in 0..ACCOUNTS {
        let id = account(&format!("a{number}"));
        let free = world
            .state
            .ledger_balance(&LedgerAccount::Client(id), &currency("USDC"));
        assert_eq!(Some(scaled(free.get(), 2)), naive.free[number]);
    }
    let house = world.state.ledger_balance(&LedgerAccount::House, &currency("USDC"));
    assert_eq!(scaled(house.get(), 2), naive.house);
    world.close_the_books();
    eprintln!("{fired} of {opened} trades were liquidated over {compared} quotes, all as the naive model says");
}

fn open_one(world: &mut World, naive: &mut Naive, draw: &mut Draw, time: i64) {
    let number = draw.below(ACCOUNTS as u64) as usize;
    let side = if draw.below(2) == 0 { Side::Long } else { Side::Short };
    let (cents, leverage) = (
        500 + i64::try_from(draw.below(50_000)).expect("small"),
        1 + draw.below(100),
    );
    let order = OpenTrade {
        account: account(&format!("a{number}")),
        symbol: symbol(SYMBOL),
        side,
        size: Size::Margin(Money::new(Decimal::new(cents, 2))),
        leverage: Leverage::new(Decimal::from(leverage)).expect("leverage"),
        stop_loss: None,
        take_profit: None,
        slippage: None,
    };
    let opened = world.state.next_trade_id().get();
    drop(world.act_quickly(&Command::OpenTrade(order)));
    let answer = naive.open(
        time,
        &Open {
            account: number,
            symbol: 0,
            side,
            margin: Some(cents.into()),
            quantity: 0,
            leverage: leverage.into(),
            stop_loss: None,
            take_profit: None,
            slippage: None,
        },
    );
    let agreed = matches!(&answer, Outcome::Opened(trade, _) if trade.id == opened);
    let mine = world.state.next_trade_id().get() > opened;
    assert_eq!(agreed, mine, "{answer:?}");
}
