//! The syntax of PowerShell startup scripts, so that a missing brace is found before a machine boots with it.
//!
//! A grammar of PowerShell reads the script as it will be once its placeholders have values. It knows most of the language,
//! not all of it, so what it finds are warnings.

#![cfg(feature = "script-check")]

use std::ops::{ControlFlow, Range};

use kasm_autoscale_core::config::ConfigSpec;
use kasm_autoscale_core::script::{Language, Script};
use tree_sitter::{Node, ParseOptions, ParseState, Parser};

/// The most warnings for one script: one mistake can confuse the parser more than once.
pub const WARNINGS_MAX: usize = 3;

/// What to do about a warning.
pub const ADVICE: &str = "this does not look like PowerShell; braces that are not around a variable are doubled, as in @{{ a = 1 }}. \
                          It is only a warning, since the grammar used here does not know all of the language";

/// How often the parser reports before it is stopped. A script of the greatest length takes about a thousandth of it.
const STEPS_MAX: u32 = 1_000_000;

/// What stands around a script in EC2 user data.
const OPEN: &str = "<powershell>";
const CLOSE: &str = "</powershell>";

/// A place where a script does not look like PowerShell.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SyntaxWarning {
    /// The line in the template, counted from 1.
    pub line: usize,
    /// The column in the template in characters, counted from 1.
    pub column: usize,
    /// What stands there: a few characters of it, none that stand in quotes.
    pub near: String,
    /// What is wrong with it.
    pub fault: SyntaxFault,
}

/// What the parser stumbled over.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum SyntaxFault {
    /// Something that cannot stand there.
    Unexpected,
    /// A bracket that nothing closes.
    Unclosed,
    /// This is missing there, as in `}`.
    Missing(String),
}

impl SyntaxWarning {
    /// What was found, in a few words.
    pub fn given(&self) -> String {
        match &self.fault {
            SyntaxFault::Unexpected => format!("`{}`", self.near),
            SyntaxFault::Unclosed => format!("`{}`, which nothing closes", self.near),
            SyntaxFault::Missing(what) => format!("no {what} before or at `{}`", self.near),
        }
    }
}

/// The warnings for a config's startup script; none if its machines run something else than Windows.
pub fn warnings_of(spec: &ConfigSpec) -> Vec<SyntaxWarning> {
    let runs_linux = spec.machine.get("os").and_then(serde_json::Value::as_str) == Some("linux");
    spec.startup_script.as_ref().filter(|_| !runs_linux).map(powershell_warnings).unwrap_or_default()
}

/// What stands between the tags of EC2 user data, if there are any.
fn tagged(template: &str) -> Option<Range<usize>> {
    let lower = template.to_ascii_lowercase();
    let start = lower.find(OPEN)? + OPEN.len();
    let end = lower[start..].find(CLOSE).map_or(lower.len(), |at| start + at);
    Some(start..end)
}

