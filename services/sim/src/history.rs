//! What clients asked for and were told, and what is already wrong about it.
//!
//! Everything is recorded before it is judged: an attempt when it is sent, an answer when a client has it. What can be judged at once
//! is; what needs the whole journal is judged in [`crate::audit`].

use std::collections::{BTreeMap, HashMap, HashSet};

use bytes::Bytes;
use contracts::bus::request::Command;
use contracts::bus::{Request, reply};
use contracts::v1::{self, ErrorReason};
use prost::Message as _;

/// Shard, principal and `request_id`: what an operation is known under.
pub type Key = (u32, String, u128);

/// A mutation that some client wants.
#[derive(Clone, Debug)]
pub struct Operation {
    pub key: Key,
    pub account: String,
    pub command: Command,
    /// Deadlines of all attempts, engine time, and how they ended; `None` while nobody knows.
    pub attempts: Vec<(u64, Option<Told>)>,
    /// The first answer that is for ever.
    pub answer: Option<reply::Outcome>,
}

/// What a client was told about one attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// An answer that is for ever.
    Answer,
    /// Nothing happened; it may be sent again.
    Nothing,
    /// The id was used for something else.
    Reused,
    /// The id is too old.
    TooOld,
    /// Nobody knows.
    Unknown,
}

/// A read that was answered.
#[derive(Clone, Debug)]
pub struct ReadSeen {
    pub shard: u32,
    pub sequence: u64,
    pub account: String,
    pub balances: Vec<v1::Balance>,
}

/// See the module.
#[derive(Debug, Default)]
pub struct History {
    pub operations: Vec<Operation>,
    /// Operations under one key: more than one when an id was reused for another command.
    pub by_key: HashMap<Key, Vec<usize>>,
    /// When a key was executed: the time that its row landed.
    pub executed: BTreeMap<Key, u64>,
    /// When a message of a key was seen by an engine for the second time.
    pub delivered_again: HashMap<Key, u64>,
    /// Last sequence that any client was told of, by shard.
    pub told_sequence: Vec<u64>,
    pub reads: Vec<ReadSeen>,
    /// Correlation ids that an engine answered, or tried to.
    answered: HashSet<Bytes>,
    /// Correlation ids that an engine has seen.
    seen: HashSet<Bytes>,
}

impl History {
    /// Nothing yet.
    pub fn new(shards: u32) -> Self {
        Self {
            told_sequence: vec![0; shards as usize],
            ..Self::default()
        }
    }

    /// A client wants something. Returns its index.
    pub fn want(&mut self, key: Key, account: &str, command: Command) -> usize {
        let index = self.operations.len();
        self.by_key.entry(key.clone()).or_default().push(index);
        self.operations.push(Operation {
            key,
            account: account.to_owned(),
            command,
            attempts: Vec::new(),
            answer: None,
        });
        index
    }

    /// An engine looks at messages.
    pub fn peeked(&mut self, messages: &[Bytes], now_us: u64) {
        for message in messages {
            let Ok(request) = Request::decode(message.clone()) else {
                continue;
            };
            if !self.seen.insert(request.correlation_id.clone())
                && let Some(key) = key_of(&request)
            {
                self.delivered_again.entry(key).or_insert(now_us);
            }
        }
    }

    /// An engine answers.
    pub fn answered(&mut self, correlation: Bytes) {
        self.answered.insert(correlation);
    }

    /// Whether a message was answered, or at least an engine tried to.
    pub fn was_answered(&self, correlation: &Bytes) -> bool {
        self.answered.contains(correlation)
    }

    /// A client was told of this sequence.
    pub fn heard_of(&mut self, shard: u32, sequence: u64) {
        let last = &mut self.told_sequence[shard as usize];
        *last = (*last).max(sequence);
    }

    /// A client has the answer to an attempt. What is wrong about it, if something is.
    pub fn told(&mut self, index: usize, attempt: usize, outcome: &reply::Outcome) -> Result<Told, String> {
        let told = kind_of(outcome);
        let operation = &mut self.operations[index];
        operation.attempts[attempt].1 = Some(told);
        let (id, principal) = (operation.key.2, operation.key.1.clone());
        let name = format!("{principal}/{id:032x}");
        match (told, &operation.answer) {
            (Told::Answer, Some(first)) if first != outcome => Err(format!(
                "{name}: the first answer was {first:?}, a repeat got {outcome:?}"
            )),
            (Told::Answer, Some(_)) => Ok(told),
            (Told::Answer, None) => {
                operation.answer = Some(outcome.clone());
                let others = &self.by_key[&self.operations[index].key];
                if others
                    .iter()
                    .any(|other| *other != index && self.operations[*other].answer.is_some())
                {
                    return Err(format!("{name}: two commands under one id were both answered"));
                }
                Ok(told)
            }
            (Told::Nothing, Some(first)) => Err(format!(
                "{name}: it was answered with {first:?}, and now with {outcome:?} as if nothing had happened"
            )),
            (Told::Reused, Some(_)) => Err(format!(
                "{name}: it was answered, and now its own repeat counts as a reuse"
            )),
            (Told::Nothing | Told::Reused | Told::TooOld | Told::Unknown, _) => Ok(told),
        }
    }
}

/// The key of a mutation; `None` for a read.
pub fn key_of(request: &Request) -> Option<Key> {
    let id: [u8; 16] = request.request_id.as_ref().try_into().ok()?;
    Some((request.shard, request.principal.clone(), u128::from_be_bytes(id)))
}

/// Whether an outcome is a failure for this reason.
pub fn is(outcome: &reply::Outcome, reason: ErrorReason) -> bool {
    matches!(outcome, reply::Outcome::Failure(failure) if failure.reason() == reason)
}

fn kind_of(outcome: &reply::Outcome) -> Told {
    let reply::Outcome::Failure(failure) = outcome else {
        return Told::Answer;
    };
    match failure.reason() {
        ErrorReason::StalePrice
        | ErrorReason::InvalidField
        | ErrorReason::NotAccepted
        | ErrorReason::NotAllowed
        | ErrorReason::TokenInvalid
        | ErrorReason::Expired => Told::Nothing,
        ErrorReason::UnknownOutcome => Told::Unknown,
        ErrorReason::RequestIdReused => Told::Reused,
        ErrorReason::RequestIdExpired => Told::TooOld,
        _ => Told::Answer,
    }
}
