//! Whole installations, simulated for days: clouds with personalities, machines that boot and die, users, operators, and hosts
//! that crash between any two lines. The pools are real, commands are carried out by the real [`execute`](crate::execute),
//! and the hosts keep the daemon's order: step, save, let go.
//!
//! A world keeps a ledger of the truth, which no pool can see, and holds every pool against it after each step. The
//! invariants have numbers, I-01 and so on, which are those of the checks' messages.
//!
//! A run has phases: a quiet beginning; trouble, of which every world has another random part; the end of all trouble, after
//! which every pool must come to rest within a bounded time; a day of silence, in which nothing may be made or deleted; and
//! the end of all configs, after which nothing may be left anywhere. One world in four ends all at once instead.
//!
//! ```
//! use kasm_autoscale_core::testing::choices::Choices;
//! use kasm_autoscale_core::testing::world::explore;
//! let verdict = explore(Choices::seeded(1));
//! assert!(verdict.failure.is_none(), "{}", verdict.failure.unwrap());
//! ```
//!
//! In many worlds there are domains as well, each with controllers that learn late of each other's changes; a share of the
//! configs join one, and machines join with the password they were given, or do not.

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;
use core::time::Duration;

use super::choices::{Choices, Stream, Tape, Trace};
use super::cloud::{Fault, FaultRates, SimCloud};
use super::entropy::Entropy;
use super::lock::{locked, shared};
use super::std::panic::{AssertUnwindSafe, catch_unwind};
use crate::command::{Command, Outcome};
use crate::id::{CommandId, ConfigName, PoolId, ServerId};
use crate::input::Fact;
use crate::ports::{ComputerRef, MachineRef};
use crate::time::Timestamp;

mod domain;
mod figures;
mod host;
mod judge;
mod ledger;
mod life;
mod people;
mod sky;
mod weather;

pub use domain::{DomainKind, DomainTrouble};
pub use figures::Figures;
pub use weather::{Personality, Profile, Trouble};

use domain::{Climate, Domain};
use host::Host;
use ledger::Ledger;
use people::{Stage, User};
use sky::{Cloud, Sky};
use weather::Weather;

/// When every world begins: midnight of some day.
const BEGINNING: Timestamp = Timestamp::from_secs(1_700_006_400);
const HOUR: Duration = Duration::from_secs(3600);

fn pool_id(index: usize) -> PoolId {
    let mut bytes = [2; 16];
    bytes[15] = u8::try_from(index).unwrap_or(u8::MAX);
    PoolId::from_bytes(bytes)
}

/// Something that will happen in a world.
#[derive(Debug)]
enum Due {
    /// A command reaches its provider.
    Arrives { pool: usize, process: u64, command: Command },
    /// Its outcome reaches the host.
    Answered { pool: usize, process: u64, id: CommandId, outcome: Outcome },
    /// A machine says that it runs.
    GuestSpeaks { pool: usize, server: ServerId },
    /// A machine joins its domain, or tries to.
    GuestJoins { pool: usize, server: ServerId, cloud: usize, machine: MachineRef, tries: u32 },
    /// Somebody looks after the objects of a domain, for better or worse.
    Admin,
    /// An operator has been told that an object cannot be removed, and comes to help.
    Helped { domain: usize, object: ComputerRef },
    /// A user does the next thing, unless he has done another one since.
    User { pool: usize, user: usize, turn: u64 },
    /// The next user comes.
    Arrival { pool: usize },
    /// An operator looks in.
    Operator { pool: usize },
    /// An operator has looked into an alarm: what the listings miss is gone indeed.
    Acknowledges { pool: usize, config: ConfigName },
    /// Fate strikes.
    Fate,
    /// A host that died comes back.
    Returns { pool: usize },
    /// Its clock is right again, which it sees when it starts anew.
    ClockRight { pool: usize },
}

