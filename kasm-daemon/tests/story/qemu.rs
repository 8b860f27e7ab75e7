//! A small provider for the story: its machines are real virtual ones, run by QEMU's software emulation.
//!
//! Each machine is one process and one folder. The folder's file `machine.json` is the record: its name is the machine's
//! reference, it bears the mark, and it is there before the process is. The network of a machine is QEMU's own: the guest
//! reaches the loopback address of this network namespace, and nothing else.

use std::collections::BTreeMap;
use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::Duration;

use async_trait::async_trait;
use kasm_autoscale_core::config::{JsonObject, Problem};
use kasm_autoscale_core::id::{PoolId, ServerKey};
use kasm_autoscale_core::ports::{
    Address, Capabilities, Certainty, ErrorKind, Finding, Listing, Machine, MachineRef, MachineState, Marker, OpRef,
    Progress, ProviderError, ServerSpec, VmProvider,
};
use secrecy::ExposeSecret;
use serde::{Deserialize, Serialize};

/// Machines of a stock kernel and a root file system, which [`image`](Qemu::image) holds.
pub(crate) struct Qemu {
    /// The folder with `kernel`, `initrd.gz` and `root.img`. Machines write to throw-away copies.
    image: PathBuf,
    /// The folder with a folder for each machine.
    machines: PathBuf,
    running: Mutex<BTreeMap<String, Child>>,
}

#[derive(Deserialize, Serialize)]
struct Record {
    marker: Marker,
    port: u16,
}

impl Qemu {
    pub(crate) fn new(image: &Path, machines: &Path) -> Self {
        Self { image: image.into(), machines: machines.into(), running: Mutex::default() }
    }

    /// How many machines run.
    pub(crate) fn running(&self) -> usize {
        self.running.lock().expect("a lock").len()
    }

    /// What all machines have said on their serial ports.
    pub(crate) fn consoles(&self) -> String {
        let folders = fs::read_dir(&self.machines).expect("a folder").flatten();
        folders
            .map(|folder| fs::read(folder.path().join("console.log")).unwrap_or_default())
            .fold(String::new(), |all, console| all + &String::from_utf8_lossy(&console))
    }

    fn records(&self) -> Vec<(String, Record)> {
        let folders = fs::read_dir(&self.machines).expect("a folder").flatten();
        let read = |folder: fs::DirEntry| {
            let record = fs::read(folder.path().join("machine.json")).ok()?;
            Some((folder.file_name().into_string().ok()?, serde_json::from_slice(&record).ok()?))
        };
        folders.filter_map(read).collect()
    }

    fn machine(&self, name: String, record: Record) -> Machine {
        let mut running = self.running.lock().expect("a lock");
        let runs = running.get_mut(&name).is_some_and(|child| matches!(child.try_wait(), Ok(None)));
        Machine {
            reference: MachineRef(name),
            marker: Some(record.marker),
            state: if runs { MachineState::Running } else { MachineState::Failed },
            address: Some(Address { host: "127.0.0.1".into(), port: Some(record.port) }),
            fault: None,
        }
    }

    fn start(&self, spec: &ServerSpec, folder: &Path, port: u16) -> std::io::Result<Child> {
        let file = |name: &str| self.image.join(name).display().to_string();
        let startup = folder.join("startup");
        if let Some(script) = &spec.user_data {
            fs::write(&startup, script.expose_secret())?;
        }
        let mut command = Command::new("qemu-system-x86_64");
        // KVM is never asked for: where it exists and does not work, a machine would hang.
        command.args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-M", "q35", "-m", "384"]);
        command.args(["-accel", "tcg,tb-size=128", "-append", "console=ttyS0 quiet panic=-1"]);
        command.args(["-kernel", &file("kernel"), "-initrd", &file("initrd.gz")]);
        command.args(["-serial", &format!("file:{}", folder.join("console.log").display())]);
        command.args(["-drive", &format!("file={},format=raw,if=none,id=disk,snapshot=on", file("root.img"))]);
        command.args(["-device", "virtio-blk-pci,drive=disk", "-device", "virtio-net-pci,netdev=net,romfile="]);
        command.args(["-netdev", &format!("user,id=net,hostfwd=tcp:127.0.0.1:{port}-:3389")]);
        command.args(["-object", "rng-random,id=rng,filename=/dev/urandom", "-device", "virtio-rng-pci,rng=rng"]);
        command.args(["-fw_cfg", &format!("name=opt/kasm-hostname,string={}", spec.name)]);
        if spec.user_data.is_some() {
            command.args(["-fw_cfg", &format!("name=opt/kasm-startup,file={}", startup.display())]);
        }
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(fs::File::create(folder.join("qemu.log"))?).spawn()
    }
}

