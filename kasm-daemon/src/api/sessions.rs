//! Sessions of a pool: asked for, waited for, connected to, kept alive, ended.

use std::time::Duration;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::Response;
use kasm_autoscale_core::config::{JsonObject, Problem};
use kasm_autoscale_core::fields::Fields;
use kasm_autoscale_core::id::{SessionId, UserName, ZoneName};
use kasm_autoscale_core::input::{Answer, Fact, Refusal};
use kasm_autoscale_core::pool::Pool;
use kasm_autoscale_core::report::{Event, What};
use kasm_autoscale_core::session::{Session, SessionRequest, SessionState};
use serde::Serialize;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use utoipa::ToSchema;

use super::App;
use super::admission::admit_session;
use super::body::{JsonBody, NoParams, Params, SMALL};
use super::connection::{ConnectionView, Eyes, Open, opened};
use super::error::{ApiError, ErrorBody};
use super::formats::{Format, GuacamoleView};
use super::recorded;
use super::servers::{PAGE, PAGE_MAX};
use super::words;
use crate::auth::{Caller, sha256, to_hex};
use crate::clock::rfc3339;
use crate::connect::Target;
use crate::driver::PoolHandle;

const STATES: [&str; 3] = ["waiting", "active", "ended"];
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const KEY_BYTES_MAX: usize = 255;

/// A wish for a session.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({ "user": "ann", "zone": "west" }))]
pub struct SessionBody {
    /// Who it is for: 1 to 256 characters. One user has at most one session in a pool.
    pub user: String,
    /// Where the user is. Servers of that zone are tried first, the others after them.
    pub zone: Option<String>,
}

/// A session.
#[derive(Debug, Serialize, ToSchema)]
pub struct SessionView {
    /// Its id, as in `ses-12`.
    pub id: String,
    /// Whose it is.
    pub user: String,
    /// Where the user is.
    pub zone: Option<String>,
    /// `waiting`, `active` or `ended`.
    pub state: String,
    /// When it was asked for.
    #[schema(format = DateTime)]
    pub requested_at: String,
    /// While it waits: its place among those who wait, 1 for the first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub position: Option<usize>,
    /// While it waits: when it stops waiting.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(format = DateTime)]
    pub deadline: Option<String>,
    /// While it is active: the server it is on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server: Option<String>,
    /// While it is active: since when.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(format = DateTime)]
    pub since: Option<String>,
    /// While it is active: when it ends unless it is kept alive.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(format = DateTime)]
    pub expires_at: Option<String>,
    /// While it is active, for its user and the roles `broker` and `admin`: how to connect to it. Not in lists.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connection: Option<ConnectionView>,
    /// When it ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(format = DateTime)]
    pub ended_at: Option<String>,
    /// Why it ended, for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl SessionView {
    fn of(session: &Session, position: Option<usize>) -> Self {
        let mut view = Self {
            id: session.id.to_string(),
            user: session.user.to_string(),
            zone: session.zone.as_ref().map(ToString::to_string),
            state: state(session).into(),
            requested_at: rfc3339(session.requested_at),
            position,
            deadline: None,
            server: None,
            since: None,
            expires_at: None,
            connection: None,
            ended_at: None,
            reason: None,
        };
        match session.state {
            SessionState::Waiting { deadline } => view.deadline = Some(rfc3339(deadline)),
            SessionState::Active { server, since, expires_at } => {
                view.server = Some(server.to_string());
                view.since = Some(rfc3339(since));
                view.expires_at = Some(rfc3339(expires_at));
            }
            SessionState::Ended { at, why } => {
                view.ended_at = Some(rfc3339(at));
                view.reason = Some(why.to_string());
            }
        }
        view
    }
}

/// Some sessions of a pool.
#[derive(Debug, Serialize, ToSchema)]
pub struct SessionList {
    /// Those that were asked for first come first.
    pub sessions: Vec<SessionView>,
    /// The `after` of the next page, if there is one.
    pub next: Option<String>,
}

