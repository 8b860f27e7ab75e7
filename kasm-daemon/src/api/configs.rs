//! Autoscale configs of a pool.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::{HeaderName, StatusCode, header};
use kasm_autoscale_core::config::{ConfigSpec, JsonObject};
use kasm_autoscale_core::id::ConfigName;
use kasm_autoscale_core::input::Fact;
use kasm_autoscale_core::pool::Pool;
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::App;
use super::body::{JsonBody, LARGE, NoParams};
use super::error::{ApiError, ErrorBody, ProblemView};
use super::pools::named;
use super::words;
use crate::driver::PoolHandle;
use crate::host::warnings;

/// An autoscale config. `null` is as good as leaving a field out.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({
    "name": "win-west", "zone": "west", "provider": "aws-west", "connection_username": "{sso_username}", "connection_password": "{sso_cred}",
    "minimum_available_sessions": 10, "max_sessions_per_server": 5, "max_servers": 40,
}))]
pub struct ConfigBody {
    /// The name, unique in the pool: 1 to 63 letters, digits, `.`, `_` or `-`. A config keeps it.
    pub name: String,
    /// A disabled config makes nothing, empties its servers and deletes them.
    #[schema(required = false, default = true)]
    pub enabled: bool,
    /// Where its servers are. Users of that zone are placed on them first.
    #[schema(required = false, default = "default")]
    pub zone: String,
    /// `rdp`, `vnc`, `ssh` or `kasmvnc`.
    #[schema(required = false, default = "rdp")]
    pub connection_type: String,
    /// 1 to 65535; by default the one of the connection type.
    #[schema(required = false, minimum = 1)]
    pub connection_port: u16,
    /// Where users reach the servers, if not at the machine's own address: at most 255 characters.
    pub connection_address: Option<String>,
    /// The name to log in with; `{sso_username}` stands for the session's user. Left out: the user is asked.
    pub connection_username: Option<String>,
    /// `"{sso_cred}"` for the user's own password, or `{"secret": NAME}` for one that the host keeps. Left out: the user is asked.
    /// A password itself does not belong here.
    #[schema(value_type = Object, required = false, nullable = true)]
    pub connection_password: Value,
    /// Further settings, handed to the client as they are: at most 64 KiB.
    #[schema(value_type = Object, required = false)]
    pub connection_info: JsonObject,
    /// Whether a server is used again after a session has ended.
    #[schema(required = false, default = false)]
    pub reusable: bool,
    /// How many sessions are free at all times: 0 to 1,000,000.
    #[schema(required = false, default = 0, maximum = 1_000_000)]
    pub minimum_available_sessions: u32,
    /// How many sessions a server takes at once: 1 to 1,000.
    #[schema(required = false, default = 1, minimum = 1, maximum = 1000)]
    pub max_sessions_per_server: u32,
    /// How many servers there may be, counting everything that is not proved gone: 0 to 1,000,000.
    #[schema(required = false, default = 100, maximum = 1_000_000)]
    pub max_servers: u32,
    /// How long a surplus must have lasted before it is deleted: `0s` to `7d`.
    #[schema(required = false, default = "30m")]
    pub downscale_backoff: String,
    /// Whether a server must have checked in before it is ready.
    #[schema(required = false, default = false)]
    pub require_checkin: bool,
    /// How long a server may take until it is ready, before it is deleted: `1s` to `1d`.
    #[schema(required = false, default = "15m")]
    pub boot_deadline: String,
    /// Which config makes servers first where several could, the lowest number first: for requests that wait, and for a config
    /// that cannot make what it promises. 0 to 1,000. Where users are placed does not depend on it.
    #[schema(required = false, default = 100, maximum = 1000)]
    pub priority: u32,
    /// How many of the last `breaker_window` servers must have failed to become ready before no more are made, and then one at
    /// a time until one becomes ready: 1 to 64.
    #[schema(required = false, default = 5, minimum = 1, maximum = 64)]
    pub breaker_failures: u32,
    /// How many of the last servers are looked at for that: 1 to 64, at least `breaker_failures`.
    #[schema(required = false, default = 10, minimum = 1, maximum = 64)]
    pub breaker_window: u32,
    /// How long the machine of a server that failed to become ready is kept for diagnosis: `0s` to `7d`. It counts against
    /// `max_servers`.
    #[schema(required = false, default = "0s")]
    pub keep_failed_for: String,
    /// How many such machines are kept at once: 0 to 1,000.
    #[schema(required = false, default = 1, maximum = 1000)]
    pub keep_failed_max: u32,
    /// Who makes the machines: the name of a provider of the host.
    pub provider: String,
    /// The provider's own settings for them: at most 64 KiB.
    #[schema(value_type = Object, required = false)]
    pub machine: JsonObject,
    /// What a machine runs when it starts, with `{variables}`.
    pub startup_script: Option<String>,
    /// Where machines reach this installation, for the startup script: at most 255 characters.
    pub upstream_auth_address: Option<String>,
    /// The computer names of the machines: letters, digits and hyphens with `{random}` or `{number}` in it, 15 characters at most.
    #[schema(required = false, default = "kasm-{random}")]
    pub server_name_pattern: String,
    /// The machines join the domain of this directory: the name of one of the host's LDAP configs. Left out: they join none.
    pub ad_directory: Option<String>,
    /// The distinguished name of the organisational unit their computer objects lie in; required with `ad_directory`.
    pub ad_computer_ou_dn: Option<String>,
    /// Whether a computer object is removed with whatever lies below it.
    pub ad_recursive_cleanup: Option<bool>,
}

