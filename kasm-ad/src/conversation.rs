//! What can be said over an encrypted connection, each with a time limit and with its outcome in our own terms.

use std::collections::BTreeMap;
use std::time::Duration;

use ldap3::controls::{Control, RawControl};
use ldap3::{LdapError, LdapResult, Scope, SearchEntry};
use secrecy::{ExposeSecret, SecretString};
use tokio::time::timeout;

use crate::ber;
use crate::errors::{Failure, clean};
use crate::filter::Filter;
use crate::transport::Encrypted;

/// Deletes an object with everything below it (MS-ADTS 3.1.1.3.4.1.15).
const TREE_DELETE: &str = "1.2.840.113556.1.4.805";
/// Keeps the server from naming other servers to ask (MS-ADTS 3.1.1.3.4.1.4).
const DOMAIN_SCOPE: &str = "1.2.840.113556.1.4.1339";
/// Results in pages (RFC 2696).
const PAGED_RESULTS: &str = "1.2.840.113556.1.4.319";

/// The most entries a search collects.
const ENTRIES_MAX: usize = 100_000;

/// Where a search looks.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Depth {
    /// At the base itself.
    Base,
    /// At what lies directly below it.
    Children,
    /// At the base and everything below it.
    Subtree,
}

/// An attribute with its value, for an object that is made. The value may be a password.
pub(crate) enum Value {
    Text(&'static str, Vec<String>),
    Password(UnicodePassword),
}

/// A password as `unicodePwd` takes it: in quotes, in UTF-16 (MS-ADTS 3.1.1.3.1.5). Only this module reads it, and only to
/// send it over a connection that is encrypted and verified.
pub(crate) struct UnicodePassword(SecretString);

impl UnicodePassword {
    pub(crate) fn new(password: &impl ExposeSecret<str>) -> Self {
        Self(SecretString::from(password.expose_secret()))
    }

    /// The same, for a request that may be made again.
    pub(crate) fn again(&self) -> Self {
        Self(self.0.clone())
    }

    fn bytes(&self) -> Vec<u8> {
        let quoted = ['"'].into_iter().chain(self.0.expose_secret().chars()).chain(['"']);
        let mut units = [0; 2];
        quoted.flat_map(|c| c.encode_utf16(&mut units).to_vec()).flat_map(u16::to_le_bytes).collect()
    }
}

/// An object as a search shows it.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Entry {
    pub(crate) dn: String,
    /// By the attribute's name in small letters.
    attributes: BTreeMap<String, Vec<Vec<u8>>>,
}

impl Entry {
    fn read(entry: SearchEntry) -> Self {
        let texts = entry
            .attrs
            .into_iter()
            .map(|(name, values)| (name.to_ascii_lowercase(), values.into_iter().map(String::into_bytes).collect()));
        let others = entry.bin_attrs.into_iter().map(|(name, values)| (name.to_ascii_lowercase(), values));
        Self { dn: entry.dn, attributes: texts.chain(others).collect() }
    }

    /// The first value of an attribute.
    pub(crate) fn bytes(&self, name: &str) -> Option<&[u8]> {
        self.attributes.get(&name.to_ascii_lowercase())?.first().map(Vec::as_slice)
    }

    /// The first value of an attribute, if it is a text.
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        str::from_utf8(self.bytes(name)?).ok()
    }

    /// All values of an attribute that are texts.
    pub(crate) fn texts(&self, name: &str) -> Vec<String> {
        let values = self.attributes.get(&name.to_ascii_lowercase());
        values.into_iter().flatten().filter_map(|value| String::from_utf8(value.clone()).ok()).collect()
    }
}

/// What a search found.
#[derive(Debug, Default)]
pub(crate) struct Found {
    pub(crate) entries: Vec<Entry>,
    /// Whether that is everything.
    pub(crate) complete: bool,
}

/// A connection on which one talks with a directory.
pub(crate) struct Conversation {
    connection: Encrypted,
    /// How long each operation may take.
    within: Duration,
    /// Entries in one page.
    page_size: u16,
}

impl Conversation {
    pub(crate) fn over(connection: Encrypted, within: Duration, page_size: u16) -> Self {
        Self { connection, within, page_size }
    }

    /// Logs in with a simple bind.
    pub(crate) async fn bind(&mut self, name: &str, password: &SecretString) -> Result<(), Failure> {
        let secret = password.expose_secret();
        if name.is_empty() || secret.is_empty() {
            // A bind without a password succeeds and proves nothing (RFC 4513 §5.1.2): it is never sent.
            return Err(Failure::Code(49, "an empty name or password is never sent".to_owned()));
        }
        let answer = timeout(self.within, self.connection.ldap.simple_bind(name, secret)).await;
        self.result(answer.map_err(|_| Failure::TimedOut)?, Some(secret))
    }