/// A promise that was broken.
#[derive(Clone, Debug)]
pub struct Failure {
    /// Which one, by its number where it has one.
    pub invariant: String,
    /// When and how.
    pub found: String,
    /// What this world was like.
    pub weather: String,
    /// The last things that happened, the latest at the end.
    pub events: Vec<String>,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}: {}", self.invariant, self.found)?;
        writeln!(f, "the world: {}", self.weather)?;
        for event in &self.events {
            writeln!(f, "  {event}")?;
        }
        Ok(())
    }
}

/// How a run has gone.
#[derive(Debug)]
pub struct Verdict {
    /// What was seen and done.
    pub figures: Figures,
    /// A digest of every step: equal for equal runs.
    pub trace: Trace,
    /// The promise that was broken first, if one was.
    pub failure: Option<Failure>,
    /// What was chosen, if it was recorded.
    pub tape: Tape,
}

/// Lives one world through.
pub fn explore(mut choices: Choices) -> Verdict {
    let mut world = World::new(&mut choices);
    let lived = catch_unwind(AssertUnwindSafe(|| world.live()));
    let broken = match lived {
        Ok(Ok(())) => None,
        Ok(Err(broken)) => Some(broken),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string));
            Some(Broken { invariant: "a panic", found: text.unwrap_or_default() })
        }
    };
    let failure = broken.map(|broken| world.failure(&broken));
    world.close_the_books();
    Verdict { figures: world.figures, trace: world.trace, failure, tape: choices.tape() }
}

/// An invariant that does not hold. Ends the run.
#[derive(Debug)]
struct Broken {
    invariant: &'static str,
    found: String,
}

type Sound = Result<(), Broken>;

fn expect(holds: bool, invariant: &'static str, found: impl FnOnce() -> String) -> Sound {
    if holds { Ok(()) } else { Err(Broken { invariant, found: found() }) }
}

/// An installation and all around it. [`explore`] lives one through.
struct World {
    weather: Weather,
    sky: Sky,
    hosts: Vec<Host>,
    due: BTreeMap<(Timestamp, u64), Due>,
    next_due: u64,
    now: Timestamp,
    has_trouble: bool,
    /// Nobody may make or delete anything.
    is_silent: bool,
    trouble: Stream,
    net: Stream,
    users: Stream,
    operators: Stream,
    fate: Stream,
    /// Which configs join a domain, and how.
    joining: Stream,
    /// How machines join.
    guests: Stream,
    /// What those do who look after domains.
    admins: Stream,
    /// How many configs in a million join a domain.
    joins: u32,
    figures: Figures,
    trace: Trace,
    log: VecDeque<(Timestamp, usize, Note)>,
}

