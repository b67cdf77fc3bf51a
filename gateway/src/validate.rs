//! The syntax of every request, checked at the edge: what passes is well-formed, for an account that the token covers.
//!
//! All problems of a request are found and named at once. What needs state (ticks, steps, limits of an instrument) is
//! the engine's to check.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use contracts::v1::{self, close_trade_request as close, modify_trade_request as modify, open_trade_request as open};
use contracts::{decimal, names, request_id};
use rust_decimal::Decimal;
use uuid::Uuid;

use crate::auth::Identity;
use crate::failure::{Failure, Violation};
use crate::order::{Field, Order};

/// Page sizes.
const PAGE_DEFAULT: usize = 100;
const PAGE_MAX: i32 = 1_000;
/// Longest page token looked at. Bytes.
const PAGE_TOKEN_MAX: usize = 128;
/// Most symbols of one stream of quotes.
const SYMBOLS_MAX: usize = 100;
const HEARTBEAT_DEFAULT: Duration = Duration::from_secs(10);
const MINUTE: Duration = Duration::from_secs(60);
const BPS_MAX: u32 = 10_000;

/// A mutation that may be queued. Its command names the resolved account and the id in its one spelling.
#[derive(Clone, Debug)]
pub(crate) struct Mutation<T> {
    /// The account, "me" resolved.
    pub account_id: String,
    /// As the client made it, or we.
    pub request_id: Uuid,
    /// The command.
    pub command: T,
}

/// Collects what is wrong with one request.
pub(crate) struct Checks<'a> {
    caller: &'a Identity,
    violations: Vec<Violation>,
}

impl<'a> Checks<'a> {
    /// Of a request by this caller.
    pub fn new(caller: &'a Identity) -> Self {
        Self {
            caller,
            violations: Vec::new(),
        }
    }

    /// Notes a problem.
    pub fn fail(&mut self, field: &str, problem: impl Into<String>) {
        self.violations.push(Violation {
            field: field.to_owned(),
            problem: problem.into(),
        });
    }

    fn hold<T>(&mut self, field: &str, checked: Result<T, impl std::fmt::Display>) -> Option<T> {
        checked.map_err(|problem| self.fail(field, problem.to_string())).ok()
    }

    /// Says all problems, or whether the token covers the account.
    pub fn finish(self, account_id: Option<&str>) -> Result<(), Failure> {
        if !self.violations.is_empty() {
            return Err(Failure::Invalid(self.violations));
        }
        account_id.map_or(Ok(()), |account_id| self.caller.require_account(account_id))
    }

    /// An account id; `me` is replaced by what it stands for.
    pub fn account(&mut self, text: &mut String) {
        if text == names::ME {
            match self.caller.only_account() {
                Some(account) => account.clone_into(text),
                None => self.fail("account_id", "can be \"me\" only with a token for exactly one account"),
            }
        } else {
            self.hold("account_id", names::check_account_id(text));
        }
    }

    /// The id of a mutation; made here when the client made none.
    fn request_id(&mut self, text: &mut String) -> Uuid {
        let id = if text.is_empty() {
            Uuid::now_v7()
        } else {
            let Some(id) = self.hold("request_id", request_id::parse(text)) else {
                return Uuid::nil();
            };
            let now_ms = SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .unwrap_or_default()
                .as_millis();
            if u128::from(request_id::time_ms(id)) > now_ms + u128::from(request_id::AHEAD_MAX_MS) {
                self.fail("request_id", "has a time more than 5 minutes ahead: check your clock");
            }
            id
        };
        *text = id.to_string();
        id
    }

    /// A symbol or currency code.
    pub fn symbol(&mut self, field: &str, text: &str) {
        self.hold(field, names::check_symbol(text));
    }

    /// The same, or nothing.
    pub fn optional_symbol(&mut self, field: &str, text: &str) {
        if !text.is_empty() {
            self.symbol(field, text);
        }
    }

    fn positive(&mut self, field: &str, text: &str) -> Option<Decimal> {
        let value = self.hold(field, decimal::parse(text))?;
        if value <= Decimal::ZERO {
            self.fail(field, "must be greater than zero");
        }
        Some(value)
    }

    fn optional_positive(&mut self, field: &str, text: &str) {
        if !text.is_empty() {
            self.positive(field, text);
        }
    }

    /// A trade id, as shard and number.
    pub fn trade_id(&mut self, text: &str) -> (u32, u64) {
        self.hold("trade_id", names::parse_trade_id(text)).unwrap_or_default()
    }

    fn money(&mut self, field: &str, money: Option<&v1::Money>) {
        let Some(money) = money else {
            self.fail(field, "is required");
            return;
        };
        self.symbol(&format!("{field}.currency_code"), &money.currency_code);
        self.positive(&format!("{field}.amount"), &money.amount);
    }

    /// A sequence, which Postgres must be able to hold.
    pub fn sequence(&mut self, field: &str, sequence: u64) {
        if i64::try_from(sequence).is_err() {
            self.fail(field, "is not a sequence that this service gave out");
        }
    }

