//! An API over TLS in this process, with nothing behind it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use kasm_autoscale_core::token::DeploymentKey;
use kasm_daemon::api::{Limits, ServeError, Setup, serve_tls};
use kasm_daemon::auth::{Role, TokenEntry, Tokens, generate_token};
use kasm_daemon::clock::Clock;
use kasm_daemon::directories::DirectoryRegistry;
use kasm_daemon::driver::CallLimits;
use kasm_daemon::host::{Host, Registry, World};
use kasm_daemon::metrics::Metrics;
use kasm_daemon::probe::{AddressGuard, NetProber};
use kasm_daemon::secrets::{Environment, SecretSource, SecretStore};
use kasm_daemon::signals::Hangups;
use kasm_daemon::store::SqliteStore;
use kasm_daemon::tls::{ClientCertificates, Tls, TlsSettings, follow};
use kasm_daemon::users::{LoginRules, Users};
use kasm_daemon::workspaces::Workspaces;
use secrecy::ExposeSecret;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::authority::Authority;
use crate::peer::{PATIENCE, get, trusting};

/// How often this stage looks at its files.
const EVERY: Duration = Duration::from_millis(20);

/// Certificate `api.pem` and key `api.key` in this folder.
pub(crate) fn settings(folder: &Path) -> TlsSettings {
    TlsSettings { certificate: folder.join("api.pem"), key: SecretSource::File(folder.join("api.key")), clients: None }
}

/// The same, and clients of `clients.pem`.
pub(crate) fn mutual(folder: &Path, checkins_without: bool) -> TlsSettings {
    let clients = ClientCertificates { authorities: folder.join("clients.pem"), checkins_without };
    TlsSettings { clients: Some(clients), ..settings(folder) }
}

pub(crate) struct Stage {
    pub(crate) address: SocketAddr,
    /// A header line.
    pub(crate) admin: String,
    pub(crate) stop: CancellationToken,
    pub(crate) served: JoinHandle<Result<(), ServeError>>,
    _folder: tempfile::TempDir,
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Stage {
    /// Serves with what lies in the files, and looks at them all the time.
    pub(crate) async fn new(settings: TlsSettings, limits: Limits) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let environment = Environment::of([("X", "x")]);
        let world = World {
            clock: Clock::start(),
            store: Arc::new(SqliteStore::open(&folder.path().join("pools.sqlite")).unwrap()),
            providers: Registry::default(),
            directories: DirectoryRegistry::default(),
            prober: Arc::new(NetProber::new(AddressGuard::LoopbackOnly)),
            secrets: Arc::new(SecretStore::resolve(&BTreeMap::new(), &environment).0),
            key: DeploymentKey::new([0x5a; 32]),
            metrics: Metrics::default(),
            calls: CallLimits::default(),
        };
        let tls = Arc::new(Tls::load(settings, &environment, world.clock, &world.metrics).unwrap());
        let host = Arc::new(Host::start(world, &[]).await.unwrap());
        let new = generate_token("a").unwrap();
        let tokens = Tokens::new(vec![TokenEntry::from_sha256("a", Role::Admin, &new.sha256).unwrap()]);
        let users = Arc::new(Users::new(host.world().clock, LoginRules::default(), BTreeMap::new()));
        let workspaces = Arc::new(Workspaces::load(host.world().store.clone(), vec![]).await.unwrap());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, stop) = (listener.local_addr().unwrap(), CancellationToken::new());
        let setup = Setup { host, tokens, users, workspaces, limits };
        let served = tokio::spawn(serve_tls(setup, tls.clone(), listener, stop.clone()));
        tokio::spawn(follow(tls, EVERY, Hangups::listen().unwrap(), stop.clone()));
        let admin = format!("authorization: Bearer {}\r\n", new.token.expose_secret());
        Self { address, admin, stop, served, _folder: folder }
    }

    /// The value of a metric, as somebody is told who trusts this authority.
    pub(crate) async fn metric(&self, authority: &Authority, name: &str) -> Option<f64> {
        let mut peer =
            crate::peer::Peer::connect(self.address, &Arc::new(trusting(authority, None))).await.expect("TLS");
        let text = peer.ask("GET", "/metrics", &self.admin).await.expect("an answer").body;
        text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
    }

    /// Waits until a metric has this value.
    pub(crate) async fn until_metric(&self, authority: &Authority, name: &str, value: f64) {
        let reached = async {
            while self.metric(authority, name).await != Some(value) {
                tokio::time::sleep(EVERY).await;
            }
        };
        let reached = tokio::time::timeout(PATIENCE, reached).await;
        assert!(reached.is_ok(), "{name} never is {value}, but {:?}", self.metric(authority, name).await);
    }

    /// Whether somebody who trusts this authority is answered.
    pub(crate) async fn is_up(&self, authority: &Authority) -> bool {
        get(self.address, trusting(authority, None), "/healthz").await.is_ok_and(|reply| reply.status == 200)
    }
}
