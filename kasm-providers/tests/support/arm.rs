//! A stand-in for Azure: its token endpoint and the part of Azure Resource Manager that makes, shows and deletes machines.
//!
//! It has a state, operations that take their time, and failures by script. Its time moves by [`Arm::advance`] alone, and each
//! operation also by being asked for, so nothing depends on how fast a test runs. That it speaks as Azure does is not for us
//! to say: `azure_python.rs` drives it with the official SDK for Python.

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use serde_json::{Value, json};

use crate::tls::{Reply, Request, Server, form};

pub(crate) const SUBSCRIPTION: &str = "0b1f6471-1bf0-4dda-aec3-cb9272f09590";
pub(crate) const GROUP: &str = "Desktops";
pub(crate) const REGION: &str = "westeurope";
pub(crate) const TENANT: &str = "11111111-2222-3333-4444-555555555555";
pub(crate) const CLIENT: &str = "66666666-7777-8888-9999-000000000000";
pub(crate) const CLIENT_SECRET: &str = "canary-client-secret-8c1d";

/// How many items of a list are on one page.
const PAGE: usize = 2;

/// How long a network interface is kept for the machine that failed to get it, in seconds.
const RESERVED: u64 = 180;

/// Something that goes wrong with the next request that it fits.
#[derive(Clone, Debug)]
pub(crate) enum Fault {
    /// This answer, and no effect.
    Answer(Reply),
    /// No answer and no effect.
    LostBefore,
    /// The effect, and no answer.
    LostAfter,
}

/// What becomes of a request while something goes on being wrong.
pub(crate) type Lasting = Box<dyn Fn(&Request) -> Option<Fault> + Send>;

struct Rule {
    method: &'static str,
    part: &'static str,
    fault: Fault,
}

/// An operation under way.
struct Operation {
    /// Questions that are still answered with "in progress".
    left: u32,
    done_at: u64,
    work: Work,
    outcome: Option<Result<(), Value>>,
}

#[derive(Clone)]
enum Work {
    Make { vm: String, fails: Option<Value> },
    Extend { vm: String },
    Delete { kind: Kind, name: String },
}

#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Kind {
    Vm,
    Nic,
    PublicIp,
    Disk,
}

impl Kind {
    const ALL: [(Self, &'static str, &'static str); 4] = [
        (Self::Vm, "Microsoft.Compute/virtualMachines", "2024-03-01"),
        (Self::Nic, "Microsoft.Network/networkInterfaces", "2024-01-01"),
        (Self::PublicIp, "Microsoft.Network/publicIPAddresses", "2024-01-01"),
        (Self::Disk, "Microsoft.Compute/disks", "2023-10-02"),
    ];

    fn path(self) -> &'static str {
        Self::ALL.iter().find(|(kind, ..)| *kind == self).map_or("", |(_, path, _)| path)
    }
}

pub(crate) struct State {
    now: u64,
    resources: BTreeMap<(Kind, String), Value>,
    operations: BTreeMap<u64, Operation>,
    rules: VecDeque<Rule>,
    serial: u64,
    tokens: u64,
    /// Tokens up to this one are no longer good.
    pub(crate) expired_tokens: u64,
    pub(crate) requests: Vec<Request>,
    /// How often an operation says that it is in progress before it ends.
    pub(crate) polls: u32,
    /// How the next machine fails after it was accepted.
    pub(crate) next_fails: Option<Value>,
    /// Whether clients may speak other versions of the APIs than we do, as the SDK for Python does.
    pub(crate) any_version: bool,
    /// Machines are not shown, as when a copy lags behind.
    pub(crate) hidden: bool,
    /// For how many seconds new machines are not shown.
    pub(crate) hide_for: u64,
    /// How long deletes take, in seconds.
    pub(crate) delete_time: u64,
    /// Machines made from now on are switched off while they boot.
    pub(crate) stops_booting: bool,
    /// What goes wrong for as long as it is here.
    pub(crate) lasting: Option<Lasting>,
    /// Headers of every answer.
    pub(crate) headers: Vec<(String, String)>,
    /// Whole answers of look-ups that have no state, by the end of their path.
    pub(crate) facts: BTreeMap<String, Value>,
    /// What extensions were told to run, by machine.
    pub(crate) ran: Vec<(String, String)>,
}

