//! Checks of what a provider is, and of making machines.

use alloc::format;
use alloc::string::{String, ToString};
use core::time::Duration;

use super::Trouble;
use super::bench::{Bench, Stop, again, ensure, failed};
use crate::ports::{Certainty, ErrorKind, MachineState, Progress, ProviderError, ServerSpec};

/// A setting that no provider has.
const NO_SETTING: &str = "kasm_conformance_no_such_setting";

pub(super) fn description(bench: &Bench<'_>) -> Result<(), Stop> {
    let described = bench.provider.describe();
    ensure!(described == bench.provider.describe(), "two answers differ");
    ensure!(!described.kind.is_empty(), "the kind is empty");
    ensure!(described.call_timeout > Duration::ZERO, "call_timeout is zero, so every call would be lost");
    ensure!(described.creates_in_flight_max > 0, "creates_in_flight_max is 0, so nothing would ever be made");
    let (busy, idle) = (described.poll_busy, described.poll_idle);
    ensure!(busy > Duration::ZERO && busy <= idle, "poll_busy {busy:?} is not between 0 and poll_idle {idle:?}");
    Ok(())
}

pub(super) fn settings(bench: &Bench<'_>) -> Result<(), Stop> {
    let mut machine = bench.subject.machine();
    let problems = bench.provider.check(&machine, 0);
    ensure!(problems.is_empty(), "the subject's own settings are refused: {}", problems[0]);
    machine.insert(NO_SETTING.into(), serde_json::Value::Bool(true));
    let problems = bench.provider.check(&machine, 0);
    let named = problems.iter().any(|problem| problem.path.contains(NO_SETTING));
    ensure!(named, "the unknown setting {NO_SETTING} is not named: {problems:?}");
    Ok(())
}

pub(super) async fn preflight(bench: &mut Bench<'_>) -> Result<(), Stop> {
    let before = bench.there().await?;
    match bench.preflight().await {
        Ok(findings) => {
            let first = findings.first().map(ToString::to_string).unwrap_or_default();
            ensure!(findings.is_empty(), "it finds something in the subject's own settings: {first}");
        }
        Err(error) => return failed(format!("it failed: {error}")),
    }
    let made = bench.new_since(&before).await?;
    ensure!(made == 0, "it made {made} machines");
    Ok(())
}

pub(super) async fn one_machine(bench: &mut Bench<'_>) -> Result<(), Stop> {
    let before = bench.there().await?;
    let spec = bench.spec();
    let first = bench.made(&spec).await?;
    same(bench, &spec, &first.0, "at once").await?;
    bench.restart().await;
    same(bench, &spec, &first.0, "after a restart").await?;
    bench
        .until(&spec, "the machine does not run", |seen| seen.is_some_and(|one| one.state == MachineState::Running))
        .await?;
    same(bench, &spec, &first.0, "while it runs").await?;
    let made = bench.new_since(&before).await?;
    ensure!(made == 1, "the same create, four times, made {made} machines");
    Ok(())
}

/// The same create again has to answer for the same machine.
async fn same(bench: &mut Bench<'_>, spec: &ServerSpec, first: &str, when: &str) -> Result<(), Stop> {
    match bench.create(&again(spec)).await {
        Ok(progress) => {
            let second = bench.reference(progress).await?;
            ensure!(second.0 == first, "the same create {when} answers for {second}, not for {first}");
            Ok(())
        }
        Err(error) => failed(format!("the same create {when} is refused: {error}")),
    }
}

pub(super) async fn other_request(bench: &mut Bench<'_>) -> Result<(), Stop> {
    let before = bench.there().await?;
    let spec = bench.spec();
    let first = bench.made(&spec).await?;
    let mut other = again(&spec);
    other.user_data = Some(String::from("echo something else\n").into());
    match bench.create(&other).await {
        Ok(progress) => {
            let second = bench.reference(progress).await?;
            ensure!(second == first, "another request with the token of {first} answers for {second}");
        }
        Err(error) => {
            let kind = error.kind;
            ensure!(kind == ErrorKind::Conflict, "it is refused as {kind}, not as {}: {error}", ErrorKind::Conflict);
        }
    }
    let made = bench.new_since(&before).await?;
    ensure!(made == 1, "two requests with one token made {made} machines");
    Ok(())
}

pub(super) async fn mark(bench: &mut Bench<'_>) -> Result<(), Stop> {
    let spec = bench.spec();
    let reference = bench.made(&spec).await?;
    let Ok(Some(found)) = bench.find(&spec).await else {
        return failed("it was found once, and then no more".into());
    };
    ensure!(found.marker.as_ref() == Some(&spec.marker), "find shows the mark {:?}", found.marker);
    let listed = bench.whole_list().await?.into_iter().find(|machine| machine.reference == reference);
    let Some(listed) = listed else { return failed(format!("{reference} is found, but not listed")) };
    ensure!(listed.marker.as_ref() == Some(&spec.marker), "list shows the mark {:?}", listed.marker);
    // With the call that makes it: where the call's reply is lost there is no second call.
    let spec = bench.spec();
    if bench.inject(Trouble::ReplyLostAfter).await.is_ok() {
        drop(bench.create(&spec).await);
        bench.heal().await;
        bench.lag().await;
        match bench.find(&spec).await {
            Ok(Some(machine)) if machine.marker.as_ref() == Some(&spec.marker) => (),
            other => return failed(format!("a machine whose reply was lost is not found by its mark: {other:?}")),
        }
    }
    Ok(())
}

