//! How a call looks in each protocol, and what its answer says.

use bytes::{Bytes, BytesMut};
use clap::ValueEnum;
use contracts::v1;
use http::header::{AUTHORIZATION, CONTENT_TYPE, TE};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode};
use prost::Message;

/// A protocol of the gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Door {
    /// gRPC.
    Grpc,
    /// grpc-web, binary, over HTTP/2.
    GrpcWeb,
    /// REST with JSON, over HTTP/2.
    Rest,
}

impl Door {
    /// As a word.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Grpc => "grpc",
            Self::GrpcWeb => "grpc-web",
            Self::Rest => "rest",
        }
    }
}

/// One call.
#[derive(Clone, Debug)]
pub(super) enum Call {
    InitializeWallet(v1::InitializeWalletRequest),
    Deposit(v1::DepositRequest),
    OpenTrade(v1::OpenTradeRequest),
    CloseTrade(v1::CloseTradeRequest),
    ListBalances(v1::ListBalancesRequest),
}

/// What became of a call.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) end: End,
    /// The trade that was opened, where somebody wants to know.
    pub(super) opened: Option<String>,
}

/// How a call ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum End {
    #[default]
    Done,
    /// There was no room, or nobody who serves: nothing happened.
    Refused,
    /// In another way; how.
    Failed(String),
}

/// As much of the answer to an open as is needed.
#[derive(Clone, PartialEq, Message)]
struct Opened {
    #[prost(message, optional, tag = "1")]
    trade: Option<OpenedTrade>,
}

#[derive(Clone, PartialEq, Message)]
struct OpenedTrade {
    #[prost(string, tag = "1")]
    trade_id: String,
}

impl Call {
    fn method(&self) -> &'static str {
        match self {
            Self::InitializeWallet(_) => "/fulcrum.v1.WalletService/InitializeWallet",
            Self::Deposit(_) => "/fulcrum.v1.WalletService/Deposit",
            Self::OpenTrade(_) => "/fulcrum.v1.TradeService/OpenTrade",
            Self::CloseTrade(_) => "/fulcrum.v1.TradeService/CloseTrade",
            Self::ListBalances(_) => "/fulcrum.v1.BalanceService/ListBalances",
        }
    }

    fn frame(&self) -> Bytes {
        match self {
            Self::InitializeWallet(it) => frame(it),
            Self::Deposit(it) => frame(it),
            Self::OpenTrade(it) => frame(it),
            Self::CloseTrade(it) => frame(it),
            Self::ListBalances(it) => frame(it),
        }
    }

    /// Method, path and body on REST.
    fn rest(&self) -> (Method, String, Option<String>) {
        match self {
            Self::InitializeWallet(it) => (
                Method::POST,
                format!("/v1/accounts/{}/wallet:initialize", it.account_id),
                Some(format!("{{\"requestId\":\"{}\"}}", it.request_id)),
            ),
            Self::Deposit(it) => {
                let amount = it.amount.clone().unwrap_or_default();
                (
                    Method::POST,
                    format!("/v1/accounts/{}/wallet:deposit", it.account_id),
                    Some(format!(
                        "{{\"requestId\":\"{}\",\"amount\":{{\"currencyCode\":\"{}\",\"amount\":\"{}\"}}}}",
                        it.request_id, amount.currency_code, amount.amount
                    )),
                )
            }
            Self::OpenTrade(it) => {
                let margin = match &it.size {
                    Some(v1::open_trade_request::Size::Margin(margin)) => margin.as_str(),
                    _ => "",
                };
                (
                    Method::POST,
                    format!("/v1/accounts/{}/trades", it.account_id),
                    Some(format!(
                        "{{\"requestId\":\"{}\",\"symbol\":\"{}\",\"side\":\"{}\",\"margin\":\"{margin}\",\"leverage\":\"{}\"}}",
                        it.request_id,
                        it.symbol,
                        it.side().as_str_name(),
                        it.leverage
                    )),
                )
            }
            Self::CloseTrade(it) => (
                Method::POST,
                format!("/v1/accounts/{}/trades/{}:close", it.account_id, it.trade_id),
                Some(format!("{{\"requestId\":\"{}\"}}", it.request_id)),
            ),
            Self::ListBalances(it) => (Method::GET, format!("/v1/accounts/{}/balances", it.account_id), None),
        }
    }
}

/// A message in the frame of gRPC: not compressed, its length, its bytes.
fn frame(message: &impl Message) -> Bytes {
    let length = message.encoded_len();
    let mut out = BytesMut::with_capacity(5 + length);
    out.extend_from_slice(&[0]);
    out.extend_from_slice(&u32::try_from(length).expect("small").to_be_bytes());
    message.encode(&mut out).expect("there is room");
    out.freeze()
}

/// Everything of a request that is the same from call to call.
#[derive(Clone, Debug)]
pub(super) struct Letterhead {
    door: Door,
    authority: String,
    headers: HeaderMap,
}

impl Letterhead {
    pub(super) fn new(door: Door, authority: &str, token: &str) -> Self {
        let mut headers = HeaderMap::new();
        let media_type = match door {
            Door::Grpc => "application/grpc",
            Door::GrpcWeb => "application/grpc-web+proto",
            Door::Rest => "application/json",
        };
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
        if door == Door::Grpc {
            headers.insert(TE, HeaderValue::from_static("trailers"));
        }
        if let Ok(token) = HeaderValue::from_str(&format!("Bearer {token}")) {
            headers.insert(AUTHORIZATION, token);
        }
        Self {
            door,
            authority: authority.to_owned(),
            headers,
        }
    }

