//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, Subcommand};
use kasm_autoscale_core::time::Span;

use crate::trail::chain::Shown;

/// Server pools that keep their free sessions.
#[derive(Debug, Parser)]
#[command(name = "kasm-daemon", version, about, propagate_version = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Action,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Action {
    /// Show a pool of simulated servers with simulated users, live in the terminal. Needs no configuration.
    Demo {
        /// End by itself after this time, as in 30s or 2m.
        #[arg(long = "for", value_name = "TIME", value_parser = span)]
        length: Option<Duration>,
        /// Draw users and boot times from this number: the same number, the same crowd.
        #[arg(long, default_value_t = 1)]
        seed: u64,
    },
    /// Run the daemon.
    Run {
        /// The config file.
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
        /// Let everybody use the API without a token. Only where it listens on a loopback address.
        #[arg(long)]
        insecure_no_auth: bool,
    },
    /// Read a config file and tell all its mistakes at once. Ends with code 2 if there are any.
    Check {
        /// The config file.
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
        /// Ask those the file speaks of as well: whether the providers could make the machines of every config now, whether
        /// directories answer, and whether our accounts have the rights they need. Makes a computer object in each
        /// organisational unit and removes it again; of providers it only reads.
        #[arg(long)]
        online: bool,
    },
    /// Run every check over a store and tell what does not add up, each finding with the number of its invariant. Changes
    /// nothing. Ends with code 0: nothing found, 1: findings, 2: the store cannot be read, or is in use.
    Audit {
        /// The store's file.
        #[arg(long, value_name = "FILE", required_unless_present = "config", conflicts_with = "config")]
        store: Option<PathBuf>,
        /// The config file that names the store and the deployment key, without which the audit log cannot be verified.
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
        /// An entry that the audit log must have, as the daemon's log tells it (head=NUMBER:MAC): shows that the end of the audit
        /// log was not cut off.
        #[arg(long, value_name = "NUMBER:MAC")]
        head: Option<Shown>,
    },
    /// Make an API token: print it once, and the SHA-256 that goes into the config file.
    Token {
        /// Its name, for logs.
        name: String,
    },
    /// Make a deployment key: 64 hexadecimal digits to keep in a file that only the daemon may read.
    Key,
}

fn span(text: &str) -> Result<Duration, String> {
    Span::parse(text).map(|span| span.0).ok_or_else(|| "a duration, as in 30s, 2m or 1h30m".into())
}
