//! A stand-in for EC2, as far as the provider uses it: what a real one does and simulators do not.
//!
//! Tokens are idempotent, and refuse another request or one whose machine is gone; new machines are hidden from reads for a
//! while; states take their time; a launch can fail after it was accepted; lists have pages; filters that are not known are
//! refused rather than passed over. Its time moves only when it is told to.
//!
//! Written from the EC2 API Reference (RunInstances, DescribeInstances, TerminateInstances, the Describe actions of what
//! machines are made from, "Ensuring idempotency", "Eventual consistency", "Error codes").

use std::collections::BTreeMap;
use std::time::Duration;

use crate::answers;
use crate::stub::Request;

/// A status and a body.
pub(crate) type Reply = (u16, String);

/// What there is to make machines from.
pub(crate) const AMI: &str = "ami-0123456789abcdef0";
pub(crate) const SUBNET: &str = "subnet-0123456789abcdef0";
pub(crate) const GROUP: &str = "sg-0123456789abcdef0";
pub(crate) const KEY_PAIR: &str = "desktops";
const SIZES: [&str; 2] = ["m7i.large", "m7i.xlarge"];
const ZONE: &str = "us-east-1a";

/// How long terminated machines are shown, in milliseconds: about an hour (User Guide, "Terminate instances").
const SHOWN_WHEN_GONE: u64 = 3_600_000;

/// How the cloud behaves; times in milliseconds.
#[derive(Clone, Debug)]
pub(crate) struct Behaviour {
    /// How long new machines are hidden from reads.
    pub(crate) hidden: u64,
    pub(crate) launch_time: u64,
    pub(crate) delete_time: u64,
    /// Launches are accepted and fail before the machine runs.
    pub(crate) launches_fail: bool,
}

impl Default for Behaviour {
    fn default() -> Self {
        Self { hidden: 5_000, launch_time: 10_000, delete_time: 30_000, launches_fail: false }
    }
}

#[derive(Clone, Debug)]
struct Instance {
    tags: BTreeMap<String, String>,
    token: String,
    visible_at: u64,
    running_at: u64,
    /// When it ends by itself, before it runs.
    fails_at: Option<u64>,
    strange: bool,
    terminating_at: Option<u64>,
    gone_at: Option<u64>,
    /// Volumes and network interfaces that go with it.
    parts: u64,
}

impl Instance {
    fn state(&self, now: u64) -> (u16, &'static str) {
        let passed = |at: Option<u64>| at.is_some_and(|at| at <= now);
        match () {
            () if passed(self.gone_at) || passed(self.fails_at) => (48, "terminated"),
            () if passed(self.terminating_at) => (32, "shutting-down"),
            () if self.strange => (112, "migrating"),
            () if self.running_at <= now => (16, "running"),
            () => (0, "pending"),
        }
    }

    fn is_gone(&self, now: u64) -> bool {
        self.state(now).0 == 48
    }
}

/// The cloud.
#[derive(Debug, Default)]
pub(crate) struct StandIn {
    pub(crate) behaviour: Behaviour,
    now: u64,
    instances: BTreeMap<String, Instance>,
    /// The request that came with each token, and the machine it made.
    tokens: BTreeMap<String, (BTreeMap<String, String>, String)>,
}

fn refused(code: &str, message: &str) -> Reply {
    (400, answers::error(code, message))
}

/// The members of a list parameter, in their order.
fn list(form: &BTreeMap<String, String>, name: &str) -> Vec<String> {
    (1..).map_while(|number| form.get(&format!("{name}.{number}")).cloned()).collect()
}

impl StandIn {
    pub(crate) fn now(&self) -> u64 {
        self.now
    }

    pub(crate) fn pass(&mut self, span: Duration) {
        self.now += u64::try_from(span.as_millis()).expect("a short time");
    }

    /// The machines that cost money, and how many parts they have.
    pub(crate) fn truth(&self) -> (Vec<String>, u64) {
        let there = self.instances.iter().filter(|(_, instance)| !instance.is_gone(self.now));
        (there.clone().map(|(id, _)| id.clone()).collect(), there.map(|(_, instance)| instance.parts).sum())
    }

    /// Brings a machine into a state that no documentation knows.
    pub(crate) fn confuse(&mut self, id: &str) -> bool {
        self.instances.get_mut(id).map(|instance| instance.strange = true).is_some()
    }

