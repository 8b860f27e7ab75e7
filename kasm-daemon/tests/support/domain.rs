//! A daemon of its own process with a domain, for tests that kill it.

#![allow(dead_code, reason = "each test uses its own part of this")]

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use kasm_ad::ActiveDirectory;
use kasm_autoscale_core::id::{DeploymentId, PoolId};
use kasm_autoscale_core::ports::Directory;
use kasm_daemon::directories;
use kasm_daemon::file::{LdapConfig, Place};
use kasm_daemon::secrets::{Environment, SecretSource};
use kasm_daemon::store::{SqliteStore, Store};
use serde_json::{Value, json};

use crate::http;
use crate::real::{free_port, wait_until};
use crate::samba::{BASE, SERVICE, Samba};

const TOKEN: &str = "kasm_e2e_0123456789abcdefghijklmnopqrstuvwxyzABCDEFG";
/// Long enough for a slow machine, and over at once when it has happened.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// The domain as the daemon is told of it.
pub(crate) fn directory(samba: &Samba, deployment: DeploymentId) -> ActiveDirectory {
    let settings = json!({
        "url": samba.url(), "bind_dn": SERVICE.0, "search_base": BASE, "ca_file": samba.ca_file(),
        "visibility_lag": "1s", "poll_busy": "500ms", "poll_idle": "2s",
    });
    let config = LdapConfig {
        place: Place { file: Path::new("test").into(), line: 1, column: 1 },
        settings: settings.as_object().expect("an object").clone(),
        bind_password: SecretSource::Env("BIND".into()),
    };
    directories::build(&config, deployment, &Environment::of([("BIND", SERVICE.1)])).expect("sound settings")
}

/// The domain as a table of the config file.
pub(crate) fn ldap_table(samba: &Samba, name: &str, enabled: bool) -> String {
    ldap_table_of(samba, name, enabled, SERVICE)
}

/// The same with another account.
pub(crate) fn ldap_table_of(samba: &Samba, name: &str, enabled: bool, account: (&str, &str)) -> String {
    let password = samba.folder().join(format!("{}.password", account.1));
    fs::write(&password, account.1).expect("a file");
    let private = Command::new("chmod").arg("600").arg(&password).status();
    assert!(private.is_ok_and(|status| status.success()));
    format!(
        "[ldap.{name}]\nenabled = {enabled}\nurl = \"{}\"\nca_file = \"{}\"\nbind_dn = \"{}\"\n\
         bind_password = {{ file = \"{}\" }}\nsearch_base = \"{BASE}\"\ntimeout = \"2s\"\ncall_timeout = \"5s\"\n\
         visibility_lag = \"1s\"\npoll_busy = \"500ms\"\npoll_idle = \"2s\"\n",
        samba.url(),
        samba.ca_file().display(),
        account.0,
        password.display(),
    )
}

/// A daemon that can be killed and started again on the same store.
pub(crate) struct Daemon {
    port: u16,
    folder: PathBuf,
    /// The installation that its store was made for.
    deployment: DeploymentId,
    child: Option<Child>,
}

impl Daemon {
    /// Its file, with a simulated provider and these tables.
    pub(crate) fn new(folder: &Path, tables: &str) -> Self {
        let port = free_port();
        let text = format!(
            "listen = \"127.0.0.1:{port}\"\ndeployment_key = {{ env = \"KASM_E2E_KEY\" }}\n[store]\npath = \"pools.sqlite\"\n\
             [[token]]\nname = \"e2e\"\nrole = \"admin\"\nsecret = {{ env = \"KASM_E2E_TOKEN\" }}\n\
             [provider.sim]\nkind = \"simulated\"\nprovision_time_min = \"10ms\"\nprovision_time_max = \"50ms\"\n\
             boot_time_min = \"10ms\"\nboot_time_max = \"50ms\"\n{tables}\n"
        );
        fs::write(folder.join("kasm.toml"), text).expect("the config file is written");
        // The daemon finds a store that is there already.
        let store = SqliteStore::open(&folder.join("pools.sqlite")).expect("a store");
        Self { port, folder: folder.into(), deployment: store.deployment(), child: None }
    }

    /// Adds to its file.
    pub(crate) fn append(&self, tables: &str) {
        let mut file =
            fs::OpenOptions::new().append(true).open(self.folder.join("kasm.toml")).expect("the config file");
        file.write_all(tables.as_bytes()).expect("the config file is written");
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_kasm-daemon"));
        command.args(arguments).arg("--config").arg(self.folder.join("kasm.toml"));
        command.env("KASM_E2E_KEY", "5a".repeat(32)).env("KASM_E2E_TOKEN", TOKEN).stdin(Stdio::null());
        command
    }

