//! Well-framed requests that nobody should send, and what they are to be answered.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use kasm_autoscale_core::id::{PoolId, ServerId, ServerKey};
use kasm_autoscale_core::testing::entropy::{Entropy, Seeded};
use kasm_autoscale_core::time::Timestamp;
use kasm_autoscale_core::token::{DeploymentKey, checkin_token};
use kasm_daemon::auth::Role;

use crate::bodies::{POISON, one, sample, spoilt};
use crate::document::{Api, Operation};
use crate::stage::{KEY_BYTE, Stage};
use crate::wire::Reply;

/// Pools that whoever has the right to may ruin.
pub(crate) const VICTIMS: [&str; 3] = ["victim-0", "victim-1", "victim-2"];

/// Tokens, good and bad.
pub(crate) struct Callers {
    tokens: Vec<(Role, String)>,
    /// Check-in tokens that are good: of a server that is gone, and of a pool that never was.
    check_ins: Vec<String>,
}

impl Callers {
    pub(crate) async fn of(stage: &Stage) -> Arc<Self> {
        let key = DeploymentKey::new([KEY_BYTE; 32]);
        let later = Timestamp::from_secs(stage.host.world().clock.now().as_secs()) + Duration::from_secs(86_400);
        let mut check_ins = vec![];
        for pool in [stage.host.pool("victim-0").unwrap().id(), PoolId::from_bytes([1; 16])] {
            let server = ServerKey { pool, server: ServerId::new(999) };
            check_ins.push(checkin_token(&key, &server, later));
            check_ins.push(checkin_token(&key, &server, Timestamp::from_secs(1)));
        }
        Arc::new(Self { tokens: stage.tokens.clone().into_iter().collect(), check_ins })
    }
}

/// Who sends a request.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Who {
    Nobody,
    Forger,
    Holder(Role),
}

/// One request.
pub(crate) struct Hostile {
    pub(crate) bytes: Vec<u8>,
    pub(crate) method: String,
    pub(crate) kind: &'static str,
    allowed: Allowed,
}

/// What it may be answered.
enum Allowed {
    /// Exactly this: the caller is nobody, or may not.
    Exactly(u16),
    /// What the document says of its operation, or that the message itself is no good.
    AsDescribed(Vec<u16>),
    /// Anything but success and failure of ours.
    Refusal,
}

/// Statuses that any route may answer a message with that is no good by itself.
const OF_MESSAGES: [u16; 7] = [400, 408, 413, 414, 415, 422, 431];

impl Hostile {
    pub(crate) fn judge(&self, reply: &Reply) -> Result<(), String> {
        let fits = match &self.allowed {
            Allowed::Exactly(status) => reply.status == *status,
            Allowed::AsDescribed(statuses) => statuses.contains(&reply.status) || OF_MESSAGES.contains(&reply.status),
            Allowed::Refusal => (400..500).contains(&reply.status),
        };
        if !fits {
            return Err(format!("{} was answered {}", self.kind, reply.status));
        }
        for header in ["set-cookie", "access-control-allow", "x-injected", "server:"] {
            if reply.head.contains(header) {
                return Err(format!("S-21 an answer carries {header}"));
            }
        }
        for header in ["x-content-type-options: nosniff", "cache-control: no-store", "x-frame-options: deny"] {
            if !reply.head.contains(header) && reply.status != 431 && reply.status != 414 {
                return Err(format!("S-21 an answer lacks {header}"));
            }
        }
        if reply.status >= 400 && self.method != "HEAD" && !reply.body.is_empty() {
            let body: serde_json::Value = serde_json::from_str(&reply.body).map_err(|error| error.to_string())?;
            if !body["error"]["code"].is_string() || !body["error"]["request_id"].is_string() {
                return Err("an error has another shape".into());
            }
        }
        if reply.body.contains("canary-") {
            return Err("S-01 a secret is told".into());
        }
        Ok(())
    }
}

/// Draws requests.
pub(crate) struct Draw {
    pub(crate) entropy: Seeded,
    api: Arc<Api>,
    callers: Arc<Callers>,
}

impl Draw {
    pub(crate) const fn new(entropy: Seeded, api: Arc<Api>, callers: Arc<Callers>) -> Self {
        Self { entropy, api, callers }
    }

    pub(crate) fn one_in(&mut self, count: u64) -> bool {
        self.entropy.pick(count) == 0
    }

    pub(crate) fn request(&mut self) -> Hostile {
        let api = self.api.clone();
        let operation = &api.operations[usize::try_from(self.entropy.pick(api.operations.len() as u64)).unwrap()];
        match self.entropy.pick(10) {
            0 => self.strange_path(operation),
            1 => self.strange_method(operation),
            2 => self.check_in(),
            _ => self.operation(operation),
        }
    }

