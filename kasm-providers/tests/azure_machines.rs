//! The life of machines on Azure, against the stand-in: what is asked for, what comes of it, and what is left behind.
#![cfg(feature = "azure")]

use std::collections::BTreeSet;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use kasm_autoscale_core::ports::{
    Address, Certainty, ErrorKind, Machine, MachineRef, MachineState, OpRef, Progress, VmProvider,
};
use kasm_providers::azure::{AddressChoice, AdminPassword, AzureProvider, USER_DATA_MAX};
use serde_json::{Value, json};

#[path = "support/arm.rs"]
#[allow(dead_code, reason = "shared by several tests")]
mod arm;
#[path = "support/azure.rs"]
#[allow(dead_code, reason = "shared by several tests")]
mod azure;
#[path = "support/swagger.rs"]
mod swagger;
#[path = "support/tls.rs"]
#[allow(dead_code, reason = "shared by several tests")]
mod tls;

use arm::{Arm, Fault, Kind, answer, error};
use azure::{SCRIPT, deployment, key, machine, name, object, provider, settings, spec, with, with_settings};

const VM: &str = "Microsoft.Compute/virtualMachines/";
const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJcanary0123456789 desk@top";

/// The body of the request for a machine with these settings, which the stand-in and so the API's description accept.
async fn body(arm: &Arm, provider: &AzureProvider, server: u64, machine: &Value) -> Value {
    provider.create(&spec(key(1, server), machine)).await.expect("accepted");
    serde_json::from_str(&arm.last("PUT").body).expect("JSON")
}

fn op(progress: Progress) -> OpRef {
    match progress {
        Progress::Pending { op: Some(op), .. } => op,
        other => panic!("no operation in {other:?}"),
    }
}

async fn create(provider: &AzureProvider, server: u64, machine: &Value) -> OpRef {
    op(provider.create(&spec(key(1, server), machine)).await.expect("accepted"))
}

/// Polls until the operation has ended.
async fn ended(provider: &AzureProvider, op: &OpRef) -> Result<Progress, kasm_autoscale_core::ports::ProviderError> {
    for _ in 0..20 {
        match provider.poll(op).await {
            Ok(Progress::Pending { machine: None, op: Some(next) }) => assert_eq!(&next, op),
            other => return other,
        }
    }
    panic!("{op} does not end")
}

async fn made(provider: &AzureProvider, server: u64) -> MachineRef {
    let op = create(provider, server, &machine()).await;
    match ended(provider, &op).await.expect("made") {
        Progress::Done { machine: Some(machine) } => machine,
        other => panic!("not made: {other:?}"),
    }
}

async fn listed(provider: &AzureProvider) -> Vec<Machine> {
    let listing = provider.list(&key(1, 1).pool).await.expect("a list");
    assert!(listing.complete);
    listing.machines
}

async fn found(provider: &AzureProvider, server: u64) -> Option<Machine> {
    provider.find(&key(1, server)).await.expect("an answer")
}

