//! The kinds of providers this daemon knows, and how one is made from its table in the config file.

use std::sync::Arc;

use kasm_autoscale_core::fields::Problem;
use kasm_autoscale_core::id::DeploymentId;
use kasm_autoscale_core::ports::VmProvider;
use kasm_providers::simulated::{SimulatedProvider, SimulatedSettings};

use crate::file::{ProviderConfig, ProviderKind};
use crate::secrets::Environment;

/// Makes a provider. It reads secrets, and asks nobody until its first call.
///
/// # Errors
/// Every mistake in its settings; paths start at the provider's table.
pub async fn build(
    config: &ProviderConfig,
    deployment: DeploymentId,
    environment: &Environment,
) -> Result<Arc<dyn VmProvider>, Vec<Problem>> {
    match config.kind {
        ProviderKind::Simulated => {
            Ok(Arc::new(SimulatedProvider::new(SimulatedSettings::from_json(&config.settings)?)))
        }
        #[cfg(feature = "aws")]
        ProviderKind::Aws => aws(config, deployment, environment).await,
        // The file's reader has refused it already.
        #[cfg(not(feature = "aws"))]
        ProviderKind::Aws => {
            let _ = (deployment, environment);
            Err(vec![Problem::new("kind", "\"aws\"", "this program was built without it")])
        }
        #[cfg(feature = "azure")]
        ProviderKind::Azure => azure(config, deployment, environment),
        #[cfg(not(feature = "azure"))]
        ProviderKind::Azure => Err(vec![Problem::new("kind", "\"azure\"", "this program was built without it")]),
    }
}

#[cfg(feature = "aws")]
async fn aws(
    config: &ProviderConfig,
    deployment: DeploymentId,
    environment: &Environment,
) -> Result<Arc<dyn VmProvider>, Vec<Problem>> {
    use kasm_autoscale_core::fields::Fields;
    use kasm_providers::aws::{AwsCredentials, AwsProvider, AwsSettings};

    let unreadable = |name: &str, error: crate::secrets::SecretError| {
        vec![Problem::new(format!("credentials.{name}"), error.to_string(), error.remedy())]
    };
    let credentials = match &config.credentials {
        None => AwsCredentials::Chain,
        Some(keys) => AwsCredentials::Static {
            access_key_id: keys.access_key_id.clone(),
            secret_access_key: keys
                .secret_access_key
                .resolve(environment)
                .map_err(|error| unreadable("secret_access_key", error))?,
            session_token: match &keys.session_token {
                Some(source) => Some(source.resolve(environment).map_err(|error| unreadable("session_token", error))?),
                None => None,
            },
        },
    };
    let mut fields = Fields::new(&config.settings);
    let settings = AwsSettings::read(&mut fields, credentials);
    let problems = fields.finish();
    match settings {
        Some(settings) if problems.is_empty() => Ok(Arc::new(AwsProvider::connect(settings, deployment).await?)),
        _ => Err(problems),
    }
}

#[cfg(feature = "azure")]
fn azure(
    config: &ProviderConfig,
    deployment: DeploymentId,
    environment: &Environment,
) -> Result<Arc<dyn VmProvider>, Vec<Problem>> {
    use kasm_autoscale_core::fields::Fields;
    use kasm_providers::azure::{AdminPassword, AzureCredentials, AzureProvider, AzureSettings};

    use crate::file::{AzureAccess, AzureIdentity};
    use crate::secrets::SecretSource;

    let read = |name: &str, source: &SecretSource| {
        let unreadable =
            |error: crate::secrets::SecretError| vec![Problem::new(name, error.to_string(), error.remedy())];
        source.resolve(environment).map_err(unreadable)
    };
    // The file's reader has refused a table without it already.
    let Some(AzureAccess { identity, admin_password, admin_password_key }) = &config.azure else {
        return Err(vec![Problem::new("credentials", "nothing", "required")]);
    };
    let credentials = match identity {
        AzureIdentity::ClientSecret { tenant_id, client_id, client_secret } => AzureCredentials::ClientSecret {
            tenant: tenant_id.clone(),
            client_id: client_id.clone(),
            client_secret: read("credentials.client_secret", client_secret)?,
        },
        AzureIdentity::ManagedIdentity { client_id } => {
            AzureCredentials::ManagedIdentity { client_id: client_id.clone() }
        }
        AzureIdentity::WorkloadIdentity { tenant_id, client_id, token_file } => AzureCredentials::WorkloadIdentity {
            tenant: tenant_id.clone(),
            client_id: client_id.clone(),
            token_file: token_file.clone(),
        },
        AzureIdentity::DeveloperTools => AzureCredentials::DeveloperTools,
    };
    let admin_password = match (admin_password, admin_password_key) {
        (Some(source), _) => Some(AdminPassword::Same(read("admin_password", source)?)),
        (None, Some(source)) => Some(AdminPassword::Derived(read("admin_password_key", source)?)),
        (None, None) => None,
    };
    let mut fields = Fields::new(&config.settings);
    let settings = AzureSettings::read(&mut fields, credentials, admin_password);
    let problems = fields.finish();
    match settings {
        Some(settings) if problems.is_empty() => Ok(Arc::new(AzureProvider::connect(settings, deployment)?)),
        _ => Err(problems),
    }
}
