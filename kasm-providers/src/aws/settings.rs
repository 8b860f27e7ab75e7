//! The settings of a provider: where EC2 is, who asks, and how long to wait.

use std::fmt;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use aws_sdk_ec2::config::retry::RetryConfig;
use aws_sdk_ec2::config::timeout::TimeoutConfig;
use aws_sdk_ec2::config::{BehaviorVersion, Builder, Config, Credentials, Region};
use kasm_autoscale_core::fields::{Fields, Problem};
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;

/// Pinned, so that an update of the SDK does not change timeouts or credentials behind our back.
fn behavior() -> BehaviorVersion {
    BehaviorVersion::v2026_01_12()
}

/// Who asks.
#[derive(Clone, Debug)]
pub enum AwsCredentials {
    /// Whatever the SDK's usual chain finds: environment, profile, web identity, container, instance (AWS SDKs and Tools
    /// Reference, "Standardized credential providers").
    Chain,
    /// A key. Nothing else is looked at: no environment, no file, and never the instance metadata address.
    Static {
        /// As in `AKIA...`. Not a secret.
        access_key_id: String,
        /// The key's secret.
        secret_access_key: SecretString,
        /// With temporary keys.
        session_token: Option<SecretString>,
    },
}

/// Which of a machine's addresses its sessions use.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum AddressChoice {
    /// The private IPv4 address.
    Private,
    /// The public IPv4 address.
    Public,
    /// The private DNS name.
    PrivateDns,
}

/// The settings of one EC2 provider: one account in one region.
#[derive(Clone)]
pub struct AwsSettings {
    /// As in `eu-central-1`.
    pub region: String,
    /// An endpoint other than the region's own: a VPC endpoint, or a simulator. Must be https unless it is on loopback.
    pub endpoint_url: Option<String>,
    /// Who asks.
    pub credentials: AwsCredentials,
    /// A profile in the shared AWS files, for [`AwsCredentials::Chain`].
    pub profile: Option<String>,
    /// Which address of a machine is reported.
    pub address: AddressChoice,
    /// How long a connection may take to be made.
    pub connect_timeout: Duration,
    /// How long a create or delete may take in all, look-ups included.
    pub call_timeout: Duration,
    /// How long a machine may be missing from answers although it exists. EC2 does not say; its own advice is to wait up
    /// to about five minutes (API Reference, "Eventual consistency").
    pub visibility_lag: Duration,
    /// How often machines are listed while something is expected to change.
    pub poll_busy: Duration,
    /// How often they are listed while nothing is. The calls of all tools on an account come out of one allowance (EC2
    /// Developer Guide, "Request throttling").
    pub poll_idle: Duration,
    /// Machines in one page of a list: 5 to 1000 (API Reference, DescribeInstances).
    pub page_size: u16,
    /// Creates under way at once, per config.
    pub creates_in_flight_max: u32,
}

const CONNECT_TIMEOUT: RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(60);
const CALL_TIMEOUT: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(600);
const VISIBILITY_LAG: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(3600);
const POLL: RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(3600);
const PAGE_SIZE: RangeInclusive<u64> = 5..=1000;
const CREATES_IN_FLIGHT: RangeInclusive<u64> = 1..=1000;
const REGION_RULE: &str = "the name of a region, as in \"eu-central-1\"";
const ENDPOINT_RULE: &str =
    "https://host[:port][/path]; http only if the host is loopback, since requests carry start-up scripts";

impl AwsSettings {
    /// The settings for a region, all others as they are by default.
    pub fn new(region: impl Into<String>, credentials: AwsCredentials) -> Self {
        Self {
            region: region.into(),
            endpoint_url: None,
            credentials,
            profile: None,
            address: AddressChoice::Private,
            connect_timeout: Duration::from_secs(3),
            call_timeout: Duration::from_secs(30),
            visibility_lag: Duration::from_secs(300),
            poll_busy: Duration::from_secs(5),
            poll_idle: Duration::from_secs(60),
            page_size: 1000,
            creates_in_flight_max: 20,
        }
    }

