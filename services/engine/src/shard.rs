//! One shard in memory: the margin state, its quotes, the repeat window, and where the journal stands.
//!
//! Everything here is synchronous and reads no clock. Live, [`Shard::handle`] and [`Shard::observe`] decide, apply and hand out journal
//! entries; in a replay [`Shard::replay`] applies what was journaled and decides nothing. Both fold through the same two functions, so
//! a follower and a leader cannot come to different states.

use std::collections::HashMap;

use contracts::bus::operation_record::Outcome;
use contracts::bus::request::Command as Sent;
use contracts::bus::{
    AccountSequence, Failure, JournalBatch, JournalEntry, JournalEvent, OperationKind, OperationRecord, Reply, Request,
    ShardPosition, SnapshotChunk, VenueQuote, reply,
};
use contracts::v1::ErrorReason;
use contracts::{request_id, v1};
use engine_core::{
    AccountId, Command, Currency, EntityOwned, Event, EventKind, Instrument, Market, Observation, Price, Quote, State,
    Symbol, Timestamp, decide, fire,
};
use prost::Message as _;
use xxhash_rust::xxh3::{xxh3_128, xxh3_128_with_seed};

use crate::window::{self, Lookup, OperationKey, Window, micros};
use crate::wire::answer::View;
use crate::wire::{command, event, moment, refusal};

/// Most events in one journal entry: a tick that fires more makes several entries.
const EVENTS_PER_ENTRY_MAX: usize = 256;
/// About how large a snapshot chunk gets. Bytes.
const CHUNK_BYTES: usize = 1024 * 1024;
/// The settlement currency that a summary is in.
const SETTLEMENT: &str = "USDC";

/// The journal does not fit this state: it is damaged, or one of another shard.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Corrupt {
    /// An entry does not follow on the one before.
    #[error("shard {shard}: the journal goes from sequence {before} to {found}")]
    Gap {
        /// Which shard.
        shard: u32,
        /// Last sequence folded in.
        before: u64,
        /// Sequence that came.
        found: u64,
    },
    /// An entry cannot be read or applied.
    #[error("shard {shard}, sequence {sequence}: {what}")]
    Entry {
        /// Which shard.
        shard: u32,
        /// Which entry.
        sequence: u64,
        /// What is wrong with it.
        what: String,
    },
    /// The state after a row is not the one that its writer had.
    #[error("shard {shard}, sequence {sequence}: the state hash is {ours:032x}, the journal says {journal:032x}")]
    Hash {
        /// Which shard.
        shard: u32,
        /// Last entry of the row.
        sequence: u64,
        /// What the replay came to.
        ours: u128,
        /// What the row says.
        journal: u128,
    },
    /// A row or chunk is not what its digest says.
    #[error("shard {shard}, sequence {sequence}: {what} does not match its digest")]
    Digest {
        /// Which shard.
        shard: u32,
        /// First sequence of the row, or sequence of the snapshot.
        sequence: u64,
        /// What.
        what: String,
    },
}

/// What became of a request.
#[derive(Debug)]
pub struct Handled {
    /// What to answer once everything before it is committed.
    pub reply: Reply,
    /// What to commit; nothing for reads, repeats and what is not recorded.
    pub entry: Option<JournalEntry>,
    /// The answer is from memory: it may leave only while this process still leads.
    pub is_read: bool,
}

/// See the module.
#[derive(Debug)]
pub struct Shard {
    number: u32,
    state: State,
    market: Market,
    window: Window,
    touched: HashMap<AccountId, u64>,
    touched_hash: u128,
    sequence: u64,
    at: Timestamp,
    price_cursor: String,
    feed: String,
}

impl Shard {
    /// A shard before its first entry.
    #[must_use]
    pub fn new(number: u32) -> Self {
        Self {
            number,
            state: State::new(),
            market: Market::new(),
            window: Window::default(),
            touched: HashMap::new(),
            touched_hash: 0,
            sequence: 0,
            at: Timestamp::default(),
            price_cursor: String::new(),
            feed: String::new(),
        }
    }

    /// Its number.
    #[must_use]
    pub fn number(&self) -> u32 {
        self.number
    }

    /// Sequence of the last entry.
    #[must_use]
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// Engine time of the last entry.
    #[must_use]
    pub fn at(&self) -> Timestamp {
        self.at
    }

