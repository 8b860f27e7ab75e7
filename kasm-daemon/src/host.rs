//! All pools of one daemon, and what they share.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, RwLock};

use kasm_autoscale_core::config::{ConfigSpec, Invalid, JsonObject, PoolSpec, Problem};
use kasm_autoscale_core::execute::{Ports, check_config};
use kasm_autoscale_core::id::{ConfigName, PoolId, PoolName, ProviderName};
use kasm_autoscale_core::input::{Answer, Fact, Refusal};
use kasm_autoscale_core::pool::Pool;
use kasm_autoscale_core::ports::{Capabilities, Prober, Providers, Secrets, VmProvider};
use kasm_autoscale_core::row::RestoreError;
use kasm_autoscale_core::token::{DeploymentKey, TokenError, verify_checkin_token};
use thiserror::Error;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::clock::Clock;
use crate::directories::DirectoryRegistry;
use crate::driver::{AskError, CallLimits, PoolHandle, spawn};
use crate::file::DeclaredPool;
use crate::metrics::Metrics;
use crate::store::{Declared, Store, StoreError};

/// What every pool works with.
pub struct World {
    /// Reads the time.
    pub clock: Clock,
    /// Where pools are kept.
    pub store: Arc<dyn Store>,
    /// Who makes machines.
    pub providers: Registry,
    /// Where machines join their domains.
    pub directories: DirectoryRegistry,
    /// Probes connection ports.
    pub prober: Arc<dyn Prober>,
    /// Keeps secrets.
    pub secrets: Arc<dyn Secrets>,
    /// Signs check-in tokens.
    pub key: DeploymentKey,
    /// Counts.
    pub metrics: Metrics,
    /// How many calls of each pool may be under way at once.
    pub calls: CallLimits,
}

impl World {
    /// The ports that commands are carried out with.
    pub fn ports(&self) -> Ports<'_> {
        Ports {
            providers: &self.providers,
            directories: &self.directories,
            prober: &*self.prober,
            secrets: &*self.secrets,
            key: &self.key,
        }
    }
}

/// The providers that are set up, by name.
#[derive(Clone, Default)]
pub struct Registry(BTreeMap<ProviderName, Arc<dyn VmProvider>>);

impl Registry {
    /// Adds a provider.
    pub fn add(&mut self, name: ProviderName, provider: Arc<dyn VmProvider>) {
        self.0.insert(name, provider);
    }

    /// Every provider with what it can do.
    pub fn known(&self) -> Vec<(ProviderName, Capabilities)> {
        self.0.iter().map(|(name, provider)| (name.clone(), provider.describe())).collect()
    }
}

impl Providers for Registry {
    fn provider(&self, name: &ProviderName) -> Option<Arc<dyn VmProvider>> {
        self.0.get(name).cloned()
    }
}

