//! Startup scripts and the values that go into them.

use kasm_autoscale_core::script::{Context, Placeholder, Script, Values, Variable};
use secrecy::ExposeSecret;

use crate::generator::Shape;
use crate::{Target, Verdict, is_worded, joined, texts};

/// Startup scripts: a script, a value, and which variable has it.
///
/// - Whatever is refused is refused at a place that exists, in words without the value.
/// - A value stays where it was put: with it in its place, every other placeholder stands in the same context as before.
/// - A script that is filled in is no longer than its values allow, and is the same every time.
pub const SCRIPT: Target = Target {
    name: "script",
    shape: Shape::Bytes,
    examples,
    words: &[
        "{domain}",
        "{connection_password}",
        "{checkin_jwt}",
        "{server_id}",
        "{{",
        "}}",
        "'",
        "\"",
        "`",
        "$",
        "@'\n",
        "\n'@",
        "@\"\n",
        "\n\"@",
        "<<EOF\n",
        "\nEOF\n",
        "<<-'EOF'\n",
        "#",
        "<#",
        "#>",
        "$(",
        "${{",
        "}}",
        ";",
        "\\",
        "#!/bin/sh\n",
        "#!/bin/bash\n",
        "$'",
        "`n",
        "</powershell>",
        "<script>",
        ">",
        "2>",
        "--%",
        "| iex",
        "\r\n",
        "‘",
        "”",
        "#ps1\n",
        "\\\n",
        "case x in",
        "esac",
        "$((",
        "))",
        "[[",
        "]]",
        "%",
        "-join",
        " ",
        "-",
    ],
    check,
    inputs: 550_000,
};

fn examples() -> Vec<Vec<u8>> {
    let scripts = [
        "Add-Computer -DomainName '{domain}' -Credential \"{connection_username}\"\nif ($true) {{ exit }}\n",
        "#!/bin/sh\nset -eu\ncurl -H \"Authorization: Bearer {checkin_jwt}\" https://{upstream_auth_address}/x # {server_id}\n",
        "#!/bin/bash\ncat > /etc/x <<EOF\npassword={connection_password}\nEOF\nif [[ a = b ]]; then echo $'x\\n' '{domain}'; fi\n",
        "$text = @'\nname: {server_hostname}\n'@\n$other = @\"\n$($text) {domain}\n\"@\n<# {provider_name} #>\n",
        "net user kasm '{connection_password}' /add; $x = \"a`\"b{ad_join_credential}\" # {domain}\n",
        "#!/bin/sh\ncat <<'END'\n{domain}\nEND\ncat <<-\\X\n\t{server_id}\n\tX\necho '{connection_password}' \"${{HOME}}\"{server_id}\n",
        "powershell -Command \"Rename-Computer {server_hostname}\" ; cmd /c echo '{domain}' 2>&1\n",
    ];
    let values =
        ["it's \"{domain}\" $x `y", "corp.example", "", "-rf", "a\\b", "7", "x'; rm -rf /; '", "EOF", "</powershell>"];
    let mut all = vec![];
    for script in scripts {
        for value in values {
            for which in ["0", "1", "2"] {
                all.push(joined(&[which, value, script]));
            }
        }
    }
    all
}

/// What all other variables are filled with: a text that can stand everywhere and means nothing.
fn sentinel(variable: Variable) -> String {
    let number = Variable::ALL.iter().position(|known| *known == variable).unwrap_or_default();
    format!("Kz{number}qW")
}

fn check(input: &[u8]) -> Verdict {
    let [which, value, source] = texts::<3>(input);
    let script = match Script::parse(&source) {
        Ok(script) => script,
        Err(errors) => {
            let mut last = (0, 0);
            for error in errors.iter() {
                expect_place(&source, error.line, error.column);
                assert!(last <= (error.line, error.column), "mistakes out of their order: {errors}");
                last = (error.line, error.column);
            }
            assert!(last > (0, 0), "refused without a mistake");
            // A mistake repeats at most what stands in the braces.
            is_worded(&errors.to_string(), source.len() + errors.iter().count() * (source.len() + 700));
            return Verdict::Refused;
        }
    };
    assert_eq!(script.source(), source);
    assert_eq!(Script::parse(script.source()).as_ref(), Ok(&script));
    let used: Vec<Variable> = script.variables().iter().copied().collect();
    let Some(with_value) = used.get(usize::from(which.bytes().next().unwrap_or_default()) % used.len().max(1)) else {
        return Verdict::Taken;
    };
    let mut values: Values = used.iter().map(|variable| (*variable, sentinel(*variable).into())).collect();
    values.insert(*with_value, value.clone().into());
    match script.render(&values) {
        Ok(filled) => {
            assert_eq!(script.render(&values).map(|again| again.expose_secret() == filled.expose_secret()), Ok(true));
            let places = script.placeholders().len();
            assert!(filled.expose_secret().len() <= source.len() + places * (4 * value.len() + 10));
            expect_contained(&script, *with_value, &source, &value, filled.expose_secret());
            Verdict::Taken
        }
        Err(error) => {
            expect_place(&source, error.line, error.column);
            let stands = |place: &Placeholder| (place.line, place.column) == (error.line, error.column);
            assert!(script.placeholders().any(stands), "refused at a place without a placeholder: {error}");
            let said = error.to_string();
            is_worded(&said, 600);
            // One character may be named, never the value.
            assert!(value.chars().count() < 16 || !said.contains(&value), "the refusal repeats the value: {said}");
            Verdict::Refused
        }
    }
}

fn expect_place(source: &str, line: usize, column: usize) {
    let text = source.split('\n').nth(line.wrapping_sub(1));
    let chars = text.unwrap_or_else(|| panic!("there is no line {line}")).chars().count();
    assert!((1..=chars).contains(&column), "line {line} has no column {column}");
}

/// The script once more, with the value as it was written into it, and all other placeholders in their places again: they
/// must stand in the contexts they stood in.
fn expect_contained(script: &Script, with_value: Variable, source: &str, value: &str, filled: &str) {
    let sentinels: Vec<(Variable, String)> =
        script.variables().iter().filter(|one| **one != with_value).map(|one| (*one, sentinel(*one))).collect();
    if sentinels.iter().any(|(_, text)| source.contains(text.as_str()) || value.contains(text.as_str())) {
        return;
    }
    let again = |filled: &str| {
        let mut text = filled.replace('{', "{{").replace('}', "}}");
        for (variable, sentinel) in &sentinels {
            text = text.replace(sentinel.as_str(), &format!("{{{variable}}}"));
        }
        text
    };
    let with = again(filled);
    let parsed = Script::parse(&with)
        .unwrap_or_else(|errors| panic!("the value changes what stands around it: {errors}\n{with}"));
    assert_eq!(parsed.language(), script.language(), "the value changes the language of {with}");
    // Where it was unclear what a place is, the value may have made it clear.
    let others = |script: &Script| -> Vec<Placeholder> {
        script.placeholders().filter(|place| place.variable != with_value).copied().collect()
    };
    let (before, after) = (others(script), others(&parsed));
    assert_eq!(before.len(), after.len(), "{with}");
    for (before, after) in before.iter().zip(&after) {
        let same = (before.variable, before.context) == (after.variable, after.context);
        assert!(
            same || matches!(before.context, Context::Unclear { .. }),
            "the value {value:?} makes {before:?} of {with} {after:?}"
        );
    }
}
