//! Which addresses a receiver may have: the public internet's, unless its declaration allows private ones.
//!
//! The ranges are those of IANA's special-purpose address registries (RFC 6890 and its updates), read as a list of what
//! is allowed: an IPv6 address outside of global unicast is refused, known or not.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

/// Why an address is no public one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reserved(&'static str);

impl fmt::Display for Reserved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

/// Says what an address is kept for; `None` for an address of the public internet.
///
/// An IPv4 address within an IPv6 one counts as itself. A NAT64 prefix of one's own (RFC 6052, section 2.2) cannot be
/// told from any other network: only the well-known one is looked into.
#[must_use]
pub fn reserved(address: IpAddr) -> Option<Reserved> {
    match address {
        IpAddr::V4(address) => reserved_v4(address),
        IpAddr::V6(address) => reserved_v6(address),
    }
}

/// Prefix, its length in bits, and what it is.
const V4: &[(Ipv4Addr, u32, &str)] = &[
    (Ipv4Addr::new(169, 254, 169, 254), 32, "cloud metadata"),
    // Azure's host agent, within a public range.
    (Ipv4Addr::new(168, 63, 129, 16), 32, "cloud metadata"),
    // Alibaba and Oracle.
    (Ipv4Addr::new(100, 100, 100, 200), 32, "cloud metadata"),
    (Ipv4Addr::new(192, 0, 0, 192), 32, "cloud metadata"),
    (Ipv4Addr::new(0, 0, 0, 0), 8, "unspecified"),
    (Ipv4Addr::new(10, 0, 0, 0), 8, "private"),
    (Ipv4Addr::new(100, 64, 0, 0), 10, "shared by a provider's customers"),
    (Ipv4Addr::new(127, 0, 0, 0), 8, "loopback"),
    (Ipv4Addr::new(169, 254, 0, 0), 16, "link-local"),
    (Ipv4Addr::new(172, 16, 0, 0), 12, "private"),
    (Ipv4Addr::new(192, 0, 0, 0), 24, "kept for protocols"),
    (Ipv4Addr::new(192, 0, 2, 0), 24, "for documentation"),
    (Ipv4Addr::new(192, 88, 99, 0), 24, "a 6to4 relay"),
    (Ipv4Addr::new(192, 168, 0, 0), 16, "private"),
    (Ipv4Addr::new(198, 18, 0, 0), 15, "for benchmarks"),
    (Ipv4Addr::new(198, 51, 100, 0), 24, "for documentation"),
    (Ipv4Addr::new(203, 0, 113, 0), 24, "for documentation"),
    (Ipv4Addr::new(224, 0, 0, 0), 4, "multicast"),
    (Ipv4Addr::new(255, 255, 255, 255), 32, "broadcast"),
    (Ipv4Addr::new(240, 0, 0, 0), 4, "kept for the future"),
];

/// As for version 4; within and outside of global unicast.
const V6: &[(Ipv6Addr, u32, &str)] = &[
    (Ipv6Addr::UNSPECIFIED, 128, "unspecified"),
    (Ipv6Addr::LOCALHOST, 128, "loopback"),
    // Amazon and Google.
    (Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254), 128, "cloud metadata"),
    (Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254), 128, "cloud metadata"),
    (Ipv6Addr::new(0xfc00, 0, 0, 0, 0, 0, 0, 0), 7, "private"),
    (Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0), 10, "link-local"),
    (Ipv6Addr::new(0xfec0, 0, 0, 0, 0, 0, 0, 0), 10, "site-local"),
    (Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0), 8, "multicast"),
    // Teredo, benchmarks, ORCHID and others.
    (Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, 0, 0), 23, "kept for protocols"),
    (Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0), 32, "for documentation"),
    (Ipv6Addr::new(0x2002, 0, 0, 0, 0, 0, 0, 0), 16, "6to4"),
    (Ipv6Addr::new(0x3fff, 0, 0, 0, 0, 0, 0, 0), 20, "for documentation"),
];

fn reserved_v4(address: Ipv4Addr) -> Option<Reserved> {
    let within = |prefix: Ipv4Addr, bits: u32| (u32::from(address) ^ u32::from(prefix)).leading_zeros() >= bits;
    V4.iter().find(|(prefix, bits, _)| within(*prefix, *bits)).map(|(_, _, what)| Reserved(what))
}

