//! Where Redis is, read from one line of text.
//!
//! One server, a Sentinel set and a Cluster differ in the scheme and in having several hosts, and in nothing else: who the client is,
//! and what it trusts with TLS, is said in the same way for all. The names of the TLS parameters are those of a Postgres address.

use std::fmt::Write as _;
use std::path::Path;

use redis::{ClientTlsConfig, ConnectionInfo, ErrorKind, IntoConnectionInfo as _, RedisError, TlsCertificates};

/// The port of a sentinel that is given without one.
const SENTINEL_PORT: u16 = 26_379;

/// An address, understood.
pub(super) struct Address {
    pub(super) kind: Kind,
    /// One server, the sentinels, or some nodes of the cluster; at least one. They carry the credentials for Redis.
    pub(super) hosts: Vec<ConnectionInfo>,
    /// What is trusted and shown with TLS, where something other than the public authorities was named.
    pub(super) certificates: Option<TlsCertificates>,
}

/// What stands at an address.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Kind {
    One,
    /// Sentinels, which are asked for the master of this name.
    Sentinel {
        master: String,
        /// Who the client is to the sentinels themselves, where they ask.
        user: Option<String>,
        password: Option<String>,
    },
    Cluster,
}

/// The parameters of an address that are ours and not the client library's.
#[derive(Default)]
struct Ours {
    authority: Option<String>,
    certificate: Option<String>,
    key: Option<String>,
    sentinel_user: Option<String>,
    sentinel_password: Option<String>,
}

impl Ours {
    /// Takes them out of a query; what is left goes on to the library.
    fn take(query: &str) -> (Self, String) {
        let mut ours = Self::default();
        let mut others = String::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let place = match name {
                "sslrootcert" => &mut ours.authority,
                "sslcert" => &mut ours.certificate,
                "sslkey" => &mut ours.key,
                "sentinel_user" => &mut ours.sentinel_user,
                "sentinel_password" => &mut ours.sentinel_password,
                _ => {
                    let mark = if others.is_empty() { '?' } else { '&' };
                    write!(others, "{mark}{pair}").expect("text takes text");
                    continue;
                }
            };
            *place = Some(value.to_owned());
        }
        (ours, others)
    }

    fn certificates(&self) -> Result<Option<TlsCertificates>, RedisError> {
        let client_tls = match (&self.certificate, &self.key) {
            (Some(certificate), Some(key)) => Some(ClientTlsConfig {
                client_cert: file("sslcert", certificate)?,
                client_key: file("sslkey", key)?,
            }),
            (None, None) => None,
            _ => return Err(wrong("sslcert and sslkey go together", String::new())),
        };
        let root_cert = self
            .authority
            .as_ref()
            .map(|path| file("sslrootcert", path))
            .transpose()?;
        let named = client_tls.is_some() || root_cert.is_some();
        Ok(named.then_some(TlsCertificates { client_tls, root_cert }))
    }
}