#[tokio::test]
async fn a_request_says_everything_and_is_the_same_each_time() {
    let arm = Arm::start();
    let provider = provider(&arm);
    let machine = with(with(machine(), "tags", json!({"team": "ä & b"})), "network_security_group", json!("desktops"));
    let machine = with(with(machine, "os_disk_type", json!("Premium_LRS")), "os_disk_size_gib", json!(200));
    let machine = with(with(machine, "public_ip", json!(true)), "zone", json!("2"));
    let body = body(&arm, &provider, 1, &machine).await;
    let request = arm.last("PUT");
    let vm = name(&key(1, 1));
    assert!(
        request.path.ends_with(&format!("/resourceGroups/Desktops/providers/Microsoft.Compute/virtualMachines/{vm}"))
    );
    assert_eq!((request.headers["if-none-match"].as_str(), request.query["api-version"].as_str()), ("*", "2024-03-01"));
    let at = |pointer: &str| body.pointer(pointer).cloned().unwrap_or_default();
    let uuid = key(1, 1).uuid();
    let tags = json!({
        "team": "ä & b", "kasm-autoscale:deployment": deployment().to_string(), "kasm-autoscale:pool": key(1, 1).pool.to_string(),
        "kasm-autoscale:config": "cfg-3", "kasm-autoscale:server": uuid, "kasm-autoscale:name": key(1, 1).machine_name().as_str(),
        "kasm-autoscale:script": "extension",
    });
    assert_eq!((at("/tags"), at("/location"), at("/zones")), (tags, json!("westeurope"), json!(["2"])));
    let disk = json!({ "name": format!("{vm}-cfg-3-osdisk"), "createOption": "FromImage", "deleteOption": "Delete",
        "diskSizeGB": 200, "managedDisk": { "storageAccountType": "Premium_LRS" } });
    assert_eq!(at("/properties/storageProfile/osDisk"), disk);
    let nic = "/properties/networkProfile/networkInterfaceConfigurations/0";
    assert_eq!(
        (at(&format!("{nic}/name")), at(&format!("{nic}/properties/deleteOption"))),
        (json!(format!("{vm}-cfg-3-nic")), json!("Delete"))
    );
    let group = json!(format!(
        "/subscriptions/{}/resourceGroups/Desktops/providers/Microsoft.Network/networkSecurityGroups/desktops",
        arm::SUBSCRIPTION
    ));
    assert_eq!(at(&format!("{nic}/properties/networkSecurityGroup/id")), group);
    let public = format!("{nic}/properties/ipConfigurations/0/properties/publicIPAddressConfiguration");
    assert_eq!(
        (at(&format!("{public}/name")), at(&format!("{public}/properties/deleteOption"))),
        (json!(format!("{vm}-cfg-3-pip")), json!("Delete"))
    );
    let profile = at("/properties/osProfile");
    assert_eq!(
        (&profile["computerName"], &profile["adminUsername"]),
        (&json!(key(1, 1).machine_name().as_str()), &json!("desk"))
    );
    let data = BASE64_STANDARD.decode(profile["customData"].as_str().expect("a text")).expect("base64");
    assert_eq!(String::from_utf8(data).expect("text"), format!("\u{feff}{SCRIPT}"));
    // The same again is the same to the byte, and finds the machine that it has made before.
    let again = provider.create(&spec(key(1, 1), &machine)).await;
    assert_eq!(arm.last("PUT").body, request.body);
    assert_eq!(again, Ok(Progress::Pending { machine: Some(MachineRef(vm)), op: None }));
    assert_eq!(arm.names(Kind::Vm).len(), 1);
}

#[tokio::test]
async fn every_kind_of_machine_is_as_the_api_describes_it() {
    let arm = Arm::start();
    let provider = provider(&arm);
    let linux = with(
        with(with(machine(), "os", json!("linux")), "ssh_public_key", json!(KEY)),
        "accelerated_networking",
        json!(true),
    );
    let linux_body = body(&arm, &provider, 1, &linux).await;
    let profile = &linux_body["properties"]["osProfile"];
    assert_eq!(profile.get("adminPassword"), None);
    assert_eq!(profile["linuxConfiguration"]["disablePasswordAuthentication"], json!(true));
    assert_eq!(linux_body["tags"].get("kasm-autoscale:script"), None);
    let spot = with(
        with(with(machine(), "spot", json!(true)), "trusted_launch", json!(true)),
        "license_type",
        json!("Windows_Client"),
    );
    let spot = with(spot, "plan", json!({"name": "n", "publisher": "p", "product": "o"}));
    let spot_body = body(&arm, &provider, 2, &spot).await;
    assert_eq!(
        (&spot_body["properties"]["priority"], &spot_body["properties"]["evictionPolicy"]),
        (&json!("Spot"), &json!("Delete"))
    );
    let image = "/subscriptions/s/resourceGroups/g/providers/Microsoft.Compute/galleries/g/images/i";
    let mut specialized = with(with(machine(), "specialized", json!(true)), "image", json!(image));
    specialized.as_object_mut().expect("an object").remove("admin_username");
    let mut bare = spec(key(1, 3), &specialized);
    bare.user_data = None;
    provider.create(&bare).await.expect("accepted");
    let specialized_body: Value = serde_json::from_str(&arm.last("PUT").body).expect("JSON");
    assert_eq!(specialized_body["properties"].get("osProfile"), None);
    let overridden = with(
        machine(),
        "overrides",
        json!({
        "identity": {"type": "SystemAssigned"},
        "properties": {"diagnosticsProfile": {"bootDiagnostics": {"enabled": true}},
            "storageProfile": {"dataDisks": [{"lun": 0, "createOption": "Empty", "diskSizeGB": 8}]}}}),
    );
    let overridden_body = body(&arm, &provider, 4, &overridden).await;
    assert_eq!(overridden_body["identity"]["type"], json!("SystemAssigned"));
    for body in [&linux_body, &spot_body, &specialized_body, &overridden_body] {
        assert_eq!(swagger::mistakes("VirtualMachine", body), [""; 0]);
    }
    // The judge is awake.
    let mut wrong = spot_body.clone();
    wrong["properties"]["storageProfile"]["osDisk"]["creatOption"] = json!("FromImage");
    wrong["properties"]["priority"] = json!("Cheap");
    wrong["properties"]["hardwareProfile"]["vmSize"] = json!(4);
    wrong["properties"]["vmId"] = json!("mine");
    wrong.as_object_mut().expect("an object").remove("location");
    assert_eq!(
        swagger::mistakes("VirtualMachine", &wrong).len(),
        5,
        "{:?}",
        swagger::mistakes("VirtualMachine", &wrong)
    );
}

