//! `TradeService`: open, close, modify, read and watch trades.

use std::collections::HashMap;
use std::sync::Arc;

use bus::Calls;
use contracts::bus::request::Command;
use contracts::names;
use contracts::v1::trade_service_server::TradeService;
use contracts::v1::{
    CloseTradeRequest, CloseTradeResponse, ErrorReason, GetTradeRequest, GetTradeResponse, ListTradesRequest,
    ListTradesResponse, ModifyTradeRequest, ModifyTradeResponse, OpenTradeRequest, OpenTradeResponse,
    StreamAccountEventsRequest, StreamAccountEventsResponse, Trade, TradeStatus,
};
use tonic::{Request, Response, Status};

use crate::auth::Scope;
use crate::failure::Failure;
use crate::history::Trades as TradesOf;
use crate::order::TradeOrder;
use crate::page::{self, Filter};
use crate::room::{Call, Room};
use crate::stream::{self, Messages};
use crate::validate;
use crate::wire::{self, Answer};

/// The service.
pub(crate) struct Trades<C>(pub Arc<Room<C>>);

#[tonic::async_trait]
impl<C: Calls> TradeService for Trades<C> {
    async fn open_trade(&self, request: Request<OpenTradeRequest>) -> Result<Response<OpenTradeResponse>, Status> {
        let call = Call::of(&request, Scope::Trade)?;
        let it = validate::open_trade(&call.identity, request.into_inner())?;
        Ok(Response::new(self.0.mutate(&call, it, Command::OpenTrade).await?))
    }

    async fn close_trade(&self, request: Request<CloseTradeRequest>) -> Result<Response<CloseTradeResponse>, Status> {
        let call = Call::of(&request, Scope::Trade)?;
        let it = validate::close_trade(&call.identity, request.into_inner())?;
        self.number(&it.account_id, &it.command.trade_id)?;
        Ok(Response::new(self.0.mutate(&call, it, Command::CloseTrade).await?))
    }

    async fn modify_trade(
        &self,
        request: Request<ModifyTradeRequest>,
    ) -> Result<Response<ModifyTradeResponse>, Status> {
        let call = Call::of(&request, Scope::Trade)?;
        let it = validate::modify_trade(&call.identity, request.into_inner())?;
        self.number(&it.account_id, &it.command.trade_id)?;
        Ok(Response::new(self.0.mutate(&call, it, Command::ModifyTrade).await?))
    }

    async fn get_trade(&self, request: Request<GetTradeRequest>) -> Result<Response<GetTradeResponse>, Status> {
        let call = Call::of(&request, Scope::View)?;
        Ok(Response::new(self.one(&call, request.into_inner()).await?))
    }

    async fn list_trades(&self, request: Request<ListTradesRequest>) -> Result<Response<ListTradesResponse>, Status> {
        let call = Call::of(&request, Scope::View)?;
        Ok(Response::new(self.list(&call, request.into_inner()).await?))
    }

    type StreamAccountEventsStream = Messages<StreamAccountEventsResponse>;

    async fn stream_account_events(
        &self,
        request: Request<StreamAccountEventsRequest>,
    ) -> Result<Response<Self::StreamAccountEventsStream>, Status> {
        let call = Call::of(&request, Scope::View)?;
        let mut it = request.into_inner();
        let heartbeat = validate::account_events(&call.identity, &mut it)?;
        Ok(Response::new(stream::account::open(
            Arc::clone(&self.0),
            call,
            it,
            heartbeat,
        )?))
    }
}

impl<C: Calls> Trades<C> {
    /// The number in a trade id of this account. An id of another shard is somebody else's, and there is no such trade.
    fn number(&self, account_id: &str, trade_id: &str) -> Result<u64, Failure> {
        match names::parse_trade_id(trade_id) {
            Ok((shard, number)) if shard == self.0.shard(account_id) => Ok(number),
            _ => Err(Failure::refused(
                ErrorReason::TradeNotFound,
                format!("this account has no trade {trade_id}"),
            )),
        }
    }

    /// Open: the engine knows. Closed: the table does, once it reflects the account's last change.
    async fn one(&self, call: &Call, mut it: GetTradeRequest) -> Result<GetTradeResponse, Failure> {
        validate::account_read(&call.identity, &mut it.account_id, it.min_sequence, |checks| {
            checks.trade_id(&it.trade_id);
        })?;
        let (account_id, min_sequence) = (it.account_id.clone(), it.min_sequence);
        let (shard, number) = (self.0.shard(&account_id), self.number(&account_id, &it.trade_id)?);
        match self
            .0
            .read(call, &account_id, min_sequence, Command::GetTrade(it))
            .await
        {
            Err(Failure::Refused(refusal)) if wire::may_be_history(&refusal) => {
                let needed = refusal.account_sequence.max(min_sequence);
                let sequence = self.0.history.reach(shard, needed, call.step()).await?;
                let trade = self.0.history.trade(shard, number, &account_id).await?;
                let unknown = || Failure::refused(ErrorReason::TradeNotFound, refusal.failure.message.clone());
                Ok(GetTradeResponse {
                    trade: Some(trade.ok_or_else(unknown)?),
                    sequence,
                })
            }
            answer => answer.map(|answer| answer.message),
        }
    }

