//! What an operator asks for: pools and their autoscale configs, checked once, then trusted.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;
use core::fmt;
use core::num::NonZeroU32;
use core::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use thiserror::Error;

mod bounded;
mod domain;
mod names;

use crate::backoff::Fates;
use crate::fields::{Fields, shown};
pub use crate::fields::{JsonObject, Problem};
use crate::id::{ConfigName, DeploymentId, PoolId, PoolName, ProviderName, SecretName, ZoneName};
use crate::script::{Script, Variable};
use crate::time::Span;
pub use domain::DomainJoin;
pub use names::{InvalidPattern, NUMBER, NamePattern, RANDOM};

const SECOND: Duration = Duration::from_secs(1);
const DAY: Duration = Duration::from_secs(86_400);

/// Every mistake in a pool or config that was refused. Nothing was changed.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[error("{}", list(.problems))]
pub struct Invalid {
    /// At least one.
    pub problems: Vec<Problem>,
}

fn list(problems: &[Problem]) -> String {
    problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

/// How a server is chosen for a session, among the servers of the user's zone that have a free slot.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum PlacementPolicy {
    /// The server with the fewest sessions: users are distributed evenly.
    #[default]
    Spread,
    /// The server with the fewest free slots: fewer servers, lower cost.
    Pack,
}

/// A pool: a set of servers that users are assigned to.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct PoolSpec {
    /// The installation, as it is written on every machine.
    pub deployment: DeploymentId,
    /// The pool, for ever.
    pub id: PoolId,
    /// The name people use.
    pub name: PoolName,
    /// How a server is chosen.
    pub placement: PlacementPolicy,
    /// How long a session request may wait for a free session before it expires.
    pub queue_deadline: Duration,
    /// How many session requests may wait at once; one more is refused.
    pub queue_max: u32,
    /// How long after its last keep-alive a session ends by itself.
    pub keepalive_expiry: Duration,
}

impl PoolSpec {
    /// A pool with default settings: spread, requests wait 10 minutes, 10,000 of them at most, sessions live for an hour
    /// after their last keep-alive.
    pub fn new(deployment: DeploymentId, id: PoolId, name: PoolName) -> Self {
        Self {
            deployment,
            id,
            name,
            placement: PlacementPolicy::Spread,
            queue_deadline: Duration::from_secs(600),
            queue_max: 10_000,
            keepalive_expiry: Duration::from_secs(3600),
        }
    }

    /// Reads the settings of a pool from an object with the fields `name`, `type` (`server`), `placement` (`spread` or `pack`),
    /// `queue_deadline` (1 s to 1 d), `queue_max` (0 to 1,000,000) and `keepalive_expiry` (10 s to 30 d).
    ///
    /// # Errors
    /// [`Invalid`] with all mistakes.
    pub fn from_json(deployment: DeploymentId, id: PoolId, object: &JsonObject) -> Result<Self, Invalid> {
        let mut fields = Fields::new(object);
        let name: Option<PoolName> = fields.name("name");
        let name = fields.require("name", name, "the pool's name");
        fields.choice("type", &[("server", ())]);
        let placement =
            fields.choice("placement", &[("spread", PlacementPolicy::Spread), ("pack", PlacementPolicy::Pack)]);
        let queue_deadline = fields.span("queue_deadline", SECOND..=DAY);
        let queue_max = fields.integer("queue_max", 0..=1_000_000);
        let keepalive_expiry = fields.span("keepalive_expiry", 10 * SECOND..=30 * DAY);
        match (name, fields.finish()) {
            (Some(name), problems) if problems.is_empty() => {
                let defaults = Self::new(deployment, id, name);
                Ok(Self {
                    placement: placement.unwrap_or_default(),
                    queue_deadline: queue_deadline.unwrap_or(defaults.queue_deadline),
                    queue_max: queue_max.unwrap_or(defaults.queue_max),
                    keepalive_expiry: keepalive_expiry.unwrap_or(defaults.keepalive_expiry),
                    ..defaults
                })
            }
            (_, problems) => Err(Invalid { problems }),
        }
    }

