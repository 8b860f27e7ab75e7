//! Checks of deleting machines.

use alloc::format;
use core::time::Duration;

use super::Trouble;
use super::bench::{Bench, Stop, ensure, failed};
use crate::ports::{MachineState, Progress};

/// How long a slow delete takes; longer than any call.
const SLOW: Duration = Duration::from_secs(600);

pub(super) async fn twice(bench: &mut Bench<'_>) -> Result<(), Stop> {
    let spec = bench.spec();
    let machine = bench.made(&spec).await?;
    let other = bench.spec();
    let neighbour = bench.made(&other).await?;
    bench.gone(&spec, &machine).await?;
    for when in ["at once", "after a restart"] {
        if let Err(error) = bench.delete(&machine).await {
            return failed(format!("a second delete {when} is refused: {error}"));
        }
        bench.restart().await;
    }
    let never = crate::ports::MachineRef(bench.subject.never().unwrap_or_else(|| machine.0.clone()));
    if let Err(error) = bench.delete(&never).await {
        return failed(format!("the delete of a machine that never was is refused: {error}"));
    }
    match bench.find(&other).await {
        Ok(Some(found)) if found.reference == neighbour && alive(&found.state) => Ok(()),
        other => failed(format!("the delete of {machine} has touched its neighbour {neighbour}: {other:?}")),
    }
}

fn alive(state: &MachineState) -> bool {
    !matches!(state, MachineState::Deleting | MachineState::Deleted)
}

pub(super) async fn slow(bench: &mut Bench<'_>) -> Result<(), Stop> {
    bench.truth().await?;
    bench.inject(Trouble::SlowDelete(SLOW)).await?;
    let spec = bench.spec();
    let machine = bench.made(&spec).await?;
    let limit = bench.provider.describe().call_timeout;
    let began = bench.subject.now();
    let answer = bench.delete(&machine).await;
    let took = bench.subject.now().since(began);
    ensure!(took <= limit, "the delete waited {took:?}, more than call_timeout {limit:?}");
    still_there(bench, &machine.0, answer, "the delete").await?;
    // Whatever the lag hides of the change is shown after it.
    bench.lag().await;
    let answer = bench.delete(&machine).await;
    still_there(bench, &machine.0, answer, "a second delete").await?;
    if bench.truth().await?.machines.contains(&machine) {
        match bench.find(&spec).await {
            Ok(Some(found)) if found.state == MachineState::Deleting => (),
            other => return failed(format!("while it is being deleted, find shows {other:?}")),
        }
        let listed = bench.whole_list().await?.into_iter().find(|one| one.reference == machine);
        let deleting = listed.as_ref().is_some_and(|one| one.state == MachineState::Deleting);
        ensure!(deleting, "while it is being deleted, list shows {listed:?}");
    }
    bench.subject.pass(SLOW).await;
    bench.lag().await;
    let there = bench.truth().await?.machines.contains(&machine);
    ensure!(!there, "{machine} is still there long after its delete");
    bench
        .until(&spec, "it is gone but is shown as there", |seen| {
            seen.is_none_or(|one| one.state == MachineState::Deleted)
        })
        .await?;
    match bench.delete(&machine).await {
        Ok(_) => Ok(()),
        Err(error) => failed(format!("the delete of a machine that is gone is refused: {error}")),
    }
}

/// A delete's answer does not say that a machine is gone while it is there.
async fn still_there(
    bench: &mut Bench<'_>,
    machine: &str,
    answer: Result<Progress, crate::ports::ProviderError>,
    call: &str,
) -> Result<(), Stop> {
    match answer {
        Ok(Progress::Pending { .. }) => Ok(()),
        Ok(Progress::Done { .. }) => {
            let there = bench.truth().await?.machines.iter().any(|one| one.0 == machine);
            ensure!(!there, "{call} says that {machine} is gone while it is there");
            Ok(())
        }
        Err(error) => failed(format!("{call} of a machine that takes its time failed: {error}")),
    }
}

pub(super) async fn leftovers(bench: &mut Bench<'_>) -> Result<(), Stop> {
    let before = bench.truth().await?;
    let spec = bench.spec();
    let machine = bench.made(&spec).await?;
    bench
        .until(&spec, "the machine does not run", |seen| seen.is_some_and(|one| one.state == MachineState::Running))
        .await?;
    bench.gone(&spec, &machine).await?;
    let after = bench.truth().await?;
    let parts = after.parts.saturating_sub(before.parts);
    ensure!(parts == 0, "{parts} parts of {machine} are left behind");
    Ok(())
}