#[tokio::test]
async fn passwords_are_the_same_for_all_or_each_servers_own() {
    let arm = Arm::start();
    let password = |body: &Value| body["properties"]["osProfile"]["adminPassword"].as_str().expect("a text").to_owned();
    let derived = provider(&arm);
    let (one, two) = (body(&arm, &derived, 1, &machine()).await, body(&arm, &derived, 2, &machine()).await);
    assert_ne!(password(&one), password(&two));
    let mut settings = settings(&arm);
    settings.admin_password = Some(AdminPassword::Same("Same-1234".into()));
    assert_eq!(password(&body(&arm, &with_settings(settings.clone()), 3, &machine()).await), "Same-1234");
    settings.admin_password = None;
    let none = with_settings(settings);
    let error = none.create(&spec(key(1, 4), &machine())).await.expect_err("no password");
    assert!(error.kind == ErrorKind::Invalid && error.message.contains("admin_password_key"), "{error}");
    let problems = none.check(&object(&machine()), 0);
    assert!(problems[0].allowed.contains("admin_password_key"), "{problems:?}");
}

#[tokio::test]
async fn a_machine_is_made_found_listed_and_deleted_with_all_its_parts() {
    let arm = Arm::start();
    let provider = provider(&arm);
    let op = create(&provider, 1, &with(machine(), "public_ip", json!(true))).await;
    assert!(op.0.starts_with(&format!("create {} {}/subscriptions/", name(&key(1, 1)), arm.url())), "{op}");
    assert_eq!(found(&provider, 1).await.expect("a machine").state, MachineState::Provisioning);
    let reference = MachineRef(name(&key(1, 1)));
    assert_eq!(ended(&provider, &op).await, Ok(Progress::Done { machine: Some(reference.clone()) }));
    // The script was started before the machine counted as made.
    let ran = arm.state().ran.clone();
    assert!(ran.len() == 1 && ran[0].1.starts_with("powershell.exe ") && !ran[0].1.contains("canary"), "{ran:?}");
    let machine = found(&provider, 1).await.expect("a machine");
    assert_eq!(
        (&machine.state, machine.marker.as_ref().map(|mark| mark.server.clone())),
        (&MachineState::Running, Some(key(1, 1).uuid()))
    );
    assert_eq!(machine.address, Some(Address { host: "127.0.0.1".into(), port: None }));
    assert_eq!(listed(&provider).await, [machine]);
    assert_eq!(provider.list(&key(2, 1).pool).await.expect("a list").machines, []);
    assert_eq!(arm.everything().len(), 4);
    let deletion = provider.delete(&reference).await.expect("accepted");
    assert_eq!(found(&provider, 1).await.expect("a machine").state, MachineState::Deleting);
    assert!(arm.last("DELETE").query["forceDeletion"] == "true");
    let done = Progress::Done { machine: Some(reference.clone()) };
    assert_eq!(ended(&provider, &self::op(deletion)).await, Ok(done.clone()));
    assert_eq!((found(&provider, 1).await, listed(&provider).await, arm.everything()), (None, Vec::new(), Vec::new()));
    assert_eq!(provider.delete(&reference).await, Ok(done));
    assert_eq!(arm.state().ran.len(), 1);
}

#[tokio::test]
async fn public_addresses_are_told_where_they_are_wanted() {
    let arm = Arm::start();
    let mut settings = settings(&arm);
    settings.address = AddressChoice::Public;
    let provider = with_settings(settings);
    let wish = with(machine(), "public_ip", json!(true));
    let op = create(&provider, 1, &wish).await;
    ended(&provider, &op).await.expect("made");
    let address = Some(Address { host: "127.0.0.2".into(), port: None });
    assert_eq!(found(&provider, 1).await.expect("a machine").address, address);
    assert_eq!(listed(&provider).await[0].address, address);
    let problems = provider.check(&object(&machine()), 0);
    assert_eq!(problems[0].path, "public_ip");
    assert_eq!(provider.check(&object(&wish), 0), []);
}

