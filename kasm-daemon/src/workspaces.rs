//! Workspaces: what users see and launch. Each names a pool; the config file declares some, the API makes others.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, PoisonError, RwLock};

use kasm_autoscale_core::fields::{Fields, JsonObject, Problem, shown};
use kasm_autoscale_core::id::{DirectoryName, InvalidId, PoolName, SecretName};
use serde_json::{Value, json};
use thiserror::Error;

use crate::connect::sso::SsoDomain;
use crate::store::{Store, StoreError};
use crate::users::Login;

/// The longest friendly name, in characters.
const FRIENDLY_NAME_MAX: usize = 128;
/// The longest description, in characters.
const DESCRIPTION_MAX: usize = 2000;
/// How many groups or LDAP configs a workspace may name.
const NAMES_MAX: usize = 100;
/// The longest name of a group, in characters.
const GROUP_CHARS_MAX: usize = 512;

/// The name of a workspace: 1 to 63 letters, digits, `.`, `_` or `-`, the first one a letter or digit.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct WorkspaceName(String);

impl WorkspaceName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for WorkspaceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for WorkspaceName {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        // The rule of all names is the core's.
        let name: Result<SecretName, InvalidId> = text.parse();
        name.map(|name| Self(name.into())).map_err(|error| InvalidId { what: "workspace name", ..error })
    }
}

/// A workspace.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Workspace {
    /// Its name, for programs.
    pub name: WorkspaceName,
    /// The pool that its sessions are of.
    pub pool: PoolName,
    /// Its name, for people.
    pub friendly_name: String,
    /// What it is for.
    pub description: String,
    /// Whether users see it.
    pub enabled: bool,
    /// The form in which its servers know a user's name.
    pub sso_domain: SsoDomain,
    /// The LDAP configs whose users it is open to; none: all.
    pub ldap: BTreeSet<DirectoryName>,
    /// The groups whose members it is open to: distinguished names; none: everybody.
    pub groups: Vec<String>,
}

impl Workspace {
    /// Reads the fields of a workspace, in the config file and in API bodies.
    ///
    /// # Errors
    /// All mistakes at once.
    pub fn from_json(object: &JsonObject) -> Result<Self, Vec<Problem>> {
        let mut fields = Fields::new(object);
        let name: Option<WorkspaceName> = fields.name("name");
        let name = fields.require("name", name, "the name of the workspace, as in \"office\"");
        let pool: Option<PoolName> = fields.name("pool");
        let pool = fields.require("pool", pool, "the name of the pool that its sessions are of");
        let friendly_name = read_text(&mut fields, "friendly_name", FRIENDLY_NAME_MAX, false);
        let description = read_text(&mut fields, "description", DESCRIPTION_MAX, true);
        let enabled = fields.boolean("enabled").unwrap_or(true);
        let sso_domain =
            match fields.text("sso_domain").filter(|text| !text.is_empty()).map(|text| SsoDomain::parse(&text)) {
                Some(Err(problem)) => {
                    fields.problem(problem);
                    SsoDomain::AsIs
                }
                Some(Ok(domain)) => domain,
                None => SsoDomain::AsIs,
            };
        let ldap =
            read_list(&mut fields, "ldap", "the name of an LDAP config, as in \"corp\"", |text| text.parse().ok());
        let group = |text: &str| {
            let fits =
                text.contains('=') && text.chars().count() <= GROUP_CHARS_MAX && !text.chars().any(char::is_control);
            fits.then(|| text.to_owned())
        };
        let allowed = "the distinguished name of a group, as in \"CN=Desktop Users,OU=Groups,DC=corp,DC=example\"";
        let groups = read_list(&mut fields, "groups", allowed, group);
        let problems = fields.finish();
        match (name, pool) {
            (Some(name), Some(pool)) if problems.is_empty() => {
                let friendly_name = friendly_name.filter(|text| !text.is_empty()).unwrap_or_else(|| name.to_string());
                let description = description.unwrap_or_default();
                let ldap = ldap.into_iter().collect();
                Ok(Self { name, pool, friendly_name, description, enabled, sso_domain, ldap, groups })
            }
            _ => Err(problems),
        }
    }