/// The running stand-in.
pub(crate) struct Arm {
    server: Server,
    state: Arc<Mutex<State>>,
}

impl Arm {
    pub(crate) fn start() -> Self {
        let state = Arc::new(Mutex::new(State {
            now: 0,
            resources: BTreeMap::new(),
            operations: BTreeMap::new(),
            rules: VecDeque::new(),
            serial: 0,
            tokens: 0,
            expired_tokens: 0,
            requests: Vec::new(),
            polls: 2,
            next_fails: None,
            any_version: false,
            hidden: false,
            hide_for: 0,
            delete_time: 30,
            stops_booting: false,
            lasting: None,
            headers: Vec::new(),
            facts: BTreeMap::new(),
            ran: Vec::new(),
        }));
        let shared = Arc::clone(&state);
        let server = Server::start(move |url, request| {
            shared.lock().expect("no test panics with the lock").answer(url, request)
        });
        Self { server, state }
    }

    pub(crate) fn url(&self) -> String {
        self.server.url()
    }

    pub(crate) fn ca_file(&self) -> PathBuf {
        self.server.ca_file()
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no test panics with the lock")
    }

    /// Lets time pass: operations end.
    pub(crate) fn advance(&self, seconds: u64) {
        let mut state = self.state();
        state.now += seconds;
        let due: Vec<u64> = state
            .operations
            .iter()
            .filter(|(_, one)| one.outcome.is_none() && one.done_at <= state.now)
            .map(|(id, _)| *id)
            .collect();
        due.into_iter().for_each(|id| state.finish(id));
    }

    /// The next request of this method, with this part in its path, goes wrong.
    pub(crate) fn next(&self, method: &'static str, part: &'static str, fault: Fault) {
        self.state().rules.push_back(Rule { method, part, fault });
    }

    /// The stand-in's own time, in seconds.
    pub(crate) fn now(&self) -> u64 {
        self.state().now
    }

    /// Puts a machine there that somebody else has made, with these tags.
    pub(crate) fn add_machine(&self, name: &str, tags: Value) {
        let statuses = json!([{ "code": "ProvisioningState/succeeded" }, { "code": "PowerState/running" }]);
        let machine = json!({ "name": name, "id": id_of(Kind::Vm, name), "location": REGION, "tags": tags, "secrets": null,
            "properties": { "provisioningState": "Succeeded", "instanceView": { "statuses": statuses } } });
        self.state().resources.insert((Kind::Vm, name.to_lowercase()), machine);
    }

    /// Everything a preflight asks for is as it should be, for this machine.
    pub(crate) fn facts_are_sound(&self, machine: &Value) {
        let permissions = json!({ "value": [{ "actions": ["*"], "notActions": [] }] });
        let size = json!({ "resourceType": "virtualMachines", "name": machine["vm_size"], "family": "standardDSv5Family",
            "capabilities": [{ "name": "vCPUs", "value": "4" }], "restrictions": [] });
        let usages = json!({ "value": [{ "name": { "value": "cores" }, "currentValue": 10, "limit": 100 },
            { "name": { "value": "standardDSv5Family" }, "currentValue": 6, "limit": 10 }] });
        let facts = [
            ("/providers/Microsoft.Authorization/permissions", permissions),
            ("/skus/2022-datacenter-g2/versions", json!([{ "name": "20348.1" }])),
            ("/subnets/pool", json!({ "name": "pool" })),
            ("/networkSecurityGroups/desktops", json!({ "location": "westeurope" })),
            ("/providers/Microsoft.Compute/skus", json!({ "value": [size] })),
            ("/locations/westeurope/usages", usages),
        ];
        self.state().facts.extend(facts.into_iter().map(|(end, fact)| (end.to_owned(), fact)));
    }

    /// Gives a token out as if somebody had asked for it.
    pub(crate) fn give_token(&self) {
        self.state().tokens += 1;
    }

    /// Nothing goes wrong any more.
    pub(crate) fn forget_rules(&self) {
        self.state().rules.clear();
    }

