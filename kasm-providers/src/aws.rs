//! Machines on AWS EC2.
//!
//! One [`AwsProvider`] is one account in one region. Its calls are RunInstances, DescribeInstances, TerminateInstances
//! and, where root volumes are changed, DescribeImages; a preflight describes what machines are made from, and asks
//! RunInstances for a dry run. `aws/iam-policy.json` is the least policy for them.
//!
//! What EC2 does its own way, and how it is met:
//! - **RunInstances answers before anything runs**, and a launch can still fail then: the machine goes from `pending` to
//!   `terminated` and says why ([`Machine::fault`]).
//! - **The idempotency token** is the server's uuid, and every part of the request is derived from stored values, since EC2
//!   refuses a token that comes with another request. It also refuses one whose machine has been terminated. Both answers
//!   are [`Certainty::Unknown`]: there was a machine, so it is looked up.
//! - **Describe calls lag behind** by seconds, at worst minutes: [`Capabilities::visibility_lag`].
//! - **Terminated machines are shown for about an hour.** [`VmProvider::list`] leaves them out unless they ended by a
//!   failure, whose reason the core should see; [`VmProvider::find`] gives one only if there is no other.
//!
//! Hosts should not let the targets `aws_smithy_runtime` and `aws_smithy_runtime_api` log at level trace: the SDK writes whole
//! requests there, start-up data included.

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use async_trait::async_trait;
use aws_sdk_ec2::Client;
use aws_sdk_ec2::config::Builder;
use aws_sdk_ec2::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_ec2::operation::run_instances::RunInstancesOutput;
use aws_sdk_ec2::types::{Filter, Instance};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use kasm_autoscale_core::fields::{JsonObject, Problem};
use kasm_autoscale_core::id::{DeploymentId, PoolId, ServerKey};
use kasm_autoscale_core::ports::{
    Capabilities, Certainty, ErrorKind, Finding, Listing, Machine, MachineRef, MachineState, OpRef, Progress,
    ProviderError, ServerSpec, VmProvider,
};
use secrecy::{ExposeSecret, SecretString};

mod failure;
mod instances;
mod machine;
mod names;
mod overrides;
mod preflight;
mod request;
mod settings;
mod user_data;

pub use crate::ec2_errors::error_codes;
pub use machine::MachineSettings;
pub use settings::{AddressChoice, AwsCredentials, AwsSettings};
pub use user_data::{Os, USER_DATA_MAX};

use crate::words::parts_to_hide;
use failure::{Effect, failure, refused};
use request::{TAG_DEPLOYMENT, TAG_POOL, TAG_SERVER, tag_key};

/// EC2 in one account and region.
pub struct AwsProvider {
    client: Client,
    settings: AwsSettings,
    deployment: DeploymentId,
    /// The root device of each image seen so far. An image never changes its own.
    root_devices: Mutex<BTreeMap<String, String>>,
}

/// A call, as it is logged.
#[derive(Clone, Copy)]
struct Call<'a> {
    operation: &'static str,
    /// The server, pool or machine that it is about.
    about: &'a (dyn fmt::Display + Sync),
    effect: Effect,
    /// What its errors must not repeat.
    hidden: &'a [&'a str],
}

/// What a request for a machine is sent for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Purpose {
    /// To get one.
    Make,
    /// To hear whether we would: EC2 checks the request and our rights, and makes nothing (API Reference, RunInstances,
    /// `DryRun`).
    Ask,
}

impl AwsProvider {
    /// A provider for the machines of one deployment. It reads the environment and files if the credentials are the SDK's
    /// chain, and asks nobody until the first call.
    ///
    /// # Errors
    ///
    /// Every mistake in the settings.
    pub async fn connect(settings: AwsSettings, deployment: DeploymentId) -> Result<Self, Vec<Problem>> {
        let problems = settings.problems();
        if !problems.is_empty() {
            return Err(problems);
        }
        let client = Client::from_conf(settings.sdk_config().await);
        Ok(Self { client, settings, deployment, root_devices: Mutex::new(BTreeMap::new()) })
    }

