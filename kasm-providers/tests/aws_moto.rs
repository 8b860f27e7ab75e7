//! The EC2 provider against moto, which others have written from EC2's documentation: it must understand what we send,
//! and we must understand what it answers.
#![cfg(feature = "aws")]

use std::sync::Arc;

use aws_sdk_ec2::Client;
use aws_sdk_ec2::config::{BehaviorVersion, Credentials, Region};
use aws_sdk_ec2::types::{Filter, Instance, InstanceAttributeName, InstanceLifecycleType, Tag, VolumeType};
use kasm_autoscale_core::id::{DeploymentId, ServerKey};
use kasm_autoscale_core::ports::{ErrorKind, MachineRef, MachineState, Progress, Scope, VmProvider};
use kasm_providers::aws::{AddressChoice, AwsProvider};
use serde_json::{Value, json};

#[path = "support/aws.rs"]
#[allow(dead_code, reason = "shared by several tests")]
mod aws;
#[path = "../../tests/support/http.rs"]
mod http;
#[path = "../../tests/support/moto.rs"]
mod moto;
#[path = "../../tests/support/real.rs"]
mod real;

use aws::{SCRIPT, SECRET_KEY, SESSION_TOKEN, key, provider, settings, spec};
use moto::Moto;

/// moto, our provider, and the SDK to look behind our provider's back.
struct World {
    moto: Arc<Moto>,
    ec2: Client,
    provider: AwsProvider,
    subnet: String,
    ami: String,
}

impl World {
    /// A network on loopback addresses with one subnet, `127.0.x.0/24`; `None` if moto is not installed.
    async fn new(x: u8) -> Option<Self> {
        let moto = Moto::shared()?;
        let config = aws_sdk_ec2::Config::builder()
            .behavior_version(BehaviorVersion::v2026_01_12())
            .region(Region::new("us-east-1"))
            .credentials_provider(Credentials::new("AKIATEST", "test", None, None, "test"))
            .endpoint_url(moto.url());
        let ec2 = Client::from_conf(config.build());
        let block = format!("127.0.{x}.0/24");
        let vpc = ec2.create_vpc().cidr_block(&block).send().await.expect("a VPC").vpc.expect("a VPC");
        // moto puts a subnet in any zone, and not every size is offered in each.
        let subnet = ec2.create_subnet().set_vpc_id(vpc.vpc_id).cidr_block(&block).availability_zone("us-east-1a");
        let subnet = subnet.send().await.expect("a subnet");
        let subnet = subnet.subnet.and_then(|subnet| subnet.subnet_id).expect("a subnet");
        let images = ec2.describe_images().send().await.expect("images").images.unwrap_or_default();
        let windows = images.iter().find(|image| image.root_device_name() == Some("/dev/sda1")).expect("an image");
        let ami = windows.image_id().expect("an id").to_owned();
        let mut settings = settings(&moto.url());
        settings.page_size = 5;
        settings.visibility_lag = std::time::Duration::ZERO;
        Some(Self { provider: provider(settings).await, ec2, subnet, ami, moto })
    }

    fn machine(&self, more: &Value) -> Value {
        let mut machine = json!({"ami": self.ami, "instance_type": "m5.large", "subnet_id": self.subnet});
        for (name, value) in more.as_object().expect("an object") {
            machine[name] = value.clone();
        }
        machine
    }

    async fn create(&self, server: ServerKey, more: &Value) -> MachineRef {
        match self.provider.create(&spec(server, &self.machine(more))).await {
            Ok(Progress::Pending { machine: Some(machine), op: None }) => machine,
            other => panic!("not created: {other:?}"),
        }
    }

    /// The machine as moto shows it to others.
    async fn instance(&self, machine: &MachineRef) -> Instance {
        let answer = self.ec2.describe_instances().instance_ids(&machine.0).send().await.expect("an answer");
        let instances =
            answer.reservations.unwrap_or_default().into_iter().flat_map(|one| one.instances.unwrap_or_default());
        instances.into_iter().next().expect("the instance")
    }
}

fn tag<'a>(tags: &'a [Tag], key: &str) -> Option<&'a str> {
    tags.iter().find(|tag| tag.key() == Some(key)).and_then(|tag| tag.value())
}

