//! What the core is built of, and who may know whom: lists in which nothing is added without being noticed.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

fn cargo(arguments: &[&str]) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let output =
        Command::new(env!("CARGO")).args(arguments).arg("--offline").current_dir(folder).output().expect("cargo runs");
    assert!(output.status.success(), "cargo {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// The same on every machine: other processors are asked for their features in other ways.
const TARGET: &str = "x86_64-unknown-linux-gnu";

fn tree(edges: &str) -> String {
    let arguments =
        ["-p", "kasm-autoscale-core", "--no-default-features", "--target", TARGET, "--prefix", "none", "-e", edges];
    cargo(&[&["tree"], arguments.as_slice()].concat())
}

/// Everything that is linked into the core, those that only run in the compiler left out.
const LINKED: [&str; 21] = [
    "base64",        // check-in tokens
    "block-buffer",  // of sha2
    "cfg-if",        // of sha2
    "cmov",          // of hmac: comparison in constant time
    "cpufeatures",   // of sha2; asks the processor, not the system
    "crypto-common", // of sha2 and hmac
    "ctutils",       // of hmac: comparison in constant time
    "digest",        // of sha2 and hmac
    "hmac",          // check-in tokens
    "hybrid-array",  // of sha2 and hmac
    "itoa",          // of serde_json
    "memchr",        // of serde_json
    "secrecy",       // secrets that cannot be printed
    "serde",         // rows
    "serde_core",    // of serde
    "serde_json",    // settings are free JSON objects
    "sha2",          // identifiers and tokens
    "thiserror",     // errors
    "typenum",       // of hybrid-array
    "zeroize",       // of secrecy
    "zmij",          // of serde_json
];

#[test]
fn the_core_is_built_of_these_crates_and_no_others() {
    let tree = tree("normal,no-proc-macro");
    let found: BTreeSet<&str> =
        tree.lines().filter_map(|line| line.split(' ').next()).filter(|name| *name != "kasm-autoscale-core").collect();
    let expected: BTreeSet<&str> = LINKED.into_iter().collect();
    let (new, gone) =
        (found.difference(&expected).collect::<Vec<_>>(), expected.difference(&found).collect::<Vec<_>>());
    assert!(new.is_empty() && gone.is_empty(), "new in the core: {new:?}; no longer there: {gone:?}");
}

#[test]
fn no_crate_in_the_core_is_built_with_the_standard_library() {
    let tree = tree("normal,features,no-proc-macro");
    let with_std: BTreeSet<&str> = tree.lines().filter(|line| line.contains("feature \"std\"")).collect();
    assert!(with_std.is_empty(), "no clock, file or socket is out of reach with {with_std:?}");
}

/// Who may know whom. design.md draws the same picture.
const ARROWS: [(&str, &str); 7] = [
    ("kasm-providers", "kasm-autoscale-core"),
    ("kasm-ad", "kasm-autoscale-core"),
    ("kasm-daemon", "kasm-autoscale-core"),
    ("kasm-daemon", "kasm-providers"),
    ("kasm-daemon", "kasm-ad"),
    ("kasm-benches", "kasm-autoscale-core"),
    ("kasm-benches", "kasm-providers"),
];

#[test]
fn no_crate_knows_another_against_the_arrows() {
    let metadata: Value = serde_json::from_str(&cargo(&["metadata", "--format-version", "1", "--no-deps"])).unwrap();
    let mut names = BTreeSet::new();
    let mut arrows = BTreeSet::new();
    for package in metadata["packages"].as_array().unwrap() {
        let name = package["name"].as_str().unwrap();
        names.insert(name);
        // Those for tests and build scripts count too: a test that needs the daemon stands in the wrong crate.
        let on = package["dependencies"].as_array().unwrap().iter().filter(|dependency| dependency["path"].is_string());
        arrows.extend(on.map(|dependency| (name, dependency["name"].as_str().unwrap())));
    }
    assert_eq!(
        names,
        ["kasm-ad", "kasm-autoscale-core", "kasm-benches", "kasm-daemon", "kasm-providers"].into_iter().collect()
    );
    let wrong: Vec<_> = arrows.iter().filter(|arrow| !ARROWS.contains(arrow)).collect();
    assert!(wrong.is_empty(), "arrows that must not exist: {wrong:?}");
    // Were nothing found here, the test would be looking in the wrong place.
    assert!(arrows.contains(&("kasm-daemon", "kasm-autoscale-core")), "{arrows:?}");
}
