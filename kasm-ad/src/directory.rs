//! [`ActiveDirectory`]: the core's port over one LDAP config, and the conversations it is made of.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use kasm_autoscale_core::config::Problem;
use kasm_autoscale_core::id::{DeploymentId, PoolId, ServerKey};
use kasm_autoscale_core::ports::{
    Computer, ComputerListing, ComputerRef, Directory, DirectoryError, DirectoryFacts, Finding, JoinPassword, JoinState,
};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::computers::NewComputer;
use crate::conversation::Conversation;
use crate::dn::Dn;
use crate::errors::{Failure, Step, explained};
use crate::mark::Reference;
use crate::settings::LdapSettings;
use crate::transport::{Endpoint, Plain};

/// How many conversations a directory holds at once; others wait for their turn. A domain controller serves thousands, but
/// it is there for a whole organisation.
const CONVERSATIONS_MAX: usize = 16;

/// One Active Directory domain, as one LDAP config describes it. Cheap to clone.
///
/// Every call is a conversation of its own: connect, encrypt, log in, ask. No answer is remembered.
#[derive(Clone)]
pub struct ActiveDirectory {
    pub(crate) shared: Arc<Shared>,
}

pub(crate) struct Shared {
    pub(crate) settings: LdapSettings,
    pub(crate) deployment: DeploymentId,
    pub(crate) domain: String,
    endpoint: Endpoint,
    turns: Semaphore,
    first_passwords: Mutex<BTreeMap<Reference, u64>>,
}

impl std::fmt::Debug for ActiveDirectory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("ActiveDirectory").field(&self.shared.settings).finish()
    }
}

impl ActiveDirectory {
    /// The directory of these settings, for this installation. Reads the CA file or the system's root certificates; asks nobody
    /// yet.
    ///
    /// # Errors
    /// Every mistake in the settings, as [`LdapSettings::problems`], or what is wrong with the certificates.
    pub fn new(settings: LdapSettings, deployment: DeploymentId) -> Result<Self, Vec<Problem>> {
        let problems = settings.problems();
        let Some(domain) = settings.domain_name().filter(|_| problems.is_empty()) else { return Err(problems) };
        let endpoint = Endpoint::new(&settings.url, settings.ca_file.as_deref()).map_err(|text| {
            let field = if settings.ca_file.is_some() { "ca_file" } else { "url" };
            vec![Problem::new(
                field,
                text,
                "a PEM file with root certificates, and a host name that one of them vouches for",
            )]
        })?;
        let turns = Semaphore::new(CONVERSATIONS_MAX);
        Ok(Self {
            shared: Arc::new(Shared {
                settings,
                deployment,
                domain,
                endpoint,
                turns,
                first_passwords: Mutex::default(),
            }),
        })
    }

    /// The settings.
    pub fn settings(&self) -> &LdapSettings {
        &self.shared.settings
    }

    /// The DNS name of the domain.
    pub fn domain(&self) -> &str {
        &self.shared.domain
    }

    /// Holds a conversation as the account of the settings. `step` is what it is for.
    pub(crate) async fn converse<T, F, R>(&self, step: Step, talk: F) -> Result<T, DirectoryError>
    where
        T: Send + 'static,
        F: FnOnce(Arc<Shared>, Conversation) -> R + Send + 'static,
        R: Future<Output = Result<T, DirectoryError>> + Send,
    {
        let shared = Arc::clone(&self.shared);
        self.alone(step, async move {
            let mut conversation = shared.connect().await?;
            let settings = &shared.settings;
            let bound = conversation.bind(&settings.bind_dn, &settings.bind_password).await;
            bound.map_err(|failure| explained(Step::Bind, &failure))?;
            talk(Arc::clone(&shared), conversation).await
        })
        .await
    }

    /// Does something in a task of its own, when it is its turn and within the time of a call: a parser that panics is a failed
    /// call, and a caller that goes away ends it.
    pub(crate) async fn alone<T, R>(&self, step: Step, work: R) -> Result<T, DirectoryError>
    where
        T: Send + 'static,
        R: Future<Output = Result<T, DirectoryError>> + Send + 'static,
    {
        // What waits for its turn has done nothing.
        let whole = self.shared.settings.call_timeout;
        let turn = timeout(whole, self.shared.turns.acquire()).await;
        let Ok(Ok(_turn)) = turn else { return Err(explained(Step::Connect, &Failure::TimedOut)) };
        let mut task = Ending(tokio::spawn(timeout(whole, work)));
        match (&mut task.0).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) => Err(explained(step, &Failure::TimedOut)),
            Err(_) => Err(explained(step, &Failure::Malformed("the answer cannot be read".to_owned()))),
        }
    }
}

