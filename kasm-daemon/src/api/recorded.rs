//! What the audit log is told of a call, and when.
//!
//! Every call of a known caller that may change something is recorded before it does, but for keepalives: nothing has changed
//! if that cannot be written. Calls on sessions are recorded in the very commit of what they change. Whatever else is answered with a secret is
//! recorded before the answer leaves. Calls that are turned away are recorded in bounds.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;

use axum::body::Body;
use axum::extract::rejection::RawPathParamsRejection;
use axum::extract::{MatchedPath, RawPathParams, Request, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use kasm_autoscale_core::id::{ServerId, SessionId};

use super::App;
use super::access::{Access, access};
use super::body::{SMALL_BYTES, is_json, read_body};
use super::error::ApiError;
use super::gate::bearer;
use super::login::origin;
use super::serve::Peer;
use crate::auth::{Caller, sha256, to_hex};
use crate::trail::{Entry, Kind, Record, Who};

/// The request's id, as the log and the answer have it.
#[derive(Clone, Debug)]
pub(super) struct RequestId(pub(super) String);

tokio::task_local! {
    static CALL: Call;
}

/// What a call has told of itself while it was worked off.
#[derive(Default)]
struct Call {
    /// What goes into the log with the first fact that a pool is told.
    asked: RefCell<Option<Record>>,
    secret: Cell<bool>,
    about: RefCell<BTreeMap<String, String>>,
    undo: RefCell<Option<Box<dyn FnOnce() + Send>>>,
}

/// The entry that has to be saved with what a pool is told now, if it is not in the log yet.
pub(super) fn asked() -> Option<Record> {
    CALL.try_with(|call| call.asked.borrow_mut().take()).ok().flatten()
}

/// A secret has been written into the answer.
pub(super) fn secret_shown() {
    // Outside of a call nobody is answered.
    let _ = CALL.try_with(|call| call.secret.set(true));
}

/// What the call turned out to be about. No secret, and nothing that may be one in the wrong place.
pub(super) fn about(what: &str, value: String) {
    let _ = CALL.try_with(|call| call.about.borrow_mut().insert(what.into(), value));
}

/// What is to be done if the answer may not leave, because it cannot be recorded.
pub(super) fn unless_recorded(undo: impl FnOnce() + Send + 'static) {
    let _ = CALL.try_with(|call| *call.undo.borrow_mut() = Some(Box::new(undo)));
}

/// Calls of which the only effect is one fact that a pool is told, and which therefore need no commit of their own.
const WITH_THEIR_FACT: [(&str, &str); 4] = [
    ("POST", "/v1/pools/{pool}/sessions"),
    ("DELETE", "/v1/pools/{pool}/sessions/{session}"),
    ("POST", "/v1/workspaces/{workspace}/launch"),
    ("DELETE", "/v1/workspaces/{workspace}/sessions/{session}"),
];

/// Whether such calls only say that a session goes on. They grant nothing that was not granted when it began, and come once a
/// minute for each session: recorded, they would push everything else out of the log.
fn is_routine(route: &str) -> bool {
    route.ends_with("/keepalive")
}

/// Records a call that has been let through to its route.
pub(super) async fn record(
    State(app): State<App>,
    params: Result<RawPathParams, RawPathParamsRejection>,
    request: Request,
    next: Next,
) -> Response {
    // A path that cannot be read names nothing; the route says so.
    let params = params.ok();
    let (method, route) = named(&request);
    let changes = matches!(access(&method, &route), Some(Access::Roles(_))) && !is_read(&method) && !is_routine(&route);
    if !changes {
        return watched(app, params, request, next).await;
    }
    let max = if route.contains("/configs") { app.limits().body } else { SMALL_BYTES };
    let (request, digest) = match digested(&app, request, max).await {
        Ok(read) => read,
        Err(error) => return error.into_response(),
    };
    let mut entry = entry(&app, Kind::Asked, &request);
    entry.object = objects(&app, params.as_ref()).await;
    entry.digest = digest;
    let query = request.uri().query().map(str::to_owned);
    let call = Call::default();
    if WITH_THEIR_FACT.contains(&(method.as_str(), route.as_str())) {
        call.asked.replace(Some(app.trail().record_of(&entry)));
    } else if app.trail().record(entry.clone()).await.is_err() {
        return not_recorded(&app).into_response();
    }
    let open = Open { app: app.clone(), entry: Some(entry) };
    let (response, call) = run(call, request, next).await;
    open.answered(response, call, query).await
}

/// Runs the rest in the scope of a call.
async fn run(call: Call, request: Request, next: Next) -> (Response, Call) {
    let work = async {
        let response = next.run(request).await;
        let call = CALL.with(|call| Call {
            asked: RefCell::new(call.asked.take()),
            secret: Cell::new(call.secret.get()),
            about: RefCell::new(call.about.take()),
            undo: RefCell::new(call.undo.take()),
        });
        (response, call)
    };
    CALL.scope(call, work).await
}

/// A call that was asked for and not answered yet. One that ends in a panic is answered with 500; one that
/// the end of the daemon breaks off may have taken effect or not.
struct Open {
    app: App,
    entry: Option<Entry>,
}

impl Open {
    /// Writes how it ended.
    async fn answered(mut self, response: Response, call: Call, query: Option<String>) -> Response {
        let Some(asked) = self.entry.take() else { return response };
        let trail = self.app.trail();
        if call.asked.take().is_some() {
            // No pool was told anything, so nothing has changed.
            if call.secret.get() {
                if trail.record(asked.clone()).await.is_err() {
                    return not_recorded(&self.app).into_response();
                }
            } else {
                trail.record_soon(asked.clone());
            }
        }
        let mut entry = trail.entry(Kind::Answered);
        if response.status().is_success() {
            entry.request.clone_from(&asked.request);
            entry.query = query;
            entry.object = call.about.take();
            if let Some(place) = response.headers().get(header::LOCATION).and_then(|value| value.to_str().ok()) {
                entry.object.insert("made".into(), place.into());
            }
        } else {
            // It says all, for the step that had the question with it may not have been saved.
            entry = Entry { at: entry.at, kind: entry.kind, ..asked };
        }
        end(&mut entry, &response, call.secret.get());
        trail.record_soon(entry);
        response
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        if let Some(asked) = self.entry.take() {
            let now = self.app.trail().entry(Kind::Answered).at;
            let (status, code) = if std::thread::panicking() { (Some(500), "internal") } else { (None, "broken_off") };
            self.app.trail().record_soon(Entry {
                at: now,
                kind: Kind::Answered,
                status,
                code: Some(code.into()),
                ..asked
            });
        }
    }
}

/// A call that changes nothing: it is recorded if it is answered with a secret, or turned away.
async fn watched(app: App, params: Option<RawPathParams>, request: Request, next: Next) -> Response {
    let mut entry = entry(&app, Kind::Told, &request);
    // Nobody but strangers calls these; what they send is answered with a refusal that nobody else hears of.
    let is_public = entry.caller.is_none();
    let is_machine = access(&entry.method, &entry.route) == Some(Access::CheckIn);
    let (response, call) = run(Call::default(), request, next).await;
    let (status, secret) = (response.status(), call.secret.get());
    let is_refused = matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN)
        || (is_public && status.is_client_error() && entry.method != Method::GET.as_str());
    if !(secret || is_refused) {
        return response;
    }
    entry.object = objects(&app, params.as_ref()).await;
    entry.object.extend(call.about.take());
    end(&mut entry, &response, secret);
    if !secret {
        entry.kind = Kind::Refused;
        app.trail().refused(entry, is_machine);
    } else if app.trail().record(entry).await.is_err() {
        if let Some(undo) = call.undo.take() {
            undo();
        }
        return not_recorded(&app).into_response();
    }
    response
}

