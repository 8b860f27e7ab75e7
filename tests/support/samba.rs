//! A real Active Directory domain controller: Samba, with LDAPS, Kerberos and netlogon, on loopback addresses of its own.
//!
//! The domain `example.local` is made once and kept as a template below the target folder; each controller runs on a copy.
//! The ports of LDAP cannot be changed, so the address varies: as root a controller gets a free address of 127.0.0.0/8, else it runs
//! in a network namespace of its own, and its LDAP ports are relayed to free ports of 127.0.0.1.
//!
//! What is in the domain is said in `samba_dc.py`.

#![allow(dead_code, reason = "each test uses its own part of this")]

use std::fs::{self, File};
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use crate::real::{Process, Program, free_port, wait_until};

/// The DNS name of the domain.
pub(crate) const DOMAIN: &str = "example.local";
/// The distinguished name of the domain.
pub(crate) const BASE: &str = "DC=example,DC=local";
/// Where the service account may make and remove computers. `OU=Pool A` lies below it.
pub(crate) const COMPUTERS: &str = "OU=Desktops,DC=example,DC=local";
/// Where the users `ann`, `bob` and `cut` are; `cut` is disabled. Ann is in `students`, which is in `desktop-users`.
pub(crate) const PEOPLE: &str = "OU=People,DC=example,DC=local";
/// The account that has the rights to delegate, and its password.
pub(crate) const SERVICE: (&str, &str) = ("svc-kasm@example.local", "Svc-Pa55word-1");
/// An account that has none, and its password.
pub(crate) const WEAK_SERVICE: (&str, &str) = ("svc-weak@example.local", "Svc-Pa55word-2");
/// The administrator, and the password.
pub(crate) const ADMINISTRATOR: (&str, &str) = ("administrator@example.local", "Adm1n-Passw0rd!");
/// Every user's password.
pub(crate) const USER_PASSWORD: &str = "User-Pa55word-1";

const INSTALL: &str = "run `make tools`; the tests against a real domain controller did not run";
/// What domains are made of, which comes in a package of its own.
const SETUP: &str = "/usr/share/samba/setup/provision.ldif";
/// A domain takes about 7 seconds to make and a controller 1 to start, on a quiet machine.
const PATIENCE: Duration = Duration::from_secs(120);
/// Passwords of a domain expire after 42 days.
const TEMPLATE_DAYS_MAX: u64 = 14;
/// What has to listen: Kerberos, the endpoint mapper, LDAP, LDAPS.
const PORTS: [u16; 4] = [88, 135, 389, 636];

/// A certificate for a domain controller.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Certificate {
    /// Valid, for the controller's address and for `dc1.example.local`.
    Good,
    /// Good until long ago.
    Expired,
}

/// A running domain controller. It ends when the last test that uses it has ended.
pub(crate) struct Samba {
    way: Way,
    controller: Process,
    folder: tempfile::TempDir,
}

/// How a controller is reached.
enum Way {
    /// At an address of its own.
    Address(Ipv4Addr),
    /// At 127.0.0.1 of the namespace of its process, relayed to these ports outside.
    Namespace { ldap: u16, ldaps: u16, _relays: Vec<Process> },
}

impl Samba {
    /// The domain controller of this test process, started if none runs yet; `None` if Samba is not installed, and the notice
    /// has been given. Tests share it, so each uses names of its own.
    pub(crate) fn shared() -> Option<Arc<Self>> {
        static RUNNING: Mutex<Weak<Samba>> = Mutex::new(Weak::new());
        let mut running = RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(samba) = running.upgrade() {
            return Some(samba);
        }
        let samba = Arc::new(Self::start(Certificate::Good)?);
        *running = Arc::downgrade(&samba);
        Some(samba)
    }

    /// A domain controller of one's own, as it is when the domain has just been made.
    pub(crate) fn start(certificate: Certificate) -> Option<Self> {
        Self::start_changed(certificate, "")
    }

