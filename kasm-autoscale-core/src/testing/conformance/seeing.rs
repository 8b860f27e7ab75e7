//! Checks of what reads show and what they leave out.

use alloc::collections::BTreeSet;
use alloc::format;
use alloc::string::ToString;
use alloc::vec::Vec;
use core::time::Duration;

use super::Trouble;
use super::bench::{Bench, Stop, again, ensure, failed};
use crate::id::{DeploymentId, PoolId};
use crate::ports::{Certainty, Listing, Machine, MachineRef, Marker, ProviderError};

/// How many machines make a list that has more than one part.
const SEVERAL: usize = 7;

pub(super) async fn late_visibility(bench: &mut Bench<'_>) -> Result<(), Stop> {
    let lag = bench.provider.describe().visibility_lag;
    if lag > Duration::ZERO {
        bench.inject(Trouble::Hide).await?;
    }
    let before = bench.there().await.unwrap_or_default();
    let spec = bench.spec();
    let progress = match bench.create(&spec).await {
        Ok(progress) => progress,
        Err(error) => return failed(format!("a plain create failed: {error}")),
    };
    if lag > Duration::ZERO {
        if let Err(error) = bench.find(&spec).await {
            return failed(format!("find fails while the machine is hidden: {error}"));
        }
        if let Err(error) = bench.list().await {
            return failed(format!("list fails while the machine is hidden: {error}"));
        }
        if let Err(error) = bench.create(&again(&spec)).await {
            return failed(format!("the same create is refused while the machine is hidden: {error}"));
        }
    }
    let reference = bench.reference(progress).await?;
    bench.lag().await;
    bench.heal().await;
    match bench.find(&spec).await {
        Ok(Some(machine)) if machine.reference == reference => (),
        other => return failed(format!("after visibility_lag {lag:?} find does not show {reference}: {other:?}")),
    }
    let listed = bench.whole_list().await?.iter().any(|machine| machine.reference == reference);
    ensure!(listed, "after visibility_lag {lag:?} list does not show {reference}");
    let made = bench.new_since(&before).await?;
    ensure!(made == 1, "a create and its repetition while it was hidden made {made} machines");
    Ok(())
}

pub(super) async fn absence(bench: &mut Bench<'_>) -> Result<(), Stop> {
    let spec = bench.spec();
    match bench.find(&spec).await {
        Ok(None) => (),
        other => return failed(format!("find of a server without a machine answers {other:?}")),
    }
    match bench.list().await {
        Ok(Listing { machines, complete: true }) if machines.is_empty() => Ok(()),
        other => failed(format!("list of a pool without machines answers {other:?}")),
    }
}

/// The error of a read that failed.
fn refused<T: core::fmt::Debug>(answer: Result<T, ProviderError>, call: &str) -> Result<(), Stop> {
    match answer {
        Ok(answer) => failed(format!("a {call} that failed is answered by {answer:?}")),
        Err(error) => {
            let sure = error.certainty == Certainty::NotApplied;
            ensure!(sure, "a {call} that failed has changed nothing, but says {:?}: {error}", error.certainty);
            Ok(())
        }
    }
}

pub(super) async fn failed_read(bench: &mut Bench<'_>) -> Result<(), Stop> {
    let spec = bench.spec();
    bench.made(&spec).await?;
    bench.inject(Trouble::FailReads).await?;
    refused(bench.find(&spec).await, "find")?;
    refused(bench.list().await, "list")
}

/// How long harm may take to show.
const HARM: Duration = Duration::from_secs(120);

/// Makes several machines.
async fn several(bench: &mut Bench<'_>) -> Result<BTreeSet<MachineRef>, Stop> {
    let mut references = BTreeSet::new();
    for _ in 0..SEVERAL {
        let spec = bench.spec();
        references.insert(bench.made(&spec).await?);
    }
    ensure!(references.len() == SEVERAL, "{SEVERAL} servers got {} machines", references.len());
    Ok(references)
}

fn references(machines: &[Machine]) -> BTreeSet<MachineRef> {
    machines.iter().map(|machine| machine.reference.clone()).collect()
}

