//! Microsoft's own SDK for Python judges the stand-in for Azure that all other tests rely on.
#![cfg(feature = "azure")]

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::json;

#[path = "support/arm.rs"]
#[allow(dead_code, reason = "shared by several tests")]
mod arm;
#[path = "../../tests/support/real.rs"]
mod real;
#[path = "support/swagger.rs"]
mod swagger;
#[path = "support/tls.rs"]
#[allow(dead_code, reason = "shared by several tests")]
mod tls;

use arm::{Arm, GROUP, REGION, SUBSCRIPTION};

/// The interpreter of the environment that `tests/install-tools.sh` makes.
const PYTHON: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../.tools/azure/bin/python");
const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/azure_sdk.py");

#[test]
fn the_official_sdk_takes_the_stand_in_for_azure() {
    if !Path::new(PYTHON).is_file() {
        real::skip("azure-mgmt-compute (Python)", "run `make tools`");
        return;
    }
    let arm = Arm::start();
    // A token as the stand-in gives them out.
    arm.give_token();
    arm.state().any_version = true;
    let mut command = Command::new(PYTHON);
    command.args([SCRIPT, &arm.url()]).arg(arm.ca_file()).args([SUBSCRIPTION, GROUP, REGION, "token-1"]);
    // No proxy, no settings of anybody's.
    command.env_clear().env("NO_PROXY", "*").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("Python runs");
    let mut input = child.stdin.take().expect("a pipe");
    let output = BufReader::new(child.stdout.take().expect("a pipe"));
    let mut told = Vec::new();
    for line in output.lines() {
        let line = line.expect("text");
        match line.as_str() {
            "fail-next" => {
                let why = json!({ "code": "AllocationFailed", "message": "There is no room for this size." });
                arm.state().next_fails = Some(why);
                writeln!(input, "go on").expect("Python listens");
            }
            "pass-time" => {
                arm.advance(180);
                writeln!(input, "go on").expect("Python listens");
            }
            _ => told.push(line),
        }
    }
    let rest = child.wait_with_output().expect("Python ends");
    let errors = String::from_utf8_lossy(&rest.stderr);
    assert!(rest.status.success(), "{}\n{errors}", told.join("\n"));
    assert_eq!(told.last().map(String::as_str), Some("done"), "{told:?}");
    assert!(told.iter().filter(|line| line.starts_with("ok: ")).count() == 33, "{}", told.join("\n"));
    assert_eq!(arm.everything(), [""; 0]);
}