    /// The same, with the changes of an LDIF made before it starts: those of the schema are not seen later.
    pub(crate) fn start_changed(certificate: Certificate, ldif: &str) -> Option<Self> {
        // Another program may take the free address before Samba does: then Samba ends, and another is tried.
        Self::try_to_start(3, certificate, ldif, free_address)
    }

    /// A domain controller at this address, for a test that has a network of its own and is root there.
    pub(crate) fn start_at(address: Ipv4Addr, certificate: Certificate) -> Option<Self> {
        Self::try_to_start(1, certificate, "", || address)
    }

    fn try_to_start(tries: u32, certificate: Certificate, ldif: &str, address: impl Fn() -> Ipv4Addr) -> Option<Self> {
        let programs = programs()?;
        let template = template();
        for _ in 0..tries {
            let folder = tempfile::tempdir().expect("a folder");
            copy(&template, &folder.path().join("dc"));
            if !ldif.is_empty() {
                let conf = folder.path().join("dc/etc/smb.conf");
                let output = run(Command::new("/usr/bin/python3").arg(script()).arg("modify").arg(conf), ldif);
                assert!(output.status.success(), "not changed: {}", text(&output));
            }
            let started = Self::start_in(folder, certificate, &programs, &address);
            if started.is_some() {
                return started;
            }
        }
        panic!("the domain controller does not start");
    }

    fn start_in(
        folder: tempfile::TempDir,
        certificate: Certificate,
        programs: &Programs,
        address: impl Fn() -> Ipv4Addr,
    ) -> Option<Self> {
        let is_root = fs::metadata(folder.path()).expect("the folder exists").uid() == 0;
        let address = if is_root { address() } else { Ipv4Addr::LOCALHOST };
        certify(folder.path(), address, certificate);
        let mut command = controller(folder.path(), address, &programs.samba);
        if !is_root {
            command = in_namespace(&command);
        }
        let mut process = Process::start(&mut command, &folder.path().join("samba.log"));
        let way = if is_root {
            wait_until(|| process.has_ended() || PORTS.iter().all(|port| answers(address, *port)), PATIENCE);
            Way::Address(address)
        } else {
            let (ldap, ldaps) = (free_port(), free_port());
            let relays = [(389, ldap), (636, ldaps)];
            let relays = relays.into_iter().flat_map(|(inner, outer)| relay(&process, folder.path(), inner, outer));
            let relays = relays.collect();
            // Netlogon comes up last or nearly so; a relay answers before the controller does, so it is asked from inside.
            let up = || PORTS.iter().all(|port| answers_inside(&process, *port));
            wait_until(up, PATIENCE);
            Way::Namespace { ldap, ldaps, _relays: relays }
        };
        if process.has_ended() {
            eprint_log(&process);
            return None;
        }
        Some(Self { way, controller: process, folder })
    }

    /// As in `ldaps://127.80.3.1:636`.
    pub(crate) fn url(&self) -> String {
        let (address, port) = self.ldaps();
        format!("ldaps://{address}:{port}")
    }

    /// Lets it fall silent: connections are taken and never answered.
    pub(crate) fn pause(&self) {
        self.controller.signal("STOP");
    }

    /// Lets it go on where it fell silent.
    pub(crate) fn resume(&self) {
        self.controller.signal("CONT");
    }

    /// Where StartTLS is spoken.
    pub(crate) fn ldap(&self) -> (Ipv4Addr, u16) {
        match self.way {
            Way::Address(address) => (address, 389),
            Way::Namespace { ldap, .. } => (Ipv4Addr::LOCALHOST, ldap),
        }
    }

    /// Where TLS is spoken from the first byte.
    pub(crate) fn ldaps(&self) -> (Ipv4Addr, u16) {
        match self.way {
            Way::Address(address) => (address, 636),
            Way::Namespace { ldaps, .. } => (Ipv4Addr::LOCALHOST, ldaps),
        }
    }

