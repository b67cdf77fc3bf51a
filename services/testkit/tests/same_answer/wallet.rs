//! Making a wallet, money in and out, and what is there.

use serde_json::json;
use tonic::Code::{FailedPrecondition, InvalidArgument, NotFound};

use crate::life::{Life, id, long};

pub async fn wallet(life: &mut Life) {
    let me = life.account.clone();
    let account = json!({"account_id": me});
    for read in ["ListBalances", "GetAccountSummary", "ListTransactions", "ListTrades"] {
        life.bad(read, account.clone(), NotFound, "ACCOUNT_NOT_FOUND", &[])
            .await;
    }
    life.bad("OpenTrade", long(&me, json!({})), NotFound, "ACCOUNT_NOT_FOUND", &[])
        .await;
    let money = |amount: &str| json!({"account_id": me, "amount": {"currency_code": "USDC", "amount": amount}, "request_id": id()});
    life.bad("Deposit", money("1"), NotFound, "ACCOUNT_NOT_FOUND", &[])
        .await;

    let first = json!({"request_id": id()});
    let made = life.mine("first", "InitializeWallet", first.clone()).await;
    assert_eq!(made["created"], true);
    assert_eq!(made["balances"].as_array().expect("balances").len(), 4);
    assert_eq!(
        life.mine("again, same id", "InitializeWallet", first).await,
        made,
        "a repeat gets the first answer"
    );
    let again = life
        .mine("again, other id", "InitializeWallet", json!({"request_id": id()}))
        .await;
    assert_eq!(
        (&again["created"], &again["balances"]),
        (&json!(false), &made["balances"])
    );

    let deposited = life.good("", "Deposit", money("250.25")).await;
    assert_eq!(
        deposited["freeBalance"],
        json!({"currencyCode": "USDC", "amount": "5250.25"})
    );
    let withdrawn = life.good("", "Withdraw", money("50.25")).await;
    assert_eq!(withdrawn["freeBalance"]["amount"], "5200.00");
    life.bad(
        "Withdraw",
        money("5200.01"),
        FailedPrecondition,
        "INSUFFICIENT_FUNDS",
        &[],
    )
    .await;
    for amount in [
        "0",
        "-1",
        "1e2",
        "+1",
        "01",
        "1,000",
        "",
        "NaN",
        "1.",
        ".5",
        "1234567890123456789",
        " 1",
    ] {
        for name in ["Deposit", "Withdraw"] {
            life.bad(
                name,
                money(amount),
                InvalidArgument,
                "INVALID_FIELD",
                &["amount.amount"],
            )
            .await;
        }
    }
    life.bad(
        "Deposit",
        money("1.005"),
        InvalidArgument,
        "INVALID_FIELD",
        &["amount.amount"],
    )
    .await;
    let doge = json!({"account_id": me, "amount": {"currency_code": "DOGE", "amount": "1"}, "request_id": id()});
    life.bad("Deposit", doge, NotFound, "CURRENCY_UNKNOWN", &[]).await;
    life.bad(
        "Deposit",
        json!({"account_id": me, "request_id": id()}),
        InvalidArgument,
        "INVALID_FIELD",
        &["amount"],
    )
    .await;
    for wrong in [
        "no-uuid",
        "c7b1ee1c-5ad1-4f3c-8d0e-3d1dd1a4d2a1",
        "01890a5d-ac96-774b-bcce-b302099a80",
    ] {
        let mut request = money("1");
        request["request_id"] = wrong.into();
        life.bad("Deposit", request, InvalidArgument, "INVALID_FIELD", &["request_id"])
            .await;
    }
    let mut old = money("1");
    old["request_id"] = "01890a5d-ac96-774b-bcce-b302099a8057".into();
    life.bad("Deposit", old, FailedPrecondition, "REQUEST_ID_EXPIRED", &[])
        .await;

    let balances = life.mine("", "ListBalances", json!({})).await;
    assert_eq!(balances["balances"].as_array().expect("balances").len(), 4);
    let usdc = life.mine("", "GetBalance", json!({"currency_code": "USDC"})).await;
    assert_eq!(
        usdc["balance"],
        json!({"currencyCode": "USDC", "free": "5200.00", "locked": "0.00", "total": "5200.00"})
    );
    life.mine("as me", "GetBalance", json!({"currency_code": "SOL"})).await;
    let me_word = json!({"account_id": "me", "currency_code": "USDC"});
    assert_eq!(
        life.good("as me", "GetBalance", me_word).await["balance"],
        usdc["balance"]
    );
    life.bad(
        "GetBalance",
        json!({"account_id": me, "currency_code": "DOGE"}),
        NotFound,
        "CURRENCY_UNKNOWN",
        &[],
    )
    .await;
    life.bad(
        "GetBalance",
        json!({"account_id": me, "currency_code": "usdc"}),
        InvalidArgument,
        "INVALID_FIELD",
        &["currency_code"],
    )
    .await;
    let summary = life.mine("", "GetAccountSummary", json!({})).await;
    assert_eq!(
        (&summary["equity"]["amount"], &summary["marginLevel"]),
        (&json!("5200.00"), &json!(""))
    );
}
