//! Startup scripts: braces as Python reads them, mistakes with their places, and values that cannot break out.
//!
//! What a script means is judged by readers of its own: a model of PowerShell's tokenizer written from the language's rules
//! (in every way it may read a word), and the shells of this machine.

use std::process::{Command, Stdio};

use kasm_autoscale_core::script::{
    Context, Language, RenderError, RenderErrorKind, Script, ScriptErrorKind, Values, Variable,
};
use proptest::prelude::*;
use secrecy::ExposeSecret;

const MARKER: &str = "MARKER";

/// Renders with the same value for all variables.
fn render_all(script: &Script, value: &str) -> Result<String, RenderError> {
    let values: Values = Variable::ALL.into_iter().map(|variable| (variable, value.into())).collect();
    script.render(&values).map(|text| text.expose_secret().to_owned())
}

fn rendered(source: &str, value: &str) -> String {
    let script = Script::parse(source).unwrap_or_else(|errors| panic!("{source:?}: {errors}"));
    render_all(&script, value).unwrap_or_else(|error| panic!("{source:?}: {error}"))
}

fn refused(source: &str, value: &str) -> RenderErrorKind {
    let script = Script::parse(source).unwrap_or_else(|errors| panic!("{source:?}: {errors}"));
    let result = render_all(&script, value);
    result.map(|text| panic!("{source:?} with {value:?} became {text:?}")).unwrap_err().kind
}

fn contexts(source: &str) -> Vec<Context> {
    let script = Script::parse(source).unwrap_or_else(|errors| panic!("{source:?}: {errors}"));
    script.placeholders().map(|placeholder| placeholder.context).collect()
}

/// So many cases, or as many as `PROPTEST_CASES` says.
fn cases(usual: u32) -> ProptestConfig {
    match std::env::var_os("PROPTEST_CASES") {
        Some(_) => ProptestConfig::default(),
        None => ProptestConfig::with_cases(usual),
    }
}

fn character(character: char) -> RenderErrorKind {
    RenderErrorKind::Character { character }
}

mod braces {
    use super::*;

    /// The example of the reference text.
    const JOIN: &str = "\
$joinCred = New-Object pscredential -ArgumentList ([pscustomobject]@{{ UserName = $null; Password = (ConvertTo-SecureString -String '{ad_join_credential}' -AsPlainText -Force)[0] }})
Add-Computer -Domain \"{domain}\" -Options UnsecuredJoin,PasswordPass -Credential $joinCred -Force -Restart
";
    const JOIN_RENDERED: &str = "\
$joinCred = New-Object pscredential -ArgumentList ([pscustomobject]@{ UserName = $null; Password = (ConvertTo-SecureString -String 'hV7-x_2.Q' -AsPlainText -Force)[0] })
Add-Computer -Domain \"corp.example\" -Options UnsecuredJoin,PasswordPass -Credential $joinCred -Force -Restart
";

    #[test]
    fn the_reference_example_renders_to_what_its_author_meant() {
        let values =
            Values::from([(Variable::AdJoinCredential, "hV7-x_2.Q".into()), (Variable::Domain, "corp.example".into())]);
        for (before, after) in
            [("", ""), ("<powershell>\n", "</powershell>\n<persist>false</persist>\n"), ("#ps1_sysnative\r\n", "")]
        {
            let script = Script::parse(&format!("{before}{JOIN}{after}")).unwrap();
            assert_eq!(script.language(), Language::PowerShell);
            assert_eq!(script.render(&values).unwrap().expose_secret(), format!("{before}{JOIN_RENDERED}{after}"));
            assert_eq!(
                script.variables().iter().copied().collect::<Vec<_>>(),
                [Variable::AdJoinCredential, Variable::Domain]
            );
            let contexts: Vec<_> = script.placeholders().map(|placeholder| placeholder.context).collect();
            assert_eq!(contexts, [Context::SingleQuoted, Context::DoubleQuoted]);
        }
    }

    /// Each of these was tried with Python's `str.format`, every variable being `V`.
    #[test]
    fn braces_are_read_as_str_format_reads_them() {
        let vectors = [
            ("", ""),
            ("plain", "plain"),
            ("{domain}", "V"),
            ("${{X:-{checkin_jwt}}}", "${X:-V}"),
            ("{{1..600}}", "{1..600}"),
            ("%{{http_code}}", "%{http_code}"),
            ("{{{domain}}}", "{V}"),
            ("{{{{domain}}}}", "{{domain}}"),
            ("{{domain}}", "{domain}"),
            ("{domain}{server_id}", "VV"),
            ("a{{b}}c{domain}d{{}}", "a{b}cVd{}"),
            ("}}{{", "}{"),
            ("}}}}{{{{", "}}{{"),
            ("{domain}}}", "V}"),
            ("{{\n}}\r\n", "{\n}\r\n"),
            ("é{{’{domain}’}}", "é{’V’}"),
        ];
        for (source, expected) in vectors {
            assert_eq!(rendered(source, "V"), expected, "{source:?}");
            assert_eq!(Script::parse(source).unwrap().source(), source);
        }
    }

    fn places(source: &str) -> Vec<(usize, usize, ScriptErrorKind)> {
        Script::parse(source).unwrap_err().into_iter().map(|error| (error.line, error.column, error.kind)).collect()
    }

    #[test]
    fn every_mistake_is_told_at_once_with_its_line_and_column() {
        let stray = |brace| ScriptErrorKind::StrayBrace { brace };
        let source = "ok {domain}\n  éü{ exit 1; }\r\n}{domian}\n{domain!r} \"`{domain}\" $x{domain}\n{";
        let found = places(source);
        assert_eq!(found.len(), 8, "{found:?}");
        assert_eq!(found[0], (2, 5, stray('{')));
        assert_eq!(found[1], (2, 15, stray('}')));
        assert_eq!(found[2], (3, 1, stray('}')));
        let ScriptErrorKind::UnknownVariable(unknown) = &found[3].2 else { panic!("{found:?}") };
        assert_eq!(
            (found[3].0, found[3].1, unknown.name.as_str(), unknown.nearest),
            (3, 2, "domian", Some(Variable::Domain))
        );
        assert_eq!(
            found[4],
            (4, 1, ScriptErrorKind::NotPlain { variable: Variable::Domain, given: "domain!r".into() })
        );
        assert_eq!(found[5], (4, 14, ScriptErrorKind::AfterEscape { variable: Variable::Domain, escape: '`' }));
        assert_eq!(found[6], (4, 26, ScriptErrorKind::InName { variable: Variable::Domain }));
        assert_eq!(found[7], (5, 1, stray('{')));
        assert_eq!(Script::parse(source).unwrap_err().to_string().lines().count(), 8);
    }

