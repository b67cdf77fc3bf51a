//! What goes on in the database of a mesh: whose sessions its processes serve, and how far the recorder is behind.

use std::collections::BTreeSet;
use std::str::FromStr as _;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::Context as _;
use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions as _, PgConnection};
use tokio_util::task::AbortOnDropHandle;

use crate::cpu::Apart;

/// As the recorder names its sessions.
const RECORDER: &str = "fulcrum-recorder";
/// Pause between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Looks until it is dropped.
#[derive(Debug)]
pub struct Backends {
    /// Processes that serve the recorder.
    pub of_recorder: Apart,
    most_behind: Arc<Mutex<u64>>,
    connection: PgConnection,
    _looking: AbortOnDropHandle<()>,
}

impl Backends {
    /// Begins to look.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn watch(url: &str) -> anyhow::Result<Self> {
        let connect = async || {
            let options = PgConnectOptions::from_str(url)?.application_name("fulcrum-bench");
            options.connect().await
        };
        let (of_recorder, most_behind) = (Apart::default(), Arc::new(Mutex::new(0)));
        let (processes, most) = (Arc::clone(&of_recorder), Arc::clone(&most_behind));
        let mut eyes = connect().await.context("the database")?;
        let looking = tokio::spawn(async move {
            loop {
                if let Ok(found) = sessions(&mut eyes).await
                    && let Ok(mut known) = processes.lock()
                {
                    known.extend(found);
                }
                if let Ok(now) = behind(&mut eyes).await
                    && let Ok(mut most) = most.lock()
                {
                    *most = now.max(*most);
                }
                tokio::time::sleep(LOOK_EVERY).await;
            }
        });
        Ok(Self {
            of_recorder,
            most_behind,
            connection: connect().await.context("the database")?,
            _looking: AbortOnDropHandle::new(looking),
        })
    }

    /// Most journal entries that the recorder was behind since it was last asked.
    pub fn most_behind(&self) -> u64 {
        self.most_behind
            .lock()
            .map(|mut most| std::mem::take(&mut *most))
            .unwrap_or_default()
    }

    /// Journal entries that the recorder is behind now.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn behind(&mut self) -> anyhow::Result<u64> {
        Ok(behind(&mut self.connection).await?)
    }
}

async fn sessions(connection: &mut PgConnection) -> Result<BTreeSet<u32>, sqlx::Error> {
    let sql = "SELECT pid FROM pg_stat_activity WHERE application_name = $1";
    let found: Vec<i32> = sqlx::query_scalar(sql).bind(RECORDER).fetch_all(connection).await?;
    Ok(found.into_iter().filter_map(|pid| u32::try_from(pid).ok()).collect())
}

async fn behind(connection: &mut PgConnection) -> Result<u64, sqlx::Error> {
    let sql = "SELECT coalesce(sum(h.seq - c.seq), 0)::bigint FROM shard_head h JOIN recorder_cursor c USING (shard)";
    let entries: i64 = sqlx::query_scalar(sql).fetch_one(connection).await?;
    Ok(u64::try_from(entries).unwrap_or_default())
}
