//! The audit log, for those who answer for everybody else.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use kasm_autoscale_core::config::Problem;
use serde::Serialize;
use utoipa::ToSchema;

use super::App;
use super::body::Params;
use super::error::{ApiError, ErrorBody};
use super::servers::{PAGE, PAGE_MAX};
use crate::clock::{from_rfc3339, rfc3339};
use crate::trail::{Entry, Kind, Sealed, Who};

/// How many entries are read at once, so that steps that are to be saved do not wait for long.
const CHUNK: u32 = 500;
/// How many entries are looked through for a page at most.
const LOOKED_MAX: u32 = 20 * CHUNK;

/// Who called.
#[derive(Debug, Serialize, ToSchema)]
pub struct CallerView {
    /// The token's name, or the user's; empty where no token is asked for.
    pub name: String,
    /// What he may do.
    pub role: String,
    /// The first 16 digits of his token's SHA-256.
    pub token: Option<String>,
}

impl From<Who> for CallerView {
    fn from(who: Who) -> Self {
        Self { name: who.name, role: who.role, token: who.token }
    }
}

/// An entry of the audit log.
#[derive(Debug, Serialize, ToSchema)]
pub struct AuditView {
    /// Its number, 1 more than that of the entry before.
    pub number: i64,
    /// The first 16 digits of its MAC, as in the heads that the daemon's log tells.
    pub mac: String,
    /// `asked` (a call that may change something, before it does), `answered` (how it ended), `told` (a call that was answered
    /// with a secret, logins included), `refused` (a call that was turned away), `started`, `stopped`; `unreadable` for what
    /// this version did not write.
    pub kind: String,
    /// When.
    #[schema(format = DateTime)]
    pub at: String,
    /// The request's id. An `answered` belongs to the `asked` with the same one.
    pub request: Option<String>,
    /// Who called. Strangers have none; where a call succeeded it stands in its `asked` alone.
    pub caller: Option<CallerView>,
    /// The address that the call came from.
    pub from: Option<String>,
    /// The HTTP method.
    pub method: Option<String>,
    /// The route, with parameters in braces.
    pub route: Option<String>,
    /// What the call was about, as in `pool`, `config`, `server`, `session`, `workspace`, `user`; `made` is the place of what was
    /// made. `hmac:` stands before the HMAC of a name that named nothing.
    pub object: BTreeMap<String, String>,
    /// The HMAC of query and body: equal ones were equal.
    pub digest: Option<String>,
    /// The query, where the call succeeded.
    pub query: Option<String>,
    /// The HMAC of a token that is not accepted.
    pub unknown_token: Option<String>,
    /// The status of the answer.
    pub status: Option<u16>,
    /// The code of the error, where it was one.
    pub code: Option<String>,
    /// Whether the answer held a password or a token.
    pub secret: bool,
    /// How many refused calls were not written since the entry before, because there were too many.
    pub left_out: u64,
}

impl AuditView {
    fn of(sealed: &Sealed, entry: Entry) -> Self {
        let said = |text: String| (!text.is_empty()).then_some(text);
        let head = sealed.head.to_string();
        Self {
            number: sealed.head.number,
            mac: head.rsplit(':').next().unwrap_or_default().into(),
            kind: entry.kind.as_str().into(),
            at: entry.at,
            request: said(entry.request),
            caller: entry.caller.map(CallerView::from),
            from: entry.from.map(|address| address.to_string()),
            method: said(entry.method),
            route: said(entry.route),
            object: entry.object,
            digest: entry.digest,
            query: entry.query,
            unknown_token: entry.unknown_token,
            status: entry.status,
            code: entry.code,
            secret: entry.secret,
            left_out: entry.left_out,
        }
    }
}

/// Some entries of the audit log.
#[derive(Debug, Serialize, ToSchema)]
pub struct AuditList {
    /// The latest first.
    pub entries: Vec<AuditView>,
    /// The `before` of the next page, if there may be one. A page may be short, or empty, and have one: only so many entries
    /// are looked through at once.
    pub next: Option<i64>,
}