impl Shared {
    /// `pwdLastSet` of the objects that this process has made and that have not been deleted. A machine that joins within
    /// seconds is seen by it; others are seen without.
    pub(crate) fn first_passwords(&self) -> MutexGuard<'_, BTreeMap<Reference, u64>> {
        // Nothing that panics holds it.
        self.first_passwords.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A conversation in which nobody has logged in yet.
    pub(crate) async fn connect(&self) -> Result<Conversation, DirectoryError> {
        let within = self.settings.timeout;
        let failed = |failure| explained(Step::Connect, &failure);
        let plain = Plain::connect(&self.endpoint, within).await.map_err(failed)?;
        let encrypted = plain.encrypt(&self.endpoint, within).await.map_err(failed)?;
        Ok(Conversation::over(encrypted, within, self.settings.page_size))
    }
}

/// A task that ends with whoever waits for it.
struct Ending<T>(JoinHandle<T>);

impl<T> Drop for Ending<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[async_trait]
impl Directory for ActiveDirectory {
    fn describe(&self) -> DirectoryFacts {
        let settings = &self.shared.settings;
        DirectoryFacts {
            domain: self.shared.domain.clone(),
            visibility_lag: settings.visibility_lag,
            poll_busy: settings.poll_busy,
            poll_idle: settings.poll_idle,
            // A call that has waited for its turn is given its whole time.
            call_timeout: settings.call_timeout * 2 + Duration::from_secs(1),
        }
    }

    fn check(&self, ou: &str) -> Vec<Problem> {
        match self.shared.unit(ou) {
            Ok(_) => Vec::new(),
            Err(problem) => vec![problem],
        }
    }

    async fn preflight(&self, ou: &str) -> Result<Vec<Finding>, DirectoryError> {
        let ou = self.shared.unit(ou).map_err(|problem| crate::computers::invalid("ou", &problem.to_string()))?;
        self.converse(Step::Add, move |shared, conversation| async move {
            crate::preflight::preflight(&shared, conversation, &ou).await
        })
        .await
    }

    async fn ensure_computer(
        &self,
        computer: &Computer,
        password: &JoinPassword,
    ) -> Result<ComputerRef, DirectoryError> {
        let new = NewComputer::check(&self.shared, computer, password)?;
        let server = computer.server;
        self.converse(Step::Add, move |shared, mut conversation| async move {
            crate::computers::ensure(&shared, &mut conversation, &server, &new).await
        })
        .await
    }

    async fn find_computer(&self, server: &ServerKey) -> Result<Option<ComputerRef>, DirectoryError> {
        let server = *server;
        self.converse(Step::Search, move |shared, mut conversation| async move {
            let found = crate::computers::find(&shared, &mut conversation, &server).await?;
            Ok(found.map(|reference| reference.written()))
        })
        .await
    }

    async fn joined(&self, computer: &ComputerRef) -> Result<JoinState, DirectoryError> {
        let reference = crate::computers::known(computer)?;
        self.converse(Step::Search, move |shared, mut conversation| async move {
            crate::computers::joined(&shared, &mut conversation, &reference).await
        })
        .await
    }

    async fn delete_computer(&self, computer: &ComputerRef, recursive: bool) -> Result<(), DirectoryError> {
        let reference = crate::computers::known(computer)?;
        self.converse(Step::Delete, move |shared, mut conversation| async move {
            crate::delete::delete(&shared, &mut conversation, &reference, recursive).await
        })
        .await
    }

    async fn list_computers(&self, pool: &PoolId) -> Result<ComputerListing, DirectoryError> {
        let pool = *pool;
        self.converse(Step::Search, move |shared, mut conversation| async move {
            crate::computers::list(&shared, &mut conversation, pool).await
        })
        .await
    }
}

impl Shared {
    /// The organisational unit a text names, if computer objects may lie in it.
    pub(crate) fn unit(&self, text: &str) -> Result<Dn, Problem> {
        let given = || format!("{text:?}");
        let ou: Dn = text.parse().map_err(|error| Problem::new("", given(), format!("{error}")))?;
        let base = self.settings.computer_base();
        if ou.is_within(base) {
            Ok(ou)
        } else {
            let allowed = format!("{base} or an organisational unit below it, as the directory's `computer_base` says");
            Err(Problem::new("", given(), allowed))
        }
    }
}
