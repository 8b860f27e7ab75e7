//! A domain, end to end: users of a real domain controller, machines that really join it, and nothing left behind.
//!
//! The domain controller is Samba; only the cloud is simulated.

#[path = "support/domain.rs"]
mod domain;
#[path = "../../tests/support/http.rs"]
mod http;
#[path = "../../tests/support/real.rs"]
mod real;
#[path = "../../tests/support/samba.rs"]
mod samba;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use domain::{Daemon, PATIENCE, directory, ldap_table, settle, shows};
use kasm_autoscale_core::ports::Secrets;
use kasm_autoscale_core::token::DeploymentKey;
use kasm_daemon::api::{Limits, Setup, serve_with};
use kasm_daemon::auth::{Role, TokenEntry, Tokens};
use kasm_daemon::clock::Clock;
use kasm_daemon::directories::{DirectoryRegistry, realm};
use kasm_daemon::driver::CallLimits;
use kasm_daemon::host::{Host, Registry, World};
use kasm_daemon::metrics::Metrics;
use kasm_daemon::probe::{AddressGuard, NetProber};
use kasm_daemon::store::{SqliteStore, Store};
use kasm_daemon::users::{LoginRules, Users};
use kasm_daemon::workspaces::Workspaces;
use kasm_providers::simulated::{Booted, SimulatedProvider, SimulatedSettings};
use real::wait_until;
use samba::{COMPUTERS, DOMAIN, Samba, USER_PASSWORD};
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::mpsc::Receiver;
use tokio_util::sync::CancellationToken;

const TOKEN: &str = "kasm_e2e_0123456789abcdefghijklmnopqrstuvwxyzABCDEFG";

struct NoSecrets;

impl Secrets for NoSecrets {
    fn secret(&self, _: &kasm_autoscale_core::id::SecretName) -> Option<SecretString> {
        None
    }
}

/// Host and API in this process, so that the test can be the machines.
struct Stage {
    port: u16,
    host: Arc<Host>,
    booted: Receiver<Booted>,
    stop: CancellationToken,
    _folder: tempfile::TempDir,
}

impl Stage {
    async fn new(samba: &Samba) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let store: Arc<dyn Store> = Arc::new(SqliteStore::open(&folder.path().join("pools.sqlite")).expect("a store"));
        let ad = directory(samba, store.deployment());
        let mut settings = SimulatedSettings { poll_busy: Duration::from_millis(50), ..SimulatedSettings::default() };
        settings.cloud.provision_time = Duration::from_millis(10)..=Duration::from_millis(20);
        settings.cloud.boot_time = Duration::from_millis(20)..=Duration::from_millis(40);
        settings.cloud.delete_time = Duration::from_millis(10)..=Duration::from_millis(20);
        let provider = Arc::new(SimulatedProvider::new(settings));
        let booted = provider.booted();
        let (mut providers, mut directories) = (Registry::default(), DirectoryRegistry::default());
        providers.add("cloud".parse().expect("a name"), provider);
        directories.add("corp".parse().expect("a name"), Arc::new(ad.clone()));
        let world = World {
            clock: Clock::start(),
            store: store.clone(),
            providers,
            directories,
            prober: Arc::new(NetProber::new(AddressGuard::LoopbackOnly)),
            secrets: Arc::new(NoSecrets),
            key: DeploymentKey::new([0x5a; 32]),
            metrics: Metrics::default(),
            calls: CallLimits::default(),
        };
        let clock = world.clock;
        let host = Arc::new(Host::start(world, &[]).await.expect("a host"));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let stop = CancellationToken::new();
        let entry = TokenEntry::from_token("e2e", Role::Admin, &SecretString::from(TOKEN.to_owned())).expect("a token");
        let realms = BTreeMap::from([("corp".parse().expect("a name"), realm(ad))]);
        let setup = Setup {
            host: host.clone(),
            tokens: Tokens::new(vec![entry]),
            users: Arc::new(Users::new(clock, LoginRules::default(), realms)),
            workspaces: Arc::new(Workspaces::load(store, vec![]).await.expect("workspaces")),
            limits: Limits::default(),
        };
        tokio::spawn(serve_with(setup, listener, stop.clone()));
        Self { port, host, booted, stop, _folder: folder }
    }

    fn ask(&self, token: &str, method: &str, path: &str, body: &Value) -> http::Answer {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let bearer = format!("Bearer {token}");
        let headers = [("Authorization", bearer.as_str()), ("Content-Type", "application/json")];
        http::request(self.port, method, path, &headers, &body).expect("an answer")
    }

    #[track_caller]
    fn want(&self, token: &str, status: u16, method: &str, path: &str, body: &Value) -> Value {
        let answer = self.ask(token, method, path, body);
        assert_eq!(answer.status, status, "{method} {path}: {}", answer.body);
        answer.json()
    }

    /// The next machine that has booted: its name, and the words of its startup script.
    async fn next_machine(&mut self) -> (String, Vec<String>) {
        let booted = tokio::time::timeout(PATIENCE, self.booted.recv()).await.expect("in time").expect("a machine");
        let script = booted.user_data.expect("a script").expose_secret().to_owned();
        (booted.name.to_string(), script.split('|').map(ToOwned::to_owned).collect())
    }
}

