//! How a connection becomes a secure one, and what a secure one may do.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::{HeaderName, StatusCode, header};
use axum::middleware::{from_fn, from_fn_with_state};
use axum::response::IntoResponse;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::access::Access;
use super::error::ApiError;
use super::{App, gate};
use crate::tls::Tls;

/// For a year browsers ask this host over TLS alone (RFC 6797).
pub(super) const ONLY_TLS: (HeaderName, &str) = (header::STRICT_TRANSPORT_SECURITY, "max-age=31536000");

/// The record type with which every TLS client begins (RFC 8446 §5.1).
const HANDSHAKE: u8 = 22;

/// What is known of a connection over TLS. Requests over it carry this.
#[derive(Clone, Copy, Debug)]
pub(super) struct Secured {
    /// Whether its client has shown a certificate that is taken, or none is wanted.
    certified: bool,
}

/// How a connection begins.
pub(super) enum Opening {
    /// With a handshake that has succeeded.
    Secured(Box<TlsStream<TcpStream>>, Secured),
    /// With what looks like plain HTTP.
    PlainHttp(TcpStream),
}

/// Shakes hands within this time. `None` for whoever does not: it is not worth an answer.
pub(super) async fn open(stream: TcpStream, tls: &Tls, within: Duration) -> Option<Opening> {
    tokio::time::timeout(within, begin(stream, tls)).await.ok().flatten()
}

async fn begin(stream: TcpStream, tls: &Tls) -> Option<Opening> {
    let mut first = [0];
    // Looked at, not taken: the handshake begins with it. Nothing is kept for a client that says nothing.
    let seen = stream.peek(&mut first).await.ok()?;
    match first[0] {
        _ if seen == 0 => None,
        HANDSHAKE => {
            let accepted = TlsAcceptor::from(tls.config()).accept(stream).await;
            let stream = accepted.map_err(|error| tracing::debug!(%error, "a TLS handshake failed")).ok()?;
            let certified = !tls.wants_certificates() || stream.get_ref().1.peer_certificates().is_some();
            Some(Opening::Secured(Box::new(stream), Secured { certified }))
        }
        letter if letter.is_ascii_uppercase() => Some(Opening::PlainHttp(stream)),
        _ => None,
    }
}

/// What somebody is told who speaks plain HTTP where TLS is spoken. No token is looked at: it has been seen by others.
pub(super) fn plain_http(app: &App) -> Router {
    let refuse = || async {
        let message =
            "TLS is spoken here: ask with https://; whatever this request holds has crossed the network in the clear";
        let mut response = ApiError::new(StatusCode::BAD_REQUEST, "plain_http", message).into_response();
        response.headers_mut().insert(header::CONNECTION, axum::http::HeaderValue::from_static("close"));
        response
    };
    Router::new().fallback(refuse).layer(from_fn_with_state(app.clone(), gate::observe)).layer(from_fn(gate::harden))
}

/// The refusal of a request to such a route over a connection without the certificate that it needs.
pub(super) fn uncertified(secured: Option<&Secured>, route: Option<&str>, wanted: Option<Access>) -> Option<ApiError> {
    let lacks = secured.is_some_and(|secured| !secured.certified);
    let free = matches!(wanted, Some(Access::CheckIn)) || route == Some("/healthz");
    let message = "this needs a client certificate: only machines may do without one, to check in";
    (lacks && !free).then(|| ApiError::new(StatusCode::FORBIDDEN, "no_client_certificate", message))
}

/// A shared door: what all connections of a listener are opened with.
pub(super) type Door = Option<(Arc<Tls>, Router)>;
