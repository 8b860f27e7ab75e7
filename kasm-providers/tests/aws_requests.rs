//! What the EC2 provider sends, seen by a server on loopback: parameters, signatures, pages.
#![cfg(feature = "aws")]

use std::collections::{BTreeMap, BTreeSet};

use aws_sdk_ec2::Client;
use aws_sdk_ec2::config::{BehaviorVersion, Credentials, Region};
use aws_sdk_ec2::primitives::DateTime;
use aws_sdk_ec2::types as ec2;
use kasm_autoscale_core::ports::{ErrorKind, MachineRef, OpRef, Progress, VmProvider};
use kasm_providers::aws::{AwsSettings, USER_DATA_MAX};
use serde_json::{Value, json};

#[path = "support/answers.rs"]
#[allow(dead_code, reason = "shared by several tests")]
mod answers;
#[path = "support/aws.rs"]
#[allow(dead_code, reason = "shared by several tests")]
mod aws;
#[path = "support/signature.rs"]
mod signature;
#[path = "support/stub.rs"]
#[allow(dead_code, reason = "shared by several tests")]
mod stub;

use aws::{SECRET_KEY, SESSION_TOKEN, key, provider, settings, spec};
use stub::{Answer, Request, Stub};

const AMI: &str = "ami-0123456789abcdef0";

/// Answers every action with success.
fn ec2() -> Stub {
    Stub::start(|request| {
        let body = match request.parameter("Action").as_str() {
            "RunInstances" if request.parameter("DryRun") == "true" => {
                return Answer::Http(412, answers::error("DryRunOperation", "it would have succeeded"));
            }
            "RunInstances" => answers::launched("i-1"),
            "TerminateInstances" => answers::terminating("i-1", 32, "shutting-down"),
            "DescribeImages" => answers::images(AMI, "/dev/xvda"),
            "DescribeInstances" => answers::described(&[], None),
            "DescribeSubnets" => answers::subnets("subnet-12345678", "us-east-1a", 9),
            "DescribeSecurityGroups" => answers::groups(&request.parameter("GroupId.1")),
            "DescribeKeyPairs" => answers::key_pairs("desktops", "rsa"),
            "DescribeInstanceTypeOfferings" => answers::offerings(&["m7i.large"]),
            other => panic!("nobody needs {other}"),
        };
        Answer::Http(200, body)
    })
}

fn machine() -> Value {
    json!({
        "ami": AMI, "instance_type": "m7i.large", "subnet_id": "subnet-12345678", "security_group_ids": ["sg-12345678", "sg-87654321"],
        "key_name": "desktops", "instance_profile": "web", "tags": {"team": "ä & b"},
    })
}

async fn created(stub: &Stub, machine: &Value) -> Request {
    let provider = provider(settings(&stub.url())).await;
    let progress = provider.create(&spec(key(1, 1), machine)).await.expect("an accepted launch");
    assert_eq!(progress, Progress::Pending { machine: Some(MachineRef("i-1".into())), op: None });
    let request = stub.last();
    assert_eq!(request.headers["content-length"], request.body.len().to_string());
    assert_eq!(request.headers["x-amz-security-token"], SESSION_TOKEN);
    assert!(signature::is_signed(&request, SECRET_KEY), "{request:?}");
    assert!(!signature::is_signed(
        &Request { body: format!("{}&DryRun=true", request.body), ..request.clone() },
        SECRET_KEY
    ));
    request
}

fn with(mut machine: Value, name: &str, value: Value) -> Value {
    machine[name] = value;
    machine
}

/// The parameters below a prefix, without it.
fn below(request: &Request, prefix: &str) -> BTreeMap<String, String> {
    let form = request.form().into_iter();
    form.filter_map(|(key, value)| Some((key.strip_prefix(prefix)?.to_owned(), value))).collect()
}

