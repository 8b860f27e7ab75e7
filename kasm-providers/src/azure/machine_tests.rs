use super::*;

const SUBNET: &str =
    "/subscriptions/s/resourceGroups/net/providers/Microsoft.Network/virtualNetworks/desktops/subnets/pool";
const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJcanary desk@top";

fn least() -> Value {
    json!({"vm_size": "Standard_D4s_v5", "image": "MicrosoftWindowsServer:WindowsServer:2022-datacenter-g2:latest",
        "subnet": SUBNET, "admin_username": "desk"})
}

fn with(mut value: Value, name: &str, member: Value) -> Value {
    value[name] = member;
    value
}

fn read(value: &Value) -> Result<MachineSettings, Vec<String>> {
    MachineSettings::from_json(value.as_object().expect("an object"))
        .map_err(|problems| problems.iter().map(ToString::to_string).collect())
}

fn problems(value: &Value) -> Vec<String> {
    read(value).expect_err("mistakes")
}

#[test]
fn the_least_and_the_most() {
    let settings = read(&least()).expect("settings");
    assert_eq!((settings.os(), settings.run_script(), settings.public_ip), (Os::Windows, RunScript::Extension, false));
    assert!(settings.needs_password());
    let most = read(&json!({
        "vm_size": "Standard_NV6ads_A10_v5", "image": {"sharedGalleryImageId": "/sharedGalleries/g/images/i/versions/1"},
        "plan": {"name": "n", "publisher": "p", "product": "o"}, "subnet": SUBNET, "network_security_group": "desktops",
        "public_ip": true, "accelerated_networking": true, "os_disk_type": "Premium_LRS", "os_disk_size_gib": 256, "os": "linux",
        "admin_username": "desk", "ssh_public_key": KEY, "run_script": "image", "license_type": "Windows_Server",
        "zone": "2", "spot": true, "trusted_launch": true, "tags": {"team": "desktops", "empty": ""},
        "overrides": {"properties": {"priority": "Regular"}},
    }));
    let most = most.expect("settings");
    assert_eq!((most.os(), most.run_script(), most.tags.len(), most.zone), (Os::Linux, RunScript::Image, 2, Some("2")));
    assert!(!most.needs_password());
    let specialized = json!({"vm_size": "Standard_D4s_v5", "subnet": SUBNET, "specialized": true,
        "image": "/subscriptions/s/resourceGroups/g/providers/Microsoft.Compute/galleries/g/images/i/versions/1.0.0"});
    assert!(!read(&specialized).expect("settings").needs_password());
}

#[test]
fn every_mistake_is_named_at_once() {
    let problems = problems(&json!({
        "vm_size": "D4s v5", "image": "windows", "plan": {"name": "n"}, "subnet": "pool", "network_security_group": "a b",
        "public_ip": "yes", "os_disk_type": "SSD", "os_disk_size_gib": 0, "os": "macos", "ssh_public_key": "AAAA",
        "run_script": "me", "zone": "west", "admin_usrname": "x",
    }));
    let starts = [
        "vm_size: given \"D4s v5\"; the name of a size",
        "image: given \"windows\"; \"publisher:offer:sku:version\"",
        "plan: given {\"name\":\"n\"}; an object with",
        "subnet: given \"pool\"; the whole id",
        "network_security_group: given \"a b\"",
        "public_ip: given \"yes\"; true or false",
        "os_disk_type: given \"SSD\"; one of \"Standard_LRS\"",
        "os_disk_size_gib: given 0; a whole number from 1 to 4095",
        "os: given \"macos\"; one of \"windows\", \"linux\"",
        "admin_username: given nothing; required",
        "ssh_public_key: given \"AAAA\"; one line",
        "run_script: given \"me\"; one of",
        "zone: given \"west\"; one of \"1\"",
        "admin_usrname: given \"x\"; no such field; did you mean \"admin_username\"?",
    ];
    for start in starts {
        assert!(problems.iter().any(|problem| problem.starts_with(start)), "{start} is not in {problems:#?}");
    }
    assert_eq!(problems.len(), starts.len(), "{problems:#?}");
}