#[tokio::test]
async fn operations_and_scripts_go_on_after_a_restart() {
    let arm = Arm::start();
    let op = create(&provider(&arm), 1, &machine()).await;
    // As it was read back from the row.
    let op: OpRef = serde_json::from_str(&serde_json::to_string(&op).expect("JSON")).expect("an operation");
    let restarted = provider(&arm);
    assert!(matches!(ended(&restarted, &op).await, Ok(Progress::Done { machine: Some(_) })));
    assert_eq!(arm.state().ran.len(), 1);
    // The machine is made, and nobody polls any more: whoever looks starts the script, and only once.
    create(&restarted, 2, &machine()).await;
    arm.advance(60);
    let again = provider(&arm);
    for _ in 0..2 {
        assert_eq!(listed(&again).await.iter().filter(|machine| machine.state == MachineState::Running).count(), 2);
    }
    assert_eq!(arm.state().ran.len(), 2);
    create(&again, 3, &machine()).await;
    arm.advance(60);
    assert_eq!(found(&again, 3).await.expect("a machine").state, MachineState::Running);
    assert_eq!(arm.state().ran.len(), 3);
    // A prepared image looks for its script by itself.
    create(&again, 4, &with(machine(), "run_script", json!("image"))).await;
    arm.advance(60);
    assert_eq!(found(&again, 4).await.expect("a machine").state, MachineState::Running);
    assert_eq!(arm.state().ran.len(), 3);
}

#[tokio::test]
async fn a_script_that_cannot_be_started_yet_keeps_its_machine_waiting() {
    let arm = Arm::start();
    let provider = provider(&arm);
    let op = create(&provider, 1, &machine()).await;
    arm.advance(60);
    let busy =
        || Fault::Answer(error(409, "Conflict", "The request failed due to conflict with a concurrent request."));
    arm.next("PUT", "/extensions/", busy());
    assert_eq!(provider.poll(&op).await, Ok(Progress::Pending { machine: None, op: Some(op.clone()) }));
    arm.next("PUT", "/extensions/", busy());
    assert_eq!(listed(&provider).await[0].state, MachineState::Provisioning);
    arm.next("PUT", "/extensions/", Fault::Answer(error(400, "InvalidParameter", "no such extension")));
    let failed = found(&provider, 1).await.expect("a machine");
    assert_eq!(
        (failed.state, failed.fault.map(|fault| fault.code)),
        (MachineState::Failed, Some("InvalidParameter".into()))
    );
    assert!(matches!(provider.poll(&op).await, Ok(Progress::Done { .. })));
    assert_eq!(arm.state().ran.len(), 1);
}

#[tokio::test]
async fn a_lost_reply_is_looked_up_and_the_machine_is_there_or_not() {
    let arm = Arm::start();
    let provider = provider(&arm);
    arm.next("PUT", VM, Fault::LostAfter);
    let lost = provider.create(&spec(key(1, 1), &machine())).await.expect_err("no reply");
    assert_eq!((lost.kind, lost.certainty), (ErrorKind::Transient, Certainty::Unknown));
    let machine_found = found(&provider, 1).await.expect("a machine");
    assert_eq!(machine_found.marker.map(|mark| mark.server), Some(key(1, 1).uuid()));
    arm.next("PUT", VM, Fault::LostBefore);
    provider.create(&spec(key(1, 2), &machine())).await.expect_err("no reply");
    assert_eq!(found(&provider, 2).await, None);
    // A machine of our name that is not ours by its mark is a riddle, not a success.
    arm.edit(Kind::Vm, &name(&key(1, 1)), |vm| vm["tags"] = json!({}));
    let riddle = provider.create(&spec(key(1, 1), &machine())).await.expect_err("not ours");
    assert_eq!(
        (riddle.kind, riddle.certainty, riddle.code.as_str()),
        (ErrorKind::Conflict, Certainty::Unknown, "PreconditionFailed")
    );
    assert_eq!(listed(&provider).await[0].marker, None);
}

#[tokio::test]
async fn a_forgotten_operation_is_answered_by_the_machine() {
    let arm = Arm::start();
    let provider = provider(&arm);
    let op = create(&provider, 1, &machine()).await;
    let gone = || Fault::Answer(error(404, "NotFound", "The entity was not found."));
    let reference = Some(MachineRef(name(&key(1, 1))));
    arm.next("GET", "/operations/", gone());
    assert_eq!(provider.poll(&op).await, Ok(Progress::Pending { machine: reference.clone(), op: None }));
    arm.advance(60);
    arm.next("GET", "/operations/", gone());
    assert_eq!(provider.poll(&op).await, Ok(Progress::Done { machine: reference }));
    assert_eq!(arm.state().ran.len(), 1);
    arm.state().hidden = true;
    arm.next("GET", "/operations/", gone());
    assert_eq!(provider.poll(&op).await, Ok(Progress::Pending { machine: None, op: None }));
    for text in ["", "create x https://127.0.0.1/1", &format!("create {} https://127.0.0.1:1/1", name(&key(1, 1)))] {
        assert_eq!(provider.poll(&OpRef(text.into())).await.expect_err("not ours").code, "UnknownOperation");
    }
}

