//! What both doors are asked about, and a good call of every method.

use http::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::doors::{Client, Door};
use crate::mesh::{Mesh, until};
use crate::process::Asked;

const SOL: (&str, &str) = ("199.98", "200.02");

/// An account with one open and one closed trade, and a market that stands still.
pub struct World {
    pub token: String,
    operator: String,
    request_id: String,
    open: String,
    closed: String,
    opening: Value,
}

impl World {
    pub async fn of(mesh: &Mesh) -> Self {
        mesh.market.quote("SOL_USDC", SOL.0, SOL.1);
        let token = mesh.token("demo");
        let client = Client::new(Door::Grpc, mesh.address, &token);
        client
            .call("InitializeWallet", json!({"account_id": "demo"}))
            .await
            .good();
        until("a price", async || {
            let quote = client.call("GetQuote", json!({"symbol": "SOL_USDC"})).await;
            (quote.body["quote"]["state"] == "QUOTE_STATE_FRESH").then_some(())
        })
        .await;
        let request_id = Uuid::now_v7().to_string();
        let opening = json!({
            "account_id": "demo", "symbol": "SOL_USDC", "side": "SIDE_LONG", "margin": "100", "leverage": "10",
            "request_id": request_id,
        });
        let opened = client.call("OpenTrade", opening.clone()).await.good();
        let mut second = opening.clone();
        second["request_id"] = Uuid::now_v7().to_string().into();
        let closed = client.call("OpenTrade", second).await.good();
        let id = |opened: &Value| opened["trade"]["tradeId"].as_str().expect("an id").to_owned();
        let mut claims = mesh.issuer.claims("operator");
        claims.scope = "operator".to_owned();
        Self {
            token,
            operator: mesh.issuer.sign(&claims),
            request_id,
            open: id(&opened),
            closed: id(&closed),
            opening,
        }
    }

    pub fn asked(&self, verb: Method, path: &str, body: Vec<u8>, token: &str) -> Asked {
        let mut headers = vec![
            ("authorization", format!("Bearer {token}")),
            ("x-request-id", "the-same-for-both".to_owned()),
            // The one framing of streams that both have.
            ("accept", "application/json".to_owned()),
        ];
        if !body.is_empty() {
            headers.push(("content-type", "application/json".to_owned()));
        }
        Asked {
            verb,
            path: path.to_owned(),
            headers,
            body,
        }
    }

    /// A good call of every method. Mutations have a `request_id`, so that both doors get the first answer.
    pub fn calls(&self) -> Vec<(&'static str, Value, &str)> {
        let id = || Uuid::now_v7().to_string();
        let money = |amount: &str| json!({"account_id": "demo", "request_id": id(), "amount": {"currency_code": "USDC", "amount": amount}});
        let trade = |of: &str| json!({"account_id": "demo", "request_id": id(), "trade_id": of});
        let mut modify = trade(&self.open);
        modify["stop_loss_price"] = "190".into();
        let me = || json!({"account_id": "demo"});
        let symbol = || json!({"symbol": "SOL_USDC"});
        let all = [
            ("InitializeWallet", json!({"account_id": "demo", "request_id": id()})),
            ("Deposit", money("10.50")),
            ("Withdraw", money("0.50")),
            ("OpenTrade", self.opening.clone()),
            ("ModifyTrade", modify),
            ("CloseTrade", trade(&self.closed)),
            ("GetTrade", json!({"account_id": "demo", "trade_id": self.open})),
            ("GetTrade", json!({"account_id": "demo", "trade_id": self.closed})),
            ("ListTrades", me()),
            (
                "ListTrades",
                json!({"account_id": "demo", "status": "TRADE_STATUS_CLOSED", "page_size": 1, "symbol": "SOL_USDC"}),
            ),
            (
                "ListTrades",
                json!({"account_id": "demo", "order_by": "realised_profit desc"}),
            ),
            (
                "ListTransactions",
                json!({"account_id": "demo", "page_size": 5, "order_by": "book_time desc"}),
            ),
            ("ListBalances", json!({"account_id": "me"})),
            ("GetBalance", json!({"account_id": "demo", "currency_code": "USDC"})),
            ("GetAccountSummary", me()),
            (
                "GetOperation",
                json!({"account_id": "demo", "request_id": self.request_id}),
            ),
            ("ListInstruments", json!({})),
            ("GetInstrument", symbol()),
            ("GetQuote", symbol()),
            (
                "ListCandles",
                json!({"symbol": "SOL_USDC", "interval": "CANDLE_INTERVAL_1D"}),
            ),
            (
                "StreamQuotes",
                json!({"symbols": ["SOL_USDC"], "conflation_interval": "60s"}),
            ),
            (
                "StreamAccountEvents",
                json!({"account_id": "demo", "heartbeat_interval": "60s"}),
            ),
            ("GetUsage", json!({})),
        ];
        let mut all: Vec<_> = all
            .into_iter()
            .map(|(name, request)| (name, request, self.token.as_str()))
            .collect();
        all.push(("GetConservation", json!({}), self.operator.as_str()));
        all.push(("GetExposure", json!({}), self.operator.as_str()));
        all
    }
}
