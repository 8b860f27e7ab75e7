//! The config file: everything an operator says about an installation, in TOML.
//!
//! [`load`] reads all of it at once and finds all its mistakes at once: each with file, line and column, what was given,
//! and what is allowed or how to mend it. What comes out has been checked, so nothing later asks again.
//!
//! | table | what it says |
//! | --- | --- |
//! | `listen`, `plain_http_behind_proxy` | where the HTTP API is |
//! | `[tls]` | `certificate`, `key`: the API speaks TLS; `client_ca`, `checkins_without_certificate`: and asks for certificates |
//! | `deployment_key` | where the installation's one key is kept |
//! | `[store]` | `path`: where the state is kept |
//! | `[log]` | `filter`, `format` |
//! | `[limits]` | how much is done at once, and how much one caller may ask; `audit_entries`: how much of the audit log is kept |
//! | `[[token]]` | who may use the API: `name`, `role`, and `secret` or `sha256`; `expires`: until when |
//! | `[secrets]` | passwords that autoscale configs speak of by name |
//! | `[ldap.NAME]` | domains: where computer objects are made, whose users log in; `bind_password` says where it is kept, [`LdapSettings::read`](kasm_ad::LdapSettings::read) has the other fields |
//! | `[provider.NAME]` | who makes machines: `kind`, and the kind's own settings |
//! | `[[pool]]` | pools: [`PoolSpec::from_json`](kasm_autoscale_core::config::PoolSpec::from_json) has their fields |
//! | `[[workspaces]]` | what users see and launch: [`Workspace::from_json`] has their fields |
//! | `[logins]` | `idle`, `longest`: how long a user's login lasts |
//! | `[[pool.config]]` | autoscale configs: [`ConfigSpec::from_json`] has their fields; `startup_script_file` is ours |
//!
//! Paths that are not absolute start at the folder of the file. Secrets never stand in it: see [`crate::secrets`].

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use kasm_autoscale_core::config::ConfigSpec;
use kasm_autoscale_core::fields::{JsonObject, Problem};
use kasm_autoscale_core::id::{DirectoryName, InvalidId, PoolName, ProviderName, SecretName};
use kasm_autoscale_core::time::Timestamp;

use crate::api::CallerLimits;
use crate::auth::{Role, TokenEntry};
use crate::clock::Clock;
use crate::secrets::{Environment, SecretError, SecretSource, SecretStore};
use crate::tls::TlsSettings;
use crate::users::LoginRules;
use crate::workspaces::Workspace;

mod azure;
mod document;
mod ldap;
mod pools;
mod providers;
mod report;
mod script;
mod settings;
mod text;
mod tls;
mod workspaces;

pub use report::{Mistake, Warning};
pub use text::Place;

use document::{Document, Parsed};
use report::Report;
use text::{Text, Unreadable};

/// The longest a config file may be, in bytes.
pub const FILE_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Whether the syntax of startup scripts is looked at: not in a program built without the feature `script-check`, and then
/// whoever shows the warnings of a file should say so.
pub const SCRIPTS_ARE_CHECKED: bool = cfg!(feature = "script-check");

/// Where the API is when the file does not say: reachable from this machine alone.
pub const LISTEN_DEFAULT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 7070);

/// A whole config file that has no mistakes.
#[derive(Clone, Debug)]
pub struct DaemonConfig {
    /// The file it was read from.
    pub file: Arc<Path>,
    /// Where the HTTP API listens.
    pub listen: SocketAddr,
    /// Whether the operator vouches for a TLS proxy in front of an address that is not a loopback one.
    pub plain_http_behind_proxy: bool,
    /// What the API speaks TLS with, which could be used when the file was read; `None`: it speaks plain HTTP.
    pub tls: Option<TlsSettings>,
    /// Where the state is kept.
    pub store: StorePath,
    /// Where the deployment key is kept. It is there and has the right form.
    pub deployment_key: SecretSource,
    /// Who may use the API. May be empty.
    pub tokens: Vec<TokenConfig>,
    /// The secrets that autoscale configs speak of by name. Each was readable.
    pub secrets: BTreeMap<SecretName, SecretSource>,
    /// Who makes machines.
    pub providers: BTreeMap<ProviderName, ProviderConfig>,
    /// The LDAP configs.
    pub ldap: BTreeMap<DirectoryName, LdapConfig>,
    /// The pools, in the order of the file.
    pub pools: Vec<DeclaredPool>,
    /// What users see and launch, in the order of the file.
    pub workspaces: Vec<Workspace>,
    /// How long users' logins last.
    pub logins: LoginRules,
    /// What is logged, and how.
    pub log: LogConfig,
    /// How much is done at once.
    pub limits: Limits,
}

/// The file of the embedded store.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct StorePath(pub PathBuf);

/// One who may use the API.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct TokenConfig {
    /// Who, for logs and the audit trail.
    pub name: TokenName,
    /// What they may do.
    pub role: Role,
    /// How they are recognised.
    pub secret: TokenSecret,
    /// From when on they are not any more.
    pub expires_at: Option<Timestamp>,
}