    /// Makes an object.
    pub(crate) async fn add(&mut self, dn: &str, values: &[Value]) -> Result<(), Failure> {
        let mut secret = None;
        let attributes = values.iter().map(|value| match value {
            Value::Text(name, texts) => {
                (name.as_bytes().to_vec(), texts.iter().map(|text| text.clone().into_bytes()).collect())
            }
            Value::Password(password) => {
                secret = Some(password.0.expose_secret());
                (b"unicodePwd".to_vec(), [password.bytes()].into_iter().collect())
            }
        });
        let attributes = attributes.collect();
        let answer = timeout(self.within, self.connection.ldap.add(dn, attributes)).await;
        self.result(answer.map_err(|_| Failure::TimedOut)?, secret)
    }

    /// Deletes an object, with everything below it or only if there is nothing.
    pub(crate) async fn delete(&mut self, dn: &str, recursive: bool) -> Result<(), Failure> {
        if recursive {
            self.connection.ldap.with_controls(RawControl { ctype: TREE_DELETE.to_owned(), crit: true, val: None });
        }
        let answer = timeout(self.within, self.connection.ldap.delete(dn)).await;
        self.result(answer.map_err(|_| Failure::TimedOut)?, None)
    }

    /// The object of this name; `None` if there is none that the account may see.
    pub(crate) async fn read(&mut self, dn: &str, attributes: &[&str]) -> Result<Option<Entry>, Failure> {
        let everything = Filter::Present("objectClass".to_owned());
        match self.search(dn, Depth::Base, &everything, attributes).await {
            Ok(found) => Ok(found.entries.into_iter().next()),
            Err(Failure::Code(32, _)) => Ok(None),
            Err(failure) => Err(failure),
        }
    }

    /// Everything that fits, page by page.
    pub(crate) async fn search(
        &mut self,
        base: &str,
        depth: Depth,
        filter: &Filter,
        attributes: &[&str],
    ) -> Result<Found, Failure> {
        let mut found = Found::default();
        let mut cookie = Vec::new();
        loop {
            let next = self.page(base, depth, filter, attributes, &cookie, &mut found).await?;
            match next {
                _ if found.entries.len() > ENTRIES_MAX => return Ok(found),
                None => return Ok(found),
                Some(next) if next.is_empty() => {
                    found.complete = true;
                    return Ok(found);
                }
                Some(next) => cookie = next,
            }
        }
    }

    /// One page, and where the next one goes on. Empty: that was the last. `None`: there is more, and the server does not
    /// give it.
    async fn page(
        &mut self,
        base: &str,
        depth: Depth,
        filter: &Filter,
        attributes: &[&str],
        cookie: &[u8],
        found: &mut Found,
    ) -> Result<Option<Vec<u8>>, Failure> {
        let scope = match depth {
            Depth::Base => Scope::Base,
            Depth::Children => Scope::OneLevel,
            Depth::Subtree => Scope::Subtree,
        };
        let paged = RawControl {
            ctype: PAGED_RESULTS.to_owned(),
            crit: depth != Depth::Base,
            val: Some(ber::page_request(self.page_size, cookie)),
        };
        let quiet = RawControl { ctype: DOMAIN_SCOPE.to_owned(), crit: false, val: None };
        let filter = filter.to_string();
        let ldap = self.connection.ldap.with_controls(vec![paged, quiet]);
        let search = ldap.search(base, scope, &filter, attributes.to_vec());
        let answer = timeout(self.within, search).await.map_err(|_| Failure::TimedOut)?;
        let ldap3::SearchResult(entries, result) = answer.map_err(|error| self.failure(&error))?;
        // Places to ask elsewhere are left where they are.
        let entries = entries.into_iter().filter(|entry| !entry.is_ref() && !entry.is_intermediate());
        found.entries.extend(entries.map(|entry| Entry::read(SearchEntry::construct(entry))));
        match result.rc {
            0 => Ok(Some(next_page(&result.ctrls).unwrap_or_default())),
            // As much as the server gives, which is not everything.
            4 => Ok(None),
            code => Err(Failure::Code(code, clean(&result.text, None))),
        }
    }

    fn result(&self, answer: Result<LdapResult, LdapError>, secret: Option<&str>) -> Result<(), Failure> {
        let result = answer.map_err(|error| self.failure(&error))?;
        if result.rc == 0 { Ok(()) } else { Err(Failure::Code(result.rc, clean(&result.text, secret))) }
    }

    /// Why there was no answer. The library's own texts are left out where they could repeat a request.
    fn failure(&self, error: &LdapError) -> Failure {
        if let Some(trouble) = self.connection.trouble() {
            return trouble;
        }
        match error {
            LdapError::Io { source } => Failure::Network(clean(&source.to_string(), None)),
            LdapError::OpSend { .. } | LdapError::ResultRecv { .. } | LdapError::EndOfStream => {
                Failure::Network("the server closed the connection".to_owned())
            }
            LdapError::Timeout { .. } => Failure::TimedOut,
            LdapError::FilterParsing => Failure::Malformed("the filter cannot be sent".to_owned()),
            _ => Failure::Malformed("the answer cannot be read".to_owned()),
        }
    }
}

fn next_page(controls: &[Control]) -> Option<Vec<u8>> {
    let Control(_, paged) = controls.iter().find(|Control(_, control)| control.ctype == PAGED_RESULTS)?;
    ber::page_cookie(paged.val.as_deref()?)
}