fn state(session: &Session) -> &'static str {
    match session.state {
        SessionState::Waiting { .. } => "waiting",
        SessionState::Active { .. } => "active",
        SessionState::Ended { .. } => "ended",
    }
}

fn waits(session: &Session) -> bool {
    matches!(session.state, SessionState::Waiting { .. })
}

/// A session as it stands, with what is needed to connect to it.
pub(super) struct Seen {
    pub(super) session: Session,
    position: Option<usize>,
    open: Option<Open>,
}

impl Seen {
    fn of(pool: &Pool, id: SessionId) -> Option<Self> {
        let session = pool.session(id)?.clone();
        let position = waits(&session)
            .then(|| 1 + pool.sessions().take_while(|other| other.id < id).filter(|other| waits(other)).count());
        let open = opened(pool, &session);
        Some(Self { session, position, open })
    }

    /// The session without how to connect to it, and how.
    pub(super) fn through(self, app: &App, eyes: Eyes<'_>) -> (SessionView, Option<Target>) {
        let target = self.open.and_then(|open| open.target(&self.session.user, eyes, &*app.host().world().secrets));
        (SessionView::of(&self.session, self.position), target)
    }

    /// The session with how to connect to it.
    pub(super) fn view(self, app: &App, eyes: Eyes<'_>) -> SessionView {
        let (view, target) = self.through(app, eyes);
        SessionView { connection: target.map(ConnectionView::from), ..view }
    }
}

/// The session of this id; `None` if there is none.
pub(super) async fn look_at(app: &App, pool: &PoolHandle, id: SessionId) -> Result<Option<Seen>, ApiError> {
    app.look(pool, move |pool| Seen::of(pool, id)).await
}

/// The session that this user has in a pool, waiting or active.
pub(super) async fn session_of(app: &App, pool: &PoolHandle, user: &UserName) -> Result<Option<Seen>, ApiError> {
    let user = user.clone();
    app.look(pool, move |pool| pool.open_session(&user).and_then(|session| Seen::of(pool, session.id))).await
}

async fn seen(app: &App, pool: &PoolHandle, id: SessionId) -> Result<Seen, ApiError> {
    look_at(app, pool, id).await?.ok_or_else(|| unknown(pool, &id.to_string()))
}

fn eyes_of(caller: &Caller) -> Eyes<'static> {
    if caller.role.sees_connections() { Eyes::Broker } else { Eyes::Outside }
}

async fn view(app: &App, pool: &PoolHandle, caller: &Caller, id: SessionId) -> Result<SessionView, ApiError> {
    Ok(seen(app, pool, id).await?.view(app, eyes_of(caller)))
}

/// Asks for a session, and waits for it as long as is wished; also whether it is a new one.
pub(super) async fn requested(
    app: &App,
    pool: &PoolHandle,
    request: SessionRequest,
    patience: Duration,
) -> Result<(SessionId, bool), ApiError> {
    // Before the request, so that no news of it is missed.
    let events = pool.events();
    let asking = admit_session(app, pool, &request.user).await?;
    let newest = app.look(pool, |pool| pool.sessions().last().map(|session| session.id)).await?;
    let user = request.user.to_string();
    let Answer::Session(id) = app.ask(pool, Fact::SessionRequested(request)).await? else {
        return Err(unknown(pool, "of this request"));
    };
    drop(asking);
    recorded::about("user", user);
    recorded::about("session", id.to_string());
    if !patience.is_zero() {
        placed(app, pool, events, id, patience).await?;
    }
    // Ids rise: one that is higher than all before it is new.
    Ok((id, newest.is_none_or(|newest| id > newest)))
}

/// The status that says how a request for a session has ended.
pub(super) fn status_of(view: &SessionView, is_new: bool) -> StatusCode {
    match view.state.as_str() {
        "waiting" => StatusCode::ACCEPTED,
        "active" if is_new => StatusCode::CREATED,
        _ => StatusCode::OK,
    }
}

