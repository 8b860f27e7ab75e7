//! A real host with real HTTP on loopback; only the cloud is simulated.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use kasm_autoscale_core::config::{ConfigSpec, JsonObject};
use kasm_autoscale_core::id::SecretName;
use kasm_autoscale_core::ports::Secrets;
use kasm_autoscale_core::testing::cloud::Booted;
use kasm_autoscale_core::token::DeploymentKey;
use kasm_daemon::api::{CallerLimits, Limits, ServeError, Setup, serve_with};
use kasm_daemon::auth::{Role, TokenEntry, Tokens, generate_token};
use kasm_daemon::clock::Clock;
use kasm_daemon::directories::DirectoryRegistry;
use kasm_daemon::file::DeclaredPool;
use kasm_daemon::host::{Host, Registry, World};
use kasm_daemon::metrics::Metrics;
use kasm_daemon::probe::{AddressGuard, NetProber};
use kasm_daemon::store::{SqliteStore, Store};
use kasm_daemon::users::{AuthenticateError, Authenticator, Identity, LoginRules, LoginWish, Realm, Users};
use kasm_daemon::workspaces::{Workspace, Workspaces};
use kasm_providers::simulated::{SimulatedProvider, SimulatedSettings};
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::{Mutex, mpsc};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::client::Ask;

/// The password that the host keeps under the name `rdp-password`.
pub(crate) const PASSWORD: &str = "canary-PASSWORD-7f3a\"\\<";
/// The password of every user of the domain.
pub(crate) const USER_PASSWORD: &str = "canary-OWN-4c1e\"\\<";
/// The group that ann is in.
pub(crate) const GROUP: &str = "CN=Desktop Users,OU=Groups,DC=corp,DC=example";
/// Every byte of the deployment key.
pub(crate) const KEY_BYTE: u8 = 0x5a;

struct Kept;

impl Secrets for Kept {
    fn secret(&self, name: &SecretName) -> Option<SecretString> {
        assert_ne!(name.as_str(), "panics", "on purpose");
        (name.as_str() == "rdp-password").then(|| SecretString::from(PASSWORD.to_owned()))
    }
}

/// A domain with the users ann, bob and cid.
struct Domain;

#[async_trait]
impl Authenticator for Domain {
    fn domain(&self) -> String {
        "corp.example".into()
    }

    async fn authenticate(&self, username: &str, password: &SecretString) -> Result<Identity, AuthenticateError> {
        let account = username.trim_end_matches("@corp.example").to_lowercase();
        assert_ne!(account, "panics", "on purpose");
        if account == "down" {
            return Err(AuthenticateError::Unavailable("on purpose".into()));
        }
        if !["ann", "bob", "cid"].contains(&account.as_str()) || password.expose_secret() != USER_PASSWORD {
            return Err(AuthenticateError::Refused("on purpose".into()));
        }
        let groups = if account == "ann" { vec![GROUP.to_uppercase()] } else { vec![] };
        Ok(Identity { account, groups })
    }
}

fn users(clock: Clock, rules: LoginRules) -> Arc<Users> {
    let realm = |enabled| Realm { authenticator: Arc::new(Domain), enabled, calls: 4 };
    let realms = [("corp", realm(true)), ("computers", realm(false))];
    let realms = realms.map(|(name, realm)| (name.parse().expect("a name"), realm));
    Arc::new(Users::new(clock, rules, realms.into()))
}

/// Everything one test needs, and nothing it shares with another.
pub(crate) struct Stage {
    pub(crate) host: Arc<Host>,
    pub(crate) address: SocketAddr,
    pub(crate) tokens: BTreeMap<Role, String>,
    pub(crate) users: Arc<Users>,
    pub(crate) workspaces: Arc<Workspaces>,
    pub(crate) provider: Arc<SimulatedProvider>,
    pub(crate) booted: Mutex<mpsc::Receiver<Booted>>,
    pub(crate) stop: CancellationToken,
    pub(crate) served: JoinHandle<Result<(), ServeError>>,
    lasting: Lasting,
}

/// What outlives a restart.
struct Lasting {
    provider: Arc<SimulatedProvider>,
    folder: tempfile::TempDir,
    tokens: Tokens,
    texts: BTreeMap<Role, String>,
    limits: Limits,
    rules: LoginRules,
}

