//! `OperationService`: what became of a mutation whose answer was lost. The engine's memory first, then the table.

use std::sync::Arc;

use bus::Calls;
use contracts::bus::OperationFound;
use contracts::bus::request::Command;
use contracts::v1::operation_service_server::OperationService;
use contracts::v1::{ErrorReason, GetOperationRequest, GetOperationResponse, Operation};
use tonic::{Request, Response, Status};
use uuid::Uuid;

use crate::auth::Scope;
use crate::failure::{Failure, Refusal};
use crate::room::{Call, Room};
use crate::validate;
use crate::wire::{self, Answer};

/// The service.
pub(crate) struct Operations<C>(pub Arc<Room<C>>);

#[tonic::async_trait]
impl<C: Calls> OperationService for Operations<C> {
    async fn get_operation(
        &self,
        request: Request<GetOperationRequest>,
    ) -> Result<Response<GetOperationResponse>, Status> {
        let call = Call::of(&request, Scope::View)?;
        let mut it = request.into_inner();
        let id = validate::get_operation(&call.identity, &mut it)?;
        let operation = self.find(&call, it, id).await?;
        Ok(Response::new(GetOperationResponse {
            operation: Some(operation),
        }))
    }
}

impl<C: Calls> Operations<C> {
    async fn find(&self, call: &Call, it: GetOperationRequest, id: Uuid) -> Result<Operation, Failure> {
        let account_id = it.account_id.clone();
        match self.0.read(call, &account_id, 0, Command::GetOperation(it)).await {
            Ok(Answer { message, .. }) => {
                remembered(message).ok_or_else(|| Failure::Internal("an empty OperationFound".to_owned()))
            }
            Err(Failure::Refused(refusal)) if refusal.failure.reason() == ErrorReason::OperationNotFound => {
                self.look_up(call, &account_id, id, refusal).await
            }
            Err(failure) => Err(failure),
        }
    }

    /// The table, once it reflects the account's last change: what is not there then was never executed.
    async fn look_up(
        &self,
        call: &Call,
        account_id: &str,
        id: Uuid,
        refusal: Box<Refusal>,
    ) -> Result<Operation, Failure> {
        let shard = self.0.shard(account_id);
        self.0
            .history
            .reach(shard, refusal.account_sequence, call.step())
            .await?;
        let found = self
            .0
            .history
            .operation(shard, &call.identity.principal, id, account_id)
            .await?;
        found.ok_or(Failure::Refused(refusal))
    }
}

fn remembered(found: OperationFound) -> Option<Operation> {
    let entry = found.entry?;
    let operation = wire::operation(entry.sequence, entry.at_us, entry.operation?);
    Some(Operation {
        window_start_time: Some(wire::time(found.window_start_ms.saturating_mul(1_000))),
        ..operation
    })
}
