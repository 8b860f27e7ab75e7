//! Whether machines could be made now: everything a config names is looked at, and nothing is made.
//!
//! Sources: Compute API, VirtualMachineImages, Images, Gallery, ResourceSkus and Usage; Network API, Subnets and
//! NetworkSecurityGroups; Authorization API, Permissions. What is not asked: shared and community galleries, which are not
//! resources of ours, and rights on other groups' networks beyond reading them.

use azure_core::http::Url;
use kasm_autoscale_core::fields::JsonObject;
use kasm_autoscale_core::ports::{ErrorKind, Finding, ProviderError};
use serde_json::Value;

use super::arm::{COMPUTE, NETWORK};
use super::failure::refused;
use super::machines::text;
use super::{AzureProvider, MachineSettings, read};

const SKUS: &str = "2021-07-01";
const GALLERIES: &str = "2023-07-03";
const PERMISSIONS: &str = "2022-04-01";

/// The least rights on the resource group; a test holds them against the calls that are made.
pub(super) const ROLE: &str = include_str!("role.json");

/// Everything found wrong with these machine settings and with our rights.
pub(super) async fn preflight(provider: &AzureProvider, machine: &JsonObject) -> Result<Vec<Finding>, ProviderError> {
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
    provider: &'a AzureProvider,
    settings: &'a MachineSettings,
    findings: Vec<Finding>,
    /// Azure does not know us, so every further question would have the same answer.
    stranger: bool,
}

