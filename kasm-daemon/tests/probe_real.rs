//! The prober against real servers from Debian, each on a loopback port of its own.
//!
//! They come with `apt-get install --no-install-recommends xrdp freerdp2-shadow-x11 xvfb
//! tigervnc-standalone-server openssh-server openssl`; a test whose server is missing says so and passes.

#[path = "../../tests/support/real.rs"]
mod real;

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Duration;

use kasm_autoscale_core::config::ConnectionType;
use kasm_autoscale_core::ports::{ProbeTarget, Prober};
use kasm_daemon::probe::{AddressGuard, NetProber, Verdict, rdp, tls};
use tempfile::TempDir;

use real::{Process, Program, free_port, unprivileged, wait_until};

const XRDP: Program = Program { name: "xrdp", variable: "KASM_REAL_XRDP", install: "apt-get install xrdp" };
const SHADOW: Program = Program {
    name: "freerdp-shadow-cli",
    variable: "KASM_REAL_FREERDP_SHADOW",
    install: "apt-get install freerdp2-shadow-x11",
};
const XVFB: Program = Program { name: "Xvfb", variable: "KASM_REAL_XVFB", install: "apt-get install xvfb" };
const XVNC: Program =
    Program { name: "Xtigervnc", variable: "KASM_REAL_XVNC", install: "apt-get install tigervnc-standalone-server" };
const SSHD: Program = Program { name: "sshd", variable: "KASM_REAL_SSHD", install: "apt-get install openssh-server" };
const SSH_KEYGEN: Program =
    Program { name: "ssh-keygen", variable: "KASM_REAL_SSH_KEYGEN", install: "apt-get install openssh-client" };
const OPENSSL: Program = Program { name: "openssl", variable: "KASM_REAL_OPENSSL", install: "apt-get install openssl" };

/// How long a server may take to start on a machine that is busy with other tests.
const START: Duration = Duration::from_secs(30);

/// One probe of a loopback port; an `Err` holds the message.
fn probe(port: u16, connection: ConnectionType) -> Result<(), String> {
    let prober = NetProber { answer_timeout: Duration::from_secs(1), ..NetProber::new(AddressGuard::LoopbackOnly) };
    let target = ProbeTarget { host: "127.0.0.1".into(), port, connection };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(prober.probe(&target)).map_err(|failure| failure.message)
}

/// Probes until the server is ready, and fails with the last message and the server's own words if it never is.
fn expect_ready(port: u16, connection: ConnectionType, server: &mut Process) {
    let mut last = Ok(());
    let done = || {
        last = probe(port, connection);
        last.is_ok() || server.has_ended()
    };
    wait_until(done, START);
    assert_eq!(last, Ok(()), "{}", server.output());
}

/// The beginning of every refusal by something that does accept connections.
const ACCEPTED: &str = "accepted the connection, then ";

/// Writes `cert.pem` and `key.pem` into the folder.
fn make_certificate(openssl: &Path, folder: &Path) {
    let mut command = Command::new(openssl);
    command.args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]);
    command.args(["-keyout", "key.pem", "-out", "cert.pem"]).current_dir(folder);
    let made = command.output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
}

/// Starts xrdp without a session manager: nobody logs in here. `None` if it is not installed.
fn start_xrdp(folder: &Path, port: u16, security: &str, certificate: bool) -> Option<Process> {
    let (xrdp, openssl) = (XRDP.find()?, OPENSSL.find()?);
    if certificate {
        make_certificate(&openssl, folder);
    }
    let at = folder.display();
    let config = format!(
        "[Globals]\nini_version=1\nfork=false\nport=tcp://127.0.0.1:{port}\n\
         security_layer={security}\ncrypt_level=high\nssl_protocols=TLSv1.2, TLSv1.3\n\
         certificate={at}/cert.pem\nkey_file={at}/key.pem\n\
         [Logging]\nLogFile={at}/xrdp.log\nLogLevel=INFO\nEnableSyslog=false\n\
         [Xvnc]\nname=Xvnc\nlib=libvnc.so\nip=127.0.0.1\nport=-1\n"
    );
    let ini = folder.join("xrdp.ini");
    fs::write(&ini, config).unwrap();
    let mut command = Command::new(xrdp);
    command.arg("--nodaemon").arg("--config").arg(&ini);
    unprivileged(&mut command, folder);
    Some(Process::start(&mut command, &folder.join("xrdp.out")))
}

