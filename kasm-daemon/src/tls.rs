//! TLS of the HTTP API: which certificate it shows, from whom it wants one, and how both are renewed while it runs.
//!
//! TLS 1.2 and 1.3, by rustls. A certificate is used only after it has been looked at: it fits its key and names somebody
//! ([`inspect`] says what is wrong). One that is not valid now is a warning, for pools are looked after without it. What lies in the files is looked at again and again ([`follow`]); a new
//! pair serves the connections that come after it, and one that is no good is refused while the old one goes on.

use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use kasm_autoscale_core::fields::Problem;
use kasm_autoscale_core::time::Timestamp;
use tokio_rustls::rustls::ServerConfig;

use crate::clock::Clock;
use crate::metrics::Metrics;
use crate::secrets::{Environment, SecretSource};

mod counts;
mod files;
mod look;
mod material;
mod watch;

pub(crate) use counts::CertificateCounts;
pub use watch::follow;

use files::Files;
use material::{Facts, Material};

/// Before a certificate ends, for so long it is worth a warning.
pub const ENDS_SOON: Duration = Duration::from_secs(14 * 24 * 3600);

/// How often the files are looked at. It costs a read of three small files; a renewal has weeks.
pub const LOOK_EVERY: Duration = Duration::from_secs(5);

/// What the config file says of TLS.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct TlsSettings {
    /// A PEM file: the certificate of the API, then those that issued it.
    pub certificate: PathBuf,
    /// Where its key is kept, in PEM without a passphrase.
    pub key: SecretSource,
    /// From whom a certificate is wanted; `None`: from nobody.
    pub clients: Option<ClientCertificates>,
}

/// Which certificates clients have to show.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ClientCertificates {
    /// A PEM file: the authorities whose certificates are taken.
    pub authorities: PathBuf,
    /// Whether machines may check in without one: a machine that has just been made has none, and its check-in token is proof
    /// enough. All other routes but `/healthz` are refused without one all the same.
    pub checkins_without: bool,
}

/// Reads what the settings speak of: the warnings, if all of it can be used.
///
/// # Errors
/// What is wrong. Paths start at the table `[tls]`.
pub fn inspect(
    settings: &TlsSettings,
    environment: &Environment,
    now: Timestamp,
) -> Result<Vec<Problem>, Vec<Problem>> {
    Material::of(settings, &Files::read(settings, environment), now).map(|material| material.warnings)
}

/// The certificate that is in use, which another one may take the place of.
pub struct Tls {
    settings: TlsSettings,
    environment: Environment,
    clock: Clock,
    counts: CertificateCounts,
    live: RwLock<Live>,
}

/// What is in use.
#[derive(Clone)]
struct Live {
    config: Arc<ServerConfig>,
    facts: Facts,
    /// Of the files that it was made from.
    digest: [u8; 32],
}

impl Tls {
    /// Reads certificate, key and authorities.
    ///
    /// # Errors
    /// What is wrong with them. Paths start at the table `[tls]`.
    pub fn load(
        settings: TlsSettings,
        environment: &Environment,
        clock: Clock,
        metrics: &Metrics,
    ) -> Result<Self, Vec<Problem>> {
        let files = Files::read(&settings, environment);
        let Material { config, facts, .. } = Material::of(&settings, &files, clock.now())?;
        let counts = metrics.certificate().clone();
        counts.in_use(facts.ends);
        tracing::info!(%facts, "TLS is spoken with this certificate");
        let live = RwLock::new(Live { config, facts, digest: files.digest() });
        Ok(Self { settings, environment: environment.clone(), clock, counts, live })
    }

    /// What the next connection is served with.
    pub(crate) fn config(&self) -> Arc<ServerConfig> {
        self.live().config
    }

    /// Whether a client that has shown no certificate may do no more than check in.
    pub(crate) fn wants_certificates(&self) -> bool {
        self.settings.clients.is_some()
    }

    fn live(&self) -> Live {
        // It is replaced as a whole, so a panic leaves it whole.
        self.live.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls")
            .field("settings", &self.settings)
            .field("facts", &self.live().facts)
            .finish_non_exhaustive()
    }
}
