//! Names, filters and what a directory sends.

use kasm_ad::fuzzing::{MESSAGE_MAX, children, mark, mark_text, message, page_cookie, page_request};
use kasm_ad::{Dn, Filter};

use crate::generator::Shape;
use crate::{Target, Verdict, is_worded, joined, texts};

/// The longest texts that are read.
const DN_BYTES_MAX: usize = 4096;
const FILTER_BYTES_MAX: usize = 8192;

/// Distinguished names: a name and a value. A name that is read comes back from its own text; a value never adds a part, and is
/// below the name it was put under.
pub const DN: Target = Target {
    name: "dn",
    shape: Shape::Bytes,
    examples: || {
        [
            ["OU=Desktops,DC=corp,DC=example", "desk-1"],
            [r"CN=James \22Jim\22 Smith\2C III,OU=a\,b, DC=example", "a,OU=b"],
            [r"CN=Lu\C4\8Di\C4\87,O=x", " #+\"\\<>;=\r"],
            ["ou = x , dc=y", "ü"],
            [r"CN=\20x\20,UID=\#a,2.5.4.3=z", "a\0b"],
        ]
        .map(|texts| joined(&texts))
        .into()
    },
    words: &[
        "OU=", "DC=", "CN=", ",", "\\,", "\\2C", "\\", "+", "=", "#04", " ", "\\20", "\\ff", ";", "\"", "\\0d",
        "<GUID=1>",
    ],
    check: |input| {
        let [text, value] = texts::<2>(input);
        let name = match text.parse::<Dn>() {
            Ok(name) => name,
            Err(error) => {
                is_worded(&error.to_string(), 400 + 8 * text.len());
                return Verdict::Refused;
            }
        };
        let written = name.to_string();
        // Its own text may be longer, since it has more escapes: then it is refused for that.
        assert!(written.len() > DN_BYTES_MAX || written.parse::<Dn>().as_ref() == Ok(&name), "{written:?}");
        assert!(!name.is_below(&name) && name.is_within(&name) && name.same_as(&name));
        assert!(!written.chars().any(char::is_control), "{written:?}");
        assert!(name.domain_part().is_none_or(|domain| name.is_within(&domain)));
        match name.child("CN", &value) {
            Ok(below) => {
                assert_eq!(below.parts().len(), name.parts().len() + 1);
                assert_eq!(below.parts()[0].value(), value);
                assert!(below.is_below(&name) && !name.is_within(&below));
                let again = below.to_string().parse::<Dn>();
                // What is too long is refused when it is read, not when it is made.
                assert!(again.is_err() || again == Ok(below.clone()), "{below}");
                Verdict::Taken
            }
            Err(error) => {
                is_worded(&error.to_string(), 400 + 8 * value.len());
                Verdict::Refused
            }
        }
    },
    inputs: 600_000,
};

/// Search filters: a filter and a value. A filter that is read comes back from its own text, `ldap3` reads it too, and what it is
/// filled with stays a value.
pub const FILTER: Target = Target {
    name: "filter",
    shape: Shape::Bytes,
    examples: || {
        let filters = [
            "(cn=Babs Jensen)",
            "(&(objectClass=Person)(|(sn=Jensen)(cn=Babs J*)))",
            "(!(o=univ*of*mich*))",
            "(&(objectClass=user)(|(sAMAccountName={username})(mail={username}@x)(p=a*{username}*)(q:1.2:={username})))",
            r"(bin=\00\00\2a\04)",
            "(|(seeAlso=*)(a>=1)(a<=1)(a~=1)(:dn:2.4.6.8.10:=Dino))",
        ];
        filters
            .iter()
            .flat_map(|filter| ["ann", "*)(cn=*", "\\2a", "ü\0"].map(|value| joined(&[filter, value])))
            .collect()
    },
    words: &[
        "(",
        ")",
        "&",
        "|",
        "!",
        "=",
        "*",
        "\\2a",
        "\\28",
        ">=",
        "<=",
        "~=",
        ":=",
        ":dn:",
        "{username}",
        "(cn=*)",
        "1.2.840",
        "\\",
    ],
    check: |input| {
        let [text, value] = texts::<2>(input);
        let filter = match text.parse::<Filter>() {
            Ok(filter) => filter,
            Err(error) => {
                is_worded(&error.to_string(), 400 + 8 * text.len());
                return Verdict::Refused;
            }
        };
        let written = filter.to_string();
        assert!(written.len() > FILTER_BYTES_MAX || written.parse::<Filter>().as_ref() == Ok(&filter), "{written}");
        assert!(ldap3::parse_filter(&written).is_ok(), "ldap3 does not read {written}");
        // With something that joins nothing on its left with anything on its right, as an empty value does.
        let everywhere = filter.filled("{username}", "\u{1}");
        assert!(!everywhere.mentions("{username}"), "a placeholder is left: {everywhere}");
        let filled = filter.filled("{username}", &value);
        // Nothing, between two asterisks, is no piece any more.
        assert!(
            value.is_empty() || shape(&filled) == shape(&filter),
            "the value {value:?} adds to the filter: {filled}"
        );
        let text = filled.to_string();
        assert!(text.is_ascii() && !text.bytes().any(|byte| byte < b' '), "{text:?}");
        if text.len() <= FILTER_BYTES_MAX {
            assert_eq!(text.parse::<Filter>(), Ok(filled), "{text}");
        }
        Verdict::Taken
    },
    inputs: 600_000,
};

