//! What a list is ordered by: `order_by`, as API guidelines have it (AIP-132), of one field.
//!
//! Each order has an index behind it and a key that tells any two rows apart, so that pages neither repeat nor leave out a row.

use contracts::bus::OpenTradesRequest;
use contracts::names;
use contracts::v1::Trade;
use rust_decimal::Decimal;

use crate::failure::Failure;
use crate::page::{self, Position};

/// Longest order looked at. Bytes.
const ORDER_MAX: usize = 100;
/// What stands for the close of what is open: later than any.
const NEVER: &str = "infinity";
/// The times that a close can have: google.protobuf.Timestamp's, in seconds since the epoch.
const SECONDS: std::ops::RangeInclusive<i64> = -62_135_596_800..=253_402_300_799;

/// A field to order by.
pub(crate) trait Field: Copy + 'static {
    /// All there are, by the names that clients use.
    const ALL: &'static [(&'static str, Self)];
}

/// By what, and which way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Order<F> {
    /// The field.
    pub by: F,
    /// Largest, latest first.
    pub descending: bool,
}

impl<F: Field> Order<F> {
    /// Reads `field`, `field asc` or `field desc`.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut words = text.split_ascii_whitespace();
        let name = words.next().filter(|_| text.len() <= ORDER_MAX).unwrap_or_default();
        let descending = match (words.next(), words.next()) {
            (None | Some("asc"), None) => Some(false),
            (Some("desc"), None) => Some(true),
            _ => None,
        };
        let by = F::ALL.iter().find(|(known, _)| *known == name).map(|(_, by)| *by);
        match (by, descending) {
            (Some(by), Some(descending)) => Ok(Self { by, descending }),
            _ => {
                let names: Vec<&str> = F::ALL.iter().map(|(name, _)| *name).collect();
                Err(format!(
                    "must be one of {}, or one with \" desc\" after it",
                    names.join(", ")
                ))
            }
        }
    }
}

/// What trades are ordered by; among equals by number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TradeField {
    /// The order of their numbers, because a shard's time never falls.
    OpenTime,
    /// What is open comes after all that is closed.
    CloseTime,
    /// As a number, whatever the currency.
    RealisedProfit,
}

impl Field for TradeField {
    const ALL: &'static [(&'static str, Self)] = &[
        ("open_time", Self::OpenTime),
        ("close_time", Self::CloseTime),
        ("realised_profit", Self::RealisedProfit),
    ];
}

/// What ledger lines are ordered by; both are the order of sequence and line, because a shard's time never falls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LineField {
    /// The change.
    Sequence,
    /// When.
    BookTime,
}

impl Field for LineField {
    const ALL: &'static [(&'static str, Self)] = &[("sequence", Self::Sequence), ("book_time", Self::BookTime)];
}

/// How trades are ordered.
pub(crate) type TradeOrder = Order<TradeField>;
/// How ledger lines are ordered.
pub(crate) type LineOrder = Order<LineField>;

impl TradeOrder {
    /// When nothing is said.
    pub const NEWEST_FIRST: Self = Self {
        by: TradeField::OpenTime,
        descending: true,
    };

    /// Where a trade stands.
    pub fn position(self, trade: &Trade) -> Position {
        let value = match self.by {
            TradeField::OpenTime => String::new(),
            TradeField::CloseTime => trade.close_time.map_or(NEVER.to_owned(), |at| at.to_string()),
            TradeField::RealisedProfit => profit(trade).to_string(),
        };
        Position {
            value,
            ..Position::of(number(trade), 0)
        }
    }

    /// Whether a position's value is one of this order's: what is told to the database must be of its column's type.
    pub fn check(self, position: &Position) -> Result<(), Failure> {
        let value = position.value.as_str();
        let fits = match self.by {
            TradeField::OpenTime => value.is_empty(),
            TradeField::CloseTime => {
                let time = value.parse::<prost_types::Timestamp>();
                value == NEVER || time.is_ok_and(|at| SECONDS.contains(&at.seconds) && at.to_string() == value)
            }
            TradeField::RealisedProfit => value.parse::<Decimal>().is_ok_and(|it| it.to_string() == value),
        };
        if fits { Ok(()) } else { Err(page::foreign()) }
    }

