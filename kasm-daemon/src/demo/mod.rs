//! `kasm-daemon demo`: a pool of simulated servers, simulated users coming and going, and the pool's status as it changes.
//!
//! Everything but the cloud and the users is real: the store on disk, the driver, the prober, the check-in with a signed
//! token, the HTTP API. Nothing is reachable from another machine, and nothing is left behind.

mod screen;
mod users;

use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use kasm_autoscale_core::config::{ConfigSpec, JsonObject};
use kasm_autoscale_core::fields::Problem;
use kasm_autoscale_core::id::SecretName;
use kasm_autoscale_core::input::Fact;
use kasm_autoscale_core::ports::Secrets;
use kasm_autoscale_core::token::DeploymentKey;
use kasm_providers::simulated::{Booted, SimulatedProvider, SimulatedSettings};
use secrecy::{ExposeSecret, SecretString};
use serde_json::json;
use thiserror::Error;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::api::{ServeError, serve};
use crate::auth::Tokens;
use crate::clock::Clock;
use crate::directories::DirectoryRegistry;
use crate::driver::{CallLimits, PoolHandle};
use crate::file::DeclaredPool;
use crate::host::{Host, HostError, Registry, World};
use crate::metrics::Metrics;
use crate::probe::{AddressGuard, NetProber};
use crate::store::{SqliteStore, Store, StoreError};

/// Where the API is looked for first; if the port is taken, any free one will do.
const PORT: u16 = 7070;
/// The longest the demo waits at its end for the pool to be empty.
const CLOSING_MAX: Duration = Duration::from_secs(30);

