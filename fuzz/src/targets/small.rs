//! Small texts: check-in tokens, durations, patterns of computer names, tapes of simulated worlds.

use std::collections::BTreeSet;

use kasm_autoscale_core::config::NamePattern;
use kasm_autoscale_core::id::{PoolId, ServerId, ServerKey};
use kasm_autoscale_core::testing::choices::Tape;
use kasm_autoscale_core::time::{Span, Timestamp};
use kasm_autoscale_core::token::{DeploymentKey, TokenError, checkin_token, verify_checkin_token};

use crate::generator::Shape;
use crate::{Target, Verdict, is_worded};

const POOL: PoolId = PoolId::from_bytes([2; 16]);

fn ours() -> DeploymentKey {
    DeploymentKey::new([0x5a; 32])
}

fn server(serial: u64) -> ServerKey {
    ServerKey { pool: POOL, server: ServerId::new(serial) }
}

/// The one genuine token, good until second 1000.
fn genuine() -> String {
    checkin_token(&ours(), &server(7), Timestamp::from_secs(1000))
}

/// Check-in tokens: of all texts only the very token that was made is taken, to the last bit, and only in its time.
pub const TOKEN: Target = Target {
    name: "token",
    shape: Shape::Bytes,
    examples: || {
        let other = checkin_token(&DeploymentKey::new([0x5b; 32]), &server(7), Timestamp::from_secs(1000));
        vec![genuine().into_bytes(), genuine().into_bytes(), other.into_bytes(), b"eyJhbGciOiJub25lIn0.e30.".to_vec()]
    },
    words: &[
        ".",
        "=",
        "==",
        "A",
        "-",
        "_",
        "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9",
        "eyJhbGciOiJub25lIn0",
        "e30",
        "\n",
        " ",
    ],
    check: |input| {
        let text = String::from_utf8_lossy(input);
        match verify_checkin_token(&ours(), &text, Timestamp::from_secs(1)) {
            Ok(found) => {
                assert_eq!((found, text.as_ref()), (server(7), genuine().as_str()));
                assert_eq!(verify_checkin_token(&ours(), &text, Timestamp::from_secs(1061)), Err(TokenError::Expired));
                Verdict::Taken
            }
            Err(error) => {
                assert_eq!(error, TokenError::Forged, "{text}");
                Verdict::Refused
            }
        }
    },
    inputs: 500_000,
};

/// Durations as people write them: what is read comes back from its own text, and is what a slow reader makes of it.
pub const DURATION: Target = Target {
    name: "duration",
    shape: Shape::Bytes,
    examples: || {
        ["90s", "1h30m", "250ms", "2d", "45", "1d2h3m4s5ms", "0s", "30m"].map(|text| text.as_bytes().to_vec()).into()
    },
    words: &[
        "ms",
        "s",
        "m",
        "h",
        "d",
        "0",
        " ",
        "-",
        "+",
        "1.5",
        "18446744073709551615",
        "18446744073709551615ms",
        "213503982334d",
    ],
    check: |input| {
        let text = String::from_utf8_lossy(input);
        let read = Span::parse(&text);
        assert_eq!(read.map(|span| span.0.as_millis()), slowly(&text), "{text}");
        let Some(span) = read else { return Verdict::Refused };
        let again = Span::parse(&span.to_string());
        // A bare number may be more seconds than fit in milliseconds, which only the words of units are held to.
        assert!(again == Some(span) || span.0.as_millis() > u128::from(u64::MAX), "{span}");
        Verdict::Taken
    },
    inputs: 500_000,
};