/// The name of an API token: 1 to 63 letters, digits, `.`, `_` or `-`.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct TokenName(String);

impl TokenName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TokenName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for TokenName {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        // The rule of all names is the core's.
        let name: Result<SecretName, InvalidId> = text.parse();
        name.map(|name| Self(name.into())).map_err(|error| InvalidId { what: "token name", ..error })
    }
}

/// How a token is recognised.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum TokenSecret {
    /// It is kept here, and has [`TokenSecret::BYTES`].
    Source(SecretSource),
    /// It has this SHA-256, 64 hexadecimal digits. The token itself is nowhere on this machine.
    Sha256(String),
}

impl TokenSecret {
    /// How many bytes a token may have: no fewer than nobody guesses, no more than the API looks at.
    pub const BYTES: RangeInclusive<usize> = 32..=512;
}

impl TokenConfig {
    /// The token as the API recognises it.
    ///
    /// # Errors
    /// [`SecretError`] when it cannot be read.
    pub fn entry(&self, environment: &Environment) -> Result<TokenEntry, SecretError> {
        let (name, role) = (self.name.as_str(), self.role);
        let entry = match &self.secret {
            TokenSecret::Source(source) => TokenEntry::from_token(name, role, &source.resolve(environment)?),
            TokenSecret::Sha256(hex) => TokenEntry::from_sha256(name, role, hex),
        };
        // Names and hashes have been read by the same rules, so this cannot happen; and a hash of zeros lets nobody in.
        let entry = entry.unwrap_or(TokenEntry { name: name.into(), role, sha256: [0; 32], expires_at: None });
        Ok(TokenEntry { expires_at: self.expires_at, ..entry })
    }
}

/// A kind of provider that this daemon knows.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum ProviderKind {
    /// AWS EC2.
    Aws,
    /// Microsoft Azure.
    Azure,
    /// A simulated cloud in the daemon's own process.
    Simulated,
}

impl ProviderKind {
    const CHOICES: [(&'static str, Self); 3] =
        [("aws", Self::Aws), ("azure", Self::Azure), ("simulated", Self::Simulated)];

    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Aws => "aws",
            Self::Azure => "azure",
            Self::Simulated => "simulated",
        }
    }
}

/// A provider as the file declares it.
#[derive(Clone, Debug)]
pub struct ProviderConfig {
    /// Where its table is.
    pub place: Place,
    /// What kind of system it is.
    pub kind: ProviderKind,
    /// The kind's own settings: the table without `kind` and without what is read into `credentials`.
    pub settings: JsonObject,
    /// What it signs in with; `None`: what the kind finds by itself, or it needs nothing.
    pub credentials: Option<AwsKeys>,
    /// Who asks Azure, for a provider of that kind.
    pub azure: Option<AzureAccess>,
}

/// How Azure is asked, and what machines there need that is secret.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct AzureAccess {
    /// Who asks.
    pub identity: AzureIdentity,
    /// Where the password of all machines' administrator is kept.
    pub admin_password: Option<SecretSource>,
    /// Where the key is kept from which each machine's own is derived.
    pub admin_password_key: Option<SecretSource>,
}

/// Who asks Azure.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum AzureIdentity {
    /// An application with a client secret.
    ClientSecret {
        /// The tenant.
        tenant_id: String,
        /// The application's id.
        client_id: String,
        /// Where its secret is kept.
        client_secret: SecretSource,
    },
    /// The identity of the machine or service that this daemon runs on.
    ManagedIdentity {
        /// Which one, where there are several.
        client_id: Option<String>,
    },
    /// A token that Kubernetes keeps in a file.
    WorkloadIdentity {
        /// The tenant; else `AZURE_TENANT_ID`.
        tenant_id: Option<String>,
        /// The application's id; else `AZURE_CLIENT_ID`.
        client_id: Option<String>,
        /// The file; else `AZURE_FEDERATED_TOKEN_FILE`.
        token_file: Option<PathBuf>,
    },
    /// Whoever is signed in with the Azure tools.
    DeveloperTools,
}

/// An LDAP config as the file declares it.
#[derive(Clone, Debug)]
pub struct LdapConfig {
    /// Where its table is.
    pub place: Place,
    /// Its settings: the table without `bind_password`.
    pub settings: JsonObject,
    /// Where the password of its account is kept. It was readable.
    pub bind_password: SecretSource,
}

/// A key pair of AWS.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct AwsKeys {
    /// The public half: the key's name.
    pub access_key_id: String,
    /// Where the other half is kept.
    pub secret_access_key: SecretSource,
    /// Where the session token is kept, for keys that expire.
    pub session_token: Option<SecretSource>,
}

/// A pool as the file declares it.
#[derive(Clone, Debug)]
pub struct DeclaredPool {
    /// Its name, unique in the file.
    pub name: PoolName,
    /// Its settings, name included, as [`PoolSpec::from_json`](kasm_autoscale_core::config::PoolSpec::from_json) reads them;
    /// it has read them once without complaint.
    pub settings: JsonObject,
    /// Its autoscale configs, in the order of the file.
    pub configs: Vec<ConfigSpec>,
    /// Where the table of each config is, in the same order; may be empty where there is no file.
    pub config_places: Vec<Place>,
}

