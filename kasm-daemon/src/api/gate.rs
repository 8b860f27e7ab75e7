//! What every request passes: limits, the log, the check of its token, the shape of its errors, the headers of its answer.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{FromRequestParts, MatchedPath, OptionalFromRequestParts, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::App;
use super::access::{Access, access};
use super::admission::{admit_address, admit_token, admit_user, unless_ended};
use super::error::ApiError;
use super::recorded::{self, RequestId};
use super::secure::{ONLY_TLS, Secured, uncertified};
use crate::auth::{Caller, Role};
use crate::tokens::Known;
use crate::users::{Login, Users};

/// The header that carries the request's id.
const REQUEST_ID: &str = "x-request-id";

/// Works a request off within its limits, gives errors their shape, and writes the log line.
pub(super) async fn observe(State(app): State<App>, mut request: Request, next: Next) -> Response {
    let clock = app.host().world().clock;
    let started = clock.now();
    let id = app.next_request_id();
    request.extensions_mut().insert(RequestId(id.clone()));
    let method = request.method().clone();
    let route =
        request.extensions().get::<MatchedPath>().map_or_else(|| "(none)".to_owned(), |path| path.as_str().to_owned());
    // Without the query: it may hold a check-in token.
    let path = request.uri().path().to_owned();

    let response = match route.as_str() {
        "/healthz" => next.run(request).await,
        // What leads nowhere never comes to `authorize`.
        "(none)" if let Err(error) = admit_address(&app, &request) => error.into_response(),
        _ => within_limits(&app, request, next).await,
    };
    let is_limited = response.extensions().get::<ApiError>().is_some_and(|error| error.code == "rate_limited");
    let caller = response.extensions().get::<Caller>().map(|caller| caller.name.clone()).unwrap_or_default();
    let mut response = shaped(response, &id);
    if let Ok(value) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(REQUEST_ID, value);
    }

    let (status, took) = (response.status(), clock.now().since(started));
    // A flood of requests is not to be a flood in the log.
    if route == "/healthz" || is_limited {
        tracing::debug!(%method, %route, status = status.as_u16(), ?took, id, "request");
    } else if method != Method::GET && status.is_success() {
        // Whatever succeeded named things that exist: the path holds names and ids, and no text of a stranger's choice.
        tracing::info!(%method, %route, status = status.as_u16(), ?took, token = ?caller, id, ?path, "request");
    } else {
        tracing::info!(%method, %route, status = status.as_u16(), ?took, token = ?caller, id, "request");
    }
    response
}

/// Works a request off on a task of its own: a caller who hangs up does not leave a change half done, and a panic is one
/// answer of 500.
async fn within_limits(app: &App, request: Request, next: Next) -> Response {
    let Ok(permit) = Arc::clone(&app.0.requests).try_acquire_owned() else {
        return ApiError::unavailable("too_many_requests", "too many requests at once; try again", 1).into_response();
    };
    let work = app.0.tasks.spawn(async move {
        let response = next.run(request).await;
        drop(permit);
        response
    });
    match tokio::time::timeout(app.limits().handler, work).await {
        Ok(Ok(response)) => response,
        Ok(Err(_)) => ApiError::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "internal",
            "the daemon failed; its log says why, under this request id",
        )
        .into_response(),
        Err(_) => {
            ApiError::unavailable("timeout", "the request took too long; it is not known whether it took effect", 5)
                .into_response()
        }
    }
}

/// The answer, its error in our shape whoever made it.
fn shaped(mut response: Response, id: &str) -> Response {
    if let Some(error) = response.extensions_mut().remove::<ApiError>() {
        return error.render(id);
    }
    let status = response.status();
    if status.as_u16() < 400 {
        return response;
    }
    let allow = response.headers_mut().remove(header::ALLOW);
    let (code, message) = match status {
        StatusCode::METHOD_NOT_ALLOWED => {
            let allowed = allow.as_ref().and_then(|value| value.to_str().ok()).unwrap_or_default();
            ("method_not_allowed", format!("this route has no such method; it has {allowed}"))
        }
        StatusCode::BAD_REQUEST => {
            ("bad_request", "the path cannot be read: percent encoding of UTF-8 is expected".to_owned())
        }
        _ => ("error", status.canonical_reason().unwrap_or("the request failed").to_owned()),
    };
    let mut shaped = ApiError::new(status, code, message).render(id);
    if let Some(allow) = allow {
        shaped.headers_mut().insert(header::ALLOW, allow);
    }
    shaped
}

