//! EC2 as moto shows it, behind the daemon's back.

use std::collections::BTreeMap;

use crate::moto::Moto;

/// A moto with a subnet whose addresses are all loopback ones, so that nothing a test does leaves the machine.
pub(crate) struct Ec2 {
    pub(crate) moto: Moto,
    pub(crate) subnet: String,
}

/// An instance as moto shows it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Instance {
    pub(crate) id: String,
    pub(crate) state: String,
    pub(crate) address: String,
    pub(crate) tags: BTreeMap<String, String>,
}

impl Instance {
    /// Whether it is neither terminated nor on its way there.
    pub(crate) fn is_live(&self) -> bool {
        !matches!(self.state.as_str(), "terminated" | "shutting-down")
    }
}

impl Ec2 {
    /// Starts it. `None`: moto is not installed, and the notice has been given.
    pub(crate) fn start() -> Option<Self> {
        let mut ec2 = Self { moto: Moto::start()?, subnet: String::new() };
        let vpc = ec2.call("Action=CreateVpc&CidrBlock=127.0.0.0%2F16");
        let vpc = tag(&vpc, "vpcId").expect("a VPC is made");
        let subnet =
            ec2.call(&format!("Action=CreateSubnet&VpcId={vpc}&CidrBlock=127.0.77.0%2F24&AvailabilityZone=us-east-1a"));
        ec2.subnet = tag(&subnet, "subnetId").expect("a subnet is made").to_owned();
        Some(ec2)
    }

    fn call(&self, form: &str) -> String {
        self.moto.query("ec2", &format!("Version=2016-11-15&{form}")).1
    }

    /// What an instance was started with, in base64, as EC2 keeps it.
    pub(crate) fn user_data(&self, id: &str) -> Option<String> {
        let xml = self.call(&format!("Action=DescribeInstanceAttribute&InstanceId={id}&Attribute=userData"));
        tag(xml.split("<userData>").nth(1)?, "value").map(ToOwned::to_owned)
    }

    /// Every instance there ever was, those that are terminated included.
    pub(crate) fn instances(&self) -> Vec<Instance> {
        let xml = self.call("Action=DescribeInstances");
        // moto writes the architecture of each instance first.
        let instances: Vec<Instance> = xml.split("<architecture>").skip(1).map(instance).collect();
        for instance in &instances {
            let loopback = instance.address.is_empty() || instance.address.starts_with("127.");
            assert!(loopback, "moto gave out the address {}, which is not a loopback one", instance.address);
        }
        instances
    }

    /// Instances that are not terminated, nor on their way there.
    pub(crate) fn live(&self) -> Vec<Instance> {
        self.instances().into_iter().filter(Instance::is_live).collect()
    }
}

/// Reads one instance from its part of the answer.
fn instance(xml: &str) -> Instance {
    let id = tag(xml, "instanceId").expect("an instance has an id").to_owned();
    let state = xml.split("<instanceState>").nth(1).and_then(|rest| tag(rest, "name")).unwrap_or_default().to_owned();
    let address = tag(xml, "privateIpAddress").unwrap_or_default().to_owned();
    let set = xml.split("<tagSet>").nth(1).and_then(|rest| rest.split("</tagSet>").next()).unwrap_or_default();
    let pairs = set
        .split("<item>")
        .skip(1)
        .filter_map(|item| Some((tag(item, "key")?.to_owned(), tag(item, "value")?.to_owned())));
    Instance { id, state, address, tags: pairs.collect() }
}

/// The text of the first element of this name.
fn tag<'a>(xml: &'a str, name: &str) -> Option<&'a str> {
    let start = xml.find(&format!("<{name}>"))? + name.len() + 2;
    xml[start..].split('<').next()
}