/// The operation itself says when to come again.
#[tokio::test]
async fn an_operation_is_not_asked_before_its_time() {
    let arm = Arm::start();
    let provider = provider(&arm);
    let op = create(&provider, 1, &machine()).await;
    let headers = vec![("Retry-After".to_owned(), "600".to_owned())];
    arm.next(
        "GET",
        "/operations/",
        Fault::Answer(tls::Reply::Http { status: 200, headers, body: json!({"status": "InProgress"}).to_string() }),
    );
    let pending = Ok(Progress::Pending { machine: None, op: Some(op.clone()) });
    assert_eq!(provider.poll(&op).await, pending);
    let sent = arm.calls().len();
    assert_eq!(provider.poll(&op).await, pending);
    assert_eq!(arm.calls().len(), sent);
}

#[tokio::test]
async fn what_a_half_failed_create_leaves_is_shown_and_deleted() {
    let arm = Arm::start();
    let mut settings = settings(&arm);
    settings.visibility_lag = Duration::ZERO;
    let provider = with_settings(settings);
    arm.state().next_fails = Some(json!({ "code": "AllocationFailed", "message": "no room" }));
    let op = create(&provider, 1, &with(machine(), "public_ip", json!(true))).await;
    let error = ended(&provider, &op).await.expect_err("no room");
    assert_eq!(
        (error.kind, error.certainty, error.message.as_str()),
        (ErrorKind::NoCapacity, Certainty::NotApplied, "no room")
    );
    let failed = listed(&provider).await.remove(0);
    assert_eq!(
        (&failed.state, failed.fault.as_ref().map(|fault| fault.kind)),
        (&MachineState::Failed, Some(ErrorKind::NoCapacity))
    );
    assert_eq!(
        found(&provider, 1).await.map(|machine| (machine.state, machine.fault)),
        Some((MachineState::Failed, failed.fault.clone()))
    );
    // The machine goes; its interface is kept for 180 seconds for a machine that will never come, and its address with it.
    let deletion = provider.delete(&failed.reference).await.expect("accepted");
    let reserved = ended(&provider, &self::op(deletion)).await.expect_err("reserved");
    assert_eq!(
        (reserved.kind, reserved.code.as_str(), reserved.retry_after),
        (ErrorKind::Conflict, "NicReservedForAnotherVm", Some(Duration::from_secs(180)))
    );
    assert_eq!((arm.names(Kind::Vm).len(), arm.names(Kind::Nic).len(), arm.names(Kind::PublicIp).len()), (0, 1, 1));
    let leftover = listed(&provider).await.remove(0);
    let fault = leftover.fault.as_ref().map(|fault| fault.code.as_str());
    assert_eq!((&leftover.reference, &leftover.marker, fault), (&failed.reference, &failed.marker, Some("Leftover")));
    assert_eq!(found(&provider, 1).await.map(|machine| machine.state), Some(MachineState::Failed));
    arm.advance(180);
    assert!(matches!(provider.delete(&failed.reference).await, Ok(Progress::Pending { .. })));
    arm.advance(60);
    assert_eq!(provider.delete(&failed.reference).await, Ok(Progress::Done { machine: Some(failed.reference) }));
    assert_eq!((arm.everything(), listed(&provider).await), (Vec::new(), Vec::new()));
}

#[tokio::test]
async fn parts_without_a_machine_are_given_time_and_then_deleted_one_by_one() {
    let arm = Arm::start();
    let patient = provider(&arm);
    let reference = made(&patient, 1).await;
    // Somebody has deleted the machine and kept its parts.
    arm.remove(Kind::Vm, &reference.0);
    for kind in [Kind::Nic, Kind::Disk] {
        for part in arm.names(kind) {
            arm.edit(kind, &part, |part| {
                part["managedBy"] = Value::Null;
                part["properties"].as_object_mut().expect("an object").remove("virtualMachine");
            });
        }
    }
    assert_eq!(listed(&patient).await[0].state, MachineState::Provisioning);
    let mut settings = settings(&arm);
    settings.visibility_lag = Duration::ZERO;
    let hasty = with_settings(settings);
    listed(&hasty).await;
    assert_eq!(listed(&hasty).await[0].state, MachineState::Failed);
    assert!(matches!(hasty.delete(&reference).await, Ok(Progress::Pending { .. })));
    assert_eq!(arm.calls().iter().filter(|call| call.starts_with("DELETE")).count(), 3);
    arm.advance(60);
    assert_eq!(hasty.delete(&reference).await, Ok(Progress::Done { machine: Some(reference) }));
    let foreign = hasty.delete(&MachineRef("database".into())).await.expect_err("not ours");
    assert_eq!((foreign.kind, foreign.code.as_str()), (ErrorKind::Invalid, "NotOurs"));
}