/// Headers that keep browsers from guessing, framing, storing and passing on.
pub(super) async fn harden(request: Request, next: Next) -> Response {
    let over_tls = request.extensions().get::<Secured>().is_some();
    let mut response = next.run(request).await;
    let only_tls = over_tls.then_some(ONLY_TLS);
    for (name, value) in [
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::CACHE_CONTROL, "no-store"),
        (header::CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::X_FRAME_OPTIONS, "DENY"),
    ]
    .into_iter()
    .chain(only_tls)
    {
        response.headers_mut().entry(name).or_insert(HeaderValue::from_static(value));
    }
    response
}

/// Lets a request through to its route if its caller has a role that may call it. What is not in the table is refused.
pub(super) async fn authorize(State(app): State<App>, mut request: Request, next: Next) -> Response {
    let route = request.extensions().get::<MatchedPath>().map(|path| path.as_str().to_owned());
    let wanted = route.as_deref().and_then(|route| access(request.method().as_str(), route));
    if let Some(error) = uncertified(request.extensions().get(), route.as_deref(), wanted) {
        // Its token is not looked at, so it counts as one of somebody who has none.
        let error = admit_address(&app, &request).err().unwrap_or(error);
        recorded::turned_away(&app, &request, None, &error);
        return error.into_response();
    }
    let roles = match wanted {
        Some(Access::Roles(roles)) => roles,
        open => {
            if let Err(error) = admit_address(&app, &request) {
                return error.into_response();
            }
            return match open {
                Some(_) => next.run(request).await,
                // For an unknown method there is no handler behind either; axum adds `Allow`.
                None => StatusCode::METHOD_NOT_ALLOWED.into_response(),
            };
        }
    };
    let holder = match identify(&app, request.headers()) {
        Ok(holder) => holder,
        Err(error) => {
            let error = admit_address(&app, &request).err().unwrap_or(error);
            recorded::turned_away(&app, &request, None, &error);
            return error.into_response();
        }
    };
    let caller = holder.caller();
    let admitted = match &holder {
        Holder::Anybody => admit_token(&app, None, "none").map(|()| None),
        Holder::Token(known) => admit_token(&app, Some(known.entry().sha256), &caller.name).map(|()| None),
        Holder::User(login) => admit_user(&app, login.user()).map(Some),
    };
    // What counts for a user is counted until the answer is there.
    let _under_way = match admitted {
        Ok(under_way) => under_way,
        Err(error) => return error.into_response(),
    };
    let mut response = if roles.contains(&caller.role) {
        request.extensions_mut().insert(caller.clone());
        match holder {
            Holder::Anybody => next.run(request).await,
            Holder::Token(known) => unless_ended(&app, known.ended().clone(), next.run(request)).await,
            Holder::User(login) => {
                let ended = login.ended().clone();
                request.extensions_mut().insert(login);
                unless_ended(&app, ended, next.run(request)).await
            }
        }
    } else {
        let error = forbidden(&caller, roles);
        recorded::turned_away(&app, &request, Some(&caller), &error);
        error.into_response()
    };
    response.extensions_mut().insert(caller);
    response
}

/// What a caller has shown himself to be.
enum Holder {
    /// No token is asked for.
    Anybody,
    Token(Arc<Known>),
    User(Arc<Login>),
}

impl Holder {
    fn caller(&self) -> Caller {
        match self {
            Self::Anybody => Caller::anybody(),
            Self::Token(known) => known.caller(),
            Self::User(login) => Caller { name: login.user().to_string(), role: Role::User },
        }
    }
}

fn forbidden(caller: &Caller, roles: &[Role]) -> ApiError {
    let needed: Vec<&str> = roles.iter().map(|role| role.as_str()).collect();
    let message = format!(
        "this needs a token with the role {}; token {:?} has the role {}",
        needed.join(" or "),
        caller.name,
        caller.role
    );
    ApiError::new(StatusCode::FORBIDDEN, "forbidden", message)
}

