//! Who is master: asked of the sentinels, and of the one they name.

use std::sync::Arc;

use redis::sentinel::{SentinelClient, SentinelClientBuilder, SentinelServerType};
use redis::{Client, ConnectionAddr, ConnectionInfo, ErrorKind, RedisError, TlsCertificates, TlsMode};
use tokio::sync::Mutex;

use super::CONNECT_TIMEOUT;

/// A set of sentinels and the name of their master. Cheap to clone.
#[derive(Clone)]
pub(super) struct Sentinels(Arc<Mutex<SentinelClient>>);

impl std::fmt::Debug for Sentinels {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Sentinels")
    }
}

impl Sentinels {
    pub(super) fn new(
        hosts: &[ConnectionInfo],
        master: &str,
        user: Option<String>,
        password: Option<String>,
        certificates: Option<TlsCertificates>,
    ) -> Result<Self, RedisError> {
        let addresses = hosts.iter().map(|host| host.addr().clone());
        let mut builder = SentinelClientBuilder::new(addresses, master, SentinelServerType::Master)?;
        let Some(first) = hosts.first() else {
            return Err((ErrorKind::InvalidClientConfig, "there is no sentinel").into());
        };
        if matches!(first.addr(), ConnectionAddr::TcpTls { .. }) {
            builder = builder.set_client_to_redis_tls_mode(TlsMode::Secure);
            if let Some(certificates) = certificates {
                builder = builder
                    .set_client_to_redis_certificates(certificates.clone())
                    .set_client_to_sentinel_certificates(certificates);
            }
        }
        if let Some(name) = first.redis_settings().username() {
            builder = builder.set_client_to_redis_username(name);
        }
        if let Some(word) = first.redis_settings().password() {
            builder = builder.set_client_to_redis_password(word);
        }
        if let Some(name) = user {
            builder = builder.set_client_to_sentinel_username(name);
        }
        if let Some(word) = password {
            builder = builder.set_client_to_sentinel_password(word);
        }
        Ok(Self(Arc::new(Mutex::new(builder.build()?))))
    }

    /// The master, which says itself that it is one.
    pub(super) async fn master(&self) -> Result<Client, RedisError> {
        let ask = async { self.0.lock().await.async_get_client().await };
        tokio::time::timeout(CONNECT_TIMEOUT, ask)
            .await
            .unwrap_or_else(|_| Err((ErrorKind::MasterNameNotFoundBySentinel, "no sentinel answers in time").into()))
    }
}