#[tokio::test]
async fn machines_that_stop_fail_or_run_all_the_same_are_told_apart() {
    let arm = Arm::start();
    let provider = provider(&arm);
    let reference = made(&provider, 1).await;
    arm.advance(60);
    let view = |power: &str| json!({ "statuses": [{ "code": "ProvisioningState/succeeded" }, { "code": format!("PowerState/{power}") }] });
    for (power, state) in [("deallocated", MachineState::Stopped), ("running", MachineState::Running)] {
        arm.edit(Kind::Vm, &reference.0, |vm| vm["properties"]["instanceView"] = view(power));
        assert_eq!(listed(&provider).await[0].state, state);
        assert_eq!(found(&provider, 1).await.expect("a machine").state, state);
    }
    // Somebody's extension has failed; users go on working.
    let mut running = view("running");
    running["statuses"][0]["code"] = json!("ProvisioningState/failed/VMExtensionProvisioningError");
    running["vmAgent"] = json!({ "statuses": [{ "displayStatus": "Ready" }] });
    arm.edit(Kind::Vm, &reference.0, |vm| {
        vm["properties"]["provisioningState"] = json!("Failed");
        vm["properties"]["instanceView"] = running;
    });
    assert_eq!(listed(&provider).await[0].state, MachineState::Running);
}

/// As after a database was copied: the same pools, servers and references, and another deployment.
#[tokio::test]
async fn machines_of_another_installation_are_left_alone() {
    let arm = Arm::start();
    let reference = made(&provider(&arm), 1).await;
    let other = kasm_autoscale_core::id::DeploymentId::from_bytes([8; 16]);
    let copy = AzureProvider::connect(settings(&arm), other).expect("sound settings");
    assert_eq!(copy.delete(&reference).await, Ok(Progress::Done { machine: Some(reference) }));
    let found = copy.find(&key(1, 1)).await.expect("an answer").expect("a machine");
    assert_eq!(found.marker.map(|mark| mark.deployment), Some(deployment()));
    assert!(arm.calls().iter().all(|call| !call.starts_with("DELETE")));
}

#[tokio::test]
async fn lists_have_pages_and_no_page_may_be_missing() {
    let arm = Arm::start();
    let provider = provider(&arm);
    for server in 1..=5 {
        create(&provider, server, &machine()).await;
    }
    arm.advance(60);
    assert_eq!(listed(&provider).await.len(), 5);
    let foreign = |next: String| Fault::Answer(answer(200, &json!({ "value": [], "nextLink": next })));
    arm.next("GET", "virtualMachines", foreign("https://127.0.0.1:1/next".into()));
    assert_eq!(provider.list(&key(1, 1).pool).await.expect_err("a foreign page").code, "ForeignPage");
    let url = format!("{}/again", arm.url());
    arm.next("GET", "virtualMachines", foreign(url.clone()));
    arm.next("GET", "/again", foreign(url));
    assert_eq!(provider.list(&key(1, 1).pool).await.expect_err("the same page").code, "RepeatedPage");
    arm.next("GET", "virtualMachines", Fault::Answer(answer(200, &json!({}))));
    assert_eq!(provider.list(&key(1, 1).pool).await.expect_err("no list").code, "UnreadableAnswer");
}

#[tokio::test]
async fn a_missing_group_is_no_missing_machine() {
    let arm = Arm::start();
    let mut settings = settings(&arm);
    settings.resource_group = "gone".into();
    let provider = with_settings(settings);
    assert_eq!(provider.find(&key(1, 1)).await.expect_err("no group").code, "ResourceGroupNotFound");
    assert_eq!(provider.list(&key(1, 1).pool).await.expect_err("no group").code, "ResourceGroupNotFound");
    assert_eq!(
        provider.delete(&MachineRef(name(&key(1, 1)))).await.expect_err("no group").code,
        "ResourceGroupNotFound"
    );
}

