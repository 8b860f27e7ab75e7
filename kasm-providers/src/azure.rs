//! Machines on Microsoft Azure.
//!
//! One [`AzureProvider`] is one resource group in one region. It speaks to Azure Resource Manager directly, over the SDK's
//! pipeline: there is no maintained crate for the Compute API. `azure/role.json` and `azure/role-subscription.json` are the
//! least rights for its calls.
//!
//! What Azure does its own way, and how it is met:
//! - **The name is the idempotency key.** It is made of the server's uuid, and the request says that it may only create. A
//!   machine that is there already is ours by its mark, or the answer is [`Certainty::Unknown`].
//! - **A create is an operation with an address of its own**, which becomes part of the server's row. It can fail after it was
//!   accepted, and says so with HTTP 200.
//! - **Windows runs no startup script by itself.** A machine that wants one says so in a tag; whoever looks at it next, be it a
//!   poll, a look-up or a list, puts an extension on it that starts the script ([`RunScript`]). Until then it counts as being
//!   provisioned. What is still to be done is thus known from Azure alone, after any number of restarts of ours.
//! - **Disk, network interface and public address are resources of their own.** They are made with the machine and deleted with
//!   it. What is left of one that was made or deleted only half has no machine; it is shown as a failed one once it has been
//!   without for longer than [`Capabilities::visibility_lag`], and [`VmProvider::delete`] deletes it part by part.
//! - **A list has no power states.** They are read for the whole subscription, at most every
//!   [`AzureSettings::power_states_age`].
//! - **Azure says how many calls it still takes.** Calls that it would refuse are not made.
//!
//! Hosts should not let the targets `azure_core`, `azure_identity`, `typespec_client_core`, `reqwest` and `hyper` log at level
//! trace.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use azure_core::http::{Method, Url};
use kasm_autoscale_core::fields::{JsonObject, Problem};
use kasm_autoscale_core::id::{ConfigId, DeploymentId, PoolId, ServerKey};
use kasm_autoscale_core::ports::{
    Capabilities, Certainty, ErrorKind, Finding, Listing, Machine, MachineRef, MachineState, Marker, OpRef, Progress,
    ProviderError, Scope, ServerSpec, VmProvider,
};
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;
use tokio::time::Instant;

mod arm;
mod credentials;
mod errors;
mod failure;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod machine;
mod machines;
mod names;
mod operation;
mod overrides;
mod pace;
mod preflight;
mod request;
mod settings;
mod user_data;

pub use errors::error_codes;
pub use machine::MachineSettings;
pub use settings::{AddressChoice, AdminPassword, AzureCloud, AzureCredentials, AzureSettings};
pub use user_data::{Os, RunScript, USER_DATA_MAX};

use crate::words::parts_to_hide;
use arm::{Arm, COMPUTE, Call, DISKS, Failed, NETWORK};
use failure::{failed_operation, refused, unreadable};
use machines::{Part, text};
use names::{PartKind, VmName, folded, name_in};
use operation::{Operation, Purpose, Status};

/// Azure in one resource group and region.
pub struct AzureProvider {
    arm: Arm,
    settings: AzureSettings,
    deployment: DeploymentId,
    memory: Mutex<Memory>,
}

/// What is kept in mind between calls. All of it can be lost: it is found out anew.
#[derive(Default)]
struct Memory {
    /// Since when parts have been seen without their machine.
    parentless: BTreeMap<VmName, Instant>,
    /// Power states by machine, and when they were read.
    power_states: Option<(Instant, BTreeMap<String, String>)>,
}

/// All that can belong to machines, as one look has shown it.
struct Parts {
    nics: Vec<Value>,
    public_ips: Vec<Value>,
    disks: Vec<Value>,
}

