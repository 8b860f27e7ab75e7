//! How much one caller may ask of the daemon, so that one who asks too much keeps nobody else from being served.
//!
//! Who brings a good token is counted by his token, a user by his name, and everybody else by his address: a stranger's flood
//! costs no holder of a token anything, even from the same address.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::extract::Request;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use kasm_autoscale_core::id::{PoolId, UserName};
use kasm_autoscale_core::time::Timestamp;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::App;
use super::error::ApiError;
use super::login::origin;
use super::rate::{Buckets, Rate};
use super::serve::Peer;
use crate::driver::PoolHandle;
use crate::users::network;

/// How long a pool may take to say whether a user has a session there. One that does not answer counts as if he had none: a
/// pool that hangs keeps nobody out of the others.
const POOL_PATIENCE: Duration = Duration::from_secs(1);
/// How often the log tells of refusals of one kind.
const TELL_EVERY: Duration = Duration::from_secs(60);
/// The bucket of those who need no token.
const NO_TOKEN: [u8; 32] = [0; 32];

/// How much one caller may ask.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct CallerLimits {
    /// Requests from one address, or one /64 of IPv6, that bring no good token: logins, check-ins and `/healthz` as well.
    pub address: Rate,
    /// Requests with one API token.
    pub token: Rate,
    /// Requests of one user, with all his logins together.
    pub user: Rate,
    /// Requests of one user that are under way at once, those that wait for a session included.
    pub user_requests: usize,
    /// Sessions of one user that are open or waited for at once, over all pools. In one pool he has one at most.
    pub user_sessions: usize,
}

impl CallerLimits {
    /// Limits that nobody meets.
    pub const NONE: Self = {
        let rate = Rate::per_second(1_000_000, 1_000_000);
        Self { address: rate, token: rate, user: rate, user_requests: 1_000_000, user_sessions: 1_000_000 }
    };
}

impl Default for CallerLimits {
    fn default() -> Self {
        Self {
            address: Rate::per_second(200, 400),
            token: Rate::per_second(1000, 2000),
            user: Rate::per_second(50, 200),
            user_requests: 16,
            user_sessions: 10,
        }
    }
}

/// What everybody has asked of late, and asks now.
pub(super) struct Admission {
    limits: CallerLimits,
    addresses: Mutex<Buckets<IpAddr>>,
    tokens: Mutex<Buckets<[u8; 32]>>,
    users: Mutex<Buckets<UserName>>,
    /// Requests under way.
    under_way: Counts<UserName>,
    /// Sessions that are just being asked for.
    asked: Counts<(UserName, PoolId)>,
    told_at: Mutex<BTreeMap<&'static str, Timestamp>>,
}

impl Admission {
    pub(super) fn new(limits: CallerLimits) -> Self {
        Self {
            limits,
            addresses: Mutex::new(Buckets::new(limits.address)),
            tokens: Mutex::new(Buckets::new(limits.token)),
            users: Mutex::new(Buckets::new(limits.user)),
            under_way: Counts::default(),
            asked: Counts::default(),
            told_at: Mutex::default(),
        }
    }
}

/// Counts a request of somebody who has shown no good token.
///
/// # Errors
/// 429 when there were too many from his address.
pub(super) fn admit_address(app: &App, request: &Request) -> Result<(), ApiError> {
    let Some(Peer(peer)) = request.extensions().get::<Peer>().copied() else { return Ok(()) };
    let address = network(origin(app, peer, request.headers()).unwrap_or(peer));
    let now = app.host().world().clock.now();
    let taken = lock(&app.0.admission.addresses).take(now, address);
    taken.map_err(|wait| too_often(app, "address", &address, "from this address without a good token", wait))
}

/// Counts a request with an API token; with `None` one of somebody who needs none.
///
/// # Errors
/// 429 when there were too many.
pub(super) fn admit_token(app: &App, sha256: Option<[u8; 32]>, name: &str) -> Result<(), ApiError> {
    let now = app.host().world().clock.now();
    let taken = lock(&app.0.admission.tokens).take(now, sha256.unwrap_or(NO_TOKEN));
    taken.map_err(|wait| too_often(app, "token", &name, "with this token", wait))
}

/// Counts a request of a user, which is under way until the answer is dropped.
///
/// # Errors
/// 429 when there were too many, or too many are under way.
pub(super) fn admit_user<'a>(app: &'a App, user: &UserName) -> Result<Counted<'a, UserName>, ApiError> {
    let admission = &app.0.admission;
    let now = app.host().world().clock.now();
    let taken = lock(&admission.users).take(now, user.clone());
    taken.map_err(|wait| too_often(app, "user", user, "of this user", wait))?;
    let most = admission.limits.user_requests;
    admission.under_way.count(user.clone(), most).ok_or_else(|| {
        tell(app, "user_requests", user);
        let message = format!("{most} requests of this user are under way already; let one of them end first");
        let error = ApiError::new(StatusCode::TOO_MANY_REQUESTS, "too_many_at_once", message);
        ApiError { retry_after: Some(Duration::from_secs(1)), ..error }
    })
}

