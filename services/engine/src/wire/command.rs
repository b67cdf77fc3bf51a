//! Requests to the core's commands: text becomes a type here, through constructors that can say no.

use contracts::bus::request::Command as Sent;
use contracts::bus::{Failure, FieldProblem, OperationKind};
use contracts::v1::{self, ErrorReason};
use contracts::{decimal, names, shard};
use engine_core::{
    AccountId, Change, Command, Currency, Leverage, Money, OpenTrade, Percent, Portion, Price, Quantity, Side, Size,
    SlippageBound, Symbol, TradeId,
};
use rust_decimal::Decimal;

/// A mutation, ready to be decided.
#[derive(Debug)]
pub struct Mutation {
    /// Which method.
    pub kind: OperationKind,
    /// What to do.
    pub command: Command,
}

/// The kind of a mutation; nothing for a read.
#[must_use]
pub fn kind_of(sent: &Sent) -> Option<OperationKind> {
    match sent {
        Sent::InitializeWallet(_) => Some(OperationKind::InitializeWallet),
        Sent::Deposit(_) => Some(OperationKind::Deposit),
        Sent::Withdraw(_) => Some(OperationKind::Withdraw),
        Sent::OpenTrade(_) => Some(OperationKind::OpenTrade),
        Sent::CloseTrade(_) => Some(OperationKind::CloseTrade),
        Sent::ModifyTrade(_) => Some(OperationKind::ModifyTrade),
        Sent::ListBalances(_)
        | Sent::GetBalance(_)
        | Sent::GetAccountSummary(_)
        | Sent::GetTrade(_)
        | Sent::ListOpenTrades(_)
        | Sent::OpenTrades(_)
        | Sent::ListInstruments(_)
        | Sent::GetQuote(_)
        | Sent::GetOperation(_)
        | Sent::AccountSnapshot(_)
        | Sent::GetConservation(_) => None,
    }
}

/// Reads a mutation for `account`; the account inside the command was put there by the gateway and is not looked at.
///
/// # Errors
/// `INVALID_FIELD` with every field at fault. Boxed: it is the rare case.
pub fn mutation(kind: OperationKind, account: &AccountId, shard: u32, sent: &Sent) -> Result<Mutation, Box<Failure>> {
    let mut fields = Fields::default();
    let account = account.clone();
    let command = match sent {
        Sent::InitializeWallet(_) => Some(Command::InitializeWallet { account }),
        Sent::Deposit(it) => fields
            .money(it.amount.as_ref())
            .map(|(currency, amount)| Command::Deposit {
                account,
                currency,
                amount,
            }),
        Sent::Withdraw(it) => fields
            .money(it.amount.as_ref())
            .map(|(currency, amount)| Command::Withdraw {
                account,
                currency,
                amount,
            }),
        Sent::OpenTrade(it) => fields.open_trade(account, it).map(Command::OpenTrade),
        Sent::CloseTrade(it) => fields.close_trade(account, shard, it),
        Sent::ModifyTrade(it) => fields.modify_trade(account, shard, it),
        _ => None,
    };
    match command {
        Some(command) if fields.problems.is_empty() => Ok(Mutation { kind, command }),
        _ => Err(Box::new(fields.failure())),
    }
}

/// The failure of one malformed field.
#[must_use]
pub fn invalid(field: &str, problem: &str) -> Failure {
    let mut fields = Fields::default();
    fields.refuse(field, problem);
    fields.failure()
}

/// Reads the number of a trade of this shard; one of another shard is none of this account's.
#[must_use]
pub fn trade_number(shard: u32, text: &str) -> Option<TradeId> {
    names::parse_trade_id(text)
        .ok()
        .filter(|(of, _)| *of == shard)
        .map(|(_, number)| TradeId::new(number))
}

/// Whether the account belongs on a shard.
#[must_use]
pub fn lives_here(account_id: &str, shard: u32, shards: u32) -> bool {
    shard::of_account(account_id, shards) == shard
}

/// Collects what is wrong, so that a caller learns of everything at once.
#[derive(Default)]
struct Fields {
    problems: Vec<FieldProblem>,
}

impl Fields {
    fn refuse(&mut self, field: &str, problem: &str) {
        self.problems.push(FieldProblem {
            field: field.to_owned(),
            problem: problem.to_owned(),
        });
    }

    fn failure(self) -> Failure {
        let message = self.problems.first().map_or_else(
            || "the command is not one that can be executed".to_owned(),
            |first| format!("{} {}", first.field, first.problem),
        );
        Failure {
            reason: ErrorReason::InvalidField.into(),
            message,
            fields: self.problems,
            ..Failure::default()
        }
    }

    fn keep<T, E: std::fmt::Display>(&mut self, field: &str, read: Result<T, E>) -> Option<T> {
        read.map_err(|problem| self.refuse(field, &problem.to_string())).ok()
    }

    fn number<T, E: std::fmt::Display>(
        &mut self,
        field: &str,
        text: &str,
        make: impl FnOnce(Decimal) -> Result<T, E>,
    ) -> Option<T> {
        let value = self.keep(field, decimal::parse(text))?;
        self.keep(field, make(value))
    }

