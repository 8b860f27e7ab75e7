//! The check-in of machines, in the form that startup scripts send it in.

use axum::Json;
use axum::extract::{Request, State};
use kasm_autoscale_core::config::Problem;
use kasm_autoscale_core::fields::shown;
use kasm_autoscale_core::input::Refusal;
use kasm_autoscale_core::token::verify_checkin_token;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::App;
use super::body::{Params, SMALL_BYTES, parse_object, read_body};
use super::error::{ApiError, ErrorBody};
use super::recorded;
use crate::host::HostError;

/// What a machine says of itself. Further fields are let pass: scripts are written for other versions too.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
pub struct ServerStatusBody {
    /// `running` when it is ready; any other word is shown and not acted on.
    #[schema(example = "running")]
    pub status: String,
    /// Free text; 500 characters are kept.
    #[schema(required = false)]
    pub status_message: String,
    /// Percent, as a number or as text: scripts send both.
    #[schema(value_type = ProgressBody, required = false, example = "100")]
    pub status_progress: Value,
}

/// Percent, as a number or as text.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(untagged)]
pub enum ProgressBody {
    /// As in `100`.
    Number(f64),
    /// As in `"100"`.
    Text(String),
}

/// A machine checks in
///
/// The one route that machines call, from their startup script: `{checkin_jwt}` gives them the token. Each token is good for
/// its own server alone. The content type does not matter.
#[utoipa::path(post, path = "/api/set_server_status", tag = "machines",
    params(("token" = String, Query, description = "The check-in token of the server.")),
    request_body = ServerStatusBody,
    responses(
        (status = 200, description = "Taken note of: an empty object.", body = Object),
        (status = 400, description = "The body is not JSON.", body = ErrorBody),
        (status = 401, description = "The token was not made here, or has expired.", body = ErrorBody),
        (status = 409, description = "The server is being deleted.", body = ErrorBody),
        (status = 410, description = "The server is gone.", body = ErrorBody),
        (status = 422, description = "The body has mistakes.", body = ErrorBody),
    ))]
pub(super) async fn set_server_status(
    State(app): State<App>,
    mut params: Params,
    request: Request,
) -> Result<Json<Value>, ApiError> {
    let token = params.text("token").unwrap_or_default();
    let world = app.host().world();
    // Before anything is read: a stranger is told nothing about what is wrong with his body.
    let key = verify_checkin_token(&world.key, &token, world.clock.now())?;
    recorded::about("server", key.server.to_string());
    recorded::about("pool_id", key.pool.to_string());
    params.finish()?;
    let body = read_body(request.into_body(), SMALL_BYTES, app.limits().body_time).await?;
    let object = parse_object(&body)?;
    let mut problems = vec![];
    let text = |name: &str| object.get(name).filter(|value| !value.is_null());
    let status = text("status").and_then(Value::as_str).unwrap_or_default();
    if status.is_empty() {
        problems.push(Problem::new(
            "status",
            text("status").map_or_else(|| "nothing".into(), shown),
            "required: a word, running when the machine is ready",
        ));
    }
    let message = text("status_message").map_or(Some(""), Value::as_str);
    if message.is_none() {
        problems.push(Problem::new("status_message", "something else", "a text"));
    }
    let progress = text("status_progress").map_or(Some(0), percent);
    if progress.is_none() {
        problems.push(Problem::new(
            "status_progress",
            text("status_progress").map_or_else(String::new, shown),
            "percent, as in 100 or \"100\"",
        ));
    }
    let (Some(message), Some(progress), true) = (message, progress, problems.is_empty()) else {
        return Err(ApiError::invalid(problems));
    };
    let (status, message) = (status.to_owned(), message.to_owned());
    app.host().check_in(&token, status, message, progress).await.map_err(|error| match error {
        HostError::Refused(refusal @ Refusal::UnknownServer { .. }) => {
            ApiError::new(axum::http::StatusCode::GONE, "server_gone", refusal.to_string())
        }
        other => other.into(),
    })?;
    Ok(Json(json!({})))
}

/// What lies outside of 0 to 100 is cut: the machine's word counts, not its arithmetic.
fn percent(value: &Value) -> Option<u8> {
    let number = match value {
        Value::String(text) => text.trim().trim_end_matches('%').parse::<f64>().ok(),
        other => other.as_f64(),
    };
    let number = number.filter(|number| number.is_finite())?;
    format!("{:.0}", number.clamp(0.0, 100.0)).parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percent_is_read_from_numbers_and_texts() {
        for (value, read) in [
            (json!(100), Some(100)),
            (json!("100"), Some(100)),
            (json!(" 42% "), Some(42)),
            (json!(12.6), Some(13)),
            (json!(-3), Some(0)),
            (json!(-0.2), Some(0)),
            (json!(1e300), Some(100)),
            (json!("nan"), None),
            (json!(""), None),
            (json!([1]), None),
            (json!(true), None),
        ] {
            assert_eq!(percent(&value), read, "{value}");
        }
    }
}
