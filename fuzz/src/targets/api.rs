//! The daemon's HTTP API, without a socket.

use std::cell::RefCell;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{HeaderValue, Method, Request, Uri};
use kasm_autoscale_core::id::SecretName;
use kasm_autoscale_core::ports::Secrets;
use kasm_autoscale_core::token::DeploymentKey;
use kasm_daemon::api::{CallerLimits, Limits, Setup, unserved};
use kasm_daemon::auth::Tokens;
use kasm_daemon::clock::Clock;
use kasm_daemon::directories::DirectoryRegistry;
use kasm_daemon::driver::CallLimits;
use kasm_daemon::host::{Host, Registry, World};
use kasm_daemon::metrics::Metrics;
use kasm_daemon::probe::{AddressGuard, NetProber};
use kasm_daemon::store::SqliteStore;
use kasm_daemon::users::{AuthenticateError, Authenticator, Identity, LoginRules, Realm, Users};
use kasm_daemon::workspaces::Workspaces;
use kasm_providers::simulated::{SimulatedProvider, SimulatedSettings};
use secrecy::SecretString;
use serde_json::{Value, json};
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use crate::generator::Shape;
use crate::{SEPARATOR, Target, Verdict, is_worded, joined};

/// Requests to the real router over a real host: a method, a path with its query, a body, and what stands in `Authorization`.
///
/// None is answered by a failure of ours, every refusal has the one shape of errors with the request's id, and every answer the
/// headers that harden it. Requests meet what those before them have made; after a thousand all begins anew.
pub const API: Target = Target {
    name: "api",
    shape: Shape::Bytes,
    examples,
    words: &[
        "/v1/pools",
        "/desktops",
        "/configs",
        "/west",
        "/servers",
        "/srv-1",
        "/sessions",
        "/ses-1",
        "/why",
        "/events",
        "/drain",
        "/v1/login",
        "/v1/workspaces",
        "/desk",
        "/launch",
        "?wait=1ms",
        "?force=true",
        "?limit=5",
        "?after=srv-1",
        "&",
        "=",
        "%20",
        "%ff",
        "%2e%2e%2f",
        "..",
        "GET",
        "POST",
        "PUT",
        "PATCH",
        "DELETE",
        "HEAD",
        "OPTIONS",
        "{",
        "}",
        "null",
        "\"name\"",
        ":",
        "1e999",
        "[",
        "Bearer kasmu_x",
        "?format=rdp",
        "{\"name\":\"x\",\"provider\":\"cloud\"}",
        "\"startup_script\":\"{domain}\"",
        "?format=guacamole",
        "/keepalive",
        "/undrain",
        "?token=",
    ],
    check: |input| STAGE.with_borrow_mut(|stage| answer(stage, input)),
    inputs: 30_000,
};

fn examples() -> Vec<Vec<u8>> {
    let config = json!({ "name": "west", "provider": "cloud", "max_servers": 1, "minimum_available_sessions": 1, "zone": "z",
        "connection_username": "{sso_username}", "connection_password": { "secret": "rdp-password" }, "startup_script": "echo '{domain}'" });
    let workspace = json!({ "name": "desk", "pool": "desktops", "enabled": true });
    let login = json!({ "username": "ann", "password": "right" });
    let rows = [
        ("GET", "/healthz", Value::Null),
        ("GET", "/v1/pools", Value::Null),
        ("POST", "/v1/pools", json!({ "name": "desktops" })),
        (
            "POST",
            "/v1/pools",
            json!({ "name": "desktops", "placement": "pack", "queue_max": 3, "queue_deadline": "10m" }),
        ),
        ("GET", "/v1/pools/desktops", Value::Null),
        ("PUT", "/v1/pools/desktops", json!({ "name": "desktops", "queue_max": 5 })),
        ("POST", "/v1/pools/desktops/configs", config.clone()),
        ("PUT", "/v1/pools/desktops/configs/west", config),
        ("GET", "/v1/pools/desktops/configs", Value::Null),
        ("POST", "/v1/pools/desktops/configs/west/disable", Value::Null),
        ("GET", "/v1/pools/desktops/servers?limit=5", Value::Null),
        ("POST", "/v1/pools/desktops/servers/srv-1/drain", Value::Null),
        ("POST", "/v1/pools/desktops/sessions?wait=1ms", json!({ "user": "ann", "zone": "z", "idempotency_key": "k" })),
        ("GET", "/v1/pools/desktops/sessions?limit=2", Value::Null),
        ("GET", "/v1/pools/desktops/sessions/ses-1?format=rdp", Value::Null),
        ("DELETE", "/v1/pools/desktops/sessions/ses-1", Value::Null),
        ("GET", "/v1/pools/desktops/why", Value::Null),
        ("GET", "/v1/pools/desktops/events?limit=3", Value::Null),
        ("POST", "/v1/login", login),
        ("POST", "/v1/workspaces", workspace),
        ("GET", "/v1/workspaces", Value::Null),
        ("POST", "/v1/workspaces/desk/launch", json!({})),
        ("DELETE", "/v1/pools/desktops", Value::Null),
        ("GET", "/openapi.json", Value::Null),
        ("GET", "/metrics", Value::Null),
    ];
    let row = |(method, path, body): (&str, &str, Value)| {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        joined(&[method, path, &body])
    };
    rows.into_iter().map(row).collect()
}

/// So many requests meet the same host.
const REQUESTS: u32 = 1000;

struct Stage {
    runtime: Runtime,
    router: Router,
    stop: CancellationToken,
    host: Arc<Host>,
    requests: u32,
    _folder: tempfile::TempDir,
}