    /// All fields, as [`from_json`](Self::from_json) reads them.
    pub fn to_json(&self) -> Value {
        let ldap: Vec<&str> = self.ldap.iter().map(DirectoryName::as_str).collect();
        json!({
            "name": self.name.as_str(),
            "pool": self.pool.as_str(),
            "friendly_name": self.friendly_name,
            "description": self.description,
            "enabled": self.enabled,
            "sso_domain": self.sso_domain.to_string(),
            "ldap": ldap,
            "groups": self.groups,
        })
    }

    /// Whether this user may see and launch it.
    pub fn is_open_to(&self, login: &Login) -> bool {
        let in_group = |wanted: &String| login.groups().iter().any(|group| group.eq_ignore_ascii_case(wanted));
        self.enabled
            && (self.ldap.is_empty() || self.ldap.contains(login.ldap()))
            && (self.groups.is_empty() || self.groups.iter().any(in_group))
    }
}

fn read_text(fields: &mut Fields<'_>, name: &'static str, most: usize, lines: bool) -> Option<String> {
    let text = fields.text(name)?;
    let breaks = |c: char| c.is_control() && !(lines && matches!(c, '\n' | '\t'));
    if text.chars().count() > most || text.chars().any(breaks) {
        let what = if lines { "no control characters but line ends" } else { "one line, no control characters" };
        fields.problem(Problem::new(name, shown(&Value::String(text)), format!("at most {most} characters, {what}")));
        return None;
    }
    Some(text)
}

fn read_list<T>(
    fields: &mut Fields<'_>,
    name: &'static str,
    allowed: &str,
    read: impl Fn(&str) -> Option<T>,
) -> Vec<T> {
    let Some(value) = fields.value(name) else { return vec![] };
    let Some(items) = value.as_array().filter(|items| items.len() <= NAMES_MAX) else {
        fields.problem(Problem::new(name, shown(value), format!("a list of at most {NAMES_MAX}, each {allowed}")));
        return vec![];
    };
    let mut list = vec![];
    for (index, item) in items.iter().enumerate() {
        match item.as_str().and_then(&read) {
            Some(item) => list.push(item),
            None => fields.problem(Problem::new(format!("{name}[{index}]"), shown(item), allowed)),
        }
    }
    list
}

/// Why a workspace was not changed.
#[derive(Debug, Error)]
pub enum WorkspaceError {
    /// There is no such workspace.
    #[error("there is no workspace {0:?}")]
    Unknown(String),
    /// There is one of this name.
    #[error("there is a workspace {:?} already", .0.as_str())]
    Exists(WorkspaceName),
    /// The config file declares it, so it is changed there.
    #[error("workspace {:?} is declared in the config file; change it there and restart the daemon", .0.as_str())]
    Declared(WorkspaceName),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// All workspaces of a daemon.
pub struct Workspaces {
    store: Arc<dyn Store>,
    declared: BTreeSet<WorkspaceName>,
    all: RwLock<BTreeMap<WorkspaceName, Arc<Workspace>>>,
    /// Held while a workspace is looked for and then changed, so that nobody else changes it in between.
    changes: tokio::sync::Mutex<()>,
}

impl Workspaces {
    /// Those in the store, and those that the config file declares. A declared one takes the place of one of its name in
    /// the store; it is kept nowhere but in the file, so what is taken out there is gone.
    ///
    /// # Errors
    /// [`StoreError`] when the store fails or holds what cannot be read.
    pub async fn load(store: Arc<dyn Store>, declared: Vec<Workspace>) -> Result<Self, StoreError> {
        let mut all = BTreeMap::new();
        let names: BTreeSet<WorkspaceName> = declared.iter().map(|workspace| workspace.name.clone()).collect();
        for object in store.workspaces().await? {
            let workspace = Workspace::from_json(&object).map_err(|problems| StoreError::Row {
                key: "workspace".into(),
                reason: problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "),
            })?;
            if names.contains(&workspace.name) {
                store.forget_workspace(workspace.name.clone()).await?;
            } else {
                all.insert(workspace.name.clone(), Arc::new(workspace));
            }
        }
        all.extend(declared.into_iter().map(|workspace| (workspace.name.clone(), Arc::new(workspace))));
        Ok(Self { store, declared: names, all: RwLock::new(all), changes: tokio::sync::Mutex::default() })
    }

