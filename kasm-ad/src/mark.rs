//! The mark that makes a computer object ours, and what a [`ComputerRef`] is made of.

use kasm_autoscale_core::id::{DeploymentId, PoolId, ServerKey};
use kasm_autoscale_core::ports::{ComputerRef, Marker};

use crate::filter::Filter;

/// Where the mark stands. `adminDescription` is on every class (`top`), has room for 1024 characters, can be searched for, is in
/// no property set, so that a machine cannot change its own, and is what nobody's tools and hardly anybody's hands write.
pub(crate) const ATTRIBUTE: &str = "adminDescription";

const PREFIX: &str = "kasm-autoscale v1";

/// The mark as it is written: the installation first, then pool, server and config, so that a beginning of it finds all
/// objects of an installation, a pool or a server.
pub(crate) fn written(marker: &Marker) -> String {
    let Marker { deployment, pool, config, server } = marker;
    format!("{PREFIX} deployment={deployment} pool={pool} server={server} config={config}")
}

/// The mark that a text is; `None` if it is none.
pub(crate) fn read(text: &str) -> Option<Marker> {
    let rest = text.strip_prefix(PREFIX)?.strip_prefix(" deployment=")?;
    let (deployment, rest) = rest.split_once(" pool=")?;
    let (pool, rest) = rest.split_once(" server=")?;
    let (server, config) = rest.split_once(" config=")?;
    let pool = pool.parse().ok()?;
    ServerKey::from_uuid(pool, server)?;
    Some(Marker { deployment: deployment.parse().ok()?, pool, config: config.parse().ok()?, server: server.to_owned() })
}

/// The objects of a pool.
pub(crate) fn of_pool(deployment: DeploymentId, pool: PoolId) -> Filter {
    computers(format!("{PREFIX} deployment={deployment} pool={pool} "))
}

/// The object of a server.
pub(crate) fn of_server(deployment: DeploymentId, server: &ServerKey) -> Filter {
    computers(format!("{PREFIX} deployment={deployment} pool={} server={} ", server.pool, server.uuid()))
}

/// An object by which rights are proved. It is nobody's server, so no pool finds it.
pub(crate) fn of_probe(deployment: DeploymentId) -> String {
    format!("{PREFIX} deployment={deployment} probe")
}

fn computers(beginning: String) -> Filter {
    // The account type is indexed, the mark is not.
    Filter::And(vec![Filter::equals("sAMAccountType", "805306369"), Filter::starts_with(ATTRIBUTE, beginning)])
}

/// What a [`ComputerRef`] holds: the object's GUID, in the textual form. It is the same for as long as the object is there, whatever
/// becomes of it, so that equal references are the same object.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) struct Reference(pub(crate) String);

impl Reference {
    pub(crate) fn written(&self) -> ComputerRef {
        ComputerRef(self.0.clone())
    }

    pub(crate) fn read(reference: &ComputerRef) -> Option<Self> {
        // A GUID goes into a name that is sent, so it must be one.
        let guid = reference.0.parse::<DeploymentId>().ok()?;
        Some(Self(guid.to_string()))
    }

    /// The name under which the object is found wherever it is moved to (MS-ADTS 3.1.1.3.1.2.4).
    pub(crate) fn dn(&self) -> String {
        format!("<GUID={}>", self.0)
    }
}

/// A GUID as a directory stores it, in its textual form: the first three groups are little-endian (MS-DTYP 2.3.4.2).
pub(crate) fn guid(bytes: &[u8]) -> Option<String> {
    let mut bytes: [u8; 16] = bytes.try_into().ok()?;
    bytes[..4].reverse();
    bytes[4..6].reverse();
    bytes[6..8].reverse();
    Some(DeploymentId::from_bytes(bytes).to_string())
}

#[cfg(test)]
#[path = "mark_tests.rs"]
mod tests;