/// A config of a pool.
#[derive(Debug, Serialize, ToSchema)]
pub struct ConfigView {
    /// The config, with all its fields. It can be put back as it is.
    #[schema(value_type = ConfigBody)]
    pub config: Value,
    /// Its edition: 1 more with every change. Servers keep the edition they were born with.
    pub generation: u32,
    /// Whether the config file declares it, so that it is changed there and not here.
    pub declared: bool,
    /// What is legal but unwise.
    pub warnings: Vec<ProblemView>,
}

/// The configs of a pool.
#[derive(Debug, Serialize, ToSchema)]
pub struct ConfigList {
    /// In the order in which they were first set. Those that are on their way out stand in `/why` alone.
    pub configs: Vec<ConfigView>,
}

/// A config on its way out.
#[derive(Debug, Serialize, ToSchema)]
pub struct ConfigGoing {
    /// Its name.
    pub config: String,
    /// How many of its servers are not proved gone.
    pub servers: u32,
}

/// The configs in force, each with its edition.
fn editions(pool: &Pool) -> Vec<(ConfigSpec, u32)> {
    let report = pool.report();
    let generation = |spec: &ConfigSpec| {
        let mut configs = report.configs.iter().filter(|config| !config.removed);
        configs.find(|config| config.config == spec.name).map_or(0, |config| config.generation)
    };
    pool.configs().map(|spec| (spec.clone(), generation(spec))).collect()
}

fn viewed(app: &App, pool: &PoolHandle, spec: &ConfigSpec, generation: u32) -> ConfigView {
    ConfigView {
        config: spec.to_json(),
        generation,
        declared: app.host().is_declared(pool.name(), Some(&spec.name)),
        warnings: warnings(spec).into_iter().map(ProblemView::from).collect(),
    }
}

async fn view(app: &App, pool: &PoolHandle, name: &str) -> Result<ConfigView, ApiError> {
    let all = app.look(pool, editions).await?;
    match all.iter().find(|(spec, _)| spec.name.as_str() == name) {
        Some((spec, generation)) => Ok(viewed(app, pool, spec, *generation)),
        None => {
            let names = all.iter().map(|(spec, _)| spec.name.as_str());
            let message =
                format!("pool {} has no config {}; {}", pool.name(), words::shown(name), words::there_are(names));
            Err(ApiError::not_found("unknown_config", message))
        }
    }
}

/// The pool, and the name of a config that it has.
async fn existing(app: &App, pool: &str, config: &str) -> Result<(PoolHandle, ConfigName), ApiError> {
    let pool = app.pool(pool)?;
    view(app, &pool, config).await?;
    // What is the name of a config is a name.
    let name = config.parse().map_err(|_| ApiError::not_found("unknown_config", "not the name of a config"))?;
    Ok((pool, name))
}

/// All configs of a pool
#[utoipa::path(get, path = "/v1/pools/{pool}/configs", tag = "configs", params(("pool" = String, Path, description = "The pool's name.")), responses(
    (status = 200, description = "The configs.", body = ConfigList),
    (status = 404, description = "There is no such pool.", body = ErrorBody),
))]
pub(super) async fn list_configs(
    State(app): State<App>,
    _: NoParams,
    Path(pool): Path<String>,
) -> Result<Json<ConfigList>, ApiError> {
    let pool = app.pool(&pool)?;
    let all = app.look(&pool, editions).await?;
    let configs = all.iter().map(|(spec, generation)| viewed(&app, &pool, spec, *generation)).collect();
    Ok(Json(ConfigList { configs }))
}

