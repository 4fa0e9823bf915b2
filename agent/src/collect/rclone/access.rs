//! Where rclone's remote control is, and how to be let in. Pure.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::PathBuf,
};

use base64::{Engine as _, prelude::BASE64_STANDARD};

use crate::probe::Owner;

/// Where rclone listens when it is not told (`--rc-addr`).
const DEFAULT_ADDRESS: &str = "localhost:5572";

/// An address of a remote control.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Address {
    /// TCP: addresses to try in this order.
    Ip(Vec<IpAddr>, u16),
    /// TCP to a name that must be looked up.
    Name(String, u16),
    /// A unix socket.
    Unix(PathBuf),
}

impl Address {
    /// Reads `host:port`, `:port`, `unix:///path` or `/path`. A server that listens everywhere is met on loopback.
    pub(super) fn parse(text: &str) -> Option<Self> {
        if let Some(path) = text.strip_prefix("unix://").or_else(|| text.starts_with('/').then_some(text)) {
            return Some(Self::Unix(path.into()));
        }
        let text = text.strip_prefix("http://").unwrap_or(text).trim_end_matches('/');
        let (host, port) = text.rsplit_once(':')?;
        let port = port.parse().ok().filter(|port| *port != 0)?;
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let (v4, v6) = (IpAddr::from(Ipv4Addr::LOCALHOST), IpAddr::from(Ipv6Addr::LOCALHOST));
        match (host, host.parse::<IpAddr>()) {
            ("" | "localhost", _) => Some(Self::Ip(vec![v4, v6], port)),
            (_, Ok(ip)) if ip.is_unspecified() => Some(Self::Ip(vec![if ip.is_ipv4() { v4 } else { v6 }], port)),
            (_, Ok(ip)) => Some(Self::Ip(vec![ip], port)),
            (name, Err(_)) => Some(Self::Name(name.to_owned(), port)),
        }
    }

    fn is_tcp(&self) -> bool {
        !matches!(self, Self::Unix(_))
    }
}

/// How to talk to a remote control.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Access {
    pub(super) address: Address,
    /// What stands before every path; empty or `/something`.
    pub(super) base: String,
    /// The value of the Authorization header.
    pub(super) authorization: Option<String>,
    /// It was read from a process's arguments, which may name any address: only one of this machine is believed.
    pub(super) must_be_local: bool,
}

impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The password stays out of every log.
        f.debug_struct("Access").field("address", &self.address).field("base", &self.base).finish_non_exhaustive()
    }
}

/// What the flags of a process say of its remote control.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Control {
    /// It has none.
    None,
    /// It has one that this agent cannot use, and why.
    Unusable(&'static str),
    /// Here.
    At(Access),
}

/// Reads the flags of the process behind a mount.
pub(super) fn of_process(owner: &Owner) -> Control {
    if !is_on(owner, "rc") {
        return Control::None;
    }
    if owner.flag("rc-cert").is_some_and(|file| !file.is_empty()) {
        return Control::Unusable("its remote control speaks TLS, which the agent does not");
    }
    let Some(address) = Address::parse(owner.flag("rc-addr").unwrap_or(DEFAULT_ADDRESS)) else {
        return Control::Unusable("the address of its remote control is not fixed");
    };
    let base = owner.flag("rc-baseurl").unwrap_or_default().trim_matches('/');
    let base = if base.is_empty() { String::new() } else { format!("/{base}") };
    let user = owner.flag("rc-user").filter(|user| !user.is_empty());
    let authorization = user.map(|user| basic(user, owner.flag("rc-pass").unwrap_or_default()));
    Control::At(Access { address, base, authorization, must_be_local: true })
}

/// True where its remote control runs commands for anyone who reaches its port.
pub(in crate::collect) fn is_open(owner: &Owner) -> bool {
    let guarded = ["rc-user", "rc-htpasswd"].iter().any(|flag| owner.flag(flag).is_some_and(|value| !value.is_empty()));
    let address = Address::parse(owner.flag("rc-addr").unwrap_or(DEFAULT_ADDRESS));
    // A port that is not fixed is open all the same.
    is_on(owner, "rc") && is_on(owner, "rc-no-auth") && !guarded && address.is_none_or(|address| address.is_tcp())
}

/// The value of an Authorization header (RFC 7617).
pub(super) fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", BASE64_STANDARD.encode(format!("{user}:{password}")))
}

/// As Go reads booleans.
fn is_on(owner: &Owner, flag: &str) -> bool {
    matches!(owner.flag(flag), Some("true" | "TRUE" | "True" | "1" | "t" | "T"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_all_kinds() {
        let loopback = IpAddr::from(Ipv4Addr::LOCALHOST);
        let six = IpAddr::from(Ipv6Addr::LOCALHOST);
        for (text, address) in [
            ("localhost:5572", Some(Address::Ip(vec![loopback, six], 5_572))),
            (":5572", Some(Address::Ip(vec![loopback, six], 5_572))),
            ("0.0.0.0:80", Some(Address::Ip(vec![loopback], 80))),
            ("[::]:80", Some(Address::Ip(vec![six], 80))),
            ("http://10.1.2.3:80/", Some(Address::Ip(vec![[10, 1, 2, 3].into()], 80))),
            ("nas:80", Some(Address::Name("nas".into(), 80))),
            ("unix:///run/rc.sock", Some(Address::Unix("/run/rc.sock".into()))),
            ("/run/rc.sock", Some(Address::Unix("/run/rc.sock".into()))),
            ("127.0.0.1:0", None),
            ("nonsense", None),
        ] {
            assert_eq!(Address::parse(text), address, "{text}");
        }
    }

    #[test]
    fn flags_tell_where_and_how() {
        let Control::At(access) = of_process(&owner(&["rc=true", "rc-user=me", "rc-pass=word", "rc-baseurl=/x/"]))
        else {
            panic!("it has one");
        };
        assert_eq!((access.base.as_str(), access.authorization.as_deref()), ("/x", Some("Basic bWU6d29yZA==")));
        assert!(access.must_be_local && !format!("{access:?}").contains("bWU6"));
        assert_eq!(of_process(&owner(&["rc-addr=:1"])), Control::None);
        assert_eq!(of_process(&owner(&["rc=false"])), Control::None);
        for unusable in [&["rc=1", "rc-cert=/c.pem"][..], &["rc=true", "rc-addr=:0"]] {
            assert!(matches!(of_process(&owner(unusable)), Control::Unusable(_)));
        }
    }

    #[test]
    fn a_tcp_port_without_auth_is_open() {
        assert!(is_open(&owner(&["rc=true", "rc-no-auth=true"])));
        assert!(is_open(&owner(&["rc=true", "rc-no-auth=true", "rc-addr=:0"])));
        for guarded in [
            &["rc=true", "rc-no-auth=true", "rc-addr=unix:///run/rc"][..],
            &["rc=true", "rc-no-auth=true", "rc-user=me"],
            &["rc=true", "rc-no-auth=true", "rc-htpasswd=/f"],
            &["rc=true"],
            &["rc-no-auth=true"],
        ] {
            assert!(!is_open(&owner(guarded)), "{guarded:?}");
        }
    }

    fn owner(flags: &[&str]) -> Owner {
        Owner { flags: flags.iter().map(|flag| (*flag).to_owned()).collect(), ..Owner::default() }
    }
}
