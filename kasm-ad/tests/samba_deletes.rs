//! Removing computer objects from a real domain: what lies below them, what must be kept, and what is not ours.

use kasm_autoscale_core::id::ServerKey;
use kasm_autoscale_core::ports::{Certainty, ComputerRef, Directory, DirectoryErrorKind as Kind, Scope};

#[path = "../../tests/support/real.rs"]
mod real;
#[path = "../../tests/support/samba.rs"]
mod samba;
#[path = "support/world.rs"]
mod world;

use samba::{BASE, COMPUTERS, Samba};
use world::{directory, enroll, server, settings};

fn dn(server: ServerKey) -> String {
    format!("CN={},{COMPUTERS}", server.machine_name())
}

/// Puts an object below another, as Hyper-V does.
fn child(samba: &Samba, parent: &str, name: &str) -> String {
    let dn = format!("CN={name},{parent}");
    samba.administer("add", &[], &format!("dn: {dn}\nobjectClass: serviceConnectionPoint\n"));
    dn
}

/// Puts an object below one of the first kind, as file replication does.
fn grandchild(samba: &Samba, computer: &str) -> (String, String) {
    let below = format!("CN=subscriptions,{computer}");
    let deeper = format!("CN=subscriber,{below}");
    let text = format!(
        "dn: {below}\nobjectClass: nTFRSSubscriptions\n\ndn: {deeper}\nobjectClass: nTFRSSubscriber\nfRSRootPath: c\n\
         fRSStagingPath: d\n"
    );
    samba.administer("add", &[], &text);
    (below, deeper)
}

/// Puts a recovery key below a computer, as BitLocker does.
fn recovery_key(samba: &Samba, computer: &str) -> String {
    let dn = format!("CN=2026-01-01T00:00:00-00:00{{key}},{computer}");
    let guid = "AAECAwQFBgcICQoLDA0ODw==";
    let text = format!(
        "dn: {dn}\nobjectClass: msFVE-RecoveryInformation\nmsFVE-RecoveryPassword: 123456\nmsFVE-RecoveryGuid:: {guid}\n"
    );
    samba.administer("add", &[], &text);
    dn
}

#[tokio::test(flavor = "multi_thread")]
async fn what_lies_below_goes_only_when_asked_to_and_the_error_names_the_setting() {
    let Some(samba) = Samba::shared() else { return };
    let directory = directory(settings(&samba));
    let server = server(21, 1);
    let made = enroll(&directory, server).await;
    child(&samba, &dn(server), "Windows Virtual Machine");
    let (_, deeper) = grandchild(&samba, &dn(server));

    let error = directory.delete_computer(&made, false).await.expect_err("not a leaf");
    assert_eq!(
        (error.kind, error.scope, error.certainty, error.code.as_str()),
        (Kind::HasChildren, Scope::Server, Certainty::NotApplied, "notAllowedOnNonLeaf")
    );
    assert!(error.message.contains("ad_recursive_cleanup = true"), "{error}");
    assert!(samba.show(&deeper).is_some());

    directory.delete_computer(&made, true).await.expect("deleted");
    assert_eq!((samba.show(&deeper), samba.show(&dn(server))), (None, None));
    assert_eq!(directory.delete_computer(&made, true).await, Ok(()));
}

