//! Making, finding and listing computer objects.

use kasm_autoscale_core::id::{PoolId, ServerKey};
use kasm_autoscale_core::ports::{
    Certainty, Computer, ComputerListing, ComputerRef, DirectoryError, DirectoryErrorKind, JoinPassword, JoinState,
    Scope, SeenComputer,
};
use secrecy::ExposeSecret;

use crate::conversation::{Conversation, Depth, Entry, UnicodePassword, Value};
use crate::directory::Shared;
use crate::dn::Dn;
use crate::errors::{Failure, Step, explained};
use crate::filter::Filter;
use crate::mark::{self, Reference};

/// An ordinary machine's account (`WORKSTATION_TRUST_ACCOUNT`, MS-ADTS 2.2.16): enabled, with a password, trusted for nothing else.
const WORKSTATION: &str = "4096";

/// The longest name of a machine that Windows takes (MS-NBTE 2.2.1). Directories take longer ones.
pub(crate) const NAME_MAX: usize = 15;
/// What a join password must have at least, in characters. No policy is applied to computers, so it is ours.
const PASSWORD_MIN: usize = 14;
/// Windows' own limit is 256; some tools end at 120.
const PASSWORD_MAX: usize = 120;

/// What is read of a computer object.
pub(crate) const ATTRIBUTES: [&str; 6] =
    ["objectGUID", "pwdLastSet", "whenCreated", "sAMAccountName", mark::ATTRIBUTE, "distinguishedName"];

/// A computer object that is to be made, its parts checked.
pub(crate) struct NewComputer {
    pub(crate) name: String,
    pub(crate) dn: Dn,
    pub(crate) mark: String,
    pub(crate) host: String,
    password: UnicodePassword,
}

pub(crate) fn invalid(code: &str, message: &str) -> DirectoryError {
    DirectoryError::new(DirectoryErrorKind::Invalid, Certainty::NotApplied, code, message)
}

impl NewComputer {
    /// # Errors
    /// What directories let through and machines, or Active Directory, do not.
    pub(crate) fn check(shared: &Shared, computer: &Computer, password: &JoinPassword) -> Result<Self, DirectoryError> {
        let ou = shared.unit(&computer.ou).map_err(|problem| invalid("ou", &problem.to_string()))?;
        if computer.marker.deployment != shared.deployment {
            return Err(invalid("marker", "the computer is another installation's"));
        }
        Self::new(shared, computer.name.as_str(), &ou, mark::written(&computer.marker), password)
    }

    pub(crate) fn new(
        shared: &Shared,
        name: &str,
        ou: &Dn,
        mark: String,
        password: &impl ExposeSecret<str>,
    ) -> Result<Self, DirectoryError> {
        check_name(name)?;
        check_password(name, password.expose_secret())?;
        let dn = ou.child("CN", name).map_err(|error| invalid("name", &error.to_string()))?;
        Ok(Self {
            name: name.to_owned(),
            dn,
            mark,
            host: format!("{}.{}", name.to_ascii_lowercase(), shared.domain),
            password: UnicodePassword::new(password),
        })
    }

    fn account(&self) -> String {
        format!("{}$", self.name)
    }

    /// Under what the machine's services are known to Kerberos. Those that are not named here follow from `HOST`.
    fn principals(&self) -> Vec<String> {
        vec![format!("HOST/{}", self.name), format!("HOST/{}", self.host)]
    }

    /// Everything in one request: an object that is never without its password or its mark.
    pub(crate) fn values(&self) -> Vec<Value> {
        vec![
            Value::Text("objectClass", vec!["computer".to_owned()]),
            Value::Text("cn", vec![self.name.clone()]),
            Value::Text("sAMAccountName", vec![self.account()]),
            Value::Text("userAccountControl", vec![WORKSTATION.to_owned()]),
            Value::Text("dNSHostName", vec![self.host.clone()]),
            Value::Text("servicePrincipalName", self.principals()),
            Value::Text(mark::ATTRIBUTE, vec![self.mark.clone()]),
            Value::Password(self.password.again()),
        ]
    }

    /// What must be free for the object to be made.
    fn conflicts(&self) -> Filter {
        let principals = self.principals();
        let principals = principals.iter().map(|principal| Filter::equals("servicePrincipalName", principal));
        Filter::Or([Filter::equals("sAMAccountName", self.account())].into_iter().chain(principals).collect())
    }
}

/// A NetBIOS name that is a host name too (MS-NBTE 2.2.1, RFC 1123 §2.1).
fn check_name(name: &str) -> Result<(), DirectoryError> {
    let letters = name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    let edges = !name.starts_with('-') && !name.ends_with('-');
    let not_a_number = !name.bytes().all(|b| b.is_ascii_digit());
    if (1..=NAME_MAX).contains(&name.len()) && letters && edges && not_a_number {
        return Ok(());
    }
    let rule = "1 to 15 letters, digits and hyphens, not only digits, with no hyphen at either end";
    Err(invalid("name", &format!("{name:?} is not a computer's name: {rule}")))
}