    #[test]
    fn stray_braces_and_fields_that_are_not_plain() {
        let kinds = |source: &str| {
            places(source)
                .into_iter()
                .map(|(line, column, kind)| (line, column, kind.to_string().split(' ').next().unwrap().to_owned()))
                .collect::<Vec<_>>()
        };
        let one = |column, word: &str| vec![(1, column, word.to_owned())];
        assert_eq!(kinds("}"), one(1, "a"));
        assert_eq!(kinds("a}}}"), one(4, "a"));
        assert_eq!(kinds("{domain}}"), one(9, "a"));
        assert_eq!(kinds("{{domain}"), one(9, "a"));
        assert_eq!(kinds("{domain"), one(1, "a"));
        assert_eq!(kinds("{}"), [one(1, "a"), one(2, "a")].concat());
        assert_eq!(kinds("{0}"), one(1, "there"));
        assert_eq!(kinds("{Domain}"), one(1, "there"));
        for given in ["domain:>20", "domain!s", "domain.x", "domain[0]", " domain "] {
            assert_eq!(
                places(&format!("{{{given}}}")),
                [(1, 1, ScriptErrorKind::NotPlain { variable: Variable::Domain, given: given.into() })]
            );
        }
        // A brace of code that was not doubled: its other half is told too, and the placeholder inside is not lost.
        assert_eq!(kinds("@{ a = '{domain}' }"), [one(2, "a"), one(19, "a")].concat());
        assert_eq!(kinds("${X:-{checkin_jwt}}"), [one(2, "a"), one(19, "a")].concat());
    }

    #[test]
    fn messages_say_what_is_allowed_and_how_to_mend_it() {
        let message = Script::parse("x {conection_password}").unwrap_err().to_string();
        assert!(
            message.starts_with(
                "line 1, column 3: there is no variable {conection_password} (did you mean {connection_password}?)"
            ),
            "{message}"
        );
        for variable in Variable::ALL {
            assert!(message.contains(&format!("{{{variable}}}")), "{message}");
        }
        assert!(message.ends_with("double both: {{ and }}"), "{message}");
        let message = Script::parse("{zzz}").unwrap_err().to_string();
        assert!(!message.contains("did you mean"), "{message}");
        let message = Script::parse("{registration_token}").unwrap_err().to_string();
        assert!(message.contains("did you mean {checkin_jwt}?"), "{message}");
        let message = Script::parse("if (1) {").unwrap_err().to_string();
        assert!(message.contains("has to be doubled: {{"), "{message}");
        let message = Script::parse("\"${domain}\"").unwrap_err().to_string();
        assert!(message.contains("as in ${{name}}"), "{message}");
    }

    #[test]
    fn names_and_secrets() {
        let names = "connection_username connection_password ad_join_credential domain server_id server_hostname checkin_jwt upstream_auth_address provider_name";
        assert_eq!(Variable::ALL.map(Variable::name).join(" "), names);
        for variable in Variable::ALL {
            assert_eq!(variable.name().parse(), Ok(variable));
        }
        let secret: Vec<_> =
            Variable::ALL.into_iter().filter(|variable| variable.is_secret()).map(Variable::name).collect();
        assert_eq!(secret, ["connection_password", "ad_join_credential", "checkin_jwt"]);
        assert_eq!("domian".parse::<Variable>().unwrap_err().nearest, Some(Variable::Domain));
    }

    #[test]
    fn a_script_is_stored_as_its_source() {
        let script = Script::parse("'{domain}' {{}}").unwrap();
        let stored = serde_json::to_string(&script).unwrap();
        assert_eq!(stored, "\"'{domain}' {{}}\"");
        assert_eq!(serde_json::from_str::<Script>(&stored).unwrap(), script);
        let error = serde_json::from_str::<Script>("\"{domian}\"").unwrap_err();
        assert!(error.to_string().contains("line 1, column 1"), "{error}");
        assert_eq!(format!("{script:?}"), "Script(\"'{domain}' {{}}\")");
    }

    proptest! {
        #[test]
        fn escaped_text_renders_to_itself(text in any::<String>()) {
            let source = text.replace('{', "{{").replace('}', "}}");
            prop_assert_eq!(rendered(&source, "unused"), text);
        }

        #[test]
        fn anything_can_be_parsed(text in "(\\PC|[{}'\"`$#@()<>\\\\\r\n-]|\\{domain\\}|#!/bin/sh\n|<<a|<powershell>){0,40}") {
            if let Ok(script) = Script::parse(&text) {
                // A plain value can stand wherever a script was accepted.
                prop_assert!(render_all(&script, "a1._-z").is_ok());
            }
        }

        #[test]
        fn values_are_never_read_again(values in prop::collection::vec("(\\{|\\}|domain|server_id|x){1,6}", 3)) {
            let script = Script::parse("'{domain}' '{server_id}' '{domain}' {{}}").unwrap();
            let given = Values::from([(Variable::Domain, values[0].as_str().into()), (Variable::ServerId, values[1].as_str().into())]);
            let expected = format!("'{}' '{}' '{}' {{}}", values[0], values[1], values[0]);
            let rendered = script.render(&given).unwrap();
            prop_assert_eq!(rendered.expose_secret(), expected.as_str());
        }

        #[test]
        fn places_are_those_a_naive_count_finds(before in "[a-zé’ \n]{0,30}") {
            let errors = Script::parse(&format!("{before}}}")).unwrap_err();
            let error = errors.iter().next().unwrap();
            prop_assert_eq!(error.line, before.matches('\n').count() + 1);
            prop_assert_eq!(error.column, before.rsplit('\n').next().unwrap().chars().count() + 1);
        }
    }
}