#[tokio::test]
async fn a_machine_lives_and_dies() {
    let Some(world) = World::new(11).await else { return };
    let server = key(11, 1);
    assert_eq!(world.provider.find(&server).await.expect("an answer"), None);
    let reference = world.create(server, &json!({"tags": {"team": "ä & b"}})).await;

    let found = world.provider.find(&server).await.expect("an answer").expect("the machine");
    assert_eq!((&found.reference, &found.state, &found.fault), (&reference, &MachineState::Running, &None));
    assert_eq!(found.marker, Some(spec(server, &json!({})).marker));
    assert!(found.address.as_ref().expect("an address").host.starts_with("127.0.11."), "{found:?}");
    let listing = world.provider.list(&server.pool).await.expect("a list");
    assert_eq!((listing.machines, listing.complete), (vec![found.clone()], true));

    assert_eq!(world.provider.find(&key(11, 2)).await.expect("an answer"), None);
    assert_eq!(world.provider.list(&key(12, 1).pool).await.expect("a list").machines, []);
    let stranger = AwsProvider::connect(settings(&world.moto.url()), DeploymentId::from_bytes([9; 16]))
        .await
        .expect("sound settings");
    assert_eq!(stranger.list(&server.pool).await.expect("a list").machines, []);
    assert_eq!(stranger.find(&server).await.expect("an answer"), None);

    world.provider.delete(&reference).await.expect("deleted");
    assert_eq!(world.provider.list(&server.pool).await.expect("a list").machines, []);
    let gone = world.provider.find(&server).await.expect("an answer").expect("shown for a while");
    assert_eq!((&gone.reference, &gone.state, &gone.fault), (&reference, &MachineState::Deleted, &None));
    let again = world.provider.delete(&reference).await.expect("deleted twice");
    assert!(matches!(again, Progress::Done { .. } | Progress::Pending { .. }));
    let unknown = MachineRef("i-0123456789abcdef0".to_owned());
    assert_eq!(world.provider.delete(&unknown).await, Ok(Progress::Done { machine: Some(unknown.clone()) }));
}

#[tokio::test]
async fn everything_of_a_machine_is_marked_and_goes_with_it() {
    let Some(world) = World::new(12).await else { return };
    let server = key(12, 1);
    let reference = world
        .create(server, &json!({"ebs_volume_size_gib": 77, "ebs_volume_type": "gp3", "tags": {"team": "desktops"}}))
        .await;
    let instance = world.instance(&reference).await;
    let filter = Filter::builder().name("attachment.instance-id").values(&reference.0).build();
    let volumes =
        world.ec2.describe_volumes().filters(filter.clone()).send().await.expect("volumes").volumes.unwrap_or_default();
    assert_eq!(volumes.len(), 1, "{volumes:?}");
    assert_eq!((volumes[0].size(), volumes[0].volume_type()), (Some(77), Some(&VolumeType::Gp3)));
    for tags in [instance.tags(), volumes[0].tags()] {
        assert_eq!(tag(tags, "kasm-autoscale:deployment"), Some(aws::deployment().to_string().as_str()));
        assert_eq!(tag(tags, "kasm-autoscale:pool"), Some(server.pool.to_string().as_str()));
        assert_eq!(tag(tags, "kasm-autoscale:config"), Some("cfg-3"));
        assert_eq!(tag(tags, "kasm-autoscale:server"), Some(server.uuid().as_str()));
        assert_eq!((tag(tags, "Name"), tag(tags, "team")), (Some(server.machine_name().as_str()), Some("desktops")));
    }
    let root = &instance.block_device_mappings()[0];
    assert_eq!(
        (root.device_name(), root.ebs().and_then(|ebs| ebs.delete_on_termination())),
        (Some("/dev/sda1"), Some(true))
    );
    assert_eq!(
        instance.metadata_options().and_then(|options| options.http_tokens()).map(|tokens| tokens.as_str()),
        Some("required")
    );
    assert_eq!(instance.client_token(), Some(server.uuid().as_str()));
    world.provider.delete(&reference).await.expect("deleted");
    let left = world.ec2.describe_volumes().filters(filter).send().await.expect("volumes").volumes.unwrap_or_default();
    assert_eq!(left, []);
}

