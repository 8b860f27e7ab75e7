//! The API tokens of a running daemon: those of the config file, those made through the API, and what became of them.
//!
//! What is revoked is refused from that moment on, requests that are under way included, and over restarts. When a token was
//! last used is kept in memory and written now and then, so no request waits for it or fails by it.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};
use std::time::Duration;

use kasm_autoscale_core::time::Timestamp;
use secrecy::{ExposeSecret, SecretString};
use thiserror::Error;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::auth::{Caller, NewTokenError, Role, TokenEntry, Tokens, generate_token, same, sha256, to_hex};
use crate::clock::Clock;
use crate::store::{Store, StoreError, StoredToken};

/// The longest token that is looked at, in bytes. Ours have at most 112.
const TOKEN_BYTES_MAX: usize = 512;
/// How many tokens made through the API are kept, expired and revoked ones included. Every request is compared with each.
pub const MADE_MAX: usize = 1000;
/// How often the times of last use are written.
const WRITE_USES: Duration = Duration::from_secs(60);

/// Where a token comes from.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Source {
    /// The config file declares it, or did when it was revoked.
    File,
    /// It was made through the API.
    Api,
}

impl Source {
    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Api => "api",
        }
    }
}

/// A token that is known, whether it is accepted or not.
pub struct Known {
    entry: TokenEntry,
    source: Source,
    created_at: Option<Timestamp>,
    /// Milliseconds since 1970; 0: never.
    last_used: AtomicU64,
    /// What the store knows of it.
    last_saved: AtomicU64,
    revoked_at: OnceLock<Timestamp>,
    ended: CancellationToken,
}

impl Known {
    fn new(entry: TokenEntry, source: Source, stored: Option<&StoredToken>) -> Self {
        let used = stored.and_then(|stored| stored.last_used_at).map_or(0, Timestamp::as_millis);
        let known = Self {
            entry,
            source,
            created_at: stored.and_then(|stored| stored.created_at),
            last_used: AtomicU64::new(used),
            last_saved: AtomicU64::new(used),
            revoked_at: OnceLock::new(),
            ended: CancellationToken::new(),
        };
        if let Some(at) = stored.and_then(|stored| stored.revoked_at) {
            known.revoke(at);
            known.ended.cancel();
        }
        known
    }

    /// By which people tell it from others: the first 12 hexadecimal digits of its SHA-256.
    pub fn id(&self) -> String {
        let mut digits = to_hex(&self.entry.sha256);
        digits.truncate(12);
        digits
    }

    /// Whose it is, what for, and until when.
    pub const fn entry(&self) -> &TokenEntry {
        &self.entry
    }

    /// Where it comes from.
    pub const fn source(&self) -> Source {
        self.source
    }

    /// When it was made through the API.
    pub const fn created_at(&self) -> Option<Timestamp> {
        self.created_at
    }

    /// When it was last accepted.
    pub fn last_used_at(&self) -> Option<Timestamp> {
        Some(self.last_used.load(Ordering::Relaxed)).filter(|millis| *millis > 0).map(Timestamp::from_millis)
    }

    /// When it was revoked.
    pub fn revoked_at(&self) -> Option<Timestamp> {
        self.revoked_at.get().copied()
    }

    /// Whether it is accepted.
    pub fn is_good(&self, now: Timestamp) -> bool {
        self.revoked_at().is_none() && self.entry.expires_at.is_none_or(|at| now < at)
    }

    /// Cancelled when it has been revoked, for requests that are under way.
    pub(crate) const fn ended(&self) -> &CancellationToken {
        &self.ended
    }

    /// Who brings it.
    pub(crate) fn caller(&self) -> Caller {
        Caller { name: self.entry.name.clone(), role: self.entry.role }
    }

    fn revoke(&self, at: Timestamp) {
        // The first time counts.
        self.revoked_at.get_or_init(|| at);
    }

    fn stored(&self) -> StoredToken {
        StoredToken {
            sha256: self.entry.sha256,
            name: self.entry.name.clone(),
            role: self.entry.role,
            created_at: self.created_at,
            expires_at: self.entry.expires_at,
            last_used_at: self.last_used_at(),
            revoked_at: self.revoked_at(),
        }
    }
}

impl fmt::Debug for Known {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Known").field("entry", &self.entry).field("source", &self.source).finish_non_exhaustive()
    }
}