    /// The names of all there is of a kind.
    pub(crate) fn names(&self, kind: Kind) -> Vec<String> {
        let state = self.state();
        state
            .resources
            .iter()
            .filter(|((one, _), _)| *one == kind)
            .map(|(_, resource)| resource["name"].as_str().expect("a name").to_owned())
            .collect()
    }

    /// All there is, of whatever kind.
    pub(crate) fn everything(&self) -> Vec<String> {
        Kind::ALL.iter().flat_map(|(kind, ..)| self.names(*kind)).collect()
    }

    /// Changes a resource as somebody else would.
    pub(crate) fn edit(&self, kind: Kind, name: &str, edit: impl FnOnce(&mut Value)) {
        let mut state = self.state();
        edit(state.resources.get_mut(&(kind, name.to_lowercase())).expect("a resource"));
    }

    /// Takes a resource away as if it had never been.
    pub(crate) fn remove(&self, kind: Kind, name: &str) {
        self.state().resources.remove(&(kind, name.to_lowercase())).expect("a resource");
    }

    /// The requests to Azure Resource Manager so far, as `METHOD path`.
    pub(crate) fn calls(&self) -> Vec<String> {
        let state = self.state();
        state
            .requests
            .iter()
            .filter(|one| !one.path.ends_with("/token"))
            .map(|one| format!("{} {}", one.method, one.path))
            .collect()
    }

    /// The last request of this method.
    pub(crate) fn last(&self, method: &str) -> Request {
        self.state().requests.iter().rev().find(|one| one.method == method).expect("a request").clone()
    }
}

pub(crate) fn answer(status: u16, body: &Value) -> Reply {
    Reply::Http { status, headers: vec![("x-ms-request-id".into(), "req-1".into())], body: body.to_string() }
}

pub(crate) fn error(status: u16, code: &str, message: &str) -> Reply {
    answer(status, &json!({ "error": { "code": code, "message": message } }))
}

fn id_of(kind: Kind, name: &str) -> String {
    format!("/subscriptions/{SUBSCRIPTION}/resourceGroups/{GROUP}/providers/{}/{name}", kind.path())
}

fn text<'a>(value: &'a Value, pointer: &str) -> Option<&'a str> {
    value.pointer(pointer).and_then(Value::as_str)
}

impl State {
    fn answer(&mut self, url: &str, request: &Request) -> Reply {
        self.requests.push(request.clone());
        let fits = |rule: &Rule| rule.method == request.method && request.path.contains(rule.part);
        let fault = self.rules.iter().position(fits).and_then(|index| self.rules.remove(index)).map(|rule| rule.fault);
        let fault = fault.or_else(|| self.lasting.as_ref().and_then(|lasting| lasting(request)));
        let reply = match fault {
            Some(Fault::Answer(reply)) => return reply,
            Some(Fault::LostBefore) => return Reply::HangUp,
            Some(Fault::LostAfter) => {
                self.served(url, request);
                return Reply::HangUp;
            }
            None => self.served(url, request),
        };
        match reply {
            Reply::Http { status, mut headers, body } => {
                headers.extend(self.headers.clone());
                Reply::Http { status, headers, body }
            }
            other => other,
        }
    }

