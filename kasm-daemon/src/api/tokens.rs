//! API tokens: which there are, when they were last used, making and revoking them; and ending users' logins.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use kasm_autoscale_core::config::{JsonObject, Problem};
use kasm_autoscale_core::fields::{Fields, shown};
use kasm_autoscale_core::time::Timestamp;
use secrecy::SecretString;
use serde::Serialize;
use utoipa::ToSchema;

use super::App;
use super::body::{JsonBody, NoParams, SMALL};
use super::connection::Revealed;
use super::error::{ApiError, ErrorBody};
use super::recorded;
use super::words;
use crate::auth::Role;
use crate::clock::{from_rfc3339, rfc3339};
use crate::file::TokenName;
use crate::tokens::Known;

/// A token that is wished for.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({ "name": "broker-2", "role": "broker", "expires_at": "2027-01-31T08:00:00Z" }))]
pub struct TokenBody {
    /// Who will hold it, for the log: 1 to 63 letters, digits, `.`, `_` or `-`. Several tokens may have one name, as while one
    /// replaces another; they share idempotency keys.
    pub name: String,
    /// What its holder may do: `viewer`, `broker`, `operator` or `admin`.
    pub role: String,
    /// From when on it is not accepted any more. Left out: it does not expire.
    #[schema(format = DateTime)]
    pub expires_at: Option<String>,
}

/// An API token.
#[derive(Debug, Serialize, ToSchema)]
pub struct TokenView {
    /// The first 12 digits of its SHA-256, by which it is told from others.
    pub id: String,
    /// Who holds it.
    pub name: String,
    /// What its holder may do.
    pub role: String,
    /// `file`: the config file declares it. `api`: it was made here.
    pub source: String,
    /// `accepted`, `expired` or `revoked`. One of the config file that is revoked stays so, even if the file still holds it.
    pub state: String,
    /// When it was made, if it was made here.
    #[schema(format = DateTime)]
    pub created_at: Option<String>,
    /// From when on it is not accepted any more.
    #[schema(format = DateTime)]
    pub expires_at: Option<String>,
    /// When it was last accepted. Over a crash the last two minutes may be forgotten.
    #[schema(format = DateTime)]
    pub last_used_at: Option<String>,
    /// When it was revoked.
    #[schema(format = DateTime)]
    pub revoked_at: Option<String>,
    /// The token itself. Told once, when it is made.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = Password)]
    pub token: Option<Revealed>,
}

/// API tokens.
#[derive(Debug, Serialize, ToSchema)]
pub struct TokenList {
    /// Those of the config file first, the others by their time. At most 1,000 made here are kept.
    pub tokens: Vec<TokenView>,
}

/// What became of a user's logins.
#[derive(Debug, Serialize, ToSchema)]
pub struct LoginsEnded {
    /// Whose.
    pub user: String,
    /// How many logins have ended.
    pub ended: usize,
}

impl TokenView {
    fn of(known: &Known, now: Timestamp, token: Option<SecretString>) -> Self {
        let entry = known.entry();
        let state = match known.revoked_at() {
            Some(_) => "revoked",
            None if known.is_good(now) => "accepted",
            None => "expired",
        };
        Self {
            id: known.id(),
            name: entry.name.clone(),
            role: entry.role.to_string(),
            source: known.source().as_str().into(),
            state: state.into(),
            created_at: known.created_at().map(rfc3339),
            expires_at: entry.expires_at.map(rfc3339),
            last_used_at: known.last_used_at().map(rfc3339),
            revoked_at: known.revoked_at().map(rfc3339),
            token: token.map(Revealed),
        }
    }
}

/// All API tokens
///
/// Never the tokens themselves: nobody has them but their holders.
#[utoipa::path(get, path = "/v1/tokens", tag = "tokens", responses((status = 200, description = "The tokens.", body = TokenList)))]
pub(super) async fn list_tokens(State(app): State<App>, _: NoParams) -> Json<TokenList> {
    let now = app.host().world().clock.now();
    let mut all = app.tokens().all();
    all.sort_by_key(|known| known.created_at());
    Json(TokenList { tokens: all.iter().map(|known| TokenView::of(known, now, None)).collect() })
}

