//! What came of commands: each outcome is one more observation, believed as far as it goes.

use alloc::string::{String, ToString};
use alloc::vec::Vec;

use crate::backoff::retry_wait;
use crate::command::Outcome;
use crate::failures::is_shortage;
use crate::id::{CommandId, ProviderName, ServerId};
use crate::ports::{Certainty, ErrorKind, Machine, MachineRef, MachineState, Marker, Progress, ProviderError};
use crate::report::{BackoffKind, What};
use crate::server::{CreateCall, DeleteCall, DeleteReason, Phase, PhaseKind, Server};
use crate::session::EndReason;
use crate::state::{InFlight, State, Subject};
use crate::time::Timestamp;

/// How long to wait before probing again.
const PROBE_INTERVAL: core::time::Duration = core::time::Duration::from_secs(3);

impl State {
    /// An outcome has come in. One that nobody waits for any more, or that an earlier life of the pool waited for, is ignored.
    pub(crate) fn finished(&mut self, command: CommandId, outcome: Outcome) {
        let Some(in_flight) = self.in_flight.remove(&command) else { return };
        if let Some(error) = call_error(&outcome) {
            self.note_failure(&in_flight, error);
        }
        match in_flight.subject {
            Subject::Server(id) => self.server_outcome(id, command, &in_flight, outcome),
            Subject::Listing(name) => self.listing_outcome(&name, in_flight.sent_at, outcome),
            Subject::Orphan(name, machine) => self.orphan_outcome(&name, &machine, outcome),
            Subject::ComputerListing(name) => self.computers_outcome(&name, in_flight.sent_at, outcome),
            Subject::OrphanComputer(name, computer) => self.orphan_computer_outcome(&name, &computer, &outcome),
        }
    }

    fn note_failure(&mut self, in_flight: &InFlight, error: String) {
        // A listing that goes on failing is told once; the count is in the metrics.
        let failures = match &in_flight.subject {
            Subject::Listing(name) => self.providers.get(name).map_or(0, |known| known.failures),
            Subject::ComputerListing(name) => self.directories.get(name).map_or(0, |known| known.failures),
            _ => 0,
        };
        if failures > 0 {
            return;
        }
        let server = if let Subject::Server(id) = in_flight.subject { Some(id) } else { None };
        let verb = in_flight.verb.into();
        if let Some(provider) = in_flight.provider.clone() {
            self.event(What::CallFailed { provider, verb, server, error });
        } else if let Some(directory) = in_flight.directory.clone() {
            self.event(What::DirectoryCallFailed { directory, verb, server, error });
        }
    }

    fn server_outcome(&mut self, id: ServerId, command: CommandId, in_flight: &InFlight, outcome: Outcome) {
        let Some(server) = self.servers.get(&id) else { return };
        if server.busy.is_some_and(|busy| busy.command == command) {
            self.edit_unstored(id, |server| server.busy = None);
        }
        match (in_flight.verb, outcome) {
            ("create" | "poll", Outcome::Progress(Ok(progress))) => self.create_progressed(id, progress),
            ("create", Outcome::Progress(Err(error))) => self.create_failed(id, &error),
            ("create", _) => self.create_unsure(id, ErrorKind::Transient, None, "no answer came"),
            ("poll", Outcome::Progress(Err(error))) => self.poll_failed(id, &error),
            ("find", Outcome::Found(Ok(machine))) => self.found(id, machine, in_flight.sent_at),
            ("find", Outcome::Found(Err(_))) if planted!("failed-lookup-is-absence") => {
                self.found(id, None, in_flight.sent_at)
            }
            ("find", Outcome::Found(Err(error))) => self.find_failed(id, Some(&error)),
            ("find" | "poll", _) => self.find_failed(id, None),
            ("delete", Outcome::Progress(Ok(progress))) => self.delete_progressed(id, &progress),
            ("delete", Outcome::Progress(Err(error))) => self.delete_failed(id, Some(&error)),
            ("delete", _) => self.delete_failed(id, None),
            ("probe", outcome) => self.probed(id, matches!(outcome, Outcome::Probed(Ok(())))),
            (verb, outcome) => self.directory_outcome(id, verb, in_flight.sent_at, outcome),
        }
    }

    // --- making machines ---

