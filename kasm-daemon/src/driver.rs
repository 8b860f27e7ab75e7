//! Drives one pool: takes in what has happened, steps, saves, then lets the commands go.
//!
//! It decides nothing. Answers to callers, events and commands leave only after the step is saved; if saving fails, nothing
//! of the step has happened, and the pool is read anew from the store.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use kasm_autoscale_core::command::{Action, Command, Outcome};
use kasm_autoscale_core::execute::execute;
use kasm_autoscale_core::id::{CommandId, DirectoryName, PoolId, PoolName, ProviderName};
use kasm_autoscale_core::input::{Answer, Fact, Input, Ticket};
use kasm_autoscale_core::pool::Pool;
use kasm_autoscale_core::ports::{Certainty, DirectoryError, DirectoryErrorKind, ErrorKind, ProviderError};
use kasm_autoscale_core::report::{Event, What};
use kasm_autoscale_core::row::Outputs;
use kasm_autoscale_core::time::Timestamp;
use thiserror::Error;
use tokio::sync::{Semaphore, broadcast, mpsc, oneshot};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::host::World;
use crate::store::StoreError;
use crate::trail::Record;

/// How many messages may wait for a pool. More than that, callers wait.
const MAILBOX: usize = 4096;
/// How many facts one step takes in at most, so that a flood does not delay the answers to its beginning.
const FACTS_PER_STEP: usize = 1024;
/// How often everything is recounted, at most.
const RECOUNT_INTERVAL: Duration = Duration::from_secs(60);
/// How much more time passes between two recounts than one of them takes: the larger the pool, the seldomer.
const RECOUNT_SHARE: u32 = 200;
/// How long to wait before a store that failed is tried again: at first, and at most, since it is twice as long each time.
const STORE_RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(8));
/// How long a store must not fail before it is trusted as at first.
const STORE_CALM: Duration = Duration::from_secs(60);

/// Why a pool did not answer.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
pub enum AskError {
    /// The step could not be saved. Whether it took effect is not known; ask what there is, or ask again with the same
    /// idempotency key.
    #[error("the store failed; try again")]
    NotSaved,
    /// The pool has been stopped.
    #[error("the pool is stopped")]
    Stopped,
}

enum Message {
    Fact(Fact, Option<Record>, oneshot::Sender<Result<Answer, AskError>>),
    Finished(CommandId, Outcome),
    Look(Look),
}

type Look = Box<dyn FnOnce(&Pool) + Send>;

/// A pool that is being driven. Cheap to clone.
#[derive(Clone, Debug)]
pub struct PoolHandle {
    id: PoolId,
    name: PoolName,
    mailbox: mpsc::Sender<Message>,
    events: broadcast::Sender<Event>,
    stop: CancellationToken,
}

impl PoolHandle {
    /// The pool's id.
    pub fn id(&self) -> PoolId {
        self.id
    }

    /// The pool's name.
    pub fn name(&self) -> &PoolName {
        &self.name
    }

    /// Tells the pool a fact, and waits until its consequences are saved.
    ///
    /// # Errors
    /// [`AskError`]; a wish that was refused is an answer, not an error.
    pub async fn ask(&self, fact: Fact) -> Result<Answer, AskError> {
        self.ask_recorded(fact, None).await
    }

    /// As [`ask`](Self::ask), with an entry for the audit log: it is saved with the consequences, or neither is.
    ///
    /// # Errors
    /// As [`ask`](Self::ask).
    pub async fn ask_recorded(&self, fact: Fact, record: Option<Record>) -> Result<Answer, AskError> {
        let (answer, answered) = oneshot::channel();
        self.mailbox.send(Message::Fact(fact, record, answer)).await.map_err(|_| AskError::Stopped)?;
        answered.await.map_err(|_| AskError::Stopped)?
    }

    /// Looks at the pool between two steps. What is seen is saved.
    ///
    /// # Errors
    /// [`AskError::Stopped`].
    pub async fn look<T: Send + 'static>(&self, look: impl FnOnce(&Pool) -> T + Send + 'static) -> Result<T, AskError> {
        let (answer, answered) = oneshot::channel();
        let look = Message::Look(Box::new(move |pool| drop(answer.send(look(pool)))));
        self.mailbox.send(look).await.map_err(|_| AskError::Stopped)?;
        answered.await.map_err(|_| AskError::Stopped)
    }

    /// Events as they are saved. A reader that falls far behind misses some; the store has them all.
    pub fn events(&self) -> broadcast::Receiver<Event> {
        self.events.subscribe()
    }

    /// Stops the pool after the step it is in. Its machines go on; a later start finds them.
    pub fn stop(&self) {
        self.stop.cancel();
    }
}

