//! The whole story, with a real machine: a user logs in with the password of a real domain and launches a workspace; a
//! computer object is made, a virtual machine boots with the rendered script and joins the domain by itself; a real RDP
//! client logs in to it as that user; the session ends, and machine and object are gone.
//!
//! Everything runs in a network namespace of its own, where there is nothing but a loopback interface. It takes the image that
//! `tests/story/image.sh` builds, so it is not part of `cargo test`: `make story` runs it.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::io::{BufRead, BufReader};
use std::net::Ipv4Addr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use kasm_ad::{ActiveDirectory, LdapSettings};
use kasm_autoscale_core::config::{ConfigSpec, JsonObject};
use kasm_autoscale_core::fields::Fields;
use kasm_autoscale_core::ports::Directory;
use kasm_autoscale_core::token::DeploymentKey;
use kasm_daemon::api::{Limits, Setup, serve_with};
use kasm_daemon::auth::Tokens;
use kasm_daemon::clock::Clock;
use kasm_daemon::directories::{DirectoryRegistry, realm};
use kasm_daemon::driver::CallLimits;
use kasm_daemon::file::DeclaredPool;
use kasm_daemon::host::{Host, Registry, World};
use kasm_daemon::metrics::Metrics;
use kasm_daemon::probe::{AddressGuard, NetProber};
use kasm_daemon::secrets::{Environment, SecretStore};
use kasm_daemon::store::{SqliteStore, Store};
use kasm_daemon::users::{LoginRules, Users};
use kasm_daemon::workspaces::{Workspace, Workspaces};
use secrecy::SecretString;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

#[path = "../../../tests/support/http.rs"]
mod http;
mod qemu;
#[path = "../../../tests/support/real.rs"]
mod real;
#[path = "../../../tests/support/samba.rs"]
mod samba;

use qemu::Qemu;
use real::wait_until;
use samba::{COMPUTERS, Certificate, DOMAIN, PEOPLE, SERVICE, Samba, USER_PASSWORD};

/// Emulated machines are slow, and this one may have to share its processor.
const PATIENCE: Duration = Duration::from_secs(300);
/// Set in the process that runs inside of the namespace.
const INSIDE: &str = "KASM_STORY_INSIDE";
const TEST: &str = "a_user_gets_a_desktop_on_a_machine_that_has_joined_by_itself";

#[test]
fn a_user_gets_a_desktop_on_a_machine_that_has_joined_by_itself() {
    if env::var_os(INSIDE).is_none() {
        return in_a_namespace();
    }
    let folder = tempfile::tempdir().expect("a folder");
    let samba = Samba::start_at(Ipv4Addr::LOCALHOST, Certificate::Good).expect("Samba is installed: `make tools`");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let daemon = runtime.block_on(Daemon::start(&samba, folder.path()));

    let login = daemon.ask("POST", "/v1/login", None, &json!({ "username": "ann", "password": USER_PASSWORD }), 200);
    let token = login["token"].as_str().expect("a token").to_owned();
    let user = Some(token.as_str());
    let workspaces = daemon.ask("GET", "/v1/workspaces", user, &Value::Null, 200);
    assert_eq!(workspaces["workspaces"][0]["friendly_name"], "A desktop of one's own");
    let launched = daemon.ask("POST", "/v1/workspaces/desk/launch", user, &json!({}), 202);
    let path = format!("/v1/workspaces/desk/sessions/{}", launched["id"].as_str().expect("an id"));
    say("launched; the pool makes a server");

    let mut session = Value::Null;
    let placed = wait_until(
        || {
            session = daemon.ask("GET", &path, user, &Value::Null, 200);
            session["state"] == "active"
        },
        PATIENCE,
    );
    assert!(placed, "{session:#}\n{}\n{}", daemon.why(), daemon.qemu.consoles());
    assert!(daemon.qemu.consoles().contains(&format!("story: joined {DOMAIN} as ")), "{}", daemon.qemu.consoles());
    assert_eq!((daemon.qemu.running(), runtime.block_on(daemon.computers())), (1, 1));
    say("the machine has joined the domain and checked in; the session is on it");

    let connection = &session["connection"];
    assert_eq!((&connection["username"], &connection["password"]), (&json!("ann"), &json!(USER_PASSWORD)));
    let at = format!("{}:{}", connection["host"].as_str().expect("a host"), connection["port"]);
    let client = Client::connect(&at, "ann", USER_PASSWORD);
    let shown = wait_until(|| daemon.qemu.consoles().contains("story: desktop of ann"), PATIENCE);
    assert!(shown, "{}\n{}", client.output(), daemon.qemu.consoles());
    drop(client);
    say("a real RDP client has logged in as the user of the domain");

    daemon.ask("DELETE", &path, user, &Value::Null, 200);
    let gone = wait_until(|| daemon.qemu.running() == 0 && runtime.block_on(daemon.computers()) == 0, PATIENCE);
    assert!(gone, "{}", daemon.why());
    let left = wait_until(|| daemon.servers() == 0, PATIENCE);
    assert!(left, "{}", daemon.why());
    say("the session has ended; machine and computer object are gone");
    runtime.block_on(daemon.stop());
}