    fn create_progressed(&mut self, id: ServerId, progress: Progress) {
        if !matches!(progress, Progress::Pending { op: Some(_), .. }) {
            // An operation that was accepted may still end for want of capacity: only its end says that machines are made again.
            self.forgive_create(id);
        }
        match progress {
            Progress::Pending { machine: Some(machine), .. } | Progress::Done { machine: Some(machine) } => {
                self.adopt(id, machine)
            }
            Progress::Pending { machine: None, op: Some(op) } => {
                let poll_at = self.now + self.poll_busy(id);
                if let Phase::Creating { .. } = self.servers[&id].phase {
                    self.edit_server(id, |server| {
                        if let Phase::Creating { call, .. } = &mut server.phase {
                            *call = CreateCall::Accepted { op, poll_at };
                        }
                    });
                }
            }
            Progress::Pending { machine: None, op: None } | Progress::Done { machine: None } => self.set_unsure(id),
        }
    }

    /// The server's machine has a name now. It keeps the first one: what else bears its mark is an orphan.
    fn adopt(&mut self, id: ServerId, machine: MachineRef) {
        if self.servers[&id].machine.is_some() {
            return;
        }
        let now = self.now;
        // It may have been seen before anybody said whose it is.
        let provider = self.born_with(&self.servers[&id]).provider.clone();
        self.forget_orphans(&provider, |known| *known == machine);
        self.edit_server(id, |server| {
            server.machine = Some(machine);
            server.named_at = now;
        });
        match self.servers[&id].phase {
            Phase::Creating { deadline, .. } => {
                self.enter_phase(
                    id,
                    Phase::Starting {
                        deadline,
                        running: false,
                        answered: false,
                        probe_at: now,
                        joined: false,
                        join_at: now,
                    },
                    None,
                );
            }
            Phase::Deleting { .. } => self.edit_deletion(id, |call, _, next_at| {
                if matches!(call, DeleteCall::Locate { .. }) {
                    *call = DeleteCall::Send;
                    *next_at = now;
                }
            }),
            _ => {}
        }
    }

    fn create_failed(&mut self, id: ServerId, error: &ProviderError) {
        if error.certainty == Certainty::Unknown {
            self.create_unsure(id, error.kind, Some(error), &error.to_string());
            return;
        }
        self.create_refused(id, error.kind, error.retry_after, error.to_string());
        // The very first call failed for certain, so there is nothing to delete. After an unsure one there might be.
        let only_call = matches!(self.servers[&id].phase, Phase::Creating { call: CreateCall::Intended, .. });
        if only_call {
            let why = DeleteReason::CreateFailed { kind: error.kind, code: error.code.clone() };
            self.machine_gone(id, Some(why));
        }
    }

    fn create_unsure(&mut self, id: ServerId, kind: ErrorKind, error: Option<&ProviderError>, text: &str) {
        self.create_refused(id, kind, error.and_then(|error| error.retry_after), text.into());
        if planted!("lost-create-is-failure") && self.servers[&id].phase.kind() == PhaseKind::Creating {
            self.machine_gone(id, Some(DeleteReason::NotMade));
        } else if !planted!("create-sent-again") {
            self.set_unsure(id);
        }
    }

    /// From now on nobody sends this create again: it is looked up.
    pub(crate) fn set_unsure(&mut self, id: ServerId) {
        let now = self.now;
        self.edit_server(id, |server| {
            if let Phase::Creating { call, .. } = &mut server.phase {
                *call = CreateCall::Unsure { since: now, find_at: now, tries: 0 };
            }
        });
    }

    /// A create that was in doubt when the rows were restored may have its effect for as long as its call is waited for: a
    /// host that reads its pool anew goes on with the calls it has begun.
    pub(crate) fn extend_doubt(&mut self, provider: &ProviderName, call_timeout: core::time::Duration) {
        let of_provider = |server: &Server| {
            server.phase.kind() != PhaseKind::Enrolling && self.born_with(server).provider == *provider
        };
        for id in self.doubtful_where(of_provider) {
            self.doubtful.remove(&id);
            if planted!("calls-end-with-their-process") {
                continue;
            }
            self.edit_server(id, |server| {
                if let Phase::Creating { call: CreateCall::Unsure { since, .. }, .. } = &mut server.phase {
                    *since = *since + call_timeout;
                }
            });
        }
    }

