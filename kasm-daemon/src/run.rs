//! `kasm-daemon run`, `check`, `token` and `key`.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use kasm_autoscale_core::execute::check_config;
use kasm_autoscale_core::fields::Problem;
use kasm_autoscale_core::id::{DeploymentId, DirectoryName, ProviderName};
use kasm_autoscale_core::ports::VmProvider;
use kasm_autoscale_core::token::DeploymentKey;
use secrecy::ExposeSecret;
use thiserror::Error;
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

use crate::api::{Limits, ServeError, Setup, serve_tls, serve_with};
use crate::auth::{NewTokenError, Tokens, generate_token};
use crate::clock::Clock;
use crate::directories::{self, DirectoryRegistry};
use crate::driver::CallLimits;
use crate::file::{
    Checks, ConfigCheck, DaemonConfig, LdapConfig, LogConfig, LogFormat, ProviderConfig, SCRIPTS_ARE_CHECKED,
    Surroundings, Warning, load,
};
use crate::host::{Host, HostError, Registry, World};
use crate::metrics::Metrics;
use crate::preflight::{self, Looked};
use crate::probe::{AddressGuard, NetProber};
use crate::providers::build;
use crate::secrets::{Environment, SecretError, SecretStore, deployment_key};
use crate::signals::{Hangups, told_to_stop};
use crate::store::{SqliteStore, Store, StoreError};
use crate::tls::{LOOK_EVERY, Tls, follow};
use crate::tokens::ApiTokens;
use crate::users::{LoginRules, Realm, Users};
use crate::workspaces::Workspaces;