/// The milliseconds that a text says, letter by letter.
fn slowly(text: &str) -> Option<u128> {
    let fits = |number: u128, most: u128| (number <= most).then_some(number);
    let bare = text.strip_prefix('+').unwrap_or(text);
    if !bare.is_empty() && bare.bytes().all(|byte| byte.is_ascii_digit()) {
        let secs = bare.trim_start_matches('0');
        return if secs.len() > 20 {
            None
        } else {
            fits(format!("0{secs}").parse().ok()?, u64::MAX.into()).map(|secs| secs * 1000)
        };
    }
    let units = [("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];
    let (mut sum, mut seen, mut rest) = (0_u128, BTreeSet::new(), text);
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let (number, after) = rest.split_at(digits);
        let letters = after.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(after.len());
        let (unit, after) = after.split_at(letters);
        let (_, millis) = units.iter().find(|(name, _)| *name == unit)?;
        let number = number.trim_start_matches('0');
        let number = fits(
            if number.len() > 20 { u128::MAX } else { format!("0{number}").parse().ok().filter(|_| digits > 0)? },
            u64::MAX.into(),
        )?;
        sum = fits(sum + number * millis, u64::MAX.into())?;
        if !seen.insert(unit) {
            return None;
        }
        rest = after;
    }
    (!text.is_empty()).then_some(sum)
}

/// Patterns of computer names: what they make is valid for NetBIOS and DNS, and never made twice.
pub const PATTERN: Target = Target {
    name: "pattern",
    shape: Shape::Bytes,
    examples: || {
        ["kasm-{random}", "desk-{number}", "{number}x", "a-{random}-b", "{random}"]
            .map(|text| text.as_bytes().to_vec())
            .into()
    },
    words: &["{random}", "{number}", "-", "a", "9", "{", "}", "{{", "Z", "_", ".", "ä"],
    check: |input| {
        let text = String::from_utf8_lossy(input);
        let pattern = match text.parse::<NamePattern>() {
            Ok(pattern) => pattern,
            Err(error) => {
                is_worded(&error.to_string(), 400 + 8 * text.len());
                return Verdict::Refused;
            }
        };
        assert_eq!(pattern.to_string().parse::<NamePattern>().as_ref(), Ok(&pattern));
        let last = pattern.last_serial();
        let mut made = BTreeSet::new();
        for serial in
            [1, 2, 9, 10, 99_999, last.saturating_sub(1), last].into_iter().filter(|serial| (1..=last).contains(serial))
        {
            let name = pattern.name_of(&server(serial)).unwrap_or_else(|| panic!("{pattern} has no name for {serial}"));
            let name = name.as_str();
            assert!((1..=15).contains(&name.len()), "{name}");
            assert!(name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-'), "{name}");
            assert!(!name.starts_with('-') && !name.ends_with('-'), "{name}");
            assert!(!name.bytes().all(|byte| byte.is_ascii_digit()), "{name}");
            made.insert((name.to_lowercase(), serial));
        }
        let names: BTreeSet<&String> = made.iter().map(|(name, _)| name).collect();
        assert_eq!(names.len(), made.len(), "I-22 a name twice: {made:?}");
        Verdict::Taken
    },
    inputs: 400_000,
};

/// Tapes of simulated worlds as text: what is read comes back from its own text, and a refusal says the line.
pub const TAPE: Target = Target {
    name: "tape",
    shape: Shape::Bytes,
    examples: || {
        ["options: 1 2*3 0*9\nnet: 7\n", "# note\n\na: 18446744073709551615\nb c: 0*2 1\n"]
            .map(|text| text.as_bytes().to_vec())
            .into()
    },
    words: &[":", "*", " ", "\n", "#", "a:", "1*", "*1", "0*100", "cloud-0: 5"],
    check: |input| {
        let text = String::from_utf8_lossy(input);
        match text.parse::<Tape>() {
            Ok(tape) => {
                let written = tape.to_string();
                assert_eq!(written.parse::<Tape>().as_ref().map(Tape::to_string), Ok(written.clone()), "{text:?}");
                Verdict::Taken
            }
            Err(error) => {
                is_worded(&error.to_string(), 500);
                Verdict::Refused
            }
        }
    },
    inputs: 300_000,
};