    /// The servers among those in doubt of which this is true.
    pub(crate) fn doubtful_where(&self, is: impl Fn(&Server) -> bool) -> Vec<ServerId> {
        self.doubtful.iter().copied().filter(|id| self.servers.get(id).is_some_and(&is)).collect()
    }

    fn poll_failed(&mut self, id: ServerId, error: &ProviderError) {
        let failed_for_good = error.certainty == Certainty::NotApplied
            && !matches!(error.kind, ErrorKind::Throttled | ErrorKind::Transient | ErrorKind::Denied);
        if !failed_for_good {
            self.find_failed(id, Some(error));
        } else if let Phase::Creating { .. } = self.servers[&id].phase {
            self.create_refused(id, error.kind, error.retry_after, error.to_string());
            self.delete_server(id, DeleteReason::CreateFailed { kind: error.kind, code: error.code.clone() });
        }
    }

    /// A look-up that began at `began` has come back. Its answer may be as old as that, so absence counts from there.
    fn found(&mut self, id: ServerId, machine: Option<Machine>, began: Timestamp) {
        // A machine that another installation has marked is not this server's, whatever the provider made of the question.
        if let Some(machine) = machine.filter(|machine| self.is_machine_of(id, machine)) {
            match &self.servers[&id].machine {
                Some(known) if *known != machine.reference && !planted!("twin-taken-for-its-own") => {
                    self.twin_seen(id, &machine)
                }
                _ => self.observe(id, &machine),
            }
            return;
        }
        let server = &self.servers[&id];
        let lag = self.visibility_lag(server);
        let now = self.now;
        // Whatever was written before this process began, it has to see for itself that the lag passes: the host's clock may
        // have been set forward meanwhile.
        let known_long_enough = server.named_at + lag;
        match &server.phase {
            Phase::Creating { call: CreateCall::Unsure { since, .. }, .. } => {
                let proof = known_long_enough.max(*since + lag);
                if began >= proof || planted!("lag-skipped") {
                    self.machine_gone(id, Some(DeleteReason::NotMade));
                } else {
                    let again = proof.min(now + self.poll_busy(id));
                    self.edit_server(id, |server| {
                        if let Phase::Creating { call: CreateCall::Unsure { find_at, .. }, .. } = &mut server.phase {
                            *find_at = again;
                        }
                    });
                }
            }
            Phase::Deleting { call, .. } => {
                let proof = match call {
                    DeleteCall::Locate { absent_from } => known_long_enough.max(*absent_from),
                    _ => known_long_enough,
                };
                let may_prove = matches!(call, DeleteCall::Locate { .. } | DeleteCall::Confirm { .. });
                if may_prove && began >= proof {
                    self.machine_gone(id, None);
                } else {
                    let again = proof.min(now + self.poll_busy(id)).max(now);
                    self.edit_deletion(id, |_, _, next_at| *next_at = again);
                }
            }
            _ => {}
        }
    }

    /// A machine was seen that bears a server's mark and is not the one that the server knows: one too many. Nothing that is true
    /// of it is true of the server's own, and where that is being deleted, this proves neither that it is there nor that it is gone.
    fn twin_seen(&mut self, id: ServerId, machine: &Machine) {
        let server = &self.servers[&id];
        let (config, provider) = (server.config, self.born_with(server).provider.clone());
        if !matches!(machine.state, MachineState::Deleting | MachineState::Deleted) {
            self.orphan_seen(&provider, &machine.reference, config, false);
        }
        if self.servers[&id].phase.kind() == PhaseKind::Deleting {
            let look_at = self.now + self.poll_busy(id);
            self.edit_deletion(id, |_, _, next_at| *next_at = look_at);
        }
    }

    fn is_machine_of(&self, id: ServerId, machine: &Machine) -> bool {
        let (deployment, key) = (self.row.spec.deployment, self.key(id));
        let bears_mark =
            |marker: &Marker| (marker.deployment, marker.pool) == (deployment, key.pool) && marker.server == key.uuid();
        planted!("foreign-machine-believed")
            || self.servers[&id].machine.as_ref() == Some(&machine.reference)
            || machine.marker.as_ref().is_some_and(bears_mark)
    }