pub(crate) fn object(value: Value) -> JsonObject {
    value.as_object().unwrap().clone()
}

/// A config that makes machines at once.
pub(crate) fn config(name: &str, changes: Value) -> Value {
    let mut config = object(json!({ "name": name, "provider": "cloud", "max_servers": 1 }));
    config.extend(object(changes));
    config.into()
}

async fn host(provider: &Arc<SimulatedProvider>, store: Arc<dyn Store>) -> Arc<Host> {
    let mut providers = Registry::default();
    providers.add("cloud".parse().unwrap(), provider.clone());
    let world = World {
        clock: Clock::start(),
        store,
        providers,
        directories: DirectoryRegistry::default(),
        prober: Arc::new(NetProber::new(AddressGuard::LoopbackOnly)),
        secrets: Arc::new(Kept),
        key: DeploymentKey::new([KEY_BYTE; 32]),
        metrics: Metrics::default(),
        calls: kasm_daemon::driver::CallLimits::default(),
    };
    // What the config file would say.
    let stone = ConfigSpec::from_json(&object(config("stone", json!({ "max_servers": 0 })))).unwrap();
    let declared = DeclaredPool {
        name: "filed".parse().expect("a name"),
        settings: object(json!({ "name": "filed" })),
        configs: vec![stone],
        config_places: vec![],
    };
    Arc::new(Host::start(world, &[declared]).await.unwrap())
}

/// A store as it is.
fn kept(store: SqliteStore) -> Arc<SqliteStore> {
    Arc::new(store)
}

fn quick() -> Arc<SimulatedProvider> {
    let millis = |from, to| Duration::from_millis(from)..=Duration::from_millis(to);
    let mut settings = SimulatedSettings { poll_busy: Duration::from_millis(20), ..SimulatedSettings::default() };
    settings.cloud.provision_time = millis(10, 20);
    settings.cloud.boot_time = millis(20, 40);
    settings.cloud.delete_time = millis(10, 20);
    Arc::new(SimulatedProvider::new(settings))
}

impl Stage {
    /// One who may be asked as often as a test likes.
    pub(crate) async fn new() -> Self {
        Self::with(Limits { callers: CallerLimits::NONE, ..Limits::default() }).await
    }

    pub(crate) async fn with(limits: Limits) -> Self {
        let (tokens, texts) = Self::drawn();
        Self::guarded(tokens, texts, limits).await
    }

    /// A token for every role.
    fn drawn() -> (Tokens, BTreeMap<Role, String>) {
        let mut texts = BTreeMap::new();
        let mut entries = vec![];
        for role in Role::OF_TOKENS {
            let new = generate_token(role.as_str()).unwrap();
            entries.push(TokenEntry::from_sha256(role.as_str(), role, &new.sha256).unwrap());
            texts.insert(role, new.token.expose_secret().to_owned());
        }
        (Tokens::new(entries), texts)
    }

    pub(crate) async fn guarded(tokens: Tokens, texts: BTreeMap<Role, String>, limits: Limits) -> Self {
        let rules = LoginRules { failure_delay: Duration::ZERO, ..LoginRules::default() };
        Self::ruled(tokens, texts, limits, rules).await
    }

