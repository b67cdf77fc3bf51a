//! What a client says to a gateway and is told by it: generated clients on one side, statuses read as strictly as anybody may on the
//! other.

use std::time::Duration;

use bytes::Bytes;
use contracts::ERROR_DOMAIN;
use contracts::bus::request::Command;
use contracts::bus::{Fact, Failure, FieldProblem};
use contracts::google;
use contracts::v1::balance_service_client::BalanceServiceClient;
use contracts::v1::operation_service_client::OperationServiceClient;
use contracts::v1::trade_service_client::TradeServiceClient;
use contracts::v1::wallet_service_client::WalletServiceClient;
use contracts::v1::{ErrorReason, GetOperationResponse};
use gateway::Inside;
use prost::Message as _;
use tonic::{Code, Request, Status};
use tonic_types::StatusExt as _;
use uuid::Uuid;

/// One call: who makes it, about what, and for how long.
#[derive(Clone, Debug)]
pub struct Call {
    /// The `authorization`.
    pub token: &'static str,
    /// Its name in logs and errors.
    pub name: String,
    pub account: String,
    /// Of a mutation.
    pub request_id: Option<u128>,
    pub command: Command,
    pub patience: Duration,
}

/// A response.
#[derive(Clone, Debug)]
pub struct Response {
    /// The sequence it tells of; 0 when it tells of none.
    pub sequence: u64,
    /// The message.
    pub bytes: Bytes,
}

impl Call {
    /// Makes it.
    ///
    /// # Errors
    /// The status it ended with; [`refusal`] reads it.
    pub async fn make(self, gateway: Inside) -> Result<Response, Status> {
        /// Calls a method with the account filled in, and the id where there is one.
        macro_rules! call {
            ($client:ident.$method:ident($it:expr)) => {{
                let mut it = $it;
                it.account_id.clone_from(&self.account);
                let answer = $client::new(gateway)
                    .$method(self.request(it)?)
                    .await?
                    .into_inner();
                Ok(Response {
                    sequence: answer.sequence,
                    bytes: answer.encode_to_vec().into(),
                })
            }};
            ($client:ident.$method:ident($it:expr) as mutation) => {{
                let mut it = $it;
                it.request_id = self
                    .request_id
                    .map_or_else(String::new, |id| Uuid::from_u128(id).to_string());
                call!($client.$method(it))
            }};
        }
        match self.command.clone() {
            Command::InitializeWallet(it) => call!(WalletServiceClient.initialize_wallet(it) as mutation),
            Command::Deposit(it) => call!(WalletServiceClient.deposit(it) as mutation),
            Command::Withdraw(it) => call!(WalletServiceClient.withdraw(it) as mutation),
            Command::OpenTrade(it) => call!(TradeServiceClient.open_trade(it) as mutation),
            Command::CloseTrade(it) => call!(TradeServiceClient.close_trade(it) as mutation),
            Command::ModifyTrade(it) => call!(TradeServiceClient.modify_trade(it) as mutation),
            Command::ListBalances(it) => call!(BalanceServiceClient.list_balances(it)),
            Command::GetOperation(mut it) => {
                it.account_id.clone_from(&self.account);
                let client = &mut OperationServiceClient::new(gateway);
                let answer: GetOperationResponse = client.get_operation(self.request(it)?).await?.into_inner();
                Ok(Response {
                    sequence: 0,
                    bytes: answer.encode_to_vec().into(),
                })
            }
            other => Err(Status::unimplemented(format!("no client calls {other:?}"))),
        }
    }

    fn request<T>(&self, message: T) -> Result<Request<T>, Status> {
        let mut request = Request::new(message);
        request.set_timeout(self.patience);
        let text = |text: &str| text.parse().map_err(|_| Status::internal("not a header"));
        request.metadata_mut().insert("authorization", text(self.token)?);
        request.metadata_mut().insert("x-request-id", text(&self.name)?);
        Ok(request)
    }
}