    /// Id of the last price stream entry seen.
    #[must_use]
    pub fn price_cursor(&self) -> &str {
        &self.price_cursor
    }

    /// The margin state.
    #[must_use]
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Hash of everything durable: what a replay must arrive at.
    #[must_use]
    pub fn hash(&self) -> u128 {
        let position = [
            self.sequence.to_le_bytes(),
            micros(self.at).to_le_bytes(),
            self.window.horizon_ms().to_le_bytes(),
        ]
        .concat();
        self.state
            .hash()
            .get()
            .wrapping_add(self.window.hash())
            .wrapping_add(self.touched_hash)
            .wrapping_add(xxh3_128(&position))
    }

    /// Journals the instruments whose terms differ from those in the state.
    pub fn configure(&mut self, now: Timestamp, catalogue: &[Instrument]) -> Vec<JournalEntry> {
        let at = self.at.max(now);
        let changed: Vec<&Instrument> = catalogue
            .iter()
            .filter(|it| self.state.instrument(&it.symbol) != Some(it))
            .collect();
        let mut entries = Vec::new();
        for instrument in changed {
            match decide(
                &self.state,
                &self.market,
                at,
                &Command::ConfigureInstrument(instrument.clone()),
            ) {
                Ok(events) if !events.is_empty() => entries.push(self.record_events(at, &events, String::new())),
                Ok(_) => {}
                Err(refused) => {
                    tracing::error!(shard = self.number, symbol = %instrument.symbol, %refused, "instrument not configured")
                }
            }
        }
        entries
    }

    /// The quotes that follow come from this feed. Update numbers of one feed say nothing about another's, so a change of feed starts
    /// the market anew.
    pub fn feed_is(&mut self, feed: &str) {
        if self.feed != feed {
            if !self.feed.is_empty() {
                tracing::warn!(
                    shard = self.number,
                    before = self.feed,
                    now = feed,
                    "another feed; waiting for its first quotes"
                );
                self.market = Market::new();
            }
            feed.clone_into(&mut self.feed);
        }
    }

    /// Takes one quote; what it fires becomes journal entries.
    pub fn observe(
        &mut self,
        now: Timestamp,
        quote: &VenueQuote,
        traceparent: &str,
        out: &mut Vec<JournalEntry>,
    ) -> Option<Observation> {
        let at = self.at.max(now);
        let quote = read_quote(quote)?;
        let observation = self.market.observe(&self.state, at, &quote);
        if observation == Observation::Accepted {
            let mut events = Vec::new();
            fire(&self.state, &self.market, at, &quote.symbol, &mut events);
            for part in events.chunks(EVENTS_PER_ENTRY_MAX) {
                out.push(self.record_events(at, part, traceparent.to_owned()));
            }
        }
        Some(observation)
    }

    /// Learns a quote without firing on it: it was seen, and acted on, by the leader before.
    pub fn learn(&mut self, now: Timestamp, quote: &VenueQuote) {
        if let Some(quote) = read_quote(quote) {
            self.market.observe(&self.state, self.at.max(now), &quote);
        }
    }

    /// Remembers that the price stream was seen up to here; journaled with the next batch.
    pub fn advance_price_cursor(&mut self, id: &str) {
        id.clone_into(&mut self.price_cursor);
    }

    /// Handles one request: executes it, answers it from memory, or refuses it.
    pub fn handle(&mut self, now: Timestamp, request: &Request) -> Handled {
        let at = self.at.max(now);
        let Some(sent) = &request.command else {
            return self.read_reply(request, Err(command::invalid("command", "is missing")));
        };
        match command::kind_of(sent) {
            Some(kind) => self.mutate(at, request, kind, sent),
            None => {
                let outcome = self.read(at, request, sent);
                self.read_reply(request, outcome)
            }
        }
    }

