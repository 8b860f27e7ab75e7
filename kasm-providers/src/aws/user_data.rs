//! The startup script as EC2 carries it to a machine.
//!
//! Sources: EC2 User Guide, "Run commands when you launch an EC2 instance with user data input"; EC2Launch v2,
//! "Task configuration"; API Reference, RunInstances, `UserData`.

use std::borrow::Cow;

/// The most bytes of user data, before base64 (API Reference, RunInstances).
pub const USER_DATA_MAX: usize = 16_384;

const OPEN: &str = "<powershell>\n";
const CLOSE: &str = "\n</powershell>\n";

/// The operating system of a machine: which agent there reads the user data.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Os {
    /// EC2Launch runs what stands between its tags, and nothing else.
    Windows,
    /// cloud-init takes the text as it is.
    Linux,
}

/// The text as the agent wants it. Windows agents run nothing without tags, so a bare script gets them.
pub(super) fn carried(text: &str, os: Os) -> Cow<'_, str> {
    if os == Os::Linux || is_marked(text) { Cow::Borrowed(text) } else { Cow::Owned(format!("{OPEN}{text}{CLOSE}")) }
}

/// How many bytes a script of this size has at most when it is carried.
pub(super) fn carried_bytes_max(script_bytes: usize, os: Os) -> usize {
    match os {
        Os::Windows if script_bytes > 0 => script_bytes.saturating_add(OPEN.len() + CLOSE.len()),
        _ => script_bytes,
    }
}

/// Whether the text speaks the agent's own language: a tag at the start of a line (a tag inside a line is more likely
/// HTML that the script writes), or a YAML document of EC2Launch v2.
fn is_marked(text: &str) -> bool {
    let starts =
        |mark: &str| text.lines().any(|line| line.trim_start_matches('\u{feff}').trim_start().starts_with(mark));
    let first = text.lines().map(str::trim).find(|line| !line.is_empty() && !line.starts_with('#') && *line != "---");
    let is_yaml = first.is_some_and(|line| line.starts_with("version:")) && starts("tasks:");
    starts("<powershell>") || starts("<script>") || is_yaml
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_bare_windows_scripts_are_wrapped() {
        let wrapped = "<powershell>\nWrite-Host 1\n</powershell>\n";
        let yaml = "# by the desktop team\nversion: 1.0\ntasks:\n- task: executeScript\n";
        let rows = [
            ("Write-Host 1", Os::Windows, wrapped),
            ("Write-Host 1", Os::Linux, "Write-Host 1"),
            (wrapped, Os::Windows, wrapped),
            ("  <script>\ndir\n</script>", Os::Windows, "  <script>\ndir\n</script>"),
            ("\u{feff}<powershell>1</powershell>", Os::Windows, "\u{feff}<powershell>1</powershell>"),
            (yaml, Os::Windows, yaml),
            ("$v = '<script>'", Os::Windows, "<powershell>\n$v = '<script>'\n</powershell>\n"),
            ("version: 1.0", Os::Windows, "<powershell>\nversion: 1.0\n</powershell>\n"),
        ];
        for (text, os, expected) in rows {
            assert_eq!(carried(text, os), expected, "{text:?} on {os:?}");
        }
    }

    #[test]
    fn the_greatest_size_counts_the_tags() {
        assert_eq!(carried_bytes_max(10, Os::Windows), carried("0123456789", Os::Windows).len());
        assert_eq!(carried_bytes_max(10, Os::Linux), 10);
        assert_eq!(carried_bytes_max(0, Os::Windows), 0);
        assert_eq!(carried_bytes_max(usize::MAX, Os::Windows), usize::MAX);
    }
}