    fn served(&mut self, url: &str, request: &Request) -> Reply {
        if request.path.ends_with("/oauth2/v2.0/token") {
            return self.token(url, request);
        }
        let number = request
            .headers
            .get("authorization")
            .and_then(|text| text.strip_prefix("Bearer token-")?.parse::<u64>().ok());
        match number {
            Some(number) if number > self.tokens => {
                return error(401, "InvalidAuthenticationToken", "The access token is invalid.");
            }
            Some(number) if number <= self.expired_tokens => {
                return error(401, "ExpiredAuthenticationToken", "The access token expiry is over.");
            }
            Some(_) => (),
            None => {
                return error(
                    401,
                    "AuthenticationFailed",
                    "Authentication failed. The 'Authorization' header is missing.",
                );
            }
        }
        let Some(version) = request.query.get("api-version") else {
            return error(
                400,
                "MissingApiVersionParameter",
                "The api-version query parameter (?api-version=) is required for all requests.",
            );
        };
        let prefix = format!("/subscriptions/{SUBSCRIPTION}");
        let path = request.path.to_lowercase();
        let Some(rest) = path.strip_prefix(&prefix) else {
            return error(404, "SubscriptionNotFound", "The subscription could not be found.");
        };
        if let Some(number) = rest.strip_prefix("/providers/microsoft.compute/locations/westeurope/operations/") {
            return self.operation(url, number, request.query.contains_key("monitor"));
        }
        if let Some(fact) = self.facts.iter().find(|(end, _)| path.ends_with(&end.to_lowercase())) {
            return answer(200, fact.1);
        }
        if rest == "/providers/microsoft.compute/virtualmachines"
            && request.query.get("statusOnly").is_some_and(|only| only == "true")
        {
            return self.list(url, request, Kind::Vm, true);
        }
        let Some(rest) = rest.strip_prefix("/resourcegroups/desktops/providers/") else {
            return error(404, "ResourceGroupNotFound", "Resource group could not be found.");
        };
        for (kind, kind_path, kind_version) in Kind::ALL {
            let Some(rest) = rest.strip_prefix(&kind_path.to_lowercase()) else { continue };
            if version != kind_version && !self.any_version {
                let message = format!("No registered resource provider found for API version '{version}'.");
                return error(400, "NoRegisteredProviderFound", &message);
            }
            let names: Vec<&str> = rest.split('/').skip(1).collect();
            return match (request.method.as_str(), names.as_slice()) {
                ("GET", []) => self.list(url, request, kind, false),
                ("GET", [name]) => self.get(kind, name, request),
                ("DELETE", [name]) => self.delete(url, kind, name, request),
                ("PUT", [_]) if kind == Kind::Vm => {
                    let name = request.path.rsplit('/').next().expect("a name");
                    self.make(url, name, request)
                }
                ("GET", [vm, "extensions", extension]) if kind == Kind::Vm => self.extension(vm, extension),
                ("PUT", [vm, "extensions", extension]) if kind == Kind::Vm => self.extend(url, vm, extension, request),
                _ => error(405, "MethodNotAllowed", "The stand-in does not do this."),
            };
        }
        error(404, "ResourceNotFound", &format!("The Resource '{}' was not found.", request.path))
    }

    fn token(&mut self, url: &str, request: &Request) -> Reply {
        let form = form(&request.body);
        let of = |name: &str| form.get(name).map(String::as_str).unwrap_or_default();
        let told = |status: u16, code: u32, words: &str| {
            let description = format!("AADSTS{code}: {words} Trace ID: 1");
            answer(
                status,
                &json!({ "error": "invalid_client", "error_description": description, "error_codes": [code] }),
            )
        };
        if !request.path.starts_with(&format!("/{TENANT}/")) {
            return told(400, 90002, "Tenant not found.");
        }
        if of("client_id") != CLIENT {
            return told(400, 700016, "Application was not found in the directory.");
        }
        let assertion = of("client_assertion") == "federated-token";
        if of("client_secret") != CLIENT_SECRET && !assertion {
            return told(401, 7000215, "Invalid client secret provided.");
        }
        if of("grant_type") != "client_credentials" || of("scope") != format!("{url}/.default") {
            return told(400, 70011, "The provided value for scope is not valid.");
        }
        self.tokens += 1;
        answer(
            200,
            &json!({ "token_type": "Bearer", "expires_in": 3599, "access_token": format!("token-{}", self.tokens) }),
        )
    }

    fn begin(&mut self, work: Work) -> u64 {
        self.serial += 1;
        let takes = if matches!(work, Work::Delete { .. }) { self.delete_time } else { 30 };
        let operation = Operation { left: self.polls, done_at: self.now + takes, work, outcome: None };
        self.operations.insert(self.serial, operation);
        self.serial
    }

    fn accepted(&self, url: &str, status: u16, number: u64, body: &Value) -> Reply {
        let base = format!(
            "{url}/subscriptions/{SUBSCRIPTION}/providers/Microsoft.Compute/locations/{REGION}/operations/{number}?p=1&api-version=2024-03-01&t=638&c=MII%2B"
        );
        let mut headers = vec![
            ("Azure-AsyncOperation".to_owned(), base.clone()),
            ("x-ms-request-id".to_owned(), "req-1".to_owned()),
            ("Retry-After".to_owned(), "0".to_owned()),
        ];
        if status == 202 {
            headers.push(("Location".to_owned(), format!("{base}&monitor=true")));
        }
        let body = if body.is_null() { String::new() } else { body.to_string() };
        Reply::Http { status, headers, body }
    }

