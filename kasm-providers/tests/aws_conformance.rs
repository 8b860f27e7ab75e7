//! The EC2 provider is held against the contract, twice by the same test: in front of our own stand-in for EC2, which does
//! what the real one does, and in front of moto, which others wrote. Where moto differs from EC2 it is said here, and that
//! it still does is checked, so that the stand-in stays honest and the list true.
#![cfg(feature = "aws")]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use aws_sdk_ec2::Client;
use aws_sdk_ec2::config::{BehaviorVersion, Credentials, Region};
use aws_sdk_ec2::types::{Filter, InstanceType, ResourceType, Tag, TagSpecification};
use kasm_autoscale_core::fields::JsonObject;
use kasm_autoscale_core::id::DeploymentId;
use kasm_autoscale_core::ports::{
    Certainty, ErrorKind, Finding, MachineRef, MachineState, Marker, Progress, VmProvider,
};
use kasm_autoscale_core::testing::conformance::{Clause, Subject, Trouble, Truth, run, run_only};
use kasm_autoscale_core::time::Timestamp;
use serde_json::{Value, json};

#[path = "support/answers.rs"]
#[allow(dead_code, reason = "shared by several tests")]
mod answers;
#[path = "support/aws.rs"]
#[allow(dead_code, reason = "shared by several tests")]
mod aws;
#[path = "support/ec2_front.rs"]
mod ec2_front;
#[path = "support/ec2_standin.rs"]
mod ec2_standin;
#[path = "../../tests/support/http.rs"]
mod http;
#[path = "../../tests/support/moto.rs"]
mod moto;
#[path = "../../tests/support/real.rs"]
mod real;
#[path = "support/stub.rs"]
#[allow(dead_code, reason = "shared by several tests")]
mod stub;

use aws::{SECRET_KEY, SESSION_TOKEN, key, object, settings, spec};
use ec2_front::Front;
use ec2_standin::{AMI, GROUP, KEY_PAIR, SUBNET, StandIn};
use moto::Moto;

/// Which EC2 is behind the front.
enum Behind {
    StandIn(Arc<Mutex<StandIn>>),
    /// Its states do not depend on time, so the time that the kit lets pass is only counted.
    Moto(Mutex<Duration>),
}

/// The provider, a front that makes trouble, and an EC2 behind it.
struct Ec2 {
    front: Front,
    behind: Behind,
    /// Looks behind the provider's back.
    client: Client,
    machine: Value,
}

fn client(url: &str) -> Client {
    let config = aws_sdk_ec2::Config::builder()
        .behavior_version(BehaviorVersion::v2026_01_12())
        .region(Region::new("us-east-1"))
        .credentials_provider(Credentials::new("AKIATEST", "test", None, None, "test"))
        .endpoint_url(url);
    Client::from_conf(config.build())
}

impl Ec2 {
    fn standin() -> Self {
        let cloud = Arc::new(Mutex::new(StandIn::default()));
        let answering = Arc::clone(&cloud);
        let front = Front::start(move |request| answering.lock().expect("nobody panics with it").answer(request));
        let machine = json!({
            "ami": AMI, "instance_type": "m7i.large", "subnet_id": SUBNET, "security_group_ids": [GROUP], "key_name": KEY_PAIR,
        });
        let client = client(&front.url());
        Self { front, behind: Behind::StandIn(cloud), client, machine }
    }

    /// `None` if moto is not installed.
    async fn moto() -> Option<(Arc<Moto>, Self)> {
        let moto = Moto::shared()?;
        let port = moto.url().rsplit(':').next().and_then(|port| port.parse().ok()).expect("a port");
        let front = Front::start(move |request| {
            let header = |name: &'static str| (name, request.headers.get(name).map_or("", String::as_str));
            let headers = [header("authorization"), header("content-type"), header("x-amz-date")];
            let answer =
                http::request(port, &request.method, &request.path, &headers, &request.body).expect("moto answers");
            (answer.status, answer.body)
        });
        let client = client(&moto.url());
        let vpc = client.create_vpc().cidr_block("127.0.30.0/24").send().await.expect("a VPC").vpc.expect("a VPC");
        let subnet = client.create_subnet().set_vpc_id(vpc.vpc_id).cidr_block("127.0.30.0/24");
        // Not every zone of moto has every size.
        let subnet = subnet.availability_zone("us-east-1a").send().await;
        let subnet = subnet.expect("a subnet").subnet.and_then(|subnet| subnet.subnet_id).expect("a subnet");
        let images = client.describe_images().send().await.expect("images").images.unwrap_or_default();
        let windows = images.iter().find(|image| image.root_device_name() == Some("/dev/sda1")).expect("an image");
        let machine = json!({"ami": windows.image_id(), "instance_type": "m5.large", "subnet_id": subnet});
        let behind = Behind::Moto(Mutex::new(Duration::ZERO));
        Some((moto, Self { front, behind, client, machine }))
    }

