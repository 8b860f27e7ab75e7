//! Checks of errors, of machines that come to harm, and of secrets.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use base64::Engine;
use base64::prelude::BASE64_STANDARD_NO_PAD;

use super::Trouble;
use super::bench::{Bench, CANARY, Stop, ensure, failed};
use crate::ports::{Certainty, ErrorKind, MachineState, ProviderError, Scope};

/// An error has this kind, and says that nothing was done.
fn is_refusal<T: core::fmt::Debug>(
    answer: Result<T, ProviderError>,
    kind: ErrorKind,
    call: &str,
) -> Result<ProviderError, Stop> {
    match answer {
        Ok(answer) => failed(format!("a {call} that the system refused as {kind} is answered by {answer:?}")),
        Err(error) => {
            ensure!(error.kind == kind, "a {call} that the system refused as {kind} is called {}: {error}", error.kind);
            let sure = error.certainty == Certainty::NotApplied;
            ensure!(sure, "a {call} that was refused as {kind} had no effect, but says {:?}", error.certainty);
            Ok(error)
        }
    }
}

pub(super) async fn throttle(bench: &mut Bench<'_>) -> Result<(), Stop> {
    let before = bench.there().await?;
    let spec = bench.spec();
    let machine = bench.made(&spec).await?;
    bench.inject(Trouble::Throttle).await?;
    let other = bench.spec();
    let calls = calls(bench).await;
    is_refusal(bench.create(&other).await, ErrorKind::Throttled, "create")?;
    if let (Some(before), Some(after)) = (calls, self::calls(bench).await) {
        let sent = after.saturating_sub(before);
        ensure!(sent <= 1, "a throttled create was sent {sent} times: pacing is the core's");
    }
    is_refusal(bench.find(&spec).await, ErrorKind::Throttled, "find")?;
    is_refusal(bench.list().await, ErrorKind::Throttled, "list")?;
    is_refusal(bench.delete(&machine).await, ErrorKind::Throttled, "delete")?;
    bench.heal().await;
    let made = bench.new_since(&before).await?;
    ensure!(
        made == 1,
        "a throttled create has made a machine, or a throttled delete has deleted one: {made} in place of 1"
    );
    bench.made(&other).await?;
    Ok(())
}

async fn calls(bench: &Bench<'_>) -> Option<u64> {
    bench.subject.truth().await?.calls
}

pub(super) async fn quota(bench: &mut Bench<'_>) -> Result<(), Stop> {
    let error = refused_create(bench, Trouble::Quota, ErrorKind::Quota).await?;
    ensure!(error.scope != Scope::Server, "a quota is said to concern one server alone: {error}");
    Ok(())
}

pub(super) async fn no_capacity(bench: &mut Bench<'_>) -> Result<(), Stop> {
    let error = refused_create(bench, Trouble::NoCapacity, ErrorKind::NoCapacity).await?;
    ensure!(error.scope == Scope::Offering, "a shortage of one offering is said to reach as far as {:?}", error.scope);
    Ok(())
}

/// A create that is refused makes nothing, and works when the trouble is over.
async fn refused_create(bench: &mut Bench<'_>, trouble: Trouble, kind: ErrorKind) -> Result<ProviderError, Stop> {
    bench.inject(trouble).await?;
    let before = bench.there().await?;
    let spec = bench.spec();
    let error = is_refusal(bench.create(&spec).await, kind, "create")?;
    let made = bench.new_since(&before).await?;
    ensure!(made == 0, "a create that was refused made {made} machines");
    bench.heal().await;
    bench.made(&spec).await?;
    Ok(error)
}

pub(super) async fn dies_booting(bench: &mut Bench<'_>) -> Result<(), Stop> {
    bench.inject(Trouble::DieBooting).await?;
    let spec = bench.spec();
    bench.made(&spec).await?;
    let dead = |state: &MachineState| {
        use MachineState::{Deleted, Deleting, Failed, Stopped};
        matches!(state, Stopped | Failed | Deleting | Deleted)
    };
    let what = "a machine that died while it booted is not shown as dead";
    let seen = bench.until(&spec, what, |seen| seen.is_none_or(|machine| dead(&machine.state))).await?;
    if let Some(machine) = seen.filter(|machine| machine.state == MachineState::Failed) {
        ensure!(machine.fault.is_some(), "it is shown as failed, but not why");
    }
    Ok(())
}

pub(super) async fn lost_mark(bench: &mut Bench<'_>) -> Result<(), Stop> {
    let spec = bench.spec();
    let machine = bench.made(&spec).await?;
    bench.inject(Trouble::Strip(machine.clone())).await?;
    bench.lag().await;
    match bench.find(&spec).await {
        Ok(found) => {
            let shown = found.as_ref().is_some_and(|one| one.marker.is_some());
            ensure!(!shown, "find still shows the mark: {found:?}");
        }
        Err(error) => return failed(format!("find fails because of it: {error}")),
    }
    let shown = bench.whole_list().await?.iter().any(|one| one.reference == machine && one.marker.is_some());
    ensure!(!shown, "list still shows the mark");
    bench.gone(&spec, &machine).await
}

pub(super) async fn unknown_state(bench: &mut Bench<'_>) -> Result<(), Stop> {
    let spec = bench.spec();
    let machine = bench.made(&spec).await?;
    bench.inject(Trouble::Confuse(machine.clone())).await?;
    bench.lag().await;
    match bench.find(&spec).await {
        Ok(Some(found)) => {
            let kept = matches!(&found.state, MachineState::Unknown(word) if !word.is_empty());
            ensure!(kept, "find calls it {:?}", found.state);
        }
        other => return failed(format!("find no longer shows it: {other:?}")),
    }
    let listed = bench.whole_list().await?.into_iter().find(|one| one.reference == machine);
    let kept = listed.as_ref().is_some_and(|one| matches!(one.state, MachineState::Unknown(_)));
    ensure!(kept, "list shows {listed:?}");
    Ok(())
}

pub(super) async fn secrets(bench: &mut Bench<'_>) -> Result<(), Stop> {
    let spec = bench.spec();
    let echoes = bench.inject(Trouble::Echo).await;
    if echoes.is_ok() {
        match bench.create(&spec).await {
            Err(_) => (),
            Ok(answer) => return failed(format!("a create that was refused is answered by {answer:?}")),
        }
        bench.heal().await;
    } else if let Err(error) = bench.create(&spec).await {
        return failed(format!("a plain create failed: {error}"));
    }
    let output = bench.subject.output();
    let mut secrets = bench.subject.secrets();
    secrets.push(CANARY.into());
    for secret in secrets.iter().filter(|secret| !secret.is_empty()) {
        for (form, text) in forms(secret) {
            ensure!(!bench.said().contains(&text), "an answer shows a secret{form}");
            ensure!(!output.contains(&text), "the provider's own output shows a secret{form}");
        }
    }
    echoes
}

/// A secret as it is, and as it looks within base64, wherever in it.
fn forms(secret: &str) -> Vec<(&'static str, String)> {
    let mut forms = Vec::from([("", String::from(secret))]);
    for before in 0..3_usize {
        let padded = [&[b' '; 3][..before], secret.as_bytes()].concat();
        let whole = BASE64_STANDARD_NO_PAD.encode(&padded);
        // The first and last group also hold bits of what stands around it.
        let (from, to) = (if before > 0 { 4 } else { 0 }, whole.len().saturating_sub(4));
        if to.saturating_sub(from) >= 12 {
            forms.push((" in base64", whole[from..to].into()));
        }
    }
    forms
}