    /// With one more token than is given: that of ann, who is a user.
    pub(crate) async fn ruled(
        tokens: Tokens,
        texts: BTreeMap<Role, String>,
        limits: Limits,
        rules: LoginRules,
    ) -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self::raised(Lasting { provider: quick(), folder, tokens, texts, limits, rules }, kept).await
    }

    /// With its store in another one.
    pub(crate) async fn stored<S: Store + 'static>(wrap: impl FnOnce(SqliteStore) -> Arc<S>) -> Self {
        let (tokens, texts) = Self::drawn();
        let folder = tempfile::tempdir().unwrap();
        let rules = LoginRules { failure_delay: Duration::ZERO, ..LoginRules::default() };
        let lasting = Lasting { provider: quick(), folder, tokens, texts, limits: Limits::default(), rules };
        Self::raised(lasting, wrap).await
    }

    async fn raised<S: Store + 'static>(lasting: Lasting, wrap: impl FnOnce(SqliteStore) -> Arc<S>) -> Self {
        let (provider, limits, rules) = (lasting.provider.clone(), lasting.limits, lasting.rules);
        let (tokens, mut texts) = (lasting.tokens.clone(), lasting.texts.clone());
        let booted = Mutex::new(provider.booted());
        let store = SqliteStore::open(&lasting.folder.path().join("pools.sqlite")).unwrap();
        let host = host(&provider, wrap(store)).await;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let users = users(host.world().clock, rules);
        // What the config file would say.
        let filed =
            Workspace::from_json(&object(json!({ "name": "filed", "pool": "filed", "enabled": false }))).unwrap();
        let workspaces = Arc::new(Workspaces::load(host.world().store.clone(), vec![filed]).await.unwrap());
        let setup = Setup { host: host.clone(), tokens, users: users.clone(), workspaces: workspaces.clone(), limits };
        let served = tokio::spawn(serve_with(setup, listener, stop.clone()));
        let wish = LoginWish {
            ldap: None,
            username: "ann".into(),
            password: SecretString::from(USER_PASSWORD.to_owned()),
            address: None,
        };
        let (token, _) = users.log_in(wish).await.unwrap();
        texts.insert(Role::User, token.expose_secret().to_owned());
        Self { host, address, tokens: texts, users, workspaces, provider, booted, stop, served, lasting }
    }

    /// Stops the host, changes its store, and starts another one on it with the same cloud. Users log in anew.
    pub(crate) async fn restarted(self, change: impl FnOnce(&rusqlite::Connection)) -> Self {
        self.stop.cancel();
        self.served.await.unwrap().unwrap();
        self.host.stop().await;
        drop((self.host, self.workspaces));
        let path = self.lasting.folder.path().join("pools.sqlite");
        // The store's own thread closes it.
        for _ in 0..100 {
            let connection = rusqlite::Connection::open(&path).unwrap();
            if connection.query_row("SELECT count(*) FROM rows", [], |_| Ok(())).is_ok() {
                change(&connection);
                drop(connection);
                return Self::raised(self.lasting, kept).await;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("the store is never closed");
    }

    /// A wish to log in.
    pub(crate) fn login(&self, username: &str, password: &str) -> Ask {
        self.bare("POST", "/v1/login").json(&json!({ "username": username, "password": password }))
    }

    /// A request of a user's, with a login of its own.
    pub(crate) async fn as_user(&self, user: &str, method: &str, path: &str) -> Ask {
        let login = self.login(user, USER_PASSWORD).send().await.expect(200);
        self.bare(method, path).header("authorization", &format!("Bearer {}", login["token"].as_str().unwrap()))
    }

    /// A request without a token.
    pub(crate) fn bare(&self, method: &str, path: &str) -> Ask {
        Ask { address: self.address, method: method.into(), path: path.into(), headers: vec![], body: None }
    }

    /// A request with the token of this role.
    pub(crate) fn as_role(&self, role: Role, method: &str, path: &str) -> Ask {
        self.bare(method, path).header("authorization", &format!("Bearer {}", self.tokens[&role]))
    }

    pub(crate) fn admin(&self, method: &str, path: &str) -> Ask {
        self.as_role(Role::Admin, method, path)
    }

    /// A pool with a config, and the first server of it when it is ready.
    pub(crate) async fn pool_with(&self, pool: &str, config: Value) -> Value {
        self.admin("POST", "/v1/pools").json(&json!({ "name": pool })).send().await.expect(201);
        self.admin("POST", &format!("/v1/pools/{pool}/configs")).json(&config).send().await.expect(201);
        self.until(&format!("/v1/pools/{pool}/servers?phase=ready"), |list| list["servers"].get(0).cloned()).await
    }

    /// Asks until the answer is as wished.
    pub(crate) async fn until<T>(&self, path: &str, wished: impl Fn(&Value) -> Option<T>) -> T {
        let mut last = Value::Null;
        for _ in 0..400 {
            last = self.admin("GET", path).send().await.json();
            if let Some(found) = wished(&last) {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("{path} never was as wished; last: {last:#}");
    }

    /// The check-in token that the next machine was booted with.
    pub(crate) async fn next_checkin_token(&self) -> String {
        let booted = tokio::time::timeout(Duration::from_secs(20), async { self.booted.lock().await.recv().await })
            .await
            .unwrap()
            .unwrap();
        booted.user_data.unwrap().expose_secret().split('\'').nth(1).unwrap().to_owned()
    }
}