/// A filter without its values.
fn shape(filter: &Filter) -> String {
    let all = |filters: &[Filter]| filters.iter().map(shape).collect::<String>();
    match filter {
        Filter::And(filters) => format!("(&{})", all(filters)),
        Filter::Or(filters) => format!("(|{})", all(filters)),
        Filter::Not(filter) => format!("(!{})", shape(filter)),
        Filter::Equals(name, _) => format!("({name}=)"),
        Filter::AtLeast(name, _) => format!("({name}>)"),
        Filter::AtMost(name, _) => format!("({name}<)"),
        Filter::Approx(name, _) => format!("({name}~)"),
        Filter::Rule(name, _) => format!("({name}:)"),
        Filter::Parts(name, parts) => format!("({name}{})", parts.len()),
        Filter::Present(name) => format!("({name}*)"),
    }
}

/// What a directory sends: a message is passed on only when it is whole, small and flat, whatever follows it; marks and cookies
/// come back from what was written.
pub const BER: Target = Target {
    name: "ber",
    shape: Shape::Bytes,
    examples: || {
        let bind = [0x30, 12, 2, 1, 1, 0x61, 7, 0x0a, 1, 0, 4, 0, 4, 0];
        let mut entry = vec![0x30, 0x82, 0, 40, 2, 1, 2, 0x64, 35, 4, 9];
        entry.extend_from_slice(b"CN=a,DC=b");
        entry.extend_from_slice(&[0x30, 22, 0x30, 20, 4, 10]);
        entry.extend_from_slice(b"objectGUID");
        entry.extend_from_slice(&[0x31, 6, 4, 4, 1, 2, 3, 4]);
        let mark = "kasm-autoscale v1 deployment=01010101-0101-0101-0101-010101010101 pool=02020202-0202-0202-0202-020202020202 \
                    server=00000000-0000-0000-0000-000000000000 config=cfg-3";
        let nested = [0x30, 16, 0x30, 14, 0x30, 12, 0x30, 10, 0x30, 8, 0x30, 6, 0x30, 4, 0x30, 2, 4, 0];
        let long = [0x30, 0x84, 0, 0, 0, 3, 2, 1, 5];
        vec![
            bind.to_vec(),
            entry,
            page_request(500, b"cookie"),
            mark.as_bytes().to_vec(),
            nested.to_vec(),
            long.to_vec(),
        ]
    },
    words: &[
        "0\u{0}",
        "0\u{2}",
        "0\u{7f}",
        "\u{4}\u{1}",
        "1\u{6}",
        "\u{2}\u{1}",
        "\u{5}\u{0}",
        " config=",
        " server=",
        "cfg-",
    ],
    check: |input| {
        // Marks are texts of the same directory.
        let text = String::from_utf8_lossy(input);
        if let Some(marker) = mark(&text) {
            assert_eq!(mark(&mark_text(&marker)), Some(marker));
        }
        if let Some(cookie) = page_cookie(input) {
            assert!(cookie.len() <= input.len());
        }
        let written = page_request(u16::try_from(input.len()).unwrap_or(u16::MAX), input);
        assert_eq!(page_cookie(&written).as_deref(), Some(input));
        match message(input) {
            Ok(Some(end)) => {
                let whole = &input[..end];
                assert!(end <= MESSAGE_MAX + 10 && depth(whole) <= 12, "{end}");
                assert_eq!(message(whole), Ok(Some(end)), "what follows it changes the message");
                assert_eq!(message(&input[..end - 1]), Ok(None), "a message that is not whole");
                // The parser that gets it must survive it.
                let _ = children(whole);
                Verdict::Taken
            }
            Ok(None) => Verdict::Refused,
            Err(said) => {
                is_worded(&said, 200);
                Verdict::Refused
            }
        }
    },
    inputs: 700_000,
};

/// How deep elements lie in each other, counted by recursion.
fn depth(element: &[u8]) -> usize {
    let of_child = |(identifier, content): (u8, &[u8])| {
        if identifier & 0x20 == 0 {
            return 0;
        }
        let mut whole = vec![identifier, 0x84];
        whole.extend(u32::try_from(content.len()).unwrap_or(u32::MAX).to_be_bytes());
        whole.extend_from_slice(content);
        depth(&whole)
    };
    1 + children(element).into_iter().flatten().map(of_child).max().unwrap_or_default()
}