#[expect(clippy::print_stdout, reason = "who runs the story wants to see how it goes")]
fn say(what: &str) {
    println!("story: {what}");
}

/// Runs this test once more where there is no network but a loopback interface.
fn in_a_namespace() {
    let is_root = fs::metadata("/proc/self").expect("/proc is there").uid() == 0;
    let this = env::current_exe().expect("this program has a file");
    let inner = format!("ip link set lo up && exec '{}' --exact {TEST} --nocapture", this.display());
    let mut command = Command::new("unshare");
    command.arg(if is_root { "-n" } else { "-Urn" }).args(["sh", "-c", &inner]).env(INSIDE, "1");
    assert!(command.status().expect("unshare is there: package util-linux").success(), "the story has failed");
}

fn object(value: Value) -> JsonObject {
    value.as_object().expect("an object").clone()
}

/// The daemon's own parts, put together as `kasm-daemon run` does, with a provider of this test's.
struct Daemon {
    host: Arc<Host>,
    qemu: Arc<Qemu>,
    computers: ActiveDirectory,
    port: u16,
    stop: CancellationToken,
}

impl Daemon {
    async fn start(samba: &Samba, folder: &Path) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let machines = folder.join("machines");
        fs::create_dir(&machines).expect("a folder");
        let qemu = Arc::new(Qemu::new(&image(), &machines));
        let store: Arc<dyn Store> = Arc::new(SqliteStore::open(&folder.join("pools.sqlite")).expect("a store"));
        let ldap = |settings: Value| {
            let common = object(json!({ "url": samba.url(), "ca_file": samba.ca_file(), "bind_dn": SERVICE.0 }));
            let settings: JsonObject = common.into_iter().chain(object(settings)).collect();
            let mut fields = Fields::new(&settings);
            let read = LdapSettings::read(&mut fields, SecretString::from(SERVICE.1));
            let problems = fields.finish();
            ActiveDirectory::new(read.unwrap_or_else(|| panic!("{problems:?}")), store.deployment()).expect("settings")
        };
        let computers = ldap(json!({ "search_base": COMPUTERS, "enabled": false }));
        let people = ldap(json!({ "search_base": PEOPLE }));