pub(super) async fn partial_list(bench: &mut Bench<'_>) -> Result<(), Stop> {
    // Before anything is made, so that a subject that cannot do it costs nothing.
    bench.inject(Trouble::PartialList).await?;
    bench.heal().await;
    let all = several(bench).await?;
    bench.inject(Trouble::PartialList).await?;
    match bench.list().await {
        Err(_) => (),
        Ok(Listing { complete: false, .. }) => (),
        Ok(Listing { machines, complete: true }) => {
            let seen = references(&machines).len();
            return failed(format!("a list that shows {seen} of {} machines says that it is complete", all.len()));
        }
    }
    bench.heal().await;
    let seen = references(&bench.whole_list().await?);
    ensure!(seen.is_superset(&all), "when all is well again, the list still lacks machines");
    Ok(())
}

pub(super) async fn whole_list(bench: &mut Bench<'_>) -> Result<(), Stop> {
    let all = several(bench).await?;
    let machines = bench.whole_list().await?;
    let seen = references(&machines);
    let missing: Vec<_> = all.difference(&seen).map(ToString::to_string).collect();
    ensure!(missing.is_empty(), "a complete list lacks {} of {}: {}", missing.len(), all.len(), missing.join(", "));
    let marked = |machine: &&Machine| machine.marker.as_ref().is_some_and(|mark| mark.pool == bench.pool);
    ensure!(machines.iter().all(|machine| marked(&machine)), "a list shows machines without the pool's mark");
    let own = bench.pool;
    let mut bytes = *own.as_bytes();
    bytes[15] ^= 1;
    bench.pool = PoolId::from_bytes(bytes);
    let other = bench.list().await;
    bench.pool = own;
    match other {
        Ok(listing) => ensure!(listing.machines.is_empty(), "the list of another pool shows this pool's machines"),
        Err(error) => return failed(format!("the list of an empty pool failed: {error}")),
    }
    Ok(())
}

pub(super) async fn foreign(bench: &mut Bench<'_>) -> Result<(), Stop> {
    let spec = bench.spec();
    let deployment = DeploymentId::from_bytes([0xF0; 16]);
    let theirs = Marker { deployment, ..spec.marker.clone() };
    let add = |marker| bench.subject.add_foreign(marker, spec.name.as_str());
    let (Some(marked), Some(bare)) = (add(Some(&theirs)).await, add(None).await) else {
        return Err(Stop::Absent("add foreign machines".into()));
    };
    let strangers = [marked, bare];
    bench.lag().await;
    not_ours(bench, &strangers).await?;
    match bench.find(&spec).await {
        Ok(machine) => {
            let taken = machine
                .as_ref()
                .is_some_and(|one| one.marker.as_ref().is_none_or(|mark| mark.deployment != deployment));
            ensure!(!taken, "find takes a foreign machine for ours: {machine:?}");
        }
        Err(error) => return failed(format!("find failed: {error}")),
    }
    let progress = match bench.create(&spec).await {
        Ok(progress) => progress,
        Err(error) => return failed(format!("a create fails because of a foreign machine: {error}")),
    };
    let own = bench.reference(progress).await?;
    ensure!(!strangers.contains(&own), "a create has adopted the foreign machine {own}");
    bench.lag().await;
    not_ours(bench, &strangers).await?;
    bench.gone(&spec, &own).await?;
    // A delete that has hit others too may still be on its way there.
    bench.subject.pass(bench.subject.patience().min(HARM)).await;
    let there = bench.truth().await?.machines;
    let hurt: Vec<_> = strangers.iter().filter(|machine| !there.contains(machine)).map(ToString::to_string).collect();
    ensure!(hurt.is_empty(), "the delete of our machine has also deleted {}", hurt.join(" and "));
    Ok(())
}

/// No list shows a foreign machine with our mark.
async fn not_ours(bench: &mut Bench<'_>, strangers: &[MachineRef]) -> Result<(), Stop> {
    let ours = bench.subject.deployment();
    for machine in bench.whole_list().await? {
        let claimed = machine.marker.as_ref().is_some_and(|mark| mark.deployment == ours);
        let stolen = claimed && strangers.contains(&machine.reference);
        ensure!(!stolen, "a list shows the foreign machine {} with our mark", machine.reference);
    }
    Ok(())
}