pub(super) async fn acceptance(bench: &mut Bench<'_>) -> Result<(), Stop> {
    let limit = bench.provider.describe().call_timeout;
    let spec = bench.spec();
    let began = bench.subject.now();
    let progress = match bench.create(&spec).await {
        Ok(progress) => progress,
        Err(error) => return failed(format!("a plain create failed: {error}")),
    };
    let took = bench.subject.now().since(began);
    ensure!(took <= limit, "the create took {took:?}, more than call_timeout {limit:?}");
    // The operation belongs to the row, and the row outlives the process.
    bench.restart().await;
    let reference = bench.reference(progress).await?;
    bench.lag().await;
    let found = bench.find(&spec).await;
    let is_it = matches!(&found, Ok(Some(machine)) if machine.reference == reference);
    ensure!(is_it, "the create leads to {reference}, but find after the lag to {found:?}");
    let began = bench.subject.now();
    if let Err(error) = bench.delete(&reference).await {
        return failed(format!("a plain delete failed: {error}"));
    }
    let took = bench.subject.now().since(began);
    ensure!(took <= limit, "the delete took {took:?}, more than call_timeout {limit:?}");
    Ok(())
}

pub(super) async fn life(bench: &mut Bench<'_>) -> Result<(), Stop> {
    let spec = bench.spec();
    bench.made(&spec).await?;
    let runs = |state: &MachineState| *state == MachineState::Running;
    let seen = bench.until(&spec, "the machine does not run", |seen| seen.is_some_and(|one| runs(&one.state))).await?;
    let dead = seen.as_ref().is_some_and(|machine| machine.fault.is_some());
    ensure!(!dead, "a machine that runs has a fault: {seen:?}");
    let addressed = |machine: &crate::ports::Machine| machine.address.as_ref().is_some_and(|at| !at.host.is_empty());
    bench.until(&spec, "the machine gets no address", |seen| seen.is_some_and(addressed)).await?;
    Ok(())
}

/// The error of a call that got no answer.
pub(super) fn unanswered<T: core::fmt::Debug>(answer: Result<T, ProviderError>, call: &str) -> Result<(), Stop> {
    match answer {
        Ok(answer) => failed(format!("a {call} without a reply is answered by {answer:?}")),
        Err(error) => {
            let unsure = error.certainty == Certainty::Unknown;
            ensure!(unsure, "a {call} without a reply is said to have had no effect, which nobody knows: {error:?}");
            ensure!(error.kind == ErrorKind::Transient, "a {call} without a reply is called {}: {error}", error.kind);
            Ok(())
        }
    }
}

pub(super) async fn lost_before(bench: &mut Bench<'_>) -> Result<(), Stop> {
    let before = bench.there().await?;
    let spec = bench.spec();
    bench.inject(Trouble::ReplyLostBefore).await?;
    unanswered(bench.create(&spec).await, "create")?;
    bench.heal().await;
    let made = bench.new_since(&before).await?;
    ensure!(made == 0, "a create that never arrived made {made} machines: it was sent again behind our back");
    bench.restart().await;
    let first = bench.made(&again(&spec)).await?;
    let made = bench.new_since(&before).await?;
    ensure!(made == 1, "the create and its repetition made {made} machines, {first} among them");
    Ok(())
}

pub(super) async fn lost_after(bench: &mut Bench<'_>) -> Result<(), Stop> {
    let before = bench.there().await?;
    let spec = bench.spec();
    bench.inject(Trouble::ReplyLostAfter).await?;
    unanswered(bench.create(&spec).await, "create")?;
    bench.heal().await;
    bench.restart().await;
    bench.lag().await;
    let reference = match bench.find(&spec).await {
        Ok(Some(machine)) => machine.reference,
        other => return failed(format!("the machine is not found by its mark: {other:?}")),
    };
    same(bench, &spec, &reference.0, "after its reply was lost").await?;
    let made = bench.new_since(&before).await?;
    ensure!(made == 1, "the create and its repetition made {made} machines");
    bench.inject(Trouble::ReplyLostAfter).await?;
    unanswered(bench.delete(&reference).await, "delete")?;
    bench.heal().await;
    match bench.delete(&reference).await {
        Ok(Progress::Pending { .. } | Progress::Done { .. }) => Ok(()),
        Err(error) => failed(format!("a delete whose reply was lost cannot be sent again: {error}")),
    }
}