mod refusals {
    use super::*;

    #[test]
    fn a_value_that_is_missing_is_named_with_its_reason() {
        let script = Script::parse("a\n b '{ad_join_credential}'").unwrap();
        let error = script.render(&Values::new()).unwrap_err();
        assert_eq!(
            (error.variable, error.line, error.column, error.kind),
            (Variable::AdJoinCredential, 2, 5, RenderErrorKind::Missing)
        );
        assert!(error.to_string().contains("only a config that joins Active Directory has one"), "{error}");
    }

    #[test]
    fn errors_name_the_character_of_what_is_no_secret() {
        let script = Script::parse("net user {connection_username}").unwrap();
        let error = render_all(&script, "Zo\u{eb}").unwrap_err();
        assert!(error.to_string().contains("holds U+00EB, which cannot stand in bare code"), "{error}");
    }

    #[test]
    fn errors_show_no_part_of_a_secret() {
        let script = Script::parse("net user x {connection_password}").unwrap();
        let error = render_all(&script, "s3cr3t\u{2019}s3cr3t").unwrap_err();
        assert_eq!(error.kind, character('\u{2019}'));
        let message = error.to_string();
        assert!(
            !message.contains("s3cr3t") && !message.contains('\u{2019}') && !format!("{error:?}").contains("s3cr3t"),
            "{message}"
        );
        assert!(
            message.contains("line 1, column 12")
                && message.contains("{connection_password} holds a character that cannot stand")
                && !message.contains("2019"),
            "{message}"
        );
        assert!(
            message.contains("in bare code") && message.contains("single-quoted string, '{connection_password}'"),
            "{message}"
        );
    }

    #[test]
    fn control_characters_can_stand_nowhere() {
        for source in [
            "{domain}",
            "'{domain}'",
            "\"{domain}\"",
            "@'\n{domain}\n'@",
            "# {domain}",
            "#!/bin/sh\n'{domain}'",
            "#cloud-config\na: {domain}",
        ] {
            for control in ['\0', '\t', '\n', '\r', '\x1b', '\x7f', '\u{85}'] {
                assert_eq!(refused(source, &format!("a{control}b")), character(control), "{source:?}");
            }
        }
    }

    #[test]
    fn tags_that_divide_user_data_can_stand_nowhere() {
        for source in ["'{domain}'", "<powershell>'{domain}'</powershell>", "\"{domain}\"", "#!/bin/sh\n'{domain}'"] {
            for value in [
                "</powershell>",
                "x</PowerShell>x",
                "<powershell>",
                "</script>",
                "<SCRIPT>",
                "</powershell >",
                "<persist>true</persist>",
            ] {
                assert_eq!(refused(source, value), RenderErrorKind::Tag, "{source:?} {value:?}");
            }
            assert!(rendered(source, "a<b>c</d>").contains("a<b>c</d>"));
        }
        // A tag of which the script holds one part and the value another.
        assert_eq!(refused("'</power{domain}'", "shell>"), RenderErrorKind::Tag);
        assert_eq!(refused("'{domain}shell>'", "</power"), RenderErrorKind::Tag);
        assert_eq!(refused("'</power{domain}shell>'", ""), RenderErrorKind::Tag);
        assert_eq!(refused("'{domain}{server_id}'", "</script"), RenderErrorKind::Tag);
        assert_eq!(rendered("'</powershell>{domain}<script>'", "a"), "'</powershell>a<script>'");
    }

    #[test]
    fn what_can_stand_in_bare_code() {
        for (source, value) in [
            ("ping {domain}", "host.example:443"),
            ("ping {domain}", "https://host.example/a/b"),
            ("ping {domain}", "CORP\\bob"),
            ("ping {domain}", "bob@corp.example"),
            ("#!/bin/sh\nping {domain}", "https://bob@host.example:443/a"),
            ("x-{domain}", "-Force"),
        ] {
            assert_eq!(rendered(source, value), source.replace("{domain}", value));
        }
        assert_eq!(refused("ping {domain}", "@bob"), character('@'));
        assert_eq!(refused("ping {domain}", "bob@"), character('@'));
        assert_eq!(refused("#!/bin/sh\nping {domain}", "CORP\\bob"), character('\\'));
        assert_eq!(refused("#cloud-config\nhost: {domain}", "a:b"), character(':'));
        assert_eq!(refused("ping {domain}", "-Force"), RenderErrorKind::LeadingDash);
        assert_eq!(refused("Content-Type: multipart/mixed\n\n{domain}\n", "--boundary"), RenderErrorKind::LeadingDash);
        assert_eq!(refused("ping {domain}", ""), RenderErrorKind::Empty);
        for c in " '\"`$;|&(){}<>#%!*?[]~^=+,\u{2019}\u{2013}é".chars() {
            assert_eq!(refused("ping {domain}", &format!("a{c}b")), character(c));
        }
    }

    /// What we generate ourselves, identifiers and tokens, can stand anywhere.
    #[test]
    fn plain_values_can_stand_everywhere() {
        let sources = [
            "{domain}",
            "'{domain}'",
            "\"{domain}\"",
            "\"$({domain})\"",
            "@'\n{domain}\n'@",
            "<# {domain} #>",
            "${{a{domain}}}",
            "'unclosed {domain}",
        ];
        let shells = [
            "#!/bin/sh\n`{domain}`",
            "#!/bin/sh\ncat <<EOF\n{domain}\nEOF\n",
            "#!/bin/sh {domain}",
            "#!/bin/sh\n\\{domain}",
        ];
        for source in sources.into_iter().chain(shells) {
            for value in ["eyJhbGciOi.eyJzdWIi.c2ln_-", "00000000-0000-4000-8000-000000000000", "a"] {
                assert_eq!(
                    rendered(source, value),
                    source.replace("{domain}", value).replace("{{", "{").replace("}}", "}")
                );
            }
        }
    }