fn check_password(name: &str, password: &str) -> Result<(), DirectoryError> {
    let length = password.chars().count();
    let classes: [fn(&char) -> bool; 3] = [char::is_ascii_uppercase, char::is_ascii_lowercase, char::is_ascii_digit];
    let has_all = classes.iter().all(|class| password.chars().any(|c| class(&c)));
    let has_name = password.to_ascii_lowercase().contains(&name.to_ascii_lowercase());
    let printable = password.chars().all(|c| c.is_ascii_graphic() && c != '"');
    if (PASSWORD_MIN..=PASSWORD_MAX).contains(&length) && has_all && !has_name && printable {
        return Ok(());
    }
    Err(invalid(
        "password",
        "the join password is too weak: it needs 14 to 120 printable ASCII characters with capitals, small letters and \
         digits, no quotes, and not the computer's name in it",
    ))
}

/// Makes the object, unless it is there.
pub(crate) async fn ensure(
    shared: &Shared,
    conversation: &mut Conversation,
    server: &ServerKey,
    new: &NewComputer,
) -> Result<ComputerRef, DirectoryError> {
    if let Some(found) = find(shared, conversation, server).await? {
        return Ok(found.written());
    }
    match conversation.add(&new.dn.to_string(), &new.values()).await {
        Ok(()) => made(shared, conversation, &new.dn).await,
        Err(failure @ Failure::Code(19 | 20 | 68, _)) => {
            // An earlier request may have arrived after we looked.
            if let Some(found) = find(shared, conversation, server).await? {
                return Ok(found.written());
            }
            Err(conflict(shared, conversation, new, &failure).await?)
        }
        Err(failure) => Err(explained(Step::Add, &failure)),
    }
}

/// What the object that was just made is called.
async fn made(shared: &Shared, conversation: &mut Conversation, dn: &Dn) -> Result<ComputerRef, DirectoryError> {
    let unknown =
        |message: &str| DirectoryError::new(DirectoryErrorKind::Transient, Certainty::Unknown, "notSeen", message);
    let entry = conversation.read(&dn.to_string(), &ATTRIBUTES).await.map_err(|failure| {
        let mut error = explained(Step::Search, &failure);
        error.certainty = Certainty::Unknown;
        error
    })?;
    let entry = entry.ok_or_else(|| {
        unknown("the computer object was made, but the account cannot see it; let it read all properties of computers")
    })?;
    let (Some(reference), Some(set)) = (reference(&entry), password_set(&entry)) else {
        return Err(unknown("the computer object was made, but its objectGUID or pwdLastSet cannot be read"));
    };
    shared.first_passwords().insert(reference.clone(), set);
    Ok(reference.written())
}

/// Whose fault it is that the object could not be made: another object's, or a value's.
async fn conflict(
    shared: &Shared,
    conversation: &mut Conversation,
    new: &NewComputer,
    failure: &Failure,
) -> Result<DirectoryError, DirectoryError> {
    let taken = |text: String| {
        DirectoryError::new(DirectoryErrorKind::NameTaken, Certainty::NotApplied, "entryAlreadyExists", &text)
    };
    let root = shared.settings.search_base.domain_part().unwrap_or_else(|| shared.settings.search_base.clone());
    let found = conversation.search(&root.to_string(), Depth::Subtree, &new.conflicts(), &["cn"]).await;
    let other = found.map_err(|failure| explained(Step::Search, &failure))?.entries.into_iter().next();
    Ok(match (other, failure) {
        (Some(other), _) => taken(format!(
            "the name {} is another's: {} has it or its service principal name; it was not touched",
            new.name,
            crate::errors::clean(&other.dn, None)
        )),
        (None, Failure::Code(68, _)) => taken(format!("the name {} is another object's; it was not touched", new.name)),
        (None, failure) => explained(Step::Add, failure),
    })
}

/// The object with a server's mark.
pub(crate) async fn find(
    shared: &Shared,
    conversation: &mut Conversation,
    server: &ServerKey,
) -> Result<Option<Reference>, DirectoryError> {
    let filter = mark::of_server(shared.deployment, server);
    let base = shared.settings.computer_base().to_string();
    let found = conversation.search(&base, Depth::Subtree, &filter, &ATTRIBUTES).await;
    let mut found = found.map_err(|failure| explained(Step::Search, &failure))?;
    if found.entries.len() > 1 {
        // A replication conflict, or somebody copied an object: which one the machine uses is not known.
        let names: Vec<_> = found.entries.iter().map(|entry| crate::errors::clean(&entry.dn, None)).collect();
        let mut error = invalid(
            "ambiguous",
            &format!(
                "several objects bear the mark of one server; delete those that are not in use: {}",
                names.join("; ")
            ),
        );
        error.scope = Scope::Server;
        return Err(error);
    }
    let Some(entry) = found.entries.pop() else { return Ok(None) };
    reference(&entry).map(Some).ok_or_else(|| unreadable(&entry))
}