    /// Folds a journal row in.
    ///
    /// # Errors
    /// [`Corrupt`] when it does not follow or cannot be read; the shard is then of no further use.
    pub fn replay(&mut self, batch: &JournalBatch) -> Result<(), Corrupt> {
        for entry in &batch.entries {
            let corrupt = |what: String| Corrupt::Entry {
                shard: self.number,
                sequence: entry.sequence,
                what,
            };
            if entry.sequence != self.sequence + 1 {
                return Err(Corrupt::Gap {
                    shard: self.number,
                    before: self.sequence,
                    found: entry.sequence,
                });
            }
            let events: Vec<Event> = entry
                .events
                .iter()
                .map(event::read)
                .collect::<Result<_, _>>()
                .map_err(|cause| corrupt(cause.to_string()))?;
            let at = moment(entry.at_us);
            self.sequence = entry.sequence;
            self.at = at;
            self.fold(at, &events).map_err(|what| Corrupt::Entry {
                shard: self.number,
                sequence: entry.sequence,
                what,
            })?;
            if let Some(operation) = &entry.operation {
                self.remember(at, operation.clone());
            }
        }
        self.price_cursor.clone_from(&batch.price_cursor);
        Ok(())
    }

    /// The whole durable state in chunks of about 1 MiB.
    #[must_use]
    pub fn chunks(&self) -> Vec<SnapshotChunk> {
        let mut chunks = Chunks::default();
        chunks.current.position = Some(ShardPosition {
            horizon_ms: self.window.horizon_ms(),
            at_us: micros(self.at),
            price_cursor: self.price_cursor.clone(),
        });
        for entity in self.state.entities() {
            let mut bytes = Vec::new();
            entity.encode(&mut bytes);
            let size = bytes.len();
            chunks.current.entities.push(bytes.into());
            chunks.grown(size);
        }
        for operation in self.window.entries() {
            let size = operation.encoded_len();
            chunks.current.operations.push(operation);
            chunks.grown(size);
        }
        let mut touched: Vec<_> = self.touched.iter().collect();
        touched.sort_unstable();
        for (account, sequence) in touched {
            chunks.current.accounts.push(AccountSequence {
                account_id: account.to_string(),
                sequence: *sequence,
            });
            chunks.grown(account.as_str().len() + 12);
        }
        chunks.finish()
    }

    /// Builds a shard from the chunks of a snapshot at `sequence`.
    ///
    /// # Errors
    /// [`Corrupt`] when something in them cannot be read.
    pub fn restore(
        number: u32,
        sequence: u64,
        chunks: impl IntoIterator<Item = SnapshotChunk>,
    ) -> Result<Self, Corrupt> {
        let corrupt = |what: &str| Corrupt::Entry {
            shard: number,
            sequence,
            what: what.to_owned(),
        };
        let mut shard = Self {
            sequence,
            ..Self::new(number)
        };
        let mut entities: Vec<EntityOwned> = Vec::new();
        for chunk in chunks {
            for bytes in &chunk.entities {
                entities
                    .push(EntityOwned::decode(bytes).map_err(|_| corrupt("an entity of the snapshot cannot be read"))?);
            }
            for operation in chunk.operations {
                shard
                    .window
                    .restore(operation)
                    .ok_or_else(|| corrupt("an operation of the snapshot cannot be read"))?;
            }
            for touched in chunk.accounts {
                let account = AccountId::new(&touched.account_id)
                    .map_err(|_| corrupt("an account of the snapshot cannot be read"))?;
                shard.touch(account, touched.sequence);
            }
            if let Some(position) = chunk.position {
                shard.window.set_horizon(position.horizon_ms);
                shard.at = moment(position.at_us);
                shard.price_cursor = position.price_cursor;
            }
        }
        shard.state = State::try_restore(entities.into_iter()).map_err(|cause| corrupt(&cause.to_string()))?;
        Ok(shard)
    }

