//! The models: small pools, each with another part of the whole, and how much may go wrong.

use std::time::Duration;

use kasm_autoscale_core::config::{ConfigSpec, PoolSpec};
use kasm_autoscale_core::input::Fact;
use kasm_autoscale_core::ports::{Capabilities, DirectoryFacts};
use serde_json::{Value, json};

use super::truth::{DEPLOYMENT, POOL};

/// Time passes in steps of this: the pool is stepped at multiples of it alone, as a host that is a little late would.
pub(crate) const GRAIN: Duration = Duration::from_millis(GRAIN_MILLIS);
pub(crate) const GRAIN_MILLIS: u64 = 60_000;
/// How long what was made may not be seen.
pub(crate) const LAG: Duration = GRAIN;
/// How long a call may be under way. The pool waits for its outcome for half a grain longer.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(90);
pub(crate) const PROVIDERS: [&str; 2] = ["aws", "azure"];

/// How much may go wrong in one life of a model.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub(crate) struct Budget {
    /// Crashes of the host.
    pub(crate) crashes: u8,
    /// Answers that are lost, late, refusals, or do not show what is new.
    pub(crate) lost: u8,
    /// Machines that vanish or are stopped.
    pub(crate) mishaps: u8,
    /// Operators' wishes and edits.
    pub(crate) wishes: u8,
}

/// One model.
pub(crate) struct Plan {
    pub(crate) name: &'static str,
    pub(crate) configs: Vec<ConfigSpec>,
    /// Servers at once, of all configs.
    pub(crate) servers: usize,
    /// Sessions at once.
    pub(crate) users: usize,
    pub(crate) budget: Budget,
    /// Creates are answered with an operation, deletes are accepted and watched.
    pub(crate) by_operation: bool,
    /// Whether a create may be refused for want of capacity.
    pub(crate) refusals: bool,
    /// So many transitions it has at least: a tenth less than were counted, so that it does not shrink without being noticed.
    pub(crate) transitions_min: usize,
    pub(crate) run: Run,
    pub(crate) pace: Pace,
    /// Whether calls that only look are answered at once, one after the other in an order that is always the same, before
    /// anything else happens. Those that are late are not, so at most as many as answers may be lost race with everything
    /// else; in the other plans they all do.
    pub(crate) prompt_reads: bool,
}

/// Which runs a plan is part of, and how far it is gone through.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Run {
    /// Of all, the short one as well.
    Short,
    /// Of the usual one.
    Usual,
    /// Of the deep one.
    Deep,
    /// Of the deep one, and too large to be exhausted: so many states are met on random ways.
    Walks(usize),
}

/// How long things take that tell states apart by time alone, in grains.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    /// How long a user waits.
    pub(crate) queue: u32,
    /// How long a session lives without a sign of life.
    pub(crate) keepalive: u32,
    /// How often a provider is listed when nothing is expected of it.
    pub(crate) poll_idle: u32,
}

fn config(name: &str, provider: &str, fields: Value) -> ConfigSpec {
    let mut object = json!({
        "name": name, "provider": provider, "zone": provider, "reusable": true, "minimum_available_sessions": 1,
        "max_sessions_per_server": 1, "max_servers": 2, "downscale_backoff": "1m", "boot_deadline": "4m",
        // How many servers fared well since one failed would tell states apart that are otherwise alike.
        "breaker_failures": 2, "breaker_window": 2,
    });
    object.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    ConfigSpec::from_json(object.as_object().unwrap()).unwrap()
}

pub(crate) fn pool_spec(plan: &Plan) -> PoolSpec {
    let mut spec = PoolSpec::new(DEPLOYMENT, POOL, "desktops".parse().unwrap());
    spec.queue_deadline = plan.pace.queue * GRAIN;
    spec.keepalive_expiry = plan.pace.keepalive * GRAIN;
    spec
}

/// What a host says first after a start. A directory that nobody joins would only be listed, which tells states apart that are
/// otherwise alike.
pub(crate) fn introductions(plan: &Plan) -> Vec<Fact> {
    let known = |name: &&str| {
        let capabilities = Capabilities {
            kind: "model",
            visibility_lag: LAG,
            poll_busy: GRAIN,
            poll_idle: plan.pace.poll_idle * GRAIN,
            creates_in_flight_max: 10,
            call_timeout: TIMEOUT,
            offering: &["size"],
        };
        Fact::ProviderKnown(name.parse().unwrap(), capabilities)
    };
    let corp = DirectoryFacts {
        domain: "corp.example".into(),
        visibility_lag: LAG,
        poll_busy: GRAIN,
        poll_idle: 3 * GRAIN,
        call_timeout: TIMEOUT,
    };
    let joins = plan.configs.iter().any(|config| config.domain_join.is_some());
    let corp = joins.then(|| Fact::DirectoryKnown("corp".parse().unwrap(), corp));
    PROVIDERS.iter().map(known).chain(corp).collect()
}

