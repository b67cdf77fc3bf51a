//! What a client computes from its answers alone: its free cash, and the margin that its open trades lock.
//!
//! The prices of the run move too little for anything to fire, so the client is the only one who changes its account.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, ensure};
use contracts::v1;
use prost::Message as _;
use rust_decimal::Decimal;

use crate::order::{Answer, Order};

/// The currency that is traded in.
pub const CURRENCY: &str = "USDC";

/// An open trade.
#[derive(Clone, Debug)]
pub struct Open {
    /// What it locks.
    pub margin: Decimal,
    /// Its direction.
    pub side: v1::Side,
    /// A part of it was closed.
    pub reduced: bool,
}

/// One client's own accounts.
#[derive(Clone, Debug, Default)]
pub struct Book {
    /// Free cash.
    pub free: Decimal,
    /// Open trades.
    pub open: BTreeMap<String, Open>,
    /// Closed ones.
    pub closed: BTreeSet<String>,
}

impl Book {
    /// Locked cash.
    #[must_use]
    pub fn locked(&self) -> Decimal {
        self.open.values().map(|trade| trade.margin).sum()
    }

    /// Takes in what an order came to.
    ///
    /// # Errors
    /// When the answer says another balance than is right, or cannot be read.
    pub fn take(&mut self, order: &Order, answer: &Answer) -> anyhow::Result<()> {
        let Answer::Done(response) = answer else { return Ok(()) };
        let response = response.as_slice();
        let said = match order {
            Order::Initialize(_) => {
                let done = v1::InitializeWalletResponse::decode(response)?;
                let found = done.balances.into_iter().find(|it| it.currency_code == CURRENCY);
                if done.created {
                    self.free = amount(found.as_ref())?;
                }
                found
            }
            Order::Deposit(asked) => {
                self.free += amount(asked.amount.as_ref())?;
                v1::DepositResponse::decode(response)?.free_balance
            }
            Order::Withdraw(asked) => {
                self.free -= amount(asked.amount.as_ref())?;
                v1::WithdrawResponse::decode(response)?.free_balance
            }
            Order::Open(_) => {
                let done = v1::OpenTradeResponse::decode(response)?;
                let trade = done.trade.context("an opened trade")?;
                let margin = amount(trade.margin.as_ref())?;
                self.free -= margin + amount(trade.commission.as_ref())?;
                let (side, id) = (trade.side(), trade.trade_id);
                let open = Open {
                    margin,
                    side,
                    reduced: false,
                };
                ensure!(
                    self.open.insert(id.clone(), open).is_none(),
                    "trade {id} was opened twice"
                );
                done.free_balance
            }
            Order::Close(asked) => {
                let done = v1::CloseTradeResponse::decode(response)?;
                let trade = done.trade.context("a closed trade")?;
                let mut open = self.open.remove(&asked.trade_id).context("a trade that was open")?;
                let left = match trade.status() {
                    v1::TradeStatus::Closed => Decimal::ZERO,
                    _ => amount(trade.margin.as_ref())?,
                };
                self.free += open.margin - left + amount(done.realised_profit.as_ref())?;
                if trade.status() == v1::TradeStatus::Closed {
                    self.closed.insert(asked.trade_id.clone());
                } else {
                    (open.margin, open.reduced) = (left, true);
                    self.open.insert(asked.trade_id.clone(), open);
                }
                done.free_balance
            }
            Order::Modify(asked) => {
                let done = v1::ModifyTradeResponse::decode(response)?;
                let open = self.open.get_mut(&asked.trade_id).context("a trade that was open")?;
                let now = amount(done.trade.context("a changed trade")?.margin.as_ref())?;
                self.free -= now - open.margin;
                open.margin = now;
                done.free_balance
            }
        };
        let said = amount(said.as_ref())?;
        ensure!(
            said == self.free,
            "the answer says {said} {CURRENCY} free, {} is right",
            self.free
        );
        Ok(())
    }
}

fn amount(money: Option<&v1::Money>) -> anyhow::Result<Decimal> {
    let money = money.context("an amount")?;
    ensure!(money.currency_code == CURRENCY, "{money:?}");
    money.amount.parse().with_context(|| format!("{money:?}"))
}
