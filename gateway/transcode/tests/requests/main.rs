//! What an HTTP request becomes: tables of requests, each with the message that the gRPC service saw or the reason of
//! the refusal.

mod address;
mod anything;
mod around;
mod body;
#[path = "../common/mod.rs"]
mod common;
mod limits;

use common::Library;

/// Sends `METHOD URL [body]` and compares: with `Method {message}`, or with `status REASON text-in-the-message`.
async fn check(library: &Library, story: &str, want: &str) {
    let mut parts = story.splitn(3, ' ');
    let line = format!("{} {}", parts.next().unwrap(), parts.next().unwrap());
    let body = parts.next().unwrap_or_default();
    let answer = library.send(&line, &[], body).await;
    if answer.status == 200 {
        assert_eq!(library.take_seen(), want, "{story}");
        return;
    }
    let got = format!("{} {}", answer.status, answer.reason());
    let (wanted, text) = want.splitn(3, ' ').collect::<Vec<_>>().split_at_checked(2).map_or_else(
        || (want.to_owned(), String::new()),
        |(head, tail)| (head.join(" "), tail.join(" ")),
    );
    let message = answer.json()["message"].as_str().unwrap().to_owned();
    assert_eq!(got, wanted, "{story}: {message}");
    assert!(message.contains(&text), "{story}: {message}");
    assert_eq!(library.take_seen(), "nothing", "{story}");
}