    /// A call as a request and its body.
    pub(super) fn write(&self, call: &Call) -> (Request<()>, Option<Bytes>) {
        let (method, path, body) = match self.door {
            Door::Grpc | Door::GrpcWeb => (Method::POST, call.method().to_owned(), Some(call.frame())),
            Door::Rest => {
                let (method, path, body) = call.rest();
                (method, path, body.map(Bytes::from))
            }
        };
        let mut request = Request::new(());
        *request.method_mut() = method;
        *request.uri_mut() = format!("http://{}{path}", self.authority)
            .parse()
            .expect("ids are fit for a path");
        *request.headers_mut() = self.headers.clone();
        (request, body)
    }

    /// Reads an answer.
    pub(super) fn read(
        &self,
        status: StatusCode,
        headers: &HeaderMap,
        body: &[u8],
        trailers: Option<&HeaderMap>,
        wants_trade: bool,
    ) -> Answer {
        let end = match self.door {
            Door::Rest => rest_end(status),
            Door::Grpc => {
                let code = trailers.and_then(grpc_code).or_else(|| grpc_code(headers));
                code.map_or_else(|| End::Failed(format!("http {status}")), grpc_end)
            }
            Door::GrpcWeb => {
                let code = grpc_code(headers).or_else(|| web_code(body));
                code.map_or_else(|| End::Failed(format!("http {status}")), grpc_end)
            }
        };
        let opened = (wants_trade && end == End::Done).then(|| self.opened(body)).flatten();
        Answer { end, opened }
    }

    fn opened(&self, body: &[u8]) -> Option<String> {
        match self.door {
            Door::Rest => {
                // The answer to a close has a trade too; it is closed.
                let text = std::str::from_utf8(body).ok()?;
                let (_, rest) = text.split_once("\"tradeId\":")?;
                rest.split('"').nth(1).map(ToOwned::to_owned)
            }
            Door::Grpc | Door::GrpcWeb => {
                let (_, message) = first_frame(body)?;
                Some(Opened::decode(message).ok()?.trade?.trade_id)
            }
        }
    }
}

fn rest_end(status: StatusCode) -> End {
    match status.as_u16() {
        200 => End::Done,
        429 | 503 => End::Refused,
        other => End::Failed(format!("http {other}")),
    }
}

fn grpc_code(headers: &HeaderMap) -> Option<u32> {
    headers.get("grpc-status")?.to_str().ok()?.parse().ok()
}

/// `RESOURCE_EXHAUSTED` and `UNAVAILABLE` say that nothing happened.
fn grpc_end(code: u32) -> End {
    match code {
        0 => End::Done,
        8 | 14 => End::Refused,
        other => End::Failed(format!("grpc {other}")),
    }
}

/// The first frame of a body: its flags, its bytes.
fn first_frame(body: &[u8]) -> Option<(u8, &[u8])> {
    let (head, rest) = body.split_first_chunk::<5>()?;
    let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
    Some((head[0], rest.get(..length)?))
}

/// The status in the trailers of grpc-web, which are the last frame of the body.
fn web_code(mut body: &[u8]) -> Option<u32> {
    loop {
        let (flags, bytes) = first_frame(body)?;
        if flags & 0x80 != 0 {
            let text = std::str::from_utf8(bytes).ok()?;
            let line = text.lines().find_map(|line| line.strip_prefix("grpc-status:"))?;
            return line.trim().parse().ok();
        }
        body = &body[5 + bytes.len()..];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn opened() -> Bytes {
        frame(&v1::OpenTradeResponse {
            trade: Some(v1::Trade {
                trade_id: "7-42".to_owned(),
                symbol: "SOL_USDC".to_owned(),
                ..Default::default()
            }),
            ..Default::default()
        })
    }

    #[test]
    fn the_opened_trade_is_read_through_every_door() {
        let none = HeaderMap::new();
        let trailers = HeaderMap::from_iter([("grpc-status".parse().unwrap(), HeaderValue::from_static("0"))]);
        let head = |door| Letterhead::new(door, "x", "t");
        let done = Answer {
            end: End::Done,
            opened: Some("7-42".to_owned()),
        };
        let grpc = head(Door::Grpc).read(StatusCode::OK, &none, &opened(), Some(&trailers), true);
        assert_eq!(grpc, done);
        let mut web = opened().to_vec();
        web.extend_from_slice(b"\x80\0\0\0\x0fgrpc-status:0\r\n");
        assert_eq!(head(Door::GrpcWeb).read(StatusCode::OK, &none, &web, None, true), done);
        let json = br#"{"trade":{"tradeId":"7-42","symbol":"x"}}"#;
        assert_eq!(head(Door::Rest).read(StatusCode::OK, &none, json, None, true), done);
    }

    #[test]
    fn a_refusal_is_told_from_a_failure() {
        let code = |code: &'static str| {
            HeaderMap::from_iter([("grpc-status".parse().unwrap(), HeaderValue::from_static(code))])
        };
        let head = Letterhead::new(Door::Grpc, "x", "t");
        let end = |headers: &HeaderMap| head.read(StatusCode::OK, headers, b"", None, false).end;
        assert_eq!(end(&code("14")), End::Refused);
        assert_eq!(end(&code("8")), End::Refused);
        assert_eq!(end(&code("4")), End::Failed("grpc 4".to_owned()));
        assert_eq!(end(&HeaderMap::new()), End::Failed("http 200 OK".to_owned()));
        assert_eq!(rest_end(StatusCode::SERVICE_UNAVAILABLE), End::Refused);
        assert_eq!(rest_end(StatusCode::NOT_FOUND), End::Failed("http 404".to_owned()));
    }

    #[test]
    fn a_cut_body_is_no_frame() {
        assert_eq!(first_frame(b"\0\0\0\0\x05abc"), None);
        assert_eq!(web_code(b"\0\0\0\0\x01a"), None);
    }
}
