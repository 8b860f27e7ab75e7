//! Users: who may log in, and who is logged in.
//!
//! A user proves who he is to an LDAP config, and gets a token that is good for a while. His password is kept as long as
//! that, in memory alone, for single sign-on needs it; it goes with the login: at its end, at the latest
//! [`LoginRules::longest`] after it began, and when the daemon ends.

mod throttle;

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use kasm_autoscale_core::fields::Problem;
use kasm_autoscale_core::id::{DirectoryName, UserName};
use kasm_autoscale_core::time::Timestamp;
use secrecy::zeroize::Zeroizing;
use secrecy::{ExposeSecret, SecretString};
use thiserror::Error;
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::auth::sha256;
use crate::clock::Clock;

use throttle::Throttle;
pub use throttle::ThrottleRules;
pub(crate) use throttle::network;

/// What every login's token begins with; API tokens begin otherwise.
const TOKEN_PREFIX: &str = "kasmu_";
/// How many users may be logged in at once.
const LOGINS_MAX: usize = 100_000;
/// How many logins one user may have at once; the oldest one ends when there is one more.
const LOGINS_PER_USER: usize = 16;
/// How long a directory may take to say who somebody is, waiting for its turn included.
const ASK_PATIENCE: Duration = Duration::from_secs(30);
/// How often logins that are over are looked for, so that their passwords go.
const SWEEP: Duration = Duration::from_secs(5);

/// Asks a directory whether somebody is who he says.
#[async_trait]
pub trait Authenticator: Send + Sync {
    /// The DNS name of the domain whose users these are, in small letters.
    fn domain(&self) -> String;

    /// Whether a user of this name has this password, and may log in.
    ///
    /// # Errors
    /// [`AuthenticateError`].
    async fn authenticate(&self, username: &str, password: &SecretString) -> Result<Identity, AuthenticateError>;
}

/// Who somebody has proved to be.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Identity {
    /// His account's name, without a domain.
    pub account: String,
    /// The distinguished names of the groups he is a member of.
    pub groups: Vec<String>,
}

/// Why somebody is not let in.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
pub enum AuthenticateError {
    /// No such user, a wrong password, an account that is disabled, expired or in none of the groups. Which of these is for
    /// the log alone.
    #[error("refused: {0}")]
    Refused(String),
    /// The directory could not be asked.
    #[error("the directory does not answer: {0}")]
    Unavailable(String),
}

/// An LDAP config, as far as users are concerned.
pub struct Realm {
    /// Asks.
    pub authenticator: Arc<dyn Authenticator>,
    /// Whether users may log in with it. One that is not enabled is there for computers alone.
    pub enabled: bool,
    /// How many may be asked about at once.
    pub calls: u32,
}

/// How long logins last, and how they are guarded.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct LoginRules {
    /// A login ends when its token has not been used for so long.
    pub idle: Duration,
    /// A login ends so long after it began, whatever its token is used for.
    pub longest: Duration,
    /// What an answer to a failure takes at least, so that its time tells nothing about its reason.
    pub failure_delay: Duration,
    /// How often somebody may try.
    pub throttle: ThrottleRules,
    /// Whether every address the API is called from is that of a proxy which says where a request came from, by
    /// `X-Forwarded-For`. A loopback address always is one.
    pub behind_proxy: bool,
}

impl Default for LoginRules {
    fn default() -> Self {
        Self {
            idle: Duration::from_secs(3600),
            longest: Duration::from_secs(12 * 3600),
            failure_delay: Duration::from_secs(1),
            throttle: ThrottleRules::default(),
            behind_proxy: false,
        }
    }
}

/// Somebody who wishes to log in.
pub struct LoginWish {
    /// With which LDAP config; `None`: the one whose domain stands in the name, or the only one.
    pub ldap: Option<DirectoryName>,
    /// As typed: `ann` or `ann@corp.example`.
    pub username: String,
    /// His password.
    pub password: SecretString,
    /// Where he comes from.
    pub address: Option<IpAddr>,
}

