//! Workspaces: kept by operators, launched by users.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderName, StatusCode, header};
use axum::response::Response;
use kasm_autoscale_core::config::{JsonObject, Problem};
use kasm_autoscale_core::id::{SessionId, ZoneName};
use kasm_autoscale_core::input::{Fact, Refusal};
use kasm_autoscale_core::session::SessionRequest;
use serde::Serialize;
use serde_json::Value;
use std::sync::Arc;
use utoipa::ToSchema;

use super::App;
use super::body::{JsonBody, NoParams, Params, SMALL};
use super::connection::Eyes;
use super::error::{ApiError, ErrorBody};
use super::formats::{Format, GuacamoleView};
use super::gate::User;
use super::pools::named;
use super::sessions::{Seen, SessionView, ended, look_at, placed, requested, scoped_key, session_of, status_of};
use super::words;
use crate::auth::Caller;
use crate::driver::PoolHandle;
use crate::users::Login;
use crate::workspaces::{Workspace, WorkspaceError};

/// The settings of a workspace.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({ "name": "office", "pool": "windows-west", "friendly_name": "Office desktop", "sso_domain": "CORP\\" }))]
pub struct WorkspaceBody {
    /// The name: 1 to 63 letters, digits, `.`, `_` or `-`. A workspace keeps it.
    pub name: String,
    /// The pool that its sessions are of.
    pub pool: String,
    /// The name that users see: at most 128 characters. Left out: the name.
    #[schema(required = false)]
    pub friendly_name: String,
    /// What it is for: at most 2,000 characters.
    #[schema(required = false)]
    pub description: String,
    /// Whether users see it.
    #[schema(required = false, default = true)]
    pub enabled: bool,
    /// The form in which servers know a user's name: `localhost` for the name alone, a domain with a backslash after it for
    /// `DOMAIN\user`, any other domain for `user@domain`. Left out: `user@` and the domain he has logged in to.
    #[schema(required = false)]
    pub sso_domain: String,
    /// The LDAP configs whose users it is open to. Left out: all.
    #[schema(required = false)]
    pub ldap: Vec<String>,
    /// The groups whose members it is open to, by their distinguished names. Left out: everybody.
    #[schema(required = false)]
    pub groups: Vec<String>,
}

/// A workspace.
#[derive(Debug, Serialize, ToSchema)]
pub struct WorkspaceView {
    /// Its name, for programs.
    pub name: String,
    /// Its name, for people.
    pub friendly_name: String,
    /// What it is for.
    pub description: String,
    /// All its settings. They can be put back as they are. Not for users.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<WorkspaceBody>)]
    pub settings: Option<Value>,
    /// Whether the config file declares it, so that it is changed there and not here. Not for users.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub declared: Option<bool>,
    /// For a user: the session that he has there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session: Option<SessionView>,
}

/// Workspaces.
#[derive(Debug, Serialize, ToSchema)]
pub struct WorkspaceList {
    /// By name: all of them, or for a user those that are open to him.
    pub workspaces: Vec<WorkspaceView>,
}

fn plain(workspace: &Workspace) -> WorkspaceView {
    WorkspaceView {
        name: workspace.name.to_string(),
        friendly_name: workspace.friendly_name.clone(),
        description: workspace.description.clone(),
        settings: None,
        declared: None,
        session: None,
    }
}

fn for_staff(app: &App, workspace: &Workspace) -> WorkspaceView {
    WorkspaceView {
        settings: Some(workspace.to_json()),
        declared: Some(app.workspaces().is_declared(&workspace.name)),
        ..plain(workspace)
    }
}

async fn for_user(app: &App, workspace: &Workspace, login: &Login) -> Result<WorkspaceView, ApiError> {
    // A pool that is gone has no sessions; to launch the workspace says so.
    let seen = match app.host().pool(workspace.pool.as_str()) {
        Ok(pool) => session_of(app, &pool, login.user()).await?,
        Err(_) => None,
    };
    Ok(WorkspaceView { session: seen.map(|seen| seen.view(app, Eyes::Outside)), ..plain(workspace) })
}