    /// What `check --online` ends with, and says.
    pub(crate) fn check_online(&self) -> (Option<i32>, String) {
        let output = self.command(&["check", "--online"]).output().expect("it runs");
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    }

    /// Starts it, and waits until it answers.
    pub(crate) fn start(&mut self) {
        let log = fs::OpenOptions::new().create(true).append(true).open(self.folder.join("daemon.log")).expect("a log");
        let mut command = self.command(&["run"]);
        command.stdout(log.try_clone().expect("a log")).stderr(log);
        self.child = Some(command.spawn().expect("the daemon starts"));
        let up = wait_until(
            || http::request(self.port, "GET", "/healthz", &[], "").is_ok_and(|answer| answer.status == 200),
            PATIENCE,
        );
        assert!(up, "the daemon does not come up: {}", self.log());
    }

    /// `kill -9`: no chance to write anything.
    pub(crate) fn kill(&mut self) {
        let mut child = self.child.take().expect("it runs");
        child.kill().expect("it is killed");
        child.wait().expect("it is gone");
    }

    /// Everything it has logged.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.folder.join("daemon.log")).unwrap_or_default()
    }

    /// Asks it something.
    pub(crate) fn ask(&self, method: &str, path: &str, body: &Value) -> http::Answer {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let bearer = format!("Bearer {TOKEN}");
        let headers = [("Authorization", bearer.as_str()), ("Content-Type", "application/json")];
        http::request(self.port, method, path, &headers, &body)
            .unwrap_or_else(|error| panic!("{method} {path}: {error}; {}", self.log()))
    }

    /// Asks it something that is to be answered like this.
    #[track_caller]
    pub(crate) fn want(&self, status: u16, method: &str, path: &str, body: &Value) -> Value {
        let answer = self.ask(method, path, body);
        assert_eq!(answer.status, status, "{method} {path}: {}", answer.body);
        answer.json()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // It may have ended by itself.
            drop(child.kill());
            drop(child.wait());
        }
    }
}

/// The names of the servers in this phase.
pub(crate) fn shows(list: &Value, phase: &str) -> Vec<String> {
    let servers = list["servers"].as_array().into_iter().flatten().filter(|server| server["phase"] == phase);
    servers.filter_map(|server| server["name"].as_str().map(ToOwned::to_owned)).collect()
}

/// The names of the computer objects that bear the mark of this pool, as the domain shows them.
pub(crate) fn marked(daemon: &Daemon, samba: &Samba, pool: &str) -> Vec<String> {
    let view = daemon.want(200, "GET", &format!("/v1/pools/{pool}"), &Value::Null);
    let id: PoolId = view["id"].as_str().and_then(|id| id.parse().ok()).expect("a pool's id");
    let directory = directory(samba, daemon.deployment);
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let listing = runtime.block_on(directory.list_computers(&id)).expect("a listing");
    assert!(listing.complete);
    let mut names: Vec<String> = listing.computers.into_iter().map(|seen| seen.name).collect();
    names.sort();
    names
}

/// Waits until the pool has so many servers, if that is said, all with machines that run or wait to join, and the domain shows
/// exactly their objects.
#[track_caller]
pub(crate) fn settle(daemon: &Daemon, samba: &Samba, pool: &str, count: Option<usize>) {
    let names = || -> Option<BTreeSet<String>> {
        let list = daemon.ask("GET", &format!("/v1/pools/{pool}/servers?limit=1000"), &Value::Null).json();
        let all = list["servers"].as_array()?;
        let live = all.iter().all(|server| server["phase"] == "starting" || server["phase"] == "ready");
        live.then(|| all.iter().filter_map(|server| server["name"].as_str().map(str::to_lowercase)).collect())
    };
    let mut last = (None, vec![]);
    let settled = wait_until(
        || {
            let Some(servers) = names().filter(|names| count.is_none_or(|count| names.len() == count)) else {
                return false;
            };
            let objects = marked(daemon, samba, pool);
            let same = objects.iter().map(|name| name.to_lowercase()).collect::<BTreeSet<_>>() == servers;
            last = (Some(servers), objects);
            same
        },
        PATIENCE,
    );
    assert!(
        settled,
        "{count:?} wanted; {last:?}; {}; {}",
        daemon.ask("GET", &format!("/v1/pools/{pool}/servers"), &Value::Null).body,
        daemon.log()
    );
}