/// Why a token was not made or revoked.
#[derive(Debug, Error)]
pub enum TokensError {
    /// There is none of this id.
    #[error("there is no token {0:?}; /v1/tokens lists them")]
    Unknown(String),
    /// Nobody could make tokens any more.
    #[error(
        "this is the last admin token that is accepted; make another one first with POST /v1/tokens, or take it out of the config file and restart the daemon"
    )]
    LastAdmin,
    /// As many as may be, and all of them are good.
    #[error("there are {MADE_MAX} tokens made through the API, none of them revoked or expired; revoke one first")]
    TooMany,
    /// It is revoked, but that is not saved.
    #[error(
        "the token is refused from now on, but the store failed: after a restart it may be accepted again, so revoke it again"
    )]
    NotSaved(#[source] StoreError),
    /// None could be drawn.
    #[error(transparent)]
    New(#[from] NewTokenError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// All tokens of a daemon.
pub struct ApiTokens {
    store: Arc<dyn Store>,
    clock: Clock,
    /// Whether no token is asked for.
    open: bool,
    all: RwLock<Vec<Arc<Known>>>,
    /// Held while what is known is changed or copied to the store, so that an older copy never comes after a newer one.
    changes: tokio::sync::Mutex<()>,
}

impl ApiTokens {
    /// Those that the config file declares, and those in the store. What is declared counts as the file says, but stays
    /// revoked if it was.
    ///
    /// # Errors
    /// [`StoreError`] when the store fails or holds what cannot be read.
    pub async fn load(store: Arc<dyn Store>, clock: Clock, declared: Tokens) -> Result<Self, StoreError> {
        let open = declared.is_open();
        let mut stored: BTreeMap<[u8; 32], StoredToken> =
            store.tokens().await?.into_iter().map(|token| (token.sha256, token)).collect();
        let mut all = vec![];
        for entry in declared.into_entries() {
            let known = Known::new(entry.clone(), Source::File, stored.remove(&entry.sha256).as_ref());
            if known.revoked_at().is_some() {
                let (token, id) = (&known.entry.name, known.id());
                tracing::warn!(token, id, "a token of the config file is refused, because it was revoked; take it out");
            }
            all.push(Arc::new(known));
        }
        let mut gone = vec![];
        for token in stored.into_values() {
            let source = if token.created_at.is_some() { Source::Api } else { Source::File };
            // Without authentication the file's tokens are not looked at, so nothing is concluded from their absence.
            if source == Source::File && token.revoked_at.is_none() && !open {
                gone.push(token.sha256);
                continue;
            }
            let entry = TokenEntry {
                name: token.name.clone(),
                role: token.role,
                sha256: token.sha256,
                expires_at: token.expires_at,
            };
            all.push(Arc::new(Known::new(entry, source, Some(&token))));
        }
        if !gone.is_empty() {
            store.forget_tokens(gone).await?;
        }
        let tokens = Self { store, clock, open, all: RwLock::new(all), changes: tokio::sync::Mutex::default() };
        if !open && !tokens.has_admin_beside(None) {
            tracing::warn!(
                "no admin token is accepted: make one with `kasm-daemon token NAME`, write it in the config file and restart"
            );
        }
        Ok(tokens)
    }

    /// Whether a store holds a token that is accepted although no config file declares it.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn any_in(store: &dyn Store, now: Timestamp) -> Result<bool, StoreError> {
        let good = |token: &StoredToken| {
            token.created_at.is_some() && token.revoked_at.is_none() && token.expires_at.is_none_or(|at| now < at)
        };
        Ok(store.tokens().await?.iter().any(good))
    }

    /// Whether no token is asked for.
    pub const fn is_open(&self) -> bool {
        self.open
    }

    /// All of them, those of the config file first.
    pub fn all(&self) -> Vec<Arc<Known>> {
        self.all.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The token that somebody brings; `None` if it is none of ours, or not any more.
    pub(crate) fn holder(&self, token: &str) -> Option<Arc<Known>> {
        self.holder_at(token, self.clock.now())
    }

    fn holder_at(&self, token: &str, now: Timestamp) -> Option<Arc<Known>> {
        if token.len() > TOKEN_BYTES_MAX {
            return None;
        }
        let given = sha256(token);
        // Every one is compared, and each in constant time, so that time tells nothing about any of them.
        let mut found = None;
        for known in self.all.read().unwrap_or_else(PoisonError::into_inner).iter() {
            if same(&known.entry.sha256, &given) {
                found = Some(known.clone());
            }
        }
        let found = found.filter(|known| known.is_good(now))?;
        found.last_used.fetch_max(now.as_millis(), Ordering::Relaxed);
        Some(found)
    }

    /// Makes a token. It is saved before it is told, and told here alone.
    ///
    /// # Errors
    /// `TooMany`, `New` or `Store` of [`TokensError`].
    pub async fn make(
        &self,
        name: &str,
        role: Role,
        expires_at: Option<Timestamp>,
    ) -> Result<(SecretString, Arc<Known>), TokensError> {
        let _changing = self.changes.lock().await;
        self.make_room().await?;
        let now = self.clock.now();
        loop {
            let token = generate_token(name)?.token;
            let sha256 = sha256(token.expose_secret());
            let stored = StoredToken {
                sha256,
                name: name.into(),
                role,
                created_at: Some(now),
                expires_at,
                last_used_at: None,
                revoked_at: None,
            };
            let entry = TokenEntry { name: name.into(), role, sha256, expires_at };
            let known = Arc::new(Known::new(entry, Source::Api, Some(&stored)));
            // Ids are short, and no two tokens may share one.
            if self.all().iter().any(|other| other.id() == known.id()) {
                continue;
            }
            self.store.put_tokens(vec![stored]).await?;
            self.all.write().unwrap_or_else(PoisonError::into_inner).push(known.clone());
            tracing::info!(token = name, %role, id = known.id(), "an API token was made");
            return Ok((token, known));
        }
    }

    /// Forgets the one that has been of no use for longest, when there are as many as may be.
    async fn make_room(&self) -> Result<(), TokensError> {
        let now = self.clock.now();
        let all = self.all();
        let made = || all.iter().filter(|known| known.source == Source::Api);
        if made().count() < MADE_MAX {
            return Ok(());
        }
        let over = |known: &&Arc<Known>| known.revoked_at().or(known.entry.expires_at);
        let spent = made().filter(|known| !known.is_good(now)).min_by_key(over).ok_or(TokensError::TooMany)?;
        self.store.forget_tokens(vec![spent.entry.sha256]).await?;
        self.all.write().unwrap_or_else(PoisonError::into_inner).retain(|known| !Arc::ptr_eq(known, spent));
        Ok(())
    }

    /// Revokes the token of this id: from now on it is refused, and requests under way with it are broken off. To revoke it
    /// again is no error. When the store fails it is refused all the same until the daemon ends.
    ///
    /// # Errors
    /// `Unknown`, `LastAdmin` or `NotSaved` of [`TokensError`].
    pub async fn revoke(&self, id: &str) -> Result<(), TokensError> {
        let _changing = self.changes.lock().await;
        let all = self.all();
        let unknown = || TokensError::Unknown(id.chars().take(63).collect());
        let known = all.iter().find(|known| known.id() == id).ok_or_else(unknown)?;
        let now = self.clock.now();
        let is_admin = known.is_good(now) && known.entry.role == Role::Admin;
        if is_admin && !self.open && !self.has_admin_beside(Some(known)) {
            return Err(TokensError::LastAdmin);
        }
        known.revoke(now);
        let saved = self.store.put_tokens(vec![known.stored()]).await;
        known.ended.cancel();
        tracing::info!(token = known.entry.name, id, is_saved = saved.is_ok(), "an API token was revoked");
        saved.map_err(TokensError::NotSaved)
    }

    fn has_admin_beside(&self, one: Option<&Arc<Known>>) -> bool {
        let now = self.clock.now();
        let all = self.all();
        let mut others = all.iter().filter(|known| !one.is_some_and(|one| Arc::ptr_eq(one, known)));
        others.any(|known| known.entry.role == Role::Admin && known.is_good(now))
    }

    /// Writes the times of last use now and then, until it is told to stop, and then once more.
    pub(crate) async fn keep_uses(&self, stop: CancellationToken) {
        loop {
            let is_last = tokio::select! {
                () = stop.cancelled() => true,
                () = sleep(WRITE_USES) => false,
            };
            if let Err(error) = self.write_uses().await {
                tracing::warn!(%error, "when tokens were last used is not saved; it is tried again");
            }
            if is_last {
                return;
            }
        }
    }

    /// Writes the times of last use that the store does not know.
    ///
    /// # Errors
    /// [`StoreError`]. What was not written is written by the next call.
    pub(crate) async fn write_uses(&self) -> Result<(), StoreError> {
        let _changing = self.changes.lock().await;
        let all = self.all();
        let used: Vec<(&Arc<Known>, StoredToken)> = all
            .iter()
            .filter(|known| known.last_used.load(Ordering::Relaxed) > known.last_saved.load(Ordering::Relaxed))
            .map(|known| (known, known.stored()))
            .collect();
        if used.is_empty() {
            return Ok(());
        }
        self.store.put_tokens(used.iter().map(|(_, stored)| stored.clone()).collect()).await?;
        for (known, stored) in used {
            known.last_saved.store(stored.last_used_at.map_or(0, Timestamp::as_millis), Ordering::Relaxed);
        }
        Ok(())
    }
}

impl fmt::Debug for ApiTokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApiTokens").field("open", &self.open).field("all", &self.all).finish_non_exhaustive()
    }
}
