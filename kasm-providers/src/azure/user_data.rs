//! The startup script as Azure carries it to a machine, and how it is made to run there.
//!
//! Azure writes custom data to a file and runs nothing of it on Windows. So the machine gets an extension that does: it turns
//! the file into a script that only the system can read, and starts it as a task of its own, so that the script may take as
//! long as it likes and restart the machine. The script is deleted when it has ended.
//!
//! Sources: Azure Virtual Machines, "Custom data and cloud-init" and "Custom Script Extension for Windows"; Compute API,
//! OSProfile, `customData`.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;

/// The most bytes of custom data, before base64 (Compute API, OSProfile).
pub const USER_DATA_MAX: usize = 65_535;

/// The operating system of a machine.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Os {
    /// The script is PowerShell.
    Windows,
    /// cloud-init takes the text as it is.
    Linux,
}

/// Who runs the startup script on a machine.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum RunScript {
    /// The Custom Script Extension, on every Windows image of the marketplace.
    Extension,
    /// Something in the image, such as a scheduled task or cloud-init, that looks for it by itself.
    Image,
}

const BOM: &str = "\u{feff}";

/// The text as the machine wants it. PowerShell 5.1 takes a file for one in the code page of the machine unless a byte order
/// mark says otherwise.
pub(super) fn carried(text: &str, os: Os) -> String {
    if os == Os::Windows && !text.is_ascii() && !text.starts_with(BOM) {
        format!("{BOM}{text}")
    } else {
        text.to_owned()
    }
}

/// How many bytes a script of this size has at most when it is carried.
pub(super) fn carried_bytes_max(script_bytes: usize, os: Os) -> usize {
    match os {
        Os::Windows if script_bytes > 0 => script_bytes.saturating_add(BOM.len()),
        _ => script_bytes,
    }
}

/// What the extension runs, once. It is the same for every machine and holds no secret.
pub(super) const STARTER: &str = r#"$ErrorActionPreference = 'Stop'
$data = "$env:SystemDrive\AzureData\CustomData.bin"
$script = "$env:SystemDrive\AzureData\kasm-startup.ps1"
if (Test-Path -LiteralPath $data) { Move-Item -LiteralPath $data -Destination $script -Force }
icacls.exe $script /inheritance:r /grant:r '*S-1-5-18:F' '*S-1-5-32-544:F' | Out-Null
$run = "try { & '$script' } finally { Remove-Item -LiteralPath '$script' -Force }"
$encoded = [Convert]::ToBase64String([Text.Encoding]::Unicode.GetBytes($run))
$action = New-ScheduledTaskAction -Execute 'powershell.exe' -Argument "-NoProfile -NonInteractive -ExecutionPolicy Bypass -EncodedCommand $encoded"
$settings = New-ScheduledTaskSettingsSet -AllowStartIfOnBatteries -DontStopIfGoingOnBatteries -ExecutionTimeLimit (New-TimeSpan -Hours 4)
Register-ScheduledTask -TaskName 'KasmStartup' -Action $action -Settings $settings -User 'S-1-5-18' -RunLevel Highest -Force | Out-Null
Start-ScheduledTask -TaskName 'KasmStartup'
"#;

/// [`STARTER`] as a command line. Encoded, so that no shell on the way reads anything into it.
pub(super) fn starter_command() -> String {
    let utf16: Vec<u8> = STARTER.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let encoded = BASE64_STANDARD.encode(utf16);
    format!("powershell.exe -NoProfile -NonInteractive -ExecutionPolicy Bypass -EncodedCommand {encoded}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_texts_beyond_ascii_get_a_mark_and_only_on_windows() {
        let rows = [
            ("Write-Host 1", Os::Windows, "Write-Host 1"),
            ("Write-Host 'ä'", Os::Windows, "\u{feff}Write-Host 'ä'"),
            ("\u{feff}Write-Host 'ä'", Os::Windows, "\u{feff}Write-Host 'ä'"),
            ("#!/bin/sh\necho ä", Os::Linux, "#!/bin/sh\necho ä"),
        ];
        for (text, os, expected) in rows {
            assert_eq!(carried(text, os), expected, "{text:?} on {os:?}");
            assert!(carried(text, os).len() <= carried_bytes_max(text.len(), os));
        }
        assert_eq!(carried_bytes_max(0, Os::Windows), 0);
        assert_eq!(carried_bytes_max(usize::MAX, Os::Windows), usize::MAX);
    }

    /// cmd.exe takes 8191 characters (Microsoft, "Command prompt line string limitation").
    #[test]
    fn the_starter_fits_into_a_command_line() {
        let command = starter_command();
        assert!(command.len() < 8191 && command.is_ascii(), "{}", command.len());
        let encoded = command.rsplit(' ').next().expect("a last word");
        let bytes = BASE64_STANDARD.decode(encoded).expect("base64");
        let utf16: Vec<u16> = bytes.chunks(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]])).collect();
        assert_eq!(String::from_utf16(&utf16).expect("UTF-16"), STARTER);
    }
}
