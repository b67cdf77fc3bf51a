//! What clients send, and what counts as an answer.
//!
//! An answer is something that a client may rely on for ever: a response, or a refusal that is remembered. Everything else says that
//! nothing happened or that nobody knows, and the same order with the same id is sent again.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, bail};
use contracts::bus::OperationKind;
use contracts::google::rpc;
use contracts::v1::balance_service_client::BalanceServiceClient;
use contracts::v1::trade_service_client::TradeServiceClient;
use contracts::v1::wallet_service_client::WalletServiceClient;
use contracts::v1::{self, ErrorReason};
use prost::Message as _;
use serde::{Deserialize, Serialize};
use tonic::metadata::AsciiMetadataValue;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};

/// How long connecting may take.
const CONNECT_WITHIN: Duration = Duration::from_secs(1);

/// A mutation.
#[derive(Clone, Debug, PartialEq)]
pub enum Order {
    /// Makes a wallet.
    Initialize(v1::InitializeWalletRequest),
    /// Money in.
    Deposit(v1::DepositRequest),
    /// Money out.
    Withdraw(v1::WithdrawRequest),
    /// Opens a trade.
    Open(v1::OpenTradeRequest),
    /// Closes one.
    Close(v1::CloseTradeRequest),
    /// Changes one.
    Modify(v1::ModifyTradeRequest),
}

impl Order {
    /// Which method.
    #[must_use]
    pub fn kind(&self) -> OperationKind {
        match self {
            Self::Initialize(_) => OperationKind::InitializeWallet,
            Self::Deposit(_) => OperationKind::Deposit,
            Self::Withdraw(_) => OperationKind::Withdraw,
            Self::Open(_) => OperationKind::OpenTrade,
            Self::Close(_) => OperationKind::CloseTrade,
            Self::Modify(_) => OperationKind::ModifyTrade,
        }
    }

    /// The client's id of it.
    #[must_use]
    pub fn request_id(&self) -> &str {
        match self {
            Self::Initialize(it) => &it.request_id,
            Self::Deposit(it) => &it.request_id,
            Self::Withdraw(it) => &it.request_id,
            Self::Open(it) => &it.request_id,
            Self::Close(it) => &it.request_id,
            Self::Modify(it) => &it.request_id,
        }
    }
}

/// A definitive answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// The encoded response.
    Done(#[serde(with = "crate::proof::base64_text")] Vec<u8>),
    /// A refusal that is remembered.
    Refused {
        /// As in `ErrorInfo.reason`.
        reason: String,
        /// For people.
        message: String,
    },
}

/// What came of sending an order once.
#[derive(Clone, Debug)]
pub enum Try {
    /// It is answered.
    Answered(Answer),
    /// Nothing happened, or nobody knows: to be sent again.
    Again {
        /// Why.
        reason: String,
        /// When the server wants to be asked again.
        retry_after: Option<Duration>,
    },
    /// What no client should ever see.
    Wrong(String),
}

/// One gateway as one principal sees it.
#[derive(Clone, Debug)]
pub struct Door {
    channel: Channel,
    token: AsciiMetadataValue,
}

impl Door {
    /// Connects when first used, and again whenever that is needed.
    ///
    /// # Errors
    /// When address or token cannot be written down.
    pub fn new(gateway: SocketAddr, token: &str) -> anyhow::Result<Self> {
        let endpoint = Endpoint::from_shared(format!("http://{gateway}")).context("an address")?;
        Ok(Self {
            channel: endpoint.connect_timeout(CONNECT_WITHIN).connect_lazy(),
            token: format!("Bearer {token}").parse().context("a token")?,
        })
    }

    /// Sends an order once and waits no longer than `deadline`.
    pub async fn send(&self, order: &Order, deadline: Duration) -> Try {
        let (wallets, trades) = (
            WalletServiceClient::new(self.channel.clone()),
            TradeServiceClient::new(self.channel.clone()),
        );
        let (mut wallets, mut trades) = (wallets, trades);
        let sent = async {
            Ok(match order.clone() {
                Order::Initialize(it) => encoded(wallets.initialize_wallet(self.request(it, deadline)).await?),
                Order::Deposit(it) => encoded(wallets.deposit(self.request(it, deadline)).await?),
                Order::Withdraw(it) => encoded(wallets.withdraw(self.request(it, deadline)).await?),
                Order::Open(it) => encoded(trades.open_trade(self.request(it, deadline)).await?),
                Order::Close(it) => encoded(trades.close_trade(self.request(it, deadline)).await?),
                Order::Modify(it) => encoded(trades.modify_trade(self.request(it, deadline)).await?),
            })
        };
        match sent.await {
            Ok(response) => Try::Answered(Answer::Done(response)),
            Err(status) => read(&status),
        }
    }

    /// The balances of an account, from the engine's memory.
    ///
    /// # Errors
    /// Whatever kept it from being answered.
    pub async fn balances(&self, account: &str, deadline: Duration) -> Result<Vec<v1::Balance>, Status> {
        let asked = v1::ListBalancesRequest {
            account_id: account.to_owned(),
            ..Default::default()
        };
        let mut client = BalanceServiceClient::new(self.channel.clone());
        let answer = client.list_balances(self.request(asked, deadline)).await?;
        Ok(answer.into_inner().balances)
    }