    pub(crate) fn answer(&mut self, request: &Request) -> Reply {
        let form = request.form();
        let dry = form.get("DryRun").is_some_and(|value| value == "true");
        match form.get("Action").map(String::as_str) {
            Some("RunInstances") => self.run(form, dry),
            Some("DescribeInstances") => self.describe(&form),
            Some("TerminateInstances") => self.terminate(&form, dry),
            Some("DeleteTags") => self.delete_tags(&form),
            Some("DescribeImages") => known(&form, "ImageId", AMI, "InvalidAMIID.NotFound", || {
                let image = format!(
                    "<imageId>{AMI}</imageId><imageState>available</imageState><platform>windows</platform>\
                     <rootDeviceName>/dev/sda1</rootDeviceName>"
                );
                answers::set("DescribeImages", "imagesSet", &[image])
            }),
            Some("DescribeSubnets") => {
                known(&form, "SubnetId", SUBNET, "InvalidSubnetID.NotFound", || answers::subnets(SUBNET, ZONE, 200))
            }
            Some("DescribeSecurityGroups") => {
                known(&form, "GroupId", GROUP, "InvalidGroup.NotFound", || answers::groups(GROUP))
            }
            Some("DescribeKeyPairs") => {
                known(&form, "KeyName", KEY_PAIR, "InvalidKeyPair.NotFound", || answers::key_pairs(KEY_PAIR, "rsa"))
            }
            Some("DescribeInstanceTypeOfferings") => {
                let wanted = list(&form, "Filter.1.Value");
                let sizes: Vec<&str> = SIZES.into_iter().filter(|size| wanted.iter().any(|one| one == size)).collect();
                (200, answers::offerings(&sizes))
            }
            action => refused("InvalidAction", &format!("The action {action:?} is not valid for this web service.")),
        }
    }

    fn run(&mut self, form: BTreeMap<String, String>, dry: bool) -> Reply {
        let get = |name: &str| form.get(name).cloned().unwrap_or_default();
        if get("ImageId") != AMI {
            return refused("InvalidAMIID.NotFound", "The image id does not exist");
        }
        if !SIZES.contains(&get("InstanceType").as_str()) {
            return refused("InvalidParameterValue", "Invalid value for InstanceType");
        }
        if !["", SUBNET].contains(&get("SubnetId").as_str()) {
            return refused("InvalidSubnetID.NotFound", "The subnet ID does not exist");
        }
        if list(&form, "SecurityGroupId").iter().any(|group| group != GROUP) {
            return refused("InvalidGroup.NotFound", "The security group does not exist");
        }
        if (get("MinCount").as_str(), get("MaxCount").as_str()) != ("1", "1") {
            return refused("InvalidParameterValue", "this stand-in makes one machine in each call");
        }
        if dry {
            return (412, answers::error("DryRunOperation", "Request would have succeeded, but DryRun flag is set."));
        }
        let token = get("ClientToken");
        if let Some((before, id)) = self.tokens.get(&token).filter(|_| !token.is_empty()) {
            if *before != form {
                let message =
                    "Arguments on this idempotent request are inconsistent with arguments used in previous request(s).";
                return refused("IdempotentParameterMismatch", message);
            }
            if self.instances[id].is_gone(self.now) {
                return refused("IdempotentInstanceTerminated", "The instance of this request has been terminated.");
            }
            return (200, self.launched(id));
        }
        let id = format!("i-{:017x}", self.instances.len() + 1);
        let behaviour = &self.behaviour;
        let running_at = self.now + behaviour.launch_time;
        let instance = Instance {
            tags: tags(&form),
            token: token.clone(),
            visible_at: self.now + behaviour.hidden,
            running_at,
            fails_at: behaviour.launches_fail.then_some(running_at),
            strange: false,
            terminating_at: None,
            gone_at: None,
            parts: 2,
        };
        self.instances.insert(id.clone(), instance);
        if !token.is_empty() {
            self.tokens.insert(token, (form, id.clone()));
        }
        (200, self.launched(&id))
    }

    fn launched(&self, id: &str) -> String {
        answers::launched_as(id, self.instances[id].state(self.now))
    }

    /// One instance as Describe shows it.
    fn shown(&self, id: &str, instance: &Instance) -> String {
        let mut more = format!("<clientToken>{}</clientToken>", instance.token);
        let number = u64::from_str_radix(&id[2..], 16).expect("a number");
        let state = instance.state(self.now);
        if state.0 != 48 {
            more += &format!("<privateIpAddress>127.0.{}.{}</privateIpAddress>", 100 + number / 250, 1 + number % 250);
        }
        if instance.fails_at.is_some_and(|at| at <= self.now) {
            more += &answers::reason("Server.InternalError", "Server.InternalError: Internal error on launch");
        } else if instance.terminating_at.is_some() {
            more += &answers::reason(
                "Client.UserInitiatedShutdown",
                "Client.UserInitiatedShutdown: User initiated shutdown",
            );
        }
        let tag = |(key, value): (&String, &String)| {
            format!("<item><key>{}</key><value>{}</value></item>", answers::escaped(key), answers::escaped(value))
        };
        more += &format!("<tagSet>{}</tagSet>", instance.tags.iter().map(tag).collect::<String>());
        answers::instance(id, state, &more)
    }

