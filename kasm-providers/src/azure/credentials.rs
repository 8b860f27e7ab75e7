//! From the settings to the SDK's own pieces: who asks, and over which connection.

use std::fmt;
use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use azure_core::cloud::{CloudConfiguration, CustomConfiguration};
use azure_core::credentials::{AccessToken, Secret, TokenCredential, TokenRequestOptions};
use azure_core::http::policies::Policy;
use azure_core::http::policies::auth::BearerTokenAuthorizationPolicy;
use azure_core::http::{ClientOptions, Pipeline, RetryOptions, Transport, Url};
use azure_identity::{
    ClientAssertionCredentialOptions, ClientSecretCredential, ClientSecretCredentialOptions, DeveloperToolsCredential,
    ManagedIdentityCredential, ManagedIdentityCredentialOptions, UserAssignedId, WorkloadIdentityCredential,
    WorkloadIdentityCredentialOptions,
};
use kasm_autoscale_core::fields::{Problem, shown};
use secrecy::ExposeSecret;

use super::settings::{AzureCredentials, AzureSettings};

/// The way every request goes: a token, no retries, and our own limits of time. Asks nobody yet.
pub(super) fn pipeline(settings: &AzureSettings, endpoint: &Url) -> Result<(Pipeline, Arc<Renewable>), Vec<Problem>> {
    let options = client_options(settings, endpoint)?;
    let current = credential(settings, &options).map_err(|error| {
        vec![Problem::new("credentials", "something that the SDK does not take", error.to_string())]
    })?;
    let renewable = Renewable { settings: settings.clone(), options: options.clone(), current: Mutex::new(current) };
    let renewable = Arc::new(renewable);
    let credential: Arc<dyn TokenCredential> = Arc::<Renewable>::clone(&renewable);
    let token: Arc<dyn Policy> = Arc::new(BearerTokenAuthorizationPolicy::new(credential, [settings.scope()]));
    let (name, version) = (option_env!("CARGO_PKG_NAME"), option_env!("CARGO_PKG_VERSION"));
    Ok((Pipeline::new(name, version, options, Vec::new(), vec![token], None), renewable))
}

/// A credential that can be made to forget its token. The SDK's keep theirs until they expire, even when Azure has refused
/// them, as after a secret or a right was revoked.
pub(super) struct Renewable {
    settings: AzureSettings,
    options: ClientOptions,
    current: Mutex<Arc<dyn TokenCredential>>,
}

impl Renewable {
    /// The next token is fetched anew.
    pub(super) fn renew(&self) {
        // What was made once can be made again; if not, the old one stays.
        if let Ok(new) = credential(&self.settings, &self.options) {
            *self.current.lock().unwrap_or_else(PoisonError::into_inner) = new;
        }
    }
}

impl fmt::Debug for Renewable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Renewable")
    }
}

#[async_trait]
impl TokenCredential for Renewable {
    async fn get_token(
        &self,
        scopes: &[&str],
        options: Option<TokenRequestOptions<'_>>,
    ) -> azure_core::Result<AccessToken> {
        let current = Arc::clone(&self.current.lock().unwrap_or_else(PoisonError::into_inner));
        current.get_token(scopes, options).await
    }
}

fn client_options(settings: &AzureSettings, endpoint: &Url) -> Result<ClientOptions, Vec<Problem>> {
    let mut client = reqwest::Client::builder()
        .connect_timeout(settings.connect_timeout)
        .timeout(settings.request_timeout)
        // A token goes where it was meant to go and nowhere else.
        .redirect(reqwest::redirect::Policy::none());
    if is_loopback(endpoint) {
        client = client.no_proxy();
    }
    if let Some(file) = &settings.ca_file {
        let unusable =
            |allowed: String| vec![Problem::new("ca_file", shown(&file.display().to_string().into()), allowed)];
        let pem = fs::read(file).map_err(|error| unusable(format!("a file that can be read: {error}")))?;
        let certificates = reqwest::Certificate::from_pem_bundle(&pem).ok().filter(|all| !all.is_empty());
        let certificates = certificates.ok_or_else(|| unusable("a file of certificates in PEM".to_owned()))?;
        client = client.tls_certs_merge(certificates);
    }
    let client = client.build().map_err(|_| {
        vec![Problem::new("ca_file", "certificates that cannot be used", "certificates of authorities in PEM")]
    })?;
    let mut cloud = CustomConfiguration::default();
    cloud.authority_host = settings.authority();
    Ok(ClientOptions {
        // The core decides when to try again, and whether.
        retry: RetryOptions::none(),
        transport: Some(Transport::new(Arc::new(client))),
        cloud: Some(Arc::new(CloudConfiguration::from(cloud))),
        ..ClientOptions::default()
    })
}

fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    host == "localhost" || host.trim_matches(['[', ']']).parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback())
}

fn credential(settings: &AzureSettings, options: &ClientOptions) -> azure_core::Result<Arc<dyn TokenCredential>> {
    let client_options = options.clone();
    Ok(match &settings.credentials {
        AzureCredentials::ClientSecret { tenant, client_id, client_secret } => {
            let secret = Secret::new(client_secret.expose_secret().to_owned());
            let options = ClientSecretCredentialOptions { client_options };
            ClientSecretCredential::new(tenant, client_id.clone(), secret, Some(options))?
        }
        AzureCredentials::ManagedIdentity { client_id } => {
            let user_assigned_id = client_id.clone().map(UserAssignedId::ClientId);
            // The address of the identity is the machine's own, which no certificate of ours and no proxy concerns.
            let client = reqwest::Client::builder().no_proxy().timeout(settings.request_timeout).build();
            let client = client.map_err(|_| azure_core::error::ErrorKind::Other.into_error())?;
            let transport = Some(Transport::new(Arc::new(client)));
            let client_options = ClientOptions { retry: RetryOptions::none(), transport, ..ClientOptions::default() };
            let options = ManagedIdentityCredentialOptions { user_assigned_id, client_options };
            ManagedIdentityCredential::new(Some(options))?
        }
        AzureCredentials::WorkloadIdentity { tenant, client_id, token_file } => {
            let options = WorkloadIdentityCredentialOptions {
                credential_options: ClientAssertionCredentialOptions { client_options },
                client_id: client_id.clone(),
                tenant_id: tenant.clone(),
                token_file_path: token_file.as_ref().map(PathBuf::from),
            };
            WorkloadIdentityCredential::new(Some(options))?
        }
        AzureCredentials::DeveloperTools => DeveloperToolsCredential::new(None)?,
    })
}