#[tokio::test]
async fn scripts_fit_to_the_byte_or_nothing_is_sent() {
    let arm = Arm::start();
    let provider = provider(&arm);
    let mut spec = spec(key(1, 1), &machine());
    spec.user_data = Some("x".repeat(USER_DATA_MAX).into());
    provider.create(&spec).await.expect("accepted");
    spec.user_data = Some(format!("ä{}", "x".repeat(USER_DATA_MAX - 4)).into());
    let sent = arm.calls().len();
    let error = provider.create(&spec).await.expect_err("too much with its mark");
    assert_eq!((error.kind, error.code.as_str()), (ErrorKind::Invalid, "UserDataTooLarge"));
    assert_eq!(arm.calls().len(), sent);
    assert_eq!(provider.check(&object(&machine()), USER_DATA_MAX - 3), []);
    let problems = provider.check(&object(&machine()), USER_DATA_MAX - 2);
    assert!(problems[0].to_string().starts_with("startup_script: given up to 65536 bytes; "), "{problems:?}");
}

#[tokio::test]
async fn specs_that_are_not_ours_or_not_sound_are_refused_before_anything_is_sent() {
    let arm = Arm::start();
    let provider = provider(&arm);
    let mut foreign = spec(key(1, 1), &machine());
    foreign.marker.deployment = kasm_autoscale_core::id::DeploymentId::from_bytes([8; 16]);
    assert_eq!(provider.create(&foreign).await.expect_err("foreign").code, "WrongDeployment");
    let unsound = provider.create(&spec(key(1, 1), &json!({"vm_size": "x y"}))).await.expect_err("unsound");
    assert!(unsound.message.contains("vm_size: given \"x y\"") && unsound.message.contains("subnet"), "{unsound}");
    let paths: Vec<String> =
        provider.check(&object(&json!({"vm_size": "x y"})), 70_000).into_iter().map(|problem| problem.path).collect();
    assert_eq!(paths, ["vm_size", "image", "subnet", "admin_username", "startup_script"]);
    assert!(arm.calls().is_empty());
    let capabilities = provider.describe();
    assert_eq!((capabilities.kind, capabilities.visibility_lag.as_secs()), ("azure", 120));
    assert_eq!((capabilities.poll_busy.as_secs(), capabilities.call_timeout.as_secs()), (10, 60));
}

#[tokio::test]
async fn a_preflight_finds_what_is_wrong_and_changes_nothing() {
    let arm = Arm::start();
    let provider = provider(&arm);
    let machine = with(machine(), "network_security_group", json!("desktops"));
    arm.facts_are_sound(&machine);
    assert_eq!(provider.preflight(&object(&machine)).await, Ok(Vec::new()));
    let set = |end: &str, fact: Value| drop(arm.state().facts.insert(end.to_owned(), fact));
    set("/skus/2022-datacenter-g2/versions", json!([]));
    set("/networkSecurityGroups/desktops", json!({ "location": "northeurope" }));
    set(
        "/providers/Microsoft.Authorization/permissions",
        json!({ "value": [{ "actions": ["Microsoft.Compute/*", "*/read"], "notActions": ["Microsoft.Compute/disks/delete"] }] }),
    );
    set(
        "/locations/westeurope/usages",
        json!({ "value": [{ "name": { "value": "standardDSv5Family" }, "currentValue": 8, "limit": 10 }] }),
    );
    arm.state().facts.remove("/subnets/pool");
    let findings = provider.preflight(&object(&machine)).await.expect("findings");
    let subjects: BTreeSet<&str> = findings.iter().map(|finding| finding.subject.as_str()).collect();
    let subnet = format!("subnet {}", azure::SUBNET);
    for subject in [
        "image MicrosoftWindowsServer:WindowsServer:2022-datacenter-g2:latest",
        "network security group desktops",
        "quota standardDSv5Family",
        "right Microsoft.Compute/disks/delete",
        "right Microsoft.Network/networkInterfaces/write",
        &subnet,
    ] {
        assert!(subjects.contains(subject), "{subject} is not in {findings:#?}");
    }
    assert!(!subjects.contains("right Microsoft.Compute/virtualMachines/write"));
    assert!(findings.iter().all(|finding| !finding.problem.is_empty()), "{findings:#?}");
    set("/providers/Microsoft.Compute/skus", json!({ "value": [] }));
    let findings = provider.preflight(&object(&machine)).await.expect("findings");
    assert!(
        findings
            .iter()
            .any(|finding| finding.to_string().starts_with("size Standard_D4s_v5: it is not offered in westeurope"))
    );
    arm.next("GET", "/permissions", Fault::Answer(error(404, "SubscriptionNotFound", "none")));
    let findings = provider.preflight(&object(&machine)).await.expect("findings");
    assert_eq!(findings.iter().map(|finding| finding.subject.as_str()).collect::<Vec<_>>(), ["credentials"]);
    arm.next("GET", "/permissions", Fault::LostBefore);
    assert_eq!(provider.preflight(&object(&machine)).await.expect_err("not asked").kind, ErrorKind::Transient);
    assert!(arm.calls().iter().all(|call| call.starts_with("GET")));
}