/// Reads an address.
pub(super) fn read(url: &str) -> Result<Address, RedisError> {
    let (before, query) = url.split_once('?').unwrap_or((url, ""));
    let (ours, others) = Ours::take(query);
    let certificates = ours.certificates()?;
    let Some((scheme, rest)) = before.split_once("://") else {
        return Err(wrong("there is no scheme, such as redis://", String::new()));
    };
    if certificates.is_some() && !scheme.starts_with("rediss") {
        return Err(wrong("sslrootcert, sslcert and sslkey need rediss", String::new()));
    }
    let (plain, several) = match scheme.split_once('-') {
        Some((plain @ ("redis" | "rediss"), several)) => (plain, several),
        _ => (scheme, ""),
    };
    let (credentials, places) = rest.rsplit_once('@').map_or(("", rest), |(who, places)| (who, places));
    let who = if credentials.is_empty() {
        String::new()
    } else {
        format!("{credentials}@")
    };
    let (kind, hosts) = match several {
        "" => (Kind::One, vec![format!("{before}{others}")]),
        "cluster" => {
            let hosts = places.trim_end_matches('/').split(',');
            (
                Kind::Cluster,
                hosts.map(|host| format!("{plain}://{who}{host}{others}")).collect(),
            )
        }
        "sentinel" => {
            let Some((hosts, master)) = places.split_once('/').filter(|(_, master)| !master.is_empty()) else {
                return Err(wrong(
                    "the name of the master is missing, as in redis-sentinel://host:26379/mymaster",
                    String::new(),
                ));
            };
            let hosts = hosts
                .split(',')
                .map(|host| format!("{plain}://{who}{}{others}", with_port(host)));
            let kind = Kind::Sentinel {
                master: master.to_owned(),
                user: ours.sentinel_user,
                password: ours.sentinel_password,
            };
            (kind, hosts.collect())
        }
        other => {
            return Err(wrong(
                "the scheme is none of redis, redis-sentinel, redis-cluster, and these with rediss",
                other.to_owned(),
            ));
        }
    };
    let hosts = hosts.into_iter().map(|host: String| host.into_connection_info());
    Ok(Address {
        kind,
        hosts: hosts.collect::<Result<_, _>>()?,
        certificates,
    })
}

fn with_port(host: &str) -> String {
    let has_port = host
        .rsplit_once(':')
        .is_some_and(|(_, port)| port.bytes().all(|byte| byte.is_ascii_digit()) && !port.is_empty());
    if has_port {
        host.to_owned()
    } else {
        format!("{host}:{SENTINEL_PORT}")
    }
}

fn file(parameter: &str, path: &str) -> Result<Vec<u8>, RedisError> {
    std::fs::read(Path::new(path))
        .map_err(|error| wrong("a file cannot be read", format!("{parameter}={path}: {error}")))
}

fn wrong(what: &'static str, detail: String) -> RedisError {
    (ErrorKind::InvalidClientConfig, what, detail).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts(url: &str) -> Vec<String> {
        let address = read(url).unwrap_or_else(|error| panic!("{url}: {error}"));
        address.hosts.iter().map(|host| host.addr().to_string()).collect()
    }

    #[test]
    fn each_form_is_understood() {
        assert_eq!(hosts("redis://one:7000"), ["one:7000"]);
        assert_eq!(hosts("redis+unix:///tmp/socket"), ["/tmp/socket"]);
        assert_eq!(hosts("rediss://one"), ["one:6379"]);
        assert_eq!(hosts("redis-cluster://a:1,b:2,c"), ["a:1", "b:2", "c:6379"]);
        assert_eq!(hosts("redis-sentinel://a:1,b/fulcrum"), ["a:1", "b:26379"]);
        assert_eq!(read("rediss-cluster://a:1").unwrap().kind, Kind::Cluster);
    }

    #[test]
    fn credentials_stand_once_and_hold_for_every_host() {
        let address = read("redis-cluster://engine:p%40ss@a:1,b:2").unwrap();
        for host in &address.hosts {
            assert_eq!(host.redis_settings().username(), Some("engine"));
            assert_eq!(host.redis_settings().password(), Some("p@ss"));
        }
        let address = read("redis-sentinel://engine:secret@a/m?sentinel_user=u&sentinel_password=p").unwrap();
        let asked = Kind::Sentinel {
            master: "m".to_owned(),
            user: Some("u".to_owned()),
            password: Some("p".to_owned()),
        };
        assert_eq!(address.kind, asked);
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        for wrong in [
            "nowhere",
            "http://one",
            "redis-ring://a:1",
            "redis-sentinel://a:1,b:2",
            "redis-sentinel://a:1/",
            "redis-cluster://",
            "redis://one?sslrootcert=/etc/hostname",
            "rediss://one?sslcert=/etc/hostname",
            "rediss://one?sslrootcert=/nonexistent.pem",
        ] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }
}
