//! Commands and quotes whose handling panics: written down, and put away before they become a crash loop.
//!
//! A panic may leave the state half changed, so it ends the leadership: the state is thrown away and made again from the journal. What
//! was being handled is written down first, outside the state, once a leadership. The second time proves that it was not the state: from
//! then on the command is not handled any more, for [`POISON_FOR`]; it becomes a dead letter, and its callers get `INTERNAL`.

use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use bytes::Bytes;
use contracts::bus::{Failure, Reply, Request, VenueQuote, reply};
use contracts::v1::ErrorReason;
use prost::Message as _;

use crate::journal::{Journal, JournalError};

#[cfg(not(panic = "unwind"))]
compile_error!(
    "a panic must unwind: one that aborts cannot be told from a kill, and its message would be tried for ever"
);

/// How many leaderships a command may end before it is put away.
pub const ENDED_MAX: u32 = 2;
/// How long a command stays put away; a repeat that comes later is tried again.
pub const POISON_FOR: Duration = Duration::from_secs(60 * 60);

/// The commands that one shard does not handle any more.
#[derive(Debug, Default)]
pub struct Poison(HashSet<[u8; 32]>);

impl Poison {
    /// Those known to the journal.
    ///
    /// # Errors
    /// When it is away.
    pub async fn of<J: Journal>(journal: &J, shard: u32) -> Result<Self, JournalError> {
        Ok(Self(journal.poison(shard).await?.into_iter().collect()))
    }

    /// The digest under which a command is put away; nothing for one that may be handled.
    ///
    /// # Errors
    /// When the journal is away: it is asked again about what is known, because somebody may have put a command back meanwhile.
    pub async fn holds<J: Journal>(
        &mut self,
        journal: &J,
        shard: u32,
        request: &Request,
    ) -> Result<Option<[u8; 32]>, JournalError> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let digest = digest(request);
        if !self.0.contains(&digest) {
            return Ok(None);
        }
        *self = Self::of(journal, shard).await?;
        Ok(self.0.contains(&digest).then_some(digest))
    }

    /// The digest under which a price is put away; nothing for one that may be looked at.
    #[must_use]
    pub fn holds_quote(&self, quote: &VenueQuote) -> Option<[u8; 32]> {
        if self.0.is_empty() {
            return None;
        }
        Some(quote_digest(quote)).filter(|digest| self.0.contains(digest))
    }
}

/// Recognises a command: the same when its caller sends it again, however it reaches the queue.
#[must_use]
pub fn digest(request: &Request) -> [u8; 32] {
    let command = Request {
        correlation_id: Bytes::new(),
        reply_to: String::new(),
        expires_at_us: 0,
        traceparent: String::new(),
        min_sequence: 0,
        sent_at_us: 0,
        ..request.clone()
    };
    *blake3::hash(&command.encode_to_vec()).as_bytes()
}

/// Recognises a price: the same at whatever time it comes, because what is computed from it is the same.
#[must_use]
pub fn quote_digest(quote: &VenueQuote) -> [u8; 32] {
    let price = VenueQuote {
        symbol: quote.symbol.clone(),
        bid: quote.bid.clone(),
        ask: quote.ask.clone(),
        ..VenueQuote::default()
    };
    *blake3::hash(&price.encode_to_vec()).as_bytes()
}

/// Handles something; an error is what its panic said. What it changed is then of no further use.
pub(crate) fn guarded<T>(handle: impl FnOnce() -> T) -> Result<T, String> {
    let handled = catch_unwind(AssertUnwindSafe(handle));
    handled.map_err(|panic| match panic.downcast::<String>() {
        Ok(said) => *said,
        Err(panic) => panic
            .downcast::<&str>()
            .map_or_else(|_| "it said nothing".to_owned(), |said| (*said).to_owned()),
    })
}

/// The answer to a command that is put away.
pub(crate) fn reply_to(request: &Request, sequence: u64) -> Reply {
    let failure = Failure {
        reason: ErrorReason::Internal.into(),
        message: "the command could not be carried out and was set aside: nothing was changed".to_owned(),
        ..Failure::default()
    };
    Reply {
        correlation_id: request.correlation_id.clone(),
        sequence,
        account_sequence: 0,
        outcome: Some(reply::Outcome::Failure(failure)),
    }
}

/// A fault on purpose, for tests: what this principal sends, or a quote of this symbol, panics. It exists with the feature `mutants`
/// only.
pub mod tripwire {
    use contracts::bus::{Request, VenueQuote};

    #[cfg(feature = "mutants")]
    thread_local! {
        static LAID_FOR: std::cell::RefCell<Option<String>> = const { std::cell::RefCell::new(None) };
    }

    /// Makes the mutations of a principal, or the quotes of a symbol, panic, on this thread.
    #[cfg(feature = "mutants")]
    pub fn lay(whose: Option<&str>) {
        LAID_FOR.set(whose.map(str::to_owned));
    }

    #[cfg(feature = "mutants")]
    pub(crate) fn step_on(request: &Request) {
        if !request.request_id.is_empty() {
            trip(&request.principal);
        }
    }

    #[cfg(feature = "mutants")]
    pub(crate) fn step_on_quote(quote: &VenueQuote) {
        trip(&quote.symbol);
    }

    #[cfg(feature = "mutants")]
    fn trip(whose: &str) {
        let laid = LAID_FOR.with_borrow(|it| it.as_deref() == Some(whose));
        assert!(!laid, "stepped on the tripwire of {whose}");
    }

    #[cfg(not(feature = "mutants"))]
    pub(crate) const fn step_on(_: &Request) {}

    #[cfg(not(feature = "mutants"))]
    pub(crate) const fn step_on_quote(_: &VenueQuote) {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use contracts::bus::request::Command;

    fn request() -> Request {
        Request {
            correlation_id: vec![1; 16].into(),
            reply_to: "replies:a".to_owned(),
            principal: "alice".to_owned(),
            request_id: vec![7; 16].into(),
            expires_at_us: 5,
            command: Some(Command::OpenTrade(contracts::v1::OpenTradeRequest::default())),
            ..Request::default()
        }
    }

    #[test]
    fn a_repeat_is_recognised_and_another_command_is_not() {
        let again = Request {
            correlation_id: vec![2; 16].into(),
            reply_to: "replies:b".to_owned(),
            expires_at_us: 9,
            sent_at_us: 9,
            ..request()
        };
        assert_eq!(digest(&request()), digest(&again));
        for other in [
            |it: &mut Request| it.principal = "bob".to_owned(),
            |it: &mut Request| it.request_id = vec![8; 16].into(),
            |it: &mut Request| it.command = Some(Command::CloseTrade(contracts::v1::CloseTradeRequest::default())),
        ] {
            let mut changed = request();
            other(&mut changed);
            assert_ne!(digest(&request()), digest(&changed), "{changed:?}");
        }
    }

    #[test]
    fn what_a_panic_says_is_kept() {
        let quiet = std::panic::take_hook();
        std::panic::set_hook(Box::new(|_| {}));
        let formatted = guarded(|| panic!("{} is odd", 3));
        let plain = guarded(|| panic!("odd"));
        std::panic::set_hook(quiet);
        assert_eq!(formatted, Err::<(), _>("3 is odd".to_owned()));
        assert_eq!(plain, Err::<(), _>("odd".to_owned()));
        assert_eq!(guarded(|| 3), Ok(3));
    }
}