impl fmt::Debug for LoginWish {
    // Somebody may type his password where his name belongs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LoginWish").field("ldap", &self.ldap).finish_non_exhaustive()
    }
}

/// Why there is no login.
#[derive(Debug, Error)]
pub enum LoginError {
    /// It is not clear which LDAP config is meant.
    #[error("{0}")]
    Ldap(Problem),
    /// Too many tries.
    #[error("too many failures; try again later")]
    TooMany(Duration),
    /// Not let in.
    #[error("the user name or the password is wrong, or this user may not log in here")]
    Refused,
    /// The directory could not be asked.
    #[error("users cannot be checked at the moment; try again later")]
    Unavailable,
    /// Too many are logged in.
    #[error("too many users are logged in")]
    Full,
    /// The system gives no random bytes.
    #[error("the system gives no random bytes: {0}")]
    Random(#[from] getrandom::Error),
}

/// Somebody who is logged in.
pub struct Login {
    user: UserName,
    ldap: DirectoryName,
    groups: Vec<String>,
    password: SecretString,
    since: Timestamp,
    longest_until: Timestamp,
    idle_until: Mutex<Timestamp>,
    ended: CancellationToken,
}

impl Login {
    /// Who, as pools know him: `ann@corp.example`.
    pub fn user(&self) -> &UserName {
        &self.user
    }

    /// The LDAP config he has logged in with.
    pub fn ldap(&self) -> &DirectoryName {
        &self.ldap
    }

    /// The distinguished names of his groups, as they were when he logged in.
    pub fn groups(&self) -> &[String] {
        &self.groups
    }

    /// His password, for single sign-on.
    pub fn password(&self) -> &SecretString {
        &self.password
    }

    /// When it ends, unless the token is used before.
    pub fn expires_at(&self) -> Timestamp {
        *self.idle_until.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Cancelled when it has been ended before its time, for requests that are under way.
    pub(crate) const fn ended(&self) -> &CancellationToken {
        &self.ended
    }

    fn use_at(&self, now: Timestamp, idle: Duration) {
        *self.idle_until.lock().unwrap_or_else(PoisonError::into_inner) = (now + idle).min(self.longest_until);
    }
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Login").field("user", &self.user).field("ldap", &self.ldap).finish_non_exhaustive()
    }
}

/// Who may log in, and who is logged in.
pub struct Users {
    clock: Clock,
    rules: LoginRules,
    realms: BTreeMap<DirectoryName, (Realm, Semaphore)>,
    /// By the SHA-256 of the token, which is kept nowhere else.
    logins: Mutex<BTreeMap<[u8; 32], Arc<Login>>>,
    throttle: Mutex<Throttle>,
}

impl Users {
    /// Users of these LDAP configs. Where none is enabled nobody can log in.
    pub fn new(clock: Clock, rules: LoginRules, realms: BTreeMap<DirectoryName, Realm>) -> Self {
        let with_places = |(name, realm): (DirectoryName, Realm)| {
            let places = Semaphore::new(usize::try_from(realm.calls).unwrap_or(1));
            (name, (realm, places))
        };
        Self {
            clock,
            rules,
            realms: realms.into_iter().map(with_places).collect(),
            logins: Mutex::default(),
            throttle: Mutex::new(Throttle::new(rules.throttle)),
        }
    }

    /// The LDAP configs, by name.
    pub fn realms(&self) -> impl ExactSizeIterator<Item = (&DirectoryName, &Realm)> {
        self.realms.iter().map(|(name, (realm, _))| (name, realm))
    }

    /// How logins are guarded.
    pub fn rules(&self) -> &LoginRules {
        &self.rules
    }

    /// Lets somebody in, or not. The token is told here once and kept nowhere.
    ///
    /// # Errors
    /// [`LoginError`]. Whatever is wrong with name or password, the error and the least time it takes are the same.
    pub async fn log_in(&self, wish: LoginWish) -> Result<(SecretString, Arc<Login>), LoginError> {
        let earliest = self.clock.now() + self.rules.failure_delay;
        let answer = self.try_log_in(wish).await;
        if matches!(answer, Err(LoginError::Refused | LoginError::Unavailable)) {
            sleep(self.clock.until(earliest)).await;
        }
        answer
    }

