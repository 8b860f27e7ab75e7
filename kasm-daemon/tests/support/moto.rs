//! A real EC2 API on loopback: moto, started and ended by the test.

#![allow(dead_code)]

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::http::request;
use crate::real::{Process, Program, free_port, wait_until};

/// The server program of moto.
const MOTO: Program = Program { name: "moto_server", variable: "KASM_MOTO_SERVER", install: "run `make tools`" };

/// A running moto, with a subnet whose addresses are all loopback ones, so that nothing a test does leaves the machine.
pub(crate) struct Moto {
    pub(crate) port: u16,
    pub(crate) subnet: String,
    process: Process,
}

/// An instance as moto shows it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Instance {
    pub(crate) id: String,
    pub(crate) state: String,
    pub(crate) address: String,
    pub(crate) tags: BTreeMap<String, String>,
}

impl Moto {
    /// Starts it. `None`: it is not installed, and the notice has been given.
    pub(crate) fn start(folder: &Path) -> Option<Self> {
        let program = MOTO.find()?;
        let port = free_port();
        let mut command = Command::new(program);
        command.args(["-H", "127.0.0.1", "-p", &port.to_string()]).current_dir(folder);
        let process = Process::start(&mut command, &folder.join("moto.log"));
        let up = wait_until(|| request(port, "GET", "/moto-api/data.json", &[], "").is_ok(), Duration::from_secs(60));
        assert!(up, "moto does not answer: {}", process.output());
        let mut moto = Self { port, subnet: String::new(), process };
        let vpc = moto.call(&[("Action", "CreateVpc"), ("CidrBlock", "127.0.0.0/16")]);
        let vpc = tag(&vpc, "vpcId").expect("a VPC is made").to_owned();
        let subnet = moto.call(&[("Action", "CreateSubnet"), ("VpcId", &vpc), ("CidrBlock", "127.0.77.0/24")]);
        moto.subnet = tag(&subnet, "subnetId").expect("a subnet is made").to_owned();
        Some(moto)
    }

    /// An EC2 query (EC2 API Reference, "Query requests"). moto reads the region from the credential scope and checks no
    /// signature.
    pub(crate) fn call(&self, parameters: &[(&str, &str)]) -> String {
        let scope = "AWS4-HMAC-SHA256 Credential=TEST/20260101/us-east-1/ec2/aws4_request, SignedHeaders=host, Signature=0";
        let headers = [("Authorization", scope), ("Content-Type", "application/x-www-form-urlencoded")];
        let pairs: Vec<String> = parameters.iter().map(|(name, value)| format!("{name}={}", value.replace('/', "%2F"))).collect();
        let body = format!("Version=2016-11-15&{}", pairs.join("&"));
        request(self.port, "POST", "/", &headers, &body).expect("moto answers").body
    }

    /// Every instance there ever was, those that are terminated included.
    pub(crate) fn instances(&self) -> Vec<Instance> {
        let xml = self.call(&[("Action", "DescribeInstances")]);
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
        let gone = |instance: &Instance| matches!(instance.state.as_str(), "terminated" | "shutting-down");
        self.instances().into_iter().filter(|instance| !gone(instance)).collect()
    }

    pub(crate) fn log(&self) -> String {
        self.process.output()
    }
}

/// Reads one instance from its part of the answer.
fn instance(xml: &str) -> Instance {
    let id = tag(xml, "instanceId").expect("an instance has an id").to_owned();
    let state = xml.split("<instanceState>").nth(1).and_then(|rest| tag(rest, "name")).unwrap_or_default().to_owned();
    let address = tag(xml, "privateIpAddress").unwrap_or_default().to_owned();
    let set = xml.split("<tagSet>").nth(1).and_then(|rest| rest.split("</tagSet>").next()).unwrap_or_default();
    let pairs = set.split("<item>").skip(1).filter_map(|item| Some((tag(item, "key")?.to_owned(), tag(item, "value")?.to_owned())));
    Instance { id, state, address, tags: pairs.collect() }
}

/// The text of the first element of this name.
fn tag<'a>(xml: &'a str, name: &str) -> Option<&'a str> {
    let start = xml.find(&format!("<{name}>"))? + name.len() + 2;
    xml[start..].split('<').next()
}
