//! Recordings as a sequence of events: frames as the recorder writes them, or quotes as CSV. Read line by line, so a tape may be long.
//!
//! * Frames: one JSON object a line, `{"t_us":1700000000000000,"frame":"…"}`; a bare frame per line works too and takes its time from `E`.
//! * Quotes: a header `ts_us,symbol,bid,bid_qty,ask,ask_qty`, times in microseconds since the epoch, decimal text.
//!
//! Either may be compressed with zstd; both are recognised by what they hold, not by their name. A line of frames that cannot be read is
//! skipped, because a recorder may be killed; a row of quotes that cannot be read is an error, because somebody made it so.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Cursor, Read};

use contracts::names;
use serde_json::{Map, Value};

use crate::error::PollerError;
use crate::playback::TapeSource;

/// The quotes that come with the program; see `data/NOTICE` for whose they are.
const SAMPLE: &[u8] = include_bytes!("../data/sample_quotes.csv.zst");
/// First line of a quotes tape.
const QUOTES_HEADER: &str = "ts_us,symbol,bid,bid_qty,ask,ask_qty";
/// First bytes of anything compressed with zstd.
const ZSTD_MAGIC: [u8; 4] = [0x28, 0xB5, 0x2F, 0xFD];
/// Longest line, bytes: the longest frame, escaped, and its time.
const LINE_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// The quantity of a quote whose source has none.
const QUANTITY_UNKNOWN: &str = "1";

/// One thing that happened on a tape.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// When it was received, microseconds since the epoch.
    pub at_us: u64,
    /// What.
    pub body: Body,
}

/// What happened.
#[derive(Clone, Debug, PartialEq)]
pub enum Body {
    /// A quote without a frame around it.
    Quote(QuoteRow),
    /// A frame of any stream.
    Frame {
        /// Its `stream`.
        stream: String,
        /// Its `data`.
        data: Map<String, Value>,
    },
}

/// A row of a quotes tape; numbers stay as they are written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct QuoteRow {
    /// Symbol.
    pub symbol: String,
    /// Best bid.
    pub bid: String,
    /// Quantity at the bid.
    pub bid_quantity: String,
    /// Best ask.
    pub ask: String,
    /// Quantity at the ask.
    pub ask_quantity: String,
    /// Its number on the tape, from 1.
    pub number: u64,
}

/// A tape being read.
pub struct Tape {
    name: String,
    lines: Box<dyn BufRead + Send>,
    format: Format,
    /// The first line, when it was read to recognise the format and belongs to the content.
    held: Option<String>,
    number: u64,
    skipped: u64,
    ended: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Frames,
    Quotes,
}

impl std::fmt::Debug for Tape {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tape")
            .field("name", &self.name)
            .field("format", &self.format)
            .field("line", &self.number)
            .finish_non_exhaustive()
    }
}

impl Tape {
    /// Opens a tape and recognises its format.
    ///
    /// # Errors
    /// When it is missing or is neither frames nor quotes.
    pub fn open(source: &TapeSource) -> Result<Self, PollerError> {
        let name = source.to_string();
        let fault = |reason: String| PollerError::Tape {
            tape: name.clone(),
            reason,
        };
        let bytes: Box<dyn Read + Send> = match source {
            TapeSource::BuiltIn => Box::new(Cursor::new(SAMPLE)),
            TapeSource::File(path) => Box::new(File::open(path).map_err(|error| fault(error.to_string()))?),
        };
        let mut lines = decompressed(bytes).map_err(|error| fault(error.to_string()))?;
        let first = next_line(&mut lines).map_err(|error| fault(error.to_string()))?;
        let (format, held) = match first {
            None => return Err(fault("it is empty".to_owned())),
            Some(line) if line == QUOTES_HEADER => (Format::Quotes, None),
            Some(line) if line.starts_with('{') => (Format::Frames, Some(line)),
            Some(_) => {
                return Err(fault(format!(
                    "its first line is neither {QUOTES_HEADER:?} nor a recorded frame ({{\"t_us\":…,\"frame\":…}})"
                )));
            }
        };
        Ok(Self {
            name,
            lines,
            number: u64::from(format == Format::Quotes),
            format,
            held,
            skipped: 0,
            ended: false,
        })
    }

    /// Lines of frames that could not be read so far.
    #[must_use]
    pub fn skipped(&self) -> u64 {
        self.skipped
    }

    fn line(&mut self) -> Option<String> {
        let line = match self.held.take() {
            Some(line) => Ok(Some(line)),
            None => next_line(&mut self.lines),
        };
        self.number += 1;
        line.unwrap_or_else(|error| {
            tracing::warn!(tape = self.name, line = self.number, %error, "the tape breaks off");
            None
        })
    }
}

impl Iterator for Tape {
    type Item = Result<Event, PollerError>;

