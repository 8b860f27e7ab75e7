//! Users who log in and out, and the LDAP configs they log in with.

use std::net::IpAddr;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::{Extension, Json};
use kasm_autoscale_core::config::JsonObject;
use kasm_autoscale_core::fields::Fields;
use kasm_autoscale_core::id::DirectoryName;
use secrecy::zeroize::Zeroizing;
use secrecy::{ExposeSecret, SecretString};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::App;
use super::body::{NoParams, is_json, parse_object, read_secret_body};
use super::connection::Revealed;
use super::error::{ApiError, ErrorBody};
use super::gate::{User, bearer};
use super::recorded;
use super::serve::Peer;
use crate::clock::rfc3339;
use crate::users::{Login, LoginWish};

/// A user's name and password.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({ "username": "ann@corp.example", "password": "..." }))]
pub struct LoginBody {
    /// The LDAP config to log in with. It may be left out where only one is enabled, and where the user name ends with the
    /// domain of one of them.
    pub ldap: Option<String>,
    /// As in `ann` or `ann@corp.example`.
    pub username: String,
    /// The user's own password.
    #[schema(format = Password)]
    pub password: String,
}

/// A login.
#[derive(Debug, Serialize, ToSchema)]
pub struct LoginView {
    /// Who, as pools know him.
    pub user: String,
    /// The LDAP config he has logged in with.
    pub ldap: String,
    /// The token to bring from now on, in `Authorization: Bearer TOKEN`. Told once, when the login begins.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = Password)]
    pub token: Option<Revealed>,
    /// When the login ends unless the token is used before.
    #[schema(format = DateTime)]
    pub expires_at: String,
}

impl LoginView {
    fn of(login: &Login, token: Option<SecretString>) -> Self {
        Self {
            user: login.user().to_string(),
            ldap: login.ldap().to_string(),
            token: token.map(Revealed),
            expires_at: rfc3339(login.expires_at()),
        }
    }
}

/// An LDAP config.
#[derive(Debug, Serialize, ToSchema)]
pub struct LdapView {
    /// Its name in the config file.
    pub name: String,
    /// Its domain.
    pub domain: String,
    /// Whether users may log in with it. One that is not enabled is there for computers alone.
    pub enabled: bool,
}

/// The LDAP configs.
#[derive(Debug, Serialize, ToSchema)]
pub struct LdapList {
    /// By name.
    pub ldap: Vec<LdapView>,
}

/// All LDAP configs
///
/// They are declared in the config file, with all that is secret of them.
#[utoipa::path(get, path = "/v1/ldap", tag = "users", responses((status = 200, description = "The LDAP configs.", body = LdapList)))]
pub(super) async fn list_ldap(State(app): State<App>, _: NoParams) -> Json<LdapList> {
    let view = |(name, realm): (&DirectoryName, &crate::users::Realm)| LdapView {
        name: name.to_string(),
        domain: realm.authenticator.domain(),
        enabled: realm.enabled,
    };
    Json(LdapList { ldap: app.users().realms().map(view).collect() })
}

/// Log in
///
/// Whatever is wrong with the name or the password, the answer is the same. After a few failures a user name and an address
/// have to wait.
#[utoipa::path(post, path = "/v1/login", tag = "users", request_body = LoginBody, responses(
    (status = 200, description = "Logged in.", body = LoginView),
    (status = 401, description = "The user name or the password is wrong, or this user may not log in.", body = ErrorBody),
    (status = 422, description = "The body has mistakes, or it does not say which LDAP config is meant.", body = ErrorBody),
    (status = 429, description = "Too many failures. `Retry-After` says when to try again.", body = ErrorBody),
    (status = 503, description = "The directory does not answer.", body = ErrorBody),
))]
pub(super) async fn log_in(
    State(app): State<App>,
    _: NoParams,
    Extension(Peer(peer)): Extension<Peer>,
    request: Request,
) -> Result<Json<LoginView>, ApiError> {
    if !is_json(request.headers()) {
        let message = "the body must be JSON, with the header Content-Type: application/json";
        return Err(ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "not_json", message));
    }
    let address = origin(&app, peer, request.headers());
    let body = read_secret_body(request.into_body(), app.limits().body_time).await?;
    let wish = read_wish(parse_object(&body)?, address)?;
    drop(body);
    // Tells tries with one name from those with many; the name itself may be a password in the wrong place.
    recorded::about("user_digest", app.trail().digest(&[wish.username.trim().to_lowercase().as_bytes()]));
    let (token, login) = app.users().log_in(wish).await?;
    recorded::about("user", login.user().to_string());
    let (users, undone) = (app.clone(), token.clone());
    recorded::unless_recorded(move || users.users().log_out(undone.expose_secret()));
    Ok(Json(LoginView::of(&login, Some(token))))
}

/// Reads the body. No mistake shows what was given, for that may be the password in the wrong place.
fn read_wish(mut body: JsonObject, address: Option<IpAddr>) -> Result<LoginWish, ApiError> {
    let password = match body.insert("password".into(), Value::Null) {
        Some(Value::String(text)) => {
            let text = Zeroizing::new(text);
            body.insert("password".into(), "".into());
            Some(SecretString::from(text.as_str()))
        }
        _ => None,
    };
    let mut fields = Fields::new(&body);
    let ldap: Option<DirectoryName> = fields.name("ldap");
    let username = fields.text("username");
    let username =
        fields.require("username", username, "the name to log in with, as in \"ann\" or \"ann@corp.example\"");
    fields.text("password");
    fields.require("password", password.as_ref(), "the user's own password, a text");
    let mut problems = fields.finish();
    for problem in problems.iter_mut().filter(|problem| problem.given != "nothing") {
        problem.given = "something else (not shown)".into();
    }
    match (username, password) {
        (Some(username), Some(password)) if problems.is_empty() => Ok(LoginWish { ldap, username, password, address }),
        _ => Err(ApiError::invalid(problems)),
    }
}

/// Where a request comes from. A proxy appends the address that it was called from, so the last one is the one to believe;
/// those before it are whatever the caller has sent.
pub(super) fn origin(app: &App, peer: IpAddr, headers: &HeaderMap) -> Option<IpAddr> {
    if !(app.users().rules().behind_proxy || peer.to_canonical().is_loopback()) {
        return Some(peer);
    }
    let list = headers.get_all("x-forwarded-for").iter().next_back();
    let last = list.and_then(|list| list.to_str().ok()).and_then(|list| list.rsplit(',').next()).map(str::trim);
    let forwarded = last.and_then(|text| {
        let with_port = || text.parse::<std::net::SocketAddr>().ok().map(|address| address.ip());
        text.parse::<IpAddr>().ok().or_else(with_port)
    });
    Some(forwarded.unwrap_or(peer))
}

/// Who is logged in
#[utoipa::path(get, path = "/v1/login", tag = "users", responses((status = 200, description = "The login.", body = LoginView)))]
pub(super) async fn show_login(_: NoParams, User(login): User) -> Json<LoginView> {
    Json(LoginView::of(&login, None))
}

/// Log out
///
/// The token is worth nothing any more, and the password is forgotten. Sessions go on.
#[utoipa::path(post, path = "/v1/logout", tag = "users", responses((status = 204, description = "Logged out.")))]
pub(super) async fn log_out(State(app): State<App>, _: NoParams, _user: User, headers: HeaderMap) -> StatusCode {
    if let Some(token) = bearer(&headers) {
        app.users().log_out(token);
    }
    StatusCode::NO_CONTENT
}
