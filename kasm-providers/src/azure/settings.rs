//! The settings of a provider: where Azure is, who asks, and how long to wait.

use std::fmt;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use azure_core::http::Url;
use kasm_autoscale_core::fields::{Fields, Problem, shown};
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;

/// Who asks.
#[derive(Clone, Debug)]
pub enum AzureCredentials {
    /// An application with a client secret.
    ClientSecret {
        /// The tenant of Microsoft Entra ID: its id or domain.
        tenant: String,
        /// The application's id. Not a secret.
        client_id: String,
        /// Its secret.
        client_secret: SecretString,
    },
    /// The identity that Azure gives to the machine or service on which this program runs.
    ManagedIdentity {
        /// Which one, where there are several; `None`: the machine's own.
        client_id: Option<String>,
    },
    /// A token that Kubernetes writes into a file. What is not said comes from `AZURE_TENANT_ID`, `AZURE_CLIENT_ID` and
    /// `AZURE_FEDERATED_TOKEN_FILE`.
    WorkloadIdentity {
        /// The tenant.
        tenant: Option<String>,
        /// The application's id.
        client_id: Option<String>,
        /// The file with the token.
        token_file: Option<PathBuf>,
    },
    /// Whoever is signed in with the tools `az` or `azd`. For trying things out.
    DeveloperTools,
}

/// How machines with Windows get the password of their administrator, without which Azure makes none. It is never stored:
/// the same one is found again for each try.
#[derive(Clone, Debug)]
pub enum AdminPassword {
    /// All machines get this one.
    Same(SecretString),
    /// Each machine gets one of its own, derived from this key, which nobody needs to know.
    Derived(SecretString),
}

/// Which of Azure's separate worlds.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum AzureCloud {
    /// The public one.
    Public,
    /// Azure Government of the United States.
    UsGovernment,
    /// Azure in China, operated by 21Vianet.
    China,
}

