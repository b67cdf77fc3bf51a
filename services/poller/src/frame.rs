//! One text frame of the venue, read into a typed result. Pure: no clock, no state, and no text makes it panic.
//!
//! Prices are decimal text on the wire and become [`Decimal`] here, never a float. A quote that cannot be traded on is a [`Rejection`],
//! a frame that is not the venue's is [`Garbage`]; both are told apart so that both can be counted.

use rust_decimal::Decimal;
use serde_json::{Map, Value};

use contracts::decimal::{self, DecimalError};
use contracts::{bus, names};

use crate::stream::{self, StreamKind};

/// What a frame turned out to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// A quote that can be traded on.
    Quote(Quote),
    /// A stream the poller has no use for; nothing when the venue has grown a new one.
    Other(Option<StreamKind>),
    /// The venue refused something, for example a subscription.
    VenueError {
        /// Its number, for example 4006.
        code: i64,
        /// Its words.
        message: String,
    },
    /// A quote that cannot be traded on.
    Rejected {
        /// Whose.
        symbol: String,
        /// Why.
        reason: Rejection,
    },
    /// Not a message of the venue's.
    Garbage(Garbage),
}

/// Best bid and ask of one symbol: zero is below the bid, the bid below the ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quote {
    /// Symbol.
    pub symbol: String,
    /// Best bid.
    pub bid: Decimal,
    /// Best ask.
    pub ask: Decimal,
    /// Quantity at the bid; zero when the venue does not say.
    pub bid_quantity: Decimal,
    /// Quantity at the ask; zero when the venue does not say.
    pub ask_quantity: Decimal,
    /// When the venue's engine made it (`T`), microseconds since the epoch.
    pub venue_time_us: u64,
    /// The venue's update number (`u`).
    pub update_id: u64,
}

impl From<Quote> for bus::VenueQuote {
    fn from(quote: Quote) -> Self {
        Self {
            bid: quote.bid.to_string(),
            ask: quote.ask.to_string(),
            bid_quantity: quote.bid_quantity.to_string(),
            ask_quantity: quote.ask_quantity.to_string(),
            venue_time_us: quote.venue_time_us,
            update_id: quote.update_id,
            symbol: quote.symbol,
        }
    }
}

/// Why a quote cannot be traded on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rejection {
    /// A side of the book is empty.
    OneSided,
    /// A price is not above zero, or a quantity is below.
    NotPositive,
    /// The bid is not below the ask.
    Crossed,
    /// A price or quantity is not plain decimal text of at most 18 digits.
    Unreadable,
}

/// Why a frame is not a message of the venue's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Garbage {
    /// Not a JSON object.
    NotAnObject,
    /// Neither `stream` with `data` nor `error`.
    NoEnvelope,
    /// This field of a quote is missing, of the wrong type or contradicts the envelope.
    Field(&'static str),
}

/// Reads one text frame.
#[must_use]
pub fn parse(text: &str) -> Frame {
    let Ok(Value::Object(envelope)) = serde_json::from_str(text) else {
        return Frame::Garbage(Garbage::NotAnObject);
    };
    if let Some(Value::Object(error)) = envelope.get("error") {
        return Frame::VenueError {
            code: error.get("code").and_then(Value::as_i64).unwrap_or_default(),
            message: error
                .get("message")
                .and_then(Value::as_str)
                .unwrap_or_default()
                .to_owned(),
        };
    }
    let (Some(Value::String(name)), Some(Value::Object(data))) = (envelope.get("stream"), envelope.get("data")) else {
        return Frame::Garbage(Garbage::NoEnvelope);
    };
    match stream::kind(name) {
        Ok(StreamKind::BookTicker) => match quote(name, data) {
            Ok(quote) => Frame::Quote(quote),
            Err(frame) => frame,
        },
        other => Frame::Other(other.ok()),
    }
}

