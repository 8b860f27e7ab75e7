//! Search filters: examples of RFC 4515, hostile values, and another parser's opinion.

use kasm_ad::{Filter, FilterError};
use proptest::prelude::*;

fn filter(text: &str) -> Filter {
    text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
}

#[test]
fn reads_the_examples_of_rfc_4515_section_4() {
    for text in [
        "(cn=Babs Jensen)",
        "(!(cn=Tim Howes))",
        "(&(objectClass=Person)(|(sn=Jensen)(cn=Babs J*)))",
        "(o=univ*of*mich*)",
        "(cn:caseExactMatch:=Fred Flintstone)",
        "(cn:=Betty Rubble)",
        "(sn:dn:2.4.6.8.10:=Barney Rubble)",
        "(o:dn:=Ace Industry)",
        "(:1.2.3:=Wilma Flintstone)",
        "(:dn:2.4.6.8.10:=Dino)",
        "(seeAlso=*)",
        "(a>=1)",
        "(a<=1)",
        "(a~=1)",
    ] {
        assert_eq!(filter(text).to_string(), text);
    }
    assert_eq!(
        filter(r"(o=Parens R Us \28for all your parenthetical needs\29)").to_string(),
        r"(o=Parens R Us \28for all your parenthetical needs\29)"
    );
    assert_eq!(filter(r"(cn=*\2A*)"), Filter::Parts("cn".to_owned(), vec![vec![], b"*".to_vec(), vec![]]));
    assert_eq!(filter(r"(bin=\00\00\00\04)"), Filter::equals("bin", [0, 0, 0, 4]));
    assert_eq!(filter(r"(sn=Lu\c4\8di\c4\87)"), Filter::equals("sn", "Lučić"));
    assert_eq!(filter("(sn=Lučić)"), Filter::equals("sn", "Lučić"));
    assert_eq!(filter("(seeAlso=)"), Filter::equals("seeAlso", ""));
}

#[test]
fn names_mistakes_and_how_to_mend_them() {
    let shape = "; a filter looks like (&(objectClass=user)(sAMAccountName={username}))";
    let cases = [
        ("", format!("expected '(' at character 1{shape}")),
        ("cn=a", format!("expected '(' at character 1{shape}")),
        ("(cn=a", format!("expected ')' at character 6{shape}")),
        ("(cn=a))", format!("expected the end at character 7{shape}")),
        ("(&)", format!("expected '(' at character 3{shape}")),
        ("(ä)", format!("expected ATTRIBUTE=value at character 2{shape}")),
        ("(c n=a)", "\"c n\" is not an attribute's name; use one like sAMAccountName".to_owned()),
        ("(=a)", "\"\" is not an attribute's name; use one like sAMAccountName".to_owned()),
        ("(cn::=a)", "\"cn::\" is not an attribute's name; use one like sAMAccountName".to_owned()),
        ("(cn:1.2..3:=a)", "\"cn:1.2..3:\" is not an attribute's name; use one like sAMAccountName".to_owned()),
        ("(cn:a:b:=a)", "\"cn:a:b:\" is not an attribute's name; use one like sAMAccountName".to_owned()),
        ("(1.02=a)", "\"1.02\" is not an attribute's name; use one like sAMAccountName".to_owned()),
        (r"(cn=\zz)", "a backslash must be followed by two hexadecimal digits, as in \\2a".to_owned()),
        (r"(cn=\+1)", "a backslash must be followed by two hexadecimal digits, as in \\2a".to_owned()),
        (r"(cn=\2)", "a backslash must be followed by two hexadecimal digits, as in \\2a".to_owned()),
        ("(cn=a**b)", "two asterisks beside each other in the value of cn; write one".to_owned()),
    ];
    for (text, message) in cases {
        assert_eq!(text.parse::<Filter>().unwrap_err().to_string(), message, "{text}");
    }
    assert_eq!(format!("(cn={})", "x".repeat(9000)).parse::<Filter>(), Err(FilterError::TooLong(9005)));
    assert_eq!("(!".repeat(1000).parse::<Filter>(), Err(FilterError::TooDeep));
}