    /// The root certificate, a PEM file.
    pub(crate) fn ca_file(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// A folder that ends with the controller.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// An object as its owner sees it, a line for each value, as in `cn: PC1`; `None` if there is none.
    pub(crate) fn show(&self, dn: &str) -> Option<String> {
        Some(self.administer("show", &[dn], "")).filter(|text| !text.is_empty())
    }

    /// Changes or reads the directory as its owner: `samba_dc.py` says how. What it printed.
    pub(crate) fn administer(&self, command: &str, arguments: &[&str], input: &str) -> String {
        let conf = self.folder.path().join("dc/etc/smb.conf");
        let mut python = self.inside("/usr/bin/python3");
        python.arg(script()).arg(command).arg(conf).args(arguments);
        let output = run(&mut python, input);
        assert!(output.status.success(), "{command} {arguments:?}: {}", text(&output));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Joins as a Linux machine does, with the single-use password.
    ///
    /// # Errors
    /// What adcli says.
    pub(crate) fn join_with_adcli(&self, name: &str, password: &str) -> Result<(), String> {
        let host = format!("{}.{DOMAIN}", name.to_lowercase());
        let folder = self.folder.path();
        let (hosts, resolver) = (folder.join("hosts"), folder.join("resolv.conf"));
        let address = self.inner_address();
        fs::write(&hosts, format!("127.0.0.1 localhost\n{address} dc1.{DOMAIN} dc1 {DOMAIN}\n")).expect("a file");
        fs::write(&resolver, format!("nameserver {address}\nsearch {DOMAIN}\n")).expect("a file");
        // Names are resolved by files of its own, so nothing on the machine is changed.
        let own_files = format!(
            "mount --bind {} /etc/hosts && mount --bind {} /etc/resolv.conf && exec \"$@\"",
            hosts.display(),
            resolver.display()
        );
        let mut join = self.inside("unshare");
        join.args(["-m", "sh", "-c", &own_files, "sh", "adcli", "join", "-v"])
            .arg(format!("--one-time-password={password}"))
            .args([format!("--domain={DOMAIN}"), "--domain-realm=EXAMPLE.LOCAL".to_owned()])
            .args([format!("--domain-controller=dc1.{DOMAIN}"), format!("--computer-name={name}")])
            .arg(format!("--host-fqdn={host}"))
            .arg(format!("--host-keytab={}", folder.join(format!("{name}.keytab")).display()))
            .env("KRB5_CONFIG", self.kerberos_config());
        succeeded(&run(&mut join, ""))
    }

    /// Joins as Windows does, by netlogon: the password that was passed proves the machine, and `new` replaces it.
    ///
    /// # Errors
    /// What the domain controller says.
    pub(crate) fn join_with_netlogon(&self, name: &str, password: &str, new: &str) -> Result<(), String> {
        let conf = self.folder.path().join("client.conf");
        let private = self.folder.path().join("client");
        let address = self.inner_address();
        let text = format!(
            "[global]\nworkgroup=EXAMPLE\nrealm=EXAMPLE.LOCAL\nserver role=member server\nsecurity=ads\nnetbios name={name}\n\
             interfaces={address}/8\nbind interfaces only=yes\nprivate dir={0}\nlock directory={0}\n\
             state directory={0}\ncache directory={0}\n",
            private.display()
        );
        fs::create_dir_all(&private).expect("a folder");
        fs::write(&conf, text).expect("a file");
        let mut python = self.inside("/usr/bin/python3");
        python.arg(script()).arg("join").arg(conf).arg(address.to_string()).arg(name);
        succeeded(&run(&mut python, &format!("{password}\n{new}\n")))
    }

    /// Whether a machine with this password is let in by Kerberos, which knows no grace for old passwords.
    pub(crate) fn kerberos_knows(&self, name: &str, password: &str) -> bool {
        let cache = tempfile::NamedTempFile::new_in(self.folder.path()).expect("a file");
        let mut kinit = self.inside("kinit");
        kinit.arg("-c").arg(cache.path()).arg(format!("{name}$@EXAMPLE.LOCAL"));
        kinit.env("KRB5_CONFIG", self.kerberos_config());
        run(&mut kinit, &format!("{password}\n")).status.success()
    }

    /// Makes the changes of an LDIF as this account, over LDAPS, by OpenLDAP's client.
    ///
    /// # Errors
    /// What the directory says.
    pub(crate) fn modify_as(&self, account: &str, password: &str, ldif: &str) -> Result<(), String> {
        let mut modify = Command::new("ldapmodify");
        modify.args(["-x", "-H", &self.url(), "-D", account, "-w", password]).env("LDAPTLS_CACERT", self.ca_file());
        succeeded(&run(&mut modify, ldif))
    }

    fn kerberos_config(&self) -> PathBuf {
        let address = self.inner_address();
        let text = format!(
            "[libdefaults]\ndefault_realm = EXAMPLE.LOCAL\ndns_lookup_realm = false\ndns_lookup_kdc = false\nrdns = false\n\
             dns_canonicalize_hostname = false\n[realms]\nEXAMPLE.LOCAL = {{\nkdc = {address}\nkpasswd_server = {address}\n\
             admin_server = {address}\n}}\n[domain_realm]\n.{DOMAIN} = EXAMPLE.LOCAL\n{DOMAIN} = EXAMPLE.LOCAL\n"
        );
        let file = self.folder.path().join("krb5.conf");
        fs::write(&file, text).expect("a file");
        file
    }

    fn inner_address(&self) -> Ipv4Addr {
        match self.way {
            Way::Address(address) => address,
            Way::Namespace { .. } => Ipv4Addr::LOCALHOST,
        }
    }

    /// A command that reaches the controller at [`inner_address`](Self::inner_address).
    fn inside(&self, program: &str) -> Command {
        match self.way {
            Way::Address(_) => Command::new(program),
            Way::Namespace { .. } => enter(&self.controller, program),
        }
    }
}

/// What a domain controller needs.
struct Programs {
    samba: PathBuf,
}

fn programs() -> Option<Programs> {
    let find = |name, variable| Program { name, variable, install: INSTALL }.find();
    let samba = find("samba", "KASM_REAL_SAMBA")?;
    find("samba_spnupdate", "KASM_REAL_SAMBA_SPNUPDATE")?;
    find("adcli", "KASM_REAL_ADCLI")?;
    find("kinit", "KASM_REAL_KINIT")?;
    find("openssl", "KASM_REAL_OPENSSL")?;
    find("ldapmodify", "KASM_REAL_LDAPMODIFY")?;
    find("unshare", "KASM_REAL_UNSHARE")?;
    if !Path::new(SETUP).is_file() {
        crate::real::skip("samba-ad-provision", INSTALL);
        return None;
    }
    let as_root = fs::metadata("/proc/self").expect("/proc is there").uid() == 0;
    if !as_root {
        find("socat", "KASM_REAL_SOCAT")?;
        find("nsenter", "KASM_REAL_NSENTER")?;
        find("ip", "KASM_REAL_IP")?;
    }
    Some(Programs { samba })
}

fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/support/samba_dc.py")
}

/// The folder with the domain as it was made, made by whoever needs it first. Test programs run side by side, so it is locked.
fn template() -> PathBuf {
    let user = fs::metadata("/proc/self").expect("/proc is there").uid();
    let root = Path::new(env!("CARGO_TARGET_TMPDIR"));
    fs::create_dir_all(root).expect("a folder");
    let folder = root.join(format!("samba-domain-{user}"));
    let lock = File::create(root.join(format!("samba-domain-{user}.lock"))).expect("a lock");
    lock.lock().expect("the lock is given");
    // The recipe as it was: another recipe makes another domain.
    let (recipe, made) = (fs::read(script()).expect("the script"), folder.join("made"));
    let age = fs::metadata(&made).and_then(|file| file.modified()).ok().and_then(|time| time.elapsed().ok());
    let young = age.is_some_and(|age| age.as_secs() < TEMPLATE_DAYS_MAX * 86_400);
    if !young || fs::read(&made).is_ok_and(|then| then != recipe) {
        let _ = fs::remove_dir_all(&folder);
        provision(&folder);
        fs::write(&made, recipe).expect("a file");
    }
    folder
}

fn provision(folder: &Path) {
    let mut python = Command::new("/usr/bin/python3");
    python.arg(script()).arg("provision").arg(folder).arg("127.0.0.1");
    let output = run(&mut python, "");
    assert!(output.status.success(), "no domain: {}", text(&output));
    // Without it the controller has no names by which Kerberos finds LDAP.
    let mut names = Command::new("samba_spnupdate");
    names.arg("-s").arg(folder.join("etc/smb.conf"));
    let output = run(&mut names, "");
    assert!(output.status.success(), "no service principal names: {}", text(&output));
}

/// The settings name the folder they lie in.
fn copy(template: &Path, folder: &Path) {
    let output = run(Command::new("cp").arg("-a").arg(template).arg(folder), "");
    assert!(output.status.success(), "no copy: {}", text(&output));
    let conf = folder.join("etc/smb.conf");
    let (old, new) = (template.display().to_string(), folder.display().to_string());
    let settings = fs::read_to_string(&conf).expect("the settings").replace(&old, &new);
    fs::write(conf, settings).expect("the settings");
    fs::create_dir_all(folder.join("run/ncalrpc")).expect("a folder");
}

fn controller(folder: &Path, address: Ipv4Addr, samba: &Path) -> Command {
    let (dc, shown) = (folder.join("dc"), folder.display());
    let run = dc.join("run");
    let run = run.display();
    let mut command = Command::new(samba);
    command.args(["-F", "--no-process-group", "-M", "single", "--debug-stdout", "-s"]).arg(dc.join("etc/smb.conf"));
    let options = [
        format!("interfaces={address}/8"),
        "bind interfaces only=yes".to_owned(),
        "server services=rpc, ldap, cldap, kdc, dns".to_owned(),
        format!("tls keyfile={shown}/dc.key"),
        format!("tls certfile={shown}/dc.pem"),
        format!("tls cafile={shown}/ca.pem"),
        format!("pid directory={run}"),
        format!("ncalrpc dir={run}/ncalrpc"),
        format!("winbindd socket directory={run}/winbindd"),
        format!("ntp signd socket directory={run}/ntp_signd"),
        "dns update command=/bin/true".to_owned(),
        "spn update command=/bin/true".to_owned(),
        // Making a domain copies the machine's resolver: no packet may leave.
        "dns forwarder=".to_owned(),
        // The domain lives no longer than the test: nothing needs to reach the disk.
        "ldb:nosync=true".to_owned(),
        // Or a password that was replaced would still do for an hour.
        "old password allowed period=0".to_owned(),
    ];
    command.args(options.map(|option| format!("--option={option}")));
    command
}

/// The same command as root of a user and network namespace of its own.
fn in_namespace(command: &Command) -> Command {
    let mut inside = Command::new("unshare");
    inside.args(["-Urn", "sh", "-c", "ip link set lo up && exec \"$@\"", "sh"]);
    inside.arg(command.get_program()).args(command.get_args());
    inside
}

fn enter(controller: &Process, program: &str) -> Command {
    let mut command = Command::new("nsenter");
    command.args(["-t", &controller.id().to_string(), "-U", "-n", "--preserve-credentials", program]);
    command
}

/// Two processes that bring connections to a port of 127.0.0.1 to one inside the namespace.
fn relay(controller: &Process, folder: &Path, inner: u16, outer: u16) -> [Process; 2] {
    let socket = folder.join(format!("{inner}.sock"));
    let socket = socket.display();
    // The namespace is there as soon as a command can be run in it.
    wait_until(|| enter(controller, "true").status().is_ok_and(|status| status.success()), PATIENCE);
    let mut inside = enter(controller, "socat");
    inside.args([format!("UNIX-LISTEN:{socket},fork"), format!("TCP:127.0.0.1:{inner}")]);
    let mut outside = Command::new("socat");
    outside.args([format!("TCP-LISTEN:{outer},bind=127.0.0.1,fork"), format!("UNIX-CONNECT:{socket}")]);
    let log = |end: &str| folder.join(format!("{inner}-{end}.log"));
    [Process::start(&mut inside, &log("inside")), Process::start(&mut outside, &log("outside"))]
}

fn answers(address: Ipv4Addr, port: u16) -> bool {
    TcpStream::connect(SocketAddrV4::new(address, port)).is_ok()
}

fn answers_inside(controller: &Process, port: u16) -> bool {
    let mut command = enter(controller, "socat");
    command.args(["-u", "/dev/null", &format!("TCP:127.0.0.1:{port}")]).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// An address where none of the ports is taken, never the same twice in one test program, and seldom that of another.
fn free_address() -> Ipv4Addr {
    static GIVEN: AtomicU8 = AtomicU8::new(1);
    let [.., third, fourth] = std::process::id().to_be_bytes();
    loop {
        let address = Ipv4Addr::new(127, 64 + GIVEN.fetch_add(1, Ordering::Relaxed) % 64, third, fourth.max(1));
        if PORTS.iter().all(|port| TcpListener::bind((address, *port)).is_ok()) {
            return address;
        }
    }
}

/// A root of its own and a certificate for the controller.
fn certify(folder: &Path, address: Ipv4Addr, certificate: Certificate) {
    let (from, until) = match certificate {
        Certificate::Good => ("20200101000000Z", "20991231235959Z"),
        Certificate::Expired => ("20200101000000Z", "20210101000000Z"),
    };
    let settings = format!(
        "[ca]\ndefault_ca=own\n[own]\ndatabase={0}/index.txt\nnew_certs_dir={0}\nrand_serial=yes\ndefault_md=sha256\n\
         policy=any\nx509_extensions=server\n[any]\ncommonName=supplied\n[server]\nbasicConstraints=CA:FALSE\n\
         extendedKeyUsage=serverAuth\nsubjectAltName=DNS:dc1.{DOMAIN},DNS:{DOMAIN},IP:{address}\n[req]\n\
         distinguished_name=name\n[name]\n[root]\nbasicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign,cRLSign\n",
        folder.display()
    );
    fs::write(folder.join("ca.cnf"), settings).expect("a file");
    fs::write(folder.join("index.txt"), "").expect("a file");
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -config ca.cnf";
    let root = "-x509 -keyout ca.key -out ca.pem -days 30 -subj /CN=Test-CA -extensions root";
    openssl(folder, &format!("req {root} {key}"));
    openssl(folder, &format!("req -keyout dc.key -out dc.csr -subj /CN=dc1.{DOMAIN} {key}"));
    let sign = "-batch -notext -config ca.cnf -cert ca.pem -keyfile ca.key -in dc.csr -out dc.pem";
    openssl(folder, &format!("ca {sign} -startdate {from} -enddate {until}"));
    run(Command::new("chmod").arg("600").arg(folder.join("dc.key")), "");
}

fn openssl(folder: &Path, arguments: &str) {
    let output = run(Command::new("openssl").current_dir(folder).args(arguments.split(' ')), "");
    assert!(output.status.success(), "openssl {arguments}: {}", text(&output));
}

fn run(command: &mut Command, input: &str) -> Output {
    let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = piped.spawn().unwrap_or_else(|error| panic!("{:?} does not start: {error}", command.get_program()));
    // A program that does not read its input has ended, and says why.
    let _ = child.stdin.take().expect("a pipe").write_all(input.as_bytes());
    child.wait_with_output().expect("it ends")
}

fn succeeded(output: &Output) -> Result<(), String> {
    if output.status.success() { Ok(()) } else { Err(text(output)) }
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn eprint_log(process: &Process) {
    let log = process.output();
    let end = log.len().saturating_sub(3000);
    let _ = std::io::stderr().write_all(log.get(end..).unwrap_or_default().as_bytes());
}