impl Drop for Qemu {
    fn drop(&mut self) {
        for child in self.running.get_mut().expect("a lock").values_mut() {
            // One that has ended already needs no ending.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn failed(error: &std::io::Error) -> ProviderError {
    ProviderError::new(ErrorKind::Transient, Certainty::Unknown, "Io", &error.to_string())
}

#[async_trait]
impl VmProvider for Qemu {
    fn describe(&self) -> Capabilities {
        Capabilities {
            kind: "qemu",
            visibility_lag: Duration::ZERO,
            poll_busy: Duration::from_secs(1),
            poll_idle: Duration::from_secs(5),
            creates_in_flight_max: 1,
            call_timeout: Duration::from_secs(30),
            offering: &[],
        }
    }

    fn check(&self, _: &JsonObject, _: usize) -> Vec<Problem> {
        vec![]
    }

    async fn preflight(&self, _: &JsonObject) -> Result<Vec<Finding>, ProviderError> {
        let missing = ["kernel", "initrd.gz", "root.img"].into_iter().filter(|name| !self.image.join(name).is_file());
        let finding = |name: &str| Finding {
            subject: format!("file {name} of the image"),
            problem: "not there".into(),
            remedy: "build the image with tests/story/image.sh".into(),
        };
        Ok(missing.map(finding).collect())
    }

    async fn create(&self, spec: &ServerSpec) -> Result<Progress, ProviderError> {
        let folder = self.machines.join(&spec.token);
        let done = Progress::Done { machine: Some(MachineRef(spec.token.clone())) };
        if folder.exists() {
            return Ok(done);
        }
        let make = || -> std::io::Result<Child> {
            fs::create_dir(&folder)?;
            let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
            let record = Record { marker: spec.marker.clone(), port };
            fs::write(folder.join("machine.json"), serde_json::to_vec(&record)?)?;
            self.start(spec, &folder, port)
        };
        let child = make().map_err(|error| failed(&error))?;
        self.running.lock().expect("a lock").insert(spec.token.clone(), child);
        Ok(done)
    }

    async fn poll(&self, op: &OpRef) -> Result<Progress, ProviderError> {
        unreachable!("{op}: no call of this provider takes long")
    }

    async fn find(&self, server: &ServerKey) -> Result<Option<Machine>, ProviderError> {
        let found = self.records().into_iter().find(|(_, record)| record.marker.server == server.uuid());
        Ok(found.map(|(name, record)| self.machine(name, record)))
    }

    async fn list(&self, pool: &PoolId) -> Result<Listing, ProviderError> {
        let ours = self.records().into_iter().filter(|(_, record)| record.marker.pool == *pool);
        Ok(Listing { machines: ours.map(|(name, record)| self.machine(name, record)).collect(), complete: true })
    }

    async fn delete(&self, machine: &MachineRef) -> Result<Progress, ProviderError> {
        if let Some(mut child) = self.running.lock().expect("a lock").remove(&machine.0) {
            child.kill().and_then(|()| child.wait()).map_err(|error| failed(&error))?;
        }
        let record = self.machines.join(&machine.0).join("machine.json");
        match fs::remove_file(record) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(failed(&error)),
            _ => Ok(Progress::Done { machine: None }),
        }
    }
}
