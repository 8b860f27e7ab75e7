//! Routes about the daemon itself.

use std::time::Duration;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use kasm_autoscale_core::pool::Pool;
use tokio::task::JoinSet;

use super::App;
use super::error::{ApiError, ErrorBody};

/// How long all pools together may take to show that they are alive.
const ALIVE_PATIENCE: Duration = Duration::from_secs(1);

/// Whether the daemon is alive
///
/// Asks every pool for a sign of life. Says no more than `ok`.
#[utoipa::path(get, path = "/healthz", tag = "daemon", responses(
    (status = 200, description = "Every pool answered.", body = String, content_type = "text/plain"),
    (status = 503, description = "A pool did not answer within a second.", body = ErrorBody),
))]
pub(super) async fn healthz(State(app): State<App>) -> Result<&'static str, ApiError> {
    let mut looks = JoinSet::new();
    for pool in app.host().pools() {
        looks.spawn(async move { pool.look(|_| ()).await });
    }
    let all = async {
        while let Some(look) = looks.join_next().await {
            if !matches!(look, Ok(Ok(()))) {
                return false;
            }
        }
        true
    };
    let alive = tokio::time::timeout(ALIVE_PATIENCE, all).await.unwrap_or(false);
    if alive { Ok("ok") } else { Err(ApiError::unavailable("not_alive", "a pool does not answer", 1)) }
}

/// This document
#[utoipa::path(get, path = "/openapi.json", tag = "daemon", responses(
    (status = 200, description = "The OpenAPI 3.1 document.", body = Object, content_type = "application/json"),
))]
pub(super) async fn openapi(State(app): State<App>) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], app.0.openapi.clone()).into_response()
}

/// Counters and gauges for Prometheus
///
/// Pools that do not answer in time are left out.
#[utoipa::path(get, path = "/metrics", tag = "daemon", responses(
    (status = 200, description = "In the OpenMetrics text format.", body = String, content_type = "application/openmetrics-text"),
))]
pub(super) async fn metrics(State(app): State<App>) -> Result<Response, ApiError> {
    let mut looks = JoinSet::new();
    for pool in app.host().pools() {
        let app = app.clone();
        looks.spawn(async move { app.look(&pool, Pool::report).await });
    }
    let mut reports: Vec<_> = looks.join_all().await.into_iter().flatten().collect();
    reports.sort_by(|one, other| one.pool.cmp(&other.pool));
    let text = app.host().world().metrics.text(&reports);
    Ok((StatusCode::OK, [(header::CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], text)
        .into_response())
}