/// Why the demo ended early.
#[derive(Debug, Error)]
pub enum DemoError {
    /// The system refused something.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The pool failed.
    #[error(transparent)]
    Host(#[from] HostError),
    /// The API failed.
    #[error(transparent)]
    Serve(#[from] ServeError),
    /// The built-in settings have mistakes.
    #[error("the demo's own settings are wrong: {0:?}")]
    Settings(Vec<Problem>),
    /// The system gives no random bytes.
    #[error("the system gives no random bytes: {0}")]
    Random(String),
}

/// Runs the demo for so long, or until Ctrl-C; then empties the pool and says what it did.
///
/// # Errors
/// [`DemoError`] when it cannot start. What it has made by then is gone all the same.
pub async fn run(length: Option<Duration>, seed: u64) -> Result<(), DemoError> {
    let folder = tempfile::Builder::new().prefix("kasm-demo-").tempdir()?;
    let provider = Arc::new(SimulatedProvider::new(SimulatedSettings { seed, ..SimulatedSettings::default() }));
    let booted = provider.booted();
    let store: Arc<dyn Store> = Arc::new(SqliteStore::open(&folder.path().join("demo.sqlite"))?);
    let host = Arc::new(Host::start(world(provider.clone(), store)?, &[declared(true)?]).await?);
    let pool = host.pool("desktops")?;
    let listener = listen().await?;
    let address = listener.local_addr()?;
    let stop = CancellationToken::new();
    let api = tokio::spawn(serve(host.clone(), Tokens::none(), listener, stop.clone()));
    let guests = tokio::spawn(check_in(host.clone(), booted));
    let crowd = users::Crowd::start(pool.clone(), seed, stop.clone());

    let mut screen = screen::Screen::start(address, &pool)?;
    let clock = host.world().clock;
    let until_end = async {
        match length {
            Some(length) => tokio::time::sleep(length).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        result = screen.follow(&pool, clock) => result?,
        () = until_end => {}
        result = tokio::signal::ctrl_c() => result?,
    }
    let crowd = crowd.leave().await;
    close(&host, &pool, &mut screen).await?;
    screen.summary(&crowd, &provider)?;
    stop.cancel();
    host.stop().await;
    guests.abort();
    match api.await {
        Ok(result) => result?,
        Err(error) => return Err(io::Error::other(error).into()),
    }
    Ok(())
}

/// Disables the config: the pool empties itself. A second Ctrl-C does not wait for it.
async fn close(host: &Host, pool: &PoolHandle, screen: &mut screen::Screen) -> Result<(), DemoError> {
    screen.note("everybody has left and the config is disabled: the pool empties itself")?;
    let config = Box::new(config(false)?);
    // The demo's config stands in no file, so this is how it would be edited there.
    pool.ask(Fact::ConfigSet(config)).await.map_err(HostError::from)?;
    let clock = host.world().clock;
    let emptied = async {
        loop {
            let shown = screen.show(pool, clock).await;
            let empty = pool.look(|pool| pool.servers().next().is_none()).await.unwrap_or(true);
            if shown.is_err() || empty {
                return shown;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    tokio::select! {
        shown = tokio::time::timeout(CLOSING_MAX, emptied) => Ok(shown.unwrap_or(Ok(()))?),
        result = tokio::signal::ctrl_c() => Ok(result?),
    }
}

fn world(provider: Arc<SimulatedProvider>, store: Arc<dyn Store>) -> Result<World, DemoError> {
    let mut providers = Registry::default();
    let name = "cloud".parse().map_err(|_| DemoError::Settings(Vec::new()))?;
    providers.add(name, provider);
    let mut key = [0; 32];
    getrandom::fill(&mut key).map_err(|error| DemoError::Random(error.to_string()))?;
    Ok(World {
        clock: Clock::start(),
        store,
        providers,
        directories: DirectoryRegistry::default(),
        prober: Arc::new(NetProber::new(AddressGuard::LoopbackOnly)),
        secrets: Arc::new(NoSecrets),
        key: DeploymentKey::new(key),
        metrics: Metrics::default(),
        calls: CallLimits::default(),
    })
}

fn declared(enabled: bool) -> Result<DeclaredPool, DemoError> {
    let settings = object(json!({ "name": "desktops", "placement": "pack", "queue_deadline": "1m" }));
    let name = "desktops".parse().map_err(|_| DemoError::Settings(Vec::new()))?;
    Ok(DeclaredPool { name, settings, configs: vec![config(enabled)?], config_places: vec![] })
}

/// The example of the product's documentation: ten sessions free at all times, four on each server.
fn config(enabled: bool) -> Result<ConfigSpec, DemoError> {
    let object = object(json!({
        "name": "windows",
        "enabled": enabled,
        "connection_username": "{sso_username}",
        "connection_password": "{sso_cred}",
        "reusable": true,
        "minimum_available_sessions": 10,
        "max_sessions_per_server": 4,
        "max_servers": 50,
        "downscale_backoff": "6s",
        "require_checkin": true,
        "boot_deadline": "1m",
        "provider": "cloud",
        "startup_script": "Send-CheckIn -Token '{checkin_jwt}'",
    }));
    ConfigSpec::from_json(&object).map_err(|error| DemoError::Settings(error.problems))
}

fn object(value: serde_json::Value) -> JsonObject {
    if let serde_json::Value::Object(object) = value { object } else { JsonObject::new() }
}

async fn listen() -> io::Result<TcpListener> {
    match TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, PORT))).await {
        Ok(listener) => Ok(listener),
        Err(_) => TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).await,
    }
}

/// Plays the part of the machines: each runs its startup script, which checks in with the token it was given.
async fn check_in(host: Arc<Host>, mut booted: mpsc::Receiver<Booted>) {
    while let Some(machine) = booted.recv().await {
        let script = machine.user_data.as_ref().map_or("", |text| text.expose_secret());
        let token = script.split('\'').nth(1).unwrap_or_default();
        if let Err(error) = host.check_in(token, "running".into(), "ready".into(), 100).await {
            tracing::warn!(machine = %machine.name, %error, "check-in refused");
        }
    }
}

struct NoSecrets;

impl Secrets for NoSecrets {
    fn secret(&self, _: &SecretName) -> Option<SecretString> {
        None
    }
}

/// Writes a line to the terminal. That the reader has gone away is no error of the demo's.
fn line(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    match writeln!(out, "{text}").and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}