    /// The settings as [`from_json`](Self::from_json) reads them.
    pub fn to_json(&self) -> Value {
        json!({
            "name": self.name,
            "type": "server",
            "placement": self.placement,
            "queue_deadline": Span(self.queue_deadline).to_string(),
            "queue_max": self.queue_max,
            "keepalive_expiry": Span(self.keepalive_expiry).to_string(),
        })
    }
}

/// How users are connected to a server.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ConnectionType {
    /// Remote Desktop Protocol, port 3389.
    Rdp,
    /// Remote Framebuffer, port 5901.
    Vnc,
    /// Secure Shell, port 22.
    Ssh,
    /// KasmVNC, port 6901.
    KasmVnc,
}

impl ConnectionType {
    const CHOICES: [(&'static str, Self); 4] =
        [("rdp", Self::Rdp), ("vnc", Self::Vnc), ("ssh", Self::Ssh), ("kasmvnc", Self::KasmVnc)];

    /// The port where this protocol is found unless a config says otherwise.
    pub const fn default_port(self) -> u16 {
        match self {
            Self::Rdp => 3389,
            Self::Vnc => 5901,
            Self::Ssh => 22,
            Self::KasmVnc => 6901,
        }
    }

    /// The word used in configs and the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Rdp => "rdp",
            Self::Vnc => "vnc",
            Self::Ssh => "ssh",
            Self::KasmVnc => "kasmvnc",
        }
    }
}

impl fmt::Display for ConnectionType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The password users are connected with. A password itself is never part of a config.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum ConnectionPassword {
    /// None is kept: the user is asked.
    Prompt,
    /// `{sso_cred}`: the user's own, passed on by single sign-on.
    SsoCred,
    /// One password for all, which the host finds under this name.
    Secret(SecretName),
}

/// How users are connected to the servers of a config.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Connection {
    /// The protocol.
    pub kind: ConnectionType,
    /// The port.
    pub port: u16,
    /// The address to use in place of the machine's own, for NAT and labs.
    pub address: Option<String>,
    /// The user name; `{sso_username}` in it stands for the session's user. `None`: the user is asked.
    pub username: Option<String>,
    /// The password.
    pub password: ConnectionPassword,
    /// Free settings handed to the client, as for RemoteApp.
    pub info: JsonObject,
}

impl Connection {
    /// Whether users log in with their own name and password.
    pub fn is_single_sign_on(&self) -> bool {
        self.password == ConnectionPassword::SsoCred
            && self.username.as_ref().is_some_and(|name| name.contains(SSO_USERNAME))
    }
}

/// The placeholder for the session's user in a connection username.
pub const SSO_USERNAME: &str = "{sso_username}";
/// The placeholder for the user's own password.
pub const SSO_CRED: &str = "{sso_cred}";

/// An autoscale config: how servers of one kind are made for a pool, and how many sessions they keep free.
///
/// It is read from, and stored as, one flat JSON object: [`from_json`](Self::from_json) lists the fields.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(try_from = "Value", into = "Value")]
pub struct ConfigSpec {
    /// The name, unique in the pool.
    pub name: ConfigName,
    /// A disabled config makes nothing, empties its servers and deletes them.
    pub enabled: bool,
    /// Where its servers are. Users of that zone are placed on them first.
    pub zone: ZoneName,
    /// How users are connected.
    pub connection: Connection,
    /// Whether a server is used again after a session has ended. If not, it takes each of its slots once and is deleted
    /// when its last session ends.
    pub reusable: bool,
    /// How many sessions are free at all times.
    pub minimum_available_sessions: u32,
    /// How many sessions a server takes at once.
    pub max_sessions_per_server: NonZeroU32,
    /// How many servers there may be, counting everything that is not proved gone.
    pub max_servers: u32,
    /// How long a surplus must have lasted before it is deleted.
    pub downscale_backoff: Duration,
    /// Whether a server must have checked in before it is ready.
    pub require_checkin: bool,
    /// How long a server may take from its creation until it is ready; then it is deleted and another one made.
    pub boot_deadline: Duration,
    /// Which config of the pool makes servers first where several could, the lowest number first: for requests that wait, and
    /// for a config that cannot make what it promises. It says who makes servers, not where users are placed.
    pub priority: u32,
    /// How many of the last [`breaker_window`](Self::breaker_window) servers must have failed to become ready before no more
    /// are made, and then one at a time.
    pub breaker_failures: u32,
    /// How many of the last servers are looked at for that.
    pub breaker_window: u32,
    /// How long a machine whose server failed to become ready is kept for diagnosis. It counts against `max_servers`.
    pub keep_failed_for: Duration,
    /// How many such machines are kept at once; further ones are deleted at once.
    pub keep_failed_max: u32,
    /// Who makes the machines.
    pub provider: ProviderName,
    /// The provider's own settings for them.
    pub machine: JsonObject,
    /// What a machine runs when it starts.
    pub startup_script: Option<Script>,
    /// Where machines reach this installation, for the startup script.
    pub upstream_auth_address: Option<String>,
    /// The computer names of its machines.
    pub server_name_pattern: NamePattern,
    /// How its machines join an Active Directory domain; `None`: they do not.
    pub domain_join: Option<DomainJoin>,
}

