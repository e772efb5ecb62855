//! `tcp://`: TCP with SecretConnection.

use super::{CONNECT_TIMEOUT, Closer, Door, Link, LinkError, secret::SecretLink};
use crate::keyring::IdentityKey;
use highwater_core::consensus::PeerId;
use socket2::{SockRef, TcpKeepalive};
use std::{
    io,
    net::{SocketAddr, TcpStream},
    sync::Arc,
    time::Duration,
};

/// A TCP connection whose node has not sent anything yet.
struct TcpDoor {
    stream: TcpStream,
    identity: Arc<IdentityKey>,
    pinned: Option<PeerId>,
    timeout: Duration,
}

/// Connects to a node, trying each of its addresses once.
pub fn tcp(
    addresses: &[SocketAddr],
    identity: Arc<IdentityKey>,
    pinned: Option<PeerId>,
    timeout: Duration,
) -> Result<impl Door + use<>, LinkError> {
    let mut last = LinkError::Connect(io::Error::other("its host name has no address"));
    for address in addresses {
        match TcpStream::connect_timeout(address, CONNECT_TIMEOUT) {
            Ok(stream) => {
                prepare(&stream)?;
                return Ok(TcpDoor { stream, identity, pinned, timeout });
            }
            Err(error) => last = LinkError::Connect(error),
        }
    }
    Err(last)
}

/// Sends answers without delay, and turns keepalive on: a waiting connection is read without a deadline, and only
/// keepalive notices that its host is gone.
fn prepare(stream: &TcpStream) -> io::Result<()> {
    const KEEPALIVE_IDLE: Duration = Duration::from_secs(10);
    const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
    const KEEPALIVE_PROBES: u32 = 3;
    stream.set_nodelay(true)?;
    let keepalive =
        TcpKeepalive::new().with_time(KEEPALIVE_IDLE).with_interval(KEEPALIVE_INTERVAL).with_retries(KEEPALIVE_PROBES);
    SockRef::from(stream).set_tcp_keepalive(&keepalive)
}

impl Door for TcpDoor {
    fn closer(&self) -> io::Result<Closer> {
        self.stream.try_clone().map(Closer::Tcp)
    }

    /// The node writes first, right after it accepts (CometBFT `privval/signer_listener_endpoint.go`). Until then the
    /// connection waits in its backlog. Connecting anew would only leave a dead entry there.
    fn enter(self: Box<Self>) -> Result<Box<dyn Link>, LinkError> {
        if self.stream.peek(&mut [0])? == 0 {
            return Err(LinkError::Closed);
        }
        self.stream.set_read_timeout(Some(self.timeout))?;
        self.stream.set_write_timeout(Some(self.timeout))?;
        Ok(Box::new(SecretLink::handshake(self.stream, &self.identity, self.pinned)?))
    }
}