/// All objects with a pool's mark.
pub(crate) async fn list(
    shared: &Shared,
    conversation: &mut Conversation,
    pool: PoolId,
) -> Result<ComputerListing, DirectoryError> {
    let filter = mark::of_pool(shared.deployment, pool);
    let base = shared.settings.computer_base().to_string();
    let found = conversation.search(&base, Depth::Subtree, &filter, &ATTRIBUTES).await;
    let found = found.map_err(|failure| explained(Step::Search, &failure))?;
    let computers: Vec<_> = found.entries.iter().filter_map(seen).collect();
    // One that cannot be read is there all the same.
    let complete = found.complete && computers.len() == found.entries.len();
    Ok(ComputerListing { computers, complete })
}

fn seen(entry: &Entry) -> Option<SeenComputer> {
    Some(SeenComputer {
        reference: reference(entry)?.written(),
        marker: mark::read(entry.text(mark::ATTRIBUTE)?)?,
        name: entry.text("sAMAccountName")?.trim_end_matches('$').to_owned(),
    })
}

/// Whether the password is another than the one the object was made with.
pub(crate) async fn joined(
    shared: &Shared,
    conversation: &mut Conversation,
    reference: &Reference,
) -> Result<JoinState, DirectoryError> {
    let entry = conversation.read(&reference.dn(), &ATTRIBUTES).await;
    let Some(entry) = entry.map_err(|failure| explained(Step::Search, &failure))? else {
        shared.first_passwords().remove(reference);
        return Ok(JoinState::Absent);
    };
    let times = (password_set(&entry), entry.text("whenCreated").and_then(generalized_time));
    let (Some(set), Some(made)) = times else { return Err(unreadable(&entry)) };
    // 100 nanoseconds since 1601 (MS-DTYP 2.3.3) in seconds since 1970.
    let set_at = (set / 10_000_000).saturating_sub(11_644_473_600);
    // A time that this process has seen is exact, but the object alone must do after a restart.
    let first = shared.first_passwords().get(reference).copied();
    let changed = first.is_some_and(|first| first != set) || set_at > made + MADE_WITHIN;
    Ok(if changed { JoinState::Joined } else { JoinState::Waiting })
}

fn unreadable(entry: &Entry) -> DirectoryError {
    let dn = crate::errors::clean(&entry.dn, None);
    let text = format!(
        "the account cannot read objectGUID, pwdLastSet or whenCreated of {dn}; let it read all properties of computers"
    );
    let mut error = DirectoryError::new(DirectoryErrorKind::Denied, Certainty::NotApplied, "unreadable", &text);
    error.scope = Scope::Offering;
    error
}

fn password_set(entry: &Entry) -> Option<u64> {
    entry.text("pwdLastSet")?.parse().ok()
}

/// What an object is called.
pub(crate) fn reference(entry: &Entry) -> Option<Reference> {
    Some(Reference(mark::guid(entry.bytes("objectGUID")?)?))
}

/// Whether everything can be read that is decided by.
pub(crate) fn is_readable(entry: &Entry) -> bool {
    let made = entry.text("whenCreated").and_then(generalized_time);
    reference(entry).is_some() && password_set(entry).is_some() && made.is_some()
}

/// How long after its object a password may be set and still be the first one, in seconds. Times of objects are whole
/// seconds, and the server may be slow; no machine starts and joins as fast.
const MADE_WITHIN: u64 = 2;

/// `20261125221049.0Z` (RFC 4517 §3.3.13) in seconds since 1970.
fn generalized_time(text: &str) -> Option<u64> {
    let number = |range: std::ops::Range<usize>| text.get(range)?.parse::<u64>().ok();
    let (year, month, day) = (number(0..4)?, number(4..6)?, number(6..8)?);
    let (hour, minute, second) = (number(8..10)?, number(10..12)?, number(12..14)?);
    if !text.ends_with('Z') || !(1970..=9999).contains(&year) || !(1..=12).contains(&month) || !(1..=31).contains(&day)
    {
        return None;
    }
    // Days since 1 March of year 0, in years that begin in March, so that a leap day is the last.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = year * 365 + year / 4 - year / 100 + year / 400 + (month * 153 + 2) / 5 + day - 1;
    let since_1970 = days.checked_sub(719_468)?;
    Some(((since_1970 * 24 + hour) * 60 + minute) * 60 + second)
}

/// What a reference of ours says.
pub(crate) fn known(computer: &ComputerRef) -> Result<Reference, DirectoryError> {
    Reference::read(computer).ok_or_else(|| {
        let mut error = invalid("reference", "this is not a computer object of this directory");
        error.scope = Scope::Server;
        error
    })
}

#[cfg(test)]
#[path = "computers_tests.rs"]
mod tests;