#[test]
fn users_are_where_they_belong() {
    let windows_with_key = with(least(), "ssh_public_key", json!(KEY));
    assert!(problems(&windows_with_key)[0].starts_with("ssh_public_key: given a key; only with os"));
    let linux = with(least(), "os", json!("linux"));
    assert!(problems(&linux)[0].starts_with("ssh_public_key: given nothing; required"));
    let by_extension = with(with(linux, "ssh_public_key", json!(KEY)), "run_script", json!("extension"));
    assert!(problems(&by_extension)[0].starts_with("run_script: given \"extension\"; \"image\" or nothing"));
    let specialized = with(least(), "specialized", json!(true));
    assert!(problems(&specialized)[0].starts_with("admin_username: given a name; nothing"));
    for name in ["administrator", "Admin", "user1", "1desk", "desk top", "desk.", "abcdefghijklmnopqrstu", ""] {
        assert_eq!(problems(&with(least(), "admin_username", json!(name))).len(), 1, "{name}");
    }
}

#[test]
fn images_are_written_in_several_ways() {
    let rows = [
        (json!("p:o:s:latest"), json!({"publisher": "p", "offer": "o", "sku": "s", "version": "latest"})),
        (
            json!({"publisher": "p", "offer": "o", "sku": "s", "version": "1"}),
            json!({"publisher": "p", "offer": "o", "sku": "s", "version": "1"}),
        ),
        (json!({"communityGalleryImageId": "/c"}), json!({"communityGalleryImageId": "/c"})),
        (
            json!("/subscriptions/s/resourceGroups/g/providers/microsoft.compute/images/i"),
            json!({"id": "/subscriptions/s/resourceGroups/g/providers/microsoft.compute/images/i"}),
        ),
    ];
    for (given, expected) in rows {
        let settings = read(&with(least(), "image", given)).expect("settings");
        assert_eq!(Value::Object(settings.image), expected);
    }
    for given in [
        json!("p:o:s"),
        json!("/images/i"),
        json!({"publisher": "p"}),
        json!({"id": ""}),
        json!({}),
        json!(7),
        json!("p:o:s:v x"),
    ] {
        assert!(problems(&with(least(), "image", given.clone()))[0].starts_with("image: given"), "{given}");
    }
}

#[test]
fn ids_lead_nowhere_else() {
    let network = "Microsoft.Network/virtualNetworks";
    assert!(
        is_id(SUBNET, network) && is_id(&SUBNET.to_uppercase().replace("/SUBSCRIPTIONS", "/subscriptions"), network)
    );
    for (from, to) in [
        ("/subnets/pool", ""),
        ("pool", "po ol"),
        ("pool", "pool?x=1"),
        ("desktops", ""),
        ("/subscriptions", "//subscriptions"),
        ("net", "..\\x"),
    ] {
        assert!(!is_id(&SUBNET.replacen(from, to, 1), network), "{from} -> {to}");
    }
}

#[test]
fn tags_keep_to_the_limits_of_azure() {
    let many = |count: usize| -> JsonObject { (0..count).map(|n| (format!("k{n}"), json!("v"))).collect() };
    assert!(read(&with(least(), "tags", many(44).into())).is_ok());
    assert!(problems(&with(least(), "tags", many(45).into()))[0].starts_with("tags: given 45 tags; at most 44"));
    assert!(read(&with(least(), "tags", json!({"ä".repeat(512): "ü".repeat(256)}))).is_ok());
    let bad = json!({"k".repeat(513): "v", "key": "v".repeat(257), "": "v", "number": 7, "a/b": "v", "a%": "v"});
    assert_eq!(problems(&with(least(), "tags", bad)).len(), 6);
    let reserved =
        json!({"kasm-autoscale:pool": "v", "Kasm-Autoscale:z": "v", "microsoft.x": "v", "Azure": "v", "windowsx": "v"});
    assert_eq!(problems(&with(least(), "tags", reserved)).len(), 5);
}