/// What is remembered of what happened, cheaply; it is put into words when somebody asks.
#[derive(Debug)]
enum Note {
    What(crate::report::What),
    Sent(CommandId, &'static str, String),
    Heard(CommandId, &'static str),
    Word(&'static str),
}

const LOG_LENGTH: usize = 60;

/// More steps than any world needs: one that takes them goes round in circles.
const STEPS_MAX: u64 = 1_000_000;

impl World {
    fn new(choices: &mut Choices) -> Self {
        let mut options = choices.stream("options");
        let weather = Weather::drawn(&mut options);
        let now = BEGINNING;
        let mut clouds = Vec::new();
        for (index, (personality, _)) in weather.clouds.iter().enumerate() {
            let sim =
                SimCloud::with_entropy(personality.settings(&mut options), choices.stream(&format!("cloud-{index}")));
            clouds.push(shared(Cloud {
                name: format!("cloud-{index}").parse().unwrap_or_else(|_| unreachable!("a valid name")),
                personality: *personality,
                capabilities: personality.capabilities(&mut options),
                sim,
                entropy: choices.stream(&format!("lies-{index}")),
                now,
                outage_until: Timestamp::default(),
                hang_until: Timestamp::default(),
                rates: BTreeMap::new(),
                struck: Vec::new(),
                lied_about: Vec::new(),
                deletions: Vec::new(),
                given: None,
            }));
        }
        let (climates, joins) = Climate::drawn(weather.profile, &mut choices.stream("domains"));
        let domains = climates.into_iter().enumerate().map(|(index, climate)| {
            shared(Domain::new(index, climate, choices.stream(&format!("domain-{index}")), now))
        });
        let mut world = Self {
            sky: Sky::new(clouds, domains.collect()),
            hosts: Vec::new(),
            due: BTreeMap::new(),
            next_due: 0,
            now,
            has_trouble: false,
            is_silent: false,
            trouble: choices.stream("trouble"),
            net: choices.stream("net"),
            users: choices.stream("users"),
            operators: choices.stream("operators"),
            fate: choices.stream("fate"),
            joining: choices.stream("joining"),
            guests: choices.stream("guests"),
            admins: choices.stream("admins"),
            joins,
            figures: Figures { worlds: 1, ..Figures::default() },
            trace: Trace::default(),
            log: VecDeque::new(),
            weather,
        };
        for index in 0..world.weather.pools {
            world.found_pool(usize::try_from(index).unwrap_or(0));
        }
        world
    }

    fn found_pool(&mut self, index: usize) {
        let spec = self.pool_spec(index);
        let names = (0..self.weather.configs).map(|config| format!("config-{config}").parse());
        let users = (0..self.weather.users).map(|user| User {
            name: format!("user-{user}").parse().unwrap_or_else(|_| unreachable!("a valid name")),
            zone: usize::try_from(user % 4).ok().filter(|zone| *zone < 3),
            stage: Stage::Away,
            turn: 0,
            requests: 0,
        });
        self.hosts.push(Host {
            id: pool_id(index),
            pool: Some(crate::pool::Pool::new(spec, self.now)),
            store: BTreeMap::new(),
            mailbox: Vec::new(),
            wake_at: Some(self.now),
            process: 0,
            behind: Duration::ZERO,
            tickets: BTreeMap::new(),
            next_ticket: 0,
            configs: names.flatten().collect(),
            users: users.collect(),
            ledger: Ledger::default(),
            hurried: (Timestamp::default(), 0),
            saves: 0,
            shaky_until: Timestamp::default(),
            failed_saves: 0,
            goes_on_at: Timestamp::default(),
            expiry_before: Duration::ZERO,
        });
    }

    // --- phases ---

    fn live(&mut self) -> Sound {
        self.begin()?;
        self.run(HOUR)?;
        self.trouble_begins();
        self.run(self.weather.faults_for)?;
        self.trouble_ends()?;
        if self.weather.ends_suddenly {
            self.remove_all();
            self.run(24 * HOUR)?;
            return self.expect_nothing_left();
        }
        self.set_all();
        self.run(2 * HOUR)?;
        if self.expect_supplied().is_err() {
            // A session whose user has vanished may have ended just now, and another server may be on its way for that.
            self.run(HOUR / 2)?;
            self.expect_supplied()?;
        }
        self.run(10 * HOUR)?;
        self.expect_at_rest()?;
        self.is_silent = true;
        self.run(24 * HOUR)?;
        self.is_silent = false;
        self.expect_at_rest()?;
        self.remove_all();
        self.run(2 * HOUR)?;
        self.expect_nothing_left()
    }

    fn begin(&mut self) -> Sound {
        for (personality, _) in &self.weather.clouds {
            self.figures.saw(personality.as_str());
        }
        for domain in &self.sky.domains {
            self.figures.saw(locked(domain).climate.kind.as_str());
        }
        for pool in 0..self.hosts.len() {
            self.introduce_providers(pool);
            // Before anything was ever saved there is nothing to come back to.
            self.step(pool)?;
            for config in 0..self.hosts[pool].configs.len() {
                let fact = self.config(pool, config, true, true);
                self.hosts[pool].mailbox.push(fact.into());
            }
            self.step(pool)?;
            let first = self.next_arrival();
            self.at(self.now + first, Due::Arrival { pool });
        }
        Ok(())
    }

    fn trouble_begins(&mut self) {
        self.has_trouble = true;
        self.figures.could(&self.classes());
        for (cloud, (personality, rates)) in self.sky.clouds.iter().zip(&self.weather.clouds) {
            let mut cloud = locked(cloud);
            cloud.sim.settings_mut().faults = rates.clone();
            let lies = [Trouble::ListLies, Trouble::DeleteLies, Trouble::CreateTwice];
            let is_liar = *personality == Personality::Liar;
            let of_cloud = lies.into_iter().filter(|_| is_liar).chain([Trouble::Unclear]);
            cloud.rates = of_cloud.map(|trouble| (trouble, self.weather.rate(trouble))).collect();
        }
        self.trouble_in_domains();
        self.at(self.now, Due::Fate);
        for pool in 0..self.hosts.len() {
            self.at(self.now, Due::Operator { pool });
        }
    }

    fn trouble_ends(&mut self) -> Sound {
        self.has_trouble = false;
        self.note(0, Note::Word("all trouble ends"));
        for cloud in &self.sky.clouds {
            let mut cloud = locked(cloud);
            cloud.sim.settings_mut().faults = FaultRates::default();
            cloud.rates.clear();
            (cloud.outage_until, cloud.hang_until) = (Timestamp::default(), Timestamp::default());
        }
        for domain in &self.sky.domains {
            let mut domain = locked(domain);
            domain.reach(self.now);
            domain.heal();
        }
        for pool in 0..self.hosts.len() {
            self.clock_is_right(pool)?;
            if self.hosts[pool].pool.is_none() {
                self.at(self.now, Due::Returns { pool });
            }
        }
        self.users_go_home();
        Ok(())
    }

    fn set_all(&mut self) {
        for pool in 0..self.hosts.len() {
            for config in 0..self.hosts[pool].configs.len() {
                let fact = self.config(pool, config, true, true);
                self.hosts[pool].mailbox.push(fact.into());
            }
        }
    }

    fn remove_all(&mut self) {
        self.note(0, Note::Word("all configs are removed"));
        for host in &mut self.hosts {
            let removed = host.configs.iter().map(|name| Fact::ConfigRemoved(name.clone()).into());
            host.mailbox.extend(removed.collect::<Vec<_>>());
        }
    }

    // --- time ---

    fn at(&mut self, at: Timestamp, due: Due) {
        self.due.insert((at.max(self.now), self.next_due), due);
        self.next_due += 1;
    }

    fn run(&mut self, span: Duration) -> Sound {
        let end = self.now + span;
        while self.go_on(end)? {
            expect(self.figures.steps < STEPS_MAX, "I-17 a world comes to its end", || {
                format!("{STEPS_MAX} steps, and no end")
            })?;
        }
        self.now = self.now.max(end);
        self.figures.pool_millis += u64::try_from(span.as_millis()).unwrap_or(0) * self.weather.pools;
        Ok(())
    }

    /// Goes on to the next thing that happens, not beyond `end`.
    fn go_on(&mut self, end: Timestamp) -> Result<bool, Broken> {
        let wakes = self.hosts.iter().filter_map(|host| host.steps_at(self.now));
        let first = self.due.first_key_value().map(|((at, _), _)| *at);
        let Some(next) = wakes.chain(first).min().filter(|next| *next <= end) else { return Ok(false) };
        self.now = self.now.max(next);
        while let Some(entry) = self.due.first_entry().filter(|entry| entry.key().0 <= self.now) {
            let due = entry.remove();
            self.happens(due)?;
        }
        for pool in 0..self.hosts.len() {
            if self.hosts[pool].steps_at(self.now).is_some_and(|at| at <= self.now) {
                self.step(pool)?;
            }
        }
        Ok(true)
    }

    fn happens(&mut self, due: Due) -> Sound {
        match due {
            Due::Arrives { pool, process, command } => self.arrives(pool, process, &command)?,
            Due::Answered { pool, process, id, outcome } => self.answered(pool, process, id, outcome),
            Due::GuestSpeaks { pool, server } => self.guest_speaks(pool, server),
            Due::User { pool, user, turn } => self.user_acts(pool, user, turn),
            Due::Arrival { pool } => {
                if self.now < self.trouble_ends_at() {
                    self.user_comes(pool);
                    let next = self.next_arrival();
                    self.at(self.now + next, Due::Arrival { pool });
                }
            }
            Due::Operator { pool } if self.has_trouble => {
                self.operator_acts(pool);
                let next = Duration::from_secs(self.operators.range(60..=3600));
                self.at(self.now + next, Due::Operator { pool });
            }
            Due::Acknowledges { pool, config } => self.loss_is_acknowledged(pool, config),
            Due::Fate if self.has_trouble => {
                self.fate_strikes();
                let next = Duration::from_secs(self.fate.range(60..=2700));
                self.at(self.now + next, Due::Fate);
                for pool in 0..self.hosts.len() {
                    if !self.hosts[pool].behind.is_zero() {
                        self.at(self.now + 2 * HOUR, Due::ClockRight { pool });
                    }
                }
            }
            Due::GuestJoins { pool, server, cloud, machine, tries } => {
                self.guest_joins(pool, server, cloud, machine, tries);
            }
            Due::Admin if self.has_trouble => self.admin_acts(),
            Due::Helped { domain, object } => self.helped(domain, &object),
            Due::Operator { .. } | Due::Fate | Due::Admin => {}
            Due::Returns { pool } => self.returns(pool)?,
            Due::ClockRight { pool } => self.clock_is_right(pool)?,
        }
        Ok(())
    }

    /// When trouble ends, and the days on which users come.
    fn trouble_ends_at(&self) -> Timestamp {
        BEGINNING + HOUR + self.weather.faults_for
    }

    // --- trouble ---

    fn rate(&self, trouble: Trouble) -> u32 {
        if self.has_trouble { self.weather.rate(trouble) } else { 0 }
    }

    fn strikes(&mut self, trouble: Trouble) -> bool {
        let rate = self.rate(trouble);
        let struck = self.trouble.chance(rate);
        if struck {
            self.figures.struck(trouble.as_str());
        }
        struck
    }

    /// All classes of fault that can occur in this world.
    fn classes(&self) -> BTreeSet<&'static str> {
        let mut classes = self.weather.classes();
        for domain in &self.sky.domains {
            classes.extend(locked(domain).climate.classes());
        }
        classes
    }

    // --- what is told of it ---

    fn note(&mut self, pool: usize, note: Note) {
        if self.log.len() == LOG_LENGTH {
            self.log.pop_front();
        }
        self.log.push_back((self.now, pool, note));
    }

    fn failure(&self, broken: &Broken) -> Failure {
        let events = self.log.iter().map(|(at, pool, note)| {
            let at = crate::time::Span(at.since(BEGINNING));
            match note {
                Note::What(what) => format!("{at} pool {pool}: {what}"),
                Note::Sent(id, verb, what) => format!("{at} pool {pool}: {id} {verb} {what}"),
                Note::Heard(id, word) => format!("{at} pool {pool}: {id} came back: {word}"),
                Note::Word(word) => format!("{at} pool {pool}: {word}"),
            }
        });
        let at = crate::time::Span(self.now.since(BEGINNING));
        let clouds: Vec<_> = self.weather.clouds.iter().map(|(personality, _)| personality.as_str()).collect();
        let domains = self.sky.domains.iter().map(|domain| format!("{:?}", locked(domain).climate));
        let domains: Vec<_> = domains.collect();
        let classes = self.weather.classes();
        Failure {
            invariant: broken.invariant.into(),
            found: format!("after {at}: {}", broken.found),
            weather: format!("{:?}, clouds {clouds:?}, trouble {classes:?}, domains {domains:?}", self.weather.profile),
            events: events.collect(),
        }
    }

    fn close_the_books(&mut self) {
        for cloud in &self.sky.clouds {
            let cloud = locked(cloud);
            for fault in Fault::ALL {
                let hits = cloud.sim.hits(fault);
                if hits > 0 {
                    *self.figures.faults.entry(fault.as_str()).or_default() += hits;
                }
            }
        }
    }
}
