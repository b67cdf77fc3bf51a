//! What a list is ordered by: `order_by`, as API guidelines have it (AIP-132), of one field.
//!
//! Each order has an index behind it and a key that tells any two rows apart, so that pages neither repeat nor leave out a row.

use std::cmp::Ordering;

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

    /// In this direction.
    fn turn(self, ordering: Ordering) -> Ordering {
        if self.descending { ordering.reverse() } else { ordering }
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
            TradeField::RealisedProfit => value.parse::<Decimal>().is_ok(),
        };
        if fits { Ok(()) } else { Err(page::foreign()) }
    }

    /// Sorts what the engine holds open, and keeps what comes after a position. Nothing of it is closed.
    pub fn arrange(self, open: &mut Vec<Trade>, after: Option<&Position>) {
        let key = |profit: Decimal, number| match self.by {
            TradeField::OpenTime | TradeField::CloseTime => (Decimal::ZERO, number),
            TradeField::RealisedProfit => (profit, number),
        };
        let of = |trade: &Trade| key(profit(trade), number(trade));
        if let Some(after) = after {
            let after = key(after.value.parse().unwrap_or_default(), after.major);
            open.retain(|trade| self.turn(of(trade).cmp(&after)).is_gt());
        }
        open.sort_by(|one, other| self.turn(of(one).cmp(&of(other))));
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
    fn what_is_open_is_paged_in_any_order_without_a_repeat_or_a_hole() {
        let open = || vec![trade(1, "0.00"), trade(10, "-2.50"), trade(9, "0"), trade(2, "7.10")];
        for (text, want) in [
            ("open_time desc", [10, 9, 2, 1]),
            ("open_time", [1, 2, 9, 10]),
            ("close_time", [1, 2, 9, 10]),
            ("close_time desc", [10, 9, 2, 1]),
            ("realised_profit", [10, 1, 9, 2]),
            ("realised_profit desc", [2, 9, 1, 10]),
        ] {
            let order = order(text);
            let (mut seen, mut after) = (Vec::new(), None);
            loop {
                let mut rest = open();
                order.arrange(&mut rest, after.as_ref());
                let Some(first) = rest.first() else { break };
                seen.push(number(first));
                let position = order.position(first);
                order.check(&position).unwrap();
                after = Some(position);
            }
            assert_eq!(seen, want, "{text}");
        }
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
            ("realised_profit", "'; --"),
        ] {
            assert!(order(text).check(&at(value)).is_err(), "{text} at {value}");
        }
        order("close_time").check(&at("2026-01-03T00:00:00.123456Z")).unwrap();
        order("close_time").check(&at("infinity")).unwrap();
    }
}
