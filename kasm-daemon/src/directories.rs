//! The LDAP configs of the config file: the domains that machines join, and whose users log in.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use kasm_ad::{ActiveDirectory, AuthError, LdapSettings};
use kasm_autoscale_core::fields::{Fields, Problem};
use kasm_autoscale_core::id::{DeploymentId, DirectoryName};
use kasm_autoscale_core::ports::{Directories, Directory, DirectoryFacts};
use secrecy::SecretString;

use crate::file::LdapConfig;
use crate::secrets::Environment;
use crate::users::{AuthenticateError, Authenticator, Identity, Realm};

/// Makes a directory. It reads the bind password and the certificates, and asks nobody until its first call.
///
/// # Errors
/// Every mistake in its settings; paths start at the table of the LDAP config.
pub fn build(
    config: &LdapConfig,
    deployment: DeploymentId,
    environment: &Environment,
) -> Result<ActiveDirectory, Vec<Problem>> {
    // The other mistakes are told even if the password cannot be read.
    let (password, unreadable) = match config.bind_password.resolve(environment) {
        Ok(password) => (password, None),
        Err(error) => {
            let problem = Problem::new("bind_password", error.from.to_string(), error.remedy());
            (SecretString::from("none".to_owned()), Some(problem))
        }
    };
    let mut fields = Fields::new(&config.settings);
    let settings = LdapSettings::read(&mut fields, password);
    let mut problems = fields.finish();
    let directory = match settings {
        Some(settings) => ActiveDirectory::new(settings, deployment),
        None => Err(vec![]),
    };
    problems.extend(unreadable);
    match directory {
        Ok(directory) if problems.is_empty() => Ok(directory),
        Ok(_) => Err(problems),
        Err(more) => Err(problems.into_iter().chain(more).collect()),
    }
}

/// The directories that are set up, by name.
#[derive(Clone, Default)]
pub struct DirectoryRegistry(BTreeMap<DirectoryName, Arc<dyn Directory>>);

impl DirectoryRegistry {
    /// Adds a directory.
    pub fn add(&mut self, name: DirectoryName, directory: Arc<dyn Directory>) {
        self.0.insert(name, directory);
    }

    /// Every directory with what it is.
    pub fn known(&self) -> Vec<(DirectoryName, DirectoryFacts)> {
        self.0.iter().map(|(name, directory)| (name.clone(), directory.describe())).collect()
    }
}

impl Directories for DirectoryRegistry {
    fn directory(&self, name: &DirectoryName) -> Option<Arc<dyn Directory>> {
        self.0.get(name).cloned()
    }
}

/// How many logins may be checked with one directory at once.
const LOGINS_AT_ONCE: u32 = 8;

/// What a directory is to users.
pub fn realm(directory: ActiveDirectory) -> Realm {
    Realm { enabled: directory.settings().enabled, authenticator: Arc::new(Domain(directory)), calls: LOGINS_AT_ONCE }
}

struct Domain(ActiveDirectory);

#[async_trait]
impl Authenticator for Domain {
    fn domain(&self) -> String {
        self.0.domain().to_lowercase()
    }

    async fn authenticate(&self, username: &str, password: &SecretString) -> Result<Identity, AuthenticateError> {
        match self.0.authenticate(username, password).await {
            Ok(user) => Ok(Identity { account: user.sam_account_name, groups: user.groups }),
            Err(AuthError::Refused(reason)) => Err(AuthenticateError::Refused(reason.to_string())),
            Err(AuthError::Unavailable(error)) => Err(AuthenticateError::Unavailable(error.to_string())),
        }
    }
}
