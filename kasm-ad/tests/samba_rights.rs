//! What a real domain refuses: names that are taken, units that are missing, accounts without rights; and what it would let through, which we refuse.

use std::sync::Arc;

use kasm_autoscale_core::ports::{Certainty, Directory, DirectoryErrorKind as Kind, Finding, Scope};
use secrecy::ExposeSecret;

#[path = "../../tests/support/real.rs"]
mod real;
#[path = "../../tests/support/samba.rs"]
mod samba;
#[path = "support/world.rs"]
mod world;

use samba::{BASE, COMPUTERS, Certificate, SERVICE, Samba, WEAK_SERVICE};
use world::{computer, directory, enroll, named, password, server, settings, settings_of};

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_is_anothers_is_taken_and_the_other_is_not_touched() {
    let Some(samba) = Samba::shared() else { return };
    let directory = directory(settings(&samba));
    // The same name in the same unit, the same account elsewhere, and only the same service principal name.
    let others = [
        (format!("CN=TAKEN-1,{COMPUTERS}"), "TAKEN-1$", ""),
        (format!("CN=other,OU=People,{BASE}"), "TAKEN-2$", ""),
        (format!("CN=third,OU=People,{BASE}"), "THIRD$", "servicePrincipalName: HOST/TAKEN-3\n"),
    ];
    for (index, (dn, account, more)) in others.iter().enumerate() {
        let ldif =
            format!("dn: {dn}\nobjectClass: computer\nsAMAccountName: {account}\nuserAccountControl: 4096\n{more}");
        samba.administer("add", &[], &ldif);
        let before = samba.show(dn);
        let server = server(31, index as u64 + 1);
        let wanted = named(server, &format!("TAKEN-{}", index + 1));
        let error = directory.ensure_computer(&wanted, &password(&server)).await.expect_err("taken");
        assert_eq!(
            (error.kind, error.scope, error.certainty),
            (Kind::NameTaken, Scope::Server, Certainty::NotApplied),
            "{error}"
        );
        assert_eq!(samba.show(dn), before);
        assert_eq!(directory.find_computer(&server).await, Ok(None));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_directory_would_let_through_is_refused_by_us() {
    let Some(samba) = Samba::shared() else { return };
    let directory = directory(settings(&samba));
    let server = server(32, 1);
    for name in ["A234567890123456", "", "-edge", "edge-", "1234", "under_score", "dot.ted", "sp ace", "ümlaut", "a/b"]
    {
        let error = directory.ensure_computer(&named(server, name), &password(&server)).await.expect_err(name);
        assert_eq!((error.kind, error.certainty, error.code.as_str()), (Kind::Invalid, Certainty::NotApplied, "name"));
    }
    let mut strange = computer(server);
    strange.marker.deployment = kasm_autoscale_core::id::DeploymentId::from_bytes([9; 16]);
    let error = directory.ensure_computer(&strange, &password(&server)).await.expect_err("another installation's");
    assert_eq!(error.code, "marker");
    let mut outside = computer(server);
    outside.ou = format!("OU=People,{BASE}");
    let error = directory.ensure_computer(&outside, &password(&server)).await.expect_err("outside");
    assert!(error.code == "ou" && error.message.contains("computer_base"), "{error}");
    assert_eq!(directory.find_computer(&server).await, Ok(None));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_unit_that_is_missing_is_an_operators_matter() {
    let Some(samba) = Samba::shared() else { return };
    let directory = directory(settings(&samba));
    let server = server(33, 1);
    let ou = format!("OU=Nowhere,{COMPUTERS}");
    let mut lost = computer(server);
    lost.ou.clone_from(&ou);
    let error = directory.ensure_computer(&lost, &password(&server)).await.expect_err("no unit");
    assert_eq!(
        (error.kind, error.scope, error.certainty, error.code.as_str()),
        (Kind::Invalid, Scope::Offering, Certainty::NotApplied, "noSuchObject")
    );
    assert!(!error.message.contains(password(&server).expose_secret()));
    let findings = directory.preflight(&ou).await.expect("an answer");
    assert_eq!(subjects(&findings), ["organisational unit"]);
    // Units below the base do, with hostile names too.
    let odd = format!(r#"OU=a\, \"b\" \+ c\;\<d\>\\ *(e) \ ,{COMPUTERS}"#);
    samba.administer("add", &[], &format!("dn: {odd}\nobjectClass: organizationalUnit\n"));
    assert_eq!(directory.check(&odd), []);
    assert_eq!(directory.preflight(&odd).await, Ok(vec![]));
    let mut deep = computer(server);
    deep.ou = odd;
    let made = directory.ensure_computer(&deep, &password(&server)).await.expect("made");
    directory.delete_computer(&made, false).await.expect("deleted");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_bind_password_denies_everything() {
    let Some(samba) = Samba::shared() else { return };
    let wrong = directory(settings_of(&samba.url(), &samba, (SERVICE.0, "Not-The-Passw0rd")));
    let server = server(34, 1);
    let error = wrong.ensure_computer(&computer(server), &password(&server)).await.expect_err("denied");
    assert_eq!(
        (error.kind, error.scope, error.certainty, error.code.as_str()),
        (Kind::Denied, Scope::Provider, Certainty::NotApplied, "invalidCredentials")
    );
    assert!(!format!("{error} {error:?}").contains("Not-The-Passw0rd"));
    assert!(wrong.preflight(COMPUTERS).await.is_err());
}

fn subjects(findings: &[Finding]) -> Vec<&str> {
    findings.iter().map(|finding| finding.subject.as_str()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_preflight_with_every_right_finds_nothing_and_leaves_nothing() {
    let Some(samba) = Samba::shared() else { return };
    let directory = directory(settings(&samba));
    assert_eq!(directory.preflight(COMPUTERS).await, Ok(vec![]));
    assert_eq!(directory.preflight(&format!("OU=Pool A,{COMPUTERS}")).await, Ok(vec![]));
    let weak = world::directory(settings_of(&samba.url(), &samba, WEAK_SERVICE));
    let findings = weak.preflight(COMPUTERS).await.expect("an answer");
    assert_eq!(subjects(&findings), ["right to create computers"]);
    assert!(findings[0].remedy.contains("Create Computer objects"), "{findings:?}");
    let server = server(35, 1);
    let error = weak.ensure_computer(&computer(server), &password(&server)).await.expect_err("denied");
    assert_eq!((error.kind, error.scope, error.certainty), (Kind::Denied, Scope::Offering, Certainty::NotApplied));
}

/// Computers whose own access lists grant nothing, so that every right comes from the organisational unit.
const NO_DEFAULTS: &str = "dn: CN=Computer,CN=Schema,CN=Configuration,DC=example,DC=local\nchangetype: modify\n\
    replace: defaultSecurityDescriptor\ndefaultSecurityDescriptor: \
    D:(A;;RPWPCRCCDCLCLORCWOWDSDDTSW;;;DA)(A;;RPWPCRCCDCLCLORCWOWDSDDTSW;;;SY)\n";

/// The class computer.
const CLASS: &str = "bf967a86-0de6-11d0-a285-00aa003049e2";

#[tokio::test(flavor = "multi_thread")]
async fn each_right_that_is_missing_is_named() {
    let Some(samba) = Samba::start_changed(Certificate::Good, NO_DEFAULTS) else { return };
    let samba = Arc::new(samba);
    let weak = directory(settings_of(&samba.url(), &samba, WEAK_SERVICE));
    let (create, delete) = (format!("(OA;;CC;{CLASS};;{{svc-weak}})"), format!("(OA;;DC;{CLASS};;{{svc-weak}})"));
    let read = format!("(OA;CIIO;RPLCLORC;;{CLASS};{{svc-weak}})");
    let subtree = format!("(OA;CIIO;SDDT;;{CLASS};{{svc-weak}})");
    let cases: [(&str, &[&str], &[&str]); 5] = [
        ("all", &[&create, &delete, &read, &subtree], &[]),
        ("create", &[&delete, &read, &subtree], &["right to create computers"]),
        ("read", &[&create, &delete, &subtree], &["right to read computers", "right to search computers"]),
        ("subtree", &[&create, &delete, &read], &["right to delete subtrees of computers"]),
        ("delete", &[&create, &read], &["right to delete subtrees of computers", "right to delete computers"]),
    ];
    for (name, granted, missing) in cases {
        let ou = format!("OU={name},{COMPUTERS}");
        samba.administer("add", &[], &format!("dn: {ou}\nobjectClass: organizationalUnit\n"));
        let owners = "(A;CI;RPWPCRCCDCLCLORCWOWDSDDTSW;;;DA)(A;CI;RPWPCRCCDCLCLORCWOWDSDDTSW;;;SY)(A;;RPLCLORC;;;AU)";
        samba.administer("sddl", &[&ou, &format!("D:P{owners}{}", granted.concat())], "");
        let findings = weak.preflight(&ou).await.expect("an answer");
        assert_eq!(subjects(&findings), missing, "{name}: {findings:?}");
        assert!(findings.iter().all(|finding| finding.remedy.contains("README")), "{findings:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_cannot_change_its_own_mark() {
    let Some(samba) = Samba::shared() else { return };
    let directory = directory(settings(&samba));
    let server = server(36, 1);
    let made = enroll(&directory, server).await;
    let name = server.machine_name();
    let account = format!("{name}$@example.local");
    let change = |attribute: &str, value: &str| {
        format!("dn: CN={name},{COMPUTERS}\nchangetype: modify\nreplace: {attribute}\n{attribute}: {value}\n")
    };
    let password = password(&server);
    let password = password.expose_secret();
    let refused = samba.modify_as(&account, password, &change("adminDescription", "mine"));
    assert!(refused.as_ref().is_err_and(|text| text.contains("Insufficient access")), "{refused:?}");
    // It is let in at all, and may change what a machine must.
    samba.modify_as(&account, password, &change("dNSHostName", &format!("{name}.example.local"))).expect("changed");
    directory.delete_computer(&made, true).await.expect("deleted");
}
