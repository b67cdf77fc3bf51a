//! Plays a tape: each event at its time, as the frame the venue would send, to whoever listens.
//!
//! It plays to an audience, not to a connection: like a venue it goes on while a client is away, and a client that is too slow misses
//! frames instead of slowing the others. Reading the file happens in between, a buffer at a time, which takes well under a millisecond.

use serde::Serialize;
use serde_json::{Map, Value};
use tokio::sync::broadcast;
use tokio::time::{Duration, Instant, sleep_until};
use tokio_tungstenite::tungstenite::Utf8Bytes;

use crate::clock;
use crate::error::PollerError;
use crate::playback::Playback;
use crate::stream;
use crate::tape::{Body, Event, QuoteRow, Tape};
use crate::timeline::Timeline;

/// A frame on its way to the connections that subscribed to its stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sent {
    /// Its stream.
    pub stream: String,
    /// The whole frame.
    pub text: Utf8Bytes,
}

/// Whether there is something to play.
///
/// # Errors
/// When the tape cannot be read, or holds nothing in the window.
pub fn check(playback: &Playback) -> Result<(), PollerError> {
    match window(playback)?.next() {
        Some(Ok(_)) => Ok(()),
        Some(Err(error)) => Err(error),
        None => Err(nothing(playback)),
    }
}

/// Plays until the end of the tape, or for ever when it repeats. Gives the number of events played.
///
/// # Errors
/// When the tape cannot be read on.
pub async fn play(playback: &Playback, audience: &broadcast::Sender<Sent>) -> Result<u64, PollerError> {
    let began = Instant::now();
    let began_us = clock::now_us();
    let mut timeline: Option<Timeline> = None;
    let mut played = 0;
    loop {
        let mut last_us = None;
        for event in window(playback)? {
            let event = event?;
            let line = timeline
                .get_or_insert_with(|| Timeline::begin(playback.speed, playback.venue_time, began_us, event.at_us));
            // Also yields now and then when nothing is to be waited for.
            sleep_until(began + Duration::from_micros(line.due_us(event.at_us))).await;
            last_us = last_us.max(Some(event.at_us));
            played += 1;
            // Nobody listens: the market goes on.
            let _ = audience.send(render(event, line));
        }
        // A tape that became empty would otherwise be read again and again without a pause.
        let (Some(line), Some(last_us)) = (&mut timeline, last_us) else {
            return Err(nothing(playback));
        };
        if !playback.repeat {
            return Ok(played);
        }
        line.next_pass(last_us);
        tracing::debug!(tape = %playback.tape, played, "the tape starts again");
    }
}

fn nothing(playback: &Playback) -> PollerError {
    PollerError::Tape {
        tape: playback.tape.to_string(),
        reason: "it holds no events in the chosen window".to_owned(),
    }
}

fn window(playback: &Playback) -> Result<impl Iterator<Item = Result<Event, PollerError>> + use<>, PollerError> {
    let from_us = playback.from_us.unwrap_or(0);
    let until_us = playback.until_us.unwrap_or(u64::MAX);
    let before = move |event: &Result<Event, PollerError>| event.as_ref().is_ok_and(|event| event.at_us < from_us);
    let after = move |event: &Result<Event, PollerError>| event.as_ref().is_ok_and(|event| event.at_us >= until_us);
    Ok(Tape::open(&playback.tape)?
        .skip_while(before)
        .take_while(move |event| !after(event)))
}

/// The frame of an event: compact, keys in alphabetical order, `data` before `stream`, as the venue writes it.
#[must_use]
pub fn render(event: Event, line: &mut Timeline) -> Sent {
    match event.body {
        Body::Quote(row) => quote(row, event.at_us, line),
        Body::Frame { stream, data } => frame(stream, data, line),
    }
}

// The order of the fields is the order on the wire.
#[derive(Serialize)]
struct Envelope<'a, D> {
    data: D,
    stream: &'a str,
}

