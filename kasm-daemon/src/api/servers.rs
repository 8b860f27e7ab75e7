//! Servers of a pool.

use std::collections::BTreeSet;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use kasm_autoscale_core::id::{ConfigName, ServerId};
use kasm_autoscale_core::input::{Fact, Refusal};
use kasm_autoscale_core::pool::Pool;
use kasm_autoscale_core::server::{CheckIn, Phase, Server};
use serde::Serialize;
use utoipa::ToSchema;

use super::App;
use super::body::{NoParams, Params};
use super::error::{ApiError, ErrorBody};
use super::words;
use crate::clock::rfc3339;
use crate::driver::PoolHandle;

/// How many a page holds unless the caller says otherwise.
pub(super) const PAGE: u32 = 100;
/// How many a page may hold.
pub(super) const PAGE_MAX: u32 = 1000;
const PHASES: [&str; 7] = ["enrolling", "creating", "starting", "ready", "draining", "deleting", "unenrolling"];

/// A server.
#[derive(Debug, Serialize, ToSchema)]
pub struct ServerView {
    /// Its id, as in `srv-12`.
    pub id: String,
    /// Its computer name.
    pub name: String,
    /// Where it stands in its life: `enrolling`, `creating`, `starting`, `ready`, `draining`, `deleting`,
    /// `unenrolling` or `gone`.
    pub phase: String,
    /// Since when, where that is known.
    #[schema(format = DateTime)]
    pub since: Option<String>,
    /// What it is waiting for before it can be ready.
    pub missing: Option<String>,
    /// When it must be ready at the latest.
    #[schema(format = DateTime)]
    pub deadline: Option<String>,
    /// Why it is drained or deleted.
    pub why: Option<String>,
    /// Where users reach it.
    pub address: Option<AddressView>,
    /// What the provider calls its machine.
    pub machine: Option<String>,
    /// What the directory calls its computer object, where it joins a domain.
    pub computer: Option<String>,
    /// The provider.
    pub provider: String,
    /// The zone.
    pub zone: String,
    /// The config it was made by.
    pub config: String,
    /// Which edition of that config it was born with, and keeps.
    pub generation: u32,
    /// Whether the config has changed since.
    pub out_of_date: bool,
    /// How many sessions are on it.
    pub sessions: u32,
    /// How many it takes at once.
    pub sessions_max: u32,
    /// How many sessions were ever placed on it.
    pub sessions_ever: u32,
    /// What its machine last said of itself.
    pub check_in: Option<CheckInView>,
    /// When it was decided on.
    #[schema(format = DateTime)]
    pub created_at: String,
}

/// Where a server is reached.
#[derive(Debug, Serialize, ToSchema)]
pub struct AddressView {
    /// IP address or host name.
    pub host: String,
    /// The port.
    pub port: Option<u16>,
}

/// What a machine said of itself.
#[derive(Debug, Serialize, ToSchema)]
pub struct CheckInView {
    /// When.
    #[schema(format = DateTime)]
    pub at: String,
    /// `running` when it is ready.
    pub status: String,
    /// Free text.
    pub message: String,
    /// Percent.
    #[schema(maximum = 100)]
    pub progress: u8,
}

impl From<&CheckIn> for CheckInView {
    fn from(said: &CheckIn) -> Self {
        Self {
            at: rfc3339(said.at),
            status: said.status.clone(),
            message: said.message.clone(),
            progress: said.progress,
        }
    }
}

/// Some servers of a pool.
#[derive(Debug, Serialize, ToSchema)]
pub struct ServerList {
    /// The oldest first.
    pub servers: Vec<ServerView>,
    /// The `after` of the next page, if there is one.
    pub next: Option<String>,
}

