//! The computer objects of servers that join a domain: made before their machines are, watched until the machines have
//! joined, and removed when the machines are gone.

use alloc::string::{String, ToString};
use alloc::vec::Vec;

use crate::advance::HELD_FOR;
use crate::backoff::directory_wait;
use crate::command::{Action, EnrollComputer, Outcome};
use crate::config::{ConfigSpec, DomainJoin};
use crate::id::{ConfigId, DirectoryName, ServerId};
use crate::ports::{Certainty, ComputerRef, DirectoryError, DirectoryErrorKind, JoinState};
use crate::report::{BackoffKind, CleanupReport};
use crate::server::{CreateCall, DeleteReason, Phase, PhaseKind, Server, UnenrollCall, UnenrollFailure};
use crate::state::{KnownDirectory, State};
use crate::time::Timestamp;

impl State {
    pub(crate) fn advance_enrolling(&mut self, id: ServerId) {
        let server = &self.servers[&id];
        let Phase::Enrolling { ask_at, deadline, .. } = server.phase else { return };
        if self.give_up_on(server, deadline) {
            self.give_up(id);
        } else if server.busy.is_none() && ask_at <= self.now && self.is_halted(server.config) {
            let again = self.now + HELD_FOR;
            self.edit_server(id, |server| {
                if let Phase::Enrolling { ask_at, .. } = &mut server.phase {
                    *ask_at = again;
                }
            });
        } else if server.busy.is_none()
            && ask_at <= self.now
            && let Some(enroll) = self.enroll_computer(server)
        {
            self.send_for_server(id, Action::Enroll(enroll));
        }
    }

    /// The request for a server's computer object: made of nothing but its row, so it is the same every time.
    fn enroll_computer(&self, server: &Server) -> Option<EnrollComputer> {
        let (key, spec) = (self.key(server.id), self.born_with(server));
        let DomainJoin { directory, ou, .. } = spec.domain_join.clone()?;
        let name = spec.server_name_pattern.name_of(&key)?;
        let deployment = self.row.spec.deployment;
        Some(EnrollComputer { directory, deployment, server: key, config: server.config, name, ou })
    }

    /// A directory is introduced. A request for a computer object that was in doubt when the rows were restored may have its
    /// effect for as long as its call is waited for, as a create may; and so may one of a life before that, although another one
    /// was answered meanwhile.
    pub(crate) fn extend_enrolments(&mut self, directory: &DirectoryName, call_timeout: core::time::Duration) {
        if self.directories.get(directory).is_some_and(|known| known.facts.is_some())
            || planted!("enrolments-end-with-their-process")
        {
            return;
        }
        let of_directory = |server: &&Server| self.directory_of(server).as_ref() == Some(directory);
        let restored: Vec<ServerId> = self.servers.values().filter(of_directory).map(|server| server.id).collect();
        for id in restored {
            let is_doubtful = self.doubtful.remove(&id);
            self.edit_unstored(id, |server| server.enrolled_at = server.enrolled_at + call_timeout);
            let enrolled_at = self.servers[&id].enrolled_at;
            match self.servers[&id].phase {
                Phase::Enrolling { .. } if is_doubtful => self.edit_server(id, |server| {
                    if let Phase::Enrolling { asked, .. } = &mut server.phase {
                        *asked = asked.map(|asked| asked + call_timeout);
                    }
                }),
                Phase::Unenrolling { call: UnenrollCall::Send, next_at, .. } => {
                    self.unenroll_at(id, enrolled_at.max(next_at))
                }
                _ => {}
            }
        }
    }

    pub(crate) fn ask_whether_joined(&mut self, id: ServerId) {
        let server = &self.servers[&id];
        if let (Some(directory), Some(computer)) = (self.directory_of(server), server.computer.clone()) {
            self.send_for_server(id, Action::CheckJoin { directory, computer });
        }
    }

    pub(crate) fn advance_unenrolling(&mut self, id: ServerId) {
        let server = &self.servers[&id];
        let Phase::Unenrolling { call, next_at, .. } = &server.phase else { return };
        let Some(directory) = self.directory_of(server).filter(|_| server.busy.is_none() && *next_at <= self.now)
        else {
            return;
        };
        let action = match (call, &server.computer) {
            (UnenrollCall::Send, Some(_)) if self.is_halted(server.config) => {
                let again = self.now + HELD_FOR;
                self.unenroll_at(id, again);
                return;
            }
            (UnenrollCall::Send, Some(computer)) => {
                let recursive = self.removes_recursively(server, &directory);
                Action::Unenroll { directory, computer: computer.clone(), recursive }
            }
            _ => Action::FindComputer { directory, server: self.key(id) },
        };
        self.send_for_server(id, action);
    }

