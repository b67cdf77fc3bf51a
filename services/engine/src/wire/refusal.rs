//! The core's refusals as failures on the bus.

use contracts::bus::{Fact, Failure, FieldProblem};
use contracts::v1::ErrorReason;
use engine_core::Refusal;

use super::amount_text;

/// When to try again after a price was not current. Milliseconds.
const PRICE_RETRY_MS: u32 = 1_000;

/// Writes a refusal. Its text says what to do next; its facts are the numbers a client needs.
#[must_use]
pub fn failure(refusal: &Refusal) -> Failure {
    let mut failure = Failure {
        reason: reason(refusal).into(),
        message: refusal.to_string(),
        facts: facts(refusal),
        ..Failure::default()
    };
    match refusal {
        Refusal::StalePrice { .. } | Refusal::PriceMissing { .. } => failure.retry_after_ms = PRICE_RETRY_MS,
        Refusal::Invalid { field, problem } => {
            let field = public_field(field);
            failure.message = format!("{field} {problem}");
            failure.fields.push(FieldProblem {
                field: field.to_owned(),
                problem: problem.to_string(),
            });
        }
        _ => {}
    }
    failure
}

/// A field of a command as the public request spells it, so that a client finds what it sent.
fn public_field(field: &str) -> &str {
    match field {
        "amount" => "amount.amount",
        "stop_loss" => "stop_loss_price",
        "take_profit" => "take_profit_price",
        "slippage" => "slippage.expected_price",
        same => same,
    }
}

fn reason(refusal: &Refusal) -> ErrorReason {
    match refusal {
        Refusal::AccountNotFound { .. } => ErrorReason::AccountNotFound,
        Refusal::SymbolUnknown { .. } => ErrorReason::SymbolUnknown,
        Refusal::CurrencyUnknown { .. } => ErrorReason::CurrencyUnknown,
        Refusal::TradeNotFound { .. } => ErrorReason::TradeNotFound,
        Refusal::TradeClosed { .. } => ErrorReason::TradeClosed,
        Refusal::InsufficientMargin { .. } => ErrorReason::InsufficientMargin,
        Refusal::InsufficientFunds { .. } => ErrorReason::InsufficientFunds,
        Refusal::StalePrice { .. } | Refusal::PriceMissing { .. } => ErrorReason::StalePrice,
        Refusal::PriceMoved { .. } => ErrorReason::PriceMoved,
        Refusal::MarketClosed { .. } => ErrorReason::MarketClosed,
        Refusal::MaxExposureReached { .. } => ErrorReason::MaxExposureReached,
        Refusal::Invalid { .. } => ErrorReason::InvalidField,
    }
}

fn facts(refusal: &Refusal) -> Vec<Fact> {
    let fact = |name: &str, value: String| Fact {
        name: name.to_owned(),
        value,
    };
    match refusal {
        Refusal::InsufficientMargin { needed, free, currency }
        | Refusal::InsufficientFunds { needed, free, currency } => vec![
            fact("needed", amount_text(*needed, currency)),
            fact("free", amount_text(*free, currency)),
            fact("currency_code", currency.to_string()),
        ],
        Refusal::PriceMoved {
            expected,
            actual,
            deviation_bps,
        } => vec![
            fact("expected_price", expected.to_string()),
            fact("price", actual.to_string()),
            fact("deviation_bps", deviation_bps.to_string()),
        ],
        Refusal::StalePrice {
            symbol,
            age_us,
            limit_us,
            ..
        } => vec![
            fact("symbol", symbol.to_string()),
            fact("age_ms", (age_us / 1_000).to_string()),
            fact("limit_ms", (limit_us / 1_000).to_string()),
        ],
        Refusal::PriceMissing { symbol } | Refusal::SymbolUnknown { symbol } => {
            vec![fact("symbol", symbol.to_string())]
        }
        Refusal::MarketClosed { symbol, mode } => {
            vec![fact("symbol", symbol.to_string()), fact("mode", mode.to_string())]
        }
        Refusal::MaxExposureReached {
            symbol,
            would_be,
            limit,
        } => vec![
            fact("symbol", symbol.to_string()),
            fact("would_be", would_be.to_string()),
            fact("limit", limit.to_string()),
        ],
        Refusal::AccountNotFound { .. }
        | Refusal::CurrencyUnknown { .. }
        | Refusal::TradeNotFound { .. }
        | Refusal::TradeClosed { .. }
        | Refusal::Invalid { .. } => Vec::new(),
    }
}
