//! Addresses as `tmkms.toml` writes them: `tcp://[peerid@]host:port`, the same without `tcp://`, `unix:///path`.
//!
//! Read by hand: the URL rules that tmkms applies drop the host of `unix://host/path` and percent-encode paths.

use highwater_core::consensus::PeerId;
use std::{fmt, net::Ipv6Addr, path::PathBuf};

/// Hex digits in a peer id (CometBFT `p2p.IDByteLength`, twice).
const PEER_ID_DIGITS: usize = 40;

/// An address. Nothing has connected to it yet.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Address {
    Tcp { peer_id: Option<PeerId>, host: String, port: u16 },
    Unix { path: PathBuf },
}

impl Address {
    pub(super) fn parse(text: &str) -> Result<Self, AddressError> {
        match text.split_once("://") {
            None => parse_tcp(text),
            Some(("noise", _)) => Err(AddressError::Noise),
            Some(("tcp", rest)) => parse_tcp(rest),
            Some(("unix", rest)) => parse_unix(rest),
            Some((scheme, _)) => Err(AddressError::Scheme { scheme: scheme.into() }),
        }
    }
}

fn parse_tcp(text: &str) -> Result<Address, AddressError> {
    let (peer_id, rest) = match text.split_once('@') {
        Some((peer_id, rest)) => (Some(parse_peer_id(peer_id)?), rest),
        None => (None, text),
    };
    // tmkms reads addresses as URLs, and a URL may end in a slash.
    let rest = rest.strip_suffix('/').unwrap_or(rest);
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
        let host = inner.strip_suffix(']').filter(|inner| inner.parse::<Ipv6Addr>().is_ok());
        return host.map(Into::into).ok_or(AddressError::Ipv6);
    }
    if text.contains(':') {
        return Err(AddressError::Ipv6);
    }
    if text.is_empty() || !text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_')) {
        return Err(AddressError::Host);
    }
    Ok(text.into())
}

fn parse_port(text: &str) -> Result<u16, AddressError> {
    // `u16::parse` accepts "+1" too.
    let digits = Some(text).filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
    digits.and_then(|digits| digits.parse().ok()).filter(|port| *port != 0).ok_or(AddressError::Port)
}

fn parse_unix(text: &str) -> Result<Address, AddressError> {
    match text {
        _ if text.starts_with('@') => Err(AddressError::Abstract),
        _ if !text.starts_with('/') => Err(AddressError::RelativePath),
        _ if text.ends_with('/') || text.contains('\0') => Err(AddressError::SocketPath),
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
    /// An IPv6 address that is malformed or has no brackets.
    Ipv6,
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
}

impl fmt::Display for AddressError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Abstract => {
                "abstract sockets are not supported: give the path of a socket, as in unix:///run/node.sock"
            }
            Self::Host => "the host must be a name of letters, digits, '.', '-' and '_', or an IP address",
            Self::Ipv6 => "an IPv6 address must be in brackets, as in tcp://[::1]:26658",
            Self::Noise => "noise:// is not supported: use tcp:// or unix://",
            Self::PeerId => "the peer id before the '@' must have 40 hex digits (`cometbft show-node-id` prints it)",
            Self::Port => "the port after the last ':' must be a number from 1 to 65535, and nothing may follow it",
            Self::PortMissing => "the port is missing: write tcp://host:port",
            Self::RelativePath => "a socket's path must be absolute: write unix:///path with three slashes",
            Self::Scheme { scheme } => {
                return write!(f, "{scheme:?} is not a known kind of address: use tcp:// or unix://");
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
            ("[2001:db8::1]:26658", tcp("2001:db8::1", 26658)),
            ("tcp://[::1]:26658", tcp("::1", 26658)),
        ] {
            assert_eq!(Address::parse(text), expected, "{text}");
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
        for path in ["/run/node.sock", "/run/a b%20c/ä.sock", "/run/@x"] {
            let expected = Address::Unix { path: path.into() };
            assert_eq!(Address::parse(&format!("unix://{path}")), Ok(expected));
        }
    }

    #[test]
    fn a_wrong_address_says_why() {
        for (text, expected) in [
            ("unix://@name", AddressError::Abstract),
            ("tcp://:26658", AddressError::Host),
            ("tcp://a/b:26658", AddressError::Host),
            ("tcp://a b:26658", AddressError::Host),
            ("", AddressError::PortMissing),
            ("tcp://host", AddressError::PortMissing),
            ("tcp://[::1]", AddressError::PortMissing),
            ("tcp://::1:26658", AddressError::Ipv6),
            ("tcp://[host]:26658", AddressError::Ipv6),
            ("tcp://[::1:26658", AddressError::Ipv6),
            ("noise://host:26658", AddressError::Noise),
            ("tcp://@host:26658", AddressError::PeerId),
            ("tcp://f888@host:26658", AddressError::PeerId),
            ("tcp://ä88883b673fc69d7869cab098de3bafc2ff76eb@host:1", AddressError::PeerId),
            ("tcp://host:0", AddressError::Port),
            ("tcp://host:65536", AddressError::Port),
            ("tcp://host:+1", AddressError::Port),
            ("tcp://host:", AddressError::Port),
            ("tcp://host:26658/a", AddressError::Port),
            ("unix://run/node.sock", AddressError::RelativePath),
            ("unix://", AddressError::RelativePath),
            ("http://host:1", AddressError::Scheme { scheme: "http".into() }),
            ("unix:///", AddressError::SocketPath),
            ("unix:///a\0b", AddressError::SocketPath),
        ] {
            assert_eq!(Address::parse(text), Err(expected), "{text}");
        }
    }
}