/// The workspace of this name. To a user one that is not open to him is as one that is not there.
fn existing(app: &App, name: &str, login: Option<&Login>) -> Result<Arc<Workspace>, ApiError> {
    let found = app.workspaces().get(name);
    let found = found.ok().filter(|workspace| login.is_none_or(|login| workspace.is_open_to(login)));
    found.ok_or_else(|| {
        let all = app.workspaces().all();
        let open: Vec<&str> = all
            .iter()
            .filter(|workspace| login.is_none_or(|login| workspace.is_open_to(login)))
            .map(|workspace| workspace.name.as_str())
            .collect();
        let message = format!("there is no workspace {}; {}", words::shown(name), words::there_are(open.into_iter()));
        ApiError::not_found("unknown_workspace", message)
    })
}

fn read(app: &App, body: &JsonObject) -> Result<Workspace, ApiError> {
    let workspace = Workspace::from_json(body).map_err(ApiError::invalid)?;
    let mut problems = vec![];
    if app.host().pool(workspace.pool.as_str()).is_err() {
        let pools = app.host().pools();
        let names = pools.iter().map(|pool| pool.name().as_str());
        let allowed = format!("the name of a pool; {}", words::there_are(names));
        problems.push(Problem::new("pool", words::shown(workspace.pool.as_str()), allowed));
    }
    for (index, name) in workspace.ldap.iter().enumerate() {
        if !app.users().realms().any(|(known, _)| known == name) {
            let names = app.users().realms().map(|(name, _)| name.as_str());
            let allowed = format!("the name of an LDAP config; {}", words::there_are(names));
            problems.push(Problem::new(format!("ldap[{index}]"), words::shown(name.as_str()), allowed));
        }
    }
    if problems.is_empty() { Ok(workspace) } else { Err(ApiError::invalid(problems)) }
}

/// All workspaces
///
/// A user sees those that are enabled and open to him, each with the session he has there.
#[utoipa::path(get, path = "/v1/workspaces", tag = "workspaces", responses((status = 200, description = "The workspaces.", body = WorkspaceList)))]
pub(super) async fn list_workspaces(
    State(app): State<App>,
    _: NoParams,
    user: Option<User>,
) -> Result<Json<WorkspaceList>, ApiError> {
    let mut workspaces = vec![];
    for workspace in app.workspaces().all() {
        match &user {
            None => workspaces.push(for_staff(&app, &workspace)),
            Some(User(login)) if workspace.is_open_to(login) => {
                workspaces.push(for_user(&app, &workspace, login).await?);
            }
            Some(_) => {}
        }
    }
    Ok(Json(WorkspaceList { workspaces }))
}

/// Make a workspace
#[utoipa::path(post, path = "/v1/workspaces", tag = "workspaces", request_body = WorkspaceBody, responses(
    (status = 201, description = "Made.", body = WorkspaceView, headers(("location" = String, description = "The workspace."))),
    (status = 409, description = "There is a workspace of this name.", body = ErrorBody),
    (status = 422, description = "The settings have mistakes: all of them.", body = ErrorBody),
))]
pub(super) async fn create_workspace(
    State(app): State<App>,
    _: NoParams,
    JsonBody(body): JsonBody<SMALL>,
) -> Result<(StatusCode, [(HeaderName, String); 1], Json<WorkspaceView>), ApiError> {
    let workspace = read(&app, &body)?;
    app.workspaces().add(workspace.clone()).await?;
    let location = format!("/v1/workspaces/{}", workspace.name);
    Ok((StatusCode::CREATED, [(header::LOCATION, location)], Json(for_staff(&app, &workspace))))
}

