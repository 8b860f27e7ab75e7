//! Which addresses a probe may be sent to.
//!
//! An address comes from a provider's listing, a check-in or a config. None of those may make this host connect to
//! places that only it can reach, such as the metadata service of the cloud it runs in.

use std::net::{IpAddr, Ipv6Addr};

/// Which addresses a probe may be sent to, besides those that no probe may.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum AddressGuard {
    /// Every address a machine can have. Link-local (169.254.0.0/16, fe80::/10), metadata (fd00:ec2::254), unspecified,
    /// multicast and broadcast ones are none.
    #[default]
    Any,
    /// Only 127.0.0.0/8 and ::1, for tests and demos. Of names only `localhost`, because to look up another one would
    /// already send a packet to a name server.
    LoopbackOnly,
}

/// The metadata service of AWS over IPv6.
const METADATA_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x0ec2, 0, 0, 0, 0, 0, 0x0254);

impl AddressGuard {
    /// Why this address must not be probed; `Ok` if it may be.
    pub fn check(self, address: IpAddr) -> Result<(), String> {
        // ::ffff:169.254.169.254 reaches what 169.254.169.254 reaches.
        let canonical = address.to_canonical();
        if let Some(what) = never(canonical) {
            return Err(format!("{address} is {what} and is never probed"));
        }
        if self == Self::LoopbackOnly && !canonical.is_loopback() {
            return Err(format!("{address} is not a loopback address, and only those may be probed here"));
        }
        Ok(())
    }

    /// Why this name must not even be looked up; `Ok` if it may be.
    pub(super) fn check_name(self, name: &str) -> Result<(), String> {
        if self == Self::LoopbackOnly && !name.eq_ignore_ascii_case("localhost") {
            return Err(format!("{name:?} is not looked up: only loopback addresses and localhost may be probed here"));
        }
        Ok(())
    }
}

/// What makes this address one that is never probed.
fn never(address: IpAddr) -> Option<&'static str> {
    match address {
        // Linux takes all of 0.0.0.0/8 for "this host" or refuses it; no machine has such an address.
        IpAddr::V4(v4) if v4.octets()[0] == 0 => Some("the unspecified address"),
        IpAddr::V4(v4) if v4.is_link_local() => Some("a link-local address"),
        IpAddr::V4(v4) if v4.is_broadcast() => Some("the broadcast address"),
        IpAddr::V6(v6) if v6.is_unicast_link_local() => Some("a link-local address"),
        IpAddr::V6(METADATA_V6) => Some("a metadata service"),
        _ if address.is_unspecified() => Some("the unspecified address"),
        _ if address.is_multicast() => Some("a multicast address"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(guard: AddressGuard, address: &str) -> bool {
        guard.check(address.parse().unwrap()).is_ok()
    }

    #[test]
    fn some_addresses_are_never_probed() {
        #[rustfmt::skip]
        let never = [
            "169.254.169.254", "169.254.0.1", "169.254.255.255", "::ffff:169.254.169.254", "fe80::1", "febf::1",
            "fd00:ec2::254", "0.0.0.0", "0.1.2.3", "::", "224.0.0.1", "239.255.255.255", "ff02::1", "255.255.255.255",
            "::ffff:0.0.0.0",
        ];
        for address in never {
            assert!(!allowed(AddressGuard::Any, address), "{address}");
            assert!(!allowed(AddressGuard::LoopbackOnly, address), "{address}");
        }
    }

    #[test]
    fn machines_are_probed() {
        let machines =
            ["10.0.0.5", "192.168.1.1", "100.64.0.1", "203.0.113.9", "169.253.1.1", "fd00:ec2::253", "2001:db8::1"];
        for address in machines {
            assert!(allowed(AddressGuard::Any, address), "{address}");
            assert!(!allowed(AddressGuard::LoopbackOnly, address), "{address}");
        }
    }

    #[test]
    fn loopback_is_probed() {
        for address in ["127.0.0.1", "127.255.1.2", "::1", "::ffff:127.0.0.1"] {
            assert!(allowed(AddressGuard::Any, address), "{address}");
            assert!(allowed(AddressGuard::LoopbackOnly, address), "{address}");
        }
    }

    #[test]
    fn the_refusal_says_why() {
        let told = AddressGuard::Any.check("169.254.169.254".parse().unwrap());
        assert_eq!(told, Err("169.254.169.254 is a link-local address and is never probed".into()));
        assert!(AddressGuard::LoopbackOnly.check_name("example.com").is_err());
        assert!(AddressGuard::LoopbackOnly.check_name("localhost").is_ok());
        assert!(AddressGuard::Any.check_name("example.com").is_ok());
    }
}
