//! The tables `[[pool]]` and `[[pool.config]]`.

use std::collections::{BTreeMap, BTreeSet};

use kasm_autoscale_core::config::{ConfigSpec, Invalid, PoolSpec};
use kasm_autoscale_core::fields::{Fields, JsonObject, Problem, nearest, shown};
use kasm_autoscale_core::id::{DeploymentId, PoolId, PoolName, SecretName};
use kasm_autoscale_core::ports::Secrets;
use serde_json::Value;

use super::document::End;
use super::ldap::DeclaredLdap;
use super::providers::DeclaredProviders;
use super::script::{SCRIPT, SCRIPT_FILE, Written};
use super::settings::{DeclaredSecrets, tables};
use super::{Checks, ConfigCheck, DeclaredPool, Loader, Place};
use crate::secrets::SecretStore;

/// What configs refer to.
pub(super) struct Declared<'a> {
    pub(super) providers: &'a DeclaredProviders,
    pub(super) ldap: &'a DeclaredLdap,
    pub(super) secrets: &'a DeclaredSecrets,
    pub(super) store: &'a SecretStore,
}

/// What configs have referred to.
#[derive(Default)]
struct Used {
    providers: BTreeSet<String>,
    ldap: BTreeSet<String>,
    secrets: BTreeSet<String>,
}

impl Loader<'_, '_> {
    pub(super) fn read_pools(
        &mut self,
        pools: &[Value],
        declared: &Declared<'_>,
        checks: &mut Checks<'_>,
    ) -> Vec<DeclaredPool> {
        let mut used = Used::default();
        let mut names = BTreeMap::new();
        let mut result = Vec::new();
        for (index, table) in pools.iter().enumerate() {
            let Some(object) = table.as_object() else { continue };
            let path = format!("pool[{index}]");
            self.unique(&mut names, &path, object, "pool");
            let mut settings = object.clone();
            settings.remove("config");
            let name = self.read_pool(&path, &mut settings);
            let (configs, config_places) = self.read_configs(&path, object, declared, &mut used, checks);
            result.extend(name.map(|name| DeclaredPool { name, settings, configs, config_places }));
        }
        self.warn_unused(declared, &used);
        result
    }

    fn read_pool(&mut self, path: &str, settings: &mut JsonObject) -> Option<PoolName> {
        self.misspelt(path, settings, "config", "[[pool.config]]");
        // Which installation and pool it will be does not matter for its settings.
        match PoolSpec::from_json(DeploymentId::from_bytes([0; 16]), PoolId::from_bytes([0; 16]), settings) {
            Ok(spec) => Some(spec.name),
            Err(Invalid { problems }) => {
                problems.into_iter().for_each(|problem| self.report.mistake(problem.below(path)));
                None
            }
        }
    }

    fn read_configs(
        &mut self,
        path: &str,
        pool: &JsonObject,
        declared: &Declared<'_>,
        used: &mut Used,
        checks: &mut Checks<'_>,
    ) -> (Vec<ConfigSpec>, Vec<Place>) {
        let mut fields = Fields::new(pool);
        let tables = tables(&mut fields, "config", "[[pool.config]]");
        for problem in fields.finish().into_iter().filter(|problem| problem.path.starts_with("config")) {
            // The pool's other fields have their own reader.
            if !problem.allowed.starts_with("no such field") {
                self.report.mistake(problem.below(path));
            }
        }
        if tables.is_empty() && !pool.contains_key("config") {
            self.report.warn(Problem::new(
                path,
                "no autoscale config",
                "the pool will have no servers; add a [[pool.config]]",
            ));
        }
        let mut names = BTreeMap::new();
        let mut configs = Vec::new();
        for (index, table) in tables.iter().enumerate() {
            let Some(object) = table.as_object() else { continue };
            let path = format!("{path}.config[{index}]");
            self.unique(&mut names, &path, object, "config of a pool");
            if let Some(config) = self.read_config(&path, object, declared, used, checks) {
                configs.push((config, self.document.place(&path, End::Value)));
            }
        }
        configs.into_iter().unzip()
    }

    fn read_config(
        &mut self,
        path: &str,
        object: &JsonObject,
        declared: &Declared<'_>,
        used: &mut Used,
        checks: &mut Checks<'_>,
    ) -> Option<ConfigSpec> {
        let before = self.report.count();
        self.check_references(path, object, declared, used);
        let mut object = object.clone();
        let script = self.read_script(path, &mut object);
        self.misspelt(path, &mut object, SCRIPT_FILE, SCRIPT_FILE);
        let spec = match ConfigSpec::from_json(&object) {
            Ok(spec) => spec,
            Err(Invalid { problems }) => {
                self.config_mistakes(path, problems, script.as_ref());
                return None;
            }
        };
        for problem in spec.warnings() {
            self.report.warn(problem.below(path));
        }
        if let Some(written) = &script {
            self.warn_of_syntax(written, &spec);
        }
        if self.report.count() == before
            && let Some(provider) = declared.providers.good.get(&spec.provider)
            && secret_of(&object)
                .is_none_or(|name| name.parse().is_ok_and(|name: SecretName| declared.store.secret(&name).is_some()))
            && spec.domain_join.as_ref().is_none_or(|join| declared.ldap.good.contains_key(&join.directory))
        {
            let check = ConfigCheck { spec: &spec, provider, ldap: &declared.ldap.good, secrets: declared.store };
            let problems = (checks.config)(&check);
            self.config_mistakes(path, problems, script.as_ref());
        }
        Some(spec)
    }