    fn operation(&mut self, url: &str, number: &str, monitor: bool) -> Reply {
        let Some(number) = number.parse().ok().filter(|number| self.operations.contains_key(number)) else {
            return error(404, "NotFound", "The entity was not found.");
        };
        let operation = self.operations.get_mut(&number).expect("looked up above");
        if operation.outcome.is_none() && operation.left == 0 {
            self.finish(number);
        } else if operation.outcome.is_none() {
            operation.left -= 1;
        }
        let operation = &self.operations[&number];
        let started = json!("2026-11-20T08:00:00.0000000+00:00");
        let name = format!("operation-{number}");
        match (&operation.outcome, monitor) {
            (None, true) => self.accepted(url, 202, number, &Value::Null),
            (None, false) => answer(200, &json!({ "startTime": started, "status": "InProgress", "name": name })),
            (Some(Ok(())), true) => Reply::Http { status: 200, headers: Vec::new(), body: String::new() },
            (Some(Ok(())), false) => {
                answer(200, &json!({ "startTime": started, "endTime": started, "status": "Succeeded", "name": name }))
            }
            (Some(Err(why)), _) => answer(
                200,
                &json!({ "startTime": started, "endTime": started, "status": "Failed", "error": why, "name": name }),
            ),
        }
    }

    fn finish(&mut self, number: u64) {
        let work = self.operations[&number].work.clone();
        let outcome = match work {
            Work::Make { vm, fails } => self.made(&vm, fails),
            Work::Extend { vm } => {
                let vm = self.resources.get_mut(&(Kind::Vm, vm));
                if let Some(vm) = vm.filter(|vm| vm["properties"]["provisioningState"] == json!("Updating")) {
                    vm["properties"]["provisioningState"] = json!("Succeeded");
                    let children = vm["resources"].as_array_mut().into_iter().flatten();
                    children.for_each(|child| child["properties"]["provisioningState"] = json!("Succeeded"));
                }
                Ok(())
            }
            Work::Delete { kind, name } => {
                self.gone(kind, &name);
                Ok(())
            }
        };
        self.operations.get_mut(&number).expect("it is there").outcome = Some(outcome);
    }

    fn made(&mut self, name: &str, fails: Option<Value>) -> Result<(), Value> {
        let Some(vm) = self.resources.get_mut(&(Kind::Vm, name.to_owned())) else { return Ok(()) };
        let failed = fails.is_some();
        let power = if self.stops_booting { "stopped" } else { "running" };
        vm["properties"]["provisioningState"] = json!(if failed { "Failed" } else { "Succeeded" });
        let statuses = match &fails {
            None => {
                json!([{ "code": "ProvisioningState/succeeded", "level": "Info" }, { "code": format!("PowerState/{power}"), "level": "Info" }])
            }
            Some(why) => {
                json!([{ "code": format!("ProvisioningState/failed/{}", why["code"].as_str().unwrap_or_default()),
                "level": "Error", "message": why["message"] }])
            }
        };
        vm["properties"]["instanceView"] = json!({ "statuses": statuses });
        let until = self.now + RESERVED;
        for ((kind, _), resource) in &mut self.resources {
            let of_vm =
                text(resource, "/properties/virtualMachine/id").is_some_and(|id| id.to_lowercase().ends_with(name));
            if *kind == Kind::Nic && of_vm && failed {
                resource["reserved_until"] = json!(until);
                resource["properties"].as_object_mut().expect("an object").remove("virtualMachine");
            }
        }
        fails.map_or(Ok(()), Err)
    }

