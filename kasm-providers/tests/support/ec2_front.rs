//! What stands in front of an EC2 of any kind and makes it fail on demand: loses replies, refuses calls, breaks pages off.

use std::sync::{Arc, Mutex};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use kasm_autoscale_core::testing::conformance::Trouble;

use crate::answers;
use crate::stub::{Answer, Request, Stub};

/// The front; it ends when it is dropped.
pub(crate) struct Front {
    stub: Stub,
    troubles: Arc<Mutex<Vec<Trouble>>>,
    script: Arc<Mutex<Vec<Scripted>>>,
}

/// An action, and the status, code and message with which it is refused.
type Scripted = (&'static str, u16, &'static str, &'static str);

impl Front {
    /// Starts a front for what answers requests.
    pub(crate) fn start(behind: impl Fn(&Request) -> (u16, String) + Send + 'static) -> Self {
        let troubles = Arc::new(Mutex::new(Vec::new()));
        let script = Arc::new(Mutex::new(Vec::<Scripted>::new()));
        let (now, lines) = (Arc::clone(&troubles), Arc::clone(&script));
        let stub = Stub::start(move |request| {
            let troubles: Vec<Trouble> = now.lock().expect("nobody panics with it").clone();
            let action = request.parameter("Action");
            let (makes, changes) =
                (action == "RunInstances", ["RunInstances", "TerminateInstances"].contains(&&*action));
            let on = |trouble: &Trouble| troubles.contains(trouble);
            let refuse = |status, code: &str, message: &str| Answer::Http(status, answers::error(code, message));
            let line = lines.lock().expect("nobody panics with it").iter().find(|line| line.0 == action).copied();
            if let Some((_, status, code, message)) = line {
                return refuse(status, code, message);
            }
            // The codes and statuses of the API Reference, "Error codes".
            if on(&Trouble::Throttle) {
                return refuse(503, "RequestLimitExceeded", "Request limit exceeded.");
            }
            if on(&Trouble::FailReads) && action.starts_with("Describe") {
                return refuse(500, "InternalError", "An internal error has occurred");
            }
            if on(&Trouble::PartialList) && !request.parameter("NextToken").is_empty() {
                return refuse(500, "InternalError", "An internal error has occurred");
            }
            if on(&Trouble::Quota) && makes {
                return refuse(
                    400,
                    "VcpuLimitExceeded",
                    "You have requested more vCPU capacity than your current vCPU limit",
                );
            }
            if on(&Trouble::NoCapacity) && makes {
                return refuse(500, "InsufficientInstanceCapacity", "We currently do not have sufficient capacity");
            }
            if on(&Trouble::Echo) && makes {
                let data = request.parameter("UserData");
                let clear = BASE64_STANDARD.decode(&data).unwrap_or_default();
                let words = format!("Invalid value '{data}', which is {}", String::from_utf8_lossy(&clear));
                return refuse(400, "InvalidParameterValue", &words);
            }
            if on(&Trouble::ReplyLostBefore) && changes {
                return Answer::HangUp;
            }
            let (status, body) = behind(request);
            if on(&Trouble::ReplyLostAfter) && changes { Answer::HangUp } else { Answer::Http(status, body) }
        });
        Self { stub, troubles, script }
    }

    pub(crate) fn url(&self) -> String {
        self.stub.url()
    }

    /// How many requests have come.
    pub(crate) fn calls(&self) -> u64 {
        u64::try_from(self.stub.requests().len()).expect("a small number")
    }

    /// Whether the front can do it; then it does.
    pub(crate) fn inject(&self, trouble: &Trouble) -> bool {
        use Trouble::{Echo, FailReads, NoCapacity, PartialList, Quota, ReplyLostAfter, ReplyLostBefore, Throttle};
        let can = matches!(
            trouble,
            ReplyLostBefore | ReplyLostAfter | PartialList | FailReads | Throttle | Quota | NoCapacity | Echo
        );
        if can {
            self.troubles.lock().expect("nobody panics with it").push(trouble.clone());
        }
        can
    }

    /// Refuses an action from now on, until healed.
    pub(crate) fn script(&self, action: &'static str, status: u16, code: &'static str, message: &'static str) {
        self.script.lock().expect("nobody panics with it").push((action, status, code, message));
    }

    pub(crate) fn heal(&self) {
        self.script.lock().expect("nobody panics with it").clear();
        self.troubles.lock().expect("nobody panics with it").clear();
    }
}