    fn next(&mut self) -> Option<Self::Item> {
        while !self.ended {
            let Some(line) = self.line() else {
                self.ended = true;
                if self.skipped > 0 {
                    tracing::warn!(
                        tape = self.name,
                        skipped = self.skipped,
                        "lines of the tape that are no frames"
                    );
                }
                return None;
            };
            match self.format {
                Format::Frames => match frame_line(&line) {
                    Some(event) => return Some(Ok(event)),
                    None => self.skipped += 1,
                },
                Format::Quotes => {
                    // The header is line 1, so the first row is number 1.
                    let event = quote_row(&line, self.number - 1).ok_or_else(|| PollerError::Tape {
                        tape: self.name.clone(),
                        reason: format!("line {} is no quote: {line:?}", self.number),
                    });
                    self.ended = event.is_err();
                    return Some(event);
                }
            }
        }
        None
    }
}

fn decompressed(bytes: Box<dyn Read + Send>) -> io::Result<Box<dyn BufRead + Send>> {
    let mut bytes = BufReader::with_capacity(128 * 1024, bytes);
    if bytes.fill_buf()?.starts_with(&ZSTD_MAGIC) {
        Ok(Box::new(BufReader::with_capacity(
            128 * 1024,
            zstd::Decoder::with_buffer(bytes)?,
        )))
    } else {
        Ok(Box::new(bytes))
    }
}

/// The next line without its end; none at the end of the tape.
fn next_line(lines: &mut (dyn BufRead + Send)) -> io::Result<Option<String>> {
    let mut line = Vec::new();
    if lines.take(LINE_BYTES_MAX).read_until(b'\n', &mut line)? == 0 {
        return Ok(None);
    }
    while line.last().is_some_and(|byte| matches!(byte, b'\n' | b'\r')) {
        line.pop();
    }
    // What is not text is no frame and no row either, and is told so where lines are read.
    Ok(Some(String::from_utf8_lossy(&line).into_owned()))
}

/// A recorded line, or a bare frame; nothing when it is neither or when the frame is none of the venue's data.
fn frame_line(line: &str) -> Option<Event> {
    let mut object: Map<String, Value> = serde_json::from_str(line).ok()?;
    let (at_us, mut frame) = match object.remove("frame") {
        Some(Value::String(text)) => (
            object.get("t_us")?.as_u64(),
            serde_json::from_str::<Map<String, Value>>(&text).ok()?,
        ),
        Some(_) => return None,
        None => (None, object),
    };
    let (Some(Value::String(stream)), Some(Value::Object(data))) = (frame.remove("stream"), frame.remove("data"))
    else {
        return None;
    };
    let at_us = at_us.or_else(|| data.get("E")?.as_u64())?;
    Some(Event {
        at_us,
        body: Body::Frame { stream, data },
    })
}