/// Who is calling, by the token in `Authorization`.
fn identify(app: &App, headers: &HeaderMap) -> Result<Holder, ApiError> {
    let login = bearer(headers).filter(|token| Users::is_token(token));
    if app.tokens().is_open() && login.is_none() {
        return if is_local(headers) { Ok(Holder::Anybody) } else { Err(not_local()) };
    }
    let missing = || {
        ApiError::unauthorized(
            "no_token",
            "an API token is needed: Authorization: Bearer TOKEN",
            "Bearer realm=\"kasm-autoscale\"",
        )
    };
    let token = bearer(headers).ok_or_else(missing)?;
    let unknown = || {
        ApiError::unauthorized(
            "invalid_token",
            "this token is not accepted, or no longer",
            "Bearer realm=\"kasm-autoscale\", error=\"invalid_token\"",
        )
    };
    if login.is_some() {
        return app.users().holder(token).map(Holder::User).ok_or_else(unknown);
    }
    app.tokens().holder(token).map(Holder::Token).ok_or_else(unknown)
}

/// The token in `Authorization`, whatever it is worth.
pub(super) fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

fn not_local() -> ApiError {
    ApiError::new(
        StatusCode::FORBIDDEN,
        "not_local",
        "no tokens are set up, so only requests from pages and programs of this machine are answered: Host and Origin must name it",
    )
}

/// Whether a request without a token is meant for this machine by somebody on it. A web page from elsewhere can make a
/// browser on this machine send requests here; their `Origin`, or after a DNS rebinding their `Host`, gives them away.
fn is_local(headers: &HeaderMap) -> bool {
    let host = headers.get(header::HOST).map(|value| value.to_str().unwrap_or_default());
    let origin = headers.get(header::ORIGIN).map(|value| value.to_str().unwrap_or_default());
    host.is_none_or(is_loopback)
        && origin.is_none_or(|origin| origin.split_once("://").is_some_and(|(_, host)| is_loopback(host)))
}

fn is_loopback(authority: &str) -> bool {
    let host = match authority.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, _)) => host,
        None => authority.split(':').next().unwrap_or_default(),
    };
    host.eq_ignore_ascii_case("localhost") || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Whatever has no route.
pub(super) async fn no_such_route() -> ApiError {
    ApiError::not_found("no_such_route", "there is no such route; /openapi.json lists them")
}

impl FromRequestParts<App> for Caller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _app: &App) -> Result<Self, ApiError> {
        let nobody = || ApiError::new(StatusCode::FORBIDDEN, "forbidden", "nobody may call this route");
        parts.extensions.get::<Self>().cloned().ok_or_else(nobody)
    }
}

/// The user who is calling.
#[derive(Debug)]
pub(super) struct User(pub(super) Arc<Login>);

impl FromRequestParts<App> for User {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _app: &App) -> Result<Self, ApiError> {
        let nobody = || ApiError::new(StatusCode::FORBIDDEN, "forbidden", "this is for users who have logged in");
        parts.extensions.get::<Arc<Login>>().cloned().map(Self).ok_or_else(nobody)
    }
}

impl OptionalFromRequestParts<App> for User {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _app: &App) -> Result<Option<Self>, ApiError> {
        Ok(parts.extensions.get::<Arc<Login>>().cloned().map(Self))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(list: &[(&'static str, &'static str)]) -> HeaderMap {
        list.iter()
            .map(|(name, value)| (name.parse::<header::HeaderName>().unwrap(), HeaderValue::from_static(value)))
            .collect()
    }

    #[test]
    fn only_this_machine_is_local() {
        for host in ["localhost", "localhost:8080", "127.0.0.1:1", "127.8.9.1", "[::1]:80", "LOCALHOST"] {
            assert!(is_local(&headers(&[("host", host)])), "{host}");
        }
        for host in
            ["example.org", "127.0.0.1.example.org", "10.0.0.1:80", "[2001:db8::1]:80", "", "localhost.example.org"]
        {
            assert!(!is_local(&headers(&[("host", host)])), "{host}");
        }
        assert!(is_local(&headers(&[("host", "localhost"), ("origin", "http://127.0.0.1:8080")])));
        for origin in ["null", "https://example.org", "http://localhost.example.org:80", ""] {
            assert!(!is_local(&headers(&[("host", "localhost"), ("origin", origin)])), "{origin}");
        }
    }
}