thread_local! {
    static STAGE: RefCell<Option<Stage>> = const { RefCell::new(None) };
}

struct Kept;

impl Secrets for Kept {
    fn secret(&self, name: &SecretName) -> Option<SecretString> {
        (name.as_str() == "rdp-password").then(|| SecretString::from("canary".to_owned()))
    }
}

/// A domain with one user.
struct Domain;

#[async_trait]
impl Authenticator for Domain {
    fn domain(&self) -> String {
        "corp.example".into()
    }

    async fn authenticate(&self, username: &str, _: &SecretString) -> Result<Identity, AuthenticateError> {
        match username {
            "ann" => Ok(Identity { account: username.into(), groups: vec![] }),
            _ => Err(AuthenticateError::Refused("unknown".into())),
        }
    }
}

impl Stage {
    fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let stop = CancellationToken::new();
        // In memory where there is such a place: nobody asks here whether a save is durable.
        let folder = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).expect("a folder");
        let (host, router) = runtime.block_on(Self::set_up(stop.clone(), folder.path()));
        Self { runtime, router, stop, host, requests: 0, _folder: folder }
    }

    async fn set_up(stop: CancellationToken, folder: &Path) -> (Arc<Host>, Router) {
        let mut settings = SimulatedSettings::default();
        // Machines have listeners: a few are enough.
        settings.cloud.capacity = 4;
        let mut providers = Registry::default();
        providers.add("cloud".parse().expect("a name"), Arc::new(SimulatedProvider::new(settings)));
        let clock = Clock::start();
        let world = World {
            clock,
            store: Arc::new(SqliteStore::open(&folder.join("pools.sqlite")).expect("a store")),
            providers,
            directories: DirectoryRegistry::default(),
            prober: Arc::new(NetProber::new(AddressGuard::LoopbackOnly)),
            secrets: Arc::new(Kept),
            key: DeploymentKey::new([0x5a; 32]),
            metrics: Metrics::default(),
            calls: CallLimits::default(),
        };
        let host = Arc::new(Host::start(world, &[]).await.expect("a host"));
        let realm = Realm { authenticator: Arc::new(Domain), enabled: true, calls: 4 };
        let rules = LoginRules { failure_delay: Duration::ZERO, ..LoginRules::default() };
        let users = Arc::new(Users::new(clock, rules, [("corp".parse().expect("a name"), realm)].into()));
        let workspaces = Arc::new(Workspaces::load(host.world().store.clone(), vec![]).await.expect("workspaces"));
        let callers = CallerLimits::NONE;
        let limits = Limits { wait: Duration::from_millis(1), body: 8192, callers, ..Limits::default() };
        let setup = Setup { host: host.clone(), tokens: Tokens::none(), users, workspaces, limits };
        (host, unserved(setup, stop).await.expect("a router"))
    }
}

fn answer(stage: &mut Option<Stage>, input: &[u8]) -> Verdict {
    if stage.as_ref().is_some_and(|stage| stage.requests >= REQUESTS) {
        let Some(Stage { runtime, stop, host, router, .. }) = stage.take() else { unreachable!("there is a stage") };
        stop.cancel();
        drop(router);
        runtime.block_on(host.stop());
        runtime.shutdown_background();
    }
    // A request that panics leaves none behind.
    let mut on = stage.take().unwrap_or_else(Stage::new);
    on.requests += 1;
    let verdict = ask(&on, input);
    *stage = Some(on);
    verdict
}

fn ask(stage: &Stage, input: &[u8]) -> Verdict {
    let mut parts = input.splitn(4, |byte| *byte == SEPARATOR);
    let [method, path, body, bearer] = std::array::from_fn(|_| parts.next().unwrap_or_default());
    let (Ok(method), Ok(path)) = (Method::from_bytes(method), Uri::try_from(path)) else { return Verdict::Refused };
    let mut request = Request::new(Body::from(body.to_vec()));
    *request.method_mut() = method.clone();
    *request.uri_mut() = path.clone();
    request.headers_mut().insert("content-type", HeaderValue::from_static("application/json"));
    if let Ok(bearer) = HeaderValue::from_bytes(bearer)
        && !bearer.is_empty()
    {
        request.headers_mut().insert("authorization", bearer);
    }
    let (parts, body) = stage.runtime.block_on(async {
        let response = stage.router.clone().oneshot(request).await.unwrap_or_else(|never| match never {});
        let (parts, body) = response.into_parts();
        (parts, to_bytes(body, 16 << 20).await.expect("a whole answer"))
    });
    let status = parts.status.as_u16();
    assert!(status < 500, "{method} {path}: {status} {}", String::from_utf8_lossy(&body));
    for name in ["x-request-id", "x-content-type-options", "cache-control", "content-security-policy"] {
        assert!(parts.headers.contains_key(name), "{method} {path}: no {name}");
    }
    if status < 400 {
        return Verdict::Taken;
    }
    if method != Method::HEAD {
        let error: Value =
            serde_json::from_slice(&body).unwrap_or_else(|error| panic!("{method} {path}: {status}, {error}"));
        assert_eq!(error["error"]["request_id"].as_str(), parts.headers["x-request-id"].to_str().ok(), "{error}");
        is_worded(error["error"]["code"].as_str().unwrap_or_default(), 60);
        is_worded(error["error"]["message"].as_str().unwrap_or_default(), 4000);
        for problem in error["error"]["problems"].as_array().into_iter().flatten() {
            is_worded(problem["allowed"].as_str().unwrap_or_default(), 20_000);
        }
    }
    Verdict::Refused
}
