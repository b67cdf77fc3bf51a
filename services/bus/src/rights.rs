//! What each role does in Redis, as commands with keys of shard 0 for any of them: for whoever looks whether its user may.
//!
//! `deploy/redis/users.acl` gives these rights. A command that is new here is new there, and the other way round.

/// A role, as its user is called in `deploy/redis/users.acl`.
#[derive(Debug)]
pub struct Role {
    /// Its user.
    pub name: &'static str,
    /// What may not be tried, because it would do something; a script can ask about it, and the role may run one.
    pub asked: &'static [&'static str],
    /// What may be tried: it changes nothing.
    pub tried: &'static [&'static str],
}

/// What every role does.
pub const EVERYBODY: [&str; 4] = ["PING", "TIME", "ROLE", "CLUSTER SLOTS"];
/// A script that nobody has.
const NO_SCRIPT: &str = "EVALSHA 0000000000000000000000000000000000000000 0";
/// What each role does.
pub const ROLES: [Role; 5] = [
    Role {
        name: "gateway",
        asked: &[
            "EVAL a 2 {s0}:requests {s0}:leader",
            "EXISTS {s0}:leader",
            "LLEN {s0}:requests",
            "RPUSH {s0}:requests a",
            "BLMPOP 1 1 replies:a LEFT",
            "XREAD STREAMS {s0}:events 0",
            "XRANGE {s0}:events - +",
            "XREVRANGE {s0}:events + -",
            "XINFO STREAM {s0}:events",
            "XREAD STREAMS price_stream 0",
        ],
        tried: &[NO_SCRIPT],
    },
    Role {
        name: "engine",
        asked: &[
            "EVAL a 1 {s0}:requests",
            "EXISTS {s0}:requests",
            "EVAL a 1 {s0}:leader",
            "BLMOVE {s0}:requests {s0}:requests LEFT LEFT 1",
            "LRANGE {s0}:requests 0 1",
            "LLEN {s0}:requests",
            "LTRIM {s0}:requests 1 1",
            "PSETEX {s0}:leader 1 a",
            "GET {s0}:leader",
            "DEL {s0}:leader",
            "XADD {s0}:events * a b",
            "XREVRANGE {s0}:events + -",
            "DEL {s0}:events",
            "RPUSH replies:a b",
            "EXPIRE replies:a 1",
            "XREAD STREAMS price_stream 0",
            "EXISTS price_stream",
            "XREADGROUP GROUP a b STREAMS price_stream 0",
            "XGROUP CREATE price_stream a 0",
            "XGROUP SETID price_stream a 0",
            "XRANGE price_stream - +",
            "XREVRANGE price_stream + -",
            "XINFO STREAM price_stream",
        ],
        tried: &[NO_SCRIPT],
    },
    Role {
        name: "poller",
        asked: &[],
        // An id that no stream takes.
        tried: &["XADD price_stream 0-0 a b"],
    },
    Role {
        name: "recorder",
        asked: &[],
        tried: &[
            "EXISTS price_stream",
            "XREAD COUNT 1 STREAMS price_stream $",
            "XRANGE price_stream - + COUNT 1",
            "XREVRANGE price_stream + - COUNT 1",
            "XINFO STREAM price_stream",
        ],
    },
    Role {
        name: "operator",
        asked: &[
            "EVAL a 2 {s0}:requests {s0}:leader",
            "EXISTS {s0}:leader",
            "LLEN {s0}:requests",
            "RPUSH {s0}:requests a",
            "BLMPOP 1 1 replies:a LEFT",
        ],
        tried: &[NO_SCRIPT, "INFO server", "CLUSTER NODES"],
    },
];