    async fn try_log_in(&self, wish: LoginWish) -> Result<(SecretString, Arc<Login>), LoginError> {
        let (name, realm, places) = self.realm_of(&wish)?;
        let counted = format!("{name}/{}", account_of(&wish.username, &realm.authenticator.domain()));
        let tried = self.throttle().attempt(self.clock.now(), wish.address, &counted).map_err(LoginError::TooMany)?;
        let identity = match ask(realm, places, &wish).await {
            Ok(identity) => identity,
            Err(AuthenticateError::Refused(reason)) => {
                tracing::info!(ldap = %name, reason, "a login was refused");
                return Err(LoginError::Refused);
            }
            Err(AuthenticateError::Unavailable(reason)) => {
                tracing::warn!(ldap = %name, reason, "a login could not be checked");
                self.throttle().forgive(tried);
                return Err(LoginError::Unavailable);
            }
        };
        self.throttle().forgive(tried);
        // In small letters, since pools compare users byte for byte and directories do not.
        let user = format!("{}@{}", identity.account, realm.authenticator.domain()).to_lowercase();
        let user: UserName = user.parse().map_err(|_| LoginError::Refused)?;
        tracing::info!(ldap = %name, user = ?user, "a user has logged in");
        self.admit(user, name.clone(), identity.groups, wish.password)
    }

    /// The LDAP config that is meant.
    fn realm_of(&self, wish: &LoginWish) -> Result<(&DirectoryName, &Realm, &Semaphore), LoginError> {
        let open: Vec<_> = self.realms.iter().filter(|(_, (realm, _))| realm.enabled).collect();
        let found = match (&wish.ldap, &*open) {
            (Some(wanted), _) => open.iter().find(|(name, _)| *name == wanted),
            (None, [only]) => Some(only),
            (None, _) => {
                let domain = wish.username.rsplit_once('@').map(|(_, domain)| domain.to_lowercase());
                let mut matching = open.iter().filter(|(_, (realm, _))| Some(realm.authenticator.domain()) == domain);
                matching.next().filter(|_| matching.next().is_none())
            }
        };
        found.map(|(name, (realm, places))| (*name, realm, places)).ok_or_else(|| {
            let (given, allowed) = match (&wish.ldap, open.is_empty()) {
                (_, true) => {
                    ("a login", "no LDAP config is enabled, so nobody can log in; an operator has to enable one")
                }
                (Some(_), _) => ("another name", "the name of an LDAP config that users may log in with"),
                (None, _) => (
                    "nothing",
                    "required: the name of the LDAP config, or the user name with its domain, as in ann@corp.example",
                ),
            };
            LoginError::Ldap(Problem::new("ldap", given, allowed))
        })
    }

    fn admit(
        &self,
        user: UserName,
        ldap: DirectoryName,
        groups: Vec<String>,
        password: SecretString,
    ) -> Result<(SecretString, Arc<Login>), LoginError> {
        let mut random = Zeroizing::new([0; 32]);
        getrandom::fill(&mut *random)?;
        let token = Zeroizing::new(format!("{TOKEN_PREFIX}{}", URL_SAFE_NO_PAD.encode(*random)));
        let now = self.clock.now();
        let longest_until = now + self.rules.longest;
        let idle_until = Mutex::new((now + self.rules.idle).min(longest_until));
        let login = Arc::new(Login {
            user,
            ldap,
            groups,
            password,
            since: now,
            longest_until,
            idle_until,
            ended: CancellationToken::new(),
        });
        let mut logins = self.logins();
        let mut own: Vec<(Timestamp, [u8; 32])> = logins
            .iter()
            .filter(|(_, other)| other.user == login.user)
            .map(|(key, other)| (other.since, *key))
            .collect();
        if own.len() >= LOGINS_PER_USER {
            own.sort_unstable();
            let oldest = own.first().and_then(|(_, oldest)| logins.remove(oldest));
            oldest.inspect(|login| login.ended.cancel());
        }
        if logins.len() >= LOGINS_MAX {
            return Err(LoginError::Full);
        }
        logins.insert(sha256(&token), login.clone());
        Ok((SecretString::from(token.as_str()), login))
    }

