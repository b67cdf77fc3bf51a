//! The poller: the venue's frames to quotes on the bus, and the recorder and replayer of those frames.
//!
//! It speaks Backpack's websocket. A frame becomes a typed result in [`frame`], is put in order per symbol in [`order`], waits in
//! [`batch`] (newest wins) and leaves through [`publish`]; [`feed`] keeps the socket alive and replaces it when it dies. What it never
//! does is say an old price again: when the venue is silent, so is the poller, and staleness shows where it matters.
//!
//! A replay is not a second path: [`mod@replay`] is a server that speaks the venue's protocol from a [`tape`], and the ordinary client
//! connects to it. [`mod@record`] writes such tapes.
//!
//! Reading order: [`config`], [`frame`], [`feed`], then [`mod@run`].

pub mod batch;
pub mod clock;
pub mod config;
pub mod error;
pub mod feed;
pub mod frame;
pub mod intake;
pub mod order;
pub mod playback;
pub mod player;
pub mod protocol;
pub mod publish;
pub mod record;
pub mod replay;
pub mod run;
pub mod state;
pub mod stream;
pub mod tape;
pub mod timeline;
pub mod trace;

pub use config::{Config, Feed, RecordConfig, ReplayConfig};
pub use error::PollerError;
pub use playback::{Playback, Speed, TapeSource, VenueTime, tape_time};
pub use record::{Recorded, record};
pub use replay::{ReplayServer, replay};
pub use run::{Poller, run};
pub use state::{Counters, Counts, FeedState, Mode};
