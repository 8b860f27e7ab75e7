//! What the EC2 provider makes of EC2's answers about machines: pages, states, marks, reasons, deletions.
#![cfg(feature = "aws")]

use kasm_autoscale_core::ports::{
    Certainty, ErrorKind, Machine, MachineRef, MachineState, Progress, Scope, VmProvider,
};
use kasm_providers::aws::AddressChoice;

#[path = "support/answers.rs"]
#[allow(dead_code, reason = "shared by several tests")]
mod answers;
#[path = "support/aws.rs"]
#[allow(dead_code, reason = "shared by several tests")]
mod aws;
#[path = "support/stub.rs"]
#[allow(dead_code, reason = "shared by several tests")]
mod stub;

use answers::{described, error, instance, reason, terminating};
use aws::{key, provider, settings};
use stub::{Answer, Stub};

const RUNNING: (u16, &str) = (16, "running");
const TERMINATED: (u16, &str) = (48, "terminated");

fn answering(body: String) -> Stub {
    Stub::start(move |_| Answer::Http(200, body.clone()))
}

async fn listed(instances: &[String]) -> Vec<Machine> {
    let stub = answering(described(instances, None));
    let listing = provider(settings(&stub.url())).await.list(&key(1, 1).pool).await.expect("a list");
    assert!(listing.complete);
    listing.machines
}

fn ids(machines: &[Machine]) -> Vec<&str> {
    machines.iter().map(|machine| machine.reference.0.as_str()).collect()
}

#[tokio::test]
async fn a_list_is_complete_after_its_last_page() {
    let stub = Stub::start(|request| {
        let body = match request.parameter("NextToken").as_str() {
            "" => described(&[instance("i-1", RUNNING, ""), instance("i-2", RUNNING, "")], Some("page 2")),
            // An empty page in the middle is not the end (API Reference, "Pagination").
            "page 2" => described(&[], Some("page/3=")),
            "page/3=" => described(&[instance("i-3", RUNNING, "")], Some("")),
            other => panic!("{other} was not given out"),
        };
        Answer::Http(200, body)
    });
    let listing = provider(settings(&stub.url())).await.list(&key(1, 1).pool).await.expect("a list");
    assert_eq!((ids(&listing.machines), listing.complete), (vec!["i-1", "i-2", "i-3"], true));
    for request in stub.requests() {
        assert_eq!(request.parameter("Filter.1.Name"), "tag:kasm-autoscale:deployment");
        assert_eq!(request.parameter("Filter.1.Value.1"), aws::deployment().to_string());
        assert_eq!(request.parameter("Filter.2.Name"), "tag:kasm-autoscale:pool");
        assert_eq!(request.parameter("Filter.2.Value.1"), key(1, 1).pool.to_string());
        assert_eq!(request.parameter("MaxResults"), "1000");
    }
}

#[tokio::test]
async fn an_error_on_any_page_is_an_error_of_the_whole_list() {
    let stub = Stub::start(|request| match request.parameter("NextToken").as_str() {
        "" => Answer::Http(200, described(&[instance("i-1", RUNNING, "")], Some("2"))),
        _ => Answer::Http(503, error("RequestLimitExceeded", "Request limit exceeded.")),
    });
    let failed = provider(settings(&stub.url())).await.list(&key(1, 1).pool).await.expect_err("no list");
    assert_eq!((failed.kind, failed.certainty), (ErrorKind::Throttled, Certainty::NotApplied));
}

#[tokio::test]
async fn a_page_that_leads_to_itself_is_an_error() {
    let stub = answering(described(&[], Some("again")));
    let failed = provider(settings(&stub.url())).await.list(&key(1, 1).pool).await.expect_err("no list");
    assert_eq!((failed.code.as_str(), stub.requests().len()), ("RepeatedPage", 2));
}

#[tokio::test]
async fn terminated_machines_are_listed_only_if_they_failed() {
    let machines = listed(&[
        instance(
            "i-old",
            TERMINATED,
            &reason("Client.UserInitiatedShutdown", "Client.UserInitiatedShutdown: User initiated shutdown"),
        ),
        instance("i-bare", TERMINATED, ""),
        instance("i-failed", TERMINATED, &reason("Server.InsufficientInstanceCapacity", "no room in us-east-1a")),
        instance("i-new", (0, "pending"), "<stateReason><code>pending</code><message>pending</message></stateReason>"),
    ])
    .await;
    assert_eq!(ids(&machines), ["i-failed", "i-new"]);
    let fault = machines[0].fault.as_ref().expect("a reason");
    assert_eq!(
        (fault.kind, fault.scope, fault.certainty),
        (ErrorKind::NoCapacity, Scope::Offering, Certainty::NotApplied)
    );
    assert_eq!(
        (fault.code.as_str(), fault.message.as_str()),
        ("Server.InsufficientInstanceCapacity", "no room in us-east-1a")
    );
    assert_eq!((&machines[0].state, &machines[1].state), (&MachineState::Deleted, &MachineState::Provisioning));
    assert_eq!(machines[1].fault, None);
}

