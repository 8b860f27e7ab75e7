//! Calls to Azure Resource Manager: one request, one answer. No retries but one for a token that has expired, no waiting.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use azure_core::http::headers::HeaderName;
use azure_core::http::{Context, Method, Pipeline, PipelineSendOptions, RawResponse, Request, Url};
use kasm_autoscale_core::ports::{Certainty, ErrorKind, ProviderError};
use serde_json::Value;
use tokio::time::Instant;

use super::credentials::Renewable;
use super::failure::{Effect, answered, timeout, unanswered, unreadable};
use super::operation::trusted;
use super::pace::{Pace, Verb};

/// The versions of the APIs that are spoken.
pub(super) const COMPUTE: &str = "2024-03-01";
pub(super) const DISKS: &str = "2023-10-02";
pub(super) const NETWORK: &str = "2024-01-01";

/// The most pages of one list. A machine costs money every hour, so there are not that many.
const PAGES_MAX: usize = 1000;

/// Azure Resource Manager, as one subscription reaches it.
pub(super) struct Arm {
    pub(super) pipeline: Pipeline,
    pub(super) credential: Arc<Renewable>,
    pub(super) endpoint: Url,
    pub(super) request_timeout: Duration,
    pub(super) pace: Mutex<Pace>,
    /// Secrets of the provider's own, which no error may repeat.
    pub(super) hidden: Vec<secrecy::SecretString>,
}

/// A call.
#[derive(Clone, Copy)]
pub(super) struct Call<'a> {
    /// Its name in Azure's list of rights, for the log.
    pub(super) operation: &'static str,
    /// The server, pool or machine that it is about.
    pub(super) about: &'a (dyn fmt::Display + Sync),
    pub(super) method: Method,
    pub(super) url: &'a Url,
    pub(super) body: Option<&'a str>,
    /// Whether it may only make what is not there yet.
    pub(super) create_only: bool,
    /// What its errors must not repeat.
    pub(super) hidden: &'a [&'a str],
}

/// An answer.
#[derive(Clone, Debug, Default)]
pub(super) struct Answer {
    pub(super) status: u16,
    /// `null` for an answer without a body, or one that is not JSON.
    pub(super) body: Value,
    /// `Azure-AsyncOperation`.
    pub(super) operation: Option<String>,
    pub(super) location: Option<String>,
    pub(super) retry_after: Option<Duration>,
    pub(super) request_id: Option<String>,
}

/// A call that did not succeed.
#[derive(Debug)]
pub(super) struct Failed {
    /// The HTTP status, if there was an answer.
    pub(super) status: Option<u16>,
    pub(super) error: ProviderError,
}

impl Failed {
    pub(super) fn is_absent(&self) -> bool {
        self.status == Some(404)
    }
}

impl From<Failed> for ProviderError {
    fn from(failed: Failed) -> Self {
        failed.error
    }
}

impl Call<'_> {
    fn verb(&self) -> Verb {
        match self.method {
            Method::Get | Method::Head => Verb::Read,
            Method::Delete => Verb::Delete,
            _ => Verb::Write,
        }
    }

    pub(super) fn effect(&self) -> Effect {
        if self.verb() == Verb::Read { Effect::Reads } else { Effect::Changes }
    }
}

impl Arm {
    pub(super) fn pace(&self) -> MutexGuard<'_, Pace> {
        // A panic leaves at worst a wait that is too short.
        self.pace.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The address of something below the endpoint.
    pub(super) fn url(&self, path: &str, version: &str, more: &[(&str, &str)]) -> Url {
        let mut url = self.endpoint.clone();
        url.set_path(path);
        url.query_pairs_mut().append_pair("api-version", version).extend_pairs(more);
        url
    }

    /// Sends a request and waits for its answer.
    pub(super) async fn call(&self, call: Call<'_>) -> Result<Answer, Failed> {
        let started = Instant::now();
        let wait = self.pace().wait(call.verb(), started);
        let result = match wait {
            Some(wait) => Err(Failed { status: None, error: held_back(wait) }),
            None => self.sent(call).await,
        };
        let milliseconds = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
        let Call { operation, about, .. } = call;
        match &result {
            Ok(answer) => {
                let request_id = answer.request_id.as_deref();
                tracing::debug!(operation, %about, milliseconds, outcome = "ok", status = answer.status, request_id);
            }
            Err(Failed { error, .. }) => {
                let request_id = error.request_id.as_deref();
                tracing::debug!(operation, %about, milliseconds, outcome = %error.kind, code = error.code, request_id);
            }
        }
        result
    }

