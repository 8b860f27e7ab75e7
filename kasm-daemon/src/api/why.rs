//! What was decided, and why.

use axum::Json;
use axum::extract::{Path, State};
use kasm_autoscale_core::pool::Pool;
use kasm_autoscale_core::report::{BackoffReport, CleanupReport, ConfigReport, PhaseCounts, Supply};
use kasm_autoscale_core::row::{Freeze, MassLoss};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::App;
use super::body::Params;
use super::error::{ApiError, ErrorBody};
use super::servers::PAGE_MAX;
use super::words::told;
use crate::clock::rfc3339;
use crate::driver::PoolHandle;
use crate::store::StoredEvent;

/// How many of the last events are shown unless the caller says otherwise.
const EVENTS: u32 = 50;

/// How a pool stands, and why it last did or did not act.
#[derive(Debug, Serialize, ToSchema)]
pub struct WhyView {
    /// The pool.
    pub pool: String,
    /// When this was so.
    #[schema(format = DateTime)]
    pub at: String,
    /// Requests that wait.
    pub waiting: u32,
    /// Sessions that are active.
    pub sessions: u32,
    /// Its configs, those on their way out included.
    pub configs: Vec<ConfigWhy>,
    /// Machines with our mark that no server knows. They are deleted when a second look shows them again.
    pub orphans: Vec<String>,
    /// Computer objects with our mark that no server knows. They are removed when a second look shows them again.
    pub orphan_computers: Vec<String>,
    /// The latest events, the latest first.
    pub events: Vec<EventView>,
}

/// How a config stands, and what it last decided.
#[derive(Debug, Serialize, ToSchema)]
pub struct ConfigWhy {
    /// Its name.
    pub config: String,
    /// Whether it is enabled.
    pub enabled: bool,
    /// Whether it is on its way out.
    pub removed: bool,
    /// Its zone.
    pub zone: String,
    /// Its provider.
    pub provider: String,
    /// Its edition.
    pub generation: u32,
    /// Its servers by phase.
    pub servers: PhasesView,
    /// Active sessions on them.
    pub sessions: u32,
    /// What there is against what there is to be.
    pub supply: SupplyView,
    /// What it last decided.
    pub decision: DecisionView,
    /// For which configs that cannot make what they promise it keeps sessions free, and which ones do so for it.
    pub fallback: Vec<FallbackView>,
    /// Machines that its listings miss, too many at once to be believed. Nothing is deleted until they are seen again, or until
    /// `acknowledge-loss` says that they are lost.
    pub loss: Option<LossView>,
    /// An invariant that does not hold. Nothing is made for this config and nothing of it is deleted, until `lift-freeze`.
    pub freeze: Option<FreezeView>,
    /// Machines of failed servers that are kept for diagnosis.
    pub kept: u32,
    /// What it backs off from.
    pub backoffs: Vec<BackoffView>,
    /// Servers born with an earlier edition of the config.
    pub out_of_date: Vec<String>,
    /// Computer objects that could not be removed so far.
    pub cleanups: Vec<CleanupView>,
}

/// Servers by phase.
#[derive(Debug, Serialize, ToSchema)]
pub struct PhasesView {
    /// Waiting for their computer objects.
    pub enrolling: u32,
    /// Being asked for.
    pub creating: u32,
    /// Booting.
    pub starting: u32,
    /// Ready for users.
    pub ready: u32,
    /// Taking no new sessions.
    pub draining: u32,
    /// Being deleted.
    pub deleting: u32,
    /// Their computer objects are being removed.
    pub unenrolling: u32,
}

impl From<PhaseCounts> for PhasesView {
    fn from(counts: PhaseCounts) -> Self {
        let PhaseCounts { enrolling, creating, starting, ready, draining, deleting, unenrolling } = counts;
        Self { enrolling, creating, starting, ready, draining, deleting, unenrolling }
    }
}

/// The sessions of a config.
#[derive(Debug, Serialize, ToSchema)]
pub struct SupplyView {
    /// Free on servers that are ready.
    pub free: u32,
    /// To be brought by servers which are being made.
    pub coming: u32,
    /// How many are to be free.
    pub target: u32,
}

impl From<Supply> for SupplyView {
    fn from(supply: Supply) -> Self {
        Self { free: supply.free, coming: supply.coming, target: supply.target }
    }
}