/// Why the daemon does not run, or does not run any more.
#[derive(Debug, Error)]
pub enum RunError {
    /// The config file has mistakes: one line each.
    #[error("the config file has mistakes:\n{}", .0.join("\n"))]
    Config(Vec<String>),
    /// Nobody could use the API.
    #[error(
        "the config file declares no [[token]] and none was made through the API, so nobody could use it; make one with `kasm-daemon token NAME`, or give --insecure-no-auth on a machine of your own"
    )]
    NoTokens,
    /// A secret cannot be read any more.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// The deployment key is none.
    #[error("the deployment key is not one: {0} in place of 64 hexadecimal digits; make one with `kasm-daemon key`")]
    Key(String),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The pools cannot be driven.
    #[error(transparent)]
    Host(#[from] HostError),
    /// The API cannot be served.
    #[error(transparent)]
    Serve(#[from] ServeError),
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {error}")]
    Listen {
        /// Where.
        address: std::net::SocketAddr,
        /// Why.
        error: io::Error,
    },
    /// The system refused something else.
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// What `check` found.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Checked {
    /// Every mistake and warning, one line each, and a last line that sums up.
    pub text: String,
    /// Whether the daemon would start with the file.
    pub sound: bool,
}

/// Reads a config file and tells all its mistakes.
pub async fn check(path: &Path) -> Checked {
    match load_checked(path) {
        Ok((config, warnings)) => {
            let mut lines: Vec<String> = warnings.iter().map(ToString::to_string).collect();
            if !SCRIPTS_ARE_CHECKED {
                lines.push(
                    "startup scripts were not checked for PowerShell syntax: built without the feature script-check"
                        .into(),
                );
            }
            let configs: usize = config.pools.iter().map(|pool| pool.configs.len()).sum();
            let (providers, pools, workspaces) = (config.providers.len(), config.pools.len(), config.workspaces.len());
            let ldap = config.ldap.len();
            lines.push(format!(
                "{}: ok: {providers} providers, {ldap} LDAP configs, {pools} pools, {configs} autoscale configs, {workspaces} workspaces, {} warnings",
                path.display(),
                warnings.len()
            ));
            Checked { text: lines.join("\n"), sound: true }
        }
        Err(mut lines) => {
            let count = lines.len();
            lines.push(format!("{}: {count} {}", path.display(), if count == 1 { "mistake" } else { "mistakes" }));
            Checked { text: lines.join("\n"), sound: false }
        }
    }
}

/// As [`check`]; if the file has no mistakes, also asks what it speaks of: whether the providers could make the machines of
/// every config now, whether the directories answer, and whether our accounts may do what they have to.
pub async fn check_online(path: &Path) -> Checked {
    let mut checked = check(path).await;
    let Ok((config, _)) = load_checked(path) else { return checked };
    let environment = Environment::of_process();
    // Rights may be bound to it. A store that is in use or not there yet is left alone.
    let deployment = SqliteStore::deployment_of(&config.store.0).unwrap_or_else(|| {
        checked.text += &format!(
            "\nnote: the deployment id in {} cannot be read now, so rights bound to it are asked for with zeros",
            config.store.0.display()
        );
        DeploymentId::from_bytes([0; 16])
    });
    let mut looks = look_at_providers(&config, deployment, &environment).await;
    let units = preflight::units(&config.pools);
    for (name, ldap) in &config.ldap {
        match directories::build(ldap, deployment, &environment) {
            Ok(directory) => looks.extend(preflight::directory(name, &directory, units.get(name)).await),
            // It was right a moment ago; a secret that has gone since is told by the next `check`.
            Err(problems) => looks.push(Looked::broken(format!("ldap.{name}"), &problems)),
        }
    }
    let (lines, sound) = preflight::told(&looks);
    let text = lines.into_iter().fold(checked.text, |text, line| text + "\n" + &line);
    Checked { text, sound: checked.sound && sound }
}

async fn look_at_providers(config: &DaemonConfig, deployment: DeploymentId, environment: &Environment) -> Vec<Looked> {
    let (mut registry, mut broken) = (Registry::default(), vec![]);
    for (name, provider) in &config.providers {
        match build(provider, deployment, environment).await {
            Ok(built) => registry.add(name.clone(), built),
            Err(problems) => broken.push(Looked::broken(format!("{}: provider.{name}", provider.place), &problems)),
        }
    }
    broken.extend(preflight::providers(&config.pools, &config.providers, &registry).await);
    broken
}

/// The store that a config file names. To be called on a runtime of several threads.
///
/// # Errors
/// The mistakes in the file, one line each.
pub fn store_of(path: &Path) -> Result<(PathBuf, DeploymentKey), Vec<String>> {
    let (config, _) = load_checked(path)?;
    let secret = config.deployment_key.resolve(&Environment::of_process()).map_err(|error| vec![error.to_string()])?;
    let key = deployment_key(&secret).map_err(|given| vec![RunError::Key(given).to_string()])?;
    Ok((config.store.0, key))
}

/// Reads a config file with everything that only the providers can check. To be called on a runtime of several threads.
fn load_checked(path: &Path) -> Result<(DaemonConfig, Vec<Warning>), Vec<String>> {
    let surroundings = Surroundings::of_process();
    let environment = surroundings.environment.clone();
    // For checks alone: no store is opened and no key is used.
    let nowhere = DeploymentId::from_bytes([0; 16]);
    let key = DeploymentKey::new([0; 32]);
    let make = |config: &ProviderConfig| -> Result<Arc<dyn VmProvider>, Vec<Problem>> {
        tokio::task::block_in_place(|| Handle::current().block_on(build(config, nowhere, &environment)))
    };
    let mut check_provider = |_: &ProviderName, config: &ProviderConfig| make(config).err().unwrap_or_default();
    let mut check_one = |check: &ConfigCheck<'_>| {
        let mut registry = Registry::default();
        match make(check.provider) {
            Ok(provider) => registry.add(check.spec.provider.clone(), provider),
            Err(problems) => return problems,
        }
        let mut known = DirectoryRegistry::default();
        if let Some(name) = check.spec.domain_join.as_ref().map(|join| &join.directory)
            && let Some(Ok(directory)) =
                check.ldap.get(name).map(|config| directories::build(config, nowhere, &environment))
        {
            known.add(name.clone(), Arc::new(directory));
        }
        check_config(check.spec, &key, &registry, &known, check.secrets)
    };
    let mut check_ldap = |_: &DirectoryName, config: &LdapConfig| {
        directories::build(config, nowhere, &environment).err().unwrap_or_default()
    };
    let mut checks = Checks { provider: &mut check_provider, ldap: &mut check_ldap, config: &mut check_one };
    load(path, &surroundings, &mut checks).map_err(|mistakes| mistakes.iter().map(ToString::to_string).collect())
}

