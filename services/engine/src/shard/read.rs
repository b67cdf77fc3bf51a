//! Answers from memory, and how every answer is put into a reply.

use contracts::bus::operation_record::Outcome;
use contracts::bus::request::Command as Sent;
use contracts::bus::{Failure, Reply, Request, reply};
use contracts::v1::ErrorReason;
use contracts::{request_id, v1};
use engine_core::{AccountId, Currency, Symbol, Timestamp};
use prost::Message as _;

use super::{Handled, Shard};
use crate::window::{OperationKey, micros};
use crate::wire::page::Page;
use crate::wire::{command, refusal};

/// The settlement currency that a summary is in.
const SETTLEMENT: &str = "USDC";

impl Shard {
    pub(super) fn read(&self, at: Timestamp, request: &Request, sent: &Sent) -> Result<Vec<u8>, Failure> {
        if request.min_sequence > self.sequence {
            let problem = format!(
                "is ahead of the journal, which is at {}: pass a sequence that an answer gave",
                self.sequence
            );
            return Err(command::invalid("min_sequence", &problem));
        }
        let view = self.view(at);
        let account = || {
            AccountId::new(&request.account_id).map_err(|problem| command::invalid("account_id", &problem.to_string()))
        };
        match sent {
            Sent::ListBalances(_) => {
                let account = account()?;
                let balances = view.balances(&account).ok_or_else(|| no_account(&account))?;
                Ok(v1::ListBalancesResponse {
                    balances,
                    sequence: self.sequence,
                }
                .encode_to_vec())
            }
            Sent::GetBalance(it) => {
                let account = account()?;
                self.state.account(&account).ok_or_else(|| no_account(&account))?;
                let balance = view
                    .balance(&account, &it.currency_code)
                    .ok_or_else(|| no_currency(&it.currency_code))?;
                Ok(v1::GetBalanceResponse {
                    balance: Some(balance),
                    sequence: self.sequence,
                }
                .encode_to_vec())
            }
            Sent::GetAccountSummary(_) => {
                let account = account()?;
                let settlement = Currency::new(SETTLEMENT).expect("a currency code");
                view.summary(&account, &settlement)
                    .ok_or_else(|| no_account(&account))
                    .map(|summary| summary.encode_to_vec())
            }
            Sent::GetTrade(it) => {
                let account = account()?;
                let owner = self.state.account(&account).ok_or_else(|| no_account(&account))?;
                let number = command::trade_number(self.number, &it.trade_id).ok_or_else(|| no_trade(&it.trade_id))?;
                match self.state.trade(number).filter(|trade| trade.account == owner.id) {
                    Some(trade) => {
                        let quote = self.market.tradable(&trade.symbol);
                        let trade = Some(view.open_trade(trade, quote.as_ref(), 0));
                        Ok(v1::GetTradeResponse {
                            trade,
                            sequence: self.sequence,
                        }
                        .encode_to_vec())
                    }
                    None => Err(no_trade(&it.trade_id)),
                }
            }
            Sent::ListOpenTrades(_) => {
                let account = account()?;
                self.state.account(&account).ok_or_else(|| no_account(&account))?;
                Ok(self.trades(view.open_trades(&account)))
            }
            Sent::OpenTrades(it) => {
                let account = account()?;
                self.state.account(&account).ok_or_else(|| no_account(&account))?;
                Ok(self.trades(view.page_of_open_trades(&account, &Page::read(it)?)))
            }
            Sent::ListInstruments(_) => Ok(v1::ListInstrumentsResponse {
                instruments: view.instruments(),
            }
            .encode_to_vec()),
            Sent::GetQuote(it) => {
                let symbol =
                    Symbol::new(&it.symbol).map_err(|problem| command::invalid("symbol", &problem.to_string()))?;
                if self.state.instrument(&symbol).is_none() {
                    return Err(refusal::failure(&engine_core::Refusal::SymbolUnknown { symbol }));
                }
                let quote = view
                    .current_quote(&symbol)
                    .ok_or_else(|| refusal::failure(&engine_core::Refusal::PriceMissing { symbol: symbol.clone() }))?;
                Ok(v1::GetQuoteResponse { quote: Some(quote) }.encode_to_vec())
            }
            Sent::GetOperation(it) => self.operation(request, &it.request_id),
            Sent::AccountSnapshot(_) => {
                let account = account()?;
                let balances = view.balances(&account).ok_or_else(|| no_account(&account))?;
                let open_trades = view.open_trades(&account);
                Ok(v1::AccountSnapshot {
                    as_of_sequence: self.sequence,
                    balances,
                    open_trades,
                }
                .encode_to_vec())
            }
            Sent::GetConservation(_) => Ok(self.conservation()?.encode_to_vec()),
            Sent::InitializeWallet(_)
            | Sent::Deposit(_)
            | Sent::Withdraw(_)
            | Sent::OpenTrade(_)
            | Sent::CloseTrade(_)
            | Sent::ModifyTrade(_) => Err(command::invalid("command", "is a mutation")),
        }
    }