    /// Asks the engine for what of the open trades can stand among the next `limit` after a position.
    pub fn of_open(self, after: Option<&Position>, symbol: &str, limit: usize) -> OpenTradesRequest {
        // What is open comes after all that is closed: behind a closed one stand all of them, or, latest first, none.
        let after_closed = after.is_some_and(|after| self.by == TradeField::CloseTime && after.value != NEVER);
        let limit = if after_closed && self.descending { 0 } else { limit };
        let after = after.filter(|_| !after_closed);
        let by_realised_profit = self.by == TradeField::RealisedProfit;
        OpenTradesRequest {
            symbol: symbol.to_owned(),
            limit: u32::try_from(limit).unwrap_or(u32::MAX),
            by_realised_profit,
            descending: self.descending,
            after_number: after.map(|after| after.major),
            after_realised_profit: match after {
                Some(after) if by_realised_profit => after.value.clone(),
                _ => String::new(),
            },
        }
    }
}

impl LineOrder {
    /// When nothing is said.
    pub const OLDEST_FIRST: Self = Self {
        by: LineField::Sequence,
        descending: false,
    };
}

fn number(trade: &Trade) -> u64 {
    names::parse_trade_id(&trade.trade_id).map_or(0, |(_, number)| number)
}

fn profit(trade: &Trade) -> Decimal {
    let amount = trade.realised_profit.as_ref().map(|it| it.amount.as_str());
    amount.and_then(|it| it.parse().ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use contracts::v1::Money;

    fn trade(number: u64, profit: &str) -> Trade {
        Trade {
            trade_id: names::trade_id(3, number),
            realised_profit: Some(Money {
                currency_code: "USDC".into(),
                amount: profit.into(),
            }),
            ..Default::default()
        }
    }

    fn order(text: &str) -> TradeOrder {
        Order::parse(text).unwrap()
    }

    #[test]
    fn an_order_is_one_field_and_a_direction() {
        assert_eq!(order("open_time desc"), TradeOrder::NEWEST_FIRST);
        assert_eq!(
            order("  close_time \t desc "),
            Order {
                by: TradeField::CloseTime,
                descending: true
            }
        );
        assert_eq!(order("realised_profit"), order("realised_profit asc"));
        for refused in [
            "margin",
            "openTime",
            "open_time DESC",
            "open_time,close_time",
            "open_time desc desc",
            "desc",
            " ",
            &"open_time ".repeat(50),
        ] {
            let problem = TradeOrder::parse(refused).unwrap_err();
            assert!(
                problem.contains("open_time, close_time, realised_profit"),
                "{refused}: {problem}"
            );
        }
    }

    #[test]
    fn the_engine_is_asked_for_what_can_stand_on_the_page() {
        let open = trade(7, "-2.50");
        let closed = Trade {
            close_time: Some(prost_types::Timestamp { seconds: 5, nanos: 0 }),
            ..open.clone()
        };
        for (text, after, limit, number, profit) in [
            ("open_time desc", &open, 10, Some(7), ""),
            ("open_time", &closed, 10, Some(7), ""),
            ("close_time", &open, 10, Some(7), ""),
            ("close_time desc", &open, 10, Some(7), ""),
            ("close_time", &closed, 10, None, ""),
            ("close_time desc", &closed, 0, None, ""),
            ("realised_profit desc", &closed, 10, Some(7), "-2.50"),
        ] {
            let order = order(text);
            let position = order.position(after);
            order.check(&position).unwrap();
            let asked = order.of_open(Some(&position), "SOL_USDC", 10);
            let want = OpenTradesRequest {
                symbol: "SOL_USDC".into(),
                limit,
                by_realised_profit: text.starts_with("realised"),
                descending: text.ends_with("desc"),
                after_number: number,
                after_realised_profit: profit.into(),
            };
            assert_eq!(asked, want, "{text}");
        }
        let first = order("close_time desc").of_open(None, "", 10);
        assert_eq!((first.limit, first.after_number), (10, None));
    }

    #[test]
    fn a_position_of_another_kind_is_no_position() {
        let at = |value: &str| Position {
            value: value.into(),
            ..Position::of(1, 0)
        };
        for (text, value) in [
            ("open_time", "1"),
            ("close_time", ""),
            ("close_time", "1.5"),
            ("close_time", "yesterday"),
            ("realised_profit", "infinity"),
            ("realised_profit", "+1.50"),
            ("realised_profit", "'; --"),
        ] {
            assert!(order(text).check(&at(value)).is_err(), "{text} at {value}");
        }
        order("close_time").check(&at("2026-01-03T00:00:00.123456Z")).unwrap();
        order("close_time").check(&at("infinity")).unwrap();
    }
}
