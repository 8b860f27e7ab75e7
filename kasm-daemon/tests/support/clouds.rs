//! EC2 and Azure on loopback whose time passes by itself, and an RDP server that stands for all their machines.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::answers;
use crate::arm::{Arm, Kind};
use crate::ec2_standin::StandIn;
use crate::stub::{Answer, Stub};

/// How long a second of the clouds takes.
pub(crate) const SECOND: Duration = Duration::from_millis(200);

/// Both clouds. They end when this is dropped.
pub(crate) struct Clouds {
    pub(crate) arm: Arc<Arm>,
    ec2: Arc<Mutex<StandIn>>,
    front: Stub,
    /// How many machines EC2 has room for.
    room: Arc<AtomicUsize>,
    /// How many launches EC2 has refused for want of it.
    refused: Arc<AtomicUsize>,
    /// Ends the passing of time when it is dropped.
    time: Option<(Sender<()>, JoinHandle<()>)>,
}

impl Clouds {
    /// Starts them. EC2 has room for so many machines.
    pub(crate) fn start(room: usize) -> Self {
        let mut ec2 = StandIn::default();
        // Well ahead of Azure, whose machines take 30 seconds.
        (ec2.behaviour.launch_time, ec2.behaviour.hidden) = (5_000, 2_000);
        let (ec2, arm) = (Arc::new(Mutex::new(ec2)), Arc::new(Arm::start()));
        // Operations end with time, however often they are asked for.
        arm.state().polls = u32::MAX;
        let (room, refused) = (Arc::new(AtomicUsize::new(room)), Arc::new(AtomicUsize::new(0)));
        let (cloud, most, count) = (Arc::clone(&ec2), Arc::clone(&room), Arc::clone(&refused));
        let front = Stub::start(move |request| {
            let mut cloud = cloud.lock().expect("nobody panics with it");
            let makes = request.parameter("Action") == "RunInstances" && request.parameter("DryRun") != "true";
            if makes && cloud.truth().0.len() >= most.load(Ordering::SeqCst) {
                count.fetch_add(1, Ordering::SeqCst);
                // API Reference, "Error codes".
                let message = "We currently do not have sufficient capacity in the Availability Zone you requested.";
                return Answer::Http(500, answers::error("InsufficientInstanceCapacity", message));
            }
            let (status, body) = cloud.answer(request);
            Answer::Http(status, body)
        });
        let (stop, stopped) = mpsc::channel();
        let (ec2_clock, arm_clock) = (Arc::clone(&ec2), Arc::clone(&arm));
        let clock = thread::spawn(move || {
            while stopped.recv_timeout(SECOND) == Err(RecvTimeoutError::Timeout) {
                ec2_clock.lock().expect("nobody panics with it").pass(Duration::from_secs(1));
                arm_clock.advance(1);
            }
        });
        Self { arm, ec2, front, room, refused, time: Some((stop, clock)) }
    }

    /// Where EC2 is.
    pub(crate) fn ec2_url(&self) -> String {
        self.front.url()
    }

    /// EC2 has room for so many machines from now on.
    pub(crate) fn give_room(&self, machines: usize) {
        self.room.store(machines, Ordering::SeqCst);
    }

    /// How many launches EC2 has refused for want of room.
    pub(crate) fn refused(&self) -> usize {
        self.refused.load(Ordering::SeqCst)
    }

    /// The machines of EC2 that cost money.
    pub(crate) fn on_ec2(&self) -> Vec<String> {
        self.ec2.lock().expect("nobody panics with it").truth().0
    }

    /// The machines of Azure.
    pub(crate) fn on_azure(&self) -> Vec<String> {
        self.arm.names(Kind::Vm)
    }

    /// How many machines Azure was asked to make.
    pub(crate) fn asked_of_azure(&self) -> usize {
        let is_make = |call: &&String| call.starts_with("PUT ") && !call.contains("/extensions/");
        self.arm.calls().iter().filter(is_make).count()
    }
}

impl Drop for Clouds {
    fn drop(&mut self) {
        if let Some((stop, clock)) = self.time.take() {
            drop(stop);
            // A panic of its own has been told by then.
            let _ = clock.join();
        }
    }
}

/// An X.224 Connection Confirm in its TPKT, without negotiation data: a server that knows standard RDP security
/// ([MS-RDPBCGR] 2.2.1.2).
const CONFIRM: [u8; 11] = [3, 0, 0, 11, 6, 0xd0, 0, 0, 0x12, 0x34, 0];

/// A server that answers the first message of RDP clients, and only that. It ends when it is dropped.
pub(crate) struct Desktop {
    address: SocketAddr,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Desktop {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let address = listener.local_addr().expect("an address");
        let stop = Arc::new(AtomicBool::new(false));
        let ended = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if ended.load(Ordering::SeqCst) {
                    break;
                }
                // Ends by itself with its one client, who is impatient.
                thread::spawn(move || answer(stream));
            }
        });
        Self { address, stop, thread: Some(thread) }
    }

    pub(crate) fn port(&self) -> u16 {
        self.address.port()
    }
}

impl Drop for Desktop {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        // Wakes the listener up.
        let _ = TcpStream::connect(self.address);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Confirms a whole Connection Request, and nothing else.
fn answer(mut stream: TcpStream) {
    let mut header = [0; 4];
    if stream.set_read_timeout(Some(Duration::from_secs(10))).is_err() || stream.read_exact(&mut header).is_err() {
        return;
    }
    let length = usize::from(u16::from_be_bytes([header[2], header[3]]));
    let mut rest = vec![0; length.saturating_sub(header.len())];
    let is_request = stream.read_exact(&mut rest).is_ok() && header[0] == 3 && rest.get(1) == Some(&0xe0);
    if is_request && stream.write_all(&CONFIRM).is_ok() {
        // The client closes first, or it might miss the answer.
        let _ = stream.read(&mut header);
    }
}
