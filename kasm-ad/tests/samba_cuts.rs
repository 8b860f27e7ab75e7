//! The connection is cut at every point of a call, after the domain controller has done what it was asked: what is said of certainty is
//! true, and the same call again makes everything right.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use kasm_autoscale_core::ports::{Certainty, Directory, DirectoryErrorKind as Kind};
use secrecy::ExposeSecret;

#[path = "../../tests/support/real.rs"]
mod real;
#[path = "../../tests/support/samba.rs"]
mod samba;
#[path = "support/world.rs"]
mod world;

use samba::{SERVICE, Samba};
use world::{computer, directory, enroll, password, server, settings, settings_of};

/// TLS records of this type carry requests (RFC 8446 §5.1).
const APPLICATION_DATA: u8 = 23;

/// A relay that lets so many records with requests through, and withholds the answer to the last one.
struct Cutter {
    port: u16,
    records: Arc<AtomicUsize>,
}

impl Cutter {
    fn new(target: (Ipv4Addr, u16)) -> Self {
        let listener = TcpListener::bind((target.0, 0)).expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let records = Arc::new(AtomicUsize::new(usize::MAX));
        let limit = Arc::clone(&records);
        thread::spawn(move || {
            while let Ok((client, _)) = listener.accept() {
                let server = TcpStream::connect(target).expect("the server");
                relay(client, server, limit.load(Ordering::SeqCst));
            }
        });
        Self { port, records }
    }
}

fn relay(client: TcpStream, server: TcpStream, limit: usize) {
    let cut = Arc::new(AtomicBool::new(false));
    let (mut from_client, mut to_server) = (client.try_clone().expect("a copy"), server.try_clone().expect("a copy"));
    let (mut from_server, mut to_client) = (server, client);
    let is_cut = Arc::clone(&cut);
    thread::spawn(move || {
        let mut seen = 0;
        while let Some(record) = record(&mut from_client) {
            seen += usize::from(record[0] == APPLICATION_DATA);
            is_cut.fetch_or(seen == limit, Ordering::SeqCst);
            if seen > limit || to_server.write_all(&record).is_err() {
                break;
            }
        }
        // The answer to the last one is still awaited.
        let _ = to_server.shutdown(Shutdown::Write);
    });
    thread::spawn(move || {
        let mut chunk = [0; 16 << 10];
        while let Ok(read @ 1..) = from_server.read(&mut chunk) {
            if cut.load(Ordering::SeqCst) || to_client.write_all(&chunk[..read]).is_err() {
                break;
            }
        }
        let _ = (to_client.shutdown(Shutdown::Both), from_server.shutdown(Shutdown::Both));
    });
}

/// The next record, header and all; `None` when there are no more.
fn record(stream: &mut TcpStream) -> Option<Vec<u8>> {
    let mut record = vec![0; 5];
    stream.read_exact(&mut record).ok()?;
    let length = usize::from(u16::from_be_bytes([record[3], record[4]]));
    record.resize(5 + length, 0);
    stream.read_exact(&mut record[5..]).ok()?;
    Some(record)
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_answer_is_lost_there_is_one_object_in_the_end() {
    let Some(samba) = Samba::shared() else { return };
    let cutter = Cutter::new(samba.ldaps());
    let url = format!("ldaps://{}:{}", samba.ldaps().0, cutter.port);
    let (direct, fragile) = (directory(settings(&samba)), directory(settings_of(&url, &samba, SERVICE)));
    let mut certainties = Vec::new();
    for records in 1.. {
        let server = server(51, records as u64);
        cutter.records.store(records, Ordering::SeqCst);
        let outcome = fragile.ensure_computer(&computer(server), &password(&server)).await;
        let made = direct.find_computer(&server).await.expect("an answer");
        let Err(error) = outcome else {
            assert_eq!(made, outcome.ok());
            break;
        };
        assert_eq!(error.kind, Kind::Transient, "{error}");
        assert!(error.certainty == Certainty::Unknown || made.is_none(), "{records}: it is there, but: {error}");
        certainties.push((error.certainty, made.is_some()));
        let again = direct.ensure_computer(&computer(server), &password(&server)).await.expect("made");
        assert!(made.is_none_or(|made| made == again));
        assert!(samba.kerberos_knows(server.machine_name().as_str(), password(&server).expose_secret()));
    }
    // The answers to the Add and to the look at what it made were among those that were lost.
    assert!(certainties.iter().filter(|lost| **lost == (Certainty::Unknown, true)).count() >= 2, "{certainties:?}");
    assert!(certainties.contains(&(Certainty::NotApplied, false)), "{certainties:?}");
    let listing = direct.list_computers(&server(51, 1).pool).await.expect("a list");
    assert_eq!(listing.computers.len(), certainties.len() + 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_answer_is_lost_there_is_no_object_in_the_end() {
    let Some(samba) = Samba::shared() else { return };
    let cutter = Cutter::new(samba.ldaps());
    let url = format!("ldaps://{}:{}", samba.ldaps().0, cutter.port);
    let (direct, fragile) = (directory(settings(&samba)), directory(settings_of(&url, &samba, SERVICE)));
    let mut lost_after_the_deed = 0;
    for records in 1.. {
        let server = server(52, records as u64);
        let made = enroll(&direct, server).await;
        cutter.records.store(records, Ordering::SeqCst);
        let outcome = fragile.delete_computer(&made, true).await;
        let there = direct.find_computer(&server).await.expect("an answer");
        let Err(error) = outcome else {
            assert_eq!(there, None);
            break;
        };
        assert!(error.certainty == Certainty::Unknown || there.is_some(), "{records}: it is gone, but: {error}");
        lost_after_the_deed += usize::from(there.is_none());
        direct.delete_computer(&made, true).await.expect("deleted");
    }
    assert!(lost_after_the_deed >= 1);
    assert_eq!(direct.list_computers(&server(52, 1).pool).await.expect("a list").computers, []);
}