#[derive(Serialize)]
#[allow(non_snake_case)]
struct BookTicker<'a> {
    A: &'a str,
    B: &'a str,
    E: u64,
    T: u64,
    a: &'a str,
    b: &'a str,
    e: &'a str,
    s: &'a str,
    u: u64,
}

fn quote(row: QuoteRow, at_us: u64, line: &mut Timeline) -> Sent {
    let stream = stream::book_ticker(&row.symbol);
    let data = BookTicker {
        A: &row.ask_quantity,
        B: &row.bid_quantity,
        E: line.stamp(at_us),
        T: line.stamp(at_us),
        a: &row.ask,
        b: &row.bid,
        e: "bookTicker",
        s: &row.symbol,
        u: line.update_id(&stream, row.number),
    };
    sent(data, stream)
}

fn frame(stream: String, mut data: Map<String, Value>, line: &mut Timeline) -> Sent {
    // Candles carry their times as text in `t` and `T`: those stay as recorded.
    for key in ["E", "T"] {
        if let Some(at_us) = data.get(key).and_then(Value::as_u64) {
            data.insert(key.to_owned(), line.stamp(at_us).into());
        }
    }
    for key in ["U", "u"] {
        let shifted = match data.get(key) {
            Some(Value::Number(id)) => id.as_u64().map(|id| line.update_id(&stream, id).into()),
            Some(Value::String(id)) => id.parse().ok().map(|id| line.update_id(&stream, id).to_string().into()),
            _ => None,
        };
        if let Some(id) = shifted {
            data.insert(key.to_owned(), id);
        }
    }
    sent(data, stream)
}