    /// Whether what lies below a server's computer object goes with it. Here the edition in force has a say besides the one
    /// the server was born with: it is how an operator helps one that cannot be removed.
    fn removes_recursively(&self, server: &Server, directory: &DirectoryName) -> bool {
        let says = |spec: &ConfigSpec| {
            spec.domain_join.as_ref().is_some_and(|join| join.directory == *directory && join.recursive_cleanup)
        };
        says(self.born_with(server)) || says(self.configs[&server.config].spec())
    }

    // --- outcomes ---

    /// What a directory has answered to a question about this server, which was asked at `began`.
    pub(crate) fn directory_outcome(&mut self, id: ServerId, verb: &str, began: Timestamp, outcome: Outcome) {
        match (verb, outcome) {
            ("enroll", Outcome::Enrolled(Ok(computer))) => self.enrolled(id, computer),
            ("enroll", Outcome::Enrolled(Err(error))) if error.certainty == Certainty::NotApplied => {
                self.enroll_failed(id, &error)
            }
            ("enroll", outcome) => self.enroll_unsure(id, &failure_of(&outcome)),
            ("check_join", Outcome::JoinChecked(Ok(state))) => self.join_checked(id, state, began),
            ("check_join", outcome) => self.ask_again(id, directory_wait(failure_of(&outcome).kind, 1)),
            ("find_computer", Outcome::ComputerFound(Ok(Some(computer)))) => self.computer_known(id, computer),
            ("find_computer", Outcome::ComputerFound(Ok(None))) => self.computer_not_found(id, began),
            ("unenroll", Outcome::Unenrolled(Ok(()))) => self.unenrolled(id, began),
            ("find_computer" | "unenroll", outcome) => self.unenroll_failed(id, failure_of(&outcome)),
            _ => {}
        }
    }

    fn enrolled(&mut self, id: ServerId, computer: ComputerRef) {
        if self.speaks_for_its_config(id) {
            self.forgive_directory(self.servers[&id].config);
        }
        self.computer_known(id, computer);
        if let Phase::Enrolling { .. } = self.servers[&id].phase {
            // The time that the directory has taken is not the machine's.
            let deadline = self.now + self.born_with(&self.servers[&id]).boot_deadline;
            self.enter_phase(id, Phase::Creating { call: CreateCall::Intended, deadline }, None);
        }
    }

    /// The server's computer object has a name now. It keeps the first one: what else bears its mark is an orphan.
    fn computer_known(&mut self, id: ServerId, computer: ComputerRef) {
        if self.servers[&id].computer.is_some() {
            return;
        }
        let now = self.now;
        self.edit_server(id, |server| {
            server.computer = Some(computer);
            // Until then an earlier request for it may have its effect: it finds this one, or makes another if it is removed.
            server.enrolled_at = match &mut server.phase {
                Phase::Enrolling { asked, .. } => asked.map_or(now, |asked| asked.max(now)),
                _ => server.enrolled_at.max(now),
            };
            if let Phase::Unenrolling { call, next_at, .. } = &mut server.phase {
                (*call, *next_at) = (UnenrollCall::Send, server.enrolled_at);
            }
        });
    }

    /// A listing has shown an object of a server that does not know its own. One that looks for it in order to remove it has
    /// found it, also where looking it up does not say which of several it is.
    pub(crate) fn computer_shown(&mut self, id: ServerId, computer: &ComputerRef) {
        if matches!(self.servers[&id].phase, Phase::Unenrolling { .. }) && !planted!("shown-object-not-taken") {
            self.computer_known(id, computer.clone());
        }
    }

    /// A directory fails at making an object.
    fn directory_failed(&mut self, id: ServerId, kind: DirectoryErrorKind, error: String) {
        if self.speaks_for_its_config(id) {
            self.fail(self.servers[&id].config, BackoffKind::Directory(kind), None, error);
        }
    }

    /// Whether this server's directory is the one that its config's servers join now. One of an earlier edition may have been born
    /// to join another one, or to join one where the others join none; how that fares is nothing to them.
    fn speaks_for_its_config(&self, id: ServerId) -> bool {
        let server = &self.servers[&id];
        let current = self.configs[&server.config].spec().domain_join.as_ref();
        current.is_some_and(|join| self.directory_of(server).as_ref() == Some(&join.directory))
    }