/// Starts driving a pool on its own task.
pub(crate) fn spawn(pool: Pool, world: Arc<World>, tasks: &TaskTracker, stop: CancellationToken) -> PoolHandle {
    let (mailbox, messages) = mpsc::channel(MAILBOX);
    let (events, _) = broadcast::channel(1024);
    let (id, name) = (pool.spec().id, pool.spec().name.clone());
    let driver = Driver {
        pool,
        messages,
        outcomes: mailbox.downgrade(),
        events: events.clone(),
        turns: Arc::new(Turns::new(world.calls)),
        world,
        commands: TaskTracker::new(),
        stop: stop.clone(),
        pending: Vec::new(),
        records: Vec::new(),
        callers: BTreeMap::new(),
        next_ticket: 0,
        wake_at: None,
        store_failed_at: Timestamp::default(),
        store_pause: Duration::ZERO,
        recount_at: Timestamp::default(),
    };
    tasks.spawn(driver.run());
    PoolHandle { id, name, mailbox, events, stop }
}

/// How many calls of a pool may be under way at once, so that a burst of commands neither floods a provider nor this machine.
/// Each provider and each directory has places of its own: one that hangs keeps nobody waiting but itself.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct CallLimits {
    /// Calls to each provider.
    pub calls: u32,
    /// Calls to each directory.
    pub directory_calls: u32,
    /// Probes of connection ports.
    pub probes: u32,
    /// How long a pool that stops waits for those under way.
    pub grace: Duration,
}

impl Default for CallLimits {
    fn default() -> Self {
        Self { calls: 32, directory_calls: 8, probes: 200, grace: Duration::from_secs(5) }
    }
}

/// Whom a call is for.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Whom {
    Provider(ProviderName),
    Directory(DirectoryName),
}

struct Turns {
    limits: CallLimits,
    /// By whom they are for; made at the first call.
    calls: Mutex<BTreeMap<Whom, Arc<Semaphore>>>,
    probes: Arc<Semaphore>,
}

impl Turns {
    fn new(limits: CallLimits) -> Self {
        Self { limits, calls: Mutex::default(), probes: Self::places(limits.probes) }
    }

    fn places(count: u32) -> Arc<Semaphore> {
        Arc::new(Semaphore::new(usize::try_from(count).unwrap_or(Semaphore::MAX_PERMITS)))
    }

    /// Where this action waits for its turn.
    fn of(&self, action: &Action) -> Arc<Semaphore> {
        let provider = action.provider().cloned().map(|name| (Whom::Provider(name), self.limits.calls));
        let directory = action.directory().cloned().map(|name| (Whom::Directory(name), self.limits.directory_calls));
        let Some((whom, count)) = provider.or(directory) else { return self.probes.clone() };
        // A panic while the lock is held leaves the map whole: it is only added to.
        let mut calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        calls.entry(whom).or_insert_with(|| Self::places(count)).clone()
    }
}

struct Driver {
    pool: Pool,
    world: Arc<World>,
    messages: mpsc::Receiver<Message>,
    outcomes: mpsc::WeakSender<Message>,
    events: broadcast::Sender<Event>,
    turns: Arc<Turns>,
    commands: TaskTracker,
    stop: CancellationToken,
    /// Facts for the next step.
    pending: Vec<Input>,
    /// What the audit log is to say of them.
    records: Vec<Record>,
    callers: BTreeMap<Ticket, oneshot::Sender<Result<Answer, AskError>>>,
    next_ticket: u64,
    wake_at: Option<Timestamp>,
    /// When the store last failed, and how long was waited then.
    store_failed_at: Timestamp,
    store_pause: Duration,
    recount_at: Timestamp,
}

