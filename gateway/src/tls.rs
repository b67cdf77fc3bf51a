//! TLS on the port: certificates from files, and again from them when they change, so that a renewal needs no restart.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig};
use tokio_rustls::server::TlsStream;

use crate::GatewayError;

/// How long a client may take to agree on keys.
const HANDSHAKE_MAX: Duration = Duration::from_secs(5);

/// Where certificates are. PEM files.
#[derive(Clone, Debug)]
pub struct TlsConfig {
    /// Our certificate, with the chain up to what clients trust.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// Authorities whose certificates clients must show. Without it clients need none.
    pub client_ca: Option<PathBuf>,
    /// How often the files are looked at for a change.
    pub reload_every: Duration,
}

impl TlsConfig {
    /// A certificate and its key, for clients that show none; looked at again every ten seconds.
    #[must_use]
    pub fn new(certificate: PathBuf, key: PathBuf) -> Self {
        Self {
            certificate,
            key,
            client_ca: None,
            reload_every: Duration::from_secs(10),
        }
    }

    fn read(&self) -> Result<Contents, GatewayError> {
        let read = |path: &Path| {
            std::fs::read(path).map_err(|cause| GatewayError::Config(format!("TLS: {}: {cause}", path.display())))
        };
        Ok(Contents {
            certificate: read(&self.certificate)?,
            key: read(&self.key)?,
            client_ca: self.client_ca.as_deref().map(read).transpose()?,
        })
    }
}

/// What the files hold.
#[derive(Clone, PartialEq, Eq)]
struct Contents {
    certificate: Vec<u8>,
    key: Vec<u8>,
    client_ca: Option<Vec<u8>>,
}

impl Contents {
    fn server(&self) -> Result<Arc<ServerConfig>, GatewayError> {
        let wrong = |what: &str, cause: String| GatewayError::Config(format!("TLS: {what}: {cause}"));
        let chain = certificates(&self.certificate).map_err(|cause| wrong("the certificate", cause))?;
        let key = PrivateKeyDer::from_pem_slice(&self.key).map_err(|cause| wrong("the key", cause.to_string()))?;
        let provider = Arc::new(ring::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|cause| wrong("protocol versions", cause.to_string()))?;
        let builder = match &self.client_ca {
            None => builder.with_no_client_auth(),
            Some(pem) => {
                let mut roots = RootCertStore::empty();
                for root in certificates(pem).map_err(|cause| wrong("the clients' authorities", cause))? {
                    roots
                        .add(root)
                        .map_err(|cause| wrong("the clients' authorities", cause.to_string()))?;
                }
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
                    .build()
                    .map_err(|cause| wrong("the clients' authorities", cause.to_string()))?;
                builder.with_client_cert_verifier(verifier)
            }
        };
        let mut server = builder
            .with_single_cert(chain, key)
            .map_err(|cause| wrong("certificate and key", cause.to_string()))?;
        server.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Arc::new(server))
    }
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let chain: Vec<_> = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<_, _>>()
        .map_err(|cause| cause.to_string())?;
    if chain.is_empty() {
        return Err("no certificate in the file".to_owned());
    }
    Ok(chain)
}

/// The server's side of TLS. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Tls {
    current: watch::Receiver<Arc<ServerConfig>>,
}

impl Tls {
    /// Reads the files, and again whenever they change: until the returned future is dropped. New files that are no good are told of
    /// and not used.
    pub fn load(config: TlsConfig) -> Result<(Self, impl Future<Output = ()>), GatewayError> {
        let contents = config.read()?;
        let (changed, current) = watch::channel(contents.server()?);
        Ok((Self { current }, reload(config, contents, changed)))
    }

    /// Agrees with a client on keys.
    pub async fn accept(&self, stream: TcpStream) -> std::io::Result<TlsStream<TcpStream>> {
        let server = Arc::clone(&self.current.borrow());
        tokio::time::timeout(HANDSHAKE_MAX, TlsAcceptor::from(server).accept(stream)).await?
    }
}

async fn reload(config: TlsConfig, mut known: Contents, changed: watch::Sender<Arc<ServerConfig>>) {
    loop {
        tokio::time::sleep(config.reload_every).await;
        let read = match config.read() {
            Ok(read) if read == known => continue,
            Ok(read) => read,
            Err(error) => {
                tracing::warn!(%error, "the certificate in use goes on being used");
                continue;
            }
        };
        match read.server() {
            Ok(server) => {
                tracing::info!("TLS: a new certificate is in use");
                changed.send_replace(server);
            }
            // Between two writes of one renewal a certificate and another's key may be seen: the next look sees both.
            Err(error) => tracing::warn!(%error, "the certificate in use goes on being used"),
        }
        known = read;
    }
}