    /// Whose token this is. `None`: nobody's, or it is over. To use it makes it last.
    pub fn holder(&self, token: &str) -> Option<Arc<Login>> {
        let key = key_of(token)?;
        let now = self.clock.now();
        let mut logins = self.logins();
        let login = logins.get(&key)?.clone();
        if login.expires_at() <= now {
            logins.remove(&key);
            return None;
        }
        login.use_at(now, self.rules.idle);
        Some(login)
    }

    /// Whether this looks like the token of a login, whether it is one or not.
    pub fn is_token(token: &str) -> bool {
        token.starts_with(TOKEN_PREFIX)
    }

    /// Ends a login: its token is worth nothing any more, and its password is gone once the last answer that needs it has
    /// been written.
    pub fn log_out(&self, token: &str) {
        let login = key_of(token).and_then(|key| self.logins().remove(&key));
        login.inspect(|login| login.ended.cancel());
    }

    /// Ends all logins of a user, as [`log_out`](Self::log_out) does; how many they were.
    pub fn end_logins(&self, user: &str) -> usize {
        let ended: Vec<Arc<Login>> =
            self.logins().extract_if(.., |_, login| login.user.as_str() == user).map(|(_, login)| login).collect();
        ended.iter().for_each(|login| login.ended.cancel());
        if !ended.is_empty() {
            tracing::info!(user, count = ended.len(), "all logins of a user were ended");
        }
        ended.len()
    }

    /// How many are logged in.
    pub fn count(&self) -> usize {
        self.logins().len()
    }

    /// Ends logins whose time is over, until it is told to stop; then all of them.
    pub async fn sweep(&self, stop: CancellationToken) {
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                () = sleep(SWEEP.min(self.rules.idle)) => {}
            }
            let now = self.clock.now();
            self.logins().retain(|_, login| login.expires_at() > now);
        }
        self.logins().clear();
    }

    // A panic while a lock is held leaves the maps whole: they are changed in single calls.
    fn logins(&self) -> MutexGuard<'_, BTreeMap<[u8; 32], Arc<Login>>> {
        self.logins.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn throttle(&self) -> MutexGuard<'_, Throttle> {
        self.throttle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Users {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Users").field("rules", &self.rules).field("logins", &self.count()).finish_non_exhaustive()
    }
}

fn key_of(token: &str) -> Option<[u8; 32]> {
    let is_one = token.len() == TOKEN_PREFIX.len() + 43 && Users::is_token(token);
    is_one.then(|| sha256(token))
}

async fn ask(realm: &Realm, places: &Semaphore, wish: &LoginWish) -> Result<Identity, AuthenticateError> {
    if !is_plausible(wish) {
        return Err(AuthenticateError::Refused("no name, or no password".into()));
    }
    let asked = timeout(ASK_PATIENCE, async {
        let _place = places.acquire().await;
        realm.authenticator.authenticate(&wish.username, &wish.password).await
    });
    asked.await.unwrap_or_else(|_| Err(AuthenticateError::Unavailable("it took too long".into())))
}

/// What nobody is to be asked about: directories take an empty password for a visitor who does not log in (RFC 4513 §5.1.2).
fn is_plausible(wish: &LoginWish) -> bool {
    let password = wish.password.expose_secret();
    let name: Result<UserName, _> = wish.username.parse();
    name.is_ok() && !password.is_empty() && password.len() <= 1024 && !password.contains('\0')
}

/// The name without the domain it may end with, so that both ways to write it count as one user's.
fn account_of<'a>(username: &'a str, domain: &str) -> &'a str {
    match username.rsplit_once('@') {
        Some((account, given)) if given.eq_ignore_ascii_case(domain) => account,
        _ => username,
    }
}

#[cfg(test)]
mod tests;