    fn config_mistakes(&mut self, path: &str, problems: Vec<Problem>, script: Option<&Written<'_>>) {
        for mut problem in problems {
            // The core speaks of JSON.
            problem.allowed = problem.allowed.replace("{\"secret\": NAME}", "{ secret = \"NAME\" }");
            match script.filter(|_| problem.path == SCRIPT) {
                Some(written) => self.script_mistake(written, problem),
                None => self.report.mistake(problem.below(path)),
            }
        }
    }

    /// Whether the provider and the secret that a config speaks of are declared. It looks at the fields as they stand, so
    /// that other mistakes in the config do not hide this one.
    fn check_references(&mut self, path: &str, object: &JsonObject, declared: &Declared<'_>, used: &mut Used) {
        if let Some(name) = object.get("provider").and_then(Value::as_str) {
            used.providers.insert(name.into());
            if !declared.providers.names.contains(name) {
                let allowed =
                    there_is("provider", &declared.providers.names, &format!("declare it as [provider.{name}]"));
                self.report.mistake(Problem::new(format!("{path}.provider"), shown(&name.into()), allowed));
            }
        }
        if let Some(name) = object.get("ad_directory").and_then(Value::as_str) {
            used.ldap.insert(name.into());
            if !declared.ldap.names.contains(name) {
                let allowed = there_is("LDAP config", &declared.ldap.names, &format!("declare it as [ldap.{name}]"));
                self.report.mistake(Problem::new(format!("{path}.ad_directory"), shown(&name.into()), allowed));
            }
        }
        if let Some(name) = secret_of(object).filter(|name| name.parse::<SecretName>().is_ok()) {
            used.secrets.insert(name.into());
            if !declared.secrets.names.contains(name) {
                let allowed = there_is("secret", &declared.secrets.names, "declare its place in the table [secrets]");
                // The value is not shown: somebody may have put a password where a secret's name belongs.
                self.report.mistake(Problem::new(
                    format!("{path}.connection_password.secret"),
                    "a name that is not declared (not shown)",
                    allowed,
                ));
            }
        }
    }

    /// Finds a field of ours that the core's reader of the same table does not know, so could not suggest.
    fn misspelt(&mut self, path: &str, object: &mut JsonObject, name: &'static str, shown_name: &str) {
        let wrong: Vec<String> =
            object.keys().filter(|key| *key != name && nearest(key, &[name]).is_some()).cloned().collect();
        for key in wrong {
            object.remove(&key);
            let allowed = format!("no such field; did you mean {shown_name}?");
            self.report.mistake(Problem::new(format!("{path}.{key}"), "a value (not shown)", allowed));
        }
    }

    fn warn_unused(&mut self, declared: &Declared<'_>, used: &Used) {
        for name in declared.providers.names.difference(&used.providers) {
            let advice =
                "no config uses it, so it is only kept an eye on; leave it there while machines made through it exist";
            self.report.warn(Problem::new(format!("provider.{name}"), "a provider without configs", advice));
        }
        for (name, config) in &declared.ldap.good {
            if config.settings.get("enabled") == Some(&Value::Bool(false)) && !used.ldap.contains(name.as_str()) {
                let advice = "users cannot log in with it and no config joins machines to its domain; leave it there while computer objects made through it exist";
                self.report.warn(Problem::new(format!("ldap.{name}"), "an LDAP config without a use", advice));
            }
        }
        for name in declared.secrets.names.difference(&used.secrets) {
            let advice = "no config in this file uses it; take it out unless a config made through the API does";
            self.report.warn(Problem::new(format!("secrets.{name}"), "a secret without configs", advice));
        }
    }

    #[cfg(feature = "script-check")]
    fn warn_of_syntax(&mut self, written: &Written<'_>, spec: &ConfigSpec) {
        use crate::syntax::{ADVICE, warnings_of};
        for warning in warnings_of(spec) {
            let place = written.place(warning.line, warning.column);
            self.report.warn_at(place, Problem::new(&written.path, warning.given(), ADVICE));
        }
    }

    /// Built without a grammar of PowerShell: scripts are not looked at.
    #[cfg(not(feature = "script-check"))]
    fn warn_of_syntax(&mut self, _: &Written<'_>, _: &ConfigSpec) {}
}

fn secret_of(config: &JsonObject) -> Option<&str> {
    config.get("connection_password")?.as_object()?.get("secret")?.as_str()
}

pub(super) fn there_is(what: &str, names: &BTreeSet<String>, otherwise: &str) -> String {
    if names.is_empty() {
        return format!("no {what} is declared; {otherwise}");
    }
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    format!("the {what}s declared here are {}; use one of them, or {otherwise}", names.join(", "))
}
