//! Our directory over a real domain controller, and servers for it.

#![allow(dead_code, reason = "each test uses its own part of this")]

use std::time::Duration;

use kasm_ad::{ActiveDirectory, LdapSettings};
use kasm_autoscale_core::id::{ConfigId, DeploymentId, MachineName, PoolId, ServerId, ServerKey};
use kasm_autoscale_core::ports::{Computer, ComputerRef, Directory, JoinPassword, Marker};
use kasm_autoscale_core::token::{DeploymentKey, join_password};
use secrecy::SecretString;
use serde_json::json;

use crate::samba::{BASE, COMPUTERS, SERVICE, Samba};

pub(crate) const DEPLOYMENT: DeploymentId = DeploymentId::from_bytes([1; 16]);

/// The settings of a config that reaches this controller as the service account.
pub(crate) fn settings(samba: &Samba) -> LdapSettings {
    settings_of(&samba.url(), samba, SERVICE)
}

pub(crate) fn settings_of(url: &str, samba: &Samba, (account, password): (&str, &str)) -> LdapSettings {
    let mut settings = LdapSettings::new(
        url.parse().expect("an address"),
        account,
        SecretString::from(password),
        BASE.parse().expect("a name"),
    );
    settings.ca_file = Some(samba.ca_file());
    settings.computer_base = Some(COMPUTERS.parse().expect("a name"));
    // The machine may be busy; nothing waits for these to pass.
    settings.timeout = Duration::from_secs(60);
    settings.call_timeout = Duration::from_secs(1800);
    settings
}

pub(crate) fn directory(settings: LdapSettings) -> ActiveDirectory {
    ActiveDirectory::new(settings, DEPLOYMENT).expect("sound settings")
}

pub(crate) fn server(pool: u8, number: u64) -> ServerKey {
    ServerKey { pool: PoolId::from_bytes([pool; 16]), server: ServerId::new(number) }
}

pub(crate) fn computer(server: ServerKey) -> Computer {
    Computer {
        server,
        marker: Marker { deployment: DEPLOYMENT, pool: server.pool, config: ConfigId::new(3), server: server.uuid() },
        name: server.machine_name(),
        ou: COMPUTERS.to_owned(),
    }
}

pub(crate) fn named(server: ServerKey, name: &str) -> Computer {
    let name: MachineName = serde_json::from_value(json!(name)).expect("a name");
    Computer { name, ..computer(server) }
}

pub(crate) fn password(server: &ServerKey) -> JoinPassword {
    join_password(&DeploymentKey::new([7; 32]), server, 1)
}

/// Makes the computer object of a server.
pub(crate) async fn enroll(directory: &ActiveDirectory, server: ServerKey) -> ComputerRef {
    directory.ensure_computer(&computer(server), &password(&server)).await.expect("a computer object")
}
