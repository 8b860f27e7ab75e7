use serde_json::json;

use super::*;

fn read(value: Value) -> Result<MachineSettings, Vec<String>> {
    let object = value.as_object().expect("an object").clone();
    MachineSettings::from_json(&object).map_err(|problems| problems.iter().map(ToString::to_string).collect())
}

fn problems(value: Value) -> Vec<String> {
    read(value).expect_err("mistakes")
}

#[test]
fn the_least_and_the_most() {
    let least = read(json!({"ami": "ami-12345678", "instance_type": "m7i.large"})).expect("settings");
    assert_eq!((least.os(), least.ebs, least.public_ip), (Os::Windows, None, None));
    let most = read(json!({
        "ami": "ami-0123456789abcdef0", "instance_type": "u-6tb1.112xlarge", "subnet_id": "subnet-0123456789abcdef0",
        "security_group_ids": ["sg-0123456789abcdef0", "sg-12345678"], "key_name": "desk tops",
        "instance_profile": "arn:aws-cn:iam::123456789012:instance-profile/desktops/web", "ebs_volume_size_gib": 200,
        "ebs_volume_type": "io2", "ebs_iops": 3000, "root_device_name": "/dev/xvda", "public_ip": false,
        "tags": {"team": "desktops", "empty": ""}, "os": "linux",
        "overrides": {"InstanceMarketOptions": {"MarketType": "spot"}},
    }));
    let most = most.expect("settings");
    assert_eq!(most.ebs, Some(Ebs { size_gib: Some(200), volume_type: Some("io2"), iops: Some(3000) }));
    assert_eq!((most.os(), most.tags.len(), most.public_ip), (Os::Linux, 2, Some(false)));
}

#[test]
fn every_mistake_is_named_at_once() {
    let problems = problems(json!({
        "ami": "ami-XYZ", "subnet_id": "sub-12345678", "security_group_ids": ["sg-12345678", "web"], "key_name": "",
        "instance_profile": "no spaces", "ebs_volume_size_gib": 0, "ebs_volume_type": "gp4", "root_device_name": "C:",
        "public_ip": "yes", "os": "macos", "instanc_profile": "x",
    }));
    let starts = [
        "ami: given \"ami-XYZ\"; the id of an image",
        "instance_type: given nothing; required",
        "subnet_id: given \"sub-12345678\"; as in \"subnet-",
        "security_group_ids[1]: given \"web\"; as in \"sg-",
        "key_name: given \"\"",
        "instance_profile: given \"no spaces\"",
        "root_device_name: given \"C:\"",
        "ebs_volume_size_gib: given 0; a whole number from 1 to 65536",
        "ebs_volume_type: given \"gp4\"; one of \"gp3\"",
        "public_ip: given \"yes\"; true or false",
        "os: given \"macos\"; one of \"windows\", \"linux\"",
        "instanc_profile: given \"x\"; no such field; did you mean \"instance_profile\"?",
    ];
    for start in starts {
        assert!(problems.iter().any(|problem| problem.starts_with(start)), "{start} is not in {problems:#?}");
    }
    assert_eq!(problems.len(), starts.len());
}

#[test]
fn ids_names_and_arns() {
    let rows = [
        (is_id("ami-0123456789abcdef0", "ami-"), true),
        (is_id("ami-0123456789ABCDEF0", "ami-"), false),
        (is_id("ami-012345678", "ami-"), false),
        (is_id("ami-", "ami-"), false),
        (is_instance_type("mac2-m2pro.metal"), true),
        (is_instance_type("m7i"), false),
        (is_instance_type("m7i."), false),
        (is_instance_type("M7i.large"), false),
        (is_instance_profile("web+=,.@_-1"), true),
        (is_instance_profile("arn:aws:iam::123456789012:instance-profile/web"), true),
        (is_instance_profile("arn:aws:iam::12345678901:instance-profile/web"), false),
        (is_instance_profile("arn:aws:iam::123456789012:role/web"), false),
        (is_instance_profile("arn:aws:iam::123456789012:instance-profile/"), false),
    ];
    for (index, (given, expected)) in rows.into_iter().enumerate() {
        assert_eq!(given, expected, "row {index}");
    }
}

#[test]
fn tags_keep_to_the_limits_of_ec2() {
    let with = |tags: Value| json!({"ami": "ami-12345678", "instance_type": "t3.large", "tags": tags});
    let many = |count: usize| -> JsonObject { (0..count).map(|n| (format!("k{n}"), json!("v"))).collect() };
    assert!(read(with(many(45).into())).is_ok());
    assert_eq!(problems(with(many(46).into())), ["tags: given 46 tags; at most 45: EC2 allows 50, and five are ours"]);
    assert!(read(with(json!({"ä".repeat(128): "ü".repeat(256)}))).is_ok());
    let long = problems(with(json!({"k".repeat(129): "v", "key": "v".repeat(257), "": "v", "number": 7})));
    assert_eq!(long.len(), 4, "{long:?}");
    let reserved = problems(with(
        json!({"aws:x": "v", "AWS:y": "v", "kasm-autoscale:pool": "v", "Kasm-Autoscale:z": "v", "Name": "v"}),
    ));
    assert_eq!(reserved.len(), 5, "{reserved:?}");
}

#[test]
fn speed_belongs_to_some_volume_types_only() {
    let with = |kind: &str, iops: Value| json!({"ami": "ami-12345678", "instance_type": "t3.large", "ebs_volume_type": kind, "ebs_iops": iops});
    assert!(read(with("gp3", json!(4000))).is_ok());
    assert!(problems(with("io1", json!(null)))[0].starts_with("ebs_iops: given nothing; required"));
    assert!(problems(with("gp2", json!(4000)))[0].starts_with("ebs_iops: given 4000; only with"));
}

#[test]
fn two_ways_of_saying_the_same_are_refused() {
    let mixed = problems(json!({
        "ami": "ami-12345678", "instance_type": "t3.large", "subnet_id": "subnet-12345678", "public_ip": true,
        "ebs_volume_size_gib": 9,
        "overrides": {"NetworkInterfaces": [{"DeviceIndex": 0}], "SecurityGroupIds": ["sg-1"], "BlockDeviceMappings": []},
    }));
    assert_eq!(
        mixed,
        [
            "overrides.NetworkInterfaces: given both; the field subnet_id and overrides.NetworkInterfaces exclude each other",
            "overrides.NetworkInterfaces: given both; the field public_ip and overrides.NetworkInterfaces exclude each other",
            "overrides.SecurityGroupIds: given both; the field public_ip and overrides.SecurityGroupIds exclude each other",
            "overrides.BlockDeviceMappings: given both; the field ebs_volume_size_gib and overrides.BlockDeviceMappings exclude each other",
        ]
    );
}