    #[test]
    fn an_empty_value_stands_only_in_a_string() {
        assert_eq!(rendered("'{domain}' \"{domain}\"", ""), "'' \"\"");
        for source in ["{domain}", "# {domain}", "@'\n{domain}'@ \n'@", "\"$({domain})\"", "#!/bin/sh\n\"\\{domain}\""]
        {
            assert_eq!(refused(source, ""), RenderErrorKind::Empty, "{source:?}");
        }
    }
}

mod powershell {
    use super::*;
    use Context::*;

    #[test]
    fn contexts_of_strings_and_comments() {
        for (source, expected) in [
            (
                "a {domain} '{domain}' \"{domain}\" # {domain}\n{domain}",
                vec![Bare, SingleQuoted, DoubleQuoted, LineComment, Bare],
            ),
            ("<# ' {domain} #> {domain}", vec![BlockComment, Bare]),
            ("@'\nit's {domain}\n'@ + '{domain}'", vec![SingleHereString, SingleQuoted]),
            ("$x=@\"\nsay \"\"{domain}\"\n \"@\n\"@\n'{domain}'", vec![DoubleHereString, SingleQuoted]),
            ("@'\n'@'{domain}'", vec![SingleQuoted]),
            // All quotes of a kind are the same.
            ("\u{2018}a{domain}\u{201b} {domain} \u{201e}{domain}\"", vec![SingleQuoted, Bare, DoubleQuoted]),
            // Doubled and escaped quotes.
            ("'it''s {domain}' \"a\"\"b{domain}\" \"a`\"b{domain}\"", vec![SingleQuoted, DoubleQuoted, DoubleQuoted]),
            ("it`'s {domain} '{domain}'", vec![Bare, SingleQuoted]),
            ("'C:\\' {domain} '`' {domain}", vec![Bare, Bare]),
            // Code and names in strings.
            ("\"$(a '{domain}' \"\"x\"\") {domain}\" '{domain}'", vec![Expansion, DoubleQuoted, SingleQuoted]),
            ("\"${{a'{domain}}}{domain}\" \"$$({domain}\"", vec![Expansion, DoubleQuoted, DoubleQuoted]),
            ("$(a '{domain}')\n$x = $(b '{domain}')", vec![SingleQuoted, SingleQuoted]),
            // A `$(` inside a word may be read by counting parentheses; what follows it is the same either way.
            ("a$(b '{domain}') '{domain}'", vec![Expansion, SingleQuoted]),
            ("a$(b ')' '{domain}') '{domain}'", vec![Unclear { line: 1 }, Unclear { line: 1 }]),
            // A `#` inside a word may begin a comment or not.
            ("\na#b {domain}\n'{domain}'", vec![Bare, SingleQuoted]),
            ("\na#b' {domain}\n'{domain}'", vec![Unclear { line: 2 }, Unclear { line: 2 }]),
            ("cmd --% ' {domain}\n'{domain}'", vec![Unclear { line: 1 }, Unclear { line: 1 }]),
            ("a$(b)#' {domain}\n'{domain}'", vec![Unclear { line: 1 }, Unclear { line: 1 }]),
            // To a command, `@'` inside a word begins a plain string.
            ("a@'\n'{domain}'\n'@", vec![Unclear { line: 1 }]),
            ("b a,\n$y=@'\n'{domain}'\n'@", vec![Unclear { line: 2 }]),
            ("b `\n$y=@'\n'{domain}'\n'@", vec![Unclear { line: 2 }]),
            ("a `\r\n#'\n'{domain}' b`\r\n'{domain}'", vec![SingleQuoted, SingleQuoted]),
            // A string that never ends: everything before it may have been misread too.
            ("'{domain}'\n'{domain}\n", vec![Unclear { line: 2 }, Unclear { line: 2 }]),
        ] {
            assert_eq!(contexts(source), expected, "{source:?}");
        }
    }

    #[test]
    fn only_the_first_section_between_tags_is_powershell() {
        let source = "{domain}\n<PowerShell>\n'{domain}'\n</powershell>\n'{domain}'<powershell>'{domain}'</powershell>";
        assert_eq!(contexts(source), [Outside, SingleQuoted, Outside, Outside]);
        let source = "\n<powershell>\n'{domain}</powershell>'";
        assert_eq!(contexts(source), [Unclear { line: 3 }]);
    }

    #[test]
    fn quotes_are_escaped() {
        let quotes = "'\u{2018}\u{2019}\u{201a}\u{201b}";
        assert_eq!(
            rendered("'{domain}'", quotes),
            "'''\u{2018}\u{2018}\u{2019}\u{2019}\u{201a}\u{201a}\u{201b}\u{201b}'"
        );
        assert_eq!(rendered("'{domain}'", "a\"$(b)`n\u{201c}"), "'a\"$(b)`n\u{201c}'");
        assert_eq!(
            rendered("\"{domain}\"", "a'$(b)`n\"\u{201c}\u{201d}\u{201e}\u{2019}"),
            "\"a'`$(b)``n`\"`\u{201c}`\u{201d}`\u{201e}\u{2019}\""
        );
    }

    #[test]
    fn names_that_would_swallow_the_value_are_mistakes() {
        for source in ["\"$x{domain}\"", "\"$env:{domain}\"", "\"${domain}\"", "$x{domain}", "@\"\n$x{domain}\n\"@"] {
            let errors = Script::parse(source).unwrap_err();
            assert!(
                errors.iter().all(|error| error.kind == ScriptErrorKind::InName { variable: Variable::Domain }),
                "{source:?}"
            );
        }
        for source in
            ["\"$x.{domain}\"", "\"$${domain}\"", "'$x{domain}'", "\"`$x{domain}\"", "\"$(1){domain}\"", "# $x{domain}"]
        {
            assert!(Script::parse(source).is_ok(), "{source:?}");
        }
    }

    /// PowerShell's tokenizer as its specification and sources describe it, reduced to what strings and comments need. It
    /// does not parse, so it cannot know whether a word belongs to a command: that is told from outside, for a whole text.
    struct Model<'a> {
        text: &'a [char],
        at: usize,
        commands: bool,
        out: Vec<(&'static str, String)>,
    }