    fn request<T>(&self, message: T, deadline: Duration) -> Request<T> {
        let mut request = Request::new(message);
        request.metadata_mut().insert("authorization", self.token.clone());
        request.set_timeout(deadline);
        request
    }
}

fn encoded<T: prost::Message>(response: tonic::Response<T>) -> Vec<u8> {
    response.into_inner().encode_to_vec()
}

/// What an error means for the order it answers.
#[must_use]
pub fn read(status: &Status) -> Try {
    let Some(reason) = reason(status) else {
        // Not from our service: the connection broke, or no answer came.
        return match status.code() {
            Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled | Code::Unknown | Code::Internal => {
                Try::Again {
                    reason: format!("no connection ({:?})", status.code()),
                    retry_after: None,
                }
            }
            _ => Try::Wrong(format!("{status:?}")),
        };
    };
    let known = ErrorReason::from_str_name(&format!("ERROR_REASON_{reason}"));
    // No `_` arm: a new reason must say here what it means.
    match known.unwrap_or(ErrorReason::Unspecified) {
        ErrorReason::NotAccepted
        | ErrorReason::UnknownOutcome
        | ErrorReason::StalePrice
        | ErrorReason::Expired
        | ErrorReason::Throttled => Try::Again {
            reason,
            retry_after: retry_after(status),
        },
        ErrorReason::InsufficientMargin
        | ErrorReason::InsufficientFunds
        | ErrorReason::TradeClosed
        | ErrorReason::TradeNotFound
        | ErrorReason::AccountNotFound
        | ErrorReason::MaxExposureReached
        | ErrorReason::MarketClosed
        | ErrorReason::PriceMoved => Try::Answered(Answer::Refused {
            reason,
            message: status.message().to_owned(),
        }),
        ErrorReason::Unspecified
        | ErrorReason::InvalidField
        | ErrorReason::TokenInvalid
        | ErrorReason::NotAllowed
        | ErrorReason::SymbolUnknown
        | ErrorReason::CurrencyUnknown
        | ErrorReason::OperationNotFound
        | ErrorReason::RequestIdExpired
        | ErrorReason::RequestIdReused
        | ErrorReason::ResumePointExpired
        | ErrorReason::HistoryBehind
        | ErrorReason::Internal
        | ErrorReason::BodyTooLarge
        | ErrorReason::MethodUnknown => Try::Wrong(format!("{reason}: {}", status.message())),
    }
}

fn details(status: &Status) -> Vec<prost_types::Any> {
    rpc::Status::decode(status.details())
        .map(|it| it.details)
        .unwrap_or_default()
}

fn detail<T: prost::Message + Default>(status: &Status, name: &str) -> Option<T> {
    let found = details(status).into_iter().find(|it| it.type_url.ends_with(name))?;
    T::decode(found.value.as_slice()).ok()
}

fn reason(status: &Status) -> Option<String> {
    detail::<rpc::ErrorInfo>(status, "google.rpc.ErrorInfo").map(|it| it.reason)
}

fn retry_after(status: &Status) -> Option<Duration> {
    let delay = detail::<rpc::RetryInfo>(status, "google.rpc.RetryInfo")?.retry_delay?;
    Duration::try_from(delay).ok()
}

/// As it is written down: a kind and bytes.
#[derive(Serialize, Deserialize)]
struct Written {
    kind: i32,
    #[serde(with = "crate::proof::base64_text")]
    message: Vec<u8>,
}

impl Serialize for Order {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let message = match self {
            Self::Initialize(it) => it.encode_to_vec(),
            Self::Deposit(it) => it.encode_to_vec(),
            Self::Withdraw(it) => it.encode_to_vec(),
            Self::Open(it) => it.encode_to_vec(),
            Self::Close(it) => it.encode_to_vec(),
            Self::Modify(it) => it.encode_to_vec(),
        };
        let kind = self.kind().into();
        Written { kind, message }.serialize(to)
    }
}

impl<'de> Deserialize<'de> for Order {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let written = Written::deserialize(from)?;
        written.order().map_err(serde::de::Error::custom)
    }
}

impl Written {
    fn order(&self) -> anyhow::Result<Order> {
        let bytes = self.message.as_slice();
        Ok(match OperationKind::try_from(self.kind)? {
            OperationKind::InitializeWallet => Order::Initialize(prost::Message::decode(bytes)?),
            OperationKind::Deposit => Order::Deposit(prost::Message::decode(bytes)?),
            OperationKind::Withdraw => Order::Withdraw(prost::Message::decode(bytes)?),
            OperationKind::OpenTrade => Order::Open(prost::Message::decode(bytes)?),
            OperationKind::CloseTrade => Order::Close(prost::Message::decode(bytes)?),
            OperationKind::ModifyTrade => Order::Modify(prost::Message::decode(bytes)?),
            OperationKind::Unspecified => bail!("no kind of order"),
        })
    }
}