/// Add a config to a pool
#[utoipa::path(post, path = "/v1/pools/{pool}/configs", tag = "configs",
    params(("pool" = String, Path, description = "The pool's name.")), request_body = ConfigBody, responses(
    (status = 201, description = "Added.", body = ConfigView, headers(("location" = String, description = "The config."))),
    (status = 404, description = "There is no such pool.", body = ErrorBody),
    (status = 409, description = "There is a config of this name.", body = ErrorBody),
    (status = 422, description = "The config has mistakes: all of them.", body = ErrorBody),
))]
pub(super) async fn create_config(
    State(app): State<App>,
    _: NoParams,
    Path(pool): Path<String>,
    JsonBody(body): JsonBody<LARGE>,
) -> Result<(StatusCode, [(HeaderName, String); 1], Json<ConfigView>), ApiError> {
    let pool = app.pool(&pool)?;
    let spec = ConfigSpec::from_json(&body)?;
    let name = spec.name.clone();
    app.host().add_config(&pool, spec).await?;
    let location = format!("/v1/pools/{}/configs/{name}", pool.name());
    let view = view(&app, &pool, name.as_str()).await?;
    Ok((StatusCode::CREATED, [(header::LOCATION, location)], Json(view)))
}

/// A config
#[utoipa::path(get, path = "/v1/pools/{pool}/configs/{config}", tag = "configs",
    params(("pool" = String, Path, description = "The pool's name."), ("config" = String, Path, description = "The config's name.")), responses(
    (status = 200, description = "The config.", body = ConfigView),
    (status = 404, description = "There is no such pool or config.", body = ErrorBody),
))]
pub(super) async fn show_config(
    State(app): State<App>,
    _: NoParams,
    Path((pool, config)): Path<(String, String)>,
) -> Result<Json<ConfigView>, ApiError> {
    Ok(Json(view(&app, &app.pool(&pool)?, &config).await?))
}

/// Replace a config
///
/// What is left out gets its default. The name may be left out. Servers that there are keep what they were born with.
#[utoipa::path(put, path = "/v1/pools/{pool}/configs/{config}", tag = "configs",
    params(("pool" = String, Path, description = "The pool's name."), ("config" = String, Path, description = "The config's name.")),
    request_body = ConfigBody, responses(
    (status = 200, description = "Replaced.", body = ConfigView),
    (status = 404, description = "There is no such pool or config.", body = ErrorBody),
    (status = 409, description = "The config file declares it.", body = ErrorBody),
    (status = 422, description = "The config has mistakes: all of them.", body = ErrorBody),
))]
pub(super) async fn change_config(
    State(app): State<App>,
    _: NoParams,
    Path((pool, config)): Path<(String, String)>,
    JsonBody(mut body): JsonBody<LARGE>,
) -> Result<Json<ConfigView>, ApiError> {
    let (pool, name) = existing(&app, &pool, &config).await?;
    named(&mut body, name.as_str())?;
    app.host().replace_config(&pool, ConfigSpec::from_json(&body)?).await?;
    Ok(Json(view(&app, &pool, name.as_str()).await?))
}

/// Remove a config
///
/// Its servers take no new sessions, and are deleted when they are empty; it is gone with the last one.
#[utoipa::path(delete, path = "/v1/pools/{pool}/configs/{config}", tag = "configs",
    params(("pool" = String, Path, description = "The pool's name."), ("config" = String, Path, description = "The config's name.")), responses(
    (status = 202, description = "On its way out.", body = ConfigGoing),
    (status = 404, description = "There is no such pool or config.", body = ErrorBody),
    (status = 409, description = "The config file declares it.", body = ErrorBody),
))]
pub(super) async fn delete_config(
    State(app): State<App>,
    _: NoParams,
    Path((pool, config)): Path<(String, String)>,
) -> Result<(StatusCode, Json<ConfigGoing>), ApiError> {
    let (pool, name) = existing(&app, &pool, &config).await?;
    app.host().remove_config(&pool, name.clone()).await?;
    let report = app.look(&pool, Pool::report).await?;
    let going =
        report.configs.iter().filter(|config| config.removed && config.config == name).map(|config| config.servers);
    let servers = going.map(|phases| phases.live()).sum();
    Ok((StatusCode::ACCEPTED, Json(ConfigGoing { config, servers })))
}

/// Enable a config
#[utoipa::path(post, path = "/v1/pools/{pool}/configs/{config}/enable", tag = "configs",
    params(("pool" = String, Path, description = "The pool's name."), ("config" = String, Path, description = "The config's name.")), responses(
    (status = 200, description = "Enabled.", body = ConfigView),
    (status = 404, description = "There is no such pool or config.", body = ErrorBody),
    (status = 409, description = "The config file declares it.", body = ErrorBody),
    (status = 422, description = "The config has mistakes by now, as when its secret is no longer kept.", body = ErrorBody),
))]
pub(super) async fn enable_config(
    State(app): State<App>,
    _: NoParams,
    Path((pool, config)): Path<(String, String)>,
) -> Result<Json<ConfigView>, ApiError> {
    switch(&app, &pool, &config, true).await
}