    impl Model<'_> {
        fn read(text: &str, commands: bool) -> Vec<(&'static str, String)> {
            let text: Vec<char> = text.chars().collect();
            let mut model = Model { text: &text, at: 0, commands, out: vec![] };
            model.code();
            model.out
        }

        fn peek(&self, ahead: usize) -> char {
            self.text.get(self.at + ahead).copied().unwrap_or('\0')
        }

        fn done(&self) -> bool {
            self.at >= self.text.len()
        }

        fn put(&mut self, kind: &'static str, c: char) {
            match self.out.last_mut() {
                Some((last, text)) if *last == kind => text.push(c),
                _ => self.out.push((kind, c.into())),
            }
        }

        fn take(&mut self, kind: &'static str) -> char {
            let c = self.peek(0);
            self.at += 1;
            self.put(kind, c);
            c
        }

        fn edge(&mut self, kind: &'static str) {
            self.out.push(("edge", kind.into()));
        }

        fn single(c: char) -> bool {
            "'\u{2018}\u{2019}\u{201a}\u{201b}".contains(c)
        }

        fn double(c: char) -> bool {
            "\"\u{201c}\u{201d}\u{201e}".contains(c)
        }

        fn code(&mut self) {
            let (mut in_word, mut statement) = (false, true);
            while !self.done() {
                let c = self.peek(0);
                if c.is_whitespace() || "(){},;|&".contains(c) {
                    self.take("code");
                    in_word = false;
                    statement = (statement && c.is_whitespace()) || ";{\n".contains(c);
                    continue;
                }
                // A statement that begins with an assignment is no command.
                let length = if statement && c == '$' {
                    1 + self.text[self.at + 1..].iter().take_while(|c| c.is_alphanumeric()).count()
                } else {
                    0
                };
                statement = false;
                if length > 1 && self.peek(length) == '=' {
                    (0..=length).for_each(|_| {
                        self.take("code");
                    });
                    continue;
                }
                // In an expression a word ends where an operator or string begins.
                let fresh = !in_word || (!self.commands && !c.is_alphanumeric());
                in_word = true;
                match c {
                    '#' if fresh => {
                        while !self.done() && !"\r\n".contains(self.peek(0)) {
                            self.take("comment");
                        }
                    }
                    '<' if fresh && self.peek(1) == '#' => {
                        self.at += 2;
                        while !(self.done() || self.peek(0) == '#' && self.peek(1) == '>') {
                            self.take("comment");
                        }
                        self.at += 2;
                        self.edge("comment end");
                        in_word = false;
                    }
                    '@' if fresh && Self::single(self.peek(1)) => self.here(Self::single, false),
                    '@' if fresh && Self::double(self.peek(1)) => self.here(Self::double, true),
                    '-' if fresh && self.commands && self.peek(1) == '-' && self.peek(2) == '%' => {
                        while !self.done() && !"\r\n".contains(self.peek(0)) {
                            self.take("verbatim");
                        }
                    }
                    '`' => {
                        let blank = fresh && self.peek(1).is_whitespace();
                        self.take("code");
                        if !self.done() {
                            let c = self.take("escaped");
                            if blank && c == '\r' && self.peek(0) == '\n' {
                                self.take("escaped");
                            }
                        }
                        in_word = !blank;
                    }
                    _ if Self::single(c) => self.single_quoted(),
                    _ if Self::double(c) => self.double_quoted(),
                    '$' if self.peek(1) == '(' && fresh => {
                        self.take("code");
                    }
                    '$' => self.dollar(),
                    _ => {
                        self.take("code");
                    }
                }
            }
        }

        fn single_quoted(&mut self) {
            self.edge("'");
            self.at += 1;
            while !self.done() {
                if Self::single(self.peek(0)) {
                    self.at += 1;
                    if !Self::single(self.peek(0)) {
                        return self.edge("' end");
                    }
                }
                self.take("single");
            }
        }

        fn double_quoted(&mut self) {
            self.edge("\"");
            self.at += 1;
            while !self.done() {
                let c = self.peek(0);
                if Self::double(c) {
                    self.at += 1;
                    if !Self::double(self.peek(0)) {
                        return self.edge("\" end");
                    }
                    self.take("text");
                } else {
                    self.expandable();
                }
            }
        }

        fn expandable(&mut self) {
            match self.peek(0) {
                '`' if self.at + 1 < self.text.len() => {
                    self.at += 1;
                    let c = self.peek(0);
                    self.at += 1;
                    let escapes = "0abefnrtv";
                    if escapes.contains(c) { self.put("escape", c) } else { self.put("text", c) }
                }
                '$' => self.dollar(),
                _ => {
                    self.take("text");
                }
            }
        }

        /// A `$` in a string, or in a word of a command.
        fn dollar(&mut self) {
            let next = self.peek(1);
            if next == '(' {
                self.take("expansion");
                let mut open = 0;
                while !self.done() {
                    match self.take("expansion") {
                        '(' => open += 1,
                        ')' => open -= 1,
                        _ => {}
                    }
                    if open == 0 {
                        break;
                    }
                }
            } else if next == '{' {
                while !self.done() {
                    match self.take("expansion") {
                        '}' => break,
                        '`' => {
                            self.take("expansion");
                        }
                        _ => {}
                    }
                }
            } else if "$?^".contains(next) {
                self.take("expansion");
                self.take("expansion");
            } else if next.is_alphanumeric() || "_:".contains(next) {
                self.take("expansion");
                while self.peek(0).is_alphanumeric()
                    || "_?".contains(self.peek(0))
                    || (self.peek(0) == ':' && self.peek(1) != ':')
                {
                    self.take("expansion");
                }
            } else {
                self.take("text");
            }
            self.edge("expansion end");
        }

