//! The settings of a machine: what a config's `machine` object may say for Azure.
//!
//! Formats and limits: Compute API 2024-03-01, VirtualMachine; Azure Resource Manager, "Use tags" and "Naming rules and
//! restrictions"; Azure Virtual Machines, "Frequently asked questions" (user names).

use std::collections::BTreeMap;

use kasm_autoscale_core::fields::{Fields, JsonObject, Problem, shown};
use serde_json::{Value, json};

use super::overrides::Overrides;
use super::user_data::{Os, RunScript};

/// The prefix of the tags that are ours alone.
pub(super) const TAG_PREFIX: &str = "kasm-autoscale:";

/// Azure's limit of 50 tags on a resource, less our own.
const TAGS_MAX: usize = 44;

/// What a machine is made of. Made by [`from_json`](Self::from_json) only, so it is free of mistakes.
#[derive(Clone, Debug)]
pub struct MachineSettings {
    pub(super) vm_size: String,
    pub(super) image: JsonObject,
    pub(super) plan: Option<JsonObject>,
    pub(super) subnet: String,
    /// A name in the provider's own resource group, or a whole id.
    pub(super) network_security_group: Option<String>,
    pub(super) public_ip: bool,
    pub(super) accelerated_networking: Option<bool>,
    pub(super) os_disk_type: Option<&'static str>,
    pub(super) os_disk_size_gib: Option<u32>,
    pub(super) os: Os,
    /// `None`: the image is specialized, and has its users already.
    pub(super) admin_username: Option<String>,
    pub(super) ssh_public_key: Option<String>,
    pub(super) run_script: RunScript,
    pub(super) license_type: Option<&'static str>,
    pub(super) zone: Option<&'static str>,
    pub(super) spot: bool,
    pub(super) trusted_launch: bool,
    pub(super) tags: BTreeMap<String, String>,
    pub(super) overrides: Overrides,
}

/// The words of the API's `StorageAccountTypes`.
const DISK_TYPES: [(&str, &str); 5] = [
    ("Standard_LRS", "Standard_LRS"),
    ("StandardSSD_LRS", "StandardSSD_LRS"),
    ("StandardSSD_ZRS", "StandardSSD_ZRS"),
    ("Premium_LRS", "Premium_LRS"),
    ("Premium_ZRS", "Premium_ZRS"),
];
const LICENSES: [(&str, &str); 3] =
    [("Windows_Server", "Windows_Server"), ("Windows_Client", "Windows_Client"), ("None", "None")];
const ZONES: [(&str, &str); 3] = [("1", "1"), ("2", "2"), ("3", "3")];

const IMAGE_RULE: &str = "\"publisher:offer:sku:version\", the id of an image (\"/subscriptions/...\"), or an image reference \
                          with publisher, offer, sku and version, or with one of id, sharedGalleryImageId, communityGalleryImageId";
const SUBNET_RULE: &str = "the whole id of a subnet: \"/subscriptions/.../resourceGroups/.../providers/Microsoft.Network/virtualNetworks/.../subnets/...\"";
const USER_RULE: &str =
    "1 to 20 letters, digits, '.', '_' or '-', beginning with a letter; not one of the names that everybody tries";

/// Names that Azure refuses for administrators, as everybody tries them first.
const USERS_REFUSED: &[&str] = &[
    "1",
    "123",
    "a",
    "actuser",
    "adm",
    "admin",
    "admin1",
    "admin2",
    "administrator",
    "aspnet",
    "backup",
    "console",
    "david",
    "guest",
    "john",
    "owner",
    "root",
    "server",
    "sql",
    "support",
    "support_388945a0",
    "sys",
    "test",
    "test1",
    "test2",
    "test3",
    "user",
    "user1",
    "user2",
    "user3",
    "user4",
    "user5",
    "video",
];