fn quote_row(line: &str, number: u64) -> Option<Event> {
    let mut cells = line.split(',');
    let mut cell = || cells.next();
    let (at_us, symbol, bid, bid_quantity, ask, ask_quantity) = (cell()?, cell()?, cell()?, cell()?, cell()?, cell()?);
    if cells.next().is_some() || names::check_symbol(symbol).is_err() || bid.is_empty() || ask.is_empty() {
        return None;
    }
    let quantity = |text: &str| if text.is_empty() { QUANTITY_UNKNOWN } else { text }.to_owned();
    let row = QuoteRow {
        symbol: symbol.to_owned(),
        bid: bid.to_owned(),
        bid_quantity: quantity(bid_quantity),
        ask: ask.to_owned(),
        ask_quantity: quantity(ask_quantity),
        number,
    };
    Some(Event {
        at_us: at_us.parse().ok()?,
        body: Body::Quote(row),
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::io::Write as _;

    use rust_decimal::Decimal;

    use super::*;

    fn written(content: &[u8]) -> (tempfile::NamedTempFile, TapeSource) {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(content).unwrap();
        let source = TapeSource::File(file.path().to_owned());
        (file, source)
    }

    fn events(content: &[u8]) -> (Vec<Event>, u64) {
        let (_file, source) = written(content);
        let mut tape = Tape::open(&source).unwrap();
        let events = tape.by_ref().map(Result::unwrap).collect();
        (events, tape.skipped())
    }

    #[test]
    fn the_built_in_sample_is_whole_and_ends_where_it_began() {
        let mut first_and_last: BTreeMap<String, (Decimal, Decimal)> = BTreeMap::new();
        let mut rows = 0;
        let mut last_us = 0;
        for event in Tape::open(&TapeSource::BuiltIn).unwrap() {
            let event = event.unwrap();
            assert!(event.at_us >= last_us);
            last_us = event.at_us;
            rows += 1;
            let Body::Quote(row) = event.body else {
                panic!("not a quote")
            };
            let (bid, ask): (Decimal, Decimal) = (row.bid.parse().unwrap(), row.ask.parse().unwrap());
            assert!(Decimal::ZERO < bid && bid < ask);
            first_and_last
                .entry(row.symbol)
                .and_modify(|(_, last)| *last = bid)
                .or_insert((bid, bid));
        }
        assert_eq!(rows, 38_968);
        assert_eq!(
            first_and_last.keys().collect::<Vec<_>>(),
            ["BTC_USDC", "ETH_USDC", "SOL_USDC"]
        );
        for (symbol, (first, last)) in first_and_last {
            // Played again and again, the seam must not look like a crash.
            assert!(
                (last - first).abs() / first < Decimal::new(2, 3),
                "{symbol} {first} {last}"
            );
        }
    }

    #[test]
    fn recorded_frames_are_read_and_what_a_killed_recorder_left_is_skipped() {
        let (read, skipped) = events(
            br#"{"t_us":5,"frame":"{\"data\":{\"E\":3,\"T\":2,\"s\":\"SOL_USDC\"},\"stream\":\"bookTicker.SOL_USDC\"}"}
{"t_us":6,"frame":"hello"}
{"t_us":6,"frame":"{\"id\":null,\"error\":{\"code\":4006,\"message\":\"Invalid stream\"}}"}
not a line
{"data":{"E":9,"T":8},"stream":"trade.SOL_USDC"}
{"t_us":7,"fra"#,
        );
        let shown: Vec<(u64, &str)> = read
            .iter()
            .map(|event| match &event.body {
                Body::Frame { stream, .. } => (event.at_us, stream.as_str()),
                Body::Quote(_) => panic!("a quote"),
            })
            .collect();
        assert_eq!(shown, [(5, "bookTicker.SOL_USDC"), (9, "trade.SOL_USDC")]);
        assert_eq!(skipped, 4);
    }

    #[test]
    fn quotes_without_sizes_get_one() {
        let (read, _) =
            events(b"ts_us,symbol,bid,bid_qty,ask,ask_qty\n1,EURUSD,1.38676,,1.38686,\r\n2,EURUSD,1.1,3,1.2,4\n");
        let row = |bid: &str, bid_quantity: &str, ask: &str, ask_quantity: &str, number| {
            let [symbol, bid, bid_quantity, ask, ask_quantity] =
                ["EURUSD", bid, bid_quantity, ask, ask_quantity].map(str::to_owned);
            Body::Quote(QuoteRow {
                symbol,
                bid,
                bid_quantity,
                ask,
                ask_quantity,
                number,
            })
        };
        assert_eq!(
            read[0],
            Event {
                at_us: 1,
                body: row("1.38676", "1", "1.38686", "1", 1)
            }
        );
        assert_eq!(
            read[1],
            Event {
                at_us: 2,
                body: row("1.1", "3", "1.2", "4", 2)
            }
        );
    }

    #[test]
    fn a_row_that_is_no_quote_is_named_by_its_line() {
        for bad in [
            "x,EURUSD,1,1,2,1",
            "1,eurusd,1,1,2,1",
            "1,EURUSD,,1,2,1",
            "1,EURUSD,1,1,2",
            "1,EURUSD,1,1,2,1,9",
            "",
        ] {
            let (_file, source) =
                written(format!("{QUOTES_HEADER}\n1,EURUSD,1,1,2,1\n{bad}\n1,EURUSD,1,1,2,1\n").as_bytes());
            let mut tape = Tape::open(&source).unwrap();
            assert!(tape.next().unwrap().is_ok());
            let error = tape.next().unwrap().unwrap_err().to_string();
            assert!(error.contains("line 3"), "{error}");
            assert!(tape.next().is_none());
        }
    }

    #[test]
    fn compression_is_recognised_and_a_torn_file_gives_what_it_holds() {
        let text = format!("{QUOTES_HEADER}\n{}", "1,EURUSD,1.1,1,1.2,1\n".repeat(3));
        let whole = zstd::encode_all(text.as_bytes(), 1).unwrap();
        assert_eq!(events(&whole).0.len(), 3);
        // Two runs of a recorder, one after the other.
        let frame = b"{\"data\":{\"E\":9},\"stream\":\"trade.X\"}\n";
        let twice = [
            zstd::encode_all(&frame[..], 1).unwrap(),
            zstd::encode_all(&frame[..], 1).unwrap(),
        ]
        .concat();
        assert_eq!(events(&twice).0.len(), 2);
        // A recorder that flushed and was killed.
        let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
        encoder.write_all(frame).unwrap();
        encoder.flush().unwrap();
        assert_eq!(events(encoder.get_ref()).0.len(), 1);
    }

    #[test]
    fn what_is_no_tape_is_refused_when_it_is_opened() {
        for content in ["", "hello\n", "ts_us,symbol,price\n", "\u{0}"] {
            let (_file, source) = written(content.as_bytes());
            assert!(
                matches!(Tape::open(&source), Err(PollerError::Tape { .. })),
                "{content:?}"
            );
        }
        let missing = TapeSource::File("/nonexistent/frames.jsonl".into());
        assert!(Tape::open(&missing).unwrap_err().to_string().contains("frames.jsonl"));
    }
}
