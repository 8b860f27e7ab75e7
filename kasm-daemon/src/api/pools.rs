//! Pools.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::{HeaderName, StatusCode, header};
use kasm_autoscale_core::config::{JsonObject, PoolSpec, Problem};
use kasm_autoscale_core::report::Report;
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::App;
use super::body::{JsonBody, NoParams, SMALL};
use super::error::{ApiError, ErrorBody};
use crate::driver::PoolHandle;
use crate::workspaces::Workspace;

/// The settings of a pool.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({ "name": "office", "placement": "spread", "queue_deadline": "10m" }))]
pub struct PoolBody {
    /// The name: 1 to 63 letters, digits, `.`, `_` or `-`. A pool keeps it.
    pub name: String,
    /// `server`.
    #[schema(required = false, default = "server")]
    pub r#type: String,
    /// How a server is chosen for a session: `spread` (the one with the fewest sessions) or `pack` (the fullest).
    #[schema(required = false, default = "spread")]
    pub placement: String,
    /// How long a request may wait for a free session: `1s` to `1d`.
    #[schema(required = false, default = "10m")]
    pub queue_deadline: String,
    /// How many requests may wait at once: 0 to 1,000,000.
    #[schema(required = false, default = 10_000)]
    pub queue_max: u32,
    /// How long after its last keep-alive a session ends: `10s` to `30d`.
    #[schema(required = false, default = "1h")]
    pub keepalive_expiry: String,
}

/// A pool.
#[derive(Debug, Serialize, ToSchema)]
pub struct PoolView {
    /// Its name.
    pub name: String,
    /// Its id, for ever: a pool that is made anew under an old name has another one.
    pub id: String,
    /// Whether the config file declares it, so that it is changed there and not here.
    pub declared: bool,
    /// Its settings, all of them.
    #[schema(value_type = PoolBody)]
    pub settings: Value,
    /// How it stands.
    pub totals: PoolTotals,
}

/// How a pool stands: the sums over its configs.
#[derive(Debug, Serialize, ToSchema)]
pub struct PoolTotals {
    /// Autoscale configs, those on their way out included.
    pub configs: usize,
    /// Servers in all phases.
    pub servers: u32,
    /// Servers that are ready for users.
    pub ready: u32,
    /// Sessions that are free on servers that are ready.
    pub free: u32,
    /// Sessions that servers which are being made will bring.
    pub coming: u32,
    /// Sessions that are active.
    pub sessions: u32,
    /// Requests that wait for a session.
    pub waiting: u32,
}

impl PoolTotals {
    fn of(report: &Report) -> Self {
        let mut totals = Self {
            configs: report.configs.len(),
            servers: 0,
            ready: 0,
            free: 0,
            coming: 0,
            sessions: report.sessions,
            waiting: report.waiting,
        };
        for config in &report.configs {
            let phases = &config.servers;
            totals.servers += phases.live();
            totals.ready += phases.ready;
            totals.free += config.supply.free;
            totals.coming += config.supply.coming;
        }
        totals
    }
}

/// All pools.
#[derive(Debug, Serialize, ToSchema)]
pub struct PoolList {
    /// By name.
    pub pools: Vec<PoolView>,
}

async fn view(app: &App, pool: &PoolHandle) -> Result<PoolView, ApiError> {
    let (spec, report) = app.look(pool, |pool| (pool.spec().clone(), pool.report())).await?;
    Ok(PoolView {
        name: spec.name.to_string(),
        id: spec.id.to_string(),
        declared: app.host().is_declared(&spec.name, None),
        settings: PoolSpec::to_json(&spec),
        totals: PoolTotals::of(&report),
    })
}

/// All pools
#[utoipa::path(get, path = "/v1/pools", tag = "pools", responses((status = 200, description = "The pools.", body = PoolList)))]
pub(super) async fn list_pools(State(app): State<App>, _: NoParams) -> Result<Json<PoolList>, ApiError> {
    let mut pools = vec![];
    for pool in app.host().pools() {
        pools.push(view(&app, &pool).await?);
    }
    Ok(Json(PoolList { pools }))
}

