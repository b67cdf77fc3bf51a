//! Candles: mid prices of every interval, folded from the price stream.
//!
//! Not from the journal, so a quote lost on the way changes a candle and never money. The candles and the position in the stream are one
//! transaction: nothing is folded twice when the recorder dies, or when two run. (Should Redis lose the end of its stream to an older
//! copy of itself, the reader starts over, and quotes may be counted twice; prices are not changed by that.)
//!
//! The loop is here; what a quote does to a candle is in `fold`, the tables in `store`.

mod fold;
mod store;

use std::collections::HashSet;
use std::time::Duration;

use bus::backoff::Backoff;
use bus::{PriceEntry, PriceReader, Redis};
use sqlx::PgPool;
use tokio_util::sync::CancellationToken;

use self::fold::{Fold, Newest};
use crate::error::RecorderError;
use crate::metrics::Metrics;
use crate::run::patience;

/// How long a recorder stands back after another one has folded the same quotes: the other goes on, we look after it.
const OVERTAKEN_PAUSE: Duration = Duration::from_secs(1);

/// Folds the price stream until told to stop.
pub(crate) async fn follow(
    redis: &Redis,
    pool: &PgPool,
    metrics: &Metrics,
    shutdown: &CancellationToken,
) -> Result<(), RecorderError> {
    // Stopping anywhere is safe: what was not committed is folded again by the next recorder.
    tokio::select! {
        () = shutdown.cancelled() => Ok(()),
        stopped = fold_for_ever(redis, pool, metrics) => stopped,
    }
}

async fn fold_for_ever(redis: &Redis, pool: &PgPool, metrics: &Metrics) -> Result<(), RecorderError> {
    loop {
        let mut cursor = until_stored(|| store::cursor(pool)).await?;
        let mut reader = PriceReader::tail(redis.clone(), cursor.clone());
        let mut newest = Newest::default();
        loop {
            let entries = reader.next().await;
            if reader.cursor() == cursor {
                continue;
            }
            for symbol in unseen(&entries, &newest) {
                let at_us = until_stored(|| store::newest(pool, symbol)).await?;
                newest.start(symbol, at_us);
            }
            let fold = Fold::of(&entries, &mut newest);
            if !until_stored(|| store::commit(pool, &cursor, reader.cursor(), &fold)).await? {
                break;
            }
            reader.cursor().clone_into(&mut cursor);
            metrics.quotes(fold.folded, fold.refused);
        }
        tracing::debug!(cursor, "another recorder folds the price stream");
        tokio::time::sleep(OVERTAKEN_PAUSE).await;
    }
}

/// The symbols that this recorder has not folded since it started.
fn unseen<'a>(entries: &'a [PriceEntry], newest: &Newest) -> HashSet<&'a str> {
    let quotes = entries.iter().flat_map(|entry| &entry.batch.quotes);
    quotes
        .map(|quote| quote.symbol.as_str())
        .filter(|symbol| !newest.knows(symbol))
        .collect()
}

/// Asks the store until it answers. The stream has handed its entries out and does not repeat them, so what is at hand is kept until it
/// is stored.
async fn until_stored<T, F>(mut ask: impl FnMut() -> F) -> Result<T, RecorderError>
where
    F: Future<Output = Result<T, RecorderError>>,
{
    let mut backoff = Backoff::store();
    loop {
        match ask().await {
            Ok(answer) => return Ok(answer),
            Err(error) => tokio::time::sleep(patience(error, &mut backoff)?).await,
        }
    }
}