/// Runs the daemon until it is told to stop by SIGTERM or Ctrl-C.
///
/// # Errors
/// [`RunError`]. Nothing has been driven when it does not start.
pub async fn run(path: &Path, insecure_no_auth: bool) -> Result<(), RunError> {
    let (config, warnings) = load_checked(path).map_err(RunError::Config)?;
    start_log(&config.log);
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    let environment = Environment::of_process();
    let tokens = tokens(&config, insecure_no_auth, &environment)?;
    let listener =
        TcpListener::bind(config.listen).await.map_err(|error| RunError::Listen { address: config.listen, error })?;
    let (world, realms) = world(&config, &environment).await?;
    let tls = tls(&config, &environment, &world)?;
    if !tokens.is_open() && config.tokens.is_empty() && !ApiTokens::any_in(&*world.store, world.clock.now()).await? {
        return Err(RunError::NoTokens);
    }
    let host = Arc::new(Host::start(world, &config.pools).await?);
    let stop = CancellationToken::new();
    let (grace, audit_entries) = (config.limits.shutdown_grace, config.limits.audit_entries);
    let limits = Limits { grace, audit_entries, callers: config.limits.callers, ..Limits::default() };
    let users = Arc::new(Users::new(host.world().clock, login_rules(&config), realms));
    let workspaces = Arc::new(Workspaces::load(host.world().store.clone(), config.workspaces.clone()).await?);
    let setup = Setup { host: host.clone(), tokens, users, workspaces, limits };
    let hangups = Hangups::listen()?;
    // The end of who follows the hang-ups is nobody's concern: it comes with the daemon's.
    let api = match tls {
        Some(tls) => {
            drop(tokio::spawn(follow(Arc::clone(&tls), LOOK_EVERY, hangups, stop.clone())));
            tokio::spawn(serve_tls(setup, tls, listener, stop.clone()))
        }
        None => {
            drop(tokio::spawn(hangups.decline(stop.clone())));
            tokio::spawn(serve_with(setup, listener, stop.clone()))
        }
    };
    let ended = tokio::select! {
        told = told_to_stop() => told.map_err(RunError::Io),
        // Without its API the daemon is of no use.
        () = stop.cancelled() => Ok(()),
    };
    tracing::info!("stopping; machines go on, and the next start finds them");
    stop.cancel();
    let served = api.await.map_err(io::Error::other)?;
    host.stop().await;
    served?;
    ended
}

/// What the API speaks TLS with.
fn tls(config: &DaemonConfig, environment: &Environment, world: &World) -> Result<Option<Arc<Tls>>, RunError> {
    let Some(settings) = config.tls.clone() else { return Ok(None) };
    let loaded = Tls::load(settings, environment, world.clock, &world.metrics);
    let told = |problems: Vec<Problem>| problems.into_iter().map(|problem| problem.below("tls").to_string()).collect();
    loaded.map(|tls| Some(Arc::new(tls))).map_err(|problems| RunError::Config(told(problems)))
}

fn login_rules(config: &DaemonConfig) -> LoginRules {
    LoginRules { behind_proxy: config.plain_http_behind_proxy, ..config.logins }
}

fn tokens(config: &DaemonConfig, insecure_no_auth: bool, environment: &Environment) -> Result<Tokens, SecretError> {
    if insecure_no_auth {
        return Ok(Tokens::none());
    }
    config.tokens.iter().map(|token| token.entry(environment)).collect::<Result<_, _>>().map(Tokens::new)
}

