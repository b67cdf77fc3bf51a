//! One door's account, and good requests of every method: the table that the generator starts from.

use futures::StreamExt as _;
use serde_json::{Value, json};

use crate::doors::{self, Answer, Client, Door};
use crate::life::{SOL, id, long};
use crate::mesh::{Mesh, within};
use crate::transcript::Names;

/// One door's account.
pub struct Caller {
    pub client: Client,
    pub account: String,
    pub names: Names,
    /// A trade that is open now.
    trade: String,
    /// An operation that was carried out.
    done: String,
}

impl Caller {
    pub async fn new(mesh: &Mesh, door: Door) -> Self {
        let account = format!("made-{}", door.word());
        let client = Client::new(door, mesh.address, &mesh.token(&account));
        let done = id();
        let wallet = json!({"account_id": account, "request_id": done});
        client.call("InitializeWallet", wallet).await.good();
        let mut it = Self {
            names: Names::of(&account),
            client,
            account,
            trade: String::new(),
            done,
        };
        it.open().await;
        it
    }

    /// Opens a trade to change, close and read.
    pub async fn open(&mut self) {
        let opened = self
            .client
            .call("OpenTrade", long(&self.account, json!({"margin": "50"})))
            .await
            .good();
        opened["trade"]["tradeId"]
            .as_str()
            .expect("an id")
            .clone_into(&mut self.trade);
    }

    /// The whole of what matters of an account.
    pub async fn look(&self) -> Value {
        let mut names = Names::of(&self.account);
        let mut all = Vec::new();
        for (name, more) in [
            ("ListBalances", json!({})),
            ("ListTrades", json!({"status": "TRADE_STATUS_OPEN"})),
        ] {
            let mut request = more;
            request["account_id"] = self.account.as_str().into();
            all.push(names.anonymous(&self.client.call(name, request).await.all()));
        }
        all.into()
    }

    /// Calls a method; of a stream the first message.
    pub async fn ask(&self, client: &Client, name: &str, request: Value) -> Answer {
        if !doors::streams(name) {
            return client.call(name, request).await;
        }
        let mut messages = client.stream(name, request).await;
        within("the first message", messages.next())
            .await
            .expect("a message, or why there is none")
    }

    /// Requests that are good, the first of them with as many fields as can be.
    pub fn good(&self, name: &str, second: &(String, String)) -> Vec<Value> {
        let me = self.account.as_str();
        let account = json!({"account_id": me});
        let with = |more: Value| {
            let mut request = account.clone();
            for (name, value) in more.as_object().expect("fields") {
                request[name] = value.clone();
            }
            request
        };
        let money = || json!({"currency_code": "USDC", "amount": "10.50"});
        let of_trade = |more: Value| {
            let mut request = with(more);
            request["trade_id"] = self.trade.as_str().into();
            request["request_id"] = id().into();
            request
        };
        match name {
            "InitializeWallet" => vec![with(json!({"request_id": id()})), account],
            "Deposit" | "Withdraw" => vec![
                with(json!({"request_id": id(), "amount": money()})),
                json!({"account_id": "me", "amount": money()}),
            ],
            "OpenTrade" => vec![
                long(
                    me,
                    json!({"margin": "10", "stop_loss_price": "190", "take_profit_price": "250",
                        "slippage": {"expected_price": SOL.1, "deviation_max_bps": 10}}),
                ),
                long(me, json!({"margin": null, "quantity": "0.5", "side": "SIDE_SHORT"})),
            ],
            "ModifyTrade" => vec![
                of_trade(json!({"stop_loss_price": "185", "take_profit_price": "260", "add_margin": "1"})),
                of_trade(json!({"clear_stop_loss": true, "clear_take_profit": true})),
            ],
            "CloseTrade" => vec![
                of_trade(json!({"quantity": "0.5"})),
                of_trade(json!({"percent": "10"})),
                of_trade(json!({})),
            ],
            "GetTrade" => vec![with(json!({"trade_id": self.trade, "min_sequence": "1"}))],
            "ListTrades" => {
                let full = json!({"status": "TRADE_STATUS_CLOSED", "symbol": "SOL_USDC", "page_size": 2, "min_sequence": "1",
                    "order_by": "close_time desc"});
                let orders = ["open_time", "close_time", "realised_profit", "realised_profit desc"];
                let ordered = orders.map(|order| with(json!({"order_by": order})));
                [with(full), account].into_iter().chain(ordered).collect()
            }
            "ListTransactions" => vec![
                with(
                    json!({"currency_code": "USDC", "trade_id": self.trade, "after_sequence": "1", "page_size": 3,
                    "min_sequence": "1", "order_by": "book_time desc"}),
                ),
                with(json!({"order_by": "sequence"})),
            ],
            "ListBalances" | "GetAccountSummary" => {
                vec![with(json!({"min_sequence": "1"})), json!({"account_id": "me"})]
            }
            "GetBalance" => vec![with(json!({"currency_code": "USDC", "min_sequence": "1"}))],
            "ListInstruments" | "GetConservation" | "GetExposure" => vec![json!({})],
            "GetInstrument" | "GetQuote" => vec![json!({"symbol": "SOL_USDC"})],
            "ListCandles" => vec![
                json!({"symbol": "SOL_USDC", "interval": "CANDLE_INTERVAL_1S", "start_time": second.0, "end_time": second.1,
                    "page_size": 2}),
                json!({"symbol": "SOL_USDC", "interval": "CANDLE_INTERVAL_1M"}),
            ],
            "GetOperation" => vec![with(json!({"request_id": self.done}))],
            "GetUsage" => vec![json!({}), json!({"principal": me})],
            "StreamAccountEvents" => vec![with(json!({"heartbeat_interval": "60s"}))],
            "StreamQuotes" => vec![
                json!({"symbols": ["SOL_USDC"], "conflation_interval": "0.500s"}),
                json!({"symbols": ["SOL_USDC"]}),
            ],
            other => panic!("{other} has no good request: say one here"),
        }
    }
}
