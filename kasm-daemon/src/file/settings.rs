//! The daemon's own tables: everything but providers and pools.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use kasm_autoscale_core::fields::{Fields, JsonObject, Problem, shown};
use kasm_autoscale_core::id::SecretName;
use secrecy::ExposeSecret;
use serde_json::Value;

use super::pools::Declared;
use super::{
    Checks, DaemonConfig, LISTEN_DEFAULT, Limits, Loader, LogConfig, LogFormat, StorePath, TokenConfig, TokenName,
    TokenSecret,
};
use crate::api::{CallerLimits, Rate};
use crate::auth::{InvalidToken, Role, TokenEntry};
use crate::clock::from_rfc3339;
use crate::secrets::{SecretSource, SecretStore, deployment_key};
use crate::users::LoginRules;

impl Loader<'_, '_> {
    /// The whole file; `None` when something that must be there is not, which has been noted then.
    pub(super) fn read(mut self, checks: &mut Checks<'_>) -> Option<DaemonConfig> {
        let document = self.document;
        let mut fields = Fields::new(&document.root);
        let plain_http_behind_proxy = fields.boolean("plain_http_behind_proxy").unwrap_or(false);
        let tls = fields.object("tls");
        if tls.is_some() && plain_http_behind_proxy {
            let allowed = "false, or no table [tls]: with it no plain HTTP is spoken, whoever asks";
            fields.problem(Problem::new("plain_http_behind_proxy", "true, and a table [tls]", allowed));
        }
        let listen = read_listen(&mut fields, plain_http_behind_proxy || tls.is_some());
        let key = fields.value("deployment_key");
        let store = fields.object("store");
        let store = fields.require(
            "store",
            store,
            "a table [store] with the path of the daemon's state, as in path = \"kasm.db\"",
        );
        let log = fields.object("log");
        let limits = fields.object("limits");
        let secrets = fields.object("secrets");
        let providers = fields.object("provider");
        let tokens = tables(&mut fields, "token", "[[token]]");
        let pools = tables(&mut fields, "pool", "[[pool]]");
        let ldap = fields.object("ldap");
        let workspaces = tables(&mut fields, "workspaces", "[[workspaces]]");
        let logins = fields.object("logins");
        fields.finish().into_iter().for_each(|problem| self.report.mistake(problem));

        let deployment_key = self.read_key(key);
        let store = store.and_then(|object| self.read_store(object));
        let tls = tls.map(|object| self.read_tls(object));
        let log = log.map(|object| self.read_log(object)).unwrap_or_default();
        let limits = limits.map(|object| self.read_limits(object)).unwrap_or_default();
        let tokens = self.read_tokens(tokens);
        let (secrets, secret_store) = self.read_secrets(secrets);
        let providers = self.read_providers(providers, checks);
        let ldap = self.read_ldap(ldap, checks);
        let workspaces = self.read_workspaces(workspaces, pools, &ldap);
        let logins = logins.map(|object| self.read_logins(object)).unwrap_or_default();
        let pools = self.read_pools(
            pools,
            &Declared { providers: &providers, ldap: &ldap, secrets: &secrets, store: &secret_store },
            checks,
        );
        Some(DaemonConfig {
            file: document.text.file.clone(),
            listen,
            plain_http_behind_proxy,
            tls: tls.flatten(),
            store: store?,
            deployment_key: deployment_key?,
            tokens,
            secrets: secrets.sources,
            providers: providers.good,
            ldap: ldap.good,
            pools,
            workspaces,
            logins,
            log,
            limits,
        })
    }

    fn read_key(&mut self, value: Option<&Value>) -> Option<SecretSource> {
        const FORM: &str = "64 hexadecimal digits, as `kasm-daemon key` prints them";
        let path = "deployment_key";
        let Some(value) = value else {
            let remedy = format!(
                "required: where the key of this installation is kept, as in {{ file = \"deployment.key\" }}; it is {FORM}"
            );
            self.report.mistake(Problem::new(path, "nothing", remedy));
            return None;
        };
        let source = self.read_source(path, value)?;
        match source.resolve(&self.surroundings.environment) {
            Ok(secret) => {
                if let Err(given) = deployment_key(&secret) {
                    self.report.mistake(Problem::new(path, format!("{source} of {given}"), FORM));
                }
            }
            Err(error) => self.report.mistake(Problem::new(path, source.to_string(), error.remedy())),
        }
        Some(source)
    }

