//! What the daemon counts, for `/metrics`.

use std::sync::Arc;
use std::time::Duration;

use prometheus_client::encoding::{EncodeLabelSet, text::encode};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

use kasm_autoscale_core::report::{BackoffKind, ConfigReport, Fallback, Report};

use crate::tls::CertificateCounts;

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct OfPool {
    pool: String,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct OfConfig {
    pool: String,
    config: String,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct OfPhase {
    pool: String,
    config: String,
    phase: &'static str,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct OfKind {
    pool: String,
    config: String,
    kind: String,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct OfLimit {
    limit: &'static str,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct OfCall {
    provider: String,
    verb: &'static str,
    outcome: String,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct OfVerb {
    provider: String,
    verb: &'static str,
}

type Gauges<L> = Family<L, Gauge<i64>>;
type Times<L> = Family<L, Histogram, fn() -> Histogram>;

/// The counters and gauges of one daemon. Names and labels carry ids, names and kinds, never text from outside.
#[derive(Debug)]
pub struct Metrics {
    registry: Arc<Registry>,
    free: Gauges<OfConfig>,
    coming: Gauges<OfConfig>,
    target: Gauges<OfConfig>,
    sessions: Gauges<OfConfig>,
    servers: Gauges<OfPhase>,
    covered: Gauges<OfConfig>,
    kept: Gauges<OfConfig>,
    missing: Gauges<OfConfig>,
    failures: Gauges<OfKind>,
    waiting: Gauges<OfPool>,
    orphans: Gauges<OfPool>,
    calls: Family<OfCall, Counter>,
    call_seconds: Times<OfVerb>,
    step_seconds: Times<OfPool>,
    save_seconds: Histogram,
    saves_failed: Counter,
    frozen: Gauges<OfConfig>,
    violations: Counter,
    unrecorded: Counter,
    certificate: CertificateCounts,
    limited: Family<OfLimit, Counter>,
}

fn micro_to_seconds() -> Histogram {
    Histogram::new(exponential_buckets(0.000_01, 4.0, 10))
}

fn milli_to_minutes() -> Histogram {
    Histogram::new(exponential_buckets(0.002, 3.0, 10))
}

impl Default for Metrics {
    fn default() -> Self {
        let metrics = Self {
            registry: Arc::default(),
            free: Family::default(),
            coming: Family::default(),
            target: Family::default(),
            sessions: Family::default(),
            servers: Family::default(),
            covered: Family::default(),
            kept: Family::default(),
            missing: Family::default(),
            failures: Family::default(),
            waiting: Family::default(),
            orphans: Family::default(),
            calls: Family::default(),
            call_seconds: Family::new_with_constructor(milli_to_minutes),
            step_seconds: Family::new_with_constructor(micro_to_seconds),
            save_seconds: milli_to_minutes(),
            saves_failed: Counter::default(),
            frozen: Family::default(),
            violations: Counter::default(),
            unrecorded: Counter::default(),
            certificate: CertificateCounts::default(),
            limited: Family::default(),
        };
        metrics.registered()
    }
}

impl Metrics {
    fn registered(mut self) -> Self {
        let mut registry = Registry::with_prefix("kasm_autoscale");
        registry.register("free_sessions", "Free sessions on servers that are ready", self.free.clone());
        registry.register(
            "coming_sessions",
            "Sessions that servers which are being made will bring",
            self.coming.clone(),
        );
        registry.register("target_sessions", "Sessions that are to be free", self.target.clone());
        registry.register("sessions", "Active sessions", self.sessions.clone());
        registry.register("servers", "Servers by phase", self.servers.clone());
        registry.register(
            "covered_sessions",
            "Sessions that other configs keep free because this one cannot",
            self.covered.clone(),
        );
        registry.register("kept_servers", "Failed servers whose machines are kept for diagnosis", self.kept.clone());
        registry.register(
            "missing_machines",
            "Machines missing from listings, too many to be believed: nothing is deleted until an operator looks; alarm above 0",
            self.missing.clone(),
        );
        registry.register(
            "backoff_failures",
            "Failures in a row that a config backs off from; kind boot: its breaker is open",
            self.failures.clone(),
        );
        registry.register("waiting_requests", "Session requests that wait", self.waiting.clone());
        registry.register("orphans", "Machines with our mark that no row knows", self.orphans.clone());
        registry.register("calls", "Calls to providers and probes, by outcome", self.calls.clone());
        registry.register_with_unit(
            "call",
            "Time of calls to providers and probes",
            Unit::Seconds,
            self.call_seconds.clone(),
        );
        registry.register_with_unit("step", "Time a pool takes to decide", Unit::Seconds, self.step_seconds.clone());
        registry.register_with_unit(
            "save",
            "Time the store takes to save a step",
            Unit::Seconds,
            self.save_seconds.clone(),
        );
        registry.register("saves_failed", "Steps that were not saved", self.saves_failed.clone());
        registry.register(
            "frozen",
            "1: an invariant does not hold for this config, so nothing is made or deleted until an admin lifts it; alarm above 0",
            self.frozen.clone(),
        );
        registry.register(
            "violations",
            "How often a config was frozen because an invariant did not hold; always a bug, or rows changed by hand",
            self.violations.clone(),
        );
        registry.register(
            "unrecorded_calls",
            "Calls that were not done because the audit log could not be written; alarm when it rises",
            self.unrecorded.clone(),
        );
        self.certificate.register(&mut registry);
        registry.register(
            "rate_limited",
            "Requests refused because their address, token or user asked too much",
            self.limited.clone(),
        );
        self.registry = Arc::new(registry);
        self
    }

    pub(crate) fn stepped(&self, pool: &str, took: Duration) {
        self.step_seconds.get_or_create(&OfPool { pool: pool.into() }).observe(took.as_secs_f64());
    }

    pub(crate) fn saved(&self, ok: bool, took: Duration) {
        self.save_seconds.observe(took.as_secs_f64());
        if !ok {
            self.saves_failed.inc();
        }
    }

    pub(crate) fn called(&self, provider: &str, verb: &'static str, outcome: &str, took: Duration) {
        self.calls.get_or_create(&OfCall { provider: provider.into(), verb, outcome: outcome.into() }).inc();
        self.call_seconds.get_or_create(&OfVerb { provider: provider.into(), verb }).observe(took.as_secs_f64());
    }

    pub(crate) fn limited(&self, limit: &'static str) {
        self.limited.get_or_create(&OfLimit { limit }).inc();
    }

    pub(crate) fn unrecorded(&self) {
        self.unrecorded.inc();
    }

    pub(crate) fn violated(&self) {
        self.violations.inc();
    }

    pub(crate) fn certificate(&self) -> &CertificateCounts {
        &self.certificate
    }

    /// The text of `/metrics`, in the OpenMetrics format, with the pools as these reports show them.
    pub fn text(&self, reports: &[Report]) -> String {
        self.show(reports);
        let mut text = String::new();
        // Writing to a string does not fail.
        let _ = encode(&mut text, &self.registry);
        text
    }

    /// Sets the gauges anew, so that those of configs that are gone go as well.
    fn show(&self, reports: &[Report]) {
        self.free.clear();
        self.coming.clear();
        self.target.clear();
        self.sessions.clear();
        self.servers.clear();
        self.covered.clear();
        self.kept.clear();
        self.missing.clear();
        self.frozen.clear();
        self.failures.clear();
        self.waiting.clear();
        self.orphans.clear();
        for report in reports {
            let pool = report.pool.to_string();
            self.waiting.get_or_create(&OfPool { pool: pool.clone() }).set(report.waiting.into());
            self.orphans
                .get_or_create(&OfPool { pool: pool.clone() })
                .set(i64::try_from(report.orphans.len()).unwrap_or(i64::MAX));
            for config in &report.configs {
                let label = OfConfig { pool: pool.clone(), config: config.config.to_string() };
                self.free.get_or_create(&label).set(config.supply.free.into());
                self.coming.get_or_create(&label).set(config.supply.coming.into());
                self.target.get_or_create(&label).set(config.supply.target.into());
                self.sessions.get_or_create(&label).set(config.sessions.into());
                self.show_failures(config, &label);
                let phases = &config.servers;
                for (phase, count) in [
                    ("enrolling", phases.enrolling),
                    ("creating", phases.creating),
                    ("starting", phases.starting),
                    ("ready", phases.ready),
                    ("draining", phases.draining),
                    ("deleting", phases.deleting),
                    ("unenrolling", phases.unenrolling),
                ] {
                    self.servers
                        .get_or_create(&OfPhase { pool: pool.clone(), config: config.config.to_string(), phase })
                        .set(count.into());
                }
            }
        }
    }

    /// What keeps a config from keeping its promise, and who helps.
    fn show_failures(&self, config: &ConfigReport, label: &OfConfig) {
        let covered = config.fallback.iter().map(|fallback| match fallback {
            Fallback::CoveredBy { sessions, .. } => i64::from(*sessions),
            Fallback::CoveringFor { .. } => 0,
        });
        self.covered.get_or_create(label).set(covered.sum());
        self.kept.get_or_create(label).set(config.kept.into());
        let unconfirmed = config.loss.as_ref().filter(|loss| loss.holds());
        self.missing.get_or_create(label).set(unconfirmed.map_or(0, |loss| loss.missing.into()));
        self.frozen.get_or_create(label).set(config.freeze.is_some().into());
        for known in &config.backoffs {
            let kind = match known.kind {
                BackoffKind::Provider(kind) => kind.as_str().to_owned(),
                BackoffKind::Directory(kind) => format!("directory_{}", kind.as_str()),
                BackoffKind::Boot => "boot".to_owned(),
            };
            let label = OfKind { pool: label.pool.clone(), config: label.config.clone(), kind };
            self.failures.get_or_create(&label).set(known.backoff.failures.into());
        }
    }
}