    fn with_standin<T>(&self, act: impl FnOnce(&mut StandIn) -> T) -> Option<T> {
        match &self.behind {
            Behind::StandIn(cloud) => Some(act(&mut cloud.lock().expect("nobody panics with it"))),
            Behind::Moto(_) => None,
        }
    }

    async fn truth_of_moto(&self) -> Truth {
        let states = ["pending", "running", "shutting-down", "stopping", "stopped"].map(ToOwned::to_owned);
        let alive = Filter::builder().name("instance-state-name").set_values(Some(states.to_vec())).build();
        let answer = self.client.describe_instances().filters(alive).send().await.expect("an answer");
        let instances =
            answer.reservations.unwrap_or_default().into_iter().flat_map(|one| one.instances.unwrap_or_default());
        let volumes = self.client.describe_volumes().send().await.expect("volumes").volumes.unwrap_or_default().len();
        let cards = self.client.describe_network_interfaces().send().await.expect("network interfaces");
        let parts = volumes + cards.network_interfaces.unwrap_or_default().len();
        Truth {
            machines: instances.filter_map(|one| one.instance_id).map(MachineRef).collect(),
            parts: u64::try_from(parts).expect("a small number"),
            calls: Some(self.front.calls()),
        }
    }
}

#[async_trait]
impl Subject for Ec2 {
    async fn provider(&self) -> Arc<dyn VmProvider> {
        let mut settings = settings(&self.front.url());
        settings.page_size = 5;
        settings.visibility_lag = match &self.behind {
            Behind::StandIn(_) => Duration::from_secs(30),
            Behind::Moto(_) => Duration::ZERO,
        };
        Arc::new(aws::provider(settings).await)
    }

    fn deployment(&self) -> DeploymentId {
        aws::deployment()
    }

    fn machine(&self) -> JsonObject {
        object(&self.machine)
    }

    fn now(&self) -> Timestamp {
        match &self.behind {
            Behind::StandIn(cloud) => Timestamp::from_millis(cloud.lock().expect("nobody panics with it").now()),
            Behind::Moto(passed) => Timestamp::default() + *passed.lock().expect("nobody panics with it"),
        }
    }

    async fn pass(&self, span: Duration) {
        match &self.behind {
            Behind::StandIn(cloud) => cloud.lock().expect("nobody panics with it").pass(span),
            Behind::Moto(passed) => *passed.lock().expect("nobody panics with it") += span,
        }
    }

    fn never(&self) -> Option<String> {
        Some("i-0123456789abcdef0".to_owned())
    }

    async fn inject(&self, trouble: &Trouble) -> bool {
        if self.front.inject(trouble) {
            return true;
        }
        match trouble {
            Trouble::Strip(machine) => {
                let keys = ["deployment", "pool", "config", "server"];
                let tags = keys.map(|key| Tag::builder().key(format!("kasm-autoscale:{key}")).build()).to_vec();
                let request = self.client.delete_tags().resources(&machine.0).set_tags(Some(tags));
                request.send().await.is_ok()
            }
            Trouble::Hide => self.with_standin(|cloud| cloud.behaviour.hidden = 30_000).is_some(),
            Trouble::DieBooting => self.with_standin(|cloud| cloud.behaviour.launches_fail = true).is_some(),
            Trouble::SlowDelete(time) => {
                let millis = u64::try_from(time.as_millis()).expect("a short time");
                self.with_standin(|cloud| cloud.behaviour.delete_time = millis).is_some()
            }
            Trouble::Confuse(machine) => self.with_standin(|cloud| cloud.confuse(&machine.0)).is_some(),
            _ => false,
        }
    }