fn object(name: &str) -> String {
    format!("CN={name},{COMPUTERS}")
}

/// Log in, launch, join, connect, end: and afterwards the domain is as it was.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_user_of_the_domain_works_on_a_machine_that_has_joined_it() {
    let Some(samba) = Samba::shared() else { return };
    let mut stage = Stage::new(&samba).await;
    stage.want(TOKEN, 201, "POST", "/v1/pools", &json!({ "name": "desktops" }));
    let config = json!({
        "name": "joined", "provider": "cloud", "minimum_available_sessions": 1, "max_servers": 1,
        "connection_username": "{sso_username}", "connection_password": "{sso_cred}",
        "ad_directory": "corp", "ad_computer_ou_dn": COMPUTERS, "ad_recursive_cleanup": true,
        "server_name_pattern": "e2e-{random}", "startup_script": "{server_hostname}|{ad_join_credential}|{domain}",
    });
    stage.want(TOKEN, 201, "POST", "/v1/pools/desktops/configs", &config);
    let workspace = json!({ "name": "desk", "pool": "desktops", "sso_domain": "EXAMPLE\\" });
    stage.want(TOKEN, 201, "POST", "/v1/workspaces", &workspace);

    // The object is there before the machine is. Until the machine has joined, nobody is placed on it.
    let (name, script) = stage.next_machine().await;
    let (hostname, credential, domain) = (&script[0], &script[1], &script[2]);
    assert_eq!((hostname, domain.as_str()), (&name, DOMAIN));
    assert!(samba.show(&object(&name)).is_some() && samba.kerberos_knows(&name, credential));
    for (user, password) in [("ann", "wrong"), ("nobody", USER_PASSWORD), ("cut", USER_PASSWORD)] {
        let refused = stage.ask("", "POST", "/v1/login", &json!({ "username": user, "password": password }));
        assert_eq!((refused.status, refused.json()["error"]["code"].as_str()), (401, Some("login_refused")), "{user}");
    }
    let wish = json!({ "username": format!("ann@{DOMAIN}"), "password": USER_PASSWORD });
    let login = stage.want("", 200, "POST", "/v1/login", &wish);
    assert_eq!(login["user"], format!("ann@{DOMAIN}"));
    let ann = login["token"].as_str().expect("a token").to_owned();
    let waiting = stage.want(&ann, 202, "POST", "/v1/workspaces/desk/launch", &Value::Null);
    let session = format!("/v1/workspaces/desk/sessions/{}", waiting["id"].as_str().expect("an id"));

    // It joins as Windows does, and what it joined with is worth nothing any more.
    assert!(samba.join_with_netlogon(&name, "Wr0ng-Passw0rd-entirely", "Machines-0wn-Passw0rd").is_err());
    samba.join_with_netlogon(&name, credential, "Machines-0wn-Passw0rd").expect("it joins");
    assert!(!samba.kerberos_knows(&name, credential), "the join password still works");
    let placed = wait_until(
        || stage.ask(&ann, "GET", &format!("{session}?wait=5s"), &Value::Null).json()["state"] == "active",
        PATIENCE,
    );
    let shown = stage.want(&ann, 200, "GET", &session, &Value::Null);
    assert!(placed, "{shown}");
    let connection = &shown["connection"];
    assert_eq!((&connection["username"], &connection["password"]), (&json!("EXAMPLE\\ann"), &json!(USER_PASSWORD)));
    let again = stage.want(&ann, 200, "POST", "/v1/workspaces/desk/launch", &Value::Null);
    assert_eq!(again["id"], waiting["id"]);
    // Nothing of a user's password is with anybody else.
    for path in ["/v1/pools/desktops/sessions", "/v1/pools/desktops/events", "/v1/pools/desktops/servers", "/metrics"] {
        assert!(!stage.ask(TOKEN, "GET", path, &Value::Null).body.contains(USER_PASSWORD), "{path}");
    }

    // Used once and not reusable: the machine goes, and then its object; the next one is another.
    stage.want(&ann, 200, "DELETE", &session, &Value::Null);
    assert!(wait_until(|| samba.show(&object(&name)).is_none(), PATIENCE), "the object is still there");
    let (second, script) = stage.next_machine().await;
    assert_ne!(second, name, "a name is used once");
    samba.join_with_adcli(&second, &script[1]).expect("it joins as Linux does");
    let ready = || shows(&stage.ask(TOKEN, "GET", "/v1/pools/desktops/servers", &Value::Null).json(), "ready");
    assert!(wait_until(|| ready().contains(&second), PATIENCE), "it never is ready");

    stage.want(&ann, 204, "POST", "/v1/logout", &Value::Null);
    assert_eq!(stage.ask(&ann, "GET", &session, &Value::Null).status, 401);
    stage.want(TOKEN, 200, "POST", "/v1/pools/desktops/configs/joined/disable", &Value::Null);
    let empty = || {
        let servers = stage.ask(TOKEN, "GET", "/v1/pools/desktops/servers", &Value::Null).json();
        servers["servers"].as_array().is_some_and(Vec::is_empty)
    };
    assert!(wait_until(empty, PATIENCE), "the pool does not get empty");
    assert_eq!(samba.show(&object(&second)), None);
    stage.stop.cancel();
    stage.host.stop().await;
}

