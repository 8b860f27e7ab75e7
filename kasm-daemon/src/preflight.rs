//! `check --online`: whether what the config file speaks of is there and may be used, before anything depends on it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use kasm_autoscale_core::fields::{JsonObject, Problem};
use kasm_autoscale_core::id::{DirectoryName, PoolId, ProviderName};
use kasm_autoscale_core::ports::{
    Directory, DirectoryError, DirectoryErrorKind, ErrorKind, Finding, ProviderError, Providers, VmProvider,
};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::file::{DeclaredPool, ProviderConfig};
use crate::host::Registry;

/// How many providers are asked at once.
const AT_ONCE: usize = 8;

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

impl Looked {
    /// For what was right when the file was read, and is not any more.
    pub fn broken(at: String, problems: &[Problem]) -> Self {
        let finding = |problem: &Problem| Finding {
            subject: problem.path.clone(),
            problem: problem.given.clone(),
            remedy: problem.allowed.clone(),
        };
        Self { at, what: String::new(), findings: problems.iter().map(finding).collect() }
    }
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

/// One question to a provider.
struct Question {
    provider: Arc<dyn VmProvider>,
    /// Settings of machines to ask about; without them only whether it answers at all.
    machine: Option<JsonObject>,
}

impl Question {
    /// The answer as findings, within twice the time that one call may take: a preflight is several calls.
    async fn findings(self) -> Vec<Finding> {
        let limit = self.provider.describe().call_timeout * 2;
        let answer = async {
            match &self.machine {
                Some(machine) => self.provider.preflight(machine).await,
                // What is not there; it connects, signs in and reads.
                None => self.provider.list(&PoolId::from_bytes([0; 16])).await.map(|_| vec![]),
            }
        };
        match timeout(limit, answer).await {
            Ok(answer) => answer.unwrap_or_else(|error| vec![provider_finding(&error)]),
            Err(_) => vec![Finding {
                subject: "time".into(),
                problem: format!("no answer within {limit:?}"),
                remedy: "see that the provider can be reached from here, or raise its call_timeout".into(),
            }],
        }
    }
}

/// Asks the provider of every autoscale config whether machines with its settings could be made now, and providers without
/// configs whether they answer. Not more than a few at once; the looks come in the order of the file.
pub async fn providers(
    pools: &[DeclaredPool],
    declared: &BTreeMap<ProviderName, ProviderConfig>,
    providers: &Registry,
) -> Vec<Looked> {
    let mut questions = vec![];
    let mut used = BTreeSet::new();
    for pool in pools {
        for (index, config) in pool.configs.iter().enumerate() {
            let Some(provider) = providers.provider(&config.provider) else { continue };
            used.insert(&config.provider);
            let place = pool.config_places.get(index).map(|place| format!("{place}: ")).unwrap_or_default();
            let at = format!("{place}pool {}, config {}", pool.name, config.name);
            let what = format!("provider {} could make its machines now", config.provider);
            questions.push((at, what, Question { provider, machine: Some(config.machine.clone()) }));
        }
    }
    for (name, config) in declared.iter().filter(|(name, _)| !used.contains(name)) {
        let Some(provider) = providers.provider(name) else { continue };
        let at = format!("{}: provider.{name}", config.place);
        questions.push((at, "answers".into(), Question { provider, machine: None }));
    }
    ask_all(questions).await
}

async fn ask_all(questions: Vec<(String, String, Question)>) -> Vec<Looked> {
    let room = Arc::new(Semaphore::new(AT_ONCE));
    let mut tasks = JoinSet::new();
    let mut looks = vec![];
    for (index, (at, what, question)) in questions.into_iter().enumerate() {
        // What breaks off must not look as if all were well.
        let broken = Finding {
            subject: "this check".into(),
            problem: "it broke off".into(),
            remedy: "report it as a mistake of kasm-daemon".into(),
        };
        looks.push(Looked { at, what, findings: vec![broken] });
        let room = room.clone();
        tasks.spawn(async move {
            let _seat = room.acquire_owned().await;
            (index, question.findings().await)
        });
    }
    while let Some(ended) = tasks.join_next().await {
        if let Ok((index, findings)) = ended {
            looks[index].findings = findings;
        }
    }
    looks
}

fn provider_finding(error: &ProviderError) -> Finding {
    let remedy = match error.kind {
        ErrorKind::Denied => "give the provider credentials that are valid and may do this",
        ErrorKind::Invalid => "mend the machine settings",
        ErrorKind::Throttled => "try again in a while; others use up the calls of this account",
        ErrorKind::Transient => "see that the provider can be reached from here, and try again",
        _ => "see what the provider says",
    };
    Finding { subject: error.code.clone(), problem: error.message.clone(), remedy: remedy.into() }
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
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use async_trait::async_trait;
    use kasm_autoscale_core::id::ServerKey;
    use kasm_autoscale_core::ports::{Capabilities, Listing, Machine, MachineRef, OpRef, Progress, ServerSpec};

    use super::*;

    /// A provider that takes its time, and counts how many others do at the same moment.
    struct Slow {
        sleep: Duration,
        busy: Arc<AtomicUsize>,
        most: Arc<AtomicUsize>,
        panics: bool,
    }

    #[async_trait]
    impl VmProvider for Slow {
        fn describe(&self) -> Capabilities {
            let time = Duration::from_millis(200);
            Capabilities {
                kind: "slow",
                visibility_lag: time,
                poll_busy: time,
                poll_idle: time,
                creates_in_flight_max: 1,
                call_timeout: time,
                offering: &[],
            }
        }
        fn check(&self, _: &JsonObject, _: usize) -> Vec<Problem> {
            vec![]
        }
        async fn preflight(&self, _: &JsonObject) -> Result<Vec<Finding>, ProviderError> {
            assert!(!self.panics, "a provider with a mistake");
            let busy = self.busy.fetch_add(1, Ordering::SeqCst) + 1;
            self.most.fetch_max(busy, Ordering::SeqCst);
            tokio::time::sleep(self.sleep).await;
            self.busy.fetch_sub(1, Ordering::SeqCst);
            Ok(vec![])
        }
        async fn create(&self, _: &ServerSpec) -> Result<Progress, ProviderError> {
            unreachable!("a preflight makes nothing")
        }
        async fn poll(&self, _: &OpRef) -> Result<Progress, ProviderError> {
            unreachable!("a preflight makes nothing")
        }
        async fn find(&self, _: &ServerKey) -> Result<Option<Machine>, ProviderError> {
            unreachable!("nobody is looked for")
        }
        async fn list(&self, _: &PoolId) -> Result<Listing, ProviderError> {
            unreachable!("nobody is looked for")
        }
        async fn delete(&self, _: &MachineRef) -> Result<Progress, ProviderError> {
            unreachable!("a preflight deletes nothing")
        }
    }

    /// Asks so many slow providers; the number of those that were asked at once comes with the looks.
    async fn asked(sleeps: &[u64], panics: bool) -> (Vec<Looked>, usize) {
        let (busy, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let question = |sleep: &u64| {
            let provider =
                Slow { sleep: Duration::from_millis(*sleep), busy: busy.clone(), most: most.clone(), panics };
            (
                format!("at {sleep}"),
                "works".into(),
                Question { provider: Arc::new(provider), machine: Some(JsonObject::new()) },
            )
        };
        let looks = ask_all(sleeps.iter().map(question).collect()).await;
        (looks, most.load(Ordering::SeqCst))
    }

    #[tokio::test]
    async fn a_provider_that_hangs_is_given_up_and_holds_up_nobody() {
        let (looks, _) = asked(&[0, 3_600_000, 1], false).await;
        let found: Vec<usize> = looks.iter().map(|look| look.findings.len()).collect();
        assert_eq!(found, [0, 1, 0]);
        assert_eq!(looks[1].findings[0].problem, "no answer within 400ms");
        assert_eq!(looks[1].at, "at 3600000");
    }

    #[tokio::test]
    async fn only_a_few_are_asked_at_once_and_all_are() {
        let (looks, most) = asked(&[5; 30], false).await;
        assert_eq!((looks.len(), most), (30, AT_ONCE));
        assert!(looks.iter().all(|look| look.findings.is_empty()));
    }

    #[tokio::test]
    async fn what_breaks_off_is_a_finding() {
        let (looks, _) = asked(&[1], true).await;
        assert_eq!(looks[0].findings[0].problem, "it broke off");
    }

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
