//! Why a link ended, from the operator's side.

use highwater_core::consensus::PeerId;
use highwater_core::privval::frame::FrameError;
use std::{fmt, io};

/// Why there is no link, or no longer one.
#[derive(Debug)]
pub enum LinkError {
    /// The node closed the connection.
    Closed,
    /// No connection came about.
    Connect(io::Error),
    /// The node sent something that is no message.
    Frame(FrameError),
    /// SecretConnection did not come about.
    Handshake(String),
    /// The operating system failed.
    Io(io::Error),
    /// A peer made the SecretConnection code panic.
    Panic(String),
    /// The connection leads back to ourselves.
    Reflected,
    /// The host name does not resolve.
    Resolve {
        /// The name.
        host: String,
        /// What the resolver said.
        error: io::Error,
    },
    /// The node is silent or stuck.
    Timeout,
    /// The node sent a message of no known kind, which no answer fits.
    Unanswerable,
    /// The node is not the pinned one.
    WrongPeer {
        /// Who answered.
        found: PeerId,
        /// Who should have.
        expected: PeerId,
    },
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
                write!(f, "cannot connect: {error}. Is the node up, and is its priv_validator_laddr this address?")
            }
            Self::Frame(error) => write!(f, "{error}"),
            Self::Handshake(why) => write!(f, "the secret connection failed: {why}"),
            Self::Io(error) => write!(f, "{error}"),
            Self::Panic(what) => write!(f, "the peer sent what no node sends during the secret connection ({what})"),
            Self::Reflected => f.write_str("the connection leads back to this signer: is the node listening?"),
            Self::Resolve { host, error } => write!(f, "cannot resolve {host}: {error}"),
            Self::Timeout => f.write_str("the node fell silent"),
            Self::Unanswerable => f.write_str(
                "the node sent a message of no known kind, which no answer fits. Does the address belong to a \
                 CometBFT node's priv_validator_laddr?",
            ),
            Self::WrongPeer { found, expected } => write!(
                f,
                "the node has peer id {found}, the configuration pins {expected}. A stock CometBFT node makes a new id \
                 at every start: pin none unless a proxy or patched node keeps its id"
            ),
        }
    }
}

impl std::error::Error for LinkError {}
