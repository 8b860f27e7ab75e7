//! What goes wrong, in the one shape in which callers are told.

use std::time::Duration;

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use kasm_autoscale_core::config::{Invalid, Problem};
use kasm_autoscale_core::input::Refusal;
use kasm_autoscale_core::token::TokenError;
use serde::Serialize;
use utoipa::ToSchema;

use crate::driver::AskError;
use crate::host::HostError;
use crate::store::StoreError;
use crate::tokens::TokensError;
use crate::users::LoginError;
use crate::workspaces::WorkspaceError;

/// How many mistakes are told in one answer: whoever sends nothing but mistakes is not answered with many times as much.
const PROBLEMS_MAX: usize = 100;

/// Every answer with a status of 400 or more.
#[derive(Debug, Serialize, ToSchema)]
pub struct ErrorBody {
    /// The error.
    pub error: ErrorDetail,
}

/// What went wrong.
#[derive(Debug, Serialize, ToSchema)]
pub struct ErrorDetail {
    /// A word for programs, as in `unknown_pool`.
    pub code: String,
    /// A sentence for people.
    pub message: String,
    /// Every mistake in what was sent, where there are any; the first hundred.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    pub problems: Vec<ProblemView>,
    /// The request, as the daemon's log knows it.
    pub request_id: String,
}

/// One mistake.
#[derive(Debug, Serialize, ToSchema)]
pub struct ProblemView {
    /// The field, with dots and indexes from the body's root; `?name` for one of the query.
    pub path: String,
    /// What was given, shortened; never the value of a secret.
    pub given: String,
    /// What is allowed, or what to do.
    pub allowed: String,
}

impl From<Problem> for ProblemView {
    fn from(problem: Problem) -> Self {
        Self { path: problem.path, given: problem.given, allowed: problem.allowed }
    }
}

/// An error on its way out. It becomes an answer in [`super::observe`], which knows the request's id.
#[derive(Clone, Debug)]
pub(crate) struct ApiError {
    pub(crate) status: StatusCode,
    pub(crate) code: &'static str,
    pub(crate) message: String,
    pub(crate) problems: Vec<Problem>,
    pub(crate) retry_after: Option<Duration>,
    pub(crate) challenge: Option<&'static str>,
}

impl ApiError {
    pub(crate) fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into(), problems: vec![], retry_after: None, challenge: None }
    }

    pub(crate) fn not_found(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, code, message)
    }

    pub(crate) fn invalid(mut problems: Vec<Problem>) -> Self {
        let message = match problems.len() {
            1 => "there is a mistake in what was sent; nothing was changed".into(),
            count if count > PROBLEMS_MAX => format!(
                "there are {count} mistakes in what was sent, of which {PROBLEMS_MAX} are told; nothing was changed"
            ),
            count => format!("there are {count} mistakes in what was sent; nothing was changed"),
        };
        problems.truncate(PROBLEMS_MAX);
        Self { problems, ..Self::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid", message) }
    }

    /// The service cannot do it now; it may be asked again.
    pub(crate) fn unavailable(code: &'static str, message: impl Into<String>, retry_after: u64) -> Self {
        let error = Self::new(StatusCode::SERVICE_UNAVAILABLE, code, message);
        Self { retry_after: Some(Duration::from_secs(retry_after)), ..error }
    }

    /// The caller is not known; `challenge` says what to bring (RFC 6750 §3).
    pub(crate) fn unauthorized(code: &'static str, message: impl Into<String>, challenge: &'static str) -> Self {
        Self { challenge: Some(challenge), ..Self::new(StatusCode::UNAUTHORIZED, code, message) }
    }

    fn internal(cause: &dyn std::fmt::Display) -> Self {
        // The cause may speak of paths and queries of ours: it is for the log.
        tracing::error!(%cause, "a request failed");
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "internal",
            "the daemon failed; its log says why, under this request id",
        )
    }

    /// The whole answer.
    pub(crate) fn render(self, request_id: &str) -> Response {
        let problems = self.problems.into_iter().map(ProblemView::from).collect();
        let detail =
            ErrorDetail { code: self.code.into(), message: self.message, problems, request_id: request_id.into() };
        let mut response = (self.status, axum::Json(ErrorBody { error: detail })).into_response();
        if let Some(after) = self.retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(after.as_secs()));
        }
        if let Some(challenge) = self.challenge {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
        }
        response
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = self.status.into_response();
        response.extensions_mut().insert(self);
        response
    }
}

impl From<HostError> for ApiError {
    fn from(error: HostError) -> Self {
        let message = error.to_string();
        let conflict = |code| Self::new(StatusCode::CONFLICT, code, message.clone());
        match error {
            HostError::UnknownPool(_) => Self::not_found("unknown_pool", message),
            HostError::PoolExists(_) => conflict("pool_exists"),
            HostError::ConfigExists(_) => conflict("config_exists"),
            HostError::Declared(_) => conflict("declared"),
            HostError::NotEmpty(_) => conflict("pool_not_empty"),
            HostError::Invalid(invalid) => invalid.into(),
            HostError::Refused(refusal) => refusal.into(),
            HostError::Ask(error) => error.into(),
            HostError::Store(error) => error.into(),
            HostError::Restore { .. } => Self::internal(&message),
            HostError::Token(error) => error.into(),
        }
    }
}