    fn mutate(&mut self, at: Timestamp, request: &Request, kind: OperationKind, sent: &Sent) -> Handled {
        let Ok(id) = <[u8; 16]>::try_from(request.request_id.as_ref()) else {
            return self.read_reply(request, Err(command::invalid("request_id", "must be a UUIDv7")));
        };
        let key = OperationKey {
            principal: request.principal.as_str().into(),
            request_id: u128::from_be_bytes(id),
        };
        let hash = payload_hash(&request.account_id, sent);
        match self.window.lookup(&key, &hash, at) {
            Lookup::New => {}
            Lookup::Repeat(seen) => {
                let (sequence, outcome) = (seen.sequence, seen.record.outcome.clone());
                return self.repeat_reply(request, sequence, outcome);
            }
            Lookup::Reused => return self.read_reply(request, Err(reused())),
            Lookup::Expired => return self.read_reply(request, Err(expired_id(self.window.horizon_ms()))),
        }
        if key.time_ms() > micros(at) / 1_000 + request_id::AHEAD_MAX_MS {
            let problem = "carries a time more than five minutes ahead: check the clock that made it";
            return self.read_reply(request, Err(command::invalid("request_id", problem)));
        }
        if micros(at) > request.expires_at_us {
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
        let events = match decided {
            Ok(events) => events,
            Err(failure) => {
                let outcome = Outcome::Failure(failure);
                if window::is_final(&outcome) {
                    return self.record_operation(at, request, kind, hash, &account, &[], Vec::new(), Some(outcome));
                }
                let Outcome::Failure(failure) = outcome else {
                    unreachable!("made a failure above")
                };
                return self.read_reply(request, Err(failure));
            }
        };
        let journaled: Vec<JournalEvent> = self.write_and_fold(at, &events);
        self.record_operation(at, request, kind, hash, &account, &events, journaled, None)
    }

    /// Journals an operation whose events are folded in already; `refused` is its outcome when it has none.
    #[expect(
        clippy::too_many_arguments,
        reason = "one call site a case, and a struct would only rename them"
    )]
    fn record_operation(
        &mut self,
        at: Timestamp,
        request: &Request,
        kind: OperationKind,
        hash: Vec<u8>,
        account: &AccountId,
        events: &[Event],
        journaled: Vec<JournalEvent>,
        refused: Option<Outcome>,
    ) -> Handled {
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
            account_id: account.to_string(),
            outcome: Some(outcome.clone()),
        };
        self.remember(at, record.clone());
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

    /// Journals events that no request caused.
    fn record_events(&mut self, at: Timestamp, events: &[Event], traceparent: String) -> JournalEntry {
        let events = self.write_and_fold(at, events);
        JournalEntry {
            sequence: self.sequence,
            at_us: micros(at),
            operation: None,
            events,
            traceparent,
        }
    }

    /// Writes events for the journal and folds them in, as one new entry when there are any.
    fn write_and_fold(&mut self, at: Timestamp, events: &[Event]) -> Vec<JournalEvent> {
        if events.is_empty() {
            return Vec::new();
        }
        self.next_entry(at);
        let mut journaled = Vec::with_capacity(events.len());
        for one in events {
            journaled.push(event::write(&self.state, one));
            self.fold(at, std::slice::from_ref(one))
                .expect("what was just decided on this state fits it");
        }
        journaled
    }

    fn next_entry(&mut self, at: Timestamp) {
        self.sequence += 1;
        self.at = at;
    }

    fn fold(&mut self, at: Timestamp, events: &[Event]) -> Result<(), String> {
        for one in events {
            self.state.try_apply(at, one).map_err(|cause| cause.to_string())?;
            if let Some(account) = account_of(one) {
                self.touch(account.clone(), self.sequence);
            }
        }
        Ok(())
    }

    fn remember(&mut self, at: Timestamp, record: OperationRecord) {
        // A refused operation is the account's last change too: a reader that saw the refusal must be able to wait for it.
        if let Ok(account) = AccountId::new(&record.account_id)
            && self.state.account(&account).is_some()
        {
            self.touch(account, self.sequence);
        }
        self.window.insert(self.sequence, at, record);
    }

    fn touch(&mut self, account: AccountId, sequence: u64) {
        let hash = |account: &AccountId, sequence: u64| xxh3_128_with_seed(account.as_str().as_bytes(), sequence);
        self.touched_hash = self.touched_hash.wrapping_add(hash(&account, sequence));
        if let Some(before) = self.touched.get(&account) {
            self.touched_hash = self.touched_hash.wrapping_sub(hash(&account, *before));
        }
        self.touched.insert(account, sequence);
    }

    fn read(&self, at: Timestamp, request: &Request, sent: &Sent) -> Result<Vec<u8>, Failure> {
        if request.min_sequence > self.sequence {
            let problem = format!(
                "is ahead of the journal, which is at {}: pass a sequence that an answer gave",
                self.sequence
            );
            return Err(command::invalid("min_sequence", &problem));
        }
        let view = self.view(at);
        let account = || {
            AccountId::new(&request.account_id).map_err(|problem| command::invalid("account_id", &problem.to_string()))
        };
        match sent {
            Sent::ListBalances(_) => {
                let account = account()?;
                let balances = view.balances(&account).ok_or_else(|| no_account(&account))?;
                Ok(v1::ListBalancesResponse {
                    balances,
                    sequence: self.sequence,
                }
                .encode_to_vec())
            }
            Sent::GetBalance(it) => {
                let account = account()?;
                self.state.account(&account).ok_or_else(|| no_account(&account))?;
                let balance = view
                    .balance(&account, &it.currency_code)
                    .ok_or_else(|| no_currency(&it.currency_code))?;
                Ok(v1::GetBalanceResponse {
                    balance: Some(balance),
                    sequence: self.sequence,
                }
                .encode_to_vec())
            }
            Sent::GetAccountSummary(_) => {
                let account = account()?;
                let settlement = Currency::new(SETTLEMENT).expect("a currency code");
                view.summary(&account, &settlement)
                    .ok_or_else(|| no_account(&account))
                    .map(|summary| summary.encode_to_vec())
            }
            Sent::GetTrade(it) => {
                let account = account()?;
                let owner = self.state.account(&account).ok_or_else(|| no_account(&account))?;
                let number = command::trade_number(self.number, &it.trade_id).ok_or_else(|| no_trade(&it.trade_id))?;
                match self.state.trade(number).filter(|trade| trade.account == owner.id) {
                    Some(trade) => {
                        let quote = self.market.tradable(&trade.symbol);
                        let trade = Some(view.open_trade(trade, quote.as_ref(), 0));
                        Ok(v1::GetTradeResponse {
                            trade,
                            sequence: self.sequence,
                        }
                        .encode_to_vec())
                    }
                    None => Err(no_trade(&it.trade_id)),
                }
            }
            Sent::ListOpenTrades(_) => {
                let account = account()?;
                self.state.account(&account).ok_or_else(|| no_account(&account))?;
                let trades = view.open_trades(&account);
                Ok(v1::ListTradesResponse {
                    trades,
                    next_page_token: String::new(),
                    sequence: self.sequence,
                }
                .encode_to_vec())
            }
            Sent::ListInstruments(_) => Ok(v1::ListInstrumentsResponse {
                instruments: view.instruments(),
            }
            .encode_to_vec()),
            Sent::GetQuote(it) => {
                let symbol =
                    Symbol::new(&it.symbol).map_err(|problem| command::invalid("symbol", &problem.to_string()))?;
                if self.state.instrument(&symbol).is_none() {
                    return Err(refusal::failure(&engine_core::Refusal::SymbolUnknown { symbol }));
                }
                let quote = view
                    .current_quote(&symbol)
                    .ok_or_else(|| refusal::failure(&engine_core::Refusal::PriceMissing { symbol: symbol.clone() }))?;
                Ok(v1::GetQuoteResponse { quote: Some(quote) }.encode_to_vec())
            }
            Sent::GetOperation(it) => self.operation(request, &it.request_id),
            Sent::AccountSnapshot(_) => {
                let account = account()?;
                let balances = view.balances(&account).ok_or_else(|| no_account(&account))?;
                let open_trades = view.open_trades(&account);
                Ok(v1::AccountSnapshot {
                    as_of_sequence: self.sequence,
                    balances,
                    open_trades,
                }
                .encode_to_vec())
            }
            Sent::InitializeWallet(_)
            | Sent::Deposit(_)
            | Sent::Withdraw(_)
            | Sent::OpenTrade(_)
            | Sent::CloseTrade(_)
            | Sent::ModifyTrade(_) => Err(command::invalid("command", "is a mutation")),
        }
    }

    fn operation(&self, request: &Request, id: &str) -> Result<Vec<u8>, Failure> {
        let id = request_id::parse(id).map_err(|problem| command::invalid("request_id", problem))?;
        let key = OperationKey {
            principal: request.principal.as_str().into(),
            request_id: id.as_u128(),
        };
        let seen = self
            .window
            .get(&key)
            .filter(|seen| seen.record.account_id == request.account_id)
            .ok_or_else(no_operation)?;
        Ok(contracts::bus::OperationFound {
            entry: Some(contracts::bus::WindowEntry {
                sequence: seen.sequence,
                at_us: micros(seen.at),
                operation: Some(seen.record.clone()),
            }),
            window_start_ms: self.window.horizon_ms(),
        }
        .encode_to_vec())
    }

    fn view(&self, at: Timestamp) -> View<'_> {
        View {
            shard: self.number,
            state: &self.state,
            market: &self.market,
            at,
            sequence: self.sequence,
        }
    }

    fn account_sequence(&self, account: &AccountId) -> u64 {
        self.touched.get(account).copied().unwrap_or(0)
    }

    fn read_reply(&self, request: &Request, outcome: Result<Vec<u8>, Failure>) -> Handled {
        let outcome = match outcome {
            Ok(response) => reply::Outcome::Response(response.into()),
            Err(failure) => reply::Outcome::Failure(failure),
        };
        Handled {
            reply: self.reply(request, self.sequence, outcome),
            entry: None,
            is_read: true,
        }
    }

    fn repeat_reply(&self, request: &Request, sequence: u64, outcome: Option<Outcome>) -> Handled {
        let outcome = outcome.map_or_else(|| reply::Outcome::Failure(Failure::default()), reply_outcome);
        Handled {
            reply: self.reply(request, sequence, outcome),
            entry: None,
            is_read: true,
        }
    }

    fn reply(&self, request: &Request, sequence: u64, outcome: reply::Outcome) -> Reply {
        let account_sequence = AccountId::new(&request.account_id).map_or(0, |account| self.account_sequence(&account));
        Reply {
            correlation_id: request.correlation_id.clone(),
            sequence,
            account_sequence,
            outcome: Some(outcome),
        }
    }
}

