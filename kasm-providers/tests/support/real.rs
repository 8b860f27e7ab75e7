//! What tests against real components do when the component is not installed.

use std::env;
use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};

/// The executable: the file named by the environment variable, or the first one in `PATH` or under `target/tools`.
pub(crate) fn executable(variable: &str, name: &str) -> Option<PathBuf> {
    if let Some(given) = env::var_os(variable).filter(|given| !given.is_empty()) {
        return Some(PathBuf::from(given)).filter(|path| path.is_file());
    }
    let path = env::var_os("PATH").unwrap_or_default();
    let tools = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/tools");
    let tools = ["", "bin", "moto/bin", "venv/bin"].map(|folder| tools.join(folder));
    env::split_paths(&path).chain(tools).map(|folder| folder.join(name)).find(|path| path.is_file())
}

/// Says that a test is skipped, on stderr and in the file named by `KASM_SKIP_LOG`.
///
/// # Panics
///
/// If `KASM_REAL=required`: a run that is to prove something must not skip.
pub(crate) fn skip(component: &str, variable: &str) {
    let line = format!("SKIPPED real component: {component} not found (set {variable} or put it in PATH)\n");
    assert!(env::var_os("KASM_REAL").is_none_or(|wish| wish != "required"), "{line}");
    // Not by eprintln: the test harness would keep it to itself.
    std::io::stderr().write_all(line.as_bytes()).expect("stderr is open");
    if let Some(log) = env::var_os("KASM_SKIP_LOG").filter(|log| !log.is_empty()) {
        let file = OpenOptions::new().create(true).append(true).open(&log);
        file.and_then(|mut file| file.write_all(line.as_bytes()))
            .expect("the file named by KASM_SKIP_LOG can be written");
    }
}