fn reserved_v6(address: Ipv6Addr) -> Option<Reserved> {
    let within = |prefix: Ipv6Addr, bits: u32| (u128::from(address) ^ u128::from(prefix)).leading_zeros() >= bits;
    if let Some((_, _, what)) = V6.iter().find(|(prefix, bits, _)| within(*prefix, *bits)) {
        return Some(Reserved(what));
    }
    let [a, b, c, d, e, f, g, h] = address.segments();
    let ([g1, g2], [h1, h2]) = (g.to_be_bytes(), h.to_be_bytes());
    let embedded = Ipv4Addr::new(g1, g2, h1, h2);
    match [a, b, c, d, e, f] {
        // Mapped (RFC 4291): the kernel speaks version 4 then. NAT64 (RFC 6052): a gateway does.
        [0, 0, 0, 0, 0, 0xffff] | [0x64, 0xff9b, 0, 0, 0, 0] => reserved_v4(embedded),
        [0, 0, 0, 0, 0, 0] => Some(Reserved("compatible with IPv4")),
        [0x64, 0xff9b, 1, ..] => Some(Reserved("a local translation to IPv4")),
        // ISATAP (RFC 5214): whatever the network, the last half holds an IPv4 address.
        [0x2000..=0x3fff, _, _, _, 0 | 0x200, 0x5efe] => reserved_v4(embedded),
        [0x2000..=0x3fff, ..] => None,
        _ => Some(Reserved("outside of global unicast")),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn public_addresses_pass() {
        for public in [
            "1.1.1.1",
            "8.8.8.8",
            "9.255.255.255",
            "11.0.0.0",
            "100.63.255.255",
            "100.128.0.0",
            "126.255.255.255",
            "128.0.0.0",
            "169.253.255.255",
            "169.255.0.0",
            "172.15.255.255",
            "172.32.0.0",
            "192.0.1.0",
            "192.167.255.255",
            "192.169.0.0",
            "198.17.255.255",
            "198.20.0.0",
            "223.255.255.255",
            "2606:4700:4700::1111",
            "2a00:1450:4001:80b::200e",
            "2001:200::1",
            "2001:db7:ffff::1",
            "2001:db9::",
            "2003::1",
            "64:ff9b::8.8.8.8",
            "::ffff:8.8.8.8",
            "2606:4700::5efe:808:808",
        ] {
            assert_eq!(reserved(public.parse().unwrap()), None, "{public}");
        }
    }

    #[test]
    fn reserved_addresses_are_named() {
        for (address, what) in [
            ("0.0.0.0", "unspecified"),
            ("0.255.255.255", "unspecified"),
            ("10.0.0.0", "private"),
            ("10.255.255.255", "private"),
            ("100.64.0.0", "shared by a provider's customers"),
            ("100.127.255.255", "shared by a provider's customers"),
            ("100.100.100.200", "cloud metadata"),
            ("127.0.0.1", "loopback"),
            ("127.255.255.255", "loopback"),
            ("168.63.129.16", "cloud metadata"),
            ("169.254.0.1", "link-local"),
            ("169.254.169.254", "cloud metadata"),
            ("172.16.0.1", "private"),
            ("172.31.255.255", "private"),
            ("192.0.0.1", "kept for protocols"),
            ("192.0.0.192", "cloud metadata"),
            ("192.0.2.1", "for documentation"),
            ("192.88.99.1", "a 6to4 relay"),
            ("192.168.1.1", "private"),
            ("198.18.0.1", "for benchmarks"),
            ("198.19.255.255", "for benchmarks"),
            ("198.51.100.1", "for documentation"),
            ("203.0.113.1", "for documentation"),
            ("224.0.0.1", "multicast"),
            ("239.255.255.255", "multicast"),
            ("240.0.0.1", "kept for the future"),
            ("255.255.255.255", "broadcast"),
            ("::", "unspecified"),
            ("::1", "loopback"),
            ("::2", "compatible with IPv4"),
            ("::8.8.8.8", "compatible with IPv4"),
            ("::127.0.0.1", "compatible with IPv4"),
            ("::ffff:127.0.0.1", "loopback"),
            ("::ffff:169.254.169.254", "cloud metadata"),
            ("::ffff:0:10.0.0.1", "outside of global unicast"),
            ("64:ff9b::10.0.0.1", "private"),
            ("64:ff9b::127.0.0.1", "loopback"),
            ("64:ff9b:1::10.0.0.1", "a local translation to IPv4"),
            ("64:ff9b:0:1::8.8.8.8", "outside of global unicast"),
            ("100::1", "outside of global unicast"),
            ("2001::1", "kept for protocols"),
            ("2001:0:4136:e378:8000:63bf:3fff:fdd2", "kept for protocols"),
            ("2001:2::1", "kept for protocols"),
            ("2001:20::1", "kept for protocols"),
            ("2001:1ff:ffff::", "kept for protocols"),
            ("2001:db8::1", "for documentation"),
            ("2002:a00:1::1", "6to4"),
            ("2002:808:808::1", "6to4"),
            ("2606:4700::5efe:10.0.0.1", "private"),
            ("2606:4700::200:5efe:127.0.0.1", "loopback"),
            ("3fff::1", "for documentation"),
            ("4000::1", "outside of global unicast"),
            ("5f00::1", "outside of global unicast"),
            ("fc00::1", "private"),
            ("fd00:ec2::254", "cloud metadata"),
            ("fd20:ce::254", "cloud metadata"),
            ("fdff:ffff::1", "private"),
            ("fe80::1", "link-local"),
            ("febf::1", "link-local"),
            ("fec0::1", "site-local"),
            ("ff02::1", "multicast"),
        ] {
            assert_eq!(reserved(address.parse().unwrap()), Some(Reserved(what)), "{address}");
        }
    }

    /// Every way of writing an IPv4 address into an IPv6 one that a kernel or a gateway undoes.
    fn embedded(v4: Ipv4Addr, form: usize, network: u64) -> Ipv6Addr {
        let low = u128::from(u32::from(v4));
        let network = u128::from(network);
        Ipv6Addr::from(match form {
            0 => low,
            1 => 0xffff << 32 | low,
            2 => 0xffff << 48 | low,
            3 => 0x0064_ff9b << 96 | low,
            4 => 0x0064_ff9b_0001 << 80 | low,
            5 => 0x2002 << 112 | low << 80 | network,
            // Teredo: the client's address inverted, at the end.
            6 => 0x2001_0000 << 96 | (network & 0xffff_ffff) << 32 | (!low & 0xffff_ffff),
            7 => network << 64 | 0x0000_5efe << 32 | low,
            _ => network << 64 | 0x0200_5efe << 32 | low,
        })
    }

    fn reserved_v4_address() -> impl Strategy<Value = Ipv4Addr> {
        (0..V4.len(), any::<u32>()).prop_map(|(range, low)| {
            let (prefix, bits, _) = V4[range];
            Ipv4Addr::from(u32::from(prefix) | low.checked_shr(bits).unwrap_or(0))
        })
    }

    proptest! {
        #[test]
        fn no_reserved_v4_address_passes_in_any_v6_form(v4 in reserved_v4_address(), form in 0usize..9, network: u64) {
            prop_assert!(reserved(v4.into()).is_some());
            let v6 = embedded(v4, form, network);
            prop_assert!(reserved(v6.into()).is_some(), "{v6}");
        }

        #[test]
        fn std_agrees_on_what_it_knows(v4: u32, v6: u128) {
            let v4 = Ipv4Addr::from(v4);
            let local = v4.is_private() || v4.is_loopback() || v4.is_link_local() || v4.is_multicast()
                || v4.is_broadcast() || v4.is_documentation() || v4.is_unspecified();
            prop_assert!(!local || reserved(v4.into()).is_some(), "{v4}");
            let v6 = Ipv6Addr::from(v6);
            let local = v6.is_unique_local() || v6.is_unicast_link_local() || v6.is_multicast() || v6.is_loopback();
            prop_assert!(!local || reserved(v6.into()).is_some(), "{v6}");
        }
    }
}
