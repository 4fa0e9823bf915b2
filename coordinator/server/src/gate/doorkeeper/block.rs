//! Addresses that count as one.

use std::net::{IpAddr, SocketAddr};

/// An IPv4 address, or the /64 that one customer is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Block(u64);

impl Block {
    pub(crate) fn of(address: SocketAddr) -> Self {
        match address.ip().to_canonical() {
            // 2^32 and above as IPv6 prefixes are in no use: ::/32 is reserved.
            IpAddr::V4(v4) => Self(u64::from(v4.to_bits())),
            IpAddr::V6(v6) => Self((v6.to_bits() >> 64) as u64),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_customer_of_ipv6_counts_as_one() {
        let of = |text: &str| Block::of(text.parse().unwrap());
        assert_eq!(of("[2001:db8:1:2::1]:1"), of("[2001:db8:1:2:ffff::9]:2"));
        assert_ne!(of("[2001:db8:1:2::1]:1"), of("[2001:db8:1:3::1]:1"));
        assert_eq!(of("[::ffff:10.0.0.1]:1"), of("10.0.0.1:1"));
    }
}
