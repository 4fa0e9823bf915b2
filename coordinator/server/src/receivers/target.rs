//! A receiver's URL: checked when it is declared, and shown without its secrets.

use std::{cell::Cell, fmt, net::IpAddr};

use http::{HeaderValue, uri::PathAndQuery};
use rustls_pki_types::ServerName;
use url::{Host, ParseError, SyntaxViolation, Url};

use super::address::{Reserved, reserved};

/// The longest URL, in bytes: some chats sign theirs, and then they have a few hundred.
pub const URL_MAX_BYTES: usize = 4096;

/// Why a URL is none for a receiver. No text repeats anything of the URL but its address: path and query are secrets.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidUrl {
    /// Longer than [`URL_MAX_BYTES`].
    #[error("the URL is longer than {URL_MAX_BYTES} bytes")]
    TooLong,
    /// It cannot be read.
    #[error("the URL cannot be read ({0}): write it whole, as https://chat.example/hook")]
    Unreadable(#[from] ParseError),
    /// A browser would guess what is meant.
    #[error("the URL has a mistake ({0}): write it whole, as https://chat.example/hook, with no blanks")]
    Mistake(&'static str),
    /// Neither https nor http.
    #[error("the URL's scheme is neither https nor http")]
    Scheme,
    /// http without leave.
    #[error(
        "http shows the messages and the URL's secret to everyone on the way: use https, or set allow_private_address = true for a receiver within your own network"
    )]
    PlainHttp,
    /// `user:password@`.
    #[error("the URL has a user or password: a receiver's secret stands in its path or query")]
    Userinfo,
    /// `#…`.
    #[error("the URL has a fragment (#), which is never sent: remove it, or write # as %23")]
    Fragment,
    /// Port 0.
    #[error("the URL's port is 0")]
    Port,
    /// `chat.example.`
    #[error("the host's name ends with a dot: no certificate has such a name, so write it without")]
    TrailingDot,
    /// No name that a certificate could have.
    #[error("the URL's host is no DNS name")]
    Host,
    /// No path that a request can have.
    #[error("the URL's path or query has characters that must be percent-encoded")]
    Path,
    /// An address that is no public one.
    #[error("{0} is no public address ({1}): a receiver there needs allow_private_address = true")]
    Reserved(IpAddr, Reserved),
}

/// Where a request goes. Shows scheme, host and port only.
#[derive(Clone, PartialEq, Eq)]
pub struct Target {
    place: Place,
    pub(super) host: TargetHost,
    pub(super) port: u16,
    /// The header `Host`.
    pub(super) authority: HeaderValue,
    pub(super) path_and_query: PathAndQuery,
    /// What the server's certificate must name; `None` for plain http.
    pub(super) tls: Option<ServerName<'static>>,
    pub(super) allow_private_address: bool,
    base: Url,
}

/// Who has the address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum TargetHost {
    /// DNS, each time.
    Name(String),
    /// The URL itself.
    Address(IpAddr),
}

impl Target {
    /// Checks a URL. Pure: names are looked up, and checked, whenever something is sent.
    ///
    /// # Errors
    /// [`InvalidUrl`] for everything that could not work, and for what a browser would repair.
    pub fn parse(url: &str, allow_private_address: bool) -> Result<Self, InvalidUrl> {
        if url.len() > URL_MAX_BYTES {
            return Err(InvalidUrl::TooLong);
        }
        let url = parse_strictly(url)?;
        let secure = match url.scheme() {
            "https" => true,
            "http" if allow_private_address => false,
            "http" => return Err(InvalidUrl::PlainHttp),
            _ => return Err(InvalidUrl::Scheme),
        };
        if !url.username().is_empty() || url.password().is_some() {
            return Err(InvalidUrl::Userinfo);
        }
        if url.fragment().is_some() {
            return Err(InvalidUrl::Fragment);
        }
        let port = url.port_or_known_default().filter(|port| *port != 0).ok_or(InvalidUrl::Port)?;
        let (host, name) = match url.host().ok_or(InvalidUrl::Host)? {
            Host::Domain(name) if name.ends_with('.') => return Err(InvalidUrl::TrailingDot),
            Host::Domain(name) => {
                let server = ServerName::try_from(name.to_owned()).map_err(|_| InvalidUrl::Host)?;
                (TargetHost::Name(name.to_owned()), server)
            }
            Host::Ipv4(address) => literal(address.into(), allow_private_address)?,
            Host::Ipv6(address) => literal(address.into(), allow_private_address)?,
        };
        let place = Place::of(&url).ok_or(InvalidUrl::Host)?;
        let authority = HeaderValue::try_from(place.authority.as_str()).map_err(|_| InvalidUrl::Host)?;
        let request_target = &url[url::Position::BeforePath..url::Position::AfterQuery];
        let path_and_query = PathAndQuery::try_from(request_target).map_err(|_| InvalidUrl::Path)?;
        let tls = secure.then_some(name);
        Ok(Self { place, host, port, authority, path_and_query, tls, allow_private_address, base: url })
    }

