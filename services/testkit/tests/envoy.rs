//! Envoy's transcoder in front of our gRPC port, beside our own REST door: the same request gets the same status and the same JSON.
//!
//! Envoy reads the same bindings by code of its own, so it is a second opinion on what they mean. Where the two differ on odd input the
//! table says how and why; a difference that it does not name fails the test, and so does one that is gone.

#![allow(clippy::print_stdout, reason = "the table is worth reading")]

mod binary;
mod doors;
mod mesh;

#[path = "envoy/process.rs"]
mod process;
#[path = "envoy/table.rs"]
mod table;
#[path = "envoy/world.rs"]
mod world;

use std::collections::BTreeSet;

use mesh::Mesh;
use process::{Envoy, both};
use table::{Same, Status, Words, odd};
use world::World;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn envoy_gives_the_same_answer_to_every_call() {
    let mesh = Mesh::start(1).await;
    let envoy = Envoy::start(mesh.address).await;
    let world = World::of(&mesh).await;
    let mut called = BTreeSet::new();
    for (name, request, token) in world.calls() {
        let (verb, path, body) = doors::by_rest(name, &request);
        let asked = world.asked(verb, &path, body, token);
        let (ours, theirs) = both(&mesh, &envoy, &asked).await;
        assert_eq!(ours.status, 200, "{name}: {ours:?}");
        assert_eq!(theirs, ours, "{name} {path}");
        called.insert(name.to_owned());
    }
    assert_eq!(
        called,
        doors::methods().into_iter().collect(),
        "every binding was called"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn envoy_gives_the_same_answer_to_odd_input_but_for_what_is_explained() {
    let mesh = Mesh::start(1).await;
    let envoy = Envoy::start(mesh.address).await;
    let world = World::of(&mesh).await;
    let mut wrong = Vec::new();
    for odd in odd() {
        let mut asked = world.asked(odd.verb, odd.path, odd.body.to_vec(), &world.token);
        asked
            .headers
            .extend(odd.header.map(|(name, value)| (name, value.to_owned())));
        if odd.header.is_some_and(|(name, _)| name == "content-type") {
            asked
                .headers
                .retain(|(name, value)| *name != "content-type" || value != "application/json");
        }
        let (ours, theirs) = both(&mesh, &envoy, &asked).await;
        let found = match (ours == theirs, ours.status == theirs.status) {
            (true, _) => Same,
            (false, true) => Words(ours.status, ""),
            (false, false) => Status(ours.status, theirs.status, ""),
        };
        let said = match odd.says {
            Same => Same,
            Words(status, _) => Words(status, ""),
            Status(ours, theirs, _) => Status(ours, theirs, ""),
        };
        println!(
            "{} {} {}: {:?}",
            asked.verb,
            asked.path,
            String::from_utf8_lossy(&asked.body),
            odd.says
        );
        if found != said {
            wrong.push(format!(
                "{asked:?}\n  is {found:?}, not {said:?}\n  ours   {ours:?}\n  theirs {theirs:?}"
            ));
        }
    }
    assert!(
        wrong.is_empty(),
        "{} are not as the table says:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}