#[tokio::test]
async fn user_data_arrives_byte_for_byte() {
    let Some(world) = World::new(13).await else { return };
    let long = format!("# {}\n{SCRIPT}", "ü".repeat(8000));
    assert!(long.len() > 16_000);
    let rows = [
        (1, "windows", SCRIPT, format!("<powershell>\n{SCRIPT}\n</powershell>\n")),
        (2, "linux", SCRIPT, SCRIPT.to_owned()),
        (3, "linux", &long, long.clone()),
    ];
    for (number, os, script, expected) in rows {
        let mut spec = spec(key(13, number), &world.machine(&json!({"os": os})));
        spec.user_data = Some(script.into());
        let progress = world.provider.create(&spec).await.expect("created");
        let Progress::Pending { machine: Some(machine), .. } = progress else { panic!("{progress:?}") };
        let attribute =
            world.ec2.describe_instance_attribute().instance_id(&machine.0).attribute(InstanceAttributeName::UserData);
        let attribute =
            attribute.send().await.expect("the attribute").user_data.and_then(|value| value.value).expect("user data");
        let decoded = base64::Engine::decode(&base64::prelude::BASE64_STANDARD, attribute).expect("base64");
        assert_eq!(String::from_utf8(decoded).expect("text"), expected, "{os}");
    }
}

#[tokio::test]
async fn lists_have_many_pages() {
    let Some(world) = World::new(14).await else { return };
    let mut expected = Vec::new();
    for number in 1..=12 {
        expected.push(world.create(key(14, number), &json!({})).await);
    }
    world.create(key(15, 1), &json!({})).await;
    let listing = world.provider.list(&key(14, 1).pool).await.expect("a list");
    let mut listed: Vec<MachineRef> = listing.machines.into_iter().map(|machine| machine.reference).collect();
    listed.sort();
    expected.sort();
    assert_eq!((listed, listing.complete), (expected, true));
}

#[tokio::test]
async fn mistakes_are_answered_with_their_kind() {
    let Some(world) = World::new(16).await else { return };
    let subnet = world.machine(&json!({"subnet_id": "subnet-0123456789abcdef0"}));
    let error = world.provider.create(&spec(key(16, 1), &subnet)).await.expect_err("no such subnet");
    assert_eq!(
        (error.kind, error.scope, error.code.as_str()),
        (ErrorKind::Invalid, Scope::Offering, "InvalidSubnetID.NotFound")
    );
    assert!(error.request_id.is_some());
    let group = world.machine(&json!({"security_group_ids": ["sg-0123456789abcdef0"]}));
    let error = world.provider.create(&spec(key(16, 2), &group)).await.expect_err("no such group");
    assert_eq!((error.kind, error.scope), (ErrorKind::Invalid, Scope::Offering), "{error}");
    let image = world.machine(&json!({"ami": "ami-0123456789abcdef0", "ebs_volume_size_gib": 9}));
    let error = world.provider.create(&spec(key(16, 3), &image)).await.expect_err("no such image");
    assert_eq!((error.kind, error.code.as_str()), (ErrorKind::Invalid, "InvalidAMIID.NotFound"));
    let profile = world.machine(&json!({"instance_profile": "nobody"}));
    let error = world.provider.create(&spec(key(16, 4), &profile)).await.expect_err("no such profile");
    assert_eq!(error.kind, ErrorKind::Invalid, "{error}");
    let shown = format!("{error} {error:?} {:?}", world.provider);
    assert!(!shown.contains(SECRET_KEY) && !shown.contains(SESSION_TOKEN) && !shown.contains("canary"));
    assert_eq!(world.provider.list(&key(16, 1).pool).await.expect("a list").machines, []);
}

#[tokio::test]
async fn a_preflight_finds_what_moto_does_not_have() {
    let Some(world) = World::new(21).await else { return };
    let sound = world.provider.preflight(&aws::object(&world.machine(&json!({})))).await;
    assert_eq!(sound, Ok(Vec::new()));
    let bad = world.machine(&json!({
        "subnet_id": "subnet-0123456789abcdef0", "security_group_ids": ["sg-0123456789abcdef0"], "key_name": "nobody",
        "instance_type": "zz9.huge",
    }));
    let found = world.provider.preflight(&aws::object(&bad)).await.expect("an answer");
    let subjects: Vec<&str> = found.iter().map(|finding| finding.subject.as_str()).collect();
    for subject in [
        "subnet subnet-0123456789abcdef0",
        "security group sg-0123456789abcdef0",
        "key pair \"nobody\"",
        "size zz9.huge",
    ] {
        assert!(subjects.contains(&subject), "{subject} is not among {subjects:?}");
    }
    let image = world.machine(&json!({"ami": "ami-0123456789abcdef0"}));
    let found = world.provider.preflight(&aws::object(&image)).await.expect("an answer");
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(found[0].subject, "image ami-0123456789abcdef0");
    assert_eq!(world.provider.list(&key(21, 1).pool).await.expect("a list").machines, []);
}

