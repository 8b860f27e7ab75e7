//! The settings of one LDAP config: where the directory is, who asks, who may log in, and where computer objects lie.

use std::fmt;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use kasm_autoscale_core::fields::{Fields, Problem, shown};
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;

use crate::dn::Dn;
use crate::filter::Filter;

/// What stands for the typed name in a user filter.
pub(crate) const USERNAME: &str = "{username}";
/// What stands for the user's distinguished name in a group filter.
pub(crate) const USER_DN: &str = "{user_dn}";
/// What Kasm's own configurations write for either.
pub(crate) const KASM_PLACEHOLDER: &str = "{0}";

const USER_FILTER: &str =
    "(&(objectCategory=person)(objectClass=user)(|(sAMAccountName={username})(userPrincipalName={username})))";
/// Membership at any depth: LDAP_MATCHING_RULE_TRANSITIVE_EVAL (MS-ADTS 3.1.1.3.4.4.3).
const GROUP_FILTER: &str = "(&(objectClass=group)(member:1.2.840.113556.1.4.1941:={user_dn}))";

const TIMEOUT: RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(120);
const CALL_TIMEOUT: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(600);
const VISIBILITY_LAG: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(3600);
const PAGE_SIZE: RangeInclusive<u64> = 10..=1000;
const POLL: RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(3600);

const URL_RULE: &str =
    "ldaps://host[:port], or ldap://host[:port], which is encrypted by StartTLS before anything is said";
const DN_RULE: &str = "a distinguished name, as in \"OU=Desktops,DC=example,DC=local\"";
const BIND_DN_RULE: &str =
    "the account that makes computer objects and looks users up: its distinguished name, user@domain or DOMAIN\\user";

/// How a connection is encrypted.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Scheme {
    /// TLS from the first byte; port 636 unless another is named.
    Ldaps,
    /// `ldap://`: StartTLS (RFC 4511 §4.14) before anything else, or no connection; port 389 unless another is named.
    StartTls,
}

/// Where a directory is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct LdapUrl {
    scheme: Scheme,
    host: String,
    port: u16,
}

impl LdapUrl {
    /// How the connection is encrypted.
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// Host name or IP address, without brackets. The server's certificate must be made out to it.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.port
    }
}

impl fmt::Display for LdapUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = match self.scheme {
            Scheme::Ldaps => "ldaps",
            Scheme::StartTls => "ldap",
        };
        match self.host.contains(':') {
            true => write!(f, "{scheme}://[{}]:{}", self.host, self.port),
            false => write!(f, "{scheme}://{}:{}", self.host, self.port),
        }
    }
}

impl FromStr for LdapUrl {
    type Err = &'static str;

    /// # Errors
    /// What is allowed.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (scheme, rest, port) = match (text.strip_prefix("ldaps://"), text.strip_prefix("ldap://")) {
            (Some(rest), _) => (Scheme::Ldaps, rest, 636),
            (None, Some(rest)) => (Scheme::StartTls, rest, 389),
            (None, None) => return Err(URL_RULE),
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let (host, port) = match rest.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((host, "")) => (host, port),
            Some((host, after)) => (host, after.strip_prefix(':').and_then(|port| port.parse().ok()).ok_or(URL_RULE)?),
            None => match rest.split_once(':') {
                Some((host, port)) => (host, port.parse().map_err(|_| URL_RULE)?),
                None => (rest, port),
            },
        };
        let is_host = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':');
        if host.is_empty() || host.len() > 253 || !host.chars().all(is_host) || port == 0 {
            return Err(URL_RULE);
        }
        Ok(Self { scheme, host: host.to_owned(), port })
    }
}

/// The settings of one directory.
#[derive(Clone)]
pub struct LdapSettings {
    /// Where it is.
    pub url: LdapUrl,
    /// The account that makes computer objects and looks users up: a distinguished name, `user@domain` or `DOMAIN\user`.
    pub bind_dn: String,
    /// Its password.
    pub bind_password: SecretString,
    /// Below what users and groups are looked for.
    pub search_base: Dn,
    /// How a user is found by the name that was typed, which stands for `{username}`. Exactly one user must fit.
    pub search_filter: Filter,
    /// Which groups count, `{user_dn}` standing for the user: who is in none of them may not log in.
    pub group_filter: Option<Filter>,
    /// One of these groups must be among those that `group_filter` finds. Without such a filter, groups in groups count.
    pub required_groups: Vec<Dn>,
    /// Whether users are looked for at any depth below the search base, or only directly below it.
    pub subtree: bool,
    /// Whether users may log in through it. Computer objects are made and removed either way.
    pub enabled: bool,
    /// A PEM file with the only root certificates that are believed; `None`: those of the system.
    pub ca_file: Option<PathBuf>,
    /// Below what computer objects may be made and removed, and nowhere else; `None`: below the search base.
    pub computer_base: Option<Dn>,
    /// Whether objects are kept that have BitLocker recovery keys below them.
    pub keep_recovery_keys: bool,
    /// The DNS name of the domain; `None`: as the `DC` parts of the search base say.
    pub domain: Option<String>,
    /// How long connecting, and then each operation, may take.
    pub timeout: Duration,
    /// How long a call may take in all.
    pub call_timeout: Duration,
    /// How long an object that was made may be missing from answers: replication between domain controllers.
    pub visibility_lag: Duration,
    /// How many objects a page of a list has: 10 to 1000, the most that Active Directory gives at once by default.
    pub page_size: u16,
    /// How often to ask whether a machine has joined.
    pub poll_busy: Duration,
    /// How often to list the objects of ours.
    pub poll_idle: Duration,
}

