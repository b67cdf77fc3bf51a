//! TLS on the one port: with a certificate, with clients that must show one, and with a certificate that is renewed.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use gateway::{GatewayError, TlsConfig};
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use crate::support::{Played, Running, bearer, config, framed, nowhere, start_with, token};

/// An authority, and what it signs.
struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    fn sign(&self, name: &str) -> (rcgen::Certificate, KeyPair) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        (params.signed_by(&key, &self.0).unwrap(), key)
    }

    /// Writes a new certificate for the gateway.
    fn write(&self, directory: &Path) {
        let (certificate, key) = self.sign("localhost");
        std::fs::write(directory.join("tls.crt"), certificate.pem()).unwrap();
        std::fs::write(directory.join("tls.key"), key.serialize_pem()).unwrap();
    }
}

fn files(directory: &Path) -> TlsConfig {
    TlsConfig {
        reload_every: Duration::from_millis(20),
        ..TlsConfig::new(directory.join("tls.crt"), directory.join("tls.key"))
    }
}

async fn start_tls(tls: TlsConfig) -> Running {
    start_with(nowhere(), |config| config.tls = Some(tls)).await
}

/// Connects as a client that trusts the authority and, perhaps, shows a certificate.
async fn connect(
    address: SocketAddr,
    trusted: &Authority,
    shown: Option<&(rcgen::Certificate, KeyPair)>,
) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(trusted.0.der().clone()).unwrap();
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    let mut client = match shown {
        None => builder.with_no_client_auth(),
        Some((certificate, key)) => {
            let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
            builder
                .with_client_auth_cert(vec![certificate.der().clone()], key)
                .unwrap()
        }
    };
    client.alpn_protocols = vec![b"h2".to_vec()];
    let stream = TcpStream::connect(address).await?;
    let name = ServerName::try_from("localhost").unwrap();
    TlsConnector::from(Arc::new(client)).connect(name, stream).await
}

/// A call through a connection; what its status was, or that there was none.
async fn call(stream: TlsStream<TcpStream>) -> Result<(StatusCode, String), hyper::Error> {
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let request = Request::builder()
        .method("POST")
        .uri("https://localhost/fulcrum.v1.BalanceService/ListBalances")
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("authorization", bearer(&token(&["demo"])))
        .body(Full::new(framed(
            "BalanceService/ListBalances",
            &serde_json::json!({"accountId": "demo"}),
        )))
        .unwrap();
    let response = sender.send_request(request).await?;
    let status = response.status();
    let body = response.into_body().collect().await?;
    let code = body
        .trailers()
        .and_then(|trailers| trailers.get("grpc-status").cloned());
    Ok((
        status,
        code.map(|it| it.to_str().unwrap().to_owned()).unwrap_or_default(),
    ))
}

fn certificate(stream: &TlsStream<TcpStream>) -> CertificateDer<'static> {
    stream.get_ref().1.peer_certificates().unwrap()[0].clone().into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_come_through_tls_and_plaintext_does_not() {
    let (authority, directory) = (Authority::new(), tempfile::tempdir().unwrap());
    authority.write(directory.path());
    let gateway = start_tls(files(directory.path())).await;
    let stream = connect(gateway.address, &authority, None).await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    assert_eq!(call(stream).await.unwrap(), (StatusCode::OK, "0".to_owned()));

    assert!(
        connect(gateway.address, &Authority::new(), None).await.is_err(),
        "a client checks who we are"
    );
    let plain = TcpStream::connect(gateway.address).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(plain))
        .await
        .unwrap();
    tokio::spawn(connection);
    let request = Request::builder()
        .uri("/healthz")
        .header("host", "x")
        .body(Full::new(Bytes::new()))
        .unwrap();
    assert!(sender.send_request(request).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_show_a_certificate_of_the_right_authority_or_are_refused() {
    let (authority, directory) = (Authority::new(), tempfile::tempdir().unwrap());
    authority.write(directory.path());
    let clients = Authority::new();
    let roots = directory.path().join("clients.crt");
    std::fs::write(&roots, clients.0.pem()).unwrap();
    let gateway = start_tls(TlsConfig {
        client_ca: Some(roots),
        ..files(directory.path())
    })
    .await;
    let good = clients.sign("trader");
    let stream = connect(gateway.address, &authority, Some(&good)).await.unwrap();
    assert_eq!(call(stream).await.unwrap(), (StatusCode::OK, "0".to_owned()));
    // In TLS 1.3 a client learns that its certificate was refused when it reads.
    let stranger = Authority::new().sign("trader");
    for shown in [None, Some(&stranger)] {
        let refused = match connect(gateway.address, &authority, shown).await {
            Ok(stream) => call(stream).await.is_err(),
            Err(_) => true,
        };
        assert!(refused);
    }
    assert_eq!(gateway.engine.of("demo").len(), 1, "one call came through");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renewed_certificate_is_used_and_a_broken_one_is_not() {
    let (authority, directory) = (Authority::new(), tempfile::tempdir().unwrap());
    authority.write(directory.path());
    let gateway = start_tls(files(directory.path())).await;
    let open = connect(gateway.address, &authority, None).await.unwrap();
    let first = certificate(&open);

    std::fs::write(directory.path().join("tls.crt"), "nothing of use").unwrap();
    for _ in 0..5 {
        tokio::time::sleep(Duration::from_millis(20)).await;
        let stream = connect(gateway.address, &authority, None).await.unwrap();
        assert_eq!(certificate(&stream), first, "the old one goes on");
    }

    authority.write(directory.path());
    loop {
        let stream = connect(gateway.address, &authority, None).await.unwrap();
        if certificate(&stream) != first {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(call(open).await.unwrap().0, StatusCode::OK, "what is open stays open");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_without_a_good_certificate_does_not_start() {
    let directory = tempfile::tempdir().unwrap();
    let mut config = config(nowhere());
    config.tls = Some(files(directory.path()));
    let error = gateway::Gateway::bind_with(config, 1, Played::default())
        .await
        .unwrap_err();
    assert!(
        matches!(&error, GatewayError::Config(text) if text.contains("tls.crt")),
        "{error}"
    );
}
