//! Answers: the public response messages, written from state.

use contracts::bus::journal_event::Kind;
use contracts::bus::{JournalEvent, OperationKind, QuoteUsed, TradeOpened, TradeState};
use contracts::{names, v1};
use engine_core::{
    AccountId, Currency, Event, EventKind, Freshness, Market, State, Symbol, Timestamp, TradableQuote, Trade, exponent,
    summary, unrealised_profit,
};
use prost::Message as _;

use super::event::{write_quote, write_reason, write_terms, write_trade};
use super::page::Page;
use super::{moment, money, price_text, quantity_text, time};

/// Where answers are read from: one shard at one moment.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    /// Number of the shard, the first half of trade ids.
    pub shard: u32,
    /// Accounts, trades, instruments.
    pub state: &'a State,
    /// Quotes.
    pub market: &'a Market,
    /// Now, engine time.
    pub at: Timestamp,
    /// Sequence the answer reflects.
    pub sequence: u64,
}

impl View<'_> {
    /// The answer to a mutation that made these events (none, when there was nothing to do). Encoded.
    #[must_use]
    pub fn mutation(
        &self,
        kind: OperationKind,
        account: &AccountId,
        events: &[Event],
        journaled: &[JournalEvent],
    ) -> Vec<u8> {
        let event = events.last();
        match (kind, event.map(|event| &event.kind)) {
            (OperationKind::InitializeWallet, event) => v1::InitializeWalletResponse {
                balances: self.free_balances(account),
                created: event.is_some(),
                sequence: self.sequence,
            }
            .encode_to_vec(),
            (_, Some(EventKind::Deposited { currency, .. })) => v1::DepositResponse {
                free_balance: Some(self.free(account, currency)),
                sequence: self.sequence,
            }
            .encode_to_vec(),
            (_, Some(EventKind::Withdrawn { currency, .. })) => v1::WithdrawResponse {
                free_balance: Some(self.free(account, currency)),
                sequence: self.sequence,
            }
            .encode_to_vec(),
            (_, Some(EventKind::TradeOpened { trade, quote })) => v1::OpenTradeResponse {
                trade: Some(match journaled.last().and_then(|event| event.kind.as_ref()) {
                    Some(Kind::TradeOpened(TradeOpened {
                        trade: Some(trade_written),
                        quote: Some(quote_written),
                    })) => v1::Trade {
                        unrealised_profit: Some(money(unrealised_profit(trade, quote), &trade.currency)),
                        quote: Some(self.public_quote(quote, quote_written.clone())),
                        sequence: self.sequence,
                        ..public_trade(self.shard, trade_written.clone())
                    },
                    _ => self.open_trade(trade, Some(quote), self.sequence),
                }),
                free_balance: Some(self.free(account, &trade.currency)),
                sequence: self.sequence,
            }
            .encode_to_vec(),
            (_, Some(EventKind::TradeModified { trade, .. })) => {
                let after = self.state.trade(*trade).expect("a modified trade is open");
                v1::ModifyTradeResponse {
                    trade: Some(self.open_trade(after, self.market.tradable(&after.symbol).as_ref(), self.sequence)),
                    free_balance: Some(self.free(account, &after.currency)),
                    sequence: self.sequence,
                }
                .encode_to_vec()
            }
            (_, Some(EventKind::TradeReduced(closing) | EventKind::TradeClosed(closing))) => {
                let instrument = self.state.instrument(&closing.symbol);
                let after = journaled.last().and_then(|event| match &event.kind {
                    Some(Kind::TradeClosed(closed)) => closed.trade.as_ref(),
                    _ => None,
                });
                let trade = after.map(|after| v1::Trade {
                    close_price: price_text(closing.close_price, instrument),
                    close_reason: write_reason(closing.reason).into(),
                    close_time: closing.remaining_quantity.is_none().then(|| time(self.at)),
                    quote: Some(self.quote(&closing.quote)),
                    sequence: self.sequence,
                    ..public_trade(self.shard, after.clone())
                });
                v1::CloseTradeResponse {
                    trade,
                    realised_profit: Some(money(closing.realised_profit, &closing.currency)),
                    closed_quantity: quantity_text(Some(closing.quantity), instrument),
                    close_price: price_text(closing.close_price, instrument),
                    free_balance: Some(self.free(account, &closing.currency)),
                    sequence: self.sequence,
                }
                .encode_to_vec()
            }
            // Commands that make no event but succeed: only InitializeWallet, above. An empty message decodes as any response.
            (_, Some(EventKind::WalletInitialized { .. } | EventKind::InstrumentConfigured(_)) | None) => Vec::new(),
        }
    }

    /// The account's balances; `None` when there is no such account.
    #[must_use]
    pub fn balances(&self, account: &AccountId) -> Option<Vec<v1::Balance>> {
        let owner = self.state.account(account)?;
        let balance = |balance: &engine_core::Balance| {
            let total = balance.free.checked_add(balance.locked).unwrap_or(balance.free);
            v1::Balance {
                currency_code: balance.currency.as_str().to_owned(),
                free: super::amount_text(balance.free, &balance.currency),
                locked: super::amount_text(balance.locked, &balance.currency),
                total: super::amount_text(total, &balance.currency),
            }
        };
        Some(owner.balances.iter().map(balance).collect())
    }

    /// One balance: zero in a currency that the account has none of; `None` when there is no such currency.
    #[must_use]
    pub fn balance(&self, account: &AccountId, code: &str) -> Option<v1::Balance> {
        let currency = Currency::new(code)
            .ok()
            .filter(|currency| exponent(currency).is_some())?;
        let zero = super::amount_text(engine_core::Money::ZERO, &currency);
        let found = self
            .balances(account)?
            .into_iter()
            .find(|balance| balance.currency_code == code);
        Some(found.unwrap_or(v1::Balance {
            currency_code: code.to_owned(),
            free: zero.clone(),
            locked: zero.clone(),
            total: zero,
        }))
    }

    /// The account's standing; `None` when there is no such account.
    #[must_use]
    pub fn summary(&self, account: &AccountId, currency: &Currency) -> Option<v1::GetAccountSummaryResponse> {
        let it = summary(self.state, self.market, self.at, account, currency)?;
        Some(v1::GetAccountSummaryResponse {
            balance: Some(money(it.balance, currency)),
            equity: Some(money(it.equity, currency)),
            used_margin: Some(money(it.used_margin, currency)),
            free_margin: Some(money(it.free_margin, currency)),
            margin_level: it
                .margin_level
                .map_or_else(String::new, |level| super::text(level.get(), 2)),
            unrealised_profit: Some(money(it.unrealised_profit, currency)),
            open_trades: u32::try_from(it.trades.len()).unwrap_or(u32::MAX),
            quotes: it.quotes.iter().map(|quote| self.quote(quote)).collect(),
            sequence: self.sequence,
        })
    }

    /// An open trade with its profit at a quote.
    #[must_use]
    pub fn open_trade(&self, trade: &Trade, quote: Option<&TradableQuote>, sequence: u64) -> v1::Trade {
        v1::Trade {
            unrealised_profit: quote.map(|quote| money(unrealised_profit(trade, quote), &trade.currency)),
            quote: quote.map(|quote| self.quote(quote)),
            sequence,
            ..public_trade(self.shard, write_trade(trade, self.state.instrument(&trade.symbol)))
        }
    }

    /// The account's open trades, newest first, each at the current quote.
    #[must_use]
    pub fn open_trades(&self, account: &AccountId) -> Vec<v1::Trade> {
        let mut trades: Vec<v1::Trade> = self.state.trades_of(account).map(|trade| self.now(trade)).collect();
        trades.reverse();
        trades
    }

    /// Those on a page, each at the current quote.
    #[must_use]
    pub fn page_of_open_trades(&self, account: &AccountId, page: &Page) -> Vec<v1::Trade> {
        let trades = page.of(self.state, account);
        trades.into_iter().map(|trade| self.now(trade)).collect()
    }

    fn now(&self, trade: &Trade) -> v1::Trade {
        self.open_trade(trade, self.market.tradable(&trade.symbol).as_ref(), 0)
    }

    /// All instruments, by symbol.
    #[must_use]
    pub fn instruments(&self) -> Vec<v1::Instrument> {
        let mut all: Vec<v1::Instrument> = self
            .state
            .instruments()
            .filter_map(|it| write_terms(it).instrument)
            .collect();
        all.sort_by(|a, b| a.symbol.cmp(&b.symbol));
        all
    }

    /// The current quote of a symbol, with its state now.
    #[must_use]
    pub fn current_quote(&self, symbol: &Symbol) -> Option<v1::Quote> {
        self.market.tradable(symbol).map(|quote| self.quote(&quote))
    }

    fn quote(&self, quote: &TradableQuote) -> v1::Quote {
        self.public_quote(quote, write_quote(quote, self.state.instrument(&quote.symbol)))
    }

    /// The quote as the public API has it, from what was written of it already.
    fn public_quote(&self, quote: &TradableQuote, written: QuoteUsed) -> v1::Quote {
        let state = match self.market.freshness(self.state, self.at, &quote.symbol) {
            Freshness::Fresh => v1::QuoteState::Fresh,
            Freshness::SoftStale => v1::QuoteState::Stale,
            Freshness::HardStale => v1::QuoteState::Halted,
            Freshness::Missing => v1::QuoteState::Unspecified,
        };
        v1::Quote {
            symbol: written.symbol,
            bid: written.bid,
            ask: written.ask,
            venue_time: Some(time(quote.venue_time)),
            update_id: quote.update_id,
            state: state.into(),
        }
    }

    fn free(&self, account: &AccountId, currency: &Currency) -> v1::Money {
        let free = self
            .state
            .account(account)
            .map_or(engine_core::Money::ZERO, |owner| owner.free(currency));
        money(free, currency)
    }

    fn free_balances(&self, account: &AccountId) -> Vec<v1::Money> {
        let balances = self.state.account(account).map_or(&[][..], |owner| &owner.balances[..]);
        balances
            .iter()
            .map(|balance| money(balance.free, &balance.currency))
            .collect()
    }
}

