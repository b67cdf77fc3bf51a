//! Mutations: each executed at most once, each answered the same for ever.

use bus::mutants::{self, Mutant};
use contracts::bus::operation_record::Outcome;
use contracts::bus::request::Command as Sent;
use contracts::bus::{Failure, JournalEntry, JournalEvent, OperationKind, OperationRecord, Reply, Request};
use contracts::request_id;
use contracts::v1::ErrorReason;
use engine_core::{AccountId, Event, Timestamp, decide};
use prost::Message as _;
use xxhash_rust::xxh3::xxh3_128;

use super::read::{plain_failure, reply_outcome};
use super::{Handled, Shard};
use crate::window::{self, Journaled, Lookup, OperationKey, micros};
use crate::wire::{command, refusal};

impl Shard {
    pub(super) fn mutate(&mut self, at: Timestamp, request: &Request, kind: OperationKind, sent: &Sent) -> Handled {
        let Ok(id) = <[u8; 16]>::try_from(request.request_id.as_ref()) else {
            return self.read_reply(request, Err(command::invalid("request_id", "must be a UUIDv7")));
        };
        let key = OperationKey::new(&request.principal, id);
        let hash = payload_hash(&request.account_id, sent);
        match self.window.lookup(&key, &hash, at) {
            Lookup::New => {}
            Lookup::Repeat(seen) => return self.repeat_reply(request, seen.sequence, seen.record.outcome),
            Lookup::Reused => return self.read_reply(request, Err(reused())),
            Lookup::Expired => return self.read_reply(request, Err(expired_id(self.window.horizon_ms()))),
        }
        if key.time_ms() > micros(at) / 1_000 + request_id::AHEAD_MAX_MS {
            let problem = "carries a time more than five minutes ahead: check the clock that made it";
            return self.read_reply(request, Err(command::invalid("request_id", problem)));
        }
        if micros(at) > request.expires_at_us && !mutants::is(Mutant::LateExecution) {
            return self.read_reply(request, Err(expired()));
        }
        let account = match AccountId::new(&request.account_id) {
            Ok(account) => account,
            Err(problem) => return self.read_reply(request, Err(command::invalid("account_id", &problem.to_string()))),
        };
        let decided = command::mutation(kind, &account, self.number, sent)
            .map_err(|failure| *failure)
            .and_then(|mutation| {
                decide(&self.state, &self.market, at, &mutation.command).map_err(|refused| refusal::failure(&refused))
            });
        let asked = Asked {
            request,
            kind,
            key,
            hash,
            account: &account,
        };
        let events = match decided {
            Ok(events) => events,
            Err(failure) => {
                let outcome = Outcome::Failure(failure);
                if window::is_final(&outcome) {
                    return self.record_operation(at, asked, &[], Vec::new(), Some(outcome));
                }
                let Outcome::Failure(failure) = outcome else {
                    unreachable!("made a failure above")
                };
                return self.read_reply(request, Err(failure));
            }
        };
        let journaled: Vec<JournalEvent> = self.write_and_fold(at, &events);
        self.record_operation(at, asked, &events, journaled, None)
    }

    /// Journals an operation whose events are folded in already; `refused` is its outcome when it has none.
    fn record_operation(
        &mut self,
        at: Timestamp,
        asked: Asked<'_>,
        events: &[Event],
        journaled: Vec<JournalEvent>,
        refused: Option<Outcome>,
    ) -> Handled {
        let Asked {
            request,
            kind,
            key,
            hash,
            account,
        } = asked;
        if journaled.is_empty() {
            self.next_entry(at);
        }
        let outcome = refused
            .unwrap_or_else(|| Outcome::Response(self.view(at).mutation(kind, account, events, &journaled).into()));
        let record = OperationRecord {
            principal: request.principal.clone(),
            request_id: request.request_id.clone(),
            kind: kind.into(),
            payload_hash: hash.into(),
            account_id: account.as_str().to_owned(),
            outcome: Some(outcome.clone()),
        };
        let written = Journaled::written(key, account.as_str(), record.encode_to_vec());
        self.remember(at, written, events);
        let entry = JournalEntry {
            sequence: self.sequence,
            at_us: micros(at),
            operation: Some(record),
            events: journaled,
            traceparent: request.traceparent.clone(),
        };
        let reply = Reply {
            correlation_id: request.correlation_id.clone(),
            sequence: self.sequence,
            account_sequence: self.account_sequence(account),
            outcome: Some(reply_outcome(outcome)),
        };
        Handled {
            reply,
            entry: Some(entry),
            is_read: false,
        }
    }
}

/// A mutation that is executed or refused for good.
struct Asked<'a> {
    request: &'a Request,
    kind: OperationKind,
    key: OperationKey,
    /// By [`payload_hash`].
    hash: Vec<u8>,
    account: &'a AccountId,
}

/// Tells a repeat from a reuse: a hash of the account and the command without its `request_id`'s spelling mattering.
fn payload_hash(account_id: &str, sent: &Sent) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(sent.encoded_len() + account_id.len() + 8);
    bytes.extend_from_slice(account_id.as_bytes());
    bytes.push(0);
    sent.encode(&mut bytes);
    xxh3_128(&bytes).to_be_bytes().to_vec()
}

fn reused() -> Failure {
    plain_failure(
        ErrorReason::RequestIdReused,
        "this request_id was used before with another command: make a new one for a new command".to_owned(),
    )
}

fn expired_id(horizon_ms: u64) -> Failure {
    plain_failure(
        ErrorReason::RequestIdExpired,
        format!(
            "this request_id is older than the window in which repeats are recognised (from {horizon_ms} ms): ask GetOperation whether it was executed"
        ),
    )
}

fn expired() -> Failure {
    plain_failure(
        ErrorReason::Expired,
        "the deadline had passed before the command was executed: it was not, and may be sent again".to_owned(),
    )
}