    /// Reads the fields `region`, `endpoint_url`, `profile`, `address` (`private`, `public` or `private_dns`),
    /// `connect_timeout`, `call_timeout`, `visibility_lag`, `poll_busy`, `poll_idle`, `page_size` and `creates_in_flight_max`. The caller brings the
    /// credentials, since only it knows where secrets are kept, and calls [`Fields::finish`].
    pub fn read(fields: &mut Fields<'_>, credentials: AwsCredentials) -> Option<Self> {
        let region = fields.text("region");
        let mut settings = Self::new(fields.require("region", region, REGION_RULE)?, credentials);
        settings.endpoint_url = fields.text("endpoint_url");
        settings.profile = fields.text("profile");
        let choices = [
            ("private", AddressChoice::Private),
            ("public", AddressChoice::Public),
            ("private_dns", AddressChoice::PrivateDns),
        ];
        settings.address = fields.choice("address", &choices).unwrap_or(settings.address);
        settings.connect_timeout = fields.span("connect_timeout", CONNECT_TIMEOUT).unwrap_or(settings.connect_timeout);
        settings.call_timeout = fields.span("call_timeout", CALL_TIMEOUT).unwrap_or(settings.call_timeout);
        settings.visibility_lag = fields.span("visibility_lag", VISIBILITY_LAG).unwrap_or(settings.visibility_lag);
        settings.poll_busy = fields.span("poll_busy", POLL).unwrap_or(settings.poll_busy);
        settings.poll_idle = fields.span("poll_idle", POLL).unwrap_or(settings.poll_idle);
        settings.page_size = fields.integer("page_size", PAGE_SIZE).unwrap_or(settings.page_size);
        let creates = fields.integer("creates_in_flight_max", CREATES_IN_FLIGHT);
        settings.creates_in_flight_max = creates.unwrap_or(settings.creates_in_flight_max);
        let problems = settings.problems();
        let sound = problems.is_empty();
        problems.into_iter().for_each(|problem| fields.problem(problem));
        sound.then_some(settings)
    }

    /// Every mistake that can be seen without asking anybody.
    pub fn problems(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        let mut rule = |holds: bool, path: &str, given: String, allowed: &str| {
            if !holds {
                problems.push(Problem::new(path, given, allowed));
            }
        };
        let quoted = |text: &str| kasm_autoscale_core::fields::shown(&Value::String(text.to_owned()));
        rule(is_region(&self.region), "region", quoted(&self.region), REGION_RULE);
        if let Some(url) = &self.endpoint_url {
            // A password in it is not shown.
            let given = if url.contains('@') { "an address with a user in it".to_owned() } else { quoted(url) };
            rule(is_safe_endpoint(url), "endpoint_url", given, ENDPOINT_RULE);
        }
        let is_static = matches!(self.credentials, AwsCredentials::Static { .. });
        let profile = self.profile.as_deref();
        let profile_fits = profile.is_none_or(|name| !name.is_empty() && !is_static);
        rule(
            profile_fits,
            "profile",
            quoted(profile.unwrap_or_default()),
            "a profile's name, and only without access keys",
        );
        if let AwsCredentials::Static { access_key_id, secret_access_key, session_token } = &self.credentials {
            let is_key = !access_key_id.is_empty()
                && access_key_id.len() <= 128
                && access_key_id.bytes().all(|b| b.is_ascii_alphanumeric());
            rule(
                is_key,
                "access_key_id",
                format!("{} characters", access_key_id.len()),
                "letters and digits, as in \"AKIA...\"",
            );
            let secret = secret_access_key.expose_secret();
            rule(!secret.is_empty(), "secret_access_key", "nothing".to_owned(), "the secret of the access key");
            let token = session_token.as_ref().map(ExposeSecret::expose_secret);
            rule(
                token.is_none_or(|token| !token.is_empty()),
                "session_token",
                "nothing".to_owned(),
                "a token, or no such field",
            );
        }
        rule(
            PAGE_SIZE.contains(&self.page_size.into()),
            "page_size",
            self.page_size.to_string(),
            "a whole number from 5 to 1000",
        );
        rule(
            CALL_TIMEOUT.contains(&self.call_timeout),
            "call_timeout",
            format!("{:?}", self.call_timeout),
            "1s to 10m",
        );
        let connects = CONNECT_TIMEOUT.contains(&self.connect_timeout) && self.connect_timeout <= self.call_timeout;
        rule(
            connects,
            "connect_timeout",
            format!("{:?}", self.connect_timeout),
            "100ms to 60s, and not more than call_timeout",
        );
        problems
    }