    fn describe(&self, form: &BTreeMap<String, String>) -> Reply {
        let wanted = list(form, "InstanceId");
        if let Some(id) = wanted.iter().find(|id| !self.instances.contains_key(*id)) {
            return refused("InvalidInstanceID.NotFound", &format!("The instance ID '{id}' does not exist"));
        }
        let mut filters = Vec::new();
        for number in 1.. {
            let Some(name) = form.get(&format!("Filter.{number}.Name")) else { break };
            let Some(key) = name.strip_prefix("tag:") else {
                return refused("InvalidParameterValue", &format!("The filter '{name}' is invalid"));
            };
            filters.push((key.to_owned(), list(form, &format!("Filter.{number}.Value"))));
        }
        let fits = |(id, instance): &(&String, &Instance)| {
            let is_shown = instance.gone_at.or(instance.fails_at).is_none_or(|at| self.now < at + SHOWN_WHEN_GONE);
            let is_tagged = |(key, values): &(String, Vec<String>)| {
                instance.tags.get(key).is_some_and(|value| values.contains(value))
            };
            instance.visible_at <= self.now
                && is_shown
                && (wanted.is_empty() || wanted.contains(id))
                && filters.iter().all(is_tagged)
        };
        let all: Vec<String> = self.instances.iter().filter(fits).map(|(id, one)| self.shown(id, one)).collect();
        let most = form.get("MaxResults").map(|text| text.parse::<usize>());
        let most = match most {
            None => 1000,
            Some(Ok(most @ 5..=1000)) => most,
            Some(_) => return refused("InvalidParameterValue", "MaxResults must be between 5 and 1000"),
        };
        let from =
            match form.get("NextToken").map(|token| token.strip_prefix("page-").and_then(|rest| rest.parse().ok())) {
                None => 0,
                Some(Some(from)) => from,
                Some(None) => return refused("InvalidNextToken", "The token is not valid"),
            };
        let page: Vec<String> = all.iter().skip(from).take(most).cloned().collect();
        let next = (from + page.len() < all.len()).then(|| format!("page-{}", from + page.len()));
        (200, answers::described(&page, next.as_deref()))
    }

    fn terminate(&mut self, form: &BTreeMap<String, String>, dry: bool) -> Reply {
        let ids = list(form, "InstanceId");
        let [id] = ids.as_slice() else { return refused("InvalidParameterValue", "one id in each call here") };
        let is_id = id.strip_prefix("i-").is_some_and(|rest| rest.bytes().all(|byte| byte.is_ascii_hexdigit()));
        if !is_id {
            return refused("InvalidInstanceID.Malformed", &format!("Invalid id: \"{id}\""));
        }
        let (now, time) = (self.now, self.behaviour.delete_time);
        let Some(instance) = self.instances.get_mut(id) else {
            return refused("InvalidInstanceID.NotFound", &format!("The instance ID '{id}' does not exist"));
        };
        if dry {
            return (412, answers::error("DryRunOperation", "Request would have succeeded, but DryRun flag is set."));
        }
        if !instance.is_gone(now) && instance.terminating_at.is_none() {
            instance.terminating_at = Some(now);
            instance.gone_at = Some(now + time);
        }
        let (code, name) = instance.state(now);
        (200, answers::terminating(id, code, name))
    }

    fn delete_tags(&mut self, form: &BTreeMap<String, String>) -> Reply {
        for id in list(form, "ResourceId") {
            let Some(instance) = self.instances.get_mut(&id) else {
                return refused("InvalidID", &format!("The ID '{id}' is not valid"));
            };
            for key in (1..).map_while(|number| form.get(&format!("Tag.{number}.Key"))) {
                instance.tags.remove(key);
            }
        }
        (200, answers::done("DeleteTags"))
    }
}

/// The tags that a launch gives its machine.
fn tags(form: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let mut tags = BTreeMap::new();
    for number in 1.. {
        let Some(kind) = form.get(&format!("TagSpecification.{number}.ResourceType")) else { break };
        let get = |tag: u32, part| form.get(&format!("TagSpecification.{number}.Tag.{tag}.{part}")).cloned();
        if kind == "instance" {
            tags.extend((1..).map_while(|tag| Some((get(tag, "Key")?, get(tag, "Value")?))));
        }
    }
    tags
}

/// The answer of a Describe action for the one thing of its kind that there is.
fn known(form: &BTreeMap<String, String>, name: &str, only: &str, code: &str, answer: impl Fn() -> String) -> Reply {
    match list(form, name).iter().find(|id| *id != only) {
        Some(id) => refused(code, &format!("'{id}' does not exist")),
        None => (200, answer()),
    }
}
