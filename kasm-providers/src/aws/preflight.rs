//! Whether machines could be made now: everything a config names is looked at, and a launch is tried without making one.
//!
//! Sources: EC2 API Reference, the Describe actions used here and RunInstances (`DryRun`); User Guide, "Key pairs". What is
//! not asked: the account's vCPU limits, which EC2's own API does not show (Service Quotas has them), and the right to
//! delete, which EC2 tells only of machines that exist.

use aws_sdk_ec2::config::Builder;
use aws_sdk_ec2::types::{Filter, Image, ImageState, KeyType, LocationType, SecurityGroup, Subnet, SubnetState};
use kasm_autoscale_core::fields::JsonObject;
use kasm_autoscale_core::id::{ConfigId, PoolId, ServerId, ServerKey};
use kasm_autoscale_core::ports::{ErrorKind, Finding, MachineRef, Marker, ProviderError, ServerSpec, VmProvider};

use super::failure::{Effect, refused};
use super::request::TAG_DEPLOYMENT;
use super::{AwsProvider, Call, MachineSettings, Os, Purpose, tag_filter};

/// The code by which EC2 says that the request would have been carried out.
const WOULD_HAVE: &str = "DryRunOperation";
/// The code by which EC2 says that we are known, but not allowed to do this.
const NOT_ALLOWED: &str = "UnauthorizedOperation";

/// Everything found wrong with these machine settings and with our rights.
pub(super) async fn preflight(provider: &AwsProvider, machine: &JsonObject) -> Result<Vec<Finding>, ProviderError> {
    let settings = MachineSettings::from_json(machine).map_err(|problems| {
        let problems: Vec<String> = problems.iter().map(ToString::to_string).collect();
        refused("InvalidMachineSettings", &problems.join("; "))
    })?;
    let mut asked = Asked { provider, settings: &settings, findings: Vec::new(), stranger: false };
    asked.look().await?;
    Ok(asked.findings)
}

/// The look-ups of one preflight, and what they have found so far.
struct Asked<'a> {
    provider: &'a AwsProvider,
    settings: &'a MachineSettings,
    findings: Vec<Finding>,
    /// EC2 does not know us, so every further question would have the same answer.
    stranger: bool,
}

/// Sends a Describe request with the short time limits of look-ups, and puts an error where it belongs.
macro_rules! described {
    ($asked:ident, $operation:literal, $subject:expr, $remedy:expr, $request:expr) => {{
        let timeouts = Builder::new().timeout_config($asked.provider.settings.brief_timeouts());
        let subject: String = $subject;
        let call = Call { operation: $operation, about: &subject, effect: Effect::Reads, hidden: &[] };
        let answer = $asked.provider.observed(call, $request.customize().config_override(timeouts).send()).await;
        $asked.answered($operation, &subject, $remedy, answer)?
    }};
}