/// Disable a config
///
/// It makes nothing any more; its servers take no new sessions, and are deleted when they are empty.
#[utoipa::path(post, path = "/v1/pools/{pool}/configs/{config}/disable", tag = "configs",
    params(("pool" = String, Path, description = "The pool's name."), ("config" = String, Path, description = "The config's name.")), responses(
    (status = 200, description = "Disabled.", body = ConfigView),
    (status = 404, description = "There is no such pool or config.", body = ErrorBody),
    (status = 409, description = "The config file declares it.", body = ErrorBody),
))]
pub(super) async fn disable_config(
    State(app): State<App>,
    _: NoParams,
    Path((pool, config)): Path<(String, String)>,
) -> Result<Json<ConfigView>, ApiError> {
    switch(&app, &pool, &config, false).await
}

/// Confirm that machines are lost
///
/// A listing that misses most of a config's machines at once is not believed: nothing counts as lost, and nothing is deleted,
/// until they are seen again. Whoever knows that they are gone says so here. What the last listing missed then counts as lost:
/// its sessions end, and other servers are made.
#[utoipa::path(post, path = "/v1/pools/{pool}/configs/{config}/acknowledge-loss", tag = "configs",
    params(("pool" = String, Path, description = "The pool's name."), ("config" = String, Path, description = "The config's name; one on its way out has it still.")), responses(
    (status = 204, description = "They count as lost."),
    (status = 404, description = "There is no such pool or config.", body = ErrorBody),
    (status = 409, description = "No implausible number of machines is missing.", body = ErrorBody),
))]
pub(super) async fn acknowledge_loss(
    State(app): State<App>,
    _: NoParams,
    Path((pool, config)): Path<(String, String)>,
) -> Result<StatusCode, ApiError> {
    tell(&app, &pool, &config, Fact::LossAcknowledged).await
}

/// Lift a freeze
///
/// A config for which an invariant does not hold is frozen: nothing is made for it and nothing of it is deleted, while its sessions
/// go on. Whoever has found out why lets it go on here. Everything is recounted first, and it stays frozen as long as something does
/// not add up.
#[utoipa::path(post, path = "/v1/pools/{pool}/configs/{config}/lift-freeze", tag = "configs",
    params(("pool" = String, Path, description = "The pool's name."), ("config" = String, Path, description = "The config's name; one on its way out has it still.")), responses(
    (status = 204, description = "It makes and deletes again."),
    (status = 404, description = "There is no such pool or config.", body = ErrorBody),
    (status = 409, description = "It is not frozen, or something still does not hold: it stays frozen.", body = ErrorBody),
))]
pub(super) async fn lift_freeze(
    State(app): State<App>,
    _: NoParams,
    Path((pool, config)): Path<(String, String)>,
) -> Result<StatusCode, ApiError> {
    tell(&app, &pool, &config, Fact::FreezeLifted).await
}

/// Tells a pool an operator's word on one of its configs; one that is on its way out is meant as well.
async fn tell(app: &App, pool: &str, config: &str, fact: fn(ConfigName) -> Fact) -> Result<StatusCode, ApiError> {
    let pool = app.pool(pool)?;
    let Ok(name) = config.parse::<ConfigName>() else {
        return view(app, &pool, config).await.map(|_| StatusCode::NO_CONTENT);
    };
    match app.ask(&pool, fact(name)).await {
        // It names the configs that there are.
        Err(error) if error.code == "unknown_config" => view(app, &pool, config).await.map(|_| StatusCode::NO_CONTENT),
        answer => answer.map(|_| StatusCode::NO_CONTENT),
    }
}

async fn switch(app: &App, pool: &str, config: &str, enabled: bool) -> Result<Json<ConfigView>, ApiError> {
    let (pool, name) = existing(app, pool, config).await?;
    app.host().set_config_enabled(&pool, &name, enabled).await?;
    Ok(Json(view(app, &pool, config).await?))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use utoipa::PartialSchema;

    use super::*;

    #[test]
    fn the_documented_fields_are_those_that_are_read() {
        let spec =
            ConfigSpec::from_json(serde_json::json!({ "name": "a", "provider": "p" }).as_object().unwrap()).unwrap();
        let real = spec.to_json();
        let schema = serde_json::to_value(ConfigBody::schema()).unwrap();
        let keys = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<BTreeSet<_>>();
        assert_eq!(keys(&schema["properties"]), keys(&real));
        assert_eq!(schema["required"], serde_json::json!(["name", "provider"]));
        for (field, described) in schema["properties"].as_object().unwrap() {
            if let Some(default) = described.get("default") {
                assert_eq!(*default, real[field], "{field}");
            }
        }
    }
}