    /// Reads where a secret is kept.
    pub(super) fn read_source(&mut self, path: &str, value: &Value) -> Option<SecretSource> {
        let source = SecretSource::from_json(value, &self.folder);
        source.map_err(|problem| self.report.mistake(problem.below(path))).ok()
    }

    /// Reads where a secret is kept, and whether it is there.
    pub(super) fn read_kept(&mut self, path: &str, value: &Value) -> Option<SecretSource> {
        let source = self.read_source(path, value)?;
        if let Err(error) = source.resolve(&self.surroundings.environment) {
            self.report.mistake(Problem::new(path, source.to_string(), error.remedy()));
        }
        Some(source)
    }

    fn read_store(&mut self, object: &JsonObject) -> Option<StorePath> {
        let mut fields = Fields::new(object);
        let path = fields.text("path").filter(|path| !path.is_empty() && !path.contains('\0'));
        let path = fields.require(
            "path",
            path,
            "the file of the daemon's state, as in \"kasm.db\"; it is made if it is not there",
        );
        self.finish(fields, "store");
        path.map(|path| StorePath(self.folder.join(path)))
    }

    fn read_log(&mut self, object: &JsonObject) -> LogConfig {
        let mut fields = Fields::new(object);
        let filter = fields.text("filter");
        if let Some(filter) = filter.as_ref().filter(|filter| !is_filter(filter)) {
            let allowed = "a level (off, error, warn, info, debug, trace), or levels by target after it, as in \"info,kasm_daemon=debug\"";
            fields.problem(Problem::new("filter", shown(&filter.as_str().into()), allowed));
        }
        let format = fields.choice("format", &[("text", LogFormat::Text), ("json", LogFormat::Json)]);
        self.finish(fields, "log");
        LogConfig { filter: filter.unwrap_or_else(|| LogConfig::default().filter), format: format.unwrap_or_default() }
    }

    fn read_limits(&mut self, object: &JsonObject) -> Limits {
        let defaults = Limits::default();
        let mut fields = Fields::new(object);
        let limits = Limits {
            provider_calls: fields.integer("provider_calls", 1..=1000).unwrap_or(defaults.provider_calls),
            directory_calls: fields.integer("directory_calls", 1..=1000).unwrap_or(defaults.directory_calls),
            probes: fields.integer("probes", 1..=10_000).unwrap_or(defaults.probes),
            // The least must take a config with a startup script of the greatest length.
            shutdown_grace: fields
                .span("shutdown_grace", Duration::ZERO..=Duration::from_secs(600))
                .unwrap_or(defaults.shutdown_grace),
            callers: read_callers(&mut fields),
            audit_entries: fields.integer("audit_entries", 1000..=100_000_000).unwrap_or(defaults.audit_entries),
        };
        self.finish(fields, "limits");
        limits
    }

    fn read_logins(&mut self, object: &JsonObject) -> LoginRules {
        let defaults = LoginRules::default();
        let bounds = Duration::from_secs(60)..=Duration::from_secs(7 * 24 * 3600);
        let mut fields = Fields::new(object);
        let rules = LoginRules {
            idle: fields.span("idle", bounds.clone()).unwrap_or(defaults.idle),
            longest: fields.span("longest", bounds).unwrap_or(defaults.longest),
            ..defaults
        };
        self.finish(fields, "logins");
        rules
    }

    fn read_tokens(&mut self, tables: &[Value]) -> Vec<TokenConfig> {
        if tables.is_empty() {
            let advice = "the API will refuse everybody but holders of tokens made through it, unless the daemon is started with --insecure-no-auth; add a [[token]] with name, role and secret";
            self.report.warn(Problem::new("token", "no token", advice));
        }
        let mut names = BTreeMap::new();
        let mut digests = BTreeMap::new();
        let mut tokens = Vec::new();
        for (index, table) in tables.iter().enumerate() {
            let path = format!("token[{index}]");
            let Some(object) = table.as_object() else { continue };
            let token = self.read_token(&path, object);
            self.unique(&mut names, &path, object, "token");
            if let Some(token) = token {
                self.check_token(&mut digests, &path, &token);
                tokens.push(token);
            }
        }
        tokens
    }

