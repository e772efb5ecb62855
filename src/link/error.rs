//! Why a link ended, in words for the operator.

use crate::process::refused;
use highwater_core::consensus::PeerId;
use highwater_core::privval::frame::FrameError;
use std::{fmt, io};

/// Why a link could not be made, or has ended.
#[derive(Debug)]
pub enum LinkError {
    /// The node closed the connection.
    Closed,
    /// The connection could not be made.
    Connect(io::Error),
    /// The node sent bytes that are not a message.
    Frame(FrameError),
    /// The handshake of SecretConnection failed.
    Handshake(String),
    /// The operating system reported an error.
    Io(io::Error),
    /// A peer made the SecretConnection code panic.
    Panic(String),
    /// The connection leads back to this signer.
    Reflected,
    /// The host name does not resolve.
    Resolve { host: String, error: io::Error },
    /// The node is silent or stuck.
    Timeout,
    /// The node sent a message of an unknown kind, to which no answer fits.
    Unanswerable,
    /// The node is not the pinned one.
    WrongPeer { found: PeerId, expected: PeerId },
}

impl From<io::Error> for LinkError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset | io::ErrorKind::UnexpectedEof => Self::Closed,
            io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => Self::Timeout,
            _ => Self::Io(error),
        }
    }
}

impl From<FrameError> for LinkError {
    fn from(error: FrameError) -> Self {
        Self::Frame(error)
    }
}

impl fmt::Display for LinkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed => f.write_str("the node closed the connection"),
            Self::Connect(error) => {
                let node = "Is the node up, and is its priv_validator_laddr this address?";
                write!(f, "cannot connect: {error}. {}", refused::advice(error).unwrap_or(node))
            }
            Self::Frame(error) => write!(f, "{error}"),
            Self::Handshake(why) => write!(f, "the secret connection failed: {why}"),
            Self::Io(error) => write!(f, "{error}"),
            Self::Panic(what) => write!(f, "the peer sent what no node sends in the secret connection ({what})"),
            Self::Reflected => f.write_str("the connection leads back to this signer: is the node listening?"),
            Self::Resolve { host, error } => write!(f, "cannot resolve {host}: {error}"),
            Self::Timeout => f.write_str("the node fell silent"),
            Self::Unanswerable => f.write_str(
                "the node sent a message of an unknown kind. Is the address the priv_validator_laddr of a CometBFT \
                 node?",
            ),
            Self::WrongPeer { found, expected } => write!(
                f,
                "the node has peer id {found}, but the configuration pins {expected}. A stock CometBFT node makes a \
                 new id at every start: pin an id only if a proxy or a patched node keeps it"
            ),
        }
    }
}

impl std::error::Error for LinkError {}