    async fn heal(&self) {
        self.front.heal();
        self.with_standin(|cloud| cloud.behaviour = Default::default());
    }

    async fn add_foreign(&self, marker: Option<&Marker>, name: &str) -> Option<MachineRef> {
        let mut tags = vec![("Name".to_owned(), name.to_owned())];
        if let Some(marker) = marker {
            let Marker { deployment, pool, config, server } = marker;
            let all =
                [("deployment", deployment.to_string()), ("pool", pool.to_string()), ("config", config.to_string())];
            tags.extend(all.into_iter().map(|(key, value)| (format!("kasm-autoscale:{key}"), value)));
            tags.push(("kasm-autoscale:server".to_owned(), server.clone()));
        }
        let tags = tags.into_iter().map(|(key, value)| Tag::builder().key(key).value(value).build()).collect();
        let tagged = TagSpecification::builder().resource_type(ResourceType::Instance).set_tags(Some(tags)).build();
        let text = |name: &str| self.machine[name].as_str().expect("a text");
        let request = self.client.run_instances().image_id(text("ami")).subnet_id(text("subnet_id"));
        let request = request.instance_type(InstanceType::from(text("instance_type"))).min_count(1).max_count(1);
        let answer = request.tag_specifications(tagged).send().await.expect("a foreign machine");
        answer.instances().first().and_then(|one| one.instance_id()).map(|id| MachineRef(id.to_owned()))
    }

    async fn truth(&self) -> Option<Truth> {
        let Some((machines, parts)) = self.with_standin(|cloud| cloud.truth()) else {
            return Some(self.truth_of_moto().await);
        };
        let machines = machines.into_iter().map(MachineRef).collect();
        Some(Truth { machines, parts, calls: Some(self.front.calls()) })
    }

    fn secrets(&self) -> Vec<String> {
        vec![SECRET_KEY.to_owned(), SESSION_TOKEN.to_owned()]
    }
}

/// The one contract test. What the provider logs is read by `aws_secrets`. The clauses that must fail and those that cannot be checked are named by the caller.
async fn judge(subject: &Ec2, differences: &[Clause], not_checked: &[Clause]) {
    let report = run(subject).await;
    assert_eq!(report.failed(), differences, "{report}");
    assert_eq!(report.not_checked(), not_checked, "{report}");
}

#[tokio::test]
async fn the_provider_keeps_every_clause_on_an_ec2_as_it_should_be() {
    judge(&Ec2::standin(), &[], &[]).await;
}

/// Where moto is not as EC2 is. What is listed here fails against moto, and only that; an item that has been mended there
/// makes this test fail, and is then taken off the list.
const MOTO_DIFFERS: [Clause; 4] = [
    // ClientToken is echoed and otherwise passed over: the same token makes another machine,
    Clause::OneMachine,
    // with other parameters too (EC2: IdempotentParameterMismatch),
    Clause::OtherRequest,
    // and after a reply that was lost.
    Clause::LostAfter,
    // A network card that comes from nothing but the subnet stays (EC2: it goes with the machine that it was made with).
    Clause::Leftovers,
];

/// Machines of moto are there and gone at once, and no state of theirs can be scripted.
const MOTO_CANNOT: [Clause; 3] = [Clause::SlowDelete, Clause::DiesBooting, Clause::UnknownState];

#[tokio::test]
async fn the_provider_keeps_every_clause_that_moto_keeps() {
    let Some((_moto, subject)) = Ec2::moto().await else { return };
    judge(&subject, &MOTO_DIFFERS, &MOTO_CANNOT).await;
}