pub(crate) fn all() -> Vec<Plan> {
    let joins = json!({ "ad_directory": "corp", "ad_computer_ou_dn": "OU=Desks,DC=corp,DC=example" });
    let plan = |name, configs| Plan {
        name,
        configs,
        servers: 2,
        users: 0,
        budget: Budget { crashes: 1, lost: 1, mishaps: 0, wishes: 0 },
        by_operation: false,
        refusals: false,
        transitions_min: 0,
        run: Run::Short,
        pace: Pace { queue: 3, keepalive: 4, poll_idle: 3 },
        prompt_reads: false,
    };
    let budget = |crashes, lost, mishaps, wishes| Budget { crashes, lost, mishaps, wishes };
    vec![
        Plan {
            budget: budget(2, 2, 0, 0),
            transitions_min: 660_000,
            ..plan("making", vec![config("first", "aws", json!({ "minimum_available_sessions": 2 }))])
        },
        Plan {
            users: 3,
            transitions_min: 1_220_000,
            run: Run::Usual,
            ..plan("sessions", vec![config("first", "aws", json!({ "max_sessions_per_server": 2 }))])
        },
        Plan {
            users: 2,
            transitions_min: 2_620_000,
            run: Run::Usual,
            ..plan("used-once", vec![config("first", "aws", json!({ "reusable": false }))])
        },
        Plan {
            refusals: true,
            budget: budget(2, 2, 0, 0),
            transitions_min: 2_380_000,
            run: Run::Usual,
            ..plan("fallback", vec![config("first", "aws", json!({})), config("second", "azure", json!({}))])
        },
        Plan {
            budget: budget(2, 2, 0, 0),
            transitions_min: 1_260_000,
            ..plan("joining", vec![config("first", "aws", joins.clone())])
        },
        Plan {
            budget: budget(1, 0, 0, 1),
            transitions_min: 42_000,
            ..plan("leaving", vec![config("first", "aws", joins)])
        },
        Plan {
            by_operation: true,
            servers: 1,
            users: 1,
            budget: budget(0, 1, 0, 2),
            transitions_min: 215_000,
            ..plan("wishes", vec![config("first", "aws", json!({ "max_servers": 1 }))])
        },
        Plan {
            by_operation: true,
            servers: 1,
            users: 1,
            budget: budget(1, 1, 2, 0),
            transitions_min: 400_000,
            ..plan("mishaps", vec![config("first", "aws", json!({ "max_servers": 1 }))])
        },
        // The bounds all together: two configs, four servers, three sessions, two crashes, two lost answers. Every three of them are
        // in one of the next four plans, in all orders.
        bounded("two-crashes", Bounds { lost: 0, ..ALL }, Run::Usual, 2_190_000),
        bounded("two-losses", Bounds { crashes: 0, ..ALL }, Run::Usual, 3_000_000),
        bounded("no-sessions", Bounds { sessions: 0, ..ALL }, Run::Usual, 237_000),
        bounded("one-config", Bounds { configs: 1, servers: 2, ..ALL }, Run::Usual, 2_160_000),
        bounded("one-of-each", Bounds { crashes: 1, lost: 1, ..ALL }, Run::Deep, 7_440_000),
        bounded("everything", ALL, Run::Walks(5_000_000), 0),
    ]
}

/// How many of everything there are at most.
#[derive(Clone, Copy, Debug)]
struct Bounds {
    configs: u32,
    servers: u32,
    sessions: u32,
    crashes: u8,
    lost: u8,
}

const ALL: Bounds = Bounds { configs: 2, servers: 4, sessions: 3, crashes: 2, lost: 2 };

/// A plan within these bounds, at a pace at which as much as possible is due at the same time.
fn bounded(name: &'static str, bounds: Bounds, run: Run, transitions_min: usize) -> Plan {
    let Bounds { configs, servers, sessions, crashes, lost } = bounds;
    let max = servers / configs;
    let fields = json!({ "max_servers": max, "boot_deadline": "3m" });
    let names = ["first", "second"].into_iter().zip(PROVIDERS).take(configs as usize);
    Plan {
        name,
        configs: names.map(|(name, provider)| config(name, provider, fields.clone())).collect(),
        servers: servers as usize,
        users: sessions as usize,
        budget: Budget { crashes, lost, mishaps: 0, wishes: 0 },
        by_operation: false,
        refusals: false,
        transitions_min,
        run,
        pace: Pace { queue: 1, keepalive: 2, poll_idle: 1 },
        prompt_reads: true,
    }
}