    fn trades(&self, trades: Vec<v1::Trade>) -> Vec<u8> {
        let answer = v1::ListTradesResponse {
            trades,
            next_page_token: String::new(),
            sequence: self.sequence,
        };
        answer.encode_to_vec()
    }

    fn operation(&self, request: &Request, id: &str) -> Result<Vec<u8>, Failure> {
        let id = request_id::parse(id).map_err(|problem| command::invalid("request_id", problem))?;
        let key = OperationKey::new(&request.principal, id.into_bytes());
        let seen = self
            .window
            .get(&key)
            .filter(|seen| seen.record.account_id == request.account_id)
            .ok_or_else(no_operation)?;
        Ok(contracts::bus::OperationFound {
            entry: Some(contracts::bus::WindowEntry {
                sequence: seen.sequence,
                at_us: micros(seen.at),
                operation: Some(seen.record),
            }),
            window_start_ms: self.window.horizon_ms(),
        }
        .encode_to_vec())
    }

    pub(super) fn read_reply(&self, request: &Request, outcome: Result<Vec<u8>, Failure>) -> Handled {
        let outcome = match outcome {
            Ok(response) => reply::Outcome::Response(response.into()),
            Err(failure) => reply::Outcome::Failure(failure),
        };
        Handled {
            reply: self.reply(request, self.sequence, outcome),
            entry: None,
            is_read: true,
        }
    }

    pub(super) fn repeat_reply(&self, request: &Request, sequence: u64, outcome: Option<Outcome>) -> Handled {
        let outcome = outcome.map_or_else(|| reply::Outcome::Failure(Failure::default()), reply_outcome);
        Handled {
            reply: self.reply(request, sequence, outcome),
            entry: None,
            is_read: true,
        }
    }

    fn reply(&self, request: &Request, sequence: u64, outcome: reply::Outcome) -> Reply {
        let account_sequence = AccountId::new(&request.account_id).map_or(0, |account| self.account_sequence(&account));
        Reply {
            correlation_id: request.correlation_id.clone(),
            sequence,
            account_sequence,
            outcome: Some(outcome),
        }
    }
}

pub(super) fn reply_outcome(outcome: Outcome) -> reply::Outcome {
    match outcome {
        Outcome::Response(response) => reply::Outcome::Response(response),
        Outcome::Failure(failure) => reply::Outcome::Failure(failure),
    }
}

pub(super) fn plain_failure(reason: ErrorReason, message: String) -> Failure {
    Failure {
        reason: reason.into(),
        message,
        ..Failure::default()
    }
}

fn no_account(account: &AccountId) -> Failure {
    refusal::failure(&engine_core::Refusal::AccountNotFound {
        account: account.clone(),
    })
}

fn no_currency(code: &str) -> Failure {
    plain_failure(
        ErrorReason::CurrencyUnknown,
        format!("{code} is not a currency held here: list the balances to see which are"),
    )
}

fn no_trade(id: &str) -> Failure {
    plain_failure(
        ErrorReason::TradeNotFound,
        format!("this account has no trade {id}: list its trades to see which it has"),
    )
}

fn no_operation() -> Failure {
    plain_failure(
        ErrorReason::OperationNotFound,
        "no operation with this request_id was executed for this caller and account".to_owned(),
    )
}
