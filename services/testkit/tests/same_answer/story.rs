//! A life is one account's calls, good and bad, one after another. It is lived once through each door, on an account of its own, and the
//! transcripts are compared whole. What each answer must be is said once, where the call is made, so that four doors cannot agree on
//! something wrong. After every refusal the account is looked at: a refusal changes nothing.

use std::collections::BTreeSet;

use crate::doors::{self, Door};
use crate::life::{Life, World, world};
use crate::mesh::Mesh;
use crate::{house, market, opens, streams, tokens, trades, wallet};

/// One account's life.
async fn live(mesh: &Mesh, world: &World, door: Door) -> Life {
    let mut life = Life::new(mesh, door);
    wallet::wallet(&mut life).await;
    market::market(&mut life, world).await;
    opens::refused_opens(&mut life).await;
    let closed = trades::trades(&mut life, world).await;
    tokens::operations(&mut life, &closed).await;
    tokens::tokens(mesh, &mut life).await;
    house::conservation(mesh, &mut life).await;
    house::usage(mesh, &mut life).await;
    house::exposure(mesh, &mut life).await;
    streams::streams(&mut life).await;
    life
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_door_gives_the_same_answers_to_the_same_calls() {
    let mesh = Mesh::start(1).await;
    let world = world(&mesh).await;
    let reference = live(&mesh, &world, Door::Grpc).await;
    let all: BTreeSet<String> = doors::methods().into_iter().collect();
    assert_eq!(reference.called, all, "every method of the contract was called");
    for door in [Door::GrpcWeb, Door::GrpcWebText, Door::Rest] {
        let life = live(&mesh, &world, door).await;
        for (there, here) in reference.steps.iter().zip(&life.steps) {
            assert_eq!(here.0, there.0, "{door:?}");
            assert_eq!(here.1, there.1, "{door:?} and gRPC differ at: {}", here.0);
        }
        assert_eq!(life.steps.len(), reference.steps.len(), "{door:?}");
    }
}