impl AzureCloud {
    const CHOICES: [(&'static str, Self); 3] =
        [("public", Self::Public), ("us_government", Self::UsGovernment), ("china", Self::China)];

    /// Where tokens are had, and where Azure Resource Manager is (Azure, "National clouds").
    const fn addresses(self) -> (&'static str, &'static str) {
        match self {
            Self::Public => ("https://login.microsoftonline.com", "https://management.azure.com"),
            Self::UsGovernment => ("https://login.microsoftonline.us", "https://management.usgovcloudapi.net"),
            Self::China => ("https://login.chinacloudapi.cn", "https://management.chinacloudapi.cn"),
        }
    }
}

/// Which of a machine's addresses its sessions use.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum AddressChoice {
    /// The private IPv4 address.
    Private,
    /// The public IPv4 address.
    Public,
}

/// The settings of one Azure provider: one resource group in one region.
#[derive(Clone)]
pub struct AzureSettings {
    /// The id of the subscription.
    pub subscription: String,
    /// The resource group in which machines are made.
    pub resource_group: String,
    /// The region, as in `westeurope`.
    pub region: String,
    /// Which of Azure's worlds.
    pub cloud: AzureCloud,
    /// Another authority than the cloud's own, as in `https://login.example.com`.
    pub authority: Option<String>,
    /// Another address of Azure Resource Manager than the cloud's own: a private link, Azure Stack Hub, or a stand-in.
    pub endpoint_url: Option<String>,
    /// What tokens are asked for; `None`: Azure Resource Manager of the cloud.
    pub audience: Option<String>,
    /// Certificates of authorities to trust besides the system's, in PEM: of a proxy that looks into TLS, or of a stand-in.
    pub ca_file: Option<PathBuf>,
    /// Who asks.
    pub credentials: AzureCredentials,
    /// The password of administrators; needed for configs with Windows.
    pub admin_password: Option<AdminPassword>,
    /// Which address of a machine is reported.
    pub address: AddressChoice,
    /// How long a connection may take to be made.
    pub connect_timeout: Duration,
    /// How long one request may take, the token for it included.
    pub request_timeout: Duration,
    /// How long a create, look-up, list or delete may take in all.
    pub call_timeout: Duration,
    /// How long a machine may be missing from answers although it exists. Azure Resource Manager keeps copies in its
    /// regions, which are seconds behind.
    pub visibility_lag: Duration,
    /// How often machines are listed while something is expected to change.
    pub poll_busy: Duration,
    /// How often they are listed while nothing is.
    pub poll_idle: Duration,
    /// How old the power states in a list may be. They are not part of it: they are read for the whole subscription, which
    /// costs a call of its own that Azure allows about every three seconds.
    pub power_states_age: Duration,
    /// Creates under way at once, per config.
    pub creates_in_flight_max: u32,
}

const CONNECT_TIMEOUT: RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(60);
const CALL_TIMEOUT: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(600);
const LAG: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(3600);
const POLL: RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(3600);
const CREATES_IN_FLIGHT: RangeInclusive<u64> = 1..=1000;
const SUBSCRIPTION_RULE: &str =
    "the id of a subscription, as in \"00000000-0000-0000-0000-000000000000\" (az account show)";
const GROUP_RULE: &str = "the name of a resource group: 1 to 90 letters, digits and -_.(), the last one no dot";
const REGION_RULE: &str = "the short name of a region, as in \"westeurope\" (az account list-locations)";
const URL_RULE: &str = "https://host[:port], without a path or a user: tokens are sent there";
const TENANT_RULE: &str = "the id or the domain of a tenant";
const CLIENT_RULE: &str = "the id of an application (client), a uuid";

impl AzureSettings {
    /// The settings for a resource group and region, all others as they are by default.
    pub fn new(
        subscription: impl Into<String>,
        resource_group: impl Into<String>,
        region: impl Into<String>,
        credentials: AzureCredentials,
    ) -> Self {
        Self {
            subscription: subscription.into(),
            resource_group: resource_group.into(),
            region: region.into(),
            cloud: AzureCloud::Public,
            authority: None,
            endpoint_url: None,
            audience: None,
            ca_file: None,
            credentials,
            admin_password: None,
            address: AddressChoice::Private,
            connect_timeout: Duration::from_secs(5),
            request_timeout: Duration::from_secs(25),
            call_timeout: Duration::from_secs(60),
            visibility_lag: Duration::from_secs(120),
            poll_busy: Duration::from_secs(10),
            poll_idle: Duration::from_secs(60),
            power_states_age: Duration::from_secs(60),
            creates_in_flight_max: 20,
        }
    }

    /// Reads the fields `subscription`, `resource_group`, `region`, `cloud` (`public`, `us_government` or `china`),
    /// `authority`, `endpoint_url`, `audience`, `ca_file`, `address` (`private` or `public`), `connect_timeout`,
    /// `request_timeout`, `call_timeout`, `visibility_lag`, `poll_busy`, `poll_idle`, `power_states_age` and
    /// `creates_in_flight_max`. The caller brings what is secret, since only it knows where secrets are kept, and calls
    /// [`Fields::finish`].
    pub fn read(
        fields: &mut Fields<'_>,
        credentials: AzureCredentials,
        admin_password: Option<AdminPassword>,
    ) -> Option<Self> {
        let subscription = fields.text("subscription");
        let subscription = fields.require("subscription", subscription, SUBSCRIPTION_RULE);
        let group = fields.text("resource_group");
        let group = fields.require("resource_group", group, GROUP_RULE);
        let region = fields.text("region");
        let region = fields.require("region", region, REGION_RULE);
        let mut settings = Self::new(
            subscription.clone().unwrap_or_default(),
            group.clone().unwrap_or_default(),
            region.clone().unwrap_or_default(),
            credentials,
        );
        settings.admin_password = admin_password;
        settings.cloud = fields.choice("cloud", &AzureCloud::CHOICES).unwrap_or(settings.cloud);
        settings.authority = fields.text("authority");
        settings.endpoint_url = fields.text("endpoint_url");
        settings.audience = fields.text("audience");
        settings.ca_file = fields.text("ca_file").map(PathBuf::from);
        let choices = [("private", AddressChoice::Private), ("public", AddressChoice::Public)];
        settings.address = fields.choice("address", &choices).unwrap_or(settings.address);
        let mut span = |name, bounds, value: &mut Duration| *value = fields.span(name, bounds).unwrap_or(*value);
        span("connect_timeout", CONNECT_TIMEOUT, &mut settings.connect_timeout);
        span("request_timeout", CALL_TIMEOUT, &mut settings.request_timeout);
        span("call_timeout", CALL_TIMEOUT, &mut settings.call_timeout);
        span("visibility_lag", LAG, &mut settings.visibility_lag);
        span("poll_busy", POLL, &mut settings.poll_busy);
        span("poll_idle", POLL, &mut settings.poll_idle);
        span("power_states_age", LAG, &mut settings.power_states_age);
        let creates = fields.integer("creates_in_flight_max", CREATES_IN_FLIGHT);
        settings.creates_in_flight_max = creates.unwrap_or(settings.creates_in_flight_max);
        // What is missing has been said, and is not a second mistake.
        let missing = [("subscription", &subscription), ("resource_group", &group), ("region", &region)];
        let is_missing = |path: &str| missing.iter().any(|(name, value)| *name == path && value.is_none());
        let problems: Vec<Problem> =
            settings.problems().into_iter().filter(|problem| !is_missing(&problem.path)).collect();
        let sound = problems.is_empty();
        problems.into_iter().for_each(|problem| fields.problem(problem));
        (sound && missing.iter().all(|(_, value)| value.is_some())).then_some(settings)
    }

