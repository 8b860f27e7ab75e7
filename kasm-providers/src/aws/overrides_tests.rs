use serde_json::json;

use super::*;

fn object(value: Value) -> JsonObject {
    value.as_object().expect("an object").clone()
}

fn changes(value: Value) -> (Overrides, Vec<String>) {
    let mut problems = Vec::new();
    let overrides = Overrides::read(&object(value), &mut problems);
    (overrides, problems.iter().map(ToString::to_string).collect())
}

/// Some of botocore's `tests/unit/protocols/input/ec2.json` (commit 0e6e240, Apache-2.0): id, structures, input, body.
const VECTORS: [(&str, &str, &str, &str); 8] = [
    (
        "Ec2NestedStructures",
        "Root Nested Nested StructArg\nStructArg StringArg StringArg string\nStructArg OtherArg OtherArg boolean\n\
         StructArg RecursiveArg RecursiveArg StructArg",
        r#"{"Nested": {"StringArg": "foo", "OtherArg": true, "RecursiveArg": {"StringArg": "baz"}}}"#,
        "Nested.StringArg=foo&Nested.OtherArg=true&Nested.RecursiveArg.StringArg=baz",
    ),
    (
        "Ec2Lists",
        "Root ListArg ListArg [string]\nRoot ComplexListArg ComplexListArg [GreetingStruct]\nGreetingStruct hi Hi string",
        r#"{"ListArg": ["foo", "bar", "baz"], "ComplexListArg": [{"hi": "hello"}, {"hi": "hola"}]}"#,
        "ListArg.1=foo&ListArg.2=bar&ListArg.3=baz&ComplexListArg.1.Hi=hello&ComplexListArg.2.Hi=hola",
    ),
    ("Ec2EmptyQueryLists", "Root ListArg ListArg [string]", r#"{"ListArg": []}"#, ""),
    (
        "Ec2ListMemberWithXmlName",
        "Root ListArgWithXmlName Hi [string]",
        r#"{"ListArgWithXmlName": ["A", "B"]}"#,
        "Hi.1=A&Hi.2=B",
    ),
    (
        "Ec2ListNestedStructWithList",
        "Root NestedWithList NestedWithList Inner\nInner ListArg ListArg [string]",
        r#"{"NestedWithList": {"ListArg": ["A", "B"]}}"#,
        "NestedWithList.ListArg.1=A&NestedWithList.ListArg.2=B",
    ),
    ("Ec2SimpleInputParamsStringsAndBooleanFalse", "Root Baz Baz boolean", r#"{"Baz": false}"#, "Baz=false"),
    ("Ec2SimpleInputParamsInteger", "Root Bam Bam integer", r#"{"Bam": 10}"#, "Bam=10"),
    ("Ec2XmlNameIsUppercased", "Root UsesXmlName UsesXmlName string", r#"{"UsesXmlName": "Hi"}"#, "UsesXmlName=Hi"),
];

#[test]
fn the_protocols_own_examples_come_out_as_published() {
    for (id, names, input, body) in VECTORS {
        let input: Value = serde_json::from_str(input).expect("JSON");
        let mut problems = Vec::new();
        let mut flat = Flat { names: Names(names), changes: Vec::new(), problems: &mut problems };
        flat.structure(&object(input), "Root", "", "");
        let overrides = Overrides { changes: flat.changes };
        let sorted = |body: &str| {
            let mut pairs: Vec<String> = body.split('&').map(ToOwned::to_owned).collect();
            pairs.sort();
            pairs
        };
        assert_eq!(sorted(&overrides.apply("")), sorted(body), "{id}");
        assert!(problems.is_empty(), "{id}: {problems:?}");
    }
}

#[test]
fn objects_merge_lists_and_simple_values_replace_null_takes_away() {
    let base = "Action=RunInstances&KeyName=old&MetadataOptions.HttpTokens=required&SecurityGroupId.1=sg-1&SecurityGroupId.2=sg-2\
                &SecurityGroupIdentity=kept&IamInstanceProfile.Name=web";
    let (overrides, problems) = changes(json!({
        "KeyName": "new & better/ü",
        "MetadataOptions": {"HttpPutResponseHopLimit": 2},
        "SecurityGroupIds": ["sg-3"],
        "IamInstanceProfile": null,
    }));
    assert!(problems.is_empty(), "{problems:?}");
    assert_eq!(
        overrides.apply(base),
        "Action=RunInstances&MetadataOptions.HttpTokens=required&SecurityGroupIdentity=kept&KeyName=new%20%26%20better%2F%C3%BC\
         &MetadataOptions.HttpPutResponseHopLimit=2&SecurityGroupId.1=sg-3"
    );
}

#[test]
fn without_overrides_the_body_stays_as_it_is() {
    let body = "Action=RunInstances&UserData=YQ%3D%3D&Empty=";
    assert_eq!(Overrides::default().apply(body), body);
}

#[test]
fn kasms_outer_key_is_understood() {
    let inner = json!({"InstanceMarketOptions": {"MarketType": "spot"}, "Placement": {"Tenancy": "dedicated"}});
    assert_eq!(changes(json!({"instance_config": inner})), changes(inner));
    let (_, problems) = changes(json!({"instance_config": {"Tenancy": "dedicated"}}));
    assert!(problems[0].starts_with("overrides.instance_config.Tenancy: "), "{problems:?}");
}

#[test]
fn every_mistake_is_named_at_once_and_ours_are_refused() {
    let (overrides, problems) = changes(json!({
        "ClientToken": "mine", "MinCount": 2, "MaxCount": 2, "UserData": "canary-7", "TagSpecifications": [], "DryRun": true,
        "DisableApiTermination": true,
        "InstanceMarketOption": {"MarketType": "spot"},
        "Placement": {"tenancy": "dedicated"},
        "CpuOptions": {"CoreCount": "2"},
        "EbsOptimized": "yes",
        "SecurityGroupIds": "sg-1",
        "BlockDeviceMappings": [{"Ebs": {"DeleteOnTermination": false}}, "sdb", null],
    }));
    assert_eq!(overrides.changes.iter().filter(|change| matches!(change, Change::Set(..))).count(), 1);
    let has =
        |part: &str| assert!(problems.iter().any(|problem| problem.contains(part)), "{part} is not in {problems:#?}");
    for (name, _) in OURS {
        has(&format!("overrides.{name}: given a value; cannot be overridden"));
    }
    has(
        "overrides.InstanceMarketOption: given {\"MarketType\":\"spot\"}; RunInstancesRequest of the EC2 API has no such member; did you mean \"InstanceMarketOptions\"?",
    );
    has(
        "overrides.Placement.tenancy: given \"dedicated\"; Placement of the EC2 API has no such member; did you mean \"Tenancy\"?",
    );
    has("overrides.CpuOptions.CoreCount: given \"2\"; a whole number");
    has("overrides.EbsOptimized: given \"yes\"; true or false");
    has("overrides.SecurityGroupIds: given \"sg-1\"; a list");
    has("overrides.BlockDeviceMappings[0].Ebs.DeleteOnTermination: given false; true or nothing");
    has("overrides.BlockDeviceMappings[1]: given \"sdb\"; an object");
    has("overrides.BlockDeviceMappings[2]: given null; an object");
    assert_eq!(problems.len(), OURS.len() + 8);
    assert!(!problems.concat().contains("canary-7"));
}

#[test]
fn disks_and_network_interfaces_go_with_their_machine() {
    let (overrides, problems) = changes(json!({
        "BlockDeviceMappings": [{"DeviceName": "/dev/sdb", "Ebs": {"VolumeSize": 8}}, {"DeviceName": "/dev/sdc", "NoDevice": ""}],
        "NetworkInterfaces": [{"DeviceIndex": 0}, {"DeviceIndex": 1, "NetworkInterfaceId": "eni-1"}],
    }));
    assert!(problems.is_empty(), "{problems:?}");
    let body = overrides.apply("");
    let deletions: Vec<&str> = body.split('&').filter(|pair| pair.contains("DeleteOnTermination")).collect();
    assert_eq!(
        deletions,
        ["BlockDeviceMapping.1.Ebs.DeleteOnTermination=true", "NetworkInterface.1.DeleteOnTermination=true"]
    );
}