#[tokio::test]
async fn other_differences_of_moto_are_still_there() {
    let Some((_moto, moto)) = Ec2::moto().await else { return };
    let standin = Ec2::standin();
    // A machine is running in the first answer about it; EC2 takes its time.
    for (subject, expected) in [(&moto, MachineState::Running), (&standin, MachineState::Provisioning)] {
        let provider = subject.provider().await;
        let server = key(31, 1);
        provider.create(&spec(server, &subject.machine)).await.expect("accepted");
        subject.pass(Duration::from_secs(6)).await;
        let found = provider.find(&server).await.expect("an answer").expect("the machine");
        assert_eq!(found.state, expected);
    }
    // Sizes and images that there are none of are accepted by moto.
    for (subject, accepted) in [(&moto, true), (&standin, false)] {
        let mut machine = subject.machine.clone();
        machine["instance_type"] = json!("zz9.huge");
        let created = subject.provider().await.create(&spec(key(31, 2), &machine)).await;
        assert_eq!(created.is_ok(), accepted, "{created:?}");
    }
    // A network card that is spelt out in the request goes with its machine, but then moto looks for it at the second
    // delete.
    let mut long = moto;
    long.machine["public_ip"] = json!(false);
    let report = run_only(&long, &[Clause::DeleteTwice, Clause::Leftovers]).await;
    assert_eq!(report.failed(), [Clause::DeleteTwice], "{report}");
    assert!(report.to_string().contains("InvalidNetworkInterfaceID.NotFound"), "{report}");
    // A filter by token, with which a machine of one attempt could be found, is an error of moto's own.
    let filter = Filter::builder().name("client-token").values("none").build();
    let answer = long.client.describe_instances().filters(filter).send().await;
    assert_eq!(answer.expect_err("HTTP 500").raw_response().expect("an answer").status().as_u16(), 500);
}

#[tokio::test]
async fn a_preflight_is_the_same_on_both() {
    let mut subjects = vec![Ec2::standin()];
    let moto = Ec2::moto().await;
    let (_moto, more) = moto.unzip();
    subjects.extend(more);
    for subject in subjects {
        let provider = subject.provider().await;
        assert_eq!(provider.preflight(&subject.machine()).await, Ok(Vec::<Finding>::new()));
        let mut machine = subject.machine();
        machine.insert("subnet_id".to_owned(), json!("subnet-00000000000000000"));
        machine.insert("key_name".to_owned(), json!("nobody"));
        let found = provider.preflight(&machine).await.expect("an answer");
        let subjects: Vec<&str> = found.iter().map(|finding| finding.subject.as_str()).collect();
        for expected in ["subnet subnet-00000000000000000", "key pair \"nobody\""] {
            assert!(subjects.contains(&expected), "{expected} is not among {subjects:?}");
        }
    }
}

/// What EC2 says of a token that has been used up is a doubt, not a refusal: there was a machine.
#[tokio::test]
async fn a_token_whose_machine_is_gone_makes_no_other() {
    let subject = Ec2::standin();
    let provider = subject.provider().await;
    let server = key(1, 1);
    let wanted = spec(server, &subject.machine);
    let progress = provider.create(&wanted).await.expect("accepted");
    let Progress::Pending { machine: Some(machine), .. } = progress else { panic!("{progress:?}") };
    provider.delete(&machine).await.expect("accepted");
    subject.pass(Duration::from_secs(31)).await;
    let error = provider.create(&wanted).await.expect_err("the token is used up");
    assert_eq!(
        (error.code.as_str(), error.kind, error.certainty),
        ("IdempotentInstanceTerminated", ErrorKind::Conflict, Certainty::Unknown)
    );
    let gone = provider.find(&server).await.expect("an answer").expect("shown for an hour");
    assert_eq!(gone.state, MachineState::Deleted);
    subject.pass(Duration::from_secs(3600)).await;
    assert_eq!(provider.find(&server).await.expect("an answer"), None);
    assert_eq!(subject.truth().await.expect("it is told").machines, []);
}

/// Codes are scripted where no state of the stand-in leads to them.
#[tokio::test]
async fn scripted_answers_come_through_until_they_are_taken_back() {
    let subject = Ec2::standin();
    let provider = subject.provider().await;
    let progress = provider.create(&spec(key(1, 1), &subject.machine)).await.expect("accepted");
    let Progress::Pending { machine: Some(machine), .. } = progress else { panic!("{progress:?}") };
    subject.front.script("TerminateInstances", 400, "OperationNotPermitted", "The instance is protected");
    let error = provider.delete(&machine).await.expect_err("protected");
    assert_eq!((error.kind, error.certainty), (ErrorKind::Protected, Certainty::NotApplied));
    assert_eq!(subject.truth().await.expect("it is told").machines, std::slice::from_ref(&machine));
    subject.heal().await;
    provider.delete(&machine).await.expect("accepted");
}
