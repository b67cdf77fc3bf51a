//! What `up` tells the person who started it, once everything is ready.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::Path;

use crate::ops::Condition;

/// The instrument of the first trade that is suggested.
pub(super) const SYMBOL: &str = "SOL_USDC";

/// What there is to tell.
#[derive(Debug)]
pub(super) struct Banner<'a> {
    pub(super) listen: SocketAddr,
    /// Whether the port speaks TLS.
    pub(super) tls: bool,
    pub(super) ops: Option<SocketAddr>,
    pub(super) data: &'a Path,
    /// Where the stores are, when not in the data directory.
    pub(super) stores: Option<&'a Path>,
    pub(super) run: &'a Path,
    pub(super) ephemeral: bool,
    /// Whether other commands find the data directory without being told.
    pub(super) default_data: bool,
    pub(super) shards: u32,
    pub(super) engines: u32,
    pub(super) separate: bool,
    pub(super) feed: Option<&'a Condition>,
    pub(super) token: &'a str,
    pub(super) program: &'a str,
}

impl Banner<'_> {
    /// The text.
    pub(super) fn text(&self) -> String {
        let mut out = String::new();
        // Writing to a string cannot fail.
        let _written = self.write(&mut out);
        out
    }

    fn write(&self, out: &mut String) -> std::fmt::Result {
        let (scheme, how) = if self.tls {
            ("https", "TLS")
        } else {
            ("http", "plaintext")
        };
        let url = format!("{scheme}://{}", self.listen);
        let root = self.data.display();
        writeln!(
            out,
            "\nFulcrum is up. For development: the keys and the stores are this machine's own.\n"
        )?;
        writeln!(out, "  gRPC       {}   ({how})", self.listen)?;
        writeln!(out, "  grpc-web   {url}")?;
        writeln!(out, "  REST       {url}/v1/…")?;
        match self.ops {
            Some(ops) => writeln!(out, "  ops        http://{ops}/livez  /readyz  /metrics")?,
            None => writeln!(out, "  ops        not on a port")?,
        }
        let kept = if self.ephemeral {
            "   (goes when this stops)"
        } else {
            ""
        };
        writeln!(out, "  data       {root}{kept}")?;
        if let Some(stores) = self.stores {
            writeln!(
                out,
                "             Redis and Postgres: {} (their user cannot come into the above)",
                stores.display()
            )?;
        }
        writeln!(out, "  logs       {root}/logs")?;
        let processes = if self.separate {
            format!("; process ids in {}", self.run.display())
        } else {
            String::new()
        };
        let engines = if self.engines == 1 {
            "1 engine".to_owned()
        } else {
            format!("{} engines", self.engines)
        };
        writeln!(out, "  running    {engines}, {} shards{processes}\n", self.shards)?;
        writeln!(out, "{}", feed(self.feed))?;
        let data_dir = if self.default_data {
            String::new()
        } else {
            format!(" --data-dir {root}")
        };
        writeln!(out, "A token for the account demo, good for a day:\n")?;
        writeln!(out, "  TOKEN={}\n", self.token)?;
        writeln!(out, "Make the wallet, then open a trade (set TOKEN first):\n")?;
        let authorized = "-H \"Authorization: Bearer $TOKEN\"";
        writeln!(
            out,
            "  curl -sS {authorized} --json '{{}}' {url}/v1/accounts/demo/wallet:initialize"
        )?;
        writeln!(
            out,
            "  curl -sS {authorized} {url}/v1/accounts/demo/trades \\\n    \
             --json '{{\"symbol\":\"{SYMBOL}\",\"side\":\"SIDE_LONG\",\"margin\":\"100\",\"leverage\":\"10\"}}'\n"
        )?;
        writeln!(out, "Next:\n")?;
        writeln!(out, "  # prices as they come")?;
        writeln!(out, "  curl -sSN {authorized} {url}/v1/quotes:stream")?;
        writeln!(out, "  # a token for somebody else")?;
        writeln!(out, "  {} token{data_dir} --account alice --ttl 1h\n", self.program)?;
        write!(
            out,
            "Ctrl-C stops everything in order{}.",
            if self.ephemeral {
                ""
            } else {
                "; balances and trades are there at the next start"
            }
        )
    }
}

/// Which prices these are, so that nobody overlooks it.
fn feed(feed: Option<&Condition>) -> String {
    let said = |name: &str| {
        feed.and_then(|it| it.detail(name))
            .and_then(|it| it.as_str())
            .unwrap_or("nowhere yet")
            .to_owned()
    };
    let flowing = feed.is_some_and(Condition::is_ready);
    let line = match said("mode").as_str() {
        "live" if flowing => format!("PRICES ARE LIVE, from {}", said("origin")),
        "live" => format!("NO PRICES YET: trying {}", said("origin")),
        "replay" => format!("PRICES ARE A REPLAY, NOT LIVE: {}", said("origin")),
        _ => "NO PRICES YET".to_owned(),
    };
    let rule = "*".repeat(line.chars().count() + 4);
    format!("{rule}\n* {line} *\n{rule}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_overlooks_a_replay() {
        let replay = Condition::new(true)
            .with("mode", "replay")
            .with("origin", "the built-in sample");
        assert!(feed(Some(&replay)).contains("* PRICES ARE A REPLAY, NOT LIVE: the built-in sample *"));
        let live = Condition::new(true).with("mode", "live").with("origin", "wss://x");
        assert!(feed(Some(&live)).contains("* PRICES ARE LIVE, from wss://x *"));
        let trying = Condition::new(false).with("mode", "live").with("origin", "wss://x");
        assert!(feed(Some(&trying)).contains("NO PRICES YET: trying wss://x"));
        assert!(feed(None).contains("NO PRICES YET"));
    }
}