    async fn list(&self, call: &Call, mut it: ListTradesRequest) -> Result<ListTradesResponse, Failure> {
        let (mut size, mut order) = (0, TradeOrder::NEWEST_FIRST);
        let status = TradeStatus::try_from(it.status).ok();
        validate::account_read(&call.identity, &mut it.account_id, it.min_sequence, |checks| {
            checks.optional_symbol("symbol", &it.symbol);
            size = checks.page(it.page_size, &it.page_token);
            order = checks.order(&it.order_by, order);
            if status.is_none() {
                checks.fail(
                    "status",
                    "must be TRADE_STATUS_OPEN, TRADE_STATUS_CLOSED or nothing for any",
                );
            }
        })?;
        let status = status.unwrap_or_default();
        let filter = Filter::of(
            "trades",
            &[&it.account_id, status.as_str_name(), &it.symbol, &format!("{order:?}")],
        );
        let after = filter.position(&it.page_token)?;
        if let Some(after) = &after {
            order.check(after)?;
        }
        let position = |trade: &Trade| order.position(trade);

        let (account_id, symbol, min_sequence) = (it.account_id.clone(), it.symbol.clone(), it.min_sequence);
        // One more than is shown. Nothing of what is closed is the engine's, but for the sequence that history has to reach.
        let limit = size + 1;
        let of_engine = match status {
            TradeStatus::Closed => order.of_open(None, "", 0),
            TradeStatus::Open | TradeStatus::Unspecified => order.of_open(after.as_ref(), &symbol, limit),
        };
        let now: Answer<ListTradesResponse> = self
            .0
            .read(call, &account_id, min_sequence, Command::OpenTrades(of_engine))
            .await?;
        if status == TradeStatus::Open {
            let (trades, next_page_token) = page::cut(now.message.trades, size, filter, position);
            return Ok(ListTradesResponse {
                trades,
                next_page_token,
                sequence: now.sequence,
            });
        }
        let shard = self.0.shard(&account_id);
        let sequence = self
            .0
            .history
            .reach(shard, now.account_sequence.max(min_sequence), call.step())
            .await?;
        let wanted = TradesOf {
            account_id: &account_id,
            shard,
            status,
            symbol: &symbol,
            order,
            after: after.as_ref(),
            limit,
        };
        let rows = self.0.history.trades(&wanted).await?;
        let (mut trades, next_page_token) = page::cut(rows, size, filter, position);
        price(&mut trades, now.message.trades);
        Ok(ListTradesResponse {
            trades,
            next_page_token,
            sequence,
        })
    }
}

/// Gives the open rows of the table the profit that the engine computed, where both mean the same state of the trade.
fn price(rows: &mut [Trade], open: Vec<Trade>) {
    let mut open: HashMap<String, Trade> = open.into_iter().map(|trade| (trade.trade_id.clone(), trade)).collect();
    for row in rows.iter_mut().filter(|row| row.status() == TradeStatus::Open) {
        if let Some(now) = open.remove(&row.trade_id).filter(|now| now.quantity == row.quantity) {
            row.unrealised_profit = now.unrealised_profit;
            row.quote = now.quote;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use contracts::v1::Money;

    fn trade(number: u64, symbol: &str, quantity: &str) -> Trade {
        Trade {
            trade_id: names::trade_id(3, number),
            symbol: symbol.into(),
            quantity: quantity.into(),
            status: TradeStatus::Open.into(),
            ..Default::default()
        }
    }

    #[test]
    fn an_open_row_gets_its_profit_only_from_the_same_state_of_the_trade() {
        let mut rows = vec![trade(1, "A", "5"), trade(2, "A", "5")];
        let profit = |mut it: Trade| {
            it.unrealised_profit = Some(Money {
                currency_code: "USDC".into(),
                amount: "1.00".into(),
            });
            it
        };
        price(&mut rows, vec![profit(trade(1, "A", "5")), profit(trade(2, "A", "4"))]);
        assert!(rows[0].unrealised_profit.is_some());
        assert!(rows[1].unrealised_profit.is_none());
    }
}
