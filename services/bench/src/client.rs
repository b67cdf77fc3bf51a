//! A gRPC client for what is not load: streams, and the few calls that prepare something. Load has its own, which costs less.

use anyhow::Context as _;
use contracts::v1::trade_service_client::TradeServiceClient;
use tonic::Request;
use tonic::metadata::AsciiMetadataValue;
use tonic::transport::Channel;

use crate::load::Target;

/// One connection as one principal.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    pub(crate) trades: TradeServiceClient<Channel>,
    token: AsciiMetadataValue,
}

impl Client {
    /// Connects as one of the principals of the target.
    pub(crate) async fn connect(target: &Target, number: usize) -> anyhow::Result<Self> {
        let token = target
            .tokens
            .get(number % target.tokens.len().max(1))
            .context("no token")?;
        let channel = Channel::from_shared(format!("http://{}", target.address))?
            .connect()
            .await?;
        Ok(Self {
            trades: TradeServiceClient::new(channel),
            token: format!("Bearer {token}").parse()?,
        })
    }

    /// The message with our token.
    pub(crate) fn signed<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.metadata_mut().insert("authorization", self.token.clone());
        request
    }
}