        let mut providers = Registry::default();
        providers.add("qemu".parse().expect("a name"), qemu.clone());
        let mut directories = DirectoryRegistry::default();
        directories.add("computers".parse().expect("a name"), Arc::new(computers.clone()));
        let clock = Clock::start();
        let world = World {
            clock,
            store: store.clone(),
            providers,
            directories,
            prober: Arc::new(NetProber::new(AddressGuard::LoopbackOnly)),
            secrets: Arc::new(SecretStore::resolve(&BTreeMap::new(), &Environment::of_process()).0),
            key: DeploymentKey::new([7; 32]),
            metrics: Metrics::default(),
            calls: CallLimits::default(),
        };
        let host = Arc::new(Host::start(world, &[pool(port)]).await.expect("a host"));
        let realms = BTreeMap::from([("people".parse().expect("a name"), realm(people))]);
        let desk = json!({ "name": "desk", "pool": "desktops", "friendly_name": "A desktop of one's own", "sso_domain": "localhost" });
        let desk = Workspace::from_json(&object(desk)).expect("a workspace");
        let setup = Setup {
            host: host.clone(),
            tokens: Tokens::none(),
            users: Arc::new(Users::new(clock, LoginRules::default(), realms)),
            workspaces: Arc::new(Workspaces::load(store, vec![desk]).await.expect("workspaces")),
            limits: Limits::default(),
        };
        let stop = CancellationToken::new();
        tokio::spawn(serve_with(setup, listener, stop.clone()));
        Self { host, qemu, computers, port, stop }
    }

    /// Asks the API, and checks the status of its answer.
    fn ask(&self, method: &str, path: &str, token: Option<&str>, body: &Value, status: u16) -> Value {
        let bearer = token.map(|token| format!("Bearer {token}"));
        let mut headers = vec![("Content-Type", "application/json")];
        headers.extend(bearer.as_deref().map(|bearer| ("Authorization", bearer)));
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let answer = http::request(self.port, method, path, &headers, &body).expect("an answer");
        assert_eq!(answer.status, status, "{method} {path}: {}", answer.body);
        answer.json()
    }

    /// Why the pool does what it does, for messages.
    fn why(&self) -> String {
        format!("{:#}", self.ask("GET", "/v1/pools/desktops/why", None, &Value::Null, 200))
    }

    fn servers(&self) -> usize {
        let servers = self.ask("GET", "/v1/pools/desktops/servers", None, &Value::Null, 200);
        servers["servers"].as_array().expect("a list").len()
    }

    /// How many computer objects of the pool there are.
    async fn computers(&self) -> usize {
        let pool = self.host.pool("desktops").expect("the pool").id();
        self.computers.list_computers(&pool).await.expect("the domain answers").computers.len()
    }

    async fn stop(&self) {
        self.stop.cancel();
        self.host.stop().await;
    }
}

/// Where `tests/story/image.sh` has put the machine.
fn image() -> PathBuf {
    let folder =
        env::var_os("KASM_STORY_IMAGE").expect("KASM_STORY_IMAGE names the image's folder: `make story` sets it");
    PathBuf::from(folder)
}

fn pool(port: u16) -> DeclaredPool {
    let config = json!({
        "name": "office",
        "provider": "qemu",
        "connection_type": "rdp",
        "connection_username": "{sso_username}",
        "connection_password": "{sso_cred}",
        "max_servers": 1,
        "require_checkin": true,
        "boot_deadline": "10m",
        "ad_directory": "computers",
        "ad_computer_ou_dn": COMPUTERS,
        "upstream_auth_address": format!("10.0.2.2:{port}"),
        "startup_script": include_str!("startup.sh"),
    });
    let config = ConfigSpec::from_json(&object(config)).unwrap_or_else(|invalid| panic!("{invalid}"));
    DeclaredPool {
        name: "desktops".parse().expect("a name"),
        settings: object(json!({ "name": "desktops" })),
        configs: vec![config],
        config_places: vec![],
    }
}

/// A FreeRDP client on a screen that nobody sees.
struct Client {
    screen: Child,
    client: Child,
    log: tempfile::NamedTempFile,
}

impl Client {
    fn connect(to: &str, user: &str, password: &str) -> Self {
        let mut screen = Command::new("Xvfb");
        screen.args(["-displayfd", "1", "-screen", "0", "1024x768x24", "-nolisten", "tcp"]);
        let screen = screen.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
        let mut screen = screen.expect("Xvfb is there: `make tools`");
        let mut display = String::new();
        let mut output = BufReader::new(screen.stdout.take().expect("a pipe"));
        output.read_line(&mut display).expect("Xvfb says which display it is");
        let log = tempfile::NamedTempFile::new().expect("a file");
        let mut client = Command::new("xfreerdp");
        // The machine's certificate is its own: nobody has vouched for it, as for a stock Windows.
        client.args([&format!("/v:{to}"), &format!("/u:{user}"), &format!("/p:{password}")]);
        client.args(["/cert:ignore", "/sec:tls", "/size:800x600"]).env("DISPLAY", format!(":{}", display.trim()));
        let copies = (log.reopen().expect("a file"), log.reopen().expect("a file"));
        let client = client.stdin(Stdio::null()).stdout(copies.0).stderr(copies.1).spawn();
        Self { screen, client: client.expect("xfreerdp is there: `make tools`"), log }
    }

    fn output(&self) -> String {
        fs::read_to_string(self.log.path()).unwrap_or_default()
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        for child in [&mut self.client, &mut self.screen] {
            // One that has ended already needs no ending.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