    /// All of them, by name.
    pub fn all(&self) -> Vec<Arc<Workspace>> {
        self.all.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// The workspace of this name.
    ///
    /// # Errors
    /// [`WorkspaceError::Unknown`].
    pub fn get(&self, name: &str) -> Result<Arc<Workspace>, WorkspaceError> {
        let all = self.all.read().unwrap_or_else(PoisonError::into_inner);
        let found = name.parse().ok().and_then(|name: WorkspaceName| all.get(&name).cloned());
        found.ok_or_else(|| WorkspaceError::Unknown(name.chars().take(63).collect()))
    }

    /// Whether the config file declares it.
    pub fn is_declared(&self, name: &WorkspaceName) -> bool {
        self.declared.contains(name)
    }

    /// Adds a workspace.
    ///
    /// # Errors
    /// [`WorkspaceError::Exists`], or the store's.
    pub async fn add(&self, workspace: Workspace) -> Result<(), WorkspaceError> {
        let _changing = self.changes.lock().await;
        if self.get(workspace.name.as_str()).is_ok() {
            return Err(WorkspaceError::Exists(workspace.name));
        }
        self.put(workspace).await
    }

    /// Replaces the workspace of the same name.
    ///
    /// # Errors
    /// [`WorkspaceError`], all but [`Exists`](WorkspaceError::Exists).
    pub async fn replace(&self, workspace: Workspace) -> Result<(), WorkspaceError> {
        let _changing = self.changes.lock().await;
        self.changeable(workspace.name.as_str())?;
        self.put(workspace).await
    }

    /// Removes a workspace. Sessions that were launched from it go on.
    ///
    /// # Errors
    /// [`WorkspaceError`], all but [`Exists`](WorkspaceError::Exists).
    pub async fn remove(&self, name: &str) -> Result<(), WorkspaceError> {
        let _changing = self.changes.lock().await;
        let workspace = self.changeable(name)?;
        self.store.forget_workspace(workspace.name.clone()).await?;
        self.all.write().unwrap_or_else(PoisonError::into_inner).remove(&workspace.name);
        Ok(())
    }

    fn changeable(&self, name: &str) -> Result<Arc<Workspace>, WorkspaceError> {
        let workspace = self.get(name)?;
        if self.is_declared(&workspace.name) {
            return Err(WorkspaceError::Declared(workspace.name.clone()));
        }
        Ok(workspace)
    }

    /// Saved first: what is told to be there is there after a crash.
    async fn put(&self, workspace: Workspace) -> Result<(), WorkspaceError> {
        let object = workspace.to_json().as_object().cloned().unwrap_or_default();
        self.store.put_workspace(workspace.name.clone(), object).await?;
        self.all.write().unwrap_or_else(PoisonError::into_inner).insert(workspace.name.clone(), Arc::new(workspace));
        Ok(())
    }
}

impl fmt::Debug for Workspaces {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Workspaces").field("all", &self.all).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(value: Value) -> Result<Workspace, Vec<Problem>> {
        Workspace::from_json(value.as_object().unwrap())
    }

    #[test]
    fn what_is_written_is_read_again() {
        let full = json!({
            "name": "office", "pool": "west", "friendly_name": "Büro", "description": "Two\nlines", "enabled": false,
            "sso_domain": "CORP\\", "ldap": ["corp"], "groups": ["CN=a,DC=b"],
        });
        let workspace = read(full.clone()).unwrap();
        assert_eq!(workspace.to_json(), full);
        let least = read(json!({ "name": "office", "pool": "west" })).unwrap();
        assert_eq!(
            (least.friendly_name.as_str(), least.enabled, &least.sso_domain),
            ("office", true, &SsoDomain::AsIs)
        );
        let again = read(least.to_json()).unwrap();
        assert_eq!(again, least);
    }

    #[test]
    fn all_mistakes_are_named_at_once() {
        let problems = read(json!({
            "name": "?", "friendly_name": "a\nb", "description": "\u{0}", "enabled": "yes", "sso_domain": "a b",
            "ldap": ["?"], "groups": ["users", 1], "pol": "x",
        }))
        .unwrap_err();
        let paths: Vec<&str> = problems.iter().map(|problem| problem.path.as_str()).collect();
        let wanted = [
            "name",
            "pool",
            "friendly_name",
            "description",
            "enabled",
            "sso_domain",
            "ldap[0]",
            "groups[0]",
            "groups[1]",
            "pol",
        ];
        assert_eq!(paths, wanted);
        assert_eq!(read(json!({ "name": "a", "pool": "b", "groups": "x" })).unwrap_err()[0].path, "groups");
    }
}