/// Why something asked of the host was not done.
#[derive(Debug, Error)]
pub enum HostError {
    /// There is no such pool.
    #[error("there is no pool {0:?}")]
    UnknownPool(String),
    /// The pool is there already.
    #[error("there is a pool {0:?} already")]
    PoolExists(PoolName),
    /// The config is there already.
    #[error("there is a config {0:?} already")]
    ConfigExists(ConfigName),
    /// The settings have mistakes.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// The config file declares it, so it is changed there.
    #[error("{0} is declared in the config file; change it there and restart the daemon")]
    Declared(String),
    /// The pool has configs or servers.
    #[error(
        "pool {0:?} still has configs or servers, or its providers have not shown yet that they hold none of its machines; delete its configs and try again when its servers are gone"
    )]
    NotEmpty(PoolName),
    /// The core refused it.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The pool did not answer.
    #[error(transparent)]
    Ask(#[from] AskError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A stored pool cannot be read.
    #[error("pool {pool:?} cannot be read from the store: {error}")]
    Restore {
        /// Which.
        pool: PoolName,
        /// Why.
        error: RestoreError,
    },
    /// The check-in token is no good.
    #[error(transparent)]
    Token(#[from] TokenError),
}

/// All pools of one daemon.
pub struct Host {
    world: Arc<World>,
    pools: RwLock<BTreeMap<PoolName, PoolHandle>>,
    declared: Declared,
    /// Held while a pool or config is looked for and then changed, so that nobody else changes it in between.
    changes: tokio::sync::Mutex<()>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Host {
    /// Reads all pools from the store, brings them in line with what the config file declares, and starts driving them.
    ///
    /// What an earlier file declared and this one does not is removed: a config with its servers, a pool with its configs.
    ///
    /// # Errors
    /// [`HostError`] when the store fails or holds what cannot be read. Nothing is driven then.
    pub async fn start(world: World, declared: &[DeclaredPool]) -> Result<Self, HostError> {
        let world = Arc::new(world);
        let before = world.store.declared().await?;
        let mut host = Self {
            world,
            pools: RwLock::default(),
            declared: Declared::default(),
            changes: tokio::sync::Mutex::default(),
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
        };
        let mut loaded = BTreeMap::new();
        for stored in host.world.store.pools().await? {
            let rows = host.world.store.load(stored.id).await?;
            // A pool that was added and never stepped has no rows; it is made again when it is declared or asked for.
            if !rows.is_empty() {
                let restored = Pool::restore(rows, host.world.clock.now());
                loaded.insert(
                    stored.name.clone(),
                    restored.map_err(|error| HostError::Restore { pool: stored.name, error })?,
                );
            }
        }
        for (_, pool) in loaded {
            host.drive(pool);
        }
        for pool in declared {
            host.declare(pool, &before).await?;
        }
        host.remove_undeclared(&before).await?;
        host.world.store.set_declared(host.declared.clone()).await?;
        Ok(host)
    }

    /// What the pools share.
    pub fn world(&self) -> &Arc<World> {
        &self.world
    }

    fn drive(&self, pool: Pool) -> PoolHandle {
        let handle = spawn(pool, self.world.clone(), &self.tasks, self.stop.child_token());
        self.write_pools().insert(handle.name().clone(), handle.clone());
        handle
    }

    async fn declare(&mut self, pool: &DeclaredPool, before: &Declared) -> Result<(), HostError> {
        let name = pool.name.clone();
        let handle = match self.pool(name.as_str()) {
            Ok(handle) => {
                let spec = self.spec_of(&handle, &pool.settings)?;
                handle.ask(Fact::PoolSet(Box::new(spec))).await?;
                handle
            }
            Err(_) => self.make_pool(&name, &pool.settings).await?,
        };
        let mut names = BTreeSet::new();
        for config in &pool.configs {
            names.insert(config.name.clone());
            accepted(handle.ask(Fact::ConfigSet(Box::new(config.clone()))).await?)?;
        }
        for gone in before.pools.get(&name).into_iter().flatten().filter(|config| !names.contains(*config)) {
            // Already removed is as good.
            handle.ask(Fact::ConfigRemoved(gone.clone())).await?;
        }
        self.declared.pools.insert(name, names);
        Ok(())
    }

    async fn remove_undeclared(&self, before: &Declared) -> Result<(), HostError> {
        let gone = before.pools.iter().filter(|(name, _)| !self.declared.pools.contains_key(*name));
        for (name, configs) in gone {
            let Ok(handle) = self.pool(name.as_str()) else { continue };
            for config in configs {
                handle.ask(Fact::ConfigRemoved(config.clone())).await?;
            }
        }
        Ok(())
    }

    async fn make_pool(&self, name: &PoolName, settings: &JsonObject) -> Result<PoolHandle, HostError> {
        let id = self.world.store.add_pool(name.clone()).await?;
        let spec = PoolSpec::from_json(self.world.store.deployment(), id, settings)?;
        let handle = self.drive(Pool::new(spec, self.world.clock.now()));
        // The first step writes its row, so that it is there after a crash.
        handle.look(|_| ()).await?;
        Ok(handle)
    }

    fn spec_of(&self, handle: &PoolHandle, settings: &JsonObject) -> Result<PoolSpec, Invalid> {
        PoolSpec::from_json(self.world.store.deployment(), handle.id(), settings)
    }

    // --- pools ---

    /// All pools, by name.
    pub fn pools(&self) -> Vec<PoolHandle> {
        self.read_pools().values().cloned().collect()
    }

    /// The pool of this name.
    ///
    /// # Errors
    /// [`HostError::UnknownPool`].
    pub fn pool(&self, name: &str) -> Result<PoolHandle, HostError> {
        let pools = self.read_pools();
        let found = pools.values().find(|handle| handle.name().as_str() == name);
        found.cloned().ok_or_else(|| HostError::UnknownPool(name.into()))
    }

    /// Makes a pool from its settings, which then lives in the store.
    ///
    /// # Errors
    /// [`HostError::Invalid`], [`HostError::PoolExists`], or the store's.
    pub async fn add_pool(&self, settings: &JsonObject) -> Result<PoolHandle, HostError> {
        let name = pool_name(settings)?;
        let _changing = self.changes.lock().await;
        PoolSpec::from_json(self.world.store.deployment(), PoolId::from_bytes([0; 16]), settings)?;
        if self.pool(name.as_str()).is_ok() {
            return Err(HostError::PoolExists(name));
        }
        self.make_pool(&name, settings).await
    }

    /// Changes a pool's settings. Its name is its own and cannot be changed.
    ///
    /// # Errors
    /// [`HostError::Declared`], [`HostError::Invalid`], or the store's.
    pub async fn set_pool(&self, handle: &PoolHandle, settings: &JsonObject) -> Result<(), HostError> {
        if self.is_declared(handle.name(), None) {
            return Err(HostError::Declared(format!("pool {:?}", handle.name())));
        }
        let spec = self.spec_of(handle, settings)?;
        if spec.name != *handle.name() {
            let problem = Problem::new(
                "name",
                format!("{:?}", spec.name.as_str()),
                format!("a pool keeps its name, {:?}", handle.name().as_str()),
            );
            return Err(Invalid { problems: vec![problem] }.into());
        }
        handle.ask(Fact::PoolSet(Box::new(spec))).await?;
        Ok(())
    }

    /// Forgets a pool that has neither configs nor servers.
    ///
    /// # Errors
    /// [`HostError::Declared`], [`HostError::NotEmpty`], or the store's.
    pub async fn remove_pool(&self, handle: &PoolHandle) -> Result<(), HostError> {
        if self.is_declared(handle.name(), None) {
            return Err(HostError::Declared(format!("pool {:?}", handle.name())));
        }
        let _changing = self.changes.lock().await;
        if !handle.look(Pool::is_empty).await? {
            return Err(HostError::NotEmpty(handle.name().clone()));
        }
        handle.stop();
        self.write_pools().remove(handle.name());
        self.world.store.forget_pool(handle.id()).await?;
        Ok(())
    }

    // --- configs ---

    /// Whether the config file declares this pool, or this config of it.
    pub fn is_declared(&self, pool: &PoolName, config: Option<&ConfigName>) -> bool {
        self.declared.pools.get(pool).is_some_and(|configs| config.is_none_or(|config| configs.contains(config)))
    }

    /// Every mistake in a config that its provider and the host's secrets can show.
    pub fn check_config(&self, spec: &ConfigSpec) -> Vec<Problem> {
        check_config(spec, &self.world.key, &self.world.providers, &self.world.directories, &*self.world.secrets)
    }

    /// Sets a config of a pool, whether it was there before or not.
    ///
    /// # Errors
    /// [`HostError::Declared`], [`HostError::Invalid`], or the pool's.
    pub async fn set_config(&self, handle: &PoolHandle, spec: ConfigSpec) -> Result<(), HostError> {
        let _changing = self.changes.lock().await;
        self.put_config(handle, spec).await
    }

    /// Adds a config to a pool.
    ///
    /// # Errors
    /// [`HostError::ConfigExists`], or those of [`set_config`](Self::set_config).
    pub async fn add_config(&self, handle: &PoolHandle, spec: ConfigSpec) -> Result<(), HostError> {
        let _changing = self.changes.lock().await;
        if config_of(handle, &spec.name).await?.is_some() {
            return Err(HostError::ConfigExists(spec.name));
        }
        self.put_config(handle, spec).await
    }

    /// Changes a config that a pool has.
    ///
    /// # Errors
    /// [`Refusal::UnknownConfig`], or those of [`set_config`](Self::set_config).
    pub async fn replace_config(&self, handle: &PoolHandle, spec: ConfigSpec) -> Result<(), HostError> {
        let _changing = self.changes.lock().await;
        if config_of(handle, &spec.name).await?.is_none() {
            return Err(Refusal::UnknownConfig { name: spec.name }.into());
        }
        self.put_config(handle, spec).await
    }

    /// Enables or disables a config. One that has mistakes by now, as when its secret is no longer kept, can still be disabled.
    ///
    /// # Errors
    /// [`Refusal::UnknownConfig`], or those of [`set_config`](Self::set_config).
    pub async fn set_config_enabled(
        &self,
        handle: &PoolHandle,
        name: &ConfigName,
        enabled: bool,
    ) -> Result<(), HostError> {
        let _changing = self.changes.lock().await;
        let spec = config_of(handle, name).await?.ok_or_else(|| Refusal::UnknownConfig { name: name.clone() })?;
        let spec = ConfigSpec { enabled, ..spec };
        if enabled {
            return self.put_config(handle, spec).await;
        }
        self.refuse_declared(handle, name)?;
        accepted(handle.ask(Fact::ConfigSet(Box::new(spec))).await?)?;
        Ok(())
    }

    async fn put_config(&self, handle: &PoolHandle, spec: ConfigSpec) -> Result<(), HostError> {
        self.refuse_declared(handle, &spec.name)?;
        let problems = self.check_config(&spec);
        if !problems.is_empty() {
            return Err(Invalid { problems }.into());
        }
        accepted(handle.ask(Fact::ConfigSet(Box::new(spec))).await?)?;
        Ok(())
    }

    /// Removes a config of a pool: its servers are drained and deleted.
    ///
    /// # Errors
    /// [`HostError::Declared`], [`HostError::Refused`], or the pool's.
    pub async fn remove_config(&self, handle: &PoolHandle, name: ConfigName) -> Result<(), HostError> {
        self.refuse_declared(handle, &name)?;
        let _changing = self.changes.lock().await;
        accepted(handle.ask(Fact::ConfigRemoved(name)).await?)?;
        Ok(())
    }

    fn refuse_declared(&self, handle: &PoolHandle, config: &ConfigName) -> Result<(), HostError> {
        if self.is_declared(handle.name(), Some(config)) {
            return Err(HostError::Declared(format!("config {config:?} of pool {:?}", handle.name())));
        }
        Ok(())
    }

    // --- machines ---

    /// Takes the check-in of a machine.
    ///
    /// # Errors
    /// [`HostError::Token`] for a token that is not good, [`HostError::Refused`] when its server is gone or going.
    pub async fn check_in(&self, token: &str, status: String, message: String, progress: u8) -> Result<(), HostError> {
        let key = verify_checkin_token(&self.world.key, token, self.world.clock.now())?;
        let handle = self.read_pools().values().find(|handle| handle.id() == key.pool).cloned();
        let handle = handle.ok_or(Refusal::UnknownServer { server: key.server })?;
        accepted(handle.ask(Fact::CheckedIn { server: key.server, status, message, progress }).await?)?;
        Ok(())
    }

    /// Stops driving all pools, and waits until their last steps are saved. Machines go on.
    pub async fn stop(&self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }

    // A panic while the lock is held leaves the map whole: it is only read and written in single calls.
    fn read_pools(&self) -> std::sync::RwLockReadGuard<'_, BTreeMap<PoolName, PoolHandle>> {
        self.pools.read().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn write_pools(&self) -> std::sync::RwLockWriteGuard<'_, BTreeMap<PoolName, PoolHandle>> {
        self.pools.write().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// The config of this name that a pool has.
async fn config_of(handle: &PoolHandle, name: &ConfigName) -> Result<Option<ConfigSpec>, AskError> {
    let name = name.clone();
    handle.look(move |pool| pool.config(&name).cloned()).await
}

/// What is legal but unwise in a config: what the core says of it, and where its startup script does not look like
/// PowerShell.
pub fn warnings(spec: &ConfigSpec) -> Vec<Problem> {
    spec.warnings().into_iter().chain(syntax_warnings(spec)).collect()
}

#[cfg(feature = "script-check")]
fn syntax_warnings(spec: &ConfigSpec) -> Vec<Problem> {
    let problem = |warning: crate::syntax::SyntaxWarning| {
        let given = format!("line {}, column {}: {}", warning.line, warning.column, warning.given());
        Problem::new("startup_script", given, crate::syntax::ADVICE)
    };
    crate::syntax::warnings_of(spec).into_iter().map(problem).collect()
}

/// Built without a grammar of PowerShell: scripts are not looked at.
#[cfg(not(feature = "script-check"))]
fn syntax_warnings(_: &ConfigSpec) -> Vec<Problem> {
    Vec::new()
}

/// A refusal is an error here.
///
/// # Errors
/// The refusal.
pub fn accepted(answer: Answer) -> Result<Answer, Refusal> {
    match answer {
        Answer::Refused(refusal) => Err(refusal),
        other => Ok(other),
    }
}

/// The name in a pool's settings, before the pool has an id.
fn pool_name(settings: &JsonObject) -> Result<PoolName, Invalid> {
    let nil = kasm_autoscale_core::id::DeploymentId::from_bytes([0; 16]);
    PoolSpec::from_json(nil, PoolId::from_bytes([0; 16]), settings).map(|spec| spec.name)
}