    /// Waits for an answer, logs the call and puts an error into the core's terms.
    async fn observed<T, E>(
        &self,
        call: Call<'_>,
        answer: impl Future<Output = Result<T, SdkError<E>>>,
    ) -> Result<T, ProviderError>
    where
        E: ProvideErrorMetadata + Error + 'static,
    {
        #[expect(clippy::disallowed_methods, reason = "for the log alone; nothing is decided by it")]
        let started = Instant::now();
        let answer = answer.await;
        let milliseconds = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
        let Call { operation, about, effect, hidden } = call;
        answer.inspect(|_| tracing::debug!(operation, %about, milliseconds, outcome = "ok")).map_err(|error| {
            let mut hidden = hidden.to_vec();
            if let AwsCredentials::Static { secret_access_key, session_token, .. } = &self.settings.credentials {
                hidden.push(secret_access_key.expose_secret());
                hidden.extend(session_token.as_ref().map(ExposeSecret::expose_secret));
            }
            let error = failure(&error, effect, &hidden);
            let request_id = error.request_id.as_deref();
            tracing::debug!(operation, %about, milliseconds, outcome = %error.kind, code = error.code, request_id);
            error
        })
    }

    /// The device name of an image's root volume, without which a size would make a second volume.
    async fn root_device(&self, ami: &str) -> Result<String, ProviderError> {
        if let Some(device) = self.root_devices.lock().unwrap_or_else(PoisonError::into_inner).get(ami) {
            return Ok(device.clone());
        }
        let request = self.client.describe_images().image_ids(ami).customize();
        let request = request.config_override(Builder::new().timeout_config(self.settings.brief_timeouts()));
        let call = Call { operation: "DescribeImages", about: &ami, effect: Effect::Reads, hidden: &[] };
        let images = self.observed(call, request.send()).await?;
        let image = images.images().iter().find(|image| image.image_id() == Some(ami));
        let device = image.and_then(|image| image.root_device_name()).filter(|name| !name.is_empty());
        let Some(device) = device else {
            return Err(refused(
                "InvalidAMIID.NotFound",
                &format!("EC2 names no root device of image {ami}; set root_device_name"),
            ));
        };
        let mut known = self.root_devices.lock().unwrap_or_else(PoisonError::into_inner);
        known.insert(ami.to_owned(), device.to_owned());
        Ok(device.to_owned())
    }

    /// Sends the request for a machine, or asks by the very same request what would come of it.
    async fn launch(
        &self,
        spec: &ServerSpec,
        settings: &MachineSettings,
        purpose: Purpose,
    ) -> Result<RunInstancesOutput, ProviderError> {
        let (user_data, clear) = user_data_of(spec, settings.os())?.unzip();
        let root_device = match (&settings.ebs, &settings.root_device_name) {
            (None, _) => None,
            (Some(_), Some(device)) => Some(device.clone()),
            (Some(_), None) => Some(self.root_device(&settings.ami).await?),
        };
        let mut hidden: Vec<&str> = user_data.iter().map(String::as_str).collect();
        hidden.extend(clear.as_deref().map(parts_to_hide).unwrap_or_default());
        let request = request::run_instances(&self.client, spec, settings, user_data.clone(), root_device);
        let request = request.set_dry_run((purpose == Purpose::Ask).then_some(true));
        let overrides = settings.overrides.clone();
        // Interceptors of this kind run before the request is signed.
        let request = request.customize().map_request(move |mut request| {
            let body = request.body().bytes().and_then(|bytes| str::from_utf8(bytes).ok());
            let body =
                overrides.apply(body.ok_or_else(|| std::io::Error::other("the SDK wrote a body that is no text"))?);
            request.headers_mut().insert("content-length", body.len().to_string());
            *request.body_mut() = body.into();
            Ok::<_, std::io::Error>(request)
        });
        let effect = if purpose == Purpose::Ask { Effect::Reads } else { Effect::Changes };
        let call = Call { operation: "RunInstances", about: &spec.server, effect, hidden: &hidden };
        self.observed(call, request.send()).await
    }

