use super::{Refusal, worth_asking};

#[test]
fn active_directory_says_why_in_its_data() {
    let text = |data: &str| {
        format!("80090308: LdapErr: DSID-0C09041C, comment: AcceptSecurityContext error, data {data}, v4563")
    };
    let cases = [
        ("525", Refusal::UnknownUser),
        ("52e", Refusal::WrongPassword),
        ("530", Refusal::NotNow),
        ("531", Refusal::NotNow),
        ("532", Refusal::PasswordExpired),
        ("533", Refusal::AccountDisabled),
        ("701", Refusal::AccountExpired),
        ("773", Refusal::MustChangePassword),
        ("775", Refusal::LockedOut),
        ("57", Refusal::Other),
        ("", Refusal::Other),
    ];
    for (data, refusal) in cases {
        assert_eq!(Refusal::of(&text(data)), refusal, "{data}");
    }
    assert_eq!(Refusal::of("Simple Bind Failed: NT_STATUS_LOGON_FAILURE"), Refusal::WrongPassword);
    assert_eq!(Refusal::of(""), Refusal::WrongPassword);
}

#[test]
fn what_need_not_be_asked_is_not() {
    let cases = [
        (true, "ann", "x", None),
        (false, "ann", "x", Some(Refusal::Disabled)),
        (true, "", "x", Some(Refusal::BadName)),
        (true, "\u{a0}", "x", Some(Refusal::BadName)),
        (true, "a\nb", "x", Some(Refusal::BadName)),
        (true, "ann", "", Some(Refusal::BadPassword)),
        (true, "ann", "a\0", Some(Refusal::BadPassword)),
    ];
    for (enabled, name, password, refusal) in cases {
        assert_eq!(worth_asking(enabled, name, password), refusal, "{name:?} {password:?}");
    }
    assert_eq!(worth_asking(true, &"ä".repeat(256), "x"), None);
    assert_eq!(worth_asking(true, &"ä".repeat(257), "x"), Some(Refusal::BadName));
    assert_eq!(worth_asking(true, "ann", &"x".repeat(1025)), Some(Refusal::BadPassword));
}
