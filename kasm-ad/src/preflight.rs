//! Proving, before anything depends on it, that the account has the rights it needs: with an object of its own.

use kasm_autoscale_core::ports::{DirectoryError, Finding};
use secrecy::SecretString;

use crate::computers::{self, ATTRIBUTES, NewComputer};
use crate::conversation::{Conversation, Depth};
use crate::directory::Shared;
use crate::dn::Dn;
use crate::errors::{Failure, Step, explained};
use crate::filter::Filter;
use crate::mark;

const REMEDY: &str = "see \"Rights to delegate\" in kasm-ad/README.md";

fn finding(subject: &str, problem: String, remedy: &str) -> Finding {
    Finding { subject: subject.to_owned(), problem, remedy: remedy.to_owned() }
}

/// Makes a computer object in the unit, looks at it and removes it.
pub(crate) async fn preflight(
    shared: &Shared,
    mut conversation: Conversation,
    ou: &Dn,
) -> Result<Vec<Finding>, DirectoryError> {
    let talk = &mut conversation;
    let unit =
        talk.read(&ou.to_string(), &["objectClass"]).await.map_err(|failure| explained(Step::Search, &failure))?;
    if unit.is_none() {
        let text = format!("there is no {ou}, or the account may not see it");
        let remedy = "make the organisational unit, correct the name, or let the account list its contents";
        return Ok(vec![finding("organisational unit", text, remedy)]);
    }
    let probe = Probe::new(shared, ou)?;
    match talk.add(&probe.new.dn.to_string(), &probe.new.values()).await {
        Ok(()) => (),
        Err(Failure::Code(50, _)) => {
            let text = format!("the account may not make computer objects in {ou}");
            let remedy = format!("grant \"Create Computer objects\" there; {REMEDY}");
            return Ok(vec![finding("right to create computers", text, &remedy)]);
        }
        Err(failure) => return Err(explained(Step::Add, &failure)),
    }
    // Whatever reading says, the object goes again.
    let mut findings = reading(shared, talk, &probe)
        .await
        .unwrap_or_else(|error| vec![finding("right to read computers", error.to_string(), REMEDY)]);
    findings.extend(deleting(talk, &probe, ou).await);
    Ok(findings)
}

struct Probe {
    new: NewComputer,
}

impl Probe {
    fn new(shared: &Shared, ou: &Dn) -> Result<Self, DirectoryError> {
        const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
        let mut random = [0; 40];
        getrandom::fill(&mut random)
            .map_err(|_| computers::invalid("random", "the system gives no random numbers for a probe object"))?;
        let letters: String = random.iter().map(|byte| char::from(ALPHABET[usize::from(byte & 31)])).collect();
        let (name, secret) = letters.split_at(8);
        // A password that nobody needs to know.
        let password = SecretString::from(format!("A1-{secret}"));
        let new =
            NewComputer::new(shared, &format!("kprobe-{name}"), ou, mark::of_probe(shared.deployment), &password)?;
        Ok(Self { new })
    }
}

/// Whether the account sees what it has made, and all that is decided by.
async fn reading(shared: &Shared, talk: &mut Conversation, probe: &Probe) -> Result<Vec<Finding>, DirectoryError> {
    let failed = |failure: Failure| explained(Step::Search, &failure);
    let mut findings = Vec::new();
    let dn = probe.new.dn.to_string();
    let missing = |subject: &str, text: String| {
        finding(subject, text, &format!("grant \"Read all properties\" on computer objects; {REMEDY}"))
    };
    match talk.read(&dn, &ATTRIBUTES).await.map_err(failed)? {
        None => {
            findings.push(missing("right to read computers", format!("the account cannot see {dn}, which it has made")))
        }
        Some(entry) => {
            if !computers::is_readable(&entry) {
                let text = "the account cannot read objectGUID, pwdLastSet or whenCreated of computers".to_owned();
                findings.push(missing("right to read computers", text));
            }
        }
    }
    let filter = Filter::equals(mark::ATTRIBUTE, mark::of_probe(shared.deployment));
    let base = shared.settings.computer_base().to_string();
    let found = talk.search(&base, Depth::Subtree, &filter, &["cn"]).await.map_err(failed)?;
    let is_it = |found: &str| found.parse::<Dn>().is_ok_and(|found| found.same_as(&probe.new.dn));
    if !found.entries.iter().any(|entry| is_it(&entry.dn)) {
        let text = format!("the account cannot find computers by their {}", mark::ATTRIBUTE);
        findings.push(missing("right to search computers", text));
    }
    Ok(findings)
}

/// Removes the probe, as a tree first, since that takes a right of its own.
async fn deleting(talk: &mut Conversation, probe: &Probe, ou: &Dn) -> Vec<Finding> {
    let dn = probe.new.dn.to_string();
    let mut findings = Vec::new();
    match talk.delete(&dn, true).await {
        Ok(()) | Err(Failure::Code(32, _)) => return findings,
        Err(failure) => {
            let text = format!(
                "the account may not delete computer objects in {ou} with what lies below them ({}); only configs with \
                 `ad_recursive_cleanup` need that",
                explained(Step::Delete, &failure).code
            );
            let remedy = format!("grant \"Delete Subtree\" on computer objects; {REMEDY}");
            findings.push(finding("right to delete subtrees of computers", text, &remedy));
        }
    }
    match talk.delete(&dn, false).await {
        Ok(()) | Err(Failure::Code(32, _)) => (),
        Err(failure) => {
            let code = explained(Step::Delete, &failure).code;
            let text = format!(
                "the account may not delete computer objects in {ou} ({code}), so the probe {dn} is still there"
            );
            let remedy = format!("grant \"Delete Computer objects\" there, and delete the probe; {REMEDY}");
            findings.push(finding("right to delete computers", text, &remedy));
        }
    }
    findings
}
