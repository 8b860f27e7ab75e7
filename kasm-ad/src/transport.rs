//! The way to a domain controller: a connection that is encrypted and verified, or none.
//!
//! A [`Plain`] connection can do one thing, become [`Encrypted`]; only an encrypted one can carry requests. So there is no
//! order of calls in which a password leaves in the clear.
//!
//! The LDAP library never sees the network. It talks to one end of a socket pair inside this process; at the other end a
//! task of ours carries bytes to and from TLS, and looks at what comes in before it passes it on.

use std::io;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use ldap3::{Ldap, LdapConnAsync, LdapConnSettings, StdStream};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use crate::ber;
use crate::errors::{Failure, clean};
use crate::settings::{LdapUrl, Scheme};

/// How much one connection may receive in all, in bytes.
const RECEIVED_MAX: usize = 256 << 20;

/// The StartTLS request (RFC 4511 §4.14.1) with message id 1.
const START_TLS: &[u8] = b"\x30\x1d\x02\x01\x01\x77\x18\x80\x161.3.6.1.4.1.1466.20037";

/// Whom we talk to, and whom we believe to be that.
#[derive(Clone)]
pub(crate) struct Endpoint {
    url: LdapUrl,
    name: ServerName<'static>,
    tls: Arc<ClientConfig>,
}

impl Endpoint {
    /// With the certificates of this PEM file as the only roots, or those of the system.
    ///
    /// # Errors
    /// What is wrong with the file, the system's certificates or the host's name.
    pub(crate) fn new(url: &LdapUrl, ca_file: Option<&Path>) -> Result<Self, String> {
        let name = ServerName::try_from(url.host().to_owned())
            .map_err(|_| format!("{:?} is neither a host name nor an IP address", url.host()))?;
        let roots = match ca_file {
            Some(file) => roots_of(file)?,
            None => system_roots()?,
        };
        let provider = Arc::new(aws_lc_rs::default_provider());
        let tls = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self { url: url.clone(), name, tls: Arc::new(tls) })
    }
}

fn roots_of(file: &Path) -> Result<RootCertStore, String> {
    let shown = file.display();
    let certificates = CertificateDer::pem_file_iter(file).map_err(|error| format!("{shown}: {error}"))?;
    let mut roots = RootCertStore::empty();
    for certificate in certificates {
        let certificate = certificate.map_err(|error| format!("{shown}: {error}"))?;
        roots.add(certificate).map_err(|error| format!("{shown}: {error}"))?;
    }
    if roots.is_empty() { Err(format!("{shown} has no certificate in PEM form")) } else { Ok(roots) }
}

fn system_roots() -> Result<RootCertStore, String> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    // Some systems carry roots that no library reads; the others are enough.
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() { Err("the system has no root certificates; name a `ca_file`".to_owned()) } else { Ok(roots) }
}

/// A connection over which nothing has been said. All it can become is an [`Encrypted`] one.
pub(crate) struct Plain(TcpStream);

impl Plain {
    /// Connects, within this time.
    pub(crate) async fn connect(endpoint: &Endpoint, within: Duration) -> Result<Self, Failure> {
        let (host, port) = (endpoint.url.host(), endpoint.url.port());
        let connected = timeout(within, TcpStream::connect((host, port))).await.map_err(|_| Failure::TimedOut)?;
        let stream = connected.map_err(|error| Failure::Network(format!("{host}:{port}: {error}")))?;
        // Requests are small, and each waits for its answer.
        stream.set_nodelay(true).map_err(|error| Failure::Network(error.to_string()))?;
        Ok(Self(stream))
    }

    /// Encrypts the connection and makes sure of who is at the other end, within this time. Whatever fails, the connection
    /// is gone.
    pub(crate) async fn encrypt(self, endpoint: &Endpoint, within: Duration) -> Result<Encrypted, Failure> {
        let handshake = async {
            let mut stream = self.0;
            if endpoint.url.scheme() == Scheme::StartTls {
                start_tls(&mut stream).await?;
            }
            let connector = TlsConnector::from(Arc::clone(&endpoint.tls));
            connector.connect(endpoint.name.clone(), stream).await.map_err(|error| no_tls(&error, endpoint.url.host()))
        };
        let stream = timeout(within, handshake).await.map_err(|_| Failure::TimedOut)??;
        Encrypted::over(stream).await
    }
}

/// Asks for encryption (RFC 4513 §3.1). Anything but "go ahead" ends the connection: there is no way back to plain text.
async fn start_tls(stream: &mut TcpStream) -> Result<(), Failure> {
    let refused = |text: String| Failure::Tls(format!("the server does not start TLS: {text}; nothing was sent"));
    stream.write_all(START_TLS).await.map_err(|error| Failure::Network(error.to_string()))?;
    let mut answer = Vec::new();
    let end = loop {
        if let Some(end) = ber::message(&answer).map_err(|error| refused(error.to_string()))? {
            break end;
        }
        let mut chunk = [0; 1024];
        let read = stream.read(&mut chunk).await.map_err(|error| Failure::Network(error.to_string()))?;
        if read == 0 {
            return Err(refused("it closed the connection".to_owned()));
        }
        answer.extend_from_slice(&chunk[..read]);
    };
    // What comes in the clear behind the answer would be taken for something that was said under TLS.
    if end != answer.len() {
        return Err(refused("it sends plain text after its answer".to_owned()));
    }
    match start_tls_result(&answer) {
        Some(0) => Ok(()),
        Some(code) => Err(refused(format!("result code {code}"))),
        None => Err(refused("its answer is none to this request".to_owned())),
    }
}