    async fn sent(&self, call: Call<'_>) -> Result<Answer, Failed> {
        let hidden: Vec<&str> =
            self.hidden.iter().map(secrecy::ExposeSecret::expose_secret).chain(call.hidden.iter().copied()).collect();
        let mut answer = self.once(call, &hidden).await?;
        let is_expired = |answer: &Answer| {
            let code = answer.body.pointer("/error/code").and_then(Value::as_str);
            answer.status == 401 && matches!(code, Some("ExpiredAuthenticationToken" | "InvalidAuthenticationToken"))
        };
        if is_expired(&answer) {
            // Refused at the door: with a new token, the same request may pass.
            self.credential.renew();
            answer = self.once(call, &hidden).await?;
        }
        if (200..300).contains(&answer.status) {
            return Ok(answer);
        }
        let error = answered(&answer, call.effect(), &hidden);
        if let (ErrorKind::Throttled, Some(wait)) = (error.kind, error.retry_after) {
            self.pace().hold(call.verb(), wait, Instant::now());
        }
        Err(Failed { status: Some(answer.status), error })
    }

    async fn once(&self, call: Call<'_>, hidden: &[&str]) -> Result<Answer, Failed> {
        let mut request = Request::new(call.url.clone(), call.method);
        if let Some(body) = call.body {
            request.insert_header("content-type", "application/json");
            request.set_body(body.to_owned());
        }
        if call.create_only {
            request.insert_header("if-none-match", "*");
        }
        let context = Context::new();
        let options = PipelineSendOptions { skip_checks: true, ..PipelineSendOptions::default() };
        let sending = self.pipeline.send(&context, &mut request, Some(options));
        let response = match tokio::time::timeout(self.request_timeout, sending).await {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => return Err(Failed { status: None, error: unanswered(&error, call.effect(), hidden) }),
            Err(_) => return Err(Failed { status: None, error: timeout(call.effect()) }),
        };
        self.note(call.verb(), &response);
        Ok(Answer::of(&response))
    }

    fn note(&self, verb: Verb, response: &RawResponse) {
        let left = match verb {
            Verb::Read => "x-ms-ratelimit-remaining-subscription-reads",
            Verb::Write => "x-ms-ratelimit-remaining-subscription-writes",
            Verb::Delete => "x-ms-ratelimit-remaining-subscription-deletes",
        };
        let left = header(response, left).and_then(|text| text.parse().ok());
        let resource = header(response, "x-ms-ratelimit-remaining-resource");
        self.pace().note(verb, left, resource, Instant::now());
    }

    /// Something that is there, as an object; `None` if Azure says that it is not.
    pub(super) async fn get(&self, call: Call<'_>) -> Result<Option<Value>, ProviderError> {
        match self.call(call).await {
            Ok(answer) if answer.body.is_object() => Ok(Some(answer.body)),
            Ok(answer) => Err(unreadable(&answer, Effect::Reads)),
            // A missing group is no missing machine: everything in it would be taken for gone.
            Err(failed) if failed.is_absent() && failed.error.code.ends_with("ResourceNotFound") => Ok(None),
            Err(failed) if failed.is_absent() && failed.error.code == "NotFound" => Ok(None),
            Err(failed) => Err(failed.error),
        }
    }

    /// All items of a list, page by page. An error on any page is an error of the whole.
    pub(super) async fn list(&self, call: Call<'_>) -> Result<Vec<Value>, ProviderError> {
        let mut items = Vec::new();
        let mut url = call.url.clone();
        for _ in 0..PAGES_MAX {
            let answer = self.call(Call { url: &url, ..call }).await?;
            let Some(Value::Array(page)) = answer.body.get("value") else {
                return Err(unreadable(&answer, Effect::Reads));
            };
            items.extend(page.iter().cloned());
            let next = answer.body.get("nextLink").and_then(Value::as_str).filter(|next| !next.is_empty());
            let Some(next) = next else { return Ok(items) };
            match trusted(next, &self.endpoint) {
                Some(next) if next != url => url = next,
                Some(_) => return Err(odd_list("RepeatedPage", "Azure gave the same page of a list twice")),
                None => return Err(odd_list("ForeignPage", "Azure named a next page that is not its own")),
            }
        }
        Err(odd_list("EndlessList", "Azure gave a list without an end"))
    }
}

fn odd_list(code: &str, message: &str) -> ProviderError {
    ProviderError::new(ErrorKind::Transient, Certainty::NotApplied, code, message)
}

fn held_back(wait: Duration) -> ProviderError {
    let message = "Azure asked for fewer calls; this one was not made";
    let error = ProviderError::new(ErrorKind::Throttled, Certainty::NotApplied, "HeldBack", message);
    ProviderError { retry_after: Some(wait), ..error }
}

fn header<'a>(response: &'a RawResponse, name: &'static str) -> Option<&'a str> {
    response.headers().get_optional_str(&HeaderName::from_static(name))
}

impl Answer {
    pub(super) fn of(response: &RawResponse) -> Self {
        let owned = |name| header(response, name).map(ToOwned::to_owned);
        let seconds = header(response, "retry-after").and_then(|text| text.trim().parse().ok());
        Self {
            status: response.status().into(),
            body: serde_json::from_slice(response.body().as_ref()).unwrap_or_default(),
            operation: owned("azure-asyncoperation"),
            location: owned("location"),
            retry_after: seconds.map(Duration::from_secs),
            request_id: owned("x-ms-request-id").filter(|id| id.len() <= 100),
        }
    }
}
