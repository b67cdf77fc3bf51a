//! What a recorder tells about itself, through whatever meter the process has installed.

use opentelemetry::KeyValue;
use opentelemetry::metrics::{Counter, Gauge, Meter};
use rust_decimal::Decimal;
use rust_decimal::prelude::ToPrimitive as _;

use crate::totals::Books;

/// The recorder's instruments.
#[derive(Debug)]
pub(crate) struct Metrics {
    lag: Gauge<u64>,
    entries: Counter<u64>,
    quotes: Counter<u64>,
    imbalance: Gauge<f64>,
    house: House,
}

/// What the house stands against, by symbol and currency.
#[derive(Debug)]
struct House {
    trades: Gauge<u64>,
    quantity: Gauge<f64>,
    notional: Gauge<f64>,
    net: Gauge<f64>,
    realised: Gauge<f64>,
    unrealised: Gauge<f64>,
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let meter = opentelemetry::global::meter("recorder");
        Self {
            lag: meter
                .u64_gauge("fulcrum.recorder.lag")
                .with_description("Journal entries committed and not yet expanded, by shard")
                .build(),
            entries: meter
                .u64_counter("fulcrum.recorder.entries")
                .with_description("Journal entries expanded")
                .build(),
            quotes: meter
                .u64_counter("fulcrum.recorder.quotes")
                .with_description("Quotes folded into candles or refused, by result")
                .build(),
            imbalance: meter
                .f64_gauge("fulcrum.recorder.ledger_imbalance")
                .with_description("Sum of all ledger lines by currency: zero, or money was made up")
                .build(),
            house: House::new(&meter),
        }
    }

    /// What the house stands against in one instrument and currency.
    pub(crate) fn house(&self, books: &Books) {
        let of = [
            KeyValue::new("symbol", books.symbol.clone()),
            KeyValue::new("currency", books.currency_code.clone()),
        ];
        let sides = [
            ("long", books.long_trades, books.long_quantity, books.long_notional),
            ("short", books.short_trades, books.short_quantity, books.short_notional),
        ];
        for (side, trades, quantity, notional) in sides {
            let of = [of.as_slice(), &[KeyValue::new("side", side)]].concat();
            self.house.trades.record(trades.unsigned_abs(), &of);
            self.house.quantity.record(float(quantity), &of);
            self.house.notional.record(float(notional), &of);
        }
        self.house.realised.record(float(books.realised_profit), &of);
        if let (Some(net), Some(unrealised)) = (books.net_notional, books.unrealised_profit) {
            self.house.net.record(float(net), &of);
            self.house.unrealised.record(float(unrealised), &of);
        }
    }

    pub(crate) fn lag(&self, shard: i32, entries: i64) {
        self.lag
            .record(entries.unsigned_abs(), &[KeyValue::new("shard", i64::from(shard))]);
    }

    pub(crate) fn expanded(&self, entries: i64) {
        self.entries.add(entries.unsigned_abs(), &[]);
    }

    pub(crate) fn imbalance(&self, currency: &str, sum: Decimal) {
        self.imbalance
            .record(float(sum), &[KeyValue::new("currency", currency.to_owned())]);
    }

    pub(crate) fn quotes(&self, folded: u64, refused: u64) {
        self.quotes.add(folded, &[KeyValue::new("result", "folded")]);
        self.quotes.add(refused, &[KeyValue::new("result", "refused")]);
    }
}

impl House {
    fn new(meter: &Meter) -> Self {
        let gauge =
            |name: &'static str, description: &'static str| meter.f64_gauge(name).with_description(description).build();
        Self {
            trades: meter
                .u64_gauge("fulcrum.house.open_trades")
                .with_description("Open trades of clients")
                .build(),
            quantity: gauge(
                "fulcrum.house.open_quantity",
                "Quantity of clients' open trades, in the base currency",
            ),
            notional: gauge(
                "fulcrum.house.open_notional",
                "Clients' open quantity times entry price",
            ),
            net: gauge("fulcrum.house.net_notional", "The house's own side at the newest price"),
            realised: gauge(
                "fulcrum.house.realised_profit",
                "What closes brought the house, commission included",
            ),
            unrealised: gauge(
                "fulcrum.house.unrealised_profit",
                "What closing everything at the newest price would bring the house",
            ),
        }
    }
}

/// What no float holds is far from everything.
fn float(amount: Decimal) -> f64 {
    amount.to_f64().unwrap_or(f64::INFINITY)
}
