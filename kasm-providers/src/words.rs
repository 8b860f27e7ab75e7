//! A system's own words, made fit to be shown: what every provider does to messages before they leave it.

/// A service's words for logs and pages: without secrets, without control characters, without endless words such as
/// encoded authorization messages, at most 500 characters.
pub(crate) fn readable(message: &str, hidden: &[&str]) -> String {
    const WORD_MAX: usize = 160;
    let hide = |text: String| hidden.iter().fold(text, |text, secret| text.replace(secret, "[hidden]"));
    let message = hide(message.to_owned());
    let words = message.split(|c: char| c.is_whitespace() || c.is_control()).filter(|word| !word.is_empty());
    let shortened: Vec<String> = words
        .map(|word| match word.char_indices().nth(WORD_MAX) {
            Some(_) => format!("{}...", word.chars().take(20).collect::<String>()),
            None => word.to_owned(),
        })
        .collect();
    // A secret whose words stood on two lines is whole again now.
    hide(shortened.join(" ")).chars().take(500).collect()
}

/// What of a text must not be seen: the whole, and each of its lines that is long enough to mean something.
pub(crate) fn parts_to_hide(text: &str) -> Vec<&str> {
    let lines = text.lines().map(str::trim).filter(|line| line.len() >= 8);
    let mut parts: Vec<&str> = std::iter::once(text).chain(lines).filter(|part| !part.is_empty()).collect();
    // The longest first, so that no line is left of a text that was hidden in part.
    parts.sort_by_key(|part| std::cmp::Reverse(part.len()));
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_cleaned() {
        let encoded = "Zm9v".repeat(100);
        let rows = [
            ("plain words, with: signs", "plain words, with: signs".to_owned()),
            ("two\nlines\u{7}\t", "two lines".to_owned()),
            ("echo of s3cr3t-pw!", "echo of [hidden]!".to_owned()),
            (
                &format!("Encoded authorization failure message: {encoded} end"),
                "Encoded authorization failure message: Zm9vZm9vZm9vZm9vZm9v... end".to_owned(),
            ),
            (&"word ".repeat(300), "word ".repeat(100)),
        ];
        for (message, expected) in rows {
            assert_eq!(readable(message, &["s3cr3t-pw"]), expected);
        }
    }

    #[test]
    fn a_secret_that_was_broken_into_lines_is_hidden_as_well() {
        for message in ["echo of my\npass word", "echo of my\tpass\u{0} word", "echo of my pass word"] {
            assert_eq!(readable(message, &["my pass word"]), "echo of [hidden]", "{message:?}");
        }
    }

    #[test]
    fn scripts_are_hidden_whole_and_by_line() {
        let script = "a\n$password = 'x'\r\n}\n";
        assert_eq!(parts_to_hide(script), [script, "$password = 'x'"]);
        assert_eq!(readable("bad line $password = 'x' there", &parts_to_hide(script)), "bad line [hidden] there");
        assert_eq!(parts_to_hide(""), [""; 0]);
    }
}
