//! The one room behind the three doors: what the services share, and how they call the engine.

use std::sync::Arc;

use bus::{CallError, Calls};
use contracts::bus::request::Command;
use contracts::shard;
use prost::Message;
use uuid::Uuid;

use crate::auth::{Identity, Scope};
use crate::config::Streams;
use crate::deadline::Deadline;
use crate::failure::Failure;
use crate::gates::Mark;
use crate::history::History;
use crate::limits::Principals;
use crate::market::Instruments;
use crate::metrics::Metrics;
use crate::places::Places;
use crate::stream::events::EventHub;
use crate::stream::now_us;
use crate::stream::quote_hub::QuoteHub;
use crate::validate::Mutation;
use crate::wire::{self, Answer, Envelope};

/// What the services share.
pub(crate) struct Room<C> {
    /// The way to the engines.
    pub calls: C,
    /// How many shards there are.
    pub shards: u32,
    /// The recorder's tables, and the journal.
    pub history: History,
    /// Committed entries, by account.
    pub events: Arc<EventHub>,
    /// The venue's newest quotes.
    pub quotes: Arc<QuoteHub>,
    /// What can be traded.
    pub instruments: Instruments,
    /// Places for streams, by principal.
    pub places: Arc<Places<String>>,
    /// How streams behave.
    pub streams: Streams,
    /// What principals may use and have used.
    pub principals: Arc<Principals>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
}

/// One call past the gates. An extension of every request to our own services.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    /// Who calls.
    pub identity: Arc<Identity>,
    /// Until when; a stream may have none.
    pub deadline: Option<Deadline>,
    mark: Mark,
}

impl Call {
    /// One that has passed the gates.
    pub fn new(identity: Arc<Identity>, deadline: Option<Deadline>, mark: Mark) -> Self {
        Self {
            identity,
            deadline,
            mark,
        }
    }

    /// The call that a request is part of, if its token has the scope.
    pub fn of<T>(request: &tonic::Request<T>, scope: Scope) -> Result<Self, Failure> {
        let call = Self::of_anybody(request)?;
        call.identity.require(scope)?;
        Ok(call)
    }

    /// The call that a request is part of, whatever its token is for.
    pub fn of_anybody<T>(request: &tonic::Request<T>) -> Result<Self, Failure> {
        // Not there only if a service was mounted outside of the gates.
        let call = request.extensions().get::<Self>().cloned();
        call.ok_or(Failure::TokenInvalid("a bearer token is required"))
    }

    /// The deadline of one step of a call: its own, or for a stream a short one.
    pub fn step(&self) -> Deadline {
        self.deadline.unwrap_or_else(|| Deadline::after(STEP))
    }
}

/// How long a stream waits for one answer of the engine, and the market for its instruments.
pub(crate) const STEP: std::time::Duration = std::time::Duration::from_secs(5);

impl<C: Calls> Room<C> {
    /// The shard of an account.
    pub fn shard(&self, account_id: &str) -> u32 {
        shard::of_account(account_id, self.shards)
    }

    /// Queues a mutation and waits for its first answer. Once it is queued the operation happens or not, whoever listens.
    pub async fn mutate<T, R>(&self, call: &Call, it: Mutation<T>, command: fn(T) -> Command) -> Result<R, Failure>
    where
        R: Message + Default,
    {
        let request_id = it.request_id;
        let shard = self.shard(&it.account_id);
        let reply = self.send(call, shard, &it.account_id, Some(request_id), 0, command(it.command))?;
        self.metrics
            .admitted(call.mark.arrived.elapsed(), latency::recorded(&call.mark.traceparent));
        match reply.await {
            Err(CallError::UnknownOutcome) => Err(Failure::UnknownOutcome {
                request_id: Some(request_id),
            }),
            Err(error) => Err(error.into()),
            Ok(reply) => wire::answer(reply).map(|answer: Answer<R>| answer.message),
        }
    }

    /// Asks the engine. `account_id` is empty for the market, which every shard knows.
    pub async fn read<R>(
        &self,
        call: &Call,
        account_id: &str,
        min_sequence: u64,
        command: Command,
    ) -> Result<Answer<R>, Failure>
    where
        R: Message + Default,
    {
        let shard = if account_id.is_empty() {
            0
        } else {
            self.shard(account_id)
        };
        told(self.send(call, shard, account_id, None, min_sequence, command)?.await)
    }

    /// Asks the engine about a whole shard.
    pub async fn read_shard<R>(&self, call: &Call, shard: u32, command: Command) -> Result<Answer<R>, Failure>
    where
        R: Message + Default,
    {
        told(self.send(call, shard, "", None, 0, command)?.await)
    }

    fn send<'a>(
        &'a self,
        call: &Call,
        shard: u32,
        account_id: &str,
        request_id: Option<Uuid>,
        min_sequence: u64,
        command: Command,
    ) -> Result<impl Future<Output = Result<contracts::bus::Reply, CallError>> + Send + use<'a, C>, Failure> {
        let deadline = call.step();
        if deadline.left().is_zero() {
            return Err(Failure::Expired);
        }
        let mut request = contracts::bus::Request::from(Envelope {
            principal: &call.identity.principal,
            account_id,
            shard,
            request_id,
            expires_at_us: deadline.wall_us(),
            traceparent: &call.mark.traceparent,
            min_sequence,
            command,
        });
        request.sent_at_us = now_us();
        Ok(self.calls.call(request, deadline.at))
    }
}

/// The answer to a read.
fn told<R: Message + Default>(reply: Result<contracts::bus::Reply, CallError>) -> Result<Answer<R>, Failure> {
    match reply {
        // It changed nothing, so nothing is unknown.
        Err(CallError::UnknownOutcome) => Err(Failure::Expired),
        Err(error) => Err(error.into()),
        Ok(reply) => wire::answer(reply),
    }
}