impl Parts {
    /// Those of ours.
    fn ours(&self) -> Vec<Part> {
        let of = |kind, resources: &[Value]| -> Vec<Part> {
            resources.iter().filter_map(|resource| Part::of(kind, resource)).collect()
        };
        let mut parts = of(PartKind::Nic, &self.nics);
        parts.extend(of(PartKind::PublicIp, &self.public_ips));
        parts.extend(of(PartKind::Disk, &self.disks));
        parts
    }
}

impl AzureProvider {
    /// A provider for the machines of one deployment. It may read the environment and files, and asks nobody until the first
    /// call.
    ///
    /// # Errors
    ///
    /// Every mistake in the settings.
    pub fn connect(settings: AzureSettings, deployment: DeploymentId) -> Result<Self, Vec<Problem>> {
        let problems = settings.problems();
        let Some(endpoint) = settings.endpoint().filter(|_| problems.is_empty()) else { return Err(problems) };
        let (pipeline, credential) = credentials::pipeline(&settings, &endpoint)?;
        let mut hidden = Vec::new();
        if let AzureCredentials::ClientSecret { client_secret, .. } = &settings.credentials {
            hidden.push(client_secret.clone());
        }
        if let Some(AdminPassword::Same(secret) | AdminPassword::Derived(secret)) = &settings.admin_password {
            hidden.push(secret.clone());
        }
        let request_timeout = settings.request_timeout;
        let arm = Arm { pipeline, credential, endpoint, request_timeout, pace: Mutex::default(), hidden };
        Ok(Self { arm, settings, deployment, memory: Mutex::default() })
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        // A panic leaves nothing that is not found out anew.
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The address of something in the resource group.
    fn url(&self, kind: &str, version: &str, more: &[(&str, &str)]) -> Url {
        let AzureSettings { subscription, resource_group, .. } = &self.settings;
        let path = format!("/subscriptions/{subscription}/resourceGroups/{resource_group}/providers/{kind}");
        self.arm.url(&path, version, more)
    }

    fn vm_url(&self, vm: &VmName, more: &[(&str, &str)]) -> Url {
        self.url(&format!("Microsoft.Compute/virtualMachines/{vm}"), COMPUTE, more)
    }

    async fn vm(&self, vm: &VmName) -> Result<Option<Value>, ProviderError> {
        let url = self.vm_url(vm, &[("$expand", "instanceView")]);
        self.arm.get(read("Microsoft.Compute/virtualMachines/read", vm, &url)).await
    }

    async fn all(&self, operation: &'static str, kind: &str, version: &str) -> Result<Vec<Value>, ProviderError> {
        let url = self.url(kind, version, &[]);
        self.arm.list(read(operation, &self.settings.resource_group, &url)).await
    }

    async fn parts(&self) -> Result<Parts, ProviderError> {
        Ok(Parts {
            nics: self
                .all("Microsoft.Network/networkInterfaces/read", "Microsoft.Network/networkInterfaces", NETWORK)
                .await?,
            public_ips: self
                .all("Microsoft.Network/publicIPAddresses/read", "Microsoft.Network/publicIPAddresses", NETWORK)
                .await?,
            disks: self.all("Microsoft.Compute/disks/read", "Microsoft.Compute/disks", DISKS).await?,
        })
    }

    /// The power state of every machine of the subscription, by its folded id, not older than the settings allow.
    async fn power_states(&self) -> Result<BTreeMap<String, String>, ProviderError> {
        if let Some((read_at, states)) = &self.memory().power_states
            && read_at.elapsed() < self.settings.power_states_age
        {
            return Ok(states.clone());
        }
        let read_at = Instant::now();
        let path = format!("/subscriptions/{}/providers/Microsoft.Compute/virtualMachines", self.settings.subscription);
        let url = self.arm.url(&path, COMPUTE, &[("statusOnly", "true")]);
        let about = &self.settings.subscription;
        let machines = self.arm.list(read("Microsoft.Compute/virtualMachines/read", about, &url)).await?;
        let state = |vm: &Value| Some((folded(text(vm, "/id")?), machines::power(vm)?.to_owned()));
        let states: BTreeMap<String, String> = machines.iter().filter_map(state).collect();
        self.memory().power_states = Some((read_at, states.clone()));
        Ok(states)
    }

    /// The machine that stands for parts without one. Right after a create the machine may only not be visible yet, so at first
    /// it counts as being made.
    fn leftover(&self, vm: &VmName, config: ConfigId, pool: PoolId) -> Machine {
        let mut memory = self.memory();
        let since = *memory.parentless.entry(vm.clone()).or_insert_with(Instant::now);
        let state = if since.elapsed() > self.settings.visibility_lag {
            MachineState::Failed
        } else {
            MachineState::Provisioning
        };
        let fault = (state == MachineState::Failed).then(|| {
            let message = "only parts of the machine are left: a disk, a network interface or a public address";
            let error = ProviderError::new(ErrorKind::Transient, Certainty::NotApplied, "Leftover", message);
            ProviderError { scope: Scope::Server, ..error }
        });
        let marker = Marker { deployment: self.deployment, pool, config, server: vm.uuid().to_owned() };
        Machine { reference: vm.reference(), marker: Some(marker), state, address: None, fault }
    }

    /// Puts the extension that runs the startup script on a machine that wants it. It can be asked for twice: the second time
    /// nothing changes.
    async fn start_script(&self, vm: &VmName) -> Result<(), ProviderError> {
        let kind = format!("Microsoft.Compute/virtualMachines/{vm}/extensions/{}", request::EXTENSION);
        let url = self.url(&kind, COMPUTE, &[]);
        let body = request::extension(&self.settings).to_string();
        let operation = "Microsoft.Compute/virtualMachines/extensions/write";
        let call = Call { method: Method::Put, body: Some(&body), ..read(operation, vm, &url) };
        self.arm.call(call).await?;
        Ok(())
    }

    /// The machine as it is seen, after what is still to be done for it.
    async fn looked_after(&self, vm: &VmName, resource: &Value, power: Option<&str>, host: Option<&str>) -> Machine {
        let machine = machines::machine(vm, resource, power, host);
        let is_ours = machine.marker.as_ref().is_some_and(|marker| marker.deployment == self.deployment);
        let lacks = is_ours && machine.state == MachineState::Running && machines::lacks_extension(resource);
        if !lacks || !machines::is_made(resource) {
            return machine;
        }
        match self.start_script(vm).await {
            Ok(()) => machine,
            Err(error) if error.kind == ErrorKind::Invalid => {
                Machine { state: MachineState::Failed, fault: Some(error), ..machine }
            }
            Err(error) => {
                // It is tried again at the next look.
                tracing::warn!(%vm, %error, "the startup script could not be started yet");
                Machine { state: MachineState::Provisioning, ..machine }
            }
        }
    }

    /// The address at which sessions reach a machine.
    async fn host(&self, vm: &VmName, resource: &Value) -> Result<Option<String>, ProviderError> {
        let Some(id) = machines::primary_nic(resource) else { return Ok(None) };
        let url = self.arm.url(id, NETWORK, &[]);
        let nic = self.arm.get(read("Microsoft.Network/networkInterfaces/read", vm, &url)).await?;
        let Some(address) = nic.as_ref().and_then(machines::primary_address) else { return Ok(None) };
        if self.settings.address == AddressChoice::Private {
            return Ok(text(address, "/properties/privateIPAddress").map(ToOwned::to_owned));
        }
        let Some(id) = text(address, "/properties/publicIPAddress/id") else { return Ok(None) };
        let url = self.arm.url(id, NETWORK, &[]);
        let ip = self.arm.get(read("Microsoft.Network/publicIPAddresses/read", vm, &url)).await?;
        Ok(ip.as_ref().and_then(|ip| text(ip, "/properties/ipAddress")).map(ToOwned::to_owned))
    }

    /// What stands in a spec, put together into the body of the request, and what its errors must not repeat.
    fn body_of(&self, spec: &ServerSpec) -> Result<(String, Vec<SecretString>), ProviderError> {
        let settings = MachineSettings::from_json(&spec.machine).map_err(|problems| {
            let problems: Vec<String> = problems.iter().map(ToString::to_string).collect();
            refused("InvalidMachineSettings", &problems.join("; "))
        })?;
        let script = spec.user_data.as_ref().map(ExposeSecret::expose_secret).filter(|text| !text.is_empty());
        let user_data = script.map(|script| user_data::carried(script, settings.os()));
        let bytes = user_data.as_ref().map_or(0, String::len);
        if bytes > USER_DATA_MAX {
            return Err(refused("UserDataTooLarge", &too_large(bytes)));
        }
        if bytes > 0 && settings.admin_username.is_none() {
            return Err(refused("InvalidMachineSettings", SPECIALIZED_RULE));
        }
        let password = match (&self.settings.admin_password, settings.needs_password()) {
            (Some(choice), true) => Some(request::admin_password(choice, &spec.server)),
            (None, true) => return Err(refused("InvalidMachineSettings", PASSWORD_RULE)),
            (_, false) => None,
        };
        let body = request::virtual_machine(spec, &settings, &self.settings, user_data.as_deref(), password.as_ref());
        let mut hidden: Vec<SecretString> = password.into_iter().collect();
        let encoded = body.pointer("/properties/osProfile/customData").and_then(Value::as_str);
        hidden.extend(encoded.map(SecretString::from));
        // With and without its mark: an error may repeat the script in either form.
        let texts = user_data.as_deref().into_iter().chain(script);
        hidden.extend(texts.flat_map(parts_to_hide).map(SecretString::from));
        // The longest first, so that nothing is left of a text that was hidden in part.
        hidden.sort_by_key(|text| std::cmp::Reverse(text.expose_secret().len()));
        Ok((body.to_string(), hidden))
    }

    /// A machine of this name is there already. Ours, from an earlier try of this very request, or a riddle.
    async fn made_before(&self, spec: &ServerSpec, failed: Failed) -> Result<Progress, ProviderError> {
        let vm = VmName::of(&spec.server);
        match self.vm(&vm).await {
            Ok(Some(resource)) if machines::marker(&resource).as_ref() == Some(&spec.marker) => {
                Ok(Progress::Pending { machine: Some(vm.reference()), op: None })
            }
            // Copies of the resource lag behind. Nobody else makes a machine of this name.
            Ok(None) if failed.status == Some(412) => Ok(Progress::Pending { machine: Some(vm.reference()), op: None }),
            _ => Err(failed.error),
        }
    }

    /// A create has ended well: the startup script is started, and then the machine is made.
    async fn made(&self, operation: &Operation) -> Result<Progress, ProviderError> {
        let vm = &operation.vm;
        match self.vm(vm).await? {
            // Copies of the resource lag behind the operation.
            None => Ok(Progress::Pending { machine: None, op: Some(operation.reference()) }),
            Some(resource) => {
                let started = if machines::lacks_extension(&resource) { self.start_script(vm).await } else { Ok(()) };
                match started {
                    Ok(()) => Ok(Progress::Done { machine: Some(vm.reference()) }),
                    // The machine is busy with something else, and is well: no reason to give it up.
                    Err(error) if error.kind == ErrorKind::Conflict => {
                        Ok(Progress::Pending { machine: None, op: Some(operation.reference()) })
                    }
                    Err(error) => Err(error),
                }
            }
        }
    }

    /// The operation has been forgotten: the machine itself has to tell.
    async fn forgotten(&self, operation: &Operation) -> Result<Progress, ProviderError> {
        let vm = &operation.vm;
        match (operation.purpose, self.vm(vm).await?) {
            (Purpose::Delete, None) => self.delete_parts(vm).await,
            (Purpose::Create, Some(resource)) if machines::provisioning(&resource) == "Succeeded" => {
                self.made(operation).await
            }
            (_, Some(_)) => Ok(Progress::Pending { machine: Some(vm.reference()), op: None }),
            // Nobody knows what became of it; the core looks it up.
            (Purpose::Create, None) => Ok(Progress::Pending { machine: None, op: None }),
        }
    }

    /// Deletes what is left of a machine that is gone. Done when nothing is.
    async fn delete_parts(&self, vm: &VmName) -> Result<Progress, ProviderError> {
        let parts: Vec<Part> = self.parts().await?.ours().into_iter().filter(|part| part.vm == *vm).collect();
        if parts.is_empty() {
            self.memory().parentless.remove(vm);
            return Ok(Progress::Done { machine: Some(vm.reference()) });
        }
        let mut first = None;
        // An address hangs on its interface, which goes first; a part that is still held is deleted with its holder, or
        // the next time.
        let free = |part: &&Part| !part.going && (part.kind == PartKind::Nic || part.holder.is_none());
        for part in parts.iter().filter(free) {
            if let Err(error) = self.delete_part(part).await {
                first = first.or(Some(error));
            }
        }
        match first {
            Some(error) => Err(error),
            None => Ok(Progress::Pending { machine: Some(vm.reference()), op: None }),
        }
    }

    async fn delete_part(&self, part: &Part) -> Result<(), ProviderError> {
        let (operation, version) = match part.kind {
            PartKind::Nic => ("Microsoft.Network/networkInterfaces/delete", NETWORK),
            PartKind::PublicIp => ("Microsoft.Network/publicIPAddresses/delete", NETWORK),
            PartKind::Disk => ("Microsoft.Compute/disks/delete", DISKS),
        };
        let url = self.arm.url(&part.id, version, &[]);
        let call = Call { method: Method::Delete, ..read(operation, &part.vm, &url) };
        match self.arm.call(call).await {
            Err(failed) if !failed.is_absent() => Err(failed.error),
            _ => Ok(()),
        }
    }
}

/// A call that reads.
fn read<'a>(operation: &'static str, about: &'a (dyn fmt::Display + Sync), url: &'a Url) -> Call<'a> {
    Call { operation, about, method: Method::Get, url, body: None, create_only: false, hidden: &[] }
}

