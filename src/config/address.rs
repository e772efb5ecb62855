//! Addresses as `tmkms.toml` writes them: `tcp://[peerid@]host:port`, the same without `tcp://`, `unix:///path`.
//!
//! Read by hand: the URL rules that tmkms applies drop the host of `unix://host/path` and percent-encode paths. Of those rules, it
//! keeps what operators rely on: blanks around an address and the case of `TCP://` mean nothing, and what follows the port
//! or a `?` is ignored.

use highwater_core::consensus::PeerId;
use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::PathBuf,
};

/// Hex digits in a peer id (CometBFT `p2p.IDByteLength`, twice).
const PEER_ID_DIGITS: usize = 40;
/// The longest label of a host name (RFC 1035).
const LABEL_MAX_BYTES: usize = 63;
/// The longest host name, without a dot at its end.
const NAME_MAX_BYTES: usize = 253;
/// The longest path of a socket: `sun_path` of unix(7) has 108 bytes, the last one for a NUL.
pub const SOCKET_PATH_MAX_BYTES: usize = 107;

/// An address. Nothing has connected to it yet.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Address {
    Tcp { peer_id: Option<PeerId>, host: String, port: u16 },
    Unix { path: PathBuf },
}

impl Address {
    pub(super) fn parse(text: &str) -> Result<Self, AddressError> {
        // A URL may have blanks around it, and its scheme is in any case.
        let text = text.trim();
        let Some((scheme, rest)) = text.split_once("://") else { return parse_tcp(text) };
        match scheme.to_ascii_lowercase().as_str() {
            "noise" => Err(AddressError::Noise),
            "tcp" => parse_tcp(rest),
            "unix" => parse_unix(rest),
            _ => Err(AddressError::Scheme { scheme: scheme.into() }),
        }
    }
}

/// The part of an address that tmkms ignores: after a `?` or `#`, and after the port of a TCP address.
pub(super) fn ignored_part(text: &str) -> Option<&str> {
    let text = text.trim();
    let (scheme, rest) = text.split_once("://").unwrap_or(("tcp", text));
    let begins = if scheme.eq_ignore_ascii_case("unix") { &['?', '#'][..] } else { &['/', '?', '#'][..] };
    let ignored = &rest[rest.find(begins)?..];
    (ignored != "/").then_some(ignored)
}

fn parse_tcp(text: &str) -> Result<Address, AddressError> {
    // tmkms reads addresses as URLs: a path, a query and a fragment may follow the port.
    let text = &text[..text.find(['/', '?', '#']).unwrap_or(text.len())];
    let (peer_id, rest) = match text.split_once('@') {
        Some((peer_id, rest)) => (Some(parse_peer_id(peer_id)?), rest),
        None => (None, text),
    };
    let (host, port) =
        rest.rsplit_once(':').filter(|(_, port)| !port.ends_with(']')).ok_or(AddressError::PortMissing)?;
    let host = parse_host(host)?;
    let port = parse_port(port)?;
    Ok(Address::Tcp { peer_id, host, port })
}

fn parse_peer_id(text: &str) -> Result<PeerId, AddressError> {
    if text.len() != PEER_ID_DIGITS || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(AddressError::PeerId);
    }
    let bytes = subtle_encoding::hex::decode(text.to_ascii_lowercase()).map_err(|_| AddressError::PeerId)?;
    bytes.try_into().map(PeerId).map_err(|_| AddressError::PeerId)
}

fn parse_host(text: &str) -> Result<String, AddressError> {
    if let Some(inner) = text.strip_prefix('[') {
        let address: Option<Ipv6Addr> = inner.strip_suffix(']').and_then(|inner| inner.parse().ok());
        let address = address.ok_or(AddressError::Ipv6)?;
        return one_machine(address.into()).map(|()| inner.trim_end_matches(']').into());
    }
    if text.contains(':') {
        return Err(AddressError::Ipv6);
    }
    if text.is_empty() || !text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_')) {
        return Err(AddressError::Host);
    }
    let name = text.strip_suffix('.').unwrap_or(text);
    // No top-level domain is a number, so this can only be an IPv4 address. The standard library refuses leading zeros,
    // which other programs read as octal.
    if name.rsplit('.').next().is_some_and(|last| last.bytes().all(|byte| byte.is_ascii_digit()) && !last.is_empty()) {
        let address: Ipv4Addr = text.parse().map_err(|_| AddressError::Ipv4)?;
        return one_machine(address.into()).map(|()| text.into());
    }
    if name.len() > NAME_MAX_BYTES || name.split('.').any(|label| !(1..=LABEL_MAX_BYTES).contains(&label.len())) {
        return Err(AddressError::Name);
    }
    Ok(text.into())
}

