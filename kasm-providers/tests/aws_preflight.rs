//! What the EC2 provider finds before anything is made: the answers of EC2, and the findings they become.
#![cfg(feature = "aws")]

use kasm_autoscale_core::ports::{ErrorKind, Finding, VmProvider};
use serde_json::{Value, json};

#[path = "support/answers.rs"]
#[allow(dead_code, reason = "shared by several tests")]
mod answers;
#[path = "support/aws.rs"]
#[allow(dead_code, reason = "shared by several tests")]
mod aws;
#[path = "support/stub.rs"]
#[allow(dead_code, reason = "shared by several tests")]
mod stub;

use answers::set;
use aws::{object, provider, settings};
use stub::{Answer, Request, Stub};

const AMI: &str = "ami-0123456789abcdef0";

fn machine() -> Value {
    json!({
        "ami": AMI, "instance_type": "m7i.large", "subnet_id": "subnet-12345678", "security_group_ids": ["sg-12345678"],
        "key_name": "desktops", "ebs_volume_size_gib": 60,
    })
}

fn image(state: &str, platform: &str) -> String {
    set(
        "DescribeImages",
        "imagesSet",
        &[format!(
            "<imageId>{AMI}</imageId><imageState>{state}</imageState>{platform}<rootDeviceName>/dev/sda1</rootDeviceName>\
             <blockDeviceMapping><item><deviceName>/dev/sda1</deviceName><ebs><volumeSize>50</volumeSize></ebs></item></blockDeviceMapping>"
        )],
    )
}

const WINDOWS: &str = "<platform>windows</platform>";

/// An account in which all is well.
fn sound(request: &Request) -> Answer {
    let body = match request.parameter("Action").as_str() {
        "RunInstances" => {
            assert_eq!(request.parameter("DryRun"), "true", "a preflight makes nothing");
            return Answer::Http(412, answers::error("DryRunOperation", "it would have succeeded"));
        }
        "DescribeImages" => image("available", WINDOWS),
        "DescribeInstances" => answers::described(&[], None),
        "DescribeSubnets" => answers::subnets("subnet-12345678", "us-east-1a", 9),
        "DescribeSecurityGroups" => answers::groups(&request.parameter("GroupId.1")),
        "DescribeKeyPairs" => answers::key_pairs("desktops", "rsa"),
        "DescribeInstanceTypeOfferings" => answers::offerings(&["m7i.large"]),
        other => panic!("nobody needs {other}"),
    };
    Answer::Http(200, body)
}

/// What is found when one action is answered in another way.
async fn findings(machine: &Value, action: &'static str, answer: (u16, String)) -> Vec<Finding> {
    let stub = Stub::start(move |request| match request.parameter("Action") == action {
        true => Answer::Http(answer.0, answer.1.clone()),
        false => sound(request),
    });
    provider(settings(&stub.url())).await.preflight(&object(machine)).await.expect("an answer")
}

#[tokio::test]
async fn nothing_is_found_where_all_is_well() {
    let stub = Stub::start(sound);
    let found = provider(settings(&stub.url())).await.preflight(&object(&machine())).await;
    assert_eq!(found, Ok(Vec::new()));
    let asked: Vec<String> = stub.requests().iter().map(|request| request.parameter("Action")).collect();
    assert_eq!(asked.iter().filter(|action| *action == "RunInstances").count(), 1, "{asked:?}");
    let offerings = stub.requests().into_iter().find(|request| request.parameter("Action").ends_with("Offerings"));
    assert_eq!(offerings.expect("asked").parameter("Filter.2.Value.1"), "us-east-1a");
}