impl MachineSettings {
    /// Reads a config's `machine` object. Required: `vm_size`, `image`, `subnet` and, unless `specialized`, `admin_username`;
    /// on Linux `ssh_public_key` too. Optional: `plan` (of a marketplace image), `network_security_group` (name or id),
    /// `public_ip`, `accelerated_networking`, `os_disk_type`, `os_disk_size_gib`, `os` (`windows`, the default, or `linux`),
    /// `specialized` (the image is not generalized and has its users), `run_script` (`extension`, the default on Windows, or
    /// `image`), `license_type`, `zone`, `spot`, `trusted_launch`, `tags` and `overrides` (merged into the body of the request).
    ///
    /// # Errors
    ///
    /// Every mistake, with what was given and what is allowed.
    pub fn from_json(object: &JsonObject) -> Result<Self, Vec<Problem>> {
        let mut fields = Fields::new(object);
        let size_rule = "the name of a size, as in \"Standard_D4s_v5\"";
        let vm_size = formatted(&mut fields, "vm_size", size_rule, is_size);
        let vm_size = fields.require("vm_size", vm_size, size_rule);
        let image = read_image(&mut fields);
        let image = fields.require("image", image, IMAGE_RULE);
        let plan = read_plan(&mut fields);
        let subnet = formatted(&mut fields, "subnet", SUBNET_RULE, |id| is_id(id, "Microsoft.Network/virtualNetworks"));
        let subnet = fields.require("subnet", subnet, SUBNET_RULE);
        let group_rule = "the name of a group in the provider's resource group, or its whole id";
        let network_security_group = formatted(&mut fields, "network_security_group", group_rule, |text| {
            is_id(text, "Microsoft.Network/networkSecurityGroups") || is_resource_name(text)
        });
        let public_ip = fields.boolean("public_ip").unwrap_or(false);
        let accelerated_networking = fields.boolean("accelerated_networking");
        let os_disk_type = fields.choice("os_disk_type", &DISK_TYPES);
        let os_disk_size_gib = fields.integer("os_disk_size_gib", 1..=4095);
        let os = fields.choice("os", &[("windows", Os::Windows), ("linux", Os::Linux)]).unwrap_or(Os::Windows);
        let specialized = fields.boolean("specialized").unwrap_or(false);
        let admin_username = formatted(&mut fields, "admin_username", USER_RULE, is_user);
        let ssh_public_key =
            formatted(&mut fields, "ssh_public_key", "one line, as in \"ssh-ed25519 AAAA...\"", is_ssh_key);
        check_users(&mut fields, os, specialized, admin_username.is_some(), ssh_public_key.is_some());
        let run_script = read_run_script(&mut fields, os);
        let license_type = fields.choice("license_type", &LICENSES);
        let zone = fields.choice("zone", &ZONES);
        let spot = fields.boolean("spot").unwrap_or(false);
        let trusted_launch = fields.boolean("trusted_launch").unwrap_or(false);
        let tags = read_tags(&mut fields);
        let overrides = read_overrides(&mut fields);
        match (vm_size, image, subnet, fields.finish()) {
            (Some(vm_size), Some(image), Some(subnet), problems) if problems.is_empty() => Ok(Self {
                vm_size,
                image,
                plan,
                subnet,
                network_security_group,
                public_ip,
                accelerated_networking,
                os_disk_type,
                os_disk_size_gib,
                os,
                admin_username,
                ssh_public_key,
                run_script,
                license_type,
                zone,
                spot,
                trusted_launch,
                tags,
                overrides,
            }),
            (.., problems) => Err(problems),
        }
    }

    /// The operating system of the machines.
    pub fn os(&self) -> Os {
        self.os
    }

    /// Who runs the startup script.
    pub fn run_script(&self) -> RunScript {
        self.run_script
    }

    /// Whether machines need a password for their administrator.
    pub(super) fn needs_password(&self) -> bool {
        self.os == Os::Windows && self.admin_username.is_some()
    }
}