fn map<const N: usize>(pairs: [(&str, &str); N]) -> BTreeMap<String, String> {
    pairs.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

#[tokio::test]
async fn a_create_is_one_marked_machine() {
    let stub = ec2();
    let request = created(&stub, &machine()).await;
    let server = key(1, 1);
    let (name, uuid) = (server.machine_name(), server.uuid());
    let mut form = request.form();
    form.retain(|key, _| !key.starts_with("TagSpecification"));
    let user_data = form.remove("UserData").expect("user data");
    assert!(user_data.starts_with("PHBvd2Vyc2hlbGw+"), "not wrapped: {user_data}");
    let expected = map([
        ("Action", "RunInstances"),
        ("Version", "2016-11-15"),
        ("ImageId", AMI),
        ("InstanceType", "m7i.large"),
        ("MinCount", "1"),
        ("MaxCount", "1"),
        ("ClientToken", &uuid),
        ("SubnetId", "subnet-12345678"),
        ("SecurityGroupId.1", "sg-12345678"),
        ("SecurityGroupId.2", "sg-87654321"),
        ("KeyName", "desktops"),
        ("IamInstanceProfile.Name", "web"),
        ("MetadataOptions.HttpTokens", "required"),
        ("InstanceInitiatedShutdownBehavior", "terminate"),
    ]);
    assert_eq!(form, expected);
    let tags = [
        ("kasm-autoscale:deployment", "07070707-0707-0707-0707-070707070707"),
        ("kasm-autoscale:pool", "01010101-0101-0101-0101-010101010101"),
        ("kasm-autoscale:config", "cfg-3"),
        ("kasm-autoscale:server", &uuid),
        ("Name", name.as_str()),
        ("team", "ä & b"),
    ];
    for (index, resource) in ["instance", "volume", "network-interface"].into_iter().enumerate() {
        let tagged = below(&request, &format!("TagSpecification.{}.", index + 1));
        assert_eq!(tagged["ResourceType"], resource);
        assert_eq!(tagged.len(), 1 + 2 * tags.len());
        for (tag, (name, value)) in tags.iter().enumerate() {
            assert_eq!(
                (tagged[&format!("Tag.{}.Key", tag + 1)].as_str(), tagged[&format!("Tag.{}.Value", tag + 1)].as_str()),
                (*name, *value)
            );
        }
    }
    assert_eq!(stub.requests().len(), 1);
}

#[tokio::test]
async fn a_repeated_create_is_the_same_byte_for_byte() {
    let stub = ec2();
    let overridden = with(
        machine(),
        "overrides",
        json!({"Placement": {"Tenancy": "dedicated", "AvailabilityZone": "us-east-1a"}, "EbsOptimized": true}),
    );
    let machine = with(overridden, "ebs_volume_size_gib", json!(100));
    let first = created(&stub, &machine).await;
    let second = created(&stub, &machine).await;
    assert_eq!(first.body, second.body);
}

#[tokio::test]
async fn a_public_address_moves_the_network_into_an_interface() {
    let stub = ec2();
    for wish in [true, false] {
        let request = created(&stub, &with(machine(), "public_ip", json!(wish))).await;
        let expected = map([
            ("DeviceIndex", "0"),
            ("AssociatePublicIpAddress", if wish { "true" } else { "false" }),
            ("DeleteOnTermination", "true"),
            ("SubnetId", "subnet-12345678"),
            ("SecurityGroupId.1", "sg-12345678"),
            ("SecurityGroupId.2", "sg-87654321"),
        ]);
        assert_eq!(below(&request, "NetworkInterface.1."), expected);
        assert!(!request.form().contains_key("SubnetId") && !request.form().contains_key("SecurityGroupId.1"));
    }
}

#[tokio::test]
async fn the_root_device_is_asked_for_once_and_only_when_needed() {
    let stub = ec2();
    let provider = provider(settings(&stub.url())).await;
    let resized = with(with(machine(), "ebs_volume_size_gib", json!(120)), "ebs_volume_type", json!("gp3"));
    for server in 1..=2 {
        provider.create(&spec(key(1, server), &resized)).await.expect("an accepted launch");
    }
    let actions: Vec<String> = stub.requests().iter().map(|request| request.parameter("Action")).collect();
    assert_eq!(actions, ["DescribeImages", "RunInstances", "RunInstances"]);
    let expected = map([
        ("DeviceName", "/dev/xvda"),
        ("Ebs.VolumeSize", "120"),
        ("Ebs.VolumeType", "gp3"),
        ("Ebs.DeleteOnTermination", "true"),
    ]);
    assert_eq!(below(&stub.last(), "BlockDeviceMapping.1."), expected);
    let told = with(resized, "root_device_name", json!("/dev/sda1"));
    let before = stub.requests().len();
    assert_eq!(below(&created(&stub, &told).await, "BlockDeviceMapping.1.")["DeviceName"], "/dev/sda1");
    assert_eq!(stub.requests().len(), before + 1);
}

#[tokio::test]
async fn an_image_without_root_device_is_a_mistake_in_the_settings() {
    let stub = Stub::start(|_| Answer::Http(200, answers::images("ami-00000000", "")));
    let provider = provider(settings(&stub.url())).await;
    let error = provider
        .create(&spec(key(1, 1), &with(machine(), "ebs_volume_size_gib", json!(120))))
        .await
        .expect_err("no root device");
    assert_eq!((error.kind, error.code.as_str()), (ErrorKind::Invalid, "InvalidAMIID.NotFound"));
}

#[tokio::test]
async fn overrides_are_laid_over_the_request_before_it_is_signed() {
    let stub = ec2();
    let overrides = json!({"instance_config": {
        "InstanceMarketOptions": {"MarketType": "spot", "SpotOptions": {"MaxPrice": "0.5"}},
        "MetadataOptions": {"HttpPutResponseHopLimit": 2}, "KeyName": null, "SecurityGroupIds": ["sg-1"],
    }});
    let request = created(&stub, &with(machine(), "overrides", overrides)).await;
    assert_eq!(
        below(&request, "InstanceMarketOptions."),
        map([("MarketType", "spot"), ("SpotOptions.MaxPrice", "0.5")])
    );
    assert_eq!(
        below(&request, "MetadataOptions."),
        map([("HttpTokens", "required"), ("HttpPutResponseHopLimit", "2")])
    );
    assert_eq!(below(&request, "SecurityGroupId."), map([("1", "sg-1")]));
    assert!(!request.form().contains_key("KeyName"));
}

/// The official SDK is the judge of our wire names.
#[tokio::test]
async fn overrides_are_written_as_the_sdk_writes_them() {
    let stub = ec2();
    let machine = json!({"ami": AMI, "instance_type": "m7i.large", "overrides": {
        "NetworkInterfaces": [{
            "DeviceIndex": 0, "Groups": ["sg-1"], "SubnetId": "subnet-1", "Ipv6Addresses": [{"Ipv6Address": "::1"}],
            "PrivateIpAddresses": [{"PrivateIpAddress": "10.0.0.9", "Primary": true}], "Ipv4Prefixes": [{"Ipv4Prefix": "10.0.1.0/28"}],
            "EnaSrdSpecification": {"EnaSrdUdpSpecification": {"EnaSrdUdpEnabled": true}},
        }],
        "BlockDeviceMappings": [{"DeviceName": "/dev/sdb", "Ebs": {"VolumeSize": 8, "KmsKeyId": "k", "Throughput": 125, "Encrypted": true}}],
        "InstanceMarketOptions": {"MarketType": "spot", "SpotOptions": {"ValidUntil": "2026-11-20T08:00:00Z", "SpotInstanceType": "one-time"}},
        "CapacityReservationSpecification": {"CapacityReservationTarget": {"CapacityReservationId": "cr-1"}},
        "LicenseSpecifications": [{"LicenseConfigurationArn": "arn:1"}],
        "Placement": {"HostResourceGroupArn": "arn:2", "PartitionNumber": 3},
        "PrivateDnsNameOptions": {"HostnameType": "ip-name", "EnableResourceNameDnsARecord": true},
        "HibernationOptions": {"Configured": false}, "Monitoring": {"Enabled": true}, "EbsOptimized": true, "DisableApiStop": true,
        "CpuOptions": {"CoreCount": 2}, "LaunchTemplate": {"LaunchTemplateName": "t", "Version": "$Latest"}, "AdditionalInfo": "x y",
        "MaintenanceOptions": {"AutoRecovery": "disabled"}, "CreditSpecification": {"CpuCredits": "unlimited"},
    }});
    let ours = created(&stub, &machine).await;
    by_sdk(&stub).await;
    let (ours, theirs) = (ours.form(), stub.last().form());
    let names: BTreeSet<&String> = theirs.keys().filter(|name| *name != "ClientToken").collect();
    assert!(names.len() > 35);
    for name in names {
        assert_eq!(ours.get(name), theirs.get(name), "{name}");
    }
}

/// Sends by the SDK's own types what the test above sends by overrides.
async fn by_sdk(stub: &Stub) {
    let config = aws_sdk_ec2::Config::builder()
        .behavior_version(BehaviorVersion::v2026_01_12())
        .region(Region::new("us-east-1"))
        .credentials_provider(Credentials::new("AKIATEST", SECRET_KEY, None, None, "test"))
        .endpoint_url(stub.url());
    let interface = ec2::InstanceNetworkInterfaceSpecification::builder()
        .device_index(0)
        .groups("sg-1")
        .subnet_id("subnet-1")
        .delete_on_termination(true)
        .ipv6_addresses(ec2::InstanceIpv6Address::builder().ipv6_address("::1").build())
        .private_ip_addresses(
            ec2::PrivateIpAddressSpecification::builder().private_ip_address("10.0.0.9").primary(true).build(),
        )
        .ipv4_prefixes(ec2::Ipv4PrefixSpecificationRequest::builder().ipv4_prefix("10.0.1.0/28").build())
        .ena_srd_specification(
            ec2::EnaSrdSpecificationRequest::builder()
                .ena_srd_udp_specification(
                    ec2::EnaSrdUdpSpecificationRequest::builder().ena_srd_udp_enabled(true).build(),
                )
                .build(),
        );
    let volume = ec2::EbsBlockDevice::builder()
        .volume_size(8)
        .kms_key_id("k")
        .throughput(125)
        .encrypted(true)
        .delete_on_termination(true);
    let until = DateTime::from_secs(1_795_161_600);
    let spot =
        ec2::SpotMarketOptions::builder().valid_until(until).spot_instance_type(ec2::SpotInstanceType::OneTime).build();
    let market = ec2::InstanceMarketOptionsRequest::builder().market_type(ec2::MarketType::Spot).spot_options(spot);
    let reservation = ec2::CapacityReservationTarget::builder().capacity_reservation_id("cr-1").build();
    let dns = ec2::PrivateDnsNameOptionsRequest::builder()
        .hostname_type(ec2::HostnameType::IpName)
        .enable_resource_name_dns_a_record(true);
    let request = Client::from_conf(config.build())
        .run_instances()
        .network_interfaces(interface.build())
        .block_device_mappings(ec2::BlockDeviceMapping::builder().device_name("/dev/sdb").ebs(volume.build()).build())
        .instance_market_options(market.build())
        .capacity_reservation_specification(
            ec2::CapacityReservationSpecification::builder().capacity_reservation_target(reservation).build(),
        )
        .license_specifications(ec2::LicenseConfigurationRequest::builder().license_configuration_arn("arn:1").build())
        .placement(ec2::Placement::builder().host_resource_group_arn("arn:2").partition_number(3).build())
        .private_dns_name_options(dns.build())
        .hibernation_options(ec2::HibernationOptionsRequest::builder().configured(false).build())
        .monitoring(ec2::RunInstancesMonitoringEnabled::builder().enabled(true).build())
        .ebs_optimized(true)
        .disable_api_stop(true)
        .cpu_options(ec2::CpuOptionsRequest::builder().core_count(2).build())
        .launch_template(
            ec2::LaunchTemplateSpecification::builder().launch_template_name("t").version("$Latest").build(),
        )
        .additional_info("x y")
        .maintenance_options(
            ec2::InstanceMaintenanceOptionsRequest::builder()
                .auto_recovery(ec2::InstanceAutoRecoveryState::Disabled)
                .build(),
        )
        .credit_specification(ec2::CreditSpecificationRequest::builder().cpu_credits("unlimited").build())
        .min_count(1)
        .max_count(1);
    request.send().await.expect("an accepted launch");
}

#[tokio::test]
async fn user_data_fits_to_the_byte_or_nothing_is_sent() {
    let stub = ec2();
    let provider = provider(settings(&stub.url())).await;
    let linux = with(machine(), "os", json!("linux"));
    let tags = "<powershell>\n\n</powershell>\n".len();
    for (machine, most) in [(&linux, USER_DATA_MAX), (&machine(), USER_DATA_MAX - tags)] {
        let object = aws::object(machine);
        let mut spec = spec(key(1, 1), machine);
        spec.user_data = Some("x".repeat(most).into());
        provider.create(&spec).await.expect("an accepted launch");
        assert_eq!(stub.last().parameter("UserData").len(), USER_DATA_MAX.div_ceil(3) * 4);
        assert_eq!(provider.check(&object, most), []);
        let sent = stub.requests().len();
        spec.user_data = Some("x".repeat(most + 1).into());
        let error = provider.create(&spec).await.expect_err("too much");
        assert_eq!((error.kind, error.code.as_str()), (ErrorKind::Invalid, "UserDataTooLarge"));
        let problems = provider.check(&object, most + 1);
        assert!(problems[0].to_string().starts_with("startup_script: given up to 16385 bytes; "), "{problems:?}");
        assert_eq!(stub.requests().len(), sent);
    }
}

#[tokio::test]
async fn specs_that_are_not_ours_or_not_sound_are_refused_before_anything_is_sent() {
    let stub = ec2();
    let provider = provider(settings(&stub.url())).await;
    let mut foreign = spec(key(1, 1), &machine());
    foreign.marker.deployment = kasm_autoscale_core::id::DeploymentId::from_bytes([8; 16]);
    assert_eq!(provider.create(&foreign).await.expect_err("foreign").code, "WrongDeployment");
    let unsound = provider.create(&spec(key(1, 1), &json!({"ami": "x"}))).await.expect_err("unsound");
    assert!(unsound.message.contains("ami: given \"x\"") && unsound.message.contains("instance_type"), "{unsound}");
    assert_eq!(provider.poll(&OpRef("op".into())).await.expect_err("no operations").code, "Unsupported");
    assert!(stub.requests().is_empty());
    let problems = provider.check(&aws::object(&json!({"ami": "x"})), 20_000);
    let paths: Vec<&str> = problems.iter().map(|problem| problem.path.as_str()).collect();
    assert_eq!(paths, ["ami", "instance_type", "startup_script"]);
}

#[tokio::test]
async fn the_policy_allows_exactly_what_is_called() {
    let stub = ec2();
    let provider = provider(settings(&stub.url())).await;
    let machine = with(machine(), "ebs_volume_size_gib", json!(9));
    provider.create(&spec(key(1, 1), &machine)).await.expect("an accepted launch");
    provider.find(&key(1, 1)).await.expect("an answer");
    provider.list(&key(1, 1).pool).await.expect("an answer");
    provider.delete(&MachineRef("i-1".into())).await.expect("an answer");
    provider.preflight(&aws::object(&machine)).await.expect("an answer");
    let mut called: BTreeSet<String> =
        stub.requests().iter().map(|request| format!("ec2:{}", request.parameter("Action"))).collect();
    // Tags and an instance profile in RunInstances need a right of their own (User Guide, "Grant permission to tag on creation").
    let form: Vec<String> = stub.requests().iter().flat_map(|request| request.form().into_keys()).collect();
    for (prefix, action) in [("TagSpecification.", "ec2:CreateTags"), ("IamInstanceProfile.", "iam:PassRole")] {
        called.extend(form.iter().any(|name| name.starts_with(prefix)).then(|| action.to_owned()));
    }
    let policy: Value = serde_json::from_str(include_str!("../src/aws/iam-policy.json")).expect("JSON");
    let statements = policy["Statement"].as_array().expect("statements");
    let actions = statements.iter().map(|statement| match &statement["Action"] {
        Value::String(one) => vec![one.clone()],
        Value::Array(many) => many.iter().map(|one| one.as_str().expect("an action").to_owned()).collect(),
        other => panic!("{other} is no action"),
    });
    assert_eq!(called, actions.flatten().collect());
    let conditional = ["ec2:RunInstances", "ec2:CreateTags", "ec2:TerminateInstances", "iam:PassRole"];
    for action in conditional {
        let has = |statement: &&Value| statement["Action"] == action && statement.get("Condition").is_some();
        assert!(statements.iter().any(|statement| has(&statement)), "{action} is not limited");
    }
}

#[tokio::test]
async fn describe_says_what_the_settings_say() {
    let mut settings: AwsSettings = settings("http://127.0.0.1:1");
    settings.visibility_lag = std::time::Duration::ZERO;
    let capabilities = provider(settings).await.describe();
    assert_eq!((capabilities.kind, capabilities.visibility_lag.as_secs()), ("aws", 0));
    assert_eq!((capabilities.poll_busy.as_secs(), capabilities.poll_idle.as_secs()), (5, 60));
    assert_eq!((capabilities.creates_in_flight_max, capabilities.call_timeout.as_secs()), (20, 30));
}
