//! From the content of the files to what connections are served with, or to everything that is wrong with it.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use kasm_autoscale_core::fields::Problem;
use kasm_autoscale_core::time::Timestamp;
use secrecy::{ExposeSecret, SecretString};
use tokio_rustls::rustls::crypto::{CryptoProvider, aws_lc_rs};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::danger::ClientCertVerifier;
use tokio_rustls::rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use tokio_rustls::rustls::sign::{CertifiedKey, SigningKey, SingleCertAndKey};
use tokio_rustls::rustls::version::{TLS12, TLS13};
use tokio_rustls::rustls::{Error, InconsistentKeys, RootCertStore, ServerConfig};

use super::files::{Content, Files};
use super::look::Looked;
use super::{ClientCertificates, ENDS_SOON, TlsSettings};
use crate::clock::rfc3339;

/// The one protocol that is spoken inside.
const ALPN: &[u8] = b"http/1.1";

/// What connections are served with.
pub(super) struct Material {
    pub(super) config: Arc<ServerConfig>,
    pub(super) facts: Facts,
    /// What is unwise about it, that it is not valid now included. Paths start at the table `[tls]`.
    pub(super) warnings: Vec<Problem>,
}

/// What the log says of a certificate.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Facts {
    /// Its number among those of its issuer, in hexadecimal digits.
    pub(super) serial: String,
    /// Whom it stands for.
    pub(super) names: Vec<String>,
    /// The first instant at which it is valid.
    pub(super) begins: Timestamp,
    /// The last one.
    pub(super) ends: Timestamp,
}

impl Facts {
    /// Whether it is valid as far as time goes.
    pub(super) fn is_timely(&self, now: Timestamp) -> bool {
        (self.begins..=self.ends).contains(&now)
    }
}

impl fmt::Display for Facts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.names.join(", ").escape_default().to_string();
        write!(f, "serial {}, for {names}, until {}", self.serial, rfc3339(self.ends))
    }
}

impl Material {
    /// # Errors
    /// Everything that is wrong. Paths start at the table `[tls]`.
    pub(super) fn of(settings: &TlsSettings, files: &Files, now: Timestamp) -> Result<Self, Vec<Problem>> {
        let crypto = Arc::new(aws_lc_rs::default_provider());
        let (mut problems, mut warnings) = (vec![], vec![]);
        let chain = Chain::of(&settings.certificate, &files.certificate, now, &mut problems, &mut warnings);
        let key = key_of(settings, files, &crypto).map_err(|problem| problems.push(problem)).ok();
        let verifier = settings.clients.as_ref().zip(files.authorities.as_ref()).and_then(|(clients, content)| {
            verifier(clients, content, &crypto, now, &mut warnings).map_err(|problem| problems.push(problem)).ok()
        });
        let certified = chain.zip(key).and_then(|(chain, key)| {
            let certified = CertifiedKey::new(chain.certificates, key);
            match certified.keys_match() {
                Ok(()) | Err(Error::InconsistentKeys(InconsistentKeys::Unknown)) => Some((certified, chain.first)),
                Err(_) => {
                    let allowed = format!(
                        "the key of the first certificate in {}; it belongs to another one",
                        settings.certificate.display()
                    );
                    problems.push(Problem::new("key", settings.key.to_string(), allowed));
                    None
                }
            }
        });
        let Some((certified, first)) = certified.filter(|_| problems.is_empty()) else { return Err(problems) };
        let config = config(&crypto, certified, verifier)
            .map_err(|error| vec![Problem::new("", "these files", format!("TLS cannot be set up: {error}"))])?;
        let facts = Facts { serial: first.serial, names: first.names, begins: first.begins, ends: first.ends };
        Ok(Self { config: Arc::new(config), facts, warnings })
    }
}

fn config(
    crypto: &Arc<CryptoProvider>,
    certified: CertifiedKey,
    verifier: Option<Arc<dyn ClientCertVerifier>>,
) -> Result<ServerConfig, Error> {
    let builder = ServerConfig::builder_with_provider(Arc::clone(crypto)).with_protocol_versions(&[&TLS13, &TLS12])?;
    let resolver = Arc::new(SingleCertAndKey::from(certified));
    let mut config = match verifier {
        Some(verifier) => {
            let mut config = builder.with_client_cert_verifier(verifier).with_cert_resolver(resolver);
            // A session that is taken up again is not asked for its certificate again, which may have ended since.
            config.session_storage = Arc::new(NoServerSessionStorage {});
            config.send_tls13_tickets = 0;
            config
        }
        None => builder.with_no_client_auth().with_cert_resolver(resolver),
    };
    config.alpn_protocols = vec![ALPN.to_vec()];
    Ok(config)
}

fn shown(path: &Path) -> String {
    format!("file {}", path.display())
}

/// The certificate of the API, and those behind it.
struct Chain {
    certificates: Vec<CertificateDer<'static>>,
    first: Looked,
}

