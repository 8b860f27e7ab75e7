//! What must hold, by number. Each check holds what a pool did against the truth of its world.

use alloc::collections::BTreeSet;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use super::super::lock::locked;
use super::super::naive;
use super::ledger::{Asked, Made, Seat};
use super::{Broken, Note, Sound, World, expect};
use crate::command::Action;
use crate::id::{ConfigId, ServerId, SessionId};
use crate::ports::MachineState;
use crate::report::{Decision, Fallback, Waiting, What};
use crate::row::{Outputs, RowKey};
use crate::server::{DeleteReason, DrainReason, Phase, PhaseKind};
use crate::session::EndReason;
use crate::time::Timestamp;

/// In so many steps of a world the naive planner is asked once: a prime, so that it falls on steps of all kinds.
const ASKED_EVERY: u64 = 251;

/// Pools that have more servers than this are spared its questions.
const ASKED_SERVERS_MAX: usize = 40;

impl World {
    // --- events, when they are saved ---

    pub(super) fn judge_events(&mut self, index: usize, outputs: &Outputs) -> Sound {
        for event in &outputs.events {
            self.note(index, Note::What(event.what.clone()));
            match &event.what {
                What::Server { server, phase, why, .. } => self.judge_move(index, *server, *phase, why.as_deref())?,
                What::SessionPlaced { session, server, .. } => self.judge_placed(index, event.at, *session, *server)?,
                What::SessionOver { session, why } => self.judge_over(index, event.at, *session, *why)?,
                What::Decided { decision, .. } => self.saw_decision(decision),
                What::SessionQueued { .. } => self.figures.saw("queued"),
                What::OrphanSeen { provider, machine } => {
                    self.figures.saw("orphan seen");
                    if let Some(cloud) = self.sky.index(provider) {
                        self.hosts[index].ledger.found_unknown(cloud, machine);
                    }
                }
                What::OrphanDeleted { .. } => self.figures.saw("orphan deleted"),
                What::OrphanComputerSeen { .. } => self.figures.saw("orphan computer seen"),
                What::OrphanComputerRemoved { .. } => self.figures.saw("orphan computer removed"),
                What::MassLoss { config, .. } => {
                    self.figures.saw("alarm: mass loss");
                    self.alarm(index, config.clone());
                }
                What::Frozen { config, freeze } => {
                    expect(false, "the pool finds nothing wrong with itself", || format!("{config}: {freeze}"))?
                }
                What::LossAcknowledged { .. } => self.figures.saw("mass loss acknowledged"),
                _ => {}
            }
        }
        Ok(())
    }