    fn find_failed(&mut self, id: ServerId, error: Option<&ProviderError>) {
        let now = self.now;
        let wait = |tries| retry_wait(error.map(|error| error.kind), tries, error.and_then(|error| error.retry_after));
        self.edit_server(id, |server| match &mut server.phase {
            Phase::Creating { call: CreateCall::Unsure { find_at, tries, .. }, .. } => {
                *tries += 1;
                *find_at = now + wait(*tries);
            }
            Phase::Creating { call: CreateCall::Accepted { poll_at, .. }, .. } => *poll_at = now + wait(1),
            Phase::Deleting { tries, next_at, .. } => {
                *tries += 1;
                *next_at = now + wait(*tries);
            }
            _ => {}
        });
    }

    // --- deleting machines ---

    fn delete_progressed(&mut self, id: ServerId, progress: &Progress) {
        if !matches!(self.servers[&id].phase, Phase::Deleting { .. }) {
            return;
        }
        if matches!(progress, Progress::Done { .. }) {
            self.machine_gone(id, None);
            return;
        }
        let now = self.now;
        let look_at = now + self.poll_busy(id);
        self.edit_deletion(id, |call, tries, next_at| {
            *call = DeleteCall::Confirm { accepted_at: now };
            *tries = 0;
            *next_at = look_at;
        });
    }

    fn delete_failed(&mut self, id: ServerId, error: Option<&ProviderError>) {
        let now = self.now;
        if planted!("lost-delete-is-done") && error.is_none() && self.servers[&id].phase.kind() == PhaseKind::Deleting {
            return self.remove_server(id, None);
        }
        self.edit_deletion(id, |_, tries, next_at| {
            *tries += 1;
            *next_at =
                now + retry_wait(error.map(|error| error.kind), *tries, error.and_then(|error| error.retry_after));
        });
    }

    pub(crate) fn edit_deletion(&mut self, id: ServerId, edit: impl FnOnce(&mut DeleteCall, &mut u32, &mut Timestamp)) {
        self.edit_server(id, |server| {
            if let Phase::Deleting { call, tries, next_at, .. } = &mut server.phase {
                edit(call, tries, next_at);
            }
        });
    }

    /// Starts deleting a server's machine, wherever it stands. A server whose create has not left yet has none.
    pub(crate) fn delete_server(&mut self, id: ServerId, why: DeleteReason) {
        let Some(server) = self.servers.get(&id) else { return };
        if server.phase.kind() == PhaseKind::Enrolling {
            return self.leave_enrolling(id, why);
        }
        let now = self.now;
        let call = match (&server.machine, &server.phase) {
            (Some(_), _) => DeleteCall::Send,
            (None, Phase::Creating { call: CreateCall::Intended, .. }) if server.busy.is_none() => {
                self.machine_gone(id, Some(why));
                return;
            }
            (None, Phase::Creating { call: CreateCall::Unsure { since, .. }, .. }) => {
                DeleteCall::Locate { absent_from: *since + self.visibility_lag(server) }
            }
            // The call may be on its way for as long as it is waited for.
            (None, _) => DeleteCall::Locate {
                absent_from: server.busy.map_or(now, |busy| busy.until) + self.visibility_lag(server),
            },
        };
        let text = why.to_string();
        self.enter_phase(id, Phase::Deleting { since: now, why, call, tries: 0, next_at: now }, Some(text));
    }

    // --- what machines look like ---

    fn probed(&mut self, id: ServerId, ok: bool) {
        let again = self.now + PROBE_INTERVAL;
        self.edit_server(id, |server| {
            if let Phase::Starting { answered, probe_at, .. } = &mut server.phase {
                *answered = ok;
                *probe_at = again;
            }
        });
    }