/// Ends a session. To end one that has ended is no error.
pub(super) async fn ended(app: &App, pool: &PoolHandle, id: SessionId) -> Result<(), ApiError> {
    match app.ask(pool, Fact::SessionEnded(id)).await {
        Err(error) if error.code == ApiError::from(Refusal::SessionEnded { session: id }).code => Ok(()),
        other => other.map(drop),
    }
}

fn unknown(pool: &PoolHandle, given: &str) -> ApiError {
    let name = pool.name();
    let message = format!(
        "pool {name} has no session {}, or no longer: one that has ended is forgotten after 10 minutes; /v1/pools/{name}/sessions lists those that there are",
        words::shown(given)
    );
    ApiError::not_found("unknown_session", message)
}

fn found(app: &App, pool: &str, session: &str) -> Result<(PoolHandle, SessionId), ApiError> {
    let pool = app.pool(pool)?;
    let id = session.parse().map_err(|_| unknown(&pool, session))?;
    Ok((pool, id))
}

/// Waits until a session does not wait any more, at most as long as the caller wishes. If too many wait already, or the server
/// is to stop, it is as if the time were up.
pub(super) async fn placed(
    app: &App,
    pool: &PoolHandle,
    mut events: Receiver<Event>,
    id: SessionId,
    patience: Duration,
) -> Result<(), ApiError> {
    let Ok(_place) = app.0.waits.try_acquire() else { return Ok(()) };
    let still = || app.look(pool, move |pool| pool.session(id).is_some_and(waits));
    if !still().await? {
        return Ok(());
    }
    let news = async {
        loop {
            match events.recv().await {
                Ok(event) if concerns(&event.what, id) => return Ok(()),
                Ok(_) => {}
                // Some were missed, and it may have been among them.
                Err(RecvError::Lagged(_)) => {
                    if !still().await? {
                        return Ok(());
                    }
                }
                Err(RecvError::Closed) => return Ok(()),
            }
        }
    };
    tokio::select! {
        result = news => result,
        () = tokio::time::sleep(patience) => Ok(()),
        () = app.0.stop.cancelled() => Ok(()),
    }
}

fn concerns(what: &What, id: SessionId) -> bool {
    matches!(what, What::SessionPlaced { session, .. } | What::SessionOver { session, .. } if *session == id)
}

/// The caller's idempotency key, as it is stored: nobody can use or guess at another caller's, and it has always the same length.
pub(super) fn scoped_key(headers: &HeaderMap, caller: &Caller) -> Result<Option<String>, ApiError> {
    let mut keys = headers.get_all(IDEMPOTENCY_KEY).iter();
    let Some(key) = keys.next() else { return Ok(None) };
    let text = key.to_str().ok().filter(|text| (1..=KEY_BYTES_MAX).contains(&text.len()) && keys.next().is_none());
    let Some(text) = text else {
        let allowed = format!("one header with 1 to {KEY_BYTES_MAX} visible ASCII characters");
        return Err(ApiError::invalid(vec![Problem::new("Idempotency-Key", "something else", allowed)]));
    };
    let name = &caller.name;
    Ok(Some(to_hex(&sha256(&format!("{}:{name}:{text}", name.len())))))
}

fn read_request(body: &JsonObject, key: Option<String>) -> Result<SessionRequest, ApiError> {
    let mut fields = Fields::new(body);
    let user: Option<UserName> = fields.name("user");
    let user = fields.require("user", user, "who the session is for");
    let zone: Option<ZoneName> = fields.name("zone");
    let problems = fields.finish();
    match user {
        Some(user) if problems.is_empty() => Ok(SessionRequest { user, zone, key }),
        _ => Err(ApiError::invalid(problems)),
    }
}

type Found = (StatusCode, HeaderMap, Json<SessionView>);