/// A text of a certain form.
fn formatted(
    fields: &mut Fields<'_>,
    name: &'static str,
    allowed: &str,
    fits: impl Fn(&str) -> bool,
) -> Option<String> {
    let text = fields.text(name)?;
    if fits(&text) {
        return Some(text);
    }
    fields.problem(Problem::new(name, shown(&Value::String(text)), allowed));
    None
}

fn is_size(text: &str) -> bool {
    (1..=64).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
}

fn is_resource_name(text: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
    (1..=80).contains(&text.len()) && text.bytes().all(allowed)
}

/// Whether this is a resource id in which a provider and type stand.
fn is_id(text: &str, of: &str) -> bool {
    let odd = |c: char| c.is_whitespace() || c.is_control() || "?#%\\".contains(c);
    let parts: Vec<&str> = text.split('/').collect();
    let lower = text.to_ascii_lowercase();
    let of = format!("/providers/{}/", of.to_ascii_lowercase());
    let named = lower.split_once(&of).is_some_and(|(_, name)| !name.is_empty());
    let subnet = !of.contains("virtualnetworks") || (parts.len() == 11 && lower.contains("/subnets/"));
    lower.starts_with("/subscriptions/")
        && named
        && subnet
        && !text.contains(odd)
        && parts.iter().skip(1).all(|part| !part.is_empty())
}

fn is_user(text: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
    let form = (1..=20).contains(&text.len())
        && text.bytes().all(allowed)
        && text.starts_with(|c: char| c.is_ascii_alphabetic());
    form && !text.ends_with('.') && !USERS_REFUSED.contains(&text.to_ascii_lowercase().as_str())
}

fn is_ssh_key(text: &str) -> bool {
    let mut words = text.split(' ');
    let kind = words.next().is_some_and(|kind| kind.starts_with("ssh-") || kind.starts_with("ecdsa-"));
    kind && words.next().is_some_and(|key| key.len() >= 32) && !text.contains(char::is_control)
}

/// An image in any of the ways in which people write one down, as an image reference of the API.
fn read_image(fields: &mut Fields<'_>) -> Option<JsonObject> {
    let value = fields.value("image")?;
    let reference = match value {
        Value::String(text) if text.starts_with('/') => image_id(text).then(|| json!({ "id": text })),
        Value::String(text) => urn(text),
        Value::Object(object) => is_reference(object).then(|| value.clone()),
        _ => None,
    };
    let Some(Value::Object(reference)) = reference else {
        fields.problem(Problem::new("image", shown(value), IMAGE_RULE));
        return None;
    };
    Some(reference)
}

fn image_id(text: &str) -> bool {
    is_id(text, "Microsoft.Compute/images") || is_id(text, "Microsoft.Compute/galleries")
}

/// `publisher:offer:sku:version`, as the Azure tools write it.
fn urn(text: &str) -> Option<Value> {
    let parts: Vec<&str> = text.split(':').collect();
    let [publisher, offer, sku, version] = parts.as_slice() else { return None };
    let fits = parts.iter().all(|part| is_resource_name(part));
    fits.then(|| json!({ "publisher": publisher, "offer": offer, "sku": sku, "version": version }))
}

fn is_reference(object: &JsonObject) -> bool {
    const MARKET: [&str; 4] = ["publisher", "offer", "sku", "version"];
    const ONE: [&str; 3] = ["id", "sharedGalleryImageId", "communityGalleryImageId"];
    let text = |name: &&str| object.get(*name).and_then(Value::as_str).is_some_and(|text| !text.is_empty());
    let market = object.len() == MARKET.len() && MARKET.iter().all(&text);
    market || (object.len() == 1 && ONE.iter().any(text))
}