/// Starts an X server that finds itself a display, and waits until clients can come. The text is their `DISPLAY`.
fn start_x(command: &mut Command, folder: &Path) -> (Process, String) {
    let number = folder.join("display");
    // A shell opens the file as descriptor 3; the standard library hands on no more than three.
    let mut shell = Command::new("sh");
    shell.args(["-c", "exec \"$@\" 3>\"$DISPLAY_FILE\"", "sh"]).env("DISPLAY_FILE", &number);
    shell.arg(command.get_program()).args(command.get_args()).args(["-nolisten", "tcp", "-displayfd", "3"]);
    let process = Process::start(&mut shell, &folder.join("x.out"));
    let told = || fs::read_to_string(&number).is_ok_and(|text| text.ends_with('\n'));
    assert!(wait_until(told, START), "no display: {}", process.output());
    let display = format!(":{}", fs::read_to_string(&number).unwrap().trim());
    (process, display)
}

#[test]
fn xrdp_is_ready_whatever_its_security() {
    for security in ["negotiate", "tls", "rdp"] {
        let (folder, port) = (TempDir::new().unwrap(), free_port());
        let Some(mut server) = start_xrdp(folder.path(), port, security, true) else { return };
        expect_ready(port, ConnectionType::Rdp, &mut server);
        let wrong = probe(port, ConnectionType::Vnc).unwrap_err();
        assert!(wrong.starts_with(ACCEPTED), "{security}: {wrong}");
    }
}

#[test]
fn xrdp_without_a_certificate_says_so() {
    let (folder, port) = (TempDir::new().unwrap(), free_port());
    let Some(server) = start_xrdp(folder.path(), port, "tls", false) else { return };
    let mut last = String::new();
    wait_until(
        || {
            last = probe(port, ConnectionType::Rdp).expect_err("TLS without a certificate");
            last.starts_with(ACCEPTED)
        },
        START,
    );
    assert!(last.contains("SSL_CERT_NOT_ON_SERVER"), "{last}; {}", server.output());
}

#[test]
fn a_server_that_comes_up_later_is_first_refused_and_then_ready() {
    let (folder, port) = (TempDir::new().unwrap(), free_port());
    assert_eq!(probe(port, ConnectionType::Rdp), Err("connection refused".into()));
    let Some(mut server) = start_xrdp(folder.path(), port, "negotiate", true) else { return };
    expect_ready(port, ConnectionType::Rdp, &mut server);
    drop(server);
    assert_eq!(probe(port, ConnectionType::Rdp), Err("connection refused".into()));
}

#[test]
fn a_server_that_demands_network_level_authentication_is_ready() {
    let (Some(xvfb), Some(shadow)) = (XVFB.find(), SHADOW.find()) else { return };
    let (folder, port) = (TempDir::new().unwrap(), free_port());
    // The shadow server connects twice, and Xvfb would start over, deaf for a moment, when the first connection ends.
    let (_x, display) = start_x(Command::new(xvfb).args(["-screen", "0", "640x480x24", "-noreset"]), folder.path());
    // Nobody logs in, so it does not matter whose password this is; without a user the server would not offer CredSSP.
    let sam = folder.path().join("sam");
    fs::write(&sam, "user:::8846F7EAEE8FB117AD06BDD830B7586C:::\n").unwrap();
    let mut command = Command::new(shadow);
    // It makes itself a certificate below HOME.
    command.env("HOME", folder.path()).env_remove("XDG_CONFIG_HOME").env("DISPLAY", display);
    command.args(["/bind-address:127.0.0.1", &format!("/port:{port}"), "/sec:nla", "+auth"]);
    command.arg(format!("/sam-file:{}", sam.display()));
    let mut server = Process::start(&mut command, &folder.path().join("shadow.out"));
    expect_ready(port, ConnectionType::Rdp, &mut server);

    // To a client without CredSSP it says HYBRID_REQUIRED_BY_SERVER, as Windows does. That is ready as well.
    let mut request = rdp::request();
    request[15] = 1;
    let answer: [u8; 19] = raw_answer(port, &request);
    assert_eq!(answer[11..], [3, 0, 8, 0, 5, 0, 0, 0]);
    assert_eq!(rdp::judge(&answer), Verdict::Ready);
}

/// The first bytes of what a server says to these.
fn raw_answer<const COUNT: usize>(port: u16, request: &[u8]) -> [u8; COUNT] {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
    stream.set_read_timeout(Some(START)).unwrap();
    stream.write_all(request).unwrap();
    let mut answer = [0; COUNT];
    stream.read_exact(&mut answer).unwrap();
    answer
}