/// Rights that Azure asks for behind our calls, for what a request names or makes (Azure, "Custom roles", the operations of
/// Microsoft.Compute and Microsoft.Network).
const BEHIND: [&str; 8] = [
    "Microsoft.Compute/disks/write",
    "Microsoft.Compute/galleries/images/versions/read",
    "Microsoft.Network/networkInterfaces/join/action",
    "Microsoft.Network/networkInterfaces/write",
    "Microsoft.Network/networkSecurityGroups/join/action",
    "Microsoft.Network/publicIPAddresses/join/action",
    "Microsoft.Network/publicIPAddresses/write",
    "Microsoft.Network/virtualNetworks/subnets/join/action",
];

/// The right that a request to Azure Resource Manager needs, by its path.
fn right(request: &tls::Request) -> Option<String> {
    let (_, resource) = request.path.rsplit_once("/providers/")?;
    let verb = match request.method.as_str() {
        "GET" => "read",
        "PUT" => "write",
        "DELETE" => "delete",
        other => panic!("{other} needs no right that we know"),
    };
    let parts: Vec<&str> = resource.split('/').collect();
    let lists = ["permissions", "skus", "usages", "versions"];
    // Types and names take turns; `locations/westeurope` and the like are types without a resource of their own.
    let types = parts.iter().skip(1).step_by(2).copied().filter(|part| !part.is_empty());
    let types: Vec<&str> = if lists.contains(parts.last().expect("a part")) && parts.len() == 2 {
        vec![parts[1]]
    } else {
        types.collect()
    };
    Some(format!("{}/{}/{verb}", parts[0], types.join("/")))
}

#[tokio::test]
async fn the_roles_allow_exactly_what_is_called() {
    let arm = Arm::start();
    let mut settings = settings(&arm);
    settings.address = AddressChoice::Public;
    let provider = with_settings(settings);
    let machine = with(with(machine(), "public_ip", json!(true)), "network_security_group", json!("desktops"));
    arm.facts_are_sound(&machine);
    provider.preflight(&object(&machine)).await.expect("an answer");
    for image in ["images/i", "galleries/g/images/i"] {
        let id = format!("/subscriptions/{}/resourceGroups/g/providers/Microsoft.Compute/{image}", arm::SUBSCRIPTION);
        arm.state().facts.insert(id.clone(), json!({}));
        provider.preflight(&object(&with(machine.clone(), "image", json!(id)))).await.expect("an answer");
    }
    let op = create(&provider, 1, &machine).await;
    ended(&provider, &op).await.expect("made");
    found(&provider, 1).await.expect("a machine");
    listed(&provider).await;
    let reference = MachineRef(name(&key(1, 1)));
    arm.remove(Kind::Vm, &reference.0);
    for (kind, holder) in [(Kind::Nic, "virtualMachine"), (Kind::PublicIp, "ipConfiguration"), (Kind::Disk, "")] {
        for part in arm.names(kind) {
            arm.edit(kind, &part, |part| {
                part["managedBy"] = Value::Null;
                part["properties"].as_object_mut().expect("an object").remove(holder);
            });
        }
    }
    provider.delete(&reference).await.expect("accepted");
    let called = arm.state().requests.iter().filter_map(right).collect::<BTreeSet<String>>();
    let called: BTreeSet<String> = called.into_iter().chain(BEHIND.map(ToOwned::to_owned)).collect();
    let actions = |role: &str| -> BTreeSet<String> {
        let role: Value = serde_json::from_str(role).expect("JSON");
        role["Actions"]
            .as_array()
            .expect("a list")
            .iter()
            .map(|action| action.as_str().expect("a text").to_owned())
            .collect()
    };
    let group = actions(include_str!("../src/azure/role.json"));
    let subscription = actions(include_str!("../src/azure/role-subscription.json"));
    assert_eq!(called, group.union(&subscription).cloned().collect());
    // What changes anything is allowed in the resource group alone, but for joining what is elsewhere.
    assert!(subscription.iter().all(|action| action.ends_with("/read") || action.ends_with("/join/action")));
}