/// A decision.
#[derive(Debug, Serialize, ToSchema)]
pub struct DecisionView {
    /// When the config came to it.
    #[schema(format = DateTime)]
    pub at: String,
    /// For people.
    pub words: String,
    /// For programs: an object whose `decision` names its kind, with the numbers beside it.
    #[schema(value_type = Object)]
    pub value: Value,
}

/// How a config and another one stand in for each other.
#[derive(Debug, Serialize, ToSchema)]
pub struct FallbackView {
    /// For people.
    pub words: String,
    /// For programs: an object whose `fallback` is `covering_for` or `covered_by`, with the other config and the sessions.
    #[schema(value_type = Object)]
    pub value: Value,
}

/// Machines that are missing from the listings, too many at once to be believed.
#[derive(Debug, Serialize, ToSchema)]
pub struct LossView {
    /// For people.
    pub words: String,
    /// Whose listings miss them.
    pub provider: String,
    /// Since when.
    #[schema(format = DateTime)]
    pub since: String,
    /// How many the last complete listing missed.
    pub missing: u32,
    /// Of how many.
    pub of: u32,
    /// Whether an operator has said that they are lost.
    pub acknowledged: bool,
}

impl From<MassLoss> for LossView {
    fn from(loss: MassLoss) -> Self {
        Self {
            words: loss.to_string(),
            provider: loss.provider.to_string(),
            since: rfc3339(loss.since),
            missing: loss.missing,
            of: loss.of,
            acknowledged: loss.acknowledged,
        }
    }
}

/// An invariant that does not hold: a bug, or rows that somebody has changed.
#[derive(Debug, Serialize, ToSchema)]
pub struct FreezeView {
    /// For people.
    pub words: String,
    /// Since when.
    #[schema(format = DateTime)]
    pub since: String,
    /// The invariant, by its number where it has one.
    pub invariant: String,
    /// What was found: rows and numbers.
    pub found: String,
}

impl From<Freeze> for FreezeView {
    fn from(freeze: Freeze) -> Self {
        let (words, _) = told(&freeze);
        Self { words, since: rfc3339(freeze.since), invariant: freeze.invariant, found: freeze.found }
    }
}

/// Failures that a config backs off from.
#[derive(Debug, Serialize, ToSchema)]
pub struct BackoffView {
    /// What kind, in words.
    pub kind: String,
    /// How many failed in a row.
    pub failures: u32,
    /// When the last one did.
    #[schema(format = DateTime)]
    pub since: String,
    /// No further try before this.
    #[schema(format = DateTime)]
    pub until: String,
    /// The last error.
    pub error: String,
}

impl From<BackoffReport> for BackoffView {
    fn from(report: BackoffReport) -> Self {
        let backoff = report.backoff;
        Self {
            kind: report.kind.to_string(),
            failures: backoff.failures,
            since: rfc3339(backoff.since),
            until: rfc3339(backoff.until),
            error: backoff.error,
        }
    }
}

/// A computer object that could not be removed so far. Its server counts until it is.
#[derive(Debug, Serialize, ToSchema)]
pub struct CleanupView {
    /// The server. Its machine is gone.
    pub server: String,
    /// The object, as the directory calls it; `null`: it is looked for.
    pub computer: Option<String>,
    /// How many tries failed.
    pub tries: u32,
    /// When the next one is made.
    #[schema(format = DateTime)]
    pub next_at: String,
    /// What kind of failure the last one was.
    pub kind: String,
    /// The directory's words.
    pub error: String,
    /// What to do about it, where somebody must.
    pub remedy: Option<String>,
}

impl From<CleanupReport> for CleanupView {
    fn from(report: CleanupReport) -> Self {
        Self {
            server: report.server.to_string(),
            computer: report.computer.as_ref().map(ToString::to_string),
            tries: report.tries,
            next_at: rfc3339(report.next_at),
            kind: report.kind.to_string(),
            remedy: report.remedy().map(Into::into),
            error: report.error,
        }
    }
}

/// Something that happened.
#[derive(Debug, Serialize, ToSchema)]
pub struct EventView {
    /// Its number, rising with time.
    pub number: i64,
    /// When.
    #[schema(format = DateTime)]
    pub at: String,
    /// For people.
    pub words: String,
    /// For programs: an object whose `event` names its kind, with the facts beside it.
    #[schema(value_type = Object)]
    pub value: Value,
}

impl From<StoredEvent> for EventView {
    fn from(stored: StoredEvent) -> Self {
        let (words, value) = told(&stored.event.what);
        Self { number: stored.number, at: rfc3339(stored.event.at), words, value }
    }
}