    fn read_token(&mut self, path: &str, object: &JsonObject) -> Option<TokenConfig> {
        let mut fields = Fields::new(object);
        let name: Option<TokenName> = fields.name("name");
        let name = fields.require("name", name, "whose token it is, for the log");
        let role = fields.choice("role", &Role::OF_TOKENS.map(|role| (role.as_str(), role)));
        let role = fields.require("role", role, "one of \"admin\", \"operator\", \"broker\", \"viewer\"");
        let (source, sha256) = (fields.value("secret"), fields.value("sha256"));
        let secret = match (source, sha256) {
            (Some(value), None) => self.read_source(&format!("{path}.secret"), value).map(TokenSecret::Source),
            (None, Some(value)) => {
                let hex = value.as_str().map(str::trim);
                let hex = hex.filter(|hex| TokenEntry::from_sha256("x", Role::Viewer, hex).is_ok());
                if hex.is_none() {
                    fields.problem(Problem::new(
                        "sha256",
                        "something else (not shown)",
                        InvalidToken::Sha256.to_string(),
                    ));
                }
                hex.map(|hex| TokenSecret::Sha256(hex.into()))
            }
            (None, None) => {
                let allowed = "required: secret = { file = \"PATH\" } (or env, credential), or sha256 = \"...\", the token's SHA-256";
                fields.problem(Problem::new("secret", "nothing", allowed));
                None
            }
            (Some(_), Some(_)) => {
                fields.problem(Problem::new("sha256", "both secret and sha256", "one of them"));
                None
            }
        };
        let expires_at = fields.text("expires").and_then(|text| {
            let at = from_rfc3339(&text);
            if at.is_none() {
                let allowed = "an instant in RFC 3339, as in \"2027-01-31T08:00:00Z\"";
                fields.problem(Problem::new("expires", shown(&text.into()), allowed));
            }
            at
        });
        self.finish(fields, path);
        Some(TokenConfig { name: name?, role: role?, secret: secret?, expires_at })
    }

    /// Whether a token can be read, is long enough, and is nobody else's.
    fn check_token(&mut self, digests: &mut BTreeMap<[u8; 32], TokenName>, path: &str, token: &TokenConfig) {
        let environment = &self.surroundings.environment;
        let field =
            format!("{path}.{}", if matches!(token.secret, TokenSecret::Source(_)) { "secret" } else { "sha256" });
        if let TokenSecret::Source(source) = &token.secret {
            match source.resolve(environment).map(|secret| secret.expose_secret().trim().len()) {
                Ok(bytes) if !TokenSecret::BYTES.contains(&bytes) => {
                    let (least, most) = (TokenSecret::BYTES.start(), TokenSecret::BYTES.end());
                    let allowed = format!("{least} to {most} bytes; `kasm-daemon token {}` makes one", token.name);
                    self.report.mistake(Problem::new(&field, format!("{source} of {bytes} bytes"), allowed));
                }
                Ok(_) => {}
                Err(error) => self.report.mistake(Problem::new(&field, source.to_string(), error.remedy())),
            }
        }
        if let Ok(entry) = token.entry(environment)
            && let Some(other) = digests.insert(entry.sha256, token.name.clone())
        {
            let allowed = "a token of its own for everybody: one token cannot have two names";
            self.report.mistake(Problem::new(field, format!("the same token as that of {other}"), allowed));
        }
    }

    fn read_secrets(&mut self, object: Option<&JsonObject>) -> (DeclaredSecrets, SecretStore) {
        let mut declared = DeclaredSecrets::default();
        for (key, value) in object.into_iter().flatten() {
            let path = format!("secrets.{key}");
            declared.names.insert(key.clone());
            match key.parse::<SecretName>() {
                Ok(name) => declared.sources.extend(self.read_source(&path, value).map(|source| (name, source))),
                Err(error) => self.report.mistake(Problem::new(path, "a name that is not allowed", error.allowed)),
            }
        }
        let (store, errors) = SecretStore::resolve(&declared.sources, &self.surroundings.environment);
        for (name, error) in errors {
            self.report.mistake(Problem::new(format!("secrets.{name}"), error.from.to_string(), error.remedy()));
        }
        (declared, store)
    }

    /// Notes whatever a reader of the table at `path` has found.
    pub(super) fn finish(&mut self, fields: Fields<'_>, path: &str) {
        fields.finish().into_iter().for_each(|problem| self.report.mistake(problem.below(path)));
    }

