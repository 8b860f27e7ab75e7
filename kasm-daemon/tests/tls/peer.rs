//! A client that speaks TLS and keeps its connection.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::authority::{Authority, Identity};
use crate::client::Reply;

/// Nothing here takes longer; what has happened is over at once.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// One that trusts this authority, and shows this certificate if it is asked.
pub(crate) fn trusting(authority: &Authority, identity: Option<&Identity>) -> ClientConfig {
    speaking(rustls::ALL_VERSIONS, authority, identity)
}

pub(crate) fn speaking(
    versions: &[&'static SupportedProtocolVersion],
    authority: &Authority,
    identity: Option<&Identity>,
) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(authority.der.clone()).expect("a root");
    let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(versions)
        .expect("versions")
        .with_root_certificates(roots);
    match identity {
        Some(identity) => {
            let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(identity.key.serialize_der()));
            builder.with_client_auth_cert(vec![identity.der.clone()], key).expect("a client's certificate")
        }
        None => builder.with_no_client_auth(),
    }
}

/// A connection.
pub(crate) struct Peer(pub(crate) TlsStream<TcpStream>);

impl Peer {
    pub(crate) async fn connect(address: SocketAddr, config: &Arc<ClientConfig>) -> io::Result<Self> {
        Self::connect_to("localhost", address, config).await
    }

    /// To one who has to have this name.
    pub(crate) async fn connect_to(name: &str, address: SocketAddr, config: &Arc<ClientConfig>) -> io::Result<Self> {
        let name = ServerName::try_from(name.to_owned()).expect("a name");
        let stream = TcpStream::connect(address).await?;
        let connected = TlsConnector::from(Arc::clone(config)).connect(name, stream);
        tokio::time::timeout(PATIENCE, connected).await.expect("no handshake in time").map(Self)
    }

    /// The certificate that the server has shown.
    pub(crate) fn shown(&self) -> CertificateDer<'static> {
        self.0.get_ref().1.peer_certificates().expect("a certificate")[0].clone().into_owned()
    }

    /// Asks, and leaves the connection open.
    pub(crate) async fn ask(&mut self, method: &str, path: &str, headers: &str) -> io::Result<Reply> {
        let request = format!("{method} {path} HTTP/1.1\r\nhost: localhost\r\ncontent-length: 0\r\n{headers}\r\n");
        let talk = async {
            self.0.write_all(request.as_bytes()).await?;
            self.0.flush().await?;
            let mut answer = vec![];
            while !is_whole(&answer) {
                let mut part = [0; 4096];
                let read = self.0.read(&mut part).await?;
                if read == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                answer.extend_from_slice(&part[..read]);
            }
            Ok(Reply::parse(&answer))
        };
        tokio::time::timeout(PATIENCE, talk).await.expect("no answer in time")
    }

    pub(crate) async fn get(&mut self, path: &str) -> io::Result<Reply> {
        self.ask("GET", path, "").await
    }
}

fn is_whole(answer: &[u8]) -> bool {
    let Some(end) = answer.windows(4).position(|window| window == b"\r\n\r\n") else { return false };
    let length = Reply::parse(answer).header("content-length").parse::<usize>().unwrap_or_default();
    answer.len() >= end + 4 + length
}

/// A new connection, and one question over it.
pub(crate) async fn get(address: SocketAddr, config: ClientConfig, path: &str) -> io::Result<Reply> {
    Peer::connect(address, &Arc::new(config)).await?.get(path).await
}