        fn here(&mut self, is_quote: fn(char) -> bool, expands: bool) {
            self.edge("here");
            self.at += 2;
            while !self.done() && self.peek(0) != '\r' && self.peek(0) != '\n' {
                if !self.peek(0).is_whitespace() {
                    // An error of syntax: nothing of the script runs.
                    self.out = vec![("error", "syntax".into())];
                    self.at = self.text.len();
                    return;
                }
                self.at += 1;
            }
            while !self.done() {
                let c = self.peek(0);
                if c == '\r' || c == '\n' {
                    self.take("here");
                    if c == '\r' && self.peek(0) == '\n' {
                        self.take("here");
                    }
                    if is_quote(self.peek(0)) && self.peek(1) == '@' {
                        self.at += 2;
                        return self.edge("here end");
                    }
                } else if expands {
                    self.expandable();
                } else {
                    self.take("here");
                }
            }
        }
    }

    /// Whether a script means the same with a value as with a harmless one, but for the value.
    fn assert_unchanged(script: &Script, value: &str) -> Result<bool, TestCaseError> {
        let Ok(text) = render_all(script, value) else { return Ok(false) };
        let harmless = render_all(script, MARKER).unwrap();
        for commands in [true, false] {
            let mut expected = Model::read(&harmless, commands);
            for (_, text) in &mut expected {
                *text = text.replace(MARKER, value);
            }
            expected.retain(|(_, text)| !text.is_empty());
            let mut found = Model::read(&text, commands);
            found.retain(|(_, text)| !text.is_empty());
            prop_assert_eq!(&found, &expected, "{:?} {:?}", script, value);
        }
        Ok(true)
    }

    #[test]
    fn the_model_reads_strings() {
        let read =
            |text: &str| Model::read(text, true).into_iter().filter(|(kind, _)| *kind != "edge").collect::<Vec<_>>();
        let is = |kind, text: &str| (kind, text.to_owned());
        assert_eq!(read("a 'it''s'"), [is("code", "a "), is("single", "it's")]);
        assert_eq!(
            read("\"a`\"$x\"\"b\" # c"),
            [is("text", "a\""), is("expansion", "$x"), is("text", "\"b"), is("code", " "), is("comment", "# c")]
        );
        // That the model can tell an injection is what makes it worth asking.
        assert_ne!(read("'x\u{2019}; evil \u{2019}'"), read("'x\u{2019}\u{2019}; evil \u{2019}\u{2019}'"));
    }

    /// Values of what could do harm, and of what could hide it.
    fn hostile() -> impl Strategy<Value = String> {
        let piece = prop::sample::select(vec![
            "'",
            "\u{2018}",
            "\u{2019}",
            "\u{201a}",
            "\u{201b}",
            "\"",
            "\u{201c}",
            "\u{201d}",
            "\u{201e}",
            "`",
            "$",
            "$(",
            "(",
            ")",
            "{",
            "}",
            "{domain}",
            "{{",
            "#",
            "<#",
            "#>",
            "@",
            "'@",
            "@'",
            ";",
            "|",
            "\\",
            "/",
            ":",
            "-",
            "\u{2013}",
            " ",
            "a",
            "n",
            "Z9",
            "é",
            "\u{202e}",
            "\u{1f600}",
            "</powershell",
            "--%",
            "%",
            "!",
        ]);
        prop::collection::vec(piece, 0..6).prop_map(|pieces| pieces.concat())
    }

    /// Scripts of everything that begins or ends something, in any order.
    fn scripts() -> impl Strategy<Value = String> {
        let piece = prop::sample::select(vec![
            "'",
            "'",
            "''",
            "\u{2019}",
            "\"",
            "\"",
            "\u{201d}",
            "`",
            "$",
            "$(",
            "(",
            ")",
            "${{",
            "}}",
            "{{",
            "$x",
            "$$",
            "@'\n",
            "@\"\n",
            "\n'@",
            "\n\"@",
            "@",
            "#",
            " #",
            "<#",
            " <#",
            "#>",
            "\n",
            "\r\n",
            " ",
            " ",
            ";",
            "=",
            "$y=",
            "a",
            "b ",
            " --%",
            ":",
            "-",
            "{domain}",
            "{domain}",
            "{domain}",
            "'{domain}'",
            "\"{domain}\"",
            "\u{a0}",
        ]);
        prop::collection::vec(piece, 1..24).prop_map(|pieces| pieces.concat())
    }

    const FRAMES: [&str; 14] = [
        "a '{domain}' b",
        "a \"{domain}\" b",
        "a {domain} b",
        "a'{domain}'b {domain}",
        "'{domain}{domain}''{domain}'",
        "\"x$y {domain}`\"{domain}\"\"{domain}\"",
        "@'\n{domain}\na{domain}\n'@ b",
        "@\"\n{domain}\na{domain}\n\"@ b",
        "# {domain}\nb",
        "<# {domain} #> b",
        "\"$(a '{domain}') {domain}\" b",
        "x$(a '{domain}') '{domain}'",
        "${{{domain}}} b",
        "\u{2018}{domain}\u{2019} \u{201c}{domain}\u{201d}",
    ];

    proptest! {
        #![proptest_config(cases(4000))]

        #[test]
        fn no_value_breaks_out_of_any_context(frame in prop::sample::select(FRAMES.to_vec()), value in hostile()) {
            let script = Script::parse(frame).unwrap();
            assert_unchanged(&script, &value)?;
        }

        #[test]
        fn no_value_breaks_out_of_any_script(source in scripts(), value in hostile()) {
            if let Ok(script) = Script::parse(&source) {
                assert_unchanged(&script, &value)?;
            }
        }

        #[test]
        fn any_text_without_control_characters_can_stand_in_quotes(value in "[^<\\pC]{0,20}") {
            for frame in ["a '{domain}' b", "a \"{domain}\" b"] {
                prop_assert!(assert_unchanged(&Script::parse(frame).unwrap(), &value)?);
            }
        }
    }
}

mod shell {
    use super::*;
    use Context::*;

    fn shell_contexts(source: &str) -> Vec<Context> {
        contexts(&format!("#!/bin/sh\n{source}"))
    }