    /// Every mistake that can be seen without asking anybody.
    pub fn problems(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        let mut rule = |holds: bool, path: &str, given: String, allowed: &str| {
            if !holds {
                problems.push(Problem::new(path, given, allowed));
            }
        };
        let quoted = |text: &str| shown(&Value::String(text.to_owned()));
        rule(is_uuid(&self.subscription), "subscription", quoted(&self.subscription), SUBSCRIPTION_RULE);
        rule(is_group(&self.resource_group), "resource_group", quoted(&self.resource_group), GROUP_RULE);
        rule(is_region(&self.region), "region", quoted(&self.region), REGION_RULE);
        for (path, url) in [("authority", &self.authority), ("endpoint_url", &self.endpoint_url)] {
            let Some(url) = url else { continue };
            // A password in it is not shown.
            let given = if url.contains('@') { "an address with a user in it".to_owned() } else { quoted(url) };
            rule(base_url(url).is_some(), path, given, URL_RULE);
        }
        if let Some(audience) = &self.audience {
            // The tools of developers get it on a command line.
            let plain = |b: u8| b.is_ascii_alphanumeric() || b":/.-_".contains(&b);
            let fits = Url::parse(audience).is_ok() && audience.bytes().all(plain);
            rule(fits, "audience", quoted(audience), "as in \"https://management.azure.com\"");
        }
        if let Some(file) = &self.ca_file {
            let given = quoted(&file.display().to_string());
            rule(file.is_absolute(), "ca_file", given, "the absolute path of a file of certificates in PEM");
        }
        let span = |span: Duration| format!("{span:?}");
        let CallTimes { connect, request, call } = self.times();
        let in_order = connect <= request && request <= call;
        let times =
            "connect_timeout (at most 60s) is not more than request_timeout, nor that than call_timeout (at most 10m)";
        let fits = CONNECT_TIMEOUT.contains(&connect) && CALL_TIMEOUT.contains(&call) && in_order;
        rule(fits, "call_timeout", format!("{}, {}, {}", span(connect), span(request), span(call)), times);
        problems.extend(self.problems_of_secrets());
        problems
    }

