//! A venue in this process, played by the test line by line, over a byte pipe instead of TCP: with paused time nothing here is random.

#![allow(dead_code, clippy::missing_panics_doc)]

use std::sync::Arc;
use std::time::Duration;

use futures::{SinkExt as _, StreamExt as _};
use poller::Counts;
use poller::feed::{Client, Dial, Heard, Listener};
use poller::intake::{Desk, Intake};
use poller::state::{Mode, Status};
use tokio::io::DuplexStream;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::{Error as WebSocketError, Message};
use tokio_tungstenite::{WebSocketStream, accept_async, client_async};
use tokio_util::sync::CancellationToken;

/// How long anything expected may take. With paused time a long wait costs nothing.
pub const PATIENCE: Duration = Duration::from_secs(600);

/// Opens pipes to the venue of the test.
pub struct Pipe {
    venue: mpsc::UnboundedSender<DuplexStream>,
}

impl Dial for Pipe {
    type Stream = DuplexStream;

    async fn dial(&self) -> Result<WebSocketStream<DuplexStream>, WebSocketError> {
        let (near, far) = tokio::io::duplex(64 * 1024);
        self.venue.send(far).map_err(|_| WebSocketError::ConnectionClosed)?;
        Ok(client_async("ws://venue/", near).await?.0)
    }
}

/// The venue's side: sockets in the order they were opened.
pub struct Venue {
    arrivals: mpsc::UnboundedReceiver<DuplexStream>,
}

/// One socket, the venue's end.
pub struct Socket(pub WebSocketStream<DuplexStream>);

impl Venue {
    /// A venue and the way to it.
    pub fn new() -> (Self, Pipe) {
        let (venue, arrivals) = mpsc::unbounded_channel();
        (Self { arrivals }, Pipe { venue })
    }

    /// The next socket, before the upgrade.
    pub async fn arrival(&mut self) -> DuplexStream {
        timeout(PATIENCE, self.arrivals.recv())
            .await
            .expect("a client connects")
            .expect("the client lives")
    }

    /// The next socket, upgraded.
    pub async fn accept(&mut self) -> Socket {
        Socket(accept_async(self.arrival().await).await.expect("an upgrade"))
    }

    /// The next socket, after its subscription, which is checked.
    pub async fn subscriber(&mut self) -> Socket {
        let mut socket = self.accept().await;
        let subscribe = r#"{"method":"SUBSCRIBE","params":["bookTicker.SOL_USDC","bookTicker.BTC_USDC"]}"#;
        assert_eq!(socket.receive().await, Message::text(subscribe));
        socket
    }

    /// Whether nobody is connecting.
    pub fn is_quiet(&mut self) -> bool {
        self.arrivals.try_recv().is_err()
    }
}

impl Socket {
    pub async fn send(&mut self, text: &str) {
        self.0.send(Message::text(text)).await.expect("the client reads");
    }

    pub async fn receive(&mut self) -> Message {
        timeout(PATIENCE, self.0.next())
            .await
            .expect("the client speaks")
            .expect("open")
            .expect("well-formed")
    }

    /// Sends a quote of SOL_USDC with this update id, stamped with the present.
    pub async fn quote(&mut self, update_id: u64, bid: &str, ask: &str) {
        self.send(&quote("SOL_USDC", update_id, poller::clock::now_us(), bid, ask))
            .await;
    }
}

/// A frame of the venue's.
pub fn quote(symbol: &str, update_id: u64, at_us: u64, bid: &str, ask: &str) -> String {
    format!(
        r#"{{"data":{{"A":"1.00","B":"2.00","E":{at_us},"T":{at_us},"a":"{ask}","b":"{bid}","e":"bookTicker","s":"{symbol}","u":{update_id}}},"stream":"bookTicker.{symbol}"}}"#
    )
}

/// Listens like the poller does, and tells the test when it has heard a frame.
struct Told {
    intake: Intake,
    heard: mpsc::UnboundedSender<Heard>,
}

impl Listener for Told {
    fn frame(&mut self, at_us: u64, text: &str) -> Heard {
        let heard = self.intake.frame(at_us, text);
        let _ = self.heard.send(heard);
        heard
    }
}

/// A client under test, for SOL_USDC and BTC_USDC, with the usual twenty seconds of patience.
pub struct Rig {
    pub venue: Venue,
    pub desk: Arc<Desk>,
    pub status: Arc<Status>,
    pub shutdown: CancellationToken,
    heard: mpsc::UnboundedReceiver<Heard>,
    client: JoinHandle<()>,
}

pub const SILENCE: Duration = Duration::from_secs(20);

impl Rig {
    pub fn start() -> Self {
        let symbols = ["SOL_USDC", "BTC_USDC"].map(str::to_owned).to_vec();
        let (venue, pipe) = Venue::new();
        let (told, heard) = mpsc::unbounded_channel();
        let status = Arc::new(Status::default());
        status.set_origin(Mode::Live, "the test's venue");
        let desk = Arc::new(Desk::new(true, Arc::clone(status.counters())));
        let intake = Intake::new(&symbols, Arc::clone(&desk), Arc::clone(status.counters()));
        let shutdown = CancellationToken::new();
        let client = Client {
            dial: pipe,
            symbols,
            silence: SILENCE,
            status: Arc::clone(&status),
        };
        let stop = shutdown.clone();
        let client = tokio::spawn(async move { client.run(&mut Told { intake, heard: told }, &stop).await });
        Self {
            venue,
            desk,
            status,
            shutdown,
            heard,
            client,
        }
    }

    /// Waits until the client has taken a frame.
    pub async fn heard(&mut self) -> Heard {
        timeout(PATIENCE, self.heard.recv())
            .await
            .expect("a frame is heard")
            .expect("the client lives")
    }

    /// What lies ready for the bus: `SYMBOL BID UPDATE_ID`.
    pub fn ready(&self) -> Vec<String> {
        let shown =
            |it: &poller::batch::Waiting| format!("{} {} {}", it.quote.symbol, it.quote.bid, it.quote.update_id);
        self.desk.take().iter().map(shown).collect()
    }

    pub fn counts(&self) -> Counts {
        self.status.counters().counts()
    }

    /// Stops the client and waits for its end.
    pub async fn stop(self) {
        self.shutdown.cancel();
        timeout(PATIENCE, self.client)
            .await
            .expect("it stops")
            .expect("it does not panic");
    }
}