    #[test]
    fn contexts_of_strings_comments_and_documents() {
        let document = |number| HereDocument { number };
        for (source, expected) in [
            (
                "a {domain} '{domain}' \"{domain}\" # {domain}\n{domain}",
                vec![Bare, SingleQuoted, DoubleQuoted, LineComment, Bare],
            ),
            ("a#b '{domain}' \\' {domain} \\# '{domain}'", vec![SingleQuoted, Bare, SingleQuoted]),
            ("echo $# ${{#}} '{domain}' ${{a#'}}'}} '{domain}'", vec![SingleQuoted, SingleQuoted]),
            ("X=${{X:-{domain}}} Y=\"${{Y:-{domain}}}\" '{domain}'", vec![Expansion, Expansion, SingleQuoted]),
            ("\"$(a '{domain}' \"b\" $(c (d)) )\" '{domain}'", vec![Expansion, SingleQuoted]),
            (
                "$(a '{domain}') `a {domain}` \"`{domain}`\" '{domain}'",
                vec![SingleQuoted, Expansion, Expansion, SingleQuoted],
            ),
            ("$((1 << {domain})) '{domain}' ((a << 2)) '{domain}'", vec![Expansion, SingleQuoted, Unclear { line: 2 }]),
            ("for ((i=0;i<9;i++)); do '{domain}'", vec![SingleQuoted]),
            ("IFS=$'\\n{domain}' '{domain}' $'it\\'s' '{domain}'", vec![Expansion, SingleQuoted, Unclear { line: 2 }]),
            ("\"\\{domain}\" \\{domain}", vec![AfterBackslash, AfterBackslash]),
            (
                "cat <<EOF <<-'X Y' {domain}\nit's {domain}\n EOF\nEOF\n$x {domain}\n\tX Y\n'{domain}'",
                vec![Bare, document(0), document(1), SingleQuoted],
            ),
            ("cat <<< '{domain}' <<\"E\"\n'$a{domain}'\nE", vec![SingleQuoted, document(0)]),
            ("cat <<EOF\n'{domain}'\n", vec![Unclear { line: 3 }]),
            ("cat <<EOF 'a\n'\n'{domain}'\nEOF\n", vec![Unclear { line: 3 }]),
            ("\"$(case a in a) ;; esac)\" '{domain}'", vec![Unclear { line: 2 }]),
            ("\"${{a:-'}}\" '{domain}'", vec![Unclear { line: 2 }]),
            ("\"${{a:-'}}'}}\" '{domain}'", vec![Unclear { line: 2 }]),
            ("cat <<E \"$(a\nE\n)\" '{domain}'", vec![Unclear { line: 3 }]),
            ("'{domain}' \"", vec![Unclear { line: 2 }]),
        ] {
            assert_eq!(shell_contexts(source), expected, "{source:?}");
        }
    }

    #[test]
    fn languages_by_their_first_line() {
        for (source, language) in [
            ("#!/bin/sh\n", Language::Shell),
            ("\n #!/usr/bin/env -S bash -e\r\n", Language::Shell),
            ("#!/nix/store/abc-dash/bin/dash", Language::Shell),
            ("#!/usr/bin/env pwsh\n", Language::PowerShell),
            ("#!/usr/bin/python3\n", Language::Other),
            ("#!", Language::Other),
            ("#cloud-config\n", Language::Other),
            ("Content-Type: multipart/mixed; boundary=x\n", Language::Other),
            ("MIME-Version: 1.0\n", Language::Other),
            ("<script>\necho\n</script>", Language::Other),
            ("<powershell>\n#!/bin/sh\n", Language::PowerShell),
            ("\u{feff}#ps1\n", Language::PowerShell),
            ("", Language::PowerShell),
            ("echo hello", Language::PowerShell),
        ] {
            assert_eq!(Language::of(source), language, "{source:?}");
        }
    }

    #[test]
    fn a_value_never_ends_a_here_document() {
        let source = "#!/bin/sh\ncat <<EOF\n{domain}\nEOF\n";
        assert_eq!(refused(source, "EOF"), RenderErrorKind::Delimiter);
        assert_eq!(refused("#!/bin/sh\ncat <<-EOF\n\tE{domain}\nEOF\n", "OF"), RenderErrorKind::Delimiter);
        assert_eq!(rendered(source, "EOFs"), "#!/bin/sh\ncat <<EOF\nEOFs\nEOF\n");
        // Where a document that nothing else ends would end with the value, too.
        for source in ["cat <<E\n{domain}\n", "cat << 'E'\n{domain}", "cat <<\\E\n\t{domain}\n"] {
            assert_eq!(refused(&format!("#!/bin/sh\n{source}"), "E"), RenderErrorKind::Delimiter, "{source}");
            rendered(&format!("#!/bin/sh\n{source}"), "F");
        }
    }

    #[test]
    fn a_value_is_never_the_stream_of_a_redirection() {
        for (source, value) in [
            ("echo {domain}>x", "2"),
            ("echo {domain}0<x", "1"),
            ("`{domain}<<-E a #`", "7"),
            ("echo ${{a:-{domain}>x}}", "2"),
            ("echo {domain}{domain}>x", "2"),
            ("{{{domain}}}>x", "a"),
        ] {
            assert_eq!(refused(&format!("#!/bin/sh\n{source}"), value), RenderErrorKind::Stream, "{source}");
            assert_eq!(refused("echo {domain}>x", "2"), RenderErrorKind::Stream, "PowerShell has streams too");
        }
        for (source, value) in [("echo {domain}>x", "a2"), ("echo {domain} >x", "2"), ("echo '{domain}'>x", "2")] {
            assert_eq!(
                rendered(&format!("#!/bin/sh\n{source}"), value),
                format!("#!/bin/sh\n{}", source.replace("{domain}", value))
            );
        }
        assert_eq!(rendered("#!/bin/sh\n${{a:-{domain}}}>x", "a"), "#!/bin/sh\n${a:-a}>x");
    }

    #[test]
    fn quotes_are_escaped() {
        assert_eq!(rendered("#!/bin/sh\n'{domain}'", "it's \"$(a)\" \\ `b`"), "#!/bin/sh\n'it'\\''s \"$(a)\" \\ `b`'");
        assert_eq!(
            rendered("#!/bin/sh\n\"{domain}\"", "it's \"$(a)\" \\ `b`"),
            "#!/bin/sh\n\"it's \\\"\\$(a)\\\" \\\\ \\`b\\`\""
        );
    }