    /// Takes a resource away with what goes with it.
    fn gone(&mut self, kind: Kind, name: &str) {
        let Some(resource) = self.resources.remove(&(kind, name.to_owned())) else { return };
        let id = id_of(kind, name).to_lowercase();
        let held = |one: &Value| {
            let holders = ["/properties/virtualMachine/id", "/properties/ipConfiguration/id", "/managedBy"];
            holders
                .iter()
                .any(|pointer| text(one, pointer).is_some_and(|holder| holder.to_lowercase().starts_with(&id)))
        };
        let parts: Vec<(Kind, String)> =
            self.resources.iter().filter(|(_, one)| held(one)).map(|(key, _)| key.clone()).collect();
        for (kind, name) in parts {
            let part = self.resources.get_mut(&(kind, name.clone())).expect("listed above");
            if part["delete_with_holder"] == json!(true) {
                self.gone(kind, &name);
            } else {
                part["managedBy"] = Value::Null;
                if let Some(properties) = part["properties"].as_object_mut() {
                    properties.remove("virtualMachine");
                    properties.remove("ipConfiguration");
                }
            }
        }
        drop(resource);
    }

    fn shown(&self, resource: &Value, view: bool) -> Value {
        let mut shown = resource.clone();
        let object = shown.as_object_mut().expect("an object");
        for inner in ["reserved_until", "delete_with_holder", "secrets", "hidden_until"] {
            object.remove(inner);
        }
        if !view && let Some(properties) = object.get_mut("properties").and_then(Value::as_object_mut) {
            properties.remove("instanceView");
        }
        shown
    }

    fn list(&self, url: &str, request: &Request, kind: Kind, view: bool) -> Reply {
        let skip: usize = request.query.get("$skiptoken").and_then(|text| text.parse().ok()).unwrap_or(0);
        let now = self.now;
        let shown = |one: &&Value| one["hidden_until"].as_u64().is_none_or(|until| until <= now);
        let all: Vec<Value> = self
            .resources
            .iter()
            .filter(|((one, _), _)| *one == kind)
            .map(|(_, one)| one)
            .filter(shown)
            .map(|one| self.shown(one, view))
            .collect();
        let all = if kind == Kind::Vm && self.hidden { Vec::new() } else { all };
        let page: Vec<&Value> = all.iter().skip(skip).take(PAGE).collect();
        let mut body = json!({ "value": page });
        if skip + PAGE < all.len() {
            let more = if view { "&statusOnly=true" } else { "" };
            let version = &request.query["api-version"];
            body["nextLink"] =
                json!(format!("{url}{}?api-version={version}&$skiptoken={}{more}", request.path, skip + PAGE));
        }
        answer(200, &body)
    }

    fn get(&self, kind: Kind, name: &str, request: &Request) -> Reply {
        let view = request.query.get("$expand").is_some_and(|expand| expand == "instanceView");
        let shown = |one: &&Value| one["hidden_until"].as_u64().is_none_or(|until| until <= self.now);
        let resource = self.resources.get(&(kind, name.to_owned())).filter(shown);
        match resource.filter(|_| kind != Kind::Vm || !self.hidden) {
            Some(resource) => answer(200, &self.shown(resource, view)),
            None => self.absent(kind, name),
        }
    }

    fn extension(&self, vm: &str, name: &str) -> Reply {
        let vm = self.resources.get(&(Kind::Vm, vm.to_owned()));
        let children = vm.and_then(|vm| vm["resources"].as_array()).into_iter().flatten();
        match children.into_iter().find(|child| child["name"] == json!(name)) {
            Some(child) => answer(200, child),
            None => error(404, "ResourceNotFound", "The extension was not found."),
        }
    }

    fn absent(&self, kind: Kind, name: &str) -> Reply {
        let message = format!("The Resource '{}/{name}' under resource group '{GROUP}' was not found.", kind.path());
        error(404, "ResourceNotFound", &message)
    }

