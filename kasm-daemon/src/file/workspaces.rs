//! The tables `[[workspaces]]`.

use std::collections::{BTreeMap, BTreeSet};

use kasm_autoscale_core::fields::{Problem, shown};
use serde_json::Value;

use super::ldap::DeclaredLdap;
use super::pools::there_is;
use super::{LdapConfig, Loader};
use crate::workspaces::Workspace;

impl Loader<'_, '_> {
    /// Reads them. What they refer to is looked for as it stands, so that a mistake elsewhere does not make one here.
    pub(super) fn read_workspaces(&mut self, tables: &[Value], pools: &[Value], ldap: &DeclaredLdap) -> Vec<Workspace> {
        let names_of_pools: BTreeSet<String> =
            pools.iter().filter_map(|pool| pool.get("name")?.as_str()).map(ToOwned::to_owned).collect();
        let mut names = BTreeMap::new();
        let mut workspaces = vec![];
        for (index, table) in tables.iter().enumerate() {
            let Some(object) = table.as_object() else { continue };
            let path = format!("workspaces[{index}]");
            self.unique(&mut names, &path, object, "workspace");
            if let Some(pool) =
                object.get("pool").and_then(Value::as_str).filter(|pool| !names_of_pools.contains(*pool))
            {
                let otherwise =
                    "declare it as [[pool]]; a workspace of a pool that is made through the API is made there too";
                let allowed = there_is("pool", &names_of_pools, otherwise);
                self.report.mistake(Problem::new(format!("{path}.pool"), shown(&pool.into()), allowed));
            }
            for (at, name) in object.get("ldap").and_then(Value::as_array).into_iter().flatten().enumerate() {
                let Some(name) = name.as_str().filter(|name| !ldap.names.contains(*name)) else { continue };
                let allowed = there_is("LDAP config", &ldap.names, "declare it as [ldap.NAME]");
                self.report.mistake(Problem::new(format!("{path}.ldap[{at}]"), shown(&name.into()), allowed));
            }
            match Workspace::from_json(object) {
                Ok(workspace) => workspaces.push(workspace),
                Err(problems) => problems.into_iter().for_each(|problem| self.report.mistake(problem.below(&path))),
            }
        }
        let logs_in = |config: &LdapConfig| config.settings.get("enabled") != Some(&Value::Bool(false));
        if !tables.is_empty() && ldap.names.len() == ldap.good.len() && !ldap.good.values().any(logs_in) {
            let advice = "no LDAP config is enabled, so nobody can log in to launch one; declare an [ldap.NAME]";
            self.report.warn(Problem::new("workspaces", "workspaces without users", advice));
        }
        workspaces
    }
}