/// Records that a call was turned away before its route was reached.
pub(super) fn turned_away(app: &App, request: &Request, caller: Option<&Caller>, error: &ApiError) {
    let mut entry = entry(app, Kind::Refused, request);
    entry.caller = caller.map(|caller| who(caller, request.headers()));
    if caller.is_none() {
        let token = bearer(request.headers());
        entry.unknown_token = token.map(|token| app.trail().digest(&[token.as_bytes()]));
    }
    (entry.status, entry.code) = (Some(error.status.as_u16()), Some(error.code.into()));
    app.trail().refused(entry, false);
}

fn named(request: &Request) -> (String, String) {
    let route = request.extensions().get::<MatchedPath>().map(|path| path.as_str().to_owned());
    (request.method().as_str().to_owned(), route.unwrap_or_default())
}

fn is_read(method: &str) -> bool {
    matches!(method, "GET" | "HEAD")
}

/// An entry with all that is known of a request before it is worked off.
fn entry(app: &App, kind: Kind, request: &Request) -> Entry {
    let (method, route) = named(request);
    let extensions = request.extensions();
    let from = extensions.get::<Peer>().and_then(|Peer(peer)| origin(app, *peer, request.headers()));
    Entry {
        request: extensions.get::<RequestId>().map(|id| id.0.clone()).unwrap_or_default(),
        caller: extensions.get::<Caller>().map(|caller| who(caller, request.headers())),
        from,
        method,
        route,
        ..app.trail().entry(kind)
    }
}