    /// How many rows a page has, and whether its token may be looked at.
    pub fn page(&mut self, size: i32, token: &str) -> usize {
        if token.len() > PAGE_TOKEN_MAX {
            self.fail("page_token", "is not a token that this service gave out");
        }
        match size {
            0 => PAGE_DEFAULT,
            1..=PAGE_MAX => usize::try_from(size).expect("positive"),
            _ => {
                self.fail("page_size", format!("must be 1 to {PAGE_MAX}, or 0 for {PAGE_DEFAULT}"));
                PAGE_DEFAULT
            }
        }
    }

    /// What a list is ordered by; `default` when nothing is said.
    pub fn order<F: Field>(&mut self, text: &str, default: Order<F>) -> Order<F> {
        if text.is_empty() {
            return default;
        }
        self.hold("order_by", Order::parse(text)).unwrap_or(default)
    }

    fn duration(&mut self, field: &str, given: Option<prost_types::Duration>, least: Duration) -> Option<Duration> {
        let checked = Duration::try_from(given?)
            .ok()
            .filter(|it| (least..=MINUTE).contains(it));
        if checked.is_none() {
            self.fail(
                field,
                format!("must be {} s to {} s", least.as_secs(), MINUTE.as_secs()),
            );
        }
        checked
    }

    /// A time that Postgres can hold, in microseconds since the epoch.
    pub fn time(&mut self, field: &str, given: Option<prost_types::Timestamp>) -> Option<i64> {
        let given = given?;
        // The range of google.protobuf.Timestamp: the years 1 to 9999.
        let sane =
            (-62_135_596_800..=253_402_300_799).contains(&given.seconds) && (0..1_000_000_000).contains(&given.nanos);
        if !sane {
            self.fail(field, "must be a time in the years 1 to 9999");
            return None;
        }
        Some(given.seconds * 1_000_000 + i64::from(given.nanos) / 1_000)
    }
}

