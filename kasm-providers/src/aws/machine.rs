//! The settings of a machine: what a config's `machine` object may say for EC2.
//!
//! Formats and limits: EC2 API Reference, RunInstances; EC2 User Guide, "Tag restrictions" and "Amazon EBS volume types".

use std::collections::BTreeMap;

use kasm_autoscale_core::fields::{Fields, JsonObject, Problem, shown};
use serde_json::Value;

use super::overrides::Overrides;
use super::user_data::Os;

/// The prefix of the tags that are ours alone.
pub(super) const TAG_PREFIX: &str = "kasm-autoscale:";

/// EC2's limit of 50 tags on a resource, less our four and the name.
const TAGS_MAX: usize = 45;

/// What a machine is made of. Made by [`from_json`](Self::from_json) only, so it is free of mistakes.
#[derive(Clone, Debug)]
pub struct MachineSettings {
    pub(super) ami: String,
    pub(super) instance_type: String,
    pub(super) subnet_id: Option<String>,
    pub(super) security_group_ids: Vec<String>,
    pub(super) key_name: Option<String>,
    pub(super) instance_profile: Option<String>,
    pub(super) ebs: Option<Ebs>,
    pub(super) root_device_name: Option<String>,
    pub(super) public_ip: Option<bool>,
    pub(super) tags: BTreeMap<String, String>,
    pub(super) os: Os,
    pub(super) overrides: Overrides,
}

/// The root volume, as far as it differs from the image's.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Ebs {
    pub(super) size_gib: Option<i32>,
    pub(super) volume_type: Option<&'static str>,
    pub(super) iops: Option<i32>,
}

/// The words of the API's `VolumeType`.
const VOLUME_TYPES: [(&str, &str); 7] = [
    ("gp3", "gp3"),
    ("gp2", "gp2"),
    ("io1", "io1"),
    ("io2", "io2"),
    ("st1", "st1"),
    ("sc1", "sc1"),
    ("standard", "standard"),
];

impl MachineSettings {
    /// Reads a config's `machine` object. Required: `ami` and `instance_type`. Optional: `subnet_id`,
    /// `security_group_ids`, `key_name`, `instance_profile` (name or ARN), `ebs_volume_size_gib`, `ebs_volume_type`,
    /// `ebs_iops`, `root_device_name` (default: the image's own), `public_ip`, `tags`, `os` (`windows`, the default, or
    /// `linux`) and `overrides` (members of RunInstances by their API names).
    ///
    /// # Errors
    ///
    /// Every mistake, with what was given and what is allowed.
    pub fn from_json(object: &JsonObject) -> Result<Self, Vec<Problem>> {
        let mut fields = Fields::new(object);
        let ami = formatted(&mut fields, "ami", "the id of an image, as in \"ami-0123456789abcdef0\"", |id| {
            is_id(id, "ami-")
        });
        let ami = fields.require("ami", ami, "the id of an image, as in \"ami-0123456789abcdef0\"");
        let instance_type =
            formatted(&mut fields, "instance_type", "an instance type, as in \"m7i.large\"", is_instance_type);
        let instance_type = fields.require("instance_type", instance_type, "an instance type, as in \"m7i.large\"");
        let subnet_id =
            formatted(&mut fields, "subnet_id", "as in \"subnet-0123456789abcdef0\"", |id| is_id(id, "subnet-"));
        let security_group_ids = read_security_groups(&mut fields);
        let key_name =
            formatted(&mut fields, "key_name", "the name of a key pair, at most 255 characters", is_key_name);
        let profile_rule = "an instance profile's name (letters, digits and +=,.@_-, at most 128) or its ARN";
        let instance_profile = formatted(&mut fields, "instance_profile", profile_rule, is_instance_profile);
        let root_device_name = formatted(&mut fields, "root_device_name", "as in \"/dev/sda1\"", is_device_name);
        let ebs = read_ebs(&mut fields);
        let public_ip = fields.boolean("public_ip");
        let tags = read_tags(&mut fields);
        let os = fields.choice("os", &[("windows", Os::Windows), ("linux", Os::Linux)]).unwrap_or(Os::Windows);
        let given = [
            ("subnet_id", subnet_id.is_some()),
            ("security_group_ids", !security_group_ids.is_empty()),
            ("public_ip", public_ip.is_some()),
            ("ebs_volume_size_gib", ebs.as_ref().is_some_and(|ebs| ebs.size_gib.is_some())),
            ("ebs_volume_type", ebs.as_ref().is_some_and(|ebs| ebs.volume_type.is_some())),
        ];
        let overrides = read_overrides(&mut fields, &given);
        match (ami, instance_type, fields.finish()) {
            (Some(ami), Some(instance_type), problems) if problems.is_empty() => Ok(Self {
                ami,
                instance_type,
                subnet_id,
                security_group_ids,
                key_name,
                instance_profile,
                ebs,
                root_device_name,
                public_ip,
                tags,
                os,
                overrides,
            }),
            (_, _, problems) => Err(problems),
        }
    }

    /// The operating system of the machines.
    pub fn os(&self) -> Os {
        self.os
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

/// Ids are a prefix and 8 (the old ones) or 17 hexadecimal digits (User Guide, "Resource IDs").
fn is_id(text: &str, prefix: &str) -> bool {
    let is_hex = |digits: &str| digits.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    text.strip_prefix(prefix).is_some_and(|digits| matches!(digits.len(), 8 | 17) && is_hex(digits))
}

fn is_instance_type(text: &str) -> bool {
    let part = |part: &str| {
        !part.is_empty() && part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
    };
    text.len() <= 32 && text.split_once('.').is_some_and(|(family, size)| part(family) && part(size))
}

fn is_key_name(text: &str) -> bool {
    (1..=255).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic() || b == b' ')
}

fn is_device_name(text: &str) -> bool {
    let is_allowed = |b: u8| b.is_ascii_alphanumeric() || b == b'/';
    (1..=64).contains(&text.len()) && text.bytes().all(is_allowed)
}

fn is_instance_profile(text: &str) -> bool {
    let is_name = |name: &str| {
        (1..=128).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"+=,.@_-".contains(&b))
    };
    let Some((_, path)) = text.split_once(":instance-profile/") else { return is_name(text) };
    is_arn(text) && path.split('/').all(is_name)
}