/// A trade as the public API has it, without what only a moment knows: quote, unrealised profit, closing.
#[must_use]
pub fn public_trade(shard: u32, trade: TradeState) -> v1::Trade {
    let amount = |amount| {
        Some(v1::Money {
            currency_code: trade.currency_code.clone(),
            amount,
        })
    };
    let status = if trade.quantity == "0" {
        v1::TradeStatus::Closed
    } else {
        v1::TradeStatus::Open
    };
    v1::Trade {
        trade_id: names::trade_id(shard, trade.number),
        account_id: trade.account_id,
        symbol: trade.symbol,
        side: trade.side,
        status: status.into(),
        quantity: trade.quantity,
        opened_quantity: trade.opened_quantity,
        entry_price: trade.entry_price,
        leverage: trade.leverage,
        margin: amount(trade.margin),
        stop_loss_price: trade.stop_loss_price,
        take_profit_price: trade.take_profit_price,
        liquidation_price: trade.liquidation_price,
        open_time: Some(time(moment(trade.opened_at_us))),
        realised_profit: amount(trade.realised_profit),
        commission: amount(trade.commission),
        ..v1::Trade::default()
    }
}

/// The method of a mutation, as the service definition names it.
#[must_use]
pub fn method_name(kind: OperationKind) -> &'static str {
    match kind {
        OperationKind::Unspecified => "",
        OperationKind::InitializeWallet => "InitializeWallet",
        OperationKind::Deposit => "Deposit",
        OperationKind::Withdraw => "Withdraw",
        OperationKind::OpenTrade => "OpenTrade",
        OperationKind::CloseTrade => "CloseTrade",
        OperationKind::ModifyTrade => "ModifyTrade",
    }
}
