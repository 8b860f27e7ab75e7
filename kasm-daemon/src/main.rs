//! `kasm-daemon`: see `kasm-daemon --help`. Everything it does is in the library.

#![forbid(unsafe_code)]

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use kasm_daemon::cli::{Action, Cli};
use kasm_daemon::trail::chain::Shown;
use kasm_daemon::{audit, demo, run};

/// The command line or the config file has a mistake (as for `check`); everything else that fails ends with 1.
const MISTAKE: u8 = 2;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&error),
    };
    match cli.command {
        Action::Demo { length, seed } => {
            run::log_for_demo();
            runtime.block_on(demo::run(length, seed)).map_or_else(|error| failed(&error), |()| ExitCode::SUCCESS)
        }
        Action::Run { config, insecure_no_auth } => match runtime.block_on(run::run(&config, insecure_no_auth)) {
            Ok(()) => ExitCode::SUCCESS,
            Err(run::RunError::Config(mistakes)) => {
                told(&mistakes.join("\n"));
                ExitCode::from(MISTAKE)
            }
            Err(error) => failed(&error),
        },
        Action::Check { config, online } => {
            let checked = runtime
                .block_on(async { if online { run::check_online(&config).await } else { run::check(&config).await } });
            told(&checked.text);
            if checked.sound { ExitCode::SUCCESS } else { ExitCode::from(MISTAKE) }
        }
        Action::Audit { store, config, head } => runtime.block_on(audited(store, config, head)),
        Action::Token { name } => run::token(&name).map_or_else(|error| failed(&error), |text| said(&text)),
        Action::Key => run::key().map_or_else(|error| failed(&error), |text| said(&text)),
    }
}

/// Ends with 1 for findings, so what keeps an audit from being made ends with [`MISTAKE`].
async fn audited(store: Option<PathBuf>, config: Option<PathBuf>, head: Option<Shown>) -> ExitCode {
    let (store, key) = match (store, config) {
        (Some(store), _) => (store, None),
        (None, config) => match run::store_of(&config.unwrap_or_default()) {
            Ok((store, key)) => (store, Some(key)),
            Err(mistakes) => {
                told(&mistakes.join("\n"));
                return ExitCode::from(MISTAKE);
            }
        },
    };
    match audit::audit(&store, &audit::Proof { key, head }) {
        Ok(audited) => {
            let told = said(&audited.text);
            if audited.findings == 0 { told } else { ExitCode::FAILURE }
        }
        Err(error) => {
            told(&format!("kasm-daemon: {error}"));
            ExitCode::from(MISTAKE)
        }
    }
}

fn failed(error: &dyn std::error::Error) -> ExitCode {
    told(&format!("kasm-daemon: {error}"));
    ExitCode::FAILURE
}

/// To standard error. Nobody can be told if that fails.
fn told(text: &str) {
    drop(writeln!(std::io::stderr(), "{text}"));
}

/// To standard output.
fn said(text: &str) -> ExitCode {
    if writeln!(std::io::stdout(), "{text}").is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