    fn who(&mut self) -> Who {
        match self.entropy.pick(4) {
            0 => Who::Nobody,
            1 => Who::Forger,
            _ => Who::Holder(Role::ALL[usize::try_from(self.entropy.pick(5)).unwrap()]),
        }
    }

    /// The headers that say who is calling.
    fn credentials(&mut self, who: Who) -> String {
        let good = |role: Role| &self.callers.tokens.iter().find(|(of, _)| *of == role).unwrap().1;
        match who {
            Who::Nobody => match self.entropy.pick(3) {
                0 => "authorization: \r\n".into(),
                _ => String::new(),
            },
            Who::Holder(role) => format!("authorization: Bearer {}\r\n", good(role)),
            Who::Forger => {
                let mut token = good(Role::Admin).clone().into_bytes();
                let text = match self.entropy.pick(7) {
                    0 => {
                        let at = usize::try_from(self.entropy.pick(token.len() as u64)).unwrap();
                        token[at] = if token[at] == b'A' { b'B' } else { b'A' };
                        format!("Bearer {}", String::from_utf8(token).unwrap())
                    }
                    1 => format!("Bearer {}", &good(Role::Admin)[..usize::try_from(self.entropy.pick(50)).unwrap()]),
                    2 => format!("Bearer {}x", good(Role::Admin)),
                    3 => format!("Basic {}", good(Role::Admin)),
                    4 => format!("Bearer {}", "k".repeat(usize::try_from(self.entropy.range(1..=4000)).unwrap())),
                    5 => format!("Bearer kasmu_{}", URL_SAFE_NO_PAD.encode([7; 32])),
                    _ => format!("Bearer {}", self.callers.check_ins[0]),
                };
                format!("authorization: {text}\r\n")
            }
        }
    }

    fn message(&mut self, method: &str, target: &str, who: Who, body: Option<&[u8]>) -> Vec<u8> {
        let mut head = format!("{method} {target} HTTP/1.1\r\nhost: localhost\r\n");
        head += &self.credentials(who);
        if let Some(body) = body {
            let kind = if self.entropy.pick(12) == 0 { "text/plain" } else { "application/json" };
            head += &format!("content-type: {kind}\r\ncontent-length: {}\r\n", body.len());
        }
        match self.entropy.pick(20) {
            0 => head += "x-forwarded-for: 10.0.0.1, evil\r\nx-http-method-override: DELETE\r\n",
            1 => head += "origin: https://evil.example\r\ncookie: a=b\r\n",
            2 => head += &format!("x-long: {}\r\n", "y".repeat(usize::try_from(self.entropy.range(1..=8000)).unwrap())),
            3 => head += "accept: text/html;q=9\r\naccept-encoding: gzip, br\r\nrange: bytes=0-1\r\n",
            _ => {}
        }
        head += "\r\n";
        let mut bytes = head.into_bytes();
        bytes.extend_from_slice(body.unwrap_or_default());
        bytes
    }

    /// A route, with names that there are or not, a body that is wrong, and any caller.
    fn operation(&mut self, operation: &Operation) -> Hostile {
        let who = match self.who() {
            // Who logs out is nobody from then on.
            Who::Holder(Role::User) if operation.path == "/v1/logout" => Who::Nobody,
            who => who,
        };
        let may = match (&operation.roles, who) {
            (None, _) => true,
            (Some(roles), Who::Holder(role)) => roles.contains(&role),
            (Some(_), _) => false,
        };
        // Whoever may not is sent to the good as well.
        let pools: &[&str] =
            if may && operation.method != "GET" { &VICTIMS } else { &["victim-0", "good", "filed", "nowhere"] };
        let mut target = operation.path.clone();
        for (name, values) in [
            ("{pool}", pools),
            ("{config}", &["a", "b", "stone"]),
            ("{server}", &["srv-1", "srv-2", "srv-99", "srv-x"]),
            ("{session}", &["ses-1", "ses-2", "ses-77", "1"]),
            ("{workspace}", &["filed", "extra-0", "none"]),
            ("{user}", &["nobody@corp.example", "nobody", "*"]),
            ("{token}", &["000000000000", "0", "ffffffffffff"]),
        ] {
            if target.contains(name) {
                target = target.replace(name, one(&mut self.entropy, values));
            }
        }
        target += &self.query(operation);
        let body = operation.body.as_ref().map(|schema| {
            let value = sample(&self.api.schemas, schema, &mut self.entropy);
            spoilt(value, &mut self.entropy)
        });
        let (spoilt, body) = body.map_or(("a request", None), |(kind, body)| (kind, Some(body)));
        let allowed = match (may, who) {
            (true, _) => Allowed::AsDescribed(operation.statuses.iter().copied().collect()),
            (false, Who::Holder(_)) => Allowed::Exactly(403),
            (false, _) => Allowed::Exactly(401),
        };
        let kind = match (may, who) {
            (true, _) => spoilt,
            (false, Who::Holder(_)) => "the wrong role",
            (false, Who::Forger) => "a forged token",
            (false, Who::Nobody) => "no token",
        };
        let bytes = self.message(&operation.method, &target, who, body.as_deref());
        Hostile { bytes, method: operation.method.clone(), kind, allowed }
    }