/// A config whose machines join, in a pool of its own, so that what other machines came to does not matter to it.
fn joining_pool(daemon: &Daemon, pool: &str, enabled: bool) {
    let config = json!({
        "name": "joined", "provider": "sim", "minimum_available_sessions": 3, "enabled": enabled,
        "ad_directory": "computers", "ad_computer_ou_dn": COMPUTERS, "server_name_pattern": "cr-{random}",
        "startup_script": "{ad_join_credential}",
    });
    if enabled {
        daemon.want(201, "POST", "/v1/pools", &json!({ "name": pool }));
        daemon.want(201, "POST", &format!("/v1/pools/{pool}/configs"), &config);
    } else {
        daemon.want(200, "PUT", &format!("/v1/pools/{pool}/configs/joined"), &config);
    }
}

/// The daemon's own process, killed at any moment. The simulated machines end with their process, so servers that had one end
/// too; those that were on their way go on.
#[test]
fn objects_and_servers_are_the_same_after_every_crash() {
    const KILLS: u32 = 5;
    let Some(samba) = Samba::start(samba::Certificate::Good) else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let mut daemon = Daemon::new(folder.path(), &ldap_table(&samba, "computers", false));
    daemon.start();
    let mut moment = 23_u64;
    let mut crash = |daemon: &mut Daemon| {
        moment = moment.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        std::thread::sleep(Duration::from_millis((moment >> 33) % 300));
        daemon.kill();
        daemon.start();
    };
    for kill in 1..=KILLS {
        let pool = format!("crash{kill}");
        joining_pool(&daemon, &pool, true);
        crash(&mut daemon);
        settle(&daemon, &samba, &pool, None);
        joining_pool(&daemon, &pool, false);
        crash(&mut daemon);
        settle(&daemon, &samba, &pool, Some(0));
    }
}