/// What is looked for.
struct Wanted {
    caller: Option<String>,
    pool: Option<String>,
    since: Option<String>,
}

impl Wanted {
    fn is(&self, entry: &Entry) -> bool {
        let of_caller = |name: &String| entry.caller.as_ref().is_some_and(|who| who.name == *name);
        let of_pool = |pool: &String| {
            let made = format!("/v1/pools/{pool}");
            let place = entry.object.get("made");
            entry.object.get("pool") == Some(pool)
                || place.is_some_and(|place| *place == made || place.starts_with(&format!("{made}/")))
        };
        self.caller.as_ref().is_none_or(of_caller) && self.pool.as_ref().is_none_or(of_pool)
    }
}

/// Who asked for what
///
/// Every call that may change something, before it does and when it is answered; every answer that held a secret; logins; calls
/// that were turned away. `kasm-daemon audit` verifies that nothing in it was changed.
#[utoipa::path(get, path = "/v1/audit", tag = "audit",
    params(
        ("caller" = Option<String>, Query, description = "Only what this token or user asked for."),
        ("pool" = Option<String>, Query, description = "Only what was about this pool."),
        ("since" = Option<String>, Query, description = "Only what is not older, as in `2027-01-31T08:00:00Z`."),
        ("before" = Option<i64>, Query, description = "Only those with a lower number: the `next` of the page before."),
        ("limit" = Option<u32>, Query, minimum = 1, maximum = 1000, description = "How many at most; 100 unless said otherwise."),
    ),
    responses(
        (status = 200, description = "The entries.", body = AuditList),
        (status = 422, description = "A parameter has a mistake.", body = ErrorBody),
    ))]
pub(super) async fn list_audit_log(State(app): State<App>, mut params: Params) -> Result<Json<AuditList>, ApiError> {
    let (caller, pool) = (params.text("caller"), params.text("pool"));
    let since = params.text("since");
    let before = params.number("before");
    let limit = params.integer("limit", 1..=PAGE_MAX).unwrap_or(PAGE);
    params.finish()?;
    let since = match since.map(|text| from_rfc3339(&text).ok_or(text)) {
        None => None,
        Some(Ok(at)) => Some(rfc3339(at)),
        Some(Err(text)) => {
            let allowed = "an instant in RFC 3339, as in 2027-01-31T08:00:00Z";
            return Err(ApiError::invalid(vec![Problem::new("?since", super::words::shown(&text), allowed)]));
        }
    };
    page(&app, &Wanted { caller, pool, since }, before, limit).await.map(Json)
}

async fn page(app: &App, wanted: &Wanted, before: Option<i64>, limit: u32) -> Result<AuditList, ApiError> {
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let (mut entries, mut next, mut looked) = (vec![], before, 0);
    while looked < LOOKED_MAX {
        let chunk = app.trail().entries(next, CHUNK).await?;
        let is_last = u32::try_from(chunk.len()).is_ok_and(|count| count < CHUNK);
        for sealed in &chunk {
            next = Some(sealed.head.number);
            match Entry::read(&sealed.text) {
                // All are written alike, so that their order as texts is that of time.
                Ok(entry) if wanted.since.as_ref().is_some_and(|since| entry.at < *since) => {
                    return Ok(AuditList { entries, next: None });
                }
                Ok(entry) if wanted.is(&entry) => entries.push(AuditView::of(sealed, entry)),
                Ok(_) => {}
                // A hand in the store: nobody can say whether it is wanted, and it must not hide the others.
                Err(_) => entries
                    .push(AuditView { kind: "unreadable".into(), ..AuditView::of(sealed, Entry::new(Kind::Asked)) }),
            }
            if entries.len() >= limit {
                return Ok(AuditList { entries, next });
            }
        }
        if is_last {
            return Ok(AuditList { entries, next: None });
        }
        looked += CHUNK;
    }
    Ok(AuditList { entries, next })
}