    /// The SDK's configuration. Reads the environment and files only for [`AwsCredentials::Chain`]; asks nobody yet.
    pub(super) async fn sdk_config(&self) -> Config {
        let mut builder = match &self.credentials {
            AwsCredentials::Static { access_key_id, secret_access_key, session_token } => {
                let token = session_token.as_ref().map(|token| token.expose_secret().to_owned());
                let secret = secret_access_key.expose_secret();
                let credentials = Credentials::new(access_key_id, secret, token, None, "kasm-autoscale settings");
                // Not by way of aws-config: what is not loaded cannot look for an instance's metadata.
                Builder::new().credentials_provider(credentials)
            }
            AwsCredentials::Chain => {
                let mut loader = aws_config::defaults(behavior()).region(Region::new(self.region.clone()));
                if let Some(profile) = &self.profile {
                    loader = loader.profile_name(profile);
                }
                Builder::from(&loader.load().await)
            }
        };
        // Set even when it is None: an endpoint in the environment would escape our check.
        builder.set_endpoint_url(self.endpoint_url.clone());
        builder
            .behavior_version(behavior())
            .region(Region::new(self.region.clone()))
            // The core decides when to try again, and whether: the SDK would repeat a launch for which there is no room.
            .retry_config(RetryConfig::disabled())
            .timeout_config(self.timeouts(self.call_timeout * 5 / 6))
            .build()
    }

    /// For the look-up that may come before a create: what the create itself leaves of the call's time.
    pub(super) fn brief_timeouts(&self) -> TimeoutConfig {
        self.timeouts(self.call_timeout / 6)
    }

    fn timeouts(&self, whole: Duration) -> TimeoutConfig {
        TimeoutConfig::builder()
            .connect_timeout(self.connect_timeout.min(whole))
            .operation_attempt_timeout(whole)
            .operation_timeout(whole)
            .build()
    }
}

impl fmt::Debug for AwsSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AwsSettings")
            .field("region", &self.region)
            .field("endpoint_url", &self.endpoint_url.as_deref().filter(|url| !url.contains('@')))
            .field("credentials", &self.credentials)
            .field("profile", &self.profile)
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

fn is_region(name: &str) -> bool {
    let part = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    name.len() <= 32 && name.split('-').count() >= 3 && name.split('-').all(part)
}

/// Whether requests to this address are encrypted, or never leave the machine.
fn is_safe_endpoint(url: &str) -> bool {
    let (is_https, rest) = match (url.strip_prefix("https://"), url.strip_prefix("http://")) {
        (Some(rest), _) => (true, rest),
        (None, Some(rest)) => (false, rest),
        (None, None) => return false,
    };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let is_odd = |c: char| c.is_whitespace() || c.is_control() || matches!(c, '@' | '\\' | '?' | '#');
    if authority.is_empty() || rest.contains(is_odd) {
        return false;
    }
    let host = match authority.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, _)) => host,
        None => authority.split(':').next().unwrap_or_default(),
    };
    let is_loopback = host == "localhost" || host.parse().is_ok_and(|address: IpAddr| address.is_loopback());
    !host.is_empty() && (is_https || is_loopback)
}

#[cfg(test)]
#[path = "settings_tests.rs"]
mod tests;