/// Refuses addresses of many machines, which no TCP connection reaches.
fn one_machine(address: IpAddr) -> Result<(), AddressError> {
    if address.is_multicast() || address == IpAddr::V4(Ipv4Addr::BROADCAST) {
        return Err(AddressError::Multicast);
    }
    Ok(())
}

fn parse_port(text: &str) -> Result<u16, AddressError> {
    // `u16::parse` accepts "+1" too.
    let digits = Some(text).filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
    digits.and_then(|digits| digits.parse().ok()).filter(|port| *port != 0).ok_or(AddressError::Port)
}

fn parse_unix(text: &str) -> Result<Address, AddressError> {
    let text = &text[..text.find(['?', '#']).unwrap_or(text.len())];
    match text {
        _ if text.starts_with('@') => Err(AddressError::Abstract),
        _ if !text.starts_with('/') => Err(AddressError::RelativePath),
        _ if text.ends_with('/') || text.contains('\0') => Err(AddressError::SocketPath),
        _ if text.len() > SOCKET_PATH_MAX_BYTES => Err(AddressError::SocketPathTooLong { bytes: text.len() }),
        _ => Ok(Address::Unix { path: text.into() }),
    }
}

/// Why a text is not an address.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum AddressError {
    /// `unix://@name`.
    Abstract,
    /// A host that is neither a name nor an IP address.
    Host,
    /// Numbers and dots that are not an IPv4 address.
    Ipv4,
    /// An IPv6 address that is malformed or has no brackets.
    Ipv6,
    /// The address of many machines.
    Multicast,
    /// A host name that no name service can have.
    Name,
    /// `noise://`.
    Noise,
    /// Something other than 40 hex digits before the `@`.
    PeerId,
    /// A port outside 1 to 65535.
    Port,
    PortMissing,
    /// `unix://path` with two slashes.
    RelativePath,
    Scheme {
        /// The text before `://`.
        scheme: String,
    },
    /// A path that cannot name a socket.
    SocketPath,
    /// A path that is longer than the system allows.
    SocketPathTooLong {
        /// Its length.
        bytes: usize,
    },
}