/// What the code of an error must be: the contract says it at each reason.
fn code(reason: ErrorReason) -> Code {
    match reason {
        ErrorReason::InvalidField => Code::InvalidArgument,
        ErrorReason::TokenInvalid => Code::Unauthenticated,
        ErrorReason::NotAllowed => Code::PermissionDenied,
        ErrorReason::SymbolUnknown
        | ErrorReason::CurrencyUnknown
        | ErrorReason::TradeNotFound
        | ErrorReason::AccountNotFound
        | ErrorReason::OperationNotFound => Code::NotFound,
        ErrorReason::InsufficientMargin
        | ErrorReason::InsufficientFunds
        | ErrorReason::TradeClosed
        | ErrorReason::MarketClosed
        | ErrorReason::MaxExposureReached
        | ErrorReason::RequestIdExpired => Code::FailedPrecondition,
        ErrorReason::RequestIdReused => Code::AlreadyExists,
        ErrorReason::PriceMoved => Code::Aborted,
        ErrorReason::StalePrice | ErrorReason::NotAccepted | ErrorReason::HistoryBehind => Code::Unavailable,
        ErrorReason::UnknownOutcome | ErrorReason::Expired => Code::DeadlineExceeded,
        ErrorReason::Throttled | ErrorReason::BodyTooLarge => Code::ResourceExhausted,
        ErrorReason::ResumePointExpired => Code::OutOfRange,
        ErrorReason::MethodUnknown => Code::Unimplemented,
        ErrorReason::Unspecified | ErrorReason::Internal => Code::Internal,
    }
}

/// Reads a status: why the call was not carried out, or what is wrong with the status.
///
/// # Errors
/// When it is not one that a client may get, whatever happens behind the gateway.
pub fn refusal(status: &Status, name: &str) -> Result<Failure, String> {
    let failure = failure(status)?;
    let details = status.get_error_details();
    let named = details.request_info().map(|info| info.request_id.as_str());
    if named != Some(name) {
        return Err(format!(
            "an error of the call {name} names the call {named:?}: {status:?}"
        ));
    }
    // In the gateway's own words; that nothing is accepted without them is for the audit to find out.
    let turned_away = failure.reason() == ErrorReason::NotAccepted && !failure.message.is_empty();
    let pushback = status.metadata().get("grpc-retry-pushback-ms");
    if turned_away && (failure.retry_after_ms == 0 || pushback.is_none()) {
        return Err(format!(
            "nothing was accepted, and nothing says when to try again: {status:?}"
        ));
    }
    Ok(failure)
}

/// A refusal that was kept as data.
///
/// # Errors
/// As [`refusal`].
pub fn kept(status: &google::rpc::Status) -> Result<Failure, String> {
    let details = status.encode_to_vec().into();
    failure(&Status::with_details(
        Code::from(status.code),
        status.message.as_str(),
        details,
    ))
}

fn failure(status: &Status) -> Result<Failure, String> {
    let details = status.get_error_details();
    let info = details
        .error_info()
        .ok_or_else(|| format!("an error without a reason: {status:?}"))?;
    let name = format!("ERROR_REASON_{}", info.reason);
    let reason = ErrorReason::from_str_name(&name).ok_or_else(|| format!("an unknown reason: {status:?}"))?;
    if info.domain != ERROR_DOMAIN || status.code() != code(reason) {
        return Err(format!("{name} comes as {status:?}"));
    }
    if matches!(
        reason,
        ErrorReason::Internal | ErrorReason::MethodUnknown | ErrorReason::Throttled
    ) {
        return Err(format!("nothing that a client did explains {status:?}"));
    }
    let retry = details.retry_info().and_then(|info| info.retry_delay);
    let fields = details.bad_request().map(|bad| bad.field_violations.as_slice());
    Ok(sorted(Failure {
        reason: reason.into(),
        message: status.message().to_owned(),
        fields: fields
            .unwrap_or_default()
            .iter()
            .map(|field| FieldProblem {
                field: field.field.clone(),
                problem: field.description.clone(),
            })
            .collect(),
        facts: info
            .metadata
            .iter()
            .map(|(name, value)| Fact {
                name: name.clone(),
                value: value.clone(),
            })
            .collect(),
        retry_after_ms: retry.map_or(0, |delay| u32::try_from(delay.as_millis()).unwrap_or(u32::MAX)),
    }))
}

/// With its facts in an order: on their way to a client they lose theirs.
pub fn sorted(mut failure: Failure) -> Failure {
    failure.facts.sort_by(|one, other| one.name.cmp(&other.name));
    failure
}