impl From<WorkspaceError> for ApiError {
    fn from(error: WorkspaceError) -> Self {
        let message = error.to_string();
        match error {
            WorkspaceError::Unknown(_) => Self::not_found("unknown_workspace", message),
            WorkspaceError::Exists(_) => Self::new(StatusCode::CONFLICT, "workspace_exists", message),
            WorkspaceError::Declared(_) => Self::new(StatusCode::CONFLICT, "declared", message),
            WorkspaceError::Store(error) => error.into(),
        }
    }
}

impl From<TokensError> for ApiError {
    fn from(error: TokensError) -> Self {
        let message = error.to_string();
        match error {
            TokensError::Unknown(_) => Self::not_found("unknown_token", message),
            TokensError::LastAdmin => Self::new(StatusCode::CONFLICT, "last_admin_token", message),
            TokensError::TooMany => Self::new(StatusCode::CONFLICT, "too_many_tokens", message),
            TokensError::NotSaved(error) => {
                tracing::error!(%error, "the revocation of a token is not saved");
                Self::unavailable("not_saved", message, 2)
            }
            TokensError::New(error) => Self::internal(&error),
            TokensError::Store(error) => error.into(),
        }
    }
}

impl From<LoginError> for ApiError {
    fn from(error: LoginError) -> Self {
        let message = error.to_string();
        match error {
            LoginError::Ldap(problem) => Self::invalid(vec![problem]),
            LoginError::TooMany(wait) => {
                // A second more than what is left of one.
                let retry_after = Some(wait + Duration::from_secs(1));
                Self { retry_after, ..Self::new(StatusCode::TOO_MANY_REQUESTS, "too_many_failures", message) }
            }
            LoginError::Refused => {
                Self::unauthorized("login_refused", message, "Bearer realm=\"kasm-autoscale\", error=\"invalid_token\"")
            }
            LoginError::Unavailable => Self::unavailable("directory_unavailable", message, 10),
            LoginError::Full => Self::unavailable("too_many_logins", message, 60),
            LoginError::Random(error) => Self::internal(&error),
        }
    }
}

impl From<Invalid> for ApiError {
    fn from(invalid: Invalid) -> Self {
        Self::invalid(invalid.problems)
    }
}

impl From<Refusal> for ApiError {
    fn from(refusal: Refusal) -> Self {
        let (status, code) = match &refusal {
            Refusal::UnknownConfig { .. } => (StatusCode::NOT_FOUND, "unknown_config"),
            Refusal::UnknownServer { .. } => (StatusCode::NOT_FOUND, "unknown_server"),
            Refusal::UnknownSession { .. } => (StatusCode::NOT_FOUND, "unknown_session"),
            Refusal::SessionEnded { .. } => (StatusCode::CONFLICT, "session_ended"),
            Refusal::QueueFull { .. } => (StatusCode::TOO_MANY_REQUESTS, "queue_full"),
            Refusal::NothingToServe => (StatusCode::CONFLICT, "nothing_to_serve"),
            Refusal::KeyReused { .. } => (StatusCode::CONFLICT, "idempotency_key_reused"),
            Refusal::HasSessions { .. } => (StatusCode::CONFLICT, "has_sessions"),
            Refusal::AlreadyDeleting { .. } => (StatusCode::CONFLICT, "already_deleting"),
            Refusal::NotDraining { .. } => (StatusCode::CONFLICT, "not_draining"),
            Refusal::NotFrozen { .. } => (StatusCode::CONFLICT, "not_frozen"),
            Refusal::StillBroken { .. } => (StatusCode::CONFLICT, "still_broken"),
            Refusal::NoMassLoss { .. } => (StatusCode::CONFLICT, "no_mass_loss"),
            Refusal::CheckInTooLate { .. } => (StatusCode::CONFLICT, "check_in_too_late"),
        };
        let retry_after = matches!(refusal, Refusal::QueueFull { .. }).then_some(Duration::from_secs(5));
        Self { retry_after, ..Self::new(status, code, refusal.to_string()) }
    }
}

impl From<AskError> for ApiError {
    fn from(error: AskError) -> Self {
        match error {
            AskError::NotSaved => Self::unavailable(
                "not_saved",
                "the store failed; it is not known whether this took effect: ask what there is, or ask again with the same idempotency key",
                2,
            ),
            AskError::Stopped => {
                Self::unavailable("stopped", "the pool is stopped: it was deleted, or the daemon is ending", 5)
            }
        }
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        Self::internal(&error)
    }
}

impl From<TokenError> for ApiError {
    fn from(error: TokenError) -> Self {
        Self::unauthorized("invalid_checkin_token", error.to_string(), "Bearer error=\"invalid_token\"")
    }
}