/// Sessions of a pool
#[utoipa::path(get, path = "/v1/pools/{pool}/sessions", tag = "sessions",
    params(
        ("pool" = String, Path, description = "The pool's name."),
        ("state" = Option<String>, Query, description = "Only those in this state: `waiting`, `active` or `ended`."),
        ("user" = Option<String>, Query, description = "Only those of this user."),
        ("limit" = Option<u32>, Query, minimum = 1, maximum = 1000, description = "How many at most; 100 unless said otherwise."),
        ("after" = Option<String>, Query, description = "Only those after this one: the `next` of the page before."),
    ),
    responses(
        (status = 200, description = "The sessions, without how to connect to them.", body = SessionList),
        (status = 404, description = "There is no such pool.", body = ErrorBody),
        (status = 422, description = "A parameter has a mistake.", body = ErrorBody),
    ))]
pub(super) async fn list_sessions(
    State(app): State<App>,
    Path(pool): Path<String>,
    mut params: Params,
) -> Result<Json<SessionList>, ApiError> {
    let wanted_state = params.choice("state", &STATES);
    let user: Option<UserName> = params.id("user");
    let limit = params.integer("limit", 1..=PAGE_MAX).unwrap_or(PAGE);
    let after: Option<SessionId> = params.id("after");
    params.finish()?;
    let pool = app.pool(&pool)?;
    let page = app.look(&pool, move |pool| {
        let mut waiting = 0;
        let placed = pool.sessions().map(|session| {
            waiting += usize::from(waits(session));
            (session, waits(session).then_some(waiting))
        });
        let mut matching = placed.filter(|(session, _)| {
            after.is_none_or(|after| session.id > after)
                && wanted_state.is_none_or(|wanted| state(session) == wanted)
                && user.as_ref().is_none_or(|user| session.user == *user)
        });
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let sessions: Vec<SessionView> =
            matching.by_ref().take(limit).map(|(session, position)| SessionView::of(session, position)).collect();
        let next = matching.next().and_then(|_| sessions.last().map(|session| session.id.clone()));
        SessionList { sessions, next }
    });
    Ok(Json(page.await?))
}

/// Ask for a session
///
/// A user has at most one session in a pool: to ask again answers with the one that there is. While no session is free the
/// request waits; `wait` lets the answer wait with it, and `Location` says where to look later.
#[utoipa::path(post, path = "/v1/pools/{pool}/sessions", tag = "sessions",
    params(
        ("pool" = String, Path, description = "The pool's name."),
        ("wait" = Option<String>, Query, description = "How long the answer may wait for the session to be placed, as in `30s`: one minute at most."),
        ("Idempotency-Key" = Option<String>, Header, description = "1 to 255 characters. The same key of the same token with the same body answers with the same session, even if it has ended meanwhile."),
    ),
    request_body = SessionBody,
    responses(
        (status = 200, description = "The session that was there already, active or ended.", body = SessionView),
        (status = 201, description = "A new session, active.", body = SessionView, headers(("location" = String, description = "The session."))),
        (status = 202, description = "It waits for a free one.", body = SessionView, headers(("location" = String, description = "The session."))),
        (status = 404, description = "There is no such pool.", body = ErrorBody),
        (status = 409, description = "No config of the pool is enabled, or the idempotency key belongs to another request.", body = ErrorBody),
        (status = 422, description = "The body has mistakes.", body = ErrorBody),
        (status = 429, description = "Too many requests wait. `Retry-After` says when to ask again.", body = ErrorBody),
    ))]
pub(super) async fn create_session(
    State(app): State<App>,
    caller: Caller,
    Path(pool): Path<String>,
    mut params: Params,
    headers: HeaderMap,
    JsonBody(body): JsonBody<SMALL>,
) -> Result<Found, ApiError> {
    let patience = params.span("wait", app.limits().wait).unwrap_or_default();
    params.finish()?;
    let request = read_request(&body, scoped_key(&headers, &caller)?)?;
    let pool = app.pool(&pool)?;
    let (id, is_new) = requested(&app, &pool, request, patience).await?;
    let view = view(&app, &pool, &caller, id).await?;
    let status = status_of(&view, is_new);
    let mut headers = HeaderMap::new();
    if status != StatusCode::OK
        && let Ok(location) = HeaderValue::from_str(&format!("/v1/pools/{}/sessions/{id}", pool.name()))
    {
        headers.insert(header::LOCATION, location);
    }
    Ok((status, headers, Json(view)))
}