impl ConfigSpec {
    /// The longest a startup script may be, in bytes; providers have lower limits of their own.
    pub const SCRIPT_BYTES_MAX: usize = 262_144;

    /// Reads a config from an object. Fields, `*` required:
    ///
    /// | field | value | default |
    /// | --- | --- | --- |
    /// | `name`* | a name | |
    /// | `enabled` | boolean | true |
    /// | `zone` | a name | `default` |
    /// | `connection_type` | `rdp`, `vnc`, `ssh`, `kasmvnc` | `rdp` |
    /// | `connection_port` | 1 to 65535 | by type |
    /// | `connection_address` | text of at most 255 characters | the machine's own |
    /// | `connection_username` | text, `{sso_username}` allowed | asked |
    /// | `connection_password` | `{sso_cred}` or `{"secret": NAME}` | asked |
    /// | `connection_info` | object of at most 64 KiB | `{}` |
    /// | `reusable` | boolean | false |
    /// | `minimum_available_sessions` | 0 to 1,000,000 | 0 |
    /// | `max_sessions_per_server` | 1 to 1,000 | 1 |
    /// | `max_servers` | 0 to 1,000,000 | 100 |
    /// | `downscale_backoff` | 0 s to 7 d | 30 m |
    /// | `require_checkin` | boolean | false |
    /// | `boot_deadline` | 1 s to 1 d | 15 m |
    /// | `priority` | 0 to 1,000 | 100 |
    /// | `breaker_failures` | 1 to 64, at most `breaker_window` | 5, or `breaker_window` if that is less |
    /// | `breaker_window` | 1 to 64 | 10, or `breaker_failures` if that is more |
    /// | `keep_failed_for` | 0 s to 7 d | 0 s |
    /// | `keep_failed_max` | 0 to 1,000 | 1 |
    /// | `provider`* | the name of a provider | |
    /// | `machine` | object of at most 64 KiB | `{}` |
    /// | `startup_script` | text | none |
    /// | `upstream_auth_address` | text of at most 255 characters | none |
    /// | `server_name_pattern` | a [`NamePattern`] | `kasm-{random}` |
    /// | `ad_directory` | the name of a directory: machines join its domain | none |
    /// | `ad_computer_ou_dn` (* with `ad_directory`) | the organisational unit of computer objects | |
    /// | `ad_recursive_cleanup` | boolean, with `ad_directory` | false |
    ///
    /// # Errors
    /// [`Invalid`] with all mistakes, those in the startup script with their line and column.
    pub fn from_json(object: &JsonObject) -> Result<Self, Invalid> {
        let mut fields = Fields::new(object);
        let name = fields.name("name");
        let name = fields.require("name", name, "the config's name");
        let provider = fields.name("provider");
        let provider = fields.require("provider", provider, "the name of a provider");
        let enabled = fields.boolean("enabled").unwrap_or(true);
        let zone = fields.name("zone").or_else(|| "default".parse().ok());
        let connection = read_connection(&mut fields);
        let reusable = fields.boolean("reusable").unwrap_or(false);
        let minimum_available_sessions = fields.integer("minimum_available_sessions", 0..=1_000_000).unwrap_or(0);
        let max_sessions_per_server: u32 = fields.integer("max_sessions_per_server", 1..=1000).unwrap_or(1);
        let max_servers = fields.integer("max_servers", 0..=1_000_000).unwrap_or(100);
        let downscale_backoff = fields.span("downscale_backoff", Duration::ZERO..=7 * DAY).unwrap_or(30 * 60 * SECOND);
        let require_checkin = fields.boolean("require_checkin").unwrap_or(false);
        let boot_deadline = fields.span("boot_deadline", SECOND..=DAY).unwrap_or(15 * 60 * SECOND);
        let priority = fields.integer("priority", 0..=1000).unwrap_or(100);
        let (breaker_failures, breaker_window) = read_breaker(&mut fields);
        let keep_failed_for = fields.span("keep_failed_for", Duration::ZERO..=7 * DAY).unwrap_or(Duration::ZERO);
        let keep_failed_max = fields.integer("keep_failed_max", 0..=1000).unwrap_or(1);
        let machine = bounded::object(&mut fields, "machine");
        let startup_script = read_script(&mut fields);
        let upstream_auth_address = bounded::address(&mut fields, "upstream_auth_address");
        let server_name_pattern = read_pattern(&mut fields);
        let domain_join = domain::read(&mut fields);
        match (name, provider, zone, fields.finish()) {
            (Some(name), Some(provider), Some(zone), problems) if problems.is_empty() => {
                let spec = Self {
                    name,
                    enabled,
                    zone,
                    connection,
                    reusable,
                    minimum_available_sessions,
                    max_sessions_per_server: NonZeroU32::new(max_sessions_per_server).unwrap_or(NonZeroU32::MIN),
                    max_servers,
                    downscale_backoff,
                    require_checkin,
                    boot_deadline,
                    priority,
                    breaker_failures,
                    breaker_window,
                    keep_failed_for,
                    keep_failed_max,
                    provider,
                    machine,
                    startup_script,
                    upstream_auth_address,
                    server_name_pattern,
                    domain_join,
                };
                let problems = spec.unusable_variables();
                if problems.is_empty() { Ok(spec) } else { Err(Invalid { problems }) }
            }
            (_, _, _, problems) => Err(Invalid { problems }),
        }
    }