    /// No object was made by this request, for certain. The server goes, and another one is tried when it is time.
    fn enroll_failed(&mut self, id: ServerId, error: &DirectoryError) {
        self.directory_failed(id, error.kind, error.to_string());
        if let Phase::Enrolling { .. } = self.servers[&id].phase {
            self.leave_enrolling(id, DeleteReason::EnrollFailed { kind: error.kind, code: error.code.clone() });
        }
    }

    /// Nobody knows what became of the request. It is made again: an object that it has made is then answered.
    fn enroll_unsure(&mut self, id: ServerId, failure: &UnenrollFailure) {
        let (now, kind) = (self.now, failure.kind);
        if planted!("machine-before-its-object") && self.servers[&id].phase.kind() == PhaseKind::Enrolling {
            return self.enrolled(id, ComputerRef("not-known".into()));
        }
        self.directory_failed(id, kind, failure.error.clone());
        self.edit_server(id, |server| {
            if let Phase::Enrolling { asked, tries, ask_at, .. } = &mut server.phase {
                *asked = Some(now);
                *tries += 1;
                *ask_at = now + directory_wait(kind, *tries);
            }
        });
    }

    /// A server without a machine goes. If there may be a computer object of it, that is looked for first.
    pub(crate) fn leave_enrolling(&mut self, id: ServerId, why: DeleteReason) {
        let server = &self.servers[&id];
        let Phase::Enrolling { asked, .. } = server.phase else { return };
        // A request may be on its way for as long as its answer is waited for.
        match asked.max(server.busy.map(|busy| busy.until)) {
            Some(_) if planted!("object-not-looked-for") => self.remove_server(id, Some(why.to_string())),
            None => self.remove_server(id, Some(why.to_string())),
            Some(last) => {
                let absent_from = last + self.directory_lag(server);
                let text = why.to_string();
                // What is found before that is not removed before: the request would make another one.
                self.edit_unstored(id, |server| server.enrolled_at = server.enrolled_at.max(last));
                self.begin_unenrolling(id, why, UnenrollCall::Locate { absent_from }, Some(text));
            }
        }
    }

    /// A server's machine is proved gone, or was certainly never made: now its computer object goes, if it has one. `why` is
    /// given where the server was not being deleted.
    pub(crate) fn machine_gone(&mut self, id: ServerId, why: Option<DeleteReason>) {
        let Some(server) = self.servers.get(&id) else { return };
        let text = why.as_ref().map(ToString::to_string);
        let known = if let Phase::Deleting { why, .. } = &server.phase { Some(why.clone()) } else { None };
        match server.computer {
            Some(_) if !planted!("object-left-behind") => {
                let why = why.or(known).unwrap_or(DeleteReason::NotMade);
                self.begin_unenrolling(id, why, UnenrollCall::Send, text);
            }
            _ => self.remove_server(id, text),
        }
    }

    fn begin_unenrolling(&mut self, id: ServerId, why: DeleteReason, call: UnenrollCall, text: Option<String>) {
        let now = self.now;
        // No object is removed while an earlier request may be under way that would make it again.
        let next_at = match call {
            UnenrollCall::Send => now.max(self.servers[&id].enrolled_at),
            UnenrollCall::Locate { .. } => now,
        };
        let phase = Phase::Unenrolling { since: now, why, call, tries: 0, next_at, failure: None };
        self.enter_phase(id, phase, text);
    }

    fn join_checked(&mut self, id: ServerId, state: JoinState, began: Timestamp) {
        let server = &self.servers[&id];
        let Phase::Starting { .. } = server.phase else { return };
        match state {
            JoinState::Joined => self.edit_server(id, |server| {
                if let Phase::Starting { joined, .. } = &mut server.phase {
                    *joined = true;
                }
            }),
            JoinState::Absent if began >= server.enrolled_at + self.directory_lag(server) => {
                let why = DeleteReason::ComputerLost;
                self.fail(server.config, BackoffKind::Boot, None, why.to_string());
                self.give_up_failed(id, why);
            }
            JoinState::Waiting | JoinState::Absent => {
                let poll_busy = self
                    .directory(server)
                    .map_or_else(|| KnownDirectory::default().poll_busy(), KnownDirectory::poll_busy);
                self.ask_again(id, poll_busy);
            }
        }
    }

    fn ask_again(&mut self, id: ServerId, wait: core::time::Duration) {
        let again = self.now + wait;
        self.edit_server(id, |server| {
            if let Phase::Starting { join_at, .. } = &mut server.phase {
                *join_at = again;
            }
        });
    }

