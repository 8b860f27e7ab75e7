//! Stories of pools, told in `tests/scenarios/*.txt`: what somebody does, and what the pool then does about it.
//!
//! They are the first thing to read of this crate. `KASM_BLESS=1 cargo test --test scenarios` rewrites what happens in them;
//! whoever does that reads the difference as if it were code.

mod common;

use std::path::Path;

use common::story;

/// The lines that differ, with a few around them.
fn difference(expected: &str, found: &str) -> String {
    let (expected, found): (Vec<&str>, Vec<&str>) = (expected.lines().collect(), found.lines().collect());
    let same = expected.iter().zip(&found).take_while(|(a, b)| a == b).count();
    let ending = |lines: &[&str]| {
        lines[same.min(lines.len())..].iter().take(12).map(|line| format!("\n    {line}")).collect::<String>()
    };
    let before: String = expected[same.saturating_sub(6)..same].iter().map(|line| format!("\n    {line}")).collect();
    format!("line {}, after{before}\n  expected{}\n  found{}", same + 1, ending(&expected), ending(&found))
}

#[test]
fn every_story_goes_as_told() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios");
    let mut files: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "txt"));
    files.sort();
    assert!(files.len() >= 25, "only {} stories in {}", files.len(), folder.display());
    let bless = std::env::var_os("KASM_BLESS").is_some();
    let mut failures = Vec::new();
    for path in files {
        let expected = std::fs::read_to_string(&path).unwrap();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let found = std::panic::catch_unwind(|| story::told(&expected));
        match found {
            Ok(found) if found == expected => {}
            Ok(found) if bless => std::fs::write(&path, found).unwrap(),
            Ok(found) => failures.push(format!("{name}, {}", difference(&expected, &found))),
            Err(_) => failures.push(format!("{name}: stopped, see above")),
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
}