    /// Where a `Location` points, as scheme, host and port; `None` where that is no web address.
    pub(super) fn place_of(&self, location: &str) -> Option<Place> {
        Place::of(&self.base.join(location).ok()?)
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.place.fmt(f)
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Target({})", self.place)
    }
}

/// Scheme, host and port: all that is ever shown of a URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    scheme: &'static str,
    /// ASCII: the parser refuses or encodes everything else.
    authority: String,
}

impl Place {
    fn of(url: &Url) -> Option<Self> {
        let scheme = match url.scheme() {
            "https" => "https",
            "http" => "http",
            _ => return None,
        };
        let host = url.host_str()?;
        let authority = url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
        Some(Self { scheme, authority })
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme, self.authority)
    }
}

/// Reads a URL as browsers do (decimal, octal and hexadecimal IPv4 addresses become what they are, names become
/// punycode), but repairs nothing: what is ambiguous in a declaration is asked back.
fn parse_strictly(text: &str) -> Result<Url, InvalidUrl> {
    let mistake = Cell::new(None);
    let note = |violation: SyntaxViolation| mistake.set(mistake.get().or(Some(violation)));
    let url = Url::options().syntax_violation_callback(Some(&note)).parse(text)?;
    match mistake.get() {
        Some(SyntaxViolation::EmbeddedCredentials | SyntaxViolation::UnencodedAtSign) => Err(InvalidUrl::Userinfo),
        Some(mistake) => Err(InvalidUrl::Mistake(mistake.description())),
        None => Ok(url),
    }
}