#[test]
fn xvnc_is_ready_for_vnc_and_not_for_others() {
    let Some(xvnc) = XVNC.find() else { return };
    let (folder, port) = (TempDir::new().unwrap(), free_port());
    let mut command = Command::new(xvnc);
    command.args(["-rfbport", &port.to_string(), "-interface", "127.0.0.1", "-SecurityTypes", "None"]);
    command.args(["-geometry", "320x240"]);
    let (mut server, _display) = start_x(&mut command, folder.path());
    expect_ready(port, ConnectionType::Vnc, &mut server);
    for other in [ConnectionType::Rdp, ConnectionType::KasmVnc] {
        let wrong = probe(port, other).unwrap_err();
        assert!(wrong.starts_with(ACCEPTED) && wrong.contains("RFB 003.008"), "{wrong}");
    }
    // By now it turns this address away for too many connections without a login, but with a greeting.
    for _ in 0..5 {
        assert_eq!(probe(port, ConnectionType::Vnc), Ok(()));
    }
}

#[test]
fn sshd_is_ready_for_ssh_and_not_for_others() {
    let (Some(sshd), Some(keygen)) = (SSHD.find(), SSH_KEYGEN.find()) else { return };
    let (folder, port) = (TempDir::new().unwrap(), free_port());
    let key = folder.path().join("host_key");
    let made = Command::new(keygen).args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&key).status().unwrap();
    assert!(made.success());
    let config = folder.path().join("sshd_config");
    let text = format!("ListenAddress 127.0.0.1\nPort {port}\nHostKey {}\nPidFile none\nUsePAM no\n", key.display());
    fs::write(&config, text).unwrap();
    let mut command = Command::new(sshd);
    command.args(["-D", "-e", "-f"]).arg(&config);
    unprivileged(&mut command, folder.path());
    let mut server = Process::start(&mut command, &folder.path().join("sshd.out"));
    expect_ready(port, ConnectionType::Ssh, &mut server);
    let wrong = probe(port, ConnectionType::Rdp).unwrap_err();
    assert!(wrong.starts_with(ACCEPTED) && wrong.contains("SSH-2.0-"), "{wrong}");
}

/// KasmVNC is not in Debian. What a probe needs of it is the TLS of OpenSSL, so that is asked.
#[test]
fn a_tls_server_is_ready_for_kasmvnc_and_not_for_others() {
    let Some(openssl) = OPENSSL.find() else { return };
    for version in ["-tls1_2", "-tls1_3"] {
        let (folder, port) = (TempDir::new().unwrap(), free_port());
        make_certificate(&openssl, folder.path());
        let mut command = Command::new(&openssl);
        command.args(["s_server", "-accept", &format!("127.0.0.1:{port}"), version, "-quiet"]);
        command.args(["-cert", "cert.pem", "-key", "key.pem"]).current_dir(folder.path());
        let mut server = Process::start(&mut command, &folder.path().join("tls.out"));
        expect_ready(port, ConnectionType::KasmVnc, &mut server);
        // Ready by a ServerHello and not by an alert: the request is one that OpenSSL accepts.
        let answer: [u8; 6] = raw_answer(port, &tls::request());
        assert_eq!((answer[0], answer[5]), (22, 2), "{version}: {}", server.output());
        assert!(probe(port, ConnectionType::Vnc).is_err(), "{version}");
    }
}

/// Accepts connections for as long as the test program runs, and treats each like this.
fn serve(each: fn(TcpStream)) -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || listener.incoming().flatten().for_each(each));
    port
}

#[test]
fn a_port_that_accepts_and_stays_silent_is_not_ready() {
    let port = serve(|mut stream| {
        let mut rest = Vec::new();
        // Until the prober hangs up.
        let _ = stream.read_to_end(&mut rest);
    });
    // Nobody else would ever end this one.
    let silent = probe(port, ConnectionType::Rdp);
    assert_eq!(silent, Err(format!("{ACCEPTED}sent no RDP answer within 1 s")));
}

#[test]
fn a_web_server_is_not_ready() {
    let port = serve(|mut stream| {
        let mut request = [0; 512];
        if stream.read(&mut request).is_ok() {
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
        }
    });
    for (connection, told) in [
        (ConnectionType::Rdp, "sent \"HTTP/1.1 400 Bad Request"),
        (ConnectionType::KasmVnc, "answered in plain HTTP"),
        (ConnectionType::Vnc, "sent no VNC answer"),
        (ConnectionType::Ssh, "sent no SSH answer"),
    ] {
        let wrong = probe(port, connection).unwrap_err();
        assert!(wrong.starts_with(&format!("{ACCEPTED}{told}")), "{connection}: {wrong}");
    }
}

#[test]
fn a_closed_port_refuses() {
    for connection in [ConnectionType::Rdp, ConnectionType::Vnc, ConnectionType::Ssh, ConnectionType::KasmVnc] {
        assert_eq!(probe(free_port(), connection), Err("connection refused".into()));
    }
}
