//! `BalanceService`: what an account has, from the engine's memory.

use std::sync::Arc;

use bus::Calls;
use contracts::bus::request::Command;
use contracts::v1::balance_service_server::BalanceService;
use contracts::v1::{
    GetAccountSummaryRequest, GetAccountSummaryResponse, GetBalanceRequest, GetBalanceResponse, ListBalancesRequest,
    ListBalancesResponse,
};
use tonic::{Request, Response, Status};

use crate::auth::Scope;
use crate::room::{Call, Room};
use crate::validate;

/// The service.
pub(crate) struct Balances<C>(pub Arc<Room<C>>);

#[tonic::async_trait]
impl<C: Calls> BalanceService for Balances<C> {
    async fn list_balances(
        &self,
        request: Request<ListBalancesRequest>,
    ) -> Result<Response<ListBalancesResponse>, Status> {
        let call = Call::of(&request, Scope::View)?;
        let mut it = request.into_inner();
        validate::account_read(&call.identity, &mut it.account_id, it.min_sequence, |_| {})?;
        let answer = self
            .0
            .read(
                &call,
                &it.account_id.clone(),
                it.min_sequence,
                Command::ListBalances(it),
            )
            .await?;
        Ok(Response::new(answer.message))
    }

    async fn get_balance(&self, request: Request<GetBalanceRequest>) -> Result<Response<GetBalanceResponse>, Status> {
        let call = Call::of(&request, Scope::View)?;
        let mut it = request.into_inner();
        validate::account_read(&call.identity, &mut it.account_id, it.min_sequence, |checks| {
            checks.symbol("currency_code", &it.currency_code);
        })?;
        let answer = self
            .0
            .read(&call, &it.account_id.clone(), it.min_sequence, Command::GetBalance(it))
            .await?;
        Ok(Response::new(answer.message))
    }

    async fn get_account_summary(
        &self,
        request: Request<GetAccountSummaryRequest>,
    ) -> Result<Response<GetAccountSummaryResponse>, Status> {
        let call = Call::of(&request, Scope::View)?;
        let mut it = request.into_inner();
        validate::account_read(&call.identity, &mut it.account_id, it.min_sequence, |_| {})?;
        let answer = self
            .0
            .read(
                &call,
                &it.account_id.clone(),
                it.min_sequence,
                Command::GetAccountSummary(it),
            )
            .await?;
        Ok(Response::new(answer.message))
    }
}
