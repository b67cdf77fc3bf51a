//! Names of the venue's streams: `bookTicker.SOL_USDC`, `kline.1m.SOL_USDC`, `depth.200ms.SOL_USDC`.
//!
//! A symbol may itself hold a dot (`AAPL.US_USDC_PERP`), so a name is split at its first dot and at the second only where a window or an
//! interval stands.

/// What kind of stream a name means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamKind {
    /// Best bid and ask.
    BookTicker,
    /// Each trade.
    Trade,
    /// Mark and index price, funding.
    MarkPrice,
    /// Candles.
    Kline,
    /// Changes of the order book.
    Depth,
    /// Figures of the last day.
    Ticker,
    /// Open interest.
    OpenInterest,
    /// Liquidations.
    Liquidation,
    /// Private streams.
    Account,
}

/// Why a name means no stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamFault {
    /// No such kind of stream.
    Unknown,
    /// A depth window that does not exist.
    DepthWindow,
}

/// Windows of aggregated depth.
const DEPTH_WINDOWS: [&str; 3] = ["200ms", "600ms", "1000ms"];

/// Reads the kind of a stream name. Whether the symbol trades is not known here: the venue is silent on those that do not.
///
/// # Errors
/// See [`StreamFault`].
pub fn kind(name: &str) -> Result<StreamKind, StreamFault> {
    let (prefix, rest) = name.split_once('.').unwrap_or((name, ""));
    let kind = match prefix {
        "bookTicker" => StreamKind::BookTicker,
        "trade" => StreamKind::Trade,
        "markPrice" => StreamKind::MarkPrice,
        "kline" => StreamKind::Kline,
        "depth" => {
            let window = rest.split_once('.').map_or("", |(window, _)| window);
            let looks = window
                .strip_suffix("ms")
                .is_some_and(|n| !n.is_empty() && n.bytes().all(|byte| byte.is_ascii_digit()));
            if looks && !DEPTH_WINDOWS.contains(&window) {
                return Err(StreamFault::DepthWindow);
            }
            StreamKind::Depth
        }
        "ticker" => StreamKind::Ticker,
        "openInterest" => StreamKind::OpenInterest,
        "liquidation" => return Ok(StreamKind::Liquidation),
        "account" => StreamKind::Account,
        _ => return Err(StreamFault::Unknown),
    };
    if rest.is_empty() {
        Err(StreamFault::Unknown)
    } else {
        Ok(kind)
    }
}

/// The stream of best bid and ask of one symbol.
#[must_use]
pub fn book_ticker(symbol: &str) -> String {
    format!("bookTicker.{symbol}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_split_at_its_first_dot() {
        assert_eq!(kind("bookTicker.SOL_USDC"), Ok(StreamKind::BookTicker));
        assert_eq!(kind("markPrice.AAPL.US_USDC_PERP"), Ok(StreamKind::MarkPrice));
        assert_eq!(kind("depth.AAPL.US_USDC_PERP"), Ok(StreamKind::Depth));
        assert_eq!(kind("depth.200ms.AAPL.US_USDC_PERP"), Ok(StreamKind::Depth));
        assert_eq!(kind("kline.1m.SOL_USDC"), Ok(StreamKind::Kline));
        assert_eq!(kind("liquidation"), Ok(StreamKind::Liquidation));
        assert_eq!(kind("account.orderUpdate.SOL_USDC"), Ok(StreamKind::Account));
    }

    #[test]
    fn what_the_venue_does_not_stream_has_no_kind() {
        assert_eq!(kind("nope.BTC_USDC_PERP"), Err(StreamFault::Unknown));
        assert_eq!(kind("bookTicker"), Err(StreamFault::Unknown));
        assert_eq!(kind("bookTicker."), Err(StreamFault::Unknown));
        assert_eq!(kind(""), Err(StreamFault::Unknown));
        assert_eq!(kind("depth.100ms.SOL_USDC"), Err(StreamFault::DepthWindow));
    }
}
