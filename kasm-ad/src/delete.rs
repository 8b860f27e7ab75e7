//! Removing computer objects: only ours, only below the allowed base, and by their GUID.

use kasm_autoscale_core::ports::{Certainty, DirectoryError, DirectoryErrorKind as Kind, Scope};

use crate::conversation::{Conversation, Depth, Entry};
use crate::directory::Shared;
use crate::dn::Dn;
use crate::errors::{Failure, Step, clean, explained};
use crate::filter::Filter;
use crate::mark::{self, Reference};

/// How often a tree is deleted before the next call has to go on. A server may stop within a large tree, for instance after 16,384
/// objects (MS-ADTS 3.1.1.5.5.7.2).
const ROUNDS_MAX: usize = 32;

const RECOVERY_KEY: &str = "msFVE-RecoveryInformation";

/// Removes an object. One that is not there is removed.
pub(crate) async fn delete(
    shared: &Shared,
    conversation: &mut Conversation,
    reference: &Reference,
    recursive: bool,
) -> Result<(), DirectoryError> {
    if let Some(entry) = look(conversation, reference).await? {
        ours(shared, &entry)?;
        remove(shared, conversation, reference, &entry, recursive).await?;
    }
    shared.first_passwords().remove(reference);
    Ok(())
}

async fn remove(
    shared: &Shared,
    conversation: &mut Conversation,
    reference: &Reference,
    entry: &Entry,
    recursive: bool,
) -> Result<(), DirectoryError> {
    match conversation.delete(&reference.dn(), false).await {
        Ok(()) | Err(Failure::Code(32, _)) => Ok(()),
        Err(Failure::Code(66, text)) if !recursive => {
            let mut error = explained(Step::Delete, &Failure::Code(66, text));
            error.message = format!("{}: {}", clean(&entry.dn, None), error.message).chars().take(500).collect();
            Err(error)
        }
        Err(Failure::Code(66, _)) if shared.settings.keep_recovery_keys => {
            leaf_by_leaf(conversation, reference, entry).await
        }
        Err(Failure::Code(66, _)) => tree(conversation, reference, entry).await,
        Err(failure) => Err(denied_here(entry, &failure)),
    }
}

async fn look(conversation: &mut Conversation, reference: &Reference) -> Result<Option<Entry>, DirectoryError> {
    let attributes = [mark::ATTRIBUTE, "objectClass"];
    conversation.read(&reference.dn(), &attributes).await.map_err(|failure| explained(Step::Search, &failure))
}

/// Whether the object may be removed at all.
fn ours(shared: &Shared, entry: &Entry) -> Result<(), DirectoryError> {
    let refused = |code: &str, why: &str| {
        let text = format!("{} is left alone: {why}", clean(&entry.dn, None));
        let mut error = DirectoryError::new(Kind::Invalid, Certainty::NotApplied, code, &text);
        error.scope = Scope::Server;
        Err(error)
    };
    let marker = entry.text(mark::ATTRIBUTE).and_then(mark::read);
    if marker.is_none_or(|marker| marker.deployment != shared.deployment) {
        return refused("foreign", "it does not bear the mark of this installation");
    }
    let base = shared.settings.computer_base();
    if !entry.dn.parse::<Dn>().is_ok_and(|dn| dn.is_below(base)) {
        return refused(
            "outside",
            &format!("it was moved out of {base}; move it back, delete it yourself, or widen `computer_base`"),
        );
    }
    Ok(())
}

/// Deletes everything below it, and it.
async fn tree(conversation: &mut Conversation, reference: &Reference, entry: &Entry) -> Result<(), DirectoryError> {
    for _ in 0..ROUNDS_MAX {
        match conversation.delete(&reference.dn(), true).await {
            Err(Failure::Code(32, _)) => return Ok(()),
            // Not all of it may be gone: that is asked, not believed.
            Ok(()) | Err(Failure::Code(11, _)) => (),
            Err(failure) => return Err(denied_here(entry, &failure)),
        }
        if look(conversation, reference).await?.is_none() {
            return Ok(());
        }
    }
    let text = format!("{} has very many objects below it; deleting goes on with the next try", clean(&entry.dn, None));
    let mut error = DirectoryError::new(Kind::Transient, Certainty::Unknown, "unfinished", &text);
    error.scope = Scope::Server;
    Err(error)
}

/// Deletes what lies below it one by one, and then it, so that nothing goes that the account cannot see: a directory hides recovery keys
/// from most accounts, and a tree delete takes them along.
async fn leaf_by_leaf(
    conversation: &mut Conversation,
    reference: &Reference,
    entry: &Entry,
) -> Result<(), DirectoryError> {
    let kept = |why: &str| {
        let text = format!(
            "{} is kept: {why}, and `keep_recovery_keys` is on; save the keys and delete the object yourself, or switch it off",
            clean(&entry.dn, None)
        );
        Err(DirectoryError::new(Kind::Protected, Certainty::NotApplied, "recoveryKeys", &text))
    };
    let all = Filter::Present("objectClass".to_owned());
    let below = conversation.search(&reference.dn(), Depth::Subtree, &all, &["objectClass"]).await;
    let below = below.map_err(|failure| explained(Step::Search, &failure))?;
    let is_key =
        |entry: &Entry| entry.texts("objectClass").iter().any(|class| class.eq_ignore_ascii_case(RECOVERY_KEY));
    if below.entries.iter().any(is_key) {
        return kept("BitLocker recovery keys lie below it");
    }
    // What may be listed but not read is what nobody wants to lose.
    let is_hidden = |entry: &Entry| entry.texts("objectClass").is_empty();
    if !below.complete || below.entries.iter().any(is_hidden) {
        return kept("not everything below it can be read");
    }
    let mut parts: Vec<(usize, &str)> = Vec::with_capacity(below.entries.len());
    for found in &below.entries {
        let depth = found.dn.parse::<Dn>().map_or(0, |dn| dn.parts().len());
        parts.push((depth, &found.dn));
    }
    // The deepest first. The object itself is the shallowest, and goes by its GUID.
    parts.sort_by(|one, other| other.cmp(one));
    parts.pop();
    for (_, dn) in parts {
        match conversation.delete(dn, false).await {
            Ok(()) | Err(Failure::Code(32, _)) => (),
            Err(Failure::Code(66, _)) => return kept("something below it cannot be seen"),
            Err(failure) => return Err(denied_here(entry, &failure)),
        }
    }
    match conversation.delete(&reference.dn(), false).await {
        Ok(()) | Err(Failure::Code(32, _)) => Ok(()),
        Err(Failure::Code(66, _)) => kept("something below it cannot be seen"),
        Err(failure) => Err(denied_here(entry, &failure)),
    }
}

/// A refusal that may be about this one object: others can still be deleted.
fn denied_here(entry: &Entry, failure: &Failure) -> DirectoryError {
    let mut error = explained(Step::Delete, failure);
    if matches!(failure, Failure::Code(50, _)) {
        error.scope = Scope::Server;
        error.message = format!(
            "{} may not be deleted: the account lacks the right to delete computer objects or their subtrees there, or the object \
             or something below it is protected from accidental deletion",
            clean(&entry.dn, None)
        );
    }
    error
}