fn who(caller: &Caller, headers: &HeaderMap) -> Who {
    // Without tokens whatever stands there was not looked at, and may be anything.
    let token = bearer(headers).filter(|_| !caller.name.is_empty());
    let token = token.map(|token| to_hex(&sha256(token)[..8]));
    Who { name: caller.name.clone(), role: caller.role.to_string(), token }
}

fn end(entry: &mut Entry, response: &Response, secret: bool) {
    entry.status = Some(response.status().as_u16());
    entry.code = response.extensions().get::<ApiError>().map(|error| error.code.into());
    entry.secret = secret;
}

/// The names in a path. One that names nothing may be anything, also a secret in the wrong place: its HMAC stands for it.
async fn objects(app: &App, params: Option<&RawPathParams>) -> BTreeMap<String, String> {
    let mut objects = BTreeMap::new();
    let given: BTreeMap<&str, &str> = params.into_iter().flatten().collect();
    for (name, value) in &given {
        let is_known = match *name {
            "pool" => app.host().pool(value).is_ok(),
            "workspace" => app.workspaces().get(value).is_ok(),
            "server" => value.parse::<ServerId>().is_ok(),
            "session" => value.parse::<SessionId>().is_ok(),
            "token" => app.tokens().all().iter().any(|known| known.id() == *value),
            "config" => is_config(app, given.get("pool").copied().unwrap_or_default(), value).await,
            _ => false,
        };
        let shown =
            if is_known { (*value).to_owned() } else { format!("hmac:{}", app.trail().digest(&[value.as_bytes()])) };
        objects.insert((*name).to_owned(), shown);
    }
    objects
}

/// Whether a pool has such a config, or had one whose servers are not all gone.
async fn is_config(app: &App, pool: &str, config: &str) -> bool {
    let Ok(pool) = app.host().pool(pool) else { return false };
    let config = config.to_owned();
    let known = app.look(&pool, move |pool| pool.report().configs.iter().any(|one| one.config.as_str() == config));
    known.await.unwrap_or(false)
}

/// The request with its body read, and the HMAC of its query and body if it has any. A body that the route does not read is
/// left where it is.
async fn digested(app: &App, request: Request, max: usize) -> Result<(Request, Option<String>), ApiError> {
    let (parts, body) = request.into_parts();
    let query = parts.uri.query().unwrap_or_default().as_bytes();
    if !is_json(&parts.headers) {
        let digest = (!query.is_empty()).then(|| app.trail().digest(&[query, b""]));
        return Ok((Request::from_parts(parts, body), digest));
    }
    let bytes = read_body(body, max, app.limits().body_time).await?;
    let digest = app.trail().digest(&[query, &bytes]);
    Ok((Request::from_parts(parts, Body::from(bytes)), Some(digest)))
}

fn not_recorded(app: &App) -> ApiError {
    app.host().world().metrics.unrecorded();
    let message = "the audit log cannot be written, so this was not done; the daemon's log says why";
    ApiError::unavailable("not_recorded", message, 5)
}
