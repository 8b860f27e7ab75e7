//! Distinguished names: examples of RFC 4514, hostile values, containment.

use kasm_ad::{Dn, DnError, Rdn};
use proptest::prelude::*;

fn dn(text: &str) -> Dn {
    text.parse().unwrap()
}

#[test]
fn reads_the_escapes_of_rfc_4514_section_4() {
    assert_eq!(
        dn(r"CN=James \22Jim\22 Smith\2C III,DC=example,DC=net").parts()[0].value(),
        r#"James "Jim" Smith, III"#
    );
    assert_eq!(dn(r"CN=Before\0dAfter,DC=example").parts()[0].value(), "Before\rAfter");
    assert_eq!(dn(r"CN=Lu\C4\8Di\C4\87").parts()[0].value(), "Lučić");
}

#[test]
fn names_mistakes_and_how_to_mend_them() {
    let cases = [
        ("", "part 1 is empty; a distinguished name looks like OU=Desktops,DC=example,DC=local"),
        ("OU=a,,DC=b", "part 2 is empty; a distinguished name looks like OU=Desktops,DC=example,DC=local"),
        ("Desktops", "\"Desktops\" has no '='; each part is TYPE=value, as in OU=Desktops"),
        ("1U=a", "\"1U\" is not an attribute type; use one like CN, OU or DC"),
        ("OU=", "OU has an empty value"),
        ("OU=a;b", "';' must be written with a backslash before it, as in \\;"),
        (r"OU=a\", "a backslash must be followed by a special character or by two hexadecimal digits"),
        (r"OU=\ff", "escaped bytes are not UTF-8"),
        (r"OU=\00", "a value contains a NUL character"),
        ("CN=a+SN=b", "a part with several values is not supported; write each part as one TYPE=value"),
        ("CN=#0403", "a value in hexadecimal digits is not supported; write each part as one TYPE=value"),
    ];
    for (text, message) in cases {
        assert_eq!(text.parse::<Dn>().unwrap_err().to_string(), message, "{text:?}");
    }
    assert_eq!(format!("OU={}", "x".repeat(5000)).parse::<Dn>(), Err(DnError::TooLong(5003)));
}

#[test]
fn containment_compares_parsed_names_not_text() {
    let base = dn("OU=Desktops,DC=example,DC=local");
    assert!(dn("cn=x, ou=DESKTOPS , dc=Example,dc=LOCAL").is_below(&base));
    assert!(dn(r"CN=x,OU=\44esktops,DC=example,DC=local").is_below(&base));
    assert!(!base.is_below(&base));
    assert!(!dn(r"CN=x\,OU=Desktops,DC=example,DC=local").is_below(&base));
    assert!(!dn("CN=x,OU=NotDesktops,DC=example,DC=local").is_below(&base));
}

#[test]
fn the_domain_is_made_of_the_last_parts() {
    assert_eq!(dn("OU=x,DC=example,DC=local").domain().as_deref(), Some("example.local"));
    assert_eq!(dn("DC=odd,OU=x,DC=local").domain().as_deref(), Some("local"));
    assert_eq!(dn("OU=x,O=y").domain(), None);
}

proptest! {
    #[test]
    fn any_value_comes_back_from_its_text(value in "[^\0]{1,40}", ou in "[ ,+\"\\\\<>;=#a\r\né]{1,12}") {
        let base = dn("DC=example,DC=local").child("OU", &ou).unwrap();
        let name = base.child("CN", &value).unwrap();
        let back = dn(&name.to_string());
        prop_assert_eq!(&back, &name);
        prop_assert_eq!(back.parts()[0].value(), value.as_str());
        prop_assert!(back.is_below(&base));
    }

    #[test]
    fn no_text_makes_it_panic(text in "\\PC{0,60}|[\\\\,=+#\" a-f0-9]{0,60}") {
        if let Ok(name) = text.parse::<Dn>() {
            prop_assert_eq!(dn(&name.to_string()), name);
        }
    }

    #[test]
    fn a_value_never_adds_a_part(value in "\\PC{1,40}") {
        if let Ok(part) = Rdn::new("CN", &value) {
            prop_assert_eq!(dn(&part.to_string()).parts().len(), 1);
        }
    }
}

#[test]
fn within_is_below_or_the_same() {
    let base = dn("OU=Desktops,DC=example,DC=local");
    assert!(dn("ou=desktops,dc=EXAMPLE,dc=local").is_within(&base));
    assert!(dn("CN=x,OU=Desktops,DC=example,DC=local").is_within(&base));
    assert!(!dn("DC=example,DC=local").is_within(&base));
    assert!(!dn("OU=Desktop,DC=example,DC=local").same_as(&base));
    assert_eq!(base.domain_part(), Some(dn("DC=example,DC=local")));
    assert_eq!(dn("O=x").domain_part(), None);
}