impl Asked<'_> {
    async fn look(&mut self) -> Result<(), ProviderError> {
        let image = self.image().await?;
        if self.stranger {
            return Ok(());
        }
        let subnet = self.subnet().await?;
        self.groups(subnet.as_ref()).await?;
        self.size(subnet.as_ref()).await?;
        self.key_pair().await?;
        self.machines().await?;
        if image.is_some() {
            self.launch().await?;
        }
        Ok(())
    }

    async fn image(&mut self) -> Result<Option<Image>, ProviderError> {
        let ami = self.overridden("ImageId").unwrap_or(&self.settings.ami).to_owned();
        let subject = format!("image {ami}");
        let remedy = "set ami to an image of this region that is available and shared with this account";
        let request = self.provider.client.describe_images().image_ids(&ami);
        let Some(answer) = described!(self, "DescribeImages", subject.clone(), remedy, request) else {
            return Ok(None);
        };
        let Some(image) = answer.images.unwrap_or_default().into_iter().next() else {
            self.found(&subject, "there is none of this id".into(), remedy);
            return Ok(None);
        };
        if let Some(state) = image.state().filter(|state| **state != ImageState::Available) {
            self.found(&subject, format!("it is {state}, not available"), remedy);
        }
        // The API's model writes it with a capital, the service without.
        let is_windows = image.platform().is_some_and(|platform| platform.as_str().eq_ignore_ascii_case("windows"));
        if is_windows != (self.settings.os() == Os::Windows) {
            let (it, os) = if is_windows { ("Windows", "linux") } else { ("not Windows", "windows") };
            let problem = format!("it is {it}, but os is {os}: its agent would not run the startup script");
            self.found(&subject, problem, "set os to what the image is, or ami to an image of that system");
        }
        self.volume(&image);
        Ok(Some(image))
    }

    /// Whether the root volume is as large as what is copied onto it.
    fn volume(&mut self, image: &Image) {
        let mut volumes = image.block_device_mappings().iter();
        let root = volumes.find(|volume| volume.device_name() == image.root_device_name());
        let least = root.and_then(|volume| volume.ebs()).and_then(|ebs| ebs.volume_size());
        let given = self.settings.ebs.as_ref().and_then(|ebs| ebs.size_gib);
        if let (Some(least), Some(given)) = (least, given)
            && given < least
        {
            let problem = format!("{given} GiB are less than the image's {least} GiB");
            self.found("ebs_volume_size_gib", problem, &format!("set it to {least} or more, or leave it out"));
        }
        if let (Some(given), Some(own)) = (&self.settings.root_device_name, image.root_device_name())
            && given != own
        {
            let problem = format!("{given:?} is not the image's root device, so machines would get a second volume");
            self.found("root_device_name", problem, &format!("set it to {own:?}, or leave it out"));
        }
    }

    async fn subnet(&mut self) -> Result<Option<Subnet>, ProviderError> {
        let overridden = self.overridden("SubnetId").or_else(|| self.overridden("NetworkInterface.1.SubnetId"));
        let Some(id) = overridden.or(self.settings.subnet_id.as_deref()).map(ToOwned::to_owned) else {
            return Ok(None);
        };
        let subject = format!("subnet {id}");
        let remedy = "set subnet_id to a subnet of this account and region";
        let request = self.provider.client.describe_subnets().subnet_ids(&id);
        let Some(answer) = described!(self, "DescribeSubnets", subject.clone(), remedy, request) else {
            return Ok(None);
        };
        let Some(subnet) = answer.subnets.unwrap_or_default().into_iter().next() else {
            self.found(&subject, "there is none of this id".into(), remedy);
            return Ok(None);
        };
        if let Some(state) = subnet.state().filter(|state| **state != SubnetState::Available) {
            self.found(&subject, format!("it is {state}, not available"), remedy);
        }
        if subnet.available_ip_address_count() == Some(0) {
            let remedy = "free addresses there, or use a larger subnet";
            self.found(&subject, "it has no free address left".into(), remedy);
        }
        Ok(Some(subnet))
    }

    async fn groups(&mut self, subnet: Option<&Subnet>) -> Result<(), ProviderError> {
        let remedy = "set security_group_ids to groups of the subnet's network";
        for id in self.group_ids() {
            let subject = format!("security group {id}");
            // One by one, so that each that is missing is named.
            let request = self.provider.client.describe_security_groups().group_ids(&id);
            let Some(answer) = described!(self, "DescribeSecurityGroups", subject.clone(), remedy, request) else {
                continue;
            };
            let group: Option<SecurityGroup> = answer.security_groups.unwrap_or_default().into_iter().next();
            let Some(group) = group else {
                self.found(&subject, "there is none of this id".into(), remedy);
                continue;
            };
            if let (Some(there), Some(here)) = (group.vpc_id(), subnet.and_then(Subnet::vpc_id))
                && there != here
            {
                self.found(&subject, format!("it belongs to network {there}, the subnet to {here}"), remedy);
            }
        }
        Ok(())
    }

    fn group_ids(&self) -> Vec<String> {
        for list in ["SecurityGroupId", "NetworkInterface.1.SecurityGroupId"] {
            let overridden = |number| self.overridden(&format!("{list}.{number}")).map(ToOwned::to_owned);
            let ids: Vec<String> = (1..).map_while(overridden).collect();
            if !ids.is_empty() {
                return ids;
            }
        }
        self.settings.security_group_ids.clone()
    }

    async fn size(&mut self, subnet: Option<&Subnet>) -> Result<(), ProviderError> {
        let size = self.overridden("InstanceType").unwrap_or(&self.settings.instance_type).to_owned();
        let zone = subnet.and_then(Subnet::availability_zone);
        let filter = |name: &str, value: &str| Filter::builder().name(name).values(value).build();
        let mut request = self.provider.client.describe_instance_type_offerings();
        request = request.filters(filter("instance-type", &size));
        request = match zone {
            Some(zone) => request.location_type(LocationType::AvailabilityZone).filters(filter("location", zone)),
            None => request.location_type(LocationType::Region),
        };
        let subject = format!("size {size}");
        let remedy = "set instance_type to a size that is offered there, or subnet_id to a subnet of another zone";
        let answer = described!(self, "DescribeInstanceTypeOfferings", subject.clone(), remedy, request);
        if answer.is_some_and(|answer| answer.instance_type_offerings().is_empty()) {
            let place = zone.map_or_else(|| "this region".to_owned(), |zone| format!("zone {zone}"));
            self.found(&subject, format!("it is not offered in {place}"), remedy);
        }
        Ok(())
    }

    async fn key_pair(&mut self) -> Result<(), ProviderError> {
        let name = self.overridden("KeyName").or(self.settings.key_name.as_deref()).map(ToOwned::to_owned);
        let Some(name) = name else { return Ok(()) };
        let subject = format!("key pair {name:?}");
        let remedy = "set key_name to a key pair of this account and region, or leave it out";
        let request = self.provider.client.describe_key_pairs().key_names(&name);
        let Some(answer) = described!(self, "DescribeKeyPairs", subject.clone(), remedy, request) else {
            return Ok(());
        };
        match answer.key_pairs().first() {
            None => self.found(&subject, "there is none of this name".into(), remedy),
            Some(pair) if self.settings.os() == Os::Windows && pair.key_type() == Some(&KeyType::Ed25519) => {
                let problem = "it is an ED25519 key, with which EC2 makes no Windows machines";
                self.found(&subject, problem.into(), "set key_name to an RSA key pair, or leave it out");
            }
            Some(_) => (),
        }
        Ok(())
    }

    /// Whether we may look for our own machines.
    async fn machines(&mut self) -> Result<(), ProviderError> {
        let ours = tag_filter(TAG_DEPLOYMENT, &self.provider.deployment.to_string());
        let request = self.provider.client.describe_instances().filters(ours).max_results(5);
        described!(self, "DescribeInstances", "machines".to_owned(), "", request);
        Ok(())
    }

    /// A launch that is not carried out.
    async fn launch(&mut self) -> Result<(), ProviderError> {
        let server = ServerKey { pool: PoolId::from_bytes([0; 16]), server: ServerId::new(0) };
        let marker = Marker {
            deployment: self.provider.deployment,
            pool: server.pool,
            config: ConfigId::new(0),
            server: server.uuid(),
        };
        let spec = ServerSpec {
            server,
            marker,
            name: server.machine_name(),
            token: "preflight".to_owned(),
            machine: JsonObject::new(),
            user_data: None,
        };
        let remedy = "change the machine settings so that EC2 accepts the launch";
        match self.provider.launch(&spec, self.settings, Purpose::Ask).await {
            Err(error) if error.code == WOULD_HAVE => Ok(()),
            Err(error) if error.kind == ErrorKind::Conflict => {
                self.found("launch", error.to_string(), "wait a little: what the settings name was made just now");
                Ok(())
            }
            Ok(answer) => {
                // No EC2 does this. A stand-in that does must not be left with machines that nobody knows.
                for id in answer.instances().iter().filter_map(|instance| instance.instance_id()) {
                    self.provider.delete(&MachineRef(id.to_owned())).await?;
                }
                let problem = "the endpoint makes machines when it is asked for a dry run; this one was deleted";
                self.found("endpoint_url", problem.into(), "use an endpoint that keeps to the EC2 API");
                Ok(())
            }
            refused => self.answered("RunInstances", "launch", remedy, refused).map(drop),
        }
    }

    /// What the overrides set a parameter to.
    fn overridden(&self, parameter: &str) -> Option<&str> {
        self.settings.overrides.value(parameter)
    }

    fn found(&mut self, subject: &str, problem: String, remedy: &str) {
        self.findings.push(Finding { subject: subject.to_owned(), problem, remedy: remedy.to_owned() });
    }

    /// The answer; `None` when it was a refusal, which is a finding then.
    fn answered<T>(
        &mut self,
        operation: &str,
        subject: &str,
        remedy: &str,
        answer: Result<T, ProviderError>,
    ) -> Result<Option<T>, ProviderError> {
        let error = match answer {
            Ok(answer) => return Ok(Some(answer)),
            Err(error) => error,
        };
        let words = format!("{} ({})", error.message, error.code);
        match error.kind {
            ErrorKind::Denied if error.code == NOT_ALLOWED => {
                let remedy =
                    format!("allow ec2:{operation} to this identity, as iam-policy.json of kasm-providers does");
                self.found(&format!("right ec2:{operation}"), words, &remedy);
            }
            ErrorKind::Denied if error.code == "OptInRequired" => {
                self.found(subject, words, "subscribe this account to the image in the AWS Marketplace");
            }
            ErrorKind::Denied => {
                self.stranger = true;
                let remedy = "give this provider a key that is valid, and check the clock of this machine";
                self.found("credentials", words, remedy);
            }
            ErrorKind::Quota => self.found("quota", words, "have the account's limit raised, or delete machines"),
            ErrorKind::NoCapacity => self.found(subject, words, "choose another size or zone, or try again later"),
            ErrorKind::Invalid => self.found(subject, words, remedy),
            ErrorKind::Throttled | ErrorKind::Conflict | ErrorKind::Protected | ErrorKind::Transient => {
                return Err(error);
            }
        }
        Ok(None)
    }
}