    /// The config as [`from_json`](Self::from_json) reads it, all fields present.
    pub fn to_json(&self) -> Value {
        let password = match &self.connection.password {
            ConnectionPassword::Prompt => Value::Null,
            ConnectionPassword::SsoCred => SSO_CRED.into(),
            ConnectionPassword::Secret(name) => json!({ "secret": name }),
        };
        let join = self.domain_join.as_ref();
        json!({
            "name": self.name,
            "enabled": self.enabled,
            "zone": self.zone,
            "connection_type": self.connection.kind,
            "connection_port": self.connection.port,
            "connection_address": self.connection.address,
            "connection_username": self.connection.username,
            "connection_password": password,
            "connection_info": self.connection.info,
            "reusable": self.reusable,
            "minimum_available_sessions": self.minimum_available_sessions,
            "max_sessions_per_server": self.max_sessions_per_server,
            "max_servers": self.max_servers,
            "downscale_backoff": Span(self.downscale_backoff).to_string(),
            "require_checkin": self.require_checkin,
            "boot_deadline": Span(self.boot_deadline).to_string(),
            "priority": self.priority,
            "breaker_failures": self.breaker_failures,
            "breaker_window": self.breaker_window,
            "keep_failed_for": Span(self.keep_failed_for).to_string(),
            "keep_failed_max": self.keep_failed_max,
            "provider": self.provider,
            "machine": self.machine,
            "startup_script": self.startup_script.as_ref().map(Script::source),
            "upstream_auth_address": self.upstream_auth_address,
            "server_name_pattern": self.server_name_pattern,
            "ad_directory": join.map(|join| &join.directory),
            "ad_computer_ou_dn": join.map(|join| &join.ou),
            "ad_recursive_cleanup": join.map(|join| join.recursive_cleanup),
        })
    }