/// Checks one mutation: its account and id, and what `rest` looks at.
fn mutation<T>(
    caller: &Identity,
    mut command: T,
    ids: impl Fn(&mut T) -> (&mut String, &mut String),
    rest: impl FnOnce(&mut Checks<'_>, &T),
) -> Result<Mutation<T>, Failure> {
    let mut checks = Checks::new(caller);
    let (account_id, id) = ids(&mut command);
    checks.account(account_id);
    let request_id = checks.request_id(id);
    let account_id = account_id.clone();
    rest(&mut checks, &command);
    checks.finish(Some(&account_id))?;
    Ok(Mutation {
        account_id,
        request_id,
        command,
    })
}

/// Checks an `InitializeWallet`.
pub(crate) fn initialize_wallet(
    caller: &Identity,
    it: v1::InitializeWalletRequest,
) -> Result<Mutation<v1::InitializeWalletRequest>, Failure> {
    mutation(caller, it, |it| (&mut it.account_id, &mut it.request_id), |_, _| {})
}

/// Checks a `Deposit`.
pub(crate) fn deposit(caller: &Identity, it: v1::DepositRequest) -> Result<Mutation<v1::DepositRequest>, Failure> {
    mutation(
        caller,
        it,
        |it| (&mut it.account_id, &mut it.request_id),
        |checks, it| {
            checks.money("amount", it.amount.as_ref());
        },
    )
}

/// Checks a `Withdraw`.
pub(crate) fn withdraw(caller: &Identity, it: v1::WithdrawRequest) -> Result<Mutation<v1::WithdrawRequest>, Failure> {
    mutation(
        caller,
        it,
        |it| (&mut it.account_id, &mut it.request_id),
        |checks, it| {
            checks.money("amount", it.amount.as_ref());
        },
    )
}

/// Checks an `OpenTrade`.
pub(crate) fn open_trade(
    caller: &Identity,
    it: v1::OpenTradeRequest,
) -> Result<Mutation<v1::OpenTradeRequest>, Failure> {
    mutation(
        caller,
        it,
        |it| (&mut it.account_id, &mut it.request_id),
        |checks, it| {
            checks.symbol("symbol", &it.symbol);
            if !matches!(v1::Side::try_from(it.side), Ok(v1::Side::Long | v1::Side::Short)) {
                checks.fail("side", "must be SIDE_LONG or SIDE_SHORT");
            }
            match &it.size {
                Some(open::Size::Margin(margin)) => _ = checks.positive("margin", margin),
                Some(open::Size::Quantity(quantity)) => _ = checks.positive("quantity", quantity),
                None => checks.fail("size", "is required: either margin or quantity"),
            }
            checks.positive("leverage", &it.leverage);
            checks.optional_positive("stop_loss_price", &it.stop_loss_price);
            checks.optional_positive("take_profit_price", &it.take_profit_price);
            if let Some(slippage) = &it.slippage {
                checks.positive("slippage.expected_price", &slippage.expected_price);
                if slippage.deviation_max_bps > BPS_MAX {
                    checks.fail("slippage.deviation_max_bps", format!("must be 0 to {BPS_MAX}"));
                }
            }
        },
    )
}

/// Checks a `CloseTrade`.
pub(crate) fn close_trade(
    caller: &Identity,
    it: v1::CloseTradeRequest,
) -> Result<Mutation<v1::CloseTradeRequest>, Failure> {
    mutation(
        caller,
        it,
        |it| (&mut it.account_id, &mut it.request_id),
        |checks, it| {
            checks.trade_id(&it.trade_id);
            match &it.portion {
                Some(close::Portion::Quantity(quantity)) => _ = checks.positive("quantity", quantity),
                Some(close::Portion::Percent(percent)) => {
                    let value = checks.positive("percent", percent);
                    if value.is_some_and(|value| value > Decimal::ONE_HUNDRED) {
                        checks.fail("percent", "must be at most 100");
                    }
                }
                None => {}
            }
        },
    )
}

/// Checks a `ModifyTrade`.
pub(crate) fn modify_trade(
    caller: &Identity,
    it: v1::ModifyTradeRequest,
) -> Result<Mutation<v1::ModifyTradeRequest>, Failure> {
    mutation(
        caller,
        it,
        |it| (&mut it.account_id, &mut it.request_id),
        |checks, it| {
            checks.trade_id(&it.trade_id);
            match &it.stop_loss {
                Some(modify::StopLoss::StopLossPrice(price)) => _ = checks.positive("stop_loss_price", price),
                Some(modify::StopLoss::ClearStopLoss(false)) => {
                    checks.fail("clear_stop_loss", "must be true or absent")
                }
                Some(modify::StopLoss::ClearStopLoss(true)) | None => {}
            }
            match &it.take_profit {
                Some(modify::TakeProfit::TakeProfitPrice(price)) => _ = checks.positive("take_profit_price", price),
                Some(modify::TakeProfit::ClearTakeProfit(false)) => {
                    checks.fail("clear_take_profit", "must be true or absent")
                }
                Some(modify::TakeProfit::ClearTakeProfit(true)) | None => {}
            }
            checks.optional_positive("add_margin", &it.add_margin);
            if it.stop_loss.is_none() && it.take_profit.is_none() && it.add_margin.is_empty() {
                checks.fail(
                    "request",
                    "changes nothing: set a stop-loss, a take-profit or add_margin",
                );
            }
        },
    )
}

/// Checks a read of one account: its id is resolved in place.
pub(crate) fn account_read(
    caller: &Identity,
    account_id: &mut String,
    min_sequence: u64,
    rest: impl FnOnce(&mut Checks<'_>),
) -> Result<(), Failure> {
    let mut checks = Checks::new(caller);
    checks.account(account_id);
    checks.sequence("min_sequence", min_sequence);
    rest(&mut checks);
    checks.finish(Some(account_id))
}

/// Checks a `GetOperation` and reads its id: any UUID, for an old one is not malformed.
pub(crate) fn get_operation(caller: &Identity, it: &mut v1::GetOperationRequest) -> Result<Uuid, Failure> {
    let mut checks = Checks::new(caller);
    checks.account(&mut it.account_id);
    let id = checks.hold(
        "request_id",
        Uuid::try_parse(&it.request_id).map_err(|_| "must be a UUID"),
    );
    checks.finish(Some(&it.account_id))?;
    let id = id.unwrap_or_default();
    it.request_id = id.to_string();
    Ok(id)
}

/// Checks a `StreamAccountEvents` and reads how often it wants a heartbeat.
pub(crate) fn account_events(caller: &Identity, it: &mut v1::StreamAccountEventsRequest) -> Result<Duration, Failure> {
    let mut checks = Checks::new(caller);
    checks.account(&mut it.account_id);
    checks.sequence("resume_after_sequence", it.resume_after_sequence);
    let every = checks.duration("heartbeat_interval", it.heartbeat_interval, Duration::from_secs(1));
    checks.finish(Some(&it.account_id))?;
    Ok(every.unwrap_or(HEARTBEAT_DEFAULT))
}

/// Checks a `StreamQuotes` and reads its conflation interval.
pub(crate) fn stream_quotes(caller: &Identity, it: &v1::StreamQuotesRequest) -> Result<Duration, Failure> {
    let mut checks = Checks::new(caller);
    if it.symbols.len() > SYMBOLS_MAX {
        checks.fail("symbols", format!("must be at most {SYMBOLS_MAX}"));
    } else {
        for (index, symbol) in it.symbols.iter().enumerate() {
            checks.symbol(&format!("symbols[{index}]"), symbol);
        }
    }
    let interval = checks.duration("conflation_interval", it.conflation_interval, Duration::ZERO);
    checks.finish(None)?;
    Ok(interval.unwrap_or_default())
}

#[cfg(test)]
mod tests;
