//! Verifies a whole log, entry by entry: MACs, numbers, what can be read, and calls that no answer belongs to.

use std::collections::{BTreeMap, BTreeSet};

use super::chain::{Chain, Head, Shown, Tag};
use super::entry::{Entry, Kind};

/// How many findings of one kind, or notes, are told one by one.
const ALIKE_MAX: usize = 20;

/// What was found in a log.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Verdict {
    /// How many entries there are.
    pub entries: u64,
    /// The first and the last number.
    pub numbers: Option<(i64, i64)>,
    /// What does not fit, the first one first.
    pub findings: Vec<String>,
    /// What is worth knowing and no fault of the log: calls that were under way when the daemon died.
    pub notes: Vec<String>,
}

/// Takes in a log from its beginning to its end.
#[derive(Debug)]
pub struct Verifier<'a> {
    /// Without a key nothing is said about MACs.
    chain: Option<&'a Chain>,
    /// What the next entry is linked to; `None` after a gap, where nobody knows.
    before: Option<Head>,
    last: Option<Head>,
    wished: Option<(&'a Shown, bool)>,
    anchored: i64,
    misfits: usize,
    unreadable: usize,
    open: BTreeMap<String, (i64, String)>,
    /// Answers before their question, which was saved with a step that came late; or the question was trimmed.
    early: BTreeSet<String>,
    verdict: Verdict,
}

/// The anchor of a log whose oldest entries were trimmed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Anchor {
    /// The last entry that was trimmed.
    pub head: Head,
    /// Its seal.
    pub seal: Tag,
}

impl<'a> Verifier<'a> {
    /// Begins. `wished` is a head that must be found in the log.
    pub fn new(chain: Option<&'a Chain>, anchor: Option<Anchor>, wished: Option<&'a Shown>) -> Self {
        let mut verdict = Verdict::default();
        if let (Some(chain), Some(anchor)) = (chain, anchor)
            && chain.seal(&anchor.head) != anchor.seal
        {
            let text = format!(
                "the anchor, entry {}, was not sealed with this key: the oldest entries were taken away, or it is another key",
                anchor.head.number
            );
            verdict.findings.push(text);
        }
        let genesis = Head { number: 0, mac: chain.map_or([0; 32], |chain| chain.genesis().mac) };
        let before = anchor.map_or(genesis, |anchor| anchor.head);
        Self {
            chain,
            before: Some(before),
            last: anchor.map(|anchor| anchor.head),
            wished: wished.map(|wished| (wished, anchor.is_some_and(|anchor| wished.is(&anchor.head)))),
            anchored: before.number,
            misfits: 0,
            unreadable: 0,
            open: BTreeMap::new(),
            early: BTreeSet::new(),
            verdict,
        }
    }

    /// Takes the next entry in: the rows of the log by number.
    pub fn take(&mut self, number: i64, mac: &[u8], text: &str) {
        self.verdict.entries += 1;
        let first = self.verdict.numbers.map_or(number, |(first, _)| first);
        self.verdict.numbers = Some((first, number));
        let expected = self.last.map_or(self.anchored, |head| head.number).saturating_add(1);
        if number > expected {
            let gone = if number - expected == 1 {
                format!("entry {expected} is missing")
            } else {
                format!("entries {expected} to {} are missing", number - 1)
            };
            self.verdict.findings.push(gone);
            self.before = None;
        } else if number < expected {
            self.verdict.findings.push(format!("entry {number} stands behind the anchor, entry {}", self.anchored));
            self.before = None;
        }
        let head = Head { number, mac: mac.try_into().unwrap_or([0; 32]) };
        if let Some(chain) = self.chain {
            // The first one after a gap can only be held against itself, and is what the next one is held against.
            let linked = self.before.map(|before| chain.link(&before, text));
            if mac.len() != 32 || linked.is_some_and(|linked| linked != Some(head)) {
                self.misfits += 1;
                if self.misfits == 1 {
                    let text = format!(
                        "entry {number} is the first that does not fit: it or the one before it was changed, or it is another key"
                    );
                    self.verdict.findings.push(text);
                }
            }
        }
        if let Some((wished, found)) = &mut self.wished {
            *found |= wished.is(&head);
        }
        self.before = Some(head);
        self.last = Some(head);
        self.read(number, text);
    }

    fn read(&mut self, number: i64, text: &str) {
        let entry = match Entry::read(text) {
            Ok(entry) => entry,
            Err(error) => {
                self.unreadable += 1;
                if self.unreadable <= ALIKE_MAX {
                    self.verdict.findings.push(format!("entry {number} cannot be read: {error}"));
                }
                return;
            }
        };
        match entry.kind {
            Kind::Asked if self.early.remove(&entry.request) => {}
            Kind::Asked => {
                self.open.insert(entry.request, (number, format!("{} {}", entry.method, entry.route)));
            }
            Kind::Answered => {
                if self.open.remove(&entry.request).is_none() {
                    self.early.insert(entry.request);
                }
            }
            Kind::Told | Kind::Refused | Kind::Started | Kind::Stopped => {}
        }
        if entry.left_out > 0 {
            self.note(format_args!("{} refused calls were not written before entry {number}", entry.left_out));
        }
    }

    fn note(&mut self, text: impl std::fmt::Display) {
        self.verdict.notes.push(text.to_string());
    }

    /// Ends.
    pub fn finish(mut self) -> Verdict {
        if self.misfits > 1 {
            self.verdict.findings.push(format!("{} more entries do not fit", self.misfits - 1));
        }
        if self.unreadable > ALIKE_MAX {
            self.verdict.findings.push(format!("{} more entries cannot be read", self.unreadable - ALIKE_MAX));
        }
        if let Some((wished, false)) = self.wished {
            let (number, last) = (wished.number(), self.last.map_or(0, |head| head.number));
            if number > last {
                self.verdict.findings.push(format!(
                    "the head {wished} is not there: the log ends with entry {last}, its end was cut off"
                ));
            } else if number < self.anchored {
                self.note(format_args!("the head {wished} was trimmed; nothing can be said of it"));
            } else {
                self.verdict.findings.push(format!("the head {wished} is not there: entry {number} is another one"));
            }
        }
        let mut open: Vec<(i64, String, String)> = std::mem::take(&mut self.open)
            .into_iter()
            .map(|(request, (number, what))| (number, request, what))
            .collect();
        open.sort();
        for (number, request, what) in open.iter().take(ALIKE_MAX) {
            self.note(format_args!(
                "entry {number}: no answer to {request:?} ({what:?}): it was under way when the daemon ended"
            ));
        }
        if open.len() > ALIKE_MAX {
            self.note(format_args!("{} more calls without an answer", open.len() - ALIKE_MAX));
        }
        self.verdict
    }
}
