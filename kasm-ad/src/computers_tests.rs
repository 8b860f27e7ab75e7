use super::{check_name, check_password, generalized_time};

#[test]
fn names_are_those_that_netbios_and_dns_both_take() {
    for good in ["kasm-abcdefghij", "A", "PC-1", "1a", "a23456789012345"] {
        assert_eq!(check_name(good), Ok(()), "{good}");
    }
    for bad in ["", "a234567890123456", "-a", "a-", "1234", "a_b", "a.b", "a b", "ä", "a\0", "a/b", "*"] {
        let error = check_name(bad).expect_err(bad);
        assert!(error.message.contains("1 to 15 letters, digits and hyphens"), "{error}");
    }
}

#[test]
fn passwords_are_strong_and_are_never_shown() {
    assert_eq!(check_password("PC1", "Abcdefgh-12345"), Ok(()));
    let long = format!("Aa1{}", "x".repeat(118));
    for bad in [
        "",
        "Abcdefgh-1234",
        "abcdefgh-12345",
        "ABCDEFGH-12345",
        "Abcdefgh-ijklm",
        "xx-pC1-Abcdefgh-1",
        "Abcdefgh\"12345",
        "Abcdefgh-1234ä",
        &long,
    ] {
        let error = check_password("PC1", bad).expect_err(bad);
        assert!(bad.is_empty() || !error.to_string().contains(bad), "{error}");
    }
}

#[test]
fn times_of_objects_are_read() {
    let cases = [
        ("19700101000000.0Z", Some(0)),
        ("19700301000000Z", Some(59 * 86_400)),
        ("20000229235959.0Z", Some(951_868_799)),
        ("20240229120000.0Z", Some(1_709_208_000)),
        ("20261125221049.0Z", Some(1_795_644_649)),
        ("21000301000000.0Z", Some(4_107_542_400)),
        ("20261125221049.0", None),
        ("20261325221049.0Z", None),
        ("20260025221049.0Z", None),
        ("2026", None),
        ("ä0261125221049.0Z", None),
    ];
    for (text, seconds) in cases {
        assert_eq!(generalized_time(text), seconds, "{text}");
    }
}
