//! Logins of users: looked up with our own account, proved with theirs.

use std::fmt;
use std::sync::Arc;

use kasm_autoscale_core::ports::DirectoryError;
use secrecy::{ExposeSecret, SecretString};
use thiserror::Error;

use crate::conversation::{Conversation, Depth, Entry};
use crate::directory::{ActiveDirectory, Shared};
use crate::dn::Dn;
use crate::errors::{Failure, Step, clean, explained};
use crate::filter::Filter;
use crate::settings::{USER_DN, USERNAME};

/// The longest name that is looked up, in characters; the longest `userPrincipalName` is shorter.
const NAME_MAX: usize = 256;
/// The longest password that is sent, in bytes. Active Directory's own limit is 256 characters.
const PASSWORD_MAX: usize = 1024;

const ATTRIBUTES: [&str; 4] = ["sAMAccountName", "userPrincipalName", "displayName", "memberOf"];

/// A user who has proved who they are.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct AdUser {
    /// The distinguished name, as the directory writes it.
    pub dn: String,
    /// `sAMAccountName`, as in `ann`: the name under which Windows knows the user in its domain.
    pub sam_account_name: String,
    /// `userPrincipalName`, as in `ann@corp.example`, if there is one.
    pub user_principal_name: Option<String>,
    /// What people call the user, if the directory says so.
    pub display_name: Option<String>,
    /// The distinguished names of groups: those the group filter found, or else those the user is a direct member of.
    pub groups: Vec<String>,
    /// The DNS name of the domain.
    pub domain: String,
}

/// Why somebody is not logged in. What it prints tells nobody whether there is such a user.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
pub enum AuthError {
    /// Not with this name and password. The reason is for the log alone.
    #[error("wrong user name or password")]
    Refused(Refusal),
    /// The directory could not be asked.
    #[error("logins are not possible at the moment")]
    Unavailable(#[source] DirectoryError),
}

/// Why a login was refused. Never shown to whom it concerns.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Refusal {
    /// Users may not log in through this config: `enabled` is false.
    Disabled,
    /// The name is empty, too long or has control characters.
    BadName,
    /// The password is empty or too long. It was not sent: a bind without one always succeeds (RFC 4513 §5.1.2).
    BadPassword,
    /// Nobody fits the search filter.
    UnknownUser,
    /// More than one fits.
    AmbiguousUser,
    /// The password is wrong.
    WrongPassword,
    /// The user is in none of the groups that may log in.
    NotInGroup,
    /// Not at this hour, or not from here (data 530, 531).
    NotNow,
    /// The password has expired (data 532).
    PasswordExpired,
    /// The account is disabled (data 533).
    AccountDisabled,
    /// The account has expired (data 701).
    AccountExpired,
    /// The user must set another password first (data 773).
    MustChangePassword,
    /// Too many wrong passwords (data 775).
    LockedOut,
    /// The directory refuses for another reason.
    Other,
}