/// Make an API token
///
/// The answer is the only place where it is ever told. If the answer is lost, revoke it by the `id` that the list has, and make
/// another one. When 1,000 are kept, the one that was revoked or expired first is forgotten.
#[utoipa::path(post, path = "/v1/tokens", tag = "tokens", request_body = TokenBody, responses(
    (status = 201, description = "Made.", body = TokenView),
    (status = 409, description = "There are as many as may be, and none of them is revoked or expired.", body = ErrorBody),
    (status = 422, description = "The body has mistakes: all of them.", body = ErrorBody),
))]
pub(super) async fn create_token(
    State(app): State<App>,
    _: NoParams,
    JsonBody(body): JsonBody<SMALL>,
) -> Result<(StatusCode, Json<TokenView>), ApiError> {
    let now = app.host().world().clock.now();
    let (name, role, expires_at) = read(&body, now)?;
    let (token, known) = app.tokens().make(name.as_str(), role, expires_at).await?;
    recorded::about("token", known.id());
    Ok((StatusCode::CREATED, Json(TokenView::of(&known, now, Some(token)))))
}

fn read(body: &JsonObject, now: Timestamp) -> Result<(TokenName, Role, Option<Timestamp>), ApiError> {
    let mut fields = Fields::new(body);
    let name: Option<TokenName> = fields.name("name");
    let name = fields.require("name", name, "whose token it will be, for the log");
    let role = fields.choice("role", &Role::OF_TOKENS.map(|role| (role.as_str(), role)));
    let role = fields.require("role", role, "one of \"admin\", \"operator\", \"broker\", \"viewer\"");
    let text = fields.text("expires_at");
    let expires_at = text.as_deref().and_then(from_rfc3339).filter(|at| *at > now);
    if let Some(text) = text.filter(|_| expires_at.is_none()) {
        let allowed = "an instant to come, in RFC 3339, as in \"2027-01-31T08:00:00Z\"";
        fields.problem(Problem::new("expires_at", shown(&text.into()), allowed));
    }
    let problems = fields.finish();
    match (name, role) {
        (Some(name), Some(role)) if problems.is_empty() => Ok((name, role, expires_at)),
        _ => Err(ApiError::invalid(problems)),
    }
}

/// Revoke an API token
///
/// From this moment on it is refused, over restarts too, and requests under way with it are broken off. To revoke it again is no
/// error. One of the config file can be revoked as well. The last admin token that is accepted cannot.
#[utoipa::path(delete, path = "/v1/tokens/{token}", tag = "tokens",
    params(("token" = String, Path, description = "The token's id.")), responses(
    (status = 204, description = "Revoked."),
    (status = 404, description = "There is no token of this id.", body = ErrorBody),
    (status = 409, description = "It is the last admin token: make another one first.", body = ErrorBody),
))]
pub(super) async fn revoke_token(
    State(app): State<App>,
    _: NoParams,
    Path(token): Path<String>,
) -> Result<StatusCode, ApiError> {
    app.tokens().revoke(&token).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// End a user's logins
///
/// All of them, at once: requests under way are broken off, and the password that was kept for single sign-on is forgotten. His
/// sessions go on, and he may log in again as long as the directory lets him.
#[utoipa::path(delete, path = "/v1/logins/{user}", tag = "users",
    params(("user" = String, Path, description = "The user, as pools know him: `ann@corp.example`.")), responses(
    (status = 200, description = "Ended.", body = LoginsEnded),
    (status = 404, description = "This user is not logged in.", body = ErrorBody),
))]
pub(super) async fn end_logins(
    State(app): State<App>,
    _: NoParams,
    Path(user): Path<String>,
) -> Result<Json<LoginsEnded>, ApiError> {
    let user = user.to_lowercase();
    match app.users().end_logins(&user) {
        0 => {
            let message = format!(
                "no user {} is logged in; users are named with their domain, as in ann@corp.example",
                words::shown(&user)
            );
            Err(ApiError::not_found("not_logged_in", message))
        }
        ended => {
            recorded::about("user", user.clone());
            Ok(Json(LoginsEnded { user, ended }))
        }
    }
}