/// A workspace
#[utoipa::path(get, path = "/v1/workspaces/{workspace}", tag = "workspaces",
    params(("workspace" = String, Path, description = "The workspace's name.")), responses(
    (status = 200, description = "The workspace.", body = WorkspaceView),
    (status = 404, description = "There is no such workspace, or it is not open to this user.", body = ErrorBody),
))]
pub(super) async fn show_workspace(
    State(app): State<App>,
    _: NoParams,
    user: Option<User>,
    Path(workspace): Path<String>,
) -> Result<Json<WorkspaceView>, ApiError> {
    let login = user.as_ref().map(|User(login)| &**login);
    let workspace = existing(&app, &workspace, login)?;
    Ok(Json(match login {
        None => for_staff(&app, &workspace),
        Some(login) => for_user(&app, &workspace, login).await?,
    }))
}

/// Replace the settings of a workspace
///
/// What is left out gets its default. The name may be left out. Sessions that there are go on.
#[utoipa::path(put, path = "/v1/workspaces/{workspace}", tag = "workspaces",
    params(("workspace" = String, Path, description = "The workspace's name.")), request_body = WorkspaceBody, responses(
    (status = 200, description = "Replaced.", body = WorkspaceView),
    (status = 404, description = "There is no such workspace.", body = ErrorBody),
    (status = 409, description = "The config file declares it.", body = ErrorBody),
    (status = 422, description = "The settings have mistakes: all of them.", body = ErrorBody),
))]
pub(super) async fn change_workspace(
    State(app): State<App>,
    _: NoParams,
    Path(name): Path<String>,
    JsonBody(mut body): JsonBody<SMALL>,
) -> Result<Json<WorkspaceView>, ApiError> {
    let before = existing(&app, &name, None)?;
    if app.workspaces().is_declared(&before.name) {
        return Err(WorkspaceError::Declared(before.name.clone()).into());
    }
    named(&mut body, before.name.as_str())?;
    let workspace = read(&app, &body)?;
    app.workspaces().replace(workspace.clone()).await?;
    Ok(Json(for_staff(&app, &workspace)))
}

/// Delete a workspace
///
/// Sessions that were launched from it go on.
#[utoipa::path(delete, path = "/v1/workspaces/{workspace}", tag = "workspaces",
    params(("workspace" = String, Path, description = "The workspace's name.")), responses(
    (status = 204, description = "Deleted."),
    (status = 404, description = "There is no such workspace.", body = ErrorBody),
    (status = 409, description = "The config file declares it.", body = ErrorBody),
))]
pub(super) async fn delete_workspace(
    State(app): State<App>,
    _: NoParams,
    Path(name): Path<String>,
) -> Result<StatusCode, ApiError> {
    let workspace = existing(&app, &name, None)?;
    app.workspaces().remove(workspace.name.as_str()).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Launch a workspace
///
/// Answers with the user's session there: the one he has, so that he comes back to it, or a new one. While no session is free
/// the request waits; `wait` lets the answer wait with it, and `Location` says where to look later. The connection has the
/// user's own name and password in it, where the config says so.
#[utoipa::path(post, path = "/v1/workspaces/{workspace}/launch", tag = "workspaces",
    params(
        ("workspace" = String, Path, description = "The workspace's name."),
        ("wait" = Option<String>, Query, description = "How long the answer may wait for the session to be placed, as in `30s`: one minute at most."),
        ("zone" = Option<String>, Query, description = "Where the user is. Servers of that zone are tried first, the others after them."),
        ("Idempotency-Key" = Option<String>, Header, description = "1 to 255 characters. The same key of the same user answers with the same session, even if it has ended meanwhile."),
    ),
    responses(
        (status = 200, description = "The session that was there already, active or ended.", body = SessionView),
        (status = 201, description = "A new session, active.", body = SessionView, headers(("location" = String, description = "The session."))),
        (status = 202, description = "It waits for a free one.", body = SessionView, headers(("location" = String, description = "The session."))),
        (status = 404, description = "There is no such workspace, or it is not open to this user.", body = ErrorBody),
        (status = 409, description = "No config of its pool is enabled, or the idempotency key belongs to another request.", body = ErrorBody),
        (status = 422, description = "A parameter has a mistake.", body = ErrorBody),
        (status = 429, description = "Too many requests wait. `Retry-After` says when to ask again.", body = ErrorBody),
    ))]