impl Asked<'_> {
    async fn look(&mut self) -> Result<(), ProviderError> {
        self.rights().await?;
        if self.stranger {
            return Ok(());
        }
        self.image().await?;
        self.network().await?;
        self.size().await
    }

    /// Whether we may do in the resource group what a role for us allows.
    async fn rights(&mut self) -> Result<(), ProviderError> {
        let provider = self.provider;
        let url = provider.url("Microsoft.Authorization/permissions", PERMISSIONS, &[]);
        let group = &provider.settings.resource_group;
        let subject = format!("resource group {group}");
        let remedy = "set subscription and resource_group to a group that is there";
        let Some(answer) = self.asked(&subject, "Microsoft.Authorization/permissions/read", &url, remedy).await? else {
            return Ok(());
        };
        let permissions = answer.get("value").and_then(Value::as_array).cloned().unwrap_or_default();
        for action in role_actions(ROLE).into_iter().filter(|action| !is_allowed(&permissions, action)) {
            let remedy =
                format!("give this identity a role on {subject} that allows it, as role.json of kasm-providers does");
            self.found(&format!("right {action}"), "the identity does not have it".to_owned(), &remedy);
        }
        Ok(())
    }

    async fn image(&mut self) -> Result<(), ProviderError> {
        let image = &self.settings.image;
        let of = |name: &str| image.get(name).and_then(Value::as_str);
        let remedy = "set image to one that is offered in this region (az vm image list)";
        let (subject, operation, url) = if let Some(id) = of("id") {
            let is_gallery = id.to_ascii_lowercase().contains("/galleries/");
            let operation =
                if is_gallery { "Microsoft.Compute/galleries/images/read" } else { "Microsoft.Compute/images/read" };
            let version = if is_gallery { GALLERIES } else { COMPUTE };
            (format!("image {id}"), operation, self.provider.arm.url(id, version, &[]))
        } else if let (Some(publisher), Some(offer), Some(sku), Some(version)) =
            (of("publisher"), of("offer"), of("sku"), of("version"))
        {
            let latest = version == "latest";
            let end = if latest { String::new() } else { format!("/{version}") };
            let kind = format!("publishers/{publisher}/artifacttypes/vmimage/offers/{offer}/skus/{sku}/versions{end}");
            let more: &[(&str, &str)] = if latest { &[("$top", "1")] } else { &[] };
            let url = self.regional(&kind, COMPUTE, more);
            let operation = "Microsoft.Compute/locations/publishers/artifacttypes/offers/skus/versions/read";
            (format!("image {publisher}:{offer}:{sku}:{version}"), operation, url)
        } else {
            return Ok(());
        };
        let answer = self.asked(&subject, operation, &url, remedy).await?;
        if answer.as_ref().and_then(Value::as_array).is_some_and(Vec::is_empty) {
            self.found(&subject, "there is no version of it in this region".to_owned(), remedy);
        }
        let system = answer.as_ref().and_then(|image| {
            let pointers = [
                "/properties/osDiskImage/operatingSystem",
                "/properties/osType",
                "/properties/storageProfile/osDisk/osType",
            ];
            pointers.iter().find_map(|pointer| text(image, pointer))
        });
        let windows = self.settings.os() == super::Os::Windows;
        if let Some(system) = system.filter(|system| system.eq_ignore_ascii_case("windows") != windows) {
            let problem = format!("it is {system}, but os is {}", if windows { "windows" } else { "linux" });
            self.found(&subject, problem, "set os to what the image is, or image to one of that system");
        }
        Ok(())
    }

    async fn network(&mut self) -> Result<(), ProviderError> {
        let subnet = self.settings.subnet.clone();
        let url = self.provider.arm.url(&subnet, NETWORK, &[]);
        let remedy = "set subnet to the id of a subnet in this region";
        let operation = "Microsoft.Network/virtualNetworks/subnets/read";
        self.asked(&format!("subnet {subnet}"), operation, &url, remedy).await?;
        let Some(group) = self.settings.network_security_group.clone() else { return Ok(()) };
        let kind = format!("Microsoft.Network/networkSecurityGroups/{group}");
        let is_id = group.starts_with('/');
        let url =
            if is_id { self.provider.arm.url(&group, NETWORK, &[]) } else { self.provider.url(&kind, NETWORK, &[]) };
        let subject = format!("network security group {group}");
        let remedy = "set network_security_group to a group in this region";
        let answer = self.asked(&subject, "Microsoft.Network/networkSecurityGroups/read", &url, remedy).await?;
        let region = answer.as_ref().and_then(|group| text(group, "/location")).map(|place| place.replace(' ', ""));
        if let Some(region) = region.filter(|region| !region.eq_ignore_ascii_case(&self.provider.settings.region)) {
            self.found(&subject, format!("it is in {region}"), remedy);
        }
        Ok(())
    }

    /// Whether the size is offered here, and whether what the subscription may use leaves room for one.
    async fn size(&mut self) -> Result<(), ProviderError> {
        let (size, region) = (self.settings.vm_size.clone(), self.provider.settings.region.clone());
        let subject = format!("size {size}");
        let remedy = "set vm_size to a size that is offered there (az vm list-skus), or another zone or region";
        let path = format!("/subscriptions/{}/providers/Microsoft.Compute/skus", self.provider.settings.subscription);
        let url = self.provider.arm.url(&path, SKUS, &[("$filter", &format!("location eq '{region}'"))]);
        let Some(skus) = self.listed(&subject, "Microsoft.Compute/skus/read", &url, remedy).await? else {
            return Ok(());
        };
        let is_it = |sku: &&Value| {
            text(sku, "/resourceType") == Some("virtualMachines")
                && text(sku, "/name").is_some_and(|name| name.eq_ignore_ascii_case(&size))
        };
        let Some(sku) = skus.iter().find(is_it) else {
            self.found(&subject, format!("it is not offered in {region}"), remedy);
            return Ok(());
        };
        for restriction in sku.get("restrictions").and_then(Value::as_array).into_iter().flatten() {
            let zones = restriction.pointer("/restrictionInfo/zones").and_then(Value::as_array);
            let concerns = match (text(restriction, "/type"), self.settings.zone) {
                (Some("Zone"), zone) => {
                    zone.is_some_and(|zone| zones.is_some_and(|zones| zones.iter().any(|one| one == zone)))
                }
                _ => true,
            };
            if concerns {
                let why = text(restriction, "/reasonCode").unwrap_or("no reason given");
                self.found(&subject, format!("this subscription may not use it there ({why})"), remedy);
            }
        }
        let capabilities = sku.get("capabilities").and_then(Value::as_array).into_iter().flatten();
        let cores = capabilities
            .into_iter()
            .find(|one| text(one, "/name") == Some("vCPUs"))
            .and_then(|one| text(one, "/value")?.parse().ok());
        let (Some(cores), Some(family)) = (cores, text(sku, "/family")) else { return Ok(()) };
        self.quota(cores, family).await
    }

    async fn quota(&mut self, cores: u64, family: &str) -> Result<(), ProviderError> {
        let url = self.regional("usages", COMPUTE, &[]);
        let remedy = "";
        let Some(usages) = self.listed("quota", "Microsoft.Compute/locations/usages/read", &url, remedy).await? else {
            return Ok(());
        };
        let counted = if self.settings.spot { vec!["lowPriorityCores"] } else { vec!["cores", family] };
        for usage in &usages {
            let Some(name) = text(usage, "/name/value") else { continue };
            let of = |name: &str| usage.get(name).and_then(Value::as_u64);
            let (Some(used), Some(limit)) = (of("currentValue"), of("limit")) else { continue };
            if counted.iter().any(|one| one.eq_ignore_ascii_case(name)) && used + cores > limit {
                let problem = format!("{used} of {limit} cores are used, and a machine needs {cores}");
                self.found(&format!("quota {name}"), problem, "have the limit raised, or delete machines");
            }
        }
        Ok(())
    }

    /// The address of something that a region has, whoever asks.
    fn regional(&self, kind: &str, version: &str, more: &[(&str, &str)]) -> Url {
        let settings = &self.provider.settings;
        let path = format!(
            "/subscriptions/{}/providers/Microsoft.Compute/locations/{}/{kind}",
            settings.subscription, settings.region
        );
        self.provider.arm.url(&path, version, more)
    }

    fn found(&mut self, subject: &str, problem: String, remedy: &str) {
        self.findings.push(Finding { subject: subject.to_owned(), problem, remedy: remedy.to_owned() });
    }

    /// The answer; `None` when it was a refusal, which is a finding then.
    async fn asked(
        &mut self,
        subject: &str,
        operation: &'static str,
        url: &Url,
        remedy: &str,
    ) -> Result<Option<Value>, ProviderError> {
        let subject = subject.to_owned();
        match self.provider.arm.call(read(operation, &subject, url)).await {
            Ok(answer) => Ok(Some(answer.body)),
            Err(failed) => self.refused(&subject, operation, remedy, failed.error).map(|()| None),
        }
    }

    async fn listed(
        &mut self,
        subject: &str,
        operation: &'static str,
        url: &Url,
        remedy: &str,
    ) -> Result<Option<Vec<Value>>, ProviderError> {
        let subject = subject.to_owned();
        match self.provider.arm.list(read(operation, &subject, url)).await {
            Ok(items) => Ok(Some(items)),
            Err(error) => self.refused(&subject, operation, remedy, error).map(|()| None),
        }
    }

    fn refused(
        &mut self,
        subject: &str,
        operation: &str,
        remedy: &str,
        error: ProviderError,
    ) -> Result<(), ProviderError> {
        let words = format!("{} ({})", error.message, error.code);
        match error.kind {
            ErrorKind::Denied if matches!(error.code.as_str(), "AuthorizationFailed" | "LinkedAuthorizationFailed") => {
                let remedy = format!("give this identity a role that allows {operation} there");
                self.found(&format!("right {operation}"), format!("{subject}: {words}"), &remedy);
            }
            ErrorKind::Denied => {
                self.stranger = true;
                let remedy = "give this provider credentials that are valid, and a subscription that they may see";
                self.found("credentials", words, remedy);
            }
            ErrorKind::Invalid => self.found(subject, words, remedy),
            _ => return Err(error),
        }
        Ok(())
    }
}

