//! The tables `[ldap.NAME]`.

use std::collections::{BTreeMap, BTreeSet};

use kasm_autoscale_core::fields::{JsonObject, Problem};
use kasm_autoscale_core::id::DirectoryName;
use serde_json::Value;

use super::document::End;
use super::{Checks, LdapConfig, Loader};

/// The table `[ldap]`.
#[derive(Default)]
pub(super) struct DeclaredLdap {
    /// Those without mistakes.
    pub(super) good: BTreeMap<DirectoryName, LdapConfig>,
    /// All that are named, so that one with a mistake does not count as missing too.
    pub(super) names: BTreeSet<String>,
}

impl Loader<'_, '_> {
    pub(super) fn read_ldap(&mut self, object: Option<&JsonObject>, checks: &mut Checks<'_>) -> DeclaredLdap {
        let mut declared = DeclaredLdap::default();
        for (key, value) in object.into_iter().flatten() {
            let path = format!("ldap.{key}");
            declared.names.insert(key.clone());
            let before = self.report.count();
            let Ok(name) = key
                .parse::<DirectoryName>()
                .map_err(|error| self.report.mistake(Problem::new(&path, "a name that is not allowed", error.allowed)))
            else {
                continue;
            };
            let Some(object) = value.as_object() else {
                let allowed =
                    "a table for each LDAP config: [ldap.NAME] with url, bind_dn, bind_password and search_base";
                self.report.mistake(Problem::new(&path, "no table", allowed));
                continue;
            };
            let config = self.read_ldap_config(&path, object);
            // The other mistakes are told even if the password cannot be read.
            let problems =
                (checks.ldap)(&name, &config.clone().unwrap_or_else(|| self.without_password(&path, object)));
            for problem in problems.into_iter().filter(|problem| config.is_some() || problem.path != "bind_password") {
                self.report.mistake(problem.below(&path));
            }
            if let Some(config) = config.filter(|_| self.report.count() == before) {
                declared.good.insert(name, config);
            }
        }
        declared
    }

    fn read_ldap_config(&mut self, path: &str, object: &JsonObject) -> Option<LdapConfig> {
        let config = self.without_password(path, object);
        let at = format!("{path}.bind_password");
        let Some(value) = object.get("bind_password") else {
            let allowed = "required: where the password of bind_dn is kept, as in { file = \"ldap.password\" }";
            self.report.mistake(Problem::new(at, "nothing", allowed));
            return None;
        };
        let before = self.report.count();
        let bind_password = self.read_kept(&at, value)?;
        (self.report.count() == before).then_some(LdapConfig { bind_password, ..config })
    }

    /// The table as kasm-ad reads it: paths start at the folder of the file there too.
    fn without_password(&self, path: &str, object: &JsonObject) -> LdapConfig {
        let mut settings = object.clone();
        settings.remove("bind_password");
        if let Some(Value::String(file)) = settings.get_mut("ca_file").filter(|value| value.as_str() != Some("")) {
            *file = self.folder.join(&*file).display().to_string();
        }
        let place = self.document.place(path, End::Value);
        LdapConfig { place, settings, bind_password: crate::secrets::SecretSource::Env("(none)".into()) }
    }
}