    /// What is legal but unwise, each with what to do about it.
    pub fn warnings(&self) -> Vec<Problem> {
        let mut warnings = vec![];
        let mut warn = |path: &str, given: String, advice: &str| warnings.push(Problem::new(path, given, advice));
        let sso = self.connection.is_single_sign_on();
        let per_server = self.max_sessions_per_server.get();
        if self.reusable && !sso {
            warn(
                "reusable",
                "true without single sign-on".into(),
                "the next user finds what the last one left; set connection_username to \"{sso_username}\" and connection_password to \"{sso_cred}\", or reusable to false",
            );
        }
        if matches!(self.connection.password, ConnectionPassword::Secret(_)) && per_server > 1 {
            warn(
                "max_sessions_per_server",
                format!("{per_server} with a static password"),
                "Windows gives one account one session: users would take each other's; use single sign-on or 1",
            );
        }
        let capacity = u64::from(self.max_servers) * u64::from(per_server);
        if capacity < u64::from(self.minimum_available_sessions) {
            warn(
                "max_servers",
                format!("{} servers of {per_server} sessions", self.max_servers),
                &format!(
                    "minimum_available_sessions asks for {}, which they can never keep free",
                    self.minimum_available_sessions
                ),
            );
        }
        if !self.keep_failed_for.is_zero() && self.keep_failed_max >= self.max_servers && self.max_servers > 0 {
            warn(
                "keep_failed_max",
                self.keep_failed_max.to_string(),
                &format!(
                    "failed machines count against max_servers, which is {}: kept ones could leave no room for another server",
                    self.max_servers
                ),
            );
        }
        let uses = |variable| self.startup_script.as_ref().is_some_and(|script| script.variables().contains(&variable));
        if self.require_checkin && !uses(Variable::CheckinJwt) {
            warn(
                "require_checkin",
                "true".into(),
                "the startup script does not use {checkin_jwt}; unless the image knows another way to check in, no server will ever be ready",
            );
        }
        let joins = self.domain_join.is_some();
        if joins && !uses(Variable::AdJoinCredential) {
            warn(
                "ad_directory",
                "set".into(),
                "the startup script does not use {ad_join_credential}, without which no machine joins, and none is ready before it has joined",
            );
        }
        if joins && uses(Variable::AdJoinCredential) {
            warn(
                "startup_script",
                "{ad_join_credential}".into(),
                "every process of the machine can read its start-up data; the credential is worth nothing once the machine has joined and changed it",
            );
        }
        if self.boot_deadline < 120 * SECOND && (self.require_checkin || joins) {
            warn(
                "boot_deadline",
                Span(self.boot_deadline).to_string(),
                "a Windows machine takes 3 to 10 minutes until its startup script has run; servers would be deleted while they boot",
            );
        }
        warnings
    }

    /// Variables of the startup script that will never have a value under these settings.
    fn unusable_variables(&self) -> Vec<Problem> {
        let Some(script) = &self.startup_script else { return vec![] };
        let remedy = |variable: &Variable| match variable {
            Variable::ConnectionUsername => match &self.connection.username {
                None => Some("set connection_username"),
                Some(name) if name.contains(SSO_USERNAME) => Some(
                    "connection_username is the user's own here, which is not known when a machine starts; set a static one",
                ),
                Some(_) => None,
            },
            Variable::ConnectionPassword => match self.connection.password {
                ConnectionPassword::Secret(_) => None,
                ConnectionPassword::Prompt | ConnectionPassword::SsoCred => Some(
                    "only a static password is known when a machine starts; set connection_password to {\"secret\": NAME}",
                ),
            },
            Variable::AdJoinCredential | Variable::Domain => self
                .domain_join
                .is_none()
                .then_some("this config joins no Active Directory domain; set ad_directory and ad_computer_ou_dn"),
            Variable::UpstreamAuthAddress => {
                self.upstream_auth_address.is_none().then_some("set upstream_auth_address")
            }
            _ => None,
        };
        let problem = |variable: &Variable| {
            remedy(variable).map(|text| Problem::new("startup_script", format!("{{{}}}", variable.name()), text))
        };
        script.variables().iter().filter_map(problem).collect()
    }
}

impl TryFrom<Value> for ConfigSpec {
    type Error = Invalid;

    fn try_from(value: Value) -> Result<Self, Invalid> {
        match value {
            Value::Object(object) => Self::from_json(&object),
            other => Err(Invalid { problems: vec![Problem::new("", shown(&other), "an object")] }),
        }
    }
}

