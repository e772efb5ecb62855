//! `unix://`: messages in the clear, over a socket that only its permissions protect.

use super::{CONNECT_TIMEOUT, Closer, Door, Link, LinkError, receive_message};
use highwater_core::consensus::PeerId;
use socket2::{Domain, SockAddr, Socket, Type};
use std::{
    io::{self, BufRead as _, BufReader, Write as _},
    os::{fd::OwnedFd, unix::net::UnixStream},
    path::Path,
    time::Duration,
};

/// A unix connection whose node has not sent anything yet.
struct UnixDoor {
    stream: UnixStream,
    timeout: Duration,
}

struct UnixLink {
    stream: BufReader<UnixStream>,
}

/// Connects to the socket at `path`.
pub fn unix(path: &Path, timeout: Duration) -> Result<impl Door + use<>, LinkError> {
    Ok(UnixDoor { stream: connect(path).map_err(LinkError::Connect)?, timeout })
}

/// Uses socket2, because std's connect waits without a limit while the listener's backlog is full.
fn connect(path: &Path) -> io::Result<UnixStream> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.connect_timeout(&SockAddr::unix(path)?, CONNECT_TIMEOUT)?;
    Ok(OwnedFd::from(socket).into())
}

impl Door for UnixDoor {
    fn closer(&self) -> io::Result<Closer> {
        self.stream.try_clone().map(Closer::Unix)
    }

    fn enter(self: Box<Self>) -> Result<Box<dyn Link>, LinkError> {
        /// More than enough for a vote. Longer requests bypass the buffer.
        const BUFFER_BYTES: usize = 4096;
        let mut stream = BufReader::with_capacity(BUFFER_BYTES, self.stream);
        if stream.fill_buf()?.is_empty() {
            return Err(LinkError::Closed);
        }
        stream.get_ref().set_read_timeout(Some(self.timeout))?;
        stream.get_ref().set_write_timeout(Some(self.timeout))?;
        Ok(Box::new(UnixLink { stream }))
    }
}

impl Link for UnixLink {
    fn receive(&mut self, body: &mut Vec<u8>) -> Result<(), LinkError> {
        receive_message(&mut self.stream, body)
    }

    fn send(&mut self, frames: &[u8]) -> Result<(), LinkError> {
        Ok(self.stream.get_mut().write_all(frames)?)
    }

    fn peer(&self) -> Option<PeerId> {
        None
    }
}
