//! The Azure provider is held against the contract, in front of our stand-in for Azure.
#![cfg(feature = "azure")]

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use kasm_autoscale_core::fields::JsonObject;
use kasm_autoscale_core::id::DeploymentId;
use kasm_autoscale_core::ports::{MachineRef, Marker, VmProvider};
use kasm_autoscale_core::testing::conformance::{Subject, Trouble, Truth, run};
use kasm_autoscale_core::time::Timestamp;
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

use arm::{Arm, CLIENT_SECRET, Fault, Kind, error};
use azure::{ADMIN_KEY, deployment, machine, object, settings, with_settings};
use tls::Request;

/// How far the stand-in lags behind when it does, in seconds.
const LAG: u64 = 30;

/// The provider, and the stand-in that can be made to fail.
struct Azure {
    arm: Arm,
}

impl Azure {
    fn new() -> Self {
        let arm = Arm::start();
        arm.facts_are_sound(&machine());
        // Operations end with time, however often they are asked for.
        arm.state().polls = u32::MAX;
        Self { arm }
    }
}

/// What a trouble makes of a request.
fn fault(trouble: &Trouble, request: &Request) -> Option<Fault> {
    let is_vm = request.path.rsplit('/').nth(1) == Some("virtualMachines");
    let (makes, deletes, reads) =
        (request.method == "PUT" && is_vm, request.method == "DELETE" && is_vm, request.method == "GET");
    let later_page = request.query.contains_key("$skiptoken");
    let refuse = |status, code: &str, message: &str| Some(Fault::Answer(error(status, code, message)));
    match trouble {
        Trouble::ReplyLostBefore if makes || deletes => Some(Fault::LostBefore),
        Trouble::ReplyLostAfter if makes || deletes => Some(Fault::LostAfter),
        Trouble::PartialList if later_page => refuse(500, "InternalServerError", "The server had an internal error."),
        Trouble::FailReads if reads => refuse(503, "ServiceUnavailable", "The service is unavailable."),
        Trouble::Throttle if !request.path.ends_with("/token") => refuse(429, "TooManyRequests", "Too many requests."),
        Trouble::Quota if makes => {
            refuse(409, "OperationNotAllowed", "exceeding approved standardDSv5Family Cores quota.")
        }
        Trouble::NoCapacity if makes => {
            refuse(409, "SkuNotAvailable", "The requested size is currently not available.")
        }
        Trouble::Echo if makes => {
            let body: Value = serde_json::from_str(&request.body).expect("JSON");
            let data = body["properties"]["osProfile"]["customData"].as_str().expect("a text").to_owned();
            let clear = BASE64_STANDARD.decode(&data).expect("base64");
            let message = format!("'{data}', which is {}, and {body}", String::from_utf8_lossy(&clear));
            refuse(400, "InvalidParameter", &message)
        }
        _ => None,
    }
}

#[async_trait]
impl Subject for Azure {
    async fn provider(&self) -> Arc<dyn VmProvider> {
        let mut settings = settings(&self.arm);
        settings.visibility_lag = Duration::from_secs(LAG);
        Arc::new(with_settings(settings))
    }

    fn machine(&self) -> JsonObject {
        object(&machine())
    }

    fn now(&self) -> Timestamp {
        Timestamp::from_secs(self.arm.now())
    }

    async fn pass(&self, span: Duration) {
        self.arm.advance(span.as_millis().div_ceil(1000).try_into().expect("a short time"));
    }

    fn deployment(&self) -> DeploymentId {
        deployment()
    }

    fn never(&self) -> Option<String> {
        Some("kasm-00000000-0000-8000-8000-000000000000".to_owned())
    }

    async fn inject(&self, trouble: &Trouble) -> bool {
        match trouble {
            Trouble::Hide => self.arm.state().hide_for = LAG,
            Trouble::SlowDelete(time) => self.arm.state().delete_time = time.as_secs(),
            Trouble::DieBooting => self.arm.state().stops_booting = true,
            Trouble::Strip(machine) => self.arm.edit(Kind::Vm, &machine.0, |vm| vm["tags"] = json!({})),
            Trouble::Confuse(machine) => {
                self.arm.edit(Kind::Vm, &machine.0, |vm| vm["properties"]["provisioningState"] = json!("Dreaming"));
            }
            lasting => {
                let lasting = lasting.clone();
                self.arm.state().lasting = Some(Box::new(move |request| fault(&lasting, request)));
            }
        }
        true
    }

    async fn heal(&self) {
        let mut state = self.arm.state();
        state.lasting = None;
        (state.hide_for, state.stops_booting, state.delete_time) = (0, false, 30);
    }

    async fn add_foreign(&self, marker: Option<&Marker>, name: &str) -> Option<MachineRef> {
        let mut tags = json!({ "Name": name });
        if let Some(Marker { deployment, pool, config, server }) = marker {
            tags["kasm-autoscale:deployment"] = json!(deployment.to_string());
            tags["kasm-autoscale:pool"] = json!(pool.to_string());
            tags["kasm-autoscale:config"] = json!(config.to_string());
            tags["kasm-autoscale:server"] = json!(server);
        }
        self.arm.add_machine(name, tags);
        Some(MachineRef(name.to_owned()))
    }

    async fn truth(&self) -> Option<Truth> {
        let machines = self.arm.names(Kind::Vm).into_iter().map(MachineRef).collect();
        let parts =
            [Kind::Nic, Kind::PublicIp, Kind::Disk].map(|kind| self.arm.names(kind).len()).iter().sum::<usize>();
        let calls = self.arm.calls().len();
        Some(Truth { machines, parts: parts.try_into().expect("a small number"), calls: calls.try_into().ok() })
    }

    fn secrets(&self) -> Vec<String> {
        vec![CLIENT_SECRET.to_owned(), ADMIN_KEY.to_owned()]
    }
}

#[tokio::test]
async fn the_provider_keeps_every_clause() {
    run(&Azure::new()).await.assert_passed_but(&[]);
}
