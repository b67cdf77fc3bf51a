//! One shard in memory: the margin state, its quotes, the repeat window, and where the journal stands.
//!
//! Everything here is synchronous and reads no clock. Live, [`Shard::handle`] and [`Shard::observe`] decide, apply and hand out journal
//! entries; in a replay [`Shard::replay`] applies what was journaled and decides nothing. Both fold through the same two functions, so
//! a follower and a leader cannot come to different states.
//!
//! Mutations stand in `mutate`, answers from memory in `read` and `conservation`, the way into a snapshot and back in `snapshot`.

mod conservation;
mod corrupt;
mod mutate;
mod read;
mod snapshot;

use bus::mutants::{self, Mutant};
use contracts::bus::{JournalEntry, JournalEvent, Reply, Request, VenueQuote};
use engine_core::growth::Spread;
use engine_core::{
    AccountId, Command, Event, Instrument, Market, Observation, Price, Quote, State, Symbol, Timestamp, decide, fire,
};
use xxhash_rust::xxh3::{xxh3_128, xxh3_128_with_seed};

pub use self::corrupt::Corrupt;
use crate::window::{Journaled, Limits, Window, micros};
use crate::wire::answer::View;
use crate::wire::borrowed::{self, Borrowed as _, several};
use crate::wire::event::Unreadable;
use crate::wire::{command, event, moment};

/// Most events in one journal entry: a tick that fires more makes several entries.
const EVENTS_PER_ENTRY_MAX: usize = 256;

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
    touched: Spread<AccountId, u64>,
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
        Self::with_window(number, Limits::default())
    }

    /// The same with a repeat window of these limits.
    #[must_use]
    pub fn with_window(number: u32, limits: Limits) -> Self {
        Self {
            number,
            state: State::new(),
            market: Market::new(),
            window: Window::new(limits),
            touched: Spread::default(),
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
            .wrapping_add(if mutants::is(Mutant::SnapshotWithoutDedupe) {
                0
            } else {
                self.window.hash()
            })
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
                if mutants::is(Mutant::PriceNotJournaled) {
                    let _folded = self.fold(at, part);
                    continue;
                }
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

    /// Folds the body of a journal row in, an encoded `JournalBatch`.
    ///
    /// # Errors
    /// [`Corrupt`] when it does not follow or cannot be read; the shard is then of no further use.
    pub fn replay(&mut self, body: &[u8]) -> Result<(), Corrupt> {
        let number = self.number;
        let corrupt = |sequence, what| Corrupt::Entry {
            shard: number,
            sequence,
            what,
        };
        let unread_after = |sequence: u64| move |cause: Unreadable| corrupt(sequence + 1, cause.to_string());
        for entry in several(body, borrowed::ENTRIES) {
            let unread = unread_after(self.sequence);
            let written = entry.map_err(unread)?;
            let entry = borrowed::JournalEntry::read(written).map_err(unread)?;
            if entry.sequence != self.sequence + 1 {
                return Err(Corrupt::Gap {
                    shard: number,
                    before: self.sequence,
                    found: entry.sequence,
                });
            }
            let events = several(written, borrowed::EVENTS).map(|event| event::read(event?));
            let events: Vec<Event> = events.collect::<Result<_, _>>().map_err(unread)?;
            let operation = entry.operation.map(Journaled::read).transpose().map_err(unread)?;
            let at_us = entry.at_us.0;
            let at = if mutants::is(Mutant::WallClockInApply) {
                moment(at_us + 1_000)
            } else {
                moment(at_us)
            };
            self.sequence = entry.sequence;
            self.at = at;
            self.fold(at, &events).map_err(|what| corrupt(entry.sequence, what))?;
            if let Some(operation) = operation {
                self.remember(at, operation, &events);
            }
        }
        let batch = borrowed::JournalBatch::read(body).map_err(unread_after(self.sequence))?;
        batch.price_cursor.clone_into(&mut self.price_cursor);
        Ok(())
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
            if let Some(account) = one.kind.account() {
                self.touch(account, self.sequence);
            }
        }
        Ok(())
    }

    /// Remembers an operation whose events are folded in.
    fn remember(&mut self, at: Timestamp, operation: Journaled<'_>, events: &[Event]) {
        let mut changed = events.iter().filter_map(|event| event.kind.account());
        // A refused operation is the account's last change too: a reader that saw the refusal must be able to wait for it.
        if !changed.any(|account| account.as_str() == operation.account_id())
            && let Ok(account) = AccountId::new(operation.account_id())
            && self.state.account(&account).is_some()
        {
            self.touch(&account, self.sequence);
        }
        self.window.insert(self.sequence, at, operation);
    }

    fn touch(&mut self, account: &AccountId, sequence: u64) {
        let hash = |sequence: u64| xxh3_128_with_seed(account.as_str().as_bytes(), sequence);
        match self.touched.get_mut(account) {
            Some(before) if *before == sequence => return,
            Some(before) => {
                self.touched_hash = self.touched_hash.wrapping_sub(hash(*before));
                *before = sequence;
            }
            None => {
                self.touched.insert(account.clone(), sequence);
            }
        }
        self.touched_hash = self.touched_hash.wrapping_add(hash(sequence));
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
