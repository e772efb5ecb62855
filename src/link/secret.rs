//! SecretConnection, through tendermint-p2p.

use super::{Link, LinkError, receive_message};
use crate::{keyring::IdentityKey, process::panic};
use highwater_core::consensus::PeerId;
use sha2::{Digest as _, Sha256};
use std::{
    io::{self, BufReader, Read, Write},
    net::TcpStream,
};
use subtle::ConstantTimeEq as _;
use tendermint_p2p::secret_connection::{DATA_MAX_SIZE, PublicKey, SecretConnection, Version};

/// A secret connection that carries messages.
pub(super) struct SecretLink {
    /// The buffer holds a whole chunk: the crate panics when it reads into less.
    stream: BufReader<Contained>,
    peer: PeerId,
}

/// Contains panics of the crate: every call into it goes through here.
struct Contained(SecretConnection<TcpStream>);

impl SecretLink {
    /// Runs the handshake on `stream`, which must have its time-outs set.
    pub(super) fn handshake(
        stream: TcpStream,
        identity: &IdentityKey,
        pinned: Option<PeerId>,
    ) -> Result<Self, LinkError> {
        // The format has not changed since v0.34, so the crate names it after that version.
        let handshake = contain(|| SecretConnection::new(stream, identity.to_consensus_key(), Version::V0_34))?;
        let connection = handshake.map_err(|error| LinkError::Handshake(one_line(&error.to_string())))?;
        let PublicKey::Ed25519(key) = contain(|| connection.remote_pubkey())?;
        let peer = peer_id(key.as_bytes());
        if peer == identity.peer_id() {
            return Err(LinkError::Reflected);
        }
        if let Some(expected) = pinned.filter(|expected| !bool::from(expected.0.ct_eq(&peer.0))) {
            return Err(LinkError::WrongPeer { found: peer, expected });
        }
        Ok(Self { stream: BufReader::with_capacity(DATA_MAX_SIZE, Contained(connection)), peer })
    }
}

impl Link for SecretLink {
    fn receive(&mut self, body: &mut Vec<u8>) -> Result<(), LinkError> {
        receive_message(&mut self.stream, body)
    }

    fn send(&mut self, frames: &[u8]) -> Result<(), LinkError> {
        Ok(self.stream.get_mut().write_all(frames)?)
    }

    fn peer(&self) -> Option<PeerId> {
        Some(self.peer)
    }
}

impl Read for Contained {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        contain(|| self.0.read(buffer)).map_err(io::Error::other)?
    }
}

impl Write for Contained {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        contain(|| self.0.write(buffer)).map_err(io::Error::other)?
    }

    fn flush(&mut self) -> io::Result<()> {
        contain(|| self.0.flush()).map_err(io::Error::other)?
    }
}

fn contain<T>(call: impl FnOnce() -> T) -> Result<T, LinkError> {
    panic::contain(call).map_err(LinkError::Panic)
}

fn peer_id(key: &[u8]) -> PeerId {
    let mut id = [0; 20];
    id.copy_from_slice(&Sha256::digest(key)[..20]);
    PeerId(id)
}

/// The crate's errors have a trace of their sources over several lines. The first lines say what happened.
fn one_line(text: &str) -> String {
    text.lines().map(str::trim).filter(|line| !line.is_empty()).take(2).collect::<Vec<_>>().join(": ")
}