    fn judge_move(&mut self, index: usize, server: ServerId, phase: PhaseKind, why: Option<&str>) -> Sound {
        let ledger = &mut self.hosts[index].ledger;
        let before = ledger.phases.insert(server, phase);
        if let Some(before) = before {
            *self.figures.moves.entry((before, phase)).or_default() += 1;
            expect(before.may_become(phase), "a server's life goes as drawn", || {
                format!("{server}: {before} to {phase}")
            })?;
        }
        match phase {
            PhaseKind::Gone => {
                self.hosts[index].ledger.phases.remove(&server);
                self.judge_objects_gone(index, server, why)?;
                let left = self.machine_left(index, server);
                expect(left.is_none(), "I-20 and I-23 a server that is gone has left no machine", || {
                    format!("{server} gone ({why:?}), and there is {}", left.unwrap_or_default())
                })
            }
            PhaseKind::Ready if before == Some(PhaseKind::Starting) => self.judge_ready(index, server),
            PhaseKind::Ready if before == Some(PhaseKind::Draining) => {
                let ledger = &self.hosts[index].ledger;
                let why = ledger.drains.get(&server);
                let may = why.is_none_or(|why| why.is_undoable()) || ledger.undrains_asked.contains(&server);
                expect(may, "only a drain of the pool's own is taken back", || format!("{server}, drained: {why:?}"))
            }
            PhaseKind::Unenrolling => {
                self.saw_reason(index, server);
                let left = self.machine_left(index, server);
                expect(left.is_none(), "I-20 and I-23 a server that is gone has left no machine", || {
                    format!("{server} is only an object ({why:?}), and there is {}", left.unwrap_or_default())
                })
            }
            PhaseKind::Draining | PhaseKind::Deleting => {
                self.saw_reason(index, server);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// A machine of this server that is there and that nobody knows of.
    pub(super) fn machine_left(&self, index: usize, server: ServerId) -> Option<String> {
        let host = &self.hosts[index];
        // The row may have known another machine, while this one waits to be deleted as an orphan.
        let is_orphan = |made: &Made| {
            let mut orphans = host.pool.iter().flat_map(|pool| pool.orphans());
            orphans.any(|(name, machine)| self.sky.index(name) == Some(made.cloud) && *machine == made.reference)
        };
        host.ledger.left_behind(&self.sky, server, is_orphan, self.now)
    }

    /// I-24: what is ready has booted, has answered, has joined, and has spoken if it must.
    fn judge_ready(&mut self, index: usize, id: ServerId) -> Sound {
        self.judge_joined(index, id)?;
        let host = &self.hosts[index];
        let Some(pool) = &host.pool else { return Ok(()) };
        // It may have become ready and been lost in one step.
        let Some(server) = pool.server(id) else { return Ok(()) };
        let must_speak = pool.born_with(server).require_checkin;
        expect(!must_speak || host.ledger.spoken.contains(&id), "I-24 ready means checked in", || format!("{id}"))?;
        let Some((cloud, reference)) = self.machine_of(index, id) else { return Ok(()) };
        let cloud = locked(&self.sky.clouds[cloud]);
        let booted = cloud.sim.machine(&reference).and_then(|machine| machine.booted_at);
        expect(booted.is_some_and(|at| at <= self.now), "I-24 ready means that it answers", || {
            format!("{id} on {:?}", cloud.sim.machine(&reference))
        })
    }

    fn machine_of(&self, index: usize, id: ServerId) -> Option<(usize, crate::ports::MachineRef)> {
        let pool = self.hosts[index].pool.as_ref()?;
        let server = pool.server(id)?;
        let cloud = self.sky.index(&pool.born_with(server).provider)?;
        Some((cloud, server.machine.clone()?))
    }

    fn judge_placed(&mut self, index: usize, at: Timestamp, session: SessionId, id: ServerId) -> Sound {
        self.figures.placed += 1;
        let machine = self.machine_of(index, id);
        let host = &mut self.hosts[index];
        let Some(pool) = &host.pool else { return Ok(()) };
        let there = pool.session(session).is_some_and(|known| known.server() == Some(id));
        let Some(server) = pool.server(id) else { return Ok(()) };
        // Within one step a session may be placed, and its server be drained or lost.
        let was_ready = host.ledger.phases.get(&id) == Some(&PhaseKind::Ready);
        let is_ready = was_ready || server.phase.kind() == PhaseKind::Ready;
        expect(!there || is_ready, "I-03 sessions are placed on servers that are ready", || {
            format!("{session} on {id} {:?}", server.phase)
        })?;
        let born = pool.born_with(server);
        let (max, reusable) = (born.max_sessions_per_server.get(), born.reusable);
        let alive_until = at + host.keepalive_expiry();
        let again = host.ledger.seats.insert(session, Seat { server: id, machine, alive_until });
        expect(again.is_none(), "I-02 a session is placed once", || format!("{session} on {id}, before on {again:?}"))?;
        let seated = host.ledger.seated_on(id);
        expect(u32::try_from(seated).is_ok_and(|seated| seated <= max), "I-01 sessions within max", || {
            format!("{seated} on {id}, {max} may be")
        })?;
        let ever = host.ledger.placed_ever.entry(id).or_default();
        *ever += 1;
        expect(reusable || *ever <= max, "I-02 a slot that is not reusable is taken once", || {
            format!("{id} took {ever} of {max}")
        })
    }

    /// A session ends only for a reason that is true.
    fn judge_over(&mut self, index: usize, at: Timestamp, session: SessionId, why: EndReason) -> Sound {
        self.figures.saw(end_word(why));
        let host = &mut self.hosts[index];
        host.ledger.over.insert(session, at);
        let Some(seat) = host.ledger.seats.remove(&session) else {
            let waited = matches!(why, EndReason::QueueExpired | EndReason::Requested);
            return expect(waited, "I-04 who waits is not thrown out", || format!("{session}: {why}"));
        };
        match why {
            EndReason::Requested => {
                let asked = host.ledger.ends_asked.contains(&session);
                expect(asked, "I-14 a session ends when somebody asks for it", || {
                    format!("{session} on {}", seat.server)
                })
            }
            EndReason::KeepaliveExpired => {
                expect(seat.alive_until <= at, "I-14 a session that is kept alive lives", || {
                    format!("{session} on {}, kept alive until {}, ended at {at}", seat.server, seat.alive_until)
                })
            }
            EndReason::ServerDeleted => {
                let forced = host.ledger.forced.contains(&seat.server);
                expect(forced, "I-14 only force ends a session on a server", || format!("{session} on {}", seat.server))
            }
            EndReason::ServerLost => self.judge_lost(index, session, &seat),
            EndReason::QueueExpired => {
                expect(false, "I-04 who sits does not wait", || format!("{session} on {}", seat.server))
            }
        }
    }

    /// I-23: what is taken for lost is lost.
    fn judge_lost(&self, index: usize, session: SessionId, seat: &Seat) -> Sound {
        let Some((cloud, reference)) = &seat.machine else { return Ok(()) };
        let made = self.hosts[index].ledger.made.get(&seat.server);
        let beyond = made.into_iter().flatten().any(|made| made.reference == *reference && made.beyond);
        let cloud = locked(&self.sky.clouds[*cloud]);
        let state = cloud.sim.machine(reference).map(|machine| machine.state(self.now));
        expect(beyond || state != Some(MachineState::Running), "I-23 what counts as lost is lost", || {
            format!("{session} on {}, whose machine {reference} runs", seat.server)
        })
    }

    // --- decisions, now and then ---

    /// I-10 and I-18: what the pool would do if some people came and went now is what the text wants, says a planner that is
    /// naive and slow. So it is asked seldom, and not of large pools.
    pub(super) fn judge_by_the_text(&mut self, index: usize) -> Sound {
        if !self.figures.steps.is_multiple_of(ASKED_EVERY) {
            return Ok(());
        }
        let Some(pool) = self.hosts[index].pool.as_ref().filter(|pool| pool.servers().count() <= ASKED_SERVERS_MAX)
        else {
            return Ok(());
        };
        let judged = naive::judge(pool, self.figures.steps)
            .map_err(|found| Broken { invariant: "I-10 and I-18 the decisions are those of the text", found })?;
        let Some(doing) = judged else { return Ok(()) };
        for (what, happened) in [
            ("foretold: placed", !doing.placed.is_empty()),
            ("foretold: made", !doing.made.is_empty()),
            ("foretold: taken back", !doing.taken_back.is_empty()),
            ("foretold: drained", !doing.drained.is_empty()),
            ("foretold: covered", !doing.covers.is_empty()),
            ("foretold: backing off", !doing.backing_off.is_empty()),
        ] {
            if happened {
                self.figures.saw(what);
            }
        }
        Ok(())
    }

    // --- commands, when they are let go ---

    pub(super) fn judge_commands(&mut self, index: usize, outputs: &Outputs) -> Sound {
        let clock = self.now;
        let mut grown: BTreeSet<ConfigId> = BTreeSet::new();
        for command in &outputs.commands {
            self.figures.saw(command_word(command.action.verb()));
            // Outcomes of a process that lives on with another picture of its pool are told apart by this alone.
            let last = self.hosts[index].ledger.last_command.replace(command.id);
            expect(last < Some(command.id), "I-30 no number of a command is used twice", || {
                format!("{} after {last:?}", command.id)
            })?;
            let mutates = matches!(
                command.action,
                Action::Create(_) | Action::Delete { .. } | Action::Enroll(_) | Action::Unenroll { .. }
            );
            expect(!(mutates && self.is_silent), "I-17 nothing is made or deleted when nothing happens", || {
                format!("{:?}", command.action)
            })?;
            if let Action::Enroll(enroll) = &command.action {
                let is_first = self.judge_enrolment(index, command, enroll)?;
                let pool = self.hosts[index].pool.as_ref();
                let born = pool.and_then(|pool| pool.server(enroll.server.server)).map(|server| server.created_at);
                // One that was decided on in an earlier step, or life, is not judged by what is needed now.
                if is_first && born.is_some_and(|at| at >= self.hosts[index].clock(self.now)) {
                    grown.insert(enroll.config);
                }
            }
            let Action::Create(create) = &command.action else { continue };
            if create.spec.domain_join.is_some() {
                self.judge_create_joins(index, create.server.server)?;
            }
            let host = &mut self.hosts[index];
            let id = create.server.server;
            let row = host.store.get(&RowKey::Server(id)).map(|stored| &stored.row);
            expect(row.is_some(), "I-06 a create is written before it leaves", || format!("{id}"))?;
            let Some(cloud) = self.sky.index(&create.spec.provider) else { continue };
            let asked = Asked { config: create.config, cloud, given_up_at: clock + command.timeout };
            let again = host.ledger.asked.insert(id, asked);
            expect(again.is_none(), "I-07 a create leaves once", || format!("{id}"))?;
            // One that joins a domain was decided on when its object was asked for.
            if create.spec.domain_join.is_none() {
                grown.insert(create.config);
            }
        }
        for config in grown {
            self.judge_growth(index, config)?;
        }
        Ok(())
    }

    fn judge_growth(&mut self, index: usize, config: ConfigId) -> Sound {
        let host = &mut self.hosts[index];
        host.ledger.forget_gone(&self.sky, self.now);
        let Some(pool) = &host.pool else { return Ok(()) };
        let unknown: BTreeSet<_> =
            pool.orphans().filter_map(|(name, machine)| Some((self.sky.index(name)?, machine))).collect();
        let mut servers = host.ledger.servers_with_machines(&self.sky, config, self.now, &unknown);
        servers.extend(pool.servers().filter(|server| server.config == config).map(|server| server.id));
        let of_config = |made: &&Made| made.config == config && unknown.contains(&(made.cloud, &made.reference));
        let orphans = host.ledger.made.values().flatten().filter(of_config).count();
        let Some(newest) = pool.servers().filter(|server| server.config == config).last() else { return Ok(()) };
        let spec = pool.born_with(newest);
        let max = spec.max_servers;
        expect(
            u32::try_from(servers.len() + orphans).is_ok_and(|count| count <= max),
            "I-09 the cap counts what is not proved gone",
            || {
                format!(
                    "{} servers or machines of {config} and {orphans} unknown, {max} may be: {servers:?}",
                    servers.len()
                )
            },
        )?;
        // I-10: nothing beyond need, and nothing twice for one who waits.
        let report = pool.report();
        let Some(known) = report.configs.iter().find(|known| known.config == spec.name && !known.removed) else {
            return Ok(());
        };
        let per = spec.max_sessions_per_server.get();
        let supply = known.supply.free + known.supply.coming;
        let covering = known.fallback.iter().map(|fallback| match fallback {
            Fallback::CoveringFor { sessions, .. } => *sessions,
            Fallback::CoveredBy { .. } => 0,
        });
        let need = spec.minimum_available_sessions + report.waiting + covering.sum::<u32>();
        expect(supply < need + per, "I-10 nothing is made beyond need", || {
            format!("{}: {supply} for {} and {} who wait", spec.name, spec.minimum_available_sessions, report.waiting)
        })
    }

    /// I-13 and I-14: what a delete that has reached its cloud may be for.
    pub(super) fn judge_deletions(&mut self, index: usize) -> Sound {
        for number in 0..self.sky.clouds.len() {
            let mut cloud = locked(&self.sky.clouds[number]);
            if cloud.deletions.is_empty() {
                continue;
            }
            let deletions = core::mem::take(&mut cloud.deletions);
            for reference in deletions {
                let Some(machine) = cloud.sim.machine(&reference) else { continue };
                expect(machine.is_ours(), "I-13 nobody else's machine is touched", || format!("{machine:?}"))?;
                let host = &self.hosts[index];
                let owner = machine.server.map(|key| key.pool);
                expect(owner == Some(host.id), "I-13 no other pool's machine is touched", || format!("{machine:?}"))?;
                let sits = host.ledger.seats.iter().find(|(_, seat)| {
                    seat.machine.as_ref().is_some_and(|(of, name)| *of == number && *name == reference)
                });
                expect(sits.is_none(), "I-14 no machine is deleted under a session", || {
                    format!("{reference}: {sits:?}")
                })?;
            }
        }
        Ok(())
    }

    // --- the picture, after each step ---

    pub(super) fn judge_rows(&mut self, index: usize) -> Sound {
        let host = &mut self.hosts[index];
        let draining = host.pool.iter().flat_map(|pool| pool.servers()).filter_map(|server| match server.phase {
            Phase::Draining { why, .. } => Some((server.id, why)),
            _ => None,
        });
        host.ledger.drains = draining.collect();
        if !host.saves.is_multiple_of(8) {
            return Ok(());
        }
        for server in host.pool.iter().flat_map(|pool| pool.servers()) {
            let (Some(reference), Some(address)) = (&server.machine, &server.address) else { continue };
            let mut clouds = self.sky.clouds.iter();
            let leads = clouds.find_map(|cloud| Some(locked(cloud).at(&address.host)?.reference == *reference));
            expect(leads != Some(false), "I-03 whoever is placed on a server is led to its own machine", || {
                format!("{}, whose machine is {reference}, at {address:?}", server.id)
            })?;
        }
        if !host.saves.is_multiple_of(32) {
            return Ok(());
        }
        let difference = host.pool.as_ref().and_then(|pool| host.difference(pool, false));
        expect(difference.is_none(), "I-31 what is in mind is stored", || difference.unwrap_or_default())
    }

    /// I-17: deciding again on the same picture at the same instant decides nothing.
    pub(super) fn judge_settled(&mut self, index: usize, wake_at: Option<Timestamp>) -> Sound {
        let host = &mut self.hosts[index];
        let clock = host.clock(self.now);
        let asleep = wake_at.is_none_or(|at| at > clock);
        let Some(pool) = &mut host.pool else { return Ok(()) };
        // Where the clock was set back, this very instant is not over for the pool.
        if !asleep || !host.behind.is_zero() || !host.saves.is_multiple_of(16) || !pool_may_settle(pool) {
            return Ok(());
        }
        let again = pool.step(clock, []);
        expect(again.writes().is_empty(), "I-17 planning twice plans nothing", || format!("{:?}", again.writes()))?;
        let outputs = again.saved();
        expect(outputs.commands.is_empty(), "I-17 planning twice does nothing", || format!("{:?}", outputs.commands))
    }

    // --- the end of trouble ---

    /// I-16, first half: soon after trouble has ended, what is to be free is free.
    pub(super) fn expect_supplied(&self) -> Sound {
        for (index, host) in self.hosts.iter().enumerate() {
            let Some(pool) = &host.pool else { continue };
            let report = pool.report();
            for known in report.configs.iter().filter(|known| !known.removed && known.enabled) {
                let Some(spec) = pool.config(&known.config) else { continue };
                let capped = matches!(&known.decision, Decision::Wait { because: Waiting::CapReached { .. }, .. });
                let min = spec.minimum_available_sessions;
                expect(capped || known.supply.free >= min, "I-16 sessions are free again in time", || {
                    format!("pool {index} {}: {} free of {min}: {}", known.config, known.supply.free, known.decision)
                })?;
            }
        }
        Ok(())
    }

    /// I-16, second half: everything has come to rest where the configs want it.
    pub(super) fn expect_at_rest(&mut self) -> Sound {
        self.domains_catch_up()?;
        for index in 0..self.hosts.len() {
            self.hosts[index].ledger.forget_gone(&self.sky, self.now);
            let host = &self.hosts[index];
            let Some(pool) = &host.pool else { continue };
            let report = pool.report();
            let loose = (report.waiting, report.sessions, report.orphans.len() + report.orphan_computers.len());
            expect(loose == (0, 0, 0), "I-16 nobody waits, nobody sits, nothing is unknown", || {
                format!("{report:#?}")
            })?;
            for known in &report.configs {
                let Some(spec) = pool.config(&known.config) else { continue };
                let (min, per) = (spec.minimum_available_sessions, spec.max_sessions_per_server.get());
                let free = known.supply.free;
                expect(free >= min, "I-16 the minimum is free", || {
                    format!("{}: {free} of {min}: {}", known.config, known.decision)
                })?;
                // Servers that were born before an edit may be larger or smaller than the next one.
                let of_config =
                    pool.servers().map(|server| pool.born_with(server)).filter(|born| born.name == known.config);
                let least = of_config.map(|born| born.max_sessions_per_server.get()).min().unwrap_or(per);
                expect(free < min + least, "I-16 not a whole server too many", || {
                    format!("{}: {free} free of {min}, {least} per server: {}", known.config, known.decision)
                })?;
            }
            for server in pool.servers() {
                let rests = matches!(server.phase, Phase::Ready { .. });
                expect(rests, "I-25 every server comes to rest", || format!("{} {:?}", server.id, server.phase))?;
            }
            let there: usize = host.ledger.made.values().map(Vec::len).sum();
            let counts = |made: &&Made| self.is_marked(made.cloud, &made.reference) && !self.came_after_all(pool, made);
            let marked = host.ledger.made.values().flatten().filter(counts).count();
            let servers = pool.servers().count();
            expect(marked == servers, "I-20 as many machines as servers", || {
                format!("{marked} machines with our mark ({there} in all), {servers} servers: {:?}", host.ledger.made)
            })?;
            self.expect_objects_at_rest(host)?;
        }
        Ok(())
    }

    /// Whether a machine came long after its request had been given up, to a cloud that no config of its pool uses any more:
    /// it is found when the pool is restored or uses that cloud again, and not before.
    fn came_after_all(&self, pool: &crate::pool::Pool, made: &Made) -> bool {
        let cloud = locked(&self.sky.clouds[made.cloud]);
        let is_used = pool.configs().any(|spec| spec.provider == cloud.name);
        let mut on_it = pool.servers().filter(|server| pool.born_with(server).provider == cloud.name);
        let is_servers = on_it.any(|server| server.machine.as_ref() == Some(&made.reference));
        (made.late || made.lied_about) && !is_used && !is_servers
    }

    fn is_marked(&self, cloud: usize, reference: &crate::ports::MachineRef) -> bool {
        let cloud = locked(&self.sky.clouds[cloud]);
        cloud.sim.machine(reference).is_some_and(|machine| machine.marker.is_some())
    }

    /// I-20: nothing is left anywhere.
    pub(super) fn expect_nothing_left(&mut self) -> Sound {
        self.domains_catch_up()?;
        for index in 0..self.hosts.len() {
            self.hosts[index].ledger.forget_gone(&self.sky, self.now);
            let host = &self.hosts[index];
            let Some(pool) = &host.pool else { continue };
            expect(pool.is_empty(), "I-20 an empty pool in the end", || format!("{:#?}", pool.report()))?;
            let left: Vec<_> = host
                .ledger
                .made
                .values()
                .flatten()
                .filter(|made| self.is_marked(made.cloud, &made.reference) && !self.came_after_all(pool, made))
                .collect();
            expect(left.is_empty(), "I-20 no machine is left", || {
                let shown = left.iter().map(|made| {
                    let cloud = locked(&self.sky.clouds[made.cloud]);
                    format!("{made:?} {:?}\n", cloud.sim.machine(&made.reference))
                });
                shown.collect()
            })?;
            self.expect_no_objects_left(host)?;
            let rows = host.store.keys().filter(|key| !matches!(key, RowKey::Pool | RowKey::Session(_)));
            let rows: Vec<_> = rows.map(ToString::to_string).collect();
            expect(rows.is_empty(), "I-20 no row is left", || format!("{rows:?}"))?;
        }
        Ok(())
    }

    // --- what was seen ---

    fn saw_decision(&mut self, decision: &Decision) {
        let (word, waiting) = match decision {
            Decision::Steady { .. } => ("decision: steady", None),
            Decision::Create { held_back, .. } => ("decision: create", held_back.as_ref()),
            Decision::Undrain { .. } => ("decision: undrain", None),
            Decision::Wait { because, .. } => ("decision: wait", Some(because)),
            Decision::SurplusHeld { .. } => ("decision: surplus held", None),
            Decision::SurplusFrozen { .. } => ("decision: surplus frozen", None),
            Decision::SurplusInDoubt { .. } => ("decision: surplus in doubt", None),
            Decision::Drain { .. } => ("decision: drain", None),
            Decision::Emptying { .. } => ("decision: emptying", None),
            Decision::Empty => ("decision: empty", None),
        };
        self.figures.saw(word);
        if let Some(waiting) = waiting {
            self.figures.saw(match waiting {
                Waiting::CapReached { .. } => "waiting: cap reached",
                Waiting::InFlightFull { .. } => "waiting: in flight full",
                Waiting::BackingOff { .. } => "waiting: backing off",
                Waiting::Trying { .. } => "waiting: trying",
                Waiting::BreakerOpen { .. } => "waiting: breaker open",
                Waiting::Frozen { .. } => "waiting: frozen",
                Waiting::ProviderMissing { .. } => "waiting: provider missing",
                Waiting::DirectoryMissing { .. } => "waiting: directory missing",
                Waiting::NamesUsedUp { .. } => "waiting: names used up",
            });
        }
    }

    fn saw_reason(&mut self, index: usize, id: ServerId) {
        let server = self.hosts[index].pool.as_ref().and_then(|pool| pool.server(id));
        let word = server.and_then(|server| match &server.phase {
            Phase::Draining { why, .. } => Some(match why {
                DrainReason::Surplus => "drain: surplus",
                DrainReason::Disabled => "drain: disabled",
                DrainReason::Removed => "drain: removed",
                DrainReason::Operator => "drain: operator",
                DrainReason::Used => "drain: used",
            }),
            Phase::Deleting { why, .. } | Phase::Unenrolling { why, .. } => Some(match why {
                DeleteReason::Drained(_) => "delete: drained",
                DeleteReason::NotWanted => "delete: not wanted",
                DeleteReason::Frozen => "delete: frozen",
                DeleteReason::Operator => "delete: operator",
                DeleteReason::BootDeadline { .. } => "delete: boot deadline",
                DeleteReason::CreateFailed { .. } => "delete: create failed",
                DeleteReason::NotMade => "delete: not made",
                DeleteReason::EnrollFailed { .. } => "delete: enroll failed",
                DeleteReason::ComputerLost => "delete: computer lost",
                DeleteReason::MachineFailed => "delete: machine failed",
                DeleteReason::MachineStopped => "delete: machine stopped",
                DeleteReason::MachineLost => "delete: machine lost",
            }),
            _ => None,
        });
        if let Some(word) = word {
            self.figures.saw(word);
        }
    }
}

/// Whether deciding again must decide nothing. A config that may not ask for more machines at once leaves its part of the
/// queue to another one as soon as that one's machines are coming: nothing too much is made then, but in two steps.
fn pool_may_settle(pool: &crate::pool::Pool) -> bool {
    pool.report().configs.iter().all(|known| match &known.decision {
        Decision::Wait { because: why, .. } | Decision::Create { held_back: Some(why), .. } => {
            !matches!(why, Waiting::InFlightFull { .. })
        }
        _ => true,
    })
}

fn end_word(why: EndReason) -> &'static str {
    match why {
        EndReason::Requested => "end: requested",
        EndReason::KeepaliveExpired => "end: keepalive expired",
        EndReason::QueueExpired => "end: queue expired",
        EndReason::ServerLost => "end: server lost",
        EndReason::ServerDeleted => "end: server deleted",
    }
}

fn command_word(verb: &str) -> &'static str {
    match verb {
        "create" => "command: create",
        "poll" => "command: poll",
        "find" => "command: find",
        "list" => "command: list",
        "delete" => "command: delete",
        "enroll" => "command: enroll",
        "find_computer" => "command: find computer",
        "check_join" => "command: check join",
        "unenroll" => "command: unenroll",
        "list_computers" => "command: list computers",
        _ => "command: probe",
    }
}