    fn delete(&mut self, url: &str, kind: Kind, name: &str, request: &Request) -> Reply {
        let Some(resource) = self.resources.get_mut(&(kind, name.to_owned())) else {
            return Reply::Http { status: 204, headers: Vec::new(), body: String::new() };
        };
        let held = |pointer: &str| text(resource, pointer).is_some();
        let refusal = match kind {
            Kind::Vm => None,
            Kind::Nic if held("/properties/virtualMachine/id") => {
                Some((400, "NicInUse", "is used by existing resource"))
            }
            Kind::Nic if resource["reserved_until"].as_u64().is_some_and(|until| until > self.now) => {
                Some((400, "NicReservedForAnotherVm", "is reserved for another virtual machine for 180 seconds"))
            }
            Kind::PublicIp if held("/properties/ipConfiguration/id") => {
                Some((400, "PublicIPAddressCannotBeDeleted", "can not be deleted since it is still allocated"))
            }
            Kind::Disk if held("/managedBy") => Some((409, "OperationNotAllowed", "Disk is attached to VM")),
            _ => None,
        };
        if let Some((status, code, message)) = refusal {
            return error(status, code, message);
        }
        resource["properties"]["provisioningState"] = json!("Deleting");
        assert!(
            kind != Kind::Vm
                || request.query.get("forceDeletion").is_none_or(|force| force == "true" || force == "false")
        );
        let number = self.begin(Work::Delete { kind, name: name.to_owned() });
        self.accepted(url, 202, number, &Value::Null)
    }

    fn make(&mut self, url: &str, name: &str, request: &Request) -> Reply {
        let Ok(body) = serde_json::from_str::<Value>(&request.body) else {
            return error(
                400,
                "InvalidRequestContent",
                "The request content was invalid and could not be deserialized.",
            );
        };
        let key = (Kind::Vm, name.to_lowercase());
        let secrets = json!([
            body.pointer("/properties/osProfile/customData"),
            body.pointer("/properties/osProfile/adminPassword")
        ]);
        if let Some(there) = self.resources.get(&key) {
            if request.headers.get("if-none-match").is_some_and(|text| text == "*") {
                return error(412, "PreconditionFailed", "The condition 'If-None-Match' is not satisfied.");
            }
            if there["secrets"] != secrets {
                return error(
                    409,
                    "PropertyChangeNotAllowed",
                    "Changing property 'osProfile.customData' is not allowed.",
                );
            }
            return answer(200, &self.shown(there, false));
        }
        let needed =
            ["/location", "/properties/hardwareProfile/vmSize", "/properties/storageProfile/osDisk/createOption"];
        for pointer in needed {
            if text(&body, pointer).is_none() {
                return error(400, "InvalidParameter", &format!("Required parameter '{pointer}' is missing (null)."));
            }
        }
        let mistakes = crate::swagger::mistakes("VirtualMachine", &body);
        if !mistakes.is_empty() {
            return error(400, "BadRequest", &mistakes.join("; "));
        }
        let resource = self.resource(name, body, secrets);
        self.resources.insert(key.clone(), resource);
        let fails = self.next_fails.take();
        let number = self.begin(Work::Make { vm: key.1.clone(), fails });
        self.accepted(url, 201, number, &self.shown(&self.resources[&key], false))
    }