/// A session
#[utoipa::path(get, path = "/v1/pools/{pool}/sessions/{session}", tag = "sessions",
    params(
        ("pool" = String, Path, description = "The pool's name."),
        ("session" = String, Path, description = "The session's id."),
        ("wait" = Option<String>, Query, description = "How long the answer may wait for the session to be placed, as in `30s`: one minute at most."),
        ("format" = Option<String>, Query, description = "`json`, or only how to connect to the session: `rdp` (a file for Remote Desktop clients, without a password) or `guacamole`. `Accept` says it as well."),
    ),
    responses(
        (status = 200, description = "The session, or only how to connect to it.", content((SessionView = "application/json"), (String = "application/x-rdp"), (GuacamoleView = "application/vnd.kasm-autoscale.guacamole+json"))),
        (status = 404, description = "There is no such pool or session.", body = ErrorBody),
        (status = 409, description = "The session is not active, or the form cannot hold how to connect to it.", body = ErrorBody),
        (status = 422, description = "A parameter has a mistake.", body = ErrorBody),
    ))]
pub(super) async fn show_session(
    State(app): State<App>,
    caller: Caller,
    Path((pool, session)): Path<(String, String)>,
    mut params: Params,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let patience = params.span("wait", app.limits().wait).unwrap_or_default();
    let format = Format::wished(&mut params, &headers);
    params.finish()?;
    let (pool, id) = found(&app, &pool, &session)?;
    if !patience.is_zero() {
        placed(&app, &pool, pool.events(), id, patience).await?;
    }
    format.answer(&app, seen(&app, &pool, id).await?, eyes_of(&caller), pool.name().as_str())
}

/// End a session
///
/// To end one that has ended changes nothing and is no error.
#[utoipa::path(delete, path = "/v1/pools/{pool}/sessions/{session}", tag = "sessions",
    params(("pool" = String, Path, description = "The pool's name."), ("session" = String, Path, description = "The session's id.")), responses(
    (status = 200, description = "The session, ended.", body = SessionView),
    (status = 404, description = "There is no such pool or session.", body = ErrorBody),
))]
pub(super) async fn end_session(
    State(app): State<App>,
    _: NoParams,
    caller: Caller,
    Path((pool, session)): Path<(String, String)>,
) -> Result<Json<SessionView>, ApiError> {
    let (pool, id) = found(&app, &pool, &session)?;
    match ended(&app, &pool, id).await {
        Err(error) if error.code == ApiError::from(Refusal::UnknownSession { session: id }).code => {
            return Err(unknown(&pool, &session));
        }
        other => other?,
    }
    Ok(Json(view(&app, &pool, &caller, id).await?))
}

/// Keep a session alive
///
/// It then ends the pool's `keepalive_expiry` from now, unless it is kept alive again. One that waits goes on waiting.
#[utoipa::path(post, path = "/v1/pools/{pool}/sessions/{session}/keepalive", tag = "sessions",
    params(("pool" = String, Path, description = "The pool's name."), ("session" = String, Path, description = "The session's id.")), responses(
    (status = 200, description = "The session.", body = SessionView),
    (status = 404, description = "There is no such pool or session.", body = ErrorBody),
    (status = 409, description = "It has ended.", body = ErrorBody),
))]
pub(super) async fn keep_session_alive(
    State(app): State<App>,
    _: NoParams,
    caller: Caller,
    Path((pool, session)): Path<(String, String)>,
) -> Result<Json<SessionView>, ApiError> {
    let (pool, id) = found(&app, &pool, &session)?;
    match app.ask(&pool, Fact::KeptAlive(id)).await {
        Err(error) if error.code == ApiError::from(Refusal::UnknownSession { session: id }).code => {
            return Err(unknown(&pool, &session));
        }
        other => drop(other?),
    }
    Ok(Json(view(&app, &pool, &caller, id).await?))
}