impl From<ConfigSpec> for Value {
    fn from(spec: ConfigSpec) -> Self {
        spec.to_json()
    }
}

fn read_connection(fields: &mut Fields<'_>) -> Connection {
    let kind = fields.choice("connection_type", &ConnectionType::CHOICES).unwrap_or(ConnectionType::Rdp);
    Connection {
        kind,
        port: fields.integer("connection_port", 1..=65535).unwrap_or(kind.default_port()),
        address: bounded::address(fields, "connection_address"),
        username: read_username(fields),
        password: read_password(fields),
        info: bounded::object(fields, "connection_info"),
    }
}

fn read_username(fields: &mut Fields<'_>) -> Option<String> {
    let text = fields.text("connection_username").filter(|text| !text.is_empty())?;
    let rest = text.replace(SSO_USERNAME, "");
    if rest.contains(['{', '}']) || rest.chars().any(char::is_control) || text.chars().count() > 256 {
        let allowed =
            "at most 256 characters, {sso_username} the only placeholder, no other braces or control characters";
        fields.problem(Problem::new("connection_username", shown(&Value::String(text.clone())), allowed));
    }
    Some(text)
}

fn read_password(fields: &mut Fields<'_>) -> ConnectionPassword {
    const ALLOWED: &str = "\"{sso_cred}\", or {\"secret\": NAME} with the name of a secret that the host keeps; a password itself does not belong here";
    let name = "connection_password";
    match fields.value(name) {
        None => return ConnectionPassword::Prompt,
        Some(Value::String(text)) if text == SSO_CRED => return ConnectionPassword::SsoCred,
        Some(Value::Object(object)) if object.len() == 1 => {
            if let Some(secret) = object.get("secret").and_then(Value::as_str).and_then(|text| text.parse().ok()) {
                return ConnectionPassword::Secret(secret);
            }
        }
        // What was given may be a password, so it is not shown.
        Some(_) => {}
    }
    fields.problem(Problem::new(name, "something else (not shown)", ALLOWED));
    ConnectionPassword::Prompt
}

fn read_breaker(fields: &mut Fields<'_>) -> (u32, u32) {
    let bounds = || 1..=u64::from(Fates::MAX);
    let failures: Option<u32> = fields.integer("breaker_failures", bounds());
    let window: Option<u32> = fields.integer("breaker_window", bounds());
    // Whoever sets one of them need not know the default of the other.
    let (failures, window) = match (failures, window) {
        (Some(failures), Some(window)) => (failures, window),
        (Some(failures), None) => (failures, failures.max(10)),
        (None, Some(window)) => (window.min(5), window),
        (None, None) => (5, 10),
    };
    if failures > window {
        let allowed = format!("at most breaker_window, which is {window}: no more than that are looked at");
        fields.problem(Problem::new("breaker_failures", failures.to_string(), allowed));
    }
    (failures, window)
}

fn read_pattern(fields: &mut Fields<'_>) -> NamePattern {
    let name = "server_name_pattern";
    let Some(text) = fields.text(name).filter(|text| !text.is_empty()) else { return NamePattern::default() };
    text.parse().unwrap_or_else(|error: InvalidPattern| {
        fields.problem(Problem::new(name, shown(&Value::String(text.clone())), error.to_string()));
        NamePattern::default()
    })
}

fn read_script(fields: &mut Fields<'_>) -> Option<Script> {
    let text = fields.text("startup_script").filter(|text| !text.trim().is_empty())?;
    if text.len() > ConfigSpec::SCRIPT_BYTES_MAX {
        let allowed = format!("at most {} bytes", ConfigSpec::SCRIPT_BYTES_MAX);
        fields.problem(Problem::new("startup_script", format!("{} bytes", text.len()), allowed));
        return None;
    }
    match Script::parse(&text) {
        Ok(script) => Some(script),
        Err(errors) => {
            for error in errors.iter() {
                fields.problem(Problem::new(
                    "startup_script",
                    format!("line {}, column {}", error.line, error.column),
                    error.kind.to_string(),
                ));
            }
            None
        }
    }
}
