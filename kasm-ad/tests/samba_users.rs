//! Users log in against a real domain, or do not, and are told nothing about why.

use kasm_ad::{AuthError, LdapSettings, Refusal};
use kasm_autoscale_core::ports::DirectoryErrorKind as Kind;
use secrecy::SecretString;

#[path = "../../tests/support/real.rs"]
mod real;
#[path = "../../tests/support/samba.rs"]
mod samba;
#[path = "support/world.rs"]
mod world;

use samba::{BASE, PEOPLE, SERVICE, Samba, USER_PASSWORD};
use world::{directory, settings};

async fn refused(settings: &LdapSettings, name: &str, password: &str) -> Refusal {
    let outcome = directory(settings.clone()).authenticate(name, &SecretString::from(password)).await;
    let error = outcome.expect_err("not let in");
    assert_eq!(error.to_string(), "wrong user name or password");
    match error {
        AuthError::Refused(refusal) => refusal,
        AuthError::Unavailable(error) => panic!("{name:?}: {error}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_logs_in_by_either_name() {
    let Some(samba) = Samba::shared() else { return };
    let directory = directory(settings(&samba));
    for name in ["ann", "ANN", "ann@example.local"] {
        let user = directory.authenticate(name, &SecretString::from(USER_PASSWORD)).await.expect("Ann");
        assert_eq!((user.sam_account_name.as_str(), user.domain.as_str()), ("ann", "example.local"));
        assert_eq!(user.user_principal_name.as_deref(), Some("ann@example.local"));
        assert_eq!(user.display_name.as_deref(), Some("Ann Example"));
        assert_eq!(user.dn, format!("CN=ann,{PEOPLE}"));
        assert_eq!(user.groups, [format!("CN=students,CN=Users,{BASE}")]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_not_let_in_learns_nothing_and_the_log_everything() {
    let Some(samba) = Samba::shared() else { return };
    let settings = settings(&samba);
    let cases = [
        ("ann", "wrong", Refusal::WrongPassword),
        ("nobody", USER_PASSWORD, Refusal::UnknownUser),
        ("cut", USER_PASSWORD, Refusal::AccountDisabled),
        ("ann", "", Refusal::BadPassword),
        ("", USER_PASSWORD, Refusal::BadName),
        (" ", USER_PASSWORD, Refusal::BadName),
        ("ann\0", USER_PASSWORD, Refusal::BadName),
        // A filter that is not escaped would find Ann, or everybody.
        ("a*", USER_PASSWORD, Refusal::UnknownUser),
        ("*", USER_PASSWORD, Refusal::UnknownUser),
        ("ann)(objectClass=*", USER_PASSWORD, Refusal::UnknownUser),
        ("*)(|(sAMAccountName=ann", USER_PASSWORD, Refusal::UnknownUser),
        ("\\61nn", USER_PASSWORD, Refusal::UnknownUser),
        ("{username}", USER_PASSWORD, Refusal::UnknownUser),
        ("a,b=\"c\" <d>;e+f#", USER_PASSWORD, Refusal::UnknownUser),
        ("ännchen \u{202e}", USER_PASSWORD, Refusal::UnknownUser),
    ];
    for (name, password, reason) in cases {
        assert_eq!(refused(&settings, name, password).await, reason, "{name:?}");
    }
    // Someone who must choose another password first.
    let change = format!("dn: CN=bob,{PEOPLE}\nchangetype: modify\nreplace: pwdLastSet\npwdLastSet: 0\n");
    let own = Samba::start_changed(samba::Certificate::Good, &change).expect("it is installed");
    assert_eq!(refused(&world::settings(&own), "bob", USER_PASSWORD).await, Refusal::MustChangePassword);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disabled_config_lets_nobody_in_and_exactly_one_user_must_fit() {
    let Some(samba) = Samba::shared() else { return };
    let mut disabled = settings(&samba);
    disabled.enabled = false;
    assert_eq!(refused(&disabled, "ann", USER_PASSWORD).await, Refusal::Disabled);

    let mut vague = settings(&samba);
    vague.search_filter = "(&(objectClass=user)(|(cn={username})(sn=Example)))".parse().expect("a filter");
    assert_eq!(refused(&vague, "ann", USER_PASSWORD).await, Refusal::AmbiguousUser);

    let mut shallow = settings(&samba);
    shallow.subtree = false;
    assert_eq!(refused(&shallow, "ann", USER_PASSWORD).await, Refusal::UnknownUser);
    shallow.search_base = PEOPLE.parse().expect("a name");
    directory(shallow).authenticate("ann", &SecretString::from(USER_PASSWORD)).await.expect("Ann");
}

#[tokio::test(flavor = "multi_thread")]
async fn groups_decide_who_may_log_in_groups_in_groups_too() {
    let Some(samba) = Samba::shared() else { return };
    let group = format!("CN=desktop-users,CN=Users,{BASE}");
    let mut by_name = settings(&samba);
    by_name.required_groups = vec![group.to_uppercase().parse().expect("a name")];
    let mut by_filter = settings(&samba);
    let filter = "(&(objectClass=group)(cn=students)(member={user_dn}))";
    by_filter.group_filter = Some(filter.parse().expect("a filter"));
    for settings in [&by_name, &by_filter] {
        let user = directory(settings.clone()).authenticate("ann", &SecretString::from(USER_PASSWORD)).await;
        assert!(user.expect("Ann").groups.contains(&format!("CN=students,CN=Users,{BASE}")));
        assert_eq!(refused(settings, "bob", USER_PASSWORD).await, Refusal::NotInGroup);
        assert_eq!(refused(settings, "bob", "wrong").await, Refusal::NotInGroup);
    }
    // A group that the filter does not find is none that the user is in.
    by_filter.required_groups = vec![group.parse().expect("a name")];
    assert_eq!(refused(&by_filter, "ann", USER_PASSWORD).await, Refusal::NotInGroup);
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_names_in_the_directory_itself_are_found_and_log_in() {
    let Some(samba) = Samba::shared() else { return };
    let names = [
        r#"Comma, "Quote" \ Back"#,
        "Star *(paren)",
        "#hash + plus; semi <angle> = equals",
        " leading and trailing ",
        "Ünï çødé",
    ];
    for (index, name) in names.iter().enumerate() {
        let dn = PEOPLE.parse::<kasm_ad::Dn>().expect("a name").child("CN", name).expect("a value");
        let account = format!("hostile{index}");
        let ldif = format!(
            "dn: {dn}\nobjectClass: user\nsAMAccountName: {account}\nuserPrincipalName: {account}@example.local\n\
             unicodePwd:: {}\nuserAccountControl: 512\n",
            base64(&format!("\"{USER_PASSWORD}\""))
        );
        samba.administer("add", &[], &ldif);
        let member = format!("dn: CN=desktop-users,CN=Users,{BASE}\nchangetype: modify\nadd: member\nmember: {dn}\n");
        samba.administer("modify", &[], &member);
        let mut settings = settings(&samba);
        settings.required_groups = vec![format!("CN=desktop-users,CN=Users,{BASE}").parse().expect("a name")];
        settings.search_filter =
            "(&(objectClass=user)(|(cn={username})(sAMAccountName={username})))".parse().expect("one");
        let user = directory(settings).authenticate(name.trim(), &SecretString::from(USER_PASSWORD)).await;
        let user = user.unwrap_or_else(|error| panic!("{name:?}: {error:?}"));
        assert_eq!(user.sam_account_name, account);
        assert!(user.dn.parse::<kasm_ad::Dn>().expect("a name").same_as(&dn), "{} is not {dn}", user.dn);
    }
}

/// UTF-16 as LDIF carries it.
fn base64(text: &str) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let bytes: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let mut out = String::new();
    for chunk in bytes.chunks(3) {
        let group = chunk.iter().fold(0_u32, |group, byte| (group << 8) | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for index in 0..4 {
            let sign = ALPHABET[usize::try_from(group >> (18 - 6 * index) & 63).expect("small")];
            out.push(if index <= chunk.len() { char::from(sign) } else { '=' });
        }
    }
    out
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_service_password_is_not_the_users_fault_and_no_error_repeats_a_password() {
    let Some(samba) = Samba::shared() else { return };
    let wrong = world::settings_of(&samba.url(), &samba, (SERVICE.0, "Not-The-Passw0rd"));
    let outcome = directory(wrong).authenticate("ann", &SecretString::from(USER_PASSWORD)).await;
    let error = outcome.expect_err("nobody can log in");
    let shown = format!("{error} {error:?}");
    assert!(!shown.contains("Not-The-Passw0rd") && !shown.contains(USER_PASSWORD), "{shown}");
    let AuthError::Unavailable(error) = error else { panic!("{error:?}") };
    assert_eq!((error.kind, error.code.as_str()), (Kind::Denied, "invalidCredentials"));
}
