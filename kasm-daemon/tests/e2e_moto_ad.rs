//! EC2 and a domain, end to end: what a machine is started with joins it to the domain, once.
#![cfg(feature = "aws")]

#[path = "support/domain.rs"]
mod domain;
#[path = "support/ec2.rs"]
mod ec2;
#[path = "../../tests/support/http.rs"]
mod http;
#[path = "../../tests/support/moto.rs"]
mod moto;
#[path = "../../tests/support/real.rs"]
mod real;
#[path = "../../tests/support/samba.rs"]
mod samba;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use domain::{Daemon, PATIENCE, ldap_table, marked, shows};
use ec2::Ec2;
use real::wait_until;
use samba::{COMPUTERS, DOMAIN, Samba};
use serde_json::{Value, json};

#[test]
fn what_a_machine_is_started_with_joins_it_exactly_once() {
    let Some(samba) = Samba::shared() else { return };
    let Some(ec2) = Ec2::start() else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let secret = folder.path().join("aws.secret");
    std::fs::write(&secret, "e2e-secret").expect("a file");
    let private = std::process::Command::new("chmod").arg("600").arg(&secret).status();
    assert!(private.is_ok_and(|status| status.success()));
    let aws = format!(
        "[provider.ec2]\nkind = \"aws\"\nregion = \"us-east-1\"\nendpoint_url = \"{}\"\nvisibility_lag = \"1s\"\n\
         poll_busy = \"500ms\"\npoll_idle = \"2s\"\n\
         credentials = {{ access_key_id = \"AKIAE2E\", secret_access_key = {{ file = \"{}\" }} }}\n",
        ec2.moto.url(),
        secret.display()
    );
    let mut daemon = Daemon::new(folder.path(), &format!("{}{aws}", ldap_table(&samba, "computers", false)));
    daemon.start();
    daemon.want(201, "POST", "/v1/pools", &json!({ "name": "joined" }));
    let config = json!({
        "name": "ec2", "provider": "ec2", "minimum_available_sessions": 1, "max_servers": 1,
        "connection_address": "127.0.0.1", "connection_port": 9,
        "machine": { "ami": "ami-12c6146b", "instance_type": "t3.large", "subnet_id": ec2.subnet },
        "ad_directory": "computers", "ad_computer_ou_dn": COMPUTERS, "server_name_pattern": "moto-{random}",
        "startup_script": "<powershell>\nJoin '{server_hostname}' '{ad_join_credential}' '{domain}' @{{ }}\n</powershell>",
    });
    daemon.want(201, "POST", "/v1/pools/joined/configs", &config);
    let starting = || shows(&daemon.ask("GET", "/v1/pools/joined/servers", &Value::Null).json(), "starting");
    assert!(wait_until(|| starting().len() == 1, PATIENCE), "{}", daemon.log());
    let name = starting().remove(0);
    let live = ec2.live();
    assert_eq!((live.len(), marked(&daemon, &samba, "joined")), (1, vec![name.clone()]));

    let data = ec2.user_data(&live[0].id).expect("user data");
    let script = String::from_utf8(STANDARD.decode(data).expect("base64")).expect("a text");
    let words: Vec<&str> = script.split('\'').collect();
    assert_eq!((words[1], words[5]), (name.as_str(), DOMAIN), "{script}");
    assert!(script.ends_with(" @{ }\n</powershell>"), "{script}");
    let credential = words[3];
    assert!(!daemon.log().contains(credential), "the log tells the credential");
    samba.join_with_netlogon(&name, credential, "Machines-0wn-Passw0rd").expect("it joins");
    assert!(samba.join_with_netlogon(&name, credential, "An0ther-Passw0rd").is_err(), "it joins twice");
    assert!(!samba.kerberos_knows(&name, credential));

    daemon.want(200, "POST", "/v1/pools/joined/configs/ec2/disable", &Value::Null);
    let empty = || daemon.ask("GET", "/v1/pools/joined/servers", &Value::Null).json()["servers"] == json!([]);
    assert!(wait_until(empty, PATIENCE), "{}", daemon.log());
    assert_eq!((ec2.live().len(), marked(&daemon, &samba, "joined").len()), (0, 0));
}