impl Chain {
    fn of(
        path: &Path,
        content: &Content,
        now: Timestamp,
        problems: &mut Vec<Problem>,
        warnings: &mut Vec<Problem>,
    ) -> Option<Self> {
        let field = "certificate";
        let (certificates, looked) =
            certificates(field, path, content).map_err(|problem| problems.push(problem)).ok()?;
        let follow = looked.windows(2).position(|pair| pair[0].issuer != pair[1].subject);
        let mut looked = looked.into_iter();
        let first = looked.next()?;
        let mut wrong = |given: String, allowed: &str| problems.push(Problem::new(field, given, allowed));
        let file = shown(path);
        if first.names.is_empty() {
            wrong(
                format!("{file}, which names nobody"),
                "a certificate with the names by which the API is reached, as DNS names or IP addresses in its field \
                 subjectAltName; clients do not look at its common name",
            );
        }
        if !first.for_servers {
            wrong(
                format!("{file}, which is not for servers"),
                "a certificate whose field extendedKeyUsage has serverAuth, or that has no such field",
            );
        }
        let mut unwise = |given: String, allowed: &str| warnings.push(Problem::new(field, given, allowed));
        // Pools are looked after whether clients take the certificate or not, so neither keeps the daemon from starting.
        if first.ends < now {
            unwise(
                format!("{file}, which has expired at {}", rfc3339(first.ends)),
                "a certificate that is valid now; no client takes this one any more",
            );
        }
        if first.begins > now {
            unwise(
                format!("{file}, which is not valid before {}", rfc3339(first.begins)),
                "a certificate that is valid now; is the clock of this machine right?",
            );
        }
        if first.ends >= now && first.ends.since(now) < ENDS_SOON {
            let days = first.ends.since(now).as_secs() / (24 * 3600);
            unwise(
                format!("{file}, which expires at {}", rfc3339(first.ends)),
                &format!(
                    "{days} days are left; renew it and put it in its place, which takes effect without a restart"
                ),
            );
        }
        if first.is_authority {
            unwise(
                format!("{file}, which is that of an authority"),
                "a certificate that may not issue others (CA:FALSE): some clients refuse this one for a server",
            );
        }
        if let Some(at) = follow {
            unwise(
                format!("{file}, in which certificate {} has not issued certificate {}", at + 2, at + 1),
                "the API's own certificate first, then each one's issuer after it: some clients go no other way",
            );
        }
        Some(Self { certificates, first })
    }
}

/// Every certificate of a file, of which there must be one at least.
fn certificates(
    field: &str,
    path: &Path,
    content: &Content,
) -> Result<(Vec<CertificateDer<'static>>, Vec<Looked>), Problem> {
    let problem = |allowed: String| Problem::new(field, shown(path), allowed);
    let bytes = content.as_ref().map_err(|fault| problem(fault.clone()))?;
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(bytes).collect();
    // What is wrong with it would be told in bytes of the file, which may be one with a key in it.
    let read = read.map_err(|_| problem("its PEM is damaged".into()))?;
    if read.is_empty() {
        let allowed = "it has no certificate in PEM form, which starts with -----BEGIN CERTIFICATE-----";
        return Err(problem(allowed.into()));
    }
    let looked = read.iter().enumerate().map(|(index, certificate)| {
        Looked::at(certificate).ok_or_else(|| problem(format!("its certificate {} cannot be read", index + 1)))
    });
    let looked = looked.collect::<Result<_, _>>()?;
    Ok((read, looked))
}

fn key_of(settings: &TlsSettings, files: &Files, crypto: &CryptoProvider) -> Result<Arc<dyn SigningKey>, Problem> {
    let problem = |allowed: &str| Problem::new("key", settings.key.to_string(), allowed);
    let secret: &SecretString = files.key.as_ref().map_err(|error| problem(&error.remedy()))?;
    let key = PrivateKeyDer::from_pem_slice(secret.expose_secret().as_bytes()).map_err(|_| {
        problem("it holds no private key in PEM form; PKCS #8, PKCS #1 and SEC 1 are read, without a passphrase")
    })?;
    crypto.key_provider.load_private_key(key).map_err(|_| {
        problem("its key cannot be used: RSA of 2048 to 8192 bits, ECDSA on P-256, P-384 or P-521, or Ed25519")
    })
}

/// What holds clients' certificates against the authorities.
fn verifier(
    clients: &ClientCertificates,
    content: &Content,
    crypto: &Arc<CryptoProvider>,
    now: Timestamp,
    warnings: &mut Vec<Problem>,
) -> Result<Arc<dyn ClientCertVerifier>, Problem> {
    let (field, path) = ("client_ca", &clients.authorities);
    let problem = |allowed: String| Problem::new(field, shown(path), allowed);
    let (certificates, looked) = certificates(field, path, content)?;
    if let Some(at) = looked.iter().position(|looked| !looked.is_authority) {
        let allowed = "certificates that may issue others (CA:TRUE)";
        return Err(Problem::new(field, format!("{}, whose certificate {} may not", shown(path), at + 1), allowed));
    }
    if let Some((at, ended)) = looked.iter().enumerate().find(|(_, looked)| looked.ends < now) {
        let given = format!("{}, whose certificate {} has expired at {}", shown(path), at + 1, rfc3339(ended.ends));
        warnings.push(Problem::new(field, given, "authorities that are valid now; it is trusted all the same"));
    }
    let mut roots = RootCertStore::empty();
    for (index, certificate) in certificates.into_iter().enumerate() {
        roots.add(certificate).map_err(|_| problem(format!("its certificate {} cannot be read", index + 1)))?;
    }
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(crypto));
    let builder = if clients.checkins_without { builder.allow_unauthenticated() } else { builder };
    let verifier = builder.build().map_err(|error| problem(format!("it cannot be used: {error}")))?;
    Ok(verifier)
}
