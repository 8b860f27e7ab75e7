//! Real programs for tests: finding them, starting them on loopback, ending them. Used by every `tests/*_real.rs`.
//!
//! A program that is not installed makes a test skip itself, and say so. `KASM_REAL=required` makes it fail instead,
//! for CI; `KASM_SKIP_LOG` names a file that collects the notices.

// Each test file uses its own part of this.
#![allow(dead_code)]

use std::collections::BTreeSet;
use std::env;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::{MetadataExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// A program that tests use if it is there.
pub(crate) struct Program {
    /// The file's name.
    pub(crate) name: &'static str,
    /// The environment variable that names another file to use; a file that does not exist stands for "not installed".
    pub(crate) variable: &'static str,
    /// How to install it.
    pub(crate) install: &'static str,
}

impl Program {
    /// Where the program is. `None`: the test is to return, and the notice has been given.
    pub(crate) fn find(&self) -> Option<PathBuf> {
        let found = match env::var_os(self.variable) {
            Some(path) => Some(PathBuf::from(path)).filter(|path| path.is_file()),
            None => search(self.name),
        };
        if found.is_none() {
            skip(self.name, self.install);
        }
        found
    }
}

/// Looks where `make tools` puts what it installs, in PATH, and where Debian puts servers, which is not in everybody's PATH.
fn search(name: &str) -> Option<PathBuf> {
    let tools = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.tools/moto/bin");
    let path = env::var_os("PATH").unwrap_or_default();
    let servers = ["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from);
    std::iter::once(tools)
        .chain(env::split_paths(&path))
        .chain(servers)
        .map(|folder| folder.join(name))
        .find(|file| file.is_file())
}

/// Tells that a test does not run for want of something; panics with `KASM_REAL=required`.
pub(crate) fn skip(what: &str, install: &str) {
    let notice = format!("SKIPPED real component: {what} not found; {install}\n");
    assert!(env::var("KASM_REAL").as_deref() != Ok("required"), "KASM_REAL=required, but: {notice}");
    // Written past the test harness, which shows what is printed only for tests that fail.
    io::stderr().write_all(notice.as_bytes()).expect("stderr can be written");
    if let Some(log) = env::var_os("KASM_SKIP_LOG") {
        let mut log = OpenOptions::new().create(true).append(true).open(log).expect("KASM_SKIP_LOG can be written");
        log.write_all(notice.as_bytes()).expect("KASM_SKIP_LOG can be written");
    }
}

/// A port of 127.0.0.1 where nothing listens, never the same twice in one test program.
pub(crate) fn free_port() -> u16 {
    static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    loop {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a loopback port is free");
        let port = listener.local_addr().expect("a bound socket has an address").port();
        // A test that panics elsewhere does not matter here: a set of numbers cannot be half changed.
        if GIVEN.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).insert(port) {
            return port;
        }
    }
}

/// Waits until a condition holds, for this long at most, and returns whether it does.
#[expect(clippy::disallowed_methods, reason = "real programs take real time")]
pub(crate) fn wait_until(mut condition: impl FnMut() -> bool, timeout: Duration) -> bool {
    let deadline = Instant::now() + timeout;
    loop {
        if condition() {
            return true;
        }
        if Instant::now() >= deadline {
            return false;
        }
        sleep(Duration::from_millis(20));
    }
}

/// Lets a command run as nobody, owning this folder, if the tests run as root.
///
/// Servers then behave as in an ordinary user's tests, and neither make nor need folders of their own below `/run`.
pub(crate) fn unprivileged(command: &mut Command, folder: &Path) {
    const NOBODY: u32 = 65_534;
    // The tests made the folder, so it tells who they run as.
    if fs::metadata(folder).expect("the folder exists").uid() == 0 {
        give(folder, NOBODY);
        command.uid(NOBODY).gid(NOBODY);
    }
}

fn give(path: &Path, user: u32) {
    chown(path, Some(user), Some(user)).expect("root may give files away");
    if path.is_dir() {
        for entry in fs::read_dir(path).expect("the folder can be read") {
            give(&entry.expect("the folder can be read").path(), user);
        }
    }
}

/// A running program with all that it starts. Dropping it ends them (first asked, then made to) and waits until they
/// are gone.
pub(crate) struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts a command in a process group of its own, with both outputs in this file.
    pub(crate) fn start(command: &mut Command, log: &Path) -> Self {
        let file = File::create(log).expect("the log can be made");
        let copy = file.try_clone().expect("the log can be shared");
        let child = command.process_group(0).stdin(Stdio::null()).stdout(file).stderr(copy).spawn();
        let child = child.unwrap_or_else(|error| panic!("{command:?} does not start: {error}"));
        Self { child, log: log.into() }
    }

    /// Its process id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it has written so far.
    pub(crate) fn output(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// Whether it has ended by itself.
    pub(crate) fn has_ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }

    /// Sends a signal to the whole group. The shell does it, since the standard library cannot.
    pub(crate) fn signal(&self, name: &str) {
        let script = format!("kill -s {name} -- -{}", self.child.id());
        // The group may be gone already; that is what is wanted, and no news.
        let _ = Command::new("sh").args(["-c", &script]).stdin(Stdio::null()).stderr(Stdio::null()).status();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Asked first: X servers remove their sockets and locks.
        self.signal("TERM");
        let child = &mut self.child;
        wait_until(|| !matches!(child.try_wait(), Ok(None)), Duration::from_secs(2));
        self.signal("KILL");
        // Nothing can be done about an error here, and a panic in a drop would hide the test's own.
        let _ = self.child.wait();
    }
}