/// The result code of an extended response (RFC 4511 §4.12) to message 1.
fn start_tls_result(answer: &[u8]) -> Option<u8> {
    let message = ber::children(answer)?;
    let [(0x02, [1]), (0x78, response), ..] = message.as_slice() else { return None };
    // The content of the response has no header of its own here; a sequence of its parts has one.
    let mut parts = vec![0x30, u8::try_from(response.len()).ok().filter(|length| *length < 0x80)?];
    parts.extend_from_slice(response);
    match ber::children(&parts)?.first() {
        Some((0x0a, [code])) => Some(*code),
        _ => None,
    }
}

fn no_tls(error: &io::Error, host: &str) -> Failure {
    let text = clean(&error.to_string(), None);
    match error.kind() {
        // Certificates that are not believed, and everything else that is wrong with TLS itself.
        io::ErrorKind::InvalidData => Failure::Tls(format!(
            "no verified TLS connection to {host}: {text}; the server's certificate must be valid now, be made out to the \
             host in `url` and be signed by a root in `ca_file` or of the system"
        )),
        _ => Failure::Network(format!("{host} broke the TLS handshake off: {text}")),
    }
}

/// A connection that is encrypted, to a server that has proved who it is.
pub(crate) struct Encrypted {
    pub(crate) ldap: Ldap,
    driver: JoinHandle<()>,
    carrier: JoinHandle<()>,
    trouble: Arc<OnceLock<Failure>>,
}

impl Encrypted {
    async fn over(stream: TlsStream<TcpStream>) -> Result<Self, Failure> {
        let broken = |error: io::Error| Failure::Network(error.to_string());
        let (theirs, ours) = StdUnixStream::pair().map_err(broken)?;
        ours.set_nonblocking(true).map_err(broken)?;
        let ours = UnixStream::from_std(ours).map_err(broken)?;
        let trouble = Arc::new(OnceLock::new());
        let settings = LdapConnSettings::new().set_std_stream(StdStream::Unix(theirs));
        let connected = LdapConnAsync::with_settings(settings, "ldapi:///").await;
        let (connection, ldap) = connected.map_err(|error| Failure::Network(error.to_string()))?;
        let carrier = tokio::spawn(carry(stream, ours, Arc::clone(&trouble)));
        let driver = tokio::spawn(async move {
            // An error here reaches whoever waits for an answer.
            let _ = connection.drive().await;
        });
        Ok(Self { ldap, driver, carrier, trouble })
    }

    /// Why nothing more comes from the server, if that is known.
    pub(crate) fn trouble(&self) -> Option<Failure> {
        self.trouble.get().cloned()
    }
}

impl Drop for Encrypted {
    fn drop(&mut self) {
        self.driver.abort();
        self.carrier.abort();
    }
}

/// Carries bytes both ways until either side ends.
async fn carry(stream: TlsStream<TcpStream>, ours: UnixStream, trouble: Arc<OnceLock<Failure>>) {
    let (from_server, to_server) = tokio::io::split(stream);
    // Lives until the trouble is written down: whoever sees the end of the stream asks for it.
    let (from_client, mut to_client) = ours.into_split();
    tokio::select! {
        () = send(from_client, to_server) => (),
        result = receive(from_server, &mut to_client) => {
            if let Err(failure) = result {
                // The first trouble is the one that counts.
                let _ = trouble.set(failure);
            }
        }
    }
}

async fn send(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin) {
    let mut chunk = vec![0; 16 << 10];
    while let Ok(read @ 1..) = from.read(&mut chunk).await {
        // TLS may keep a part back until it is told to let go.
        if to.write_all(&chunk[..read]).await.is_err() || to.flush().await.is_err() {
            return;
        }
    }
    // The other side may have gone already.
    let _ = to.shutdown().await;
}

/// Passes on whole messages that have been looked at, and no others.
async fn receive(mut from: impl AsyncRead + Unpin, to: &mut (impl AsyncWrite + Unpin)) -> Result<(), Failure> {
    let broken = |error: io::Error| match error.kind() {
        // Whoever cuts a connection does not say good-bye as TLS wants it (RFC 8446 §6.1).
        io::ErrorKind::UnexpectedEof => Failure::Network("the server closed the connection".to_owned()),
        _ => Failure::Network(clean(&error.to_string(), None)),
    };
    let mut waiting = Vec::new();
    let mut received = 0_usize;
    let mut chunk = vec![0; 16 << 10];
    loop {
        let read = from.read(&mut chunk).await.map_err(broken)?;
        if read == 0 {
            return Ok(());
        }
        received += read;
        if received > RECEIVED_MAX {
            return Err(Failure::Malformed(format!("the server sent more than {RECEIVED_MAX} bytes")));
        }
        waiting.extend_from_slice(&chunk[..read]);
        let mut done = 0;
        while let Some(length) =
            ber::message(&waiting[done..]).map_err(|error| Failure::Malformed(error.to_string()))?
        {
            done += length;
        }
        to.write_all(&waiting[..done]).await.map_err(broken)?;
        waiting.drain(..done);
    }
}
