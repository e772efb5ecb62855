//! Connections to validator nodes.
//!
//! A link carries whole messages, over `tcp://` with SecretConnection or over `unix://` in the clear.

mod error;
mod secret;
mod tcp;
mod unix;

pub use error::LinkError;
pub use tcp::tcp;
pub use unix::unix;

use crate::{config::NodeAddress, keyring::IdentityKey};
use highwater_core::{consensus::PeerId, privval::frame::LengthPrefix};
use std::{
    io,
    net::{Shutdown, SocketAddr, TcpStream},
    os::unix::net::UnixStream,
    sync::Arc,
    time::Duration,
};

/// How long connecting may take.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// A connection to a node that carries messages.
pub trait Link: Send {
    /// Waits for the next message and replaces the content of `body` with its body.
    fn receive(&mut self, body: &mut Vec<u8>) -> Result<(), LinkError>;
    /// Sends whole messages, in one write if they fit.
    fn send(&mut self, frames: &[u8]) -> Result<(), LinkError>;
    /// The peer id of the node, if the link has one.
    fn peer(&self) -> Option<PeerId>;
}

/// A connection whose node has not sent anything yet. A node serves one signer and leaves every other in its backlog,
/// so this is also where a standby waits, without a deadline, for the node to accept it.
pub trait Door: Send {
    /// A handle that closes the connection from another thread.
    fn closer(&self) -> io::Result<Closer>;
    /// Waits until the node sends something, then turns the connection into a link.
    fn enter(self: Box<Self>) -> Result<Box<dyn Link>, LinkError>;
}

/// Connects to the node at `address`. `identity` is who we are on a link that proves it; `resolve` looks up a host.
pub fn dial(
    address: &NodeAddress,
    identity: Option<&Arc<IdentityKey>>,
    resolve: impl FnOnce(&str, u16) -> io::Result<Vec<SocketAddr>>,
    timeout: Duration,
) -> Result<Box<dyn Door>, LinkError> {
    match address {
        NodeAddress::Tcp { peer_id, host, port, .. } => {
            let identity = Arc::clone(identity.expect("a tcp node has an identity key"));
            let addresses = resolve(host, *port).map_err(|error| LinkError::Resolve { host: host.clone(), error })?;
            Ok(Box::new(tcp(&addresses, identity, *peer_id, timeout)?))
        }
        NodeAddress::Unix { path } => Ok(Box::new(unix(path, timeout)?)),
    }
}

/// Ends a connection from another thread: a blocked read returns, but an answer in progress can still be written.
pub enum Closer {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Closer {
    /// Shuts down the reading side.
    pub fn close(&self) {
        // An error means that the connection has ended already.
        let _ = match self {
            Self::Tcp(stream) => stream.shutdown(Shutdown::Read),
            Self::Unix(stream) => stream.shutdown(Shutdown::Read),
        };
    }
}

/// Reads one message from a stream of bytes.
fn receive_message(stream: &mut impl io::BufRead, body: &mut Vec<u8>) -> Result<(), LinkError> {
    /// The memory that an idle link keeps: one long request must not hold its memory for ever.
    const KEEP_BYTES: usize = 64 * 1024;
    /// How much is allocated beyond the bytes that have arrived.
    const STEP_BYTES: usize = 64 * 1024;
    let mut prefix = LengthPrefix::default();
    let length = loop {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        if let Some(length) = prefix.push(byte[0])? {
            break length;
        }
    };
    body.clear();
    body.shrink_to(KEEP_BYTES);
    while body.len() < length {
        let begin = body.len();
        body.resize(length.min(begin + STEP_BYTES), 0);
        stream.read_exact(&mut body[begin..])?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use highwater_core::privval::frame::{FrameError, REQUEST_MAX_BYTES};
    use std::io::Cursor;

    #[test]
    fn messages_follow_each_other_whatever_their_length() {
        let lengths = [0, 1, 127, 128, 1024, 65_536, 65_537, 200_000, 3];
        let mut stream = Vec::new();
        for (index, length) in lengths.iter().enumerate() {
            prost::encoding::encode_varint(*length as u64, &mut stream);
            stream.extend(vec![u8::try_from(index).unwrap(); *length]);
        }
        let mut stream = Cursor::new(stream);
        let mut body = Vec::new();
        for (index, length) in lengths.iter().enumerate() {
            receive_message(&mut stream, &mut body).unwrap();
            assert_eq!(body, vec![u8::try_from(index).unwrap(); *length]);
        }
        assert!(matches!(receive_message(&mut stream, &mut body), Err(LinkError::Closed)));
    }

    #[test]
    fn a_promise_of_four_mebibytes_costs_no_memory_until_it_is_kept() {
        let mut stream = Vec::new();
        prost::encoding::encode_varint(REQUEST_MAX_BYTES as u64, &mut stream);
        stream.extend([0; 10]);
        let mut body = Vec::new();
        assert!(receive_message(&mut Cursor::new(stream), &mut body).is_err());
        assert!(body.capacity() <= 128 * 1024, "{}", body.capacity());
    }

    #[test]
    fn a_longer_promise_is_refused() {
        let mut stream = Vec::new();
        prost::encoding::encode_varint(REQUEST_MAX_BYTES as u64 + 1, &mut stream);
        let error = receive_message(&mut Cursor::new(stream), &mut Vec::new()).unwrap_err();
        assert!(matches!(error, LinkError::Frame(FrameError::TooLong { .. })));
    }
}
