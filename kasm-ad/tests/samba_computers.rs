//! Computer objects in a real domain: made, joined in both ways that machines have, and removed.

use std::sync::Arc;

use kasm_ad::ActiveDirectory;
use kasm_autoscale_core::ports::{Directory, DirectoryErrorKind as Kind, JoinState, Scope};
use secrecy::ExposeSecret;

#[path = "../../tests/support/real.rs"]
mod real;
#[path = "../../tests/support/samba.rs"]
mod samba;
#[path = "support/world.rs"]
mod world;

use samba::{COMPUTERS, Samba};
use world::{computer, directory, enroll, password, server, settings};

fn line<'a>(entry: &'a str, name: &str) -> Vec<&'a str> {
    let prefix = format!("{name}: ");
    entry.lines().filter_map(|line| line.strip_prefix(&prefix)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_is_made_with_everything_in_one_request_and_found_again_by_its_mark() {
    let Some(samba) = Samba::shared() else { return };
    let directory = directory(settings(&samba));
    let server = server(11, 1);
    assert_eq!(directory.find_computer(&server).await, Ok(None));
    let made = enroll(&directory, server).await;
    let name = server.machine_name();
    let dn = format!("CN={name},{COMPUTERS}");
    let entry = samba.show(&dn).expect("the object");
    assert_eq!(line(&entry, "sAMAccountName"), [format!("{name}$")]);
    assert_eq!(line(&entry, "userAccountControl"), ["4096"]);
    assert_eq!(line(&entry, "dNSHostName"), [format!("{name}.example.local")]);
    assert_eq!(line(&entry, "servicePrincipalName").len(), 2, "{entry}");
    let mark = line(&entry, "adminDescription");
    assert!(mark[0].contains(&server.uuid()) && mark[0].contains("config=cfg-3"), "{mark:?}");
    assert!(samba.kerberos_knows(name.as_str(), password(&server).expose_secret()));

    // The answer was lost: the same call again changes nothing, not even the password.
    let again = directory.ensure_computer(&computer(server), &password(&world::server(11, 99))).await;
    assert_eq!(again, Ok(made.clone()));
    assert!(samba.kerberos_knows(name.as_str(), password(&server).expose_secret()));
    assert_eq!(directory.find_computer(&server).await, Ok(Some(made.clone())));
    assert_eq!(directory.joined(&made).await, Ok(JoinState::Waiting));

    // Neither another pool nor another installation finds it, and the other installation does not delete it.
    assert_eq!(directory.list_computers(&world::server(12, 1).pool).await.expect("a list").computers, []);
    let other = kasm_autoscale_core::id::DeploymentId::from_bytes([9; 16]);
    let stranger = ActiveDirectory::new(settings(&samba), other).expect("sound settings");
    assert_eq!(stranger.find_computer(&server).await, Ok(None));
    let refused = stranger.delete_computer(&made, true).await.expect_err("it is not theirs");
    assert_eq!((refused.kind, refused.scope, refused.code.as_str()), (Kind::Invalid, Scope::Server, "foreign"));

    directory.delete_computer(&made, false).await.expect("deleted");
    assert_eq!(directory.delete_computer(&made, false).await, Ok(()));
    assert_eq!(directory.joined(&made).await, Ok(JoinState::Absent));
    assert_eq!(samba.show(&dn), None);
}

/// Joins, and shows that the password with which that was done is worth nothing any more.
async fn join_and_leave(samba: &Arc<Samba>, number: u64, join: impl Fn(&str, &str) -> Result<(), String>) {
    let directory = directory(settings(samba));
    let server = server(13, number);
    let made = enroll(&directory, server).await;
    let (name, password) = (server.machine_name(), password(&server));
    assert_eq!(directory.joined(&made).await, Ok(JoinState::Waiting));
    let wrong = join(name.as_str(), "Wr0ng-Passw0rd-entirely");
    assert!(wrong.is_err(), "a wrong password joins");
    assert_eq!(directory.joined(&made).await, Ok(JoinState::Waiting));

    join(name.as_str(), password.expose_secret()).expect("joined");
    assert_eq!(directory.joined(&made).await, Ok(JoinState::Joined));
    assert!(!samba.kerberos_knows(name.as_str(), password.expose_secret()), "the join password still works");
    let second = join(name.as_str(), password.expose_secret());
    assert!(second.is_err(), "the join password worked twice");

    directory.delete_computer(&made, true).await.expect("deleted");
    assert_eq!(directory.joined(&made).await, Ok(JoinState::Absent));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_linux_machine_joins_once_with_its_password() {
    let Some(samba) = Samba::shared() else { return };
    join_and_leave(&samba, 1, |name, password| samba.join_with_adcli(name, password)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_windows_machine_joins_once_with_its_password() {
    let Some(samba) = Samba::shared() else { return };
    join_and_leave(&samba, 2, |name, password| samba.join_with_netlogon(name, password, "N3w-Machine-Passw0rd-x9"))
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reference_stays_the_same_and_another_process_sees_the_join_too() {
    let Some(samba) = Samba::shared() else { return };
    let directory = directory(settings(&samba));
    let server = server(14, 1);
    let made = enroll(&directory, server).await;
    let restarted = world::directory(settings(&samba));
    assert_eq!(restarted.joined(&made).await, Ok(JoinState::Waiting));
    // A machine takes longer than that to start.
    tokio::time::sleep(std::time::Duration::from_secs(4)).await;
    let (name, password) = (server.machine_name(), password(&server));
    samba.join_with_netlogon(name.as_str(), password.expose_secret(), "N3w-Machine-Passw0rd-x9").expect("joined");
    for directory in [&directory, &restarted] {
        assert_eq!(directory.joined(&made).await, Ok(JoinState::Joined));
        // What is listed is what was made: an object under another reference would be an orphan.
        assert_eq!(directory.find_computer(&server).await, Ok(Some(made.clone())));
        let listing = directory.list_computers(&server.pool).await.expect("a list");
        let seen: Vec<_> = listing.computers.iter().map(|computer| &computer.reference).collect();
        assert_eq!(seen, [&made]);
    }
    restarted.delete_computer(&made, false).await.expect("deleted");
    assert_eq!(directory.joined(&made).await, Ok(JoinState::Absent));
}
