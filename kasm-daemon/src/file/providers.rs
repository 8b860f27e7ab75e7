//! The tables `[provider.NAME]`.

use std::collections::{BTreeMap, BTreeSet};

use kasm_autoscale_core::fields::{Fields, JsonObject, Problem};
use kasm_autoscale_core::id::ProviderName;
use serde_json::Value;

use super::document::End;
use super::{AwsKeys, Checks, Loader, ProviderConfig, ProviderKind};

/// The table `[provider]`.
#[derive(Default)]
pub(super) struct DeclaredProviders {
    /// Those without mistakes.
    pub(super) good: BTreeMap<ProviderName, ProviderConfig>,
    /// All that are named, so that one with a mistake does not count as missing too.
    pub(super) names: BTreeSet<String>,
}

impl Loader<'_, '_> {
    pub(super) fn read_providers(&mut self, object: Option<&JsonObject>, checks: &mut Checks<'_>) -> DeclaredProviders {
        let mut declared = DeclaredProviders::default();
        for (key, value) in object.into_iter().flatten() {
            let path = format!("provider.{key}");
            declared.names.insert(key.clone());
            let before = self.report.count();
            let Ok(name) = key
                .parse::<ProviderName>()
                .map_err(|error| self.report.mistake(Problem::new(&path, "a name that is not allowed", error.allowed)))
            else {
                continue;
            };
            let Some(object) = value.as_object() else {
                let allowed = "a table for each provider: [provider.NAME] with the field kind";
                self.report.mistake(Problem::new(&path, "no table", allowed));
                continue;
            };
            let Some(provider) = self.read_provider(&path, object) else { continue };
            if self.report.count() == before {
                let problems = (checks.provider)(&name, &provider);
                problems.into_iter().for_each(|problem| self.report.mistake(problem.below(&path)));
            }
            if self.report.count() == before {
                declared.good.insert(name, provider);
            }
        }
        declared
    }

    fn read_provider(&mut self, path: &str, object: &JsonObject) -> Option<ProviderConfig> {
        let mut settings = object.clone();
        settings.remove("kind");
        let mut fields = Fields::new(object);
        let kind = fields.choice("kind", &ProviderKind::CHOICES);
        let kind = fields.require("kind", kind, "\"aws\", \"azure\" or \"simulated\"");
        // The other fields are the kind's own, which nobody knows here.
        for problem in fields.finish().into_iter().filter(|problem| problem.path == "kind") {
            self.report.mistake(problem.below(path));
        }
        let kind = kind?;
        if !self.surroundings.kinds.contains(&kind) {
            let feature = kind.as_str();
            let allowed = format!(
                "this program was built without it; build it with `cargo build --release -p kasm-daemon --features {feature}`"
            );
            self.report.mistake(Problem::new(format!("{path}.kind"), format!("\"{feature}\""), allowed));
            return None;
        }
        let credentials = match kind {
            ProviderKind::Aws => settings
                .remove("credentials")
                .and_then(|value| self.read_credentials(&format!("{path}.credentials"), &value)),
            ProviderKind::Azure | ProviderKind::Simulated => None,
        };
        let azure = if kind == ProviderKind::Azure { Some(self.read_azure(path, &mut settings)?) } else { None };
        Some(ProviderConfig { place: self.document.place(path, End::Value), kind, settings, credentials, azure })
    }

    fn read_credentials(&mut self, path: &str, value: &Value) -> Option<AwsKeys> {
        if value.as_str() == Some("chain") {
            return None;
        }
        let Some(object) = value.as_object() else {
            let allowed = "\"chain\" (environment, profile, web identity, container, instance, as the AWS tools look for them), or a table with \
                           access_key_id and secret_access_key";
            self.report.mistake(Problem::new(path, "something else (not shown)", allowed));
            return None;
        };
        let mut fields = Fields::new(object);
        let id = fields.text("access_key_id").filter(|id| !id.is_empty());
        let id = fields.require("access_key_id", id, "the id of the key, as in \"AKIA...\"");
        let secret = fields.value("secret_access_key");
        let secret =
            fields.require("secret_access_key", secret, "where it is kept, as in { env = \"AWS_SECRET_ACCESS_KEY\" }");
        let token = fields.value("session_token");
        self.finish(fields, path);
        let secret = secret.and_then(|value| self.read_kept(&format!("{path}.secret_access_key"), value));
        let session_token = token.and_then(|value| self.read_kept(&format!("{path}.session_token"), value));
        Some(AwsKeys { access_key_id: id?, secret_access_key: secret?, session_token })
    }
}