/// The actions of a role in a file of ours.
pub(super) fn role_actions(role: &str) -> Vec<String> {
    let role: Value = serde_json::from_str(role).unwrap_or_default();
    let actions = role.get("Actions").and_then(Value::as_array).into_iter().flatten();
    actions.filter_map(Value::as_str).map(ToOwned::to_owned).collect()
}

/// Whether any of these permissions allows an action: it is among its actions and not among those taken out.
fn is_allowed(permissions: &[Value], action: &str) -> bool {
    let among = |permission: &Value, name: &str| {
        let patterns = permission.get(name).and_then(Value::as_array).into_iter().flatten();
        patterns.filter_map(Value::as_str).any(|pattern| matches(pattern, action))
    };
    permissions.iter().any(|permission| among(permission, "actions") && !among(permission, "notActions"))
}

/// Whether an action is of this pattern, in which `*` stands for any text.
fn matches(pattern: &str, action: &str) -> bool {
    let (pattern, action) = (pattern.to_ascii_lowercase(), action.to_ascii_lowercase());
    let mut parts = pattern.split('*');
    let Some(mut rest) = parts.next().and_then(|first| action.strip_prefix(first)) else { return false };
    let mut parts = parts.peekable();
    if parts.peek().is_none() {
        return rest.is_empty();
    }
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return rest.ends_with(part);
        }
        let Some((_, after)) = rest.split_once(part) else { return false };
        rest = after;
    }
    true
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn patterns_of_rights() {
        let action = "Microsoft.Compute/virtualMachines/extensions/write";
        let rows = [
            ("*", true),
            ("Microsoft.Compute/*", true),
            ("*/write", true),
            ("microsoft.compute/virtualmachines/*/write", true),
            ("Microsoft.Compute/virtualMachines/extensions/write", true),
            ("Microsoft.Compute/virtualMachines/write", false),
            ("Microsoft.Compute/virtualMachines/extensions", false),
            ("*/read", false),
            ("Microsoft.Network/*", false),
            ("Microsoft.Compute/*/x/*/write", false),
            ("", false),
        ];
        for (pattern, expected) in rows {
            assert_eq!(matches(pattern, action), expected, "{pattern}");
        }
        let role = json!({ "actions": ["*"], "notActions": ["*/write"] });
        assert!(
            !is_allowed(std::slice::from_ref(&role), action)
                && is_allowed(&[role, json!({ "actions": [action] })], action)
        );
    }
}