    fn problems_of_secrets(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        let mut rule = |holds: bool, path: &str, given: &str, allowed: &str| {
            if !holds {
                problems.push(Problem::new(path, given, allowed));
            }
        };
        let is_client = |id: &Option<String>| id.as_deref().is_none_or(is_uuid);
        match &self.credentials {
            AzureCredentials::ClientSecret { tenant, client_id, client_secret } => {
                rule(is_tenant(tenant), "tenant_id", "something else", TENANT_RULE);
                rule(is_uuid(client_id), "client_id", "something else", CLIENT_RULE);
                let secret = client_secret.expose_secret();
                rule(!secret.is_empty(), "client_secret", "nothing", "the secret of the application");
            }
            AzureCredentials::ManagedIdentity { client_id } => {
                rule(is_client(client_id), "client_id", "something else", CLIENT_RULE);
            }
            AzureCredentials::WorkloadIdentity { tenant, client_id, token_file: _ } => {
                rule(tenant.as_deref().is_none_or(is_tenant), "tenant_id", "something else", TENANT_RULE);
                rule(is_client(client_id), "client_id", "something else", CLIENT_RULE);
            }
            AzureCredentials::DeveloperTools => (),
        }
        match &self.admin_password {
            Some(AdminPassword::Same(password)) => {
                let given = format!("{} characters", password.expose_secret().chars().count());
                let allowed =
                    "8 to 123 characters, with three of: a capital, a small letter, a digit, another character";
                rule(is_admin_password(password.expose_secret()), "admin_password", &given, allowed);
            }
            Some(AdminPassword::Derived(key)) => {
                let long = key.expose_secret().len() >= 16;
                rule(long, "admin_password_key", "fewer than 16 bytes", "at least 16 bytes that nobody can guess");
            }
            None => (),
        }
        problems
    }

    /// Where tokens are had.
    pub(super) fn authority(&self) -> String {
        self.authority.clone().unwrap_or_else(|| self.cloud.addresses().0.to_owned())
    }

    /// Where Azure Resource Manager is. Without a mistake in [`problems`](Self::problems) there is one.
    pub(super) fn endpoint(&self) -> Option<Url> {
        base_url(self.endpoint_url.as_deref().unwrap_or(self.cloud.addresses().1))
    }

    /// What tokens are asked for.
    pub(super) fn scope(&self) -> String {
        let audience = self.audience.as_deref().unwrap_or(self.cloud.addresses().1);
        format!("{}/.default", audience.trim_end_matches('/'))
    }

    fn times(&self) -> CallTimes {
        CallTimes { connect: self.connect_timeout, request: self.request_timeout, call: self.call_timeout }
    }
}

struct CallTimes {
    connect: Duration,
    request: Duration,
    call: Duration,
}

impl fmt::Debug for AzureSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AzureSettings")
            .field("subscription", &self.subscription)
            .field("resource_group", &self.resource_group)
            .field("region", &self.region)
            .field("cloud", &self.cloud)
            .field("endpoint_url", &self.endpoint_url.as_deref().filter(|url| !url.contains('@')))
            .field("credentials", &self.credentials)
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

/// The address of a service, if it is encrypted and nothing but an address.
fn base_url(text: &str) -> Option<Url> {
    let url = Url::parse(text).ok()?;
    let bare =
        url.username().is_empty() && url.password().is_none() && url.query().is_none() && url.fragment().is_none();
    (url.scheme() == "https" && url.has_host() && bare && url.path() == "/").then_some(url)
}

pub(super) fn is_uuid(text: &str) -> bool {
    let fits = |(index, byte): (usize, u8)| match index {
        8 | 13 | 18 | 23 => byte == b'-',
        _ => byte.is_ascii_hexdigit(),
    };
    text.len() == 36 && text.bytes().enumerate().all(fits)
}

fn is_tenant(text: &str) -> bool {
    (1..=255).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.'))
}

fn is_group(text: &str) -> bool {
    let allowed = |c: char| c.is_alphanumeric() || "-_.()".contains(c);
    (1..=90).contains(&text.chars().count()) && text.chars().all(allowed) && !text.ends_with('.')
}

fn is_region(text: &str) -> bool {
    (1..=64).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
}

/// Azure's rule for passwords of administrators (Compute API, OSProfile, `adminPassword`).
fn is_admin_password(text: &str) -> bool {
    let classes = [
        text.chars().any(char::is_uppercase),
        text.chars().any(char::is_lowercase),
        text.chars().any(char::is_numeric),
        text.chars().any(|c| !c.is_alphanumeric()),
    ];
    (8..=123).contains(&text.chars().count()) && classes.iter().filter(|has| **has).count() >= 3
}

#[cfg(test)]
#[path = "settings_tests.rs"]
mod tests;