/// Some events of a pool.
#[derive(Debug, Serialize, ToSchema)]
pub struct EventList {
    /// The latest first.
    pub events: Vec<EventView>,
    /// The `before` of the next page, if there may be one.
    pub next: Option<i64>,
}

impl From<ConfigReport> for ConfigWhy {
    fn from(report: ConfigReport) -> Self {
        let (words, value) = told(&report.decision);
        Self {
            config: report.config.to_string(),
            enabled: report.enabled,
            removed: report.removed,
            zone: report.zone.to_string(),
            provider: report.provider.to_string(),
            generation: report.generation,
            servers: report.servers.into(),
            sessions: report.sessions,
            supply: report.supply.into(),
            decision: DecisionView { at: rfc3339(report.decided_at), words, value },
            fallback: report.fallback.iter().map(told).map(|(words, value)| FallbackView { words, value }).collect(),
            loss: report.loss.map(LossView::from),
            freeze: report.freeze.map(FreezeView::from),
            kept: report.kept,
            backoffs: report.backoffs.into_iter().map(BackoffView::from).collect(),
            out_of_date: report.out_of_date.iter().map(ToString::to_string).collect(),
            cleanups: report.cleanups.into_iter().map(CleanupView::from).collect(),
        }
    }
}

async fn stored(app: &App, pool: &PoolHandle, before: Option<i64>, limit: u32) -> Result<Vec<EventView>, ApiError> {
    let events = app.host().world().store.events(pool.id(), before, limit).await?;
    Ok(events.into_iter().map(EventView::from).collect())
}

/// Why a pool does what it does
#[utoipa::path(get, path = "/v1/pools/{pool}/why", tag = "decisions",
    params(
        ("pool" = String, Path, description = "The pool's name."),
        ("limit" = Option<u32>, Query, minimum = 0, maximum = 1000, description = "How many of the latest events; 50 unless said otherwise."),
    ),
    responses(
        (status = 200, description = "The pool's report.", body = WhyView),
        (status = 404, description = "There is no such pool.", body = ErrorBody),
        (status = 422, description = "A parameter has a mistake.", body = ErrorBody),
    ))]
pub(super) async fn why(
    State(app): State<App>,
    Path(pool): Path<String>,
    mut params: Params,
) -> Result<Json<WhyView>, ApiError> {
    let limit = params.integer("limit", 0..=PAGE_MAX).unwrap_or(EVENTS);
    params.finish()?;
    let pool = app.pool(&pool)?;
    let report = app.look(&pool, Pool::report).await?;
    let at = rfc3339(app.host().world().clock.now());
    Ok(Json(WhyView {
        pool: report.pool.to_string(),
        at,
        waiting: report.waiting,
        sessions: report.sessions,
        configs: report.configs.into_iter().map(ConfigWhy::from).collect(),
        orphans: report.orphans.iter().map(ToString::to_string).collect(),
        orphan_computers: report.orphan_computers.iter().map(ToString::to_string).collect(),
        events: stored(&app, &pool, None, limit).await?,
    }))
}

/// What happened in a pool
#[utoipa::path(get, path = "/v1/pools/{pool}/events", tag = "decisions",
    params(
        ("pool" = String, Path, description = "The pool's name."),
        ("before" = Option<i64>, Query, description = "Only those with a lower number: the `next` of the page before."),
        ("limit" = Option<u32>, Query, minimum = 1, maximum = 1000, description = "How many at most; 50 unless said otherwise."),
    ),
    responses(
        (status = 200, description = "The events.", body = EventList),
        (status = 404, description = "There is no such pool.", body = ErrorBody),
        (status = 422, description = "A parameter has a mistake.", body = ErrorBody),
    ))]
pub(super) async fn events(
    State(app): State<App>,
    Path(pool): Path<String>,
    mut params: Params,
) -> Result<Json<EventList>, ApiError> {
    let before = params.number("before");
    let limit = params.integer("limit", 1..=PAGE_MAX).unwrap_or(EVENTS);
    params.finish()?;
    let pool = app.pool(&pool)?;
    let events = stored(&app, &pool, before, limit).await?;
    let full = u32::try_from(events.len()).is_ok_and(|count| count == limit);
    let next = events.last().map(|event| event.number).filter(|_| full);
    Ok(Json(EventList { events, next }))
}