pub(super) async fn launch(
    State(app): State<App>,
    caller: Caller,
    User(login): User,
    Path(workspace): Path<String>,
    mut params: Params,
    headers: HeaderMap,
) -> Result<(StatusCode, [(HeaderName, String); 1], Json<SessionView>), ApiError> {
    let patience = params.span("wait", app.limits().wait).unwrap_or_default();
    let zone: Option<ZoneName> = params.id("zone");
    params.finish()?;
    let workspace = existing(&app, &workspace, Some(&login))?;
    let pool = pool_of(&app, &workspace)?;
    let key = scoped_key(&headers, &caller)?;
    let request = SessionRequest { user: login.user().clone(), zone, key };
    let (id, is_new) = requested(&app, &pool, request, patience).await?;
    let seen = own(&app, &workspace, &pool, &login, id).await?;
    let view = seen.view(&app, Eyes::Own(&login, &workspace.sso_domain));
    let location = format!("/v1/workspaces/{}/sessions/{id}", workspace.name);
    Ok((status_of(&view, is_new), [(header::LOCATION, location)], Json(view)))
}

fn pool_of(app: &App, workspace: &Workspace) -> Result<PoolHandle, ApiError> {
    app.host().pool(workspace.pool.as_str()).map_err(|_| {
        let message = "the workspace has no pool any more; an operator has to give it one";
        ApiError::new(StatusCode::CONFLICT, "no_pool", message)
    })
}

/// A session of this user's. Another's is as one that is not there.
async fn own(
    app: &App,
    workspace: &Workspace,
    pool: &PoolHandle,
    login: &Login,
    id: SessionId,
) -> Result<Seen, ApiError> {
    let seen = look_at(app, pool, id).await?.filter(|seen| seen.session.user == *login.user());
    seen.ok_or_else(|| no_session(workspace))
}

fn no_session(workspace: &Workspace) -> ApiError {
    let message =
        format!("you have no such session in workspace {}, or no longer; launch it to get one", workspace.name);
    ApiError::not_found("unknown_session", message)
}

/// The workspace, its pool, and the id of a session of this user's there.
async fn own_session(
    app: &App,
    login: &Login,
    workspace: &str,
    session: &str,
) -> Result<(Arc<Workspace>, PoolHandle, SessionId), ApiError> {
    let workspace = existing(app, workspace, Some(login))?;
    let pool = pool_of(app, &workspace)?;
    let id = session.parse().map_err(|_| no_session(&workspace))?;
    own(app, &workspace, &pool, login, id).await?;
    Ok((workspace, pool, id))
}

/// A session of one's own
#[utoipa::path(get, path = "/v1/workspaces/{workspace}/sessions/{session}", tag = "workspaces",
    params(
        ("workspace" = String, Path, description = "The workspace's name."),
        ("session" = String, Path, description = "The session's id."),
        ("wait" = Option<String>, Query, description = "How long the answer may wait for the session to be placed, as in `30s`: one minute at most."),
        ("format" = Option<String>, Query, description = "`json`, or only how to connect to the session: `rdp` (a file for Remote Desktop clients, without a password) or `guacamole`. `Accept` says it as well."),
    ),
    responses(
        (status = 200, description = "The session, or only how to connect to it.", content((SessionView = "application/json"), (String = "application/x-rdp"), (GuacamoleView = "application/vnd.kasm-autoscale.guacamole+json"))),
        (status = 404, description = "There is no such workspace, or no such session of this user's.", body = ErrorBody),
        (status = 409, description = "The session is not active, or the form cannot hold how to connect to it.", body = ErrorBody),
        (status = 422, description = "A parameter has a mistake.", body = ErrorBody),
    ))]
