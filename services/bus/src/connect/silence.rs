//! What a node of a cluster that hangs costs those who talk to the others: nothing, once it is known.
//!
//! A node that is gone refuses at once, one that hangs (a stopped process, a full network) lets each command wait for its whole time, and
//! whoever sends to several nodes at once waits with it. So the first command that runs out of time marks its slot; the next ones on
//! that slot fail at once, as never sent, until a question that is asked meanwhile is answered: by the node, or by the one that took over.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use redis::aio::ConnectionLike as _;
use redis::cluster_async::ClusterConnection;
use redis::cluster_routing::Slot;
use redis::{Arg, Cmd, ErrorKind, RedisError};

/// Pause between two questions.
const ASK_AGAIN: Duration = Duration::from_millis(100);

/// The slots whose node does not answer. Shared by clones.
#[derive(Clone, Debug, Default)]
pub(super) struct Silence(Arc<Mutex<HashSet<Slot>>>);

impl Silence {
    /// Whether the node of this key is known not to answer.
    pub(super) fn is_on(&self, key: Option<&[u8]>) -> bool {
        let silent = self.lock();
        !silent.is_empty() && key.is_some_and(|key| silent.contains(&Slot::for_key(key)))
    }

    /// Notes what came of a command on this key; what ran out of time is asked after until it is answered again.
    pub(super) fn note(&self, connection: &ClusterConnection, key: Option<&[u8]>, error: Option<&RedisError>) {
        let Some(key) = key.filter(|_| error.is_some_and(RedisError::is_timeout)) else {
            return;
        };
        let slot = Slot::for_key(key);
        if self.lock().insert(slot) {
            tracing::warn!(
                key = %String::from_utf8_lossy(key),
                "its node does not answer: what goes there is refused until it does"
            );
            tokio::spawn(self.clone().listen(connection.clone(), key.to_vec(), slot));
        }
    }

    /// Ends with an answer, of whatever kind.
    async fn listen(self, mut connection: ClusterConnection, key: Vec<u8>, slot: Slot) {
        let question = redis::cmd("EXISTS").arg(&key).to_owned();
        while let Err(error) = connection.req_packed_command(&question).await {
            if !matches!(error.kind(), ErrorKind::Io | ErrorKind::ClusterConnectionNotFound) {
                break;
            }
            tokio::time::sleep(ASK_AGAIN).await;
        }
        self.lock().remove(&slot);
        tracing::info!(key = %String::from_utf8_lossy(&key), "its node answers again");
    }

    fn lock(&self) -> MutexGuard<'_, HashSet<Slot>> {
        self.0.lock().expect("nothing panics while it holds this lock")
    }
}

/// The key that decides where a command goes, for the commands that are sent here.
pub(super) fn key_of(command: &Cmd) -> Option<&[u8]> {
    let mut words = command.args_iter().map(|word| match word {
        Arg::Simple(word) => word,
        _ => &[],
    });
    let name = words.next()?;
    let before = match name.to_ascii_uppercase().as_slice() {
        // The script, and the number of its keys.
        b"EVAL" | b"EVALSHA" => 2,
        // What of it.
        b"XINFO" | b"XGROUP" => 1,
        b"PING" | b"TIME" | b"CLUSTER" | b"XREAD" | b"XREADGROUP" => return None,
        _ => 0,
    };
    words.nth(before).filter(|key| !key.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_of_a_command_is_found() {
        let key = |words: &str| {
            let mut words = words.split(' ');
            let mut command = redis::cmd(words.next().unwrap());
            words.for_each(|word| {
                command.arg(word);
            });
            key_of(&command).map(|key| String::from_utf8(key.to_vec()).unwrap())
        };
        for (command, expected) in [
            ("LRANGE {s1}:requests 0 1", Some("{s1}:requests")),
            ("EVALSHA abc 2 {s1}:requests {s1}:leader 5", Some("{s1}:requests")),
            ("XADD {s1}:events * a b", Some("{s1}:events")),
            ("XINFO STREAM price_stream", Some("price_stream")),
            ("PING", None),
            ("XREAD STREAMS price_stream 0", None),
        ] {
            assert_eq!(key(command).as_deref(), expected, "{command}");
        }
    }
}