/// The places where a startup script does not look like PowerShell, in their order, [`WARNINGS_MAX`] at most.
///
/// A script in another language has none.
pub fn powershell_warnings(script: &Script) -> Vec<SyntaxWarning> {
    let language = script.language();
    let script = Filled::new(script.source());
    if language != Language::PowerShell || script.text.trim().is_empty() {
        return Vec::new();
    }
    let mut parser = Parser::new();
    // A grammar of another version than the parser's would be refused; a test would show it.
    if parser.set_language(&tree_sitter_powershell::LANGUAGE.into()).is_err() {
        return Vec::new();
    }
    let mut steps = 0;
    let mut watch = |_: &ParseState| {
        steps += 1;
        if steps > STEPS_MAX { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    let bytes = script.text.as_bytes();
    let options = ParseOptions::new().progress_callback(&mut watch);
    let Some(tree) = parser.parse_with_options(&mut |at, _| bytes.get(at..).unwrap_or_default(), None, Some(options))
    else {
        return Vec::new();
    };
    let mut found = Vec::new();
    collect(tree.root_node(), &mut found);
    found.truncate(WARNINGS_MAX);
    found.into_iter().map(|fault| script.warning(fault)).collect()
}

/// A node that is wrong.
struct Fault {
    at: Range<usize>,
    kind: SyntaxFault,
}

impl Fault {
    /// What is wrong with an error node that has no others in it. One that has an open bracket often holds all the rest of
    /// the script, but the bracket is what is wrong.
    fn of_error(node: Node<'_>) -> Self {
        let mut cursor = node.walk();
        let mut open: Vec<Node<'_>> = Vec::new();
        for child in node.children(&mut cursor) {
            match child.kind() {
                "{" | "(" | "[" | "@{" | "@(" | "$(" => open.push(child),
                "}" | ")" | "]" => _ = open.pop(),
                _ => {}
            }
        }
        match open.last() {
            Some(bracket) => Self { at: bracket.byte_range(), kind: SyntaxFault::Unclosed },
            None => Self { at: node.byte_range(), kind: SyntaxFault::Unexpected },
        }
    }
}

/// The innermost nodes that are wrong, in their order.
fn collect(root: Node<'_>, found: &mut Vec<Fault>) {
    let mut stack = vec![root];
    while let Some(node) = stack.pop().filter(|_| found.len() < WARNINGS_MAX) {
        if !node.has_error() && !node.is_missing() {
            continue;
        }
        let mut cursor = node.walk();
        let children: Vec<Node<'_>> =
            node.children(&mut cursor).filter(|child| child.has_error() || child.is_missing()).collect();
        if node.is_missing() {
            found.push(Fault { at: node.byte_range(), kind: SyntaxFault::Missing(node.kind().into()) });
        } else if node.is_error() && children.is_empty() {
            found.push(Fault::of_error(node));
        }
        stack.extend(children.into_iter().rev());
    }
}

/// A template whose variables have values, and where each byte of it comes from.
struct Filled<'t> {
    template: &'t str,
    text: String,
    /// For each byte of `text`, its byte in `template`.
    origins: Vec<usize>,
}

impl<'t> Filled<'t> {
    fn new(template: &'t str) -> Self {
        let script = tagged(template).unwrap_or(0..template.len());
        let capacity = script.len();
        let mut filled =
            Self { template, text: String::with_capacity(capacity), origins: Vec::with_capacity(capacity) };
        let mut at = script.start;
        while let Some(c) = template[at..script.end].chars().next() {
            let rest = &template[at..script.end];
            let length = match c {
                '{' | '}' if rest[1..].starts_with(c) => {
                    filled.push(at, if c == '{' { "{" } else { "}" });
                    2
                }
                '{' => {
                    // A value without any character that means something in PowerShell.
                    let length = rest.find('}').map_or(rest.len(), |end| end + 1);
                    filled.push(at, &"x".repeat(length));
                    length
                }
                _ => {
                    filled.push(at, c.encode_utf8(&mut [0; 4]));
                    c.len_utf8()
                }
            };
            at += length;
        }
        filled
    }

    fn push(&mut self, origin: usize, text: &str) {
        self.text.push_str(text);
        self.origins.extend(std::iter::repeat_n(origin, text.len()));
    }

    fn warning(&self, fault: Fault) -> SyntaxWarning {
        let mut start = fault.at.start.min(self.text.len());
        if fault.kind == SyntaxFault::Unexpected {
            let text = &self.text[start..fault.at.end.clamp(start, self.text.len())];
            start += text.len() - text.trim_start().len();
        }
        let origin = self.origins.get(start).copied().unwrap_or_else(|| self.origins.last().map_or(0, |last| last + 1));
        let before = &self.template[..origin];
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        SyntaxWarning {
            line: before.matches('\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
            near: near(&self.template[line_start..], origin - line_start),
            fault: fault.kind,
        }
    }
}

/// A few characters of a line from `at` on, up to the first quote: what stands in quotes may be a password.
fn near(line: &str, at: usize) -> String {
    let line = line.lines().next().unwrap_or_default();
    let before = line.get(..at).unwrap_or(line);
    if before.matches(['"', '\'']).count() % 2 == 1 {
        return "...".into();
    }
    let rest = line.get(at..).unwrap_or_default();
    let quote = rest.find(['"', '\'']).map_or(rest.len(), |at| at + 1);
    let text: String = rest[..quote].trim().chars().take(24).collect();
    if text.is_empty() { "the end of the line".into() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The places where a script is wrong, and what is said.
    fn warnings(template: &str) -> Vec<(usize, usize, String)> {
        powershell_warnings(&Script::parse(template).unwrap())
            .into_iter()
            .map(|warning| (warning.line, warning.column, warning.given()))
            .collect()
    }

    #[test]
    fn good_scripts_are_left_alone() {
        let join = "$c = New-Object pscredential -ArgumentList ([pscustomobject]@{{ UserName = $null; Password = \
                    (ConvertTo-SecureString -String '{ad_join_credential}' -AsPlainText -Force)[0] }})\n\
                    Add-Computer -Domain \"{domain}\" -Options UnsecuredJoin,PasswordPass -Credential $c -Force -Restart\n";
        let rows = [
            "",
            join,
            "#ps1_sysnative\nNew-Item -Force C:\\x | Out-Null\n",
            "<powershell>\r\nWrite-Host 1\r\n</powershell>\r\n<persist>true</persist>\r\n",
            "$u = \"https://{upstream_auth_address}/x\"\nwhile ($true) {{\n  try {{ f $u; break }} catch {{ Start-Sleep 5 }}\n}}\n",
            "$s = @'\nab'c {{\n'@\nSet-Content C:\\x.txt $s\n",
        ];
        for template in rows {
            assert_eq!(warnings(template), [], "{template}");
        }
    }

    #[test]
    fn what_is_wrong_is_found_in_the_template() {
        let rows = [
            (
                "<powershell>\nif ($x) {{ f '{domain}'\n</powershell>\n",
                (2, 24, "no } before or at `the end of the line`"),
            ),
            ("$a = @{{ b = 1 }}\n  )\n", (2, 3, "`)`")),
            ("Set-Thing -Password 'hunter'2'\n", (1, 21, "`'`")),
            ("# x\n$a = @{{ b = 1\nf\n", (2, 6, "`@{{ b = 1`, which nothing closes")),
            ("f '{domain}' {{ g }} }}\n", (1, 22, "`}}`")),
        ];
        for (template, (line, column, given)) in rows {
            assert_eq!(warnings(template).first(), Some(&(line, column, given.to_owned())), "{template}");
        }
    }

    #[test]
    fn nothing_in_quotes_is_repeated() {
        for template in [
            "$p = 'canary' 'canary' )\n",
            "$p = \"canary\n\ncanary",
            "f canary'canary\n) 'canary'",
            "@{{ a = 'canary\n",
        ] {
            for warning in powershell_warnings(&Script::parse(template).unwrap()) {
                assert!(!warning.given().contains("'canary"), "{template}: {warning:?}");
            }
        }
    }

    #[test]
    fn other_languages_are_not_read() {
        for other in ["#!/bin/sh\nif )\n", "\n#cloud-config\nx: )\n"] {
            assert_eq!(warnings(other), [], "{other}");
        }
        assert_ne!(warnings("x )\n"), []);
    }
}
