//! Listens, and serves every connection within its limits until it is told to stop.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::{Extension, Router};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_io_timeout::TimeoutStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::secure::{Door, Opening, open, plain_http};
use super::{App, Limits, openapi_json, router};
use crate::auth::Tokens;
use crate::host::Host;
use crate::store::StoreError;
use crate::tls::Tls;
use crate::tokens::ApiTokens;
use crate::trail::Kind;
use crate::users::{LoginRules, Users};
use crate::workspaces::Workspaces;

/// How long to wait before accepting again after the system could not, as when it has no more file descriptors.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// How often the log is told where the audit log ends.
const HEAD_INTERVAL: Duration = Duration::from_secs(15 * 60);

/// Why the API is not served.
#[derive(Debug, Error)]
pub enum ServeError {
    /// Without tokens everybody who reaches the address would be an admin.
    #[error(
        "without API tokens the API is served on this machine alone, but {0} can be reached from others; listen on 127.0.0.1, or set up tokens"
    )]
    OpenBeyondLoopback(SocketAddr),
    /// The workspaces or the tokens cannot be read, or the audit log cannot be written.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The listener is no good.
    #[error("the listener failed: {0}")]
    Listener(#[from] std::io::Error),
}

/// What is served.
pub struct Setup {
    /// What is asked.
    pub host: Arc<Host>,
    /// Which programs and operators may ask.
    pub tokens: Tokens,
    /// Which users may ask.
    pub users: Arc<Users>,
    /// What users may launch.
    pub workspaces: Arc<Workspaces>,
    /// How much at once, and for how long.
    pub limits: Limits,
}

impl fmt::Debug for Setup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Setup").field("tokens", &self.tokens).field("limits", &self.limits).finish_non_exhaustive()
    }
}

/// All that is served, without a listener: for the fuzz targets, which ask it in their own process.
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub async fn unserved(setup: Setup, stop: CancellationToken) -> Result<Router, StoreError> {
    let tokens = tokens_of(&setup).await?;
    Ok(router(&App::new(setup, tokens, stop, openapi_json())).layer(Extension(Peer(IpAddr::from([127, 0, 0, 1])))))
}

async fn tokens_of(setup: &Setup) -> Result<Arc<ApiTokens>, StoreError> {
    let world = setup.host.world();
    ApiTokens::load(world.store.clone(), world.clock, setup.tokens.clone()).await.map(Arc::new)
}

/// Serves the API on a listener until `stop`, then ends the requests that are under way. No user can log in.
///
/// # Errors
/// [`ServeError::Store`] when the workspaces or the tokens in the host's store cannot be read, or its audit log cannot be written;
/// [`ServeError::OpenBeyondLoopback`] for [`Tokens::none`] on an address that other machines reach. Nothing is accepted then.
pub async fn serve(
    host: Arc<Host>,
    tokens: Tokens,
    listener: TcpListener,
    stop: CancellationToken,
) -> Result<(), ServeError> {
    let users = Arc::new(Users::new(host.world().clock, LoginRules::default(), BTreeMap::new()));
    let workspaces = Arc::new(Workspaces::load(host.world().store.clone(), vec![]).await?);
    serve_with(Setup { host, tokens, users, workspaces, limits: Limits::default() }, listener, stop).await
}

/// As [`serve`], with limits of one's own.
///
/// # Errors
/// As [`serve`].
pub async fn serve_with(setup: Setup, listener: TcpListener, stop: CancellationToken) -> Result<(), ServeError> {
    serve_all(setup, None, listener, stop).await
}

/// As [`serve_with`], over TLS alone: each connection with the certificate that is in use when it begins.
///
/// # Errors
/// As [`serve`].
pub async fn serve_tls(
    setup: Setup,
    tls: Arc<Tls>,
    listener: TcpListener,
    stop: CancellationToken,
) -> Result<(), ServeError> {
    serve_all(setup, Some(tls), listener, stop).await
}

