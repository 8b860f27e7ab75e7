//! What is said of files that are no good, before anything starts.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use kasm_autoscale_core::time::Timestamp;
use kasm_daemon::clock::Clock;
use kasm_daemon::secrets::{Environment, SecretSource};
use kasm_daemon::tls::{TlsSettings, inspect};
use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, SanType};

use crate::authority::{Authority, ending, put};
use crate::real::Program;
use crate::stage::{mutual, settings};

/// 2027-01-15T08:00:00Z.
const NOW: u64 = 1_800_000_000;
const DAY: u64 = 24 * 3600;

/// What is said: warnings start with a `~`. The folder's name is left out.
fn said(folder: &Path, settings: &TlsSettings) -> Vec<String> {
    said_at(folder, settings, Timestamp::from_secs(NOW))
}

fn said_at(folder: &Path, settings: &TlsSettings, now: Timestamp) -> Vec<String> {
    let environment = Environment::of([("KEY", fs::read_to_string(folder.join("api.key")).unwrap_or_default())]);
    let folder = format!("{}/", folder.display());
    let told = |problem: &dyn ToString, mark: &str| format!("{mark}{}", problem.to_string().replace(&folder, ""));
    match inspect(settings, &environment, now) {
        Ok(warnings) => warnings.iter().map(|problem| told(problem, "~")).collect(),
        Err(problems) => problems.iter().map(|problem| told(problem, "")).collect(),
    }
}

/// What is said of a certificate that is good but for these changes.
fn said_of(change: impl FnOnce(&mut CertificateParams)) -> Vec<String> {
    let folder = tempfile::tempdir().unwrap();
    Authority::new("ours").issue(change).put(folder.path());
    said(folder.path(), &settings(folder.path()))
}

#[test]
fn s_19_a_certificate_is_looked_at() {
    assert_eq!(said_of(|_| {}), [""; 0]);
    assert_eq!(said_of(ending(NOW + 14 * DAY)), [""; 0]);
    assert_eq!(
        said_of(ending(NOW + 14 * DAY - 1)),
        [
            "~certificate: given file api.pem, which expires at 2027-01-29T07:59:59.000Z; 13 days are left; renew it and put it in its \
          place, which takes effect without a restart"
        ]
    );
    assert_eq!(said_of(ending(NOW)).len(), 1, "the last instant is one of its own");
    assert_eq!(
        said_of(ending(NOW - 1)),
        [
            "~certificate: given file api.pem, which has expired at 2027-01-15T07:59:59.000Z; a certificate that is valid now; no \
          client takes this one any more"
        ]
    );
    let later = |params: &mut CertificateParams| params.not_before = rcgen::date_time_ymd(2027, 1, 16);
    assert_eq!(
        said_of(later),
        [
            "~certificate: given file api.pem, which is not valid before 2027-01-16T00:00:00.000Z; a certificate that is valid \
          now; is the clock of this machine right?"
        ]
    );
    let nobody = "certificate: given file api.pem, which names nobody; a certificate with the names by which the API is reached, \
                  as DNS names or IP addresses in its field subjectAltName; clients do not look at its common name";
    assert_eq!(said_of(|params| params.subject_alt_names.clear()), [nobody]);
    let mail = SanType::Rfc822Name("ann@kasm.example".try_into().unwrap());
    assert_eq!(said_of(|params| params.subject_alt_names = vec![mail]), [nobody]);
    assert_eq!(
        said_of(|params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth]),
        [
            "certificate: given file api.pem, which is not for servers; a certificate whose field extendedKeyUsage has serverAuth, \
          or that has no such field"
        ]
    );
    assert_eq!(said_of(|params| params.extended_key_usages.clear()), [""; 0]);
    // All at once.
    let both = said_of(|params| {
        params.subject_alt_names.clear();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    });
    assert_eq!(both.len(), 2, "{both:?}");
}

#[test]
fn s_19_files_are_looked_at() {
    let (folder, ours) = (tempfile::tempdir().unwrap(), Authority::new("ours"));
    let path = folder.path();
    let good = ours.server(1);
    let with = |change: &dyn Fn()| {
        good.put(path);
        change();
        said(path, &settings(path))
    };
    assert_eq!(with(&|| {}), [""; 0]);
    let none = "certificate: given file api.pem; it has no certificate in PEM form, which starts with -----BEGIN CERTIFICATE-----";
    let cases: [(&str, &str, &str); 8] = [
        ("api.pem", "", none),
        ("api.pem", &good.key.serialize_pem(), none),
        (
            "api.pem",
            "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n",
            "certificate: given file api.pem; its PEM is damaged",
        ),
        (
            "api.pem",
            "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n",
            "certificate: given file api.pem; its certificate 1 cannot be read",
        ),
        (
            "api.key",
            &good.pem,
            "key: given file api.key; it holds no private key in PEM form; PKCS #8, PKCS #1 and SEC 1 are read, without a passphrase",
        ),
        ("api.key", "", "key: given file api.key; it is empty"),
        (
            "api.key",
            "-----BEGIN PRIVATE KEY-----\nMAA=\n-----END PRIVATE KEY-----\n",
            "key: given file api.key; its key cannot be used: RSA of 2048 to 8192 bits, ECDSA on P-256, P-384 or P-521, or Ed25519",
        ),
        (
            "api.key",
            &ours.server(2).key.serialize_pem(),
            "key: given file api.key; the key of the first certificate in api.pem; it belongs to another one",
        ),
    ];
    for (name, content, expected) in cases {
        assert_eq!(with(&|| put(path, name, content, 0o600)), [expected], "{name}: {content}");
    }
    let long = "x".repeat(256 * 1024 + 1);
    assert_eq!(
        with(&|| put(path, "api.pem", &long, 0o600)),
        ["certificate: given file api.pem; it has more than 262144 bytes"]
    );
    assert_eq!(
        with(&|| put(path, "api.key", &good.key.serialize_pem(), 0o640)),
        ["key: given file api.key; others than its owner can read or change it (mode 0640); chmod 600 api.key"]
    );
    let gone = |name: &'static str| move || fs::remove_file(path.join(name)).unwrap();
    assert_eq!(with(&gone("api.pem")), ["certificate: given file api.pem; there is no such file"]);
    assert_eq!(with(&gone("api.key")), ["key: given file api.key; there is no such file"]);
    good.put(path);
    let elsewhere = TlsSettings { certificate: path.join("."), key: SecretSource::Env("NONE".into()), clients: None };
    assert_eq!(
        said(path, &elsewhere),
        [
            "certificate: given file .; it is no regular file",
            "key: given environment variable NONE; it is not set; set it for the daemon, or keep the secret in a file"
        ]
    );
    // It may be kept wherever secrets are.
    assert_eq!(said(path, &TlsSettings { key: SecretSource::Env("KEY".into()), ..settings(path) }), [""; 0]);
}

