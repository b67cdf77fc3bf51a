//! A gateway that is started before its database.

mod doors;
mod mesh;

use std::net::SocketAddr;

use bus::Redis;
use doors::{Client, Door};
use gateway::Gateway;
use mesh::{Mesh, within};
use serde_json::json;
use tokio_util::sync::CancellationToken;
use tonic::Code;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_started_before_its_database_says_so_and_serves_once_it_is_there() {
    let mut mesh = Mesh::start(2).await;
    mesh.postgres.kill();
    let listen = SocketAddr::from(([127, 0, 0, 1], 0));
    // A pool that has never been connected, as a process that has just started has it.
    let bus = Redis::open(&mesh.redis.url()).expect("our own address");
    let config = gateway::Config::new(listen, bus, mesh.postgres.pool(), mesh.issuer.trusted());
    let late = Gateway::bind(config).await.expect("a gateway that binds");
    let (address, mut ready, stop) = (late.local_addr(), late.readiness(), CancellationToken::new());
    let served = tokio::spawn(late.serve(stop.clone()));
    let clients: Vec<Client> = Door::ALL
        .iter()
        .map(|door| Client::new(*door, address, &mesh.token(door.word())))
        .collect();
    for client in &clients {
        let account = json!({"account_id": client.door.word()});
        for name in ["InitializeWallet", "ListBalances"] {
            let answer = client.call(name, account.clone()).await;
            assert_eq!(
                (answer.code, answer.reason()),
                (Code::Unavailable, "NOT_ACCEPTED"),
                "{}",
                answer.all()
            );
            assert!(answer.detail("RetryInfo").is_some(), "{}", answer.all());
        }
    }
    assert!(!*ready.borrow());

    mesh.postgres.start_again().await;
    within("readiness", ready.wait_for(|ready| *ready))
        .await
        .expect("it runs");
    for client in &clients {
        let account = json!({"account_id": client.door.word()});
        let made = client.call("InitializeWallet", account.clone()).await.good();
        assert_eq!(made["created"], true);
        // History is read from the database itself.
        let trades = client.call("ListTrades", account).await.good();
        assert_eq!(trades["trades"], json!([]));
    }
    stop.cancel();
    served.await.expect("it ends").expect("in good order");
}