    #[test]
    fn names_that_would_swallow_the_value_are_mistakes() {
        for source in ["$x{domain}", "\"$x{domain}\"", "\"${domain}\"", "cat <<E\n$x{domain}\nE", "$'\\{domain}'"] {
            assert!(Script::parse(&format!("#!/bin/sh\n{source}")).is_err(), "{source:?}");
        }
        for source in ["'$x{domain}'", "\\$x{domain}", "$1{domain}", "cat <<'E'\n$x{domain}\nE", "\"$?{domain}\""] {
            assert!(Script::parse(&format!("#!/bin/sh\n{source}")).is_ok(), "{source:?}");
        }
    }

    /// What a real shell writes. Values have no letters of which a command could be made, so a mistake of ours does no harm.
    fn run(shell: &str, text: &str) -> String {
        let mut command = Command::new(shell);
        let command = command
            .args(["-c", text])
            .current_dir(env!("CARGO_TARGET_TMPDIR"))
            .env_clear()
            .stdin(Stdio::null())
            .stderr(Stdio::null());
        String::from_utf8(command.output().expect("a shell").stdout).expect("text")
    }

    fn shells() -> Vec<&'static str> {
        ["/bin/sh", "/bin/dash", "/bin/bash"].into_iter().filter(|path| std::path::Path::new(path).exists()).collect()
    }

    fn assert_unchanged(script: &Script, value: &str) -> Result<bool, TestCaseError> {
        let Ok(text) = render_all(script, value) else { return Ok(false) };
        let harmless = render_all(script, MARKER).unwrap();
        for shell in shells() {
            prop_assert_eq!(
                run(shell, &text),
                run(shell, &harmless).replace(MARKER, value),
                "{} {:?} {:?}",
                shell,
                script,
                value
            );
        }
        Ok(true)
    }

    fn hostile() -> impl Strategy<Value = String> {
        let piece = prop::sample::select(vec![
            "'", "\"", "\\", "`", "$", "$0", "$(", ")", "${", "}", "{domain}", "#", ";", "&", "|", "(", "!", "*", "?",
            "~", "=", " ", "%s", "é", "\u{2019}", "-", "_Q", "E", "7",
        ]);
        prop::collection::vec(piece, 0..6).prop_map(|pieces| pieces.concat())
    }

    fn scripts() -> impl Strategy<Value = String> {
        let piece = prop::sample::select(vec![
            "'",
            "'",
            "\"",
            "\"",
            "\\",
            "$(",
            ")",
            "(",
            "${{",
            "}}",
            "${{_Q:-",
            "`",
            "$_Q",
            "$",
            "$'",
            "#",
            " #",
            "\n",
            "\n",
            "\nprintf '[%s]' ",
            "printf '[%s]' ",
            " ",
            " ",
            ";",
            "<<E\n",
            "<<'E'\n",
            "<<-E ",
            "\nE\n",
            "$((",
            "((",
            "))",
            "<<<",
            "case ",
            "_Q",
            "{domain}",
            "{domain}",
            "'{domain}'",
            "\"{domain}\"",
            "\t",
        ]);
        let pieces = prop::collection::vec(piece, 1..20).prop_map(|pieces| pieces.concat());
        let pieces = pieces.prop_filter("$$ is another number in every process", |text| !text.contains("$$"));
        pieces.prop_map(|text| {
            format!("#!/bin/sh\nprintf '[%s]' {text}\nprintf '<%s>' '{{domain}}' \"{{domain}}\" {{domain}}\n")
        })
    }

    const FRAMES: [&str; 8] = [
        "printf '[%s]' '{domain}'",
        "printf '[%s]' \"{domain}\"",
        "printf '[%s]' {domain} a{domain}b",
        "printf '[%s]' 'a'{domain}\"b\" \"$_Q {domain}$_Q\"",
        "printf '[%s]' '{domain}{domain}''{domain}' \"\\{domain}\"",
        "while read -r _Q; do printf '[%s]' \"$_Q\"; done <<E\n{domain}\nx{domain}\nE\nprintf '[%s]' '{domain}'",
        "printf '[%s]' \"${{_Q:-{domain}}}\" ${{_Q:-{domain}}} \"$(printf %s '{domain}')\" `printf %s {domain}`",
        "# it's {domain}\nprintf '[%s]' '{domain}'",
    ];

    #[test]
    fn real_shells_read_quoted_values_back() {
        let script =
            Script::parse("#!/bin/sh\nprintf %s '{connection_password}'; printf %s \"{connection_password}\"").unwrap();
        for value in [
            "",
            "it's",
            "'",
            "''",
            "\\",
            "\\'",
            "a\\",
            "$0",
            "$(echo 1)",
            "`echo 1`",
            "\"",
            "\"'\"'",
            "!!",
            "#",
            "é’“",
            "{domain}",
            "a b  c",
            "%s%n",
            "*",
            "~",
        ] {
            for shell in shells() {
                assert_eq!(
                    run(shell, &render_all(&script, value).unwrap()),
                    [value, value].concat(),
                    "{shell} {value:?}"
                );
            }
        }
    }

    proptest! {
        #![proptest_config(cases(192))]

        #[test]
        fn no_value_breaks_out_of_any_context(frame in prop::sample::select(FRAMES.to_vec()), value in hostile()) {
            assert_unchanged(&Script::parse(&format!("#!/bin/sh\n{frame}")).unwrap(), &value)?;
        }

        #[test]
        fn no_value_breaks_out_of_any_script(source in scripts(), value in hostile()) {
            if let Ok(script) = Script::parse(&source) {
                assert_unchanged(&script, &value)?;
            }
        }
    }
}

#[test]
fn of_many_mistakes_the_first_hundred_are_told() {
    let source = "ok\n{x} } '{domain}'\n".repeat(40_000);
    let errors = Script::parse(&source).unwrap_err();
    let places: Vec<(usize, usize)> = errors.iter().map(|error| (error.line, error.column)).collect();
    assert_eq!((places.len(), places[0], places[99]), (100, (2, 1), (100, 5)));
}