#[tokio::test]
async fn machines_get_their_instance_profile_by_name_or_arn() {
    let Some(world) = World::new(17).await else { return };
    let (status, body) =
        world.moto.query("iam", "Action=CreateInstanceProfile&Version=2010-05-08&InstanceProfileName=desktops");
    assert_eq!(status, 200, "{body}");
    let arn = body.split_once("<Arn>").and_then(|(_, rest)| rest.split_once('<')).map(|(arn, _)| arn).expect("an ARN");
    for (number, profile) in [(1, "desktops"), (2, arn)] {
        let reference = world.create(key(17, number), &json!({"instance_profile": profile})).await;
        let instance = world.instance(&reference).await;
        assert_eq!(instance.iam_instance_profile().and_then(|profile| profile.arn()), Some(arn));
    }
}

#[tokio::test]
async fn overrides_reach_ec2() {
    let Some(world) = World::new(18).await else { return };
    let overrides = json!({
        "InstanceMarketOptions": {"MarketType": "spot", "SpotOptions": {"SpotInstanceType": "one-time"}},
        "Placement": {"HostId": "h-0123456789abcdef0"},
        "BlockDeviceMappings": [{"DeviceName": "/dev/sda1", "Ebs": {"VolumeSize": 31, "VolumeType": "gp2"}}, {"DeviceName": "/dev/sdf", "Ebs": {"VolumeSize": 7}}],
    });
    let reference = world.create(key(18, 1), &json!({"overrides": {"instance_config": overrides}})).await;
    let instance = world.instance(&reference).await;
    assert_eq!(instance.instance_lifecycle(), Some(&InstanceLifecycleType::Spot));
    assert_eq!(instance.placement().and_then(|placement| placement.host_id()), Some("h-0123456789abcdef0"));
    let mappings = instance.block_device_mappings().iter();
    let mut disks: Vec<_> =
        mappings.map(|one| (one.device_name(), one.ebs().and_then(|ebs| ebs.delete_on_termination()))).collect();
    disks.sort();
    assert_eq!(disks, [(Some("/dev/sda1"), Some(true)), (Some("/dev/sdf"), Some(true))]);
}

#[tokio::test]
async fn public_addresses_come_with_their_own_interface() {
    let Some(world) = World::new(19).await else { return };
    let reference = world.create(key(19, 1), &json!({"public_ip": true})).await;
    let instance = world.instance(&reference).await;
    assert_eq!((instance.network_interfaces().len(), instance.subnet_id()), (1, Some(world.subnet.as_str())));
    let mut settings = settings(&world.moto.url());
    settings.address = AddressChoice::Public;
    let machine = provider(settings).await.find(&key(19, 1)).await.expect("an answer").expect("the machine");
    assert_eq!(machine.address.map(|address| address.host).as_deref(), instance.public_ip_address());
    assert!(instance.public_ip_address().is_some());
}

#[tokio::test]
async fn a_protected_machine_stays_until_an_operator_acts() {
    let Some(world) = World::new(20).await else { return };
    let reference = world.create(key(20, 1), &json!({})).await;
    let protect = |on: bool| {
        let value = aws_sdk_ec2::types::AttributeBooleanValue::builder().value(on).build();
        world.ec2.modify_instance_attribute().instance_id(&reference.0).disable_api_termination(value).send()
    };
    protect(true).await.expect("protected");
    let error = world.provider.delete(&reference).await.expect_err("protected");
    assert_eq!((error.kind, error.scope), (ErrorKind::Protected, Scope::Server), "{error}");
    protect(false).await.expect("free");
    world.provider.delete(&reference).await.expect("deleted");
}