#[tokio::test]
async fn every_answer_becomes_its_finding() {
    let ok = |body: String| (200, body);
    let refused = |status, code, message| (status, answers::error(code, message));
    let rows = [
        (
            "DescribeImages",
            refused(400, "InvalidAMIID.NotFound", "no such image"),
            format!("image {AMI}"),
            "no such image",
        ),
        ("DescribeImages", ok(set("DescribeImages", "imagesSet", &[])), format!("image {AMI}"), "none of this id"),
        ("DescribeImages", ok(image("failed", WINDOWS)), format!("image {AMI}"), "failed, not available"),
        ("DescribeImages", ok(image("available", "")), format!("image {AMI}"), "not Windows, but os is windows"),
        (
            "DescribeSubnets",
            ok(answers::subnets("subnet-12345678", "us-east-1a", 0)),
            "subnet subnet-12345678".into(),
            "no free address",
        ),
        (
            "DescribeSubnets",
            refused(400, "InvalidSubnetID.NotFound", "no subnet"),
            "subnet subnet-12345678".into(),
            "no subnet",
        ),
        (
            "DescribeSecurityGroups",
            refused(400, "InvalidGroup.NotFound", "no group"),
            "security group sg-12345678".into(),
            "no group",
        ),
        (
            "DescribeSecurityGroups",
            ok(set(
                "DescribeSecurityGroups",
                "securityGroupInfo",
                &["<groupId>sg-12345678</groupId><vpcId>vpc-2</vpcId>".into()],
            )),
            "security group sg-12345678".into(),
            "network vpc-2, the subnet to vpc-1",
        ),
        (
            "DescribeInstanceTypeOfferings",
            ok(answers::offerings(&[])),
            "size m7i.large".into(),
            "not offered in zone us-east-1a",
        ),
        ("DescribeKeyPairs", ok(answers::key_pairs("desktops", "ed25519")), "key pair \"desktops\"".into(), "ED25519"),
        (
            "DescribeKeyPairs",
            refused(400, "InvalidKeyPair.NotFound", "no key"),
            "key pair \"desktops\"".into(),
            "no key",
        ),
        (
            "DescribeSubnets",
            refused(403, "UnauthorizedOperation", "not you"),
            "right ec2:DescribeSubnets".into(),
            "not you",
        ),
        (
            "DescribeInstances",
            refused(403, "UnauthorizedOperation", "not you"),
            "right ec2:DescribeInstances".into(),
            "not you",
        ),
        ("RunInstances", refused(403, "UnauthorizedOperation", "not you"), "right ec2:RunInstances".into(), "not you"),
        ("RunInstances", refused(400, "VcpuLimitExceeded", "32 are too many"), "quota".into(), "32 are too many"),
        ("RunInstances", refused(400, "InvalidParameterCombination", "no such pair"), "launch".into(), "no such pair"),
        ("DescribeImages", refused(401, "AuthFailure", "who are you"), "credentials".into(), "who are you"),
    ];
    for (action, answer, subject, problem) in rows {
        let found = findings(&machine(), action, answer).await;
        assert_eq!(found.len(), 1, "{action} {problem}: {found:?}");
        assert!(found[0].subject == subject && found[0].problem.contains(problem), "{}", found[0]);
        assert!(!found[0].remedy.is_empty(), "{}", found[0]);
    }
}

#[tokio::test]
async fn settings_are_held_against_the_image() {
    let mut machine = machine();
    machine["ebs_volume_size_gib"] = json!(40);
    machine["root_device_name"] = json!("/dev/xvda");
    let found = findings(&machine, "none", (200, String::new())).await;
    let subjects: Vec<&str> = found.iter().map(|finding| finding.subject.as_str()).collect();
    assert_eq!(subjects, ["ebs_volume_size_gib", "root_device_name"]);
}

#[tokio::test]
async fn overrides_are_what_is_looked_at() {
    let stub = Stub::start(sound);
    let overrides = json!({"InstanceType": "m7i.xlarge", "SecurityGroupIds": ["sg-1"], "KeyName": "other"});
    let machine = json!({"ami": AMI, "instance_type": "m7i.large", "overrides": overrides});
    provider(settings(&stub.url())).await.preflight(&object(&machine)).await.expect("an answer");
    let asked =
        |parameter: &str| stub.requests().iter().any(|request| request.form().values().any(|value| value == parameter));
    assert!(asked("m7i.xlarge") && asked("sg-1") && asked("other") && !asked("subnet-12345678"));
}

#[tokio::test]
async fn a_cloud_that_cannot_be_asked_is_an_error() {
    let stub = Stub::start(|_| Answer::Http(503, answers::error("RequestLimitExceeded", "slower")));
    let error = provider(settings(&stub.url())).await.preflight(&object(&machine())).await.expect_err("throttled");
    assert_eq!(error.kind, ErrorKind::Throttled);
}

#[tokio::test]
async fn an_endpoint_that_ignores_dry_runs_is_found_and_tidied() {
    let stub = Stub::start(|request| match request.parameter("Action").as_str() {
        "RunInstances" => Answer::Http(200, answers::launched("i-1")),
        "TerminateInstances" => Answer::Http(200, answers::terminating("i-1", 32, "shutting-down")),
        _ => sound(request),
    });
    let found = provider(settings(&stub.url())).await.preflight(&object(&machine())).await.expect("an answer");
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].subject, "endpoint_url");
    assert_eq!(stub.last().parameter("InstanceId.1"), "i-1");
}