impl Refusal {
    /// The reason in a word, for logs and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Disabled => "logins_disabled",
            Self::BadName => "bad_name",
            Self::BadPassword => "bad_password",
            Self::UnknownUser => "unknown_user",
            Self::AmbiguousUser => "ambiguous_user",
            Self::WrongPassword => "wrong_password",
            Self::NotInGroup => "not_in_group",
            Self::NotNow => "not_now",
            Self::PasswordExpired => "password_expired",
            Self::AccountDisabled => "account_disabled",
            Self::AccountExpired => "account_expired",
            Self::MustChangePassword => "must_change_password",
            Self::LockedOut => "locked_out",
            Self::Other => "refused",
        }
    }

    /// What the text of an `invalidCredentials` answer says in its `data` part (a Windows error in hexadecimal digits,
    /// MS-ERREF 2.2).
    fn of(text: &str) -> Self {
        let Some((_, rest)) = text.split_once("data ") else { return Self::WrongPassword };
        let code: String = rest.chars().take_while(char::is_ascii_hexdigit).collect();
        match code.as_str() {
            "525" => Self::UnknownUser,
            "52e" | "52E" => Self::WrongPassword,
            "530" | "531" => Self::NotNow,
            "532" => Self::PasswordExpired,
            "533" => Self::AccountDisabled,
            "701" => Self::AccountExpired,
            "773" => Self::MustChangePassword,
            "775" => Self::LockedOut,
            _ => Self::Other,
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a look-up or a login came to.
type Outcome<T> = Result<Result<T, Refusal>, DirectoryError>;

impl ActiveDirectory {
    /// Whether this is the user's password: finds the one user that fits the search filter, checks the groups, and logs in as
    /// that user. The name and the password may be anything at all.
    ///
    /// # Errors
    /// [`AuthError::Refused`], which reads the same whatever the reason, and [`AuthError::Unavailable`] when the directory could not
    /// be asked.
    pub async fn authenticate(&self, username: &str, password: &SecretString) -> Result<AdUser, AuthError> {
        let outcome = match worth_asking(self.settings().enabled, username, password.expose_secret()) {
            Some(refusal) => Err(refusal),
            None => self.asked(username, password).await.map_err(AuthError::Unavailable)?,
        };
        outcome.map_err(|refusal| {
            tracing::info!(user = %clean(username, Some(password.expose_secret())), reason = refusal.as_str(), "login refused");
            AuthError::Refused(refusal)
        })
    }

    async fn asked(&self, username: &str, password: &SecretString) -> Outcome<AdUser> {
        let (username, password) = (username.to_owned(), password.clone());
        self.converse(Step::Search, move |shared, mut conversation| async move {
            let found = look_up(&shared, &mut conversation, &username).await?;
            prove(&shared, conversation, found, &password).await
        })
        .await
    }
}

/// What can be refused without asking anybody.
fn worth_asking(enabled: bool, username: &str, password: &str) -> Option<Refusal> {
    let length = username.chars().count();
    if !enabled {
        Some(Refusal::Disabled)
    } else if length == 0 || length > NAME_MAX || username.trim().is_empty() || username.chars().any(char::is_control) {
        Some(Refusal::BadName)
    } else if password.is_empty() || password.len() > PASSWORD_MAX || password.contains('\0') {
        Some(Refusal::BadPassword)
    } else {
        None
    }
}

/// The one user of this name, with the groups that matter.
async fn look_up(shared: &Shared, conversation: &mut Conversation, username: &str) -> Outcome<AdUser> {
    let settings = &shared.settings;
    let depth = if settings.subtree { Depth::Subtree } else { Depth::Children };
    let filter = settings.search_filter.filled(USERNAME, username);
    let found = conversation.search(&settings.search_base.to_string(), depth, &filter, &ATTRIBUTES).await;
    let mut found = found.map_err(|failure| explained(Step::Search, &failure))?;
    let entry = match (found.entries.pop(), found.entries.is_empty()) {
        (None, _) => return Ok(Err(Refusal::UnknownUser)),
        (Some(_), false) => return Ok(Err(Refusal::AmbiguousUser)),
        (Some(entry), true) => entry,
    };
    let groups = match settings.deciding_groups() {
        None => entry.texts("memberOf"),
        Some(filter) => match groups(shared, conversation, &filter, &entry).await? {
            groups if groups.is_empty() => return Ok(Err(Refusal::NotInGroup)),
            groups => groups,
        },
    };
    Ok(user(shared, &entry, groups).ok_or(Refusal::UnknownUser))
}

/// The groups that let the user in. None: nothing does.
async fn groups(
    shared: &Shared,
    conversation: &mut Conversation,
    filter: &Filter,
    entry: &Entry,
) -> Result<Vec<String>, DirectoryError> {
    let filter = filter.filled(USER_DN, &entry.dn);
    let base = shared.settings.search_base.domain_part().unwrap_or_else(|| shared.settings.search_base.clone());
    let found = conversation.search(&base.to_string(), Depth::Subtree, &filter, &["cn"]).await;
    let found = found.map_err(|failure| explained(Step::Search, &failure))?;
    let groups: Vec<String> = found.entries.into_iter().map(|entry| entry.dn).collect();
    let required = &shared.settings.required_groups;
    let counts = |group: &String| {
        group.parse::<Dn>().is_ok_and(|group| required.iter().any(|required| required.same_as(&group)))
    };
    Ok(if required.is_empty() || groups.iter().any(counts) { groups } else { Vec::new() })
}

fn user(shared: &Shared, entry: &Entry, groups: Vec<String>) -> Option<AdUser> {
    let text = |name: &str| entry.text(name).filter(|text| !text.is_empty()).map(ToOwned::to_owned);
    Some(AdUser {
        dn: Some(entry.dn.clone()).filter(|dn| !dn.is_empty())?,
        sam_account_name: text("sAMAccountName")?,
        user_principal_name: text("userPrincipalName"),
        display_name: text("displayName"),
        groups,
        domain: shared.domain.clone(),
    })
}

/// Logs in as the user. For somebody who does not exist, or may not log in, the same is done in vain, so that the time it takes does
/// not tell who does.
async fn prove(
    shared: &Arc<Shared>,
    mut conversation: Conversation,
    found: Result<AdUser, Refusal>,
    password: &SecretString,
) -> Outcome<AdUser> {
    let nobody =
        || shared.settings.search_base.child("CN", "nobody of this name").map(|dn| dn.to_string()).unwrap_or_default();
    let dn = found.as_ref().map_or_else(|_| nobody(), |user| user.dn.clone());
    let answer = conversation.bind(&dn, password).await;
    let user = match found {
        Ok(user) => user,
        Err(refusal) => return Ok(Err(refusal)),
    };
    match answer {
        Ok(()) => Ok(Ok(user)),
        Err(Failure::Code(49, text)) => Ok(Err(Refusal::of(&text))),
        // Not the directory as a whole: this account.
        Err(Failure::Code(48 | 50 | 53, _)) => Ok(Err(Refusal::Other)),
        Err(failure) => Err(explained(Step::Bind, &failure)),
    }
}

#[cfg(test)]
#[path = "users_tests.rs"]
mod tests;