    /// The machine that a request makes, and all its parts.
    fn resource(&mut self, name: &str, mut body: Value, secrets: Value) -> Value {
        let id = id_of(Kind::Vm, name);
        if let Some(profile) = body.pointer_mut("/properties/osProfile").and_then(Value::as_object_mut) {
            profile.remove("customData");
            profile.remove("adminPassword");
        }
        let deletes = |one: &Value, pointer: &str| text(one, pointer) == Some("Delete");
        let profile = body.pointer_mut("/properties/networkProfile").and_then(Value::as_object_mut);
        let interfaces =
            profile.and_then(|profile| profile.remove("networkInterfaceConfigurations")).unwrap_or(json!([]));
        let mut references = Vec::new();
        for interface in interfaces.as_array().expect("a list") {
            self.serial += 1;
            let nic = format!("{}-{:08x}", interface["name"].as_str().expect("a name"), self.serial);
            let nic_id = id_of(Kind::Nic, &nic);
            let mut addresses = Vec::new();
            for address in interface["properties"]["ipConfigurations"].as_array().into_iter().flatten() {
                let ip_id = format!("{nic_id}/ipConfigurations/{}", address["name"].as_str().expect("a name"));
                let mut properties =
                    json!({ "primary": address["properties"]["primary"], "privateIPAddress": "127.0.0.1" });
                if let Some(public) = address.pointer("/properties/publicIPAddressConfiguration") {
                    let pip = public["name"].as_str().expect("a name").to_owned();
                    properties["publicIPAddress"] = json!({ "id": id_of(Kind::PublicIp, &pip) });
                    let made = json!({ "name": pip, "id": id_of(Kind::PublicIp, &pip), "location": REGION,
                        "delete_with_holder": deletes(public, "/properties/deleteOption"),
                        "properties": { "provisioningState": "Succeeded", "ipAddress": "127.0.0.2", "ipConfiguration": { "id": ip_id } } });
                    self.resources.insert((Kind::PublicIp, pip.to_lowercase()), made);
                }
                addresses.push(json!({ "name": address["name"], "id": ip_id, "properties": properties }));
            }
            let made = json!({ "name": nic, "id": nic_id, "location": REGION,
                "delete_with_holder": deletes(interface, "/properties/deleteOption"),
                "properties": { "provisioningState": "Succeeded", "primary": interface["properties"]["primary"],
                    // Azure gives ids back in another case than it took them.
                    "virtualMachine": { "id": id.to_uppercase() }, "ipConfigurations": addresses } });
            self.resources.insert((Kind::Nic, nic.to_lowercase()), made);
            references.push(json!({ "id": nic_id, "properties": { "primary": interface["properties"]["primary"] } }));
        }
        body["properties"]["networkProfile"] = json!({ "networkInterfaces": references });
        self.disk(&id, &body["properties"]["storageProfile"]["osDisk"]);
        for disk in body["properties"]["storageProfile"]["dataDisks"].as_array().cloned().unwrap_or_default() {
            self.disk(&id, &disk);
        }
        body["name"] = json!(name);
        body["id"] = json!(id);
        body["type"] = json!("Microsoft.Compute/virtualMachines");
        body["secrets"] = secrets;
        body["hidden_until"] = json!(self.now + self.hide_for);
        body["properties"]["provisioningState"] = json!("Creating");
        body["properties"]["vmId"] = json!("b7a098cc-b0b8-46e8-a205-62f301a62a8f");
        body
    }

    fn disk(&mut self, vm: &str, disk: &Value) {
        let name = disk["name"].as_str().expect("a name");
        let made = json!({ "name": name, "id": id_of(Kind::Disk, name), "location": REGION, "managedBy": vm,
            "delete_with_holder": disk["deleteOption"] == json!("Delete"), "properties": { "provisioningState": "Succeeded" } });
        self.resources.insert((Kind::Disk, name.to_lowercase()), made);
    }

    fn extend(&mut self, url: &str, vm: &str, extension: &str, request: &Request) -> Reply {
        let body: Value = serde_json::from_str(&request.body).expect("JSON");
        let mistakes = crate::swagger::mistakes("VirtualMachineExtension", &body);
        if !mistakes.is_empty() {
            return error(400, "BadRequest", &mistakes.join("; "));
        }
        let Some(there) = self.resources.get_mut(&(Kind::Vm, vm.to_owned())) else {
            return error(404, "ParentResourceNotFound", "Can not perform requested operation on nested resource.");
        };
        if there["properties"]["provisioningState"] == json!("Creating") {
            return error(409, "Conflict", "The request failed due to conflict with a concurrent request.");
        }
        let id = format!("{}/extensions/{extension}", id_of(Kind::Vm, vm));
        let made = json!({ "name": extension, "id": id, "location": REGION, "type": "Microsoft.Compute/virtualMachines/extensions",
            "properties": { "publisher": body["properties"]["publisher"], "type": body["properties"]["type"],
                "typeHandlerVersion": body["properties"]["typeHandlerVersion"], "settings": {}, "provisioningState": "Creating" } });
        let known =
            there["resources"].as_array().is_some_and(|all| all.iter().any(|one| one["name"] == json!(extension)));
        if !known {
            there["properties"]["provisioningState"] = json!("Updating");
            if !there["resources"].is_array() {
                there["resources"] = json!([]);
            }
            there["resources"].as_array_mut().expect("a list").push(made.clone());
            let command = text(&body, "/properties/protectedSettings/commandToExecute").unwrap_or_default();
            self.ran.push((vm.to_owned(), command.to_owned()));
        }
        let number = self.begin(Work::Extend { vm: vm.to_owned() });
        self.accepted(url, 201, number, &made)
    }
}

/// How long a silent answer lasts: longer than any test waits.
pub(crate) const FOREVER: Duration = Duration::from_secs(20);