    /// All instances with our mark and this tag, page by page. An error on any page is an error of the whole.
    async fn marked(
        &self,
        tag: &str,
        value: &str,
        more: Option<Filter>,
        about: &(dyn fmt::Display + Sync),
    ) -> Result<Vec<Instance>, ProviderError> {
        let about = about.to_string();
        let deployment = self.deployment.to_string();
        let mut filters = vec![tag_filter(TAG_DEPLOYMENT, &deployment), tag_filter(tag, value)];
        filters.extend(more);
        let mut instances = Vec::new();
        let mut next: Option<String> = None;
        loop {
            let request = self.client.describe_instances().set_filters(Some(filters.clone()));
            let request = request.max_results(i32::from(self.settings.page_size)).set_next_token(next.clone());
            let call = Call { operation: "DescribeInstances", about: &about, effect: Effect::Reads, hidden: &[] };
            let page = self.observed(call, request.send()).await?;
            let token = page.next_token().filter(|token| !token.is_empty()).map(ToOwned::to_owned);
            instances.extend(
                page.reservations.unwrap_or_default().into_iter().flat_map(|one| one.instances.unwrap_or_default()),
            );
            if token.is_none() {
                return Ok(instances);
            }
            if token == next {
                let message = "EC2 gave the same page of machines twice";
                return Err(ProviderError::new(ErrorKind::Transient, Certainty::NotApplied, "RepeatedPage", message));
            }
            next = token;
        }
    }

    fn machine(&self, instance: &Instance) -> Option<Machine> {
        instances::machine(instance, self.settings.address)
    }
}

fn tag_filter(end: &str, value: &str) -> Filter {
    Filter::builder().name(format!("tag:{}", tag_key(end))).values(value).build()
}

/// The settings in a spec, which were checked when the config was made; a newer version may have stricter rules.
fn settings_of(spec: &ServerSpec) -> Result<MachineSettings, ProviderError> {
    MachineSettings::from_json(&spec.machine).map_err(|problems| {
        let problems: Vec<String> = problems.iter().map(ToString::to_string).collect();
        refused("InvalidMachineSettings", &problems.join("; "))
    })
}

/// The user data in base64, and in clear, so that errors can be searched for it.
fn user_data_of(spec: &ServerSpec, os: Os) -> Result<Option<(String, String)>, ProviderError> {
    let script = spec.user_data.as_ref().map(SecretString::expose_secret).filter(|text| !text.is_empty());
    let Some(script) = script else { return Ok(None) };
    let text = user_data::carried(script, os);
    if text.len() > USER_DATA_MAX {
        return Err(refused("UserDataTooLarge", &too_large(text.len())));
    }
    Ok(Some((BASE64_STANDARD.encode(text.as_bytes()), text.into_owned())))
}

fn too_large(bytes: usize) -> String {
    format!("the startup script has {bytes} bytes as EC2 carries it; at most {USER_DATA_MAX} are allowed")
}

#[async_trait]
impl VmProvider for AwsProvider {
    fn describe(&self) -> Capabilities {
        Capabilities {
            kind: "aws",
            visibility_lag: self.settings.visibility_lag,
            poll_busy: self.settings.poll_busy,
            poll_idle: self.settings.poll_idle,
            creates_in_flight_max: self.settings.creates_in_flight_max,
            call_timeout: self.settings.call_timeout,
            // An override may ask for a zone or for spot machines.
            offering: &["instance_type", "subnet_id", "overrides"],
        }
    }

