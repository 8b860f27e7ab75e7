//! The HTTP API: what people and programs may ask of the host, in words of the wire.
//!
//! Nothing is decided here. A request is checked for who sends it ([`access`]), read, told to the host, and
//! answered; every error has one shape ([`wire::ErrorBody`]). `/openapi.json` describes all of it.

pub mod access;
mod admission;
mod audit_log;
mod body;
mod checkin;
mod configs;
mod connection;
mod error;
mod formats;
mod gate;
mod login;
mod openapi;
mod pools;
mod rate;
mod recorded;
mod secure;
mod serve;
mod servers;
mod sessions;
mod system;
mod tokens;
mod why;
mod words;
mod workspaces;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::Router;
use axum::middleware::{from_fn, from_fn_with_state};
use kasm_autoscale_core::input::{Answer, Fact};
use kasm_autoscale_core::pool::Pool;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use self::admission::Admission;
use self::error::ApiError;
use crate::auth::to_hex;
use crate::driver::PoolHandle;
use crate::host::{Host, accepted};
use crate::tokens::ApiTokens;
use crate::trail::{self, Trail};
use crate::users::Users;
use crate::workspaces::Workspaces;

pub use self::admission::CallerLimits;
pub use self::rate::Rate;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub use self::serve::unserved;
pub use self::serve::{ServeError, Setup, serve, serve_tls, serve_with};

/// What stands on the wire. The host knows nothing of these.
pub mod wire {
    pub use super::audit_log::{AuditList, AuditView, CallerView};
    pub use super::checkin::{ProgressBody, ServerStatusBody};
    pub use super::configs::{ConfigBody, ConfigGoing, ConfigList, ConfigView};
    pub use super::connection::{ConnectionView, Revealed};
    pub use super::error::{ErrorBody, ErrorDetail, ProblemView};
    pub use super::formats::GuacamoleView;
    pub use super::login::{LdapList, LdapView, LoginBody, LoginView};
    pub use super::pools::{PoolBody, PoolList, PoolTotals, PoolView};
    pub use super::servers::{AddressView, CheckInView, ServerList, ServerView};
    pub use super::sessions::{SessionBody, SessionList, SessionView};
    pub use super::tokens::{LoginsEnded, TokenBody, TokenList, TokenView};
    pub use super::why::{
        BackoffView, ConfigWhy, DecisionView, EventList, EventView, FreezeView, PhasesView, SupplyView, WhyView,
    };
    pub use super::workspaces::{WorkspaceBody, WorkspaceList, WorkspaceView};
}

/// How long a pool may take to be looked at or to answer, before the caller is told that it is busy.
const POOL_PATIENCE: Duration = Duration::from_secs(15);

/// What the server takes and how long it waits.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Limits {
    /// Connections at once; the next one waits to be accepted.
    pub connections: usize,
    /// Connections at once from one address, so that one that is up to no good does not keep all others out; one more is
    /// closed at once. A proxy is one address.
    pub connections_per_address: usize,
    /// Requests that are worked on at once; one more is answered with 503.
    pub requests: usize,
    /// Requests among them that wait for a session to be placed; one more is answered at once.
    pub waits: usize,
    /// How long a TLS handshake may take. Its connection counts as one all that time.
    pub handshake_time: Duration,
    /// The line and headers of a request, in bytes.
    pub headers: usize,
    /// The body of a request that may hold a config, in bytes. Other bodies may have 16 KiB.
    pub body: usize,
    /// How long the line and headers of a request may take, and how long a connection may be idle.
    pub header_time: Duration,
    /// How long a body may take.
    pub body_time: Duration,
    /// How long a request may take in all.
    pub handler: Duration,
    /// How long a caller may take to read the next piece of an answer. What is not read fills the network's buffers first.
    pub answer_time: Duration,
    /// The longest `?wait=`.
    pub wait: Duration,
    /// How long requests that are under way may take to end when the server stops.
    pub grace: Duration,
    /// How much one caller may ask.
    pub callers: CallerLimits,
    /// How many entries of the audit log are kept.
    pub audit_entries: u32,
}

impl Default for Limits {
    fn default() -> Self {
        let secs = Duration::from_secs;
        Self {
            connections: 1024,
            connections_per_address: 512,
            requests: 512,
            waits: 256,
            handshake_time: secs(10),
            headers: 32 * 1024,
            body: 1024 * 1024,
            header_time: secs(15),
            body_time: secs(20),
            handler: secs(70),
            answer_time: secs(20),
            wait: secs(60),
            grace: secs(10),
            callers: CallerLimits::default(),
            audit_entries: trail::KEEP_DEFAULT,
        }
    }
}

/// What every request is answered with. Cheap to clone.
#[derive(Clone)]
pub(crate) struct App(Arc<Shared>);

struct Shared {
    host: Arc<Host>,
    tokens: Arc<ApiTokens>,
    users: Arc<Users>,
    workspaces: Arc<Workspaces>,
    trail: Trail,
    limits: Limits,
    stop: CancellationToken,
    admission: Admission,
    requests: Arc<Semaphore>,
    waits: Semaphore,
    /// Requests that are worked on, also those whose callers have gone.
    tasks: TaskTracker,
    /// What makes the request ids of this run differ from those of every other.
    run: String,
    next_request: AtomicU64,
    openapi: String,
}