impl fmt::Display for AddressError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Abstract => {
                "abstract sockets are not supported: give the path of a socket, as in unix:///run/node.sock"
            }
            Self::Host => "the host must be a name of letters, digits, '.', '-' and '_', or an IP address",
            Self::Ipv4 => {
                "an IPv4 address has four numbers from 0 to 255 without leading zeros, as in tcp://10.0.0.1:26658"
            }
            Self::Ipv6 => "an IPv6 address must be in brackets, as in tcp://[::1]:26658",
            Self::Multicast => "this address stands for many machines, and no connection can be made to it: name one node",
            Self::Name => {
                "no host has such a name: between its dots it has 1 to 63 characters, and 253 in all. Correct the name"
            }
            Self::Noise => "noise:// is not supported: use tcp:// or unix://",
            Self::PeerId => {
                "what stands before the '@' is not a peer id, which has 40 hex digits: remove it and the '@'. A CometBFT node \
                 makes a new id for its signer's port at every start, so no id can be pinned there; the one that `cometbft \
                 show-node-id` prints is that of another port"
            }
            Self::Port => "the port after the last ':' must be a number from 1 to 65535",
            Self::PortMissing => "the port is missing: write tcp://host:port",
            Self::RelativePath => "a socket's path must be absolute: write unix:///path with three slashes",
            Self::Scheme { scheme } => {
                return write!(f, "{scheme:?} is not a known kind of address: use tcp:// or unix://");
            }
            Self::SocketPathTooLong { bytes } => {
                return write!(
                    f,
                    "the path of a socket has at most {SOCKET_PATH_MAX_BYTES} bytes, and this one has {bytes}: give the socket a \
                     shorter path, here and in the node's configuration"
                );
            }
            Self::SocketPath => "this path does not name a socket: write it as in unix:///run/node.sock",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER_ID: &str = "f88883b673fc69d7869cab098de3bafc2ff76eb8";

    fn tcp(host: &str, port: u16) -> Result<Address, AddressError> {
        Ok(Address::Tcp { peer_id: None, host: host.into(), port })
    }

    #[test]
    fn tcp_addresses_with_and_without_scheme_and_brackets() {
        for (text, expected) in [
            ("tcp://node.example.com:26658", tcp("node.example.com", 26658)),
            ("node_1:1", tcp("node_1", 1)),
            ("tcp://node:26658/", tcp("node", 26658)),
            ("tcp://10.0.0.1:65535", tcp("10.0.0.1", 65535)),
            ("tcp://node.example.com.:1", tcp("node.example.com.", 1)),
            ("tcp://3.node7:1", tcp("3.node7", 1)),
            ("[2001:db8::1]:26658", tcp("2001:db8::1", 26658)),
            ("tcp://[::1]:26658", tcp("::1", 26658)),
        ] {
            assert_eq!(Address::parse(text), expected, "{text}");
        }
        let longest = format!("{0}.{0}.{0}.{1}", "a".repeat(63), "b".repeat(61));
        assert_eq!(Address::parse(&format!("tcp://{longest}:1")), tcp(&longest, 1));
    }

    #[test]
    fn blanks_case_and_what_follows_the_port_mean_nothing_as_in_tmkms() {
        for (text, ignored) in [
            ("tcp://h:1 ", None),
            ("\t tcp://h:1\n", None),
            ("TCP://h:1", None),
            ("Tcp://h:1/", None),
            (" h:1", None),
            ("tcp://h:1?a=b", Some("?a=b")),
            ("tcp://h:1/path", Some("/path")),
            ("tcp://h:1/#a", Some("/#a")),
        ] {
            assert_eq!((Address::parse(text), ignored_part(text)), (tcp("h", 1), ignored), "{text:?}");
        }
        for (text, ignored) in [("UNIX:///a.sock ", None), ("unix:///a.sock?b", Some("?b"))] {
            let expected = Ok(Address::Unix { path: "/a.sock".into() });
            assert_eq!((Address::parse(text), ignored_part(text)), (expected, ignored), "{text:?}");
        }
    }

    #[test]
    fn peer_ids_in_either_case_are_the_same() {
        for id in [PEER_ID.to_owned(), PEER_ID.to_uppercase()] {
            for text in [format!("tcp://{id}@h:1"), format!("{id}@h:1")] {
                let Ok(Address::Tcp { peer_id: Some(peer_id), .. }) = Address::parse(&text) else {
                    panic!("{text} has a peer id");
                };
                assert_eq!(peer_id.to_string(), PEER_ID);
            }
        }
    }

    #[test]
    fn unix_paths_are_taken_verbatim() {
        let longest = format!("/{}", "a".repeat(SOCKET_PATH_MAX_BYTES - 1));
        for path in ["/run/node.sock", "/run/a b%20c/ä.sock", "/run/@x", &longest] {
            let expected = Address::Unix { path: path.into() };
            assert_eq!(Address::parse(&format!("unix://{path}")), Ok(expected));
        }
    }

    #[test]
    fn a_wrong_address_says_why() {
        let long_label = format!("tcp://{}.com:1", "a".repeat(64));
        let long_name = format!("tcp://{0}.{0}.{0}.{1}:1", "a".repeat(63), "b".repeat(62));
        let long_path = format!("unix:///{}", "a".repeat(107));
        for (text, expected) in [
            ("unix://@name", AddressError::Abstract),
            ("tcp://:26658", AddressError::Host),
            ("tcp://a b:26658", AddressError::Host),
            ("", AddressError::PortMissing),
            ("tcp://host", AddressError::PortMissing),
            ("tcp://a/b:26658", AddressError::PortMissing),
            ("tcp://[::1]", AddressError::PortMissing),
            ("tcp://123.456.32.123:26659", AddressError::Ipv4),
            ("tcp://10.0.0.01:26659", AddressError::Ipv4),
            ("tcp://10.1:26659", AddressError::Ipv4),
            ("tcp://10.0.0.1.:26659", AddressError::Ipv4),
            ("tcp://26659:26659", AddressError::Ipv4),
            ("tcp://::1:26658", AddressError::Ipv6),
            ("tcp://[host]:26658", AddressError::Ipv6),
            ("tcp://[::1:26658", AddressError::Ipv6),
            ("tcp://224.0.0.1:26658", AddressError::Multicast),
            ("tcp://255.255.255.255:26658", AddressError::Multicast),
            ("tcp://[ff02::1]:26658", AddressError::Multicast),
            (&long_label, AddressError::Name),
            (&long_name, AddressError::Name),
            ("tcp://a..b:1", AddressError::Name),
            ("tcp://.:1", AddressError::Name),
            ("noise://host:26658", AddressError::Noise),
            ("tcp://@host:26658", AddressError::PeerId),
            ("tcp://f888@host:26658", AddressError::PeerId),
            ("tcp://ä88883b673fc69d7869cab098de3bafc2ff76eb@host:1", AddressError::PeerId),
            ("tcp://host:0", AddressError::Port),
            ("tcp://host:65536", AddressError::Port),
            ("tcp://host:+1", AddressError::Port),
            ("tcp://host:", AddressError::Port),
            ("unix://run/node.sock", AddressError::RelativePath),
            ("unix://", AddressError::RelativePath),
            ("http://host:1", AddressError::Scheme { scheme: "http".into() }),
            ("unix:///", AddressError::SocketPath),
            ("unix:///a\0b", AddressError::SocketPath),
            (&long_path, AddressError::SocketPathTooLong { bytes: 108 }),
        ] {
            assert_eq!(Address::parse(text), Err(expected), "{text}");
        }
    }
}
