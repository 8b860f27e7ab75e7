//! Mistakes that can be planted in the core, to test the tests: each must be found by a simulated world within a minute.
//!
//! They exist only in builds with `--cfg kasm_mutants`, which `tests/mutants.sh` makes; in all others `planted!` is `false`.

use super::std::sync::OnceLock;

/// All of them.
pub const ALL: &[&str] = &[
    "answers-of-earlier-lives-believed",
    "calls-end-with-their-process",
    "checkin-not-awaited",
    "create-sent-again",
    "failed-lookup-is-absence",
    "foreign-machine-believed",
    "keepalive-ignored",
    "lag-skipped",
    "lags-outlive-a-restart",
    "lost-create-is-failure",
    "lost-delete-is-done",
    "only-ready-counts-against-the-cap",
    "orphans-not-counted",
    "orphans-not-deleted",
    "partial-list-is-complete",
    "probe-not-awaited",
    "sessions-not-looked-at-before-delete",
    "slots-taken-twice",
    "surplus-is-a-server-too-much",
    "undrained-without-a-look",
    "unused-providers-forgotten",
    "check-in-not-written",
    "enrolments-end-with-their-process",
    "foreign-object-believed",
    "join-not-awaited",
    "lost-removal-is-done",
    "machine-before-its-object",
    "object-left-behind",
    "object-not-looked-for",
    "partial-computer-list-is-complete",
    "removal-believed-too-early",
    "shown-object-not-taken",
    "unused-directories-forgotten",
    "priority-ignored",
    "least-surplus-forgotten",
    "twin-taken-for-its-own",
];

static PLANTED: OnceLock<&'static str> = OnceLock::new();

/// Plants one for the rest of this process.
///
/// # Errors
/// If there is none of this name, or one is planted already.
pub fn plant(name: &str) -> Result<(), alloc::string::String> {
    let known =
        ALL.iter().find(|known| **known == name).ok_or_else(|| alloc::format!("{name:?} is none of {ALL:?}"))?;
    PLANTED.set(known).map_err(|_| "one is planted already".into())
}

pub(crate) fn is_planted(name: &str) -> bool {
    PLANTED.get().is_some_and(|planted| *planted == name)
}