async fn serve_all(
    setup: Setup,
    tls: Option<Arc<Tls>>,
    listener: TcpListener,
    stop: CancellationToken,
) -> Result<(), ServeError> {
    let limits = setup.limits;
    let address = listener.local_addr()?;
    if setup.tokens.is_open() && !address.ip().to_canonical().is_loopback() {
        return Err(ServeError::OpenBeyondLoopback(address));
    }
    let users = setup.users.clone();
    let tokens = tokens_of(&setup).await?;
    let app = App::new(setup, tokens.clone(), stop.clone(), openapi_json());
    // Where this cannot be written, no call that changes something could be answered.
    app.trail().record(app.trail().entry(Kind::Started)).await?;
    app.trail().tell_head().await;
    let router = router(&app);
    let door: Door = tls.map(|tls| (tls, plain_http(&app)));
    let sweep = stop.clone();
    app.0.tasks.spawn(async move { users.sweep(sweep).await });
    let until = stop.clone();
    app.0.tasks.spawn(async move { tokens.keep_uses(until).await });
    app.0.tasks.spawn(tell_heads(app.clone()));
    let connections = TaskTracker::new();
    let places = Arc::new(Semaphore::new(limits.connections));
    let addresses = Addresses::default();
    // Ends what has not ended by itself.
    let abort = CancellationToken::new();
    tracing::info!(%address, tls = door.is_some(), "serving the API");
    loop {
        let accepted = async {
            let place = Arc::clone(&places).acquire_owned().await;
            (place, listener.accept().await)
        };
        let (place, (stream, peer)) = tokio::select! {
            () = stop.cancelled() => break,
            (place, accepted) = accepted => match accepted {
                Ok((stream, peer)) => (place, (stream, peer.ip())),
                Err(error) => {
                    tracing::warn!(%error, "no connection could be accepted");
                    tokio::time::sleep(ACCEPT_RETRY).await;
                    continue;
                }
            },
        };
        let Some(counted) = addresses.admit(peer, limits.connections_per_address) else {
            tracing::debug!(%peer, "too many connections from one address");
            continue;
        };
        let (router, door, stop, abort) = (router.clone(), door.clone(), stop.clone(), abort.clone());
        connections.spawn(async move {
            tokio::select! {
                () = abort.cancelled() => {}
                () = welcome(stream, peer, door, router, limits, stop) => {}
            }
            drop((place, counted));
        });
    }
    drop(listener);
    connections.close();
    app.0.tasks.close();
    let ended = async {
        connections.wait().await;
        app.0.tasks.wait().await;
    };
    if tokio::time::timeout(limits.grace, ended).await.is_err() {
        abort.cancel();
        tracing::warn!("requests that did not end in time were broken off");
    }
    app.trail().record_soon(app.trail().entry(Kind::Stopped));
    app.trail().tell_head().await;
    Ok(())
}

/// Tells the log now and then where the audit log ends, so that it is known elsewhere.
async fn tell_heads(app: App) {
    loop {
        tokio::select! {
            () = app.0.stop.cancelled() => return,
            () = tokio::time::sleep(HEAD_INTERVAL) => app.trail().tell_head().await,
        }
    }
}

/// How many connections each address has.
#[derive(Clone, Debug, Default)]
struct Addresses(Arc<Mutex<BTreeMap<IpAddr, usize>>>);

/// A connection that counts for its address until it is dropped.
struct Counted(Addresses, IpAddr);

impl Addresses {
    fn admit(&self, peer: IpAddr, most: usize) -> Option<Counted> {
        let peer = peer.to_canonical();
        let mut counts = self.counts();
        let count = counts.entry(peer).or_default();
        if *count >= most {
            return None;
        }
        *count += 1;
        Some(Counted(self.clone(), peer))
    }

    // A panic while the lock is held leaves the map whole: it is only counted in.
    fn counts(&self) -> MutexGuard<'_, BTreeMap<IpAddr, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut counts = self.0.counts();
        if let Some(count) = counts.get_mut(&self.1) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.1);
            }
        }
    }
}

/// The address a request came from: the caller's own, or that of a proxy.
#[derive(Clone, Copy, Debug)]
pub(super) struct Peer(pub(super) IpAddr);

/// Serves one connection, after a handshake where TLS is spoken.
async fn welcome(stream: TcpStream, peer: IpAddr, door: Door, router: Router, limits: Limits, stop: CancellationToken) {
    // Answers are small and whole: nothing is gained by waiting for more.
    let _ = stream.set_nodelay(true);
    let Some((tls, plain_http)) = door else { return converse(stream, peer, router, true, limits, stop).await };
    let opening = tokio::select! {
        () = stop.cancelled() => return,
        opening = open(stream, &tls, limits.handshake_time) => opening,
    };
    match opening {
        Some(Opening::Secured(stream, secured)) => {
            converse(*stream, peer, router.layer(Extension(secured)), true, limits, stop).await;
        }
        Some(Opening::PlainHttp(stream)) => converse(stream, peer, plain_http, false, limits, stop).await,
        None => {}
    }
}

/// Answers requests. What goes wrong with a connection is its client's business and ends it, no more.
async fn converse(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    peer: IpAddr,
    router: Router,
    keep_alive: bool,
    limits: Limits,
    stop: CancellationToken,
) {
    // A peer that reads nothing would keep its connection's place, and the answer, for ever.
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(limits.answer_time));
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .keep_alive(keep_alive)
        .header_read_timeout(limits.header_time)
        .max_header_size(limits.headers)
        .serve_connection(
            TokioIo::new(Box::pin(stream)),
            TowerToHyperService::new(router.layer(Extension(Peer(peer)))),
        );
    let mut served = pin!(served);
    let stopped = tokio::select! {
        ended = served.as_mut() => Some(ended),
        () = stop.cancelled() => None,
    };
    let ended = match stopped {
        Some(ended) => ended,
        None => {
            served.as_mut().graceful_shutdown();
            served.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended early");
    }
}