    /// A look-up that began at `began` has found no computer object.
    fn computer_not_found(&mut self, id: ServerId, began: Timestamp) {
        let server = &self.servers[&id];
        let Phase::Unenrolling { call: UnenrollCall::Locate { absent_from }, .. } = server.phase else { return };
        // As for machines: this process must have seen the lag pass.
        let absent_from = absent_from.max(server.enrolled_at + self.directory_lag(server));
        if began >= absent_from {
            self.remove_server(id, None);
            return;
        }
        let poll_busy =
            self.directory(server).map_or_else(|| KnownDirectory::default().poll_busy(), KnownDirectory::poll_busy);
        let again = absent_from.min(self.now + poll_busy);
        self.unenroll_at(id, again);
    }

    /// A removal that began at `began` has been answered. Whoever does not know an object yet says of it too that it is gone, so
    /// the answer is believed once every controller must know it; till then it is asked for again.
    fn unenrolled(&mut self, id: ServerId, began: Timestamp) {
        let server = &self.servers[&id];
        let Phase::Unenrolling { .. } = server.phase else { return };
        let known_to_all_at = server.enrolled_at + self.directory_lag(server);
        if began >= known_to_all_at || planted!("removal-believed-too-early") {
            self.remove_server(id, None);
            return;
        }
        self.unenroll_at(id, known_to_all_at);
    }

    /// When the next thing is asked for a server that leaves its domain.
    fn unenroll_at(&mut self, id: ServerId, at: Timestamp) {
        self.edit_server(id, |server| {
            if let Phase::Unenrolling { next_at, .. } = &mut server.phase {
                *next_at = at;
            }
        });
    }

    fn unenroll_failed(&mut self, id: ServerId, failed: UnenrollFailure) {
        if planted!("lost-removal-is-done") && self.servers[&id].phase.kind() == PhaseKind::Unenrolling {
            return self.remove_server(id, None);
        }
        let now = self.now;
        self.edit_server(id, |server| {
            if let Phase::Unenrolling { tries, next_at, failure, .. } = &mut server.phase {
                *tries = tries.saturating_add(1);
                *next_at = now + directory_wait(failed.kind, *tries);
                *failure = Some(failed);
            }
        });
    }

    /// A config was set: what could not be removed under its old settings is tried again at once.
    pub(crate) fn retry_unenrolling(&mut self, config: ConfigId) {
        let now = self.now;
        let waits = |server: &&Server| {
            server.config == config && matches!(server.phase, Phase::Unenrolling { failure: Some(_), .. })
        };
        let waiting: Vec<ServerId> = self.servers.values().filter(waits).map(|server| server.id).collect();
        for id in waiting {
            self.edit_server(id, |server| {
                if let Phase::Unenrolling { next_at, .. } = &mut server.phase {
                    *next_at = now.min(*next_at);
                }
            });
        }
    }

    /// The servers of a config whose computer objects could not be removed so far.
    pub(crate) fn cleanups(&self, config: ConfigId) -> Vec<CleanupReport> {
        let of_config = self.servers.values().filter(|server| server.config == config);
        let report = |server: &Server| match &server.phase {
            Phase::Unenrolling { tries, next_at, failure: Some(failure), .. } => Some(CleanupReport {
                server: server.id,
                computer: server.computer.clone(),
                tries: *tries,
                next_at: *next_at,
                kind: failure.kind,
                error: failure.error.clone(),
            }),
            _ => None,
        };
        of_config.filter_map(report).collect()
    }

    // --- the directory of a server ---

    fn directory_of(&self, server: &Server) -> Option<DirectoryName> {
        self.born_with(server).domain_join.as_ref().map(|join| join.directory.clone())
    }

    fn directory(&self, server: &Server) -> Option<&KnownDirectory> {
        self.directories.get(&self.born_with(server).domain_join.as_ref()?.directory)
    }

    fn directory_lag(&self, server: &Server) -> core::time::Duration {
        self.directory(server)
            .map_or_else(|| KnownDirectory::default().visibility_lag(), KnownDirectory::visibility_lag)
    }
}

/// How a call to a directory failed, if it brought no answer that says more.
fn failure_of(outcome: &Outcome) -> UnenrollFailure {
    match outcome.directory_error() {
        Some(error) => UnenrollFailure { kind: error.kind, error: error.to_string() },
        None => UnenrollFailure { kind: DirectoryErrorKind::Transient, error: "no answer came in time".into() },
    }
}
