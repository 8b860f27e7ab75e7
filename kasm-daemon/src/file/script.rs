//! Startup scripts: in the config file, or in a file of their own beside it.

use kasm_autoscale_core::config::ConfigSpec;
use kasm_autoscale_core::fields::{JsonObject, Problem, shown};
use kasm_autoscale_core::script::Script;
use serde_json::Value;

use super::Loader;
use super::document::{Document, End};
use super::text::{Place, Text, Unreadable};

/// The field of the config file by which a script is read from another file.
pub(super) const SCRIPT_FILE: &str = "startup_script_file";
/// The field of the core that holds a script.
pub(super) const SCRIPT: &str = "startup_script";

/// A startup script and where it is written.
pub(super) struct Written<'d> {
    home: Home<'d>,
    /// The path of the field, as in `pool[0].config[0].startup_script`.
    pub(super) path: String,
    source: String,
}

enum Home<'d> {
    Inline(&'d Document),
    File(Text),
}

impl Written<'_> {
    /// Where a line and column of the script stand.
    pub(super) fn place(&self, line: usize, column: usize) -> Place {
        match &self.home {
            Home::Inline(document) => document.place_within(&self.path, line, column),
            Home::File(text) => text.place_at(line, column),
        }
    }

    /// Where a text first stands in the script; if nowhere, the place of the script.
    pub(super) fn find(&self, text: &str) -> Place {
        let before = self.source.find(text).map_or("", |at| &self.source[..at]);
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        self.place(before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
    }
}

impl<'d> Loader<'_, 'd> {
    /// Takes `startup_script_file` out of a config, and puts what is in that file in the place of `startup_script`. A script
    /// with mistakes is taken out too, after they have been noted.
    pub(super) fn read_script(&mut self, path: &str, object: &mut JsonObject) -> Option<Written<'d>> {
        let inline = object.get(SCRIPT).and_then(Value::as_str).map(ToOwned::to_owned);
        let written = match object.remove(SCRIPT_FILE) {
            Some(_) if object.contains_key(SCRIPT) => {
                let allowed = "one of them: either the script or its file";
                self.report.mistake(Problem::new(
                    format!("{path}.{SCRIPT_FILE}"),
                    format!("both {SCRIPT} and {SCRIPT_FILE}"),
                    allowed,
                ));
                return None;
            }
            Some(file) => {
                let text = self.read_script_file(&format!("{path}.{SCRIPT_FILE}"), &file)?;
                // Some editors write a byte order mark, which no interpreter of user data expects.
                let source = text.content.trim_start_matches('\u{feff}').to_owned();
                object.insert(SCRIPT.into(), Value::String(source.clone()));
                Written { home: Home::File(text), path: format!("{path}.{SCRIPT_FILE}"), source }
            }
            None => Written { home: Home::Inline(self.document), path: format!("{path}.{SCRIPT}"), source: inline? },
        };
        if written.source.len() <= ConfigSpec::SCRIPT_BYTES_MAX
            && !written.source.trim().is_empty()
            && !self.check_script(&written)
        {
            object.remove(SCRIPT);
        }
        Some(written)
    }

    fn read_script_file(&mut self, path: &str, value: &Value) -> Option<Text> {
        let Some(name) = value.as_str().filter(|name| !name.is_empty() && !name.contains('\0')) else {
            self.report.mistake(Problem::new(path, shown(value), "the path of a file, from the folder of this one"));
            return None;
        };
        let file = self.folder.join(name);
        match Text::read(&file, ConfigSpec::SCRIPT_BYTES_MAX) {
            Ok(text) => Some(text),
            Err(Unreadable::Whole(allowed)) => {
                self.report.mistake(Problem::new(path, file.display().to_string(), allowed));
                None
            }
            Err(Unreadable::At(place, allowed)) => {
                self.report.mistake_at(place, Problem::new(path, "other bytes", allowed));
                None
            }
        }
    }

    fn check_script(&mut self, written: &Written<'_>) -> bool {
        let Err(errors) = Script::parse(&written.source) else { return true };
        for error in errors.iter() {
            let place = written.place(error.line, error.column);
            self.report.mistake_at(place, Problem::new(&written.path, "", error.kind.to_string()));
        }
        false
    }

    /// Notes a problem of a script that was found after it was read: at the variable that was given, or in the line and
    /// column with which the problem begins, as those of values do; else where the script begins.
    pub(super) fn script_mistake(&mut self, written: &Written<'_>, problem: Problem) {
        let Problem { given, mut allowed, .. } = problem;
        let mut place = self.document.place(&written.path, End::Value);
        if given.starts_with('{') {
            place = written.find(&given);
        } else if let Some((line, column, rest)) = line_and_column(&allowed) {
            place = written.place(line, column);
            allowed = rest.to_owned();
        }
        self.report.mistake_at(place, Problem::new(&written.path, given, allowed));
    }
}

/// Reads `line 3, column 14: ...`, with which the core's messages about values in scripts begin.
fn line_and_column(text: &str) -> Option<(usize, usize, &str)> {
    let (line, rest) = text.strip_prefix("line ")?.split_once(", column ")?;
    let (column, rest) = rest.split_once(": ")?;
    Some((line.parse().ok()?, column.parse().ok()?, rest))
}