    /// Notes a name that another table of the same kind has.
    pub(super) fn unique(&mut self, names: &mut BTreeMap<String, String>, path: &str, object: &JsonObject, what: &str) {
        let Some(name) = object.get("name").and_then(Value::as_str) else { return };
        let path = format!("{path}.name");
        if let Some(first) = names.get(name) {
            let line = self.document.place(first, super::document::End::Value).line;
            let allowed = format!("a name of its own for every {what}; the one in line {line} has this name");
            self.report.mistake(Problem::new(path, shown(&name.into()), allowed));
        } else {
            names.insert(name.into(), path);
        }
    }
}

/// How much one caller may ask of the API.
fn read_callers(fields: &mut Fields<'_>) -> CallerLimits {
    let defaults = CallerLimits::default();
    let mut rate = |rate: &'static str, burst: &'static str, default: Rate| Rate {
        every: fields.integer(rate, 1..=1_000_000).map_or(default, |count| Rate::per_second(count, 1)).every,
        burst: fields.integer(burst, 1..=1_000_000).unwrap_or(default.burst),
    };
    CallerLimits {
        address: rate("address_rate", "address_burst", defaults.address),
        token: rate("token_rate", "token_burst", defaults.token),
        user: rate("user_rate", "user_burst", defaults.user),
        user_requests: fields.integer("user_requests", 1..=10_000).unwrap_or(defaults.user_requests),
        user_sessions: fields.integer("user_sessions", 1..=10_000).unwrap_or(defaults.user_sessions),
    }
}

/// The table `[secrets]`.
#[derive(Default)]
pub(super) struct DeclaredSecrets {
    /// Those whose place could be read.
    pub(super) sources: BTreeMap<SecretName, SecretSource>,
    /// All that are named, so that one with a mistake does not count as missing too.
    pub(super) names: BTreeSet<String>,
}

/// The tables of an array of tables. Anything else in its place is a mistake.
pub(super) fn tables<'a>(fields: &mut Fields<'a>, name: &'static str, header: &str) -> &'a [Value] {
    let Some(value) = fields.value(name) else { return &[] };
    match value.as_array() {
        Some(items) => {
            for (index, item) in items.iter().enumerate().filter(|(_, item)| !item.is_object()) {
                fields.problem(Problem::new(
                    format!("{name}[{index}]"),
                    shown(item),
                    format!("a table; each one starts with {header}"),
                ));
            }
            items
        }
        None => {
            let given = if value.is_object() { "a single table" } else { "something else" };
            fields.problem(Problem::new(
                name,
                given,
                format!("a list of tables; each one starts with {header}, with two brackets"),
            ));
            &[]
        }
    }
}

/// `anywhere`: also on addresses that other machines reach.
fn read_listen(fields: &mut Fields<'_>, anywhere: bool) -> SocketAddr {
    let Some(text) = fields.text("listen") else { return LISTEN_DEFAULT };
    let Ok(listen) = text.parse::<SocketAddr>() else {
        let allowed =
            "an IP address and a port, as in \"127.0.0.1:7070\" or \"[::1]:7070\"; host names are not looked up";
        fields.problem(Problem::new("listen", shown(&text.into()), allowed));
        return LISTEN_DEFAULT;
    };
    if !listen.ip().is_loopback() && !anywhere {
        let allowed = "a loopback address, as in \"127.0.0.1:7070\": without a table [tls] the daemon speaks plain HTTP, so on any other address \
                       tokens and check-ins could be read and changed on their way; give it a certificate in [tls], or put a proxy that \
                       speaks TLS in front of it. Where the proxy is on another machine and nobody but the proxy can reach this address, \
                       set plain_http_behind_proxy = true";
        fields.problem(Problem::new("listen", shown(&text.into()), allowed));
    }
    listen
}

/// Whether a filter means what it says: a misspelt level would be taken for a target and switch logging off.
fn is_filter(filter: &str) -> bool {
    const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
    let is_target = |target: &str| {
        !target.is_empty()
            && target.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b':' | b'-'))
    };
    filter.split(',').all(|part| match part.trim().split_once('=') {
        Some((target, level)) => is_target(target) && LEVELS.contains(&level),
        None => LEVELS.contains(&part.trim()),
    })
}