impl LdapSettings {
    /// The settings for a directory, all others as they are by default.
    pub fn new(url: LdapUrl, bind_dn: &str, bind_password: SecretString, search_base: Dn) -> Self {
        Self {
            url,
            bind_dn: bind_dn.to_owned(),
            bind_password,
            search_base,
            search_filter: Filter::from_str(USER_FILTER).unwrap_or(Filter::Present("objectClass".to_owned())),
            group_filter: None,
            required_groups: Vec::new(),
            subtree: true,
            enabled: true,
            ca_file: None,
            computer_base: None,
            keep_recovery_keys: false,
            domain: None,
            timeout: Duration::from_secs(10),
            call_timeout: Duration::from_secs(60),
            visibility_lag: Duration::from_secs(30),
            page_size: 500,
            poll_busy: Duration::from_secs(5),
            poll_idle: Duration::from_secs(300),
        }
    }

    /// Reads the fields `url`, `bind_dn`, `search_base`, `search_filter`, `group_filter`, `required_groups`, `subtree`, `enabled`, `ca_file`,
    /// `computer_base`, `keep_recovery_keys`, `domain`, `timeout`, `call_timeout`, `visibility_lag`, `page_size`,
    /// `poll_busy` and `poll_idle`. In filters,
    /// `{0}` is taken for `{username}` or `{user_dn}`, as Kasm writes it. The caller brings the password of `bind_dn`, since only it
    /// knows where secrets are kept, and calls [`Fields::finish`].
    pub fn read(fields: &mut Fields<'_>, bind_password: SecretString) -> Option<Self> {
        let url = read_as(fields, "url", |text: &str| text.parse().map_err(|rule: &str| rule.to_owned()));
        let url = fields.require("url", url, URL_RULE);
        let bind_dn = read_as(fields, "bind_dn", |text| {
            if text.trim().is_empty() { Err(BIND_DN_RULE.to_owned()) } else { Ok(text.to_owned()) }
        });
        let bind_dn = fields.require("bind_dn", bind_dn, BIND_DN_RULE);
        let search_base = read_as(fields, "search_base", dn);
        let search_base = fields.require("search_base", search_base, DN_RULE);
        let search_filter = read_as(fields, "search_filter", |text| filter(text, USERNAME));
        let group_filter = read_as(fields, "group_filter", |text| filter(text, USER_DN));
        let required_groups = read_groups(fields);
        let subtree = fields.boolean("subtree");
        let enabled = fields.boolean("enabled");
        let ca_file = read_as(fields, "ca_file", |text| {
            if text.is_empty() { Err("the path of a PEM file".to_owned()) } else { Ok(PathBuf::from(text)) }
        });
        let computer_base = read_as(fields, "computer_base", dn);
        let keep_recovery_keys = fields.boolean("keep_recovery_keys");
        let domain = read_as(fields, "domain", domain_name);
        let timeout = fields.span("timeout", TIMEOUT);
        let call_timeout = fields.span("call_timeout", CALL_TIMEOUT);
        let visibility_lag = fields.span("visibility_lag", VISIBILITY_LAG);
        let page_size = fields.integer("page_size", PAGE_SIZE);
        let poll_busy = fields.span("poll_busy", POLL);
        let poll_idle = fields.span("poll_idle", POLL);

        let (url, bind_dn, search_base) = (url?, bind_dn?, search_base?);
        let mut settings = Self::new(url, &bind_dn, bind_password, search_base);
        settings.search_filter = search_filter.unwrap_or(settings.search_filter);
        settings.group_filter = group_filter;
        settings.required_groups = required_groups;
        settings.subtree = subtree.unwrap_or(settings.subtree);
        settings.enabled = enabled.unwrap_or(settings.enabled);
        settings.ca_file = ca_file;
        settings.computer_base = computer_base;
        settings.keep_recovery_keys = keep_recovery_keys.unwrap_or(settings.keep_recovery_keys);
        settings.domain = domain;
        settings.timeout = timeout.unwrap_or(settings.timeout);
        settings.call_timeout = call_timeout.unwrap_or(settings.call_timeout);
        settings.visibility_lag = visibility_lag.unwrap_or(settings.visibility_lag);
        settings.page_size = page_size.unwrap_or(settings.page_size);
        settings.poll_busy = poll_busy.unwrap_or(settings.poll_busy);
        settings.poll_idle = poll_idle.unwrap_or(settings.poll_idle);
        let problems = settings.problems();
        let sound = problems.is_empty();
        problems.into_iter().for_each(|problem| fields.problem(problem));
        sound.then_some(settings)
    }

