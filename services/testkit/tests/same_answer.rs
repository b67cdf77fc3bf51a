//! The same call gets the same answer through every door: status, text, typed details, body, and what it leaves behind.
//!
//! [`story`] is lived and says what is right; [`generated`] is made from the contract and leaves out no field of it; [`outages`] is what is
//! said when nobody can answer.

mod books;
mod doors;
mod mesh;
mod transcript;

#[path = "same_answer/caller.rs"]
mod caller;
#[path = "same_answer/generated.rs"]
mod generated;
#[path = "same_answer/house.rs"]
mod house;
#[path = "same_answer/inputs.rs"]
mod inputs;
#[path = "same_answer/life.rs"]
mod life;
#[path = "same_answer/market.rs"]
mod market;
#[path = "same_answer/opens.rs"]
mod opens;
#[path = "same_answer/outages.rs"]
mod outages;
#[path = "same_answer/story.rs"]
mod story;
#[path = "same_answer/streams.rs"]
mod streams;
#[path = "same_answer/tokens.rs"]
mod tokens;
#[path = "same_answer/trades.rs"]
mod trades;
#[path = "same_answer/wallet.rs"]
mod wallet;