/// What is logged, and how.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct LogConfig {
    /// A level, or levels by target: `info,kasm_daemon=debug`.
    pub filter: String,
    /// The form of a line.
    pub format: LogFormat,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self { filter: "info".into(), format: LogFormat::Text }
    }
}

/// The form of a line of the log.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object.
    Json,
}

/// How much is done at once.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Limits {
    /// Calls to one provider that may be under way at once.
    pub provider_calls: u32,
    /// Calls of one pool to one directory that may be under way at once.
    pub directory_calls: u32,
    /// Probes of connection ports that may be under way at once.
    pub probes: u32,
    /// How long a stopping daemon waits for calls under way; what is then left is looked up at the next start.
    pub shutdown_grace: Duration,
    /// How much one caller may ask of the API: `address_rate` and `address_burst`, and the same of `token` and `user`, in
    /// requests a second and at once; `user_requests`, `user_sessions`.
    pub callers: CallerLimits,
    /// How many entries of the audit log are kept.
    pub audit_entries: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            provider_calls: 32,
            directory_calls: 8,
            probes: 200,
            shutdown_grace: Duration::from_secs(10),
            callers: CallerLimits::default(),
            audit_entries: crate::trail::KEEP_DEFAULT,
        }
    }
}

/// What a file meets on the machine where it is read.
#[derive(Clone, Debug)]
pub struct Surroundings {
    /// Environment variables, for secrets.
    pub environment: Environment,
    /// The kinds of providers that were built into this program.
    pub kinds: Vec<ProviderKind>,
    /// Now, for certificates.
    pub now: Timestamp,
}

impl Surroundings {
    /// The environment of this process, and the kinds this crate was built with.
    pub fn of_process() -> Self {
        let mut kinds = vec![ProviderKind::Simulated];
        if cfg!(feature = "aws") {
            kinds.push(ProviderKind::Aws);
        }
        if cfg!(feature = "azure") {
            kinds.push(ProviderKind::Azure);
        }
        Self { environment: Environment::of_process(), kinds, now: Clock::start().now() }
    }
}

/// What only others can check.
pub struct Checks<'a> {
    /// The settings of a provider. Paths start at the provider's table.
    pub provider: &'a mut dyn FnMut(&ProviderName, &ProviderConfig) -> Vec<Problem>,
    /// The settings of an LDAP config. Paths start at its table.
    pub ldap: &'a mut dyn FnMut(&DirectoryName, &LdapConfig) -> Vec<Problem>,
    /// An autoscale config that is right in itself. Paths start at the config's table. It is called for those configs whose
    /// provider and directory have no mistakes and whose secrets could be read.
    pub config: &'a mut dyn FnMut(&ConfigCheck<'_>) -> Vec<Problem>,
}

impl fmt::Debug for Checks<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Checks")
    }
}

/// An autoscale config to check.
#[derive(Clone, Copy, Debug)]
pub struct ConfigCheck<'a> {
    /// The config.
    pub spec: &'a ConfigSpec,
    /// Its provider.
    pub provider: &'a ProviderConfig,
    /// All LDAP configs without mistakes.
    pub ldap: &'a BTreeMap<DirectoryName, LdapConfig>,
    /// All secrets that could be read.
    pub secrets: &'a SecretStore,
}

/// Reads a config file.
///
/// # Errors
/// All its mistakes, in the order of the file. After an error of TOML's own syntax the fields are not checked, since
/// they may not be what was meant.
pub fn load(
    path: &Path,
    surroundings: &Surroundings,
    checks: &mut Checks<'_>,
) -> Result<(DaemonConfig, Vec<Warning>), Vec<Mistake>> {
    let text = Text::read(path, FILE_BYTES_MAX).map_err(|error| {
        let (place, allowed) = match error {
            Unreadable::Whole(allowed) => (Text::whole(path), allowed),
            Unreadable::At(place, allowed) => (place, allowed),
        };
        vec![Mistake { place, problem: Problem::new("", "", allowed) }]
    })?;
    let Parsed { document, problems, sound } = Document::parse(text);
    let mut report = Report::new(&document);
    let lines: Vec<usize> = problems.iter().map(|(place, _)| place.line).collect();
    problems.into_iter().for_each(|(place, problem)| report.mistake_at(place, problem));
    let config = sound.then(|| {
        Loader { document: &document, folder: text::folder_of(path), surroundings, report: &mut report }.read(checks)
    });
    let (mut mistakes, warnings) = report.finish();
    // That a value is missing goes without saying where it could not be read.
    mistakes.retain(|mistake| {
        !["nothing", "null"].contains(&&*mistake.problem.given) || !lines.contains(&mistake.place.line)
    });
    match config.flatten() {
        Some(config) if mistakes.is_empty() => Ok((config, warnings)),
        _ => Err(mistakes),
    }
}

/// What reading the tables of one file needs.
struct Loader<'a, 'd> {
    document: &'d Document,
    /// Where paths in the file start.
    folder: PathBuf,
    surroundings: &'a Surroundings,
    report: &'a mut Report<'d>,
}
