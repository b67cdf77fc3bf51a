//! Good input for each target: a fuzzer that begins with it gets past the first check.

use std::time::{SystemTime, UNIX_EPOCH};

use contracts::bus::request::Command;
use contracts::bus::{JournalBatch, Request};
use contracts::v1;
use gateway::token::Claims;
use gateway::{TokenConfig, TokenKey};
use prost::Message as _;
use uuid::Uuid;

use crate::life::{Life, START_US, Step};

/// The shard that envelopes are for.
pub(crate) const SHARD: u32 = 0;
/// One shard, so that every account lives in it.
pub(crate) const SHARDS: u32 = 1;
/// Whom the good token is for.
pub(crate) const PRINCIPAL: &str = "alice";

/// A life in which much happens.
const LIFE: [[u8; 6]; 12] = [
    [0, 0, 0, 0, 0, 0],
    [0, 1, 0, 0, 0, 0],
    [11, 2, 0, 0, 3, 232],
    [11, 2, 0, 0, 3, 232],
    [3, 0, 9, 0, 39, 10],
    [3, 1, 8, 0, 78, 50],
    [11, 2, 0, 0, 3, 240],
    [1, 0, 0, 0, 39, 16],
    [8, 0, 1, 1, 50, 0],
    [10, 1, 2, 0, 3, 232],
    [11, 2, 0, 0, 4, 20],
    [15, 0, 0, 0, 0, 0],
];

/// Requests as a gateway writes them.
pub(crate) fn envelopes() -> Vec<Vec<u8>> {
    let commands = [
        Command::InitializeWallet(v1::InitializeWalletRequest::default()),
        Command::ListBalances(v1::ListBalancesRequest::default()),
        Command::OpenTrade(v1::OpenTradeRequest {
            symbol: "SOL_USDC".to_owned(),
            side: v1::Side::Long.into(),
            size: Some(v1::open_trade_request::Size::Margin("10.00".to_owned())),
            leverage: "5".to_owned(),
            ..Default::default()
        }),
    ];
    let request = |command| Request {
        correlation_id: vec![7; 16].into(),
        reply_to: bus::keys::replies(Uuid::nil()),
        shard: SHARD,
        principal: PRINCIPAL.to_owned(),
        account_id: "demo".to_owned(),
        request_id: request_id().into(),
        expires_at_us: u64::MAX,
        command: Some(command),
        ..Request::default()
    };
    commands
        .into_iter()
        .map(|command| request(command).encode_to_vec())
        .collect()
}

/// A UUIDv7 of the moment at which lives begin.
fn request_id() -> Vec<u8> {
    let time_ms = u128::try_from(START_US / 1_000).expect("after the epoch");
    ((time_ms << 80) | (7 << 76) | (2 << 62) | 1).to_be_bytes().to_vec()
}

/// Calls: the verb's byte, path and query, a line end, the body.
pub(crate) fn rest_calls() -> Vec<Vec<u8>> {
    [
        "0/v1/accounts/demo/balances\n",
        "0/v1/accounts/demo/trades?status=TRADE_STATUS_OPEN&page_size=10&pageToken=x\n",
        "0/v1/accounts/d%2Fe/transactions?minSequence=7\n",
        "1/v1/accounts/demo/wallet:deposit\n{\"amount\":{\"currencyCode\":\"USDC\",\"amount\":\"1.50\"},\"requestId\":\"x\"}",
        "1/v1/accounts/demo/trades\n{\"symbol\":\"SOL_USDC\",\"side\":\"SIDE_LONG\",\"margin\":\"10\",\"leverage\":5}",
        "1/v1/accounts/demo/trades/0-1:close\n{\"percent\":\"50\"}",
    ]
    .map(|call| call.as_bytes().to_vec())
    .to_vec()
}

/// Numbers at the edges of what is one.
pub(crate) fn decimals() -> Vec<Vec<u8>> {
    [
        "0",
        "1.50",
        "-0.00000001",
        "79228162514264337593543950335",
        "0.1e1",
        "+1",
        "1_000",
        ".5",
        "1.",
        "00.10",
        "١",
    ]
    .map(|text| text.as_bytes().to_vec())
    .to_vec()
}

/// What the venue sends.
pub(crate) fn frames() -> Vec<Vec<u8>> {
    [
        r#"{"data":{"A":"142.10","B":"142.09","E":1700000000000000,"T":1700000000000000,"a":"3.1","b":"2.0","e":"bookTicker","s":"SOL_USDC","u":7},"stream":"bookTicker.SOL_USDC"}"#,
        r#"{"error":{"code":4006,"message":"Invalid stream"}}"#,
        r#"{"id":1,"result":null}"#,
    ]
    .map(|text| text.as_bytes().to_vec())
    .to_vec()
}

/// The rows that follow on a new shard's first.
pub(crate) fn journal_rows() -> Vec<Vec<u8>> {
    let mut life = Life::begin();
    let entries = LIFE.iter().flat_map(|step| life.take(&Step::read(*step))).collect();
    let batch = JournalBatch {
        entries,
        price_cursor: "7-0".to_owned(),
    };
    vec![batch.encode_to_vec()]
}

/// A whole small shard.
pub(crate) fn snapshot_chunks() -> Vec<Vec<u8>> {
    let mut life = Life::begin();
    for step in LIFE {
        life.take(&Step::read(step));
    }
    life.shard.chunks().map(|chunk| chunk.to_vec()).collect()
}

/// Lives.
pub(crate) fn lives() -> Vec<Vec<u8>> {
    vec![LIFE.concat()]
}

/// A key pair for nothing else.
const PRIVATE_PEM: &str = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIEnhSz5MolgNQsZjPSQvGAMls7oMFDQZsjYYjOB0WkZq\n-----END PRIVATE KEY-----\n";
const PUBLIC_PEM: &str = "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAIbYOE5TroanUR215nMca34MPHz15AspGHrc8U95gVcg=\n-----END PUBLIC KEY-----\n";

/// Which tokens are good.
pub(crate) fn token_config() -> TokenConfig {
    TokenConfig {
        issuer: "issuer".to_owned(),
        audience: "audience".to_owned(),
        keys: vec![TokenKey {
            id: None,
            public_pem: PUBLIC_PEM.to_owned(),
        }],
    }
}

/// A good token, one that has expired, and one for somebody else.
pub(crate) fn tokens() -> Vec<Vec<u8>> {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs();
    let claims = |exp, aud: &str| Claims {
        iss: "issuer".to_owned(),
        aud: aud.to_owned(),
        sub: PRINCIPAL.to_owned(),
        exp,
        nbf: now - 10,
        accounts: vec!["demo".to_owned()],
        scope: "view trade".to_owned(),
    };
    [
        (now + 86_400, "audience"),
        (now - 60, "audience"),
        (now + 86_400, "elsewhere"),
    ]
    .iter()
    .map(|(exp, aud)| {
        let token = gateway::token::sign(&claims(*exp, aud), None, PRIVATE_PEM.as_bytes()).expect("a good key");
        format!("Bearer {token}").into_bytes()
    })
    .collect()
}