fn sent(data: impl Serialize, stream: String) -> Sent {
    let text =
        serde_json::to_string(&Envelope { data, stream: &stream }).expect("text, numbers and maps keyed by text");
    Sent {
        stream,
        text: text.into(),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;
    use crate::playback::{Speed, TapeSource, VenueTime};

    const TAPE: &str = "ts_us,symbol,bid,bid_qty,ask,ask_qty
1400000000000000,SOL_USDC,143.53,58.157,143.54,205.146
1400000001000000,BTC_USDC,87232.00,2.42385,87232.01,2.64517
1400000004000000,SOL_USDC,143.54,58.157,143.55,
";

    fn tape(playback: Playback) -> (tempfile::NamedTempFile, Playback) {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(TAPE.as_bytes()).unwrap();
        let tape = TapeSource::File(file.path().to_owned());
        (file, Playback { tape, ..playback })
    }

    fn recorded() -> Playback {
        Playback {
            repeat: false,
            venue_time: VenueTime::Recorded,
            ..Playback::default()
        }
    }

    fn drain(audience: &mut broadcast::Receiver<Sent>) -> Vec<Value> {
        std::iter::from_fn(|| audience.try_recv().ok())
            .map(|sent| serde_json::from_str(sent.text.as_str()).unwrap())
            .collect()
    }

    #[tokio::test(start_paused = true)]
    async fn quotes_become_the_venues_frames_byte_for_byte() {
        let (_file, playback) = tape(recorded());
        let (audience, mut listener) = broadcast::channel(16);
        assert_eq!(play(&playback, &audience).await.unwrap(), 3);
        assert_eq!(
            listener.recv().await.unwrap().text.as_str(),
            r#"{"data":{"A":"205.146","B":"58.157","E":1400000000000000,"T":1400000000000000,"a":"143.54","b":"143.53","e":"bookTicker","s":"SOL_USDC","u":1},"stream":"bookTicker.SOL_USDC"}"#
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_tape_takes_its_time_divided_by_the_speed() {
        for (speed, seconds) in [("1", 4), ("4", 1), ("0.5", 8)] {
            let (_file, playback) = tape(Playback {
                speed: speed.parse().unwrap(),
                ..recorded()
            });
            let (audience, _listener) = broadcast::channel(16);
            let began = Instant::now();
            play(&playback, &audience).await.unwrap();
            let took = began.elapsed();
            assert!(
                took >= Duration::from_secs(seconds) && took < Duration::from_secs(seconds) + Duration::from_millis(10),
                "{took:?}"
            );
        }
    }

    #[tokio::test(start_paused = true)]
    async fn played_again_times_and_update_ids_go_on_rising() {
        let (_file, playback) = tape(Playback {
            speed: Speed::permille(1_000).unwrap(),
            ..Playback::default()
        });
        let (audience, mut listener) = broadcast::channel(64);
        let before_us = clock::now_us();
        // Three passes of four seconds with a second between them.
        let played = tokio::time::timeout(Duration::from_millis(14_500), play(&playback, &audience)).await;
        assert!(played.is_err(), "a repeated tape does not end");
        let frames = drain(&mut listener);
        assert_eq!(frames.len(), 9);
        let solana: Vec<(u64, u64)> = frames
            .iter()
            .filter(|frame| frame["data"]["s"] == "SOL_USDC")
            .map(|frame| {
                (
                    frame["data"]["T"].as_u64().unwrap(),
                    frame["data"]["u"].as_u64().unwrap(),
                )
            })
            .collect();
        assert!(solana.is_sorted_by(|a, b| a.0 < b.0 && a.1 < b.1), "{solana:?}");
        assert!(solana[0].0 >= before_us, "shifted to the present");
        assert_eq!(solana[1].0 - solana[0].0, 4_000_000);
        assert_eq!(solana[2].0 - solana[0].0, 5_000_000);
    }

    #[tokio::test(start_paused = true)]
    async fn a_window_plays_from_its_first_event() {
        let (_file, playback) = tape(Playback {
            from_us: Some(1_400_000_000_500_000),
            until_us: Some(1_400_000_004_000_000),
            ..recorded()
        });
        let (audience, mut listener) = broadcast::channel(16);
        let began = Instant::now();
        play(&playback, &audience).await.unwrap();
        let frames = drain(&mut listener);
        assert_eq!((frames.len(), &frames[0]["data"]["s"]), (1, &Value::from("BTC_USDC")));
        assert!(began.elapsed() < Duration::from_millis(10));
    }

    #[test]
    fn a_window_with_nothing_in_it_is_refused_before_anybody_listens() {
        let (_file, playback) = tape(Playback {
            from_us: Some(1_500_000_000_000_000),
            ..recorded()
        });
        assert!(matches!(check(&playback), Err(PollerError::Tape { .. })));
        assert!(check(&Playback::default()).is_ok());
    }

    #[test]
    fn recorded_frames_keep_what_is_not_a_time_or_an_update_id() {
        let body = |stream: &str, data: &str| Body::Frame {
            stream: stream.to_owned(),
            data: serde_json::from_str(data).unwrap(),
        };
        let mut line = Timeline::begin(Speed::default(), VenueTime::Now, 9_000, 1_000);
        let mut shown = |stream: &str, data: &str| {
            render(
                Event {
                    at_us: 1_005,
                    body: body(stream, data),
                },
                &mut line,
            )
            .text
            .to_string()
        };
        assert_eq!(
            shown(
                "bookTicker.X",
                r#"{"E":1004,"T":1003,"a":"2.50","b":"1.50","s":"X","u":"77","zz":[null]}"#
            ),
            r#"{"data":{"E":9004,"T":9003,"a":"2.50","b":"1.50","s":"X","u":"9000","zz":[null]},"stream":"bookTicker.X"}"#
        );
        assert_eq!(
            shown(
                "kline.1m.X",
                r#"{"E":1004,"T":"2025-08-07T00:00:00","t":"2025-08-06T22:00:00"}"#
            ),
            r#"{"data":{"E":9004,"T":"2025-08-07T00:00:00","t":"2025-08-06T22:00:00"},"stream":"kline.1m.X"}"#
        );
    }
}