fn read_plan(fields: &mut Fields<'_>) -> Option<JsonObject> {
    const NAMES: [&str; 3] = ["name", "publisher", "product"];
    let object = fields.object("plan")?;
    let text = |name: &&str| object.get(*name).and_then(Value::as_str).is_some_and(|text| !text.is_empty());
    if object.len() != NAMES.len() || !NAMES.iter().all(text) {
        let allowed =
            "an object with the texts name, publisher and product, as the image's page in the marketplace has them";
        fields.problem(Problem::new("plan", shown(&Value::Object(object.clone())), allowed));
        return None;
    }
    Some(object.clone())
}

fn check_users(fields: &mut Fields<'_>, os: Os, specialized: bool, has_user: bool, has_key: bool) {
    let mut rule = |holds: bool, path: &str, given: &str, allowed: &str| {
        if !holds {
            fields.problem(Problem::new(path, given, allowed));
        }
    };
    if specialized {
        let allowed = "nothing: a specialized image has its users already";
        rule(!has_user, "admin_username", "a name", allowed);
        rule(!has_key, "ssh_public_key", "a key", allowed);
    } else if os == Os::Windows {
        rule(!has_key, "ssh_public_key", "a key", "only with os = \"linux\"");
    }
    if !specialized {
        fields.require("admin_username", has_user.then_some(()), USER_RULE);
        if os == Os::Linux {
            fields.require("ssh_public_key", has_key.then_some(()), "one line, as in \"ssh-ed25519 AAAA...\"");
        }
    }
}

fn read_run_script(fields: &mut Fields<'_>, os: Os) -> RunScript {
    let choice = fields.choice("run_script", &[("extension", RunScript::Extension), ("image", RunScript::Image)]);
    match (os, choice) {
        (Os::Linux, Some(RunScript::Extension)) => {
            let allowed = "\"image\" or nothing with os = \"linux\": cloud-init runs the script there";
            fields.problem(Problem::new("run_script", "\"extension\"", allowed));
            RunScript::Image
        }
        (Os::Linux, _) => RunScript::Image,
        (Os::Windows, choice) => choice.unwrap_or(RunScript::Extension),
    }
}

fn read_tags(fields: &mut Fields<'_>) -> BTreeMap<String, String> {
    let mut tags = BTreeMap::new();
    let Some(object) = fields.object("tags") else { return tags };
    if object.len() > TAGS_MAX {
        let allowed = format!("at most {TAGS_MAX}: Azure allows 50, and the others are ours");
        fields.problem(Problem::new("tags", format!("{} tags", object.len()), allowed));
    }
    for (key, value) in object {
        let path = format!("tags.{key}");
        let odd = |c: char| "<>%&\\?/".contains(c) || c.is_control();
        if key.is_empty() || key.chars().count() > 512 || key.contains(odd) {
            let allowed = "a key of 1 to 512 characters without < > % & \\ ? /";
            fields.problem(Problem::new("tags", shown(&Value::String(key.clone())), allowed));
        }
        let lower = key.to_lowercase();
        if lower.starts_with(TAG_PREFIX) || ["microsoft", "azure", "windows"].iter().any(|word| lower.starts_with(word))
        {
            let allowed =
                format!("another key: {TAG_PREFIX:?} is ours, \"microsoft\", \"azure\" and \"windows\" are Azure's");
            fields.problem(Problem::new(path.clone(), "a reserved key", allowed));
        }
        match value.as_str() {
            Some(text) if text.chars().count() <= 256 => _ = tags.insert(key.clone(), text.to_owned()),
            _ => fields.problem(Problem::new(path, shown(value), "a text of at most 256 characters")),
        }
    }
    tags
}

fn read_overrides(fields: &mut Fields<'_>) -> Overrides {
    let Some(object) = fields.object("overrides") else { return Overrides::default() };
    let mut problems = Vec::new();
    let overrides = Overrides::read(object, &mut problems);
    problems.into_iter().for_each(|problem| fields.problem(problem));
    overrides
}

#[cfg(test)]
#[path = "machine_tests.rs"]
mod tests;