fn view(pool: &Pool, server: &Server, out_of_date: bool) -> ServerView {
    let spec = pool.born_with(server);
    let (since, deadline, why) = match &server.phase {
        Phase::Enrolling { deadline, .. } | Phase::Creating { deadline, .. } | Phase::Starting { deadline, .. } => {
            (None, Some(*deadline), None)
        }
        Phase::Ready { since } => (Some(*since), None, None),
        Phase::Draining { since, why } => (Some(*since), None, Some(why.to_string())),
        Phase::Deleting { since, why, .. } | Phase::Unenrolling { since, why, .. } => {
            (Some(*since), None, Some(why.to_string()))
        }
    };
    ServerView {
        id: server.id.to_string(),
        name: pool.name_of(server).to_string(),
        phase: server.phase.kind().to_string(),
        since: since.map(rfc3339),
        missing: server.missing(spec.require_checkin).map(|missing| missing.to_string()),
        deadline: deadline.map(rfc3339),
        why,
        address: pool.address(server).map(|address| AddressView { host: address.host, port: address.port }),
        machine: server.machine.as_ref().map(ToString::to_string),
        computer: server.computer.as_ref().map(ToString::to_string),
        provider: spec.provider.to_string(),
        zone: spec.zone.to_string(),
        config: spec.name.to_string(),
        generation: server.generation,
        out_of_date,
        sessions: server.sessions,
        sessions_max: spec.max_sessions_per_server.get(),
        sessions_ever: server.taken,
        check_in: server.check_in.as_ref().map(CheckInView::from),
        created_at: rfc3339(server.created_at),
    }
}

/// Servers born with an earlier edition of their config.
fn outdated(pool: &Pool) -> BTreeSet<ServerId> {
    pool.report().configs.into_iter().flat_map(|config| config.out_of_date).collect()
}

async fn seen(app: &App, pool: &PoolHandle, id: ServerId) -> Result<Option<ServerView>, ApiError> {
    app.look(pool, move |pool| pool.server(id).map(|server| view(pool, server, outdated(pool).contains(&id)))).await
}

/// The pool, the server's id, and the server as it stands.
async fn found(app: &App, pool: &str, server: &str) -> Result<(PoolHandle, ServerId, ServerView), ApiError> {
    let pool = app.pool(pool)?;
    let unknown = || {
        let message = format!(
            "pool {} has no server {}; /v1/pools/{}/servers lists those that there are",
            pool.name(),
            words::shown(server),
            pool.name()
        );
        ApiError::not_found("unknown_server", message)
    };
    let id = server.parse().map_err(|_| unknown())?;
    let view = seen(app, &pool, id).await?.ok_or_else(unknown)?;
    Ok((pool, id, view))
}

/// The server after something was done to it. One whose machine was never made may be gone at once.
async fn after(app: &App, pool: &PoolHandle, id: ServerId, before: ServerView) -> Result<Json<ServerView>, ApiError> {
    let now = seen(app, pool, id).await?;
    Ok(Json(now.unwrap_or_else(|| ServerView { phase: "gone".into(), missing: None, deadline: None, ..before })))
}

/// Servers of a pool
#[utoipa::path(get, path = "/v1/pools/{pool}/servers", tag = "servers",
    params(
        ("pool" = String, Path, description = "The pool's name."),
        ("phase" = Option<String>, Query, description = "Only those in this phase: `enrolling`, `creating`, `starting`, `ready`, `draining`, `deleting` or `unenrolling`."),
        ("config" = Option<String>, Query, description = "Only those of this config."),
        ("limit" = Option<u32>, Query, minimum = 1, maximum = 1000, description = "How many at most; 100 unless said otherwise."),
        ("after" = Option<String>, Query, description = "Only those after this one: the `next` of the page before."),
    ),
    responses(
        (status = 200, description = "The servers.", body = ServerList),
        (status = 404, description = "There is no such pool.", body = ErrorBody),
        (status = 422, description = "A parameter has a mistake.", body = ErrorBody),
    ))]
pub(super) async fn list_servers(
    State(app): State<App>,
    Path(pool): Path<String>,
    mut params: Params,
) -> Result<Json<ServerList>, ApiError> {
    let phase = params.choice("phase", &PHASES);
    let config: Option<ConfigName> = params.id("config");
    let limit = params.integer("limit", 1..=PAGE_MAX).unwrap_or(PAGE);
    let after: Option<ServerId> = params.id("after");
    params.finish()?;
    let pool = app.pool(&pool)?;
    let page = app.look(&pool, move |pool| {
        let old = outdated(pool);
        let wanted = |server: &&Server| {
            after.is_none_or(|after| server.id > after)
                && phase.is_none_or(|phase| server.phase.kind().as_str() == phase)
                && config.as_ref().is_none_or(|config| pool.born_with(server).name == *config)
        };
        let mut matching = pool.servers().filter(wanted);
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let servers: Vec<ServerView> =
            matching.by_ref().take(limit).map(|server| view(pool, server, old.contains(&server.id))).collect();
        let next = matching.next().and_then(|_| servers.last().map(|server| server.id.clone()));
        ServerList { servers, next }
    });
    Ok(Json(page.await?))
}

