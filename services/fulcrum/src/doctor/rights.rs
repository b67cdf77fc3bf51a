//! Whether Redis lets a role do what it does, and no more. By asking, never by doing: a role that may run scripts lets a script look
//! (`redis.acl_check_cmd` says what a user may without doing it), the others try what changes nothing.

use bus::rights::{EVERYBODY, ROLES, Role};
use redis::aio::MultiplexedConnection;
use redis::{ErrorKind, RedisError, ServerErrorKind, Value};

use super::Line;
use super::checks::{all, redis_answers, redis_away};

/// What somebody who may do this may do more than any role needs.
const NOBODYS: &str = "DBSIZE";
/// Of each line of `ARGV`, whether the user who runs this may do it.
const MAY: &str = r"
local may = {}
for i, line in ipairs(ARGV) do
  local words = {}
  for word in string.gmatch(line, '%S+') do words[#words + 1] = word end
  may[i] = redis.acl_check_cmd(unpack(words)) and 1 or 0
end
return may
";

/// The user of an address may do what the role of that name does, on each server that takes writes.
pub(super) async fn rights(url: &str) -> Vec<Line> {
    let look = async {
        let redis = bus::Redis::open(url).map_err(redis_away)?;
        let servers = redis_answers(redis.servers()).await?;
        let mut lines = Vec::new();
        for server in &servers {
            let Some(user) = server.user() else {
                return Ok(vec![Line::Note("not looked at: the address names no user".to_owned())]);
            };
            let Some(role) = ROLES.iter().find(|role| role.name == user) else {
                let known: Vec<&str> = ROLES.iter().map(|role| role.name).collect();
                return Ok(vec![Line::Note(format!(
                    "not looked at: the user {user:?} is none of those that roles have: {}",
                    known.join(", ")
                ))]);
            };
            let mut connection = redis_answers(server.connect()).await?;
            let seen = redis_answers(async { Ok(look_at(role, &mut connection).await?) });
            let mut of_this = seen.await?;
            if servers.len() > 1 {
                of_this.iter_mut().for_each(|line| line.begins_with(&server.address()));
            }
            lines.extend(of_this);
        }
        Ok(lines)
    };
    all(look.await)
}

async fn look_at(role: &Role, connection: &mut MultiplexedConnection) -> Result<Vec<Line>, RedisError> {
    let mut refused: Vec<&str> = Vec::new();
    for command in EVERYBODY.iter().chain(role.tried) {
        if !may(connection, command).await? {
            refused.push(command);
        }
    }
    if !role.asked.is_empty() {
        let mut script = redis::cmd("EVAL");
        script.arg(MAY).arg(0).arg(role.asked);
        match script.query_async::<Vec<i64>>(connection).await {
            Ok(answers) => {
                let pairs = role.asked.iter().zip(answers);
                refused.extend(pairs.filter(|(_, may)| *may == 0).map(|(command, _)| *command));
            }
            Err(error) if is_refusal(&error) => refused.push("EVAL"),
            Err(error) => return Err(error),
        }
    }
    let name = role.name;
    let mut lines: Vec<Line> = refused
        .into_iter()
        .map(|command| {
            Line::finding(
                format!("the user {name:?} may not {command}"),
                "give it what deploy/redis/users.acl of this version gives it: replace its line in Redis's aclfile (the part that \
                 begins with # is its password) and ACL LOAD, on every server",
            )
        })
        .collect();
    if lines.is_empty() {
        lines.push(Line::Fine(format!("the user {name:?} may do what a {name} does")));
    }
    if may(connection, NOBODYS).await? {
        lines.push(Line::Note(format!(
            "the user {name:?} may do more than it needs ({NOBODYS}): deploy/redis/users.acl says what that is"
        )));
    }
    Ok(lines)
}

/// Whether a command is let through, whatever comes of it.
async fn may(connection: &mut MultiplexedConnection, command: &str) -> Result<bool, RedisError> {
    let mut words = command.split(' ');
    let mut asked = redis::cmd(words.next().unwrap_or_default());
    for word in words {
        asked.arg(word);
    }
    match asked.query_async::<Value>(connection).await {
        Err(error) if is_refusal(&error) => Ok(false),
        // What another server of a cluster has, what is no id, what is not there: it was let through.
        Err(error) if error.kind() != ErrorKind::Io => Ok(true),
        Err(error) => Err(error),
        Ok(_) => Ok(true),
    }
}

fn is_refusal(error: &RedisError) -> bool {
    error.kind() == ErrorKind::Server(ServerErrorKind::NoPerm)
}
