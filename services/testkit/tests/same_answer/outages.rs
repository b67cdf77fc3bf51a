//! The same answer when there is nobody to give it.

use std::time::Duration;

use serde_json::json;
use tonic::Code::{self, Unavailable};

use crate::doors::{Client, Door};
use crate::life::{long, world};
use crate::mesh::{Mesh, until};
use crate::transcript::Names;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_an_engine_every_door_says_that_nothing_was_accepted() {
    let mut mesh = Mesh::start(1).await;
    let world = world(&mesh).await;
    let mut asked = Vec::new();
    for door in Door::ALL {
        let account = format!("poor-{}", door.word());
        let client = Client::new(door, mesh.address, &mesh.token(&account));
        client
            .call("InitializeWallet", json!({"account_id": account}))
            .await
            .good();
        asked.push((client, long(&account, json!({}))));
    }
    mesh.stop_engine().await;
    let mut answers = Vec::new();
    for (client, request) in &asked {
        // It would wait for half a minute if it waited: what says that it did not is the reason.
        let client = client.with_timeout(Duration::from_secs(30));
        let mutation = client.call("OpenTrade", request.clone()).await;
        let read = client
            .call("ListBalances", json!({"account_id": request["account_id"]}))
            .await;
        for answer in [&mutation, &read] {
            assert_eq!(
                (answer.code, answer.reason()),
                (Unavailable, "NOT_ACCEPTED"),
                "{}",
                answer.all()
            );
            assert!(answer.detail("RetryInfo").is_some(), "{}", answer.all());
        }
        let mut names = Names::of(request["account_id"].as_str().expect("an account"));
        answers.push(json!([names.anonymous(&mutation.all()), names.anonymous(&read.all())]));
    }
    assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:#?}");

    mesh.start_engine(1).await;
    until("a price", async || {
        let quote = asked[0].0.call("GetQuote", json!({"symbol": "SOL_USDC"})).await;
        (quote.body["quote"]["state"] == "QUOTE_STATE_FRESH").then_some(())
    })
    .await;
    for (client, request) in &asked {
        let listed = client
            .call("ListTrades", json!({"account_id": request["account_id"]}))
            .await
            .good();
        assert_eq!(
            listed["trades"],
            json!([]),
            "what was not accepted did not happen later"
        );
        let opened = client.call("OpenTrade", request.clone()).await.good();
        assert_ne!(opened["trade"]["tradeId"], world.foreign.as_str());
        assert_eq!(client.call("OpenTrade", request.clone()).await.good(), opened);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_does_not_come_in_time_is_an_unknown_outcome_and_the_same_request_id_gets_the_true_one() {
    let mesh = Mesh::start(1).await;
    let _world = world(&mesh).await;
    let mut answers = Vec::new();
    for door in Door::ALL {
        let account = format!("late-{}", door.word());
        let client = Client::new(door, mesh.address, &mesh.token(&account));
        client
            .call("InitializeWallet", json!({"account_id": account}))
            .await
            .good();
        let request = long(&account, json!({}));

        // Nothing can be written to the journal, so the engine decides and cannot answer.
        let mut held = mesh.pool.begin().await.expect("a transaction");
        sqlx::query("LOCK TABLE journal IN SHARE MODE")
            .execute(&mut *held)
            .await
            .expect("a lock");
        let answer = client
            .with_timeout(Duration::from_millis(500))
            .call("OpenTrade", request.clone())
            .await;
        held.rollback().await.expect("released");

        assert_eq!(
            (answer.code, answer.reason()),
            (Code::DeadlineExceeded, "UNKNOWN_OUTCOME"),
            "{door:?}: {}",
            answer.all()
        );
        let named = &answer.detail("ErrorInfo").expect("a reason")["metadata"]["request_id"];
        assert_eq!(*named, request["request_id"], "it says what to ask for");
        let opened = client.call("OpenTrade", request.clone()).await.good();
        assert_eq!(client.call("OpenTrade", request.clone()).await.good(), opened);
        let look = json!({"account_id": account, "request_id": request["request_id"]});
        let operation = client.call("GetOperation", look).await.good();
        assert_eq!(operation["operation"]["response"]["sequence"], opened["sequence"]);
        let listed = client.call("ListTrades", json!({"account_id": account})).await.good();
        assert_eq!(listed["trades"].as_array().expect("trades").len(), 1, "once");
        assert_eq!(listed["trades"][0]["tradeId"], opened["trade"]["tradeId"]);
        let mut names = Names::of(&account);
        answers.push(json!([names.anonymous(&answer.all()), names.anonymous(&opened)]));
    }
    assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:#?}");
}