/// What the pools work with, and what the LDAP configs are to users.
async fn world(
    config: &DaemonConfig,
    environment: &Environment,
) -> Result<(World, BTreeMap<DirectoryName, Realm>), RunError> {
    let key = deployment_key(&config.deployment_key.resolve(environment)?).map_err(RunError::Key)?;
    let (secrets, errors) = SecretStore::resolve(&config.secrets, environment);
    if let Some((_, error)) = errors.into_iter().next() {
        return Err(error.into());
    }
    let store: Arc<dyn Store> = Arc::new(SqliteStore::open(&config.store.0)?);
    let mut providers = Registry::default();
    for (name, provider) in &config.providers {
        let built = build(provider, store.deployment(), environment).await;
        let mistakes = |problems: Vec<Problem>| {
            problems.into_iter().map(|problem| problem.below(&format!("provider.{name}")).to_string()).collect()
        };
        providers.add(name.clone(), built.map_err(|problems| RunError::Config(mistakes(problems)))?);
    }
    let (known, realms) = known_directories(config, store.deployment(), environment)?;
    let calls = CallLimits {
        calls: config.limits.provider_calls,
        directory_calls: config.limits.directory_calls,
        probes: config.limits.probes,
        grace: config.limits.shutdown_grace,
    };
    let world = World {
        clock: Clock::start(),
        store,
        providers,
        directories: known,
        prober: Arc::new(NetProber::new(AddressGuard::Any)),
        secrets: Arc::new(secrets),
        key,
        metrics: Metrics::default(),
        calls,
    };
    Ok((world, realms))
}

/// The LDAP configs, once for machines and once for users.
fn known_directories(
    config: &DaemonConfig,
    deployment: DeploymentId,
    environment: &Environment,
) -> Result<(DirectoryRegistry, BTreeMap<DirectoryName, Realm>), RunError> {
    let (mut known, mut realms) = (DirectoryRegistry::default(), BTreeMap::new());
    for (name, ldap) in &config.ldap {
        let below = |problem: Problem| problem.below(&format!("ldap.{name}")).to_string();
        let directory = directories::build(ldap, deployment, environment)
            .map_err(|problems| RunError::Config(problems.into_iter().map(below).collect()))?;
        known.add(name.clone(), Arc::new(directory.clone()));
        realms.insert(name.clone(), directories::realm(directory));
    }
    Ok((known, realms))
}

/// Starts the log on standard error. A second start in one process changes nothing.
fn start_log(config: &LogConfig) {
    // The file's reader has accepted the filter.
    let mut filter = EnvFilter::try_new(&config.filter).unwrap_or_else(|_| EnvFilter::new("info"));
    // At its finer levels the AWS SDK prints whole requests, start-up data included. Whatever the file asks for, it may not.
    for target in [
        "aws_config",
        "aws_runtime",
        "aws_sdk_ec2",
        "aws_smithy_runtime",
        "aws_smithy_runtime_api",
        "aws_smithy_http_client",
        "hyper",
        "hyper_util",
    ] {
        if let Ok(directive) = format!("{target}=info").parse() {
            filter = filter.add_directive(directive);
        }
    }
    let for_eyes = io::stderr().is_terminal();
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(for_eyes).with_writer(io::stderr);
    // It fails when there is a log already.
    drop(match config.format {
        LogFormat::Text => log.try_init(),
        LogFormat::Json => log.json().try_init(),
    });
}

/// The demo's log: only what is wrong, since the terminal is its screen.
pub fn log_for_demo() {
    start_log(&LogConfig { filter: "warn".into(), format: LogFormat::Text });
}

/// Makes an API token: what to print.
///
/// # Errors
/// [`NewTokenError`] when the name is none or the system gives no random bytes.
pub fn token(name: &str) -> Result<String, NewTokenError> {
    let made = generate_token(name)?;
    Ok(format!(
        "token (shown once): {}\nin the config file:\n\n[[token]]\nname = \"{name}\"\nrole = \"admin\"\nsha256 = \"{}\"",
        made.token.expose_secret(),
        made.sha256
    ))
}

/// Makes a deployment key: what to print.
///
/// # Errors
/// When the system gives no random bytes.
pub fn key() -> Result<String, io::Error> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(io::Error::other)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}