fn literal(address: IpAddr, allowed: bool) -> Result<(TargetHost, ServerName<'static>), InvalidUrl> {
    match reserved(address) {
        Some(what) if !allowed => Err(InvalidUrl::Reserved(address, what)),
        _ => Ok((TargetHost::Address(address), ServerName::from(address))),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn good_urls_show_their_place_only() {
        for (url, place, sent) in [
            ("https://chat.example/hook?token=s3cret", "https://chat.example", "/hook?token=s3cret"),
            ("https://chat.example", "https://chat.example", "/"),
            ("https://chat.example?token=s3cret", "https://chat.example", "/?token=s3cret"),
            ("https://chat.example:443/a", "https://chat.example", "/a"),
            ("https://chat.example:8443/a%20b/", "https://chat.example:8443", "/a%20b/"),
            ("https://CHAT.Example/A", "https://chat.example", "/A"),
            ("https://bücher.example/ü", "https://xn--bcher-kva.example", "/%C3%BC"),
            ("https://8.8.8.8/x", "https://8.8.8.8", "/x"),
            ("https://[2606:4700::1111]:1/x", "https://[2606:4700::1111]:1", "/x"),
            ("https://my_hook.example/x", "https://my_hook.example", "/x"),
        ] {
            let target = Target::parse(url, false).unwrap_or_else(|error| panic!("{url}: {error}"));
            assert_eq!(target.to_string(), place);
            assert_eq!(target.path_and_query.as_str(), sent);
            assert!(!format!("{target:?}").contains("s3cret"));
        }
    }

    #[test]
    fn what_cannot_work_is_refused() {
        use InvalidUrl as I;
        let long = format!("https://chat.example/{}", "x".repeat(URL_MAX_BYTES));
        for (url, why) in [
            ("", I::Unreadable(ParseError::RelativeUrlWithoutBase)),
            ("chat.example/hook", I::Unreadable(ParseError::RelativeUrlWithoutBase)),
            ("https://", I::Unreadable(ParseError::EmptyHost)),
            ("https://chat.example:99999/", I::Unreadable(ParseError::InvalidPort)),
            ("https://[::1", I::Unreadable(ParseError::InvalidIpv6Address)),
            ("https://[fe80::1%25eth0]/", I::Unreadable(ParseError::InvalidIpv6Address)),
            ("https://1.2.3.4.5/", I::Unreadable(ParseError::InvalidIpv4Address)),
            ("https://a b/", I::Unreadable(ParseError::IdnaError)),
            ("ftp://chat.example/", I::Scheme),
            ("file:///etc/passwd", I::Scheme),
            ("unix:/run/docker.sock", I::Scheme),
            ("https://me:pw@chat.example/", I::Userinfo),
            ("https://chat.example@10.0.0.1/", I::Userinfo),
            ("https://a@b@chat.example/", I::Userinfo),
            ("https://chat.example/hook#part", I::Fragment),
            ("https://chat.example/hook#", I::Fragment),
            ("https://chat.example:0/", I::Port),
            ("https://chat.example./", I::TrailingDot),
            ("https://localhost./", I::TrailingDot),
            ("https://a..b/", I::Host),
            (&format!("https://{}.example/", "a".repeat(64)), I::Host),
            ("http://chat.example/hook", I::PlainHttp),
            ("HTTP://chat.example/hook", I::PlainHttp),
            (&long, I::TooLong),
        ] {
            assert_eq!(Target::parse(url, false), Err(why), "{url}");
        }
    }

    #[test]
    fn what_a_browser_would_repair_is_asked_back() {
        for url in [
            " https://chat.example/",
            "https://chat.example/\n",
            "https://chat.ex\tample/",
            "https://chat.example/a b",
            "https:\\\\chat.example\\hook",
            "https:chat.example/hook",
            "https:///chat.example/hook",
            "https://chat.example/50%",
            "https://chat.example/\u{0}",
        ] {
            assert!(matches!(Target::parse(url, false), Err(InvalidUrl::Mistake(_))), "{url:?}");
        }
    }

    #[test]
    fn private_addresses_need_leave_however_they_are_written() {
        for url in [
            "https://127.0.0.1/",
            "https://127.1/",
            "https://2130706433/",
            "https://0x7f000001/",
            "https://0X7F.1/",
            "https://017700000001/",
            "https://0177.0.0.01/",
            "https://127.0.0.1./",
            "https://%31%32%37.0.0.1/",
            "https://１２７.０.０.１/",
            "https://127。0。0。1/",
            "https://0/",
            "https://10.0.0.1:8443/x",
            "https://169.254.169.254/latest/meta-data",
            "https://[::1]/",
            "https://[::ffff:127.0.0.1]/",
            "https://[::ffff:7f00:1]/",
            "https://[64:ff9b::7f00:1]/",
            "https://[2002:7f00:1::]/",
        ] {
            let refused = Target::parse(url, false);
            assert!(matches!(refused, Err(InvalidUrl::Reserved(..))), "{url}: {refused:?}");
            assert!(Target::parse(url, true).is_ok(), "{url}");
        }
        assert!(Target::parse("http://10.0.0.1/hook", true).unwrap().tls.is_none());
    }

    #[test]
    fn a_location_shows_its_place_only() {
        let target = Target::parse("https://chat.example/hook/s3cret", false).unwrap();
        for (location, place) in [
            ("http://10.0.0.1/s3cret?x", Some("http://10.0.0.1")),
            ("/login?next=s3cret", Some("https://chat.example")),
            ("//evil.example/x", Some("https://evil.example")),
            ("https://me:pw@evil.example:1/", Some("https://evil.example:1")),
            ("javascript:alert(1)", None),
            ("https://", None),
        ] {
            assert_eq!(target.place_of(location).map(|place| place.to_string()).as_deref(), place, "{location}");
        }
    }

    proptest! {
        #[test]
        fn no_refusal_repeats_a_secret(mess in "[ -~]{0,12}", query in "[ -~é日]{0,12}") {
            for url in [format!("https://chat.example/s3cret{mess}?{query}"), format!("{mess}s3cret{query}")] {
                if let Err(error) = Target::parse(&url, false) {
                    prop_assert!(!error.to_string().contains("s3cret"), "{error}");
                }
            }
        }

        #[test]
        fn no_text_panics_and_no_literal_passes_unchecked(text in "(https?://)?[0-9a-fx.:\\[\\]@/%#?]{0,30}") {
            if let Ok(target) = Target::parse(&text, false) {
                prop_assert!(target.tls.is_some());
                if let TargetHost::Address(address) = target.host {
                    prop_assert_eq!(reserved(address), None);
                }
            }
        }
    }
}
