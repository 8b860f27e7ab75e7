//! `kasm-daemon check --online`: the program itself, its exit codes, and what it says to whom.

use std::path::Path;
use std::process::{Command, Output};

#[cfg(feature = "aws")]
#[path = "support/ec2.rs"]
#[allow(dead_code, reason = "shared by several tests")]
mod ec2;
#[cfg(feature = "aws")]
#[path = "../../tests/support/http.rs"]
mod http;
#[cfg(feature = "aws")]
#[path = "../../tests/support/moto.rs"]
mod moto;
#[cfg(feature = "aws")]
#[path = "../../tests/support/real.rs"]
mod real;

const SECRET: &str = "canary-secret-access-key-71f0";

/// Runs the check on a file with these tables below the daemon's own.
fn check(folder: &Path, tables: &str, online: bool) -> (i32, String) {
    let file = folder.join("kasm.toml");
    let own = "deployment_key = { env = \"KASM_CHECK_KEY\" }\n[store]\npath = \"kasm.db\"\n[[token]]\nname = \"t\"\nrole = \"admin\"\nsecret = { env = \"KASM_CHECK_TOKEN\" }\n";
    std::fs::write(&file, format!("{own}{tables}")).expect("the file is written");
    let mut command = Command::new(env!("CARGO_BIN_EXE_kasm-daemon"));
    command.args(["check", "--config"]).arg(&file).args(online.then_some("--online"));
    command.env("KASM_CHECK_KEY", "5a".repeat(32)).env("KASM_CHECK_SECRET", SECRET);
    command.env("KASM_CHECK_TOKEN", "kasm_check_0123456789abcdefghijklmnopqrstuvwxyzABCD");
    command.env("AWS_EC2_METADATA_DISABLED", "true");
    let Output { status, stdout, stderr } = command.output().expect("it runs");
    let text = String::from_utf8_lossy(&stdout).into_owned() + &String::from_utf8_lossy(&stderr);
    assert!(!text.contains(SECRET), "{text}");
    assert!(!folder.join("kasm.db").exists(), "a check has made the store");
    (status.code().expect("it ends by itself"), text)
}

fn config(provider: &str, machine: &str) -> String {
    format!(
        "[[pool]]\nname = \"desk\"\n[[pool.config]]\nname = \"office\"\nprovider = \"{provider}\"\nminimum_available_sessions = 1\n\
         reusable = false\n[pool.config.machine]\n{machine}\n"
    )
}

#[test]
fn nothing_to_find_ends_with_0() {
    let folder = tempfile::tempdir().expect("a folder");
    let tables = format!(
        "[provider.sim]\nkind = \"simulated\"\n[provider.spare]\nkind = \"simulated\"\n{}",
        config("sim", "size = \"any\"")
    );
    let (code, text) = check(folder.path(), &tables, true);
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("pool desk, config office: ok: provider sim could make its machines now"), "{text}");
    assert!(text.contains("provider.spare: ok: answers"), "{text}");
    assert!(text.contains("kasm.toml:"), "no place in {text}");
}

#[test]
fn findings_are_told_with_place_and_remedy_and_end_with_2() {
    let folder = tempfile::tempdir().expect("a folder");
    let tables = "[provider.bad]\nkind = \"simulated\"\n[provider.bad.faults]\ncreate_error = 1000000\n\
                  [provider.bad.create_errors]\ndenied = 1\n[provider.deaf]\nkind = \"simulated\"\n[provider.deaf.faults]\nread_error = 1000000\n"
        .to_owned()
        + &config("bad", "size = \"any\"");
    let (code, text) = check(folder.path(), &tables, true);
    assert_eq!(code, 2, "{text}");
    let place = format!("{}:", folder.path().join("kasm.toml").display());
    let line = text.lines().find(|line| line.contains("config office")).expect("a line for the config");
    assert!(line.starts_with(&place), "{line}");
    assert!(
        line.ends_with(
            "pool desk, config office: error: right to create machines: every create is refused (denied); \
             lower faults.create_error in the provider's settings below 1000000"
        ),
        "{line}"
    );
    // A provider that no config uses is asked whether it answers; this one does not.
    let line = text.lines().find(|line| line.contains("provider.deaf: error")).expect("a line for the provider");
    assert!(line.contains("InternalError: something broke"), "{line}");
    // Without the flag nobody is asked.
    let (code, text) = check(folder.path(), &tables, false);
    assert_eq!(code, 0, "{text}");
}

#[test]
fn a_file_with_mistakes_is_not_asked_about() {
    let folder = tempfile::tempdir().expect("a folder");
    let tables = format!("[provider.sim]\nkind = \"simulated\"\n{}", config("sim", "sise = \"any\""));
    let (code, text) = check(folder.path(), &tables, true);
    assert_eq!(code, 2, "{text}");
    assert!(text.contains("sise") && !text.contains("config office: "), "{text}");
}

#[cfg(feature = "aws")]
#[test]
fn ec2_is_asked_for_image_network_size_and_rights() {
    let Some(ec2) = ec2::Ec2::start() else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let provider = format!(
        "[provider.ec2]\nkind = \"aws\"\nregion = \"us-east-1\"\nendpoint_url = \"{}\"\n\
         credentials = {{ access_key_id = \"AKIACHECK\", secret_access_key = {{ env = \"KASM_CHECK_SECRET\" }} }}\n",
        ec2.moto.url()
    );
    // In a zone that has every size: the one that moto takes by itself has not.
    let ask = |form: &str| ec2.moto.query("ec2", &format!("Version=2016-11-15&{form}")).1;
    let part = |xml: &str, name: &str| {
        let rest = xml.split(&format!("<{name}>")).nth(1).expect("it is there");
        rest.split('<').next().expect("a text").to_owned()
    };
    let vpc = part(&ask("Action=CreateVpc&CidrBlock=127.0.78.0%2F24"), "vpcId");
    let subnet = format!("Action=CreateSubnet&VpcId={vpc}&CidrBlock=127.0.78.0%2F24&AvailabilityZone=us-east-1a");
    let subnet = part(&ask(&subnet), "subnetId");
    let ami = part(&ask("Action=DescribeImages&Filter.1.Name=platform&Filter.1.Value.1=windows"), "imageId");
    let machine = |subnet: &str| format!("ami = \"{ami}\"\ninstance_type = \"t3.medium\"\nsubnet_id = \"{subnet}\"");
    let (code, text) = check(folder.path(), &format!("{provider}{}", config("ec2", &machine(&subnet))), true);
    assert_eq!(code, 0, "{text}");
    let missing = "subnet-00000000000000000";
    let (code, text) = check(folder.path(), &format!("{provider}{}", config("ec2", &machine(missing))), true);
    assert_eq!(code, 2, "{text}");
    assert!(text.contains(&format!("config office: error: subnet {missing}: ")), "{text}");
    assert!(text.contains("set subnet_id to a subnet of this account and region"), "{text}");
    assert_eq!(ec2.instances(), [], "a check has made machines");
}