impl Driver {
    async fn run(mut self) {
        self.introduce();
        let mut looks: Vec<Look> = Vec::new();
        loop {
            self.recount_at_intervals();
            if !self.pending.is_empty() || self.is_due() {
                self.step().await;
            }
            for look in looks.drain(..) {
                look(&self.pool);
            }
            tokio::select! {
                biased;
                () = self.stop.cancelled() => break,
                first = self.messages.recv() => match first {
                    Some(message) => self.collect(message, &mut looks),
                    None => break,
                },
                () = wait_until(self.world.clone(), self.wake_at) => {}
            }
        }
        // Calls under way may finish or not: either way the next start looks at what there is.
        self.commands.close();
        drop(tokio::time::timeout(self.world.calls.grace, self.commands.wait()).await);
    }

    /// Tells the pool whom it may ask.
    fn introduce(&mut self) {
        let providers = self.world.providers.known().into_iter();
        self.pending.extend(providers.map(|(name, capabilities)| Fact::ProviderKnown(name, capabilities).into()));
        let directories = self.world.directories.known().into_iter();
        self.pending.extend(directories.map(|(name, facts)| Fact::DirectoryKnown(name, facts).into()));
    }

    fn is_due(&self) -> bool {
        self.wake_at.is_some_and(|at| at <= self.world.clock.now())
    }

    /// Takes the first message and all that have arrived behind it.
    fn collect(&mut self, first: Message, looks: &mut Vec<Look>) {
        let mut next = Some(first);
        while let Some(message) = next {
            match message {
                Message::Fact(fact, record, caller) => {
                    self.records.extend(record);
                    let ticket = Ticket(self.next_ticket);
                    self.next_ticket += 1;
                    self.callers.insert(ticket, caller);
                    self.pending.push(Input { ticket: Some(ticket), fact });
                }
                Message::Finished(command, outcome) => self.pending.push(Fact::Finished(command, outcome).into()),
                Message::Look(look) => looks.push(look),
            }
            next = if self.pending.len() < FACTS_PER_STEP { self.messages.try_recv().ok() } else { None };
        }
    }

    async fn step(&mut self) {
        let world = self.world.clone();
        let (inputs, records) = (std::mem::take(&mut self.pending), std::mem::take(&mut self.records));
        let started = world.clock.now();
        let recounts = self.recount_at <= started;
        let batch = self.pool.step(started, inputs);
        let took = world.clock.now().since(started);
        if recounts {
            self.recount_at = world.clock.now() + RECOUNT_INTERVAL.max(took * RECOUNT_SHARE);
        }
        world.metrics.stepped(self.pool.spec().name.as_str(), took);
        if !(batch.writes().is_empty() && batch.events().is_empty() && records.is_empty()) {
            let saving = world.clock.now();
            let (writes, events) = (batch.writes().to_vec(), batch.events().to_vec());
            let saved = world.store.save(self.pool.spec().id, writes, events, records).await;
            world.metrics.saved(saved.is_ok(), world.clock.now().since(saving));
            if let Err(error) = saved {
                drop(batch);
                self.recover(&error).await;
                return;
            }
        }
        self.release(batch.saved());
    }

    /// The step is durable: now it is told and done.
    fn release(&mut self, outputs: Outputs) {
        for (ticket, answer) in outputs.answers {
            if let Some(caller) = self.callers.remove(&ticket) {
                drop(caller.send(Ok(answer)));
            }
        }
        for event in outputs.events {
            if let What::Frozen { .. } = event.what {
                self.world.metrics.violated();
                tracing::error!(pool = %self.pool.spec().name, "{}", event.what);
            } else {
                tracing::info!(pool = %self.pool.spec().name, "{}", event.what);
            }
            // Nobody may be listening.
            drop(self.events.send(event));
        }
        self.wake_at = outputs.wake_at;
        for command in outputs.commands {
            self.carry_out(command);
        }
    }