    /// A machine of this server was seen.
    pub(crate) fn observe(&mut self, id: ServerId, machine: &Machine) {
        let server = &self.servers[&id];
        if server.machine.is_none() && machine.state != MachineState::Deleted {
            if machine.state != MachineState::Failed {
                // However it was found out: a machine was made.
                self.forgive_create(id);
            }
            self.adopt(id, machine.reference.clone());
        }
        let server = &self.servers[&id];
        if machine.address.is_some() && server.address != machine.address {
            let address = machine.address.clone();
            self.edit_server(id, |server| server.address = address);
        }
        self.seen(id);
        match (self.servers[&id].phase.kind(), &machine.state) {
            (PhaseKind::Starting, MachineState::Running) => self.machine_runs(id),
            (
                PhaseKind::Creating | PhaseKind::Starting,
                MachineState::Failed | MachineState::Deleting | MachineState::Deleted,
            ) => self.boot_failed(id, machine),
            (PhaseKind::Ready | PhaseKind::Draining, MachineState::Failed) => {
                self.lose(id, DeleteReason::MachineFailed)
            }
            (PhaseKind::Ready | PhaseKind::Draining, MachineState::Stopped) => {
                self.lose(id, DeleteReason::MachineStopped)
            }
            (PhaseKind::Ready | PhaseKind::Draining, MachineState::Deleting | MachineState::Deleted) => {
                self.lose(id, DeleteReason::MachineLost)
            }
            (PhaseKind::Deleting, MachineState::Deleted) => self.machine_gone(id, None),
            (PhaseKind::Deleting, state) => self.still_there(id, *state == MachineState::Deleting),
            _ => {}
        }
    }

    fn seen(&mut self, id: ServerId) {
        // Not an edit: it is neither stored nor counted, and a listing shows every server.
        if let Some(server) = self.servers.get_mut(&id) {
            server.absent = 0;
        }
    }

    fn machine_runs(&mut self, id: ServerId) {
        let now = self.now;
        if let Phase::Starting { running: false, .. } = self.servers[&id].phase {
            self.forgive_shortage(id);
            self.edit_server(id, |server| {
                if let Phase::Starting { running, probe_at, .. } = &mut server.phase {
                    *running = true;
                    *probe_at = now;
                }
            });
        }
    }

    /// A deletion was accepted, and the machine is seen all the same. If it does not look as if it were going, ask again.
    fn still_there(&mut self, id: ServerId, going: bool) {
        const PATIENCE: core::time::Duration = core::time::Duration::from_secs(120);
        let now = self.now;
        let look_at = now + self.poll_busy(id);
        self.edit_deletion(id, |call, tries, next_at| {
            if let DeleteCall::Confirm { accepted_at } = call {
                *next_at = look_at;
                if !going && now >= *accepted_at + PATIENCE {
                    *call = DeleteCall::Send;
                    *tries += 1;
                }
            }
        });
    }

    fn boot_failed(&mut self, id: ServerId, machine: &Machine) {
        let fault = machine.fault.as_ref();
        if let Some(fault) = fault {
            self.create_refused(id, fault.kind, fault.retry_after, fault.to_string());
        }
        // A shortage says nothing against the config, but any other machine that broke does.
        if fault.is_none_or(|fault| !is_shortage(fault.kind)) {
            let config = self.servers[&id].config;
            self.fail(config, BackoffKind::Boot, None, "the machine broke while it was made".into());
        }
        if machine.state == MachineState::Failed {
            self.give_up_failed(id, DeleteReason::MachineFailed);
        } else {
            self.delete_server(id, DeleteReason::MachineFailed);
        }
    }

    pub(crate) fn lose(&mut self, id: ServerId, why: DeleteReason) {
        self.end_sessions_on(id, EndReason::ServerLost);
        self.delete_server(id, why);
    }

    pub(crate) fn visibility_lag(&self, server: &Server) -> core::time::Duration {
        let provider = self.providers.get(&self.born_with(server).provider);
        provider
            .map_or_else(|| crate::state::Provider::default().visibility_lag(), crate::state::Provider::visibility_lag)
    }

    fn poll_busy(&self, id: ServerId) -> core::time::Duration {
        let name = &self.born_with(&self.servers[&id]).provider;
        self.providers
            .get(name)
            .map_or_else(|| crate::state::Provider::default().poll_busy(), crate::state::Provider::poll_busy)
    }
}

/// The error of a call to a provider or directory, in words; a probe that finds no answer is no such error.
fn call_error(outcome: &Outcome) -> Option<String> {
    match outcome {
        Outcome::Probed(_) => None,
        Outcome::Lost => Some("no answer came in time".into()),
        other => other.error(),
    }
}