/// Reads `data` of a `bookTicker` stream, or says as a frame why it cannot.
fn quote(name: &str, data: &Map<String, Value>) -> Result<Quote, Frame> {
    let garbage = |field| Frame::Garbage(Garbage::Field(field));
    if data.get("e").is_some_and(|event| event != "bookTicker") {
        return Err(garbage("e"));
    }
    let symbol = data.get("s").and_then(Value::as_str).ok_or_else(|| garbage("s"))?;
    // A price whose symbol is in doubt is worse than none.
    if names::check_symbol(symbol).is_err() || name.split_once('.').is_none_or(|(_, rest)| rest != symbol) {
        return Err(garbage("s"));
    }
    let venue_time_us = integer(data.get("T")).ok_or_else(|| garbage("T"))?;
    let update_id = integer(data.get("u")).ok_or_else(|| garbage("u"))?;

    let rejected = |reason| Frame::Rejected {
        symbol: symbol.to_owned(),
        reason,
    };
    let (Some(bid), Some(ask)) = (given(data.get("b")), given(data.get("a"))) else {
        return Err(rejected(Rejection::OneSided));
    };
    let price = |value| number(value).ok_or_else(|| rejected(Rejection::Unreadable));
    let quantity = |key| given(data.get(key)).map_or(Ok(Decimal::ZERO), price);
    let quote = Quote {
        bid: price(bid)?,
        ask: price(ask)?,
        bid_quantity: quantity("B")?,
        ask_quantity: quantity("A")?,
        symbol: symbol.to_owned(),
        venue_time_us,
        update_id,
    };
    let zero = Decimal::ZERO;
    if quote.bid <= zero || quote.ask <= zero || quote.bid_quantity < zero || quote.ask_quantity < zero {
        return Err(rejected(Rejection::NotPositive));
    }
    if quote.bid >= quote.ask {
        return Err(rejected(Rejection::Crossed));
    }
    Ok(quote)
}

/// A value that is there and not null.
fn given(value: Option<&Value>) -> Option<&Value> {
    value.filter(|value| !value.is_null())
}

/// An id or a time: a JSON number, or, as the venue's documentation has it, the same in quotes.
fn integer(value: Option<&Value>) -> Option<u64> {
    match value? {
        Value::Number(number) => number.as_u64(),
        Value::String(text) if text.bytes().all(|byte| byte.is_ascii_digit()) => text.parse().ok(),
        _ => None,
    }
}