    /// Every mistake between the settings that can be seen without asking anybody.
    pub fn problems(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        let mut rule = |holds: bool, path: &str, given: String, allowed: &str| {
            if !holds {
                problems.push(Problem::new(path, given, allowed));
            }
        };
        let password = self.bind_password.expose_secret();
        rule(!password.is_empty(), "bind_password", "nothing".to_owned(), "the password of `bind_dn`");
        rule(
            self.domain_name().is_some(),
            "domain",
            "nothing".to_owned(),
            "the DNS name of the domain, since `search_base` has no DC parts to take it from",
        );
        rule(
            PAGE_SIZE.contains(&self.page_size.into()),
            "page_size",
            self.page_size.to_string(),
            "a whole number from 10 to 1000",
        );
        let given = format!("{:?}", self.timeout);
        rule(self.timeout <= self.call_timeout, "timeout", given, "not more than `call_timeout`");
        problems
    }

    /// The DNS name of the domain, in small letters.
    pub fn domain_name(&self) -> Option<String> {
        let from_base = || self.search_base.domain().and_then(|domain| domain_name(&domain).ok());
        self.domain.clone().or_else(from_base)
    }

    /// Below what computer objects may be made and removed.
    pub fn computer_base(&self) -> &Dn {
        self.computer_base.as_ref().unwrap_or(&self.search_base)
    }

    /// The filter for a user's groups, if groups decide on who may log in.
    pub(crate) fn deciding_groups(&self) -> Option<Filter> {
        match (&self.group_filter, self.required_groups.is_empty()) {
            (Some(filter), _) => Some(filter.clone()),
            (None, false) => GROUP_FILTER.parse().ok(),
            (None, true) => None,
        }
    }
}

impl fmt::Debug for LdapSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LdapSettings")
            .field("url", &self.url.to_string())
            .field("bind_dn", &self.bind_dn)
            .field("search_base", &self.search_base.to_string())
            .field("enabled", &self.enabled)
            .finish_non_exhaustive()
    }
}

/// Reads a text and turns it into something else, or notes what is allowed.
fn read_as<T>(fields: &mut Fields<'_>, name: &'static str, read: impl Fn(&str) -> Result<T, String>) -> Option<T> {
    let text = fields.text(name)?;
    read(&text).map_err(|allowed| fields.problem(Problem::new(name, quoted(name, &text), allowed))).ok()
}

/// A password in an address is not shown.
fn quoted(name: &str, text: &str) -> String {
    if name == "url" && text.contains('@') {
        "an address with a user in it".to_owned()
    } else {
        shown(&Value::String(text.to_owned()))
    }
}

fn read_groups(fields: &mut Fields<'_>) -> Vec<Dn> {
    let texts = fields.texts("required_groups").unwrap_or_default();
    let mut groups = Vec::with_capacity(texts.len());
    for (index, text) in texts.iter().enumerate() {
        match dn(text) {
            Ok(group) => groups.push(group),
            Err(allowed) => {
                fields.problem(Problem::new(format!("required_groups[{index}]"), quoted("", text), allowed));
            }
        }
    }
    groups
}

fn dn(text: &str) -> Result<Dn, String> {
    text.parse().map_err(|error| format!("{DN_RULE}: {error}"))
}

/// A filter with its placeholder in it, in our own spelling.
fn filter(text: &str, placeholder: &str) -> Result<Filter, String> {
    let rule = format!("a search filter (RFC 4515) with {placeholder} in a value");
    let filter: Filter = text.parse().map_err(|error| format!("{rule}: {error}"))?;
    let filter = filter.filled(KASM_PLACEHOLDER, placeholder);
    if filter.mentions(placeholder) { Ok(filter) } else { Err(rule) }
}

fn domain_name(text: &str) -> Result<String, String> {
    let label = |label: &str| {
        let inner = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
        (1..=63).contains(&label.len()) && label.bytes().all(inner) && !label.starts_with('-') && !label.ends_with('-')
    };
    let fits = text.len() <= 253 && text.split('.').all(label);
    if fits { Ok(text.to_ascii_lowercase()) } else { Err("a DNS name, as in \"corp.example\"".to_owned()) }
}

#[cfg(test)]
#[path = "settings_tests.rs"]
mod tests;
