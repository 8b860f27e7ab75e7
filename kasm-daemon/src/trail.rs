//! The audit log: who asked for what through the API, and what came of it.
//!
//! Its entries make a chain of HMACs, so that whoever has the store's file and not the deployment key can change, remove or
//! insert none of them unnoticed ([`chain`], [`verify`]). What the pools themselves do stands in their events.
//!
//! | kind | when it is written | what it means |
//! | --- | --- | --- |
//! | `asked` | before anything is changed, or in one commit with the change | a call that may change something |
//! | `answered` | after an `asked`, soon: a crash may come first | how that call ended |
//! | `told` | before the answer leaves | a call that changed nothing but was answered with a secret, logins included |
//! | `refused` | soon, and bounded: a flood is counted in `left_out` of the next entry | a call that was turned away at the door |
//! | `started`, `stopped` | before the first call, after the last one | the daemon itself |
//!
//! Nothing secret stands in an entry. Bodies, queries, unknown tokens and names that name nothing are there as an HMAC under a
//! key of its own: equal ones can be told to be equal, and that is all.

pub mod chain;
mod entry;
mod throttle;
pub mod verify;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use kasm_autoscale_core::token::DeploymentKey;

use crate::clock::{Clock, rfc3339};
use crate::store::{Store, StoreError};

pub use chain::{Chain, Head};
pub use entry::{Entry, Kind, Who};
use throttle::Throttle;

/// How many entries are kept unless the config file says otherwise: some 300 MB.
pub const KEEP_DEFAULT: u32 = 1_000_000;

/// An entry on its way into the store, with what it is sealed by there.
#[derive(Clone, Debug)]
pub struct Record {
    /// Seals it.
    pub chain: Chain,
    /// The entry as JSON.
    pub text: String,
    /// How many entries are kept, this one included.
    pub keep: u32,
}

/// An entry in the store.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Sealed {
    /// Its number and its MAC.
    pub head: Head,
    /// The entry as JSON.
    pub text: String,
}

/// Writes the audit log.
pub struct Trail {
    store: Arc<dyn Store>,
    chain: Chain,
    clock: Clock,
    keep: u32,
    /// Bounds what callers without a good token can have written.
    strangers: Throttle,
    /// Bounds what machines can have written, and whoever poses as one.
    machines: Throttle,
    /// Bounds what callers can have written who may not do what they ask for.
    callers: Throttle,
    /// Refused calls that were not written since the last entry.
    left_out: AtomicU64,
}

impl Trail {
    /// The log in this store.
    pub fn new(store: Arc<dyn Store>, key: &DeploymentKey, clock: Clock, keep: u32) -> Self {
        let chain = Chain::new(key, store.deployment());
        let now = clock.now();
        let [strangers, machines, callers] = [(); 3].map(|()| Throttle::new(now));
        Self { store, chain, clock, keep, strangers, machines, callers, left_out: AtomicU64::new(0) }
    }

    /// The HMAC of these parts that may stand in an entry in their place.
    pub fn digest(&self, parts: &[&[u8]]) -> String {
        self.chain.digest(parts)
    }

    /// An entry of this kind, now.
    pub fn entry(&self, kind: Kind) -> Entry {
        Entry { at: rfc3339(self.clock.now()), ..Entry::new(kind) }
    }

    /// The entry for somebody else to write, as with a step.
    pub fn record_of(&self, entry: &Entry) -> Record {
        Record { chain: self.chain.clone(), text: entry.text(), keep: self.keep }
    }

    /// Writes an entry; it is durable when this answers.
    ///
    /// # Errors
    /// The store's. The entry is not written then, or it is not known whether it is.
    pub async fn record(&self, mut entry: Entry) -> Result<(), StoreError> {
        entry.left_out = self.left_out.swap(0, Ordering::Relaxed);
        let recorded = self.store.record(self.record_of(&entry)).await;
        if let Err(error) = recorded {
            self.left_out.fetch_add(entry.left_out, Ordering::Relaxed);
            tracing::error!(%error, "the audit log cannot be written: calls that change something are refused");
            return Err(error);
        }
        Ok(())
    }

    /// Writes an entry with the next commit, at the latest in a moment. Nobody is told whether it could be; the log is.
    pub fn record_soon(&self, mut entry: Entry) {
        entry.left_out = self.left_out.swap(0, Ordering::Relaxed);
        self.store.record_soon(self.record_of(&entry));
    }

    /// Writes that a call was refused, or counts it for the next entry if there are too many of its kind: none of the three drives
    /// the others out of the log.
    pub fn refused(&self, entry: Entry, is_machine: bool) {
        let throttle = match entry.caller {
            Some(_) => &self.callers,
            None if is_machine => &self.machines,
            None => &self.strangers,
        };
        if throttle.admits(self.clock.now()) {
            self.record_soon(entry);
        } else {
            self.left_out.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The last entry's number and MAC, all entries that are on their way included. `None`: there is no entry yet.
    ///
    /// # Errors
    /// The store's.
    pub async fn head(&self) -> Result<Option<Head>, StoreError> {
        self.store.audit_head().await
    }

    /// Tells the ordinary log where the chain ends: kept elsewhere, it shows that the end was cut off.
    pub async fn tell_head(&self) {
        match self.head().await {
            Ok(Some(head)) => tracing::info!(%head, "audit log"),
            Ok(None) => tracing::info!(head = "none", "audit log"),
            Err(error) => tracing::error!(%error, "the audit log cannot be read"),
        }
    }

    /// The latest entries, the latest first, at most `limit`, older than number `before` where that is given.
    ///
    /// # Errors
    /// The store's.
    pub async fn entries(&self, before: Option<i64>, limit: u32) -> Result<Vec<Sealed>, StoreError> {
        self.store.audit_entries(before, limit).await
    }
}

impl fmt::Debug for Trail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Trail").field("keep", &self.keep).finish_non_exhaustive()
    }
}
