//! The venue of a test: the poller's own replay server, which plays one tape after another at the same address.

#![allow(dead_code, reason = "every test binary uses a part of it")]

use std::io::Read as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use poller::{Playback, ReplayServer, Speed, TapeSource};
use rust_decimal::Decimal;
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// One row of a tape.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    pub at_us: u64,
    pub bid: Decimal,
    pub ask: Decimal,
}

impl Row {
    /// Between bid and ask.
    pub fn mid(&self) -> Decimal {
        (self.bid + self.ask) / Decimal::TWO
    }
}

/// The rows of one symbol in a file of quotes.
pub fn rows(file: &Path, symbol: &str) -> Vec<Row> {
    let mut text = String::new();
    let opened = std::fs::File::open(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    let mut decoder = zstd::Decoder::new(opened).expect("zstd");
    decoder.read_to_string(&mut text).expect("text");
    let rows = text.lines().skip(1).filter_map(|line| {
        let mut columns = line.split(',');
        let (at, of, bid) = (columns.next()?, columns.next()?, columns.next()?);
        let ask = columns.nth(1)?;
        (of == symbol).then(|| Row {
            at_us: at.parse().expect("a time"),
            bid: bid.parse().expect("a price"),
            ask: ask.parse().expect("a price"),
        })
    });
    rows.collect()
}

/// A venue that plays.
pub struct Venue {
    pub url: String,
    address: SocketAddr,
    directory: TempDir,
    stop: CancellationToken,
    playing: JoinHandle<()>,
}

impl Venue {
    /// Opens with one quote of a symbol, which stays as it is.
    pub async fn calm(symbol: &str, row: &Row) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let tape = calm_tape(directory.path(), symbol, row);
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        let (server, stop) = (open(address, tape).await, CancellationToken::new());
        let url = server.url();
        let address = url.trim_start_matches("ws://").parse().expect("an address");
        let playing = play(server, stop.clone());
        Self {
            url,
            address,
            directory,
            stop,
            playing,
        }
    }

    /// Goes on with one quote that stays as it is.
    pub async fn rest_at(&mut self, symbol: &str, row: &Row) {
        let tape = calm_tape(self.directory.path(), symbol, row);
        self.change(tape).await;
    }

    /// Goes on with these rows, once, from when the next client has subscribed.
    pub async fn tape(&mut self, symbol: &str, rows: &[Row], speed: &str) {
        let playback = Playback {
            tape: write(self.directory.path(), symbol, rows),
            speed: speed.parse().expect("a speed"),
            repeat: false,
            ..Playback::default()
        };
        self.change(playback).await;
    }

    async fn change(&mut self, playback: Playback) {
        self.stop.cancel();
        (&mut self.playing).await.expect("it ends");
        self.stop = CancellationToken::new();
        self.playing = play(open(self.address, playback).await, self.stop.clone());
    }
}

impl Drop for Venue {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn open(address: SocketAddr, playback: Playback) -> ReplayServer {
    ReplayServer::bind(address, playback).await.expect("a port and a tape")
}

fn play(server: ReplayServer, stop: CancellationToken) -> JoinHandle<()> {
    tokio::spawn(async move { server.serve(stop).await.expect("a readable tape") })
}

/// Again and again, about every second.
fn calm_tape(directory: &Path, symbol: &str, row: &Row) -> Playback {
    Playback {
        tape: write(directory, symbol, std::slice::from_ref(row)),
        speed: Speed::permille(4_000).expect("a speed"),
        ..Playback::default()
    }
}

fn write(directory: &Path, symbol: &str, rows: &[Row]) -> TapeSource {
    let mut text = String::from("ts_us,symbol,bid,bid_qty,ask,ask_qty\n");
    for Row { at_us, bid, ask } in rows {
        text += &format!("{at_us},{symbol},{bid},,{ask},\n");
    }
    let path: PathBuf = directory.join(format!("{}.csv", uuid::Uuid::now_v7()));
    std::fs::write(&path, text).expect("written");
    TapeSource::File(path)
}
