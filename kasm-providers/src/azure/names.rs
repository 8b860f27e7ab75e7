//! Names: every one follows from the server, so that a clean-up needs no memory of what was made.
//!
//! A virtual machine is called `kasm-` and the server's uuid; its parts add the config and what they are, as in
//! `kasm-UUID-cfg-3-nic`. A network interface that is made with its machine may get a tail of Azure's own, so parts are known
//! by how their names begin. Azure keeps names without regard to case and gives them back in another one.
//!
//! Limits: Azure Resource Manager, "Naming rules and restrictions": 64 characters for a virtual machine, 80 for the others.

use std::fmt;

use kasm_autoscale_core::id::{ConfigId, PoolId, ServerKey};
use kasm_autoscale_core::ports::MachineRef;

/// How the name of everything of ours begins.
const PREFIX: &str = "kasm-";

/// The length of a uuid as text.
const UUID: usize = 36;

/// The name of a virtual machine of ours.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct VmName(String);

/// What a part of a machine is.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum PartKind {
    Nic,
    PublicIp,
    Disk,
}

impl VmName {
    /// The machine of a server.
    pub(super) fn of(server: &ServerKey) -> Self {
        Self(format!("{PREFIX}{}", server.uuid()))
    }

    /// Reads a name in whatever case; `None`: it is not one of ours.
    pub(super) fn read(name: &str) -> Option<Self> {
        let name = name.to_ascii_lowercase();
        let uuid = name.strip_prefix(PREFIX)?;
        let dash = |index| matches!(index, 8 | 13 | 18 | 23);
        let fits = |(index, byte): (usize, u8)| if dash(index) { byte == b'-' } else { byte.is_ascii_hexdigit() };
        (uuid.len() == UUID && uuid.bytes().enumerate().all(fits)).then_some(Self(name))
    }

    /// The machine that a part of this name belongs to, and the config it was made for.
    pub(super) fn of_part(name: &str) -> Option<(Self, ConfigId)> {
        let name = name.to_ascii_lowercase();
        let vm = Self::read(name.get(..PREFIX.len() + UUID)?)?;
        let rest = name.strip_prefix(vm.as_str())?.strip_prefix('-')?;
        // `cfg-3-nic...`
        let (end, _) = rest.match_indices('-').nth(1)?;
        Some((vm, rest.get(..end)?.parse().ok()?))
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    /// The uuid of the server.
    pub(super) fn uuid(&self) -> &str {
        self.0.get(PREFIX.len()..).unwrap_or_default()
    }

    /// Whether the server is one of this pool's.
    pub(super) fn is_of(&self, pool: PoolId) -> bool {
        ServerKey::from_uuid(pool, self.uuid()).is_some()
    }

    pub(super) fn reference(&self) -> MachineRef {
        MachineRef(self.0.clone())
    }

    /// The name of a part, as in `nic`.
    pub(super) fn part(&self, config: ConfigId, what: &str) -> String {
        format!("{}-{config}-{what}", self.0)
    }
}

impl fmt::Display for VmName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The last part of a resource's id.
pub(super) fn name_in(id: &str) -> &str {
    id.rsplit('/').next().unwrap_or_default()
}

/// An id as it is compared.
pub(super) fn folded(id: &str) -> String {
    id.to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use kasm_autoscale_core::id::ServerId;

    use super::*;

    #[test]
    fn names_are_read_back_in_any_case_with_any_tail() {
        let server = ServerKey { pool: PoolId::from_bytes([1; 16]), server: ServerId::new(77) };
        let vm = VmName::of(&server);
        assert!(vm.is_of(server.pool) && !vm.is_of(PoolId::from_bytes([2; 16])));
        assert_eq!(VmName::read(&vm.as_str().to_uppercase()), Some(vm.clone()));
        let config = ConfigId::new(u32::MAX);
        let nic = vm.part(config, "nic");
        assert!(nic.len() + 16 <= 80 && vm.as_str().len() <= 64, "{nic}");
        for name in [nic.clone(), nic.to_uppercase(), format!("{nic}-0a1b2c3d")] {
            assert_eq!(VmName::of_part(&name), Some((vm.clone(), config)), "{name}");
        }
        for name in [vm.as_str(), "kasm-1", "", "kasm-gggggggg-0000-0000-0000-000000000000", &format!("{vm}-x-nic")] {
            assert_eq!(VmName::of_part(name), None, "{name}");
        }
        assert_eq!(VmName::read(&nic), None);
    }

    #[test]
    fn ids_end_in_names() {
        assert_eq!(name_in("/subscriptions/s/resourceGroups/g/providers/Microsoft.Compute/disks/d-1"), "d-1");
        assert_eq!(name_in(""), "");
    }
}