/// Whether an instance profile is named by its ARN.
pub(super) fn is_arn(text: &str) -> bool {
    let mut parts = text.split(':');
    let partition = parts.next() == Some("arn") && parts.next().is_some_and(|partition| partition.starts_with("aws"));
    let account = |account: &str| account.len() == 12 && account.bytes().all(|b| b.is_ascii_digit());
    partition && parts.next() == Some("iam") && parts.next() == Some("") && parts.next().is_some_and(account)
}

fn read_security_groups(fields: &mut Fields<'_>) -> Vec<String> {
    let ids = fields.texts("security_group_ids").unwrap_or_default();
    for (index, id) in ids.iter().enumerate() {
        if !is_id(id, "sg-") {
            let given = shown(&Value::String(id.clone()));
            fields.problem(Problem::new(
                format!("security_group_ids[{index}]"),
                given,
                "as in \"sg-0123456789abcdef0\"",
            ));
        }
    }
    ids
}

fn read_ebs(fields: &mut Fields<'_>) -> Option<Ebs> {
    let size_gib = fields.integer("ebs_volume_size_gib", 1..=65_536);
    let volume_type = fields.choice("ebs_volume_type", &VOLUME_TYPES);
    let iops: Option<i32> = fields.integer("ebs_iops", 100..=256_000);
    match (volume_type, iops) {
        (Some("io1" | "io2"), None) => {
            fields.problem(Problem::new(
                "ebs_iops",
                "nothing",
                "required with ebs_volume_type io1 and io2: 100 to 256000",
            ));
        }
        (None | Some("gp2" | "st1" | "sc1" | "standard"), Some(iops)) => {
            fields.problem(Problem::new("ebs_iops", iops.to_string(), "only with ebs_volume_type gp3, io1 or io2"));
        }
        _ => (),
    }
    (size_gib.is_some() || volume_type.is_some()).then_some(Ebs { size_gib, volume_type, iops })
}

fn read_tags(fields: &mut Fields<'_>) -> BTreeMap<String, String> {
    let mut tags = BTreeMap::new();
    let Some(object) = fields.object("tags") else { return tags };
    if object.len() > TAGS_MAX {
        let allowed = format!("at most {TAGS_MAX}: EC2 allows 50, and five are ours");
        fields.problem(Problem::new("tags", format!("{} tags", object.len()), allowed));
    }
    for (key, value) in object {
        let path = format!("tags.{key}");
        let lower = key.to_lowercase();
        if key.is_empty() || key.chars().count() > 128 {
            fields.problem(Problem::new(
                "tags",
                format!("a key of {} characters", key.chars().count()),
                "1 to 128 characters",
            ));
        }
        if lower.starts_with("aws:") || lower.starts_with(TAG_PREFIX) || key == "Name" {
            let allowed = format!("another key: \"aws:\" is AWS's, {TAG_PREFIX:?} and \"Name\" are ours");
            fields.problem(Problem::new(path.clone(), "a reserved key", allowed));
        }
        match value.as_str() {
            Some(text) if text.chars().count() <= 256 => _ = tags.insert(key.clone(), text.to_owned()),
            _ => fields.problem(Problem::new(path, shown(value), "a text of at most 256 characters")),
        }
    }
    tags
}

/// Fields and members of the request that say the same in two ways. EC2 takes the network either at the top of the
/// request or in its interfaces (InvalidParameterCombination), and a list of volumes in overrides replaces ours.
const EXCLUSIVE: [(&str, &[&str]); 5] = [
    ("subnet_id", &["NetworkInterfaces"]),
    ("security_group_ids", &["NetworkInterfaces"]),
    (
        "public_ip",
        &[
            "NetworkInterfaces",
            "SubnetId",
            "SecurityGroupIds",
            "SecurityGroups",
            "PrivateIpAddress",
            "Ipv6Addresses",
            "Ipv6AddressCount",
        ],
    ),
    ("ebs_volume_size_gib", &["BlockDeviceMappings"]),
    ("ebs_volume_type", &["BlockDeviceMappings"]),
];

/// The overrides, and what they must not be mixed with; `given` says which fields are there.
fn read_overrides(fields: &mut Fields<'_>, given: &[(&str, bool)]) -> Overrides {
    let Some(object) = fields.object("overrides") else { return Overrides::default() };
    let mut problems = Vec::new();
    let overrides = Overrides::read(object, &mut problems);
    let inner = object.get("instance_config").and_then(Value::as_object).unwrap_or(object);
    for (field, members) in EXCLUSIVE.iter().filter(|(field, _)| given.contains(&(*field, true))) {
        for member in members.iter().filter(|member| inner.get(**member).is_some_and(|value| !value.is_null())) {
            let allowed = format!("the field {field} and overrides.{member} exclude each other");
            problems.push(Problem::new(format!("overrides.{member}"), "both", allowed));
        }
    }
    problems.into_iter().for_each(|problem| fields.problem(problem));
    overrides
}

#[cfg(test)]
#[path = "machine_tests.rs"]
mod tests;