#[test]
fn s_19_the_order_of_a_chain_is_looked_at() {
    let (folder, ours) = (tempfile::tempdir().unwrap(), Authority::new("ours"));
    let path = folder.path();
    let good = ours.server(1);
    good.put(path);
    let with = |content: String| {
        put(path, "api.pem", &content, 0o644);
        said(path, &settings(path))
    };
    assert_eq!(with(format!("{}{}", good.pem, ours.pem)), [""; 0]);
    assert_eq!(
        with(format!("{}{}{}", good.pem, Authority::new("another").pem, ours.pem)),
        [
            "~certificate: given file api.pem, in which certificate 2 has not issued certificate 1; the API's own certificate first, \
          then each one's issuer after it: some clients go no other way"
        ]
    );
    let swapped = with(format!("{}{}", ours.pem, good.pem));
    assert!(
        swapped.iter().any(|line| line.starts_with("key: given file api.key; the key of the first")),
        "{swapped:?}"
    );
}

#[test]
fn s_19_client_authorities_are_looked_at() {
    let (folder, ours) = (tempfile::tempdir().unwrap(), Authority::new("ours"));
    let path = folder.path();
    ours.server(1).put(path);
    let with = |content: &str| {
        put(path, "clients.pem", content, 0o644);
        said(path, &mutual(path, false))
    };
    assert_eq!(said(path, &mutual(path, false)), ["client_ca: given file clients.pem; there is no such file"]);
    let two = format!("{}{}", ours.pem, Authority::new("another").pem);
    assert_eq!((with(&ours.pem), with(&two)), (vec![], vec![]));
    assert_eq!(
        with(""),
        [
            "client_ca: given file clients.pem; it has no certificate in PEM form, which starts with -----BEGIN CERTIFICATE-----"
        ]
    );
    assert_eq!(
        with(&format!("{}{}", ours.pem, ours.client(|_| {}).pem)),
        [
            "client_ca: given file clients.pem, whose certificate 2 may not; certificates that may issue others (CA:TRUE)"
        ]
    );
}

/// Keys and certificates as OpenSSL makes them, in all the forms that it has for them.
#[test]
fn s_19_what_openssl_makes_can_be_used() {
    let openssl = Program { name: "openssl", variable: "KASM_OPENSSL", install: "apt-get install openssl" };
    let Some(openssl) = openssl.find() else { return };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let run = |arguments: &str| {
        let mut command = Command::new(&openssl);
        command.args(arguments.split(' ')).current_dir(path).stdin(Stdio::null());
        let output = command.output().unwrap();
        assert!(output.status.success(), "{arguments}: {}", String::from_utf8_lossy(&output.stderr));
    };
    for (make, begin) in [
        ("genrsa -traditional -out api.key 2048", "-----BEGIN RSA PRIVATE KEY-----"),
        ("genrsa -out api.key 3072", "-----BEGIN PRIVATE KEY-----"),
        ("ecparam -name prime256v1 -genkey -noout -out api.key", "-----BEGIN EC PRIVATE KEY-----"),
        // With its parameters before it, as it makes them by itself.
        ("ecparam -name secp384r1 -genkey -out api.key", "-----BEGIN EC PARAMETERS-----"),
        ("genpkey -algorithm ed25519 -out api.key", "-----BEGIN PRIVATE KEY-----"),
    ] {
        run(make);
        fs::set_permissions(path.join("api.key"), Permissions::from_mode(0o600)).unwrap();
        assert!(fs::read_to_string(path.join("api.key")).unwrap().starts_with(begin), "{make}");
        run(
            "req -x509 -key api.key -out api.pem -days 9000 -subj /CN=kasm -addext subjectAltName=DNS:kasm.example -addext basicConstraints=critical,CA:FALSE",
        );
        // Some have a text before the PEM.
        run("x509 -in api.pem -text -out api.pem");
        // It begins when OpenSSL makes it.
        assert_eq!(said_at(path, &settings(path), Clock::start().now()), [""; 0], "{make}");
    }
    run("genrsa -out api.key 1024");
    let weak = said(path, &settings(path));
    assert!(weak.iter().any(|line| line.contains("its key cannot be used: RSA of 2048")), "{weak:?}");
}