/// Whether a user may have one more session, in this pool. To be kept until the pool has been asked for it, so that many wishes
/// at once are no more than one after the other.
///
/// # Errors
/// 409 when he has as many as he may in other pools, and none in this one.
pub(super) async fn admit_session<'a>(
    app: &'a App,
    pool: &PoolHandle,
    user: &UserName,
) -> Result<Counted<'a, (UserName, PoolId)>, ApiError> {
    let admission = &app.0.admission;
    let most = admission.limits.user_sessions;
    let others: Vec<PoolHandle> = app.host().pools().into_iter().filter(|other| other.id() != pool.id()).collect();
    // Wishes first, sessions second: whatever has become a session meanwhile is seen as one.
    let (asking, asked) = admission.asked.count_beside((user.clone(), pool.id()), |(other, _)| other == user);
    if others.len() < most || has_session(pool.clone(), user.clone()).await {
        return Ok(asking);
    }
    let mut looks = JoinSet::new();
    let mut open = 0;
    for other in others {
        if asked.iter().any(|(_, pool)| *pool == other.id()) {
            open += 1;
        } else {
            looks.spawn(has_session(other, user.clone()));
        }
    }
    while let Some(look) = looks.join_next().await {
        open += usize::from(matches!(look, Ok(true)));
    }
    if open < most {
        return Ok(asking);
    }
    tell(app, "user_sessions", user);
    let message = format!("this user has {open} sessions in other pools, and may have {most} at once; end one first");
    Err(ApiError::new(StatusCode::CONFLICT, "too_many_sessions", message))
}

async fn has_session(pool: PoolHandle, user: UserName) -> bool {
    let look = pool.look(move |pool| pool.open_session(&user).is_some());
    matches!(tokio::time::timeout(POOL_PATIENCE, look).await, Ok(Ok(true)))
}

/// Works a request off unless its token is revoked or its login ended meanwhile: then the caller is told so at once, and what
/// he has begun is brought to an end without him, as for one who hangs up.
pub(super) async fn unless_ended(
    app: &App,
    ended: CancellationToken,
    work: impl Future<Output = Response> + Send + 'static,
) -> Response {
    let mut work = Box::pin(work);
    tokio::select! {
        // Who ends his own login is told that he has.
        biased;
        response = &mut work => response,
        () = ended.cancelled() => {
            app.0.tasks.spawn(work);
            ApiError::unauthorized(
                "invalid_token",
                "this token was revoked while the request was under way; it is not known whether it took effect",
                "Bearer realm=\"kasm-autoscale\", error=\"invalid_token\"",
            )
            .into_response()
        }
    }
}

fn too_often(app: &App, kind: &'static str, who: &dyn fmt::Display, whose: &str, wait: Duration) -> ApiError {
    tell(app, kind, who);
    let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
    let message = format!("too many requests {whose}; ask again in {seconds} s");
    let error = ApiError::new(StatusCode::TOO_MANY_REQUESTS, "rate_limited", message);
    ApiError { retry_after: Some(Duration::from_secs(seconds)), ..error }
}

/// Counts a refusal, and now and then tells the log whose it was.
fn tell(app: &App, kind: &'static str, who: &dyn fmt::Display) {
    let world = app.host().world();
    world.metrics.limited(kind);
    let now = world.clock.now();
    let mut told_at = lock(&app.0.admission.told_at);
    if told_at.get(kind).is_none_or(|at| *at + TELL_EVERY <= now) {
        told_at.insert(kind, now);
        tracing::warn!(kind, %who, "a caller meets a limit; the metric rate_limited counts, and this is told once a minute");
    }
}

// A panic while a lock is held leaves what it guards whole: it is changed in single calls.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How many of something each has under way.
struct Counts<K>(Mutex<BTreeMap<K, usize>>);

impl<K> Default for Counts<K> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

/// One of them, until it is dropped.
pub(super) struct Counted<'a, K: Ord + Clone>(&'a Counts<K>, K);

impl<K: Ord + Clone> Counts<K> {
    /// One more, if there are not `most` already.
    fn count(&self, key: K, most: usize) -> Option<Counted<'_, K>> {
        let mut counts = lock(&self.0);
        let count = counts.get(&key).copied().unwrap_or_default();
        if count >= most {
            return None;
        }
        counts.insert(key.clone(), count + 1);
        Some(Counted(self, key))
    }

    /// One more, and which others there are beside it.
    fn count_beside(&self, key: K, is_wanted: impl Fn(&K) -> bool) -> (Counted<'_, K>, Vec<K>) {
        let mut counts = lock(&self.0);
        let others = counts.keys().filter(|other| **other != key && is_wanted(other)).cloned().collect();
        *counts.entry(key.clone()).or_default() += 1;
        (Counted(self, key), others)
    }
}

impl<K: Ord + Clone> Drop for Counted<'_, K> {
    fn drop(&mut self) {
        let mut counts = lock(&self.0.0);
        if let Some(count) = counts.get_mut(&self.1) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.1);
            }
        }
    }
}