/// A price or quantity. A bare JSON number is refused: it may have been through a float.
fn number(value: &Value) -> Option<Decimal> {
    let text = value.as_str()?;
    match decimal::parse(text) {
        Ok(value) => Some(value),
        // The venue pads with zeros; without them it may fit.
        Err(DecimalError::TooLong) => {
            let value = Decimal::from_str_exact(text).ok()?.normalize();
            decimal::parse(&value.to_string()).ok()
        }
        Err(DecimalError::Empty | DecimalError::NotCanonical) => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A quote frame with some fields replaced, or removed with an empty text.
    fn with(changes: &[(&str, &str)]) -> Frame {
        let text = r#"{"A":"19.60","B":"56.02","E":2,"T":1736172777497712,"a":"218.61","b":"218.58","e":"bookTicker","s":"SOL_USDC","u":7}"#;
        let mut data: Map<String, Value> = serde_json::from_str(text).unwrap();
        for (key, value) in changes {
            match *value {
                "" => data.remove(*key),
                json => data.insert((*key).to_owned(), serde_json::from_str(json).unwrap()),
            };
        }
        let symbol = data.get("s").and_then(Value::as_str).unwrap_or("SOL_USDC");
        parse(&serde_json::json!({"stream": format!("bookTicker.{symbol}"), "data": data}).to_string())
    }

    fn rejection(changes: &[(&str, &str)]) -> Rejection {
        match with(changes) {
            Frame::Rejected { reason, .. } => reason,
            other => panic!("{changes:?} gave {other:?}"),
        }
    }

    fn read(changes: &[(&str, &str)]) -> Quote {
        match with(changes) {
            Frame::Quote(quote) => quote,
            other => panic!("{changes:?} gave {other:?}"),
        }
    }

    #[test]
    fn a_quote_keeps_the_digits_of_the_venue() {
        let wire = bus::VenueQuote::from(read(&[("b", r#""218.50""#)]));
        assert_eq!((wire.bid.as_str(), wire.ask.as_str()), ("218.50", "218.61"));
        assert_eq!(
            (wire.bid_quantity.as_str(), wire.ask_quantity.as_str()),
            ("56.02", "19.60")
        );
        assert_eq!(
            (wire.venue_time_us, wire.update_id, wire.symbol.as_str()),
            (1_736_172_777_497_712, 7, "SOL_USDC")
        );
    }

    #[test]
    fn an_update_id_is_a_number_or_a_text() {
        assert_eq!(read(&[("u", "1802083092")]).update_id, 1_802_083_092);
        assert_eq!(
            read(&[("u", r#""111063070525358080""#)]).update_id,
            111_063_070_525_358_080
        );
        for bad in [
            "",
            "null",
            "-1",
            "1.5",
            "1e3",
            "99999999999999999999",
            r#""x""#,
            r#""""#,
            r#""+1""#,
            "[]",
        ] {
            assert_eq!(with(&[("u", bad)]), Frame::Garbage(Garbage::Field("u")), "{bad}");
        }
    }

    #[test]
    fn a_symbol_may_hold_a_dot_and_must_be_the_streams() {
        assert_eq!(read(&[("s", r#""AAPL.US_USDC_PERP""#)]).symbol, "AAPL.US_USDC_PERP");
        for bad in [r#""sol""#, "7", "null"] {
            assert_eq!(with(&[("s", bad)]), Frame::Garbage(Garbage::Field("s")), "{bad}");
        }
        let other =
            r#"{"data":{"T":1,"a":"2","b":"1","e":"bookTicker","s":"BTC_USDC","u":1},"stream":"bookTicker.SOL_USDC"}"#;
        assert_eq!(parse(other), Frame::Garbage(Garbage::Field("s")));
    }

    #[test]
    fn a_book_with_an_empty_side_is_no_quote() {
        assert_eq!(rejection(&[("a", "null"), ("A", "null")]), Rejection::OneSided);
        assert_eq!(rejection(&[("b", "")]), Rejection::OneSided);
    }

    #[test]
    fn a_crossed_or_locked_book_is_no_quote() {
        assert_eq!(rejection(&[("b", r#""218.62""#)]), Rejection::Crossed);
        assert_eq!(rejection(&[("b", r#""218.610""#)]), Rejection::Crossed);
    }

    #[test]
    fn a_price_is_above_zero() {
        for bad in [r#""0""#, r#""0.00""#, r#""-0""#, r#""-1.5""#] {
            assert_eq!(rejection(&[("b", bad)]), Rejection::NotPositive, "{bad}");
        }
        assert_eq!(rejection(&[("A", r#""-1""#)]), Rejection::NotPositive);
    }

    #[test]
    fn a_price_is_plain_decimal_text() {
        for bad in [
            "218.58", r#""""#, r#""1e2""#, r#""+1""#, r#""1,5""#, r#"" 1""#, r#"".5""#, r#""NaN""#, r#""1_0""#, "true",
            "[1]",
        ] {
            assert_eq!(rejection(&[("b", bad)]), Rejection::Unreadable, "{bad}");
        }
        assert_eq!(rejection(&[("b", r#""1234567890123456789""#)]), Rejection::Unreadable);
        assert_eq!(
            rejection(&[("b", r#""99999999999999999999999999999999999999""#)]),
            Rejection::Unreadable
        );
    }

    #[test]
    fn zeros_that_only_pad_do_not_make_a_number_too_long() {
        let quote = read(&[("B", r#""123456789012.500000000000""#)]);
        assert_eq!(quote.bid_quantity.to_string(), "123456789012.5");
    }

    #[test]
    fn a_missing_quantity_is_zero() {
        assert_eq!(read(&[("A", "null"), ("B", "")]).ask_quantity, Decimal::ZERO);
    }

    #[test]
    fn fields_the_venue_may_add_do_not_matter() {
        assert_eq!(read(&[("zz", r#"{"deep":[1,null]}"#)]), read(&[]));
    }

    #[test]
    fn what_is_not_the_venues_is_garbage() {
        for text in [
            "",
            "hello",
            "null",
            "7",
            "[]",
            "\"x\"",
            "{",
            "{\"a\":",
            "\u{0}",
            &"[".repeat(100_000),
        ] {
            assert_eq!(
                parse(text),
                Frame::Garbage(Garbage::NotAnObject),
                "{}",
                &text[..text.len().min(20)]
            );
        }
        for text in [
            "{}",
            r#"{"stream":"bookTicker.SOL_USDC"}"#,
            r#"{"stream":7,"data":{}}"#,
            r#"{"result":null,"id":1}"#,
            r#"{"error":null}"#,
        ] {
            assert_eq!(parse(text), Frame::Garbage(Garbage::NoEnvelope), "{text}");
        }
        assert_eq!(with(&[("T", "")]), Frame::Garbage(Garbage::Field("T")));
        assert_eq!(with(&[("e", r#""trade""#)]), Frame::Garbage(Garbage::Field("e")));
    }

    #[test]
    fn a_stream_the_venue_may_add_is_ignored() {
        assert_eq!(parse(r#"{"stream":"candle.SOL_USDC","data":{}}"#), Frame::Other(None));
        assert_eq!(
            parse(r#"{"stream":"trade.SOL_USDC","data":{}}"#),
            Frame::Other(Some(StreamKind::Trade))
        );
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in ".{0,200}") {
            let _ = parse(&text);
        }

        #[test]
        fn no_field_makes_it_panic(
            key in "[ABETabesu]",
            value in prop_oneof![Just("null".to_owned()), "-?[0-9]{1,30}", "\"[-0-9.eE+_]{0,40}\"", "[0-9]{1,5}e[0-9]{1,3}"],
        ) {
            if serde_json::from_str::<Value>(&value).is_ok() {
                let _ = with(&[(&key, &value)]);
            }
        }
    }
}