/// A server
#[utoipa::path(get, path = "/v1/pools/{pool}/servers/{server}", tag = "servers",
    params(("pool" = String, Path, description = "The pool's name."), ("server" = String, Path, description = "The server's id.")), responses(
    (status = 200, description = "The server.", body = ServerView),
    (status = 404, description = "There is no such pool or server.", body = ErrorBody),
))]
pub(super) async fn show_server(
    State(app): State<App>,
    _: NoParams,
    Path((pool, server)): Path<(String, String)>,
) -> Result<Json<ServerView>, ApiError> {
    Ok(Json(found(&app, &pool, &server).await?.2))
}

/// Drain a server
///
/// It takes no new sessions, and is deleted when the last one has ended. One that is not ready yet is deleted at once.
#[utoipa::path(post, path = "/v1/pools/{pool}/servers/{server}/drain", tag = "servers",
    params(("pool" = String, Path, description = "The pool's name."), ("server" = String, Path, description = "The server's id.")), responses(
    (status = 200, description = "The server, draining.", body = ServerView),
    (status = 404, description = "There is no such pool or server.", body = ErrorBody),
    (status = 409, description = "It is already being deleted.", body = ErrorBody),
))]
pub(super) async fn drain_server(
    State(app): State<App>,
    _: NoParams,
    Path((pool, server)): Path<(String, String)>,
) -> Result<Json<ServerView>, ApiError> {
    let (pool, id, before) = found(&app, &pool, &server).await?;
    app.ask(&pool, Fact::DrainAsked(id)).await?;
    after(&app, &pool, id, before).await
}

/// Take an operator's drain back
#[utoipa::path(post, path = "/v1/pools/{pool}/servers/{server}/undrain", tag = "servers",
    params(("pool" = String, Path, description = "The pool's name."), ("server" = String, Path, description = "The server's id.")), responses(
    (status = 200, description = "The server, ready again.", body = ServerView),
    (status = 404, description = "There is no such pool or server.", body = ErrorBody),
    (status = 409, description = "No operator drains it, or it is already being deleted.", body = ErrorBody),
))]
pub(super) async fn undrain_server(
    State(app): State<App>,
    _: NoParams,
    Path((pool, server)): Path<(String, String)>,
) -> Result<Json<ServerView>, ApiError> {
    let (pool, id, before) = found(&app, &pool, &server).await?;
    app.ask(&pool, Fact::UndrainAsked(id)).await?;
    after(&app, &pool, id, before).await
}

/// Delete a server
///
/// A server with sessions is deleted with `force=true` alone, which ends them. To ask again for what is being done changes
/// nothing and is no error.
#[utoipa::path(delete, path = "/v1/pools/{pool}/servers/{server}", tag = "servers",
    params(
        ("pool" = String, Path, description = "The pool's name."),
        ("server" = String, Path, description = "The server's id."),
        ("force" = Option<bool>, Query, description = "Whether its sessions end with it."),
    ),
    responses(
        (status = 202, description = "The server, on its way out.", body = ServerView),
        (status = 404, description = "There is no such pool or server.", body = ErrorBody),
        (status = 409, description = "It has sessions.", body = ErrorBody),
    ))]
pub(super) async fn delete_server(
    State(app): State<App>,
    Path((pool, server)): Path<(String, String)>,
    mut params: Params,
) -> Result<(StatusCode, Json<ServerView>), ApiError> {
    let force = params.boolean("force").unwrap_or(false);
    params.finish()?;
    let (pool, id, before) = found(&app, &pool, &server).await?;
    match app.ask(&pool, Fact::DeleteAsked { server: id, force }).await {
        Err(error) if error.code == ApiError::from(Refusal::AlreadyDeleting { server: id }).code => {}
        other => drop(other?),
    }
    Ok((StatusCode::ACCEPTED, after(&app, &pool, id, before).await?))
}