#[tokio::test]
async fn states_and_marks_that_nobody_knows_are_reported() {
    let tags = |server: &str| {
        let tag = |key: &str, value: &str| format!("<item><key>{key}</key><value>{value}</value></item>");
        let pool = key(1, 1).pool;
        let ours =
            [("deployment", aws::deployment().to_string()), ("pool", pool.to_string()), ("config", "cfg-3".to_owned())];
        let ours: String = ours.iter().map(|(end, value)| tag(&format!("kasm-autoscale:{end}"), value)).collect();
        format!("<tagSet>{ours}{server}</tagSet>")
    };
    let whole = tags("<item><key>kasm-autoscale:server</key><value>s-1</value></item>");
    let machines = listed(&[instance("i-1", (96, "hibernating"), &whole), instance("i-2", RUNNING, &tags(""))]).await;
    assert_eq!(machines[0].state, MachineState::Unknown("hibernating".to_owned()));
    let marker = machines[0].marker.clone().expect("a mark");
    assert_eq!((marker.deployment, marker.pool, marker.server.as_str()), (aws::deployment(), key(1, 1).pool, "s-1"));
    assert_eq!((machines[1].marker.as_ref(), &machines[1].state), (None, &MachineState::Running));
}

#[tokio::test]
async fn the_settings_choose_the_address() {
    let addresses = "<privateDnsName>ip-10-0-0-9.ec2.internal</privateDnsName><privateIpAddress>10.0.0.9</privateIpAddress><ipAddress>192.0.2.9</ipAddress>";
    let rows = [
        (AddressChoice::Private, "10.0.0.9"),
        (AddressChoice::Public, "192.0.2.9"),
        (AddressChoice::PrivateDns, "ip-10-0-0-9.ec2.internal"),
    ];
    let empty = "<privateDnsName></privateDnsName><dnsName/>";
    let stub = answering(described(&[instance("i-1", RUNNING, addresses), instance("i-2", RUNNING, empty)], None));
    for (choice, expected) in rows {
        let mut settings = settings(&stub.url());
        settings.address = choice;
        let machines = provider(settings).await.list(&key(1, 1).pool).await.expect("a list").machines;
        let address = machines[0].address.as_ref().expect("an address");
        assert_eq!((address.host.as_str(), address.port), (expected, None));
        assert_eq!(machines[1].address, None);
    }
}

#[tokio::test]
async fn find_takes_the_oldest_that_lives() {
    let at = |hour: u8| format!("<launchTime>2026-11-20T{hour:02}:00:00.000Z</launchTime>");
    let all = [
        instance("i-gone", TERMINATED, &at(1)),
        instance("i-late", RUNNING, &at(3)),
        instance("i-first", RUNNING, &at(2)),
    ];
    let rows = [(&all[..], Some("i-first")), (&all[..1], Some("i-gone")), (&all[..0], None)];
    for (instances, expected) in rows {
        let stub = answering(described(instances, None));
        let found = provider(settings(&stub.url())).await.find(&key(1, 1)).await.expect("an answer");
        assert_eq!(found.as_ref().map(|machine| machine.reference.0.as_str()), expected);
        let request = stub.last();
        assert_eq!(request.parameter("Filter.2.Name"), "tag:kasm-autoscale:server");
        assert_eq!(request.parameter("Filter.2.Value.1"), key(1, 1).uuid());
        assert_eq!(request.parameter("Filter.3.Name"), "tag:kasm-autoscale:pool");
    }
}

#[tokio::test]
async fn deleting_what_is_not_there_is_success() {
    let machine = MachineRef("i-0123456789abcdef0".into());
    let pending = Progress::Pending { machine: Some(machine.clone()), op: None };
    let done = Progress::Done { machine: Some(machine.clone()) };
    let rows = [
        (200, terminating(&machine.0, 32, "shutting-down"), pending),
        (200, terminating(&machine.0, 48, "terminated"), done.clone()),
        (400, error("InvalidInstanceID.NotFound", "The instance ID does not exist"), done),
    ];
    for (status, body, expected) in rows {
        let stub = Stub::start(move |_| Answer::Http(status, body.clone()));
        let progress = provider(settings(&stub.url())).await.delete(&machine).await.expect("success");
        assert_eq!(progress, expected);
        assert_eq!(
            (stub.last().parameter("InstanceId.1"), stub.last().parameter("InstanceId.2")),
            (machine.0.clone(), String::new())
        );
    }
}

#[tokio::test]
async fn a_protected_machine_stays_and_says_so() {
    let body = error(
        "OperationNotPermitted",
        "The instance 'i-1' may not be terminated. Modify its 'disableApiTermination' instance attribute and try again.",
    );
    let stub = Stub::start(move |_| Answer::Http(400, body.clone()));
    let failed = provider(settings(&stub.url())).await.delete(&MachineRef("i-1".into())).await.expect_err("protected");
    assert_eq!(
        (failed.kind, failed.scope, failed.certainty),
        (ErrorKind::Protected, Scope::Server, Certainty::NotApplied)
    );
    assert!(failed.message.contains("disableApiTermination"));
}