#[tokio::test(flavor = "multi_thread")]
async fn recovery_keys_are_kept_if_the_settings_say_so() {
    let Some(samba) = Samba::shared() else { return };
    let mut careful = settings(&samba);
    careful.keep_recovery_keys = true;
    let careful = directory(careful);
    let server = server(22, 1);
    let made = enroll(&careful, server).await;
    let other = child(&samba, &dn(server), "Windows Virtual Machine");
    let key = recovery_key(&samba, &dn(server));
    samba.administer("allow", &["svc-kasm", &key, "(A;;RPLC;;;{sid})"], "");

    let error = careful.delete_computer(&made, true).await.expect_err("a key is there");
    assert_eq!((error.kind, error.scope, error.certainty), (Kind::Protected, Scope::Server, Certainty::NotApplied));
    assert!(error.message.contains("keep_recovery_keys"), "{error}");
    assert!(samba.show(&key).is_some() && samba.show(&other).is_some(), "nothing was deleted");

    // A key that the account cannot read is kept too.
    let closed = "D:P(A;;RPWPCRCCDCLCLORCWOWDSDDTSW;;;DA)(A;;RPWPCRCCDCLCLORCWOWDSDDTSW;;;SY)";
    samba.administer("sddl", &[&key, closed], "");
    samba.administer("allow", &["svc-kasm", &other, "(A;;SD;;;{sid})"], "");
    let error = careful.delete_computer(&made, true).await.expect_err("a key is there");
    assert_eq!((error.kind, error.code.as_str()), (Kind::Protected, "recoveryKeys"), "{error}");
    // And so is one of which it does not even see that it is there.
    samba.administer("allow", &["svc-kasm", &dn(server), "(D;;LC;;;{sid})"], "");
    let error = careful.delete_computer(&made, true).await.expect_err("a key is there");
    assert!(error.kind == Kind::Protected && error.message.contains("cannot be seen"), "{error}");
    assert!(samba.show(&key).is_some());

    // Without the option everything goes.
    directory(settings(&samba)).delete_computer(&made, true).await.expect("deleted");
    assert_eq!(samba.show(&key), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_keys_the_option_deletes_what_can_be_seen() {
    let Some(samba) = Samba::shared() else { return };
    let mut careful = settings(&samba);
    careful.keep_recovery_keys = true;
    let careful = directory(careful);
    let server = server(22, 2);
    let made = enroll(&careful, server).await;
    let (below, deeper) = grandchild(&samba, &dn(server));

    // The right to delete what lies below computers is needed then, and is asked for.
    let error = careful.delete_computer(&made, true).await.expect_err("no right");
    assert_eq!((error.kind, error.scope), (Kind::Denied, Scope::Server), "{error}");
    samba.administer("allow", &["svc-kasm", &dn(server), "(A;;DC;;;{sid})"], "");
    samba.administer("allow", &["svc-kasm", &below, "(A;;DC;;;{sid})"], "");
    careful.delete_computer(&made, true).await.expect("deleted");
    assert_eq!((samba.show(&deeper), samba.show(&dn(server))), (None, None));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_that_was_moved_out_of_the_base_or_lost_its_mark_is_left_alone() {
    let Some(samba) = Samba::shared() else { return };
    let directory = directory(settings(&samba));
    let server = server(23, 1);
    let made = enroll(&directory, server).await;
    let elsewhere = format!("CN={},OU=People,{BASE}", server.machine_name());
    samba.administer("move", &[&dn(server), &elsewhere], "");
    let error = directory.delete_computer(&made, true).await.expect_err("outside");
    assert_eq!((error.kind, error.scope, error.code.as_str()), (Kind::Invalid, Scope::Server, "outside"), "{error}");
    assert!(error.message.contains("computer_base"), "{error}");

    // Deeper inside is inside, and its GUID still names it.
    let inside = format!("CN={},OU=Pool A,{COMPUTERS}", server.machine_name());
    samba.administer("move", &[&elsewhere, &inside], "");
    let unmark = format!("dn: {inside}\nchangetype: modify\ndelete: adminDescription\n");
    samba.administer("modify", &[], &unmark);
    let error = directory.delete_computer(&made, true).await.expect_err("no mark");
    assert_eq!((error.kind, error.code.as_str()), (Kind::Invalid, "foreign"), "{error}");
    assert!(samba.show(&inside).is_some());

    let odd = ComputerRef("CN=x,DC=example,DC=local".to_owned());
    let error = directory.delete_computer(&odd, true).await.expect_err("no reference");
    assert_eq!((error.kind, error.code.as_str()), (Kind::Invalid, "reference"));
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_computers_come_and_go_at_once_and_are_listed_in_pages() {
    let Some(samba) = Samba::shared() else { return };
    let mut small_pages = settings(&samba);
    small_pages.page_size = 30;
    let directory = directory(small_pages);
    let pool = server(24, 1).pool;
    let servers: Vec<ServerKey> = (1..=200).map(|number| server(24, number)).collect();
    let tasks: Vec<_> = servers
        .iter()
        .map(|server| {
            let (directory, server) = (directory.clone(), *server);
            tokio::spawn(async move { enroll(&directory, server).await })
        })
        .collect();
    let mut made = Vec::new();
    for task in tasks {
        made.push(task.await.expect("no panic"));
    }
    let listing = directory.list_computers(&pool).await.expect("a list");
    assert!(listing.complete);
    let mut seen: Vec<_> = listing.computers.iter().map(|computer| computer.reference.clone()).collect();
    let mut marks: Vec<_> = listing.computers.iter().map(|computer| computer.marker.server.clone()).collect();
    let mut wanted: Vec<_> = servers.iter().map(ServerKey::uuid).collect();
    seen.sort();
    marks.sort();
    wanted.sort();
    let mut expected = made.clone();
    expected.sort();
    assert_eq!((seen, marks), (expected, wanted));

    let tasks: Vec<_> = made
        .into_iter()
        .map(|computer| {
            let directory = directory.clone();
            tokio::spawn(async move { directory.delete_computer(&computer, true).await })
        })
        .collect();
    for task in tasks {
        assert_eq!(task.await.expect("no panic"), Ok(()));
    }
    let listing = directory.list_computers(&pool).await.expect("a list");
    assert_eq!((listing.computers, listing.complete), (vec![], true));
}
