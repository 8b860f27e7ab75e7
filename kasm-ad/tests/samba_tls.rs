//! Nothing is said over a connection that is not encrypted or not verified, and nothing that a server sends does harm.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use kasm_ad::{ActiveDirectory, LdapSettings};
use kasm_autoscale_core::ports::{Certainty, Directory, DirectoryError, DirectoryErrorKind as Kind, Scope};
use secrecy::SecretString;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

#[path = "../../tests/support/real.rs"]
mod real;
#[path = "../../tests/support/samba.rs"]
mod samba;
#[path = "support/world.rs"]
mod world;

use samba::{BASE, Certificate, SERVICE, Samba};
use world::{DEPLOYMENT, computer, directory, password, server, settings, settings_of};

/// What comes of any call.
async fn failure(settings: LdapSettings) -> DirectoryError {
    directory(settings).find_computer(&server(41, 1)).await.expect_err("it must fail")
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_and_names_are_verified() {
    let Some(samba) = Samba::shared() else { return };
    let Some(expired) = Samba::start(Certificate::Expired) else { return };
    let is_tls = |error: &DirectoryError| {
        assert_eq!(
            (error.kind, error.scope, error.certainty, error.code.as_str()),
            (Kind::Invalid, Scope::Provider, Certainty::NotApplied, "tls"),
            "{error}"
        );
    };
    let mut wrong_root = settings(&samba);
    wrong_root.ca_file = Some(expired.ca_file());
    is_tls(&failure(wrong_root).await);

    // Roots of the system do not know ours either.
    let mut system = settings(&samba);
    system.ca_file = None;
    if let Ok(directory) = ActiveDirectory::new(system, DEPLOYMENT) {
        is_tls(&directory.find_computer(&server(41, 1)).await.expect_err("it must fail"));
    }

    let error = failure(settings(&expired)).await;
    is_tls(&error);
    assert!(error.message.contains("xpired"), "{error}");

    // The same server under a name that its certificate does not have, from the first byte and by StartTLS.
    for (scheme, target) in [("ldaps", samba.ldaps()), ("ldap", samba.ldap())] {
        let proxy = proxy(target);
        let error = failure(settings_of(&format!("{scheme}://localhost:{proxy}"), &samba, SERVICE)).await;
        is_tls(&error);
        assert!(error.message.contains("localhost"), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn start_tls_comes_before_anything_else() {
    let Some(samba) = Samba::shared() else { return };
    let (address, port) = samba.ldap();
    let directory = directory(settings_of(&format!("ldap://{address}:{port}"), &samba, SERVICE));
    let server = server(42, 1);
    let made = directory.ensure_computer(&computer(server), &password(&server)).await.expect("made");
    directory.delete_computer(&made, false).await.expect("deleted");
}

/// Brings connections to a port of 127.0.0.1 to another server, as long as the test program runs.
fn proxy(target: (Ipv4Addr, u16)) -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let port = listener.local_addr().expect("an address").port();
    thread::spawn(move || {
        while let Ok((mut here, _)) = listener.accept() {
            let mut there = TcpStream::connect(target).expect("the server");
            let (mut back, mut forth) = (there.try_clone().expect("a copy"), here.try_clone().expect("a copy"));
            thread::spawn(move || std::io::copy(&mut back, &mut forth));
            thread::spawn(move || std::io::copy(&mut here, &mut there));
        }
    });
    port
}

/// A server in the clear that answers the first request so, and then everything with `later`; all that it is sent.
fn plain_server(first: Vec<u8>, later: Vec<u8>) -> (u16, Arc<Mutex<Vec<u8>>>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let heard = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&heard);
    thread::spawn(move || {
        while let Ok((mut client, _)) = listener.accept() {
            let mut answer = first.clone();
            let mut chunk = [0; 4096];
            while let Ok(read @ 1..) = client.read(&mut chunk) {
                log.lock().expect("no panic").extend_from_slice(&chunk[..read]);
                if answer.is_empty() || client.write_all(&answer).is_err() {
                    break;
                }
                answer.clone_from(&later);
            }
        }
    });
    (port, heard)
}

/// An extended response to message 1 with this result code.
fn extended(code: u8) -> Vec<u8> {
    vec![0x30, 0x0c, 0x02, 0x01, 0x01, 0x78, 0x07, 0x0a, 0x01, code, 0x04, 0, 0x04, 0]
}

#[tokio::test(flavor = "multi_thread")]
async fn who_strips_start_tls_hears_nothing_but_the_wish_for_it() {
    let bind_success = vec![0x30, 0x0c, 0x02, 0x01, 0x02, 0x61, 0x07, 0x0a, 0x01, 0, 0x04, 0, 0x04, 0];
    let deep = nested(60);
    let injected = [extended(0), bind_success.clone()].concat();
    let cases: [(&str, Vec<u8>, Vec<u8>, &str); 8] = [
        ("refuses", extended(2), vec![], "result code 2"),
        ("goes on in the clear", extended(0), bind_success.clone(), ""),
        ("sends more in the clear", injected, vec![], "plain text after its answer"),
        ("answers something else", bind_success, vec![], "none to this request"),
        ("closes", vec![], vec![], "closed the connection"),
        ("speaks HTTP", b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec(), vec![], "not LDAP"),
        ("nests", deep, vec![], "levels"),
        ("lies about lengths", vec![0x30, 0x84, 0x7f, 0xff, 0xff, 0xff], vec![], "more than"),
    ];
    let folder = tempfile::tempdir().expect("a folder");
    let ca_file = own_root(folder.path());
    for (what, first, later, words) in cases {
        let (port, heard) = plain_server(first, later);
        let mut settings = LdapSettings::new(
            format!("ldap://127.0.0.1:{port}").parse().expect("an address"),
            SERVICE.0,
            SecretString::from(SERVICE.1),
            BASE.parse().expect("a name"),
        );
        settings.ca_file = Some(ca_file.clone());
        let error = failure(settings).await;
        assert_eq!(
            (error.kind, error.certainty, error.code.as_str()),
            (Kind::Invalid, Certainty::NotApplied, "tls"),
            "{what}: {error}"
        );
        assert!(error.message.contains(words), "{what}: {error}");
        let heard = heard.lock().expect("no panic").clone();
        // StartTLS, and at most the first message of a TLS handshake (RFC 8446 §5.1: type 22, version 3.x).
        assert!(heard.len() == 31 || heard[31..].starts_with(&[0x16, 0x03]), "{what}: {heard:?}");
        assert!(!heard.windows(8).any(|window| window == &SERVICE.1.as_bytes()[..8]), "{what}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_says_nothing_is_given_up() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let folder = tempfile::tempdir().expect("a folder");
    for scheme in ["ldap", "ldaps"] {
        let mut settings = LdapSettings::new(
            format!("{scheme}://127.0.0.1:{port}").parse().expect("an address"),
            SERVICE.0,
            SecretString::from(SERVICE.1),
            BASE.parse().expect("a name"),
        );
        settings.ca_file = Some(own_root(folder.path()));
        settings.timeout = Duration::from_millis(200);
        let error = failure(settings).await;
        assert_eq!(
            (error.kind, error.certainty, error.code.as_str()),
            (Kind::Transient, Certainty::NotApplied, "timedOut")
        );
    }
    let nobody = real::free_port();
    let mut settings = LdapSettings::new(
        format!("ldaps://127.0.0.1:{nobody}").parse().expect("an address"),
        SERVICE.0,
        SecretString::from(SERVICE.1),
        BASE.parse().expect("a name"),
    );
    settings.ca_file = Some(own_root(folder.path()));
    let error = failure(settings).await;
    assert_eq!((error.kind, error.code.as_str()), (Kind::Transient, "connection"));
    assert!(error.message.contains("refused"), "{error}");
}

/// A root certificate that has signed nothing. Every key that tests need is made by Samba's harness; this one is only read.
fn own_root(folder: &Path) -> std::path::PathBuf {
    // P-256, self-signed, made for this file alone; its key was thrown away.
    let file = folder.join("root.pem");
    std::fs::write(&file, include_str!("support/root.pem")).expect("a file");
    file
}

/// What a server says once it has proved who it is: the answers to one request after another.
async fn hostile(samba: &Samba, answers: Vec<Vec<u8>>) -> LdapSettings {
    let folder = samba.folder();
    let certificates = CertificateDer::pem_file_iter(folder.join("dc.pem")).expect("a file");
    let certificates: Vec<_> = certificates.collect::<Result<_, _>>().expect("certificates");
    let key = PrivateKeyDer::from_pem_file(folder.join("dc.key")).expect("a key");
    let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(certificates, key)
        .expect("a server");
    let (address, _) = samba.ldaps();
    let listener = tokio::net::TcpListener::bind((address, 0)).await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    tokio::spawn(async move {
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let (client, _) = listener.accept().await.expect("a client");
        let mut client = acceptor.accept(client).await.expect("TLS");
        let mut chunk = vec![0; 32 << 10];
        for answer in answers {
            if client.read(&mut chunk).await.unwrap_or(0) == 0 {
                return;
            }
            client.write_all(&answer).await.expect("sent");
            client.flush().await.expect("sent");
            if answer.is_empty() {
                // Silence, with the connection open.
                let _ = client.read(&mut chunk).await;
            }
        }
        let _ = client.read(&mut chunk).await;
        // Then it hangs up without an answer.
    });
    let mut settings = settings_of(&format!("ldaps://{address}:{port}"), samba, SERVICE);
    settings.timeout = Duration::from_secs(20);
    settings
}

/// A message with this many levels, 60 at most.
fn nested(levels: usize) -> Vec<u8> {
    let around = |inner: Vec<u8>| {
        let length = u8::try_from(inner.len()).expect("short");
        [if length < 0x80 { vec![0x30, length] } else { vec![0x30, 0x81, length] }, inner].concat()
    };
    (0..levels).fold(Vec::new(), |inner, _| around(inner))
}

/// A result of this kind to message `id`.
fn result(id: u8, kind: u8, code: u8) -> Vec<u8> {
    vec![0x30, 0x0c, 0x02, 0x01, id, kind, 0x07, 0x0a, 0x01, code, 0x04, 0, 0x04, 0]
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_verified_server_sends_does_no_harm_either() {
    let Some(samba) = Samba::shared() else { return };
    let bound = || result(1, 0x61, 0);
    let deep = nested(60);
    let no_entry = vec![0x30, 0x07, 0x02, 0x01, 0x02, 0x64, 0x02, 0x04, 0x00];
    let cases = [
        ("nests", vec![deep], "malformedAnswer", Kind::Transient),
        (
            "lies about lengths",
            vec![bound(), vec![0x30, 0x84, 0x7f, 0xff, 0xff, 0xff]],
            "malformedAnswer",
            Kind::Transient,
        ),
        (
            "sends an entry without attributes",
            vec![bound(), [no_entry, result(2, 0x65, 0)].concat()],
            "malformedAnswer",
            Kind::Transient,
        ),
        (
            "sends a result without a code",
            vec![bound(), vec![0x30, 0x05, 0x02, 0x01, 0x02, 0x65, 0x00]],
            "connection",
            Kind::Transient,
        ),
        ("hangs up", vec![bound()], "connection", Kind::Transient),
        ("names another server", vec![bound(), result(2, 0x65, 10)], "referral", Kind::Invalid),
        ("is busy", vec![result(1, 0x61, 51)], "busy", Kind::Throttled),
    ];
    for (what, answers, code, kind) in cases {
        let error = failure(hostile(&samba, answers).await).await;
        assert_eq!(
            (error.code.as_str(), error.kind, error.certainty),
            (code, kind, Certainty::NotApplied),
            "{what}: {error}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_add_without_an_answer_may_have_been_done() {
    let Some(samba) = Samba::shared() else { return };
    let server = server(43, 1);
    let prelude = || vec![result(1, 0x61, 0), result(2, 0x65, 0)];
    let mut silent = hostile(&samba, [prelude(), vec![vec![]]].concat()).await;
    silent.timeout = Duration::from_secs(2);
    let gone = hostile(&samba, prelude()).await;
    for (settings, code) in [(silent, "timedOut"), (gone, "connection")] {
        let error =
            directory(settings).ensure_computer(&computer(server), &password(&server)).await.expect_err("no answer");
        assert_eq!(
            (error.kind, error.certainty, error.code.as_str()),
            (Kind::Transient, Certainty::Unknown, code),
            "{error}"
        );
    }
    // A server that knows its own mind is believed.
    let full = hostile(&samba, [prelude(), vec![result(3, 0x69, 11)]].concat()).await;
    let error = directory(full).ensure_computer(&computer(server), &password(&server)).await.expect_err("full");
    assert_eq!((error.kind, error.code.as_str()), (Kind::Quota, "adminLimitExceeded"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_that_is_down_and_comes_back_is_the_same_directory() {
    let Some(samba) = Samba::start(Certificate::Good) else { return };
    let target = samba.ldaps();
    // A proxy that can be shut: the settings stay as they are.
    let open = Arc::new(Mutex::new(true));
    let gate = Arc::clone(&open);
    let listener = TcpListener::bind((target.0, 0)).expect("a port");
    let port = listener.local_addr().expect("an address").port();
    thread::spawn(move || {
        while let Ok((mut here, _)) = listener.accept() {
            if !*gate.lock().expect("no panic") {
                continue;
            }
            let mut there = TcpStream::connect(target).expect("the server");
            let (mut back, mut forth) = (there.try_clone().expect("a copy"), here.try_clone().expect("a copy"));
            thread::spawn(move || std::io::copy(&mut back, &mut forth));
            thread::spawn(move || std::io::copy(&mut here, &mut there));
        }
    });
    let directory = directory(settings_of(&format!("ldaps://{}:{port}", target.0), &samba, SERVICE));
    let server = server(44, 1);
    *open.lock().expect("no panic") = false;
    let error = directory.ensure_computer(&computer(server), &password(&server)).await.expect_err("it is down");
    assert_eq!((error.kind, error.certainty), (Kind::Transient, Certainty::NotApplied), "{error}");
    *open.lock().expect("no panic") = true;
    let made = directory.ensure_computer(&computer(server), &password(&server)).await.expect("made");
    *open.lock().expect("no panic") = false;
    let error = directory.delete_computer(&made, false).await.expect_err("it is down");
    assert_eq!((error.kind, error.certainty), (Kind::Transient, Certainty::NotApplied), "{error}");
    *open.lock().expect("no panic") = true;
    directory.delete_computer(&made, false).await.expect("deleted");
}