/// Collects a snapshot, starting a new chunk when one is large enough.
#[derive(Default)]
struct Chunks {
    done: Vec<SnapshotChunk>,
    current: SnapshotChunk,
    size: usize,
}

impl Chunks {
    fn grown(&mut self, by: usize) {
        self.size += by;
        if self.size >= CHUNK_BYTES {
            self.done.push(std::mem::take(&mut self.current));
            self.size = 0;
        }
    }

    fn finish(mut self) -> Vec<SnapshotChunk> {
        self.done.push(self.current);
        self.done
    }
}

/// Tells a repeat from a reuse: a hash of the account and the command without its `request_id`'s spelling mattering.
fn payload_hash(account_id: &str, sent: &Sent) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(sent.encoded_len() + account_id.len() + 8);
    bytes.extend_from_slice(account_id.as_bytes());
    bytes.push(0);
    sent.encode(&mut bytes);
    xxh3_128(&bytes).to_be_bytes().to_vec()
}

/// The account that an event is about; nothing for the house's own.
fn account_of(event: &Event) -> Option<&AccountId> {
    match &event.kind {
        EventKind::InstrumentConfigured(_) => None,
        EventKind::WalletInitialized { account }
        | EventKind::Deposited { account, .. }
        | EventKind::Withdrawn { account, .. }
        | EventKind::TradeModified { account, .. } => Some(account),
        EventKind::TradeOpened { trade, .. } => Some(&trade.account),
        EventKind::TradeReduced(closing) | EventKind::TradeClosed(closing) => Some(&closing.account),
    }
}

