//! `check --online`: whether what the config file speaks of is there and may be used, before anything depends on it.

use std::collections::{BTreeMap, BTreeSet};

use kasm_autoscale_core::id::{DirectoryName, PoolId};
use kasm_autoscale_core::ports::{Directory, DirectoryError, DirectoryErrorKind, Finding};

use crate::file::DeclaredPool;

/// What was looked at, and what is wrong with it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Looked {
    /// What, as it stands in the config file: `ldap.corp`.
    pub at: String,
    /// What was done there, as in `makes and removes computer objects in OU=Computers,DC=corp,DC=example`.
    pub what: String,
    /// What is wrong; none: all is well.
    pub findings: Vec<Finding>,
}

/// One line for each finding, one for each look that found nothing, and whether there was no finding at all.
pub fn told(looks: &[Looked]) -> (Vec<String>, bool) {
    let mut lines = vec![];
    for look in looks {
        match look.findings.is_empty() {
            true => lines.push(format!("{}: ok: {}", look.at, look.what)),
            false => {
                lines.extend(look.findings.iter().map(|finding| one_line(&format!("{}: error: {finding}", look.at))))
            }
        }
    }
    (lines, looks.iter().all(|look| look.findings.is_empty()))
}

/// What others have written stays on its line.
fn one_line(text: &str) -> String {
    text.chars().flat_map(|c| if c.is_control() { c.escape_default().collect() } else { vec![c] }).collect()
}

/// The organisational units that autoscale configs want their computer objects in, by directory.
pub fn units(pools: &[DeclaredPool]) -> BTreeMap<DirectoryName, BTreeSet<String>> {
    let mut units: BTreeMap<DirectoryName, BTreeSet<String>> = BTreeMap::new();
    for join in pools.iter().flat_map(|pool| &pool.configs).filter_map(|config| config.domain_join.as_ref()) {
        units.entry(join.directory.clone()).or_default().insert(join.ou.clone());
    }
    units
}

/// Looks at one directory: whether it answers and knows our account, and whether that may do what it has to in each of
/// these units.
pub async fn directory(
    name: &DirectoryName,
    directory: &dyn Directory,
    units: Option<&BTreeSet<String>>,
) -> Vec<Looked> {
    let at = format!("ldap.{name}");
    // A search for what is not there: it connects, logs in and reads.
    let reached = directory.list_computers(&PoolId::from_bytes([0; 16])).await;
    let findings: Vec<Finding> = reached.err().iter().map(finding).collect();
    let reached = findings.is_empty();
    let mut looks = vec![Looked { at: at.clone(), what: "answers, and knows our account".into(), findings }];
    for ou in units.into_iter().flatten().filter(|_| reached) {
        let findings = directory.preflight(ou).await.unwrap_or_else(|error| vec![finding(&error)]);
        let what = format!("makes and removes computer objects in {ou}");
        looks.push(Looked { at: at.clone(), what, findings });
    }
    looks
}

fn finding(error: &DirectoryError) -> Finding {
    let remedy = match error.kind {
        DirectoryErrorKind::Denied => "mend bind_dn and bind_password, or give the account its rights",
        DirectoryErrorKind::Invalid => "mend the settings of the LDAP config",
        DirectoryErrorKind::Transient | DirectoryErrorKind::Throttled => {
            "see that url is right, that the domain controller runs and can be reached, and that ca_file vouches for it"
        }
        _ => "see what the directory says",
    };
    Finding { subject: error.code.clone(), problem: error.message.clone(), remedy: remedy.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_finding_is_a_line_and_so_is_what_is_well() {
        let finding = |problem: &str| Finding { subject: "s".into(), problem: problem.into(), remedy: "r".into() };
        let look = |at: &str, findings| Looked { at: at.into(), what: "answers".into(), findings };
        let (lines, sound) = told(&[look("ldap.a", vec![]), look("ldap.b", vec![finding("p\nq"), finding("x")])]);
        assert_eq!(lines, ["ldap.a: ok: answers", "ldap.b: error: s: p\\nq; r", "ldap.b: error: s: x; r"]);
        assert!(!sound);
        assert!(told(&[look("ldap.a", vec![])]).1);
    }
}