    /// The step may or may not be in the store: only the store can tell.
    async fn recover(&mut self, error: &StoreError) {
        tracing::error!(pool = %self.pool.spec().name, %error, "a step was not saved; reading the pool anew");
        for (_, caller) in std::mem::take(&mut self.callers) {
            drop(caller.send(Err(AskError::NotSaved)));
        }
        loop {
            // A pool that is read anew asks for everything again, and earlier answers are still to come: without a pause, a
            // store that fails now and then would multiply calls, and one that refuses every save would never rest.
            let pause = self.store_pause();
            tokio::select! {
                () = self.stop.cancelled() => return,
                () = sleep(pause) => {}
            }
            match self.reload().await {
                Ok(pool) => {
                    self.pool = pool;
                    // Facts that came in meanwhile are still to be taken; the outcomes of the old pool's commands mean
                    // nothing to the new one, which looks for itself.
                    self.introduce();
                    return;
                }
                Err(error) => {
                    tracing::error!(pool = %self.pool.spec().name, %error, "the pool cannot be read; trying again")
                }
            }
        }
    }

    /// How long to wait now that the store has failed once more.
    fn store_pause(&mut self) -> Duration {
        let now = self.world.clock.now();
        let (first, most) = STORE_RETRY;
        let calm = now.since(self.store_failed_at) > STORE_CALM;
        self.store_pause = if calm { first } else { (self.store_pause * 2).clamp(first, most) };
        self.store_failed_at = now;
        self.store_pause
    }

    async fn reload(&self) -> Result<Pool, Box<dyn std::error::Error + Send + Sync>> {
        let rows = self.world.store.load(self.pool.spec().id).await?;
        Ok(Pool::restore(rows, self.world.clock.now())?)
    }

    fn carry_out(&self, command: Command) {
        let (world, turns, outcomes) = (self.world.clone(), self.turns.clone(), self.outcomes.clone());
        let pool = self.pool.spec().id;
        self.commands.spawn(async move {
            let started = world.clock.now();
            let outcome = timed(pool, &command, &world, &turns).await;
            let provider = command.action.provider().map(ProviderName::as_str);
            let provider = provider.or(command.action.directory().map(DirectoryName::as_str)).unwrap_or_default();
            world.metrics.called(provider, command.action.verb(), outcome.word(), world.clock.now().since(started));
            tracing::debug!(%provider, verb = command.action.verb(), outcome = outcome.word(), error = outcome.error(), "call");
            if let Some(outcomes) = outcomes.upgrade() {
                drop(outcomes.send(Message::Finished(command.id, outcome)).await);
            }
        });
    }

    /// Now and then a step recounts everything; the first one after a start does so by itself.
    fn recount_at_intervals(&mut self) {
        if self.recount_at <= self.world.clock.now() {
            self.pending.push(Fact::RecountAsked.into());
        }
    }
}

/// Carries a command out within its time, once it is its turn.
async fn timed(pool: PoolId, command: &Command, world: &World, turns: &Turns) -> Outcome {
    let turn = turns.of(&command.action);
    let Ok(Ok(_turn)) = tokio::time::timeout(command.timeout, turn.acquire()).await else {
        return not_sent(&command.action);
    };
    tokio::time::timeout(command.timeout, execute(pool, command, world.ports())).await.unwrap_or(Outcome::Lost)
}

/// It did not get its turn in time, so it certainly has had no effect.
fn not_sent(action: &Action) -> Outcome {
    const WHY: &str = "too many calls are under way; it was not sent";
    let error = ProviderError::new(ErrorKind::Throttled, Certainty::NotApplied, "Queued", WHY);
    let of_directory = || DirectoryError::new(DirectoryErrorKind::Throttled, Certainty::NotApplied, "Queued", WHY);
    match action {
        Action::Create(_) | Action::Poll { .. } | Action::Delete { .. } => Outcome::Progress(Err(error)),
        Action::Find { .. } => Outcome::Found(Err(error)),
        Action::List { .. } => Outcome::Listed(Err(error)),
        Action::Probe { .. } => Outcome::Lost,
        Action::Enroll(_) => Outcome::Enrolled(Err(of_directory())),
        Action::FindComputer { .. } => Outcome::ComputerFound(Err(of_directory())),
        Action::CheckJoin { .. } => Outcome::JoinChecked(Err(of_directory())),
        Action::Unenroll { .. } => Outcome::Unenrolled(Err(of_directory())),
        Action::ListComputers { .. } => Outcome::ComputersListed(Err(of_directory())),
    }
}

async fn wait_until(world: Arc<World>, at: Option<Timestamp>) {
    match at {
        Some(at) => sleep(world.clock.until(at)).await,
        None => std::future::pending().await,
    }
}