#[test]
fn a_placeholder_is_filled_once_wherever_it_stands() {
    let users = filter(
        "(&(objectClass=user)(|(cn={username})(mail={username}@x)(p=a*{username}*)(m:1.2:={username})(!(q={username}))))",
    );
    assert!(users.mentions("{username}") && !users.mentions("{user_dn}"));
    let filled = users.filled("{username}", "{username}*");
    assert_eq!(
        filled.to_string(),
        r"(&(objectClass=user)(|(cn={username}\2a)(mail={username}\2a@x)(p=a*{username}\2a*)(m:1.2:={username}\2a)(!(q={username}\2a))))"
    );
}

#[test]
fn a_placeholder_that_is_filled_with_nothing_leaves_a_filter_that_can_be_written() {
    let filled = |text: &str| filter(text).filled("{username}", "").to_string();
    assert_eq!(filled("(p=a*{username}*b)"), "(p=a*b)");
    assert_eq!(filled("(p=*{username}*)"), "(p=*)");
    assert_eq!(filter("(p=*{username}*)").filled("{username}", ""), Filter::Present("p".to_owned()));
    assert_eq!(filled("(p={username}*b)"), "(p=*b)");
}

fn filters() -> impl Strategy<Value = Filter> {
    let value = prop_oneof![
        prop::collection::vec(any::<u8>(), 1..12),
        r#"[ *()\\,"=#+<>;\x00a]{1,12}"#.prop_map(String::into_bytes),
        "\\PC{1,8}".prop_map(String::into_bytes),
    ];
    let name = "[a-zA-Z][a-zA-Z0-9-]{0,6}";
    let leaf = prop_oneof![
        (name, value.clone()).prop_map(|(name, value)| Filter::Equals(name, value)),
        (name, value.clone()).prop_map(|(name, value)| Filter::AtLeast(name, value)),
        (name, value.clone()).prop_map(|(name, value)| Filter::AtMost(name, value)),
        (name, value.clone()).prop_map(|(name, value)| Filter::Approx(name, value)),
        (name, value.clone()).prop_map(|(name, value)| Filter::Rule(name, value)),
        (name, value.clone(), value.clone()).prop_map(|(name, one, other)| Filter::Parts(name, vec![one, other])),
        (name, value.clone(), value)
            .prop_map(|(name, one, other)| Filter::Parts(name, vec![vec![], one, other, vec![]])),
        name.prop_map(Filter::Present),
    ];
    leaf.prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 1..3).prop_map(Filter::And),
            prop::collection::vec(inner.clone(), 1..3).prop_map(Filter::Or),
            inner.prop_map(|inner| Filter::Not(Box::new(inner))),
        ]
    })
}

proptest! {
    #[test]
    fn any_filter_comes_back_from_its_text(one in filters()) {
        let text = one.to_string();
        prop_assert!(text.is_ascii() && !text.bytes().any(|b| b < b' '), "{}", text);
        prop_assert_eq!(filter(&text), one);
    }

    #[test]
    fn the_library_that_sends_it_reads_the_same(one in filters()) {
        prop_assert!(ldap3::parse_filter(one.to_string()).is_ok(), "{}", one);
    }

    #[test]
    fn a_value_never_adds_a_condition(value in r#"[ *()\\,"=|&!\x00a]{0,20}|\PC{0,20}"#) {
        let filled = filter("(&(objectClass=user)(cn={username}))").filled("{username}", &value);
        prop_assert_eq!(
            filter(&filled.to_string()),
            Filter::And(vec![Filter::equals("objectClass", "user"), Filter::equals("cn", &value)])
        );
    }

    #[test]
    fn no_text_makes_it_panic(text in r"\PC{0,60}|[()&|!=*\\:<>~a-f0-9]{0,60}") {
        if let Ok(one) = text.parse::<Filter>() {
            prop_assert_eq!(filter(&one.to_string()), one);
        }
    }
}