/// Make a pool
#[utoipa::path(post, path = "/v1/pools", tag = "pools", request_body = PoolBody, responses(
    (status = 201, description = "Made.", body = PoolView, headers(("location" = String, description = "The pool."))),
    (status = 409, description = "There is a pool of this name.", body = ErrorBody),
    (status = 422, description = "The settings have mistakes.", body = ErrorBody),
))]
pub(super) async fn create_pool(
    State(app): State<App>,
    _: NoParams,
    JsonBody(settings): JsonBody<SMALL>,
) -> Result<(StatusCode, [(HeaderName, String); 1], Json<PoolView>), ApiError> {
    let pool = app.host().add_pool(&settings).await?;
    let location = format!("/v1/pools/{}", pool.name());
    Ok((StatusCode::CREATED, [(header::LOCATION, location)], Json(view(&app, &pool).await?)))
}

/// A pool
#[utoipa::path(get, path = "/v1/pools/{pool}", tag = "pools", params(("pool" = String, Path, description = "The pool's name.")), responses(
    (status = 200, description = "The pool.", body = PoolView),
    (status = 404, description = "There is no such pool.", body = ErrorBody),
))]
pub(super) async fn show_pool(
    State(app): State<App>,
    _: NoParams,
    Path(pool): Path<String>,
) -> Result<Json<PoolView>, ApiError> {
    Ok(Json(view(&app, &app.pool(&pool)?).await?))
}

/// Replace the settings of a pool
///
/// What is left out gets its default. The name may be left out.
#[utoipa::path(put, path = "/v1/pools/{pool}", tag = "pools", params(("pool" = String, Path, description = "The pool's name.")), request_body = PoolBody, responses(
    (status = 200, description = "Changed.", body = PoolView),
    (status = 404, description = "There is no such pool.", body = ErrorBody),
    (status = 409, description = "The config file declares it.", body = ErrorBody),
    (status = 422, description = "The settings have mistakes.", body = ErrorBody),
))]
pub(super) async fn change_pool(
    State(app): State<App>,
    _: NoParams,
    Path(pool): Path<String>,
    JsonBody(mut settings): JsonBody<SMALL>,
) -> Result<Json<PoolView>, ApiError> {
    let pool = app.pool(&pool)?;
    named(&mut settings, pool.name().as_str())?;
    app.host().set_pool(&pool, &settings).await?;
    Ok(Json(view(&app, &pool).await?))
}

/// Forget a pool that has neither configs nor servers
#[utoipa::path(delete, path = "/v1/pools/{pool}", tag = "pools", params(("pool" = String, Path, description = "The pool's name.")), responses(
    (status = 204, description = "Forgotten."),
    (status = 404, description = "There is no such pool.", body = ErrorBody),
    (status = 409, description = "The config file declares it, or it has configs, servers or workspaces.", body = ErrorBody),
))]
pub(super) async fn delete_pool(
    State(app): State<App>,
    _: NoParams,
    Path(pool): Path<String>,
) -> Result<StatusCode, ApiError> {
    let pool = app.pool(&pool)?;
    let of_it = |workspace: &Arc<Workspace>| workspace.pool == *pool.name();
    let all = app.workspaces().all();
    if let Some(user) =
        all.iter().find(|workspace| of_it(workspace)).filter(|_| !app.host().is_declared(pool.name(), None))
    {
        let message = format!("workspace {:?} is of this pool; delete it first", user.name.as_str());
        return Err(ApiError::new(StatusCode::CONFLICT, "pool_has_workspaces", message));
    }
    app.host().remove_pool(&pool).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Gives what is put at a name that name. If it has one, it must be the same: nothing is renamed.
pub(super) fn named(object: &mut JsonObject, name: &str) -> Result<(), ApiError> {
    match object.get("name") {
        None | Some(Value::Null) => {
            object.insert("name".into(), name.into());
            Ok(())
        }
        Some(Value::String(given)) if given == name => Ok(()),
        Some(other) => {
            let given = kasm_autoscale_core::fields::shown(other);
            Err(ApiError::invalid(vec![Problem::new(
                "name",
                given,
                format!("{name:?}, as in the path: nothing can be renamed"),
            )]))
        }
    }
}