const SPECIALIZED_RULE: &str = "no startup script: a specialized image takes no custom data";
const PASSWORD_RULE: &str = "machines with Windows need a password for their administrator; give the provider admin_password or admin_password_key";

fn too_large(bytes: usize) -> String {
    format!("the startup script has {bytes} bytes as Azure carries it; at most {USER_DATA_MAX} are allowed")
}

#[async_trait]
impl VmProvider for AzureProvider {
    fn describe(&self) -> Capabilities {
        Capabilities {
            kind: "azure",
            visibility_lag: self.settings.visibility_lag,
            poll_busy: self.settings.poll_busy,
            poll_idle: self.settings.poll_idle,
            creates_in_flight_max: self.settings.creates_in_flight_max,
            call_timeout: self.settings.call_timeout,
            // An override may ask for anything.
            offering: &["vm_size", "zone", "spot", "overrides"],
        }
    }

    fn check(&self, machine: &JsonObject, user_data_bytes: usize) -> Vec<Problem> {
        let (settings, mut problems) = match MachineSettings::from_json(machine) {
            Ok(settings) => (Some(settings), Vec::new()),
            Err(problems) => (None, problems),
        };
        let os = settings.as_ref().map_or(Os::Windows, MachineSettings::os);
        // Whether the script needs a byte order mark is not known here, so it is counted.
        let bytes = user_data::carried_bytes_max(user_data_bytes, os);
        if bytes > USER_DATA_MAX {
            problems.push(Problem::new("startup_script", format!("up to {bytes} bytes"), too_large(bytes)));
        }
        if let Some(settings) = settings {
            if user_data_bytes > 0 && settings.admin_username.is_none() {
                problems.push(Problem::new("startup_script", "a script", SPECIALIZED_RULE));
            }
            if settings.needs_password() && self.settings.admin_password.is_none() {
                problems.push(Problem::new("os", "\"windows\"", PASSWORD_RULE));
            }
            if self.settings.address == AddressChoice::Public && !settings.public_ip {
                let allowed = "true: the provider's address = \"public\" needs machines that have one";
                problems.push(Problem::new("public_ip", "false", allowed));
            }
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
        let (body, secrets) = self.body_of(spec)?;
        let hidden: Vec<&str> = secrets.iter().map(ExposeSecret::expose_secret).collect();
        let vm = VmName::of(&spec.server);
        let url = self.vm_url(&vm, &[]);
        let call = Call {
            method: Method::Put,
            body: Some(&body),
            create_only: true,
            hidden: &hidden,
            ..read("Microsoft.Compute/virtualMachines/write", &spec.server, &url)
        };
        let answer = match self.arm.call(call).await {
            Ok(answer) => answer,
            Err(failed) if matches!(failed.status, Some(409 | 412)) && failed.error.certainty == Certainty::Unknown => {
                return self.made_before(spec, failed).await;
            }
            Err(failed) => return Err(failed.error),
        };
        if !answer.body.is_object() {
            return Err(unreadable(&answer, call.effect()));
        }
        let machine = Some(vm.reference());
        match Operation::begun(&answer, Purpose::Create, &vm, &self.arm.endpoint) {
            Some(operation) => {
                let op = operation.reference();
                self.arm.pace().defer(&op.0, answer.retry_after, Instant::now());
                // The machine is not named yet: only its operation tells why it fails, if it does.
                Ok(Progress::Pending { machine: None, op: Some(op) })
            }
            // Without an operation the machine itself shows the progress.
            None => Ok(Progress::Pending { machine, op: None }),
        }
    }

    async fn poll(&self, op: &OpRef) -> Result<Progress, ProviderError> {
        let Some(operation) = Operation::read(op, &self.arm.endpoint) else {
            return Err(refused("UnknownOperation", "this is no operation of Azure at the provider's endpoint"));
        };
        let pending = || Progress::Pending { machine: None, op: Some(op.clone()) };
        if self.arm.pace().is_early(&op.0, Instant::now()) {
            return Ok(pending());
        }
        let call = read("Microsoft.Compute/locations/operations/read", &operation.vm, &operation.url);
        let answer = match self.arm.call(call).await {
            Ok(answer) => answer,
            Err(failed) if failed.is_absent() => return self.forgotten(&operation).await,
            Err(failed) => return Err(failed.error),
        };
        self.arm.pace().defer(&op.0, answer.retry_after, Instant::now());
        match operation::status(&answer) {
            Status::Running => Ok(pending()),
            Status::Failed => Err(failed_operation(&answer, &[])),
            Status::Succeeded => {
                self.arm.pace().defer(&op.0, None, Instant::now());
                match operation.purpose {
                    Purpose::Create => self.made(&operation).await,
                    Purpose::Delete => self.delete_parts(&operation.vm).await,
                }
            }
        }
    }

    async fn find(&self, server: &ServerKey) -> Result<Option<Machine>, ProviderError> {
        let vm = VmName::of(server);
        if let Some(resource) = self.vm(&vm).await? {
            self.memory().parentless.remove(&vm);
            let host = self.host(&vm, &resource).await?;
            return Ok(Some(self.looked_after(&vm, &resource, machines::power(&resource), host.as_deref()).await));
        }
        let parts = self.parts().await?.ours();
        let part = parts.iter().find(|part| part.vm == vm);
        Ok(part.map(|part| self.leftover(&vm, part.config, server.pool)))
    }

    async fn list(&self, pool: &PoolId) -> Result<Listing, ProviderError> {
        // Parts first: a machine that is made in between is then in the list, and none of its parts seems to be left over.
        let parts = self.parts().await?;
        let kind = "Microsoft.Compute/virtualMachines";
        let resources = self.all("Microsoft.Compute/virtualMachines/read", kind, COMPUTE).await?;
        let power_states = if resources.is_empty() { BTreeMap::new() } else { self.power_states().await? };
        let public = (self.settings.address == AddressChoice::Public).then_some(parts.public_ips.as_slice());
        let hosts = machines::hosts(&parts.nics, public);
        let mut machines = Vec::new();
        let mut there = BTreeSet::new();
        for resource in &resources {
            let (Some(id), Some(vm)) = (text(resource, "/id"), text(resource, "/name").and_then(VmName::read)) else {
                continue;
            };
            there.insert(vm.clone());
            if !vm.is_of(*pool) {
                continue;
            }
            let id = folded(id);
            let (power, host) = (power_states.get(&id).map(String::as_str), hosts.get(&id).map(String::as_str));
            machines.push(match machines::state(resource, power).0 {
                // Why, a list does not say.
                MachineState::Failed => match self.vm(&vm).await? {
                    Some(resource) => self.looked_after(&vm, &resource, machines::power(&resource), host).await,
                    None => continue,
                },
                _ => self.looked_after(&vm, resource, power, host).await,
            });
        }
        let lost = parts.ours().into_iter().filter(|part| !there.contains(&part.vm) && part.vm.is_of(*pool));
        let lost: BTreeMap<VmName, ConfigId> = lost.map(|part| (part.vm, part.config)).collect();
        self.memory().parentless.retain(|vm, _| !vm.is_of(*pool) || lost.contains_key(vm));
        machines.extend(lost.iter().map(|(vm, config)| self.leftover(vm, *config, *pool)));
        Ok(Listing { machines, complete: true })
    }

    async fn delete(&self, machine: &MachineRef) -> Result<Progress, ProviderError> {
        let Some(vm) = VmName::read(name_in(&machine.0)) else {
            return Err(ProviderError {
                scope: Scope::Server,
                ..refused("NotOurs", "this is no machine of ours by its name")
            });
        };
        // A database that is copied for a test names the machines of the installation it was copied from.
        if let Some(there) = self.vm(&vm).await?
            && machines::marker(&there).is_some_and(|marker| marker.deployment != self.deployment)
        {
            tracing::warn!(%vm, "a machine was to be deleted that belongs to another installation; it is left alone");
            return Ok(Progress::Done { machine: Some(vm.reference()) });
        }
        // Nobody works on it any more, so it need not be shut down in peace.
        let url = self.vm_url(&vm, &[("forceDeletion", "true")]);
        let call = Call { method: Method::Delete, ..read("Microsoft.Compute/virtualMachines/delete", &vm, &url) };
        match self.arm.call(call).await {
            Ok(answer) if answer.status == 202 => {
                let operation = Operation::begun(&answer, Purpose::Delete, &vm, &self.arm.endpoint);
                let op = operation.map(|operation| operation.reference());
                if let Some(op) = &op {
                    self.arm.pace().defer(&op.0, answer.retry_after, Instant::now());
                }
                Ok(Progress::Pending { machine: Some(vm.reference()), op })
            }
            Err(failed) if !failed.is_absent() || failed.error.code == "ResourceGroupNotFound" => Err(failed.error),
            // 200, 204 or 404: it is not there.
            _ => self.delete_parts(&vm).await,
        }
    }
}

impl fmt::Debug for AzureProvider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AzureProvider")
            .field("settings", &self.settings)
            .field("deployment", &self.deployment)
            .finish_non_exhaustive()
    }
}