#[test]
fn a_domain_controller_that_is_silent_is_waited_for_and_nothing_is_left_behind() {
    let Some(samba) = Samba::start(samba::Certificate::Good) else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let mut daemon = Daemon::new(folder.path(), &ldap_table(&samba, "computers", false));
    daemon.start();
    let phase = |daemon: &Daemon, pool: &str, phase: &str| {
        shows(&daemon.ask("GET", &format!("/v1/pools/{pool}/servers"), &Value::Null).json(), phase).len()
    };

    // Silent while servers are enrolled: nothing is made, it is told why, and servers that join nothing are made all the same.
    samba.pause();
    joining_pool(&daemon, "silent", true);
    daemon.want(201, "POST", "/v1/pools", &json!({ "name": "plain" }));
    let plain = json!({ "name": "plain", "provider": "sim", "minimum_available_sessions": 1 });
    daemon.want(201, "POST", "/v1/pools/plain/configs", &plain);
    let told = || daemon.ask("GET", "/v1/pools/silent/why", &Value::Null).body.contains("directory: transient");
    assert!(wait_until(told, PATIENCE), "{}", daemon.ask("GET", "/v1/pools/silent/why", &Value::Null).body);
    assert_eq!(phase(&daemon, "silent", "starting"), 0);
    assert!(wait_until(|| phase(&daemon, "plain", "ready") == 1, PATIENCE), "{}", daemon.log());
    // Killed in the middle of it, too.
    assert!(wait_until(|| phase(&daemon, "silent", "enrolling") > 0, PATIENCE), "{}", daemon.log());
    daemon.kill();
    daemon.start();
    samba.resume();
    settle(&daemon, &samba, "silent", Some(3));

    // Silent again while everything is given up, and killed in the middle of that.
    samba.pause();
    joining_pool(&daemon, "silent", false);
    assert!(wait_until(|| phase(&daemon, "silent", "unenrolling") == 3, PATIENCE), "{}", daemon.log());
    daemon.kill();
    daemon.start();
    samba.resume();
    settle(&daemon, &samba, "silent", Some(0));
}

#[test]
fn check_online_says_what_is_missing() {
    let Some(samba) = Samba::shared() else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let check = |account: (&str, &str), ou: &str| {
        let table = domain::ldap_table_of(&samba, "computers", false, account);
        let daemon = Daemon::new(folder.path(), &table);
        daemon.append(&format!(
            "[[pool]]\nname = \"p\"\n[[pool.config]]\nname = \"c\"\nprovider = \"sim\"\nad_directory = \"computers\"\nad_computer_ou_dn = \"{ou}\"\n"
        ));
        daemon.check_online()
    };
    let (code, text) = check(samba::SERVICE, COMPUTERS);
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains(&format!("ldap.computers: ok: makes and removes computer objects in {COMPUTERS}")), "{text}");
    for (account, ou, wanted) in [
        (samba::WEAK_SERVICE, COMPUTERS, "Create Computer objects"),
        (samba::SERVICE, "OU=None,DC=example,DC=local", "there is no OU=None"),
        ((samba::SERVICE.0, "Wr0ng-Passw0rd"), COMPUTERS, "ldap.computers: error"),
    ] {
        let (code, text) = check(account, ou);
        assert_eq!(code, Some(2), "{text}");
        assert!(text.contains(wanted) && !text.contains(account.1), "{text}");
    }
}