fn read_quote(quote: &VenueQuote) -> Option<Quote> {
    Some(Quote {
        symbol: Symbol::new(&quote.symbol).ok()?,
        bid: Price::parse(&quote.bid).ok()?,
        ask: Price::parse(&quote.ask).ok()?,
        venue_time: moment(quote.venue_time_us),
        update_id: quote.update_id,
    })
}

fn reply_outcome(outcome: Outcome) -> reply::Outcome {
    match outcome {
        Outcome::Response(response) => reply::Outcome::Response(response),
        Outcome::Failure(failure) => reply::Outcome::Failure(failure),
    }
}

fn plain_failure(reason: ErrorReason, message: String) -> Failure {
    Failure {
        reason: reason.into(),
        message,
        ..Failure::default()
    }
}

fn no_account(account: &AccountId) -> Failure {
    refusal::failure(&engine_core::Refusal::AccountNotFound {
        account: account.clone(),
    })
}

fn no_currency(code: &str) -> Failure {
    plain_failure(
        ErrorReason::CurrencyUnknown,
        format!("{code} is not a currency held here: list the balances to see which are"),
    )
}

fn no_trade(id: &str) -> Failure {
    plain_failure(
        ErrorReason::TradeNotFound,
        format!("this account has no trade {id}: list its trades to see which it has"),
    )
}

fn no_operation() -> Failure {
    plain_failure(
        ErrorReason::OperationNotFound,
        "no operation with this request_id was executed for this caller and account".to_owned(),
    )
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
