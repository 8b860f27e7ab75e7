//! The forms in which a session tells how to connect to it.

use std::collections::BTreeMap;

use axum::Json;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use super::App;
use super::body::Params;
use super::connection::{Eyes, Revealed};
use super::error::ApiError;
use super::sessions::Seen;
use crate::connect::{guacamole, rdp};

/// The media type of a Guacamole connection.
const GUACAMOLE: &str = "application/vnd.kasm-autoscale.guacamole+json";

/// A form.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Format {
    /// The whole session, as everywhere.
    Json,
    /// A file for Remote Desktop clients.
    Rdp,
    /// Guacamole's parameters.
    Guacamole,
}

/// A connection as Guacamole takes it.
#[derive(Debug, Serialize, ToSchema)]
pub struct GuacamoleView {
    /// `rdp`, `vnc` or `ssh`.
    pub protocol: String,
    /// The parameters, all of them texts, as Guacamole's manual names them.
    #[schema(value_type = Object)]
    pub parameters: GuacamoleParameters,
}

/// The parameters of a Guacamole connection.
#[derive(Debug, Serialize)]
pub struct GuacamoleParameters {
    #[serde(flatten)]
    open: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    password: Option<Revealed>,
}

impl Format {
    /// The one that `?format=` names, or else `Accept`.
    pub(super) fn wished(params: &mut Params, headers: &HeaderMap) -> Self {
        let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let accepts =
            |kind: &str| accept.split(',').any(|part| part.split(';').next().is_some_and(|part| part.trim() == kind));
        match params.choice("format", &["json", "rdp", "guacamole"]) {
            Some("rdp") => Self::Rdp,
            Some("guacamole") => Self::Guacamole,
            Some(_) => Self::Json,
            None if accepts(rdp::MEDIA_TYPE) => Self::Rdp,
            None if accepts(GUACAMOLE) => Self::Guacamole,
            None => Self::Json,
        }
    }

    /// The session in this form. `name` is the file's, where it is one.
    pub(super) fn answer(self, app: &App, seen: Seen, eyes: Eyes<'_>, name: &str) -> Result<Response, ApiError> {
        if self == Self::Json {
            return Ok(Json(seen.view(app, eyes)).into_response());
        }
        if matches!(eyes, Eyes::Outside) {
            let message = "how to connect to a session is told to its user, and to the roles broker and admin";
            return Err(ApiError::new(StatusCode::FORBIDDEN, "forbidden", message));
        }
        let (view, target) = seen.through(app, eyes);
        let target = target.ok_or_else(|| {
            let message = format!("session {} is {}; only an active one can be connected to", view.id, view.state);
            ApiError::new(StatusCode::CONFLICT, "not_active", message)
        })?;
        let unfit = |problems| ApiError {
            problems,
            ..ApiError::new(
                StatusCode::CONFLICT,
                "does_not_fit",
                "this form cannot hold how to connect to the session; an operator has to mend the config",
            )
        };
        if self == Self::Guacamole {
            let made = guacamole::render(target).map_err(unfit)?;
            let parameters = GuacamoleParameters { open: made.parameters, password: made.password.map(Revealed) };
            let mut response = Json(GuacamoleView { protocol: made.protocol.into(), parameters }).into_response();
            response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(GUACAMOLE));
            return Ok(response);
        }
        let file = rdp::render(&target).map_err(unfit)?;
        // Names of pools and workspaces have no characters that mean anything in a header.
        let disposition = format!("attachment; filename=\"{name}.rdp\"");
        let headers = [(header::CONTENT_TYPE, rdp::MEDIA_TYPE.to_owned()), (header::CONTENT_DISPOSITION, disposition)];
        Ok((headers, file).into_response())
    }
}