    fn price(&mut self, field: &str, text: &str) -> Option<Price> {
        self.number(field, text, Price::new)
    }

    fn optional_price(&mut self, field: &str, text: &str) -> Option<Price> {
        if text.is_empty() { None } else { self.price(field, text) }
    }

    fn amount(&mut self, field: &str, text: &str) -> Option<Money> {
        self.number(field, text, |value| {
            Ok::<_, std::convert::Infallible>(Money::new(value))
        })
    }

    fn money(&mut self, money: Option<&v1::Money>) -> Option<(Currency, Money)> {
        let Some(money) = money else {
            self.refuse("amount", "is required");
            return None;
        };
        let currency = self.keep("amount.currency_code", Currency::new(&money.currency_code));
        let amount = self.amount("amount.amount", &money.amount);
        Some((currency?, amount?))
    }

    fn trade(&mut self, shard: u32, text: &str) -> Option<TradeId> {
        // An id of another shard is well formed: let the core say that this account has no such trade.
        self.keep("trade_id", names::parse_trade_id(text))
            .map(|(of, number)| TradeId::new(if of == shard { number } else { u64::MAX }))
    }

    fn open_trade(&mut self, account: AccountId, sent: &v1::OpenTradeRequest) -> Option<OpenTrade> {
        let symbol = self.keep("symbol", Symbol::new(&sent.symbol));
        let side = match sent.side() {
            v1::Side::Long => Some(Side::Long),
            v1::Side::Short => Some(Side::Short),
            v1::Side::Unspecified => {
                self.refuse("side", "is required: SIDE_LONG or SIDE_SHORT");
                None
            }
        };
        let size = match &sent.size {
            Some(v1::open_trade_request::Size::Margin(text)) => self.amount("margin", text).map(Size::Margin),
            Some(v1::open_trade_request::Size::Quantity(text)) => {
                self.number("quantity", text, Quantity::new).map(Size::Quantity)
            }
            None => {
                self.refuse("margin", "is required, or quantity");
                None
            }
        };
        let leverage = self.number("leverage", &sent.leverage, Leverage::new);
        let stop_loss = self.optional_price("stop_loss_price", &sent.stop_loss_price);
        let take_profit = self.optional_price("take_profit_price", &sent.take_profit_price);
        let slippage = sent.slippage.as_ref().and_then(|bound| {
            let expected = self.price("slippage.expected_price", &bound.expected_price)?;
            Some(SlippageBound {
                expected,
                deviation_max_bps: bound.deviation_max_bps,
            })
        });
        let (symbol, side, size, leverage) = (symbol?, side?, size?, leverage?);
        Some(OpenTrade {
            account,
            symbol,
            side,
            size,
            leverage,
            stop_loss,
            take_profit,
            slippage,
        })
    }

    fn close_trade(&mut self, account: AccountId, shard: u32, sent: &v1::CloseTradeRequest) -> Option<Command> {
        let trade = self.trade(shard, &sent.trade_id);
        let portion = match &sent.portion {
            None => Some(Portion::All),
            Some(v1::close_trade_request::Portion::Quantity(text)) => {
                self.number("quantity", text, Quantity::new).map(Portion::Quantity)
            }
            Some(v1::close_trade_request::Portion::Percent(text)) => {
                self.number("percent", text, Percent::new).map(Portion::Percent)
            }
        };
        Some(Command::CloseTrade {
            account,
            trade: trade?,
            portion: portion?,
        })
    }

    fn modify_trade(&mut self, account: AccountId, shard: u32, sent: &v1::ModifyTradeRequest) -> Option<Command> {
        use v1::modify_trade_request::{StopLoss, TakeProfit};
        let trade = self.trade(shard, &sent.trade_id);
        let stop_loss = match &sent.stop_loss {
            None => Some(Change::Keep),
            Some(StopLoss::StopLossPrice(text)) => self.price("stop_loss_price", text).map(Change::Set),
            Some(StopLoss::ClearStopLoss(clear)) => self.clear("clear_stop_loss", *clear),
        };
        let take_profit = match &sent.take_profit {
            None => Some(Change::Keep),
            Some(TakeProfit::TakeProfitPrice(text)) => self.price("take_profit_price", text).map(Change::Set),
            Some(TakeProfit::ClearTakeProfit(clear)) => self.clear("clear_take_profit", *clear),
        };
        let add_margin = if sent.add_margin.is_empty() {
            None
        } else {
            self.amount("add_margin", &sent.add_margin)
        };
        Some(Command::ModifyTrade {
            account,
            trade: trade?,
            stop_loss: stop_loss?,
            take_profit: take_profit?,
            add_margin,
        })
    }

    fn clear(&mut self, field: &str, clear: bool) -> Option<Change<Price>> {
        if clear {
            return Some(Change::Clear);
        }
        self.refuse(field, "must be true or left out");
        None
    }
}