    fn check(&self, machine: &JsonObject, user_data_bytes: usize) -> Vec<Problem> {
        let (os, mut problems) = match MachineSettings::from_json(machine) {
            Ok(settings) => (settings.os(), Vec::new()),
            Err(problems) => (Os::Windows, problems),
        };
        // Whether the script brings its own tags is not known here, so they are counted.
        let bytes = user_data::carried_bytes_max(user_data_bytes, os);
        if bytes > USER_DATA_MAX {
            problems.push(Problem::new("startup_script", format!("up to {bytes} bytes"), too_large(bytes)));
        }
        problems
    }

    async fn preflight(&self, machine: &JsonObject) -> Result<Vec<Finding>, ProviderError> {
        preflight::preflight(self, machine).await
    }

    async fn create(&self, spec: &ServerSpec) -> Result<Progress, ProviderError> {
        if spec.marker.deployment != self.deployment {
            return Err(refused("WrongDeployment", "the server belongs to another deployment than this provider"));
        }
        let settings = settings_of(spec)?;
        let answer = self.launch(spec, &settings, Purpose::Make).await?;
        match answer.instances().iter().find_map(|instance| instance.instance_id()) {
            Some(id) => Ok(Progress::Pending { machine: Some(MachineRef(id.to_owned())), op: None }),
            None => {
                let message = "EC2 accepted the launch but named no instance";
                Err(ProviderError::new(ErrorKind::Transient, Certainty::Unknown, "NoInstance", message))
            }
        }
    }

    async fn poll(&self, _op: &OpRef) -> Result<Progress, ProviderError> {
        Err(refused("Unsupported", "EC2 has no operations to poll: the machine itself shows how far it is"))
    }

    async fn find(&self, server: &ServerKey) -> Result<Option<Machine>, ProviderError> {
        let pool = tag_filter(TAG_POOL, &server.pool.to_string());
        let mut instances = self.marked(TAG_SERVER, &server.uuid(), Some(pool), server).await?;
        // The oldest of two, should there ever be two: the core sees the other one in its lists.
        instances
            .sort_by_key(|one| (one.launch_time().map(|time| time.secs()), one.instance_id().map(ToOwned::to_owned)));
        let mut machines: Vec<Machine> = instances.iter().filter_map(|instance| self.machine(instance)).collect();
        machines.sort_by_key(|machine| machine.state == MachineState::Deleted);
        Ok(machines.into_iter().next())
    }

    async fn list(&self, pool: &PoolId) -> Result<Listing, ProviderError> {
        // Not filtered by state on EC2's side: a state that is new to us would be taken for absence.
        let instances = self.marked(TAG_POOL, &pool.to_string(), None, pool).await?;
        let machines = instances.iter().filter_map(|instance| self.machine(instance));
        let machines =
            machines.filter(|machine| machine.state != MachineState::Deleted || machine.fault.is_some()).collect();
        Ok(Listing { machines, complete: true })
    }

    async fn delete(&self, machine: &MachineRef) -> Result<Progress, ProviderError> {
        // One id in each call: EC2 refuses a whole batch for one bad or protected id.
        let request = self.client.terminate_instances().instance_ids(&machine.0);
        let call = Call { operation: "TerminateInstances", about: machine, effect: Effect::Changes, hidden: &[] };
        let done = Progress::Done { machine: Some(machine.clone()) };
        match self.observed(call, request.send()).await {
            Err(error) if error.code == "InvalidInstanceID.NotFound" => Ok(done),
            Err(error) => Err(error),
            Ok(answer) => {
                let state = answer.terminating_instances().iter().find_map(|change| change.current_state());
                let is_gone = state.is_some_and(|state| instances::machine_state(state) == MachineState::Deleted);
                Ok(if is_gone { done } else { Progress::Pending { machine: Some(machine.clone()), op: None } })
            }
        }
    }
}

impl fmt::Debug for AwsProvider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AwsProvider")
            .field("settings", &self.settings)
            .field("deployment", &self.deployment)
            .finish_non_exhaustive()
    }
}