pub(super) async fn show_own_session(
    State(app): State<App>,
    User(login): User,
    Path((workspace, session)): Path<(String, String)>,
    mut params: Params,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let patience = params.span("wait", app.limits().wait).unwrap_or_default();
    let format = Format::wished(&mut params, &headers);
    params.finish()?;
    let (workspace, pool, id) = own_session(&app, &login, &workspace, &session).await?;
    if !patience.is_zero() {
        placed(&app, &pool, pool.events(), id, patience).await?;
    }
    let seen = own(&app, &workspace, &pool, &login, id).await?;
    format.answer(&app, seen, Eyes::Own(&login, &workspace.sso_domain), workspace.name.as_str())
}

/// End a session of one's own
///
/// To end one that has ended changes nothing and is no error.
#[utoipa::path(delete, path = "/v1/workspaces/{workspace}/sessions/{session}", tag = "workspaces",
    params(("workspace" = String, Path, description = "The workspace's name."), ("session" = String, Path, description = "The session's id.")), responses(
    (status = 200, description = "The session, ended.", body = SessionView),
    (status = 404, description = "There is no such workspace, or no such session of this user's.", body = ErrorBody),
))]
pub(super) async fn end_own_session(
    State(app): State<App>,
    _: NoParams,
    User(login): User,
    Path((workspace, session)): Path<(String, String)>,
) -> Result<Json<SessionView>, ApiError> {
    let (workspace, pool, id) = own_session(&app, &login, &workspace, &session).await?;
    ended(&app, &pool, id).await?;
    let seen = own(&app, &workspace, &pool, &login, id).await?;
    Ok(Json(seen.view(&app, Eyes::Own(&login, &workspace.sso_domain))))
}

/// Keep a session of one's own alive
///
/// It then ends the pool's `keepalive_expiry` from now, unless it is kept alive again. One that waits goes on waiting.
#[utoipa::path(post, path = "/v1/workspaces/{workspace}/sessions/{session}/keepalive", tag = "workspaces",
    params(("workspace" = String, Path, description = "The workspace's name."), ("session" = String, Path, description = "The session's id.")), responses(
    (status = 200, description = "The session.", body = SessionView),
    (status = 404, description = "There is no such workspace, or no such session of this user's.", body = ErrorBody),
    (status = 409, description = "It has ended.", body = ErrorBody),
))]
pub(super) async fn keep_own_session_alive(
    State(app): State<App>,
    _: NoParams,
    User(login): User,
    Path((workspace, session)): Path<(String, String)>,
) -> Result<Json<SessionView>, ApiError> {
    let (workspace, pool, id) = own_session(&app, &login, &workspace, &session).await?;
    match app.ask(&pool, Fact::KeptAlive(id)).await {
        Err(error) if error.code == ApiError::from(Refusal::UnknownSession { session: id }).code => {
            return Err(no_session(&workspace));
        }
        other => drop(other?),
    }
    let seen = own(&app, &workspace, &pool, &login, id).await?;
    Ok(Json(seen.view(&app, Eyes::Own(&login, &workspace.sso_domain))))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::json;
    use utoipa::PartialSchema;

    use super::*;

    #[test]
    fn the_documented_fields_are_those_that_are_read() {
        let least = json!({ "name": "a", "pool": "p" });
        let real = Workspace::from_json(least.as_object().unwrap()).unwrap().to_json();
        let schema = serde_json::to_value(WorkspaceBody::schema()).unwrap();
        let keys = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<BTreeSet<_>>();
        assert_eq!(keys(&schema["properties"]), keys(&real));
        assert_eq!(schema["required"], json!(["name", "pool"]));
    }
}
