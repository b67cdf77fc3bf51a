//! `WalletService`: money in, money out, and the ledger.

use std::sync::Arc;

use bus::Calls;
use contracts::bus::request::Command;
use contracts::v1::wallet_service_server::WalletService;
use contracts::v1::{
    DepositRequest, DepositResponse, InitializeWalletRequest, InitializeWalletResponse, ListBalancesRequest,
    ListBalancesResponse, ListTransactionsRequest, ListTransactionsResponse, WithdrawRequest, WithdrawResponse,
};
use tonic::{Request, Response, Status};

use crate::auth::Scope;
use crate::failure::Failure;
use crate::history::Transactions;
use crate::order::LineOrder;
use crate::page::{self, Filter, Position};
use crate::room::{Call, Room};
use crate::validate;
use crate::wire::Answer;

/// The service.
pub(crate) struct Wallets<C>(pub Arc<Room<C>>);

#[tonic::async_trait]
impl<C: Calls> WalletService for Wallets<C> {
    async fn initialize_wallet(
        &self,
        request: Request<InitializeWalletRequest>,
    ) -> Result<Response<InitializeWalletResponse>, Status> {
        let call = Call::of(&request, Scope::Trade)?;
        let it = validate::initialize_wallet(&call.identity, request.into_inner())?;
        Ok(Response::new(
            self.0.mutate(&call, it, Command::InitializeWallet).await?,
        ))
    }

    async fn deposit(&self, request: Request<DepositRequest>) -> Result<Response<DepositResponse>, Status> {
        let call = Call::of(&request, Scope::Fund)?;
        let it = validate::deposit(&call.identity, request.into_inner())?;
        Ok(Response::new(self.0.mutate(&call, it, Command::Deposit).await?))
    }

    async fn withdraw(&self, request: Request<WithdrawRequest>) -> Result<Response<WithdrawResponse>, Status> {
        let call = Call::of(&request, Scope::Fund)?;
        let it = validate::withdraw(&call.identity, request.into_inner())?;
        Ok(Response::new(self.0.mutate(&call, it, Command::Withdraw).await?))
    }

    async fn list_transactions(
        &self,
        request: Request<ListTransactionsRequest>,
    ) -> Result<Response<ListTransactionsResponse>, Status> {
        let call = Call::of(&request, Scope::View)?;
        let it = request.into_inner();
        Ok(Response::new(self.transactions(&call, it).await?))
    }
}

impl<C: Calls> Wallets<C> {
    async fn transactions(
        &self,
        call: &Call,
        mut it: ListTransactionsRequest,
    ) -> Result<ListTransactionsResponse, Failure> {
        let (mut size, mut trade, mut order) = (0, None, LineOrder::OLDEST_FIRST);
        validate::account_read(&call.identity, &mut it.account_id, it.min_sequence, |checks| {
            checks.optional_symbol("currency_code", &it.currency_code);
            checks.sequence("after_sequence", it.after_sequence);
            size = checks.page(it.page_size, &it.page_token);
            order = checks.order(&it.order_by, order);
            if !it.trade_id.is_empty() {
                trade = Some(checks.trade_id(&it.trade_id));
            }
        })?;
        let filter = Filter::of(
            "transactions",
            &[
                &it.account_id,
                &it.currency_code,
                &it.trade_id,
                &it.after_sequence.to_string(),
                &format!("{order:?}"),
            ],
        );
        let after = filter.position(&it.page_token)?;

        // The account's last change bounds what the tables must reflect: its own writes are there at once, and a busy
        // neighbour on the shard delays nobody.
        let shard = self.0.shard(&it.account_id);
        let balances = ListBalancesRequest {
            account_id: it.account_id.clone(),
            min_sequence: it.min_sequence,
        };
        let now: Answer<ListBalancesResponse> = self
            .0
            .read(call, &it.account_id, it.min_sequence, Command::ListBalances(balances))
            .await?;
        let sequence = self
            .0
            .history
            .reach(shard, now.account_sequence.max(it.min_sequence), call.step())
            .await?;
        if trade.is_some_and(|(of, _)| of != shard) {
            return Ok(ListTransactionsResponse {
                sequence,
                ..Default::default()
            });
        }
        let rows = self
            .0
            .history
            .transactions(&Transactions {
                account_id: &it.account_id,
                shard,
                currency_code: &it.currency_code,
                trade_number: trade.map(|(_, number)| number),
                after_sequence: it.after_sequence,
                order,
                after: after.map(|after| (after.major, after.minor)),
                limit: size + 1,
            })
            .await?;
        let (transactions, next_page_token) =
            page::cut(rows, size, filter, |row| Position::of(row.sequence, row.line.into()));
        Ok(ListTransactionsResponse {
            transactions,
            next_page_token,
            sequence,
        })
    }
}