    fn query(&mut self, operation: &Operation) -> String {
        if self.entropy.pick(3) != 0 {
            return String::new();
        }
        let names: Vec<&str> = operation.queries.iter().map(String::as_str).chain(["limit", "unknown"]).collect();
        let name = one(&mut self.entropy, &names);
        let value = one(
            &mut self.entropy,
            &[
                "",
                "-1",
                "0",
                "1001",
                "1ms",
                "61s",
                "true",
                "%00",
                "%ff",
                "99999999999999999999",
                "active",
                "rdp",
                "x%26y=z",
            ],
        );
        let again = if self.entropy.pick(5) == 0 { format!("&{name}={value}") } else { String::new() };
        format!("?{name}={value}{again}")
    }

    /// A path that is meant to lead somewhere else than it says. No caller may get anywhere with it.
    fn strange_path(&mut self, operation: &Operation) -> Hostile {
        let prefix = operation.path.split('{').next().unwrap_or("/").trim_end_matches('/').to_owned();
        let poison: String = one(&mut self.entropy, &POISON).bytes().map(|byte| format!("%{byte:02x}")).collect();
        let target = match self.entropy.pick(8) {
            0 => format!("{prefix}/../../metrics/."),
            1 => format!("/..{prefix}/%2e%2e/%2e%2e/etc/passwd"),
            2 => format!("/{prefix}//"),
            3 => format!("{prefix}/{poison}/{poison}/{poison}/{poison}/{poison}/{poison}"),
            4 => format!("{prefix}%2f..%2fmetrics%00"),
            5 => format!("/static/{poison}"),
            6 => format!("{prefix}/{}", "a/".repeat(usize::try_from(self.entropy.range(9..=3000)).unwrap())),
            _ => format!("{};jsessionid=1/x/y/z/w/v/u", prefix),
        };
        let who = self.who();
        let bytes = self.message("GET", &target, who, None);
        Hostile { bytes, method: "GET".into(), kind: "a strange path", allowed: Allowed::Refusal }
    }

    fn strange_method(&mut self, operation: &Operation) -> Hostile {
        let method = one(&mut self.entropy, &["PATCH", "OPTIONS", "TRACE", "BREW", "PROPFIND", "get", "CONNECTX"]);
        let who = self.who();
        let target = operation.path.replace(['{', '}'], "");
        let bytes = self.message(method, &target, who, None);
        Hostile { bytes, method: method.into(), kind: "a strange method", allowed: Allowed::Refusal }
    }

    /// Check-in tokens: replayed for a server that is gone, expired, of another pool, with another algorithm, cut, turned.
    fn check_in(&mut self) -> Hostile {
        let which = usize::try_from(self.entropy.pick(self.callers.check_ins.len() as u64)).unwrap();
        let token = self.callers.check_ins[which].clone();
        let expired = which % 2 == 1;
        let parts: Vec<&str> = token.split('.').collect();
        let none = |alg: &str| URL_SAFE_NO_PAD.encode(format!("{{\"alg\":\"{alg}\",\"typ\":\"JWT\"}}"));
        let (token, status) = match self.entropy.pick(9) {
            0 | 1 if !expired => (token.clone(), 410),
            0 | 1 => (token.clone(), 401),
            2 => (format!("{}.{}.", none("none"), parts[1]), 401),
            3 => (format!("{}.{}.{}", none("HS512"), parts[1], parts[2]), 401),
            4 => (format!("{}.{}.{}", none("RS256"), parts[1], parts[2]), 401),
            5 => (token[..usize::try_from(self.entropy.pick(token.len() as u64)).unwrap()].to_owned(), 401),
            6 => {
                let at = usize::try_from(self.entropy.pick(token.len() as u64)).unwrap();
                let mut bytes = token.clone().into_bytes();
                bytes[at] = if bytes[at] == b'x' { b'y' } else { b'x' };
                let turned = String::from_utf8(bytes).unwrap();
                // The last letter of base64 carries bits that nobody reads; a token with other ones there is refused as well.
                (turned, 401)
            }
            7 => (format!("{token}.{token}"), 401),
            _ => ("a".repeat(usize::try_from(self.entropy.range(0..=6000)).unwrap()), 401),
        };
        let target = format!("/api/set_server_status?token={token}");
        let who = self.who();
        let bytes = self.message("POST", &target, who, Some(b"{\"status\":\"running\"}"));
        Hostile { bytes, method: "POST".into(), kind: "a check-in token", allowed: Allowed::Exactly(status) }
    }
}