impl App {
    fn new(setup: Setup, tokens: Arc<ApiTokens>, stop: CancellationToken, openapi: String) -> Self {
        let Setup { host, tokens: _, users, workspaces, limits } = setup;
        let mut run = [0; 4];
        // Without random bytes the ids of two runs may be alike, which only makes a log harder to read.
        let _ = getrandom::fill(&mut run);
        let world = host.world();
        let trail = Trail::new(world.store.clone(), &world.key, world.clock, limits.audit_entries);
        Self(Arc::new(Shared {
            host,
            tokens,
            users,
            workspaces,
            trail,
            limits,
            stop,
            admission: Admission::new(limits.callers),
            requests: Arc::new(Semaphore::new(limits.requests)),
            waits: Semaphore::new(limits.waits),
            tasks: TaskTracker::new(),
            run: to_hex(&run),
            next_request: AtomicU64::new(1),
            openapi,
        }))
    }

    fn host(&self) -> &Host {
        &self.0.host
    }

    fn tokens(&self) -> &ApiTokens {
        &self.0.tokens
    }

    fn users(&self) -> &Users {
        &self.0.users
    }

    fn workspaces(&self) -> &Workspaces {
        &self.0.workspaces
    }

    fn trail(&self) -> &Trail {
        &self.0.trail
    }

    fn limits(&self) -> &Limits {
        &self.0.limits
    }

    fn next_request_id(&self) -> String {
        format!("req-{}-{}", self.0.run, self.0.next_request.fetch_add(1, Ordering::Relaxed))
    }

    /// The pool of this name, or an error that names those that there are.
    fn pool(&self, name: &str) -> Result<PoolHandle, ApiError> {
        self.host().pool(name).map_err(|_| {
            let pools = self.host().pools();
            let names = pools.iter().map(|pool| pool.name().as_str());
            ApiError::not_found(
                "unknown_pool",
                format!("there is no pool {}; {}", words::shown(name), words::there_are(names)),
            )
        })
    }

    /// Looks at a pool between two steps.
    async fn look<T: Send + 'static>(
        &self,
        pool: &PoolHandle,
        look: impl FnOnce(&Pool) -> T + Send + 'static,
    ) -> Result<T, ApiError> {
        let seen = tokio::time::timeout(POOL_PATIENCE, pool.look(look)).await;
        Ok(seen.map_err(|_| {
            ApiError::unavailable("pool_busy", "the pool does not answer; the daemon's log says why", 5)
        })??)
    }

    /// Tells a pool a fact, and waits until its consequences are saved, and with them that this call asked for them.
    async fn ask(&self, pool: &PoolHandle, fact: Fact) -> Result<Answer, ApiError> {
        let answer = tokio::time::timeout(POOL_PATIENCE, pool.ask_recorded(fact, recorded::asked())).await;
        let busy = |_| {
            ApiError::unavailable(
                "pool_busy",
                "the pool does not answer; it is not known whether this will take effect",
                5,
            )
        };
        Ok(accepted(answer.map_err(busy)??)?)
    }
}

/// Every route with its description.
fn described() -> OpenApiRouter<App> {
    OpenApiRouter::with_openapi(openapi::preamble())
        .routes(routes!(system::healthz))
        .routes(routes!(system::openapi))
        .routes(routes!(system::metrics))
        .routes(routes!(checkin::set_server_status))
        .routes(routes!(pools::list_pools, pools::create_pool))
        .routes(routes!(pools::show_pool, pools::change_pool, pools::delete_pool))
        .routes(routes!(configs::list_configs, configs::create_config))
        .routes(routes!(configs::show_config, configs::change_config, configs::delete_config))
        .routes(routes!(configs::enable_config))
        .routes(routes!(configs::disable_config))
        .routes(routes!(configs::acknowledge_loss))
        .routes(routes!(configs::lift_freeze))
        .routes(routes!(servers::list_servers))
        .routes(routes!(servers::show_server, servers::delete_server))
        .routes(routes!(servers::drain_server))
        .routes(routes!(servers::undrain_server))
        .routes(routes!(sessions::list_sessions, sessions::create_session))
        .routes(routes!(sessions::show_session, sessions::end_session))
        .routes(routes!(sessions::keep_session_alive))
        .routes(routes!(why::why))
        .routes(routes!(why::events))
        .routes(routes!(audit_log::list_audit_log))
        .routes(routes!(login::list_ldap))
        .routes(routes!(login::log_in, login::show_login))
        .routes(routes!(login::log_out))
        .routes(routes!(tokens::end_logins))
        .routes(routes!(tokens::list_tokens, tokens::create_token))
        .routes(routes!(tokens::revoke_token))
        .routes(routes!(workspaces::list_workspaces, workspaces::create_workspace))
        .routes(routes!(workspaces::show_workspace, workspaces::change_workspace, workspaces::delete_workspace))
        .routes(routes!(workspaces::launch))
        .routes(routes!(workspaces::show_own_session, workspaces::end_own_session))
        .routes(routes!(workspaces::keep_own_session_alive))
}

/// The OpenAPI 3.1 document, as `/openapi.json` serves it.
pub fn openapi_json() -> String {
    let (_, mut document) = described().split_for_parts();
    openapi::add_roles(&mut document);
    // It is made of texts and maps of texts, which always have a JSON form.
    document.to_json().unwrap_or_default()
}

/// Everything that is served: the API behind its table of roles.
fn router(app: &App) -> Router {
    let (api, _) = described().split_for_parts();
    let recorded = api.route_layer(from_fn_with_state(app.clone(), recorded::record));
    let authorized = recorded.route_layer(from_fn_with_state(app.clone(), gate::authorize)).with_state(app.clone());
    let all = authorized.fallback(gate::no_such_route);
    all.layer(from_fn_with_state(app.clone(), gate::observe)).layer(from_fn(gate::harden))
}
