//! A script by its hash, and by its text where the server has not seen it.
//!
//! By its text and not by loading it first: loading goes to every node of a cluster, also to one that is down just now.

use std::sync::Arc;

use redis::{Cmd, ErrorKind, FromRedisValue, RedisError, ServerErrorKind};

use crate::connect::Commands;

/// A script whose keys are all of one shard.
#[derive(Clone, Debug)]
pub(crate) struct Lua {
    text: &'static str,
    hash: Arc<str>,
}

impl Lua {
    pub(crate) fn new(text: &'static str) -> Self {
        Self {
            text,
            hash: redis::Script::new(text).get_hash().into(),
        }
    }

    /// Runs it with these keys and arguments.
    pub(crate) async fn run<A: AsRef<[u8]>, T: FromRedisValue>(
        &self,
        connection: &mut Commands,
        keys: &[&str],
        arguments: &[A],
    ) -> Result<T, RedisError> {
        let known = command("EVALSHA", &self.hash, keys, arguments);
        match known.query_async(connection).await {
            Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::NoScript) => {
                let told = command("EVAL", self.text, keys, arguments);
                told.query_async(connection).await
            }
            answer => answer,
        }
    }
}

fn command<A: AsRef<[u8]>>(name: &str, script: &str, keys: &[&str], arguments: &[A]) -> Cmd {
    let mut command = redis::cmd(name);
    command.arg(script).arg(keys.len()).arg(keys);
    for argument in arguments {
        command.arg(argument.as_ref());
    }
    command
}
