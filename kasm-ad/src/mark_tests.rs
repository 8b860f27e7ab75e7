use kasm_autoscale_core::id::{ConfigId, DeploymentId, PoolId, ServerId, ServerKey};
use kasm_autoscale_core::ports::{ComputerRef, Marker};

use super::{Reference, guid, of_pool, of_probe, of_server, read, written};

const DEPLOYMENT: DeploymentId = DeploymentId::from_bytes([1; 16]);

fn marker(server: ServerKey) -> Marker {
    Marker { deployment: DEPLOYMENT, pool: server.pool, config: ConfigId::new(3), server: server.uuid() }
}

#[test]
fn a_mark_comes_back_and_its_beginning_finds_it() {
    let server = ServerKey { pool: PoolId::from_bytes([2; 16]), server: ServerId::new(7) };
    let text = written(&marker(server));
    assert_eq!(read(&text), Some(marker(server)));
    assert!(text.len() < 256, "{}", text.len());
    for filter in [of_pool(DEPLOYMENT, server.pool), of_server(DEPLOYMENT, &server)] {
        let filter = filter.to_string();
        let (_, beginning) = filter.split_once("(adminDescription=").expect("the mark");
        assert!(text.starts_with(beginning.trim_end_matches("*))")), "{filter} for {text}");
    }
    // A server whose number begins with the same digits is another's.
    let other = ServerKey { server: ServerId::new(70), ..server };
    assert!(!of_server(DEPLOYMENT, &server).to_string().contains(&other.uuid()));
}

#[test]
fn what_is_not_a_mark_is_nobodys() {
    let server = ServerKey { pool: PoolId::from_bytes([2; 16]), server: ServerId::new(7) };
    let text = written(&marker(server));
    let other_pool = text.replace(&server.pool.to_string(), &PoolId::from_bytes([3; 16]).to_string());
    let cut = &text[..text.len() - 1];
    for bad in [
        "",
        "kasm-autoscale",
        &of_probe(DEPLOYMENT),
        &other_pool,
        cut,
        &text.replace("v1", "v2"),
        &text.replace("cfg-", ""),
    ] {
        assert_eq!(read(bad), None, "{bad:?}");
    }
}

#[test]
fn a_reference_is_a_guid_and_nothing_else() {
    let reference = Reference("0b5a3e5e-0102-0304-0506-0708090a0b0c".to_owned());
    assert_eq!(Reference::read(&reference.written()), Some(reference.clone()));
    assert_eq!(reference.dn(), "<GUID=0b5a3e5e-0102-0304-0506-0708090a0b0c>");
    for bad in [
        "",
        "/",
        "CN=x",
        "0b5a3e5e-0102-0304-0506-0708090a0b0c/1",
        "0b5a3e5e>,DC=x",
        "0b5a3e5e-0102-0304-0506-0708090a0b0",
    ] {
        assert_eq!(Reference::read(&ComputerRef(bad.to_owned())), None, "{bad:?}");
    }
}

#[test]
fn a_guid_is_written_as_windows_writes_it() {
    let bytes = [0x5e, 0x3e, 0x5a, 0x0b, 0x02, 0x01, 0x04, 0x03, 5, 6, 7, 8, 9, 10, 11, 12];
    assert_eq!(guid(&bytes).as_deref(), Some("0b5a3e5e-0102-0304-0506-0708090a0b0c"));
    assert_eq!(guid(&bytes[..15]), None);
}
